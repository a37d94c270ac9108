//! `TestRuntime`: polls the tasks of a test on its own thread, with a virtual clock.

use std::{
    fmt,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Wake, Waker},
    time::{Duration, Instant},
};

use super::{
    Recorder, VirtualClock,
    task::{BoxedTask, TestTask},
};
use crate::{
    error::RegistryError,
    registry::{Registry, RegistryBuilder},
    supervise::Clock,
};

/// A registry with a virtual clock and a recorder, and an executor for the tasks of a test.
///
/// The tasks are supervisors and other futures of the test. They are polled on the thread of the
/// test, only within the methods of this type.
///
/// The tasks should wait only for the registry, its services and the virtual clock. The runtime
/// does not wait for wake-ups from elsewhere, such as sockets, other threads or real timers: it
/// may return before they come.
///
/// ```
/// use mainstay::{error::WaitForError, test_kit::TestRuntime};
/// use std::time::Duration;
///
/// let mut runtime = TestRuntime::new(2)?;
/// let config = runtime.registry.register::<u16>("config")?;
/// let server = runtime.registry.register::<String>("server")?;
/// let run = runtime.registry.supervise(config)?.run(|_| async { Ok::<_, std::io::Error>(80) });
/// runtime.spawn(run);
/// let run = runtime.registry.supervise(server)?.run(async move |build| {
///     Ok::<_, WaitForError>(format!("localhost:{}", **build.wait_for(config).await?))
/// });
/// runtime.spawn(run);
/// runtime.run_until_idle();
/// assert_eq!(*runtime.registry.get(server)?, "localhost:80");
///
/// runtime.registry.fail(config, "edited")?;
/// runtime.run_until_idle();
/// assert!(runtime.registry.get(server).is_err(), "`config` is backing off");
/// runtime.advance(Duration::from_millis(100));
/// runtime.recorder.assert_order(&[
///     "config 0: failed: edited",
///     "server 0: failed because config failed: edited",
///     "config 1: ready",
///     "server 1: ready",
/// ]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct TestRuntime {
    /// The registry.
    pub registry: Registry,
    /// The clock of the registry.
    pub clock: VirtualClock,
    /// The observer of the registry.
    pub recorder: Recorder,
    /// The tasks that have not ended, in the order in which they are polled.
    pub tasks: Vec<BoxedTask>,
    woken: Arc<Woken>,
}

/// The number of rounds after which the tasks of a test are considered endless.
pub(super) const MAX_ROUNDS: u32 = 100_000;

/// The waker of all tasks: records that at least one of them was woken. Relaxed is sufficient: the
/// flag only decides about another round, and a wake-up from another thread is not waited for.
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl TestRuntime {
    /// Creates a runtime with an empty registry for at most `capacity` services.
    ///
    /// # Errors
    ///
    /// As [`Registry::builder`].
    ///
    /// ```
    /// let runtime = mainstay::test_kit::TestRuntime::new(8)?;
    /// assert!(runtime.registry.list().services.is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn new(capacity: usize) -> Result<Self, RegistryError> {
        Ok(Self::with_builder(Registry::builder(capacity)?))
    }

    /// Creates a runtime with the registry of a builder: with its observers, its services and their
    /// edges.
    ///
    /// The runtime replaces the clock of the builder, and adds its recorder after the observers.
    ///
    /// ```
    /// use mainstay::{Registry, test_kit::TestRuntime};
    ///
    /// let mut builder = Registry::builder(2)?;
    /// let config = builder.register::<String>("config")?;
    /// let port = builder.register::<u16>("port")?;
    /// builder.depends(port).on(config)?;
    /// let runtime = TestRuntime::with_builder(builder);
    /// assert_eq!(runtime.registry.status(config)?.dependents, ["port"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn with_builder(builder: RegistryBuilder) -> Self {
        let (clock, recorder) = (VirtualClock::new(), Recorder::default());
        let registry = builder.clock(clock.clone()).observer(recorder.clone()).build();
        let woken = Arc::new(Woken(AtomicBool::new(false)));
        Self { registry, clock, recorder, tasks: Vec::new(), woken }
    }

    /// Adds a task. It is polled for the first time in the next call of
    /// [`run_until_idle`](Self::run_until_idle) or of a method that advances the time.
    ///
    /// The returned handle can [cancel](TestTask::cancel) the task; its drop does nothing.
    ///
    /// ```
    /// let mut runtime = mainstay::test_kit::TestRuntime::new(1)?;
    /// runtime.spawn(async {});
    /// runtime.run_until_idle();
    /// assert!(runtime.tasks.is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) -> TestTask {
        let (task, handle) = TestTask::new(Box::pin(task));
        self.tasks.push(Box::pin(task));
        handle
    }

    /// Polls all tasks until none of them can continue without an advance of the time.
    ///
    /// Tasks that have ended are removed from [`tasks`](Self::tasks).
    ///
    /// # Panics
    ///
    /// After 100,000 rounds a task is still woken in each round. A panic of a task is propagated.
    ///
    /// ```
    /// # let mut runtime = mainstay::test_kit::TestRuntime::new(1)?;
    /// # let port = runtime.registry.register::<u16>("port")?;
    /// let supervisor = runtime.registry.supervise(port)?;
    /// runtime.spawn(supervisor.run(|_| async { "80".parse::<u16>() }));
    /// runtime.run_until_idle();
    /// assert_eq!(*runtime.registry.get(port)?, 80);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn run_until_idle(&mut self) {
        let waker = Waker::from(Arc::clone(&self.woken));
        let mut context = Context::from_waker(&waker);
        for _ in 0..MAX_ROUNDS {
            self.woken.0.store(false, Ordering::Relaxed);
            self.tasks.retain_mut(|task| task.as_mut().poll(&mut context).is_pending());
            if !self.woken.0.load(Ordering::Relaxed) {
                return;
            }
        }
        panic!("the runtime does not become idle: a task is still woken after {MAX_ROUNDS} rounds");
    }

    /// Advances the clock by `time`, in steps, and runs the tasks until idle after each step.
    ///
    /// Each step ends at the next time for which a task sleeps. If the end is beyond the range of
    /// [`Instant`], as with [`Duration::MAX`], the time passes until no task sleeps any more, and
    /// the clock stops there.
    ///
    /// # Panics
    ///
    /// As [`run_until_idle`](Self::run_until_idle). Also if the end is beyond the range of
    /// [`Instant`], and a task still sleeps after 100,000 steps: some tasks sleep again and again.
    ///
    /// ```
    /// use mainstay::supervise::Clock;
    /// use std::time::Duration;
    ///
    /// let mut runtime = mainstay::test_kit::TestRuntime::new(1)?;
    /// let clock = runtime.clock.clone();
    /// runtime.spawn(async move {
    ///     for _ in 0..3 {
    ///         clock.sleep_until(clock.now() + Duration::from_secs(1)).await;
    ///     }
    /// });
    /// runtime.advance(Duration::from_millis(2_999));
    /// assert_eq!(runtime.tasks.len(), 1);
    /// runtime.advance(Duration::from_millis(1));
    /// assert!(runtime.tasks.is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn advance(&mut self, time: Duration) {
        let mut end = End::after(time, self.clock.now());
        self.run_until_idle();
        while self.advance_to_next(&mut end) {
            self.run_until_idle();
        }
        // No task sleeps for a time within the remaining part.
        if let End::At(end) = end {
            self.clock.advance(end.saturating_duration_since(self.clock.now()));
            self.run_until_idle();
        }
    }

    /// Advances the clock until the condition holds, at most by `within`. Returns whether it holds.
    ///
    /// The condition is checked at each time for which a task sleeps, after the tasks have run
    /// until idle. The clock stops at the time at which the condition holds, or at the last such
    /// time. So with [`Duration::MAX`] it returns `false` when no task sleeps any more.
    ///
    /// # Panics
    ///
    /// As [`advance`](Self::advance).
    ///
    /// ```
    /// use mainstay::test_kit::{BuildOutcome, Script};
    /// use std::time::Duration;
    ///
    /// let mut runtime = mainstay::test_kit::TestRuntime::new(1)?;
    /// let port = runtime.registry.register::<u16>("port")?;
    /// let script = Script::default();
    /// (0..5).for_each(|_| script.push(BuildOutcome::Fail("no port is free".into())));
    /// let supervisor = runtime.registry.supervise(port)?;
    /// runtime.spawn(supervisor.run(async move |_| script.step().await.map(|()| 80)));
    /// let is_ready = runtime.advance_until(Duration::from_secs(60), |r| r.get(port).is_ok());
    /// assert!(is_ready);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn advance_until(
        &mut self,
        within: Duration,
        mut holds: impl FnMut(&Registry) -> bool,
    ) -> bool {
        let mut end = End::after(within, self.clock.now());
        loop {
            self.run_until_idle();
            if holds(&self.registry) {
                return true;
            }
            // If no task sleeps until the end, nothing can change before it.
            if !self.advance_to_next(&mut end) {
                return false;
            }
        }
    }

    /// Advances the clock to the next time for which a task sleeps. Returns `false`, without an
    /// advance, if no task sleeps for a time until the end.
    #[track_caller]
    fn advance_to_next(&self, end: &mut End) -> bool {
        let Some(next) = self.clock.next_in() else { return false };
        match end {
            End::At(end) => {
                if next > end.saturating_duration_since(self.clock.now()) {
                    return false;
                }
            }
            End::LastSleeper { steps: MAX_ROUNDS } => {
                panic!("the tasks do not stop sleeping: one still sleeps after {MAX_ROUNDS} steps")
            }
            End::LastSleeper { steps } => *steps += 1,
        }
        self.clock.advance(next);
        true
    }
}

/// How far a call advances the time.
enum End {
    At(Instant),
    /// Until no task sleeps, because the end is beyond the range of `Instant`. The steps are
    /// counted: a task that sleeps again and again would take forever.
    LastSleeper {
        steps: u32,
    },
}

impl End {
    fn after(time: Duration, now: Instant) -> Self {
        now.checked_add(time).map_or(Self::LastSleeper { steps: 0 }, Self::At)
    }
}

impl fmt::Debug for TestRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestRuntime")
            .field("registry", &self.registry)
            .field("clock", &self.clock)
            .field("tasks", &self.tasks.len())
            .finish_non_exhaustive()
    }
}
