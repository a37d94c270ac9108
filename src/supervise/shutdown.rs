//! Graceful shutdown: dependents stop before their dependencies, as many at the same time as the
//! graph allows.
//!
//! The plan of the registry decides the order (`registry/supervisors/plan.rs`). Each thread that
//! ends a service continues the plan (`registry/supervisors/stopping.rs`), and so do the futures of
//! this file, which enforce the limits. Each supervisor stops its service where its user runs it.
//!
//! It is the turn of a service to stop when all its dependents have stopped (S4). From its turn on,
//! no attempt at the service begins, and:
//!
//! - A service with a running supervisor is *stopping*: the supervisor waits for its body, takes it
//!   down, drains it, and calls the close hook. If it exceeds its limit, the shutdown reports a
//!   stop timeout, and treats the service as stopped (S6).
//! - A service without one is failed, and has stopped.
//!
//! At the end the registry is closed.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures_lite::future::{or, yield_now};

use crate::{
    clock::{WakeSource, block_on},
    registry::{PlannedEnd, Registry, StopReport, Supervisors},
    sync::polls_supervisor,
};

/// How a shutdown is executed: its timeout, its notice, and its reason.
///
/// [`Registry::shutdown`] also accepts the timeout alone.
///
/// ```
/// use mainstay::supervise::ShutdownOptions;
/// use std::time::Duration;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let registry = mainstay::Registry::with_capacity(8)?;
/// let requested = registry.shutdown_requested();
/// tokio::spawn(async move {
///     let why = requested.await;
///     println!("{why}: health checks fail from now on, and requests are still served");
/// });
/// let options = ShutdownOptions::within(Duration::from_secs(30))
///     .notice(Duration::from_millis(5))
///     .reason("SIGTERM");
/// println!("{}", registry.shutdown(options).await);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct ShutdownOptions {
    timeout: Duration,
    notice: Duration,
    reason: Arc<str>,
}

impl ShutdownOptions {
    /// A shutdown that ends within this time, which includes the notice.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// use mainstay::supervise::ShutdownOptions;
    /// let options = ShutdownOptions::within(std::time::Duration::from_secs(30));
    /// assert!(registry.shutdown_blocking(options).stop_timeouts.is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn within(timeout: Duration) -> Self {
        Self { timeout, notice: Duration::ZERO, reason: Arc::from("shutdown") }
    }

    /// Sets the time in which the shutdown is [requested](Registry::shutdown_requested) and nothing
    /// stops yet: a load balancer can send new requests elsewhere, and this server still answers
    /// those that arrive. The default is none.
    ///
    /// A second shutdown without a notice ends the notice of the first one.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # use mainstay::supervise::ShutdownOptions;
    /// # use std::time::Duration;
    /// let options = ShutdownOptions::within(Duration::from_secs(30));
    /// registry.shutdown_blocking(options.notice(Duration::from_millis(5)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn notice(mut self, notice: Duration) -> Self {
        self.notice = notice;
        self
    }

    /// Sets the reason of the request, if there was no
    /// [earlier request](Registry::request_shutdown). The default is "shutdown".
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # use mainstay::supervise::ShutdownOptions;
    /// # use std::time::Duration;
    /// let options = ShutdownOptions::within(Duration::from_secs(30)).reason("SIGTERM");
    /// registry.shutdown_blocking(options);
    /// assert_eq!(registry.shutdown_reason().as_deref(), Some("SIGTERM"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn reason(mut self, why: impl Into<Arc<str>>) -> Self {
        self.reason = why.into();
        self
    }
}

impl From<Duration> for ShutdownOptions {
    fn from(timeout: Duration) -> Self {
        Self::within(timeout)
    }
}

/// Shuts the registry down when it is dropped; returned by [`Registry::shutdown_on_drop`].
#[must_use = "the drop of the guard shuts the registry down"]
#[derive(Debug)]
pub struct ShutdownGuard {
    registry: Registry,
    options: ShutdownOptions,
}

impl Drop for ShutdownGuard {
    fn drop(&mut self) {
        if !self.registry.is_closed() {
            self.registry.shutdown_blocking(self.options.clone());
        }
    }
}

/// The future of [`Registry::shutdown`]. It borrows nothing.
#[must_use = "nothing happens until the future is polled"]
pub struct Shutdown(Pin<Box<dyn Future<Output = StopReport> + Send>>);

impl Future for Shutdown {
    type Output = StopReport;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<StopReport> {
        self.0.as_mut().poll(context)
    }
}

impl fmt::Debug for Shutdown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shutdown").finish_non_exhaustive()
    }
}

impl Registry {
    /// Graceful shutdown: stops all services, dependents first, and closes the registry.
    ///
    /// It is the turn of a service to stop when all its dependents have stopped. A supervised
    /// service notifies its body, and is taken down when the body has returned, so that no reader
    /// gets its instance any more. Then its readers are waited for, and its
    /// [close hook](crate::supervise::Supervisor::on_close) is called. All its dependencies are up
    /// until this is done. A service without a running supervisor
    /// is failed. After its turn, a service is not built again; until then it fails, backs off and
    /// is built again as usual.
    ///
    /// A service that exceeds its own limit (the sum of those of its
    /// [`RestartPolicy`](crate::supervise::RestartPolicy)), or that has not stopped when the
    /// timeout expires, is named in the [`StopReport`]. The others do not wait for it. When the
    /// shutdown has ended, all supervisors end at once; their close hooks are dropped.
    ///
    /// A wait for a service that has stopped ends with an error that says so.
    ///
    /// `options` is the timeout, or [`ShutdownOptions`]: for example, a time in which tasks can
    /// prepare for the end, and nothing stops yet. Times are those of the registry's clock.
    ///
    /// Nothing happens until the future is polled. The registry owns the plan of the shutdown: if
    /// the future is dropped, the services continue to stop in order, each within its own limit,
    /// and the registry is closed after the last one. A second shutdown joins the first one, and
    /// returns the same report; the first timeout of them ends the shutdown.
    /// [`close`](Self::close) ends it at once.
    ///
    /// If the registry is closed already, it waits for nothing, and names what is up: also a
    /// service whose supervisor ends when it is polled next, because it has not been polled since
    /// the close. To get a report without these, wait for the supervisors before, as a
    /// [`Program`](crate::program::Program) does.
    ///
    /// The future does a limited piece of work in each poll, so a shutdown of many services keeps
    /// its limit, and lets other tasks run. Only its end is one piece: it fails what is left, and
    /// closes the registry. A supervisor that ends continues the plan on its own
    /// thread, so a service without a supervisor may be failed there.
    ///
    /// ```
    /// use mainstay::Registry;
    /// use std::{sync::mpsc, time::Duration};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let registry = Registry::with_capacity(2)?;
    /// let pool = registry.register::<u8>("pool")?;
    /// let server = registry.register::<u8>("server")?;
    /// let (stopped, order) = mpsc::channel();
    ///
    /// let closed = stopped.clone();
    /// let supervisor = registry.supervise(pool)?.on_close(async move |_| {
    ///     let _ = closed.send("pool"); // flush, disconnect, ...
    /// });
    /// tokio::spawn(supervisor.run(|_| async { Ok::<_, std::io::Error>(1) }));
    /// let supervisor = registry.supervise(server)?.on_close(async move |_| {
    ///     let _ = stopped.send("server");
    /// });
    /// tokio::spawn(supervisor.run(async move |build| {
    ///     build.wait_for(pool).await.map(|pool| **pool)
    /// }));
    ///
    /// registry.wait_ready(server).await?;
    /// assert!(registry.shutdown(Duration::from_secs(30)).await.stop_timeouts.is_empty());
    /// assert_eq!(order.try_iter().collect::<Vec<_>>(), ["server", "pool"]);
    /// assert!(registry.is_closed());
    /// # Ok(())
    /// # }
    /// ```
    pub fn shutdown(&self, options: impl Into<ShutdownOptions>) -> Shutdown {
        let (registry, options) = (self.clone(), options.into());
        Shutdown(Box::pin(async move { registry.run_shutdown(options, WakeSource::Clock).await }))
    }

    async fn run_shutdown(&self, options: ShutdownOptions, wake_source: WakeSource) -> StopReport {
        let ShutdownOptions { timeout, notice, reason } = options;
        let supervisors = self.supervisors();
        let (clock, plan, progress) =
            (&supervisors.clock, &supervisors.plan, &supervisors.progress);
        let start = clock.now();
        let end = start.checked_add(timeout);
        self.request_shutdown(reason);
        let notice_end = [start.checked_add(notice), end].into_iter().flatten().min();
        loop {
            // Before the plan is read, so that a change after that ends the wait below.
            let steps = progress.steps();
            let is_over = notice_end.is_some_and(|notice_end| clock.now() >= notice_end);
            if is_over || plan.has_shutdown_begun() || self.is_closed() {
                break;
            }
            self.sleep_or_progress(&wake_source, steps, notice_end).await;
        }
        if plan.begin_shutdown(self.store(), PlannedEnd::shutdown()) {
            // Another shutdown may still give notice.
            progress.step();
        }
        loop {
            let steps = progress.steps();
            let now = clock.now();
            let can_continue = self.advance(now);
            if let Some(report) = plan.report().filter(|_| self.is_closed()) {
                return report;
            }
            // S6: also if the time is over, whatever the supervisors do.
            if end.is_some_and(|end| now >= end) {
                return self.end_shutdown_in_time();
            }
            if can_continue {
                yield_now().await;
            } else {
                let wake_at = [plan.next_deadline(), end].into_iter().flatten().min();
                self.sleep_or_progress(&wake_source, steps, wake_at).await;
            }
        }
    }

    /// Waits until the number of steps is no longer `steps`, or until the deadline.
    async fn sleep_or_progress(
        &self,
        wake_source: &WakeSource,
        steps: u64,
        deadline: Option<Instant>,
    ) {
        let slept = wake_source.sleep_until(self.clock(), deadline);
        or(self.supervisors().progress.after(steps), slept).await;
    }

    /// Graceful shutdown that blocks this thread until it ends; as [`shutdown`](Self::shutdown).
    ///
    /// It works on any thread, and needs no runtime. Times are those of the registry's clock: if
    /// it is [real](crate::supervise::Clock::is_real), this thread parks until the next limit, and
    /// uses no timer. If not, such as with a virtual clock, another thread must advance the time.
    ///
    /// # In a poll of an async supervisor
    ///
    /// There it does not block, because the shutdown would wait for this very supervisor. It begins
    /// the shutdown and returns at once, as if the future of `shutdown` was polled and then
    /// dropped: the services stop in order, and the last one closes the registry, but nothing
    /// enforces the timeout or the limits of the services. With a
    /// [notice](ShutdownOptions::notice) it only records the request. The report names all services
    /// that have not stopped yet as [`stop_timeouts`](StopReport::stop_timeouts). Await
    /// [`shutdown`](Self::shutdown) in place of this, in a task that is no supervisor; or call
    /// [`request_shutdown`](Self::request_shutdown), for which the owner of the registry waits.
    ///
    /// ```
    /// let registry = mainstay::Registry::with_capacity(1)?;
    /// let port = registry.register::<u16>("port")?;
    /// let supervisor = registry.supervise(port)?;
    /// let thread = std::thread::spawn(|| supervisor.run_blocking(|_| "80".parse::<u16>()));
    /// registry.wait_ready(port).wait_blocking()?;
    /// let report = registry.shutdown_blocking(std::time::Duration::from_secs(30));
    /// assert!(report.stop_timeouts.is_empty());
    /// thread.join().unwrap();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn shutdown_blocking(&self, options: impl Into<ShutdownOptions>) -> StopReport {
        let options = options.into();
        if polls_supervisor() {
            return self.begin_shutdown(options);
        }
        block_on(|wake_source| self.run_shutdown(options, wake_source))
    }

    /// Begins a shutdown that has no notice, and requests one that has. Returns what has stopped so
    /// far, and what has not.
    fn begin_shutdown(&self, options: ShutdownOptions) -> StopReport {
        let ShutdownOptions { notice, reason, .. } = options;
        let Supervisors { plan, progress, .. } = self.supervisors();
        self.request_shutdown(reason);
        if notice.is_zero() && plan.begin_shutdown(self.store(), PlannedEnd::shutdown()) {
            // Another shutdown may still give notice.
            progress.step();
            self.advance_all();
        }
        self.report_so_far()
    }

    /// Returns a guard that shuts the registry down when it is dropped, and blocks the thread until
    /// then: for a `main` that ends early, by `?` or by a panic. If the registry was closed before,
    /// the drop does nothing.
    ///
    /// The drop blocks at most for the timeout. The supervisors must run elsewhere: on threads, or
    /// on an executor that this thread does not run. In a poll of an async supervisor, the drop
    /// [does not block](Self::shutdown_blocking).
    ///
    /// ```
    /// use std::{error::Error, thread, time::Duration};
    ///
    /// fn serve(registry: &mainstay::Registry) -> Result<(), Box<dyn Error>> {
    ///     let _guard = registry.shutdown_on_drop(Duration::from_secs(30));
    ///     let port = registry.register::<u16>("port")?;
    ///     let supervisor = registry.supervise(port)?;
    ///     thread::spawn(|| supervisor.run_blocking(|_| "80".parse::<u16>()));
    ///     registry.wait_ready(port).wait_blocking()?;
    ///     Err("no configuration")?; // the services stop here, dependents first
    ///     Ok(())
    /// }
    ///
    /// let registry = mainstay::Registry::with_capacity(1)?;
    /// assert!(serve(&registry).is_err());
    /// assert!(registry.is_closed());
    /// # Ok::<(), Box<dyn Error>>(())
    /// ```
    pub fn shutdown_on_drop(&self, options: impl Into<ShutdownOptions>) -> ShutdownGuard {
        ShutdownGuard { registry: self.clone(), options: options.into() }
    }
}
