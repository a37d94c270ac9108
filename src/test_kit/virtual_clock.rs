//! `VirtualClock`: a clock that advances only if a test says so.

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
    clock::ShieldedSleep,
    supervise::{Clock, Sleep},
    sync::{Mutex, lock},
};

/// A clock that advances only when a test calls [`advance`](Self::advance).
///
/// Set it by [`RegistryBuilder::clock`](crate::RegistryBuilder::clock). Clones are the same clock.
///
/// ```
/// use mainstay::{Registry, supervise::RestartPolicy, test_kit::VirtualClock};
/// use std::{thread, time::Duration};
///
/// let clock = VirtualClock::new();
/// let registry = Registry::builder(1)?.clock(clock.clone()).build();
/// let port = registry.register::<u16>("port")?;
/// let hour = Duration::from_secs(3600);
/// let policy = RestartPolicy::default().backoff(hour, hour).without_jitter();
/// let supervisor = registry.supervise(port)?.restart_policy(policy);
/// thread::spawn(|| {
///     supervisor.run_blocking(|build| match build.number() {
///         1 => Err("no port is free"),
///         _ => Ok(80),
///     })
/// });
/// while clock.sleepers() == 0 {
///     thread::yield_now();
/// }
/// assert_eq!(registry.status(port)?.supervisor.unwrap().next_try_in, Some(hour));
/// clock.advance(hour);
/// assert_eq!(**registry.wait_ready(port).wait_blocking()?, 80);
/// # registry.close();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct VirtualClock(Arc<Mutex<State>>);

struct State {
    now: Instant,
    /// The wakers of the sleeping futures, by deadline. The number distinguishes futures with the
    /// same deadline. Each future is in a `ShieldedSleep`, so no clone or drop of its waker is user
    /// code.
    sleepers: BTreeMap<(Instant, u64), Waker>,
    last_number: u64,
}

impl VirtualClock {
    /// Creates a clock at an arbitrary time.
    ///
    /// ```
    /// use mainstay::{supervise::Clock, test_kit::VirtualClock};
    ///
    /// let clock = VirtualClock::new();
    /// assert_eq!(clock.now(), clock.now());
    /// ```
    #[must_use]
    pub fn new() -> Self {
        let (now, sleepers) = (Instant::now(), BTreeMap::new());
        Self(Arc::new(Mutex::new(State { now, sleepers, last_number: 0 })))
    }

    /// Advances the time, and wakes all futures whose deadline has been reached, the earliest
    /// first.
    ///
    /// If the new time is beyond the range of [`Instant`], as with [`Duration::MAX`], the time
    /// advances to the last deadline, so all sleeping futures are woken.
    ///
    /// The time advances in one step. A task that sleeps several times within it is woken only
    /// once: use [`advance_to_next`](Self::advance_to_next), or
    /// [`TestRuntime::advance`](super::TestRuntime::advance).
    ///
    /// ```
    /// use mainstay::{supervise::Clock, test_kit::VirtualClock};
    /// use std::time::Duration;
    ///
    /// let clock = VirtualClock::new();
    /// let start = clock.now();
    /// clock.advance(Duration::from_secs(3600));
    /// assert_eq!(clock.now() - start, Duration::from_secs(3600));
    /// ```
    pub fn advance(&self, time: Duration) {
        let woken = {
            let mut state = lock(&self.0);
            let last = state.sleepers.last_key_value().map(|((deadline, _), _)| *deadline);
            let now = state.now.checked_add(time).or(last).unwrap_or(state.now);
            state.now = now;
            let later = state.sleepers.split_off(&(now, u64::MAX));
            mem::replace(&mut state.sleepers, later)
        };
        // After the lock is released: a waker may run its task in place.
        woken.into_values().for_each(Waker::wake);
    }

    /// Advances the time to the next deadline, and wakes the futures with this deadline.
    ///
    /// Returns the duration of the advance, or `None` if no future sleeps.
    ///
    /// ```
    /// use mainstay::{supervise::Clock, test_kit::VirtualClock};
    /// use std::{
    ///     future::Future,
    ///     task::{Context, Waker},
    ///     time::Duration,
    /// };
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

    /// Returns the time until the next deadline, or `None` if no future sleeps.
    pub(super) fn next_in(&self) -> Option<Duration> {
        let state = lock(&self.0);
        let next = state.sleepers.first_key_value()?.0.0;
        Some(next.saturating_duration_since(state.now))
    }

    /// Returns the number of sleeping futures.
    ///
    /// ```
    /// use mainstay::{supervise::Clock, test_kit::VirtualClock};
    /// use std::{
    ///     future::Future,
    ///     task::{Context, Waker},
    ///     time::Duration,
    /// };
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
        Box::pin(ShieldedSleep::new(Sleeper { clock: self.clone(), deadline, number: None }))
    }
}

impl fmt::Debug for VirtualClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VirtualClock").field("sleepers", &self.sleepers()).finish_non_exhaustive()
    }
}

/// The future of [`Clock::sleep_until`].
struct Sleeper {
    clock: VirtualClock,
    deadline: Instant,
    /// The number of its entry in `State::sleepers`, after the first poll.
    number: Option<u64>,
}

impl Future for Sleeper {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let clock = Arc::clone(&self.clock.0);
        let mut state = lock(&clock);
        if state.now >= self.deadline {
            return Poll::Ready(());
        }
        let number = *self.number.get_or_insert_with(|| {
            state.last_number += 1;
            state.last_number
        });
        state.sleepers.insert((self.deadline, number), context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let Some(number) = self.number else { return };
        lock(&self.clock.0).sleepers.remove(&(self.deadline, number));
    }
}
