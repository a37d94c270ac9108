//! A registry of services, and their providers, for one thread.

use mainstay::{Attempt, Provider, Registry, Running, ServiceId};

use super::graphs::{Edge, Order, in_order};

/// The value of each service.
pub(super) const ANSWER: u64 = 42;

pub(super) struct Services {
    pub(super) registry: Registry,
    /// The ids, by the number of the service in its graph.
    pub(super) ids: Vec<ServiceId<u64>>,
    pub(super) providers: Vec<Provider<u64>>,
    /// The running handle of each service that is ready.
    pub(super) running: Vec<Option<Running<u64>>>,
}

impl Services {
    /// Registers services in this order, and further ones that stay idle.
    pub(super) fn new(services: usize, registered: Order, idle: usize) -> Self {
        let registry = Registry::with_capacity(services + idle).unwrap();
        Self::in_registry(registry, services, registered, idle)
    }

    pub(super) fn in_registry(
        registry: Registry,
        services: usize,
        registered: Order,
        idle: usize,
    ) -> Self {
        let mut ids = vec![None; services];
        for number in in_order(services, registered) {
            ids[number] = Some(registry.register(&format!("service {number}")).unwrap());
        }
        for number in 0..idle {
            registry.register::<u64>(&format!("idle {number}")).unwrap();
        }
        let ids: Vec<ServiceId<u64>> = ids.into_iter().map(Option::unwrap).collect();
        let providers = ids.iter().map(|&id| registry.provide(id).unwrap()).collect();
        Self { registry, ids, providers, running: (0..services).map(|_| None).collect() }
    }

    /// Registers services, and declares edges between them.
    ///
    /// The edges are declared in the order of the graph, dependencies first. To register services
    /// in another order does not change the graph.
    pub(super) fn with_edges(services: usize, registered: Order, edges: &[Edge]) -> Self {
        let services = Self::new(services, registered, 0);
        services.declare(edges);
        services
    }

    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    /// Declares edges, and returns their number.
    pub(super) fn declare(&self, edges: &[Edge]) -> usize {
        for &(dependent, dependency) in edges {
            self.registry.depends(self.ids[dependent]).on(self.ids[dependency]).unwrap();
        }
        edges.len()
    }

    pub(super) fn begin(&self, number: usize) -> Attempt<u64> {
        self.providers[number].begin().wait_blocking().unwrap()
    }

    /// Publishes an instance of the service, which waits for nothing.
    pub(super) fn publish(&mut self, number: usize) {
        self.running[number] = Some(self.begin(number).ready(ANSWER).unwrap());
    }

    /// Makes all services ready that are not.
    pub(super) fn start(&mut self) {
        // A running handle of an earlier generation is dropped before the next publication.
        for number in 0..self.len() {
            if self.registry.get(self.ids[number]).is_err() {
                self.running[number] = None;
                self.publish(number);
            }
        }
    }

    /// Fails a service. Returns the number of services that failed.
    pub(super) fn fail(&self, number: usize) -> usize {
        self.registry.fail(self.ids[number], "growth").unwrap().failed
    }

    /// Returns the number of services that are ready.
    pub(super) fn ready(&self) -> usize {
        self.ids.iter().filter(|&&id| self.registry.get(id).is_ok()).count()
    }
}
