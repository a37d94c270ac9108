//! One slot: the words of one service, side by side in one cache line.

use super::{
    dependents::{Dependents, Gained, List},
    state::{Condemned, Replacements, StateCell},
};
use crate::sync::{AtomicU32, Ordering};

/// The hot words. The value's cell and the registration stand beside them, see `sync/slab.rs`.
pub(crate) struct Slot {
    pub(crate) state: StateCell,
    pub(crate) condemned: Condemned,
    pub(crate) replacements: Replacements,
    dependents: List,
    gained: Gained,
    pub(crate) failed_by: FailedBy,
}

impl Slot {
    pub(crate) fn new(index: u32) -> Self {
        Self {
            state: StateCell::new(),
            condemned: Condemned::new(),
            replacements: Replacements::new(),
            dependents: List::new(),
            gained: Gained::new(),
            failed_by: FailedBy(AtomicU32::new(index)),
        }
    }

    pub(crate) fn dependents(&self) -> Dependents<'_> {
        Dependents { list: &self.dependents, gained: &self.gained }
    }
}

/// The root of the last cascade that reached the slot.
pub(crate) struct FailedBy(AtomicU32);

impl FailedBy {
    /// Relaxed: the fence before a cascade's second look stands between the cause that it left and this, and
    /// pairs with `get`. Of two cascades that overlap one may be named and the other have raised the slot; who
    /// reads this one sees the cause that it left.
    pub(crate) fn set(&self, root: u32) {
        self.0.store(root, Ordering::Relaxed);
    }

    /// Acquire: pairs with that fence.
    pub(crate) fn get(&self) -> u32 {
        self.0.load(Ordering::Acquire)
    }
}
