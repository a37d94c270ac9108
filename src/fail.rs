//! Failing a service, and reporting an instance that was found broken.

use std::{error::Error, time::Instant};

use crate::{
    error::ForeignId,
    event::EventKind,
    failure::{Cascade, Reason, Report},
    registry::Registry,
    service::{AnyId, Instance},
    store::{Fell, Phase, Target},
    sync::Shielded,
};

impl Registry {
    /// Fails a service and everything that depends on it, for a reason that all of them can name.
    ///
    /// The service may be ready; or starting, and then the attempt is overtaken and what it builds is never
    /// published. One that is down stays as it is: nobody holds anything of it, and its next attempt begins
    /// after this call.
    ///
    /// When it returns, none of the instances that there were can be read any more. While it runs, other
    /// threads may see the dependents down and their dependency still ready, never the other way round.
    /// Lock-free over the slots, one pass down the closure and one up; then it wakes the waiters, which locks
    /// the wait lists of those slots that have any. Where an edge has come or gone, anywhere, since the last failure
    /// of this service, its closure is first found anew, which takes two to three times as long.
    ///
    /// # Errors
    ///
    /// [`ForeignId`].
    ///
    /// ```
    /// let registry = mainstay::Registry::with_capacity(1)?;
    /// let port = registry.register::<u16>("port")?;
    /// assert_eq!(registry.fail(port, "nothing there")?.went_down, 0);
    ///
    /// let provider = registry.provide(port)?;
    /// let attempt = provider.begin().wait()?;
    /// assert_eq!(registry.fail(port, "start again")?.overtaken, 1);
    /// let refused = attempt.ready(80).unwrap_err();
    /// assert_eq!(refused.into_value(), 80);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn fail(
        &self,
        id: impl Into<AnyId>,
        reason: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Result<Cascade, ForeignId> {
        let reason = Reason::error(reason);
        let index = self.index(id.into())?;
        let fell = self.cascade(index, Target::Any, reason);
        Ok(fell.unwrap_or_default())
    }

    /// Fails exactly the instance that the caller has found broken, and what depends on it.
    ///
    /// Of a thousand requests that met the same broken client one fails it, and none hits the next one.
    /// Ordered as [`fail`](Self::fail), but it may return while the cascade of another thread is on its way.
    ///
    /// # Errors
    ///
    /// [`ForeignId`].
    ///
    /// ```
    /// use mainstay::{Guard, Registry, Report};
    ///
    /// let registry = Registry::with_capacity(1)?;
    /// let client = registry.register::<String>("client")?;
    /// let provider = registry.provide(client)?;
    /// let first = provider.begin().wait()?.ready("first".to_string())?;
    ///
    /// let met = registry.get(client)?;
    /// assert!(matches!(registry.report(Guard::instance(&met), "reset by peer")?, Report::Failed(_)));
    /// drop(first);
    ///
    /// let _second = provider.begin().wait()?.ready("second".to_string())?;
    /// assert_eq!(registry.report(Guard::instance(&met), "reset by peer")?, Report::AlreadyFailed);
    /// assert_eq!(*registry.get(client)?, "second");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn report<T: Send + Sync + 'static>(
        &self,
        broken: &Instance<T>,
        reason: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Result<Report, ForeignId> {
        let reason = Reason::error(reason);
        let index = self.index(broken.service)?;
        let generation = broken.generation;
        let now = self.store().typed::<T>(broken.service).and_then(|id| self.get_arc(id).ok());
        let now = Shielded::new(now);
        let replaced = now
            .as_ref()
            .is_some_and(|now| now.generation == generation && !std::ptr::eq(&**now, broken));
        drop(now);
        if replaced {
            return Ok(Report::Replaced);
        }
        let fell = self.cascade(index, Target::Generation(generation), reason);
        Ok(fell.map_or(Report::AlreadyFailed, Report::Failed))
    }

    /// Runs a cascade and tells the observer of it, once it is over.
    pub(crate) fn cascade(
        &self,
        index: u32,
        target: Target,
        reason: Shielded<Reason>,
    ) -> Option<Cascade> {
        let observed = self.is_observed();
        let begun = observed.then(Instant::now);
        let Fell { counts, fallen } = self.store().fail(index, target, reason, observed)?;
        let took = begun.map(|begun| begun.elapsed()).unwrap_or_default();
        for fallen in fallen {
            let generation = fallen.was.generation();
            // The observer may have it fail once more, and leave this one as the last to hold the reason.
            let failure = Shielded::new(self.store().failure(fallen.index, generation));
            let kind = match fallen.was.phase() {
                Phase::Ready => EventKind::Failed(&failure),
                _ => EventKind::Overtaken(&failure),
            };
            self.emit(fallen.index, generation, took, kind);
        }
        Some(counts)
    }
}
