//! What a supervisor reports of itself: the state in its status, and then the event of it.

use std::time::{Duration, Instant};

use super::{SupervisorState, supervisor::ServiceLoop};
use crate::{
    event::EventKind,
    failure::{Failure, Reason},
    numbers::Generation,
    registry::Details,
    service::ServiceName,
};

impl<T: Send + Sync + 'static> ServiceLoop<T> {
    /// Reports the state, and the number of counted failures. `retry_at` is the end of a backoff.
    pub(super) fn set_state(
        &self,
        state: SupervisorState,
        failures: u32,
        retry_at: Option<Instant>,
    ) {
        self.set_state_since(state, failures, retry_at, None);
    }

    /// As `set_state`. `since` is the end of the last instance, if the caller knows it.
    pub(super) fn set_state_since(
        &self,
        state: SupervisorState,
        failures: u32,
        retry_at: Option<Instant>,
        since: Option<Instant>,
    ) {
        let details = Details { failures, retry_at, ..Details::default() };
        let (was, number) = self.change(state, details, since);
        // At its turn to stop, a service may be stopping already.
        if was == state || !self.registry().is_observed() {
            return;
        }
        let kind = match state {
            SupervisorState::BackingOff => {
                let delay = retry_at.map(|at| at.saturating_duration_since(self.now()));
                EventKind::BackingOff { delay, failures }
            }
            SupervisorState::Completed => EventKind::Completed,
            SupervisorState::Stopping => EventKind::Stopping,
            SupervisorState::Queued => EventKind::Queued,
            SupervisorState::BodyRunning => EventKind::BodyLate,
            // The store reports attempts and publications, and the other states have methods of
            // their own.
            _ => return,
        };
        self.emit(None, number, kind);
    }

    /// Reports that instances of `generation` are being drained or closed, which this number of
    /// references keep alive.
    pub(super) fn set_ending(
        &self,
        state: SupervisorState,
        failures: u32,
        generation: Generation,
        holders: usize,
    ) {
        let (_, number) =
            self.change(state, Details { failures, holders, ..Details::default() }, None);
        let kind = match state {
            SupervisorState::Closing => EventKind::Closing,
            _ => EventKind::Draining { holders },
        };
        self.emit(Some(generation), number, kind);
    }

    /// Reports that the last build failed because `service` was not available, and that the
    /// supervisor waits for a change of that service, and retries at `retry_at` at the earliest.
    pub(super) fn set_waiting(
        &self,
        service: ServiceName,
        failures: u32,
        retry_at: Option<Instant>,
    ) {
        let waiting_for = Some(service.clone());
        let details = Details { failures, retry_at, waiting_for, ..Details::default() };
        let (_, number) = self.change(SupervisorState::Waiting, details, None);
        let (registry, index) = (self.registry(), self.id().index());
        if let Some(missing) = registry.store().find(&service) {
            registry.store().stuck.set_missing(index, missing.index);
            registry.review_waits(index);
        }
        self.emit(None, number, EventKind::Waiting { dependency: &service });
    }

    /// Reports that the service stays down after this failure: the state is *permanent* or *given
    /// up*.
    pub(super) fn set_down(&self, state: SupervisorState, failures: u32, failed: &Failure) {
        let (_, number) = self.change(state, Details { failures, ..Details::default() }, None);
        let kind = match state {
            SupervisorState::Permanent => EventKind::Permanent(failed),
            _ => EventKind::GivenUp(failed),
        };
        // A group may have given up after a failure of another service.
        let is_own = failed.service == self.registry().store().service(self.id().index()).name;
        self.emit(is_own.then_some(failed.generation), number, kind);
    }

    /// Reports that a body has failed after it was notified.
    pub(super) fn body_failed(&self, generation: Generation, reason: &Reason) {
        self.emit(Some(generation), 0, EventKind::BodyFailed(reason));
    }

    /// Reports that a close hook has failed.
    pub(super) fn hook_failed(&self, generation: Generation, reason: &Reason) {
        self.emit(Some(generation), 0, EventKind::HookFailed(reason));
    }

    /// Changes the status. Returns the state before that, and the number of the change.
    /// `since` is the end of the last instance, if the caller knows it.
    fn change(
        &self,
        state: SupervisorState,
        details: Details,
        since: Option<Instant>,
    ) -> (SupervisorState, u64) {
        // No other thread reports a state.
        let ends = !state.is_ready() && (since.is_some() || self.control.was_ready());
        // Before the lock is taken: the clock is user code.
        let now = ends.then(|| since.unwrap_or_else(|| self.now()));
        let (was, number, reload) = self.control.set_state(state, details, now);
        if let Some(reload) = reload {
            self.refuse_reload(&reload);
        }
        if state.may_be_stuck() || was.may_be_stuck() {
            self.registry().review(self.id().index());
        }
        (was, number)
    }

    /// Emits an event of this generation, or of the present one. The status shows it already.
    pub(super) fn emit(&self, generation: Option<Generation>, number: u64, kind: EventKind<'_>) {
        let (registry, index) = (self.registry(), self.id().index());
        let present = || registry.store().slot(index).state.load().generation();
        let generation = generation.unwrap_or_else(present);
        registry.emit_numbered(index, generation, number, Duration::ZERO, kind);
    }
}
