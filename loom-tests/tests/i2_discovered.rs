//! I2 for an edge that is not known yet: `db` discovers that it depends on `config` while `config`
//! fails.
//!
//! ```text
//! cascade:  condemn config, fence, has config gained a dependent? | take down
//! db:       publish the edge, fence, is config condemned?         | ready
//! ```
//!
//! What must not happen: the cascade does not see the edge, and `db` does not see that `config` is
//! condemned. Both fences, the check after the fence and the check of `condemned` exclude it.
#![cfg(loom)]

use loom::thread::spawn;
use mainstay_loom_tests::{assert_i2, join, model, services, try_publish};

/// Preemption bound: 4.
#[test]
fn an_edge_discovered_during_a_cascade_is_not_missed() {
    model("an edge discovered during a cascade is not missed", Some(4), || {
        let (registry, ids @ [config, _], [config_provider, db_provider]) = services(&[]);
        let running = config_provider.start(&[]);
        let attempt = db_provider.attempt();

        let builder = spawn(move || try_publish(attempt, &[config]));
        let failer = spawn({
            let registry = registry.clone();
            move || registry.fail(config, "edited").unwrap()
        });
        let cascade = join(failer);
        let db = join(builder);
        assert_i2(&registry, &ids);
        assert!(cascade.failed >= 1 && cascade.failed + cascade.invalidated <= 2);
        drop((running, db));
    });
}

/// The cascade need not walk: an earlier one has cached the closure. (Preemption bound: 4.)
#[test]
fn an_edge_discovered_beside_a_cached_closure_is_not_missed() {
    model("an edge discovered beside a cached closure is not missed", Some(4), || {
        let (registry, ids @ [config, _], [config_provider, db_provider]) = services(&[]);
        drop(config_provider.start(&[]));
        let running = config_provider.start(&[]);
        let attempt = db_provider.attempt();

        let builder = spawn(move || try_publish(attempt, &[config]));
        let failer = spawn({
            let registry = registry.clone();
            move || registry.fail(config, "edited").map(drop).unwrap()
        });
        join(failer);
        let db = join(builder);
        assert_i2(&registry, &ids);
        drop((running, db));
    });
}

/// The attempt waits until `config` is ready again, or until it is invalidated. (Preemption bound:
/// 3.)
#[test]
fn an_edge_discovered_by_a_blocking_wait_is_not_missed() {
    model("an edge discovered by a blocking wait is not missed", Some(3), || {
        let (registry, ids @ [config, _], [config_provider, db_provider]) = services(&[]);
        let running = config_provider.start(&[]);
        let attempt = db_provider.attempt();

        let builder = spawn(move || {
            let _ = attempt.wait_for(config).wait_blocking();
            try_publish(attempt, &[config])
        });
        let failer = spawn({
            let registry = registry.clone();
            move || {
                registry.fail(config, "edited").unwrap();
                (config_provider.try_build(&[]), config_provider)
            }
        });
        let returned = (join(failer), join(builder));
        assert_i2(&registry, &ids);
        drop((running, returned));
    });
}

/// `db` is condemned before `pool`, fails by itself, restarts at once, and discovers that it
/// depends on `pool` before `pool` is condemned. (Preemption bound: 3.)
///
/// ```text
/// cascade:  condemn config, db |                                            | condemn pool, check
/// db:                           fail, begin, publish the edge to pool, ready
/// ```
#[test]
fn an_edge_discovered_by_a_restarted_dependent_is_not_missed() {
    model("an edge discovered by a restarted dependent is not missed", Some(3), || {
        let (registry, ids @ [config, db, pool], [config_provider, db_provider, pool_provider]) =
            services(&[(1, 0), (2, 0)]);
        let running = (
            config_provider.start(&[]),
            db_provider.start(&[config]),
            pool_provider.start(&[config]),
        );

        let failer = spawn({
            let registry = registry.clone();
            move || registry.fail(config, "edited").map(drop).unwrap()
        });
        let builder = spawn({
            let registry = registry.clone();
            move || {
                registry.fail(db, "lost").unwrap();
                (db_provider.try_build(&[pool]), db_provider)
            }
        });
        join(failer);
        let returned = join(builder);
        assert_i2(&registry, &ids);
        drop((running, returned, config_provider, pool_provider));
    });
}

/// `config` gains `pool` during the cascade. While `pool` is condemned, too, `db` discovers that it
/// depends on `pool`: the check of each pass needs a fence of its own. (Preemption bound: 3.)
#[test]
fn an_edge_discovered_during_a_second_pass_is_not_missed() {
    model("an edge discovered during a second pass is not missed", Some(3), || {
        let (registry, ids @ [config, pool, _], [config_provider, pool_provider, db_provider]) =
            services(&[]);
        let running = (config_provider.start(&[]), pool_provider.start(&[]));
        let attempt = db_provider.attempt();

        let failer = spawn({
            let registry = registry.clone();
            move || registry.fail(config, "edited").map(drop).unwrap()
        });
        let builder = spawn({
            let registry = registry.clone();
            move || {
                registry.depends(pool).on(config).unwrap();
                try_publish(attempt, &[pool])
            }
        });
        join(failer);
        let db = join(builder);
        assert_i2(&registry, &ids);
        drop((running, db));
    });
}
