//! Start-only dependencies and soft dependencies.
//!
//! - A failure of a start-only dependency invalidates the attempt, and does not affect the service
//!   after the publication.
//! - The stronger kind counts: an edge stays if the same attempt also waits for the dependency, or
//!   if the edge is declared.
//! - A failure does not travel along a soft edge. A watch reports failures, replacements and the
//!   return to ready, at least the last of them. It ends with the generation that watches, and
//!   with the registry.
//! - Soft edges are discovered and dropped as others are, and count for cycles. They block no
//!   service.
//! - The listing and its graph show the kind.

use std::{sync::mpsc, thread, time::Duration};

use crate::support::{LONG, registry_of, up};
use mainstay::{
    Attempt, DependencyKind, Phase, Provider, Registry, ServiceId, Watch, WatchEvent,
    error::{DependencyError, WaitForError, WatchError, chain},
};

fn three() -> (Registry, [ServiceId<u32>; 3]) {
    registry_of(["a", "b", "c"])
}

fn attempt(provider: &Provider<u32>) -> Attempt<u32> {
    provider.begin().wait_blocking_timeout(LONG).unwrap()
}

/// The dependencies of the service, with their kinds.
fn kinds(registry: &Registry, id: ServiceId<u32>) -> Vec<(String, DependencyKind)> {
    let edges = registry.status(id).unwrap().dependencies;
    let mut kinds: Vec<_> = edges.iter().map(|e| (e.name.to_string(), e.kind)).collect();
    kinds.sort_by_key(|(name, kind)| (name.clone(), kind.to_string()));
    kinds
}

fn is_up(registry: &Registry, id: ServiceId<u32>) -> bool {
    registry.get(id).is_ok()
}

/// What a watch reports.
#[derive(Debug, PartialEq)]
enum Observed {
    Ready(u32),
    Replaced(u32),
    Failed(String),
    Ended(String),
    Closed,
    Nothing,
}

fn observe(watch: &mut Watch<u32>) -> Observed {
    match watch.changed().wait_blocking_timeout(Duration::ZERO) {
        Ok(WatchEvent::Ready(value)) => Observed::Ready(**value),
        Ok(WatchEvent::Replaced(value)) => Observed::Replaced(**value),
        Ok(WatchEvent::Failed(failure)) => Observed::Failed(chain(&failure).to_string()),
        Err(WatchError::DependentFailed(failure)) => Observed::Ended(chain(&failure).to_string()),
        Err(WatchError::Closed { .. }) => Observed::Closed,
        Err(WatchError::TimedOut { .. }) => Observed::Nothing,
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn a_failure_of_a_start_only_dependency_does_not_affect_the_published_service() {
    let (registry, [a, b, _]) = three();
    let (provide_a, provide_b) = (registry.provide(a).unwrap(), registry.provide(b).unwrap());
    for round in 0..3 {
        let a_runs = attempt(&provide_a).ready(round).unwrap();
        let starting = attempt(&provide_b);
        assert_eq!(**starting.wait_to_start(a).wait_blocking_timeout(LONG).unwrap(), round);
        assert_eq!(kinds(&registry, b), [("a".into(), DependencyKind::StartOnly)]);
        let b_runs = starting.ready(round).unwrap();
        assert_eq!(kinds(&registry, b), []);
        a_runs.fail("after the publication");
        assert!(is_up(&registry, b));
        b_runs.fail("its own");
    }
}

#[test]
fn a_failure_of_a_start_only_dependency_invalidates_the_attempt() {
    let (registry, [a, b, _]) = three();
    let (provide_a, provide_b) = (registry.provide(a).unwrap(), registry.provide(b).unwrap());
    let a_runs = attempt(&provide_a).ready(1).unwrap();
    let starting = attempt(&provide_b);
    starting.wait_to_start(a).wait_blocking_timeout(LONG).unwrap();
    a_runs.fail("too early");
    assert!(starting.is_invalidated());
    match starting.wait_to_start(a).wait_blocking_timeout(LONG) {
        Err(WaitForError::Invalidated(failure)) => {
            assert_eq!(chain(&failure).to_string(), "b failed because a failed: too early");
        }
        other => panic!("{other:?}"),
    }
    assert!(starting.ready(1).is_err());

    // The wait is counted and blocks as any other.
    let starting = attempt(&provide_b);
    let waited = starting.wait_to_start(a).wait_blocking_timeout(Duration::ZERO);
    assert!(matches!(waited, Err(WaitForError::TimedOut { .. })));
    assert_eq!(registry.status(b).unwrap().blocked_by, ["a"]);
}

#[test]
fn a_dependency_of_both_kinds_is_hard_until_a_publication_uses_it_to_start_only() {
    for order in 0..2 {
        let (registry, [a, b, _]) = three();
        let (provide_a, provide_b) = (registry.provide(a).unwrap(), registry.provide(b).unwrap());
        let a_runs = attempt(&provide_a).ready(1).unwrap();
        let starting = attempt(&provide_b);
        for kind in [order, 1 - order] {
            match kind {
                0 => drop(starting.wait_for(a).wait_blocking_timeout(LONG).unwrap()),
                _ => drop(starting.wait_to_start(a).wait_blocking_timeout(LONG).unwrap()),
            }
        }
        let _b_runs = starting.ready(1).unwrap();
        assert_eq!(kinds(&registry, b), [("a".into(), DependencyKind::Hard)]);
        a_runs.fail("needed");
        assert!(!is_up(&registry, b));

        // The next attempt uses it to start only.
        let _a_runs = attempt(&provide_a).ready(2).unwrap();
        let starting = attempt(&provide_b);
        starting.wait_to_start(a).wait_blocking_timeout(LONG).unwrap();
        assert_eq!(kinds(&registry, b), [("a".into(), DependencyKind::StartOnly)]);
        let _b_runs = starting.ready(2).unwrap();
        registry.fail(a, "not needed").unwrap();
        assert!(is_up(&registry, b));
    }
}

#[test]
fn a_declared_edge_stays_hard_if_the_attempt_uses_it_to_start_only() {
    let (registry, [a, b, _]) = three();
    registry.depends(b).on(a).unwrap();
    let (provide_a, provide_b) = (registry.provide(a).unwrap(), registry.provide(b).unwrap());
    let a_runs = attempt(&provide_a).ready(1).unwrap();
    let starting = attempt(&provide_b);
    starting.wait_to_start(a).wait_blocking_timeout(LONG).unwrap();
    let _b_runs = starting.ready(1).unwrap();
    assert_eq!(kinds(&registry, b), [("a".into(), DependencyKind::Hard)]);
    a_runs.fail("declared");
    assert!(!is_up(&registry, b));
}

#[test]
fn the_start_only_and_soft_edges_of_a_failed_attempt_are_dropped_by_the_next_publication() {
    let (registry, [a, b, c]) = three();
    let (_pa, _a_runs) = up(&registry, a, 1);
    let provide_b = registry.provide(b).unwrap();
    let starting = attempt(&provide_b);
    starting.wait_to_start(a).wait_blocking_timeout(LONG).unwrap();
    let _watch = starting.watch(c).unwrap();
    starting.fail("not yet").unwrap();
    assert_eq!(kinds(&registry, b).len(), 2, "edges are kept until the publication");
    let _b_runs = attempt(&provide_b).ready(1).unwrap();
    assert_eq!(kinds(&registry, b), []);
}

#[test]
fn a_watch_reports_every_kind_of_change_and_its_service_stays_ready() {
    let (registry, [a, b, c]) = three();
    let (provide_a, provide_b) = (registry.provide(a).unwrap(), registry.provide(b).unwrap());
    let starting = attempt(&provide_b);
    let mut watch = starting.watch(a).unwrap();
    assert_eq!(watch.id(), a);
    assert_eq!(observe(&mut watch), Observed::Nothing);
    let b_runs = starting.ready(1).unwrap();
    let (_pc, _c_runs) = {
        let provide_c = registry.provide(c).unwrap();
        let starting = attempt(&provide_c);
        starting.wait_for(b).wait_blocking_timeout(LONG).unwrap();
        let running = starting.ready(1).unwrap();
        (provide_c, running)
    };
    assert_eq!(kinds(&registry, b), [("a".into(), DependencyKind::Soft)]);
    let status = registry.status(a).unwrap();
    assert!(status.dependents.is_empty());
    assert_eq!(status.watched_by, ["b"]);

    let a_runs = attempt(&provide_a).ready(1).unwrap();
    assert_eq!(observe(&mut watch), Observed::Ready(1));
    assert_eq!(observe(&mut watch), Observed::Nothing);
    a_runs.replace(2).unwrap();
    assert_eq!(observe(&mut watch), Observed::Replaced(2));
    a_runs.replace(3).unwrap();
    a_runs.replace(4).unwrap();
    assert_eq!(observe(&mut watch), Observed::Replaced(4));
    assert_eq!(registry.fail(a, "gone").unwrap().failed, 1);
    assert_eq!(observe(&mut watch), Observed::Failed("a failed: gone".into()));
    assert_eq!(observe(&mut watch), Observed::Nothing);
    assert!(is_up(&registry, b) && is_up(&registry, c));

    // A change that is over before the next poll is not reported. The current state is.
    drop(attempt(&provide_a).ready(5).unwrap());
    assert_eq!(observe(&mut watch), Observed::Nothing);
    let a_runs = attempt(&provide_a).ready(6).unwrap();
    assert_eq!(observe(&mut watch), Observed::Ready(6));
    a_runs.fail("for a moment");
    let _a_runs = attempt(&provide_a).ready(7).unwrap();
    assert_eq!(observe(&mut watch), Observed::Ready(7));

    b_runs.fail("its own");
    assert_eq!(observe(&mut watch), Observed::Ended("b failed: its own".into()));
}

#[test]
fn a_blocked_watch_is_woken_by_every_kind_of_change() {
    // The watch and its service are not the first two slots, so that a wait on a wrong slot shows.
    let (registry, [_, a, b]) = three();
    let provide_a = registry.provide(a).unwrap();
    let (sender, changes) = mpsc::channel();
    let provide_b = registry.provide(b).unwrap();
    let starting = attempt(&provide_b);
    let mut watch = starting.watch(a).unwrap();
    let b_runs = starting.ready(1).unwrap();
    let watcher = thread::spawn(move || {
        loop {
            let observed = match watch.changed().wait_blocking() {
                Ok(WatchEvent::Ready(value)) => Observed::Ready(**value),
                Ok(WatchEvent::Replaced(value)) => Observed::Replaced(**value),
                Ok(WatchEvent::Failed(failure)) => Observed::Failed(chain(&failure).to_string()),
                Err(WatchError::DependentFailed(failure)) => return chain(&failure).to_string(),
                Err(other) => panic!("{other}"),
            };
            sender.send(observed).unwrap();
        }
    });
    let next = || changes.recv_timeout(LONG).unwrap();
    let a_runs = attempt(&provide_a).ready(1).unwrap();
    assert_eq!(next(), Observed::Ready(1));
    a_runs.replace(2).unwrap();
    assert_eq!(next(), Observed::Replaced(2));
    a_runs.fail("gone");
    assert_eq!(next(), Observed::Failed("b failed: gone".into()));
    b_runs.fail("its own");
    assert_eq!(watcher.join().unwrap(), "c failed: its own");
}

#[test]
fn a_watch_of_the_registry_ends_when_the_registry_is_closed() {
    let (registry, [a, b, _]) = three();
    let (_provider, _running) = up(&registry, a, 1);
    let mut watch = registry.watch(a).unwrap();
    assert!(registry.status(a).unwrap().watched_by.is_empty());
    registry.close();
    assert_eq!(observe(&mut watch), Observed::Ready(1), "a pending change comes before the close");
    assert_eq!(observe(&mut watch), Observed::Closed);
    assert_eq!(observe(&mut registry.watch(b).unwrap()), Observed::Closed);
    let (other, [foreign, ..]) = three();
    assert!(registry.watch(foreign).is_err());
    drop(other);
}

#[cfg(feature = "supervise")]
#[test]
fn a_watch_holds_no_value() {
    let (registry, [a, ..]) = three();
    let (_provider, running) = up(&registry, a, 1);
    let mut watch = registry.watch(a).unwrap();
    assert_eq!(observe(&mut watch), Observed::Ready(1));
    registry.fail(a, "gone").unwrap();
    running.drained().wait_blocking_timeout(LONG).unwrap();
    assert_eq!(running.holders(), 0);
}

#[test]
fn soft_edges_count_for_cycles_and_are_dropped_as_others_are() {
    let (registry, [a, b, c]) = three();
    let [pa, pb, pc] = [a, b, c].map(|id| registry.provide(id).unwrap());
    let starting = attempt(&pa);
    let _watch = starting.watch(b).unwrap();
    let a_runs = starting.ready(1).unwrap();
    let starting = attempt(&pb);
    match starting.wait_for(a).wait_blocking_timeout(LONG) {
        Err(WaitForError::Cycle(cycle)) => assert_eq!(cycle.path, ["b", "a", "b"]),
        other => panic!("{other:?}"),
    }
    match starting.watch(a) {
        Err(DependencyError::Cycle(cycle)) => assert_eq!(cycle.path, ["b", "a", "b"]),
        other => panic!("{other:?}"),
    }
    assert!(starting.watch(b).is_err(), "a service watches itself");

    // After the generation that watched has ended, its edge closes no cycle.
    a_runs.fail("over");
    starting.watch(a).unwrap();
    let _b_runs = starting.ready(1).unwrap();
    assert_eq!(kinds(&registry, a), []);
    assert_eq!(kinds(&registry, b), [("a".into(), DependencyKind::Soft)]);

    // A publication drops an edge that it does not use. A hard and a soft edge may exist at once.
    registry.fail(b, "again").unwrap();
    let (_a_runs, _c_runs) = (attempt(&pa).ready(1).unwrap(), attempt(&pc).ready(1).unwrap());
    let starting = attempt(&pb);
    let _watch = starting.watch(c).unwrap();
    starting.wait_for(c).wait_blocking_timeout(LONG).unwrap();
    let _b_runs = starting.ready(2).unwrap();
    let both = [("c".into(), DependencyKind::Hard), ("c".into(), DependencyKind::Soft)];
    assert_eq!(kinds(&registry, b), both);
    registry.fail(c, "hard").unwrap();
    assert!(!is_up(&registry, b));
}

#[test]
fn listing_and_graph_show_the_kind_of_a_dependency() {
    let (registry, [a, b, c]) = three();
    let provide_c = registry.provide(c).unwrap();
    let starting = attempt(&provide_c);
    let _watch = starting.watch(a).unwrap();
    let waited = starting.wait_to_start(b).wait_blocking_timeout(Duration::ZERO);
    assert!(waited.is_err());

    let listing = registry.list();
    assert_eq!(listing.get("c").unwrap().phase, Phase::Starting);
    // `a` is down too, and blocks no service.
    assert_eq!(listing.get("c").unwrap().blocked_by, ["b"]);
    let blockers: Vec<_> = listing.blockers("c").iter().map(|status| &*status.name).collect();
    assert_eq!(blockers, ["b"]);
    let dot = listing.to_dot();
    assert!(dot.contains(r#""c" -> "a" [style=dotted];"#), "{dot}");
    assert!(dot.contains(r#""c" -> "b" [style=dashed, label="to start"];"#), "{dot}");
}
