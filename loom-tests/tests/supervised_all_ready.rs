//! S7: `wait_all_ready` misses nothing, though it waits for one service at a time. A lost wake-up is a deadlock, which loom
//! reports.
//!
//! ```text
//! waiter:   a is the first: listen to a, announce, look: now it is b    leave a, listen to b, announce, look    sleep
//! movers:                                        a ready                                    b ready: notify
//! ```
#![cfg(loom)]

use loom::thread::spawn;
use mainstay_loom_tests::{join, model, plain, services};

/// Bound: 2.
#[test]
fn of_two() {
    model("all ready, of two", Some(2), || {
        let (registry, _, roles) = services::<2>(&[]);
        let attempts = roles.each_ref().map(|role| role.attempt());
        let waiter = spawn(move || registry.wait_all_ready().wait().unwrap());
        let movers = attempts.map(|attempt| spawn(move || attempt.ready(plain(7)).unwrap()));
        join(waiter);
        drop(movers.map(join));
        drop(roles);
    });
}
