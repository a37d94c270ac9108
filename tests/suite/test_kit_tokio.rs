//! The test runtime on tokio's paused clock, as the tests of a user use it.
//!
//! - Its tasks run until they are idle, also what they have spawned on tokio and on its blocking
//!   pool, and the time does not pass.
//! - The time passes from timer to timer, by the requested time, and not while a function of the
//!   blocking pool is in progress. A condition is checked at each timer. An endless time wakes all
//!   sleepers; it panics if there is always another one.
//! - A task can be cancelled. Its panic is propagated. A task that is always woken is a panic.
//! - The clock of the registry is the paused time, on every thread. The builder's observers,
//!   services and edges are kept.

use std::{
    future::{pending, poll_fn},
    panic::{self, AssertUnwindSafe},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
        mpsc,
    },
    task::Poll,
    thread,
    time::{Duration, Instant},
};

use crate::support::{Drops, MOMENT};
use mainstay::{
    Registry,
    supervise::{RestartPolicy, SupervisorState},
    test_kit::{Recorder, TokioTestRuntime},
};
use tokio::{task::spawn_blocking, time::sleep};

const SECOND: Duration = Duration::from_secs(1);

fn now(runtime: &TokioTestRuntime) -> Instant {
    runtime.registry.clock().now()
}

/// Asserts that this time has passed. Each timer of tokio ends late by less than a millisecond.
#[track_caller]
fn assert_passed(runtime: &TokioTestRuntime, since: Instant, expected: Duration) {
    let passed = now(runtime) - since;
    assert!(passed >= expected && passed < expected + Duration::from_millis(100), "{passed:?}");
}

fn panic_message(work: impl FnOnce()) -> String {
    let payload = panic::catch_unwind(AssertUnwindSafe(work)).expect_err("it panics");
    match payload.downcast::<String>() {
        Ok(text) => *text,
        Err(payload) => payload.downcast_ref::<&str>().unwrap().to_string(),
    }
}

#[test]
fn it_runs_until_the_blocking_pool_is_empty_and_no_time_passes() {
    let mut runtime = TokioTestRuntime::new(1).unwrap();
    let start = now(&runtime);
    let steps = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&steps);
    runtime.spawn(async move {
        // A chain: each link is spawned by the one before.
        for _ in 0..20 {
            let counted = Arc::clone(&counted);
            let blocking = spawn_blocking(move || {
                thread::sleep(MOMENT);
                counted.fetch_add(1, Ordering::Relaxed)
            });
            tokio::spawn(blocking).await.unwrap().unwrap();
            tokio::task::yield_now().await;
        }
        sleep(SECOND).await;
    });
    // A function of the pool that waits for a task.
    let (sender, mut receiver) = tokio::sync::mpsc::channel::<u32>(1);
    let done = Arc::new(AtomicU32::new(0));
    let set = Arc::clone(&done);
    runtime.spawn(async move {
        let received = spawn_blocking(move || receiver.blocking_recv());
        tokio::task::yield_now().await;
        spawn_blocking(move || thread::sleep(MOMENT)).await.unwrap();
        sender.send(7).await.unwrap();
        set.store(received.await.unwrap().unwrap(), Ordering::Relaxed);
    });
    runtime.run_until_idle();
    assert_eq!(steps.load(Ordering::Relaxed), 20);
    assert_eq!(done.load(Ordering::Relaxed), 7);
    assert_eq!((now(&runtime), runtime.tasks()), (start, 1));
    runtime.advance(2 * SECOND);
    assert_eq!(runtime.tasks(), 0);
    assert_passed(&runtime, start, 2 * SECOND);
}

#[test]
fn a_supervisor_with_a_blocking_build_backs_off_in_paused_time() {
    let mut runtime = TokioTestRuntime::new(1).unwrap();
    let id = runtime.registry.register::<u32>("rows").unwrap();
    let hour = 3600 * SECOND;
    let policy = RestartPolicy::default().backoff(hour, hour).without_jitter();
    let supervisor = runtime.registry.supervise(id).unwrap().restart_policy(policy);
    runtime.spawn(supervisor.run(async |build| {
        let number = build.number();
        let read = spawn_blocking(move || {
            thread::sleep(MOMENT);
            if number < 3 { Err("the disk is busy") } else { Ok(7) }
        });
        read.await.unwrap()
    }));
    let start = now(&runtime);
    runtime.run_until_idle();
    let status = runtime.registry.status(id).unwrap().supervisor.unwrap();
    assert_eq!(status.state, SupervisorState::BackingOff);
    assert_eq!(status.next_try_in, Some(hour), "the status shows the paused time");
    runtime.advance(hour - SECOND);
    assert!(runtime.registry.status(id).unwrap().supervisor.unwrap().next_try_in <= Some(SECOND));
    assert!(runtime.registry.get(id).is_err());
    assert!(runtime.advance_until(Duration::MAX, |registry| registry.get(id).is_ok()));
    assert_passed(&runtime, start, 2 * hour);
    runtime.recorder.assert_order(&[
        "rows 0: attempt failed: the disk is busy",
        "rows 0: attempt failed: the disk is busy",
        "rows 0: ready",
    ]);
    // Holds already: no time passes.
    let ready = now(&runtime);
    assert!(runtime.advance_until(hour, |registry| registry.get(id).is_ok()));
    assert_eq!(now(&runtime), ready);
}

#[test]
fn the_time_does_not_pass_while_a_blocking_function_is_in_progress() {
    let mut runtime = TokioTestRuntime::new(1).unwrap();
    let lines = Arc::<Mutex<Vec<&str>>>::default();
    let (first, second) = (Arc::clone(&lines), Arc::clone(&lines));
    runtime.spawn(async move {
        sleep(SECOND).await;
        let note = Arc::clone(&first);
        let blocking = spawn_blocking(move || {
            thread::sleep(4 * MOMENT);
            note.lock().unwrap().push("the function has ended");
        });
        blocking.await.unwrap();
        first.lock().unwrap().push("after the function");
    });
    runtime.spawn(async move {
        sleep(SECOND + SECOND / 10).await;
        second.lock().unwrap().push("a later timer");
    });
    let checked = Mutex::new(Vec::new());
    let started = now(&runtime);
    let clock = runtime.registry.clone();
    runtime.advance_until(10 * SECOND, |_| {
        checked.lock().unwrap().push((clock.clock().now() - started).as_secs_f32().round() as u32);
        false
    });
    let expected = ["the function has ended", "after the function", "a later timer"];
    assert_eq!(*lines.lock().unwrap(), expected);
    assert_passed(&runtime, started, 10 * SECOND);
    let checked = checked.into_inner().unwrap();
    assert!(checked.is_sorted() && checked.contains(&1), "{checked:?}");
    assert_eq!((checked.first(), checked.last()), (Some(&0), Some(&10)));
}

#[test]
fn a_condition_that_never_holds_takes_the_whole_time() {
    let mut runtime = TokioTestRuntime::new(1).unwrap();
    let start = now(&runtime);
    assert!(!runtime.advance_until(3 * SECOND, |_| false));
    assert_passed(&runtime, start, 3 * SECOND);
    runtime.advance(Duration::ZERO);
    assert_passed(&runtime, start, 3 * SECOND);
}

#[test]
fn an_endless_time_wakes_all_sleepers_or_panics() {
    let mut runtime = TokioTestRuntime::new(1).unwrap();
    for days in [1, 365, 3650] {
        runtime.spawn(async move { sleep(days * 86_400 * SECOND).await });
    }
    for _ in 0..2 {
        runtime.advance(Duration::MAX);
        assert_eq!(runtime.tasks(), 0);
        assert!(!runtime.advance_until(Duration::MAX, |_| false));
    }
    runtime.spawn(async {
        loop {
            sleep(SECOND).await;
        }
    });
    let message = panic_message(|| runtime.advance(Duration::MAX));
    assert_eq!(message, "the tasks do not stop sleeping: one still sleeps after 100000 timers");
}

#[test]
fn a_task_that_is_always_woken_is_a_panic() {
    let mut runtime = TokioTestRuntime::new(1).unwrap();
    runtime.spawn(poll_fn(|context| {
        context.waker().wake_by_ref();
        Poll::Pending
    }));
    let message = panic_message(|| runtime.run_until_idle());
    assert!(message.starts_with("the runtime does not become idle"), "{message}");
}

#[test]
fn the_panic_of_a_task_is_propagated_once() {
    let mut runtime = TokioTestRuntime::new(1).unwrap();
    let task = runtime.spawn(async {
        sleep(SECOND).await;
        panic!("a task");
    });
    runtime.run_until_idle();
    assert_eq!(panic_message(|| runtime.advance(SECOND + SECOND)), "a task");
    assert!(task.has_ended());
    runtime.run_until_idle();
    assert_eq!(runtime.tasks(), 0);
}

#[test]
fn a_task_that_is_cancelled_is_dropped_at_once() {
    let drops = Drops::default();
    let mut runtime = TokioTestRuntime::new(1).unwrap();
    let id = runtime.registry.register::<u32>("a").unwrap();
    let supervisor = runtime.registry.supervise(id).unwrap();
    let supervised = runtime.spawn(supervisor.run(async |_| 1));
    let value = drops.value(0);
    let sleeps = runtime.spawn(async move {
        sleep(SECOND).await;
        drop(value);
    });
    runtime.run_until_idle();
    assert!(runtime.registry.get(id).is_ok());
    sleeps.cancel();
    assert_eq!(drops.count(), 1);
    supervised.cancel();
    assert!(runtime.registry.get(id).is_err());
    assert_eq!(runtime.tasks(), 0);
    runtime.run_until_idle();
    assert!(runtime.registry.status(id).unwrap().supervisor.is_none());
}

#[test]
fn a_runtime_of_a_registry_builder_keeps_its_observers_services_and_edges() {
    let first = Recorder::default();
    let mut builder = Registry::builder(3).unwrap().observer(first.clone());
    let [config, port] = ["config", "port"].map(|name| builder.register::<u32>(name).unwrap());
    builder.depends(port).on(config).unwrap();
    let mut runtime = TokioTestRuntime::with_builder(builder);
    assert_eq!(runtime.registry.capacity(), 3);
    runtime.registry.constant(config, 1).unwrap();
    let supervisor = runtime.registry.supervise(port).unwrap();
    runtime.spawn(supervisor.run(async move |build| build.wait_for(config).await.map(|_| 80)));
    runtime.run_until_idle();
    assert_eq!(*runtime.registry.get(port).unwrap(), 80);
    let registry = runtime.registry.clone();
    runtime.spawn(async move { drop(registry.shutdown(SECOND).await) });
    runtime.run_until_idle();
    assert!(runtime.registry.is_closed());
    let lines = first.take();
    assert!(lines.contains(&"port 0: ready".into()), "{lines:?}");
    assert_eq!(runtime.recorder.take(), lines);
}

#[test]
fn another_thread_reads_the_paused_time() {
    let mut runtime = TokioTestRuntime::new(1).unwrap();
    let start = now(&runtime);
    runtime.advance(3600 * SECOND);
    let registry = runtime.registry.clone();
    let elsewhere = thread::spawn(move || registry.clock().now()).join().unwrap();
    assert_eq!(elsewhere, now(&runtime));
    assert_passed(&runtime, start, 3600 * SECOND);
}

#[test]
fn the_drop_of_a_runtime_waits_for_no_blocking_function() {
    let drops = Drops::default();
    let mut runtime = TokioTestRuntime::new(1).unwrap();
    let value = drops.value(0);
    let (end, ended) = mpsc::channel::<()>();
    let is_begun = Arc::new(AtomicBool::new(false));
    let begins = Arc::clone(&is_begun);
    runtime.spawn(async move {
        sleep(SECOND).await;
        let blocking = spawn_blocking(move || ended.recv());
        begins.store(true, Ordering::Relaxed);
        blocking.await.unwrap().unwrap_err();
        drop(value);
    });
    runtime.spawn(pending());
    let start = now(&runtime);
    // A condition may hold while a function is in progress.
    assert!(runtime.advance_until(2 * SECOND, |_| is_begun.load(Ordering::Relaxed)));
    assert_passed(&runtime, start, SECOND);
    drop(runtime);
    assert_eq!(drops.count(), 1);
    drop(end);
}
