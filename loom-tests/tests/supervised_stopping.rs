//! S4 for a stop, a start and a restart of one service.
//!
//! ```text
//! provider:   marked?  Down -> Starting,  marked? then end the attempt    ready
//! stop:               set the mark, wake the slot, fail the attempt or the instance
//! start:      remove the mark, wake the slot
//! ```
//!
//! What must not happen: an instance is published that a stop has not found; a provider sleeps
//! after a start; a service is taken down before a dependent that was built on it.
#![cfg(loom)]

use loom::thread::spawn;
use mainstay::Phase;
use mainstay_loom_tests::{Value, join, model, now_or_never, services};

/// Preemption bound: 2.
#[test]
fn no_attempt_survives_the_stop_of_its_service_before_it_is_started() {
    model("no attempt survives a stop before the start", Some(2), || {
        let (registry, [x], [provider]) = services(&[]);
        let provider = spawn(move || {
            let attempt = now_or_never(provider.begin());
            let running = attempt.and_then(|attempt| attempt.unwrap().ready(Value::new(7)).ok());
            (running, provider)
        });
        let stopper = spawn({
            let registry = registry.clone();
            move || {
                // The service has no supervisor, so there is nothing to wait for.
                let ended = now_or_never(registry.stop(x));
                assert!(ended.expect("the stop ends at once").is_ok());
            }
        });
        let (running, provider) = join(provider);
        join(stopper);
        assert_eq!(registry.status(x).unwrap().phase, Phase::Down, "S4: ready after a stop");
        drop(running);
        assert!(now_or_never(provider.begin()).is_none(), "S4: an attempt begins after a stop");
        assert!(registry.start(x).unwrap());
        assert!(now_or_never(provider.begin()).is_some(), "no attempt begins after a start");
    });
}

/// Preemption bound: 2.
#[test]
fn a_start_wakes_the_provider_that_waits_to_begin() {
    model("a start wakes the provider that waits to begin", Some(2), || {
        let (registry, [x], [provider]) = services(&[]);
        let waiting = spawn(move || provider.begin().wait_blocking().is_ok());
        let stopper = spawn({
            let registry = registry.clone();
            move || drop(now_or_never(registry.stop(x)))
        });
        registry.start(x).unwrap();
        join(stopper);
        registry.start(x).unwrap();
        assert!(join(waiting));
    });
}

/// Preemption bound: 2.
#[test]
fn a_late_dependent_ends_before_the_restart_or_gets_no_instance() {
    model("a late dependent ends before the restart or gets no instance", Some(2), || {
        let (registry, [s, d], [provide_s, provide_d]) = services(&[]);
        let s_is_up =
            now_or_never(provide_s.begin()).unwrap().unwrap().ready(Value::new(7)).unwrap();
        let dependent = spawn(move || {
            let attempt = now_or_never(provide_d.begin()).unwrap().unwrap();
            let received = now_or_never(attempt.wait_for(s)).is_some_and(|s| s.is_ok());
            (received, attempt.ready(Value::new(8)).ok(), provide_d)
        });
        let restart = spawn({
            let registry = registry.clone();
            move || drop(now_or_never(registry.restart(s, "edited")))
        });
        let (received, running, provide_d) = join(dependent);
        join(restart);
        assert_eq!(registry.status(s).unwrap().phase, Phase::Down);
        if let Some(failure) = registry.status(d).unwrap().last_failure.filter(|_| received) {
            assert_ne!(failure.root, "0", "S4: `s` ended before `d`, which was built on it");
        }
        drop((s_is_up, running, provide_s, provide_d));
    });
}
