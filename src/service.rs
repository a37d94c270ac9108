//! The words about one service: its name, its typed and its untyped id, an instance of it.

use std::{
    any::type_name,
    fmt,
    hash::{Hash, Hasher},
    num::NonZeroU32,
    ops::Deref,
    sync::Arc,
};

use crate::{drain::Gone, sync::slab::Key};

/// A service whose values are `T`, in one registry: eight bytes, `Copy`, constant once it is there.
///
/// It comes from [`Registry::register`](crate::Registry::register) or, by name, from
/// [`Registry::id`](crate::Registry::id). Another registry refuses it with
/// [`ForeignId`](crate::ForeignId): an id never leads to another service's value.
///
/// ```
/// use mainstay::{Registry, ServiceId};
///
/// #[derive(Clone, Copy)]
/// struct Ids {
///     port: ServiceId<u16>,
/// }
///
/// let registry = Registry::with_capacity(1)?;
/// let ids = Ids { port: registry.register("port")? };
/// assert_eq!(registry.id::<u16>("port")?, ids.port);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct ServiceId<T> {
    pub(crate) key: Key<Instance<T>>,
}

impl<T> Clone for ServiceId<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for ServiceId<T> {}

impl<T> ServiceId<T> {
    pub(crate) fn index(self) -> u32 {
        self.key.index()
    }
}

impl<T> PartialEq for ServiceId<T> {
    fn eq(&self, other: &Self) -> bool {
        AnyId::from(*self) == AnyId::from(*other)
    }
}

impl<T> Eq for ServiceId<T> {}

impl<T> Hash for ServiceId<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        AnyId::from(*self).hash(state);
    }
}

impl<T> fmt::Debug for ServiceId<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} of {}", AnyId::from(*self), type_name::<T>())
    }
}

/// A service of one registry, whatever the type of its values: for tools, lists, and failing by name.
///
/// ```
/// use mainstay::{AnyId, Registry};
///
/// let registry = Registry::with_capacity(1)?;
/// let port = registry.register::<u16>("port")?;
/// assert_eq!(registry.find("port")?, AnyId::from(port));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AnyId {
    pub(crate) registry: NonZeroU32,
    pub(crate) index: u32,
}

impl<T> From<ServiceId<T>> for AnyId {
    fn from(id: ServiceId<T>) -> Self {
        Self { registry: id.key.number(), index: id.key.index() }
    }
}

impl fmt::Debug for AnyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "service {} of registry {}", self.index, self.registry)
    }
}

/// The name of a service, shared: a clone copies no text.
///
/// ```
/// let registry = mainstay::Registry::with_capacity(1)?;
/// let id = registry.register::<u16>("port")?;
/// let name = registry.status(id)?.name;
/// assert_eq!(name, "port");
/// assert_eq!(name.len(), 4);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(into = "String"))]
pub struct Name(Arc<str>);

impl Name {
    pub(crate) fn new(name: &str) -> Self {
        Self(name.into())
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0.as_ref().into()
    }
}

impl Deref for Name {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl PartialEq<str> for Name {
    fn eq(&self, other: &str) -> bool {
        *self.0 == *other
    }
}

impl PartialEq<&str> for Name {
    fn eq(&self, other: &&str) -> bool {
        *self.0 == **other
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

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
    /// Of the service, as it was published: its tag is `Ready` in this generation.
    pub(crate) generation: u64,
    pub(crate) service: AnyId,
    pub(crate) value: T,
    // Dropped after the value.
    pub(crate) _gone: Gone,
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
        this.generation
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
            .field("generation", &self.generation)
            .field("value", &self.value)
            .finish()
    }
}
