//! I2: in the quiescent state, no ready service was built from an instance that has failed. Here
//! the edge is declared, and both services restart while the cascade is in progress.
//!
//! ```text
//! cascade:  condemn config, condemn db | take down db           take down config | restart config
//! db:                                              begin, wait_for(config), ready
//! ```
//!
//! What must not happen: `db` is taken down, is built again from the `config` that has not been
//! taken down yet, and is not reached any more when `config` is taken down.
#![cfg(loom)]

use loom::thread::spawn;
use mainstay_loom_tests::{assert_i2, join, model, read_state, services};

/// No thread waits: a provider that would have to wait stops. (Preemption bound: 4.)
#[test]
fn no_stale_dependent_if_both_restart_without_waiting() {
    model("no stale dependent if both restart without waiting", Some(4), || {
        let (registry, ids @ [config, _], [config_provider, db_provider]) = services(&[(1, 0)]);
        let running = (config_provider.start(&[]), db_provider.start(&[config]));

        let failer = spawn({
            let registry = registry.clone();
            move || {
                registry.fail(config, "edited").unwrap();
                (config_provider.try_build(&[]), config_provider)
            }
        });
        let restarter = spawn(move || (db_provider.try_build(&[config]), db_provider));
        let returned = (join(failer), join(restarter));
        assert_i2(&registry, &ids);
        drop((running, returned));
    });
}

/// Whole provider loops, which wait: `db` is also ready again in the end, after one round.
/// (Preemption bound: 2.)
#[test]
fn provider_loops_that_wait_recover_in_one_round() {
    model("provider loops that wait recover in one round", Some(2), || {
        let (registry, ids @ [config, db], [config_provider, db_provider]) = services(&[(1, 0)]);
        let running = (config_provider.start(&[]), db_provider.start(&[config]));

        let configs = spawn(move || (config_provider.build(&[]), config_provider));
        let dbs = spawn(move || (db_provider.build(&[config]), db_provider));
        let failer = spawn({
            let registry = registry.clone();
            move || registry.fail(config, "edited").unwrap()
        });
        join(failer);
        let returned = (join(configs), join(dbs));
        assert_i2(&registry, &ids);
        assert_eq!(
            (read_state(&registry, config), read_state(&registry, db)),
            ((1, true), (1, true))
        );
        drop((running, returned));
    });
}
