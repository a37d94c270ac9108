//! Dropping the handles of services, which are `Running` and `Provider`.

use super::{
    Operation, counted,
    graphs::{
        Edge,
        Order::{self, DependenciesFirst, DependentsFirst, Random},
        chain, hub, in_order, layered,
    },
    services::Services,
};

pub(super) const OPERATIONS: &[Operation] = &[
    Operation::new("drop the handles of a chain: dependencies first", |n| {
        drop_handles(n, chain(n), DependenciesFirst, DependenciesFirst)
    }),
    Operation::new("drop the handles of a chain: dependents first", |n| {
        drop_handles(n, chain(n), DependenciesFirst, DependentsFirst)
    }),
    Operation::new("drop the handles of a chain: in random order", |n| {
        drop_handles(n, chain(n), DependenciesFirst, Random)
    }),
    Operation::new("drop the handles of a chain: dependents first, registered in reverse", |n| {
        drop_handles(n, chain(n), DependentsFirst, DependentsFirst)
    }),
    Operation::new("drop the handles of a hub: dependents first", |n| {
        drop_handles(n, hub(n), DependenciesFirst, DependentsFirst)
    }),
    Operation::new("drop the handles of a layered graph: dependents first", |n| {
        drop_handles(n, layered(n), DependenciesFirst, DependentsFirst)
    }),
    Operation::new("drop the handles of a layered graph: in random order", |n| {
        drop_handles(n, layered(n), Random, Random)
    }),
];

fn drop_handles(n: usize, edges: Vec<Edge>, registered: Order, order: Order) {
    let mut services = Services::with_edges(n, registered, &edges);
    services.start();
    assert_eq!(services.ready(), n);
    let mut handles: Vec<_> =
        services.running.drain(..).zip(services.providers.drain(..)).map(Some).collect();
    let mut ordered: Vec<_> =
        in_order(n, order).into_iter().map(|number| handles[number].take()).collect();
    counted(|| ordered.drain(..).for_each(drop));
    assert_eq!(services.ready(), 0);
    assert!(services.ids.iter().all(|&id| services.registry.provide(id).is_ok()));
}
