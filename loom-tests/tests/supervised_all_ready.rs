//! S7: `wait_all_ready` misses no service, although it waits for one service at a time. loom
//! reports a lost wake-up as a deadlock.
//!
//! ```text
//! waiter:     listen to a, set its bit, check: a is ready, b is not
//!             | listen to b, set its bit, check: b is not ready           sleep
//! notifiers:  a ready: notify                            b ready: notify
//! ```
#![cfg(loom)]

use loom::thread::spawn;
use mainstay_loom_tests::{Value, join, model, services};

/// Preemption bound: 2.
#[test]
fn wait_all_ready_ends_when_both_services_are_ready() {
    model("wait all ready ends when both services are ready", Some(2), || {
        let (registry, _, providers) = services::<2>(&[]);
        let attempts = providers.each_ref().map(|provider| provider.attempt());
        let waiter = spawn(move || registry.wait_all_ready().wait_blocking().unwrap());
        let notifiers =
            attempts.map(|attempt| spawn(move || attempt.ready(Value::new(7)).unwrap()));
        join(waiter);
        drop(notifiers.map(join));
        drop(providers);
    });
}
