//! Who depends on whom: a directed graph that stays acyclic. No concurrency.
//!
//! Edges point from a dependency to its dependent, the way a failure travels. The topological order is kept
//! under insertion by petgraph's `Acyclic` (Pearce and Kelly, "A dynamic topological sort algorithm for
//! directed acyclic graphs", 2006).

use std::{collections::HashMap, fmt};

use petgraph::{
    Direction::{Incoming, Outgoing},
    acyclic::{Acyclic, AcyclicEdgeError},
    algo::astar,
    data::Build,
    graph::{DiGraph, NodeIndex},
    visit::EdgeRef,
};

/// What a dependency means for what depends on it.
///
/// ```
/// use mainstay::{DependencyKind, Registry};
///
/// let registry = Registry::with_capacity(2)?;
/// let (config, port) = (registry.register::<String>("config")?, registry.register::<u16>("port")?);
/// let (provide_config, provide_port) = (registry.provide(config)?, registry.provide(port)?);
/// let edited = provide_config.begin().wait()?.ready("80".to_string())?;
///
/// let attempt = provide_port.begin().wait()?;
/// let config = attempt.wait_to_start(config).wait()?;
/// assert_eq!(registry.status(port)?.dependencies[0].kind, DependencyKind::StartOnly);
/// let _port = attempt.ready(config.parse()?)?;
/// edited.fail("edited");
/// assert_eq!(*registry.get(port)?, 80);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
pub enum DependencyKind {
    /// When it fails, the dependent fails: [`Attempt::wait_for`](crate::Attempt::wait_for), and declared edges.
    Hard,
    /// It is needed to build the dependent, and of no matter once that is ready:
    /// [`Attempt::wait_to_start`](crate::Attempt::wait_to_start).
    StartOnly,
    /// The dependent is told when it fails or changes: [`Attempt::watch`](crate::Attempt::watch).
    Soft,
}

impl fmt::Display for DependencyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Hard => "hard",
            Self::StartOnly => "start-only",
            Self::Soft => "soft",
        })
    }
}

/// One edge. A pair of services may have both: one that failures travel, and a soft one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Edge {
    pub(crate) dependent: u32,
    pub(crate) dependency: u32,
    /// Failures do not travel it. It counts for cycles, and for the order in which services are shut down.
    pub(crate) soft: bool,
}

/// What an edge rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    /// Somebody said so; it stays.
    Declared,
    /// An attempt waited for the dependency. `by` is the generation of the last one that did, and `None`
    /// once that one has been given up: the edge is kept until the next publication, since the next attempt
    /// most likely needs it again. `to_start`: that attempt needs it no more once it is published.
    Discovered { by: Option<u64>, to_start: bool },
}

/// A cycle, as the services on it: each depends on the next, the last is the first again.
pub(crate) type Cycle = Vec<u32>;

#[derive(Default)]
pub(crate) struct Graph {
    dag: Acyclic<DiGraph<(), Edge, u32>>,
    /// petgraph would look through all dependents of a dependency.
    uses: HashMap<Edge, Use>,
}

impl Graph {
    /// Adds the next service. Services are numbered in the order of their addition.
    pub(crate) fn add_service(&mut self) -> u32 {
        index(self.dag.add_node(()))
    }

    pub(crate) fn find(&self, edge: Edge) -> Option<Use> {
        self.uses.get(&edge).copied()
    }

    /// Adds an edge that is not there yet. Refuses one that would close a cycle, and names the cycle.
    pub(crate) fn add_edge(&mut self, edge: Edge, use_: Use) -> Result<(), Cycle> {
        debug_assert!(self.find(edge).is_none());
        let Edge { dependent, dependency, .. } = edge;
        match self.dag.try_add_edge(node(dependency), node(dependent), edge) {
            Ok(_) => {
                self.uses.insert(edge, use_);
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
    pub(crate) fn mark(&mut self, edge: Edge, use_: Use) {
        match self.uses.get_mut(&edge) {
            Some(Use::Declared) | None => {}
            Some(known) => *known = use_,
        }
    }

    /// Linear in the numbers of its ends' edges.
    pub(crate) fn remove_edge(&mut self, edge: Edge) {
        self.uses.remove(&edge);
        // From the side of the dependent: few depend on as many as may depend on one.
        let mut edges = self.dag.edges_directed(node(edge.dependent), Incoming);
        if let Some(found) = edges.find(|found| *found.weight() == edge) {
            self.dag.remove_edge(found.id());
        }
    }

    /// The edges to what a service depends on.
    pub(crate) fn dependencies(&self, service: u32) -> Vec<(Edge, Use)> {
        let edges = self.dag.edges_directed(node(service), Incoming);
        edges.map(|edge| (*edge.weight(), self.uses[edge.weight()])).collect()
    }

    /// The edges from what depends on it.
    pub(crate) fn dependents(&self, service: u32) -> Vec<Edge> {
        let edges = self.dag.edges_directed(node(service), Outgoing);
        edges.map(|edge| *edge.weight()).collect()
    }
}

fn node(service: u32) -> NodeIndex<u32> {
    NodeIndex::new(service as usize)
}

fn index(node: NodeIndex<u32>) -> u32 {
    node.index() as u32
}
