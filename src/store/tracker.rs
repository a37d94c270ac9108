//! The instances of one generation: the provider counts their holders, and waits until they are
//! drained.

use std::{
    fmt,
    sync::{Arc, Weak},
};

use crate::{
    alive::{AliveCount, DropNotice, Wakes},
    numbers::ServiceIndex,
    service::Instance,
    sync::{Mutex, lock},
};

/// Weak references to the instances of one generation, and the number of those that are alive.
pub(crate) struct InstanceTracker<T> {
    owner: Weak<dyn Wakes>,
    index: ServiceIndex,
    alive: Arc<AliveCount>,
    /// All instances of the generation, for the count of their holders. Each call of `add`
    /// removes the instances that have been dropped.
    instances: Mutex<Vec<Weak<Instance<T>>>>,
}

impl<T> InstanceTracker<T> {
    pub(crate) fn new(owner: Weak<dyn Wakes>, index: ServiceIndex) -> Self {
        let alive = Arc::new(AliveCount::none());
        Self { owner, index, alive, instances: Mutex::new(Vec::new()) }
    }

    /// Returns the notice that a new instance contains. Its drop counts the instance as dropped.
    pub(crate) fn drop_notice(&self) -> DropNotice {
        DropNotice::new(&self.owner, self.index, &self.alive)
    }

    /// Records a new instance.
    pub(crate) fn add(&self, instance: &Arc<Instance<T>>) {
        let mut instances = lock(&self.instances);
        instances.retain(|instance| instance.strong_count() > 0);
        instances.push(Arc::downgrade(instance));
    }

    /// Returns the number of references to all instances of the generation.
    pub(crate) fn holders(&self) -> usize {
        lock(&self.instances).iter().map(Weak::strong_count).sum()
    }

    /// Returns whether all instances have been dropped.
    pub(crate) fn is_drained(&self) -> bool {
        self.alive.is_none()
    }
}

impl<T> fmt::Debug for InstanceTracker<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InstanceTracker").field("holders", &self.holders()).finish()
    }
}
