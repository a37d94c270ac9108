//! `DependencyUnavailable`: what all errors have in common that say that a service was not there.

use std::{error::Error, fmt, sync::Arc, time::Duration};

use super::chain::links;
use crate::{
    failure::Failure,
    numbers::{Generation, ServiceIndex},
    registry::{LazyNotReady, NotReady, Registry},
    service::ServiceName,
    store::Phase,
};

/// A service was needed, and had no current instance.
///
/// Each error that means this has it among its [sources](Error::source), and
/// [`find`](Self::find) finds it there, also if the error was boxed, converted, or wrapped in
/// contexts:
///
/// - [`GetError::NotReady`](super::GetError::NotReady): the service that was read.
/// - [`GetAllError::NotReady`](super::GetAllError::NotReady): the first of the ids, in their order,
///   whose service was not ready.
/// - [`WaitReadyError::TimedOut`](super::WaitReadyError::TimedOut): the service that was waited
///   for.
/// - [`WaitReadyError::Stuck`](super::WaitReadyError::Stuck): the service that was waited for.
/// - [`AllReadyError::Stuck`](super::AllReadyError::Stuck): the first one that was found to be
///   stuck.
/// - [`WaitForError::TimedOut`](super::WaitForError::TimedOut), of an attempt or a build: the
///   dependency.
/// - [`AllReadyError::TimedOut`](super::AllReadyError::TimedOut): the first service, in the order
///   of registration, that is not ready and that no other service blocks.
/// - [`ReplaceError`](super::ReplaceError): the service with which the failure of the instance
///   began. It is the service itself, or one on which it depends.
/// - A [`Failure`] because of an [expired grace period](crate::Reason): the dependency that was
///   absent.
///
/// All other errors mean something else and have none: the registry is closed, an id is foreign, an
/// edge would close a cycle, a type is wrong, or an attempt was invalidated and must begin again.
/// But an error that contains a [`Failure`] has the sources of the user's reason for it, too. If
/// this reason is the error of a wait that has timed out, `find` finds what that wait has missed.
///
/// ```
/// use mainstay::{Registry, ServiceId, error::DependencyUnavailable};
/// use std::error::Error;
///
/// type BoxError = Box<dyn Error + Send + Sync>;
///
/// fn handle(registry: &Registry, id: ServiceId<u16>) -> Result<u16, BoxError> {
///     Ok(*registry.get(id)? / 2)
/// }
///
/// let registry = Registry::with_capacity(1)?;
/// let port = registry.register::<u16>("port")?;
/// let error = handle(&registry, port).unwrap_err();
/// match DependencyUnavailable::find(&*error) {
///     Some(missing) => assert!(missing.to_string().starts_with("port: no provider")), // 503
///     None => unreachable!("an error of the handler itself"), // 500
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DependencyUnavailable {
    /// The service.
    pub service: ServiceName,
    /// The generation of the service that had no current instance.
    ///
    /// - [`Unavailable::NotReady`]: the present generation during the read.
    /// - [`Unavailable::TimedOut`]: the present generation when the timeout expired. It may be a
    ///   later one than at the begin of the wait.
    /// - [`Unavailable::Stuck`]: the present generation at the end of the wait.
    /// - [`Unavailable::Failed`]: the generation that the failure has ended, or the generation of
    ///   the failed attempt.
    ///
    /// For the first two, an instance of this generation may have become ready just before it was
    /// read: the service was not ready before that, during the call.
    pub generation: Generation,
    /// What was found in place of an instance.
    pub kind: Unavailable,
    /// Nothing if an instance has failed.
    why: LazyNotReady,
}

/// What was found in place of an instance ([`DependencyUnavailable`]).
///
/// ```
/// use mainstay::{Registry, error::{DependencyUnavailable, Unavailable}};
/// use std::time::Duration;
///
/// let registry = Registry::with_capacity(1)?;
/// let port = registry.register::<u16>("port")?;
/// registry.provide(port)?.begin().wait_blocking()?.fail("no port is free")?;
///
/// let wait = registry.wait_ready(port);
/// let error = wait.wait_blocking_timeout(Duration::from_millis(1)).unwrap_err();
/// match &DependencyUnavailable::find(&error).unwrap().kind {
///     Unavailable::TimedOut { after } => assert!(*after >= Duration::from_millis(1)),
///     other => unreachable!("{other:?}"),
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Unavailable {
    /// The service was not ready when it was read.
    NotReady {
        /// Its phase during the read. Never `Ready`.
        phase: Phase,
    },
    /// The service was not ready before a timeout expired.
    TimedOut {
        /// The duration of the wait.
        after: Duration,
    },
    /// The service was not ready, and cannot become ready without help: it has given up, was
    /// stopped, has no provider, or waits for such a service.
    Stuck,
    /// The instance has failed. The failure is the source.
    Failed(Arc<Failure>),
}

impl DependencyUnavailable {
    /// The limit for the number of errors that `find` visits: a chain may be endless.
    const MOST_LINKS: usize = 1024;

    /// Returns the first `DependencyUnavailable` of a chain: the error itself, its
    /// [source](Error::source), the source of that one, and so on.
    ///
    /// It visits at most 1,024 errors, so it returns also for a chain that has no end. It calls the
    /// `source` of each: if one of them panics, so does it.
    ///
    /// An error is not found below a wrapper that shows it neither as itself nor as its source. In
    /// thiserror, `#[error(transparent)]` around an error of [this module](super) is no obstacle,
    /// because the errors of this module have it as their source; around a `DependencyUnavailable`
    /// itself it is one.
    ///
    /// For `Box<dyn Error + Send + Sync>`, `anyhow::Error` and `eyre::Report`, call
    /// `DependencyUnavailable::find(&*error)`.
    ///
    /// ```
    /// use mainstay::{Registry, error::DependencyUnavailable};
    ///
    /// let registry = Registry::with_capacity(1)?;
    /// let port = registry.register::<u16>("port")?;
    /// let error = anyhow::Error::new(registry.get(port).unwrap_err()).context("request 12");
    /// assert_eq!(DependencyUnavailable::find(&*error).unwrap().service, "port");
    /// let text = "request 12: port is not ready: port: no provider";
    /// assert!(format!("{error:#}").starts_with(text));
    ///
    /// registry.close();
    /// let error = registry.wait_ready(port).wait_blocking().unwrap_err();
    /// assert!(DependencyUnavailable::find(&error).is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn find<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Self> {
        links(Some(error)).take(Self::MOST_LINKS).find_map(|error| error.downcast_ref())
    }

    /// Returns the failure for which the service is not available, if there is one: the last
    /// failure of the service that is the [root](NotReady::root) of the reason. It is the source.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<u16>("port")?;
    /// # let provider = registry.provide(port)?;
    /// let running = provider.begin().wait_blocking()?.ready(80)?;
    /// registry.fail(port, "the address is gone")?;
    /// let refused = running.replace(81).unwrap_err();
    /// let failure = refused.missing.failure().unwrap();
    /// assert_eq!(failure.reason.to_string(), "the address is gone");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn failure(&self) -> Option<&Failure> {
        match &self.kind {
            Unavailable::NotReady { .. } | Unavailable::TimedOut { .. } | Unavailable::Stuck => {
                self.not_ready().and_then(NotReady::failure)
            }
            Unavailable::Failed(failure) => Some(failure),
        }
    }

    /// Returns why the service was not ready. `None` if it has become ready since then, or if its
    /// instance has failed ([`Unavailable::Failed`]).
    ///
    /// A wait that has timed out, or has found the service stuck, has found it at that time. A read
    /// is wait-free, and finds nothing: this method does, when it is called for the first time, or
    /// when the text or the source of the error is read. So it may show a later state than that of
    /// the read.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<u16>("port")?;
    /// use mainstay::error::GetError;
    ///
    /// let Err(GetError::NotReady(missing)) = registry.get(port) else { unreachable!() };
    /// assert_eq!(missing.not_ready().unwrap().root(), "port");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn not_ready(&self) -> Option<&NotReady> {
        self.why.get(&self.service)
    }

    /// The service was not ready when it was read, in this phase.
    pub(crate) fn not_ready_when_read(
        (service, generation): (ServiceName, Generation),
        phase: Phase,
        why: LazyNotReady,
    ) -> Self {
        Self { service, generation, kind: Unavailable::NotReady { phase }, why }
    }

    /// The service is not ready now.
    #[cfg(feature = "supervise")]
    pub(crate) fn not_ready_now(registry: &Registry, index: ServiceIndex) -> Self {
        let (store, why) = (registry.store(), registry.not_ready(index));
        let state = store.slot(index).state.load();
        let phase = match state.phase() {
            // It has become ready after the check.
            Phase::Ready => Phase::Down,
            phase => phase,
        };
        Self::not_ready_when_read((store.name(index), state.generation()), phase, why.into())
    }

    /// A wait for the service has lasted for `after`.
    pub(crate) fn timed_out(registry: &Registry, index: ServiceIndex, after: Duration) -> Self {
        let (store, why) = (registry.store(), registry.not_ready(index));
        let generation = store.slot(index).state.load().generation();
        Self::still_not_ready((store.name(index), generation), after, why)
    }

    /// As `timed_out`, if it is known why the service is not ready.
    pub(crate) fn still_not_ready(
        (service, generation): (ServiceName, Generation),
        after: Duration,
        why: Option<NotReady>,
    ) -> Self {
        Self { service, generation, kind: Unavailable::TimedOut { after }, why: why.into() }
    }

    /// A wait for the service has found that it is stuck. `None` if it is not any more.
    pub(crate) fn stuck(registry: &Registry, index: ServiceIndex) -> Option<Self> {
        let why = registry.if_stuck(index)?;
        let store = registry.store();
        let generation = store.slot(index).state.load().generation();
        let (service, why) = (store.name(index), Some(why).into());
        Some(Self { service, generation, kind: Unavailable::Stuck, why })
    }

    /// An instance of the service has failed.
    pub(crate) fn failed(
        (service, generation): (ServiceName, Generation),
        failure: Arc<Failure>,
    ) -> Self {
        Self { service, generation, kind: Unavailable::Failed(failure), why: None.into() }
    }
}

impl fmt::Display for DependencyUnavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { service, generation, kind, .. } = self;
        let why = self.not_ready().map(NotReady::without_failure);
        match (kind, why) {
            (Unavailable::NotReady { .. } | Unavailable::Stuck, Some(why)) => write!(f, "{why}"),
            (Unavailable::Stuck, None) => {
                write!(f, "{service} was stuck in generation {generation}")
            }
            (Unavailable::NotReady { phase }, None) => {
                write!(f, "{service} was {phase} in generation {generation}")
            }
            (Unavailable::TimedOut { after }, Some(why)) => {
                write!(f, "not ready within {after:?}: {why}")
            }
            (Unavailable::TimedOut { after }, None) => {
                write!(f, "{service} was not ready within {after:?} in generation {generation}")
            }
            (Unavailable::Failed(_), _) => {
                write!(f, "{service} has no current instance of generation {generation}")
            }
        }
    }
}

impl Error for DependencyUnavailable {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.failure().map(|failure| failure as _)
    }
}
