//! What the reason of a failure says about the next build.

use std::{error::Error, fmt, sync::Arc};

use crate::{
    error::{DependencyUnavailable, GroupGivenUp, links},
    failure::{Failure, Reason},
    service::ServiceName,
    sync::shielded,
};

/// An error that building again does not mend: a wrong password, a file that is not valid.
///
/// A service whose builder or body returns it is not built again until something changes from which
/// it was built, or until [`Registry::restart`](crate::Registry::restart). Its state is
/// [`Permanent`](crate::supervise::SupervisorState::Permanent). The failure is counted.
///
/// It wraps any error, and may be wrapped itself: a supervisor finds it among the
/// [sources](Error::source) of an error, also below `Box<dyn Error>`, anyhow and eyre. Of a
/// `Permanent`, a [`Planned`] and a
/// [`DependencyUnavailable`](crate::error::DependencyUnavailable) the first one in the chain of
/// sources decides. A `Permanent` below a [`Failure`] of another service says nothing.
///
/// The text of the wrapped error, and those of its sources, follow in the chain.
///
/// ```
/// use mainstay::{Registry, supervise::{Permanent, SupervisorState}};
/// use std::thread;
///
/// let registry = Registry::with_capacity(2)?;
/// let config = registry.register::<String>("config")?;
/// let port = registry.register::<u16>("port")?;
/// let supervisor = registry.supervise(port)?;
/// thread::spawn(move || {
///     supervisor.run_blocking(|build| {
///         let config = build.wait_for(config).wait_blocking()?;
///         // A text that is no number stays one.
///         let port = config.parse::<u16>().map_err(Permanent::new)?;
///         Ok::<u16, Box<dyn std::error::Error + Send + Sync>>(port)
///     })
/// });
/// let provider = registry.provide(config)?;
/// let running = provider.begin().wait_blocking()?.ready("eighty".to_string())?;
/// while registry.status(port)?.supervisor.unwrap().state != SupervisorState::Permanent {
///     thread::yield_now();
/// }
/// let failure = registry.status(port)?.last_failure.unwrap();
/// assert_eq!(failure.reason.to_string(), "permanent error: invalid digit found in string");
///
/// running.replace("80".to_string())?;
/// assert_eq!(**registry.wait_ready(port).wait_blocking()?, 80);
/// # registry.close();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Permanent(PermanentCause);

/// The source of a [`Permanent`]: what remains of it in the chain if its own type is hidden, as by
/// `anyhow::Error`. Its text is that of the error.
#[derive(Debug, Clone)]
struct PermanentCause(Arc<dyn Error + Send + Sync>);

impl Permanent {
    /// Wraps an error, or a text.
    ///
    /// ```
    /// use mainstay::{error::chain, supervise::Permanent};
    ///
    /// let error = Permanent::new("the password is wrong");
    /// assert_eq!(chain(&error).to_string(), "permanent error: the password is wrong");
    /// ```
    pub fn new(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(PermanentCause(error.into().into()))
    }

    /// Returns the error that it wraps.
    ///
    /// ```
    /// use mainstay::supervise::Permanent;
    ///
    /// let error = Permanent::new("eighty".parse::<u16>().unwrap_err());
    /// assert!(error.error().is::<std::num::ParseIntError>());
    /// ```
    pub fn error(&self) -> &(dyn Error + Send + Sync + 'static) {
        &*self.0.0
    }
}

impl fmt::Display for Permanent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad("permanent error")
    }
}

impl Error for Permanent {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.0)
    }
}

impl fmt::Display for PermanentCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl Error for PermanentCause {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}

/// The reason of a failure that is no fault of the service: it is not counted, and the service is
/// built again immediately.
///
/// A reader or a tool passes it to [`Registry::fail`](crate::Registry::fail), and a body may return
/// it. It is found in an error as a [`Permanent`] is.
///
/// ```
/// use mainstay::{Registry, supervise::Planned};
///
/// let registry = Registry::with_capacity(1)?;
/// let config = registry.register::<u16>("config")?;
/// let supervisor = registry.supervise(config)?;
/// std::thread::spawn(|| supervisor.run_blocking(|_| 80));
/// registry.wait_ready(config).wait_blocking()?;
///
/// registry.fail(config, Planned::new("edited"))?;
/// assert_eq!(**registry.wait_ready(config).wait_blocking()?, 80);
/// let status = registry.status(config)?;
/// assert_eq!(status.supervisor.unwrap().failures, 0);
/// assert_eq!(status.last_failure.unwrap().reason.to_string(), "planned: edited");
/// # registry.close();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned(PlannedFor);

/// The source of a [`Planned`], as [`PermanentCause`].
#[derive(Debug, Clone, PartialEq, Eq)]
struct PlannedFor(Arc<str>);

impl Planned {
    /// Returns a reason with this text.
    ///
    /// ```
    /// use mainstay::{error::chain, supervise::Planned};
    ///
    /// assert_eq!(chain(&Planned::new("edited")).to_string(), "planned: edited");
    /// ```
    pub fn new(why: impl Into<String>) -> Self {
        Self(PlannedFor(why.into().into()))
    }
}

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad("planned")
    }
}

impl Error for Planned {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.0)
    }
}

impl fmt::Display for PlannedFor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl Error for PlannedFor {}

/// What the reason of a failure means for the next build.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// The service has failed, and building it again may help.
    Failed,
    /// The service has failed, and building it again does not help ([`Permanent`]).
    Permanent,
    /// Another service was not available.
    Unavailable(ServiceName),
    /// The failure is planned ([`Planned`]).
    Planned,
    /// The failure belongs to another service, which has counted it, or to a planned end.
    Excused,
}

impl Meaning {
    /// The limit for the number of errors of a chain, which may be endless.
    const MOST_LINKS: usize = 1024;

    /// Returns what this failure of a service, or of its attempt, means for the service (S1).
    pub(super) fn of(failure: &Failure) -> Self {
        if failure.root != failure.service {
            return Self::Excused;
        }
        match &failure.reason {
            // Counted against the member whose failure was one too many.
            Reason::Error(error) if error.is::<GroupGivenUp>() => Self::Excused,
            Reason::Error(error) => {
                let mut meaning = Self::Failed;
                // The walk calls the errors of the user.
                shielded(|| meaning = Self::of_error(&**error));
                meaning
            }
            // Counted against the dependency that was absent, or against the one that took it down.
            Reason::GraceExpired { .. } => Self::Excused,
            // A restart, a stop, a shutdown or a close.
            reason if reason.is_planned() => Self::Excused,
            _ => Self::Failed,
        }
    }

    /// The first error in the chain that says something decides.
    fn of_error(error: &(dyn Error + 'static)) -> Self {
        // What is permanent or planned for one service need not be so for another one.
        let mut of_another = false;
        for link in links(Some(error)).take(Self::MOST_LINKS) {
            if let Some(missing) = link.downcast_ref::<DependencyUnavailable>() {
                return Self::Unavailable(missing.service.clone());
            }
            of_another |= link.is::<Failure>();
            if of_another {
                continue;
            }
            if link.is::<Permanent>() || link.is::<PermanentCause>() {
                return Self::Permanent;
            }
            if link.is::<Planned>() || link.is::<PlannedFor>() {
                return Self::Planned;
            }
        }
        Self::Failed
    }
}
