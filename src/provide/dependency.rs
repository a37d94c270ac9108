//! The wait of an attempt for a dependency, by a typed or an untyped id.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

#[cfg(feature = "supervise")]
use crate::store::AnyInstance;
use crate::{
    error::{DependencyUnavailable, MustAwaitError, WaitForError},
    instance::{Instance, InstanceId},
    numbers::{Generation, ServiceIndex},
    registry::{self, Registry},
    service::{AnyId, ServiceId},
    store::{Awaited, Edge, Received, Store, UsedEdges},
    waiting::{
        Wait,
        sealed::{BlockingCondition, Condition, WaitSlots},
    },
};

/// The wait of [`Attempt::wait_for`](crate::Attempt::wait_for) and
/// [`Attempt::wait_to_start`](crate::Attempt::wait_to_start). It borrows the attempt, which records
/// the edges that it uses.
pub type WaitFor<'a, D> = Wait<DependencyWait<'a, ServiceId<D>>>;

/// The wait of [`Attempt::wait_for_any`](crate::Attempt::wait_for_any) and
/// [`Attempt::wait_to_start_any`](crate::Attempt::wait_to_start_any). It borrows the attempt, which
/// records the edges that it uses.
pub type WaitForAny<'a> = Wait<DependencyWait<'a, AnyId>>;

/// The id of a dependency. It decides what a wait returns: the instance, or what identifies it.
pub trait DependencyId: Copy + Into<AnyId> + Unpin {
    type Instance;

    /// Returns the current instance, and what identifies it (`Store::read_to_build`).
    fn read_to_build(self, store: &Store) -> Option<(Self::Instance, Received)>;

    /// Returns an instance of this service that a reload has prepared.
    #[cfg(feature = "supervise")]
    fn of_prepared(self, instance: AnyInstance, received: Received) -> Option<Self::Instance>;
}

impl<D: Send + Sync + 'static> DependencyId for ServiceId<D> {
    type Instance = Arc<Instance<D>>;

    fn read_to_build(self, store: &Store) -> Option<(Self::Instance, Received)> {
        let instance = store.read_to_build(self)?;
        let received = (Instance::generation(&instance), Instance::revision(&instance));
        Some((instance, received))
    }

    #[cfg(feature = "supervise")]
    fn of_prepared(self, instance: AnyInstance, _: Received) -> Option<Self::Instance> {
        instance.downcast().ok()
    }
}

impl DependencyId for AnyId {
    type Instance = InstanceId;

    fn read_to_build(self, store: &Store) -> Option<(Self::Instance, Received)> {
        let received = store.read_any_to_build(store.index(self)?)?;
        let (generation, revision) = received;
        Some((InstanceId { service: self, generation, revision: Some(revision) }, received))
    }

    #[cfg(feature = "supervise")]
    fn of_prepared(self, _: AnyInstance, received: Received) -> Option<Self::Instance> {
        let (generation, revision) = received;
        Some(InstanceId { service: self, generation, revision: Some(revision) })
    }
}

/// A dependency is ready, or the attempt that waits for it has ended.
pub struct DependencyWait<'a, I> {
    pub(crate) registry: &'a Registry,
    pub(crate) dependent: ServiceIndex,
    pub(crate) generation: Generation,
    pub(crate) edges: &'a UsedEdges,
    pub(crate) id: I,
    /// The dependency is needed only until the attempt is published.
    pub(crate) start_only: bool,
    /// The edge has been published.
    pub(crate) known: bool,
    /// It has started, and the status of the dependent shows it.
    shown: Option<u64>,
}

impl<'a, I: DependencyId> DependencyWait<'a, I> {
    /// The wait of the attempt at `dependent` of `generation`, which records its edges in `edges`.
    pub(crate) fn new(
        registry: &'a Registry,
        (dependent, generation): (ServiceIndex, Generation),
        edges: &'a UsedEdges,
        id: I,
        start_only: bool,
    ) -> Self {
        Self { registry, dependent, generation, edges, id, start_only, known: false, shown: None }
    }

    /// Returns the index of the dependency. The id was checked before.
    fn dependency(&self) -> ServiceIndex {
        self.id.into().index
    }

    /// Adds the soft edge to the same dependency, beside the edge of this wait.
    #[cfg(feature = "supervise")]
    pub(crate) fn add_soft_edge(&self) -> Result<(), WaitForError> {
        self.discover(true, false)
    }

    fn discover(&self, soft: bool, start_only: bool) -> Result<(), WaitForError> {
        let edge = Edge { dependent: self.dependent, dependency: self.dependency(), soft };
        let store = self.registry.store();
        self.edges
            .discover(store, edge, self.generation, start_only)
            .map_err(|cycle| registry::cycle_error(store, cycle).into())
    }
}

impl<I: DependencyId> Condition for DependencyWait<'_, I> {
    type Output = Result<I::Instance, WaitForError>;

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
            if let Err(cycle) = self.discover(false, self.start_only) {
                return Some(Err(cycle));
            }
            self.known = true;
        }
        let Some((instance, received)) = self.id.read_to_build(store) else {
            // After a shutdown has marked it, it never becomes ready again.
            return store
                .service(dependency)
                .end_mark
                .is_final()
                .then(|| Err(WaitForError::Stopped { service: store.name(dependency) }));
        };
        self.edges.receive(dependency, received, self.start_only);
        Some(Ok(instance))
    }

    fn slots(&self) -> WaitSlots {
        WaitSlots::of(self.dependent).and(Some(self.dependency()))
    }

    fn store(&self) -> &Store {
        self.registry.store()
    }

    fn timed_out(&self, after: Duration) -> Self::Output {
        // A wait that has returned the error of a foreign id already can still be waited for again.
        let index = self.registry.index(self.id.into())?;
        let missing = DependencyUnavailable::timed_out(self.registry, index, after);
        Err(WaitForError::TimedOut(missing))
    }

    fn now_if_observed(&self) -> Option<Instant> {
        self.registry.now_if_observed()
    }

    fn on_start(&mut self) {
        let (store, dependency) = (self.registry.store(), self.dependency());
        let awaited = Awaited::Dependency(dependency);
        self.shown = Some(store.wait_started(self.dependent, self.generation, awaited));
        self.registry.review_waits(self.dependent);
        self.registry.wait_started(dependency, Some(self.dependent));
    }

    fn on_end(&mut self, started_at: Option<Instant>) {
        if let Some(shown) = self.shown.take() {
            if self.registry.store().wait_ended(self.dependent, shown) {
                self.registry.review_waits(self.dependent);
            }
        }
        self.registry.wait_ended(self.dependency(), Some(self.dependent), started_at);
    }
}

impl<I: DependencyId> BlockingCondition for DependencyWait<'_, I> {
    fn must_await(&self) -> Self::Output {
        Err(MustAwaitError::new(self.registry.name_of(self.id)?).into())
    }
}
