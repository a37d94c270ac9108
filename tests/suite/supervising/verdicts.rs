//! What a builder, a body or a reader says about the next build.
//!
//! - A permanent error is not tried again by time, but after a change of an input, or a reset. It
//!   is found in the chain of sources, also below `Box<dyn Error>`, anyhow and eyre.
//! - A completed service is ready without a body, and is built again with its dependencies.
//! - A planned failure is not counted, and is followed by no backoff.
//! - An error that means that another service was not there is not counted. The service waits for
//!   that one.

use std::{
    fmt,
    future::pending,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::runtime::{BoxError, TestRuntime, exact, fails, ms};
use mainstay::{
    Registry, ServiceId,
    error::{DependencyUnavailable, GetError, WaitForError},
    supervise::{Build, Completed, Permanent, Planned, SupervisorState},
};

const HOUR: std::time::Duration = ms(3_600_000);

/// An error of a user, with a source.
#[derive(Debug)]
struct Context(BoxError);

impl fmt::Display for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("in the builder")
    }
}

impl std::error::Error for Context {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.0)
    }
}

/// The wrappers in which an error may come out of a builder.
fn wrapped<E: std::error::Error + Send + Sync + 'static>(error: impl Fn() -> E) -> Vec<BoxError> {
    vec![
        error().into(),
        Context(error().into()).into(),
        anyhow::Error::new(error()).into(),
        anyhow::Error::new(error()).context("a context").into(),
        anyhow::Error::new(Context(anyhow::Error::new(error()).into())).into(),
        eyre::Report::new(error()).into(),
        eyre::Report::new(error()).wrap_err("a context").into(),
    ]
}

/// Starts a service whose builds return these errors, and then the number of the build.
fn returns(runtime: &mut TestRuntime, id: ServiceId<u32>, errors: Vec<BoxError>) {
    let (mut errors, mut calls) = (errors.into_iter(), 0);
    runtime.supervise(id, exact(), move |_| {
        calls += 1;
        let result = errors.next().map_or(Ok(calls), Err);
        async move { result }
    });
    runtime.run_until_idle();
}

#[test]
fn a_permanent_error_is_not_tried_again_by_time() {
    let mut runtime = TestRuntime::new();
    let id = runtime.service("a");
    returns(&mut runtime, id, vec![Permanent::new("the password is wrong").into()]);
    runtime.advance(HOUR);
    let status = runtime.supervisor_status(id);
    assert_eq!((status.state, status.failures), (SupervisorState::Permanent, 1));
    let failure = runtime.registry.status(id).unwrap().last_failure.unwrap();
    assert_eq!(failure.reason.to_string(), "permanent error: the password is wrong");
    assert_eq!(runtime.clock.sleepers(), 0);

    runtime.restart(id);
    assert_eq!(runtime.get(id), Some(2));
}

#[test]
fn a_permanent_error_is_found_below_every_wrapper() {
    for error in wrapped(|| Permanent::new(Context("the password is wrong".into()))) {
        let mut runtime = TestRuntime::new();
        let id = runtime.service("a");
        let text = format!("{error:?}");
        returns(&mut runtime, id, vec![error]);
        assert_eq!(runtime.state(id), SupervisorState::Permanent, "{text}");
        let failure = runtime.registry.status(id).unwrap().last_failure.unwrap();
        let text = failure.reason.to_string();
        let end = "permanent error: in the builder: the password is wrong";
        assert!(text.ends_with(end), "{text}");
    }
}

#[test]
fn a_permanent_error_is_tried_again_when_an_input_is_replaced() {
    let mut runtime = TestRuntime::new();
    let (config, database) = (runtime.service("config"), runtime.service("database"));
    let provider = runtime.registry.provide(config).unwrap();
    let running = provider.begin().wait_blocking().unwrap().ready(0).unwrap();
    runtime.supervise(database, exact(), move |build| async move {
        match **build.wait_for(config).await? {
            2 => Ok::<_, BoxError>(2),
            wrong => Err(Permanent::new(format!("password {wrong}")).into()),
        }
    });
    runtime.advance(HOUR);
    assert_eq!(runtime.state(database), SupervisorState::Permanent);
    running.replace(1).unwrap();
    runtime.run_until_idle();
    let status = runtime.supervisor_status(database);
    assert_eq!((status.state, status.failures), (SupervisorState::Permanent, 2));
    running.replace(2).unwrap();
    runtime.run_until_idle();
    assert_eq!(runtime.get(database), None, "before the first backoff has passed");
    runtime.advance(ms(100));
    assert_eq!(runtime.get(database), Some(2));
}

#[test]
fn a_permanent_error_of_a_body_or_a_reader_counts_as_one_of_the_builder() {
    let mut runtime = TestRuntime::new();
    let (a, b) = (runtime.service("a"), runtime.service("b"));
    let supervisor = runtime.registry.supervise(a).unwrap().restart_policy(exact());
    let supervisor = supervisor.body(async |_| Err::<(), _>(Permanent::new("no such queue")));
    runtime.spawn(supervisor.run(async |_| 1));
    runtime.supervise(b, exact(), fails(0));
    runtime.run_until_idle();
    assert_eq!(runtime.state(a), SupervisorState::Permanent);
    runtime.registry.fail(b, Permanent::new("not licensed")).unwrap();
    runtime.advance(HOUR);
    assert_eq!(runtime.state(b), SupervisorState::Permanent);
}

#[test]
fn a_permanent_error_of_a_dependency_is_not_one_of_its_dependents() {
    let mut runtime = TestRuntime::new();
    let (config, server) = (runtime.service("config"), runtime.service("server"));
    runtime.supervise(config, exact(), fails(0));
    runtime.supervise(server, exact(), move |build| async move {
        build.wait_for(config).await.map(|config| **config)
    });
    runtime.run_until_idle();
    let reader = runtime.registry.clone();
    runtime.registry.fail(config, Permanent::new("not licensed")).unwrap();
    runtime.run_until_idle();
    let states = (runtime.state(config), runtime.state(server));
    assert_eq!(states, (SupervisorState::Permanent, SupervisorState::Building));

    // A service that returns the failure of another one as its own error is tried again.
    let failure = reader.status(config).unwrap().last_failure.unwrap();
    let other = runtime.service("other");
    returns(&mut runtime, other, vec![failure.into()]);
    assert_eq!(runtime.state(other), SupervisorState::BackingOff);
}

#[test]
fn too_many_permanent_errors_give_up() {
    let mut runtime = TestRuntime::new();
    let id = runtime.service("a");
    let policy = exact().max_failures(1, HOUR);
    runtime.supervise(id, policy, |_| async { Err::<u32, _>(Permanent::new("wrong")) });
    runtime.run_until_idle();
    assert_eq!(runtime.state(id), SupervisorState::Permanent);
    runtime.restart(id);
    assert_eq!(runtime.state(id), SupervisorState::Permanent, "the counter was reset");
}

#[test]
fn a_completed_service_has_no_body_and_is_built_again_with_its_dependency() {
    let mut runtime = TestRuntime::new();
    let (config, schema, other) =
        (runtime.service("config"), runtime.service("schema"), runtime.service("other"));
    runtime.supervise(config, exact(), fails(0));
    let bodies = Arc::<AtomicUsize>::default();
    let count = Arc::clone(&bodies);
    let supervisor = runtime.registry.supervise(schema).unwrap().body(move |_| {
        count.fetch_add(1, Ordering::Relaxed);
        pending::<()>()
    });
    runtime.spawn(supervisor.run(async move |build| {
        Completed(build.wait_for(config).await.map(|config| 10 + **config))
    }));
    let supervisor = runtime.registry.supervise(other).unwrap();
    runtime.spawn(supervisor.run(async |_| Completed(1)));
    runtime.run_until_idle();
    assert_eq!((runtime.get(schema), runtime.get(other)), (Some(11), Some(1)));
    let states = (runtime.state(schema), runtime.state(other));
    assert_eq!(states, (SupervisorState::Completed, SupervisorState::Completed));

    runtime.registry.fail(config, Planned::new("edited")).unwrap();
    assert_eq!(runtime.get(schema), None);
    runtime.run_until_idle();
    assert_eq!(runtime.get(schema), Some(12));
    assert_eq!(runtime.state(schema), SupervisorState::Completed);
    assert_eq!(bodies.load(Ordering::Relaxed), 0);
}

/// Ten edits, two seconds apart, and a limit of five failures in a minute.
#[test]
fn planned_failures_are_not_counted() {
    for number in 0..7 {
        let mut runtime = TestRuntime::new();
        let config = runtime.service("config");
        let policy = exact().max_failures(5, ms(60_000));
        runtime.supervise(config, policy, fails(0));
        for edit in 1..=10 {
            runtime.advance(ms(2_000));
            assert_eq!(runtime.get(config), Some(edit));
            let reason = wrapped(|| Planned::new("edited")).remove(number);
            runtime.registry.fail(config, reason).unwrap();
            runtime.run_until_idle();
            assert_eq!(runtime.get(config), Some(edit + 1), "without a backoff");
        }
        assert_eq!(runtime.supervisor_status(config).failures, 0);
    }
}

#[test]
fn a_body_that_asks_for_a_new_instance_is_not_counted() {
    let mut runtime = TestRuntime::new();
    let id = runtime.service("certificate");
    let clock = runtime.clock.clone();
    let supervisor = runtime.registry.supervise(id).unwrap().restart_policy(exact());
    let supervisor = supervisor.body(async move |_| -> anyhow::Result<()> {
        use mainstay::supervise::Clock;
        clock.sleep_until(clock.now() + ms(1_000)).await;
        // The type is hidden in an `anyhow::Error`.
        Err(Planned::new("rotated").into())
    });
    let mut number = 0;
    runtime.spawn(supervisor.run(async move |_| {
        number += 1;
        number
    }));
    runtime.run_until_idle();
    for number in 1..20 {
        assert_eq!(runtime.get(id), Some(number));
        runtime.advance(ms(1_000));
    }
    assert_eq!(runtime.supervisor_status(id).failures, 0);
}

/// A wait with a timeout, in a service that may fail three times in a minute.
#[test]
fn a_wait_that_times_out_is_not_counted() {
    let mut runtime = TestRuntime::new();
    let (dependency, app) = (runtime.service("dependency"), runtime.service("app"));
    let registry = runtime.registry.clone();
    let policy = exact().max_failures(3, ms(60_000));
    runtime.supervise(app, policy, move |build| {
        let registry = registry.clone();
        async move {
            let wait = build.wait_for(dependency).timeout(ms(1_000), registry.clock());
            Ok::<_, WaitForError>(**wait.await?)
        }
    });
    runtime.advance(ms(60_000));
    let status = runtime.supervisor_status(app);
    assert_eq!((status.state, status.failures), (SupervisorState::Waiting, 0));
    assert_eq!(status.waiting_for.unwrap(), "dependency");
    assert_eq!(runtime.clock.sleepers(), 0, "nothing but the dependency ends it");
    let provider = runtime.registry.provide(dependency).unwrap();
    let _running = provider.begin().wait_blocking().unwrap().ready(5).unwrap();
    runtime.run_until_idle();
    assert_eq!(runtime.get(app), Some(5));
}

/// The builder reads the dependency, without an edge.
#[test]
fn a_service_that_was_not_there_is_waited_for_without_an_edge() {
    let count = wrapped(|| Permanent::new("")).len();
    for number in 0..count {
        let mut runtime = TestRuntime::new();
        let (pool, server) = (runtime.service("pool"), runtime.service("server"));
        let (registry, builds) = (runtime.registry.clone(), Arc::<AtomicUsize>::default());
        let counted = Arc::clone(&builds);
        runtime.supervise(server, exact().max_failures(0, HOUR), move |_| {
            counted.fetch_add(1, Ordering::Relaxed);
            let read = registry.get(pool).map(|pool| *pool);
            let read = read.map_err(|error| match error {
                GetError::NotReady(_) => wrapped(|| registry.get(pool).unwrap_err()).remove(number),
                error => error.into(),
            });
            async move { read }
        });
        let provider = runtime.registry.provide(pool).unwrap();
        for round in 1..5 {
            runtime.run_until_idle();
            assert_eq!(runtime.state(server), SupervisorState::Waiting);
            assert_eq!(builds.load(Ordering::Relaxed), round);
            // Ready at once: the retry is not before the first backoff.
            let running = provider.begin().wait_blocking().unwrap().ready(7).unwrap();
            runtime.advance(ms(99));
            assert_eq!((runtime.get(server), builds.load(Ordering::Relaxed)), (None, round));
            runtime.advance(ms(1));
            assert_eq!(runtime.get(server), Some(7));
            running.fail("gone");
            runtime.registry.fail(server, registry_error(&runtime.registry, pool)).unwrap();
        }
        assert_eq!(runtime.supervisor_status(server).failures, 0);
    }
}

fn registry_error(registry: &Registry, id: ServiceId<u32>) -> BoxError {
    registry.get(id).map(|_| ()).unwrap_err().into()
}

/// A wait for such a service would last for ever, or name the wrong one.
#[test]
fn a_service_does_not_wait_for_itself_its_dependents_or_another_registry() {
    let mut runtime = TestRuntime::new();
    let other = TestRuntime::new();
    let foreign = other.service("foreign");
    let (a, dependent, indirect) =
        (runtime.service("a"), runtime.service("dependent"), runtime.service("indirect"));
    runtime.service("foreign");
    runtime.registry.depends(dependent).soft_on(a).unwrap();
    runtime.registry.depends(indirect).to_start_on(dependent).unwrap();
    for (registry, missing) in [
        (runtime.registry.clone(), a),
        (runtime.registry.clone(), dependent),
        (runtime.registry.clone(), indirect),
        (other.registry.clone(), foreign),
    ] {
        runtime.tasks.clear();
        let error: BoxError = registry.get(missing).unwrap_err().into();
        assert!(DependencyUnavailable::find(&*error).is_some());
        returns(&mut runtime, a, vec![error]);
        let status = runtime.supervisor_status(a);
        assert_eq!((status.state, status.failures), (SupervisorState::BackingOff, 1));
    }
}

/// The last error in the chain is not the one that decides.
#[test]
fn the_first_error_of_a_chain_that_says_something_decides() {
    let mut runtime = TestRuntime::new();
    let (dependency, a) = (runtime.service("dependency"), runtime.service("a"));
    let unavailable = || runtime.registry.get(dependency).unwrap_err();
    let errors: Vec<(BoxError, SupervisorState)> = vec![
        (Permanent::new(unavailable()).into(), SupervisorState::Permanent),
        (Permanent::new(Planned::new("edited")).into(), SupervisorState::Permanent),
        (Context(Permanent::new("wrong").into()).into(), SupervisorState::Permanent),
        (Context(unavailable().into()).into(), SupervisorState::Waiting),
        (Context("no source".into()).into(), SupervisorState::BackingOff),
    ];
    for (error, state) in errors {
        runtime.tasks.clear();
        returns(&mut runtime, a, vec![error]);
        assert_eq!(runtime.state(a), state);
    }
    // A service that has failed permanently is away for others, and not more.
    let provider = runtime.registry.provide(dependency).unwrap();
    provider.begin().wait_blocking().unwrap().fail(Permanent::new("wrong")).unwrap();
    let wait = runtime.registry.wait_ready(dependency);
    let error = wait.wait_blocking_timeout(ms(0)).unwrap_err();
    runtime.tasks.clear();
    returns(&mut runtime, a, vec![error.into()]);
    assert_eq!(runtime.state(a), SupervisorState::Waiting);
}

#[test]
fn a_permanent_error_returns_what_it_wraps() {
    let error = Permanent::new(Context("wrong".into()));
    assert!(error.error().is::<Context>());
}

/// An error whose `source` panics, or has no end, is an ordinary error.
#[test]
fn the_errors_of_a_user_may_panic_and_be_endless() {
    #[derive(Debug)]
    struct Panics;
    #[derive(Debug)]
    struct Endless;

    impl fmt::Display for Panics {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("panics")
        }
    }

    impl std::error::Error for Panics {
        fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
            panic!("in a source")
        }
    }

    impl fmt::Display for Endless {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("endless")
        }
    }

    impl std::error::Error for Endless {
        fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
            Some(self)
        }
    }

    for error in [BoxError::from(Panics), Endless.into()] {
        // Without an observer, which would print the sources.
        let registry = Registry::with_capacity(1).unwrap();
        let id = registry.register::<u32>("a").unwrap();
        let error = Arc::new(Mutex::new(Some(error)));
        let supervisor = registry.supervise(id).unwrap();
        let builder = move |_: &Build<u32>| error.lock().unwrap().take().map_or(Ok(1), Err);
        let thread = std::thread::spawn(move || supervisor.run_blocking(builder));
        assert_eq!(**registry.wait_ready(id).wait_blocking().unwrap(), 1);
        registry.close();
        thread.join().unwrap();
    }
}

/// `config` fails, and is ready again. The status of `server` shows why *it* is not ready.
#[test]
fn a_given_up_service_keeps_its_reason() {
    let mut runtime = TestRuntime::new();
    let (config, server) = (runtime.service("config"), runtime.service("server"));
    runtime.supervise(config, exact(), fails(0));
    let policy = exact().max_failures(0, HOUR).retry_given_up(false);
    runtime.supervise(server, policy, move |build| async move {
        build.wait_for(config).await?;
        Err::<u32, BoxError>("no port is free".into())
    });
    runtime.run_until_idle();
    runtime.registry.fail(config, "edited").unwrap();
    runtime.advance(HOUR);
    assert_eq!(runtime.get(config), Some(2));
    let reason = |runtime: &TestRuntime| {
        let status = runtime.registry.status(server).unwrap();
        status.last_failure.unwrap().reason.to_string()
    };
    assert_eq!(runtime.state(server), SupervisorState::GivenUp);
    assert_eq!(reason(&runtime), "no port is free");
    let shutdown = runtime.registry.shutdown(ms(1_000));
    runtime.spawn(async { drop(shutdown.await) });
    runtime.run_until_idle();
    assert_eq!(reason(&runtime), "no port is free");
}

#[test]
fn a_limit_without_a_window_is_one_for_failures_in_a_row() {
    let mut runtime = TestRuntime::new();
    let id = runtime.service("a");
    runtime.supervise(id, exact().max_failures(2, ms(0)), fails(2));
    runtime.advance(HOUR);
    assert_eq!(runtime.get(id), Some(3), "two failures in a row");
    for round in 0..3 {
        // The failure of a stable instance begins a new row, and is none of it.
        runtime.registry.fail(id, "stable").unwrap();
        runtime.run_until_idle();
        assert_eq!(runtime.state(id), SupervisorState::Up);
        for _ in 0..2 {
            runtime.registry.fail(id, "not stable").unwrap();
            runtime.advance(ms(200));
            assert_eq!(runtime.state(id), SupervisorState::Up, "in round {round}");
        }
        runtime.advance(HOUR);
    }
    for _ in 0..3 {
        assert_eq!(runtime.state(id), SupervisorState::Up);
        runtime.registry.fail(id, "not stable").unwrap();
        runtime.advance(ms(400));
    }
    runtime.registry.fail(id, "not stable").unwrap();
    runtime.advance(HOUR);
    assert_eq!(runtime.state(id), SupervisorState::GivenUp);
}

#[test]
fn a_builder_needs_no_error_type() {
    let mut runtime = TestRuntime::new();
    let id = runtime.service("a");
    let supervisor = runtime.registry.supervise(id).unwrap();
    runtime.spawn(supervisor.run(async |_| 1));
    runtime.run_until_idle();
    assert_eq!(runtime.get(id), Some(1));
}

#[test]
fn a_planned_error_says_why_as_its_source() {
    let planned = Planned::new("the certificate was rotated");
    let text = mainstay::error::chain(&planned).to_string();
    assert_eq!(text, "planned: the certificate was rotated");
    assert_eq!(format!("{:>9}", planned), "  planned");
}
