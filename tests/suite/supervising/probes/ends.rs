//! The end of an instance, and its replacement, at the time of a probe.

use std::{
    future::pending,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use super::{
    Begun, SECOND,
    runtime::{BoxError, LiveCount, Task, TestRuntime, exact, ms},
    why,
};
use crate::support::poll_once;
use mainstay::{
    Instance, Registry, ServiceId,
    supervise::{Clock, Closing, Live, SupervisorState},
};

/// A call of a probe that notes its begin and its drop, and never completes.
async fn endless(begun: &Begun, running: &Arc<AtomicUsize>) -> Result<(), BoxError> {
    begun.count();
    let _running = LiveCount::new(running);
    pending().await
}

#[test]
fn when_the_end_is_announced_the_probe_is_dropped_and_none_begins() {
    let shut_down = |runtime: &TestRuntime, _: ServiceId<u32>| {
        let shutdown = runtime.registry.shutdown(60 * SECOND);
        Box::pin(async move { drop(shutdown.await) }) as Task
    };
    let failed = |runtime: &TestRuntime, id: ServiceId<u32>| {
        runtime.registry.fail(id, "lost").unwrap();
        Box::pin(async {}) as Task
    };
    let restarted = |runtime: &TestRuntime, id: ServiceId<u32>| {
        let restart = runtime.registry.restart(id, "again");
        Box::pin(async move { drop(restart.await) }) as Task
    };
    type End = fn(&TestRuntime, ServiceId<u32>) -> Task;
    for (end, down) in [(failed as End, true), (restarted as End, false), (shut_down as End, false)]
    {
        let mut runtime = TestRuntime::new();
        let id = runtime.service("a");
        let (begun, running) = (Begun::default(), Arc::new(AtomicUsize::new(0)));
        let supervisor = runtime.registry.supervise(id).unwrap().restart_policy(exact());
        // The body takes 5 s to return, and is notified at the end.
        let clock = runtime.clock.clone();
        let probe = || {
            let (begun, running) = (begun.clone(), Arc::clone(&running));
            async move |_: Arc<Instance<u32>>| endless(&begun, &running).await
        };
        let supervisor = supervisor
            .probe(SECOND, Duration::MAX, probe())
            .probe_ready(2 * SECOND, Duration::MAX, probe())
            .body(async move |live: Live<u32>| {
                live.stopping().await.unwrap();
                clock.sleep_until(clock.now() + 5 * SECOND).await;
            });
        runtime.spawn(supervisor.run(async |_| 1));
        // One of the two runs, and the other one has not begun.
        runtime.advance(ms(1_500));
        assert_eq!((begun.get(), running.load(Ordering::Relaxed)), (1, 1));
        let task = end(&runtime, id);
        runtime.spawn(task);
        runtime.advance(4 * SECOND);
        assert_eq!(runtime.state(id), SupervisorState::Stopping);
        assert_eq!(runtime.get(id).is_none(), down);
        assert_eq!((begun.get(), running.load(Ordering::Relaxed)), (1, 0));
    }
}

#[test]
fn a_service_without_a_body_stops_at_once_while_a_probe_runs() {
    let mut runtime = TestRuntime::new();
    let id = runtime.service("a");
    let (begun, running) = (Begun::default(), Arc::new(AtomicUsize::new(0)));
    let supervisor = runtime.registry.supervise(id).unwrap();
    let supervisor = supervisor.probe(SECOND, Duration::MAX, {
        let (begun, running) = (begun.clone(), Arc::clone(&running));
        async move |_| endless(&begun, &running).await
    });
    let closed = Arc::new(Mutex::new(Vec::new()));
    let supervisor = supervisor.on_close({
        let (closed, running) = (Arc::clone(&closed), Arc::clone(&running));
        async move |value: Closing<u32>| {
            // The probe has dropped its reference before.
            assert_eq!(running.load(Ordering::Relaxed), 0);
            closed.lock().unwrap().push((*value, Closing::holders(&value)));
        }
    });
    runtime.spawn(supervisor.run(async |_| 1));
    runtime.advance(SECOND);
    assert_eq!(running.load(Ordering::Relaxed), 1);
    let mut shutdown = Box::pin(runtime.registry.shutdown(60 * SECOND));
    let _ = poll_once(&mut shutdown);
    runtime.run_until_idle();
    let std::task::Poll::Ready(report) = poll_once(&mut shutdown) else { panic!("it waits") };
    assert!(report.stop_timeouts.is_empty(), "{report}");
    assert_eq!(*closed.lock().unwrap(), [(1, 0)]);
    assert_eq!(begun.get(), 1);
}

#[test]
fn a_miss_at_the_same_time_as_the_end_changes_nothing() {
    type End = fn(&Registry, ServiceId<u32>);
    let by_failure: End = |registry, id| {
        let _ = registry.fail(id, "lost").unwrap();
    };
    let by_restart: End = |registry, id| {
        let mut restart = registry.restart(id, "again");
        let _ = poll_once(&mut restart);
    };
    for (end, reason, failures) in [(by_failure, "lost", 1), (by_restart, "again", 0)] {
        for fails in [true, false] {
            let mut runtime = TestRuntime::new();
            let id = runtime.service("a");
            let registry = runtime.registry.clone();
            let mut calls = 0;
            // The end comes in the poll in which the probe completes.
            let probe = async move |_: Arc<Instance<u32>>| {
                calls += 1;
                match calls {
                    1 => {
                        end(&registry, id);
                        Err("too late")
                    }
                    _ => Ok(()),
                }
            };
            let supervisor = runtime.registry.supervise(id).unwrap();
            let supervisor = supervisor.restart_policy(exact().probe_misses(1));
            match fails {
                true => runtime.spawn(supervisor.probe(SECOND, SECOND, probe).run(async |_| 1)),
                false => {
                    runtime.spawn(supervisor.probe_ready(SECOND, SECOND, probe).run(async |_| 1))
                }
            };
            runtime.advance(SECOND);
            let failure = runtime.registry.status(id).unwrap().last_failure.unwrap();
            assert!(failure.reason.to_string().contains(reason), "{}", failure.reason);
            assert_eq!(runtime.supervisor_status(id).failures, failures);
            runtime.advance(ms(500));
            assert_eq!((runtime.get(id), why(&runtime, id)), (Some(1), None));
            runtime.advance(10 * SECOND);
            let lines = runtime.recorder.take();
            assert!(!lines.iter().any(|line| line.contains("too late")), "{lines:?}");
            assert!(!lines.iter().any(|line| line.contains("degraded")), "{lines:?}");
        }
    }
}

#[test]
fn the_misses_of_a_value_that_was_replaced_do_not_count() {
    let mut runtime = TestRuntime::new();
    let id = runtime.service("a");
    let live = Arc::new(Mutex::new(None));
    let answers = Arc::new(Mutex::new(Vec::new()));
    let supervisor = runtime.registry.supervise(id).unwrap();
    let supervisor = supervisor.restart_policy(exact().probe_misses(2));
    let clock = runtime.clock.clone();
    let supervisor = supervisor
        .body({
            let live = Arc::clone(&live);
            async move |it: Live<u32>| {
                *live.lock().unwrap() = Some(it);
                pending::<()>().await;
            }
        })
        .probe(SECOND, 10 * SECOND, {
            let answers = Arc::clone(&answers);
            async move |instance: Arc<Instance<u32>>| {
                let value = **instance;
                answers.lock().unwrap().push(value);
                clock.sleep_until(clock.now() + SECOND).await;
                if value == 3 { Ok(()) } else { Err("bad value") }
            }
        });
    runtime.spawn(supervisor.run(async |_| 1));
    let replace = |value| live.lock().unwrap().as_ref().unwrap().replace(value).unwrap();
    // One miss of the first value. Then it is replaced during its second probe, and so is the
    // second value.
    runtime.advance(ms(3_500));
    replace(2);
    runtime.advance(2 * SECOND);
    replace(1);
    // One miss of the present value.
    runtime.advance(2 * SECOND + ms(500));
    assert_eq!(*answers.lock().unwrap(), [1, 1, 2, 1]);
    assert_eq!(runtime.get(id), Some(1), "no value has missed twice");
    replace(3);
    runtime.advance(20 * SECOND);
    assert_eq!(runtime.get(id), Some(3));
    // Replaced between two probes.
    replace(4);
    runtime.advance(4 * SECOND);
    let failure = runtime.registry.status(id).unwrap().last_failure.unwrap();
    assert_eq!(failure.reason.to_string(), "its probe failed, misses in a row: 2: bad value");
}

#[test]
fn a_success_of_a_value_that_was_replaced_clears_nothing() {
    let mut runtime = TestRuntime::new();
    let id = runtime.service("a");
    let live = Arc::new(Mutex::new(None::<Live<u32>>));
    let supervisor = runtime.registry.supervise(id).unwrap();
    let supervisor = supervisor.restart_policy(exact().probe_misses(1));
    let supervisor = supervisor
        .body({
            let live = Arc::clone(&live);
            async move |it: Live<u32>| {
                *live.lock().unwrap() = Some(it);
                pending::<()>().await;
            }
        })
        .probe_ready(SECOND, SECOND, {
            let live = Arc::clone(&live);
            async move |instance: Arc<Instance<u32>>| match **instance {
                1 => Err("slow"),
                // It replaces itself, and completes in the same poll.
                2 => {
                    let live = live.lock().unwrap().clone().unwrap();
                    live.replace(3).map_err(|_| "it is up")
                }
                _ => Ok(()),
            }
        });
    runtime.spawn(supervisor.run(async |_| 1));
    runtime.advance(SECOND);
    assert_eq!(why(&runtime, id).as_deref(), Some("probe: slow"));
    live.lock().unwrap().as_ref().unwrap().replace(2).unwrap();
    runtime.advance(SECOND);
    assert_eq!(runtime.get(id), Some(3));
    assert_eq!(why(&runtime, id).as_deref(), Some("probe: slow"), "a replacement keeps it");
    runtime.advance(SECOND);
    assert_eq!(why(&runtime, id), None);
}

#[test]
fn between_two_probes_no_instance_is_kept_alive() {
    let mut runtime = TestRuntime::new();
    let id = runtime.registry.register::<LiveCount>("a").unwrap();
    let values = Arc::new(AtomicUsize::new(0));
    let live = Arc::new(Mutex::new(None::<Live<LiveCount>>));
    let supervisor = runtime.registry.supervise(id).unwrap();
    let supervisor = supervisor
        .body({
            let live = Arc::clone(&live);
            async move |it| {
                *live.lock().unwrap() = Some(it);
                pending::<()>().await;
            }
        })
        .probe(SECOND, SECOND, async |_| Ok::<_, BoxError>(()));
    runtime.spawn(supervisor.run({
        let values = Arc::clone(&values);
        async move |_| LiveCount::new(&values)
    }));
    runtime.advance(ms(2_500));
    let new = LiveCount::new(&values);
    live.lock().unwrap().as_ref().unwrap().replace(new).ok().unwrap();
    assert_eq!(values.load(Ordering::Relaxed), 1);
}
