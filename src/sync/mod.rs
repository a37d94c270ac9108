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

mod budget;
mod often_constant;
mod park;
mod polling;
mod shielded;
pub(crate) mod slab;

#[cfg(not(loom))]
mod arc_cell;
#[cfg(all(test, not(any(loom, shuttle))))]
mod arc_cell_tests;
#[cfg(not(loom))]
mod asymmetric;
#[cfg(not(loom))]
mod collector;
#[cfg(not(loom))]
mod counted_cell;
#[cfg(loom)]
mod model;
#[cfg(not(loom))]
mod places;
#[cfg(not(loom))]
mod snapshot;

#[cfg(all(feature = "supervise", not(loom)))]
pub(crate) use self::arc_cell::RemovedTogether;
#[cfg(all(feature = "supervise", loom))]
pub(crate) use self::model::RemovedTogether;
#[cfg(loom)]
pub(crate) use self::model::{
    ArcCell, CountedCell, Held, Pin, Snapshot, hold, into_arc, is_asymmetric, park_timeout, pin,
};
#[cfg(not(loom))]
pub(crate) use self::{
    arc_cell::{ArcCell, Held, hold, into_arc},
    asymmetric::is_asymmetric,
    counted_cell::CountedCell,
    snapshot::{Pin, Snapshot, pin},
};
pub(crate) use self::{
    budget::{Budget, Taken},
    often_constant::OftenConstant,
    park::block_until,
    polling::polls_supervisor,
    shielded::{Recipient, Shielded, shielded},
};

#[cfg(feature = "supervise")]
pub(crate) use self::polling::{SupervisorPoll, present_poll};
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
    lazy_static,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, Ordering, fence},
    },
    thread::{Thread, current as current_thread, park, park_timeout, yield_now},
    thread_local,
};
#[cfg(not(any(loom, shuttle)))]
pub(crate) use std::{
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, Ordering, fence},
    },
    thread::{Thread, current as current_thread, park, park_timeout, yield_now},
    thread_local,
};

/// Declares a static that is created at its first use: once in each run of a model.
#[cfg(not(any(loom, shuttle)))]
macro_rules! lazy_static {
    (static ref $name:ident: $type:ty = $init:expr;) => {
        static $name: std::sync::LazyLock<$type> = std::sync::LazyLock::new(|| $init);
    };
}
#[cfg(not(any(loom, shuttle)))]
pub(crate) use lazy_static;

/// Declares a variable of each thread whose first value is a constant, so that an access needs no
/// check.
#[cfg(not(any(loom, shuttle)))]
macro_rules! const_thread_local {
    ($(#[$attribute:meta])* static $name:ident: $type:ty = $init:expr;) => {
        std::thread_local! { $(#[$attribute])* static $name: $type = const { $init }; }
    };
}
#[cfg(not(any(loom, shuttle)))]
pub(crate) use const_thread_local;
#[cfg(shuttle)]
pub(crate) use shuttle::thread_local as const_thread_local;

/// The substitute for the call of the kernel. Under a random scheduler all atomics are sequentially
/// consistent without a fence.
#[cfg(shuttle)]
mod membarrier {
    pub(super) fn is_registered() -> bool {
        true
    }

    pub(super) fn execute() -> bool {
        true
    }

    pub(super) fn light_fence() {}
}

/// For threads that are not joined. The drops of the owner of what is shared with one are ordered,
/// and in a model this must be known to loom.
#[cfg(all(feature = "supervise", loom))]
pub(crate) use loom::{sync::Arc as ThreadArc, thread::Builder as ThreadBuilder};
#[cfg(all(feature = "supervise", shuttle))]
pub(crate) use shuttle::{sync::Arc as ThreadArc, thread::Builder as ThreadBuilder};
#[cfg(all(feature = "supervise", not(any(loom, shuttle))))]
pub(crate) use std::{sync::Arc as ThreadArc, thread::Builder as ThreadBuilder};

#[cfg(not(loom))]
use std::sync::Arc;
use std::sync::{PoisonError, TryLockError};

/// Lets shuttle switch threads. Called before each step of arc-swap and crossbeam-epoch that other
/// threads can observe, because shuttle does not instrument these crates.
#[cfg(not(loom))]
#[inline(always)]
pub(crate) fn schedule_point() {
    #[cfg(shuttle)]
    AtomicBool::new(false).load(Ordering::Relaxed);
}

/// Lets the executor of this task run other tasks, and a model other threads.
#[cfg(feature = "supervise")]
pub(crate) async fn yield_task() {
    #[cfg(any(loom, shuttle))]
    yield_now();
    futures_lite::future::yield_now().await;
}

/// Locks a mutex, and ignores poisoning: no user code runs under a lock of this crate, so its
/// data is consistent.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Locks a mutex, unless another thread holds it.
pub(crate) fn try_lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    match mutex.try_lock() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

/// A boolean that several threads read and write.
#[derive(Debug)]
pub(crate) struct Flag(AtomicBool);

impl Flag {
    pub(crate) fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    /// Returns whether the flag is set. Acquire: pairs with `set`.
    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// Sets the flag. Returns whether this call has set it. Release: pairs with `is_set`.
    pub(crate) fn set(&self) -> bool {
        !self.0.swap(true, Ordering::Release)
    }
}

/// A boolean that only the holder of one lock writes, and that others read to find whether they
/// must take the lock. All its orderings are Relaxed: what it says is under the lock, and a thread
/// that sets it wakes the slot on which the readers wait.
#[cfg(feature = "supervise")]
pub(crate) struct LockedFlag(AtomicBool);

#[cfg(feature = "supervise")]
impl LockedFlag {
    pub(crate) fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn set(&self, value: bool) {
        self.0.store(value, Ordering::Relaxed);
    }
}

/// A number that only the holder of one lock reads and writes. The lock orders it, so it is an
/// atomic of std also in a model, where each access of another one is a step.
pub(crate) struct LockedNumber(std::sync::atomic::AtomicU32);

impl LockedNumber {
    pub(crate) fn new(number: u32) -> Self {
        Self(std::sync::atomic::AtomicU32::new(number))
    }

    pub(crate) fn get(&self) -> u32 {
        self.0.load(std::sync::atomic::Ordering::Relaxed)
    }

    pub(crate) fn set(&self, number: u32) {
        self.0.store(number, std::sync::atomic::Ordering::Relaxed);
    }
}

/// A number that only a status shows. An atomic of std also in a model, because no decision depends
/// on it. All its orderings are Relaxed.
pub(crate) struct StatusNumber(std::sync::atomic::AtomicU64);

impl StatusNumber {
    pub(crate) fn new() -> Self {
        Self(std::sync::atomic::AtomicU64::new(0))
    }

    pub(crate) fn add(&self, number: u64) {
        self.0.fetch_add(number, std::sync::atomic::Ordering::Relaxed);
    }

    pub(crate) fn set(&self, number: u64) {
        self.0.store(number, std::sync::atomic::Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(std::sync::atomic::Ordering::Relaxed)
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

    /// Sets the number, unless it is greater already.
    #[cfg(feature = "supervise")]
    pub(crate) fn set_at_least(&self, number: u32) {
        self.0.fetch_max(number, Ordering::Relaxed);
    }

    pub(crate) fn set(&self, number: u32) {
        self.0.store(number, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}
