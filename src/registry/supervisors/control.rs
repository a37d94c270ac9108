//! What one supervisor shares with the registry, and the wait of a supervisor for its commands.

use std::{
    mem,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use super::{
    BodyReport, CloseReport, PlannedEnd, SupervisorState, SupervisorStatus, WorkEnd,
    degraded::Degradations,
};
use crate::{
    numbers::{Generation, ServiceIndex},
    service::ServiceName,
    store::Store,
    sync::{Mutex, MutexGuard, lock},
    waiting::sealed::{Condition, WaitSlots},
};

/// What one supervisor shares with the registry: it reports its state here, and receives commands.
///
/// A thread that writes a command wakes the slot of the service afterwards, because the supervisor
/// waits on this slot ([`CommandWait`]).
pub(crate) struct Control(Mutex<ControlState>);

pub(super) struct ControlState {
    // Reported by the supervisor.
    state: SupervisorState,
    details: Details,
    /// The end of the last instance, or the time at which the supervisor was run. `None` if an
    /// instance is up, or the supervisor is not running.
    not_ready_since: Option<Instant>,
    /// `run` or `run_blocking` was called, or is about to be.
    is_run: bool,
    /// The number of the last change of the state. The numbers of one service grow, also from one
    /// of its supervisors to the next one.
    changes: u64,
    /// Why the instance is degraded.
    pub(super) degraded: Degradations,
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
            changes: 0,
            degraded: Degradations::default(),
            build: None,
            stop_timeout: Duration::ZERO,
            stop_end: None,
            body: None,
            closes: Vec::new(),
            readers: None,
            reset_requested: false,
            end_requested: None,
            executing: None,
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

    pub(super) fn count_change(&mut self) -> u64 {
        self.changes += 1;
        self.changes
    }
}

impl Control {
    /// A supervisor that is not running. `changes` is the number of the last change that an earlier
    /// one has reported.
    pub(super) fn new(changes: u64) -> Self {
        Self(Mutex::new(ControlState { changes, ..ControlState::default() }))
    }

    /// Returns the number of the last change.
    pub(super) fn changes(&self) -> u64 {
        lock(&self.0).changes
    }

    /// Counts an event that is not a change of the state. Returns its number.
    pub(super) fn count_change(&self) -> u64 {
        lock(&self.0).count_change()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, ControlState> {
        lock(&self.0)
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
            let control = lock(&self.0);
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
                given_up_with: None,
            };
            (status, control.build.clone())
        };
        // The timer of the build has a lock of its own.
        let late_by = build.zip(now).and_then(|(build, now)| build.upgrade()?.late_by(now));
        SupervisorStatus { late_by, ..status }
    }

    /// Reports the state of the supervisor. `now` is the present time, if the service is not ready
    /// any more ([`was_ready`](Self::was_ready)). Returns the state before that, and the number of
    /// the change, by which the listing for a new observer shows it or not.
    pub(crate) fn set_state(
        &self,
        state: SupervisorState,
        details: Details,
        now: Option<Instant>,
    ) -> (SupervisorState, u64) {
        let mut control = lock(&self.0);
        match state.is_ready() {
            true => control.not_ready_since = None,
            false => control.not_ready_since = control.not_ready_since.or(now),
        }
        let was = control.state;
        (was, control.change(state, details))
    }

    /// Returns whether the service was ready in the state that was reported last. A supervisor that
    /// has reported nothing counts as ready.
    pub(crate) fn was_ready(&self) -> bool {
        lock(&self.0).not_ready_since.is_none()
    }

    /// Reports a build that has a timeout.
    pub(crate) fn set_build(&self, build: Weak<dyn BuildDeadline>) {
        lock(&self.0).build = Some(build);
    }

    pub(crate) fn state(&self) -> SupervisorState {
        lock(&self.0).state
    }

    /// Notes that the supervisor is run, although no thread or executor may have begun.
    pub(crate) fn set_run(&self) {
        lock(&self.0).is_run = true;
    }

    /// Returns whether it is run.
    pub(in crate::registry) fn is_run(&self) -> bool {
        lock(&self.0).is_run
    }

    /// Reports that the supervisor is running, and the limit for stopping its service.
    pub(crate) fn start(&self, stop_timeout: Duration) {
        let mut control = lock(&self.0);
        control.stop_timeout = stop_timeout;
        control.change(SupervisorState::Building, Details::default());
    }

    /// Called when the supervisor has ended: no end is requested after that.
    pub(super) fn end(&self) {
        lock(&self.0).state = SupervisorState::NotRunning;
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

    /// Asks the supervisor to stop its service. Returns the limit for this. If the supervisor is
    /// not running, and so will not stop anything, it is not asked, and this returns `None`.
    ///
    /// Called under the lock of the plan: the supervisor finds the request if and only if it is the
    /// turn of its service.
    pub(super) fn request_end(&self, end: &Arc<PlannedEnd>) -> Option<Duration> {
        let mut control = lock(&self.0);
        if control.state == SupervisorState::NotRunning {
            return None;
        }
        control.end_requested = Some(Arc::clone(end));
        // What is reported now belongs to the request that is being executed.
        if control.executing.is_none() {
            (control.body, control.closes) = (None, Vec::new());
        }
        Some(control.stop_timeout)
    }

    /// Returns the request of an end, if there is one. The supervisor executes it from now on.
    pub(crate) fn execute_end(&self) -> Option<Arc<PlannedEnd>> {
        let mut control = lock(&self.0);
        control.executing = control.end_requested.clone();
        control.executing.clone()
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
    pub(super) fn reports(&self) -> (Option<BodyReport>, Vec<CloseReport>) {
        let control = lock(&self.0);
        (control.body.clone(), control.closes.clone())
    }

    /// Reports the readers for which it waits from now on.
    pub(crate) fn set_readers(&self, readers: Arc<dyn CountHolders>) {
        lock(&self.0).readers = Some(readers);
    }

    /// Returns the number of references for whose drop it waits.
    pub(super) fn holders(&self) -> usize {
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

    /// Takes the request that the supervisor has executed, and the result of its work. If it has
    /// executed none, takes the request that there is, without a result.
    pub(super) fn take_end(&self) -> Option<(Arc<PlannedEnd>, Option<StopEnd>)> {
        let mut control = lock(&self.0);
        let executed = control.executing.take().or_else(|| control.end_requested.clone())?;
        match &control.end_requested {
            Some(requested) if Arc::ptr_eq(requested, &executed) => control.end_requested = None,
            // A newer one, which is executed next.
            _ => (control.body, control.closes) = (None, Vec::new()),
        }
        control.readers = None;
        Some((executed, control.stop_end.take()))
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
