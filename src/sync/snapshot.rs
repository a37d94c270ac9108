//! A pointer whose old values epochs retire. Here and in `slab.rs` stands all the unsafe code of the crate.
//!
//! # Why
//!
//! `fail` reads lists of dependents, and a row, that may be retired at that moment. An `ArcSwap` for each would
//! do it safely, but its loads cost three times as much, and each of its stores visits every thread that
//! ever read one.
//!
//! # How it is checked
//!
//! `loom-tests/tests/retired_row.rs` runs this file and crossbeam-epoch themselves. The models of
//! the protocol (`--cfg loom`) have a stand-in for both, in `model.rs`.
#![allow(unsafe_code)]

use std::sync::atomic::Ordering;

use crossbeam_epoch::{Atomic, Guard, Owned};

use crate::sync::schedule_point;

/// While it is held, nothing that a `Snapshot` gave under it is freed.
pub(crate) struct Pin(Guard);

/// Wait-free; nests.
pub(crate) fn pin() -> Pin {
    Pin(crossbeam_epoch::pin())
}

/// Nothing at first, then a value that is replaced as a whole, and read by whoever holds a `Pin`.
pub(crate) struct Snapshot<T>(Atomic<T>);

impl<T: Send + Sync + 'static> Snapshot<T> {
    pub(crate) fn empty() -> Self {
        Self(Atomic::null())
    }

    /// The value of now. Acquire: pairs with `publish`.
    #[inline]
    pub(crate) fn load<'p>(&self, pin: &'p Pin) -> Option<&'p T> {
        schedule_point();
        let shared = self.0.load(Ordering::Acquire, &pin.0);
        // SAFETY: null or a value that `publish` stored, which only `drop` takes out; what was replaced is freed
        // only after every pin that was held at that time is gone, `pin` among them.
        unsafe { shared.as_ref() }
    }

    /// Puts a new value in the old one's place, retires that, and lends it for as long as the pin is held.
    /// Release: pairs with `load`. Acquire: pairs with the `publish` of the old one, which is to be whole when it
    /// is dropped.
    pub(crate) fn publish<'p>(&self, value: T, pin: &'p Pin) -> Option<&'p T> {
        schedule_point();
        let old = self.0.swap(Owned::new(value), Ordering::AcqRel, &pin.0);
        if old.is_null() {
            return None;
        }
        // SAFETY: `old` has left the cell, so that no new reader can find it; the swap gave it to us
        // alone; `T: Send`, since another thread may free it.
        unsafe { pin.0.defer_destroy(old) };
        // SAFETY: retired under `pin`, so it is not freed while that is held.
        unsafe { old.as_ref() }
    }
}

impl<T> Drop for Snapshot<T> {
    fn drop(&mut self) {
        let atomic = std::mem::replace(&mut self.0, Atomic::null());
        // SAFETY: `&mut self`: nobody reads it any more, and nobody else can drop it. Null gives nothing.
        drop(unsafe { atomic.try_into_owned() });
    }
}
