//! A graph behind a lock, with one lock for each service. A failure walks the graph.

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

/// The edges of this graph are dependency `->` dependent, so that a search finds the dependents.
pub struct LockedGraph(Mutex<DiGraph<Service, ()>>);

#[derive(Default)]
struct Service {
    state: Mutex<State>,
    failed: Event,
}

#[derive(Default)]
struct State {
    /// None if the service is down.
    value: Option<Arc<u64>>,
    /// Whether there may be a listener. A notification has a cost even if there is none.
    has_listeners: bool,
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

    /// The values have other owners, too, so a cascade does not free them.
    pub fn start(&self, values: &[Arc<u64>]) {
        let graph = self.0.lock().unwrap();
        for (service, value) in graph.node_weights().zip(values) {
            service.state.lock().unwrap().value = Some(Arc::clone(value));
        }
    }

    /// Returns one listener for the failure of each service.
    pub fn listen(&self) -> Vec<EventListener> {
        let graph = self.0.lock().unwrap();
        let listen = |service: &Service| {
            service.state.lock().unwrap().has_listeners = true;
            service.failed.listen()
        };
        graph.node_weights().map(listen).collect()
    }

    /// Fails the first service. Returns the number of services that failed.
    pub fn fail(&self) -> usize {
        let graph = self.0.lock().unwrap();
        let mut reached = Dfs::new(&*graph, NodeIndex::new(0));
        let mut failed = 0;
        while let Some(next) = reached.next(&*graph) {
            let service = &graph[next];
            let mut state = service.state.lock().unwrap();
            failed += usize::from(state.value.take().is_some());
            let has_listeners = mem::take(&mut state.has_listeners);
            drop(state);
            if has_listeners {
                service.failed.notify(usize::MAX);
            }
        }
        failed
    }
}
