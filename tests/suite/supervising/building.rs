//! One build under supervision.
//!
//! - A builder can read the last failure, the number of the build, and the deadline.
//! - A build that takes too long or is invalidated is dropped at its next await, and a blocking
//!   build is notified. What it returns is dropped.
//! - The status says by how much a build is late that cannot be dropped.
//! - A build that fails after the registry was closed is not said to be shut down.
//! - The time of a build stops while it waits for a dependency, on any thread.
//! - The edges of a build are those of its attempt. A build that is kept after its end has ended,
//!   and makes no edges.

use std::{
    convert::Infallible,
    future::pending,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Instant,
};

use super::runtime::{LiveCount, TestRuntime, exact, fails, ms, on_a_thread};
use crate::support::{LONG, registry_of, until};
use futures_lite::future::zip;
use mainstay::{
    Reason, Registry,
    error::WaitForError,
    supervise::{Build, BuildFailure, Clock, RestartPolicy, SupervisorState},
    test_kit::VirtualClock,
};

#[test]
fn a_builder_can_read_its_number_generation_and_last_failure() {
    let mut runtime = TestRuntime::new();
    let id = runtime.service("a");
    let seen = Arc::<Mutex<Vec<_>>>::default();
    let notes = Arc::clone(&seen);
    runtime.supervise(id, exact(), move |build| {
        let failure = build.last_failure().map(|failure| failure.reason.to_string());
        let note = (build.number(), build.generation(), failure.unwrap_or_default());
        assert!(format!("{build:?}").contains("service: \"a\""));
        assert!(build.deadline().is_none() && !build.is_invalidated());
        notes.lock().unwrap().push(note);
        async move {
            if build.number() < 3 { Err(format!("number {}", build.number())) } else { Ok(1) }
        }
    });
    runtime.run_until_idle();
    runtime.advance(ms(100));
    runtime.advance(ms(200));
    runtime.registry.fail(id, "from outside").unwrap();
    runtime.run_until_idle();
    runtime.advance(ms(400));
    assert_eq!(runtime.get(id), Some(1));
    let seen = seen.lock().unwrap();
    let seen: Vec<(u32, u64, &str)> =
        seen.iter().map(|(n, g, failure)| (*n, g.get(), &**failure)).collect();
    let first = [(1, 0, ""), (2, 0, "number 1"), (3, 0, "number 2"), (4, 1, "from outside")];
    assert_eq!(seen, first);
}

#[test]
fn a_build_that_times_out_or_is_invalidated_is_dropped() {
    let mut runtime = TestRuntime::new();
    let (id, alive) = (runtime.service("a"), Arc::<AtomicUsize>::default());
    let count = Arc::clone(&alive);
    let deadline = Arc::<Mutex<Option<Instant>>>::default();
    let note = Arc::clone(&deadline);
    runtime.supervise(id, exact().build_timeout(ms(30)), move |build| {
        let alive = LiveCount::new(&count);
        *note.lock().unwrap() = build.deadline();
        async move {
            let _alive = alive;
            pending::<Result<u32, Infallible>>().await
        }
    });
    runtime.run_until_idle();
    assert_eq!(alive.load(Ordering::Relaxed), 1);
    assert_eq!(*deadline.lock().unwrap(), Some(runtime.clock.now() + ms(30)));
    runtime.advance(ms(29));
    assert_eq!(runtime.state(id), SupervisorState::Building);
    runtime.advance(ms(1));
    assert_eq!(alive.load(Ordering::Relaxed), 0);
    assert_eq!(runtime.supervisor_status(id).next_try_in, Some(ms(100)));
    let failure = runtime.registry.status(id).unwrap().last_failure.unwrap();
    let Reason::Error(error) = &failure.reason else { panic!("{failure}") };
    assert_eq!(error.downcast_ref(), Some(&BuildFailure::TimedOut { after: ms(30) }));

    runtime.advance(ms(100));
    assert_eq!((alive.load(Ordering::Relaxed), runtime.state(id)), (1, SupervisorState::Building));
    assert_eq!(runtime.registry.fail(id, "to be built again").unwrap().invalidated, 1);
    runtime.run_until_idle();
    assert_eq!(
        (alive.load(Ordering::Relaxed), runtime.state(id)),
        (0, SupervisorState::BackingOff)
    );

    runtime.advance(ms(200));
    assert_eq!((alive.load(Ordering::Relaxed), runtime.state(id)), (1, SupervisorState::Building));
    runtime.registry.close();
    runtime.run_until_idle();
    assert_eq!((alive.load(Ordering::Relaxed), runtime.tasks.len()), (0, 0));
    assert_eq!(runtime.clock.sleepers(), 0);
}

#[test]
fn a_service_depends_only_on_what_its_last_build_used() {
    let mut runtime = TestRuntime::new();
    let [a, b, c] = ["a", "b", "c"].map(|name| runtime.service(name));
    runtime.supervise(a, exact(), fails(0));
    runtime.supervise(b, exact(), fails(0));
    let mut calls = 0;
    runtime.supervise(c, exact(), move |build| {
        calls += 1;
        let from = if calls == 1 { a } else { b };
        async move { build.wait_for(from).await.map(|from| **from) }
    });
    runtime.run_until_idle();
    let registry = runtime.registry.clone();
    let names = |id| {
        let status = registry.status(id).unwrap();
        status.dependencies.iter().map(|edge| edge.name.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(names(c), ["a"]);
    runtime.registry.fail(a, "to be built from b").unwrap();
    runtime.run_until_idle();
    assert_eq!(names(c), ["b"], "a dependency that the last build has not used");
    assert_eq!(runtime.registry.fail(a, "no dependency any more").unwrap().failed, 0);
}

#[test]
fn a_build_that_is_kept_has_ended_and_makes_no_edges() {
    let mut runtime = TestRuntime::new();
    let (a, b) = (runtime.service("a"), runtime.service("b"));
    let kept = Arc::<Mutex<Option<Build<u32>>>>::default();
    let keep = Arc::clone(&kept);
    runtime.supervise(a, exact(), move |build| {
        *keep.lock().unwrap() = Some(build);
        async { Ok::<_, Infallible>(1) }
    });
    runtime.run_until_idle();
    let build = kept.lock().unwrap().take().unwrap();
    assert!(build.is_invalidated());
    match build.wait_for(b).wait_blocking() {
        Err(WaitForError::AttemptEnded { service }) => assert_eq!(service, "b"),
        other => panic!("{other:?}"),
    }
    assert!(runtime.registry.status(a).unwrap().dependencies.is_empty());
}

/// A missing dependency is not counted against the service that waits for it.
#[test]
fn the_time_of_a_build_stops_while_it_waits_for_a_dependency() {
    let mut runtime = TestRuntime::new();
    let (a, b, c) = (runtime.service("a"), runtime.service("b"), runtime.service("c"));
    let clock = runtime.clock.clone();
    runtime.supervise(c, exact().build_timeout(ms(30)), move |build| {
        let clock = clock.clone();
        async move {
            let begun = clock.now();
            clock.sleep_until(begun + ms(10)).await;
            assert_eq!(build.deadline(), Some(begun + ms(30)));
            // Two waits at once, of which one takes longer.
            let ((), a) = zip(async { drop(build.wait_to_start(b).await) }, async {
                build.wait_for(a).await.map(|a| **a)
            })
            .await;
            assert_eq!(build.deadline(), Some(clock.now() + ms(20)));
            if a? == 1 {
                pending::<()>().await;
            }
            clock.sleep_until(clock.now() + ms(20)).await;
            Ok::<_, WaitForError>(7)
        }
    });
    runtime.run_until_idle();
    runtime.advance(ms(1_000));
    runtime.supervise(b, exact(), fails(0));
    runtime.advance(ms(1_000));
    assert_eq!(
        (runtime.state(c), runtime.supervisor_status(c).failures),
        (SupervisorState::Building, 0)
    );
    runtime.supervise(a, exact(), fails(0));
    runtime.run_until_idle();
    runtime.advance(ms(19));
    assert_eq!(
        (runtime.state(c), runtime.supervisor_status(c).failures),
        (SupervisorState::Building, 0)
    );
    runtime.advance(ms(1));
    assert_eq!(
        (runtime.state(c), runtime.supervisor_status(c).failures),
        (SupervisorState::BackingOff, 1)
    );

    // A build that takes exactly its time.
    runtime.registry.fail(a, "once").unwrap();
    runtime.advance(ms(1_000));
    assert_eq!((runtime.get(a), runtime.get(c)), (Some(2), Some(7)));
    assert_eq!(runtime.supervisor_status(c).failures, 1);
}

#[test]
fn the_time_of_a_build_resumes_after_another_thread_has_waited_for_it() {
    let clock = VirtualClock::default();
    let registry = Registry::builder(2).unwrap().clock(clock.clone()).build();
    let [a, b] = ["a", "b"].map(|name| registry.register::<u32>(name).unwrap());
    let (sender, builds) = mpsc::channel::<Build<u32>>();
    let supervisor = registry.supervise(b).unwrap().restart_policy(exact().build_timeout(ms(30)));
    let supervising = thread::spawn(move || {
        pollster::block_on(supervisor.run(move |build| {
            sender.send(build).unwrap();
            pending::<Result<u32, Infallible>>()
        }));
    });
    let build = builds.recv_timeout(LONG).unwrap();
    until("the time of the build runs", || clock.sleepers() == 1);
    let waiting = thread::spawn(move || drop(build.wait_for(a).wait_blocking().unwrap()));
    until("the build waits for a", || registry.status(a).unwrap().waiters == 1);
    clock.advance(ms(1_000));
    until("the time of the build has stopped", || clock.sleepers() == 0);
    let provider = registry.provide(a).unwrap();
    let _running = provider.begin().wait_blocking().unwrap().ready(1).unwrap();
    waiting.join().unwrap();
    until("the time of the build runs again", || clock.sleepers() == 1);
    let doing = || registry.status(b).unwrap().supervisor.unwrap().state;
    assert_eq!(doing(), SupervisorState::Building);
    clock.advance(ms(30));
    until("the build has timed out", || doing() == SupervisorState::BackingOff);
    registry.close();
    supervising.join().unwrap();
}

#[test]
fn a_blocking_build_is_notified_when_it_is_invalidated_or_times_out() {
    let (registry, [id]) = registry_of::<u32, 1>(["a"]);
    let restart = RestartPolicy::default().backoff(ms(1), ms(1)).build_timeout(ms(20));
    let (began, begun) = mpsc::channel();
    let mut calls = 0;
    let thread =
        on_a_thread(registry.supervise(id).unwrap().restart_policy(restart), move |build| {
            calls += 1;
            match calls {
                1 => {
                    began.send(()).unwrap();
                    build.invalidated().wait_blocking_timeout(LONG).unwrap();
                    assert!(build.is_invalidated());
                    Ok(calls)
                }
                2 => {
                    let left = build.deadline().unwrap() - Instant::now();
                    thread::sleep(left + ms(1));
                    Ok(calls)
                }
                _ => Ok::<_, Infallible>(calls),
            }
        });
    begun.recv_timeout(LONG).unwrap();
    registry.fail(id, "to be built again").unwrap();
    assert_eq!(**registry.wait_ready(id).wait_blocking_timeout(LONG).unwrap(), 3);
    let failure = registry.status(id).unwrap().last_failure.unwrap();
    assert_eq!(failure.reason.to_string(), "not built within 20ms");
    registry.close();
    thread.join().unwrap();
}

#[test]
fn the_status_says_by_how_much_a_blocking_build_is_late_while_it_runs() {
    let clock = VirtualClock::new();
    let registry = Registry::builder(2).unwrap().clock(clock.clone()).build();
    let [a, b] = ["a", "b"].map(|name| registry.register::<u32>(name).unwrap());
    let provider = registry.provide(a).unwrap();
    let (steps, next) = mpsc::channel::<()>();
    let supervisor = registry.supervise(b).unwrap().restart_policy(exact().build_timeout(ms(30)));
    let thread = on_a_thread(supervisor, move |build| {
        drop(build.wait_for(a).wait_blocking_timeout(LONG).unwrap());
        next.recv_timeout(LONG).unwrap();
        Ok::<_, Infallible>(build.number())
    });
    let status = || registry.status(b).unwrap().supervisor.unwrap();
    until("the build waits", || registry.status(a).unwrap().waiters == 1);
    clock.advance(ms(1_000));
    assert_eq!((status().state, status().late_by), (SupervisorState::Building, None), "it waits");
    let _a = provider.begin().wait_blocking().unwrap().ready(1).unwrap();
    until("the build has what it waits for", || registry.status(a).unwrap().waiters == 0);
    until("the time of the build runs", || registry.status(b).unwrap().waiting_for.is_none());
    clock.advance(ms(30));
    assert_eq!(status().late_by, None, "exactly in time");
    clock.advance(ms(70));
    assert_eq!((status().state, status().late_by), (SupervisorState::Building, Some(ms(70))));
    assert!(registry.status(b).unwrap().last_failure.is_none(), "it has not ended yet");
    assert_eq!(status().to_string(), "building, late by 70 ms");
    let why = registry.status(b).unwrap().not_ready.unwrap();
    assert_eq!(why.to_string(), "b: building, late by 70 ms (for 1.1 s)");

    steps.send(()).unwrap();
    until("the build has failed", || status().state == SupervisorState::BackingOff);
    assert_eq!(status().late_by, None);
    let failure = registry.status(b).unwrap().last_failure.unwrap();
    assert_eq!(failure.reason.to_string(), "not built within 30ms");
    steps.send(()).unwrap();
    until("the supervisor sleeps", || clock.sleepers() > 0);
    clock.advance(ms(100));
    assert_eq!(**registry.wait_ready(b).wait_blocking_timeout(LONG).unwrap(), 2);
    assert_eq!(status().late_by, None);
    registry.close();
    thread.join().unwrap();
}

#[test]
fn a_build_that_has_ended_is_not_late_although_it_is_kept() {
    let mut runtime = TestRuntime::new();
    let id = runtime.service("a");
    let (sender, builds) = mpsc::channel();
    runtime.supervise(id, exact().build_timeout(ms(30)), move |build| {
        sender.send(build).unwrap();
        async { Ok::<_, Infallible>(1) }
    });
    runtime.run_until_idle();
    let build = builds.try_recv().unwrap();
    runtime.advance(ms(1_000));
    assert_eq!((runtime.get(id), runtime.supervisor_status(id).late_by), (Some(1), None));
    drop(build);
}

#[test]
fn a_build_that_fails_after_the_close_has_the_close_as_its_reason() {
    let mut runtime = TestRuntime::new();
    let id = runtime.service("a");
    let registry = runtime.registry.clone();
    runtime.supervise(id, exact(), move |_| {
        registry.close();
        async { Err::<u32, _>("closed meanwhile") }
    });
    runtime.run_until_idle();
    assert!(runtime.tasks.is_empty());
    let failure = runtime.registry.status(id).unwrap().last_failure.unwrap();
    assert!(matches!(failure.reason, Reason::Closed), "{failure}");
}

#[test]
fn the_time_before_a_wait_for_a_dependency_is_part_of_the_build() {
    let mut runtime = TestRuntime::new();
    let (base, top) = (runtime.service("base"), runtime.service("top"));
    let provider = runtime.registry.provide(base).unwrap();
    let clock = runtime.clock.clone();
    runtime.supervise(top, exact().build_timeout(ms(100)), move |build| {
        let clock = clock.clone();
        async move {
            clock.sleep_until(clock.now() + ms(60)).await;
            build.wait_for(base).await?;
            pending::<()>().await;
            Ok::<_, WaitForError>(1)
        }
    });
    runtime.run_until_idle();
    runtime.advance(ms(60));
    runtime.advance(ms(5_000));
    assert_eq!(runtime.state(top), SupervisorState::Building, "it waits");
    let _running = crate::support::publish(&provider, 1);
    runtime.run_until_idle();
    runtime.advance(ms(39));
    assert_eq!(runtime.state(top), SupervisorState::Building);
    runtime.advance(ms(1));
    assert_eq!(runtime.state(top), SupervisorState::BackingOff);
}

#[test]
fn a_build_that_fails_at_the_turn_of_its_service_to_stop_is_not_counted() {
    let mut runtime = TestRuntime::new();
    let id = runtime.service("a");
    let registry = runtime.registry.clone();
    let mut builds = 0;
    runtime.supervise(id, exact(), move |_| {
        builds += 1;
        if builds == 1 {
            // The turn of the service begins during this call.
            assert!(crate::support::poll_once(&mut registry.stop(id)).is_pending());
        }
        let result = if builds == 1 { Err("no port is free") } else { Ok(builds) };
        std::future::ready(result)
    });
    runtime.run_until_idle();
    assert_eq!(runtime.state(id), SupervisorState::Stopped);
    assert!(runtime.registry.start(id).unwrap());
    runtime.run_until_idle();
    assert_eq!((runtime.get(id), runtime.supervisor_status(id).failures), (Some(2), 0));
}
