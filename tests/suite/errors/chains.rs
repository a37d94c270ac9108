//! The texts of chains of sources.
//!
//! - The text of an error does not contain the text of one of its sources: for each public error
//!   type, with a reason of the user that has a source itself. So each text occurs once in a chain,
//!   also as anyhow and eyre print it.
//! - The user's error and its source are found by their types in every error that contains its
//!   failure.
//! - Reasons, events, statuses, the listing and records contain the whole chain, once.

use std::{
    any::type_name,
    collections::BTreeSet,
    error::Error,
    iter::successors,
    sync::{Arc, Mutex},
    time::Duration,
};

use super::{CANNOT_OPEN, CannotOpen, Context, DiskFull};
use crate::support::{publish_from, registry_of, up};
use mainstay::{
    Event, EventKind, FailureRecord, Observer, Registry,
    error::{AllReadyError, GetError, RegistryError, ServicesError, chain},
};

/// No time: a wait checks its condition once.
const NONE: Duration = Duration::ZERO;

fn links<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    successors(Some(error), |&error| error.source())
}

/// Checks the chains of errors, and notes their types.
#[derive(Default)]
struct Checked(BTreeSet<&'static str>);

impl Checked {
    /// Checks a chain that does not contain the user's error.
    #[track_caller]
    fn own<E: Error + Clone + Send + Sync + 'static>(&mut self, error: E) {
        let name = type_name::<E>().split('<').next().unwrap().rsplit("::").next().unwrap();
        self.0.insert(name);
        let texts: Vec<String> = links(&error).map(ToString::to_string).collect();
        for (i, text) in texts.iter().enumerate() {
            assert!(!text.is_empty());
            for other in texts.iter().skip(i + 1) {
                assert!(!text.contains(other) && !other.contains(text), "twice: {texts:?}");
            }
        }
        let joined = texts.join(": ");
        assert_eq!(chain(&error).to_string(), joined);
        assert_eq!(format!("{:#}", anyhow::Error::new(error.clone())), joined);
        assert_eq!(format!("{:#}", eyre::Report::new(error.clone())), joined);
        let report = format!("{:?}", anyhow::Error::new(error));
        for text in texts {
            assert_eq!(report.matches(&text).count(), 1, "{text:?} in {report}");
        }
    }

    /// Checks a chain that contains the user's error.
    #[track_caller]
    fn with_reason<E: Error + Clone + Send + Sync + 'static>(&mut self, error: E) {
        let reasons: Vec<&CannotOpen> =
            links(&error).filter_map(|error| error.downcast_ref()).collect();
        assert_eq!(reasons, [&CANNOT_OPEN], "{error:?}");
        assert!(links(&error).any(|error| error.is::<DiskFull>()), "{error:?}");
        assert!(chain(&error).to_string().ends_with(": cannot open /data/x.db: disk full"));
        self.own(error);
    }
}

/// The names of the types that `src/error/` calls errors.
fn error_types() -> BTreeSet<&'static str> {
    let sources = [
        include_str!("../../../src/error/must_await.rs"),
        include_str!("../../../src/error/operation.rs"),
        include_str!("../../../src/error/provide.rs"),
        include_str!("../../../src/error/read.rs"),
        include_str!("../../../src/error/registry.rs"),
        include_str!("../../../src/error/unavailable.rs"),
    ];
    let declared = |line: &'static str| {
        let rest = line.strip_prefix("pub enum ").or_else(|| line.strip_prefix("pub struct "))?;
        rest.split(|c: char| !c.is_alphanumeric()).next()
    };
    let names = sources.iter().flat_map(|source| source.lines()).filter_map(declared);
    names.filter(|name| !["NotReadyService", "Unavailable", "List"].contains(name)).collect()
}

#[test]
fn no_text_occurs_twice_in_the_chain_of_any_error() {
    let mut checked = Checked::default();
    reading_and_waiting(&mut checked);
    providing(&mut checked);
    registering(&mut checked);
    #[cfg(feature = "supervise")]
    supervising(&mut checked);
    let mut expected = error_types();
    expected.insert("Failure");
    #[cfg(feature = "supervise")]
    expected.extend(["BodyFailure", "BuildFailure", "CloseFailure"]);
    #[cfg(not(feature = "supervise"))]
    for supervised in
        ["DrainError", "GroupError", "GroupGivenUp", "MustAwaitError", "SignalError", "StopError"]
    {
        expected.remove(supervised);
    }
    assert_eq!(checked.0, expected);
}

fn reading_and_waiting(checked: &mut Checked) {
    let (registry, [config, server]) = registry_of::<u32, 2>(["config", "server"]);
    let (_other, [foreign]) = registry_of::<u32, 1>(["foreign"]);
    let all = || registry.wait_all_ready().wait_blocking_timeout(NONE).unwrap_err();
    checked.own(registry.wait_ready(config).wait_blocking_timeout(NONE).unwrap_err());
    checked.own(all());
    let provide_config = registry.provide(config).unwrap();
    let provide_server = registry.provide(server).unwrap();
    provide_config.begin().wait_blocking().unwrap().fail(CANNOT_OPEN).unwrap();
    let error = registry.get(config).unwrap_err();
    let GetError::NotReady(missing) = &error else { panic!() };
    checked.own(missing.clone());
    checked.own(error);
    let Err(error) = registry.get_all((config, server)) else { panic!() };
    checked.own(error);
    checked.own(registry.get(foreign).unwrap_err());

    checked.with_reason(registry.wait_ready(config).wait_blocking_timeout(NONE).unwrap_err());
    checked.with_reason(all());
    // Its text contains the failure of the other one, and that failure is in no source.
    provide_server.begin().wait_blocking().unwrap().fail(CannotOpen("/data/y.db")).unwrap();
    let error = all();
    let text = chain(&error).to_string();
    assert!(text.contains("server: down: cannot open /data/y.db: disk full: "));
    assert_eq!(text.matches("cannot open /data/x.db: disk full").count(), 1, "{text}");
    assert!(
        matches!(error, AllReadyError::TimedOut { missing, .. } if missing.service == "config")
    );
    registry.close();
    checked.own(all());
    checked.own(registry.wait_ready(config).wait_blocking().unwrap_err());
}

fn providing(checked: &mut Checked) {
    let (registry, [config, server]) = registry_of::<u32, 2>(["config", "server"]);
    let (provide_config, running_config) = up(&registry, config, 1);
    let Err(error) = registry.provide(config) else { panic!() };
    checked.own(error);
    let Err(error) = provide_config.begin().wait_blocking_timeout(NONE) else { panic!() };
    checked.own(error);
    checked.own(running_config.failed().wait_blocking_timeout(NONE).unwrap_err());
    let provide_server = registry.provide(server).unwrap();
    let attempt = provide_server.begin().wait_blocking().unwrap();
    attempt.wait_for(config).wait_blocking().unwrap();
    let mut watch = attempt.watch(config).unwrap();
    watch.changed().wait_blocking().unwrap();
    let Err(error) = watch.changed().wait_blocking_timeout(NONE) else { panic!() };
    checked.own(error);

    // The attempt is invalidated because of `config`.
    registry.fail(config, CANNOT_OPEN).unwrap();
    let missed = running_config.replace(2).unwrap_err();
    checked.with_reason(missed.missing.clone());
    checked.with_reason(missed);
    checked.with_reason(attempt.wait_for(config).wait_blocking().unwrap_err());
    let Err(error) = watch.changed().wait_blocking() else { panic!() };
    checked.with_reason(error);
    checked.with_reason(attempt.invalidated().wait_blocking().unwrap());
    checked.with_reason(attempt.ready(1).unwrap_err());
    let attempt = provide_server.begin().wait_blocking().unwrap();
    checked.with_reason(attempt.wait_for(config).wait_blocking_timeout(NONE).unwrap_err());
    registry.fail(server, CANNOT_OPEN).unwrap();
    checked.with_reason(attempt.fail("unused").unwrap_err());

    // An instance that has failed because of `config`, and a failure without an error.
    drop(running_config);
    let running_config = provide_config.begin().wait_blocking().unwrap().ready(1).unwrap();
    let running = publish_from(&provide_server, config, 1);
    running_config.fail(CANNOT_OPEN);
    checked.with_reason(running.replace(2).unwrap_err());
    drop(running);
    let attempt = provide_server.begin().wait_blocking().unwrap();
    drop(attempt);
    checked.own(registry.status(server).unwrap().last_failure.unwrap());
}

fn registering(checked: &mut Checked) {
    let (registry, [a, b]) = registry_of::<u32, 2>(["a", "b"]);
    let (_other, [foreign_id]) = registry_of::<u32, 1>(["foreign"]);
    checked.own(registry.status(foreign_id).unwrap_err());
    checked.own(Registry::with_capacity(usize::MAX).unwrap_err());
    checked.own(RegistryError::TooManyRegistries);
    checked.own(ServicesError::from(RegistryError::TooManyRegistries));
    checked.own(registry.register::<u8>("a").unwrap_err());
    checked.own(registry.register::<u8>("c").unwrap_err());
    checked.own(registry.find("c").unwrap_err());
    checked.own(registry.id::<u8>("a").unwrap_err());
    registry.depends(b).on(a).unwrap();
    let error = registry.depends(a).on(b).unwrap_err();
    let mainstay::error::DependencyError::Cycle(cycle) = &error else { panic!() };
    checked.own(cycle.clone());
    checked.own(error);
    checked.own(registry.constant(foreign_id, 1).unwrap_err());
    checked.own(registry.constant(b, 1).unwrap_err());
    registry.constant(a, 1).unwrap();
    checked.own(registry.constant(a, 2).unwrap_err());
    checked.own(registry.depends(a).on(b).unwrap_err());
    #[cfg(feature = "supervise")]
    {
        checked.own(registry.stop(a).wait_blocking().unwrap_err());
        registry.fail(a, "edited").unwrap();
        registry.stop(a).wait_blocking().unwrap();
        checked.own(registry.constant(a, 2).unwrap_err());
    }
    registry.close();
    checked.own(registry.constant(a, 2).unwrap_err());
    invalidated_constant(checked);
}

/// An observer fails the constant before it is published.
fn invalidated_constant(checked: &mut Checked) {
    struct FailsAttempts;
    impl Observer for FailsAttempts {
        fn event(&self, registry: &Registry, event: &Event<'_>) {
            if let EventKind::AttemptStarted = event.kind {
                registry.fail(registry.find(event.service).unwrap(), CANNOT_OPEN).unwrap();
            }
        }
    }
    let registry = Registry::builder(1).unwrap().observer(FailsAttempts).build();
    let a = registry.register::<u32>("a").unwrap();
    let error = registry.constant(a, 1).unwrap_err();
    assert!(matches!(error, mainstay::error::ConstantError::Invalidated { .. }));
    checked.with_reason(error);
    assert!(registry.provide(a).is_ok(), "the role is free again");
}

#[cfg(feature = "supervise")]
fn supervising(checked: &mut Checked) {
    use mainstay::{
        error::StopError,
        supervise::{BodyFailure, Build, BuildFailure, CloseFailure, GroupPolicy},
    };

    let after = Duration::from_secs(1);
    for failure in [
        BodyFailure::Returned,
        BodyFailure::TimedOut { after },
        BodyFailure::Panicked { message: "no port".into() },
    ] {
        checked.own(failure);
    }
    checked.own(CloseFailure::TimedOut { after });
    checked.own(CloseFailure::Panicked { message: "no port".into() });

    let (registry, [a]) = registry_of::<u32, 1>(["a"]);
    let (_provider, running) = up(&registry, a, 1);
    checked.own(running.drained().wait_blocking_timeout(NONE).unwrap_err());
    let supervisor = {
        drop((_provider, running));
        registry.supervise(a).unwrap()
    };
    let (other, [b]) = registry_of::<u32, 1>(["b"]);
    let (sender, errors) = std::sync::mpsc::channel();
    let of = other.clone();
    let mut run = Box::pin(other.supervise(b).unwrap().run(async move |_| {
        sender.send(of.wait_all_ready().wait_blocking().unwrap_err()).unwrap();
        1
    }));
    assert!(crate::support::poll_once(&mut run).is_pending());
    let AllReadyError::MustAwait(error) = errors.try_recv().unwrap() else { panic!() };
    checked.own(StopError::from(error.clone()));
    checked.own(error);
    checked.own(other.closed().wait_blocking_timeout(NONE).unwrap_err());
    checked.own(other.stop(a).wait_blocking().unwrap_err());
    // Its supervisor is not polled any more.
    checked.own(other.stop(b).wait_blocking_timeout(NONE).unwrap_err());
    let mut stop = other.stop(b);
    let mut shutdown = other.shutdown(after);
    let _ = crate::support::poll_once(&mut stop);
    let _ = crate::support::poll_once(&mut shutdown);
    checked.own(stop.wait_blocking_timeout(NONE).unwrap_err());
    other.close();
    checked.own(other.stop(b).wait_blocking().unwrap_err());
    let (grouped, [c]) = registry_of::<u32, 1>(["c"]);
    let policy = GroupPolicy::default().max_failures(0, after);
    let group = grouped.group(c, policy.clone()).unwrap();
    checked.own(grouped.group(c, policy).unwrap_err());
    let builds =
        grouped.supervise(c).unwrap().run(async |_: Build<u32>| Err::<u32, _>(CANNOT_OPEN));
    let mut builds = Box::pin(builds);
    assert!(crate::support::poll_once(&mut builds).is_pending());
    checked.with_reason(group.status().given_up.unwrap());
    let failures = Arc::<Mutex<Vec<_>>>::default();
    let seen = Arc::clone(&failures);
    let thread = std::thread::spawn(move || {
        supervisor.run_blocking(move |build| {
            seen.lock().unwrap().extend(build.last_failure());
            if build.number() == 1 { panic!("no port") } else { Ok::<_, BuildFailure>(1) }
        })
    });
    registry.wait_ready(a).wait_blocking().unwrap();
    let failure = failures.lock().unwrap().pop().unwrap();
    checked.own(failure.source().unwrap().downcast_ref::<BuildFailure>().unwrap().clone());
    checked.own(failure);
    registry.close();
    thread.join().unwrap();
}

/// The texts of the events that a failure causes.
#[derive(Default, Clone)]
struct Failed(Arc<Mutex<Vec<String>>>);

impl Observer for Failed {
    fn event(&self, _: &Registry, event: &Event<'_>) {
        if let EventKind::Failed(_) | EventKind::AttemptFailed(_) = event.kind {
            self.0.lock().unwrap().push(event.kind.to_string());
        }
    }
}

#[test]
fn what_is_no_error_contains_the_whole_chain_once() {
    let events = Failed::default();
    let registry = Registry::builder(2).unwrap().observer(events.clone()).build();
    let config = registry.register::<u32>("config").unwrap();
    let server = registry.register::<u32>("server").unwrap();
    registry.depends(server).on(config).unwrap();
    let provider = registry.provide(config).unwrap();
    let attempt = provider.begin().wait_blocking().unwrap();
    attempt.fail(Context { text: "no configuration", source: Box::new(CANNOT_OPEN) }).unwrap();

    let why = "no configuration: cannot open /data/x.db: disk full";
    let status = registry.status(config).unwrap();
    let failure = status.last_failure.as_ref().unwrap();
    assert_eq!(failure.reason.to_string(), why);
    assert_eq!(status.to_string(), format!("config: down: {why}"));
    let lines = format!("{status}\nserver: no provider, needs config; {status}");
    assert_eq!(registry.list().to_string(), lines);
    assert_eq!(*events.0.lock().unwrap(), [format!("attempt failed: {why}")]);
    let record = FailureRecord::from(failure);
    assert_eq!(record.to_string(), format!("config failed: {why}"));
    assert_eq!(record.reason, "no configuration");
    assert_eq!(record.sources, ["cannot open /data/x.db", "disk full"]);
    #[cfg(feature = "serde")]
    {
        let reason = serde_json::to_value(&failure.reason).unwrap();
        assert_eq!(reason, why);
        let listing = serde_json::to_value(registry.list()).unwrap();
        let listed = &listing["services"][0]["last_failure"];
        assert_eq!(listed["reason"], "no configuration");
        assert_eq!(listed["sources"], serde_json::json!(["cannot open /data/x.db", "disk full"]));
    }

    // A service that is ready has no reason to show.
    let _running = provider.begin().wait_blocking().unwrap().ready(1).unwrap();
    assert_eq!(registry.list().to_string(), "config: ready\nserver: no provider");
}
