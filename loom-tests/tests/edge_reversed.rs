//! I1 if an edge is reversed during the walk of a cascade.
//!
//! `b` was built from `a`. Then `b` is built again without `a`, and `a` is built from `b`. The
//! cascade reads the two edges one after the other. What it has read may form a cycle, which has no
//! order in which the slots could be taken down.
//!
//! ```text
//! cascade:  lists of x: a; of a: b |                                        | of b: a
//! others:                            build b without a: remove the edge,
//!                                    build a from b
//! reader:                                                      read b: it has failed | read a
//! ```
//!
//! The services are numbered so that the walk must go depth first.
#![cfg(loom)]

use loom::thread::spawn;
use mainstay_loom_tests::{join, model, read_state, services, try_publish};

/// Preemption bound: 2.
#[test]
fn a_walk_over_an_edge_that_is_reversed_keeps_i1() {
    model("a walk over an edge that is reversed keeps i1", Some(2), || {
        let (registry, [x, b, a], [x_provider, b_provider, a_provider]) = services(&[(2, 0)]);
        let x_running = x_provider.start(&[]);
        let a_running = a_provider.start(&[x]);
        drop(b_provider.start(&[a]));
        drop(a_running);
        let (a_first, b_first) = (a_provider.attempt(), b_provider.attempt());

        let failer = spawn({
            let registry = registry.clone();
            move || registry.fail(x, "gone").map(drop).unwrap()
        });
        let others = spawn(move || {
            let b_running = try_publish(b_first, &[]);
            (b_running, try_publish(a_first, &[b]))
        });
        let reader = spawn({
            let registry = registry.clone();
            move || {
                let (current, _) = read_state(&registry, b);
                let Ok(a) = registry.get(a) else { return };
                for &(_, generation) in &a.built_from {
                    assert!(
                        current <= generation,
                        "I1: b has failed, but its dependent a is ready"
                    );
                }
            }
        });
        join(failer);
        join(reader);
        drop((join(others), x_running));
    });
}
