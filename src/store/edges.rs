//! The edges of the graph, as the rest of the crate adds and reads them, and the reads of a
//! dependency that follow the publication of an edge.

use std::sync::Arc;
#[cfg(feature = "supervise")]
use std::time::Duration;

use super::{
    CyclePath, Declaration, Discovered, Edge, NotDeclared, Received, Store, Tag,
    fence_before_check, undecided::resolve_to_build,
};
#[cfg(feature = "supervise")]
use super::{DependencyKind, Given, Phase};
use crate::{
    instance::Instance,
    numbers::{Generation, ServiceIndex},
    service::ServiceId,
};

/// The result of a search for a dependent.
#[cfg(feature = "supervise")]
pub(crate) enum FoundDependent {
    At(Edge),
    /// The search has ended early, and continues at this edge.
    NotYet(Edge),
    None,
}

impl Store {
    /// Declares an edge.
    pub(crate) fn declare(&self, declaration: Declaration) -> Result<(), NotDeclared> {
        let grace = self.topology.declare(self, declaration)?;
        #[cfg(not(feature = "supervise"))]
        let _ = grace;
        #[cfg(feature = "supervise")]
        self.service(declaration.dependent).declares.set();
        #[cfg(feature = "supervise")]
        if let Some(number) = grace {
            // Before the waiters are woken: the supervisor checks this number (W).
            self.service(declaration.dependent).graces_declared.set_at_least(number);
            self.wake(declaration.dependent);
        }
        Ok(())
    }

    /// Returns the number of the last grace period that was declared for a service, or 0. All
    /// periods with smaller numbers are in the graph.
    #[cfg(feature = "supervise")]
    pub(crate) fn graces_declared(&self, dependent: ServiceIndex) -> u32 {
        self.service(dependent).graces_declared.get()
    }

    /// Returns the declared grace periods of a service whose numbers are greater than this one,
    /// each with its dependency.
    #[cfg(feature = "supervise")]
    pub(crate) fn graces_since(
        &self,
        dependent: ServiceIndex,
        number: u32,
    ) -> Vec<(ServiceIndex, Duration)> {
        self.topology.read(|graph| graph.graces_since(dependent, number).collect())
    }

    /// Returns the present instance of each service to which an edge of any kind is declared.
    #[cfg(feature = "supervise")]
    pub(crate) fn declared(&self, dependent: ServiceIndex) -> Vec<Given> {
        // Most services have none, and then this is called for each build.
        if !self.service(dependent).declares.is_set() {
            return Vec::new();
        }
        let mut declared: Vec<Given> = self.topology.read(|graph| {
            let edges = graph.dependencies(dependent);
            let edges = edges.filter(|(_, source)| source.is_declared());
            edges.map(|(edge, _)| (edge.dependency, None)).collect()
        });
        for (dependency, instance) in &mut declared {
            *instance = self.instance_to_build_from(*dependency);
        }
        declared
    }

    /// Returns the first service to which an edge of any kind is declared.
    pub(crate) fn first_declared(&self, dependent: ServiceIndex) -> Option<ServiceIndex> {
        self.topology.read(|graph| {
            let mut edges = graph.dependencies(dependent);
            edges.find(|(_, source)| source.is_declared()).map(|(edge, _)| edge.dependency)
        })
    }

    /// Returns whether an edge from one service to another one would close a cycle. Linear, as
    /// `Graph::shortest_cycle`.
    #[cfg(feature = "supervise")]
    pub(crate) fn would_close_cycle(&self, edge: Edge) -> bool {
        self.topology.read(|graph| graph.shortest_cycle(edge, |_, _| true).is_some())
    }

    /// Called once, when the registry is built.
    pub(crate) fn build(&self) {
        self.topology.build(self);
    }

    /// Publishes an edge that an attempt of the dependent uses.
    pub(crate) fn discover(
        &self,
        edge: Edge,
        generation: Generation,
        start_only: bool,
    ) -> Result<Discovered, CyclePath> {
        self.topology.discover(self, edge, Tag::starting(generation), start_only)
    }

    /// Returns the current instance of a dependency, for an attempt that has published its edge.
    ///
    /// Returns `None` if the service is not ready or is condemned. In both cases its state will
    /// change, so the attempt can wait for that. Returns `None`, too, if a planned end has marked
    /// the service: the mark is read after the edge was published, so either the last pass of the
    /// plan finds the edge, or this call finds the mark (S4).
    pub(crate) fn read_to_build<T>(&self, id: ServiceId<T>) -> Option<Arc<Instance<T>>> {
        let (cell, slot) = self.open(id)?;
        // Between the publication of the edge and the read of `condemned`. The race with a
        // cascade is described in `Store::condemn`.
        fence_before_check();
        // Before the state: after the end of a restart, the mark is removed, and the state shows
        // that the instance is down.
        if self.service(id.index()).end_mark.is_set() {
            return None;
        }
        // A switch that is pending is waited for: if this attempt received the old instance now,
        // the commit might not find it.
        let instance = resolve_to_build(cell, cell.load_full()?)?;
        // A condemned instance is still served to readers, but nothing new is built from it (A1).
        let current = slot.state.load() == Tag::ready(Instance::generation(&instance));
        let usable = current && slot.condemned.load() == Instance::generation(&instance);
        usable.then_some(instance)
    }

    /// Returns the current instance that an attempt could get: none if a planned end has marked the
    /// service.
    #[cfg(feature = "supervise")]
    pub(crate) fn instance_to_build_from(&self, index: ServiceIndex) -> Option<Received> {
        let (state, revision) = self.state_and_revision(index);
        let is_ready = state.phase() == Phase::Ready && !self.service(index).end_mark.is_set();
        is_ready.then(|| (state.generation(), revision))
    }

    /// As [`read_to_build`](Self::read_to_build), for a service of any type. Returns what
    /// identifies the instance.
    pub(crate) fn read_any_to_build(&self, index: ServiceIndex) -> Option<Received> {
        (self.service(index).operations.read_to_build)(self, index)
    }

    /// Searches the edges to the dependency of `from`, from that edge on, for one with an awaited
    /// dependent: of all kinds, or the hard ones only. Counts each edge that it visits down in
    /// `budget`, and ends when that is 0.
    ///
    /// `is_awaited` is called under the lock of the topology.
    #[cfg(feature = "supervise")]
    pub(crate) fn find_dependent(
        &self,
        from: Edge,
        hard_only: bool,
        budget: &mut usize,
        is_awaited: impl Fn(ServiceIndex) -> bool,
    ) -> FoundDependent {
        self.topology.read(|graph| {
            let mut from = from;
            while let Some(edge) = graph.first_dependent_from(from) {
                // The soft edges are the last ones.
                if hard_only && edge.soft {
                    break;
                }
                let counts = || !hard_only || graph.kind(edge) == Some(DependencyKind::Hard);
                if is_awaited(edge.dependent) && counts() {
                    return FoundDependent::At(edge);
                }
                if *budget == 0 {
                    return FoundDependent::NotYet(edge);
                }
                *budget -= 1;
                from = edge.next_dependent();
            }
            FoundDependent::None
        })
    }

    /// Returns the dependents of a service that fail together with it.
    #[cfg(feature = "supervise")]
    pub(crate) fn hard_dependents(&self, index: ServiceIndex) -> Vec<ServiceIndex> {
        self.topology.read(|graph| {
            let is_hard = |edge: &Edge| graph.kind(*edge) == Some(DependencyKind::Hard);
            // The soft edges are the last ones.
            let edges = graph.dependents(index).take_while(|edge| !edge.soft);
            edges.filter(is_hard).map(|edge| edge.dependent).collect()
        })
    }

    pub(crate) fn dependents(&self, index: ServiceIndex) -> Vec<Edge> {
        self.topology.read(|graph| graph.dependents(index).collect())
    }
}
