//! Blocks a plain thread on a future, until a deadline if there is one.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    time::Instant,
};

use super::{AtomicBool, Ordering, Thread, current_thread, park, park_timeout};

/// Wakes a parked thread. The token says that it was this, and not somebody else's `unpark`.
struct Unpark {
    thread: Thread,
    token: AtomicBool,
}

impl Unpark {
    /// Acquire: pairs with `wake`, so that the thread sees what was done before it was woken.
    fn take(&self) -> bool {
        self.token.swap(false, Ordering::Acquire)
    }
}

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        // Release: pairs with `take`. A swap and no store, as loom lets a read-modify-write that came before a
        // store undo it.
        self.token.swap(true, Ordering::Release);
        self.thread.unpark();
    }
}

/// The output of the future; `None` where it was not there at the deadline, which is asked for after each poll. Polls
/// at least once.
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
