//! The wait of an attempt for a dependency.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    error::WaitForError,
    numbers::{Generation, ServiceIndex},
    registry::{self, Registry},
    service::{Instance, ServiceId},
    store::{Edge, Store, UsedEdges},
    waiting::{
        Wait,
        sealed::{Condition, WaitSlots},
    },
};

/// The wait of [`Attempt::wait_for`](crate::Attempt::wait_for) and
/// [`Attempt::wait_to_start`](crate::Attempt::wait_to_start). It borrows the attempt, which records
/// the edges that it uses.
pub type WaitFor<'a, D> = Wait<DependencyWait<'a, D>>;

/// A dependency is ready, or the attempt that waits for it has ended.
pub struct DependencyWait<'a, D> {
    pub(crate) registry: &'a Registry,
    pub(crate) dependent: ServiceIndex,
    pub(crate) generation: Generation,
    pub(crate) edges: &'a UsedEdges,
    pub(crate) id: ServiceId<D>,
    /// The dependency is needed only until the attempt is published.
    pub(crate) start_only: bool,
    /// The edge has been published.
    pub(crate) known: bool,
}

impl<D> DependencyWait<'_, D> {
    pub(crate) fn edge(&self, dependency: ServiceIndex) -> Edge {
        Edge { dependent: self.dependent, dependency, soft: false }
    }
}

impl<D: Send + Sync + 'static> Condition for DependencyWait<'_, D> {
    type Output = Result<Arc<Instance<D>>, WaitForError>;

    fn check(&mut self) -> Option<Self::Output> {
        let (store, index) = (self.registry.store(), self.dependent);
        let dependency = match self.registry.index(self.id.into()) {
            Ok(dependency) => dependency,
            Err(foreign) => return Some(Err(foreign.into())),
        };
        if !store.is_starting(index, self.generation) {
            return Some(Err(WaitForError::Invalidated(store.failure(index, self.generation))));
        }
        if store.is_closed() {
            return Some(Err(WaitForError::Closed { service: store.name(dependency) }));
        }
        // Before the read: a cascade that condemns the instance after the read must find the edge.
        if !self.known {
            let edge = self.edge(dependency);
            if let Err(cycle) = self.edges.discover(store, edge, self.generation, self.start_only) {
                return Some(Err(registry::cycle_error(store, cycle).into()));
            }
            self.known = true;
        }
        let instance = store.read_to_build(self.id)?;
        self.edges.receive(&instance, self.start_only);
        Some(Ok(instance))
    }

    fn slots(&self) -> WaitSlots {
        WaitSlots::of(self.dependent).and(Some(self.id.index()))
    }

    fn store(&self) -> &Store {
        self.registry.store()
    }

    fn timed_out(&self, after: Duration) -> Self::Output {
        let service = self.registry.store().name(self.id.index());
        Err(WaitForError::TimedOut { service, after })
    }

    fn now_if_observed(&self) -> Option<Instant> {
        self.registry.now_if_observed()
    }

    fn on_start(&mut self) {
        self.registry.wait_started(self.id.index(), Some(self.dependent));
    }

    fn on_end(&mut self, started_at: Option<Instant>) {
        self.registry.wait_ended(self.id.index(), Some(self.dependent), started_at);
    }
}
