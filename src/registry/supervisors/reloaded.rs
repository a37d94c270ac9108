//! What a reload returns.

use std::{fmt, time::Duration};

use super::{Gap, RestartedService};
use crate::{numbers::Generation, service::ServiceName, texts::Rounded};

/// The result of a [reload](crate::Registry::reload): the new instances are current.
///
/// ```
/// use mainstay::{supervise::{Build, Reloaded}, test_kit::TestRuntime};
///
/// let mut runtime = TestRuntime::new(1)?;
/// let port = runtime.registry.register::<u16>("port")?;
/// runtime.spawn(runtime.registry.supervise(port)?.run(async |_: Build<u16>| 80));
/// runtime.run_until_idle();
/// let registry = runtime.registry.clone();
/// runtime.spawn(async move {
///     let reloaded: Reloaded = registry.reload(port).await.unwrap();
///     assert_eq!(reloaded.members.len(), 1);
///     assert_eq!(reloaded.members[0].service, "port");
///     assert_eq!((reloaded.members[0].from, reloaded.members[0].to), (0, 1));
/// });
/// runtime.run_until_idle();
/// assert_eq!(runtime.registry.status(port)?.revision, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Reloaded {
    /// The services that were switched, each after its dependencies: the root is the first one. If
    /// the root has a [gap](crate::supervise::Gap), there are none.
    pub members: Vec<ReloadedService>,
    /// The services with a gap, each after its dependencies: they were taken down at the switch,
    /// and have begun again after it.
    pub restarted: Vec<RestartedService>,
    /// The services that are to [adopt](crate::supervise::Supervisor::adopt) a new instance. The
    /// reload has not waited for them.
    pub adopters: Vec<ServiceName>,
    /// The duration from the switch until each service with a gap was ready again, or has failed,
    /// by the clock of the registry. `None` if there was none, if the timeout of the wait has
    /// expired before that, or if the clock has panicked.
    pub gap_took: Option<Duration>,
    /// The duration of the switch, by the clock of the registry: as long as the slowest reader may
    /// have taken one more load for a member. `None` if the clock has panicked.
    pub switch_took: Option<Duration>,
    /// How often all members were built. More than 1 if something had changed before the switch.
    pub tries: u32,
}

/// A service that was switched in a reload; a part of [`Reloaded`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReloadedService {
    /// The name of the service.
    pub service: ServiceName,
    /// Its generation, which a reload does not change.
    pub generation: Generation,
    /// The revision of the old instance.
    pub from: u64,
    /// The revision of the new instance.
    pub to: u64,
    /// The duration of its build, by the clock of the registry. Zero for a value that was
    /// [given](crate::supervise::Live::reload).
    pub build_took: Duration,
}

/// The result of [`Registry::check_reload`](crate::Registry::check_reload): all members can be
/// built, and nothing has changed.
///
/// ```
/// use mainstay::{supervise::{Build, ReloadCheck}, test_kit::TestRuntime};
///
/// let mut runtime = TestRuntime::new(1)?;
/// let port = runtime.registry.register::<u16>("port")?;
/// runtime.spawn(runtime.registry.supervise(port)?.run(async |_: Build<u16>| 80));
/// runtime.run_until_idle();
/// let registry = runtime.registry.clone();
/// runtime.spawn(async move {
///     let check: ReloadCheck = registry.check_reload(port).await.unwrap();
///     assert_eq!(check.members[0].service, "port");
/// });
/// runtime.run_until_idle();
/// assert_eq!(runtime.registry.status(port)?.revision, 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReloadCheck {
    /// The services that a reload would switch, each after its dependencies: the root is the first
    /// one, unless it has a gap.
    pub members: Vec<CheckedService>,
    /// The services that a reload would restart at the switch, each after its dependencies. They
    /// were not built.
    pub gaps: Vec<Gap>,
    /// The services that would [adopt](crate::supervise::Supervisor::adopt) a new instance.
    pub adopters: Vec<ServiceName>,
}

/// A service that was built for a check; a part of [`ReloadCheck`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckedService {
    /// The name of the service.
    pub service: ServiceName,
    /// The duration of its build, by the clock of the registry.
    pub build_took: Duration,
}

/// A member of a reload that is not built; a part of
/// [`ReloadError::TimedOut`](crate::error::ReloadError::TimedOut).
///
/// `Display` writes its name, since when it is built, and for what it waits: *pool (building for
/// 12 s, waiting for config)*.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MissingMember {
    /// The name of the service.
    pub service: ServiceName,
    /// The time since its builder was called, by the clock of the registry. `None` if it was not:
    /// its supervisor is not polled, or the number of builds is
    /// [limited](crate::Registry::limit_builds).
    pub building_for: Option<Duration>,
    /// The dependency for which the build has begun to wait last, and still waits.
    pub waiting_for: Option<ServiceName>,
}

impl fmt::Display for MissingMember {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { service, building_for, waiting_for } = self;
        match building_for {
            None => write!(f, "{service} (not begun"),
            Some(lasts) => write!(f, "{service} (building for {}", Rounded(*lasts)),
        }?;
        match waiting_for {
            None => f.write_str(")"),
            Some(dependency) => write!(f, ", waiting for {dependency})"),
        }
    }
}
