//! `wait_blocking`: a thread that blocks is woken, and returns the result.
//!
//! ```text
//! thread:  poll: pending | token? no                                 park | token? yes: poll again
//! waker:                             the state changes, store the token, unpark
//! ```
//!
//! What must not happen: the thread is unparked before the token is stored, finds no token, and
//! parks forever. All models with waits use `wait_blocking`, most of all `no_lost_wakeup.rs`. This
//! file has the remaining case.
#![cfg(loom)]

use loom::thread::spawn;
use mainstay_loom_tests::{join, model, services};

/// Two waits of one thread, one after the other, each ended by another change: what the first
/// wake-up leaves behind does not harm the second wait. (Preemption bound: 2.)
#[test]
fn two_blocking_waits_of_one_thread_are_both_woken() {
    model("two blocking waits of one thread are both woken", Some(2), || {
        let (registry, [x], [provider]) = services(&[]);
        let running = provider.start(&[]);
        let waiter = spawn(move || {
            let failure = running.failed().wait_blocking().unwrap();
            let attempt = provider.begin().wait_blocking().unwrap();
            assert_eq!(failure.generation, 0);
            assert_eq!(attempt.generation(), 1);
            drop(attempt);
            (running, provider)
        });
        let notifier = spawn(move || registry.fail(x, "enough").unwrap());
        join(notifier);
        drop(join(waiter));
    });
}
