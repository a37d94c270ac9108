//! The end of a `Running` takes its value out of the slot: only once the slot was raised, and only that value.
//!
//! ```text
//! reporter:  condemn config, condemn db                        | raise db, raise config
//! dropper:                   failed already, by that report: is it raised?  take the value out
//! observer:                                                 config: nothing there.  And db?
//! ```
//!
//! An empty slot looks failed, so I1 speaks of it, too. What must not be: the slot of config is emptied while
//! db is ready; or what is taken out is the next instance.
#![cfg(loom)]

use loom::thread::spawn;
use mainstay_loom_tests::{join, look, model, services};

/// Bound: 3.
#[test]
fn not_before_it_is_raised() {
    model("cleared, not before it is raised", Some(3), || {
        let (registry, [config, db], [config_role, db_role]) = services(&[(1, 0)]);
        let (config_runs, db_runs) = (config_role.start(&[]), db_role.start(&[config]));
        let broken = config_runs.instance().expect("it runs");

        let reporter = spawn({
            let registry = registry.clone();
            move || registry.report(&broken, "broken").unwrap()
        });
        let dropper = spawn(move || drop(config_runs));
        let observer = spawn(move || {
            // It was ready: not ready means failed. Nothing starts it again, so that db cannot be ready then.
            let (_, ready) = look(&registry, config);
            assert!(ready || registry.get(db).is_err(), "I1: config has failed, db is ready");
        });
        join(reporter);
        join(dropper);
        join(observer);
        drop(db_runs);
    });
}

/// Against the next instance. (Bound: 4.)
#[test]
fn nothing_but_its_own() {
    model("cleared, nothing but its own", Some(4), || {
        let (registry, [x], [role]) = services(&[]);
        let running = role.start(&[]);

        let dropper = spawn(move || drop(running));
        let restarter = spawn({
            let registry = registry.clone();
            move || {
                registry.fail(x, "again").unwrap();
                (role.try_build(&[]), role)
            }
        });
        join(dropper);
        let (next, role) = join(restarter);
        assert_eq!(look(&registry, x).1, next.is_some(), "the next instance was taken out");
        drop((next, role));
    });
}
