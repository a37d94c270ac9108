//! One build, in the builder's hands.

use std::{
    fmt,
    ops::Deref,
    sync::Arc,
    time::{Duration, Instant},
};

use super::BuildTime;
use crate::{
    dependency::{Dependency, Need, Uses},
    error::{DependencyError, WaitError, WaitForError},
    failure::Failure,
    provider::Attempt,
    registry::Registry,
    running::Over,
    service::{Instance, ServiceId},
    sync::{Flag, Shielded},
    wait::{Wait, sealed::Condition},
    watch::Watch,
};

/// What a builder is given for one build: what it is built from is waited for by it, and it knows why it is built.
///
/// It is over once the builder has returned; later waits of one that was kept end with [`WaitForError::Over`].
///
/// ```
/// use mainstay::Registry;
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
///         let port = build.wait_for(config).wait()?;
///         Ok::<_, mainstay::WaitForError>(format!("localhost:{}, generation {}", **port, build.generation()))
///     })
/// });
/// assert_eq!(**registry.wait_ready(server).wait()?, "localhost:8080, generation 0");
/// # registry.close();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Build<T: Send + Sync + 'static> {
    registry: Registry,
    id: ServiceId<T>,
    generation: u64,
    shared: Arc<Shared>,
    charges: u32,
    holders: usize,
    /// Of its reason this may be the last holder.
    last_failure: Shielded<Option<Failure>>,
}

/// What a build and its attempt have in common.
struct Shared {
    uses: Uses,
    over: Flag,
    time: BuildTime,
}

/// The attempt of a build, which stays with the supervisor; however it ends, the build is over by then.
pub(super) struct Ahead<T: Send + Sync + 'static> {
    attempt: Option<Attempt<T>>,
    shared: Arc<Shared>,
}

/// Parts an attempt from what its builder may do with it.
pub(super) fn begin<T: Send + Sync + 'static>(
    attempt: Attempt<T>,
    charges: u32,
    holders: usize,
    time: BuildTime,
) -> (Ahead<T>, Build<T>) {
    let shared = Arc::new(Shared { uses: Uses::default(), over: Flag::new(), time });
    let Attempt { registry, id, generation, .. } = &attempt;
    let build = Build {
        registry: registry.clone(),
        id: *id,
        generation: *generation,
        shared: Arc::clone(&shared),
        charges,
        holders,
        last_failure: Shielded::new(registry.store().last_failure(id.index())),
    };
    (Ahead { attempt: Some(attempt), shared }, build)
}

impl<T: Send + Sync + 'static> Ahead<T> {
    /// How long the build may take.
    pub(super) fn time(&self) -> &BuildTime {
        &self.shared.time
    }

    /// Ends the build.
    pub(super) fn end(mut self) -> Attempt<T> {
        match self.take() {
            Some(attempt) => attempt,
            None => unreachable!("it is taken out only at its end"),
        }
    }

    fn take(&mut self) -> Option<Attempt<T>> {
        self.shared.over.raise();
        let attempt = self.attempt.take()?;
        attempt.uses.take(&self.shared.uses);
        Some(attempt)
    }
}

impl<T: Send + Sync + 'static> Deref for Ahead<T> {
    type Target = Attempt<T>;

    fn deref(&self) -> &Attempt<T> {
        match &self.attempt {
            Some(attempt) => attempt,
            None => unreachable!("it is taken out only at its end"),
        }
    }
}

impl<T: Send + Sync + 'static> Drop for Ahead<T> {
    fn drop(&mut self) {
        drop(self.take());
    }
}

impl<T: Send + Sync + 'static> Build<T> {
    /// Waits for a service to be ready, and makes it a dependency: what is built fails with it from here on. As
    /// [`Attempt::wait_for`].
    ///
    /// # Errors
    ///
    /// [`WaitForError`]. Of an overtaken build it does not matter what the builder returns: it is built again.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(2)?;
    /// # let (config, port) = (registry.register::<String>("config")?, registry.register::<u16>("port")?);
    /// let supervisor = registry.supervise(port)?;
    /// std::thread::spawn(move || {
    ///     supervisor.run_blocking(|build| {
    ///         let config = build.wait_for(config).wait()?;
    ///         Ok::<u16, Box<dyn std::error::Error + Send + Sync>>(config.parse()?)
    ///     })
    /// });
    /// let provider = registry.provide(config)?;
    /// let _config = provider.begin().wait()?.ready("80".to_string())?;
    /// assert_eq!(**registry.wait_ready(port).wait()?, 80);
    /// # registry.close();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn wait_for<D: Send + Sync + 'static>(
        &self,
        dependency: ServiceId<D>,
    ) -> Wait<impl Condition<Output = Result<Arc<Instance<D>>, WaitForError>> + use<'_, T, D>> {
        self.wait(dependency, Need::Always)
    }

    /// Waits for a service to be ready that is needed to build this one, and of no matter after that. As
    /// [`Attempt::wait_to_start`].
    ///
    /// # Errors
    ///
    /// As [`wait_for`](Self::wait_for).
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(2)?;
    /// # let (config, port) = (registry.register::<String>("config")?, registry.register::<u16>("port")?);
    /// let supervisor = registry.supervise(port)?;
    /// std::thread::spawn(move || {
    ///     supervisor.run_blocking(|build| {
    ///         let config = build.wait_to_start(config).wait()?;
    ///         Ok::<u16, Box<dyn std::error::Error + Send + Sync>>(config.parse()?)
    ///     })
    /// });
    /// let provider = registry.provide(config)?;
    /// let edited = provider.begin().wait()?.ready("80".to_string())?;
    /// registry.wait_ready(port).wait()?;
    /// # while !registry.status(port)?.dependencies.is_empty() { std::thread::yield_now(); }
    /// edited.fail("edited");
    /// assert_eq!(*registry.get(port)?, 80);
    /// # registry.close();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn wait_to_start<D: Send + Sync + 'static>(
        &self,
        dependency: ServiceId<D>,
    ) -> Wait<impl Condition<Output = Result<Arc<Instance<D>>, WaitForError>> + use<'_, T, D>> {
        self.wait(dependency, Need::ToStart)
    }

    /// Waits for a service to be ready, and says that what is built can stand it to be away for so long: when it fails
    /// and is back within that time, this does not fail.
    ///
    /// Until what is built is published, it is a dependency like any other. After that, whoever uses it reads it anew each
    /// time, by [`Registry::get`], or [watches](Self::watch) it: the instance that was waited for may be gone. It is away
    /// from when the supervisor finds it not ready, by the registry's clock; where it is not back in time, this fails with
    /// [`Reason::NotBack`](crate::Reason::NotBack), which is not charged to it.
    ///
    /// # Errors
    ///
    /// As [`wait_for`](Self::wait_for).
    ///
    /// ```
    /// use std::{thread, time::Duration};
    ///
    /// # let registry = mainstay::Registry::with_capacity(2)?;
    /// # let (database, pages) = (registry.register::<u8>("database")?, registry.register::<&str>("pages")?);
    /// let supervisor = registry.supervise(pages)?;
    /// thread::spawn(move || {
    ///     supervisor.run_blocking(|build| {
    ///         build.wait_with_grace(database, Duration::from_secs(5)).wait()?;
    ///         Ok::<_, mainstay::WaitForError>("those that are cached")
    ///     })
    /// });
    /// let provider = registry.provide(database)?;
    /// let connection = provider.begin().wait()?.ready(1)?;
    /// registry.wait_ready(pages).wait()?;
    /// # while registry.status(pages)?.dependencies.len() != 1 { thread::yield_now(); }
    ///
    /// connection.fail("reset by peer");
    /// let _connection = provider.begin().wait()?.ready(2)?;
    /// assert_eq!(*registry.get(pages)?, "those that are cached");
    /// # registry.close();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn wait_with_grace<D: Send + Sync + 'static>(
        &self,
        dependency: ServiceId<D>,
        grace: Duration,
    ) -> Wait<impl Condition<Output = Result<Arc<Instance<D>>, WaitForError>> + use<'_, T, D>> {
        self.wait(dependency, Need::Within(grace))
    }

    /// Makes a service a soft dependency: what is built is told when that fails, is replaced, or is back. As
    /// [`Attempt::watch`].
    ///
    /// # Errors
    ///
    /// [`DependencyError`].
    ///
    /// ```
    /// use mainstay::{Change, Watch};
    ///
    /// struct Pages {
    ///     cache: std::sync::Mutex<Watch<u8>>,
    /// }
    ///
    /// # let registry = mainstay::Registry::with_capacity(2)?;
    /// # let (cache, pages) = (registry.register::<u8>("cache")?, registry.register::<Pages>("pages")?);
    /// let supervisor = registry.supervise(pages)?;
    /// std::thread::spawn(move || {
    ///     supervisor.run_blocking(|build| {
    ///         let cache = build.watch(cache)?.into();
    ///         Ok::<_, mainstay::DependencyError>(Pages { cache })
    ///     })
    /// });
    /// let pages = registry.wait_ready(pages).wait()?;
    /// let provider = registry.provide(cache)?;
    /// let _cache = provider.begin().wait()?.ready(1)?;
    /// assert!(matches!(pages.cache.lock().unwrap().changed().wait()?, Change::Ready(_)));
    /// # registry.close();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn watch<D: Send + Sync + 'static>(
        &self,
        dependency: ServiceId<D>,
    ) -> Result<Watch<D>, DependencyError> {
        let (index, generation) = (self.id.index(), self.generation);
        Watch::of_attempt(&self.registry, dependency, index, generation, &self.shared.uses)
    }

    fn wait<D: Send + Sync + 'static>(
        &self,
        dependency: ServiceId<D>,
        need: Need,
    ) -> Wait<impl Condition<Output = Result<Arc<Instance<D>>, WaitForError>> + use<'_, T, D>> {
        Wait::new(Dependency {
            registry: &self.registry,
            dependent: self.id.index(),
            generation: self.generation,
            uses: &self.shared.uses,
            over: Some(&self.shared.over),
            time: Some(&self.shared.time),
            id: dependency,
            need,
            known: false,
        })
    }

    /// Whether what is built can no longer be published: a failure has overtaken it, or it is over.
    ///
    /// An async build is dropped in that case, and need not ask. A blocking one that takes long should, now and then.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(2)?;
    /// # let (config, port) = (registry.register::<String>("config")?, registry.register::<u16>("port")?);
    /// let supervisor = registry.supervise(port)?;
    /// std::thread::spawn(move || {
    ///     supervisor.run_blocking(|build| {
    ///         // It takes long.
    ///         while build.generation() == 0 && !build.is_overtaken() {
    ///             std::thread::yield_now();
    ///         }
    ///         Ok::<u16, std::io::Error>(80)
    ///     })
    /// });
    /// while registry.fail(port, "not that one")?.overtaken == 0 {
    ///     std::thread::yield_now();
    /// }
    /// registry.wait_ready(port).wait()?;
    /// assert_eq!(registry.status(port)?.generation, 1);
    /// # registry.close();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn is_overtaken(&self) -> bool {
        self.shared.over.is_up()
            || !self.registry.store().is_starting(self.id.index(), self.generation)
    }

    /// Waits until a failure overtakes the build.
    ///
    /// # Errors
    ///
    /// As [`Attempt::overtaken`].
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(2)?;
    /// # let (config, port) = (registry.register::<String>("config")?, registry.register::<u16>("port")?);
    /// let supervisor = registry.supervise(port)?;
    /// std::thread::spawn(move || {
    ///     supervisor.run_blocking(|build| {
    ///         // A build that waits for something else would wait for both.
    ///         if build.generation() == 0 {
    ///             assert_eq!(build.overtaken().wait()?.to_string(), "port failed: not that one");
    ///         }
    ///         Ok::<u16, mainstay::WaitError>(80)
    ///     })
    /// });
    /// while registry.fail(port, "not that one")?.overtaken == 0 {
    ///     std::thread::yield_now();
    /// }
    /// registry.wait_ready(port).wait()?;
    /// assert_eq!(registry.status(port)?.generation, 1);
    /// # registry.close();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn overtaken(
        &self,
    ) -> Wait<impl Condition<Output = Result<Failure, WaitError>> + use<'_, T>> {
        Wait::new(Over { registry: &self.registry, id: self.id, generation: self.generation })
    }

    /// The generation that the value will have.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<u64>("port")?;
    /// let supervisor = registry.supervise(port)?;
    /// std::thread::spawn(|| supervisor.run_blocking(|build| Ok::<_, std::io::Error>(build.generation())));
    /// assert_eq!(**registry.wait_ready(port).wait()?, 0);
    /// # registry.close();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The number of the try: 1, and one more for each charge since the service was last stable.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<u32>("port")?;
    /// let supervisor = registry.supervise(port)?;
    /// std::thread::spawn(|| supervisor.run_blocking(|build| match build.number() {
    ///     1 => Err("not at once"),
    ///     number => Ok(number),
    /// }));
    /// assert_eq!(**registry.wait_ready(port).wait()?, 2);
    /// # registry.close();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn number(&self) -> u32 {
        self.charges.saturating_add(1)
    }

    /// How many still held an instance of the generation before when the time to [drain](crate::Restart::drain_within) it
    /// was over: 0 where it was drained, or was not to be.
    ///
    /// ```
    /// use mainstay::Restart;
    /// use std::time::Duration;
    ///
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<usize>("port")?;
    /// let restart = Restart::default().drain_within(Duration::from_millis(1));
    /// let supervisor = registry.supervise(port)?.restart(restart);
    /// std::thread::spawn(|| supervisor.run_blocking(|build| Ok::<_, std::io::Error>(build.holders())));
    /// let request = registry.wait_ready(port).wait()?; // and it does not end
    /// registry.fail(port, "moved")?;
    /// assert_eq!(**registry.wait_ready(port).wait()?, 1);
    /// # drop(request);
    /// # registry.close();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn holders(&self) -> usize {
        self.holders
    }

    /// Why the service is built again: the last failure of an instance, or of a build. `None` at the first.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<String>("port")?;
    /// let supervisor = registry.supervise(port)?;
    /// std::thread::spawn(|| supervisor.run_blocking(|build| match build.last_failure() {
    ///     None => Err("no port is free"),
    ///     Some(failure) => Ok(failure.to_string()),
    /// }));
    /// assert_eq!(**registry.wait_ready(port).wait()?, "port failed: no port is free");
    /// # registry.close();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn last_failure(&self) -> Option<&Failure> {
        self.last_failure.as_ref()
    }

    /// By when it must be done, by the registry's clock, if there is a
    /// [timeout](crate::Restart::build_timeout). Where it is not, that is charged. Later by as long as it waits for what it
    /// is built from.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<bool>("port")?;
    /// let supervisor = registry.supervise(port)?;
    /// std::thread::spawn(|| supervisor.run_blocking(|build| Ok::<_, std::io::Error>(build.deadline().is_some())));
    /// assert!(!**registry.wait_ready(port).wait()?); // it may take as long as it likes
    /// # registry.close();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn deadline(&self) -> Option<Instant> {
        self.shared.time.end(self.registry.clock().now())
    }

    /// The registry that it is built for.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<usize>("port")?;
    /// let supervisor = registry.supervise(port)?;
    /// std::thread::spawn(|| supervisor.run_blocking(|build| Ok::<_, std::io::Error>(build.registry().list().services.len())));
    /// assert_eq!(**registry.wait_ready(port).wait()?, 1);
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
