//! A model of restarts and stops (`docs/supervision.md`, "Planned ends"), on one thread.
//!
//! On one thread a service is marked exactly at its turn. So an operation is over at once, unless
//! the turn of a member takes time: its provider holds it with a guard, or its body has not
//! returned.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Identifies the wait for an operation.
pub(crate) type Ticket = u64;

/// The services whose planned ends are modelled.
pub(crate) trait Host {
    /// Returns the services with a hard edge to a service, in the order of their registration.
    fn hard_dependents(&self, service: usize) -> Vec<usize>;

    /// Begins the turn of a service to stop. Returns whether it has ended at once.
    fn begin_turn(&mut self, service: usize, end: &End) -> bool;

    /// The turn of a service has ended.
    fn turn_ended(&mut self, service: usize);

    /// A service may begin again. `resets`: it was asked for itself.
    fn released(&mut self, service: usize, resets: bool);
}

/// What an operation is for. Of two for one service, the greater one counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum EndKind {
    Restart,
    Stop,
}

#[derive(Debug, Clone)]
pub(crate) struct End {
    pub(crate) kind: EndKind,
    /// The reason of the failure of each instance that it ends.
    pub(crate) reason: String,
}

impl End {
    /// The restart or the stop of a service of this name.
    pub(crate) fn new(kind: EndKind, root: &str, why: &str) -> Self {
        let reason = match kind {
            EndKind::Restart => format!("{root} is being restarted: {why}"),
            EndKind::Stop => format!("{root} was stopped"),
        };
        Self { kind, reason }
    }
}

/// Returns whether this is the reason of a planned end.
pub(crate) fn is_reason_of_end(reason: &str) -> bool {
    reason.ends_with(" was stopped") || reason.contains(" is being restarted: ")
}

#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// The services that were stopped, and not started.
    stopped: BTreeSet<usize>,
    members: BTreeMap<usize, Member>,
    /// The operations that are in progress, by the ticket of the first wait.
    operations: BTreeMap<Ticket, Operation>,
    /// The members to check next.
    to_check: VecDeque<usize>,
    /// For each ticket whose operation is over: the services that it has stopped.
    reports: BTreeMap<Ticket, BTreeSet<usize>>,
}

#[derive(Debug, Default)]
struct Operation {
    members: Vec<usize>,
    tickets: Vec<Ticket>,
}

#[derive(Debug)]
struct Member {
    operation: Ticket,
    end: End,
    /// It was asked for itself.
    is_root: bool,
    stays_stopped: bool,
    /// The dependents that are found later stay stopped, too.
    subtree: bool,
    /// It was started or restarted since the last stop of it.
    is_started: bool,
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
    /// It is its turn.
    Stopping,
    Ended,
}

impl Plan {
    /// Whether no attempt at the service begins.
    pub(crate) fn is_marked(&self, service: usize) -> bool {
        let progress = self.members.get(&service).map(|member| member.progress);
        self.stopped.contains(&service)
            || matches!(progress, Some(Progress::Stopping | Progress::Ended))
    }

    /// Returns the services that have stopped, if the operation of this ticket is over.
    pub(crate) fn report(&self, ticket: Ticket) -> Option<&BTreeSet<usize>> {
        self.reports.get(&ticket)
    }

    /// Whether no operation is in progress.
    pub(crate) fn is_idle(&self) -> bool {
        self.operations.is_empty()
    }

    /// Returns whether it is the turn of a service to stop.
    pub(crate) fn is_stopping(&self, service: usize) -> bool {
        self.members.get(&service).is_some_and(|member| member.progress == Progress::Stopping)
    }

    /// Returns the services whose turn it is, of the operation of this one.
    pub(crate) fn stopping_with(&self, service: usize) -> Vec<usize> {
        let Some(member) = self.members.get(&service) else { return Vec::new() };
        let members = self.operations[&member.operation].members.iter().copied();
        members.filter(|&other| self.is_stopping(other)).collect()
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
    fn add(&mut self, service: usize, operation: Ticket, end: &End, subtree: bool) -> Ticket {
        if let Some(member) = self.members.get_mut(&service) {
            if end.kind > member.end.kind {
                member.end = end.clone();
            }
            member.subtree |= subtree && !member.is_started;
            member.stays_stopped |= subtree && !member.is_started;
            let other = member.operation;
            return self.merge(operation, other);
        }
        let member = Member {
            operation,
            end: end.clone(),
            is_root: false,
            stays_stopped: subtree || self.stopped.contains(&service),
            subtree,
            is_started: false,
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

    /// Adds a service and its dependents, which stop at the same time if they can.
    fn add_with_dependents(
        &mut self,
        host: &impl Host,
        service: usize,
        operation: Ticket,
        end: &End,
        subtree: bool,
    ) {
        let (mut operation, mut to_add) = (operation, vec![service]);
        while let Some(service) = to_add.pop() {
            let is_new = !self.members.contains_key(&service);
            operation = self.add(service, operation, end, subtree);
            if is_new {
                to_add.extend(host.hard_dependents(service));
            }
        }
    }

    fn merge(&mut self, one: Ticket, other: Ticket) -> Ticket {
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
    fn check_all_again(&mut self, operation: Ticket) {
        for service in self.operations[&operation].members.clone() {
            let member = self.member(service);
            member.waiting.clear();
            if member.progress == Progress::Waiting {
                (member.position, member.is_clean) = (0, true);
                self.queue(service);
            }
        }
    }

    /// Begins a restart or a stop of a service.
    pub(crate) fn begin(
        &mut self,
        host: &mut impl Host,
        root: usize,
        end: &End,
        subtree: bool,
        ticket: Ticket,
    ) {
        self.operations.insert(ticket, Operation::default());
        self.add_with_dependents(host, root, ticket, end, false);
        // The last request for a service decides.
        let member = self.member(root);
        (member.is_root, member.stays_stopped) = (true, end.kind == EndKind::Stop);
        member.is_started = !member.stays_stopped;
        member.subtree = member.stays_stopped && (member.subtree || subtree);
        member.end = end.clone();
        if subtree {
            let (mut found, mut to_visit) = (BTreeSet::from([root]), vec![root]);
            while let Some(service) = to_visit.pop() {
                for dependent in host.hard_dependents(service) {
                    if found.insert(dependent) {
                        let operation = self.members[&root].operation;
                        self.add_with_dependents(host, dependent, operation, end, true);
                        let member = self.member(dependent);
                        (member.subtree, member.stays_stopped) = (true, true);
                        member.is_started = false;
                        to_visit.push(dependent);
                    }
                }
            }
        }
        let operation = self.members[&root].operation;
        let operation = self.operations.get_mut(&operation).expect("it is in progress");
        operation.tickets.push(ticket);
        self.advance(host);
    }

    /// Lets a stopped service begin again. Returns whether it was stopped.
    pub(crate) fn start(&mut self, host: &mut impl Host, service: usize) -> bool {
        let Some(member) = self.members.get_mut(&service) else {
            let was_stopped = self.stopped.remove(&service);
            if was_stopped {
                host.released(service, true);
            }
            return was_stopped;
        };
        let was_stopped = std::mem::take(&mut member.stays_stopped);
        if was_stopped {
            (member.is_root, member.subtree, member.is_started) = (true, false, true);
        }
        was_stopped
    }

    /// Continues all operations as far as possible.
    pub(crate) fn advance(&mut self, host: &mut impl Host) {
        loop {
            if let Some(service) = self.to_check.pop_front() {
                self.check(host, service);
                continue;
            }
            let is_stopping = |service: &usize| self.is_stopping(*service);
            let mut idle =
                self.operations.iter().filter(|(_, it)| !it.members.iter().any(is_stopping));
            let Some((&number, operation)) = idle.next() else { return };
            if operation.members.iter().all(|it| self.members[it].progress == Progress::Ended) {
                self.release(host, number);
            } else {
                self.check_all_again(number);
            }
        }
    }

    /// Continues the pass of a member through its hard dependents.
    fn check(&mut self, host: &mut impl Host, service: usize) {
        let member = self.member(service);
        member.is_queued = false;
        if member.progress != Progress::Waiting {
            return;
        }
        let Member { operation, position, is_clean, subtree, .. } = *member;
        let end = member.end.clone();
        let has_ended = |other: &usize| {
            let member = self.members.get(other);
            member.is_some_and(|member| member.progress == Progress::Ended)
        };
        let dependents = host.hard_dependents(service).into_iter();
        let mut dependents = dependents.filter(|&other| other >= position);
        match dependents.find(|other| !has_ended(other)) {
            Some(witness) => {
                self.add_with_dependents(host, witness, operation, &end, subtree);
                self.member(witness).waiting.push(service);
                let member = self.member(service);
                (member.position, member.is_clean) = (witness, false);
            }
            None if is_clean => {
                self.member(service).progress = Progress::Stopping;
                if host.begin_turn(service, &end) {
                    self.end_turn(host, service);
                }
            }
            None => {
                let member = self.member(service);
                (member.position, member.is_clean) = (0, true);
                self.queue(service);
            }
        }
    }

    /// Ends the turn of a service. The caller continues with `advance`.
    pub(crate) fn end_turn(&mut self, host: &mut impl Host, service: usize) {
        host.turn_ended(service);
        let member = self.member(service);
        member.progress = Progress::Ended;
        for waiting in std::mem::take(&mut member.waiting).into_iter().rev() {
            self.queue(waiting);
        }
    }

    /// Ends an operation: its members begin again, unless they stay stopped.
    fn release(&mut self, host: &mut impl Host, number: Ticket) {
        let Operation { members, tickets } =
            self.operations.remove(&number).expect("it is in progress");
        let report: BTreeSet<usize> = members.iter().copied().collect();
        self.reports.extend(tickets.into_iter().map(|ticket| (ticket, report.clone())));
        for service in members {
            let member = self.members.remove(&service).expect("it is a member");
            match member.stays_stopped {
                true => self.stopped.insert(service),
                false => self.stopped.remove(&service),
            };
            host.released(service, member.is_root && !member.stays_stopped);
        }
    }
}
