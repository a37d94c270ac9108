//! Events: the things that happen to a service and are passed to the observer.

use std::{fmt, time::Duration};

use crate::{
    failure::Failure,
    numbers::Generation,
    service::{AnyId, ServiceName},
};

/// Something that happened to one service.
///
/// An [`Observer`](crate::Observer) receives it right after it happened, on the thread that caused
/// it: the [status](crate::Registry::status) shows it already. Events of different threads may
/// arrive in another order than they took place: compare their generations.
///
/// ```
/// use mainstay::{Event, Observer, Registry};
/// use std::sync::mpsc;
///
/// struct Forward(mpsc::Sender<String>);
///
/// impl Observer for Forward {
///     fn event(&self, _: &Registry, event: &Event<'_>) {
///         self.0.send(format!("{} {}: {}", event.service, event.generation, event.kind)).ok();
///     }
/// }
///
/// let (sender, events) = mpsc::channel();
/// let registry = Registry::builder(1)?.observer(Forward(sender)).build();
/// let port = registry.register::<u16>("port")?;
/// let provider = registry.provide(port)?;
/// let _running = provider.begin().wait_blocking()?.ready(80)?;
/// registry.fail(port, "closed")?;
///
/// let events: Vec<String> = events.try_iter().collect();
/// assert_eq!(events[..2], ["port 0: registered", "port 0: attempt started"]);
/// assert_eq!(events[2..], ["port 0: ready", "port 0: failed: closed"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Event<'a> {
    /// The name of the service.
    pub service: &'a ServiceName,
    /// The id of the service.
    pub id: AnyId,
    /// The generation of the service in which it happened.
    pub generation: Generation,
    /// The duration that belongs to the event; each [`EventKind`] says which one it is. It is
    /// measured by the clock of the registry, if the feature `supervise` is on. It is zero if the
    /// registry was not observed when this duration began.
    pub elapsed: Duration,
    /// The kind of the event.
    pub kind: EventKind<'a>,
}

/// The kind of an [`Event`].
///
/// Each kind says what [`Event::elapsed`] is for it. If it says nothing, `elapsed` is zero.
///
/// A service that is stopped, because the registry is shut down or was closed, has failed, too: the
/// [reason](Failure::reason) says so. An observer that reacts to failures ignores these, or it
/// takes down services whose turn to stop has not come.
///
/// ```
/// use mainstay::{Event, EventKind, Failure, Observer, Reason, Registry};
///
/// /// Fails the service `whole` when the service `part` has failed.
/// struct OneForAll;
///
/// impl Observer for OneForAll {
///     fn event(&self, registry: &Registry, event: &Event<'_>) {
///         let (EventKind::Failed(failure), "part") = (&event.kind, &**event.service) else {
///             return;
///         };
///         if !matches!(failure.reason, Reason::ShutDown | Reason::Closed) {
///             let whole = registry.find("whole").expect("it is registered");
///             let _ = registry.fail(whole, Failure::clone(failure));
///         }
///     }
/// }
///
/// let registry = Registry::builder(2)?.observer(OneForAll).build();
/// let (part, whole) = (registry.register::<u8>("part")?, registry.register::<u8>("whole")?);
/// let (provide_part, provide_whole) = (registry.provide(part)?, registry.provide(whole)?);
/// let _part = provide_part.begin().wait_blocking()?.ready(1)?;
/// let _whole = provide_whole.begin().wait_blocking()?.ready(2)?;
/// registry.fail(part, "broken")?;
/// assert!(registry.get(whole).is_err());
///
/// // The orderly end of `part` is no reason to fail `whole`.
/// let part = provide_part.begin().wait_blocking()?.ready(3)?;
/// let _whole = provide_whole.begin().wait_blocking()?.ready(4)?;
/// registry.close();
/// drop(part);
/// assert!(registry.get(whole).is_ok());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum EventKind<'a> {
    /// The service was registered.
    Registered,
    /// An attempt has begun. `elapsed`: the time that the provider waited to begin it.
    AttemptStarted,
    /// A reader or an attempt begins to wait for the service, which is not ready.
    WaitStarted {
        /// The service whose attempt waits; `None` if a reader waits.
        dependent: Option<&'a ServiceName>,
    },
    /// The wait has ended: with an instance, with an error, or because it was dropped. `elapsed`:
    /// the duration of the wait.
    WaitEnded {
        /// The service whose attempt waited; `None` if a reader waited.
        dependent: Option<&'a ServiceName>,
    },
    /// An instance was published. `elapsed`: the duration of the attempt.
    Ready,
    /// The value was replaced by another one of the same generation.
    Replaced,
    /// The instance has failed. `elapsed`: the duration of the cascade that took it down.
    Failed(&'a Failure),
    /// A failure has invalidated the attempt. `elapsed`: the duration of the cascade.
    Invalidated(&'a Failure),
    /// The attempt has ended without a publication, although its generation has not ended.
    /// `elapsed`: the duration of the attempt.
    AttemptFailed(&'a Failure),
    /// The supervisor has given up after this failure: too many failures were counted against the
    /// service. It stays down until it is [reset](crate::Registry::reset).
    GivenUp(&'a Failure),
    /// The registry was closed.
    Closed,
}

impl fmt::Display for EventKind<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wait = |f: &mut fmt::Formatter<'_>, what: &str, by: &Option<&ServiceName>| match by {
            Some(dependent) => write!(f, "{what} by {dependent}"),
            None => f.write_str(what),
        };
        let end = |f: &mut fmt::Formatter<'_>, what: &str, failure: &Failure| {
            if failure.service == failure.root {
                write!(f, "{what}: {}", failure.reason)
            } else {
                write!(f, "{what} because {} failed: {}", failure.root, failure.reason)
            }
        };
        match self {
            Self::Registered => f.write_str("registered"),
            Self::AttemptStarted => f.write_str("attempt started"),
            Self::WaitStarted { dependent } => wait(f, "waited for", dependent),
            Self::WaitEnded { dependent } => wait(f, "no longer waited for", dependent),
            Self::Ready => f.write_str("ready"),
            Self::Replaced => f.write_str("replaced"),
            Self::Failed(failure) => end(f, "failed", failure),
            Self::Invalidated(failure) => end(f, "invalidated", failure),
            Self::AttemptFailed(failure) => end(f, "attempt failed", failure),
            Self::GivenUp(failure) => end(f, "given up", failure),
            Self::Closed => f.write_str("closed"),
        }
    }
}
