//! The value that an operation has refused.

use std::{fmt, ops::Deref, sync::Arc};

use crate::{
    instance::Instance,
    sync::{Shielded, yield_now},
};

/// A value that was refused, as its errors return it: [`ReadyError`](super::ReadyError) and
/// [`ReplaceError`](super::ReplaceError). It dereferences to the value.
///
/// No reader has been given the value. But a reader may be comparing its tag at this moment, which
/// takes it a few instructions, and holds a reference during that time. Therefore
/// [`try_into_inner`](Self::try_into_inner) returns the handle if there is such a reader, and only
/// [`into_inner`](Self::into_inner) waits for it.
///
/// ```
/// let registry = mainstay::Registry::with_capacity(1)?;
/// let port = registry.register::<u16>("port")?;
/// let provider = registry.provide(port)?;
/// let attempt = provider.begin().wait_blocking()?;
/// registry.fail(port, "start again")?;
///
/// let refused = attempt.ready(80).unwrap_err().into_value();
/// assert_eq!(*refused, 80);
/// assert_eq!(refused.into_inner(), 80);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct RefusedValue<T>(Refused<T>);

enum Refused<T> {
    Owned(Shielded<T>),
    Shared(Arc<Instance<T>>),
}

impl<T> RefusedValue<T> {
    pub(crate) fn owned(value: T) -> Self {
        Self(Refused::Owned(Shielded::new(value)))
    }

    /// The instance is in no cell.
    pub(crate) fn shared(instance: Arc<Instance<T>>) -> Self {
        Self(Refused::Shared(instance))
    }

    /// Returns the value. Lock-free.
    ///
    /// # Errors
    ///
    /// The handle itself: a reader is comparing the value at this moment.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<u16>("port")?;
    /// # let provider = registry.provide(port)?;
    /// # let attempt = provider.begin().wait_blocking()?;
    /// # registry.fail(port, "start again")?;
    /// let refused = attempt.ready(80).unwrap_err().into_value();
    /// match refused.try_into_inner() {
    ///     Ok(value) => assert_eq!(value, 80),
    ///     Err(refused) => assert_eq!(*refused, 80), // try again later
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn try_into_inner(self) -> Result<T, Self> {
        match self.0 {
            Refused::Owned(value) => Ok(value.into_inner()),
            Refused::Shared(instance) => match Arc::try_unwrap(instance) {
                Ok(instance) => Ok(Instance::into_value(instance)),
                Err(shared) => Err(Self::shared(shared)),
            },
        }
    }

    /// Returns the value. Blocking: waits until no reader is comparing it.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<u16>("port")?;
    /// # let provider = registry.provide(port)?;
    /// let running = provider.begin().wait_blocking()?.ready(80)?;
    /// registry.fail(port, "closed")?;
    /// let refused = running.replace(81).unwrap_err().value;
    /// assert_eq!(refused.into_inner(), 81);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn into_inner(self) -> T {
        let mut this = self;
        loop {
            match this.try_into_inner() {
                Ok(value) => return value,
                Err(shared) => this = shared,
            }
            yield_now();
        }
    }
}

impl<T> Deref for RefusedValue<T> {
    type Target = T;

    fn deref(&self) -> &T {
        match &self.0 {
            Refused::Owned(value) => value,
            Refused::Shared(instance) => instance,
        }
    }
}

/// The clone is a value of its own.
impl<T: Clone> Clone for RefusedValue<T> {
    fn clone(&self) -> Self {
        Self::owned(T::clone(self))
    }
}

impl<T: fmt::Debug> fmt::Debug for RefusedValue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        T::fmt(self, f)
    }
}
