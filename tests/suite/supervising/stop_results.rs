//! What a shutdown waits for at the turn of a service, what its report says, and what ends with it.
//!
//! - The readers of every generation of a service are waited for, and counted in the report, also
//!   if the service is down at its turn.
//! - An error and a panic of a close hook, and a supervisor that was dropped at its turn, are in
//!   the report. The last one is not waited for.
//! - When a shutdown has ended, its supervisors end at once.
//! - A wait for a service that has stopped ends at once, whatever kind of wait it is.

use std::{
    future::{Future, pending, ready},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use super::{
    runtime::{TestRuntime, exact, fails, ms},
    shutting_down::{b_on_a, begin, late},
};
use crate::support::{LONG, poll_once, registry_of, until, up};
use mainstay::{
    error::{AllReadyError, WaitError, WaitForError, WaitReadyError, WatchError},
    supervise::{StopResult, SupervisorState, WorkEnd},
};

/// The results in the report of a shutdown that has ended.
fn results(shutdown: &Mutex<Option<mainstay::supervise::StopReport>>) -> Vec<(String, StopResult)> {
    let shutdown = shutdown.lock().unwrap();
    let stopped = &shutdown.as_ref().expect("the shutdown has ended").stopped;
    stopped.iter().map(|one| (one.service.to_string(), one.result.clone())).collect()
}

#[test]
fn readers_of_an_earlier_generation_are_waited_for() {
    let mut runtime = TestRuntime::new();
    let id = runtime.service("a");
    runtime.supervise(id, exact().backoff(ms(10), ms(10)), fails(0));
    runtime.run_until_idle();
    let first = runtime.registry.get(id).unwrap();
    runtime.registry.fail(id, "once").unwrap();
    runtime.advance(ms(10));
    let second = runtime.registry.get_arc(id).unwrap();
    runtime.registry.fail(id, "twice").unwrap();
    runtime.advance(ms(20));
    assert_eq!((*first, **second, runtime.get(id)), (1, 2, Some(3)));

    let shutdown = begin(&mut runtime, ms(60_000));
    runtime.advance(ms(100));
    assert!(shutdown.lock().unwrap().is_none(), "two readers are left");
    drop(second);
    runtime.advance(ms(100));
    assert!(shutdown.lock().unwrap().is_none(), "one reader is left");
    drop(first);
    runtime.run_until_idle();
    assert_eq!(results(&shutdown), [("a".into(), StopResult::Stopped)]);
}

#[test]
fn readers_of_a_service_that_backs_off_are_waited_for_and_named() {
    let mut runtime = TestRuntime::new();
    let id = runtime.service("a");
    runtime.supervise(id, exact(), fails(0));
    runtime.run_until_idle();
    let held = [runtime.registry.get_arc(id).unwrap(), runtime.registry.get_arc(id).unwrap()];
    runtime.registry.fail(id, "broken").unwrap();
    runtime.run_until_idle();
    assert_eq!(runtime.state(id), SupervisorState::BackingOff);
    let shutdown = begin(&mut runtime, ms(60_000));
    runtime.advance(ms(9_999));
    assert!(shutdown.lock().unwrap().is_none());
    runtime.advance(ms(1));
    assert_eq!(late(&shutdown), [("a".into(), SupervisorState::Draining)]);
    assert_eq!(shutdown.lock().unwrap().as_ref().unwrap().stop_timeouts[0].holders, 2);
    drop(held);
}

#[test]
fn an_error_and_a_panic_of_a_close_hook_are_in_the_report() {
    let mut runtime = TestRuntime::new();
    let (a, b) = (runtime.service("a"), runtime.service("b"));
    let supervisor = runtime.registry.supervise(a).unwrap();
    let supervisor = supervisor.on_close(async |_| {
        if true {
            panic!("disk full")
        }
    });
    runtime.spawn(supervisor.run(async |_| 1));
    let supervisor = runtime.registry.supervise(b).unwrap();
    let supervisor = supervisor.on_close(async |_| Err::<(), _>("no answer"));
    runtime.spawn(supervisor.run(async move |build| build.wait_for(a).await.map(|_| 1)));
    runtime.run_until_idle();
    let shutdown = begin(&mut runtime, ms(1_000));
    let expected = ["b", "a"].map(|name| (name.into(), StopResult::Stopped));
    assert_eq!(results(&shutdown), expected);
    assert_eq!(late(&shutdown), []);
    let report = shutdown.lock().unwrap().take().unwrap();
    let expected = "b: its close hook failed: no answer; a: its close hook panicked: disk full";
    assert_eq!(report.to_string(), expected);
    let panicked = WorkEnd::Panicked { message: "disk full".into() };
    let closes = &report.stopped[1].closes;
    assert!(closes.len() == 1 && closes[0].end == panicked && closes[0].generation == 0);
}

#[test]
fn a_supervisor_that_is_dropped_at_its_turn_is_not_waited_for() {
    let (mut runtime, a, _) = b_on_a(ms(90));
    let shutdown = begin(&mut runtime, ms(1_000));
    // The task of `b`, which runs its close hook.
    drop(runtime.tasks.remove(1));
    runtime.run_until_idle();
    let expected = [("b".into(), StopResult::SupervisorDropped), ("a".into(), StopResult::Stopped)];
    assert_eq!(results(&shutdown), expected);
    assert_eq!(runtime.get(a), None);
}

#[test]
fn supervisors_end_when_the_shutdown_has_ended() {
    let (registry, [id]) = registry_of::<u32, 1>(["a"]);
    let supervisor = registry.supervise(id).unwrap().on_close(async |_| pending::<()>().await);
    let thread = thread::spawn(|| supervisor.run_blocking(|_| Ok::<_, String>(1)));
    registry.wait_ready(id).wait_blocking().unwrap();
    let report = registry.shutdown_blocking(ms(20));
    assert_eq!(report.to_string(), "not stopped in time: a (closing)");
    // Far below the limit of the close hook.
    until("the supervisor ends", || thread.is_finished());
}

#[test]
fn every_wait_for_a_service_that_has_stopped_ends_at_once() {
    let mut runtime = TestRuntime::new();
    let [cache, plain, web] = ["cache", "plain", "web"].map(|name| runtime.service(name));
    runtime.supervise(cache, exact(), |_| pending::<Result<u32, String>>());
    let (provider, running) = up(&runtime.registry, plain, 1);
    let since = runtime.registry.status(cache).unwrap().state();
    let mut watch = runtime.registry.watch(plain).unwrap();
    assert!(watch.changed().wait_blocking().is_ok());
    let mut ready_before = runtime.registry.wait_ready(cache);
    let mut all_before = runtime.registry.wait_all_ready();
    assert!(poll_once(&mut ready_before).is_pending() && poll_once(&mut all_before).is_pending());

    // The close hook of `web` needs what has stopped already, and does not wait for it.
    let (registry, noted) = (runtime.registry.clone(), Arc::new(Mutex::new(None)));
    let note = Arc::clone(&noted);
    let supervisor = runtime.registry.supervise(web).unwrap();
    let supervisor = supervisor.on_close(async move |_| {
        *note.lock().unwrap() = Some(registry.wait_ready(cache).await.unwrap_err());
        pending::<()>().await
    });
    runtime.spawn(supervisor.run(async |_| 1));
    runtime.run_until_idle();
    let shutdown = begin(&mut runtime, LONG);
    assert!(shutdown.lock().unwrap().is_none(), "the close hook of `web` runs");

    let is_stopped = |error: &WaitReadyError| matches!(error, WaitReadyError::Stopped { .. });
    assert!(noted.lock().unwrap().as_ref().is_some_and(is_stopped));
    let ready = |poll| matches!(poll, std::task::Poll::Ready(Err(WaitReadyError::Stopped { .. })));
    assert!(ready(poll_once(&mut ready_before)));
    assert!(ready(poll_once(runtime.registry.wait_ready(cache))));
    let std::task::Poll::Ready(Err(AllReadyError::Stopped { not_ready })) =
        poll_once(&mut all_before)
    else {
        panic!("the wait for all goes on")
    };
    assert_eq!(not_ready.len(), 3);
    // The attempt at `cache` was invalidated, which is a change of its state.
    let changed = runtime.registry.wait_changed(cache, since).wait_blocking().unwrap();
    let error = runtime.registry.wait_changed(cache, changed).wait_blocking().unwrap_err();
    assert!(matches!(error, WaitError::Stopped { .. }));
    assert!(running.failed().wait_blocking().is_ok());
    assert!(watch.changed().wait_blocking().is_ok(), "the failure");
    let ended = watch.changed().wait_blocking().unwrap_err();
    assert!(matches!(ended, WatchError::Stopped { service } if service == "plain"));
    assert!(provider.begin().wait_blocking().is_err());
}

#[test]
fn an_attempt_gets_no_instance_of_a_service_whose_turn_to_stop_it_is() {
    let mut runtime = TestRuntime::new();
    let [base, other] = ["base", "other"].map(|name| runtime.service(name));
    runtime.supervise(base, exact(), fails(0));
    runtime.run_until_idle();
    let base_task = runtime.tasks.remove(0);
    let provider = runtime.registry.provide(other).unwrap();
    let dependency = runtime.service("dependency");
    runtime.registry.depends(dependency).on(other).unwrap();
    let _keeps_other_waiting = runtime.registry.supervise(dependency).unwrap();
    runtime.supervise(runtime.service("slow"), exact(), fails(0));
    let slow = runtime.service("slow");
    runtime.registry.depends(slow).on(other).unwrap();
    runtime.run_until_idle();
    let slow_task = runtime.tasks.remove(0);
    let shutdown = begin(&mut runtime, LONG);
    // It is the turn of `base`, which is still ready, and not the turn of `other`.
    assert_eq!(runtime.get(base), Some(1));
    let attempt = provider.begin().wait_blocking().unwrap();
    let waited = attempt.wait_for(base).wait_blocking_timeout(Duration::ZERO);
    assert!(matches!(waited, Err(WaitForError::Stopped { service }) if service == "base"));
    drop(attempt);
    runtime.tasks.extend([base_task, slow_task]);
    runtime.run_until_idle();
    assert_eq!(late(&shutdown), []);
}

/// The future of a shutdown can be stored.
#[test]
fn a_shutdown_is_a_named_future_that_borrows_nothing() {
    let (registry, []) = registry_of::<u32, 0>([]);
    let mut shutdown: mainstay::supervise::Shutdown = registry.shutdown(LONG);
    drop(registry);
    assert!(poll_once(&mut shutdown).is_ready());
    fn is_send<F: Future + Send + Unpin + 'static>(_: F) {}
    is_send(shutdown);
    drop(ready(()));
}
