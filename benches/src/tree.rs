//! A registry of services that all depend on the first one, which fails again and again.

use mainstay::{Provider, Registry, Running, ServiceId};

use crate::graphs::Edge;

/// The value of each service.
const ANSWER: u64 = 42;

pub struct Tree {
    registry: Registry,
    providers: Vec<Provider<u64>>,
    running: Vec<Running<u64>>,
    /// The dependencies that the last service discovers at each start.
    discovered: Vec<ServiceId<u64>>,
    /// Two more services, of which the second one discovers an edge to the first one at each start.
    elsewhere: Option<Elsewhere>,
}

struct Elsewhere {
    /// Its drop would fail the service.
    dependency: Provider<u64>,
    dependent: Provider<u64>,
    _running: Running<u64>,
}

impl Tree {
    /// Creates services with declared edges only.
    pub fn new(services: usize, edges: &[Edge]) -> Self {
        Self::with_discovered(services, edges, &[])
    }

    /// Creates services with declared edges only, and two more outside of their closure. Each start
    /// removes the edge between these two and adds it again, so each failure is the first one since
    /// an unrelated edge changed.
    pub fn changing_elsewhere(services: usize, edges: &[Edge]) -> Self {
        let mut tree = Self::with_capacity(services + 2, services, edges, &[]);
        let [dependency, dependent] = ["dependency", "dependent"].map(|name| {
            let id = tree.registry.register(name).unwrap();
            tree.registry.provide(id).unwrap()
        });
        let _running = publish(&dependency, &[]);
        tree.elsewhere = Some(Elsewhere { dependency, dependent, _running });
        tree
    }

    /// Creates services of which the last one discovers its edges. Each start removes these edges
    /// and adds them again, so each failure is the first one since its closure changed.
    pub fn changing(services: usize, edges: &[Edge]) -> Self {
        let declared = edges.partition_point(|&(dependent, _)| dependent < services - 1);
        let (declared, discovered) = edges.split_at(declared);
        Self::with_discovered(services, declared, discovered)
    }

    fn with_discovered(services: usize, declared: &[Edge], discovered: &[Edge]) -> Self {
        Self::with_capacity(services, services, declared, discovered)
    }

    fn with_capacity(
        capacity: usize,
        services: usize,
        declared: &[Edge],
        discovered: &[Edge],
    ) -> Self {
        let mut builder = Registry::builder(capacity).unwrap();
        let ids: Vec<ServiceId<u64>> =
            (0..services).map(|i| builder.register(&format!("service {i}")).unwrap()).collect();
        for &(dependent, dependency) in declared {
            builder.depends(ids[dependent]).on(ids[dependency]).unwrap();
        }
        let registry = builder.build();
        let providers = ids.iter().map(|&id| registry.provide(id).unwrap()).collect();
        let discovered = discovered.iter().map(|&(_, dependency)| ids[dependency]).collect();
        let running = Vec::with_capacity(services);
        Self { registry, providers, running, discovered, elsewhere: None }
    }

    /// Makes all services ready.
    pub fn start(&mut self) {
        self.running.clear();
        let (last, others) = self.providers.split_last().unwrap();
        self.running.extend(others.iter().map(|provider| publish(provider, &[])));
        if !self.discovered.is_empty() {
            // The publication of an attempt that waits for nothing removes the edges.
            assert_eq!(publish(last, &[]).fail("its edges are removed").failed, 1);
        }
        self.running.push(publish(last, &self.discovered));
        if let Some(Elsewhere { dependency, dependent, .. }) = &self.elsewhere {
            drop(publish(dependent, &[]));
            drop(publish(dependent, &[dependency.id()]));
        }
    }

    pub fn running(&self) -> &[Running<u64>] {
        &self.running
    }

    /// Fails the first service. Returns the number of services that failed.
    pub fn fail(&self) -> usize {
        self.registry.fail(self.providers[0].id(), "bench").unwrap().failed
    }
}

fn publish(provider: &Provider<u64>, discovered: &[ServiceId<u64>]) -> Running<u64> {
    let attempt = provider.begin().wait_blocking().unwrap();
    for &dependency in discovered {
        assert_eq!(**attempt.wait_for(dependency).wait_blocking().unwrap(), ANSWER);
    }
    attempt.ready(ANSWER).unwrap()
}
