//! Bodies and probes of services that are reloaded (S10, S11, S20).
//!
//! - The body of the new instance begins at once, beside the old one that stops. An exclusive one
//!   begins when the old one has ended, or was dropped at its stop timeout.
//! - The end of an old body means nothing, and is waited for in a planned end.
//! - A handle of the old publication reaches nothing.
//! - Probes begin anew, and what the old ones have said is forgotten.

use std::{
    sync::{
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    thread,
};

use super::*;
use crate::{supervising::runtime::ms, support};
use mainstay::{
    Instance,
    supervise::{BodyEnd, Live, StopReason, SupervisorState},
};

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn add(&self, line: impl Into<String>) {
        self.0.lock().unwrap().push(line.into());
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

/// A builder whose values are 1, 2 and so on. The type of a function's result would hide that its
/// future is `Send`.
macro_rules! counts {
    () => {{
        let mut builds = 0;
        async move |_: Build<u32>| {
            builds += 1;
            builds
        }
    }};
}

/// A body that logs its steps, and takes 10 ms to stop.
async fn steps(live: Live<u32>, log: Log, clock: VirtualClock) {
    let value = live.instance().map(|instance| **instance).unwrap_or_default();
    log.add(format!("{value} begins"));
    let why = live.stopping().await.unwrap();
    log.add(format!("{value} stops: {why}"));
    clock.sleep_until(clock.now() + ms(10)).await;
    log.add(format!("{value} ends"));
}

fn reload_one(runtime: &mut TestRuntime, id: ServiceId<u32>) -> Reload {
    let wait = runtime.registry.reload(id);
    begin(runtime, wait)
}

#[test]
fn the_new_body_begins_beside_the_old_one_that_stops() {
    let mut runtime = TestRuntime::new();
    let id = runtime.service("a");
    let (log, clock) = (Log::default(), runtime.clock.clone());
    let logged = log.clone();
    let supervisor = runtime.registry.supervise(id).unwrap().restart_policy(exact());
    let supervisor =
        supervisor.body(async move |live| steps(live, logged.clone(), clock.clone()).await);
    runtime.spawn(supervisor.run(counts!()));
    runtime.run_until_idle();
    assert_eq!(log.take(), ["1 begins"]);
    assert!(reload_one(&mut runtime, id).is_over());
    assert_eq!(log.take(), ["1 stops: a was reloaded", "2 begins"]);
    assert!(reload_one(&mut runtime, id).is_over());
    assert_eq!(log.take(), ["2 stops: a was reloaded", "3 begins"]);
    assert_eq!(runtime.state(id), SupervisorState::Up);
    runtime.advance(ms(10));
    assert_eq!(log.take(), ["1 ends", "2 ends"]);
    assert_eq!((runtime.get(id), runtime.state(id)), (Some(3), SupervisorState::Up));

    // At the end of the generation, both are notified and waited for.
    reload_one(&mut runtime, id).take().unwrap();
    runtime.advance(ms(5));
    runtime.registry.fail(id, "edited").unwrap();
    runtime.run_until_idle();
    assert_eq!(runtime.state(id), SupervisorState::Stopping);
    let lines = ["3 stops: a was reloaded", "4 begins", "4 stops: a failed"];
    assert_eq!(log.take(), lines);
    runtime.advance(ms(10));
    assert_eq!(log.take(), ["3 ends", "4 ends"]);
    runtime.advance(ms(100));
    assert_eq!(log.take(), ["5 begins"]);
    assert_eq!(runtime.supervisor_status(id).failures, 1, "a reload is no failure");
}

#[test]
fn an_exclusive_body_begins_after_the_old_one_or_its_stop_timeout() {
    let mut runtime = TestRuntime::new();
    let id = runtime.service("a");
    let (log, clock) = (Log::default(), runtime.clock.clone());
    let logged = log.clone();
    let policy = exact().stop_timeout(ms(50));
    let supervisor = runtime.registry.supervise(id).unwrap().restart_policy(policy);
    let mut calls = 0;
    let supervisor = supervisor.exclusive_body(async move |live: Live<u32>| {
        calls += 1;
        steps(live, logged.clone(), clock.clone()).await;
        if calls == 2 {
            std::future::pending::<()>().await;
        }
    });
    runtime.spawn(supervisor.run(counts!()));
    runtime.run_until_idle();
    assert_eq!(log.take(), ["1 begins"]);
    assert!(reload_one(&mut runtime, id).is_over());
    assert_eq!(log.take(), ["1 stops: a was reloaded"]);
    runtime.advance(ms(10));
    assert_eq!(log.take(), ["1 ends", "2 begins"]);
    assert!(reload_one(&mut runtime, id).is_over());
    runtime.advance(ms(49));
    assert_eq!(log.take(), ["2 stops: a was reloaded", "2 ends"]);
    runtime.advance(ms(1));
    assert_eq!(log.take(), ["3 begins"]);
    assert_eq!((runtime.get(id), runtime.state(id)), (Some(3), SupervisorState::Up));
}

#[test]
fn blocking_bodies_overlap_unless_they_are_exclusive() {
    for exclusive in [false, true] {
        let mut runtime = TestRuntime::new();
        let id = runtime.service("a");
        let present = Arc::new(AtomicU32::new(0));
        let most = Arc::new(AtomicU32::new(0));
        let begun = Arc::new(AtomicU32::new(0));
        let (ends, end) = std::sync::mpsc::channel::<()>();
        let end = Mutex::new(end);
        let body = {
            let (present, most) = (Arc::clone(&present), Arc::clone(&most));
            let begun = Arc::clone(&begun);
            move |live: Live<u32>| {
                begun.fetch_add(1, Ordering::SeqCst);
                most.fetch_max(present.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                let reason = live.stopping().wait_blocking();
                if matches!(reason, Ok(StopReason::Reloaded { .. })) {
                    end.lock().unwrap().recv().unwrap();
                }
                present.fetch_sub(1, Ordering::SeqCst);
            }
        };
        let supervisor = runtime.registry.supervise(id).unwrap().restart_policy(exact());
        match exclusive {
            false => drop(runtime.spawn(supervisor.body_blocking(body).run(counts!()))),
            true => drop(runtime.spawn(supervisor.exclusive_body_blocking(body).run(counts!()))),
        }
        let all_begun = |runtime: &mut TestRuntime, number: u32| {
            support::until("the bodies have begun", || {
                runtime.run_until_idle();
                present.load(Ordering::SeqCst) == number
            });
        };
        all_begun(&mut runtime, 1);
        assert!(reload_one(&mut runtime, id).is_over());
        all_begun(&mut runtime, if exclusive { 1 } else { 2 });
        // One that must not begin has some time for it.
        for _ in 0..20 {
            runtime.run_until_idle();
            thread::sleep(ms(1));
        }
        assert_eq!(begun.load(Ordering::SeqCst), if exclusive { 1 } else { 2 }, "the second body");
        ends.send(()).unwrap();
        support::until("the second body has begun", || {
            runtime.run_until_idle();
            begun.load(Ordering::SeqCst) == 2
        });
        all_begun(&mut runtime, 1);
        runtime.registry.close();
        all_begun(&mut runtime, 0);
        assert_eq!(most.load(Ordering::SeqCst), if exclusive { 1 } else { 2 });
    }
}

#[test]
fn a_failure_does_not_wait_for_a_body_that_is_late_since_a_reload() {
    let mut runtime = TestRuntime::new();
    let id = runtime.service("a");
    let policy = exact().stop_timeout(ms(100));
    let supervisor = runtime.registry.supervise(id).unwrap().restart_policy(policy);
    let ((end, until_end), (begun, has_begun)) = (mpsc::channel::<()>(), mpsc::channel());
    let until_end = Mutex::new(until_end);
    let supervisor = supervisor.body_blocking(move |live: Live<u32>| {
        begun.send(()).unwrap();
        if live.instance().is_some_and(|it| Instance::revision(&it) == 0) {
            // Nothing is sent: it ends with the test.
            let _ = until_end.lock().unwrap().recv();
        } else {
            let _ = pollster::block_on(live.stopping());
        }
    });
    runtime.spawn(supervisor.run(counts!()));
    runtime.run_until_idle();
    has_begun.recv_timeout(support::LONG).unwrap();
    assert!(reload_one(&mut runtime, id).is_over());
    has_begun.recv_timeout(support::LONG).unwrap();
    runtime.advance(ms(100));
    runtime.registry.fail(id, "broken").unwrap();
    support::until("it backs off", || {
        runtime.run_until_idle();
        runtime.state(id) == SupervisorState::BackingOff
    });
    drop(end);
}

#[test]
fn the_end_of_an_old_body_means_nothing() {
    let mut runtime = TestRuntime::new();
    let id = runtime.service("a");
    let supervisor = runtime.registry.supervise(id).unwrap().restart_policy(exact());
    let supervisor = supervisor.body(async |live: Live<u32>| {
        live.stopping().await.unwrap();
        Err::<(), _>("the queue is gone")
    });
    runtime.spawn(supervisor.run(counts!()));
    runtime.run_until_idle();
    for value in 2..5 {
        assert!(reload_one(&mut runtime, id).is_over());
        assert_eq!(runtime.get(id), Some(value));
        let status = runtime.supervisor_status(id);
        assert_eq!((status.state, status.failures), (SupervisorState::Up, 0));
    }
    let status = runtime.registry.status(id).unwrap();
    assert_eq!((status.generation.get(), status.revision), (0, 3));
    assert!(status.last_failure.is_none());
}

#[test]
fn a_body_that_has_returned_begins_anew() {
    let mut runtime = TestRuntime::new();
    let (ready, done) = (runtime.service("ready"), runtime.service("done"));
    let calls = Arc::new(AtomicU32::new(0));
    for (id, end) in [(ready, BodyEnd::StayReady), (done, BodyEnd::Completed)] {
        let calls = Arc::clone(&calls);
        let supervisor = runtime.registry.supervise(id).unwrap().body(async move |_| {
            calls.fetch_add(1, Ordering::SeqCst);
            end
        });
        runtime.spawn(supervisor.run(counts!()));
    }
    runtime.run_until_idle();
    for calls_so_far in [2, 4] {
        assert_eq!(calls.load(Ordering::SeqCst), calls_so_far);
        assert_eq!(runtime.state(ready), SupervisorState::Up);
        assert_eq!(runtime.state(done), SupervisorState::Completed);
        assert!(reload_one(&mut runtime, ready).is_over());
        assert!(reload_one(&mut runtime, done).is_over());
    }
    assert_eq!(runtime.state(done), SupervisorState::Completed);
}

#[test]
fn a_service_stops_after_its_old_bodies() {
    let mut runtime = TestRuntime::new();
    let id = runtime.service("a");
    let (log, clock) = (Log::default(), runtime.clock.clone());
    let logged = log.clone();
    let supervisor = runtime.registry.supervise(id).unwrap().restart_policy(exact());
    let supervisor = supervisor.body(async move |live: Live<u32>| {
        let first = live.instance().is_some_and(|it| Instance::revision(&it) == 0);
        live.stopping().await.unwrap();
        if first {
            clock.sleep_until(clock.now() + ms(100)).await;
        }
        logged.add(if first { "old" } else { "new" });
    });
    runtime.spawn(supervisor.run(counts!()));
    runtime.run_until_idle();
    assert!(reload_one(&mut runtime, id).is_over());
    let shutdown = runtime.registry.shutdown(ms(10_000));
    let shutdown = begin(&mut runtime, shutdown);
    assert_eq!(log.take(), ["new"]);
    assert_eq!(runtime.get(id), Some(2), "it can be read until all bodies have returned");
    runtime.advance(ms(99));
    assert!(!shutdown.is_over());
    runtime.advance(ms(1));
    assert_eq!(log.take(), ["old"]);
    assert!(shutdown.take().stop_timeouts.is_empty());
}

#[test]
fn a_handle_of_the_old_publication_reaches_nothing() {
    let mut runtime = TestRuntime::new();
    let id = runtime.service("a");
    let handles = Arc::<Mutex<Vec<Live<u32>>>>::default();
    let kept = Arc::clone(&handles);
    let supervisor = runtime.registry.supervise(id).unwrap().body(async move |live: Live<u32>| {
        kept.lock().unwrap().push(live.clone());
        live.stopping().await.map(drop)
    });
    runtime.spawn(supervisor.run(counts!()));
    runtime.run_until_idle();
    let old = handles.lock().unwrap()[0].clone();
    old.replace(50).unwrap();
    old.set_degraded("slow");
    assert!(runtime.supervisor_status(id).degraded.is_some());
    assert!(reload_one(&mut runtime, id).is_over());
    assert!(runtime.supervisor_status(id).degraded.is_none(), "it was the old one");

    assert!(matches!(old.stop_reason(), Some(StopReason::Reloaded { root }) if root == "a"));
    assert!(old.instance().is_none());
    let refused = old.replace(60).unwrap_err();
    assert_eq!(*refused.value, 60);
    assert_eq!(refused.missing.failure().unwrap().reason.to_string(), "a was reloaded");
    assert_eq!(old.fail("too late").failed, 0);
    old.set_degraded("too late");
    assert!(runtime.supervisor_status(id).degraded.is_none());
    runtime.run_until_idle();
    assert_eq!((runtime.get(id), runtime.state(id)), (Some(2), SupervisorState::Up));

    let new = handles.lock().unwrap()[1].clone();
    assert!(new.stop_reason().is_none());
    new.replace(70).unwrap();
    assert_eq!(runtime.get(id), Some(70));
    assert_eq!(new.fail("edited").failed, 1);
    assert_eq!(runtime.get(id), None);
}

#[test]
fn probes_begin_anew() {
    let mut runtime = TestRuntime::new();
    let id = runtime.service("a");
    let policy = exact().probe_misses(2);
    let supervisor = runtime.registry.supervise(id).unwrap().restart_policy(policy);
    // It misses the values 1 and 2.
    let probe = async |value: Arc<Instance<u32>>| if **value > 2 { Ok(()) } else { Err("old") };
    let supervisor = supervisor.probe_ready(ms(10), ms(1_000), probe);
    runtime.spawn(supervisor.run(counts!()));
    runtime.run_until_idle();
    runtime.advance(ms(10));
    runtime.advance(ms(10));
    assert!(runtime.supervisor_status(id).degraded.is_some());
    assert!(reload_one(&mut runtime, id).is_over());
    assert!(runtime.supervisor_status(id).degraded.is_none());
    runtime.advance(ms(10));
    assert!(runtime.supervisor_status(id).degraded.is_none(), "one miss of the new value");
    runtime.advance(ms(10));
    assert!(runtime.supervisor_status(id).degraded.is_some());
    assert!(reload_one(&mut runtime, id).is_over());
    runtime.advance(ms(20));
    assert!(runtime.supervisor_status(id).degraded.is_none());
    assert_eq!(runtime.get(id), Some(3));
}

#[test]
fn the_return_of_a_body_after_the_commit_means_nothing() {
    let mut runtime = TestRuntime::new();
    let id = runtime.service("a");
    let supervisor = runtime.registry.supervise(id).unwrap().restart_policy(exact());
    let supervisor = supervisor.body(async |live: Live<u32>| {
        if live.instance().is_some_and(|it| Instance::revision(&it) > 0) {
            live.stopping().await.unwrap();
            return;
        }
        // The poll that executes the switch returns, before the supervisor has noticed it.
        live.registry().reload(live.id()).await.unwrap();
    });
    runtime.spawn(supervisor.run(counts!()));
    runtime.run_until_idle();
    let status = runtime.supervisor_status(id);
    assert_eq!((status.state, status.failures), (SupervisorState::Up, 0));
    assert_eq!(runtime.get(id), Some(2));
}

#[test]
fn a_replacement_after_a_reload_names_what_the_new_instance_was_built_from() {
    let mut runtime = TestRuntime::new();
    let config = supervise(&mut runtime, "config", &[]);
    let id = runtime.service("a");
    let handles = Arc::<Mutex<Vec<Live<u32>>>>::default();
    let kept = Arc::clone(&handles);
    let supervisor = runtime.registry.supervise(id).unwrap().body(async move |live: Live<u32>| {
        kept.lock().unwrap().push(live.clone());
        live.stopping().await.map(drop)
    });
    let from = config.0;
    runtime.spawn(
        supervisor.run(async move |build: Build<u32>| build.wait_for(from).await.map(|it| **it)),
    );
    runtime.run_until_idle();
    reload(&mut runtime, &config).take().unwrap();
    let new = handles.lock().unwrap()[1].clone();
    new.replace(70).unwrap();
    let instance = runtime.registry.get_arc(id).unwrap();
    assert_eq!((**instance, Instance::built_from(&instance)[0].revision), (70, 1));
}

#[test]
fn a_service_whose_body_has_completed_is_up_again_while_the_next_one_runs() {
    let mut runtime = TestRuntime::new();
    let id = runtime.service("a");
    let supervisor = runtime.registry.supervise(id).unwrap().body(async |live: Live<u32>| {
        if live.instance().is_some_and(|it| Instance::revision(&it) > 0) {
            live.stopping().await.unwrap();
        }
        BodyEnd::Completed
    });
    runtime.spawn(supervisor.run(counts!()));
    runtime.run_until_idle();
    assert_eq!(runtime.state(id), SupervisorState::Completed);
    assert!(reload_one(&mut runtime, id).is_over());
    assert_eq!(runtime.state(id), SupervisorState::Up);
}
