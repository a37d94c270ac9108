//! The services of a scenario, and the invariants that must hold.

use std::{
    collections::BTreeSet,
    ops::Deref,
    // Not those of shuttle: the checks are no steps of the scenario.
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use mainstay::{
    AnyId, FailOutcome, Guard, Instance, Phase, Registry, RegistryBuilder, ServiceId,
    error::{CycleError, GetError},
};

use crate::Random;

/// A service.
pub type Id = ServiceId<Value>;

/// The value of every service.
#[derive(Debug)]
pub struct Value {
    pub service: usize,
    /// Increases with each new value.
    pub version: u64,
    /// The switch that makes it current, by its position, or that has made an earlier value
    /// current that it replaces.
    pub switch: Option<usize>,
    /// The services that the value was built from, directly or not, with their generations. Two
    /// generations of one service would be an inconsistent value.
    built_from: BTreeSet<(usize, u64)>,
    /// Those of them whose new instances it adopts after a switch.
    adopts: BTreeSet<usize>,
    /// Counts the values that have not been dropped.
    _alive: Arc<()>,
}

impl Value {
    /// Records that the value is built from `from`, too.
    pub fn add(&mut self, from: &Instance<Value>) {
        self.built_from.insert((from.service, Instance::generation(from).get()));
        self.built_from.extend(&from.built_from);
    }

    /// Records that the value is built from `from`, too, and adopts what replaces it. What that one
    /// depends on is not recorded: the next one may depend on something else.
    pub fn add_adopted(&mut self, from: &Instance<Value>) {
        self.built_from.insert((from.service, Instance::generation(from).get()));
        self.adopts.insert(from.service);
    }
}

/// The size and density of a random graph of services.
#[derive(Debug, Clone, Copy)]
pub struct GraphShape {
    /// The minimum and the maximum number of services; small numbers are more likely.
    pub services: (usize, usize),
    /// The maximum number of dependencies of a service.
    pub dependencies: usize,
    /// The chance in 100 that an edge is declared at the start.
    pub declared: usize,
}

/// An instance of a service. A later one is greater.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Observed {
    pub generation: u64,
    pub revision: u64,
}

impl Observed {
    pub fn of<T>(instance: &Instance<T>) -> Self {
        let generation = Instance::generation(instance).get();
        Self { generation, revision: Instance::revision(instance) }
    }

    /// The first one that may follow the end of a generation.
    fn after(generation: u64) -> Self {
        Self { generation: generation + 1, revision: 0 }
    }
}

/// What the threads have observed of a service.
#[derive(Debug, Default, Clone, Copy)]
struct Seen {
    /// The newest instance.
    newest: Observed,
    /// The newest generation in which it was ready.
    ready: Option<u64>,
    /// The newest instance of which it is known that a switch has made it current.
    switched: Observed,
}

/// A switch of several services.
#[derive(Debug, Default)]
struct Switch {
    /// Each with its new instance.
    members: Vec<(usize, Observed)>,
    /// The services that it takes down, each with a generation that must end.
    gaps: Vec<(usize, u64)>,
    /// The services that may keep old instances of members, each with that member, and with its own
    /// generation.
    adopters: BTreeSet<(usize, usize, u64)>,
    is_committed: Option<bool>,
}

/// The services, and what the threads have observed of them.
pub struct World {
    pub registry: Registry,
    pub ids: Vec<Id>,
    /// For each service, the services that it may be built from. These have lower numbers.
    pub dependencies: Vec<Vec<usize>>,
    /// (dependent, dependency): the edges that are declared at the start.
    declared: BTreeSet<(usize, usize)>,
    seen: Mutex<Vec<Seen>>,
    switches: Mutex<Vec<Switch>>,
    /// (dependent, dependency): every edge that a thread has requested.
    requested: Mutex<BTreeSet<(usize, usize)>>,
    /// (service, generation): every instance that `fail_instance` has failed.
    reported: Mutex<BTreeSet<(usize, u64)>>,
    versions: AtomicU64,
    alive: Arc<()>,
}

impl World {
    pub fn new(shape: &GraphShape, random: &mut Random) -> Arc<Self> {
        Self::with_builder(shape, random, |builder| builder)
    }

    /// As `new`, with a function that configures the registry.
    pub fn with_builder(
        shape: &GraphShape,
        random: &mut Random,
        configure: impl FnOnce(RegistryBuilder) -> RegistryBuilder,
    ) -> Arc<Self> {
        let (least, most) = shape.services;
        let more = most - least + 1;
        let services = least + random.below(more) * random.below(more) / more;
        let mut builder = Registry::builder(services).expect("the number is small");
        let ids: Vec<Id> = (0..services)
            .map(|n| builder.register(&n.to_string()).expect("capacity for all"))
            .collect();
        let mut requested = BTreeSet::new();
        let mut dependencies = vec![vec![]];
        for service in 1..services {
            let mine = (0..random.below(shape.dependencies + 1)).map(|_| match random.below(2) {
                // A close one, which results in long chains; or any one, which results in wide
                // fans.
                0 => service - 1 - random.below(service.min(3)),
                _ => random.below(service),
            });
            let mine: BTreeSet<usize> = mine.collect();
            for &dependency in &mine {
                if random.chance(shape.declared) {
                    requested.insert((service, dependency));
                    builder.depends(ids[service]).on(ids[dependency]).expect("no cycle");
                }
            }
            dependencies.push(mine.into_iter().collect());
        }
        Arc::new(Self {
            registry: configure(builder).build(),
            seen: Mutex::new(vec![Seen::default(); services]),
            switches: Mutex::default(),
            ids,
            dependencies,
            declared: requested.clone(),
            requested: Mutex::new(requested),
            reported: Mutex::default(),
            versions: AtomicU64::new(1),
            alive: Arc::default(),
        })
    }

    pub fn count(&self) -> usize {
        self.ids.len()
    }

    /// A random service. Lower numbers, on which most others depend, are more likely.
    pub fn any_service(&self, random: &mut Random) -> usize {
        let limit = 1 + random.below(self.count());
        random.below(limit)
    }

    /// The service, and the services that depend on it by edges that are declared at the start,
    /// directly or not.
    pub fn declared_closure(&self, root: usize) -> BTreeSet<usize> {
        let mut closure = BTreeSet::from([root]);
        // A dependent has a higher number, so that one pass finds all.
        for &(dependent, dependency) in &self.declared {
            if closure.contains(&dependency) {
                closure.insert(dependent);
            }
        }
        closure
    }

    /// A new value that was built from nothing yet.
    pub fn value(&self, service: usize) -> Value {
        self.new_value(service, None)
    }

    /// A new value that replaces `of`: it was built from the same instances.
    pub fn successor(&self, of: &Value) -> Value {
        let (built_from, adopts) = (of.built_from.clone(), of.adopts.clone());
        Value { built_from, adopts, ..self.new_value(of.service, of.switch) }
    }

    fn new_value(&self, service: usize, switch: Option<usize>) -> Value {
        let version = self.versions.fetch_add(1, Ordering::Relaxed);
        let (built_from, adopts) = (BTreeSet::new(), BTreeSet::new());
        Value { service, version, switch, built_from, adopts, _alive: Arc::clone(&self.alive) }
    }

    // Observing.

    /// Records that a thread has seen the service in this generation.
    pub fn record_generation(&self, service: usize, generation: u64) {
        let newest = &mut lock(&self.seen)[service].newest;
        *newest = Observed { generation, revision: 0 }.max(*newest);
    }

    fn record(&self, service: usize, now: Observed) {
        let Seen { newest, ready, .. } = &mut lock(&self.seen)[service];
        *newest = now.max(*newest);
        *ready = (*ready).max(Some(now.generation));
    }

    // Switching.

    /// Records that a switch is prepared. Returns its position, which its values need.
    pub fn begin_switch(&self) -> usize {
        let mut switches = lock(&self.switches);
        switches.push(Switch::default());
        switches.len() - 1
    }

    /// A new value of a switch that was built from nothing yet.
    pub fn value_of_switch(&self, service: usize, switch: usize) -> Value {
        self.new_value(service, Some(switch))
    }

    /// Records the new instance of a member.
    pub fn add_member(&self, switch: usize, service: usize, new: Observed) {
        lock(&self.switches)[switch].members.push((service, new));
    }

    /// Records a service that a switch takes down, and the generation in which it was ready.
    pub fn add_gap(&self, switch: usize, service: usize, generation: u64) {
        lock(&self.switches)[switch].gaps.push((service, generation));
    }

    /// Records a service that may keep the old instance of a member in this generation.
    pub fn add_adopter(&self, switch: usize, service: usize, member: usize, generation: u64) {
        lock(&self.switches)[switch].adopters.insert((service, member, generation));
    }

    /// Whether a service of this generation may keep the instance `from` of a member after all
    /// switches up to the one that has made `to` current.
    fn may_keep(
        &self,
        (adopter, generation): (usize, u64),
        member: usize,
        from: Observed,
        to: Observed,
    ) -> bool {
        let switches = lock(&self.switches);
        let mut committed = switches.iter().filter(|switch| switch.is_committed == Some(true));
        committed.all(|Switch { members, adopters, .. }| {
            let of_these = |&(it, new): &(usize, Observed)| it == member && from < new && new <= to;
            !members.iter().any(of_these) || adopters.contains(&(adopter, member, generation))
        })
    }

    /// Records how a switch has ended.
    pub fn end_switch(&self, switch: usize, is_committed: bool) {
        self.record_switch(switch, is_committed);
    }

    fn record_switch(&self, switch: usize, is_committed: bool) {
        let Switch { members, gaps, is_committed: known, .. } = &mut lock(&self.switches)[switch];
        assert_eq!(
            *known.get_or_insert(is_committed),
            is_committed,
            "R3: of a switch that is not committed: {members:?}"
        );
        if is_committed {
            let mut seen = lock(&self.seen);
            for &(member, new) in &*members {
                let Seen { newest, switched, .. } = &mut seen[member];
                *newest = new.max(*newest);
                *switched = new.max(*switched);
            }
            for &(service, generation) in &*gaps {
                let newest = &mut seen[service].newest;
                *newest = Observed::after(generation).max(*newest);
            }
        }
    }

    /// The first instance that a service can have after a switch, if it is a member or has a gap.
    pub fn new_instance(&self, switch: Option<usize>, service: usize) -> Option<Observed> {
        let switches = lock(&self.switches);
        let Switch { members, gaps, .. } = &switches[switch?];
        let of_member = members.iter().find(|(member, _)| *member == service).map(|&(_, new)| new);
        let gap = gaps.iter().find(|(gap, _)| *gap == service);
        of_member.or(gap.map(|&(_, generation)| Observed::after(generation)))
    }

    /// The position of a service.
    fn position(&self, id: AnyId) -> usize {
        self.ids.iter().position(|&of| id == of.into()).expect("of this registry")
    }

    /// Everything that any thread has seen so far. What is read after this call must not be older.
    pub fn observations(&self) -> Observations<'_> {
        Observations { world: self, seen: lock(&self.seen).clone() }
    }

    /// Reads a service, and checks the instance.
    pub fn read(&self, service: usize) -> Option<Arc<Instance<Value>>> {
        let before = self.observations();
        before.check_read(service, self.registry.get_arc(self.ids[service]))
    }

    /// Reads a service, and returns its generation.
    pub fn read_generation(&self, service: usize) -> u64 {
        let generation = match self.registry.get(self.ids[service]) {
            Ok(guard) => Guard::generation(&guard).get(),
            Err(GetError::NotReady(error)) => error.generation.get(),
            Err(error) => unreachable!("{error}"),
        };
        self.record_generation(service, generation);
        generation
    }

    // Failing.

    /// Fails a service, or the instance that was read, and checks that it has failed.
    pub fn fail(&self, service: usize, random: &mut Random) {
        let before = self.read(service);
        let assert_failed = |generation: u64| {
            let now = self.read_generation(service);
            assert!(now > generation, "{service} has failed in {generation}, but is in {now}");
        };
        match before {
            Some(instance) if random.chance(50) => {
                let generation = Instance::generation(&instance).get();
                match self
                    .registry
                    .fail_instance(&instance, "reported")
                    .expect("the id is of this registry")
                {
                    FailOutcome::Failed(_) => {
                        assert_failed(generation);
                        let first = lock(&self.reported).insert((service, generation));
                        assert!(first, "two reports have failed {service} in {generation}");
                    }
                    FailOutcome::Replaced | FailOutcome::AlreadyFailed => {}
                }
            }
            before => {
                self.registry
                    .fail(self.ids[service], "failed")
                    .expect("the id is of this registry");
                if let Some(instance) = before {
                    assert_failed(Instance::generation(&instance).get());
                }
            }
        }
    }

    // Edges.

    /// Records that a thread is about to add this edge.
    pub fn request_edge(&self, dependent: usize, dependency: usize) {
        lock(&self.requested).insert((dependent, dependency));
    }

    /// Checks the error of a refused edge: the cycle begins with this edge, and all its edges were
    /// requested.
    pub fn check_cycle(&self, cycle: &CycleError, dependent: usize, dependency: usize) {
        let path: Vec<usize> =
            cycle.path.iter().map(|name| name.parse().expect("names are numbers")).collect();
        let requested = lock(&self.requested);
        assert_eq!(path[..2], [dependent, dependency], "{path:?}");
        assert_eq!(path.first(), path.last(), "{path:?} is not a cycle");
        assert_eq!(path.iter().collect::<BTreeSet<_>>().len(), path.len() - 1, "{path:?}");
        for edge in path.windows(2) {
            assert!(
                requested.contains(&(edge[0], edge[1])),
                "{path:?}: {edge:?} was not requested"
            );
        }
    }

    // The final state.

    /// Checks, after the last failure, that all services become ready and that none was built from
    /// a failed instance (I2).
    pub fn check_recovery(&self) {
        for &id in &self.ids {
            self.registry.wait_ready(id).wait_blocking().expect("the registry is not closed");
        }
        for service in 0..self.count() {
            let instance = self.read(service).expect("the service was ready, and nothing fails it");
            for &(dependency, generation) in &instance.built_from {
                let now = self.read_generation(dependency);
                assert_eq!(now, generation, "I2: {service} was built from a failed {dependency}");
            }
        }
        for status in self.registry.list().services {
            assert_eq!((status.phase, status.waiters), (Phase::Ready, 0), "{}", status.name);
        }
    }

    /// Checks, after the registry was closed and all threads have ended, that every value was
    /// dropped.
    pub fn check_closed(self: Arc<Self>) {
        assert!(self.registry.is_closed());
        for service in 0..self.count() {
            assert!(self.read(service).is_none(), "{service} has no provider, but is ready");
        }
        let world = Arc::into_inner(self).expect("all threads have ended");
        let alive = Arc::clone(&world.alive);
        drop(world);
        assert_eq!(Arc::strong_count(&alive), 1, "a value was not dropped");
    }
}

/// What the threads had seen at some point in time.
pub struct Observations<'w> {
    world: &'w World,
    seen: Vec<Seen>,
}

impl Observations<'_> {
    /// Checks the result of a read of this service that began after that point in time.
    pub fn check_read<I: Deref<Target = Instance<Value>>>(
        &self,
        service: usize,
        read: Result<I, GetError>,
    ) -> Option<I> {
        match read {
            Ok(instance) => {
                assert_eq!(instance.service, service, "the value of another service");
                self.check(&instance);
                Some(instance)
            }
            Err(GetError::NotReady(error)) => {
                let (now, ready) = (error.generation.get(), self.seen[service].ready);
                assert!(
                    ready < Some(now),
                    "R2: {service} was ready in {ready:?}, and is not in {now}"
                );
                self.world.record_generation(service, now);
                None
            }
            Err(error) => unreachable!("{error}"),
        }
    }

    /// Checks instances that were all read at one instant after that point in time.
    pub fn check_together(&self, instances: &[&Instance<Value>]) {
        for instance in instances {
            self.check(instance);
            for other in instances {
                let now = Instance::generation(other).get();
                for &(dependency, generation) in &instance.built_from {
                    assert!(
                        dependency != other.service || generation == now,
                        "{} was built from {dependency} in {generation}, which is in {now}",
                        instance.service
                    );
                }
                let (at, now) = (other.service, Observed::of(other));
                if let Some(new) = self.world.new_instance(instance.switch, at) {
                    assert!(
                        now >= new,
                        "R3: {} is new, and {at} is old: {now:?}, not {new:?}",
                        instance.service
                    );
                }
            }
        }
    }

    /// Checks an instance that was read after that point in time.
    pub fn check(&self, instance: &Instance<Value>) {
        let (service, now) = (instance.service, Observed::of(instance));
        let seen = self.seen[service].newest;
        assert!(now >= seen, "R1: {service} goes back from {seen:?} to {now:?}");
        self.world.record(service, now);
        if let Some(switch) = instance.switch {
            self.world.record_switch(switch, true);
        }
        for from in Instance::built_from(instance) {
            let (dependency, generation) =
                (self.world.position(from.service), from.generation.get());
            let (from, new) =
                (Observed { generation, revision: from.revision }, self.seen[dependency].switched);
            let adopter = (service, now.generation);
            assert!(
                generation != new.generation
                    || from >= new
                    || instance.adopts.contains(&dependency)
                        && self.world.may_keep(adopter, dependency, from, new),
                "I2: {service} was built from {dependency} in {from:?}, now switched to {new:?}"
            );
        }
        let mut last = None;
        for &(dependency, generation) in &instance.built_from {
            let seen = self.seen[dependency].newest.generation;
            assert!(
                generation >= seen,
                "I1: {service} was built from {dependency} in {generation}, seen in {seen}"
            );
            assert_ne!(
                last,
                Some(dependency),
                "{service} was built from two instances of {dependency}"
            );
            last = Some(dependency);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
