//! `Program`: its options, and its steps.

use std::{
    error::Error,
    fmt,
    future::{Future, pending, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use super::{
    EndCause, ProgramOutcome, ProgramStart, SupervisorEnd, SupervisorReport, Task,
    ends::Ends,
    start::{Spawner, spawn_on_thread},
};
use crate::{
    clock::{block_on, block_on_until, within},
    error::{AllReadyError, chain},
    registry::Registry,
    supervise::{ShutdownOptions, StopReport, panic_message},
    sync::Shielded,
};

/// The default of [`Program::shutdown`]: the grace period of a pod in Kubernetes.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(30);
/// The default of [`Program::join_timeout`].
const JOIN_TIMEOUT: Duration = Duration::from_secs(1);

/// Something that ends the program.
type Condition = Pin<Box<dyn Future<Output = EndCause> + Send>>;

/// A program: starts its supervisors, waits until it must end, shuts down, and joins them.
///
/// The constructor says on which executor the supervisors run: [`on_threads`](Self::on_threads),
/// `on_tokio`, `on_smol`, or [`with_spawner`](Self::with_spawner) for any other one.
/// The [module](crate::program) has an example of a `main`.
///
/// ```
/// use mainstay::program::Program;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let registry = mainstay::Registry::with_capacity(1)?;
/// let port = registry.register::<u16>("port")?;
///
/// let ready = registry.wait_ready(port);
/// let program = Program::with_spawner(&registry, |task| drop(tokio::spawn(task)))
///     .stop_when(async { ready.await.map_or("not ready", |_| "ready") }); // usually a signal
/// let supervisor = registry.supervise(port)?;
/// let outcome = program.run(|start| start.spawn(supervisor, |it| it.run(async |_| 80))).await;
/// assert_eq!(outcome.to_string(), "ready; 1 service stopped in time");
/// # Ok(())
/// # }
/// ```
#[must_use = "a program does nothing until it is run"]
pub struct Program {
    registry: Registry,
    spawner: Spawner,
    shutdown: ShutdownOptions,
    start_timeout: Option<Duration>,
    join_timeout: Duration,
    /// Whether the program continues if a supervisor has ended.
    continues: bool,
    /// Shielded: the futures are the user's. They are kept until the end of the program (P8).
    conditions: Shielded<Vec<Condition>>,
    ends: Arc<Ends>,
}

impl Program {
    fn new(registry: &Registry, spawner: Spawner) -> Self {
        Self {
            registry: registry.clone(),
            spawner,
            shutdown: SHUTDOWN_TIMEOUT.into(),
            start_timeout: None,
            join_timeout: JOIN_TIMEOUT,
            continues: false,
            conditions: Shielded::new(Vec::new()),
            ends: Arc::default(),
        }
    }

    /// A program on plain threads: each supervisor has a thread of its own, with the name of its
    /// service.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # registry.request_shutdown("a test");
    /// let program = mainstay::program::Program::on_threads(&registry);
    /// let outcome = program.run_blocking(|_| Ok::<_, &str>(()));
    /// # assert!(outcome.is_success());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn on_threads(registry: &Registry) -> Self {
        Self::new(registry, Box::new(spawn_on_thread))
    }

    /// A program on tokio: its supervisors are tasks of this runtime.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # registry.request_shutdown("a test");
    /// use mainstay::program::Program;
    ///
    /// let runtime = tokio::runtime::Runtime::new()?;
    /// let program = Program::on_tokio(&registry, runtime.handle().clone());
    /// let outcome = runtime.block_on(program.run(|_| Ok::<_, &str>(())));
    /// # assert!(outcome.is_success());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[cfg(feature = "tokio")]
    pub fn on_tokio(registry: &Registry, runtime: tokio::runtime::Handle) -> Self {
        Self::with_spawner(registry, move |task| drop(runtime.spawn(task)))
    }

    /// A program on smol: its supervisors are tasks of the global executor of smol.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # registry.request_shutdown("a test");
    /// let program = mainstay::program::Program::on_smol(&registry);
    /// let outcome = smol::block_on(program.run(|_| Ok::<_, &str>(())));
    /// # assert!(outcome.is_success());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[cfg(feature = "smol")]
    pub fn on_smol(registry: &Registry) -> Self {
        Self::with_spawner(registry, |task| smol::spawn(task).detach())
    }

    /// A program on any executor. `spawn` is called for each supervisor, in the start function, and
    /// passes the task to the executor. A task that `spawn` drops is a supervisor that has ended.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # registry.request_shutdown("a test");
    /// use std::sync::Arc;
    ///
    /// let executor = Arc::new(smol::Executor::new());
    /// let program = mainstay::program::Program::with_spawner(&registry, {
    ///     let executor = Arc::clone(&executor);
    ///     move |task| executor.spawn(task).detach()
    /// });
    /// let outcome = smol::block_on(executor.run(program.run(|_| Ok::<_, &str>(()))));
    /// # assert!(outcome.is_success());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn with_spawner(registry: &Registry, mut spawn: impl FnMut(Task) + Send + 'static) -> Self {
        let spawner = move |_: &str, task| {
            spawn(task);
            Ok(())
        };
        Self::new(registry, Box::new(spawner))
    }

    /// Sets the timeout of the shutdown, or its [options](ShutdownOptions), such as the notice. The
    /// default is 30 s without a notice. The reason is the cause of the end, unless there was an
    /// earlier request.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # registry.request_shutdown("a test");
    /// use mainstay::{program::Program, supervise::ShutdownOptions};
    /// use std::time::Duration;
    ///
    /// let options = ShutdownOptions::within(Duration::from_secs(25));
    /// let program = Program::on_threads(&registry).shutdown(options);
    /// # assert!(program.run_blocking(|_| Ok::<_, &str>(())).is_success());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn shutdown(mut self, options: impl Into<ShutdownOptions>) -> Self {
        self.shutdown = options.into();
        self
    }

    /// Ends the program if not all services have been ready within this time after the start
    /// function has returned, by the clock of the registry. The default is no limit.
    /// [Optional](Registry::set_optional) services do not count. It ends at once if one of the
    /// services is stuck: it has given up, or was not started ([`Registry::wait_all_ready`]).
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// use mainstay::program::Program;
    /// use std::time::Duration;
    ///
    /// registry.register::<u16>("port")?;
    /// let program = Program::on_threads(&registry).start_timeout(Duration::from_millis(1));
    /// let outcome = program.run_blocking(|_| Ok::<_, &str>(())); // no supervisor
    /// assert_eq!(outcome.exit_code(), 1);
    /// assert!(outcome.cause.to_string().contains("port: no provider"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn start_timeout(mut self, timeout: Duration) -> Self {
        self.start_timeout = Some(timeout);
        self
    }

    /// Sets how long the program waits for its supervisors after the shutdown: by the clock of the
    /// registry in [`run`](Self::run), and by [`Instant::now`] in
    /// [`run_blocking`](Self::run_blocking). The default is 1 s.
    ///
    /// After the shutdown, a supervisor ends at once, unless it blocks its thread.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # registry.request_shutdown("a test");
    /// use mainstay::program::Program;
    ///
    /// let program = Program::on_threads(&registry);
    /// let program = program.join_timeout(std::time::Duration::from_secs(5));
    /// # assert!(program.run_blocking(|_| Ok::<_, &str>(())).is_success());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn join_timeout(mut self, timeout: Duration) -> Self {
        self.join_timeout = timeout;
        self
    }

    /// Continues if a supervisor has ended before a shutdown was requested: its service stays down.
    /// The default is to end the program. The [exit code](ProgramOutcome::exit_code) is the same.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # registry.request_shutdown("a test");
    /// use mainstay::program::Program;
    ///
    /// let program = Program::on_threads(&registry).continue_without();
    /// # assert!(program.run_blocking(|_| Ok::<_, &str>(())).is_success());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn continue_without(mut self) -> Self {
        self.continues = true;
        self
    }

    /// Ends the program when the future completes, with its output as the reason: a stop signal,
    /// the end of the standard input, a licence that expires. The first of several conditions ends
    /// the program. If it panics, it ends the program, too.
    ///
    /// The program polls the condition in its `run`, and drops it at its end.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// use mainstay::program::Program;
    ///
    /// let program = Program::on_threads(&registry)
    ///     .stop_when(std::future::pending::<&str>())
    ///     .stop_when(async { "nothing to do" });
    /// let outcome = program.run_blocking(|_| Ok::<_, &str>(()));
    /// assert_eq!(outcome.cause.to_string(), "nothing to do");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn stop_when<F>(mut self, condition: F) -> Self
    where
        F: Future<Output: Into<Arc<str>>> + Send + 'static,
    {
        let condition = async { EndCause::Requested { reason: condition.await.into() } };
        self.conditions.push(Box::pin(condition));
        self
    }

    /// Runs the program: starts it, waits until it must end, shuts the registry down, and joins the
    /// supervisors.
    ///
    /// `start` spawns the supervisors. If it returns an error or panics, the services that it has
    /// started are shut down, and the error is the cause of the end.
    ///
    /// Nothing happens until the future is polled. If it is dropped after that, the registry is
    /// closed, which ends the supervisors at once. To end the program from outside, use
    /// [`request_shutdown`](Registry::request_shutdown).
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let program = mainstay::program::Program::on_threads(&registry);
    /// let outcome = smol::block_on(program.run(|_| Err("no configuration")));
    /// assert_eq!(outcome.cause.to_string(), "the start has failed: no configuration");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn run<E>(
        self,
        start: impl FnOnce(&mut ProgramStart) -> Result<(), E>,
    ) -> ProgramOutcome
    where
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        let mut started = self.start(start);
        let cause = started.end().await;
        started.registry.request_shutdown(cause.to_string());
        if started.registry.is_closed() {
            // The supervisors end at once, and must not be reported as late.
            started.join().await;
        }
        let report = started.registry.shutdown(started.shutdown.clone()).await;
        started.join().await;
        started.outcome(cause, report)
    }

    /// Runs the program on this thread; as [`run`](Self::run).
    ///
    /// It needs no runtime, and no timer thread unless there is a
    /// [start timeout](Self::start_timeout). It must not be called in a poll of an async
    /// supervisor.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let program = mainstay::program::Program::on_threads(&registry);
    /// let outcome = program.run_blocking(|start| {
    ///     start.registry().request_shutdown("nothing to do");
    ///     Ok::<_, &str>(())
    /// });
    /// assert!(outcome.is_success());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn run_blocking<E>(
        self,
        start: impl FnOnce(&mut ProgramStart) -> Result<(), E>,
    ) -> ProgramOutcome
    where
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        let mut started = self.start(start);
        let cause = block_on(|_| started.end());
        started.registry.request_shutdown(cause.to_string());
        if started.registry.is_closed() {
            // As in `run`.
            started.join_blocking();
        }
        let report = started.registry.shutdown_blocking(started.shutdown.clone());
        started.join_blocking();
        started.outcome(cause, report)
    }

    fn start<E>(self, start: impl FnOnce(&mut ProgramStart) -> Result<(), E>) -> StartedProgram
    where
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        let Self { registry, spawner, shutdown, start_timeout, join_timeout, continues, .. } = self;
        let (user_conditions, ends) = (self.conditions, self.ends);
        // P7: before the first supervisor is spawned.
        let started = StartedProgram {
            registry: registry.clone(),
            shutdown,
            join_timeout,
            conditions: Shielded::new(Vec::new()),
            ends: Arc::clone(&ends),
        };
        let result = catch_unwind(AssertUnwindSafe(|| {
            let mut spawned = ProgramStart::new(registry.clone(), spawner, Arc::clone(&ends));
            // The text, the error and the spawner are the user's.
            start(&mut spawned).map_err(|error| {
                let error: Box<dyn Error + Send + Sync> = error.into();
                chain(&*error).to_string()
            })
        }));
        let failed = match result {
            Ok(Ok(())) => {
                registry.startup_complete();
                None
            }
            Ok(Err(message)) => Some(message),
            Err(payload) => Some(format!("panicked: {}", panic_message(payload))),
        };
        let mut started = started;
        if let Some(message) = failed {
            // P1
            let cause = EndCause::StartFailed { message };
            started.conditions.push(Box::pin(std::future::ready(cause)));
        }
        if !continues {
            started.conditions.push(Box::pin(supervisor_ended(ends)));
        }
        started.conditions.extend(user_conditions.into_inner());
        let requested = registry.shutdown_requested();
        let requested = async { EndCause::Requested { reason: requested.await } };
        started.conditions.push(Box::pin(requested));
        if let Some(timeout) = start_timeout {
            started.conditions.push(Box::pin(not_started(registry, timeout)));
        }
        started
    }
}

/// P5
async fn supervisor_ended(ends: Arc<Ends>) -> EndCause {
    let cause = |SupervisorReport { service, end, .. }: &SupervisorReport| {
        EndCause::SupervisorEnded { service: service.clone(), end: end.clone() }
    };
    let is_unexpected = |report: &&SupervisorReport| {
        report.is_early || matches!(report.end, SupervisorEnd::Panicked { .. })
    };
    ends.wait(|reports| reports.iter().find(is_unexpected).map(cause)).await
}

/// Completes if not all services have become ready in time.
async fn not_started(registry: Registry, timeout: Duration) -> EndCause {
    match registry.wait_all_ready().timeout(timeout, registry.clock()).await {
        Err(error @ (AllReadyError::TimedOut { .. } | AllReadyError::Stuck { .. })) => {
            EndCause::StartFailed { message: chain(&error).to_string() }
        }
        // The other errors are those of a shutdown, which is a cause of its own.
        _ => pending().await,
    }
}

/// A program whose start function has been called. Its drop closes the registry (P7).
struct StartedProgram {
    registry: Registry,
    shutdown: ShutdownOptions,
    join_timeout: Duration,
    conditions: Shielded<Vec<Condition>>,
    ends: Arc<Ends>,
}

impl StartedProgram {
    /// Waits until the program must end. The first condition in the list counts (P2).
    async fn end(&mut self) -> EndCause {
        let conditions = &mut *self.conditions;
        poll_fn(|context| {
            for condition in &mut *conditions {
                let poll = AssertUnwindSafe(|| condition.as_mut().poll(context));
                match catch_unwind(poll) {
                    Ok(Poll::Pending) => {}
                    Ok(Poll::Ready(cause)) => return Poll::Ready(cause),
                    Err(payload) => {
                        let message = panic_message(payload);
                        return Poll::Ready(EndCause::ConditionPanicked { message });
                    }
                }
            }
            Poll::Pending
        })
        .await
    }

    /// Waits until all supervisors have ended, at most for the join timeout (P6). One that has not
    /// ended is running in the outcome.
    async fn join(&mut self) {
        let mut all_ended = pin!(self.ends.all_ended());
        let _ = within(&mut all_ended, self.join_timeout, self.registry.clock()).await;
    }

    /// As `join`, by parking this thread.
    fn join_blocking(&self) {
        match Instant::now().checked_add(self.join_timeout) {
            Some(deadline) => {
                let _ = block_on_until(Some(deadline), |_| self.ends.all_ended());
            }
            // A deadline that `Instant` cannot represent is never reached.
            None => block_on(|_| self.ends.all_ended()),
        }
    }

    fn outcome(&self, cause: EndCause, report: StopReport) -> ProgramOutcome {
        ProgramOutcome { cause, report, supervisors: self.ends.reports() }
    }
}

impl Drop for StartedProgram {
    fn drop(&mut self) {
        self.registry.close();
    }
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Program")
            .field("registry", &self.registry)
            .field("shutdown", &self.shutdown)
            .field("start_timeout", &self.start_timeout)
            .field("join_timeout", &self.join_timeout)
            .finish_non_exhaustive()
    }
}
