//! W: if a condition holds from some point in time on, a waiter for this condition is woken after
//! that point. loom reports a lost wake-up as a deadlock.
//!
//! ```text
//! waiter:    listen, set the waiter bit, check: not yet                      sleep
//! notifier:                            the state changes, the bit was set: notify
//! ```
//!
//! What must not happen: the notifier does not see the bit, or not the listener, and the waiter
//! does not see the new state.
#![cfg(loom)]

use loom::thread::spawn;
use mainstay::error::{BeginError, WaitForError, WaitReadyError};
use mainstay_loom_tests::{Value, join, model, now_or_never, read_state, services, try_publish};

#[test]
fn ready_wakes_wait_ready() {
    model("ready wakes wait ready", None, || {
        let (registry, [x], [provider]) = services(&[]);
        let attempt = provider.attempt();
        let waiter = spawn(move || registry.wait_ready(x).wait_blocking().unwrap().version);
        let notifier = spawn(move || attempt.ready(Value::new(7)).unwrap());
        assert_eq!(join(waiter), 7);
        drop(join(notifier));
    });
}

/// `begin` changes the state and notifies no waiter, so it must keep the bit. (Preemption bound:
/// 3.)
#[test]
fn begin_keeps_the_waiter_bit_of_wait_ready() {
    model("begin keeps the waiter bit of wait ready", Some(3), || {
        let (registry, [x], [provider]) = services(&[]);
        let waiter = spawn(move || registry.wait_ready(x).wait_blocking().unwrap());
        let notifier = spawn(move || (provider.start(&[]), provider));
        join(waiter);
        drop(join(notifier));
    });
}

/// The notification is for both. (Preemption bound: 1, because two waits take many steps.)
#[test]
fn ready_wakes_both_waiters_of_a_slot() {
    model("ready wakes both waiters of a slot", Some(1), || {
        let (registry, [x], [provider]) = services(&[]);
        let attempt = provider.attempt();
        let waiters = [registry.clone(), registry]
            .map(|registry| spawn(move || registry.wait_ready(x).wait_blocking().unwrap().version));
        let notifier = spawn(move || attempt.ready(Value::new(7)).unwrap());
        assert_eq!(waiters.map(join), [7, 7]);
        drop(join(notifier));
    });
}

/// The first wait is dropped and may be notified nevertheless; then the thread waits again.
/// (Preemption bound: 3.)
#[test]
fn ready_wakes_a_wait_that_follows_a_dropped_one() {
    model("ready wakes a wait that follows a dropped one", Some(3), || {
        let (registry, [x], [provider]) = services(&[]);
        let attempt = provider.attempt();
        let waiter = spawn(move || {
            let _ = now_or_never(registry.wait_ready(x));
            registry.wait_ready(x).wait_blocking().unwrap().version
        });
        let notifier = spawn(move || attempt.ready(Value::new(7)).unwrap());
        assert_eq!(join(waiter), 7);
        drop(join(notifier));
    });
}

#[test]
fn fail_wakes_a_wait_for_the_failure() {
    model("fail wakes a wait for the failure", None, || {
        let (registry, [x], [provider]) = services(&[]);
        let running = provider.start(&[]);
        let waiter = spawn(move || (running.failed().wait_blocking().unwrap().generation, running));
        let notifier = spawn(move || registry.fail(x, "enough").unwrap());
        assert_eq!(join(waiter).0, 0);
        join(notifier);
    });
}

#[test]
fn fail_wakes_begin() {
    model("fail wakes begin", None, || {
        let (registry, [x], [provider]) = services(&[]);
        let running = provider.start(&[]);
        let waiter = spawn(move || {
            assert_eq!(provider.begin().wait_blocking().unwrap().generation(), 1);
            provider
        });
        let notifier = spawn(move || registry.fail(x, "again").unwrap());
        join(notifier);
        drop((join(waiter), running));
    });
}

#[test]
fn a_dropped_attempt_wakes_begin() {
    model("a dropped attempt wakes begin", None, || {
        let (_registry, [_], [provider]) = services(&[]);
        let attempt = provider.attempt();
        let waiter = spawn(move || {
            assert_eq!(provider.begin().wait_blocking().unwrap().generation(), 0);
            provider
        });
        let notifier = spawn(move || drop(attempt));
        join(notifier);
        drop(join(waiter));
    });
}

/// The attempt at `db` fails by itself after the cascade has condemned it. So `db` is down, and
/// condemned until the cascade takes it down. (Preemption bound: 3.)
#[test]
fn the_end_of_a_cascade_wakes_begin() {
    model("the end of a cascade wakes begin", Some(3), || {
        let (registry, [config, _], [config_provider, db_provider]) = services(&[(1, 0)]);
        let running = config_provider.start(&[]);
        let attempt = db_provider.attempt();
        let waiter = spawn(move || {
            drop(attempt);
            (db_provider.begin().wait_blocking().is_ok(), db_provider)
        });
        let notifier = spawn(move || registry.fail(config, "edited").unwrap());
        join(notifier);
        drop((join(waiter), running));
    });
}

/// Preemption bound: 3.
#[test]
fn ready_wakes_wait_for() {
    model("ready wakes wait for", Some(3), || {
        let (_registry, [config, _], [config_provider, db_provider]) = services(&[(1, 0)]);
        let (on_config, on_db) = (config_provider.attempt(), db_provider.attempt());
        let waiter =
            spawn(move || (on_db.wait_for(config).wait_blocking().unwrap().version, on_db));
        let notifier = spawn(move || on_config.ready(Value::new(7)).unwrap());
        assert_eq!(join(waiter).0, 7);
        drop(join(notifier));
    });
}

/// The attempt that waits is invalidated. (Preemption bound: 3.)
#[test]
fn an_invalidation_wakes_wait_for() {
    model("an invalidation wakes wait for", Some(3), || {
        let (registry, [config, db], [_config_provider, db_provider]) = services(&[(1, 0)]);
        let attempt = db_provider.attempt();
        let waiter = spawn(move || {
            let invalidated = attempt.wait_for(config).wait_blocking();
            assert!(matches!(invalidated, Err(WaitForError::Invalidated(_))));
            attempt
        });
        let notifier = spawn(move || registry.fail(db, "enough").unwrap());
        assert_eq!(join(notifier).invalidated, 1);
        drop(join(waiter));
    });
}

/// The dependency is ready, condemned, down, and ready again. (Preemption bound: 2.)
#[test]
fn a_cascade_of_the_dependency_wakes_wait_for() {
    model("a cascade of the dependency wakes wait for", Some(2), || {
        let (registry, [config, db], [config_provider, db_provider]) = services(&[]);
        let running = config_provider.start(&[]);
        let attempt = db_provider.attempt();
        let waiter = spawn(move || {
            let ready = attempt.wait_for(config).wait_blocking().is_ok();
            (ready, try_publish(attempt, &[config]))
        });
        let notifier = spawn({
            let registry = registry.clone();
            move || {
                let cascade = registry.fail(config, "edited").unwrap();
                (cascade, config_provider.start(&[]), config_provider)
            }
        });
        let (cascade, ..) = &join(notifier);
        let (ready, db_running) = join(waiter);
        let (generation, _) = read_state(&registry, db);
        assert!(ready || generation == 1, "neither ready nor invalidated");
        assert!(cascade.failed + cascade.invalidated <= 2);
        drop((running, db_running));
    });
}

#[test]
fn close_wakes_wait_ready() {
    model("close wakes wait ready", None, || {
        let (registry, [x], _providers) = services(&[]);
        let waiter = spawn({
            let registry = registry.clone();
            move || {
                let closed = registry.wait_ready(x).wait_blocking();
                assert!(matches!(closed, Err(WaitReadyError::Closed { .. })));
            }
        });
        let notifier = spawn(move || registry.close());
        join(waiter);
        join(notifier);
    });
}

#[test]
fn close_wakes_begin() {
    model("close wakes begin", None, || {
        let (registry, [_], [provider]) = services(&[]);
        let running = provider.start(&[]);
        let waiter = spawn(move || {
            assert!(matches!(provider.begin().wait_blocking(), Err(BeginError::Closed { .. })));
            provider
        });
        let notifier = spawn(move || registry.close());
        join(notifier);
        drop((join(waiter), running));
    });
}
