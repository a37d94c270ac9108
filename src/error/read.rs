//! Errors of reading services, and of waiting for one or for all of them.

use std::{collections::HashSet, fmt, time::Duration};

use super::{DependencyUnavailable, ForeignIdError, MustAwaitError};
use crate::{
    failure::Failure, numbers::Generation, registry::NotReady, service::ServiceName, store::Phase,
};

/// The error of [`Registry::wait_ready`](crate::Registry::wait_ready) and
/// [`Registry::wait_ready_any`](crate::Registry::wait_ready_any).
///
/// ```
/// use mainstay::{Registry, error::WaitReadyError};
/// use std::time::Duration;
///
/// let registry = Registry::with_capacity(1)?;
/// let port = registry.register::<u16>("port")?;
/// match registry.wait_ready(port).wait_blocking_timeout(Duration::from_millis(1)) {
///     Err(WaitReadyError::TimedOut(missing)) => assert_eq!(missing.service, "port"),
///     other => unreachable!("{other:?}"),
/// }
/// registry.close();
/// let closed = registry.wait_ready(port).wait_blocking();
/// assert!(matches!(closed, Err(WaitReadyError::Closed { .. })));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum WaitReadyError {
    /// The registry is closed, and the service is not ready.
    #[error("{service} will not become ready: the registry is closed")]
    Closed {
        /// The service.
        service: ServiceName,
    },
    /// A shutdown has stopped the service.
    #[error("{service} will not become ready: a shutdown has stopped it")]
    Stopped {
        /// The service.
        service: ServiceName,
    },
    /// The service was not ready before the timeout expired.
    #[error("the wait for {} has timed out", .0.service)]
    TimedOut(#[source] DependencyUnavailable),
    /// The service cannot become ready without help, and the wait ends in this case
    /// ([`unless_stuck`](crate::wait::Wait::unless_stuck)). The source says why.
    #[error("{} cannot become ready by itself", .0.service)]
    Stuck(#[source] DependencyUnavailable),
    /// This thread polls an async supervisor, so it must not block.
    #[error(transparent)]
    MustAwait(#[from] MustAwaitError),
    /// The id belongs to another registry.
    #[error(transparent)]
    ForeignId(#[from] ForeignIdError),
}

/// The error of a wait for a change of one service: until its instance has
/// [failed](crate::Running::failed), until an attempt is
/// [invalidated](crate::Attempt::invalidated), until its state has
/// [changed](crate::Registry::wait_changed).
///
/// ```
/// use mainstay::{Registry, error::WaitError};
/// use std::time::Duration;
///
/// let registry = Registry::with_capacity(1)?;
/// let port = registry.register::<u16>("port")?;
/// let provider = registry.provide(port)?;
/// let running = provider.begin().wait_blocking()?.ready(80)?;
/// let waited = running.failed().wait_blocking_timeout(Duration::from_millis(1));
/// assert!(matches!(waited, Err(WaitError::TimedOut { .. })));
/// registry.close();
/// assert!(matches!(running.failed().wait_blocking(), Err(WaitError::Closed { .. })));
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
    /// This thread polls an async supervisor, so it must not block.
    #[error(transparent)]
    MustAwait(#[from] MustAwaitError),
    /// The id belongs to another registry.
    #[error(transparent)]
    ForeignId(#[from] ForeignIdError),
}

/// The errors of a wait for a service that cannot end otherwise.
pub(crate) trait WaitEnded {
    fn closed(service: ServiceName) -> Self;
    fn stopped(service: ServiceName) -> Self;
}

impl WaitEnded for WaitError {
    fn closed(service: ServiceName) -> Self {
        Self::Closed { service }
    }

    fn stopped(service: ServiceName) -> Self {
        Self::Stopped { service }
    }
}

impl WaitEnded for WaitReadyError {
    fn closed(service: ServiceName) -> Self {
        Self::Closed { service }
    }

    fn stopped(service: ServiceName) -> Self {
        Self::Stopped { service }
    }
}

/// The error of [`Registry::get`](crate::Registry::get) and of the other reads of one service.
///
/// ```
/// use mainstay::{Phase, Registry, error::{self, GetError, Unavailable}};
///
/// let registry = Registry::with_capacity(1)?;
/// let port = registry.register::<u16>("port")?;
/// let error = registry.get(port).unwrap_err();
/// assert_eq!(error.to_string(), "port is not ready");
/// let text = error::chain(&error).to_string();
/// assert!(text.starts_with("port is not ready: port: no provider"));
/// match error {
///     GetError::NotReady(missing) => {
///         assert!(matches!(missing.kind, Unavailable::NotReady { phase: Phase::Down }));
///     }
///     _ => unreachable!(),
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum GetError {
    /// The service is not ready.
    #[error("{} is not ready", .0.service)]
    NotReady(#[source] DependencyUnavailable),
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
///     Err(GetAllError::NotReady(missing)) => assert_eq!(missing.service, "port"),
///     _ => unreachable!(),
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum GetAllError {
    /// One of the services is not ready.
    #[error("{} is not ready", .0.service)]
    NotReady(#[source] DependencyUnavailable),
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

/// The error of [`Registry::wait_all_ready`](crate::Registry::wait_all_ready) and
/// [`wait_set_ready`](crate::Registry::wait_set_ready): it lists those of the services that are not
/// ready, and why.
///
/// Its text contains each of them once, with its own words: what it waits for, or its last failure
/// with all sources. What it waits for follows if that is not one of them. Only the failure of the
/// service that [`AllReadyError::TimedOut`] names is in the text of its source.
///
/// ```
/// use mainstay::{Registry, error::{self, AllReadyError}};
/// use std::time::Duration;
///
/// let registry = Registry::with_capacity(2)?;
/// let config = registry.register::<u8>("config")?;
/// let server = registry.register::<u8>("server")?;
/// registry.depends(server).on(config)?;
/// let provider = registry.provide(config)?;
/// provider.begin().wait_blocking()?.fail("line 3: no closing quote")?;
///
/// let wait = registry.wait_all_ready();
/// let error = wait.wait_blocking_timeout(Duration::from_millis(1)).unwrap_err();
/// let list = "config: down; server: no provider, needs config";
/// assert_eq!(error.to_string(), format!("not all services are ready: {list}"));
/// let text = error::chain(&error).to_string();
/// assert!(text.ends_with(": config: down: config failed: line 3: no closing quote"), "{text}");
/// let AllReadyError::TimedOut { not_ready, .. } = error else { unreachable!() };
/// assert_eq!(not_ready[1].blocked_by, ["config"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum AllReadyError {
    /// The registry is closed.
    #[error("the registry is closed: {}", List(.not_ready, None))]
    Closed {
        /// The services that were not ready at that time.
        not_ready: Vec<NotReadyService>,
    },
    /// A shutdown has stopped one of the services.
    #[error("the registry is shutting down: {}", List(.not_ready, None))]
    Stopped {
        /// The services that were not ready at that time.
        not_ready: Vec<NotReadyService>,
    },
    /// The timeout expired.
    #[error("not all services are ready: {}", List(.not_ready, Some(.missing)))]
    TimedOut {
        /// The services that were not ready at that time.
        not_ready: Vec<NotReadyService>,
        /// The duration of the wait.
        after: Duration,
        /// The first service of `not_ready` that no other service blocks. If what blocks them is
        /// not in `not_ready`, or has become ready just after the timeout, the one for which the
        /// wait waited.
        #[source]
        missing: DependencyUnavailable,
    },
    /// One of the services cannot become ready without help: it has given up, failed permanently or
    /// was stopped, its supervisor has ended, or, once
    /// [start-up is complete](crate::Registry::startup_complete), it has no provider or no running
    /// supervisor. Or it waits for such a service.
    #[error("{} cannot become ready by itself", .missing.service)]
    Stuck {
        /// The services that were not ready at that time.
        not_ready: Vec<NotReadyService>,
        /// The service that is stuck, with the path to the root of the reason.
        #[source]
        missing: DependencyUnavailable,
    },
    /// This thread polls an async supervisor, so it must not block.
    #[error(transparent)]
    MustAwait(#[from] MustAwaitError),
    /// An id of the set belongs to another registry.
    #[error(transparent)]
    ForeignId(#[from] ForeignIdError),
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
/// assert!(not_ready[0].to_string().starts_with("config: no provider"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct NotReadyService {
    /// The service.
    pub service: ServiceName,
    /// Its phase: down or starting.
    pub phase: Phase,
    /// The number of its failures.
    pub generation: Generation,
    /// The path to the service that blocks this one: a dependency that is not ready, a dependency
    /// of that one, and so on; at most 64 services. Empty if all its dependencies are ready.
    pub blocked_by: Vec<ServiceName>,
    /// The last failure of the service, if `blocked_by` is empty and it has failed before.
    pub last_failure: Option<Failure>,
    /// Why it is not ready: the path to the root of the reason.
    pub not_ready: NotReady,
}

impl fmt::Display for NotReadyService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.not_ready.fmt(f)
    }
}

/// Writes the services, separated by semicolons, without the failure that is the source of the
/// error: that of the root for which this one is missing.
struct List<'a>(&'a [NotReadyService], Option<&'a DependencyUnavailable>);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(services, missing) = *self;
        let root = missing.and_then(DependencyUnavailable::not_ready).map(NotReady::root);
        let listed: HashSet<&str> = services.iter().map(|it| &*it.service).collect();
        for (i, NotReadyService { not_ready, .. }) in services.iter().enumerate() {
            f.write_str(if i == 0 { "" } else { "; " })?;
            // The other services of the list have words of their own.
            let is_listed = |service: &ServiceName| listed.contains(&**service);
            write!(f, "{}", not_ready.before(is_listed, root))?;
        }
        Ok(())
    }
}
