//! The least that a read can cost if it checks what mainstay checks: a cell, and a state word
//! beside it. And the least that a publication can cost if it decides and keeps what mainstay
//! does. There are no errors, no slab, no waiters and no edges. The difference between these and
//! mainstay is the cost of mainstay itself.

use std::{
    ptr,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use arc_swap::{ArcSwap, ArcSwapOption};

use super::{
    floor::{DOWN, PHASE, READY, STARTING},
    read_cells::{Cell, Pointer},
};

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
    #[inline(always)]
    pub fn observe(&self) -> Kept<'_> {
        Kept { value: self.pointer.load(), state: self.state.load(Ordering::Acquire) }
    }

    #[inline(always)]
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
    #[inline(always)]
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

/// For a publication. An attempt takes the slot, so that no other one begins, and stores the time.
/// Its instance knows its generation and the time of its publication, replaces nothing that a later
/// attempt has stored, and can be read only after the state has moved. The provider has a handle,
/// which learns of the last drop of an instance.
#[repr(align(64))]
#[derive(Default)]
pub struct PublishedCell {
    cell: ArcSwapOption<Instance>,
    state: AtomicU64,
    began_at: AtomicU64,
}

struct Instance {
    generation: u64,
    _published_at: u64,
    value: u64,
    _alive: Arc<Alive>,
}

/// Instances that have not been dropped have a reference to it.
struct Alive;

/// The handle of a provider.
pub struct Published {
    instance: Weak<Instance>,
    _alive: Weak<Alive>,
    generation: u64,
}

impl PublishedCell {
    /// The slot must be down.
    pub fn publish(&self, value: u64) -> Published {
        let state = self.state.load(Ordering::Acquire);
        assert_eq!(state & PHASE, DOWN);
        let generation = state & !PHASE;
        self.transition(state, generation | STARTING);
        self.began_at.store(now(), Ordering::Relaxed);
        let alive = Arc::new(Alive);
        let _alive = Arc::downgrade(&alive);
        let instance =
            Arc::new(Instance { generation, _published_at: now(), value, _alive: alive });
        let weak = Arc::downgrade(&instance);
        let previous = self.cell.compare_and_swap(&None::<Arc<Instance>>, Some(instance));
        assert!(previous.is_none());
        self.transition(generation | STARTING, generation | READY);
        Published { instance: weak, _alive, generation }
    }

    /// Ends the generation, and empties the cell.
    pub fn fail(&self, published: Published) {
        let Published { instance, generation, .. } = published;
        self.transition(generation | READY, generation + (PHASE + 1));
        let instance = instance.upgrade();
        let previous = self.cell.compare_and_swap(&instance, None);
        assert_eq!(previous.as_ref().map(Arc::as_ptr), instance.as_ref().map(Arc::as_ptr));
    }

    /// Returns the current value.
    pub fn load(&self) -> Option<u64> {
        let held = self.cell.load();
        let instance = held.as_ref()?;
        let state = self.state.load(Ordering::Acquire);
        (state == instance.generation | READY).then_some(instance.value)
    }

    fn transition(&self, from: u64, to: u64) {
        let exchanged = self.state.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire);
        assert_eq!(exchanged, Ok(from));
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64
}
