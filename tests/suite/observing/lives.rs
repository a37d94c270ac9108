//! What the status shows of the life of a service: since when its phase lasts, how often it was
//! built, failed and replaced, what it was built from, and what its attempt waits for.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, SystemTime},
};

use crate::support::{LONG, poll_once, publish, publish_from, registry_of, up};
use mainstay::{DependencyKind, Registry, ServiceId, ServiceStatus};

/// How often the service was built, has failed, and was replaced.
fn counts(registry: &Registry, id: ServiceId<u32>) -> (u64, u64, u64) {
    let ServiceStatus { built, failed, replaced, .. } = registry.status(id).unwrap();
    (built, failed, replaced)
}

fn since(registry: &Registry, id: ServiceId<u32>) -> SystemTime {
    registry.status(id).unwrap().since
}

/// Runs `change`, and checks that the present phase of the service began while it ran.
fn begins_a_phase<R>(registry: &Registry, id: ServiceId<u32>, change: impl FnOnce() -> R) -> R {
    thread::sleep(Duration::from_millis(2));
    let before = SystemTime::now();
    let result = change();
    let after = SystemTime::now();
    let since = since(registry, id);
    assert!(before <= since && since <= after, "{before:?} {since:?} {after:?}");
    result
}

#[test]
fn since_is_the_time_at_which_the_phase_began() {
    let registry = Registry::with_capacity(2).unwrap();
    let before = SystemTime::now();
    let config = registry.register::<u32>("config").unwrap();
    let registered = since(&registry, config);
    assert!(before <= registered && registered <= SystemTime::now());
    let database = registry.register::<u32>("database").unwrap();
    let (provide_config, provide_database) =
        (registry.provide(config).unwrap(), registry.provide(database).unwrap());

    let begin = || provide_config.begin().wait_blocking().unwrap();
    let attempt = begins_a_phase(&registry, config, begin);
    begins_a_phase(&registry, config, || attempt.fail("not yet").unwrap());
    let attempt = begins_a_phase(&registry, config, begin);
    let running = begins_a_phase(&registry, config, || attempt.ready(1).unwrap());
    let ready = since(&registry, config);
    running.replace(2).unwrap();
    assert_eq!(since(&registry, config), ready, "a replacement begins no phase");

    let _database = publish_from(&provide_database, config, 1);
    begins_a_phase(&registry, config, || running.fail("lost"));
    let failed = since(&registry, config);
    assert_eq!(since(&registry, database), failed, "one cascade, one time");
    assert_eq!(registry.status(database).unwrap().last_failure.unwrap().at, failed);
    // An attempt that is invalidated.
    let attempt = begins_a_phase(&registry, config, begin);
    begins_a_phase(&registry, config, || registry.fail(config, "edited").unwrap());
    drop(attempt);
    // A cascade that finds the service down begins no phase.
    let down = since(&registry, config);
    registry.fail(config, "again").unwrap();
    assert_eq!(since(&registry, config), down);
}

#[test]
fn instances_are_counted_and_attempts_are_not() {
    let (registry, [config, database]) = registry_of::<u32, 2>(["config", "database"]);
    let (provide_config, provide_database) =
        (registry.provide(config).unwrap(), registry.provide(database).unwrap());
    assert_eq!(counts(&registry, config), (0, 0, 0));
    drop(provide_config.begin().wait_blocking().unwrap());
    assert_eq!(counts(&registry, config), (0, 0, 0), "the attempt was not published");
    let attempt = provide_config.begin().wait_blocking().unwrap();
    registry.fail(config, "edited").unwrap();
    assert!(attempt.ready(1).is_err());
    assert_eq!(registry.status(config).unwrap().generation, 1);
    assert_eq!(counts(&registry, config), (0, 0, 0), "the attempt was invalidated");

    let running = publish(&provide_config, 1);
    assert_eq!(counts(&registry, config), (1, 0, 0));
    for version in 2..=4 {
        running.replace(version).unwrap();
    }
    assert_eq!(counts(&registry, config), (1, 0, 3));
    let _database = publish_from(&provide_database, config, 1);
    running.fail("lost");
    assert_eq!(counts(&registry, config), (1, 1, 3));
    assert_eq!(counts(&registry, database), (1, 1, 0), "it failed with its dependency");
    registry.fail(config, "again").unwrap();
    assert_eq!(counts(&registry, config), (1, 1, 3), "it was down");

    for round in 2..=5 {
        let running = publish(&provide_config, 1);
        running.replace(2).unwrap();
        assert_eq!(counts(&registry, config), (round, round - 1, 2 + round));
        drop(running);
        assert_eq!(counts(&registry, config), (round, round, 2 + round));
    }
}

#[test]
fn the_counts_of_concurrent_failures_are_exact_in_the_end() {
    let (registry, [config, database]) = registry_of::<u32, 2>(["config", "database"]);
    let (registry, done) = (&registry, &AtomicBool::new(false));
    let built = thread::scope(|scope| {
        for id in [config, database] {
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    registry.fail(id, "again").unwrap();
                    thread::yield_now();
                }
            });
        }
        let database = scope.spawn(move || {
            let (provider, mut built) = (registry.provide(database).unwrap(), 0);
            while !done.load(Ordering::Relaxed) {
                let attempt = provider.begin().wait_blocking_timeout(LONG).unwrap();
                let from = attempt.wait_for(config).wait_blocking_timeout(Duration::ZERO);
                if from.is_ok() && attempt.ready(1).is_ok() {
                    built += 1;
                }
            }
            built
        });
        let (provider, mut built) = (registry.provide(config).unwrap(), 0);
        for round in 0..500 {
            let attempt = provider.begin().wait_blocking_timeout(LONG).unwrap();
            if round % 10 == 0 {
                registry.fail(config, "this attempt").unwrap();
            }
            if let Ok(running) = attempt.ready(1) {
                built += 1;
                thread::yield_now();
                drop(running);
            }
        }
        done.store(true, Ordering::Relaxed);
        [built, database.join().unwrap()]
    });
    assert_eq!([config, database].map(|id| counts(registry, id)), built.map(|n| (n, n, 0)));
    assert!(
        registry.status(config).unwrap().generation.get() > built[0],
        "no attempt was invalidated"
    );
}

#[test]
fn the_status_shows_what_the_current_instance_was_built_from() {
    let (registry, [a, b, top]) = registry_of::<u32, 3>(["a", "b", "top"]);
    let (_provide_a, running_a) = up(&registry, a, 1);
    let (_provide_b, _running_b) = up(&registry, b, 1);
    running_a.replace(2).unwrap();
    let provider = registry.provide(top).unwrap();
    let attempt = provider.begin().wait_blocking().unwrap();
    attempt.wait_to_start(b).wait_blocking().unwrap();
    attempt.wait_for(a).wait_blocking().unwrap();
    assert!(registry.status(top).unwrap().built_from.is_empty(), "not yet");
    let running = attempt.ready(1).unwrap();

    let shown = || -> Vec<(String, u64, u64, DependencyKind)> {
        let built_from = registry.status(top).unwrap().built_from;
        let entry = |from: &mainstay::BuiltFromInstance| {
            (from.name.to_string(), from.generation.get(), from.revision, from.kind)
        };
        built_from.iter().map(entry).collect()
    };
    let expected = [
        ("a".to_string(), 0, 1, DependencyKind::Hard),
        ("b".to_string(), 0, 0, DependencyKind::StartOnly),
    ];
    assert_eq!(shown(), expected);
    running.replace(2).unwrap();
    assert_eq!(shown(), expected);
    assert_eq!(registry.status(top).unwrap().revision, 1);
    assert_eq!(registry.status(top).unwrap().built_from[1].id, b.into());
    running_a.fail("lost");
    let status = registry.status(top).unwrap();
    assert_eq!((status.built_from.len(), status.revision), (0, 0));
    drop(running);
}

#[test]
fn the_status_shows_the_last_wait_of_the_attempt() {
    let (registry, [a, b, top]) = registry_of::<u32, 3>(["a", "b", "top"]);
    let provider = registry.provide(top).unwrap();
    let shown = || registry.status(top).unwrap().waiting_for;
    assert_eq!(shown(), None);
    let attempt = provider.begin().wait_blocking().unwrap();
    let mut for_a = attempt.wait_for(a);
    assert_eq!(shown(), None, "it was not polled");
    assert!(poll_once(&mut for_a).is_pending());
    assert_eq!(shown().unwrap(), "a");
    let mut for_b = attempt.wait_for_any(b);
    assert!(poll_once(&mut for_b).is_pending());
    assert_eq!(shown().unwrap(), "b");
    let lease = attempt.waiting_for(format!("the lease of {}", 80));
    assert_eq!(shown().unwrap(), "the lease of 80");
    let (_provide_b, _b) = up(&registry, b, 1);
    assert!(poll_once(&mut for_b).is_ready());
    assert_eq!(shown().unwrap(), "the lease of 80");
    drop(lease);
    assert_eq!(shown().unwrap(), "a");
    drop(for_a);
    assert_eq!(shown(), None);
}

#[test]
fn what_an_attempt_waited_for_ends_with_it() {
    let (registry, [top]) = registry_of::<u32, 1>(["top"]);
    let provider = registry.provide(top).unwrap();
    let shown = || registry.status(top).unwrap().waiting_for;

    // The handle is leaked, and the next attempt has the same generation.
    let attempt = provider.begin().wait_blocking().unwrap();
    std::mem::forget(attempt.waiting_for("leaked"));
    assert_eq!(shown().unwrap(), "leaked");
    attempt.fail("not yet").unwrap();
    assert_eq!(shown(), None);
    let attempt = provider.begin().wait_blocking().unwrap();
    assert_eq!((attempt.generation().get(), shown()), (0, None));

    // Invalidated, and published.
    std::mem::forget(attempt.waiting_for("leaked"));
    registry.fail(top, "edited").unwrap();
    assert_eq!(shown(), None);
    let next = provider.begin().wait_blocking().unwrap();
    assert_eq!(shown(), None);
    let waiting = next.waiting_for("this attempt");
    drop(attempt);
    assert_eq!(shown().unwrap(), "this attempt");
    drop(waiting);
    std::mem::forget(next.waiting_for("leaked"));
    let running = next.ready(1).unwrap();
    assert_eq!(shown(), None);
    drop(running);
    let _next = provider.begin().wait_blocking().unwrap();
    assert_eq!(shown(), None);
}

/// A builder keeps the handle of its build, which has failed. The next one has the same generation.
#[cfg(feature = "supervise")]
#[test]
fn a_build_that_was_kept_shows_nothing() {
    use std::sync::mpsc;

    use crate::support::until;

    let (registry, [top]) = registry_of::<u32, 1>(["top"]);
    let (send_build, builds) = mpsc::channel();
    let (publish, published) = mpsc::channel::<()>();
    let supervisor = registry.supervise(top).unwrap();
    let thread = thread::spawn(move || {
        pollster::block_on(supervisor.run(async move |build| {
            if build.number() == 1 {
                send_build.send(build).unwrap();
                return Err("not yet");
            }
            let _waiting = build.waiting_for("the second build");
            published.recv().unwrap();
            Ok(1)
        }))
    });
    let kept = builds.recv().unwrap();
    let shown = || registry.status(top).unwrap().waiting_for;
    until("the second build waits", || shown().is_some());
    assert_eq!(registry.status(top).unwrap().generation, 0);
    let waiting = kept.waiting_for("the first build");
    assert_eq!(shown().unwrap(), "the second build");
    drop(waiting);
    assert_eq!(shown().unwrap(), "the second build");
    publish.send(()).unwrap();
    registry.wait_ready(top).wait_blocking_timeout(LONG).unwrap();
    assert_eq!(shown(), None);
    registry.close();
    let _ = thread.join();
}

#[cfg(feature = "serde")]
#[test]
fn the_life_of_a_service_is_serialised() {
    let (registry, [config, server]) = registry_of::<u32, 2>(["config", "server"]);
    let (_provide_config, _config) = up(&registry, config, 1);
    let provider = registry.provide(server).unwrap();
    let running = publish_from(&provider, config, 1);
    running.replace(2).unwrap();
    let status = registry.status(server).unwrap();
    let json = serde_json::to_value(&status).unwrap();
    // RFC 3339, as the time of a failure.
    let mut failure = serde_json::to_value(registry.status(server).unwrap()).unwrap();
    assert_eq!(failure["since"].take(), json["since"]);
    let text = json["since"].as_str().unwrap();
    assert!(text.len() == 30 && text.ends_with('Z') && text.contains('T'), "{text}");
    assert_eq!((&json["built"], &json["failed"]), (&1.into(), &0.into()));
    assert_eq!((&json["replaced"], &json["revision"]), (&1.into(), &1.into()));
    assert!(json["waiting_for"].is_null());
    let from = &json["built_from"][0];
    assert_eq!((&from["name"], &from["kind"]), (&"config".into(), &"hard".into()));
    assert_eq!((&from["generation"], &from["revision"]), (&0.into(), &0.into()));
    let state = serde_json::to_value(status.state()).unwrap();
    assert_eq!((&state["phase"], &state["revision"]), (&"ready".into(), &1.into()));

    running.fail("lost");
    let attempt = provider.begin().wait_blocking().unwrap();
    let _waiting = attempt.waiting_for("the lease");
    let json = serde_json::to_value(registry.status(server).unwrap()).unwrap();
    assert_eq!(json["waiting_for"], "the lease");
}
