//! What supervision costs: recovery as in `recovery.rs`, with each provider's loop written by hand and with a supervisor in
//! its place, on the same executor.
//!
//! With the feature every instance is counted, until its value has been dropped. What that adds to a publication is counted
//! in `instructions.rs`.

use std::{sync::atomic::Ordering, time::Duration};

use criterion::{BenchmarkId, Criterion, SamplingMode, criterion_group, criterion_main};
use mainstay::{Registry, Restart, ServiceId, WaitForError};
use mainstay_benches::{
    recovering::{
        Node, Number, Provide, THREADS_MAX, Work, by_hand, nodes, on_runtime, on_threads,
        tree_shapes,
    },
    runtime,
};
use tokio::runtime::Builder;

/// The root fails again and again, and never rests: whatever has been up was stable.
fn supervised(
    registry: &Registry,
    id: ServiceId<u64>,
    dependency: Option<ServiceId<u64>>,
    number: Number,
) -> Work {
    let restart = Restart::default().stable_after(Duration::ZERO);
    let supervisor = registry.supervise(id).unwrap().restart(restart);
    Box::pin(supervisor.run(move |build| {
        let number = Number::clone(&number);
        async move {
            Ok::<_, WaitForError>(match dependency {
                None => number.load(Ordering::Relaxed),
                Some(dependency) => **build.wait_for(dependency).await? + 1,
            })
        }
    }))
}

fn on_tokio(nodes: &[Node], provide: Provide, rounds: u64) -> Duration {
    on_runtime(runtime(), nodes, provide, rounds)
}

fn on_one_thread(nodes: &[Node], provide: Provide, rounds: u64) -> Duration {
    on_runtime(&Builder::new_current_thread().build().unwrap(), nodes, provide, rounds)
}

type Time = fn(&[Node], Provide, u64) -> Duration;

fn recovery(c: &mut Criterion) {
    for (shape, graph, below) in tree_shapes() {
        let nodes = nodes(graph, below);
        bench(c, shape, &nodes, "tokio", on_tokio);
        bench(c, shape, &nodes, "one thread", on_one_thread);
    }
    // Last: see `tree_shapes`.
    for (shape, graph, below) in tree_shapes().filter(|&(.., below)| below <= THREADS_MAX) {
        bench(c, shape, &nodes(graph, below), "threads", on_threads);
    }
}

fn bench(c: &mut Criterion, shape: &str, nodes: &[Node], place: &str, time: Time) {
    let mut group = c.benchmark_group(format!("supervised/{shape}"));
    group.sampling_mode(SamplingMode::Flat);
    for (how, provide) in [("by hand", by_hand as Provide), ("mainstay supervised", supervised)] {
        let id = BenchmarkId::new(format!("{how}, {place}"), nodes.len() - 1);
        group.bench_function(id, |b| b.iter_custom(|n| time(nodes, provide, n)));
    }
    group.finish();
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
