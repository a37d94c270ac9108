//! The graph of all edges. It is always acyclic. It is not concurrent: `topology.rs` has its lock.
//!
//! petgraph's `Acyclic` maintains the topological order when an edge is added (Pearce and Kelly, "A
//! dynamic topological sort algorithm for directed acyclic graphs", 2006). Inside petgraph an edge
//! points in the direction in which a failure travels, from the dependency to the dependent. All
//! other code and all texts write an edge as dependent `->` dependency.

use std::{collections::HashMap, fmt};

use crate::numbers::{Generation, ServiceIndex};
use petgraph::{
    Direction::{Incoming, Outgoing},
    acyclic::{Acyclic, AcyclicEdgeError},
    algo::astar,
    data::Build,
    graph::{DiGraph, NodeIndex},
    visit::EdgeRef,
};

/// The kind of a dependency: which effect its failure has on the dependent.
///
/// ```
/// use mainstay::{DependencyKind, Registry};
///
/// let registry = Registry::with_capacity(2)?;
/// let config = registry.register::<String>("config")?;
/// let port = registry.register::<u16>("port")?;
/// let (provide_config, provide_port) = (registry.provide(config)?, registry.provide(port)?);
/// let edited = provide_config.begin().wait_blocking()?.ready("80".to_string())?;
///
/// let attempt = provide_port.begin().wait_blocking()?;
/// let config = attempt.wait_to_start(config).wait_blocking()?;
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
    /// A failure of the dependency fails the dependent. [`Attempt::wait_for`] adds such an edge,
    /// and every declared edge is one.
    ///
    /// [`Attempt::wait_for`]: crate::Attempt::wait_for
    Hard,
    /// A failure of the dependency invalidates an attempt at the dependent, but does not affect an
    /// instance that is published. [`Attempt::wait_to_start`] adds such an edge.
    ///
    /// [`Attempt::wait_to_start`]: crate::Attempt::wait_to_start
    StartOnly,
    /// A failure or a replacement of the dependency is reported to the dependent, and fails
    /// nothing. [`Attempt::watch`] adds such an edge.
    ///
    /// [`Attempt::watch`]: crate::Attempt::watch
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

/// An edge: dependent `->` dependency. A pair of services may have two edges, a soft one and one
/// that is not soft.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Edge {
    pub(crate) dependent: ServiceIndex,
    pub(crate) dependency: ServiceIndex,
    /// A soft edge is not in the list of dependents, so no cascade follows it. But it counts for
    /// cycles, and for the order of a shutdown.
    pub(crate) soft: bool,
}

/// The source of an edge: how it was added, and therefore when it is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EdgeSource {
    /// The user has added it. It is permanent.
    Declared,
    /// An attempt has added it, by waiting for the dependency or by watching it.
    Discovered {
        /// The generation of the last attempt that used the edge. `None` if that attempt has
        /// failed: the edge is kept until the next publication, because the next attempt most
        /// likely needs it again.
        attempt: Option<Generation>,
        /// The last attempt needs the edge only until it is published.
        start_only: bool,
    },
}

/// The services of a cycle: each depends on the next one, and the last one is the first one again.
pub(crate) type CyclePath = Vec<ServiceIndex>;

#[derive(Default)]
pub(crate) struct Graph {
    dag: Acyclic<DiGraph<(), Edge, u32>>,
    /// The source of each edge. A map, because petgraph would search all dependents of a service to
    /// find one of its edges.
    sources: HashMap<Edge, EdgeSource>,
}

impl Graph {
    /// Adds a service without edges. Indices are assigned in the order of these calls.
    pub(crate) fn add_service(&mut self) -> ServiceIndex {
        index(self.dag.add_node(()))
    }

    /// Returns the source of an edge, or `None` if the graph does not contain the edge.
    pub(crate) fn find(&self, edge: Edge) -> Option<EdgeSource> {
        self.sources.get(&edge).copied()
    }

    /// Adds an edge that the graph does not contain. If it would close a cycle, returns the path
    /// of the cycle and adds nothing.
    pub(crate) fn add_edge(&mut self, edge: Edge, source: EdgeSource) -> Result<(), CyclePath> {
        debug_assert!(self.find(edge).is_none());
        let Edge { dependent, dependency, .. } = edge;
        match self.dag.try_add_edge(node(dependency), node(dependent), edge) {
            Ok(_) => {
                self.sources.insert(edge, source);
                Ok(())
            }
            Err(AcyclicEdgeError::SelfLoop) => Err(vec![dependent, dependent]),
            Err(_) => Err(self.cycle_closed_by(edge)),
        }
    }

    /// Returns the cycle that `edge` would close: the edge itself, then the shortest path by
    /// which its dependency already depends on its dependent.
    fn cycle_closed_by(&self, edge: Edge) -> CyclePath {
        let Edge { dependent, dependency, .. } = edge;
        let goal = node(dependency);
        let path = astar(self.dag.inner(), node(dependent), |n| n == goal, |_| 1u32, |_| 0);
        let (_, path) = path.unwrap_or_default();
        // The path of petgraph leads from dependencies to dependents. The cycle leads the other
        // way.
        std::iter::once(dependent).chain(path.into_iter().rev().map(index)).collect()
    }

    /// Changes the source of an edge. Does nothing if the edge is declared or is not in the graph.
    pub(crate) fn mark(&mut self, edge: Edge, source: EdgeSource) {
        match self.sources.get_mut(&edge) {
            Some(EdgeSource::Declared) | None => {}
            Some(known) => *known = source,
        }
    }

    /// Removes an edge, in time linear in the number of edges of its two services.
    pub(crate) fn remove_edge(&mut self, edge: Edge) {
        self.sources.remove(&edge);
        // Searched among the edges of the dependent: a service has few dependencies, but may have
        // many dependents.
        let mut edges = self.dag.edges_directed(node(edge.dependent), Incoming);
        if let Some(found) = edges.find(|found| *found.weight() == edge) {
            self.dag.remove_edge(found.id());
        }
    }

    /// Returns the edges from a service to its dependencies.
    pub(crate) fn dependencies(&self, service: ServiceIndex) -> Vec<(Edge, EdgeSource)> {
        let edges = self.dag.edges_directed(node(service), Incoming);
        edges.map(|edge| (*edge.weight(), self.sources[edge.weight()])).collect()
    }

    /// Returns the edges from the dependents of a service to the service.
    pub(crate) fn dependents(&self, service: ServiceIndex) -> Vec<Edge> {
        let edges = self.dag.edges_directed(node(service), Outgoing);
        edges.map(|edge| *edge.weight()).collect()
    }
}

fn node(service: ServiceIndex) -> NodeIndex<u32> {
    NodeIndex::new(service.as_usize())
}

fn index(node: NodeIndex<u32>) -> ServiceIndex {
    ServiceIndex::new(node.index() as u32)
}
