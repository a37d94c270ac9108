//! Inspection: the state of services, their edges, and what keeps them from being ready.

use std::{cmp::Ordering, time::Duration};

use super::{Edge, EdgeSource, Phase, Store, Tag, graph::Graph};
use crate::numbers::ServiceIndex;

/// An edge, its source, and its declared grace period.
pub(crate) type InspectedEdge = (Edge, EdgeSource, Option<Duration>);

/// What an inspection found about one service.
pub(crate) struct Inspected {
    pub(crate) index: ServiceIndex,
    pub(crate) state: Tag,
    /// The edges to its dependencies, in the order in which these were registered.
    pub(crate) dependencies: Vec<InspectedEdge>,
    /// The edges from its dependents, in the order in which these were registered.
    pub(crate) dependents: Vec<Edge>,
    /// See [`Store::blocked_by`].
    pub(crate) blocked_by: Vec<ServiceIndex>,
}

/// What an inspection found about all services: their states, and the edges of one instant.
pub(crate) struct Inspection {
    states: Vec<Tag>,
    /// All edges, by their dependent.
    dependencies: Vec<InspectedEdge>,
    /// All edges, by their dependency.
    dependents: Vec<Edge>,
    /// For each service, its first dependency that blocks it.
    first_blocking: Vec<Option<ServiceIndex>>,
}

impl Store {
    pub(crate) fn inspect(&self, index: ServiceIndex) -> Inspected {
        let mut dependencies: Vec<InspectedEdge> =
            self.topology.read(|graph| inspected_edges(graph, index).collect());
        let mut dependents = self.dependents(index);
        dependencies.sort_unstable_by_key(by_dependent);
        dependents.sort_unstable_by_key(by_dependency);
        let state = self.slot(index).state.load();
        let is_ready = state.phase() == Phase::Ready;
        let blocked_by = if is_ready { Vec::new() } else { self.blocked_by(index) };
        Inspected { index, state, dependencies, dependents, blocked_by }
    }

    /// Inspects all services, in n log n steps for n services and edges.
    ///
    /// The lock of the topology is held once, for a plain copy of the edges. A copy in several
    /// parts would delay writers of edges less, but a graph of several instants may contain a
    /// cycle, or a path that never existed. Reads and cascades do not take this lock. All else,
    /// also the names and the texts, follows after the lock is free.
    pub(crate) fn inspect_all(&self) -> Inspection {
        // Before the lock of the topology is taken: a registration takes the two locks in this
        // order.
        let services = self.services();
        let mut dependencies: Vec<InspectedEdge> = self
            .topology
            .read(|graph| services.flat_map(|index| inspected_edges(graph, index)).collect());
        // Counted after the edges are copied, so that the services of each edge are among them.
        let states: Vec<Tag> = self.services().map(|index| self.slot(index).state.load()).collect();

        dependencies.sort_unstable_by_key(by_dependent);
        let mut dependents: Vec<Edge> = dependencies.iter().map(|(edge, ..)| *edge).collect();
        dependents.sort_unstable_by_key(by_dependency);

        let is_ready = |index: ServiceIndex| states[index.as_usize()].phase() == Phase::Ready;
        let mut first_blocking = vec![None; states.len()];
        for (edge, ..) in &dependencies {
            if blocks(edge, is_ready) && !is_ready(edge.dependent) {
                first_blocking[edge.dependent.as_usize()].get_or_insert(edge.dependency);
            }
        }
        Inspection { states, dependencies, dependents, first_blocking }
    }

    /// Returns the path to the service that keeps one from being ready that is not: a dependency
    /// that is not ready, a dependency of that one, and so on. The path has at most
    /// [`LONGEST_PATH`] services. It is empty if all dependencies are ready.
    ///
    /// The cost is linear in the number of dependencies of all services on the path, so the paths
    /// of all services are found in another way: by [`inspect_all`](Self::inspect_all).
    fn blocked_by(&self, index: ServiceIndex) -> Vec<ServiceIndex> {
        self.topology.read(|graph| path(index, |index| self.first_blocking_in(graph, index)))
    }

    /// Returns the first dependency, in the order of registration, that keeps a service from being
    /// ready.
    pub(crate) fn first_blocking(&self, index: ServiceIndex) -> Option<ServiceIndex> {
        self.topology.read(|graph| self.first_blocking_in(graph, index))
    }

    fn first_blocking_in(&self, graph: &Graph, index: ServiceIndex) -> Option<ServiceIndex> {
        let edges = graph.dependencies(index).map(|(edge, _)| edge);
        let blocking = edges.filter(|edge| blocks(edge, |index| self.is_ready(index)));
        blocking.map(|edge| edge.dependency).min()
    }
}

impl Inspection {
    /// Returns the indices of all services, in the order of registration.
    pub(crate) fn indices(&self) -> impl Iterator<Item = ServiceIndex> + use<> {
        ServiceIndex::range(0..self.states.len() as u32)
    }

    pub(crate) fn state(&self, index: ServiceIndex) -> Tag {
        self.states[index.as_usize()]
    }

    /// As [`Store::first_blocking`].
    pub(crate) fn first_blocking(&self, index: ServiceIndex) -> Option<ServiceIndex> {
        self.first_blocking[index.as_usize()]
    }

    /// Returns all services, in the order of registration.
    pub(crate) fn services(&self) -> impl Iterator<Item = Inspected> {
        self.indices().map(|index| Inspected {
            index,
            state: self.states[index.as_usize()],
            dependencies: part(&self.dependencies, |(edge, ..)| edge.dependent.cmp(&index))
                .to_vec(),
            dependents: part(&self.dependents, |edge| edge.dependency.cmp(&index)).to_vec(),
            blocked_by: path(index, |index| self.first_blocking[index.as_usize()]),
        })
    }
}

fn inspected_edges(graph: &Graph, dependent: ServiceIndex) -> impl Iterator<Item = InspectedEdge> {
    graph.dependencies(dependent).map(|(edge, source)| (edge, source, graph.grace(edge)))
}

/// The limit of a path. A listing contains one path for each service, so without a limit the
/// listing of a long chain would be quadratic in its length.
pub(crate) const LONGEST_PATH: usize = 64;

/// Returns the services after `index`, each of them the next one of the one before.
fn path(
    index: ServiceIndex,
    next: impl Fn(ServiceIndex) -> Option<ServiceIndex>,
) -> Vec<ServiceIndex> {
    let mut path = Vec::new();
    let mut last = index;
    while path.len() < LONGEST_PATH {
        let Some(service) = next(last) else { break };
        path.push(service);
        last = service;
    }
    path
}

/// Returns whether the dependency of this edge keeps the dependent from being built. A service can
/// be ready without the services that it only watches.
fn blocks(edge: &Edge, is_ready: impl Fn(ServiceIndex) -> bool) -> bool {
    !edge.soft && !is_ready(edge.dependency)
}

/// The order of the edges of one dependent. The index of a service is the number of services that
/// were registered before it. A soft edge comes after the other edge of the same pair.
fn by_dependent((edge, ..): &InspectedEdge) -> (ServiceIndex, ServiceIndex, bool) {
    (edge.dependent, edge.dependency, edge.soft)
}

/// The order of the edges of one dependency; as `by_dependent`.
fn by_dependency(edge: &Edge) -> (ServiceIndex, ServiceIndex, bool) {
    (edge.dependency, edge.dependent, edge.soft)
}

/// Returns the part of a sorted list in which `order` is `Equal`.
fn part<T>(sorted: &[T], order: impl Fn(&T) -> Ordering) -> &[T] {
    let start = sorted.partition_point(|item| order(item).is_lt());
    let length = sorted[start..].partition_point(|item| order(item).is_eq());
    &sorted[start..start + length]
}
