//! `get_all` returns values of one instant: the pair that it returns was current as a pair.
//!
//! ```text
//! writer:         a = 1          b = 1
//! pairs:   (0, 0)       (1, 0)         (1, 1)
//! reader:  load the numbers of replacements | read a, read b | check: are both unchanged?
//! ```
//!
//! What must not happen: the checks are omitted, take another value of the same generation for the
//! same value, or take effect before the reads.
#![cfg(loom)]

use loom::thread::spawn;
use mainstay::{Guard, Registry};
use mainstay_loom_tests::{Id, Value, join, model, services};

/// Preemption bound: 2.
#[test]
fn get_all_returns_replaced_values_of_one_instant() {
    model("get all returns replaced values of one instant", Some(2), || {
        let (registry, [a, b], [a_provider, b_provider]) = services(&[]);
        let (a_running, b_running) = (a_provider.start(&[]), b_provider.start(&[]));

        let writer = spawn(move || {
            a_running.replace(Value::new(1)).expect("nothing fails it");
            b_running.replace(Value::new(1)).expect("nothing fails it");
            (a_running, b_running)
        });
        let reader = spawn(move || {
            let (a, b) = registry.get_all((a, b)).expect("both are ready all the time");
            let (a, b) = (a.version, b.version);
            assert!(a == b || a == b + 1, "({a}, {b}) was never current");
        });
        join(reader);
        drop(join(writer));
    });
}

/// `b` is built from `a`, and both are failed and restarted. A `b` that is ready at some instant
/// was built from the `a` that is ready at this instant (I1).
fn check_during_a_restart(name: &str, read: fn(&Registry, Id, Id) -> Option<(u64, u64)>) {
    model(name, Some(3), move || {
        let (registry, [a, b], [a_provider, b_provider]) = services(&[(1, 0)]);
        let running = (a_provider.start(&[]), b_provider.start(&[a]));

        let writer = spawn({
            let registry = registry.clone();
            move || {
                registry.fail(a, "edited").unwrap();
                (a_provider.start(&[]), b_provider.start(&[a]), a_provider, b_provider)
            }
        });
        let reader = spawn(move || {
            if let Some((a, built_from)) = read(&registry, a, b) {
                assert_eq!(a, built_from, "not of one instant: b was built from another a");
            }
        });
        join(reader);
        drop((join(writer), running));
    });
}

/// Preemption bound: 3.
#[test]
fn get_all_of_a_dependency_then_its_dependent_keeps_i1() {
    check_during_a_restart(
        "get all of a dependency then its dependent keeps i1",
        |registry, a, b| {
            let (a, b) = registry.get_all((a, b)).ok()?;
            Some((Guard::generation(&a).get(), b.built_from[0].1))
        },
    );
}

/// Preemption bound: 3.
#[test]
fn get_all_of_a_dependent_then_its_dependency_keeps_i1() {
    check_during_a_restart(
        "get all of a dependent then its dependency keeps i1",
        |registry, a, b| {
            let (b, a) = registry.get_all((b, a)).ok()?;
            Some((Guard::generation(&a).get(), b.built_from[0].1))
        },
    );
}
