//! The instances of one generation: the provider counts their holders, and waits until they are
//! drained.

use std::{
    fmt,
    sync::{Arc, Weak},
};

use crate::{
    alive::{AliveCount, DropNotice, Wakes},
    instance::Instance,
    numbers::ServiceIndex,
    sync::{Mutex, lock},
};

/// Weak references to the instances of one generation, and the number of those that are alive.
///
/// Most generations have one instance. So a publication allocates only the count of those that are
/// alive, and no list.
pub(crate) struct InstanceTracker<T> {
    alive: Arc<AliveCount>,
    instances: Mutex<Instances<T>>,
}

/// The instances of the generation, for the count of their holders.
struct Instances<T> {
    first: Weak<Instance<T>>,
    more: Vec<Weak<Instance<T>>>,
}

impl<T> InstanceTracker<T> {
    pub(crate) fn new(owner: Weak<dyn Wakes>, index: ServiceIndex) -> Self {
        let instances = Instances { first: Weak::new(), more: Vec::new() };
        let alive = Arc::new(AliveCount::new(owner, index));
        Self { alive, instances: Mutex::new(instances) }
    }

    /// Returns the notice that a new instance contains. Its drop counts the instance as dropped.
    pub(crate) fn drop_notice(&self) -> DropNotice {
        DropNotice::new(&self.alive)
    }

    /// Records a new instance, and forgets the instances that have been dropped.
    pub(crate) fn add(&self, instance: &Arc<Instance<T>>) {
        let new = Arc::downgrade(instance);
        let Instances { first, more } = &mut *lock(&self.instances);
        more.retain(|instance| instance.strong_count() > 0);
        if first.strong_count() > 0 {
            more.push(new);
        } else {
            *first = new;
        }
    }

    /// Returns the number of references to all instances of the generation.
    pub(crate) fn holders(&self) -> usize {
        let Instances { first, more } = &*lock(&self.instances);
        first.strong_count() + more.iter().map(Weak::strong_count).sum::<usize>()
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
