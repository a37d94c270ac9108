//! The list of the dependents of one service. Cascades read it without a lock, while it may change.
//!
//! Writers hold the lock of the topology. A new dependent is written to the end of the list, and
//! then counted in `gained`. So a cascade that has read the list learns from the count whether it
//! has missed a dependent. A removed dependent is crossed out in place, and this is not counted:
//! a cascade that takes too many services down is harmless.
//!
//! A full list is copied to a larger one, without the crossed-out entries. So the cost of adding an
//! edge does not depend on the number of edges.

use crate::numbers::ServiceIndex;
use crate::sync::{AtomicU32, Ordering, Pin, Snapshot};

/// The list. Its count is a separate type, so that the slot can store each word where it fits.
pub(crate) struct List(Snapshot<Places>);

impl List {
    /// The largest number of services: every index must be below the two special values of a place.
    pub(crate) const MAX_SERVICES: u32 = Place::REMOVED;

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

/// The content of a list. The first places are inline: most services have no more dependents than
/// these, so a walk follows one pointer less.
struct Places {
    inline: [Place; 4],
    spilled: Box<[Place]>,
}

impl Places {
    fn new(dependents: impl Iterator<Item = ServiceIndex>) -> Self {
        let mut places = dependents.map(Place::of);
        let inline = std::array::from_fn(|_| places.next().unwrap_or(Place::empty()));
        let mut spilled: Vec<Place> = places.collect();
        if !spilled.is_empty() {
            // At least as many free places as dependents. So this number of dependents is added
            // before the next copy, which makes the cost of a copy constant for each of them.
            spilled.resize_with(2 * (inline.len() + spilled.len()), Place::empty);
        }
        Self { inline, spilled: spilled.into_boxed_slice() }
    }
}

/// The list and the count of one service.
#[derive(Clone, Copy)]
pub(crate) struct Dependents<'s> {
    pub(crate) list: &'s List,
    pub(crate) gained: &'s Gained,
}

impl Dependents<'_> {
    /// Returns the number of dependents that were ever added. A list that is read after this
    /// contains all of them that have not been removed.
    #[inline]
    pub(crate) fn version(self) -> u32 {
        self.gained.load()
    }

    /// Iterates over the present dependents. Dependents that are removed during the iteration may
    /// be among them.
    #[inline]
    pub(crate) fn iter(self, pin: &Pin) -> Iter<'_> {
        self.list.load(pin)
    }

    /// Adds a dependent that is not in the list. The caller holds the lock of the topology.
    ///
    /// Takes amortized constant time, in addition to a binary search for the first free place.
    pub(crate) fn insert(self, dependent: ServiceIndex, pin: &Pin) {
        match self.list.load(pin).free() {
            Some(place) => place.set(dependent.get()),
            None => {
                let places = Places::new(self.iter(pin).chain([dependent]));
                self.list.0.publish(places, pin);
            }
        }
        self.gained.increment();
    }

    /// Crosses a dependent out, in time linear in the length of the list. The caller holds the
    /// lock of the topology.
    pub(crate) fn remove(self, dependent: ServiceIndex, pin: &Pin) {
        if let Some(place) = self.list.load(pin).find(dependent) {
            place.set(Place::REMOVED);
        }
    }
}

/// One place of a list: the index of a service, or one of two values that no index has.
struct Place(AtomicU32);

impl Place {
    /// A free place. All places after it are free, too.
    const EMPTY: u32 = u32::MAX;
    /// A dependent that was crossed out.
    const REMOVED: u32 = u32::MAX - 1;

    fn empty() -> Self {
        Self(AtomicU32::new(Self::EMPTY))
    }

    fn of(dependent: ServiceIndex) -> Self {
        Self(AtomicU32::new(dependent.get()))
    }

    /// Relaxed: a new dependent is ordered by the count (`Gained`). A removed one is ordered by
    /// the fence of the cascade (`fence_before_check`), which comes after this load and before
    /// the first slot is taken down.
    #[inline]
    fn get(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    /// Release: pairs with that fence. Before a dependent is crossed out, the generation that
    /// used the edge has ended. A cascade that reads the crossed-out place takes its slots down
    /// after that end (I1).
    fn set(&self, word: u32) {
        self.0.store(word, Ordering::Release);
    }
}

/// The number of dependents that were ever added. It wraps around after 2^32 of them. A cascade
/// compares two loads of its own, so it would be misled only if exactly 2^32 dependents, or a
/// multiple of that, were added between the two.
pub(crate) struct Gained(AtomicU32);

impl Gained {
    pub(crate) fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    /// Acquire: pairs with `increment`. A list that is read after this contains every dependent
    /// that is counted.
    #[inline]
    fn load(&self) -> u32 {
        self.0.load(Ordering::Acquire)
    }

    /// Release: pairs with `load`. The dependent is in the list before it is counted.
    fn increment(&self) {
        self.0.fetch_add(1, Ordering::Release);
    }
}

/// Iterates over the dependents in a list.
#[derive(Clone, Copy)]
pub(crate) struct Iter<'p> {
    /// The places that are read first.
    places: &'p [Place],
    /// The places that are read after those.
    spilled: &'p [Place],
}

impl<'p> Iter<'p> {
    /// Returns the first free place.
    fn free(self) -> Option<&'p Place> {
        let free = |places: &'p [Place]| {
            let used = places.partition_point(|place| place.get() != Place::EMPTY);
            places.get(used)
        };
        free(self.places).or_else(|| free(self.spilled))
    }

    /// Returns the place of a dependent.
    fn find(self, dependent: ServiceIndex) -> Option<&'p Place> {
        self.places.iter().chain(self.spilled).find(|place| place.get() == dependent.get())
    }
}

impl Iterator for Iter<'_> {
    type Item = ServiceIndex;

    #[inline]
    fn next(&mut self) -> Option<ServiceIndex> {
        loop {
            let Some((place, rest)) = self.places.split_first() else {
                if self.spilled.is_empty() {
                    return None;
                }
                self.places = std::mem::take(&mut self.spilled);
                continue;
            };
            match place.get() {
                Place::EMPTY => return None,
                dependent => {
                    self.places = rest;
                    if dependent != Place::REMOVED {
                        return Some(ServiceIndex::new(dependent));
                    }
                }
            }
        }
    }
}
