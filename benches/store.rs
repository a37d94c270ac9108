//! Reads and cascades: what a request pays, and what a failure costs, beside what one would use instead.
//!
//! Each benchmark asserts the answer that it times.

use std::{
    any::Any,
    collections::HashMap,
    hint::black_box,
    sync::{
        Arc, Barrier, OnceLock, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use mainstay::{Attempt, Provider, Registry, Running, ServiceId};

const ANSWER: u64 = 42;

/// Runs `read` on several threads at once, `iterations` times on each; the time is that of the slowest.
fn on_threads(threads: usize, iterations: u64, read: impl Fn(u64) + Sync) -> Duration {
    let start = Barrier::new(threads);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    start.wait();
                    let begun = Instant::now();
                    read(iterations);
                    begun.elapsed()
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).max().unwrap()
    })
}

fn reads(c: &mut Criterion) {
    let registry = Registry::with_capacity(1).unwrap();
    let id = registry.register::<u64>("answer").unwrap();
    let provider = registry.provide(id).unwrap();
    let _running = provider.begin().wait().unwrap().ready(ANSWER).unwrap();

    let once: OnceLock<Box<u64>> = OnceLock::from(Box::new(ANSWER));
    let swap = ArcSwap::from_pointee(ANSWER);
    let map: RwLock<HashMap<String, Arc<dyn Any + Send + Sync>>> = RwLock::default();
    map.write().unwrap().insert("answer".into(), Arc::new(ANSWER));

    let cores = thread::available_parallelism().map_or(1, usize::from);
    let mut counts = vec![1, cores];
    counts.dedup();
    for threads in counts {
        let mut group = c.benchmark_group(format!("read/{threads} threads"));
        let mut bench = |name: &str, read: &(dyn Fn(u64) + Sync)| {
            group.bench_function(name, |b| b.iter_custom(|n| on_threads(threads, n, read)));
        };
        // One Acquire load and one pointer to follow; it can never change.
        bench("floor: OnceLock", &|n| {
            for _ in 0..n {
                assert_eq!(**black_box(&once).get().unwrap(), ANSWER);
            }
        });
        bench("mainstay cached", &|n| {
            let mut cached = registry.cached(id).unwrap();
            for _ in 0..n {
                assert_eq!(**black_box(&mut cached).get().unwrap(), ANSWER);
            }
        });
        bench("mainstay get", &|n| {
            for _ in 0..n {
                assert_eq!(*black_box(&registry).get(id).unwrap(), ANSWER);
            }
        });
        bench("mainstay get_arc", &|n| {
            for _ in 0..n {
                assert_eq!(**black_box(&registry).get_arc(id).unwrap(), ANSWER);
            }
        });
        bench("arc-swap load", &|n| {
            for _ in 0..n {
                assert_eq!(**black_box(&swap).load(), ANSWER);
            }
        });
        bench("RwLock<HashMap<String, Arc<dyn Any>>>", &|n| {
            for _ in 0..n {
                let value = black_box(&map).read().unwrap().get("answer").cloned().unwrap();
                assert_eq!(*value.downcast_ref::<u64>().unwrap(), ANSWER);
            }
        });
        group.finish();
    }
}

/// A root and its dependents, each with a provider of its own, all ready.
struct Tree {
    registry: Registry,
    root: ServiceId<u64>,
    providers: Vec<Provider<u64>>,
    running: Vec<Running<u64>>,
}

impl Tree {
    /// `parent` names the dependency of a service.
    fn new(dependents: usize, parent: impl Fn(usize) -> usize) -> Self {
        let mut builder = Registry::builder(dependents + 1).unwrap();
        let ids: Vec<ServiceId<u64>> =
            (0..=dependents).map(|i| builder.register(&format!("service {i}")).unwrap()).collect();
        for i in 1..=dependents {
            builder.add_dependency(ids[i], ids[parent(i)]).unwrap();
        }
        let registry = builder.build();
        let providers = ids.iter().map(|&id| registry.provide(id).unwrap()).collect();
        Self { registry, root: ids[0], providers, running: Vec::new() }
    }

    fn start(&mut self) {
        self.running.clear();
        let attempt = |provider: &Provider<u64>| provider.begin().wait().unwrap();
        let ready = |attempt: Attempt<u64>| attempt.ready(ANSWER).unwrap();
        self.running.extend(self.providers.iter().map(attempt).map(ready));
    }

    fn time_fails(&mut self, iterations: u64) -> Duration {
        let mut total = Duration::ZERO;
        for _ in 0..iterations {
            self.start();
            let begun = Instant::now();
            let cascade = self.registry.fail(self.root, "bench").unwrap();
            total += begun.elapsed();
            assert_eq!(cascade.went_down, self.providers.len());
        }
        total
    }
}

/// What a cascade cannot do without: two read-modify-writes of each slot's cache line.
fn time_floor(slots: &[Line], iterations: u64) -> Duration {
    let mut total = Duration::ZERO;
    for _ in 0..iterations {
        let before = slots[0].1.load(Ordering::Relaxed);
        // As a restart does before each failure: the lines are this core's.
        for slot in slots {
            slot.0.fetch_add(1, Ordering::AcqRel);
        }
        let begun = Instant::now();
        for slot in slots {
            slot.0.fetch_add(1, Ordering::AcqRel);
        }
        for slot in slots.iter().rev() {
            slot.1.fetch_add(1, Ordering::AcqRel);
        }
        total += begun.elapsed();
        assert_eq!(slots[0].1.load(Ordering::Relaxed), before + 1);
    }
    total
}

#[derive(Default)]
#[repr(align(64))]
struct Line(AtomicU64, AtomicU64);

fn cascades(c: &mut Criterion) {
    for dependents in [1, 10, 1_000] {
        let mut group = c.benchmark_group("cascade");
        group.throughput(Throughput::Elements(dependents as u64 + 1));
        let mut bench = |name: &str, time: &mut dyn FnMut(u64) -> Duration| {
            let id = BenchmarkId::new(name, dependents);
            group.bench_function(id, |b| b.iter_custom(&mut *time));
        };
        let mut fan_out = Tree::new(dependents, |_| 0);
        bench("fan-out", &mut |n| fan_out.time_fails(n));
        let mut chain = Tree::new(dependents, |i| i - 1);
        bench("chain", &mut |n| chain.time_fails(n));
        let slots: Vec<Line> = (0..=dependents).map(|_| Line::default()).collect();
        bench("floor", &mut |n| time_floor(&slots, n));
        group.finish();
    }
}

criterion_group!(benches, reads, cascades);
criterion_main!(benches);
