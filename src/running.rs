//! A published instance in its provider's hands: until it fails.

use std::{error::Error, sync::Arc, time::Duration};

use crate::{
    drain::Tracked,
    error::{ReplaceError, WaitError},
    event::EventKind,
    failure::{Cascade, Failure, Reason},
    registry::Registry,
    service::{Instance, ServiceId},
    store::{Refused, Store, Target},
    sync::Shielded,
    wait::{Wait, sealed::Condition},
};

/// The handle of a published instance. Dropping it fails the service.
///
/// ```
/// # let registry = mainstay::Registry::with_capacity(1)?;
/// # let port = registry.register::<u16>("port")?;
/// # let provider = registry.provide(port)?;
/// let running = provider.begin().wait()?.ready(80)?;
/// assert!(registry.get(port).is_ok());
/// drop(running);
/// assert!(registry.get(port).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Running<T: Send + Sync + 'static> {
    pub(crate) registry: Registry,
    pub(crate) id: ServiceId<T>,
    pub(crate) generation: u64,
    pub(crate) tracked: Tracked<T>,
}

impl<T: Send + Sync + 'static> Running<T> {
    /// The generation of the instance.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<u16>("port")?;
    /// # let provider = registry.provide(port)?;
    /// let running = provider.begin().wait()?.ready(80)?;
    /// assert_eq!(running.generation(), 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The instance, with the value of now; `None` once it has failed.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<u16>("port")?;
    /// # let provider = registry.provide(port)?;
    /// let running = provider.begin().wait()?.ready(80)?;
    /// // An equal value is nothing to restart for.
    /// let new = 80;
    /// if running.instance().is_some_and(|old| **old != new) {
    ///     running.fail("changed");
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn instance(&self) -> Option<Arc<Instance<T>>> {
        let instance = Shielded::new(self.registry.get_arc(self.id).ok()?);
        (instance.generation == self.generation).then(|| instance.into_inner())
    }

    /// Waits until the instance has failed: who failed first, of which generation, and why.
    ///
    /// # Errors
    ///
    /// [`WaitError`]: the registry was closed while it had not failed, or the time is up.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<u16>("port")?;
    /// # let provider = registry.provide(port)?;
    /// let running = provider.begin().wait()?.ready(80)?;
    /// registry.fail(port, "closed")?;
    /// let failure = running.failed().wait()?;
    /// assert_eq!((failure.root_generation, failure.reason.to_string().as_str()), (0, "closed"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn failed(&self) -> Wait<impl Condition<Output = Result<Failure, WaitError>> + use<'_, T>> {
        Wait::new(Over { registry: &self.registry, id: self.id, generation: self.generation })
    }

    /// Puts another value in this one's place, for a change that dependents need not be rebuilt for: they
    /// stay as they are, and no reader finds the service not ready in between. Lock-free.
    ///
    /// Where dependents must be rebuilt, [`fail`](Self::fail) and begin again. Where the new value is equal to
    /// the old one, do neither: compare it with [`instance`](Self::instance) first.
    ///
    /// # Errors
    ///
    /// [`ReplaceError`] with the value: the instance has failed.
    ///
    /// ```
    /// let registry = mainstay::Registry::with_capacity(1)?;
    /// let limit = registry.register::<u32>("limit")?;
    /// let provider = registry.provide(limit)?;
    /// let running = provider.begin().wait()?.ready(100)?;
    /// running.replace(200)?;
    /// assert_eq!(*registry.get(limit)?, 200);
    /// registry.fail(limit, "unlimited")?;
    /// assert_eq!(running.replace(300).unwrap_err().value, 300);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn replace(&self, value: T) -> Result<(), ReplaceError<T>> {
        let (store, index) = (self.registry.store(), self.id.index());
        match store.replace(self.id, self.generation, value, &self.tracked) {
            Ok(()) => {
                self.registry.emit(index, self.generation, Duration::ZERO, EventKind::Replaced);
                Ok(())
            }
            Err(Refused(value)) => {
                let failure = store.failure(index, self.generation);
                Err(ReplaceError { value, failure })
            }
        }
    }

    /// Fails the instance, and what depends on it, for this reason. An instance that has failed already, or is
    /// about to by a cascade that has begun, is left to that: then nothing is counted, and it may still be
    /// readable for a moment.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<u16>("port")?;
    /// # let provider = registry.provide(port)?;
    /// let running = provider.begin().wait()?.ready(80)?;
    /// assert_eq!(running.fail("changed on disk").went_down, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn fail(self, reason: impl Into<Box<dyn Error + Send + Sync>>) -> Cascade {
        self.end(Reason::error(reason))
    }

    fn end(&self, reason: Shielded<Reason>) -> Cascade {
        let target = Target::Generation(self.generation);
        self.registry.cascade(self.id.index(), target, reason).unwrap_or_default()
    }
}

impl<T: Send + Sync + 'static> Drop for Running<T> {
    fn drop(&mut self) {
        self.end(Reason::dropped(self.registry.is_closed(), Reason::RunningDropped));
        self.registry.store().clear(self.id, self.generation);
    }
}

/// A generation of a service is over.
pub(crate) struct Over<'a, T> {
    pub(crate) registry: &'a Registry,
    pub(crate) id: ServiceId<T>,
    pub(crate) generation: u64,
}

impl<T> Condition for Over<'_, T> {
    type Output = Result<Failure, WaitError>;

    fn look(&mut self) -> Option<Self::Output> {
        let (store, index) = (self.registry.store(), self.id.index());
        if store.slot(index).state.load().generation() > self.generation {
            return Some(Ok(store.failure(index, self.generation)));
        }
        store.is_closed().then(|| Err(WaitError::Closed { service: store.name(index) }))
    }

    fn slots(&self) -> (u32, Option<u32>) {
        (self.id.index(), None)
    }

    fn store(&self) -> &Store {
        self.registry.store()
    }

    fn timed_out(&self, after: Duration) -> Self::Output {
        Err(WaitError::TimedOut { service: self.registry.store().name(self.id.index()), after })
    }
}

/// Shows the service by its name, and nothing of its value.
macro_rules! debug_by_service {
    ($($type:ident $(, $generation:ident)?;)+) => {
        $(impl<T: Send + Sync + 'static> std::fmt::Debug for $type<T> {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                let mut debug = f.debug_struct(stringify!($type));
                debug.field("service", &self.registry.store().name(self.id.index()));
                $(debug.field("generation", &self.$generation);)?
                debug.finish()
            }
        })+
    };
}

pub(crate) use debug_by_service;

debug_by_service! {
    Running, generation;
}
