//! What a provider does to a slot: it begins an attempt, publishes or fails it, replaces the value,
//! and removes the value of a failed generation.

use std::sync::Arc;

use super::{
    Cause, Phase, Store,
    state::{Tag, Transition},
    tracker::InstanceTracker,
};
use crate::{
    failure::Reason,
    numbers::{Generation, ServiceIndex},
    service::{Instance, ServiceId},
    sync::{ArcCell, Held, Shielded, empty_load, yield_now},
};

/// The edges that an attempt has used, as its publication needs to know them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EdgeSummary {
    /// The number of discovered edges.
    pub(crate) edges: u32,
    /// Whether any of them is start-only, so that the publication must remove it.
    pub(crate) any_start_only: bool,
}

/// The value that was not published. It is returned to the caller.
pub(crate) struct Refused<T>(pub(crate) T);

impl Store {
    /// Begins an attempt and returns its generation. Returns `None` if the slot is held or
    /// condemned, or if the service has reached its last generation. Lock-free.
    pub(crate) fn begin(&self, index: ServiceIndex) -> Option<Generation> {
        let slot = self.slot(index);
        loop {
            let seen = slot.state.load();
            let generation = seen.generation();
            // Held: another attempt is in progress or published. Or condemned: a cascade will
            // take the slot down, and what this attempt built could not be published (A1). In
            // both cases a transition follows, which wakes the waiters.
            if seen.phase() != Phase::Down || slot.condemned.load() != generation {
                return None;
            }
            // The last generation has no successor to which a failure could lead, so nothing is
            // built in it. The service stays down.
            if generation == Generation::LAST {
                return None;
            }
            // A compare-and-swap: of several attempts that begin at the same time one succeeds.
            // If it fails, the state has changed since the load, and the loop checks the new one.
            if slot.state.transition_keeping_waiters(seen, Tag::starting(generation)).is_ok() {
                return Some(generation);
            }
        }
    }

    /// Returns whether the attempt of this generation is still in progress. If not, it has ended or
    /// was invalidated.
    pub(crate) fn is_starting(&self, index: ServiceIndex, generation: Generation) -> bool {
        self.slot(index).state.load() == Tag::starting(generation)
    }

    /// Publishes the value of an attempt, or returns it if a cascade has invalidated the attempt
    /// (F).
    ///
    /// The value is put into the slot before the state moves: a reader compares the two, so it
    /// returns the value only after the state has moved.
    ///
    /// Lock-free if the attempt has used every discovered edge of the service, and none as
    /// start-only. If not, it takes the lock of the topology after the publication, to remove the
    /// edges that are not needed any more.
    pub(crate) fn publish<T: Send + Sync + 'static>(
        &self,
        id: ServiceId<T>,
        generation: Generation,
        value: T,
        used: EdgeSummary,
        tracker: &InstanceTracker<T>,
    ) -> Result<(), Refused<T>> {
        let index = id.index();
        // The id is of another registry.
        let Some((cell, slot)) = self.open(id) else { return Err(Refused(value)) };
        // A shortcut for an attempt that is invalidated already: the value need not be put into the
        // slot. The transition below decides.
        if !self.is_starting(index, generation) {
            return Err(Refused(value));
        }
        let instance = instance(id, generation, value, tracker);
        // The slot is most likely empty: its provider has removed the value of the last generation.
        let first = Shielded::new(empty_load());
        // The old value is dropped at the end of this function: its `Drop` is user code, and may
        // fail the service.
        let Some(_previous) = install(cell, &instance, first, |current| {
            // This attempt may have been invalidated since the check. It must not replace the value
            // of a later attempt.
            current.is_none_or(|current| current.generation <= generation)
        }) else {
            // The slot has the value of a later attempt, so this one is invalidated.
            return Err(Refused(reclaim(instance)));
        };
        let transition =
            match slot.state.transition(Tag::starting(generation), Tag::ready(generation)) {
                Ok(transition) => transition,
                // A cascade has taken the slot down since the check. No reader has returned the
                // value, because its tag was never the state. `remove` does nothing if a later
                // attempt has replaced it.
                Err(_) => {
                    cell.remove(&instance);
                    return Err(Refused(reclaim(instance)));
                }
            };
        self.notify(index, transition);
        // After the transition: an invalidated attempt either sees it and adds no edge, or has
        // counted its edge before it, and this comparison sees the count (`Topology::discover`).
        if used.any_start_only || self.service(index).discovered.get() != used.edges {
            self.topology.drop_unused_edges(self, index, generation, |_| true);
        }
        Ok(())
    }

    /// Replaces the value of a ready service. The new instance has the same tag. Returns the
    /// value if the service is not ready in `generation`.
    ///
    /// Lock-free. Then it wakes the waiters, because some of them may watch the service.
    pub(crate) fn replace<T: Send + Sync + 'static>(
        &self,
        id: ServiceId<T>,
        generation: Generation,
        value: T,
        tracker: &InstanceTracker<T>,
    ) -> Result<(), Refused<T>> {
        // The id is of another registry.
        let Some((cell, slot)) = self.open(id) else { return Err(Refused(value)) };
        // In progress until this function returns, whether it replaces the value or not.
        let _replacing = slot.replacements.begin();
        let instance = instance(id, generation, value, tracker);
        // Checked before each compare-and-swap. If the state moves in between, the replacement
        // linearizes immediately before that move: no reader can tell the difference, because the
        // tag is no longer the state.
        let may_replace = |current: Option<&Instance<T>>| {
            current.is_some_and(|current| current.generation == generation)
                && slot.state.load() == Tag::ready(generation)
        };
        match install(cell, &instance, Shielded::new(cell.load()), may_replace) {
            Some(_previous) => {
                self.wake(id.index());
                Ok(())
            }
            // The generation has ended, or its value has been removed.
            None => Err(Refused(reclaim(instance))),
        }
    }

    /// Ends an attempt without a publication: it has failed, or was dropped. Returns false if a
    /// cascade has invalidated it.
    pub(crate) fn fail_attempt(
        &self,
        index: ServiceIndex,
        generation: Generation,
        reason: Shielded<Reason>,
        used: EdgeSummary,
    ) -> bool {
        // Before the slot is free: the next attempt may have the same generation, and must not
        // lose the edges that it uses.
        if used.edges > 0 {
            self.topology.release(index, generation);
        }
        // A cascade has ended the generation, and its cause is the one to report.
        if !self.is_starting(index, generation) {
            return false;
        }
        // Before the slot is free, so that the cause of the next attempt is stored after this
        // one. If a cascade ends the generation in between, `last_failure` ignores this cause.
        drop(Cause::store_in(&self.service(index).failed_attempt, generation, reason));
        match self.slot(index).state.transition(Tag::starting(generation), Tag::down(generation)) {
            Ok(transition) => {
                self.notify(index, transition);
                true
            }
            // A cascade was faster than this transition.
            Err(_) => false,
        }
    }

    /// Removes the value of a failed generation from its slot, so that the value lives only as
    /// long as its readers hold it.
    ///
    /// Does nothing if the slot has not been taken down: a reader that finds an empty slot
    /// concludes that the service has failed, and the dependents may not have been taken down yet
    /// (I1). The next publication then removes the value.
    pub(crate) fn remove_value<T: Send + Sync + 'static>(
        &self,
        id: ServiceId<T>,
        generation: Generation,
    ) {
        // The id is of another registry.
        let Some((cell, slot)) = self.open(id) else { return };
        while slot.state.load().generation() > generation {
            let current = Shielded::new(cell.load());
            match &**current {
                Some(instance) if instance.generation == generation => {}
                // The slot is empty, or has the value of a later attempt.
                _ => return,
            }
            // This fails only if a replacement or a later attempt has exchanged the value. The loop
            // checks the new one.
            if cell.replace(&current, None).is_ok() {
                return;
            }
        }
    }

    /// Wakes the waiters, if the transition has found the waiter bit set (W).
    fn notify(&self, index: ServiceIndex, transition: Transition) {
        if transition.had_waiters {
            self.service(index).changed.wake_all();
        }
    }
}

/// Creates an instance, and records it in the tracker, which counts its holders.
fn instance<T>(
    id: ServiceId<T>,
    generation: Generation,
    value: T,
    tracker: &InstanceTracker<T>,
) -> Arc<Instance<T>> {
    let service = id.into();
    let instance =
        Arc::new(Instance { generation, service, value, _drop_notice: tracker.drop_notice() });
    tracker.add(&instance);
    instance
}

/// Puts `instance` into the cell and returns the old content, if `may_replace` accepts that
/// content. If not, returns `None`.
///
/// `current` is a guess of the content. If the guess is wrong, the actual content is checked next.
fn install<T>(
    cell: &ArcCell<Instance<T>>,
    instance: &Arc<Instance<T>>,
    mut current: Shielded<Held<Instance<T>>>,
    may_replace: impl Fn(Option<&Instance<T>>) -> bool,
) -> Option<Shielded<Held<Instance<T>>>> {
    while may_replace(current.as_deref()) {
        match cell.replace(&current, Some(Arc::clone(instance))) {
            Ok(()) => return Some(current),
            Err(now) => current = now,
        }
    }
    None
}

/// Returns the value of an instance that was never current and is in no cell.
///
/// A reader that is comparing its tag may hold a reference at this moment. It drops it after the
/// comparison, because the tag was never the state; so the loop ends.
fn reclaim<T>(mut instance: Arc<Instance<T>>) -> T {
    loop {
        match Arc::try_unwrap(instance) {
            Ok(instance) => return instance.value,
            Err(shared) => instance = shared,
        }
        yield_now();
    }
}
