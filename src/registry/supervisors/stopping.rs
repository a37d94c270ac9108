//! The steps of the planned ends (`plan.rs` decides which one is next). They run user code: wakers,
//! observers, and the `Drop` of values. So each is executed without a lock.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Control, PlannedEnd, Refusal, StopEnd, SupervisorState,
    plan::{Released, Step, Turn},
    report::{BodyReport, CloseReport, StopReport, StopResult, StopTimeout, StoppedService},
};
use crate::{
    event::EventKind,
    failure::Reason,
    numbers::ServiceIndex,
    registry::Registry,
    store::{Phase, Target},
    sync::Shielded,
};

impl Registry {
    /// The number of services and edges that a shutdown checks before it checks its limit again and
    /// lets its executor run other tasks.
    pub(crate) const PIECE: usize = 64;

    /// Executes all steps that can be executed now.
    pub(crate) fn advance_all(&self) {
        while self.advance(self.clock().now()) {}
    }

    /// Executes steps until `PIECE` services and edges were checked. Returns whether it can
    /// continue at once.
    pub(crate) fn advance(&self, now: Instant) -> bool {
        let (plan, store) = (&self.supervisors().plan, self.store());
        while let Some((service, end)) =
            plan.next_expired(now, |service| self.stop_timeout(service))
        {
            // S6: its dependencies stop next, so it must not be read any more.
            self.end_at_its_turn(service, &end.reason);
            self.report_stop(service, EventKind::StopTimedOut);
            plan.ended(service);
        }
        let mut budget = Self::PIECE;
        loop {
            if self.is_closed() {
                self.end_shutdown();
                return false;
            }
            let request = |service, end: &Arc<PlannedEnd>| {
                self.supervisors().control(service)?.request_end(end)
            };
            match plan.next(store, &mut budget, request) {
                // S4, in this order: mark the service, wake its slot, pass the list of its
                // dependents. The wake-up is a read-modify-write of the state, as the begin of an
                // attempt (`end_if_marked` in `provide/provider.rs`).
                Step::Mark(service) => {
                    store.wake(service);
                    plan.marked(service);
                }
                Step::Stop(turn) => {
                    self.stop_at_its_turn(&turn);
                    plan.turn_has_begun(turn.service);
                }
                Step::Wake(service) => store.wake(service),
                Step::Release(released) => self.release(released),
                Step::Pause => return true,
                Step::Wait => return false,
                Step::AllEnded => {
                    self.end_shutdown();
                    self.close();
                    return false;
                }
            }
        }
    }

    fn release(&self, released: Vec<Released>) {
        for Released { service, resets } in released {
            if resets {
                self.request_reset(service);
            }
            self.review(service);
            self.store().wake(service);
        }
    }

    /// Asks the supervisor of a service, if there is one, to forget the failures, and to build the
    /// service if it is waiting. Returns whether it was waiting. The caller then wakes the slot.
    pub(crate) fn request_reset(&self, service: ServiceIndex) -> bool {
        // First: the service begins after the next line, and its group must not refuse it.
        self.restart_given_up(service);
        self.supervisors().control(service).is_some_and(|control| control.request_reset())
    }

    /// Called after the supervisor of the service, if there is one, was asked to stop it.
    fn stop_at_its_turn(&self, turn: &Turn) {
        let (plan, store) = (&self.supervisors().plan, self.store());
        let &Turn { service, ref end, limit } = turn;
        // Shielded, because the supervisor must be woken also if the clock panics.
        if self.supervisors().now().is_some_and(|now| plan.turn_began(turn, now)) {
            self.supervisors().limits.step();
            self.supervisors().progress.step();
        }
        // The supervisor now finds the request.
        store.wake(service);
        if limit.is_some() {
            // The supervisor drops an async build itself, but a blocking builder notices the end
            // only if its attempt is invalidated. S5: an instance is left for the supervisor, whose
            // body is notified before it goes down.
            if store.slot(service).state.load().phase() == Phase::Starting {
                self.end_at_its_turn(service, &end.reason);
            }
            return;
        }
        // Nothing would stop it but this plan: it has no supervisor, or one that is not running.
        self.end_at_its_turn(service, &end.reason);
        if !plan.is_held(service) {
            self.report_stopped(service, end);
        }
    }

    fn report_stopped(&self, service: ServiceIndex, end: &Arc<PlannedEnd>) {
        let plan = &self.supervisors().plan;
        let describe = |took| self.stopped(service, took, StopResult::Stopped, Default::default());
        if plan.stopped(service, end, self.clock().now(), describe) {
            self.report_stop(service, EventKind::StopEnded);
            plan.ended(service);
        }
    }

    /// Called when a guard that holds the turn of a service is dropped.
    pub(crate) fn no_longer_hold(&self, service: ServiceIndex) {
        if let Some(end) = self.supervisors().plan.no_longer_hold(service) {
            self.report_stopped(service, &end);
            self.advance_all();
            self.supervisors().progress.step();
        }
    }

    fn end_at_its_turn(&self, service: ServiceIndex, reason: &Reason) {
        let _ = self.cascade(service, Target::Any, Shielded::new(reason.clone()));
    }

    /// Reports the end of the turn of a service to stop, after the service is down.
    fn report_stop(&self, service: ServiceIndex, kind: EventKind<'_>) {
        if self.is_observed() {
            let number = self.supervisors().count_change(service);
            let generation = self.store().slot(service).state.load().generation();
            self.emit_numbered(service, generation, number, Duration::ZERO, kind);
        }
    }

    /// Called when a supervisor has ended or is dropped, after its attempt and its instance.
    pub(crate) fn supervisor_ended(&self, service: ServiceIndex, control: &Control) {
        // First while it can be found: another thread may report it as late, and describes it.
        self.end_reached(service, control);
        self.supervisors().remove(service);
        if let Some(reload) = control.end() {
            reload.refused(self.store(), service, Refusal::NotUp);
        }
        // Its turn may have begun since then. If it begins later, the plan finds no supervisor, or
        // one that is not running, and ends the service itself.
        self.end_reached(service, control);
        // After the plan: a shutdown checks it after this step (`progress.rs`).
        self.supervisors().progress.step();
    }

    /// Called when the work at the turn of a service to stop has ended, or its supervisor was
    /// dropped.
    pub(crate) fn end_reached(&self, service: ServiceIndex, control: &Control) {
        let plan = &self.supervisors().plan;
        let (late, reports) = (self.stop_timeout_of(service, control), control.reports());
        // Before the report: after it, the plan may request another end.
        let Some((end, result)) = control.take_end() else { return };
        let now = self.clock().now();
        let kind = match result {
            Some(StopEnd::TimedOut) => EventKind::StopTimedOut,
            Some(StopEnd::Done) | None => EventKind::StopEnded,
        };
        let is_reported = match result {
            Some(StopEnd::TimedOut) => plan.timed_out(service, &end, now, late),
            result => {
                let result = match result {
                    Some(_) => StopResult::Stopped,
                    None => StopResult::SupervisorDropped,
                };
                let describe = |took| self.stopped(service, took, result, reports);
                plan.stopped(service, &end, now, describe)
            }
        };
        if is_reported {
            // The cascade of another thread may have condemned the instance of a supervisor that
            // was dropped, and not have taken it down.
            self.end_at_its_turn(service, &end.reason);
            self.report_stop(service, kind);
            plan.ended(service);
            // Not only the future continues the plan: it may have been dropped.
            self.advance_all();
        }
    }

    /// Describes the services that are stopping now, together with this one.
    pub(crate) fn stopping_with(&self, service: ServiceIndex) -> Vec<StopTimeout> {
        let stopping = self.supervisors().plan.stopping_with(service);
        stopping.into_iter().map(|service| self.stop_timeout(service)).collect()
    }

    /// Describes a service that has not stopped in time. Called under the lock of the plan.
    fn stop_timeout(&self, service: ServiceIndex) -> StopTimeout {
        match self.supervisors().control(service) {
            Some(control) => self.stop_timeout_of(service, &control),
            None => {
                let (service, state) = (self.store().name(service), SupervisorState::NotRunning);
                StopTimeout { service, state, holders: 0, body: None, closes: Vec::new() }
            }
        }
    }

    fn stop_timeout_of(&self, service: ServiceIndex, control: &Control) -> StopTimeout {
        let (state, holders) = (control.state(), control.holders());
        let (body, closes) = control.reports();
        StopTimeout { service: self.store().name(service), state, holders, body, closes }
    }

    /// Describes a service that has stopped. Called under the lock of the plan.
    fn stopped(
        &self,
        service: ServiceIndex,
        took: Duration,
        result: StopResult,
        (body, closes): (Option<BodyReport>, Vec<CloseReport>),
    ) -> StoppedService {
        StoppedService { service: self.store().name(service), took, result, body, closes }
    }

    /// Called after the registry was closed.
    pub(in crate::registry) fn end_supervision(&self) {
        self.end_shutdown();
        self.supervisors().signals.close();
        self.supervisors().progress.step();
    }

    /// Ends a shutdown that is in progress. Returns the services that have not ended.
    fn end_shutdown(&self) -> Option<BTreeSet<ServiceIndex>> {
        let plan = &self.supervisors().plan;
        plan.end_shutdown(self.store(), |service| self.stop_timeout(service))
    }

    /// Describes what a shutdown has stopped so far, and what it has not.
    pub(crate) fn report_so_far(&self) -> StopReport {
        let plan = &self.supervisors().plan;
        plan.report_so_far(self.store(), |service| self.stop_timeout(service))
    }

    /// Ends a shutdown whose limit has expired: reports and fails all services that have not
    /// stopped, and closes the registry (S6).
    pub(crate) fn end_shutdown_in_time(&self) -> StopReport {
        if let Some(left) = self.end_shutdown().filter(|left| !left.is_empty()) {
            self.cascade_all(&left, &Shielded::new(Reason::ShutDown));
            left.iter().for_each(|&service| self.report_stop(service, EventKind::StopTimedOut));
        }
        // Last: `close` ends the waits of supervisors that did not stop.
        self.close();
        self.supervisors().plan.report().unwrap_or_default()
    }
}
