//! I2 where the edge is not known yet: `db` discovers that it depends on `config` while `config` fails.
//!
//! ```text
//! cascade:  condemn config, fence, has it gained anybody?  | raise
//! db:       make the edge known, fence, is config condemned? | ready
//! ```
//!
//! What must not be: the cascade does not see the edge, and db does not see that config is condemned. It takes
//! both fences, the second look and the check of `condemned` to exclude it.
#![cfg(loom)]

use loom::thread::spawn;
use mainstay_loom_tests::{assert_i2, finish, join, model, services};

/// Bound: 4.
#[test]
fn during_the_cascade() {
    model("i2 discovered", Some(4), || {
        let (registry, ids @ [config, _], [config_role, db_role]) = services(&[]);
        let running = config_role.start(&[]);
        let attempt = db_role.attempt();

        let builder = spawn(move || finish(attempt, &[config]));
        let failer = spawn({
            let registry = registry.clone();
            move || registry.fail(config, "edited").unwrap()
        });
        let fell = join(failer);
        let db = join(builder);
        assert_i2(&registry, &ids);
        assert!(fell.went_down >= 1 && fell.went_down + fell.overtaken <= 2);
        drop((running, db));
    });
}

/// The cascade need not walk: one before it has left its row. (Bound: 4.)
#[test]
fn where_the_row_is_known() {
    model("i2 discovered, where the row is known", Some(4), || {
        let (registry, ids @ [config, _], [config_role, db_role]) = services(&[]);
        drop(config_role.start(&[]));
        let running = config_role.start(&[]);
        let attempt = db_role.attempt();

        let builder = spawn(move || finish(attempt, &[config]));
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

/// The attempt waits until config is ready again, or it is overtaken. (Bound: 3.)
#[test]
fn and_waited_for() {
    model("i2 discovered, and waited for", Some(3), || {
        let (registry, ids @ [config, _], [config_role, db_role]) = services(&[]);
        let running = config_role.start(&[]);
        let attempt = db_role.attempt();

        let builder = spawn(move || {
            let _ = attempt.wait_for(config).wait();
            finish(attempt, &[config])
        });
        let failer = spawn({
            let registry = registry.clone();
            move || {
                registry.fail(config, "edited").unwrap();
                (config_role.try_build(&[]), config_role)
            }
        });
        let ends = (join(failer), join(builder));
        assert_i2(&registry, &ids);
        drop((running, ends));
    });
}

/// `db` is condemned before `pool`, fails by itself, comes back at once, and discovers that it depends on `pool`
/// before that is condemned. (Bound: 3.)
///
/// ```text
/// cascade:  condemn config, db |                                            | condemn pool, look again
/// db:                           fail, begin, publish the edge to pool, ready
/// ```
#[test]
fn by_one_that_came_back() {
    model("i2 discovered, by one that came back", Some(3), || {
        let (registry, ids @ [config, db, pool], [config_role, db_role, pool_role]) =
            services(&[(1, 0), (2, 0)]);
        let running =
            (config_role.start(&[]), db_role.start(&[config]), pool_role.start(&[config]));

        let failer = spawn({
            let registry = registry.clone();
            move || registry.fail(config, "edited").map(drop).unwrap()
        });
        let builder = spawn({
            let registry = registry.clone();
            move || {
                registry.fail(db, "lost").unwrap();
                (db_role.try_build(&[pool]), db_role)
            }
        });
        join(failer);
        let ends = join(builder);
        assert_i2(&registry, &ids);
        drop((running, ends, config_role, pool_role));
    });
}

/// `config` gains `pool` under the cascade, and while that is condemned, too, `db` discovers that it depends on
/// `pool`: each look needs its fence. (Bound: 3.)
#[test]
fn beside_another_edge() {
    model("i2 discovered, beside another edge", Some(3), || {
        let (registry, ids @ [config, pool, _], [config_role, pool_role, db_role]) = services(&[]);
        let running = (config_role.start(&[]), pool_role.start(&[]));
        let attempt = db_role.attempt();

        let failer = spawn({
            let registry = registry.clone();
            move || registry.fail(config, "edited").map(drop).unwrap()
        });
        let builder = spawn({
            let registry = registry.clone();
            move || {
                registry.add_dependency(pool, config).unwrap();
                finish(attempt, &[pool])
            }
        });
        join(failer);
        let db = join(builder);
        assert_i2(&registry, &ids);
        drop((running, db));
    });
}
