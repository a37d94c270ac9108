//! I2 where two roots of one closure fail at once while everything restarts; and what `fail` promises to its
//! caller: when it returns, nothing that the closure held can be read. (Bound where none is said: 2.)
//!
//! ```text
//! cascade of a:  condemn a, b, c                | raise c, b, a | restart a
//! cascade of b:                 condemn b, c    | raise c, b    | restart b on a
//! c:                                                            restart on b
//! ```
//!
//! A slot that both reach is condemned twice, and whoever raises it first raises it for both.
#![cfg(loom)]

use loom::thread::spawn;
use mainstay::Running;
use mainstay_loom_tests::{Id, Rests, Role, assert_i2, join, look, model, services};

fn start<const N: usize>(roles: &[Role; N], on: [&[Id]; N]) -> Vec<Running<Rests>> {
    roles.iter().zip(on).map(|(role, on)| role.start(on)).collect()
}

#[test]
fn nothing_is_left_behind() {
    model("two roots, nothing is left behind", Some(4), || {
        let (registry, [a, b, c], roles) = services(&[(1, 0), (2, 1)]);
        let running = start(&roles, [&[], &[a], &[b]]);

        let failers = [a, b].map(|root| {
            let registry = registry.clone();
            spawn(move || {
                registry.fail(root, "out").unwrap();
                // Its closure, as seen from the top down.
                for id in [b, c] {
                    assert!(look(&registry, id).0 > 0, "{id:?} is readable after fail returned");
                }
            })
        });
        let [(), ()] = failers.map(join);
        assert!([a, b, c].iter().all(|&id| !look(&registry, id).1));
        drop((running, roles));
    });
}

/// b is raised by its own cascade to a generation that a's has condemned it to, before a is raised: an attempt
/// that begins in it must find a condemned. That is what dependencies are condemned first for, what the Release
/// of each addition carries, and why an attempt that begins looks at its own slot.
///
/// There is a third service since loom goes on to the fence without a switch of threads after the last addition.
#[test]
fn of_a_pair() {
    model("two roots of a pair", Some(2), || {
        let (registry, ids @ [a, b, _], [a_role, b_role, c_role]) = services(&[(1, 0), (2, 1)]);
        let running = (a_role.start(&[]), b_role.start(&[a]));

        let fails_a = spawn({
            let registry = registry.clone();
            move || registry.fail(a, "out").map(drop).unwrap()
        });
        let fails_b = spawn({
            let registry = registry.clone();
            move || {
                registry.fail(b, "out").unwrap();
                // Another thread than the one that raised b: it has only the state to go by.
                join(spawn(move || (b_role.try_build(&[a]), b_role)))
            }
        });
        join(fails_a);
        let ends = join(fails_b);
        assert_i2(&registry, &ids);
        drop((running, ends, a_role, c_role));
    });
}

#[test]
fn of_a_chain() {
    model("two roots of a chain of three", Some(2), || {
        let (registry, ids @ [a, b, _], roles) = services(&[(1, 0), (2, 1)]);
        let running = start(&roles, [&[], &[a], &[b]]);
        let [_a_role, b_role, c_role] = roles;

        let failers = [a, b].map(|root| {
            let registry = registry.clone();
            spawn(move || registry.fail(root, "out").map(drop).unwrap())
        });
        let restarter =
            spawn(move || (b_role.try_build(&[a]), c_role.try_build(&[b]), (b_role, c_role)));
        let [(), ()] = failers.map(join);
        let ends = join(restarter);
        assert_i2(&registry, &ids);
        drop((running, ends));
    });
}

/// `left` and `right` on `a`, `top` on both.
#[test]
fn of_a_diamond() {
    model("two roots of a diamond", Some(2), || {
        let edges = [(1, 0), (2, 0), (3, 1), (3, 2)];
        let (registry, ids @ [a, left, right, _], roles) = services(&edges);
        let running = start(&roles, [&[], &[a], &[a], &[left, right]]);
        let [_a_role, left_role, _right_role, top_role] = roles;

        let failers = [a, left].map(|root| {
            let registry = registry.clone();
            spawn(move || registry.fail(root, "out").map(drop).unwrap())
        });
        let restarter = spawn(move || {
            (left_role.try_build(&[a]), top_role.try_build(&[left, right]), (left_role, top_role))
        });
        let [(), ()] = failers.map(join);
        let ends = join(restarter);
        assert_i2(&registry, &ids);
        drop((running, ends));
    });
}
