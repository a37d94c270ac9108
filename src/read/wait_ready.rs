//! The waits of readers until a service is ready, by a typed or an untyped id.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::find_current_arc;
use crate::{
    error::{DependencyUnavailable, MustAwaitError, WaitReadyError},
    instance::{Instance, InstanceId},
    numbers::ServiceIndex,
    registry::Registry,
    service::{AnyId, ServiceId},
    store::{EntryNumber, Phase, Store},
    sync::shielded,
    waiting::{
        Wait,
        sealed::{BlockingCondition, Condition, WaitSlots},
    },
};

impl Registry {
    /// Waits until a service is ready, and returns its instance.
    ///
    /// This is for readers: it creates no edge. An attempt that needs a service waits for it with
    /// [`Attempt::wait_for`](crate::Attempt::wait_for), which makes it a dependency.
    ///
    /// The wait is cancel-safe, and owns a handle of the registry.
    ///
    /// # Errors
    ///
    /// - [`WaitReadyError::Closed`]: the registry is closed, and the service is not ready.
    /// - [`WaitReadyError::Stopped`]: a shutdown has stopped the service.
    /// - [`WaitReadyError::TimedOut`]: the timeout expired.
    /// - [`WaitReadyError::Stuck`]: only after [`unless_stuck`](Wait::unless_stuck).
    /// - [`WaitReadyError::ForeignId`]: the id belongs to another registry.
    ///
    /// ```
    /// let registry = mainstay::Registry::with_capacity(1)?;
    /// let port = registry.register::<u16>("port")?;
    /// let provider = registry.provide(port)?;
    /// let _running = provider.begin().wait_blocking()?.ready(80)?;
    /// assert_eq!(**registry.wait_ready(port).wait_blocking()?, 80);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn wait_ready<T: Send + Sync + 'static>(&self, id: ServiceId<T>) -> WaitReady<T> {
        Wait::new(ReadyCondition::new(self, id))
    }

    /// Waits until a service of any type is ready, and returns what identifies its instance.
    ///
    /// For code that has the name of a service ([`find`](Self::find)) and does not need its value:
    /// a tool, a test, the start of a server. Everything else is as for
    /// [`wait_ready`](Self::wait_ready). An attempt waits with
    /// [`Attempt::wait_for_any`](crate::Attempt::wait_for_any). The returned
    /// [revision](InstanceId::revision) is never `None`.
    ///
    /// # Errors
    ///
    /// As [`wait_ready`](Self::wait_ready).
    ///
    /// ```
    /// let registry = mainstay::Registry::with_capacity(1)?;
    /// let pool = registry.register::<u16>("pool")?;
    /// let provider = registry.provide(pool)?;
    /// let running = provider.begin().wait_blocking()?.ready(8)?;
    /// running.replace(16)?;
    ///
    /// let instance = registry.wait_ready_any(registry.find("pool")?).wait_blocking()?;
    /// assert_eq!(instance.service, pool.into());
    /// assert_eq!((instance.generation.get(), instance.revision), (0, Some(1)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn wait_ready_any(&self, id: impl Into<AnyId>) -> WaitReadyAny {
        Wait::new(ReadyCondition::new(self, id.into()))
    }
}

/// The wait of [`Registry::wait_ready`]. It borrows nothing.
pub type WaitReady<T> = Wait<ReadyCondition<ServiceId<T>>>;

/// The wait of [`Registry::wait_ready_any`]. It borrows nothing.
pub type WaitReadyAny = Wait<ReadyCondition<AnyId>>;

/// The id of a service. It decides what a wait returns: the instance, or what identifies it.
pub trait ReadId: Copy + Into<AnyId> + Unpin {
    type Instance;

    /// Returns the current instance of a service of this registry.
    fn read(self, store: &Store) -> Option<Self::Instance>;
}

impl<T: Send + Sync + 'static> ReadId for ServiceId<T> {
    type Instance = Arc<Instance<T>>;

    fn read(self, store: &Store) -> Option<Self::Instance> {
        let (cell, slot) = store.open(self)?;
        // The state first: a service for which a wait begins is most likely not ready, and then
        // its value need not be loaded. If the state changes after this check, the check that
        // follows the change finds the value.
        if slot.state.load().phase() != Phase::Ready {
            return None;
        }
        find_current_arc(cell, slot).map_err(|stale| shielded(|| drop(stale))).ok()
    }
}

impl ReadId for AnyId {
    type Instance = InstanceId;

    fn read(self, store: &Store) -> Option<Self::Instance> {
        let (state, revision) = store.state_and_revision(store.index(self)?);
        let generation = state.generation();
        let instance = InstanceId { service: self, generation, revision: Some(revision) };
        (state.phase() == Phase::Ready).then_some(instance)
    }
}

/// A service is ready.
pub struct ReadyCondition<I> {
    registry: Registry,
    id: I,
    /// The wait ends if the service is stuck.
    unless_stuck: bool,
    /// The last entry of the log of what is stuck that was checked.
    seen: Option<EntryNumber>,
}

impl<I> ReadyCondition<I> {
    fn new(registry: &Registry, id: I) -> Self {
        Self { registry: registry.clone(), id, unless_stuck: false, seen: None }
    }

    /// Returns the error if the service is stuck (S17).
    fn stuck(&mut self, index: ServiceIndex) -> Option<WaitReadyError> {
        if !self.unless_stuck {
            return None;
        }
        // Before the states are read.
        let last = self.registry.store().stuck.last();
        if self.seen.replace(last) == Some(last) {
            return None;
        }
        DependencyUnavailable::stuck(&self.registry, index).map(WaitReadyError::Stuck)
    }
}

impl<I: ReadId> Wait<ReadyCondition<I>> {
    /// Lets the wait end if the service is *stuck*: it cannot become ready without help.
    ///
    /// These are the cases: its supervisor has given up, failed permanently, or ended; it was
    /// stopped; and, once [start-up is complete](Registry::startup_complete), it has no provider,
    /// or its supervisor was not run. Also if it waits for a service that is stuck. Otherwise the
    /// wait lasts until a `restart`, a `start`, or a change helps.
    ///
    /// Each time that any service of the registry gets stuck, the wait is woken, and follows the
    /// path from the service to the root of the reason, at most 64 services.
    ///
    /// # Errors
    ///
    /// The wait then returns [`WaitReadyError::Stuck`].
    ///
    /// ```
    /// use mainstay::error::{self, WaitReadyError};
    ///
    /// let registry = mainstay::Registry::with_capacity(1)?;
    /// let port = registry.register::<u16>("port")?;
    /// registry.startup_complete();
    /// let error = registry.wait_ready(port).unless_stuck().wait_blocking().unwrap_err();
    /// assert!(matches!(error, WaitReadyError::Stuck(_)));
    /// let text = "port cannot become ready by itself: port: no provider";
    /// assert!(error::chain(&error).to_string().starts_with(text));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn unless_stuck(mut self) -> Self {
        self.condition_mut().unless_stuck = true;
        self
    }
}

impl<I: ReadId> Condition for ReadyCondition<I> {
    type Output = Result<I::Instance, WaitReadyError>;

    fn check(&mut self) -> Option<Self::Output> {
        let store = self.registry.store();
        let index = match self.registry.index(self.id.into()) {
            Ok(index) => index,
            Err(foreign) => return Some(Err(foreign.into())),
        };
        if let Some(instance) = self.id.read(store) {
            return Some(Ok(instance));
        }
        store.end_of_wait(index).or_else(|| self.stuck(index)).map(Err)
    }

    fn slots(&self) -> WaitSlots {
        WaitSlots::of(self.id.into().index)
    }

    fn store(&self) -> &Store {
        self.registry.store()
    }

    fn reads_stuck_log(&self) -> bool {
        self.unless_stuck
    }

    fn timed_out(&self, after: Duration) -> Self::Output {
        // A wait that has returned the error of a foreign id already can still be waited for again.
        let index = self.registry.index(self.id.into())?;
        Err(WaitReadyError::TimedOut(DependencyUnavailable::timed_out(
            &self.registry,
            index,
            after,
        )))
    }

    fn now_if_observed(&self) -> Option<Instant> {
        self.registry.now_if_observed()
    }

    fn on_start(&mut self) {
        self.registry.wait_started(self.id.into().index, None);
    }

    fn on_end(&mut self, started_at: Option<Instant>) {
        self.registry.wait_ended(self.id.into().index, None, started_at);
    }
}

impl<I: ReadId> BlockingCondition for ReadyCondition<I> {
    fn must_await(&self) -> Self::Output {
        Err(MustAwaitError::new(self.registry.name_of(self.id)?).into())
    }
}
