//! What tasks of the user can wait for: that a shutdown is requested, and that the registry is
//! closed.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use super::Progress;
use crate::{
    clock::{Clock, block_on_until, within},
    error::{MustAwaitError, SignalError},
    registry::Registry,
    sync::{Mutex, lock, polls_supervisor},
};

#[derive(Default)]
pub(crate) struct Signals {
    state: Mutex<State>,
    /// Counts a step after each change of the state.
    changed: Progress,
}

#[derive(Default)]
struct State {
    /// The reason of the first request.
    requested: Option<Arc<str>>,
    closed: bool,
}

impl Signals {
    /// Records that a shutdown is requested. Returns whether it is the first request.
    fn request(&self, why: Arc<str>) -> bool {
        let mut state = lock(&self.state);
        let is_first = state.requested.is_none();
        if is_first {
            state.requested = Some(why);
        }
        drop(state);
        if is_first {
            self.changed.step();
        }
        is_first
    }

    /// Records that the registry is closed, which ends all waits.
    pub(in crate::registry) fn close(&self) {
        lock(&self.state).closed = true;
        self.changed.step();
    }

    fn requested(&self) -> Option<Arc<str>> {
        let state = lock(&self.state);
        let closed = || state.closed.then(|| Arc::from("the registry is closed"));
        state.requested.clone().or_else(closed)
    }

    /// Waits until `check` returns an output.
    async fn wait<R>(&self, check: impl Fn(&Self) -> Option<R>) -> R {
        loop {
            let steps = self.changed.steps();
            if let Some(output) = check(self) {
                return output;
            }
            self.changed.after(steps).await;
        }
    }
}

/// The wait of [`Registry::shutdown_requested`] and [`Registry::closed`]: await it on any executor,
/// or block a thread. It is cancel-safe, and borrows nothing.
///
/// ```
/// use mainstay::supervise::SignalWait;
///
/// # let registry = mainstay::Registry::with_capacity(1)?;
/// let closed: SignalWait<()> = registry.closed();
/// registry.close();
/// closed.wait_blocking()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "a wait does nothing unless it is awaited or `wait_blocking` is called"]
pub struct SignalWait<R>(Pin<Box<dyn Future<Output = R> + Send>>);

impl<R: 'static> SignalWait<R> {
    fn new(registry: Registry, check: impl Fn(&Signals) -> Option<R> + Send + 'static) -> Self {
        Self(Box::pin(async move { registry.supervisors().signals.wait(check).await }))
    }

    /// Blocks this thread until the wait ends.
    ///
    /// # Errors
    ///
    /// [`SignalError::MustAwait`]: this is a poll of an async supervisor, which must not block.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// let requested = registry.shutdown_requested();
    /// std::thread::spawn(move || registry.request_shutdown("SIGTERM"));
    /// assert_eq!(&*requested.wait_blocking()?, "SIGTERM");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn wait_blocking(self) -> Result<R, SignalError> {
        self.block(None, false)
    }

    /// Blocks this thread until the wait ends, but at most for `timeout`, which is measured by
    /// [`Instant::now`]. With a timeout of zero it only checks, which is permitted everywhere.
    ///
    /// # Errors
    ///
    /// [`SignalError`]: the timeout expired, or as [`wait_blocking`](Self::wait_blocking).
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// let timeout = std::time::Duration::from_millis(1);
    /// assert!(registry.shutdown_requested().wait_blocking_timeout(timeout).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn wait_blocking_timeout(self, timeout: Duration) -> Result<R, SignalError> {
        // A deadline that `Instant` cannot represent is never reached.
        self.block(Instant::now().checked_add(timeout), timeout.is_zero())
    }

    /// Blocks this thread until the wait ends, but at most until `deadline`, which is a time of
    /// [`Instant::now`]. With a deadline in the past, it only checks.
    ///
    /// # Errors
    ///
    /// [`SignalError`]: the deadline has passed, or as [`wait_blocking`](Self::wait_blocking).
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// let now = std::time::Instant::now();
    /// assert!(registry.shutdown_requested().wait_blocking_deadline(now).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn wait_blocking_deadline(self, deadline: Instant) -> Result<R, SignalError> {
        self.block(Some(deadline), false)
    }

    /// Waits in async code, but at most for `timeout`, measured by `clock`.
    ///
    /// # Errors
    ///
    /// [`SignalError::TimedOut`].
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # pollster::block_on(async {
    /// let timeout = std::time::Duration::from_millis(1);
    /// assert!(registry.closed().timeout(timeout, registry.clock()).await.is_err());
    /// # });
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn timeout(mut self, timeout: Duration, clock: &dyn Clock) -> Result<R, SignalError> {
        let output = within(&mut self, timeout, clock).await;
        output.map_err(|after| SignalError::TimedOut { after })
    }

    fn block(self, deadline: Option<Instant>, only_checks: bool) -> Result<R, SignalError> {
        if !only_checks && polls_supervisor() {
            return Err(MustAwaitError::of_registry().into());
        }
        let start = Instant::now();
        // It sleeps by no clock.
        let output = block_on_until(deadline, |_| self);
        output.ok_or_else(|| SignalError::TimedOut { after: start.elapsed() })
    }
}

impl<R> Future for SignalWait<R> {
    type Output = R;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<R> {
        self.0.as_mut().poll(context)
    }
}

impl<R> fmt::Debug for SignalWait<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignalWait").finish_non_exhaustive()
    }
}

impl Registry {
    /// Records the wish that the registry is shut down, and wakes the tasks that wait for it
    /// ([`shutdown_requested`](Self::shutdown_requested)). Returns whether this is the first
    /// request: its reason is the one that they get.
    ///
    /// Nothing else happens: the owner of the registry waits for the request, and then calls
    /// [`shutdown`](Self::shutdown). So any service can ask for the end of the program, for example
    /// after an error that it cannot recover from. A shutdown records a request itself.
    ///
    /// Blocking: it takes a lock for a short time.
    ///
    /// ```
    /// use std::{thread, time::Duration};
    ///
    /// let registry = mainstay::Registry::with_capacity(1)?;
    /// thread::spawn({
    ///     let registry = registry.clone();
    ///     move || registry.request_shutdown("the licence has expired")
    /// });
    /// let why = registry.shutdown_requested().wait_blocking()?;
    /// assert_eq!(&*why, "the licence has expired");
    /// assert!(!registry.request_shutdown("SIGTERM"), "the first reason counts");
    /// assert!(!registry.is_closed());
    /// registry.shutdown_blocking(Duration::from_secs(30));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn request_shutdown(&self, why: impl Into<Arc<str>>) -> bool {
        self.supervisors().signals.request(why.into())
    }

    /// Waits until a shutdown is [requested](Self::request_shutdown) or begins, and returns the
    /// reason. The close of the registry ends the wait, too.
    ///
    /// The wait is cancel-safe, and borrows nothing.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// let requested = registry.shutdown_requested();
    /// registry.request_shutdown("SIGTERM");
    /// assert_eq!(&*pollster::block_on(requested), "SIGTERM");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn shutdown_requested(&self) -> SignalWait<Arc<str>> {
        SignalWait::new(self.clone(), Signals::requested)
    }

    /// Returns the reason, if a shutdown is [requested](Self::request_shutdown) or has begun, or
    /// the registry is closed: for example, to tell a load balancer that this server is about to
    /// end.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// let is_healthy = || registry.shutdown_reason().is_none();
    /// assert!(is_healthy());
    /// registry.request_shutdown("SIGTERM");
    /// assert!(!is_healthy());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn shutdown_reason(&self) -> Option<Arc<str>> {
        self.supervisors().signals.requested()
    }

    /// Waits until the registry is closed: by [`close`](Self::close), or at the end of a shutdown.
    ///
    /// The wait is cancel-safe, and borrows nothing.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// let closed = registry.closed();
    /// registry.close();
    /// pollster::block_on(closed);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn closed(&self) -> SignalWait<()> {
        let is_closed = |signals: &Signals| lock(&signals.state).closed.then_some(());
        SignalWait::new(self.clone(), is_closed)
    }
}
