//! The drop of a `Running` removes its value from the slot: only after the slot was taken down, and
//! only this value.
//!
//! ```text
//! reporter:  condemn config, condemn db                         | take down db, take down config
//! dropper:             already failed by this report: is the slot taken down? remove the value
//! observer:                                              config is not ready. And db?
//! ```
//!
//! An empty slot looks failed, so I1 applies to it, too. What must not happen: the slot of `config`
//! is emptied while `db` is ready; or the value that is removed is the next instance.
#![cfg(loom)]

use loom::thread::spawn;
use mainstay_loom_tests::{join, model, read_state, services};

/// Preemption bound: 3.
#[test]
fn the_value_is_removed_only_after_the_take_down() {
    model("the value is removed only after the take down", Some(3), || {
        let (registry, [config, db], [config_provider, db_provider]) = services(&[(1, 0)]);
        let (config_running, db_running) =
            (config_provider.start(&[]), db_provider.start(&[config]));
        let broken = config_running.instance().expect("the instance is current");

        let reporter = spawn({
            let registry = registry.clone();
            move || registry.fail_instance(&broken, "broken").unwrap()
        });
        let dropper = spawn(move || drop(config_running));
        let observer = spawn(move || {
            // config was ready, so "not ready" means failed. Nothing starts it again, so db must
            // not be ready then.
            let (_, ready) = read_state(&registry, config);
            assert!(ready || registry.get(db).is_err(), "I1: config has failed, db is ready");
        });
        join(reporter);
        join(dropper);
        join(observer);
        drop(db_running);
    });
}

/// Preemption bound: 4.
#[test]
fn the_drop_of_a_running_never_removes_the_next_instance() {
    model("the drop of a running never removes the next instance", Some(4), || {
        let (registry, [x], [provider]) = services(&[]);
        let running = provider.start(&[]);

        let dropper = spawn(move || drop(running));
        let restarter = spawn({
            let registry = registry.clone();
            move || {
                registry.fail(x, "again").unwrap();
                (provider.try_build(&[]), provider)
            }
        });
        join(dropper);
        let (next, provider) = join(restarter);
        assert_eq!(read_state(&registry, x).1, next.is_some(), "the next instance was removed");
        drop((next, provider));
    });
}
