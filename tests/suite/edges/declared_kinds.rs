//! Edges that are declared as start-only or as soft, and several declarations for one pair.
//!
//! - A failure of a declared start-only dependency invalidates an attempt, whether it has waited or
//!   not, and leaves a ready service as it is, and what depends on it. The edge stays for all later
//!   attempts.
//! - An attempt that waits for the dependency as for a hard one makes the edge hard, until a
//!   publication that does not need it.
//! - A declared soft edge carries no failure. Edges of all kinds count for cycles.
//! - Of several declarations for one pair the hardest one counts, in any order, also between the
//!   registry builder and the registry.
//! - The status, the listing, the reasons for not being ready, and the graph show the kind.

use crate::support::{LONG, publish, registry_of};
use mainstay::{
    Attempt, DependencyKind,
    DependencyKind::{Hard, Soft, StartOnly},
    Phase, Provider, Registry, ServiceId,
    error::{DependencyError, WaitForError, chain},
};

fn attempt(provider: &Provider<u32>) -> Attempt<u32> {
    provider.begin().wait_blocking_timeout(LONG).unwrap()
}

/// The kinds of the edges of a service, and whether each is declared.
fn kinds(registry: &Registry, id: ServiceId<u32>) -> Vec<(DependencyKind, bool)> {
    let edges = registry.status(id).unwrap().dependencies;
    edges.iter().map(|edge| (edge.kind, edge.declared)).collect()
}

/// Declares one edge of this kind.
fn declare(registry: &Registry, b: ServiceId<u32>, a: ServiceId<u32>, kind: DependencyKind) {
    let b = registry.depends(b);
    let declared = match kind {
        Hard => b.on(a),
        StartOnly => b.to_start_on(a),
        Soft => b.soft_on(a),
        _ => unreachable!("there are three kinds"),
    };
    declared.unwrap();
}

#[test]
fn a_failure_of_a_declared_start_only_dependency_invalidates_every_attempt() {
    for waits in [false, true] {
        let (registry, [a, b]) = registry_of(["a", "b"]);
        registry.depends(b).to_start_on(a).unwrap();
        let [provide_a, provide_b] = [a, b].map(|id| registry.provide(id).unwrap());
        for round in 0..3 {
            let a_runs = publish(&provide_a, round);
            let attempt = attempt(&provide_b);
            if waits {
                attempt.wait_to_start(a).wait_blocking_timeout(LONG).unwrap();
            }
            assert_eq!(kinds(&registry, b), [(StartOnly, true)]);
            let cascade = a_runs.fail("while b starts");
            assert_eq!((cascade.failed, cascade.invalidated), (1, 1));
            assert!(attempt.is_invalidated());
            let failure = chain(&attempt.ready(1).unwrap_err()).to_string();
            assert!(failure.contains("while b starts"), "{failure}");

            // It stays after the publication, and is not followed then.
            let a_runs = publish(&provide_a, round);
            let b_runs = publish(&provide_b, round);
            let cascade = a_runs.fail("while b is ready");
            assert_eq!((cascade.failed, cascade.invalidated), (1, 0));
            assert_eq!(*registry.get(b).unwrap(), round);
            assert_eq!(kinds(&registry, b), [(StartOnly, true)]);
            b_runs.fail("next round");
        }
    }
}

#[test]
fn a_ready_dependent_keeps_what_depends_on_it_and_a_starting_one_does_not() {
    let (registry, [a, b, c, d]) = registry_of(["a", "b", "c", "d"]);
    // `a` -> nothing, `b` -> `a` to start, `c` -> `b`, and `d` -> `a`.
    registry.depends(b).to_start_on(a).unwrap();
    registry.depends(c).on(b).unwrap();
    registry.depends(d).on(a).unwrap();
    let providers = [a, b, c, d].map(|id| registry.provide(id).unwrap());
    let [a_runs, _b_runs, _c_runs, _d_runs] = [0, 1, 2, 3].map(|of| publish(&providers[of], 0));
    let cascade = a_runs.fail("all are ready");
    assert_eq!((cascade.failed, cascade.invalidated), (2, 0), "a and d");
    assert!(registry.get(b).is_ok() && registry.get(c).is_ok() && registry.get(d).is_err());

    // `b` starts, and `c` was declared to depend on it, but is built without it.
    let a_runs = publish(&providers[0], 1);
    registry.fail(b, "again").unwrap();
    let starting = attempt(&providers[1]);
    let _c_runs = publish(&providers[2], 1);
    let cascade = a_runs.fail("b is starting");
    assert_eq!((cascade.failed, cascade.invalidated), (2, 1), "a, c, and the attempt at b");
    assert!(starting.is_invalidated() && registry.get(c).is_err());
}

#[test]
fn several_roots_reach_a_start_only_dependent_only_while_it_starts() {
    let (registry, [a, b, c]) = registry_of(["a", "b", "c"]);
    registry.depends(c).to_start_on(a).unwrap().on(b).unwrap();
    let providers = [a, b, c].map(|id| registry.provide(id).unwrap());
    let _runs = [0, 1, 2].map(|of| publish(&providers[of], 0));
    registry.fail_all([a, b], "both").unwrap();
    assert_eq!(registry.status(c).unwrap().last_failure.unwrap().root, "b", "over the hard edge");

    let starting = attempt(&providers[2]);
    registry.fail_all([a], "one").unwrap();
    assert!(starting.is_invalidated(), "a failure of a service that is down reaches dependents");
}

#[test]
fn an_attempt_that_waits_for_a_start_only_dependency_makes_it_hard_until_it_is_not_needed() {
    let (registry, [a, b]) = registry_of(["a", "b"]);
    registry.depends(b).to_start_on(a).unwrap();
    let [provide_a, provide_b] = [a, b].map(|id| registry.provide(id).unwrap());

    // A wait in vain, an attempt that fails, and one that uses the dependency only to start.
    let waiting = attempt(&provide_b);
    assert!(matches!(
        waiting.wait_for(a).wait_blocking_timeout(std::time::Duration::ZERO),
        Err(WaitForError::TimedOut { .. })
    ));
    assert_eq!(kinds(&registry, b), [(Hard, true)]);
    let b_runs = waiting.ready(0).unwrap();
    assert_eq!(kinds(&registry, b), [(StartOnly, true)], "no instance was received");
    b_runs.fail("again");

    for end_by_failure in [true, false] {
        let a_runs = publish(&provide_a, 1);
        let hard = attempt(&provide_b);
        hard.wait_for(a).wait_blocking_timeout(LONG).unwrap();
        if end_by_failure {
            hard.fail("on the way").unwrap();
            let _b_runs = publish(&provide_b, 1);
            assert_eq!(kinds(&registry, b), [(StartOnly, true)], "the next attempt needs no a");
            drop(a_runs);
            assert!(registry.get(b).is_ok());
            continue;
        }
        let _b_runs = hard.ready(2).unwrap();
        assert_eq!(kinds(&registry, b), [(Hard, true)]);
        a_runs.fail("b was built from it");
        assert!(registry.get(b).is_err());

        let _a_runs = publish(&provide_a, 3);
        let to_start = attempt(&provide_b);
        to_start.wait_to_start(a).wait_blocking_timeout(LONG).unwrap();
        assert_eq!(kinds(&registry, b), [(Hard, true)], "until the publication");
        let _b_runs = to_start.ready(3).unwrap();
        assert_eq!(kinds(&registry, b), [(StartOnly, true)]);
        registry.fail(a, "b has started").unwrap();
        assert_eq!(*registry.get(b).unwrap(), 3);
    }
}

#[test]
fn an_attempt_in_the_generation_of_a_failed_one_keeps_the_hard_edge_that_it_needs() {
    let (registry, [a, b]) = registry_of(["a", "b"]);
    registry.depends(b).to_start_on(a).unwrap();
    let [provide_a, provide_b] = [a, b].map(|id| registry.provide(id).unwrap());
    let a_runs = publish(&provide_a, 1);
    for fails in [true, false] {
        let hard = attempt(&provide_b);
        hard.wait_for(a).wait_blocking_timeout(LONG).unwrap();
        if fails {
            hard.fail("on the way").unwrap();
        } else {
            let _b_runs = hard.ready(1).unwrap();
            a_runs.fail("b was built from it");
            assert!(registry.get(b).is_err());
            return;
        }
    }
}

#[test]
fn a_declaration_meets_an_edge_that_an_attempt_has_discovered() {
    // The kind that is declared, whether the attempt waits only to start, and the kind while the
    // instance is ready.
    for (declared, to_start, published) in [
        (StartOnly, true, StartOnly),
        (StartOnly, false, Hard),
        (Hard, true, Hard),
        (Hard, false, Hard),
    ] {
        let (registry, [a, b]) = registry_of(["a", "b"]);
        let [provide_a, provide_b] = [a, b].map(|id| registry.provide(id).unwrap());
        let a_runs = publish(&provide_a, 1);
        let attempt = attempt(&provide_b);
        if to_start {
            attempt.wait_to_start(a).wait_blocking_timeout(LONG).unwrap();
        } else {
            attempt.wait_for(a).wait_blocking_timeout(LONG).unwrap();
        }
        declare(&registry, b, a, declared);
        let b_runs = attempt.ready(2).unwrap();
        let what = format!("{declared}, to start: {to_start}");
        assert_eq!(kinds(&registry, b), [(published, true)], "{what}");
        a_runs.fail("b is ready");
        assert_eq!(registry.get(b).is_ok(), published == StartOnly, "{what}");
        drop(b_runs);
        let _b_runs = publish(&provide_b, 3);
        assert_eq!(kinds(&registry, b), [(declared, true)], "{what}: the next one needs no a");
    }
}

#[test]
fn the_hardest_of_several_declarations_counts_in_any_order() {
    let all = [Hard, StartOnly, Soft];
    let rank = |kind| all.iter().position(|&ranked| ranked == kind);
    for (first, second) in all.into_iter().flat_map(|first| all.map(|second| (first, second))) {
        let hardest = if rank(first) < rank(second) { first } else { second };
        for built_between in [false, true] {
            let mut builder = Registry::builder(2).unwrap();
            let [a, b] = ["a", "b"].map(|name| builder.register::<u32>(name).unwrap());
            let by_builder = if built_between { vec![first] } else { vec![first, second] };
            for kind in by_builder {
                let b = builder.depends(b);
                let declared = match kind {
                    Hard => b.on(a),
                    StartOnly => b.to_start_on(a),
                    _ => b.soft_on(a),
                };
                declared.unwrap();
            }
            let registry = builder.build();
            if built_between {
                declare(&registry, b, a, second);
            }
            assert_eq!(kinds(&registry, b), [(hardest, true)], "{first}, then {second}");

            // The effect, and not only what is shown.
            let [provide_a, provide_b] = [a, b].map(|id| registry.provide(id).unwrap());
            let (a_runs, _b_runs) = (publish(&provide_a, 1), publish(&provide_b, 1));
            a_runs.fail("b is ready");
            assert_eq!(registry.get(b).is_err(), hardest == Hard, "{first}, then {second}");
            registry.fail(b, "again").unwrap();
            let (a_runs, starting) = (publish(&provide_a, 1), attempt(&provide_b));
            a_runs.fail("b is starting");
            assert_eq!(starting.is_invalidated(), hardest != Soft, "{first}, then {second}");
        }
    }
}

#[test]
fn a_harder_declaration_takes_effect_on_a_ready_service_at_once() {
    let (registry, [a, b]) = registry_of(["a", "b"]);
    registry.depends(b).to_start_on(a).unwrap();
    let [provide_a, provide_b] = [a, b].map(|id| registry.provide(id).unwrap());
    let (a_runs, _b_runs) = (publish(&provide_a, 1), publish(&provide_b, 1));
    registry.depends(b).on(a).unwrap();
    a_runs.fail("b is ready");
    assert!(registry.get(b).is_err());
}

#[test]
fn a_watch_survives_a_declaration_that_is_harder_than_the_soft_one() {
    let (registry, [a, b, c]) = registry_of(["a", "b", "c"]);
    registry.depends(b).soft_on(a).unwrap();
    let [provide_a, provide_b] = [a, b].map(|id| registry.provide(id).unwrap());
    let attempt = attempt(&provide_b);
    let mut watch = attempt.watch(a).unwrap();
    assert_eq!(kinds(&registry, b), [(Soft, true)], "the watch adds no second soft edge");
    attempt.wait_for(c).wait_blocking_timeout(std::time::Duration::ZERO).err().unwrap();
    let _b_runs = attempt.ready(1).unwrap();
    assert_eq!(kinds(&registry, b), [(Soft, true)], "the edge to c was not needed");
    registry.depends(b).to_start_on(a).unwrap();
    assert_eq!(kinds(&registry, b), [(StartOnly, true)]);
    let _a_runs = publish(&provide_a, 1);
    assert!(matches!(
        watch.changed().wait_blocking_timeout(LONG),
        Ok(mainstay::WatchEvent::Ready(_))
    ));
}

#[test]
fn declared_edges_of_all_kinds_count_for_cycles() {
    for kind in [Hard, StartOnly, Soft] {
        let (registry, [a, b]) = registry_of(["a", "b"]);
        declare(&registry, b, a, kind);
        let a_on_b = registry.depends(a);
        let refused = [a_on_b.on(b), a_on_b.to_start_on(b), a_on_b.soft_on(b)];
        for refused in refused {
            match refused.map(drop) {
                Err(DependencyError::Cycle(cycle)) => assert_eq!(cycle.path, ["a", "b", "a"]),
                other => panic!("{kind}: {other:?}"),
            }
        }
        assert_eq!(kinds(&registry, a), []);
    }
}

#[test]
fn the_listing_shows_the_kind_of_declared_edges_and_what_blocks_a_service() {
    let (registry, [a, b, c]) = registry_of(["a", "b", "c"]);
    registry.depends(b).to_start_on(a).unwrap();
    registry.depends(c).soft_on(b).unwrap();
    let names = |names: &[mainstay::ServiceName]| -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    };
    let listing = registry.list();
    let [of_a, of_b, of_c] = ["a", "b", "c"].map(|name| listing.get(name).unwrap());
    assert_eq!(
        (names(&of_a.dependents), names(&of_b.watched_by)),
        (vec!["b".into()], vec!["c".into()])
    );
    assert_eq!((names(&of_b.blocked_by), names(&of_c.blocked_by)), (vec!["a".into()], vec![]));
    assert_eq!(listing.blockers("b")[0].name, "a");
    assert_eq!(registry.status(b).unwrap().blocked_by, ["a"]);
    let dot = listing.to_dot();
    assert!(dot.contains(r#""b" -> "a" [style=solid, label="to start"];"#), "{dot}");
    assert!(dot.contains(r#""c" -> "b" [style=dotted];"#), "{dot}");

    let provide_b = registry.provide(b).unwrap();
    let _b_runs = publish(&provide_b, 1);
    assert_eq!(registry.status(b).unwrap().phase, Phase::Ready);
    assert!(registry.status(b).unwrap().blocked_by.is_empty(), "it is ready without a");
}

/// In a small registry closures are precomputed: around a start-only edge and beside it.
#[test]
fn failures_behind_and_beside_a_start_only_edge_are_followed_in_any_phase() {
    let (registry, all) = registry_of(["0", "1", "2", "3", "4", "5"]);
    // A chain 5 -> 4 -> 3 => 2 -> 1 -> 0, in which 3 => 2 is start-only.
    for service in 1..6 {
        let dependent = registry.depends(all[service]);
        let dependency = all[service - 1];
        let declared =
            if service == 3 { dependent.to_start_on(dependency) } else { dependent.on(dependency) };
        declared.unwrap();
    }
    let providers = all.map(|id| registry.provide(id).unwrap());
    let ready = |registry: &Registry| all.map(|id| registry.get(id).is_ok());
    let _runs = [0, 1, 2, 3, 4, 5].map(|of| publish(&providers[of], 0));
    assert_eq!(registry.fail(all[4], "above").unwrap().failed, 2);
    assert_eq!(registry.fail(all[0], "below").unwrap().failed, 3);
    assert_eq!(ready(&registry), [false, false, false, true, false, false]);

    let _runs = [0, 1, 2, 4, 5].map(|of| publish(&providers[of], 1));
    registry.fail(all[3], "rebuilt").unwrap();
    let _runs = [4, 5].map(|of| publish(&providers[of], 2));
    let starting = attempt(&providers[3]);
    let cascade = registry.fail(all[0], "below").unwrap();
    assert_eq!((cascade.failed, cascade.invalidated), (5, 1));
    assert!(starting.is_invalidated());
    assert_eq!(ready(&registry), [false; 6]);
}
