//! `RegistryBuilder`: the observer, the clock, and the services that are known beforehand.

use crate::{
    error::{RegisterError, RegistryError},
    registry::{self, Observer, Registry, RegistryInner},
    service::ServiceId,
    store::Store,
    sync::{Shielded, slab::NoSlab},
};

/// Configures a new registry: its observer, its clock, and services and edges known beforehand.
///
/// Returned by [`Registry::builder`]. Services and edges can also be added to a running registry;
/// the observer and the clock cannot.
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
    observer: Option<Box<dyn Observer>>,
    #[cfg(feature = "supervise")]
    pub(super) supervisors: super::Supervisors,
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
    /// Use it to set an observer or a clock, or to register services and edges beforehand.
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
                observer: None,
                #[cfg(feature = "supervise")]
                supervisors: super::Supervisors::default(),
            }),
            Err(NoSlab::Capacity) => Err(RegistryError::Capacity { capacity }),
            Err(NoSlab::Numbers) => Err(RegistryError::TooManyRegistries),
        }
    }

    /// Sets the observer of the registry, which receives each event after it has happened.
    ///
    /// A registry has at most one observer, which cannot be changed later: a registry without one
    /// pays nothing for events. A second call replaces the observer of the first one. The observer
    /// receives no event for the services that are registered on this builder.
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
    pub fn observer(self, observer: impl Observer) -> Self {
        Self { observer: Some(Box::new(observer)), ..self }
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
        self.store.compute_all_closures();
        Registry::new(RegistryInner {
            store: self.store,
            observer: Shielded::new(self.observer),
            #[cfg(feature = "supervise")]
            supervisors: self.supervisors,
        })
    }
}
