//! The running handle of a published instance, and the wait for the end of a generation.

use std::{error::Error, sync::Arc, time::Duration};

use super::debug_by_service;
use crate::{
    error::{MustAwaitError, ReplaceError, WaitError},
    event::EventKind,
    failure::{Cascade, Failure, Reason},
    instance::{Instance, Origin},
    numbers::{Generation, ServiceIndex},
    registry::Registry,
    service::ServiceId,
    store::{InstanceTracker, Refused, Store, Target},
    sync::Shielded,
    waiting::{
        Wait,
        sealed::{BlockingCondition, Condition, WaitSlots},
    },
};
#[cfg(feature = "supervise")]
use crate::{registry::Reload, supervise::BuildFailure};

/// The handle of a published instance. [`Attempt::ready`](crate::Attempt::ready) returns it; its
/// drop fails the instance.
///
/// ```
/// # let registry = mainstay::Registry::with_capacity(1)?;
/// # let port = registry.register::<u16>("port")?;
/// # let provider = registry.provide(port)?;
/// let running = provider.begin().wait_blocking()?.ready(80)?;
/// assert!(registry.get(port).is_ok());
/// drop(running);
/// assert!(registry.get(port).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Running<T: Send + Sync + 'static> {
    pub(crate) registry: Registry,
    pub(crate) id: ServiceId<T>,
    pub(crate) generation: Generation,
    /// The replacements have the same one.
    pub(crate) origin: Origin,
    pub(crate) tracker: InstanceTracker<T>,
}

impl<T: Send + Sync + 'static> Running<T> {
    /// Returns the generation of the instance.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<u16>("port")?;
    /// # let provider = registry.provide(port)?;
    /// let running = provider.begin().wait_blocking()?.ready(80)?;
    /// assert_eq!(running.generation(), 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// Returns the current instance of this generation (it may have been
    /// [replaced](Self::replace)), or `None` if the generation has ended.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<u16>("port")?;
    /// # let provider = registry.provide(port)?;
    /// let running = provider.begin().wait_blocking()?.ready(80)?;
    /// // A provider need not fail the service if the new value is equal.
    /// let new = 80;
    /// if running.instance().is_some_and(|old| **old != new) {
    ///     running.fail("changed");
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn instance(&self) -> Option<Arc<Instance<T>>> {
        let instance = self.registry.get_arc(self.id).ok()?;
        (Instance::generation(&instance) == self.generation).then_some(instance)
    }

    /// Waits until the instance has failed, and returns the failure. It names the service with
    /// which the cascade began, its generation, and the reason.
    ///
    /// The wait is cancel-safe, and borrows nothing.
    ///
    /// # Errors
    ///
    /// - [`WaitError::Closed`]: the registry is closed, and the instance has not failed.
    /// - [`WaitError::TimedOut`]: the timeout expired.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<u16>("port")?;
    /// # let provider = registry.provide(port)?;
    /// let running = provider.begin().wait_blocking()?.ready(80)?;
    /// registry.fail(port, "closed")?;
    /// let failure = running.failed().wait_blocking()?;
    /// assert_eq!(failure.root_generation, 0);
    /// assert_eq!(failure.reason.to_string(), "closed");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn failed(&self) -> Failed {
        GenerationEnded::wait(&self.registry, self.id.index(), self.generation)
    }

    /// Replaces the value without a new generation (a hot reload): dependents stay as they are, and
    /// no reader finds the service not ready in between.
    ///
    /// If the dependents must be rebuilt, call [`fail`](Self::fail) and begin a new attempt. If the
    /// new value is equal to the old one, do neither: compare it with [`instance`](Self::instance)
    /// first.
    ///
    /// Lock-free; if the service has waiters, it locks the list of waiters for a short time.
    ///
    /// # Errors
    ///
    /// [`ReplaceError`], which returns the new value: the instance has failed.
    ///
    /// ```
    /// let registry = mainstay::Registry::with_capacity(1)?;
    /// let limit = registry.register::<u32>("limit")?;
    /// let provider = registry.provide(limit)?;
    /// let running = provider.begin().wait_blocking()?.ready(100)?;
    /// running.replace(200)?;
    /// assert_eq!(*registry.get(limit)?, 200);
    /// registry.fail(limit, "unlimited")?;
    /// assert_eq!(*running.replace(300).unwrap_err().value, 300);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn replace(&self, value: T) -> Result<(), ReplaceError<T>> {
        self.replace_of(None, value, self.origin.clone())
    }

    /// As `replace`, but refuses the value if a reload has ended the `publication`, if one is named
    /// by the revision of its first instance.
    pub(crate) fn replace_of(
        &self,
        publication: Option<u64>,
        value: T,
        origin: Origin,
    ) -> Result<(), ReplaceError<T>> {
        let (store, index) = (self.registry.store(), self.id.index());
        match store.replace(self.id, self.generation, publication, value, origin, &self.tracker) {
            Ok(revision) => {
                let (zero, kind) = (Duration::ZERO, EventKind::Replaced);
                self.registry.emit_numbered(index, self.generation, revision, zero, kind);
                Ok(())
            }
            Err(Refused(value)) => {
                Err(ReplaceError::refused(store, index, self.generation, publication, value))
            }
        }
    }

    /// Fails the instance and everything that depends on it.
    ///
    /// If the instance has already failed, or another cascade has already condemned it, nothing
    /// happens: the returned counts are zero. In the second case the instance may be readable for a
    /// short time.
    ///
    /// Lock-free over the slots; then it locks the list of waiters of each slot that has waiters,
    /// for a short time.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<u16>("port")?;
    /// # let provider = registry.provide(port)?;
    /// let running = provider.begin().wait_blocking()?.ready(80)?;
    /// assert_eq!(running.fail("changed on disk").failed, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn fail(self, reason: impl Into<Box<dyn Error + Send + Sync>>) -> Cascade {
        self.end(Reason::error(reason))
    }

    fn end(&self, reason: Shielded<Reason>) -> Cascade {
        let target = Target::any_revision(self.generation);
        self.registry.cascade(self.id.index(), target, reason).unwrap_or_default()
    }
}

impl<T: Send + Sync + 'static> Drop for Running<T> {
    fn drop(&mut self) {
        self.end(Reason::dropped(self.registry.is_closed(), Reason::RunningDropped));
        self.registry.store().abandon_value(self.id, self.generation);
    }
}

/// The wait of [`Running::failed`].
pub type Failed = Wait<GenerationEnded>;

/// The wait of [`Attempt::invalidated`](crate::Attempt::invalidated) and
/// [`Build::invalidated`](crate::supervise::Build::invalidated).
pub type Invalidated = Wait<GenerationEnded>;

/// A generation of a service has ended, by a failure.
pub struct GenerationEnded {
    registry: Registry,
    service: ServiceIndex,
    generation: Generation,
    /// For a build aside, which ends with its reload, too.
    #[cfg(feature = "supervise")]
    reload: Option<Arc<Reload>>,
}

impl GenerationEnded {
    pub(crate) fn wait(
        registry: &Registry,
        service: ServiceIndex,
        generation: Generation,
    ) -> Wait<Self> {
        Wait::new(Self {
            registry: registry.clone(),
            service,
            generation,
            #[cfg(feature = "supervise")]
            reload: None,
        })
    }

    #[cfg(feature = "supervise")]
    pub(crate) fn wait_aside(
        registry: &Registry,
        service: ServiceIndex,
        generation: Generation,
        reload: Option<Arc<Reload>>,
    ) -> Wait<Self> {
        Wait::new(Self { registry: registry.clone(), service, generation, reload })
    }
}

impl Condition for GenerationEnded {
    type Output = Result<Failure, WaitError>;

    fn check(&mut self) -> Option<Self::Output> {
        let store = self.registry.store();
        if store.slot(self.service).state.load().generation() > self.generation {
            return Some(Ok(store.failure(self.service, self.generation)));
        }
        #[cfg(feature = "supervise")]
        if self.reload.as_ref().is_some_and(|reload| reload.is_over()) {
            let reason = Reason::error(BuildFailure::Abandoned);
            return Some(Ok(store.failure_for(self.service, self.generation, reason)));
        }
        store.end_of_wait(self.service).map(Err)
    }

    fn slots(&self) -> WaitSlots {
        WaitSlots::of(self.service)
    }

    fn store(&self) -> &Store {
        self.registry.store()
    }

    fn timed_out(&self, after: Duration) -> Self::Output {
        Err(WaitError::TimedOut { service: self.registry.store().name(self.service), after })
    }
}

impl BlockingCondition for GenerationEnded {
    fn must_await(&self) -> Self::Output {
        Err(MustAwaitError::new(self.registry.store().name(self.service)).into())
    }
}

debug_by_service! {
    Running, generation;
}
