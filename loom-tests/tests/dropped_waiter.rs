//! W where a waiter gives up: a wait that is dropped takes nothing from another one, at whatever point of the
//! notification that comes.
//!
//! ```text
//! one:    listen, set the bit, look, poll | dropped
//! other:  listen, set the bit, look, poll                                             sleep
//! mover:                                    state moves, bit was set: notify
//! ```
//!
//! What must not be: the bit goes with the one that gives up; or a notification that is meant for both is used
//! up by it.
#![cfg(loom)]

use loom::thread::spawn;
use mainstay_loom_tests::{join, model, now, plain, services};

/// Bound: 2.
#[test]
fn of_two() {
    model("dropped, one of two", Some(2), || {
        let (registry, [x], [role]) = services(&[]);
        let attempt = role.attempt();
        let one = spawn({
            let registry = registry.clone();
            move || drop(now(registry.wait_ready(x)))
        });
        let other = spawn(move || registry.wait_ready(x).wait().unwrap().mark);
        let mover = spawn(move || attempt.ready(plain(7)).unwrap());
        join(one);
        assert_eq!(join(other), 7);
        drop(join(mover));
    });
}

/// A wait for a dependency listens at two slots. It is dropped, and begun again; and somebody else waits at
/// one of them. (Bound: 1.)
#[test]
fn wait_for_dropped_and_begun_again() {
    model("dropped, wait_for", Some(1), || {
        let (registry, [config, _], [config_role, db_role]) = services(&[(1, 0)]);
        let (on_config, on_db) = (config_role.attempt(), db_role.attempt());
        let builder = spawn(move || {
            drop(now(on_db.wait_for(config)));
            (on_db.wait_for(config).wait().unwrap().mark, on_db)
        });
        let other = spawn(move || registry.wait_ready(config).wait().unwrap().mark);
        let mover = spawn(move || on_config.ready(plain(7)).unwrap());
        let (mark, on_db) = join(builder);
        assert_eq!((mark, join(other)), (7, 7));
        drop((join(mover), on_db));
    });
}
