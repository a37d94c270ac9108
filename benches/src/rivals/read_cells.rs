//! Cells that are read without a name, one a service: the floor, and what one would build a store from.

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

/// A cell a service, each on a cache line of its own, as mainstay's are.
pub struct Cells<C>(Vec<Line<C>>);

#[repr(align(64))]
struct Line<C>(C);

impl<C: Cell> Cells<C> {
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self((0..=SPARE).map(|service| Line(C::new(answer(service)))).collect())
    }

    #[inline]
    pub fn of(&self, service: usize) -> &C {
        &self.0[service].0
    }

    /// Those that are read.
    pub fn iter(&self) -> impl Iterator<Item = &C> {
        self.0[..SERVICES].iter().map(|line| &line.0)
    }
}

impl<C: Cell> Container for Cells<C> {
    fn publish(&self, service: usize) {
        self.of(service).store(answer(service));
    }
}

/// The floor: one Acquire load and a pointer to follow. Nothing that was in it is freed before the cell is,
/// which is why a read can do without protection.
pub struct Pointer {
    now: AtomicPtr<u64>,
    kept: Mutex<Vec<Arc<u64>>>,
}

impl Pointer {
    #[inline]
    pub fn load(&self) -> &u64 {
        // SAFETY: `now` points into one of `kept`, to which values are only added. Acquire: pairs with `store`.
        unsafe { &*self.now.load(Ordering::Acquire) }
    }
}

impl Cell for Pointer {
    fn new(value: u64) -> Self {
        let value = Arc::new(value);
        let now = AtomicPtr::new(Arc::as_ptr(&value).cast_mut());
        Self { now, kept: Mutex::new(vec![value]) }
    }

    fn store(&self, value: u64) {
        let value = Arc::new(value);
        let new = Arc::as_ptr(&value).cast_mut();
        self.kept.lock().unwrap().push(value);
        self.now.store(new, Ordering::Release);
    }
}

/// A pointer whose old values epochs retire.
pub struct Pinned(Atomic<u64>);

impl Pinned {
    #[inline]
    pub fn load(&self) -> u64 {
        let pin = pin();
        // SAFETY: never null, and what is replaced is not freed while anybody is pinned who may have seen it.
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
        // SAFETY: `old` has left the cell, and the swap gave it to us alone.
        unsafe { pin.defer_destroy(old) };
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let cell = std::mem::replace(&mut self.0, Atomic::null());
        // SAFETY: `&mut self`: nobody reads it any more.
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
