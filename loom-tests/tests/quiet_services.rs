//! A walk does not follow the dependents of a quiet service: it was marked by a cascade that found
//! or made everything down that depends on it, and nothing has begun or changed since then.
//!
//! ```text
//! first cascade:   activity | walk, check | take down | mark the roots with the activity
//! second cascade:                                       activity: the same? do not follow
//! d:                  begin, count              ready
//! ```
//!
//! What must not happen: `d` is ready, or will be, and the mark is valid. Then the second cascade
//! does not find `d`.
//!
//! A cascade with several roots has no precomputed closure, so it walks. Here the second root is a
//! service without edges.
#![cfg(loom)]

use loom::thread::spawn;
use mainstay::Registry;
use mainstay_loom_tests::{Id, assert_i2, join, model, read_state, services};

fn fail_both(registry: &Registry, roots: [Id; 2]) {
    registry.fail_all(roots, "out").map(drop).unwrap();
}

/// `d` depends on `q`, which is down, but is built without it. (Preemption bound: 3.)
#[test]
fn a_service_that_starts_behind_a_quiet_root_is_failed_by_the_next_cascade() {
    model("a service that starts behind a quiet root is failed", Some(3), || {
        let (registry, [q, d, other], [_q_provider, d_provider, _other]) = services(&[(1, 0)]);

        let failer = spawn({
            let registry = registry.clone();
            move || fail_both(&registry, [q, other])
        });
        let starter = spawn(move || (d_provider.try_build(&[]), d_provider));
        join(failer);
        let returned = join(starter);
        fail_both(&registry, [q, other]);
        assert!(!read_state(&registry, d).1, "d is ready behind a quiet root");
        drop(returned);
    });
}

/// Two cascades of `q`, which is down. The second one may find it quiet: then the first one has
/// taken `d` down before. (Preemption bound: 3.)
#[test]
fn fail_returns_after_the_dependents_of_a_quiet_root_are_down() {
    model("fail returns after the dependents of a quiet root are down", Some(3), || {
        let (registry, [q, d, other], [_q_provider, d_provider, _other]) = services(&[(1, 0)]);
        let running = d_provider.start(&[]);

        let failers = [(), ()].map(|()| {
            let registry = registry.clone();
            spawn(move || {
                fail_both(&registry, [q, other]);
                assert!(!read_state(&registry, d).1, "d is readable after fail_all returned");
            })
        });
        let [(), ()] = failers.map(join);
        drop(running);
    });
}

/// The edges are `z -> r`, `q -> z` and `d -> q`; `q` and `d` are down, and quiet. They start after
/// a cascade has walked without following `q`, and before it condemns `z`. (Preemption bound: 2.)
#[test]
fn services_that_start_behind_a_walk_are_not_missed() {
    model("services that start behind a walk are not missed", Some(2), || {
        let (
            registry,
            ids @ [r, z, q, _, other],
            [r_provider, z_provider, q_provider, d_provider, _],
        ) = services(&[(1, 0), (2, 1), (3, 2)]);
        let running = (r_provider.start(&[]), z_provider.start(&[r]));
        fail_both(&registry, [q, other]);

        let failer = spawn({
            let registry = registry.clone();
            move || fail_both(&registry, [r, other])
        });
        let starter = spawn(move || {
            let q_running = q_provider.try_build(&[z]);
            (q_running, d_provider.try_build(&[q]), q_provider, d_provider)
        });
        join(failer);
        let returned = join(starter);
        assert_i2(&registry, &ids);
        drop((running, returned));
    });
}

/// The same in a later pass, which is necessary because the edge `z -> r` is declared during the
/// first one. (Preemption bound: 2.)
#[test]
fn services_that_start_behind_a_later_walk_are_not_missed() {
    model("services that start behind a later walk are not missed", Some(2), || {
        let (registry, ids, [r_provider, z_provider, q_provider, d_provider, _]) =
            services(&[(2, 1), (3, 2)]);
        let [r, z, q, _, other] = ids;
        let running = (r_provider.start(&[]), z_provider.start(&[]));

        let failer = spawn({
            let registry = registry.clone();
            move || fail_both(&registry, [r, other])
        });
        let declarer = spawn({
            let registry = registry.clone();
            move || {
                registry.depends(z).on(r).expect("no cycle");
                // From now on `q` is quiet.
                registry.fail(q, "out").map(drop).unwrap();
            }
        });
        let starter = spawn(move || {
            let q_running = q_provider.try_build(&[z]);
            (q_running, d_provider.try_build(&[q]), q_provider, d_provider)
        });
        join(failer);
        join(declarer);
        let returned = join(starter);
        assert_i2(&registry, &ids);
        drop((running, returned));
    });
}

/// An edge `d -> q` is declared while a cascade of `q`, which is down, is in progress. The next
/// cascade of `q` follows it. (Preemption bound: 3.)
#[test]
fn an_edge_declared_during_a_cascade_is_followed_behind_a_quiet_root() {
    model("an edge declared during a cascade is followed behind a quiet root", Some(3), || {
        let (registry, [q, d, other, _], [_q_provider, d_provider, _other, _last]) =
            services(&[(3, 0)]);
        let running = d_provider.start(&[]);

        let failer = spawn({
            let registry = registry.clone();
            move || fail_both(&registry, [q, other])
        });
        let declarer = spawn({
            let registry = registry.clone();
            move || registry.depends(d).on(q).map(drop).expect("no cycle")
        });
        join(failer);
        join(declarer);
        fail_both(&registry, [q, other]);
        assert!(!read_state(&registry, d).1, "the declared edge is not followed");
        drop(running);
    });
}
