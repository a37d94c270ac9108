//! A value with the tag under which it is current.

use std::{fmt, ops::Deref};

use super::state::Tag;
use crate::id::AnyId;

/// One published value of a service, with the generation that it was published under. Immutable.
///
/// It derefs to the value. Its own functions are associated functions, called as
/// `Instance::generation(&instance)`, so that they hide none of the value's.
///
/// ```
/// use mainstay::{Instance, Registry};
///
/// let registry = Registry::with_capacity(1)?;
/// let greeting = registry.register::<String>("greeting")?;
/// let provider = registry.provide(greeting)?;
/// let _running = provider.begin().wait()?.ready("hello".to_string())?;
///
/// let instance = registry.get_arc(greeting)?;
/// assert_eq!(instance.len(), 5); // of the String
/// assert_eq!(Instance::generation(&instance), 0);
/// assert_eq!(registry.status(Instance::service(&instance))?.name, "greeting");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Instance<T> {
    pub(crate) tag: Tag,
    pub(crate) service: AnyId,
    pub(crate) value: T,
}

impl<T> Instance<T> {
    /// The generation of the service that this value belongs to. A replacement shares it.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<u16>("port")?;
    /// # let provider = registry.provide(port)?;
    /// let _running = provider.begin().wait()?.ready(80)?;
    /// let instance = registry.get_arc(port)?;
    /// assert_eq!(mainstay::Instance::generation(&instance), 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn generation(this: &Self) -> u64 {
        this.tag.generation()
    }

    /// The service that this is an instance of.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<u16>("port")?;
    /// # let provider = registry.provide(port)?;
    /// let _running = provider.begin().wait()?.ready(80)?;
    /// let instance = registry.get_arc(port)?;
    /// assert_eq!(mainstay::Instance::service(&instance), port.into());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn service(this: &Self) -> AnyId {
        this.service
    }
}

impl<T> Deref for Instance<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: fmt::Debug> fmt::Debug for Instance<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Instance")
            .field("generation", &self.tag.generation())
            .field("value", &self.value)
            .finish()
    }
}
