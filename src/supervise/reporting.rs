//! What a supervisor reports of itself: the state in its status, and the events of it.

use std::time::{Duration, Instant};

use super::{SupervisorState, supervisor::ServiceLoop};
use crate::{event::EventKind, failure::Failure, numbers::Generation, service::ServiceName};

impl<T: Send + Sync + 'static> ServiceLoop<T> {
    /// Reports the state, and the number of counted failures. `retry_at` is the end of a backoff.
    pub(super) fn set_state(
        &self,
        state: SupervisorState,
        failures: u32,
        retry_at: Option<Instant>,
    ) {
        self.control.set_state(state, failures, retry_at);
    }

    /// Reports that instances of `generation` are being drained or closed, which this number of
    /// references keep alive.
    pub(super) fn set_ending(
        &self,
        state: SupervisorState,
        failures: u32,
        _generation: Generation,
        _holders: usize,
    ) {
        self.control.set_state(state, failures, None);
    }

    /// Reports that the last build failed because `service` was not available, and that the
    /// supervisor waits for a change of that service, and retries at `retry_at` at the earliest.
    #[expect(dead_code, reason = "a failure because of an unavailable service is counted so far")]
    pub(super) fn set_waiting(
        &self,
        service: ServiceName,
        failures: u32,
        retry_at: Option<Instant>,
    ) {
        self.control.set_waiting(service, failures, retry_at);
    }

    /// Reports that the service stays down after this failure: the state is *permanent* or *given
    /// up*.
    pub(super) fn set_down(&self, state: SupervisorState, failures: u32, failed: &Failure) {
        let number = self.control.set_state(state, failures, None);
        // After the status shows it.
        let (registry, index) = (self.registry(), self.id().index());
        let kind = EventKind::GivenUp(failed);
        registry.emit_numbered(index, failed.generation, number, Duration::ZERO, kind);
    }
}
