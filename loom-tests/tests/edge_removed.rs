//! I1, I2 and A3 if an edge is removed while a cascade follows it.
//!
//! `d` was built from `x`, and is built again without it. Its publication removes the edge, and `d`
//! leaves the closure of `x`. At the same time `e` discovers that it depends on `d`.
//!
//! ```text
//! cascade:  list of x: d                              condemn d | list of x: empty
//! d:                      ready, remove the edge
//! e:                                      wait_for(d), ready
//! ```
//!
//! The cascade must still take down `d` and the dependents of `d`. What must not happen: `d` is
//! taken down and `e`, which was built from it, stays ready; or `d` is never taken down, and so
//! stays condemned forever.
#![cfg(loom)]

use loom::thread::spawn;
use mainstay_loom_tests::{assert_i2, join, model, read_state, services, try_publish};

/// One thread publishes both, because `e` can be built only when `d` is ready. (Preemption bound:
/// 3.)
#[test]
fn a_service_that_leaves_the_closure_is_still_taken_down() {
    model("a service that leaves the closure is still taken down", Some(3), || {
        let (registry, ids @ [x, d, _, _], [x_provider, d_provider, e_provider, probe_provider]) =
            services(&[]);
        let x_running = x_provider.start(&[]);
        drop(d_provider.start(&[x]));
        let d_again = d_provider.attempt();
        let e_first = e_provider.attempt();

        let failer = spawn({
            let registry = registry.clone();
            move || registry.fail(x, "gone").unwrap()
        });
        let others = spawn(move || (try_publish(d_again, &[]), try_publish(e_first, &[d])));
        join(failer);
        let (d_running, e_running) = join(others);
        assert_i2(&registry, &ids);

        // d is not condemned: if it is down, an attempt begins; if it is ready, it can be used.
        match d_provider.try_build(&[]) {
            Some(d_running) => drop(d_running),
            None => assert!(probe_provider.try_build(&[d]).is_some(), "A3: d stays condemned"),
        }
        drop((x_running, d_running, e_running));
    });
}

/// The same, with a thread for each of `d` and `e`, and the cascade may use the closure that was
/// computed when `d` was published. (Preemption bound: 1.)
#[test]
fn a_service_that_leaves_a_precomputed_closure_keeps_i2() {
    model("a service that leaves a precomputed closure keeps i2", Some(1), || {
        let (registry, ids @ [x, d, _], [x_provider, d_provider, e_provider]) = services(&[]);
        drop((x_provider.start(&[]), d_provider.start(&[x])));
        let x_running = x_provider.start(&[]);
        let d_again = d_provider.attempt();
        let e_first = e_provider.attempt();

        let failer = spawn({
            let registry = registry.clone();
            move || registry.fail(x, "gone").unwrap()
        });
        let d_running = spawn(move || try_publish(d_again, &[]));
        let e_running = spawn(move || try_publish(e_first, &[d]));
        join(failer);
        let (d_running, e_running) = (join(d_running), join(e_running));
        assert_i2(&registry, &ids);
        drop((x_running, d_running, e_running));
    });
}

/// `e` is built again without `x`, and then `x` from `e`: the root depends on a service that has
/// left its closure. (Preemption bound: 2.)
///
/// ```text
/// cascade:  condemn x, e |                                              | list of x: empty. And e?
/// others:                  fail x, build e without x: remove the edge,
///                          build x from e
/// ```
#[test]
fn a_root_that_depends_on_a_service_that_left_keeps_i2() {
    model("a root that depends on a service that left keeps i2", Some(2), || {
        let (registry, ids @ [x, e], [x_provider, e_provider]) = services(&[]);
        let running = (x_provider.start(&[]), e_provider.start(&[x]));

        let failer = spawn({
            let registry = registry.clone();
            move || registry.fail(x, "gone").unwrap()
        });
        let others = spawn({
            let registry = registry.clone();
            move || {
                registry.fail(x, "again").unwrap();
                let e_running = e_provider.try_build(&[]);
                (e_running, x_provider.try_build(&[e]), x_provider, e_provider)
            }
        });
        join(failer);
        let returned = join(others);
        assert_i2(&registry, &ids);
        drop((running, returned));
    });
}

/// A cascade does not find a dependent that has left the closure. A reader that then sees the root
/// fail also sees that the old instance of this dependent has failed. (Preemption bound: 2.)
///
/// ```text
/// d:        fail, ready without x, remove the edge |
/// cascade:                                         | list of x: empty. Take down x
/// reader:                                             read x: it has failed | read d: the old one?
/// ```
#[test]
fn a_cascade_that_misses_a_removed_edge_keeps_i1() {
    model("a cascade that misses a removed edge keeps i1", Some(2), || {
        let (registry, [x, d], [x_provider, d_provider]) = services(&[]);
        let running = (x_provider.start(&[]), d_provider.start(&[x]));

        let failer = spawn({
            let registry = registry.clone();
            move || registry.fail(x, "gone").map(drop).unwrap()
        });
        let changer = spawn({
            let registry = registry.clone();
            move || {
                registry.fail(d, "lost").unwrap();
                (d_provider.try_build(&[]), d_provider)
            }
        });
        let reader = spawn(move || {
            let (current, _) = read_state(&registry, x);
            let Ok(d) = registry.get(d) else { return };
            for &(_, generation) in &d.built_from {
                assert!(current <= generation, "I1: x has failed, but its dependent d is ready");
            }
        });
        join(failer);
        join(reader);
        drop((join(changer), running));
    });
}

/// An attempt is invalidated while it publishes an edge, and the next attempt is published without
/// this edge. The edge does not stay, whichever attempt was faster. (Preemption bound: 3.)
///
/// ```text
/// first:   wait_for(x): not invalidated yet |                             | edge d -> x
/// others:                                   fail d, build d without x: no edge to remove
/// ```
#[test]
fn an_invalidated_attempt_leaves_no_edge() {
    model("an invalidated attempt leaves no edge", Some(3), || {
        let (registry, [x, d], [x_provider, d_provider]) = services(&[]);
        let x_running = x_provider.start(&[]);
        let first = d_provider.attempt();

        let late = spawn(move || try_publish(first, &[x]));
        let next = spawn({
            let registry = registry.clone();
            move || {
                registry.fail(d, "lost").unwrap();
                (d_provider.try_build(&[]), d_provider)
            }
        });
        let returned = (join(late), join(next));
        let Ok(before) = registry.get(d).map(|d| d.built_from.clone()) else { return };
        registry.fail(x, "gone").unwrap();
        assert_eq!(
            registry.get(d).is_ok(),
            before.is_empty(),
            "d was taken down without an edge, or was missed"
        );
        drop((x_running, returned));
    });
}
