//! The state that supervisors share with the registry: their status, and commands to them.
//!
//! It is in this folder, and not in `supervise/`, so that `registry/` does not depend on
//! `supervise/`.

mod plan;
mod planned_end;
mod progress;
mod report;
mod signals;
mod stopping;
mod words;

pub use self::report::{
    BodyReport, CloseReport, ShutdownReport, StopResult, StopTimeout, StoppedService, WorkEnd,
};
pub(crate) use self::{
    plan::{Request, Ticket},
    planned_end::{EndKind, PlannedEnd},
    progress::Progress,
};

use std::{
    collections::HashMap,
    fmt, mem,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use self::{plan::Plan, signals::Signals};
use super::{Registry, RegistryBuilder, RegistryInner};
use crate::{
    alive::Wakes,
    clock::{Clock, SystemClock},
    numbers::ServiceIndex,
    service::ServiceName,
    store::Store,
    sync::{Mutex, lock, shielded},
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
    /// The builder or the body has said that the work of the service is done
    /// ([`Completed`](crate::supervise::Completed),
    /// [`BodyEnd::Completed`](crate::supervise::BodyEnd::Completed)). The instance is ready.
    Completed,
    /// The service is at its end: the body, if it has one, was notified. At a planned end the
    /// instance may still be ready.
    Stopping,
    /// A blocking body has not returned in time. The service is not built again before it has.
    BodyRunning,
    /// The instance has failed, and the supervisor waits until its readers have dropped it; see
    /// [`RestartPolicy::drain_timeout`](crate::supervise::RestartPolicy::drain_timeout).
    Draining,
    /// The close hook runs.
    Closing,
    /// It waits for the end of the backoff or debounce delay before the next build.
    BackingOff,
    /// The last failure was that another service was not available. It waits for a change of that
    /// service, or of another one from which it was built.
    Waiting,
    /// The last failure was a [permanent error](crate::supervise::Permanent). The service is not
    /// built again until something changes from which it was built, or until [`Registry::restart`].
    Permanent,
    /// Too many failures were counted. The service stays down until something changes from which it
    /// was built ([`retry_given_up`](crate::supervise::RestartPolicy::retry_given_up)), or until
    /// [`Registry::restart`].
    GivenUp,
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
            Self::Stopping => "stopping",
            Self::BodyRunning => "waiting for its body to return",
            Self::Draining => "draining",
            Self::Closing => "closing",
            Self::BackingOff => "backing off",
            Self::Waiting => "waiting",
            Self::Permanent => "failed permanently",
            Self::GivenUp => "given up",
            Self::Stopped => "stopped",
        })
    }
}

/// The status of a supervisor: a part of [`ServiceStatus`](crate::ServiceStatus).
///
/// `Display` writes the state with its details: *backing off after 4 failures, next try in 3.2 s*.
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
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct SupervisorStatus {
    /// The state of the supervisor.
    pub state: SupervisorState,
    /// The number of failures counted against the service since the last
    /// [stable](crate::supervise::RestartPolicy::reset_after) instance or reset.
    pub failures: u32,
    /// While backing off: the time until the next build, by the clock of the registry. While
    /// waiting: the time during which a change of the service that it waits for starts no build.
    /// `None` if this time is beyond the range of [`Instant`].
    pub next_try_in: Option<Duration>,
    /// While waiting: the service that it waits for.
    pub waiting_for: Option<ServiceName>,
    /// While draining: the number of references to the instances when the draining began. At the
    /// turn of the service to stop: the present number of those for whose drop it waits.
    pub holders: usize,
    /// The time since which the service is not ready, by the clock of the registry: since the end
    /// of its last instance, or since its supervisor was run. `None` if it is ready, and if its
    /// supervisor is not running.
    pub not_ready_for: Option<Duration>,
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
    services: Mutex<HashMap<ServiceIndex, Supervised>>,
    pub(crate) plan: Plan,
    /// Counts a step when the plan has changed in a way that a future of `shutdown` must notice: a
    /// service has ended, the shutdown has begun or has ended.
    pub(crate) progress: Progress,
    pub(crate) signals: Signals,
}

/// A service that has, or had, a supervisor.
enum Supervised {
    Now(Arc<Control>),
    /// The number of the last change that its supervisors have reported.
    Before(u64),
}

impl Default for Supervisors {
    fn default() -> Self {
        Self {
            clock: Arc::new(SystemClock),
            services: Mutex::default(),
            plan: Plan::default(),
            progress: Progress::default(),
            signals: Signals::default(),
        }
    }
}

impl Supervisors {
    pub(crate) fn add(&self, index: ServiceIndex) -> Arc<Control> {
        let mut services = lock(&self.services);
        let changes = services.get(&index).map_or(0, Supervised::changes);
        let state = ControlState { changes, ..ControlState::default() };
        let control = Arc::new(Control(Mutex::new(state)));
        services.insert(index, Supervised::Now(Arc::clone(&control)));
        control
    }

    fn remove(&self, index: ServiceIndex) {
        if let Some(supervised) = lock(&self.services).get_mut(&index) {
            // The numbers of the next supervisor follow.
            *supervised = Supervised::Before(supervised.changes());
        }
    }

    pub(crate) fn control(&self, index: ServiceIndex) -> Option<Arc<Control>> {
        match lock(&self.services).get(&index)? {
            Supervised::Now(control) => Some(Arc::clone(control)),
            Supervised::Before(_) => None,
        }
    }

    /// Returns the number of the last change of its state that a supervisor of the service has
    /// reported.
    pub(super) fn changes(&self, index: ServiceIndex) -> u64 {
        lock(&self.services).get(&index).map_or(0, Supervised::changes)
    }

    /// Returns the present time by the clock; `None` if the clock, which may be user code, panics.
    pub(crate) fn now(&self) -> Option<Instant> {
        let mut now = None;
        shielded(|| now = Some(self.clock.now()));
        now
    }

    /// Returns whether the times of the clock are those of the system.
    pub(super) fn clock_is_real(&self) -> bool {
        let mut is_real = false;
        shielded(|| is_real = self.clock.is_real());
        is_real
    }

    pub(crate) fn status(&self, index: ServiceIndex) -> Option<SupervisorStatus> {
        let control = self.control(index)?;
        // The clock is user code: it is called before the lock is taken.
        let now = self.now();
        let holders = control.holders();
        let (status, build) = {
            let control = lock(&control.0);
            let Details { failures, retry_at, waiting_for, .. } = &control.details;
            let since = control.not_ready_since;
            let status = SupervisorStatus {
                state: control.state,
                failures: *failures,
                next_try_in: retry_at.zip(now).map(|(at, now)| at.saturating_duration_since(now)),
                waiting_for: waiting_for.clone(),
                holders,
                not_ready_for: since.zip(now).map(|(at, now)| now.saturating_duration_since(at)),
                late_by: None,
            };
            (status, control.build.clone())
        };
        // The timer of the build has a lock of its own.
        let late_by = build.zip(now).and_then(|(build, now)| build.upgrade()?.late_by(now));
        Some(SupervisorStatus { late_by, ..status })
    }

    /// Counts an event about the supervision of a service that is not a change of the state of a
    /// supervisor. Returns its number.
    pub(super) fn count_change(&self, index: ServiceIndex) -> u64 {
        let mut services = lock(&self.services);
        match services.entry(index).or_insert(Supervised::Before(0)) {
            Supervised::Now(control) => lock(&control.0).count_change(),
            Supervised::Before(changes) => {
                *changes += 1;
                *changes
            }
        }
    }
}

impl Supervised {
    /// Returns the number of the last change. Takes the lock of the control.
    fn changes(&self) -> u64 {
        match self {
            Self::Now(control) => lock(&control.0).changes,
            Self::Before(changes) => *changes,
        }
    }
}

/// What one supervisor shares with the registry: it reports its state here, and receives commands.
///
/// A thread that writes a command wakes the slot of the service afterwards, because the supervisor
/// waits on this slot ([`CommandWait`]).
pub(crate) struct Control(Mutex<ControlState>);

struct ControlState {
    // Reported by the supervisor.
    state: SupervisorState,
    details: Details,
    /// The end of the last instance, or the time at which the supervisor was run. `None` if an
    /// instance is up, or the supervisor is not running.
    not_ready_since: Option<Instant>,
    /// The number of the last change of the state. The numbers of one service grow, also from one
    /// of its supervisors to the next one.
    changes: u64,
    /// The last build that has a timeout.
    build: Option<Weak<dyn BuildDeadline>>,
    /// The limit for stopping the service.
    stop_timeout: Duration,
    /// How its work at its turn to stop has ended. `None` if it has not.
    stop_end: Option<StopEnd>,
    /// How the body has ended at the turn to stop.
    body: Option<BodyReport>,
    /// How the close hooks have ended since the turn to stop.
    closes: Vec<CloseReport>,
    /// The readers that it waits for at its turn to stop.
    readers: Option<Arc<dyn CountHolders>>,
    // Commands to the supervisor.
    reset_requested: bool,
    end_requested: Option<Arc<PlannedEnd>>,
}

/// What a supervisor reports of its state.
#[derive(Default)]
pub(crate) struct Details {
    /// The number of counted failures.
    pub(crate) failures: u32,
    /// While backing off: the end of the backoff. While waiting: the earliest time of a retry.
    pub(crate) retry_at: Option<Instant>,
    /// While waiting: the service that it waits for.
    pub(crate) waiting_for: Option<ServiceName>,
    /// At the begin of a draining: the number of references.
    pub(crate) holders: usize,
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
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum StopEnd {
    Done,
    /// A limit has expired: of the body, of the draining, or of a close hook.
    TimedOut,
}

impl Default for ControlState {
    fn default() -> Self {
        Self {
            state: SupervisorState::NotRunning,
            details: Details::default(),
            not_ready_since: None,
            changes: 0,
            build: None,
            stop_timeout: Duration::ZERO,
            stop_end: None,
            body: None,
            closes: Vec::new(),
            readers: None,
            reset_requested: false,
            end_requested: None,
        }
    }
}

impl ControlState {
    /// Changes the state. Returns the number of the change.
    fn change(&mut self, state: SupervisorState, details: Details) -> u64 {
        (self.state, self.details) = (state, details);
        // The supervisor may not have taken the reset so far.
        if self.reset_requested {
            self.details.failures = 0;
        }
        self.count_change()
    }

    fn count_change(&mut self) -> u64 {
        self.changes += 1;
        self.changes
    }
}

impl Control {
    /// Reports the state of the supervisor. `now` is the present time, if the service was ready
    /// until now ([`reported`](Self::reported)). Returns the number of the change, by which the
    /// listing for a new observer shows it or not.
    pub(crate) fn set_state(
        &self,
        state: SupervisorState,
        details: Details,
        now: Option<Instant>,
    ) -> u64 {
        let mut control = lock(&self.0);
        match state {
            SupervisorState::Up | SupervisorState::Completed => control.not_ready_since = None,
            _ => control.not_ready_since = control.not_ready_since.or(now),
        }
        control.change(state, details)
    }

    /// Returns the state that the supervisor has reported, and whether the service was ready then.
    /// A supervisor that has reported nothing counts as ready.
    pub(crate) fn reported(&self) -> (SupervisorState, bool) {
        let control = lock(&self.0);
        (control.state, control.not_ready_since.is_none())
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
        control.stop_timeout = stop_timeout;
        control.change(SupervisorState::Building, Details::default());
    }

    /// Asks for a reset. Returns whether the service was down until a time, a change or a reset, so
    /// that the reset starts a build.
    pub(crate) fn request_reset(&self) -> bool {
        let mut control = lock(&self.0);
        (control.reset_requested, control.details.failures) = (true, 0);
        matches!(
            control.state,
            SupervisorState::BackingOff
                | SupervisorState::Waiting
                | SupervisorState::Permanent
                | SupervisorState::GivenUp
        )
    }

    /// Returns whether a reset was requested since the last call.
    pub(crate) fn take_reset(&self) -> bool {
        mem::take(&mut lock(&self.0).reset_requested)
    }

    /// Asks the supervisor to stop its service. Returns the limit for this, or `None` if the
    /// supervisor is not running and so will not stop anything.
    pub(crate) fn request_end(&self, end: Arc<PlannedEnd>) -> Option<Duration> {
        let mut control = lock(&self.0);
        (control.end_requested, control.stop_end, control.readers) = (Some(end), None, None);
        (control.body, control.closes) = (None, Vec::new());
        (control.state != SupervisorState::NotRunning).then_some(control.stop_timeout)
    }

    /// Reports how the work at the turn to stop has ended.
    pub(crate) fn set_stop_end(&self, end: StopEnd) {
        let mut control = lock(&self.0);
        let ends = control.body.iter().map(|body| &body.end);
        let mut ends = ends.chain(control.closes.iter().map(|close| &close.end));
        let end = if ends.any(|end| *end == WorkEnd::Late) { StopEnd::TimedOut } else { end };
        if end == StopEnd::Done {
            control.change(SupervisorState::Stopped, Details::default());
        }
        control.stop_end = Some(end);
    }

    /// Reports how the body has ended that was notified because the service stops.
    pub(crate) fn report_body(&self, report: BodyReport) {
        lock(&self.0).body = Some(report);
    }

    /// Reports how a close hook has ended. Before the turn of the service to stop, this is not
    /// stored.
    pub(crate) fn report_close(&self, report: CloseReport) {
        let mut control = lock(&self.0);
        if control.end_requested.is_some() {
            control.closes.push(report);
        }
    }

    /// Returns how the body and the close hooks have ended at the turn to stop.
    fn reports(&self) -> (Option<BodyReport>, Vec<CloseReport>) {
        let control = lock(&self.0);
        (control.body.clone(), control.closes.clone())
    }

    /// Reports the readers for which it waits from now on.
    pub(crate) fn set_readers(&self, readers: Arc<dyn CountHolders>) {
        lock(&self.0).readers = Some(readers);
    }

    /// Returns the number of references for whose drop it waits.
    fn holders(&self) -> usize {
        let control = lock(&self.0);
        match control.readers.clone() {
            Some(readers) => {
                drop(control);
                readers.holders()
            }
            None => control.details.holders,
        }
    }

    /// Returns whether it is the turn of the service to stop.
    pub(crate) fn must_end(&self) -> bool {
        lock(&self.0).end_requested.is_some()
    }

    /// Returns why it is the turn of the service to stop, if it is.
    pub(crate) fn end_requested(&self) -> Option<Arc<PlannedEnd>> {
        lock(&self.0).end_requested.clone()
    }

    /// Takes the request of an end, and the result of its work. The service then waits until it is
    /// released.
    pub(crate) fn take_end(&self) -> Option<StopEnd> {
        let mut control = lock(&self.0);
        control.end_requested = None;
        control.stop_end.take()
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
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// The registry is closed, or a shutdown has reached the service.
    Stop,
    /// The user has requested a reset.
    Reset,
}

impl Condition for CommandWait<'_> {
    type Output = Command;

    fn check(&mut self) -> Option<Command> {
        if self.store.is_closed() || self.control.must_end() {
            return Some(Command::Stop);
        }
        (self.accept_reset && self.control.take_reset()).then_some(Command::Reset)
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
