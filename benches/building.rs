//! The cost of a large registry: the time to build and to change it, and its memory.
//!
//! `cargo bench --bench building` runs all sizes, up to a million services. Criterion measures the
//! sizes up to a hundred thousand. In addition, each size is built once for a table, which is
//! written to `building.json` in the directory of criterion's results. `BUILDING_MAX=10000` leaves
//! out the larger sizes. With `-- --test` only the smallest size runs, and nothing is written.
//!
//! The bytes are those that were requested from the allocator, without the overhead of the
//! allocator. They do not include memory that is retired but not yet freed; the peak does. Times
//! and bytes are measured in two separate runs, because counting takes time.

use std::{
    env, fs,
    time::{Duration, Instant},
};

use criterion::{
    BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main,
};
use mainstay::{Registry, ServiceId};
use mainstay_benches::{
    counting::Counting,
    features::criterion,
    graphs::{Edge, GRAPHS, Graph},
    is_test, results,
};
use serde::Serialize;

#[global_allocator]
static ALLOCATOR: Counting = Counting::new();

const SIZES: [usize; 4] = [1_000, 10_000, 100_000, 1_000_000];

/// Larger sizes are built only once, for the table.
const CRITERION_MAX: usize = 100_000;

/// The maximum number of services that discover an edge.
const DISCOVERIES: usize = 10_000;

/// The number of services that become dependencies by a discovered edge.
const DISCOVERED: usize = 16;

const ANSWER: u64 = 42;

/// The names and edges of a registry, created before the measurement.
struct Plan {
    graph: &'static str,
    names: Vec<String>,
    edges: Vec<Edge>,
}

/// The cost of one step.
#[derive(Clone, Copy)]
struct Cost {
    time: Duration,
    bytes: isize,
}

fn step<R>(work: impl FnOnce() -> R) -> (R, Cost) {
    let before = ALLOCATOR.bytes();
    let start = Instant::now();
    let result = work();
    let time = start.elapsed();
    (result, Cost { time, bytes: ALLOCATOR.bytes() - before })
}

/// A registry, and the cost of each step of building it.
struct Built {
    registry: Registry,
    ids: Vec<ServiceId<u64>>,
    slab: Cost,
    names: Cost,
    edges: Cost,
    build: Cost,
}

impl Plan {
    fn new(graph: &'static str, edges: Graph, services: usize) -> Self {
        let names = (0..services).map(|i| format!("service {i}")).collect();
        Self { graph, names, edges: edges(services) }
    }

    fn build(&self) -> Built {
        let mut ids = Vec::with_capacity(self.names.len());
        let (mut builder, slab) = step(|| Registry::builder(self.names.len()).unwrap());
        let ((), names) = step(|| {
            ids.extend(self.names.iter().map(|name| builder.register::<u64>(name).unwrap()));
        });
        let ((), edges) = step(|| {
            for &(dependent, dependency) in &self.edges {
                builder.depends(ids[dependent]).on(ids[dependency]).unwrap();
            }
        });
        let (registry, build) = step(|| builder.build());
        Built { registry, ids, slab, names, edges, build }
    }
}

impl Built {
    /// The first failure of the root. The root and the last service of its closure are ready before
    /// it; the others are down.
    fn fail(&self) -> Cost {
        let ends = [self.ids[0], self.ids[self.ids.len() - 1]];
        let providers = ends.map(|id| self.registry.provide(id).unwrap());
        let _running = providers.each_ref().map(|provider| {
            let attempt = provider.begin().wait_blocking().unwrap();
            attempt.ready(ANSWER).unwrap()
        });
        let (cascade, cost) = step(|| self.registry.fail(ends[0], "bench").unwrap());
        assert_eq!(cascade.failed, 2);
        cost
    }

    /// Attempts at services of the second half each wait for one ready service of the first
    /// quarter, which adds an edge that none of the graphs has. Returns the number of edges and the
    /// time.
    fn discover(&self) -> (usize, Duration) {
        let services = self.ids.len();
        let spread = |count: usize, from: usize, to: usize| {
            (0..count).map(move |i| self.ids[from + i * (to - from) / count])
        };
        let dependencies: Vec<_> = spread(DISCOVERED, 1, services / 4).collect();
        let dependency_providers: Vec<_> =
            dependencies.iter().map(|&id| self.registry.provide(id).unwrap()).collect();
        let _running: Vec<_> = dependency_providers
            .iter()
            .map(|provider| provider.begin().wait_blocking().unwrap().ready(ANSWER).unwrap())
            .collect();

        let count = DISCOVERIES.min(services - services / 2);
        let dependents = spread(count, services / 2, services);
        let providers: Vec<_> = dependents.map(|id| self.registry.provide(id).unwrap()).collect();
        let attempts: Vec<_> =
            providers.iter().map(|provider| provider.begin().wait_blocking().unwrap()).collect();
        let count_edges = |id| self.registry.status(id).unwrap().dependencies.len();
        let edges = || providers.iter().map(|provider| count_edges(provider.id())).sum::<usize>();

        let before = edges();
        let start = Instant::now();
        for (attempt, &dependency) in attempts.iter().zip(dependencies.iter().cycle()) {
            assert_eq!(**attempt.wait_for(dependency).wait_blocking().unwrap(), ANSWER);
        }
        let elapsed = start.elapsed();
        assert_eq!(edges(), before + count);
        (count, elapsed)
    }
}

fn sizes() -> impl Iterator<Item = usize> {
    let max = match env::var("BUILDING_MAX") {
        Ok(max) => max.parse().expect("BUILDING_MAX must be a number of services"),
        Err(_) => SIZES[SIZES.len() - 1],
    };
    let max = if is_test() { SIZES[0] } else { max };
    SIZES.into_iter().filter(move |&size| size <= max)
}

fn building(c: &mut Criterion) {
    for (graph, edges) in GRAPHS {
        let mut group = c.benchmark_group(format!("building/{graph}"));
        group.sampling_mode(SamplingMode::Flat);
        for services in sizes().filter(|&size| size <= CRITERION_MAX) {
            let plan = Plan::new(graph, edges, services);
            let mut bench = |name: &str, elements: usize, time: fn(&Built) -> Duration| {
                group.throughput(Throughput::Elements(elements as u64));
                group.bench_function(BenchmarkId::new(name, services), |b| {
                    b.iter_custom(|n| (0..n).map(|_| time(&plan.build())).sum());
                });
            };
            bench("register", services, |built| built.slab.time + built.names.time);
            bench("add edges", plan.edges.len(), |built| built.edges.time);
            bench("build", services, |built| built.build.time);
            bench("first failure", services, |built| built.fail().time);
            let discoveries = DISCOVERIES.min(services - services / 2);
            bench("discover an edge each", discoveries, |built| built.discover().1);
        }
        group.finish();
    }
}

/// A row of the table.
#[derive(Serialize)]
struct Row {
    graph: &'static str,
    services: usize,
    edges: usize,
    seconds_slab: f64,
    seconds_register: f64,
    seconds_edges: f64,
    seconds_build: f64,
    seconds_first_failure: f64,
    discovered: usize,
    seconds_discover: f64,
    bytes_slab: isize,
    bytes_names: isize,
    bytes_edges: isize,
    bytes_build: isize,
    bytes_first_failure: isize,
    /// The sum of the two fields before it: the build or the first failure may allocate the memory
    /// for precomputed closures.
    bytes_closures: isize,
    peak_bytes: isize,
}

impl Row {
    fn measure(plan: &Plan) -> Self {
        let timed = plan.build();
        let first_failure = timed.fail().time;
        let (discovered, discover) = timed.discover();

        let (counted, bytes_first_failure, peak_bytes) = ALLOCATOR.while_on(|| {
            let counted = plan.build();
            let bytes = counted.fail().bytes;
            (counted, bytes, ALLOCATOR.peak())
        });

        Self {
            graph: plan.graph,
            services: plan.names.len(),
            edges: plan.edges.len(),
            seconds_slab: timed.slab.time.as_secs_f64(),
            seconds_register: timed.names.time.as_secs_f64(),
            seconds_edges: timed.edges.time.as_secs_f64(),
            seconds_build: timed.build.time.as_secs_f64(),
            seconds_first_failure: first_failure.as_secs_f64(),
            discovered,
            seconds_discover: discover.as_secs_f64(),
            bytes_slab: counted.slab.bytes,
            bytes_names: counted.names.bytes,
            bytes_edges: counted.edges.bytes,
            bytes_build: counted.build.bytes,
            bytes_first_failure,
            bytes_closures: counted.build.bytes + bytes_first_failure,
            peak_bytes,
        }
    }

    /// Prints times in milliseconds, and bytes for each service.
    fn print(&self) {
        let ms = |seconds: f64| seconds * 1e3;
        let each = |bytes: isize| bytes as f64 / self.services as f64;
        println!(
            "{:<15} {:>8} {:>8} | {:>9.2} {:>9.2} {:>9.2} {:>9.2} {:>9.3} {:>9.2} \
             | {:>6.1} {:>6.1} {:>6.1} {:>8.1} {:>8.1}",
            self.graph,
            self.services,
            self.edges,
            ms(self.seconds_slab),
            ms(self.seconds_register),
            ms(self.seconds_edges),
            ms(self.seconds_build),
            ms(self.seconds_first_failure),
            ms(self.seconds_discover),
            each(self.bytes_slab),
            each(self.bytes_names),
            each(self.bytes_edges),
            each(self.bytes_closures),
            each(self.peak_bytes),
        );
    }
}

/// Measures each size of each graph once.
fn table(_: &mut Criterion) {
    println!(
        "\n{:<15} {:>8} {:>8} | {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} \
         | {:>6} {:>6} {:>6} {:>8} {:>8}",
        "",
        "services",
        "edges",
        "slab, ms",
        "names",
        "edges",
        "build",
        "1st fail",
        "discover",
        "slab, B",
        "names",
        "edges",
        "closures",
        "peak",
    );
    let mut rows = Vec::new();
    for (graph, edges) in GRAPHS {
        for services in sizes() {
            let row = Row::measure(&Plan::new(graph, edges, services));
            row.print();
            rows.push(row);
        }
    }
    if !is_test() {
        let results = results();
        fs::create_dir_all(&results).unwrap();
        let rows = serde_json::to_string_pretty(&rows).unwrap();
        fs::write(results.join("building.json"), rows).unwrap();
    }
}

criterion_group! {
    name = benches;
    config = criterion("building")
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(600))
        .sample_size(10)
        .without_plots();
    targets = building, table
}
criterion_main!(benches);
