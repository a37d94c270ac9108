//! The cost of a publication and of a failure, by the number of threads that have read.
//!
//! arc-swap keeps a node for each thread that has loaded anything by it, and each store visits all
//! nodes. A read of mainstay announces what it reads in a place of its thread, so each publication
//! visits the places of all threads, and before that executes a fence on those that run. It is
//! compared with a store to a cell of arc-swap and one compare-and-swap of a state word; and with
//! the part that mainstay cannot avoid (`limits.rs`). A failure touches no value.
//!
//! The nodes of arc-swap belong to the process and remain when their threads end; a new thread
//! takes a free node. The places of mainstay end with their threads. Therefore all readers of one
//! measurement are alive during it: each reads once, and then waits. The number of readers only
//! grows. No other benchmark runs in this process.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use criterion::{BenchmarkId, Criterion, SamplingMode, criterion_group, criterion_main};
use mainstay::{Provider, Registry, Running, ServiceId};
use mainstay_benches::{
    beside_readers,
    features::criterion,
    rivals::limits::{Published, PublishedCell},
};

/// The number of publications, each of another service, between two reads of the clock.
const BATCH: u64 = 64;

const READERS: [usize; 4] = [1, 16, 256, 4_096];

/// Calls `batch` until `n` services were published, with the first value of the batch and its
/// number of services. Returns the sum of the times that `batch` returns.
fn in_batches(n: u64, mut batch: impl FnMut(u64, usize) -> Duration) -> Duration {
    let firsts = (0..n).step_by(BATCH as usize);
    firsts.map(|first| batch(first, BATCH.min(n - first) as usize)).sum()
}

/// Publishes a batch, and returns the time. The values of a batch are consecutive numbers, so each
/// publication has another value.
fn time(first: u64, count: usize, mut publish: impl FnMut(usize, u64)) -> Duration {
    let start = Instant::now();
    for (service, value) in (0..count).zip(first..) {
        publish(service, value);
    }
    start.elapsed()
}

struct Services {
    registry: Registry,
    ids: Vec<ServiceId<u64>>,
    providers: Vec<Provider<u64>>,
}

impl Services {
    fn new() -> Self {
        let registry = Registry::with_capacity(BATCH as usize).unwrap();
        let id = |i| registry.register(&format!("service {i}")).unwrap();
        let ids: Vec<_> = (0..BATCH).map(id).collect();
        let providers = ids.iter().map(|&id| registry.provide(id).unwrap()).collect();
        Self { registry, ids, providers }
    }

    fn publish(&self, service: usize, value: u64) -> Running<u64> {
        self.providers[service].begin().wait_blocking().unwrap().ready(value).unwrap()
    }

    fn check(&self, first: u64, count: usize) {
        for (&id, value) in self.ids[..count].iter().zip(first..) {
            assert_eq!(*self.registry.get(id).unwrap(), value);
        }
    }

    /// Measures `begin` and `ready` of services that are down. The failure that takes them down
    /// again is not measured.
    fn time_publications(&self, n: u64) -> Duration {
        let mut running = Vec::with_capacity(BATCH as usize);
        in_batches(n, |first, count| {
            let elapsed = time(first, count, |i, value| running.push(self.publish(i, value)));
            self.check(first, count);
            running.drain(..).for_each(|running| assert_eq!(running.fail("bench").failed, 1));
            elapsed
        })
    }

    /// Measures the failures of services that are ready.
    fn time_failures(&self, n: u64) -> Duration {
        in_batches(n, |first, count| {
            let running: Vec<_> =
                (0..count).zip(first..).map(|(i, value)| self.publish(i, value)).collect();
            let fail =
                |i, _| assert_eq!(self.registry.fail(self.ids[i], "bench").unwrap().failed, 1);
            let elapsed = time(first, count, fail);
            drop(running);
            elapsed
        })
    }

    fn time_replacements(&self, n: u64) -> Duration {
        let running: Vec<_> = (0..BATCH as usize).map(|i| self.publish(i, 0)).collect();
        in_batches(n, |first, count| {
            let elapsed = time(first, count, |i, value| running[i].replace(value).unwrap());
            self.check(first, count);
            elapsed
        })
    }
}

/// A cell and a state word on one cache line.
#[repr(align(64))]
struct Line {
    cell: ArcSwap<u64>,
    state: AtomicU64,
}

impl Line {
    fn new() -> Self {
        Self { cell: ArcSwap::from_pointee(0), state: AtomicU64::new(0) }
    }

    fn transition(&self) {
        let state = self.state.load(Ordering::Acquire);
        let exchanged =
            self.state.compare_exchange(state, state + 1, Ordering::AcqRel, Ordering::Acquire);
        assert_eq!(exchanged, Ok(state));
    }

    fn store(&self, value: u64) {
        self.cell.store(Arc::new(value));
        self.transition();
    }

    fn compare_and_swap(&self, value: u64) {
        let current = self.cell.load();
        let previous = self.cell.compare_and_swap(&current, Arc::new(value));
        assert!(Arc::ptr_eq(&previous, &current));
        self.transition();
    }
}

fn time_lines(lines: &[Line], n: u64, publish: impl Fn(&Line, u64)) -> Duration {
    in_batches(n, |first, count| {
        let elapsed = time(first, count, |i, value| publish(&lines[i], value));
        for (line, value) in lines[..count].iter().zip(first..) {
            assert_eq!(**line.cell.load(), value);
        }
        elapsed
    })
}

/// As `Services::time_publications`.
fn time_limit(cells: &[PublishedCell], n: u64) -> Duration {
    let mut published: Vec<Published> = Vec::with_capacity(BATCH as usize);
    in_batches(n, |first, count| {
        let elapsed = time(first, count, |i, value| published.push(cells[i].publish(value)));
        for ((cell, value), published) in cells.iter().zip(first..).zip(published.drain(..)) {
            assert_eq!(cell.load(), Some(value));
            cell.fail(published);
        }
        elapsed
    })
}

fn publication(c: &mut Criterion) {
    let services = Services::new();
    let lines: Vec<Line> = (0..BATCH).map(|_| Line::new()).collect();
    let cells: Vec<PublishedCell> = (0..BATCH).map(|_| PublishedCell::default()).collect();

    for threads in READERS {
        let running = services.publish(0, 0);
        lines[0].store(0);
        let read = || {
            services.check(0, 1);
            assert_eq!(**lines[0].cell.load(), 0);
        };
        beside_readers(threads, read, || {
            drop(running);
            measure(c, threads, &services, &lines, &cells);
        });
    }
}

fn measure(
    c: &mut Criterion,
    threads: usize,
    services: &Services,
    lines: &[Line],
    cells: &[PublishedCell],
) {
    let mut group = c.benchmark_group("publication");
    group.sampling_mode(SamplingMode::Flat);
    let mut bench = |name: &str, time: &dyn Fn(u64) -> Duration| {
        group.bench_function(BenchmarkId::new(name, threads), |b| b.iter_custom(time));
    };
    bench("mainstay begin and ready", &|n| services.time_publications(n));
    bench("mainstay replace", &|n| services.time_replacements(n));
    bench("limit: attempt and instance", &|n| time_limit(cells, n));
    bench("arc-swap store and a CAS", &|n| time_lines(lines, n, Line::store));
    bench("arc-swap compare_and_swap and a CAS", &|n| time_lines(lines, n, Line::compare_and_swap));
    group.finish();
    let mut group = c.benchmark_group("failure by readers");
    group.sampling_mode(SamplingMode::Flat);
    group.bench_function(BenchmarkId::new("mainstay fail", threads), |b| {
        b.iter_custom(|n| services.time_failures(n));
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = criterion("publication")
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(600))
        .sample_size(20)
        .without_plots();
    targets = publication
}
criterion_main!(benches);
