//! `ServiceSet`: a set of services.

use std::{fmt, iter::Copied, slice, sync::Arc};

use crate::service::{AnyId, ServiceId};

/// A set of services: their [`AnyId`]s. It is immutable, and a clone shares the ids.
///
/// It is built from an array, an iterator or a tuple of ids; a tuple may contain ids of several
/// types. Each id is contained once. The order is that of the ids: by registry, then in the order
/// of registration. So two sets with the same services are equal.
///
/// # Empty sets, and ids of other registries
///
/// An empty set has no services: an operation on it affects none. A set may contain ids
/// of several registries. It knows no registry, so the operation to which it is passed refuses it
/// with [`ForeignIdError`](crate::error::ForeignIdError), before it has any effect.
///
/// # Costs
///
/// *n* ids are collected in *n* log *n* steps, and `contains` takes log *n*. [`with`](Self::with)
/// and `Extend` copy the set: collect many ids at once. Nothing here blocks.
///
/// ```
/// use mainstay::{Registry, ServiceSet};
///
/// let registry = Registry::with_capacity(3)?;
/// let config = registry.register::<String>("config")?;
/// let pool = registry.register::<u32>("pool")?;
/// let cache = registry.register::<u64>("cache")?;
///
/// let storage = ServiceSet::from((pool, cache)); // ids of several types
/// assert!(storage.contains(pool) && !storage.contains(config));
/// let all = storage.with(config);
/// assert_eq!(all, ServiceSet::from((config, pool, cache)));
///
/// let by_name: ServiceSet = ["cache", "pool"].map(|name| registry.find(name)).into_iter()
///     .collect::<Result<_, _>>()?;
/// assert_eq!(by_name, storage);
/// registry.fail_all(&storage, "the disk is full")?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct ServiceSet {
    /// Sorted, without duplicates.
    ids: Arc<[AnyId]>,
}

impl ServiceSet {
    /// Returns the empty set.
    ///
    /// ```
    /// use mainstay::{Registry, ServiceSet};
    ///
    /// let registry = Registry::with_capacity(0)?;
    /// assert_eq!(registry.fail_all(&ServiceSet::new(), "nothing")?.cascade.failed, 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns a set that also contains this service. It copies the set.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<u16>("port")?;
    /// let set = mainstay::ServiceSet::new().with(port);
    /// assert_eq!(set.with(port).len(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn with(&self, id: impl Into<AnyId>) -> Self {
        let id = id.into();
        match self.ids.binary_search(&id) {
            Ok(_) => self.clone(),
            Err(at) => {
                let (before, after) = self.ids.split_at(at);
                Self { ids: [before, &[id], after].concat().into() }
            }
        }
    }

    /// Returns the services that are in at least one of the two sets.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(2)?;
    /// # let (a, b) = (registry.register::<u8>("a")?, registry.register::<u8>("b")?);
    /// use mainstay::ServiceSet;
    ///
    /// let both = ServiceSet::from(a).union(&ServiceSet::from([a, b]));
    /// assert_eq!(both, ServiceSet::from([b, a]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        if other.is_empty() { self.clone() } else { self.iter().chain(other).collect() }
    }

    /// Returns whether the set contains the service.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(2)?;
    /// # let (a, b) = (registry.register::<u8>("a")?, registry.register::<u8>("b")?);
    /// let set = mainstay::ServiceSet::from(a);
    /// assert!(set.contains(a) && !set.contains(b));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn contains(&self, id: impl Into<AnyId>) -> bool {
        self.ids.binary_search(&id.into()).is_ok()
    }

    /// Returns the number of services.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(2)?;
    /// # let (a, b) = (registry.register::<u8>("a")?, registry.register::<u8>("b")?);
    /// assert_eq!(mainstay::ServiceSet::from([a, b, a]).len(), 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Returns whether the set contains no service.
    ///
    /// ```
    /// assert!(mainstay::ServiceSet::new().is_empty());
    /// ```
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Returns an iterator over the ids, by registry, then in the order of registration.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(2)?;
    /// # let (a, b) = (registry.register::<u8>("a")?, registry.register::<u8>("b")?);
    /// let set = mainstay::ServiceSet::from((b, a));
    /// assert!(set.iter().eq([a.into(), b.into()]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn iter(&self) -> ServiceSetIter<'_> {
        ServiceSetIter(self.ids.iter().copied())
    }

    /// Returns the ids, in their order.
    pub(crate) fn ids(&self) -> &[AnyId] {
        &self.ids
    }

    fn of(mut ids: Vec<AnyId>) -> Self {
        ids.sort_unstable();
        ids.dedup();
        Self { ids: ids.into() }
    }
}

impl fmt::Debug for ServiceSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self).finish()
    }
}

impl<I: Into<AnyId>> FromIterator<I> for ServiceSet {
    fn from_iter<S: IntoIterator<Item = I>>(ids: S) -> Self {
        Self::of(ids.into_iter().map(Into::into).collect())
    }
}

impl<I: Into<AnyId>> Extend<I> for ServiceSet {
    fn extend<S: IntoIterator<Item = I>>(&mut self, ids: S) {
        *self = self.iter().chain(ids.into_iter().map(Into::into)).collect();
    }
}

impl<I: Into<AnyId>, const N: usize> From<[I; N]> for ServiceSet {
    fn from(ids: [I; N]) -> Self {
        ids.into_iter().collect()
    }
}

impl From<AnyId> for ServiceSet {
    fn from(id: AnyId) -> Self {
        Self { ids: [id].into() }
    }
}

impl<T> From<ServiceId<T>> for ServiceSet {
    fn from(id: ServiceId<T>) -> Self {
        AnyId::from(id).into()
    }
}

macro_rules! set_from_tuple {
    ($($I:ident $n:tt),+) => {
        impl<$($I: Into<AnyId>),+> From<($($I,)+)> for ServiceSet {
            fn from(ids: ($($I,)+)) -> Self {
                Self::of(vec![$(ids.$n.into()),+])
            }
        }
    };
}

set_from_tuple!(A 0);
set_from_tuple!(A 0, B 1);
set_from_tuple!(A 0, B 1, C 2);
set_from_tuple!(A 0, B 1, C 2, D 3);
set_from_tuple!(A 0, B 1, C 2, D 3, E 4);
set_from_tuple!(A 0, B 1, C 2, D 3, E 4, F 5);
set_from_tuple!(A 0, B 1, C 2, D 3, E 4, F 5, G 6);
set_from_tuple!(A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7);

impl<'a> IntoIterator for &'a ServiceSet {
    type Item = AnyId;
    type IntoIter = ServiceSetIter<'a>;

    fn into_iter(self) -> ServiceSetIter<'a> {
        self.iter()
    }
}

/// The iterator over the ids of a [`ServiceSet`].
#[derive(Debug, Clone)]
pub struct ServiceSetIter<'a>(Copied<slice::Iter<'a, AnyId>>);

impl Iterator for ServiceSetIter<'_> {
    type Item = AnyId;

    fn next(&mut self) -> Option<AnyId> {
        self.0.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl DoubleEndedIterator for ServiceSetIter<'_> {
    fn next_back(&mut self) -> Option<AnyId> {
        self.0.next_back()
    }
}

impl ExactSizeIterator for ServiceSetIter<'_> {}
