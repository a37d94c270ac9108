//! `Supervisor`: its configuration, and how it is run.

use std::{
    fmt,
    future::{Future, poll_fn, ready},
    mem,
    pin::{Pin, pin},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    AsyncBody, BlockingBody, Body, BodyOutput, Build, BuildOutput, Clock, Live, NoBody,
    RestartPolicy, policy::FailureCounter, user_code::UserBuilder,
};
use crate::{
    clock::{WakeSource, block_on},
    instance::Instance,
    provide::Provider,
    registry::{Control, EndKind, Registry},
    service::ServiceId,
    sync::{self, Mutex, Shielded, SupervisorPoll},
};

/// A provider whose loop is already written; returned by [`Registry::supervise`].
///
/// [`run`](Self::run) is a future for any executor, [`run_blocking`](Self::run_blocking) a blocking
/// call for a plain thread. Each of them runs the whole loop until the registry is closed or shut
/// down: it builds the service, publishes the value, waits for its failure, and builds the service
/// again as the [`RestartPolicy`] says. A supervisor that is dropped before that takes its service
/// down, as a dropped [`Provider`] does. The [module](crate::supervise) describes the states.
///
/// ```
/// use mainstay::{Registry, error::WaitForError};
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
/// let server_task = registry.supervise(server)?.run(async move |build| {
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
pub struct Supervisor<T: Send + Sync + 'static, B = NoBody> {
    service: ServiceLoop<T>,
    body: B,
}

/// A supervised service: all of a supervisor but its body.
pub(super) struct ServiceLoop<T: Send + Sync + 'static> {
    pub(super) provider: Provider<T>,
    pub(super) control: Arc<Control>,
    pub(super) policy: RestartPolicy,
    /// The limit for the stop hook and the draining that follows it.
    pub(super) hook_timeout: Duration,
    /// In a mutex, because the futures of this supervisor share it by reference and must be `Send`,
    /// but a stop hook need not be `Sync`.
    pub(super) stop_hook: Mutex<Option<StopHook<T>>>,
    wake_source: WakeSource,
}

/// The user's code that stops an instance.
pub(super) type StopHook<T> = Box<dyn FnOnce(Arc<Instance<T>>) -> StopFuture + Send>;
type StopFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The limit for the draining of a service without a stop hook.
const DEFAULT_HOOK_TIMEOUT: Duration = Duration::from_secs(10);

impl<T: Send + Sync + 'static> Supervisor<T> {
    pub(super) fn new(provider: Provider<T>, control: Arc<Control>) -> Self {
        let service = ServiceLoop {
            provider,
            control,
            policy: RestartPolicy::default(),
            hook_timeout: DEFAULT_HOOK_TIMEOUT,
            stop_hook: Mutex::default(),
            wake_source: WakeSource::Clock,
        };
        Self { service, body: NoBody }
    }

    /// Sets the body: an async function that runs while the service is up.
    ///
    /// It is called after each publication, and receives a [`Live`] for it: a server accepts
    /// connections, a worker takes jobs from a queue, a watcher reads a file when it changes. It is
    /// polled by the future of this supervisor. A [replacement](Live::replace) does not end it.
    ///
    /// # What it returns
    ///
    /// - An error, or a panic, fails the instance, and is counted against the service.
    /// - Nothing, or `Ok(())`, fails it, too, with the reason [`BodyFailure::Returned`].
    /// - [`BodyEnd::StayReady`] and [`BodyEnd::Completed`] do not: the instance needs no body any
    ///   more.
    ///
    /// [`BodyFailure::Returned`]: crate::supervise::BodyFailure::Returned
    /// [`BodyEnd::StayReady`]: crate::supervise::BodyEnd::StayReady
    /// [`BodyEnd::Completed`]: crate::supervise::BodyEnd::Completed
    ///
    /// # When it ends
    ///
    /// If the instance fails, it is down at once, and [`Live::stopping`] notifies the body. In a
    /// shutdown the body is notified at the turn of the service, while its instance can still be
    /// read; the instance goes down when the body has returned. In both cases the body has the stop
    /// timeout to return; then its future is dropped.
    ///
    /// ```
    /// use mainstay::Registry;
    /// use std::io;
    /// use tokio::{io::AsyncWriteExt, net::TcpListener};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let registry = Registry::with_capacity(1)?;
    /// let server = registry.register::<TcpListener>("server")?;
    /// let supervisor = registry.supervise(server)?.body(async |live| {
    ///     loop {
    ///         let Some(listener) = live.instance() else { return Ok::<_, io::Error>(()) };
    ///         tokio::select! {
    ///             accepted = listener.accept() => {
    ///                 let (mut client, _) = accepted?;
    ///                 tokio::spawn(async move { client.write_all(b"hello").await });
    ///             }
    ///             _ = live.stopping() => return Ok(()),
    ///         }
    ///     }
    /// });
    /// tokio::spawn(supervisor.run(async |_| TcpListener::bind("127.0.0.1:0").await));
    ///
    /// let address = registry.wait_ready(server).await?.local_addr()?;
    /// let mut client = tokio::net::TcpStream::connect(address).await?;
    /// let mut text = String::new();
    /// tokio::io::AsyncReadExt::read_to_string(&mut client, &mut text).await?;
    /// assert_eq!(text, "hello");
    /// # registry.close();
    /// # Ok(())
    /// # }
    /// ```
    pub fn body<F, O>(self, body: F) -> Supervisor<T, AsyncBody<F>>
    where
        F: AsyncFnMut(Live<T>) -> O,
        O: BodyOutput,
    {
        Supervisor { service: self.service, body: AsyncBody::new(body) }
    }

    /// Sets the body: a blocking function that runs on a thread of its own while the service is up.
    ///
    /// As [`body`](Self::body). The supervisor starts a thread for each publication, with the name
    /// of the service. This is the one exception to the rule that a supervisor starts no threads.
    ///
    /// A thread cannot be ended from outside. If the body has not returned when the stop timeout
    /// expires, the supervisor continues without it, but does not build the service again before
    /// the body has returned: no two bodies of a service run at the same time. Until then the state
    /// is [`SupervisorState::BodyRunning`](crate::supervise::SupervisorState::BodyRunning).
    ///
    /// ```
    /// use mainstay::{Registry, supervise::BodyFailure};
    /// use std::{sync::mpsc, thread};
    ///
    /// let registry = Registry::with_capacity(1)?;
    /// let worker = registry.register::<mpsc::Sender<u64>>("worker")?;
    /// let (sender, jobs) = mpsc::channel();
    /// let supervisor = registry.supervise(worker)?.body_blocking(move |live| {
    ///     while live.stop_reason().is_none() {
    ///         match jobs.recv() {
    ///             Ok(job) => println!("{job} squared is {}", job * job),
    ///             Err(_) => break,
    ///         }
    ///     }
    /// });
    /// thread::spawn(move || supervisor.run_blocking(|_| sender.clone()));
    /// registry.wait_ready(worker).wait_blocking()?.send(7)?;
    /// # registry.close();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn body_blocking<F, O>(self, body: F) -> Supervisor<T, BlockingBody<F>>
    where
        F: FnMut(Live<T>) -> O + Send + 'static,
        O: BodyOutput,
    {
        let name = self.service.registry().store().name(self.id().index());
        Supervisor { body: BlockingBody::new(name.to_string(), body), service: self.service }
    }
}

impl<T: Send + Sync + 'static, B: Body<T>> Supervisor<T, B> {
    /// Sets the restart policy: backoff, limits and timeouts.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<u16>("port")?;
    /// use mainstay::supervise::RestartPolicy;
    /// use std::time::Duration;
    ///
    /// let policy = RestartPolicy::default().max_failures(20, Duration::from_secs(60));
    /// let supervisor = registry.supervise(port)?.restart_policy(policy);
    /// # let _ = supervisor;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn restart_policy(mut self, policy: RestartPolicy) -> Self {
        self.service.policy = policy;
        self
    }

    /// Sets the stop hook, which a graceful [shutdown](Registry::shutdown) calls with the last
    /// instance: finish accepted requests, flush, disconnect.
    ///
    /// When the stop hook is called, no reader can get the instance any more, and all dependencies
    /// of the service are still up. After the stop hook, the supervisor waits until the readers
    /// that still hold instances of the service, of any generation, have dropped them.
    ///
    /// `within` limits both together; without a stop hook the limit is 10 s. When it expires, the
    /// stop hook is dropped, and the [report](crate::supervise::ShutdownReport) names the service.
    /// A blocking stop hook does its work in the call and returns
    /// [`ready(())`](std::future::ready). If it panics, the panic ends the stop hook, the service
    /// stops as usual, and the report contains the message.
    ///
    /// The stop hook is not called if the service is down at its turn to stop, or if the registry
    /// is [closed](Registry::close) without a shutdown.
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
    ///         let name = format!("mainstay-{}.lock", std::process::id());
    ///         let file = std::env::temp_dir().join(name);
    ///         fs::write(&file, "locked").map(|()| file.display().to_string())
    ///     })
    /// });
    /// let file = registry.wait_ready(lock).wait_blocking()?.to_string();
    /// assert!(fs::exists(&file)?);
    /// assert!(registry.shutdown_blocking(Duration::from_secs(30)).stop_timeouts.is_empty());
    /// assert!(!fs::exists(&file)?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn on_stop<F: Future<Output = ()> + Send + 'static>(
        mut self,
        within: Duration,
        stop_hook: impl FnOnce(Arc<Instance<T>>) -> F + Send + 'static,
    ) -> Self {
        self.service.hook_timeout = within;
        self.service.stop_hook =
            Mutex::new(Some(Box::new(|instance| Box::pin(stop_hook(instance)))));
        self
    }

    /// Returns the id of the service.
    ///
    /// ```
    /// let registry = mainstay::Registry::with_capacity(1)?;
    /// let port = registry.register::<u16>("port")?;
    /// assert_eq!(registry.supervise(port)?.id(), port);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn id(&self) -> ServiceId<T> {
        self.service.id()
    }

    /// Supervises the service with an async builder, until the registry is closed or shut down.
    ///
    /// The builder is called once for each build, in a poll of this future. The future of the
    /// builder is dropped, and not polled again, if the build is
    /// [invalidated](crate::Attempt::invalidated), if it exceeds the build timeout, or if the
    /// service must stop. A panic of the builder or of its future is a failed build.
    ///
    /// A wait that blocks its thread ([`wait_blocking`](crate::wait::Wait::wait_blocking)) returns
    /// the error `MustAwait` in a poll of this future.
    ///
    /// Dropping this future takes the service down; no stop hook is called.
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
    pub async fn run<F, O>(self, builder: F)
    where
        F: AsyncFnMut(Build<T>) -> O,
        O: BuildOutput<T>,
    {
        let mut run = pin!(self.run_on_any_thread(builder));
        // User code that blocks in such a poll would block the executor.
        poll_fn(|context| {
            let _poll = SupervisorPoll::begin();
            run.as_mut().poll(context)
        })
        .await;
    }

    async fn run_on_any_thread<F, O>(self, builder: F)
    where
        F: AsyncFnMut(Build<T>) -> O,
        O: BuildOutput<T>,
    {
        let Self { service, mut body } = self;
        // The stop hook and the builder may have a `Drop` of the user. Each is shielded.
        let mut stop_hook = Shielded::new(sync::lock(&service.stop_hook).take());
        let body_limit = if B::EXISTS { service.policy.stop_timeout } else { Duration::ZERO };
        service.control.start(body_limit.saturating_add(service.hook_timeout));
        // The instances of earlier generations that have readers.
        let mut earlier = Vec::new();
        let mut builder = UserBuilder::new(builder);
        let mut counter = FailureCounter::new(service.policy.clone());
        let mut delay = None;
        loop {
            let running = service
                .run_loop(&mut builder, &mut body, &mut earlier, &mut counter, &mut delay)
                .await;
            // The loop also ends if the registry is closed. Then the stop hook is not called.
            let Some(end) = service.control.end_requested() else { return };
            service.stop(running, mem::take(&mut earlier), &mut stop_hook).await;
            // The drop of this supervisor reports the end.
            if end.kind == EndKind::ShutDown {
                return;
            }
            service.registry().end_reached(service.id().index(), &service.control);
        }
    }

    /// Supervises the service with a blocking builder, on this thread, until the registry is
    /// closed or shut down.
    ///
    /// As [`run`](Self::run), with one difference: a blocking build cannot be dropped if it is
    /// invalidated, exceeds its timeout, or must stop. It can check [`Build::is_invalidated`], and
    /// its result is dropped when it returns.
    ///
    /// It works on any thread, and needs no runtime. Times are those of the registry's clock: if it
    /// is [real](Clock::is_real), this thread parks until the next time, and uses no timer. If not,
    /// such as with a virtual clock, another thread must advance the time.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<u16>("port")?;
    /// let supervisor = registry.supervise(port)?;
    /// let thread = std::thread::spawn(|| supervisor.run_blocking(|_| "80".parse::<u16>()));
    /// assert_eq!(**registry.wait_ready(port).wait_blocking()?, 80);
    /// registry.close();
    /// thread.join().unwrap();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn run_blocking<F, O>(mut self, mut builder: F)
    where
        F: FnMut(&Build<T>) -> O,
        O: BuildOutput<T>,
    {
        block_on(|wake_source| {
            self.service.wake_source = wake_source;
            self.run_on_any_thread(move |build: Build<T>| ready(builder(&build)))
        });
    }
}

impl<T: Send + Sync + 'static> ServiceLoop<T> {
    pub(super) fn id(&self) -> ServiceId<T> {
        self.provider.id()
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

    /// Sleeps until the deadline. Never completes if there is none.
    pub(super) async fn sleep_until(&self, deadline: Option<Instant>) {
        self.wake_source.sleep_until(self.clock(), deadline).await;
    }
}

impl<T: Send + Sync + 'static> Drop for ServiceLoop<T> {
    fn drop(&mut self) {
        self.registry().supervisor_ended(self.id().index(), &self.control);
    }
}

impl<T: Send + Sync + 'static, B> fmt::Debug for Supervisor<T, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ServiceLoop { provider, policy, .. } = &self.service;
        f.debug_struct("Supervisor")
            .field("service", &provider.registry.store().name(provider.id().index()))
            .field("policy", policy)
            .finish_non_exhaustive()
    }
}
