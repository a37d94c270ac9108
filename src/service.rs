//! The ids of a service (typed and untyped), its name, and its instances.

use std::{
    any::type_name,
    cmp::Ordering as CmpOrdering,
    fmt,
    hash::{Hash, Hasher},
    num::NonZeroU32,
    ops::Deref,
    sync::Arc,
};

use crate::{
    alive::DropNotice,
    numbers::{Generation, ServiceIndex},
    sync::slab::Key,
};

/// The typed id of a service whose values have the type `T`. It is `Copy`, and has eight bytes.
///
/// An id is valid for the life of its registry. It is returned by
/// [`Registry::register`](crate::Registry::register) or, by name, from
/// [`Registry::id`](crate::Registry::id). Another registry refuses it with
/// [`ForeignIdError`](crate::error::ForeignIdError): an id never leads to the value of another
/// service.
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
    pub(crate) fn index(self) -> ServiceIndex {
        self.key.index()
    }
}

impl<T> PartialEq for ServiceId<T> {
    fn eq(&self, other: &Self) -> bool {
        AnyId::from(*self) == AnyId::from(*other)
    }
}

impl<T> Eq for ServiceId<T> {}

impl<T> PartialOrd for ServiceId<T> {
    fn partial_cmp(&self, other: &Self) -> Option<CmpOrdering> {
        Some(self.cmp(other))
    }
}

/// By registry, then in the order of registration.
impl<T> Ord for ServiceId<T> {
    fn cmp(&self, other: &Self) -> CmpOrdering {
        AnyId::from(*self).cmp(&AnyId::from(*other))
    }
}

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

/// The untyped id of a service: for tools, for lists, and to fail a service by its name.
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
    pub(crate) index: ServiceIndex,
}

impl<T> From<ServiceId<T>> for AnyId {
    fn from(id: ServiceId<T>) -> Self {
        Self { registry: id.key.number(), index: id.key.index() }
    }
}

impl fmt::Debug for AnyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "service {} of registry {}", self.index.get(), self.registry)
    }
}

/// The name of a service. It dereferences to `str`; a clone shares the text.
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
pub struct ServiceName(Arc<str>);

impl ServiceName {
    pub(crate) fn new(name: &str) -> Self {
        Self(name.into())
    }
}

impl From<ServiceName> for String {
    fn from(name: ServiceName) -> Self {
        name.0.as_ref().into()
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for ServiceName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|name| Self(name.into()))
    }
}

impl Deref for ServiceName {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for ServiceName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl PartialEq<str> for ServiceName {
    fn eq(&self, other: &str) -> bool {
        *self.0 == *other
    }
}

impl PartialEq<&str> for ServiceName {
    fn eq(&self, other: &&str) -> bool {
        *self.0 == **other
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// A published value of a service, with its generation. It is immutable, and dereferences to the
/// value.
///
/// Its own functions are associated functions, called as `Instance::generation(&instance)`, so that
/// they do not hide methods of the value.
///
/// ```
/// use mainstay::{Instance, Registry};
///
/// let registry = Registry::with_capacity(1)?;
/// let greeting = registry.register::<String>("greeting")?;
/// let provider = registry.provide(greeting)?;
/// let _running = provider.begin().wait_blocking()?.ready("hello".to_string())?;
///
/// let instance = registry.get_arc(greeting)?;
/// assert_eq!(instance.len(), 5); // of the String
/// assert_eq!(Instance::generation(&instance), 0);
/// assert_eq!(registry.status(Instance::service(&instance))?.name, "greeting");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Instance<T> {
    /// The generation under which it was published: its tag is `Ready` in this generation.
    pub(crate) generation: Generation,
    pub(crate) service: AnyId,
    pub(crate) value: T,
    // The last field: it is dropped after the value, and reports that the value has been dropped.
    pub(crate) _drop_notice: DropNotice,
}

impl<T> Instance<T> {
    /// Returns the generation under which the value was published. A replacement has the same
    /// generation.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<u16>("port")?;
    /// # let provider = registry.provide(port)?;
    /// let _running = provider.begin().wait_blocking()?.ready(80)?;
    /// let instance = registry.get_arc(port)?;
    /// assert_eq!(mainstay::Instance::generation(&instance), 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn generation(this: &Self) -> Generation {
        this.generation
    }

    /// Returns the id of the service.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<u16>("port")?;
    /// # let provider = registry.provide(port)?;
    /// let _running = provider.begin().wait_blocking()?.ready(80)?;
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
