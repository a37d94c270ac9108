//! The values that are handed over to a receiver, instead of being dropped by the thread that drops
//! the last reference to their instance (H).
//!
//! One lock decides each race for a value: `docs/supervision.md` ("Handing values over"). It is a
//! leaf: values and numbers are moved while it is held, and nothing is dropped that has user code.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Weak},
};

use crate::{
    instance::{Instance, InstanceNumber},
    sync::{Mutex, Shielded, lock},
};

/// What a receiver shares with the instances whose values it claims. `None`: the receiver was
/// dropped, and claims nothing.
pub(crate) struct HandOver<T>(Mutex<Option<Values<T>>>);

struct Values<T> {
    /// The instances whose values are claimed and have not been handed over.
    claimed: BTreeMap<InstanceNumber, Weak<Instance<T>>>,
    /// In the order in which they were handed over. Has room for all that are claimed.
    handed_over: VecDeque<HandedOver<T>>,
}

/// A value that was handed over. No reader has it, and none gets it.
pub(crate) struct HandedOver<T> {
    pub(crate) number: InstanceNumber,
    pub(crate) value: Shielded<T>,
}

/// An instance that is claimed, and the number of references to it.
#[cfg(any(test, loom))]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Claimed {
    pub(crate) number: InstanceNumber,
    /// 0 if its value is about to be handed over, or if a reader has moved it out of its `Arc`.
    pub(crate) holders: usize,
}

/// What a receiver finds.
pub(crate) enum Next<T> {
    HandedOver(HandedOver<T>),
    /// Nothing was handed over, and these are the first and the last of the claimed instances.
    Held(InstanceNumber, InstanceNumber),
    /// Nothing was handed over, and no instance is claimed.
    Nothing,
}

impl<T> HandOver<T> {
    pub(crate) fn new() -> Self {
        let values = Values { claimed: BTreeMap::new(), handed_over: VecDeque::new() };
        Self(Mutex::new(Some(values)))
    }

    /// Claims the value of an instance that was published. The caller has a reference to it.
    pub(crate) fn claim(&self, instance: &Arc<Instance<T>>) {
        let mut values = lock(&self.0);
        let Some(Values { claimed, handed_over }) = &mut *values else { return };
        claimed.insert(Instance::number(instance), Arc::downgrade(instance));
        // So that the thread that hands a value over does not allocate.
        handed_over.reserve(claimed.len());
    }

    /// Hands the value of an instance over, unless it is not claimed any more: then the caller
    /// drops the value. Called after the last reference to the instance was dropped.
    pub(crate) fn hand_over(&self, number: InstanceNumber, take: impl FnOnce() -> T) {
        let mut values = lock(&self.0);
        let Some(Values { claimed, handed_over }) = &mut *values else { return };
        if claimed.remove(&number).is_some() {
            handed_over.push_back(HandedOver { number, value: Shielded::new(take()) });
        }
    }

    /// Takes the first value that was handed over.
    pub(crate) fn take(&self) -> Next<T> {
        let mut values = lock(&self.0);
        let Some(Values { claimed, handed_over }) = &mut *values else { return Next::Nothing };
        if let Some(value) = handed_over.pop_front() {
            return Next::HandedOver(value);
        }
        match (claimed.first_key_value(), claimed.last_key_value()) {
            (Some((&first, _)), Some((&last, _))) => Next::Held(first, last),
            _ => Next::Nothing,
        }
    }

    /// Returns the claimed instances, in the order of their publication.
    #[cfg(any(test, loom))]
    pub(crate) fn held(&self) -> Vec<Claimed> {
        let values = lock(&self.0);
        let claimed = values.iter().flat_map(|values| &values.claimed);
        claimed
            .map(|(&number, instance)| Claimed { number, holders: instance.strong_count() })
            .collect()
    }

    /// Waives the values of all claimed instances up to a number: returns a reference to each of
    /// these instances. From then on, the thread that drops the last reference drops the value.
    ///
    /// A value whose instance has no reference any more stays claimed, and is handed over.
    pub(crate) fn waive(&self, up_to: InstanceNumber) -> Vec<Arc<Instance<T>>> {
        let mut values = lock(&self.0);
        let Some(Values { claimed, .. }) = &mut *values else { return Vec::new() };
        // Not claimed any more only if there is a reference: with it, no other thread drops the
        // last one before this call has returned.
        let shared = claimed.range(..=up_to).filter_map(|(_, instance)| instance.upgrade());
        let waived: Vec<_> = shared.collect();
        for instance in &waived {
            claimed.remove(&Instance::number(instance));
        }
        waived
    }

    /// Claims the value of an instance no longer. Returns whether it was claimed.
    pub(crate) fn forget(&self, number: InstanceNumber) -> bool {
        lock(&self.0).as_mut().is_some_and(|values| values.claimed.remove(&number).is_some())
    }

    /// Returns for how many values there is room.
    #[cfg(test)]
    pub(crate) fn room(&self) -> usize {
        lock(&self.0).as_ref().map_or(0, |values| values.handed_over.capacity())
    }

    /// Claims nothing from now on, and drops the values that were handed over and not taken.
    pub(crate) fn close(&self) {
        let values = lock(&self.0).take();
        // Without the lock: the `Drop` of a value is user code.
        drop(values);
    }
}
