//! One slot: the words of one service that are often read or written, in one cache line.

use super::{
    dependents::{Dependents, List, Version},
    state::{CondemnedCell, Replacements, StateCell},
};
use crate::{
    numbers::ServiceIndex,
    sync::{AtomicU32, Ordering},
};

/// The words of a slot. The slab stores the cell of the value, and the pointer to the `Service`, in
/// the same cache line (`sync/slab.rs`).
pub(crate) struct Slot {
    pub(crate) state: StateCell,
    pub(crate) condemned: CondemnedCell,
    pub(crate) replacements: Replacements,
    dependents: List,
    version: Version,
    pub(crate) failed_by: FailedBy,
}

impl Slot {
    pub(crate) fn new(index: ServiceIndex) -> Self {
        Self {
            state: StateCell::new(),
            condemned: CondemnedCell::new(),
            replacements: Replacements::new(),
            dependents: List::new(),
            version: Version::new(),
            failed_by: FailedBy(AtomicU32::new(index.get())),
        }
    }

    /// Returns the list of the dependents, together with its version.
    pub(crate) fn dependents(&self) -> Dependents<'_> {
        Dependents { list: &self.dependents, version: &self.version }
    }
}

/// The root of the last cascade that reached the slot. The cause is stored only at the root.
pub(crate) struct FailedBy(AtomicU32);

impl FailedBy {
    /// Release: pairs with `get`. The cascade has stored its cause before.
    ///
    /// If two cascades overlap, one of them may be named here although the other one has taken
    /// the slot down. The thread that reads the name finds the cause of the named cascade, or a
    /// later one.
    pub(crate) fn set(&self, root: ServiceIndex) {
        self.0.store(root.get(), Ordering::Release);
    }

    /// Acquire: pairs with `set`. The cause at the returned root is at least as new as this
    /// name.
    pub(crate) fn get(&self) -> ServiceIndex {
        ServiceIndex::new(self.0.load(Ordering::Acquire))
    }
}
