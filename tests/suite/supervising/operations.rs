//! Restarts, stops and starts, as their callers see them.
//!
//! - A typed and an untyped id have the same effect: in a future, in a blocking wait, and with a
//!   timeout.
//! - A restart ends *permanent* and *waiting*.
//! - Each caller of operations that have become one receives the report of all of it.
//! - A turn is held until its last guard is dropped. In a shutdown it is held at most until the
//!   limit of the shutdown.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::Poll,
    thread,
    time::Duration,
};

use super::{
    runtime::{BoxError, TestRuntime, exact, ms},
    shutting_down::{begin as shut_down, late},
    stopping::{chain, start, stopped, supervise_logged, taken},
};
use crate::support::{LONG, poll_once, registry_of, up};
use mainstay::{
    AnyId, Provider, Registry, Running,
    error::StopError,
    supervise::{Permanent, StopWait, SupervisorState, SystemClock},
};

type Outcome = <StopWait as Future>::Output;

type Operation = (&'static str, fn(&Registry, AnyId) -> StopWait);

const OPERATIONS: [Operation; 3] = [
    ("restart", |registry, id| registry.restart(id, "edited")),
    ("stop", |registry, id| registry.stop(id)),
    ("stop_subtree", |registry, id| registry.stop_subtree(id)),
];

type Way = (&'static str, fn(StopWait) -> Outcome);

const WAYS: [Way; 5] = [
    ("a future", |wait| pollster::block_on(wait)),
    ("a future with a timeout", |wait| pollster::block_on(wait.timeout(LONG, &SystemClock))),
    ("blocking", |wait| wait.wait_blocking()),
    ("blocking with a timeout", |wait| wait.wait_blocking_timeout(LONG)),
    ("blocking with a deadline", |wait| {
        wait.wait_blocking_deadline(std::time::Instant::now() + LONG)
    }),
];

type Provided = (Provider<u32>, Running<u32>);

/// `b` depends on `a`, and both are up, provided by hand.
fn by_hand() -> (Registry, [AnyId; 2], [Provided; 2]) {
    let (registry, [a, b]) = registry_of::<u32, 2>(["a", "b"]);
    registry.depends(b).on(a).unwrap();
    let provided = [up(&registry, a, 1), up(&registry, b, 2)];
    let ids = ["a", "b"].map(|name| registry.find(name).unwrap());
    (registry, ids, provided)
}

fn names(outcome: &Outcome) -> Vec<String> {
    let report = outcome.as_ref().unwrap();
    report.stopped.iter().map(|one| one.service.to_string()).collect()
}

/// Returns whether an attempt may begin.
fn may_begin(provider: &Provider<u32>) -> bool {
    provider.begin().wait_blocking_timeout(Duration::ZERO).is_ok()
}

#[test]
fn untyped_ids_mean_the_same_in_each_way_to_wait() {
    for (operation, begin) in OPERATIONS {
        for (way, wait) in WAYS {
            let (registry, [a, b], [(provide_a, a_is_up), (provide_b, b_is_up)]) = by_hand();
            let outcome = wait(begin(&registry, a));
            assert_eq!(names(&outcome), ["b", "a"], "{operation}, {way}");
            assert!(outcome.unwrap().stop_timeouts.is_empty());
            assert!(
                [a, b].iter().all(|&id| registry.status(id).unwrap().phase.to_string() == "down")
            );
            drop((a_is_up, b_is_up));
            let (stops_a, stops_b) = (operation != "restart", operation == "stop_subtree");
            let begins = [&provide_a, &provide_b].map(may_begin);
            assert_eq!(begins, [!stops_a, !stops_b], "{operation}, {way}");
            let started = [a, b].map(|id| registry.start(id).unwrap());
            assert_eq!(started, [stops_a, stops_b], "{operation}, {way}");
            assert!(may_begin(&provide_a) && may_begin(&provide_b), "{operation}, {way}");
        }
    }
}

#[test]
fn a_timeout_of_an_untyped_id_undoes_nothing() {
    let waits: [Way; 3] = [
        ("a future", |wait| pollster::block_on(wait.timeout(ms(1), &SystemClock))),
        ("blocking", |wait| wait.wait_blocking_timeout(ms(1))),
        ("a check", |wait| wait.wait_blocking_timeout(Duration::ZERO)),
    ];
    for (operation, begin) in OPERATIONS {
        for (way, wait) in waits {
            let (registry, [a, b], [a_is_up, b_is_up]) = by_hand();
            let turn = b_is_up.1.hold_turn();
            let error = wait(begin(&registry, a)).unwrap_err();
            let text = error.to_string();
            assert!(matches!(error, StopError::TimedOut { .. }), "{operation}, {way}: {text}");
            assert!(text.starts_with("a has not stopped after "), "{text}");
            assert!(text.ends_with(": waiting for b (not running)"), "{text}");
            let phases = [a, b].map(|id| registry.status(id).unwrap().phase.to_string());
            assert_eq!(phases, ["ready", "down"], "{operation}, {way}");
            drop(turn);
            assert_eq!(registry.status(a).unwrap().phase.to_string(), "down", "{operation}, {way}");
            drop((a_is_up, b_is_up));
        }
    }
}

#[test]
fn a_foreign_id_is_refused() {
    let (registry, _, _provided) = by_hand();
    let (other, [foreign]) = registry_of::<u32, 1>(["foreign"]);
    for (operation, begin) in OPERATIONS {
        let error = begin(&registry, foreign.into()).wait_blocking().unwrap_err();
        assert!(matches!(error, StopError::ForeignId(_)), "{operation}: {error}");
    }
    assert!(registry.start(foreign).is_err());
    drop(other);
}

#[test]
fn a_restart_ends_permanent_and_waiting() {
    let mut runtime = TestRuntime::new();
    let [permanent, waiting, missing] =
        ["permanent", "waiting", "missing"].map(|name| runtime.service(name));
    let mut builds = 0;
    runtime.supervise(permanent, exact(), move |_| {
        builds += 1;
        let result = if builds == 1 { Err(Permanent::new("wrong")) } else { Ok(builds) };
        async move { result }
    });
    let (registry, counted) = (runtime.registry.clone(), Arc::new(AtomicUsize::new(0)));
    let builds = Arc::clone(&counted);
    runtime.supervise(waiting, exact(), move |_| {
        // The third build does without it.
        let result: Result<u32, BoxError> = match builds.fetch_add(1, Ordering::Relaxed) {
            0 | 1 => registry.get(missing).map(|value| *value).map_err(Into::into),
            _ => Ok(3),
        };
        async move { result }
    });
    runtime.advance(ms(100_000));
    let states = [permanent, waiting].map(|id| runtime.state(id));
    assert_eq!(states, [SupervisorState::Permanent, SupervisorState::Waiting]);
    assert_eq!(counted.load(Ordering::Relaxed), 1);

    let restart = |runtime: &mut TestRuntime, id| {
        let restart = runtime.registry.restart(id, "mended");
        let ended = start(runtime, restart);
        assert_eq!(stopped(&ended).len(), 1);
        assert_eq!(runtime.supervisor_status(id).failures, 0);
        runtime.state(id)
    };
    assert_eq!(restart(&mut runtime, permanent), SupervisorState::Up);
    assert_eq!(runtime.get(permanent), Some(2));
    assert_eq!(restart(&mut runtime, waiting), SupervisorState::Waiting, "it is still not there");
    assert_eq!(counted.load(Ordering::Relaxed), 2);
    assert_eq!(restart(&mut runtime, waiting), SupervisorState::Up);
    assert_eq!(runtime.get(waiting), Some(3));
    assert_eq!(runtime.supervisor_status(waiting).waiting_for, None);
}

#[test]
fn each_caller_of_operations_that_became_one_receives_the_whole_report() {
    let (mut runtime, log, [bottom, middle, top]) = chain();
    let ended: Vec<_> = (0..60)
        .map(|i| {
            let wait = match i % 3 {
                0 => runtime.registry.restart(top, "edited"),
                1 => runtime.registry.restart(middle, "edited"),
                _ => runtime.registry.restart(bottom, "edited"),
            };
            start(&mut runtime, wait)
        })
        .collect();
    runtime.advance(ms(29));
    assert!(ended.iter().all(|ended| ended.lock().unwrap().is_none()));
    runtime.advance(ms(1));
    for ended in &ended {
        assert_eq!(stopped(ended), ["top", "middle", "bottom"]);
    }
    let lines = taken(&log);
    assert_eq!(lines.iter().filter(|line| line.contains("must end")).count(), 3, "{lines:?}");
    assert_eq!([bottom, middle, top].map(|id| runtime.get(id)), [Some(2); 3]);
}

#[test]
fn callers_on_many_threads_receive_the_report_of_one_operation() {
    let (registry, [a, b], [_a_is_up, b_is_up]) = by_hand();
    let turn = b_is_up.1.hold_turn();
    let waits: Vec<_> = (0..16)
        .map(|i| {
            let mut wait = registry.restart([a, b][i % 2], "edited");
            // It has begun before its thread runs.
            assert!(poll_once(&mut wait).is_pending());
            wait
        })
        .collect();
    let threads = waits.into_iter().map(|wait| thread::spawn(|| wait.wait_blocking_timeout(LONG)));
    let threads: Vec<_> = threads.collect();
    drop(turn);
    for thread in threads {
        assert_eq!(names(&thread.join().unwrap()), ["b", "a"]);
    }
}

#[test]
fn the_last_guard_ends_the_turn() {
    let (registry, [a, b], [_a_is_up, b_is_up]) = by_hand();
    // A guard that is dropped before the turn holds nothing.
    drop(b_is_up.1.hold_turn());
    let guards = [b_is_up.1.hold_turn(), b_is_up.1.hold_turn()];
    let mut restart = registry.restart(a, "edited");
    assert!(poll_once(&mut restart).is_pending());
    // It counts also if it was made during the turn.
    let third = b_is_up.1.hold_turn();
    let [first, second] = guards;
    for guard in [second, third] {
        drop(guard);
        assert!(poll_once(&mut restart).is_pending());
        let phases = [a, b].map(|id| registry.status(id).unwrap().phase.to_string());
        assert_eq!(phases, ["ready", "down"]);
    }
    drop(first);
    let Poll::Ready(outcome) = poll_once(&mut restart) else { panic!("it has not ended") };
    assert_eq!(names(&outcome), ["b", "a"]);
}

#[test]
fn guards_hold_a_turn_in_a_shutdown_within_its_limit() {
    for within_limit in [true, false] {
        let mut runtime = TestRuntime::new();
        let [a, b] = ["a", "b"].map(|name| runtime.service(name));
        runtime.registry.depends(b).on(a).unwrap();
        let (_provide_a, _a_is_up) = up(&runtime.registry, a, 1);
        let (_provide_b, b_is_up) = up(&runtime.registry, b, 2);
        let guards = [b_is_up.hold_turn(), b_is_up.hold_turn()];
        let shutdown = shut_down(&mut runtime, ms(1_000));
        runtime.advance(ms(999));
        assert_eq!([a, b].map(|id| runtime.get(id)), [Some(1), None]);
        let [first, second] = guards;
        drop(first);
        runtime.run_until_idle();
        assert!(shutdown.lock().unwrap().is_none());
        assert_eq!(runtime.get(a), Some(1));
        let late = if within_limit {
            drop(second);
            runtime.run_until_idle();
            late(&shutdown)
        } else {
            runtime.advance(ms(1));
            let late = late(&shutdown);
            drop(second);
            late
        };
        let held = [("b", SupervisorState::NotRunning), ("a", SupervisorState::NotRunning)];
        let held = held.map(|(name, state)| (name.to_string(), state));
        assert_eq!(late, held[if within_limit { 2 } else { 0 }..], "within: {within_limit}");
        assert_eq!([a, b].map(|id| runtime.get(id)), [None, None]);
        assert!(runtime.registry.is_closed());
    }
}

#[test]
fn the_last_of_two_requests_decides_the_reason() {
    for (stops, expected) in [
        ([false, false], "middle must end: middle is being restarted: second"),
        ([false, true], "middle must end: middle was stopped"),
        ([true, false], "middle must end: middle is being restarted: second"),
    ] {
        let (mut runtime, log, [_, middle, _]) = chain();
        for (stop, why) in stops.into_iter().zip(["first", "second"]) {
            let wait = match stop {
                true => runtime.registry.stop(middle),
                false => runtime.registry.restart(middle, why),
            };
            start(&mut runtime, wait);
        }
        runtime.advance(ms(10));
        assert_eq!(taken(&log).last().unwrap(), expected);
    }
}

#[test]
fn a_stopped_service_is_shown_as_stopped_while_its_dependency_restarts() {
    let (mut runtime, _, [bottom, middle, top]) = chain();
    let stop = runtime.registry.stop_subtree(middle);
    start(&mut runtime, stop);
    runtime.advance(ms(20));
    let restart = runtime.registry.restart(bottom, "edited");
    let ended = start(&mut runtime, restart);
    assert!(ended.lock().unwrap().is_none(), "the body of `bottom` has not ended");
    for (id, name) in [(middle, "middle"), (top, "top")] {
        let line = runtime.registry.status(id).unwrap().to_string();
        assert_eq!(line, format!("{name}: stopped, `Registry::start` starts it"));
    }
}

#[test]
fn a_late_dependent_of_a_subtree_that_is_restarted_and_stopped_stays_stopped() {
    let (mut runtime, log, [_, middle, top]) = chain();
    let restart = runtime.registry.restart(middle, "edited");
    start(&mut runtime, restart);
    let stop = runtime.registry.stop_subtree(middle);
    start(&mut runtime, stop);
    let late = runtime.service("late");
    supervise_logged(&mut runtime, &log, late, &[middle], ms(10));
    runtime.run_until_idle();
    assert_eq!(runtime.get(late), Some(1));
    runtime.advance(ms(100));
    assert_eq!([middle, top, late].map(|id| runtime.state(id)), [SupervisorState::Stopped; 3]);
}
