//! Services in a tree, each with a provider of its own, that recover from failures of their root: each waits for what it
//! depends on, and adds one to that value.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use criterion::{BenchmarkId, Criterion, SamplingMode};
use futures_lite::future::block_on;
use mainstay::{Provider, Registry, ServiceId, WaitForError};
use tokio::{
    runtime::{Builder, Runtime},
    task::JoinSet,
};

use crate::{
    graphs::{Graph, chain, hub},
    runtime,
};

/// What one service is built from.
pub struct Node {
    pub name: String,
    /// None for the root.
    pub dependency: Option<usize>,
    pub depth: u64,
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
pub type Number = Arc<AtomicU64>;

/// What a provider does until the registry is closed.
pub type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Makes the work of a service's provider, which is told what the service depends on.
pub type Provide = fn(&Registry, ServiceId<u64>, Option<ServiceId<u64>>, Number) -> Work;

pub struct Services {
    registry: Registry,
    /// With their depth.
    services: Vec<(ServiceId<u64>, u64)>,
    number: Number,
}

impl Services {
    /// The services, and their providers' work.
    pub fn new(nodes: &[Node], provide: Provide) -> (Self, Vec<Work>) {
        let registry = Registry::with_capacity(nodes.len()).unwrap();
        let id = |node: &Node| registry.register(&node.name).unwrap();
        let ids: Vec<ServiceId<u64>> = nodes.iter().map(id).collect();
        let number = Number::default();
        let work = nodes.iter().zip(&ids).map(|(node, &id)| {
            provide(&registry, id, node.dependency.map(|on| ids[on]), Arc::clone(&number))
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

/// The loop that a provider takes by hand.
pub fn by_hand(
    registry: &Registry,
    id: ServiceId<u64>,
    dependency: Option<ServiceId<u64>>,
    number: Number,
) -> Work {
    Box::pin(provide(registry.provide(id).unwrap(), dependency, number))
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

/// All as tasks on a runtime with a thread for each core.
pub fn on_tokio(nodes: &[Node], provide: Provide, rounds: u64) -> Duration {
    on_runtime(runtime(), nodes, provide, rounds)
}

/// All as tasks on a runtime of one thread.
pub fn on_one_thread(nodes: &[Node], provide: Provide, rounds: u64) -> Duration {
    on_runtime(&Builder::new_current_thread().build().unwrap(), nodes, provide, rounds)
}

fn on_runtime(runtime: &Runtime, nodes: &[Node], provide: Provide, rounds: u64) -> Duration {
    let (services, work) = Services::new(nodes, provide);
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

/// A thread for each. `block_on` is what `Wait::wait` does: it parks the thread between two polls.
pub fn on_threads(nodes: &[Node], provide: Provide, rounds: u64) -> Duration {
    let (services, work) = Services::new(nodes, provide);
    let spawn = |provider| thread::spawn(|| block_on(provider));
    let threads: Vec<_> = work.into_iter().map(spawn).collect();
    let took = block_on(services.time(rounds));
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    took
}

/// So many rounds of recovery.
pub type Recover = fn(&[Node], u64) -> Duration;

/// The most threads at once.
const THREADS_MAX: usize = 100;

/// Times all of them, for chains and for fans.
///
/// What runs on a thread for each service comes last: each publication passes by all threads that have ever read at once in
/// this process, as `publication.rs` has it, and would do so for what comes after them.
pub fn compare(
    c: &mut Criterion,
    name: &str,
    tasks: &[(&str, Recover)],
    threads: &[(&str, Recover)],
) {
    let chains = [1, 10, 100].map(|below| ("chain", chain as Graph, below));
    let fans = [1, 10, 100, 1_000].map(|below| ("fan-out", hub as Graph, below));
    for (all, most) in [(tasks, usize::MAX), (threads, THREADS_MAX)] {
        for (shape, graph, below) in chains.into_iter().chain(fans) {
            if below > most {
                continue;
            }
            let nodes = nodes(graph, below);
            let mut group = c.benchmark_group(format!("{name}/{shape}"));
            group.sampling_mode(SamplingMode::Flat);
            for (how, recover) in all {
                let id = BenchmarkId::new(*how, below);
                group.bench_function(id, |b| b.iter_custom(|n| recover(&nodes, n)));
            }
            group.finish();
        }
    }
}
