//! The model: a plain map of services, with an implementation of each operation that follows its
//! documentation.

use std::collections::{BTreeMap, BTreeSet};

use mainstay::Phase;

use super::outcome::{FailureSummary, InstanceId, Outcome, Refusal, State};
use crate::naive::NaiveGraph;

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

/// The reason of what ends because the registry was closed.
const CLOSED: &str = "the registry was closed";

/// Returns whether an end for this reason is no failure.
fn is_planned(reason: &str) -> bool {
    reason == CLOSED
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
    /// The events since the last comparison.
    pub(crate) events: Vec<RecordedEvent>,
}

/// The condition of a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Awaited {
    Begin {
        service: usize,
    },
    Ready {
        service: Option<usize>,
    },
    Dependency {
        service: usize,
        generation: u64,
        attempt: Number,
        dependency: Option<usize>,
        /// Whether the edge is removed by the publication.
        start_only: bool,
        /// Whether the id is untyped.
        any: bool,
    },
    /// Another state than this one.
    Change {
        service: Option<usize>,
        since: State,
    },
    Invalidated {
        service: usize,
        generation: u64,
    },
    Failed {
        service: usize,
        generation: u64,
    },
    /// An event of a watched service.
    WatchEvent {
        service: usize,
        /// The service that watches, and the generation that ends the watch with it.
        dependent: Option<(usize, u64)>,
        /// The instance that the watch reported last, if it has not reported its failure.
        reported: Option<InstanceId>,
    },
}

impl Awaited {
    /// Returns the service for whose readiness it waits, and the service whose attempt waits. Only
    /// these waits are counted and reported to the observer.
    pub(crate) fn waited_for(self) -> Option<(usize, Option<usize>)> {
        match self {
            Self::Ready { service } => service.map(|service| (service, None)),
            Self::Dependency { service, dependency, .. } => dependency.map(|d| (d, Some(service))),
            _ => None,
        }
    }

    /// Returns the service that the errors `Closed` and `TimedOut` of this wait name.
    pub(crate) fn subject(self) -> Option<usize> {
        match self {
            Self::Begin { service }
            | Self::Invalidated { service, .. }
            | Self::Failed { service, .. }
            | Self::WatchEvent { service, .. } => Some(service),
            Self::Ready { service } | Self::Change { service, .. } => service,
            Self::Dependency { dependency, .. } => dependency,
        }
    }
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

    // Edges.

    /// Searches the graph of all edges.
    pub(crate) fn with_all_edges<R>(&self, search: impl FnOnce(NaiveGraph<'_>) -> R) -> R {
        self.with_edges(|_, _| true, search)
    }

    /// Searches the graph of the edges along which a failure cascades now.
    pub(crate) fn with_failing_edges<R>(&self, search: impl FnOnce(NaiveGraph<'_>) -> R) -> R {
        let is_ready = |service: usize| self.services[service].phase == Phase::Ready;
        let follows = |dependent, edge| self.always_fails(dependent, edge) || !is_ready(dependent);
        self.with_edges(|dependent, edge| !edge.soft && follows(dependent, edge), search)
    }

    /// Searches the graph of the edges along which a failure cascades whatever the phases are.
    pub(crate) fn with_always_failing_edges<R>(
        &self,
        search: impl FnOnce(NaiveGraph<'_>) -> R,
    ) -> R {
        self.with_edges(|dependent, edge| self.always_fails(dependent, edge), search)
    }

    fn always_fails(&self, dependent: usize, edge: EdgeKey) -> bool {
        let source = self.services[dependent].edges.get(&edge);
        !edge.soft && source != Some(&EdgeSource::DeclaredToStart { hard: None })
    }

    /// Searches the graph without the dead edges.
    pub(crate) fn with_live_edges<R>(&self, search: impl FnOnce(NaiveGraph<'_>) -> R) -> R {
        self.with_edges(|dependent, edge| !self.is_dead(dependent, edge), search)
    }

    fn with_edges<R>(
        &self,
        includes: impl Fn(usize, EdgeKey) -> bool,
        search: impl FnOnce(NaiveGraph<'_>) -> R,
    ) -> R {
        let has_edge = |dependent: usize, dependency: usize| {
            [false, true].into_iter().map(|soft| EdgeKey { dependency, soft }).any(|edge| {
                self.services[dependent].edges.contains_key(&edge) && includes(dependent, edge)
            })
        };
        search(NaiveGraph { services: self.services.len(), has_edge: &has_edge })
    }

    /// Whether the attempt that used the edge last can no longer be published.
    pub(crate) fn is_dead(&self, dependent: usize, edge: EdgeKey) -> bool {
        let Service { edges, attempt, .. } = &self.services[dependent];
        match edges.get(&edge) {
            Some(EdgeSource::Discovered { attempt: last, .. }) => *attempt != Some(*last),
            _ => false,
        }
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

    // Failing.

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

    // Reading and waiting.

    pub(crate) fn read(&self, service: Option<usize>) -> Result<InstanceId, Refusal> {
        let Some(service) = service else { return Err(Refusal::Foreign) };
        let Service { name, phase, generation, published, .. } = &self.services[service];
        match (phase, published) {
            (Phase::Ready, Some(published)) => Ok(*published),
            _ => Err(Refusal::NotReady {
                service: name.clone(),
                phase: *phase,
                generation: *generation,
            }),
        }
    }

    /// Returns the phase, the generation and the revision of a service.
    pub(crate) fn state(&self, service: usize) -> State {
        let Service { phase, generation, .. } = self.services[service];
        (phase, generation, self.read(Some(service)).map_or(0, |instance| instance.revision))
    }

    /// Returns the result of a wait before its edge is added, or `None` if it does not end yet.
    pub(crate) fn wait_result_before_edge(&self, awaited: Awaited) -> Option<Outcome> {
        let Some(subject) = awaited.subject() else {
            return Some(Outcome::Refused(Refusal::Foreign));
        };
        let closed = self.closed.then(|| Outcome::Refused(Refusal::Closed(self.name(subject))));
        match awaited {
            Awaited::Begin { .. } => closed,
            Awaited::Change { since, .. } => {
                let state = self.state(subject);
                (state != since).then_some(Outcome::State(state)).or(closed)
            }
            Awaited::Ready { service } => {
                let instance =
                    self.read(service).ok().map(|instance| Outcome::Instances(vec![instance]));
                instance.or(closed)
            }
            Awaited::Dependency { service, generation, attempt, .. } => {
                let invalidated = !self.is_current(service, attempt);
                let refusal =
                    || Outcome::Refused(Refusal::Invalidated(self.failure(service, generation)));
                invalidated.then(refusal).or(closed)
            }
            Awaited::Invalidated { service, generation }
            | Awaited::Failed { service, generation } => {
                let has_failed = self.services[service].generation > generation;
                has_failed.then(|| Outcome::Failure(self.failure(service, generation))).or(closed)
            }
            Awaited::WatchEvent { service, dependent, reported } => {
                let failed_dependent = dependent.filter(|&(dependent, generation)| {
                    self.services[dependent].generation > generation
                });
                failed_dependent
                    .map(|(dependent, generation)| {
                        Outcome::Refused(Refusal::Invalidated(self.failure(dependent, generation)))
                    })
                    .or_else(|| self.watch_event(service, reported))
                    .or(closed)
            }
        }
    }

    /// Returns the next event of a watch that last reported `reported` as ready.
    fn watch_event(&self, service: usize, reported: Option<InstanceId>) -> Option<Outcome> {
        match (self.read(Some(service)).ok(), reported) {
            (Some(current), Some(reported)) if current.generation == reported.generation => {
                (current != reported).then_some(Outcome::Replacement(current))
            }
            (Some(current), _) => Some(Outcome::Instances(vec![current])),
            (None, Some(reported)) => {
                Some(Outcome::Failure(self.failure(service, reported.generation)))
            }
            (None, None) => None,
        }
    }

    /// Returns the result of a wait whose edge exists, or `None` if it is pending.
    pub(crate) fn wait_result(&self, awaited: Awaited) -> Option<Outcome> {
        self.wait_result_before_edge(awaited).or_else(|| match awaited {
            Awaited::Begin { service } => {
                let Service { phase, generation, .. } = self.services[service];
                (phase == Phase::Down).then_some(Outcome::AttemptStarted { generation })
            }
            Awaited::Dependency { dependency, any, .. } => {
                self.read(dependency).ok().map(|instance| match any {
                    false => Outcome::Instances(vec![instance]),
                    true => {
                        let InstanceId { generation, revision, .. } = instance;
                        Outcome::AnyInstance { generation, revision }
                    }
                })
            }
            _ => None,
        })
    }

    pub(crate) fn wait_started(&mut self, awaited: Awaited) {
        if let Some((service, dependent)) = awaited.waited_for() {
            self.services[service].waiters += 1;
            self.record_event(service, wait_text("waited for", dependent.map(|d| self.name(d))));
        }
    }

    pub(crate) fn wait_ended(&mut self, awaited: Awaited) {
        if let Some((service, dependent)) = awaited.waited_for() {
            self.services[service].waiters -= 1;
            self.record_event(
                service,
                wait_text("no longer waited for", dependent.map(|d| self.name(d))),
            );
        }
    }
}

/// Returns the text of the event of a wait.
pub(crate) fn wait_text(what: &str, dependent: Option<String>) -> String {
    format!("{what} by {}", dependent.as_deref().unwrap_or("a reader"))
}
