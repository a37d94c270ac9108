//! `Build`, the handle of one build that a builder receives.

use std::{
    borrow::Cow,
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    build_wait::{BuildWait, BuildWaitFor, BuildWaitForAny},
    pending_attempt::BuildShared,
};
use crate::{
    error::DependencyError,
    failure::Failure,
    numbers::Generation,
    provide::{DependencyId, DependencyWait, GenerationEnded, Invalidated, WaitingFor, Watch},
    registry::Registry,
    service::{AnyId, ServiceId},
    waiting::Wait,
};

/// The handle of one build, which a builder receives.
///
/// The builder waits with it for the dependencies of the service, and it describes the build: its
/// number, its deadline, and the last failure.
///
/// The build ends when the builder returns or is dropped. A builder may keep the handle, but then
/// its waits return [`AttemptEnded`](crate::error::WaitForError::AttemptEnded).
///
/// ```
/// use mainstay::{Registry, error::WaitForError};
///
/// let registry = Registry::with_capacity(2)?;
/// let config = registry.register::<u16>("config")?;
/// let server = registry.register::<String>("server")?;
///
/// let supervisor = registry.supervise(config)?;
/// std::thread::spawn(|| supervisor.run_blocking(|_| Ok::<_, std::io::Error>(8080)));
/// let supervisor = registry.supervise(server)?;
/// std::thread::spawn(move || {
///     supervisor.run_blocking(|build| {
///         let port = build.wait_for(config).wait_blocking()?;
///         Ok::<_, WaitForError>(format!("localhost:{}, build {}", **port, build.number()))
///     })
/// });
/// assert_eq!(**registry.wait_ready(server).wait_blocking()?, "localhost:8080, build 1");
/// # registry.close();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Build<T: Send + Sync + 'static> {
    registry: Registry,
    id: ServiceId<T>,
    generation: Generation,
    pub(super) shared: Arc<BuildShared>,
    failures: u32,
    holders: usize,
}

impl<T: Send + Sync + 'static> Build<T> {
    pub(super) fn new(
        registry: &Registry,
        id: ServiceId<T>,
        generation: Generation,
        shared: Arc<BuildShared>,
        failures: u32,
        holders: usize,
    ) -> Self {
        Self { registry: registry.clone(), id, generation, shared, failures, holders }
    }

    /// Waits until a service is ready, and makes it a hard dependency.
    ///
    /// If the dependency fails later, the build is invalidated, or the instance that it has built
    /// fails. As [`Attempt::wait_for`](crate::Attempt::wait_for); in addition, the time of the wait
    /// does not count as build time. The wait is cancel-safe.
    ///
    /// # Errors
    ///
    /// [`WaitForError`](crate::error::WaitForError): the build was invalidated or has ended, the
    /// dependency depends on this service, the registry was closed, or the id belongs to another
    /// registry.
    ///
    /// A builder may return any of these errors by `?`. If the build was invalidated, its result is
    /// ignored, and the service is built again.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(2)?;
    /// # let config = registry.register::<String>("config")?;
    /// # let port = registry.register::<u16>("port")?;
    /// let supervisor = registry.supervise(port)?;
    /// std::thread::spawn(move || {
    ///     supervisor.run_blocking(|build| {
    ///         let config = build.wait_for(config).wait_blocking()?;
    ///         Ok::<u16, Box<dyn std::error::Error + Send + Sync>>(config.parse()?)
    ///     })
    /// });
    /// let provider = registry.provide(config)?;
    /// let _config = provider.begin().wait_blocking()?.ready("80".to_string())?;
    /// assert_eq!(**registry.wait_ready(port).wait_blocking()?, 80);
    /// # registry.close();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn wait_for<D: Send + Sync + 'static>(
        &self,
        dependency: ServiceId<D>,
    ) -> BuildWaitFor<'_, D> {
        self.wait(dependency, false, None)
    }

    /// Waits until a service is ready that is needed only during the build: a start-only
    /// dependency.
    ///
    /// If the dependency fails during the build, the build is invalidated. Its later failures do
    /// not affect the instance. As [`Attempt::wait_to_start`](crate::Attempt::wait_to_start).
    ///
    /// # Errors
    ///
    /// As [`wait_for`](Self::wait_for).
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(2)?;
    /// # let config = registry.register::<String>("config")?;
    /// # let port = registry.register::<u16>("port")?;
    /// let supervisor = registry.supervise(port)?;
    /// std::thread::spawn(move || {
    ///     supervisor.run_blocking(|build| {
    ///         let config = build.wait_to_start(config).wait_blocking()?;
    ///         Ok::<u16, Box<dyn std::error::Error + Send + Sync>>(config.parse()?)
    ///     })
    /// });
    /// let provider = registry.provide(config)?;
    /// let edited = provider.begin().wait_blocking()?.ready("80".to_string())?;
    /// registry.wait_ready(port).wait_blocking()?;
    /// # while !registry.status(port)?.dependencies.is_empty() { std::thread::yield_now(); }
    /// edited.fail("edited");
    /// assert_eq!(*registry.get(port)?, 80);
    /// # registry.close();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn wait_to_start<D: Send + Sync + 'static>(
        &self,
        dependency: ServiceId<D>,
    ) -> BuildWaitFor<'_, D> {
        self.wait(dependency, true, None)
    }

    /// Waits until a service of any type is ready, makes it a hard dependency, and returns what
    /// identifies its instance.
    ///
    /// As [`wait_for`](Self::wait_for), by an untyped id
    /// ([`Attempt::wait_for_any`](crate::Attempt::wait_for_any)).
    ///
    /// # Errors
    ///
    /// As [`wait_for`](Self::wait_for).
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(2)?;
    /// # let config = registry.register::<String>("config")?;
    /// # let port = registry.register::<u64>("port")?;
    /// let config_id = registry.find("config")?;
    /// let supervisor = registry.supervise(port)?;
    /// std::thread::spawn(move || {
    ///     supervisor.run_blocking(|build| {
    ///         let config = build.wait_for_any(config_id).wait_blocking()?;
    ///         Ok::<_, mainstay::error::WaitForError>(80 + config.generation.get())
    ///     })
    /// });
    /// let provider = registry.provide(config)?;
    /// let _config = provider.begin().wait_blocking()?.ready("port = 80".to_string())?;
    /// assert_eq!(**registry.wait_ready(port).wait_blocking()?, 80);
    /// # registry.close();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn wait_for_any(&self, dependency: impl Into<AnyId>) -> BuildWaitForAny<'_> {
        self.wait(dependency.into(), false, None)
    }

    /// Waits until a service of any type is ready, makes it a start-only dependency, and returns
    /// what identifies its instance.
    ///
    /// As [`wait_to_start`](Self::wait_to_start), by an untyped id.
    ///
    /// # Errors
    ///
    /// As [`wait_for`](Self::wait_for).
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(2)?;
    /// # let config = registry.register::<String>("config")?;
    /// # let port = registry.register::<u64>("port")?;
    /// let config_id = registry.find("config")?;
    /// let supervisor = registry.supervise(port)?;
    /// std::thread::spawn(move || {
    ///     supervisor.run_blocking(|build| {
    ///         let config = build.wait_to_start_any(config_id).wait_blocking()?;
    ///         Ok::<_, mainstay::error::WaitForError>(80 + config.generation.get())
    ///     })
    /// });
    /// let provider = registry.provide(config)?;
    /// let _config = provider.begin().wait_blocking()?.ready("port = 80".to_string())?;
    /// assert_eq!(**registry.wait_ready(port).wait_blocking()?, 80);
    /// # registry.close();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn wait_to_start_any(&self, dependency: impl Into<AnyId>) -> BuildWaitForAny<'_> {
        self.wait(dependency.into(), true, None)
    }

    /// Waits until a service is ready, and tolerates its absence later, for a grace period.
    ///
    /// If the dependency fails during the build, the build is invalidated. After the publication,
    /// the instance does not fail together with the dependency. It fails only if the dependency is
    /// not ready again when the grace period ends, with the reason
    /// [`Reason::GraceExpired`](crate::Reason::GraceExpired). This failure is not counted against
    /// this service.
    ///
    /// Only a wait that has returned an instance has this effect. A wait that was dropped or has
    /// timed out has none: the service is not built from this dependency, and does not depend on
    /// it. If several waits of one build return an instance of the same dependency, the shortest of
    /// their periods counts.
    ///
    /// The grace period begins when the supervisor finds the dependency not ready, and is measured
    /// by the clock of the registry. An absence that begins and ends between two polls of the
    /// supervisor is not noticed.
    ///
    /// The instance must not keep the instance of the dependency that this wait returned, as that
    /// one may have failed. It should read the dependency at each use ([`Registry::get`]), or
    /// [watch](Self::watch) it.
    ///
    /// # Errors
    ///
    /// As [`wait_for`](Self::wait_for).
    ///
    /// ```
    /// use std::{thread, time::Duration};
    ///
    /// # let registry = mainstay::Registry::with_capacity(2)?;
    /// # let database = registry.register::<u8>("database")?;
    /// # let pages = registry.register::<&str>("pages")?;
    /// let supervisor = registry.supervise(pages)?;
    /// thread::spawn(move || {
    ///     supervisor.run_blocking(|build| {
    ///         build.wait_with_grace(database, Duration::from_secs(5)).wait_blocking()?;
    ///         Ok::<_, mainstay::error::WaitForError>("cached pages")
    ///     })
    /// });
    /// let provider = registry.provide(database)?;
    /// let connection = provider.begin().wait_blocking()?.ready(1)?;
    /// registry.wait_ready(pages).wait_blocking()?;
    /// # while registry.status(pages)?.dependencies.len() != 1 { thread::yield_now(); }
    ///
    /// connection.fail("reset by peer");
    /// let _connection = provider.begin().wait_blocking()?.ready(2)?;
    /// assert_eq!(*registry.get(pages)?, "cached pages");
    /// # registry.close();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn wait_with_grace<D: Send + Sync + 'static>(
        &self,
        dependency: ServiceId<D>,
        grace: Duration,
    ) -> BuildWaitFor<'_, D> {
        self.wait(dependency, true, Some(grace))
    }

    /// Makes a service a soft dependency, and returns a watch that reports its changes.
    ///
    /// The watch reports when the dependency fails, is replaced, or is ready again; the instance
    /// does not fail with it. Does not wait for the dependency. As
    /// [`Attempt::watch`](crate::Attempt::watch).
    ///
    /// # Errors
    ///
    /// [`DependencyError`]: the edge would close a cycle, the build has ended, or the id belongs to
    /// another registry.
    ///
    /// ```
    /// use mainstay::{Watch, WatchEvent};
    ///
    /// struct Pages {
    ///     cache: std::sync::Mutex<Watch<u8>>,
    /// }
    ///
    /// # let registry = mainstay::Registry::with_capacity(2)?;
    /// # let cache = registry.register::<u8>("cache")?;
    /// # let pages = registry.register::<Pages>("pages")?;
    /// let supervisor = registry.supervise(pages)?;
    /// std::thread::spawn(move || {
    ///     supervisor.run_blocking(|build| {
    ///         let cache = build.watch(cache)?.into();
    ///         Ok::<_, mainstay::error::DependencyError>(Pages { cache })
    ///     })
    /// });
    /// let pages = registry.wait_ready(pages).wait_blocking()?;
    /// let provider = registry.provide(cache)?;
    /// let _cache = provider.begin().wait_blocking()?.ready(1)?;
    /// let mut watch = pages.cache.lock().unwrap();
    /// assert!(matches!(watch.changed().wait_blocking()?, WatchEvent::Ready(_)));
    /// # registry.close();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn watch<D: Send + Sync + 'static>(
        &self,
        dependency: ServiceId<D>,
    ) -> Result<Watch<D>, DependencyError> {
        let Self { registry, shared, generation, .. } = self;
        // A `Build` that was kept must not add edges to a later attempt, or to the instance.
        let not_ended = || match shared.ended.is_set() {
            true => Err(DependencyError::AttemptEnded {
                service: registry.store().name(self.id.index()),
            }),
            false => Ok(()),
        };
        not_ended()?;
        let (index, edges) = (self.id.index(), &shared.edges);
        let watch = match &shared.aside {
            None => Watch::of_attempt(registry, dependency, index, *generation, edges)?,
            Some(aside) => aside.watch(registry, edges, (index, *generation), dependency)?,
        };
        // Again, as for a wait that has received an instance.
        not_ended()?;
        Ok(watch)
    }

    fn wait<I: DependencyId>(
        &self,
        id: I,
        start_only: bool,
        grace: Option<Duration>,
    ) -> Wait<BuildWait<'_, I>> {
        let Self { registry, shared, .. } = self;
        let attempt = (self.id.index(), self.generation);
        let wait = DependencyWait::new(registry, attempt, &shared.edges, id, start_only);
        Wait::new(BuildWait { wait, shared, grace, has_begun: false })
    }

    /// Shows in the status of the service what the build waits for, until the returned handle is
    /// dropped or the build ends ([`ServiceStatus::waiting_for`]).
    ///
    /// As [`Attempt::waiting_for`](crate::Attempt::waiting_for). The wait counts as build time.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<u16>("port")?;
    /// let supervisor = registry.supervise(port)?;
    /// std::thread::spawn(move || {
    ///     supervisor.run_blocking(|build| {
    ///         let _waiting = build.waiting_for("the lease of the address");
    ///         while build.generation() == 0 && !build.is_invalidated() {
    ///             std::thread::yield_now();
    ///         }
    ///         Ok::<u16, std::io::Error>(80)
    ///     })
    /// });
    /// while registry.status(port)?.waiting_for.as_deref() != Some("the lease of the address") {
    ///     std::thread::yield_now();
    /// }
    /// registry.fail(port, "granted")?;
    /// registry.wait_ready(port).wait_blocking()?;
    /// assert!(registry.status(port)?.waiting_for.is_none());
    /// # registry.close();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// [`ServiceStatus::waiting_for`]: crate::ServiceStatus::waiting_for
    pub fn waiting_for(&self, what: impl Into<Cow<'static, str>>) -> WaitingFor<'_> {
        let waiting =
            WaitingFor::new(&self.registry, self.id.index(), self.generation, what.into());
        // The end of a build sets the flag, and then ends all waits. So either it finds this wait,
        // or this finds the flag: a `Build` that was kept shows nothing at a later attempt.
        if self.shared.ended.is_set() {
            waiting.end();
        }
        waiting
    }

    /// Returns whether the value of this build can no longer be published.
    ///
    /// This is so if a failure has invalidated the build, if the build has ended, or if the reload
    /// for which it builds is over. An async build is then dropped by the supervisor. A blocking
    /// build that takes long should call this from time to time, and return.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(2)?;
    /// # let config = registry.register::<String>("config")?;
    /// # let port = registry.register::<u16>("port")?;
    /// let supervisor = registry.supervise(port)?;
    /// std::thread::spawn(move || {
    ///     supervisor.run_blocking(|build| {
    ///         // A build that takes long.
    ///         while build.generation() == 0 && !build.is_invalidated() {
    ///             std::thread::yield_now();
    ///         }
    ///         Ok::<u16, std::io::Error>(80)
    ///     })
    /// });
    /// while registry.fail(port, "edited")?.invalidated == 0 {
    ///     std::thread::yield_now();
    /// }
    /// registry.wait_ready(port).wait_blocking()?;
    /// assert_eq!(registry.status(port)?.generation, 1);
    /// # registry.close();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn is_invalidated(&self) -> bool {
        let (store, index) = (self.registry.store(), self.id.index());
        self.shared.ended.is_set()
            || match &self.shared.aside {
                None => !store.is_starting(index, self.generation),
                Some(aside) => {
                    store.slot(index).state.load().generation() > self.generation
                        || aside.reload.is_over()
                }
            }
    }

    /// Waits until a failure invalidates the build, and returns this failure.
    ///
    /// For a blocking build that waits for something else at the same time, or for a task that the
    /// build has spawned. Cancel-safe. In a build for a reload it also ends when the reload is
    /// over, with the reason
    /// [`BuildFailure::Abandoned`](crate::supervise::BuildFailure::Abandoned).
    ///
    /// # Errors
    ///
    /// As [`Attempt::invalidated`](crate::Attempt::invalidated).
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(2)?;
    /// # let config = registry.register::<String>("config")?;
    /// # let port = registry.register::<u16>("port")?;
    /// let supervisor = registry.supervise(port)?;
    /// std::thread::spawn(move || {
    ///     supervisor.run_blocking(|build| {
    ///         if build.generation() == 0 {
    ///             let failure = build.invalidated().wait_blocking()?;
    ///             assert_eq!(failure.reason.to_string(), "edited");
    ///         }
    ///         Ok::<u16, mainstay::error::WaitError>(80)
    ///     })
    /// });
    /// while registry.fail(port, "edited")?.invalidated == 0 {
    ///     std::thread::yield_now();
    /// }
    /// registry.wait_ready(port).wait_blocking()?;
    /// assert_eq!(registry.status(port)?.generation, 1);
    /// # registry.close();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn invalidated(&self) -> Invalidated {
        let reload = self.shared.aside.as_ref().map(|aside| Arc::clone(&aside.reload));
        GenerationEnded::wait_aside(&self.registry, self.id.index(), self.generation, reload)
    }

    /// Returns the generation under which the value will be published.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<u64>("port")?;
    /// let supervisor = registry.supervise(port)?;
    /// std::thread::spawn(|| supervisor.run_blocking(|build| {
    ///     Ok::<_, std::io::Error>(build.generation().get())
    /// }));
    /// assert_eq!(**registry.wait_ready(port).wait_blocking()?, 0);
    /// # registry.close();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// Returns the number of this build: 1, plus the number of counted failures.
    ///
    /// Failures are counted since the last [stable](crate::supervise::RestartPolicy::reset_after)
    /// instance or restart. A build that follows a failure of a dependency has the same number
    /// again.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<u32>("port")?;
    /// let supervisor = registry.supervise(port)?;
    /// std::thread::spawn(|| supervisor.run_blocking(|build| match build.number() {
    ///     1 => Err("not at once"),
    ///     number => Ok(number),
    /// }));
    /// assert_eq!(**registry.wait_ready(port).wait_blocking()?, 2);
    /// # registry.close();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn number(&self) -> u32 {
        self.failures.saturating_add(1)
    }

    /// Returns the number of references to the previous instance that remained when the
    /// [drain timeout](crate::supervise::RestartPolicy::drain_timeout) expired.
    ///
    /// 0 if the instance was drained in time, or if the policy does not drain.
    ///
    /// ```
    /// use mainstay::supervise::RestartPolicy;
    /// use std::time::Duration;
    ///
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<usize>("port")?;
    /// let policy = RestartPolicy::default().drain_timeout(Duration::from_millis(1));
    /// let supervisor = registry.supervise(port)?.restart_policy(policy);
    /// std::thread::spawn(|| {
    ///     supervisor.run_blocking(|build| Ok::<_, std::io::Error>(build.holders()))
    /// });
    /// let request = registry.wait_ready(port).wait_blocking()?; // keeps the instance
    /// registry.fail(port, "moved")?;
    /// assert_eq!(**registry.wait_ready(port).wait_blocking()?, 1);
    /// # drop(request);
    /// # registry.close();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn holders(&self) -> usize {
        self.holders
    }

    /// Returns the last failure of an instance or of a build, which is why the service is built
    /// again. `None` for the first build.
    ///
    /// If this build was invalidated, this is the failure that has invalidated it. The result is
    /// the same as that of [`Registry::status`].
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<String>("port")?;
    /// let supervisor = registry.supervise(port)?;
    /// std::thread::spawn(|| supervisor.run_blocking(|build| match build.last_failure() {
    ///     None => Err("no port is free"),
    ///     Some(failure) => Ok(format!("after: {}", failure.reason)),
    /// }));
    /// assert_eq!(**registry.wait_ready(port).wait_blocking()?, "after: no port is free");
    /// # registry.close();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn last_failure(&self) -> Option<Failure> {
        self.registry.store().last_failure(self.id.index())
    }

    /// Returns the deadline of the build, by the clock of the registry.
    ///
    /// `None` without a [build timeout](crate::supervise::RestartPolicy::build_timeout). A build
    /// that exceeds its deadline has failed, and this failure is counted. The time of waits for
    /// dependencies is not included, so each wait moves the deadline.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<bool>("port")?;
    /// let supervisor = registry.supervise(port)?;
    /// std::thread::spawn(|| {
    ///     supervisor.run_blocking(|build| Ok::<_, std::io::Error>(build.deadline().is_some()))
    /// });
    /// assert!(!**registry.wait_ready(port).wait_blocking()?); // no limit by default
    /// # registry.close();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn deadline(&self) -> Option<Instant> {
        self.shared.timer.deadline(self.registry.clock().now())
    }

    /// Returns the registry of the service.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<usize>("port")?;
    /// let supervisor = registry.supervise(port)?;
    /// std::thread::spawn(|| {
    ///     supervisor.run_blocking(|build| Ok::<_, std::io::Error>(build.registry().capacity()))
    /// });
    /// assert_eq!(**registry.wait_ready(port).wait_blocking()?, 1);
    /// # registry.close();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn registry(&self) -> &Registry {
        &self.registry
    }
}

impl<T: Send + Sync + 'static> fmt::Debug for Build<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Build")
            .field("service", &self.registry.store().name(self.id.index()))
            .field("generation", &self.generation)
            .field("number", &self.number())
            .finish()
    }
}
