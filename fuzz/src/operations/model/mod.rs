//! The model: a plain map of services, with an implementation of each operation that follows its
//! documentation.

mod edges;
mod failing;
mod planned;
mod waiting;

use std::collections::BTreeMap;

use mainstay::Phase;

use self::failing::{CLOSED, is_planned};
pub(crate) use self::{
    planned::STOP_ENDED,
    waiting::{Awaited, wait_text},
};
use super::outcome::{InstanceId, Outcome, Refusal};
use crate::plan::Plan;

/// The number of a handle: a provider, an attempt and the running handle of its instance, or a
/// watch. No number is used twice.
pub(crate) type Number = u64;

/// Identifies an edge of a dependent. A pair of services may have two edges, a soft one and one of
/// another kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct EdgeKey {
    pub(crate) dependency: usize,
    pub(crate) soft: bool,
}

impl EdgeKey {
    /// The key of a hard or start-only edge.
    pub(crate) fn hard(dependency: usize) -> Self {
        Self { dependency, soft: false }
    }
}

/// The source of an edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EdgeSource {
    /// As hard, or as soft.
    Declared,
    /// As start-only. `hard` is the last attempt that has waited as for a hard dependency: the edge
    /// is hard until a publication that does not need this.
    DeclaredToStart { hard: Option<Number> },
    /// The last attempt that used the edge. If it is neither in progress nor published, the edge is
    /// dead: it remains until the next publication, or until it would prevent another edge.
    /// `start_only` is unset if one of its waits, also one in vain, was not start-only.
    Discovered { attempt: Number, start_only: bool },
}

impl EdgeSource {
    pub(crate) fn is_declared(self) -> bool {
        !matches!(self, Self::Discovered { .. })
    }
}

/// The reason for the end of a generation, or of an attempt in it.
#[derive(Debug, Clone)]
pub(crate) struct Cause {
    pub(crate) generation: u64,
    pub(crate) reason: String,
}

#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) name: String,
    /// Whether its values are of type `Value`. Otherwise the service is never provided.
    pub(crate) of_values: bool,
    pub(crate) phase: Phase,
    pub(crate) generation: u64,
    /// The attempt that is in progress, or that published the current instance. None if the service
    /// is down.
    pub(crate) attempt: Option<Number>,
    /// The last published instance, until its running handle is dropped.
    pub(crate) published: Option<InstanceId>,
    pub(crate) has_provider: bool,
    pub(crate) waiters: u32,
    pub(crate) edges: BTreeMap<EdgeKey, EdgeSource>,
    /// The last instance that each wait of the attempt has returned: the dependency, and whether
    /// the wait was start-only; the generation and the revision.
    received: BTreeMap<(usize, bool), (u64, u64)>,
    /// The same for the last published instance.
    pub(crate) built_from: BTreeMap<(usize, bool), (u64, u64)>,
    /// How often an instance was published, has failed, and was replaced.
    pub(crate) built: u64,
    pub(crate) failed: u64,
    pub(crate) replaced: u64,
    /// The cause of the last cascade that began here and ended a generation of this service.
    cause: Option<Cause>,
    /// The cause of the last cascade that began here while the service was down, if it is newer.
    cause_while_down: Option<Cause>,
    failed_attempt: Option<Cause>,
    failed_by: usize,
}

/// An event, as the observer receives it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RecordedEvent {
    pub(crate) service: String,
    pub(crate) generation: u64,
    pub(crate) what: String,
}

#[derive(Debug, Default)]
pub(crate) struct Model {
    pub(crate) services: Vec<Service>,
    pub(crate) closed: bool,
    /// The restarts and the stops.
    pub(crate) plan: Plan,
    /// The number of guards that hold the turn of a service.
    pub(crate) guards: BTreeMap<usize, usize>,
    /// The number of turns that have begun since the last comparison.
    pub(crate) turns: usize,
    /// The events since the last comparison.
    pub(crate) events: Vec<RecordedEvent>,
}

impl Model {
    pub(crate) fn named(&self, name: &str) -> Option<usize> {
        self.services.iter().position(|service| service.name == name)
    }

    pub(crate) fn name(&self, service: usize) -> String {
        self.services[service].name.clone()
    }

    pub(crate) fn register(&mut self, name: &str, of_values: bool) -> usize {
        let service = self.services.len();
        self.services.push(Service {
            name: name.to_string(),
            of_values,
            phase: Phase::Down,
            generation: 0,
            attempt: None,
            published: None,
            has_provider: false,
            waiters: 0,
            edges: BTreeMap::new(),
            received: BTreeMap::new(),
            built_from: BTreeMap::new(),
            built: 0,
            failed: 0,
            replaced: 0,
            cause: None,
            cause_while_down: None,
            failed_attempt: None,
            failed_by: service,
        });
        service
    }

    pub(crate) fn record_event(&mut self, service: usize, what: impl Into<String>) {
        let Service { name, generation, .. } = &self.services[service];
        let (service, generation) = (name.clone(), *generation);
        self.events.push(RecordedEvent { service, generation, what: what.into() });
    }

    // Attempts and instances.

    pub(crate) fn start_attempt(&mut self, service: usize, attempt: Number) {
        self.record_event(service, "attempt started");
        let service = &mut self.services[service];
        service.phase = Phase::Starting;
        service.attempt = Some(attempt);
        service.received.clear();
    }

    /// Records that a wait of an attempt has returned an instance.
    pub(crate) fn receive(&mut self, awaited: Awaited) {
        if let Awaited::Dependency { service, dependency: Some(d), start_only, .. } = awaited
            && let Ok(InstanceId { generation, revision, .. }) = self.read(Some(d))
        {
            self.services[service].received.insert((d, start_only), (generation, revision));
        }
    }

    /// Whether an attempt is in progress, or has published the current instance.
    pub(crate) fn is_current(&self, service: usize, attempt: Number) -> bool {
        self.services[service].attempt == Some(attempt)
    }

    pub(crate) fn publish(
        &mut self,
        service: usize,
        generation: u64,
        attempt: Number,
        serial: u64,
    ) -> Outcome {
        if self.closed {
            self.drop_attempt(service, generation, attempt);
            return Outcome::Refused(Refusal::Closed(self.name(service)));
        }
        if !self.is_current(service, attempt) {
            return Outcome::Refused(Refusal::Invalidated(self.failure(service, generation)));
        }
        let subject = &mut self.services[service];
        subject.phase = Phase::Ready;
        subject.published = Some(InstanceId { generation, revision: 0, serial });
        subject.built += 1;
        subject.built_from = subject.received.clone();
        let Service { edges, received, .. } = subject;
        edges.retain(|edge, source| match source {
            EdgeSource::Declared => true,
            EdgeSource::DeclaredToStart { hard } => {
                let took = received.contains_key(&(edge.dependency, false));
                *hard = hard.filter(|&last| last == attempt && took);
                true
            }
            EdgeSource::Discovered { attempt: last, .. } => {
                *last == attempt && (edge.soft || received.contains_key(&(edge.dependency, false)))
            }
        });
        self.record_event(service, "ready");
        Outcome::Done
    }

    pub(crate) fn fail_attempt(
        &mut self,
        service: usize,
        generation: u64,
        attempt: Number,
        reason: &str,
    ) -> Outcome {
        if !self.is_current(service, attempt) {
            return Outcome::Refused(Refusal::Invalidated(self.failure(service, generation)));
        }
        let subject = &mut self.services[service];
        subject.phase = Phase::Down;
        subject.attempt = None;
        subject.failed_attempt = Some(Cause { generation, reason: reason.to_string() });
        self.record_event(service, if is_planned(reason) { "stopped" } else { "attempt failed" });
        Outcome::Done
    }

    pub(crate) fn drop_attempt(&mut self, service: usize, generation: u64, attempt: Number) {
        let reason = self.drop_reason("the attempt was dropped");
        self.fail_attempt(service, generation, attempt, reason);
    }

    /// Returns the reason of a failure that is caused by the drop of a handle.
    fn drop_reason(&self, if_open: &'static str) -> &'static str {
        if self.closed { CLOSED } else { if_open }
    }

    pub(crate) fn replace(&mut self, service: usize, generation: u64, serial: u64) -> Outcome {
        let subject = &mut self.services[service];
        if subject.generation != generation {
            return Outcome::Refused(Refusal::Invalidated(self.failure(service, generation)));
        }
        let replaced = subject.published.map_or(0, |published| published.revision);
        subject.published = Some(InstanceId { generation, revision: replaced + 1, serial });
        subject.replaced += 1;
        self.record_event(service, "replaced");
        Outcome::Done
    }

    /// Ends a running handle. Its instance fails, and can no longer be read.
    pub(crate) fn fail_running(
        &mut self,
        service: usize,
        generation: u64,
        reason: &str,
    ) -> Outcome {
        let outcome = if self.services[service].generation == generation {
            self.fail(service, reason)
        } else {
            Outcome::Cascade { failed: 0, invalidated: 0 }
        };
        let published = &mut self.services[service].published;
        if published.is_some_and(|published| published.generation == generation) {
            *published = None;
        }
        outcome
    }

    pub(crate) fn drop_running(&mut self, service: usize, generation: u64) {
        let reason = self.drop_reason("the running handle was dropped");
        self.fail_running(service, generation, reason);
    }

    pub(crate) fn drop_provider(&mut self, service: usize) {
        let reason = self.drop_reason("the provider was dropped");
        self.fail(service, reason);
        self.services[service].has_provider = false;
    }
}
