//! I2: once everything is quiet, no ready service rests on an instance that has failed. Here the edge is
//! declared, and everything restarts while the cascade runs.
//!
//! ```text
//! cascade:  condemn config, condemn db | raise db            raise config | restart config
//! db:                                            begin, wait_for(config), ready
//! ```
//!
//! What must not be: db is raised, restarts on the config that has not been raised yet, and is out of reach
//! when that is.
#![cfg(loom)]

use loom::thread::spawn;
use mainstay_loom_tests::{assert_i2, join, look, model, services};

/// Nobody waits: who would have to gives up. (Bound: 4.)
#[test]
fn restarting() {
    model("i2 chain, restarting", Some(4), || {
        let (registry, ids @ [config, _], [config_role, db_role]) = services(&[(1, 0)]);
        let running = (config_role.start(&[]), db_role.start(&[config]));

        let failer = spawn({
            let registry = registry.clone();
            move || {
                registry.fail(config, "edited").unwrap();
                (config_role.try_build(&[]), config_role)
            }
        });
        let restarter = spawn(move || (db_role.try_build(&[config]), db_role));
        let ends = (join(failer), join(restarter));
        assert_i2(&registry, &ids);
        drop((running, ends));
    });
}

/// Whole provider loops, which wait: db is also ready again in the end, in one round. (Bound: 2.)
#[test]
fn provider_loops() {
    model("i2 chain, provider loops", Some(2), || {
        let (registry, ids @ [config, db], [config_role, db_role]) = services(&[(1, 0)]);
        let running = (config_role.start(&[]), db_role.start(&[config]));

        let configs = spawn(move || (config_role.build(&[]), config_role));
        let dbs = spawn(move || (db_role.build(&[config]), db_role));
        let failer = spawn({
            let registry = registry.clone();
            move || registry.fail(config, "edited").unwrap()
        });
        join(failer);
        let ends = (join(configs), join(dbs));
        assert_i2(&registry, &ids);
        assert_eq!((look(&registry, config), look(&registry, db)), ((1, true), (1, true)));
        drop((running, ends));
    });
}
