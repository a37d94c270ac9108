//! `fail_instance` fails the instance that it names, once, and never a later one.
//!
//! ```text
//! reporters:  condemned 0 -> 1?                       condemned 0 -> 1?
//! provider:                     taken down, begin, ready (1)
//! ```
#![cfg(loom)]

use loom::thread::spawn;
use mainstay::FailOutcome;
use mainstay_loom_tests::{join, model, read_state, services};

/// Preemption bound: 3.
#[test]
fn one_of_two_reports_fails_the_instance_and_the_next_one_stays() {
    model("one of two reports fails the instance and the next one stays", Some(3), || {
        let (registry, [x], [provider]) = services(&[]);
        let running = provider.start(&[]);

        let reporter = || {
            let (registry, broken) = (registry.clone(), running.instance().unwrap());
            spawn(move || registry.fail_instance(&broken, "broken").unwrap())
        };
        let reporters = [reporter(), reporter()];
        let restarter = spawn(move || (provider.build(&[]).expect("x fails once"), provider));

        let outcomes = reporters.map(join);
        let failed =
            outcomes.iter().filter(|outcome| matches!(outcome, FailOutcome::Failed(_))).count();
        assert_eq!(failed, 1, "{outcomes:?}");
        assert!(outcomes.contains(&FailOutcome::AlreadyFailed), "{outcomes:?}");
        let next = join(restarter);
        assert_eq!(read_state(&registry, x), (1, true), "the next instance was failed");
        drop((running, next));
    });
}

/// `Running::fail` fails one instance, too. (Preemption bound: 4.)
#[test]
fn a_late_failure_of_a_running_does_not_fail_the_next_instance() {
    model("a late failure of a running does not fail the next instance", Some(4), || {
        let (registry, [x], [provider]) = services(&[]);
        let running = provider.start(&[]);

        let reporter = spawn(move || running.fail("broken").failed);
        let failer = spawn({
            let registry = registry.clone();
            move || {
                let failed = registry.fail(x, "again").unwrap().failed;
                (failed, provider.try_build(&[]), provider)
            }
        });
        let by_report = join(reporter);
        let (by_failure, next, provider) = join(failer);
        assert_eq!(by_report + by_failure, 1, "one instance fails once");
        let (generation, ready) = read_state(&registry, x);
        assert!((1..=2).contains(&generation));
        assert_eq!(ready, next.is_some(), "the next instance was failed");
        drop((next, provider));
    });
}

/// A provider that waits for the failure gets its reason. (Preemption bound: 3.)
#[test]
fn fail_instance_wakes_the_provider() {
    model("fail instance wakes the provider", Some(3), || {
        let (registry, [x], [provider]) = services(&[]);
        let running = provider.start(&[]);
        let broken = running.instance().unwrap();

        let waiter = spawn(move || {
            let failure = running.failed().wait_blocking().expect("the instance fails");
            assert_eq!(failure.reason.to_string(), "broken");
            running
        });
        let reporter = spawn({
            let registry = registry.clone();
            move || registry.fail_instance(&broken, "broken").unwrap()
        });
        join(reporter);
        let running = join(waiter);
        assert_eq!(read_state(&registry, x), (1, false));
        drop(running);
    });
}
