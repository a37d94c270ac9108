//! Edges of up to 30 services, declared and discovered, dropped and refused, against naive search.
//!
//! Who goes down is seen by the generations: a failure adds one to those of the whole closure.

use std::{
    collections::{BTreeMap, BTreeSet},
    task::Poll,
};

use arbitrary::{Arbitrary, Result, Unstructured};
use mainstay::{
    Attempt, Cycle, DependencyError, Phase, Provider, Registry, Running, ServiceId, WaitForError,
};
use mainstay_test_support::poll_once;

use crate::naive::Walk;

#[derive(Debug, Clone, Copy)]
enum Step {
    Declare(usize, usize),
    /// The attempt of the first, which is begun if there is none and it is down, waits for the second.
    Wait(usize, usize),
    Ready(usize),
    GiveUp(usize),
    Fail(usize),
}

#[derive(Debug)]
struct Plan {
    services: usize,
    /// Edges that the builder is told.
    built: Vec<(usize, usize)>,
    steps: Vec<Step>,
}

impl Arbitrary<'_> for Plan {
    fn arbitrary(u: &mut Unstructured<'_>) -> Result<Self> {
        let services = 2 + usize::from(u.arbitrary::<u8>()? % 29);
        let built = usize::from(u.arbitrary::<u8>()? % 16);
        let built = (0..built)
            .map(|_| Ok((service(u, services)?, service(u, services)?)))
            .collect::<Result<_>>()?;
        let mut steps = Vec::new();
        while !u.is_empty() && steps.len() < 256 {
            steps.push(match u.arbitrary::<u8>()? % 16 {
                0..=2 => Step::Declare(service(u, services)?, service(u, services)?),
                3..=10 => Step::Wait(service(u, services)?, service(u, services)?),
                11..=12 => Step::Ready(service(u, services)?),
                13 => Step::GiveUp(service(u, services)?),
                _ => Step::Fail(service(u, services)?),
            });
        }
        Ok(Self { services, built, steps })
    }
}

fn service(u: &mut Unstructured<'_>, services: usize) -> Result<usize> {
    Ok(usize::from(u.arbitrary::<u8>()?) % services)
}

/// What the service has at the moment.
enum Holder {
    Nobody,
    Attempt(Attempt<()>),
    Running(
        #[expect(dead_code, reason = "it is held, so that the service does not fail")] Running<()>,
    ),
}

/// Who rests on an edge: `None` where it is declared, else the number of the attempt that used it.
type By = Option<u64>;

struct Graph {
    registry: Registry,
    ids: Vec<ServiceId<()>>,
    /// Before the providers, so that it is dropped before them.
    holders: Vec<Holder>,
    providers: Vec<Provider<()>>,
    /// The number of the attempt or instance that is alive.
    alive: Vec<Option<u64>>,
    edges: BTreeMap<(usize, usize), By>,
    attempts: u64,
}

/// Runs one input.
///
/// # Panics
///
/// The registry's graph is another than the one that was asked for.
pub fn run(data: &[u8]) {
    let Ok(plan) = Plan::arbitrary(&mut Unstructured::new(data)) else { return };
    if crate::traced() {
        println!("{plan:#?}");
    }
    let mut graph = Graph::new(&plan);
    for &step in &plan.steps {
        graph.step(step);
        graph.check_edges(step);
    }
    // Nothing but a publication drops an edge here, so every closure can be looked at in the same graph.
    for service in 0..plan.services {
        graph.begin(service);
        graph.fail(service);
    }
}

impl Graph {
    fn new(plan: &Plan) -> Self {
        let mut builder = Registry::builder(plan.services).expect("it is small");
        let register = |place: usize| builder.register(&place.to_string()).expect("there is room");
        let ids: Vec<ServiceId<()>> = (0..plan.services).map(register).collect();
        let mut edges = BTreeMap::new();
        for &(a, b) in &plan.built {
            let closes = walk(plan.services, &edges).rests_on(b, a);
            match builder.add_dependency(ids[a], ids[b]) {
                Ok(()) => {
                    assert!(!closes, "{a} -> {b} closes a cycle in the builder");
                    edges.insert((a, b), None);
                }
                Err(DependencyError::Cycle(cycle)) => {
                    assert!(closes, "{a} -> {b} closes no cycle in the builder");
                    walk(plan.services, &edges).check_cycle(&cycle, a, b);
                }
                Err(other) => panic!("{other}"),
            }
        }
        let registry = builder.build();
        let provide = |&id| registry.provide(id).expect("nobody provides it");
        Self {
            providers: ids.iter().map(provide).collect(),
            holders: ids.iter().map(|_| Holder::Nobody).collect(),
            alive: vec![None; ids.len()],
            registry,
            ids,
            edges,
            attempts: 0,
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Declare(a, b) => {
                let refused = match self.registry.add_dependency(self.ids[a], self.ids[b]) {
                    Ok(()) => None,
                    Err(DependencyError::Cycle(cycle)) => Some(cycle),
                    Err(other) => panic!("{other}"),
                };
                self.added(a, b, None, refused);
            }
            Step::Wait(a, b) => {
                self.begin(a);
                let Holder::Attempt(attempt) = &self.holders[a] else { return };
                let refused = match poll_once(attempt.wait_for(self.ids[b])) {
                    Poll::Pending | Poll::Ready(Ok(_)) => None,
                    Poll::Ready(Err(WaitForError::Cycle(cycle))) => Some(cycle),
                    Poll::Ready(Err(WaitForError::Overtaken(_))) => {
                        assert_eq!(self.alive[a], None, "the attempt at {a} was not overtaken");
                        return;
                    }
                    Poll::Ready(Err(other)) => panic!("{other}"),
                };
                self.added(a, b, Some(self.attempts_number(a)), refused);
            }
            Step::Ready(service) => {
                match std::mem::replace(&mut self.holders[service], Holder::Nobody) {
                    Holder::Attempt(attempt) => match (attempt.ready(()), self.alive[service]) {
                        (Ok(running), Some(alive)) => {
                            self.holders[service] = Holder::Running(running);
                            // What only earlier attempts used is dropped.
                            self.edges.retain(|&(dependent, _), by| {
                                dependent != service || by.is_none_or(|by| by == alive)
                            });
                        }
                        (Err(_), None) => {}
                        (ready, _) => {
                            panic!("published, of an attempt at {service}: {}", ready.is_ok())
                        }
                    },
                    other => self.holders[service] = other,
                }
            }
            Step::GiveUp(service) => {
                if let Holder::Attempt(_) = &self.holders[service] {
                    self.holders[service] = Holder::Nobody;
                    self.alive[service] = None;
                }
            }
            Step::Fail(service) => self.fail(service),
        }
    }

    fn attempts_number(&self, service: usize) -> u64 {
        self.alive[service].expect("an attempt that may wait is alive")
    }

    /// Begins an attempt where none is alive; one that was overtaken is dropped for it.
    fn begin(&mut self, service: usize) {
        if self.alive[service].is_none() {
            self.holders[service] = Holder::Nobody;
            let attempt = match poll_once(self.providers[service].begin()) {
                Poll::Ready(Ok(attempt)) => attempt,
                _ => panic!("{service} is down, and no attempt begins"),
            };
            self.holders[service] = Holder::Attempt(attempt);
            self.attempts += 1;
            self.alive[service] = Some(self.attempts);
        }
    }

    /// The registry was asked for an edge, and perhaps refused it.
    fn added(&mut self, a: usize, b: usize, by: By, refused: Option<Cycle>) {
        if let Some(known) = self.edges.get_mut(&(a, b)) {
            assert!(refused.is_none(), "{a} -> {b} is there already");
            *known = known.and(by);
            return;
        }
        let services = self.ids.len();
        let live: BTreeMap<_, _> = self
            .edges
            .iter()
            .filter(|&(&edge, &by)| !self.is_stale(edge, by))
            .map(|(&edge, &by)| (edge, by))
            .collect();
        let closes = walk(services, &live).rests_on(b, a);
        assert_eq!(closes, refused.is_some(), "{a} -> {b} closes a cycle");
        self.adopt_dropped_edges(a, b);
        match refused {
            Some(cycle) => walk(services, &live).check_cycle(&cycle, a, b),
            None => {
                let still = walk(services, &self.edges).rests_on(b, a);
                assert!(!still, "{a} -> {b} closes a cycle now");
                self.edges.insert((a, b), by);
            }
        }
    }

    /// An edge that only an attempt used which is no more.
    fn is_stale(&self, (dependent, _): (usize, usize), by: By) -> bool {
        by.is_some() && by != self.alive[dependent]
    }

    /// Stale edges that led from `b` to `a` may be gone, for `a -> b` to be possible.
    fn adopt_dropped_edges(&mut self, a: usize, b: usize) {
        let there: BTreeSet<(usize, usize)> = self.listed().into_keys().collect();
        let before = self.edges.clone();
        for (&edge, &by) in before.iter().filter(|&(edge, _)| !there.contains(edge)) {
            let all = walk(self.ids.len(), &before);
            let in_the_way = all.rests_on(b, edge.0) && all.rests_on(edge.1, a);
            assert!(in_the_way && self.is_stale(edge, by), "{edge:?} was dropped for {a} -> {b}");
            self.edges.remove(&edge);
        }
    }

    /// The edges as the registry lists them, and whether each is declared.
    fn listed(&self) -> BTreeMap<(usize, usize), bool> {
        let place = |name: &str| name.parse::<usize>().expect("names are numbers");
        let mut edges = BTreeMap::new();
        for (dependent, status) in self.registry.list().services.iter().enumerate() {
            for edge in &status.dependencies {
                let known = edges.insert((dependent, place(&edge.name)), edge.declared);
                assert_eq!(known, None, "an edge is listed once");
            }
        }
        edges
    }

    fn check_edges(&self, after: Step) {
        let expected: BTreeMap<(usize, usize), bool> =
            self.edges.iter().map(|(&edge, by)| (edge, by.is_none())).collect();
        assert_eq!(expected, self.listed(), "edges after {after:?}");
    }

    /// Fails a service, and sees who goes down with it.
    fn fail(&mut self, root: usize) {
        let before = self.registry.list();
        let cascade = self.registry.fail(self.ids[root], "because").expect("it is ours");
        let after = self.registry.list();

        let expected = match self.alive[root] {
            Some(_) => walk(self.ids.len(), &self.edges).closure(root),
            None => BTreeSet::new(),
        };
        let (mut went_down, mut overtaken) = (0, 0);
        for (service, (before, after)) in before.services.iter().zip(&after.services).enumerate() {
            let falls = expected.contains(&service);
            let name = &before.name;
            assert_eq!(
                after.generation - before.generation,
                u64::from(falls),
                "{root} takes {name}"
            );
            assert_eq!(after.phase, if falls { Phase::Down } else { before.phase });
            went_down += usize::from(falls && before.phase == Phase::Ready);
            overtaken += usize::from(falls && before.phase == Phase::Starting);
        }
        assert_eq!((cascade.went_down, cascade.overtaken), (went_down, overtaken));
        expected.into_iter().for_each(|service| self.alive[service] = None);
    }
}

/// A map of edges, to be asked.
struct Edges<'a> {
    services: usize,
    edges: &'a BTreeMap<(usize, usize), By>,
}

fn walk(services: usize, edges: &BTreeMap<(usize, usize), By>) -> Edges<'_> {
    Edges { services, edges }
}

impl Edges<'_> {
    fn ask<R>(&self, ask: impl FnOnce(Walk<'_>) -> R) -> R {
        let depends = |a: usize, b: usize| self.edges.contains_key(&(a, b));
        ask(Walk { services: self.services, depends: &depends })
    }

    fn rests_on(&self, service: usize, other: usize) -> bool {
        self.ask(|walk| walk.rests_on(service, other))
    }

    fn closure(&self, root: usize) -> BTreeSet<usize> {
        self.ask(|walk| walk.closure(root))
    }

    fn check_cycle(&self, cycle: &Cycle, a: usize, b: usize) {
        let place = |name: &mainstay::Name| name.parse().expect("names are numbers");
        let path: Vec<usize> = cycle.path.iter().map(place).collect();
        self.ask(|walk| walk.check_cycle(&path, a, b));
    }
}
