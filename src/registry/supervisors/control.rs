//! What one supervisor shares with the registry, and the wait of a supervisor for its commands.

use std::{
    collections::BTreeSet,
    mem,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use super::{
    BodyReport, CloseReport, Outcome, PlannedEnd, Reload, SupervisorState, SupervisorStatus,
    WorkEnd, degraded::Degradations, stale::StaleSince,
};
use crate::{
    numbers::{Generation, ServiceIndex},
    service::ServiceName,
    sync::{Flag, LockedFlag, Mutex, MutexGuard, lock},
};

/// What one supervisor shares with the registry: it reports its state here, and receives commands.
///
/// A thread that writes a command wakes the slot of the service afterwards, because the supervisor
/// waits on this slot ([`CommandWait`](super::CommandWait)).
pub(crate) struct Control {
    state: Mutex<ControlState>,
    /// An end, a reset, a reload or an adoption may be requested: only then a check takes the lock.
    /// Most recoveries find it not set in each of their steps.
    is_requested: LockedFlag,
    /// A reload has begun a publication: only then the lock must be taken to find whether one is
    /// over.
    has_reloaded: Flag,
}

pub(super) struct ControlState {
    // Reported by the supervisor.
    state: SupervisorState,
    details: Details,
    /// The end of the last instance, or the time at which the supervisor was run. `None` if an
    /// instance is up, or the supervisor is not running.
    not_ready_since: Option<Instant>,
    /// `run` or `run_blocking` was called, or is about to be.
    is_run: bool,
    /// The service is never built aside (S22).
    is_exclusive: bool,
    /// The number of the last change of the state. The numbers of one service grow, also from one
    /// of its supervisors to the next one.
    changes: u64,
    /// Why the instance is degraded.
    pub(super) degraded: Degradations,
    /// Why the instance is stale.
    pub(super) stale: StaleSince,
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
    /// The request that the supervisor executes. It may be an older one, whose limit has expired.
    executing: Option<Arc<PlannedEnd>>,
    /// The reload for which the service must be built aside. It may be over.
    reload: Option<Arc<Reload>>,
    /// The dependencies whose new instances the service adopts (S23).
    adopts: BTreeSet<ServiceIndex>,
    /// Those that it must adopt, each with the generation of its own instance.
    adoptions: BTreeSet<(Generation, ServiceIndex)>,
    /// The present publication, if a reload has begun it. Its generation may have ended.
    publication: Option<Publication>,
}

/// A publication that a reload has begun.
#[derive(Clone, Copy)]
pub(crate) struct Publication {
    pub(crate) generation: Generation,
    /// The revision of its first instance.
    pub(crate) first: u64,
    /// The root of the reload.
    pub(crate) root: ServiceIndex,
}

/// Why the work on an instance ends that has not failed.
pub(crate) enum WorkEnds {
    Planned(Arc<PlannedEnd>),
    /// A reload has begun another publication. This is its root.
    Reloaded(ServiceIndex),
}

/// What a supervisor must do whose service is up.
#[derive(Clone, Copy, Default)]
pub(crate) struct UpCommand {
    /// It is the turn of the service to stop.
    pub(crate) must_end: bool,
    /// A reload asks the service to be built aside, or to adopt an instance.
    pub(crate) reload: bool,
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
            is_run: false,
            is_exclusive: false,
            changes: 0,
            degraded: Degradations::default(),
            stale: StaleSince::default(),
            build: None,
            stop_timeout: Duration::ZERO,
            stop_end: None,
            body: None,
            closes: Vec::new(),
            readers: None,
            reset_requested: false,
            end_requested: None,
            executing: None,
            reload: None,
            adopts: BTreeSet::new(),
            adoptions: BTreeSet::new(),
            publication: None,
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

    /// Returns whether a reload asks for something.
    fn is_asked(&self) -> bool {
        self.reload.is_some() || !self.adoptions.is_empty()
    }

    fn has_request(&self) -> bool {
        self.is_asked() || self.reset_requested || self.end_requested.is_some()
    }

    /// As `Control::not_reloadable`.
    fn not_reloadable(&self) -> Option<SupervisorState> {
        // The supervisor of a service that is ready is about to report that it is up, if it has
        // not done so.
        let is_building = matches!(self.state, SupervisorState::Building | SupervisorState::Queued);
        if !self.state.is_ready() && !is_building {
            return Some(self.state);
        }
        // It is about to report that, too.
        self.end_requested.is_some().then_some(SupervisorState::Stopping)
    }

    pub(super) fn count_change(&mut self) -> u64 {
        self.changes += 1;
        self.changes
    }

    /// Returns the root of the reload that has ended this publication.
    pub(super) fn reloaded(&self, generation: Generation, first: u64) -> Option<ServiceIndex> {
        let present = self.publication?;
        let is_over = present.generation == generation && present.first > first;
        is_over.then_some(present.root)
    }
}

impl Control {
    /// A supervisor that is not running. `changes` is the number of the last change that an earlier
    /// one has reported.
    pub(super) fn new(changes: u64) -> Self {
        Self {
            state: Mutex::new(ControlState { changes, ..ControlState::default() }),
            is_requested: LockedFlag::new(),
            has_reloaded: Flag::new(),
        }
    }

    /// Locks the state, unless nothing is requested.
    fn requested(&self) -> Option<MutexGuard<'_, ControlState>> {
        self.is_requested.is_set().then(|| lock(&self.state))
    }

    /// Returns the number of the last change.
    pub(super) fn changes(&self) -> u64 {
        lock(&self.state).changes
    }

    /// Counts an event that is not a change of the state. Returns its number.
    pub(super) fn count_change(&self) -> u64 {
        lock(&self.state).count_change()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, ControlState> {
        lock(&self.state)
    }

    /// Returns the status at this time; `None` if the clock cannot say it. `current` is the
    /// generation of the instance that is ready.
    pub(super) fn status(
        &self,
        now: Option<Instant>,
        current: Option<Generation>,
    ) -> SupervisorStatus {
        let holders = self.holders();
        let (status, build) = {
            let control = lock(&self.state);
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
                degraded: current.and_then(|current| control.degraded.of(current)),
                stale: current.and_then(|current| control.stale.of(current, now)),
                reloading: None,
                given_up_with: None,
            };
            (status, control.build.clone())
        };
        // The timer of the build has a lock of its own.
        let late_by = build.zip(now).and_then(|(build, now)| build.upgrade()?.late_by(now));
        SupervisorStatus { late_by, ..status }
    }

    /// Reports the state of the supervisor. `now` is the present time, if the service is not ready
    /// any more ([`was_ready`](Self::was_ready)). Returns the state before that, the number of the
    /// change, by which the listing for a new observer shows it or not, and the reload that the
    /// caller must refuse: the service is not up any more.
    pub(crate) fn set_state(
        &self,
        state: SupervisorState,
        details: Details,
        now: Option<Instant>,
    ) -> (SupervisorState, u64, Option<Arc<Reload>>) {
        let mut control = lock(&self.state);
        let mut refused = None;
        match state.is_ready() {
            true => control.not_ready_since = None,
            false => {
                control.not_ready_since = control.not_ready_since.or(now);
                refused = control.reload.take();
            }
        }
        let was = control.state;
        (was, control.change(state, details), refused)
    }

    /// Returns whether the service was ready in the state that was reported last. A supervisor that
    /// has reported nothing counts as ready.
    pub(crate) fn was_ready(&self) -> bool {
        lock(&self.state).not_ready_since.is_none()
    }

    /// Reports a build that has a timeout.
    pub(crate) fn set_build(&self, build: Weak<dyn BuildDeadline>) {
        lock(&self.state).build = Some(build);
    }

    pub(crate) fn state(&self) -> SupervisorState {
        lock(&self.state).state
    }

    /// Notes that the supervisor is run, although no thread or executor may have begun.
    pub(crate) fn set_run(&self) {
        lock(&self.state).is_run = true;
    }

    /// Notes that the service is never built aside.
    pub(crate) fn set_exclusive(&self) {
        lock(&self.state).is_exclusive = true;
    }

    /// Returns whether the service is never built aside.
    pub(crate) fn is_exclusive(&self) -> bool {
        lock(&self.state).is_exclusive
    }

    /// Returns whether it is run.
    pub(in crate::registry) fn is_run(&self) -> bool {
        lock(&self.state).is_run
    }

    /// Reports that the supervisor is running, and the limit for stopping its service.
    pub(crate) fn start(&self, stop_timeout: Duration) {
        let mut control = lock(&self.state);
        control.stop_timeout = stop_timeout;
        control.change(SupervisorState::Building, Details::default());
    }

    /// Called when the supervisor has ended: no end is requested after that. Returns the reload
    /// that the caller must refuse.
    pub(super) fn end(&self) -> Option<Arc<Reload>> {
        let mut control = lock(&self.state);
        control.state = SupervisorState::NotRunning;
        control.reload.take()
    }

    /// Asks for a reset. Returns whether the service was down until a time, a change or a reset, so
    /// that the reset starts a build.
    pub(crate) fn request_reset(&self) -> bool {
        let mut control = lock(&self.state);
        (control.reset_requested, control.details.failures) = (true, 0);
        self.is_requested.set(true);
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
        let Some(mut control) = self.requested() else { return false };
        let is_reset = mem::take(&mut control.reset_requested);
        self.is_requested.set(control.has_request());
        is_reset
    }

    /// Returns the state of the supervisor if it cannot be asked to build its service aside,
    /// although the service is ready.
    pub(crate) fn not_reloadable(&self) -> Option<SupervisorState> {
        lock(&self.state).not_reloadable()
    }

    /// Asks the supervisor to build its service aside (S20). Returns `false` if the service is not
    /// up, or must stop: then the supervisor is not asked. The caller wakes the slot.
    ///
    /// An earlier reload is over then, and the supervisor may not have noticed it: it drops what
    /// it builds for that one.
    pub(crate) fn request_reload(&self, reload: &Arc<Reload>) -> bool {
        let mut control = lock(&self.state);
        if control.not_reloadable().is_some() {
            return false;
        }
        let earlier = control.reload.replace(Arc::clone(reload));
        self.is_requested.set(true);
        drop(control);
        drop(earlier);
        true
    }

    /// Returns the reload for which the service must be built aside.
    pub(crate) fn reload(&self) -> Option<Arc<Reload>> {
        self.requested()?.reload.clone()
    }

    /// Called by the supervisor when it has nothing more to do for a reload.
    pub(crate) fn forget_reload(&self, reload: &Arc<Reload>) {
        let mut control = lock(&self.state);
        let forgotten = control.reload.take_if(|it| Arc::ptr_eq(it, reload));
        self.is_requested.set(control.has_request());
        drop(control);
        drop(forgotten);
    }

    /// Notes that the service adopts new instances of a dependency.
    pub(crate) fn set_adopts(&self, dependency: ServiceIndex) {
        lock(&self.state).adopts.insert(dependency);
    }

    /// Returns whether the service adopts new instances of a dependency.
    pub(crate) fn adopts(&self, dependency: ServiceIndex) -> bool {
        lock(&self.state).adopts.contains(&dependency)
    }

    /// Asks the supervisor to let the instance of this generation adopt the one of a dependency.
    /// The caller wakes the slot.
    pub(crate) fn request_adoption(&self, generation: Generation, dependency: ServiceIndex) {
        let mut control = lock(&self.state);
        control.adoptions.insert((generation, dependency));
        self.is_requested.set(true);
    }

    /// Takes the requests to adopt. Returns those for the instance of this generation: any other
    /// has ended, or was built from what is current now.
    pub(crate) fn take_adoptions(&self, present: Generation) -> Vec<ServiceIndex> {
        let mut control = lock(&self.state);
        let requests = mem::take(&mut control.adoptions);
        self.is_requested.set(control.has_request());
        drop(control);
        let of_present = requests.into_iter().filter(|&(generation, _)| generation == present);
        of_present.map(|(_, dependency)| dependency).collect()
    }

    /// Returns what the supervisor must do while its service is up.
    pub(crate) fn up_command(&self) -> UpCommand {
        let Some(control) = self.requested() else { return UpCommand::default() };
        UpCommand { must_end: control.end_requested.is_some(), reload: control.is_asked() }
    }

    /// Notes the publication that a reload has begun. What was said of the old one, that it is
    /// degraded, ends: then returns the number of this change.
    pub(crate) fn begin_publication(&self, new: Publication) -> Option<u64> {
        let mut control = lock(&self.state);
        control.publication = Some(new);
        let was_degraded = control.degraded.clear(new.generation);
        let number = was_degraded.then(|| control.count_change());
        drop(control);
        self.has_reloaded.set();
        number
    }

    /// Returns whether a reload has ended the publication whose first instance has the revision
    /// `first`.
    pub(crate) fn is_over(&self, generation: Generation, first: u64) -> bool {
        self.has_reloaded.is_set() && lock(&self.state).reloaded(generation, first).is_some()
    }

    /// Returns why the work on a publication must end, although its generation has not failed. The
    /// slot is woken after that.
    pub(crate) fn work_ends(&self, generation: Generation, first: u64) -> Option<WorkEnds> {
        let reload = {
            let control = lock(&self.state);
            if let Some(end) = &control.end_requested {
                return Some(WorkEnds::Planned(Arc::clone(end)));
            }
            if let Some(root) = control.reloaded(generation, first) {
                return Some(WorkEnds::Reloaded(root));
            }
            control.reload.clone()
        };
        // Before the supervisor has noticed the switch.
        let reload = reload.filter(|reload| reload.outcome() == Some(Outcome::Switched))?;
        Some(WorkEnds::Reloaded(reload.root()))
    }

    /// Asks the supervisor to stop its service. Returns the limit for this. If the supervisor is
    /// not running, and so will not stop anything, it is not asked, and this returns `None`.
    ///
    /// Called under the lock of the plan: the supervisor finds the request if and only if it is the
    /// turn of its service.
    pub(super) fn request_end(&self, end: &Arc<PlannedEnd>) -> Option<Duration> {
        let mut control = lock(&self.state);
        if control.state == SupervisorState::NotRunning {
            return None;
        }
        control.end_requested = Some(Arc::clone(end));
        self.is_requested.set(true);
        // What is reported now belongs to the request that is being executed.
        if control.executing.is_none() {
            (control.body, control.closes) = (None, Vec::new());
        }
        Some(control.stop_timeout)
    }

    /// Returns the request of an end, if there is one. The supervisor executes it from now on.
    pub(crate) fn execute_end(&self) -> Option<Arc<PlannedEnd>> {
        let mut control = lock(&self.state);
        control.executing = control.end_requested.clone();
        control.executing.clone()
    }

    /// Reports how the work at the turn to stop has ended.
    pub(crate) fn set_stop_end(&self, end: StopEnd) {
        let mut control = lock(&self.state);
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
        lock(&self.state).body = Some(report);
    }

    /// Reports how a close hook has ended. Before the turn of the service to stop, this is not
    /// stored.
    pub(crate) fn report_close(&self, report: CloseReport) {
        let mut control = lock(&self.state);
        if control.end_requested.is_some() {
            control.closes.push(report);
        }
    }

    /// Returns how the body and the close hooks have ended at the turn to stop.
    pub(super) fn reports(&self) -> (Option<BodyReport>, Vec<CloseReport>) {
        let control = lock(&self.state);
        (control.body.clone(), control.closes.clone())
    }

    /// Reports the readers for which it waits from now on.
    pub(crate) fn set_readers(&self, readers: Arc<dyn CountHolders>) {
        lock(&self.state).readers = Some(readers);
    }

    /// Returns the number of references for whose drop it waits.
    pub(super) fn holders(&self) -> usize {
        let control = lock(&self.state);
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
        self.requested().is_some_and(|control| control.end_requested.is_some())
    }

    /// Returns why it is the turn of the service to stop, if it is.
    pub(crate) fn end_requested(&self) -> Option<Arc<PlannedEnd>> {
        self.requested()?.end_requested.clone()
    }

    /// Takes the request that the supervisor has executed, and the result of its work. If it has
    /// executed none, takes the request that there is, without a result.
    pub(super) fn take_end(&self) -> Option<(Arc<PlannedEnd>, Option<StopEnd>)> {
        let mut control = lock(&self.state);
        let executed = control.executing.take().or_else(|| control.end_requested.clone())?;
        match &control.end_requested {
            Some(requested) if Arc::ptr_eq(requested, &executed) => control.end_requested = None,
            // A newer one, which is executed next.
            _ => (control.body, control.closes) = (None, Vec::new()),
        }
        self.is_requested.set(control.has_request());
        control.readers = None;
        Some((executed, control.stop_end.take()))
    }
}
