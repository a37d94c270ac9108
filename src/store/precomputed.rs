//! Precomputed closures: the closure of a service, as a cascade needs it, computed before the
//! service fails.
//!
//! A precomputed closure is a list of services, or a bitmap if that is smaller. It is *valid* as
//! long as no list of dependents of one of its members changes. The service that owns it has one
//! word, from which a cascade learns whether it is valid ([`Validity`]). The thread that changes a
//! list changes the words of all services whose closure contains it (`topology/closures.rs`).
//!
//! All precomputed closures of a registry share one limit in bytes. A closure that was replaced is
//! counted until epoch-based reclamation has freed it.

use std::sync::Arc;

use crate::{
    numbers::ServiceIndex,
    sync::{AtomicU32, Budget, LockedNumber, Ordering, Pin, Snapshot, Taken},
};

/// The precomputed closure of one service, if there is one.
pub(crate) struct ClosureCell {
    validity: Validity,
    closure: Snapshot<Precomputed>,
    /// 1 if the closure depends on the phases of services, so that it cannot be precomputed. Known
    /// only while the closure is valid.
    conditional: LockedNumber,
}

/// Whether the precomputed closure of a service is valid. Each change of the word increments it:
/// it is odd if the closure is valid. So a cascade that reads the same odd number before it uses
/// the closure, and after its fence, knows that the closure was valid in between.
///
/// Only the holder of the lock of the topology changes the word. A cascade would be misled if
/// exactly 2^32 changes, or a multiple of that, were made between its two loads.
struct Validity {
    number: AtomicU32,
    /// The same number, for the holder of the lock.
    present: LockedNumber,
}

impl Validity {
    /// Valid: a new service has no dependents.
    fn new() -> Self {
        Self { number: AtomicU32::new(1), present: LockedNumber::new(1) }
    }

    /// Acquire: pairs with `set`. A cascade that finds the closure valid then loads the closure
    /// that was valid at this time, or a later one.
    #[inline]
    fn load(&self) -> u32 {
        self.number.load(Ordering::Acquire)
    }

    /// Returns whether the closure is valid. The caller holds the lock of the topology.
    fn is_valid(&self) -> bool {
        self.present.get() % 2 == 1
    }

    /// Makes the closure valid or invalid. Release: pairs with `load`, for the closure that was
    /// stored before, or for the change of a list that has made it invalid. Not a
    /// read-modify-write, because the caller holds the lock of the topology.
    fn set(&self, valid: bool) {
        if self.is_valid() != valid {
            self.present.set(self.present.get().wrapping_add(1));
            self.number.store(self.present.get(), Ordering::Release);
        }
    }
}

/// The number of a valid precomputed closure. If `ClosureCell::is_unchanged_since` returns true for
/// it, the closure was valid all the time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ValidityNumber(u32);

impl ClosureCell {
    pub(crate) fn new() -> Self {
        let conditional = LockedNumber::new(0);
        Self { validity: Validity::new(), closure: Snapshot::empty(), conditional }
    }

    /// Returns the precomputed closure, if there is one and it is valid.
    pub(crate) fn load<'p>(&self, pin: &'p Pin) -> Option<(ValidityNumber, &'p Precomputed)> {
        let number = self.validity.load();
        if number % 2 == 0 {
            return None;
        }
        let closure = self.closure.load(pin).filter(|closure| closure.len() > 0)?;
        Some((ValidityNumber(number), closure))
    }

    /// Returns whether the closure has been valid since `load` returned this number.
    pub(crate) fn is_unchanged_since(&self, number: ValidityNumber) -> bool {
        self.validity.load() == number.0
    }

    // The caller of the following functions holds the lock of the topology.

    /// Returns whether the closure of the service has not changed since it was last computed.
    pub(crate) fn is_valid(&self) -> bool {
        self.validity.is_valid()
    }

    /// Marks the closure as changed.
    pub(crate) fn invalidate(&self) {
        self.validity.set(false);
    }

    /// Stores the closure of the service as it is now, and marks it as valid. If it is `None`, it
    /// does not fit into the limit, and cascades walk.
    pub(crate) fn store(&self, closure: Option<Precomputed>, pin: &Pin) {
        let has_closure = closure.is_some();
        if has_closure || self.closure.load(pin).is_some_and(|closure| closure.len() > 0) {
            // If there is none, the old one must not become valid again.
            self.closure.publish(closure.unwrap_or_default(), pin);
        }
        self.conditional.set(0);
        self.validity.set(true);
    }

    /// Marks the closure as valid, and as one that depends on the phases of services: cascades
    /// walk.
    pub(crate) fn store_conditional(&self, pin: &Pin) {
        self.store(None, pin);
        self.conditional.set(1);
    }

    /// Returns whether the closure, as it was last computed, depends on the phases of services.
    pub(crate) fn is_conditional(&self) -> bool {
        self.is_valid() && self.conditional.get() == 1
    }

    /// Returns how often the closure has become valid again.
    #[cfg(test)]
    pub(crate) fn times_computed(&self) -> u32 {
        self.validity.present.get() / 2
    }

    /// Returns the valid closure, if there is one.
    pub(crate) fn present<'p>(&self, pin: &'p Pin) -> Option<&'p Precomputed> {
        let closure = if self.is_valid() { self.closure.load(pin) } else { None };
        closure.filter(|closure| closure.len() > 0)
    }
}

/// The closure of a service. The default is empty, and means that there is none.
#[derive(Default)]
pub(crate) struct Precomputed {
    members: Members,
    /// Each member has a smaller index than its dependents.
    is_in_index_order: bool,
    _taken: Option<Taken>,
}

/// The members, each before its dependents.
enum Members {
    List(Box<[ServiceIndex]>),
    /// One bit for each service, from the first member to the last one. The order is that of the
    /// indices.
    Bits {
        first_word: u32,
        words: Box<[u64]>,
        number: u32,
    },
}

impl Default for Members {
    fn default() -> Self {
        Self::List(Box::default())
    }
}

impl Precomputed {
    /// Creates a closure from its members, each before its dependents. Returns `None` if it does
    /// not fit into the budget.
    pub(crate) fn new(members: &[ServiceIndex], budget: &Arc<Budget>) -> Option<Self> {
        let is_in_index_order = members.is_sorted();
        let word = |service: &ServiceIndex| service.as_usize() / 64;
        let (first, last) = (members.first().map_or(0, word), members.last().map_or(0, word));
        // The smaller one is also the one that a cascade goes through faster.
        let words = last.saturating_sub(first) + 1;
        let bytes_of_list = size_of_val(members);
        let is_bitmap = is_in_index_order && words * size_of::<u64>() < bytes_of_list;
        let bytes = if is_bitmap { words * size_of::<u64>() } else { bytes_of_list };
        let taken = budget.take(bytes + size_of::<Self>())?;
        let members = if is_bitmap {
            let mut bits = vec![0; words].into_boxed_slice();
            for member in members {
                bits[word(member) - first] |= 1 << (member.get() % 64);
            }
            Members::Bits { first_word: first as u32, words: bits, number: members.len() as u32 }
        } else {
            Members::List(members.into())
        };
        Some(Self { members, is_in_index_order, _taken: Some(taken) })
    }

    /// Creates a closure from a bitmap of all services. The order of their indices must be an order
    /// of the closure. Returns `None` if it does not fit into the budget.
    pub(crate) fn in_index_order(bits: &[u64], budget: &Arc<Budget>) -> Option<Self> {
        let number = bits.iter().map(|bits| bits.count_ones()).sum::<u32>();
        let first = bits.iter().position(|&bits| bits != 0).unwrap_or(0);
        let last = bits.iter().rposition(|&bits| bits != 0).unwrap_or(0);
        let words = &bits[first..=last];
        let bytes = size_of_val(words);
        if bytes >= number as usize * size_of::<ServiceIndex>() {
            return Self::new(&set_bits(bits).collect::<Vec<_>>(), budget);
        }
        let taken = budget.take(bytes + size_of::<Self>())?;
        let members = Members::Bits { first_word: first as u32, words: words.into(), number };
        Some(Self { members, is_in_index_order: true, _taken: Some(taken) })
    }

    pub(crate) fn len(&self) -> usize {
        match &self.members {
            Members::List(list) => list.len(),
            Members::Bits { number, .. } => *number as usize,
        }
    }

    /// Returns whether each member has a smaller index than its dependents.
    pub(crate) fn is_in_index_order(&self) -> bool {
        self.is_in_index_order
    }

    /// Calls `with` for each member, each before its dependents.
    #[inline]
    pub(crate) fn for_each(&self, mut with: impl FnMut(ServiceIndex)) {
        match &self.members {
            Members::List(list) => list.iter().copied().for_each(with),
            Members::Bits { first_word, words, .. } => {
                for (word, &bits) in (*first_word..).zip(words) {
                    let mut bits = bits;
                    while bits != 0 {
                        with(ServiceIndex::new(word * 64 + bits.trailing_zeros()));
                        bits &= bits - 1;
                    }
                }
            }
        }
    }

    /// Sets the bit of each member. Returns the number of words that were changed.
    pub(crate) fn add_to(&self, bits: &mut [u64]) -> usize {
        match &self.members {
            Members::List(list) => {
                for member in list {
                    bits[member.as_usize() / 64] |= 1 << (member.get() % 64);
                }
                list.len()
            }
            Members::Bits { first_word, words, .. } => {
                for (bits, word) in bits[*first_word as usize..].iter_mut().zip(words) {
                    *bits |= word;
                }
                words.len()
            }
        }
    }
}

/// Returns the services whose bits are set, in the order of their indices.
pub(crate) fn set_bits(bits: &[u64]) -> impl Iterator<Item = ServiceIndex> {
    bits.iter().enumerate().flat_map(|(word, &bits)| {
        let mut bits = bits;
        std::iter::from_fn(move || {
            let bit = (bits != 0).then(|| bits.trailing_zeros())?;
            bits &= bits - 1;
            Some(ServiceIndex::new(word as u32 * 64 + bit))
        })
    })
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use crate::sync::pin;

    fn services(numbers: &[u32]) -> Vec<ServiceIndex> {
        numbers.iter().copied().map(ServiceIndex::new).collect()
    }

    #[test]
    fn members_come_back_in_their_order_from_lists_and_bitmaps() {
        let budget = Budget::new(1 << 20);
        let dense: Vec<u32> = (70..300).collect();
        for (numbers, is_bitmap) in
            [(&dense[..], true), (&[5, 3, 900], false), (&[64], false), (&[1, 5_000], false)]
        {
            let members = services(numbers);
            let closure = Precomputed::new(&members, &budget).unwrap();
            assert_eq!(matches!(closure.members, Members::Bits { .. }), is_bitmap);
            let mut back = Vec::new();
            closure.for_each(|member| back.push(member));
            assert_eq!((&back, closure.len()), (&members, members.len()));
            let mut bits = vec![0; 100];
            closure.add_to(&mut bits);
            let mut sorted = members.clone();
            sorted.sort_unstable();
            assert_eq!(set_bits(&bits).collect::<Vec<_>>(), sorted);
        }
    }

    #[test]
    fn a_closure_is_found_only_while_it_is_valid_and_fits() {
        let budget = Budget::new(200);
        let (cell, pin) = (ClosureCell::new(), pin());
        assert!(cell.is_valid() && cell.load(&pin).is_none(), "a new service has no dependents");
        cell.invalidate();
        cell.store(Precomputed::new(&services(&[1, 2]), &budget), &pin);
        let (number, closure) = cell.load(&pin).unwrap();
        assert!(closure.len() == 2 && cell.is_unchanged_since(number));
        cell.invalidate();
        assert!(cell.load(&pin).is_none() && !cell.is_unchanged_since(number));
        let scattered: Vec<u32> = (0..100).map(|number| number * 70).collect();
        let large = Precomputed::new(&services(&scattered), &budget);
        assert!(large.is_none(), "it exceeds the budget");
        cell.store(large, &pin);
        assert!(cell.is_valid() && cell.load(&pin).is_none(), "the old closure stays away");
        assert!(!cell.is_unchanged_since(number));
    }
}
