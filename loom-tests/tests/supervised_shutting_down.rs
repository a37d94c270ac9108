//! S4, S6: a shutdown notices each supervisor that has stopped, and ends. loom reports a lost
//! wake-up as a deadlock, because the clock is paused, so no timeout ever expires.
//!
//! ```text
//! supervisor:        receive the command: fail, drained, close hook, stopped | count a step, wake
//! shutdown:    mark, send the command | read the steps | listen | read the steps again, sleep
//! ```
//!
//! And when a close hook runs, its service is down, even if another thread's failure takes it down.
//!
//! ```text
//! supervisor:           fail: another cascade is in progress   close hook: is the service down?
//! failer:      condemn                                                        take down
//! ```
//!
//! What must not happen: the step is counted between the check and the start of listening, and
//! nothing wakes the shutdown; or the supervisor misses its command, and its service stays ready.
#![cfg(loom)]

use std::{future::ready, io, time::Duration};

use loom::{
    future::block_on,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::spawn,
};
use mainstay::{Registry, ServiceId, supervise::Closing};
use mainstay_loom_tests::{PausedClock, join, model};
use mainstay_test_support::poll_once;

fn registry_with_one_service() -> (Registry, ServiceId<u8>) {
    let registry = Registry::builder(1).unwrap().clock(PausedClock::new()).build();
    let x = registry.register("x").unwrap();
    (registry, x)
}

/// Preemption bound: 2.
#[test]
fn shutdown_ends_after_its_only_supervisor_has_stopped() {
    model("shutdown ends after its only supervisor has stopped", Some(2), || {
        let (registry, x) = registry_with_one_service();
        let mut run =
            Box::pin(registry.supervise(x).unwrap().run(|_| ready(Ok::<_, io::Error>(7))));
        // The service is published, and then its supervisor waits.
        assert!(poll_once(&mut run).is_pending() && registry.get(x).is_ok());

        let supervisor = spawn(move || block_on(run));
        let stopper = spawn({
            let registry = registry.clone();
            move || block_on(registry.shutdown(Duration::from_secs(1)))
        });
        join(supervisor);
        let shutdown = join(stopper);
        assert!(shutdown.stop_timeouts.is_empty(), "{shutdown}");
        assert!(registry.is_closed() && registry.get(x).is_err(), "S4: the service is still ready");
    });
}

/// Preemption bound: 3.
#[test]
fn a_close_hook_runs_after_its_service_is_down() {
    model("a close hook runs after its service is down", Some(3), || {
        let (registry, x) = registry_with_one_service();
        let is_down = Arc::new(AtomicBool::new(true));
        let (found, registry_of_hook) = (Arc::clone(&is_down), registry.clone());
        // A panic here would end only the close hook, so the result is stored.
        let close_hook = move |_: Closing<u8>| {
            found.store(registry_of_hook.get(x).is_err(), Relaxed);
            ready(())
        };
        let supervisor = registry.supervise(x).unwrap().on_close(close_hook);
        let mut run = Box::pin(supervisor.run(|_| ready(Ok::<_, io::Error>(7))));
        let mut shutdown = Box::pin(registry.shutdown(Duration::from_secs(1)));
        assert!(poll_once(&mut run).is_pending());
        // It is the turn of the service to stop, and its supervisor does not know it yet.
        assert!(poll_once(&mut shutdown).is_pending());

        let supervisor = spawn(move || block_on(run));
        let failer = spawn({
            let registry = registry.clone();
            move || {
                registry.fail(x, "another failure").unwrap();
            }
        });
        join(supervisor);
        join(failer);
        assert!(is_down.load(Relaxed), "S4: the service is ready while its close hook runs");
        let shutdown = block_on(shutdown);
        assert!(shutdown.stop_timeouts.is_empty(), "{shutdown}");
    });
}
