//! Who depends on whom: a directed graph that stays acyclic. No concurrency.
//!
//! Edges point from a dependency to its dependent, the way a failure travels. The topological order is kept
//! under insertion by petgraph's `Acyclic` (Pearce and Kelly, "A dynamic topological sort algorithm for
//! directed acyclic graphs", 2006).

use std::collections::HashMap;

use petgraph::{
    Direction::{self, Incoming, Outgoing},
    acyclic::{Acyclic, AcyclicEdgeError},
    algo::astar,
    data::Build,
    graph::{DiGraph, NodeIndex},
    visit::EdgeRef,
};

/// What an edge rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    /// Somebody said so; it stays.
    Declared,
    /// An attempt waited for the dependency. `by` is the generation of the last one that did, and `None`
    /// once that one has been given up: the edge is kept until the next publication, since the next attempt
    /// most likely needs it again.
    Discovered { by: Option<u64> },
}

/// A cycle, as the services on it: each depends on the next, the last is the first again.
pub(crate) type Cycle = Vec<u32>;

#[derive(Default)]
pub(crate) struct Graph {
    dag: Acyclic<DiGraph<(), (), u32>>,
    /// Each edge, as (dependent, dependency). petgraph would look through all dependents of a dependency.
    uses: HashMap<(u32, u32), Use>,
}

/// A dependency of a service, or a dependent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Neighbour {
    pub(crate) service: u32,
    pub(crate) use_: Use,
}

impl Graph {
    /// Adds the next service. Services are numbered in the order of their addition.
    pub(crate) fn add_service(&mut self) -> u32 {
        index(self.dag.add_node(()))
    }

    pub(crate) fn edge(&self, dependent: u32, dependency: u32) -> Option<Use> {
        self.uses.get(&(dependent, dependency)).copied()
    }

    /// Adds an edge that is not there yet. Refuses one that would close a cycle, and names the cycle.
    pub(crate) fn add_edge(
        &mut self,
        dependent: u32,
        dependency: u32,
        use_: Use,
    ) -> Result<(), Cycle> {
        debug_assert!(self.edge(dependent, dependency).is_none());
        match self.dag.try_add_edge(node(dependency), node(dependent), ()) {
            Ok(_) => {
                self.uses.insert((dependent, dependency), use_);
                Ok(())
            }
            Err(AcyclicEdgeError::SelfLoop) => Err(vec![dependent, dependent]),
            Err(_) => Err(self.cycle_closed_by(dependent, dependency)),
        }
    }

    /// The shortest way by which `dependency` already depends on `dependent`, closed to a circle.
    fn cycle_closed_by(&self, dependent: u32, dependency: u32) -> Cycle {
        let goal = node(dependency);
        let path = astar(self.dag.inner(), node(dependent), |n| n == goal, |_| 1u32, |_| 0);
        let (_, path) = path.unwrap_or_default();
        // The path runs along failures, the cycle is told along dependencies.
        std::iter::once(dependent).chain(path.into_iter().rev().map(index)).collect()
    }

    /// Marks an edge that is there. A declared one stays declared.
    pub(crate) fn mark(&mut self, dependent: u32, dependency: u32, use_: Use) {
        match self.uses.get_mut(&(dependent, dependency)) {
            Some(Use::Declared) | None => {}
            Some(known) => *known = use_,
        }
    }

    /// Linear in the numbers of its ends' edges.
    pub(crate) fn remove_edge(&mut self, dependent: u32, dependency: u32) {
        self.uses.remove(&(dependent, dependency));
        // From the side of the dependent: few depend on as many as may depend on one.
        let mut edges = self.dag.edges_directed(node(dependent), Incoming);
        if let Some(edge) = edges.find(|edge| edge.source() == node(dependency)) {
            self.dag.remove_edge(edge.id());
        }
    }

    pub(crate) fn dependencies(&self, service: u32) -> Vec<Neighbour> {
        self.neighbours(service, Incoming, |other| (service, other))
    }

    pub(crate) fn dependents(&self, service: u32) -> Vec<Neighbour> {
        self.neighbours(service, Outgoing, |other| (other, service))
    }

    fn neighbours(
        &self,
        service: u32,
        direction: Direction,
        edge: impl Fn(u32) -> (u32, u32),
    ) -> Vec<Neighbour> {
        let others = self.dag.neighbors_directed(node(service), direction).map(index);
        others.map(|other| Neighbour { service: other, use_: self.uses[&edge(other)] }).collect()
    }
}

fn node(service: u32) -> NodeIndex<u32> {
    NodeIndex::new(service as usize)
}

fn index(node: NodeIndex<u32>) -> u32 {
    node.index() as u32
}
