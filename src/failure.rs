//! Why a service went down: what a failed provider, a reader and an operator are told.

use std::{error::Error, fmt, sync::Arc, time::SystemTime};

use crate::{service::Name, sync::Shielded};

/// What was given as the reason of a failure.
///
/// ```
/// use mainstay::{Reason, Registry};
///
/// let registry = Registry::with_capacity(1)?;
/// let port = registry.register::<u16>("port")?;
/// let provider = registry.provide(port)?;
/// let running = provider.begin().wait()?.ready(80)?;
/// registry.fail(port, "the address is gone")?;
/// match running.failed().wait()?.reason {
///     Reason::Error(error) => assert_eq!(error.to_string(), "the address is gone"),
///     other => panic!("{other}"),
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Reason {
    /// Somebody failed the service, or gave an attempt up, and said this.
    Error(Arc<dyn Error + Send + Sync>),
    /// A panic unwound through an attempt or a running handle.
    Panicked,
    /// The attempt was dropped without a value.
    AttemptDropped,
    /// The handle of the running instance was dropped.
    RunningDropped,
    /// The provider was dropped.
    ProviderDropped,
    /// One of these was dropped after the registry was closed.
    Closed,
    /// The registry is being shut down, and it was this service's turn.
    ShutDown,
    /// What it is built from was away for longer than it [can stand](crate::Build::wait_with_grace).
    #[cfg(feature = "supervise")]
    NotBack {
        /// Why that is away.
        failure: Arc<Failure>,
        /// How long it may be.
        grace: std::time::Duration,
    },
}

impl Reason {
    /// A user's reason. Where it turns out to be of no use it is the store that drops it: shielded.
    pub(crate) fn error(reason: impl Into<Box<dyn Error + Send + Sync>>) -> Shielded<Self> {
        Shielded::new(Self::Error(reason.into().into()))
    }

    /// Why something is dropped: in a panic, as all is over, or, `otherwise`, just so.
    pub(crate) fn dropped(closed: bool, otherwise: Self) -> Shielded<Self> {
        Shielded::new(if std::thread::panicking() {
            Self::Panicked
        } else if closed {
            Self::Closed
        } else {
            otherwise
        })
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Error(error) => error.fmt(f),
            Self::Panicked => f.write_str("its provider panicked"),
            Self::AttemptDropped => f.write_str("the attempt was dropped"),
            Self::RunningDropped => f.write_str("the running handle was dropped"),
            Self::ProviderDropped => f.write_str("the provider was dropped"),
            Self::Closed => f.write_str("the registry was closed"),
            Self::ShutDown => f.write_str("the registry is shut down"),
            #[cfg(feature = "supervise")]
            Self::NotBack { failure, grace } => {
                write!(f, "{} was not back within {grace:?}: {failure}", failure.service)
            }
        }
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for Reason {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// One failure as one service met it: which instance went down, and what began it.
///
/// Where several cascades reach a service at the same time, it names one of them. The reason lives at the
/// root, once a cascade: a dependent that asks after its root has failed *again* is told of that newer one.
///
/// ```
/// use mainstay::Registry;
///
/// let registry = Registry::with_capacity(2)?;
/// let config = registry.register::<String>("config")?;
/// let port = registry.register::<u16>("port")?;
/// registry.add_dependency(port, config)?;
///
/// let (p, q) = (registry.provide(config)?, registry.provide(port)?);
/// let _config = p.begin().wait()?.ready("80".to_string())?;
/// let running = q.begin().wait()?.ready(80)?;
///
/// registry.fail(config, "edited")?;
/// let failure = running.failed().wait()?;
/// assert_eq!(failure.service, "port");
/// assert_eq!(failure.root, "config");
/// assert_eq!(failure.reason.to_string(), "edited");
/// assert_eq!(failure.to_string(), "port went down with config: edited");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Failure {
    /// The service that went down.
    pub service: Name,
    /// The generation of it that is over.
    pub generation: u64,
    /// The service at which it began: this one, or one that it depends on.
    pub root: Name,
    /// The generation of the root that failed.
    pub root_generation: u64,
    /// What was said.
    pub reason: Reason,
    /// When, by the system's clock.
    #[cfg_attr(feature = "serde", serde(serialize_with = "unix_seconds"))]
    pub at: SystemTime,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.service == self.root {
            write!(f, "{} failed: {}", self.service, self.reason)
        } else {
            write!(f, "{} went down with {}: {}", self.service, self.root, self.reason)
        }
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.reason {
            Reason::Error(error) => Some(&**error),
            _ => None,
        }
    }
}

/// Seconds since 1970, with a fraction; negative before.
#[cfg(feature = "serde")]
fn unix_seconds<S: serde::Serializer>(at: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(match at.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => after.as_secs_f64(),
        Err(before) => -before.duration().as_secs_f64(),
    })
}

/// What a cascade did; see [`Registry::fail`](crate::Registry::fail).
///
/// ```
/// let registry = mainstay::Registry::with_capacity(2)?;
/// let (config, port) = (registry.register::<String>("config")?, registry.register::<u16>("port")?);
/// let (p, q) = (registry.provide(config)?, registry.provide(port)?);
/// let _config = p.begin().wait()?.ready("80".to_string())?;
/// let attempt = q.begin().wait()?;
/// attempt.wait_for(config).wait()?;
///
/// let cascade = registry.fail(config, "edited")?;
/// assert_eq!((cascade.went_down, cascade.overtaken), (1, 1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cascade {
    /// How many ready instances this call took down.
    pub went_down: usize,
    /// How many attempts it overtook: what they build will not be published.
    pub overtaken: usize,
}

/// What a report did; see [`Registry::report`](crate::Registry::report).
///
/// ```
/// use mainstay::{Registry, Report};
///
/// let registry = Registry::with_capacity(1)?;
/// let client = registry.register::<String>("client")?;
/// let provider = registry.provide(client)?;
/// let running = provider.begin().wait()?.ready("first".to_string())?;
///
/// let met = registry.get_arc(client)?;
/// running.replace("second".to_string())?;
/// assert_eq!(registry.report(&met, "reset by peer")?, Report::Replaced);
///
/// let met = registry.get_arc(client)?;
/// assert!(matches!(registry.report(&met, "reset by peer")?, Report::Failed(_)));
/// assert_eq!(registry.report(&met, "reset by peer")?, Report::AlreadyFailed);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Report {
    /// This report was the one that failed the instance.
    Failed(Cascade),
    /// The instance had failed already, or another failure was on its way to it.
    AlreadyFailed,
    /// The instance had been replaced: its generation lives, and was left alone.
    Replaced,
}
