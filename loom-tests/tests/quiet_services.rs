//! A walk does not follow the dependents of a quiet service: it was marked by a cascade that found
//! or made everything down that depends on it, and nothing has begun or changed since then.
//!
//! ```text
//! first cascade:   activity | condemn, check | take down | mark the roots with the activity
//! second cascade:                                          activity: the same? do not follow
//! d:                  begin, count                  ready
//! ```
//!
//! What must not happen: `d` is ready, or will be, and the mark is valid. Then the second cascade
//! does not find `d`.
//!
//! Only a cascade with at least eight members marks its roots (64 outside of a model), and one with
//! several roots walks, because no closure of several roots is precomputed. So each cascade here
//! fails some further services, which are down and have no edges.
#![cfg(loom)]

use loom::thread::spawn;
use mainstay::Registry;
use mainstay_loom_tests::{Id, TestProvider, assert_i2, join, model, read_state, services};

/// The services that only make the cascades large.
const FURTHER: usize = 6;

/// As `services`, with the further ones at the end.
fn large<const N: usize, const ALL: usize>(
    edges: &[(usize, usize)],
) -> (Registry, [Id; N], Vec<TestProvider>, Vec<Id>) {
    assert_eq!(ALL, N + FURTHER);
    let (registry, ids, providers) = services::<ALL>(edges);
    let mut providers = Vec::from(providers);
    providers.truncate(N);
    let first = std::array::from_fn(|number| ids[number]);
    (registry, first, providers, ids[N..].to_vec())
}

/// Fails a service and the further ones in one cascade.
fn fail(registry: &Registry, root: Id, further: &[Id]) {
    registry.fail_all([&[root], further].concat(), "out").map(drop).unwrap();
}

/// `d` depends on `q`, which is down, but is built without it. (Preemption bound: 3.)
#[test]
fn a_service_that_starts_behind_a_quiet_root_is_failed_by_the_next_cascade() {
    model("a service that starts behind a quiet root is failed", Some(3), || {
        let (registry, [q, d], mut providers, further) = large::<2, 8>(&[(1, 0)]);
        let d_provider = providers.remove(1);

        let failer = spawn({
            let (registry, further) = (registry.clone(), further.clone());
            move || fail(&registry, q, &further)
        });
        let starter = spawn(move || (d_provider.try_build(&[]), d_provider));
        join(failer);
        let returned = join(starter);
        fail(&registry, q, &further);
        assert!(!read_state(&registry, d).1, "d is ready behind a quiet root");
        drop(returned);
    });
}

/// Two cascades of `q`, which is down. The second one may find it quiet: then the first one has
/// taken `d` down before. (Preemption bound: 2.)
#[test]
fn fail_returns_after_the_dependents_of_a_quiet_root_are_down() {
    model("fail returns after the dependents of a quiet root are down", Some(2), || {
        let (registry, [q, d], providers, further) = large::<2, 8>(&[(1, 0)]);
        let running = providers[1].start(&[]);

        let failers = [(), ()].map(|()| {
            let (registry, further) = (registry.clone(), further.clone());
            spawn(move || {
                fail(&registry, q, &further);
                assert!(!read_state(&registry, d).1, "d is readable after fail_all returned");
            })
        });
        let [(), ()] = failers.map(join);
        drop((running, providers));
    });
}

/// The edges are `z -> r`, `q -> z` and `d -> q`; `q` and `d` are down, and quiet. They start after
/// a cascade has walked without following `q`, and before it condemns `z`. (Preemption bound: 2.)
#[test]
fn services_that_start_behind_a_walk_are_not_missed() {
    model("services that start behind a walk are not missed", Some(2), || {
        let (registry, ids, providers, further) = large::<4, 10>(&[(1, 0), (2, 1), (3, 2)]);
        let [r, z, q, _] = ids;
        let running = (providers[0].start(&[]), providers[1].start(&[r]));
        fail(&registry, q, &further);

        let failer = spawn({
            let (registry, further) = (registry.clone(), further[..1].to_vec());
            move || fail(&registry, r, &further)
        });
        let starter = spawn(move || {
            let q_running = providers[2].try_build(&[z]);
            (q_running, providers[3].try_build(&[q]), providers)
        });
        join(failer);
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
        // With the other dependent of `q`, the cascade has eight members.
        let (registry, [q, d, _], providers, further) = large::<3, 9>(&[(2, 0)]);
        let running = providers[1].start(&[]);

        let failer = spawn({
            let (registry, further) = (registry.clone(), further.clone());
            move || fail(&registry, q, &further)
        });
        let declarer = spawn({
            let registry = registry.clone();
            move || registry.depends(d).on(q).map(drop).expect("no cycle")
        });
        join(failer);
        join(declarer);
        fail(&registry, q, &further);
        assert!(!read_state(&registry, d).1, "the declared edge is not followed");
        drop((running, providers));
    });
}
