//! The plan of a shutdown: which services have ended, and which one's turn to stop it is (S4).
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
//! service is stopping and some have not ended, all of them are checked again. The graph is
//! acyclic, so it is the turn of at least one.
//!
//! The lock of the plan comes before the locks of the names, of the topology, and of the
//! supervisors. No user code runs under it.

use std::{
    collections::{BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use super::report::{ShutdownReport, StopTimeout, StoppedService};
use crate::{
    numbers::ServiceIndex,
    store::{Edge, FoundDependent, Phase, Store},
    sync::{Mutex, MutexGuard, lock},
};

#[derive(Default)]
pub(crate) struct Plan(Mutex<State>);

/// The next step of a shutdown.
pub(super) enum Step {
    /// Mark this service, and then call `Plan::marked`.
    Mark(ServiceIndex),
    /// It is the turn of this service to stop.
    Stop(ServiceIndex),
    /// The budget is used up.
    Pause,
    /// Nothing can be done until a service that is stopping has ended.
    Wait,
    /// All services have ended.
    AllEnded,
}

#[derive(Default)]
struct State {
    course: Course,
    /// By index.
    services: Vec<Entry>,
    /// The services to check next.
    to_check: VecDeque<ServiceIndex>,
    /// The number of services that are being marked or stopped.
    busy: usize,
    ended: usize,
    /// The limits of the services that are stopping.
    deadlines: BTreeSet<(Instant, ServiceIndex)>,
    report: ShutdownReport,
}

#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum Course {
    #[default]
    NotBegun,
    Begun,
    Ended,
}

/// The progress of one service.
struct Entry {
    progress: Progress,
    /// It is marked: the pass in progress is the last one.
    is_marked: bool,
    /// The pass in progress has not waited for a dependent.
    is_clean: bool,
    /// Where the pass continues.
    position: Edge,
    /// The first service whose witness is this one.
    first_waiting: Option<ServiceIndex>,
    /// The next service with the same witness.
    next_waiting: Option<ServiceIndex>,
    /// When its turn to stop began.
    turn_at: Option<Instant>,
    deadline: Option<Instant>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// It is not its turn to stop.
    Waiting,
    /// A thread is marking it.
    Marking,
    /// It is its turn to stop.
    Stopping,
    /// Its result is in the report. A thread is taking it down, in case that it is not.
    Reported,
    /// It has ended, and its dependencies do not wait for it.
    Ended,
}

impl Entry {
    fn new(service: ServiceIndex) -> Self {
        Self {
            progress: Progress::Waiting,
            is_marked: false,
            is_clean: true,
            position: Edge::first_to(service),
            first_waiting: None,
            next_waiting: None,
            turn_at: None,
            deadline: None,
        }
    }
}

impl Plan {
    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.0)
    }

    /// Begins the shutdown. Returns whether this call has begun it.
    pub(crate) fn begin(&self) -> bool {
        let mut state = self.lock();
        let begins = state.course == Course::NotBegun;
        if begins {
            state.course = Course::Begun;
        }
        begins
    }

    pub(crate) fn has_begun(&self) -> bool {
        self.lock().course != Course::NotBegun
    }

    /// Returns the report, if the shutdown has ended.
    pub(crate) fn report(&self) -> Option<ShutdownReport> {
        let state = self.lock();
        (state.course == Course::Ended).then(|| state.report.clone())
    }

    /// Returns when the next limit of a service expires.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.lock().deadlines.first().map(|&(deadline, _)| deadline)
    }

    /// Returns the next step. Counts each service and each edge that it checks down in `budget`.
    pub(super) fn next(&self, store: &Store, budget: &mut usize) -> Step {
        let mut state = self.lock();
        if state.course != Course::Begun {
            return Step::Wait;
        }
        loop {
            if *budget == 0 {
                return Step::Pause;
            }
            *budget -= 1;
            if let Some(service) = state.to_check.pop_front() {
                if let Some(step) = state.check(store, service, budget) {
                    return step;
                }
            } else if state.busy > 0 {
                return Step::Wait;
            } else if state.services.len() < store.len() as usize {
                // The first step, or services were registered since the last one.
                state.grow(store.len());
            } else if state.ended == state.services.len() {
                return Step::AllEnded;
            } else {
                state.check_all_again();
            }
        }
    }

    /// Called after a service was marked: passes its list for the last time.
    pub(super) fn marked(&self, service: ServiceIndex) {
        let mut state = self.lock();
        state.busy -= 1;
        let entry = state.entry(service);
        (entry.progress, entry.is_marked) = (Progress::Waiting, true);
        entry.position = Edge::first_to(service);
        state.to_check.push_front(service);
    }

    /// Stores when the turn of a service has begun.
    pub(super) fn turn_began(&self, service: ServiceIndex, now: Instant) {
        self.lock().entry(service).turn_at = Some(now);
    }

    /// Stores the limit of a service whose supervisor was asked to stop it. Returns whether no
    /// other limit is earlier.
    pub(super) fn set_deadline(&self, service: ServiceIndex, deadline: Option<Instant>) -> bool {
        let mut state = self.lock();
        let entry = state.entry(service);
        // The supervisor may have ended already.
        let (Progress::Stopping, Some(deadline)) = (entry.progress, deadline) else { return false };
        entry.deadline = Some(deadline);
        state.deadlines.insert((deadline, service));
        state.deadlines.first() == Some(&(deadline, service))
    }

    /// Returns whether the service is stopping.
    pub(super) fn is_stopping(&self, service: ServiceIndex) -> bool {
        let state = self.lock();
        let entry = state.services.get(service.as_usize());
        entry.is_some_and(|entry| entry.progress == Progress::Stopping)
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
        let Some(took) = state.take_stopping(service, now) else { return false };
        state.report.stopped.push(describe(took));
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
        if state.take_stopping(service, now).is_none() {
            return false;
        }
        state.report.stop_timeouts.push(describe(service));
        true
    }

    /// Adds the next service whose limit has expired to the report. The caller then fails it, and
    /// calls `ended`.
    pub(super) fn next_expired(
        &self,
        now: Instant,
        describe: impl Fn(ServiceIndex) -> StopTimeout,
    ) -> Option<ServiceIndex> {
        let expired = self.lock().deadlines.first().copied();
        let (_, service) = expired.filter(|&(deadline, _)| now >= deadline)?;
        self.timed_out(service, now, describe).then_some(service)
    }

    /// Called when a service is down whose result was reported.
    pub(super) fn ended(&self, service: ServiceIndex) {
        let mut state = self.lock();
        state.busy -= 1;
        state.ended += 1;
        let entry = state.entry(service);
        entry.progress = Progress::Ended;
        let mut waiting = entry.first_waiting.take();
        while let Some(service) = waiting {
            state.to_check.push_back(service);
            waiting = state.entry(service).next_waiting.take();
        }
    }

    /// Ends the shutdown, if it is in progress: adds all services that have not ended to the
    /// report, and returns them.
    ///
    /// A service that is down and whose turn has not come has nothing to stop, and is not reported.
    pub(super) fn end(
        &self,
        store: &Store,
        describe: impl Fn(ServiceIndex) -> StopTimeout,
    ) -> Option<BTreeSet<ServiceIndex>> {
        let mut state = self.lock();
        if state.course != Course::Begun {
            return None;
        }
        state.course = Course::Ended;
        state.grow(store.len());
        let is_stopping = |state: &State, service: ServiceIndex| {
            state.services[service.as_usize()].progress == Progress::Stopping
        };
        let is_left_up = |state: &State, service: ServiceIndex| {
            let progress = state.services[service.as_usize()].progress;
            matches!(progress, Progress::Waiting | Progress::Marking)
                && store.slot(service).state.load().phase() != Phase::Down
        };
        let services = || ServiceIndex::range(0..state.services.len() as u32);
        let stopping = services().filter(|&service| is_stopping(&state, service));
        let left_up = services().filter(|&service| is_left_up(&state, service));
        let left: Vec<ServiceIndex> = stopping.chain(left_up).collect();
        state.report.stop_timeouts.extend(left.iter().map(|&service| describe(service)));
        Some(left.into_iter().collect())
    }
}

impl State {
    fn entry(&mut self, service: ServiceIndex) -> &mut Entry {
        &mut self.services[service.as_usize()]
    }

    /// Adds services until there are this many.
    fn grow(&mut self, len: u32) {
        for service in ServiceIndex::range(self.services.len() as u32..len) {
            self.services.push(Entry::new(service));
            self.to_check.push_back(service);
        }
    }

    /// Continues the pass of a service through the list of its dependents.
    fn check(&mut self, store: &Store, service: ServiceIndex, budget: &mut usize) -> Option<Step> {
        // A dependent without an entry was registered just now.
        let is_awaited = |dependent: ServiceIndex| {
            let entry = self.services.get(dependent.as_usize());
            entry.is_none_or(|entry| entry.progress != Progress::Ended)
        };
        let position = self.services[service.as_usize()].position;
        match store.find_dependent(position, budget, is_awaited) {
            FoundDependent::NotYet(edge) => {
                self.entry(service).position = edge;
                self.to_check.push_back(service);
            }
            FoundDependent::At(edge) => {
                self.grow(edge.dependent.get() + 1);
                let next_waiting = self.entry(edge.dependent).first_waiting.replace(service);
                let entry = self.entry(service);
                (entry.position, entry.is_clean, entry.next_waiting) = (edge, false, next_waiting);
            }
            FoundDependent::None => {
                let entry = self.entry(service);
                if entry.is_marked || entry.is_clean {
                    self.busy += 1;
                    let entry = self.entry(service);
                    let (progress, step) = match entry.is_marked {
                        true => (Progress::Stopping, Step::Stop(service)),
                        false => (Progress::Marking, Step::Mark(service)),
                    };
                    entry.progress = progress;
                    return Some(step);
                }
                (entry.position, entry.is_clean) = (Edge::first_to(service), true);
                self.to_check.push_back(service);
            }
        }
        None
    }

    /// Begins a new pass of each service that waits.
    fn check_all_again(&mut self) {
        for service in ServiceIndex::range(0..self.services.len() as u32) {
            let entry = self.entry(service);
            (entry.first_waiting, entry.next_waiting) = (None, None);
            if entry.progress == Progress::Waiting {
                (entry.position, entry.is_clean) = (Edge::first_to(service), true);
                self.to_check.push_back(service);
            }
        }
    }

    /// Claims a service that is stopping, for the thread that reports its result. Returns how long
    /// its turn has taken.
    fn take_stopping(&mut self, service: ServiceIndex, now: Instant) -> Option<Duration> {
        if self.course != Course::Begun {
            return None;
        }
        let entry = self.services.get_mut(service.as_usize())?;
        if entry.progress != Progress::Stopping {
            return None;
        }
        entry.progress = Progress::Reported;
        let took = entry.turn_at.map(|turn_at| now.saturating_duration_since(turn_at));
        if let Some(deadline) = entry.deadline.take() {
            self.deadlines.remove(&(deadline, service));
        }
        Some(took.unwrap_or_default())
    }
}
