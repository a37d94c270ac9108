//! Whoever sees a service failed can tell why: the root and the reason of that cascade, not those of an
//! older one.
//!
//! ```text
//! cascade:   cause at the root | condemn | failed_by db, raise db | failed_by config, raise config
//! observer:                                                       db is down: failed_by, and the root's cause
//! ```
//!
//! What must not be: a slot is raised before what is to be told of it is there; or somebody learns that it was
//! raised without acquiring what came before.
#![cfg(loom)]

use loom::thread::spawn;
use mainstay::{Failure, ReadyError, Registry, Running};
use mainstay_loom_tests::{Id, Rests, Role, join, look, model, now, plain, services};

/// The root, its generation, and the reason.
fn cause(failure: &Failure) -> (&str, u64, String) {
    (&failure.root, failure.root_generation, failure.reason.to_string())
}

/// Runs `db` on `config`, both with older failures behind them: `config` in generation 1, `db` in 2.
fn grown(
    registry: &Registry,
    [config, db]: [Id; 2],
    [config_role, db_role]: &[Role; 2],
) -> (Running<Rests>, Running<Rests>) {
    let first = (config_role.start(&[]), db_role.start(&[config]));
    registry.fail(config, "old").unwrap();
    let second = (config_role.start(&[]), db_role.start(&[config]));
    registry.fail(db, "older than it").unwrap();
    let third = db_role.start(&[config]);
    drop((first, second.1));
    (second.0, third)
}

#[test]
fn seen_by_a_reader() {
    model("cause, seen by a reader", None, || {
        let (registry, ids @ [config, db], roles) = services(&[(1, 0)]);
        let running = grown(&registry, ids, &roles);

        let failer = spawn({
            let registry = registry.clone();
            move || registry.fail(config, "new").unwrap()
        });
        let observer = spawn({
            let registry = registry.clone();
            move || {
                if look(&registry, db) == (3, false) {
                    let failure = registry.status(db).unwrap().last_failure.expect("it has failed");
                    assert_eq!(cause(&failure), ("0", 1, "new".into()), "the cause of db");
                    assert_eq!(failure.generation, 2);
                }
                if look(&registry, config) == (2, false) {
                    let failure =
                        registry.status(config).unwrap().last_failure.expect("it has failed");
                    assert_eq!(cause(&failure), ("0", 1, "new".into()), "the cause of config");
                    assert_eq!(failure.generation, 1);
                }
            }
        });
        join(failer);
        join(observer);
        drop(running);
    });
}

/// As its provider is told, which looks at the state itself.
#[test]
fn told_to_the_provider() {
    model("cause, told to the provider", None, || {
        let (registry, ids @ [config, _], roles) = services(&[(1, 0)]);
        let (config_runs, db_runs) = grown(&registry, ids, &roles);

        let failer = spawn(move || registry.fail(config, "new").unwrap());
        let observer = spawn(move || {
            if let Err(error) = db_runs.replace(plain(1)) {
                assert_eq!(cause(&error.failure), ("0", 1, "new".into()), "the cause of db");
            }
            db_runs
        });
        join(failer);
        drop((config_runs, join(observer)));
    });
}

/// As an attempt is told that was overtaken, whichever of its steps it was that failed.
#[test]
fn told_to_the_attempt() {
    model("cause, told to the attempt", None, || {
        let (registry, ids @ [config, db], roles) = services(&[(1, 0)]);
        let running = grown(&registry, ids, &roles);
        registry.fail(db, "the last one").unwrap();
        let attempt = roles[1].attempt();

        let failer = spawn(move || registry.fail(config, "new").unwrap());
        let publisher = spawn(move || match attempt.ready(plain(1)) {
            Ok(running) => Some(running),
            Err(ReadyError::Overtaken { failure, .. }) => {
                assert_eq!(cause(&failure), ("0", 1, "new".into()), "the cause of db");
                None
            }
            Err(error) => unreachable!("{error}"),
        });
        join(failer);
        drop((join(publisher), running, roles));
    });
}

/// Two cascades that overlap: one of the two. That of db may come when the other has condemned db already, and
/// then says that it ends the generation after that. (Bound: 2.)
#[test]
fn of_overlapping_cascades() {
    model("cause, of overlapping cascades", Some(2), || {
        let (registry, ids @ [config, db], roles) = services(&[(1, 0)]);
        let (config_runs, db_runs) = grown(&registry, ids, &roles);

        let failers = [(config, "one"), (db, "two")].map(|(root, reason)| {
            let registry = registry.clone();
            spawn(move || registry.fail(root, reason).map(drop).unwrap())
        });
        let observer = spawn(move || {
            if let Some(Ok(failure)) = now(db_runs.failed()) {
                let (root, generation, reason) = cause(&failure);
                assert!(
                    matches!((root, generation, &*reason), ("0", 1, "one") | ("1", 2 | 3, "two")),
                    "neither cause: {failure:?}"
                );
            }
            db_runs
        });
        let [(), ()] = failers.map(join);
        drop((config_runs, join(observer)));
    });
}

/// Two failures of one service: in the end the cause is that of the later one, whoever was slower.
#[test]
fn of_one_service_twice() {
    model("cause, of one service twice", None, || {
        let (registry, [x], [role]) = services(&[]);
        let running = role.start(&[]);

        let failers = [registry.clone(), registry.clone()]
            .map(|registry| spawn(move || registry.fail(x, "enough").map(drop).unwrap()));
        let [(), ()] = failers.map(join);
        let status = registry.status(x).unwrap();
        let failure = status.last_failure.expect("it has failed");
        assert_eq!(failure.root_generation + 1, status.generation, "the cause of an older failure");
        drop(running);
    });
}

/// Two attempts of one generation, one after the other, are given back: the last word is the second's.
#[test]
fn of_two_attempts() {
    model("cause, of two attempts", None, || {
        let (registry, [x], [role]) = services(&[]);
        let first = role.attempt();
        let gives_back = spawn(move || first.fail("first").unwrap());
        let next = spawn(move || {
            if let Some(Ok(second)) = now(role.provider.begin()) {
                second.fail("second").unwrap();
                return (true, role);
            }
            (false, role)
        });
        join(gives_back);
        let (begun, role) = join(next);
        let last = registry.status(x).unwrap().last_failure.expect("one was given back");
        let expected = if begun { "second" } else { "first" };
        assert_eq!(last.reason.to_string(), expected, "the reason of an earlier attempt");
        drop(role);
    });
}
