//! Closing ends every wait, also one that is only just beginning; and what is on its way when it comes is done
//! in full or not at all.
//!
//! ```text
//! waiter:  listen, set the waiter bit, look: not closed                     sleep
//! closer:                                    closed, clear the bit: notify
//! ```
//!
//! What must not be: the bit is cleared before the flag is up (or before others can see that it is), and the
//! waiter, which comes in between, sees neither. `no_lost_wakeup.rs` has `wait_ready` and `begin`.
#![cfg(loom)]

use std::sync::Arc;

use loom::{
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    thread::spawn,
};
use mainstay::{BeginError, ProvideError, ReadyError, WaitError, WaitForError};
use mainstay_loom_tests::{join, look, model, now, plain, services};

/// An attempt is under way, and held by the waiter. (Bound: 3.)
#[test]
fn wait_for() {
    model("close, wait_for", Some(3), || {
        let (registry, [config, _], [_provide_config, db_role]) = services(&[]);
        let attempt = db_role.attempt();
        let waiter = spawn(move || {
            let closed = attempt.wait_for(config).wait();
            assert!(matches!(closed, Err(WaitForError::Closed { .. })));
            attempt
        });
        let closer = spawn(move || registry.close());
        drop((join(waiter), join(closer)));
    });
}

#[test]
fn failed() {
    model("close, failed", None, || {
        let (registry, [_], [role]) = services(&[]);
        let running = role.start(&[]);
        let waiter = spawn(move || {
            assert!(matches!(running.failed().wait(), Err(WaitError::Closed { .. })));
            running
        });
        let closer = spawn(move || registry.close());
        drop((join(waiter), join(closer)));
    });
}

#[test]
fn overtaken() {
    model("close, overtaken", None, || {
        let (registry, [_], [role]) = services(&[]);
        let attempt = role.attempt();
        let waiter = spawn(move || {
            assert!(matches!(attempt.overtaken().wait(), Err(WaitError::Closed { .. })));
            attempt
        });
        let closer = spawn(move || registry.close());
        drop((join(waiter), join(closer)));
    });
}

/// Two waits of one slot, one of which may come when the other's bit has been cleared; and two who close, one
/// of whom has nothing to do. (Bound: 1, since two waits are long.)
#[test]
fn whoever_comes_late() {
    model("close, two waits, two closers", Some(1), || {
        let (registry, [x], [role]) = services(&[]);
        let running = role.start(&[]);
        let failed = spawn(move || {
            assert!(matches!(running.failed().wait(), Err(WaitError::Closed { .. })));
            running
        });
        let begin = spawn(move || {
            assert!(matches!(role.provider.begin().wait(), Err(BeginError::Closed { .. })));
            role
        });
        let closers = [registry.clone(), registry.clone()];
        let closers = closers.map(|registry| spawn(move || registry.close()));
        let ends = (join(failed), join(begin), closers.map(join));
        assert_eq!(look(&registry, x), (0, true), "close takes nothing down");
        drop(ends);
    });
}

/// Published, or refused with the value; and who waits for it learns which. (Bound: 2.)
#[test]
fn against_ready() {
    model("close, against ready", Some(2), || {
        let (registry, [x], [role]) = services(&[]);
        let attempt = role.attempt();
        let publisher = spawn({
            let registry = registry.clone();
            move || {
                let closed = registry.is_closed();
                match attempt.ready(plain(7)) {
                    Ok(running) => {
                        assert!(!closed, "published after close returned");
                        Some(running)
                    }
                    Err(ReadyError::Closed { value, .. }) => {
                        assert_eq!(value, plain(7));
                        None
                    }
                    Err(error) => unreachable!("{error}"),
                }
            }
        });
        let waiter = spawn({
            let registry = registry.clone();
            move || match registry.wait_ready(x).wait() {
                Ok(instance) => Some(instance.mark),
                Err(WaitError::Closed { .. }) => None,
                Err(error) => unreachable!("{error}"),
            }
        });
        let closer = spawn({
            let registry = registry.clone();
            move || registry.close()
        });
        join(closer);
        let (running, waited) = (join(publisher), join(waiter));
        assert_eq!(look(&registry, x), (0, running.is_some()));
        assert!(waited.is_none() || running.is_some(), "somebody has seen a value that came back");
        drop(running);
    });
}

/// The role is taken or refused; one that is taken is of no use, and waits for nothing.
#[test]
fn against_provide() {
    model("close, against provide", None, || {
        let (registry, [x], [role]) = services(&[]);
        drop(role);
        let newcomer = spawn({
            let registry = registry.clone();
            move || {
                let closed = registry.is_closed();
                let provider = match registry.provide(x) {
                    Ok(provider) => provider,
                    Err(ProvideError::Closed { .. }) => return None,
                    Err(error) => unreachable!("{error}"),
                };
                assert!(!closed, "provided after close returned");
                match now(provider.begin()).expect("neither held nor condemned") {
                    Ok(_attempt) => {}
                    Err(BeginError::Closed { .. }) => {}
                    Err(error) => unreachable!("{error}"),
                }
                Some(provider)
            }
        });
        let closer = spawn({
            let registry = registry.clone();
            move || registry.close()
        });
        join(closer);
        let provider = join(newcomer);
        assert_eq!(registry.status(x).unwrap().provided, provider.is_some());
        drop(provider);
    });
}

/// Whoever finds it closed sees what was done before.
#[test]
fn shows_what_came_before() {
    model("close, shows what came before", None, || {
        let (registry, [], []) = services(&[]);
        let reason = Arc::new(AtomicU32::new(0));
        let looker = spawn({
            let (registry, reason) = (registry.clone(), Arc::clone(&reason));
            move || {
                if registry.is_closed() {
                    assert_eq!(reason.load(Relaxed), 7, "closed, and not told why");
                }
            }
        });
        let closer = spawn(move || {
            reason.store(7, Relaxed);
            registry.close();
        });
        join(looker);
        join(closer);
    });
}
