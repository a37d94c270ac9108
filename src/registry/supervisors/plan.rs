//! The plan of the planned ends: which services end together, and which one's turn to stop it is
//! (S4).
//!
//! A restart, a stop and a shutdown are *operations*. The members of an operation are its roots and
//! their hard dependents; those of a shutdown are all services. Two operations with a member in
//! common become one. When all members have ended, the operation is over, and releases them.
//!
//! The registry owns the plan, and not the future that a caller awaits. So a dropped future undoes
//! nothing, and each thread that ends a service can continue the plan.
//!
//! A service that waits has a *witness*: one dependent that has not ended. Only the end of its
//! witness causes another check of the service, which continues in the list of the dependents after
//! the witness. So all checks together visit each edge a constant number of times. A service passes
//! its list
//!
//! 1. until a pass from the beginning has found no dependent that has not ended. A pass that had to
//!    wait proves nothing: an edge may have been added before its position.
//! 2. then it is marked, and its list is passed once more: this pass finds each dependent that has
//!    got an instance of the service before the mark (S4). Then it is its turn.
//!
//! The removal of an edge can make it the turn of a service without a notification. So if no
//! service of an operation is stopping and some have not ended, all of them are checked again. The
//! graph is acyclic, so it is the turn of at least one.
//!
//! The lock of the plan comes before the locks of the names, of the topology, and of the
//! supervisors. No user code runs under it.

mod state;

use std::{
    collections::BTreeSet,
    mem,
    sync::Arc,
    time::{Duration, Instant},
};

use self::state::{Course, Progress, State};
use super::{
    PlannedEnd,
    report::{ShutdownReport, StopTimeout, StoppedService},
};
use crate::{
    numbers::ServiceIndex,
    store::{Edge, EndMark, Phase, Store},
    sync::{Mutex, MutexGuard, lock},
};

#[derive(Default)]
pub(crate) struct Plan(Mutex<State>);

/// The next step of the plan.
pub(super) enum Step {
    /// This service was marked: wake its slot, and then call `Plan::marked`.
    Mark(ServiceIndex),
    /// It is the turn of this service to stop.
    Stop(ServiceIndex, Arc<PlannedEnd>),
    /// The mark of this service has changed: wake its slot.
    Wake(ServiceIndex),
    /// These services were released.
    Release(Vec<Released>),
    /// The budget is used up.
    Pause,
    /// Nothing can be done until a service that is stopping has ended.
    Wait,
    /// A shutdown has ended all services.
    AllEnded,
}

/// A service that can begin again.
pub(super) struct Released {
    pub(super) service: ServiceIndex,
    /// It was asked for itself, and not only as a dependent. Its failures are forgotten.
    pub(super) resets: bool,
}

/// What the user has asked for.
pub(crate) struct Request {
    pub(crate) root: ServiceIndex,
    pub(crate) end: PlannedEnd,
    /// The dependents stay stopped, too.
    pub(crate) subtree: bool,
}

/// The place for the report of an operation; for the wait of the caller.
pub(crate) type Ticket = Arc<Mutex<Option<ShutdownReport>>>;

impl Plan {
    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.0)
    }

    /// Begins the shutdown. Returns whether this call has begun it.
    pub(crate) fn begin_shutdown(&self, store: &Store, end: PlannedEnd) -> bool {
        let mut state = self.lock();
        let begins = state.shutdown == Course::NotBegun;
        if begins {
            state.begin_shutdown(store, Arc::new(end));
        }
        begins
    }

    /// Begins a restart or a stop. Returns `None` if a shutdown has begun.
    pub(crate) fn begin(&self, store: &Store, request: Request) -> Option<Ticket> {
        let mut state = self.lock();
        (state.shutdown == Course::NotBegun).then(|| state.begin(store, request))
    }

    /// Lets a stopped service begin again. Returns whether it was stopped, and whether the caller
    /// must wake its slot.
    pub(crate) fn start(&self, store: &Store, service: ServiceIndex) -> (bool, bool) {
        let mut state = self.lock();
        if state.shutdown != Course::NotBegun {
            return (false, false);
        }
        if let Some(member) = state.members.get_mut(&service) {
            let was_stopped = mem::take(&mut member.stays_stopped);
            if was_stopped {
                // It is being stopped: it begins again when it is released.
                (member.is_root, member.subtree, member.is_started) = (true, false, true);
            }
            return (was_stopped, false);
        }
        let mark = &store.service(service).end_mark;
        let was_stopped = mark.get() == EndMark::Stopped;
        if was_stopped {
            mark.set(EndMark::None);
        }
        (was_stopped, was_stopped)
    }

    pub(crate) fn has_shutdown_begun(&self) -> bool {
        self.lock().shutdown != Course::NotBegun
    }

    /// Returns the report, if the shutdown has ended.
    pub(crate) fn report(&self) -> Option<ShutdownReport> {
        let state = self.lock();
        (state.shutdown == Course::Ended).then(|| state.report.clone())
    }

    /// Returns when the next limit of a service expires.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.lock().deadlines.first().map(|&(deadline, _)| deadline)
    }

    /// Returns the members of the operation of a service that have not ended, and whose turn has
    /// begun.
    pub(crate) fn stopping_with(&self, service: ServiceIndex) -> Vec<ServiceIndex> {
        let state = self.lock();
        let Some(member) = state.members.get(&service) else { return Vec::new() };
        let members = &state.operations[&member.operation].members;
        let is_stopping = |service: &&ServiceIndex| {
            matches!(state.members[*service].progress, Progress::Stopping | Progress::Held)
        };
        members.iter().filter(is_stopping).copied().collect()
    }

    /// Returns the next step. Counts each service and each edge that it checks down in `budget`.
    pub(super) fn next(&self, store: &Store, budget: &mut usize) -> Step {
        let mut state = self.lock();
        loop {
            if *budget == 0 {
                return Step::Pause;
            }
            *budget -= 1;
            if let Some(service) = state.to_wake.pop() {
                return Step::Wake(service);
            }
            if let Some(service) = state.to_check.pop_front() {
                if let Some(step) = state.check(store, service, budget) {
                    return step;
                }
            } else if let Some(number) = state.to_look_at.pop() {
                if let Some(step) = state.look_at(store, number) {
                    return step;
                }
            } else {
                let Course::Begun(number) = state.shutdown else { return Step::Wait };
                if state.added < store.len() {
                    state.add_all(store, number);
                } else if state.operations[&number].left == 0 {
                    return Step::AllEnded;
                } else {
                    return Step::Wait;
                }
            }
        }
    }

    /// Called after the slot of a marked service was woken: passes its list for the last time.
    pub(super) fn marked(&self, service: ServiceIndex) {
        let mut state = self.lock();
        let Some(member) = state.members.get_mut(&service) else { return };
        (member.progress, member.is_marked) = (Progress::Waiting, true);
        (member.position, member.is_queued) = (Edge::first_to(service), true);
        let number = member.operation;
        state.to_check.push_front(service);
        state.no_longer_busy(number);
    }

    /// Stores when the turn of a service has begun.
    pub(super) fn turn_began(&self, service: ServiceIndex, now: Instant) {
        if let Some(member) = self.lock().members.get_mut(&service) {
            member.turn_at = Some(now);
        }
    }

    /// Stores the limit of a service whose supervisor was asked to stop it. Returns whether no
    /// other limit is earlier.
    pub(super) fn set_deadline(&self, service: ServiceIndex, deadline: Option<Instant>) -> bool {
        let mut state = self.lock();
        let Some(member) = state.members.get_mut(&service) else { return false };
        // The supervisor may have ended already.
        let (Progress::Stopping, Some(deadline)) = (member.progress, deadline) else {
            return false;
        };
        member.deadline = Some(deadline);
        state.deadlines.insert((deadline, service));
        state.deadlines.first() == Some(&(deadline, service))
    }

    /// Returns whether the service is stopping.
    pub(super) fn is_stopping(&self, service: ServiceIndex) -> bool {
        self.lock().members.get(&service).is_some_and(|it| it.progress == Progress::Stopping)
    }

    /// Adds a guard that holds the turn of a service.
    pub(crate) fn hold(&self, service: ServiceIndex) {
        *self.lock().held.entry(service).or_default() += 1;
    }

    /// Removes a guard. Returns whether a turn has waited for it: then the caller reports the
    /// result.
    pub(super) fn no_longer_hold(&self, service: ServiceIndex) -> bool {
        let mut state = self.lock();
        if let Some(guards) = state.held.get_mut(&service) {
            *guards -= 1;
            if *guards > 0 {
                return false;
            }
            state.held.remove(&service);
        }
        let member = state.members.get_mut(&service);
        let Some(member) = member.filter(|it| it.progress == Progress::Held) else { return false };
        member.progress = Progress::Stopping;
        true
    }

    /// Returns whether the provider of a service that is stopping holds its turn. Then it ends with
    /// the last guard.
    pub(super) fn is_held(&self, service: ServiceIndex) -> bool {
        let mut state = self.lock();
        if !state.held.contains_key(&service) {
            return false;
        }
        let member = state.members.get_mut(&service);
        let member = member.filter(|member| member.progress == Progress::Stopping);
        member.is_some_and(|member| {
            member.progress = Progress::Held;
            true
        })
    }

    /// Adds the result of a service to the report, unless it was reported already. The caller then
    /// ensures that the service is down, and calls `ended`.
    pub(super) fn stopped(
        &self,
        service: ServiceIndex,
        now: Instant,
        describe: impl FnOnce(Duration) -> StoppedService,
    ) -> bool {
        let mut state = self.lock();
        let Some((report, took)) = state.take_stopping(service, now) else { return false };
        report.stopped.push(describe(took));
        true
    }

    /// As `stopped`, for a service that did not stop within its limit.
    pub(super) fn timed_out(
        &self,
        service: ServiceIndex,
        now: Instant,
        describe: impl Fn(ServiceIndex) -> StopTimeout,
    ) -> bool {
        let mut state = self.lock();
        let Some((report, _)) = state.take_stopping(service, now) else { return false };
        report.stop_timeouts.push(describe(service));
        true
    }

    /// Adds the next service whose limit has expired to the report. The caller then fails it, and
    /// calls `ended`.
    pub(super) fn next_expired(
        &self,
        now: Instant,
        describe: impl Fn(ServiceIndex) -> StopTimeout,
    ) -> Option<(ServiceIndex, Arc<PlannedEnd>)> {
        let (expired, end) = {
            let state = self.lock();
            let &(deadline, service) = state.deadlines.first()?;
            let end = Arc::clone(&state.members.get(&service)?.end);
            ((now >= deadline).then_some(service)?, end)
        };
        self.timed_out(expired, now, describe).then_some((expired, end))
    }

    /// Called when a service is down whose result was reported.
    pub(super) fn ended(&self, service: ServiceIndex) {
        let mut state = self.lock();
        let Some(member) = state.members.get_mut(&service) else { return };
        member.progress = Progress::Ended;
        let number = member.operation;
        let mut waiting = member.first_waiting.take();
        while let Some(service) = waiting {
            state.queue(service);
            waiting = state.members.get_mut(&service).and_then(|it| it.next_waiting.take());
        }
        state.operation(number).left -= 1;
        state.no_longer_busy(number);
    }

    /// Ends the shutdown, if it is in progress: adds all services that have not ended to the
    /// report, and returns them.
    ///
    /// A service that is down and whose turn has not come has nothing to stop, and is not reported.
    pub(super) fn end_shutdown(
        &self,
        store: &Store,
        describe: impl Fn(ServiceIndex) -> StopTimeout,
    ) -> Option<BTreeSet<ServiceIndex>> {
        let mut state = self.lock();
        let Course::Begun(number) = state.shutdown else { return None };
        let progress = |state: &State, service| state.members.get(&service).map(|it| it.progress);
        let is_stopping = |state: &State, service: ServiceIndex| {
            matches!(progress(state, service), Some(Progress::Stopping | Progress::Held))
        };
        let is_left_up = |state: &State, service: ServiceIndex| {
            let waits = matches!(
                progress(state, service),
                None | Some(Progress::Waiting | Progress::Marking)
            );
            waits && store.slot(service).state.load().phase() != Phase::Down
        };
        let services = || ServiceIndex::range(0..store.len());
        let stopping = services().filter(|&service| is_stopping(&state, service));
        let left_up = services().filter(|&service| is_left_up(&state, service));
        let left: Vec<ServiceIndex> = stopping.chain(left_up).collect();
        let mut report = mem::take(&mut state.operation(number).report);
        report.stop_timeouts.extend(left.iter().map(|&service| describe(service)));
        let held = mem::take(&mut state.held);
        *state = State { shutdown: Course::Ended, report, held, ..State::default() };
        Some(left.into_iter().collect())
    }
}
