//! The only module that names std's atomics, loom, shuttle, arc-swap, crossbeam-epoch and event-listener.
//!
//! Everything above it says what it needs in these words, so that the same code runs
//!
//! - in a model (`--cfg loom`): every interleaving and every value that the orderings allow. What is
//!   substituted there, and why that is faithful, stands in `model.rs`;
//! - under a random scheduler (`--cfg shuttle`), with many more services and threads. Everything is sequentially
//!   consistent there, and only atomics, locks and [`schedule_point`]s are places to switch threads.

mod park;
pub(crate) mod slab;

#[cfg(not(loom))]
mod arc_cell;
#[cfg(loom)]
mod model;
#[cfg(not(loom))]
mod snapshot;

#[cfg(loom)]
pub(crate) use self::model::{ArcCell, Held, Pin, Snapshot, into_arc, nothing, park_timeout, pin};
pub(crate) use self::park::block_until;
#[cfg(not(loom))]
pub(crate) use self::{
    arc_cell::{ArcCell, Held, into_arc, nothing},
    snapshot::{Pin, Snapshot, pin},
};

pub(crate) use event_listener::{Event, EventListener, Listener};

#[cfg(loom)]
pub(crate) use loom::{
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence},
    },
    thread::{Thread, current as current_thread, park, yield_now},
    thread_local,
};
#[cfg(shuttle)]
pub(crate) use shuttle::{
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence},
    },
    thread::{Thread, current as current_thread, park, park_timeout, yield_now},
    thread_local,
};
#[cfg(not(any(loom, shuttle)))]
pub(crate) use std::{
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence},
    },
    thread::{Thread, current as current_thread, park, park_timeout, yield_now},
    thread_local,
};

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::PoisonError,
};

/// Before a step of arc-swap or crossbeam-epoch that other threads can see: shuttle, which does not see into
/// them, may switch threads here.
#[cfg(not(loom))]
#[inline(always)]
pub(crate) fn schedule_point() {
    #[cfg(shuttle)]
    AtomicBool::new(false).load(Ordering::Relaxed);
}

/// Locks. No user code runs under any lock of this crate, so a poisoned one is still whole.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A switch that other threads look at.
#[derive(Debug)]
pub(crate) struct Flag(AtomicBool);

impl Flag {
    pub(crate) fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    /// Whether it is on. Acquire: pairs with `raise` and `lower`.
    pub(crate) fn is_up(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// Switches it on; true for the one that did. Acquire pairs with `lower`, Release with `is_up`.
    pub(crate) fn raise(&self) -> bool {
        !self.0.swap(true, Ordering::AcqRel)
    }

    /// Switches it off. Release: what was done under the flag is seen by the next that raises it.
    pub(crate) fn lower(&self) {
        self.0.store(false, Ordering::Release);
    }
}

/// A number for people and for shortcuts that may be stale; it orders nothing (Relaxed throughout).
#[derive(Debug)]
pub(crate) struct Count(AtomicU32);

impl Count {
    pub(crate) fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    /// Gives what it was before.
    pub(crate) fn add(&self, number: u32) -> u32 {
        self.0.fetch_add(number, Ordering::Relaxed)
    }

    pub(crate) fn remove(&self, number: u32) {
        self.0.fetch_sub(number, Ordering::Relaxed);
    }

    pub(crate) fn set(&self, number: u32) {
        self.0.store(number, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Runs user code (a `Drop`, an observer, a waker) that must not break the store or the caller when it
/// panics: the panic has been reported by the panic hook, and ends here.
pub(crate) fn shielded(user_code: impl FnOnce()) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(user_code)) {
        // The payload is the user's, too, and may panic when it is dropped; and that one's payload again.
        if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
            std::mem::forget(again);
        }
    }
}

/// A value with a user's `Drop` in it: that is run shielded, whichever way it comes to an end.
pub(crate) struct Shielded<T>(Option<T>);

impl<T> Shielded<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(Some(value))
    }

    /// Hands it over: from here on it is somebody else's to drop.
    pub(crate) fn into_inner(mut self) -> T {
        match self.0.take() {
            Some(value) => value,
            None => unreachable!("it is taken out only at its end"),
        }
    }
}

impl<T> std::ops::Deref for Shielded<T> {
    type Target = T;

    fn deref(&self) -> &T {
        match &self.0 {
            Some(value) => value,
            None => unreachable!("it is taken out only at its end"),
        }
    }
}

#[cfg(feature = "supervise")]
impl<T> std::ops::DerefMut for Shielded<T> {
    fn deref_mut(&mut self) -> &mut T {
        match &mut self.0 {
            Some(value) => value,
            None => unreachable!("it is taken out only at its end"),
        }
    }
}

impl<T> Drop for Shielded<T> {
    fn drop(&mut self) {
        if let Some(value) = self.0.take() {
            shielded(|| drop(value));
        }
    }
}
