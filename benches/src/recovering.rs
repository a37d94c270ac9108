//! Services that form a tree and recover from failures of the root. Each has a provider of its own,
//! which waits for the dependency and adds one to its value.

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
#[cfg(feature = "supervise")]
use mainstay::supervise::{Closing, Live, RestartPolicy};
use mainstay::{Provider, Registry, ServiceId, error::WaitForError};
use tokio::{
    runtime::{Builder, Runtime},
    task::JoinSet,
};

use crate::{
    graphs::{Graph, chain, hub},
    runtime,
};

/// One service of the tree.
pub struct Node {
    pub name: String,
    /// None for the root.
    pub dependency: Option<usize>,
    pub depth: u64,
}

/// A root and this number of services below it, each of which depends on exactly one other.
pub fn nodes(graph: Graph, dependents: usize) -> Vec<Node> {
    let mut nodes = vec![Node { name: "service 0".into(), dependency: None, depth: 0 }];
    for (dependent, dependency) in graph(dependents + 1) {
        assert_eq!(dependent, nodes.len(), "the graph must be a tree");
        let depth = nodes[dependency].depth + 1;
        let name = format!("service {dependent}");
        nodes.push(Node { name, dependency: Some(dependency), depth });
    }
    nodes
}

/// The value of the root, which changes before each failure. The failure makes the change visible
/// to the provider.
pub type Number = Arc<AtomicU64>;

/// The loop of a provider, which ends when the registry is closed.
pub type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Creates the loop of the provider of a service, which has this dependency.
pub type Provide = fn(&Registry, ServiceId<u64>, Option<ServiceId<u64>>, Number) -> Work;

pub struct Services {
    registry: Registry,
    /// The id and the depth of each service.
    services: Vec<(ServiceId<u64>, u64)>,
    number: Number,
}

impl Services {
    /// Returns the services, and the loops of their providers.
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

    /// Waits until all services are ready, lets them recover this number of times, and closes the
    /// registry. Returns the time of the recoveries.
    async fn time(self, rounds: u64) -> Duration {
        self.wait_for_all(0).await;
        let mut total = Duration::ZERO;
        for number in 1..=rounds {
            self.number.store(number, Ordering::Relaxed);
            let start = Instant::now();
            let cascade = self.registry.fail(self.services[0].0, "bench").unwrap();
            self.wait_for_all(number).await;
            total += start.elapsed();
            assert_eq!(cascade.failed, self.services.len());
        }
        self.registry.close();
        total
    }

    /// Waits until all services are ready, changes the root this number of times, and closes the
    /// registry. Returns the sum of what `round` returns, which is called before and after each
    /// change.
    #[cfg(feature = "supervise")]
    async fn change(self, change: Change, rounds: u64, round: OnRound<'_>) -> Duration {
        self.wait_for_all(0).await;
        let (root, registry) = (self.services[0].0, &self.registry);
        let (last, _) = self.services[self.services.len() - 1];
        let mut total = Duration::ZERO;
        for number in 1..=rounds {
            self.number.store(number, Ordering::Relaxed);
            total += round(Round::Begins { registry, last });
            let start = Instant::now();
            let switch_took = match change {
                Change::Reload => {
                    let reloaded = registry.reload(root).await.unwrap();
                    assert_eq!(reloaded.members.len(), self.services.len());
                    reloaded.switch_took.unwrap()
                }
                Change::Restart => {
                    registry.fail(root, "bench").unwrap();
                    self.wait_for_all(number).await;
                    Duration::ZERO
                }
            };
            total += round(Round::Ends { took: start.elapsed(), switch_took });
            self.wait_for_all(number).await;
        }
        registry.close();
        total
    }

    async fn wait_for_all(&self, number: u64) {
        for &(id, depth) in &self.services {
            assert_eq!(**self.registry.wait_ready(id).await.unwrap(), number + depth);
        }
    }
}

/// How a new value of the root gets to all services.
#[cfg(feature = "supervise")]
#[derive(Clone, Copy)]
pub enum Change {
    Reload,
    /// A failure of the root.
    Restart,
}

/// A call before a change or after it.
#[cfg(feature = "supervise")]
pub enum Round<'a> {
    Begins {
        registry: &'a Registry,
        last: ServiceId<u64>,
    },
    Ends {
        took: Duration,
        /// The time of the switch of a reload.
        switch_took: Duration,
    },
}

/// Called before and after each change. The sum of the results is measured.
#[cfg(feature = "supervise")]
pub type OnRound<'a> = &'a mut dyn FnMut(Round<'_>) -> Duration;

/// Returns the loop of a provider, written by hand.
pub fn by_hand(
    registry: &Registry,
    id: ServiceId<u64>,
    dependency: Option<ServiceId<u64>>,
    number: Number,
) -> Work {
    Box::pin(provide(registry.provide(id).unwrap(), dependency, number))
}

/// Returns the supervisor of a service.
///
/// `reset_after` is zero, so each failure of the root follows a stable time, and no backoff follows
/// it.
#[cfg(feature = "supervise")]
pub fn supervised(
    registry: &Registry,
    id: ServiceId<u64>,
    dependency: Option<ServiceId<u64>>,
    number: Number,
) -> Work {
    let policy = RestartPolicy::default().reset_after(Duration::ZERO);
    let supervisor = registry.supervise(id).unwrap().restart_policy(policy);
    Box::pin(supervisor.run(async move |build| {
        Ok::<_, WaitForError>(match dependency {
            None => number.load(Ordering::Relaxed),
            Some(dependency) => **build.wait_for(dependency).await? + 1,
        })
    }))
}

/// Returns the supervisor of a service that depends on nothing. Its body waits for the end of its
/// instance, and its close hook counts the closed values in `closed`.
#[cfg(feature = "supervise")]
pub fn supervised_with_body_and_close_hook(
    registry: &Registry,
    id: ServiceId<u64>,
    dependency: Option<ServiceId<u64>>,
    closed: Number,
) -> Work {
    assert!(dependency.is_none());
    let policy = RestartPolicy::default().reset_after(Duration::ZERO);
    let supervisor = registry.supervise(id).unwrap().restart_policy(policy);
    let supervisor = supervisor.body(async |live: Live<u64>| live.stopping().await.map(drop));
    let supervisor = supervisor.on_close(async move |value: Closing<u64>| {
        closed.fetch_add(*value, Ordering::Relaxed);
    });
    Box::pin(supervisor.run(async |_| 1))
}

async fn provide(provider: Provider<u64>, dependency: Option<ServiceId<u64>>, number: Number) {
    loop {
        let Ok(attempt) = provider.begin().await else { return };
        let value = match dependency {
            None => number.load(Ordering::Relaxed),
            Some(dependency) => match attempt.wait_for(dependency).await {
                Ok(value) => **value + 1,
                Err(WaitForError::Invalidated(_)) => continue,
                Err(_) => return,
            },
        };
        let Ok(running) = attempt.ready(value) else { continue };
        if running.failed().await.is_err() {
            return;
        }
    }
}

/// Runs all providers as tasks on a runtime with one thread for each core.
pub fn on_tokio(nodes: &[Node], provide: Provide, rounds: u64) -> Duration {
    on_runtime(runtime(), nodes, provide, rounds)
}

/// Runs all providers as tasks on a runtime with one thread.
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
        let elapsed = runtime.spawn(services.time(rounds)).await.unwrap();
        tasks.join_all().await;
        elapsed
    })
}

/// Changes the root this number of times, with all supervisors on a runtime with one thread.
/// Returns the sum of what `round` returns.
#[cfg(feature = "supervise")]
pub fn changes_on_one_thread(
    nodes: &[Node],
    change: Change,
    rounds: u64,
    round: OnRound<'_>,
) -> Duration {
    let (services, work) = Services::new(nodes, supervised);
    Builder::new_current_thread().build().unwrap().block_on(async {
        let mut tasks = JoinSet::new();
        for provider in work {
            tasks.spawn(provider);
        }
        let total = services.change(change, rounds, round).await;
        tasks.join_all().await;
        total
    })
}

/// Runs each provider on a thread of its own. `wait_blocking` does the same as this `block_on`: it
/// parks the thread between two polls.
pub fn on_threads(nodes: &[Node], provide: Provide, rounds: u64) -> Duration {
    let (services, work) = Services::new(nodes, provide);
    let spawn = |provider| thread::spawn(|| block_on(provider));
    let threads: Vec<_> = work.into_iter().map(spawn).collect();
    let elapsed = block_on(services.time(rounds));
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    elapsed
}

/// Runs this number of recoveries, and returns their time.
pub type Recover = fn(&[Node], u64) -> Duration;

/// The maximum number of threads at the same time.
const THREADS_MAX: usize = 100;

/// Measures all candidates, with chains and with fan-outs.
///
/// Candidates with one thread for each service come last: each publication visits all threads of
/// this process that have ever read (`publication.rs`), which would slow down the candidates after
/// them.
pub fn compare(
    c: &mut Criterion,
    name: &str,
    tasks: &[(&str, Recover)],
    threads: &[(&str, Recover)],
) {
    let chains = [1, 10, 100].map(|dependents| ("chain", chain as Graph, dependents));
    let fan_outs = [1, 10, 100, 1_000].map(|dependents| ("fan-out", hub as Graph, dependents));
    for (all, max) in [(tasks, usize::MAX), (threads, THREADS_MAX)] {
        for (shape, graph, dependents) in chains.into_iter().chain(fan_outs) {
            if dependents > max {
                continue;
            }
            let nodes = nodes(graph, dependents);
            let mut group = c.benchmark_group(format!("{name}/{shape}"));
            group.sampling_mode(SamplingMode::Flat);
            for (how, recover) in all {
                let id = BenchmarkId::new(*how, dependents);
                group.bench_function(id, |b| b.iter_custom(|n| recover(&nodes, n)));
            }
            group.finish();
        }
    }
}
