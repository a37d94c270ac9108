//! A wait that has returned no instance leaves no edge after the publication, also if the
//! dependency becomes ready and fails at the same time.
//!
//! ```text
//! d:   wait_for(x): pending, dropped | ready: remove d -> x |
//! x:                       ready | condemn x, list of x: d?            fail again: d stays ready
//! ```
//!
//! A failure between the publication and the removal of the edge may still take `d` down. What must
//! not happen: `d` stays ready, and a later failure of `x` reaches it; or `d` stays condemned; or
//! the wait has returned an instance, and its failure misses `d`.
#![cfg(loom)]

use loom::thread::spawn;
use mainstay::{Attempt, Instance};
use mainstay_loom_tests::{Id, Value, assert_i2, join, model, now_or_never, read_state, services};

/// Polls a wait once, and drops it. Returns what the attempt was built from.
fn try_wait(attempt: &Attempt<Value>, dependency: Id) -> Option<Vec<(Id, u64)>> {
    match now_or_never(attempt.wait_for(dependency)) {
        Some(Ok(instance)) => Some(vec![(dependency, Instance::generation(&instance).get())]),
        Some(Err(_)) => None,
        None => Some(Vec::new()),
    }
}

/// Preemption bound: 2.
#[test]
fn a_dropped_wait_leaves_no_edge_during_a_cascade() {
    model("a dropped wait leaves no edge during a cascade", Some(2), || {
        let (registry, ids @ [x, d], [x_provider, d_provider]) = services(&[]);
        let (x_attempt, d_attempt) = (x_provider.attempt(), d_provider.attempt());

        let publisher = spawn(move || {
            let built_from = try_wait(&d_attempt, x)?;
            d_attempt.ready(Value { built_from, version: 0 }).ok()
        });
        let failer = spawn(move || {
            let running = x_attempt.ready(Value::new(0)).expect("no other thread fails x");
            running.fail("gone");
        });
        let d_running = join(publisher);
        join(failer);
        assert_i2(&registry, &ids);
        let before = read_state(&registry, d);
        if before.1 {
            // It was built without x.
            x_provider.start(&[]).fail("gone again");
            assert_eq!(read_state(&registry, d), before, "a dropped wait has left an edge");
        } else {
            assert!(d_provider.try_build(&[]).is_some(), "A3: d stays condemned");
        }
        drop((d_running, x_provider));
    });
}

/// The same for a wait that is first dropped, and then returns the instance: the edge stays. (The
/// dependency is ready, and fails during the publication. Preemption bound: 2.)
#[test]
fn a_wait_that_is_repeated_keeps_its_edge() {
    model("a wait that is repeated keeps its edge", Some(2), || {
        let (registry, ids @ [x, d], [x_provider, d_provider]) = services(&[]);
        let attempt = d_provider.attempt();
        assert!(try_wait(&attempt, x).expect("nothing fails").is_empty());
        let x_running = x_provider.start(&[]);

        let publisher = spawn(move || {
            let built_from = try_wait(&attempt, x)?;
            attempt.ready(Value { built_from, version: 0 }).ok()
        });
        let failer = spawn({
            let registry = registry.clone();
            move || registry.fail(x, "gone").unwrap()
        });
        let d_running = join(publisher);
        join(failer);
        assert_i2(&registry, &ids);
        if !read_state(&registry, d).1 {
            assert!(d_provider.try_build(&[]).is_some(), "A3: d stays condemned");
        }
        drop((d_running, x_running));
    });
}
