//! W for a wait for any change: an attempt that begins wakes it, although `begin` keeps the waiter
//! bit for all other waits. loom reports a lost wake-up as a deadlock.
//!
//! ```text
//! waiter:   count itself, listen, set the waiter bit, check: down still          sleep
//! begin:                          Down -> Starting finds the bit; the count is not zero: notify
//! ```
//!
//! What must not happen: `begin` finds the bit but not the count, and the waiter finds the service
//! down.
#![cfg(loom)]

use loom::thread::spawn;
use mainstay::Phase;
use mainstay_loom_tests::{join, model, services};

/// Nothing happens after the attempt has begun.
#[test]
fn begin_wakes_wait_changed() {
    model("begin wakes wait changed", None, || {
        let (registry, [x], [provider]) = services(&[]);
        let down = registry.status(x).unwrap().state();
        let waiter = spawn(move || registry.wait_changed(x, down).wait_blocking().unwrap());
        let notifier = spawn(move || (provider.attempt(), provider));
        assert_eq!(join(waiter).phase, Phase::Starting);
        drop(join(notifier));
    });
}

/// A wait for the service to be ready has set the bit already, so that the wait for a change leaves
/// the word of the state as it is. (Preemption bound: 2, because two waits take many steps.)
#[test]
fn begin_wakes_wait_changed_if_another_wait_has_set_the_bit() {
    model("begin wakes wait changed if another wait has set the bit", Some(2), || {
        let (registry, [x], [provider]) = services(&[]);
        let down = registry.status(x).unwrap().state();
        let reader = spawn({
            let registry = registry.clone();
            move || drop(mainstay_loom_tests::now_or_never(registry.wait_ready(x)))
        });
        let waiter = spawn(move || registry.wait_changed(x, down).wait_blocking().unwrap());
        let notifier = spawn(move || (provider.attempt(), provider));
        assert_eq!(join(waiter).phase, Phase::Starting);
        join(reader);
        drop(join(notifier));
    });
}
