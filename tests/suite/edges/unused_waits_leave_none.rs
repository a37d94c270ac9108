//! Edges of waits that have returned no instance.
//!
//! - A wait that was dropped or has timed out leaves no edge after the publication: the dependency
//!   may become ready and fail, and the service stays ready. The same holds for start-only waits.
//! - A wait that was never polled adds no edge.
//! - An edge over which a wait of the same attempt has returned an instance stays, whatever the
//!   other waits returned, before or after it. If only `wait_to_start` has returned one, it does
//!   not.
//! - A soft edge and a declared edge stay.
//! - An edge that the previous instance used is removed if the wait of this attempt was dropped.
//! - Until the publication the edge exists: it counts for cycles, and a failure invalidates the
//!   attempt.

use std::time::Duration;

use crate::support::{LONG, poll_once, publish, publish_from, registry_of};
use mainstay::{Attempt, DependencyKind, Provider, Registry, ServiceId, error::WaitForError};

/// A dependency and a service, and their providers.
struct Pair {
    registry: Registry,
    dep: ServiceId<u32>,
    app: ServiceId<u32>,
    provide_dep: Provider<u32>,
    provide_app: Provider<u32>,
}

fn pair() -> Pair {
    let (registry, [dep, app]) = registry_of(["dep", "app"]);
    let (provide_dep, provide_app) =
        (registry.provide(dep).unwrap(), registry.provide(app).unwrap());
    Pair { registry, dep, app, provide_dep, provide_app }
}

impl Pair {
    fn attempt(&self) -> Attempt<u32> {
        self.provide_app.begin().wait_blocking_timeout(LONG).unwrap()
    }

    /// The kinds of the edges from `app` to `dep`.
    fn kinds(&self) -> Vec<DependencyKind> {
        let edges = self.registry.status(self.app).unwrap().dependencies;
        edges.iter().map(|edge| edge.kind).collect()
    }

    /// Whether a failure of the dependency, which becomes ready first, fails the service.
    fn fails_with_dependency(&self) -> bool {
        assert!(self.registry.get(self.app).is_ok());
        publish(&self.provide_dep, 1).fail("gone");
        self.registry.get(self.app).is_err()
    }
}

/// Waits that return no instance.
type Wait = (&'static str, fn(&Attempt<u32>, ServiceId<u32>));

const IN_VAIN: [Wait; 6] = [
    ("a timeout", |attempt, dep| {
        let wait = attempt.wait_for(dep).wait_blocking_timeout(Duration::ZERO);
        assert!(matches!(wait, Err(WaitForError::TimedOut { .. })));
    }),
    ("a timeout to start", |attempt, dep| {
        let wait = attempt.wait_to_start(dep).wait_blocking_timeout(Duration::ZERO);
        assert!(matches!(wait, Err(WaitForError::TimedOut { .. })));
    }),
    ("a poll", |attempt, dep| assert!(poll_once(&mut attempt.wait_for(dep)).is_pending())),
    ("a poll to start", |attempt, dep| {
        assert!(poll_once(&mut attempt.wait_to_start(dep)).is_pending());
    }),
    ("several polls", |attempt, dep| {
        let (mut one, mut two) = (attempt.wait_for(dep), attempt.wait_to_start(dep));
        for _ in 0..2 {
            assert!(poll_once(&mut one).is_pending() && poll_once(&mut two).is_pending());
        }
    }),
    ("no poll", |attempt, dep| drop((attempt.wait_for(dep), attempt.wait_to_start(dep)))),
];

#[test]
fn a_wait_in_vain_leaves_no_edge_after_the_publication() {
    for (what, wait) in IN_VAIN {
        let pair = pair();
        let attempt = pair.attempt();
        wait(&attempt, pair.dep);
        let _app = attempt.ready(1).unwrap();
        assert_eq!(pair.kinds(), [], "{what}");
        assert!(!pair.fails_with_dependency(), "{what}");
        assert_eq!(pair.kinds(), [], "{what}");
    }
}

#[test]
fn an_edge_that_has_returned_an_instance_stays_after_a_wait_in_vain() {
    for (what, wait) in IN_VAIN {
        let pair = pair();
        let attempt = pair.attempt();
        wait(&attempt, pair.dep);
        let dep = publish(&pair.provide_dep, 1);
        attempt.wait_for(pair.dep).wait_blocking_timeout(LONG).unwrap();
        let _app = attempt.ready(1).unwrap();
        assert_eq!(pair.kinds(), [DependencyKind::Hard], "{what}");
        dep.fail("gone");
        assert!(pair.registry.get(pair.app).is_err(), "{what}");
    }
}

/// A wait after it can be in vain only if it is not polled: the dependency is ready, or its failure
/// invalidates the attempt.
#[test]
fn a_wait_that_is_dropped_after_an_instance_was_returned_keeps_the_edge() {
    let pair = pair();
    let dep = publish(&pair.provide_dep, 1);
    let attempt = pair.attempt();
    attempt.wait_for(pair.dep).wait_blocking_timeout(LONG).unwrap();
    drop((attempt.wait_for(pair.dep), attempt.wait_to_start(pair.dep)));
    assert!(poll_once(&mut attempt.wait_to_start(pair.dep)).is_ready());
    let _app = attempt.ready(1).unwrap();
    assert_eq!(pair.kinds(), [DependencyKind::Hard]);
    dep.fail("gone");
    assert!(pair.registry.get(pair.app).is_err());
}

#[test]
fn a_start_only_instance_and_a_hard_wait_in_vain_leave_no_edge() {
    let pair = pair();
    let attempt = pair.attempt();
    assert!(poll_once(&mut attempt.wait_for(pair.dep)).is_pending());
    let dep = publish(&pair.provide_dep, 1);
    attempt.wait_to_start(pair.dep).wait_blocking_timeout(LONG).unwrap();
    let _app = attempt.ready(1).unwrap();
    assert_eq!(pair.kinds(), []);
    dep.fail("gone");
    assert!(pair.registry.get(pair.app).is_ok(), "it was built from `dep` only to start");
}

#[test]
fn a_soft_edge_stays_although_a_wait_in_vain_used_the_same_dependency() {
    let pair = pair();
    let attempt = pair.attempt();
    assert!(poll_once(&mut attempt.wait_for(pair.dep)).is_pending());
    let mut watch = attempt.watch(pair.dep).unwrap();
    let _app = attempt.ready(1).unwrap();
    assert_eq!(pair.kinds(), [DependencyKind::Soft]);
    assert!(!pair.fails_with_dependency());
    assert!(watch.changed().wait_blocking_timeout(Duration::ZERO).is_err(), "up and down again");
    let _dep = publish(&pair.provide_dep, 2);
    assert!(watch.changed().wait_blocking_timeout(LONG).is_ok());
}

#[test]
fn a_declared_edge_stays_although_the_wait_was_in_vain() {
    for declared_before in [true, false] {
        let pair = pair();
        let declare = || pair.registry.depends(pair.app).on(pair.dep).map(drop).unwrap();
        if declared_before {
            declare();
        }
        let attempt = pair.attempt();
        assert!(poll_once(&mut attempt.wait_for(pair.dep)).is_pending());
        if !declared_before {
            declare();
        }
        let _app = attempt.ready(1).unwrap();
        assert_eq!(pair.kinds(), [DependencyKind::Hard]);
        assert!(pair.fails_with_dependency());
    }
}

#[test]
fn an_edge_of_the_previous_instance_is_removed_after_a_wait_in_vain() {
    for (what, wait) in IN_VAIN {
        let pair = pair();
        let dep = publish(&pair.provide_dep, 1);
        let app = publish_from(&pair.provide_app, pair.dep, 1);
        dep.fail("gone");
        drop(app);
        let attempt = pair.attempt();
        wait(&attempt, pair.dep);
        let _app = attempt.ready(2).unwrap();
        assert_eq!(pair.kinds(), [], "{what}");
        assert!(!pair.fails_with_dependency(), "{what}");
    }
}

#[test]
fn the_edge_of_a_wait_in_vain_exists_until_the_publication() {
    let pair = pair();
    let attempt = pair.attempt();
    assert!(poll_once(&mut attempt.wait_for(pair.dep)).is_pending());
    assert_eq!(pair.kinds(), [DependencyKind::Hard]);
    let other = pair.provide_dep.begin().wait_blocking_timeout(LONG).unwrap();
    let refused = other.wait_for(pair.app).wait_blocking_timeout(Duration::ZERO);
    assert!(matches!(refused, Err(WaitForError::Cycle(_))));
    other.ready(1).unwrap().fail("gone");
    assert!(attempt.is_invalidated(), "the attempt may have used what it waits for");
    assert!(attempt.ready(1).is_err());

    // After a publication without the edge, the dependency may use the service.
    let attempt = pair.attempt();
    assert!(poll_once(&mut attempt.wait_for(pair.dep)).is_pending());
    let _app = attempt.ready(2).unwrap();
    let _dep = publish_from(&pair.provide_dep, pair.app, 2);
    assert!(pair.registry.get(pair.dep).is_ok());
}

/// Takes the first of two dependencies that is ready, as `select!` does.
#[test]
fn either_of_two_dependencies_fails_the_service_only_if_it_was_used() {
    let (registry, [one, two, app]) = registry_of::<u32, 3>(["one", "two", "app"]);
    let [provide_one, provide_two, provide_app] =
        [one, two, app].map(|id| registry.provide(id).unwrap());
    let attempt = provide_app.begin().wait_blocking_timeout(LONG).unwrap();
    let (mut first, mut second) = (attempt.wait_for(one), attempt.wait_for(two));
    assert!(poll_once(&mut first).is_pending() && poll_once(&mut second).is_pending());
    let running_two = publish(&provide_two, 2);
    assert!(poll_once(&mut first).is_pending() && poll_once(&mut second).is_ready());
    drop((first, second));
    let _app = attempt.ready(3).unwrap();
    publish(&provide_one, 1).fail("not used");
    assert!(registry.get(app).is_ok());
    running_two.fail("used");
    assert!(registry.get(app).is_err());
}
