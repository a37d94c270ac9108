//! Waiting until all services are ready.
//!
//! - The wait ends when a check finds all services ready, including services that were registered
//!   during the wait, and services that failed after an earlier check.
//! - Its error lists the services that are not ready, in the order of their registration, each
//!   with the path to the service that blocks it, and with the reason if no service blocks it.

use std::{task::Poll, thread, time::Duration};

use crate::support::{LONG, MOMENT, Wakes, poll_once, poll_with, publish, up};
use mainstay::{
    Phase, Registry, ServiceId,
    error::{AllReadyError, NotReadyService, chain},
};

/// Services of these names, with room for more.
fn registry<const N: usize>(names: [&str; N]) -> (Registry, [ServiceId<u32>; N]) {
    let registry = Registry::with_capacity(8).unwrap();
    let ids = names.map(|name| registry.register(name).unwrap());
    (registry, ids)
}

/// The names of the services that are not ready, and what blocks each.
fn names(not_ready: &[NotReadyService]) -> Vec<(&str, Vec<&str>)> {
    not_ready
        .iter()
        .map(|not_ready| {
            (&*not_ready.service, not_ready.blocked_by.iter().map(|name| &**name).collect())
        })
        .collect()
}

#[test]
fn the_error_lists_each_service_that_is_not_ready_with_the_path_that_blocks_it() {
    let (registry, [config, pool, cache, server]) = registry(["config", "pool", "cache", "server"]);
    for (dependent, dependency) in [(pool, config), (server, pool), (server, cache)] {
        registry.depends(dependent).on(dependency).unwrap();
    }
    let (_cache_provider, cache_running) = up(&registry, cache, 1);
    let config_provider = registry.provide(config).unwrap();
    config_provider.begin().wait_blocking_timeout(LONG).unwrap().fail("line 3").unwrap();
    let server_provider = registry.provide(server).unwrap();
    let _attempt = server_provider.begin().wait_blocking_timeout(LONG).unwrap();

    let error = registry.wait_all_ready().wait_blocking_timeout(MOMENT).unwrap_err();
    let AllReadyError::TimedOut { not_ready, after, .. } = &error else { panic!("{error}") };
    assert!(*after >= MOMENT);
    let expected =
        [("config", vec![]), ("pool", vec!["config"]), ("server", vec!["pool", "config"])];
    assert_eq!(names(not_ready), expected);
    let phases: Vec<_> = not_ready.iter().map(|not_ready| not_ready.phase).collect();
    assert_eq!(phases, [Phase::Down, Phase::Down, Phase::Starting]);
    assert_eq!(not_ready[0].last_failure.as_ref().unwrap().reason.to_string(), "line 3");
    assert_eq!(not_ready[0].to_string(), "config: down: line 3");
    let said = chain(&error).to_string();
    // The failure of the service that is missing is written once, as a source.
    let what = "not all services are ready: config: down; pool: no provider, needs config; \
                server: starting, needs pool: not ready within ";
    assert!(
        said.starts_with(what) && said.ends_with(": config: down: config failed: line 3"),
        "{said}"
    );

    // The order is that of the registration.
    cache_running.fail("evicted");
    let error = registry.wait_all_ready().wait_blocking_timeout(Duration::ZERO).unwrap_err();
    let AllReadyError::TimedOut { not_ready, .. } = &error else { panic!("{error}") };
    assert_eq!(names(not_ready)[2..], [("cache", vec![]), ("server", vec!["pool", "config"])]);
    assert!(error.to_string().contains("; cache: down: evicted; "), "{error}");

    registry.close();
    let error = registry.wait_all_ready().wait_blocking_timeout(LONG).unwrap_err();
    let AllReadyError::Closed { not_ready } = &error else { panic!("{error}") };
    assert_eq!(not_ready.len(), 4);
    assert!(
        error
            .to_string()
            .starts_with("the registry is closed: config: closed: line 3; pool: closed; "),
        "{error}"
    );
}

#[test]
fn the_wait_ends_at_once_if_no_service_is_down() {
    let (registry, []) = registry([]);
    registry.wait_all_ready().wait_blocking_timeout(Duration::ZERO).unwrap();
    let id = registry.register::<u32>("a").unwrap();
    assert!(registry.wait_all_ready().wait_blocking_timeout(Duration::ZERO).is_err());
    let _up = up(&registry, id, 1);
    registry.wait_all_ready().wait_blocking_timeout(Duration::ZERO).unwrap();
    registry.close();
    // Ready services stay ready after a close.
    registry.wait_all_ready().wait_blocking_timeout(Duration::ZERO).unwrap();
}

#[test]
fn close_ends_the_wait_and_lists_the_services_that_are_not_ready() {
    let (registry, [_a]) = registry(["a"]);
    let mut all = registry.wait_all_ready();
    assert!(poll_once(&mut all).is_pending());
    registry.close();
    let Poll::Ready(Err(AllReadyError::Closed { not_ready })) = poll_once(&mut all) else {
        panic!()
    };
    assert_eq!(names(&not_ready), [("a", vec![])]);
}

#[test]
fn a_service_that_fails_during_the_wait_is_waited_for_again() {
    let (registry, [a, b]) = registry(["a", "b"]);
    let (a_provider, _a) = up(&registry, a, 1);
    let mut all = registry.wait_all_ready();
    let (wakes, waker) = Wakes::new();
    assert!(poll_with(&mut all, &waker).is_pending());
    registry.fail(a, "during the wait").unwrap();
    let _b = up(&registry, b, 1);
    assert!(wakes.count() >= 1);
    assert!(poll_with(&mut all, &waker).is_pending(), "a has failed in between");
    let before = wakes.count();
    let _a = publish(&a_provider, 2);
    assert!(wakes.count() > before);
    assert!(matches!(poll_with(&mut all, &waker), Poll::Ready(Ok(()))));
}

#[test]
fn a_service_that_is_registered_during_the_wait_is_waited_for() {
    let (registry, [a]) = registry(["a"]);
    let mut all = registry.wait_all_ready();
    assert!(poll_once(&mut all).is_pending());
    let late = registry.register::<u32>("late").unwrap();
    let _a = up(&registry, a, 1);
    assert!(poll_once(&mut all).is_pending());
    let _late = up(&registry, late, 1);
    assert!(matches!(poll_once(&mut all), Poll::Ready(Ok(()))));
}

#[test]
fn the_wait_ends_for_every_order_in_which_services_become_ready() {
    // A check may find that the awaited service is ready, and that another one is not.
    for round in 0..100 {
        let (registry, mut ids) = registry(["a", "b", "c", "d", "e", "f"]);
        if round % 2 == 1 {
            ids.reverse();
        }
        thread::scope(|scope| {
            let waits =
                scope.spawn(|| registry.wait_all_ready().wait_blocking_timeout(LONG).is_ok());
            let _up = ids.map(|id| {
                thread::yield_now();
                up(&registry, id, 1)
            });
            assert!(waits.join().unwrap());
        });
    }
}

#[test]
fn the_path_that_blocks_a_service_has_at_most_64_names() {
    let registry = Registry::with_capacity(100).unwrap();
    let id = |i| registry.register::<u32>(&format!("s{i}")).unwrap();
    let ids: Vec<ServiceId<u32>> = (0..100).map(id).collect();
    for pair in ids.windows(2) {
        registry.depends(pair[1]).on(pair[0]).unwrap();
    }
    let path = |i: usize| registry.status(ids[i]).unwrap().blocked_by;
    assert_eq!((path(50).len(), &*path(50)[49]), (50, "s0"));
    assert_eq!((path(99).len(), &*path(99)[63]), (64, "s35"));
}
