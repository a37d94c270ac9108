//! The clocks of the system, of tokio and of smol, each with an executor of its own.
//!
//! - A supervisor backs off, restarts and ends by each of them.

use std::{thread, time::Instant};

use super::runtime::{Task, fails, ms};
use crate::support::{LONG, until};
use mainstay::{
    Registry,
    supervise::{Clock, RestartPolicy, SmolClock, SystemClock, TokioClock},
};

/// A service whose builder fails twice, under the clock, in a task that `spawn` runs.
fn backs_off_and_restarts(clock: impl Clock, spawn: impl FnOnce(Task)) {
    let registry = Registry::builder(1).unwrap().clock(clock).build();
    let id = registry.register::<u32>("a").unwrap();
    let restart = RestartPolicy::default().backoff(ms(5), ms(10)).without_jitter();
    let supervisor =
        registry.supervise(id).unwrap().restart_policy(restart.build_timeout(ms(2_000)));
    let begun = Instant::now();
    spawn(Box::pin({
        let mut builder = fails(2);
        supervisor.run(move |build: mainstay::supervise::Build<u32>| builder(build))
    }));
    assert_eq!(**registry.wait_ready(id).wait_blocking_timeout(LONG).unwrap(), 3);
    assert!(begun.elapsed() >= ms(15), "it does not back off");
    registry.fail(id, "again").unwrap();
    assert_eq!(**registry.wait_ready(id).wait_blocking_timeout(LONG).unwrap(), 4);
    registry.close();
    until("the supervisor ends", || registry.status(id).unwrap().supervisor.is_none());
}

#[test]
fn a_supervisor_backs_off_and_restarts_by_every_clock() {
    backs_off_and_restarts(SystemClock, |task| drop(thread::spawn(|| pollster::block_on(task))));
    backs_off_and_restarts(SmolClock, |task| drop(thread::spawn(|| smol::block_on(task))));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_time()
        .build()
        .unwrap();
    backs_off_and_restarts(TokioClock, |task| drop(runtime.spawn(task)));
}
