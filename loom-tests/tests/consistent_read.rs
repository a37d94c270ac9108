//! `get_all` gives values of one instant: a pair that it gives was there, as a pair.
//!
//! ```text
//! writer:         a = 1          b = 1
//! pairs:   (0, 0)       (1, 0)         (1, 1)
//! reader:  what was replaced? | first look at a, first look at b | second looks: are they the same?
//! ```
//!
//! What must not be: the second looks are left out, take a value of the same generation for the same value, or
//! take effect before the first ones.
#![cfg(loom)]

use loom::thread::spawn;
use mainstay::{Guard, Registry};
use mainstay_loom_tests::{Id, join, model, plain, services};

/// Bound: 2.
#[test]
fn of_two_that_are_replaced() {
    model("get_all, replaced", Some(2), || {
        let (registry, [a, b], [a_role, b_role]) = services(&[]);
        let (a_runs, b_runs) = (a_role.start(&[]), b_role.start(&[]));

        let writer = spawn(move || {
            a_runs.replace(plain(1)).expect("nothing fails it");
            b_runs.replace(plain(1)).expect("nothing fails it");
            (a_runs, b_runs)
        });
        let reader = spawn(move || {
            let (a, b) = registry.get_all((a, b)).expect("both are ready all the time");
            let (a, b) = (a.mark, b.mark);
            assert!(a == b || a == b + 1, "({a}, {b}) was never there");
        });
        join(reader);
        drop(join(writer));
    });
}

/// `b` is built from `a`, both are failed and restarted: what is ready at one instant rests on what is ready
/// at that instant (I1).
fn restarting(name: &str, read: fn(&Registry, Id, Id) -> Option<(u64, u64)>) {
    model(name, Some(3), move || {
        let (registry, [a, b], [a_role, b_role]) = services(&[(1, 0)]);
        let running = (a_role.start(&[]), b_role.start(&[a]));

        let writer = spawn({
            let registry = registry.clone();
            move || {
                registry.fail(a, "edited").unwrap();
                (a_role.start(&[]), b_role.start(&[a]), a_role, b_role)
            }
        });
        let reader = spawn(move || {
            if let Some((a, rests_on)) = read(&registry, a, b) {
                assert_eq!(a, rests_on, "one instant: b rests on an instance that was not there");
            }
        });
        join(reader);
        drop((join(writer), running));
    });
}

/// Bound: 3.
#[test]
fn of_a_dependency_and_its_dependent() {
    restarting("get_all, from the top down", |registry, a, b| {
        let (a, b) = registry.get_all((a, b)).ok()?;
        Some((Guard::generation(&a), b.on[0].1))
    });
}

/// Bound: 3.
#[test]
fn of_a_dependent_and_its_dependency() {
    restarting("get_all, from the bottom up", |registry, a, b| {
        let (b, a) = registry.get_all((b, a)).ok()?;
        Some((Guard::generation(&a), b.on[0].1))
    });
}
