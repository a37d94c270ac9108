//! Errors of reloads.

use std::{error::Error, fmt, sync::Arc, time::Duration};

use super::{
    CycleError, DependencyUnavailable, ForeignIdError, MustAwaitError, RefusedValue, chain,
};
use crate::{
    failure::{Failure, Reason},
    registry::{Gap, MissingMember, SupervisorState},
    service::ServiceName,
    sync::shielded,
};

/// Why a service was not [reloaded](crate::Registry::reload): all members serve as before.
///
/// Apart from an id of another registry and a blocking wait in async code, each variant names the
/// *root*: the service that the caller has named.
///
/// ```
/// use mainstay::{error::{ReloadError, chain}, supervise::Build, test_kit::TestRuntime};
/// use std::sync::atomic::{AtomicBool, Ordering};
/// # use std::sync::Arc;
///
/// let mut runtime = TestRuntime::new(1)?;
/// let pool = runtime.registry.register::<u8>("pool")?;
/// let is_up = Arc::new(AtomicBool::new(true));
/// # let flag = Arc::clone(&is_up);
/// let run = runtime.registry.supervise(pool)?.run(async move |_: Build<u8>| {
///     if flag.load(Ordering::Relaxed) { Ok(8) } else { Err("connection refused") }
/// });
/// runtime.spawn(run);
/// runtime.run_until_idle();
///
/// is_up.store(false, Ordering::Relaxed);
/// let registry = runtime.registry.clone();
/// runtime.spawn(async move {
///     let error = registry.reload(pool).await.unwrap_err();
///     assert!(matches!(&error, ReloadError::Refused { service, .. } if service == "pool"));
///     let text = "pool was not reloaded: the build of pool failed: connection refused";
///     assert_eq!(chain(&error).to_string(), text);
/// });
/// runtime.run_until_idle();
/// assert_eq!(*runtime.registry.get(pool)?, 8);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ReloadError {
    /// The id belongs to another registry.
    #[error(transparent)]
    ForeignId(#[from] ForeignIdError),
    /// A blocking wait in a poll of an async supervisor, which has begun nothing: use `.await`.
    #[error(transparent)]
    MustAwait(#[from] MustAwaitError),
    /// The root is not ready, so there is nothing to reload.
    #[error("{} was not reloaded", .0.service)]
    NotReady(#[source] DependencyUnavailable),
    /// The build of a member returned an error, panicked, or exceeded its timeout. This is no
    /// failure of the member, and nothing is counted.
    #[error("{root} was not reloaded: the build of {service} failed")]
    Refused {
        /// The service that the caller has named.
        root: ServiceName,
        /// The member that was not built.
        service: ServiceName,
        /// The error of its builder, or a [`BuildFailure`](crate::supervise::BuildFailure).
        #[source]
        error: Arc<dyn Error + Send + Sync>,
    },
    /// The new instance of a member would depend on a service that depends on the member. The old
    /// instance of that service uses the old instance of the member. A
    /// [restart](crate::Registry::restart) may be able to change the order.
    #[error("{root} was not reloaded: this change of its dependencies needs a restart")]
    Cycle {
        /// The service that the caller has named.
        root: ServiceName,
        /// The path of the cycle.
        #[source]
        cycle: CycleError,
    },
    /// A member cannot be built aside.
    #[error("{root} was not reloaded: {service} {why}")]
    NotReloadable {
        /// The service that the caller has named.
        root: ServiceName,
        /// The member.
        service: ServiceName,
        /// Why it cannot.
        why: NotReloadable,
    },
    /// Services would have a gap, and the caller wants
    /// [none](crate::Registry::reload_without_gap).
    #[error("{root} was not reloaded: {} would have a gap", listed(.gaps))]
    Gap {
        /// The service that the caller has named.
        root: ServiceName,
        /// All services that would have one, each after its dependencies.
        gaps: Vec<Gap>,
    },
    /// The instance of a member has failed during the reload.
    #[error("{root} was not reloaded: {} did not stay ready", .failure.service)]
    Failed {
        /// The service that the caller has named.
        root: ServiceName,
        /// The failure of the member.
        #[source]
        failure: Failure,
    },
    /// A member must stop: in a [restart](crate::Registry::restart), or a
    /// [stop](crate::Registry::stop).
    #[error("{root} was not reloaded: {service} stops: {reason}")]
    Stopping {
        /// The service that the caller has named.
        root: ServiceName,
        /// The member.
        service: ServiceName,
        /// The reason of its planned end.
        reason: Reason,
    },
    /// A dependency that is no member has failed or was replaced, after a member was built from it.
    #[error("{root} was not reloaded: {dependency} has changed, from which {service} was built")]
    DependencyChanged {
        /// The service that the caller has named.
        root: ServiceName,
        /// The member.
        service: ServiceName,
        /// The dependency.
        dependency: ServiceName,
    },
    /// Something has changed before the switch, each time when members were built. After fewer
    /// than 16 tries: a build holds the [value](crate::supervise::Live::reload) of the last one.
    #[error("{root} was not reloaded: {service} has changed before the switch (tries: {tries})")]
    Changed {
        /// The service that the caller has named.
        root: ServiceName,
        /// What has changed last: a member, which was replaced or has failed, or whose build has
        /// waited for a service with a [gap](crate::supervise::Gap); or a service that has become
        /// ready, and was no member.
        service: ServiceName,
        /// How often the members were built.
        tries: u32,
    },
    /// A newer reload of the same service has begun.
    #[error("{root} was not reloaded: a newer reload of it has begun")]
    Superseded {
        /// The service that the caller has named.
        root: ServiceName,
    },
    /// The timeout of the wait expired.
    #[error("{root} was not reloaded within {after:?}{}", waiting_for(.missing, .behind))]
    TimedOut {
        /// The service that the caller has named.
        root: ServiceName,
        /// The duration of the wait.
        after: Duration,
        /// The members that are not built, each after its dependencies.
        missing: Vec<MissingMember>,
        /// The root of another reload, for whose end this one has waited: they have a member in
        /// common.
        behind: Option<ServiceName>,
    },
    /// A shutdown has begun.
    #[error("{root} was not reloaded: the registry is shutting down")]
    ShuttingDown {
        /// The service that the caller has named.
        root: ServiceName,
    },
    /// The registry is closed.
    #[error("{root} was not reloaded: the registry is closed")]
    Closed {
        /// The service that the caller has named.
        root: ServiceName,
    },
}

/// Why a service cannot be built aside ([`ReloadError::NotReloadable`]).
///
/// ```
/// use mainstay::{Registry, error::{NotReloadable, ReloadError}};
///
/// let registry = Registry::with_capacity(1)?;
/// let port = registry.register::<u16>("port")?;
/// registry.constant(port, 80)?;
/// match registry.reload(port).wait_blocking() {
///     Err(ReloadError::NotReloadable { why, .. }) => assert_eq!(why, NotReloadable::Constant),
///     other => unreachable!("{other:?}"),
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum NotReloadable {
    /// It is a [constant](crate::Registry::constant), which nothing builds.
    Constant,
    /// Its provider is not a [supervisor](crate::Registry::supervise).
    ByHand,
    /// Its supervisor is not up: it is in this state.
    NotUp(SupervisorState),
}

impl fmt::Display for NotReloadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Constant => f.write_str("is a constant"),
            Self::ByHand => f.write_str("has no supervisor"),
            Self::NotUp(state) => write!(f, "cannot be built aside: its supervisor is {state}"),
        }
    }
}

fn waiting_for(missing: &[MissingMember], behind: &Option<ServiceName>) -> String {
    if let Some(behind) = behind {
        return format!(": waiting for the reload of {behind}");
    }
    match missing {
        [] => String::new(),
        _ => format!(": waiting for {}", listed(missing)),
    }
}

fn listed<T: fmt::Display>(items: &[T]) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join(", ")
}

impl ReloadError {
    /// Returns whether a later try may succeed. After the failure of an instance that has `given`
    /// the value of the root, none is possible.
    pub(crate) fn may_be_mended(&self, given: bool) -> bool {
        match self {
            Self::Refused { .. }
            | Self::Stopping { .. }
            | Self::DependencyChanged { .. }
            | Self::Changed { .. }
            | Self::NotReloadable { why: NotReloadable::NotUp(_), .. } => true,
            Self::NotReady(_) => !given,
            Self::Failed { root, failure } => !given || failure.service != *root,
            Self::ForeignId(_)
            | Self::MustAwait(_)
            | Self::Cycle { .. }
            | Self::NotReloadable { .. }
            | Self::Gap { .. }
            | Self::Superseded { .. }
            | Self::TimedOut { .. }
            | Self::ShuttingDown { .. }
            | Self::Closed { .. } => false,
        }
    }

    /// Returns why the service is stale after this error. `None` if the reload was not refused: its
    /// caller has given it up, or there is nothing that could be stale.
    pub(crate) fn why_stale(&self) -> Option<Arc<str>> {
        let by = |service: &ServiceName, why: &dyn Fn() -> String| {
            // The text may be user code.
            let mut text = String::from("the text of the error panicked");
            shielded(|| text = why());
            format!("reload refused by {service}: {text}").into()
        };
        Some(match self {
            Self::Refused { service, error, .. } => by(service, &|| chain(&**error).to_string()),
            Self::NotReloadable { service, why, .. } => by(service, &|| format!("it {why}")),
            Self::Gap { gaps, .. } => {
                let first = gaps.first()?;
                by(&first.service, &|| String::from("it would have a gap"))
            }
            Self::Failed { failure, .. } => by(&failure.service, &|| chain(failure).to_string()),
            Self::Stopping { service, reason, .. } => by(service, &|| reason.to_string()),
            Self::DependencyChanged { service, dependency, .. } => {
                by(service, &|| format!("{dependency} has changed"))
            }
            Self::Changed { service, .. } => by(service, &|| "it has changed".into()),
            Self::Cycle { cycle, .. } => by(&cycle.path[0], &|| cycle.to_string()),
            Self::TimedOut { after, .. } => format!("not reloaded within {after:?}").into(),
            Self::ForeignId(_)
            | Self::MustAwait(_)
            | Self::NotReady(_)
            | Self::Superseded { .. }
            | Self::ShuttingDown { .. }
            | Self::Closed { .. } => return None,
        })
    }
}

/// The error of [`Live::reload`](crate::supervise::Live::reload): the service was not reloaded, and
/// the new value is returned.
///
/// It has the text and the source of the [`ReloadError`].
///
/// The builds of other members may have used the value. As long as one of them holds it,
/// [`RefusedValue::try_into_inner`] returns the handle, and [`RefusedValue::into_inner`] waits.
///
/// ```
/// use mainstay::{supervise::{Build, Live}, test_kit::TestRuntime};
///
/// let mut runtime = TestRuntime::new(1)?;
/// let limit = runtime.registry.register::<u32>("limit")?;
/// let supervisor = runtime.registry.supervise(limit)?.body(async |live: Live<u32>| {
///     live.registry().close();
///     let error = live.reload(200).await.unwrap_err();
///     assert_eq!(error.to_string(), "limit was not reloaded: the registry is closed");
///     assert_eq!(error.value.into_inner(), 200);
/// });
/// runtime.spawn(supervisor.run(async |_: Build<u32>| 100));
/// runtime.run_until_idle();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct ReloadValueError<T> {
    /// The new value.
    pub value: RefusedValue<T>,
    /// Why the service was not reloaded.
    pub error: ReloadError,
}

impl<T> fmt::Display for ReloadValueError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl<T> Error for ReloadValueError<T> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.error.source()
    }
}

impl<T> fmt::Debug for ReloadValueError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ReloadValueError").field(&self.error).finish()
    }
}
