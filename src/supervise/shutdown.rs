//! Graceful shutdown: dependents stop before their dependencies, as many at the same time as the
//! graph allows.
//!
//! The future of `shutdown` decides the order; each supervisor stops its service where its user
//! runs it. It is the turn of a service to stop when all its dependents have stopped (S4). From its
//! turn on, no attempt at the service begins, and:
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
    mem,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_lite::future::or;

use super::SupervisorState;
use crate::{
    clock::never,
    failure::Reason,
    numbers::ServiceIndex,
    registry::{Control, Registry},
    service::ServiceName,
    store::{Edge, Phase, Target},
    sync::{Shielded, block_until},
};

/// The result of a graceful shutdown; returned by [`Registry::shutdown`].
///
/// Its `Display` is one line for a log.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let registry = mainstay::Registry::with_capacity(1)?;
/// let report = registry.shutdown(std::time::Duration::from_secs(1)).await;
/// assert!(report.stop_timeouts.is_empty());
/// assert_eq!(report.to_string(), "all services have stopped");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// The services that did not stop in time, in the order in which their limits expired.
    pub stop_timeouts: Vec<StopTimeout>,
}

/// A service that did not stop in time.
///
/// ```
/// use mainstay::{Registry, supervise::SupervisorState};
/// use std::{thread, time::Duration};
///
/// let registry = Registry::with_capacity(1)?;
/// let port = registry.register::<u16>("port")?;
/// let supervisor = registry.supervise(port)?;
/// thread::spawn(|| supervisor.run_blocking(|_| Ok::<_, std::io::Error>(80)));
/// registry.wait_ready(port).wait_blocking()?;
/// let request = registry.get(port)?; // a reader that keeps the instance
/// let report = registry.shutdown_blocking(Duration::from_millis(50));
/// assert_eq!(report.stop_timeouts[0].service, "port");
/// assert_eq!(report.stop_timeouts[0].state, SupervisorState::Stopping);
/// assert_eq!(report.to_string(), "not stopped in time: port (stopping)");
/// # drop(request);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StopTimeout {
    /// The name of the service.
    pub service: ServiceName,
    /// The state of its supervisor when the limit expired.
    ///
    /// - [`SupervisorState::Stopping`]: the stop hook or the readers of the instance took too long,
    ///   or the supervisor was dropped while it stopped the service.
    /// - [`SupervisorState::NotRunning`]: the service has no running supervisor, and the shutdown
    ///   ended before its turn to stop.
    /// - Any other state: the supervisor did not react, because its future is not polled or its
    ///   blocking builder does not return; or the shutdown ended before the service's turn to stop.
    pub state: SupervisorState,
}

impl fmt::Display for ShutdownReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.stop_timeouts.is_empty() {
            return f.write_str("all services have stopped");
        }
        f.write_str("not stopped in time: ")?;
        for (i, StopTimeout { service, state }) in self.stop_timeouts.iter().enumerate() {
            write!(f, "{}{service} ({state})", if i == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

/// The progress of one service in a shutdown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StopPhase {
    /// A dependent has not stopped, so it is not the turn of the service.
    Waiting,
    /// Its supervisor is stopping it.
    Stopping,
    /// It has stopped, or its stop timeout was reported.
    Stopped,
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
    pub fn shutdown(
        &self,
        timeout: Duration,
    ) -> impl Future<Output = ShutdownReport> + Send + use<> {
        let registry = self.clone();
        async move {
            let (clock, progress) =
                (&registry.supervisors().clock, &registry.supervisors().progress);
            let end = clock.now().checked_add(timeout);
            let mut run = ShutdownRun::new(&registry);
            loop {
                // Before the states are read, so that a supervisor that ends after `run.step` has
                // read its state ends the wait below.
                let steps = progress.steps();
                let now = clock.now();
                let next_limit = run.step(now);
                // S6: also if the time is over, whatever the supervisors do.
                if run.all_stopped() || end.is_some_and(|end| now >= end) {
                    break;
                }
                let wake_at = [next_limit, end].into_iter().flatten().min();
                or(
                    progress.after(steps),
                    wake_at.map_or_else(never, |wake_at| clock.sleep_until(wake_at)),
                )
                .await;
            }
            let stop_timeouts = run.finish();
            // Last: `close` ends the waits of supervisors that did not stop.
            registry.close();
            ShutdownReport { stop_timeouts }
        }
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
        let mut shutdown = Box::pin(self.shutdown(timeout));
        match block_until(&mut shutdown, || None) {
            Some(report) => report,
            None => unreachable!("`block_until` without a deadline returns an output"),
        }
    }
}

/// A shutdown in progress.
struct ShutdownRun<'a> {
    registry: &'a Registry,
    /// The phase of each service, by index.
    phases: Vec<StopPhase>,
    /// The services in the phase `Stopping`.
    stopping: Vec<Stopping>,
    /// The number of services in the phase `Stopped`.
    stopped: usize,
    stop_timeouts: Vec<StopTimeout>,
}

/// A service whose supervisor was asked to stop it.
struct Stopping {
    service: ServiceIndex,
    control: Arc<Control>,
    /// When its limit expires.
    deadline: Option<Instant>,
}

impl<'a> ShutdownRun<'a> {
    fn new(registry: &'a Registry) -> Self {
        Self {
            registry,
            phases: Vec::new(),
            stopping: Vec::new(),
            stopped: 0,
            stop_timeouts: Vec::new(),
        }
    }

    /// Checks the services that are stopping, and stops those whose turn it now is. Returns the
    /// time at which the next limit expires.
    fn step(&mut self, now: Instant) -> Option<Instant> {
        // Services may have been registered since the last step.
        self.phases.resize(self.registry.store().len() as usize, StopPhase::Waiting);
        // The services whose turn may have come, because one of their dependents has stopped.
        let mut candidates = Vec::new();
        for stopping in mem::take(&mut self.stopping) {
            if self.is_still_stopping(&stopping, now) {
                self.stopping.push(stopping);
            } else {
                self.mark_stopped(stopping.service, &mut candidates);
            }
        }
        self.stop_eligible(candidates, now);
        // No service is stopping, but some have not stopped: this is the first step, or the removal
        // of an edge has made a service eligible, which nothing reports. As the graph is acyclic,
        // at least one service is eligible.
        if self.stopping.is_empty() && !self.all_stopped() {
            let all = ServiceIndex::range(0..self.phases.len() as u32);
            self.stop_eligible(all.collect(), now);
        }
        self.stopping.iter().filter_map(|stopping| stopping.deadline).min()
    }

    /// Stops each of the candidates whose turn it is, and each service whose turn comes by this.
    fn stop_eligible(&mut self, mut candidates: Vec<ServiceIndex>, now: Instant) {
        while let Some(service) = candidates.pop() {
            // A service may be a candidate several times, once for each of its dependents.
            if self.phases[service.as_usize()] != StopPhase::Waiting || !self.is_eligible(service) {
                continue;
            }
            self.phases[service.as_usize()] = StopPhase::Stopping;
            // S4, in this order: mark the service, wake its slot, inspect the slot. An attempt that
            // begins at the same time sees the mark and ends (`end_if_stopped` in
            // `provide/provider.rs`), or has begun before the wake-up, and is seen and failed
            // below.
            self.registry.store().service(service).stopped.set();
            let control = self.registry.supervisors().control(service);
            let supervisor = control.and_then(|control| Some((control.request_stop()?, control)));
            // Also wakes the supervisor, which then finds the request.
            self.registry.store().wake(service);
            match supervisor {
                Some((limit, control)) => {
                    // The supervisor drops an async build itself, but a blocking builder notices
                    // the shutdown only if its attempt is invalidated. S5: an instance is left for
                    // the supervisor, which needs it for the stop hook.
                    if self.phase(service) == Phase::Starting {
                        self.fail(service);
                    }
                    let deadline = now.checked_add(limit);
                    self.stopping.push(Stopping { service, control, deadline });
                }
                // Nothing would stop it but this shutdown: it has no supervisor, or one that is not
                // running.
                None => {
                    self.fail(service);
                    self.mark_stopped(service, &mut candidates);
                }
            }
        }
    }

    fn all_stopped(&self) -> bool {
        self.stopped == self.phases.len()
    }

    /// Returns whether it is the turn of the service: all its dependents have stopped. Edges of all
    /// kinds count.
    fn is_eligible(&self, service: ServiceIndex) -> bool {
        // A dependent that was registered after `step` began has no phase yet: it has not stopped.
        let has_stopped =
            |edge: Edge| self.phases.get(edge.dependent.as_usize()) == Some(&StopPhase::Stopped);
        self.registry.store().dependents(service).into_iter().all(has_stopped)
    }

    /// Returns whether the shutdown must still wait for the service. If its limit has expired,
    /// reports the stop timeout, and returns `false` (S6).
    fn is_still_stopping(&mut self, stopping: &Stopping, now: Instant) -> bool {
        if stopping.control.state() == SupervisorState::Stopped {
            return false;
        }
        let expired = stopping.deadline.is_some_and(|deadline| now >= deadline);
        if expired {
            self.report_timeout(stopping.service, stopping.control.state());
        }
        !expired
    }

    /// Marks a service as stopped. Its dependencies become candidates.
    fn mark_stopped(&mut self, service: ServiceIndex, candidates: &mut Vec<ServiceIndex>) {
        self.phases[service.as_usize()] = StopPhase::Stopped;
        self.stopped += 1;
        let dependencies = self.registry.store().dependencies(service);
        candidates.extend(dependencies.into_iter().map(|(edge, _)| edge.dependency));
    }

    /// Adds a service to the report, and fails it: its dependencies stop next, so that it must not
    /// be read any more.
    fn report_timeout(&mut self, service: ServiceIndex, state: SupervisorState) {
        self.stop_timeouts
            .push(StopTimeout { service: self.registry.store().name(service), state });
        self.fail(service);
    }

    fn phase(&self, service: ServiceIndex) -> Phase {
        self.registry.store().slot(service).state.load().phase()
    }

    fn fail(&self, service: ServiceIndex) {
        let _ = self.registry.cascade(service, Target::Any, Shielded::new(Reason::ShutDown));
    }

    /// Ends the shutdown: reports and fails all services that have not stopped. Returns all stop
    /// timeouts.
    fn finish(mut self) -> Vec<StopTimeout> {
        for stopping in mem::take(&mut self.stopping) {
            self.report_timeout(stopping.service, stopping.control.state());
        }
        for service in ServiceIndex::range(0..self.phases.len() as u32) {
            let is_waiting = self.phases[service.as_usize()] == StopPhase::Waiting;
            // A service whose turn did not come, but which is down, has nothing to stop.
            if is_waiting && self.phase(service) != Phase::Down {
                let control = self.registry.supervisors().control(service);
                self.report_timeout(
                    service,
                    control.map_or(SupervisorState::NotRunning, |control| control.state()),
                );
            }
        }
        self.stop_timeouts
    }
}
