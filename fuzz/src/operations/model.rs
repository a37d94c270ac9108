//! What the registry should be: a plain map of services, and for each operation what is written about it.

use std::collections::{BTreeMap, BTreeSet};

use mainstay::Phase;

use super::outcome::{Outcome, Read, Refusal, Told};
use crate::naive::Walk;

/// The number of an attempt, and of the instance that comes of it. No two have the same.
pub(crate) type Holder = u64;

/// Where an edge leads. A pair of services may have both: one that failures travel, and a soft one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct To {
    pub(crate) service: usize,
    pub(crate) soft: bool,
}

impl To {
    pub(crate) fn hard(service: usize) -> Self {
        Self { service, soft: false }
    }
}

/// What an edge rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rests {
    Declared,
    /// On the last attempt that waited. Where that is not the one that holds the service now, the edge is
    /// stale: it is kept until the next publication, or until it is in the way of another edge.
    On {
        holder: Holder,
        to_start: bool,
    },
}

/// A reason that was given for the end of a generation, or of an attempt in it.
#[derive(Debug, Clone)]
pub(crate) struct Said {
    pub(crate) generation: u64,
    pub(crate) reason: String,
}

#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) name: String,
    /// Else its values are of another type, and it is never provided.
    pub(crate) of_values: bool,
    pub(crate) phase: Phase,
    pub(crate) generation: u64,
    /// The attempt or instance that is alive: there is none while it is down.
    pub(crate) holder: Option<Holder>,
    /// The last value that was put in its place, until its running handle is dropped.
    pub(crate) published: Option<Read>,
    pub(crate) provided: bool,
    pub(crate) waiting: u32,
    pub(crate) edges: BTreeMap<To, Rests>,
    cause: Option<Said>,
    given_up: Option<Said>,
    failed_by: usize,
}

/// An event, as the observer is told of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Happened {
    pub(crate) service: String,
    pub(crate) generation: u64,
    pub(crate) what: String,
}

#[derive(Debug, Default)]
pub(crate) struct Model {
    pub(crate) services: Vec<Service>,
    pub(crate) closed: bool,
    /// Since they were last compared.
    pub(crate) events: Vec<Happened>,
}

/// What is waited for.
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
        holder: Holder,
        dependency: Option<usize>,
        /// And is of no matter later.
        to_start: bool,
    },
    Overtaken {
        service: usize,
        generation: u64,
    },
    Failed {
        service: usize,
        generation: u64,
    },
    /// A change of a service that is watched.
    Change {
        service: usize,
        /// On whose behalf: a service, and the generation with which it ends.
        by: Option<(usize, u64)>,
        /// What was told to be ready last.
        seen: Option<Read>,
    },
}

impl Awaited {
    /// The service whose readiness is waited for, and whose attempt waits: such waits are counted and told.
    pub(crate) fn counted(self) -> Option<(usize, Option<usize>)> {
        match self {
            Self::Ready { service } => service.map(|service| (service, None)),
            Self::Dependency { service, dependency, .. } => dependency.map(|d| (d, Some(service))),
            _ => None,
        }
    }

    /// Whose time is up, if it is.
    pub(crate) fn subject(self) -> Option<usize> {
        match self {
            Self::Begin { service }
            | Self::Overtaken { service, .. }
            | Self::Failed { service, .. }
            | Self::Change { service, .. } => Some(service),
            Self::Ready { service } => service,
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
            holder: None,
            published: None,
            provided: false,
            waiting: 0,
            edges: BTreeMap::new(),
            cause: None,
            given_up: None,
            failed_by: service,
        });
        service
    }

    pub(crate) fn happened(&mut self, service: usize, what: impl Into<String>) {
        let Service { name, generation, .. } = &self.services[service];
        let (service, generation) = (name.clone(), *generation);
        self.events.push(Happened { service, generation, what: what.into() });
    }

    // Edges.

    /// Asks the graph of all edges.
    pub(crate) fn all<R>(&self, ask: impl FnOnce(Walk<'_>) -> R) -> R {
        self.those_that(|_, _| true, ask)
    }

    /// Asks the graph of the edges that failures travel.
    pub(crate) fn hard<R>(&self, ask: impl FnOnce(Walk<'_>) -> R) -> R {
        self.those_that(|_, to| !to.soft, ask)
    }

    /// Asks the graph of the edges that hold something.
    pub(crate) fn live<R>(&self, ask: impl FnOnce(Walk<'_>) -> R) -> R {
        self.those_that(|from, to| !self.is_stale(from, to), ask)
    }

    fn those_that<R>(
        &self,
        count: impl Fn(usize, To) -> bool,
        ask: impl FnOnce(Walk<'_>) -> R,
    ) -> R {
        let depends = |from: usize, service: usize| {
            [false, true]
                .into_iter()
                .map(|soft| To { service, soft })
                .any(|to| self.services[from].edges.contains_key(&to) && count(from, to))
        };
        ask(Walk { services: self.services.len(), depends: &depends })
    }

    pub(crate) fn is_stale(&self, from: usize, to: To) -> bool {
        let Service { edges, holder, .. } = &self.services[from];
        match edges.get(&to) {
            Some(Rests::On { holder: attempt, .. }) => *holder != Some(*attempt),
            _ => false,
        }
    }

    // Attempts and instances.

    pub(crate) fn take(&mut self, service: usize, holder: Holder) {
        self.happened(service, "begun");
        let service = &mut self.services[service];
        service.phase = Phase::Starting;
        service.holder = Some(holder);
    }

    pub(crate) fn is_held_by(&self, service: usize, holder: Holder) -> bool {
        self.services[service].holder == Some(holder)
    }

    pub(crate) fn publish(
        &mut self,
        service: usize,
        generation: u64,
        holder: Holder,
        serial: u64,
    ) -> Outcome {
        if self.closed {
            self.drop_attempt(service, generation, holder);
            return Outcome::Refused(Refusal::Closed(self.name(service)));
        }
        if !self.is_held_by(service, holder) {
            return Outcome::Refused(Refusal::Overtaken(self.told(service, generation)));
        }
        let subject = &mut self.services[service];
        subject.phase = Phase::Ready;
        subject.published = Some(Read { generation, serial });
        subject.edges.retain(|_, rests| {
            [Rests::Declared, Rests::On { holder, to_start: false }].contains(rests)
        });
        self.happened(service, "ready");
        Outcome::Done
    }

    pub(crate) fn give_up(
        &mut self,
        service: usize,
        generation: u64,
        holder: Holder,
        reason: &str,
    ) -> Outcome {
        if !self.is_held_by(service, holder) {
            return Outcome::Refused(Refusal::Overtaken(self.told(service, generation)));
        }
        let subject = &mut self.services[service];
        subject.phase = Phase::Down;
        subject.holder = None;
        subject.given_up = Some(Said { generation, reason: reason.to_string() });
        self.happened(service, "given up");
        Outcome::Done
    }

    pub(crate) fn drop_attempt(&mut self, service: usize, generation: u64, holder: Holder) {
        let reason = self.dropped("the attempt was dropped");
        self.give_up(service, generation, holder, reason);
    }

    /// The reason of a failure by dropping something.
    fn dropped(&self, quiet: &'static str) -> &'static str {
        if self.closed { "the registry was closed" } else { quiet }
    }

    pub(crate) fn replace(&mut self, service: usize, generation: u64, serial: u64) -> Outcome {
        let subject = &mut self.services[service];
        if subject.generation != generation {
            return Outcome::Refused(Refusal::Overtaken(self.told(service, generation)));
        }
        subject.published = Some(Read { generation, serial });
        self.happened(service, "replaced");
        Outcome::Done
    }

    /// The running handle is dropped, and with it what nobody can read any more.
    pub(crate) fn end(&mut self, service: usize, generation: u64, reason: &str) -> Outcome {
        let outcome = if self.services[service].generation == generation {
            self.fail(service, reason)
        } else {
            Outcome::Fell { went_down: 0, overtaken: 0 }
        };
        let published = &mut self.services[service].published;
        if published.is_some_and(|published| published.generation == generation) {
            *published = None;
        }
        outcome
    }

    pub(crate) fn drop_running(&mut self, service: usize, generation: u64) {
        let reason = self.dropped("the running handle was dropped");
        self.end(service, generation, reason);
    }

    pub(crate) fn drop_provider(&mut self, service: usize) {
        let reason = self.dropped("the provider was dropped");
        self.fail(service, reason);
        self.services[service].provided = false;
    }

    // Failing.

    pub(crate) fn fail(&mut self, root: usize, reason: &str) -> Outcome {
        let (mut went_down, mut overtaken) = (0, 0);
        if self.services[root].phase == Phase::Down {
            return Outcome::Fell { went_down, overtaken };
        }
        let generation = self.services[root].generation;
        self.services[root].cause = Some(Said { generation, reason: reason.to_string() });
        let closure: BTreeSet<usize> = self.hard(|graph| graph.closure(root));
        for fallen in closure {
            match self.services[fallen].phase {
                Phase::Ready => {
                    went_down += 1;
                    self.happened(fallen, "failed");
                }
                Phase::Starting => {
                    overtaken += 1;
                    self.happened(fallen, "overtaken");
                }
                Phase::Down => {}
            }
            let fallen = &mut self.services[fallen];
            fallen.phase = Phase::Down;
            fallen.holder = None;
            fallen.generation += 1;
            fallen.failed_by = root;
        }
        Outcome::Fell { went_down, overtaken }
    }

    pub(crate) fn report(&mut self, service: usize, met: Read, reason: &str) -> Outcome {
        let Service { generation, published, .. } = &self.services[service];
        if *generation != met.generation {
            Outcome::AlreadyFailed
        } else if *published != Some(met) {
            Outcome::Replaced
        } else {
            self.fail(service, reason)
        }
    }

    fn said(&self, service: usize, generation: u64, root: usize, said: &Said) -> Told {
        Told {
            service: self.name(service),
            generation,
            root: self.name(root),
            root_generation: said.generation,
            reason: said.reason.clone(),
        }
    }

    pub(crate) fn told(&self, service: usize, generation: u64) -> Told {
        let root = self.services[service].failed_by;
        match &self.services[root].cause {
            Some(cause) => self.said(service, generation, root, cause),
            None => panic!("{} has not failed", self.name(service)),
        }
    }

    pub(crate) fn last_failure(&self, service: usize) -> Option<Told> {
        let Service { generation, given_up, .. } = &self.services[service];
        match given_up {
            Some(said) if said.generation == *generation => {
                Some(self.said(service, *generation, service, said))
            }
            _ => (*generation > 0).then(|| self.told(service, *generation - 1)),
        }
    }

    // Reading and waiting.

    pub(crate) fn read(&self, service: Option<usize>) -> Result<Read, Refusal> {
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

    /// How a wait ends now, before an edge is looked at; `None` where it does not.
    pub(crate) fn ends_at_once(&self, awaited: Awaited) -> Option<Outcome> {
        let Some(subject) = awaited.subject() else {
            return Some(Outcome::Refused(Refusal::Foreign));
        };
        let closed = self.closed.then(|| Outcome::Refused(Refusal::Closed(self.name(subject))));
        match awaited {
            Awaited::Begin { .. } => closed,
            Awaited::Ready { service } => {
                let read = self.read(service).ok().map(|read| Outcome::Read(vec![read]));
                read.or(closed)
            }
            Awaited::Dependency { service, generation, holder, .. } => {
                let overtaken = !self.is_held_by(service, holder);
                let told = || Outcome::Refused(Refusal::Overtaken(self.told(service, generation)));
                overtaken.then(told).or(closed)
            }
            Awaited::Overtaken { service, generation }
            | Awaited::Failed { service, generation } => {
                let over = self.services[service].generation > generation;
                over.then(|| Outcome::Failure(self.told(service, generation))).or(closed)
            }
            Awaited::Change { service, by, seen } => {
                let over = by.filter(|&(by, generation)| self.services[by].generation > generation);
                over.map(|(by, generation)| {
                    Outcome::Refused(Refusal::Overtaken(self.told(by, generation)))
                })
                .or_else(|| self.change(service, seen))
                .or(closed)
            }
        }
    }

    /// What somebody is to be told who was told that this was ready.
    fn change(&self, service: usize, seen: Option<Read>) -> Option<Outcome> {
        match (self.read(Some(service)).ok(), seen) {
            (Some(now), Some(seen)) if now.generation == seen.generation => {
                (now != seen).then_some(Outcome::ReadAnother(now))
            }
            (Some(now), _) => Some(Outcome::Read(vec![now])),
            (None, Some(seen)) => Some(Outcome::Failure(self.told(service, seen.generation))),
            (None, None) => None,
        }
    }

    /// How a wait ends now, once its edge is there.
    pub(crate) fn ends(&self, awaited: Awaited) -> Option<Outcome> {
        self.ends_at_once(awaited).or_else(|| match awaited {
            Awaited::Begin { service } => {
                let Service { phase, generation, .. } = self.services[service];
                (phase == Phase::Down).then_some(Outcome::Begun { generation })
            }
            Awaited::Dependency { dependency, .. } => {
                self.read(dependency).ok().map(|read| Outcome::Read(vec![read]))
            }
            _ => None,
        })
    }

    pub(crate) fn wait_begins(&mut self, awaited: Awaited) {
        if let Some((service, by)) = awaited.counted() {
            self.services[service].waiting += 1;
            self.happened(service, waited("waited for", by.map(|by| self.name(by))));
        }
    }

    pub(crate) fn wait_ends(&mut self, awaited: Awaited) {
        if let Some((service, by)) = awaited.counted() {
            self.services[service].waiting -= 1;
            self.happened(service, waited("no longer waited for", by.map(|by| self.name(by))));
        }
    }
}

/// How the event of a wait is written.
pub(crate) fn waited(what: &str, by: Option<String>) -> String {
    format!("{what} by {}", by.as_deref().unwrap_or("a reader"))
}
