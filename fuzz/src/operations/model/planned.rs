//! The planned ends of providers by hand, whose turns may be held by guards.

use std::collections::BTreeSet;

use mainstay::Phase;

use super::{Model, Number};
use crate::plan::{End, EndKind, Host};

/// The event after the turn of a service to stop.
pub(crate) const STOP_ENDED: &str = "its stop has ended";

impl Host for Model {
    fn hard_dependents(&self, service: usize) -> Vec<usize> {
        self.hard_dependents(service)
    }

    fn begin_turn(&mut self, service: usize, end: &End) -> bool {
        let mut dependents = self.hard_dependents(service).into_iter();
        let is_down = dependents.all(|other| self.services[other].phase == Phase::Down);
        assert!(is_down, "S4: the turn of {} comes after its dependents", self.name(service));
        self.turns += 1;
        self.fail(service, &end.reason);
        !self.guards.contains_key(&service)
    }

    fn turn_ended(&mut self, service: usize) {
        self.record_event(service, STOP_ENDED);
    }

    fn released(&mut self, _: usize, _: bool) {}
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
        let end = End::new(kind, &self.name(root), why);
        let is_alone = self.plan.is_idle() && self.guards.is_empty();
        let closure: BTreeSet<usize> = self.with_hard_edges(|graph| graph.closure(root));
        let mut plan = std::mem::take(&mut self.plan);
        plan.begin(self, root, &end, subtree, ticket);
        self.plan = plan;
        if is_alone {
            assert_eq!(self.plan.report(ticket), Some(&closure), "the root and its dependents");
        }
    }

    /// Lets a stopped service begin again. Returns whether it was stopped.
    pub(crate) fn start(&mut self, service: usize) -> bool {
        if self.closed {
            return false;
        }
        let mut plan = std::mem::take(&mut self.plan);
        let was_stopped = plan.start(self, service);
        self.plan = plan;
        was_stopped
    }

    pub(crate) fn hold(&mut self, service: usize) {
        *self.guards.entry(service).or_default() += 1;
    }

    pub(crate) fn no_longer_hold(&mut self, service: usize) {
        let guards = self.guards.get_mut(&service).expect("a guard was taken");
        *guards -= 1;
        if *guards > 0 {
            return;
        }
        self.guards.remove(&service);
        if self.plan.is_stopping(service) {
            let mut plan = std::mem::take(&mut self.plan);
            plan.end_turn(self, service);
            // After the close nothing continues.
            if !self.closed {
                plan.advance(self);
            }
            self.plan = plan;
        }
    }
}
