//! A limit in bytes that many owners share.

use std::sync::{
    Arc,
    // Those of std, also in a model: they decide nothing but whether something is stored, and are
    // used by drops that epoch-based reclamation runs outside of the model.
    atomic::{AtomicUsize, Ordering},
};

/// A limit in bytes, and how many of them are taken. Relaxed: a stale number makes the limit less
/// exact by what is taken at the same time.
pub(crate) struct Budget {
    size: usize,
    taken: AtomicUsize,
}

/// Bytes that were taken from a budget. The drop returns them.
pub(crate) struct Taken {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Budget {
    pub(crate) fn new(size: usize) -> Arc<Self> {
        Arc::new(Self { size, taken: AtomicUsize::new(0) })
    }

    /// Takes `bytes`. Returns `None`, and takes nothing, if the budget does not suffice.
    pub(crate) fn take(self: &Arc<Self>, bytes: usize) -> Option<Taken> {
        let before = self.taken.fetch_add(bytes, Ordering::Relaxed);
        // The drop returns them if they do not fit.
        let taken = Taken { budget: Arc::clone(self), bytes };
        (before.saturating_add(bytes) <= self.size).then_some(taken)
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.budget.taken.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_never_exceeded_and_is_returned_by_drops() {
        let budget = Budget::new(10);
        let first = budget.take(6);
        assert!(first.is_some() && budget.take(5).is_none());
        let second = budget.take(4);
        assert!(second.is_some(), "a refused part has taken nothing");
        assert!(budget.take(1).is_none());
        drop(first);
        assert!(budget.take(7).is_none() && budget.take(6).is_some());
        assert!(budget.take(usize::MAX).is_none(), "without an overflow");
    }
}
