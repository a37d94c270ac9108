//! Reloads that are retried after a refusal (S21).

use std::{
    fmt,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures_lite::future::or;

use super::{
    RestartPolicy,
    reload::ReloadHasEnded,
    reload_root::{Builder, Retried, Value},
};
use crate::{
    clock::{Clock, ShieldedSleep, Sleep, WakeSource, block_on_until, within},
    registry::Registry,
    sync::polls_supervisor,
    waiting::{
        Wait,
        sealed::{BlockingCondition, Condition},
    },
};

/// When the tries of a reload begin that is refused.
pub(super) struct Retry {
    policy: RestartPolicy,
    refused: u32,
    /// How often all members were built before the present try.
    pub(super) tries_before: u32,
}

impl Retry {
    fn new(policy: RestartPolicy) -> Box<Self> {
        Box::new(Self { policy, refused: 0, tries_before: 0 })
    }

    /// Returns the time of the try that follows a refusal.
    pub(super) fn next_try(&mut self, now: Instant, tries: u32) -> Option<Instant> {
        self.refused = self.refused.saturating_add(1);
        self.tries_before = tries;
        now.checked_add(self.policy.backoff_after(self.refused))
    }
}

/// The wait of [`ReloadWait::retry`](super::ReloadWait::retry). It borrows nothing.
pub type ReloadRetry = RetriedReload<Builder>;

/// The wait of [`ReloadValueWait::retry`](super::ReloadValueWait::retry). It borrows nothing.
pub type ReloadValueRetry<T> = RetriedReload<Value<T>>;

/// The wait for a reload that is tried again after each refusal: await it on any executor, or block
/// a thread. [`ReloadWait::retry`](super::ReloadWait::retry) returns it.
///
/// ```
/// use mainstay::supervise::{ReloadRetry, RestartPolicy};
///
/// # let registry = mainstay::Registry::with_capacity(1)?;
/// # let port = registry.register::<u16>("port")?;
/// let retry: ReloadRetry = registry.reload(port).retry(RestartPolicy::default());
/// let short = std::time::Duration::from_millis(1);
/// assert!(retry.wait_blocking_timeout(short).is_err(), "the service has no provider");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "a wait does nothing unless it is awaited or `wait_blocking` is called"]
pub struct RetriedReload<R: Retried> {
    wait: Wait<ReloadHasEnded<R>>,
    /// `None` unless it pauses.
    sleep: Option<ShieldedSleep<Sleep>>,
}

impl<R: Retried> RetriedReload<R> {
    fn new(wait: Wait<ReloadHasEnded<R>>) -> Self {
        Self { wait, sleep: None }
    }

    /// Blocks this thread until the wait ends; as
    /// [`Wait::wait_blocking`](crate::wait::Wait::wait_blocking).
    ///
    /// If the clock of the registry is not [real](Clock::is_real), another thread must advance the
    /// time for the next try to begin.
    ///
    /// ```
    /// # use mainstay::supervise::RestartPolicy;
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<u16>("port")?;
    /// registry.constant(port, 80)?;
    /// // No retry mends this.
    /// assert!(registry.reload(port).retry(RestartPolicy::default()).wait_blocking().is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn wait_blocking(self) -> R::Output {
        self.block(None, false)
    }

    /// As [`wait_blocking`](Self::wait_blocking), but at most for `timeout`, which is measured by
    /// [`Instant::now`]. With a timeout of zero it tries once, and blocks nothing.
    ///
    /// ```
    /// # use mainstay::supervise::RestartPolicy;
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<u16>("port")?;
    /// let retry = registry.reload(port).retry(RestartPolicy::default());
    /// assert!(retry.wait_blocking_timeout(std::time::Duration::ZERO).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn wait_blocking_timeout(self, timeout: Duration) -> R::Output {
        // A deadline that `Instant` cannot represent is never reached.
        self.block(Instant::now().checked_add(timeout), timeout.is_zero())
    }

    /// As [`wait_blocking`](Self::wait_blocking), but at most until `deadline`, which is a time of
    /// [`Instant::now`].
    ///
    /// ```
    /// # use mainstay::supervise::RestartPolicy;
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<u16>("port")?;
    /// let retry = registry.reload(port).retry(RestartPolicy::default());
    /// assert!(retry.wait_blocking_deadline(std::time::Instant::now()).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn wait_blocking_deadline(self, deadline: Instant) -> R::Output {
        self.block(Some(deadline), false)
    }

    /// Waits in async code, but at most for `timeout`, measured by `clock`: all tries together.
    ///
    /// If the timeout expires before the next try, the result is the error of the last one.
    ///
    /// ```
    /// # use mainstay::supervise::RestartPolicy;
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<u16>("port")?;
    /// # pollster::block_on(async {
    /// let timeout = std::time::Duration::from_millis(1);
    /// let retry = registry.reload(port).retry(RestartPolicy::default());
    /// assert!(retry.timeout(timeout, registry.clock()).await.is_err());
    /// # });
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn timeout(mut self, timeout: Duration, clock: &dyn Clock) -> R::Output {
        let output = within(&mut self, timeout, clock).await;
        output.unwrap_or_else(|after| self.wait.condition().timed_out(after))
    }

    fn block(self, deadline: Option<Instant>, only_checks: bool) -> R::Output {
        let Self { mut wait, .. } = self;
        if !only_checks && polls_supervisor() {
            return wait.condition().must_await();
        }
        let (registry, start) = (wait.condition().0.registry().clone(), Instant::now());
        let ended = block_on_until(deadline, |wake_source| {
            let wait = &mut wait;
            async move { all_tries(wait, &registry, &wake_source).await }
        });
        ended.unwrap_or_else(|| wait.condition().timed_out(start.elapsed()))
    }
}

/// Waits for the end of the last try.
async fn all_tries<R: Retried>(
    wait: &mut Wait<ReloadHasEnded<R>>,
    registry: &Registry,
    wake_source: &WakeSource,
) -> R::Output {
    loop {
        let paused = poll_fn(|context| match Pin::new(&mut *wait).poll(context) {
            Poll::Ready(output) => Poll::Ready(Err(output)),
            Poll::Pending => wait
                .condition()
                .0
                .paused_until()
                .map_or(Poll::Pending, |until| Poll::Ready(Ok(until))),
        });
        let until = match paused.await {
            Ok(until) => until,
            Err(output) => return output,
        };
        let sleep = async {
            wake_source.sleep_until(registry.clock(), Some(until)).await;
            None
        };
        // Something else may end the reload in the pause.
        let ended = pin!(async { Some((&mut *wait).await) });
        if let Some(output) = or(ended, sleep).await {
            return output;
        }
        if let Some(output) = wait.condition_mut().0.resume() {
            return output;
        }
        wait.check_again();
    }
}

impl<R: Retried> Future for RetriedReload<R> {
    type Output = R::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<R::Output> {
        let Self { wait, sleep } = &mut *self;
        loop {
            if let Poll::Ready(output) = Pin::new(&mut *wait).poll(context) {
                *sleep = None;
                return Poll::Ready(output);
            }
            let Some(until) = wait.condition().0.paused_until() else {
                *sleep = None;
                return Poll::Pending;
            };
            let paused = sleep.get_or_insert_with(|| {
                let clock = wait.condition().0.registry().clock();
                ShieldedSleep::new(clock.sleep_until(until))
            });
            if Pin::new(paused).poll(context).is_pending() {
                return Poll::Pending;
            }
            *sleep = None;
            if let Some(output) = wait.condition_mut().0.resume() {
                return Poll::Ready(output);
            }
            wait.check_again();
        }
    }
}

impl<R: Retried> fmt::Debug for RetriedReload<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetriedReload").finish_non_exhaustive()
    }
}

impl<R: Retried> Wait<ReloadHasEnded<R>> {
    /// Tries the reload again after each refusal, with the backoff of a policy before each try.
    ///
    /// It ends as soon as a try succeeds, and with an error
    ///
    /// - if no retry would help: a member is a constant or provided by hand, a service would have a
    ///   gap that must not, a dependency would be reversed, or the registry is shutting down or
    ///   closed;
    /// - if a newer reload of the same root [supersedes](crate::error::ReloadError::Superseded) it:
    ///   what that one brings is newer;
    /// - if the timeout of the wait expires, which is for all tries together;
    /// - if the value of a [`Live::reload`](super::Live::reload) cannot be used again, because a
    ///   build still holds it when the next try would begin, or because its instance is down: the
    ///   value was meant for that one.
    ///
    /// Each refusal is reported by an event, and the root stays
    /// [stale](crate::supervise::Stale) until a try succeeds. Of the policy only the
    /// [backoff](RestartPolicy::backoff), its factor and its jitter are used, measured by the clock
    /// of the registry.
    ///
    /// ```
    /// use mainstay::{supervise::{Build, RestartPolicy}, test_kit::TestRuntime};
    /// use std::time::Duration;
    ///
    /// let mut runtime = TestRuntime::new(1)?;
    /// let pool = runtime.registry.register::<u8>("pool")?;
    /// let mut builds = 0;
    /// let run = runtime.registry.supervise(pool)?.run(async move |_: Build<u8>| {
    ///     builds += 1;
    ///     if builds == 2 { Err("connection refused") } else { Ok(builds) }
    /// });
    /// runtime.spawn(run);
    /// runtime.run_until_idle();
    /// let retry = runtime.registry.reload(pool).retry(RestartPolicy::default());
    /// runtime.spawn(async move { assert!(retry.await.is_ok()) });
    /// runtime.run_until_idle();
    /// assert!(runtime.registry.status(pool)?.supervisor.unwrap().stale.is_some());
    /// runtime.advance(Duration::from_secs(1));
    /// assert_eq!(*runtime.registry.get(pool)?, 3);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn retry(mut self, policy: RestartPolicy) -> RetriedReload<R> {
        self.condition_mut().0.retry = Some(Retry::new(policy));
        RetriedReload::new(self)
    }
}
