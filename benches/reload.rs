//! A reload of a chain of 1, 10 and 1,000 services, beside what can be done in its place.
//!
//! - "whole": from the change until all services are current with their new values. "mainstay
//!   reload" builds them aside and switches them. "mainstay restart" fails the root, so all of them
//!   are down until they are built again. "one struct" is an `ArcSwap` of one struct that contains
//!   all values: it is built in a loop, and stored.
//! - "switch": the part of it in which readers find both values: the switch of all services, and
//!   the store of the struct; also beside 256 threads that have read. arc-swap keeps a node for
//!   each thread that has loaded anything by it, and each store visits all nodes; mainstay visits
//!   the places of each thread that has read, once for a switch.
//! - "slowest get": the slowest of the reads of the last service during each change, by one thread
//!   that reads without a pause. A read that finds no value, as most do during a restart, is
//!   repeated until there is one.
//!
//! All services run on one thread. No other benchmark runs in this process: the nodes of arc-swap
//! belong to the process.

use std::{
    hint::black_box,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use criterion::{BenchmarkId, Criterion, SamplingMode, criterion_group, criterion_main};
use mainstay::{Registry, ServiceId};
use mainstay_benches::{
    beside_readers,
    features::criterion,
    graphs::chain,
    recovering::{Change, Node, Round, changes_on_one_thread, nodes},
};

const SERVICES: [usize; 3] = [1, 10, 1_000];

/// The number of threads that have read, and are alive.
const READERS: usize = 256;

/// A struct that contains the values of a chain.
type World = ArcSwap<Vec<Arc<u64>>>;

/// Builds the values of a chain from the number of its root.
fn build_world(services: usize, number: u64) -> Vec<Arc<u64>> {
    (0..services as u64).map(|depth| Arc::new(number + depth)).collect()
}

/// Builds and stores this number of worlds. Returns the time of the stores, and of the builds if
/// they count.
fn change_world(services: usize, rounds: u64, builds_count: bool) -> Duration {
    let world = World::from_pointee(build_world(services, 0));
    let change = |number| {
        let before = Instant::now();
        let new = Arc::new(build_world(services, black_box(number)));
        let built = Instant::now();
        let old = world.swap(new);
        let elapsed = if builds_count { before } else { built }.elapsed();
        drop(old);
        assert_eq!(**world.load().last().unwrap(), number + services as u64 - 1);
        elapsed
    };
    (1..=rounds).map(change).sum()
}

/// A thread that reads without a pause, each time until there is a value, and keeps the time of
/// the slowest read.
struct Reading {
    slowest: Arc<AtomicU64>,
    is_over: Arc<AtomicBool>,
    thread: thread::JoinHandle<()>,
}

impl Reading {
    /// `read` returns whether there is a value.
    fn begin(read: impl Fn() -> bool + Send + 'static) -> Self {
        let (slowest, is_over) = <(Arc<AtomicU64>, Arc<AtomicBool>)>::default();
        let thread = thread::spawn({
            let (slowest, is_over) = (Arc::clone(&slowest), Arc::clone(&is_over));
            move || {
                while !is_over.load(Ordering::Relaxed) {
                    let start = Instant::now();
                    while !read() && !is_over.load(Ordering::Relaxed) {}
                    slowest.fetch_max(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
                }
            }
        });
        Self { slowest, is_over, thread }
    }

    /// The slowest read since the last call.
    fn take_slowest(&self) -> Duration {
        Duration::from_nanos(self.slowest.swap(0, Ordering::Relaxed))
    }

    fn end(self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
    }
}

/// The time of these changes.
fn whole_changes(nodes: &[Node], change: Change, rounds: u64) -> Duration {
    changes_on_one_thread(nodes, change, rounds, &mut |round| match round {
        Round::Begins { .. } => Duration::ZERO,
        Round::Ends { took, .. } => took,
    })
}

/// The time of the switches of these reloads.
fn switches(nodes: &[Node], rounds: u64) -> Duration {
    changes_on_one_thread(nodes, Change::Reload, rounds, &mut |round| match round {
        Round::Begins { .. } => Duration::ZERO,
        Round::Ends { switch_took, .. } => switch_took,
    })
}

/// The slowest read of the last service during each of these changes.
fn slowest_during_changes(nodes: &[Node], change: Change, rounds: u64) -> Duration {
    let mut reading = None;
    let total = changes_on_one_thread(nodes, change, rounds, &mut |round| match round {
        Round::Begins { registry, last } => {
            let reading = reading.get_or_insert_with(|| {
                let registry = registry.clone();
                Reading::begin(move || registry.get(last).is_ok())
            });
            reading.take_slowest();
            Duration::ZERO
        }
        Round::Ends { .. } => reading.as_ref().map_or(Duration::ZERO, Reading::take_slowest),
    });
    if let Some(reading) = reading {
        reading.end();
    }
    total
}

/// The slowest read of the last value during each of these changes of a struct.
fn slowest_during_stores(services: usize, rounds: u64) -> Duration {
    let world = Arc::new(World::from_pointee(build_world(services, 0)));
    let reading = Reading::begin({
        let world = Arc::clone(&world);
        move || world.load().last().is_some()
    });
    let change = |number| {
        reading.take_slowest();
        world.store(Arc::new(build_world(services, number)));
        reading.take_slowest()
    };
    let total = (1..=rounds).map(change).sum();
    reading.end();
    total
}

fn whole(c: &mut Criterion) {
    let mut group = c.benchmark_group("reload/whole");
    group.sampling_mode(SamplingMode::Flat);
    for services in SERVICES {
        let nodes = nodes(chain, services - 1);
        group.bench_function(BenchmarkId::new("mainstay reload", services), |b| {
            b.iter_custom(|n| whole_changes(&nodes, Change::Reload, n));
        });
        group.bench_function(BenchmarkId::new("mainstay restart", services), |b| {
            b.iter_custom(|n| whole_changes(&nodes, Change::Restart, n));
        });
        group.bench_function(BenchmarkId::new("one struct", services), |b| {
            b.iter_custom(|n| change_world(services, n, true));
        });
    }
    group.finish();
}

/// The switches, beside this number of threads that have read.
fn switch(c: &mut Criterion, readers: usize) {
    let mut group = c.benchmark_group(format!("reload/switch/{readers} readers"));
    group.sampling_mode(SamplingMode::Flat);
    for services in SERVICES {
        let nodes = nodes(chain, services - 1);
        group.bench_function(BenchmarkId::new("mainstay reload", services), |b| {
            b.iter_custom(|n| switches(&nodes, n));
        });
        group.bench_function(BenchmarkId::new("one struct", services), |b| {
            b.iter_custom(|n| change_world(services, n, false));
        });
    }
    group.finish();
}

fn slowest_get(c: &mut Criterion) {
    let mut group = c.benchmark_group("reload/slowest get");
    group.sampling_mode(SamplingMode::Flat);
    for services in SERVICES {
        let nodes = nodes(chain, services - 1);
        group.bench_function(BenchmarkId::new("mainstay reload", services), |b| {
            b.iter_custom(|n| slowest_during_changes(&nodes, Change::Reload, n));
        });
        group.bench_function(BenchmarkId::new("mainstay restart", services), |b| {
            b.iter_custom(|n| slowest_during_changes(&nodes, Change::Restart, n));
        });
        group.bench_function(BenchmarkId::new("one struct", services), |b| {
            b.iter_custom(|n| slowest_during_stores(services, n));
        });
    }
    group.finish();
}

/// Reads a service, and a cell of arc-swap.
fn read(registry: &Registry, id: ServiceId<u64>, cell: &ArcSwap<u64>) {
    assert_eq!((*registry.get(id).unwrap(), **cell.load()), (1, 1));
}

fn reload(c: &mut Criterion) {
    whole(c);
    slowest_get(c);
    switch(c, 0);
    let registry = Registry::with_capacity(1).unwrap();
    let id = registry.register("service").unwrap();
    registry.constant(id, 1).unwrap();
    let cell = ArcSwap::from_pointee(1);
    beside_readers(READERS, || read(&registry, id, &cell), || switch(c, READERS));
}

criterion_group! {
    name = benches;
    config = criterion("reload")
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(600))
        .sample_size(10)
        .without_plots();
    targets = reload
}
criterion_main!(benches);
