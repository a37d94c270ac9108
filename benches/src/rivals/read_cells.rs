//! Cells that are read without a name, one for each service: the floor, and the cells from which a
//! store can be built.

use std::sync::{
    Arc, Mutex, RwLock,
    atomic::{AtomicPtr, Ordering},
};

use arc_swap::ArcSwap;
use crossbeam_epoch::{Atomic, Owned, pin};
use tokio::sync::watch;

use super::container::{Container, SERVICES, SPARE, answer};

/// A value that is replaced as a whole.
pub trait Cell: Sync {
    fn new(value: u64) -> Self;

    fn store(&self, value: u64);
}

/// One cell for each service, each on a cache line of its own, as the slots of mainstay are.
pub struct Cells<C>(Vec<Line<C>>);

#[repr(align(64))]
struct Line<C>(C);

impl<C: Cell> Cells<C> {
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self((0..=SPARE).map(|service| Line(C::new(answer(service)))).collect())
    }

    #[inline(always)]
    pub fn of(&self, service: usize) -> &C {
        &self.0[service].0
    }

    /// Returns the cells that are read.
    pub fn iter(&self) -> impl Iterator<Item = &C> {
        self.0[..SERVICES].iter().map(|line| &line.0)
    }
}

impl<C: Cell> Container for Cells<C> {
    fn publish(&self, service: usize) {
        self.of(service).store(answer(service));
    }
}

/// The floor: one Acquire load, and a pointer to follow. No value is freed before the cell is
/// dropped, so a read needs no protection.
pub struct Pointer {
    current: AtomicPtr<u64>,
    kept: Mutex<Vec<Arc<u64>>>,
}

impl Pointer {
    #[inline(always)]
    pub fn load(&self) -> &u64 {
        // SAFETY: `current` points to a value of `kept`, from which no value is removed. Acquire:
        // pairs with `store`.
        unsafe { &*self.current.load(Ordering::Acquire) }
    }
}

impl Cell for Pointer {
    fn new(value: u64) -> Self {
        let value = Arc::new(value);
        let current = AtomicPtr::new(Arc::as_ptr(&value).cast_mut());
        Self { current, kept: Mutex::new(vec![value]) }
    }

    fn store(&self, value: u64) {
        let value = Arc::new(value);
        let new = Arc::as_ptr(&value).cast_mut();
        self.kept.lock().unwrap().push(value);
        self.current.store(new, Ordering::Release);
    }
}

/// A pointer whose old values are freed by epoch-based reclamation.
pub struct Pinned(Atomic<u64>);

impl Pinned {
    #[inline(always)]
    pub fn load(&self) -> u64 {
        let pin = pin();
        // SAFETY: the pointer is never null, and a replaced value is not freed as long as a thread
        // is pinned that may have read it.
        unsafe { *self.0.load(Ordering::Acquire, &pin).deref() }
    }
}

impl Cell for Pinned {
    fn new(value: u64) -> Self {
        Self(Atomic::new(value))
    }

    fn store(&self, value: u64) {
        let pin = pin();
        let old = self.0.swap(Owned::new(value), Ordering::AcqRel, &pin);
        // SAFETY: `old` is no longer in the cell, and only this thread received it from the swap.
        unsafe { pin.defer_destroy(old) };
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let cell = std::mem::replace(&mut self.0, Atomic::null());
        // SAFETY: `&mut self`: no other thread can read the cell.
        drop(unsafe { cell.try_into_owned() });
    }
}

impl Cell for ArcSwap<u64> {
    fn new(value: u64) -> Self {
        Self::from_pointee(value)
    }

    fn store(&self, value: u64) {
        ArcSwap::store(self, Arc::new(value));
    }
}

impl Cell for watch::Sender<u64> {
    fn new(value: u64) -> Self {
        Self::new(value)
    }

    fn store(&self, value: u64) {
        self.send_replace(value);
    }
}

impl Cell for RwLock<Arc<u64>> {
    fn new(value: u64) -> Self {
        Self::new(Arc::new(value))
    }

    fn store(&self, value: u64) {
        *self.write().unwrap() = Arc::new(value);
    }
}
