//! What outlives the end of an instance: bodies that are late, and readers.
//!
//! - A shutdown, a restart and a stop wait for a body that is late since an earlier failure, and
//!   report it.
//! - An error that a blocking body returns too late is reported.
//! - No body and no close hook keeps a supervisor when the registry is closed.
//! - A supervisor that is dropped abandons its blocking body.
//! - A shutdown waits for the readers of an instance that a restart has ended.

use std::{
    future::pending,
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
};

use super::runtime::{TestRuntime, exact, ms};
use crate::support::{poll_once, until};
use mainstay::supervise::{BodyEnd, Live, SupervisorState, WorkEnd};

#[test]
fn a_shutdown_waits_for_a_blocking_body_that_is_late_since_a_failure() {
    for returns in [false, true] {
        let mut runtime = TestRuntime::new();
        let id = runtime.service("worker");
        let (resume, until_resumed) = mpsc::channel::<()>();
        let policy = exact().stop_timeout(ms(100));
        let supervisor = runtime.registry.supervise(id).unwrap().restart_policy(policy);
        let supervisor = supervisor.exclusive_body_blocking(move |_| {
            let _ = until_resumed.recv();
            Err::<(), _>("the job was lost")
        });
        runtime.spawn(supervisor.run(async |_| 1));
        runtime.run_until_idle();
        runtime.registry.fail(id, "lost").unwrap();
        runtime.advance(ms(10_000));
        assert_eq!(runtime.state(id), SupervisorState::BodyRunning);
        runtime.recorder.take();
        let mut shutdown = pin!(runtime.registry.shutdown(ms(60_000)));
        assert!(poll_once(shutdown.as_mut()).is_pending());
        runtime.run_until_idle();
        assert_eq!(runtime.state(id), SupervisorState::Stopping);
        let mut resume = Some(resume);
        if returns {
            resume = None;
            until("the body has returned", || {
                runtime.run_until_idle();
                runtime.tasks.is_empty()
            });
        }
        runtime.advance(ms(100));
        let std::task::Poll::Ready(report) = poll_once(shutdown.as_mut()) else {
            panic!("the limit of the body has expired")
        };
        let (body, end) = match returns {
            true => {
                let end = WorkEnd::Failed { message: "the job was lost".into() };
                (&report.stopped[0].body, end)
            }
            false => (&report.stop_timeouts[0].body, WorkEnd::Late),
        };
        assert_eq!(body.as_ref().unwrap().end, end);
        // The generation is that of the body, and not the one after the failure.
        let lines = runtime.recorder.take();
        let of_the_body = |line: &String| line.starts_with("worker 0: its body failed: ");
        assert!(lines.iter().any(of_the_body), "{lines:#?}");
        drop(resume);
    }
}

#[test]
fn a_shutdown_reports_a_body_that_was_ending_at_its_turn() {
    let mut runtime = TestRuntime::new();
    let id = runtime.service("worker");
    let policy = exact().stop_timeout(ms(1_000));
    let supervisor = runtime.registry.supervise(id).unwrap().restart_policy(policy);
    let supervisor = supervisor.body(async |_| pending::<()>().await);
    runtime.spawn(supervisor.run(async |_| 1));
    runtime.run_until_idle();
    runtime.registry.fail(id, "lost").unwrap();
    runtime.run_until_idle();
    let mut shutdown = pin!(runtime.registry.shutdown(ms(60_000)));
    assert!(poll_once(shutdown.as_mut()).is_pending());
    runtime.advance(ms(1_000));
    let std::task::Poll::Ready(report) = poll_once(shutdown.as_mut()) else {
        panic!("the limit of the body has expired")
    };
    assert_eq!(report.stop_timeouts[0].body.as_ref().unwrap().end, WorkEnd::Late);
}

#[test]
fn an_error_that_a_blocking_body_returns_too_late_is_reported() {
    let mut runtime = TestRuntime::new();
    let id = runtime.service("worker");
    let (resume, until_resumed) = mpsc::channel::<()>();
    let policy = exact().stop_timeout(ms(100));
    let supervisor = runtime.registry.supervise(id).unwrap().restart_policy(policy);
    let mut calls = 0;
    let supervisor = supervisor.exclusive_body_blocking(move |live: Live<u32>| {
        calls += 1;
        if calls == 1 {
            let _ = until_resumed.recv();
            return Err("the job was lost");
        }
        let _ = live.stopping().wait_blocking();
        Ok(())
    });
    runtime.spawn(supervisor.run(async |_| 1));
    runtime.run_until_idle();
    runtime.registry.fail(id, "lost").unwrap();
    runtime.advance(ms(1_000));
    assert_eq!(runtime.state(id), SupervisorState::BodyRunning);
    runtime.recorder.take();
    drop(resume);
    until("it has returned, and the service is up", || {
        runtime.run_until_idle();
        runtime.get(id) == Some(1)
    });
    let lines = runtime.recorder.take();
    assert!(lines[0].contains("the job was lost"), "{lines:#?}");
    runtime.registry.close();
}

#[test]
fn a_body_that_hangs_keeps_no_supervisor_when_the_registry_is_closed() {
    for blocking in [false, true] {
        for by_shutdown in [false, true] {
            let mut runtime = TestRuntime::new();
            let id = runtime.service("worker");
            let (resume, until_resumed) = mpsc::channel::<()>();
            let supervisor = runtime.registry.supervise(id).unwrap().restart_policy(exact());
            match blocking {
                true => {
                    let supervisor = supervisor.exclusive_body_blocking(move |_| {
                        let _ = until_resumed.recv();
                    });
                    runtime.spawn(supervisor.run(async |_| 1));
                }
                false => {
                    let supervisor = supervisor.body(async |_| pending::<()>().await);
                    runtime.spawn(supervisor.run(async |_| 1));
                }
            }
            runtime.run_until_idle();
            match by_shutdown {
                true => {
                    let mut shutdown = pin!(runtime.registry.shutdown(ms(50)));
                    assert!(poll_once(shutdown.as_mut()).is_pending());
                    runtime.advance(ms(50));
                    assert!(poll_once(shutdown.as_mut()).is_ready());
                }
                false => runtime.registry.close(),
            }
            runtime.run_until_idle();
            assert_eq!(runtime.tasks.len(), 0, "the supervisor has not ended");
            assert_eq!(runtime.get(id), None);
            drop(resume);
        }
    }
}

#[test]
fn a_body_may_do_one_step_when_the_registry_is_closed() {
    let mut runtime = TestRuntime::new();
    let id = runtime.service("worker");
    let steps = Arc::new(AtomicUsize::new(0));
    let supervisor = runtime.registry.supervise(id).unwrap().body({
        let steps = Arc::clone(&steps);
        async move |live: Live<u32>| {
            let reason = live.stopping().await.unwrap();
            assert_eq!(reason.to_string(), "the registry was closed");
            steps.fetch_add(1, Ordering::Relaxed);
            pending::<()>().await;
        }
    });
    runtime.spawn(supervisor.run(async |_| 1));
    runtime.run_until_idle();
    runtime.registry.close();
    runtime.run_until_idle();
    assert_eq!((steps.load(Ordering::Relaxed), runtime.tasks.len()), (1, 0));
}

#[test]
fn no_close_hook_is_called_after_the_close_because_of_a_body() {
    let mut runtime = TestRuntime::new();
    let id = runtime.service("worker");
    let (kept, calls) = (Arc::new(Mutex::new(None)), Arc::new(AtomicUsize::new(0)));
    let supervisor = runtime.registry.supervise(id).unwrap().restart_policy(exact());
    let supervisor = supervisor.body({
        let kept = Arc::clone(&kept);
        async move |live: Live<u32>| {
            *kept.lock().unwrap() = Some(live);
            pending::<()>().await
        }
    });
    let supervisor = supervisor.on_close({
        let calls = Arc::clone(&calls);
        async move |_| {
            calls.fetch_add(1, Ordering::Relaxed);
        }
    });
    runtime.spawn(supervisor.run(async |_| 1));
    runtime.run_until_idle();
    let reader = runtime.registry.get_arc(id).unwrap();
    kept.lock().unwrap().as_ref().unwrap().replace(2).unwrap();
    runtime.run_until_idle();
    runtime.registry.close();
    runtime.run_until_idle();
    drop(reader);
    runtime.run_until_idle();
    assert_eq!(calls.load(Ordering::Relaxed), 0);
}

#[test]
fn a_supervisor_that_is_dropped_abandons_its_blocking_body() {
    let mut runtime = TestRuntime::new();
    let id = runtime.service("worker");
    let running = Arc::new(AtomicUsize::new(0));
    let mut resume = Vec::new();
    for bodies in 1..=2 {
        let (resumed, until_resumed) = mpsc::channel::<()>();
        resume.push(resumed);
        // A service has one supervisor: the one before is dropped.
        runtime.tasks.clear();
        let count = Arc::clone(&running);
        let supervisor =
            runtime.registry.supervise(id).unwrap().exclusive_body_blocking(move |_| {
                count.fetch_add(1, Ordering::Relaxed);
                let _ = until_resumed.recv();
            });
        runtime.spawn(supervisor.run(async |_| 1));
        runtime.run_until_idle();
        until("the body runs", || running.load(Ordering::Relaxed) == bodies);
    }
    runtime.registry.close();
}

#[test]
fn a_shutdown_waits_for_the_readers_of_an_instance_that_a_restart_has_ended() {
    let mut runtime = TestRuntime::new();
    let id = runtime.service("pool");
    runtime.supervise(id, exact().drain_timeout(ms(100)), |_| async { Ok::<_, String>(1) });
    runtime.run_until_idle();
    let reader = runtime.registry.get_arc(id).unwrap();
    runtime.restart(id);
    runtime.advance(ms(100));
    assert_eq!(runtime.get(id), Some(1));
    let mut shutdown = pin!(runtime.registry.shutdown(ms(60_000)));
    assert!(poll_once(shutdown.as_mut()).is_pending());
    runtime.run_until_idle();
    assert!(poll_once(shutdown.as_mut()).is_pending(), "a reader is left");
    let status = runtime.supervisor_status(id);
    assert_eq!((status.state, status.holders), (SupervisorState::Draining, 1));
    drop(reader);
    runtime.run_until_idle();
    let std::task::Poll::Ready(report) = poll_once(shutdown.as_mut()) else {
        panic!("all readers have left")
    };
    assert!(report.stop_timeouts.is_empty());
}

#[test]
fn an_instance_that_its_body_has_failed_is_not_completed() {
    let mut runtime = TestRuntime::new();
    let id = runtime.service("job");
    let supervisor = runtime.registry.supervise(id).unwrap().restart_policy(exact());
    let supervisor = supervisor.body(async |live: Live<u32>| {
        live.fail("broken");
        BodyEnd::Completed
    });
    runtime.spawn(supervisor.run(async |_| 1));
    runtime.run_until_idle();
    let lines = runtime.recorder.take();
    assert!(!lines.iter().any(|line| line.contains("completed")), "{lines:#?}");
}
