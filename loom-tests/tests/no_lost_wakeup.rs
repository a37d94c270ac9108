//! W: whoever waits for a condition that holds from some point on is woken after that point. A lost wake-up
//! is a deadlock, which loom reports.
//!
//! ```text
//! waiter:  listen, set the waiter bit, look: not yet                    sleep
//! mover:                                    state moves, bit was set: notify
//! ```
//!
//! What must not be: the mover does not see the bit, or not the listener, and the waiter does not see the move.
#![cfg(loom)]

use loom::thread::spawn;
use mainstay::{BeginError, WaitError, WaitForError};
use mainstay_loom_tests::{finish, join, look, model, now, plain, services};

#[test]
fn by_ready() {
    model("wait_ready, by ready", None, || {
        let (registry, [x], [role]) = services(&[]);
        let attempt = role.attempt();
        let waiter = spawn(move || registry.wait_ready(x).wait().unwrap().mark);
        let mover = spawn(move || attempt.ready(plain(7)).unwrap());
        assert_eq!(join(waiter), 7);
        drop(join(mover));
    });
}

/// `begin` moves the state and wakes nobody: the bit must survive it. (Bound: 3.)
#[test]
fn across_begin() {
    model("wait_ready, across begin", Some(3), || {
        let (registry, [x], [role]) = services(&[]);
        let waiter = spawn(move || registry.wait_ready(x).wait().unwrap());
        let mover = spawn(move || (role.start(&[]), role));
        join(waiter);
        drop(join(mover));
    });
}

/// Two on one slot: the notification is for both. (Bound: 1, since two waits are long.)
#[test]
fn of_two() {
    model("wait_ready, of two", Some(1), || {
        let (registry, [x], [role]) = services(&[]);
        let attempt = role.attempt();
        let waiters = [registry.clone(), registry]
            .map(|registry| spawn(move || registry.wait_ready(x).wait().unwrap().mark));
        let mover = spawn(move || attempt.ready(plain(7)).unwrap());
        assert_eq!(waiters.map(join), [7, 7]);
        drop(join(mover));
    });
}

/// One loses patience and is notified all the same; then it waits once more. (Bound: 3.)
#[test]
fn after_giving_up() {
    model("wait_ready, after giving up", Some(3), || {
        let (registry, [x], [role]) = services(&[]);
        let attempt = role.attempt();
        let waiter = spawn(move || {
            let _ = now(registry.wait_ready(x));
            registry.wait_ready(x).wait().unwrap().mark
        });
        let mover = spawn(move || attempt.ready(plain(7)).unwrap());
        assert_eq!(join(waiter), 7);
        drop(join(mover));
    });
}

#[test]
fn by_fail() {
    model("failed, by fail", None, || {
        let (registry, [x], [role]) = services(&[]);
        let running = role.start(&[]);
        let waiter = spawn(move || (running.failed().wait().unwrap().generation, running));
        let mover = spawn(move || registry.fail(x, "enough").unwrap());
        assert_eq!(join(waiter).0, 0);
        join(mover);
    });
}

#[test]
fn begin_by_fail() {
    model("begin, by fail", None, || {
        let (registry, [x], [role]) = services(&[]);
        let running = role.start(&[]);
        let waiter = spawn(move || {
            assert_eq!(role.provider.begin().wait().unwrap().generation(), 1);
            role
        });
        let mover = spawn(move || registry.fail(x, "again").unwrap());
        join(mover);
        drop((join(waiter), running));
    });
}

#[test]
fn begin_by_an_attempt_given_back() {
    model("begin, by an attempt given back", None, || {
        let (_registry, [_], [role]) = services(&[]);
        let attempt = role.attempt();
        let waiter = spawn(move || {
            assert_eq!(role.provider.begin().wait().unwrap().generation(), 0);
            role
        });
        let mover = spawn(move || drop(attempt));
        join(mover);
        drop(join(waiter));
    });
}

/// db is down, and condemned for a while.
#[test]
fn begin_after_a_cascade() {
    model("begin, after a cascade", None, || {
        let (registry, [config, _], [config_role, db_role]) = services(&[(1, 0)]);
        let running = config_role.start(&[]);
        let waiter = spawn(move || (db_role.provider.begin().wait().is_ok(), db_role));
        let mover = spawn(move || registry.fail(config, "edited").unwrap());
        join(mover);
        drop((join(waiter), running));
    });
}

#[test]
fn wait_for_by_ready() {
    model("wait_for, by ready", Some(3), || {
        let (_registry, [config, _], [config_role, db_role]) = services(&[(1, 0)]);
        let (on_config, on_db) = (config_role.attempt(), db_role.attempt());
        let waiter = spawn(move || (on_db.wait_for(config).wait().unwrap().mark, on_db));
        let mover = spawn(move || on_config.ready(plain(7)).unwrap());
        assert_eq!(join(waiter).0, 7);
        drop(join(mover));
    });
}

/// The attempt that waits is overtaken itself.
#[test]
fn wait_for_by_being_overtaken() {
    model("wait_for, by being overtaken", Some(3), || {
        let (registry, [config, db], [_provide_config, db_role]) = services(&[(1, 0)]);
        let attempt = db_role.attempt();
        let waiter = spawn(move || {
            let overtaken = attempt.wait_for(config).wait();
            assert!(matches!(overtaken, Err(WaitForError::Overtaken(_))));
            attempt
        });
        let mover = spawn(move || registry.fail(db, "enough").unwrap());
        assert_eq!(join(mover).overtaken, 1);
        drop(join(waiter));
    });
}

/// What it waits for is ready, condemned, down, and ready again. (Bound: 2.)
#[test]
fn wait_for_across_a_cascade() {
    model("wait_for, across a cascade", Some(2), || {
        let (registry, [config, db], [config_role, db_role]) = services(&[]);
        let running = config_role.start(&[]);
        let attempt = db_role.attempt();
        let waiter = spawn(move || {
            let ready = attempt.wait_for(config).wait().is_ok();
            (ready, finish(attempt, &[config]))
        });
        let mover = spawn({
            let registry = registry.clone();
            move || {
                let fell = registry.fail(config, "edited").unwrap();
                (fell, config_role.start(&[]), config_role)
            }
        });
        let (fell, ..) = &join(mover);
        let (ready, runs) = join(waiter);
        let (generation, _) = look(&registry, db);
        assert!(ready || generation == 1, "neither ready nor overtaken");
        assert!(fell.went_down + fell.overtaken <= 2);
        drop((running, runs));
    });
}

#[test]
fn by_close() {
    model("wait_ready, by close", None, || {
        let (registry, [x], _providers) = services(&[]);
        let waiter = spawn({
            let registry = registry.clone();
            move || {
                let closed = registry.wait_ready(x).wait();
                assert!(matches!(closed, Err(WaitError::Closed { .. })));
            }
        });
        let mover = spawn(move || registry.close());
        join(waiter);
        join(mover);
    });
}

#[test]
fn begin_by_close() {
    model("begin, by close", None, || {
        let (registry, [_], [role]) = services(&[]);
        let running = role.start(&[]);
        let waiter = spawn(move || {
            assert!(matches!(role.provider.begin().wait(), Err(BeginError::Closed { .. })));
            role
        });
        let mover = spawn(move || registry.close());
        join(mover);
        drop((join(waiter), running));
    });
}
