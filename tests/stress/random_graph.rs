//! Many services with random dependencies, which several threads fail at random.
//!
//! - **I2**: after the last failure every service becomes ready, and each was built from the
//!   *current* instances of all its dependencies.
//! - **I1**: a thread that has seen a service fail never afterwards reads a service that was
//!   built, directly or not, from the failed instance. Readers check this all the time.
//! - **One instance of each**: no readable service was built, along two paths, from two instances
//!   of one service.
//! - All of this holds if edges are declared, if they are discovered, and if each attempt uses
//!   different dependencies; on tasks of tokio and on plain threads.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use crate::support::{LONG, Random, Seed};
use mainstay::{
    Guard, Instance, Phase, Registry, ServiceId,
    error::{GetError, WaitForError},
};

/// The value of a service: which instance of which service, and the instances that it was built
/// from.
struct Built {
    service: usize,
    unique: u64,
    from: Vec<Arc<Instance<Built>>>,
}

type Id = ServiceId<Built>;

#[derive(Clone)]
struct World {
    registry: Registry,
    ids: Arc<[Id]>,
    /// For each service its possible dependencies, which have lower numbers.
    below: Arc<[Vec<usize>]>,
    /// The chance in 100 that an attempt does not use a dependency.
    fickle: usize,
    next: Arc<AtomicU64>,
    seed: Arc<Seed>,
}

struct Shape {
    services: usize,
    /// The most dependencies of a service.
    dependencies: usize,
    /// The chance in 100 that an edge is declared.
    declared: usize,
    fickle: usize,
}

impl World {
    fn new(shape: &Shape) -> Self {
        let seed = Seed::new();
        let mut random = seed.random(0);
        let mut builder = Registry::builder(shape.services).unwrap();
        let ids: Vec<Id> = (0..shape.services)
            .map(|i| builder.register(&format!("service {i}")).unwrap())
            .collect();
        let mut below = vec![];
        for i in 0..shape.services {
            let mut mine: Vec<usize> = match i {
                0 => vec![],
                _ => (0..1 + random.below(shape.dependencies)).map(|_| random.below(i)).collect(),
            };
            mine.sort_unstable();
            mine.dedup();
            for &dependency in &mine {
                if random.below(100) < shape.declared {
                    builder.depends(ids[i]).on(ids[dependency]).unwrap();
                }
            }
            below.push(mine);
        }
        Self {
            registry: builder.build(),
            ids: ids.into(),
            below: below.into(),
            fickle: shape.fickle,
            next: Arc::default(),
            seed: Arc::new(seed),
        }
    }

    fn chosen(&self, service: usize, random: &mut Random) -> Vec<usize> {
        let is_used = |_: &usize| random.below(100) >= self.fickle;
        self.below[service].iter().copied().filter(is_used).collect()
    }

    fn built(&self, service: usize, from: Vec<Arc<Instance<Built>>>) -> Built {
        Built { service, unique: self.next.fetch_add(1, Ordering::Relaxed), from }
    }

    async fn provide(self, service: usize) {
        let mut random = self.seed.random(1_000 + service as u64);
        let provider = self.registry.provide(self.ids[service]).unwrap();
        'next: while let Ok(attempt) = provider.begin().await {
            let mut from = vec![];
            for dependency in self.chosen(service, &mut random) {
                match attempt.wait_for(self.ids[dependency]).await {
                    Ok(instance) => from.push(instance),
                    Err(WaitForError::Invalidated(_)) => continue 'next,
                    Err(_) => return,
                }
            }
            let Ok(running) = attempt.ready(self.built(service, from)) else { continue };
            let _ = running.failed().await;
        }
    }

    fn provide_blocking(&self, service: usize) {
        let mut random = self.seed.random(1_000 + service as u64);
        let provider = self.registry.provide(self.ids[service]).unwrap();
        'next: while let Ok(attempt) = provider.begin().wait_blocking() {
            let mut from = vec![];
            for dependency in self.chosen(service, &mut random) {
                match attempt.wait_for(self.ids[dependency]).wait_blocking() {
                    Ok(instance) => from.push(instance),
                    Err(WaitForError::Invalidated(_)) => continue 'next,
                    Err(_) => return,
                }
            }
            let Ok(running) = attempt.ready(self.built(service, from)) else { continue };
            let _ = running.failed().wait_blocking();
        }
    }

    /// The current generation of a service, as a reader sees it.
    fn generation(&self, service: usize) -> u64 {
        match self.registry.get(self.ids[service]) {
            Ok(guard) => Guard::generation(&guard).get(),
            Err(GetError::NotReady(why)) => why.generation.get(),
            Err(other) => panic!("{other}"),
        }
    }

    /// Reads the generations of some services, then another service, and checks that one: I1, and
    /// that it was built from one instance of each service. Returns whether the service was ready.
    fn read(&self, random: &mut Random) -> bool {
        let mut pick = || random.below(self.ids.len());
        let mut seen = HashMap::new();
        let reader = pick();
        for _ in 0..8 {
            // Mostly a dependency.
            let mut service = pick();
            if let (Some(&below), true) = (self.below[reader].first(), pick() % 4 > 0) {
                service = below;
            }
            seen.insert(service, self.generation(service));
        }
        let Ok(guard) = self.registry.get_arc(self.ids[reader]) else { return false };
        let mut parts: HashMap<usize, (u64, u64)> = HashMap::new();
        let mut next = vec![&guard];
        while let Some(instance) = next.pop() {
            let (service, unique) = (instance.service, instance.unique);
            let generation = Instance::generation(instance).get();
            match parts.insert(service, (unique, generation)) {
                Some(other) => assert_eq!(other.0, unique, "{reader} mixes two of {service}"),
                None => next.extend(&instance.from),
            }
        }
        for (service, generation) in seen {
            if let Some((_, built)) = parts.get(&service) {
                let built = *built;
                assert!(
                    built >= generation,
                    "I1: {reader} is built from {service} in {built}, seen in {generation}"
                );
            }
        }
        true
    }

    /// Checks that every service becomes ready, from the current instances of its dependencies.
    fn check_settled(&self) {
        for (service, &id) in self.ids.iter().enumerate() {
            let ready = self.registry.wait_ready(id).wait_blocking_timeout(LONG);
            let Ok(instance) = ready else {
                let blockers = self.registry.list();
                let blockers = blockers.blockers(&format!("service {service}"));
                panic!("{service} does not become ready, for {blockers:#?}");
            };
            for dependency in &instance.from {
                let current = self.registry.get_arc(self.ids[dependency.service]).unwrap();
                assert_eq!(
                    current.unique, dependency.unique,
                    "I2: {service} is built from an old instance"
                );
            }
        }
        for status in self.registry.list().services {
            assert_eq!((status.phase, status.waiters), (Phase::Ready, 0), "{}", status.name);
        }
    }
}

/// Provides all services, the first of them on plain threads, fails them at random, and checks.
fn run(shape: &Shape, threads: usize, failers: usize, failures: usize, pause: Duration) {
    let world = World::new(shape);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let done = AtomicBool::new(false);
    let (world, done) = (&world, &done);
    let reads = thread::scope(|scope| {
        // Threads are spread over the graph: most services depend on those of the lowest numbers.
        let every = shape.services / threads;
        for service in 0..shape.services {
            if service % every == 0 {
                scope.spawn(move || world.provide_blocking(service));
            } else {
                runtime.spawn(world.clone().provide(service));
            }
        }
        let failers: Vec<_> = (0..failers)
            .map(|failer| {
                scope.spawn(move || {
                    let mut random = world.seed.random(100 + failer as u64);
                    for _ in 0..failures {
                        let service = random.below(shape.services);
                        let id = world.ids[service];
                        let before = world.registry.status(id).unwrap();
                        world.registry.fail(id, "random").unwrap();
                        // A service that is down keeps its generation.
                        if before.phase == Phase::Ready {
                            assert!(world.generation(service) > before.generation.get());
                        }
                        thread::sleep(pause.mul_f64(random.below(100) as f64 / 50.0));
                    }
                })
            })
            .collect();
        let readers: Vec<_> = (0..2)
            .map(|reader| {
                scope.spawn(move || {
                    let mut random = world.seed.random(200 + reader);
                    let mut reads = 0;
                    while !done.load(Ordering::Relaxed) {
                        reads += usize::from(world.read(&mut random));
                        thread::sleep(Duration::from_micros(random.below(40) as u64));
                    }
                    reads
                })
            })
            .collect();
        let mut checks: Vec<_> = failers.into_iter().map(|failer| failer.join()).collect();
        checks.push(thread::scope(|scope| scope.spawn(|| world.check_settled()).join()));
        done.store(true, Ordering::Relaxed);
        let reads: Vec<_> = readers.into_iter().map(|reader| reader.join()).collect();
        world.registry.close();
        for check in checks {
            check.expect("a failing thread or the final check panicked");
        }
        reads.into_iter().map(|reads| reads.expect("a reader panicked")).sum::<usize>()
    });
    assert!(reads > 0, "no reader has found a ready service");
}

#[test]
fn a_thousand_services_become_ready_from_current_instances_after_random_failures() {
    let shape = Shape { services: 1_000, dependencies: 3, declared: 85, fickle: 0 };
    run(&shape, 100, 3, 60, Duration::from_millis(4));
}

#[test]
fn a_dense_graph_becomes_ready_from_current_instances_after_random_failures() {
    let shape = Shape { services: 12, dependencies: 4, declared: 50, fickle: 0 };
    run(&shape, 3, 3, 3_000, Duration::from_micros(100));
}

#[test]
fn a_graph_with_changing_edges_becomes_ready_from_current_instances_after_random_failures() {
    let shape = Shape { services: 40, dependencies: 4, declared: 20, fickle: 40 };
    run(&shape, 4, 3, 800, Duration::from_micros(300));
}

/// The end of a long chain is taken down long before its root. If it were the other way round, a
/// reader that reads the root and then the end would see an end that depends on a failed root.
#[test]
fn the_end_of_a_long_chain_is_never_read_with_a_root_that_was_seen_to_fail() {
    const LENGTH: usize = 300;
    let registry = &Registry::with_capacity(LENGTH).unwrap();
    // Each value is the generation of the root that it depends on.
    let ids: Vec<ServiceId<u64>> =
        (0..LENGTH).map(|i| registry.register(&i.to_string()).unwrap()).collect();
    let providers: Vec<_> = ids.iter().map(|&id| registry.provide(id).unwrap()).collect();
    for pair in ids.windows(2) {
        registry.depends(pair[1]).on(pair[0]).unwrap();
    }
    let (root, end, done) = (ids[0], ids[LENGTH - 1], &AtomicBool::new(false));
    let seen = thread::scope(|scope| {
        let reader = scope.spawn(move || {
            let mut seen = 0;
            while !done.load(Ordering::Relaxed) {
                let generation = match registry.get(root) {
                    Ok(guard) => Guard::generation(&guard).get(),
                    Err(GetError::NotReady(why)) => why.generation.get(),
                    Err(other) => panic!("{other}"),
                };
                let Ok(end) = registry.get(end) else { continue };
                assert!(*end >= generation, "it depends on {}, seen at {generation}", *end);
                seen += 1;
            }
            seen
        });
        for generation in 0..300 {
            let running: Vec<_> = providers
                .iter()
                .map(|provider| {
                    provider.begin().wait_blocking().unwrap().ready(generation).unwrap()
                })
                .collect();
            // Time for the reader to find the whole chain ready.
            thread::sleep(Duration::from_micros(200));
            registry.fail(root, "next").unwrap();
            drop(running);
        }
        done.store(true, Ordering::Relaxed);
        reader.join().unwrap()
    });
    assert!(seen > 0, "the reader has never found the chain ready");
}
