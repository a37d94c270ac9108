//! The timer of the build timeout.

use std::{
    future::{pending, poll_fn},
    task::{Poll, Waker},
    time::{Duration, Instant},
};

use crate::sync::{Mutex, Shielded, lock, shielded};

/// Measures the time of one build against its timeout, if it has one.
///
/// The timer is paused while the build waits for a dependency: if the dependency does not become
/// ready, this is counted against the service that is the reason, and not against the one that
/// waits (S1).
pub(crate) struct BuildTimer(Option<Mutex<TimeLeft>>);

struct TimeLeft {
    /// The time that was left at `since`.
    left: Duration,
    /// The start of the build, or the end of the last wait.
    since: Instant,
    /// The number of waits in progress. The timer is paused unless it is zero.
    waits: u32,
    /// The waker of the task that waits for `waits` to become zero.
    waker: Option<Shielded<Waker>>,
}

impl TimeLeft {
    /// Returns the time at which the timeout expires if the build does not wait from now on. `None`
    /// if this is beyond the range of `Instant`.
    fn deadline(&self, now: Instant) -> Option<Instant> {
        if self.waits == 0 { self.since } else { now }.checked_add(self.left)
    }
}

impl BuildTimer {
    /// Starts the timer, at the present time. Without a timeout, the clock is not read.
    pub(super) fn new(timeout: Option<Duration>, now: impl FnOnce() -> Instant) -> Self {
        Self(timeout.map(|left| Mutex::new(TimeLeft { left, since: now(), waits: 0, waker: None })))
    }

    /// Pauses the timer, because a wait has begun.
    pub(crate) fn pause(&self, now: Instant) {
        let Some(time) = &self.0 else { return };
        let mut time = lock(time);
        // A build may wait for several dependencies at once: only the first wait stops the timer.
        if time.waits == 0 {
            time.left = time.left.saturating_sub(now.saturating_duration_since(time.since));
        }
        time.waits += 1;
    }

    /// Ends one pause, because its wait has ended.
    pub(crate) fn resume(&self, now: Instant) {
        let Some(time) = &self.0 else { return };
        let waker = {
            let mut time = lock(time);
            time.waits -= 1;
            time.since = now;
            if time.waits == 0 { time.waker.take() } else { None }
        };
        // Wakers are user code, which does not run under the lock.
        if let Some(waker) = waker {
            shielded(|| waker.into_inner().wake());
        }
    }

    /// Returns the time at which the timeout expires if the build does not wait from now on. `None`
    /// if there is no timeout.
    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        lock(self.0.as_ref()?).deadline(now)
    }

    /// Returns whether the deadline has passed. A build that ends exactly at its deadline is in
    /// time.
    pub(super) fn is_exceeded(&self, now: impl FnOnce() -> Instant) -> bool {
        // Without a timeout, the clock is not read.
        let now = self.0.as_ref().map(|_| now());
        now.is_some_and(|now| self.deadline(now).is_some_and(|deadline| now > deadline))
    }

    /// Waits until the timer is not paused, and returns the deadline. Does not complete if there is
    /// none.
    pub(super) async fn deadline_when_running(&self) -> Instant {
        let Some(time) = &self.0 else { return pending().await };
        let deadline = poll_fn(|context| {
            // Wakers are user code: none is cloned or dropped under the lock.
            let waker = Shielded::new(context.waker().clone());
            let mut time = lock(time);
            if time.waits == 0 {
                let deadline = time.deadline(time.since);
                // Before `waker` is dropped.
                drop(time);
                return Poll::Ready(deadline);
            }
            let replaced = time.waker.replace(waker);
            drop(time);
            drop(replaced);
            Poll::Pending
        });
        match deadline.await {
            Some(deadline) => deadline,
            // The deadline is beyond the range of `Instant`, which is no limit.
            None => pending().await,
        }
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use std::{
        pin::pin,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        task::{Context, Wake},
    };

    use super::*;

    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn the_end_of_the_last_wait_wakes_the_task_that_enforces_the_timeout() {
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let timer = BuildTimer::new(Some(10 * second), || now);
        timer.pause(now + second);
        timer.pause(now + 2 * second);
        let wakes = Arc::new(Wakes(AtomicUsize::new(0)));
        let waker = Waker::from(Arc::clone(&wakes));
        let mut context = Context::from_waker(&waker);
        let mut deadline = pin!(timer.deadline_when_running());
        assert!(deadline.as_mut().poll(&mut context).is_pending());
        timer.resume(now + 50 * second);
        assert_eq!(wakes.0.load(Ordering::Relaxed), 0, "another wait is in progress");
        timer.resume(now + 60 * second);
        assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
        let left = deadline.as_mut().poll(&mut context);
        assert_eq!(left, Poll::Ready(now + 69 * second), "one second was used");
    }
}
