//! A poll with a given waker, a waker that counts, and one that cannot be cloned.

use std::{
    future::Future,
    panic,
    pin::Pin,
    ptr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, RawWaker, RawWakerVTable, Wake, Waker},
};

pub(crate) fn poll_with<F: Future + Unpin>(future: &mut F, waker: &Waker) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(waker))
}

/// Counts the calls of its waker.
#[derive(Default)]
pub(crate) struct Wakes(AtomicUsize);

impl Wakes {
    pub(crate) fn new() -> (Arc<Self>, Waker) {
        let wakes = Arc::new(Self::default());
        (Arc::clone(&wakes), wakes.into())
    }

    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Polls with a waker that panics when the last reference to it is dropped. This reference is not
/// the caller's, unless the poll has stored none.
pub(crate) fn poll_with_bomb<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    struct Bomb;
    impl Wake for Bomb {
        fn wake(self: Arc<Self>) {}
    }
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("a waker that cannot be dropped");
        }
    }
    let waker = Waker::from(Arc::new(Bomb));
    let polled = poll_with(future, &waker);
    let _ = panic::catch_unwind(panic::AssertUnwindSafe(|| drop(waker)));
    polled
}

/// A waker that panics when it is cloned.
#[allow(unsafe_code)]
pub(crate) fn unclonable() -> Waker {
    fn clone(_: *const ()) -> RawWaker {
        panic!("a waker that cannot be cloned")
    }
    static VTABLE: RawWakerVTable = RawWakerVTable::new(clone, |_| (), |_| (), |_| ());
    // SAFETY: no function of the table uses the pointer.
    unsafe { Waker::new(ptr::null(), &VTABLE) }
}
