//! The state that supervisors share with the registry: their status, and commands to them.
//!
//! It is in this folder, and not in `supervise/`, so that `registry/` does not depend on
//! `supervise/`.

mod plan;
mod progress;
mod report;
mod signals;
mod stopping;

pub use self::report::{ShutdownReport, StopResult, StopTimeout, StoppedService};

use std::{
    collections::HashMap,
    fmt, mem,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use self::{plan::Plan, progress::Progress, signals::Signals};
use super::{Registry, RegistryBuilder, RegistryInner};
use crate::{
    alive::Wakes,
    clock::{Clock, SystemClock},
    numbers::ServiceIndex,
    store::Store,
    sync::{Count, Mutex, lock},
    waiting::sealed::{Condition, WaitSlots},
};

impl Registry {
    /// Returns the clock of the registry, from which supervisors and shutdowns take their time.
    ///
    /// It is set by [`RegistryBuilder::clock`](crate::RegistryBuilder::clock).
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let registry = mainstay::Registry::with_capacity(1)?;
    /// registry.register::<u16>("port")?;
    /// let all_ready = registry.wait_all_ready();
    /// assert!(all_ready.timeout(Duration::from_millis(1), registry.clock()).await.is_err());
    /// # Ok(())
    /// # }
    /// ```
    pub fn clock(&self) -> &dyn Clock {
        &*self.supervisors().clock
    }

    pub(crate) fn supervisors(&self) -> &Supervisors {
        &self.inner.supervisors
    }
}

impl RegistryBuilder {
    /// Sets the clock of the supervisors and of [`Registry::shutdown`].
    ///
    /// The default is the [`SystemClock`](crate::supervise::SystemClock).
    ///
    /// ```
    /// # #[cfg(feature = "tokio")] {
    /// use mainstay::{Registry, supervise::TokioClock};
    ///
    /// let registry = Registry::builder(8)?.clock(TokioClock).build();
    /// # }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.supervisors.clock = Arc::new(clock);
        self
    }
}

// A registry wakes the waiters of a slot if an instance is dropped.
impl Wakes for RegistryInner {
    fn wake(&self, index: ServiceIndex) {
        self.store.wake(index);
    }
}

/// The state of a supervisor.
///
/// [`supervise`](crate::supervise) describes the states and their transitions.
///
/// ```
/// use mainstay::supervise::SupervisorState;
///
/// assert_eq!(SupervisorState::BackingOff.to_string(), "backing off");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
pub enum SupervisorState {
    /// The supervisor was created, but is not running yet.
    NotRunning,
    /// It builds an instance, or the build waits for its dependencies.
    Building,
    /// An instance is ready, and the supervisor waits for its failure.
    Up,
    /// The body has said that the work of the service is done
    /// ([`BodyEnd::Completed`](crate::supervise::BodyEnd::Completed)). The instance is ready.
    Completed,
    /// A blocking body has not returned in time. The service is not built again before it has.
    BodyRunning,
    /// The instance has failed, and the supervisor waits until its readers have dropped it; see
    /// [`RestartPolicy::drain_timeout`](crate::supervise::RestartPolicy::drain_timeout).
    Draining,
    /// It waits for the end of the backoff or debounce delay before the next build.
    BackingOff,
    /// Too many failures were counted. The service stays down until
    /// [`Registry::reset`](crate::Registry::reset).
    GivenUp,
    /// The body was notified, and has not returned. Or the registry is being shut down: the
    /// supervisor has taken its service down, runs the stop hook, and drains the instances of all
    /// generations.
    Stopping,
    /// It has stopped the service.
    Stopped,
}

impl fmt::Display for SupervisorState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::NotRunning => "not running",
            Self::Building => "building",
            Self::Up => "up",
            Self::Completed => "completed",
            Self::BodyRunning => "waiting for its body to return",
            Self::Draining => "draining",
            Self::BackingOff => "backing off",
            Self::GivenUp => "given up",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
        })
    }
}

/// The status of a supervisor: a part of [`ServiceStatus`](crate::ServiceStatus).
///
/// ```
/// use mainstay::{
///     Registry,
///     supervise::{RestartPolicy, SupervisorState},
/// };
/// use std::{thread, time::Duration};
///
/// let registry = Registry::with_capacity(1)?;
/// let port = registry.register::<u16>("port")?;
/// let policy = RestartPolicy::default().max_failures(0, Duration::from_secs(60));
/// let supervisor = registry.supervise(port)?.restart_policy(policy);
/// thread::spawn(|| supervisor.run_blocking(|_| Err("no port is free")));
///
/// let status = || registry.status(port).unwrap();
/// while status().supervisor.unwrap().state != SupervisorState::GivenUp {
///     thread::yield_now();
/// }
/// assert_eq!(status().last_failure.unwrap().reason.to_string(), "no port is free");
/// # registry.close();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct SupervisorStatus {
    /// The state of the supervisor.
    pub state: SupervisorState,
    /// The number of failures counted against the service since the last
    /// [stable](crate::supervise::RestartPolicy::reset_after) instance or reset.
    pub failures: u32,
    /// While backing off: the time until the next build, by the clock of the registry. `None` if
    /// the end of the backoff is beyond the range of [`Instant`].
    pub next_try_in: Option<Duration>,
    /// While building: the time by which the build exceeds its
    /// [timeout](crate::supervise::RestartPolicy::build_timeout), by the clock of the registry.
    /// `None` if it is in time, or has no timeout.
    ///
    /// An async build is dropped at its deadline, unless its supervisor is not polled. A blocking
    /// build continues until it returns, and is counted as failed after that.
    pub late_by: Option<Duration>,
}

/// The supervisors of a registry, and their clock.
pub(crate) struct Supervisors {
    pub(crate) clock: Arc<dyn Clock>,
    services: Mutex<HashMap<ServiceIndex, Arc<Control>>>,
    /// The number of times at which a supervisor has given up.
    given_up: Count,
    pub(crate) plan: Plan,
    /// Counts a step when the plan has changed in a way that a future of `shutdown` must notice: a
    /// service has ended, the shutdown has begun or has ended.
    pub(crate) progress: Progress,
    pub(crate) signals: Signals,
}

impl Default for Supervisors {
    fn default() -> Self {
        Self {
            clock: Arc::new(SystemClock),
            services: Mutex::default(),
            given_up: Count::new(),
            plan: Plan::default(),
            progress: Progress::default(),
            signals: Signals::default(),
        }
    }
}

impl Supervisors {
    pub(crate) fn add(&self, index: ServiceIndex) -> Arc<Control> {
        let control = Arc::<Control>::default();
        lock(&self.services).insert(index, Arc::clone(&control));
        control
    }

    fn remove(&self, index: ServiceIndex) {
        lock(&self.services).remove(&index);
    }

    pub(crate) fn control(&self, index: ServiceIndex) -> Option<Arc<Control>> {
        lock(&self.services).get(&index).cloned()
    }

    /// Reports that a supervisor has given up, after this number of failures. Returns the number of
    /// the event: those of one service grow.
    pub(crate) fn give_up(&self, control: &Control, failures: u32) -> u32 {
        let mut control = lock(&control.0);
        let number = self.given_up.fetch_add(1) + 1;
        (control.state, control.failures) = (SupervisorState::GivenUp, failures);
        (control.backoff_end, control.given_up) = (None, number);
        number
    }

    /// Returns the number of the last time at which the supervisor of the service has given up, or
    /// 0.
    pub(super) fn given_up(&self, index: ServiceIndex) -> u32 {
        self.control(index).map_or(0, |control| lock(&control.0).given_up)
    }

    pub(crate) fn status(&self, index: ServiceIndex) -> Option<SupervisorStatus> {
        let control = self.control(index)?;
        // The clock is user code: it is called before the lock is taken.
        let now = self.clock.now();
        let control = lock(&control.0);
        let left = |end: Instant| end.saturating_duration_since(now);
        let (state, failures) = (control.state, control.failures);
        let next_try_in = control.backoff_end.map(left);
        let build = control.build.clone();
        // The timer of the build has a lock of its own.
        drop(control);
        let late_by = build.and_then(|build| build.upgrade()?.late_by(now));
        Some(SupervisorStatus { state, failures, next_try_in, late_by })
    }
}

/// What one supervisor shares with the registry: it reports its state here, and receives commands.
///
/// A thread that writes a command wakes the slot of the service afterwards, because the supervisor
/// waits on this slot ([`CommandWait`]).
#[derive(Default)]
pub(crate) struct Control(Mutex<ControlState>);

struct ControlState {
    // Reported by the supervisor.
    state: SupervisorState,
    failures: u32,
    /// While backing off.
    backoff_end: Option<Instant>,
    /// The number of the last time at which it has given up.
    given_up: u32,
    /// The last build that has a timeout.
    build: Option<Weak<dyn BuildDeadline>>,
    /// The limit for stopping the service.
    stop_timeout: Duration,
    /// How its work at its turn to stop has ended. `None` if it has not.
    stop_end: Option<StopEnd>,
    /// The readers that it waits for at its turn to stop.
    readers: Option<Arc<dyn CountHolders>>,
    // Commands to the supervisor.
    reset_requested: bool,
    stop_requested: bool,
}

/// The instances for whose readers a supervisor waits.
pub(crate) trait CountHolders: Send + Sync {
    /// Returns the number of references to them.
    fn holders(&self) -> usize;
}

/// The deadline of a build.
pub(crate) trait BuildDeadline: Send + Sync {
    /// Returns by how much the build exceeds its deadline. `None` if it is in time or has ended.
    fn late_by(&self, now: Instant) -> Option<Duration>;
}

/// How the work of a supervisor at its turn to stop has ended.
#[derive(Clone)]
pub(crate) enum StopEnd {
    Done(StopResult),
    /// Its limit has expired.
    TimedOut,
}

impl Default for ControlState {
    fn default() -> Self {
        Self {
            state: SupervisorState::NotRunning,
            failures: 0,
            backoff_end: None,
            given_up: 0,
            build: None,
            stop_timeout: Duration::ZERO,
            stop_end: None,
            readers: None,
            reset_requested: false,
            stop_requested: false,
        }
    }
}

impl Control {
    /// Reports the state of the supervisor.
    pub(crate) fn set_state(
        &self,
        state: SupervisorState,
        failures: u32,
        backoff_end: Option<Instant>,
    ) {
        let mut control = lock(&self.0);
        (control.state, control.failures, control.backoff_end) = (state, failures, backoff_end);
    }

    /// Reports a build that has a timeout.
    pub(crate) fn set_build(&self, build: Weak<dyn BuildDeadline>) {
        lock(&self.0).build = Some(build);
    }

    pub(crate) fn state(&self) -> SupervisorState {
        lock(&self.0).state
    }

    /// Reports that the supervisor is running, and the limit for stopping its service.
    pub(crate) fn start(&self, stop_timeout: Duration) {
        let mut control = lock(&self.0);
        (control.state, control.stop_timeout) = (SupervisorState::Building, stop_timeout);
    }

    /// Asks for a reset. Returns whether the supervisor was backing off or had given up, so that
    /// the reset starts a build.
    pub(crate) fn request_reset(&self) -> bool {
        let mut control = lock(&self.0);
        (control.reset_requested, control.failures) = (true, 0);
        matches!(control.state, SupervisorState::BackingOff | SupervisorState::GivenUp)
    }

    /// Returns whether a reset was requested since the last call.
    pub(crate) fn take_reset(&self) -> bool {
        mem::take(&mut lock(&self.0).reset_requested)
    }

    /// Asks the supervisor to stop its service. Returns the limit for this, or `None` if the
    /// supervisor is not running and so will not stop anything.
    pub(crate) fn request_stop(&self) -> Option<Duration> {
        let mut control = lock(&self.0);
        control.stop_requested = true;
        (control.state != SupervisorState::NotRunning).then_some(control.stop_timeout)
    }

    /// Reports how the work at the turn to stop has ended.
    pub(crate) fn set_stop_end(&self, end: StopEnd) {
        let mut control = lock(&self.0);
        if matches!(end, StopEnd::Done(_)) {
            control.state = SupervisorState::Stopped;
        }
        control.stop_end = Some(end);
    }

    /// Reports the readers for which it waits from now on.
    pub(crate) fn set_readers(&self, readers: Arc<dyn CountHolders>) {
        lock(&self.0).readers = Some(readers);
    }

    /// Returns the number of references for whose drop it waits.
    fn holders(&self) -> usize {
        let readers = lock(&self.0).readers.clone();
        readers.map_or(0, |readers| readers.holders())
    }

    fn stop_end(&self) -> Option<StopEnd> {
        lock(&self.0).stop_end.clone()
    }

    pub(crate) fn stop_requested(&self) -> bool {
        lock(&self.0).stop_requested
    }
}

/// Waits until there is a command for a supervisor.
pub(crate) struct CommandWait<'a> {
    pub(crate) store: &'a Store,
    pub(crate) index: ServiceIndex,
    pub(crate) control: &'a Control,
    /// Whether a reset ends the wait. While an instance is being built or is up, it does not: the
    /// reset stays requested until the build or the instance has ended.
    pub(crate) accept_reset: bool,
    /// While backing off: the number of cascades that had reached the service while it was down.
    /// Another one is a reason to retry.
    pub(crate) passed: Option<u32>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// The registry is closed, or a shutdown has reached the service.
    Stop,
    /// The user has requested a reset.
    Reset,
    /// The service was failed while it was backing off: a service that the last build used has
    /// failed, and with it perhaps the reason for the backoff.
    Retry,
}

impl Condition for CommandWait<'_> {
    type Output = Command;

    fn check(&mut self) -> Option<Command> {
        if self.store.is_closed() || self.control.stop_requested() {
            return Some(Command::Stop);
        }
        if self.accept_reset && self.control.take_reset() {
            return Some(Command::Reset);
        }
        let now = self.store.passed(self.index);
        self.passed.is_some_and(|passed| passed != now).then_some(Command::Retry)
    }

    fn slots(&self) -> WaitSlots {
        WaitSlots::of(self.index)
    }

    fn store(&self) -> &Store {
        self.store
    }

    fn timed_out(&self, _: Duration) -> Command {
        unreachable!("a supervisor waits for commands without a timeout")
    }
}
