//! Supervisors that wait for the holders of the old instance before they build again.
//!
//! - The supervisor drains for `drain_timeout` at most, and then the build can read the number of
//!   holders that are left.
//! - The time counts as backoff. A reset does not end it early, and a close does.
//! - A shutdown waits for the drain.

use std::{
    future::ready,
    sync::{Arc, Mutex},
};

use super::runtime::{TestRuntime, exact, ms};
use mainstay::supervise::SupervisorState;

#[test]
fn a_supervisor_drains_for_a_bounded_time_before_it_builds_again() {
    let mut runtime = TestRuntime::new();
    let id = runtime.service("port");
    let holders = Arc::new(Mutex::new(Vec::new()));
    let notes = Arc::clone(&holders);
    let restart = exact().drain_timeout(ms(1_000));
    runtime.supervise(id, restart, move |build| {
        notes.lock().unwrap().push(build.holders());
        ready(Ok::<_, String>(1))
    });
    runtime.run_until_idle();
    runtime.advance(ms(5_000));

    // No holder: it builds at once.
    runtime.registry.fail(id, "moved").unwrap();
    runtime.run_until_idle();
    assert_eq!(runtime.state(id), SupervisorState::Up);

    // The holder releases the instance in time. A reset changes nothing.
    runtime.advance(ms(5_000));
    let request = runtime.registry.get_arc(id).unwrap();
    runtime.registry.fail(id, "moved").unwrap();
    runtime.run_until_idle();
    assert_eq!(
        (runtime.state(id), runtime.supervisor_status(id).next_try_in),
        (SupervisorState::Draining, None)
    );
    runtime.restart(id);
    runtime.advance(ms(999));
    assert_eq!(runtime.state(id), SupervisorState::Draining);
    drop(request);
    runtime.run_until_idle();
    assert_eq!(runtime.state(id), SupervisorState::Up);

    // The holder does not release the instance in time.
    runtime.advance(ms(5_000));
    let request = runtime.registry.get_arc(id).unwrap();
    runtime.registry.fail(id, "moved").unwrap();
    runtime.run_until_idle();
    runtime.advance(ms(1_000));
    assert_eq!(runtime.state(id), SupervisorState::Up);
    assert_eq!(*holders.lock().unwrap(), [0, 0, 0, 1]);
    drop(request);

    // It was ready for a short time, so that it backs off. The backoff began with the failure.
    runtime.advance(ms(4_000));
    let request = runtime.registry.get_arc(id).unwrap();
    runtime.registry.fail(id, "moved").unwrap();
    runtime.run_until_idle();
    runtime.advance(ms(60));
    drop(request);
    runtime.run_until_idle();
    assert_eq!(
        (runtime.state(id), runtime.supervisor_status(id).next_try_in),
        (SupervisorState::BackingOff, Some(ms(40)))
    );
    runtime.advance(ms(40));
    assert_eq!(
        (runtime.state(id), runtime.supervisor_status(id).failures),
        (SupervisorState::Up, 1)
    );

    // A close ends the drain.
    let request = runtime.registry.get_arc(id).unwrap();
    runtime.registry.fail(id, "moved").unwrap();
    runtime.run_until_idle();
    assert_eq!(runtime.state(id), SupervisorState::Draining);
    runtime.registry.close();
    runtime.run_until_idle();
    assert!(runtime.tasks.is_empty());
    drop(request);
}

#[test]
fn shutdown_waits_for_a_service_that_drains() {
    let mut runtime = TestRuntime::new();
    let id = runtime.service("port");
    runtime.supervise(id, exact().drain_timeout(ms(1_000)), |_| ready(Ok::<_, String>(1)));
    runtime.run_until_idle();
    let request = runtime.registry.get_arc(id).unwrap();
    runtime.registry.fail(id, "moved").unwrap();
    runtime.run_until_idle();
    let registry = runtime.registry.clone();
    runtime.spawn(async move {
        assert!(registry.shutdown(ms(60_000)).await.stop_timeouts.is_empty());
    });
    runtime.run_until_idle();
    assert_eq!(runtime.state(id), SupervisorState::Draining);
    drop(request);
    runtime.run_until_idle();
    assert!(runtime.registry.is_closed() && runtime.tasks.is_empty());
}

#[test]
fn a_status_while_draining_has_the_failures_and_at_the_turn_to_stop_the_present_holders() {
    let mut runtime = TestRuntime::new();
    let id = runtime.service("port");
    runtime.supervise(id, exact().drain_timeout(ms(1_000)), |_| ready(Ok::<_, String>(1)));
    runtime.run_until_idle();
    for failures in 0..3 {
        let request = runtime.registry.get_arc(id).unwrap();
        runtime.registry.fail(id, "moved").unwrap();
        runtime.run_until_idle();
        let status = runtime.supervisor_status(id);
        // The failure is counted when the draining is over.
        assert_eq!((status.state, status.failures), (SupervisorState::Draining, failures));
        drop(request);
        runtime.advance(ms(1_000));
    }
    let requests = [(); 3].map(|()| runtime.registry.get_arc(id).unwrap());
    let mut stop = runtime.registry.stop(id);
    assert!(crate::support::poll_once(&mut stop).is_pending());
    runtime.run_until_idle();
    for (left, request) in (0..3).rev().zip(requests) {
        assert_eq!(runtime.supervisor_status(id).holders, left + 1);
        drop(request);
        assert_eq!(runtime.supervisor_status(id).holders, left);
    }
    runtime.run_until_idle();
    assert!(crate::support::poll_once(&mut stop).is_ready());
}
