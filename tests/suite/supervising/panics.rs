//! Panics of user code under supervision: in builders, values, errors, and their drops; and in the
//! drops of wakers.
//!
//! - None of them ends the loop of the supervisor, nor the shutdown of the registry.

use std::{
    error::Error,
    fmt,
    future::pending,
    sync::{Arc, mpsc},
    task::{Wake, Waker},
    thread,
};

use super::runtime::{BoxError, TestRuntime, exact, ms};
use crate::support::{LONG, poll_once, poll_with, poll_with_bomb, publish, registry_of, until};
use mainstay::{
    Registry,
    supervise::{Build, RestartPolicy, SupervisorState},
    test_kit::VirtualClock,
};

/// An error that panics when it is dropped.
#[derive(Debug)]
pub(super) struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("a bomb is dropped");
    }
}

impl fmt::Display for Bomb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a bomb")
    }
}

impl Error for Bomb {}

#[test]
fn panics_of_builders_errors_and_drops_do_not_end_the_supervisor() {
    let mut runtime = TestRuntime::new();
    let id = runtime.service("a");
    let mut calls = 0;
    runtime.supervise(id, exact().backoff(ms(1), ms(1)).build_timeout(ms(10)), move |_| {
        calls += 1;
        let call = calls;
        assert!(call != 1, "in the call");
        async move {
            let _in_the_future = (call == 2).then(|| Bomb);
            match call {
                2 => pending().await,
                3 => panic!("in a poll"),
                4 => Err(Box::new(Bomb) as BoxError),
                5 => std::panic::panic_any(Bomb),
                6 => Err("an error".into()),
                _ => Ok(call),
            }
        }
    });
    runtime.run_until_idle();
    for why in [
        "the build panicked: in the call",
        "not built within 10ms",
        "the build panicked: in a poll",
        "a bomb",
        "the build panicked: the message is not text",
        "an error",
    ] {
        if runtime.state(id) == SupervisorState::Building {
            runtime.advance(ms(10));
        }
        let failure = runtime.registry.status(id).unwrap().last_failure.unwrap();
        assert_eq!(failure.reason.to_string(), why);
        std::mem::forget(failure);
        runtime.advance(ms(1));
    }
    assert_eq!(runtime.get(id), Some(7));
}

#[test]
fn wakers_that_panic_in_their_drops_do_not_end_the_supervisor() {
    let clock = VirtualClock::new();
    let registry = Registry::builder(2).unwrap().clock(clock.clone()).build();
    let [dep, app] = ["dep", "app"].map(|name| registry.register::<u32>(name).unwrap());
    let provider = registry.provide(dep).unwrap();
    let policy = exact().build_timeout(ms(10));
    let supervisor = registry.supervise(app).unwrap().restart_policy(policy);
    let mut run = Box::pin(supervisor.run(async move |build: Build<u32>| {
        build.wait_with_grace(dep, ms(50)).await.map(|dep| **dep)
    }));
    // In each state the second poll drops the waker of the first one.
    let mut poll_twice = || (0..2).for_each(|_| assert!(poll_with_bomb(&mut run).is_pending()));
    let state = || registry.status(app).unwrap().supervisor.unwrap().state;
    for value in 0..3 {
        poll_twice();
        assert_eq!(state(), SupervisorState::Building, "it waits, and its timer is paused");
        let running = publish(&provider, value);
        poll_twice();
        assert_eq!(*registry.get(app).unwrap(), value);
        running.fail("away");
        poll_twice();
        assert_eq!(clock.sleepers(), 1, "the grace period");
        clock.advance(ms(50));
        poll_twice();
        assert_eq!(registry.status(app).unwrap().generation, u64::from(value) + 1);
    }
    registry.close();
    assert!(poll_with_bomb(&mut run).is_ready());
}

#[test]
fn a_waker_that_panics_when_a_blocking_body_returns_hides_no_later_return() {
    struct Panics;
    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            panic!("a waker that panics");
        }
    }
    let (registry, [id]) = registry_of::<u32, 1>(["a"]);
    let (sender, receiver) = mpsc::channel::<()>();
    let policy = RestartPolicy::default().backoff(ms(1), ms(1));
    let supervisor = registry.supervise(id).unwrap().restart_policy(policy);
    let supervisor = supervisor.exclusive_body_blocking(move |_| {
        let _ = receiver.recv_timeout(LONG);
    });
    let mut run = Box::pin(supervisor.run(async |_| 1));
    let panics = Waker::from(Arc::new(Panics));
    for generation in 1..4 {
        assert!(poll_with(&mut run, &panics).is_pending());
        until("the service is ready", || {
            poll_once(&mut run).is_pending() && registry.get(id).is_ok()
        });
        assert!(poll_with(&mut run, &panics).is_pending());
        sender.send(()).unwrap();
        // The return of the body is noticed, although its thread has called this waker.
        until("the body has returned", || {
            poll_with(&mut run, &panics).is_pending()
                && registry.status(id).unwrap().generation == generation
        });
    }
    // A waker that does not panic is called.
    let thread = thread::spawn(move || pollster::block_on(run));
    registry.wait_ready(id).wait_blocking_timeout(LONG).unwrap();
    sender.send(()).unwrap();
    until("the last body has returned", || registry.status(id).unwrap().generation == 4);
    registry.close();
    drop(sender);
    thread.join().unwrap();
}

#[test]
fn an_error_that_panics_in_its_drop_does_not_disturb_the_close() {
    let mut runtime = TestRuntime::new();
    let id = runtime.service("a");
    let registry = runtime.registry.clone();
    runtime.supervise(id, exact(), move |_| {
        registry.close();
        async { Err::<u32, _>(Box::new(Bomb) as BoxError) }
    });
    runtime.run_until_idle();
    assert!(runtime.tasks.is_empty(), "the supervisor has not ended");
}

#[test]
fn a_builder_that_panics_has_failed_and_backs_off() {
    let mut runtime = TestRuntime::new();
    let id = runtime.service("a");
    runtime.supervise(id, exact(), |_| -> std::future::Ready<Result<u32, String>> {
        panic!("no port is free")
    });
    for (failures, delay) in (1..).zip([100, 200, 400]) {
        runtime.run_until_idle();
        let status = runtime.supervisor_status(id);
        assert_eq!((status.state, status.failures), (SupervisorState::BackingOff, failures));
        assert_eq!(status.next_try_in, Some(ms(delay)));
        runtime.advance(ms(delay));
    }
}
