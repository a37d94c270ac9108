//! A registry of services that all stand on the first, brought up and failed again and again.

use mainstay::{Provider, Registry, Running, ServiceId};

use crate::graphs::Edge;

/// What each service answers.
const ANSWER: u64 = 42;

pub struct Tree {
    registry: Registry,
    providers: Vec<Provider<u64>>,
    running: Vec<Running<u64>>,
    /// What the last service finds anew that it depends on, whenever it starts.
    found: Vec<ServiceId<u64>>,
}

impl Tree {
    /// All edges are declared.
    pub fn new(services: usize, edges: &[Edge]) -> Self {
        Self::with_found(services, edges, &[])
    }

    /// Each start takes the last service's edges out of the graph and puts them in again: each failure is the
    /// first since its closure changed.
    pub fn changing(services: usize, edges: &[Edge]) -> Self {
        let declared = edges.partition_point(|&(dependent, _)| dependent < services - 1);
        let (declared, found) = edges.split_at(declared);
        Self::with_found(services, declared, found)
    }

    fn with_found(services: usize, declared: &[Edge], found: &[Edge]) -> Self {
        let mut builder = Registry::builder(services).unwrap();
        let ids: Vec<ServiceId<u64>> =
            (0..services).map(|i| builder.register(&format!("service {i}")).unwrap()).collect();
        for &(dependent, dependency) in declared {
            builder.add_dependency(ids[dependent], ids[dependency]).unwrap();
        }
        let registry = builder.build();
        let providers = ids.iter().map(|&id| registry.provide(id).unwrap()).collect();
        let found = found.iter().map(|&(_, dependency)| ids[dependency]).collect();
        Self { registry, providers, running: Vec::with_capacity(services), found }
    }

    /// From all down to all ready.
    pub fn start(&mut self) {
        self.running.clear();
        let (last, others) = self.providers.split_last().unwrap();
        self.running.extend(others.iter().map(|provider| publish(provider, &[])));
        if !self.found.is_empty() {
            // An attempt that waits for nothing drops the edges of those before it.
            assert_eq!(publish(last, &[]).fail("edges dropped").went_down, 1);
        }
        self.running.push(publish(last, &self.found));
    }

    pub fn running(&self) -> &[Running<u64>] {
        &self.running
    }

    /// Fails the first. Gives how many went down.
    pub fn fail(&self) -> usize {
        self.registry.fail(self.providers[0].id(), "bench").unwrap().went_down
    }
}

fn publish(provider: &Provider<u64>, found: &[ServiceId<u64>]) -> Running<u64> {
    let attempt = provider.begin().wait().unwrap();
    for &dependency in found {
        assert_eq!(**attempt.wait_for(dependency).wait().unwrap(), ANSWER);
    }
    attempt.ready(ANSWER).unwrap()
}
