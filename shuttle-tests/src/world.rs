//! The services of a scenario, and what must hold of them.

use std::{
    collections::BTreeSet,
    ops::Deref,
    // Not shuttle's: this is the observer, whose steps are none of the scenario's.
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use mainstay::{Builder, Cycle, GetError, Guard, Instance, Phase, Registry, Report, ServiceId};

use crate::Random;

/// A service.
pub type Id = ServiceId<Built>;

/// The value of every service.
#[derive(Debug)]
pub struct Built {
    pub service: usize,
    /// Grows from value to value.
    pub mark: u64,
    /// The generations of all that it rests on, directly or not. More than one of a service is a mixture.
    on: BTreeSet<(usize, u64)>,
    /// Shows at the end that it was dropped.
    _alive: Arc<()>,
}

impl Built {
    /// It is built from this, too.
    pub fn add(&mut self, from: &Instance<Built>) {
        self.on.insert((from.service, Instance::generation(from)));
        self.on.extend(&from.on);
    }
}

/// How the services hang together.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// At least and at most so many services; rather few than many.
    pub services: (usize, usize),
    /// How many dependencies a service has at the most.
    pub dependencies: usize,
    /// Chance in 100 that an edge is declared beforehand.
    pub declared: usize,
}

/// The newest that anybody has seen of a service.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Seen {
    generation: u64,
    mark: u64,
}

/// The services, and what is known of them.
pub struct World {
    pub registry: Registry,
    pub ids: Vec<Id>,
    /// For each service those that it may be built from, with lower numbers.
    pub below: Vec<Vec<usize>>,
    seen: Mutex<Vec<Seen>>,
    /// Dependent, dependency: every edge that somebody wanted.
    wanted: Mutex<BTreeSet<(usize, usize)>>,
    /// Service, generation: every instance that a report has failed.
    reported: Mutex<BTreeSet<(usize, u64)>>,
    marks: AtomicU64,
    alive: Arc<()>,
}

impl World {
    pub fn new(shape: &Shape, random: &mut Random) -> Arc<Self> {
        Self::of(shape, random, |builder| builder)
    }

    /// As `new`, of a registry with something more than that.
    pub fn of(
        shape: &Shape,
        random: &mut Random,
        with: impl FnOnce(Builder) -> Builder,
    ) -> Arc<Self> {
        let (least, most) = shape.services;
        let more = most - least + 1;
        let services = least + random.below(more) * random.below(more) / more;
        let mut builder = Registry::builder(services).expect("it is small");
        let ids: Vec<Id> = (0..services)
            .map(|n| builder.register(&n.to_string()).expect("room for all"))
            .collect();
        let mut wanted = BTreeSet::new();
        let mut below = vec![vec![]];
        for service in 1..services {
            let mine = (0..random.below(shape.dependencies + 1)).map(|_| match random.below(2) {
                // Close by, which makes long chains; or anywhere, which makes wide fans.
                0 => service - 1 - random.below(service.min(3)),
                _ => random.below(service),
            });
            let mine: BTreeSet<usize> = mine.collect();
            for &dependency in &mine {
                if random.chance(shape.declared) {
                    wanted.insert((service, dependency));
                    builder.add_dependency(ids[service], ids[dependency]).expect("no cycle");
                }
            }
            below.push(mine.into_iter().collect());
        }
        Arc::new(Self {
            registry: with(builder).build(),
            seen: Mutex::new(vec![Seen::default(); services]),
            ids,
            below,
            wanted: Mutex::new(wanted),
            reported: Mutex::default(),
            marks: AtomicU64::new(1),
            alive: Arc::default(),
        })
    }

    pub fn count(&self) -> usize {
        self.ids.len()
    }

    /// Any service; the lower ones, on which most others rest, more often.
    pub fn any(&self, random: &mut Random) -> usize {
        let below = 1 + random.below(self.count());
        random.below(below)
    }

    /// A new value, which rests on nothing so far.
    pub fn value(&self, service: usize) -> Built {
        self.value_on(service, BTreeSet::new())
    }

    /// A new value in the place of another: it rests on the same.
    pub fn successor(&self, of: &Built) -> Built {
        self.value_on(of.service, of.on.clone())
    }

    fn value_on(&self, service: usize, on: BTreeSet<(usize, u64)>) -> Built {
        let mark = self.marks.fetch_add(1, Ordering::Relaxed);
        Built { service, mark, on, _alive: Arc::clone(&self.alive) }
    }

    // Seeing.

    /// Somebody has seen the service in this generation.
    pub fn saw(&self, service: usize, generation: u64) {
        self.saw_value(service, Seen { generation, mark: 0 });
    }

    fn saw_value(&self, service: usize, now: Seen) {
        let seen = &mut lock(&self.seen)[service];
        *seen = now.max(*seen);
    }

    /// All that anybody has seen so far: what is read from now on must be as new.
    pub fn before(&self) -> Before<'_> {
        Before { world: self, seen: lock(&self.seen).clone() }
    }

    /// Reads a service, and checks what is there.
    pub fn read(&self, service: usize) -> Option<Arc<Instance<Built>>> {
        let before = self.before();
        before.check_read(service, self.registry.get_arc(self.ids[service]))
    }

    /// The generation of a service.
    pub fn look(&self, service: usize) -> u64 {
        let generation = match self.registry.get(self.ids[service]) {
            Ok(guard) => Guard::generation(&guard),
            Err(GetError::NotReady(why)) => why.generation,
            Err(error) => unreachable!("{error}"),
        };
        self.saw(service, generation);
        generation
    }

    // Failing.

    /// Fails a service, or what was read of it, and checks that it is gone.
    pub fn fail(&self, service: usize, random: &mut Random) {
        let before = self.read(service);
        let over = |generation: u64| {
            let now = self.look(service);
            assert!(now > generation, "{service} is failed, and still at {now}");
        };
        match before {
            Some(instance) if random.chance(50) => {
                let generation = Instance::generation(&instance);
                match self.registry.report(&instance, "reported").expect("it is ours") {
                    Report::Failed(_) => {
                        over(generation);
                        let first = lock(&self.reported).insert((service, generation));
                        assert!(first, "two reports have failed {service} at {generation}");
                    }
                    Report::Replaced | Report::AlreadyFailed => {}
                }
            }
            before => {
                self.registry.fail(self.ids[service], "failed").expect("it is ours");
                if let Some(instance) = before {
                    over(Instance::generation(&instance));
                }
            }
        }
    }

    // Edges.

    /// Somebody is going to add this edge.
    pub fn wants(&self, dependent: usize, dependency: usize) {
        lock(&self.wanted).insert((dependent, dependency));
    }

    /// The edge was refused: by a cycle, which begins with it, of edges that there can have been.
    pub fn check_cycle(&self, cycle: &Cycle, dependent: usize, dependency: usize) {
        let path: Vec<usize> =
            cycle.path.iter().map(|name| name.parse().expect("names are numbers")).collect();
        let wanted = lock(&self.wanted);
        assert_eq!(path[..2], [dependent, dependency], "{path:?}");
        assert_eq!(path.first(), path.last(), "{path:?} does not close");
        assert_eq!(path.iter().collect::<BTreeSet<_>>().len(), path.len() - 1, "{path:?}");
        for edge in path.windows(2) {
            assert!(wanted.contains(&(edge[0], edge[1])), "{path:?}: nobody wanted {edge:?}");
        }
    }

    // The end.

    /// Nobody fails anything any more: everything comes to be ready, and rests on what is there (I2).
    pub fn settle(&self) {
        for &id in &self.ids {
            self.registry.wait_ready(id).wait().expect("it is not closed");
        }
        for service in 0..self.count() {
            let instance = self.read(service).expect("it was ready, and nobody fails it");
            for &(dependency, generation) in &instance.on {
                let now = self.look(dependency);
                assert_eq!(now, generation, "I2: {service} rests on a failed {dependency}");
            }
        }
        for status in self.registry.list().services {
            assert_eq!((status.phase, status.waiting), (Phase::Ready, 0), "{}", status.name);
        }
    }

    /// The registry is closed, and everybody gone: so is every value.
    pub fn end(self: Arc<Self>) {
        assert!(self.registry.is_closed());
        for service in 0..self.count() {
            assert!(self.read(service).is_none(), "{service} has no provider, and is ready");
        }
        let world = Arc::into_inner(self).expect("everybody is gone");
        let alive = Arc::clone(&world.alive);
        drop(world);
        assert_eq!(Arc::strong_count(&alive), 1, "values are left");
    }
}

/// What anybody had seen at some moment.
pub struct Before<'w> {
    world: &'w World,
    seen: Vec<Seen>,
}

impl Before<'_> {
    /// The outcome of a read of this service that began after that moment.
    pub fn check_read<I: Deref<Target = Instance<Built>>>(
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
            Err(GetError::NotReady(why)) => {
                self.world.saw(service, why.generation);
                None
            }
            Err(error) => unreachable!("{error}"),
        }
    }

    /// Instances that were all read at one instant, after that moment.
    pub fn check_together(&self, instances: &[&Instance<Built>]) {
        for instance in instances {
            self.check(instance);
            for other in instances {
                let now = Instance::generation(other);
                for &(dependency, generation) in &instance.on {
                    assert!(
                        dependency != other.service || generation == now,
                        "{} rests on {dependency} at {generation}, beside {now}",
                        instance.service
                    );
                }
            }
        }
    }

    /// An instance that was read after that moment.
    pub fn check(&self, instance: &Instance<Built>) {
        let (service, generation) = (instance.service, Instance::generation(instance));
        let now = Seen { generation, mark: instance.mark };
        let seen = self.seen[service];
        assert!(now >= seen, "{service} goes back from {seen:?} to {now:?}");
        self.world.saw_value(service, now);
        let mut last = None;
        for &(dependency, generation) in &instance.on {
            let seen = self.seen[dependency].generation;
            assert!(
                generation >= seen,
                "I1: {service} rests on {dependency} at {generation}, which was seen at {seen}"
            );
            assert_ne!(last, Some(dependency), "{service} rests on two of {dependency}");
            last = Some(dependency);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
