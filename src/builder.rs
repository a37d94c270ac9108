//! What is known of a registry before it runs.

#[cfg(feature = "supervise")]
use std::sync::Arc;

#[cfg(feature = "supervise")]
use crate::supervise::{Clock, Supervised};
use crate::{
    error::{BuildError, DependencyError, RegisterError},
    registry::{self, Observer, Registry, Shared},
    service::{AnyId, ServiceId},
    store::Store,
    sync::{Shielded, slab::NoSlab},
};

/// A registry in the making: services and edges that are known beforehand, and the observer.
///
/// Both can be added while the registry runs, too.
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
/// let _running = provider.begin().wait()?.ready(80)?;
/// assert_eq!(ready.recv()?, "port");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Builder {
    store: Store,
    observer: Option<Box<dyn Observer>>,
    #[cfg(feature = "supervise")]
    supervised: Supervised,
}

impl Registry {
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
}

impl Builder {
    fn new(capacity: usize) -> Result<Self, BuildError> {
        match Store::new(capacity) {
            Ok(store) => Ok(Self {
                store,
                observer: None,
                #[cfg(feature = "supervise")]
                supervised: Supervised::default(),
            }),
            Err(NoSlab::Capacity) => Err(BuildError::Capacity { capacity }),
            Err(NoSlab::Numbers) => Err(BuildError::TooManyRegistries),
        }
    }

    /// Whom to tell what happens. There is one, and it is set for good: what is not observed costs nothing.
    /// It is not told of services that are registered here.
    ///
    /// ```
    /// use mainstay::{Event, Observer, Registry};
    ///
    /// struct Print;
    ///
    /// impl Observer for Print {
    ///     fn event(&self, _: &Registry, event: &Event<'_>) {
    ///         println!("{} {} {:?}: {}", event.service, event.generation, event.took, event.kind);
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

    /// Where the supervisors have their time from; the [`SystemClock`](crate::SystemClock) otherwise.
    ///
    /// ```
    /// # #[cfg(feature = "tokio")] {
    /// let registry = mainstay::Registry::builder(8)?.clock(mainstay::TokioClock).build();
    /// # }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[cfg(feature = "supervise")]
    #[must_use]
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.supervised.clock = Arc::new(clock);
        self
    }

    /// As [`Registry::register`].
    ///
    /// # Errors
    ///
    /// As there; it is not closed.
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

    /// As [`Registry::add_dependency`].
    ///
    /// # Errors
    ///
    /// As there: a cycle is refused at once, by the edge that closes it.
    ///
    /// ```
    /// let mut builder = mainstay::Registry::builder(2)?;
    /// let (config, port) = (builder.register::<String>("config")?, builder.register::<u16>("port")?);
    /// builder.add_dependency(port, config)?;
    /// assert!(builder.add_dependency(config, port).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn add_dependency(
        &mut self,
        dependent: impl Into<AnyId>,
        dependency: impl Into<AnyId>,
    ) -> Result<(), DependencyError> {
        registry::declare(&self.store, dependent.into(), dependency.into())
    }

    /// The registry.
    ///
    /// ```
    /// let registry = mainstay::Registry::builder(8)?.build();
    /// assert_eq!(registry.capacity(), 8);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn build(self) -> Registry {
        Registry::new(Shared {
            store: self.store,
            observer: Shielded::new(self.observer),
            #[cfg(feature = "supervise")]
            supervised: self.supervised,
        })
    }
}
