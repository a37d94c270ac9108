//! S4, S6: the turns of a supervised service in restarts that follow each other, and the end of its
//! supervisor at its turn. The clock is paused, so no timeout but one of zero ever expires.
//!
//! ```text
//! plan:        note the turn, request the end (lock) | limit over: fail, release | next turn
//! supervisor:        take the request, stop, report the result | build, publish
//! supervisor:  remove, note that it is not running | look for a request
//! ```
//!
//! What must not happen: the result of an expired turn is taken for that of the next one, so that a
//! command takes the service down after its restart is over; or a supervisor ends between the
//! search of the plan and its request, and the restart waits for its limit.
#![cfg(loom)]

use std::{future::ready, pin::Pin, time::Duration};

use loom::thread::spawn;
use mainstay::{
    Registry, ServiceId,
    supervise::{RestartPolicy, SupervisorState},
};
use mainstay_loom_tests::{PausedClock, join, model};
use mainstay_test_support::poll_once;

type Run = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A service that is up, and its supervisor.
fn supervised(policy: RestartPolicy) -> (Registry, ServiceId<u8>, Run) {
    let registry = Registry::builder(1).unwrap().clock(PausedClock::new()).build();
    let x = registry.register("x").unwrap();
    let supervisor = registry.supervise(x).unwrap().restart_policy(policy);
    let mut run: Run = Box::pin(supervisor.run(|_| ready(7)));
    assert!(poll_once(&mut run).is_pending() && registry.get(x).is_ok());
    (registry, x, run)
}

/// Preemption bound: 1.
#[test]
fn nothing_takes_a_service_down_after_its_restart_is_over() {
    model("nothing takes a service down after its restart is over", Some(1), || {
        let policy = RestartPolicy::default().drain_timeout(Duration::ZERO);
        let (registry, x, mut run) = supervised(policy);
        let supervisor = spawn(move || {
            for _ in 0..2 {
                assert!(poll_once(&mut run).is_pending());
            }
            run
        });
        let operator = spawn({
            let registry = registry.clone();
            move || {
                // Their limits are over at once.
                for why in ["first", "second"] {
                    assert!(poll_once(&mut registry.restart(x, why)).is_ready());
                }
                registry.status(x).unwrap().generation
            }
        });
        let (mut run, generation) = (join(supervisor), join(operator));
        for _ in 0..3 {
            assert!(poll_once(&mut run).is_pending());
        }
        let status = registry.status(x).unwrap();
        assert_eq!(status.generation, generation, "S4: a command came after its restart");
        // An attempt that a turn has ended is followed by a delay.
        let state = status.supervisor.unwrap().state;
        assert!(matches!(state, SupervisorState::Up | SupervisorState::BackingOff), "{state}");
    });
}

/// Preemption bound: 2.
#[test]
fn a_supervisor_that_is_dropped_at_its_turn_is_not_waited_for() {
    model("a supervisor that is dropped at its turn is not waited for", Some(2), || {
        let (registry, x, run) = supervised(RestartPolicy::default());
        let supervisor = spawn(move || drop(run));
        let operator = spawn({
            let registry = registry.clone();
            move || {
                let mut restart = registry.restart(x, "edited");
                let ended = poll_once(&mut restart).is_ready();
                (restart, ended)
            }
        });
        join(supervisor);
        let (mut restart, ended) = join(operator);
        assert!(ended || poll_once(&mut restart).is_ready(), "S6: the restart waits for its limit");
        assert!(registry.get(x).is_err());
    });
}
