//! S4, S6: a shutdown hears of each supervisor that has stopped, and ends. A lost wake-up is a deadlock, which loom reports: the
//! clock stands, so that no time is ever over.
//!
//! ```text
//! supervisor:             told: fail, hook, drained, "stopped" | one step more, notify
//! shutdown:    mark, tell,   steps?  listen, steps?                                   sleep
//! ```
//!
//! What must not be: the step falls between the look and the listening, and nobody wakes the shutdown; or the supervisor
//! misses what it is told, and stays up.

use std::{
    future::{Future, pending, ready},
    io,
    task::{Context, Waker},
    time::{Duration, Instant},
};

use loom::{future::block_on, thread::spawn};
use mainstay::{Clock, Registry, Sleep};
use mainstay_loom_tests::{join, model};

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

/// Bound: 2.
#[test]
fn of_one() {
    model("shutting down, of one", Some(2), || {
        let registry = Registry::builder(1).unwrap().clock(Stands(Instant::now())).build();
        let x = registry.register::<u8>("x").unwrap();
        let mut run = Box::pin(registry.supervise(x).unwrap().run(|_| ready(Ok::<_, io::Error>(7))));
        // It comes up, and then waits.
        let up = run.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(up.is_pending() && registry.get(x).is_ok());

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
