//! I1: whoever has seen `config` fail never after that reads a `db` that was built from what failed.
//!
//! ```text
//! cascade:  condemn config, condemn db | raise db, raise config | (restart config)
//! observer:              look at config: failed?  then look at db
//! ```
//!
//! What must not be: config raised (or condemned and raised, in one pass) before db, with the observer's two
//! looks in between. Nor by another cascade, one that has raised its db already, to where the newest has condemned it:
//!
//! ```text
//! oldest:   condemn config (1), db (1) | raise db (1)                                            | raise config (1, not 3)
//! between:                                           a whole cascade (2), both restart
//! newest:                                                                   condemn config (3) |
//! ```
#![cfg(loom)]

use loom::thread::spawn;
use mainstay::Registry;
use mainstay_loom_tests::{Id, join, look, model, services};

/// Looks from the top down: first at the dependency, then at what stands on it.
fn observe(registry: &Registry, config: Id, db: Id) {
    let (seen, _) = look(registry, config);
    if let Ok(db) = registry.get(db) {
        let (_, built_from) = db.on[0];
        assert!(built_from >= seen, "I1: config was seen in {seen}, db is built from {built_from}");
    }
}

#[test]
fn observed() {
    model("i1 observed", None, || {
        let (registry, [config, db], [config_role, db_role]) = services(&[(1, 0)]);
        let running = (config_role.start(&[]), db_role.start(&[config]));

        let failer = spawn({
            let registry = registry.clone();
            move || registry.fail(config, "edited").unwrap()
        });
        let observer = spawn(move || observe(&registry, config, db));
        let fell = join(failer);
        assert_eq!(fell.went_down, 2);
        join(observer);
        drop(running);
    });
}

/// The observer may also see the failure as a later generation, and db may be ready again. (Bound: 2.)
#[test]
fn observed_while_restarting() {
    model("i1 observed while restarting", Some(2), || {
        let (registry, [config, db], [config_role, db_role]) = services(&[(1, 0)]);
        let running = (config_role.start(&[]), db_role.start(&[config]));

        let failer = spawn({
            let registry = registry.clone();
            move || {
                registry.fail(config, "edited").unwrap();
                (config_role.try_build(&[]).expect("it failed once"), config_role)
            }
        });
        let restarter = spawn(move || (db_role.try_build(&[config]), db_role));
        let observer = spawn(move || observe(&registry, config, db));
        let ends = (join(failer), join(restarter), join(observer));
        drop((running, ends));
    });
}

/// Three cascades of one root; the oldest looks when it is done. (Bound: 2.)
#[test]
fn observed_between_cascades() {
    model("i1 observed between cascades", Some(2), || {
        let (registry, [config, db], [config_role, db_role]) = services(&[(1, 0)]);
        let running = (config_role.start(&[]), db_role.start(&[config]));

        let oldest = spawn({
            let registry = registry.clone();
            move || {
                registry.fail(config, "edited").unwrap();
                observe(&registry, config, db);
            }
        });
        let others = spawn(move || {
            registry.fail(config, "edited again").unwrap();
            let restarted = (config_role.try_build(&[]), db_role.try_build(&[config]));
            registry.fail(config, "and again").unwrap();
            (restarted, config_role, db_role)
        });
        join(oldest);
        let ends = join(others);
        drop((running, ends));
    });
}
