//! Who still holds what is over: the instances of one generation, until the last of them is gone.

use std::{
    fmt,
    sync::{Arc, Weak},
    time::Duration,
};

use crate::{
    error::DrainError,
    registry::{Registry, Shared},
    running::Running,
    service::Instance,
    store::Store,
    sync::{AtomicU32, Mutex, Ordering, lock},
    wait::{Wait, sealed::Condition},
};

/// The instances of one generation, as its provider knows them.
pub(crate) struct Tracked<T> {
    shared: Weak<Shared>,
    index: u32,
    alive: Arc<Alive>,
    /// Those that there were, for their holders to be counted. What is gone is left out with the next that comes.
    instances: Mutex<Vec<Weak<Instance<T>>>>,
}

/// In each instance, after its value: says that it is gone.
pub(crate) struct Gone {
    shared: Weak<Shared>,
    index: u32,
    alive: Arc<Alive>,
}

/// How many instances of one generation have not been dropped.
struct Alive(AtomicU32);

impl Alive {
    fn none() -> Self {
        Self(AtomicU32::new(0))
    }

    /// Relaxed: its generation is not over, so that nobody believes that there is none.
    fn one_more(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Release: pairs with `is_none`, for what the value's `Drop` did.
    fn one_less(&self) {
        self.0.fetch_sub(1, Ordering::Release);
    }

    /// Acquire: pairs with `one_less`.
    fn is_none(&self) -> bool {
        self.0.load(Ordering::Acquire) == 0
    }
}

impl Drop for Gone {
    fn drop(&mut self) {
        self.alive.one_less();
        if let Some(shared) = self.shared.upgrade() {
            shared.store.wake(self.index);
        }
    }
}

impl<T> Tracked<T> {
    pub(crate) fn new(registry: &Registry, index: u32) -> Self {
        let (shared, alive) = (Arc::downgrade(&registry.shared()), Arc::new(Alive::none()));
        Self { shared, index, alive, instances: Mutex::new(Vec::new()) }
    }

    pub(crate) fn gone(&self) -> Gone {
        self.alive.one_more();
        let (shared, alive) = (Weak::clone(&self.shared), Arc::clone(&self.alive));
        Gone { shared, index: self.index, alive }
    }

    pub(crate) fn add(&self, instance: &Arc<Instance<T>>) {
        let mut instances = lock(&self.instances);
        instances.retain(|instance| instance.strong_count() > 0);
        instances.push(Arc::downgrade(instance));
    }

    fn holders(&self) -> usize {
        lock(&self.instances).iter().map(Weak::strong_count).sum()
    }
}

impl<T: Send + Sync + 'static> Running<T> {
    /// How many hold an instance of this generation: guards, clones of its `Arc`, [cached readers](crate::Cached) that
    /// have not looked since. While the generation is ready, the registry is one of them, and guards are not counted.
    ///
    /// A number for people: it may be another by the time that it is seen.
    ///
    /// ```
    /// let registry = mainstay::Registry::with_capacity(1)?;
    /// let port = registry.register::<u16>("port")?;
    /// let provider = registry.provide(port)?;
    /// let running = provider.begin().wait()?.ready(80)?;
    /// let held = registry.get_arc(port)?;
    /// assert_eq!(running.holders(), 2);
    /// registry.fail(port, "closed")?;
    /// assert!(running.drained().wait_timeout(std::time::Duration::ZERO).is_err());
    /// assert_eq!(running.holders(), 1);
    /// drop(held);
    /// running.drained().wait()?;
    /// assert_eq!(running.holders(), 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn holders(&self) -> usize {
        self.tracked.holders()
    }

    /// Waits until this generation has failed, and the last reader has let go of its instances: all of them, also
    /// those that were [replaced](Self::replace), have been dropped.
    ///
    /// For what must not be there twice: a port, a file that is locked. A [cached reader](crate::Cached) that idles
    /// holds on until it is [released](crate::Cached::release), or looks again, or is dropped.
    ///
    /// # Errors
    ///
    /// [`DrainError`]: the time is up, and so many hold it still. It goes on after the registry is closed, as readers
    /// do.
    ///
    /// ```
    /// use mainstay::DrainError;
    /// use std::time::Duration;
    ///
    /// let registry = mainstay::Registry::with_capacity(1)?;
    /// let port = registry.register::<u16>("port")?;
    /// let provider = registry.provide(port)?;
    /// let running = provider.begin().wait()?.ready(80)?;
    /// let request = registry.get(port)?;
    /// registry.fail(port, "closed")?;
    ///
    /// let Err(DrainError { holders, .. }) = running.drained().wait_timeout(Duration::from_millis(1)) else {
    ///     panic!("a request still has it")
    /// };
    /// assert_eq!(holders, 1);
    /// drop(request);
    /// running.drained().wait()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn drained(&self) -> Wait<impl Condition<Output = Result<(), DrainError>> + use<'_, T>> {
        Wait::new(Drained { running: self })
    }
}

struct Drained<'a, T: Send + Sync + 'static> {
    running: &'a Running<T>,
}

impl<T: Send + Sync + 'static> Condition for Drained<'_, T> {
    type Output = Result<(), DrainError>;

    fn look(&mut self) -> Option<Self::Output> {
        let Running { registry, id, generation, tracked } = self.running;
        // What is left in the slot is nobody's, and takes with it the debts by which guards hold it.
        registry.store().clear(*id, *generation);
        tracked.alive.is_none().then_some(Ok(()))
    }

    fn slots(&self) -> (u32, Option<u32>) {
        (self.running.id.index(), None)
    }

    fn store(&self) -> &Store {
        self.running.registry.store()
    }

    fn timed_out(&self, after: Duration) -> Self::Output {
        let service = self.running.registry.store().name(self.running.id.index());
        Err(DrainError { service, holders: self.running.holders(), after })
    }
}

impl<T> fmt::Debug for Tracked<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tracked").field("holders", &self.holders()).finish()
    }
}
