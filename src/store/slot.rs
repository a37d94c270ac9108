//! One slot: the words of one service, side by side in one cache line.

use super::{
    state::{Condemned, StateCell},
    wait::WaitPoint,
};
use crate::sync::{AtomicU32, Count, Ordering, Snapshot};

/// The hot words. The value's cell and the registration stand beside them, see `sync/slab.rs`.
pub(crate) struct Slot {
    pub(crate) state: StateCell,
    pub(crate) condemned: Condemned,
    pub(crate) changed: WaitPoint,
    /// The closure of this service, itself first.
    pub(crate) row: Row,
    pub(crate) failed_by: FailedBy,
    /// How many wait for it to be ready.
    pub(crate) waiting: Count,
}

impl Slot {
    pub(crate) fn new(index: u32) -> Self {
        Self {
            state: StateCell::new(),
            condemned: Condemned::new(),
            changed: WaitPoint::new(),
            row: Snapshot::new(Box::from([index])),
            failed_by: FailedBy(AtomicU32::new(index)),
            waiting: Count::new(),
        }
    }
}

/// A service and its transitive dependents, dependencies before dependents.
pub(crate) type Row = Snapshot<Box<[u32]>>;

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
