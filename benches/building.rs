//! What registries of many services cost to build and to change, in time and in bytes.
//!
//! `cargo bench --bench building` runs all sizes, up to a million services: up to a hundred thousand by
//! criterion, and each once more for a table, which is also left as `building.json` beside criterion's own
//! results. `BUILDING_MAX=10000` leaves out what is larger. With `-- --test` there is the smallest size only,
//! and nothing is written.
//!
//! The bytes are those that were asked of the allocator, without its own overhead, and without what epochs
//! have retired but not yet freed; the peak is with that. Times and bytes are of two runs: counting takes time.

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

/// What takes longer is run once.
const CRITERION_MAX: usize = 100_000;

/// So many services discover an edge, at the most.
const DISCOVERIES: usize = 10_000;

/// So many services are discovered.
const DISCOVERED: usize = 16;

const ANSWER: u64 = 42;

/// The names and edges of a registry, made beforehand.
struct Plan {
    graph: &'static str,
    names: Vec<String>,
    edges: Vec<Edge>,
}

/// What one step took.
#[derive(Clone, Copy)]
struct Took {
    time: Duration,
    bytes: isize,
}

fn step<R>(work: impl FnOnce() -> R) -> (R, Took) {
    let before = ALLOCATOR.bytes();
    let begun = Instant::now();
    let result = work();
    let time = begun.elapsed();
    (result, Took { time, bytes: ALLOCATOR.bytes() - before })
}

/// A registry, and what it took to make.
struct Built {
    registry: Registry,
    ids: Vec<ServiceId<u64>>,
    slab: Took,
    names: Took,
    edges: Took,
    build: Took,
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
                builder.add_dependency(ids[dependent], ids[dependency]).unwrap();
            }
        });
        let (registry, build) = step(|| builder.build());
        Built { registry, ids, slab, names, edges, build }
    }
}

impl Built {
    /// The first failure of the root, which reaches the last service: both are ready before.
    fn fail(&self) -> Took {
        let ends = [self.ids[0], self.ids[self.ids.len() - 1]];
        let providers = ends.map(|id| self.registry.provide(id).unwrap());
        let _running = providers.each_ref().map(|provider| {
            let attempt = provider.begin().wait().unwrap();
            attempt.ready(ANSWER).unwrap()
        });
        let (cascade, took) = step(|| self.registry.fail(ends[0], "bench").unwrap());
        assert_eq!(cascade.went_down, 2);
        took
    }

    /// Attempts of services in the second half wait for ready ones of the first quarter, one each: an edge that
    /// is in none of the graphs. Gives their number, too.
    fn discover(&self) -> (usize, Duration) {
        let services = self.ids.len();
        let spread = |count: usize, from: usize, to: usize| {
            (0..count).map(move |i| self.ids[from + i * (to - from) / count])
        };
        let found: Vec<_> = spread(DISCOVERED, 1, services / 4).collect();
        let found_providers: Vec<_> =
            found.iter().map(|&id| self.registry.provide(id).unwrap()).collect();
        let _found: Vec<_> = found_providers
            .iter()
            .map(|provider| provider.begin().wait().unwrap().ready(ANSWER).unwrap())
            .collect();

        let count = DISCOVERIES.min(services - services / 2);
        let dependents = spread(count, services / 2, services);
        let providers: Vec<_> = dependents.map(|id| self.registry.provide(id).unwrap()).collect();
        let attempts: Vec<_> =
            providers.iter().map(|provider| provider.begin().wait().unwrap()).collect();
        let dependencies = |id| self.registry.status(id).unwrap().dependencies.len();
        let edges = || providers.iter().map(|provider| dependencies(provider.id())).sum::<usize>();

        let before = edges();
        let begun = Instant::now();
        for (attempt, &dependency) in attempts.iter().zip(found.iter().cycle()) {
            assert_eq!(**attempt.wait_for(dependency).wait().unwrap(), ANSWER);
        }
        let took = begun.elapsed();
        assert_eq!(edges(), before + count);
        (count, took)
    }
}

fn sizes() -> impl Iterator<Item = usize> {
    let max = match env::var("BUILDING_MAX") {
        Ok(max) => max.parse().expect("BUILDING_MAX is a number of services"),
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

/// A line of the table.
#[derive(Serialize)]
struct Line {
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
    /// Those of the two before it: a row may be made by either.
    bytes_rows: isize,
    peak_bytes: isize,
}

impl Line {
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
            bytes_rows: counted.build.bytes + bytes_first_failure,
            peak_bytes,
        }
    }

    /// Times in milliseconds, bytes by service.
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
            each(self.bytes_rows),
            each(self.peak_bytes),
        );
    }
}

/// Each size of each graph, once.
fn table(_: &mut Criterion) {
    println!(
        "\n{:<15} {:>8} {:>8} | {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} | {:>6} {:>6} {:>6} {:>8} {:>8}",
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
        "rows",
        "peak",
    );
    let mut lines = Vec::new();
    for (graph, edges) in GRAPHS {
        for services in sizes() {
            let line = Line::measure(&Plan::new(graph, edges, services));
            line.print();
            lines.push(line);
        }
    }
    if !is_test() {
        let results = results();
        fs::create_dir_all(&results).unwrap();
        let lines = serde_json::to_string_pretty(&lines).unwrap();
        fs::write(results.join("building.json"), lines).unwrap();
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
