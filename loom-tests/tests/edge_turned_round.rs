//! I1 where an edge turns round under the walk of a cascade.
//!
//! `b` was built from `a`; it is built anew without it, and then `a` from `b`. What the cascade reads of the two
//! edges, one after the other, may be a circle, and has no order in which they could be raised.
//!
//! ```text
//! cascade:  who is on x: a; on a: b |                                               | on b: a
//! others:                             build b without a: drop the edge, build a on b
//! reader:                                                                             b has failed | a?
//! ```
//!
//! Numbered so that the walk must go depth first.
#![cfg(loom)]

use loom::thread::spawn;
use mainstay_loom_tests::{finish, join, look, model, services};

/// Bound: 2.
#[test]
fn under_the_walk() {
    model("edge turned round", Some(2), || {
        let (registry, [x, b, a], [x_role, b_role, a_role]) = services(&[(2, 0)]);
        let x_runs = x_role.start(&[]);
        let a_runs = a_role.start(&[x]);
        drop(b_role.start(&[a]));
        drop(a_runs);
        let (a_first, b_first) = (a_role.attempt(), b_role.attempt());

        let failer = spawn({
            let registry = registry.clone();
            move || registry.fail(x, "gone").map(drop).unwrap()
        });
        let others = spawn(move || {
            let b_runs = finish(b_first, &[]);
            (b_runs, finish(a_first, &[b]))
        });
        let reader = spawn({
            let registry = registry.clone();
            move || {
                let (now, _) = look(&registry, b);
                let Ok(a) = registry.get(a) else { return };
                for &(_, generation) in &a.on {
                    assert!(now <= generation, "I1: b has failed, and what stood on it is there");
                }
            }
        });
        join(failer);
        join(reader);
        drop((join(others), x_runs));
    });
}
