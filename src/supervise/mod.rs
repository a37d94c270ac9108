//! The provider's loop, written once: begin, build, ready, failed, and again, until the registry closes.
//!
//! `docs/supervision.md` has the rules. Nothing here is needed by the store, and nothing of it runs by itself: a
//! supervisor is a future, or a blocking call, of the user's.

mod build;
mod clock;
mod grace;
mod progress;
mod restart;
mod shutdown;
mod supervised;
mod user;

use std::{
    error::Error,
    fmt,
    future::{Future, poll_fn, ready},
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use futures_lite::future::or;

#[cfg(feature = "smol")]
pub use self::clock::SmolClock;
#[cfg(feature = "tokio")]
pub use self::clock::TokioClock;
pub use self::{
    build::Build,
    clock::{Clock, Sleep, SystemClock},
    restart::Restart,
    shutdown::{Hung, Shutdown},
    supervised::{Doing, Supervision},
    user::TryError,
};

pub(crate) use self::supervised::Supervised;

use self::{
    clock::for_ever,
    restart::{Charges, Verdict},
    supervised::{Desk, Order, Told},
    user::{Builder, call},
};
use crate::{
    dependency::Grace,
    error::{ForeignId, ProvideError, ReadyError},
    event::EventKind,
    failure::{Failure, Reason},
    provider::{Attempt, Provider},
    registry::Registry,
    running::Running,
    service::{AnyId, Instance, ServiceId},
    store::Target,
    sync::{self, Mutex, Shielded, block_until},
    wait::Wait,
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
    provider: Provider<T>,
    desk: Arc<Desk>,
    restart: Restart,
    /// How long it may take to stop, and what is to be done then.
    stop_within: Duration,
    /// Locked for the supervisor to be shared by its own futures: a hook need not be `Sync`.
    hook: Mutex<Option<Hook<T>>>,
    timer: Timer,
}

/// What a user does to stop an instance.
type Hook<T> = Box<dyn FnOnce(Arc<Instance<T>>) -> Stopped + Send>;
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

impl Registry {
    /// Takes the provider's role for a service, for a supervisor to be run. As [`provide`](Self::provide).
    ///
    /// # Errors
    ///
    /// [`ProvideError`].
    ///
    /// ```
    /// let registry = mainstay::Registry::with_capacity(1)?;
    /// let port = registry.register::<u16>("port")?;
    /// let supervisor = registry.supervise(port)?;
    /// std::thread::spawn(|| supervisor.run_blocking(|_| Ok::<_, std::io::Error>(80)));
    /// assert_eq!(**registry.wait_ready(port).wait()?, 80);
    /// # registry.close();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn supervise<T: Send + Sync + 'static>(
        &self,
        id: ServiceId<T>,
    ) -> Result<Supervisor<T>, ProvideError> {
        let provider = self.provide(id)?;
        let desk = self.supervised().begin(id.index());
        let (restart, timer, hook) = (Restart::default(), Timer::Clock, Mutex::default());
        Ok(Supervisor { provider, desk, restart, stop_within: STOP_WITHIN, hook, timer })
    }

    /// Has a service that is broken, or rests, built again now, with all failures forgotten. One that is up, or being
    /// built, goes on, and its next failure is its first.
    ///
    /// True where it was broken or resting; false otherwise, also for a service that nobody supervises.
    ///
    /// # Errors
    ///
    /// [`ForeignId`].
    ///
    /// ```
    /// use mainstay::{Doing, Registry, Restart};
    /// use std::{thread, time::Duration};
    ///
    /// let registry = Registry::with_capacity(1)?;
    /// let port = registry.register::<u16>("port")?;
    /// let restart = Restart::default().at_most(0, Duration::from_secs(60));
    /// let supervisor = registry.supervise(port)?.restart(restart);
    /// let mut tries = 0;
    /// thread::spawn(move || {
    ///     supervisor.run_blocking(move |_| {
    ///         tries += 1;
    ///         if tries > 1 { Ok(80) } else { Err("no port is free") }
    ///     })
    /// });
    /// while registry.status(port)?.supervision.unwrap().doing != Doing::Broken {
    ///     thread::yield_now();
    /// }
    /// assert!(registry.reset(port)?);
    /// assert_eq!(**registry.wait_ready(port).wait()?, 80);
    /// # registry.close();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn reset(&self, id: impl Into<AnyId>) -> Result<bool, ForeignId> {
        let index = self.index(id.into())?;
        let Some(desk) = self.supervised().desk(index) else { return Ok(false) };
        let waited = desk.reset();
        self.store().wake(index);
        Ok(waited)
    }
}

impl<T: Send + Sync + 'static> Supervisor<T> {
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
    /// [overtaken](Attempt::overtaken) is dropped and not polled again; so is one that takes too long, and one that
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

    /// Keeps the service up until the end; gives the instance that is up then.
    async fn keep_up<F, B, E>(&self, mut builder: Builder<F>) -> Option<Running<T>>
    where
        F: FnMut(Build<T>) -> B,
        B: Future<Output = Result<T, E>>,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        let mut charges = Charges::new(self.restart.clone());
        let mut rest = Rest { time: Duration::ZERO, since: self.now(), generation: 0 };
        // Of the instance before, that were not to be waited for any longer.
        let mut holders = 0;
        while self.rested(rest, &mut charges).await {
            let attempt = self.begin(&charges).await?;
            // A cascade ends the generation; an attempt that is given up does not.
            let mut generation = attempt.generation() + 1;
            // Of its reason this may be the last holder.
            let (failed, since) = match self.build(attempt, &charges, holders, &mut builder).await {
                Built::Running(running, graces) => {
                    charges.up(self.now());
                    self.desk.does(Doing::Up, charges.count(), None);
                    let failed = async { running.failed().await.ok().map(Shielded::new) };
                    let outlast = self.outlast(graces, running.generation());
                    let Some(failed) = or(failed, or(self.ended(), outlast)).await else {
                        return Some(running);
                    };
                    let since = self.now();
                    let Some(left) = self.drained(&running, &charges).await else {
                        return Some(running);
                    };
                    holders = left;
                    (failed, since)
                }
                Built::Overtaken(failure) => (Shielded::new(failure), self.now()),
                Built::GivenUp(failure) => {
                    generation -= 1;
                    (Shielded::new(failure), self.now())
                }
                Built::Ended => return None,
            };
            if self.desk.take_reset() {
                charges.forgive();
            }
            let verdict =
                if is_its_own(&failed) { charges.charge(since) } else { charges.spare(since) };
            match verdict {
                Verdict::Again(time) => rest = Rest { time, since, generation },
                Verdict::Broken => {
                    self.emit(failed.generation, EventKind::Broken(&failed));
                    self.desk.does(Doing::Broken, charges.count(), None);
                    drop(failed);
                    if self.told(true, None).await == Order::End {
                        return None;
                    }
                    charges.forgive();
                    rest = Rest { time: Duration::ZERO, since, generation };
                }
            }
        }
        None
    }

    /// Takes the service down for good.
    async fn stop(&self, running: Option<Running<T>>, hook: Shielded<Option<Hook<T>>>) {
        let until = self.now().checked_add(self.stop_within);
        self.desk.does(Doing::Stopping, 0, None);
        let work = async {
            if let Some(running) = running {
                let instance = Shielded::new(running.instance());
                let target = Target::Generation(running.generation());
                let reason = Shielded::new(Reason::ShutDown);
                self.registry().cascade(self.id().index(), target, reason);
                // Whatever of it is the user's is called, and dropped, in there; and the instance before it is drained.
                let work = move || match (hook.into_inner(), instance.into_inner()) {
                    (Some(hook), Some(instance)) => hook(instance),
                    _ => Box::pin(ready(())),
                };
                drop(Shielded::new(call(work).await));
                running.drained().await.ok();
            }
            true
        };
        let late = async {
            self.sleep_until(until).await;
            false
        };
        if or(work, late).await {
            self.desk.does(Doing::Stopped, 0, None);
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

    /// Waits until the readers of an instance that has failed have let go of it, for as long as the policy says; gives how
    /// many have not. `None` where this is the end.
    async fn drained(&self, running: &Running<T>, charges: &Charges) -> Option<usize> {
        let Some(within) = charges.restart().drain_within else { return Some(0) };
        let until = self.now().checked_add(within);
        self.desk.does(Doing::Draining, charges.count(), None);
        let drained = async {
            let _ = running.drained().await;
            Some(0)
        };
        let late = async {
            self.sleep_until(until).await;
            Some(running.holders())
        };
        or(self.ended(), or(drained, late)).await
    }

    /// Lets a rest pass. False where this is the end.
    async fn rested(&self, rest: Rest, charges: &mut Charges) -> bool {
        if rest.time.is_zero() {
            return true;
        }
        let until = rest.since.checked_add(rest.time);
        self.desk.does(Doing::Resting, charges.count(), until);
        let slept = async {
            self.sleep_until(until).await;
            Order::GoOn
        };
        match or(self.told(true, Some(rest.generation)), slept).await {
            Order::End => return false,
            Order::Reset => charges.forgive(),
            Order::GoOn => {}
        }
        true
    }

    /// The next attempt; `None` where this is the end.
    async fn begin(&self, charges: &Charges) -> Option<Attempt<T>> {
        self.desk.does(Doing::Building, charges.count(), None);
        or(self.ended(), async { self.provider.begin().await.ok() }).await
    }

    /// Waits for the end, to be polled beside something else.
    async fn ended<R>(&self) -> Option<R> {
        self.told(false, None).await;
        None
    }

    async fn build<F, B, E>(
        &self,
        attempt: Attempt<T>,
        charges: &Charges,
        holders: usize,
        builder: &mut Builder<F>,
    ) -> Built<T>
    where
        F: FnMut(Build<T>) -> B,
        B: Future<Output = Result<T, E>>,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        let timeout = charges.restart().build_timeout;
        let deadline = timeout.and_then(|timeout| self.now().checked_add(timeout));
        let (attempt, build) = build::begin(attempt, charges.count(), holders, deadline);
        let outcome = {
            let overtaken = async {
                let _ = attempt.overtaken().await;
                None
            };
            let late = async {
                self.sleep_until(deadline).await;
                Some(Err(TryError::timed_out(timeout).into()))
            };
            let built = async { Some(builder.build(build).await) };
            // In this order: what is of no use is polled no more.
            or(or(overtaken, self.ended()), or(built, late)).await
        };
        let attempt = attempt.end();
        let graces = attempt.uses.take_graces();
        let outcome = match outcome {
            // A blocking builder could not be stopped.
            Some(Ok(value)) if deadline.is_some_and(|deadline| self.now() > deadline) => {
                drop(Shielded::new(value));
                Some(Err(TryError::timed_out(timeout).into()))
            }
            outcome => outcome,
        };
        match outcome {
            Some(Ok(value)) => match attempt.ready(value) {
                Ok(running) => Built::Running(running, graces),
                Err(ReadyError::Overtaken { value, failure }) => {
                    drop(Shielded::new(value));
                    Built::Overtaken(failure)
                }
                Err(ReadyError::Closed { value, .. }) => {
                    drop(Shielded::new(value));
                    Built::Ended
                }
            },
            // Overtaken, or the end: it has nothing to say that would matter.
            None => self.failed(attempt, "overtaken".into()),
            Some(Err(reason)) => self.failed(attempt, reason),
        }
    }

    /// Gives the attempt up for this reason, unless a failure has come before it.
    fn failed(&self, attempt: Attempt<T>, reason: Box<dyn Error + Send + Sync>) -> Built<T> {
        let reason = Shielded::new(reason);
        if self.registry().is_closed() || self.desk.is_to_stop() {
            attempt.give_up(Reason::ShutDown);
            return Built::Ended;
        }
        match attempt.fail(reason.into_inner()) {
            Err(overtaken_by) => Built::Overtaken(overtaken_by),
            Ok(()) => match self.registry().store().last_failure(self.id().index()) {
                Some(failure) => Built::GivenUp(failure),
                None => unreachable!("an attempt was just given up"),
            },
        }
    }

    fn registry(&self) -> &Registry {
        &self.provider.registry
    }

    fn clock(&self) -> &dyn Clock {
        self.registry().clock()
    }

    fn now(&self) -> Instant {
        self.clock().now()
    }

    fn told(&self, resets: bool, rests_in: Option<u64>) -> Wait<Told<'_>> {
        let (registry, index) = (self.registry(), self.id().index());
        Wait::new(Told { registry, index, desk: &self.desk, resets, rests_in })
    }

    /// Never ends where there is no such moment.
    async fn sleep_until(&self, deadline: Option<Instant>) {
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

    fn emit(&self, generation: u64, kind: EventKind<'_>) {
        self.registry().emit(self.id().index(), generation, Duration::ZERO, kind);
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

/// Whether it is charged to the service, and not to something that it stands on.
fn is_its_own(failure: &Failure) -> bool {
    failure.root == failure.service && !matches!(failure.reason, Reason::NotBack { .. })
}

/// What came of one build.
enum Built<T: Send + Sync + 'static> {
    /// And what it can stand.
    Running(Running<T>, Vec<Grace>),
    Overtaken(Failure),
    GivenUp(Failure),
    Ended,
}

/// The pause before a build.
#[derive(Clone, Copy)]
struct Rest {
    time: Duration,
    /// The failure. What was drained after it is a part of the rest.
    since: Instant,
    /// In which the service is down. Where a cascade ends it before the time is up, something that the last build has
    /// used has failed, and with it perhaps what that build has failed for.
    generation: u64,
}
