//! I1, I2 and S3 where an edge is dropped while a cascade runs over it.
//!
//! `d` was built from `x`, and is built again, without it: its publication drops the edge, and `d` leaves the
//! closure of `x`. At the same time `e` discovers that it depends on `d`.
//!
//! ```text
//! cascade:  on x: d                                       condemn d | on x: nobody. And d? And what is on d?
//! d:                        ready, drop the edge
//! e:                                       wait_for(d), ready
//! ```
//!
//! What must not be: d is raised, and e stays on it; or d is never raised, and so condemned for ever.
#![cfg(loom)]

use loom::thread::spawn;
use mainstay_loom_tests::{assert_i2, finish, join, look, model, services};

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

/// The same where the cascade has the row that one before it has left. (Bound: 1.)
#[test]
fn where_the_row_is_known() {
    model("edge dropped, where the row is known", Some(1), || {
        let (registry, ids @ [x, d, _], [x_role, d_role, e_role]) = services(&[]);
        drop((x_role.start(&[]), d_role.start(&[x])));
        let x_runs = x_role.start(&[]);
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
        drop((x_runs, d_runs, e_runs));
    });
}

/// `e` is built anew without `x`, and then `x` on `e`: the root stands on what has left its closure. (Bound: 2.)
///
/// ```text
/// cascade:  condemn x, e |                                                        | on x: nobody. And e?
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

/// A cascade passes by a dependent that has left; whoever then sees the root fail sees that the instance which stood
/// on it has failed, too. (Bound: 2.)
///
/// ```text
/// d:        fail, ready without x, drop the edge |
/// cascade:                                       | who is on x: nobody. Raise x
/// reader:                                                                       x has failed | the first d?
/// ```
#[test]
fn seen_by_a_reader() {
    model("edge dropped, seen by a reader", Some(2), || {
        let (registry, [x, d], [x_role, d_role]) = services(&[]);
        let running = (x_role.start(&[]), d_role.start(&[x]));

        let failer = spawn({
            let registry = registry.clone();
            move || registry.fail(x, "gone").map(drop).unwrap()
        });
        let changer = spawn({
            let registry = registry.clone();
            move || {
                registry.fail(d, "lost").unwrap();
                (d_role.try_build(&[]), d_role)
            }
        });
        let reader = spawn(move || {
            let (now, _) = look(&registry, x);
            let Ok(d) = registry.get(d) else { return };
            for &(_, generation) in &d.on {
                assert!(now <= generation, "I1: x has failed, and what stood on it is there");
            }
        });
        join(failer);
        join(reader);
        drop((join(changer), running));
    });
}

/// An attempt is overtaken while it makes an edge known, and the next one is published without that edge: nothing stands
/// on it, whichever was faster. (Bound: 3.)
///
/// ```text
/// first:   wait_for(x): not overtaken yet |                                            | d is on x
/// others:                                 fail d, build d without x: nothing to be dropped
/// ```
#[test]
fn by_one_that_is_overtaken() {
    model("edge dropped, by one that is overtaken", Some(3), || {
        let (registry, [x, d], [x_role, d_role]) = services(&[]);
        let x_runs = x_role.start(&[]);
        let first = d_role.attempt();

        let late = spawn(move || finish(first, &[x]));
        let next = spawn({
            let registry = registry.clone();
            move || {
                registry.fail(d, "lost").unwrap();
                (d_role.try_build(&[]), d_role)
            }
        });
        let ends = (join(late), join(next));
        let Ok(before) = registry.get(d).map(|d| d.on.clone()) else { return };
        registry.fail(x, "gone").unwrap();
        assert_eq!(
            registry.get(d).is_ok(),
            before.is_empty(),
            "d went down for nothing, or stayed"
        );
        drop((x_runs, ends));
    });
}
