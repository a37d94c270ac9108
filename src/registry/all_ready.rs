//! Waiting until all services are ready: the end of a server's start.

use std::time::Duration;

use super::{NotReady, Registry};
use crate::{
    error::{AllReadyError, DependencyUnavailable, MustAwaitError, NotReadyService},
    numbers::ServiceIndex,
    store::{Inspected, Store},
    waiting::{
        Wait,
        sealed::{BlockingCondition, Condition, WaitSlots},
    },
};

impl Registry {
    /// Waits until all services are ready, including those that are registered during the wait.
    ///
    /// The wait checks one service after another, not all of them at one instant: a service that
    /// was ready may fail while the next one is checked. Each time that a service becomes ready,
    /// the wait checks all services again, so its cost is proportional to their number. The wait
    /// is cancel-safe.
    ///
    /// # Errors
    ///
    /// [`AllReadyError`], with the services that are not ready.
    ///
    /// ```
    /// let registry = mainstay::Registry::with_capacity(2)?;
    /// let (a, b) = (registry.register::<u8>("a")?, registry.register::<u8>("b")?);
    /// let (p, q) = (registry.provide(a)?, registry.provide(b)?);
    /// let _a = p.begin().wait_blocking()?.ready(1)?;
    /// let _b = q.begin().wait_blocking()?.ready(2)?;
    /// registry.wait_all_ready().wait_blocking()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn wait_all_ready(&self) -> WaitAllReady {
        Wait::new(AllReadyCondition { registry: self.clone(), next: 0 })
    }
}

/// The wait of [`Registry::wait_all_ready`].
pub type WaitAllReady = Wait<AllReadyCondition>;

pub struct AllReadyCondition {
    registry: Registry,
    /// The index of the service that is waited for. All services before it were ready when they
    /// were checked.
    next: u32,
}

impl AllReadyCondition {
    /// Returns the first service with at least this index that is not ready.
    fn first_not_ready(&self, from: u32) -> Option<ServiceIndex> {
        let store = self.registry.store();
        // A `skip` would visit each service that it skips, in each check.
        ServiceIndex::range(from..store.len()).find(|&index| !store.is_ready(index))
    }

    /// Returns the error with this description of all services that are not ready, unless all of
    /// them have become ready since the last check.
    fn unless_all_ready(
        &self,
        error: impl FnOnce(Vec<NotReadyService>) -> AllReadyError,
    ) -> Result<(), AllReadyError> {
        let not_ready = self.all_not_ready();
        if not_ready.is_empty() { Ok(()) } else { Err(error(not_ready)) }
    }

    /// Describes all services that are not ready, for an error.
    fn all_not_ready(&self) -> Vec<NotReadyService> {
        let (inner, store) = (self.registry.inner(), self.registry.store());
        let describe = |(service, why): (Inspected, Option<NotReady>)| {
            let Inspected { index, state, blocked_by, .. } = service;
            // The last failure of a blocked service is not the reason for which it is down now.
            let last_failure = if blocked_by.is_empty() { store.last_failure(index) } else { None };
            Some(NotReadyService {
                service: store.name(index),
                phase: state.phase(),
                generation: state.generation(),
                blocked_by: blocked_by.into_iter().map(|index| store.name(index)).collect(),
                last_failure,
                not_ready: why?,
            })
        };
        let inspection = store.inspect_all();
        let all = inspection.services().zip(NotReady::of_all(inner, &inspection));
        all.filter_map(describe).collect()
    }
}

impl Condition for AllReadyCondition {
    type Output = Result<(), AllReadyError>;

    fn check(&mut self) -> Option<Self::Output> {
        // A service before `next` may have failed since it was checked: if all services from `next`
        // on are ready, all of them are checked once more.
        let Some(not_ready) = self.first_not_ready(self.next).or_else(|| self.first_not_ready(0))
        else {
            return Some(Ok(()));
        };
        // S7: if this changes `next`, `slots` changes too, and `Wait` checks once more after it has
        // set the waiter bit of the new slot.
        self.next = not_ready.get();
        // Checked last: a closed registry whose services are all ready is not an error.
        if self.registry.is_closed() {
            return Some(self.unless_all_ready(|not_ready| AllReadyError::Closed { not_ready }));
        }
        let has_stopped = self.registry.store().has_stopped(not_ready);
        has_stopped.then(|| self.unless_all_ready(|not_ready| AllReadyError::Stopped { not_ready }))
    }

    fn slots(&self) -> WaitSlots {
        WaitSlots::of(ServiceIndex::new(self.next))
    }

    fn store(&self) -> &Store {
        self.registry.store()
    }

    fn timed_out(&self, after: Duration) -> Self::Output {
        self.unless_all_ready(|not_ready| {
            let missing = match not_ready.iter().find(|found| found.blocked_by.is_empty()) {
                Some(found) => {
                    let (service, why) = (found.service.clone(), found.not_ready.clone());
                    let service = (service, found.generation);
                    DependencyUnavailable::still_not_ready(service, after, Some(why))
                }
                // The service that blocked them has become ready just now.
                None => {
                    let next = ServiceIndex::new(self.next);
                    DependencyUnavailable::timed_out(&self.registry, next, after)
                }
            };
            AllReadyError::TimedOut { not_ready, after, missing }
        })
    }
}

impl BlockingCondition for AllReadyCondition {
    fn must_await(&self) -> Self::Output {
        Err(MustAwaitError { service: None }.into())
    }
}
