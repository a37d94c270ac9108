//! `RegistryBuilder`: the observers, the clock, and the services that are known beforehand.

use std::sync::Arc;

use crate::{
    error::{RegisterError, RegistryError},
    registry::{
        self, Observer, Registry, RegistryInner,
        observers::{Entry, Observers},
    },
    service::ServiceId,
    store::Store,
    sync::slab::NoSlab,
};

/// Configures a new registry: its observers, its clock, and services and edges known beforehand.
///
/// Returned by [`Registry::builder`]. Services, edges and observers can also be added to a running
/// registry; the clock cannot be changed.
///
/// ```
/// use mainstay::{Event, EventKind, Observer, Registry};
/// use std::sync::mpsc;
///
/// struct Ready(mpsc::Sender<String>);
///
/// impl Observer for Ready {
///     fn event(&self, _: &Registry, event: &Event<'_>) {
///         if let EventKind::Ready = event.kind {
///             self.0.send(event.service.to_string()).ok();
///         }
///     }
/// }
///
/// let (sender, ready) = mpsc::channel();
/// let mut builder = Registry::builder(1)?.observer(Ready(sender));
/// let port = builder.register::<u16>("port")?;
/// let registry = builder.build();
///
/// let provider = registry.provide(port)?;
/// let _running = provider.begin().wait_blocking()?.ready(80)?;
/// assert_eq!(ready.recv()?, "port");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct RegistryBuilder {
    store: Store,
    observers: Vec<Arc<Entry>>,
    #[cfg(feature = "supervise")]
    pub(crate) supervisors: super::Supervisors,
}

impl Registry {
    /// Creates an empty registry for at most `capacity` services, without an observer.
    ///
    /// Allocates one cache line for each service immediately. Services are registered while the
    /// registry runs, by [`register`](Self::register).
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
    pub fn with_capacity(capacity: usize) -> Result<Self, RegistryError> {
        Ok(Self::builder(capacity)?.build())
    }

    /// Returns a builder for a registry of at most `capacity` services.
    ///
    /// Use it to add observers, to set a clock, or to register services and edges beforehand.
    ///
    /// # Errors
    ///
    /// [`RegistryError`]: `capacity` services cannot be allocated or numbered, or this process has
    /// created as many registries as it can number.
    ///
    /// ```
    /// use mainstay::Registry;
    ///
    /// let mut builder = Registry::builder(2)?;
    /// let config = builder.register::<String>("config")?;
    /// let port = builder.register::<u16>("port")?;
    /// builder.depends(port).on(config)?;
    /// let registry = builder.build();
    /// assert_eq!(registry.status(config)?.dependents, ["port"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn builder(capacity: usize) -> Result<RegistryBuilder, RegistryError> {
        RegistryBuilder::new(capacity)
    }
}

impl RegistryBuilder {
    fn new(capacity: usize) -> Result<Self, RegistryError> {
        match Store::new(capacity) {
            Ok(store) => Ok(Self {
                store,
                observers: Vec::new(),
                #[cfg(feature = "supervise")]
                supervisors: super::Supervisors::default(),
            }),
            Err(NoSlab::Capacity) => Err(RegistryError::Capacity { capacity }),
            Err(NoSlab::Numbers) => Err(RegistryError::TooManyRegistries),
        }
    }

    /// Adds an observer, which receives each event after it has happened, as long as the registry
    /// exists.
    ///
    /// Several observers are called in the order in which they were added. They receive no event
    /// for the services that are registered on this builder, and no [listing](Observer::listing).
    /// To add and remove observers later, use [`Registry::observe`]. A registry without an observer
    /// pays one relaxed load for each event.
    ///
    /// ```
    /// use mainstay::{Event, Observer, Registry};
    ///
    /// struct Print;
    ///
    /// impl Observer for Print {
    ///     fn event(&self, _: &Registry, event: &Event<'_>) {
    ///         let Event { service, generation, elapsed, kind, .. } = event;
    ///         println!("{service} {generation} {elapsed:?}: {kind}");
    ///     }
    /// }
    ///
    /// let registry = Registry::builder(8)?.observer(Print).build();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn observer(mut self, observer: impl Observer) -> Self {
        self.observers.push(Arc::new(Entry::permanent(Box::new(observer))));
        self
    }

    /// Registers a service, as [`Registry::register`] does.
    ///
    /// # Errors
    ///
    /// As [`Registry::register`], except that a builder is never closed.
    ///
    /// ```
    /// let mut builder = mainstay::Registry::builder(1)?;
    /// let port = builder.register::<u16>("port")?;
    /// assert_eq!(builder.build().id::<u16>("port")?, port);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn register<T: Send + Sync + 'static>(
        &mut self,
        name: &str,
    ) -> Result<ServiceId<T>, RegisterError> {
        registry::register(&self.store, name).map(|(id, _)| id)
    }

    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    /// Creates the registry. Computes the closures of its services, if it has at most 1,024 of
    /// them, so that their first failures need not search for dependents.
    ///
    /// ```
    /// let registry = mainstay::Registry::builder(8)?.build();
    /// assert_eq!(registry.capacity(), 8);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn build(self) -> Registry {
        self.store.build();
        self.observers.iter().for_each(|_| self.store.observed.add());
        Registry::new(RegistryInner {
            store: self.store,
            observers: Observers::new(self.observers),
            #[cfg(feature = "supervise")]
            supervisors: self.supervisors,
        })
    }
}
