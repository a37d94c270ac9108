//! F: what was built under a generation is never published after that generation has ended. The value comes
//! back, and nobody has seen it.
//!
//! ```text
//! attempt:  value into the slot,      Starting -> Ready?          if not: take the value out again
//! cascade:                   Starting -> Down        fail returns: nothing of it is readable
//! reader:           value from the slot,    is its tag the state?
//! ```
#![cfg(loom)]

use loom::thread::spawn;
use mainstay::ReadyError;
use mainstay_loom_tests::{finish, join, look, model, now, plain, services};

/// Bound: 3.
#[test]
fn against_a_failure_of_the_service() {
    model("fenced, the service fails", Some(3), || {
        let (registry, [x], [role]) = services(&[]);
        let attempt = role.attempt();

        let publisher = spawn(move || attempt.ready(plain(7)).map_err(ReadyError::into_value));
        let failer = spawn({
            let registry = registry.clone();
            move || {
                let fell = registry.fail(x, "enough").unwrap();
                assert!(registry.get(x).is_err(), "F: readable after fail returned");
                fell
            }
        });
        let reader = spawn({
            let registry = registry.clone();
            move || registry.get(x).map(|guard| assert_eq!(*guard, plain(7))).is_ok()
        });
        let (fell, seen) = (join(failer), join(reader));
        match join(publisher) {
            Ok(_running) => assert_eq!(fell.went_down, 1, "F: published, and not failed"),
            Err(value) => {
                assert_eq!((value, fell.overtaken), (plain(7), 1));
                assert!(!seen, "F: somebody has seen a value that came back");
            }
        }
        assert_eq!(look(&registry, x), (1, false), "F: published after its generation ended");
    });
}

#[test]
fn against_a_failure_of_the_dependency() {
    model("fenced, the dependency fails", None, || {
        let (registry, [config, db], [config_role, db_role]) = services(&[]);
        let running = config_role.start(&[]);
        let attempt = db_role.attempt();
        now(attempt.wait_for(config)).unwrap().unwrap();

        let publisher = spawn(move || attempt.ready(plain(7)).map_err(ReadyError::into_value));
        let failer = spawn({
            let registry = registry.clone();
            move || {
                let fell = registry.fail(config, "edited").unwrap();
                assert!(registry.get(db).is_err(), "F: readable after fail returned");
                fell
            }
        });
        let fell = join(failer);
        match join(publisher) {
            Ok(_running) => {
                assert_eq!(
                    (fell.went_down, fell.overtaken),
                    (2, 0),
                    "F: published, and not failed"
                );
            }
            Err(value) => assert_eq!((value, fell.went_down, fell.overtaken), (plain(7), 1, 1)),
        }
        assert_eq!(look(&registry, db), (1, false), "F: published after its generation ended");
        drop(running);
    });
}

/// An attempt that is overtaken in its publication, against the next one's: the late value never covers the
/// new one, not for a moment. (Bound: 4.)
#[test]
fn against_the_next_publication() {
    model("fenced, the next publication", Some(4), || {
        let (registry, [x], [role]) = services(&[]);
        let late = role.attempt();

        let publisher = spawn(move || late.ready(plain(7)).is_ok());
        let next = spawn({
            let registry = registry.clone();
            move || {
                registry.fail(x, "again").unwrap();
                let attempt = role.attempt();
                let running = finish(attempt, &[]).expect("nothing fails it");
                let value = registry.get(x).expect("F: covered by an older value");
                assert_eq!(*value, plain(0));
                (running, role)
            }
        });
        let running = join(next);
        join(publisher);
        let value = registry.get(x).expect("F: covered by an older value");
        assert_eq!(*value, plain(0));
        drop(running);
    });
}

/// Who waits for the service to build on it does not get what is not published either. (Bound: 2.)
#[test]
fn against_one_that_waits_for_it() {
    model("fenced, one that waits for it", Some(2), || {
        let (registry, [config, _], [config_role, db_role]) = services(&[(1, 0)]);
        let (on_config, on_db) = (config_role.attempt(), db_role.attempt());

        let publisher = spawn(move || on_config.ready(plain(7)).map_err(ReadyError::into_value));
        let builder = spawn(move || matches!(now(on_db.wait_for(config)), Some(Ok(_))));
        let failer = spawn(move || registry.fail(config, "enough").map(drop).unwrap());
        join(failer);
        let seen = join(builder);
        if let Err(value) = join(publisher) {
            assert_eq!(value, plain(7));
            assert!(!seen, "F: somebody has built on a value that came back");
        }
    });
}
