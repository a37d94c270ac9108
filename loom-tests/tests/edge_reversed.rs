//! I1 if an edge is reversed during the walk of a cascade.
//!
//! `b` was built from `a`. Then `b` is built again without `a`, and `a` is built from `b`. The
//! cascade reads the two edges one after the other. What it has read may form a cycle, which has no
//! order in which the slots could be taken down.
//!
//! ```text
//! cascade:  lists of x: a; of a: b |                           | of b: a. Take down b |
//! others:                          | build b without a: remove |                      | read b: it
//!                                  | the edge, build a from b  |                      | has failed. a?
//! ```
//!
//! What must not happen: the cascade takes its slots down in the order of such a walk. Its check of
//! the lists prevents this, because one of them has changed.
//!
//! The services are numbered so that the walk must go depth first. The cascade walks, because an
//! attempt at a fourth service has discovered an edge to `x` and is still in progress.
#![cfg(loom)]

use loom::thread::spawn;
use mainstay_loom_tests::{join, model, now_or_never, read_state, services, try_publish};

/// The thread that has built the services reads them. (Preemption bound: 2.)
#[test]
fn a_walk_over_an_edge_that_is_reversed_keeps_i1() {
    model("a walk over an edge that is reversed keeps i1", Some(2), || {
        let (registry, [x, b, a, _], providers) = services(&[(2, 0)]);
        let [x_provider, b_provider, a_provider, other_provider] = providers;
        let x_running = x_provider.start(&[]);
        let a_running = a_provider.start(&[x]);
        drop(b_provider.start(&[a]));
        drop(a_running);
        let (a_first, b_first) = (a_provider.attempt(), b_provider.attempt());
        let other = other_provider.attempt();
        assert!(now_or_never(other.wait_for(x)).is_some(), "x is ready");

        let failer = spawn({
            let registry = registry.clone();
            move || registry.fail(x, "gone").map(drop).unwrap()
        });
        let others = spawn(move || {
            let running = (try_publish(b_first, &[]), try_publish(a_first, &[b]));
            let (current, _) = read_state(&registry, b);
            if let Ok(a) = registry.get(a) {
                for &(_, generation) in &a.built_from {
                    assert!(
                        current <= generation,
                        "I1: b has failed, but its dependent a is ready"
                    );
                }
            }
            running
        });
        join(failer);
        drop((join(others), x_running, other));
    });
}
