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

#[cfg(feature = "supervise")]
use super::decision::{Decided, Decision};
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
    /// The switch that makes the next instance current, if it is committed.
    #[cfg(feature = "supervise")]
    switch: Option<Switching>,
    /// The revision of the first instance of the present publication.
    first: u64,
}

/// A switch that is noted.
#[cfg(feature = "supervise")]
struct Switching {
    decision: Arc<Decision>,
    /// Whether the new instance begins a publication.
    begins: bool,
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
    /// The revision of the first instance of its publication, if it is of one that must not be
    /// over: a reload begins another one.
    pub(crate) publication: Option<u64>,
}

impl History {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(None))
    }

    fn open(&self) -> MutexGuard<'_, Option<Box<Record>>> {
        lock(&self.0)
    }

    /// Waits until no other thread is changing the history.
    #[cfg(feature = "supervise")]
    pub(super) fn wait_for_change(&self) {
        drop(self.open());
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
            Some(exactly) => {
                let Exactly { generation, revision, .. } = exactly;
                // A generation that has ended has failed, whatever was replaced before.
                if condemned.load() > generation {
                    return Err(NotCondemned::AlreadyFailed);
                }
                let replaced = &record.replacements;
                // A switch must not make another instance current after this one was condemned.
                #[cfg(feature = "supervise")]
                if revision == Some(replaced.of(generation)) || exactly.publication.is_some() {
                    replaced.abort_switch();
                }
                if replaced.is_over(generation, exactly.publication) {
                    return Err(NotCondemned::AlreadyFailed);
                }
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
        self.open().as_ref().map_or(0, |record| record.replaced + record.replacements.switched())
    }

    /// Decides a replacement of the instance of `generation`, and returns the new instance. Returns
    /// `None`, and does not call `instance`, if a cascade that began at this service has condemned
    /// the generation, or if a later one has been replaced already, or if the `publication` is
    /// over.
    ///
    /// `instance` creates the new instance from its revision. It runs no user code.
    pub(crate) fn decide_replacement<T: Send + Sync + 'static>(
        &self,
        generation: Generation,
        publication: Option<u64>,
        instance: impl FnOnce(u64) -> Option<Arc<T>>,
    ) -> Option<Arc<T>> {
        let mut open = self.open();
        let record = open.get_or_insert_default();
        let failed = record.ended.as_ref().is_some_and(|cause| cause.generation >= generation);
        if failed || record.replacements.generation > generation {
            return None;
        }
        // From now on, no switch is committed that would replace the present instance.
        #[cfg(feature = "supervise")]
        record.end_switch();
        if record.replacements.is_over(generation, publication) {
            return None;
        }
        let first = record.replacements.first_of(generation);
        let revision = record.replacements.of(generation) + 1;
        let instance = instance(revision)?;
        record.replaced += 1;
        let pending: AnyInstance = Arc::clone(&instance) as _;
        let old = std::mem::replace(
            &mut record.replacements,
            Replaced { pending: Some(pending), ..Replaced::new(generation, revision, first) },
        );
        drop(open);
        // It may be the last reference: a value of the user.
        drop(old);
        Some(instance)
    }

    /// Returns whether a reload has ended this publication, if one is named by the revision of its
    /// first instance, and its generation has not ended.
    #[cfg(feature = "supervise")]
    pub(super) fn is_over(&self, generation: Generation, publication: Option<u64>) -> bool {
        let open = self.open();
        open.as_ref().is_some_and(|record| {
            let failed = record.ended.as_ref().is_some_and(|cause| cause.generation >= generation);
            !failed && record.replacements.is_over(generation, publication)
        })
    }

    /// Notes that a switch makes the instance after this one current, if it is committed, and
    /// whether that one begins a publication. Returns `false`, and notes nothing, if this is not
    /// the last one that was decided, if it may not be in its cell yet, or if a cascade that began
    /// at this service has condemned the generation.
    #[cfg(feature = "supervise")]
    pub(super) fn begin_switch(
        &self,
        InstanceNumber { generation, revision }: InstanceNumber,
        decision: &Arc<Decision>,
        begins: bool,
    ) -> bool {
        let mut open = self.open();
        let record = open.get_or_insert_default();
        let failed = record.ended.as_ref().is_some_and(|cause| cause.generation >= generation);
        let replaced = &mut record.replacements;
        if failed
            || replaced.generation > generation
            || replaced.of(generation) != revision
            || replaced.pending.is_some()
        {
            return false;
        }
        let switch = Some(Switching { decision: Arc::clone(decision), begins });
        let first = replaced.first_of(generation);
        *replaced = Replaced { switch, ..Replaced::new(generation, revision, first) };
        true
    }

    /// Counts the replacement by a switch, if it is committed, and forgets the switch.
    #[cfg(feature = "supervise")]
    pub(super) fn end_switch(&self, decision: &Arc<Decision>) {
        let mut open = self.open();
        let Some(record) = open.as_mut() else { return };
        let noted = record.replacements.switch.as_ref();
        if noted.is_some_and(|switch| Arc::ptr_eq(&switch.decision, decision)) {
            record.end_switch();
        }
    }

    /// Returns whether the switch that was noted is committed.
    #[cfg(feature = "supervise")]
    pub(super) fn is_switched(&self) -> bool {
        self.open().as_ref().is_some_and(|record| record.replacements.switched() > 0)
    }

    /// Aborts the switch that was noted, unless it is committed, or is this one. Returns whether it
    /// is committed.
    #[cfg(feature = "supervise")]
    pub(super) fn decide_switch(&self, within: Option<&Decision>) -> bool {
        let open = self.open();
        let switch = open.as_ref().and_then(|record| record.replacements.switch.as_ref());
        switch.is_some_and(|Switching { decision, .. }| {
            let is_own = within.is_some_and(|own| std::ptr::eq(own, &raw const **decision));
            !is_own && !decision.abort()
        })
    }

    /// Ends the attempt of `generation` by the transition `to_void`, and stores its cause. One step
    /// for a thread that finds the transition, and then the cause.
    #[cfg(feature = "supervise")]
    pub(super) fn void_attempt(
        &self,
        cause: Shielded<Cause>,
        to_void: impl FnOnce() -> bool,
    ) -> OldCauses {
        let mut open = self.open();
        if !to_void() {
            return [Some(cause), None];
        }
        open.get_or_insert_default().end(cause)
    }

    /// Returns the instance of the last replacement, if it is not in its cell yet.
    pub(crate) fn pending(&self) -> Option<AnyInstance> {
        self.open().as_ref()?.replacements.pending.clone()
    }

    /// Forgets a pending instance: it is in its cell, or its generation has ended.
    pub(crate) fn forget_pending<T>(&self, instance: &Instance<T>) {
        let mut open = self.open();
        let Some(record) = open.as_mut() else { return };
        let &mut Replaced { generation, revision, ref mut pending, .. } = &mut record.replacements;
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

    /// Ends the switch that was noted, if there is one: aborts it, or counts its replacement.
    #[cfg(feature = "supervise")]
    fn end_switch(&mut self) {
        let replaced = &mut self.replacements;
        let Some(switch) = replaced.switch.take() else { return };
        if !switch.decision.abort() {
            replaced.revision += 1;
            self.replaced += 1;
            if switch.begins {
                replaced.first = replaced.revision;
            }
        }
    }
}

impl Default for Replaced {
    fn default() -> Self {
        Self::new(Generation::FIRST, 0, 0)
    }
}

impl Replaced {
    fn new(generation: Generation, revision: u64, first: u64) -> Self {
        Self {
            generation,
            revision,
            pending: None,
            #[cfg(feature = "supervise")]
            switch: None,
            first,
        }
    }

    /// Returns how many replacements of an instance of `generation` were decided.
    fn of(&self, generation: Generation) -> u64 {
        if self.generation == generation { self.revision + self.switched() } else { 0 }
    }

    /// Returns whether the switch that was noted is committed, as a number of replacements.
    fn switched(&self) -> u64 {
        #[cfg(feature = "supervise")]
        if let Some(switch) = &self.switch {
            return u64::from(switch.decision.load() == Decided::Committed);
        }
        0
    }

    /// Returns the revision of the first instance of the present publication.
    fn first_of(&self, generation: Generation) -> u64 {
        if self.generation != generation {
            return 0;
        }
        #[cfg(feature = "supervise")]
        if self.switch.as_ref().is_some_and(|switch| switch.begins) && self.switched() > 0 {
            return self.revision + 1;
        }
        self.first
    }

    /// Returns whether a reload has ended this publication, if one is named.
    fn is_over(&self, generation: Generation, publication: Option<u64>) -> bool {
        publication.is_some_and(|publication| self.first_of(generation) > publication)
    }

    /// Aborts the switch that was noted, unless it is committed.
    #[cfg(feature = "supervise")]
    fn abort_switch(&self) {
        if let Some(switch) = &self.switch {
            switch.decision.abort();
        }
    }
}
