//! F: a value that was built under a generation is never published after that generation has ended.
//! The value is returned to the caller, and no reader has seen it.
//!
//! ```text
//! attempt:  value into the slot,         Starting -> Ready? if not, remove the value from the slot
//! cascade:                       Starting -> Down, fail returns: the value cannot be read
//! reader:   load the value from the slot,             is its tag the state?
//! ```
#![cfg(loom)]

use loom::thread::spawn;
use mainstay::error::ReadyError;
use mainstay_loom_tests::{Value, join, model, now_or_never, read_state, services, try_publish};

/// Preemption bound: 3.
#[test]
fn a_failure_of_the_service_prevents_its_publication() {
    model("a failure of the service prevents its publication", Some(3), || {
        let (registry, [x], [provider]) = services(&[]);
        let attempt = provider.attempt();

        let publisher = spawn(move || attempt.ready(Value::new(7)).map_err(ReadyError::into_value));
        let failer = spawn({
            let registry = registry.clone();
            move || {
                let cascade = registry.fail(x, "enough").unwrap();
                assert!(registry.get(x).is_err(), "F: readable after fail returned");
                cascade
            }
        });
        let reader = spawn({
            let registry = registry.clone();
            move || registry.get(x).map(|guard| assert_eq!(*guard, Value::new(7))).is_ok()
        });
        let (cascade, seen) = (join(failer), join(reader));
        match join(publisher) {
            Ok(_running) => assert_eq!(cascade.failed, 1, "F: published, but not failed"),
            Err(value) => {
                assert_eq!((value.into_inner(), cascade.invalidated), (Value::new(7), 1));
                assert!(!seen, "F: a reader has seen a value that was returned");
            }
        }
        assert_eq!(read_state(&registry, x), (1, false), "F: published after its generation ended");
    });
}

#[test]
fn a_failure_of_a_dependency_prevents_the_publication() {
    model("a failure of a dependency prevents the publication", None, || {
        let (registry, [config, db], [config_provider, db_provider]) = services(&[]);
        let running = config_provider.start(&[]);
        let attempt = db_provider.attempt();
        now_or_never(attempt.wait_for(config)).unwrap().unwrap();

        let publisher = spawn(move || attempt.ready(Value::new(7)).map_err(ReadyError::into_value));
        let failer = spawn({
            let registry = registry.clone();
            move || {
                let cascade = registry.fail(config, "edited").unwrap();
                assert!(registry.get(db).is_err(), "F: readable after fail returned");
                cascade
            }
        });
        let cascade = join(failer);
        match join(publisher) {
            Ok(_running) => {
                assert_eq!(
                    (cascade.failed, cascade.invalidated),
                    (2, 0),
                    "F: published, but not failed"
                );
            }
            Err(value) => {
                assert_eq!(
                    (value.into_inner(), cascade.failed, cascade.invalidated),
                    (Value::new(7), 1, 1)
                )
            }
        }
        assert_eq!(
            read_state(&registry, db),
            (1, false),
            "F: published after its generation ended"
        );
        drop(running);
    });
}

/// An attempt is invalidated during its publication, while the next attempt is published. The late
/// value never covers the new one, at any instant. (Preemption bound: 4.)
#[test]
fn an_invalidated_publication_never_covers_the_next_one() {
    model("an invalidated publication never covers the next one", Some(4), || {
        let (registry, [x], [provider]) = services(&[]);
        let late = provider.attempt();

        // The running handle is kept: its drop would let the next attempt wait for the value.
        let publisher = spawn(move || late.ready(Value::new(7)).ok());
        let next = spawn({
            let registry = registry.clone();
            move || {
                registry.fail(x, "again").unwrap();
                let attempt = provider.attempt();
                let running = try_publish(attempt, &[]).expect("nothing fails the service");
                let value = registry.get(x).expect("F: covered by an older value");
                assert_eq!(*value, Value::new(0));
                (running, provider)
            }
        });
        let running = join(next);
        let published = join(publisher);
        let value = registry.get(x).expect("F: covered by an older value");
        assert_eq!(*value, Value::new(0));
        drop((running, published));
    });
}

/// An attempt that waits for the service does not receive a value that is not published.
/// (Preemption bound: 2.)
#[test]
fn wait_for_never_returns_an_unpublished_value() {
    model("wait for never returns an unpublished value", Some(2), || {
        let (registry, [config, _], [config_provider, db_provider]) = services(&[(1, 0)]);
        let (on_config, on_db) = (config_provider.attempt(), db_provider.attempt());

        let publisher =
            spawn(move || on_config.ready(Value::new(7)).map_err(ReadyError::into_value));
        let builder = spawn(move || matches!(now_or_never(on_db.wait_for(config)), Some(Ok(_))));
        let failer = spawn(move || registry.fail(config, "enough").map(drop).unwrap());
        join(failer);
        let seen = join(builder);
        if let Err(value) = join(publisher) {
            assert_eq!(value.into_inner(), Value::new(7));
            assert!(!seen, "F: an attempt has received a value that was returned");
        }
    });
}
