//! Many services that depend on each other at random, and fail at random, from several threads.
//!
//! - **Settled (I2)**: once nobody fails anything any more, every service comes to be ready, and each is built
//!   from the *current* instances of all that it depends on.
//! - **Never after (I1)**: whoever has seen a service fail never after that gets something that was built,
//!   however far away, from what failed. Readers check this all the time.
//! - **Of one piece**: nothing that can be read was built, over two ways, from two instances of one service.
//! - All of it where edges are declared, where they are discovered, and where a service depends on others at
//!   each start; on tasks of tokio and on plain threads.

mod support;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use mainstay::{GetError, Guard, Instance, Phase, Registry, ServiceId, WaitForError};
use support::{LONG, Random, Seed};

/// What a service is: which instance of which service, and the instances that it was built from.
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
    /// For each service those that it may be built from, with lower numbers; and whether it always is.
    below: Arc<[Vec<usize>]>,
    /// At each start, a service leaves each of its undeclared dependencies away with this chance in 100.
    fickle: usize,
    next: Arc<AtomicU64>,
    seed: Arc<Seed>,
}

struct Shape {
    services: usize,
    /// How many dependencies a service has at the most.
    dependencies: usize,
    /// Chance in 100 that an edge is declared beforehand.
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
                    builder.add_dependency(ids[i], ids[dependency]).unwrap();
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
        let stays = |_: &usize| random.below(100) >= self.fickle;
        self.below[service].iter().copied().filter(stays).collect()
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
                    Err(WaitForError::Overtaken(_)) => continue 'next,
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
        'next: while let Ok(attempt) = provider.begin().wait() {
            let mut from = vec![];
            for dependency in self.chosen(service, &mut random) {
                match attempt.wait_for(self.ids[dependency]).wait() {
                    Ok(instance) => from.push(instance),
                    Err(WaitForError::Overtaken(_)) => continue 'next,
                    Err(_) => return,
                }
            }
            let Ok(running) = attempt.ready(self.built(service, from)) else { continue };
            let _ = running.failed().wait();
        }
    }

    /// The generation that a service has by now, as a reader sees it.
    fn generation(&self, service: usize) -> u64 {
        match self.registry.get(self.ids[service]) {
            Ok(guard) => Guard::generation(&guard),
            Err(GetError::NotReady(why)) => why.generation,
            Err(other) => panic!("{other}"),
        }
    }

    /// Sees some services first, and then reads another: I1, and that it is of one piece.
    fn read(&self, random: &mut Random) -> bool {
        let mut pick = || random.below(self.ids.len());
        let mut seen = HashMap::new();
        let reader = pick();
        for _ in 0..8 {
            // One that it is built from, mostly.
            let mut service = pick();
            if let (Some(&below), true) = (self.below[reader].first(), pick() % 4 > 0) {
                service = below;
            }
            seen.insert(service, self.generation(service));
        }
        let Ok(guard) = self.registry.get_arc(self.ids[reader]) else { return false };
        let mut pieces: HashMap<usize, (u64, u64)> = HashMap::new();
        let mut next = vec![&guard];
        while let Some(instance) = next.pop() {
            let (service, unique) = (instance.service, instance.unique);
            let generation = Instance::generation(instance);
            match pieces.insert(service, (unique, generation)) {
                Some(other) => assert_eq!(other.0, unique, "{reader} mixes two of {service}"),
                None => next.extend(&instance.from),
            }
        }
        for (service, generation) in seen {
            if let Some((_, built)) = pieces.get(&service) {
                let built = *built;
                assert!(
                    built >= generation,
                    "{reader} stands on generation {built} of {service}, seen at {generation}"
                );
            }
        }
        true
    }

    /// Everything comes to be ready, from the current instances of what it depends on.
    fn check_settled(&self) {
        for (service, &id) in self.ids.iter().enumerate() {
            let ready = self.registry.wait_ready(id).wait_timeout(LONG);
            let Ok(instance) = ready else {
                let blockers = self.registry.list();
                let blockers = blockers.blockers(&format!("service {service}"));
                panic!("{service} does not come, for {blockers:#?}");
            };
            for dependency in &instance.from {
                let current = self.registry.get_arc(self.ids[dependency.service]).unwrap();
                assert_eq!(current.unique, dependency.unique, "{service} stands on an old one");
            }
        }
        for status in self.registry.list().services {
            assert_eq!((status.phase, status.waiting), (Phase::Ready, 0), "{}", status.name);
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
        // Spread over the graph: its lowest services are the ones that most others stand on.
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
                        let before = world.generation(service);
                        let cascade = world.registry.fail(id, "random").unwrap();
                        if cascade.went_down > 0 {
                            assert!(world.generation(service) > before);
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
        let mut all_well: Vec<_> = failers.into_iter().map(|failer| failer.join()).collect();
        all_well.push(thread::scope(|scope| scope.spawn(|| world.check_settled()).join()));
        done.store(true, Ordering::Relaxed);
        let reads: Vec<_> = readers.into_iter().map(|reader| reader.join()).collect();
        world.registry.close();
        for well in all_well {
            well.expect("failing goes well, and it settles");
        }
        reads.into_iter().map(|reads| reads.expect("what is read is right")).sum::<usize>()
    });
    assert!(reads > 0, "nobody has read anything: this has shown less than it should");
}

#[test]
fn a_thousand_services_settle() {
    let shape = Shape { services: 1_000, dependencies: 3, declared: 85, fickle: 0 };
    run(&shape, 100, 3, 60, Duration::from_millis(4));
}

#[test]
fn a_small_dense_world_settles_after_many_failures() {
    let shape = Shape { services: 12, dependencies: 4, declared: 50, fickle: 0 };
    run(&shape, 3, 3, 3_000, Duration::from_micros(100));
}

#[test]
fn a_world_whose_edges_change_settles() {
    let shape = Shape { services: 40, dependencies: 4, declared: 20, fickle: 40 };
    run(&shape, 4, 3, 800, Duration::from_micros(300));
}

/// The end of a long chain goes down long before its root does: whoever looks at the root first and at the
/// end right after it would see the end stand on what has failed, if it were otherwise.
#[test]
fn a_long_chain_never_stands_on_what_was_seen_to_fail() {
    const LENGTH: usize = 300;
    let registry = &Registry::with_capacity(LENGTH).unwrap();
    // Each holds the generation of the root that it stands on.
    let ids: Vec<ServiceId<u64>> =
        (0..LENGTH).map(|i| registry.register(&i.to_string()).unwrap()).collect();
    let providers: Vec<_> = ids.iter().map(|&id| registry.provide(id).unwrap()).collect();
    for pair in ids.windows(2) {
        registry.add_dependency(pair[1], pair[0]).unwrap();
    }
    let (root, end, done) = (ids[0], ids[LENGTH - 1], &AtomicBool::new(false));
    let seen = thread::scope(|scope| {
        let reader = scope.spawn(move || {
            let mut seen = 0;
            while !done.load(Ordering::Relaxed) {
                let generation = match registry.get(root) {
                    Ok(guard) => Guard::generation(&guard),
                    Err(GetError::NotReady(why)) => why.generation,
                    Err(other) => panic!("{other}"),
                };
                let Ok(end) = registry.get(end) else { continue };
                assert!(*end >= generation, "it stands on {}, seen at {generation}", *end);
                seen += 1;
            }
            seen
        });
        for generation in 0..300 {
            let running: Vec<_> = providers
                .iter()
                .map(|provider| provider.begin().wait().unwrap().ready(generation).unwrap())
                .collect();
            // Now and then the reader finds it whole for a while.
            thread::sleep(Duration::from_micros(200));
            registry.fail(root, "next").unwrap();
            drop(running);
        }
        done.store(true, Ordering::Relaxed);
        reader.join().unwrap()
    });
    assert!(seen > 0, "the reader has seen nothing: this has shown nothing");
}
