//! The plan of a shutdown belongs to the registry: several shutdowns at once, shutdowns that are
//! dropped, and changes of the graph while services stop.
//!
//! - A shutdown that is dropped undoes nothing: the services continue to stop in order, and the
//!   last one closes the registry. A second shutdown joins the first one, and returns the same
//!   report.
//! - The first limit of several shutdowns ends all of them. `close` ends them at once.
//! - Services that are registered, and edges that are added, removed or turned round while services
//!   stop are noticed.
//! - A service that was built on another one stops before it, however late it was built.
//! - A shutdown checks its limit and lets its executor run other tasks while it works.

use std::{
    future::pending,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::Poll,
    time::{Duration, Instant},
};

use super::{
    runtime::{TestRuntime, exact, ms},
    shutting_down::{Log, b_on_a, begin, late, note, supervise_logged},
};
use crate::support::{LONG, poll_once, registry_of, up};
use mainstay::{
    Event, EventKind, Observer, Registry,
    error::WaitForError,
    supervise::{Clock, CloseReason, Closing, Shutdown, Sleep, SupervisorState},
};

#[test]
fn a_shutdown_that_is_dropped_undoes_nothing() {
    let (mut runtime, log) = (TestRuntime::new(), Log::default());
    let (a, b) = (runtime.service("a"), runtime.service("b"));
    supervise_logged(&mut runtime, &log, b, &[a], ms(50));
    supervise_logged(&mut runtime, &log, a, &[], ms(20));
    runtime.run_until_idle();
    let mut shutdown = Box::pin(runtime.registry.shutdown(ms(1_000)));
    assert!(poll_once(&mut shutdown).is_pending());
    drop(shutdown);
    runtime.advance(ms(60));
    assert_eq!((runtime.get(a), runtime.get(b)), (None, None));
    assert!(!runtime.registry.is_closed());
    // A second shutdown joins the first one, and returns the report of both.
    let shutdown = begin(&mut runtime, ms(1_000));
    runtime.advance(ms(10));
    assert_eq!(late(&shutdown), []);
    assert_eq!(*log.lock().unwrap(), ["b begins", "b ends", "a begins", "a ends"]);
    let report = shutdown.lock().unwrap().take().unwrap();
    let took: Vec<_> = report.stopped.iter().map(|one| (&*one.service, one.took)).collect();
    assert_eq!(took, [("b", ms(50)), ("a", ms(20))]);
}

#[test]
fn the_last_service_to_stop_closes_the_registry_if_the_shutdown_was_dropped() {
    let (mut runtime, a, b) = b_on_a(ms(50));
    let mut shutdown = Box::pin(runtime.registry.shutdown(ms(1_000)));
    assert!(poll_once(&mut shutdown).is_pending());
    drop(shutdown);
    runtime.advance(ms(50));
    assert_eq!((runtime.get(a), runtime.get(b)), (None, None));
    assert!(runtime.registry.is_closed() && runtime.tasks.is_empty());
    // A shutdown after the shutdown returns its report.
    let again = begin(&mut runtime, ms(1_000));
    assert_eq!(again.lock().unwrap().as_ref().unwrap().stopped.len(), 2);
}

#[test]
fn a_builder_that_awaits_the_shutdown_does_not_stop_it_when_it_is_dropped() {
    let (mut runtime, log) = (TestRuntime::new(), Log::default());
    let (a, b) = (runtime.service("a"), runtime.service("b"));
    supervise_logged(&mut runtime, &log, a, &[], ms(50));
    let registry = runtime.registry.clone();
    runtime.supervise(b, exact(), move |build| {
        let registry = registry.clone();
        async move {
            build.wait_for(a).await.map_err(|error| error.to_string())?;
            Err(registry.shutdown(ms(1_000)).await.to_string())
        }
    });
    runtime.run_until_idle();
    runtime.advance(ms(50));
    assert_eq!(*log.lock().unwrap(), ["a begins", "a ends"]);
    assert!(runtime.registry.is_closed() && runtime.tasks.is_empty());
}

#[test]
fn two_shutdowns_at_once_stop_each_service_once() {
    let (mut runtime, log) = (TestRuntime::new(), Log::default());
    let a = runtime.service("a");
    supervise_logged(&mut runtime, &log, a, &[], ms(50));
    runtime.run_until_idle();
    let (one, two) = (begin(&mut runtime, ms(1_000)), begin(&mut runtime, ms(1_000)));
    runtime.advance(ms(50));
    assert_eq!((late(&one), late(&two)), (vec![], vec![]));
    assert_eq!(*log.lock().unwrap(), ["a begins", "a ends"]);
    assert_eq!(*one.lock().unwrap(), *two.lock().unwrap());
}

#[test]
fn the_first_limit_of_two_shutdowns_ends_both() {
    let (mut runtime, _, _) = b_on_a(ms(90));
    let (long, short) = (begin(&mut runtime, ms(1_000)), begin(&mut runtime, ms(50)));
    runtime.advance(ms(49));
    assert!(long.lock().unwrap().is_none() && short.lock().unwrap().is_none());
    runtime.advance(ms(1));
    let expected = [("b".into(), SupervisorState::Closing), ("a".into(), SupervisorState::Up)];
    assert_eq!((late(&long), late(&short)), (expected.to_vec(), expected.to_vec()));
    assert!(runtime.registry.is_closed());
}

/// The supervisor is not polled, so only a future of the shutdown can enforce its limit.
#[test]
fn a_shutdown_enforces_the_limits_of_a_turn_that_another_one_has_begun() {
    let (mut runtime, log) = (TestRuntime::new(), Log::default());
    let (a, b) = (runtime.service("a"), runtime.service("b"));
    supervise_logged(&mut runtime, &log, a, &[], ms(0));
    supervise_logged(&mut runtime, &log, b, &[a], ms(0));
    runtime.run_until_idle();
    let supervisor_of_b = runtime.tasks.remove(1);
    let mut first = runtime.registry.shutdown(ms(10_000));
    assert!(poll_once(&mut first).is_pending());
    let second = begin(&mut runtime, ms(10_000));
    drop(first);
    // The limits of draining and of the close hook.
    runtime.advance(ms(200));
    assert_eq!(late(&second), [("b".into(), SupervisorState::Up)]);
    drop(supervisor_of_b);
}

#[test]
fn close_ends_a_shutdown_at_once() {
    let (mut runtime, a, _) = b_on_a(ms(90));
    let shutdown = begin(&mut runtime, ms(1_000));
    runtime.registry.close();
    runtime.run_until_idle();
    let expected = [("b".into(), SupervisorState::Closing), ("a".into(), SupervisorState::Up)];
    assert_eq!(late(&shutdown), expected);
    // The close hook does not run on.
    assert!(runtime.tasks.is_empty());
    assert_eq!(runtime.get(a), None);
}

#[test]
fn a_shutdown_after_a_close_names_what_is_up() {
    let (registry, [up_id, _down]) = registry_of::<u32, 2>(["up", "down"]);
    let (_provider, _running) = up(&registry, up_id, 1);
    registry.close();
    let report = registry.shutdown_blocking(LONG);
    assert_eq!(report.to_string(), "not stopped in time: up (not running)");
}

#[test]
fn a_service_that_is_registered_while_the_shutdown_takes_another_one_down_is_waited_for() {
    struct Late;
    impl Observer for Late {
        fn event(&self, registry: &Registry, event: &Event<'_>) {
            if let (EventKind::Stopped(_), "b") = (&event.kind, &**event.service) {
                let late = registry.register::<u32>("late").unwrap();
                registry.depends(late).on(registry.find("a").unwrap()).unwrap();
            }
        }
    }
    let registry = Registry::builder(3).unwrap().observer(Late).build();
    let [a, b] = ["a", "b"].map(|name| registry.register::<u32>(name).unwrap());
    registry.depends(b).on(a).unwrap();
    let _up = [a, b].map(|id| up(&registry, id, 1));
    // A shutdown that misses the end of a service waits for its limit.
    let report = registry.shutdown_blocking(LONG);
    assert_eq!(report.to_string(), "3 services stopped in time");
    let stopped: Vec<_> = report.stopped.iter().map(|one| &*one.service).collect();
    assert_eq!(stopped, ["b", "late", "a"]);
}

#[test]
fn an_edge_that_is_turned_round_during_shutdown_delays_nothing() {
    let (mut runtime, log) = (TestRuntime::new(), Log::default());
    let [a, b, top] = ["a", "b", "top"].map(|name| runtime.service(name));
    // `b` is built from `a` the first time. Then it is the other way round.
    let mut calls = 0;
    runtime.supervise(b, exact().backoff(ms(0), ms(0)), move |build| {
        calls += 1;
        let first = calls == 1;
        async move {
            if first {
                build.wait_for(a).await?;
            }
            Ok::<_, WaitForError>(1)
        }
    });
    let mut calls = 0;
    runtime.supervise(a, exact().backoff(ms(0), ms(0)), move |build| {
        calls += 1;
        let first = calls == 1;
        async move {
            if !first {
                build.wait_for(b).await?;
            }
            Ok::<_, WaitForError>(1)
        }
    });
    supervise_logged(&mut runtime, &log, top, &[a, b], ms(50));
    runtime.run_until_idle();
    assert_eq!(runtime.get(top), Some(1));

    let shutdown = begin(&mut runtime, ms(1_000));
    runtime.registry.fail(a, "to be built from b").unwrap();
    runtime.run_until_idle();
    let edges = |id| runtime.registry.status(id).unwrap().dependencies.len();
    assert_eq!((edges(a), edges(b)), (1, 0));
    runtime.advance(ms(50));
    assert_eq!(late(&shutdown), []);
    let report = shutdown.lock().unwrap().take().unwrap();
    let stopped: Vec<_> = report.stopped.iter().map(|one| &*one.service).collect();
    assert_eq!(stopped, ["top", "a", "b"]);
}

/// A clock whose time advances by a millisecond at each call.
struct TickingClock(Instant, AtomicU64);

impl Clock for TickingClock {
    fn now(&self) -> Instant {
        self.0 + Duration::from_millis(self.1.fetch_add(1, Ordering::Relaxed))
    }

    fn sleep_until(&self, _: Instant) -> Sleep {
        Box::pin(pending())
    }
}

/// Begins the shutdown of a chain of this many services, which are down. Each is checked.
fn shutdown_of_a_chain(many: usize, timeout: Duration) -> (Registry, Shutdown) {
    let clock = TickingClock(Instant::now(), AtomicU64::new(0));
    let registry = Registry::builder(many).unwrap().clock(clock).build();
    let id = |i| registry.register::<u8>(&format!("s{i}")).unwrap();
    let ids: Vec<_> = (0..many).map(id).collect();
    for pair in ids.windows(2) {
        registry.depends(pair[1]).on(pair[0]).unwrap();
    }
    let shutdown = registry.shutdown(timeout);
    (registry, shutdown)
}

#[test]
fn a_shutdown_checks_its_limit_while_it_works() {
    let (registry, mut shutdown) = shutdown_of_a_chain(1_000, ms(50));
    let report = loop {
        if let Poll::Ready(report) = poll_once(&mut shutdown) {
            break report;
        }
    };
    // The time advances twice at each turn.
    assert!(report.stopped.len() < 100, "{} turns in 50 ms", report.stopped.len());
    assert!(registry.is_closed());
}

#[test]
fn a_shutdown_lets_its_executor_run_other_tasks_while_it_works() {
    let (registry, mut shutdown) = shutdown_of_a_chain(1_000, LONG);
    let mut polls = 1;
    while poll_once(&mut shutdown).is_pending() {
        polls += 1;
    }
    assert!(polls > 10 && registry.is_closed(), "{polls} polls");
}

/// `base` and `top` have no dependents, so it is their turn. The supervisor of `base` is not polled
/// yet, and `middle` is built again, and needs `base` from now on.
#[test]
fn two_close_hooks_of_which_one_depends_on_the_other_never_run_at_once() {
    let (mut runtime, log) = (TestRuntime::new(), Log::default());
    let [base, middle, top] = ["base", "middle", "top"].map(|name| runtime.service(name));
    let hook = |runtime: &TestRuntime, id, name: &'static str| {
        let (log, clock) = (Arc::clone(&log), runtime.clock.clone());
        // A build that fails because its dependency has stopped is not repeated at once.
        let policy = exact().backoff(ms(0), ms(0));
        let supervisor = runtime.registry.supervise(id).unwrap().restart_policy(policy);
        supervisor.on_close(async move |closing| {
            if !matches!(Closing::reason(&closing), CloseReason::ShutDown) {
                return;
            }
            note(&log, format!("{name} begins"));
            let end = clock.now() + ms(10);
            clock.sleep_until(end).await;
            note(&log, format!("{name} ends"));
        })
    };
    let needs_base = Arc::new(AtomicBool::new(false));
    let (base_supervisor, middle_supervisor) =
        (hook(&runtime, base, "base"), hook(&runtime, middle, "middle"));
    runtime.spawn(base_supervisor.run(async |_| 1));
    let needs = Arc::clone(&needs_base);
    runtime.spawn(middle_supervisor.run(async move |build| {
        if needs.load(Ordering::Relaxed) {
            build.wait_for(base).await?;
        }
        Ok::<_, WaitForError>(1)
    }));
    runtime.supervise(
        top,
        exact(),
        move |build| async move { build.wait_for(middle).await.map(|_| 1) },
    );
    runtime.run_until_idle();
    assert_eq!(runtime.get(top), Some(1));

    let ended = Arc::new(Mutex::new(None));
    let mut shutdown = Box::pin(runtime.registry.shutdown(ms(1_000)));
    assert!(poll_once(&mut shutdown).is_pending());
    runtime.spawn({
        let ended = Arc::clone(&ended);
        async move { *ended.lock().unwrap() = Some(shutdown.await) }
    });
    needs_base.store(true, Ordering::Relaxed);
    runtime.registry.fail(middle, "it needs base from now on").unwrap();
    let base_task = runtime.tasks.remove(0);
    runtime.run_until_idle();
    assert_eq!((runtime.get(base), runtime.get(middle)), (Some(1), None), "built on base");
    runtime.tasks.insert(0, base_task);
    runtime.advance(ms(20));
    assert_eq!(late(&ended), []);
    assert_eq!(*log.lock().unwrap(), ["base begins", "base ends"]);
}

/// `base` waits for its last dependent. Another one, which the shutdown has checked already, fails,
/// and is built on `base` once more.
#[test]
fn a_dependent_that_comes_back_during_the_shutdown_stops_first() {
    let (mut runtime, log) = (TestRuntime::new(), Log::default());
    let [late_one, base, slow] = ["late", "base", "slow"].map(|name| runtime.service(name));
    let needs_base = Arc::new(AtomicBool::new(false));
    supervise_logged(&mut runtime, &log, base, &[], ms(0));
    supervise_logged(&mut runtime, &log, slow, &[base, late_one], ms(50));
    let (needs, log_of_late) = (Arc::clone(&needs_base), Arc::clone(&log));
    let supervisor = runtime.registry.supervise(late_one).unwrap();
    let supervisor = supervisor.restart_policy(exact().backoff(ms(0), ms(0)));
    let supervisor = supervisor.on_close(async move |closing| match Closing::reason(&closing) {
        CloseReason::ShutDown => note(&log_of_late, "late stops"),
        _ => note(&log_of_late, "late has failed"),
    });
    runtime.spawn(supervisor.run(async move |build| {
        if needs.load(Ordering::Relaxed) {
            build.wait_for(base).await?;
        }
        Ok::<_, WaitForError>(1)
    }));
    runtime.run_until_idle();
    assert_eq!(runtime.get(slow), Some(1));
    let shutdown = begin(&mut runtime, ms(1_000));
    needs_base.store(true, Ordering::Relaxed);
    runtime.registry.fail(late_one, "it needs base from now on").unwrap();
    runtime.run_until_idle();
    // S5: `base` is not marked yet.
    assert_eq!(runtime.get(late_one), Some(1));
    runtime.advance(ms(50));
    assert_eq!(late(&shutdown), []);
    let expected =
        ["slow begins", "late has failed", "slow ends", "late stops", "base begins", "base ends"];
    assert_eq!(*log.lock().unwrap(), expected);
}
