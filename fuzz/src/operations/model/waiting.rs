//! Reads, and the conditions of waits.

use std::collections::BTreeSet;

use super::{Model, Number, Service};
use crate::operations::outcome::{InstanceId, Outcome, Refusal, State};
use mainstay::Phase;

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
    /// A restart or a stop of a service is over.
    Stopped {
        service: Option<usize>,
        ticket: Number,
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
            Self::Ready { service }
            | Self::Change { service, .. }
            | Self::Stopped { service, .. } => service,
            Self::Dependency { dependency, .. } => dependency,
        }
    }
}

impl Model {
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
            Awaited::Stopped { ticket, .. } => {
                let names =
                    |report: &BTreeSet<usize>| report.iter().map(|&it| self.name(it)).collect();
                closed.or_else(|| Some(Outcome::Stopped(names(self.plan.report(ticket)?))))
            }
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
                let can_begin = phase == Phase::Down && !self.plan.is_marked(service);
                can_begin.then_some(Outcome::AttemptStarted { generation })
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

    /// Returns the error of a wait whose timeout has expired.
    pub(crate) fn timed_out(&self, awaited: Awaited) -> Refusal {
        let subject = awaited.subject().map(|service| self.name(service)).unwrap_or_default();
        match awaited {
            Awaited::Stopped { service: Some(service), .. } => {
                let waiting_for = self.plan.stopping_with(service);
                let waiting_for = waiting_for.into_iter().map(|other| self.name(other)).collect();
                Refusal::StopTimedOut { service: subject, waiting_for }
            }
            _ => Refusal::TimedOut(subject),
        }
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
