//! Code that several benchmarks use.

pub mod counting;
pub mod features;
pub mod graphs;
pub mod growth;
pub mod recovering;
pub mod rivals;
pub mod tree;
pub mod waiting;

use std::{
    env,
    path::{Path, PathBuf},
    sync::{Barrier, LazyLock, RwLock},
    thread,
    time::{Duration, Instant},
};

use tokio::runtime::Runtime;

/// Returns the result of `work`, and its time.
pub fn timed<R>(work: impl FnOnce() -> R) -> (R, Duration) {
    let start = Instant::now();
    let result = work();
    (result, start.elapsed())
}

/// Whether criterion only runs each benchmark once or lists them, and measures nothing.
pub fn is_test() -> bool {
    let has = |flag| env::args().any(|arg| arg == flag);
    has("--test") || has("--list") || !has("--bench")
}

/// Returns the directory to which cargo writes its output, and criterion and gungraun their
/// results.
pub fn target() -> PathBuf {
    match env::var_os("CARGO_TARGET_DIR") {
        Some(target) => target.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"),
    }
}

/// Returns the directory of criterion's results.
pub fn results() -> PathBuf {
    target().join("criterion")
}

/// Runs `work` on several threads at once, with `iterations` iterations on each. Returns the time
/// of the slowest thread.
pub fn on_threads(threads: usize, iterations: u64, work: impl Fn(u64) + Sync) -> Duration {
    let barrier = Barrier::new(threads);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    barrier.wait();
                    let start = Instant::now();
                    work(iterations);
                    start.elapsed()
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).max().unwrap()
    })
}

/// Calls `measure` while this number of threads is alive that have read; this is one of them.
pub fn beside_readers(threads: usize, read: impl Fn() + Sync, measure: impl FnOnce()) {
    // There may be thousands.
    const STACK: usize = 128 * 1024;
    let all = Barrier::new(threads);
    let end = RwLock::new(());
    thread::scope(|scope| {
        let until_end = end.write().unwrap();
        for _ in 1..threads {
            let reader = || {
                read();
                all.wait();
                drop(end.read());
            };
            thread::Builder::new().stack_size(STACK).spawn_scoped(scope, reader).unwrap();
        }
        read();
        all.wait();
        measure();
        drop(until_end);
    });
}

/// Returns the numbers of threads to measure: one, and one for each core.
pub fn thread_counts() -> Vec<usize> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    if cores == 1 { vec![1] } else { vec![1, cores] }
}

/// Returns a runtime with one thread for each core.
pub fn runtime() -> &'static Runtime {
    static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());
    &RUNTIME
}
