//! A1: while a slot is condemned, no attempt begins at it, and nothing is built from its instance.
//!
//! The edges are `app -> db -> config`. `db` is starting and `app` is ready nevertheless, because a
//! declared edge need not be used.
//!
//! ```text
//! cascade:  condemn config, condemn db, condemn app |                          | take down ...
//! prober:                      wait_for(app): app is ready, but condemned.
//!                              So db is condemned, too. Its attempt ends: begin must wait
//! ```
//!
//! An attempt that begins at a condemned slot causes no wrong result, because the cascade
//! invalidates it. So this model is about work that is done in vain. The same check also acquires
//! what was condemned before the slot, which I2 needs: see `overlapping_roots.rs`.
#![cfg(loom)]

use loom::thread::spawn;
use mainstay_loom_tests::{join, model, now_or_never, services};

/// Preemption bound: 3.
#[test]
fn no_attempt_begins_at_a_condemned_slot() {
    model("no attempt begins at a condemned slot", Some(3), || {
        let (
            registry,
            [config, _, app, _],
            [config_provider, db_provider, app_provider, probe_provider],
        ) = services(&[(1, 0), (2, 1), (3, 2)]);
        let running = (config_provider.start(&[]), app_provider.start(&[]));
        let (probe, ended) = (probe_provider.attempt(), db_provider.attempt());

        let failer = spawn(move || registry.fail(config, "edited").unwrap());
        let prober = spawn(move || {
            let condemned = now_or_never(probe.wait_for(app)).is_none();
            drop(ended);
            let attempt = now_or_never(db_provider.begin()).map(Result::unwrap);
            if let (true, Some(attempt)) = (condemned, &attempt) {
                assert_eq!(attempt.generation(), 1, "A1: the attempt began at a condemned slot");
            }
            drop(attempt);
            (probe, db_provider)
        });
        join(failer);
        let returned = join(prober);
        drop((running, returned));
    });
}
