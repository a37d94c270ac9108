//! Failures, and their causes.

use std::collections::BTreeSet;

use mainstay::Phase;

use super::{Cause, Model, Service};
use crate::{
    operations::outcome::{FailureSummary, InstanceId, Outcome},
    plan::is_reason_of_end,
};

/// The reason of what ends because the registry was closed.
pub(super) const CLOSED: &str = "the registry was closed";

/// Returns whether an end for this reason is no failure.
pub(super) fn is_planned(reason: &str) -> bool {
    reason == CLOSED || is_reason_of_end(reason)
}

impl Model {
    /// Takes down every ready or starting service of the closure, and leaves alone what is down.
    pub(crate) fn fail(&mut self, root: usize, reason: &str) -> Outcome {
        let (mut failed, mut invalidated) = (0, 0);
        let Service { generation, phase: of_root, .. } = self.services[root];
        let closure: BTreeSet<usize> = self.with_failing_edges(|graph| graph.closure(root));
        for member in closure {
            match self.services[member].phase {
                Phase::Ready => {
                    failed += 1;
                    self.services[member].failed += 1;
                    self.record_event(
                        member,
                        if is_planned(reason) { "stopped" } else { "failed" },
                    );
                }
                Phase::Starting => {
                    invalidated += 1;
                    let what = if is_planned(reason) { "stopped" } else { "invalidated" };
                    self.record_event(member, what);
                }
                Phase::Down => continue,
            }
            let member = &mut self.services[member];
            member.phase = Phase::Down;
            member.attempt = None;
            member.generation += 1;
            member.failed_by = root;
        }
        if failed + invalidated > 0 {
            let cause = Some(Cause { generation, reason: reason.to_string() });
            let Service { cause: own, cause_while_down, .. } = &mut self.services[root];
            match of_root {
                Phase::Down => *cause_while_down = cause,
                _ => (*own, *cause_while_down) = (cause, None),
            }
        }
        Outcome::Cascade { failed, invalidated }
    }

    pub(crate) fn fail_instance(
        &mut self,
        service: usize,
        instance: InstanceId,
        reason: &str,
    ) -> Outcome {
        let Service { generation, published, .. } = &self.services[service];
        if *generation != instance.generation {
            Outcome::AlreadyFailed
        } else if *published != Some(instance) {
            Outcome::Replaced
        } else {
            self.fail(service, reason)
        }
    }

    fn failure_from(
        &self,
        service: usize,
        generation: u64,
        root: usize,
        cause: &Cause,
    ) -> FailureSummary {
        FailureSummary {
            service: self.name(service),
            generation,
            root: self.name(root),
            root_generation: cause.generation,
            reason: cause.reason.clone(),
        }
    }

    /// Returns the failure that ended a generation.
    pub(crate) fn failure(&self, service: usize, generation: u64) -> FailureSummary {
        let root = self.services[service].failed_by;
        let Service { cause, cause_while_down, .. } = &self.services[root];
        let newest = cause_while_down.as_ref().filter(|_| root != service).or(cause.as_ref());
        match newest {
            Some(cause) => self.failure_from(service, generation, root, cause),
            None => panic!("{} has not failed", self.name(service)),
        }
    }

    pub(crate) fn last_failure(&self, service: usize) -> Option<FailureSummary> {
        let Service { generation, failed_attempt, .. } = &self.services[service];
        match failed_attempt {
            Some(cause) if cause.generation == *generation => {
                Some(self.failure_from(service, *generation, service, cause))
            }
            _ => (*generation > 0).then(|| self.failure(service, *generation - 1)),
        }
    }
}
