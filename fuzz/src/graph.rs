//! Edges between up to 30 services, declared, discovered, removed and refused, compared with a
//! naive search.
//!
//! The generations show which services a failure takes down: each cascade increments the
//! generations of the whole closure.

use std::{
    collections::{BTreeMap, BTreeSet},
    task::Poll,
};

use arbitrary::{Arbitrary, Result, Unstructured};
use mainstay::{
    Attempt, Phase, Provider, Registry, Running, ServiceId,
    error::{CycleError, DependencyError, WaitForError},
};
use mainstay_test_support::poll_once;

use crate::naive::NaiveGraph;

#[derive(Debug, Clone, Copy)]
enum Step {
    Declare(usize, usize),
    /// The attempt at the first service waits for the second. If the first is down, an attempt
    /// begins before.
    Wait(usize, usize),
    Ready(usize),
    DropAttempt(usize),
    Fail(usize),
}

#[derive(Debug)]
struct Plan {
    services: usize,
    /// The edges that are declared on the registry builder.
    declared: Vec<(usize, usize)>,
    steps: Vec<Step>,
}

impl Arbitrary<'_> for Plan {
    fn arbitrary(u: &mut Unstructured<'_>) -> Result<Self> {
        let services = 2 + usize::from(u.arbitrary::<u8>()? % 29);
        let declared = usize::from(u.arbitrary::<u8>()? % 16);
        let declared = (0..declared)
            .map(|_| Ok((service(u, services)?, service(u, services)?)))
            .collect::<Result<_>>()?;
        let mut steps = Vec::new();
        while !u.is_empty() && steps.len() < 256 {
            steps.push(match u.arbitrary::<u8>()? % 16 {
                0..=2 => Step::Declare(service(u, services)?, service(u, services)?),
                3..=10 => Step::Wait(service(u, services)?, service(u, services)?),
                11..=12 => Step::Ready(service(u, services)?),
                13 => Step::DropAttempt(service(u, services)?),
                _ => Step::Fail(service(u, services)?),
            });
        }
        Ok(Self { services, declared, steps })
    }
}

fn service(u: &mut Unstructured<'_>, services: usize) -> Result<usize> {
    Ok(usize::from(u.arbitrary::<u8>()?) % services)
}

/// The handle of a service.
enum Handle {
    None,
    Attempt(Attempt<()>),
    Running(#[expect(dead_code, reason = "its drop would fail the service")] Running<()>),
}

/// The source of an edge: `None` if it is declared, else the number of the last attempt that used
/// it.
type EdgeSource = Option<u64>;

struct Graph {
    registry: Registry,
    ids: Vec<ServiceId<()>>,
    /// Declared before the providers, so that the handles are dropped before them.
    handles: Vec<Handle>,
    providers: Vec<Provider<()>>,
    /// For each service, the number of its attempt or of the attempt that published its instance.
    /// None if the service is down.
    current: Vec<Option<u64>>,
    edges: BTreeMap<(usize, usize), EdgeSource>,
    /// The edges over which the last attempt has received an instance.
    received: BTreeSet<(usize, usize)>,
    attempts: u64,
}

/// Runs one input.
///
/// # Panics
///
/// The graph of the registry differs from the expected one.
pub fn run(data: &[u8]) {
    let Ok(plan) = Plan::arbitrary(&mut Unstructured::new(data)) else { return };
    if crate::is_traced() {
        println!("{plan:#?}");
    }
    let mut graph = Graph::new(&plan);
    for &step in &plan.steps {
        graph.step(step);
        graph.check_edges(step);
    }
    // Failures remove no edges, so the closure of every service is checked in the same graph.
    for service in 0..plan.services {
        graph.begin(service);
        graph.fail(service);
    }
}

impl Graph {
    fn new(plan: &Plan) -> Self {
        let mut builder =
            Registry::builder(plan.services).expect("the number of services is small");
        let register = |index: usize| {
            builder.register(&index.to_string()).expect("the capacity is the number of services")
        };
        let ids: Vec<ServiceId<()>> = (0..plan.services).map(register).collect();
        let mut edges = BTreeMap::new();
        for &(a, b) in &plan.declared {
            let closes = graph_of(plan.services, &edges).depends_on(b, a);
            match builder.depends(ids[a]).on(ids[b]) {
                Ok(_) => {
                    assert!(
                        !closes,
                        "the registry builder accepted {a} -> {b}, which closes a cycle"
                    );
                    edges.insert((a, b), None);
                }
                Err(DependencyError::Cycle(cycle)) => {
                    assert!(
                        closes,
                        "the registry builder refused {a} -> {b}, which closes no cycle"
                    );
                    graph_of(plan.services, &edges).check_cycle(&cycle, a, b);
                }
                Err(other) => panic!("{other}"),
            }
        }
        let registry = builder.build();
        let provide = |&id| registry.provide(id).expect("no service has a provider yet");
        Self {
            providers: ids.iter().map(provide).collect(),
            handles: ids.iter().map(|_| Handle::None).collect(),
            current: vec![None; ids.len()],
            registry,
            ids,
            edges,
            received: BTreeSet::new(),
            attempts: 0,
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Declare(a, b) => {
                let refused = match self.registry.depends(self.ids[a]).on(self.ids[b]) {
                    Ok(_) => None,
                    Err(DependencyError::Cycle(cycle)) => Some(cycle),
                    Err(other) => panic!("{other}"),
                };
                self.added(a, b, None, refused);
            }
            Step::Wait(a, b) => {
                self.begin(a);
                let Handle::Attempt(attempt) = &self.handles[a] else { return };
                let refused = match poll_once(attempt.wait_for(self.ids[b])) {
                    Poll::Pending => None,
                    Poll::Ready(Ok(_)) => {
                        self.received.insert((a, b));
                        None
                    }
                    Poll::Ready(Err(WaitForError::Cycle(cycle))) => Some(cycle),
                    Poll::Ready(Err(WaitForError::Invalidated(_))) => {
                        assert_eq!(self.current[a], None, "the attempt at {a} was not invalidated");
                        return;
                    }
                    Poll::Ready(Err(other)) => panic!("{other}"),
                };
                self.added(a, b, Some(self.current_attempt(a)), refused);
            }
            Step::Ready(service) => {
                match std::mem::replace(&mut self.handles[service], Handle::None) {
                    Handle::Attempt(attempt) => match (attempt.ready(()), self.current[service]) {
                        (Ok(running), Some(current)) => {
                            self.handles[service] = Handle::Running(running);
                            // The edges that only earlier attempts used are removed, and those
                            // over which the attempt has received nothing.
                            let received = &self.received;
                            self.edges.retain(|edge, source| {
                                let is_used = |source| source == current && received.contains(edge);
                                edge.0 != service || source.is_none_or(is_used)
                            });
                        }
                        (Err(_), None) => {}
                        (ready, _) => {
                            panic!(
                                "the publication of an attempt at {service} succeeded: {}",
                                ready.is_ok()
                            )
                        }
                    },
                    other => self.handles[service] = other,
                }
            }
            Step::DropAttempt(service) => {
                if let Handle::Attempt(_) = &self.handles[service] {
                    self.handles[service] = Handle::None;
                    self.current[service] = None;
                }
            }
            Step::Fail(service) => self.fail(service),
        }
    }

    fn current_attempt(&self, service: usize) -> u64 {
        self.current[service].expect("the wait was not refused, so the attempt is current")
    }

    /// Begins an attempt if the service is down. An invalidated attempt is dropped before.
    fn begin(&mut self, service: usize) {
        if self.current[service].is_none() {
            self.handles[service] = Handle::None;
            let attempt = match poll_once(self.providers[service].begin()) {
                Poll::Ready(Ok(attempt)) => attempt,
                _ => panic!("{service} is down, but no attempt begins"),
            };
            self.handles[service] = Handle::Attempt(attempt);
            self.received.retain(|edge| edge.0 != service);
            self.attempts += 1;
            self.current[service] = Some(self.attempts);
        }
    }

    /// Updates the edges after a request for `a -> b`, which the registry may have refused.
    fn added(&mut self, a: usize, b: usize, source: EdgeSource, refused: Option<CycleError>) {
        if let Some(known) = self.edges.get_mut(&(a, b)) {
            assert!(refused.is_none(), "the existing edge {a} -> {b} was refused");
            *known = known.and(source);
            return;
        }
        let services = self.ids.len();
        let live: BTreeMap<_, _> = self
            .edges
            .iter()
            .filter(|&(&edge, &source)| !self.is_dead(edge, source))
            .map(|(&edge, &source)| (edge, source))
            .collect();
        let closes = graph_of(services, &live).depends_on(b, a);
        assert_eq!(
            closes,
            refused.is_some(),
            "whether {a} -> {b} closes a cycle, and whether it was refused"
        );
        self.adopt_dropped_edges(a, b);
        match refused {
            Some(cycle) => graph_of(services, &live).check_cycle(&cycle, a, b),
            None => {
                let still = graph_of(services, &self.edges).depends_on(b, a);
                assert!(!still, "{a} -> {b} was accepted, and closes a cycle");
                self.edges.insert((a, b), source);
            }
        }
    }

    /// Whether an edge is dead: the attempt that used it last can no longer be published.
    fn is_dead(&self, (dependent, _): (usize, usize), source: EdgeSource) -> bool {
        source.is_some() && source != self.current[dependent]
    }

    /// Removes the dead edges on the paths from `b` to `a` that the registry has removed to accept
    /// `a -> b`.
    fn adopt_dropped_edges(&mut self, a: usize, b: usize) {
        let listed: BTreeSet<(usize, usize)> = self.listed().into_keys().collect();
        let before = self.edges.clone();
        for (&edge, &source) in before.iter().filter(|&(edge, _)| !listed.contains(edge)) {
            let all = graph_of(self.ids.len(), &before);
            let is_on_path = all.depends_on(b, edge.0) && all.depends_on(edge.1, a);
            assert!(
                is_on_path && self.is_dead(edge, source),
                "{edge:?} was removed for {a} -> {b}"
            );
            self.edges.remove(&edge);
        }
    }

    /// Returns the edges that the registry lists, and whether each is declared.
    fn listed(&self) -> BTreeMap<(usize, usize), bool> {
        let index = |name: &str| name.parse::<usize>().expect("all names are numbers");
        let mut edges = BTreeMap::new();
        for (dependent, status) in self.registry.list().services.iter().enumerate() {
            for edge in &status.dependencies {
                let known = edges.insert((dependent, index(&edge.name)), edge.declared);
                assert_eq!(known, None, "each edge must be listed once");
            }
        }
        edges
    }

    fn check_edges(&self, after: Step) {
        let expected: BTreeMap<(usize, usize), bool> =
            self.edges.iter().map(|(&edge, source)| (edge, source.is_none())).collect();
        assert_eq!(expected, self.listed(), "edges after {after:?}");
    }

    /// Fails a service, and checks which services fail with it.
    fn fail(&mut self, root: usize) {
        let before = self.registry.list();
        let cascade =
            self.registry.fail(self.ids[root], "reason").expect("the id is of this registry");
        let after = self.registry.list();

        let mut expected = graph_of(self.ids.len(), &self.edges).closure(root);
        // A service that is down is left alone, also the root.
        expected.retain(|&service| self.current[service].is_some());
        let (mut failed, mut invalidated) = (0, 0);
        for (service, (before, after)) in before.services.iter().zip(&after.services).enumerate() {
            let is_failed = expected.contains(&service);
            let name = &before.name;
            assert_eq!(
                after.generation.get() - before.generation.get(),
                u64::from(is_failed),
                "generations of {name} that the failure of {root} ends"
            );
            assert_eq!(after.phase, if is_failed { Phase::Down } else { before.phase });
            failed += usize::from(is_failed && before.phase == Phase::Ready);
            invalidated += usize::from(is_failed && before.phase == Phase::Starting);
        }
        assert_eq!((cascade.failed, cascade.invalidated), (failed, invalidated));
        expected.into_iter().for_each(|service| self.current[service] = None);
    }
}

/// The edges of a registry as a graph.
struct Edges<'a> {
    services: usize,
    edges: &'a BTreeMap<(usize, usize), EdgeSource>,
}

fn graph_of(services: usize, edges: &BTreeMap<(usize, usize), EdgeSource>) -> Edges<'_> {
    Edges { services, edges }
}

impl Edges<'_> {
    fn with_graph<R>(&self, search: impl FnOnce(NaiveGraph<'_>) -> R) -> R {
        let has_edge = |a: usize, b: usize| self.edges.contains_key(&(a, b));
        search(NaiveGraph { services: self.services, has_edge: &has_edge })
    }

    fn depends_on(&self, service: usize, other: usize) -> bool {
        self.with_graph(|graph| graph.depends_on(service, other))
    }

    fn closure(&self, root: usize) -> BTreeSet<usize> {
        self.with_graph(|graph| graph.closure(root))
    }

    fn check_cycle(&self, cycle: &CycleError, a: usize, b: usize) {
        let index = |name: &mainstay::ServiceName| name.parse().expect("all names are numbers");
        let path: Vec<usize> = cycle.path.iter().map(index).collect();
        self.with_graph(|graph| graph.check_cycle(&path, a, b));
    }
}
