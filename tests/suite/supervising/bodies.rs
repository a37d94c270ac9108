//! Bodies: the user's code that runs while an instance is up.
//!
//! - A body runs once for each publication, and is notified when the publication ends, and why.
//! - Its error, its panic and its plain return fail the instance, and are counted. It may say that
//!   the service stays ready.
//! - A body that does not return in time is dropped; a blocking one is waited for before the next
//!   build. No two bodies of one service run at the same time.
//! - In a shutdown a body is notified while its instance can be read.

use std::{
    future::pending,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use super::runtime::{LiveCount, TestRuntime, exact, ms};
use crate::support::{poll_once, registry_of, until};
use mainstay::{
    Reason, Registry,
    supervise::{BodyEnd, BodyFailure, Live, RestartPolicy, StopReason, SupervisorState, WorkEnd},
};

type Log = Arc<Mutex<Vec<String>>>;

fn note(log: &Log, what: impl Into<String>) {
    log.lock().unwrap().push(what.into());
}

fn taken(log: &Log) -> Vec<String> {
    std::mem::take(&mut log.lock().unwrap())
}

/// The message of the last failure.
fn last_failure(registry: &Registry, id: mainstay::ServiceId<u32>) -> String {
    registry.status(id).unwrap().last_failure.unwrap().reason.to_string()
}

#[test]
fn a_body_runs_for_each_publication_and_learns_why_it_ends() {
    let mut runtime = TestRuntime::new();
    let (bottom, top) = (runtime.service("bottom"), runtime.service("top"));
    runtime.supervise(bottom, exact(), |_| async { Ok::<_, String>(1) });
    let log = Log::default();
    let supervisor = runtime.registry.supervise(top).unwrap().restart_policy(exact());
    let supervisor = supervisor.body({
        let log = Arc::clone(&log);
        async move |live: Live<u32>| {
            note(&log, format!("{} of {}", **live.instance().unwrap(), live.generation()));
            let reason = live.stopping().await.unwrap();
            assert!(live.instance().is_none(), "a failed instance is down before its body knows");
            note(
                &log,
                match reason {
                    StopReason::Failed(failure) => format!("failed: {}", failure.reason),
                    StopReason::DependencyFailed(failure) => format!("with {}", failure.root),
                    other => format!("{other:?}"),
                },
            );
            assert!(live.stop_reason().is_some());
        }
    });
    let mut builds = 0;
    runtime.spawn(supervisor.run(async move |build| {
        build.wait_for(bottom).await?;
        builds += 1;
        Ok::<u32, mainstay::error::WaitForError>(builds)
    }));
    runtime.run_until_idle();
    assert_eq!(taken(&log), ["1 of 0"]);
    runtime.registry.fail(bottom, "edited").unwrap();
    runtime.run_until_idle();
    assert_eq!(runtime.get(top), None, "`bottom` is backing off");
    runtime.advance(ms(100));
    assert_eq!(taken(&log), ["with bottom", "2 of 1"]);
    runtime.registry.fail(top, "by hand").unwrap();
    runtime.advance(ms(100));
    assert_eq!(taken(&log), ["failed: by hand", "3 of 2"]);
}

#[test]
fn an_error_a_panic_and_a_plain_return_of_a_body_fail_its_instance_and_are_counted() {
    let mut runtime = TestRuntime::new();
    let id = runtime.service("worker");
    let supervisor = runtime.registry.supervise(id).unwrap().restart_policy(exact());
    let mut bodies = 0;
    let supervisor = supervisor.exclusive_body(async move |_| {
        bodies += 1;
        match bodies {
            1 => Ok(()),
            2 => Err("the queue is gone"),
            3 => panic!("odd job"),
            _ => pending().await,
        }
    });
    runtime.spawn(supervisor.run(async |_| 7));
    let mut wait = 100;
    for (failures, expected) in
        (1..).zip(["its body returned", "the queue is gone", "its body panicked: odd job"])
    {
        runtime.run_until_idle();
        assert_eq!(runtime.get(id), None, "{expected}");
        assert_eq!(last_failure(&runtime.registry, id), expected);
        let status = runtime.supervisor_status(id);
        assert_eq!((status.state, status.failures), (SupervisorState::BackingOff, failures));
        runtime.advance(ms(wait));
        wait *= 2;
    }
    assert_eq!(runtime.get(id), Some(7));
    let failure = runtime.registry.status(id).unwrap().last_failure.unwrap();
    let Reason::Error(error) = failure.reason else { panic!("{failure}") };
    assert_eq!(
        error.downcast_ref::<BodyFailure>(),
        Some(&BodyFailure::Panicked { message: "odd job".into() })
    );
}

#[test]
fn a_service_stays_ready_if_its_body_says_so() {
    for (end, state) in [
        (BodyEnd::StayReady, SupervisorState::Up),
        (BodyEnd::Completed, SupervisorState::Completed),
    ] {
        let mut runtime = TestRuntime::new();
        let (bottom, top) = (runtime.service("bottom"), runtime.service("top"));
        runtime.supervise(bottom, exact(), |_| async { Ok::<_, String>(1) });
        let bodies = Arc::new(AtomicUsize::new(0));
        let supervisor = runtime.registry.supervise(top).unwrap().restart_policy(exact());
        let supervisor = supervisor.body({
            let bodies = Arc::clone(&bodies);
            async move |_| {
                bodies.fetch_add(1, Ordering::Relaxed);
                end
            }
        });
        runtime.spawn(
            supervisor
                .run(async move |build| build.wait_for(bottom).await.map(|bottom| **bottom + 1)),
        );
        runtime.advance(ms(60_000));
        assert_eq!((runtime.get(top), runtime.state(top)), (Some(2), state));
        // It fails with its dependency, and then its body runs again.
        runtime.registry.fail(bottom, "edited").unwrap();
        runtime.run_until_idle();
        assert_eq!((runtime.get(top), runtime.state(top)), (Some(2), state));
        assert_eq!(bodies.load(Ordering::Relaxed), 2);
    }
}

#[test]
fn a_replacement_does_not_end_a_body_and_a_handle_has_no_effect_after_the_end() {
    let mut runtime = TestRuntime::new();
    let id = runtime.service("limit");
    let supervisor = runtime.registry.supervise(id).unwrap().restart_policy(exact());
    let (sender, handles) = mpsc::channel();
    let supervisor = supervisor.body(async move |live| {
        sender.send(live.clone()).unwrap();
        live.stopping().await.unwrap();
    });
    let mut builds = 0;
    runtime.spawn(supervisor.run(async move |_| {
        builds += 1;
        builds * 100
    }));
    runtime.run_until_idle();
    let first = handles.try_recv().unwrap();
    first.replace(150).unwrap();
    runtime.run_until_idle();
    assert_eq!(runtime.get(id), Some(150));
    assert!(handles.try_recv().is_err(), "the body was called again");
    // The handle keeps no instance alive, and its drop fails nothing.
    drop(first.clone());
    assert_eq!(runtime.get(id), Some(150));

    assert_eq!(first.fail("too low").failed, 1);
    runtime.advance(ms(100));
    assert_eq!(runtime.get(id), Some(200));
    assert_eq!(first.fail("again").failed, 0);
    let refused = first.replace(300).unwrap_err();
    let text = mainstay::error::chain(&refused).to_string();
    assert!(*refused.value == 300 && text.ends_with("limit failed: too low"), "{text}");
    assert!(first.instance().is_none());
    assert_eq!(runtime.get(id), Some(200));
    let second = handles.try_recv().unwrap();
    assert_eq!(second.generation(), 1);
}

#[test]
fn a_body_that_is_late_is_dropped_and_only_then_the_service_is_built_again() {
    let mut runtime = TestRuntime::new();
    let id = runtime.service("worker");
    let policy = exact().stop_timeout(ms(3_000));
    let supervisor = runtime.registry.supervise(id).unwrap().restart_policy(policy);
    let alive = Arc::new(AtomicUsize::new(0));
    let supervisor = supervisor.body({
        let alive = Arc::clone(&alive);
        async move |_| {
            let _counted = LiveCount::new(&alive);
            assert_eq!(alive.load(Ordering::Relaxed), 1, "two bodies at the same time");
            pending::<()>().await;
        }
    });
    runtime.spawn(supervisor.run(async |_| 7));
    for _ in 0..3 {
        runtime.run_until_idle();
        assert_eq!((runtime.get(id), alive.load(Ordering::Relaxed)), (Some(7), 1));
        runtime.registry.fail(id, "by hand").unwrap();
        runtime.advance(ms(2_999));
        assert_eq!((runtime.get(id), runtime.state(id)), (None, SupervisorState::Stopping));
        assert_eq!(alive.load(Ordering::Relaxed), 1);
        // The backoff has passed during this time, or ends soon.
        runtime.advance(ms(1_001));
    }
    // Supervisors end when the registry is closed, and wait for no body then.
    runtime.registry.close();
    runtime.run_until_idle();
    assert_eq!((alive.load(Ordering::Relaxed), runtime.tasks.len()), (0, 0));
}

#[test]
fn the_end_of_a_body_is_a_part_of_the_backoff_and_not_of_the_time_in_which_its_instance_was_up() {
    let mut runtime = TestRuntime::new();
    let id = runtime.service("worker");
    let policy = exact().backoff(ms(2_000), ms(60_000)).reset_after(ms(1_000));
    let supervisor = runtime.registry.supervise(id).unwrap();
    let supervisor = supervisor.restart_policy(policy.stop_timeout(ms(1_500)));
    runtime.spawn(supervisor.body(async |_| pending::<()>().await).run(async |_| 7));
    runtime.advance(ms(999));
    runtime.registry.fail(id, "by hand").unwrap();
    runtime.advance(ms(1_999));
    assert_eq!((runtime.get(id), runtime.supervisor_status(id).failures), (None, 1));
    runtime.advance(ms(1));
    assert_eq!(runtime.get(id), Some(7));
    runtime.registry.close();
}

#[test]
fn in_a_shutdown_a_body_returns_before_its_instance_goes_down() {
    let mut runtime = TestRuntime::new();
    let (pool, server) = (runtime.service("pool"), runtime.service("server"));
    runtime.supervise(pool, exact(), |_| async { Ok::<_, String>(1) });
    let log = Log::default();
    let supervisor = runtime.registry.supervise(server).unwrap().restart_policy(exact());
    let supervisor = supervisor.body({
        let (log, clock) = (Arc::clone(&log), runtime.clock.clone());
        async move |live: Live<u32>| {
            let reason = live.stopping().await.unwrap();
            note(&log, reason.to_string());
            for _ in 0..3 {
                use mainstay::supervise::Clock;
                let end = clock.now() + ms(1_000);
                clock.sleep_until(end).await;
                assert_eq!(live.instance().map(|server| **server), Some(2));
                assert!(live.registry().get(pool).is_ok(), "what it uses is up");
            }
            note(&log, "the last request is answered");
            Err::<(), _>("an error at the end changes nothing")
        }
    });
    let supervisor = supervisor.on_close({
        let (registry, log) = (runtime.registry.clone(), Arc::clone(&log));
        async move |_| {
            assert!(registry.get(server).is_err());
            note(&log, "close hook");
        }
    });
    runtime.spawn(
        supervisor.run(async move |build| build.wait_for(pool).await.map(|pool| **pool + 1)),
    );
    runtime.run_until_idle();
    let report = Arc::new(Mutex::new(None));
    let (shutdown, done) = (runtime.registry.shutdown(ms(60_000)), Arc::clone(&report));
    runtime.spawn(async move { *done.lock().unwrap() = Some(shutdown.await) });
    runtime.advance(ms(2_999));
    assert_eq!(taken(&log), ["the registry is shutting down"]);
    runtime.advance(ms(1));
    assert_eq!(taken(&log), ["the last request is answered", "close hook"]);
    let report = report.lock().unwrap().take().unwrap();
    assert!(report.stop_timeouts.is_empty(), "{report}");
    let server = &report.stopped[0];
    let body = server.body.as_ref().map(|body| (body.took, body.end.to_string()));
    let failed = "failed: an error at the end changes nothing";
    assert_eq!(body, Some((ms(3_000), failed.to_owned())));
    assert!(matches!(&server.closes[..], [close] if close.end == WorkEnd::Returned));
    assert_eq!(report.to_string(), format!("server: its body {failed}"));
    let lines = runtime.recorder.take();
    let errors = lines.iter().filter(|line| line.contains("an error at the end"));
    // It is reported, and it is no failure of the service.
    let reported = ["server 0: its body failed: an error at the end changes nothing"];
    assert_eq!(errors.collect::<Vec<_>>(), reported);
}

#[test]
fn a_body_that_returns_because_its_instance_has_failed_is_not_counted() {
    let mut runtime = TestRuntime::new();
    let (bottom, top) = (runtime.service("bottom"), runtime.service("top"));
    runtime.supervise(bottom, exact(), |_| async { Ok::<_, String>(1) });
    let supervisor = runtime.registry.supervise(top).unwrap().restart_policy(exact());
    let supervisor = supervisor.body(async |live: Live<u32>| {
        live.stopping().await?;
        Ok::<_, mainstay::error::WaitError>(())
    });
    runtime.spawn(supervisor.run(async move |build| build.wait_for(bottom).await.map(|_| 2)));
    for _ in 0..5 {
        runtime.run_until_idle();
        assert_eq!(runtime.get(top), Some(2));
        runtime.registry.fail(bottom, "edited").unwrap();
        runtime.advance(ms(10_000));
        assert_eq!(runtime.supervisor_status(top).failures, 0);
    }
}

/// A value whose conversion into an error panics, and whose drop panics, too.
struct Odd;

impl From<Odd> for Box<dyn std::error::Error + Send + Sync> {
    fn from(_: Odd) -> Self {
        panic!("no conversion")
    }
}

struct PanicsInDrop;

impl Drop for PanicsInDrop {
    fn drop(&mut self) {
        panic!("in the drop");
    }
}

/// The end comes after the supervisor has checked for it, and before the body does.
#[test]
fn a_body_that_returns_because_of_an_end_in_the_same_poll_is_not_counted() {
    let mut runtime = TestRuntime::new();
    let id = runtime.service("worker");
    let (ends, supervisor) = (Log::default(), runtime.registry.supervise(id));
    let supervisor = supervisor.unwrap().restart_policy(exact()).body({
        let ends = Arc::clone(&ends);
        async move |live: Live<u32>| {
            let begun = ends.lock().unwrap().len();
            match begun {
                0 => drop(poll_once(live.registry().restart(live.id(), "edited"))),
                1 => {
                    assert_eq!(
                        last_failure(live.registry(), id),
                        "worker is being restarted: edited"
                    );
                    live.fail("by the body");
                }
                _ => {}
            }
            let why = live.stopping().await.unwrap();
            note(&ends, why.to_string());
            Err::<(), _>("too late to be a failure")
        }
    });
    runtime.spawn(supervisor.run(async |_| 7));
    runtime.run_until_idle();
    let status = runtime.supervisor_status(id);
    assert_eq!((status.state, status.failures), (SupervisorState::BackingOff, 1));
    assert_eq!(taken(&ends).len(), 2);
    assert_eq!(last_failure(&runtime.registry, id), "by the body");
    assert_eq!(runtime.registry.status(id).unwrap().failed, 2);
    runtime.registry.close();
}

#[test]
fn panics_around_a_body_and_a_builder_do_not_end_the_supervisor() {
    let mut runtime = TestRuntime::new();
    let id = runtime.service("worker");
    let supervisor = runtime.registry.supervise(id).unwrap().restart_policy(exact());
    let captured = PanicsInDrop;
    let mut bodies = 0;
    let supervisor = supervisor.exclusive_body(async move |_| {
        let _captured = &captured;
        bodies += 1;
        match bodies {
            1 => Err(Odd),
            2 => {
                let _dropped_late = PanicsInDrop;
                pending().await
            }
            _ => Ok(BodyEnd::StayReady),
        }
    });
    let mut builds = 0;
    runtime.spawn(supervisor.run(async move |_| {
        builds += 1;
        if builds == 1 { Err(Odd) } else { Ok(builds) }
    }));
    runtime.advance(ms(100));
    assert_eq!(last_failure(&runtime.registry, id), "its body panicked: no conversion");
    runtime.advance(ms(200));
    assert_eq!(runtime.get(id), Some(3));
    runtime.registry.fail(id, "by hand").unwrap();
    runtime.advance(ms(20_000));
    assert_eq!(runtime.get(id), Some(4));
    runtime.registry.close();
    runtime.run_until_idle();
}

#[test]
fn a_dropped_supervisor_drops_its_body_and_fails_its_instance() {
    let (registry, [id]) = registry_of::<u32, 1>(["worker"]);
    let alive = Arc::new(AtomicUsize::new(0));
    let supervisor = registry.supervise(id).unwrap().body({
        let alive = Arc::clone(&alive);
        async move |_| {
            let _counted = LiveCount::new(&alive);
            pending::<()>().await;
        }
    });
    let mut run = Box::pin(supervisor.run(async |_| 7));
    assert!(pollster::block_on(futures_lite::future::poll_once(&mut run)).is_none());
    assert_eq!(
        (registry.get(id).map(|value| *value).ok(), alive.load(Ordering::Relaxed)),
        (Some(7), 1)
    );
    drop(run);
    assert!(registry.get(id).is_err());
    assert_eq!(alive.load(Ordering::Relaxed), 0);
}

#[test]
fn a_blocking_body_runs_on_a_thread_with_the_name_of_its_service() {
    let (registry, [id]) = registry_of::<u32, 1>(["wor\0ker"]);
    let (sender, started) = mpsc::channel();
    let supervisor = registry.supervise(id).unwrap();
    let supervisor = supervisor.restart_policy(RestartPolicy::default().without_jitter());
    let supervisor = supervisor.body_blocking(move |live: Live<u32>| {
        sender.send((thread::current().name().map(String::from), live.generation().get())).unwrap();
        match live.stopping().wait_blocking() {
            Ok(StopReason::Failed(_)) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    let supervising = thread::spawn(move || supervisor.run_blocking(|_| 7));
    let wait = Duration::from_secs(30);
    assert_eq!(started.recv_timeout(wait).unwrap(), (Some("worker".into()), 0));
    registry.fail(id, "by hand").unwrap();
    assert_eq!(started.recv_timeout(wait).unwrap(), (Some("worker".into()), 1));
    registry.close();
    supervising.join().unwrap();
}

#[test]
fn a_blocking_body_that_does_not_return_keeps_its_service_down_until_it_does() {
    let mut runtime = TestRuntime::new();
    let id = runtime.service("worker");
    let policy = exact().stop_timeout(ms(1_000));
    let supervisor = runtime.registry.supervise(id).unwrap().restart_policy(policy);
    let (resume, wait) = mpsc::channel::<()>();
    let alive = Arc::new(AtomicUsize::new(0));
    let most = Arc::new(AtomicUsize::new(0));
    let supervisor = supervisor.exclusive_body_blocking({
        let (alive, most) = (Arc::clone(&alive), Arc::clone(&most));
        move |_| {
            let _counted = LiveCount::new(&alive);
            most.fetch_max(alive.load(Ordering::SeqCst), Ordering::SeqCst);
            let _ = wait.recv();
        }
    });
    runtime.spawn(supervisor.run(async |_| 7));
    runtime.run_until_idle();
    assert_eq!(runtime.get(id), Some(7));
    runtime.registry.fail(id, "by hand").unwrap();
    // Its time is over, and also the backoff.
    runtime.advance(ms(60_000));
    assert_eq!((runtime.get(id), runtime.state(id)), (None, SupervisorState::BodyRunning));
    assert_eq!(runtime.state(id).to_string(), "waiting for its body to return");
    resume.send(()).unwrap();
    until("the service is up again", || {
        runtime.run_until_idle();
        runtime.get(id).is_some()
    });
    drop(resume);
    until("the last body returns", || alive.load(Ordering::SeqCst) == 0);
    assert_eq!(most.load(Ordering::SeqCst), 1, "two bodies at the same time");
}

#[test]
fn a_handle_that_is_kept_says_why_its_publication_has_ended() {
    let mut runtime = TestRuntime::new();
    let id = runtime.service("a");
    let (sender, lives) = mpsc::channel();
    let supervisor = runtime.registry.supervise(id).unwrap().restart_policy(exact());
    let supervisor = supervisor.body(async move |live: Live<u32>| {
        sender.send(live.clone()).unwrap();
        live.stopping().await.unwrap();
    });
    runtime.spawn(supervisor.run(async |_| 1));
    runtime.run_until_idle();
    let mut reason_after = |end: &dyn Fn(&mut TestRuntime)| {
        let live: Live<u32> = lives.try_recv().unwrap();
        end(&mut runtime);
        runtime.run_until_idle();
        let reason = live.stop_reason();
        runtime.registry.start(id).unwrap();
        runtime.run_until_idle();
        reason
    };
    let reason = reason_after(&|runtime| runtime.restart(id));
    assert!(matches!(reason, Some(StopReason::Restarted { .. })), "{reason:?}");
    let reason = reason_after(&|runtime| drop(poll_once(&mut runtime.registry.stop(id))));
    assert!(matches!(reason, Some(StopReason::Stopped { .. })), "{reason:?}");
    let reason = reason_after(&|runtime| runtime.registry.close());
    assert!(matches!(reason, Some(StopReason::Closed)), "{reason:?}");
}

/// A value whose drop waits until it may return.
struct BlocksInDrop(Mutex<Option<(mpsc::Sender<()>, mpsc::Receiver<()>)>>);

impl Drop for BlocksInDrop {
    fn drop(&mut self) {
        if let Some((dropping, may_return)) = self.0.get_mut().unwrap().take() {
            dropping.send(()).unwrap();
            may_return.recv().unwrap();
        }
    }
}

#[test]
fn the_end_of_an_instance_waits_for_a_replacement_that_is_in_progress() {
    let mut runtime = TestRuntime::new();
    let id = runtime.registry.register::<BlocksInDrop>("a").unwrap();
    let (sender, lives) = mpsc::channel();
    let ((dropping, is_dropping), (let_return, may_return)) = (mpsc::channel(), mpsc::channel());
    let supervisor =
        runtime.registry.supervise(id).unwrap().body(async move |live: Live<BlocksInDrop>| {
            sender.send(live.clone()).unwrap();
            live.stopping().await.unwrap();
        });
    let mut first = Some((dropping, may_return));
    runtime.spawn(supervisor.run(async move |_| BlocksInDrop(Mutex::new(first.take()))));
    runtime.run_until_idle();
    let live: Live<BlocksInDrop> = lives.recv().unwrap();
    let replaces = thread::spawn(move || live.replace(BlocksInDrop(Mutex::default())).is_ok());
    is_dropping.recv().unwrap();
    let mut stop = runtime.registry.stop(id);
    assert!(poll_once(&mut stop).is_pending());
    runtime.run_until_idle();
    assert!(runtime.registry.get(id).is_err(), "it is down");
    assert!(poll_once(&mut stop).is_pending(), "the replacement uses its handle");
    let_return.send(()).unwrap();
    assert!(replaces.join().unwrap());
    until("the stop has ended", || {
        runtime.run_until_idle();
        poll_once(&mut stop).is_ready()
    });
}
