//! `MappedGuard`: a guard that dereferences to a part of the value.

use std::{fmt, ops::Deref};

use super::Guard;
use crate::instance::Instance;

/// A guard of an instance that dereferences to a part of its value. [`Guard::map`] returns it.
///
/// It keeps the instance alive, as the [`Guard`] does from which it was made, and has the same
/// cost. So a function can return a part of a service without a clone of it.
///
/// # The cost of a dereference
///
/// The function that finds the part is stored, and is called at each dereference: it should be
/// short, such as the access to a field, and return the same part each time. A reference that is
/// used in a loop is best taken once, before the loop. The function is behind a `Box`: one that
/// captures nothing needs no allocation, and one that captures something, such as a key, needs one.
/// A reference to the part could be stored only with unsafe code, as it borrows from the instance
/// beside it.
///
/// ```
/// use mainstay::{Guard, MappedGuard, Registry, ServiceId, error::GetError};
///
/// struct Config {
///     hosts: Vec<String>,
/// }
///
/// /// The caller does not see the type `Config`, and cannot read another service by mistake.
/// fn hosts(
///     registry: &Registry,
///     config: ServiceId<Config>,
/// ) -> Result<MappedGuard<Config, [String]>, GetError> {
///     Ok(Guard::map(registry.get(config)?, |config| &config.hosts[..]))
/// }
///
/// let registry = Registry::with_capacity(1)?;
/// let config = registry.register::<Config>("config")?;
/// registry.constant(config, Config { hosts: vec!["a".into(), "b".into()] })?;
///
/// let hosts = hosts(&registry, config)?;
/// registry.fail(config, "edited")?;
/// assert_eq!(*hosts, ["a", "b"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct MappedGuard<T, U: ?Sized> {
    guard: Guard<T>,
    part: Box<Part<T, U>>,
}

type Part<T, U> = dyn Fn(&T) -> &U + Send + Sync;

impl<T> Guard<T> {
    /// Returns a guard that dereferences to a part of the value.
    ///
    /// The function is called at each dereference, and not by this call
    /// ([the cost](MappedGuard#the-cost-of-a-dereference)). If it panics, so does the dereference.
    /// To keep a part only if it exists, check that first, with the guard.
    ///
    /// ```
    /// use mainstay::Guard;
    /// use std::collections::BTreeMap;
    ///
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let users = registry.register::<BTreeMap<u32, String>>("users")?;
    /// registry.constant(users, BTreeMap::from([(7, "Ada".to_string())]))?;
    /// let users = registry.get(users)?;
    /// if users.contains_key(&7) {
    ///     let user = Guard::map(users, |users| &users[&7]);
    ///     assert_eq!(*user, "Ada");
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn map<U: ?Sized>(
        this: Self,
        part: impl Fn(&T) -> &U + Send + Sync + 'static,
    ) -> MappedGuard<T, U> {
        MappedGuard { guard: this, part: Box::new(part) }
    }
}

impl<T: 'static, U: ?Sized + 'static> MappedGuard<T, U> {
    /// Returns a guard that dereferences to a part of this part.
    ///
    /// Its dereference calls both functions. The second one needs an allocation.
    ///
    /// ```
    /// use mainstay::{Guard, MappedGuard};
    ///
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let pair = registry.register::<(String, u8)>("pair")?;
    /// registry.constant(pair, ("host:80".to_string(), 1))?;
    /// let name = Guard::map(registry.get(pair)?, |pair| pair.0.as_str());
    /// let port = MappedGuard::map(name, |name| &name[5..]);
    /// assert_eq!(&*port, "80");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn map<V: ?Sized>(
        this: Self,
        part: impl Fn(&U) -> &V + Send + Sync + 'static,
    ) -> MappedGuard<T, V> {
        let Self { guard, part: first } = this;
        MappedGuard { guard, part: Box::new(move |value| part(first(value))) }
    }
}

impl<T, U: ?Sized> MappedGuard<T, U> {
    /// Returns the whole instance, for example for
    /// [`Registry::fail_instance`](crate::Registry::fail_instance).
    ///
    /// ```
    /// use mainstay::{Guard, Instance, MappedGuard};
    ///
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let pair = registry.register::<(u16, u8)>("pair")?;
    /// registry.constant(pair, (80, 1))?;
    /// let port = Guard::map(registry.get(pair)?, |pair| &pair.0);
    /// assert_eq!(Instance::generation(MappedGuard::instance(&port)), 0);
    /// registry.fail_instance(MappedGuard::instance(&port), "address in use")?;
    /// assert!(registry.get(pair).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn instance(this: &Self) -> &Instance<T> {
        Guard::instance(&this.guard)
    }

    /// Returns the guard of the whole value.
    ///
    /// ```
    /// use mainstay::{Guard, MappedGuard};
    ///
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let pair = registry.register::<(u16, u8)>("pair")?;
    /// registry.constant(pair, (80, 1))?;
    /// let port = Guard::map(registry.get(pair)?, |pair| &pair.0);
    /// let kept = Guard::into_arc(MappedGuard::into_guard(port));
    /// assert_eq!(kept.1, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn into_guard(this: Self) -> Guard<T> {
        this.guard
    }
}

impl<T, U: ?Sized> Deref for MappedGuard<T, U> {
    type Target = U;

    #[inline]
    fn deref(&self) -> &U {
        (self.part)(&self.guard)
    }
}

impl<T, U: ?Sized + fmt::Debug> fmt::Debug for MappedGuard<T, U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        U::fmt(self, f)
    }
}
