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
use mainstay_loom_tests::{assert_i2, join, model, now_or_never, services, try_publish};

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

/// `config` has another dependent, so the cascade uses a closure that was computed before.
/// (Preemption bound: 3.)
#[test]
fn an_edge_discovered_beside_a_precomputed_closure_is_not_missed() {
    model("an edge discovered beside a precomputed closure is not missed", Some(3), || {
        let (registry, ids @ [config, _, _], [config_provider, db_provider, _other]) =
            services(&[(2, 0)]);
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

/// An attempt at `other` has discovered its edge and is still in progress, so no closure that
/// contains the edge was computed yet, and the cascade walks. (Preemption bound: 3.)
#[test]
fn an_edge_discovered_during_a_walk_is_not_missed() {
    model("an edge discovered during a walk is not missed", Some(3), || {
        let (registry, ids @ [config, _, _], [config_provider, db_provider, other_provider]) =
            services(&[]);
        let running = config_provider.start(&[]);
        let (attempt, other) = (db_provider.attempt(), other_provider.attempt());
        assert!(now_or_never(other.wait_for(config)).is_some(), "config is ready");

        let builder = spawn(move || try_publish(attempt, &[config]));
        let failer = spawn({
            let registry = registry.clone();
            move || registry.fail(config, "edited").unwrap()
        });
        join(failer);
        let db = join(builder);
        assert_i2(&registry, &ids);
        assert!(other.is_invalidated(), "I2: its instance of config has failed");
        drop((running, db, other));
    });
}

/// An attempt is invalidated while it publishes an edge, and the next attempt uses the same edge.
/// (Preemption bound: 3.)
///
/// ```text
/// first:   publish the edge d -> x |
/// next:                            | fail d, begin, wait_for(x): the edge exists. ready. fail x
/// ```
#[test]
fn an_edge_that_the_previous_attempt_discovers_is_not_missed() {
    model("an edge that the previous attempt discovers is not missed", Some(3), || {
        let (registry, ids @ [x, d, _], [x_provider, d_provider, _other]) = services(&[(2, 0)]);
        let x_running = x_provider.start(&[]);
        let first = d_provider.attempt();

        let late = spawn(move || try_publish(first, &[x]));
        let next = spawn({
            let registry = registry.clone();
            move || {
                registry.fail(d, "lost").unwrap();
                let d_running = d_provider.try_build(&[x]);
                registry.fail(x, "gone").unwrap();
                (d_running, d_provider)
            }
        });
        let returned = (join(late), join(next));
        assert_i2(&registry, &ids);
        drop((x_running, returned));
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

/// `config` gains `pool` during the first pass of the cascade, which finds another dependent.
/// While the second pass condemns `pool`, `db` discovers that it depends on `pool`: the check of
/// each pass needs a fence of its own. (Preemption bound: 2.)
#[test]
fn an_edge_discovered_during_a_second_pass_is_not_missed() {
    model("an edge discovered during a second pass is not missed", Some(2), || {
        let (registry, ids, providers) = services(&[(3, 0)]);
        let [config, pool, _, _] = ids;
        let [config_provider, pool_provider, db_provider, other_provider] = providers;
        let running = (config_provider.start(&[]), pool_provider.start(&[]));
        let attempt = db_provider.attempt();

        let failer = spawn({
            let registry = registry.clone();
            move || registry.fail(config, "edited").map(drop).unwrap()
        });
        let declarer = spawn({
            let registry = registry.clone();
            move || registry.depends(pool).on(config).map(drop).unwrap()
        });
        let builder = spawn(move || try_publish(attempt, &[pool]));
        join(failer);
        join(declarer);
        let db = join(builder);
        assert_i2(&registry, &ids);
        // pool is not condemned: if it is down, an attempt begins; if it is ready, it can be used.
        match pool_provider.try_build(&[]) {
            Some(pool_running) => drop(pool_running),
            None => assert!(other_provider.try_build(&[pool]).is_some(), "A3: pool is condemned"),
        }
        drop((running, db));
    });
}
