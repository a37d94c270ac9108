//! The state that supervisors share with the registry: their status, and commands to them.
//!
//! It is in this folder, and not in `supervise/`, so that `registry/` does not depend on
//! `supervise/`.

mod command;
mod control;
mod degraded;
mod failure_window;
mod gaps;
mod groups;
mod places;
mod plan;
mod planned_end;
mod progress;
mod reload;
mod reloaded;
mod reloads;
mod report;
mod signals;
mod stale;
mod stopping;
mod words;

pub(crate) use self::{
    command::{Command, CommandWait},
    control::{
        BuildDeadline, Control, CountHolders, Details, Publication, StopEnd, UpCommand, WorkEnds,
    },
    degraded::DegradedBy,
    failure_window::FailureWindow,
    groups::{GivenUp, Group},
    places::BuildNumber,
    plan::{Request, Ticket},
    planned_end::{EndKind, PlannedEnd},
    progress::Progress,
    reload::{Abandoned, Aside, Outcome, Refusal, Reload, ReloadKind},
    reloads::{Begun, ReloadRequest, Reloads},
};
pub use self::{
    degraded::Degraded,
    gaps::{Gap, GapCause, RestartedService},
    reload::Reloading,
    reloaded::{CheckedService, MissingMember, ReloadCheck, Reloaded, ReloadedService},
    report::{
        BodyReport, CloseReport, StopReport, StopResult, StopTimeout, StoppedService, WorkEnd,
    },
    signals::SignalWait,
    stale::Stale,
};

use std::{
    collections::HashMap,
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use self::{groups::Groups, places::Places, plan::Plan, signals::Signals};
use super::{Registry, RegistryBuilder, RegistryInner};
use crate::{
    alive::Wakes,
    clock::{Clock, SystemClock},
    numbers::{Generation, ServiceIndex},
    service::ServiceName,
    store::Store,
    sync::{Mutex, lock, shielded},
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
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "kebab-case")
)]
pub enum SupervisorState {
    /// The supervisor was created, but is not running yet.
    NotRunning,
    /// It builds an instance, or the build waits for its dependencies.
    Building,
    /// The build waits until the number of builds is below a limit
    /// ([`RegistryBuilder::max_builds`], [`Registry::limit_builds`]).
    Queued,
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
    /// [`Registry::restart`]. Together with its [group](Registry::group): until a restart.
    GivenUp,
    /// It has stopped the service.
    Stopped,
}

impl fmt::Display for SupervisorState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::NotRunning => "not running",
            Self::Building => "building",
            Self::Queued => "queued for its build",
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
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
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
    /// Since when, and why, the instance that is ready is degraded; `None` if it is not.
    pub degraded: Option<Degraded>,
    /// Since when, and why, the instance that is ready is stale: its last
    /// [reload](crate::Registry::reload) was refused. `None` if it is not.
    pub stale: Option<Stale>,
    /// The reload or the check for which the service is built aside, while its instance serves.
    /// `None` if there is none. In a status of one service and in a listing only.
    pub reloading: Option<Reloading>,
    /// While given up together with its [group](Registry::group): the member whose failure was one
    /// too many.
    pub given_up_with: Option<ServiceName>,
}

/// The supervisors of a registry, and their clock.
pub(crate) struct Supervisors {
    pub(crate) clock: Arc<dyn Clock>,
    services: Mutex<HashMap<ServiceIndex, Supervised>>,
    pub(crate) plan: Plan,
    pub(crate) places: Places,
    pub(crate) groups: Groups,
    pub(crate) reloads: Reloads,
    /// Counts a step when the plan has changed in a way that a future of `shutdown` must notice: a
    /// service has ended, the shutdown has begun or has ended.
    pub(crate) progress: Progress,
    /// Counts a step when a limit of a service is earlier than the time until which the futures
    /// sleep that enforce the limits.
    pub(crate) limits: Progress,
    pub(crate) signals: Signals,
}

/// A service that has, or had, a supervisor.
enum Supervised {
    Now(Arc<Control>),
    /// The number of the last change that its supervisors have reported.
    Before(u64),
    /// The number of the last event about its planned ends. It has never had a supervisor.
    Never(u64),
}

impl Default for Supervisors {
    fn default() -> Self {
        Self {
            clock: Arc::new(SystemClock),
            services: Mutex::default(),
            plan: Plan::default(),
            places: Places::default(),
            groups: Groups::default(),
            reloads: Reloads::default(),
            progress: Progress::default(),
            limits: Progress::default(),
            signals: Signals::default(),
        }
    }
}

impl Supervisors {
    pub(crate) fn add(&self, index: ServiceIndex) -> Arc<Control> {
        let mut services = lock(&self.services);
        let changes = services.get(&index).map_or(0, Supervised::changes);
        let control = Arc::new(Control::new(changes));
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
            Supervised::Before(_) | Supervised::Never(_) => None,
        }
    }

    /// Returns whether the service had a supervisor, and has none.
    pub(super) fn has_ended(&self, index: ServiceIndex) -> bool {
        matches!(lock(&self.services).get(&index), Some(Supervised::Before(_)))
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

    /// Returns the status of the supervisor of a service. `current` is the generation of the
    /// instance that is ready.
    pub(crate) fn status(
        &self,
        index: ServiceIndex,
        current: Option<Generation>,
    ) -> Option<SupervisorStatus> {
        let control = self.control(index)?;
        // The clock is user code: it is called before the lock is taken.
        let now = self.now();
        let mut status = control.status(now, current);
        if status.state == SupervisorState::GivenUp {
            let given_up = self.groups.of(index).and_then(|group| group.given_up());
            status.given_up_with = given_up.map(|it| it.failure.service.clone());
        }
        Some(status)
    }

    /// Returns whether, and why, the instance of this generation is degraded.
    pub(super) fn degraded(&self, index: ServiceIndex, generation: Generation) -> Option<Degraded> {
        self.control(index)?.degraded(generation)
    }

    /// Returns the reload for which a service is built aside.
    pub(super) fn reloading(&self, store: &Store, index: ServiceIndex) -> Option<Reloading> {
        let reload = self.reloads.of(index)?;
        reload.shown(store, index, self.now())
    }

    /// Returns whether the supervisor is in a builder that builds aside: a blocking one notices
    /// nothing else before it returns.
    pub(super) fn builds_aside(&self, index: ServiceIndex) -> bool {
        let reload = self.control(index).and_then(|control| control.reload());
        reload.is_some_and(|reload| reload.is_building(index))
    }

    /// Returns whether, and why, the instance of this generation is stale.
    pub(super) fn stale(&self, index: ServiceIndex, generation: Generation) -> Option<Stale> {
        let control = self.control(index)?;
        // Most are not: then the clock is not called.
        if !control.lock().stale.is(generation) {
            return None;
        }
        let now = self.now();
        control.lock().stale.of(generation, now)
    }

    /// As `status`, without the times: it does not call the clock.
    pub(super) fn status_without_times(&self, index: ServiceIndex) -> Option<SupervisorStatus> {
        Some(self.control(index)?.status(None, None))
    }

    /// Counts an event about the supervision of a service that is not a change of the state of a
    /// supervisor. Returns its number.
    pub(super) fn count_change(&self, index: ServiceIndex) -> u64 {
        let mut services = lock(&self.services);
        match services.entry(index).or_insert(Supervised::Never(0)) {
            Supervised::Now(control) => control.count_change(),
            Supervised::Before(changes) | Supervised::Never(changes) => {
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
            Self::Now(control) => control.changes(),
            Self::Before(changes) | Self::Never(changes) => *changes,
        }
    }
}
