//! What other crates have deferred to the default collector of crossbeam-epoch runs in no call of
//! this crate: it might run in the middle of a cascade.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use mainstay::Registry;

use crate::support::publish;

/// Enough pins for many collections: crossbeam-epoch collects every 128 pins.
const FAILURES: usize = 1_000;

#[test]
fn no_call_runs_what_others_have_deferred() {
    let run_here = Arc::new(AtomicUsize::new(0));
    let registry = Registry::with_capacity(2).unwrap();
    let [config, db] = ["config", "db"].map(|name| registry.register::<u8>(name).unwrap());
    registry.depends(db).on(config).unwrap();
    let providers = [config, db].map(|id| registry.provide(id).unwrap());

    let caller = thread::current().id();
    for _ in 0..FAILURES {
        // On another thread, so that this one has no reason to collect it.
        thread::scope(|scope| {
            scope.spawn(|| {
                let run_here = Arc::clone(&run_here);
                let pin = crossbeam_epoch::pin();
                pin.defer(move || {
                    if thread::current().id() == caller {
                        run_here.fetch_add(1, Ordering::Relaxed);
                    }
                });
                pin.flush();
            });
        });
        let running = (publish(&providers[0], 1), publish(&providers[1], 2));
        registry.fail(config, "changed").unwrap();
        drop(running);
    }
    assert_eq!(run_here.load(Ordering::Relaxed), 0);
}
