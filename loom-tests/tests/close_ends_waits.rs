//! `close` ends every wait, also one that is just beginning. An operation that runs at the same
//! time takes effect completely or not at all.
//!
//! ```text
//! waiter:  listen, set the waiter bit, check: not closed                      sleep
//! closer:                                     set closed, clear the bit: notify
//! ```
//!
//! What must not happen: the bit is cleared before the flag is set, or before other threads can see
//! the flag. Then the waiter between the two sees neither. `no_lost_wakeup.rs` has the models of
//! `wait_ready` and `begin`.
#![cfg(loom)]

use std::sync::Arc;

use loom::{
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    thread::spawn,
};
use mainstay::error::{
    BeginError, ProvideError, ReadyError, WaitError, WaitForError, WaitReadyError,
};
use mainstay_loom_tests::{Value, join, model, now_or_never, read_state, services};

/// The waiter holds an attempt. (Preemption bound: 3.)
#[test]
fn close_ends_wait_for() {
    model("close ends wait for", Some(3), || {
        let (registry, [config, _], [_config_provider, db_provider]) = services(&[]);
        let attempt = db_provider.attempt();
        let waiter = spawn(move || {
            let closed = attempt.wait_for(config).wait_blocking();
            assert!(matches!(closed, Err(WaitForError::Closed { .. })));
            attempt
        });
        let closer = spawn(move || registry.close());
        drop((join(waiter), join(closer)));
    });
}

#[test]
fn close_ends_a_wait_for_the_failure() {
    model("close ends a wait for the failure", None, || {
        let (registry, [_], [provider]) = services(&[]);
        let running = provider.start(&[]);
        let waiter = spawn(move || {
            assert!(matches!(running.failed().wait_blocking(), Err(WaitError::Closed { .. })));
            running
        });
        let closer = spawn(move || registry.close());
        drop((join(waiter), join(closer)));
    });
}

#[test]
fn close_ends_a_wait_for_the_invalidation() {
    model("close ends a wait for the invalidation", None, || {
        let (registry, [_], [provider]) = services(&[]);
        let attempt = provider.attempt();
        let waiter = spawn(move || {
            assert!(matches!(attempt.invalidated().wait_blocking(), Err(WaitError::Closed { .. })));
            attempt
        });
        let closer = spawn(move || registry.close());
        drop((join(waiter), join(closer)));
    });
}

/// Two waits on one slot: the second one may begin after the bit of the first one has been cleared.
/// Two threads close the registry: the second call has nothing left to do. (Preemption bound: 1,
/// because two waits take many steps.)
#[test]
fn two_closes_end_two_waits_on_one_slot() {
    model("two closes end two waits on one slot", Some(1), || {
        let (registry, [x], [provider]) = services(&[]);
        let running = provider.start(&[]);
        let failed = spawn(move || {
            assert!(matches!(running.failed().wait_blocking(), Err(WaitError::Closed { .. })));
            running
        });
        let begin = spawn(move || {
            assert!(matches!(provider.begin().wait_blocking(), Err(BeginError::Closed { .. })));
            provider
        });
        let closers = [registry.clone(), registry.clone()];
        let closers = closers.map(|registry| spawn(move || registry.close()));
        let returned = (join(failed), join(begin), closers.map(join));
        assert_eq!(read_state(&registry, x), (0, true), "close takes nothing down");
        drop(returned);
    });
}

/// The value is published, or it is refused and returned. A waiter for the service gets the
/// matching result. (Preemption bound: 2.)
#[test]
fn ready_during_close_publishes_or_returns_the_value() {
    model("ready during close publishes or returns the value", Some(2), || {
        let (registry, [x], [provider]) = services(&[]);
        let attempt = provider.attempt();
        let publisher = spawn({
            let registry = registry.clone();
            move || {
                let closed = registry.is_closed();
                match attempt.ready(Value::new(7)) {
                    Ok(running) => {
                        assert!(!closed, "published after close returned");
                        Some(running)
                    }
                    Err(ReadyError::Closed { value, .. }) => {
                        assert_eq!(*value, Value::new(7));
                        None
                    }
                    Err(error) => unreachable!("{error}"),
                }
            }
        });
        let waiter = spawn({
            let registry = registry.clone();
            move || match registry.wait_ready(x).wait_blocking() {
                Ok(instance) => Some(instance.version),
                Err(WaitReadyError::Closed { .. }) => None,
                Err(error) => unreachable!("{error}"),
            }
        });
        let closer = spawn({
            let registry = registry.clone();
            move || registry.close()
        });
        join(closer);
        let (running, waited) = (join(publisher), join(waiter));
        assert_eq!(read_state(&registry, x), (0, running.is_some()));
        assert!(
            waited.is_none() || running.is_some(),
            "a waiter has received a value that was returned"
        );
        drop(running);
    });
}

/// The role of the provider is taken or refused. A provider that took it can do nothing with it,
/// but does not wait either.
#[test]
fn provide_during_close_succeeds_or_is_refused() {
    model("provide during close succeeds or is refused", None, || {
        let (registry, [x], [provider]) = services(&[]);
        drop(provider);
        let late_provider = spawn({
            let registry = registry.clone();
            move || {
                let closed = registry.is_closed();
                let provider = match registry.provide(x) {
                    Ok(provider) => provider,
                    Err(ProvideError::Closed { .. }) => return None,
                    Err(error) => unreachable!("{error}"),
                };
                assert!(!closed, "provided after close returned");
                match now_or_never(provider.begin())
                    .expect("the slot is neither held nor condemned")
                {
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
        let provider = join(late_provider);
        assert_eq!(registry.status(x).unwrap().has_provider, provider.is_some());
        drop(provider);
    });
}

/// A thread that finds the registry closed sees what was written before the close.
#[test]
fn is_closed_makes_earlier_writes_visible() {
    model("is closed makes earlier writes visible", None, || {
        let (registry, [], []) = services(&[]);
        let reason = Arc::new(AtomicU32::new(0));
        let reader = spawn({
            let (registry, reason) = (registry.clone(), Arc::clone(&reason));
            move || {
                if registry.is_closed() {
                    assert_eq!(
                        reason.load(Relaxed),
                        7,
                        "closed, but the earlier write is not visible"
                    );
                }
            }
        });
        let closer = spawn(move || {
            reason.store(7, Relaxed);
            registry.close();
        });
        join(reader);
        join(closer);
    });
}
