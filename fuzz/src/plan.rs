//! Restarts and stops (`docs/supervision.md`, "Planned ends"), on one thread.
//!
//! On one thread a service is marked exactly at its turn. So an operation is over when its wait is
//! polled first, unless the provider of a member holds its turn with a guard.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use mainstay::Phase;

use super::{Model, Number};

/// The event after the turn of a service to stop.
pub(crate) const STOP_ENDED: &str = "its stop has ended";

/// What an operation is for. Of two for one service, the greater one counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum EndKind {
    Restart,
    Stop,
}

#[derive(Debug, Clone)]
struct End {
    kind: EndKind,
    reason: String,
}

#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// The services that were stopped, and not started.
    stopped: BTreeSet<usize>,
    members: BTreeMap<usize, Member>,
    /// The operations that are in progress, by the ticket of the first wait.
    operations: BTreeMap<Number, Operation>,
    /// The members to check next.
    to_check: VecDeque<usize>,
    /// The number of guards that hold the turn of a service.
    guards: BTreeMap<usize, usize>,
    /// For each ticket whose operation is over: the services that it has stopped.
    reports: BTreeMap<Number, BTreeSet<String>>,
}

#[derive(Debug, Default)]
struct Operation {
    members: Vec<usize>,
    tickets: Vec<Number>,
}

#[derive(Debug)]
struct Member {
    operation: Number,
    end: End,
    stays_stopped: bool,
    /// The dependents that are found later stay stopped, too.
    subtree: bool,
    progress: Progress,
    is_queued: bool,
    /// The pass in progress has not waited, and where it continues.
    is_clean: bool,
    position: usize,
    /// The services whose witness is this one.
    waiting: Vec<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Waiting,
    /// It is down, and a guard holds its turn.
    Held,
    Ended,
}

impl Plan {
    /// Whether no attempt at the service begins.
    pub(crate) fn is_marked(&self, service: usize) -> bool {
        let progress = self.members.get(&service).map(|member| member.progress);
        self.stopped.contains(&service)
            || matches!(progress, Some(Progress::Held | Progress::Ended))
    }

    pub(crate) fn report(&self, ticket: Number) -> Option<BTreeSet<String>> {
        self.reports.get(&ticket).cloned()
    }

    /// Returns the services that hold their turns, of the operation of this one.
    pub(crate) fn held_with(&self, service: usize) -> Vec<usize> {
        let Some(member) = self.members.get(&service) else { return Vec::new() };
        let members = self.operations[&member.operation].members.iter().copied();
        members.filter(|other| self.members[other].progress == Progress::Held).collect()
    }

    pub(crate) fn hold(&mut self, service: usize) {
        *self.guards.entry(service).or_default() += 1;
    }

    fn member(&mut self, service: usize) -> &mut Member {
        self.members.get_mut(&service).expect("it is a member")
    }

    fn queue(&mut self, service: usize) {
        if !std::mem::replace(&mut self.member(service).is_queued, true) {
            self.to_check.push_back(service);
        }
    }

    /// Adds a service to an operation. Returns the operation that it belongs to.
    fn add(&mut self, service: usize, operation: Number, end: &End, subtree: bool) -> Number {
        if let Some(member) = self.members.get_mut(&service) {
            if end.kind > member.end.kind {
                member.end = end.clone();
            }
            member.subtree |= subtree;
            member.stays_stopped |= subtree;
            let other = member.operation;
            return self.merge(operation, other);
        }
        let member = Member {
            operation,
            end: end.clone(),
            stays_stopped: subtree || self.stopped.contains(&service),
            subtree,
            progress: Progress::Waiting,
            is_queued: false,
            is_clean: true,
            position: 0,
            waiting: Vec::new(),
        };
        self.members.insert(service, member);
        self.operations.entry(operation).or_default().members.push(service);
        self.queue(service);
        operation
    }

    fn merge(&mut self, one: Number, other: Number) -> Number {
        if one == other {
            return one;
        }
        let members = |number| self.operations[&number].members.len();
        let (from, to) = if members(one) < members(other) { (one, other) } else { (other, one) };
        let from = self.operations.remove(&from).expect("it is in progress");
        for &service in &from.members {
            self.member(service).operation = to;
        }
        let operation = self.operations.get_mut(&to).expect("it is in progress");
        operation.members.extend(from.members);
        operation.tickets.extend(from.tickets);
        to
    }

    /// Begins a new pass of each member that waits.
    fn check_all_again(&mut self, operation: Number) {
        for service in self.operations[&operation].members.clone() {
            let member = self.member(service);
            member.waiting.clear();
            if member.progress == Progress::Waiting {
                (member.position, member.is_clean) = (0, true);
                self.queue(service);
            }
        }
    }
}

impl Model {
    /// Begins a restart or a stop, and executes what can be executed.
    pub(crate) fn end_as_planned(
        &mut self,
        root: usize,
        kind: EndKind,
        why: &str,
        subtree: bool,
        ticket: Number,
    ) {
        if self.closed {
            return;
        }
        let name = self.name(root);
        let reason = match kind {
            EndKind::Restart => format!("{name} is being restarted: {why}"),
            EndKind::Stop => format!("{name} was stopped"),
        };
        let end = End { kind, reason };
        let is_alone = self.plan.members.is_empty() && self.plan.guards.is_empty();
        let closure: BTreeSet<usize> = self.with_hard_edges(|graph| graph.closure(root));
        self.plan.operations.insert(ticket, Operation::default());
        self.plan.add(root, ticket, &end, subtree);
        self.plan.member(root).stays_stopped = kind == EndKind::Stop;
        if subtree {
            self.add_hard_dependents(root, &end);
        }
        let operation = self.plan.members[&root].operation;
        let operation = self.plan.operations.get_mut(&operation).expect("it is in progress");
        operation.tickets.push(ticket);
        self.advance();
        if is_alone {
            let closure: BTreeSet<String> = closure.into_iter().map(|s| self.name(s)).collect();
            assert_eq!(self.plan.report(ticket), Some(closure), "the root and its hard dependents");
        }
    }

    fn add_hard_dependents(&mut self, root: usize, end: &End) {
        let (mut found, mut to_visit) = (BTreeSet::from([root]), vec![root]);
        while let Some(service) = to_visit.pop() {
            for dependent in self.hard_dependents(service).collect::<Vec<_>>() {
                if found.insert(dependent) {
                    let operation = self.plan.members[&root].operation;
                    self.plan.add(dependent, operation, end, true);
                    to_visit.push(dependent);
                }
            }
        }
    }

    /// Lets a stopped service begin again. Returns whether it was stopped.
    pub(crate) fn start(&mut self, service: usize) -> bool {
        match self.plan.members.get_mut(&service) {
            _ if self.closed => false,
            Some(member) => {
                let was_stopped = std::mem::take(&mut member.stays_stopped);
                member.subtree &= !was_stopped;
                was_stopped
            }
            None => self.plan.stopped.remove(&service),
        }
    }

    pub(crate) fn no_longer_hold(&mut self, service: usize) {
        let guards = self.plan.guards.get_mut(&service).expect("a guard was taken");
        *guards -= 1;
        if *guards == 0 {
            self.plan.guards.remove(&service);
            let progress = self.plan.members.get(&service).map(|member| member.progress);
            if progress == Some(Progress::Held) {
                self.end_turn(service);
                self.advance();
            }
        }
    }

    /// Continues all operations as far as possible.
    fn advance(&mut self) {
        while !self.closed {
            if let Some(service) = self.plan.to_check.pop_front() {
                self.check(service);
                continue;
            }
            let Plan { members, operations, .. } = &self.plan;
            let is_held = |service: &usize| members[service].progress == Progress::Held;
            let mut idle = operations.iter().filter(|(_, it)| !it.members.iter().any(is_held));
            let Some((&number, operation)) = idle.next() else { return };
            if operation.members.iter().all(|it| members[it].progress == Progress::Ended) {
                self.release(number);
            } else {
                self.plan.check_all_again(number);
            }
        }
    }

    /// Continues the pass of a member through its hard dependents.
    fn check(&mut self, service: usize) {
        let member = self.plan.member(service);
        member.is_queued = false;
        if member.progress != Progress::Waiting {
            return;
        }
        let Member { operation, position, is_clean, subtree, .. } = *member;
        let end = member.end.clone();
        let has_ended = |other: &usize| {
            let member = self.plan.members.get(other);
            member.is_some_and(|member| member.progress == Progress::Ended)
        };
        let mut dependents = self.hard_dependents(service).filter(|&other| other >= position);
        match dependents.find(|other| !has_ended(other)) {
            Some(witness) => {
                drop(dependents);
                self.plan.add(witness, operation, &end, subtree);
                self.plan.member(witness).waiting.push(service);
                let member = self.plan.member(service);
                (member.position, member.is_clean) = (witness, false);
            }
            None if is_clean => {
                drop(dependents);
                self.turn(service, &end);
            }
            None => {
                drop(dependents);
                let member = self.plan.member(service);
                (member.position, member.is_clean) = (0, true);
                self.plan.queue(service);
            }
        }
    }

    fn turn(&mut self, service: usize, end: &End) {
        let mut dependents = self.hard_dependents(service);
        let is_down = dependents.all(|other| self.services[other].phase == Phase::Down);
        drop(dependents);
        assert!(is_down, "S4: the turn of {} comes after its dependents", self.name(service));
        self.fail(service, &end.reason);
        if self.plan.guards.contains_key(&service) {
            self.plan.member(service).progress = Progress::Held;
        } else {
            self.end_turn(service);
        }
    }

    fn end_turn(&mut self, service: usize) {
        self.record_event(service, STOP_ENDED);
        let member = self.plan.member(service);
        member.progress = Progress::Ended;
        for waiting in std::mem::take(&mut member.waiting).into_iter().rev() {
            self.plan.queue(waiting);
        }
    }

    /// Ends an operation: its members begin again, unless they stay stopped.
    fn release(&mut self, number: Number) {
        let Operation { members, tickets } =
            self.plan.operations.remove(&number).expect("it is in progress");
        for service in &members {
            let member = self.plan.members.remove(service).expect("it is a member");
            if member.stays_stopped {
                self.plan.stopped.insert(*service);
            } else {
                self.plan.stopped.remove(service);
            }
        }
        let report: BTreeSet<String> = members.iter().map(|&it| self.name(it)).collect();
        self.plan.reports.extend(tickets.into_iter().map(|ticket| (ticket, report.clone())));
    }
}
