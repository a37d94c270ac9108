//! What happens to a service.

use std::{fmt, time::Duration};

use crate::{
    failure::Failure,
    service::{AnyId, Name},
};

/// Something that happened to one service.
///
/// Events of different threads may arrive in another order than they took place: go by the generation.
///
/// ```
/// use mainstay::{Event, Observer, Registry};
/// use std::sync::mpsc;
///
/// struct Tell(mpsc::Sender<String>);
///
/// impl Observer for Tell {
///     fn event(&self, _: &Registry, event: &Event<'_>) {
///         self.0.send(format!("{} {}: {}", event.service, event.generation, event.kind)).ok();
///     }
/// }
///
/// let (sender, told) = mpsc::channel();
/// let registry = Registry::builder(1)?.observer(Tell(sender)).build();
/// let port = registry.register::<u16>("port")?;
/// let provider = registry.provide(port)?;
/// let _running = provider.begin().wait()?.ready(80)?;
/// registry.fail(port, "closed")?;
///
/// let told: Vec<String> = told.try_iter().collect();
/// assert_eq!(told, ["port 0: registered", "port 0: begun", "port 0: ready", "port 0: failed: closed"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Event<'a> {
    /// The service's name.
    pub service: &'a Name,
    /// The service.
    pub id: AnyId,
    /// The generation of the service that this happened to.
    pub generation: u64,
    /// How long it took; what that is stands with each [`EventKind`].
    pub took: Duration,
    /// What happened.
    pub kind: EventKind<'a>,
}

/// What happened to a service, and what [`Event::took`] means for it: zero where nothing is said.
///
/// ```
/// use mainstay::{Event, EventKind, Observer, Registry};
///
/// /// Fails the whole when a part of it has failed.
/// struct OneForAll;
///
/// impl Observer for OneForAll {
///     fn event(&self, registry: &Registry, event: &Event<'_>) {
///         if let (EventKind::Failed(failure), "part") = (&event.kind, &**event.service) {
///             let whole = registry.find("whole").expect("it is registered");
///             let _ = registry.fail(whole, failure.to_string());
///         }
///     }
/// }
///
/// let registry = Registry::builder(2)?.observer(OneForAll).build();
/// let (part, whole) = (registry.register::<u8>("part")?, registry.register::<u8>("whole")?);
/// let (p, q) = (registry.provide(part)?, registry.provide(whole)?);
/// let (_part, _whole) = (p.begin().wait()?.ready(1)?, q.begin().wait()?.ready(2)?);
/// registry.fail(part, "broken")?;
/// assert!(registry.get(whole).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum EventKind<'a> {
    /// It was registered.
    Registered,
    /// An attempt has begun. Took: the wait for it.
    Begun,
    /// Somebody begins to wait for it to be ready, as it is not.
    WaitBegun {
        /// The service whose attempt waits; `None` for a reader.
        by: Option<&'a Name>,
    },
    /// That wait is over, in whatever way. Took: the wait.
    WaitEnded {
        /// The service whose attempt waited.
        by: Option<&'a Name>,
    },
    /// An instance was published. Took: the attempt.
    Ready,
    /// The instance was replaced by another of its generation.
    Replaced,
    /// The instance went down. Took: the cascade that did it.
    Failed(&'a Failure),
    /// The attempt was overtaken by a failure. Took: the cascade that did it.
    Overtaken(&'a Failure),
    /// The attempt was given up. Took: the attempt.
    GivenUp(&'a Failure),
    /// A supervised service failed too often, this time by this: it stays down until it is reset.
    Broken(&'a Failure),
    /// The registry was closed.
    Closed,
}

impl fmt::Display for EventKind<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wait = |f: &mut fmt::Formatter<'_>, what: &str, by: &Option<&Name>| match by {
            Some(name) => write!(f, "{what} by {name}"),
            None => f.write_str(what),
        };
        let end = |f: &mut fmt::Formatter<'_>, what: &str, failure: &Failure| {
            if failure.service == failure.root {
                write!(f, "{what}: {}", failure.reason)
            } else {
                write!(f, "{what} with {}: {}", failure.root, failure.reason)
            }
        };
        match self {
            Self::Registered => f.write_str("registered"),
            Self::Begun => f.write_str("begun"),
            Self::WaitBegun { by } => wait(f, "waited for", by),
            Self::WaitEnded { by } => wait(f, "no longer waited for", by),
            Self::Ready => f.write_str("ready"),
            Self::Replaced => f.write_str("replaced"),
            Self::Failed(failure) => end(f, "failed", failure),
            Self::Overtaken(failure) => end(f, "overtaken", failure),
            Self::GivenUp(failure) => end(f, "given up", failure),
            Self::Broken(failure) => end(f, "broken", failure),
            Self::Closed => f.write_str("closed"),
        }
    }
}
