//! Dependencies that are needed to start only, and soft ones.
//!
//! - What is needed to start overtakes the attempt when it fails, and is of no matter once that is published.
//! - The stronger use counts: what the same attempt also waits for, or what is declared, stays.
//! - A failure does not travel a soft edge. Whoever watches is told of failures, of replacements, and when it is back;
//!   of the last of them at least. The watch ends with the generation that watches, and when the registry is closed.
//! - Soft edges are discovered and dropped as others are, and count for cycles. They block nobody.
//! - The listing and its graph show the kind.

mod support;

use std::{sync::mpsc, thread, time::Duration};

use mainstay::{
    Attempt, Change, DependencyError, DependencyKind, Phase, Provider, Registry, ServiceId,
    WaitForError, Watch, WatchError,
};
use support::{LONG, up};

fn three() -> (Registry, [ServiceId<u32>; 3]) {
    let registry = Registry::with_capacity(3).unwrap();
    let ids = ["a", "b", "c"].map(|name| registry.register(name).unwrap());
    (registry, ids)
}

fn attempt(provider: &Provider<u32>) -> Attempt<u32> {
    provider.begin().wait_timeout(LONG).unwrap()
}

/// What it depends on, and how.
fn kinds(registry: &Registry, id: ServiceId<u32>) -> Vec<(String, DependencyKind)> {
    let edges = registry.status(id).unwrap().dependencies;
    let mut kinds: Vec<_> = edges.iter().map(|e| (e.name.to_string(), e.kind)).collect();
    kinds.sort_by_key(|(name, kind)| (name.clone(), kind.to_string()));
    kinds
}

fn is_up(registry: &Registry, id: ServiceId<u32>) -> bool {
    registry.get(id).is_ok()
}

#[derive(Debug, PartialEq)]
enum Told {
    Ready(u32),
    Replaced(u32),
    Failed(String),
    Over(String),
    Closed,
    Nothing,
}

fn told(watch: &mut Watch<u32>) -> Told {
    match watch.changed().wait_timeout(Duration::ZERO) {
        Ok(Change::Ready(value)) => Told::Ready(**value),
        Ok(Change::Replaced(value)) => Told::Replaced(**value),
        Ok(Change::Failed(failure)) => Told::Failed(failure.to_string()),
        Err(WatchError::Over(failure)) => Told::Over(failure.to_string()),
        Err(WatchError::Closed { .. }) => Told::Closed,
        Err(WatchError::TimedOut { .. }) => Told::Nothing,
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn what_was_needed_to_start_is_of_no_matter_later() {
    let (registry, [a, b, _]) = three();
    let (provide_a, provide_b) = (registry.provide(a).unwrap(), registry.provide(b).unwrap());
    for round in 0..3 {
        let a_runs = attempt(&provide_a).ready(round).unwrap();
        let starting = attempt(&provide_b);
        assert_eq!(**starting.wait_to_start(a).wait_timeout(LONG).unwrap(), round);
        assert_eq!(kinds(&registry, b), [("a".into(), DependencyKind::StartOnly)]);
        let b_runs = starting.ready(round).unwrap();
        assert_eq!(kinds(&registry, b), []);
        a_runs.fail("of no matter");
        assert!(is_up(&registry, b));
        b_runs.fail("its own");
    }
}

#[test]
fn what_is_needed_to_start_overtakes() {
    let (registry, [a, b, _]) = three();
    let (provide_a, provide_b) = (registry.provide(a).unwrap(), registry.provide(b).unwrap());
    let a_runs = attempt(&provide_a).ready(1).unwrap();
    let starting = attempt(&provide_b);
    starting.wait_to_start(a).wait_timeout(LONG).unwrap();
    a_runs.fail("too early");
    assert!(starting.is_overtaken());
    match starting.wait_to_start(a).wait_timeout(LONG) {
        Err(WaitForError::Overtaken(failure)) => {
            assert_eq!(failure.to_string(), "b went down with a: too early");
        }
        other => panic!("{other:?}"),
    }
    assert!(starting.ready(1).is_err());

    // It waits as any other.
    let starting = attempt(&provide_b);
    let waited = starting.wait_to_start(a).wait_timeout(Duration::ZERO);
    assert!(matches!(waited, Err(WaitForError::TimedOut { .. })));
    assert_eq!(registry.status(b).unwrap().blocked_by, ["a"]);
}

#[test]
fn what_is_needed_for_good_stays() {
    for order in 0..2 {
        let (registry, [a, b, _]) = three();
        let (provide_a, provide_b) = (registry.provide(a).unwrap(), registry.provide(b).unwrap());
        let a_runs = attempt(&provide_a).ready(1).unwrap();
        let starting = attempt(&provide_b);
        for use_ in [order, 1 - order] {
            match use_ {
                0 => drop(starting.wait_for(a).wait_timeout(LONG).unwrap()),
                _ => drop(starting.wait_to_start(a).wait_timeout(LONG).unwrap()),
            }
        }
        let _b_runs = starting.ready(1).unwrap();
        assert_eq!(kinds(&registry, b), [("a".into(), DependencyKind::Hard)]);
        a_runs.fail("needed");
        assert!(!is_up(&registry, b));

        // By the next one it is needed to start only.
        let _a_runs = attempt(&provide_a).ready(2).unwrap();
        let starting = attempt(&provide_b);
        starting.wait_to_start(a).wait_timeout(LONG).unwrap();
        assert_eq!(kinds(&registry, b), [("a".into(), DependencyKind::StartOnly)]);
        let _b_runs = starting.ready(2).unwrap();
        registry.fail(a, "not needed").unwrap();
        assert!(is_up(&registry, b));
    }
}

#[test]
fn what_is_declared_stays() {
    let (registry, [a, b, _]) = three();
    registry.add_dependency(b, a).unwrap();
    let (provide_a, provide_b) = (registry.provide(a).unwrap(), registry.provide(b).unwrap());
    let a_runs = attempt(&provide_a).ready(1).unwrap();
    let starting = attempt(&provide_b);
    starting.wait_to_start(a).wait_timeout(LONG).unwrap();
    let _b_runs = starting.ready(1).unwrap();
    assert_eq!(kinds(&registry, b), [("a".into(), DependencyKind::Hard)]);
    a_runs.fail("declared");
    assert!(!is_up(&registry, b));
}

#[test]
fn what_an_attempt_given_up_needed_is_not_needed_by_the_next_in_its_generation() {
    let (registry, [a, b, c]) = three();
    let (_pa, _a_runs) = up(&registry, a, 1);
    let provide_b = registry.provide(b).unwrap();
    let starting = attempt(&provide_b);
    starting.wait_to_start(a).wait_timeout(LONG).unwrap();
    let _watch = starting.watch(c).unwrap();
    starting.fail("not yet").unwrap();
    assert_eq!(kinds(&registry, b).len(), 2, "kept until it publishes");
    let _b_runs = attempt(&provide_b).ready(1).unwrap();
    assert_eq!(kinds(&registry, b), []);
}

#[test]
fn who_watches_is_told_and_stays_up() {
    let (registry, [a, b, c]) = three();
    let (provide_a, provide_b) = (registry.provide(a).unwrap(), registry.provide(b).unwrap());
    let starting = attempt(&provide_b);
    let mut watch = starting.watch(a).unwrap();
    assert_eq!(watch.id(), a);
    assert_eq!(told(&mut watch), Told::Nothing);
    let b_runs = starting.ready(1).unwrap();
    let (_pc, _c_runs) = {
        let provide_c = registry.provide(c).unwrap();
        let starting = attempt(&provide_c);
        starting.wait_for(b).wait_timeout(LONG).unwrap();
        let running = starting.ready(1).unwrap();
        (provide_c, running)
    };
    assert_eq!(kinds(&registry, b), [("a".into(), DependencyKind::Soft)]);
    let status = registry.status(a).unwrap();
    assert!(status.dependents.is_empty());
    assert_eq!(status.watched_by, ["b"]);

    let a_runs = attempt(&provide_a).ready(1).unwrap();
    assert_eq!(told(&mut watch), Told::Ready(1));
    assert_eq!(told(&mut watch), Told::Nothing);
    a_runs.replace(2).unwrap();
    assert_eq!(told(&mut watch), Told::Replaced(2));
    a_runs.replace(3).unwrap();
    a_runs.replace(4).unwrap();
    assert_eq!(told(&mut watch), Told::Replaced(4));
    assert_eq!(registry.fail(a, "gone").unwrap().went_down, 1);
    assert_eq!(told(&mut watch), Told::Failed("a failed: gone".into()));
    assert_eq!(told(&mut watch), Told::Nothing);
    assert!(is_up(&registry, b) && is_up(&registry, c));

    // What comes and goes unseen is not told; what is there is.
    drop(attempt(&provide_a).ready(5).unwrap());
    assert_eq!(told(&mut watch), Told::Nothing);
    let a_runs = attempt(&provide_a).ready(6).unwrap();
    assert_eq!(told(&mut watch), Told::Ready(6));
    a_runs.fail("for a moment");
    let _a_runs = attempt(&provide_a).ready(7).unwrap();
    assert_eq!(told(&mut watch), Told::Ready(7));

    b_runs.fail("its own");
    assert_eq!(told(&mut watch), Told::Over("b failed: its own".into()));
}

#[test]
fn who_watches_is_woken() {
    // Not the first two of the registry, to which a wait could stray.
    let (registry, [_, a, b]) = three();
    let provide_a = registry.provide(a).unwrap();
    let (sender, tells) = mpsc::channel();
    let provide_b = registry.provide(b).unwrap();
    let starting = attempt(&provide_b);
    let mut watch = starting.watch(a).unwrap();
    let b_runs = starting.ready(1).unwrap();
    let watcher = thread::spawn(move || {
        loop {
            let told = match watch.changed().wait() {
                Ok(Change::Ready(value)) => Told::Ready(**value),
                Ok(Change::Replaced(value)) => Told::Replaced(**value),
                Ok(Change::Failed(failure)) => Told::Failed(failure.to_string()),
                Err(WatchError::Over(failure)) => return failure.to_string(),
                Err(other) => panic!("{other}"),
            };
            sender.send(told).unwrap();
        }
    });
    let next = || tells.recv_timeout(LONG).unwrap();
    let a_runs = attempt(&provide_a).ready(1).unwrap();
    assert_eq!(next(), Told::Ready(1));
    a_runs.replace(2).unwrap();
    assert_eq!(next(), Told::Replaced(2));
    a_runs.fail("gone");
    assert_eq!(next(), Told::Failed("b failed: gone".into()));
    b_runs.fail("its own");
    assert_eq!(watcher.join().unwrap(), "c failed: its own");
}

#[test]
fn a_watch_without_a_service_ends_with_the_registry() {
    let (registry, [a, b, _]) = three();
    let (_provider, _running) = up(&registry, a, 1);
    let mut watch = registry.watch(a).unwrap();
    assert!(registry.status(a).unwrap().watched_by.is_empty());
    registry.close();
    assert_eq!(told(&mut watch), Told::Ready(1), "what is to be told comes first");
    assert_eq!(told(&mut watch), Told::Closed);
    assert_eq!(told(&mut registry.watch(b).unwrap()), Told::Closed);
    let (other, [foreign, ..]) = three();
    assert!(registry.watch(foreign).is_err());
    drop(other);
}

#[test]
fn a_watch_keeps_no_value() {
    let (registry, [a, ..]) = three();
    let (_provider, running) = up(&registry, a, 1);
    let mut watch = registry.watch(a).unwrap();
    assert_eq!(told(&mut watch), Told::Ready(1));
    registry.fail(a, "gone").unwrap();
    running.drained().wait_timeout(LONG).unwrap();
    assert_eq!(running.holders(), 0);
}

#[test]
fn soft_edges_count_for_cycles_and_give_way_as_others_do() {
    let (registry, [a, b, c]) = three();
    let [pa, pb, pc] = [a, b, c].map(|id| registry.provide(id).unwrap());
    let starting = attempt(&pa);
    let _watch = starting.watch(b).unwrap();
    let a_runs = starting.ready(1).unwrap();
    let starting = attempt(&pb);
    match starting.wait_for(a).wait_timeout(LONG) {
        Err(WaitForError::Cycle(cycle)) => assert_eq!(cycle.path, ["b", "a", "b"]),
        other => panic!("{other:?}"),
    }
    match starting.watch(a) {
        Err(DependencyError::Cycle(cycle)) => assert_eq!(cycle.path, ["b", "a", "b"]),
        other => panic!("{other:?}"),
    }
    assert!(starting.watch(b).is_err(), "itself");

    // Once the one who watched is over, it closes no circle any more.
    a_runs.fail("over");
    starting.watch(a).unwrap();
    let _b_runs = starting.ready(1).unwrap();
    assert_eq!(kinds(&registry, a), []);
    assert_eq!(kinds(&registry, b), [("a".into(), DependencyKind::Soft)]);

    // The next publication without it drops it; both kinds may be there at once.
    registry.fail(b, "again").unwrap();
    let (_a_runs, _c_runs) = (attempt(&pa).ready(1).unwrap(), attempt(&pc).ready(1).unwrap());
    let starting = attempt(&pb);
    let _watch = starting.watch(c).unwrap();
    starting.wait_for(c).wait_timeout(LONG).unwrap();
    let _b_runs = starting.ready(2).unwrap();
    let both = [("c".into(), DependencyKind::Hard), ("c".into(), DependencyKind::Soft)];
    assert_eq!(kinds(&registry, b), both);
    registry.fail(c, "hard").unwrap();
    assert!(!is_up(&registry, b));
}

#[test]
fn a_listing_shows_the_kind() {
    let (registry, [a, b, c]) = three();
    let provide_c = registry.provide(c).unwrap();
    let starting = attempt(&provide_c);
    let _watch = starting.watch(a).unwrap();
    let waited = starting.wait_to_start(b).wait_timeout(Duration::ZERO);
    assert!(waited.is_err());

    let listing = registry.list();
    assert_eq!(listing.get("c").unwrap().phase, Phase::Starting);
    // `a` is down, too, and keeps nobody.
    assert_eq!(listing.get("c").unwrap().blocked_by, ["b"]);
    let blockers: Vec<_> = listing.blockers("c").iter().map(|status| &*status.name).collect();
    assert_eq!(blockers, ["b"]);
    let dot = listing.to_dot();
    assert!(dot.contains(r#""a" -> "c" [style=dotted];"#), "{dot}");
    assert!(dot.contains(r#""b" -> "c" [style=dashed, label="to start"];"#), "{dot}");
}
