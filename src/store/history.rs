//! The history of one service: why its generations and attempts have ended, and how often its value
//! was replaced.
//!
//! It is behind one lock, which is held while pointers and numbers are exchanged, and never while
//! user code runs. A cell of arc-swap would need no lock. But a store visits every thread that has
//! ever read such a cell, and both its load and its store may drop the last reference to a user's
//! reason: in the middle of a cascade.
//!
//! The lock also orders the two operations that must exclude each other for one instance: a
//! replacement, and a failure of exactly this instance (`Store::replace`, `Store::fail`).

use std::{
    any::Any,
    cmp::Ordering::{Equal, Greater, Less},
    sync::{Arc, Weak},
    time::SystemTime,
};

use super::{
    observed::{FailedSince, Listed},
    state::{CondemnedCell, Phase, Tag, Transition},
};
use crate::{
    failure::Reason,
    instance::{Instance, InstanceNumber},
    numbers::Generation,
    sync::{Mutex, MutexGuard, Shielded, lock},
};

/// Why a generation or an attempt ended.
#[derive(Clone)]
pub(crate) struct Cause {
    /// The generation that the cascade ended, or the generation of the failed attempt.
    pub(crate) generation: Generation,
    pub(crate) reason: Reason,
    pub(crate) at: SystemTime,
}

impl Cause {
    pub(crate) fn new(generation: Generation, reason: Shielded<Reason>) -> Shielded<Self> {
        let reason = reason.into_inner();
        Shielded::new(Self { generation, reason, at: SystemTime::now() })
    }
}

/// A cause, or none. The caller that takes one out of a history drops it after its cascade: a
/// reason is a value of the user.
pub(crate) type SomeCause = Option<Shielded<Cause>>;

/// The causes that a new one has replaced.
pub(crate) type OldCauses = [SomeCause; 2];

/// An instance of any type.
pub(crate) type AnyInstance = Arc<dyn Any + Send + Sync>;

/// `None` until something happens: most services of a large registry never fail by themselves.
pub(crate) struct History(Mutex<Option<Box<Record>>>);

#[derive(Default)]
struct Record {
    /// The last cascade that began at this service and ended one of its generations.
    ended: SomeCause,
    /// The last cascade that began at this service while it was down, if it is newer than `ended`.
    /// The service itself keeps its own cause.
    while_down: SomeCause,
    /// The last failed attempt.
    attempt: SomeCause,
    failed_attempts: u64,
    /// The listings that have found the present attempt.
    listings: Vec<Weak<FailedSince>>,
    replacements: Replaced,
    /// The number of replacements of all generations.
    replaced: u64,
}

/// The replacements of the instances of one generation.
struct Replaced {
    generation: Generation,
    /// How many of them were decided.
    revision: u64,
    /// The instance of `revision`, until it is in the cell of the slot.
    pending: Option<AnyInstance>,
}

/// Why the failure of a certain instance does not begin.
pub(crate) enum NotCondemned {
    /// Its generation has ended, or a cascade has condemned it, or there is no such instance.
    AlreadyFailed,
    /// It was replaced. If the newer instance is not in its cell yet, the caller puts it there, so
    /// that no later read returns the old one.
    Replaced(Option<AnyInstance>),
}

/// Which instance must fail.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Exactly {
    pub(crate) generation: Generation,
    /// `None` for any revision.
    pub(crate) revision: Option<u64>,
}

impl History {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(None))
    }

    fn open(&self) -> MutexGuard<'_, Option<Box<Record>>> {
        lock(&self.0)
    }

    // Causes.

    /// Condemns the slot of this service, as the root of a cascade, and stores the cause. Returns
    /// the generation to which the slot is condemned.
    ///
    /// One step for `decide_replacement`: a replacement is decided before it, or finds the cause.
    pub(crate) fn condemn(
        &self,
        condemned: &CondemnedCell,
        exactly: Option<Exactly>,
        reason: Shielded<Reason>,
    ) -> Result<(Generation, OldCauses), NotCondemned> {
        let mut cause = Cause::new(Generation::FIRST, reason);
        let mut open = self.open();
        let record = open.get_or_insert_default();
        let to = match exactly {
            None => condemned.increment(),
            Some(Exactly { generation, revision }) => {
                // A generation that has ended has failed, whatever was replaced before.
                if condemned.load() > generation {
                    return Err(NotCondemned::AlreadyFailed);
                }
                let replaced = &record.replacements;
                match revision.map(|revision| revision.cmp(&replaced.of(generation))) {
                    Some(Less) => {
                        return Err(NotCondemned::Replaced(replaced.pending.clone()));
                    }
                    // There is no such instance.
                    Some(Greater) => return Err(NotCondemned::AlreadyFailed),
                    Some(Equal) | None => {}
                }
                condemned.increment_from(generation).ok_or(NotCondemned::AlreadyFailed)?
            }
        };
        cause.generation = to.previous().unwrap_or(Generation::FIRST);
        Ok((to, record.end(cause)))
    }

    /// Stores the cause of a cascade that began at this service while it was down. If the cascade
    /// has found a new attempt since then, `ends_generation` is set.
    pub(crate) fn began_while_down(
        &self,
        cause: Shielded<Cause>,
        ends_generation: bool,
    ) -> OldCauses {
        let mut open = self.open();
        let record = open.get_or_insert_default();
        if ends_generation {
            return record.end(cause);
        }
        [record.while_down.replace(cause), None]
    }

    /// Ends an attempt by `end`, stores its cause, and counts it. Returns the transition, and the
    /// number of failed attempts; `None` if a cascade has ended the generation before.
    ///
    /// One step for `list`. The caller drops the cause that is returned.
    pub(crate) fn fail_attempt(
        &self,
        cause: Shielded<Cause>,
        end: impl FnOnce() -> Result<Transition, Tag>,
    ) -> (Option<(Transition, u64)>, SomeCause) {
        let mut open = self.open();
        let record = open.get_or_insert_default();
        for listing in record.listings.drain(..).filter_map(|listing| listing.upgrade()) {
            listing.set(cause.generation);
        }
        let Ok(transition) = end() else { return (None, Some(cause)) };
        record.failed_attempts += 1;
        (Some((transition, record.failed_attempts)), record.attempt.replace(cause))
    }

    /// Returns what a listing for a new observer shows. `state` reads the state of the service.
    pub(crate) fn list(&self, state: impl FnOnce() -> Tag) -> Listed {
        let mut open = self.open();
        let state = state();
        let failed_since = (state.phase() == Phase::Starting).then(|| {
            let listings = &mut open.get_or_insert_default().listings;
            listings.retain(|listing| listing.strong_count() > 0);
            let failed_since = FailedSince::new(state.generation());
            listings.push(Arc::downgrade(&failed_since));
            failed_since
        });
        let of_record =
            |record: &Record| (record.failed_attempts, record.replacements.of(state.generation()));
        let (failed_attempts, revision) = open.as_deref().map(of_record).unwrap_or_default();
        Listed { state, failed_attempts, revision, closed: false, failed_since }
    }

    /// Returns the cause of the last cascade that began here. For the service itself, only of those
    /// that have ended one of its generations.
    pub(crate) fn cascade(&self, for_itself: bool) -> SomeCause {
        let open = self.open();
        let Record { ended, while_down, .. } = &**open.as_ref()?;
        let newest = while_down.as_ref().filter(|_| !for_itself).or(ended.as_ref())?;
        Some(Shielded::new(Cause::clone(newest)))
    }

    /// Returns the cause of the last failed attempt, if this is its generation.
    pub(crate) fn attempt(&self, generation: Generation) -> SomeCause {
        let open = self.open();
        let attempt = open.as_ref()?.attempt.as_ref()?;
        (attempt.generation == generation).then(|| Shielded::new(Cause::clone(attempt)))
    }

    // Replacements.

    /// Returns how often the value was replaced.
    pub(crate) fn replaced(&self) -> u64 {
        self.open().as_ref().map_or(0, |record| record.replaced)
    }

    /// Decides a replacement of the instance of `generation`, and returns the new instance. Returns
    /// `None`, and does not call `instance`, if a cascade that began at this service has condemned
    /// the generation, or if a later one has been replaced already.
    ///
    /// `instance` creates the new instance from its revision. It runs no user code.
    pub(crate) fn decide_replacement<T: Send + Sync + 'static>(
        &self,
        generation: Generation,
        instance: impl FnOnce(u64) -> Option<Arc<T>>,
    ) -> Option<Arc<T>> {
        let mut open = self.open();
        let record = open.get_or_insert_default();
        let failed = record.ended.as_ref().is_some_and(|cause| cause.generation >= generation);
        if failed || record.replacements.generation > generation {
            return None;
        }
        let revision = record.replacements.of(generation) + 1;
        let instance = instance(revision)?;
        record.replaced += 1;
        let pending: AnyInstance = Arc::clone(&instance) as _;
        let old = std::mem::replace(
            &mut record.replacements,
            Replaced { generation, revision, pending: Some(pending) },
        );
        drop(open);
        // It may be the last reference: a value of the user.
        drop(old);
        Some(instance)
    }

    /// Returns the instance of the last replacement, if it is not in its cell yet.
    pub(crate) fn pending(&self) -> Option<AnyInstance> {
        self.open().as_ref()?.replacements.pending.clone()
    }

    /// Forgets a pending instance: it is in its cell, or its generation has ended.
    pub(crate) fn forget_pending<T>(&self, instance: &Instance<T>) {
        let mut open = self.open();
        let Some(record) = open.as_mut() else { return };
        let &mut Replaced { generation, revision, ref mut pending } = &mut record.replacements;
        let is_this = InstanceNumber { generation, revision } == Instance::number(instance);
        let old = if is_this { pending.take() } else { None };
        drop(open);
        // It may be the last reference: a value of the user.
        drop(old);
    }
}

impl Record {
    /// Stores the cause of a cascade that ends a generation of this service, unless a later one has
    /// been stored.
    fn end(&mut self, cause: Shielded<Cause>) -> OldCauses {
        if self.ended.as_ref().is_some_and(|ended| ended.generation > cause.generation) {
            return [Some(cause), None];
        }
        [self.ended.replace(cause), self.while_down.take()]
    }
}

impl Default for Replaced {
    fn default() -> Self {
        Self { generation: Generation::FIRST, revision: 0, pending: None }
    }
}

impl Replaced {
    /// Returns how many replacements of an instance of `generation` were decided.
    fn of(&self, generation: Generation) -> u64 {
        if self.generation == generation { self.revision } else { 0 }
    }
}
