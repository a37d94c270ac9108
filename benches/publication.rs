//! What it costs to publish, by the number of threads that have ever read.
//!
//! arc-swap keeps a node for each thread that read anything by it, and each store looks at all of them. mainstay
//! keeps its values in arc-swap's cells, so it pays for that, too; beside it stands what it could not do
//! without: the cell, and one compare-and-swap on a state word.
//!
//! The nodes belong to the whole process and stay when their threads end; the next thread takes one that is
//! free. So all readers are alive at once, each reads once, then they end; and the numbers only go upward.
//! This benchmark shares its process with no other.

use std::{
    sync::{
        Arc, Barrier,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use criterion::{BenchmarkId, Criterion, SamplingMode, criterion_group, criterion_main};
use mainstay::{Provider, Registry, Running, ServiceId};
use mainstay_benches::features::criterion;

/// So many services are published one after another between two looks at the clock.
const BATCH: u64 = 64;

const READERS: [usize; 5] = [1, 4, 16, 64, 256];

/// Calls `batch` with a first value and a number of services until `n` were published; it gives the time that
/// counts.
fn in_batches(n: u64, mut batch: impl FnMut(u64, usize) -> Duration) -> Duration {
    let firsts = (0..n).step_by(BATCH as usize);
    firsts.map(|first| batch(first, BATCH.min(n - first) as usize)).sum()
}

/// Numbers are their own values: each publication of a batch has another one.
fn time(first: u64, count: usize, mut publish: impl FnMut(usize, u64)) -> Duration {
    let begun = Instant::now();
    for (service, value) in (0..count).zip(first..) {
        publish(service, value);
    }
    begun.elapsed()
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
        self.providers[service].begin().wait().unwrap().ready(value).unwrap()
    }

    fn check(&self, first: u64, count: usize) {
        for (&id, value) in self.ids[..count].iter().zip(first..) {
            assert_eq!(*self.registry.get(id).unwrap(), value);
        }
    }

    /// From what is down to what is ready. Taking it down again does not count.
    fn time_publications(&self, n: u64) -> Duration {
        let mut running = Vec::with_capacity(BATCH as usize);
        in_batches(n, |first, count| {
            let took = time(first, count, |i, value| running.push(self.publish(i, value)));
            self.check(first, count);
            running.drain(..).for_each(|running| assert_eq!(running.fail("bench").went_down, 1));
            took
        })
    }

    fn time_replacements(&self, n: u64) -> Duration {
        let running: Vec<_> = (0..BATCH as usize).map(|i| self.publish(i, 0)).collect();
        in_batches(n, |first, count| {
            let took = time(first, count, |i, value| running[i].replace(value).unwrap());
            self.check(first, count);
            took
        })
    }
}

/// A cell and a state on a cache line of their own.
#[repr(align(64))]
struct Line {
    cell: ArcSwap<u64>,
    state: AtomicU64,
}

impl Line {
    fn new() -> Self {
        Self { cell: ArcSwap::from_pointee(0), state: AtomicU64::new(0) }
    }

    fn step(&self) {
        let state = self.state.load(Ordering::Acquire);
        let stepped =
            self.state.compare_exchange(state, state + 1, Ordering::AcqRel, Ordering::Acquire);
        assert_eq!(stepped, Ok(state));
    }

    fn store(&self, value: u64) {
        self.cell.store(Arc::new(value));
        self.step();
    }

    fn compare_and_swap(&self, value: u64) {
        let current = self.cell.load();
        let previous = self.cell.compare_and_swap(&current, Arc::new(value));
        assert!(Arc::ptr_eq(&previous, &current));
        self.step();
    }
}

fn time_lines(lines: &[Line], n: u64, publish: impl Fn(&Line, u64)) -> Duration {
    in_batches(n, |first, count| {
        let took = time(first, count, |i, value| publish(&lines[i], value));
        for (line, value) in lines[..count].iter().zip(first..) {
            assert_eq!(**line.cell.load(), value);
        }
        took
    })
}

/// Lets so many threads read, this one among them.
fn read_on(threads: usize, read: impl Fn() + Sync) {
    let all = Barrier::new(threads);
    let read = || {
        read();
        all.wait();
    };
    thread::scope(|scope| {
        (1..threads).for_each(|_| drop(scope.spawn(read)));
        read();
    });
}

fn publication(c: &mut Criterion) {
    let services = Services::new();
    let lines: Vec<Line> = (0..BATCH).map(|_| Line::new()).collect();

    let mut group = c.benchmark_group("publication");
    group.sampling_mode(SamplingMode::Flat);
    for threads in READERS {
        let running = services.publish(0, 0);
        lines[0].store(0);
        read_on(threads, || {
            services.check(0, 1);
            assert_eq!(**lines[0].cell.load(), 0);
        });
        drop(running);
        let mut bench = |name: &str, time: &dyn Fn(u64) -> Duration| {
            group.bench_function(BenchmarkId::new(name, threads), |b| b.iter_custom(time));
        };
        bench("mainstay begin and ready", &|n| services.time_publications(n));
        bench("mainstay replace", &|n| services.time_replacements(n));
        bench("arc-swap store and a CAS", &|n| time_lines(&lines, n, Line::store));
        bench("arc-swap compare_and_swap and a CAS", &|n| {
            time_lines(&lines, n, Line::compare_and_swap)
        });
    }
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
