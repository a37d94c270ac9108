//! The cost of a read for a request, beside the alternatives.
//!
//! Each candidate reads the same services in the same order and asserts each value. In "quiet"
//! nothing is written. In "busy" one failure, one publication and one replacement take place every
//! 100 us. Maps are read by names that were created before the measurement. A value that is
//! protected by a guard is read through the guard. A lock of a whole map is released at once, with
//! a clone of the `Arc`, as a request would do it.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use arc_swap::{ArcSwap, Cache};
use criterion::{BenchmarkId, Criterion, SamplingMode, criterion_group, criterion_main};
use dashmap::DashMap;
use mainstay::{Cached, Provider, Reader, Registry, Running, ServiceId};
use mainstay_benches::{
    features::criterion,
    on_threads,
    rivals::{
        container::{Container, SERVICES, SPARE, answer},
        go_service::GoService,
        limits::{LoadAndState, PointerAndState},
        maps::{LeftRight, Named, Value, number},
        read_cells::{Cells, Pinned, Pointer},
    },
    thread_counts,
};
use tokio::sync::watch;

/// The delay of the background thread after each round.
const DELAY: Duration = Duration::from_micros(100);

/// Reads one service after another, `n` times in all.
#[inline(always)]
fn each(n: u64, order: &[usize], mut read: impl FnMut(usize) -> u64) {
    for &service in order.iter().cycle().take(n as usize) {
        assert_eq!(read(service), answer(service));
    }
}

/// The number of reads before the order repeats: enough that no branch predictor learns the order,
/// and few enough that it stays in the first-level cache.
const ORDER: usize = 1024;

fn orders() -> [(&'static str, Vec<usize>); 2] {
    let mut random = fastrand::Rng::with_seed(64);
    let hot = vec![random.usize(..SERVICES); ORDER];
    let all = (0..ORDER).map(|_| random.usize(..SERVICES)).collect();
    [("hot", hot), ("64 random", all)]
}

/// Services of a registry, all ready.
struct Mainstay {
    registry: Registry,
    ids: Vec<ServiceId<u64>>,
    providers: Vec<Provider<u64>>,
    running: Mutex<Vec<Option<Running<u64>>>>,
    readers: Vec<Reader<u64>>,
}

impl Mainstay {
    /// A full registry, and `count` services spread evenly over it.
    fn new(capacity: usize, count: usize) -> Self {
        let registry = Registry::with_capacity(capacity).unwrap();
        let id = |i| registry.register(&format!("service {i}")).unwrap();
        let all: Vec<ServiceId<u64>> = (0..capacity).map(id).collect();
        let ids: Vec<_> = (0..count).map(|i| all[i * capacity / count]).collect();
        let providers = ids.iter().map(|&id| registry.provide(id).unwrap()).collect();
        let running = Mutex::new((0..count).map(|_| None).collect());
        let readers = ids.iter().map(|&id| registry.reader(id).unwrap()).collect();
        let services = Self { registry, ids, providers, running, readers };
        (0..count).for_each(|service| services.publish(service));
        services
    }

    /// Creates the cached readers of one thread.
    fn cached(&self) -> Vec<Cached<u64>> {
        self.ids.iter().map(|&id| self.registry.cached(id).unwrap()).collect()
    }

    #[inline(always)]
    fn get(&self, service: usize) -> u64 {
        *self.registry.get(self.ids[service]).unwrap()
    }

    /// Reads by the resolved reader, which all threads share.
    #[inline(always)]
    fn read(&self, service: usize) -> u64 {
        *self.readers[service].get().unwrap()
    }

    #[inline(always)]
    fn get_arc(&self, service: usize) -> u64 {
        **self.registry.get_arc(self.ids[service]).unwrap()
    }

    /// Reads the service and the two after it at one instant.
    #[inline(always)]
    fn get_all(&self, service: usize) -> u64 {
        let [second, third] = [1, 2].map(|more| (service + more) % SERVICES);
        let ids = (self.ids[service], self.ids[second], self.ids[third]);
        let all = self.registry.get_all(ids).unwrap();
        assert_eq!((*all.1, *all.2), (answer(second), answer(third)));
        *all.0
    }
}

impl Container for Mainstay {
    fn publish(&self, service: usize) {
        let value = answer(service);
        let running = &mut self.running.lock().unwrap()[service];
        match running {
            Some(running) => running.replace(value).unwrap(),
            None => {
                let attempt = self.providers[service].begin().wait_blocking().unwrap();
                *running = Some(attempt.ready(value).unwrap());
            }
        }
    }

    fn fail(&self, service: usize) {
        let cascade = self.registry.fail(self.ids[service], "background").unwrap();
        assert_eq!(cascade.failed, 1);
        self.running.lock().unwrap()[service] = None;
    }
}

/// Runs `work` while a background thread fails and publishes the spare service, and replaces the
/// values of the services that are read, one after another.
fn disturbed<R>(container: &dyn Container, order: &[usize], work: impl FnOnce() -> R) -> R {
    struct SetOnDrop<'a>(&'a AtomicBool);

    // Also if `work` panics: the scope waits for the background thread.
    impl Drop for SetOnDrop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for &service in order.iter().cycle() {
                if is_over.load(Ordering::Relaxed) {
                    break;
                }
                container.fail(SPARE);
                container.publish(SPARE);
                container.publish(service);
                thread::sleep(DELAY);
            }
        });
        let _set_on_drop = SetOnDrop(&is_over);
        work()
    })
}

struct Rivals {
    mainstay: Mainstay,
    pointers: Cells<Pointer>,
    pointers_and_states: Cells<PointerAndState>,
    loads_and_states: Cells<LoadAndState>,
    swaps: Cells<ArcSwap<u64>>,
    pinned: Cells<Pinned>,
    watches: Cells<watch::Sender<u64>>,
    locks: Cells<RwLock<Arc<u64>>>,
    locked: Named<RwLock<HashMap<String, Value>>>,
    parked: Named<parking_lot::RwLock<HashMap<String, Value>>>,
    dashed: Named<DashMap<String, Value>>,
    papaya: Named<papaya::HashMap<String, Value>>,
    left_right: Named<LeftRight>,
    go: Named<GoService>,
}

impl Rivals {
    fn new() -> Self {
        Self {
            mainstay: Mainstay::new(SERVICES + 1, SERVICES + 1),
            pointers: Cells::new(),
            pointers_and_states: Cells::new(),
            loads_and_states: Cells::new(),
            swaps: Cells::new(),
            pinned: Cells::new(),
            watches: Cells::new(),
            locks: Cells::new(),
            locked: Named::new(RwLock::default()),
            parked: Named::new(parking_lot::RwLock::default()),
            dashed: Named::new(DashMap::new()),
            papaya: Named::new(papaya::HashMap::new()),
            left_right: Named::new(LeftRight::new()),
            go: Named::new(GoService::new()),
        }
    }

    /// Calls `bench` for each candidate with its name, the container that the background thread
    /// writes to, and a function that executes `n` reads on one thread.
    fn each(
        &self,
        order: &[usize],
        mut bench: impl FnMut(&str, &dyn Container, &(dyn Fn(u64) + Sync)),
    ) {
        let Self { mainstay, pointers, swaps, pinned, watches, locks, .. } = self;
        bench("floor", pointers, &|n| each(n, order, |i| *pointers.of(i).load()));
        let Self { pointers_and_states, loads_and_states, .. } = self;
        bench("limit: pointer and state", pointers_and_states, &|n| {
            let mut kept: Vec<_> =
                pointers_and_states.iter().map(PointerAndState::observe).collect();
            each(n, order, |i| pointers_and_states.of(i).load(&mut kept[i]));
        });
        bench("limit: arc-swap load and state", loads_and_states, &|n| {
            each(n, order, |i| loads_and_states.of(i).load());
        });
        bench("mainstay cached", mainstay, &|n| {
            let mut cached = mainstay.cached();
            each(n, order, |i| **cached[i].get().unwrap());
        });
        bench("mainstay reader", mainstay, &|n| each(n, order, |i| mainstay.read(i)));
        bench("mainstay get", mainstay, &|n| each(n, order, |i| mainstay.get(i)));
        bench("mainstay get_arc", mainstay, &|n| each(n, order, |i| mainstay.get_arc(i)));
        bench("mainstay get_all of 3", mainstay, &|n| each(n, order, |i| mainstay.get_all(i)));
        bench("arc-swap load", swaps, &|n| each(n, order, |i| **swaps.of(i).load()));
        bench("arc-swap Cache", swaps, &|n| {
            let mut caches: Vec<_> = swaps.iter().map(Cache::new).collect();
            each(n, order, |i| **caches[i].load());
        });
        bench("crossbeam-epoch", pinned, &|n| each(n, order, |i| pinned.of(i).load()));
        bench("tokio watch", watches, &|n| {
            let receivers: Vec<_> = watches.iter().map(watch::Sender::subscribe).collect();
            each(n, order, |i| *receivers[i].borrow());
        });
        bench("RwLock per slot", locks, &|n| each(n, order, |i| **locks.of(i).read().unwrap()));

        let Self { locked, parked, dashed, papaya, left_right, go, .. } = self;
        bench("std RwLock<HashMap>", locked, &|n| {
            each(n, order, |i| {
                let value = locked.map.read().unwrap().get(locked.name(i)).cloned();
                number(&value.unwrap())
            });
        });
        bench("parking_lot RwLock<HashMap>", parked, &|n| {
            each(n, order, |i| {
                let value = parked.map.read().get(parked.name(i)).cloned();
                number(&value.unwrap())
            });
        });
        bench("dashmap", dashed, &|n| {
            each(n, order, |i| number(&dashed.map.get(dashed.name(i)).unwrap()));
        });
        bench("papaya", papaya, &|n| {
            each(n, order, |i| number(papaya.map.pin().get(papaya.name(i)).unwrap()));
        });
        bench("left-right", left_right, &|n| {
            let reader = left_right.map.reader();
            each(n, order, |i| number(reader.enter().unwrap().get(left_right.name(i)).unwrap()));
        });
        bench("Go design", go, &|n| {
            each(n, order, |i| number(&go.map.get(go.name(i)).unwrap()));
        });
    }
}

fn reads(c: &mut Criterion) {
    let rivals = Rivals::new();
    for (which, order) in &orders() {
        for load in ["quiet", "busy"] {
            for threads in thread_counts() {
                let mut group =
                    c.benchmark_group(format!("reads/{which}/{load}/{threads} threads"));
                group.sampling_mode(SamplingMode::Flat);
                rivals.each(order, |name, container, read| {
                    let time = |n| on_threads(threads, n, read);
                    group.bench_function(name, |b| match load {
                        "busy" => b.iter_custom(|n| disturbed(container, order, || time(n))),
                        _ => b.iter_custom(time),
                    });
                });
                group.finish();
            }
        }
    }
}

/// Reads ten services of registries of several sizes. The reads are the same; only the distance
/// between the services in memory differs.
fn registry_sizes(c: &mut Criterion) {
    const READ: usize = 10;

    let mut random = fastrand::Rng::with_seed(10);
    let order: Vec<_> = (0..ORDER).map(|_| random.usize(..READ)).collect();
    let mut group = c.benchmark_group("reads/registry size");
    group.sampling_mode(SamplingMode::Flat);
    for size in [READ, 1_000, 1_000_000] {
        let mainstay = Mainstay::new(size, READ);
        let mut bench = |name: &str, read: &(dyn Fn(u64) + Sync)| {
            let id = BenchmarkId::new(name, size);
            group.bench_function(id, |b| b.iter_custom(|n| on_threads(1, n, read)));
        };
        bench("mainstay cached", &|n| {
            let mut cached = mainstay.cached();
            each(n, &order, |i| **cached[i].get().unwrap());
        });
        bench("mainstay reader", &|n| each(n, &order, |i| mainstay.read(i)));
        bench("mainstay get", &|n| each(n, &order, |i| mainstay.get(i)));
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = criterion("reads")
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(600))
        .sample_size(20)
        .without_plots();
    targets = reads, registry_sizes
}
criterion_main!(benches);
