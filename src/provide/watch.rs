//! Soft dependencies: a watch reports that a service has failed, was replaced, or is ready again.

use std::{
    fmt,
    ops::DerefMut,
    sync::{Arc, Weak},
    time::Duration,
};

use crate::{
    error::{DependencyError, ForeignIdError, MustAwaitError, WatchError},
    failure::Failure,
    instance::Instance,
    numbers::{Generation, ServiceIndex},
    registry::{self, Registry},
    service::ServiceId,
    store::{Edge, Store, UsedEdges},
    sync::Shielded,
    waiting::{
        Wait,
        sealed::{BlockingCondition, Condition, WaitSlots},
    },
};

/// A state of a service that a [`Watch`] reports.
///
/// ```
/// use mainstay::{Registry, WatchEvent};
///
/// let registry = Registry::with_capacity(1)?;
/// let port = registry.register::<u16>("port")?;
/// let mut watch = registry.watch(port)?;
/// let provider = registry.provide(port)?;
/// let _running = provider.begin().wait_blocking()?.ready(80)?;
/// match watch.changed().wait_blocking()? {
///     WatchEvent::Ready(port) | WatchEvent::Replaced(port) => assert_eq!(**port, 80),
///     WatchEvent::Failed(failure) => println!("{}", failure.reason),
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub enum WatchEvent<D> {
    /// The service is ready, in a generation that was not reported as ready before.
    Ready(Arc<Instance<D>>),
    /// The instance was replaced by another one of the same generation.
    Replaced(Arc<Instance<D>>),
    /// The generation that was last reported as ready has failed, and the service is not ready.
    Failed(Failure),
}

impl<D: fmt::Debug> fmt::Debug for WatchEvent<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready(instance) => f.debug_tuple("Ready").field(instance).finish(),
            Self::Replaced(instance) => f.debug_tuple("Replaced").field(instance).finish(),
            Self::Failed(failure) => f.debug_tuple("Failed").field(failure).finish(),
        }
    }
}

/// Reports the states of one service: ready, replaced, failed.
/// [`Attempt::watch`](crate::Attempt::watch) returns it for a soft dependency, and
/// [`Registry::watch`] for other code.
///
/// Each call of [`changed`](Self::changed) compares the present state with the state that was last
/// reported. States in between may be skipped; the last one never is. The watch keeps no value
/// alive, only the memory of the instance that it last reported. With the feature `stream`,
/// `into_stream` makes a stream of it.
///
/// ```
/// use mainstay::{Registry, WatchEvent, error::WatchError};
///
/// let registry = Registry::with_capacity(1)?;
/// let limit = registry.register::<u32>("limit")?;
/// let provider = registry.provide(limit)?;
/// let running = provider.begin().wait_blocking()?.ready(10)?;
///
/// let mut watch = registry.watch(limit)?;
/// let event = watch.changed().wait_blocking()?;
/// assert!(matches!(event, WatchEvent::Ready(limit) if **limit == 10));
/// running.replace(20)?;
/// let event = watch.changed().wait_blocking()?;
/// assert!(matches!(event, WatchEvent::Replaced(limit) if **limit == 20));
/// running.fail("no limits");
/// let event = watch.changed().wait_blocking()?;
/// assert!(matches!(event, WatchEvent::Failed(f) if f.reason.to_string() == "no limits"));
/// registry.close();
/// assert!(matches!(watch.changed().wait_blocking(), Err(WatchError::Closed { .. })));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Watch<D: Send + Sync + 'static> {
    registry: Registry,
    id: ServiceId<D>,
    /// The service that watches; `None` for other code.
    watcher: Option<Watcher>,
    /// The instance that was last reported. Weak, so that its address is not reused.
    reported: Option<Weak<Instance<D>>>,
    /// The generation of that instance.
    generation: Generation,
}

/// The service on whose behalf another one is watched.
#[derive(Debug, Clone, Copy)]
struct Watcher {
    service: ServiceIndex,
    /// The watch ends with this generation of the service that watches.
    generation: Generation,
}

impl Registry {
    /// Watches a service from code that is not a service itself: this creates no edge.
    ///
    /// If the service is ready, the first report is its instance. A service watches another one
    /// with [`Attempt::watch`](crate::Attempt::watch).
    ///
    /// # Errors
    ///
    /// [`ForeignIdError`]: the id belongs to another registry.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<u16>("port")?;
    /// let mut watch = registry.watch(port)?;
    /// let change = watch.changed().wait_blocking_timeout(std::time::Duration::ZERO);
    /// assert!(change.is_err(), "the service is not ready yet");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn watch<D: Send + Sync + 'static>(
        &self,
        id: ServiceId<D>,
    ) -> Result<Watch<D>, ForeignIdError> {
        self.index(id.into())?;
        Ok(Watch::new(self, id, None))
    }
}

impl<D: Send + Sync + 'static> Watch<D> {
    fn new(registry: &Registry, id: ServiceId<D>, watcher: Option<Watcher>) -> Self {
        let generation = Generation::FIRST;
        Self { registry: registry.clone(), id, watcher, reported: None, generation }
    }

    /// The watch of an attempt at `dependent`; it ends with `generation`.
    pub(crate) fn of_attempt(
        registry: &Registry,
        id: ServiceId<D>,
        dependent: ServiceIndex,
        generation: Generation,
        edges: &UsedEdges,
    ) -> Result<Self, DependencyError> {
        let dependency = registry.index(id.into())?;
        let edge = Edge { dependent, dependency, soft: true };
        let store = registry.store();
        edges
            .discover(store, edge, generation, false)
            .map_err(|cycle| registry::cycle_error(store, cycle))?;
        Ok(Self::new(registry, id, Some(Watcher { service: dependent, generation })))
    }

    /// The watch of an instance of `generation`, whose edge was published.
    #[cfg(feature = "supervise")]
    pub(crate) fn of_generation(
        registry: &Registry,
        id: ServiceId<D>,
        dependent: ServiceIndex,
        generation: Generation,
    ) -> Self {
        Self::new(registry, id, Some(Watcher { service: dependent, generation }))
    }

    /// Returns the id of the service that is watched.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<u16>("port")?;
    /// assert_eq!(registry.watch(port)?.id(), port);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn id(&self) -> ServiceId<D> {
        self.id
    }

    /// Waits until the state of the service differs from the state that was last reported, and
    /// reports it. The first call waits until the service is ready.
    ///
    /// The wait is cancel-safe: a wait that is dropped has reported nothing.
    ///
    /// # Errors
    ///
    /// - [`WatchError::DependentFailed`]: the service that watches has failed.
    /// - [`WatchError::Closed`]: the registry is closed. A change that was not reported yet is
    ///   reported first.
    /// - [`WatchError::Stopped`]: a shutdown has stopped the service. Its failure is reported
    ///   first.
    /// - [`WatchError::TimedOut`]: the timeout expired.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<u16>("port")?;
    /// # let provider = registry.provide(port)?;
    /// # let _running = provider.begin().wait_blocking()?.ready(80)?;
    /// let mut watch = registry.watch(port)?;
    /// println!("{:?}", watch.changed().wait_blocking()?);
    /// // Or, on an executor: watch.changed().await?
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn changed(&mut self) -> Changed<'_, D> {
        Wait::new(ChangedCondition { watch: self })
    }

    /// Compares the present state with the last report, and returns the new one if they differ.
    fn next_event(&mut self) -> Option<WatchEvent<D>> {
        match self.registry.get_arc(self.id) {
            Ok(instance) => {
                // Shielded: it is dropped here if it has been reported already.
                let instance = Shielded::new(instance);
                let now = Arc::downgrade(&instance);
                let before = self.reported.replace(Weak::clone(&now));
                if before.as_ref().is_some_and(|before| before.ptr_eq(&now)) {
                    return None;
                }
                let generation = Instance::generation(&instance);
                let same_generation = before.is_some() && self.generation == generation;
                self.generation = generation;
                let instance = instance.into_inner();
                Some(if same_generation {
                    WatchEvent::Replaced(instance)
                } else {
                    WatchEvent::Ready(instance)
                })
            }
            Err(_) => {
                self.reported.take()?;
                Some(WatchEvent::Failed(
                    self.registry.store().failure(self.id.index(), self.generation),
                ))
            }
        }
    }
}

impl<D: Send + Sync + 'static> fmt::Debug for Watch<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let store = self.registry.store();
        f.debug_struct("Watch")
            .field("service", &store.name(self.id.index()))
            .field("watcher", &self.watcher.map(|watcher| store.name(watcher.service)))
            .finish_non_exhaustive()
    }
}

/// The wait of [`Watch::changed`]. It borrows the watch, which stores what it last reported.
pub type Changed<'a, D> = Wait<ChangedCondition<&'a mut Watch<D>>>;

/// The state of a service differs from the last report of a watch. `W` is a reference to the watch,
/// or owns it.
pub struct ChangedCondition<W> {
    pub(super) watch: W,
}

impl<D, W> Condition for ChangedCondition<W>
where
    D: Send + Sync + 'static,
    W: DerefMut<Target = Watch<D>> + Unpin,
{
    type Output = Result<WatchEvent<D>, WatchError>;

    fn check(&mut self) -> Option<Self::Output> {
        if let Some(Watcher { service, generation }) = self.watch.watcher {
            let store = self.watch.registry.store();
            if store.slot(service).state.load().generation() > generation {
                return Some(Err(WatchError::DependentFailed(store.failure(service, generation))));
            }
        }
        if let Some(event) = self.watch.next_event() {
            return Some(Ok(event));
        }
        let store = self.store();
        let service = || store.name(self.watch.id.index());
        if store.is_closed() {
            return Some(Err(WatchError::Closed { service: service() }));
        }
        let has_stopped = store.has_stopped(self.watch.id.index());
        has_stopped.then(|| Err(WatchError::Stopped { service: service() }))
    }

    fn slots(&self) -> WaitSlots {
        WaitSlots::of(self.watch.id.index()).and(self.watch.watcher.map(|watcher| watcher.service))
    }

    fn store(&self) -> &Store {
        self.watch.registry.store()
    }

    fn timed_out(&self, after: Duration) -> Self::Output {
        let service = self.store().name(self.watch.id.index());
        Err(WatchError::TimedOut { service, after })
    }
}

impl<D, W> BlockingCondition for ChangedCondition<W>
where
    D: Send + Sync + 'static,
    W: DerefMut<Target = Watch<D>> + Unpin,
{
    fn must_await(&self) -> Self::Output {
        Err(MustAwaitError::new(self.store().name(self.watch.id.index())).into())
    }
}
