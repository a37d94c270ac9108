//! The least that a read can cost if it checks what mainstay checks: a cell, and a state word
//! beside it. There are no generations, no errors and no slab. The difference between these and
//! mainstay is the cost of mainstay itself.

use std::{
    ptr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;

use super::read_cells::{Cell, Pointer};

/// For a reader that keeps the last value: both words are compared with their earlier values.
pub struct PointerAndState {
    pointer: Pointer,
    state: AtomicU64,
}

/// The value and the state that such a reader keeps.
#[derive(Clone, Copy)]
pub struct Kept<'a> {
    value: &'a u64,
    state: u64,
}

impl PointerAndState {
    #[inline]
    pub fn observe(&self) -> Kept<'_> {
        Kept { value: self.pointer.load(), state: self.state.load(Ordering::Acquire) }
    }

    #[inline]
    pub fn load<'a>(&'a self, kept: &mut Kept<'a>) -> u64 {
        let now = self.observe();
        if !ptr::eq(now.value, kept.value) || now.state != kept.state {
            *kept = now;
        }
        *kept.value
    }
}

impl Cell for PointerAndState {
    fn new(value: u64) -> Self {
        Self { pointer: Pointer::new(value), state: AtomicU64::new(0) }
    }

    fn store(&self, value: u64) {
        self.pointer.store(value);
        self.state.fetch_add(1, Ordering::Release);
    }
}

/// For a reader that keeps nothing: the tag of the value is compared with the state.
pub struct LoadAndState {
    cell: ArcSwap<Tagged>,
    state: AtomicU64,
}

struct Tagged {
    tag: u64,
    value: u64,
}

impl LoadAndState {
    #[inline]
    pub fn load(&self) -> u64 {
        loop {
            let tagged = self.cell.load();
            if tagged.tag == self.state.load(Ordering::Acquire) {
                return tagged.value;
            }
        }
    }
}

impl Cell for LoadAndState {
    fn new(value: u64) -> Self {
        Self { cell: ArcSwap::from_pointee(Tagged { tag: 0, value }), state: AtomicU64::new(0) }
    }

    fn store(&self, value: u64) {
        let tag = self.state.load(Ordering::Relaxed) + 1;
        self.cell.store(Arc::new(Tagged { tag, value }));
        self.state.store(tag, Ordering::Release);
    }
}
