//! The mark of a service that must not begin: a planned end has reached it (S4).
//!
//! The mark is set before its slot is woken, which is a read-modify-write of `state`, and before
//! the plan reads the dependents under the lock of the topology. An attempt reads the mark after
//! one of these two: `docs/supervision.md`, "The mark". Release and Acquire are for its removal: an
//! attempt that finds it removed finds the instance down.

use crate::sync::{AtomicU32, Ordering};

/// Says whether an attempt at the service may begin, and whether an attempt may get its instance.
///
/// Only a holder of the lock of the plan sets it (`registry/supervisors/plan.rs`), and wakes the
/// slot afterwards, without the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum EndMark {
    /// There is no planned end.
    None,
    /// The service is being restarted or stopped, or one of its dependencies is. Attempts wait.
    Ending,
    /// The service was stopped, and is not started. Attempts wait.
    Stopped,
    /// A shutdown has reached the service. It never becomes ready again.
    ShutDown,
}

/// The cell of an [`EndMark`].
pub(crate) struct EndMarkCell(AtomicU32);

impl EndMarkCell {
    pub(super) fn new() -> Self {
        Self(AtomicU32::new(EndMark::None as u32))
    }

    /// Acquire: pairs with `set`.
    pub(crate) fn get(&self) -> EndMark {
        match self.0.load(Ordering::Acquire) {
            0 => EndMark::None,
            1 => EndMark::Ending,
            2 => EndMark::Stopped,
            _ => EndMark::ShutDown,
        }
    }

    /// Release: pairs with `get`.
    #[cfg(feature = "supervise")]
    pub(crate) fn set(&self, mark: EndMark) {
        self.0.store(mark as u32, Ordering::Release);
    }

    /// Returns whether no attempt may begin, and no attempt may get the instance.
    pub(crate) fn is_set(&self) -> bool {
        self.get() != EndMark::None
    }

    /// Returns whether a shutdown has set it, so that it is never removed.
    pub(crate) fn is_final(&self) -> bool {
        self.get() == EndMark::ShutDown
    }
}
