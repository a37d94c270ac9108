//! The registry: services by name and id, their edges, failing, looking in, closing.

use std::{
    any::type_name,
    error::Error,
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    builder::Builder,
    error::{
        BuildError, Cycle, DependencyError, ForeignId, LookupError, ProvideError, RegisterError,
        WaitError,
    },
    failure::{Cascade, Reason, Report},
    id::{AnyId, Name, ServiceId},
    inspect::{Listing, ServiceStatus},
    observe::{EventKind, Observer},
    provider::Provider,
    store::{self, Fell, Instance, NotRegistered, Publish, Store, Target},
    wait::{Wait, sealed::Condition},
};

/// The services of a program: a handle, cheap to clone, to be moved into every task and thread that needs it.
///
/// Reading is described at [`get`](Self::get), providing at [`Provider`], failing at [`fail`](Self::fail).
///
/// ```
/// use mainstay::Registry;
///
/// let registry = Registry::with_capacity(8)?;
/// let port = registry.register::<u16>("port")?;
///
/// let provider = registry.provide(port)?;
/// let running = provider.begin().wait()?.ready(80)?;
/// assert_eq!(*registry.get(port)?, 80);
///
/// registry.fail(port, "the address is gone")?;
/// assert!(registry.get(port).is_err());
/// assert_eq!(running.failed().wait()?.to_string(), "port failed: the address is gone");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Registry {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) store: Store,
    pub(crate) observer: Option<Box<dyn Observer>>,
}

impl Registry {
    pub(crate) fn new(store: Store, observer: Option<Box<dyn Observer>>) -> Self {
        Self { shared: Arc::new(Shared { store, observer }) }
    }

    #[inline]
    pub(crate) fn store(&self) -> &Store {
        &self.shared.store
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// A registry with room for `capacity` services, all of them to be registered while it runs.
    ///
    /// Allocates one cache line for each at once.
    ///
    /// # Errors
    ///
    /// As [`builder`](Self::builder).
    ///
    /// ```
    /// let registry = mainstay::Registry::with_capacity(64)?;
    /// assert!(registry.list().services.is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn with_capacity(capacity: usize) -> Result<Self, BuildError> {
        Ok(Self::builder(capacity)?.build())
    }

    /// Begins a registry with an observer, or with services and edges that are known beforehand.
    ///
    /// # Errors
    ///
    /// [`BuildError`], where so many services cannot be allocated or numbered.
    ///
    /// ```
    /// use mainstay::Registry;
    ///
    /// let mut builder = Registry::builder(2)?;
    /// let config = builder.register::<String>("config")?;
    /// let port = builder.register::<u16>("port")?;
    /// builder.add_dependency(port, config)?;
    /// let registry = builder.build();
    /// assert_eq!(registry.status(config)?.dependents, ["port"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn builder(capacity: usize) -> Result<Builder, BuildError> {
        Builder::new(capacity)
    }

    // Names, ids and edges.

    /// The id of the service with this name, which is registered if there is none yet.
    ///
    /// Locks the table of names; with it, a new service takes one of the registry's places for good.
    ///
    /// # Errors
    ///
    /// [`RegisterError`]: the name stands for another type, the registry is full, or closed.
    ///
    /// ```
    /// let registry = mainstay::Registry::with_capacity(1)?;
    /// let id = registry.register::<u16>("port")?;
    /// assert_eq!(registry.register::<u16>("port")?, id);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn register<T: Send + Sync + 'static>(
        &self,
        name: &str,
    ) -> Result<ServiceId<T>, RegisterError> {
        if self.is_closed() {
            return Err(RegisterError::Closed { service: Name::new(name) });
        }
        let (id, new) = register(self.store(), name)?;
        if new {
            self.emit(id.index(), 0, Duration::ZERO, EventKind::Registered);
        }
        Ok(id)
    }

    /// The id that belongs to a name. Locks the table of names.
    ///
    /// # Errors
    ///
    /// [`LookupError`]: there is no such name, or its type is another.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<u16>("port")?;
    /// # let provider = registry.provide(port)?;
    /// assert_eq!(registry.id::<u16>("port")?, port);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn id<T: Send + Sync + 'static>(&self, name: &str) -> Result<ServiceId<T>, LookupError> {
        let id = self.find(name)?;
        self.store().typed(id).ok_or_else(|| {
            let service = self.store().service(id.index);
            LookupError::WrongType {
                service: service.name.clone(),
                registered: service.type_name,
                requested: type_name::<T>(),
            }
        })
    }

    /// The untyped id that belongs to a name. Locks the table of names.
    ///
    /// # Errors
    ///
    /// [`LookupError::UnknownName`].
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<u16>("port")?;
    /// # let provider = registry.provide(port)?;
    /// let by_name = registry.find("port")?;
    /// registry.fail(by_name, "asked for by an operator")?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn find(&self, name: &str) -> Result<AnyId, LookupError> {
        self.store().find(name).ok_or_else(|| LookupError::UnknownName { name: Name::new(name) })
    }

    /// Declares that `dependent` is built from `dependency`, once and for all: when that fails, this fails.
    ///
    /// There is no need to: an attempt that waits for a service [discovers](crate::Attempt::wait_for) the
    /// edge. A declared edge is there before the first attempt, and stays where later ones do not wait.
    ///
    /// Locks the topology while the closures that change are computed anew.
    ///
    /// # Errors
    ///
    /// [`DependencyError`]: the edge would close a cycle, or an id is foreign.
    ///
    /// ```
    /// let registry = mainstay::Registry::with_capacity(2)?;
    /// let (config, port) = (registry.register::<String>("config")?, registry.register::<u16>("port")?);
    /// registry.add_dependency(port, config)?;
    /// assert_eq!(registry.status(config)?.dependents, ["port"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn add_dependency(
        &self,
        dependent: impl Into<AnyId>,
        dependency: impl Into<AnyId>,
    ) -> Result<(), DependencyError> {
        declare(self.store(), dependent.into(), dependency.into(), Publish::Now)
    }

    // Providing and waiting.

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
        Ok(Provider::new(self.clone(), id))
    }

    /// Waits until a service is ready, and gives its instance.
    ///
    /// For readers. What a service is built *from* is waited for with
    /// [`Attempt::wait_for`](crate::Attempt::wait_for), which makes it a dependency.
    ///
    /// # Errors
    ///
    /// [`WaitError`]: the registry is closed and the service not ready, the time is up, or the id is foreign.
    ///
    /// ```
    /// let registry = mainstay::Registry::with_capacity(1)?;
    /// let port = registry.register::<u16>("port")?;
    /// let provider = registry.provide(port)?;
    /// let _running = provider.begin().wait()?.ready(80)?;
    /// assert_eq!(**registry.wait_ready(port).wait()?, 80);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn wait_ready<T: Send + Sync + 'static>(
        &self,
        id: ServiceId<T>,
    ) -> Wait<impl Condition<Output = Result<Arc<Instance<T>>, WaitError>> + use<'_, T>> {
        Wait::new(UntilReady { registry: self, id })
    }

    // Failing.

    /// Fails a service and everything that depends on it, for a reason that all of them can name.
    ///
    /// The service may be ready; or starting, and then the attempt is overtaken and what it builds is never
    /// published. One that is down stays as it is: nobody holds anything of it, and its next attempt begins
    /// after this call.
    ///
    /// When it returns, none of the instances that there were can be read any more. While it runs, other
    /// threads may see the dependents down and their dependency still ready, never the other way round.
    /// Lock-free over the slots, one pass down the closure and one up; then it wakes the waiters, which locks
    /// the wait lists of those slots that have any.
    ///
    /// # Errors
    ///
    /// [`ForeignId`].
    ///
    /// ```
    /// let registry = mainstay::Registry::with_capacity(1)?;
    /// let port = registry.register::<u16>("port")?;
    /// assert_eq!(registry.fail(port, "nothing there")?.went_down, 0);
    ///
    /// let provider = registry.provide(port)?;
    /// let attempt = provider.begin().wait()?;
    /// assert_eq!(registry.fail(port, "start again")?.overtaken, 1);
    /// let refused = attempt.ready(80).unwrap_err();
    /// assert_eq!(refused.into_value(), 80);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn fail(
        &self,
        id: impl Into<AnyId>,
        reason: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Result<Cascade, ForeignId> {
        let index = self.index(id.into())?;
        let fell = self.cascade(index, Target::Any, Reason::error(reason));
        Ok(fell.unwrap_or_default())
    }

    /// Fails exactly the instance that the caller has found broken, and what depends on it.
    ///
    /// Of a thousand requests that met the same broken client one fails it, and none hits the next one.
    /// Ordered as [`fail`](Self::fail), but it may return while the cascade of another thread is on its way.
    ///
    /// # Errors
    ///
    /// [`ForeignId`].
    ///
    /// ```
    /// use mainstay::{Guard, Registry, Report};
    ///
    /// let registry = Registry::with_capacity(1)?;
    /// let client = registry.register::<String>("client")?;
    /// let provider = registry.provide(client)?;
    /// let first = provider.begin().wait()?.ready("first".to_string())?;
    ///
    /// let met = registry.get(client)?;
    /// assert!(matches!(registry.report(Guard::instance(&met), "reset by peer")?, Report::Failed(_)));
    /// drop(first);
    ///
    /// let _second = provider.begin().wait()?.ready("second".to_string())?;
    /// assert_eq!(registry.report(Guard::instance(&met), "reset by peer")?, Report::AlreadyFailed);
    /// assert_eq!(*registry.get(client)?, "second");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn report<T: Send + Sync + 'static>(
        &self,
        broken: &Instance<T>,
        reason: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Result<Report, ForeignId> {
        let index = self.index(broken.service)?;
        let generation = broken.tag.generation();
        let replaced = self
            .store()
            .typed::<T>(broken.service)
            .and_then(|id| self.store().open(id))
            .and_then(|(cell, _)| cell.load_full())
            .is_some_and(|now| now.tag == broken.tag && !std::ptr::eq(&*now, broken));
        if replaced {
            return Ok(Report::Replaced);
        }
        let fell = self.cascade(index, Target::Generation(generation), Reason::error(reason));
        Ok(fell.map_or(Report::AlreadyFailed, Report::Failed))
    }

    /// Runs a cascade and tells the observer of it, once it is over.
    pub(crate) fn cascade(&self, index: u32, target: Target, reason: Reason) -> Option<Cascade> {
        let observed = self.shared.observer.is_some();
        let begun = observed.then(Instant::now);
        let Fell { counts, fallen } = self.store().fail(index, target, reason, observed)?;
        let took = begun.map(|begun| begun.elapsed()).unwrap_or_default();
        for fallen in fallen {
            let generation = fallen.was.generation();
            let failure = self.store().failure(fallen.index, generation);
            let kind = match fallen.was.phase() {
                store::Phase::Ready => EventKind::Failed(&failure),
                _ => EventKind::Overtaken(&failure),
            };
            self.emit(fallen.index, generation, took, kind);
        }
        Some(counts)
    }

    // Looking in.

    /// How a service is, at one moment after another: its phase, its neighbours and its last failure are read
    /// one by one. Locks the topology for a moment.
    ///
    /// # Errors
    ///
    /// [`ForeignId`].
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<u16>("port")?;
    /// # let provider = registry.provide(port)?;
    /// assert_eq!(registry.status(port)?.generation, 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn status(&self, id: impl Into<AnyId>) -> Result<ServiceStatus, ForeignId> {
        Ok(ServiceStatus::of(self.store(), self.index(id.into())?))
    }

    /// The status of every service, in the order of their registration.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<u16>("port")?;
    /// # let provider = registry.provide(port)?;
    /// for service in registry.list().services {
    ///     println!("{} is {}", service.name, service.phase);
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn list(&self) -> Listing {
        Listing::of(self.store())
    }

    /// How many services fit.
    ///
    /// ```
    /// let registry = mainstay::Registry::with_capacity(3)?;
    /// assert_eq!(registry.capacity(), 3);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn capacity(&self) -> usize {
        self.store().capacity()
    }

    // Closing.

    /// Ends every wait, present and future, with an error that says so, and refuses new providers, attempts
    /// and publications.
    ///
    /// Nothing goes down by it: what is ready stays readable until its provider, whose wait for the next
    /// failure has just ended, lets go of it. Values are dropped with their last holder.
    ///
    /// ```
    /// use mainstay::{Registry, WaitError};
    ///
    /// let registry = Registry::with_capacity(1)?;
    /// let port = registry.register::<u16>("port")?;
    /// let provider = registry.provide(port)?;
    /// let running = provider.begin().wait()?.ready(80)?;
    ///
    /// registry.close();
    /// assert!(matches!(running.failed().wait(), Err(WaitError::Closed { .. })));
    /// assert_eq!(*registry.get(port)?, 80);
    /// drop(running);
    /// assert!(registry.get(port).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn close(&self) {
        if self.store().close() && self.shared.observer.is_some() {
            for index in 0..self.store().len() {
                let generation = self.store().slot(index).state.load().generation();
                self.emit(index, generation, Duration::ZERO, EventKind::Closed);
            }
        }
    }

    /// Whether it was closed.
    ///
    /// ```
    /// let registry = mainstay::Registry::with_capacity(1)?;
    /// assert!(!registry.is_closed());
    /// registry.close();
    /// assert!(registry.is_closed());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn is_closed(&self) -> bool {
        self.store().is_closed()
    }

    pub(crate) fn index(&self, id: AnyId) -> Result<u32, ForeignId> {
        self.store().index(id).ok_or(ForeignId { id })
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry")
            .field("services", &self.store().len())
            .field("capacity", &self.capacity())
            .field("closed", &self.is_closed())
            .finish()
    }
}

pub(crate) fn register<T: Send + Sync + 'static>(
    store: &Store,
    name: &str,
) -> Result<(ServiceId<T>, bool), RegisterError> {
    store.register(name).map_err(|refused| match refused {
        NotRegistered::OtherType(registered) => RegisterError::WrongType {
            service: Name::new(name),
            registered,
            requested: type_name::<T>(),
        },
        NotRegistered::Full => {
            RegisterError::Capacity { service: Name::new(name), capacity: store.capacity() }
        }
    })
}

pub(crate) fn declare(
    store: &Store,
    dependent: AnyId,
    dependency: AnyId,
    publish: Publish,
) -> Result<(), DependencyError> {
    let of = |id: AnyId| store.index(id).ok_or(ForeignId { id });
    let (dependent, dependency) = (of(dependent)?, of(dependency)?);
    store.declare(dependent, dependency, publish).map_err(|path| named(store, path).into())
}

pub(crate) fn named(store: &Store, cycle: store::Cycle) -> Cycle {
    Cycle { path: cycle.into_iter().map(|index| store.name(index)).collect() }
}

struct UntilReady<'a, T> {
    registry: &'a Registry,
    id: ServiceId<T>,
}

impl<T: Send + Sync + 'static> Condition for UntilReady<'_, T> {
    type Output = Result<Arc<Instance<T>>, WaitError>;

    fn look(&mut self) -> Option<Self::Output> {
        if let Err(foreign) = self.registry.index(self.id.into()) {
            return Some(Err(foreign.into()));
        }
        if let Ok(instance) = self.registry.get_arc(self.id) {
            return Some(Ok(instance));
        }
        let store = self.registry.store();
        store.is_closed().then(|| Err(WaitError::Closed { service: store.name(self.id.index()) }))
    }

    fn slots(&self) -> (u32, Option<u32>) {
        (self.id.index(), None)
    }

    fn registry(&self) -> &Registry {
        self.registry
    }

    fn timed_out(&self, after: Duration) -> Self::Output {
        Err(WaitError::TimedOut { service: self.registry.store().name(self.id.index()), after })
    }

    fn begins(&mut self) {
        self.registry.wait_begins(self.id.index(), None);
    }

    fn ends(&mut self, took: Duration) {
        self.registry.wait_ends(self.id.index(), None, took);
    }
}
