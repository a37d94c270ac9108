//! `Supervisor`: its configuration, and how it is run.

use std::{
    fmt,
    future::{poll_fn, ready},
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_lite::future::or;

use super::{
    AsyncBody, AsyncHook, BlockingBody, Body, BodyOutput, Build, BuildOutput, Clock, CloseHook,
    CloseOutput, Closing, Exclusive, Live, NoBody, NoHook, NoProbe, Overlapping, Probes,
    RestartPolicy, adopt::Adoptions, closer::Closer, failure_counter::FailureCounter,
    user_code::UserBuilder,
};
use crate::{
    clock::{WakeSource, block_on},
    provide::{Provider, Receiver},
    registry::{Control, EndKind, Registry},
    service::ServiceId,
    sync::SupervisorPoll,
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
pub struct Supervisor<T: Send + Sync + 'static, B = NoBody, H = NoHook, P = NoProbe> {
    pub(super) service: ServiceLoop<T>,
    body: B,
    close_hook: H,
    probes: P,
}

/// What runs while an instance is up.
pub(super) struct Work<B, P> {
    pub(super) body: B,
    pub(super) probes: P,
}

/// A supervised service: all of a supervisor but its body, its close hook and its probes.
pub(super) struct ServiceLoop<T: Send + Sync + 'static> {
    pub(super) provider: Provider<T>,
    pub(super) control: Arc<Control>,
    pub(super) policy: RestartPolicy,
    /// `None` without a close hook.
    pub(super) closer: Option<Closer<T>>,
    pub(super) adoptions: Adoptions<T>,
    wake_source: WakeSource,
}

impl<T: Send + Sync + 'static> Supervisor<T> {
    pub(super) fn new(provider: Provider<T>, control: Arc<Control>) -> Self {
        let service = ServiceLoop {
            provider,
            control,
            policy: RestartPolicy::default(),
            closer: None,
            adoptions: Adoptions::new(),
            wake_source: WakeSource::Clock,
        };
        Self { service, body: NoBody, close_hook: NoHook, probes: NoProbe }
    }
}

impl<T: Send + Sync + 'static, H: CloseHook<T>, P: Probes<T>> Supervisor<T, NoBody, H, P> {
    /// Sets the body: an async function that runs while the service is up.
    ///
    /// It is called after each publication, and receives a [`Live`] for it: a server accepts
    /// connections, a worker takes jobs from a queue, a watcher reads a file when it changes. It is
    /// polled by the future of this supervisor. A [replacement](Live::replace) does not end it.
    ///
    /// A reload ends it, and begins the body of the new instance at once: for a short time there
    /// are two. A body that must not overlap with the next one, or that changes what it has
    /// captured, is an [`exclusive_body`](Self::exclusive_body).
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
    /// restart, a stop or a shutdown the body is notified at the turn of the service, while its
    /// instance can still be read; the instance goes down when the body has returned. In these
    /// cases the body has the stop timeout to return; then its future is dropped. If the registry
    /// is closed, the body is polled once more, and then dropped.
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
    pub fn body<F, O>(self, body: F) -> Supervisor<T, AsyncBody<Overlapping<F>>, H, P>
    where
        F: AsyncFn(Live<T>) -> O,
        O: BodyOutput,
    {
        self.with_body(AsyncBody(Overlapping::new(body)))
    }

    /// Sets the body: an async function of which no two calls are in progress at the same time.
    ///
    /// As [`body`](Self::body), but the body may change what it has captured. After a reload, the
    /// body of the new instance begins when the one of the old instance has returned, or was
    /// dropped at its stop timeout. Until then the service is up without its body.
    ///
    /// ```
    /// use mainstay::{Registry, error::ReplaceError};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let registry = Registry::with_capacity(1)?;
    /// let limit = registry.register::<u32>("limit")?;
    /// let (edited, mut edits) = tokio::sync::mpsc::channel(1);
    /// let supervisor = registry.supervise(limit)?.exclusive_body(async move |live| {
    ///     loop {
    ///         tokio::select! {
    ///             Some(new) = edits.recv() => live.replace(new)?,
    ///             _ = live.stopping() => return Ok::<_, ReplaceError<u32>>(()),
    ///         }
    ///     }
    /// });
    /// tokio::spawn(supervisor.run(async |_| 100));
    /// registry.wait_ready(limit).await?;
    /// edited.send(200).await?;
    /// while *registry.get(limit)? != 200 {
    ///     tokio::task::yield_now().await;
    /// }
    /// # registry.close();
    /// # Ok(())
    /// # }
    /// ```
    pub fn exclusive_body<F, O>(self, body: F) -> Supervisor<T, AsyncBody<Exclusive<F>>, H, P>
    where
        F: AsyncFnMut(Live<T>) -> O,
        O: BodyOutput,
    {
        self.with_body(AsyncBody(Exclusive::new(body)))
    }

    /// Sets the body: a blocking function that runs on a thread of its own while the service is up.
    ///
    /// As [`body`](Self::body). The supervisor starts a thread for each publication, with the name
    /// of the service. This is the one exception to the rule that a supervisor starts no threads.
    ///
    /// A thread cannot be ended from outside. If the body has not returned when the stop timeout
    /// expires, the supervisor continues without it, but does not build the service again before
    /// the body has returned: but for a reload, no two bodies of a service run at the same time.
    /// Until then the state is
    /// [`SupervisorState::BodyRunning`](crate::supervise::SupervisorState::BodyRunning). A
    /// supervisor that is dropped abandons the body: it runs on, and the service may be supervised
    /// again.
    ///
    /// ```
    /// use mainstay::{Registry, supervise::BodyFailure};
    /// use std::{sync::mpsc, thread};
    ///
    /// let registry = Registry::with_capacity(1)?;
    /// let squares = registry.register::<u64>("squares")?;
    /// let (sender, results) = mpsc::channel();
    /// let supervisor = registry.supervise(squares)?.body_blocking(move |live| {
    ///     for number in 1.. {
    ///         if live.stop_reason().is_some() || sender.send(number * number).is_err() {
    ///             break;
    ///         }
    ///     }
    /// });
    /// thread::spawn(move || supervisor.run_blocking(|_| 1));
    /// assert_eq!(results.iter().take(3).collect::<Vec<_>>(), [1, 4, 9]);
    /// # registry.close();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn body_blocking<F, O>(self, body: F) -> Supervisor<T, BlockingBody<Overlapping<F>>, H, P>
    where
        F: Fn(Live<T>) -> O + Send + Sync + 'static,
        O: BodyOutput,
    {
        let name = self.service.name();
        self.with_body(BlockingBody::new(name, Overlapping::new(body)))
    }

    /// Sets the body: a blocking function of which no two calls are in progress at the same time.
    ///
    /// As [`body_blocking`](Self::body_blocking), but the body may change what it has captured.
    /// After a reload, the body of the new instance begins when the one of the old instance has
    /// returned, however late that is. Until then the service is up without its body.
    ///
    /// ```
    /// use mainstay::Registry;
    /// use std::{sync::mpsc, thread};
    ///
    /// let registry = Registry::with_capacity(1)?;
    /// let worker = registry.register::<mpsc::Sender<u64>>("worker")?;
    /// let (sender, jobs) = mpsc::channel();
    /// let supervisor = registry.supervise(worker)?.exclusive_body_blocking(move |live| {
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
    pub fn exclusive_body_blocking<F, O>(
        self,
        body: F,
    ) -> Supervisor<T, BlockingBody<Exclusive<F>>, H, P>
    where
        F: FnMut(Live<T>) -> O + Send + 'static,
        O: BodyOutput,
    {
        let name = self.service.name();
        self.with_body(BlockingBody::new(name, Exclusive::new(body)))
    }

    fn with_body<B: Body<T>>(self, body: B) -> Supervisor<T, B, H, P> {
        let Self { service, close_hook, probes, .. } = self;
        Supervisor { service, body, close_hook, probes }
    }
}

impl<T: Send + Sync + 'static, B: Body<T>, P: Probes<T>> Supervisor<T, B, NoHook, P> {
    /// Sets the close hook, which receives each value of the service at its end: to flush a file,
    /// to disconnect, to wait for the tasks that the value has started.
    ///
    /// The close hook is called at *every* end: after a failure, a [replacement](Live::replace),
    /// and at the turn of the service in a [restart](Registry::restart), a
    /// [stop](Registry::stop) or a [shutdown](Registry::shutdown). It is called after the body has
    /// returned (except after a replacement, which does not end the body) and the value is
    /// drained: the last reader that lets go hands the value over, in place of dropping it. If a
    /// reader holds it for longer than the [drain timeout](RestartPolicy::drain_timeout), or 10 s,
    /// the close hook gets a shared reference. [`Closing`] says which.
    ///
    /// The close hooks of one service run one at a time, in the order in which the values were
    /// published. Each has the [close timeout](RestartPolicy::close_timeout); then its future is
    /// dropped. An error, a panic or a timeout of the close hook fails nothing.
    ///
    /// If the policy has a drain timeout, the next build begins after the close hook. Without one,
    /// the close hook runs beside the next build; a blocking builder delays it. In a restart, a
    /// stop and a shutdown, all dependencies of the service are up until the close hooks of all its
    /// values have ended, and the [report](crate::supervise::StopReport) says how they have
    /// ended.
    ///
    /// A supervisor that is dropped drops the values without the close hook, and so does
    /// [`Registry::close`].
    ///
    /// ```
    /// use mainstay::{Registry, supervise::Closing};
    /// use std::{fs, future::ready, io, path::PathBuf, thread, time::Duration};
    ///
    /// let registry = Registry::with_capacity(1)?;
    /// let lock = registry.register::<PathBuf>("lock")?;
    /// let supervisor = registry.supervise(lock)?;
    /// let supervisor =
    ///     supervisor.on_close(|file: Closing<PathBuf>| ready(fs::remove_file(&*file)));
    /// thread::spawn(|| {
    ///     supervisor.run_blocking(|_| {
    ///         let name = format!("mainstay-{}.lock", std::process::id());
    ///         let file = std::env::temp_dir().join(name);
    ///         fs::write(&file, "locked").map(|()| file)
    ///     })
    /// });
    /// let file = PathBuf::clone(&**registry.wait_ready(lock).wait_blocking()?);
    /// assert!(fs::exists(&file)?);
    /// assert!(registry.shutdown_blocking(Duration::from_secs(30)).stop_timeouts.is_empty());
    /// assert!(!fs::exists(&file)?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn on_close<F, O>(self, close_hook: F) -> Supervisor<T, B, AsyncHook<F>, P>
    where
        F: AsyncFnMut(Closing<T>) -> O,
        O: CloseOutput,
    {
        let Self { mut service, body, probes, .. } = self;
        let receiver = Receiver::new(service.registry(), service.id());
        service.closer = Some(Closer::new(receiver));
        Supervisor { service, body, close_hook: AsyncHook::new(close_hook), probes }
    }
}

impl<T, B, H, P> Supervisor<T, B, H, P>
where
    T: Send + Sync + 'static,
    B: Body<T>,
    H: CloseHook<T>,
    P: Probes<T>,
{
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

    /// Returns the supervisor with other probes.
    pub(super) fn map_probes<Q>(self, map: impl FnOnce(P) -> Q) -> Supervisor<T, B, H, Q> {
        let Self { service, body, close_hook, probes } = self;
        Supervisor { service, body, close_hook, probes: map(probes) }
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
    /// Dropping this future takes the service down; no close hook is called.
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
    pub fn run<F, O>(self, builder: F) -> impl Future<Output = ()>
    where
        F: AsyncFnMut(Build<T>) -> O,
        O: BuildOutput<T>,
    {
        // In this call: the executor may poll the future later.
        self.set_run();
        async move {
            let mut run = pin!(self.run_on_any_thread(builder));
            // User code that blocks in such a poll would block the executor.
            poll_fn(|context| {
                let _poll = SupervisorPoll::begin();
                run.as_mut().poll(context)
            })
            .await;
        }
    }

    /// Notes that it is run, so that its service is not stuck (S17).
    pub(crate) fn set_run(&self) {
        self.service.control.set_run();
        self.service.registry().review_if_stuck(self.service.id().index());
    }

    async fn run_on_any_thread<F, O>(self, builder: F)
    where
        F: AsyncFnMut(Build<T>) -> O,
        O: BuildOutput<T>,
    {
        let Self { service, body, mut close_hook, probes } = self;
        service.control.start(service.stop_limit::<B, H>());
        let mut work = Work { body, probes };
        let work = service.build_and_stop(builder, &mut work);
        or(work, service.close_values(&mut close_hook)).await;
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
        self.set_run();
        block_on(|wake_source| {
            self.service.wake_source = wake_source;
            self.run_on_any_thread(move |build: Build<T>| ready(builder(&build)))
        });
    }
}

impl<T: Send + Sync + 'static> ServiceLoop<T> {
    /// Builds the service and stops it at its turns, until a shutdown or the close of the registry.
    async fn build_and_stop<F, O, B, P>(&self, builder: F, work: &mut Work<B, P>)
    where
        F: AsyncFnMut(Build<T>) -> O,
        O: BuildOutput<T>,
        B: Body<T>,
        P: Probes<T>,
    {
        // The instances of earlier generations that have readers.
        let mut earlier = Vec::new();
        let mut builder = UserBuilder::new(builder);
        let mut counter = FailureCounter::new(self.policy.clone());
        let mut delay = None;
        loop {
            let running =
                self.run_loop(&mut builder, work, &mut earlier, &mut counter, &mut delay).await;
            // The loop also ends if the registry is closed. Then no close hook is called.
            let Some(end) = self.control.execute_end() else { return };
            self.stop(running, &work.body, &mut earlier).await;
            // The drop of this supervisor reports the end.
            if end.kind == EndKind::ShutDown {
                return;
            }
            self.registry().end_reached(self.id().index(), &self.control);
        }
    }

    pub(super) fn id(&self) -> ServiceId<T> {
        self.provider.id()
    }

    pub(super) fn registry(&self) -> &Registry {
        &self.provider.registry
    }

    /// Returns the name of the service.
    fn name(&self) -> String {
        self.registry().store().name(self.id().index()).to_string()
    }

    fn clock(&self) -> &dyn Clock {
        self.registry().clock()
    }

    pub(super) fn now(&self) -> Instant {
        self.clock().now()
    }

    /// Returns the limit for stopping the service: for its body, the draining, and one close hook.
    fn stop_limit<B: Body<T>, H: CloseHook<T>>(&self) -> Duration {
        let body = if B::EXISTS { self.policy.stop_timeout } else { Duration::ZERO };
        let close_hook = if H::EXISTS { self.policy.close_timeout } else { Duration::ZERO };
        body.saturating_add(self.drain_limit()).saturating_add(close_hook)
    }

    /// Sleeps until the deadline. Never completes if there is none.
    pub(super) async fn sleep_until(&self, deadline: Option<Instant>) {
        self.wake_source.sleep_until(self.clock(), deadline).await;
    }
}

impl<T: Send + Sync + 'static> Drop for ServiceLoop<T> {
    fn drop(&mut self) {
        // S4: the values that are left may need the dependencies, which may stop after the next
        // line.
        drop(self.closer.take());
        self.registry().supervisor_ended(self.id().index(), &self.control);
    }
}

impl<T: Send + Sync + 'static, B, H, P> fmt::Debug for Supervisor<T, B, H, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ServiceLoop { provider, policy, .. } = &self.service;
        f.debug_struct("Supervisor")
            .field("service", &provider.registry.store().name(provider.id().index()))
            .field("policy", policy)
            .finish_non_exhaustive()
    }
}
