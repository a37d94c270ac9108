//! Restarting, stopping and starting single services.
//!
//! - A restart and a stop end the hard dependents first, each with its body, while what it uses is
//!   up. Soft and start-only dependents stay up.
//! - Nothing is counted. A restart ends a backoff and *given up*.
//! - A stopped service stays down until it is started; its dependents wait for it. Stops do not
//!   nest.
//! - Nothing of the services that end together begins before all of them have ended.
//! - A stop works for a service that has no provider yet, and for providers that are no
//!   supervisors. A guard holds the turn of such a provider.
//! - Operations that overlap become one. A shutdown and a close win over them.
//! - A wait that is dropped, or times out, undoes nothing.

use std::{
    future::{Future, pending},
    sync::{Arc, Mutex},
    task::{Context, Waker},
    time::Duration,
};

use super::{
    runtime::{BoxError, TestRuntime, exact, fails, ms},
    shutting_down::{Log, begin, note},
};
use crate::support::{poll_once, registry_of};
use mainstay::{
    Reason, ServiceId,
    error::{StopError, WaitForError},
    supervise::{Live, RestartPolicy, StopReason, StopReport, StopWait, SupervisorState},
};

pub(super) fn taken(log: &Log) -> Vec<String> {
    std::mem::take(&mut log.lock().unwrap())
}

/// Supervises a service that is built from `from`. Its body logs when it begins, why it must end,
/// and when it has ended, which takes `takes`.
pub(super) fn supervise_logged(
    runtime: &mut TestRuntime,
    log: &Log,
    id: ServiceId<u32>,
    from: &[ServiceId<u32>],
    takes: Duration,
) {
    let name = runtime.registry.status(id).unwrap().name.to_string();
    let (registry, clock, below) = (runtime.registry.clone(), runtime.clock.clone(), from.to_vec());
    let (from, log) = (from.to_vec(), Arc::clone(log));
    let supervisor = runtime.registry.supervise(id).unwrap().restart_policy(exact());
    let supervisor = supervisor.body(async move |live: Live<u32>| {
        note(&log, format!("{name} begins"));
        let why = live.stopping().await.unwrap();
        let is_planned = matches!(
            why,
            StopReason::Restarted { .. } | StopReason::Stopped { .. } | StopReason::ShutDown
        );
        assert_eq!(is_planned, registry.get(id).is_ok(), "{name}: {why}");
        let is_up = |id: &ServiceId<u32>| registry.get(*id).is_ok();
        note(&log, format!("{name} must end: {why}"));
        assert!(!is_planned || below.iter().all(is_up), "a dependency of {name} is down");
        {
            use mainstay::supervise::Clock;
            let end = clock.now() + takes;
            clock.sleep_until(end).await;
        }
        assert!(!is_planned || below.iter().all(is_up), "a dependency of {name} is down");
        note(&log, format!("{name} ends"));
    });
    let mut builds = 0;
    runtime.spawn(supervisor.run(async move |build| {
        for &id in &from {
            build.wait_for(id).await?;
        }
        builds += 1;
        Ok::<u32, WaitForError>(builds)
    }));
}

/// `top` depends on `middle`, and `middle` on `bottom`. Their bodies take 10 ms to end.
pub(super) fn chain() -> (TestRuntime, Log, [ServiceId<u32>; 3]) {
    let (mut runtime, log) = (TestRuntime::new(), Log::default());
    let ids = ["bottom", "middle", "top"].map(|name| runtime.service(name));
    supervise_logged(&mut runtime, &log, ids[0], &[], ms(10));
    supervise_logged(&mut runtime, &log, ids[1], &[ids[0]], ms(10));
    supervise_logged(&mut runtime, &log, ids[2], &[ids[1]], ms(10));
    runtime.run_until_idle();
    assert_eq!(taken(&log), ["bottom begins", "middle begins", "top begins"]);
    (runtime, log, ids)
}

pub(super) type Ended = Arc<Mutex<Option<Result<Arc<StopReport>, StopError>>>>;

/// Begins an operation. Its result is stored when it ends.
pub(super) fn start(runtime: &mut TestRuntime, wait: StopWait) -> Ended {
    let ended = Ended::default();
    let result = Arc::clone(&ended);
    runtime.spawn(async move {
        let report = wait.await;
        *result.lock().unwrap() = Some(report);
    });
    runtime.run_until_idle();
    ended
}

/// The services that have stopped, in order.
pub(super) fn stopped(ended: &Ended) -> Vec<String> {
    let ended = ended.lock().unwrap();
    let report = ended.as_ref().expect("the operation has ended").as_ref().unwrap();
    assert!(report.stop_timeouts.is_empty(), "{report}");
    report.stopped.iter().map(|one| one.service.to_string()).collect()
}

#[test]
fn a_restart_ends_dependents_first_and_counts_nothing() {
    let (mut runtime, log, [bottom, middle, top]) = chain();
    let restart = runtime.registry.restart(middle, "edited");
    let ended = start(&mut runtime, restart);
    assert_eq!(taken(&log), ["top must end: middle is being restarted: edited"]);
    assert_eq!(runtime.state(top), SupervisorState::Stopping);
    runtime.advance(ms(10));
    assert_eq!(taken(&log), ["top ends", "middle must end: middle is being restarted: edited"]);
    assert_eq!((runtime.get(middle), runtime.get(top)), (Some(1), None));
    assert!(ended.lock().unwrap().is_none());
    runtime.advance(ms(10));
    assert_eq!(taken(&log), ["middle ends", "middle begins", "top begins"]);
    assert_eq!(stopped(&ended), ["top", "middle"]);
    assert_eq!(
        (runtime.get(bottom), runtime.get(middle), runtime.get(top)),
        (Some(1), Some(2), Some(2))
    );
    for id in [middle, top] {
        assert_eq!(runtime.supervisor_status(id).failures, 0);
        let failure = runtime.registry.status(id).unwrap().last_failure.unwrap();
        assert!(
            matches!(&failure.reason, Reason::Restarted { root, .. } if root == "middle"),
            "{failure}"
        );
        assert_eq!(failure.reason.to_string(), "middle is being restarted: edited");
        assert!(failure.reason.is_planned());
    }
}

#[test]
fn a_stopped_service_stays_down_until_it_is_started_and_its_dependents_wait() {
    let (mut runtime, log, [bottom, middle, top]) = chain();
    let stop = runtime.registry.stop(bottom);
    let ended = start(&mut runtime, stop);
    runtime.advance(ms(30));
    assert_eq!(stopped(&ended), ["top", "middle", "bottom"]);
    assert_eq!(taken(&log).len(), 6);
    let states = [bottom, middle, top].map(|id| runtime.state(id));
    assert_eq!(
        states,
        [SupervisorState::Stopped, SupervisorState::Building, SupervisorState::Building]
    );
    // A failure and the end of time change nothing.
    runtime.registry.fail(bottom, "by hand").unwrap();
    runtime.advance(ms(100_000));
    assert_eq!(runtime.get(bottom), None);
    // A second stop has nothing to do, and one start is enough.
    let stop = runtime.registry.stop(bottom);
    let again = start(&mut runtime, stop);
    runtime.advance(ms(30));
    assert!(again.lock().unwrap().is_some());
    assert!(runtime.registry.start(bottom).unwrap());
    assert!(!runtime.registry.start(bottom).unwrap());
    assert!(!runtime.registry.start(top).unwrap());
    runtime.run_until_idle();
    assert_eq!(taken(&log), ["bottom begins", "middle begins", "top begins"]);
}

#[test]
fn a_status_says_who_was_stopped() {
    let (mut runtime, _, [bottom, _, top]) = chain();
    let line = |runtime: &TestRuntime, id: ServiceId<u32>| {
        runtime.registry.status(id).unwrap().to_string()
    };
    let restart = runtime.registry.restart(bottom, "edited");
    start(&mut runtime, restart);
    runtime.advance(ms(10));
    assert_eq!(
        line(&runtime, top),
        "top: ended, begins again after its dependencies: bottom is being restarted: edited"
    );
    runtime.advance(ms(20));
    let stop = runtime.registry.stop(bottom);
    start(&mut runtime, stop);
    runtime.advance(ms(2_030));
    assert_eq!(
        line(&runtime, top),
        "top: waiting for middle; middle: waiting for bottom; \
         bottom: stopped, `Registry::start` starts it (for 2 s)"
    );
    let error = runtime.registry.get(top).unwrap_err();
    let text = mainstay::error::chain(&error).to_string();
    assert!(text.contains("bottom: stopped, `Registry::start` starts it"), "{text}");
}

#[test]
fn stop_subtree_leaves_each_dependent_stopped() {
    let (mut runtime, log, [bottom, middle, top]) = chain();
    let stop = runtime.registry.stop_subtree(middle);
    let ended = start(&mut runtime, stop);
    runtime.advance(ms(20));
    assert_eq!(stopped(&ended), ["top", "middle"]);
    taken(&log);
    assert_eq!([middle, top].map(|id| runtime.state(id)), [SupervisorState::Stopped; 2]);
    assert!(runtime.registry.start(middle).unwrap());
    runtime.run_until_idle();
    assert_eq!(taken(&log), ["middle begins"]);
    assert_eq!(runtime.state(top), SupervisorState::Stopped);
    // A restart of what it depends on does not start it.
    let restart = runtime.registry.restart(bottom, "edited");
    let restart = start(&mut runtime, restart);
    runtime.advance(ms(20));
    assert_eq!(stopped(&restart), ["top", "middle", "bottom"]);
    assert_eq!(runtime.state(top), SupervisorState::Stopped);
    // A restart of the service itself does.
    let restart = runtime.registry.restart(top, "again");
    start(&mut runtime, restart);
    assert_eq!(taken(&log).last().unwrap(), "top begins");
}

/// Its dependency waits for it only after its start.
#[test]
fn a_start_of_a_service_that_stops_with_a_subtree_is_not_undone() {
    let (mut runtime, log) = (TestRuntime::new(), Log::default());
    let [bottom, left, right] = ["bottom", "left", "right"].map(|name| runtime.service(name));
    supervise_logged(&mut runtime, &log, bottom, &[], ms(10));
    supervise_logged(&mut runtime, &log, left, &[bottom], ms(10));
    supervise_logged(&mut runtime, &log, right, &[bottom], ms(30));
    runtime.run_until_idle();
    let stop = runtime.registry.stop_subtree(bottom);
    let ended = start(&mut runtime, stop);
    assert!(runtime.registry.start(right).unwrap());
    runtime.advance(ms(1_000));
    assert_eq!(stopped(&ended), ["left", "right", "bottom"]);
    let states = [bottom, left, right].map(|id| runtime.state(id));
    let stopped = SupervisorState::Stopped;
    assert_eq!(states, [stopped, stopped, SupervisorState::Building]);
}

#[test]
fn a_restart_ends_a_backoff_and_given_up() {
    let mut runtime = TestRuntime::new();
    let (a, b) = (runtime.service("a"), runtime.service("b"));
    runtime.supervise(a, exact(), fails(1));
    let policy = RestartPolicy::default().max_failures(0, ms(1_000));
    runtime.supervise(b, policy, fails(1));
    runtime.run_until_idle();
    assert_eq!(
        [a, b].map(|id| runtime.state(id)),
        [SupervisorState::BackingOff, SupervisorState::GivenUp]
    );
    for id in [a, b] {
        runtime.recorder.take();
        let restart = runtime.registry.restart(id, "mended");
        let ended = start(&mut runtime, restart);
        assert_eq!(stopped(&ended).len(), 1);
        let lines = runtime.recorder.take();
        let again = |line: &String| line.contains("backing off") || line.contains("given up");
        assert!(!lines.iter().any(again), "the delay is over: {lines:#?}");
        assert_eq!(runtime.get(id), Some(2));
        assert_eq!(runtime.supervisor_status(id).failures, 0);
    }
}

#[test]
fn a_dependent_that_is_given_up_stays_so_after_a_restart_of_its_dependency() {
    let mut runtime = TestRuntime::new();
    let (a, b) = (runtime.service("a"), runtime.service("b"));
    runtime.supervise(a, exact(), fails(0));
    let policy = exact().max_failures(0, ms(1_000)).retry_given_up(false);
    runtime.registry.depends(b).on(a).unwrap();
    runtime.supervise(b, policy, fails(1));
    runtime.run_until_idle();
    let restart = runtime.registry.restart(a, "edited");
    let ended = start(&mut runtime, restart);
    assert_eq!(stopped(&ended), ["b", "a"]);
    runtime.advance(ms(100_000));
    assert_eq!((runtime.get(a), runtime.get(b)), (Some(2), None));
    assert_eq!(runtime.state(b), SupervisorState::GivenUp);
    let restart = runtime.registry.restart(b, "mended");
    start(&mut runtime, restart);
    assert_eq!(runtime.get(b), Some(2));
}

/// The failure counts although the restart of its dependency interrupts the draining.
#[test]
fn a_failure_before_a_restart_of_a_dependency_counts() {
    let mut runtime = TestRuntime::new();
    let (a, b) = (runtime.service("a"), runtime.service("b"));
    runtime.supervise(a, exact(), fails(0));
    runtime.registry.depends(b).on(a).unwrap();
    let policy = exact().max_failures(0, ms(1_000)).retry_given_up(false);
    runtime.supervise(b, policy.drain_timeout(ms(500)), fails(0));
    runtime.run_until_idle();
    let held = runtime.registry.get_arc(b).unwrap();
    runtime.registry.fail(b, "too often").unwrap();
    runtime.run_until_idle();
    assert_eq!(runtime.state(b), SupervisorState::Draining);
    let restart = runtime.registry.restart(a, "edited");
    let ended = start(&mut runtime, restart);
    assert_eq!(runtime.get(a), Some(1), "its dependent is draining");
    drop(held);
    runtime.run_until_idle();
    assert_eq!(stopped(&ended), ["b", "a"]);
    assert_eq!((runtime.get(a), runtime.state(b)), (Some(2), SupervisorState::GivenUp));
}

#[test]
fn a_start_of_a_service_that_is_not_stopped_does_not_forget_its_failures() {
    let (mut runtime, log, [bottom, middle, _]) = chain();
    runtime.registry.fail(middle, "by hand").unwrap();
    runtime.advance(ms(1_000));
    assert_eq!(runtime.supervisor_status(middle).failures, 1);
    let restart = runtime.registry.restart(bottom, "edited");
    let ended = start(&mut runtime, restart);
    assert!(!runtime.registry.start(middle).unwrap(), "it is being restarted, and not stopped");
    runtime.advance(ms(1_000));
    assert_eq!(stopped(&ended), ["top", "middle", "bottom"]);
    assert_eq!(runtime.supervisor_status(middle).failures, 1);
    drop(log);
}

/// The time after the planned end of an instance is not a time in which it was up.
#[test]
fn an_instance_that_was_not_stable_resets_no_counter_long_after_its_planned_end() {
    let mut runtime = TestRuntime::new();
    let (a, b) = (runtime.service("a"), runtime.service("b"));
    runtime.supervise(a, exact(), fails(0));
    let mut builds = 0;
    runtime.supervise(b, exact().reset_after(ms(10_000)), move |build| {
        builds += 1;
        let number = builds;
        async move {
            build.wait_for(a).await?;
            if number == 2 { Ok(number) } else { Err(BoxError::from("no luck")) }
        }
    });
    runtime.advance(ms(1_000));
    assert_eq!((runtime.get(b), runtime.supervisor_status(b).failures), (Some(2), 1));
    let stop = runtime.registry.stop(a);
    let ended = start(&mut runtime, stop);
    assert_eq!(stopped(&ended), ["b", "a"]);
    runtime.advance(ms(100_000));
    runtime.registry.start(a).unwrap();
    runtime.run_until_idle();
    assert_eq!(runtime.state(b), SupervisorState::BackingOff);
    assert_eq!(runtime.supervisor_status(b).failures, 2);
}

#[test]
fn soft_and_start_only_dependents_stay_up_and_one_with_a_grace_falls_after_it() {
    let (mut runtime, log) = (TestRuntime::new(), Log::default());
    let [a, soft, starts, grace] =
        ["a", "soft", "starts", "grace"].map(|name| runtime.service(name));
    supervise_logged(&mut runtime, &log, a, &[], ms(0));
    runtime.supervise(soft, exact(), move |build| async move {
        build.watch(a).map_err(|error| error.to_string())?;
        Ok::<_, String>(1)
    });
    runtime.supervise(starts, exact(), move |build| async move {
        build.wait_to_start(a).await?;
        Ok::<_, WaitForError>(1)
    });
    runtime.supervise(grace, exact(), move |build| async move {
        build.wait_with_grace(a, ms(50)).await?;
        Ok::<_, WaitForError>(1)
    });
    runtime.run_until_idle();
    let stop = runtime.registry.stop(a);
    let ended = start(&mut runtime, stop);
    assert_eq!(stopped(&ended), ["a"]);
    assert_eq!([soft, starts, grace].map(|id| runtime.get(id)), [Some(1); 3]);
    runtime.advance(ms(49));
    assert_eq!(runtime.get(grace), Some(1));
    runtime.advance(ms(1));
    assert_eq!([soft, starts, grace].map(|id| runtime.get(id)), [Some(1), Some(1), None]);
}

#[test]
fn nothing_begins_before_all_have_ended_and_a_late_dependent_ends_first() {
    let (mut runtime, log, [bottom, middle, _]) = chain();
    let late = runtime.service("late");
    let stop = runtime.registry.stop(bottom);
    let ended = start(&mut runtime, stop);
    // `top` is ending. `late` is built on `middle`, which is up until its turn.
    supervise_logged(&mut runtime, &log, late, &[middle], ms(10));
    runtime.run_until_idle();
    assert_eq!(runtime.get(late), Some(1));
    runtime.advance(ms(10));
    // `middle` waits for `late`. `top` has ended, and does not begin again.
    assert_eq!((runtime.get(middle), runtime.get(late)), (Some(1), Some(1)));
    runtime.advance(ms(30));
    assert_eq!(stopped(&ended), ["top", "late", "middle", "bottom"]);
}

#[test]
fn operations_that_overlap_become_one() {
    let (mut runtime, log, [bottom, middle, top]) = chain();
    let [restart, stop] =
        [runtime.registry.restart(middle, "edited"), runtime.registry.stop(bottom)];
    let (restart, stop) = (start(&mut runtime, restart), start(&mut runtime, stop));
    runtime.advance(ms(30));
    assert_eq!(stopped(&restart), ["top", "middle", "bottom"]);
    assert_eq!(stopped(&stop), ["top", "middle", "bottom"]);
    assert_eq!(taken(&log).iter().filter(|line| line.contains("must end")).count(), 3);
    // A stop that is reversed while it is in progress.
    runtime.registry.start(bottom).unwrap();
    runtime.run_until_idle();
    let stop = runtime.registry.stop(top);
    let stop = start(&mut runtime, stop);
    assert!(runtime.registry.start(top).unwrap());
    runtime.advance(ms(10));
    assert_eq!(stopped(&stop), ["top"]);
    assert_eq!(runtime.get(top), Some(3));
}

#[test]
fn unrelated_operations_do_not_wait_for_each_other() {
    let (mut runtime, log) = (TestRuntime::new(), Log::default());
    let (slow, fast) = (runtime.service("slow"), runtime.service("fast"));
    supervise_logged(&mut runtime, &log, slow, &[], ms(1_000));
    supervise_logged(&mut runtime, &log, fast, &[], ms(1));
    runtime.run_until_idle();
    let [slow, fast] = [slow, fast].map(|id| runtime.registry.restart(id, "edited"));
    let (slow, fast) = (start(&mut runtime, slow), start(&mut runtime, fast));
    runtime.advance(ms(1));
    assert_eq!(stopped(&fast), ["fast"]);
    assert_eq!(taken(&log).last().unwrap(), "fast begins");
    assert!(slow.lock().unwrap().is_none());
}

#[test]
fn a_stop_works_before_there_is_a_provider_and_for_providers_that_are_no_supervisors() {
    let (registry, [a, b]) = registry_of::<u32, 2>(["a", "b"]);
    registry.stop(b).wait_blocking().unwrap();
    let (provide_a, provide_b) = (registry.provide(a).unwrap(), registry.provide(b).unwrap());
    assert!(provide_b.begin().wait_blocking_timeout(ms(0)).is_err());
    let waiting = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| provide_b.begin().wait_blocking());
        assert!(registry.start(b).unwrap());
        waiting.join().unwrap().unwrap()
    });
    let a_is_up = provide_a.begin().wait_blocking().unwrap().ready(1).unwrap();
    waiting.wait_for(a).wait_blocking().unwrap();
    let b_is_up = waiting.ready(2).unwrap();
    // With a guard, the dependency waits for the provider.
    let turn = b_is_up.hold_turn();
    let mut restart = registry.restart(a, "edited");
    assert!(poll_once(&mut restart).is_pending());
    let failure = b_is_up.failed().wait_blocking().unwrap();
    assert!(matches!(&failure.reason, Reason::Restarted { root, .. } if root == "a"));
    assert!(registry.get(b).is_err() && registry.get(a).is_ok());
    assert!(provide_b.begin().wait_blocking_timeout(ms(0)).is_err());
    drop(turn);
    assert!(registry.get(a).is_err());
    assert!(poll_once(&mut restart).is_ready());
    drop((a_is_up, b_is_up));
    assert!(provide_b.begin().wait_blocking_timeout(ms(0)).is_ok());
}

#[test]
fn a_wait_that_is_dropped_or_times_out_undoes_nothing_and_says_who_is_late() {
    let (mut runtime, log, [bottom, _, top]) = chain();
    let mut stop = runtime.registry.stop(bottom);
    assert!(poll_once(&mut stop).is_pending());
    drop(stop);
    let stop = runtime.registry.stop(bottom);
    let clock = runtime.clock.clone();
    let timed_out = Ended::default();
    runtime.spawn({
        let timed_out = Arc::clone(&timed_out);
        async move {
            let result = stop.timeout(ms(5), &clock).await;
            *timed_out.lock().unwrap() = Some(result);
        }
    });
    runtime.advance(ms(5));
    let error = timed_out.lock().unwrap().take().unwrap().unwrap_err();
    assert_eq!(error.to_string(), "bottom has not stopped after 5ms: waiting for top (stopping)");
    runtime.advance(ms(30));
    assert_eq!(taken(&log).len(), 6);
    assert_eq!([bottom, top].map(|id| runtime.get(id)), [None; 2]);
    assert_eq!(runtime.state(bottom), SupervisorState::Stopped);
}

#[test]
fn a_shutdown_and_a_close_win_over_a_stop() {
    let (mut runtime, log, [bottom, middle, top]) = chain();
    let stop = runtime.registry.stop(middle);
    let stop = start(&mut runtime, stop);
    let shutdown = begin(&mut runtime, ms(1_000));
    runtime.advance(ms(10));
    // What has ended in the stop never becomes ready again.
    let waited = poll_once(&mut runtime.registry.wait_ready(top));
    assert!(matches!(waited, std::task::Poll::Ready(Err(_))));
    runtime.advance(ms(30));
    assert!(matches!(*stop.lock().unwrap(), Some(Err(_))));
    let report = shutdown.lock().unwrap().take().expect("the shutdown has ended");
    let names: Vec<_> = report.stopped.iter().map(|one| &*one.service).collect();
    assert_eq!(names, ["top", "middle", "bottom"]);
    assert!(report.stop_timeouts.is_empty() && runtime.tasks.is_empty());
    assert_eq!(taken(&log).last().unwrap(), "bottom ends");
    let late = runtime.registry.stop(bottom).wait_blocking();
    assert!(matches!(late, Err(StopError::Closed { .. })), "{late:?}");

    let (registry, [a]) = registry_of::<u32, 1>(["a"]);
    registry.stop(a).wait_blocking().unwrap();
    registry.close();
    let provider = registry.provide(a);
    assert!(provider.is_err() && !registry.start(a).unwrap());
}

#[test]
fn a_stopped_service_is_part_of_a_shutdown() {
    let (mut runtime, _, [bottom, _, _]) = chain();
    let stop = runtime.registry.stop(bottom);
    start(&mut runtime, stop);
    runtime.advance(ms(30));
    let shutdown = begin(&mut runtime, ms(1_000));
    runtime.advance(ms(100));
    assert!(shutdown.lock().unwrap().as_ref().unwrap().stop_timeouts.is_empty());
    assert!(runtime.registry.is_closed() && runtime.tasks.is_empty());
}

#[test]
fn a_stop_that_its_own_body_awaits_ends_at_the_stop_timeout() {
    let mut runtime = TestRuntime::new();
    let a = runtime.service("a");
    let supervisor =
        runtime.registry.supervise(a).unwrap().restart_policy(exact().stop_timeout(ms(50)));
    let supervisor = supervisor.body(async move |live: Live<u32>| {
        let _ = live.registry().restart(a, "by its own body").await;
        pending::<()>().await;
    });
    runtime.spawn(supervisor.run(async |_| 1));
    runtime.advance(ms(49));
    assert_eq!(runtime.get(a), Some(1));
    runtime.advance(ms(1));
    runtime.registry.close();
}

/// A restart of a hub with 10,000 dependents, and 10,000 restarts of unrelated services.
#[test]
fn many_services_restart_at_once() {
    const MANY: usize = 10_000;
    let registry = mainstay::Registry::with_capacity(MANY + 1).unwrap();
    let hub = registry.register::<usize>("hub").unwrap();
    let ids: Vec<_> = (0..MANY)
        .map(|i| {
            let id = registry.register::<usize>(&format!("{i}")).unwrap();
            registry.depends(id).on(hub).unwrap();
            id
        })
        .collect();
    let providers: Vec<_> = ids.iter().map(|&id| registry.provide(id).unwrap()).collect();
    let provide_hub = registry.provide(hub).unwrap();
    let hub_is_up = provide_hub.begin().wait_blocking().unwrap().ready(1).unwrap();
    let up_now: Vec<_> = providers
        .iter()
        .map(|provider| provider.begin().wait_blocking().unwrap().ready(1).unwrap())
        .collect();
    let report = registry.restart(hub, "edited").wait_blocking().unwrap();
    assert_eq!(report.stopped.len(), MANY + 1);
    assert_eq!(report.stopped.last().unwrap().service, "hub");
    drop((hub_is_up, up_now));
    let mut waits: Vec<_> = ids.iter().map(|&id| registry.restart(id, "again")).collect();
    let mut context = Context::from_waker(Waker::noop());
    for wait in &mut waits {
        assert!(std::pin::Pin::new(wait).poll(&mut context).is_ready());
    }
}

/// The shutdown takes over what the stop has begun.
#[test]
fn the_wait_for_a_stop_ends_when_the_shutdown_has_marked_its_service() {
    let (mut runtime, _, [bottom, _, _]) = chain();
    let stop = runtime.registry.stop(bottom);
    let stop = start(&mut runtime, stop);
    assert!(stop.lock().unwrap().is_none());
    let _shutdown = begin(&mut runtime, ms(1_000));
    runtime.advance(ms(20));
    assert!(!runtime.registry.is_closed(), "the last body has not returned");
    let ended = stop.lock().unwrap().take();
    assert!(matches!(ended, Some(Err(StopError::ShuttingDown { .. }))), "{ended:?}");
}
