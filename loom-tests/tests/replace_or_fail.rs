//! `fail_instance` fails exactly the reported instance, or returns `Replaced`: it is one step, and
//! so is a replacement.
//!
//! ```text
//! reporter:   is v0 current? |                    | condemn: v0, or its successor?
//! provider:                  | replace v0 by v1   |
//! ```
//!
//! What must not happen: the report of `v0` succeeds, the replacement of `v0` by `v1` succeeds, and
//! `v1`, which no thread has reported, is down.
#![cfg(loom)]

use std::sync::Arc;

use loom::thread::spawn;
use mainstay::FailOutcome;
use mainstay_loom_tests::{Value, join, model, read_state, services};

/// Preemption bound: 3.
#[test]
fn either_the_report_or_the_replacement_succeeds() {
    model("either the report or the replacement succeeds", Some(3), || {
        let (registry, [x], [provider]) = services(&[]);
        let running = provider.start(&[]);
        let v0 = running.instance().expect("just published");

        let reporter = spawn({
            let registry = registry.clone();
            move || {
                let outcome = registry.fail_instance(&v0, "broken").unwrap();
                if outcome == FailOutcome::Replaced {
                    let version = registry.get(x).expect("nothing has failed").version;
                    assert_eq!(version, 1, "a read returned what was reported as replaced");
                }
                outcome
            }
        });
        let replacer = spawn(move || (running.replace(Value::new(1)).is_ok(), running));
        let outcome = join(reporter);
        let (replaced, running) = join(replacer);
        match outcome {
            FailOutcome::Failed(cascade) => {
                assert_eq!(cascade.failed, 1);
                assert!(!replaced, "D5: v0 was reported, and v1 is down");
                assert_eq!(read_state(&registry, x), (1, false));
            }
            FailOutcome::Replaced => {
                assert!(replaced, "v0 was neither failed nor replaced");
                assert_eq!(read_state(&registry, x), (0, true), "the successor has failed");
                assert_eq!(registry.get(x).expect("ready").version, 1);
            }
            FailOutcome::AlreadyFailed => panic!("no other thread fails it"),
        }
        drop(running);
    });
}

/// The report of the successor fails it, also if it races with the next replacement. The report of
/// the first value fails nothing. (Preemption bound: 2.)
#[test]
fn a_report_names_one_of_three_values() {
    model("a report names one of three values", Some(2), || {
        let (registry, [x], [provider]) = services(&[]);
        let running = provider.start(&[]);
        let v0 = running.instance().expect("just published");
        running.replace(Value::new(1)).expect("ready");
        let v1 = running.instance().expect("ready");

        let late = spawn({
            let registry = registry.clone();
            move || registry.fail_instance(&v0, "the first value").unwrap()
        });
        let reporter = spawn({
            let registry = registry.clone();
            move || registry.fail_instance(&v1, "the second value").unwrap()
        });
        let replacer = spawn(move || (running.replace(Value::new(2)).is_ok(), running));
        let late = join(late);
        let failed = matches!(join(reporter), FailOutcome::Failed(_));
        let (replaced, running) = join(replacer);
        assert_ne!(failed, replaced, "exactly one of the two is first");
        assert!(!matches!(late, FailOutcome::Failed(_)), "v0 was not current");
        assert_eq!(read_state(&registry, x).1, replaced);
        drop(running);
    });
}

/// Two threads replace the value, and a third one reports the first value. (Preemption bound: 2.)
#[test]
fn a_successful_report_refuses_both_replacements() {
    model("a successful report refuses both replacements", Some(2), || {
        let (registry, [x], [provider]) = services(&[]);
        let running = Arc::new(provider.start(&[]));
        let v0 = running.instance().expect("just published");

        let reporter = spawn({
            let registry = registry.clone();
            move || registry.fail_instance(&v0, "broken").unwrap()
        });
        let replacers = [1, 2].map(|version| {
            let running = Arc::clone(&running);
            spawn(move || running.replace(Value::new(version)).is_ok())
        });
        let outcome = join(reporter);
        let [one, two] = replacers.map(join);
        match outcome {
            FailOutcome::Failed(_) => {
                assert!(!one && !two, "a value that no thread has reported is down");
            }
            FailOutcome::Replaced => {
                assert!(one && two, "nothing has failed, and a replacement was refused");
                assert_eq!(read_state(&registry, x), (0, true));
            }
            FailOutcome::AlreadyFailed => panic!("no other thread fails it"),
        }
        drop(running);
    });
}

/// A failure of the service at the same time: at most one of the two counts the instance, and the
/// report never fails the next generation. (Preemption bound: 2.)
#[test]
fn a_report_and_a_failure_end_one_generation_each() {
    model("a report and a failure end one generation each", Some(2), || {
        let (registry, [x], [provider]) = services(&[]);
        let running = provider.start(&[]);
        let v0 = running.instance().expect("just published");

        let reporter = spawn({
            let registry = registry.clone();
            move || match registry.fail_instance(&v0, "broken").unwrap() {
                FailOutcome::Failed(cascade) => cascade.failed,
                _ => 0,
            }
        });
        let failer = spawn({
            let registry = registry.clone();
            move || registry.fail(x, "edited").unwrap().failed
        });
        let replacer = spawn(move || (running.replace(Value::new(1)).is_ok(), running));
        let failed = join(reporter) + join(failer);
        let running = join(replacer).1;
        assert_eq!(failed, 1, "one instance fails once");
        assert!(!read_state(&registry, x).1, "`fail` has returned");
        assert!(provider.try_build(&[]).is_some(), "A3: x stays condemned");
        drop(running);
    });
}
