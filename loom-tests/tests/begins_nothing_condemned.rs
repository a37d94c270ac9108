//! S1: no attempt begins, and nothing is built on a dependency, where a cascade is known to be on its way.
//!
//! `config <- db <- app`, with db down and app ready all the same (a declared edge need not be used).
//!
//! ```text
//! cascade:  condemn config, condemn db, condemn app                  | raise ...
//! prober:                      app is ready, but nothing builds on it:  db is condemned too; begin db
//! ```
//!
//! An attempt that begins at a condemned slot is doomed, not dangerous: the cascade will overtake it. So this
//! is about work done in vain. That the same look acquires what was condemned before the slot is another
//! matter, and I2 needs it: `overlapping_roots.rs`.
#![cfg(loom)]

use loom::thread::spawn;
use mainstay_loom_tests::{join, model, now, services};

/// Bound: 3.
#[test]
fn begin_waits_for_the_cascade() {
    model("begin at a condemned slot", Some(3), || {
        let (registry, [config, _, app, _], [config_role, db_role, app_role, probe_role]) =
            services(&[(1, 0), (2, 1), (3, 2)]);
        let running = (config_role.start(&[]), app_role.start(&[]));
        let probe = probe_role.attempt();

        let failer = spawn(move || registry.fail(config, "edited").unwrap());
        let prober = spawn(move || {
            let condemned = now(probe.wait_for(app)).is_none();
            let attempt = now(db_role.provider.begin()).map(Result::unwrap);
            if let (true, Some(attempt)) = (condemned, &attempt) {
                assert_eq!(attempt.generation(), 1, "S1: begun at a condemned slot");
            }
            drop(attempt);
            (probe, db_role)
        });
        join(failer);
        let ends = join(prober);
        drop((running, ends));
    });
}
