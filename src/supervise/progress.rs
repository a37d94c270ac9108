//! Steps that somebody counts, and waits for the next one of.
//!
//! The count orders nothing: what a step is about is noted under a lock before it, and read under that lock by whoever
//! has seen the step.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use crate::{
    store::{WaitPoint, Waiter},
    sync::{AtomicU64, Ordering},
};

pub(super) struct Progress {
    steps: AtomicU64,
    point: WaitPoint,
}

impl Default for Progress {
    fn default() -> Self {
        Self { steps: AtomicU64::new(0), point: WaitPoint::new() }
    }
}

impl Progress {
    /// One step more.
    pub(super) fn step(&self) {
        self.steps.fetch_add(1, Ordering::Relaxed);
        self.point.wake_all();
    }

    /// How many there were.
    pub(super) fn steps(&self) -> u64 {
        self.steps.load(Ordering::Relaxed)
    }

    /// Ends once there were more than so many.
    pub(super) fn after(&self, steps: u64) -> impl Future<Output = ()> + '_ {
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
                // And looks once more: the step may have come before it listened. Listening and notifying are
                // sequentially consistent, so that one of the two sees the other.
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
