//! A blocking body runs on a thread of its own: no two bodies of a service run at the same time,
//! and the supervisor notices its return. A body that returns because of an end has not failed its
//! instance (S9). loom reports a lost wake-up as a deadlock, because the clock is paused, so no
//! timeout ever expires.
//!
//! ```text
//! supervisor:  start the thread | listen, check: not returned, sleep | begin, publish, start
//! body:        take the function | run | put it back | notify
//! failer:                  fail: notifies the body, wakes the supervisor
//!
//! supervisor:  check: up | poll the async body: it must stop, and returns | check again
//! restarter:        ask for the end
//! ```
//!
//! What must not happen: the function is put back between the check and the start of listening,
//! and nothing wakes the supervisor; or the supervisor starts a second body before the first one
//! has returned.
#![cfg(loom)]

use std::future::ready;

use loom::{
    future::block_on,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread::spawn,
};
use mainstay::{
    Registry,
    supervise::{Live, RestartPolicy},
};
use mainstay_loom_tests::{PausedClock, join, model};
use mainstay_test_support::poll_once;

/// Preemption bound: 1.
#[test]
fn a_body_that_is_notified_is_followed_by_one_of_the_next_instance() {
    model("a body that is notified is followed by one of the next instance", Some(1), || {
        let registry = Registry::builder(1).unwrap().clock(PausedClock::new()).build();
        let x = registry.register::<u8>("x").unwrap();
        let (running, bodies) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        // The thread of the second body may be the last owner of the registry. loom sees what
        // orders that drop, because it sees the counts of its own `Arc`.
        let last = Arc::new(Mutex::new(None));
        // No backoff: the first failure follows a stable time.
        let policy = RestartPolicy::default().reset_after(std::time::Duration::ZERO);
        let supervisor = registry.supervise(x).unwrap().restart_policy(policy).body_blocking({
            let (running, bodies) = (Arc::clone(&running), Arc::clone(&bodies));
            let last = Arc::clone(&last);
            move |live: Live<u8>| {
                assert_eq!(running.fetch_add(1, SeqCst), 0, "two bodies at the same time");
                if bodies.fetch_add(1, SeqCst) == 1 {
                    *last.lock().unwrap() = Some(live.clone());
                    live.registry().close();
                }
                live.stopping().wait_blocking().unwrap();
                running.fetch_sub(1, SeqCst);
            }
        });
        let mut run = Box::pin(supervisor.run(|_| ready(7)));
        // The service is published, and its body is started.
        assert!(poll_once(&mut run).is_pending() && registry.get(x).is_ok());

        let supervisor = spawn(move || block_on(run));
        let failer = spawn(move || {
            registry.fail(x, "edited").unwrap();
        });
        join(supervisor);
        join(failer);
        // The second body has closed the registry. It may still run: no supervisor waits for a body
        // after a close.
        assert_eq!(bodies.load(SeqCst), 2);
    });
}

/// Preemption bound: 2.
#[test]
fn an_async_body_that_returns_because_of_an_end_is_no_failure() {
    model("an async body that returns because of an end is no failure", Some(2), || {
        let registry = Registry::builder(1).unwrap().clock(PausedClock::new()).build();
        let x = registry.register::<u8>("x").unwrap();
        let supervisor = registry.supervise(x).unwrap().body(async |live: Live<u8>| {
            let _ = live.stopping().await;
            Err::<(), _>("the body has ended")
        });
        let planned = Arc::new(AtomicUsize::new(0));
        let mut run = Box::pin(supervisor.run({
            let planned = Arc::clone(&planned);
            async move |build| {
                let Some(last) = build.last_failure() else { return 7 };
                planned.fetch_add(usize::from(last.is_planned()), SeqCst);
                // There is no third build: the body of this instance ends at once.
                build.registry().close();
                7
            }
        }));
        // The service is published, and its body waits.
        assert!(poll_once(&mut run).is_pending() && registry.get(x).is_ok());

        let supervisor = spawn(move || block_on(run));
        let restarter = {
            let registry = registry.clone();
            spawn(move || drop(poll_once(registry.restart(x, "edited"))))
        };
        join(supervisor);
        join(restarter);
        assert_eq!(planned.load(SeqCst), 1, "S9: the return of the body has failed the instance");
    });
}
