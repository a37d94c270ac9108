//! The time that one build may take.

use std::{
    future::{pending, poll_fn},
    task::{Poll, Waker},
    time::{Duration, Instant},
};

use crate::sync::{Mutex, lock, shielded};

/// What a build has left of its time. It stands still while the build waits for what it is built from: that this is away
/// is charged to whatever is in the way, and not to who waits.
pub(crate) struct BuildTime(Option<Mutex<Left>>);

struct Left {
    /// As of then.
    time: Duration,
    since: Instant,
    /// How many waits are under way.
    waits: u32,
    /// Of who wants to know when none is any more.
    waker: Option<Waker>,
}

impl Left {
    /// When it is over, if nothing else is waited for; `None` where no clock can show that.
    fn end(&self, now: Instant) -> Option<Instant> {
        if self.waits == 0 { self.since } else { now }.checked_add(self.time)
    }
}

impl BuildTime {
    /// From `now` on.
    pub(super) fn new(limit: Option<Duration>, now: Instant) -> Self {
        let left = |time| Mutex::new(Left { time, since: now, waits: 0, waker: None });
        Self(limit.map(left))
    }

    /// A wait has begun.
    pub(crate) fn stop(&self, now: Instant) {
        let Some(left) = &self.0 else { return };
        let mut left = lock(left);
        if left.waits == 0 {
            left.time = left.time.saturating_sub(now.saturating_duration_since(left.since));
        }
        left.waits += 1;
    }

    /// That wait is over.
    pub(crate) fn go_on(&self, now: Instant) {
        let Some(left) = &self.0 else { return };
        let waker = {
            let mut left = lock(left);
            left.waits -= 1;
            left.since = now;
            if left.waits == 0 { left.waker.take() } else { None }
        };
        if let Some(waker) = waker {
            shielded(|| waker.wake());
        }
    }

    pub(super) fn end(&self, now: Instant) -> Option<Instant> {
        lock(self.0.as_ref()?).end(now)
    }

    /// Whether it is over, and was so a moment ago: a build that ends at its last moment is in time.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.end(now).is_some_and(|end| now > end)
    }

    /// Waits until no wait is under way; gives when the time is over then.
    pub(super) async fn counts(&self) -> Instant {
        let Some(left) = &self.0 else { return pending().await };
        let end = poll_fn(|context| {
            // Wakers are the user's: none is cloned or dropped under the lock.
            let waker = context.waker().clone();
            let mut left = lock(left);
            if left.waits == 0 {
                let end = left.end(left.since);
                drop(left);
                return Poll::Ready(end);
            }
            let before = left.waker.replace(waker);
            drop(left);
            shielded(|| drop(before));
            Poll::Pending
        });
        match end.await {
            Some(end) => end,
            None => pending().await,
        }
    }
}
