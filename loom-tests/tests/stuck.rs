//! S17: a wait that can end when stuck ends, whichever of the links and the root comes last.
//!
//! ```text
//! wait:      listen, read the log, fence, follow the links                        sleep
//! attempt:   begin to wait: write the link | fence, is there a root? then follow, write the log
//! start-up:  complete: count the root, write the log, notify
//! ```
//!
//! What must not happen: the wait does not find the link, and the attempt does not find the root.
//! loom reports a lost wake-up as a deadlock.
#![cfg(loom)]

use loom::thread::spawn;
use mainstay::{
    Attempt, Registry, ServiceId,
    error::{AllReadyError, WaitReadyError},
};
use mainstay_loom_tests::{Value, join, model, now_or_never};

/// A registry with a service and its dependency, which has no provider, and the attempt in progress
/// at the service. `wait` ends with an error when the service is stuck.
fn stuck_in_every_order(
    name: &'static str,
    bound: usize,
    wait: fn(&Registry, ServiceId<Value>) -> Result<(), String>,
) {
    model(name, Some(bound), move || {
        let registry = Registry::with_capacity(2).unwrap();
        let [x, y] = ["x", "y"].map(|name| registry.register::<Value>(name).unwrap());
        let provider = registry.provide(x).unwrap();
        let attempt: Attempt<Value> = now_or_never(provider.begin()).unwrap().unwrap();
        let waiter = spawn({
            let registry = registry.clone();
            move || {
                assert_eq!(wait(&registry, x), Err("stuck".into()));
                // Ends the wait of the attempt.
                registry.close();
            }
        });
        let builder = spawn(move || {
            assert!(attempt.wait_for(y).wait_blocking().is_err());
            drop(attempt);
        });
        let starter = spawn({
            let registry = registry.clone();
            move || registry.startup_complete()
        });
        join(waiter);
        join(builder);
        join(starter);
        drop(provider);
    });
}

/// Preemption bound: 2.
#[test]
fn a_wait_for_one_service_ends_when_it_is_stuck() {
    stuck_in_every_order("a wait for one service ends when it is stuck", 2, |registry, x| {
        match registry.wait_ready(x).unless_stuck().wait_blocking() {
            Err(WaitReadyError::Stuck(_)) => Err("stuck".into()),
            other => other.map(drop).map_err(|error| error.to_string()),
        }
    });
}

/// Preemption bound: 1. A bound of 2 takes a minute and a half, and finds nothing either.
#[test]
fn a_wait_for_a_set_ends_when_one_is_stuck() {
    stuck_in_every_order(
        "a wait for a set ends when one is stuck",
        1,
        |registry, x| match registry.wait_set_ready([x]).wait_blocking() {
            Err(AllReadyError::Stuck { .. }) => Err("stuck".into()),
            other => other.map_err(|error| error.to_string()),
        },
    );
}
