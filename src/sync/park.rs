//! Blocks a plain thread on a future, until a deadline if there is one.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::Instant,
};

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
        // Release: pairs with `take`.
        self.token.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

/// The output of the future; `None` where it was not there at the deadline. Polls at least once.
pub(crate) fn block_until<F: Future + Unpin>(
    future: &mut F,
    deadline: Option<Instant>,
) -> Option<F::Output> {
    let unpark = Arc::new(Unpark { thread: thread::current(), token: AtomicBool::new(false) });
    let waker = Waker::from(Arc::clone(&unpark));
    let mut context = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(output) = Pin::new(&mut *future).poll(&mut context) {
            return Some(output);
        }
        while !unpark.take() {
            let Some(deadline) = deadline else {
                thread::park();
                continue;
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            thread::park_timeout(left);
        }
    }
}
