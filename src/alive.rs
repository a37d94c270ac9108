//! Counts the instances of a generation that have not been dropped, for `Running::drained`, and
//! finds the receiver to which their values are handed over.

use std::sync::{Arc, Weak};

use crate::{
    instance::{Instance, InstanceNumber},
    numbers::ServiceIndex,
    store::HandOver,
    sync::{AtomicU32, Ordering},
};

/// Something that can wake the waiters of a slot: a registry.
pub(crate) trait Wakes: Send + Sync {
    fn wake(&self, index: ServiceIndex);
}

/// The number of instances of one generation that have not been dropped, and the slot whose waiters
/// are woken if it decreases.
pub(crate) struct AliveCount<T> {
    count: AtomicU32,
    owner: Weak<dyn Wakes>,
    index: ServiceIndex,
    /// `None`: the values are dropped.
    hand_over: Option<Arc<HandOver<T>>>,
}

/// A part of each instance, after its value: it hands the value over, and its drop reports that the
/// value has been dropped or handed over.
pub(crate) struct DropNotice<T>(Arc<AliveCount<T>>);

impl<T> AliveCount<T> {
    pub(crate) fn new(
        owner: Weak<dyn Wakes>,
        index: ServiceIndex,
        hand_over: Option<Arc<HandOver<T>>>,
    ) -> Self {
        Self { count: AtomicU32::new(0), owner, index, hand_over }
    }

    pub(crate) fn hand_over(&self) -> Option<&HandOver<T>> {
        self.hand_over.as_deref()
    }

    /// Relaxed: the count is trusted only after the generation has ended, and instances are created
    /// only before that.
    fn increment(&self) {
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    /// Release: pairs with `is_none`, which then sees the effects of the value's `Drop`, or finds
    /// the value handed over.
    fn decrement(&self) {
        self.count.fetch_sub(1, Ordering::Release);
    }

    /// Acquire: pairs with `decrement`.
    pub(crate) fn is_none(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }
}

impl<T> DropNotice<T> {
    pub(crate) fn new(alive: &Arc<AliveCount<T>>) -> Self {
        alive.increment();
        Self(Arc::clone(alive))
    }

    /// Claims the value of the instance for the receiver, if there is one.
    pub(crate) fn claim(&self, instance: &Arc<Instance<T>>) {
        if let Some(hand_over) = self.0.hand_over() {
            hand_over.claim(instance);
        }
    }

    /// Hands the value of the instance over by `take`, if a receiver claims it. Called when the
    /// last reference to the instance was dropped, before the drop of this notice.
    #[inline]
    pub(crate) fn hand_over(&self, number: InstanceNumber, take: impl FnOnce() -> T) {
        if let Some(hand_over) = self.0.hand_over() {
            hand_over.hand_over(number, take);
        }
    }
}

impl<T> Drop for DropNotice<T> {
    fn drop(&mut self) {
        let Self(alive) = self;
        // Before the wake-up: the check that it causes must read the new count.
        alive.decrement();
        if let Some(owner) = alive.owner.upgrade() {
            owner.wake(alive.index);
        }
    }
}
