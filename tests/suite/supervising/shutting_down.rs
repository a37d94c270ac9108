//! Shutting down a registry: in the order of its dependencies, in parallel, and in bounded time.
//!
//! - A service stops after all its dependents have stopped. Services that do not depend on each
//!   other stop at the same time.
//! - When a close hook runs, its service is down, and its dependencies are ready. The holders of
//!   the instance are waited for.
//! - The result names each service that did not stop in time: a close hook that takes too long, a
//!   holder that stays, a supervisor that is not polled, a builder that blocks. The other services
//!   stop, and in any case the registry is closed.
//! - Services stop that build, back off, have been given up, have no supervisor or no provider. A
//!   blocking builder that waits is notified.
//! - A panic of a close hook ends nothing.
//! - A service that has stopped does not become ready again.

use std::{
    future::{Future, pending, ready},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    task::{Context, Waker},
    thread,
    time::Duration,
};

use super::runtime::{TestRuntime, exact, fails, ms};
use crate::support::{LONG, MOMENT, poll_once, registry_of, until, up};
use mainstay::{
    Phase, Reason, Registry, ServiceId,
    error::{BeginError, WaitForError},
    supervise::{Clock, CloseReason, Closing, ShutdownOptions, StopReport, SupervisorState},
};

/// The steps of the close hooks, in order.
pub(super) type Log = Arc<Mutex<Vec<String>>>;

pub(super) fn note(log: &Log, what: impl Into<String>) {
    log.lock().unwrap().push(what.into());
}

/// Supervises a service that is built from `from`. Its close hook takes `takes`, and logs its begin
/// and its end. The limits of draining and of the close hook are 100 ms.
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
    let policy = exact().drain_timeout(ms(100)).close_timeout(ms(100));
    let supervisor = runtime.registry.supervise(id).unwrap().restart_policy(policy);
    let supervisor = supervisor.on_close(async move |closing| {
        if !matches!(Closing::reason(&closing), CloseReason::ShutDown) {
            return;
        }
        assert_eq!(*closing, 1);
        drop(closing);
        assert!(registry.get(id).is_err(), "the service is readable in its close hook");
        assert!(
            below.iter().all(|&id| registry.get(id).is_ok()),
            "a dependency is down in the close hook"
        );
        note(&log, format!("{name} begins"));
        let end = clock.now() + takes;
        clock.sleep_until(end).await;
        note(&log, format!("{name} ends"));
    });
    runtime.spawn(supervisor.run(async move |build| {
        for &id in &from {
            build.wait_for(id).await?;
        }
        Ok::<_, WaitForError>(1)
    }));
}

/// `b` depends on `a`, and both are ready. The close hook of `b` takes `takes`.
pub(super) fn b_on_a(takes: Duration) -> (TestRuntime, ServiceId<u32>, ServiceId<u32>) {
    let (mut runtime, log) = (TestRuntime::new(), Log::default());
    let (a, b) = (runtime.service("a"), runtime.service("b"));
    supervise_logged(&mut runtime, &log, a, &[], ms(0));
    supervise_logged(&mut runtime, &log, b, &[a], takes);
    runtime.run_until_idle();
    (runtime, a, b)
}

/// Begins a shutdown. Its result is stored when it ends.
pub(super) fn begin(
    runtime: &mut TestRuntime,
    timeout: Duration,
) -> Arc<Mutex<Option<StopReport>>> {
    let ended = Arc::<Mutex<Option<StopReport>>>::default();
    let (note, shutdown) = (Arc::clone(&ended), runtime.registry.shutdown(timeout));
    runtime.spawn(async move {
        let shutdown = shutdown.await;
        *note.lock().unwrap() = Some(shutdown);
    });
    runtime.run_until_idle();
    ended
}

/// The services that did not stop in time, and their states.
pub(super) fn late(shutdown: &Mutex<Option<StopReport>>) -> Vec<(String, SupervisorState)> {
    let shutdown = shutdown.lock().unwrap();
    let late = &shutdown.as_ref().expect("the shutdown has ended").stop_timeouts;
    late.iter().map(|late| (late.service.to_string(), late.state)).collect()
}

#[test]
fn shutdown_stops_dependents_first_and_independent_services_at_the_same_time() {
    let (mut runtime, log) = (TestRuntime::new(), Log::default());
    let [base, left, right, top] =
        ["base", "left", "right", "top"].map(|name| runtime.service(name));
    supervise_logged(&mut runtime, &log, top, &[left, right], ms(10));
    supervise_logged(&mut runtime, &log, left, &[base], ms(20));
    supervise_logged(&mut runtime, &log, right, &[base], ms(30));
    supervise_logged(&mut runtime, &log, base, &[], ms(0));
    runtime.run_until_idle();
    assert_eq!(runtime.get(top), Some(1));

    let shutdown = begin(&mut runtime, ms(1_000));
    let read = |log: &Log| std::mem::take(&mut *log.lock().unwrap());
    assert_eq!(read(&log), ["top begins"]);
    assert_eq!((runtime.get(left), runtime.get(base)), (Some(1), Some(1)));
    runtime.advance(ms(10));
    let mut both = read(&log);
    both[1..].sort();
    assert_eq!(both, ["top ends", "left begins", "right begins"]);
    runtime.advance(ms(20));
    assert_eq!(read(&log), ["left ends"]);
    assert_eq!(runtime.get(base), Some(1));
    runtime.advance(ms(10));
    assert_eq!(read(&log), ["right ends", "base begins", "base ends"]);
    assert_eq!(late(&shutdown), []);
    assert_eq!(
        shutdown.lock().unwrap().as_ref().unwrap().to_string(),
        "4 services stopped in time"
    );
    assert!(runtime.registry.is_closed() && runtime.tasks.is_empty());
    assert_eq!(runtime.clock.sleepers(), 0);
}

#[test]
fn shutdown_waits_for_the_holders_of_an_instance() {
    let (mut runtime, a, b) = b_on_a(ms(0));
    let request = runtime.registry.get(b).unwrap();
    let shutdown = begin(&mut runtime, ms(1_000));
    assert_eq!(runtime.state(b), SupervisorState::Draining);
    assert_eq!(runtime.get(a), Some(1), "a holder may need the dependency");
    drop(request);
    runtime.run_until_idle();
    assert_eq!(late(&shutdown), []);
}

#[test]
fn shutdown_names_services_that_do_not_stop_in_time_and_stops_the_others() {
    let (mut runtime, log) = (TestRuntime::new(), Log::default());
    let ids = ["a", "held", "slow", "top"].map(|name| runtime.service(name));
    let [a, held, slow, top] = ids;
    supervise_logged(&mut runtime, &log, a, &[], ms(0));
    supervise_logged(&mut runtime, &log, held, &[a], ms(0));
    supervise_logged(&mut runtime, &log, slow, &[held], ms(101));
    supervise_logged(&mut runtime, &log, top, &[slow], ms(99));
    runtime.run_until_idle();
    let _held = runtime.registry.get(held).unwrap();
    let shutdown = begin(&mut runtime, ms(1_000));
    for _ in 0..30 {
        runtime.advance(ms(10));
    }
    let expected =
        [("slow".into(), SupervisorState::Closing), ("held".into(), SupervisorState::Draining)];
    assert_eq!(late(&shutdown), expected);
    let said = shutdown.lock().unwrap().as_ref().unwrap().to_string();
    let expected = "not stopped in time: slow (closing, its close hook did not return in time), \
                    held (draining, holders: 1)";
    assert_eq!(said, expected);
    let log = log.lock().unwrap();
    let held = log.iter().position(|line| line == "held ends").expect("it got a shared reference");
    assert_eq!(log[held + 1..], ["a begins", "a ends"]);
    assert!(!log.contains(&"slow ends".to_owned()), "the close hook was not dropped");
    assert!(runtime.registry.is_closed());
}

#[test]
fn shutdown_ends_at_its_total_timeout_and_names_all_running_services() {
    let (mut runtime, a, _) = b_on_a(ms(90));
    let shutdown = begin(&mut runtime, ms(50));
    runtime.advance(ms(49));
    assert!(shutdown.lock().unwrap().is_none());
    runtime.advance(ms(1));
    assert_eq!(
        late(&shutdown),
        [("b".into(), SupervisorState::Closing), ("a".into(), SupervisorState::Up)]
    );
    assert!(runtime.registry.is_closed());
    assert_eq!(runtime.get(a), None);
}

#[test]
fn a_service_that_is_down_at_the_total_timeout_is_not_named() {
    let (mut runtime, a, _) = b_on_a(ms(90));
    let shutdown = begin(&mut runtime, ms(50));
    runtime.registry.fail(a, "during the shutdown").unwrap();
    runtime.run_until_idle();
    assert_eq!(runtime.state(a), SupervisorState::BackingOff);
    runtime.advance(ms(50));
    assert_eq!(late(&shutdown), [("b".into(), SupervisorState::Closing)]);
}

#[test]
fn shutdown_stops_services_in_every_supervisor_state() {
    let mut runtime = TestRuntime::new();
    let ids = ["builds", "waits", "backs off", "given up", "idle", "unprovided", "unsupervised"];
    let [builds, waits, backs_off, given_up, idle, unprovided, unsupervised] =
        ids.map(|name| runtime.service(name));
    runtime.supervise(builds, exact(), |_| pending::<Result<u32, String>>());
    runtime.supervise(waits, exact(), move |build| async move {
        build.wait_for(builds).await.map(|_| 1)
    });
    runtime.supervise(backs_off, exact(), fails(9));
    runtime.supervise(given_up, exact().max_failures(0, ms(1)), fails(9));
    let never_run = runtime.registry.supervise(idle).unwrap();
    let (provider, _running) = up(&runtime.registry, unsupervised, 1);
    runtime.run_until_idle();
    let doing = [builds, waits, backs_off, given_up].map(|id| runtime.state(id));
    assert_eq!(
        doing,
        [
            SupervisorState::Building,
            SupervisorState::Building,
            SupervisorState::BackingOff,
            SupervisorState::GivenUp
        ]
    );

    let shutdown = begin(&mut runtime, ms(1_000));
    assert_eq!(late(&shutdown), []);
    assert!(runtime.tasks.is_empty());
    for id in [builds, waits, backs_off, given_up, idle, unprovided, unsupervised] {
        assert_eq!(runtime.registry.status(id).unwrap().phase, Phase::Down);
    }
    assert!(matches!(provider.begin().wait_blocking(), Err(BeginError::Closed { .. })));
    let mut run = Box::pin(never_run.run(async |_| 1));
    assert!(run.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready());
}

#[test]
fn a_stopped_service_does_not_become_ready_again() {
    let (mut runtime, log) = (TestRuntime::new(), Log::default());
    let (base, top) = (runtime.service("base"), runtime.service("top"));
    let (provider, _running) = up(&runtime.registry, top, 1);
    supervise_logged(&mut runtime, &log, base, &[], ms(50));
    runtime.run_until_idle();
    let shutdown = begin(&mut runtime, ms(1_000));
    assert_eq!(runtime.get(top), None);
    assert!(!runtime.registry.is_closed());
    assert!(matches!(provider.begin().wait_blocking(), Err(BeginError::Closed { .. })));
    runtime.advance(ms(50));
    assert_eq!(late(&shutdown), []);
}

#[test]
fn an_attempt_that_begins_during_shutdown_is_refused_or_ended() {
    for _ in 0..100 {
        let (registry, [id]) = registry_of::<u32, 1>(["a"]);
        let provider = registry.provide(id).unwrap();
        let begun = AtomicBool::new(false);
        thread::scope(|scope| {
            let begins = scope.spawn(|| {
                loop {
                    let last = provider.begin().wait_blocking();
                    begun.store(true, Ordering::Relaxed);
                    if last.is_err() || registry.is_closed() {
                        return last;
                    }
                }
            });
            until("an attempt begins", || begun.load(Ordering::Relaxed));
            assert!(registry.shutdown_blocking(LONG).stop_timeouts.is_empty());
            let last = begins.join().unwrap();
            assert_eq!(registry.status(id).unwrap().phase, Phase::Down, "{last:?}");
        });
    }
}

#[test]
fn a_supervisor_that_is_dropped_during_shutdown_counts_as_stopped() {
    let (mut runtime, log) = (TestRuntime::new(), Log::default());
    let (a, b) = (runtime.service("a"), runtime.service("b"));
    supervise_logged(&mut runtime, &log, b, &[a], ms(50));
    supervise_logged(&mut runtime, &log, a, &[], ms(0));
    runtime.run_until_idle();
    let supervisor_of_a = runtime.tasks.remove(1);
    let shutdown = begin(&mut runtime, ms(1_000));
    drop(supervisor_of_a);
    runtime.advance(ms(50));
    assert_eq!(late(&shutdown), []);
    assert!(!log.lock().unwrap().contains(&"a begins".to_owned()));
}

#[test]
fn a_supervisor_that_is_not_polled_does_not_stop_in_time() {
    let (mut runtime, log) = (TestRuntime::new(), Log::default());
    let (a, b) = (runtime.service("a"), runtime.service("b"));
    supervise_logged(&mut runtime, &log, b, &[a], ms(0));
    supervise_logged(&mut runtime, &log, a, &[], ms(0));
    runtime.run_until_idle();
    let supervisor_of_b = runtime.tasks.remove(0);
    let shutdown = begin(&mut runtime, ms(1_000));
    // The limits of draining and of the close hook.
    runtime.advance(ms(199));
    assert_eq!(runtime.get(b), Some(1));
    runtime.advance(ms(1));
    assert_eq!(late(&shutdown), [("b".into(), SupervisorState::Up)]);
    assert_eq!(*log.lock().unwrap(), ["a begins", "a ends"]);
    drop(supervisor_of_b);
}

#[test]
fn panics_of_close_hooks_do_not_end_the_shutdown() {
    let (mut runtime, log) = (TestRuntime::new(), Log::default());
    let [a, b, c, d, e] = ["a", "b", "c", "d", "e"].map(|name| runtime.service(name));
    supervise_logged(&mut runtime, &log, a, &[], ms(0));
    let in_the_call = runtime.registry.supervise(b).unwrap();
    let in_the_call = in_the_call.on_close(
        |_: Closing<u32>| {
            if true { panic!("in the call") } else { ready(()) }
        },
    );
    runtime.spawn(in_the_call.run(async move |build| build.wait_for(a).await.map(|_| 1)));
    let in_a_poll = runtime.registry.supervise(c).unwrap();
    let in_a_poll = in_a_poll.on_close(async |_| {
        if true {
            panic!("in a poll")
        }
    });
    runtime.spawn(in_a_poll.run(async move |build| build.wait_for(b).await.map(|_| 1)));
    // The payload of the panic panics when it is dropped, and so does a close hook without a call.
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            if !thread::panicking() {
                panic!("dropped");
            }
        }
    }
    let with_a_bomb = runtime.registry.supervise(d).unwrap();
    let with_a_bomb = with_a_bomb.on_close(async |_| {
        if true {
            std::panic::panic_any(Bomb)
        }
    });
    runtime.spawn(with_a_bomb.run(async move |build| build.wait_for(c).await.map(|_| 1)));
    let (bomb, not_called) = (Bomb, runtime.registry.supervise(e).unwrap());
    let not_called = not_called.on_close(async move |_| {
        let _ = &bomb;
    });
    let mut builder = fails(9);
    let not_called = not_called.restart_policy(exact());
    runtime.spawn(not_called.run(move |build: mainstay::supervise::Build<u32>| builder(build)));
    runtime.run_until_idle();
    let shutdown = begin(&mut runtime, ms(1_000));
    assert_eq!(late(&shutdown), []);
    assert_eq!(log.lock().unwrap().last().unwrap(), "a ends");
}

#[test]
fn shutdown_stops_supervisors_on_threads_in_order() {
    let (registry, [a, b]) = registry_of::<u32, 2>(["a", "b"]);
    let (stops, order) = mpsc::channel();
    let hook = |name: &'static str| {
        let stops = stops.clone();
        move |_: Closing<u32>| {
            thread::sleep(MOMENT);
            stops.send(name).unwrap();
            ready(())
        }
    };
    let threads = [
        thread::spawn({
            let supervisor = registry.supervise(a).unwrap().on_close(hook("a"));
            move || supervisor.run_blocking(|_| Ok::<_, String>(1))
        }),
        thread::spawn({
            let supervisor = registry.supervise(b).unwrap().on_close(hook("b"));
            move || supervisor.run_blocking(|build| build.wait_for(a).wait_blocking().map(|a| **a))
        }),
    ];
    registry.wait_all_ready().wait_blocking_timeout(LONG).unwrap();
    assert!(registry.shutdown_blocking(LONG).stop_timeouts.is_empty());
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(order.try_iter().collect::<Vec<_>>(), ["b", "a"]);
    assert!(registry.is_closed());
    assert!(
        registry.shutdown_blocking(LONG).stop_timeouts.is_empty(),
        "a shutdown after the shutdown"
    );
}

/// A blocking build cannot be dropped as a future can, and so its wait must end.
#[test]
fn shutdown_notifies_a_blocking_build_that_waits() {
    let (registry, [never, id]) = registry_of::<u32, 2>(["never", "a"]);
    let supervisor = registry.supervise(id).unwrap();
    let (noted, notes) = mpsc::channel();
    let thread = thread::spawn(move || {
        supervisor.run_blocking(|build| {
            let waited = build.wait_for(never).wait_blocking();
            noted.send(build.is_invalidated()).unwrap();
            waited.map(|never| **never)
        });
    });
    until("it waits", || registry.status(never).unwrap().waiters == 1);
    // The timeout is not reached if the build is notified.
    let shutdown = registry.shutdown_blocking(LONG);
    assert!(shutdown.stop_timeouts.is_empty(), "{shutdown}");
    assert_eq!(notes.recv_timeout(LONG), Ok(true));
    thread.join().unwrap();
    let last = registry.status(id).unwrap().last_failure.unwrap();
    assert!(matches!(last.reason, Reason::ShutDown), "{last}");
}

#[test]
fn shutdown_stops_a_chain_of_two_thousand_services() {
    const MANY: usize = 2_000;
    let registry = Registry::with_capacity(MANY).unwrap();
    let id = |i| registry.register::<usize>(&format!("s{i}")).unwrap();
    let ids: Vec<_> = (0..MANY).map(id).collect();
    let mut held = Vec::new();
    for (i, &id) in ids.iter().enumerate() {
        if i > 0 {
            registry.depends(id).on(ids[i - 1]).unwrap();
        }
        held.push(up(&registry, id, i));
    }
    assert!(registry.shutdown_blocking(LONG).stop_timeouts.is_empty());
    assert!(ids.iter().all(|&id| registry.get(id).is_err()));
}

#[test]
fn an_edge_that_is_dropped_during_shutdown_no_longer_delays_its_dependency() {
    let (mut runtime, log) = (TestRuntime::new(), Log::default());
    let [a, b, middle, top] = ["a", "b", "middle", "top"].map(|name| runtime.service(name));
    supervise_logged(&mut runtime, &log, a, &[], ms(0));
    supervise_logged(&mut runtime, &log, b, &[], ms(0));
    // `middle` is built from `a` the first time, and from `b` afterwards.
    let mut calls = 0;
    runtime.supervise(middle, exact().backoff(ms(10), ms(10)), move |build| {
        calls += 1;
        let from = if calls == 1 { a } else { b };
        async move { build.wait_for(from).await.map(|_| 1) }
    });
    let supervisor = runtime.registry.supervise(top).unwrap();
    let (clock, takes) = (runtime.clock.clone(), ms(50));
    let supervisor = supervisor.on_close(async move |_| {
        let end = clock.now() + takes;
        clock.sleep_until(end).await;
    });
    runtime.spawn(supervisor.run(async move |build| {
        // So that `b` is ready before `middle` needs it.
        build.wait_for(b).await?;
        build.wait_for(middle).await.map(|_| 1)
    }));
    runtime.run_until_idle();

    let shutdown = begin(&mut runtime, ms(1_000));
    // While `top` stops, `middle` fails, and depends on `b` instead of `a`.
    runtime.registry.fail(middle, "to be built from b").unwrap();
    runtime.run_until_idle();
    runtime.advance(ms(10));
    let below = &runtime.registry.status(middle).unwrap().dependencies;
    assert_eq!(below.iter().map(|edge| &*edge.name).collect::<Vec<_>>(), ["b"]);
    runtime.advance(ms(40));
    assert_eq!(late(&shutdown), []);
    // They do not depend on each other.
    let mut log = log.lock().unwrap();
    log.sort();
    assert_eq!(*log, ["a begins", "a ends", "b begins", "b ends"]);
}

/// The notice of the second one does not delay what the first one has begun.
#[test]
fn a_shutdown_that_follows_a_dropped_one_gives_no_notice_again() {
    let mut runtime = TestRuntime::new();
    let id = runtime.service("a");
    let limits = exact().stop_timeout(ms(50)).drain_timeout(ms(50)).close_timeout(ms(50));
    runtime.supervise(id, limits, fails(0));
    runtime.run_until_idle();
    // It is not polled: only a shutdown enforces its limit.
    let _supervisor = runtime.tasks.remove(0);
    let mut first = runtime.registry.shutdown(ms(1_000));
    assert!(poll_once(&mut first).is_pending());
    drop(first);
    let options = ShutdownOptions::within(ms(20_000)).notice(ms(10_000));
    let mut second = runtime.registry.shutdown(options);
    assert!(poll_once(&mut second).is_pending());
    runtime.advance(ms(1_000));
    assert!(poll_once(&mut second).is_ready(), "it does not wait for its notice");
}

/// Each poll checks a bounded number of services, so that a limit is kept.
#[test]
fn one_poll_of_a_shutdown_stops_a_piece_of_many_services() {
    let registry = Registry::with_capacity(2_000).unwrap();
    let services = (0..2_000).map(|n| {
        let id = registry.register::<u32>(&format!("s{n}")).unwrap();
        crate::support::up(&registry, id, 1)
    });
    let services: Vec<_> = services.collect();
    let ready = || registry.list().services.iter().filter(|it| it.phase == Phase::Ready).count();
    let mut shutdown = registry.shutdown(ms(60_000));
    let mut left = ready();
    while poll_once(&mut shutdown).is_pending() {
        let now = ready();
        assert!(left - now <= 200, "{} services stopped in one poll", left - now);
        left = now;
    }
    drop(services);
}
