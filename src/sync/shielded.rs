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
    ptr,
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

/// A value whose `Drop` is user code. Its drop is `shielded`, on every path of the program, unless
/// a recipient takes the value.
pub(crate) struct Shielded<T, R: Recipient<T> = NoRecipient> {
    value: ManuallyDrop<T>,
    // After the value, and dropped after it.
    recipient: R,
}

/// Decides, when the owner of a value is dropped, whether the value is dropped, too.
pub(crate) trait Recipient<T> {
    /// Calls `take` to receive the value. If it does not, the value is dropped where it is. It runs
    /// no user code.
    fn receive(&self, take: impl FnOnce() -> T);
}

/// The value is dropped.
pub(crate) struct NoRecipient;

impl<T> Recipient<T> for NoRecipient {
    fn receive(&self, _: impl FnOnce() -> T) {}
}

impl<T> Shielded<T> {
    pub(crate) fn new(value: T) -> Self {
        Self::with_recipient(value, NoRecipient)
    }
}

impl<T, R: Recipient<T>> Shielded<T, R> {
    pub(crate) fn with_recipient(value: T, recipient: R) -> Self {
        Self { value: ManuallyDrop::new(value), recipient }
    }

    #[inline]
    pub(crate) fn recipient(&self) -> &R {
        &self.recipient
    }

    /// Returns the value. From then on, its new owner is responsible for the drop. The recipient is
    /// dropped, and does not receive the value.
    pub(crate) fn into_inner(self) -> T {
        // Not dropped: the value would be dropped twice.
        let mut this = ManuallyDrop::new(self);
        // SAFETY: `this` is not dropped, and its value is moved out of it once, here.
        let value = unsafe { ManuallyDrop::take(&mut this.value) };
        // SAFETY: as above. It is dropped once, here.
        unsafe { ptr::drop_in_place(&mut this.recipient) };
        value
    }
}

impl<T, R: Recipient<T>> Deref for Shielded<T, R> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T, R: Recipient<T>> DerefMut for Shielded<T, R> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

impl<T, R: Recipient<T>> Drop for Shielded<T, R> {
    fn drop(&mut self) {
        let Self { value, recipient } = self;
        let mut is_taken = false;
        recipient.receive(|| {
            is_taken = true;
            // SAFETY: this is the drop of the owner, so the value is not used again, and the line
            // below does not drop a value that is taken. `into_inner` prevents this drop.
            unsafe { ManuallyDrop::take(value) }
        });
        if !is_taken {
            // SAFETY: as above, and the value is not taken.
            shielded(|| unsafe { ManuallyDrop::drop(value) });
        }
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use std::{
        cell::Cell,
        panic::catch_unwind,
        sync::atomic::{AtomicU32, Ordering},
    };

    use super::{Recipient, Shielded};

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

    /// Receives a value if it has room for it. Its drop finds whether the value was received.
    struct Once<'a, 'b> {
        received: &'a Cell<Option<Counted<'b>>>,
        has_room: bool,
    }

    impl<'b> Recipient<Counted<'b>> for Once<'_, 'b> {
        fn receive(&self, take: impl FnOnce() -> Counted<'b>) {
            if self.has_room {
                self.received.set(Some(take()));
            }
        }
    }

    #[test]
    fn a_value_is_received_or_dropped_and_never_both() {
        let (drops, received) = (AtomicU32::new(0), Cell::new(None));
        let count = || drops.load(Ordering::Relaxed);
        let value = |has_room| {
            let recipient = Once { received: &received, has_room };
            Shielded::with_recipient(Counted(&drops, true), recipient)
        };
        drop(value(false));
        assert_eq!((count(), received.take().is_some()), (1, false));
        drop(value(true));
        assert_eq!(count(), 1, "the recipient has the value");
        std::mem::forget(received.take().expect("it was received"));
        std::mem::forget(value(true).into_inner());
        assert_eq!((count(), received.take().is_some()), (1, false), "the caller has the value");
    }
}
