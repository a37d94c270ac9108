//! Where services run in a test: on its own thread, under a clock that stands.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Wake, Waker},
    time::Duration,
};

use super::{Recorder, VirtualClock};
use crate::{error::BuildError, registry::Registry, supervise::Clock};

/// A registry with a clock that stands and a record of its events, and the futures that run in it: supervisors, and
/// whatever else the test is about. All is polled on the test's own thread, when that says so.
///
/// Only what waits by the registry, its services and this clock is seen to move. What is woken from elsewhere, such as a
/// socket, or has a time of its own, does not settle reliably.
///
/// ```
/// use mainstay::{Stage, WaitForError};
/// use std::time::Duration;
///
/// let mut stage = Stage::new(2)?;
/// let config = stage.registry.register::<u16>("config")?;
/// let server = stage.registry.register::<String>("server")?;
/// let run = stage.registry.supervise(config)?.run(|_| async { Ok::<_, std::io::Error>(80) });
/// stage.run(run);
/// let run = stage.registry.supervise(server)?.run(move |build| async move {
///     Ok::<_, WaitForError>(format!("localhost:{}", **build.wait_for(config).await?))
/// });
/// stage.run(run);
/// stage.settle();
/// assert_eq!(*stage.registry.get(server)?, "localhost:80");
///
/// stage.registry.fail(config, "edited")?;
/// stage.settle();
/// assert!(stage.registry.get(server).is_err(), "it rests, as it was up for no time");
/// stage.advance(Duration::from_millis(100));
/// stage.recorder.assert_order(&[
///     "config 0: failed: edited",
///     "server 0: failed with config: edited",
///     "config 1: ready",
///     "server 1: ready",
/// ]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Stage {
    /// The registry.
    pub registry: Registry,
    /// Its time.
    pub clock: VirtualClock,
    /// What happened in it.
    pub recorder: Recorder,
    /// The futures that run, in the order in which they are polled. Those that have ended are taken out.
    pub tasks: Vec<Pin<Box<dyn Future<Output = ()> + Send>>>,
    woken: Arc<Woken>,
}

/// That somebody was woken.
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Stage {
    /// An empty stage, with room for so many services.
    ///
    /// # Errors
    ///
    /// As [`Registry::builder`].
    ///
    /// ```
    /// let stage = mainstay::Stage::new(8)?;
    /// assert!(stage.registry.list().services.is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn new(capacity: usize) -> Result<Self, BuildError> {
        let (clock, recorder) = (VirtualClock::new(), Recorder::default());
        let builder = Registry::builder(capacity)?.clock(clock.clone()).observer(recorder.clone());
        let (registry, woken) = (builder.build(), Arc::new(Woken(AtomicBool::new(false))));
        Ok(Self { registry, clock, recorder, tasks: Vec::new(), woken })
    }

    /// Takes a future on, to be polled from the next [`settle`](Self::settle) on.
    ///
    /// ```
    /// let mut stage = mainstay::Stage::new(1)?;
    /// stage.run(async {});
    /// stage.settle();
    /// assert!(stage.tasks.is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn run(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.push(Box::pin(task));
    }

    /// Polls all until nothing moves any more without time passing.
    ///
    /// # Panics
    ///
    /// It does not come to rest: somebody wakes, or is woken, without end. A panic of a task is passed on.
    ///
    /// ```
    /// # let mut stage = mainstay::Stage::new(1)?;
    /// # let port = stage.registry.register::<u16>("port")?;
    /// let supervisor = stage.registry.supervise(port)?;
    /// stage.run(supervisor.run(|_| async { "80".parse::<u16>() }));
    /// stage.settle();
    /// assert_eq!(*stage.registry.get(port)?, 80);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn settle(&mut self) {
        const ROUNDS: u32 = 100_000;
        let waker = Waker::from(Arc::clone(&self.woken));
        let mut context = Context::from_waker(&waker);
        for _ in 0..ROUNDS {
            self.woken.0.store(false, Ordering::Relaxed);
            self.tasks.retain_mut(|task| task.as_mut().poll(&mut context).is_pending());
            if !self.woken.0.load(Ordering::Relaxed) {
                return;
            }
        }
        panic!("it does not settle: after {ROUNDS} rounds somebody is woken still");
    }

    /// Lets so much time pass, from one moment for which somebody sleeps to the next, and settles at each.
    ///
    /// # Panics
    ///
    /// As [`settle`](Self::settle).
    ///
    /// ```
    /// use mainstay::Clock;
    /// use std::time::Duration;
    ///
    /// let mut stage = mainstay::Stage::new(1)?;
    /// let clock = stage.clock.clone();
    /// stage.run(async move {
    ///     for _ in 0..3 {
    ///         clock.sleep_until(clock.now() + Duration::from_secs(1)).await;
    ///     }
    /// });
    /// stage.advance(Duration::from_millis(2_999));
    /// assert_eq!(stage.tasks.len(), 1);
    /// stage.advance(Duration::from_millis(1));
    /// assert!(stage.tasks.is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn advance(&mut self, time: Duration) {
        let end = self.clock.now().checked_add(time);
        self.settle();
        while let Some(left) = end.map(|end| end.saturating_duration_since(self.clock.now())) {
            match self.clock.next_in() {
                Some(next) if next <= left => self.clock.advance(next),
                _ => {
                    self.clock.advance(left);
                    return self.settle();
                }
            }
            self.settle();
        }
    }

    /// Lets time pass until this holds, at most for so long; whether it does in the end.
    ///
    /// # Panics
    ///
    /// As [`settle`](Self::settle).
    ///
    /// ```
    /// use mainstay::{Fate, Script};
    /// use std::time::Duration;
    ///
    /// let mut stage = mainstay::Stage::new(1)?;
    /// let port = stage.registry.register::<u16>("port")?;
    /// let script = Script::default();
    /// (0..5).for_each(|_| script.push(Fate::Fail("no port is free".into())));
    /// let supervisor = stage.registry.supervise(port)?;
    /// stage.run(supervisor.run(script.over(|_| async { Ok::<_, std::io::Error>(80) })));
    /// assert!(stage.advance_until(Duration::from_secs(60), |registry| registry.get(port).is_ok()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn advance_until(
        &mut self,
        within: Duration,
        mut holds: impl FnMut(&Registry) -> bool,
    ) -> bool {
        let end = self.clock.now().checked_add(within);
        loop {
            self.settle();
            if holds(&self.registry) {
                return true;
            }
            let left = end.map(|end| end.saturating_duration_since(self.clock.now()));
            match self.clock.next_in() {
                Some(next) if left.is_none_or(|left| next <= left) => self.clock.advance(next),
                _ => return false,
            }
        }
    }
}

impl fmt::Debug for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stage")
            .field("registry", &self.registry)
            .field("clock", &self.clock)
            .field("tasks", &self.tasks.len())
            .finish_non_exhaustive()
    }
}
