//! Blocking bodies: how they end.
//!
//! - The error, the panic and the plain return of a blocking body fail its instance, and are
//!   counted, as those of an async one.
//! - A blocking body may say that its service stays ready, or has completed.
//! - What it returns after it was notified changes nothing.
//! - It may end by itself while the instance is replaced, and may fail its own instance.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
};

use super::runtime::{TestRuntime, exact, ms};
use crate::support::{LONG, registry_of, until};
use mainstay::{
    Reason, ServiceId,
    supervise::{BodyEnd, BodyFailure, Live, StopReason, SupervisorState},
};

/// Runs until the service is in this state: a body on another thread decides when.
#[track_caller]
fn run_until(runtime: &mut TestRuntime, id: ServiceId<u32>, state: SupervisorState) {
    until(&format!("the service is {state}"), || {
        runtime.run_until_idle();
        runtime.state(id) == state
    });
}

#[test]
fn an_error_a_panic_and_a_plain_return_fail_the_instance_and_are_counted() {
    let mut runtime = TestRuntime::new();
    let id = runtime.service("worker");
    let supervisor = runtime.registry.supervise(id).unwrap().restart_policy(exact());
    let mut bodies = 0;
    let supervisor = supervisor.exclusive_body_blocking(move |live: Live<u32>| {
        bodies += 1;
        match bodies {
            1 => Ok(()),
            2 => Err("the queue is gone"),
            3 => panic!("odd job"),
            _ => live.stopping().wait_blocking().map(|_| ()).map_err(|_| "never"),
        }
    });
    runtime.spawn(supervisor.run(async |_| 7));
    let mut backoff = 100;
    for (failures, expected) in
        (1..).zip(["its body returned", "the queue is gone", "its body panicked: odd job"])
    {
        run_until(&mut runtime, id, SupervisorState::BackingOff);
        assert_eq!(runtime.get(id), None, "{expected}");
        let failure = runtime.registry.status(id).unwrap().last_failure.unwrap();
        assert_eq!(failure.reason.to_string(), expected);
        assert_eq!(runtime.supervisor_status(id).failures, failures);
        runtime.advance(ms(backoff - 1));
        assert_eq!(runtime.state(id), SupervisorState::BackingOff, "{expected}");
        runtime.advance(ms(1));
        backoff *= 2;
    }
    run_until(&mut runtime, id, SupervisorState::Up);
    let failure = runtime.registry.status(id).unwrap().last_failure.unwrap();
    let Reason::Error(error) = failure.reason else { panic!("{failure}") };
    let panicked = BodyFailure::Panicked { message: "odd job".into() };
    assert_eq!(error.downcast_ref::<BodyFailure>(), Some(&panicked));
    runtime.registry.close();
}

#[test]
fn a_service_stays_ready_if_its_blocking_body_says_so() {
    for (end, state) in [
        (BodyEnd::StayReady, SupervisorState::Up),
        (BodyEnd::Completed, SupervisorState::Completed),
    ] {
        let mut runtime = TestRuntime::new();
        let id = runtime.service("worker");
        let supervisor = runtime.registry.supervise(id).unwrap().restart_policy(exact());
        let bodies = Arc::new(AtomicUsize::new(0));
        let supervisor = supervisor.body_blocking({
            let bodies = Arc::clone(&bodies);
            move |_| {
                bodies.fetch_add(1, Ordering::SeqCst);
                Ok::<_, String>(end)
            }
        });
        let mut builds = 0;
        runtime.spawn(supervisor.run(async move |_| {
            builds += 1;
            builds
        }));
        for round in 1..=3 {
            runtime.run_until_idle();
            until("the body was called", || bodies.load(Ordering::SeqCst) == round);
            run_until(&mut runtime, id, state);
            // It is not called again while the instance is up.
            runtime.advance(ms(60_000));
            assert_eq!(runtime.state(id), state);
            assert_eq!(bodies.load(Ordering::SeqCst), round);
            assert_eq!(runtime.get(id), u32::try_from(round).ok());
            runtime.registry.fail(id, "edited").unwrap();
            runtime.advance(ms(1_000));
        }
        runtime.registry.close();
    }
}

#[test]
fn what_a_blocking_body_returns_after_it_was_notified_is_no_failure() {
    let mut runtime = TestRuntime::new();
    let id = runtime.service("worker");
    let supervisor = runtime.registry.supervise(id).unwrap().restart_policy(exact());
    let mut bodies = 0;
    let supervisor = supervisor.exclusive_body_blocking(move |live: Live<u32>| {
        bodies += 1;
        let why = live.stopping().wait_blocking().unwrap();
        assert!(bodies != 1 || matches!(why, StopReason::Failed(_)), "{why}");
        assert!(bodies != 2 || matches!(why, StopReason::Restarted { .. }), "{why}");
        match bodies {
            1 => Err("an error at the end"),
            2 => panic!("a panic at the end"),
            _ => Ok(BodyEnd::Completed),
        }
    });
    let mut builds = 0;
    runtime.spawn(supervisor.run(async move |_| {
        builds += 1;
        builds
    }));
    runtime.run_until_idle();
    runtime.registry.fail(id, "by hand").unwrap();
    run_until(&mut runtime, id, SupervisorState::BackingOff);
    assert_eq!(runtime.supervisor_status(id).failures, 1, "the failure by hand");
    runtime.advance(ms(100));
    run_until(&mut runtime, id, SupervisorState::Up);
    assert_eq!(runtime.get(id), Some(2));

    let restart = runtime.registry.restart(id, "edited");
    let ended = super::stopping::start(&mut runtime, restart);
    until("the third instance is up", || {
        runtime.run_until_idle();
        runtime.get(id) == Some(3)
    });
    assert_eq!(runtime.supervisor_status(id).failures, 0);
    let report = ended.lock().unwrap().take().unwrap().unwrap();
    let body = report.stopped[0].body.as_ref().unwrap();
    assert_eq!(body.end.to_string(), "panicked: a panic at the end");

    let stop = runtime.registry.stop(id);
    let ended = super::stopping::start(&mut runtime, stop);
    until("it has stopped", || {
        runtime.run_until_idle();
        ended.lock().unwrap().is_some()
    });
    assert_eq!(runtime.state(id), SupervisorState::Stopped, "not completed");
    let lines = runtime.recorder.take();
    let failed = lines.iter().filter(|line| line.starts_with("worker") && line.contains("failed"));
    let expected = [
        "worker 0: failed: by hand",
        "worker 0: its body failed: an error at the end",
        "worker 1: its body failed: its body panicked: a panic at the end",
    ];
    assert_eq!(failed.collect::<Vec<_>>(), expected);
}

/// A body may replace its value, and fail its own instance, from its thread.
#[test]
fn a_blocking_body_may_replace_and_fail_its_instance() {
    let (registry, [id]) = registry_of::<u32, 1>(["worker"]);
    let (sender, seen) = mpsc::channel();
    let mut bodies = 0;
    let supervisor = registry.supervise(id).unwrap().restart_policy(exact());
    let supervisor = supervisor.exclusive_body_blocking(move |live: Live<u32>| {
        bodies += 1;
        if bodies == 1 {
            live.replace(8).unwrap();
            sender.send(live.instance().map(|value| **value)).unwrap();
            assert_eq!(live.fail("broken").failed, 1);
            assert!(live.instance().is_none());
        }
        sender.send(Some(u32::try_from(live.generation().get()).unwrap())).unwrap();
        live.stopping().wait_blocking().map(drop)
    });
    let thread = thread::spawn(move || supervisor.run_blocking(|_| 7));
    let next = || seen.recv_timeout(LONG).unwrap();
    assert_eq!([next(), next(), next()], [Some(8), Some(0), Some(1)]);
    let status = registry.status(id).unwrap();
    assert_eq!(status.last_failure.unwrap().reason.to_string(), "broken");
    assert_eq!(status.supervisor.unwrap().failures, 1);
    registry.close();
    thread.join().unwrap();
}
