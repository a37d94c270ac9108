//! The list of the dependents of one service. Cascades read it without a lock, while it may change.
//!
//! Writers hold the lock of the topology. Each change of the list increments its version: a
//! dependent is written to the first free place, or is crossed out in its place, or the list is
//! copied, and then the change is counted. So a cascade that has read the list learns from the
//! version whether the list has changed since then. The version is 0 if the service has never had
//! a dependent.
//!
//! The graph remembers the place of each dependent, so that it is crossed out without a search. A
//! list is copied, without the crossed-out places, if it is full, and if most of its places are
//! crossed out. The copy is in ascending order, and each dependent gets a new place. The changes
//! before a copy share its cost. So the cost of a change does not depend on the length of the list.

use super::graph::PlaceNumber;
use crate::numbers::ServiceIndex;
use crate::sync::{AtomicU32, LockedNumber, Ordering, Pin, Snapshot};

/// The list. Its version is a separate type, so that the slot can store each word where it fits.
pub(crate) struct List(Snapshot<Places>);

impl List {
    /// The largest number of services: an index leaves room for the mark of an entry, and so does
    /// the number of a place, of which a list may have one and a half for each dependent.
    pub(crate) const MAX_SERVICES: u32 = 1 << 30;

    pub(crate) fn new() -> Self {
        Self(Snapshot::empty())
    }

    fn load<'p>(&self, pin: &'p Pin) -> Iter<'p> {
        match self.0.load(pin) {
            Some(places) => Iter { places: &places.inline, spilled: &places.spilled },
            None => Iter { places: &[], spilled: &[] },
        }
    }
}

/// A dependent in a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) dependent: ServiceIndex,
    /// A cascade follows the entry only if it finds the dependent not ready: the edge is declared
    /// as start-only, or belongs to a switch that is not committed. An edge that an attempt has
    /// discovered has an entry only as long as it is followed in any phase.
    pub(crate) unless_ready: bool,
}

/// The content of a list. The first places are inline: most services have no more dependents than
/// these, so a walk follows one pointer less.
struct Places {
    inline: [Place; INLINE],
    spilled: Box<[Place]>,
    /// The number of places before the first free one.
    used: LockedNumber,
    /// The number of dependents: the places that are used and not crossed out.
    present: LockedNumber,
}

const INLINE: usize = 4;

impl Places {
    fn new(dependents: &[Entry]) -> Self {
        let (first, rest) = dependents.split_at(dependents.len().min(INLINE));
        let place = |entry: Option<&Entry>| Place::new(entry.map_or(Place::EMPTY, Place::word_of));
        let inline = std::array::from_fn(|number| place(first.get(number)));
        // Half as many free places as dependents. So at least this number of dependents is added
        // before the next copy, which makes the cost of a copy constant for each of them.
        let length = if rest.is_empty() { 0 } else { rest.len() + dependents.len() / 2 };
        let spilled = (0..length).map(|number| place(rest.get(number))).collect();
        let [used, present] = [(); 2].map(|()| LockedNumber::new(dependents.len() as u32));
        Self { inline, spilled, used, present }
    }

    fn place(&self, number: PlaceNumber) -> Option<&Place> {
        let number = number as usize;
        match self.inline.get(number) {
            None => self.spilled.get(number - INLINE),
            inline => inline,
        }
    }

    /// Returns whether fewer than half of the used places have a dependent. The inline places need
    /// no copy: a walk reads them at no cost.
    fn is_sparse(&self) -> bool {
        let used = self.used.get();
        used as usize > INLINE && self.present.get() < used / 2
    }
}

/// The list and the version of one service.
#[derive(Clone, Copy)]
pub(crate) struct Dependents<'s> {
    pub(crate) list: &'s List,
    pub(crate) version: &'s Version,
}

impl Dependents<'_> {
    /// Returns the number of changes of the list, modulo 2^32, or 0 if the service has never had
    /// a dependent. A list that is read after this contains all changes that are counted.
    #[inline]
    pub(crate) fn version(self) -> u32 {
        self.version.load()
    }

    /// Iterates over the present dependents. Dependents that are removed during the iteration may
    /// be among them.
    #[inline]
    pub(crate) fn iter(self, pin: &Pin) -> Iter<'_> {
        self.list.load(pin)
    }

    /// Adds a dependent that is not in the list, and returns its place. Returns `None` if the list
    /// is full: then the caller calls `copy`. The caller holds the lock of the topology.
    pub(crate) fn insert(self, entry: Entry, pin: &Pin) -> Option<PlaceNumber> {
        let places = self.list.0.load(pin)?;
        let number = places.used.get();
        places.place(number)?.set(Place::word_of(&entry));
        places.used.set(number + 1);
        places.present.set(places.present.get() + 1);
        self.version.increment();
        Some(number)
    }

    /// Changes whether the entry in this place is followed while the dependent is ready. The caller
    /// holds the lock of the topology.
    pub(crate) fn change(self, number: PlaceNumber, entry: Entry, pin: &Pin) {
        if let Some(place) = self.list.0.load(pin).and_then(|places| places.place(number)) {
            place.set(Place::word_of(&entry));
        }
        self.version.increment();
    }

    /// Crosses out the dependent in this place. Returns whether most places are crossed out: then
    /// the caller calls `copy`. The caller holds the lock of the topology.
    pub(crate) fn remove(self, number: PlaceNumber, pin: &Pin) -> bool {
        let Some(places) = self.list.0.load(pin) else { return false };
        let Some(place) = places.place(number) else { return false };
        place.set(Place::REMOVED);
        places.present.set(places.present.get() - 1);
        self.version.increment();
        places.is_sparse()
    }

    /// Replaces the list by one of these dependents, whose places are numbered from 0 on. Linear
    /// in their number. The caller holds the lock of the topology.
    pub(crate) fn copy(self, dependents: &[Entry], pin: &Pin) {
        self.list.0.publish(Places::new(dependents), pin);
        self.version.increment();
    }
}

#[cfg(test)]
impl Dependents<'_> {
    /// Returns the dependent in a place.
    pub(crate) fn entry_at(self, number: PlaceNumber, pin: &Pin) -> Option<Entry> {
        Place::entry(self.list.0.load(pin)?.place(number)?.get())
    }

    /// Returns whether the list has no more places than it needs.
    pub(crate) fn is_dense(self, pin: &Pin) -> bool {
        self.list.0.load(pin).is_none_or(|places| !places.is_sparse())
    }
}

/// One place of a list: the index of a service, with a mark if its entry is not followed while the
/// service is ready; or one of two values that no entry has.
struct Place(AtomicU32);

impl Place {
    /// A free place. All places after it are free, too.
    const EMPTY: u32 = u32::MAX;
    /// A dependent that was crossed out.
    const REMOVED: u32 = u32::MAX - 1;
    /// The entry is not followed while the dependent is ready. All words below this one are entries
    /// that are always followed.
    const UNLESS_READY: u32 = 1 << 31;

    fn new(word: u32) -> Self {
        Self(AtomicU32::new(word))
    }

    fn word_of(entry: &Entry) -> u32 {
        entry.dependent.get() | if entry.unless_ready { Self::UNLESS_READY } else { 0 }
    }

    /// Returns the entry of a word, or `None` if the place is free or was crossed out.
    #[inline]
    fn entry(word: u32) -> Option<Entry> {
        if word < Self::UNLESS_READY {
            return Some(Entry { dependent: ServiceIndex::new(word), unless_ready: false });
        }
        let dependent = word - Self::UNLESS_READY;
        let is_entry = dependent < List::MAX_SERVICES;
        is_entry.then(|| Entry { dependent: ServiceIndex::new(dependent), unless_ready: true })
    }

    /// Relaxed: a new dependent is ordered by the version (`Version`). A removed one is ordered by
    /// the fence of the cascade (`fence_before_check`), which comes after this load and before
    /// the first slot is taken down.
    #[inline]
    fn get(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    /// Release: pairs with that fence. Before a dependent is crossed out, or its entry is followed
    /// no more while it is ready, the generation that used the edge has ended, or has published an
    /// instance without it. A cascade that reads the new word takes its slots down after that (I1).
    fn set(&self, word: u32) {
        self.0.store(word, Ordering::Release);
    }
}

/// The number of changes of a list, modulo 2^32; but after a change it is never 0. A cascade
/// compares two loads of its own, so it would be misled only if exactly 2^32 - 1 changes, or a
/// multiple of that, were made between the two.
pub(crate) struct Version(AtomicU32);

impl Version {
    pub(crate) fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    /// Acquire: pairs with `increment`. A list that is read after this contains every change that
    /// is counted.
    #[inline]
    fn load(&self) -> u32 {
        self.0.load(Ordering::Acquire)
    }

    /// Release: pairs with `load`. The list is changed before the change is counted.
    fn increment(&self) {
        if self.0.fetch_add(1, Ordering::Release) == u32::MAX {
            self.0.fetch_add(1, Ordering::Release);
        }
    }
}

/// Iterates over the dependents in a list.
#[derive(Clone, Copy, Default)]
pub(crate) struct Iter<'p> {
    /// The places that are read first.
    places: &'p [Place],
    /// The places that are read after those.
    spilled: &'p [Place],
}

impl Iterator for Iter<'_> {
    type Item = Entry;

    #[inline]
    fn next(&mut self) -> Option<Entry> {
        loop {
            let Some((place, rest)) = self.places.split_first() else {
                if self.spilled.is_empty() {
                    return None;
                }
                self.places = std::mem::take(&mut self.spilled);
                continue;
            };
            let word = place.get();
            if word == Place::EMPTY {
                return None;
            }
            self.places = rest;
            if let Some(entry) = Place::entry(word) {
                return Some(entry);
            }
        }
    }
}
