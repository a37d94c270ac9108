//! The cost of supervision: the recovery of `recovery.rs` on the same executor, with a loop that
//! each provider runs by hand, and with a supervisor in its place.
//!
//! With the feature `supervise` every instance is counted until its value has been dropped. The
//! cost of this for a publication is counted in `instructions.rs`.

use std::{sync::atomic::Ordering, time::Duration};

use criterion::{Criterion, criterion_group, criterion_main};
use mainstay::{Registry, ServiceId, error::WaitForError, supervise::RestartPolicy};
use mainstay_benches::{
    features::criterion,
    recovering::{Number, Work, by_hand, compare, on_one_thread, on_threads, on_tokio},
};

/// `reset_after` is zero, so each failure of the root follows a stable time, and no backoff follows
/// it.
fn supervised(
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

fn recovery(c: &mut Criterion) {
    compare(
        c,
        "supervised",
        &[
            ("by hand, tokio", |nodes, rounds| on_tokio(nodes, by_hand, rounds)),
            ("mainstay supervised, tokio", |nodes, rounds| on_tokio(nodes, supervised, rounds)),
            ("by hand, one thread", |nodes, rounds| on_one_thread(nodes, by_hand, rounds)),
            ("mainstay supervised, one thread", |nodes, rounds| {
                on_one_thread(nodes, supervised, rounds)
            }),
        ],
        &[
            ("by hand, threads", |nodes, rounds| on_threads(nodes, by_hand, rounds)),
            ("mainstay supervised, threads", |nodes, rounds| on_threads(nodes, supervised, rounds)),
        ],
    );
}

criterion_group! {
    name = benches;
    config = criterion("supervision")
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(600))
        .sample_size(10)
        .without_plots();
    targets = recovery
}
criterion_main!(benches);
