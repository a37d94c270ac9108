//! Random changes of edges, compared with a plain set of edges after each step: the edges, their
//! sources, the order, the lists of dependents, the places in them, the cycles, and the precomputed
//! closures.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use fastrand::Rng;

use super::{
    CyclePath, Declaration, DependencyKind, Edge, EdgeSource, Entry, NotDeclared, Role, Slots,
    Topology,
};
use crate::{
    numbers::{Generation, ServiceIndex},
    store::{precomputed::ClosureCell, slot::Slot, state::Tag, walk::Walk},
    sync::{Budget, Count, pin},
};

/// A topology with its slots, and a model of both.
pub(super) struct World {
    pub(super) topology: Topology,
    slots: Vec<(Slot, Count, ClosureCell)>,
    role: Role,
    budget: Arc<Budget>,
    edges: BTreeMap<(u32, u32, bool), EdgeSource>,
}

impl Slots for World {
    fn slot(&self, service: ServiceIndex) -> &Slot {
        &self.slots[service.as_usize()].0
    }

    fn discovered(&self, service: ServiceIndex) -> &Count {
        &self.slots[service.as_usize()].1
    }

    fn closure(&self, service: ServiceIndex) -> &ClosureCell {
        &self.slots[service.as_usize()].2
    }

    fn role(&self, _: ServiceIndex) -> &Role {
        &self.role
    }

    fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }
}

pub(super) fn index(service: u32) -> ServiceIndex {
    ServiceIndex::new(service)
}

pub(super) fn edge((dependent, dependency, soft): (u32, u32, bool)) -> Edge {
    Edge { dependent: index(dependent), dependency: index(dependency), soft }
}

impl World {
    pub(super) fn new(services: u32) -> Self {
        let world = Self::unbuilt(services);
        world.topology.build(&world);
        world
    }

    fn unbuilt(services: u32) -> Self {
        let topology = Topology::new();
        let slots = (0..services)
            .map(|service| {
                assert_eq!(topology.add_service(), index(service));
                (Slot::new(index(service)), Count::new(), ClosureCell::new())
            })
            .collect();
        let (role, budget) = (Role::new(), super::budget(0));
        Self { topology, slots, role, budget, edges: BTreeMap::new() }
    }

    fn services(&self) -> u32 {
        self.slots.len() as u32
    }

    /// Begins an attempt in the next generation, as after a failure.
    fn restart(&self, service: u32) {
        let state = &self.slot(index(service)).state;
        let before = state.load();
        let next = Tag::starting(before.generation().next());
        assert!(state.transition(before, next).is_ok(), "no other thread changes the state");
    }

    fn generation(&self, service: u32) -> Generation {
        self.slot(index(service)).state.load().generation()
    }

    /// Whether only attempts have used the edge that can no longer be published.
    fn is_dead(&self, (dependent, ..): (u32, u32, bool), source: EdgeSource) -> bool {
        match source {
            EdgeSource::Declared
            | EdgeSource::DeclaredToStart { .. }
            | EdgeSource::Undecided { .. } => false,
            EdgeSource::Discovered { attempt, .. } => {
                attempt.is_none_or(|attempt| attempt < self.generation(dependent))
            }
        }
    }

    /// The number of edges of the shortest path over edges that are not dead.
    fn distance(&self, from: u32, to: u32) -> Option<usize> {
        let (mut queue, mut visited) = (VecDeque::from([(from, 0)]), BTreeSet::new());
        while let Some((service, steps)) = queue.pop_front() {
            if service == to {
                return Some(steps);
            }
            if visited.insert(service) {
                let edges = self.edges.range((service, 0, false)..(service + 1, 0, false));
                let live = edges.filter(|&(&edge, &source)| !self.is_dead(edge, source));
                queue.extend(live.map(|(&(_, dependency, _), _)| (dependency, steps + 1)));
            }
        }
        None
    }

    /// Adds an edge, declared or used by the present attempt of its dependent.
    fn add(&mut self, key: (u32, u32, bool), source: EdgeSource) {
        let (dependent, dependency, _) = key;
        let distance = self.distance(dependency, dependent);
        let is_new = !self.edges.contains_key(&key);
        let generation = self.generation(dependent);
        let result = match source {
            EdgeSource::Declared if key.2 => self.declare(key, DependencyKind::Soft),
            EdgeSource::Declared => self.declare(key, DependencyKind::Hard),
            EdgeSource::DeclaredToStart { .. } => self.declare(key, DependencyKind::StartOnly),
            EdgeSource::Discovered { start_only, .. } => self
                .topology
                .discover(self, edge(key), Tag::starting(generation), start_only)
                .map(|_| ()),
            EdgeSource::Undecided { .. } => unreachable!("there is no switch"),
        };
        match result {
            Ok(()) => {
                // A soft declaration beside a harder one adds nothing.
                let other = self.edges.get(&(dependent, dependency, !key.2)).copied();
                let is_declared = source.is_declared();
                if key.2 && is_declared && other.is_some_and(EdgeSource::is_declared) {
                    return;
                }
                assert!(!is_new || distance.is_none(), "{key:?} closes a cycle");
                if !key.2 && is_declared && other == Some(EdgeSource::Declared) {
                    self.edges.remove(&(dependent, dependency, true));
                }
                self.adopt_dropped_edges();
                let before = self.edges.get(&key).copied();
                let is_dead = before.is_some_and(|before| self.is_dead(key, before));
                self.edges.insert(key, merged(before, source, is_dead));
            }
            Err(cycle) => {
                let cycle: Vec<u32> = cycle.into_iter().map(ServiceIndex::get).collect();
                assert_eq!(cycle.first(), Some(&dependent));
                assert_eq!(cycle.get(1), Some(&dependency));
                assert_eq!(cycle.last(), Some(&dependent));
                assert_eq!(Some(cycle.len() - 2), distance, "{cycle:?} must be the shortest cycle");
                for pair in cycle[1..].windows(2) {
                    let both = [false, true].map(|soft| (pair[0], pair[1], soft));
                    assert!(both.iter().any(|key| self.edges.contains_key(key)), "{pair:?}");
                }
            }
        }
    }

    fn declare(&self, key: (u32, u32, bool), kind: DependencyKind) -> Result<(), CyclePath> {
        let Edge { dependent, dependency, .. } = edge(key);
        let declaration = Declaration { dependent, dependency, kind, grace: None };
        let declared = self.topology.declare(self, declaration).map(drop);
        declared.map_err(|refused| match refused {
            NotDeclared::Cycle(path) => path,
            NotDeclared::Unsupervised => unreachable!("there is no grace period"),
            NotDeclared::Constant => unreachable!("there is no constant"),
        })
    }

    /// Removes the dead edges that the topology has removed in favour of a new one.
    fn adopt_dropped_edges(&mut self) {
        let graph = self.topology.graph.lock().expect("no test panics under the lock");
        let dropped: Vec<_> = (self.edges.iter())
            .filter(|&(&key, _)| graph.find(edge(key)).is_none())
            .map(|(&key, &source)| (key, source))
            .collect();
        drop(graph);
        for (key, source) in dropped {
            assert!(self.is_dead(key, source), "{key:?} was removed, and is not dead");
            self.edges.remove(&key);
        }
    }

    fn release(&mut self, dependent: u32) {
        let generation = self.generation(dependent);
        self.topology.release(index(dependent), generation);
        for (_, source) in self.edges.range_mut((dependent, 0, false)..(dependent + 1, 0, false)) {
            if let EdgeSource::Discovered { attempt, .. } = source {
                *attempt = attempt.filter(|&attempt| attempt != generation);
            }
        }
    }

    /// Drops unused edges, of an attempt that took no instance over edges to `untaken`.
    fn drop_unused(&mut self, dependent: u32, untaken: u32) {
        let generation = self.generation(dependent);
        let took = |edge: Edge| edge.dependency != index(untaken);
        self.topology.drop_unused_edges(self, index(dependent), generation, took);
        self.edges.retain(|&(from, to, soft), source| match source {
            EdgeSource::Discovered { attempt, start_only } if from == dependent => {
                let used = attempt.is_some_and(|attempt| attempt >= generation);
                used && !*start_only && (soft || to != untaken)
            }
            EdgeSource::DeclaredToStart { hard } if from == dependent => {
                *hard = hard.filter(|&attempt| attempt >= generation && to != untaken);
                true
            }
            _ => true,
        });
        let left = self.edges.range((dependent, 0, false)..(dependent + 1, 0, false));
        let left = left.filter(|(_, source)| source.is_discovered()).count();
        assert_eq!(self.discovered(index(dependent)).get() as usize, left);
    }

    /// Compares everything with the model.
    fn check(&self) {
        let graph = self.topology.graph.lock().expect("no test panics under the lock");
        let mut found = BTreeMap::new();
        for service in 0..self.services() {
            let dependencies: Vec<_> = graph.dependencies(index(service)).collect();
            let in_order = |(edge, _): &(Edge, EdgeSource)| (edge.soft, edge.dependency);
            assert!(dependencies.is_sorted_by_key(in_order), "{dependencies:?}");
            for (edge, source) in dependencies {
                assert_eq!(edge.dependent, index(service));
                assert!(
                    graph.rank(edge.dependency) < graph.rank(edge.dependent),
                    "{edge:?} contradicts the order"
                );
                found.insert((service, edge.dependency.get(), edge.soft), source);
            }
        }
        assert_eq!(found, self.edges);

        let pin = pin();
        for service in 0..self.services() {
            let to_service = |key: &&(u32, u32, bool)| key.1 == service;
            let mut expected: Vec<Edge> =
                self.edges.keys().filter(to_service).map(|&key| edge(key)).collect();
            expected.sort_by_key(|edge| (edge.soft, edge.dependent));
            let dependents: Vec<Edge> = graph.dependents(index(service)).collect();
            assert_eq!(dependents, expected, "dependents of {service}");

            let list = self.slot(index(service)).dependents();
            let mut listed: Vec<Entry> = list.iter(&pin).collect();
            let mut entries = Vec::new();
            for (&(dependent, ..), source) in
                self.edges.iter().filter(|(key, _)| key.1 == service && !key.2)
            {
                let unless_ready = *source == EdgeSource::DeclaredToStart { hard: None };
                let entry = Entry { dependent: index(dependent), unless_ready };
                assert_eq!(
                    graph
                        .place(edge((dependent, service, false)))
                        .and_then(|place| list.entry_at(place, &pin)),
                    Some(entry),
                    "the place of {dependent} -> {service}"
                );
                entries.push(entry);
            }
            listed.sort_unstable_by_key(|entry| entry.dependent);
            assert_eq!(listed, entries, "the list of {service}");
            assert!(list.is_dense(&pin), "the list of {service}");
            let version = list.version();
            assert!(entries.is_empty() || version > 0, "{service} has had a dependent");
        }
    }
}

impl World {
    /// The services that depend on a service over edges that a cascade follows, and itself.
    fn closure_in_model(&self, service: u32) -> BTreeSet<u32> {
        let mut dependents: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for &(dependent, dependency, _) in self.edges.keys().filter(|key| !key.2) {
            dependents.entry(dependency).or_default().push(dependent);
        }
        let (mut closure, mut reached) = (BTreeSet::new(), vec![service]);
        while let Some(service) = reached.pop() {
            if closure.insert(service) {
                reached.extend(dependents.get(&service).into_iter().flatten());
            }
        }
        closure
    }

    /// Compares the precomputed closures with the model. Returns how many were found.
    fn check_closures(&self) -> usize {
        let (pin, mut found) = (pin(), 0);
        for service in 0..self.services() {
            let cell = self.closure(index(service));
            if !cell.is_valid() {
                assert!(cell.load(&pin).is_none());
                continue;
            }
            for &(dependent, dependency, soft) in self.edges.keys() {
                assert!(
                    soft || dependency != service || self.closure(index(dependent)).is_valid(),
                    "{service} has a valid closure, its dependent {dependent} has none"
                );
            }
            let Some((_, closure)) = cell.load(&pin) else { continue };
            found += 1;
            let mut members = Vec::new();
            closure.for_each(|member| members.push(member.get()));
            assert_eq!(members.len(), closure.len());
            let set: BTreeSet<u32> = members.iter().copied().collect();
            assert_eq!(set, self.closure_in_model(service), "the closure of {service}");
            assert_eq!(set.len(), members.len(), "each member once");
            let place: BTreeMap<u32, usize> = members.iter().copied().zip(0..).collect();
            for (&(dependent, dependency, soft), source) in &self.edges {
                let unless_ready = *source == EdgeSource::DeclaredToStart { hard: None };
                assert!(
                    !unless_ready || !place.contains_key(&dependency),
                    "the closure of {service} depends on the phase of {dependent}"
                );
                if let (false, Some(first), Some(second)) =
                    (soft, place.get(&dependency), place.get(&dependent))
                {
                    assert!(first < second, "{dependent} comes before {dependency}");
                }
            }
        }
        found
    }

    fn walk_and_keep(&self, root: u32) {
        let walk = Walk::new(self, &[index(root)], |_| None, &pin()).expect("one thread");
        if !walk.is_conditional() {
            self.topology.keep_walk(self, index(root), &walk.members);
        }
    }
}

/// The source of an edge after one more use.
fn merged(before: Option<EdgeSource>, now: EdgeSource, was_dead: bool) -> EdgeSource {
    use EdgeSource::{Declared, DeclaredToStart, Discovered};
    match (before, now) {
        (Some(Declared), _) | (_, Declared) => Declared,
        // Made hard by the attempt, unless a later one has done so.
        (Some(DeclaredToStart { hard }), Discovered { attempt, start_only: false }) => {
            DeclaredToStart { hard: hard.max(attempt) }
        }
        (Some(DeclaredToStart { hard }), _) => DeclaredToStart { hard },
        (Some(Discovered { attempt, start_only: false }), DeclaredToStart { .. }) if !was_dead => {
            DeclaredToStart { hard: attempt }
        }
        // The same attempt has used it before: it is start-only if both uses are.
        (Some(Discovered { attempt: before, start_only: false }), Discovered { attempt, .. })
            if before == attempt =>
        {
            Discovered { attempt, start_only: false }
        }
        _ => now,
    }
}

#[test]
fn random_changes_agree_with_a_plain_set_of_edges() {
    for seed in 0..24 {
        let mut rng = Rng::with_seed(seed);
        // Few services for many cycles; many for hubs whose links are a map.
        let services = if seed % 4 == 0 { 200 } else { rng.u32(2..20) };
        let hub = rng.u32(..services);
        let mut world = World::new(services);
        for service in 0..services {
            world.restart(service);
        }
        for _ in 0..800 {
            let mut service = || if rng.u8(..4) == 0 { hub } else { rng.u32(..services) };
            let key = (service(), service(), rng.u8(..5) == 0);
            match rng.u8(..20) {
                0 if rng.bool() => world.add(key, EdgeSource::Declared),
                // A soft edge is not start-only.
                0 => world.add((key.0, key.1, false), EdgeSource::DeclaredToStart { hard: None }),
                1..=12 => {
                    let attempt = Some(world.generation(key.0));
                    let start_only = !key.2 && rng.u8(..3) == 0;
                    world.add(key, EdgeSource::Discovered { attempt, start_only });
                }
                13 => world.release(key.0),
                14 => world.restart(key.0),
                // Half of all services drop their edges, so that lists become sparse.
                15 if rng.u8(..8) == 0 => {
                    for dependent in (0..services).filter(|_| rng.bool()) {
                        world.restart(dependent);
                        world.drop_unused(dependent, key.1);
                    }
                }
                15 => {}
                _ => world.drop_unused(key.0, key.1),
            }
            match rng.u8(..8) {
                0..=2 => world.topology.compute_closures(&world),
                3 if rng.bool() => world.topology.build(&world),
                3 => world.walk_and_keep(key.0),
                _ => {}
            }
            if services < 100 || rng.u8(..20) == 0 {
                world.check();
                world.check_closures();
            }
        }
        world.check();
        world.topology.build(&world);
        for service in 0..services {
            assert!(world.closure(index(service)).is_valid());
        }
        assert!(world.check_closures() > 0);
    }
}

#[test]
fn edges_that_were_declared_before_are_listed_when_the_registry_is_built() {
    for seed in 0..40 {
        let mut rng = Rng::with_seed(seed);
        // Above 1,024, closures are not computed ahead.
        let services = if seed % 8 == 0 { 1_100 } else { rng.u32(2..60) };
        let mut world = World::unbuilt(services);
        for _ in 0..services {
            let service = |rng: &mut Rng| rng.u32(..services.min(30));
            let key = (service(&mut rng), service(&mut rng), rng.u8(..5) == 0);
            match rng.u8(..5) {
                0 => world.add((key.0, key.1, false), EdgeSource::DeclaredToStart { hard: None }),
                _ => world.add(key, EdgeSource::Declared),
            }
        }
        let pin = pin();
        for service in 0..services {
            let dependents = world.slot(index(service)).dependents();
            assert!(dependents.version() == 0 && dependents.iter(&pin).next().is_none());
        }
        world.topology.build(&world);
        world.check();
        world.check_closures();
        let has_dependents = |service| world.edges.keys().any(|key| key.1 == service && !key.2);
        for service in 0..services {
            let is_valid = world.closure(index(service)).is_valid();
            assert_eq!(is_valid, services <= 1_024 || !has_dependents(service), "{service}");
        }
    }
}

#[test]
fn closures_of_a_large_registry_are_kept_after_a_walk() {
    let mut rng = Rng::with_seed(7);
    let services = 1_100;
    let mut world = World::new(services);
    let mut kept = 0;
    for round in 0..1_500 {
        let dependent = rng.u32(1..services);
        let dependency = dependent - rng.u32(1..=dependent.min(40));
        world.restart(dependent);
        let attempt = Some(world.generation(dependent));
        let used = EdgeSource::Discovered { attempt, start_only: rng.bool() };
        world.add((dependent, dependency, rng.u8(..5) == 0), used);
        if rng.u8(..6) == 0 {
            world.drop_unused(dependent, dependency);
        }
        world.topology.compute_closures(&world);
        if rng.u8(..4) == 0 {
            world.walk_and_keep(dependency);
        }
        if round % 60 == 0 {
            kept = kept.max(world.check_closures());
        }
    }
    assert!(kept > 10, "{kept}");
}

#[test]
fn a_walk_is_not_kept_if_an_edge_has_changed_since() {
    let mut world = World::new(1_100);
    let is_kept = |world: &World| world.closure(index(0)).load(&pin()).is_some();
    world.add((1, 0, false), EdgeSource::Declared);
    let walk = Walk::new(&world, &[index(0)], |_| None, &pin()).expect("one thread");
    world.add((2, 1, false), EdgeSource::Declared);
    world.topology.keep_walk(&world, index(0), &walk.members);
    assert!(!is_kept(&world), "it was kept, although an edge has changed");
    world.walk_and_keep(0);
    assert!(is_kept(&world));
    assert_eq!(world.check_closures(), 1);
}

#[test]
fn a_start_computes_each_closure_a_bounded_number_of_times() {
    // A chain, dependencies first: each new edge concerns all services.
    let services = 1_000;
    let mut world = World::new(services);
    for service in 1..services {
        world.add((service, service - 1, false), EdgeSource::Declared);
    }
    let computed = |service| world.closure(index(service)).times_computed() as usize;
    let computed: usize = (0..services).map(computed).sum();
    assert!(computed > services as usize, "closures are computed during the start");
    assert!(computed < 10 * services as usize, "{computed} closures for {services} edges");
}

#[test]
fn every_change_of_a_list_changes_its_version() {
    let mut world = World::new(40);
    let version = |world: &World| world.slot(index(0)).dependents().version();
    assert_eq!(version(&world), 0, "the service has never had a dependent");
    let mut before = 0;
    for dependent in 1..40 {
        world.restart(dependent);
        let attempt = Some(world.generation(dependent));
        world.add((dependent, 0, false), EdgeSource::Discovered { attempt, start_only: true });
        assert!(version(&world) > before, "{dependent} was added");
        before = version(&world);
    }
    for dependent in 1..40 {
        world.drop_unused(dependent, dependent);
        assert!(version(&world) > before, "{dependent} was removed");
        before = version(&world);
        world.check();
    }
    world.restart(1);
    let attempt = Some(world.generation(1));
    world.add((1, 0, true), EdgeSource::Discovered { attempt, start_only: false });
    assert_eq!(version(&world), before, "no list contains a soft edge");
}

#[test]
fn an_edge_over_which_no_instance_was_taken_is_dropped() {
    let mut world = World::new(4);
    world.restart(3);
    let attempt = Some(world.generation(3));
    let used = EdgeSource::Discovered { attempt, start_only: false };
    world.add((3, 0, false), EdgeSource::Declared);
    world.add((3, 1, false), used);
    world.add((3, 1, true), used);
    world.add((3, 2, false), used);
    let generation = world.generation(3);
    world
        .topology
        .drop_unused_edges(&world, index(3), generation, |edge| edge.dependency == index(2));
    let left = [(3, 0, false), (3, 1, true), (3, 2, false)];
    world.edges.retain(|key, _| left.contains(key));
    assert_eq!(world.edges.len(), 3);
    world.check();
}

#[test]
fn the_hardest_of_several_declarations_counts_in_any_order() {
    use DependencyKind::{Hard, Soft, StartOnly};
    let harder = |kind: DependencyKind, than: DependencyKind| {
        let rank = |kind| [Soft, StartOnly, Hard].iter().position(|&ranked| ranked == kind);
        if rank(kind) < rank(than) { than } else { kind }
    };
    for (first, second) in [Hard, StartOnly, Soft]
        .into_iter()
        .flat_map(|first| [Hard, StartOnly, Soft].into_iter().map(move |second| (first, second)))
    {
        let world = World::new(2);
        for kind in [first, second] {
            world.declare((1, 0, false), kind).unwrap();
        }
        let graph = world.topology.graph.lock().unwrap();
        let edges: Vec<_> = graph.dependencies(index(1)).collect();
        let expected = match harder(first, second) {
            Hard => (edge((1, 0, false)), EdgeSource::Declared),
            StartOnly => (edge((1, 0, false)), EdgeSource::DeclaredToStart { hard: None }),
            Soft => (edge((1, 0, true)), EdgeSource::Declared),
        };
        assert_eq!(edges, [expected], "{first}, then {second}");
    }
}
