//! Listing, the status of services, and what blocks a service.

use mainstay::Phase;

use super::{
    Operation, counted,
    graphs::{Edge, Order::DependenciesFirst, chain, layered, through_a_hub},
    services::Services,
};

pub(super) const OPERATIONS: &[Operation] = &[
    Operation::new("list: a layered graph that is ready", |n| list(n, layered(n), true)),
    Operation::new("list: a chain that is down", |n| list(n, chain(n), false)),
    Operation::new("list: n / 2 dependents and n / 2 dependencies of a hub, all down", |n| {
        list(n, through_a_hub(n), false)
    }),
    Operation::new("status of each service: a chain that is down", status),
    Operation::new("blockers: the last service of a chain", |n| blockers(n, chain(n), 1)),
    Operation::new("blockers: the last service of a layered graph", |n| blockers(n, layered(n), 1)),
    Operation::new("blockers: n / 2 dependencies of a hub", |n| {
        blockers(n, through_a_hub(n), n / 2)
    }),
    Operation::new("DOT text: a layered graph", to_dot),
];

fn list(n: usize, edges: Vec<Edge>, ready: bool) {
    let mut services = Services::with_edges(n, DependenciesFirst, &edges);
    if ready {
        services.start();
    }
    let listing = counted(|| services.registry.list());
    assert_eq!(listing.services.len(), n);
    let phase = if ready { Phase::Ready } else { Phase::Down };
    assert!(listing.services.iter().all(|service| service.phase == phase));
    assert_eq!(listing.services[n - 1].blocked_by.is_empty(), ready);
    let dependencies = listing.services.iter().map(|service| service.dependencies.len());
    assert_eq!(dependencies.sum::<usize>(), edges.len());
}

fn status(n: usize) {
    let services = Services::with_edges(n, DependenciesFirst, &chain(n));
    let edges: usize = counted(|| {
        let status = |&id| services.registry.status(id).unwrap();
        services.ids.iter().map(status).map(|status| status.dependencies.len()).sum()
    });
    assert_eq!(edges, n - 1);
}

/// Searches for what blocks the last service, which is down like all others.
fn blockers(n: usize, edges: Vec<Edge>, expected: usize) {
    let services = Services::with_edges(n, DependenciesFirst, &edges);
    let listing = services.registry.list();
    let name = format!("service {}", n - 1);
    let blockers = counted(|| listing.blockers(&name));
    assert_eq!(blockers.len(), expected);
    assert!(blockers.iter().all(|blocker| blocker.dependencies.is_empty()));
}

fn to_dot(n: usize) {
    let edges = layered(n);
    let listing = Services::with_edges(n, DependenciesFirst, &edges).registry.list();
    let dot = counted(|| listing.to_dot());
    assert_eq!(dot.matches(" -> ").count(), edges.len());
}
