//! S4, S6: a shutdown hears of each supervisor that has stopped, and ends. A lost wake-up is a deadlock, which loom reports: the
//! clock stands, so that no time is ever over.
//!
//! ```text
//! supervisor:             told: fail, hook, drained, "stopped" | one step more, notify
//! shutdown:    mark, tell,   steps?  listen, steps?                                   sleep
//! ```
//!
//! And when a hook runs, its service is down, also where it is another's failure that takes it down.
//!
//! ```text
//! supervisor:             fail: somebody does already     hook: is it gone?
//! failer:       condemn                                                         raise
//! ```
//!
//! What must not be: the step falls between the look and the listening, and nobody wakes the shutdown; or the supervisor
//! misses what it is told, and stays up.
#![cfg(loom)]

use std::{
    future::{pending, ready},
    io,
    time::{Duration, Instant},
};

use loom::{
    future::block_on,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::spawn,
};
use mainstay::{Clock, Registry, ServiceId, Sleep};
use mainstay_loom_tests::{join, model};
use mainstay_test_support::poll_once;

/// A clock that stands.
struct Stands(Instant);

impl Clock for Stands {
    fn now(&self) -> Instant {
        self.0
    }

    fn sleep_until(&self, _: Instant) -> Sleep {
        Box::pin(pending())
    }
}

fn one() -> (Registry, ServiceId<u8>) {
    let registry = Registry::builder(1).unwrap().clock(Stands(Instant::now())).build();
    let x = registry.register("x").unwrap();
    (registry, x)
}

/// Bound: 2.
#[test]
fn of_one() {
    model("shutting down, of one", Some(2), || {
        let (registry, x) = one();
        let mut run =
            Box::pin(registry.supervise(x).unwrap().run(|_| ready(Ok::<_, io::Error>(7))));
        // It comes up, and then waits.
        assert!(poll_once(&mut run).is_pending() && registry.get(x).is_ok());

        let supervisor = spawn(move || block_on(run));
        let stopper = spawn({
            let registry = registry.clone();
            move || block_on(registry.shutdown(Duration::from_secs(1)))
        });
        join(supervisor);
        let shutdown = join(stopper);
        assert!(shutdown.hung.is_empty(), "{shutdown}");
        assert!(registry.is_closed() && registry.get(x).is_err(), "S4: it is left up");
    });
}

/// Bound: 3.
#[test]
fn while_it_fails() {
    model("shutting down, while it fails", Some(3), || {
        let (registry, x) = one();
        let gone = Arc::new(AtomicBool::new(true));
        let (seen, there) = (Arc::clone(&gone), registry.clone());
        // A panic would only end the hook.
        let hook = move |_| {
            seen.store(there.get(x).is_err(), Relaxed);
            ready(())
        };
        let supervisor = registry.supervise(x).unwrap().on_stop(Duration::from_secs(1), hook);
        let mut run = Box::pin(supervisor.run(|_| ready(Ok::<_, io::Error>(7))));
        let mut shutdown = Box::pin(registry.shutdown(Duration::from_secs(1)));
        assert!(poll_once(&mut run).is_pending());
        // Its turn has come, and it does not know of it yet.
        assert!(poll_once(&mut shutdown).is_pending());

        let supervisor = spawn(move || block_on(run));
        let failer = spawn({
            let registry = registry.clone();
            move || {
                registry.fail(x, "beside").unwrap();
            }
        });
        join(supervisor);
        join(failer);
        assert!(gone.load(Relaxed), "S4: it is there while its hook runs");
        let shutdown = block_on(shutdown);
        assert!(shutdown.hung.is_empty(), "{shutdown}");
    });
}
