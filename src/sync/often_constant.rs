//! A word that most of its owners never change.
//!
//! In a model, each access of an atomic is a step. The tags of all instances are read by all reads,
//! and only those of instances that were built aside are ever written. So in a model the others are
//! no atomics.

use super::{AtomicU64, Ordering};

#[cfg(not(any(loom, shuttle)))]
pub(crate) struct OftenConstant(AtomicU64);

#[cfg(any(loom, shuttle))]
pub(crate) enum OftenConstant {
    Constant(u64),
    // Only a reload changes a tag.
    #[cfg_attr(not(feature = "supervise"), expect(dead_code))]
    Changing(AtomicU64),
}

#[cfg(not(any(loom, shuttle)))]
impl OftenConstant {
    /// A word that is never stored.
    pub(crate) fn constant(word: u64) -> Self {
        Self(AtomicU64::new(word))
    }

    #[cfg(feature = "supervise")]
    pub(crate) fn changing(word: u64) -> Self {
        Self(AtomicU64::new(word))
    }

    #[inline]
    pub(crate) fn load(&self, ordering: Ordering) -> u64 {
        self.0.load(ordering)
    }

    #[cfg(feature = "supervise")]
    pub(crate) fn store(&self, word: u64, ordering: Ordering) {
        self.0.store(word, ordering);
    }
}

#[cfg(any(loom, shuttle))]
impl OftenConstant {
    pub(crate) fn constant(word: u64) -> Self {
        Self::Constant(word)
    }

    #[cfg(feature = "supervise")]
    pub(crate) fn changing(word: u64) -> Self {
        Self::Changing(AtomicU64::new(word))
    }

    pub(crate) fn load(&self, ordering: Ordering) -> u64 {
        match self {
            Self::Constant(word) => *word,
            Self::Changing(word) => word.load(ordering),
        }
    }

    #[cfg(feature = "supervise")]
    pub(crate) fn store(&self, new: u64, ordering: Ordering) {
        match self {
            Self::Constant(_) => unreachable!("a constant is never stored"),
            Self::Changing(word) => word.store(new, ordering),
        }
    }
}
