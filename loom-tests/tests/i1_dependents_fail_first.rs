//! I1: a reader that has seen `config` fail never reads, after that, a `db` that was built from the
//! failed instance.
//!
//! ```text
//! cascade:   condemn config, condemn db | take down db, take down config | (restart config)
//! observer:               read config: has it failed?  then read db
//! ```
//!
//! What must not happen: `config` is taken down before `db` (or is condemned and taken down in one
//! pass), and the observer reads both in between. Nor may another cascade do this, one that has
//! already taken down its `db`, by taking `config` down to the generation to which the newest
//! cascade has condemned it. The numbers are generations:
//!
//! ```text
//! oldest:   condemn config to 1, db to 1; take down db           | take down config to 1, not to 3
//! between:                                      a whole cascade (2), both restart
//! newest:                                                        condemn config to 3 |
//! ```
#![cfg(loom)]

use loom::thread::spawn;
use mainstay::Registry;
use mainstay_loom_tests::{Id, join, model, read_state, services};

/// Reads the dependency first, and then its dependent.
fn observe(registry: &Registry, config: Id, db: Id) {
    let (seen, _) = read_state(registry, config);
    if let Ok(db) = registry.get(db) {
        let (_, built_from) = db.built_from[0];
        assert!(built_from >= seen, "I1: config was in {seen}, db was built from {built_from}");
    }
}

#[test]
fn dependents_fail_before_their_dependency() {
    model("dependents fail before their dependency", None, || {
        let (registry, [config, db], [config_provider, db_provider]) = services(&[(1, 0)]);
        let running = (config_provider.start(&[]), db_provider.start(&[config]));

        let failer = spawn({
            let registry = registry.clone();
            move || registry.fail(config, "edited").unwrap()
        });
        let observer = spawn(move || observe(&registry, config, db));
        let cascade = join(failer);
        assert_eq!(cascade.failed, 2);
        join(observer);
        drop(running);
    });
}

/// The observer may also see the failure as a later generation, and `db` may be ready again.
/// (Preemption bound: 2.)
#[test]
fn dependents_fail_first_while_both_restart() {
    model("dependents fail first while both restart", Some(2), || {
        let (registry, [config, db], [config_provider, db_provider]) = services(&[(1, 0)]);
        let running = (config_provider.start(&[]), db_provider.start(&[config]));

        let failer = spawn({
            let registry = registry.clone();
            move || {
                registry.fail(config, "edited").unwrap();
                (config_provider.try_build(&[]).expect("config fails once"), config_provider)
            }
        });
        let restarter = spawn(move || (db_provider.try_build(&[config]), db_provider));
        let observer = spawn(move || observe(&registry, config, db));
        let returned = (join(failer), join(restarter), join(observer));
        drop((running, returned));
    });
}

/// Three cascades have the same root. The oldest one observes the services when it has ended.
/// (Preemption bound: 2.)
#[test]
fn dependents_fail_first_with_three_cascades() {
    model("dependents fail first with three cascades", Some(2), || {
        let (registry, [config, db], [config_provider, db_provider]) = services(&[(1, 0)]);
        let running = (config_provider.start(&[]), db_provider.start(&[config]));

        let oldest = spawn({
            let registry = registry.clone();
            move || {
                registry.fail(config, "edited").unwrap();
                observe(&registry, config, db);
            }
        });
        let others = spawn(move || {
            registry.fail(config, "edited again").unwrap();
            let restarted = (config_provider.try_build(&[]), db_provider.try_build(&[config]));
            registry.fail(config, "and again").unwrap();
            (restarted, config_provider, db_provider)
        });
        join(oldest);
        let returned = join(others);
        drop((running, returned));
    });
}
