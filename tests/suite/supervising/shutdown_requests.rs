//! Requests of a shutdown, its notice, the close of the registry, and the guard.
//!
//! - A request is visible to all tasks, with the reason of the first one, and stops nothing.
//! - A shutdown is requested when it begins. During its notice all services stay up.
//! - A second shutdown without a notice, the timeout and a close end the notice.
//! - `closed` completes when the registry is closed.
//! - Threads may block until a request or the close, with and without a timeout, and tasks may wait
//!   with a timeout by any clock.
//! - In a poll of an async supervisor, a blocking shutdown and the drop of a guard begin the
//!   shutdown and block nothing.
//! - A guard shuts the registry down when it is dropped, also by a panic, within its timeout.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, mpsc},
    task::Poll,
    thread,
    time::{Duration, Instant},
};

use super::{
    runtime::{TestRuntime, exact, fails, ms},
    shutting_down::{b_on_a, begin, late},
};
use crate::support::{LONG, poll_once, registry_of, up};
use mainstay::{
    Registry,
    error::SignalError,
    supervise::{ShutdownOptions, StopReport},
};

fn begin_with(
    runtime: &mut TestRuntime,
    options: ShutdownOptions,
) -> Arc<Mutex<Option<StopReport>>> {
    let ended = Arc::<Mutex<Option<StopReport>>>::default();
    let (note, shutdown) = (Arc::clone(&ended), runtime.registry.shutdown(options));
    runtime.spawn(async move { *note.lock().unwrap() = Some(shutdown.await) });
    runtime.run_until_idle();
    ended
}

#[test]
fn the_first_request_counts_and_stops_nothing() {
    let mut runtime = TestRuntime::new();
    let id = runtime.service("a");
    runtime.supervise(id, exact(), fails(0));
    runtime.run_until_idle();
    let registry = runtime.registry.clone();
    let mut requested = Box::pin(registry.shutdown_requested());
    assert!(poll_once(&mut requested).is_pending() && registry.shutdown_reason().is_none());
    assert!(registry.request_shutdown("first"));
    assert!(!registry.request_shutdown(String::from("second")));
    runtime.advance(LONG);
    assert_eq!((runtime.get(id), registry.is_closed()), (Some(1), false));
    assert!(matches!(poll_once(&mut requested), Poll::Ready(why) if &*why == "first"));
    assert_eq!(registry.shutdown_reason().as_deref(), Some("first"));
    let shutdown = begin(&mut runtime, ms(1_000));
    assert_eq!(late(&shutdown), []);
    assert_eq!(registry.shutdown_reason().as_deref(), Some("first"));
}

#[test]
fn nothing_stops_during_the_notice() {
    let (mut runtime, a, b) = b_on_a(ms(0));
    let options = ShutdownOptions::within(ms(1_000)).notice(ms(200)).reason("SIGTERM");
    let shutdown = begin_with(&mut runtime, options);
    assert_eq!(runtime.registry.shutdown_reason().as_deref(), Some("SIGTERM"));
    // Not even a restart is different.
    runtime.registry.fail(a, "during the notice").unwrap();
    runtime.advance(ms(199));
    assert_eq!((runtime.get(a), runtime.get(b)), (Some(1), Some(1)));
    runtime.advance(ms(1));
    assert_eq!(late(&shutdown), []);
    assert_eq!((runtime.get(a), runtime.get(b)), (None, None));
    assert!(runtime.registry.is_closed());
    assert_eq!(runtime.clock.sleepers(), 0);
}

#[test]
fn a_second_shutdown_without_a_notice_ends_the_notice() {
    let (mut runtime, _, b) = b_on_a(ms(0));
    let options = ShutdownOptions::within(ms(1_000)).notice(ms(900));
    let first = begin_with(&mut runtime, options);
    assert_eq!(runtime.get(b), Some(1));
    let second = begin(&mut runtime, ms(1_000));
    assert_eq!((late(&first), late(&second)), (vec![], vec![]));
    assert!(runtime.registry.is_closed());
}

#[test]
fn the_timeout_and_a_close_end_the_notice() {
    let (mut runtime, a, _) = b_on_a(ms(50));
    let options = ShutdownOptions::within(ms(100)).notice(Duration::MAX);
    let shutdown = begin_with(&mut runtime, options);
    runtime.advance(ms(100));
    assert_eq!(late(&shutdown).len(), 2);
    assert_eq!((runtime.get(a), runtime.registry.is_closed()), (None, true));

    let (mut runtime, _, _) = b_on_a(ms(50));
    let options = ShutdownOptions::within(LONG).notice(LONG);
    let shutdown = begin_with(&mut runtime, options);
    runtime.registry.close();
    runtime.run_until_idle();
    assert!(shutdown.lock().unwrap().is_some() && runtime.tasks.is_empty());
}

#[test]
fn a_shutdown_that_is_dropped_during_its_notice_stops_nothing() {
    let (mut runtime, a, b) = b_on_a(ms(0));
    let options = ShutdownOptions::within(ms(1_000)).notice(ms(200));
    let mut shutdown = runtime.registry.shutdown(options);
    assert!(poll_once(&mut shutdown).is_pending());
    drop(shutdown);
    runtime.advance(LONG);
    assert_eq!((runtime.get(a), runtime.get(b)), (Some(1), Some(1)));
    assert!(runtime.registry.shutdown_reason().is_some());
}

#[test]
fn closed_completes_at_the_close_and_at_the_end_of_a_shutdown() {
    let (registry, []) = registry_of::<u32, 0>([]);
    let (mut closed, mut requested) =
        (Box::pin(registry.closed()), Box::pin(registry.shutdown_requested()));
    assert!(poll_once(&mut closed).is_pending() && poll_once(&mut requested).is_pending());
    registry.close();
    assert!(poll_once(&mut closed).is_ready());
    let why = poll_once(&mut requested);
    assert!(matches!(why, Poll::Ready(why) if &*why == "the registry is closed"));

    let (mut runtime, _, _) = b_on_a(ms(50));
    let mut closed = Box::pin(runtime.registry.closed());
    let _shutdown = begin(&mut runtime, ms(1_000));
    runtime.advance(ms(49));
    assert!(poll_once(&mut closed).is_pending());
    runtime.advance(ms(1));
    assert!(poll_once(&mut closed).is_ready());
}

#[test]
fn a_guard_shuts_the_registry_down_when_it_is_dropped() {
    let (registry, [a, b]) = registry_of::<u32, 2>(["a", "b"]);
    let (stops, order) = mpsc::channel();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _guard = registry.shutdown_on_drop(LONG);
        for (id, name) in [(a, "a"), (b, "b")] {
            let stops = stops.clone();
            let supervisor = registry.supervise(id).unwrap();
            let supervisor = supervisor.on_close(async move |_| stops.send(name).unwrap());
            thread::spawn(move || {
                supervisor.run_blocking(|build| match name {
                    "b" => build.wait_for(a).wait_blocking().map(|a| **a),
                    _ => Ok(1),
                })
            });
        }
        registry.wait_all_ready().wait_blocking_timeout(LONG).unwrap();
        panic!("an early end");
    }));
    assert!(panicked.is_err());
    assert_eq!(order.try_iter().collect::<Vec<_>>(), ["b", "a"]);
    assert!(registry.is_closed());
}

#[test]
fn a_guard_blocks_at_most_for_its_timeout_and_not_at_all_after_a_shutdown() {
    let (registry, [id]) = registry_of::<u32, 1>(["a"]);
    let guard = registry.shutdown_on_drop(ms(20));
    // It is never polled.
    let supervisor = registry.supervise(id).unwrap();
    let mut run = Box::pin(supervisor.run(|_| async { Ok::<_, String>(1) }));
    assert!(poll_once(&mut run).is_pending());
    let start = Instant::now();
    drop(guard);
    assert!(registry.is_closed() && start.elapsed() < LONG);

    let (registry, [id]) = registry_of::<u32, 1>(["a"]);
    let (_provider, _running) = up(&registry, id, 1);
    let guard = registry.shutdown_on_drop(LONG);
    registry.close();
    drop(guard);
    assert!(registry.get(id).is_ok(), "the registry was closed before");
}

#[test]
fn threads_block_until_a_request_and_until_the_close() {
    let (registry, []) = registry_of::<u32, 0>([]);
    let early = registry.shutdown_requested().wait_blocking_timeout(ms(1)).unwrap_err();
    assert!(matches!(early, SignalError::TimedOut { after } if after >= ms(1)), "{early}");
    let early = registry.closed().wait_blocking_timeout(ms(0));
    assert!(matches!(early, Err(SignalError::TimedOut { .. })));
    let threads = [registry.clone(), registry.clone()].map(|registry| {
        thread::spawn(move || {
            let why = registry.shutdown_requested().wait_blocking().unwrap();
            registry.closed().wait_blocking().unwrap();
            why
        })
    });
    registry.request_shutdown("first");
    assert_eq!(&*registry.shutdown_requested().wait_blocking_timeout(LONG).unwrap(), "first");
    registry.close();
    for thread in threads {
        assert_eq!(&*thread.join().unwrap(), "first");
    }
    registry.closed().wait_blocking_timeout(LONG).unwrap();
}

#[test]
fn a_task_waits_for_a_request_and_the_close_with_a_timeout_by_the_clock() {
    let mut runtime = TestRuntime::new();
    let results = Arc::<Mutex<Vec<String>>>::default();
    for timeout in [ms(10), ms(30)] {
        let (registry, note) = (runtime.registry.clone(), Arc::clone(&results));
        runtime.spawn(async move {
            let requested = registry.shutdown_requested().timeout(timeout, registry.clock()).await;
            let closed = registry.closed().timeout(ms(5), registry.clock()).await;
            note.lock().unwrap().push(format!("{requested:?}, {closed:?}"));
        });
    }
    runtime.advance(ms(20));
    runtime.registry.request_shutdown("SIGTERM");
    runtime.advance(ms(20));
    let late = "Err(TimedOut { after: 5ms })";
    let expected =
        [format!("Err(TimedOut {{ after: 10ms }}), {late}"), format!("Ok(\"SIGTERM\"), {late}")];
    assert_eq!(*results.lock().unwrap(), expected);
    assert_eq!(runtime.clock.sleepers(), 0);
}

/// Calls `shut_down` in the first build of `b`, which is built from `a`.
fn shut_down_in_a_build(
    mut shut_down: impl FnMut(&Registry) -> Option<StopReport> + Send + 'static,
) -> (TestRuntime, Arc<Mutex<Option<StopReport>>>) {
    let mut runtime = TestRuntime::new();
    let (a, b) = (runtime.service("a"), runtime.service("b"));
    runtime.supervise(a, exact(), fails(0));
    let ended = Arc::<Mutex<Option<StopReport>>>::default();
    let (registry, report) = (runtime.registry.clone(), Arc::clone(&ended));
    runtime.supervise(b, exact(), move |build| {
        let (registry, report) = (registry.clone(), Arc::clone(&report));
        let said = build.wait_for(a).wait_blocking_timeout(ms(0)).ok();
        *report.lock().unwrap() = said.and_then(|_| shut_down(&registry));
        std::future::pending::<Result<u32, String>>()
    });
    (runtime, ended)
}

#[test]
fn a_blocking_shutdown_in_a_poll_of_an_async_supervisor_blocks_nothing() {
    let (mut runtime, report) =
        shut_down_in_a_build(|registry| Some(registry.shutdown_blocking(LONG)));
    runtime.run_until_idle();
    let report = report.lock().unwrap().take().expect("it has returned");
    assert_eq!(report.to_string(), "not stopped in time: b (building), a (up)");
    // It has begun the shutdown, which has ended since then: without time, and without a future.
    assert!(runtime.registry.is_closed() && runtime.tasks.is_empty());
    assert_eq!(runtime.registry.shutdown_blocking(LONG).to_string(), "2 services stopped in time");

    let (mut runtime, _) = shut_down_in_a_build(|registry| {
        drop(registry.shutdown_on_drop(LONG));
        None
    });
    runtime.run_until_idle();
    assert!(runtime.registry.is_closed() && runtime.tasks.is_empty());
}

#[test]
fn a_blocking_shutdown_with_a_notice_in_a_poll_only_requests_it() {
    let (mut runtime, report) = shut_down_in_a_build(|registry| {
        let options = ShutdownOptions::within(LONG).notice(ms(10)).reason("SIGTERM");
        Some(registry.shutdown_blocking(options))
    });
    runtime.advance(LONG);
    let report = report.lock().unwrap().take().expect("it has returned");
    assert_eq!(report.to_string(), "not stopped in time: a (up), b (building)");
    assert_eq!(runtime.registry.shutdown_reason().as_deref(), Some("SIGTERM"));
    assert!(!runtime.registry.is_closed());
}
