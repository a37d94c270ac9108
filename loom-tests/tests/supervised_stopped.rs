//! S4: once a service has had its turn in a shutdown, no attempt at it begins any more, and none stays that has begun.
//!
//! ```text
//! provider:  stopped?  Down -> Starting,  stopped? then give it back   ready
//! shutdown:           stopped!  clear the waiter bit, then fail what is there
//! ```
//!
//! What must not be: the attempt does not see that it is stopped, the shutdown does not see the attempt, and an instance
//! comes up that nobody takes down.
#![cfg(loom)]

use std::time::Duration;

use loom::thread::spawn;
use mainstay::Phase;
use mainstay_loom_tests::{join, model, now, plain, services};

/// Bound: 3.
#[test]
fn against_an_attempt() {
    model("stopped, against an attempt", Some(3), || {
        let (registry, [x], [role]) = services(&[]);
        let provider = spawn(move || {
            let attempt = now(role.provider.begin())?.ok()?;
            attempt.ready(plain(7)).ok().map(|running| (running, role))
        });
        let stopper = spawn({
            let registry = registry.clone();
            move || {
                // Nobody supervises it, so there is nothing to wait for.
                let ended = now(Box::pin(registry.shutdown(Duration::from_secs(1))));
                assert!(ended.expect("at once").hung.is_empty());
            }
        });
        let running = join(provider);
        join(stopper);
        let status = registry.status(x).unwrap();
        assert_eq!(status.phase, Phase::Down, "S4: it came up after its turn");
        drop(running);
    });
}
