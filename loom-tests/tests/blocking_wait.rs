//! `Wait::wait`: a thread that blocks is woken, and sees why.
//!
//! ```text
//! thread:  poll: pending | token? no                              park | token? yes: poll again
//! waker:                             the state moves, token, unpark
//! ```
//!
//! What must not be: the thread is unparked before the token is there, finds none, and parks for ever. All models
//! that wait do so by it, `no_lost_wakeup.rs` above all; here is what is left.
#![cfg(loom)]

use loom::thread::spawn;
use mainstay_loom_tests::{join, model, services};

/// Twice on one thread, each time by another change: what the first wake-up leaves behind harms nothing.
/// (Bound: 2.)
#[test]
fn by_one_change_after_another() {
    model("wait, by one change after another", Some(2), || {
        let (registry, [x], [role]) = services(&[]);
        let running = role.start(&[]);
        let waiter = spawn(move || {
            let failure = running.failed().wait().unwrap();
            let attempt = role.provider.begin().wait().unwrap();
            assert_eq!((failure.generation, attempt.generation()), (0, 1));
            drop(attempt);
            (running, role)
        });
        let mover = spawn(move || registry.fail(x, "enough").unwrap());
        join(mover);
        drop(join(waiter));
    });
}
