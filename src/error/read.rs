//! Errors of reading services, and of waiting for one or for all of them.

use std::{fmt, time::Duration};

use super::ForeignIdError;
use crate::{failure::Failure, numbers::Generation, service::ServiceName, store::Phase};

/// The error of a wait for one service: until it is [ready](crate::Registry::wait_ready), until its
/// instance has [failed](crate::Running::failed), until an attempt is
/// [invalidated](crate::Attempt::invalidated).
///
/// ```
/// use mainstay::{Registry, error::WaitError};
/// use std::time::Duration;
///
/// let registry = Registry::with_capacity(1)?;
/// let port = registry.register::<u16>("port")?;
/// let waited = registry.wait_ready(port).wait_blocking_timeout(Duration::from_millis(1));
/// assert!(matches!(waited, Err(WaitError::TimedOut { .. })));
/// registry.close();
/// assert!(matches!(registry.wait_ready(port).wait_blocking(), Err(WaitError::Closed { .. })));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WaitError {
    /// The registry is closed.
    #[error("the wait for {service} has ended: the registry is closed")]
    Closed {
        /// The service.
        service: ServiceName,
    },
    /// A shutdown has stopped the service.
    #[error("the wait for {service} has ended: it has stopped")]
    Stopped {
        /// The service.
        service: ServiceName,
    },
    /// The timeout expired.
    #[error("{service} did not change within {after:?}")]
    TimedOut {
        /// The service.
        service: ServiceName,
        /// The duration of the wait.
        after: Duration,
    },
    /// The id belongs to another registry.
    #[error(transparent)]
    ForeignId(#[from] ForeignIdError),
}

/// The service has no current instance.
///
/// ```
/// use mainstay::{Registry, error::GetError};
///
/// let registry = Registry::with_capacity(1)?;
/// let port = registry.register::<u16>("port")?;
/// let Err(GetError::NotReady(error)) = registry.get(port) else { panic!("it has no provider") };
/// assert_eq!(error.to_string(), "port is not ready: down in generation 0");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{service} is not ready: {phase} in generation {generation}")]
pub struct NotReadyError {
    /// The service.
    pub service: ServiceName,
    /// Its phase during the read. Never `Ready`.
    pub phase: Phase,
    /// Its generation during the read.
    pub generation: Generation,
}

/// The error of [`Registry::get`](crate::Registry::get) and of the other reads of one service.
///
/// ```
/// use mainstay::{Phase, Registry, error::GetError};
///
/// let registry = Registry::with_capacity(1)?;
/// let port = registry.register::<u16>("port")?;
/// match registry.get(port) {
///     Err(GetError::NotReady(error)) => assert_eq!(error.phase, Phase::Down),
///     _ => unreachable!(),
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GetError {
    /// The service is not ready.
    #[error(transparent)]
    NotReady(#[from] NotReadyError),
    /// The id belongs to another registry.
    #[error(transparent)]
    ForeignId(#[from] ForeignIdError),
}

/// The error of [`Registry::get_all`](crate::Registry::get_all).
///
/// ```
/// use mainstay::{Registry, error::GetAllError};
///
/// let registry = Registry::with_capacity(2)?;
/// let (host, port) = (registry.register::<String>("host")?, registry.register::<u16>("port")?);
/// let provider = registry.provide(host)?;
/// let _host = provider.begin().wait_blocking()?.ready("localhost".to_string())?;
/// match registry.get_all((host, port)) {
///     Err(GetAllError::NotReady(error)) => assert_eq!(error.service, "port"),
///     _ => unreachable!(),
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GetAllError {
    /// One of the services is not ready.
    #[error(transparent)]
    NotReady(#[from] NotReadyError),
    /// At least one of the services changed in each round. A retry can succeed.
    #[error("no consistent read in {rounds} rounds: {service} or another service changed in each")]
    Contended {
        /// A service that changed in the last round.
        service: ServiceName,
        /// The number of rounds.
        rounds: u32,
    },
    /// One of the ids belongs to another registry.
    #[error(transparent)]
    ForeignId(#[from] ForeignIdError),
}

/// The error of [`Registry::wait_all_ready`](crate::Registry::wait_all_ready): it lists the
/// services that are not ready, and what blocks each of them.
///
/// ```
/// use mainstay::{Registry, error::AllReadyError};
/// use std::time::Duration;
///
/// let registry = Registry::with_capacity(2)?;
/// let config = registry.register::<u8>("config")?;
/// let server = registry.register::<u8>("server")?;
/// registry.depends(server).on(config)?;
/// registry.provide(config)?.begin().wait_blocking()?.fail("line 3: no closing quote")?;
///
/// let wait = registry.wait_all_ready();
/// let error = wait.wait_blocking_timeout(Duration::from_millis(1)).unwrap_err();
/// let text = error.to_string();
/// assert!(text.contains("config is down (config failed: line 3: no closing quote); "));
/// assert!(text.ends_with("server is down, blocked by config"));
/// let AllReadyError::TimedOut { not_ready, .. } = error else { unreachable!() };
/// assert_eq!(not_ready[1].blocked_by, ["config"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum AllReadyError {
    /// The registry is closed.
    #[error("the registry is closed: {}", List(.not_ready))]
    Closed {
        /// The services that were not ready at that time.
        not_ready: Vec<NotReadyService>,
    },
    /// A shutdown has stopped one of the services.
    #[error("the registry is shutting down: {}", List(.not_ready))]
    Stopped {
        /// The services that were not ready at that time.
        not_ready: Vec<NotReadyService>,
    },
    /// The timeout expired.
    #[error("not ready within {after:?}: {}", List(.not_ready))]
    TimedOut {
        /// The services that were not ready at that time.
        not_ready: Vec<NotReadyService>,
        /// The duration of the wait.
        after: Duration,
    },
}

/// A service that is not ready, and the reason.
///
/// ```
/// use mainstay::{Phase, Registry, error::AllReadyError};
/// use std::time::Duration;
///
/// let registry = Registry::with_capacity(1)?;
/// registry.register::<u8>("config")?;
/// let error = registry.wait_all_ready().wait_blocking_timeout(Duration::ZERO).unwrap_err();
/// let AllReadyError::TimedOut { not_ready, .. } = error else { unreachable!() };
/// assert_eq!((&*not_ready[0].service, not_ready[0].phase), ("config", Phase::Down));
/// assert_eq!(not_ready[0].to_string(), "config is down");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct NotReadyService {
    /// The service.
    pub service: ServiceName,
    /// Its phase: down or starting.
    pub phase: Phase,
    /// The path to the service that blocks this one: a dependency that is not ready, a dependency
    /// of that one, and so on; at most 64 services. Empty if all its dependencies are ready.
    pub blocked_by: Vec<ServiceName>,
    /// The last failure of the service, if `blocked_by` is empty and it has failed before.
    pub last_failure: Option<Failure>,
}

impl fmt::Display for NotReadyService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {}", self.service, self.phase)?;
        for (i, name) in self.blocked_by.iter().enumerate() {
            write!(f, "{}{name}", if i == 0 { ", blocked by " } else { " -> " })?;
        }
        match &self.last_failure {
            Some(failure) => write!(f, " ({failure})"),
            None => Ok(()),
        }
    }
}

/// Writes the services, separated by semicolons.
struct List<'a>(&'a [NotReadyService]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, not_ready) in self.0.iter().enumerate() {
            write!(f, "{}{not_ready}", if i == 0 { "" } else { "; " })?;
        }
        Ok(())
    }
}
