//! The registry itself: its services by name and id, their edges, who observes it, looking in, closing.
//!
//! Its other operations stand with what they are about: `builder.rs`, `read.rs`, `provider.rs`, `fail.rs`.

use std::{any::type_name, fmt, sync::Arc, time::Duration};

#[cfg(feature = "supervise")]
use crate::supervise::Supervised;
use crate::{
    error::{Cycle, DependencyError, ForeignId, LookupError, RegisterError},
    event::{Event, EventKind},
    inspect::{Listing, ServiceStatus},
    service::{AnyId, Name, ServiceId},
    store::{self, NotRegistered, Store},
    sync::{Shielded, shielded},
};

/// The services of a program: a handle, cheap to clone, to be moved into every task and thread that needs it.
///
/// Reading is described at [`get`](Self::get), providing at [`Provider`](crate::Provider), failing at [`fail`](Self::fail).
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

/// Is told what happens in a registry, by the thread that does it, right after it is done.
///
/// It is never called inside a cascade or under a lock, and may call the registry, also to fail services (each
/// of which is an event again). A slow observer slows the thread that caused the event. A panic is reported
/// by the panic hook and ends there.
///
/// It is set with [`Builder::observer`](crate::Builder::observer).
///
/// ```
/// use mainstay::{Event, EventKind, Observer, Registry};
/// use std::sync::atomic::{AtomicU32, Ordering};
///
/// static FAILURES: AtomicU32 = AtomicU32::new(0);
///
/// struct Count;
///
/// impl Observer for Count {
///     fn event(&self, _: &Registry, event: &Event<'_>) {
///         if let EventKind::Failed(_) = event.kind {
///             FAILURES.fetch_add(1, Ordering::Relaxed);
///         }
///     }
/// }
///
/// let registry = Registry::builder(1)?.observer(Count).build();
/// let port = registry.register::<u16>("port")?;
/// let provider = registry.provide(port)?;
/// let _running = provider.begin().wait()?.ready(80)?;
/// registry.fail(port, "closed")?;
/// assert_eq!(FAILURES.load(Ordering::Relaxed), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Observer: Send + Sync + 'static {
    /// Something happened.
    fn event(&self, registry: &Registry, event: &Event<'_>);
}

pub(crate) struct Shared {
    pub(crate) store: Store,
    #[cfg(feature = "supervise")]
    pub(crate) supervised: Supervised,
    pub(crate) observer: Shielded<Option<Box<dyn Observer>>>,
}

impl Registry {
    pub(crate) fn new(shared: Shared) -> Self {
        Self::of(Arc::new(shared))
    }

    pub(crate) fn of(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    pub(crate) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    #[inline]
    pub(crate) fn store(&self) -> &Store {
        &self.shared.store
    }

    /// Where supervision has its time from; see [`Builder::clock`](crate::Builder::clock).
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let registry = mainstay::Registry::with_capacity(1)?;
    /// registry.register::<u16>("port")?;
    /// let all = registry.wait_all_ready().within(Duration::from_millis(1), registry.clock()).await;
    /// assert!(all.is_err());
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "supervise")]
    pub fn clock(&self) -> &dyn crate::Clock {
        &*self.supervised().clock
    }

    #[cfg(feature = "supervise")]
    pub(crate) fn supervised(&self) -> &Supervised {
        &self.shared.supervised
    }

    /// Whether somebody is told what happens.
    pub(crate) fn is_observed(&self) -> bool {
        self.shared.observer.is_some()
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
    /// Locks the topology for a moment: as long as it takes to see that the edge closes no cycle.
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
        declare(self.store(), dependent.into(), dependency.into())
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
        Ok(ServiceStatus::of(&self.shared, self.index(id.into())?))
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
        Listing::of(&self.shared)
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
    /// Nothing goes down by it: what is ready stays readable, and can be replaced and failed, until its
    /// provider, whose wait for the next failure has just ended, lets go of it. Values are dropped with their
    /// last holder. What was done before is seen by whoever finds it closed.
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
        if self.store().close() && self.is_observed() {
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

impl Registry {
    pub(crate) fn emit(&self, index: u32, generation: u64, took: Duration, kind: EventKind<'_>) {
        let Some(observer) = &*self.shared.observer else { return };
        let (service, id) = (&self.store().service(index).name, self.store().id(index));
        shielded(|| observer.event(self, &Event { service, id, generation, took, kind }));
    }

    /// A wait for `service` to be ready begins: it is counted and told.
    pub(crate) fn wait_begins(&self, service: u32, by: Option<u32>) {
        self.store().service(service).waiting.add(1);
        self.emit_wait(service, by, Duration::ZERO, |by| EventKind::WaitBegun { by });
    }

    /// It ends.
    pub(crate) fn wait_ends(&self, service: u32, by: Option<u32>, took: Duration) {
        self.store().service(service).waiting.remove(1);
        self.emit_wait(service, by, took, |by| EventKind::WaitEnded { by });
    }

    fn emit_wait<'a>(
        &'a self,
        service: u32,
        by: Option<u32>,
        took: Duration,
        kind: impl Fn(Option<&'a Name>) -> EventKind<'a>,
    ) {
        let generation = self.store().slot(service).state.load().generation();
        let by = by.map(|by| &self.store().service(by).name);
        self.emit(service, generation, took, kind(by));
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
) -> Result<(), DependencyError> {
    let of = |id: AnyId| store.index(id).ok_or(ForeignId { id });
    let (dependent, dependency) = (of(dependent)?, of(dependency)?);
    store.declare(dependent, dependency).map_err(|path| named(store, path).into())
}

pub(crate) fn named(store: &Store, cycle: store::Cycle) -> Cycle {
    Cycle { path: cycle.into_iter().map(|index| store.name(index)).collect() }
}
