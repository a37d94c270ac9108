//! Soft dependencies: being told that a service has failed, was replaced, or is back, without failing with it.

use std::{
    fmt,
    sync::{Arc, Weak},
    time::Duration,
};

use crate::{
    dependency::Uses,
    error::{DependencyError, ForeignId, WatchError},
    failure::Failure,
    registry::Registry,
    service::{Instance, ServiceId},
    store::{Edge, Store},
    sync::Shielded,
    wait::{Wait, sealed::Condition},
};

/// What has become of a service that is [watched](Watch).
///
/// ```
/// use mainstay::{Change, Registry};
///
/// let registry = Registry::with_capacity(1)?;
/// let port = registry.register::<u16>("port")?;
/// let mut watch = registry.watch(port)?;
/// let provider = registry.provide(port)?;
/// let _running = provider.begin().wait()?.ready(80)?;
/// match watch.changed().wait()? {
///     Change::Ready(port) | Change::Replaced(port) => assert_eq!(**port, 80),
///     Change::Failed(failure) => println!("{failure}"),
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub enum Change<D> {
    /// It is ready, in a generation that was not seen ready before.
    Ready(Arc<Instance<D>>),
    /// It has another instance of the same generation.
    Replaced(Arc<Instance<D>>),
    /// The generation that was seen ready last has failed, and the service was not ready again yet.
    Failed(Failure),
}

impl<D: fmt::Debug> fmt::Debug for Change<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready(instance) => f.debug_tuple("Ready").field(instance).finish(),
            Self::Replaced(instance) => f.debug_tuple("Replaced").field(instance).finish(),
            Self::Failed(failure) => f.debug_tuple("Failed").field(failure).finish(),
        }
    }
}

/// Tells what becomes of one service: from [`Attempt::watch`](crate::Attempt::watch), as a soft dependency of what is
/// built, or from [`Registry::watch`].
///
/// It tells of what is there when it looks, compared with what it told of last: what came and went between two looks is
/// not told, and what is there in the end always is. It keeps no value alive, but the memory of the one that it told
/// of last.
///
/// ```
/// use mainstay::{Change, Registry, WatchError};
///
/// let registry = Registry::with_capacity(1)?;
/// let limit = registry.register::<u32>("limit")?;
/// let provider = registry.provide(limit)?;
/// let running = provider.begin().wait()?.ready(10)?;
///
/// let mut watch = registry.watch(limit)?;
/// assert!(matches!(watch.changed().wait()?, Change::Ready(limit) if **limit == 10));
/// running.replace(20)?;
/// assert!(matches!(watch.changed().wait()?, Change::Replaced(limit) if **limit == 20));
/// running.fail("no limits");
/// assert!(matches!(watch.changed().wait()?, Change::Failed(why) if why.reason.to_string() == "no limits"));
/// registry.close();
/// assert!(matches!(watch.changed().wait(), Err(WatchError::Closed { .. })));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Watch<D: Send + Sync + 'static> {
    registry: Registry,
    id: ServiceId<D>,
    /// On whose behalf: a service, and the generation with which it ends.
    by: Option<(u32, u64)>,
    /// What it has told to be ready. Weak: the address is not used again while this is there.
    seen: Option<Weak<Instance<D>>>,
    /// The generation of that.
    generation: u64,
}

impl Registry {
    /// Watches a service, for whoever is no service: nothing depends on anything by it.
    ///
    /// What is ready when it first looks counts as a change. A service watches another with
    /// [`Attempt::watch`](crate::Attempt::watch).
    ///
    /// # Errors
    ///
    /// [`ForeignId`].
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<u16>("port")?;
    /// let mut watch = registry.watch(port)?;
    /// assert!(watch.changed().wait_timeout(std::time::Duration::ZERO).is_err(), "nothing is there yet");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn watch<D: Send + Sync + 'static>(&self, id: ServiceId<D>) -> Result<Watch<D>, ForeignId> {
        self.index(id.into())?;
        Ok(Watch::new(self, id, None))
    }
}

impl<D: Send + Sync + 'static> Watch<D> {
    fn new(registry: &Registry, id: ServiceId<D>, by: Option<(u32, u64)>) -> Self {
        Self { registry: registry.clone(), id, by, seen: None, generation: 0 }
    }

    /// For an attempt at `dependent`, which is told as long as that generation lasts.
    pub(crate) fn of_attempt(
        registry: &Registry,
        id: ServiceId<D>,
        dependent: u32,
        generation: u64,
        uses: &Uses,
    ) -> Result<Self, DependencyError> {
        let dependency = registry.index(id.into())?;
        let edge = Edge { dependent, dependency, soft: true };
        uses.discover(registry.store(), edge, generation, false)?;
        Ok(Self::new(registry, id, Some((dependent, generation))))
    }

    /// The service that is watched.
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

    /// Waits until something is other than it was told last; at first, until the service is ready.
    ///
    /// # Errors
    ///
    /// [`WatchError`]: the service that watches has failed, the registry is closed, or the time is up. What is still to
    /// be told when the registry closes is told first.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<u16>("port")?;
    /// # let provider = registry.provide(port)?;
    /// # let _running = provider.begin().wait()?.ready(80)?;
    /// let mut watch = registry.watch(port)?;
    /// println!("{:?}", watch.changed().wait()?);
    /// // Or, on an executor: watch.changed().await?
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn changed(
        &mut self,
    ) -> Wait<impl Condition<Output = Result<Change<D>, WatchError>> + use<'_, D>> {
        Wait::new(Changed { watch: self })
    }

    /// What there is to be told, if anything.
    fn look(&mut self) -> Option<Change<D>> {
        match self.registry.get_arc(self.id) {
            Ok(instance) => {
                // Ours to drop, where it is not given.
                let instance = Shielded::new(instance);
                let now = Arc::downgrade(&instance);
                let before = self.seen.replace(Weak::clone(&now));
                if before.as_ref().is_some_and(|before| before.ptr_eq(&now)) {
                    return None;
                }
                let same = before.is_some() && self.generation == instance.generation;
                self.generation = instance.generation;
                let instance = instance.into_inner();
                Some(if same { Change::Replaced(instance) } else { Change::Ready(instance) })
            }
            Err(_) => {
                self.seen.take()?;
                Some(Change::Failed(
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
            .field("by", &self.by.map(|(index, _)| store.name(index)))
            .finish_non_exhaustive()
    }
}

struct Changed<'a, D: Send + Sync + 'static> {
    watch: &'a mut Watch<D>,
}

impl<D: Send + Sync + 'static> Condition for Changed<'_, D> {
    type Output = Result<Change<D>, WatchError>;

    fn look(&mut self) -> Option<Self::Output> {
        if let Some((index, generation)) = self.watch.by {
            let store = self.watch.registry.store();
            if store.slot(index).state.load().generation() > generation {
                return Some(Err(WatchError::Over(store.failure(index, generation))));
            }
        }
        if let Some(change) = self.watch.look() {
            return Some(Ok(change));
        }
        let store = self.store();
        let service = || store.name(self.watch.id.index());
        store.is_closed().then(|| Err(WatchError::Closed { service: service() }))
    }

    fn slots(&self) -> (u32, Option<u32>) {
        (self.watch.id.index(), self.watch.by.map(|(index, _)| index))
    }

    fn store(&self) -> &Store {
        self.watch.registry.store()
    }

    fn timed_out(&self, after: Duration) -> Self::Output {
        let service = self.store().name(self.watch.id.index());
        Err(WatchError::TimedOut { service, after })
    }
}
