//! A pointer to a value that is replaced as a whole. Old values are retired by epoch-based
//! reclamation. All unsafe code of the crate is in this file and in `slab.rs`.
//!
//! # Why
//!
//! `fail` reads lists of dependents and a precomputed closure, which may be retired at the same
//! time. An `ArcSwap` for each of them would be a safe alternative. But its loads cost three times
//! as much, and each of its stores visits every thread that has ever read one.
//!
//! # How it is checked
//!
//! The models of `loom-tests/tests/retired_closure.rs` run this file and crossbeam-epoch
//! themselves. The models of the protocol (`--cfg loom`) use the substitute for both in `model.rs`.
#![allow(unsafe_code)]

use std::sync::atomic::Ordering;

use crossbeam_epoch::{Atomic, Guard, Owned};

use crate::sync::{collector, schedule_point};

/// A pin of the epoch of `collector.rs`, the only collector that is used here. While it is held, no
/// value is freed that a `Snapshot` has returned under it.
pub(crate) struct Pin(Guard);

/// Pins the epoch. Wait-free. A thread may hold several pins.
pub(crate) fn pin() -> Pin {
    Pin(collector::pin())
}

/// A cell that is empty at first, and then contains a value that is replaced as a whole. A thread
/// needs a `Pin` to read it.
pub(crate) struct Snapshot<T>(Atomic<T>);

impl<T: Send + Sync + 'static> Snapshot<T> {
    pub(crate) fn empty() -> Self {
        Self(Atomic::null())
    }

    /// Returns the present value. Acquire: pairs with `publish`.
    #[inline]
    pub(crate) fn load<'p>(&self, pin: &'p Pin) -> Option<&'p T> {
        schedule_point();
        let shared = self.0.load(Ordering::Acquire, &pin.0);
        // SAFETY: the pointer is null, or points to a value that `publish` stored. A value that is
        // replaced is freed only after every pin that was held at the replacement was dropped, so
        // after `pin`. A value that is not replaced is freed only by `drop`.
        unsafe { shared.as_ref() }
    }

    /// Replaces the value and retires the old one. Returns a reference to the old one, which is
    /// valid as long as the pin is held.
    ///
    /// Release: pairs with `load`. Acquire: pairs with the `publish` of the old value, so that
    /// its content is complete when it is dropped.
    pub(crate) fn publish<'p>(&self, value: T, pin: &'p Pin) -> Option<&'p T> {
        schedule_point();
        let old = self.0.swap(Owned::new(value), Ordering::AcqRel, &pin.0);
        if old.is_null() {
            return None;
        }
        // SAFETY: the cell no longer contains `old`, so no new reader can find it. The swap has
        // returned it to this call only, so it is retired once. Another thread may free it,
        // because `T: Send`.
        unsafe { pin.0.defer_destroy(old) };
        // SAFETY: it was retired under `pin`, so it is not freed while `pin` is held.
        unsafe { old.as_ref() }
    }
}

impl<T> Drop for Snapshot<T> {
    fn drop(&mut self) {
        let atomic = std::mem::replace(&mut self.0, Atomic::null());
        // SAFETY: because of `&mut self`, no other thread reads or drops the value. For a null
        // pointer, `try_into_owned` returns `None`.
        drop(unsafe { atomic.try_into_owned() });
    }
}
