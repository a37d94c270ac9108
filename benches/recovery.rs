//! From a failure of the root until everything that stands on it is ready again, rebuilt from the root's new
//! value, by how deep and how wide it is. Each service has a provider of its own, a task or a thread, which waits
//! for what it depends on and adds one to that value.
//!
//! - "mainstay, tokio": tasks on a runtime with a thread for each core;
//! - "mainstay, one thread": tasks on a runtime of one thread;
//! - "mainstay, threads": a thread for each;
//! - "Go design": tasks as in the first, which look every 10 microseconds whether what they wait for is there.
//!
//! Who fails the root is one more of those tasks or threads; it waits for each service, and asserts its value.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use criterion::{BenchmarkId, Criterion, SamplingMode, criterion_group, criterion_main};
use futures_lite::future::block_on;
use mainstay::{Provider, Registry, ServiceId, WaitForError};
use mainstay_benches::{
    graphs::{Graph, chain, hub},
    rivals::{
        go_service::{GoService, pause},
        maps::number,
    },
    runtime,
};
use tokio::{
    runtime::{Builder, Runtime},
    task::JoinSet,
};

/// The most threads at once.
const THREADS_MAX: usize = 100;

/// What one service is built from.
struct Node {
    name: String,
    /// None for the root.
    dependency: Option<usize>,
    depth: u64,
}

/// A root and so many services that stand on it, each on one other.
fn nodes(graph: Graph, below: usize) -> Vec<Node> {
    let mut nodes = vec![Node { name: "service 0".into(), dependency: None, depth: 0 }];
    for (dependent, dependency) in graph(below + 1) {
        assert_eq!(dependent, nodes.len(), "a tree");
        let depth = nodes[dependency].depth + 1;
        let name = format!("service {dependent}");
        nodes.push(Node { name, dependency: Some(dependency), depth });
    }
    nodes
}

/// What the root is built with, another number each time. The failure makes it known to the provider.
type Number = Arc<AtomicU64>;

struct Mainstay {
    registry: Registry,
    /// With their depth.
    services: Vec<(ServiceId<u64>, u64)>,
    number: Number,
}

impl Mainstay {
    /// The services, and their providers' work.
    fn new(nodes: &[Node]) -> (Self, Vec<impl Future<Output = ()> + Send + use<>>) {
        let registry = Registry::with_capacity(nodes.len()).unwrap();
        let id = |node: &Node| registry.register(&node.name).unwrap();
        let ids: Vec<ServiceId<u64>> = nodes.iter().map(id).collect();
        let number = Number::default();
        let work = nodes.iter().zip(&ids).map(|(node, &id)| {
            let provider = registry.provide(id).unwrap();
            provide(provider, node.dependency.map(|on| ids[on]), Arc::clone(&number))
        });
        let work = work.collect();
        let services = ids.iter().zip(nodes).map(|(&id, node)| (id, node.depth)).collect();
        (Self { registry, services, number }, work)
    }

    /// The services come up, recover so often, and the registry is closed.
    async fn time(self, rounds: u64) -> Duration {
        self.wait_for_all(0).await;
        let mut total = Duration::ZERO;
        for number in 1..=rounds {
            self.number.store(number, Ordering::Relaxed);
            let begun = Instant::now();
            let cascade = self.registry.fail(self.services[0].0, "bench").unwrap();
            self.wait_for_all(number).await;
            total += begun.elapsed();
            assert_eq!(cascade.went_down, self.services.len());
        }
        self.registry.close();
        total
    }

    async fn wait_for_all(&self, number: u64) {
        for &(id, depth) in &self.services {
            assert_eq!(**self.registry.wait_ready(id).await.unwrap(), number + depth);
        }
    }
}

async fn provide(provider: Provider<u64>, dependency: Option<ServiceId<u64>>, number: Number) {
    loop {
        let Ok(attempt) = provider.begin().await else { return };
        let value = match dependency {
            None => number.load(Ordering::Relaxed),
            Some(dependency) => match attempt.wait_for(dependency).await {
                Ok(value) => **value + 1,
                Err(WaitForError::Overtaken(_)) => continue,
                Err(_) => return,
            },
        };
        let Ok(running) = attempt.ready(value) else { continue };
        if running.failed().await.is_err() {
            return;
        }
    }
}

/// All as tasks on `runtime`.
fn on_runtime(runtime: &Runtime, nodes: &[Node], rounds: u64) -> Duration {
    let (services, work) = Mainstay::new(nodes);
    let mut tasks = JoinSet::new();
    for provider in work {
        tasks.spawn_on(provider, runtime.handle());
    }
    runtime.block_on(async {
        let took = runtime.spawn(services.time(rounds)).await.unwrap();
        tasks.join_all().await;
        took
    })
}

fn on_tokio(nodes: &[Node], rounds: u64) -> Duration {
    on_runtime(runtime(), nodes, rounds)
}

fn on_one_thread(nodes: &[Node], rounds: u64) -> Duration {
    on_runtime(&Builder::new_current_thread().build().unwrap(), nodes, rounds)
}

/// `block_on` is what `Wait::wait` does: it parks the thread between two polls.
fn on_threads(nodes: &[Node], rounds: u64) -> Duration {
    let (services, work) = Mainstay::new(nodes);
    let spawn = |provider| thread::spawn(|| block_on(provider));
    let threads: Vec<_> = work.into_iter().map(spawn).collect();
    let took = block_on(services.time(rounds));
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    took
}

/// The Go package's services, and what each provides.
struct Go {
    services: GoService,
    nodes: Vec<(String, u64)>,
    number: Number,
}

impl Go {
    async fn time(self, rounds: u64) -> Duration {
        self.wait_for_all(0).await;
        let mut total = Duration::ZERO;
        for number in 1..=rounds {
            self.number.store(number, Ordering::Relaxed);
            let begun = Instant::now();
            self.services.fail(&self.nodes[0].0);
            self.wait_for_all(number).await;
            total += begun.elapsed();
            assert_eq!(self.services.failures() as u64, self.nodes.len() as u64 * number);
        }
        total
    }

    /// A service may still be there with its old value: the failure comes to it later.
    async fn wait_for_all(&self, number: u64) {
        for (name, depth) in &self.nodes {
            while self::number(&self.services.wait_for(name).await) != number + depth {
                pause().await;
            }
        }
    }
}

async fn provide_go(services: GoService, name: String, dependency: Option<String>, number: Number) {
    loop {
        let value = match &dependency {
            None => number.load(Ordering::Relaxed),
            Some(dependency) => {
                services.add_dependent(dependency, &name);
                self::number(&services.wait_for(dependency).await) + 1
            }
        };
        services.ready(&name, Arc::new(value));
        services.failed(&name).await;
    }
}

fn go_design(nodes: &[Node], rounds: u64) -> Duration {
    let (services, number) = (GoService::new(), Number::default());
    nodes.iter().for_each(|node| services.provide(&node.name));
    // They end with this set.
    let mut tasks = JoinSet::new();
    for node in nodes {
        let dependency = node.dependency.map(|on| nodes[on].name.clone());
        let (services, number) = (services.clone(), Arc::clone(&number));
        let work = provide_go(services, node.name.clone(), dependency, number);
        tasks.spawn_on(work, runtime().handle());
    }
    let nodes = nodes.iter().map(|node| (node.name.clone(), node.depth)).collect();
    let go = Go { services, nodes, number };
    runtime().block_on(runtime().spawn(go.time(rounds))).unwrap()
}

fn recovery(c: &mut Criterion) {
    let shapes: [(&str, Graph, &[usize]); 2] =
        [("chain", chain, &[1, 10, 100]), ("fan-out", hub, &[1, 10, 100, 1_000])];
    for (shape, graph, counts) in shapes {
        let mut group = c.benchmark_group(format!("recovery/{shape}"));
        group.sampling_mode(SamplingMode::Flat);
        for &below in counts {
            let nodes = nodes(graph, below);
            let mut bench = |name: &str, time: fn(&[Node], u64) -> Duration| {
                let id = BenchmarkId::new(name, below);
                group.bench_function(id, |b| b.iter_custom(|n| time(&nodes, n)));
            };
            bench("mainstay, tokio", on_tokio);
            bench("mainstay, one thread", on_one_thread);
            if below <= THREADS_MAX {
                bench("mainstay, threads", on_threads);
            }
            bench("Go design", go_design);
        }
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(600))
        .sample_size(10)
        .without_plots();
    targets = recovery
}
criterion_main!(benches);
