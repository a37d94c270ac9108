//! Draining: the wait until all instances of a generation that has ended have been dropped.

use std::{sync::Arc, time::Duration};

use super::Running;
use crate::{
    error::{DrainError, MustAwaitError},
    registry::{CountHolders, Registry},
    service::ServiceId,
    store::{InstanceTracker, Store},
    waiting::{
        Wait,
        sealed::{BlockingCondition, Condition, WaitSlots},
    },
};

impl<T: Send + Sync + 'static> Running<T> {
    /// Returns the number of holders of instances of this generation: guards, clones of the `Arc`,
    /// and [cached readers](crate::Cached) that have not reloaded since then.
    ///
    /// While the generation is ready, the registry is a holder, and guards are not counted. The
    /// number is for logs and status pages: it can change at any time. Blocking: it takes a short
    /// lock.
    ///
    /// ```
    /// let registry = mainstay::Registry::with_capacity(1)?;
    /// let port = registry.register::<u16>("port")?;
    /// let provider = registry.provide(port)?;
    /// let running = provider.begin().wait_blocking()?.ready(80)?;
    /// let held = registry.get_arc(port)?;
    /// assert_eq!(running.holders(), 2);
    /// registry.fail(port, "closed")?;
    /// assert!(running.drained().wait_blocking_timeout(std::time::Duration::ZERO).is_err());
    /// assert_eq!(running.holders(), 1);
    /// drop(held);
    /// running.drained().wait_blocking()?;
    /// assert_eq!(running.holders(), 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn holders(&self) -> usize {
        self.tracker.holders()
    }

    /// Waits until this generation has ended, and all its instances have been dropped, including
    /// those that were [replaced](Self::replace).
    ///
    /// Use it for a resource that must not exist twice, such as a port or a locked file. An idle
    /// [cached reader](crate::Cached) holds its instance until it is
    /// [released](crate::Cached::release), is read again, or is dropped.
    ///
    /// The wait is cancel-safe. A closed registry does not end it, because readers may still hold
    /// instances.
    ///
    /// # Errors
    ///
    /// [`DrainError`]: the timeout expired. It contains the number of holders.
    ///
    /// ```
    /// use mainstay::error::DrainError;
    /// use std::time::Duration;
    ///
    /// let registry = mainstay::Registry::with_capacity(1)?;
    /// let port = registry.register::<u16>("port")?;
    /// let provider = registry.provide(port)?;
    /// let running = provider.begin().wait_blocking()?.ready(80)?;
    /// let request = registry.get(port)?;
    /// registry.fail(port, "closed")?;
    ///
    /// let drained = running.drained().wait_blocking_timeout(Duration::from_millis(1));
    /// assert!(matches!(drained, Err(DrainError::TimedOut { holders: 1, .. }))); // the request
    /// drop(request);
    /// running.drained().wait_blocking()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn drained(&self) -> Drained<'_, T> {
        Wait::new(DrainedCondition { running: self })
    }

    /// Takes the tracker of the instances, after the generation has ended. The handle has an empty
    /// one from then on.
    pub(crate) fn take_tracker(&mut self) -> InstanceTracker<T> {
        self.tracker.take()
    }
}

/// The wait of [`Running::drained`]. It borrows the handle, which counts the holders.
pub type Drained<'a, T> = Wait<DrainedCondition<'a, T>>;

/// A generation has ended, and all its instances have been dropped.
pub struct DrainedCondition<'a, T: Send + Sync + 'static> {
    running: &'a Running<T>,
}

impl<T: Send + Sync + 'static> Condition for DrainedCondition<'_, T> {
    type Output = Result<(), DrainError>;

    fn check(&mut self) -> Option<Self::Output> {
        let Running { registry, id, generation, tracker, .. } = self.running;
        // The slot first: its own reference would keep the instance alive, and its removal leaves
        // a counted reference with each guard.
        registry.store().remove_value(*id, *generation);
        tracker.is_drained().then_some(Ok(()))
    }

    fn slots(&self) -> WaitSlots {
        WaitSlots::of(self.running.id.index())
    }

    fn store(&self) -> &Store {
        self.running.registry.store()
    }

    fn timed_out(&self, after: Duration) -> Self::Output {
        let service = self.running.registry.store().name(self.running.id.index());
        Err(DrainError::TimedOut { service, holders: self.running.holders(), after })
    }
}

impl<T: Send + Sync + 'static> BlockingCondition for DrainedCondition<'_, T> {
    fn must_await(&self) -> Self::Output {
        let service = self.running.registry.store().name(self.running.id.index());
        Err(MustAwaitError::new(service).into())
    }
}

/// The instances of several generations of a service that have ended.
pub(crate) struct Readers<T>(pub(crate) Vec<Arc<InstanceTracker<T>>>);

impl<T: Send + Sync> CountHolders for Readers<T> {
    fn holders(&self) -> usize {
        self.0.iter().map(|tracker| tracker.holders()).sum()
    }
}

/// All instances of several generations of a service have been dropped. Their running handles were
/// dropped, so their values are no longer in the slot, or are about to be removed.
pub(crate) struct AllDrained<'a, T> {
    pub(crate) registry: &'a Registry,
    pub(crate) id: ServiceId<T>,
    pub(crate) readers: &'a Readers<T>,
}

impl<T: Send + Sync + 'static> Condition for AllDrained<'_, T> {
    type Output = ();

    fn check(&mut self) -> Option<()> {
        self.readers.0.iter().all(|tracker| tracker.is_drained()).then_some(())
    }

    fn slots(&self) -> WaitSlots {
        WaitSlots::of(self.id.index())
    }

    fn store(&self) -> &Store {
        self.registry.store()
    }

    fn timed_out(&self, _: Duration) {}
}
