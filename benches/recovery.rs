//! The time from a failure of the root until all its dependents are ready again, rebuilt from the
//! new value of the root, by the depth and the width of the graph. Each service has a provider of
//! its own, on a task or a thread, which waits for its dependency and adds one to that value.
//!
//! - "mainstay, tokio": tasks on a runtime with one thread for each core;
//! - "mainstay, one thread": tasks on a runtime with one thread;
//! - "mainstay, threads": one thread for each provider;
//! - "Go design": tasks as in the first, which check every 10 microseconds whether the dependency
//!   is ready.
//!
//! One more such task or thread fails the root. It waits for each service and asserts its value.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use criterion::{Criterion, criterion_group, criterion_main};
use mainstay_benches::{
    features::criterion,
    recovering::{Node, Number, by_hand, compare, on_one_thread, on_threads, on_tokio},
    rivals::{
        go_service::{GoService, pause},
        maps::number,
    },
    runtime,
};
use tokio::task::JoinSet;

/// The services of the Go package; `nodes` has the name and the depth of each.
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
            let start = Instant::now();
            self.services.fail(&self.nodes[0].0);
            self.wait_for_all(number).await;
            total += start.elapsed();
            assert_eq!(self.services.failures() as u64, self.nodes.len() as u64 * number);
        }
        total
    }

    /// A service may still be ready with its old value, because `fail` returns before the
    /// dependents have failed.
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
    // The tasks are aborted when this set is dropped.
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
    compare(
        c,
        "recovery",
        &[
            ("mainstay, tokio", |nodes, rounds| on_tokio(nodes, by_hand, rounds)),
            ("mainstay, one thread", |nodes, rounds| on_one_thread(nodes, by_hand, rounds)),
            ("Go design", go_design),
        ],
        &[("mainstay, threads", |nodes, rounds| on_threads(nodes, by_hand, rounds))],
    );
}

criterion_group! {
    name = benches;
    config = criterion("recovery")
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(600))
        .sample_size(10)
        .without_plots();
    targets = recovery
}
criterion_main!(benches);
