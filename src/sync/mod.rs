//! The primitives of the protocol. Only this module names the atomics of std, loom, shuttle,
//! arc-swap, crossbeam-epoch and event-listener.
//!
//! All other modules use the types of this one, so that the same code also runs
//!
//! - in a model (`--cfg loom`), with every interleaving and every value that the orderings allow.
//!   `model.rs` contains the substitutes, and the reason why they hide nothing;
//! - under a random scheduler (`--cfg shuttle`), with many more services and threads. All atomics
//!   are sequentially consistent there. Threads are switched only at atomics, locks and
//!   [`schedule_point`]s.

mod park;
pub(crate) mod slab;

#[cfg(not(loom))]
mod arc_cell;
#[cfg(loom)]
mod model;
#[cfg(not(loom))]
mod snapshot;

#[cfg(loom)]
pub(crate) use self::model::{
    ArcCell, Held, Pin, Snapshot, empty_load, into_arc, park_timeout, pin,
};
pub(crate) use self::park::block_until;
#[cfg(not(loom))]
pub(crate) use self::{
    arc_cell::{ArcCell, Held, empty_load, into_arc},
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

/// Lets shuttle switch threads. Called before each step of arc-swap and crossbeam-epoch that other
/// threads can observe, because shuttle does not instrument these crates.
#[cfg(not(loom))]
#[inline(always)]
pub(crate) fn schedule_point() {
    #[cfg(shuttle)]
    AtomicBool::new(false).load(Ordering::Relaxed);
}

/// Locks a mutex, and ignores poisoning: no user code runs under a lock of this crate, so its
/// data is consistent.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A boolean that several threads read and write.
#[derive(Debug)]
pub(crate) struct Flag(AtomicBool);

impl Flag {
    pub(crate) fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    /// Returns whether the flag is set. Acquire: pairs with `set` and `unset`.
    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// Sets the flag. Returns whether this call has set it. Acquire: pairs with `unset`. Release:
    /// pairs with `is_set`.
    pub(crate) fn set(&self) -> bool {
        !self.0.swap(true, Ordering::AcqRel)
    }

    /// Unsets the flag. Release: pairs with `set`, whose next caller sees what was done while the
    /// flag was set.
    pub(crate) fn unset(&self) {
        self.0.store(false, Ordering::Release);
    }
}

/// A number for statistics, and for decisions that tolerate a stale value. All its orderings are
/// Relaxed. If a decision needs an ordering, another word carries it.
#[derive(Debug)]
pub(crate) struct Count(AtomicU32);

impl Count {
    pub(crate) fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    /// Returns the previous number.
    pub(crate) fn fetch_add(&self, number: u32) -> u32 {
        self.0.fetch_add(number, Ordering::Relaxed)
    }

    pub(crate) fn fetch_sub(&self, number: u32) {
        self.0.fetch_sub(number, Ordering::Relaxed);
    }

    pub(crate) fn set(&self, number: u32) {
        self.0.store(number, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Runs user code (a `Drop`, an observer, a waker) and catches its panic, so that neither the
/// store nor the caller is affected. The panic hook has reported the panic already.
pub(crate) fn shielded(user_code: impl FnOnce()) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(user_code)) {
        // The drop of the payload is user code, too, and may panic. The payload of that second
        // panic is leaked: its drop could panic again.
        if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
            std::mem::forget(again);
        }
    }
}

/// A value whose `Drop` is user code. Its drop is `shielded`, on every path of the program.
pub(crate) struct Shielded<T>(Option<T>);

impl<T> Shielded<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(Some(value))
    }

    /// Returns the value. From then on, its new owner is responsible for the drop.
    pub(crate) fn into_inner(mut self) -> T {
        match self.0.take() {
            Some(value) => value,
            None => unreachable!("only `into_inner` and the drop take the value"),
        }
    }
}

impl<T> std::ops::Deref for Shielded<T> {
    type Target = T;

    fn deref(&self) -> &T {
        match &self.0 {
            Some(value) => value,
            None => unreachable!("only `into_inner` and the drop take the value"),
        }
    }
}

impl<T> std::ops::DerefMut for Shielded<T> {
    fn deref_mut(&mut self) -> &mut T {
        match &mut self.0 {
            Some(value) => value,
            None => unreachable!("only `into_inner` and the drop take the value"),
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
