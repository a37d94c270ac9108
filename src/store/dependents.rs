//! The dependents of one service, as a cascade reads them: without a lock, while others come and go.
//!
//! Writers are under the topology's lock. Who comes is written to the end of the list, and then counted: a cascade
//! that has read the list knows by the count whether there is more by now. Who leaves is crossed out, and not
//! counted: a cascade that takes too much down for a moment does no harm.
//!
//! A full list is copied to a larger one, without what was crossed out; so an edge costs the same however many
//! there are.

use crate::sync::{AtomicU32, Ordering, Pin, Snapshot};

/// Where the list stands: apart from its count, so that both fit into a slot.
pub(crate) struct List(Snapshot<Box<[Place]>>);

impl List {
    /// Services are numbered from zero to less than this.
    pub(crate) const NUMBERS: u32 = Place::LEFT;

    pub(crate) fn new() -> Self {
        Self(Snapshot::empty())
    }

    fn load<'p>(&self, pin: &'p Pin) -> &'p [Place] {
        self.0.load(pin).map_or(&[], |list| list)
    }
}

/// The list and the count of one service.
#[derive(Clone, Copy)]
pub(crate) struct Dependents<'s> {
    pub(crate) list: &'s List,
    pub(crate) gained: &'s Gained,
}

impl Dependents<'_> {
    /// How many have ever come. Read before the list, it says that the list has all these.
    #[inline]
    pub(crate) fn gained(self) -> u32 {
        self.gained.load()
    }

    /// Those of now. Some that are crossed out meanwhile may be among them.
    #[inline]
    pub(crate) fn iter(self, pin: &Pin) -> Iter<'_> {
        Iter(self.list.load(pin))
    }

    /// Adds one that is not there. Amortised constant, but for a search by halves. Under the topology's lock.
    pub(crate) fn add(self, dependent: u32, pin: &Pin) {
        let list = self.list.load(pin);
        let used = list.partition_point(|place| place.get() != Place::EMPTY);
        match list.get(used) {
            Some(place) => place.set(dependent),
            None => {
                let mut all: Vec<Place> =
                    self.iter(pin).chain([dependent]).map(Place::new).collect();
                // As many free ones, also where some have left: so many come before the next copy.
                all.resize_with(2 * all.len(), || Place::new(Place::EMPTY));
                self.list.0.publish(all.into_boxed_slice(), pin);
            }
        }
        self.gained.add();
    }

    /// Takes one out. Linear in their number. Under the topology's lock.
    pub(crate) fn remove(self, dependent: u32, pin: &Pin) {
        if let Some(place) = self.list.load(pin).iter().find(|place| place.get() == dependent) {
            place.set(Place::LEFT);
        }
    }
}

/// One place of a list: a service, or one of two numbers that no service has.
struct Place(AtomicU32);

impl Place {
    /// Nobody yet, and nobody after it.
    const EMPTY: u32 = u32::MAX;
    /// Somebody who has left.
    const LEFT: u32 = u32::MAX - 1;

    fn new(dependent: u32) -> Self {
        Self(AtomicU32::new(dependent))
    }

    /// Acquire: pairs with `set`. Who finds a dependent crossed out sees that it has left the generation that
    /// stood on the edge, so that what is raised after this is raised after that (I1).
    #[inline]
    fn get(&self) -> u32 {
        self.0.load(Ordering::Acquire)
    }

    /// Release: pairs with `get`.
    fn set(&self, dependent: u32) {
        self.0.store(dependent, Ordering::Release);
    }
}

/// How many have ever come. That it starts anew after 2^32 of them could only deceive a cascade during which all
/// of them came: it compares two looks of its own.
pub(crate) struct Gained(AtomicU32);

impl Gained {
    pub(crate) fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    /// Acquire: pairs with `add`; the list that is read after this has at least those that are counted.
    #[inline]
    fn load(&self) -> u32 {
        self.0.load(Ordering::Acquire)
    }

    /// Release: pairs with `load`.
    fn add(&self) {
        self.0.fetch_add(1, Ordering::Release);
    }
}

/// The dependents in a list.
#[derive(Clone, Copy)]
pub(crate) struct Iter<'p>(&'p [Place]);

impl Iterator for Iter<'_> {
    type Item = u32;

    #[inline]
    fn next(&mut self) -> Option<u32> {
        loop {
            let (place, rest) = self.0.split_first()?;
            match place.get() {
                Place::EMPTY => return None,
                dependent => {
                    self.0 = rest;
                    if dependent != Place::LEFT {
                        return Some(dependent);
                    }
                }
            }
        }
    }
}
