//! A reader that finds a service failed also finds the cause: the root and the reason of that
//! cascade, not those of an older one.
//!
//! ```text
//! cascade:   condemn config, store the cause at config, condemn db, fence
//!              | store failed_by of db, take down db | the same for config
//! observer:                          read db: it is down | load its failed_by, the cause at config
//! ```
//!
//! What must not happen: a slot is taken down before its cause is stored, or a thread finds the
//! slot taken down without acquiring what was written before.
#![cfg(loom)]

use loom::thread::spawn;
use mainstay::{Failure, Registry, Running, error::ReadyError};
use mainstay_loom_tests::{
    Id, TestProvider, Value, join, model, now_or_never, read_state, services,
};

/// The root, its generation, and the reason.
fn cause(failure: &Failure) -> (&str, u64, String) {
    (&failure.root, failure.root_generation.get(), failure.reason.to_string())
}

/// Starts `config` in generation 1 and `db`, which is built from it, in generation 2: both have
/// failed before.
fn start_after_older_failures(
    registry: &Registry,
    [config, db]: [Id; 2],
    [config_provider, db_provider]: &[TestProvider; 2],
) -> (Running<Value>, Running<Value>) {
    let first = (config_provider.start(&[]), db_provider.start(&[config]));
    registry.fail(config, "old").unwrap();
    let second = (config_provider.start(&[]), db_provider.start(&[config]));
    registry.fail(db, "older").unwrap();
    let third = db_provider.start(&[config]);
    drop((first, second.1));
    (second.0, third)
}

#[test]
fn a_reader_that_finds_a_failure_finds_its_cause() {
    model("a reader that finds a failure finds its cause", None, || {
        let (registry, ids @ [config, db], providers) = services(&[(1, 0)]);
        let running = start_after_older_failures(&registry, ids, &providers);

        let failer = spawn({
            let registry = registry.clone();
            move || registry.fail(config, "new").unwrap()
        });
        let observer = spawn({
            let registry = registry.clone();
            move || {
                if read_state(&registry, db) == (3, false) {
                    let failure =
                        registry.status(db).unwrap().last_failure.expect("the service has failed");
                    assert_eq!(cause(&failure), ("0", 1, "new".into()), "the cause of db");
                    assert_eq!(failure.generation, 2);
                }
                if read_state(&registry, config) == (2, false) {
                    let failure = registry
                        .status(config)
                        .unwrap()
                        .last_failure
                        .expect("the service has failed");
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

/// The cause that the provider receives from `replace`, which checks the state itself.
#[test]
fn a_refused_replacement_returns_the_cause() {
    model("a refused replacement returns the cause", None, || {
        let (registry, ids @ [config, _], providers) = services(&[(1, 0)]);
        let (config_running, db_running) = start_after_older_failures(&registry, ids, &providers);

        let failer = spawn(move || registry.fail(config, "new").unwrap());
        let observer = spawn(move || {
            if let Err(error) = db_running.replace(Value::new(1)) {
                let failure = error.missing.failure().expect("the instance has failed");
                assert_eq!(cause(failure), ("0", 1, "new".into()), "the cause of db");
            }
            db_running
        });
        join(failer);
        drop((config_running, join(observer)));
    });
}

/// The cause that an invalidated attempt returns, whichever of its steps has failed.
#[test]
fn an_invalidated_attempt_returns_the_cause() {
    model("an invalidated attempt returns the cause", None, || {
        let (registry, ids @ [config, db], providers) = services(&[(1, 0)]);
        let running = start_after_older_failures(&registry, ids, &providers);
        registry.fail(db, "the last one").unwrap();
        let attempt = providers[1].attempt();

        let failer = spawn(move || registry.fail(config, "new").unwrap());
        let publisher = spawn(move || match attempt.ready(Value::new(1)) {
            Ok(running) => Some(running),
            Err(ReadyError::Invalidated { failure, .. }) => {
                assert_eq!(cause(&failure), ("0", 1, "new".into()), "the cause of db");
                None
            }
            Err(error) => unreachable!("{error}"),
        });
        join(failer);
        drop((join(publisher), running, providers));
    });
}

/// Two cascades overlap, and the cause of one of them is reported. The cascade of `db` may begin
/// when the other one has condemned `db` already; it then says that it ends the generation after
/// that one. (Preemption bound: 2.)
#[test]
fn overlapping_cascades_report_one_of_their_causes() {
    model("overlapping cascades report one of their causes", Some(2), || {
        let (registry, ids @ [config, db], providers) = services(&[(1, 0)]);
        let (config_running, db_running) = start_after_older_failures(&registry, ids, &providers);

        let failers = [(config, "one"), (db, "two")].map(|(root, reason)| {
            let registry = registry.clone();
            spawn(move || registry.fail(root, reason).map(drop).unwrap())
        });
        let observer = spawn(move || {
            if let Some(Ok(failure)) = now_or_never(db_running.failed()) {
                let (root, generation, reason) = cause(&failure);
                assert!(
                    matches!((root, generation, &*reason), ("0", 1, "one") | ("1", 2 | 3, "two")),
                    "neither cause: {failure:?}"
                );
            }
            db_running
        });
        let [(), ()] = failers.map(join);
        drop((config_running, join(observer)));
    });
}

/// In the end the cause is that of the later failure, whichever thread was slower.
#[test]
fn two_failures_of_one_service_leave_the_later_cause() {
    model("two failures of one service leave the later cause", None, || {
        let (registry, [x], [provider]) = services(&[]);
        let running = provider.start(&[]);

        let failers = [registry.clone(), registry.clone()]
            .map(|registry| spawn(move || registry.fail(x, "enough").map(drop).unwrap()));
        let [(), ()] = failers.map(join);
        let status = registry.status(x).unwrap();
        let failure = status.last_failure.expect("the service has failed");
        let next = failure.root_generation.get() + 1;
        assert_eq!(status.generation, next, "the cause of an older failure");
        drop(running);
    });
}

/// Of two roots, `x` depends on `y`, and both are down. An attempt begins at `x`, so a later pass
/// condemns `x`, and the cause is stored after that. A failure of `x` may come in between. In the
/// end the cause is that of the later failure. (Preemption bound: 2.)
#[test]
fn a_cause_that_is_stored_late_leaves_the_later_one() {
    model("a cause that is stored late leaves the later one", Some(2), || {
        let (registry, [y, x], [_y_provider, x_provider]) = services(&[(1, 0)]);

        let roots = spawn({
            let registry = registry.clone();
            move || registry.fail_all([y, x], "both").map(drop).unwrap()
        });
        let beginner = spawn(move || (now_or_never(x_provider.begin()), x_provider));
        let failer = spawn({
            let registry = registry.clone();
            move || registry.fail(x, "alone").map(drop).unwrap()
        });
        join(roots);
        join(failer);
        let attempt = join(beginner);
        let status = registry.status(x).unwrap();
        if let Some(failure) = status.last_failure {
            let next = failure.root_generation.get() + 1;
            assert_eq!(status.generation, next, "the cause of an older failure");
        }
        drop(attempt);
    });
}

/// Two attempts of one generation fail, one after the other. In the end the reason is the second
/// one.
#[test]
fn two_failed_attempts_leave_the_reason_of_the_second() {
    model("two failed attempts leave the reason of the second", None, || {
        let (registry, [x], [provider]) = services(&[]);
        let first = provider.attempt();
        let first_failure = spawn(move || first.fail("first").unwrap());
        let next = spawn(move || {
            if let Some(Ok(second)) = now_or_never(provider.begin()) {
                second.fail("second").unwrap();
                return (true, provider);
            }
            (false, provider)
        });
        join(first_failure);
        let (second_began, provider) = join(next);
        let last = registry.status(x).unwrap().last_failure.expect("an attempt has failed");
        let expected = if second_began { "second" } else { "first" };
        assert_eq!(last.reason.to_string(), expected, "the reason of an earlier attempt");
        drop(provider);
    });
}
