//! What the benchmarks share.

pub mod counting;
pub mod features;
pub mod graphs;
pub mod recovering;
pub mod rivals;
pub mod tree;
pub mod waiting;

use std::{
    env,
    path::{Path, PathBuf},
    sync::{Barrier, LazyLock},
    thread,
    time::{Duration, Instant},
};

use tokio::runtime::Runtime;

/// What `work` gives, and how long it takes.
pub fn timed<R>(work: impl FnOnce() -> R) -> (R, Duration) {
    let begun = Instant::now();
    let result = work();
    (result, begun.elapsed())
}

/// Whether criterion measures nothing: it only runs everything once, or lists it.
pub fn is_test() -> bool {
    let given = |flag| env::args().any(|arg| arg == flag);
    given("--test") || given("--list") || !given("--bench")
}

/// The directory to which cargo writes what it builds, and criterion and gungraun their results.
pub fn target() -> PathBuf {
    match env::var_os("CARGO_TARGET_DIR") {
        Some(target) => target.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"),
    }
}

/// The directory of criterion's results.
pub fn results() -> PathBuf {
    target().join("criterion")
}

/// Runs `work` on several threads at once, `iterations` times on each; the time is that of the slowest.
pub fn on_threads(threads: usize, iterations: u64, work: impl Fn(u64) + Sync) -> Duration {
    let start = Barrier::new(threads);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    start.wait();
                    let begun = Instant::now();
                    work(iterations);
                    begun.elapsed()
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).max().unwrap()
    })
}

/// One thread, and all cores.
pub fn thread_counts() -> Vec<usize> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    if cores == 1 { vec![1] } else { vec![1, cores] }
}

/// For tasks that run on all cores.
pub fn runtime() -> &'static Runtime {
    static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());
    &RUNTIME
}
