//! What only the status of a service shows. The protocol does not depend on it, so its words are
//! those of std, also in a model.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use super::{Phase, Store, state::Tag};
use crate::{
    numbers::{Generation, ServiceIndex, UnixTime},
    sync::StatusNumber,
};

/// What the status of one service shows, and no other part of the store needs.
pub(super) struct StatusData {
    /// The number of generations that have ended without an instance. So the number of instances
    /// that have failed is that of all generations that have ended, minus this one: the failure of
    /// an instance and a publication count nothing.
    without_instance: StatusNumber,
    /// The time at which the last attempt began, or the service was registered (`UnixTime`).
    began_at: StatusNumber,
    waits: Mutex<AttemptWaits>,
}

/// The waits of the attempts at one service that have not ended, by their numbers.
#[derive(Default)]
struct AttemptWaits {
    next: u64,
    started: BTreeMap<u64, (Generation, Awaited)>,
}

/// What an attempt waits for.
#[derive(Clone)]
pub(crate) enum Awaited {
    Dependency(ServiceIndex),
    /// Something outside the registry, in the words of the provider.
    Other(Cow<'static, str>),
}

impl StatusData {
    pub(super) fn new() -> Self {
        let data = Self {
            without_instance: StatusNumber::new(),
            began_at: StatusNumber::new(),
            waits: Mutex::default(),
        };
        data.set_begun();
        data
    }

    /// Stores the present time as that of the begin of an attempt.
    pub(super) fn set_begun(&self) {
        self.began_at.set(UnixTime::now().as_nanos());
    }

    fn waits(&self) -> MutexGuard<'_, AttemptWaits> {
        self.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    /// Counts the generations that a cascade has ended, from the one of `from` to the one before
    /// `to`, apart from that of an instance. So the failure of a ready service counts nothing, and
    /// is recognised by one comparison: a cascade may take down many.
    #[inline]
    pub(super) fn count_ended(&self, index: ServiceIndex, from: Tag, to: Generation) {
        if to.previous().map(Tag::ready) != Some(from) {
            let ended = to.get() - from.generation().get();
            let without_instance = ended - u64::from(from.phase() == Phase::Ready);
            self.service(index).status.without_instance.add(without_instance);
        }
    }

    /// Returns how often an instance of the service was published, and how often one has failed.
    pub(crate) fn built_and_failed(&self, index: ServiceIndex) -> (u64, u64) {
        let (slot, status) = (self.slot(index), &self.service(index).status);
        loop {
            let state = slot.state.load();
            let without_instance = status.without_instance.get();
            if slot.state.load() == state {
                let failed = state.generation().get().saturating_sub(without_instance);
                return (failed + u64::from(state.phase() == Phase::Ready), failed);
            }
        }
    }

    /// Returns how often the value of the service was replaced.
    pub(crate) fn replaced(&self, index: ServiceIndex) -> u64 {
        self.service(index).history.replaced()
    }

    /// Returns the time at which the last attempt began, or the service was registered.
    pub(crate) fn began_at(&self, index: ServiceIndex) -> SystemTime {
        UnixTime::from_nanos(self.service(index).status.began_at.get()).into()
    }

    /// Notes that the attempt of `generation` waits, and returns the number of the wait. It lasts
    /// until `wait_ended` is called.
    pub(crate) fn wait_started(
        &self,
        index: ServiceIndex,
        generation: Generation,
        what: Awaited,
    ) -> u64 {
        let waits = &mut *self.service(index).status.waits();
        // Nothing remains of earlier attempts, even if a wait was leaked.
        while let Some(first) = waits.started.first_entry() {
            if first.get().0 >= generation {
                break;
            }
            first.remove();
        }
        let number = waits.next;
        waits.next += 1;
        waits.started.insert(number, (generation, what));
        number
    }

    /// Returns whether the attempt waits for something else, too.
    pub(crate) fn wait_ended(&self, index: ServiceIndex, number: u64) -> bool {
        let waits = &mut *self.service(index).status.waits();
        waits.started.remove(&number);
        !waits.started.is_empty()
    }

    /// Ends all waits of an attempt. Called before the slot is free: the next attempt may have the
    /// same generation.
    pub(crate) fn end_waits(&self, index: ServiceIndex, generation: Generation) {
        self.service(index).status.waits().started.retain(|_, (other, _)| *other > generation);
    }

    /// Returns what the attempt of `generation` waits for: the last wait that has started of those
    /// that have not ended.
    pub(crate) fn awaited(&self, index: ServiceIndex, generation: Generation) -> Option<Awaited> {
        let waits = self.service(index).status.waits();
        let (_, last) = waits.started.values().rfind(|(other, _)| *other == generation)?;
        Some(last.clone())
    }
}
