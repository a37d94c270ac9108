//! Values whose drops are counted.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// Makes values, and counts their drops.
#[derive(Debug, Default, Clone)]
pub(crate) struct Drops(Arc<AtomicUsize>);

/// A value whose drop is counted once.
#[derive(Debug)]
pub(crate) struct Counted {
    pub(crate) number: u32,
    drops: Drops,
}

impl Drops {
    pub(crate) fn value(&self, number: u32) -> Counted {
        Counted { number, drops: self.clone() }
    }

    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.drops.0.fetch_add(1, Ordering::SeqCst);
    }
}
