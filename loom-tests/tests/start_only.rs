//! F for a start-only edge: a value that was built with an instance that has failed is not
//! published after that failure. After its publication, an instance no longer depends on the edge.
//!
//! `d` waits for `x` to start, and is published.
//!
//! ```text
//! d:        publish the edge, fence, x is not condemned | Starting -> Ready   remove the edge
//! cascade:                        condemn x, fence, list of x: d?  take down d, take down x
//! ```
//!
//! What must not happen: `fail(x)` returns before `d` is published, and `d` is published after
//! that.
#![cfg(loom)]

use loom::thread::spawn;
use mainstay::Instance;
use mainstay_loom_tests::{Value, join, model, now_or_never, read_state, services};

/// Preemption bound: 3.
#[test]
fn no_publication_after_a_start_only_dependency_has_failed() {
    model("no publication after a start only dependency has failed", Some(3), || {
        let (registry, [x, d], [x_provider, d_provider]) = services(&[]);
        let x_running = x_provider.start(&[]);
        let attempt = d_provider.attempt();

        let publisher = spawn(move || {
            let started_with = now_or_never(attempt.wait_to_start(x))?.ok()?;
            let generation = Instance::generation(&started_with);
            drop(started_with);
            attempt.ready(Value::new(7)).ok().map(|running| (running, generation))
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
        match &published {
            Some((_, generation)) if *generation == 0 && end.1 => {
                assert_eq!(
                    seen,
                    (0, true),
                    "F: published after its start-only dependency had failed"
                );
            }
            _ => {}
        }
        // The edge does not stay: no failure reaches a ready d, and d is not condemned.
        drop(x_running);
        if end.1 {
            assert_eq!(read_state(&registry, d), end, "d still depends on x");
        } else {
            assert!(
                d_provider.try_build(&[]).is_some() || published.is_some(),
                "A3: d stays condemned"
            );
        }
    });
}
