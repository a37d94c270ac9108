//! What supervision costs: recovery as in `recovery.rs`, with each provider's loop written by hand and with a supervisor in
//! its place, on the same executor.
//!
//! With the feature every instance is counted, until its value has been dropped. What that adds to a publication is counted
//! in `instructions.rs`.

use std::{sync::atomic::Ordering, time::Duration};

use criterion::{BenchmarkId, Criterion, SamplingMode, criterion_group, criterion_main};
use mainstay::{Registry, Restart, ServiceId, WaitForError};
use mainstay_benches::{
    graphs::{Graph, chain, hub},
    recovering::{Node, Number, Provide, Work, by_hand, nodes, on_runtime, on_threads},
    runtime,
};
use tokio::runtime::Builder;

/// The most threads at once.
const THREADS_MAX: usize = 100;

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
    let shapes: [(&str, Graph, &[usize]); 2] =
        [("chain", chain, &[1, 10, 100]), ("fan-out", hub, &[1, 10, 100, 1_000])];
    for (shape, graph, counts) in shapes {
        let mut group = c.benchmark_group(format!("supervised/{shape}"));
        group.sampling_mode(SamplingMode::Flat);
        for &below in counts {
            let nodes = nodes(graph, below);
            let wheres: [(&str, Time, usize); 3] = [
                ("tokio", on_tokio, usize::MAX),
                ("one thread", on_one_thread, usize::MAX),
                ("threads", on_threads, THREADS_MAX),
            ];
            for (place, time, most) in wheres {
                for (how, provide) in
                    [("by hand", by_hand as Provide), ("mainstay supervised", supervised)]
                {
                    if below <= most {
                        let id = BenchmarkId::new(format!("{how}, {place}"), below);
                        group.bench_function(id, |b| b.iter_custom(|n| time(&nodes, provide, n)));
                    }
                }
            }
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
