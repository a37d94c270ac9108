//! An attempt at a service: its dependencies, and the ways in which it ends.

use std::{
    borrow::Cow,
    error::Error,
    time::{Duration, Instant},
};

use super::{
    debug_by_service,
    dependency::{DependencyId, DependencyWait, WaitFor, WaitForAny},
    running::{GenerationEnded, Invalidated, Running},
    waiting_for::WaitingFor,
    watch::Watch,
};
use crate::{
    error::{DependencyError, ReadyError, RefusedValue},
    event::EventKind,
    failure::{Failure, Reason},
    instance::Origin,
    numbers::{Generation, UnixTime},
    registry::Registry,
    service::{AnyId, ServiceId},
    store::{InstanceTracker, Refused, UsedEdges},
    sync::Shielded,
    waiting::Wait,
};

/// The exclusive right to publish one instance of a service, under one generation.
///
/// [`Provider::begin`](crate::Provider::begin) returns it. It ends with [`ready`](Self::ready),
/// which publishes the instance, with [`fail`](Self::fail), or when it is dropped, also by a panic
/// that unwinds through it.
///
/// A failure of the service, or of a dependency for which the attempt has waited, invalidates the
/// attempt: its value will not be published (a fenced publication).
///
/// ```
/// # let registry = mainstay::Registry::with_capacity(1)?;
/// # let port = registry.register::<u16>("port")?;
/// # let provider = registry.provide(port)?;
/// let attempt = provider.begin().wait_blocking()?;
/// let number: Result<u16, _> = "eighty".parse();
/// match number {
///     Ok(number) => drop(attempt.ready(number)?),
///     Err(error) => attempt.fail(error)?,
/// }
/// let failure = registry.status(port)?.last_failure.unwrap();
/// assert_eq!(failure.reason.to_string(), "invalid digit found in string");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Attempt<T: Send + Sync + 'static> {
    pub(crate) registry: Registry,
    pub(crate) id: ServiceId<T>,
    pub(crate) generation: Generation,
    /// The time at which it began, if an observer needs the duration.
    started_at: Option<Instant>,
    pub(crate) edges: UsedEdges,
    /// It was published, or has failed.
    ended: bool,
}

impl<T: Send + Sync + 'static> Attempt<T> {
    /// The handle of an attempt that has just begun in the slot.
    pub(super) fn new(registry: &Registry, id: ServiceId<T>, generation: Generation) -> Self {
        let started_at = registry.now_if_observed();
        let (registry, edges) = (registry.clone(), UsedEdges::default());
        Self { registry, id, generation, started_at, edges, ended: false }
    }

    /// Returns the generation under which the attempt publishes: the number of failures of the
    /// service when it began.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<u16>("port")?;
    /// # let provider = registry.provide(port)?;
    /// assert_eq!(provider.begin().wait_blocking()?.generation(), 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// Waits until a service is ready, makes it a hard dependency, and returns its instance.
    ///
    /// If the returned instance fails, this attempt is invalidated, or the instance that it has
    /// published fails.
    ///
    /// An edge that was not declared is discovered by this wait. It is removed when a later attempt
    /// that did not wait for the dependency is published.
    ///
    /// Blocking: it locks the topology for a short time, and waits for a cascade that has condemned
    /// the dependency. The wait is cancel-safe; a discovered edge remains until the next
    /// publication.
    ///
    /// # Errors
    ///
    /// [`WaitForError`](crate::error::WaitForError):
    ///
    /// - `Invalidated`: a failure has invalidated the attempt. Begin a new attempt.
    /// - `Cycle`: the dependency depends on this service. Do not retry: a new attempt would get the
    ///   same error.
    /// - `Closed`: the registry is closed.
    /// - `Stopped`: a shutdown stops the dependency, or has stopped it.
    /// - `TimedOut`: the timeout expired.
    /// - `ForeignId`: the id belongs to another registry. Do not retry.
    ///
    /// ```
    /// use mainstay::{Registry, error::WaitForError};
    ///
    /// let registry = Registry::with_capacity(2)?;
    /// let (a, b) = (registry.register::<u8>("a")?, registry.register::<u8>("b")?);
    /// let (provide_a, provide_b) = (registry.provide(a)?, registry.provide(b)?);
    ///
    /// let _a = provide_a.begin().wait_blocking()?.ready(1)?;
    /// let attempt = provide_b.begin().wait_blocking()?;
    /// assert_eq!(**attempt.wait_for(a).wait_blocking()?, 1);
    ///
    /// // If `a` waited for `b`, neither of them would ever be ready.
    /// registry.fail(a, "again")?;
    /// let attempt = provide_a.begin().wait_blocking()?;
    /// # registry.depends(b).on(a)?;
    /// match attempt.wait_for(b).wait_blocking() {
    ///     Err(WaitForError::Cycle(cycle)) => assert_eq!(cycle.path, ["a", "b", "a"]),
    ///     _ => unreachable!(),
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn wait_for<D: Send + Sync + 'static>(&self, dependency: ServiceId<D>) -> WaitFor<'_, D> {
        self.wait(dependency, false)
    }

    /// Waits until a service is ready, makes it a start-only dependency, and returns its instance.
    ///
    /// The dependency is needed only to build this service: if it fails, the attempt is
    /// invalidated, but an instance that was published is not affected.
    ///
    /// The publication of the attempt removes the edge, which locks the topology for a short time.
    /// A failure between the publication and the removal may still take the new instance down. If
    /// the attempt also [waits](Self::wait_for) for the same service, or if a hard edge is
    /// declared, the edge is hard. A start-only edge that is
    /// [declared](crate::Depends::to_start_on) stays.
    ///
    /// Progress and cancel safety are those of [`wait_for`](Self::wait_for).
    ///
    /// # Errors
    ///
    /// As [`wait_for`](Self::wait_for).
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(2)?;
    /// # let secrets = registry.register::<String>("secrets")?;
    /// # let client = registry.register::<usize>("client")?;
    /// # let provide_secrets = registry.provide(secrets)?;
    /// # let provide_client = registry.provide(client)?;
    /// let vault = provide_secrets.begin().wait_blocking()?.ready("hunter2".to_string())?;
    ///
    /// let attempt = provide_client.begin().wait_blocking()?;
    /// let password = attempt.wait_to_start(secrets).wait_blocking()?;
    /// let _connected = attempt.ready(password.len())?;
    ///
    /// vault.fail("sealed");
    /// assert!(registry.get(client).is_ok());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn wait_to_start<D: Send + Sync + 'static>(
        &self,
        dependency: ServiceId<D>,
    ) -> WaitFor<'_, D> {
        self.wait(dependency, true)
    }

    /// Waits until a service of any type is ready, makes it a hard dependency, and returns what
    /// identifies its instance.
    ///
    /// For an attempt that finds its dependencies by their names, for example in a configuration,
    /// and does not need their values. Everything else is as for [`wait_for`](Self::wait_for): the
    /// edge, the invalidation, the progress, the cancel safety, and
    /// [`Instance::built_from`](crate::Instance::built_from). The returned
    /// [revision](crate::InstanceId::revision) is never `None`.
    ///
    /// # Errors
    ///
    /// As [`wait_for`](Self::wait_for).
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(2)?;
    /// # let config = registry.register::<String>("config")?;
    /// # let server = registry.register::<u16>("server")?;
    /// # let provide_config = registry.provide(config)?;
    /// # let provide_server = registry.provide(server)?;
    /// let running = provide_config.begin().wait_blocking()?.ready("port = 80".to_string())?;
    ///
    /// let attempt = provide_server.begin().wait_blocking()?;
    /// for name in ["config"] {
    ///     let instance = attempt.wait_for_any(registry.find(name)?).wait_blocking()?;
    ///     assert_eq!((instance.generation.get(), instance.revision), (0, Some(0)));
    /// }
    /// let _server = attempt.ready(80)?;
    /// running.fail("edited");
    /// assert!(registry.get(server).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn wait_for_any(&self, dependency: impl Into<AnyId>) -> WaitForAny<'_> {
        self.wait(dependency.into(), false)
    }

    /// Waits until a service of any type is ready, makes it a start-only dependency, and returns
    /// what identifies its instance.
    ///
    /// As [`wait_to_start`](Self::wait_to_start), by an untyped id.
    ///
    /// # Errors
    ///
    /// As [`wait_for`](Self::wait_for).
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(2)?;
    /// # let secrets = registry.register::<String>("secrets")?;
    /// # let client = registry.register::<usize>("client")?;
    /// # let provide_secrets = registry.provide(secrets)?;
    /// # let provide_client = registry.provide(client)?;
    /// let vault = provide_secrets.begin().wait_blocking()?.ready("hunter2".to_string())?;
    ///
    /// let attempt = provide_client.begin().wait_blocking()?;
    /// attempt.wait_to_start_any(registry.find("secrets")?).wait_blocking()?;
    /// let _connected = attempt.ready(7)?;
    ///
    /// vault.fail("sealed");
    /// assert!(registry.get(client).is_ok());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn wait_to_start_any(&self, dependency: impl Into<AnyId>) -> WaitForAny<'_> {
        self.wait(dependency.into(), true)
    }

    fn wait<I: DependencyId>(&self, id: I, start_only: bool) -> Wait<DependencyWait<'_, I>> {
        let attempt = (self.id.index(), self.generation);
        Wait::new(DependencyWait::new(&self.registry, attempt, &self.edges, id, start_only))
    }

    /// Shows in the status of the service what the attempt waits for, until the returned handle is
    /// dropped or the attempt ends ([`ServiceStatus::waiting_for`]).
    ///
    /// For waits that the registry does not know, for example for a lock or for another program. A
    /// wait for a dependency is shown without it.
    ///
    /// Blocking: it takes a lock for a short time.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<u16>("port")?;
    /// # let provider = registry.provide(port)?;
    /// let attempt = provider.begin().wait_blocking()?;
    /// {
    ///     let _waiting = attempt.waiting_for("the lease of the address");
    ///     // ... wait ...
    ///     assert!(registry.status(port)?.waiting_for.is_some());
    /// }
    /// assert!(registry.status(port)?.waiting_for.is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// [`ServiceStatus::waiting_for`]: crate::ServiceStatus::waiting_for
    pub fn waiting_for(&self, what: impl Into<Cow<'static, str>>) -> WaitingFor<'_> {
        WaitingFor::new(&self.registry, self.id.index(), self.generation, what.into())
    }

    /// Makes a service a soft dependency, and returns a [`Watch`] that reports its failures, its
    /// replacements and its new instances. It does not wait for the service.
    ///
    /// A failure of the dependency fails nothing. The watch reports until this generation ends; it
    /// can be moved into the value, or into a task next to it. The edge is discovered, as by
    /// [`wait_for`](Self::wait_for). It counts for cycles, and for the order in which a shutdown
    /// stops services. If the attempt is already invalidated, no edge is added, and the first wait
    /// of the watch returns
    /// [`WatchError::DependentFailed`](crate::error::WatchError::DependentFailed).
    ///
    /// Blocking: it locks the topology for a short time.
    ///
    /// # Errors
    ///
    /// - [`DependencyError::Cycle`]: the edge would close a cycle.
    /// - [`DependencyError::ForeignId`]: the id belongs to another registry.
    ///
    /// ```
    /// use mainstay::WatchEvent;
    ///
    /// # let registry = mainstay::Registry::with_capacity(2)?;
    /// # let cache = registry.register::<u8>("cache")?;
    /// # let pages = registry.register::<&str>("pages")?;
    /// # let provide_cache = registry.provide(cache)?;
    /// # let provide_pages = registry.provide(pages)?;
    /// let attempt = provide_pages.begin().wait_blocking()?;
    /// let mut cache = attempt.watch(cache)?;
    /// let _pages = attempt.ready("slow without a cache")?;
    ///
    /// let running = provide_cache.begin().wait_blocking()?.ready(1)?;
    /// assert!(matches!(cache.changed().wait_blocking()?, WatchEvent::Ready(_)));
    /// running.fail("out of memory");
    /// assert!(matches!(cache.changed().wait_blocking()?, WatchEvent::Failed(_)));
    /// assert!(registry.get(pages).is_ok());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn watch<D: Send + Sync + 'static>(
        &self,
        dependency: ServiceId<D>,
    ) -> Result<Watch<D>, DependencyError> {
        let (index, generation) = (self.id.index(), self.generation);
        Watch::of_attempt(&self.registry, dependency, index, generation, &self.edges)
    }

    /// Returns whether a failure has invalidated the attempt. A long build can check this from time
    /// to time, and stop.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<u16>("port")?;
    /// # let provider = registry.provide(port)?;
    /// let attempt = provider.begin().wait_blocking()?;
    /// for _step in 0..3 {
    ///     if attempt.is_invalidated() {
    ///         return Ok(()); // begin a new attempt
    ///     }
    ///     // one step of a long build
    /// }
    /// attempt.ready(80)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn is_invalidated(&self) -> bool {
        !self.registry.store().is_starting(self.id.index(), self.generation)
    }

    /// Waits until a failure invalidates the attempt, and returns the failure: to cancel a build,
    /// for example with `select!`. The wait is cancel-safe, and borrows nothing.
    ///
    /// # Errors
    ///
    /// - [`WaitError::Closed`](crate::error::WaitError::Closed): the registry is closed.
    /// - [`WaitError::Stopped`](crate::error::WaitError::Stopped): a shutdown has stopped the
    ///   service. Its failure is returned first.
    /// - [`WaitError::TimedOut`](crate::error::WaitError::TimedOut): the timeout expired.
    ///
    /// ```
    /// let registry = mainstay::Registry::with_capacity(1)?;
    /// let port = registry.register::<u16>("port")?;
    /// let provider = registry.provide(port)?;
    /// let attempt = provider.begin().wait_blocking()?;
    /// assert!(!attempt.is_invalidated());
    /// registry.fail(port, "start again")?;
    /// assert!(attempt.is_invalidated());
    /// assert_eq!(attempt.invalidated().wait_blocking()?.reason.to_string(), "start again");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn invalidated(&self) -> Invalidated {
        GenerationEnded::wait(&self.registry, self.id.index(), self.generation)
    }

    /// Publishes the value as the current instance of the service, and wakes its waiters.
    ///
    /// Each read that begins after this call returns the instance, until it fails or is replaced.
    ///
    /// Lock-free if the attempt has used all discovered edges of the service. If not, it locks the
    /// topology after the publication, to remove the unused edges. It drops the value of the
    /// previous instance if it is the last holder; the panic hook reports a panic in this `Drop`.
    ///
    /// # Errors
    ///
    /// [`ReadyError`], which returns the value. No reader has seen it.
    ///
    /// - [`ReadyError::Invalidated`]: a failure has invalidated the attempt. If this happens during
    ///   the call, the call first waits for readers that hold a reference while they compare its
    ///   tag.
    /// - [`ReadyError::Closed`]: the registry is closed.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<u16>("port")?;
    /// # let provider = registry.provide(port)?;
    /// let running = provider.begin().wait_blocking()?.ready(80)?;
    /// assert_eq!(*registry.get(port)?, 80);
    /// # drop(running);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn ready(mut self, value: T) -> Result<Running<T>, ReadyError<T>> {
        self.publish_once(value)
    }

    /// As `ready`, once. The attempt keeps its edges.
    pub(crate) fn publish_once(&mut self, value: T) -> Result<Running<T>, ReadyError<T>> {
        let tracker = self.registry.tracker(self.id.index());
        self.publish(value, tracker)
    }

    /// As `ready`. The tracker records the instances of this generation. The attempt keeps its
    /// edges.
    pub(super) fn publish(
        &mut self,
        value: T,
        tracker: InstanceTracker<T>,
    ) -> Result<Running<T>, ReadyError<T>> {
        let store = self.registry.store();
        let index = self.id.index();
        if store.is_closed() {
            let value = RefusedValue::owned(value);
            return Err(ReadyError::Closed { value, service: store.name(index) });
        }
        let Self { id, generation, edges, .. } = &*self;
        let built_from = edges.built_from(store);
        let origin = Origin { built_from, published_at: UnixTime::now() };
        match store.publish(*id, *generation, value, origin.clone(), edges, &tracker) {
            Ok(()) => {
                self.ended = true;
                let elapsed = self.elapsed();
                self.registry.emit(index, self.generation, elapsed, EventKind::Ready);
                let registry = self.registry.clone();
                let &mut Self { id, generation, .. } = self;
                Ok(Running { registry, id, generation, origin, tracker })
            }
            Err(Refused(value)) => {
                let failure = store.failure(index, self.generation);
                Err(ReadyError::Invalidated { value, failure })
            }
        }
    }

    /// Ends the attempt without a publication, with a reason.
    ///
    /// The reason is the [`last_failure`](crate::ServiceStatus::last_failure) of the service until
    /// its next failure. The generation does not change, and the waiters of the service continue to
    /// wait.
    ///
    /// Lock-free if the attempt has discovered no edges; else it locks the topology for a short
    /// time.
    ///
    /// # Errors
    ///
    /// The [`Failure`] that has invalidated the attempt; the reason is dropped. Begin a new
    /// attempt: if the reason still applies, fail that one.
    ///
    /// ```
    /// let registry = mainstay::Registry::with_capacity(1)?;
    /// let port = registry.register::<u16>("port")?;
    /// let provider = registry.provide(port)?;
    /// provider.begin().wait_blocking()?.fail("no such address")?;
    /// let failure = registry.status(port)?.last_failure.unwrap();
    /// assert_eq!(failure.reason.to_string(), "no such address");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn fail(mut self, reason: impl Into<Box<dyn Error + Send + Sync>>) -> Result<(), Failure> {
        self.end(Reason::error(reason))
    }

    fn elapsed(&self) -> Duration {
        self.registry.elapsed_since(self.started_at)
    }

    /// Ends the attempt without a publication. Does nothing if it has already ended.
    pub(crate) fn end(&mut self, reason: Shielded<Reason>) -> Result<(), Failure> {
        if self.ended {
            return Ok(());
        }
        self.ended = true;
        let (store, index) = (self.registry.store(), self.id.index());
        store.end_waits(index, self.generation);
        let Some(number) = store.fail_attempt(index, self.generation, reason, &self.edges) else {
            return Err(store.failure(index, self.generation));
        };
        // The observer may fail the service, which makes `failure` the last owner of the reason.
        if let Some(failure) = store.last_failure(index).map(Shielded::new) {
            let kind = match failure.is_planned() {
                true => EventKind::Stopped(&failure),
                false => EventKind::AttemptFailed(&failure),
            };
            let elapsed = self.elapsed();
            self.registry.emit_numbered(index, self.generation, number, elapsed, kind);
        }
        Ok(())
    }
}

impl<T: Send + Sync + 'static> Drop for Attempt<T> {
    fn drop(&mut self) {
        let reason = Reason::dropped(self.registry.is_closed(), Reason::AttemptDropped);
        let _ = self.end(reason);
    }
}

debug_by_service! {
    Attempt, generation;
}
