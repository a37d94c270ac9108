//! A supervisor, as its user makes it and runs it.

use std::{
    error::Error,
    fmt,
    future::{Future, poll_fn, ready},
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use super::{Build, Clock, Restart, clock::for_ever, supervised::Desk, user::Builder};
use crate::{
    provider::Provider,
    registry::Registry,
    service::{Instance, ServiceId},
    sync::{self, Mutex, Shielded, block_until},
};

/// The provider of one service, which needs only to be told how to build it: what [`Registry::supervise`] gives.
///
/// [`run`](Self::run) is a future for any executor, [`run_blocking`](Self::run_blocking) a call for a plain thread.
/// Either is the whole loop: it begins when the service is down, has it built, publishes that, watches it, and
/// begins again when it has failed, as the [`Restart`] says; until the registry closes. Dropped before that, it
/// takes the service down, as a dropped [`Provider`] does.
///
/// ```
/// use mainstay::{Registry, WaitForError};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let registry = Registry::with_capacity(2)?;
/// let config = registry.register::<u16>("config")?;
/// let server = registry.register::<String>("server")?;
///
/// let mut ports = 8080..;
/// let config_task = registry.supervise(config)?.run(move |_| {
///     let port = ports.next().ok_or("no port is left");
///     async move { port }
/// });
/// let server_task = registry.supervise(server)?.run(move |build| async move {
///     let port = build.wait_for(config).await?;
///     Ok::<_, WaitForError>(format!("localhost:{}", **port))
/// });
/// let tasks = (tokio::spawn(config_task), tokio::spawn(server_task));
///
/// assert_eq!(**registry.wait_ready(server).await?, "localhost:8080");
/// registry.fail(config, "edited")?;
/// assert_eq!(**registry.wait_ready(server).await?, "localhost:8081");
///
/// registry.close();
/// let (_, _) = (tasks.0.await?, tasks.1.await?);
/// # Ok(())
/// # }
/// ```
#[must_use = "a supervisor does nothing until it is run"]
pub struct Supervisor<T: Send + Sync + 'static> {
    pub(super) provider: Provider<T>,
    pub(super) desk: Arc<Desk>,
    pub(super) restart: Restart,
    /// How long it may take to stop, and what is to be done then.
    pub(super) stop_within: Duration,
    /// Locked for the supervisor to be shared by its own futures: a hook need not be `Sync`.
    pub(super) hook: Mutex<Option<Hook<T>>>,
    timer: Timer,
}

/// What a user does to stop an instance.
pub(super) type Hook<T> = Box<dyn FnOnce(Arc<Instance<T>>) -> Stopped + Send>;
type Stopped = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What a service without a hook has for its readers to let go.
const STOP_WITHIN: Duration = Duration::from_secs(10);

/// Who wakes a supervisor that sleeps.
enum Timer {
    /// The registry's clock.
    Clock,
    /// The thread that it blocks: the earliest moment at which it is to look again.
    Thread(Arc<Mutex<Option<Instant>>>),
}

impl<T: Send + Sync + 'static> Supervisor<T> {
    pub(super) fn new(provider: Provider<T>, desk: Arc<Desk>) -> Self {
        let (restart, timer, hook) = (Restart::default(), Timer::Clock, Mutex::default());
        Self { provider, desk, restart, stop_within: STOP_WITHIN, hook, timer }
    }

    /// When the service is built again after it has failed, and when no more.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<u16>("port")?;
    /// use mainstay::Restart;
    /// use std::time::Duration;
    ///
    /// let restart = Restart::default().at_most(20, Duration::from_secs(60));
    /// let supervisor = registry.supervise(port)?.restart(restart);
    /// # let _ = supervisor;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn restart(mut self, restart: Restart) -> Self {
        self.restart = restart;
        self
    }

    /// What is to be done with the instance that is up when the registry is [shut down](Registry::shutdown): finish
    /// what was accepted, flush, disconnect. Nobody else gets it any more by then; what it was built from is still
    /// there. When it is done, those who hold the instance are waited for.
    ///
    /// All that may take `within`, 10 s where there is no hook; then the hook is dropped, and the service counts as
    /// hung. A blocking hook does its work in the call, and gives [`std::future::ready(())`](std::future::ready). A
    /// panic ends it. Where the registry is [closed](Registry::close) otherwise it is not called.
    ///
    /// ```
    /// use mainstay::Registry;
    /// use std::{fs, future::ready, thread, time::Duration};
    ///
    /// let registry = Registry::with_capacity(1)?;
    /// let lock = registry.register::<String>("lock")?;
    /// let supervisor = registry.supervise(lock)?;
    /// let supervisor = supervisor.on_stop(Duration::from_secs(5), |file| {
    ///     let _ = fs::remove_file(&**file);
    ///     ready(())
    /// });
    /// thread::spawn(|| {
    ///     supervisor.run_blocking(|_| {
    ///         let file = std::env::temp_dir().join(format!("mainstay-{}.lock", std::process::id()));
    ///         fs::write(&file, "locked").map(|()| file.display().to_string())
    ///     })
    /// });
    /// let file = registry.wait_ready(lock).wait()?.to_string();
    /// assert!(fs::exists(&file)?);
    /// assert!(registry.shutdown_blocking(Duration::from_secs(30)).hung.is_empty());
    /// assert!(!fs::exists(&file)?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn on_stop<F: Future<Output = ()> + Send + 'static>(
        mut self,
        within: Duration,
        hook: impl FnOnce(Arc<Instance<T>>) -> F + Send + 'static,
    ) -> Self {
        self.stop_within = within;
        self.hook = Mutex::new(Some(Box::new(|instance| Box::pin(hook(instance)))));
        self
    }

    /// The service.
    ///
    /// ```
    /// let registry = mainstay::Registry::with_capacity(1)?;
    /// let port = registry.register::<u16>("port")?;
    /// assert_eq!(registry.supervise(port)?.id(), port);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn id(&self) -> ServiceId<T> {
        self.provider.id()
    }

    /// Supervises the service until the registry is closed or shut down, with an async builder.
    ///
    /// The builder is called once for each build, in a poll of this future. A build that is
    /// [overtaken](crate::Attempt::overtaken) is dropped and not polled again; so is one that takes too long, and one that
    /// is under way at the end. What panics, in the call or in a poll, is a failed build.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<u16>("port")?;
    /// let supervisor = registry.supervise(port)?;
    /// smol::spawn(supervisor.run(|_| async { "80".parse::<u16>() })).detach();
    /// assert_eq!(**smol::block_on(registry.wait_ready(port))?, 80);
    /// # registry.close();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn run<F, B, E>(self, builder: F)
    where
        F: FnMut(Build<T>) -> B,
        B: Future<Output = Result<T, E>>,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        let hook = Shielded::new(sync::lock(&self.hook).take());
        self.desk.runs(self.stop_within);
        // Its `Drop` is the user's, too.
        let running = self.keep_up(Builder::new(builder)).await;
        if self.desk.is_to_stop() {
            self.stop(running, hook).await;
        }
    }

    /// Supervises the service until the registry is closed or shut down, with a blocking builder, on this thread.
    ///
    /// As [`run`](Self::run), but for a build that is overtaken or takes too long: it can only be
    /// [told](Build::is_overtaken), and what it gives is dropped.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<u16>("port")?;
    /// let supervisor = registry.supervise(port)?;
    /// let thread = std::thread::spawn(|| supervisor.run_blocking(|_| "80".parse::<u16>()));
    /// assert_eq!(**registry.wait_ready(port).wait()?, 80);
    /// registry.close();
    /// thread.join().unwrap();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn run_blocking<F, E>(mut self, mut builder: F)
    where
        F: FnMut(&Build<T>) -> Result<T, E>,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        let next = Arc::<Mutex<Option<Instant>>>::default();
        if self.clock().is_real() {
            self.timer = Timer::Thread(Arc::clone(&next));
        }
        let mut run = pin!(self.run(|build| ready(builder(&build))));
        // Each poll says anew when it is to be the next, at the latest.
        while block_until(&mut run, || sync::lock(&next).take()).is_none() {}
    }

    pub(super) fn registry(&self) -> &Registry {
        &self.provider.registry
    }

    fn clock(&self) -> &dyn Clock {
        self.registry().clock()
    }

    pub(super) fn now(&self) -> Instant {
        self.clock().now()
    }

    /// Never ends where there is no such moment.
    pub(super) async fn sleep_until(&self, deadline: Option<Instant>) {
        let Some(deadline) = deadline else { return for_ever().await };
        let Timer::Thread(next) = &self.timer else {
            return self.clock().sleep_until(deadline).await;
        };
        poll_fn(|_| {
            if self.now() >= deadline {
                return Poll::Ready(());
            }
            let mut next = sync::lock(next);
            *next = Some(next.map_or(deadline, |next| next.min(deadline)));
            Poll::Pending
        })
        .await;
    }
}

impl<T: Send + Sync + 'static> Drop for Supervisor<T> {
    fn drop(&mut self) {
        self.registry().supervised().end(self.id().index(), &self.desk);
    }
}

impl<T: Send + Sync + 'static> fmt::Debug for Supervisor<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Supervisor")
            .field("service", &self.registry().store().name(self.id().index()))
            .field("restart", &self.restart)
            .finish_non_exhaustive()
    }
}
