//! Waiting for all services, closing, and planned ends: shutdowns, restarts and stops.

use std::{
    pin::pin,
    task::{Context, Poll, Waker},
};

use mainstay::{ServiceSet, error::AllReadyError};

use super::{
    Operation, counted,
    graphs::{
        Order::{DependenciesFirst, Random},
        in_order, through_a_hub,
    },
    services::Services,
};

pub(super) const OPERATIONS: &[Operation] = &[
    Operation::new("wait for all: all are ready", all_are_ready),
    Operation::new("wait for all: they become ready in random order", all_become_ready),
    Operation::new("wait for a set: half of all become ready in random order", set_becomes_ready),
    Operation::new("wait for all: the error names all", all_are_named),
    Operation::new("close", |n| close(n, 0)),
    Operation::new("close: each service has a waiter", |n| close(n, n)),
    #[cfg(feature = "supervise")]
    Operation::new("shut down: a chain", |n| shut_down(n, super::graphs::chain(n))),
    #[cfg(feature = "supervise")]
    Operation::new("shut down: a hub", |n| shut_down(n, super::graphs::hub(n))),
    #[cfg(feature = "supervise")]
    Operation::new("shut down: a layered graph", |n| shut_down(n, super::graphs::layered(n))),
    #[cfg(feature = "supervise")]
    Operation::new("restart: a chain", |n| restart(n, super::graphs::chain(n))),
    #[cfg(feature = "supervise")]
    Operation::new("restart: a hub", |n| restart(n, super::graphs::hub(n))),
    #[cfg(feature = "supervise")]
    Operation::new("restart: each dependent joins the restart of its hub", join_a_restart),
    #[cfg(feature = "supervise")]
    Operation::new("stop with the subtree, and start each: a chain", stop_and_start),
];

fn all_are_ready(n: usize) {
    let mut services = Services::new(n, DependenciesFirst, 0);
    services.start();
    counted(|| services.registry.wait_all_ready().wait_blocking()).unwrap();
    assert_eq!(services.ready(), n);
}

/// Polls the wait after each publication, although not each one wakes it.
fn all_become_ready(n: usize) {
    let mut services = Services::new(n, DependenciesFirst, 0);
    let mut context = Context::from_waker(Waker::noop());
    let order = in_order(n, Random);
    counted(|| {
        let mut wait = pin!(services.registry.wait_all_ready().into_future());
        for &number in &order {
            assert!(wait.as_mut().poll(&mut context).is_pending());
            services.publish(number);
        }
        assert!(matches!(wait.as_mut().poll(&mut context), Poll::Ready(Ok(()))));
    });
    assert_eq!(services.ready(), n);
}

/// Polls the wait after each publication.
fn set_becomes_ready(n: usize) {
    let mut services = Services::new(n, DependenciesFirst, 0);
    let mut context = Context::from_waker(Waker::noop());
    let set: ServiceSet = services.ids.iter().copied().step_by(2).collect();
    let order = in_order(n, Random);
    let last = order.iter().rposition(|number| number % 2 == 0).unwrap();
    counted(|| {
        let mut wait = pin!(services.registry.wait_set_ready(set).into_future());
        for &number in &order[..=last] {
            assert!(wait.as_mut().poll(&mut context).is_pending());
            services.publish(number);
        }
        assert!(matches!(wait.as_mut().poll(&mut context), Poll::Ready(Ok(()))));
    });
    assert_eq!(services.ready(), last + 1);
}

/// All services are down, and half of them are blocked by the other half.
fn all_are_named(n: usize) {
    let services = Services::with_edges(n, DependenciesFirst, &through_a_hub(n));
    services.registry.close();
    match counted(|| services.registry.wait_all_ready().wait_blocking()) {
        Err(AllReadyError::Closed { not_ready }) => assert_eq!(not_ready.len(), n),
        other => panic!("{other:?}"),
    }
}

fn close(n: usize, waiters: usize) {
    let services = Services::new(n, DependenciesFirst, 0);
    let mut context = Context::from_waker(Waker::noop());
    let ids = &services.ids[..waiters];
    let mut waits: Vec<_> =
        ids.iter().map(|&id| Box::pin(services.registry.wait_ready(id).into_future())).collect();
    assert!(waits.iter_mut().all(|wait| wait.as_mut().poll(&mut context).is_pending()));
    counted(|| services.registry.close());
    assert!(services.registry.is_closed());
    assert!(waits.iter_mut().all(|wait| wait.as_mut().poll(&mut context).is_ready()));
}

/// Shuts down services without supervisors: the shutdown fails each at its turn to stop.
#[cfg(feature = "supervise")]
fn shut_down(n: usize, edges: Vec<super::graphs::Edge>) {
    let mut services = Services::with_edges(n, DependenciesFirst, &edges);
    services.start();
    assert_eq!(services.ready(), n);
    let limit = std::time::Duration::from_secs(3600);
    let report = counted(|| services.registry.shutdown_blocking(limit));
    assert!(report.stop_timeouts.is_empty());
    assert_eq!(services.ready(), 0);
}

/// Restarts a service without a supervisor, with all services that depend on it.
#[cfg(feature = "supervise")]
fn restart(n: usize, edges: Vec<super::graphs::Edge>) {
    let mut services = Services::with_edges(n, DependenciesFirst, &edges);
    services.start();
    let root = services.ids[0];
    let report = counted(|| services.registry.restart(root, "bench").wait_blocking()).unwrap();
    assert_eq!(report.stopped.len(), n);
    services.start();
    assert_eq!(services.ready(), n);
}

/// All callers wait for one operation with n members.
#[cfg(feature = "supervise")]
fn join_a_restart(n: usize) {
    let mut services = Services::with_edges(n, DependenciesFirst, &super::graphs::hub(n));
    services.start();
    let mut context = Context::from_waker(Waker::noop());
    counted(|| {
        // The turn of the last one is held, so all of them are one operation.
        let held = services.running[n - 1].as_ref().map(mainstay::Running::hold_turn);
        let restart = |&id| Box::pin(services.registry.restart(id, "bench"));
        let mut waits: Vec<_> = services.ids.iter().map(restart).collect();
        assert!(waits.iter_mut().all(|wait| wait.as_mut().poll(&mut context).is_pending()));
        drop(held);
        for wait in &mut waits {
            match wait.as_mut().poll(&mut context) {
                Poll::Ready(Ok(report)) => assert_eq!(report.stopped.len(), n),
                other => panic!("{other:?}"),
            }
        }
    });
    assert_eq!(services.ready(), 0);
}

#[cfg(feature = "supervise")]
fn stop_and_start(n: usize) {
    let mut services = Services::with_edges(n, DependenciesFirst, &super::graphs::chain(n));
    services.start();
    let (registry, ids) = (services.registry.clone(), services.ids.clone());
    counted(|| {
        let report = registry.stop_subtree(ids[0]).wait_blocking().unwrap();
        assert_eq!(report.stopped.len(), n);
        for &id in &ids {
            assert!(registry.start(id).unwrap(), "it was stopped");
        }
    });
    services.start();
    assert_eq!(services.ready(), n);
}
