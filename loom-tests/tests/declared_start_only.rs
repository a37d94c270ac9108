//! F for an edge that is declared as start-only. Its entry is always in the list of dependents, and
//! a cascade passes over it if it finds the dependent ready.
//!
//! `d` is ready when the cascade begins. It fails, begins an attempt, and waits for `x` to start.
//!
//! ```text
//! d:        fails, begin, fence, x is not condemned | Starting -> Ready
//! cascade:  list of x: d is ready | condemn x, fence, is d starting?    take down x
//! ```
//!
//! What must not happen: `fail(x)` returns before `d` is published, and `d` is published after
//! that; or a failure affects `d` after its publication.
#![cfg(loom)]

use loom::thread::spawn;
use mainstay::Instance;
use mainstay_loom_tests::{Value, join, model, now_or_never, read_state, services};

/// Preemption bound: 3.
#[test]
fn an_attempt_that_begins_behind_a_cascade_is_not_published() {
    model("an attempt that begins behind a cascade is not published", Some(3), || {
        let (registry, [x, d], [x_provider, d_provider]) = services(&[]);
        registry.depends(d).to_start_on(x).expect("no cycle");
        let x_running = x_provider.start(&[]);
        let d_running = d_provider.start(&[]);

        let publisher = spawn(move || {
            drop(d_running);
            let attempt = d_provider.attempt();
            let started_with = now_or_never(attempt.wait_to_start(x))?.ok()?;
            let generation = Instance::generation(&started_with);
            drop(started_with);
            let running = attempt.ready(Value::new(7)).ok()?;
            Some((running, generation, d_provider))
        });
        let failer = spawn({
            let registry = registry.clone();
            move || {
                registry.fail(x, "gone").unwrap();
                read_state(&registry, d)
            }
        });
        let (published, seen) = (join(publisher), join(failer));
        let end = read_state(&registry, d);
        if let Some((_, generation, _)) = &published
            && *generation == 0
            && end.1
        {
            assert_eq!(seen, end, "F: published after its start-only dependency had failed");
        }
        drop(x_running);
        if end.1 {
            assert_eq!(read_state(&registry, d), end, "a failure has reached the ready d");
        }
    });
}

/// `d` is starting, and does not wait. It is published, invalidated, or both: a failure that
/// begins after the publication leaves it ready.
#[test]
fn a_failure_invalidates_an_attempt_that_does_not_wait() {
    model("a failure invalidates an attempt that does not wait", None, || {
        let (registry, [x, d], [x_provider, d_provider]) = services(&[]);
        registry.depends(d).to_start_on(x).expect("no cycle");
        let x_running = x_provider.start(&[]);
        let attempt = d_provider.attempt();

        let publisher = spawn(move || attempt.ready(Value::new(7)).ok());
        let failer = spawn({
            let registry = registry.clone();
            move || {
                registry.fail(x, "gone").unwrap();
                read_state(&registry, d)
            }
        });
        let (published, seen) = (join(publisher), join(failer));
        let end = read_state(&registry, d);
        assert_eq!(seen.1, end.1, "published after fail(x) has returned");
        if published.is_none() {
            assert_eq!(end, (1, false), "refused without a failure");
        }
        drop(x_running);
        assert_eq!(read_state(&registry, d), end, "a failure has reached the ready d");
        // A3: a slot that was condemned was taken down.
        drop(published);
        assert!(d_provider.try_build(&[]).is_some(), "A3: d stays condemned");
    });
}

/// An attempt makes the edge hard, and an earlier publication makes it start-only again at the same
/// time as a cascade begins. (Preemption bound: 2.)
#[test]
fn an_edge_that_an_attempt_makes_hard_is_not_missed() {
    model("an edge that an attempt makes hard is not missed", Some(2), || {
        let (registry, [x, d], [x_provider, d_provider]) = services(&[]);
        registry.depends(d).to_start_on(x).expect("no cycle");
        let x_running = x_provider.start(&[]);
        let attempt = d_provider.attempt();

        let publisher = spawn(move || {
            let built_from = now_or_never(attempt.wait_for(x))?.ok()?;
            let generation = Instance::generation(&built_from);
            drop(built_from);
            attempt.ready(Value::new(7)).ok().map(|running| (running, generation))
        });
        let failer = spawn({
            let registry = registry.clone();
            move || registry.fail(x, "gone").map(drop).unwrap()
        });
        let published = join(publisher);
        join(failer);
        if let Some((_, generation)) = &published
            && *generation == 0
        {
            assert!(
                !read_state(&registry, d).1,
                "I2: d was built from an instance that has failed"
            );
        }
        drop(x_running);
    });
}
