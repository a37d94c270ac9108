//! Failures and their reasons, and the results of failing a service.

use std::{error::Error, fmt, sync::Arc, time::SystemTime};

use crate::{
    error::Joined, failure_record::write_failure, numbers::Generation, service::ServiceName,
    sync::Shielded,
};

/// The reason for a failure.
///
/// `Display` writes one short phrase, without the name of the service, and then all sources of it,
/// joined by ": " (at most 64).
///
/// ```
/// use mainstay::{Reason, Registry};
///
/// let registry = Registry::with_capacity(1)?;
/// let port = registry.register::<u16>("port")?;
/// let provider = registry.provide(port)?;
/// let running = provider.begin().wait_blocking()?.ready(80)?;
/// registry.fail(port, "the address is gone")?;
/// match running.failed().wait_blocking()?.reason {
///     Reason::Error(error) => assert_eq!(error.to_string(), "the address is gone"),
///     other => panic!("{other}"),
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Reason {
    /// The error that the caller passed when it failed the service, the instance or the attempt.
    Error(Arc<dyn Error + Send + Sync>),
    /// A panic unwound through an attempt or a running handle.
    Panicked,
    /// The attempt was dropped before it was published or failed.
    AttemptDropped,
    /// The [running handle](crate::Running) of the instance was dropped.
    RunningDropped,
    /// The [provider](crate::Provider) was dropped.
    ProviderDropped,
    /// An attempt, a running handle or a provider was dropped after the registry was closed.
    Closed,
    /// The registry is shutting down, and it was the turn of this service to stop.
    ShutDown,
    /// A service is being [restarted](crate::Registry::restart): this one, or one on which it
    /// depends.
    #[cfg(feature = "supervise")]
    Restarted {
        /// The service that is being restarted.
        root: ServiceName,
        /// The reason that the caller has given.
        why: Arc<str>,
    },
    /// A service was [stopped](crate::Registry::stop): this one, or one on which it depends.
    #[cfg(feature = "supervise")]
    Stopped {
        /// The service that was stopped.
        root: ServiceName,
    },
    /// A [reload](crate::Registry::reload) has made new instances current, and the attempt had
    /// received an old one, or the service has a [gap](crate::supervise::Gap).
    #[cfg(feature = "supervise")]
    Reloaded {
        /// The dependency; of a service with a gap, the service that the caller has named.
        root: ServiceName,
    },
    /// A dependency was absent for longer than the [grace
    /// period](crate::supervise::Build::wait_with_grace) that the service declared for it.
    #[cfg(feature = "supervise")]
    GraceExpired {
        /// The dependency, with its failure.
        missing: Arc<crate::error::DependencyUnavailable>,
        /// The grace period.
        grace: std::time::Duration,
    },
}

impl Reason {
    /// Returns whether the service has ended as it was asked to: by a restart, a stop, a shutdown
    /// or a close. Nothing is broken then.
    ///
    /// ```
    /// use mainstay::Reason;
    ///
    /// assert!(Reason::ShutDown.is_planned());
    /// assert!(!Reason::Panicked.is_planned());
    /// ```
    pub fn is_planned(&self) -> bool {
        match self {
            Self::ShutDown | Self::Closed => true,
            #[cfg(feature = "supervise")]
            Self::Restarted { .. } | Self::Stopped { .. } | Self::Reloaded { .. } => true,
            _ => false,
        }
    }

    /// The reason that a user passed. It is shielded, because the store drops it if it is not
    /// needed, and its `Drop` may panic.
    pub(crate) fn error(reason: impl Into<Box<dyn Error + Send + Sync>>) -> Shielded<Self> {
        Shielded::new(Self::Error(reason.into().into()))
    }

    /// The reason for an implicit drop: `Panicked` while unwinding, `Closed` after `close`, else
    /// `otherwise`.
    pub(crate) fn dropped(closed: bool, otherwise: Self) -> Shielded<Self> {
        Shielded::new(if std::thread::panicking() {
            Self::Panicked
        } else if closed {
            Self::Closed
        } else {
            otherwise
        })
    }

    /// Returns the error that this reason is or contains: the source of a failure.
    fn as_error(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Error(error) => Some(&**error),
            #[cfg(feature = "supervise")]
            Self::GraceExpired { missing, .. } => Some(&**missing),
            _ => None,
        }
    }

    /// Returns the source of the phrase of this reason.
    pub(crate) fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Error(error) => error.source(),
            _ => self.as_error(),
        }
    }

    /// Returns the text of this reason without its sources.
    pub(crate) fn phrase(&self) -> impl fmt::Display + '_ {
        Phrase(self)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Joined { first: self.phrase(), source: self.source() }.fmt(f)
    }
}

struct Phrase<'a>(&'a Reason);

impl fmt::Display for Phrase<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Reason::Error(error) => write!(f, "{error}"),
            Reason::Panicked => f.write_str("its provider panicked"),
            Reason::AttemptDropped => f.write_str("the attempt was dropped"),
            Reason::RunningDropped => f.write_str("the running handle was dropped"),
            Reason::ProviderDropped => f.write_str("the provider was dropped"),
            Reason::Closed => f.write_str("the registry was closed"),
            Reason::ShutDown => f.write_str("the registry is shutting down"),
            #[cfg(feature = "supervise")]
            Reason::Restarted { root, why } => write!(f, "{root} is being restarted: {why}"),
            #[cfg(feature = "supervise")]
            Reason::Stopped { root } => write!(f, "{root} was stopped"),
            #[cfg(feature = "supervise")]
            Reason::Reloaded { root } => write!(f, "{root} was reloaded"),
            #[cfg(feature = "supervise")]
            Reason::GraceExpired { missing, grace } => {
                write!(f, "{} was not ready again within {grace:?}", missing.service)
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

/// One failure of one service: the generation that ended, and the failure that caused it.
///
/// If several cascades reach a service at the same time, the failure names one of them. A cascade
/// stores its reason once, at its root. If the root has failed *again* since then, the failure of a
/// dependent contains the newer reason.
///
/// As an [`Error`], it has the user's error as its source, with all sources of that one. As for all
/// errors of this crate, `Display` does not contain the source.
/// [`error::chain`](crate::error::chain) writes both; the `Display` of the reason writes the source
/// and its sources. After an expired grace period, the source is a
/// [`DependencyUnavailable`](crate::error::DependencyUnavailable).
///
/// A [`FailureRecord`](crate::FailureRecord) is a copy without the errors. With the feature
/// `serde`, a failure is serialised as its record.
///
/// ```
/// use mainstay::Registry;
///
/// let registry = Registry::with_capacity(2)?;
/// let config = registry.register::<String>("config")?;
/// let port = registry.register::<u16>("port")?;
/// registry.depends(port).on(config)?;
///
/// let (provide_config, provide_port) = (registry.provide(config)?, registry.provide(port)?);
/// let _config = provide_config.begin().wait_blocking()?.ready("80".to_string())?;
/// let running = provide_port.begin().wait_blocking()?.ready(80)?;
///
/// registry.fail(config, "edited")?;
/// let failure = running.failed().wait_blocking()?;
/// assert_eq!(failure.service, "port");
/// assert_eq!(failure.root, "config");
/// assert_eq!(failure.reason.to_string(), "edited");
/// assert_eq!(failure.to_string(), "port failed because config failed");
/// let text = mainstay::error::chain(&failure).to_string();
/// assert_eq!(text, "port failed because config failed: edited");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Failure {
    /// The service that failed, or whose attempt was invalidated.
    pub service: ServiceName,
    /// The generation of the service that ended.
    pub generation: Generation,
    /// The service with which the cascade began: this service, or one on which it depends.
    pub root: ServiceName,
    /// The generation of the root that ended.
    pub root_generation: Generation,
    /// The reason for the failure of the root.
    pub reason: Reason,
    /// The time of the failure, by the system's clock.
    pub at: SystemTime,
}

impl Failure {
    /// Returns whether the service has ended as it was asked to ([`Reason::is_planned`]). Then its
    /// event is [`Stopped`](crate::EventKind::Stopped), and its text says that it was stopped.
    ///
    /// ```
    /// let registry = mainstay::Registry::with_capacity(1)?;
    /// let port = registry.register::<u16>("port")?;
    /// let provider = registry.provide(port)?;
    /// let running = provider.begin().wait_blocking()?.ready(80)?;
    /// registry.close();
    /// drop(running);
    /// let failure = registry.status(port)?.last_failure.unwrap();
    /// assert!(failure.is_planned());
    /// assert_eq!(failure.to_string(), "port was stopped: the registry was closed");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn is_planned(&self) -> bool {
        self.reason.is_planned()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_failure(f, &self.service, &self.root, self.is_planned())?;
        match &self.reason {
            // It is the source.
            Reason::Error(_) => Ok(()),
            reason => write!(f, ": {}", reason.phrase()),
        }
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.reason.as_error()
    }
}

/// The result of a cascade; see [`Registry::fail`](crate::Registry::fail).
///
/// ```
/// let registry = mainstay::Registry::with_capacity(2)?;
/// let config = registry.register::<String>("config")?;
/// let port = registry.register::<u16>("port")?;
/// let (provide_config, provide_port) = (registry.provide(config)?, registry.provide(port)?);
/// let _config = provide_config.begin().wait_blocking()?.ready("80".to_string())?;
/// let attempt = provide_port.begin().wait_blocking()?;
/// attempt.wait_for(config).wait_blocking()?;
///
/// let cascade = registry.fail(config, "edited")?;
/// assert_eq!((cascade.failed, cascade.invalidated), (1, 1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cascade {
    /// The number of ready instances that this call took down.
    pub failed: usize,
    /// The number of attempts that this call invalidated: their values will not be published.
    pub invalidated: usize,
}

/// The result of failing one instance; see
/// [`Registry::fail_instance`](crate::Registry::fail_instance).
///
/// ```
/// use mainstay::{FailOutcome, Registry};
///
/// let registry = Registry::with_capacity(1)?;
/// let client = registry.register::<String>("client")?;
/// let provider = registry.provide(client)?;
/// let running = provider.begin().wait_blocking()?.ready("first".to_string())?;
///
/// let broken = registry.get_arc(client)?;
/// running.replace("second".to_string())?;
/// assert_eq!(registry.fail_instance(&broken, "reset by peer")?, FailOutcome::Replaced);
///
/// let broken = registry.get_arc(client)?;
/// let outcome = registry.fail_instance(&broken, "reset by peer")?;
/// assert!(matches!(outcome, FailOutcome::Failed(_)));
/// assert_eq!(registry.fail_instance(&broken, "reset by peer")?, FailOutcome::AlreadyFailed);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailOutcome {
    /// This call has failed the instance.
    Failed(Cascade),
    /// The instance had already failed, or another cascade had already condemned it. In the second
    /// case it may be readable for a short time. An instance that has never existed is reported in
    /// the same way.
    AlreadyFailed,
    /// The instance had been replaced. Nothing was failed: its generation has not ended.
    Replaced,
}

/// The result of failing several services as one cascade; see
/// [`Registry::fail_all`](crate::Registry::fail_all).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FailAllOutcome {
    /// What the cascade has taken down, the given services included.
    pub cascade: Cascade,
    /// What has happened to each of the given services, in their order.
    pub roots: Vec<RootOutcome>,
}

/// What a cascade has done to one of the services with which it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RootOutcome {
    /// Its instance has failed.
    Failed,
    /// Its attempt was invalidated.
    Invalidated,
    /// It was down, or another cascade took it down.
    Down,
}
