//! The members of the operations, and the passes through their dependents. All functions are called
//! under the lock of the plan.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    mem,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    super::{
        planned_end::{EndKind, PlannedEnd},
        report::StopReport,
    },
    Released, Step, Ticket, Turn,
};
use crate::{
    numbers::ServiceIndex,
    store::{Edge, EndMark, FoundDependent, Phase, Store},
    sync::lock,
};

#[derive(Default)]
pub(super) struct State {
    pub(super) shutdown: Course,
    /// The end that a shutdown is for its members.
    pub(super) shutdown_end: Option<Arc<PlannedEnd>>,
    pub(super) members: HashMap<ServiceIndex, Member>,
    pub(super) operations: HashMap<OperationNumber, Operation>,
    /// The number of the last operation.
    pub(super) last: OperationNumber,
    /// The services to check next.
    pub(super) to_check: VecDeque<ServiceIndex>,
    /// The services whose slots must be woken.
    pub(super) to_wake: Vec<ServiceIndex>,
    /// Operations of which no service is stopping any more, or all have ended.
    pub(super) to_look_at: Vec<OperationNumber>,
    /// The number of services that a shutdown has added.
    pub(super) added: u32,
    /// The limits of the services that are stopping.
    pub(super) deadlines: BTreeSet<(Instant, ServiceIndex)>,
    /// The longest sleep of the futures that enforce the limits.
    pub(super) sleep: Sleep,
    /// The number of guards that hold the turn of a service.
    pub(super) held: HashMap<ServiceIndex, u32>,
    /// The report of a shutdown that has ended.
    pub(super) report: StopReport,
}

pub(super) type OperationNumber = u32;

#[derive(Default)]
pub(super) struct Operation {
    pub(super) members: Vec<ServiceIndex>,
    /// The number of members that are being marked or stopped.
    pub(super) busy: usize,
    /// The number of members that have not ended.
    pub(super) left: usize,
    pub(super) tickets: Vec<Ticket>,
    pub(super) report: StopReport,
}

/// How long a future sleeps that enforces the limits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) enum Sleep {
    #[default]
    None,
    Until(Instant),
    Forever,
}

#[derive(Clone, PartialEq, Eq, Default)]
pub(super) enum Course {
    #[default]
    NotBegun,
    /// With the operation of the shutdown.
    Begun(OperationNumber),
    Ended,
}

/// The progress of one service.
pub(super) struct Member {
    pub(super) operation: OperationNumber,
    pub(super) end: Arc<PlannedEnd>,
    /// It was asked for itself.
    pub(super) is_root: bool,
    /// It stays stopped when it is released.
    pub(super) stays_stopped: bool,
    /// Its dependents stay stopped, too.
    pub(super) subtree: bool,
    /// It was started or restarted since the last stop of it. The passes of its dependencies do not
    /// stop it again.
    pub(super) is_started: bool,
    pub(super) progress: Progress,
    /// It is in `to_check`.
    pub(super) is_queued: bool,
    /// It is marked: the pass in progress is the last one.
    pub(super) is_marked: bool,
    /// The pass in progress has not waited for a dependent.
    pub(super) is_clean: bool,
    /// Where the pass continues.
    pub(super) position: Edge,
    /// The first service whose witness is this one.
    pub(super) first_waiting: Option<ServiceIndex>,
    /// The next service with the same witness.
    pub(super) next_waiting: Option<ServiceIndex>,
    /// When its turn to stop began.
    pub(super) turn_at: Option<Instant>,
    /// What its supervisor was asked for when its turn to stop began. `end` may change after that.
    pub(super) requested: Option<Arc<PlannedEnd>>,
    pub(super) deadline: Option<Instant>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// It is not its turn to stop.
    Waiting,
    /// A thread wakes the slot after the mark.
    Marking,
    /// It is its turn to stop.
    Stopping,
    /// It is its turn, it is down, and its provider holds the turn.
    Held,
    /// Its result is in the report. A thread is taking it down, in case that it is not.
    Reported,
    /// It has ended, and its dependencies do not wait for it.
    Ended,
}

impl Member {
    /// Returns whether it is the turn of the service to stop, for this end or for any.
    pub(super) fn has_turn(&self, end: Option<&Arc<PlannedEnd>>) -> bool {
        let is_of = |end| self.requested.as_ref().is_some_and(|it| Arc::ptr_eq(it, end));
        self.progress == Progress::Stopping && end.is_none_or(is_of)
    }
}

impl State {
    pub(super) fn operation(&mut self, number: OperationNumber) -> &mut Operation {
        self.operations.entry(number).or_default()
    }

    pub(super) fn new_operation(&mut self) -> OperationNumber {
        self.last += 1;
        self.operations.insert(self.last, Operation::default());
        self.last
    }

    pub(super) fn queue(&mut self, service: ServiceIndex) {
        if let Some(member) = self.members.get_mut(&service) {
            if !mem::replace(&mut member.is_queued, true) {
                self.to_check.push_back(service);
            }
        }
    }

    pub(super) fn no_longer_busy(&mut self, number: OperationNumber) {
        let operation = self.operation(number);
        operation.busy -= 1;
        if operation.busy == 0 {
            self.to_look_at.push(number);
        }
    }

    /// Continues the pass of a service through the list of its dependents.
    pub(super) fn check(
        &mut self,
        store: &Store,
        service: ServiceIndex,
        budget: &mut usize,
        request: &impl Fn(ServiceIndex, &Arc<PlannedEnd>) -> Option<Duration>,
    ) -> Option<Step> {
        let member = self.members.get_mut(&service)?;
        member.is_queued = false;
        if member.progress != Progress::Waiting {
            return None;
        }
        let (position, number) = (member.position, member.operation);
        let (end, subtree) = (Arc::clone(&member.end), member.subtree);
        let is_awaited = |dependent: ServiceIndex| {
            // A dependent that is no member has begun to depend on the service just now.
            let dependent = self.members.get(&dependent);
            dependent.is_none_or(|dependent| dependent.progress != Progress::Ended)
        };
        let hard_only = end.kind != EndKind::ShutDown;
        match store.find_dependent(position, hard_only, budget, is_awaited) {
            FoundDependent::NotYet(edge) => {
                self.members.get_mut(&service)?.position = edge;
                self.queue(service);
            }
            FoundDependent::At(edge) => {
                if hard_only {
                    self.add_with_dependents(store, edge.dependent, number, &end, subtree);
                } else {
                    self.add(store, edge.dependent, number, &end, subtree);
                }
                let next_waiting =
                    self.members.get_mut(&edge.dependent)?.first_waiting.replace(service);
                let member = self.members.get_mut(&service)?;
                (member.position, member.is_clean, member.next_waiting) =
                    (edge, false, next_waiting);
            }
            FoundDependent::None => {
                let member = self.members.get_mut(&service)?;
                if member.is_marked || member.is_clean {
                    if !member.is_marked {
                        member.progress = Progress::Marking;
                        self.mark(store, service);
                        self.operation(number).busy += 1;
                        return Some(Step::Mark(service));
                    }
                    // In one section of the lock, so that no result of an earlier turn is taken for
                    // that of this one, and no supervisor ends between the two.
                    member.progress = Progress::Stopping;
                    member.requested = Some(Arc::clone(&end));
                    let limit = request(service, &end);
                    // Twice: the operation is not over before the turn has ended, and before the
                    // thread that begins it has called `turn_has_begun`.
                    self.operation(number).busy += 2;
                    return Some(Step::Stop(Turn { service, end, limit }));
                }
                (member.position, member.is_clean) = (Edge::first_to(service), true);
                self.queue(service);
            }
        }
        None
    }

    pub(super) fn mark(&self, store: &Store, service: ServiceIndex) {
        let mark = &store.service(service).end_mark;
        match self.members.get(&service).map(|member| member.end.kind) {
            Some(EndKind::ShutDown) => mark.set(EndMark::ShutDown),
            // A stopped service stays marked as stopped.
            _ if mark.is_set() => {}
            _ => mark.set(EndMark::Ending),
        }
    }

    /// An operation of which no service is stopping is over, or its services are checked again.
    pub(super) fn look_at(&mut self, store: &Store, number: OperationNumber) -> Option<Step> {
        let operation = self.operations.get(&number)?;
        if operation.busy > 0 {
            return None;
        }
        if operation.left > 0 {
            self.check_all_again(number);
            return None;
        }
        if self.shutdown == Course::Begun(number) {
            return None;
        }
        Some(Step::Release(self.release(store, number)))
    }

    /// Begins a new pass of each service of an operation that waits.
    pub(super) fn check_all_again(&mut self, number: OperationNumber) {
        let members = mem::take(&mut self.operation(number).members);
        for &service in &members {
            let Some(member) = self.members.get_mut(&service) else { continue };
            (member.first_waiting, member.next_waiting) = (None, None);
            if member.progress == Progress::Waiting {
                (member.position, member.is_clean) = (Edge::first_to(service), true);
                self.queue(service);
            }
        }
        self.operation(number).members = members;
    }

    /// Removes an operation that is over, and the marks of its members.
    pub(super) fn release(&mut self, store: &Store, number: OperationNumber) -> Vec<Released> {
        let Some(operation) = self.operations.remove(&number) else { return Vec::new() };
        let mut released = Vec::with_capacity(operation.members.len());
        for service in operation.members {
            let Some(member) = self.members.remove(&service) else { continue };
            let mark = if member.stays_stopped { EndMark::Stopped } else { EndMark::None };
            store.service(service).end_mark.set(mark);
            released.push(Released { service, resets: member.is_root && !member.stays_stopped });
        }
        let report = Arc::new(operation.report);
        for ticket in operation.tickets {
            *lock(&ticket) = Some(Arc::clone(&report));
        }
        released
    }

    /// Returns the services that a shutdown would leave if it ended now: those whose turn has not
    /// ended, and those that are up and whose turn has not come.
    pub(super) fn left(&self, store: &Store) -> Vec<ServiceIndex> {
        let is_stopping = |service: &ServiceIndex| {
            let member = self.members.get(service);
            member.is_some_and(|it| matches!(it.progress, Progress::Stopping | Progress::Held))
        };
        let is_left_up = |service: &ServiceIndex| {
            let member = self.members.get(service);
            let waits = member
                .is_none_or(|it| matches!(it.progress, Progress::Waiting | Progress::Marking));
            waits && store.slot(*service).state.load().phase() != Phase::Down
        };
        let services = || ServiceIndex::range(0..store.len());
        services().filter(is_stopping).chain(services().filter(is_left_up)).collect()
    }

    /// Claims a service that is stopping, for the thread that reports its result of this end, or of
    /// any. Returns the report, and how long its turn has taken.
    pub(super) fn take_stopping(
        &mut self,
        service: ServiceIndex,
        end: Option<&Arc<PlannedEnd>>,
        now: Instant,
    ) -> Option<(&mut StopReport, Duration)> {
        let member = self.members.get_mut(&service)?;
        if !member.has_turn(end) {
            return None;
        }
        member.progress = Progress::Reported;
        let took = member.turn_at.map(|turn_at| now.saturating_duration_since(turn_at));
        let number = member.operation;
        if let Some(deadline) = member.deadline.take() {
            self.deadlines.remove(&(deadline, service));
        }
        Some((&mut self.operation(number).report, took.unwrap_or_default()))
    }
}
