//! Registering services and declaring their edges.

use mainstay::{Registry, ServiceId, error::DependencyError};

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
    Operation::new("register", register),
    Operation::new("declare a chain: dependencies first", |n| {
        declare(n, chain(n), DependenciesFirst, DependenciesFirst)
    }),
    Operation::new("declare a chain: dependents first", |n| {
        declare(n, chain(n), DependenciesFirst, DependentsFirst)
    }),
    Operation::new("declare a chain: dependencies first, registered in reverse", |n| {
        declare(n, chain(n), DependentsFirst, DependenciesFirst)
    }),
    Operation::new("declare a chain: dependents first, registered in reverse", |n| {
        declare(n, chain(n), DependentsFirst, DependentsFirst)
    }),
    Operation::new("declare a chain: registered and declared in random order", |n| {
        declare(n, chain(n), Random, Random)
    }),
    Operation::new("declare a hub that all depend on: registered first", |n| {
        declare(n, hub(n), DependenciesFirst, Random)
    }),
    Operation::new("declare a hub that all depend on: registered last", |n| {
        declare(n, hub(n), DependentsFirst, Random)
    }),
    Operation::new("declare a hub that depends on all: registered first", |n| {
        declare(n, depends_on_all(n), DependentsFirst, Random)
    }),
    Operation::new("declare a hub that depends on all: registered last", |n| {
        declare(n, depends_on_all(n), DependenciesFirst, Random)
    }),
    Operation::new("declare a layered graph: registered and declared in random order", |n| {
        declare(n, layered(n), Random, Random)
    }),
    Operation::new("refuse an edge: a chain would become a cycle", refuse),
];

fn register(n: usize) {
    let names: Vec<String> = (0..n).map(|i| format!("service {i}")).collect();
    let registry = Registry::with_capacity(n).unwrap();
    let ids: Vec<ServiceId<u64>> =
        counted(|| names.iter().map(|name| registry.register(name).unwrap()).collect());
    assert_eq!(registry.list().services.len(), n);
    assert_eq!(registry.id::<u64>(&names[n - 1]).unwrap(), ids[n - 1]);
}

/// The last service depends on all others.
fn depends_on_all(services: usize) -> Vec<Edge> {
    (0..services - 1).map(|dependency| (services - 1, dependency)).collect()
}

fn declare(n: usize, edges: Vec<Edge>, registered: Order, declared: Order) {
    let services = Services::new(n, registered, 0);
    let edges: Vec<Edge> =
        in_order(edges.len(), declared).into_iter().map(|edge| edges[edge]).collect();
    assert_eq!(counted(|| services.declare(&edges)), edges.len());
    // Not all of them: the status of a service that is down may cost more than its edges.
    for &(dependent, dependency) in edges.iter().step_by(n / 10) {
        let [dependent, dependency] = [dependent, dependency].map(|number| services.ids[number]);
        let status = services.registry.status(dependent).unwrap();
        let name = services.registry.status(dependency).unwrap().name;
        assert!(status.dependencies.iter().any(|edge| edge.name == name && edge.declared));
    }
    let (dependent, dependency) = edges[n / 2];
    let reverse = services.registry.depends(services.ids[dependency]);
    let refused = reverse.on(services.ids[dependent]).map(drop);
    assert!(matches!(refused, Err(DependencyError::Cycle(_))));
}

/// The error contains the path, so it names all services.
fn refuse(n: usize) {
    let services = Services::with_edges(n, DependenciesFirst, &chain(n));
    let first = services.registry.depends(services.ids[0]);
    match counted(|| first.on(services.ids[n - 1]).map(drop)) {
        Err(DependencyError::Cycle(cycle)) => assert_eq!(cycle.path.len(), n + 1),
        other => panic!("{other:?}"),
    }
}
