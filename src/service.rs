//! The ids of a service (typed and untyped), and its name.

use std::{
    any::type_name,
    cmp::Ordering as CmpOrdering,
    fmt,
    hash::{Hash, Hasher},
    num::NonZeroU32,
    ops::Deref,
    sync::Arc,
};

use crate::{instance::Instance, numbers::ServiceIndex, sync::slab::Key};

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

    /// Returns whether one of the two is a clone of the other. Two registries may use one name, but
    /// they share no text.
    #[cfg(feature = "supervise")]
    pub(crate) fn is_clone_of(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
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
