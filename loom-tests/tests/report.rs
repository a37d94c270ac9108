//! A report fails the instance that it names, once, and never a later one.
//!
//! ```text
//! reporters:  condemned 0 -> 1?                    condemned 0 -> 1?
//! provider:                     raised, begin, ready (1)
//! ```
#![cfg(loom)]

use loom::thread::spawn;
use mainstay::Report;
use mainstay_loom_tests::{join, look, model, services};

#[test]
fn one_of_two_wins_and_the_next_instance_lives() {
    model("report, two reporters", Some(3), || {
        let (registry, [x], [role]) = services(&[]);
        let running = role.start(&[]);

        let reporter = || {
            let (registry, broken) = (registry.clone(), running.instance().unwrap());
            spawn(move || registry.report(&broken, "broken").unwrap())
        };
        let reporters = [reporter(), reporter()];
        let restarter = spawn(move || (role.build(&[]).expect("x fails once"), role));

        let reports = reporters.map(join);
        let failed = reports.iter().filter(|report| matches!(report, Report::Failed(_))).count();
        assert_eq!(failed, 1, "{reports:?}");
        assert!(reports.contains(&Report::AlreadyFailed), "{reports:?}");
        let next = join(restarter);
        assert_eq!(look(&registry, x), (1, true), "a fresh generation was hit");
        drop((running, next));
    });
}

/// The handle's own end is a report, too. (Bound: 4.)
#[test]
fn against_a_failure_and_a_restart() {
    model("report, a failure and a restart", Some(4), || {
        let (registry, [x], [role]) = services(&[]);
        let running = role.start(&[]);

        let reporter = spawn(move || running.fail("broken").went_down);
        let failer = spawn({
            let registry = registry.clone();
            move || {
                let went_down = registry.fail(x, "again").unwrap().went_down;
                (went_down, role.try_build(&[]), role)
            }
        });
        let by_report = join(reporter);
        let (by_failure, next, role) = join(failer);
        assert_eq!(by_report + by_failure, 1, "one instance, one fall");
        let (generation, ready) = look(&registry, x);
        assert!((1..=2).contains(&generation));
        assert_eq!(ready, next.is_some(), "a fresh generation was hit");
        drop((next, role));
    });
}

/// One who waits for the failure is told of it, whoever of the two began it.
#[test]
fn tells_the_provider() {
    model("report, tells the provider", Some(3), || {
        let (registry, [x], [role]) = services(&[]);
        let running = role.start(&[]);
        let broken = running.instance().unwrap();

        let waiter = spawn(move || {
            let failure = running.failed().wait().expect("it fails");
            assert_eq!(failure.reason.to_string(), "broken");
            running
        });
        let reporter = spawn({
            let registry = registry.clone();
            move || registry.report(&broken, "broken").unwrap()
        });
        join(reporter);
        let running = join(waiter);
        assert_eq!(look(&registry, x), (1, false));
        drop(running);
    });
}
