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
pub(crate) struct List(Snapshot<Places>);

impl List {
    /// Services are numbered from zero to less than this.
    pub(crate) const NUMBERS: u32 = Place::LEFT;

    pub(crate) fn new() -> Self {
        Self(Snapshot::empty())
    }

    fn load<'p>(&self, pin: &'p Pin) -> Iter<'p> {
        match self.0.load(pin) {
            Some(places) => Iter { now: &places.few, then: &places.more },
            None => Iter { now: &[], then: &[] },
        }
    }
}

/// The first ones stand in the list itself: most have no more, and a walk spares a way through memory.
struct Places {
    few: [Place; 4],
    more: Box<[Place]>,
}

impl Places {
    fn new(dependents: impl Iterator<Item = u32>) -> Self {
        let mut places = dependents.map(Place::new);
        let few = std::array::from_fn(|_| places.next().unwrap_or(Place::new(Place::EMPTY)));
        let mut more: Vec<Place> = places.collect();
        if !more.is_empty() {
            // As many free ones, also where some have left: so many come before the next copy.
            more.resize_with(2 * (few.len() + more.len()), || Place::new(Place::EMPTY));
        }
        Self { few, more: more.into_boxed_slice() }
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
        self.list.load(pin)
    }

    /// Adds one that is not there. Amortised constant, but for a search by halves. Under the topology's lock.
    pub(crate) fn add(self, dependent: u32, pin: &Pin) {
        match self.list.load(pin).free() {
            Some(place) => place.set(dependent),
            None => {
                let places = Places::new(self.iter(pin).chain([dependent]));
                self.list.0.publish(places, pin);
            }
        }
        self.gained.add();
    }

    /// Takes one out. Linear in their number. Under the topology's lock.
    pub(crate) fn remove(self, dependent: u32, pin: &Pin) {
        if let Some(place) = self.list.load(pin).find(dependent) {
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

    /// Relaxed: who comes is ordered by the count, and who leaves by the fence before a cascade's second look, which
    /// stands between this and what is raised.
    #[inline]
    fn get(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    /// Release: pairs with that fence. Who leaves has left the generation that stood on the edge: a cascade that
    /// passes it by raises what it does raise after that (I1).
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
pub(crate) struct Iter<'p> {
    now: &'p [Place],
    then: &'p [Place],
}

impl<'p> Iter<'p> {
    fn free(self) -> Option<&'p Place> {
        let free = |places: &'p [Place]| {
            let used = places.partition_point(|place| place.get() != Place::EMPTY);
            places.get(used)
        };
        free(self.now).or_else(|| free(self.then))
    }

    fn find(self, dependent: u32) -> Option<&'p Place> {
        self.now.iter().chain(self.then).find(|place| place.get() == dependent)
    }
}

impl Iterator for Iter<'_> {
    type Item = u32;

    #[inline]
    fn next(&mut self) -> Option<u32> {
        loop {
            let Some((place, rest)) = self.now.split_first() else {
                if self.then.is_empty() {
                    return None;
                }
                self.now = std::mem::take(&mut self.then);
                continue;
            };
            match place.get() {
                Place::EMPTY => return None,
                dependent => {
                    self.now = rest;
                    if dependent != Place::LEFT {
                        return Some(dependent);
                    }
                }
            }
        }
    }
}
