//! The services that may be stuck, for waits that end when stuck (S17 in `docs/supervision.md`).
//!
//! The store keeps the log, and nothing more: `registry/stuck.rs` decides which services are stuck.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ops::{Bound, Range},
};

use super::{WaitPoint, fence_before_check};
use crate::{
    numbers::ServiceIndex,
    sync::{Count, Mutex, lock},
};

pub(crate) struct StuckLog {
    entries: Mutex<Entries>,
    /// The number of roots. Written under the lock, before their entries can be found.
    roots: Count,
    /// One more than the number of services that were registered when start-up was complete; 0
    /// before that. Written under the lock.
    started: Count,
    /// Wakes the waits after each new entry.
    pub(crate) changed: WaitPoint,
}

/// The number of an entry. Each new entry has the next one.
pub(crate) type EntryNumber = u64;

#[derive(Default)]
struct Entries {
    last: EntryNumber,
    services: BTreeMap<EntryNumber, ServiceIndex>,
    numbers: HashMap<ServiceIndex, EntryNumber>,
    /// Those that are stuck by themselves, or were so when they were reviewed last.
    roots: HashSet<ServiceIndex>,
    /// The services for which the supervisors of others wait, or have waited, without an edge.
    #[cfg(feature = "supervise")]
    missing: HashMap<ServiceIndex, ServiceIndex>,
    /// The same pairs, by the one that is missing.
    #[cfg(feature = "supervise")]
    missed_by: std::collections::BTreeSet<(ServiceIndex, ServiceIndex)>,
}

impl StuckLog {
    pub(super) fn new() -> Self {
        Self {
            entries: Mutex::default(),
            roots: Count::new(),
            started: Count::new(),
            changed: WaitPoint::new(),
        }
    }

    /// Returns whether a service is stuck by itself. Called after the caller has written for which
    /// service another one waits: either this call finds the root, or a wait that has found the
    /// root finds what the caller has written (`since` has the other fence).
    #[inline]
    pub(crate) fn has_roots(&self) -> bool {
        fence_before_check();
        self.roots.get() > 0
    }

    /// Adds a service that is stuck by itself, and wakes the waits.
    pub(crate) fn add_root(&self, index: ServiceIndex) {
        let mut entries = lock(&self.entries);
        entries.roots.insert(index);
        self.roots.set(entries.roots.len() as u32);
        entries.add(index);
        drop(entries);
        self.changed.wake_all();
    }

    /// Adds a service that has begun to wait for one that is stuck, and wakes the waits.
    pub(crate) fn add_waiting(&self, index: ServiceIndex) {
        lock(&self.entries).add(index);
        self.changed.wake_all();
    }

    /// Returns the number of the entry of a service, or 0.
    pub(crate) fn number(&self, index: ServiceIndex) -> EntryNumber {
        lock(&self.entries).numbers.get(&index).copied().unwrap_or_default()
    }

    /// Notes that a service is not stuck by itself, unless its entry has another number than this
    /// one. The entry may also say that the service waits: so it remains.
    pub(crate) fn remove_root(&self, index: ServiceIndex, number: EntryNumber) {
        let entries = &mut *lock(&self.entries);
        if entries.numbers.get(&index) != Some(&number) || !entries.roots.remove(&index) {
            return;
        }
        self.roots.set(entries.roots.len() as u32);
        if entries.roots.is_empty() {
            // Nothing is stuck.
            entries.services.clear();
            entries.numbers.clear();
        }
    }

    /// Returns the number of the last entry, for a caller that then reads the states of services.
    pub(crate) fn last(&self) -> EntryNumber {
        let last = lock(&self.entries).last;
        fence_before_check();
        last
    }

    /// Returns the services whose entries are newer than this one, and the number of the last
    /// entry. The caller then reads their states.
    pub(crate) fn since(&self, number: EntryNumber) -> (Vec<ServiceIndex>, EntryNumber) {
        let entries = lock(&self.entries);
        let newer = entries.services.range((Bound::Excluded(number), Bound::Unbounded));
        let result = (newer.map(|(_, &index)| index).collect(), entries.last);
        drop(entries);
        // The other side of `has_roots`.
        fence_before_check();
        result
    }

    /// Notes that the supervisor of a service waits for another one, perhaps without an edge.
    #[cfg(feature = "supervise")]
    pub(crate) fn set_missing(&self, index: ServiceIndex, missing: ServiceIndex) {
        let entries = &mut *lock(&self.entries);
        if let Some(before) = entries.missing.insert(index, missing) {
            entries.missed_by.remove(&(before, index));
        }
        entries.missed_by.insert((missing, index));
    }

    /// Returns the services whose supervisors wait, or have waited, for this one.
    #[cfg(feature = "supervise")]
    pub(crate) fn missed_by(&self, missing: ServiceIndex) -> Vec<ServiceIndex> {
        let entries = lock(&self.entries);
        let all = entries.missed_by.range((missing, ServiceIndex::new(0))..);
        all.take_while(|(of, _)| *of == missing).map(|&(_, index)| index).collect()
    }

    /// Notes that start-up is complete for this number of services. Returns those for which it was
    /// not complete before.
    pub(crate) fn set_started(&self, services: u32) -> Range<u32> {
        let _entries = lock(&self.entries);
        let before = self.started.get();
        if before <= services {
            self.started.set(services + 1);
        }
        before.saturating_sub(1)..services
    }

    /// Returns whether start-up is complete.
    pub(crate) fn has_started(&self) -> bool {
        self.started.get() > 0
    }

    /// Returns whether the service was registered before start-up was complete. A caller that has
    /// found the number of an entry, or an entry, sees what was set before.
    pub(crate) fn is_started(&self, index: ServiceIndex) -> bool {
        index.get() + 1 < self.started.get()
    }
}

impl Entries {
    fn add(&mut self, index: ServiceIndex) {
        self.last += 1;
        if let Some(before) = self.numbers.insert(index, self.last) {
            self.services.remove(&before);
        }
        self.services.insert(self.last, index);
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    fn indices<const N: usize>() -> [ServiceIndex; N] {
        std::array::from_fn(|i| ServiceIndex::new(i as u32))
    }

    #[test]
    fn a_service_has_one_entry_with_the_last_number() {
        let (log, [a, b, c]) = (StuckLog::new(), indices());
        assert!(!log.has_roots());
        assert_eq!(log.since(0), (vec![], 0));
        log.add_root(a);
        log.add_waiting(b);
        log.add_waiting(c);
        log.add_waiting(b);
        assert!(log.has_roots());
        assert_eq!(log.since(0), (vec![a, c, b], 4));
        assert_eq!(log.since(3), (vec![b], 4));
        assert_eq!((log.number(b), log.last()), (4, 4));
    }

    #[test]
    fn a_root_that_has_a_new_entry_since_its_review_is_not_removed() {
        let (log, [a, b, c]) = (StuckLog::new(), indices());
        log.add_root(a);
        log.add_root(b);
        log.add_waiting(c);
        let number = log.number(a);
        log.add_root(a);
        log.remove_root(a, number);
        log.remove_root(b, log.number(b));
        assert!(log.has_roots(), "a is stuck again");
        log.remove_root(c, log.number(c));
        assert_eq!(log.since(0), (vec![b, c, a], 4), "an entry may also say that it waits");
        log.remove_root(a, log.number(a));
        assert!(!log.has_roots());
        assert_eq!(log.since(0), (vec![], 4), "no entry remains without a root");
        log.remove_root(a, log.number(a));
    }

    #[test]
    fn start_up_is_complete_for_the_services_that_were_registered_before() {
        let (log, [a, b]) = (StuckLog::new(), indices());
        assert!(!log.has_started());
        assert_eq!(log.set_started(0), 0..0);
        assert!(log.has_started() && !log.is_started(a));
        assert_eq!(log.set_started(1), 0..1);
        assert!(log.is_started(a) && !log.is_started(b));
        assert!(log.set_started(1).is_empty());
        assert_eq!(log.set_started(2), 1..2);
        assert!(log.set_started(1).is_empty() && log.is_started(b));
    }

    #[test]
    #[cfg(feature = "supervise")]
    fn a_supervisor_misses_one_service_at_a_time() {
        let (log, [a, b, c]) = (StuckLog::new(), indices());
        log.set_missing(c, a);
        log.set_missing(b, a);
        assert_eq!(log.missed_by(a), [b, c]);
        log.set_missing(b, c);
        assert_eq!((log.missed_by(a), log.missed_by(c)), (vec![c], vec![b]));
    }
}
