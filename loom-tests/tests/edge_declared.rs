//! An edge is declared while a cascade of the dependency is in progress and the dependent is
//! published; and two opposite edges are declared at the same time.
//!
//! ```text
//! cascade:    condemn config | has it gained a dependent? | take down
//! declarer:                declare db -> config
//! db:                                                             ready
//! ```
//!
//! A late edge applies to later failures. Whether the cascade in progress takes `db` down, too, is
//! not specified.
//!
//! What must not happen: `db` is condemned and never taken down (A3); or an edge is declared and
//! not followed.
#![cfg(loom)]

use loom::thread::spawn;
use mainstay::error::{CycleError, DependencyError};
use mainstay_loom_tests::{join, model, read_state, services, try_publish};

/// Preemption bound: 3.
#[test]
fn an_edge_declared_during_a_cascade_is_followed_by_the_next_one() {
    model("an edge declared during a cascade is followed by the next one", Some(3), || {
        let (registry, [config, db, _], [config_provider, db_provider, probe_provider]) =
            services(&[(2, 1)]);
        let running = config_provider.start(&[]);
        let attempt = db_provider.attempt();

        let declarer = spawn({
            let registry = registry.clone();
            move || registry.depends(db).on(config).map(|_| ()).expect("no cycle")
        });
        let failer = spawn({
            let registry = registry.clone();
            move || registry.fail(config, "edited").unwrap()
        });
        let builder = spawn(move || try_publish(attempt, &[]));
        join(declarer);
        let cascade = join(failer);
        let db_running = join(builder);
        assert_eq!(read_state(&registry, config), (1, false));
        assert_eq!(read_state(&registry, db).0 as usize, cascade.failed + cascade.invalidated - 1);

        // Neither is condemned: at a service that is down an attempt begins, and one that is ready
        // can be used. This uses existing edges, because a new edge would add steps.
        let config_running = config_provider.try_build(&[]);
        assert!(config_running.is_some(), "A3: config stays condemned");
        let db_again = db_provider.try_build(&[]);
        assert!(probe_provider.try_build(&[db]).is_some(), "A3: db stays condemned");

        registry.fail(config, "again").unwrap();
        assert!(!read_state(&registry, db).1, "the declared edge is not followed");
        drop((running, db_running, config_running, db_again));
    });
}

#[test]
fn one_of_two_opposite_edges_is_refused() {
    model("one of two opposite edges is refused", None, || {
        let (registry, [a, b], _roles) = services(&[]);
        let declarers = [(a, b), (b, a)].map(|(dependent, dependency)| {
            let registry = registry.clone();
            spawn(move || registry.depends(dependent).on(dependency).map(drop))
        });
        let path = match declarers.map(join) {
            [Err(DependencyError::Cycle(CycleError { path })), Ok(())] => {
                assert_eq!(path, ["0", "1", "0"]);
                path
            }
            [Ok(()), Err(DependencyError::Cycle(CycleError { path }))] => {
                assert_eq!(path, ["1", "0", "1"]);
                path
            }
            both => panic!("not exactly one of the two was refused: {both:?}"),
        };
        // The dependency of the refused edge is the dependent of the other one.
        let [refused, kept] = [&path[0], &path[1]];
        assert_eq!(registry.list().get(kept).unwrap().dependencies[0].name, *refused);
        assert!(registry.list().get(refused).unwrap().dependencies.is_empty());
    });
}
