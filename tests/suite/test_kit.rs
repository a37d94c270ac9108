//! The test kit, as the tests of a user use it.
//!
//! - A stage runs until it is idle: each effect of one task on another is visible, in any order of
//!   the tasks. It panics if the tasks never become idle.
//! - Time moves from one sleeper to the next, and no further than requested. If the requested end
//!   is beyond the range of `Instant`, it moves to the last sleeper. If there is always another
//!   one, the test runtime panics.
//! - A runtime of a registry builder has its observers, services and edges, and sets the clock.
//! - A task that is cancelled is dropped at once, and at the end of its poll if it cancels itself.
//! - The outcomes of a script come in their order, one for each build. After them the builder
//!   runs.
//! - A record contains the events in order. If an expected event is missing, the panic names it,
//!   and lists the events.

use std::{
    future::{pending, poll_fn},
    panic,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    task::Poll,
    time::Duration,
};

use crate::support::{Drops, poll_once};
use mainstay::{
    Registry,
    error::WaitForError,
    supervise::{Clock, RestartPolicy, SupervisorState},
    test_kit::{BuildOutcome, Recorder, Script, TestRuntime, TestTask, VirtualClock},
};

/// The message of the panic of `work`.
fn panic_message(work: impl FnOnce() + panic::UnwindSafe) -> String {
    let payload = panic::catch_unwind(work).expect_err("it panics");
    *payload.downcast().expect("the panic has a message")
}

#[test]
fn a_chain_of_services_becomes_ready_in_any_order_of_its_tasks() {
    let mut runtime = TestRuntime::new(30).unwrap();
    let ids: Vec<_> =
        (0..30).map(|n| runtime.registry.register::<u32>(&n.to_string()).unwrap()).collect();
    // The last service first: each must be polled again after the previous one is ready.
    for n in (0..30).rev() {
        let below = (n > 0).then(|| ids[n - 1]);
        let run = runtime.registry.supervise(ids[n]).unwrap().run(async move |build| match below {
            Some(below) => build.wait_for(below).await.map(|below| **below + 1),
            None => Ok::<_, WaitForError>(0),
        });
        runtime.spawn(run);
    }
    runtime.run_until_idle();
    assert_eq!(*runtime.registry.get(ids[29]).unwrap(), 29);
    runtime.registry.close();
    runtime.run_until_idle();
    assert!(runtime.tasks.is_empty());
}

#[test]
fn a_test_runtime_panics_if_its_tasks_never_become_idle() {
    let message = panic_message(|| {
        let mut runtime = TestRuntime::new(1).unwrap();
        runtime.spawn(poll_fn(|context| {
            context.waker().wake_by_ref();
            Poll::Pending
        }));
        runtime.run_until_idle();
    });
    assert!(message.starts_with("the runtime does not become idle"), "{message}");
}

#[test]
fn time_moves_no_further_than_requested() {
    let mut runtime = TestRuntime::new(1).unwrap();
    let begun = runtime.clock.now();
    let clock = runtime.clock.clone();
    runtime.spawn(async move {
        loop {
            clock.sleep_until(clock.now() + Duration::from_secs(7)).await;
        }
    });
    let passed = |runtime: &TestRuntime| (runtime.clock.now() - begun).as_secs();
    runtime.advance(Duration::from_secs(20));
    assert_eq!(passed(&runtime), 20);
    let late = |runtime: &TestRuntime| {
        let (clock, now) = (runtime.clock.clone(), runtime.clock.now());
        move |_: &Registry| clock.now() > now + Duration::from_secs(9)
    };
    // The sleeper wakes at 21 and 28.
    let holds = late(&runtime);
    assert!(!runtime.advance_until(Duration::from_secs(9), holds));
    assert_eq!(passed(&runtime), 28);
    let holds = late(&runtime);
    assert!(runtime.advance_until(Duration::from_secs(60), holds));
    assert_eq!(passed(&runtime), 42);
}

#[test]
fn an_endless_time_moves_to_the_last_sleeper() {
    let mut runtime = TestRuntime::new(1).unwrap();
    let begun = runtime.clock.now();
    let clock = runtime.clock.clone();
    runtime.spawn(async move {
        for hours in [1, 2, 3] {
            clock.sleep_until(clock.now() + hours * Duration::from_secs(3_600)).await;
        }
    });
    let hours = |runtime: &TestRuntime| (runtime.clock.now() - begun).as_secs_f64() / 3_600.0;
    let (clock, second) = (runtime.clock.clone(), Duration::from_secs(3 * 3_600));
    assert!(runtime.advance_until(Duration::MAX, |_| clock.now() - begun == second));
    assert_eq!((runtime.tasks.len(), hours(&runtime)), (1, 3.0));
    runtime.advance(Duration::MAX);
    assert_eq!((runtime.tasks.len(), hours(&runtime)), (0, 6.0));
    // No task sleeps.
    runtime.advance(Duration::MAX);
    assert!(!runtime.advance_until(Duration::MAX, |_| false));
    assert_eq!(hours(&runtime), 6.0);
}

#[test]
fn an_endless_time_panics_if_a_task_sleeps_again_and_again() {
    fn sleeps_forever() -> TestRuntime {
        let mut runtime = TestRuntime::new(1).unwrap();
        let clock = runtime.clock.clone();
        runtime.spawn(async move {
            loop {
                clock.sleep_until(clock.now() + Duration::from_secs(1)).await;
            }
        });
        runtime
    }
    let expected = "the tasks do not stop sleeping: one still sleeps after 100000 steps";
    assert_eq!(panic_message(|| sleeps_forever().advance(Duration::MAX)), expected);
    let message = panic_message(|| {
        sleeps_forever().advance_until(Duration::MAX, |_| false);
    });
    assert_eq!(message, expected);
    // A time with an end has no such limit.
    let mut runtime = sleeps_forever();
    let begun = runtime.clock.now();
    runtime.advance(Duration::from_secs(100_001));
    assert_eq!(runtime.clock.now() - begun, Duration::from_secs(100_001));
}

#[test]
fn an_endless_advance_of_a_virtual_clock_wakes_all_sleepers() {
    let clock = VirtualClock::new();
    let (begun, second) = (clock.now(), Duration::from_secs(1));
    let mut sleeps = [1, 3, 2].map(|seconds| clock.sleep_until(clock.now() + seconds * second));
    for sleep in &mut sleeps {
        assert!(poll_once(sleep).is_pending());
    }
    clock.advance(Duration::MAX);
    assert_eq!((clock.sleepers(), clock.now() - begun), (0, 3 * second));
    assert!(sleeps.iter_mut().all(|sleep| poll_once(sleep).is_ready()));
    clock.advance(Duration::MAX);
    assert_eq!(clock.now() - begun, 3 * second);
}

#[test]
fn time_moves_to_the_next_sleeper() {
    let clock = VirtualClock::new();
    let second = Duration::from_secs(1);
    let mut sleeps = [3, 2, 2].map(|seconds| clock.sleep_until(clock.now() + seconds * second));
    for sleep in &mut sleeps {
        assert!(poll_once(sleep).is_pending());
    }
    assert_eq!(clock.sleepers(), 3);
    assert_eq!(clock.advance_to_next(), Some(2 * second));
    assert_eq!(clock.sleepers(), 1);
    let [last, both @ ..] = &mut sleeps;
    assert!(both.iter_mut().all(|sleep| poll_once(sleep).is_ready()));
    assert!(poll_once(&mut *last).is_pending());
    assert_eq!(clock.advance_to_next(), Some(second));
    assert!(poll_once(last).is_ready());
    assert_eq!(clock.advance_to_next(), None);
}

#[test]
fn a_permanent_outcome_of_a_script_is_a_permanent_error() {
    let mut runtime = TestRuntime::new(1).unwrap();
    let id = runtime.registry.register::<u32>("a").unwrap();
    let script = Script::default();
    script.push(BuildOutcome::Permanent("no such file".into()));
    let supervisor = runtime.registry.supervise(id).unwrap();
    runtime.spawn(supervisor.run(async move |_| script.step().await.map(|()| 7)));
    runtime.advance(Duration::from_secs(60));
    let supervisor = runtime.registry.status(id).unwrap().supervisor.unwrap();
    assert_eq!(supervisor.state, SupervisorState::Permanent);
    assert!(poll_once(runtime.registry.restart(id, "there is one now")).is_pending());
    runtime.run_until_idle();
    assert_eq!(*runtime.registry.get(id).unwrap(), 7);
}

#[test]
fn the_outcomes_of_a_script_come_in_their_order() {
    let mut runtime = TestRuntime::new(1).unwrap();
    let id = runtime.registry.register::<u32>("a").unwrap();
    let script = Script::default();
    let outcomes = [
        BuildOutcome::Build,
        BuildOutcome::Fail("full".into()),
        BuildOutcome::Panic("odd".into()),
        BuildOutcome::Hang,
    ];
    outcomes.into_iter().for_each(|outcome| script.push(outcome));
    let restart = RestartPolicy::default().without_jitter().build_timeout(Duration::from_secs(1));
    let supervisor = runtime.registry.supervise(id).unwrap().restart_policy(restart);
    let mut builds = 0;
    runtime.spawn(supervisor.run(async move |_| {
        script.step().await?;
        builds += 1;
        Ok::<u32, Box<dyn std::error::Error + Send + Sync>>(builds)
    }));
    runtime.run_until_idle();
    assert_eq!(*runtime.registry.get(id).unwrap(), 1);
    runtime.recorder.take();
    runtime.registry.fail(id, "by hand").unwrap();
    assert!(runtime.advance_until(Duration::from_secs(60), |registry| registry.get(id).is_ok()));
    assert_eq!(*runtime.registry.get(id).unwrap(), 2);
    let ended: Vec<_> = runtime
        .recorder
        .take()
        .into_iter()
        .filter(|line| !line.ends_with("attempt started"))
        .collect();
    assert_eq!(
        ended,
        [
            "a 0: failed: by hand",
            "a 1: backing off for 100 ms after 1 failure",
            "a 1: attempt failed: full",
            "a 1: backing off for 200 ms after 2 failures",
            "a 1: attempt failed: the build panicked: odd",
            "a 1: backing off for 400 ms after 3 failures",
            "a 1: attempt failed: not built within 1s",
            "a 1: backing off for 800 ms after 4 failures",
            "a 1: ready",
        ]
    );
}

#[test]
fn a_missing_event_is_named_with_the_recorded_events() {
    let recorder = Recorder::default();
    let registry = Registry::builder(1).unwrap().observer(recorder.clone()).build();
    let id = registry.register::<u32>("a").unwrap();
    let provider = registry.provide(id).unwrap();
    drop(provider.begin().wait_blocking().unwrap().ready(1).unwrap());
    recorder.assert_order(&["a 0: attempt started", "a 0: failed: the running handle was dropped"]);
    let wrong = recorder.clone();
    let message =
        panic_message(move || wrong.assert_order(&["a 0: ready", "a 0: attempt started"]));
    assert_eq!(
        message,
        "\"a 0: attempt started\" was not recorded after \"a 0: ready\". Recorded:\n    \
         a 0: attempt started\n    a 0: ready\n    a 0: failed: the running handle was dropped"
    );
    recorder.take();
    let message = panic_message(move || recorder.assert_order(&["a 0: ready"]));
    assert_eq!(message, "\"a 0: ready\" was not recorded. Recorded: nothing");
}

#[test]
fn a_runtime_of_a_registry_builder_sets_the_clock_and_keeps_the_rest() {
    let first = Recorder::default();
    let mut builder = Registry::builder(3).unwrap().observer(first.clone());
    let [config, port] = ["config", "port"].map(|name| builder.register::<u32>(name).unwrap());
    builder.depends(port).on(config).unwrap();
    // This clock is replaced.
    let other = VirtualClock::new();
    let mut runtime = TestRuntime::with_builder(builder.clock(other.clone()));
    assert_eq!((runtime.registry.capacity(), runtime.registry.list().services.len()), (3, 2));
    assert_eq!(runtime.registry.status(config).unwrap().dependents, ["port"]);

    let start = runtime.registry.clock().now();
    runtime.registry.constant(config, 1).unwrap();
    let supervisor = runtime.registry.supervise(port).unwrap();
    runtime.spawn(supervisor.run(async move |build| {
        build.wait_for(config).await.map(|_| ())?;
        Err::<u32, Box<dyn std::error::Error + Send + Sync>>("no port is free".into())
    }));
    runtime.run_until_idle();
    assert_eq!((runtime.clock.sleepers(), other.sleepers()), (1, 0));
    runtime.advance(Duration::from_secs(1));
    assert_eq!(runtime.registry.clock().now() - start, Duration::from_secs(1));
    let lines = first.take();
    assert!(lines.contains(&"port 0: attempt failed: no port is free".into()), "{lines:?}");
    assert_eq!(runtime.recorder.take(), lines, "both observers receive each event");
}

#[test]
fn a_task_that_is_cancelled_is_dropped_at_once() {
    let drops = Drops::default();
    let mut runtime = TestRuntime::new(1).unwrap();
    let mut task = || {
        let value = drops.value(0);
        let clock = runtime.clock.clone();
        runtime.spawn(async move {
            clock.sleep_until(clock.now() + Duration::from_secs(1)).await;
            drop(value);
        })
    };
    let [never_polled, cancelled, kept] = [task(), task(), task()];
    never_polled.cancel();
    assert_eq!(drops.count(), 1);
    runtime.run_until_idle();
    assert_eq!((runtime.tasks.len(), runtime.clock.sleepers()), (2, 2));
    cancelled.clone().cancel();
    assert_eq!((drops.count(), runtime.clock.sleepers()), (2, 1));
    assert!(cancelled.has_ended() && !kept.has_ended());
    runtime.run_until_idle();
    assert_eq!(runtime.tasks.len(), 1);
    cancelled.cancel();
    runtime.advance(Duration::from_secs(1));
    assert!(kept.has_ended() && runtime.tasks.is_empty());
    assert_eq!(drops.count(), 3);
    kept.cancel();
}

#[test]
fn a_task_may_cancel_itself_and_others() {
    let drops = Drops::default();
    let mut runtime = TestRuntime::new(1).unwrap();
    let handles = Arc::<Mutex<Vec<TestTask>>>::default();
    let polls = Arc::new(AtomicU32::new(0));
    for _ in 0..2 {
        let (of, value) = (Arc::clone(&handles), drops.value(0));
        let (polls, drops) = (Arc::clone(&polls), drops.clone());
        let task = runtime.spawn(async move {
            polls.fetch_add(1, Ordering::Relaxed);
            let handles = std::mem::take(&mut *of.lock().unwrap());
            handles.iter().for_each(TestTask::cancel);
            assert_eq!(drops.count(), 1, "the other one is dropped, and this one is not yet");
            assert!(handles.iter().all(TestTask::has_ended));
            pending::<()>().await;
            drop(value);
        });
        handles.lock().unwrap().push(task);
    }
    runtime.run_until_idle();
    assert_eq!((runtime.tasks.len(), drops.count(), polls.load(Ordering::Relaxed)), (0, 2, 1));
}

#[test]
fn a_task_ends_if_it_panics_or_is_dropped_by_the_runtime() {
    let mut runtime = TestRuntime::new(1).unwrap();
    let bomb = runtime.spawn(async { panic!("a task") });
    let dropped = runtime.spawn(pending());
    let caught = panic::catch_unwind(panic::AssertUnwindSafe(|| runtime.run_until_idle()));
    assert!(caught.is_err());
    runtime.run_until_idle();
    assert!(bomb.has_ended() && !dropped.has_ended());
    assert_eq!(runtime.tasks.len(), 1);
    runtime.tasks.clear();
    assert!(dropped.has_ended());
}

#[test]
fn a_cancelled_supervisor_fails_its_service_with_its_dependents() {
    let mut runtime = TestRuntime::new(2).unwrap();
    let [a, b] = ["a", "b"].map(|name| runtime.registry.register::<u32>(name).unwrap());
    let supervise_a = runtime.registry.supervise(a).unwrap();
    let task = runtime.spawn(supervise_a.run(async |_| 1));
    let supervise_b = runtime.registry.supervise(b).unwrap();
    runtime.spawn(supervise_b.run(async move |build| build.wait_for(a).await.map(|a| **a)));
    runtime.run_until_idle();
    assert!(runtime.registry.get(b).is_ok());
    task.cancel();
    assert!(runtime.registry.get(a).is_err() && runtime.registry.get(b).is_err());
    assert!(!runtime.registry.status(a).unwrap().has_provider);
    let supervise_a = runtime.registry.supervise(a).unwrap();
    runtime.spawn(supervise_a.run(async |_| 2));
    runtime.advance(Duration::from_secs(60));
    assert_eq!(*runtime.registry.get(b).unwrap(), 2);
}
