//! The closure of some services, found by following who depends on them: without a lock, while edges change.

use super::{dependents::Iter, topology::Slots};
use crate::sync::Pin;

/// The services that a walk started from, and all that transitively depends on them.
pub(crate) struct Walk {
    /// Each service before what depends on it.
    found: Vec<Found>,
}

/// One service of a walk.
#[derive(Debug, Clone, Copy)]
struct Found {
    service: u32,
    /// How many dependents it had ever gained when they began to be followed.
    gained: u32,
}

impl Walk {
    /// Walks from `starts`. What has become a dependent before is found, unless it has left since.
    ///
    /// `None` where edges have changed meanwhile, so that what was read one after another is a circle.
    pub(crate) fn from(slots: &impl Slots, starts: &[u32], pin: &Pin) -> Option<Self> {
        let found = upwards(slots, starts, pin).or_else(|| depth_first(slots, starts, pin))?;
        Some(Self { found })
    }

    /// All that was found, each before what depends on it.
    pub(crate) fn dependencies_first(&self) -> impl Iterator<Item = u32> {
        self.found.iter().map(|found| found.service)
    }

    /// Whether none of them has gained a dependent since: then the walk has the closure of its starts, and each
    /// before what depends on it.
    pub(crate) fn is_whole(&self, slots: &impl Slots) -> bool {
        let gained = |service| slots.slot(service).dependents().gained();
        self.found.iter().all(|found| gained(found.service) == found.gained)
    }

    /// Whether a service depends on one that was found.
    pub(crate) fn has_below(&self, service: u32, slots: &impl Slots, pin: &Pin) -> bool {
        let dependents = |service| slots.slot(service).dependents().iter(pin);
        self.dependencies_first().any(|found| dependents(found).any(|other| other == service))
    }
}

/// What was found, and who is to be followed from there.
fn visit<'p>(slots: &impl Slots, service: u32, pin: &'p Pin) -> (Found, Iter<'p>) {
    let dependents = slots.slot(service).dependents();
    // Counted before they are followed.
    let found = Found { service, gained: dependents.gained() };
    (found, dependents.iter(pin))
}

/// In the order of the slots in memory: many times faster than any other in a large closure. `None` where one
/// has a smaller number than what it depends on; most are registered after that.
fn upwards(slots: &impl Slots, starts: &[u32], pin: &Pin) -> Option<Vec<Found>> {
    let mut met = Numbers::default();
    for &start in starts {
        met.insert(start);
    }
    let mut all = Vec::new();
    let mut next = met.from(0);
    while let Some(service) = next {
        let (found, dependents) = visit(slots, service, pin);
        all.push(found);
        for dependent in dependents {
            if dependent < service {
                return None;
            }
            met.insert(dependent);
        }
        next = met.from(service + 1);
    }
    Some(all)
}

/// In any graph. `None` for a circle.
fn depth_first(slots: &impl Slots, starts: &[u32], pin: &Pin) -> Option<Vec<Found>> {
    let (mut met, mut done) = (Numbers::default(), Numbers::default());
    let mut all = Vec::new();
    // The way from a start to here, and who is still to be followed at each step. Not in the stack: a chain may be
    // long.
    let mut way: Vec<(Found, Iter<'_>)> = Vec::new();
    for &start in starts {
        let mut next = Some(start);
        loop {
            if let Some(service) = next {
                if met.insert(service) {
                    way.push(visit(slots, service, pin));
                } else if !done.contains(service) {
                    return None;
                }
            }
            let Some((found, dependents)) = way.last_mut() else { break };
            next = dependents.next();
            if next.is_none() {
                done.insert(found.service);
                all.push(*found);
                way.pop();
            }
        }
    }
    all.reverse();
    Some(all)
}

/// A set of services, as bits in pages: what a walk does not come to costs next to nothing.
#[derive(Default)]
struct Numbers(Vec<Option<Box<Page>>>);

type Page = [u64; 16];

const PAGE: usize = size_of::<Page>() * 8;

impl Numbers {
    /// True where it was not there.
    #[inline]
    fn insert(&mut self, number: u32) -> bool {
        let (page, word, bit) = split(number);
        if page >= self.0.len() {
            self.0.resize_with(page + 1, || None);
        }
        let word = &mut self.0[page].get_or_insert_with(Box::default)[word];
        let new = *word & bit == 0;
        *word |= bit;
        new
    }

    fn contains(&self, number: u32) -> bool {
        let (page, word, bit) = split(number);
        matches!(self.0.get(page), Some(Some(page)) if page[word] & bit != 0)
    }

    /// The least that is not below `number`.
    #[inline]
    fn from(&self, number: u32) -> Option<u32> {
        let (mut page, mut word, bit) = split(number);
        // The bits below `bit` are looked at no more.
        let mut mask = !(bit - 1);
        loop {
            if let Some(words) = self.0.get(page)? {
                for (place, &bits) in words.iter().enumerate().skip(word) {
                    let bits = bits & mask;
                    if bits != 0 {
                        return Some((page * PAGE + place * 64) as u32 + bits.trailing_zeros());
                    }
                    mask = !0;
                }
            }
            (page, word, mask) = (page + 1, 0, !0);
        }
    }
}

/// Where its bit stands: the page, the word in it, the bit in that.
fn split(number: u32) -> (usize, usize, u64) {
    let number = number as usize;
    (number / PAGE, number % PAGE / 64, 1 << (number % 64))
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use std::collections::BTreeSet;

    use super::{Numbers, PAGE};

    #[test]
    fn numbers_are_a_set() {
        // Next to each other, at the ends of words and of pages, far apart.
        let page = PAGE as u32;
        let all =
            [0, 1, 5, 63, 64, 127, 128, 700, page - 1, page, page + 65, 5 * page - 1, 7 * page];
        let (mut numbers, mut model) = (Numbers::default(), BTreeSet::new());
        for number in all.into_iter().rev().chain(all) {
            assert_eq!(numbers.insert(number), model.insert(number), "{number}");
            for from in all.into_iter().flat_map(|n| [n.saturating_sub(1), n, n + 1, n + 64]) {
                assert_eq!(numbers.from(from), model.range(from..).next().copied(), "from {from}");
                assert_eq!(numbers.contains(from), model.contains(&from), "{from}");
            }
        }
    }
}
