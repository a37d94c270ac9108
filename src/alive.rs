//! Counts the instances of a generation that have not been dropped, for `Running::drained`.

use std::sync::{Arc, Weak};

use crate::{
    numbers::ServiceIndex,
    sync::{AtomicU32, Ordering},
};

/// Something that can wake the waiters of a slot: a registry.
pub(crate) trait Wakes: Send + Sync {
    fn wake(&self, index: ServiceIndex);
}

/// The number of instances of one generation that have not been dropped, and the slot whose waiters
/// are woken if it decreases.
pub(crate) struct AliveCount {
    count: AtomicU32,
    owner: Weak<dyn Wakes>,
    index: ServiceIndex,
}

/// A field of each instance, after its value: its drop reports that the value has been dropped.
pub(crate) struct DropNotice(Arc<AliveCount>);

impl AliveCount {
    pub(crate) fn new(owner: Weak<dyn Wakes>, index: ServiceIndex) -> Self {
        Self { count: AtomicU32::new(0), owner, index }
    }

    /// Relaxed: the count is trusted only after the generation has ended, and instances are created
    /// only before that.
    fn increment(&self) {
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    /// Release: pairs with `is_none`, which then sees the effects of the value's `Drop`.
    fn decrement(&self) {
        self.count.fetch_sub(1, Ordering::Release);
    }

    /// Acquire: pairs with `decrement`.
    pub(crate) fn is_none(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }
}

impl DropNotice {
    pub(crate) fn new(alive: &Arc<AliveCount>) -> Self {
        alive.increment();
        Self(Arc::clone(alive))
    }
}

impl Drop for DropNotice {
    fn drop(&mut self) {
        let Self(alive) = self;
        // Before the wake-up: the check that it causes must read the new count.
        alive.decrement();
        if let Some(owner) = alive.owner.upgrade() {
            owner.wake(alive.index);
        }
    }
}
