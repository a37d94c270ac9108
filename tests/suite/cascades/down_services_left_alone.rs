//! Services that are down when a cascade reaches them.
//!
//! - `fail` takes down every ready or starting service of the closure, whatever the phase of the
//!   root: down, starting or ready.
//! - A service that is down is left alone, also the root: it keeps its generation and its own last
//!   failure, or has none.
//! - A cascade crosses a service that is down.
//! - A service whose attempt has failed keeps its reason although a dependency fails later, and
//!   although the registry shuts down.
//! - The result and the events name only services that were ready or starting.

use std::sync::{Arc, Mutex};

use crate::support::{LONG, poll_once, publish, publish_from, registry_of, up};
use mainstay::{Cascade, Event, EventKind, FailOutcome, Observer, Phase, Registry, ServiceId};

fn attempt<T: Send + Sync + 'static>(provider: &mainstay::Provider<T>) -> mainstay::Attempt<T> {
    provider.begin().wait_blocking_timeout(LONG).unwrap()
}

/// The phase and the generation of a service, and the root and the reason of its last failure.
fn state(registry: &Registry, id: ServiceId<u32>) -> (Phase, u64, Option<(String, String)>) {
    let status = registry.status(id).unwrap();
    let failure = status.last_failure.map(|f| (f.root.to_string(), f.reason.to_string()));
    (status.phase, status.generation.get(), failure)
}

fn by(root: &str, reason: &str) -> Option<(String, String)> {
    Some((root.into(), reason.into()))
}

fn counts(cascade: Cascade) -> (usize, usize) {
    (cascade.failed, cascade.invalidated)
}

#[test]
fn a_root_that_is_down_fails_its_ready_dependents() {
    let (registry, [x, d]) = registry_of(["x", "d"]);
    registry.depends(d).on(x).unwrap();
    let (provide_d, running) = up(&registry, d, 1);
    assert_eq!(counts(registry.fail(x, "edited").unwrap()), (1, 0));
    assert_eq!(state(&registry, d), (Phase::Down, 1, by("x", "edited")));
    assert_eq!(state(&registry, x), (Phase::Down, 0, None));
    let failure = running.failed().wait_blocking_timeout(LONG).unwrap();
    assert_eq!((&*failure.service, &*failure.root), ("d", "x"));

    // Nothing is left to fail.
    assert_eq!(registry.fail(x, "again").unwrap(), Cascade::default());
    assert_eq!(state(&registry, d), (Phase::Down, 1, by("x", "edited")));

    let (_provide_x, _x) = up(&registry, x, 1);
    let _d = publish_from(&provide_d, x, 2);
    assert_eq!(state(&registry, x), (Phase::Ready, 0, None));
    assert_eq!(state(&registry, d), (Phase::Ready, 1, by("x", "edited")));
}

#[test]
fn a_root_that_is_starting_fails_with_its_ready_dependents() {
    let (registry, [x, d]) = registry_of(["x", "d"]);
    registry.depends(d).on(x).unwrap();
    let (provide_x, (_provide_d, _d)) = (registry.provide(x).unwrap(), up(&registry, d, 1));
    let starting = attempt(&provide_x);
    assert_eq!(counts(registry.fail(x, "edited").unwrap()), (1, 1));
    assert_eq!(state(&registry, d), (Phase::Down, 1, by("x", "edited")));
    assert_eq!(state(&registry, x), (Phase::Down, 1, by("x", "edited")));
    assert!(starting.ready(1).is_err());
}

#[test]
fn a_root_that_has_failed_before_keeps_its_own_failure() {
    let (registry, [x, d]) = registry_of(["x", "d"]);
    let (provide_x, running) = up(&registry, x, 1);
    registry.depends(d).on(x).unwrap();
    running.fail("out of memory");
    let (provide_d, _d) = up(&registry, d, 1);
    assert_eq!(counts(registry.fail(x, "edited").unwrap()), (1, 0));
    assert_eq!(state(&registry, x), (Phase::Down, 1, by("x", "out of memory")));
    assert_eq!(state(&registry, d), (Phase::Down, 1, by("x", "edited")));

    // A later failure of the root replaces its own reason, and changes nothing of the dependent.
    publish(&provide_x, 2).fail("out of memory again");
    assert_eq!(state(&registry, x), (Phase::Down, 2, by("x", "out of memory again")));
    assert_eq!(state(&registry, d).1, 1);
    assert_eq!(attempt(&provide_d).generation(), 1);
}

#[test]
fn a_cascade_crosses_a_service_that_is_down() {
    let (registry, [a, b, c]) = registry_of(["a", "b", "c"]);
    registry.depends(b).on(a).unwrap();
    registry.depends(c).on(b).unwrap();
    let (provide_a, _a) = up(&registry, a, 1);
    let (_provide_c, _c) = up(&registry, c, 1);
    assert_eq!(counts(registry.fail(a, "edited").unwrap()), (2, 0));
    assert_eq!(state(&registry, a), (Phase::Down, 1, by("a", "edited")));
    assert_eq!(state(&registry, b), (Phase::Down, 0, None));
    assert_eq!(state(&registry, c), (Phase::Down, 1, by("a", "edited")));

    // The next cascade finds the same closure, perhaps cached, and only `a` is ready.
    publish(&provide_a, 2).fail("edited again");
    assert_eq!((state(&registry, b).1, state(&registry, c).1), (0, 1));
}

#[test]
fn a_failed_attempt_keeps_its_reason_when_a_dependency_fails() {
    let (registry, [config, server]) = registry_of(["config", "server"]);
    let (provide_config, mut running) = up(&registry, config, 1);
    let provide_server = registry.provide(server).unwrap();
    for declared in [false, true] {
        if declared {
            registry.depends(server).on(config).unwrap();
        }
        let building = attempt(&provide_server);
        building.wait_for(config).wait_blocking_timeout(LONG).unwrap();
        building.fail("no port is free").unwrap();
        for edit in 0..3 {
            assert_eq!(counts(registry.fail(config, format!("edit {edit}")).unwrap()), (1, 0));
            let expected = (Phase::Down, 0, by("server", "no port is free"));
            assert_eq!(state(&registry, server), expected);
            drop(running);
            running = publish(&provide_config, edit);
            assert_eq!(state(&registry, server), expected);
        }
    }
    let building = attempt(&provide_server);
    assert_eq!(building.generation(), 0);
    drop(building);
    registry.fail(config, "edited").unwrap();
    assert_eq!(state(&registry, server), (Phase::Down, 0, by("server", "the attempt was dropped")));
}

#[test]
fn a_service_that_failed_alone_keeps_its_reason_when_a_dependency_fails() {
    let (registry, [config, server]) = registry_of(["config", "server"]);
    let (_provide_config, _config) = up(&registry, config, 1);
    let provide_server = registry.provide(server).unwrap();
    publish_from(&provide_server, config, 1).fail("broken");
    registry.fail(config, "edited").unwrap();
    assert_eq!(state(&registry, server), (Phase::Down, 1, by("server", "broken")));
}

#[cfg(feature = "supervise")]
#[test]
fn a_failed_attempt_keeps_its_reason_when_the_registry_shuts_down() {
    let (registry, [config, server]) = registry_of(["config", "server"]);
    registry.depends(server).on(config).unwrap();
    let (provide_config, running) = up(&registry, config, 1);
    let provide_server = registry.provide(server).unwrap();
    attempt(&provide_server).fail("no port is free").unwrap();
    drop((running, provide_config));
    registry.shutdown_blocking(LONG);
    assert_eq!(state(&registry, server), (Phase::Down, 0, by("server", "no port is free")));
}

#[test]
fn a_failure_of_a_dependency_that_is_down_invalidates_the_attempt_that_waits_for_it() {
    let (registry, [x, d]) = registry_of::<u32, 2>(["x", "d"]);
    let provide_d = registry.provide(d).unwrap();
    for start_only in [false, true] {
        let before = state(&registry, d).1;
        let waiting = attempt(&provide_d);
        let mut wait = if start_only { waiting.wait_to_start(x) } else { waiting.wait_for(x) };
        assert!(poll_once(&mut wait).is_pending());
        assert_eq!(counts(registry.fail(x, "edited").unwrap()), (0, 1));
        assert_eq!(state(&registry, d), (Phase::Down, before + 1, by("x", "edited")));
        assert!(wait.wait_blocking_timeout(LONG).is_err());
        assert!(waiting.is_invalidated());
    }
    assert_eq!(state(&registry, x), (Phase::Down, 0, None));
}

#[test]
fn a_root_that_is_down_leaves_services_alone_that_only_watch_it_or_have_started() {
    let (registry, [x, watcher, started]) = registry_of(["x", "watcher", "started"]);
    let (provide_x, running) = up(&registry, x, 1);
    let provide_watcher = registry.provide(watcher).unwrap();
    let watching = attempt(&provide_watcher);
    let _watch = watching.watch(x).unwrap();
    let _watcher = watching.ready(1).unwrap();
    let provide_started = registry.provide(started).unwrap();
    let starting = attempt(&provide_started);
    starting.wait_to_start(x).wait_blocking_timeout(LONG).unwrap();
    let _started = starting.ready(1).unwrap();
    running.fail("gone");
    assert_eq!(registry.fail(x, "while down").unwrap(), Cascade::default());
    for id in [watcher, started] {
        assert_eq!(state(&registry, id), (Phase::Ready, 0, None));
    }
    drop(provide_x);
}

#[test]
fn a_late_report_does_not_fail_dependents_of_a_service_that_is_down() {
    let (registry, [x, d]) = registry_of(["x", "d"]);
    registry.depends(d).on(x).unwrap();
    let (_provide_x, running) = up(&registry, x, 1);
    let met = registry.get_arc(x).unwrap();
    running.fail("gone");
    let (_provide_d, _d) = up(&registry, d, 1);
    assert_eq!(registry.fail_instance(&met, "broken").unwrap(), FailOutcome::AlreadyFailed);
    assert_eq!(state(&registry, d), (Phase::Ready, 0, None));
}

/// Notes the failures that the observer receives.
struct Failures(Arc<Mutex<Vec<String>>>);

impl Observer for Failures {
    fn event(&self, _: &Registry, event: &Event<'_>) {
        if let EventKind::Failed(_) | EventKind::Invalidated(_) = event.kind {
            let text = format!("{}@{} {}", event.service, event.generation, event.kind);
            self.0.lock().unwrap().push(text);
        }
    }
}

#[test]
fn the_events_name_only_what_was_ready_or_starting() {
    let noted = Arc::default();
    let mut builder = Registry::builder(4).unwrap().observer(Failures(Arc::clone(&noted)));
    let [root, ready, starting, down] =
        ["root", "ready", "starting", "down"].map(|name| builder.register::<u32>(name).unwrap());
    for dependent in [ready, starting, down] {
        builder.depends(dependent).on(root).unwrap();
    }
    let registry = builder.build();
    let (_provide_ready, _ready) = up(&registry, ready, 1);
    let provide_starting = registry.provide(starting).unwrap();
    let _starting = attempt(&provide_starting);
    attempt(&registry.provide(down).unwrap()).fail("no port").unwrap();

    assert_eq!(counts(registry.fail(root, "edited").unwrap()), (1, 1));
    let mut events = std::mem::take(&mut *noted.lock().unwrap());
    events.sort();
    let expected = [
        "ready@0 failed because root failed: edited",
        "starting@0 invalidated because root failed: edited",
    ];
    assert_eq!(events, expected);
    assert_eq!(registry.fail(root, "again").unwrap(), Cascade::default());
    assert!(noted.lock().unwrap().is_empty(), "an event of a cascade that moved nothing");
}
