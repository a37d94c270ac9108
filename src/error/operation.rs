//! The errors of the waits for a planned end: of a restart or a stop, and for the shutdown and the
//! close of the registry; and those of groups.

use std::time::Duration;

use super::{ForeignIdError, MustAwaitError};
use crate::{failure::Failure, service::ServiceName, supervise::StopTimeout};

/// Why a wait for a [restart](crate::Registry::restart) or a [stop](crate::Registry::stop) ended
/// before all services had stopped.
///
/// After [`TimedOut`](Self::TimedOut) the restart or the stop continues: only the wait has ended.
///
/// ```
/// use mainstay::{Registry, error::StopError};
/// use std::time::Duration;
///
/// let registry = Registry::with_capacity(1)?;
/// let port = registry.register::<u16>("port")?;
/// let mut supervisor = Box::pin(registry.supervise(port)?.run(async |_| 80));
/// # let waker = std::task::Waker::noop();
/// # let mut context = std::task::Context::from_waker(waker);
/// # assert!(supervisor.as_mut().poll(&mut context).is_pending());
/// // The supervisor is not polled any more.
/// match registry.stop(port).wait_blocking_timeout(Duration::ZERO) {
///     Err(StopError::TimedOut { waiting_for, .. }) => assert_eq!(waiting_for[0].service, "port"),
///     other => panic!("{other:?}"),
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StopError {
    /// The id belongs to another registry.
    #[error(transparent)]
    ForeignId(#[from] ForeignIdError),
    /// A shutdown has begun, which stops all services and starts none.
    #[error("{service} was not stopped by itself: the registry is shutting down")]
    ShuttingDown {
        /// The service that the caller has named.
        service: ServiceName,
    },
    /// The registry is closed.
    #[error("{service} was not stopped by itself: the registry is closed")]
    Closed {
        /// The service that the caller has named.
        service: ServiceName,
    },
    /// The service is a [constant](crate::Registry::constant), which nothing would build again.
    /// Nothing has begun.
    #[error("{service} was not stopped: it is a constant, which nothing would build again")]
    Constant {
        /// The service that the caller has named.
        service: ServiceName,
    },
    /// A blocking wait in a poll of an async supervisor, which has begun nothing: use `.await`.
    #[error(transparent)]
    MustAwait(#[from] MustAwaitError),
    /// The timeout of the wait expired. The restart or the stop continues.
    #[error("{service} has not stopped after {after:?}{}", list(.waiting_for))]
    TimedOut {
        /// The service that the caller has named.
        service: ServiceName,
        /// The duration of the wait.
        after: Duration,
        /// The services that are stopping now.
        waiting_for: Vec<StopTimeout>,
    },
}

fn list(waiting_for: &[StopTimeout]) -> String {
    let mut text = String::new();
    for (i, one) in waiting_for.iter().enumerate() {
        text += if i == 0 { ": waiting for " } else { ", " };
        text += &one.to_string();
    }
    text
}

/// Why a blocking or timed wait for [`shutdown_requested`](crate::Registry::shutdown_requested) or
/// [`closed`](crate::Registry::closed) has ended early.
///
/// ```
/// use mainstay::{Registry, error::SignalError};
/// use std::time::Duration;
///
/// let registry = Registry::with_capacity(1)?;
/// let closed = registry.closed().wait_blocking_timeout(Duration::ZERO);
/// assert!(matches!(closed, Err(SignalError::TimedOut { .. })));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum SignalError {
    /// A blocking wait in a poll of an async supervisor: use `.await`.
    #[error(transparent)]
    MustAwait(#[from] MustAwaitError),
    /// The timeout of the wait expired.
    #[error("the wait for the registry has not ended after {after:?}")]
    TimedOut {
        /// The duration of the wait.
        after: Duration,
    },
}

/// Why services did not become a [group](crate::Registry::group). Nothing has changed.
///
/// ```
/// use mainstay::{Registry, error::GroupError, supervise::GroupPolicy};
///
/// let registry = Registry::with_capacity(2)?;
/// let (cache, index) = (registry.register::<u8>("cache")?, registry.register::<u8>("index")?);
/// registry.group([cache, index], GroupPolicy::default())?;
/// let error = registry.group(cache, GroupPolicy::default()).unwrap_err();
/// assert!(matches!(error, GroupError::InGroup { .. }));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum GroupError {
    /// An id belongs to another registry.
    #[error(transparent)]
    ForeignId(#[from] ForeignIdError),
    /// A service is in a group already, and stays there: name it in one group only.
    #[error("{service} is in another group already, and a service is in one group only")]
    InGroup {
        /// The first of the services that is.
        service: ServiceName,
    },
    /// The set has no services: there is nothing that could fail or be restarted together.
    #[error("a group needs a service")]
    Empty,
}

/// A [group](crate::Registry::group) has given up: after this failure of a member, which was one
/// too many. It is the reason of the failures of the other members.
///
/// Its source is the failure.
///
/// ```
/// use mainstay::{Registry, error::{GroupGivenUp, chain}, supervise::GroupPolicy};
/// use std::{thread, time::Duration};
///
/// let registry = Registry::with_capacity(1)?;
/// let cache = registry.register::<u8>("cache")?;
/// let policy = GroupPolicy::default().max_failures(0, Duration::from_secs(60));
/// let group = registry.group(cache, policy)?;
/// let supervisor = registry.supervise(cache)?;
/// thread::spawn(|| supervisor.run_blocking(|_| Err::<u8, _>("no memory")));
/// while group.status().given_up.is_none() {
///     thread::yield_now();
/// }
/// let given_up: GroupGivenUp = group.status().given_up.unwrap();
/// let text = "its group has given up after a failure of cache: cache failed: no memory";
/// assert_eq!(chain(&given_up).to_string(), text);
/// # registry.close();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, thiserror::Error)]
#[error("its group has given up after a failure of {}", .failure.service)]
#[non_exhaustive]
pub struct GroupGivenUp {
    /// The failure that was one too many, with its time.
    #[source]
    pub failure: Failure,
}
