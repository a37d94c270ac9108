//! Errors of creating a registry, registering services, finding them and declaring edges.

use std::fmt;

use crate::service::{AnyId, ServiceName};

/// The id belongs to another registry.
///
/// ```
/// use mainstay::{Registry, error::GetError};
///
/// let (mine, other) = (Registry::with_capacity(1)?, Registry::with_capacity(1)?);
/// let id = other.register::<u16>("port")?;
/// assert!(matches!(mine.get(id), Err(GetError::ForeignId(_))));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{id:?} does not belong to this registry")]
pub struct ForeignIdError {
    /// The id that was passed.
    pub id: AnyId,
}

/// The error of [`Registry::builder`](crate::Registry::builder) and
/// [`Registry::with_capacity`](crate::Registry::with_capacity).
///
/// ```
/// use mainstay::{Registry, error::RegistryError};
///
/// let refused = Registry::with_capacity(usize::MAX).unwrap_err();
/// assert_eq!(refused, RegistryError::Capacity { capacity: usize::MAX });
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// The capacity is too large. The memory for all services is allocated when the registry is
    /// created.
    #[error("cannot create a registry for {capacity} services: too many to number or allocate")]
    Capacity {
        /// The capacity that was requested.
        capacity: usize,
    },
    /// The process has created 2^32 - 2 registries. Their numbers are never reused.
    #[error("this process has created the maximum number of registries")]
    TooManyRegistries,
}

/// The error of [`Registry::register`](crate::Registry::register).
///
/// ```
/// use mainstay::{Registry, error::RegisterError};
///
/// let registry = Registry::with_capacity(1)?;
/// registry.register::<u16>("port")?;
/// assert!(matches!(registry.register::<String>("port"), Err(RegisterError::WrongType { .. })));
/// assert!(matches!(registry.register::<String>("host"), Err(RegisterError::Capacity { .. })));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegisterError {
    /// The name is registered with another type.
    #[error("{service} holds {registered}, not {requested}")]
    WrongType {
        /// The service.
        service: ServiceName,
        /// The type with which it was registered.
        registered: &'static str,
        /// The type that was requested.
        requested: &'static str,
    },
    /// The registry is full.
    #[error("no room for {service}: the registry was built for {capacity} services")]
    Capacity {
        /// The service that did not fit.
        service: ServiceName,
        /// The number of services that fit.
        capacity: usize,
    },
    /// The registry is closed.
    #[error("{service} was not registered: the registry is closed")]
    Closed {
        /// The service.
        service: ServiceName,
    },
}

/// The error of `build` of the struct that [`services!`](crate::services) defines.
///
/// ```
/// use mainstay::error::{RegisterError, ServicesError};
///
/// mainstay::services! {
///     struct Services { host: String }
/// }
///
/// fn build() -> Result<(), ServicesError> {
///     let (registry, _) = Services::build()?;
///     registry.register::<u16>("port")?; // there is room for one service
///     Ok(())
/// }
///
/// assert!(matches!(build(), Err(ServicesError::Register(RegisterError::Capacity { .. }))));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ServicesError {
    /// The registry was not created.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A service was not registered.
    #[error(transparent)]
    Register(#[from] RegisterError),
}

/// The error of [`Registry::find`](crate::Registry::find) and
/// [`Registry::id`](crate::Registry::id).
///
/// ```
/// use mainstay::{Registry, error::LookupError};
///
/// let registry = Registry::with_capacity(1)?;
/// assert!(matches!(registry.find("port"), Err(LookupError::UnknownName { .. })));
/// registry.register::<u16>("port")?;
/// assert!(matches!(registry.id::<String>("port"), Err(LookupError::WrongType { .. })));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LookupError {
    /// No service has this name.
    #[error("there is no service named {name:?}")]
    UnknownName {
        /// The name.
        name: ServiceName,
    },
    /// The service is registered with another type.
    #[error("{service} holds {registered}, not {requested}")]
    WrongType {
        /// The service.
        service: ServiceName,
        /// The type with which it was registered.
        registered: &'static str,
        /// The type that was requested.
        requested: &'static str,
    },
}

/// An edge would close a cycle; the error contains the path.
///
/// Each service of the path depends on the next one, and the last one is the first one again.
///
/// ```
/// use mainstay::{
///     Registry,
///     error::{CycleError, DependencyError},
/// };
///
/// let registry = Registry::with_capacity(1)?;
/// let a = registry.register::<u8>("a")?;
/// let Err(DependencyError::Cycle(CycleError { path })) = registry.depends(a).on(a) else {
///     panic!("a service cannot be built from itself");
/// };
/// assert_eq!(path, ["a", "a"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} cannot depend on {}: {}", .path[0], .path[1], Arrows(.path))]
pub struct CycleError {
    /// At least two names. The first two are the edge that was refused.
    pub path: Vec<ServiceName>,
}

/// Writes the names, separated by arrows: dependent `->` dependency.
struct Arrows<'a>(&'a [ServiceName]);

impl fmt::Display for Arrows<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, name) in self.0.iter().enumerate() {
            write!(f, "{}{name}", if i == 0 { "" } else { " -> " })?;
        }
        Ok(())
    }
}

/// The error of declaring an edge ([`Depends`](crate::Depends)) and of
/// [`Attempt::watch`](crate::Attempt::watch).
///
/// ```
/// use mainstay::{Registry, error::DependencyError};
///
/// let registry = Registry::with_capacity(2)?;
/// let (a, b) = (registry.register::<u8>("a")?, registry.register::<u8>("b")?);
/// registry.depends(b).on(a)?;
/// let refused = registry.depends(a).on(b).unwrap_err();
/// assert_eq!(refused.to_string(), "a cannot depend on b: a -> b -> a");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DependencyError {
    /// The edge would close a cycle.
    #[error(transparent)]
    Cycle(#[from] CycleError),
    /// A grace period was declared for a service whose provider is not a supervisor, so nothing
    /// would enforce it. Provide the service by `Registry::supervise`, or declare another kind of
    /// dependency.
    #[error(
        "{service} cannot have a grace period for {dependency}: its provider is not a supervisor; \
         call Registry::supervise, or declare another kind of dependency"
    )]
    NeedsSupervisor {
        /// The dependent.
        service: ServiceName,
        /// The dependency.
        dependency: ServiceName,
    },
    /// The dependent is a [constant](crate::Registry::constant), which is built from nothing.
    #[error("{service} cannot depend on {dependency}: it is a constant")]
    Constant {
        /// The dependent.
        service: ServiceName,
        /// The dependency.
        dependency: ServiceName,
    },
    /// The attempt has ended (it was published or has failed), and can get no more dependencies.
    /// Only a supervised build that was kept can outlive its attempt.
    #[error("{service} gets no more dependencies: the attempt has ended")]
    AttemptEnded {
        /// The dependent.
        service: ServiceName,
    },
    /// One of the ids belongs to another registry.
    #[error(transparent)]
    ForeignId(#[from] ForeignIdError),
}
