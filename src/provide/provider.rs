//! The provider of a service, and the wait to begin an attempt.

use std::time::{Duration, Instant};

use super::{attempt::Attempt, debug_by_service};
use crate::{
    error::{BeginError, MustAwaitError, ProvideError},
    event::EventKind,
    failure::Reason,
    numbers::{Generation, ServiceIndex},
    registry::Registry,
    service::ServiceId,
    store::{RoleRefused, Store, Target, UsedEdges},
    sync::Shielded,
    waiting::{
        Wait,
        sealed::{BlockingCondition, Condition, WaitSlots},
    },
};

/// The owner of the exclusive role of providing one service. [`Registry::provide`] returns it.
///
/// It runs a loop of four steps: [`begin`](Self::begin) an attempt, [wait for](Attempt::wait_for)
/// its dependencies, publish the instance with [`ready`](Attempt::ready), and wait until it has
/// [failed](crate::Running::failed). The loop is the same on an executor (`.await`) and on a plain
/// thread (`.wait_blocking()`). With the feature `supervise`, a supervisor runs
/// this loop (`Registry::supervise`).
///
/// The drop of the provider fails the service, and makes the role free.
///
/// To back off before a retry, wait inside the next attempt, and end the backoff if that attempt is
/// [invalidated](Attempt::invalidated) or the registry is closed. Then a failure of a dependency
/// that is a reason to retry at once, such as a changed configuration, ends the backoff.
///
/// ```
/// use mainstay::{
///     Registry, ServiceId,
///     error::{self, BeginError, WaitForError},
/// };
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
///             Err(WaitForError::Invalidated(_)) => continue,
///             name => name?,
///         };
///         // An error if `name` has failed since it was read: begin a new attempt.
///         let Ok(running) = attempt.ready(format!("hello, {}", **name)) else { continue };
///         if let Ok(failure) = running.failed().await {
///             eprintln!("{}", error::chain(&failure));
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
/// let world = provider.begin().wait_blocking()?.ready("world".to_string())?;
/// # let greeting = registry.register::<String>("greeting")?;
/// assert_eq!(**registry.wait_ready(greeting).wait_blocking()?, "hello, world");
///
/// world.fail("moved on");
/// let _moon = provider.begin().wait_blocking()?.ready("moon".to_string())?;
/// assert_eq!(**registry.wait_ready(greeting).wait_blocking()?, "hello, moon");
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
    /// Lock-free.
    ///
    /// # Errors
    ///
    /// - [`ProvideError::AlreadyProvided`]: another provider owns the role, or the service is a
    ///   [constant](Self::constant).
    /// - [`ProvideError::NeedsSupervisor`]: a grace period is declared for the service
    ///   (`Depends::with_grace_on`), which only a supervisor enforces. Call `Registry::supervise`.
    /// - [`ProvideError::Closed`]: the registry is closed.
    /// - [`ProvideError::ForeignId`]: the id belongs to another registry.
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
        self.take_role(id, false)
    }

    /// Takes the role of providing a service, for a supervisor or for another provider.
    pub(crate) fn take_role<T: Send + Sync + 'static>(
        &self,
        id: ServiceId<T>,
        supervised: bool,
    ) -> Result<Provider<T>, ProvideError> {
        let index = self.index(id.into())?;
        let name = || self.store().name(index);
        if self.is_closed() {
            return Err(ProvideError::Closed { service: name() });
        }
        match self.store().service(index).role.take(supervised) {
            Ok(()) => {
                self.review_if_stuck(index);
                Ok(Provider { registry: self.clone(), id })
            }
            Err(RoleRefused::Taken) => Err(ProvideError::AlreadyProvided { service: name() }),
            Err(RoleRefused::NeedsSupervisor) => {
                Err(ProvideError::NeedsSupervisor { service: name() })
            }
        }
    }
}

impl<T: Send + Sync + 'static> Provider<T> {
    /// Returns the id of the service.
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

    /// Waits until the slot is free, and begins an attempt.
    ///
    /// The slot is free if the last instance has failed, no attempt is in progress, and no cascade
    /// has condemned the slot without taking it down.
    ///
    /// The wait is cancel-safe: if it is dropped, no attempt has begun.
    ///
    /// # Errors
    ///
    /// - [`BeginError::Closed`]: the registry is closed, or a shutdown has stopped the service.
    /// - [`BeginError::TimedOut`]: the timeout expired.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<u16>("port")?;
    /// # let provider = registry.provide(port)?;
    /// let attempt = provider.begin().wait_blocking()?;
    /// // Or, on an executor: provider.begin().await?
    /// let running = attempt.ready(80)?;
    /// running.fail("closed");
    /// assert_eq!(provider.begin().wait_blocking()?.generation(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn begin(&self) -> Begin<'_, T> {
        Wait::new(SlotFree { provider: self, started_at: None })
    }
}

impl<T: Send + Sync + 'static> Drop for Provider<T> {
    fn drop(&mut self) {
        let reason = Reason::dropped(self.registry.is_closed(), Reason::ProviderDropped);
        let _ = self.registry.cascade(self.id.index(), Target::Any, reason);
        self.registry.store().service(self.id.index()).role.release();
        self.registry.review(self.id.index());
    }
}

/// The wait of [`Provider::begin`]. It borrows the provider: the role must outlive the attempt that
/// begins.
pub type Begin<'a, T> = Wait<SlotFree<'a, T>>;

/// The slot of a service is free; the check begins an attempt.
pub struct SlotFree<'a, T: Send + Sync + 'static> {
    provider: &'a Provider<T>,
    /// The start of the wait, if an observer needs its duration.
    started_at: Option<Instant>,
}

impl<T: Send + Sync + 'static> Condition for SlotFree<'_, T> {
    type Output = Result<Attempt<T>, BeginError>;

    fn check(&mut self) -> Option<Self::Output> {
        let Provider { registry, id } = self.provider;
        let store = registry.store();
        let mark = &store.service(id.index()).end_mark;
        let closed = || Some(Err(BeginError::Closed { service: store.name(id.index()) }));
        if store.is_closed() || mark.is_final() {
            return closed();
        }
        // The slot is woken when the mark is removed.
        if mark.is_set() {
            return None;
        }
        let generation = store.begin(id.index())?;
        if end_if_marked(store, id.index(), generation) {
            return if mark.is_final() { closed() } else { None };
        }
        let elapsed = registry.elapsed_since(self.started_at);
        registry.emit(id.index(), generation, elapsed, EventKind::AttemptStarted);
        Some(Ok(Attempt::new(registry, *id, generation)))
    }

    fn slots(&self) -> WaitSlots {
        WaitSlots::of(self.provider.id.index())
    }

    fn store(&self) -> &Store {
        self.provider.registry.store()
    }

    fn timed_out(&self, after: Duration) -> Self::Output {
        let service = self.provider.registry.store().name(self.provider.id.index());
        Err(BeginError::TimedOut { service, after })
    }

    fn on_start(&mut self) {
        self.started_at = self.provider.registry.now_if_observed();
    }
}

impl<T: Send + Sync + 'static> BlockingCondition for SlotFree<'_, T> {
    fn must_await(&self) -> Self::Output {
        let service = self.provider.registry.store().name(self.provider.id.index());
        Err(MustAwaitError::new(service).into())
    }
}

/// Ends the attempt that has just begun if a planned end has marked the service. Returns whether it
/// has.
///
/// The begin of the attempt is a read-modify-write of the state, and so is the wake-up that follows
/// the mark. The later of the two sees the earlier one: either this function finds the mark, or the
/// plan finds the attempt, and fails it (S4 in `docs/supervision.md`).
pub(super) fn end_if_marked(store: &Store, index: ServiceIndex, generation: Generation) -> bool {
    let mark = &store.service(index).end_mark;
    if !mark.is_set() {
        return false;
    }
    let reason = if mark.is_final() { Reason::ShutDown } else { Reason::AttemptDropped };
    store.fail_attempt(index, generation, Shielded::new(reason), &UsedEdges::default());
    true
}

debug_by_service! {
    Provider;
}
