//! The cost of supervision: the recovery of `recovery.rs` on the same executor, with a loop that
//! each provider runs by hand, and with a supervisor in its place.
//!
//! With the feature `supervise` every instance is counted until its value has been dropped. The
//! cost of this for a publication is counted in `instructions.rs`.

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use mainstay_benches::{
    features::criterion,
    recovering::{by_hand, compare, on_one_thread, on_threads, on_tokio, supervised},
};

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
