//! The instances of one generation: the provider counts their holders, and waits until they are
//! drained.

use std::{
    fmt, mem,
    sync::{Arc, Weak},
};

use super::hand_over::HandOver;
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
    alive: Arc<AliveCount<T>>,
    instances: Mutex<Instances<T>>,
}

/// The instances of the generation, for the count of their holders.
struct Instances<T> {
    first: Weak<Instance<T>>,
    more: Vec<Weak<Instance<T>>>,
}

impl<T> InstanceTracker<T> {
    /// `hand_over` receives the values of the instances. `None`: the thread that drops the last
    /// reference to an instance drops its value.
    pub(crate) fn new(
        owner: Weak<dyn Wakes>,
        index: ServiceIndex,
        hand_over: Option<Arc<HandOver<T>>>,
    ) -> Self {
        Self::with_count(Arc::new(AliveCount::new(owner, index, hand_over)))
    }

    fn with_count(alive: Arc<AliveCount<T>>) -> Self {
        let instances = Instances { first: Weak::new(), more: Vec::new() };
        Self { alive, instances: Mutex::new(instances) }
    }

    /// Takes the instances out, to which none is added from now on. What is left has the same
    /// count of those that are alive, and no list.
    pub(crate) fn take(&mut self) -> Self {
        let left = Self::with_count(Arc::clone(&self.alive));
        mem::replace(self, left)
    }

    /// Returns the notice that a new instance contains. Its drop counts the instance as dropped.
    pub(crate) fn drop_notice(&self) -> DropNotice<T> {
        DropNotice::new(&self.alive)
    }

    /// Records an instance that was published, and forgets the instances that have been dropped.
    ///
    /// The caller has a reference to the instance. So its value is not handed over before it is
    /// claimed, and one that is refused is never claimed.
    pub(crate) fn add(&self, instance: &Arc<Instance<T>>) {
        if let Some(hand_over) = self.alive.hand_over() {
            hand_over.claim(instance);
        }
        self.record(instance);
    }

    /// As `add`, for an instance that is not published: its value is not claimed.
    pub(crate) fn record(&self, instance: &Arc<Instance<T>>) {
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

    /// Returns whether the values of all instances have been dropped or handed over.
    pub(crate) fn is_drained(&self) -> bool {
        self.alive.is_none()
    }
}

impl<T> fmt::Debug for InstanceTracker<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InstanceTracker").field("holders", &self.holders()).finish()
    }
}
