//! The word that decides a switch (`switch.rs`), with its orderings.

use crate::sync::{AtomicU64, Ordering};

/// The one word that decides a switch: pending, then committed or aborted, once.
pub(crate) struct Decision(AtomicU64);

/// What a [`Decision`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decided {
    Pending,
    Committed,
    Aborted,
}

impl Decision {
    const PENDING: u64 = 0;
    const COMMITTED: u64 = 1;
    const ABORTED: u64 = 2;

    pub(crate) fn new() -> Self {
        Self(AtomicU64::new(Self::PENDING))
    }

    fn of(word: u64) -> Decided {
        match word {
            Self::PENDING => Decided::Pending,
            Self::COMMITTED => Decided::Committed,
            _ => Decided::Aborted,
        }
    }

    /// Acquire: pairs with `commit`. A reader that finds the switch committed finds all of its
    /// instances in their cells, and its replacements begun (R1).
    pub(crate) fn load(&self) -> Decided {
        Self::of(self.0.load(Ordering::Acquire))
    }

    /// Commits the switch, unless it was aborted. Returns whether it is committed. Release: pairs
    /// with `load`.
    pub(crate) fn commit(&self) -> bool {
        let (from, to) = (Self::PENDING, Self::COMMITTED);
        self.0.compare_exchange(from, to, Ordering::Release, Ordering::Relaxed).is_ok()
    }

    /// Aborts the switch, unless it is committed. Returns whether it is aborted.
    ///
    /// Relaxed: only one of the two must succeed, and the old instances are right before and after
    /// an abort. Acquire on failure: pairs with `commit`, for a caller that continues after it.
    pub(crate) fn abort(&self) -> bool {
        let (from, to) = (Self::PENDING, Self::ABORTED);
        match self.0.compare_exchange(from, to, Ordering::Relaxed, Ordering::Acquire) {
            Ok(_) => true,
            Err(word) => word == Self::ABORTED,
        }
    }

    /// As `load`, for a reader that has found the old instance dropped: never pending.
    ///
    /// A read-modify-write. If it came before the decision, the decision would come after what the
    /// reader has done before: it would have found the old instance, which is kept until after the
    /// decision.
    pub(crate) fn load_after_drop(&self) -> Decided {
        Self::of(self.0.fetch_or(0, Ordering::AcqRel))
    }
}
