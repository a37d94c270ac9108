//! What is known of a supervised service outside its supervisor: what it is doing, and what it has been told.

use std::{
    collections::HashMap,
    fmt, mem,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Clock, SystemClock, progress::Progress};
use crate::{
    registry::Registry,
    store::Store,
    sync::{Mutex, lock},
    wait::sealed::Condition,
};

/// What a supervisor is doing about its service.
///
/// ```
/// use mainstay::Doing;
///
/// assert_eq!(Doing::Resting.to_string(), "resting");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "lowercase"))]
pub enum Doing {
    /// Nothing: it does not run yet.
    Nothing,
    /// It builds an instance, or waits for what that is built from.
    Building,
    /// An instance is up, and watched.
    Up,
    /// Its instance has failed, and its readers are given time to [let go](crate::Restart::drain_within) of it.
    Draining,
    /// It lets some time pass before the next build.
    Resting,
    /// There were too many failures. It stays down until [`Registry::reset`].
    Broken,
    /// The registry is shut down: it has taken its service down, and sees to the rest.
    Stopping,
    /// It has done so.
    Stopped,
}

impl fmt::Display for Doing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Nothing => "not run",
            Self::Building => "building",
            Self::Up => "up",
            Self::Draining => "draining",
            Self::Resting => "resting",
            Self::Broken => "broken",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
        })
    }
}

/// How a supervised service is; see [`ServiceStatus`](crate::ServiceStatus).
///
/// ```
/// use mainstay::{Doing, Registry, Restart};
/// use std::{thread, time::Duration};
///
/// let registry = Registry::with_capacity(1)?;
/// let port = registry.register::<u16>("port")?;
/// let restart = Restart::default().at_most(0, Duration::from_secs(60));
/// let supervisor = registry.supervise(port)?.restart(restart);
/// thread::spawn(|| supervisor.run_blocking(|_| Err("no port is free")));
///
/// let status = || registry.status(port).unwrap();
/// while status().supervision.unwrap().doing != Doing::Broken {
///     thread::yield_now();
/// }
/// assert_eq!(status().last_failure.unwrap().to_string(), "port failed: no port is free");
/// # registry.close();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Supervision {
    /// What its supervisor is doing.
    pub doing: Doing,
    /// How many failures it has been charged with since it was last stable.
    pub charges: u32,
    /// Of one that rests: until the next build.
    pub next_try_in: Option<Duration>,
}

/// All that are supervised, and their time.
pub(crate) struct Supervised {
    pub(crate) clock: Arc<dyn Clock>,
    services: Mutex<HashMap<u32, Arc<Desk>>>,
    /// Each that has stopped is a step.
    pub(super) progress: Progress,
}

impl Default for Supervised {
    fn default() -> Self {
        let (services, progress) = (Mutex::default(), Progress::default());
        Self { clock: Arc::new(SystemClock), services, progress }
    }
}

impl Supervised {
    pub(super) fn begin(&self, index: u32) -> Arc<Desk> {
        let desk = Arc::<Desk>::default();
        lock(&self.services).insert(index, Arc::clone(&desk));
        desk
    }

    pub(super) fn end(&self, index: u32, desk: &Desk) {
        lock(&self.services).remove(&index);
        // Whoever did not come to the end of its stopping has hung.
        if desk.doing() != Doing::Stopping {
            desk.does(Doing::Stopped, 0, None);
        }
        self.progress.step();
    }

    pub(super) fn desk(&self, index: u32) -> Option<Arc<Desk>> {
        lock(&self.services).get(&index).cloned()
    }

    pub(crate) fn status(&self, index: u32) -> Option<Supervision> {
        let desk = self.desk(index)?;
        let now = self.clock.now();
        let desk = lock(&desk.0);
        let left = |until: Instant| until.saturating_duration_since(now);
        Some(Supervision {
            doing: desk.doing,
            charges: desk.charges,
            next_try_in: desk.until.map(left),
        })
    }
}

/// Where a supervisor leaves what it does, and finds what it is told.
#[derive(Default)]
pub(super) struct Desk(Mutex<Papers>);

struct Papers {
    doing: Doing,
    charges: u32,
    /// The end of a rest.
    until: Option<Instant>,
    /// It is to forget what was, and try now.
    reset: bool,
    /// How long it may take to stop, and whether it is to.
    stop_within: Duration,
    stop: bool,
}

impl Default for Papers {
    fn default() -> Self {
        Self {
            doing: Doing::Nothing,
            charges: 0,
            until: None,
            reset: false,
            stop_within: Duration::ZERO,
            stop: false,
        }
    }
}

impl Desk {
    pub(super) fn does(&self, doing: Doing, charges: u32, until: Option<Instant>) {
        let mut papers = lock(&self.0);
        (papers.doing, papers.charges, papers.until) = (doing, charges, until);
    }

    /// True where the service was not being built, and is now.
    pub(super) fn reset(&self) -> bool {
        let mut papers = lock(&self.0);
        (papers.reset, papers.charges) = (true, 0);
        matches!(papers.doing, Doing::Resting | Doing::Broken)
    }

    pub(super) fn doing(&self) -> Doing {
        lock(&self.0).doing
    }

    /// It runs from now on, and would take so long to stop at the most.
    pub(super) fn runs(&self, stop_within: Duration) {
        let mut papers = lock(&self.0);
        (papers.doing, papers.stop_within) = (Doing::Building, stop_within);
    }

    /// Tells it to stop; gives how long that may take. `None` where it does not run.
    pub(super) fn stop(&self) -> Option<Duration> {
        let mut papers = lock(&self.0);
        papers.stop = true;
        (papers.doing != Doing::Nothing).then_some(papers.stop_within)
    }

    pub(super) fn is_to_stop(&self) -> bool {
        lock(&self.0).stop
    }

    pub(super) fn take_reset(&self) -> bool {
        mem::take(&mut lock(&self.0).reset)
    }
}

/// Until a supervisor is told something.
pub(super) struct Told<'a> {
    pub(super) registry: &'a Registry,
    pub(super) index: u32,
    pub(super) desk: &'a Desk,
    /// Whether a reset is of interest: while an instance is built, or is up, it waits for the next failure.
    pub(super) resets: bool,
    /// The generation that it rests in: where that ends, something that the last build has used has failed.
    pub(super) rests_in: Option<u64>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// The registry is closed, or this service is to stop.
    End,
    Reset,
    /// The rest has lost its reason.
    GoOn,
}

impl Condition for Told<'_> {
    type Output = Order;

    fn look(&mut self) -> Option<Order> {
        if self.registry.is_closed() || self.desk.is_to_stop() {
            return Some(Order::End);
        }
        if self.resets && self.desk.take_reset() {
            return Some(Order::Reset);
        }
        let now = self.registry.store().slot(self.index).state.load().generation();
        self.rests_in.is_some_and(|rests_in| now > rests_in).then_some(Order::GoOn)
    }

    fn slots(&self) -> (u32, Option<u32>) {
        (self.index, None)
    }

    fn store(&self) -> &Store {
        self.registry.store()
    }

    fn timed_out(&self, _: Duration) -> Order {
        unreachable!("it is waited for beside a clock, without a time of its own")
    }
}
