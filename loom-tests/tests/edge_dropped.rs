//! I2 and S3 where an edge is dropped while a cascade runs over it.
//!
//! `d` was built from `x`, and is built again, without it: its publication drops the edge, and `d` leaves the
//! closure of `x`. At the same time `e` discovers that it depends on `d`.
//!
//! ```text
//! cascade:  row of x: [x, d]                              condemn d | row of x: [x]. And d? And what is on d?
//! d:                        ready, drop the edge
//! e:                                       wait_for(d), ready
//! ```
//!
//! What must not be: d is raised, and e stays on it; or d is never raised, and so condemned for ever.

use loom::thread::spawn;
use mainstay_loom_tests::{assert_i2, finish, join, model, services};

/// Bound: 2.
#[test]
fn while_a_dependent_is_discovered() {
    model("edge dropped", Some(2), || {
        let (registry, ids @ [x, d, _, _], [x_role, d_role, e_role, probe_role]) = services(&[]);
        let x_runs = x_role.start(&[]);
        drop(d_role.start(&[x]));
        let d_again = d_role.attempt();
        let e_first = e_role.attempt();

        let failer = spawn({
            let registry = registry.clone();
            move || registry.fail(x, "gone").unwrap()
        });
        let d_runs = spawn(move || finish(d_again, &[]));
        let e_runs = spawn(move || finish(e_first, &[d]));
        join(failer);
        let (d_runs, e_runs) = (join(d_runs), join(e_runs));
        assert_i2(&registry, &ids);

        // Not condemned: what is down can begin, what is ready can be built on.
        match d_role.try_build(&[]) {
            Some(d_runs) => drop(d_runs),
            None => assert!(probe_role.try_build(&[d]).is_some(), "S3: d stays condemned"),
        }
        drop((x_runs, d_runs, e_runs));
    });
}

/// `e` is built anew without `x`, and then `x` on `e`: the root stands on what has left its closure. (Bound: 2.)
///
/// ```text
/// cascade:  condemn x, e |                                                        | row of x: [x]. And e?
/// others:                  fail x, build e without x: drop the edge, build x on e
/// ```
#[test]
fn and_turned_round() {
    model("edge dropped, and turned round", Some(2), || {
        let (registry, ids @ [x, e], [x_role, e_role]) = services(&[]);
        let running = (x_role.start(&[]), e_role.start(&[x]));

        let failer = spawn({
            let registry = registry.clone();
            move || registry.fail(x, "gone").unwrap()
        });
        let others = spawn({
            let registry = registry.clone();
            move || {
                registry.fail(x, "again").unwrap();
                let e_runs = e_role.try_build(&[]);
                (e_runs, x_role.try_build(&[e]), x_role, e_role)
            }
        });
        join(failer);
        let ends = join(others);
        assert_i2(&registry, &ids);
        drop((running, ends));
    });
}
