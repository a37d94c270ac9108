//! Runs a model, and prints the number of its interleavings.

use std::{
    env,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use loom::model::Builder;
use tracing_subscriber::EnvFilter;

/// Runs `run` under every interleaving with at most `preemptions` preemptions (`None`: under every
/// interleaving), and prints their number.
///
/// The environment variables of loom apply: `LOOM_MAX_PREEMPTIONS` replaces the bound;
/// `LOOM_MAX_BRANCHES`, `LOOM_CHECKPOINT_FILE`, `LOOM_LOCATION`, `LOOM_LOG` and the others are
/// documented by loom.
pub fn model(name: &str, preemptions: Option<usize>, run: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    if env::var_os("LOOM_MAX_PREEMPTIONS").is_none() {
        builder.preemption_bound = preemptions;
    }
    if env::var_os("LOOM_MAX_BRANCHES").is_none() {
        builder.max_branches = 10_000;
    }
    let bound = builder.preemption_bound.map_or("no bound".into(), |n| format!("bound {n}"));
    let count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&count);
    let check = move || {
        builder.check(move || {
            counter.fetch_add(1, Ordering::Relaxed);
            run();
        });
    };
    let started = Instant::now();
    if env::var_os("LOOM_LOG").is_some() {
        let log = tracing_subscriber::fmt()
            .with_env_filter(EnvFilter::from_env("LOOM_LOG"))
            .with_test_writer()
            .without_time();
        tracing::subscriber::with_default(log.finish(), check);
    } else {
        check();
    }
    let (count, elapsed) = (count.load(Ordering::Relaxed), started.elapsed().as_secs_f64());
    println!("{name}: {count} interleavings, {bound}, {elapsed:.1} s");
}
