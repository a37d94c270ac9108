//! The limits of the services in a restart or a stop.
//!
//! - Each wait for a restart or a stop enforces the limits of all services that are stopping, also
//!   if it is not the one that has begun, and whatever became of other waits.
//! - A limit that is earlier than the one for which the wait sleeps is noticed.
//! - A thread that waits does the same, under every clock.

use std::{
    future::pending,
    sync::{Arc, Mutex, mpsc},
    task::Poll,
    thread,
    time::{Duration, Instant},
};

use super::{
    runtime::{TestRuntime, exact, fails, ms},
    stopping::{Ended, start},
};
use crate::support::{LONG, must_finish, poll_once, registry_of, up};
use mainstay::{
    Registry, ServiceId,
    error::WaitForError,
    supervise::{Clock, RestartPolicy, Sleep, SupervisorState, SystemClock},
    test_kit::VirtualClock,
};

/// Supervises a service that is built from `from`. Its supervisor is polled only now.
fn not_polled(
    runtime: &mut TestRuntime,
    id: ServiceId<u32>,
    from: ServiceId<u32>,
    limit: Duration,
) -> super::runtime::Task {
    runtime.supervise(id, exact().drain_timeout(limit), move |build| async move {
        build.wait_for(from).await.map(|from| **from)
    });
    runtime.run_until_idle();
    assert_eq!(runtime.get(id), Some(1));
    runtime.tasks.pop().expect("its supervisor")
}

fn text(ended: &Ended) -> Option<String> {
    let ended = ended.lock().unwrap();
    ended.as_ref().map(|ended| ended.as_ref().unwrap().to_string())
}

#[test]
fn a_service_that_does_not_react_delays_a_restart_for_its_limit() {
    let mut runtime = TestRuntime::new();
    let (a, b) = (runtime.service("a"), runtime.service("b"));
    runtime.supervise(a, exact(), fails(0));
    let task = not_polled(&mut runtime, b, a, ms(500));
    let restart = runtime.registry.restart(a, "edited");
    let ended = start(&mut runtime, restart);
    runtime.recorder.take();
    runtime.advance(ms(499));
    assert_eq!((text(&ended), runtime.get(a), runtime.get(b)), (None, Some(1), Some(1)));
    runtime.advance(ms(1));
    assert_eq!(text(&ended).unwrap(), "not stopped in time: b (up)");
    assert_eq!((runtime.get(a), runtime.get(b)), (Some(2), None));
    let lines = runtime.recorder.take();
    assert!(lines.iter().any(|line| line == "b 1: not stopped in time"), "{lines:?}");
    assert_eq!(runtime.clock.sleepers(), 0);
    // Its supervisor finds that its end is over, and builds it again.
    runtime.tasks.push(task);
    runtime.run_until_idle();
    assert_eq!(runtime.get(b), Some(2));
}

#[test]
fn every_wait_that_is_polled_enforces_the_limits() {
    let mut runtime = TestRuntime::new();
    let [a, b, other] = ["a", "b", "other"].map(|name| runtime.service(name));
    runtime.supervise(a, exact(), fails(0));
    let _task = not_polled(&mut runtime, b, a, ms(500));
    // A second one is not polled either, and its limit is far away.
    let mut slow = runtime.registry.supervise(other).unwrap();
    slow = slow.restart_policy(exact().drain_timeout(LONG));
    let mut slow = Box::pin(slow.run(async |_| 1));
    assert!(poll_once(&mut slow).is_pending());
    let [mut dropped, mut forgotten] = ["1", "2"].map(|why| runtime.registry.restart(a, why));
    assert!(poll_once(&mut dropped).is_pending() && poll_once(&mut forgotten).is_pending());
    drop(dropped);
    runtime.advance(ms(600));
    assert_eq!(runtime.get(b), Some(1), "no wait is polled");
    let stop = runtime.registry.stop(other);
    let stop = start(&mut runtime, stop);
    assert_eq!((text(&stop), runtime.get(a), runtime.get(b)), (None, Some(2), None));
    assert!(matches!(poll_once(&mut forgotten), Poll::Ready(Ok(_))));
}

#[test]
fn an_earlier_limit_of_a_later_turn_is_noticed() {
    let mut runtime = TestRuntime::new();
    let [a, long, short, top] = ["a", "long", "short", "top"].map(|name| runtime.service(name));
    runtime.supervise(a, exact(), fails(0));
    let _long = not_polled(&mut runtime, long, a, ms(10_000));
    let _short = not_polled(&mut runtime, short, a, ms(100));
    let clock = runtime.clock.clone();
    let supervisor = runtime.registry.supervise(top).unwrap().restart_policy(exact());
    let supervisor = supervisor.body(async move |live: mainstay::supervise::Live<u32>| {
        let _ = live.stopping().await;
        clock.sleep_until(clock.now() + ms(10)).await;
    });
    runtime.spawn(
        supervisor.run(async move |build| Ok::<u32, WaitForError>(**build.wait_for(short).await?)),
    );
    runtime.run_until_idle();
    let waits = ["1", "2"].map(|why| runtime.registry.restart(a, why));
    let ended = waits.map(|wait| start(&mut runtime, wait));
    // The turn of `short` begins after that of `long`, and ends before it.
    runtime.advance(ms(109));
    assert_eq!(runtime.get(short), Some(1));
    runtime.advance(ms(1));
    assert_eq!((runtime.get(short), runtime.get(long)), (None, Some(1)));
    runtime.advance(ms(9_890));
    for ended in ended {
        assert_eq!(text(&ended).unwrap(), "not stopped in time: short (up), long (up)");
    }
}

/// The supervisor of `a` is not polled any more. Its limit is 20 ms.
fn stuck(registry: &Registry) -> (ServiceId<u32>, super::runtime::Task) {
    let id = registry.register::<u32>("a").unwrap();
    let policy = RestartPolicy::default().drain_timeout(ms(20));
    let supervisor = registry.supervise(id).unwrap().restart_policy(policy);
    let mut task: super::runtime::Task = Box::pin(supervisor.run(async |_| 1));
    assert!(poll_once(&mut task).is_pending());
    (id, task)
}

fn enforced_on_a_thread(clock: impl Clock) {
    let registry = Registry::builder(1).unwrap().clock(clock).build();
    let (id, task) = stuck(&registry);
    let begun = Instant::now();
    let blocked = registry.clone();
    let report = must_finish("a restart", move || {
        let early = blocked.restart(id, "edited").wait_blocking_timeout(ms(1)).unwrap_err();
        (early.to_string(), blocked.restart(id, "edited").wait_blocking().unwrap())
    });
    assert!(begun.elapsed() >= ms(9), "half of the limit, for a clock that runs twice as fast");
    assert!(report.0.ends_with(": waiting for a (up)"), "{}", report.0);
    assert_eq!(report.1.to_string(), "not stopped in time: a (up)");
    drop(task);
}

/// Runs twice as fast as the system's clock.
struct DoubleSpeed(Instant);

impl Clock for DoubleSpeed {
    fn now(&self) -> Instant {
        self.0 + self.0.elapsed() * 2
    }

    fn sleep_until(&self, deadline: Instant) -> Sleep {
        SystemClock.sleep_until(self.0 + deadline.saturating_duration_since(self.0) / 2)
    }
}

#[test]
fn a_thread_that_waits_enforces_the_limits_under_every_clock() {
    enforced_on_a_thread(SystemClock);
    enforced_on_a_thread(DoubleSpeed(Instant::now()));
    #[cfg(feature = "smol")]
    enforced_on_a_thread(mainstay::supervise::SmolClock);
    #[cfg(feature = "tokio")]
    enforced_on_a_thread(mainstay::supervise::TokioClock);
}

#[test]
fn a_thread_that_waits_enforces_the_limits_when_a_virtual_clock_is_advanced() {
    let clock = VirtualClock::new();
    let registry = Registry::builder(1).unwrap().clock(clock.clone()).build();
    let (id, task) = stuck(&registry);
    let (ended, end) = mpsc::channel();
    let blocked = registry.clone();
    thread::spawn(move || ended.send(blocked.stop(id).wait_blocking().unwrap().to_string()));
    crate::support::until("the thread sleeps", || clock.sleepers() == 1);
    clock.advance(ms(19));
    assert!(end.recv_timeout(ms(20)).is_err());
    clock.advance(ms(1));
    assert_eq!(end.recv_timeout(LONG).unwrap(), "not stopped in time: a (up)");
    drop(task);
}

/// The builder of a dependent blocks its thread.
#[test]
fn a_blocking_builder_that_does_not_return_delays_a_stop_for_its_limit() {
    let (registry, [a, b]) = registry_of::<u32, 2>(["a", "b"]);
    let (_provider, _running) = up(&registry, a, 1);
    let policy = RestartPolicy::default().drain_timeout(ms(20));
    let supervisor = registry.supervise(b).unwrap().restart_policy(policy);
    let (resume, wait) = mpsc::channel::<()>();
    let (begins, begun) = mpsc::channel();
    let thread = thread::spawn(move || {
        supervisor.run_blocking(move |build| {
            let a = build.wait_for(a).wait_blocking()?;
            begins.send(()).unwrap();
            let _ = wait.recv();
            Ok::<u32, WaitForError>(**a)
        });
    });
    begun.recv_timeout(LONG).unwrap();
    let stopping = registry.clone();
    let report = must_finish("a stop", move || stopping.stop(a).wait_blocking().unwrap());
    assert_eq!(report.to_string(), "not stopped in time: b (building)");
    assert!(registry.get(a).is_err());
    drop(resume);
    registry.close();
    thread.join().unwrap();
}

#[test]
fn a_wait_with_a_timeout_enforces_the_limits_until_then() {
    let mut runtime = TestRuntime::new();
    let a = runtime.service("a");
    let supervisor = runtime.registry.supervise(a).unwrap();
    let supervisor = supervisor.restart_policy(exact().stop_timeout(ms(50)).drain_timeout(ms(0)));
    let supervisor = supervisor.body(async |_| pending::<()>().await);
    runtime.spawn(supervisor.run(async |_| 1));
    runtime.run_until_idle();
    let task = runtime.tasks.pop();
    let (clock, ended) = (runtime.clock.clone(), Arc::new(Mutex::new(Vec::new())));
    for timeout in [ms(49), ms(51)] {
        let (wait, clock) = (runtime.registry.restart(a, "edited"), clock.clone());
        let ended = Arc::clone(&ended);
        runtime.spawn(async move {
            let result = wait.timeout(timeout, &clock).await;
            ended.lock().unwrap().push(result.map_err(|error| error.to_string()));
        });
    }
    runtime.advance(ms(51));
    let ended = ended.lock().unwrap();
    let late = "a has not stopped after 49ms: waiting for a (up)";
    assert_eq!(ended[0].as_ref().unwrap_err(), late);
    assert_eq!(ended[1].as_ref().unwrap().stop_timeouts[0].state, SupervisorState::Up);
    drop(task);
}
