//! The receiver: it owns the values of the instances of one service, as soon as no reader holds
//! them (H).

use std::{sync::Arc, time::Duration};

use super::{Attempt, Running};
use crate::{
    error::{DrainError, ReadyError},
    instance::{Instance, InstanceNumber},
    registry::Registry,
    service::ServiceId,
    store::{Claimed, HandOver, HandedOver, InstanceTracker, Next, Store},
    waiting::{
        Wait,
        sealed::{Condition, WaitSlots},
    },
};

/// Receives the values of the instances of one service that were published for it
/// ([`Attempt::ready_for`]), in all generations: each when its last reference is dropped.
///
/// Its drop drops the values that were handed over and not taken. Later ones are dropped by the
/// thread that drops the last reference, as without a receiver.
pub(crate) struct Receiver<T: Send + Sync + 'static> {
    registry: Registry,
    id: ServiceId<T>,
    hand_over: Arc<HandOver<T>>,
}

impl<T: Send + Sync + 'static> Receiver<T> {
    /// Returns a receiver for the service of a provider of this registry.
    pub(crate) fn new(registry: &Registry, id: ServiceId<T>) -> Self {
        Self { registry: registry.clone(), id, hand_over: Arc::new(HandOver::new()) }
    }

    /// Waits for the next value that is handed over. Returns `None` if there is none, and no
    /// instance is claimed. A current instance is claimed, unless it is waived. So while the
    /// service is ready, the wait ends only with a value that was replaced.
    ///
    /// The wait is cancel-safe. A closed registry does not end it, because readers may still hold
    /// instances.
    ///
    /// # Errors
    ///
    /// [`DrainError`]: the timeout expired. It contains the number of holders.
    pub(crate) fn next(&self) -> Wait<NextValue<'_, T>> {
        Wait::new(NextValue { receiver: self })
    }

    /// Returns the instances whose values have not been handed over, in the order of their
    /// publication.
    pub(crate) fn held(&self) -> Vec<Claimed> {
        self.hand_over.held()
    }

    /// Waives the values of the instances that are still held, up to this one, and returns a
    /// reference to each: from then on, the thread that drops the last reference drops the value.
    /// If that is this thread, it can take the value (`Arc::into_inner`, `Instance::into_value`).
    ///
    /// A value that is about to be handed over is not waived: `next` returns it.
    pub(crate) fn waive(&self, up_to: InstanceNumber) -> Vec<Arc<Instance<T>>> {
        self.hand_over.waive(up_to)
    }
}

impl<T: Send + Sync + 'static> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.hand_over.close();
    }
}

impl<T: Send + Sync + 'static> Attempt<T> {
    /// As [`ready`](Self::ready). The values of this generation, the first one and its
    /// replacements, are handed over to the receiver, which is one of this service.
    pub(crate) fn ready_for(
        &mut self,
        receiver: &Receiver<T>,
        value: T,
    ) -> Result<Running<T>, ReadyError<T>> {
        debug_assert_eq!(self.id, receiver.id, "the receiver of another service");
        let owner = Arc::downgrade(self.registry.inner());
        let hand_over = Some(Arc::clone(&receiver.hand_over));
        let tracker = InstanceTracker::new(owner, self.id.index(), hand_over);
        self.publish(value, tracker)
    }
}

/// A value was handed over, or none can be.
pub(crate) struct NextValue<'a, T: Send + Sync + 'static> {
    receiver: &'a Receiver<T>,
}

impl<T: Send + Sync + 'static> Condition for NextValue<'_, T> {
    type Output = Result<Option<HandedOver<T>>, DrainError>;

    fn check(&mut self) -> Option<Self::Output> {
        match self.receiver.hand_over.take() {
            Next::HandedOver(value) => Some(Ok(Some(value))),
            Next::Nothing => Some(Ok(None)),
            Next::Held => None,
        }
    }

    fn slots(&self) -> WaitSlots {
        WaitSlots::of(self.receiver.id.index())
    }

    fn store(&self) -> &Store {
        self.receiver.registry.store()
    }

    fn timed_out(&self, after: Duration) -> Self::Output {
        let Receiver { registry, id, hand_over } = self.receiver;
        let holders = hand_over.held().iter().map(|held| held.holders).sum();
        Err(DrainError::TimedOut { service: registry.store().name(id.index()), holders, after })
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests;
