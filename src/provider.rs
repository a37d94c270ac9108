//! The provider's loop: begin, wait for what it is built from, ready, failed, and again.

use std::{
    error::Error,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    dependency::{Dependency, Need, Uses},
    drain::Tracked,
    error::{BeginError, DependencyError, ProvideError, ReadyError, WaitError, WaitForError},
    event::EventKind,
    failure::{Failure, Reason},
    registry::Registry,
    running::{Over, Running, debug_by_service},
    service::{Instance, ServiceId},
    store::{Refused, Store, Target},
    sync::Shielded,
    wait::{Wait, sealed::Condition},
    watch::Watch,
};

/// The exclusive role of providing one service; from [`Registry::provide`].
///
/// Its work is a loop of four steps, the same on an executor (`.await`) and on a plain thread (`.wait()`).
/// Dropping the provider fails the service, and the role is free again.
///
/// A provider that has to pause before it tries again best does so inside the next attempt, and ends the pause
/// when that is [overtaken](Attempt::overtaken) or the registry closed: then a failure that is worth a new try at once
/// is one.
///
/// ```
/// use mainstay::{BeginError, Registry, ServiceId, WaitForError};
/// # type Result = std::result::Result<(), Box<dyn std::error::Error>>;
///
/// async fn provide_greeting(registry: Registry, name: ServiceId<String>) -> Result {
///     let greeting = registry.register::<String>("greeting")?;
///     let provider = registry.provide(greeting)?;
///     loop {
///         let attempt = match provider.begin().await {
///             Err(BeginError::Closed { .. }) => return Ok(()),
///             attempt => attempt?,
///         };
///         let name = match attempt.wait_for(name).await {
///             Err(WaitForError::Overtaken(_)) => continue,
///             name => name?,
///         };
///         // Refused if `name` has failed meanwhile: begin again.
///         let Ok(running) = attempt.ready(format!("hello, {}", **name)) else { continue };
///         if let Ok(failure) = running.failed().await {
///             eprintln!("{failure}");
///         }
///     }
/// }
///
/// let registry = Registry::with_capacity(2)?;
/// let name = registry.register::<String>("name")?;
/// let task = std::thread::spawn({
///     let registry = registry.clone();
///     move || pollster::block_on(provide_greeting(registry, name)).map_err(|e| e.to_string())
/// });
///
/// let provider = registry.provide(name)?;
/// let world = provider.begin().wait()?.ready("world".to_string())?;
/// # let greeting = registry.register::<String>("greeting")?;
/// assert_eq!(**registry.wait_ready(greeting).wait()?, "hello, world");
///
/// world.fail("moved on");
/// let _moon = provider.begin().wait()?.ready("moon".to_string())?;
/// assert_eq!(**registry.wait_ready(greeting).wait()?, "hello, moon");
///
/// registry.close();
/// task.join().unwrap()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Provider<T: Send + Sync + 'static> {
    pub(crate) registry: Registry,
    id: ServiceId<T>,
}

impl Registry {
    /// Takes the exclusive role of providing a service.
    ///
    /// # Errors
    ///
    /// [`ProvideError`]: somebody has the role, the registry is closed, or the id is foreign.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<u16>("port")?;
    /// # let provider = registry.provide(port)?;
    /// assert!(registry.provide(port).is_err());
    /// drop(provider);
    /// assert!(registry.provide(port).is_ok());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn provide<T: Send + Sync + 'static>(
        &self,
        id: ServiceId<T>,
    ) -> Result<Provider<T>, ProvideError> {
        let index = self.index(id.into())?;
        let service = self.store().service(index);
        if self.is_closed() {
            return Err(ProvideError::Closed { service: service.name.clone() });
        }
        if !service.provided.raise() {
            return Err(ProvideError::AlreadyProvided { service: service.name.clone() });
        }
        Ok(Provider { registry: self.clone(), id })
    }
}

impl<T: Send + Sync + 'static> Provider<T> {
    /// The service.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<u16>("port")?;
    /// # let provider = registry.provide(port)?;
    /// assert_eq!(provider.id(), port);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn id(&self) -> ServiceId<T> {
        self.id
    }

    /// Begins an attempt, once the slot is free: the last instance has failed, no attempt is under way, and no
    /// cascade is on its way to it.
    ///
    /// # Errors
    ///
    /// [`BeginError`]: the registry is closed, or the time is up.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<u16>("port")?;
    /// # let provider = registry.provide(port)?;
    /// let attempt = provider.begin().wait()?;
    /// // Or, on an executor: provider.begin().await?
    /// let running = attempt.ready(80)?;
    /// running.fail("closed");
    /// assert_eq!(provider.begin().wait()?.generation(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn begin(
        &self,
    ) -> Wait<impl Condition<Output = Result<Attempt<T>, BeginError>> + use<'_, T>> {
        Wait::new(Free { provider: self, since: None })
    }
}

impl<T: Send + Sync + 'static> Drop for Provider<T> {
    fn drop(&mut self) {
        let reason = Reason::dropped(self.registry.is_closed(), Reason::ProviderDropped);
        self.registry.cascade(self.id.index(), Target::Any, reason);
        self.registry.store().service(self.id.index()).provided.lower();
    }
}

struct Free<'a, T: Send + Sync + 'static> {
    provider: &'a Provider<T>,
    since: Option<Instant>,
}

impl<T: Send + Sync + 'static> Condition for Free<'_, T> {
    type Output = Result<Attempt<T>, BeginError>;

    fn look(&mut self) -> Option<Self::Output> {
        let Provider { registry, id } = self.provider;
        let store = registry.store();
        if store.is_closed() || store.service(id.index()).stopped.is_up() {
            return Some(Err(BeginError::Closed { service: store.name(id.index()) }));
        }
        let generation = store.begin(id.index())?;
        #[cfg(feature = "supervise")]
        if stopped_meanwhile(store, id.index(), generation) {
            return Some(Err(BeginError::Closed { service: store.name(id.index()) }));
        }
        let waited = self.since.map(|since| since.elapsed()).unwrap_or_default();
        registry.emit(id.index(), generation, waited, EventKind::Begun);
        Some(Ok(Attempt {
            registry: registry.clone(),
            id: *id,
            generation,
            begun: registry.is_observed().then(Instant::now),
            uses: Uses::default(),
            over: false,
        }))
    }

    fn slots(&self) -> (u32, Option<u32>) {
        (self.provider.id.index(), None)
    }

    fn store(&self) -> &Store {
        self.provider.registry.store()
    }

    fn timed_out(&self, after: Duration) -> Self::Output {
        let service = self.provider.registry.store().name(self.provider.id.index());
        Err(BeginError::TimedOut { service, after })
    }

    fn begins(&mut self) {
        self.since = self.provider.registry.is_observed().then(Instant::now);
    }
}

/// Whether a shutdown has come to the service while this attempt began, which is given back then.
///
/// The attempt is a step of the slot's state, and so is the wakening after the shutdown has raised its flag. Of two
/// steps one sees the other: here the flag is seen, or the shutdown sees the attempt, and fails it.
#[cfg(feature = "supervise")]
fn stopped_meanwhile(store: &Store, index: u32, generation: u64) -> bool {
    let stopped = store.service(index).stopped.is_up();
    if stopped {
        store.give_back(index, generation, Shielded::new(Reason::ShutDown), Uses::default().used());
    }
    stopped
}

/// The exclusive right to publish one instance of a service, under one generation.
///
/// It ends by [`ready`](Self::ready), or is given back: by [`fail`](Self::fail), which says why, or by being
/// dropped, also when a panic unwinds through it. A failure of the service, or of something that the attempt
/// has waited for, overtakes it: what it builds will not be published.
///
/// ```
/// # let registry = mainstay::Registry::with_capacity(1)?;
/// # let port = registry.register::<u16>("port")?;
/// # let provider = registry.provide(port)?;
/// let attempt = provider.begin().wait()?;
/// let number: Result<u16, _> = "eighty".parse();
/// match number {
///     Ok(number) => drop(attempt.ready(number)?),
///     Err(error) => attempt.fail(error)?,
/// }
/// let failure = registry.status(port)?.last_failure.unwrap();
/// assert_eq!(failure.to_string(), "port failed: invalid digit found in string");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Attempt<T: Send + Sync + 'static> {
    pub(crate) registry: Registry,
    pub(crate) id: ServiceId<T>,
    pub(crate) generation: u64,
    /// Only where somebody is told.
    begun: Option<Instant>,
    pub(crate) uses: Uses,
    /// It was published, or given back.
    over: bool,
}

impl<T: Send + Sync + 'static> Attempt<T> {
    /// The generation that it builds for: how often the service had failed when it began.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<u16>("port")?;
    /// # let provider = registry.provide(port)?;
    /// assert_eq!(provider.begin().wait()?.generation(), 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Waits until a service is ready, and makes it a dependency: when that instance fails, this attempt is
    /// overtaken, or what came of it fails.
    ///
    /// A dependency that was not declared is discovered by this, and dropped again when an attempt that did
    /// not wait for it is published. Locks the topology for a moment.
    ///
    /// # Errors
    ///
    /// [`WaitForError`]: the attempt was overtaken, the dependency depends on this service, the registry was
    /// closed, the time is up, or the id is foreign. Begin again after the first; after a cycle or a foreign id
    /// that would be an endless loop.
    ///
    /// ```
    /// use mainstay::{Registry, WaitForError};
    ///
    /// let registry = Registry::with_capacity(2)?;
    /// let (a, b) = (registry.register::<u8>("a")?, registry.register::<u8>("b")?);
    /// let (provide_a, provide_b) = (registry.provide(a)?, registry.provide(b)?);
    ///
    /// let _a = provide_a.begin().wait()?.ready(1)?;
    /// let attempt = provide_b.begin().wait()?;
    /// assert_eq!(**attempt.wait_for(a).wait()?, 1);
    ///
    /// // The other way round nobody would ever be ready.
    /// registry.fail(a, "again")?;
    /// let attempt = provide_a.begin().wait()?;
    /// # registry.add_dependency(b, a)?;
    /// match attempt.wait_for(b).wait() {
    ///     Err(WaitForError::Cycle(cycle)) => assert_eq!(cycle.path, ["a", "b", "a"]),
    ///     _ => unreachable!(),
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn wait_for<D: Send + Sync + 'static>(
        &self,
        dependency: ServiceId<D>,
    ) -> Wait<impl Condition<Output = Result<Arc<Instance<D>>, WaitForError>> + use<'_, T, D>> {
        Wait::new(Dependency {
            registry: &self.registry,
            dependent: self.id.index(),
            generation: self.generation,
            uses: &self.uses,
            over: None,
            #[cfg(feature = "supervise")]
            time: None,
            id: dependency,
            need: Need::Always,
            known: false,
        })
    }

    /// Waits until a service is ready that is needed to build this one, and of no matter after that: when it fails, the
    /// attempt is overtaken, but not what came of it.
    ///
    /// The edge is dropped when the attempt is published, which locks the topology for a moment. A failure at that very
    /// moment may still take the new instance down. Where the attempt [waits for](Self::wait_for) the same service as
    /// well, or the edge is declared, that counts.
    ///
    /// # Errors
    ///
    /// As [`wait_for`](Self::wait_for).
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(2)?;
    /// # let secrets = registry.register::<String>("secrets")?;
    /// # let client = registry.register::<usize>("client")?;
    /// # let (provide_secrets, provide_client) = (registry.provide(secrets)?, registry.provide(client)?);
    /// let vault = provide_secrets.begin().wait()?.ready("hunter2".to_string())?;
    ///
    /// let attempt = provide_client.begin().wait()?;
    /// let password = attempt.wait_to_start(secrets).wait()?;
    /// let _connected = attempt.ready(password.len())?;
    ///
    /// vault.fail("sealed");
    /// assert!(registry.get(client).is_ok());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn wait_to_start<D: Send + Sync + 'static>(
        &self,
        dependency: ServiceId<D>,
    ) -> Wait<impl Condition<Output = Result<Arc<Instance<D>>, WaitForError>> + use<'_, T, D>> {
        Wait::new(Dependency {
            registry: &self.registry,
            dependent: self.id.index(),
            generation: self.generation,
            uses: &self.uses,
            over: None,
            #[cfg(feature = "supervise")]
            time: None,
            id: dependency,
            need: Need::ToStart,
            known: false,
        })
    }

    /// Makes a service a soft dependency: what is built here is told when that fails, is replaced, or is back, and does
    /// not fail with it. Does not wait for it.
    ///
    /// The [`Watch`] tells it, for as long as this generation lasts; it may be moved into the value, or into a task
    /// beside it. The edge is discovered as one by [`wait_for`](Self::wait_for) is, and counts for cycles, and for the
    /// order in which services are shut down. An attempt that has been overtaken makes none, and its watch says so when it
    /// first looks. Locks the topology for a moment.
    ///
    /// # Errors
    ///
    /// [`DependencyError`]: the edge would close a cycle, or the id is foreign.
    ///
    /// ```
    /// use mainstay::Change;
    ///
    /// # let registry = mainstay::Registry::with_capacity(2)?;
    /// # let cache = registry.register::<u8>("cache")?;
    /// # let pages = registry.register::<&str>("pages")?;
    /// # let (provide_cache, provide_pages) = (registry.provide(cache)?, registry.provide(pages)?);
    /// let attempt = provide_pages.begin().wait()?;
    /// let mut cache = attempt.watch(cache)?;
    /// let _pages = attempt.ready("slow, but there")?;
    ///
    /// let up = provide_cache.begin().wait()?.ready(1)?;
    /// assert!(matches!(cache.changed().wait()?, Change::Ready(_)));
    /// up.fail("out of memory");
    /// assert!(matches!(cache.changed().wait()?, Change::Failed(_)));
    /// assert!(registry.get(pages).is_ok());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn watch<D: Send + Sync + 'static>(
        &self,
        dependency: ServiceId<D>,
    ) -> Result<Watch<D>, DependencyError> {
        let (index, generation) = (self.id.index(), self.generation);
        Watch::of_attempt(&self.registry, dependency, index, generation, &self.uses)
    }

    /// Whether it was overtaken: a long build may look now and then, and stop.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<u16>("port")?;
    /// # let provider = registry.provide(port)?;
    /// let attempt = provider.begin().wait()?;
    /// for _step in 0..3 {
    ///     if attempt.is_overtaken() {
    ///         return Ok(()); // and begin again
    ///     }
    ///     // ... a part of a long build
    /// }
    /// attempt.ready(80)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn is_overtaken(&self) -> bool {
        !self.registry.store().is_starting(self.id.index(), self.generation)
    }

    /// Waits until it is overtaken: for a build to be stopped, as by a `select`.
    ///
    /// # Errors
    ///
    /// [`WaitError`]: the registry was closed, or the time is up.
    ///
    /// ```
    /// let registry = mainstay::Registry::with_capacity(1)?;
    /// let port = registry.register::<u16>("port")?;
    /// let provider = registry.provide(port)?;
    /// let attempt = provider.begin().wait()?;
    /// assert!(!attempt.is_overtaken());
    /// registry.fail(port, "start again")?;
    /// assert!(attempt.is_overtaken());
    /// assert_eq!(attempt.overtaken().wait()?.reason.to_string(), "start again");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn overtaken(
        &self,
    ) -> Wait<impl Condition<Output = Result<Failure, WaitError>> + use<'_, T>> {
        Wait::new(Over { registry: &self.registry, id: self.id, generation: self.generation })
    }

    /// Publishes the instance. Whoever reads after this finds it; whoever waited for it is woken.
    ///
    /// Lock-free where the attempt used all the edges that the service has; else it locks the topology after
    /// the publication, to drop those that it did not use. Drops the last instance's value, where nobody else
    /// holds it; a panic in its `Drop` is reported by the panic hook and ends there.
    ///
    /// # Errors
    ///
    /// [`ReadyError`] with the value: the attempt was overtaken, or the registry closed. Nobody has seen the
    /// value then. In the one case that it was overtaken in the very moment of its publication, it comes back
    /// as soon as the readers that are just comparing its generation have let go of it.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<u16>("port")?;
    /// # let provider = registry.provide(port)?;
    /// let running = provider.begin().wait()?.ready(80)?;
    /// assert_eq!(*registry.get(port)?, 80);
    /// # drop(running);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn ready(mut self, value: T) -> Result<Running<T>, ReadyError<T>> {
        let store = self.registry.store();
        let index = self.id.index();
        if store.is_closed() {
            return Err(ReadyError::Closed { value, service: store.name(index) });
        }
        let tracked = Tracked::new(&self.registry, index);
        match store.publish(self.id, self.generation, value, self.uses.used(), &tracked) {
            Ok(()) => {
                self.over = true;
                let took = self.took();
                self.registry.emit(index, self.generation, took, EventKind::Ready);
                let registry = self.registry.clone();
                Ok(Running { registry, id: self.id, generation: self.generation, tracked })
            }
            Err(Refused(value)) => {
                let failure = store.failure(index, self.generation);
                Err(ReadyError::Overtaken { value, failure })
            }
        }
    }

    /// Gives the attempt up, and says why: the reason is the service's
    /// [`last_failure`](crate::ServiceStatus::last_failure) until its next one. Who waits for the service
    /// waits on.
    ///
    /// # Errors
    ///
    /// The [`Failure`] that has overtaken the attempt: the slot was free already, and the reason is not kept.
    /// Begin again; where it still holds, the next attempt is there to say so.
    ///
    /// ```
    /// let registry = mainstay::Registry::with_capacity(1)?;
    /// let port = registry.register::<u16>("port")?;
    /// let provider = registry.provide(port)?;
    /// provider.begin().wait()?.fail("no such address")?;
    /// let failure = registry.status(port)?.last_failure.unwrap();
    /// assert_eq!(failure.to_string(), "port failed: no such address");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn fail(mut self, reason: impl Into<Box<dyn Error + Send + Sync>>) -> Result<(), Failure> {
        self.give_back(Reason::error(reason))
    }

    /// As `fail`, for a reason of our own.
    #[cfg(feature = "supervise")]
    pub(crate) fn give_up(mut self, reason: Reason) {
        let _ = self.give_back(Shielded::new(reason));
    }

    fn took(&self) -> Duration {
        self.begun.map(|begun| begun.elapsed()).unwrap_or_default()
    }

    fn give_back(&mut self, reason: Shielded<Reason>) -> Result<(), Failure> {
        if self.over {
            return Ok(());
        }
        self.over = true;
        let (store, index) = (self.registry.store(), self.id.index());
        if !store.give_back(index, self.generation, reason, self.uses.used()) {
            return Err(store.failure(index, self.generation));
        }
        // The observer may leave this one as the last to hold the reason.
        if let Some(failure) = store.last_failure(index).map(Shielded::new) {
            let took = self.took();
            self.registry.emit(index, self.generation, took, EventKind::GivenUp(&failure));
        }
        Ok(())
    }
}

impl<T: Send + Sync + 'static> Drop for Attempt<T> {
    fn drop(&mut self) {
        let reason = Reason::dropped(self.registry.is_closed(), Reason::AttemptDropped);
        let _ = self.give_back(reason);
    }
}

debug_by_service! {
    Provider;
    Attempt, generation;
}
