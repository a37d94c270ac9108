//! Blocks a thread until a future completes or a deadline expires.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    time::Instant,
};

use super::{AtomicBool, Ordering, Thread, current_thread, park, park_timeout};

/// A waker that unparks a thread. The token distinguishes its wake-up from an unrelated `unpark`.
struct Unpark {
    thread: Thread,
    token: AtomicBool,
}

impl Unpark {
    /// Takes the token, and returns whether there was one. Acquire: pairs with `wake`, so that
    /// the thread sees what was done before it was woken.
    fn take(&self) -> bool {
        self.token.swap(false, Ordering::Acquire)
    }
}

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        // Release: pairs with `take`. A swap and not a store: in loom, a read-modify-write that
        // came before a store can overwrite it, and the token would be lost.
        self.token.swap(true, Ordering::Release);
        self.thread.unpark();
    }
}

/// Polls the future until it completes, and returns its output. Returns `None` if the deadline
/// expires first. Polls at least once, and asks for the deadline after each poll.
pub(crate) fn block_until<F: Future + Unpin>(
    future: &mut F,
    deadline: impl Fn() -> Option<Instant>,
) -> Option<F::Output> {
    let unpark = Arc::new(Unpark { thread: current_thread(), token: AtomicBool::new(false) });
    let waker = Waker::from(Arc::clone(&unpark));
    let mut context = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(output) = Pin::new(&mut *future).poll(&mut context) {
            return Some(output);
        }
        let deadline = deadline();
        // A thread may return from `park` without a wake-up.
        while !unpark.take() {
            let Some(deadline) = deadline else {
                park();
                continue;
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            park_timeout(left);
        }
    }
}
