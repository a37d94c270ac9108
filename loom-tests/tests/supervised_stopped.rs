//! S4: once it was the turn of a service to stop, no attempt at it begins any more, and an attempt
//! that has begun does not stay.
//!
//! ```text
//! provider:  stopped?  Down -> Starting,  stopped? then drop the attempt    ready
//! shutdown:           set `stopped`, clear the waiter bit, fail the attempt or the instance
//! ```
//!
//! What must not happen: the attempt does not see the mark, the shutdown does not see the attempt,
//! and an instance is published that nothing takes down.
#![cfg(loom)]

use std::time::Duration;

use loom::thread::spawn;
use mainstay::Phase;
use mainstay_loom_tests::{Value, join, model, now_or_never, services};

/// Preemption bound: 3.
#[test]
fn no_attempt_survives_the_stop_of_its_service() {
    model("no attempt survives the stop of its service", Some(3), || {
        let (registry, [x], [provider]) = services(&[]);
        let provider = spawn(move || {
            let attempt = now_or_never(provider.begin())?.ok()?;
            attempt.ready(Value::new(7)).ok().map(|running| (running, provider))
        });
        let stopper = spawn({
            let registry = registry.clone();
            move || {
                // The service has no supervisor, so there is nothing to wait for.
                let ended = now_or_never(Box::pin(registry.shutdown(Duration::from_secs(1))));
                assert!(ended.expect("the shutdown ends at once").stop_timeouts.is_empty());
            }
        });
        let running = join(provider);
        join(stopper);
        let status = registry.status(x).unwrap();
        assert_eq!(status.phase, Phase::Down, "S4: ready after its turn to stop");
        drop(running);
    });
}
