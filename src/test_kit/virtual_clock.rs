//! Time for tests.

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use crate::{
    supervise::{Clock, Sleep},
    sync::{Mutex, lock, shielded},
};

/// A clock that stands until it is told how much time has passed. Clones are the same clock.
///
/// ```
/// use mainstay::{Doing, Registry, Restart, VirtualClock};
/// use std::{thread, time::Duration};
///
/// let clock = VirtualClock::new();
/// let registry = Registry::builder(1)?.clock(clock.clone()).build();
/// let port = registry.register::<u16>("port")?;
/// let hour = Duration::from_secs(3600);
/// let restart = Restart::default().backoff(hour, hour).without_jitter();
/// let supervisor = registry.supervise(port)?.restart(restart);
/// thread::spawn(|| {
///     supervisor.run_blocking(|build| if build.number() > 1 { Ok(80) } else { Err("no port is free") })
/// });
/// while clock.sleepers() == 0 {
///     thread::yield_now();
/// }
/// assert_eq!(registry.status(port)?.supervision.unwrap().next_try_in, Some(hour));
/// clock.advance(hour);
/// assert_eq!(**registry.wait_ready(port).wait()?, 80);
/// # registry.close();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct VirtualClock(Arc<Mutex<State>>);

struct State {
    now: Instant,
    /// By when they are to be woken; the number tells those of one moment apart.
    sleepers: BTreeMap<(Instant, u64), Waker>,
    next: u64,
}

impl VirtualClock {
    /// A clock that stands at some moment.
    ///
    /// ```
    /// use mainstay::{Clock, VirtualClock};
    ///
    /// let clock = VirtualClock::new();
    /// assert_eq!(clock.now(), clock.now());
    /// ```
    #[must_use]
    pub fn new() -> Self {
        let (now, sleepers) = (Instant::now(), BTreeMap::new());
        Self(Arc::new(Mutex::new(State { now, sleepers, next: 0 })))
    }

    /// Lets so much time pass: who sleeps until then, or shorter, is woken, the earliest first.
    ///
    /// All that time passes at once. Who is to fall asleep once more within it needs [`advance_to_next`] instead.
    ///
    /// [`advance_to_next`]: Self::advance_to_next
    ///
    /// ```
    /// use mainstay::{Clock, VirtualClock};
    /// use std::time::Duration;
    ///
    /// let clock = VirtualClock::new();
    /// let begun = clock.now();
    /// clock.advance(Duration::from_secs(3600));
    /// assert_eq!(clock.now() - begun, Duration::from_secs(3600));
    /// ```
    pub fn advance(&self, time: Duration) {
        let woken = {
            let mut state = lock(&self.0);
            // A time that no clock can show is the last that this one can.
            state.now = state.now.checked_add(time).unwrap_or(state.now);
            let now = state.now;
            let later = state.sleepers.split_off(&(now, u64::MAX));
            mem::replace(&mut state.sleepers, later)
        };
        for waker in woken.into_values() {
            shielded(|| waker.wake());
        }
    }

    /// Lets time pass until the next of those who sleep is woken; gives how much. `None` where nobody sleeps.
    ///
    /// ```
    /// use mainstay::{Clock, VirtualClock};
    /// use std::{future::Future, task::{Context, Waker}, time::Duration};
    ///
    /// let clock = VirtualClock::new();
    /// let mut sleep = clock.sleep_until(clock.now() + Duration::from_secs(60));
    /// let mut context = Context::from_waker(Waker::noop());
    /// assert!(sleep.as_mut().poll(&mut context).is_pending());
    /// assert_eq!(clock.advance_to_next(), Some(Duration::from_secs(60)));
    /// assert!(sleep.as_mut().poll(&mut context).is_ready());
    /// assert_eq!(clock.advance_to_next(), None);
    /// ```
    pub fn advance_to_next(&self) -> Option<Duration> {
        let time = self.next_in()?;
        self.advance(time);
        Some(time)
    }

    /// In what time the next is woken.
    pub(super) fn next_in(&self) -> Option<Duration> {
        let state = lock(&self.0);
        let next = state.sleepers.first_key_value()?.0.0;
        Some(next.saturating_duration_since(state.now))
    }

    /// How many sleep.
    ///
    /// ```
    /// use mainstay::{Clock, VirtualClock};
    /// use std::{future::Future, task::{Context, Waker}, time::Duration};
    ///
    /// let clock = VirtualClock::new();
    /// let mut sleep = clock.sleep_until(clock.now() + Duration::from_secs(60));
    /// let mut context = Context::from_waker(Waker::noop());
    /// assert!(sleep.as_mut().poll(&mut context).is_pending());
    /// assert_eq!(clock.sleepers(), 1);
    /// drop(sleep);
    /// assert_eq!(clock.sleepers(), 0);
    /// ```
    #[must_use]
    pub fn sleepers(&self) -> usize {
        lock(&self.0).sleepers.len()
    }
}

impl Default for VirtualClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> Instant {
        lock(&self.0).now
    }

    fn sleep_until(&self, deadline: Instant) -> Sleep {
        Box::pin(Sleeper { clock: self.clone(), deadline, number: None })
    }
}

impl fmt::Debug for VirtualClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VirtualClock").field("sleepers", &self.sleepers()).finish_non_exhaustive()
    }
}

struct Sleeper {
    clock: VirtualClock,
    deadline: Instant,
    number: Option<u64>,
}

impl Future for Sleeper {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        // The user's code, outside the lock; the one before it, too.
        let waker = context.waker().clone();
        let _before = {
            let clock = Arc::clone(&self.clock.0);
            let mut state = lock(&clock);
            if state.now >= self.deadline {
                return Poll::Ready(());
            }
            let number = *self.number.get_or_insert_with(|| {
                state.next += 1;
                state.next
            });
            state.sleepers.insert((self.deadline, number), waker)
        };
        Poll::Pending
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let Some(number) = self.number else { return };
        let waker = lock(&self.clock.0).sleepers.remove(&(self.deadline, number));
        shielded(|| drop(waker));
    }
}
