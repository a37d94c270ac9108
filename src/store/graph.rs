//! The graph of all edges. It is always acyclic. It is not concurrent: `topology.rs` has its lock.
//!
//! Each service has its links in both directions (`graph/links.rs`) and a place in a topological
//! order (`graph/order.rs`), in which each service comes after its dependencies. A new edge that
//! contradicts the order changes the order, or closes a cycle (`graph/search.rs`).

mod graces;
mod links;
mod order;
mod search;

use std::{
    collections::{HashMap, HashSet, VecDeque, hash_map},
    fmt,
    time::Duration,
};

use self::{
    graces::Graces,
    links::{LinkKey, Links},
    order::Order,
    search::Marks,
};
use super::{dependents::Entry, topology::Outdated};
use crate::numbers::{Generation, ServiceIndex};

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
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "kebab-case")
)]
pub enum DependencyKind {
    /// A failure of the dependency fails the dependent. [`Attempt::wait_for`] adds such an edge,
    /// and [`Depends::on`] declares one.
    ///
    /// [`Attempt::wait_for`]: crate::Attempt::wait_for
    /// [`Depends::on`]: crate::Depends::on
    Hard,
    /// A failure of the dependency invalidates an attempt at the dependent, but does not affect an
    /// instance that is published. [`Attempt::wait_to_start`] adds such an edge, and
    /// [`Depends::to_start_on`] declares one.
    ///
    /// [`Attempt::wait_to_start`]: crate::Attempt::wait_to_start
    /// [`Depends::to_start_on`]: crate::Depends::to_start_on
    StartOnly,
    /// A failure or a replacement of the dependency is reported to the dependent, and fails
    /// nothing. [`Attempt::watch`] adds such an edge, and [`Depends::soft_on`] declares one.
    ///
    /// [`Attempt::watch`]: crate::Attempt::watch
    /// [`Depends::soft_on`]: crate::Depends::soft_on
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
    /// The user has declared it, as hard or as soft. It is permanent.
    Declared,
    /// The user has declared it as start-only. It is permanent.
    DeclaredToStart {
        /// The generation of the last attempt that has waited for the dependency as for a hard one.
        /// Until the publication of an attempt that does not, the edge is hard.
        hard: Option<Generation>,
    },
    /// An attempt has added it, by waiting for the dependency or by watching it.
    Discovered {
        /// The generation of the last attempt that used the edge. `None` if that attempt has
        /// failed: the edge is kept until the next publication, because the next attempt most
        /// likely needs it again.
        attempt: Option<Generation>,
        /// The last attempt needs the edge only until it is published.
        start_only: bool,
    },
    /// A switch has added it: only the new instance of this generation uses it, which is not
    /// current yet, or never will be.
    Undecided { generation: Generation },
}

impl EdgeSource {
    /// Returns whether the user has declared the edge.
    pub(crate) fn is_declared(self) -> bool {
        !matches!(self, Self::Discovered { .. } | Self::Undecided { .. })
    }

    /// Returns the kind of an edge with this source.
    pub(crate) fn kind(self, soft: bool) -> DependencyKind {
        match self {
            _ if soft => DependencyKind::Soft,
            Self::Discovered { start_only: true, .. } | Self::DeclaredToStart { hard: None } => {
                DependencyKind::StartOnly
            }
            _ => DependencyKind::Hard,
        }
    }

    /// Returns whether an attempt has discovered the edge, or has made a declared one hard. A
    /// publication that does not need it then removes the edge, or makes it start-only again.
    pub(super) fn is_discovered(self) -> bool {
        match self {
            Self::Discovered { .. } | Self::Undecided { .. } => true,
            Self::DeclaredToStart { hard } => hard.is_some(),
            Self::Declared => false,
        }
    }

    /// Returns whether a cascade follows the edge only if the dependent is not ready, or if the
    /// switch is committed that makes the edge hard.
    pub(super) fn unless_ready(self) -> bool {
        matches!(self, Self::DeclaredToStart { hard: None } | Self::Undecided { .. })
    }
}

/// The services of a cycle: each depends on the next one, and the last one is the first one again.
pub(crate) type CyclePath = Vec<ServiceIndex>;

/// An `EdgeSource` in one word: the generation, and three marks beside it; or a value that none of
/// these is.
#[derive(Clone, Copy)]
struct PackedSource(u64);

impl PackedSource {
    const DECLARED: u64 = u64::MAX;
    const START_ONLY: u64 = 1;
    const DECLARED_TO_START: u64 = 1 << 62;
    /// No attempt uses the edge. A generation has 61 bits.
    const UNUSED: u64 = 1 << 63;
    /// No edge that is declared to start has the other mark.
    const UNDECIDED: u64 = Self::DECLARED_TO_START | Self::START_ONLY;

    fn new(source: EdgeSource) -> Self {
        let word = |attempt: Option<Generation>| {
            attempt.map_or(Self::UNUSED, |attempt| attempt.get() << 1)
        };
        match source {
            EdgeSource::Declared => Self(Self::DECLARED),
            EdgeSource::DeclaredToStart { hard } => Self(word(hard) | Self::DECLARED_TO_START),
            EdgeSource::Discovered { attempt, start_only } => {
                Self(word(attempt) | u64::from(start_only))
            }
            EdgeSource::Undecided { generation } => Self(generation.get() << 1 | Self::UNDECIDED),
        }
    }

    fn get(self) -> EdgeSource {
        if self.0 == Self::DECLARED {
            return EdgeSource::Declared;
        }
        let generation = Generation::new((self.0 & !Self::DECLARED_TO_START) >> 1);
        if self.0 & Self::UNDECIDED == Self::UNDECIDED {
            return EdgeSource::Undecided { generation };
        }
        let attempt = (self.0 & Self::UNUSED == 0).then_some(generation);
        if self.0 & Self::DECLARED_TO_START != 0 {
            return EdgeSource::DeclaredToStart { hard: attempt };
        }
        EdgeSource::Discovered { attempt, start_only: self.0 & Self::START_ONLY != 0 }
    }
}

/// The number of a place in the list of dependents of a service. A soft edge has none.
pub(crate) type PlaceNumber = u32;

/// The place of an edge in the list of its dependency, and the mark of its entry, in one word.
#[derive(Clone, Copy)]
struct PackedPlace(u32);

impl PackedPlace {
    /// A list has fewer places (`List::MAX_SERVICES`).
    const NONE: u32 = Self::UNLESS_READY - 1;
    const UNLESS_READY: u32 = 1 << 31;

    fn new(place: Option<PlaceNumber>, unless_ready: bool) -> Self {
        let mark = if unless_ready { Self::UNLESS_READY } else { 0 };
        Self(place.unwrap_or(Self::NONE) | mark)
    }

    fn place(self) -> Option<PlaceNumber> {
        let place = self.0 & !Self::UNLESS_READY;
        (place != Self::NONE).then_some(place)
    }

    fn unless_ready(self) -> bool {
        self.0 & Self::UNLESS_READY != 0
    }
}

#[derive(Default)]
pub(crate) struct Graph {
    services: Vec<ServiceLinks>,
    order: Order,
    marks: Marks,
    /// The services whose precomputed closures are not valid (`topology/closures.rs`). It is here,
    /// because it is behind the same lock.
    pub(super) outdated: Outdated,
    /// The registry is built. Before, no list of dependents is published (`Topology::build`).
    pub(super) is_built: bool,
    graces: Graces,
}

/// The edges of one service.
struct ServiceLinks {
    dependencies: Links<PackedSource>,
    /// Each with the place of the dependent in the list of this service.
    dependents: Links<PackedPlace>,
}

impl Edge {
    /// The key of the edge among the links of its dependent.
    fn dependency_key(self) -> LinkKey {
        LinkKey { service: self.dependency, soft: self.soft }
    }

    /// The first edge to a dependency in the order of `Graph::dependents`, if the graph has it.
    #[cfg(feature = "supervise")]
    pub(crate) fn first_to(dependency: ServiceIndex) -> Self {
        Self { dependent: ServiceIndex::new(0), dependency, soft: false }
    }

    /// The edge that is next in the order of `Graph::dependents`, if the graph contains it.
    #[cfg(feature = "supervise")]
    pub(super) fn next_dependent(self) -> Self {
        Self { dependent: ServiceIndex::new(self.dependent.get() + 1), ..self }
    }

    /// The key of the edge among the links of its dependency.
    fn dependent_key(self) -> LinkKey {
        LinkKey { service: self.dependent, soft: self.soft }
    }
}

impl Graph {
    /// Adds a service without edges. Indices are assigned in the order of these calls.
    pub(crate) fn add_service(&mut self) -> ServiceIndex {
        let service = ServiceIndex::new(self.services.len() as u32);
        self.services.push(ServiceLinks { dependencies: Links::new(), dependents: Links::new() });
        self.order.push();
        self.marks.push();
        service
    }

    /// Returns the rank of a service in a topological order: it is greater than the ranks of all
    /// its dependencies. Any new edge may change it.
    pub(crate) fn rank(&self, service: ServiceIndex) -> u64 {
        self.order.rank(service)
    }

    /// Returns the source of an edge, or `None` if the graph does not contain the edge.
    pub(crate) fn find(&self, edge: Edge) -> Option<EdgeSource> {
        let links = &self.links(edge.dependent).dependencies;
        links.get(edge.dependency_key()).map(|source| source.get())
    }

    /// Returns the kind of an edge, or `None` if the graph does not contain the edge.
    #[cfg(feature = "supervise")]
    pub(crate) fn kind(&self, edge: Edge) -> Option<DependencyKind> {
        self.find(edge).map(|source| source.kind(edge.soft))
    }

    /// Adds an edge that the graph does not contain, and which has no place yet. The order already
    /// agrees with it (`order_for`).
    pub(crate) fn add_edge(&mut self, edge: Edge, source: EdgeSource) {
        debug_assert!(self.find(edge).is_none());
        debug_assert!(self.rank(edge.dependency) < self.rank(edge.dependent));
        let place = PackedPlace::new(None, source.unless_ready());
        let source = PackedSource::new(source);
        self.links_mut(edge.dependent).dependencies.insert(edge.dependency_key(), source);
        self.links_mut(edge.dependency).dependents.insert(edge.dependent_key(), place);
    }

    /// Changes the source of an edge. If its entry in the list of the dependency must be changed,
    /// too, returns the place of the entry, and the new entry.
    pub(crate) fn mark(&mut self, edge: Edge, source: EdgeSource) -> Option<(PlaceNumber, Entry)> {
        let links = &mut self.links_mut(edge.dependent).dependencies;
        *links.get_mut(edge.dependency_key())? = PackedSource::new(source);
        let links = &mut self.links_mut(edge.dependency).dependents;
        let known = links.get_mut(edge.dependent_key())?;
        let unless_ready = source.unless_ready();
        if known.unless_ready() == unless_ready {
            return None;
        }
        *known = PackedPlace::new(known.place(), unless_ready);
        Some((known.place()?, Entry { dependent: edge.dependent, unless_ready }))
    }

    /// Replaces the source of each edge from a service to its dependencies, by one with the same
    /// entry in the list of the dependency.
    pub(crate) fn mark_all(
        &mut self,
        dependent: ServiceIndex,
        with: impl Fn(EdgeSource) -> EdgeSource,
    ) {
        let links = &mut self.links_mut(dependent).dependencies;
        links.iter_mut().for_each(|(_, source)| *source = PackedSource::new(with(source.get())));
    }

    /// Removes an edge, and returns its place.
    pub(crate) fn remove_edge(&mut self, edge: Edge) -> Option<PlaceNumber> {
        self.links_mut(edge.dependent).dependencies.remove(edge.dependency_key());
        self.links_mut(edge.dependency).dependents.remove(edge.dependent_key())?.place()
    }

    /// Returns the place of an edge in the list of its dependency.
    #[cfg(test)]
    pub(crate) fn place(&self, edge: Edge) -> Option<PlaceNumber> {
        self.links(edge.dependency).dependents.get(edge.dependent_key())?.place()
    }

    /// Stores the place of an edge in the list of its dependency.
    pub(crate) fn set_place(&mut self, edge: Edge, place: PlaceNumber) {
        let links = &mut self.links_mut(edge.dependency).dependents;
        if let Some(known) = links.get_mut(edge.dependent_key()) {
            *known = PackedPlace::new(Some(place), known.unless_ready());
        }
    }

    /// Gives the edges to a service new places, from 0 on in ascending order, and returns their
    /// entries in this order. Soft edges have no place.
    pub(crate) fn renumber_places(&mut self, dependency: ServiceIndex) -> Vec<Entry> {
        let mut dependents = Vec::new();
        let links = self.links_mut(dependency).dependents.iter_mut();
        for (key, place) in links.take_while(|(key, _)| !key.soft) {
            let unless_ready = place.unless_ready();
            *place = PackedPlace::new(Some(dependents.len() as PlaceNumber), unless_ready);
            dependents.push(Entry { dependent: key.service, unless_ready });
        }
        dependents
    }

    /// Iterates over the edges from a service to its dependencies, the soft ones last, in ascending
    /// order of the dependencies.
    pub(crate) fn dependencies(
        &self,
        service: ServiceIndex,
    ) -> impl Iterator<Item = (Edge, EdgeSource)> {
        self.links(service).dependencies.iter().map(move |(key, source)| {
            let edge = Edge { dependent: service, dependency: key.service, soft: key.soft };
            (edge, source.get())
        })
    }

    /// Returns the number of services.
    pub(crate) fn len(&self) -> usize {
        self.services.len()
    }

    /// Iterates over the edges from the dependents of a service to the service, the soft ones last,
    /// in ascending order of the dependents.
    pub(crate) fn dependents(&self, service: ServiceIndex) -> impl Iterator<Item = Edge> {
        self.links(service).dependents.iter().map(move |(key, _)| Edge {
            dependent: key.service,
            dependency: service,
            soft: key.soft,
        })
    }

    /// Returns the first edge to the dependency of `from`, from that edge on, in the order of
    /// `dependents`. The graph need not contain `from`. Logarithmic.
    #[cfg(feature = "supervise")]
    pub(crate) fn first_dependent_from(&self, from: Edge) -> Option<Edge> {
        let key = self.links(from.dependency).dependents.first_from(from.dependent_key())?;
        Some(Edge { dependent: key.service, dependency: from.dependency, soft: key.soft })
    }

    /// Returns the entries in the list of a service, in ascending order of the dependents.
    pub(crate) fn entries(&self, service: ServiceIndex) -> impl Iterator<Item = Entry> {
        let links = self.links(service).dependents.iter().take_while(|(key, _)| !key.soft);
        links.map(|(key, place)| Entry {
            dependent: key.service,
            unless_ready: place.unless_ready(),
        })
    }

    /// Declares a grace period. Of two for one pair of services the shorter one counts. Returns the
    /// number of the declaration, or `None` if it changes nothing.
    pub(crate) fn add_grace(&mut self, edge: Edge, period: Duration) -> Option<u32> {
        self.graces.add((edge.dependent, edge.dependency), period)
    }

    /// Removes the grace period of an edge. Returns whether the dependent has no other one.
    pub(crate) fn remove_grace(&mut self, edge: Edge) -> bool {
        self.graces.remove((edge.dependent, edge.dependency));
        self.graces_since(edge.dependent, 0).next().is_none()
    }

    /// Returns the declared grace period of an edge.
    pub(crate) fn grace(&self, edge: Edge) -> Option<Duration> {
        // A soft edge beside it has none.
        if edge.soft { None } else { self.graces.get((edge.dependent, edge.dependency)) }
    }

    /// Returns the declared grace periods of a service whose numbers are greater than this one,
    /// each with its dependency.
    pub(crate) fn graces_since(
        &self,
        dependent: ServiceIndex,
        number: u32,
    ) -> impl Iterator<Item = (ServiceIndex, Duration)> {
        self.graces.since(dependent, number)
    }

    /// Returns the shortest cycle that `edge` would close over edges for which `follow` returns
    /// true: the edge itself, then the shortest path by which its dependency already depends on
    /// its dependent.
    ///
    /// Linear in the number of edges between the two. Services whose rank is not between those of
    /// the two are not visited.
    pub(crate) fn shortest_cycle(
        &self,
        edge: Edge,
        follow: impl Fn(Edge, EdgeSource) -> bool,
    ) -> Option<CyclePath> {
        let Edge { dependent, dependency, .. } = edge;
        if dependency == dependent {
            return Some(vec![dependent, dependent]);
        }
        // For each visited service, the one that depends on it, on the path from `dependency`.
        let mut reached_from = HashMap::from([(dependency, dependent)]);
        let mut queue = VecDeque::from([dependency]);
        let lowest = self.order.rank(dependent);
        loop {
            let service = queue.pop_front()?;
            if service == dependent {
                break;
            }
            for (edge, source) in self.dependencies(service) {
                let next = edge.dependency;
                if self.order.rank(next) >= lowest && follow(edge, source) {
                    if let hash_map::Entry::Vacant(entry) = reached_from.entry(next) {
                        entry.insert(service);
                        queue.push_back(next);
                    }
                }
            }
        }
        let mut path = vec![dependent];
        let mut last = dependent;
        while last != dependency {
            last = *reached_from.get(&last)?;
            path.push(last);
        }
        path.push(dependent);
        path.reverse();
        Some(path)
    }

    /// Returns the edges of all cycles that `edge` would close, without `edge` itself. Linear, as
    /// `shortest_cycle`.
    pub(crate) fn edges_of_cycles(&self, edge: Edge) -> Vec<(Edge, EdgeSource)> {
        let Edge { dependent, dependency, .. } = edge;
        let (lowest, highest) = (self.order.rank(dependent), self.order.rank(dependency));
        let is_between =
            |service: &ServiceIndex| (lowest..=highest).contains(&self.order.rank(*service));
        // All services that depend on the dependent, and those of them on which the dependency
        // depends.
        let above: HashSet<ServiceIndex> = reachable(dependent, |service| {
            self.dependents(service).map(|edge| edge.dependent).filter(is_between)
        })
        .into_iter()
        .collect();
        let on_cycles = reachable(dependency, |service| {
            let below = self.dependencies(service).map(|(edge, _)| edge.dependency);
            below.filter(|service| above.contains(service))
        });
        let edges = on_cycles.into_iter().flat_map(|service| self.dependencies(service));
        edges.filter(|(edge, _)| above.contains(&edge.dependency)).collect()
    }

    fn links(&self, service: ServiceIndex) -> &ServiceLinks {
        &self.services[service.as_usize()]
    }

    fn links_mut(&mut self, service: ServiceIndex) -> &mut ServiceLinks {
        &mut self.services[service.as_usize()]
    }
}

/// Returns `start` and all services that are reachable from it.
fn reachable<I: Iterator<Item = ServiceIndex>>(
    start: ServiceIndex,
    next: impl Fn(ServiceIndex) -> I,
) -> Vec<ServiceIndex> {
    let mut visited = HashSet::from([start]);
    let mut all = vec![start];
    let mut followed = 0;
    while let Some(&service) = all.get(followed) {
        followed += 1;
        all.extend(next(service).filter(|&next| visited.insert(next)));
    }
    all
}
