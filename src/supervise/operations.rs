//! Restarting, stopping and starting single services, with their hard dependents.
//!
//! The plan of the registry executes them (`registry/supervisors/plan.rs`).

use std::{
    convert::Infallible,
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures_lite::future::{or, yield_now};

use crate::{
    clock::{Clock, WakeSource, block_on_until, within},
    error::{ForeignIdError, MustAwaitError, StopError},
    numbers::ServiceIndex,
    provide::Running,
    registry::{Group, PlannedEnd, Registry, Request, StopReport, Ticket},
    service::AnyId,
    store::Store,
    sync::{lock, polls_supervisor},
    waiting::{
        Wait,
        sealed::{Condition, WaitSlots},
    },
};

type Stopped = Result<Arc<StopReport>, StopError>;

/// The wait of [`Registry::restart`], [`Registry::stop`] and [`Registry::stop_subtree`]: await it
/// on any executor, or block a thread. It borrows nothing.
///
/// The first poll begins the restart or the stop. If the wait is dropped after that, or a timeout
/// expires, the restart or the stop continues.
///
/// # Limits
///
/// While it waits, it also enforces the limits of all services of the registry that are stopping,
/// by the clock of the registry: one that does not stop within its limit is failed and named in the
/// [report](StopReport::stop_timeouts), and the others do not wait for it any longer. So these
/// limits are kept as long as any wait for a restart or a stop, or a
/// [shutdown](Registry::shutdown), is polled or blocks a thread. If the last one is dropped,
/// nothing enforces them until the next one begins: a service that never stops then keeps those
/// down that end together with it.
///
/// ```
/// use mainstay::supervise::StopWait;
///
/// # let registry = mainstay::Registry::with_capacity(1)?;
/// # let port = registry.register::<u16>("port")?;
/// let stop: StopWait = registry.stop(port);
/// let report = stop.wait_blocking()?;
/// assert!(report.stop_timeouts.is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "nothing happens until the wait is awaited or `wait_blocking` is called"]
pub struct StopWait {
    stopped: Wait<HasStopped>,
    /// Enforces the limits. `None` after the end: what is not polled must not be waited for.
    limits: Option<Pin<Box<dyn Future<Output = Infallible> + Send>>>,
}

impl StopWait {
    /// Blocks this thread until the services have stopped; as
    /// [`Wait::wait_blocking`](crate::wait::Wait::wait_blocking).
    ///
    /// If the clock of the registry is not [real](Clock::is_real), such as a virtual one, another
    /// thread must advance the time for the limits of the services to expire.
    ///
    /// In a poll of an async supervisor it begins nothing, and returns the error
    /// [`StopError::MustAwait`].
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<u16>("port")?;
    /// assert_eq!(registry.stop(port).wait_blocking()?.stopped[0].service, "port");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn wait_blocking(self) -> Stopped {
        self.block(None, false)
    }

    /// As [`wait_blocking`](Self::wait_blocking), but at most for `timeout`, which is measured by
    /// [`Instant::now`]. With a timeout of zero, it begins the restart or the stop, and blocks
    /// nothing: this is also permitted in a poll of an async supervisor.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<u16>("port")?;
    /// // Nothing is up, so it ends at once.
    /// assert!(registry.stop(port).wait_blocking_timeout(std::time::Duration::ZERO).is_ok());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn wait_blocking_timeout(self, timeout: Duration) -> Stopped {
        // A deadline that `Instant` cannot represent is never reached.
        self.block(Instant::now().checked_add(timeout), timeout.is_zero())
    }

    /// As [`wait_blocking`](Self::wait_blocking), but at most until `deadline`, which is a time of
    /// [`Instant::now`].
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<u16>("port")?;
    /// assert!(registry.stop(port).wait_blocking_deadline(std::time::Instant::now()).is_ok());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn wait_blocking_deadline(self, deadline: Instant) -> Stopped {
        self.block(Some(deadline), false)
    }

    /// Waits in async code, but at most for `timeout`, measured by `clock`.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<u16>("port")?;
    /// # pollster::block_on(async {
    /// let timeout = std::time::Duration::from_secs(5);
    /// assert!(registry.stop(port).timeout(timeout, registry.clock()).await.is_ok());
    /// # });
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn timeout(mut self, timeout: Duration, clock: &dyn Clock) -> Stopped {
        let stopped = within(&mut self, timeout, clock).await;
        stopped.unwrap_or_else(|after| self.stopped.condition().timed_out(after))
    }

    fn block(self, deadline: Option<Instant>, only_checks: bool) -> Stopped {
        let Self { mut stopped, limits } = self;
        drop(limits);
        let HasStopped { registry, id, .. } = stopped.condition();
        if !only_checks && polls_supervisor() {
            let root = registry.index(*id)?;
            return Err(MustAwaitError::new(registry.store().name(root)).into());
        }
        let (registry, start) = (registry.clone(), Instant::now());
        let ended = block_on_until(deadline, |wake_source| {
            or(&mut stopped, async { match registry.enforce_limits(wake_source).await {} })
        });
        ended.unwrap_or_else(|| stopped.condition().timed_out(start.elapsed()))
    }
}

impl Future for StopWait {
    type Output = Stopped;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Stopped> {
        let Self { stopped, limits } = &mut *self;
        let mut polled = Pin::new(&mut *stopped).poll(context);
        if let (Some(limits), true) = (&mut *limits, polled.is_pending()) {
            let _: Poll<Infallible> = limits.as_mut().poll(context);
            // A limit may have been the last thing to wait for.
            polled = Pin::new(stopped).poll(context);
        }
        if polled.is_ready() {
            *limits = None;
        }
        polled
    }
}

impl fmt::Debug for StopWait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StopWait").finish_non_exhaustive()
    }
}

/// A service has stopped, with its dependents. The first check begins the restart or the stop.
struct HasStopped {
    registry: Registry,
    id: AnyId,
    operation: Operation,
    /// Where the report will be. `None` before the first check.
    ticket: Option<Ticket>,
}

enum Operation {
    Restart { why: Arc<str> },
    RestartGroup { why: Arc<str>, group: Arc<Group> },
    Stop { subtree: bool },
}

impl HasStopped {
    fn is_constant(&self, service: ServiceIndex) -> bool {
        self.registry.store().service(service).role.is_constant()
    }

    /// Begins the restart or the stop. Returns `None` if a shutdown has begun.
    fn begin(&self, root: ServiceIndex) -> Option<Ticket> {
        let (registry, store) = (&self.registry, self.registry.store());
        let restart = |root, why: &Arc<str>| {
            let end = PlannedEnd::restart(store.name(root), Arc::clone(why));
            Request { root, end, subtree: false }
        };
        let requests = match &self.operation {
            Operation::Restart { why } => vec![restart(root, why)],
            &Operation::Stop { subtree } => {
                vec![Request { root, end: PlannedEnd::stop(store.name(root)), subtree }]
            }
            Operation::RestartGroup { why, group } => {
                group.forget();
                let roots = group.services.iter().filter(|&&root| !self.is_constant(root));
                roots.map(|&root| restart(root, why)).collect()
            }
        };
        let ticket = registry.supervisors().plan.begin(store, requests)?;
        registry.advance_all();
        Some(ticket)
    }
}

impl Condition for HasStopped {
    type Output = Stopped;

    fn check(&mut self) -> Option<Self::Output> {
        let root = match self.registry.index(self.id) {
            Ok(root) => root,
            Err(foreign) => return Some(Err(foreign.into())),
        };
        let service = || self.registry.store().name(root);
        if self.registry.is_closed() {
            return Some(Err(StopError::Closed { service: service() }));
        }
        if self.ticket.is_none() {
            let is_constant = match &self.operation {
                Operation::RestartGroup { group, .. } => {
                    group.services.iter().all(|&root| self.is_constant(root))
                }
                Operation::Restart { .. } | Operation::Stop { .. } => self.is_constant(root),
            };
            if is_constant {
                return Some(Err(StopError::Constant { service: service() }));
            }
            self.ticket = self.begin(root);
        }
        let report = self.ticket.as_ref().and_then(|ticket| lock(ticket).clone());
        if let Some(report) = report {
            return Some(Ok(report));
        }
        // The mark of a shutdown is set before the slot is woken.
        let is_final = || self.registry.store().service(root).end_mark.is_final();
        (self.ticket.is_none() || is_final())
            .then(|| Err(StopError::ShuttingDown { service: service() }))
    }

    fn slots(&self) -> WaitSlots {
        WaitSlots::of(self.id.index)
    }

    fn store(&self) -> &Store {
        self.registry.store()
    }

    fn timed_out(&self, after: Duration) -> Self::Output {
        let root = self.registry.index(self.id)?;
        let waiting_for = self.registry.stopping_with(root);
        Err(StopError::TimedOut { service: self.registry.store().name(root), after, waiting_for })
    }
}

/// Holds the turn of a service to stop; returned by [`Running::hold_turn`].
#[must_use = "the drop of the guard ends the turn"]
pub struct TurnGuard {
    registry: Registry,
    service: ServiceIndex,
}

impl Drop for TurnGuard {
    fn drop(&mut self) {
        self.registry.no_longer_hold(self.service);
    }
}

impl fmt::Debug for TurnGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let service = self.registry.store().name(self.service);
        f.debug_struct("TurnGuard").field("service", &service).finish_non_exhaustive()
    }
}

impl<T: Send + Sync + 'static> Running<T> {
    /// Holds the turn of this service to stop, in a [stop](Registry::stop), a
    /// [restart](Registry::restart) or a [shutdown](Registry::shutdown): its dependencies do not
    /// stop before all guards are dropped.
    ///
    /// For a provider that has something to do after its instance has
    /// [failed](Running::failed): it takes a guard after the publication, and drops it when its
    /// work is done. A supervised service needs no guard: its body and its close hook do this work.
    ///
    /// ```
    /// use std::{thread, time::Duration};
    ///
    /// let registry = mainstay::Registry::with_capacity(2)?;
    /// let pool = registry.register::<u8>("pool")?;
    /// let server = registry.register::<u8>("server")?;
    /// registry.depends(server).on(pool)?;
    /// let (provide_pool, provide_server) = (registry.provide(pool)?, registry.provide(server)?);
    /// let pool_is_up = provide_pool.begin().wait_blocking()?.ready(1)?;
    /// let server_is_up = provide_server.begin().wait_blocking()?.ready(2)?;
    ///
    /// let turn = server_is_up.hold_turn();
    /// let stop = registry.stop(pool).wait_blocking_timeout(Duration::ZERO);
    /// assert!(stop.is_err(), "the server is down, and its provider is still working");
    /// assert!(registry.get(server).is_err() && registry.get(pool).is_ok());
    /// drop(turn);
    /// assert!(registry.get(pool).is_err());
    /// # drop((pool_is_up, server_is_up));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn hold_turn(&self) -> TurnGuard {
        let (registry, service) = (self.registry.clone(), self.id.index());
        registry.supervisors().plan.hold(service);
        TurnGuard { registry, service }
    }
}

impl Registry {
    fn operate(&self, id: impl Into<AnyId>, operation: Operation) -> StopWait {
        let (id, registry) = (id.into(), self.clone());
        let limits = async move { registry.enforce_limits(WakeSource::Clock).await };
        let condition = HasStopped { registry: self.clone(), id, operation, ticket: None };
        StopWait { stopped: Wait::new(condition), limits: Some(Box::pin(limits)) }
    }

    /// Restarts all members of a group.
    pub(super) fn restart_group(&self, group: &Arc<Group>, why: Arc<str>) -> StopWait {
        let first = self.store().id(group.services[0]);
        self.operate(first, Operation::RestartGroup { why, group: Arc::clone(group) })
    }

    /// Enforces the limits of the services that are stopping (S6). Never completes.
    async fn enforce_limits(&self, wake_source: WakeSource) -> Infallible {
        let (plan, limits) = (&self.supervisors().plan, &self.supervisors().limits);
        loop {
            // Before the plan is read, so that an earlier limit ends the sleep below.
            let steps = limits.steps();
            if self.advance(self.clock().now()) {
                yield_now().await;
            } else {
                let slept = wake_source.sleep_until(self.clock(), plan.next_deadline());
                or(limits.after(steps), slept).await;
            }
        }
    }

    /// Restarts a service as planned: stops it with its hard dependents, and lets them begin again.
    ///
    /// Dependents stop first. A supervised service stops as in a [shutdown](Self::shutdown): its
    /// body is notified while the instance can be read; then the instance goes down, is drained and
    /// closed. All that it uses is up until this is done. Nothing is counted as a failure. The
    /// failures of the named service are forgotten, and a backoff or *given up* ends. A service
    /// that was [stopped](Self::stop) is started.
    ///
    /// Services with other edges to it stay up: a soft or a start-only dependent, or one with a
    /// grace period, which fails if the service is not ready again in time.
    ///
    /// The wait ends when all of them have stopped, and returns how: use
    /// [`wait_ready`](Self::wait_ready) to wait for the new instance. The restart begins at the
    /// first poll. If the wait is dropped after that, or its timeout expires, the restart
    /// continues; but the wait also [enforces the limits](StopWait#limits) of the services.
    ///
    /// A restart that overlaps another restart or a stop becomes one with it, and both return the
    /// same report. The last request for a service decides whether it begins again, as if one had
    /// followed the other: after a stop and a restart it does, after a restart and a stop it does
    /// not.
    ///
    /// A body or a builder of the service must not await it, because the restart waits for them.
    ///
    /// # Errors
    ///
    /// [`StopError`]: the registry is closed or shutting down, the timeout of the wait expired, the
    /// service is a [constant](Self::constant), the id belongs to another registry, or the wait
    /// would block a poll of an async supervisor.
    ///
    /// ```
    /// use mainstay::{Registry, supervise::{RestartPolicy, SupervisorState}};
    /// use std::{thread, time::Duration};
    ///
    /// let registry = Registry::with_capacity(1)?;
    /// let port = registry.register::<u16>("port")?;
    /// let policy = RestartPolicy::default().max_failures(0, Duration::from_secs(60));
    /// let supervisor = registry.supervise(port)?.restart_policy(policy);
    /// let mut builds = 0;
    /// thread::spawn(move || {
    ///     supervisor.run_blocking(move |_| {
    ///         builds += 1;
    ///         if builds > 1 { Ok(80) } else { Err("no port is free") }
    ///     })
    /// });
    /// while registry.status(port)?.supervisor.unwrap().state != SupervisorState::GivenUp {
    ///     thread::yield_now();
    /// }
    /// registry.restart(port, "a port is free now").wait_blocking()?;
    /// assert_eq!(**registry.wait_ready(port).wait_blocking()?, 80);
    /// # registry.close();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn restart(&self, id: impl Into<AnyId>, why: impl Into<Arc<str>>) -> StopWait {
        self.operate(id, Operation::Restart { why: why.into() })
    }

    /// Stops a service, with its hard dependents: the service stays down until it is
    /// [started](Self::start).
    ///
    /// As [`restart`](Self::restart), but the named service does not begin again. Its dependents
    /// begin, and then wait for it. A provider that is not a supervisor finds that its instance has
    /// [failed](Running::failed), and then waits in [`begin`](crate::Provider::begin).
    ///
    /// It also works for a service that has no provider yet. Stops do not nest: one
    /// [`start`](Self::start) is enough. A shutdown or a [close](Self::close) wins over a stop.
    ///
    /// # Errors
    ///
    /// As [`restart`](Self::restart).
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<u16>("port")?;
    /// # let supervisor = registry.supervise(port)?;
    /// # std::thread::spawn(|| supervisor.run_blocking(|_| 80));
    /// registry.wait_ready(port).wait_blocking()?;
    /// registry.stop(port).wait_blocking()?;
    /// assert!(registry.get(port).is_err());
    /// assert!(registry.start(port)?);
    /// registry.wait_ready(port).wait_blocking()?;
    /// # registry.close();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn stop(&self, id: impl Into<AnyId>) -> StopWait {
        self.operate(id, Operation::Stop { subtree: false })
    }

    /// Stops a service and all its hard dependents: each stays down until it is
    /// [started](Self::start) itself.
    ///
    /// As [`stop`](Self::stop).
    ///
    /// # Errors
    ///
    /// As [`restart`](Self::restart).
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(2)?;
    /// # let pool = registry.register::<u8>("pool")?;
    /// # let server = registry.register::<u8>("server")?;
    /// registry.depends(server).on(pool)?;
    /// registry.stop_subtree(pool).wait_blocking()?;
    /// assert!(registry.start(pool)? && registry.start(server)?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn stop_subtree(&self, id: impl Into<AnyId>) -> StopWait {
        self.operate(id, Operation::Stop { subtree: true })
    }

    /// Lets a [stopped](Self::stop) service begin again. Returns whether it was stopped.
    ///
    /// Starts no other service. If the service is still stopping, it begins again when it and the
    /// services that stop together with it have stopped. Its failures are forgotten. Blocking: it
    /// takes a lock for a short time. Does nothing after a
    /// shutdown has begun.
    ///
    /// # Errors
    ///
    /// [`ForeignIdError`]: the id belongs to another registry.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<u16>("port")?;
    /// registry.stop(port).wait_blocking()?;
    /// let provider = registry.provide(port)?;
    /// assert!(provider.begin().wait_blocking_timeout(std::time::Duration::ZERO).is_err());
    /// assert!(registry.start(port)?);
    /// assert!(provider.begin().wait_blocking_timeout(std::time::Duration::ZERO).is_ok());
    /// assert!(!registry.start(port)?, "it was started already");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn start(&self, id: impl Into<AnyId>) -> Result<bool, ForeignIdError> {
        let index = self.index(id.into())?;
        if self.is_closed() {
            return Ok(false);
        }
        let (was_stopped, wakes) = self.supervisors().plan.start(self.store(), index);
        if wakes {
            self.request_reset(index);
            self.store().wake(index);
            self.review_if_stuck(index);
        }
        Ok(was_stopped)
    }
}
