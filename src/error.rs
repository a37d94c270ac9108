//! One small error for each operation. Each says what happened, to which service, and gives back what was
//! refused.

use std::{fmt, time::Duration};

use crate::{
    failure::Failure,
    service::{AnyId, Name},
    store::Phase,
};

/// The id belongs to another registry than the one that was asked.
///
/// ```
/// use mainstay::{GetError, Registry};
///
/// let (mine, other) = (Registry::with_capacity(1)?, Registry::with_capacity(1)?);
/// let id = other.register::<u16>("port")?;
/// assert!(matches!(mine.get(id), Err(GetError::ForeignId(_))));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{id:?} is not of this registry")]
pub struct ForeignId {
    /// The id that was given.
    pub id: AnyId,
}

/// Why [`Registry::builder`](crate::Registry::builder) built nothing.
///
/// ```
/// use mainstay::{BuildError, Registry};
///
/// let refused = Registry::with_capacity(usize::MAX).unwrap_err();
/// assert_eq!(refused, BuildError::Capacity { capacity: usize::MAX });
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The slab is allocated at once, and for so many services it was not possible.
    #[error("no registry for {capacity} services: more than can be numbered or allocated")]
    Capacity {
        /// What was asked for.
        capacity: usize,
    },
    /// A process can make 2^32 - 2 registries in its life: their numbers are never used again.
    #[error("this process has made as many registries as it can number")]
    TooManyRegistries,
}

/// Why a name was not registered.
///
/// ```
/// use mainstay::{RegisterError, Registry};
///
/// let registry = Registry::with_capacity(1)?;
/// registry.register::<u16>("port")?;
/// assert!(matches!(registry.register::<String>("port"), Err(RegisterError::WrongType { .. })));
/// assert!(matches!(registry.register::<String>("host"), Err(RegisterError::Capacity { .. })));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegisterError {
    /// The name stands for a service of another type.
    #[error("{service} holds {registered}, not {requested}")]
    WrongType {
        /// The service.
        service: Name,
        /// Its type, as it was registered.
        registered: &'static str,
        /// The type that was asked for.
        requested: &'static str,
    },
    /// The registry is full.
    #[error("no room for {service}: the registry was built for {capacity} services")]
    Capacity {
        /// The service that did not fit.
        service: Name,
        /// How many fit.
        capacity: usize,
    },
    /// The registry is closed.
    #[error("{service} was not registered: the registry is closed")]
    Closed {
        /// The service.
        service: Name,
    },
}

/// Why a name led to no id.
///
/// ```
/// use mainstay::{LookupError, Registry};
///
/// let registry = Registry::with_capacity(1)?;
/// assert!(matches!(registry.find("port"), Err(LookupError::UnknownName { .. })));
/// registry.register::<u16>("port")?;
/// assert!(matches!(registry.id::<String>("port"), Err(LookupError::WrongType { .. })));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LookupError {
    /// No service has this name.
    #[error("there is no service named {name:?}")]
    UnknownName {
        /// The name.
        name: Name,
    },
    /// The service has another type.
    #[error("{service} holds {registered}, not {requested}")]
    WrongType {
        /// The service.
        service: Name,
        /// Its type, as it was registered.
        registered: &'static str,
        /// The type that was asked for.
        requested: &'static str,
    },
}

/// The services of a dependency cycle: each depends on the next, and the last is the first again.
///
/// ```
/// use mainstay::{Cycle, DependencyError, Registry};
///
/// let registry = Registry::with_capacity(1)?;
/// let a = registry.register::<u8>("a")?;
/// let Err(DependencyError::Cycle(Cycle { path })) = registry.add_dependency(a, a) else {
///     panic!("nothing can be built from itself");
/// };
/// assert_eq!(path, ["a", "a"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} cannot depend on {}: {}", .path[0], .path[1], Arrows(.path))]
pub struct Cycle {
    /// At least two names. The first edge is the one that was refused.
    pub path: Vec<Name>,
}

struct Arrows<'a>(&'a [Name]);

impl fmt::Display for Arrows<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, name) in self.0.iter().enumerate() {
            write!(f, "{}{name}", if i == 0 { "" } else { " -> " })?;
        }
        Ok(())
    }
}

/// Why an edge was not declared.
///
/// ```
/// use mainstay::{DependencyError, Registry};
///
/// let registry = Registry::with_capacity(2)?;
/// let (a, b) = (registry.register::<u8>("a")?, registry.register::<u8>("b")?);
/// registry.add_dependency(b, a)?;
/// let refused = registry.add_dependency(a, b).unwrap_err();
/// assert_eq!(refused.to_string(), "a cannot depend on b: a -> b -> a");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DependencyError {
    /// It would close a cycle.
    #[error(transparent)]
    Cycle(#[from] Cycle),
    /// One of the ids is of another registry.
    #[error(transparent)]
    ForeignId(#[from] ForeignId),
}

/// Why the provider's role was refused.
///
/// ```
/// use mainstay::{ProvideError, Registry};
///
/// let registry = Registry::with_capacity(1)?;
/// let port = registry.register::<u16>("port")?;
/// let first = registry.provide(port)?;
/// assert!(matches!(registry.provide(port), Err(ProvideError::AlreadyProvided { .. })));
/// drop(first);
/// assert!(registry.provide(port).is_ok());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProvideError {
    /// Somebody else provides it.
    #[error("{service} has a provider already")]
    AlreadyProvided {
        /// The service.
        service: Name,
    },
    /// The registry is closed.
    #[error("{service} cannot be provided: the registry is closed")]
    Closed {
        /// The service.
        service: Name,
    },
    /// The id is of another registry.
    #[error(transparent)]
    ForeignId(#[from] ForeignId),
}

/// Why no attempt began.
///
/// ```
/// use mainstay::{BeginError, Registry};
/// use std::time::Duration;
///
/// let registry = Registry::with_capacity(1)?;
/// let port = registry.register::<u16>("port")?;
/// let provider = registry.provide(port)?;
/// let running = provider.begin().wait()?.ready(80)?;
///
/// // It is there, so there is nothing to begin.
/// let began = provider.begin().wait_timeout(Duration::from_millis(1));
/// assert!(matches!(began, Err(BeginError::TimedOut { .. })));
/// registry.close();
/// assert!(matches!(provider.begin().wait(), Err(BeginError::Closed { .. })));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BeginError {
    /// The registry is closed, or is being shut down and the service has had its turn.
    #[error("no attempt at {service}: the registry is closed")]
    Closed {
        /// The service.
        service: Name,
    },
    /// The service was held, or failing, for as long as was allowed.
    #[error("no attempt at {service} within {after:?}")]
    TimedOut {
        /// The service.
        service: Name,
        /// How long was waited.
        after: Duration,
    },
}

/// Why an attempt did not get its dependency.
///
/// ```
/// use mainstay::{Registry, WaitForError};
/// use std::time::Duration;
///
/// let registry = Registry::with_capacity(2)?;
/// let config = registry.register::<String>("config")?;
/// let port = registry.register::<u16>("port")?;
/// let provider = registry.provide(port)?;
///
/// let attempt = provider.begin().wait()?;
/// let waited = attempt.wait_for(config).wait_timeout(Duration::from_millis(1));
/// assert!(matches!(waited, Err(WaitForError::TimedOut { .. })));
/// registry.fail(port, "start again")?;
/// match attempt.wait_for(config).wait() {
///     Err(WaitForError::Overtaken(failure)) => assert_eq!(failure.root, "port"),
///     _ => unreachable!(),
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum WaitForError {
    /// The attempt was overtaken by a failure: give it up and begin again.
    #[error("overtaken: {0}")]
    Overtaken(Failure),
    /// The dependency depends on the service that waits.
    #[error(transparent)]
    Cycle(#[from] Cycle),
    /// The registry is closed.
    #[error("{service} does not come any more: the registry is closed")]
    Closed {
        /// The dependency.
        service: Name,
    },
    /// The attempt has ended, by whatever it led to: what was built can have no more dependencies. Only of a wait
    /// that outlives its attempt, as one of a supervised build may.
    #[error("no wait for {service}: the attempt is over")]
    Over {
        /// The dependency.
        service: Name,
    },
    /// The dependency was not there in time.
    #[error("{service} was not ready within {after:?}")]
    TimedOut {
        /// The dependency.
        service: Name,
        /// How long was waited.
        after: Duration,
    },
    /// The id is of another registry.
    #[error(transparent)]
    ForeignId(#[from] ForeignId),
}

/// Why a [`Watch`](crate::Watch) tells nothing any more.
///
/// ```
/// use mainstay::{Registry, WatchError};
/// use std::time::Duration;
///
/// let registry = Registry::with_capacity(2)?;
/// let (cache, pages) = (registry.register::<u8>("cache")?, registry.register::<u8>("pages")?);
/// let provider = registry.provide(pages)?;
/// let attempt = provider.begin().wait()?;
/// let mut watch = attempt.watch(cache)?;
/// let waited = watch.changed().wait_timeout(Duration::from_millis(1));
/// assert!(matches!(waited, Err(WatchError::TimedOut { .. })));
/// registry.fail(pages, "start again")?;
/// match watch.changed().wait() {
///     Err(WatchError::Over(failure)) => assert_eq!(failure.service, "pages"),
///     other => unreachable!("{other:?}"),
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum WatchError {
    /// What it was watched for has failed.
    #[error("nobody is to be told: {0}")]
    Over(Failure),
    /// The registry is closed.
    #[error("{service} changes no more: the registry is closed")]
    Closed {
        /// The service that is watched.
        service: Name,
    },
    /// There was no change in time. It watches on.
    #[error("{service} did not change within {after:?}")]
    TimedOut {
        /// The service that is watched.
        service: Name,
        /// How long was waited.
        after: Duration,
    },
}

/// Why a wait ended without what it waited for.
///
/// ```
/// use mainstay::{Registry, WaitError};
/// use std::time::Duration;
///
/// let registry = Registry::with_capacity(1)?;
/// let port = registry.register::<u16>("port")?;
/// let waited = registry.wait_ready(port).wait_timeout(Duration::from_millis(1));
/// assert!(matches!(waited, Err(WaitError::TimedOut { .. })));
/// registry.close();
/// assert!(matches!(registry.wait_ready(port).wait(), Err(WaitError::Closed { .. })));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WaitError {
    /// The registry is closed.
    #[error("the wait for {service} is over: the registry is closed")]
    Closed {
        /// The service.
        service: Name,
    },
    /// It took too long.
    #[error("{service} did not change within {after:?}")]
    TimedOut {
        /// The service.
        service: Name,
        /// How long was waited.
        after: Duration,
    },
    /// The id is of another registry.
    #[error(transparent)]
    ForeignId(#[from] ForeignId),
}

/// There is no value to read at this moment.
///
/// ```
/// use mainstay::{GetError, Registry};
///
/// let registry = Registry::with_capacity(1)?;
/// let port = registry.register::<u16>("port")?;
/// let Err(GetError::NotReady(why)) = registry.get(port) else { panic!("nobody provides it") };
/// assert_eq!(why.to_string(), "port is not ready: down in generation 0");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{service} is not ready: {phase} in generation {generation}")]
pub struct NotReady {
    /// The service.
    pub service: Name,
    /// What it was doing when it was looked at. Never `Ready`.
    pub phase: Phase,
    /// The generation that it was in.
    pub generation: u64,
}

/// Why there was nothing to read.
///
/// ```
/// use mainstay::{GetError, Phase, Registry};
///
/// let registry = Registry::with_capacity(1)?;
/// let port = registry.register::<u16>("port")?;
/// match registry.get(port) {
///     Err(GetError::NotReady(why)) => assert_eq!(why.phase, Phase::Down),
///     _ => unreachable!(),
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GetError {
    /// The service has no value now.
    #[error(transparent)]
    NotReady(#[from] NotReady),
    /// The id is of another registry.
    #[error(transparent)]
    ForeignId(#[from] ForeignId),
}

/// Why several services were not read together.
///
/// ```
/// use mainstay::{GetAllError, Registry};
///
/// let registry = Registry::with_capacity(2)?;
/// let (host, port) = (registry.register::<String>("host")?, registry.register::<u16>("port")?);
/// let provider = registry.provide(host)?;
/// let _host = provider.begin().wait()?.ready("localhost".to_string())?;
/// match registry.get_all((host, port)) {
///     Err(GetAllError::NotReady(why)) => assert_eq!(why.service, "port"),
///     _ => unreachable!(),
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GetAllError {
    /// One of the services has no value now.
    #[error(transparent)]
    NotReady(#[from] NotReady),
    /// They changed under every look.
    #[error("{service} or another changed during each of {looks} looks")]
    Contended {
        /// The service that had changed at the last look.
        service: Name,
        /// How often was looked.
        looks: u32,
    },
    /// One of the ids is of another registry.
    #[error(transparent)]
    ForeignId(#[from] ForeignId),
}

/// Why a value was not published. It comes back.
///
/// ```
/// use mainstay::{ReadyError, Registry};
///
/// let registry = Registry::with_capacity(1)?;
/// let port = registry.register::<u16>("port")?;
/// let provider = registry.provide(port)?;
/// let attempt = provider.begin().wait()?;
/// registry.fail(port, "start again")?;
/// match attempt.ready(80) {
///     Err(ReadyError::Overtaken { value, failure }) => {
///         assert_eq!(value, 80);
///         assert_eq!(failure.to_string(), "port failed: start again");
///     }
///     _ => unreachable!(),
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ReadyError<T> {
    /// A failure overtook the attempt: what it was built from is gone.
    #[error("not published: {failure}")]
    Overtaken {
        /// What was built.
        value: T,
        /// What overtook it.
        failure: Failure,
    },
    /// The registry is closed.
    #[error("{service} was not published: the registry is closed")]
    Closed {
        /// What was built.
        value: T,
        /// The service.
        service: Name,
    },
}

impl<T> ReadyError<T> {
    /// What was not published.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<u16>("port")?;
    /// # let provider = registry.provide(port)?;
    /// let attempt = provider.begin().wait()?;
    /// registry.close();
    /// assert_eq!(attempt.ready(80).unwrap_err().into_value(), 80);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn into_value(self) -> T {
        match self {
            Self::Overtaken { value, .. } | Self::Closed { value, .. } => value,
        }
    }
}

// A value need not be printable for its refusal to be.
impl<T> fmt::Debug for ReadyError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReadyError({self})")
    }
}

/// Why a value was not replaced. The new one comes back.
///
/// ```
/// let registry = mainstay::Registry::with_capacity(1)?;
/// let port = registry.register::<u16>("port")?;
/// let provider = registry.provide(port)?;
/// let running = provider.begin().wait()?.ready(80)?;
/// registry.fail(port, "closed")?;
/// let refused = running.replace(81).unwrap_err();
/// assert_eq!(refused.value, 81);
/// assert_eq!(refused.to_string(), "not replaced: port failed: closed");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, thiserror::Error)]
#[error("not replaced: {failure}")]
pub struct ReplaceError<T> {
    /// What was to take the place.
    pub value: T,
    /// What took the running instance down.
    pub failure: Failure,
}

impl<T> fmt::Debug for ReplaceError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReplaceError({self})")
    }
}

/// Somebody still holds an instance of a generation that is over, or it is not over yet.
///
/// ```
/// use std::time::Duration;
///
/// let registry = mainstay::Registry::with_capacity(1)?;
/// let port = registry.register::<u16>("port")?;
/// let provider = registry.provide(port)?;
/// let running = provider.begin().wait()?.ready(80)?;
/// let why = running.drained().wait_timeout(Duration::ZERO).unwrap_err();
/// assert_eq!((&*why.service, why.holders), ("port", 1)); // the registry: it is ready
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[cfg(feature = "supervise")]
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{service} is still held by {holders} after {after:?}")]
pub struct DrainError {
    /// The service.
    pub service: Name,
    /// How many held an instance of it when the time was up.
    pub holders: usize,
    /// How long was waited.
    pub after: Duration,
}
