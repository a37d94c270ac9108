//! The services with a gap: those that a reload restarts (S22).

use std::fmt;

use crate::{
    error::{DependencyUnavailable, NotReloadable},
    service::ServiceName,
};

/// A service that a reload would restart, in place of building it aside: a part of
/// [`ReloadCheck`](crate::supervise::ReloadCheck) and of
/// [`ReloadError::Gap`](crate::error::ReloadError::Gap).
///
/// `Display` writes its name and why: *server (exclusive)*.
///
/// ```
/// use mainstay::{supervise::{Build, GapCause}, test_kit::TestRuntime};
///
/// let mut runtime = TestRuntime::new(1)?;
/// let port = runtime.registry.register::<u16>("port")?;
/// runtime.spawn(runtime.registry.supervise(port)?.exclusive().run(async |_: Build<u16>| 80));
/// runtime.run_until_idle();
/// let registry = runtime.registry.clone();
/// runtime.spawn(async move {
///     let check = registry.check_reload(port).await.unwrap();
///     assert_eq!(check.gaps[0].why, GapCause::Exclusive);
///     assert_eq!(check.gaps[0].to_string(), "port (exclusive)");
/// });
/// runtime.run_until_idle();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Gap {
    /// The name of the service.
    pub service: ServiceName,
    /// Why it is not built aside.
    pub why: GapCause,
}

/// Why a service is restarted by a reload ([`Gap`]).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum GapCause {
    /// It is [exclusive](crate::supervise::Supervisor::exclusive).
    Exclusive,
    /// It cannot be built aside, and the caller [allows](crate::supervise::ReloadWait::allow_gap) a
    /// gap.
    NotReloadable(NotReloadable),
    /// It depends on this service, which has a gap.
    DependsOn(ServiceName),
}

/// A service that a reload has restarted; a part of [`Reloaded`](crate::supervise::Reloaded).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RestartedService {
    /// The name of the service.
    pub service: ServiceName,
    /// Why it was not built aside.
    pub why: GapCause,
    /// Why it did not come up again, before the wait has ended. `None` if it did. It is an ordinary
    /// failure: a supervisor tries again, as its policy says.
    pub not_ready: Option<DependencyUnavailable>,
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.service, self.why)
    }
}

impl fmt::Display for GapCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exclusive => f.write_str("exclusive"),
            Self::NotReloadable(why) => write!(f, "{why}"),
            Self::DependsOn(dependency) => write!(f, "depends on {dependency}"),
        }
    }
}
