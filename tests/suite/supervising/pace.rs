//! How often a service is built: nothing keeps a supervisor busy for ever.
//!
//! - If each build, or each instance, fails at once and without a delay, the supervisor still
//!   yields between two builds.
//! - A service whose failures are planned is built at most once per first backoff.
//! - The time after a planned end is no time of being up: the next failure is counted.
//! - An error that says that a service was not there excuses one failure for each instance of that
//!   service.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use super::runtime::{BoxError, TestRuntime, exact, fails, ms};
use crate::support::{must_finish, poll_once};
use mainstay::{
    ServiceId,
    supervise::{Build, Planned, RestartPolicy, SupervisorState},
};

/// Starts the supervisor of a service that fails again and again.
type Start = fn(&mut TestRuntime, ServiceId<u32>, RestartPolicy);

const FAILING: [(&str, Start); 4] = [
    ("a builder fails", |runtime, id, policy| {
        runtime.supervise(id, policy, |_| async { Err::<u32, _>("no port is free") });
    }),
    ("a builder fails as planned", |runtime, id, policy| {
        let supervisor = runtime.registry.supervise(id).unwrap().restart_policy(policy);
        runtime.spawn(supervisor.run(async |_| Err::<u32, _>(Planned::new("later"))));
    }),
    ("a body returns", |runtime, id, policy| {
        let supervisor = runtime.registry.supervise(id).unwrap().restart_policy(policy);
        runtime.spawn(supervisor.body(async |_| {}).run(async |_| 1));
    }),
    ("a body fails as planned", |runtime, id, policy| {
        let supervisor = runtime.registry.supervise(id).unwrap().restart_policy(policy);
        let supervisor = supervisor.body(async |_| Err::<(), _>(Planned::new("rotated")));
        runtime.spawn(supervisor.run(async |_| 1));
    }),
];

#[test]
fn no_poll_of_a_supervisor_lasts_for_ever() {
    let no_delay = || RestartPolicy::default().backoff(Duration::ZERO, Duration::ZERO);
    let always_stable = || exact().reset_after(Duration::ZERO);
    let policies: [fn() -> RestartPolicy; 3] = [no_delay, always_stable, exact];
    for (what, start) in FAILING {
        for policy in policies {
            must_finish(what, move || {
                let mut runtime = TestRuntime::new();
                let id = runtime.service("flapping");
                start(&mut runtime, id, policy());
                let mut task = runtime.tasks.remove(0);
                for _ in 0..3 {
                    let _ = poll_once(Pin::new(&mut task));
                }
                runtime.registry.close();
                assert!(poll_once(Pin::new(&mut task)).is_ready());
            });
        }
    }
}

#[test]
fn a_service_that_fails_as_planned_is_built_once_per_first_backoff() {
    for start in [FAILING[1].1, FAILING[3].1] {
        let mut runtime = TestRuntime::new();
        let id = runtime.service("flapping");
        start(&mut runtime, id, exact());
        runtime.run_until_idle();
        let text = "backing off, next try in 100 ms";
        assert_eq!(runtime.supervisor_status(id).to_string(), text);
        runtime.recorder.take();
        runtime.advance(ms(1_000));
        let lines = runtime.recorder.take();
        let builds = lines.iter().filter(|line| line.contains("attempt started")).count();
        assert_eq!((builds, runtime.supervisor_status(id).failures), (10, 0), "{lines:#?}");
    }
}

#[test]
fn an_instance_that_is_edited_rarely_is_built_again_at_once() {
    let mut runtime = TestRuntime::new();
    let id = runtime.service("config");
    runtime.supervise(id, exact(), fails(0));
    runtime.run_until_idle();
    for edited in 1..10 {
        assert_eq!(runtime.get(id), Some(edited));
        runtime.registry.fail(id, Planned::new("edited")).unwrap();
        runtime.run_until_idle();
        assert_eq!(runtime.get(id), Some(edited + 1));
        runtime.advance(ms(100));
    }
}

#[test]
fn the_time_after_a_planned_end_is_no_time_of_being_up() {
    let mut runtime = TestRuntime::new();
    let (bottom, top) = (runtime.service("bottom"), runtime.service("top"));
    runtime.supervise(bottom, exact(), |_| async { Ok::<_, String>(1) });
    let builds = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&builds);
    runtime.supervise(top, exact(), move |build: Build<u32>| {
        let first = count.fetch_add(1, Ordering::Relaxed) == 0;
        async move {
            build.wait_for(bottom).await?;
            if first { Ok::<_, BoxError>(1) } else { Err("no port is free".into()) }
        }
    });
    // Shorter than `reset_after`.
    runtime.advance(ms(1_000));
    assert_eq!(runtime.get(top), Some(1));
    // For a minute, neither of them is up.
    let mut stop = runtime.registry.stop(bottom);
    let _ = poll_once(&mut stop);
    runtime.advance(ms(60_000));
    assert_eq!(runtime.state(bottom), SupervisorState::Stopped);
    runtime.registry.start(bottom).unwrap();
    runtime.run_until_idle();
    assert_eq!((builds.load(Ordering::Relaxed), runtime.supervisor_status(top).failures), (2, 1));
    assert_eq!(runtime.state(top), SupervisorState::BackingOff);
}

#[test]
fn an_error_about_a_service_that_is_there_excuses_one_failure() {
    let mut runtime = TestRuntime::new();
    let (pool, server) = (runtime.service("pool"), runtime.service("server"));
    let not_there = runtime.registry.get(pool).map(|_| ()).unwrap_err();
    runtime.supervise(pool, exact(), |_| async { Ok::<_, String>(1) });
    let builds = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&builds);
    runtime.supervise(server, exact().max_failures(3, ms(60_000)), move |_| {
        count.fetch_add(1, Ordering::Relaxed);
        let error = not_there.clone();
        async move { Err::<u32, BoxError>(error.into()) }
    });
    runtime.advance(ms(600_000));
    // The first is excused, three are within the limit, and one is too many.
    assert_eq!(builds.load(Ordering::Relaxed), 5);
    assert_eq!(runtime.state(server), SupervisorState::GivenUp);
}
