//! User code that the store runs: its panic is caught. In particular the `Drop` of a user's value.
//!
//! # Why there is unsafe code
//!
//! A value whose `Drop` must be caught has to be moved out of its owner while the owner is dropped.
//! The safe alternative is an `Option`, which is taken. But each instance contains such a value, so
//! each access of a reader would check whether the value is still there: two instructions for each
//! of them (`benches/instructions.rs`), and a larger instance.
#![allow(unsafe_code)]

use std::{
    mem::ManuallyDrop,
    ops::{Deref, DerefMut},
    panic::{AssertUnwindSafe, catch_unwind},
};

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
pub(crate) struct Shielded<T>(ManuallyDrop<T>);

impl<T> Shielded<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(ManuallyDrop::new(value))
    }

    /// Returns the value. From then on, its new owner is responsible for the drop.
    pub(crate) fn into_inner(self) -> T {
        // Not dropped: the value would be dropped twice.
        let mut this = ManuallyDrop::new(self);
        // SAFETY: `this` is neither used nor dropped after this line.
        unsafe { ManuallyDrop::take(&mut this.0) }
    }
}

impl<T> Deref for Shielded<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for Shielded<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<T> Drop for Shielded<T> {
    fn drop(&mut self) {
        // SAFETY: this is the drop of the owner, so the value is not used again. `into_inner`
        // prevents this drop.
        shielded(|| unsafe { ManuallyDrop::drop(&mut self.0) });
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use std::{
        panic::catch_unwind,
        sync::atomic::{AtomicU32, Ordering},
    };

    use super::Shielded;

    struct Counted<'a>(&'a AtomicU32, bool);

    impl Drop for Counted<'_> {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
            assert!(!self.1, "the drop panics");
        }
    }

    #[test]
    fn a_value_is_dropped_once_and_shielded() {
        let drops = AtomicU32::new(0);
        drop(Shielded::new(Counted(&drops, false)));
        drop(Shielded::new(Counted(&drops, true)));
        assert_eq!(drops.load(Ordering::Relaxed), 2);
        let value = Shielded::new(Counted(&drops, true)).into_inner();
        assert_eq!(drops.load(Ordering::Relaxed), 2, "the value has a new owner");
        let caught = catch_unwind(std::panic::AssertUnwindSafe(|| drop(value)));
        assert!(caught.is_err(), "the new owner is responsible for the drop");
        assert_eq!(drops.load(Ordering::Relaxed), 3);
    }
}
