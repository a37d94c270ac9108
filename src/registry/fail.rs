//! `fail` and `fail_all`, which fail services, and `fail_instance`, which fails one instance.

use std::{
    collections::{BTreeSet, HashMap},
    error::Error,
    time::Instant,
};

use crate::{
    error::ForeignIdError,
    event::EventKind,
    failure::{Cascade, FailAllOutcome, FailOutcome, Reason, RootOutcome},
    instance::InstanceId,
    numbers::ServiceIndex,
    registry::Registry,
    service::AnyId,
    store::{CascadeResult, Exactly, FailedSlot, NotFailed, Phase, Tag, Target},
    sync::Shielded,
};

impl Registry {
    /// Fails a service and all services that depend on it, with a reason that all of them report.
    ///
    /// One rule holds for the service and for all its transitive dependents over hard edges, and
    /// over start-only edges of attempts that are in progress:
    ///
    /// - If it is ready, its instance fails.
    /// - If it is starting, its attempt is invalidated: the value of the attempt is never
    ///   published.
    /// - If it is down, it is left alone: it keeps its generation and its last failure. Its
    ///   dependents are failed nevertheless.
    ///
    /// When `fail` has returned, no instance that one of these services had at the time of the call
    /// can be read any more. During the call, other threads may find the dependents down and the
    /// service itself still ready, but never the opposite.
    ///
    /// The call is lock-free over the slots: it visits the service and its transitive dependents
    /// once in each direction. It locks the history of the service while it stores the reason. At
    /// the end it wakes the waiters, and takes the lock of the wait list of each slot that has
    /// waiters; a waker that blocks delays all wakers after it. If an edge was added or removed
    /// anywhere in the registry since the last failure of this service, `fail` first searches the
    /// dependents again; it then takes two to three times as long.
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

    /// Fails several services, and all services that depend on one of them, as one cascade with one
    /// reason.
    ///
    /// In contrast to several calls of [`fail`](Self::fail), each service fails once, and no
    /// dependent is rebuilt between the failures of two of its dependencies. A dependent reports
    /// one of the services on which it depends as the root of its failure.
    ///
    /// Its effect on each service, its progress, and its guarantees about other threads are those
    /// of [`fail`](Self::fail). It searches the dependents at each call.
    ///
    /// `ids` is any iterator of ids, or a [`ServiceSet`](crate::ServiceSet) by reference.
    ///
    /// # Errors
    ///
    /// [`ForeignIdError`]: one of the ids belongs to another registry. Then no service has failed.
    ///
    /// ```
    /// use mainstay::RootOutcome;
    ///
    /// # let registry = mainstay::Registry::with_capacity(3)?;
    /// # let (config, key) = (registry.register::<u8>("config")?, registry.register::<u8>("key")?);
    /// # let server = registry.register::<u8>("server")?;
    /// # let (provide_config, provide_key) = (registry.provide(config)?, registry.provide(key)?);
    /// # let provide_server = registry.provide(server)?;
    /// registry.depends(server).on(config)?.on(key)?;
    /// let _config = provide_config.begin().wait_blocking()?.ready(1)?;
    /// let _server = provide_server.begin().wait_blocking()?.ready(2)?;
    ///
    /// let outcome = registry.fail_all([config, key], "rotated")?;
    /// assert_eq!(outcome.cascade.failed, 2);
    /// assert_eq!(outcome.roots, [RootOutcome::Failed, RootOutcome::Down]);
    /// assert!(registry.get(server).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn fail_all(
        &self,
        ids: impl IntoIterator<Item = impl Into<AnyId>>,
        reason: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Result<FailAllOutcome, ForeignIdError> {
        let reason = Reason::error(reason);
        let ids = ids.into_iter().map(|id| self.index(id.into()));
        let ids = ids.collect::<Result<Vec<ServiceIndex>, _>>()?;
        let begun = self.now_if_observed();
        let result = self.store().fail_all(&ids.iter().copied().collect(), &reason);
        let was: HashMap<ServiceIndex, Phase> =
            result.failed_slots.iter().map(|slot| (slot.index, slot.was.phase())).collect();
        let roots = ids.iter().map(|id| match was.get(id) {
            Some(Phase::Ready) => RootOutcome::Failed,
            Some(Phase::Starting) => RootOutcome::Invalidated,
            Some(Phase::Down) | None => RootOutcome::Down,
        });
        let roots = roots.collect();
        Ok(FailAllOutcome { cascade: self.report(result, begun), roots })
    }

    /// Fails exactly one instance, which the caller has found broken, and the services that depend
    /// on it.
    ///
    /// The instance is given by itself, by a guard, or by its [`InstanceId`]. If a thousand
    /// requests report the same broken client, one of the calls fails it, and none of them affects
    /// the next client. The call and [`replace`](crate::Running::replace) exclude each other: if
    /// the instance was replaced, nothing happens, and its successor stays ready; if it fails, its
    /// replacement is refused.
    ///
    /// The guarantees about other threads are those of [`fail`](Self::fail), with one exception:
    /// the call may return [`FailOutcome::AlreadyFailed`] while the cascade of another thread is
    /// still in progress, so that the instance can be read for a moment after the call. Its
    /// progress is that of `fail`.
    ///
    /// # Errors
    ///
    /// [`ForeignIdError`]: the instance belongs to another registry.
    ///
    /// ```
    /// use mainstay::{FailOutcome, Registry};
    ///
    /// let registry = Registry::with_capacity(1)?;
    /// let client = registry.register::<String>("client")?;
    /// let provider = registry.provide(client)?;
    /// let first = provider.begin().wait_blocking()?.ready("first".to_string())?;
    ///
    /// let broken = registry.get(client)?;
    /// let outcome = registry.fail_instance(&broken, "reset by peer")?;
    /// assert!(matches!(outcome, FailOutcome::Failed(_)));
    /// drop(first);
    ///
    /// let _second = provider.begin().wait_blocking()?.ready("second".to_string())?;
    /// let outcome = registry.fail_instance(&broken, "reset by peer")?;
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
        let target = Target::Instance(Exactly { generation, revision, publication: None });
        Ok(match self.cascade(index, target, reason) {
            Ok(counts) => FailOutcome::Failed(counts),
            Err(NotFailed::AlreadyFailed) => FailOutcome::AlreadyFailed,
            Err(NotFailed::Replaced) => FailOutcome::Replaced,
        })
    }

    /// Runs a cascade, and then reports its failures to the observers. Returns an error if the
    /// target is an instance that is not current.
    pub(crate) fn cascade(
        &self,
        index: ServiceIndex,
        target: Target,
        reason: Shielded<Reason>,
    ) -> Result<Cascade, NotFailed> {
        let begun = self.now_if_observed();
        let result = self.store().fail(index, target, reason)?;
        Ok(self.report(result, begun))
    }

    /// As `cascade`, from several services, whatever their phase.
    pub(crate) fn cascade_all(&self, roots: &BTreeSet<ServiceIndex>, reason: &Shielded<Reason>) {
        let begun = self.now_if_observed();
        self.report(self.store().fail_all(roots, reason), begun);
    }

    /// Reports the failures of a cascade to the observers. `begun` is `None` if there was none when
    /// it began.
    fn report(&self, result: CascadeResult, begun: Option<Instant>) -> Cascade {
        let CascadeResult { counts, failed_slots } = result;
        self.report_failed(failed_slots, begun);
        counts
    }

    /// Reports to the observers that these slots were taken down.
    pub(crate) fn report_failed(&self, failed_slots: Vec<FailedSlot>, begun: Option<Instant>) {
        if failed_slots.is_empty() || !self.is_observed() {
            return;
        }
        let elapsed = self.elapsed_since(begun);
        for slot in failed_slots {
            let generation = slot.was.generation();
            // Shielded: the observer may fail the service again. Then this is the last owner of the
            // user's reason.
            let failure = Shielded::new(self.store().failure(slot.index, generation));
            let kind = match slot.was.phase() {
                _ if failure.is_planned() => EventKind::Stopped(&failure),
                Phase::Ready => EventKind::Failed(&failure),
                _ => EventKind::Invalidated(&failure),
            };
            self.emit(slot.index, generation, elapsed, kind);
        }
    }
}
