//! Waiting for the services of a set, and optional services.
//!
//! - The wait for a set ends when a check finds all its services ready, and no other service
//!   matters. Its error lists those of its services that are not ready.
//! - The wait for all does not wait for an optional service; a set that names one does, and so does
//!   a service that depends on it.
//! - A set with an id of another registry is refused as a whole.

use std::{task::Poll, thread, time::Duration};

use crate::support::{LONG, MOMENT, Wakes, poll_once, poll_with, publish, registry_of, up};
use mainstay::{
    AnyId, Registry, ServiceId, ServiceSet,
    error::{AllReadyError, chain},
};

const NONE: Duration = Duration::ZERO;

/// The names of the services that are not ready.
fn names(error: &AllReadyError) -> Vec<&str> {
    let (AllReadyError::TimedOut { not_ready, .. }
    | AllReadyError::Closed { not_ready, .. }
    | AllReadyError::Stopped { not_ready, .. }) = error
    else {
        panic!("{error}")
    };
    not_ready.iter().map(|not_ready| &*not_ready.service).collect()
}

#[test]
fn only_the_services_of_the_set_matter() {
    let (registry, [a, b, c]) = registry_of::<u8, 3>(["a", "b", "c"]);
    let (a_provider, a_running) = up(&registry, a, 1);
    let mut wait = registry.wait_set_ready((a, c));
    let (wakes, waker) = Wakes::new();
    assert!(poll_with(&mut wait, &waker).is_pending());
    let _b = up(&registry, b, 2);
    assert_eq!(wakes.count(), 0, "b is not in the set");
    a_running.fail("during the wait");
    let _c = up(&registry, c, 3);
    assert!(poll_with(&mut wait, &waker).is_pending(), "a has failed in between");
    let before = wakes.count();
    let _a = publish(&a_provider, 1);
    assert!(wakes.count() > before);
    assert!(matches!(poll_with(&mut wait, &waker), Poll::Ready(Ok(()))));
}

#[test]
fn an_empty_set_is_ready() {
    let (registry, [_a]) = registry_of::<u8, 1>(["a"]);
    registry.wait_set_ready(ServiceSet::new()).wait_blocking_timeout(NONE).unwrap();
    registry.close();
    registry.wait_set_ready(ServiceSet::new()).wait_blocking_timeout(LONG).unwrap();
}

#[test]
fn the_error_lists_those_of_the_set_with_what_blocks_them_outside_of_it() {
    let names_of_all = ["config", "pool", "other", "server"];
    let (registry, [config, pool, other, server]) = registry_of::<u8, 4>(names_of_all);
    for (dependent, dependency) in [(pool, config), (server, pool)] {
        registry.depends(dependent).on(dependency).unwrap();
    }
    let config_provider = registry.provide(config).unwrap();
    config_provider.begin().wait_blocking_timeout(LONG).unwrap().fail("line 3").unwrap();
    let _other = up(&registry, other, 1);

    let error = registry.wait_set_ready((other, server)).wait_blocking_timeout(MOMENT).unwrap_err();
    assert_eq!(names(&error), ["server"]);
    let text = "not all services are ready: server: no provider, needs pool; \
                pool: no provider, needs config; config: down";
    assert_eq!(error.to_string(), text);
    let said = chain(&error).to_string();
    assert!(said.ends_with("; config: down: config failed: line 3"), "{said}");

    // Those that are in the set have words of their own.
    let set = ServiceSet::from((config, server));
    let error = registry.wait_set_ready(set).wait_blocking_timeout(NONE).unwrap_err();
    let text = "not all services are ready: config: down; server: no provider, needs pool; \
                pool: no provider, needs config";
    assert_eq!(error.to_string(), text);

    registry.close();
    let error = registry.wait_set_ready([server]).wait_blocking_timeout(LONG).unwrap_err();
    assert!(matches!(&error, AllReadyError::Closed { .. }));
    assert_eq!(names(&error), ["server"]);
}

#[test]
fn a_set_with_a_foreign_id_is_refused_as_a_whole() {
    let (registry, [a, b]) = registry_of::<u8, 2>(["a", "b"]);
    let (_provider, _a) = up(&registry, a, 1);
    let (other, [before, foreign]) = registry_of::<u8, 2>(["before", "foreign"]);
    let _foreign = up(&other, foreign, 1);
    for id in [foreign, before] {
        for (of, is_foreign) in [(&registry, AnyId::from(id)), (&other, a.into())] {
            let mut wait = of.wait_set_ready((a, id));
            let Poll::Ready(Err(AllReadyError::ForeignId(refused))) = poll_once(&mut wait) else {
                panic!("{id:?}")
            };
            assert_eq!(refused.id, is_foreign);
            // A wait that has ended never ends again, unless its time is over.
            let again = wait.wait_blocking_timeout(MOMENT);
            assert!(matches!(again, Err(AllReadyError::ForeignId(_))));
        }
    }
    assert!(registry.set_optional([b, foreign]).is_err());
    assert!(!registry.status(b).unwrap().optional);
}

#[test]
fn the_wait_for_all_does_not_wait_for_an_optional_service() {
    let (registry, [a, b, c]) = registry_of::<u8, 3>(["a", "b", "c"]);
    let _a = up(&registry, a, 1);
    registry.set_optional([AnyId::from(c)]).unwrap();
    let optional = [a, b, c].map(|id| registry.status(id).unwrap().optional);
    assert_eq!(optional, [false, false, true]);

    let error = registry.wait_all_ready().wait_blocking_timeout(NONE).unwrap_err();
    assert_eq!(names(&error), ["b"]);
    let mut all = registry.wait_all_ready();
    let mut named = registry.wait_set_ready([c]);
    let (wakes, waker) = Wakes::new();
    assert!(poll_with(&mut all, &waker).is_pending() && poll_once(&mut named).is_pending());
    // It takes note of a service that becomes optional.
    registry.set_optional([b, c]).unwrap();
    assert_eq!(wakes.count(), 1);
    assert!(matches!(poll_with(&mut all, &waker), Poll::Ready(Ok(()))));
    assert!(poll_once(&mut named).is_pending(), "the set names it");
    let _c = up(&registry, c, 3);
    assert!(matches!(poll_once(&mut named), Poll::Ready(Ok(()))));
}

#[test]
fn a_required_service_needs_its_optional_dependency() {
    let (registry, [metrics, server]) = registry_of::<u8, 2>(["metrics", "server"]);
    registry.set_optional([metrics]).unwrap();
    registry.depends(server).on(metrics).unwrap();
    let error = registry.wait_all_ready().wait_blocking_timeout(NONE).unwrap_err();
    assert_eq!(names(&error), ["server"]);
    let text = "server: no provider, needs metrics; metrics: no provider";
    assert!(error.to_string().contains(text), "{error}");
    let _metrics = up(&registry, metrics, 1);
    let provider = registry.provide(server).unwrap();
    let attempt = provider.begin().wait_blocking_timeout(LONG).unwrap();
    attempt.wait_for(metrics).wait_blocking_timeout(LONG).unwrap();
    let running = attempt.ready(1).unwrap();
    registry.wait_all_ready().wait_blocking_timeout(NONE).unwrap();
    registry.fail(metrics, "gone").unwrap();
    assert!(registry.wait_all_ready().wait_blocking_timeout(NONE).is_err());
    drop(running);
}

#[test]
fn the_wait_ends_for_every_order_in_which_services_become_ready() {
    for round in 0..100 {
        let (registry, ids) = registry_of::<u8, 6>(["a", "b", "c", "d", "e", "f"]);
        let mut set = [ids[1], ids[3], ids[4]];
        set.rotate_left(round % 3);
        thread::scope(|scope| {
            let wait = registry.wait_set_ready(set);
            let waits = scope.spawn(|| wait.wait_blocking_timeout(LONG).is_ok());
            let _up = set.map(|id| {
                thread::yield_now();
                up(&registry, id, 1)
            });
            assert!(waits.join().unwrap());
        });
    }
}

#[test]
fn a_wait_is_woken_once_for_each_service_that_it_passes() {
    const SERVICES: usize = 1_000;
    let registry = Registry::with_capacity(SERVICES).unwrap();
    let id = |i| registry.register::<usize>(&format!("s{i}")).unwrap();
    let ids: Vec<ServiceId<usize>> = (0..SERVICES).map(id).collect();
    // The worst order for a wait that continues with the next one, and the best one.
    for order in [ids.clone(), ids.iter().rev().copied().collect()] {
        let set: ServiceSet = ids.iter().copied().collect();
        let mut wait = registry.wait_set_ready(set);
        let (wakes, waker) = Wakes::new();
        let mut up_now = Vec::new();
        for id in order {
            assert!(poll_with(&mut wait, &waker).is_pending());
            up_now.push(up(&registry, id, 1));
        }
        assert!(wakes.count() <= SERVICES);
        assert!(matches!(poll_with(&mut wait, &waker), Poll::Ready(Ok(()))));
    }
}
