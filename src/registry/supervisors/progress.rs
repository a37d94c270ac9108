//! A counter of steps, and futures that wait for the next step.
//!
//! A shutdown waits with it until one more supervisor has stopped, and a supervisor until the
//! thread of a body has returned.
//!
//! All accesses of the counter are Relaxed: it orders nothing. A caller of `step` writes what the
//! step is about under a lock before the call, and a task that was woken reads it under the same
//! lock.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use crate::{
    store::{WaitPoint, Waiter},
    sync::{AtomicU64, Ordering},
};

pub(crate) struct Progress {
    steps: AtomicU64,
    point: WaitPoint,
}

impl Default for Progress {
    fn default() -> Self {
        Self { steps: AtomicU64::new(0), point: WaitPoint::new() }
    }
}

impl Progress {
    /// Counts one step, and wakes all futures of `after`.
    pub(crate) fn step(&self) {
        self.steps.fetch_add(1, Ordering::Relaxed);
        self.point.wake_all();
    }

    /// Returns the number of steps so far.
    pub(crate) fn steps(&self) -> u64 {
        self.steps.load(Ordering::Relaxed)
    }

    /// Returns a future that completes once the number of steps is no longer `steps`.
    pub(crate) fn after(&self, steps: u64) -> impl Future<Output = ()> + '_ {
        After { progress: self, steps, waiter: Waiter::default() }
    }
}

struct After<'a> {
    progress: &'a Progress,
    steps: u64,
    waiter: Waiter,
}

impl Future for After<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let Self { progress, steps, waiter } = &mut *self;
        while progress.steps() == *steps {
            if !waiter.is_armed() {
                // The loop then checks the counter again: the step may have come before `listen`.
                // event-listener makes listening and notifying sequentially consistent, so either
                // this check sees the step, or the notification sees this listener.
                waiter.listen(&progress.point);
            } else if waiter.poll(context).is_pending() {
                return Poll::Pending;
            }
        }
        Poll::Ready(())
    }
}

impl Drop for After<'_> {
    fn drop(&mut self) {
        self.waiter.disarm();
    }
}
