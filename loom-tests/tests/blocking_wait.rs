//! `Wait::wait`: a thread that blocks is woken, and sees why.
//!
//! ```text
//! thread:  poll: pending | token? no                              park | token? yes: poll again
//! waker:                             the state moves, token, unpark
//! ```
//!
//! What must not be: the thread is unparked before the token is there, finds none, and parks for ever.

use loom::thread::spawn;
use mainstay_loom_tests::{join, model, plain, services};

#[test]
fn by_ready() {
    model("wait, by ready", None, || {
        let (registry, [x], [role]) = services(&[]);
        let attempt = role.attempt();
        let waiter = spawn(move || registry.wait_ready(x).wait().unwrap().mark);
        let mover = spawn(move || attempt.ready(plain(7)).unwrap());
        assert_eq!(join(waiter), 7);
        drop(join(mover));
    });
}

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
