//! S4: a shutdown marks a service, and then checks its dependents once more. An attempt publishes
//! its edge, and then reads the mark.
//!
//! ```text
//! attempt:   publish d -> s | read the mark of s: the instance, or the error `Stopped` | publish d
//! shutdown:           no dependents | mark s | no dependents? then it is the turn of s: take down
//! ```
//!
//! What must not happen: the attempt gets the instance of `s`, and the shutdown does not find the
//! edge. Then `s` is taken down at its turn, and `d`, which was built on it, fails with it.
#![cfg(loom)]

use std::{
    future::{pending, ready},
    io,
    time::Duration,
};

use loom::thread::spawn;
use mainstay::{Registry, supervise::Build};
use mainstay_loom_tests::{PausedClock, join, model};
use mainstay_test_support::poll_once;

/// Preemption bound: 2.
#[test]
fn a_late_dependent_stops_first_or_gets_no_instance() {
    model("a late dependent stops first or gets no instance", Some(2), || {
        let registry = Registry::builder(2).unwrap().clock(PausedClock::new()).build();
        let s = registry.register::<u8>("s").unwrap();
        let d = registry.register::<u8>("d").unwrap();
        let supervisor = registry.supervise(s).unwrap();
        let mut run = Box::pin(supervisor.run(|_| ready(Ok::<_, io::Error>(7))));
        assert!(poll_once(&mut run).is_pending() && registry.get(s).is_ok());
        // The supervisor of `d` is not polled while the two threads race, so `d` cannot stop.
        let mut builds = 0;
        let mut run_d =
            Box::pin(registry.supervise(d).unwrap().run(move |build: Build<u8>| {
                builds += 1;
                let is_first = builds == 1;
                async move {
                    if is_first { build.wait_for(s).await.map(|_| 8) } else { pending().await }
                }
            }));

        let stopper = spawn({
            let registry = registry.clone();
            move || {
                let mut shutdown = Box::pin(registry.shutdown(Duration::from_secs(1)));
                assert!(poll_once(&mut shutdown).is_pending());
                shutdown
            }
        });
        assert!(poll_once(&mut run_d).is_pending() || registry.get(d).is_err());
        let shutdown = join(stopper);
        // The supervisor of `s` executes the command, if there is one.
        let _ = poll_once(&mut run);
        let failure = registry.status(d).unwrap().last_failure;
        assert!(
            failure.as_ref().is_none_or(|failure| failure.root != "s"),
            "S4: `s` was stopped before `d`, which was built on it: {failure:?}"
        );
        drop((shutdown, run, run_d));
    });
}
