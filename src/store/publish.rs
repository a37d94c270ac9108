//! What a provider does to a slot: it begins an attempt, publishes or fails it, replaces the value,
//! and removes the value of a failed generation.

use std::sync::Arc;

use super::{
    Cause, Phase, Store,
    state::{Tag, Transition},
    topology::Slots,
    tracker::InstanceTracker,
    undecided::is_aborted,
    used_edges::UsedEdges,
};
use crate::{
    error::RefusedValue,
    failure::Reason,
    instance::{Instance, InstanceNumber, Origin},
    numbers::{Generation, ServiceIndex},
    service::ServiceId,
    store::Edge,
    sync::{ArcCell, Shielded},
};

/// The value that was not published. It is returned to the caller.
pub(crate) struct Refused<T>(pub(crate) RefusedValue<T>);

impl<T> Refused<T> {
    fn value(value: T) -> Self {
        Self(RefusedValue::owned(value))
    }

    fn instance(instance: Arc<Instance<T>>) -> Self {
        Self(RefusedValue::shared(instance))
    }
}

impl Store {
    /// Begins an attempt and returns its generation. Returns `None` if the slot is held or
    /// condemned, if its last value is abandoned and has not been dropped, or if the service has
    /// reached its last generation. Lock-free.
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
            // A cascade is about to drop the last value, and then wakes the waiters.
            if !self.service(index).abandoned.is_none() {
                return None;
            }
            // The last generation has no successor to which a failure could lead, so nothing is
            // built in it. The service stays down.
            if generation == Generation::LAST {
                return None;
            }
            // A compare-and-swap: of several attempts that begin at the same time one succeeds.
            // If it fails, the state has changed since the load, and the loop checks the new one.
            let begins = slot.state.transition_keeping_waiters(seen, Tag::starting(generation));
            if let Ok(transition) = begins {
                self.begun.increment();
                let service = self.service(index);
                service.status.set_begun();
                // Few waiters wait for an attempt to begin. Each of them is counted before it sets
                // the waiter bit. So if the transition has found its bit, this load finds its
                // count, because the transition is an Acquire (W). The count must not be read
                // before the transition: the bit may have been set for another waiter, and then a
                // waiter that is counted in between changes nothing that the compare-and-swap
                // compares.
                if transition.had_waiters && service.change_waiters.get() > 0 {
                    self.wake(index);
                }
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
    /// Lock-free if the instance needs every discovered edge of the service. If not, it takes the
    /// lock of the topology after the publication, to remove the edges that are not needed any
    /// more. Never waits for a reader: a value that a reader is comparing at this moment is
    /// returned inside its instance.
    pub(crate) fn publish<T: Send + Sync + 'static>(
        &self,
        id: ServiceId<T>,
        generation: Generation,
        value: T,
        origin: Origin,
        used: &UsedEdges,
        tracker: &InstanceTracker<T>,
    ) -> Result<(), Refused<T>> {
        let index = id.index();
        // The id is of another registry.
        let Some((cell, slot)) = self.open(id) else { return Err(Refused::value(value)) };
        // A shortcut for an attempt that is invalidated already: the value need not be put into the
        // slot. The transition below decides.
        if !self.is_starting(index, generation) {
            return Err(Refused::value(value));
        }
        let (number, notice) = (InstanceNumber { generation, revision: 0 }, tracker.drop_notice());
        let instance = Arc::new(Instance::new(number, id.into(), origin, value, notice));
        // The slot is most likely empty: its provider has removed the value of the last generation.
        let Some(previous) = install(cell, &instance, None, |current| {
            // This attempt may have been invalidated since the check. It must not replace the value
            // of a later attempt.
            current.is_none_or(|current| Instance::generation(current) <= generation)
        }) else {
            // The slot has the value of a later attempt, so this one is invalidated.
            return Err(Refused::instance(instance));
        };
        let transition =
            match slot.state.transition(Tag::starting(generation), Tag::ready(generation)) {
                Ok(transition) => transition,
                // A cascade has taken the slot down since the check. No reader has returned the
                // value, because its tag was never the state. `remove` does nothing if a later
                // attempt has replaced it.
                Err(_) => {
                    cell.remove(&instance);
                    return Err(Refused::instance(instance));
                }
            };
        // After the transition, because the `Drop` of the value may fail the service. Before
        // anything that locks or wakes, so that no thread that needs what the value held waits for
        // it.
        drop(previous);
        // After the transition: a value that is refused belongs to the caller, and is not handed
        // over. Before this reference is dropped: as long as it exists, the value is not, either.
        tracker.add(&instance);
        drop(instance);
        self.notify(index, transition);
        // After the transition: an invalidated attempt either sees it and adds no edge, or has
        // counted its edge before it, and this comparison sees the count (`Topology::discover`).
        // The edges that the instance needs are counted here, too. So if the numbers are equal,
        // there is no other edge.
        if self.discovered(index).get() != used.needed() {
            self.topology.drop_unused_edges(self, index, generation, |edge: Edge| {
                used.has_received(edge.dependency)
            });
        } else if used.any_added() {
            self.topology.compute_closures(self);
        }
        Ok(())
    }

    /// Replaces the value of a ready service. The new instance has the same tag and the next
    /// revision. Returns the value if the service is not ready in `generation`, or if a cascade
    /// that began at it has condemned it, or if a reload has ended the `publication`, if one is
    /// named by the revision of its first instance.
    ///
    /// It takes the lock of the history for an exchange of pointers. Then it wakes the waiters,
    /// because some of them may watch the service. Returns the revision of the new instance.
    ///
    /// # The race with a failure of exactly the old instance
    ///
    /// The replacement is *decided* under the lock of the history, where `fail` condemns its root.
    ///
    ///  1. The decision comes first. Then `fail` finds the old instance replaced. It puts the new
    ///     one into the cell itself before it returns, so that no later read of its caller returns
    ///     the instance that was reported as replaced.
    ///  2. `fail` comes first. Then the decision finds its cause, and the value is refused,
    ///     although the old one may be readable until the cascade has taken the slot down.
    pub(crate) fn replace<T: Send + Sync + 'static>(
        &self,
        id: ServiceId<T>,
        generation: Generation,
        publication: Option<u64>,
        value: T,
        origin: Origin,
        tracker: &InstanceTracker<T>,
    ) -> Result<u64, Refused<T>> {
        let index = id.index();
        // If the id is of another registry, or the generation has ended: at this instant, the value
        // is refused. If the state moves later, the replacement linearizes at this check: no reader
        // can tell the difference, because the tag is no longer the state.
        if !self.open(id).is_some_and(|(_, slot)| slot.state.load() == Tag::ready(generation)) {
            return Err(Refused::value(value));
        }
        let mut value = Some(value);
        let history = &self.service(index).history;
        let decided = history.decide_replacement(generation, publication, |revision| {
            let (number, value) = (InstanceNumber { generation, revision }, value.take()?);
            let notice = tracker.drop_notice();
            Some(Arc::new(Instance::new(number, id.into(), origin, value, notice)))
        });
        let Some(instance) = decided else {
            return Err(match value {
                Some(value) => Refused::value(value),
                None => unreachable!("a value that was taken is decided"),
            });
        };
        tracker.add(&instance);
        self.install_replacement(id, &instance);
        self.service(index).history.forget_pending(&*instance);
        self.wake(index);
        Ok(Instance::revision(&instance))
    }

    /// Puts an instance that was decided to replace the present one into the cell, unless a newer
    /// one is there, or the generation has ended. Drops the old instance.
    pub(super) fn install_replacement<T: Send + Sync + 'static>(
        &self,
        id: ServiceId<T>,
        instance: &Arc<Instance<T>>,
    ) {
        let Some((cell, slot)) = self.open(id) else { return };
        let InstanceNumber { generation, revision } = Instance::number(instance);
        // In progress until the cell is exchanged, whether by this call or not. Not longer: cached
        // readers are slow as long, and wakers and the `Drop` of the old value are user code.
        let replacing = slot.replacements.begin();
        // Counted: an announced one would be found by the writer, which is this thread.
        let old = install(cell, instance, cell.load_full(), |current| {
            current.is_some_and(|instance| {
                let current = Instance::number(instance);
                // The revision of an instance of an aborted switch is that of no other one.
                current.generation == generation
                    && (current.revision < revision || is_aborted(instance))
            }) && slot.state.load() == Tag::ready(generation)
        });
        drop(replacing);
        drop(old);
    }

    /// Ends an attempt without a publication: it has failed, or was dropped. Returns the number of
    /// failed attempts at the service, or `None` if a cascade has invalidated this one.
    pub(crate) fn fail_attempt(
        &self,
        index: ServiceIndex,
        generation: Generation,
        reason: Shielded<Reason>,
        used: &UsedEdges,
    ) -> Option<u64> {
        // Before the slot is free: the next attempt may have the same generation, and must not
        // lose the edges that it uses.
        if used.any_discovered() {
            self.topology.release(index, generation);
        }
        // A cascade has ended the generation, and its cause is the one to report.
        if !self.is_starting(index, generation) {
            return None;
        }
        // In one step, so that the causes and the numbers of attempts are in the order of the
        // attempts. A thread that finds the slot free finds the cause, too: it waits for the lock.
        let cause = Cause::new(generation, reason);
        let slot = self.slot(index);
        // Dropped at the end: a reason is a value of the user.
        let (ended, _unused) = self.service(index).history.fail_attempt(cause, || {
            slot.state.transition(Tag::starting(generation), Tag::down(generation))
        });
        // A cascade was faster than this transition.
        let (transition, number) = ended?;
        self.notify(index, transition);
        if used.any_added() {
            self.topology.compute_closures(self);
        }
        Some(number)
    }

    /// Removes the value of a failed generation from its slot, so that the value lives only as
    /// long as its readers hold it. Returns whether the slot has left the generation.
    ///
    /// Does nothing if it has not: a reader that finds an empty slot concludes that the service has
    /// failed, and the dependents may not have been taken down yet (I1).
    pub(crate) fn remove_value<T: Send + Sync + 'static>(
        &self,
        id: ServiceId<T>,
        generation: Generation,
    ) -> bool {
        // The id is of another registry.
        let Some((cell, slot)) = self.open(id) else { return true };
        while slot.state.load().generation() > generation {
            let current = cell.load_full();
            match &current {
                Some(instance) if Instance::generation(instance) == generation => {}
                // The slot is empty, or has the value of a later attempt.
                _ => return true,
            }
            // This fails only if a replacement or a later attempt has exchanged the value. The loop
            // checks the new one.
            if cell.replace(&current, None).is_ok() {
                return true;
            }
        }
        false
    }

    /// Removes the value of a generation, for a provider that lets go of it. If a cascade has
    /// condemned the slot and not taken it down yet, the cascade removes the value after its end.
    pub(crate) fn abandon_value<T: Send + Sync + 'static>(
        &self,
        id: ServiceId<T>,
        generation: Generation,
    ) {
        if !self.remove_value(id, generation) {
            self.service(id.index()).abandoned.set(generation);
            self.remove_abandoned(id, generation);
        }
    }

    /// Removes an abandoned value if the slot has left its generation. If not, sets the waiter bit:
    /// the transition that ends the generation finds the bit, and its thread calls this function
    /// again. So does a thread that clears the bit without a transition.
    pub(super) fn remove_abandoned<T: Send + Sync + 'static>(
        &self,
        id: ServiceId<T>,
        generation: Generation,
    ) {
        // A read-modify-write, as the transition is: one of the two comes first, and is seen by the
        // other.
        let state = self.slot(id.index()).state.set_waiters();
        let abandoned = &self.service(id.index()).abandoned;
        if state.generation() <= generation {
            return;
        }
        let Some(is_constant) = abandoned.claim(generation) else { return };
        self.remove_value(id, generation);
        abandoned.clear();
        if is_constant {
            // Last: the next provider finds the slot free. And by this thread alone: it has claimed
            // the value, and a constant keeps the role until then.
            self.service(id.index()).role.release();
            // The caller of a wait reads the state again.
            if self.stuck.is_started(id.index()) {
                self.stuck.add_root(id.index());
            }
        }
        // The provider may wait to begin its next attempt.
        self.wake(id.index());
    }

    /// Keeps the value of a generation as a constant: in its slot, until a cascade ends the
    /// generation. Then the thread of the cascade removes the value, as an abandoned one, and
    /// releases the role, which the caller holds.
    pub(crate) fn keep_constant<T: Send + Sync + 'static>(
        &self,
        id: ServiceId<T>,
        generation: Generation,
    ) {
        // Before the waiter bit is set, which carries it. If the generation has ended already, this
        // call removes the value.
        self.service(id.index()).abandoned.set_constant(generation);
        self.remove_abandoned(id, generation);
    }

    /// Wakes the waiters, if the transition has found the waiter bit set (W).
    pub(super) fn notify(&self, index: ServiceIndex, transition: Transition) {
        if transition.had_waiters {
            self.wake_after_transition(index);
        }
    }
}

/// Puts `instance` into the cell and returns the old content, if `may_replace` accepts that
/// content. If not, returns `None`.
///
/// `current` is a guess of the content. If the guess is wrong, the actual content is checked next.
fn install<T: Send + Sync + 'static>(
    cell: &ArcCell<Instance<T>>,
    instance: &Arc<Instance<T>>,
    mut current: Option<Arc<Instance<T>>>,
    may_replace: impl Fn(Option<&Instance<T>>) -> bool,
) -> Option<Option<Arc<Instance<T>>>> {
    while may_replace(current.as_deref()) {
        match cell.replace(&current, Some(Arc::clone(instance))) {
            Ok(()) => return Some(current),
            Err(now) => current = now,
        }
    }
    None
}
