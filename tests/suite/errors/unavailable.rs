//! Errors that say that a service was not there.
//!
//! - Each of them has a `DependencyUnavailable` among its sources, with the service, the generation
//!   and what was found: of a read, of a wait with a timeout by a reader, an attempt or a build, of
//!   a replacement that is refused, of an expired grace period. If several services are concerned,
//!   it names the one that is missing.
//! - It is found below a box, `anyhow::Error` and `eyre::Report`, also below the contexts of a
//!   user, and through a failure whose reason is such an error.
//! - All other errors have none.
//! - `find` returns for chains that have no end.

use std::{error::Error, fmt, time::Duration};

use super::{CANNOT_OPEN, Context};
use crate::support::{LONG, must_finish, publish, publish_from, registry_of, up};
use mainstay::{
    Failure, Phase, Registry,
    error::{
        AllReadyError, DependencyUnavailable, ProvideError, ReadyError, Unavailable, WaitForError,
        WatchError,
    },
};

/// No time: a wait checks its condition once.
const NONE: Duration = Duration::ZERO;

type BoxError = Box<dyn Error + Send + Sync>;

/// The service, the generation and the kind.
fn parts(missing: &DependencyUnavailable) -> (String, u64, &'static str) {
    let kind = match &missing.kind {
        Unavailable::NotReady { phase: Phase::Down } => "down",
        Unavailable::NotReady { phase: Phase::Starting } => "starting",
        Unavailable::TimedOut { .. } if missing.failure().is_none() => "timed out",
        Unavailable::TimedOut { .. } => "timed out after a failure",
        Unavailable::Failed(_) => "failed",
        _ => unreachable!("{missing:?}"),
    };
    (missing.service.to_string(), missing.generation.get(), kind)
}

/// What `find` returns for the error itself, and below everything in which a user may wrap it.
#[track_caller]
fn find_everywhere<E>(error: &E) -> Option<(String, u64, &'static str)>
where
    E: Error + Clone + Send + Sync + 'static,
{
    let find = |error: &(dyn Error + 'static)| DependencyUnavailable::find(error).map(parts);
    let found = find(error);
    let boxed: BoxError = Box::new(error.clone());
    assert_eq!(find(&*boxed), found);
    let wrapped = Context { text: "inner", source: boxed };
    let wrapped = Context { text: "outer", source: Box::new(wrapped) };
    assert_eq!(find(&wrapped), found);

    let context = || anyhow::Error::new(error.clone()).context("inner").context("outer");
    assert_eq!(find(&*anyhow::Error::new(error.clone())), found);
    assert_eq!(find(&*context()), found);
    assert_eq!(find(&*BoxError::from(context())), found);
    let context = || eyre::Report::new(error.clone()).wrap_err("inner").wrap_err("outer");
    assert_eq!(find(&*eyre::Report::new(error.clone())), found);
    assert_eq!(find(&*context()), found);
    assert_eq!(find(&*BoxError::from(context())), found);
    found
}

#[track_caller]
fn assert_missing<E>(error: E, service: &str, generation: u64, kind: &str)
where
    E: Error + Clone + Send + Sync + 'static,
{
    let (found, found_generation, found_kind) = find_everywhere(&error).expect("nothing is found");
    assert_eq!((&*found, found_generation, found_kind), (service, generation, kind));
}

#[track_caller]
fn assert_none<E: Error + Clone + Send + Sync + 'static>(error: E) {
    assert_eq!(find_everywhere(&error), None, "{error}");
}

#[test]
fn a_read_of_a_service_that_is_not_ready_names_it() {
    let (registry, [a, b]) = registry_of::<u32, 2>(["a", "b"]);
    let (mut cached, reader) = (registry.cached(b).unwrap(), registry.reader(b).unwrap());
    assert_missing(registry.get(b).unwrap_err(), "b", 0, "down");
    let (_provide_a, _a) = up(&registry, a, 1);
    let (provide_b, running) = up(&registry, b, 1);
    running.fail("lost");
    let _attempt = provide_b.begin().wait_blocking().unwrap();
    assert_missing(registry.get(b).unwrap_err(), "b", 1, "starting");
    assert_missing(registry.get_arc(b).unwrap_err(), "b", 1, "starting");
    assert_missing(cached.get().unwrap_err(), "b", 1, "starting");
    assert_missing(reader.get().unwrap_err(), "b", 1, "starting");
    let Err(error) = registry.get_all((a, b)) else { panic!() };
    assert_missing(error, "b", 1, "starting");
}

#[test]
fn a_wait_that_times_out_names_its_service_and_the_generation_at_the_timeout() {
    let (registry, [config, server]) = registry_of::<u32, 2>(["config", "server"]);
    let provider = registry.provide(server).unwrap();
    let check = |generation, kind| {
        // Another one for each check: a failure of `config` invalidates the last one.
        let attempt = provider.begin().wait_blocking().unwrap();
        let error = registry.wait_ready(config).wait_blocking_timeout(NONE).unwrap_err();
        assert_missing(error, "config", generation, kind);
        let error = attempt.wait_for(config).wait_blocking_timeout(NONE).unwrap_err();
        assert_missing(error, "config", generation, kind);
        let error = attempt.wait_for_any(config).wait_blocking_timeout(NONE).unwrap_err();
        assert_missing(error, "config", generation, kind);
        let error = attempt.wait_to_start(config).wait_blocking_timeout(NONE).unwrap_err();
        assert_missing(error, "config", generation, kind);
    };
    check(0, "timed out");
    let provide_config = registry.provide(config).unwrap();
    provide_config.begin().wait_blocking().unwrap().fail(CANNOT_OPEN).unwrap();
    check(0, "timed out after a failure");
    publish(&provide_config, 1).fail("lost");
    check(1, "timed out after a failure");
}

#[test]
fn the_failure_of_a_service_that_was_not_ready_in_time_is_in_the_chain() {
    let (registry, [config]) = registry_of::<u32, 1>(["config"]);
    let provider = registry.provide(config).unwrap();
    provider.begin().wait_blocking().unwrap().fail(CANNOT_OPEN).unwrap();
    let error = registry.wait_ready(config).wait_blocking_timeout(NONE).unwrap_err();
    let missing = DependencyUnavailable::find(&error).unwrap();
    let failure = missing.source().unwrap().downcast_ref::<Failure>().unwrap();
    assert_eq!(failure.service, "config");
    assert!(std::ptr::eq(failure, missing.failure().unwrap()));
    assert_eq!(failure.source().unwrap().downcast_ref(), Some(&CANNOT_OPEN));
}

#[test]
fn the_wait_for_all_services_names_the_first_one_that_no_other_one_blocks() {
    let names = ["server", "other", "config", "last"];
    let (registry, [server, other, config, last]) = registry_of::<u32, 4>(names);
    registry.depends(server).on(config).unwrap();
    let (_other, _running_other) = up(&registry, other, 1);
    let wait = || registry.wait_all_ready().wait_blocking_timeout(NONE).unwrap_err();
    assert_missing(wait(), "config", 0, "timed out");

    let (provide_config, running) = up(&registry, config, 1);
    running.fail("lost");
    assert_missing(wait(), "config", 1, "timed out after a failure");
    let _config = publish(&provide_config, 1);
    assert_missing(wait(), "server", 0, "timed out");
    let _server = up(&registry, server, 1);
    assert_missing(wait(), "last", 0, "timed out");
    let AllReadyError::TimedOut { missing, not_ready, .. } = wait() else { panic!() };
    assert_eq!(missing.service, not_ready[0].service);
    let _last = up(&registry, last, 1);
    registry.wait_all_ready().wait_blocking_timeout(NONE).unwrap();
}

#[test]
fn a_replacement_that_is_refused_names_the_root_of_the_failure() {
    let (registry, [config, server]) = registry_of::<u32, 2>(["config", "server"]);
    let (provide_config, running_config) = up(&registry, config, 1);
    registry.fail(config, "its own").unwrap();
    assert_missing(running_config.replace(2).unwrap_err(), "config", 0, "failed");
    drop(running_config);
    let running_config = publish(&provide_config, 3);
    let provide_server = registry.provide(server).unwrap();
    let running = publish_from(&provide_server, config, 1);
    running_config.fail(CANNOT_OPEN);
    let error = running.replace(2).unwrap_err();
    assert_eq!(error.service, "server");
    assert_missing(error, "config", 1, "failed");
}

#[test]
fn a_failure_whose_reason_is_such_an_error_leads_to_it() {
    let (registry, [config, server]) = registry_of::<u32, 2>(["config", "server"]);
    let provider = registry.provide(server).unwrap();
    let attempt = provider.begin().wait_blocking().unwrap();
    let error = attempt.wait_for(config).wait_blocking_timeout(NONE).unwrap_err();
    attempt.fail(anyhow::Error::new(error).context("no configuration")).unwrap();
    let failure = registry.status(server).unwrap().last_failure.unwrap();
    assert_missing(failure, "config", 0, "timed out");
    // The outermost one: the wait has missed `server`, and `server` has missed `config`.
    let error = registry.wait_ready(server).wait_blocking_timeout(NONE).unwrap_err();
    let missing = DependencyUnavailable::find(&error).unwrap();
    assert_eq!(missing.service, "server");
    let why = missing.not_ready().unwrap();
    assert_eq!(why.to_string(), "server: down, needs config; config: no provider");
    assert!(missing.source().is_none(), "`config` has never failed");
}

#[test]
fn errors_that_mean_something_else_have_none() {
    let (registry, [a, b, c]) = registry_of::<u32, 3>(["a", "b", "c"]);
    let (_other, [foreign]) = registry_of::<u32, 1>(["foreign"]);
    registry.depends(b).on(a).unwrap();
    let (provide_a, running_a) = up(&registry, a, 1);
    let provide_b = registry.provide(b).unwrap();

    // A foreign id, a cycle, a wrong type, an unknown name, a second provider.
    assert_none(registry.get(foreign).unwrap_err());
    let Err(error) = registry.get_all((foreign,)) else { panic!() };
    assert_none(error);
    assert_none(registry.wait_ready(foreign).wait_blocking_timeout(LONG).unwrap_err());
    assert_none(registry.depends(a).on(b).unwrap_err());
    assert_none(registry.id::<u8>("a").unwrap_err());
    assert_none(registry.find("d").unwrap_err());
    assert_none(registry.register::<u8>("a").unwrap_err());
    assert_none(registry.register::<u8>("d").unwrap_err());
    let Err(error @ ProvideError::AlreadyProvided { .. }) = registry.provide(a) else { panic!() };
    assert_none(error);
    assert_none(Registry::with_capacity(usize::MAX).unwrap_err());

    // The timeout of a wait for something else than a service that is ready.
    assert_none(running_a.failed().wait_blocking_timeout(NONE).unwrap_err());
    let state = registry.status(a).unwrap().state();
    assert_none(registry.wait_changed(a, state).wait_blocking_timeout(NONE).unwrap_err());
    let Err(error) = provide_a.begin().wait_blocking_timeout(NONE) else { panic!() };
    assert_none(error);
    let attempt = provide_b.begin().wait_blocking().unwrap();
    assert_none(attempt.invalidated().wait_blocking_timeout(NONE).unwrap_err());
    let mut watch = attempt.watch(c).unwrap();
    let Err(error) = watch.changed().wait_blocking_timeout(NONE) else { panic!() };
    assert_none(error);

    // An attempt that is invalidated, also if a dependency is the reason.
    attempt.wait_for(a).wait_blocking_timeout(LONG).unwrap();
    running_a.fail("lost");
    let error = attempt.wait_for(a).wait_blocking_timeout(LONG).unwrap_err();
    assert!(matches!(&error, WaitForError::Invalidated(failure) if failure.root == "a"));
    assert_none(error);
    let Err(error @ WatchError::DependentFailed(_)) = watch.changed().wait_blocking() else {
        panic!()
    };
    assert_none(error);
    let error = attempt.ready(1).unwrap_err();
    assert!(matches!(error, ReadyError::Invalidated { .. }));
    assert_none(error);
    assert_none(registry.status(b).unwrap().last_failure.unwrap());
    let attempt = provide_b.begin().wait_blocking().unwrap();
    registry.fail(b, "again").unwrap();
    assert_none(attempt.fail("unused").unwrap_err());

    // The registry is closed.
    let attempt = provide_b.begin().wait_blocking().unwrap();
    registry.close();
    assert_none(registry.wait_ready(a).wait_blocking().unwrap_err());
    assert_none(attempt.wait_for(a).wait_blocking().unwrap_err());
    assert_none(attempt.invalidated().wait_blocking().unwrap_err());
    assert_none(registry.wait_all_ready().wait_blocking().unwrap_err());
    assert_none(attempt.ready(1).unwrap_err());
    let Err(error) = provide_b.begin().wait_blocking() else { panic!() };
    assert_none(error);
}

#[cfg(feature = "test-kit")]
#[test]
fn a_build_and_an_expired_grace_period_name_the_dependency() {
    use mainstay::{supervise::RestartPolicy, test_kit::TestRuntime};

    let second = Duration::from_secs(1);
    let mut runtime = TestRuntime::new(2).unwrap();
    let [db, pages] = ["db", "pages"].map(|name| runtime.registry.register::<u32>(name).unwrap());
    let clock = runtime.clock.clone();
    let once = RestartPolicy::default().max_failures(1, second);
    let supervisor = runtime.registry.supervise(pages).unwrap().restart_policy(once);
    runtime.spawn(supervisor.run(async move |build| {
        build.wait_with_grace(db, second).timeout(second, &clock).await?;
        Ok::<u32, WaitForError>(1)
    }));
    runtime.advance(second);
    let failure = |runtime: &TestRuntime| runtime.registry.status(pages).unwrap().last_failure;
    assert_missing(failure(&runtime).unwrap(), "db", 0, "timed out");

    let (provider, running) = up(&runtime.registry, db, 1);
    running.fail("the first one");
    let running = publish(&provider, 1);
    let mut restart = runtime.registry.restart(pages, "again");
    let _ = crate::support::poll_once(&mut restart);
    runtime.run_until_idle();
    assert!(runtime.registry.get(pages).is_ok());
    running.fail(CANNOT_OPEN);
    runtime.run_until_idle();
    runtime.advance(second);
    let failure = failure(&runtime).unwrap();
    let text = mainstay::error::chain(&failure).to_string();
    let expected = "pages failed: db was not ready again within 1s: db has no current instance of \
                    generation 1: db failed: cannot open /data/x.db: disk full";
    assert_eq!(text, expected);
    assert_missing(failure, "db", 1, "failed");
}

/// An error that is its own source.
#[derive(Debug, Clone)]
struct Endless;

impl fmt::Display for Endless {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("again")
    }
}

impl Error for Endless {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(self)
    }
}

#[test]
fn find_returns_for_a_chain_without_end() {
    must_finish("the walk along an endless chain", || {
        assert!(DependencyUnavailable::find(&Endless).is_none());
        let text = mainstay::error::chain(&Endless).to_string();
        assert_eq!(text.matches("again").count(), 65, "the error and 64 sources");
        let (registry, [id]) = registry_of::<u32, 1>(["service"]);
        let (_provider, running) = up(&registry, id, 1);
        running.fail(Endless);
        let failure = registry.status(id).unwrap().last_failure.unwrap();
        assert!(DependencyUnavailable::find(&failure).is_none());
        // Above the end it is found.
        let error = registry.wait_ready(id).wait_blocking_timeout(NONE).unwrap_err();
        assert_eq!(DependencyUnavailable::find(&error).unwrap().service, "service");
    });
}

#[test]
fn it_is_found_below_many_contexts() {
    let (registry, [id]) = registry_of::<u32, 1>(["service"]);
    let mut error: BoxError = Box::new(registry.get(id).unwrap_err());
    for _ in 0..500 {
        error = Box::new(Context { text: "context", source: error });
    }
    assert_eq!(DependencyUnavailable::find(&*error).unwrap().service, "service");
}

/// A read returns its error by value, and so does every caller of it.
#[test]
fn the_errors_of_reads_and_waits_are_small() {
    use mainstay::error::{GetAllError, GetError, WaitReadyError};

    // A cache line.
    assert!(size_of::<DependencyUnavailable>() <= 64);
    assert!(size_of::<GetError>() <= 64 && size_of::<GetAllError>() <= 64);
    // The limit of clippy's `result_large_err`.
    assert!(size_of::<WaitReadyError>() < 128 && size_of::<WaitForError>() < 128);
    assert!(size_of::<Failure>() < 128);
}
