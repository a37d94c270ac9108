//! Reloading a service: all that depends on it is built aside, and switched at one instant.
//!
//! The public waits. `coordinator.rs` is what they do (S21).

use std::time::Duration;

use super::{
    Live,
    coordinator::Coordinator,
    gaps::GapPolicy,
    reload_root::{Builder, Check, Root, Value},
};
use crate::{
    registry::Registry,
    service::AnyId,
    store::Store,
    waiting::{
        Wait,
        sealed::{BlockingCondition, Condition, WaitSlots},
    },
};

/// The wait of [`Registry::reload`]. It borrows nothing.
pub type ReloadWait = Wait<ReloadHasEnded<Builder>>;

/// The wait of [`Live::reload`]. It borrows nothing.
pub type ReloadValueWait<T> = Wait<ReloadHasEnded<Value<T>>>;

/// The wait of [`Registry::check_reload`]. It borrows nothing.
pub type ReloadCheckWait = Wait<ReloadHasEnded<Check>>;

/// A reload has ended, or the check of one.
pub struct ReloadHasEnded<R: Root>(pub(super) Coordinator<R>);

// A value that was given is never pinned.
impl<R: Root> Unpin for ReloadHasEnded<R> {}

impl<R: Root> ReloadHasEnded<R> {
    fn new(registry: &Registry, id: AnyId, root: R) -> Wait<Self> {
        Wait::new(Self(Coordinator::new(registry, id, root)))
    }
}

impl<R: Root> Condition for ReloadHasEnded<R> {
    type Output = R::Output;

    fn check(&mut self) -> Option<Self::Output> {
        let result = self.0.check()?;
        Some(self.0.output(result))
    }

    fn slots(&self) -> WaitSlots {
        self.0.slots()
    }

    fn store(&self) -> &Store {
        self.0.store()
    }

    fn reads_stuck_log(&self) -> bool {
        self.0.is_restarting()
    }

    fn timed_out(&self, after: Duration) -> Self::Output {
        self.0.output(self.0.timed_out(after))
    }
}

impl<R: Root> BlockingCondition for ReloadHasEnded<R> {
    fn must_await(&self) -> Self::Output {
        self.0.output(Err(self.0.must_await()))
    }
}

impl Registry {
    /// Builds a service anew, with all services that are ready and depend on it, and makes all new
    /// instances current at one instant: a reload without an outage.
    ///
    /// The *members* of the reload are the service, which is its *root*, and its hard dependents,
    /// directly or not, that are ready. The [supervisor](Self::supervise) of each builds a new
    /// instance *aside*, while the old one serves: its builder is called again, and its waits for
    /// another member return the new instance of that one. All members build at the same time. When
    /// all are built, the *switch* makes them current. No reader finds a service that is not ready,
    /// and no [`get_all`](Self::get_all) finds old and new instances together. Two reads, one
    /// before the switch and one after it, do: code that needs two services of one configuration
    /// reads them with `get_all`.
    ///
    /// If one of them cannot be built, the reload is refused, and nothing has changed: the old
    /// instances serve, no failure is counted, and no backoff begins. The service is then
    /// [stale](crate::supervise::Stale) until a later reload succeeds, or its generation ends.
    ///
    /// A reload is a replacement of each member, in the same generation and with the next revision:
    /// services with other edges to it, such as a soft one, stay as they are. The old instances are
    /// drained and closed as replaced ones are.
    ///
    /// Until then memory holds two instances of each member: the new one from the end of its build
    /// on, and the old one until the last reader has let go of it. The builds are counted in the
    /// [limits](Self::limit_builds) as all others are.
    ///
    /// A newer reload of the same root supersedes this one before its switch. Reloads without a
    /// member in common run side by side. With one in common, the later one waits for the end of
    /// the earlier one.
    ///
    /// If a member was replaced before the switch, or another dependent has become ready, all
    /// members are built anew, at most 16 times. There is no other limit of the time: the builds
    /// have their [timeouts](crate::supervise::RestartPolicy::build_timeout), and the wait may have
    /// one.
    ///
    /// The reload begins at the first poll. If the wait is dropped before the switch, or its
    /// timeout expires, the reload is abandoned: what was built is dropped, and nothing has
    /// changed. After the switch it has ended.
    ///
    /// The thread of the caller executes the switch, in a poll of the wait: blocking, because it
    /// takes locks for a short time. It wakes the waiters of the members, and calls the observers.
    /// The time is that of n log n steps for n members and edges.
    ///
    /// A service that [adopts](crate::supervise::Supervisor::adopt) the new instance of a member is
    /// no member because of that edge. It is asked after the switch.
    ///
    /// # Services with a gap
    ///
    /// An [exclusive](crate::supervise::Supervisor::exclusive) service is never built aside: it is
    /// no member, and neither are its hard dependents. They are taken down at the switch, with the
    /// reason that the root was reloaded. Their supervisors build them again at once, each after
    /// its dependencies, and not as after a failure: nothing is counted. The old instances end as
    /// after a failure. No reader finds an instance of them that was built before the switch, once
    /// it has found the new instance of a member.
    ///
    /// The wait lasts until each of them is ready again, or has failed. The service is reloaded
    /// in any case, and [`restarted`](crate::supervise::Reloaded::restarted) names those that did
    /// not come up, each with its cause; so it does if the timeout of the wait expires in it.
    /// If the root has a gap, nothing is built aside, and the reload is a restart of all.
    ///
    /// They are taken down just before the new instances become current. If a member is replaced in
    /// that moment, so that nothing is switched, they have restarted for nothing.
    ///
    /// # Errors
    ///
    /// [`ReloadError`](crate::error::ReloadError).
    ///
    /// ```
    /// use mainstay::{error::WaitForError, supervise::Build, test_kit::TestRuntime};
    /// use std::sync::atomic::{AtomicU16, Ordering};
    ///
    /// static PORT: AtomicU16 = AtomicU16::new(80); // stands for a file
    ///
    /// let mut runtime = TestRuntime::new(2)?;
    /// let config = runtime.registry.register::<u16>("config")?;
    /// let server = runtime.registry.register::<String>("server")?;
    /// let run = runtime.registry.supervise(config)?;
    /// runtime.spawn(run.run(async |_: Build<u16>| PORT.load(Ordering::Relaxed)));
    /// let run = runtime.registry.supervise(server)?.run(async move |build: Build<String>| {
    ///     Ok::<_, WaitForError>(format!("localhost:{}", **build.wait_for(config).await?))
    /// });
    /// runtime.spawn(run);
    /// runtime.run_until_idle();
    ///
    /// PORT.store(8080, Ordering::Relaxed);
    /// let registry = runtime.registry.clone();
    /// runtime.spawn(async move {
    ///     let reloaded = registry.reload(config).await.unwrap();
    ///     assert_eq!(reloaded.members[1].service, "server");
    /// });
    /// runtime.run_until_idle();
    /// assert_eq!(*runtime.registry.get(server)?, "localhost:8080");
    /// assert_eq!(runtime.registry.status(server)?.generation, 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn reload(&self, id: impl Into<AnyId>) -> ReloadWait {
        ReloadHasEnded::new(self, id.into(), Builder)
    }

    /// Reloads a service as [`reload`](Self::reload) does, but only if no service would have a gap.
    ///
    /// # Errors
    ///
    /// [`ReloadError::Gap`](crate::error::ReloadError::Gap) names all services that would have one,
    /// also those that are provided by hand. Nothing is built then. The other errors are those of a
    /// reload.
    ///
    /// ```
    /// use mainstay::{error::ReloadError, supervise::Build, test_kit::TestRuntime};
    ///
    /// let mut runtime = TestRuntime::new(1)?;
    /// let port = runtime.registry.register::<u16>("port")?;
    /// runtime.spawn(runtime.registry.supervise(port)?.exclusive().run(async |_: Build<u16>| 80));
    /// runtime.run_until_idle();
    /// let registry = runtime.registry.clone();
    /// runtime.spawn(async move {
    ///     let error = registry.reload_without_gap(port).await.unwrap_err();
    ///     let text = "port was not reloaded: port (exclusive) would have a gap";
    ///     assert_eq!(error.to_string(), text);
    /// });
    /// runtime.run_until_idle();
    /// assert_eq!(runtime.registry.status(port)?.generation, 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn reload_without_gap(&self, id: impl Into<AnyId>) -> ReloadWait {
        let mut wait = self.reload(id);
        wait.condition_mut().0.gap_policy = GapPolicy::None;
        wait
    }

    /// Builds all members of a [reload](Self::reload), and drops what was built: says whether a
    /// reload would succeed now, how long the builds take, and which services would have a
    /// [gap](crate::supervise::Gap). These are not built.
    ///
    /// Nothing else changes, whatever it returns: no event is emitted, and the service is not
    /// stale. But the builders are called, and do what they do. A check waits for a reload with a
    /// member in common, and a reload of the same root supersedes it, as a newer check does.
    ///
    /// The waits, timeouts and drops are those of a reload.
    ///
    /// # Errors
    ///
    /// [`ReloadError`](crate::error::ReloadError): that of the reload.
    ///
    /// ```
    /// use mainstay::{error::ReloadError, supervise::Build, test_kit::TestRuntime};
    ///
    /// let mut runtime = TestRuntime::new(1)?;
    /// let port = runtime.registry.register::<u16>("port")?;
    /// let mut builds = 0;
    /// let run = runtime.registry.supervise(port)?.run(async move |_: Build<u16>| {
    ///     builds += 1;
    ///     if builds == 1 { Ok(80) } else { Err("no port is free") }
    /// });
    /// runtime.spawn(run);
    /// runtime.run_until_idle();
    /// let registry = runtime.registry.clone();
    /// runtime.spawn(async move {
    ///     let checked = registry.check_reload(port).await;
    ///     let Err(ReloadError::Refused { service, .. }) = checked else { panic!("it must fail") };
    ///     assert_eq!(service, "port");
    /// });
    /// runtime.run_until_idle();
    /// assert_eq!(runtime.registry.status(port)?.to_string(), "port: ready");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn check_reload(&self, id: impl Into<AnyId>) -> ReloadCheckWait {
        ReloadHasEnded::new(self, id.into(), Check)
    }
}

impl<R: Root> Wait<ReloadHasEnded<R>> {
    /// Lets services have a gap that cannot be built aside, because they are provided by hand, or
    /// their supervisor is not up: they are taken down at the switch, with their hard dependents.
    ///
    /// Without this, such a service refuses the reload, by name. Nothing but its provider can begin
    /// it again. A [constant](Registry::constant) has none, and is always refused. A
    /// [check](Registry::check_reload) lists such services with the others that would have a gap.
    ///
    /// ```
    /// use mainstay::{supervise::Build, test_kit::TestRuntime};
    ///
    /// let mut runtime = TestRuntime::new(2)?;
    /// let config = runtime.registry.register::<u16>("config")?;
    /// let server = runtime.registry.register::<u16>("server")?;
    /// runtime.registry.depends(server).on(config)?;
    /// runtime.spawn(runtime.registry.supervise(config)?.run(async |_: Build<u16>| 80));
    /// let provider = runtime.registry.provide(server)?;
    /// runtime.spawn(async move {
    ///     for value in 1.. {
    ///         let Ok(attempt) = provider.begin().await else { break };
    ///         let Ok(running) = attempt.ready(value) else { continue };
    ///         let _ = running.failed().await;
    ///     }
    /// });
    /// runtime.run_until_idle();
    /// let registry = runtime.registry.clone();
    /// runtime.spawn(async move {
    ///     assert!(registry.reload(config).await.is_err());
    ///     let reloaded = registry.reload(config).allow_gap().await.unwrap();
    ///     assert!(reloaded.restarted[0].not_ready.is_none());
    /// });
    /// runtime.run_until_idle();
    /// assert_eq!(*runtime.registry.get(server)?, 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn allow_gap(mut self) -> Self {
        self.condition_mut().0.gap_policy = GapPolicy::Any;
        self
    }
}

impl<T: Send + Sync + 'static> Live<T> {
    /// Replaces the value, together with the instances of all dependents, at one instant: as
    /// [`Registry::reload`], with this value as the new instance of the root.
    ///
    /// [`replace`](Self::replace) changes the value alone: dependents keep what they have built
    /// from the old one. This body continues, and its builder is not called. The dependents are
    /// built aside from the new value, and begin new bodies.
    ///
    /// If a build has used the value when something changes before the switch, the reload does not
    /// begin anew. Dependents may have a [gap](crate::supervise::Gap), and this
    /// service has none.
    ///
    /// # Errors
    ///
    /// [`ReloadValueError`](crate::error::ReloadValueError), which returns the value.
    ///
    /// ```
    /// use mainstay::{error::WaitForError, supervise::{Build, Live}, test_kit::TestRuntime};
    ///
    /// let mut runtime = TestRuntime::new(2)?;
    /// let config = runtime.registry.register::<u16>("config")?;
    /// let server = runtime.registry.register::<String>("server")?;
    /// let run = runtime.registry.supervise(config)?.body(async |live: Live<u16>| {
    ///     let server_is_up = live.registry().wait_all_ready().await;
    ///     let reloaded = live.reload(8080).await;
    ///     assert!(server_is_up.is_ok() && reloaded.is_ok());
    ///     live.stopping().await.map(|_| ())
    /// });
    /// runtime.spawn(run.run(async |_: Build<u16>| 80));
    /// let run = runtime.registry.supervise(server)?.run(async move |build: Build<String>| {
    ///     Ok::<_, WaitForError>(format!("localhost:{}", **build.wait_for(config).await?))
    /// });
    /// runtime.spawn(run);
    /// runtime.run_until_idle();
    /// assert_eq!(*runtime.registry.get(server)?, "localhost:8080");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn reload(&self, value: T) -> ReloadValueWait<T> {
        let root = Value::new(self.clone(), value);
        ReloadHasEnded::new(self.registry(), self.id().into(), root)
    }

    /// As [`reload`](Self::reload), but only if no service would have a gap; as
    /// [`Registry::reload_without_gap`].
    ///
    /// # Errors
    ///
    /// [`ReloadValueError`](crate::error::ReloadValueError), which returns the value.
    ///
    /// ```
    /// use mainstay::{supervise::{Build, Live}, test_kit::TestRuntime};
    ///
    /// let mut runtime = TestRuntime::new(1)?;
    /// let limit = runtime.registry.register::<u32>("limit")?;
    /// let run = runtime.registry.supervise(limit)?.body(async |live: Live<u32>| {
    ///     assert!(live.reload_without_gap(200).await.is_ok());
    ///     live.stopping().await.map(|_| ())
    /// });
    /// runtime.spawn(run.run(async |_: Build<u32>| 100));
    /// runtime.run_until_idle();
    /// assert_eq!(*runtime.registry.get(limit)?, 200);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn reload_without_gap(&self, value: T) -> ReloadValueWait<T> {
        let mut wait = self.reload(value);
        wait.condition_mut().0.gap_policy = GapPolicy::None;
        wait
    }
}
