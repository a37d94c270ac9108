//! Dependencies whose type the attempt does not know.
//!
//! - The wait returns what identifies the instance, makes a discovered edge, and is listed in what
//!   the instance was built from: as the wait by a typed id.
//! - The attempt is invalidated if the dependency fails, and a cycle is refused.
//! - A start-only wait leaves no edge.

use std::task::Poll;

use crate::support::{LONG, MOMENT, Wakes, poll_once, poll_with, publish, registry_of, up};
use mainstay::{AnyId, DependencyKind, Instance, InstanceId, Registry, error::WaitForError};

#[test]
fn the_wait_returns_the_instance_and_makes_a_hard_edge() {
    let registry = Registry::with_capacity(2).unwrap();
    let config = registry.register::<String>("config").unwrap();
    let server = registry.register::<u32>("server").unwrap();
    let provide_config = registry.provide(config).unwrap();
    let provide_server = registry.provide(server).unwrap();

    drop(publish(&provide_config, "first".to_string()));
    let attempt = provide_server.begin().wait_blocking().unwrap();
    let (wakes, waker) = Wakes::new();
    let running = {
        let mut wait = attempt.wait_for_any(config);
        assert!(poll_with(&mut wait, &waker).is_pending());
        assert_eq!(registry.status(config).unwrap().waiters, 1);
        let running = publish(&provide_config, "second".to_string());
        running.replace("third".to_string()).unwrap();
        assert!(wakes.count() > 0);
        let Poll::Ready(instance) = poll_with(&mut wait, &waker) else { panic!("it is ready") };
        let generation = running.generation();
        let expected = InstanceId { service: config.into(), generation, revision: Some(1) };
        assert_eq!(instance.unwrap(), expected);
        running
    };
    let dependencies = registry.status(server).unwrap().dependencies;
    assert_eq!(dependencies.len(), 1);
    assert_eq!((dependencies[0].declared, dependencies[0].kind), (false, DependencyKind::Hard));

    let _server = attempt.ready(1).unwrap();
    let instance = registry.get_arc(server).unwrap();
    let [from] = Instance::built_from(&instance) else { panic!("one wait") };
    assert_eq!((from.service, from.kind), (AnyId::from(config), DependencyKind::Hard));
    assert_eq!((from.generation.get(), from.revision), (1, 1));
    running.fail("lost");
    assert!(registry.get(server).is_err());
}

#[test]
fn a_failure_of_the_dependency_invalidates_the_attempt() {
    let (registry, [a, b]) = registry_of::<u32, 2>(["a", "b"]);
    let (_provide_a, running) = up(&registry, a, 1);
    let provider = registry.provide(b).unwrap();
    let attempt = provider.begin().wait_blocking().unwrap();
    attempt.wait_for_any(a).wait_blocking_timeout(LONG).unwrap();
    running.fail("lost");
    let invalidated = attempt.wait_for_any(a).wait_blocking_timeout(LONG);
    assert!(matches!(invalidated, Err(WaitForError::Invalidated(_))));
    assert!(attempt.ready(1).is_err());
}

#[test]
fn a_failure_during_the_wait_wakes_it() {
    let (registry, [a, b]) = registry_of::<u32, 2>(["a", "b"]);
    let provider = registry.provide(b).unwrap();
    let attempt = provider.begin().wait_blocking().unwrap();
    let (wakes, waker) = Wakes::new();
    let mut wait = attempt.wait_for_any(a);
    assert!(poll_with(&mut wait, &waker).is_pending());
    registry.fail(b, "edited").unwrap();
    assert_eq!(wakes.count(), 1);
    let Poll::Ready(Err(WaitForError::Invalidated(_))) = poll_with(&mut wait, &waker) else {
        panic!("the attempt is invalidated")
    };
}

#[test]
fn errors_are_those_of_the_wait_by_a_typed_id() {
    let (registry, [a, b]) = registry_of::<u32, 2>(["a", "b"]);
    registry.depends(b).on(a).unwrap();
    let provider = registry.provide(a).unwrap();
    let attempt = provider.begin().wait_blocking().unwrap();
    match attempt.wait_for_any(b).wait_blocking() {
        Err(WaitForError::Cycle(cycle)) => assert_eq!(cycle.path, ["a", "b", "a"]),
        other => panic!("{other:?}"),
    }
    let (_other, [_, _, foreign]) = registry_of::<u32, 3>(["a", "b", "c"]);
    let mut wait = attempt.wait_for_any(foreign);
    assert!(matches!(poll_once(&mut wait), Poll::Ready(Err(WaitForError::ForeignId(_)))));
    assert!(matches!(wait.wait_blocking_timeout(MOMENT), Err(WaitForError::ForeignId(_))));
    // The same for a typed id.
    let mut wait = attempt.wait_for(foreign);
    assert!(matches!(poll_once(&mut wait), Poll::Ready(Err(WaitForError::ForeignId(_)))));
    assert!(matches!(wait.wait_blocking_timeout(MOMENT), Err(WaitForError::ForeignId(_))));
    drop(attempt);

    let (registry, [a, b]) = registry_of::<u32, 2>(["a", "b"]);
    let provider = registry.provide(b).unwrap();
    let attempt = provider.begin().wait_blocking().unwrap();
    match attempt.wait_for_any(a).wait_blocking_timeout(MOMENT) {
        Err(WaitForError::TimedOut(missing)) => assert_eq!(missing.service, "a"),
        other => panic!("{other:?}"),
    }
    registry.close();
    let closed = attempt.wait_for_any(a).wait_blocking();
    assert!(matches!(closed, Err(WaitForError::Closed { service }) if service == "a"));
}

#[test]
fn a_start_only_wait_leaves_no_edge() {
    let (registry, [a, b]) = registry_of::<u32, 2>(["a", "b"]);
    let (_provide_a, running) = up(&registry, a, 1);
    let provider = registry.provide(b).unwrap();
    let attempt = provider.begin().wait_blocking().unwrap();
    attempt.wait_to_start_any(a).wait_blocking_timeout(LONG).unwrap();
    let _b = attempt.ready(1).unwrap();
    let status = registry.status(b).unwrap();
    assert!(status.dependencies.is_empty());
    assert_eq!(status.built_from[0].kind, DependencyKind::StartOnly);
    running.fail("sealed");
    assert!(registry.get(b).is_ok());
}

#[test]
fn a_dropped_wait_has_received_nothing() {
    let (registry, [a, b]) = registry_of::<u32, 2>(["a", "b"]);
    let provide_b = registry.provide(b).unwrap();
    let attempt = provide_b.begin().wait_blocking().unwrap();
    let mut wait = attempt.wait_for_any(a);
    assert!(poll_once(&mut wait).is_pending());
    drop(wait);
    let (_provide_a, running) = up(&registry, a, 1);
    let _b = attempt.ready(1).unwrap();
    assert!(registry.status(b).unwrap().built_from.is_empty());
    running.fail("lost");
    assert!(registry.get(b).is_ok());
}
