//! The closure of some services, found by following who depends on them: without a lock, while edges change.

use std::collections::hash_map::Entry;

use rustc_hash::FxHashMap;

use super::{dependents::Iter, topology::Slots};
use crate::sync::Pin;

/// The services that a walk started from, and all that transitively depends on them.
#[derive(Default)]
pub(crate) struct Walk {
    /// As they were met.
    found: Vec<Found>,
    /// Their places in `found`, each service before those that it depends on.
    order: Vec<u32>,
}

/// One service of a walk.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found {
    pub(crate) service: u32,
    /// It depends on another of them.
    pub(crate) stands: bool,
    /// How many dependents it had ever gained when they began to be followed.
    gained: u32,
    /// They have been followed to their ends.
    done: bool,
}

impl Walk {
    /// Walks from `starts`, depth first. What has become a dependent before is found, unless it has left since.
    ///
    /// `None` where edges have changed meanwhile, so that what was read one after another is a circle.
    pub(crate) fn from(
        slots: &impl Slots,
        starts: impl IntoIterator<Item = u32>,
        pin: &Pin,
    ) -> Option<Self> {
        let mut walk = Self::default();
        let mut places: FxHashMap<u32, u32> = FxHashMap::default();
        // The way from a start to here, and who is still to be followed at each step. Not in the stack: a chain may
        // be long.
        let mut way: Vec<(u32, Iter<'_>)> = Vec::new();
        for start in starts {
            let mut next = Some((start, false));
            loop {
                if let Some((service, stands)) = next {
                    match places.entry(service) {
                        Entry::Vacant(entry) => {
                            let dependents = slots.slot(service).dependents();
                            let place = *entry.insert(walk.found.len() as u32);
                            // Counted before they are followed.
                            let gained = dependents.gained();
                            walk.found.push(Found { service, stands, gained, done: false });
                            way.push((place, dependents.iter(pin)));
                        }
                        Entry::Occupied(entry) => {
                            let found = &mut walk.found[*entry.get() as usize];
                            if !found.done {
                                return None;
                            }
                            found.stands |= stands;
                        }
                    }
                }
                let Some((place, dependents)) = way.last_mut() else { break };
                next = dependents.next().map(|dependent| (dependent, true));
                if next.is_none() {
                    walk.found[*place as usize].done = true;
                    walk.order.push(*place);
                    way.pop();
                }
            }
        }
        Some(walk)
    }

    /// All that was found, each before what depends on it.
    pub(crate) fn dependencies_first(&self) -> impl Iterator<Item = Found> {
        self.order.iter().rev().map(|&place| self.found[place as usize])
    }

    /// Whether none of them has gained a dependent since: then the walk has the closure of its starts, and each
    /// before what depends on it.
    pub(crate) fn is_whole(&self, slots: &impl Slots) -> bool {
        self.found
            .iter()
            .all(|found| slots.slot(found.service).dependents().gained() == found.gained)
    }
}
