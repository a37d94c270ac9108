//! Who depends on whom: a directed graph that stays acyclic, and the closures in it. No concurrency.
//!
//! Edges point from a dependency to its dependent, the way a failure travels. The topological order is kept
//! under insertion by petgraph's `Acyclic` (Pearce and Kelly, "A dynamic topological sort algorithm for
//! directed acyclic graphs", 2006).

use std::{cell::Cell, collections::HashSet};

use petgraph::{
    Direction::{Incoming, Outgoing},
    acyclic::{Acyclic, AcyclicEdgeError},
    algo::astar,
    data::Build,
    graph::{DiGraph, EdgeIndex, NodeIndex},
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
    /// The uses are in cells because petgraph lends no weight of an acyclic graph out to be changed.
    dag: Acyclic<DiGraph<(), Cell<Use>, u32>>,
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
        let edge = self.find(dependent, dependency)?;
        self.dag.edge_weight(edge).map(Cell::get)
    }

    fn find(&self, dependent: u32, dependency: u32) -> Option<EdgeIndex<u32>> {
        self.dag.find_edge(node(dependency), node(dependent))
    }

    /// Adds an edge that is not there yet. Refuses one that would close a cycle, and names the cycle.
    pub(crate) fn add_edge(
        &mut self,
        dependent: u32,
        dependency: u32,
        use_: Use,
    ) -> Result<(), Cycle> {
        debug_assert!(self.find(dependent, dependency).is_none());
        match self.dag.try_add_edge(node(dependency), node(dependent), Cell::new(use_)) {
            Ok(_) => Ok(()),
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
    pub(crate) fn mark(&self, dependent: u32, dependency: u32, use_: Use) {
        let edge = self.find(dependent, dependency);
        if let Some(weight) = edge.and_then(|edge| self.dag.edge_weight(edge)) {
            if weight.get() != Use::Declared {
                weight.set(use_);
            }
        }
    }

    pub(crate) fn remove_edge(&mut self, dependent: u32, dependency: u32) {
        if let Some(edge) = self.find(dependent, dependency) {
            self.dag.remove_edge(edge);
        }
    }

    pub(crate) fn dependencies(&self, service: u32) -> Vec<Neighbour> {
        let edges = self.dag.edges_directed(node(service), Incoming);
        edges.map(|e| Neighbour { service: index(e.source()), use_: e.weight().get() }).collect()
    }

    pub(crate) fn dependents(&self, service: u32) -> Vec<Neighbour> {
        let edges = self.dag.edges_directed(node(service), Outgoing);
        edges.map(|e| Neighbour { service: index(e.target()), use_: e.weight().get() }).collect()
    }

    /// `service` and all that it transitively depends on, in no order.
    pub(crate) fn ancestry(&self, service: u32) -> Vec<u32> {
        self.reach(service, petgraph::Incoming)
    }

    /// `service` and all its transitive dependents, dependencies before dependents.
    pub(crate) fn closure(&self, service: u32) -> Vec<u32> {
        self.in_order(self.reach(service, petgraph::Outgoing))
    }

    /// The closure of `service` where those of its dependents are known.
    pub(crate) fn closure_from<'r>(
        &self,
        service: u32,
        rows: impl Fn(u32) -> &'r [u32],
    ) -> Vec<u32> {
        let mut members = HashSet::from([service]);
        for dependent in self.dag.neighbors_directed(node(service), Outgoing) {
            members.extend(rows(index(dependent)));
        }
        self.in_order(members.into_iter().collect())
    }

    /// All services, dependents before their dependencies.
    pub(crate) fn leaves_first(&self) -> Vec<u32> {
        let mut order: Vec<u32> = self.dag.nodes_iter().map(index).collect();
        order.reverse();
        order
    }

    fn reach(&self, from: u32, direction: petgraph::Direction) -> Vec<u32> {
        let mut seen = HashSet::from([from]);
        let mut found = vec![from];
        let mut next = 0;
        while let Some(&service) = found.get(next) {
            next += 1;
            for neighbour in self.dag.neighbors_directed(node(service), direction) {
                if seen.insert(index(neighbour)) {
                    found.push(index(neighbour));
                }
            }
        }
        found
    }

    fn in_order(&self, mut services: Vec<u32>) -> Vec<u32> {
        services.sort_unstable_by_key(|&service| self.dag.get_position(node(service)));
        services
    }
}

fn node(service: u32) -> NodeIndex<u32> {
    NodeIndex::new(service as usize)
}

fn index(node: NodeIndex<u32>) -> u32 {
    node.index() as u32
}
