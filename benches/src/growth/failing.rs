//! Cascades, and changes of edges between them.

use super::{
    Operation, counted,
    graphs::{
        Edge,
        Order::{self, DependenciesFirst, DependentsFirst, Random},
        chain, hub, layered,
    },
    services::{ANSWER, Services},
};

/// More services than those for which a registry computes closures ahead.
const IDLE: usize = 1_025;

pub(super) const OPERATIONS: &[Operation] = &[
    Operation::new("fail a chain: edges have changed", |n| {
        fail(n, chain(n), DependenciesFirst, true)
    }),
    Operation::new("fail a chain: edges have changed, registered in reverse", |n| {
        fail(n, chain(n), DependentsFirst, true)
    }),
    Operation::new("fail a chain: again", |n| fail(n, chain(n), DependenciesFirst, false)),
    Operation::new("fail a hub: edges have changed", |n| fail(n, hub(n), DependenciesFirst, true)),
    Operation::new("fail a hub: again", |n| fail(n, hub(n), DependenciesFirst, false)),
    Operation::new("fail a layered graph: edges have changed, registered in random order", |n| {
        fail(n, layered(n), Random, true)
    }),
    Operation::new("fail a layered graph: again, registered in random order", |n| {
        fail(n, layered(n), Random, false)
    }),
    Operation::new("fail n / 10 small hubs, an edge changes after each", fail_small_hubs),
];

/// Fails the first service, on which all others depend. If `changed`, an edge has changed since the
/// last failure, so the cascade walks. If not, it uses the closure of the last walk.
///
/// The registry has so many services, most of them idle, that it computes no closure ahead,
/// whatever `n` is.
fn fail(n: usize, edges: Vec<Edge>, registered: Order, changed: bool) {
    let mut services = Services::new(n, registered, IDLE);
    services.declare(&edges);
    for _ in 0..2 {
        services.start();
        assert_eq!(services.fail(0), n);
    }
    services.start();
    if changed {
        // An edge that no graph has: the last service of each has another dependency.
        let new = (n - 1, n / 2);
        assert!(!edges.contains(&new));
        services.declare(&[new]);
    }
    assert_eq!(counted(|| services.fail(0)), n);
    assert_eq!(services.ready(), 0);
}

/// The number of services of a small hub, with the hub.
const SMALL: usize = 10;

/// Each tenth service is a hub, and nine others discover an edge to it. The hubs fail in turn.
/// After each failure, one edge of the next hub is removed, and then the failed services are built
/// again, one of them with an edge that it did not have. So each cascade comes after changes of
/// edges, and no closure that is cached is valid.
///
/// One thread cannot run two cascades at the same time. The models and the schedules do that.
fn fail_small_hubs(n: usize) {
    let mut services = Services::new(n, DependenciesFirst, 0);
    let hubs = n / SMALL;
    (0..hubs).for_each(|hub| publish_small_hub(&mut services, hub * SMALL));
    assert_eq!(services.ready(), n);
    counted(|| {
        for hub in 0..hubs {
            let failed = services.fail(hub * SMALL);
            // All except the first hub have lost one edge, after the failure of the hub before.
            assert_eq!(failed, if hub == 0 { SMALL } else { SMALL - 1 });
            let next = (hub + 1) % hubs;
            rebuild(&mut services, next * SMALL + SMALL - 1, None);
            publish_small_hub(&mut services, hub * SMALL);
        }
    });
    assert_eq!(services.ready(), n);
    let hub_dependents = |hub| services.registry.status(hub).unwrap().dependents.len();
    // The first hub has lost an edge after the failure of the last one.
    assert_eq!(hub_dependents(services.ids[0]), SMALL - 2);
    assert_eq!(hub_dependents(services.ids[SMALL]), SMALL - 1);
}

/// Publishes a small hub and its dependents, which discover their edges.
fn publish_small_hub(services: &mut Services, hub: usize) {
    rebuild(services, hub, None);
    (hub + 1..hub + SMALL).for_each(|number| rebuild(services, number, Some(hub)));
}

/// Publishes a new instance of a service, which uses this dependency.
fn rebuild(services: &mut Services, number: usize, dependency: Option<usize>) {
    services.running[number] = None;
    let attempt = services.begin(number);
    if let Some(dependency) = dependency {
        let wait = attempt.wait_for(services.ids[dependency]);
        assert_eq!(**wait.wait_blocking().unwrap(), ANSWER);
    }
    services.running[number] = Some(attempt.ready(ANSWER).unwrap());
}
