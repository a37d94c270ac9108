//! What names a service: its typed id, its untyped id, its name.

use std::{
    any::type_name,
    fmt,
    hash::{Hash, Hasher},
    num::NonZeroU32,
    ops::Deref,
    sync::Arc,
};

use crate::{store::Instance, sync::raw::Key};

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
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}
