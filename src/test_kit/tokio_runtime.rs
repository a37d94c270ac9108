//! `TokioTestRuntime`: the tasks of a test on a runtime of tokio whose time is paused.
//!
//! tokio advances a paused time by itself, to the next timer, when its only thread is about to park
//! and no task of its blocking pool is in progress. This file decides when the thread may park:
//! tokio calls a function of this file before that, which wakes the future that drives the test,
//! unless that future has let the time pass.

use std::{
    fmt,
    future::{Future, poll_fn},
    panic::resume_unwind,
    pin::{Pin, pin},
    sync::{Arc, Condvar, PoisonError},
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use tokio::{
    runtime::{Builder, Handle, Runtime},
    task::JoinHandle,
    time,
};

use super::{Recorder, runtime::MAX_ROUNDS, task::TestTask};
use crate::{
    clock::ShieldedSleep,
    error::RegistryError,
    registry::{Registry, RegistryBuilder},
    supervise::{Clock, Sleep},
    sync::Flag,
};

/// A registry and a runtime of tokio for the tasks of a test, on the thread of the test, with the
/// paused time of tokio.
///
/// It has the methods of [`TestRuntime`](super::TestRuntime), and is for tasks that use tokio
/// itself: its timers ([`tokio::time`]), its blocking pool
/// ([`spawn_blocking`](tokio::task::spawn_blocking)), or its tasks. Prefer `TestRuntime` for all
/// others: it polls nothing but its own tasks.
///
/// The tasks run only within the methods of this type. The clock of the registry is the time of
/// this runtime, on every thread.
///
/// # Time and the blocking pool
///
/// The time passes only in [`advance`](Self::advance) and [`advance_until`](Self::advance_until),
/// from timer to timer. A function of the blocking pool takes no time: the time does not pass while
/// one is in progress, and each method returns only after all of them have returned, however long
/// that takes in real time. (Only a condition of `advance_until` may hold before that.) So a test
/// does not depend on the speed of the machine.
///
/// Therefore a function of the blocking pool must not wait for the time, as a supervisor in
/// [`run_blocking`](crate::supervise::Supervisor::run_blocking) does: each would wait for the other
/// one. A method panics if one is still in progress after a minute. Wake-ups from elsewhere, such
/// as other threads and sockets, are not waited for.
///
/// tokio's timers have a resolution of a millisecond, and end late by less than that.
///
/// ```
/// use mainstay::{supervise::RestartPolicy, test_kit::TokioTestRuntime};
/// use std::time::Duration;
///
/// let mut runtime = TokioTestRuntime::new(1)?;
/// let rows = runtime.registry.register::<usize>("rows")?;
/// let minute = Duration::from_secs(60);
/// let policy = RestartPolicy::default().backoff(minute, minute).without_jitter();
/// let supervisor = runtime.registry.supervise(rows)?.restart_policy(policy);
/// runtime.spawn(supervisor.run(async |build| {
///     tokio::time::sleep(Duration::from_secs(5)).await;
///     let number = build.number();
///     let read = tokio::task::spawn_blocking(move || match number {
///         1 => Err("the disk is busy"),
///         _ => Ok(7),
///     });
///     read.await.expect("it does not panic")
/// }));
///
/// runtime.advance(Duration::from_secs(5));
/// runtime.recorder.assert_order(&["rows 0: attempt failed: the disk is busy"]);
/// let start = runtime.registry.clock().now();
/// assert!(runtime.advance_until(Duration::MAX, |registry| registry.get(rows).is_ok()));
/// let took = runtime.registry.clock().now() - start;
/// assert_eq!(took.as_secs(), 65);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct TokioTestRuntime {
    /// The registry.
    pub registry: Registry,
    /// The last observer of the registry.
    pub recorder: Recorder,
    tasks: Vec<(TestTask, JoinHandle<()>)>,
    shared: Arc<Shared>,
    /// `None` in the drop only.
    runtime: Option<Runtime>,
}

/// How many polls of the tasks may follow each other before the runtime is idle once.
const MAX_POLLS: u32 = 10 * MAX_ROUNDS;

/// The real time after which a function of the blocking pool is considered endless.
const BLOCKING_LIMIT: Duration = Duration::from_secs(60);

/// As far as tokio's timers reach.
const FAR: Duration = Duration::from_secs(30 * 365 * 86_400);

impl TokioTestRuntime {
    /// Creates a runtime with an empty registry for at most `capacity` services.
    ///
    /// # Errors
    ///
    /// As [`Registry::builder`].
    ///
    /// # Panics
    ///
    /// tokio cannot create a runtime.
    ///
    /// ```
    /// let runtime = mainstay::test_kit::TokioTestRuntime::new(8)?;
    /// assert!(runtime.registry.list().services.is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn new(capacity: usize) -> Result<Self, RegistryError> {
        Ok(Self::with_builder(Registry::builder(capacity)?))
    }

    /// Creates a runtime with the registry of a builder, as
    /// [`TestRuntime::with_builder`](super::TestRuntime::with_builder): it replaces the clock, and
    /// adds its recorder after the observers.
    ///
    /// # Panics
    ///
    /// tokio cannot create a runtime.
    ///
    /// ```
    /// use mainstay::{Registry, test_kit::TokioTestRuntime};
    ///
    /// let mut builder = Registry::builder(1)?;
    /// let port = builder.register::<u16>("port")?;
    /// let runtime = TokioTestRuntime::with_builder(builder);
    /// assert!(runtime.registry.get(port).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn with_builder(builder: RegistryBuilder) -> Self {
        let shared = Arc::<Shared>::default();
        let [parks, starts, stops] = [(); 3].map(|()| Arc::clone(&shared));
        let runtime = Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .on_thread_park(move || parks.about_to_park())
            .on_thread_start(move || starts.count_thread(1))
            .on_thread_stop(move || stops.count_thread(-1))
            // So that a thread of the pool stops when its function has returned.
            .thread_keep_alive(Duration::ZERO)
            .build()
            .expect("tokio cannot create a runtime");
        let recorder = Recorder::default();
        let clock = PausedClock(runtime.handle().clone());
        let registry = builder.clock(clock).observer(recorder.clone()).build();
        Self { registry, recorder, tasks: Vec::new(), shared, runtime: Some(runtime) }
    }

    /// Adds a task, as [`TestRuntime::spawn`](super::TestRuntime::spawn).
    ///
    /// ```
    /// let mut runtime = mainstay::test_kit::TokioTestRuntime::new(1)?;
    /// let task = runtime.spawn(async {
    ///     tokio::task::spawn_blocking(|| 7).await.unwrap();
    /// });
    /// runtime.run_until_idle();
    /// assert!(task.has_ended());
    /// assert_eq!(runtime.tasks(), 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) -> TestTask {
        let (task, handle) = TestTask::new(Box::pin(task));
        let task = Counted { task: Box::pin(task), shared: Arc::clone(&self.shared) };
        self.tasks.push((handle.clone(), self.runtime().spawn(task)));
        handle
    }

    /// Returns the number of tasks that have not ended.
    ///
    /// ```
    /// let mut runtime = mainstay::test_kit::TokioTestRuntime::new(1)?;
    /// runtime.spawn(std::future::pending());
    /// assert_eq!(runtime.tasks(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn tasks(&self) -> usize {
        self.tasks.iter().filter(|(task, _)| !task.has_ended()).count()
    }

    /// Runs all tasks until none of them can continue without an advance of the time, and all
    /// functions of the blocking pool have returned. The time does not pass.
    ///
    /// # Panics
    ///
    /// A task is woken again and again, or a function of the blocking pool does not return within a
    /// minute of real time. A panic of a task is propagated. (A task that was spawned on tokio
    /// itself is not counted: if it is woken again and again, this call never returns.)
    ///
    /// ```
    /// use mainstay::supervise::Clock;
    ///
    /// let mut runtime = mainstay::test_kit::TokioTestRuntime::new(1)?;
    /// let port = runtime.registry.register::<u16>("port")?;
    /// runtime.spawn(runtime.registry.supervise(port)?.run(async |_| {
    ///     tokio::task::spawn_blocking(|| "80".parse::<u16>()).await.unwrap()
    /// }));
    /// let start = runtime.registry.clock().now();
    /// runtime.run_until_idle();
    /// assert_eq!(*runtime.registry.get(port)?, 80);
    /// assert_eq!(runtime.registry.clock().now(), start);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn run_until_idle(&mut self) {
        self.advance_until(Duration::ZERO, |_| true);
    }

    /// Advances the time by `time`, from timer to timer, and runs the tasks until idle after each.
    ///
    /// At most by thirty years, which is as far as tokio's timers reach. So with [`Duration::MAX`]
    /// all sleeping tasks are woken.
    ///
    /// # Panics
    ///
    /// As [`run_until_idle`](Self::run_until_idle). Also if `time` is more than thirty years, and
    /// 100,000 timers have ended before that: some tasks sleep again and again.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let mut runtime = mainstay::test_kit::TokioTestRuntime::new(1)?;
    /// runtime.spawn(async {
    ///     for _ in 0..3 {
    ///         tokio::time::sleep(Duration::from_secs(1)).await;
    ///     }
    /// });
    /// runtime.advance(Duration::from_millis(2_990));
    /// assert_eq!(runtime.tasks(), 1);
    /// runtime.advance(Duration::from_millis(20));
    /// assert_eq!(runtime.tasks(), 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn advance(&mut self, time: Duration) {
        self.advance_until(time, |_| false);
    }

    /// Advances the time until the condition holds, at most by `within`. Returns whether it holds.
    ///
    /// The condition is checked before the time passes, and then each time that the tasks are idle:
    /// at least once after each timer. The time stops when it holds; if it never does, after
    /// `within`.
    ///
    /// # Panics
    ///
    /// As [`advance`](Self::advance).
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let mut runtime = mainstay::test_kit::TokioTestRuntime::new(1)?;
    /// let port = runtime.registry.register::<u16>("port")?;
    /// runtime.spawn(runtime.registry.supervise(port)?.run(async |_| {
    ///     tokio::time::sleep(Duration::from_secs(1)).await;
    ///     80
    /// }));
    /// let is_ready = |registry: &mainstay::Registry| registry.get(port).is_ok();
    /// assert!(!runtime.advance_until(Duration::from_millis(500), is_ready));
    /// assert!(runtime.advance_until(Duration::from_secs(60), is_ready));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn advance_until(
        &mut self,
        within: Duration,
        mut holds: impl FnMut(&Registry) -> bool,
    ) -> bool {
        let (registry, shared) = (self.registry.clone(), Arc::clone(&self.shared));
        let driven = self.runtime().block_on(async {
            shared.empty_pool().await?;
            if holds(&registry) {
                return Ok(true);
            }
            if within.is_zero() {
                return Ok(false);
            }
            if shared.pass_time(within, || holds(&registry)).await? {
                return Ok(true);
            }
            shared.empty_pool().await?;
            Ok(holds(&registry))
        });
        self.remove_ended();
        driven.unwrap_or_else(|endless: Endless| panic!("{endless}"))
    }

    /// Removes the tasks that have ended, and propagates their panics.
    #[track_caller]
    fn remove_ended(&mut self) {
        let (ended, tasks) = std::mem::take(&mut self.tasks)
            .into_iter()
            .partition(|(_, joined): &(TestTask, JoinHandle<()>)| joined.is_finished());
        self.tasks = tasks;
        for (_, joined) in ended {
            if let Err(error) = self.runtime().block_on(joined) {
                if let Ok(panic) = error.try_into_panic() {
                    resume_unwind(panic);
                }
            }
        }
    }

    fn runtime(&self) -> &Runtime {
        match &self.runtime {
            Some(runtime) => runtime,
            None => unreachable!("only the drop takes it"),
        }
    }
}

impl Drop for TokioTestRuntime {
    fn drop(&mut self) {
        // A function of the pool that never returns must not block a test that has failed.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl fmt::Debug for TokioTestRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokioTestRuntime")
            .field("registry", &self.registry)
            .field("tasks", &self.tasks())
            .finish_non_exhaustive()
    }
}

/// What the functions that tokio calls share with the future that drives the test.
#[derive(Default)]
struct Shared {
    driver: std::sync::Mutex<Driver>,
    /// The number of threads of the blocking pool, each of which runs one function.
    threads: std::sync::Mutex<i32>,
    thread_stopped: Condvar,
}

#[derive(Default)]
struct Driver {
    /// The waker of the future that drives the test, if it waits until the runtime is idle.
    waker: Option<Waker>,
    /// The runtime is idle, and has woken the driver.
    is_idle: bool,
    /// The runtime may park without waking the driver, so that the time passes.
    may_park: bool,
    /// The polls of tasks since the runtime was idle.
    polls: u32,
}

/// Why the runtime does not wait until it is idle any longer.
#[derive(Debug)]
enum Endless {
    Polls,
    Timers,
    Blocking,
}

impl fmt::Display for Endless {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Polls => write!(
                f,
                "the runtime does not become idle: a task is still woken after {MAX_POLLS} polls"
            ),
            Self::Timers => write!(
                f,
                "the tasks do not stop sleeping: one still sleeps after {MAX_ROUNDS} timers"
            ),
            Self::Blocking => write!(
                f,
                "a function of the blocking pool has not returned after {BLOCKING_LIMIT:?}"
            ),
        }
    }
}

fn locked<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    // Called by tokio.

    /// Called on the thread of the runtime when no task is ready.
    fn about_to_park(&self) {
        let waker = {
            let mut driver = locked(&self.driver);
            driver.polls = 0;
            if std::mem::take(&mut driver.may_park) {
                return;
            }
            driver.is_idle = true;
            driver.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn count_thread(&self, change: i32) {
        *locked(&self.threads) += change;
        self.thread_stopped.notify_all();
    }

    /// Called before each poll of a task.
    fn count_poll(&self) {
        let waker = {
            let mut driver = locked(&self.driver);
            // The poll may change the condition.
            driver.may_park = false;
            driver.polls += 1;
            if driver.polls == MAX_POLLS { driver.waker.take() } else { None }
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    // The driver.

    /// Waits until the runtime is idle. Returns `Pending` until then, so that tokio runs the tasks.
    fn poll_idle(&self, context: &mut Context<'_>) -> Poll<Result<(), Endless>> {
        let mut driver = locked(&self.driver);
        if driver.polls >= MAX_POLLS {
            driver.polls = 0;
            return Poll::Ready(Err(Endless::Polls));
        }
        if std::mem::take(&mut driver.is_idle) {
            return Poll::Ready(Ok(()));
        }
        driver.waker = Some(context.waker().clone());
        Poll::Pending
    }

    /// Waits until the runtime is idle and the blocking pool is empty, without a change of the
    /// time: the runtime is woken each time that it is about to park.
    async fn empty_pool(&self) -> Result<(), Endless> {
        let start = Instant::now();
        loop {
            locked(&self.driver).is_idle = false;
            poll_fn(|context| self.poll_idle(context)).await?;
            // The pool executes its functions in the order in which they were spawned, and counts a
            // thread before the first function of this thread. So when this function runs, each
            // function that was spawned before has a thread that is counted, or has returned.
            let has_run = Arc::new(Flag::new());
            let runs = Arc::clone(&has_run);
            drop(tokio::task::spawn_blocking(move || runs.set()));
            let metrics = Handle::current().metrics();
            loop {
                // A function has woken a task, or a thread outside of the runtime has.
                let is_woken = metrics.global_queue_depth() > 0;
                let threads = locked(&self.threads);
                if is_woken {
                    break;
                }
                if *threads == 0 && has_run.is_set() {
                    drop(threads);
                    // The last function has woken its task before its thread stopped.
                    if metrics.global_queue_depth() == 0 {
                        return Ok(());
                    }
                    break;
                }
                if start.elapsed() > BLOCKING_LIMIT {
                    return Err(Endless::Blocking);
                }
                let moment = Duration::from_millis(1);
                drop(self.thread_stopped.wait_timeout(threads, moment));
            }
        }
    }

    /// Lets the time pass, at most for `within`. Returns whether the condition holds, which is
    /// checked each time that the runtime is idle.
    async fn pass_time(
        &self,
        within: Duration,
        mut holds: impl FnMut() -> bool,
    ) -> Result<bool, Endless> {
        let start = time::Instant::now();
        let is_far = within > FAR;
        let mut end = pin!(time::sleep_until(start + within.min(FAR)));
        let (mut last, mut steps) = (start, 0);
        {
            // It was checked at the present time.
            let mut driver = locked(&self.driver);
            (driver.is_idle, driver.may_park) = (false, true);
        }
        poll_fn(|context| {
            if end.as_mut().poll(context).is_ready() {
                locked(&self.driver).may_park = false;
                return Poll::Ready(Ok(false));
            }
            while let Poll::Ready(idle) = self.poll_idle(context) {
                idle?;
                if holds() {
                    return Poll::Ready(Ok(true));
                }
                let now = time::Instant::now();
                steps += u32::from(now != last);
                last = now;
                if is_far && steps > MAX_ROUNDS {
                    return Poll::Ready(Err(Endless::Timers));
                }
                locked(&self.driver).may_park = true;
            }
            Poll::Pending
        })
        .await
    }
}

/// A task whose polls are counted.
struct Counted {
    task: super::task::BoxedTask,
    shared: Arc<Shared>,
}

impl Future for Counted {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.shared.count_poll();
        self.task.as_mut().poll(context)
    }
}

/// The time of one runtime, on every thread.
struct PausedClock(Handle);

impl Clock for PausedClock {
    fn now(&self) -> Instant {
        let _context = self.0.enter();
        time::Instant::now().into_std()
    }

    fn sleep_until(&self, deadline: Instant) -> Sleep {
        let sleep = {
            let _context = self.0.enter();
            time::sleep_until(deadline.into())
        };
        // A panic of a waker would end the thread that drives the runtime.
        Box::pin(ShieldedSleep::new(Box::pin(sleep)))
    }
}
