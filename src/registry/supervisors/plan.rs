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

mod adding;
mod state;

use std::{
    collections::BTreeSet,
    mem,
    sync::Arc,
    time::{Duration, Instant},
};

use self::state::{Course, Progress, Sleep, State};
use super::{
    PlannedEnd,
    report::{StopReport, StopTimeout, StoppedService},
};
use crate::{
    numbers::ServiceIndex,
    store::{Edge, EndMark, Store},
    sync::{Mutex, MutexGuard, lock},
};

#[derive(Default)]
pub(crate) struct Plan(Mutex<State>);

/// The next step of the plan.
pub(super) enum Step {
    /// This service was marked: wake its slot, and then call `Plan::marked`.
    Mark(ServiceIndex),
    /// It is the turn of this service to stop.
    Stop(Turn),
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

/// The turn of a service to stop.
pub(super) struct Turn {
    pub(super) service: ServiceIndex,
    /// What its supervisor was asked for.
    pub(super) end: Arc<PlannedEnd>,
    /// The limit of its supervisor. `None` if no supervisor of it is running.
    pub(super) limit: Option<Duration>,
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

/// The place for the report of an operation; for the wait of the caller. The callers share it.
pub(crate) type Ticket = Arc<Mutex<Option<Arc<StopReport>>>>;

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

    /// Begins one operation for these restarts and stops, of which there is one at least. Returns
    /// `None` if a shutdown has begun.
    pub(crate) fn begin(&self, store: &Store, requests: Vec<Request>) -> Option<Ticket> {
        let mut state = self.lock();
        if state.shutdown != Course::NotBegun {
            return None;
        }
        let new = state.new_operation();
        let begin = |number, request| state.begin(store, request, number);
        let number = requests.into_iter().fold(new, begin);
        let ticket = Ticket::default();
        state.operation(number).tickets.push(Arc::clone(&ticket));
        // All its members may have ended already.
        state.to_look_at.push(number);
        Some(ticket)
    }

    /// Returns whether an operation in progress lets the service begin again at its end.
    pub(in crate::registry) fn begins_again(&self, service: ServiceIndex) -> bool {
        self.lock().members.get(&service).is_some_and(|member| !member.stays_stopped)
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
    pub(crate) fn report(&self) -> Option<StopReport> {
        let state = self.lock();
        (state.shutdown == Course::Ended).then(|| state.report.clone())
    }

    /// Returns when the next limit of a service expires. The caller sleeps until then, or until
    /// `Supervisors::limits` has counted a step, whose number it has read before.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let mut state = self.lock();
        let deadline = state.deadlines.first().map(|&(deadline, _)| deadline);
        state.sleep = state.sleep.max(deadline.map_or(Sleep::Forever, Sleep::Until));
        deadline
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
    /// `request` asks a supervisor to stop its service, and returns the limit for this.
    pub(super) fn next(
        &self,
        store: &Store,
        budget: &mut usize,
        request: impl Fn(ServiceIndex, &Arc<PlannedEnd>) -> Option<Duration>,
    ) -> Step {
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
                if let Some(step) = state.check(store, service, budget, &request) {
                    return step;
                }
            } else if let Some(number) = state.to_look_at.pop() {
                if let Some(step) = state.look_at(store, number) {
                    return step;
                }
            } else {
                let Course::Begun(number) = state.shutdown else { return Step::Wait };
                if state.added < store.len() {
                    state.add_some(store, number, budget);
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

    /// Stores when a turn has begun, and its limit. Returns whether a future that enforces the
    /// limits sleeps longer than that. Does nothing if the supervisor has ended the turn already.
    pub(super) fn turn_began(&self, turn: &Turn, now: Instant) -> bool {
        let mut state = self.lock();
        let Some(member) = state.members.get_mut(&turn.service) else { return false };
        if !member.has_turn(Some(&turn.end)) {
            return false;
        }
        member.turn_at = Some(now);
        // A limit beyond the range of `Instant` is none.
        let Some(deadline) = turn.limit.and_then(|limit| now.checked_add(limit)) else {
            return false;
        };
        member.deadline = Some(deadline);
        state.deadlines.insert((deadline, turn.service));
        let wakes = state.sleep > Sleep::Until(deadline);
        if wakes {
            // All of them wake up, and ask again.
            state.sleep = Sleep::None;
        }
        wakes
    }

    /// Called when nothing more is done to begin the turn of a service. The operation is not over
    /// before that, so no command, wake-up or failure comes after it.
    pub(super) fn turn_has_begun(&self, service: ServiceIndex) {
        let mut state = self.lock();
        if let Some(number) = state.members.get(&service).map(|member| member.operation) {
            state.no_longer_busy(number);
        }
    }

    /// Adds a guard that holds the turn of a service.
    pub(crate) fn hold(&self, service: ServiceIndex) {
        *self.lock().held.entry(service).or_default() += 1;
    }

    /// Removes a guard. Returns the end whose turn has waited for it, if there is one: then the
    /// caller reports the result.
    pub(super) fn no_longer_hold(&self, service: ServiceIndex) -> Option<Arc<PlannedEnd>> {
        let mut state = self.lock();
        if let Some(guards) = state.held.get_mut(&service) {
            *guards -= 1;
            if *guards > 0 {
                return None;
            }
            state.held.remove(&service);
        }
        let member = state.members.get_mut(&service)?;
        if member.progress != Progress::Held {
            return None;
        }
        member.progress = Progress::Stopping;
        member.requested.clone()
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

    /// Adds the result of a service to the report, unless it was reported already, or it is the
    /// result of another end than that of the present turn. The caller then ensures that the
    /// service is down, and calls `ended`.
    pub(super) fn stopped(
        &self,
        service: ServiceIndex,
        end: &Arc<PlannedEnd>,
        now: Instant,
        describe: impl FnOnce(Duration) -> StoppedService,
    ) -> bool {
        let mut state = self.lock();
        let Some((report, took)) = state.take_stopping(service, Some(end), now) else {
            return false;
        };
        report.stopped.push(describe(took));
        true
    }

    /// As `stopped`, for a service that did not stop within its limit.
    pub(super) fn timed_out(
        &self,
        service: ServiceIndex,
        end: &Arc<PlannedEnd>,
        now: Instant,
        late: StopTimeout,
    ) -> bool {
        let mut state = self.lock();
        let Some((report, _)) = state.take_stopping(service, Some(end), now) else {
            return false;
        };
        report.stop_timeouts.push(late);
        true
    }

    /// Adds the next service whose limit has expired to the report. The caller then fails it, and
    /// calls `ended`.
    pub(super) fn next_expired(
        &self,
        now: Instant,
        describe: impl Fn(ServiceIndex) -> StopTimeout,
    ) -> Option<(ServiceIndex, Arc<PlannedEnd>)> {
        let mut state = self.lock();
        let &(deadline, service) = state.deadlines.first()?;
        if now < deadline {
            return None;
        }
        let end = Arc::clone(&state.members.get(&service)?.end);
        let (report, _) = state.take_stopping(service, None, now)?;
        report.stop_timeouts.push(describe(service));
        Some((service, end))
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
        let left = state.left(store);
        let mut report = mem::take(&mut state.operation(number).report);
        report.stop_timeouts.extend(left.iter().map(|&service| describe(service)));
        // No turn begins any more, so the guards that hold turns are forgotten, too.
        *state = State { shutdown: Course::Ended, report, ..State::default() };
        Some(left.into_iter().collect())
    }

    /// Returns the report of a shutdown as if it ended now, or would end before it has begun.
    pub(super) fn report_so_far(
        &self,
        store: &Store,
        describe: impl Fn(ServiceIndex) -> StopTimeout,
    ) -> StopReport {
        let mut state = self.lock();
        let mut report = match state.shutdown {
            Course::Ended => return state.report.clone(),
            Course::Begun(number) => state.operation(number).report.clone(),
            Course::NotBegun => StopReport::default(),
        };
        report.stop_timeouts.extend(state.left(store).into_iter().map(describe));
        report
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::{super::SupervisorState, *};
    use crate::registry::Registry;

    #[test]
    fn a_shutdown_adds_its_services_in_pieces() {
        const MANY: usize = 1_000;
        let registry = Registry::with_capacity(MANY).unwrap();
        for i in 0..MANY {
            registry.register::<u8>(&format!("{i}")).unwrap();
        }
        let (plan, store) = (Plan::default(), registry.store());
        assert!(plan.begin_shutdown(store, PlannedEnd::shutdown()));
        let mut pieces = 0;
        loop {
            let added = plan.lock().added;
            let mut budget = Registry::PIECE;
            match plan.next(store, &mut budget, |_, _| None) {
                Step::Mark(service) => plan.marked(service),
                Step::Stop(turn) => {
                    let now = Instant::now();
                    plan.turn_began(&turn, now);
                    assert!(plan.timed_out(turn.service, &turn.end, now, late(store, &turn)));
                    plan.ended(turn.service);
                    plan.turn_has_begun(turn.service);
                }
                Step::AllEnded => break,
                Step::Pause => {}
                _ => panic!("nothing is up"),
            }
            assert!(plan.lock().added - added <= Registry::PIECE as u32);
            pieces += 1;
        }
        assert_eq!(plan.lock().added as usize, MANY);
        assert!(pieces >= MANY / Registry::PIECE);
    }

    fn late(store: &Store, turn: &Turn) -> StopTimeout {
        let (service, state) = (store.name(turn.service), SupervisorState::NotRunning);
        StopTimeout { service, state, holders: 0, body: None, closes: Vec::new() }
    }
}
