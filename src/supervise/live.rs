//! `Live`, the handle of a published instance that a body receives.

use std::{
    error::Error,
    fmt,
    sync::{Arc, Weak},
    time::Duration,
};

use crate::{
    error::{MustAwaitError, RefusedValue, ReplaceError, WaitError},
    failure::{Cascade, Failure, Reason},
    instance::{Instance, Origin},
    numbers::{Generation, ServiceIndex},
    provide::Running,
    registry::{Control, DegradedBy, Registry, WorkEnds},
    service::{ServiceId, ServiceName},
    store::{Store, Target},
    sync::Shielded,
    waiting::{
        Wait,
        sealed::{BlockingCondition, Condition, WaitSlots},
    },
};

/// The handle of the present publication of a service, which its [body] receives.
///
/// It keeps no instance alive, and its drop fails nothing. A body may clone it and give it to other
/// tasks. After the end of the publication it has no effect: after a failure, a planned end, or a
/// reload, which begins the next publication in the same generation.
///
/// [body]: crate::supervise::Supervisor::body
///
/// ```
/// use mainstay::{Registry, supervise::BodyEnd};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let registry = Registry::with_capacity(1)?;
/// let limit = registry.register::<u32>("limit")?;
/// let (edited, mut edits) = tokio::sync::mpsc::channel(1);
/// let supervisor = registry.supervise(limit)?.exclusive_body(async move |live| {
///     loop {
///         tokio::select! {
///             Some(new) = edits.recv() => live.replace(new)?,
///             _ = live.stopping() => return Ok::<_, mainstay::error::ReplaceError<u32>>(()),
///         }
///     }
/// });
/// tokio::spawn(supervisor.run(async |_| 100));
/// registry.wait_ready(limit).await?;
/// edited.send(200).await?;
/// while *registry.get(limit)? != 200 {
///     tokio::task::yield_now().await;
/// }
/// # registry.close();
/// # Ok(())
/// # }
/// ```
pub struct Live<T: Send + Sync + 'static> {
    registry: Registry,
    id: ServiceId<T>,
    generation: Generation,
    /// The revision of the first instance of the publication: 0, unless a reload has begun it.
    first: u64,
    /// The supervisor is the owner.
    running: Weak<Running<T>>,
    control: Arc<Control>,
}

impl<T: Send + Sync + 'static> Clone for Live<T> {
    fn clone(&self) -> Self {
        let Self { registry, id, generation, first, running, control } = self;
        Self {
            registry: registry.clone(),
            id: *id,
            generation: *generation,
            first: *first,
            running: running.clone(),
            control: Arc::clone(control),
        }
    }
}

/// The reason for which a body must end; returned by [`Live::stopping`].
///
/// `Display` writes one short phrase.
///
/// ```
/// use mainstay::supervise::StopReason;
///
/// assert_eq!(StopReason::ShutDown.to_string(), "the registry is shutting down");
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum StopReason {
    /// The instance has failed: the service itself was failed.
    Failed(Failure),
    /// The instance has failed together with a dependency, which is the root of the failure.
    DependencyFailed(Failure),
    /// A service is being [restarted](Registry::restart): this one, or one on which it depends. The
    /// instance can be read until the body has returned.
    Restarted {
        /// The service that is being restarted.
        root: ServiceName,
        /// The reason that the caller has given.
        why: Arc<str>,
    },
    /// A service is being [stopped](Registry::stop): this one, or one on which it depends. The
    /// instance can be read until the body has returned.
    Stopped {
        /// The service that is being stopped.
        root: ServiceName,
    },
    /// A reload has made a new instance of the service current. The body of that one has begun,
    /// unless it is an [exclusive](crate::supervise::Supervisor::exclusive_body) one.
    Reloaded {
        /// The service that was reloaded: this one, or one on which it depends.
        root: ServiceName,
    },
    /// It is the turn of the service in a [shutdown](Registry::shutdown). The instance can be read
    /// until the body has returned.
    ShutDown,
    /// The registry was [closed](Registry::close).
    Closed,
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(failure) | Self::DependencyFailed(failure) => failure.fmt(f),
            Self::Restarted { root, why } => {
                Reason::Restarted { root: root.clone(), why: Arc::clone(why) }.fmt(f)
            }
            Self::Stopped { root } => Reason::Stopped { root: root.clone() }.fmt(f),
            Self::Reloaded { root } => Reason::Reloaded { root: root.clone() }.fmt(f),
            Self::ShutDown => Reason::ShutDown.fmt(f),
            Self::Closed => Reason::Closed.fmt(f),
        }
    }
}

impl StopReason {
    /// The reason of a planned end.
    fn planned(reason: &Reason) -> Self {
        match reason {
            Reason::Restarted { root, why } => {
                Self::Restarted { root: root.clone(), why: Arc::clone(why) }
            }
            Reason::Stopped { root } => Self::Stopped { root: root.clone() },
            Reason::Closed => Self::Closed,
            _ => Self::ShutDown,
        }
    }
}

/// The running handle, and the current instance of a publication.
type Current<T> = (Arc<Running<T>>, Arc<Instance<T>>);

impl<T: Send + Sync + 'static> Live<T> {
    pub(super) fn new(running: &Arc<Running<T>>, first: u64, control: &Arc<Control>) -> Self {
        Self {
            registry: running.registry.clone(),
            id: running.id,
            generation: running.generation,
            first,
            running: Arc::downgrade(running),
            control: Arc::clone(control),
        }
    }

    /// Returns the running handle, and the current instance of the publication. The failure, or the
    /// reload, that has ended the publication, if it is over.
    pub(super) fn running(&self) -> Result<Current<T>, Failure> {
        let (store, index) = (self.registry.store(), self.id.index());
        let running = self.running.upgrade();
        let current = running.and_then(|running| Some((running, self.instance()?)));
        // Not before: a reload may have been switched, and its supervisor has not noticed it.
        let is_over = store.is_publication_over(index, self.generation, self.first);
        current
            .filter(|_| !is_over)
            .ok_or_else(|| store.end_of_publication(index, self.generation, Some(self.first)))
    }

    /// Returns the registry.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Returns the id of the service.
    pub fn id(&self) -> ServiceId<T> {
        self.id
    }

    /// Returns the generation of the publication.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// Returns the current instance (it may have been replaced), or `None` if the publication has
    /// ended.
    ///
    /// The caller should not keep it for longer than one step of its work: it would delay the
    /// draining of the instance. As [`Running::instance`], but in a generation in which the service
    /// was reloaded it takes a lock for a few instructions.
    pub fn instance(&self) -> Option<Arc<Instance<T>>> {
        let instance = self.registry.get_arc(self.id).ok()?;
        let is_of_this = Instance::generation(&instance) == self.generation
            && !self.control.is_over(self.generation, self.first);
        is_of_this.then_some(instance)
    }

    /// Replaces the value without a new generation. The body continues, and dependents stay as they
    /// are. As [`Running::replace`].
    ///
    /// # Errors
    ///
    /// [`ReplaceError`], which returns the new value: the publication has ended.
    pub fn replace(&self, value: T) -> Result<(), ReplaceError<T>> {
        match self.running.upgrade() {
            Some(running) => {
                let result = running.replace_of(Some(self.first), value, self.origin(&running));
                drop(running);
                // The supervisor may wait for this handle.
                self.registry.store().wake(self.id.index());
                result
            }
            // The supervisor has ended the instance.
            None => {
                let (store, value) = (self.registry.store(), RefusedValue::owned(value));
                Err(ReplaceError::ended(store, self.id.index(), self.generation, value))
            }
        }
    }

    /// Fails the instance, and everything that depends on it. The failure is counted against the
    /// service. The body is then told by [`stopping`](Self::stopping), and must end itself.
    ///
    /// Does nothing if the publication has ended. As [`Running::fail`].
    pub fn fail(&self, reason: impl Into<Box<dyn Error + Send + Sync>>) -> Cascade {
        let target = Target::publication(self.generation, self.first);
        let reason = Reason::error(reason);
        self.registry.cascade(self.id.index(), target, reason).unwrap_or_default()
    }

    /// Says that the instance is degraded: it is ready, and works less well than it should.
    ///
    /// The [status](crate::supervise::SupervisorStatus::degraded) shows it, and the event is
    /// [`Degraded`](crate::EventKind::Degraded). Nothing else changes: the instance can be read,
    /// and no failure is counted. It is degraded until [`clear_degraded`](Self::clear_degraded), or
    /// until its generation ends; a replacement keeps it. A second call changes the reason. With
    /// the same reason it does nothing.
    ///
    /// Does nothing if the publication has ended. Blocking: it takes a lock for a few instructions,
    /// and calls the observers after that.
    ///
    /// ```
    /// use mainstay::Registry;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let registry = Registry::with_capacity(1)?;
    /// let cache = registry.register::<u32>("cache")?;
    /// let (sender, connected) = tokio::sync::watch::channel(false);
    /// let supervisor = registry.supervise(cache)?.body(async move |live| {
    ///     let mut connected = connected.clone();
    ///     loop {
    ///         match *connected.borrow_and_update() {
    ///             true => live.clear_degraded(),
    ///             false => live.set_degraded("not connected, old entries are served"),
    ///         }
    ///         tokio::select! {
    ///             _ = connected.changed() => {}
    ///             _ = live.stopping() => return,
    ///         }
    ///     }
    /// });
    /// tokio::spawn(supervisor.run(async |_| 1));
    /// registry.wait_ready(cache).await?;
    /// let degraded = || registry.status(cache).unwrap().supervisor.unwrap().degraded;
    /// while degraded().is_none() {
    ///     tokio::task::yield_now().await;
    /// }
    /// sender.send(true)?;
    /// while degraded().is_some() {
    ///     tokio::task::yield_now().await;
    /// }
    /// # registry.close();
    /// # Ok(())
    /// # }
    /// ```
    pub fn set_degraded(&self, why: impl Into<Arc<str>>) {
        self.change_degraded(DegradedBy::Body, Some(why.into()));
    }

    /// Says that the instance is no longer degraded, after [`set_degraded`](Self::set_degraded).
    ///
    /// The event is [`NotDegraded`](crate::EventKind::NotDegraded). Does nothing if it is not
    /// degraded, or if the publication has ended. Blocking, as `set_degraded`.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let cache = registry.register::<u32>("cache")?;
    /// use mainstay::supervise::BodyEnd;
    ///
    /// let supervisor = registry.supervise(cache)?.body_blocking(|live| {
    ///     live.set_degraded("the entries are being loaded");
    ///     // ...
    ///     live.clear_degraded();
    ///     BodyEnd::StayReady
    /// });
    /// # let _ = supervisor;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn clear_degraded(&self) {
        self.change_degraded(DegradedBy::Body, None);
    }

    pub(super) fn change_degraded(&self, by: DegradedBy, why: Option<Arc<str>>) {
        let &Self { ref registry, id, generation, first, ref control, .. } = self;
        registry.set_degraded(id.index(), control, (generation, first), by, why);
    }

    /// Returns the origin of a replacement. If the publication is over, the replacement is refused,
    /// and its origin does not matter.
    fn origin(&self, running: &Running<T>) -> Origin {
        let present = if self.first > 0 { running.instance() } else { None };
        let present = present.map(Shielded::new);
        let origin = present.as_ref().map(|instance| Instance::origin(instance).clone());
        origin.unwrap_or_else(|| running.origin.clone())
    }

    /// Waits until the body must end, and returns the reason.
    ///
    /// If the instance has failed, it is down already. If it is the turn of the service to stop, in
    /// a restart, a stop or a shutdown, the instance can still be read: it goes down when the body
    /// returns. If a reload has ended the publication, the new instance is current already. In
    /// these cases the body has the
    /// [stop timeout](crate::supervise::RestartPolicy::stop_timeout) to return. If the registry was
    /// closed, the body is polled once more, and then dropped.
    ///
    /// The wait is cancel-safe, and borrows nothing.
    ///
    /// # Errors
    ///
    /// [`WaitError::TimedOut`]: the timeout of the wait expired.
    pub fn stopping(&self) -> Stopping {
        Wait::new(MustStop {
            registry: self.registry.clone(),
            index: self.id.index(),
            generation: self.generation,
            first: self.first,
            control: Arc::clone(&self.control),
        })
    }

    /// Returns the reason for which the body must end, or `None` if it need not.
    ///
    /// After the next instance of the service has ended, too, a handle that is kept returns the
    /// reason of that end.
    pub fn stop_reason(&self) -> Option<StopReason> {
        let publication = (self.generation, self.first);
        reason_to_stop(&self.registry, self.id.index(), publication, &self.control)
    }
}

impl<T: Send + Sync + 'static> fmt::Debug for Live<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Live")
            .field("service", &self.registry.store().name(self.id.index()))
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

/// The wait of [`Live::stopping`].
pub type Stopping = Wait<MustStop>;

/// A body must end.
pub struct MustStop {
    registry: Registry,
    index: ServiceIndex,
    generation: Generation,
    first: u64,
    control: Arc<Control>,
}

/// Returns the reason for which a publication ends, if it does. It is named by its generation and
/// the revision of its first instance.
///
/// Needs nothing of the supervisor, so a body learns of a failure also if the supervisor is not
/// polled. A thread that makes one of these conditions true wakes the slot afterwards.
fn reason_to_stop(
    registry: &Registry,
    index: ServiceIndex,
    (generation, first): (Generation, u64),
    control: &Control,
) -> Option<StopReason> {
    let store = registry.store();
    if store.slot(index).state.load().generation() > generation {
        // A planned end takes the instance down after its body has been notified: the reason stays
        // the same.
        let failure = store.failure(index, generation);
        return Some(match (&failure.reason, failure.root == failure.service) {
            (reason, true) if reason.is_planned() => StopReason::planned(reason),
            (_, true) => StopReason::Failed(failure),
            (_, false) => StopReason::DependencyFailed(failure),
        });
    }
    if registry.is_closed() {
        return Some(StopReason::Closed);
    }
    Some(match control.work_ends(generation, first)? {
        WorkEnds::Planned(end) => StopReason::planned(&end.reason),
        WorkEnds::Reloaded(root) => StopReason::Reloaded { root: store.name(root) },
    })
}

impl Condition for MustStop {
    type Output = Result<StopReason, WaitError>;

    fn check(&mut self) -> Option<Self::Output> {
        let publication = (self.generation, self.first);
        reason_to_stop(&self.registry, self.index, publication, &self.control).map(Ok)
    }

    fn slots(&self) -> WaitSlots {
        WaitSlots::of(self.index)
    }

    fn store(&self) -> &Store {
        self.registry.store()
    }

    fn timed_out(&self, after: Duration) -> Self::Output {
        Err(WaitError::TimedOut { service: self.registry.store().name(self.index), after })
    }
}

impl BlockingCondition for MustStop {
    fn must_await(&self) -> Self::Output {
        Err(MustAwaitError::new(self.registry.store().name(self.index)).into())
    }
}
