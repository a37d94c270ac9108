//! Edges of a hub that attempts discover, and that later publications remove because the attempts
//! did not use them.

use mainstay::{Attempt, DependencyKind, Running, ServiceId, Watch};

use super::{
    Operation, counted,
    graphs::{
        Order::{self, DependenciesFirst, DependentsFirst, Random},
        in_order,
    },
    services::{ANSWER, Services},
};

use DependencyKind::{Hard, Soft, StartOnly};

pub(super) const OPERATIONS: &[Operation] = &[
    Operation::new("publish without an edge", publish),
    Operation::new("publish the dependents of a hub: hard", |n| use_hub(n, Hard)),
    Operation::new("publish the dependents of a hub: start-only", |n| use_hub(n, StartOnly)),
    Operation::new(
        "publish the dependents of a hub: start-only, all have begun before",
        begin_then_publish,
    ),
    Operation::new("publish the dependents of a hub: soft", |n| use_hub(n, Soft)),
    Operation::new("drop the edges to a hub: hard, oldest first", |n| {
        drop_edges(n, Hard, DependenciesFirst)
    }),
    Operation::new("drop the edges to a hub: hard, newest first", |n| {
        drop_edges(n, Hard, DependentsFirst)
    }),
    Operation::new("drop the edges to a hub: hard, in random order", |n| {
        drop_edges(n, Hard, Random)
    }),
    Operation::new("drop the edges to a hub: start-only, in random order", |n| {
        drop_edges(n, StartOnly, Random)
    }),
    Operation::new("drop the edges to a hub: soft, in random order", |n| {
        drop_edges(n, Soft, Random)
    }),
    Operation::new("publish a hub that depends on all: hard", |n| use_all(n, Hard)),
    Operation::new("publish a hub that depends on all: start-only", |n| use_all(n, StartOnly)),
    Operation::new("publish a hub that depends on all: soft", |n| use_all(n, Soft)),
    Operation::new("drop the edges of a hub that depends on all: hard", |n| drop_all(n, Hard)),
    Operation::new("drop the edges of a hub that depends on all: soft", |n| drop_all(n, Soft)),
];

/// The number of the hub in its graph.
const HUB: usize = 0;

/// Uses a dependency that is ready, over an edge of this kind. The edge is discovered.
fn use_dependency(
    attempt: &Attempt<u64>,
    dependency: ServiceId<u64>,
    kind: DependencyKind,
) -> Option<Watch<u64>> {
    let wait = match kind {
        Hard => attempt.wait_for(dependency),
        StartOnly => attempt.wait_to_start(dependency),
        _ => return Some(attempt.watch(dependency).unwrap()),
    };
    assert_eq!(**wait.wait_blocking().unwrap(), ANSWER);
    None
}

/// Registers services of which only the hub is ready.
fn with_hub(n: usize) -> Services {
    let mut services = Services::new(n, DependenciesFirst, 0);
    services.publish(HUB);
    services
}

/// Publishes a dependent of the hub.
fn publish_dependent(services: &mut Services, number: usize, kind: DependencyKind) {
    let attempt = services.begin(number);
    let _watch = use_dependency(&attempt, services.ids[HUB], kind);
    services.running[number] = Some(attempt.ready(ANSWER).unwrap());
}

/// Returns the number of edges of each direction that the hub has.
fn edges_of_hub(services: &Services) -> (usize, usize) {
    let status = services.registry.status(services.ids[HUB]).unwrap();
    (status.dependencies.len(), status.dependents.len() + status.watched_by.len())
}

fn publish(n: usize) {
    let mut services = Services::new(n, DependenciesFirst, 0);
    counted(|| (0..n).for_each(|number| services.publish(number)));
    assert_eq!(services.ready(), n);
}

fn use_hub(n: usize, kind: DependencyKind) {
    let mut services = with_hub(n);
    counted(|| (1..n).for_each(|number| publish_dependent(&mut services, number, kind)));
    assert_eq!(services.ready(), n);
    // The publication removes a start-only edge.
    assert_eq!(edges_of_hub(&services), (0, if kind == StartOnly { 0 } else { n - 1 }));
}

/// All dependents wait for the hub before the first one is published.
fn begin_then_publish(n: usize) {
    let mut services = with_hub(n);
    let running: Vec<Running<u64>> = counted(|| {
        let begin = |number| {
            let attempt = services.begin(number);
            use_dependency(&attempt, services.ids[HUB], StartOnly);
            attempt
        };
        let attempts: Vec<Attempt<u64>> = (1..n).map(begin).collect();
        attempts.into_iter().map(|attempt| attempt.ready(ANSWER).unwrap()).collect()
    });
    services.running.splice(1.., running.into_iter().map(Some));
    assert_eq!((services.ready(), edges_of_hub(&services)), (n, (0, 0)));
}

fn drop_edges(n: usize, kind: DependencyKind, order: Order) {
    let mut services = with_hub(n);
    for number in 1..n {
        if kind == StartOnly {
            // A publication would remove the edge, so the attempt ends without one.
            let attempt = services.begin(number);
            use_dependency(&attempt, services.ids[HUB], kind);
            attempt.fail("not published").unwrap();
        } else {
            publish_dependent(&mut services, number, kind);
            services.running[number] = None;
        }
    }
    assert_eq!((services.ready(), edges_of_hub(&services)), (1, (0, n - 1)));
    let order = in_order(n - 1, order);
    counted(|| order.iter().for_each(|number| services.publish(number + 1)));
    assert_eq!((services.ready(), edges_of_hub(&services)), (n, (0, 0)));
}

/// Makes all services ready except the hub, which is registered before them.
fn all_but_hub(n: usize) -> Services {
    let mut services = Services::new(n, DependenciesFirst, 0);
    (1..n).for_each(|number| services.publish(number));
    services
}

/// Publishes the hub, as a dependent of all others.
fn publish_hub(services: &mut Services, kind: DependencyKind) {
    let attempt = services.begin(HUB);
    let others = &services.ids[1..];
    let _watches: Vec<_> =
        others.iter().filter_map(|&id| use_dependency(&attempt, id, kind)).collect();
    services.running[HUB] = Some(attempt.ready(ANSWER).unwrap());
}

fn use_all(n: usize, kind: DependencyKind) {
    let mut services = all_but_hub(n);
    counted(|| publish_hub(&mut services, kind));
    assert_eq!(services.ready(), n);
    assert_eq!(edges_of_hub(&services), (if kind == StartOnly { 0 } else { n - 1 }, 0));
}

fn drop_all(n: usize, kind: DependencyKind) {
    let mut services = all_but_hub(n);
    publish_hub(&mut services, kind);
    assert_eq!(edges_of_hub(&services), (n - 1, 0));
    services.running[HUB] = None;
    counted(|| services.publish(HUB));
    assert_eq!((services.ready(), edges_of_hub(&services)), (n, (0, 0)));
}
