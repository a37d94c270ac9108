//! The edges that one attempt uses, and the instances that it has received over them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

#[cfg(feature = "supervise")]
use super::switch;
use super::{CyclePath, DependencyKind, Edge, Store, topology::Discovered};
use crate::{
    instance::BuiltFrom,
    numbers::{Generation, ServiceIndex},
};

/// The edges of an attempt.
///
/// Several waits of one attempt may use it at the same time. The mutex is one of std, also in a
/// model: it is held while an entry is changed, and orders nothing that the protocol depends on.
#[derive(Default)]
pub(crate) struct UsedEdges(Mutex<BTreeMap<EdgeKey, UsedEdge>>);

/// The dependency, and whether the edge is soft.
type EdgeKey = (ServiceIndex, bool);

#[derive(Default, Clone)]
struct UsedEdge {
    /// The attempt uses it as a discovered edge, so it is counted in `Service::discovered`.
    discovered: bool,
    /// The attempt has added the edge.
    added: bool,
    /// The instance that a wait over the hard edge has last returned.
    hard: Option<Received>,
    /// The instance that a wait over the start-only edge has last returned.
    start_only: Option<Received>,
    /// Of a soft edge: the instance that was current before the attempt has first used the edge.
    #[cfg(feature = "supervise")]
    found: Option<Received>,
}

/// The generation and the revision of an instance.
pub(crate) type Received = (Generation, u64);

/// A dependency, and the instance of it that an attempt was given. `None` if it was given none.
#[cfg(feature = "supervise")]
pub(crate) type Given = (ServiceIndex, Option<Received>);

impl UsedEdge {
    /// Returns the last instance that a wait has returned. Those of an attempt only grow.
    #[cfg(feature = "supervise")]
    fn received(&self) -> Option<Received> {
        self.hard.max(self.start_only)
    }
}

impl UsedEdges {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<EdgeKey, UsedEdge>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes an edge that the attempt of `generation` uses. If it would close a cycle, returns
    /// the path of the cycle.
    pub(crate) fn discover(
        &self,
        store: &Store,
        edge: Edge,
        generation: Generation,
        start_only: bool,
    ) -> Result<(), CyclePath> {
        // Before the builder can read the service because of the edge: a change during the build
        // must count.
        #[cfg(feature = "supervise")]
        let found = if edge.soft { store.instance_to_build_from(edge.dependency) } else { None };
        let discovered = store.discover(edge, generation, start_only)?;
        let mut edges = self.lock();
        let edge = edges.entry((edge.dependency, edge.soft)).or_insert(UsedEdge {
            #[cfg(feature = "supervise")]
            found,
            ..UsedEdge::default()
        });
        edge.discovered |= discovered != Discovered::Known;
        edge.added |= discovered == Discovered::Added;
        Ok(())
    }

    /// As `discover`, for a soft edge that a build aside uses. Returns whether it was added.
    #[cfg(feature = "supervise")]
    pub(crate) fn discover_soft_aside(
        &self,
        store: &Store,
        (dependent, generation): (ServiceIndex, Generation),
        dependency: ServiceIndex,
    ) -> Result<bool, CyclePath> {
        let found = store.instance_to_build_from(dependency);
        let added = store.discover_soft_aside(dependent, dependency, generation)?;
        let mut edges = self.lock();
        edges.entry((dependency, true)).or_insert(UsedEdge { found, ..UsedEdge::default() });
        Ok(added)
    }

    /// Records that a wait of a build aside has begun. Its edge is made known by the switch.
    #[cfg(feature = "supervise")]
    pub(crate) fn wait_aside(&self, dependency: ServiceIndex) {
        self.lock().entry((dependency, false)).or_default();
    }

    /// Returns the edges without those that `forget_received` forgets.
    #[cfg(feature = "supervise")]
    pub(crate) fn without_received(&self) -> Self {
        let copy = Self(Mutex::new(self.lock().clone()));
        copy.forget_received();
        copy
    }

    /// Records that a wait returns an instance.
    pub(crate) fn receive(&self, dependency: ServiceIndex, instance: Received, start_only: bool) {
        let mut edges = self.lock();
        let edge = edges.entry((dependency, false)).or_default();
        let received = if start_only { &mut edge.start_only } else { &mut edge.hard };
        *received = Some(instance);
    }

    /// Takes over the edges that were recorded for the same attempt elsewhere. It has none itself.
    #[cfg(feature = "supervise")]
    pub(crate) fn take(&mut self, other: &Self) {
        let edges = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(edges, &mut *other.lock());
    }

    /// Returns what the attempt was given over each edge. Over a soft edge it was given what was
    /// current before, and over another edge what a wait has last returned.
    #[cfg(feature = "supervise")]
    pub(crate) fn given(&self) -> Vec<Given> {
        let mut given: Vec<Given> = Vec::new();
        for (&(dependency, soft), edge) in self.lock().iter() {
            // Of a pair of services, the soft edge comes last. What a wait has returned is newer.
            if given.last().is_none_or(|(last, _)| *last != dependency) {
                given.push((dependency, if soft { edge.found } else { edge.received() }));
            }
        }
        given
    }

    /// Returns the dependencies of which a wait has returned an instance.
    #[cfg(feature = "supervise")]
    pub(crate) fn received(&self) -> Vec<ServiceIndex> {
        let edges = self.lock();
        let received = edges.iter().filter(|(_, edge)| edge.received().is_some());
        received.map(|(&(dependency, _), _)| dependency).collect()
    }

    /// Forgets each dependency of which a wait has returned an instance.
    #[cfg(feature = "supervise")]
    pub(crate) fn forget_received(&self) {
        let mut edges = self.lock();
        // Most attempts use no edge, or have received an instance over each of them.
        if edges.is_empty() {
            return;
        }
        if edges.values().all(|edge| edge.received().is_some()) {
            edges.clear();
            return;
        }
        let mut received = None;
        edges.retain(|&(dependency, _), edge| {
            if edge.received().is_some() {
                received = Some(dependency);
            }
            received != Some(dependency)
        });
    }

    /// Returns whether the attempt has added an edge, so that closures have changed.
    pub(super) fn any_added(&self) -> bool {
        self.lock().values().any(|edge| edge.added)
    }

    /// Returns whether the attempt has waited for a dependency for which this is true.
    #[cfg(feature = "supervise")]
    pub(crate) fn any_dependency(&self, holds: impl Fn(ServiceIndex) -> bool) -> bool {
        self.lock().keys().any(|&(dependency, _)| holds(dependency))
    }

    /// Returns whether the attempt has used a discovered edge.
    pub(crate) fn any_discovered(&self) -> bool {
        self.lock().values().any(|edge| edge.discovered)
    }

    /// Returns the number of discovered edges that an instance of the attempt needs: the soft ones,
    /// and the hard ones over which it has received an instance.
    pub(super) fn needed(&self) -> u32 {
        let edges = self.lock();
        let needed = edges
            .iter()
            .filter(|((_, soft), edge)| edge.discovered && (*soft || edge.hard.is_some()));
        needed.count() as u32
    }

    /// Returns whether the attempt has received an instance over a hard edge to `dependency`.
    pub(super) fn has_received(&self, dependency: ServiceIndex) -> bool {
        self.lock().get(&(dependency, false)).is_some_and(|edge| edge.hard.is_some())
    }

    /// Returns the edges over which it has received an instance.
    #[cfg(feature = "supervise")]
    pub(super) fn used(&self) -> Vec<switch::UsedEdge> {
        let edges = self.lock();
        let used = edges.iter().flat_map(|(&(dependency, _), edge)| {
            let used = |start_only, received: Option<Received>| {
                Some(switch::UsedEdge { dependency, start_only, received: received? })
            };
            [used(false, edge.hard), used(true, edge.start_only)].into_iter().flatten()
        });
        used.collect()
    }

    /// Returns the instances that the attempt has received, or `None` if there are none.
    pub(crate) fn built_from(&self, store: &Store) -> Option<Arc<[BuiltFrom]>> {
        let edges = self.lock();
        // A service without dependencies pays nothing for those of others.
        if edges.is_empty() {
            return None;
        }
        let received = edges.iter().flat_map(|(&(dependency, _), edge)| {
            let service = store.id(dependency);
            let from = move |kind, received: Option<Received>| {
                let (generation, revision) = received?;
                Some(BuiltFrom { service, generation, revision, kind })
            };
            let hard = from(DependencyKind::Hard, edge.hard);
            hard.into_iter().chain(from(DependencyKind::StartOnly, edge.start_only))
        });
        let built_from: Vec<BuiltFrom> = received.collect();
        (!built_from.is_empty()).then(|| built_from.into())
    }
}
