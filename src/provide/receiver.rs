//! The receiver: it owns the values of the instances of one service, as soon as no reader holds
//! them (H).

use std::sync::Arc;

use super::{Attempt, Running};
use crate::{
    error::ReadyError,
    instance::{Instance, InstanceNumber},
    registry::Registry,
    service::ServiceId,
    store::{HandOver, InstanceTracker, Next},
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

    /// Takes the first value that was handed over. If there is none, returns the first and the last
    /// of the claimed instances.
    ///
    /// The thread that hands a value over, and the one that claims the value of a replacement, wake
    /// the slot of the service afterwards.
    pub(crate) fn take(&self) -> Next<T> {
        self.hand_over.take()
    }

    /// Waives the values of the instances that are still held, up to this one, and returns a
    /// reference to each: from then on, the thread that drops the last reference drops the value.
    /// If that is this thread, it can take the value (`Arc::into_inner`, `Instance::into_value`).
    ///
    /// A value that is about to be handed over is not waived: `next` returns it.
    pub(crate) fn waive(&self, up_to: InstanceNumber) -> Vec<Arc<Instance<T>>> {
        self.hand_over.waive(up_to)
    }

    /// Wakes the tasks that wait at the slot of the service.
    pub(crate) fn wake(&self) {
        self.registry.store().wake(self.id.index());
    }

    /// Stops waiting for a value that a reader has moved out of its `Arc`, so that it cannot be
    /// waived: the reader drops it. Returns `false` if the value was handed over.
    pub(crate) fn forget(&self, number: InstanceNumber) -> bool {
        self.hand_over.forget(number)
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

// A supervisor waits for the values in the order of their publication (`supervise/closer.rs`).
// Tests and models also wait for any value.
#[cfg(all(test, not(any(loom, shuttle))))]
mod tests;
#[cfg(any(test, loom))]
mod waits;
