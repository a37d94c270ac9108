//! W if a wait is dropped: a dropped wait takes no wake-up of another one, at whatever point
//! of the notification it is dropped.
//!
//! ```text
//! one:       listen, set the bit, check, poll | drop
//! other:     listen, set the bit, check, poll                                     sleep
//! notifier:                                     the state changes, the bit was set: notify
//! ```
//!
//! What must not happen: the bit is cleared by the wait that is dropped, or this wait consumes a
//! notification that is meant for both.
#![cfg(loom)]

use loom::thread::spawn;
use mainstay_loom_tests::{Value, join, model, now_or_never, services};

/// Preemption bound: 2.
#[test]
fn a_dropped_wait_takes_no_wake_up_of_another() {
    model("a dropped wait takes no wake-up of another", Some(2), || {
        let (registry, [x], [provider]) = services(&[]);
        let attempt = provider.attempt();
        let one = spawn({
            let registry = registry.clone();
            move || drop(now_or_never(registry.wait_ready(x)))
        });
        let other = spawn(move || registry.wait_ready(x).wait_blocking().unwrap().version);
        let notifier = spawn(move || attempt.ready(Value::new(7)).unwrap());
        join(one);
        assert_eq!(join(other), 7);
        drop(join(notifier));
    });
}

/// A wait for a dependency listens at two slots. It is dropped and begun again, while another
/// thread waits at one of these slots. (Preemption bound: 1.)
#[test]
fn a_dropped_wait_for_can_be_begun_again() {
    model("a dropped wait for can be begun again", Some(1), || {
        let (registry, [config, _], [config_provider, db_provider]) = services(&[(1, 0)]);
        let (on_config, on_db) = (config_provider.attempt(), db_provider.attempt());
        let builder = spawn(move || {
            drop(now_or_never(on_db.wait_for(config)));
            (on_db.wait_for(config).wait_blocking().unwrap().version, on_db)
        });
        let other = spawn(move || registry.wait_ready(config).wait_blocking().unwrap().version);
        let notifier = spawn(move || on_config.ready(Value::new(7)).unwrap());
        let (version, on_db) = join(builder);
        assert_eq!((version, join(other)), (7, 7));
        drop((join(notifier), on_db));
    });
}
