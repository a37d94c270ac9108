//! Supervisors that run on plain threads, with `run_blocking`.
//!
//! - They restart services, back off, and end with the registry, as they do on an executor.
//! - A thread sleeps by the clock of the registry.

use std::time::{Duration, Instant};

use super::{
    panics::Bomb,
    runtime::{BoxError, ms, on_a_thread},
};
use crate::support::{LONG, registry_of, until};
use mainstay::{
    Registry,
    supervise::{RestartPolicy, SupervisorState},
    test_kit::VirtualClock,
};

#[test]
fn supervisors_on_threads_restart_their_services_and_end_with_the_registry() {
    let (registry, [a, b]) = registry_of::<u32, 2>(["a", "b"]);
    let quick = RestartPolicy::default().backoff(ms(1), ms(2));
    let mut calls = 0;
    let threads = [
        on_a_thread(registry.supervise(a).unwrap().restart_policy(quick.clone()), move |_| {
            calls += 1;
            assert!(calls != 2, "the second call");
            if calls % 3 == 0 { Err(Box::new(Bomb) as BoxError) } else { Ok(calls) }
        }),
        on_a_thread(registry.supervise(b).unwrap().restart_policy(quick), move |build| {
            build.wait_for(a).wait_blocking().map(|a| **a)
        }),
    ];
    for _ in 0..20 {
        registry.wait_ready(b).wait_blocking_timeout(LONG).unwrap();
        registry.fail(a, "again").unwrap();
    }
    registry.wait_ready(b).wait_blocking_timeout(LONG).unwrap();
    registry.close();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn a_supervisor_on_a_thread_backs_off() {
    let (registry, [id]) = registry_of::<u32, 1>(["a"]);
    let restart = RestartPolicy::default().backoff(ms(5), ms(10)).without_jitter();
    let (begun, mut calls) = (Instant::now(), 0);
    let thread = on_a_thread(registry.supervise(id).unwrap().restart_policy(restart), move |_| {
        calls += 1;
        if calls > 2 { Ok(calls) } else { Err("not yet") }
    });
    registry.wait_ready(id).wait_blocking_timeout(LONG).unwrap();
    assert!(begun.elapsed() >= ms(15));
    registry.close();
    thread.join().unwrap();
}

/// The clock of the registry is virtual, and differs from the clock of the system.
#[test]
fn a_supervisor_on_a_thread_backs_off_by_the_clock_of_the_registry() {
    let clock = VirtualClock::default();
    let registry = Registry::builder(1).unwrap().clock(clock.clone()).build();
    let id = registry.register::<u32>("a").unwrap();
    let hour = Duration::from_secs(3_600);
    let restart = RestartPolicy::default().backoff(hour, hour).without_jitter();
    let mut calls = 0;
    let thread = on_a_thread(registry.supervise(id).unwrap().restart_policy(restart), move |_| {
        calls += 1;
        if calls > 1 { Ok(calls) } else { Err("not yet") }
    });
    until("the supervisor sleeps", || clock.sleepers() == 1);
    clock.advance(hour);
    assert_eq!(**registry.wait_ready(id).wait_blocking_timeout(LONG).unwrap(), 2);
    registry.close();
    thread.join().unwrap();
}

#[test]
fn close_ends_the_endless_backoff_of_a_supervisor_on_a_thread() {
    let (registry, [id]) = registry_of::<u32, 1>(["a"]);
    let restart = RestartPolicy::default().backoff(Duration::MAX, Duration::MAX).without_jitter();
    let thread =
        on_a_thread(registry.supervise(id).unwrap().restart_policy(restart), |_| Err("never"));
    let doing = || registry.status(id).unwrap().supervisor.map(|status| status.state);
    until("the supervisor backs off", || doing() == Some(SupervisorState::BackingOff));
    registry.close();
    thread.join().unwrap();
}
