//! Errors of providing a service: of the role, of an attempt and its dependencies, and of
//! publishing a value.

use std::{fmt, sync::Arc, time::Duration};

use super::{CycleError, DependencyUnavailable, ForeignIdError, MustAwaitError, RefusedValue};
use crate::{
    failure::Failure,
    numbers::{Generation, ServiceIndex},
    service::ServiceName,
    store::Store,
};

/// The error of [`Registry::provide`](crate::Registry::provide): the role was refused.
///
/// ```
/// use mainstay::{Registry, error::ProvideError};
///
/// let registry = Registry::with_capacity(1)?;
/// let port = registry.register::<u16>("port")?;
/// let first = registry.provide(port)?;
/// assert!(matches!(registry.provide(port), Err(ProvideError::AlreadyProvided { .. })));
/// drop(first);
/// assert!(registry.provide(port).is_ok());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProvideError {
    /// Another provider owns the role. It is free again after that provider is dropped, or after
    /// the [constant](crate::Registry::constant) has failed.
    #[error("{service} already has a provider")]
    AlreadyProvided {
        /// The service.
        service: ServiceName,
    },
    /// The registry is closed.
    #[error("{service} cannot be provided: the registry is closed")]
    Closed {
        /// The service.
        service: ServiceName,
    },
    /// A grace period is declared for the service, and the provider would not be a supervisor, so
    /// nothing would enforce it. Call `Registry::supervise`, or declare another kind of dependency.
    #[error(
        "{service} cannot be provided without a supervisor: a grace period is declared for it; \
         call Registry::supervise, or declare another kind of dependency"
    )]
    NeedsSupervisor {
        /// The service.
        service: ServiceName,
    },
    /// The id belongs to another registry.
    #[error(transparent)]
    ForeignId(#[from] ForeignIdError),
}

/// The error of [`Provider::begin`](crate::Provider::begin): no attempt has begun.
///
/// ```
/// use mainstay::{Registry, error::BeginError};
/// use std::time::Duration;
///
/// let registry = Registry::with_capacity(1)?;
/// let port = registry.register::<u16>("port")?;
/// let provider = registry.provide(port)?;
/// let running = provider.begin().wait_blocking()?.ready(80)?;
///
/// // The service is ready, so no attempt can begin.
/// let began = provider.begin().wait_blocking_timeout(Duration::from_millis(1));
/// assert!(matches!(began, Err(BeginError::TimedOut { .. })));
/// registry.close();
/// assert!(matches!(provider.begin().wait_blocking(), Err(BeginError::Closed { .. })));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BeginError {
    /// The registry is closed, or a shutdown has stopped the service. End the loop of the provider.
    #[error("cannot begin an attempt at {service}: the registry is closed or shutting down")]
    Closed {
        /// The service.
        service: ServiceName,
    },
    /// The slot was held or condemned until the timeout expired.
    #[error("could not begin an attempt at {service} within {after:?}")]
    TimedOut {
        /// The service.
        service: ServiceName,
        /// The duration of the wait.
        after: Duration,
    },
    /// This thread polls an async supervisor, so it must not block.
    #[error(transparent)]
    MustAwait(#[from] MustAwaitError),
}

/// The error of [`Attempt::wait_for`](crate::Attempt::wait_for) and
/// [`Attempt::wait_to_start`](crate::Attempt::wait_to_start): the attempt did not get its
/// dependency.
///
/// ```
/// use mainstay::{Registry, error::WaitForError};
/// use std::time::Duration;
///
/// let registry = Registry::with_capacity(2)?;
/// let config = registry.register::<String>("config")?;
/// let port = registry.register::<u16>("port")?;
/// let provider = registry.provide(port)?;
///
/// let attempt = provider.begin().wait_blocking()?;
/// let waited = attempt.wait_for(config).wait_blocking_timeout(Duration::from_millis(1));
/// assert!(matches!(waited, Err(WaitForError::TimedOut { .. })));
/// registry.fail(port, "start again")?;
/// match attempt.wait_for(config).wait_blocking() {
///     Err(WaitForError::Invalidated(failure)) => assert_eq!(failure.root, "port"),
///     _ => unreachable!(),
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum WaitForError {
    /// A failure has invalidated the attempt: drop it and begin a new one.
    #[error("the attempt at {} was invalidated", .0.service)]
    Invalidated(#[source] Failure),
    /// The dependency depends on the service that waits. A new attempt would get the same error.
    #[error(transparent)]
    Cycle(#[from] CycleError),
    /// The registry is closed.
    #[error("{service} will not become ready: the registry is closed")]
    Closed {
        /// The dependency.
        service: ServiceName,
    },
    /// A shutdown stops the dependency, or has stopped it.
    #[error("{service} will not become ready: it has stopped")]
    Stopped {
        /// The dependency.
        service: ServiceName,
    },
    /// The attempt has ended (it was published or has failed), and can get no more dependencies.
    /// Only a wait of a supervised build that was kept can outlive its attempt.
    #[error("cannot wait for {service}: the attempt has ended")]
    AttemptEnded {
        /// The dependency.
        service: ServiceName,
    },
    /// The dependency was not ready before the timeout expired.
    #[error("the attempt did not get {}", .0.service)]
    TimedOut(#[source] DependencyUnavailable),
    /// This thread polls an async supervisor, so it must not block.
    #[error(transparent)]
    MustAwait(#[from] MustAwaitError),
    /// The id belongs to another registry.
    #[error(transparent)]
    ForeignId(#[from] ForeignIdError),
}

/// The error of [`Watch::changed`](crate::Watch::changed).
///
/// ```
/// use mainstay::{Registry, error::WatchError};
/// use std::time::Duration;
///
/// let registry = Registry::with_capacity(2)?;
/// let (cache, pages) = (registry.register::<u8>("cache")?, registry.register::<u8>("pages")?);
/// let provider = registry.provide(pages)?;
/// let attempt = provider.begin().wait_blocking()?;
/// let mut watch = attempt.watch(cache)?;
/// let waited = watch.changed().wait_blocking_timeout(Duration::from_millis(1));
/// assert!(matches!(waited, Err(WatchError::TimedOut { .. })));
/// registry.fail(pages, "start again")?;
/// match watch.changed().wait_blocking() {
///     Err(WatchError::DependentFailed(failure)) => assert_eq!(failure.service, "pages"),
///     other => unreachable!("{other:?}"),
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum WatchError {
    /// The service that watches has failed, and the watch ends with its generation.
    #[error("the watch has ended")]
    DependentFailed(#[source] Failure),
    /// The registry is closed.
    #[error("the watch of {service} has ended: the registry is closed")]
    Closed {
        /// The service that is watched.
        service: ServiceName,
    },
    /// A shutdown has stopped the service that is watched.
    #[error("the watch of {service} has ended: it has stopped")]
    Stopped {
        /// The service that is watched.
        service: ServiceName,
    },
    /// Nothing changed before the timeout expired. The watch continues.
    #[error("{service} did not change within {after:?}")]
    TimedOut {
        /// The service that is watched.
        service: ServiceName,
        /// The duration of the wait.
        after: Duration,
    },
    /// This thread polls an async supervisor, so it must not block.
    #[error(transparent)]
    MustAwait(#[from] MustAwaitError),
}

/// The error of [`Attempt::ready`](crate::Attempt::ready): the value was not published, and is
/// returned.
///
/// ```
/// use mainstay::{Registry, error::ReadyError};
///
/// let registry = Registry::with_capacity(1)?;
/// let port = registry.register::<u16>("port")?;
/// let provider = registry.provide(port)?;
/// let attempt = provider.begin().wait_blocking()?;
/// registry.fail(port, "start again")?;
/// match attempt.ready(80) {
///     Err(ReadyError::Invalidated { value, failure }) => {
///         assert_eq!(*value, 80);
///         assert_eq!(failure.reason.to_string(), "start again");
///     }
///     _ => unreachable!(),
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ReadyError<T> {
    /// A failure has invalidated the attempt, of the service itself or of a dependency.
    #[error("{} was not published", .failure.service)]
    Invalidated {
        /// The value.
        value: RefusedValue<T>,
        /// The failure that invalidated the attempt.
        #[source]
        failure: Failure,
    },
    /// The registry is closed.
    #[error("{service} was not published: the registry is closed")]
    Closed {
        /// The value.
        value: RefusedValue<T>,
        /// The service.
        service: ServiceName,
    },
}

impl<T> ReadyError<T> {
    /// Returns the value that was not published.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<u16>("port")?;
    /// # let provider = registry.provide(port)?;
    /// let attempt = provider.begin().wait_blocking()?;
    /// registry.close();
    /// assert_eq!(*attempt.ready(80).unwrap_err().into_value(), 80);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn into_value(self) -> RefusedValue<T> {
        match self {
            Self::Invalidated { value, .. } | Self::Closed { value, .. } => value,
        }
    }
}

// Not derived: the value need not implement `Debug`.
impl<T> fmt::Debug for ReadyError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalidated { failure, .. } => {
                f.debug_tuple("Invalidated").field(failure).finish()
            }
            Self::Closed { service, .. } => f.debug_tuple("Closed").field(service).finish(),
        }
    }
}

/// The error of [`Running::replace`](crate::Running::replace): the value was not replaced, and the
/// new one is returned.
///
/// ```
/// let registry = mainstay::Registry::with_capacity(1)?;
/// let port = registry.register::<u16>("port")?;
/// let provider = registry.provide(port)?;
/// let running = provider.begin().wait_blocking()?.ready(80)?;
/// registry.fail(port, "closed")?;
/// let refused = running.replace(81).unwrap_err();
/// assert_eq!(*refused.value, 81);
/// assert_eq!(refused.to_string(), "port was not replaced");
/// assert_eq!(refused.missing.failure().unwrap().to_string(), "port failed");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, thiserror::Error)]
#[error("{service} was not replaced")]
pub struct ReplaceError<T> {
    /// The new value.
    pub value: RefusedValue<T>,
    /// The service.
    pub service: ServiceName,
    /// The service with which the failure of the instance began: the service itself, or one on
    /// which it depends. It contains the failure.
    #[source]
    pub missing: DependencyUnavailable,
}

impl<T> ReplaceError<T> {
    /// The error of an instance of this generation, which has ended.
    #[cfg(feature = "supervise")]
    pub(crate) fn ended(
        store: &Store,
        index: ServiceIndex,
        generation: Generation,
        value: RefusedValue<T>,
    ) -> Self {
        Self::refused(store, index, generation, None, value)
    }

    /// The error of an instance whose generation has ended, or whose publication a reload has
    /// ended, if one is named by the revision of its first instance.
    pub(crate) fn refused(
        store: &Store,
        index: ServiceIndex,
        generation: Generation,
        publication: Option<u64>,
        value: RefusedValue<T>,
    ) -> Self {
        let failure = store.end_of_publication(index, generation, publication);
        // The instance is missing because the root of its failure is.
        let (service, generation) = (failure.root.clone(), failure.root_generation);
        let missing = DependencyUnavailable::failed((service, generation), Arc::new(failure));
        Self { value, service: store.name(index), missing }
    }
}

impl<T> fmt::Debug for ReplaceError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ReplaceError").field(&self.missing).finish()
    }
}

/// The error of [`Registry::constant`](crate::Registry::constant): the value was not published, and
/// is returned.
///
/// ```
/// use mainstay::{Registry, error::ConstantError};
///
/// let registry = Registry::with_capacity(1)?;
/// let port = registry.register::<u16>("port")?;
/// let provider = registry.provide(port)?;
/// match registry.constant(port, 80) {
///     Err(ConstantError::AlreadyProvided { value, .. }) => assert_eq!(*value, 80),
///     other => unreachable!("{other:?}"),
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ConstantError<T> {
    /// The service has a provider, or is a constant already.
    #[error("{service} cannot be a constant: it already has a provider")]
    AlreadyProvided {
        /// The value.
        value: RefusedValue<T>,
        /// The service.
        service: ServiceName,
    },
    /// A dependency of any kind is declared for the service. A constant is built from nothing.
    #[error("{service} cannot be a constant: it depends on {dependency}")]
    HasDependency {
        /// The value.
        value: RefusedValue<T>,
        /// The service.
        service: ServiceName,
        /// The first dependency that is declared.
        dependency: ServiceName,
    },
    /// The service is [stopped](crate::Registry::stop), or a shutdown stops it.
    #[error("{service} was not published: it is stopped")]
    Stopped {
        /// The value.
        value: RefusedValue<T>,
        /// The service.
        service: ServiceName,
    },
    /// A cascade is in progress that takes the service down. Try again when it is over.
    #[error("{service} was not published: a failure of it is in progress")]
    Failing {
        /// The value.
        value: RefusedValue<T>,
        /// The service.
        service: ServiceName,
    },
    /// The service has failed during the call, before the publication.
    #[error("{} was not published", .failure.service)]
    Invalidated {
        /// The value.
        value: RefusedValue<T>,
        /// The failure.
        #[source]
        failure: Failure,
    },
    /// The registry is closed.
    #[error("{service} was not published: the registry is closed")]
    Closed {
        /// The value.
        value: RefusedValue<T>,
        /// The service.
        service: ServiceName,
    },
    /// The id belongs to another registry.
    #[error("{foreign}")]
    ForeignId {
        /// The value.
        value: RefusedValue<T>,
        /// The id that was passed.
        foreign: ForeignIdError,
    },
}

impl<T> ConstantError<T> {
    /// Returns the value that was not published.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<u16>("port")?;
    /// registry.close();
    /// assert_eq!(*registry.constant(port, 80).unwrap_err().into_value(), 80);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn into_value(self) -> RefusedValue<T> {
        match self {
            Self::AlreadyProvided { value, .. }
            | Self::HasDependency { value, .. }
            | Self::Stopped { value, .. }
            | Self::Failing { value, .. }
            | Self::Invalidated { value, .. }
            | Self::Closed { value, .. }
            | Self::ForeignId { value, .. } => value,
        }
    }
}

// Not derived: the value need not implement `Debug`.
impl<T> fmt::Debug for ConstantError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AlreadyProvided { service, .. } => {
                f.debug_tuple("AlreadyProvided").field(service).finish()
            }
            Self::HasDependency { service, dependency, .. } => {
                f.debug_tuple("HasDependency").field(service).field(dependency).finish()
            }
            Self::Stopped { service, .. } => f.debug_tuple("Stopped").field(service).finish(),
            Self::Failing { service, .. } => f.debug_tuple("Failing").field(service).finish(),
            Self::Invalidated { failure, .. } => {
                f.debug_tuple("Invalidated").field(failure).finish()
            }
            Self::Closed { service, .. } => f.debug_tuple("Closed").field(service).finish(),
            Self::ForeignId { foreign, .. } => f.debug_tuple("ForeignId").field(foreign).finish(),
        }
    }
}

/// The error of [`Running::drained`](crate::Running::drained).
///
/// ```
/// use mainstay::error::DrainError;
/// use std::time::Duration;
///
/// let registry = mainstay::Registry::with_capacity(1)?;
/// let port = registry.register::<u16>("port")?;
/// let provider = registry.provide(port)?;
/// let running = provider.begin().wait_blocking()?.ready(80)?;
/// match running.drained().wait_blocking_timeout(Duration::ZERO) {
///     // The registry, as the service is ready.
///     Err(DrainError::TimedOut { service, holders, .. }) => {
///         assert_eq!((&*service, holders), ("port", 1));
///     }
///     other => unreachable!("{other:?}"),
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[cfg(feature = "supervise")]
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DrainError {
    /// The timeout expired while an instance was held, or before the generation had ended.
    #[error("{service} was not drained within {after:?} (holders: {holders})")]
    TimedOut {
        /// The service.
        service: ServiceName,
        /// The number of holders when the timeout expired.
        holders: usize,
        /// The duration of the wait.
        after: Duration,
    },
    /// This thread polls an async supervisor, so it must not block.
    #[error(transparent)]
    MustAwait(#[from] MustAwaitError),
}
