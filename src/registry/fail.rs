//! `fail`, which fails a service, and `fail_instance`, which fails one broken instance.

use std::{error::Error, time::Instant};

use crate::{
    error::ForeignIdError,
    event::EventKind,
    failure::{Cascade, FailOutcome, Reason},
    instance::InstanceId,
    numbers::ServiceIndex,
    registry::Registry,
    service::AnyId,
    store::{CascadeResult, Exactly, NotFailed, Phase, Tag, Target},
    sync::Shielded,
};

impl Registry {
    /// Fails a service and all services that depend on it, with a reason that all of them report.
    ///
    /// - If the service is ready, its instance fails.
    /// - If it is starting, its attempt is invalidated: the value of the attempt is never
    ///   published.
    /// - If it is down, nothing happens: none of its instances can be read, and its next attempt
    ///   begins after this call.
    ///
    /// When `fail` has returned, no instance that one of these services had at the time of the call
    /// can be read any more. During the call, other threads may find the dependents down and the
    /// service itself still ready, but never the opposite.
    ///
    /// The call is lock-free over the slots: it visits the service and its transitive dependents
    /// once in each direction. At the end it wakes the waiters, and takes the lock of the wait list
    /// of each slot that has waiters. If an edge was added or removed anywhere in the registry
    /// since the last failure of this service, `fail` first searches the dependents again; it then
    /// takes two to three times as long.
    ///
    /// # Errors
    ///
    /// [`ForeignIdError`]: the id belongs to another registry.
    ///
    /// ```
    /// let registry = mainstay::Registry::with_capacity(1)?;
    /// let port = registry.register::<u16>("port")?;
    /// assert_eq!(registry.fail(port, "nothing there")?.failed, 0);
    ///
    /// let provider = registry.provide(port)?;
    /// let attempt = provider.begin().wait_blocking()?;
    /// assert_eq!(registry.fail(port, "start again")?.invalidated, 1);
    /// let refused = attempt.ready(80).unwrap_err();
    /// assert_eq!(*refused.into_value(), 80);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn fail(
        &self,
        id: impl Into<AnyId>,
        reason: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Result<Cascade, ForeignIdError> {
        let reason = Reason::error(reason);
        let index = self.index(id.into())?;
        let result = self.cascade(index, Target::Any, reason);
        Ok(result.unwrap_or_default())
    }

    /// Fails exactly one instance, which the caller has found broken, and the services that depend
    /// on it.
    ///
    /// If a thousand requests report the same broken client, one of the calls fails it, and none of
    /// them affects the next client. If the instance was [replaced](crate::Running::replace),
    /// nothing happens either: its successor stays ready.
    ///
    /// The guarantees about other threads are those of [`fail`](Self::fail), with one exception:
    /// the call may return [`FailOutcome::AlreadyFailed`] while the cascade of another thread is
    /// still in progress, so that the instance can be read for a moment after the call. Lock-free,
    /// as `fail`.
    ///
    /// # Errors
    ///
    /// [`ForeignIdError`]: the instance belongs to another registry.
    ///
    /// ```
    /// use mainstay::{FailOutcome, Guard, Registry};
    ///
    /// let registry = Registry::with_capacity(1)?;
    /// let client = registry.register::<String>("client")?;
    /// let provider = registry.provide(client)?;
    /// let first = provider.begin().wait_blocking()?.ready("first".to_string())?;
    ///
    /// let broken = registry.get(client)?;
    /// let outcome = registry.fail_instance(Guard::instance(&broken), "reset by peer")?;
    /// assert!(matches!(outcome, FailOutcome::Failed(_)));
    /// drop(first);
    ///
    /// let _second = provider.begin().wait_blocking()?.ready("second".to_string())?;
    /// let outcome = registry.fail_instance(Guard::instance(&broken), "reset by peer")?;
    /// assert_eq!(outcome, FailOutcome::AlreadyFailed);
    /// assert_eq!(*registry.get(client)?, "second");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn fail_instance(
        &self,
        instance: impl Into<InstanceId>,
        reason: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Result<FailOutcome, ForeignIdError> {
        let reason = Reason::error(reason);
        let InstanceId { service, generation, revision } = instance.into();
        let index = self.index(service)?;
        // No instance has this generation yet: the numbers were made up.
        if self.store().slot(index).state.load() == Tag::starting(generation) {
            return Ok(FailOutcome::AlreadyFailed);
        }
        let target = Target::Instance(Exactly { generation, revision });
        Ok(match self.cascade(index, target, reason) {
            Ok(counts) => FailOutcome::Failed(counts),
            Err(NotFailed::AlreadyFailed) => FailOutcome::AlreadyFailed,
            Err(NotFailed::Replaced) => FailOutcome::Replaced,
        })
    }

    /// Runs a cascade, and then reports its failures to the observer. Returns an error if the target
    /// is an instance that is not current.
    pub(crate) fn cascade(
        &self,
        index: ServiceIndex,
        target: Target,
        reason: Shielded<Reason>,
    ) -> Result<Cascade, NotFailed> {
        let observed = self.is_observed();
        let begun = observed.then(Instant::now);
        let CascadeResult { counts, failed_slots } =
            self.store().fail(index, target, reason, observed)?;
        let elapsed = begun.map(|begun| begun.elapsed()).unwrap_or_default();
        for slot in failed_slots {
            let generation = slot.was.generation();
            // Shielded: the observer may fail the service again. Then this is the last owner of the
            // user's reason.
            let failure = Shielded::new(self.store().failure(slot.index, generation));
            let kind = match slot.was.phase() {
                Phase::Ready => EventKind::Failed(&failure),
                _ => EventKind::Invalidated(&failure),
            };
            self.emit(slot.index, generation, elapsed, kind);
        }
        Ok(counts)
    }
}
