//! Events: the things that happen to a service and are passed to the observer.

use std::{fmt, time::Duration};

#[cfg(feature = "supervise")]
use crate::error::{ReloadError, chain};
use crate::{
    failure::{Failure, Reason},
    numbers::Generation,
    service::{AnyId, ServiceName},
    texts::{Failures, Rounded},
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
/// # Planned ends
///
/// A service that ends as it was asked to, in a restart, a stop or a shutdown, or after a close,
/// has not failed: its event is [`Stopped`](Self::Stopped), and never `Failed`, `Invalidated` or
/// `AttemptFailed`. So an observer that reacts to failures does not disturb the order of a planned
/// end.
///
/// ```
/// use mainstay::{Event, EventKind, Failure, Observer, Registry};
///
/// /// Fails the service `whole` when the service `part` has failed.
/// struct OneForAll;
///
/// impl Observer for OneForAll {
///     fn event(&self, registry: &Registry, event: &Event<'_>) {
///         if let (EventKind::Failed(failure), "part") = (&event.kind, &**event.service) {
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
    /// An instance was built and published. `elapsed`: the duration of the attempt.
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
    /// The instance or the attempt has ended as planned: its reason
    /// [is planned](Failure::is_planned). `elapsed`: the duration of the cascade, or of the attempt
    /// that ended without one.
    Stopped(&'a Failure),
    /// The supervisor backs off before the next build.
    BackingOff {
        /// The remaining time until the next build. `None` if it is beyond the range of
        /// [`Instant`](std::time::Instant).
        delay: Option<Duration>,
        /// The number of failures that are counted against the service.
        failures: u32,
    },
    /// The last build failed because another service was not available. The supervisor waits for a
    /// change of that service.
    Waiting {
        /// The service that was not available.
        dependency: &'a ServiceName,
    },
    /// The supervisor does not build the service again after this failure, which was caused by a
    /// permanent error, until something changes from which the service was built, or until it is
    /// [restarted](crate::Registry::restart).
    Permanent(&'a Failure),
    /// The supervisor has given up after this failure: too many failures were counted against the
    /// service. It stays down until something changes from which it was built, unless the policy
    /// says otherwise, or until it is [restarted](crate::Registry::restart). If its
    /// [group](crate::Registry::group) has given up, this is the failure of the member that was one
    /// too many, and only a restart ends it.
    GivenUp(&'a Failure),
    /// The work of the service is done. It stays ready.
    Completed,
    /// The instance is ready, and is degraded from now on, or for another reason than before
    /// (`Live::set_degraded`, `Supervisor::probe_ready`). It is no longer degraded after
    /// [`NotDegraded`](Self::NotDegraded), and after the end of its generation, which has an event
    /// of its own.
    Degraded {
        /// Why it is degraded. If there are several reasons, all of them, separated by `; `.
        why: &'a str,
    },
    /// The instance is no longer degraded, and is still ready.
    NotDegraded,
    /// A [reload](crate::Registry::reload) of the service was refused, and nothing has changed. If
    /// the service is ready, it is stale from now on.
    #[cfg(feature = "supervise")]
    ReloadRefused(&'a ReloadError),
    /// The service is at its end: its body, if it has one, was notified.
    Stopping,
    /// The build waits until the number of builds is below a
    /// [limit](crate::Registry::limit_builds).
    Queued,
    /// A blocking body has not returned within its stop timeout. The service is not built again
    /// before it has.
    BodyLate,
    /// The supervisor waits until the readers have dropped the instances of the generation.
    Draining {
        /// The number of references to them.
        holders: usize,
    },
    /// The supervisor calls the close hook.
    Closing,
    /// The body has returned an error, or panicked, after it was notified: this is no failure of
    /// the service.
    BodyFailed(&'a Reason),
    /// A close hook has returned an error, panicked, or exceeded its timeout.
    HookFailed(&'a Reason),
    /// The service has ended at its turn in a restart, a stop or a shutdown. The report says how
    /// long it took.
    StopEnded,
    /// The service has not ended within its limit at its turn in a restart, a stop or a shutdown,
    /// which continues without it.
    StopTimedOut,
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
            if failure.service == failure.root || failure.is_planned() {
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
            Self::Stopped(failure) => end(f, "stopped", failure),
            Self::BackingOff { delay, failures } => {
                match delay {
                    Some(delay) => write!(f, "backing off for {}", Rounded(*delay))?,
                    None => f.write_str("backing off without end")?,
                }
                match failures {
                    // A debounce delay.
                    0 => Ok(()),
                    failures => write!(f, " after {}", Failures(*failures)),
                }
            }
            Self::Waiting { dependency } => write!(f, "waiting for {dependency}"),
            Self::Permanent(failure) => end(f, "failed permanently", failure),
            Self::GivenUp(failure) => end(f, "given up", failure),
            Self::Completed => f.write_str("completed"),
            Self::Degraded { why } => write!(f, "degraded: {why}"),
            Self::NotDegraded => f.write_str("no longer degraded"),
            #[cfg(feature = "supervise")]
            Self::ReloadRefused(error) => write!(f, "reload refused: {}", chain(*error)),
            Self::Stopping => f.write_str("stopping"),
            Self::Queued => f.write_str("queued for its build"),
            Self::BodyLate => f.write_str("its body has not returned in time"),
            Self::Draining { holders } => write!(f, "draining (holders: {holders})"),
            Self::Closing => f.write_str("closing"),
            Self::BodyFailed(reason) => write!(f, "its body failed: {reason}"),
            Self::HookFailed(reason) => write!(f, "its close hook failed: {reason}"),
            Self::StopEnded => f.write_str("its stop has ended"),
            Self::StopTimedOut => f.write_str("not stopped in time"),
            Self::Closed => f.write_str("closed"),
        }
    }
}
