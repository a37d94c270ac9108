//! A graph behind a lock, and a lock for each service in it: a failure walks the graph.

use std::{
    mem,
    sync::{Arc, Mutex},
};

use event_listener::{Event, EventListener};
use petgraph::{
    graph::{DiGraph, NodeIndex},
    visit::Dfs,
};

use crate::graphs::Edge;

/// Edges lead from a dependency to its dependents.
pub struct LockedGraph(Mutex<DiGraph<Service, ()>>);

#[derive(Default)]
struct Service {
    state: Mutex<State>,
    failed: Event,
}

#[derive(Default)]
struct State {
    /// None while it is down.
    value: Option<Arc<u64>>,
    /// To notify costs something, even where nobody listens.
    waited: bool,
}

impl LockedGraph {
    pub fn new(services: usize, edges: &[Edge]) -> Self {
        let mut graph = DiGraph::with_capacity(services, edges.len());
        for _ in 0..services {
            graph.add_node(Service::default());
        }
        for &(dependent, dependency) in edges {
            graph.add_edge(NodeIndex::new(dependency), NodeIndex::new(dependent), ());
        }
        Self(Mutex::new(graph))
    }

    /// The values have other owners, too: what a cascade takes down is not freed by it.
    pub fn start(&self, values: &[Arc<u64>]) {
        let graph = self.0.lock().unwrap();
        for (service, value) in graph.node_weights().zip(values) {
            service.state.lock().unwrap().value = Some(Arc::clone(value));
        }
    }

    /// Waits, one for each service, until it fails.
    pub fn listen(&self) -> Vec<EventListener> {
        let graph = self.0.lock().unwrap();
        let listen = |service: &Service| {
            service.state.lock().unwrap().waited = true;
            service.failed.listen()
        };
        graph.node_weights().map(listen).collect()
    }

    /// Fails the first. Gives how many went down.
    pub fn fail(&self) -> usize {
        let graph = self.0.lock().unwrap();
        let mut reached = Dfs::new(&*graph, NodeIndex::new(0));
        let mut went_down = 0;
        while let Some(next) = reached.next(&*graph) {
            let service = &graph[next];
            let mut state = service.state.lock().unwrap();
            went_down += usize::from(state.value.take().is_some());
            let waited = mem::take(&mut state.waited);
            drop(state);
            if waited {
                service.failed.notify(usize::MAX);
            }
        }
        went_down
    }
}
