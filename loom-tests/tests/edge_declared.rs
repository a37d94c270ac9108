//! Declaring an edge while a cascade of the dependency runs and the dependent comes up; and declaring both
//! ways round at once.
//!
//! ```text
//! cascade:    condemn config | has it gained anybody? | raise
//! declarer:                db depends on config
//! db:                                                         ready
//! ```
//!
//! A late edge concerns the failures after it: whether the cascade that runs takes db down, too, is open.
//!
//! What must not be: a db that is condemned, and never raised (S3); or an edge that is declared, and not
//! followed.
#![cfg(loom)]

use loom::thread::spawn;
use mainstay::{Cycle, DependencyError};
use mainstay_loom_tests::{finish, join, look, model, services};

/// Bound: 3.
#[test]
fn against_a_failure() {
    model("declared, against a failure", Some(3), || {
        let (registry, [config, db, _], [config_role, db_role, probe_role]) = services(&[(2, 1)]);
        let running = config_role.start(&[]);
        let attempt = db_role.attempt();

        let declarer = spawn({
            let registry = registry.clone();
            move || registry.add_dependency(db, config).expect("no cycle")
        });
        let failer = spawn({
            let registry = registry.clone();
            move || registry.fail(config, "edited").unwrap()
        });
        let builder = spawn(move || finish(attempt, &[]));
        join(declarer);
        let fell = join(failer);
        let db_runs = join(builder);
        assert_eq!(look(&registry, config), (1, false));
        assert_eq!(look(&registry, db).0 as usize, fell.went_down + fell.overtaken - 1);

        // Not condemned: what is down can begin, what is ready can be built on. By edges that are there already,
        // as a new one would be one more step.
        let config_runs = config_role.try_build(&[]);
        assert!(config_runs.is_some(), "S3: config stays condemned");
        let db_again = db_role.try_build(&[]);
        assert!(probe_role.try_build(&[db]).is_some(), "S3: db stays condemned");

        registry.fail(config, "again").unwrap();
        assert!(!look(&registry, db).1, "the declared edge is not followed");
        drop((running, db_runs, config_runs, db_again));
    });
}

#[test]
fn both_ways_at_once() {
    model("declared, both ways at once", None, || {
        let (registry, [a, b], _roles) = services(&[]);
        let declarers = [(a, b), (b, a)].map(|(dependent, dependency)| {
            let registry = registry.clone();
            spawn(move || registry.add_dependency(dependent, dependency))
        });
        let path = match declarers.map(join) {
            [Err(DependencyError::Cycle(Cycle { path })), Ok(())] => {
                assert_eq!(path, ["0", "1", "0"]);
                path
            }
            [Ok(()), Err(DependencyError::Cycle(Cycle { path }))] => {
                assert_eq!(path, ["1", "0", "1"]);
                path
            }
            both => panic!("not one of the two was refused: {both:?}"),
        };
        // The refused one's dependency is the other's dependent.
        let [refused, kept] = [&path[0], &path[1]];
        assert_eq!(registry.list().get(kept).unwrap().dependencies[0].name, *refused);
        assert!(registry.list().get(refused).unwrap().dependencies.is_empty());
    });
}
