//! Keeps the wakers of users away from the timers that wake them.
//!
//! A timer wakes the tasks of several users on one thread, and stores their wakers behind locks
//! that it shares with all of them. A waker is user code: if it panics when it is called, cloned or
//! dropped there, it can end this thread or poison such a lock. So a timer gets a [`SleepWaker`],
//! which runs user code only when it is called, and then catches its panic.

use std::{
    future::Future,
    mem,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Wake, Waker},
};

use crate::sync::{Shielded, shielded};

/// A sleep whose timer gets a [`SleepWaker`] in place of the user's waker.
pub(crate) struct ShieldedSleep<S> {
    sleep: S,
    waker: Arc<SleepWaker>,
}

impl<S: Future<Output = ()> + Unpin> ShieldedSleep<S> {
    pub(crate) fn new(sleep: S) -> Self {
        Self { sleep, waker: Arc::default() }
    }
}

impl<S: Future<Output = ()> + Unpin> Future for ShieldedSleep<S> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        // The clone and the drop of a waker are user code, too, and run without a lock. A panic of
        // the clone reaches only the task that polls, and leaves the sleep as it was.
        let user = Shielded::new(context.waker().clone());
        // Before the poll: a timer that expires during the poll wakes this task.
        let _replaced = self.waker.exchange(Some(user));
        let waker = Waker::from(Arc::clone(&self.waker));
        Pin::new(&mut self.sleep).poll(&mut Context::from_waker(&waker))
    }
}

impl<S> Drop for ShieldedSleep<S> {
    fn drop(&mut self) {
        // The timer may drop the last reference to our waker, under its lock.
        let _user = self.waker.exchange(None);
    }
}

/// The waker that a timer gets. It has the user's waker until it is called or the sleep is dropped.
// A mutex of std, also in a model: the thread of a timer is no thread of the model.
#[derive(Default)]
struct SleepWaker(Mutex<Option<Shielded<Waker>>>);

impl SleepWaker {
    fn exchange(&self, user: Option<Shielded<Waker>>) -> Option<Shielded<Waker>> {
        mem::replace(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner), user)
    }
}

impl Wake for SleepWaker {
    fn wake(self: Arc<Self>) {
        if let Some(user) = self.exchange(None) {
            shielded(|| user.into_inner().wake());
        }
    }
}
