//! F where a dependency is needed to start only: what was built from an instance that has failed is not published after
//! that failure. Once it is published, it stands by itself.
//!
//! `d` waits for `x`, to start, and is published.
//!
//! ```text
//! d:        edge known, fence, x not condemned | Starting -> Ready   drop the edge
//! cascade:                  condemn x, fence, on x: d?   raise d, raise x
//! ```
//!
//! What must not be: `fail(x)` returns, `d` is not published yet, and is published after that.
#![cfg(loom)]

use loom::thread::spawn;
use mainstay::Instance;
use mainstay_loom_tests::{join, look, model, now, plain, services};

/// Bound: 3.
#[test]
fn against_a_failure() {
    model("start-only, against a failure", Some(3), || {
        let (registry, [x, d], [x_role, d_role]) = services(&[]);
        let x_runs = x_role.start(&[]);
        let attempt = d_role.attempt();

        let publisher = spawn(move || {
            let started_with = now(attempt.wait_to_start(x))?.ok()?;
            let generation = Instance::generation(&started_with);
            drop(started_with);
            attempt.ready(plain(7)).ok().map(|running| (running, generation))
        });
        let failer = spawn({
            let registry = registry.clone();
            move || {
                registry.fail(x, "gone").unwrap();
                look(&registry, d)
            }
        });
        let (published, seen) = (join(publisher), join(failer));
        let end = look(&registry, d);
        match &published {
            Some((_, 0)) if end.1 => {
                assert_eq!(seen, (0, true), "F: published after what it started with had failed");
            }
            _ => {}
        }
        // In the end nothing is left of it: no failure reaches what is up, and nothing stays condemned.
        drop(x_runs);
        if end.1 {
            assert_eq!(look(&registry, d), end, "it stands by itself");
        } else {
            assert!(
                d_role.try_build(&[]).is_some() || published.is_some(),
                "S3: d stays condemned"
            );
        }
    });
}
