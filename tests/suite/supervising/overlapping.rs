//! Restarts and stops that follow each other, or overlap.
//!
//! - The last request for a service decides whether it begins again.
//! - The work of a turn whose limit has expired is not taken for that of the next one, and no
//!   command comes after its turn.
//! - Services that do not depend on each other stop at the same time.
//! - What a planned end has left is not shown later.
//! - The callers of one operation share its report.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use super::{
    runtime::{Task, TestRuntime, exact, fails, ms},
    shutting_down::Log,
    stopping::{Ended, chain, start, stopped, supervise_logged, taken},
};
use crate::support::{poll_once, registry_of, up};
use mainstay::{
    Reason, Registry, ServiceId,
    supervise::{Clock, Sleep, SupervisorState},
    test_kit::VirtualClock,
};

#[test]
fn the_last_of_a_restart_and_a_stop_decides_whether_the_service_begins_again() {
    for restart_first in [true, false] {
        let (mut runtime, log, [_, _, top]) = chain();
        let restart = runtime.registry.restart(top, "edited");
        let stop = runtime.registry.stop(top);
        let (first, second) = if restart_first { (restart, stop) } else { (stop, restart) };
        let (first, second) = (start(&mut runtime, first), start(&mut runtime, second));
        runtime.advance(ms(10));
        assert_eq!((stopped(&first), stopped(&second)), (vec!["top".into()], vec!["top".into()]));
        let value = runtime.get(top);
        assert_eq!(value, if restart_first { None } else { Some(2) });
        // The first one has begun the turn, so its reason is that of the end.
        let why = if restart_first { "top is being restarted: edited" } else { "top was stopped" };
        assert!(taken(&log)[0].contains(why));
        assert_eq!(runtime.registry.start(top).unwrap(), restart_first);
    }
}

#[test]
fn the_last_request_is_the_reason_of_an_end_that_has_not_begun() {
    let (mut runtime, _, [_, middle, _]) = chain();
    let stop = runtime.registry.stop(middle);
    let stop = start(&mut runtime, stop);
    let restart = runtime.registry.restart(middle, "edited");
    let restart = start(&mut runtime, restart);
    runtime.advance(ms(20));
    assert_eq!((stopped(&stop), stopped(&restart)), (stopped(&stop), stopped(&stop)));
    assert_eq!(runtime.get(middle), Some(2));
    let failure = runtime.registry.status(middle).unwrap().last_failure.unwrap();
    assert!(matches!(&failure.reason, Reason::Restarted { .. }), "{failure}");
}

/// `first` and `second` depend on `base`, and their providers hold their turns.
#[test]
fn a_dependent_that_is_restarted_during_a_stop_of_the_subtree_begins_again() {
    let (registry, [base, first, second]) = registry_of::<u32, 3>(["base", "first", "second"]);
    for id in [first, second] {
        registry.depends(id).on(base).unwrap();
    }
    let up = [base, first, second].map(|id| up(&registry, id, 1));
    let turns = [&up[1], &up[2]].map(|(_, running)| running.hold_turn());
    let mut stop = registry.stop_subtree(base);
    assert!(poll_once(&mut stop).is_pending());
    let mut restart = registry.restart(second, "edited");
    assert!(poll_once(&mut restart).is_pending());
    // The pass of `base` continues with `second` after the end of `first`.
    for turn in turns {
        drop(turn);
    }
    assert!(poll_once(&mut stop).is_ready() && poll_once(&mut restart).is_ready());
    assert!(!registry.start(second).unwrap(), "the last request was a restart");
    assert!(registry.start(first).unwrap() && registry.start(base).unwrap());
}

#[test]
fn dependents_that_do_not_depend_on_each_other_stop_at_the_same_time() {
    let (mut runtime, log) = (TestRuntime::new(), Log::default());
    let ids = ["base", "left", "right", "top"].map(|name| runtime.service(name));
    supervise_logged(&mut runtime, &log, ids[0], &[], ms(10));
    supervise_logged(&mut runtime, &log, ids[1], &[ids[0]], ms(30));
    supervise_logged(&mut runtime, &log, ids[2], &[ids[0]], ms(20));
    supervise_logged(&mut runtime, &log, ids[3], &[ids[2]], ms(10));
    runtime.run_until_idle();
    for operation in ["restart", "stop", "stop_subtree"] {
        let wait = match operation {
            "restart" => runtime.registry.restart(ids[0], "edited"),
            "stop" => runtime.registry.stop(ids[0]),
            _ => runtime.registry.stop_subtree(ids[0]),
        };
        let ended = start(&mut runtime, wait);
        runtime.advance(ms(39));
        assert!(ended.lock().unwrap().is_none(), "{operation}");
        runtime.advance(ms(1));
        let mut order = stopped(&ended);
        order[1..3].sort();
        assert_eq!(order, ["top", "left", "right", "base"], "{operation}");
        for id in ids {
            runtime.registry.start(id).unwrap();
        }
        runtime.run_until_idle();
        assert_eq!(runtime.state(ids[3]), SupervisorState::Up);
    }
}

type AtNow = Arc<Mutex<Option<Box<dyn FnOnce() + Send>>>>;

/// Calls a function at the second of the next calls of `now`.
struct CallingClock(VirtualClock, AtNow, AtomicU32);

impl Clock for CallingClock {
    fn now(&self) -> Instant {
        if self.1.lock().unwrap().is_some() && self.2.fetch_add(1, Ordering::Relaxed) == 1 {
            let call = self.1.lock().unwrap().take();
            call.unwrap()();
        }
        self.0.now()
    }

    fn sleep_until(&self, deadline: Instant) -> Sleep {
        self.0.sleep_until(deadline)
    }
}

/// A supervisor that another thread polls while the plan begins the turn of its service.
struct Raced {
    registry: Registry,
    id: ServiceId<u32>,
    clock: VirtualClock,
    at_now: AtNow,
    task: Arc<Mutex<Option<Task>>>,
}

fn raced() -> Raced {
    let (clock, at_now) = (VirtualClock::new(), AtNow::default());
    let calling = CallingClock(clock.clone(), Arc::clone(&at_now), AtomicU32::new(0));
    let registry = Registry::builder(2).unwrap().clock(calling).build();
    let id = registry.register::<u32>("a").unwrap();
    let mut builds = 0;
    let supervisor = registry.supervise(id).unwrap().restart_policy(exact());
    let task: Task = Box::pin(supervisor.run(async move |_| {
        builds += 1;
        let build = builds;
        // An attempt is in progress after the first poll.
        futures_lite::future::yield_now().await;
        build
    }));
    let raced = Raced { registry, id, clock, at_now, task: Arc::new(Mutex::new(Some(task))) };
    Raced::poll(&raced.task);
    Raced::poll(&raced.task);
    assert_eq!(raced.get(), Some(1));
    raced
}

impl Raced {
    fn poll(task: &Mutex<Option<Task>>) {
        let mut task = task.lock().unwrap();
        let task = task.as_mut().expect("it was not dropped").as_mut();
        assert!(task.poll(&mut Context::from_waker(Waker::noop())).is_pending());
    }

    /// Polls the supervisor at the second call of the clock, in which the turn begins.
    fn poll_in_the_clock(&self) {
        let task = Arc::clone(&self.task);
        *self.at_now.lock().unwrap() = Some(Box::new(move || Self::poll(&task)));
    }

    fn now_at(&self) -> (Option<u32>, u64) {
        (self.get(), self.registry.status(self.id).unwrap().generation.get())
    }

    fn get(&self) -> Option<u32> {
        self.registry.get(self.id).ok().map(|value| *value)
    }
}

#[test]
fn an_expired_command_is_not_executed_for_the_next_operation() {
    let raced = raced();
    let mut first = raced.registry.restart(raced.id, "first");
    assert!(poll_once(&mut first).is_pending());
    raced.clock.advance(Duration::from_secs(60));
    let Poll::Ready(Ok(report)) = poll_once(&mut first) else { panic!("its limit has expired") };
    assert_eq!(report.to_string(), "not stopped in time: a (up)");
    // The supervisor still has the request of the first restart.
    raced.poll_in_the_clock();
    let mut second = raced.registry.restart(raced.id, "second");
    let Poll::Ready(Ok(report)) = poll_once(&mut second) else { panic!("it was polled") };
    assert_eq!(report.to_string(), "1 service stopped in time");
    assert!(raced.at_now.lock().unwrap().is_none());
    Raced::poll(&raced.task);
    for _ in 0..3 {
        Raced::poll(&raced.task);
        assert_eq!(raced.now_at(), (Some(2), 1));
    }
}

/// The command is executed, the operation is over, and the next attempt has begun, before the plan
/// looks at the attempt that it must end.
#[test]
fn no_command_comes_after_its_turn() {
    let raced = raced();
    raced.poll_in_the_clock();
    let mut restart = raced.registry.restart(raced.id, "edited");
    assert!(poll_once(&mut restart).is_ready());
    Raced::poll(&raced.task);
    for _ in 0..3 {
        Raced::poll(&raced.task);
        assert_eq!(raced.now_at(), (Some(2), 1));
    }
}

#[test]
fn a_supervisor_that_is_dropped_while_its_turn_begins_is_not_waited_for() {
    let raced = raced();
    let task = Arc::clone(&raced.task);
    *raced.at_now.lock().unwrap() = Some(Box::new(move || drop(task.lock().unwrap().take())));
    let mut restart = raced.registry.restart(raced.id, "edited");
    let Poll::Ready(Ok(report)) = poll_once(&mut restart) else { panic!("it was dropped") };
    assert_eq!(report.to_string(), "a: its supervisor was dropped");
}

/// The close hook of the first restart is late. Its limit, and that of the plan, expire before the
/// supervisor is polled again.
#[test]
fn the_work_of_an_expired_turn_is_not_taken_for_that_of_the_next_one() {
    let mut runtime = TestRuntime::new();
    let a = runtime.service("a");
    let policy = exact().drain_timeout(ms(0)).close_timeout(ms(50));
    let supervisor = runtime.registry.supervise(a).unwrap().restart_policy(policy);
    let supervisor = supervisor.on_close(async |_| std::future::pending::<()>().await);
    runtime.spawn(supervisor.run(async |_| 1));
    runtime.run_until_idle();
    let first = runtime.registry.restart(a, "first");
    let first = start(&mut runtime, first);
    assert_eq!(runtime.state(a), SupervisorState::Closing);
    let task = runtime.tasks.remove(0);
    runtime.advance(ms(50));
    let text = |ended: &Ended| match &*ended.lock().unwrap() {
        Some(Ok(report)) => report.to_string(),
        other => panic!("{other:?}"),
    };
    assert_eq!(text(&first), "not stopped in time: a (closing)");
    let second = runtime.registry.restart(a, "second");
    let second = start(&mut runtime, second);
    runtime.tasks.push(task);
    runtime.run_until_idle();
    assert_eq!(text(&second), "1 service stopped in time");
    assert_eq!(runtime.get(a), Some(1));
}

#[test]
fn the_readers_of_a_planned_end_are_not_those_of_later_states() {
    let mut runtime = TestRuntime::new();
    let a = runtime.service("a");
    runtime.supervise(a, exact().drain_timeout(ms(1_000)), fails(0));
    runtime.run_until_idle();
    let held = runtime.registry.get_arc(a).unwrap();
    let restart = runtime.registry.restart(a, "edited");
    let ended = start(&mut runtime, restart);
    assert_eq!(runtime.supervisor_status(a).holders, 1);
    runtime.advance(ms(1_000));
    assert!(ended.lock().unwrap().is_some());
    let status = runtime.supervisor_status(a);
    assert_eq!((status.state, status.holders), (SupervisorState::Up, 0));
    drop(held);
    // A draining has its own readers.
    let held = runtime.registry.get_arc(a).unwrap();
    runtime.registry.fail(a, "lost").unwrap();
    runtime.run_until_idle();
    let status = runtime.supervisor_status(a);
    assert_eq!((status.state, status.holders), (SupervisorState::Draining, 1));
    drop(held);
}

#[test]
fn a_stop_before_a_supervisor_is_run_is_no_command_for_it() {
    let mut runtime = TestRuntime::new();
    let a = runtime.service("a");
    let supervisor = runtime.registry.supervise(a).unwrap();
    runtime.registry.stop(a).wait_blocking().unwrap();
    runtime.registry.start(a).unwrap();
    runtime.recorder.take();
    runtime.spawn(supervisor.run(async |_| 1));
    runtime.run_until_idle();
    let lines = runtime.recorder.take();
    assert_eq!(runtime.get(a), Some(1));
    assert!(!lines.iter().any(|line| line.contains("stop")), "{lines:?}");
}

/// 1,000 callers restart a dependent each, while their common dependency restarts.
#[test]
fn the_callers_of_one_operation_share_its_report() {
    const MANY: usize = 1_000;
    let registry = Registry::with_capacity(MANY + 1).unwrap();
    let hub = registry.register::<u32>("hub").unwrap();
    let hub_is_up = up(&registry, hub, 1);
    let ids: Vec<ServiceId<u32>> = (0..MANY)
        .map(|i| {
            let id = registry.register::<u32>(&format!("{i}")).unwrap();
            registry.depends(id).on(hub).unwrap();
            id
        })
        .collect();
    let all_up: Vec<_> = ids.iter().map(|&id| up(&registry, id, 1)).collect();
    let turns: Vec<_> = all_up.iter().map(|(_, running)| running.hold_turn()).collect();
    let mut restart = registry.restart(hub, "edited");
    assert!(poll_once(&mut restart).is_pending());
    let mut joined: Vec<_> = ids.iter().map(|&id| registry.restart(id, "again")).collect();
    assert!(joined.iter_mut().all(|wait| poll_once(wait).is_pending()));
    drop(turns);
    let Poll::Ready(Ok(report)) = poll_once(&mut restart) else { panic!("all turns have ended") };
    assert_eq!(report.stopped.len(), MANY + 1);
    for wait in &mut joined {
        let Poll::Ready(Ok(shared)) = poll_once(wait) else { panic!("it has ended") };
        assert!(Arc::ptr_eq(&shared, &report));
    }
    drop((hub_is_up, all_up));
}

/// `top` depends on `left` and on `right`, and `above` on `top`: so the turn of `top` does not come
/// before operations on both have begun.
fn two_dependencies() -> (TestRuntime, Log, [ServiceId<u32>; 2]) {
    let (mut runtime, log) = (TestRuntime::new(), Log::default());
    let [left, right, top, above] =
        ["left", "right", "top", "above"].map(|name| runtime.service(name));
    supervise_logged(&mut runtime, &log, left, &[], ms(10));
    supervise_logged(&mut runtime, &log, right, &[], ms(10));
    supervise_logged(&mut runtime, &log, top, &[left, right], ms(10));
    supervise_logged(&mut runtime, &log, above, &[top], ms(10));
    runtime.run_until_idle();
    taken(&log);
    (runtime, log, [left, right])
}

#[test]
fn a_stop_is_a_greater_reason_than_a_restart_for_a_dependent_of_both() {
    for stop_first in [true, false] {
        let (mut runtime, log, [left, right]) = two_dependencies();
        let restart = runtime.registry.restart(left, "edited");
        let stop = runtime.registry.stop(right);
        let (first, second) = if stop_first { (stop, restart) } else { (restart, stop) };
        start(&mut runtime, first);
        start(&mut runtime, second);
        runtime.advance(ms(10));
        let log = taken(&log);
        assert!(log.contains(&"top must end: right was stopped".into()), "{log:?}");
    }
}

#[test]
fn the_first_of_two_restarts_is_the_reason_for_a_dependent_of_both() {
    let (mut runtime, log, ids) = two_dependencies();
    let [one, two] = ids.map(|id| runtime.registry.restart(id, "edited"));
    start(&mut runtime, one);
    start(&mut runtime, two);
    runtime.advance(ms(10));
    let log = taken(&log);
    assert!(log.contains(&"top must end: left is being restarted: edited".into()), "{log:?}");
}

/// The turn of `first` has ended in an operation that becomes a part of a larger one.
#[test]
fn what_has_stopped_before_two_operations_become_one_is_in_the_report_of_both() {
    let (registry, [base, first, second, other, last @ ..]) =
        registry_of::<u32, 8>(["base", "first", "second", "other", "w", "x", "y", "z"]);
    for id in [first, second] {
        registry.depends(id).on(base).unwrap();
    }
    for id in last.into_iter().chain([second]) {
        registry.depends(id).on(other).unwrap();
    }
    let ids = [base, first, second, other].into_iter().chain(last);
    let up: Vec<_> = ids.map(|id| up(&registry, id, 1)).collect();
    let turn = up[2].1.hold_turn();
    let mut stop = registry.stop(base);
    assert!(poll_once(&mut stop).is_pending());
    assert!(registry.get(first).is_err(), "its turn has ended");
    let mut restart = registry.restart(other, "edited");
    assert!(poll_once(&mut restart).is_pending());
    drop(turn);
    for wait in [&mut stop, &mut restart] {
        let Poll::Ready(Ok(report)) = poll_once(wait) else { panic!("the operation is over") };
        let mut names: Vec<_> = report.stopped.iter().map(|one| &*one.service).collect();
        names.sort();
        assert_eq!(names, ["base", "first", "other", "second", "w", "x", "y", "z"]);
    }
}
