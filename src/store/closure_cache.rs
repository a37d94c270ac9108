//! Cached closures: the closure that a cascade has walked, stored at its root for the next cascade.
//!
//! A cached closure is valid as long as no edge of the registry is added or removed. After such a
//! change the next cascade of the root walks again, and stores the new closure. So the cost of an
//! edge change does not depend on the number of closures that it alters, and only services that
//! fail have a cached closure.
//!
//! All cached closures of a registry share one limit. If a closure does not fit, the cascades of
//! its root walk each time.

use crate::numbers::ServiceIndex;
use crate::sync::{Count, Pin, Snapshot, pin};

/// The cached closure of one service, if there is one.
pub(crate) struct ClosureCache(Snapshot<Closure>);

/// A service and all its transitive dependents, each before its dependents.
pub(crate) struct Closure {
    pub(crate) members: Box<[ServiceIndex]>,
    /// The number of edge changes of the registry. It was the same before the walk and after the
    /// fence of the cascade that walked.
    pub(crate) changes: u64,
}

impl ClosureCache {
    pub(crate) fn new() -> Self {
        Self(Snapshot::empty())
    }

    /// Returns the cached closure if it is valid: no edge has been added or removed since its walk.
    /// `changes` is the present number of edge changes.
    pub(crate) fn load<'p>(&self, changes: u64, pin: &'p Pin) -> Option<&'p [ServiceIndex]> {
        let closure = self.0.load(pin).filter(|closure| closure.changes == changes)?;
        Some(&closure.members)
    }

    /// Stores a closure for the next cascade of its root, if the budget allows it.
    pub(crate) fn store(&self, closure: Closure, budget: &CacheBudget) {
        let pin = pin();
        let size = |closure: &Closure| closure.members.len() as u32;
        // If the budget does not suffice, the old closure stays, and its members remain counted.
        if !budget.take(size(&closure), self.0.load(&pin).map_or(0, size)) {
            return;
        }
        if let Some(old) = self.0.publish(closure, &pin) {
            budget.release(size(old));
        }
    }
}

/// The limit for the members of all cached closures of a registry together.
pub(crate) struct CacheBudget {
    size: u32,
    taken: Count,
}

impl CacheBudget {
    /// Creates the budget of a registry with this capacity: 64 bytes for each service, and at least
    /// 4 MiB. A member takes 4 bytes.
    pub(crate) fn new(capacity: usize) -> Self {
        const MEMBERS_PER_SERVICE: usize = 16;
        const MIN_MEMBERS: u32 = 1 << 20;
        let size = capacity.saturating_mul(MEMBERS_PER_SERVICE);
        // At most half of the range of `taken`, because `take` exceeds the size for a moment.
        let size = u32::try_from(size).map_or(u32::MAX / 2, |size| size.min(u32::MAX / 2));
        Self { size: size.max(MIN_MEMBERS), taken: Count::new() }
    }

    /// Takes `members` from the budget, for a closure that replaces one with `old` members. The
    /// caller then returns the `old` ones by `release`. Returns false, and takes nothing, if
    /// the budget does not suffice.
    fn take(&self, members: u32, old: u32) -> bool {
        let taken = self.taken.fetch_add(members).saturating_add(members);
        let fits = taken.saturating_sub(old) <= self.size;
        if !fits {
            self.taken.fetch_sub(members);
        }
        fits
    }

    /// Returns members to the budget.
    fn release(&self, members: u32) {
        self.taken.fetch_sub(members);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn closure(members: u32, changes: u64) -> Closure {
        Closure { members: ServiceIndex::range(0..members).collect(), changes }
    }

    #[test]
    fn a_closure_is_cached_if_the_budget_allows_it() {
        let budget = CacheBudget { size: 10, taken: Count::new() };
        let caches = [ClosureCache::new(), ClosureCache::new()];
        let has =
            |cache: usize, changes| caches[cache].load(changes, &pin()).map(<[ServiceIndex]>::len);

        caches[0].store(closure(6, 1), &budget);
        assert_eq!((has(0, 1), has(0, 2)), (Some(6), None));
        caches[1].store(closure(5, 1), &budget);
        assert_eq!(has(1, 1), None, "both closures together exceed the budget");
        caches[1].store(closure(4, 1), &budget);
        assert_eq!(has(1, 1), Some(4), "a refused closure has taken no budget");

        caches[0].store(closure(7, 2), &budget);
        assert_eq!(
            (has(0, 1), has(0, 2)),
            (Some(6), None),
            "it would exceed the budget by one member"
        );
        caches[0].store(closure(2, 2), &budget);
        assert_eq!(has(0, 2), Some(2));
        caches[1].store(closure(8, 2), &budget);
        assert_eq!(has(1, 2), Some(8), "a replaced closure has returned its budget");
    }

    #[test]
    fn the_budget_of_a_registry_depends_on_its_capacity() {
        assert_eq!(CacheBudget::new(0).size, 1 << 20);
        assert_eq!(CacheBudget::new(1 << 20).size, 1 << 24);
        assert_eq!(CacheBudget::new(usize::MAX).size, u32::MAX / 2);
    }
}
