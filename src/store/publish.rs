//! An attempt's life at its slot: begun, published or given back, replaced, cleared away.

use std::sync::Arc;

use super::{
    Cause, Phase, Store,
    state::{Moved, Tag},
};
use crate::{
    drain::Tracked,
    failure::Reason,
    service::{Instance, ServiceId},
    sync::{ArcCell, Held, Shielded, nothing, yield_now},
};

/// What an attempt has used of the graph.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Used {
    /// How many discovered edges.
    pub(crate) edges: u32,
    /// Some of them are of no use any more once it is published.
    pub(crate) some_to_start: bool,
}

/// What was not published, and comes back.
pub(crate) struct Refused<T>(pub(crate) T);

impl Store {
    /// Begins an attempt, unless the slot is held or condemned; gives its generation.
    pub(crate) fn begin(&self, index: u32) -> Option<u64> {
        let slot = self.slot(index);
        loop {
            let seen = slot.state.load();
            let generation = seen.generation();
            // Condemned without being raised: a cascade is on its way, and will wake us.
            if seen.phase() != Phase::Down || slot.condemned.load() != generation {
                return None;
            }
            // What has come to the last generation is down for good.
            if generation == Tag::LAST {
                return None;
            }
            if slot.state.step_unnoticed(seen, Tag::starting(generation)).is_ok() {
                return Some(generation);
            }
        }
    }

    /// Whether the attempt of this generation can still be published, as far as its slot shows.
    pub(crate) fn is_starting(&self, index: u32, generation: u64) -> bool {
        self.slot(index).state.load() == Tag::starting(generation)
    }

    /// Publishes the value of an attempt, or gives it back if a cascade overtook it.
    ///
    /// The value comes first, then the state: a reader compares the two, so that until the state moves the
    /// value is nobody's. Lock-free where the attempt used every edge that there is; else it takes the
    /// topology's lock after the publication, to drop those it did not use.
    pub(crate) fn publish<T: Send + Sync + 'static>(
        &self,
        id: ServiceId<T>,
        generation: u64,
        value: T,
        used: Used,
        tracked: &Tracked<T>,
    ) -> Result<(), Refused<T>> {
        let index = id.index();
        let Some((cell, slot)) = self.open(id) else { return Err(Refused(value)) };
        if !self.is_starting(index, generation) {
            return Err(Refused(value));
        }
        let instance = instance(id, generation, value, tracked);
        // Most likely nothing is there: what was has been cleared away.
        let first = Shielded::new(nothing());
        // What was there is dropped at the end: that is user code, and may fail the service.
        let Some(_previous) = install(cell, &instance, first, |current| {
            // An older attempt must not cover the value of a newer one.
            current.is_none_or(|current| current.generation <= generation)
        }) else {
            return Err(Refused(alone(instance)));
        };
        let moved = match slot.state.step(Tag::starting(generation), Tag::ready(generation)) {
            Ok(moved) => moved,
            Err(_) => {
                cell.retract(&instance);
                return Err(Refused(alone(instance)));
            }
        };
        self.notify(index, moved);
        if used.some_to_start || self.service(index).discovered.get() != used.edges {
            self.topology.settle(self, index, generation);
        }
        Ok(())
    }

    /// Puts another value in the place of the running one, under the same tag. Lock-free; then wakes who waits, as one of
    /// them may watch it.
    pub(crate) fn replace<T: Send + Sync + 'static>(
        &self,
        id: ServiceId<T>,
        generation: u64,
        value: T,
        tracked: &Tracked<T>,
    ) -> Result<(), Refused<T>> {
        let Some((cell, slot)) = self.open(id) else { return Err(Refused(value)) };
        let _replacing = slot.replacements.begin();
        let instance = instance(id, generation, value, tracked);
        // Looked at before each try: a replacement that is put in after the state has moved takes its place
        // just before that move, where no reader saw it.
        let may = |current: Option<&Instance<T>>| {
            current.is_some_and(|current| current.generation == generation)
                && slot.state.load() == Tag::ready(generation)
        };
        match install(cell, &instance, Shielded::new(cell.load()), may) {
            Some(_previous) => {
                self.wake(id.index());
                Ok(())
            }
            None => Err(Refused(alone(instance))),
        }
    }

    /// Gives an attempt back without a value. False where a cascade has taken it already.
    pub(crate) fn give_back(
        &self,
        index: u32,
        generation: u64,
        reason: Shielded<Reason>,
        used: Used,
    ) -> bool {
        if used.edges > 0 {
            self.topology.release(index, generation);
        }
        if !self.is_starting(index, generation) {
            return false;
        }
        // Before the slot is free: the next attempt's reason comes after this one.
        drop(Cause::leave(&self.service(index).given_up, generation, reason));
        match self.slot(index).state.step(Tag::starting(generation), Tag::down(generation)) {
            Ok(moved) => {
                self.notify(index, moved);
                true
            }
            Err(_) => false,
        }
    }

    /// Takes the value of a failed generation out of its slot, so that it lives only as long as its readers.
    ///
    /// Not before the slot was raised: a reader that finds nothing takes the service for failed, and its
    /// dependents may not have been by then. What is left for that reason goes with the next publication.
    pub(crate) fn clear<T: Send + Sync + 'static>(&self, id: ServiceId<T>, generation: u64) {
        let Some((cell, slot)) = self.open(id) else { return };
        while slot.state.load().generation() > generation {
            let current = Shielded::new(cell.load());
            match &**current {
                Some(instance) if instance.generation == generation => {}
                _ => return,
            }
            if cell.replace(&current, None).is_ok() {
                return;
            }
        }
    }

    fn notify(&self, index: u32, moved: Moved) {
        if moved.waited {
            self.service(index).changed.wake_all();
        }
    }
}

fn instance<T>(
    id: ServiceId<T>,
    generation: u64,
    value: T,
    tracked: &Tracked<T>,
) -> Arc<Instance<T>> {
    let service = id.into();
    let instance = Arc::new(Instance { generation, service, value, _gone: tracked.gone() });
    tracked.add(&instance);
    instance
}

/// Puts `instance` into the cell in place of `current`, or of what is there by then, as long as that `may` be
/// covered; gives what was there. `None`: it may not.
fn install<T>(
    cell: &ArcCell<Instance<T>>,
    instance: &Arc<Instance<T>>,
    mut current: Shielded<Held<Instance<T>>>,
    may: impl Fn(Option<&Instance<T>>) -> bool,
) -> Option<Shielded<Held<Instance<T>>>> {
    while may(current.as_deref()) {
        match cell.replace(&current, Some(Arc::clone(instance))) {
            Ok(()) => return Some(current),
            Err(now) => current = now,
        }
    }
    None
}

/// The value of an instance that was never current, or is in no cell. A reader that is just comparing its
/// tag may hold it for that moment, and no longer: it never reached a user.
fn alone<T>(mut instance: Arc<Instance<T>>) -> T {
    loop {
        match Arc::try_unwrap(instance) {
            Ok(instance) => return instance.value,
            Err(shared) => instance = shared,
        }
        yield_now();
    }
}
