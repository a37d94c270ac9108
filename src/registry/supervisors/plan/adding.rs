//! How operations begin, get members, and become one. All functions are called under the lock of
//! the plan.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    super::planned_end::{EndKind, PlannedEnd},
    Request,
    state::{Course, Member, OperationNumber, Progress, State},
};
use crate::{
    numbers::ServiceIndex,
    store::{Edge, EndMark, Store},
};

impl State {
    /// Adds a request to an operation. Returns the operation, which may have become part of another
    /// one.
    pub(super) fn begin(
        &mut self,
        store: &Store,
        request: Request,
        number: OperationNumber,
    ) -> OperationNumber {
        let Request { root, end, subtree } = request;
        let end = Arc::new(end);
        let stays_stopped = end.kind == EndKind::Stop;
        self.add_with_dependents(store, root, number, &end, false);
        if let Some(member) = self.members.get_mut(&root) {
            // The last request for a service decides whether it begins again, and why it ends.
            (member.is_root, member.stays_stopped) = (true, stays_stopped);
            // A restart starts a service that is being stopped.
            member.is_started = !stays_stopped;
            member.subtree = stays_stopped && (member.subtree || subtree);
            member.end = Arc::clone(&end);
        }
        if subtree {
            self.stop_dependents(store, root, &end);
        }
        self.members[&root].operation
    }

    /// Adds a service to an operation, and all its hard dependents, so that they stop at the same
    /// time as far as the graph allows. Those of a service that is a member are members already, or
    /// its pass adds them.
    pub(super) fn add_with_dependents(
        &mut self,
        store: &Store,
        service: ServiceIndex,
        number: OperationNumber,
        end: &Arc<PlannedEnd>,
        subtree: bool,
    ) {
        let (mut number, mut to_add) = (number, vec![service]);
        while let Some(service) = to_add.pop() {
            let is_new = !self.members.contains_key(&service);
            number = self.add(store, service, number, end, subtree);
            if is_new {
                to_add.extend(store.hard_dependents(service));
            }
        }
    }

    /// All hard dependents of a root stay stopped, whatever they were asked for before.
    fn stop_dependents(&mut self, store: &Store, root: ServiceIndex, end: &Arc<PlannedEnd>) {
        let (mut found, mut to_visit) = (BTreeSet::from([root]), vec![root]);
        while let Some(service) = to_visit.pop() {
            for dependent in store.hard_dependents(service) {
                if found.insert(dependent) {
                    let number = self.members[&root].operation;
                    self.add_with_dependents(store, dependent, number, end, true);
                    if let Some(member) = self.members.get_mut(&dependent) {
                        (member.subtree, member.stays_stopped) = (true, true);
                        member.is_started = false;
                    }
                    to_visit.push(dependent);
                }
            }
        }
    }

    /// Adds a service to an operation. Returns the operation that it belongs to, which is another
    /// one if it was a member of it. With `subtree` it stays stopped, unless it was started since.
    pub(super) fn add(
        &mut self,
        store: &Store,
        service: ServiceIndex,
        number: OperationNumber,
        end: &Arc<PlannedEnd>,
        subtree: bool,
    ) -> OperationNumber {
        if let Some(member) = self.members.get_mut(&service) {
            if end.kind > member.end.kind {
                member.end = Arc::clone(end);
            }
            if subtree && !member.is_started {
                (member.subtree, member.stays_stopped) = (true, true);
            }
            let other = member.operation;
            return self.merge(number, other);
        }
        let is_stopped = store.service(service).end_mark.get() == EndMark::Stopped;
        self.members.insert(
            service,
            Member {
                operation: number,
                end: Arc::clone(end),
                is_root: false,
                stays_stopped: subtree || is_stopped,
                subtree,
                is_started: false,
                progress: Progress::Waiting,
                is_queued: true,
                is_marked: false,
                is_clean: true,
                position: Edge::first_to(service),
                first_waiting: None,
                next_waiting: None,
                turn_at: None,
                requested: None,
                deadline: None,
            },
        );
        self.to_check.push_back(service);
        let operation = self.operation(number);
        operation.members.push(service);
        operation.left += 1;
        number
    }

    /// Makes one operation of two. Each member moves a logarithmic number of times.
    pub(super) fn merge(
        &mut self,
        one: OperationNumber,
        other: OperationNumber,
    ) -> OperationNumber {
        if one == other || !self.operations.contains_key(&other) {
            return one;
        }
        let members = |number| self.operations[&number].members.len();
        let (from, to) = if members(one) < members(other) { (one, other) } else { (other, one) };
        let Some(mut from) = self.operations.remove(&from) else { return to };
        for service in &from.members {
            if let Some(member) = self.members.get_mut(service) {
                member.operation = to;
            }
        }
        let operation = self.operation(to);
        operation.members.append(&mut from.members);
        operation.tickets.append(&mut from.tickets);
        operation.report.append(from.report);
        operation.busy += from.busy;
        operation.left += from.left;
        if operation.busy == 0 {
            self.to_look_at.push(to);
        }
        to
    }

    /// All operations become a part of the shutdown. What is waiting is checked again, because
    /// edges of all kinds count now.
    pub(super) fn begin_shutdown(&mut self, store: &Store, end: Arc<PlannedEnd>) {
        let mut number = self.new_operation();
        let others: Vec<OperationNumber> = self.operations.keys().copied().collect();
        for other in others {
            number = self.merge(number, other);
        }
        self.shutdown = Course::Begun(number);
        let mut members = self.operation(number).members.clone();
        members.sort_unstable();
        for service in members {
            let Some(member) = self.members.get_mut(&service) else { continue };
            member.end = Arc::clone(&end);
            (member.first_waiting, member.next_waiting) = (None, None);
            if member.progress == Progress::Waiting {
                (member.is_marked, member.is_clean) = (false, true);
                member.position = Edge::first_to(service);
                self.queue(service);
            } else {
                store.service(service).end_mark.set(EndMark::ShutDown);
                self.to_wake.push(service);
            }
        }
        self.shutdown_end = Some(end);
    }

    /// Adds the next services to the shutdown, at least one. Counts each of them down in `budget`.
    pub(super) fn add_some(&mut self, store: &Store, number: OperationNumber, budget: &mut usize) {
        let Some(end) = self.shutdown_end.clone() else { return };
        for service in ServiceIndex::range(self.added..store.len()).take((*budget).max(1)) {
            if !self.members.contains_key(&service) {
                self.add(store, service, number, &end, false);
            }
            self.added += 1;
            *budget = budget.saturating_sub(1);
        }
    }
}
