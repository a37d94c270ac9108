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
//! - A service with a running supervisor is *stopping*: the supervisor takes it down, calls the
//!   stop hook, and drains it. If it exceeds its limit, the shutdown reports a stop timeout, and
//!   treats the service as stopped (S6).
//! - A service without one is failed, and has stopped.
//!
//! At the end the registry is closed.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures_lite::future::{or, yield_now};

use crate::{
    clock::never,
    registry::{Registry, ShutdownReport},
    sync::block_until,
};

/// The future of [`Registry::shutdown`]. It borrows nothing.
#[must_use = "nothing happens until the future is polled"]
pub struct Shutdown(Pin<Box<dyn Future<Output = ShutdownReport> + Send>>);

impl Future for Shutdown {
    type Output = ShutdownReport;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<ShutdownReport> {
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
    /// service is taken down, so that no reader gets its instance any more; then its
    /// [stop hook](crate::supervise::Supervisor::on_stop) is called, and its readers are waited
    /// for. All its dependencies are up until this is done. A service without a running supervisor
    /// is failed. After its turn, a service is not built again; until then it fails, backs off and
    /// is built again as usual.
    ///
    /// A service that exceeds its own limit (see `on_stop`), or that has not stopped when `timeout`
    /// expires, is named in the [`ShutdownReport`]. The others do not wait for it.
    ///
    /// Times are those of the registry's clock. Nothing happens until the future is polled. If it
    /// is dropped before it completes, the registry stays open, and the services that have stopped
    /// stay down.
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
    /// let stop_hook = |name| {
    ///     let stopped = stopped.clone();
    ///     move |_| {
    ///         let _ = stopped.send(name);
    ///         async {} // finish accepted requests, flush, disconnect, ...
    ///     }
    /// };
    /// let limit = Duration::from_secs(5);
    /// let supervisor = registry.supervise(pool)?.on_stop(limit, stop_hook("pool"));
    /// tokio::spawn(supervisor.run(|_| async { Ok::<_, std::io::Error>(1) }));
    /// let supervisor = registry.supervise(server)?.on_stop(limit, stop_hook("server"));
    /// tokio::spawn(supervisor.run(move |build| async move {
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
    pub fn shutdown(&self, timeout: Duration) -> Shutdown {
        let registry = self.clone();
        Shutdown(Box::pin(async move {
            let supervisors = registry.supervisors();
            let (clock, plan) = (&supervisors.clock, &supervisors.plan);
            let end = clock.now().checked_add(timeout);
            registry.request_shutdown("shutdown");
            plan.begin();
            loop {
                // Before the plan is read, so that a change after that ends the wait below.
                let steps = supervisors.progress.steps();
                let now = clock.now();
                let can_continue = registry.advance_shutdown(now);
                if let Some(report) = plan.report().filter(|_| registry.is_closed()) {
                    return report;
                }
                // S6: also if the time is over, whatever the supervisors do.
                if end.is_some_and(|end| now >= end) {
                    return registry.end_shutdown_in_time();
                }
                if can_continue {
                    yield_now().await;
                    continue;
                }
                let wake_at = [plan.next_deadline(), end].into_iter().flatten().min();
                or(
                    supervisors.progress.after(steps),
                    wake_at.map_or_else(never, |wake_at| clock.sleep_until(wake_at)),
                )
                .await;
            }
        }))
    }

    /// Graceful shutdown that blocks this thread until it ends; as [`shutdown`](Self::shutdown).
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
    pub fn shutdown_blocking(&self, timeout: Duration) -> ShutdownReport {
        let mut shutdown = self.shutdown(timeout);
        match block_until(&mut shutdown, || None) {
            Some(report) => report,
            None => unreachable!("`block_until` without a deadline returns an output"),
        }
    }
}
