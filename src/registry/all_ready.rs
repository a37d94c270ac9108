//! Waiting until all services are ready, or those of a set: the end of a server's start.

use std::time::Duration;

use super::{NotReady, Registry};
use crate::{
    error::{
        AllReadyError, DependencyUnavailable, ForeignIdError, MustAwaitError, NotReadyService,
    },
    numbers::ServiceIndex,
    service::AnyId,
    service_set::ServiceSet,
    store::{EntryNumber, Inspected, Store},
    waiting::{
        Wait,
        sealed::{BlockingCondition, Condition, WaitSlots},
    },
};

impl Registry {
    /// Makes services optional: the program is ready without them.
    ///
    /// [`wait_all_ready`](Self::wait_all_ready) does not wait for an optional service, and
    /// [`wait_set_ready`](Self::wait_set_ready) does if the set names it. Nothing else changes: it
    /// is built, restarted and stopped as any other one, and a service that depends on it needs it.
    ///
    /// A service stays optional. A wait in progress takes note of it. Lock-free.
    ///
    /// # Errors
    ///
    /// [`ForeignIdError`]: an id belongs to another registry. Then no service becomes optional.
    ///
    /// ```
    /// let registry = mainstay::Registry::with_capacity(2)?;
    /// let pool = registry.register::<u8>("pool")?;
    /// let metrics = registry.register::<u8>("metrics")?;
    /// registry.set_optional([metrics])?;
    /// registry.constant(pool, 8)?;
    ///
    /// registry.wait_all_ready().wait_blocking()?;
    /// assert!(registry.get(metrics).is_err());
    /// assert!(registry.status(metrics)?.optional);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn set_optional<I: Into<AnyId>>(
        &self,
        services: impl IntoIterator<Item = I>,
    ) -> Result<(), ForeignIdError> {
        let services = services.into_iter().map(|id| self.index(id.into()));
        for index in services.collect::<Result<Vec<_>, _>>()? {
            // In this order: a wait sets the waiter bit, and then reads the flag (W).
            if self.store().service(index).optional.set() {
                self.store().wake(index);
            }
        }
        Ok(())
    }

    /// Waits until all services are ready, apart from [optional](Self::set_optional) ones. Services
    /// that are registered during the wait are included.
    ///
    /// The wait checks one service after another, not all of them at one instant: a service that
    /// was ready may fail while the next one is checked. It sleeps until the first one that is not
    /// ready has changed, and continues there. So its cost is that of one check of each service,
    /// in whatever order they become ready; and of one more for each of them, each time that one
    /// which it has passed is not ready at the end. The wait is cancel-safe.
    ///
    /// It ends with an error if one of the services is *stuck*: it cannot become ready without
    /// help. These are the cases: its supervisor has given up, failed permanently, or ended; it was
    /// stopped; and, once [start-up is complete](Self::startup_complete), it has no provider, or
    /// its supervisor was not run. Also if it waits for a service that is stuck. After a `restart`
    /// or a `start` of the root, wait again.
    ///
    /// # Errors
    ///
    /// [`AllReadyError`], with the services that are not ready. It costs n log n for n services and
    /// edges.
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
        self.wait_members_ready(Members::Required)
    }

    /// Waits until all services of a set are ready, also those that are
    /// [optional](Self::set_optional): the set names them. The wait for an empty set ends at once.
    ///
    /// Everything else is as for [`wait_all_ready`](Self::wait_all_ready).
    ///
    /// # Errors
    ///
    /// [`AllReadyError`], with those services of the set that are not ready.
    ///
    /// ```
    /// use mainstay::{Registry, error::AllReadyError};
    /// use std::time::Duration;
    ///
    /// let registry = Registry::with_capacity(3)?;
    /// let pool = registry.register::<u8>("pool")?;
    /// let cache = registry.register::<u16>("cache")?;
    /// let server = registry.register::<u32>("server")?;
    /// registry.constant(pool, 8)?;
    /// registry.constant(cache, 80)?;
    /// registry.wait_set_ready((pool, cache)).wait_blocking()?;
    ///
    /// let wait = registry.wait_set_ready((server, pool));
    /// match wait.wait_blocking_timeout(Duration::from_millis(1)) {
    ///     Err(AllReadyError::TimedOut { not_ready, .. }) => {
    ///         assert_eq!(not_ready[0].service, "server");
    ///     }
    ///     _ => unreachable!("server has no provider"),
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn wait_set_ready(&self, set: impl Into<ServiceSet>) -> WaitAllReady {
        self.wait_members_ready(Members::Set(set.into()))
    }

    fn wait_members_ready(&self, members: Members) -> WaitAllReady {
        Wait::new(AllReadyCondition { registry: self.clone(), members, next: 0, seen: 0 })
    }
}

/// The wait of [`Registry::wait_all_ready`] and [`Registry::wait_set_ready`]. It borrows nothing.
pub type WaitAllReady = Wait<AllReadyCondition>;

/// The services for which a wait waits. Each has a position.
enum Members {
    /// All that are not optional: the position is the index.
    Required,
    Set(ServiceSet),
}

pub struct AllReadyCondition {
    registry: Registry,
    members: Members,
    /// The position of the service that is waited for. All services before it were ready when they
    /// were checked.
    next: u32,
    /// The last entry of the log of what is stuck that was checked.
    seen: EntryNumber,
}

impl AllReadyCondition {
    /// Returns the position of the first service, from this position on, that is not ready.
    fn first_not_ready(&self, from: u32) -> Option<u32> {
        let store = self.registry.store();
        match &self.members {
            // A `skip` would visit each service that it skips, in each check.
            Members::Required => ServiceIndex::range(from..store.len())
                .find(|&index| !store.is_ready(index) && !store.service(index).optional.is_set())
                .map(ServiceIndex::get),
            Members::Set(set) => {
                let rest = &set.ids()[from as usize..];
                let found = rest.iter().position(|id| !store.is_ready(id.index));
                found.map(|at| from + at as u32)
            }
        }
    }

    /// Returns the service at a position.
    fn at(&self, position: u32) -> ServiceIndex {
        match &self.members {
            Members::Required => ServiceIndex::new(position),
            Members::Set(set) => set.ids()[position as usize].index,
        }
    }

    fn contains(&self, index: ServiceIndex) -> bool {
        let store = self.registry.store();
        match &self.members {
            Members::Required => !store.service(index).optional.is_set(),
            Members::Set(set) => set.contains(store.id(index)),
        }
    }

    /// Returns the error of a set that contains the id of another registry.
    fn foreign(&self) -> Result<(), ForeignIdError> {
        let Members::Set(set) = &self.members else { return Ok(()) };
        // The ids are sorted by registry.
        let ends = [set.ids().first(), set.ids().last()];
        ends.into_iter().flatten().try_for_each(|id| self.registry.index(*id).map(drop))
    }

    /// Finds one of the services that is stuck, among what has become stuck since the last call
    /// (S17).
    fn stuck(&mut self) -> Option<DependencyUnavailable> {
        let (entries, last) = self.registry.store().stuck.since(self.seen);
        self.seen = last;
        self.registry.find_stuck(entries, |index| {
            let is_member = self.contains(index);
            is_member.then(|| DependencyUnavailable::stuck(&self.registry, index)).flatten()
        })
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
            let why = why.filter(|_| self.contains(index))?;
            // The last failure of a blocked service is not the reason for which it is down now.
            let last_failure = if blocked_by.is_empty() { store.last_failure(index) } else { None };
            Some(NotReadyService {
                service: store.name(index),
                phase: state.phase(),
                generation: state.generation(),
                blocked_by: blocked_by.into_iter().map(|index| store.name(index)).collect(),
                last_failure,
                not_ready: why,
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
        if let Err(foreign) = self.foreign() {
            return Some(Err(foreign.into()));
        }
        // A service before `next` may have failed since it was checked: if all services from `next`
        // on are ready, all of them are checked once more.
        let Some(not_ready) = self.first_not_ready(self.next).or_else(|| self.first_not_ready(0))
        else {
            if let Members::Required = self.members {
                self.registry.note_all_ready();
            }
            return Some(Ok(()));
        };
        // S7: if this changes `next`, `slots` changes too, and `Wait` checks once more after it has
        // set the waiter bit of the new slot.
        self.next = not_ready;
        // Checked last: a closed registry whose services are all ready is not an error.
        if self.registry.is_closed() {
            return Some(self.unless_all_ready(|not_ready| AllReadyError::Closed { not_ready }));
        }
        let has_stopped = self.registry.store().has_stopped(self.at(not_ready));
        if has_stopped {
            return Some(self.unless_all_ready(|not_ready| AllReadyError::Stopped { not_ready }));
        }
        let missing = self.stuck()?;
        Some(self.unless_all_ready(|not_ready| AllReadyError::Stuck { not_ready, missing }))
    }

    fn slots(&self) -> WaitSlots {
        WaitSlots::of(self.at(self.next))
    }

    fn store(&self) -> &Store {
        self.registry.store()
    }

    fn reads_stuck_log(&self) -> bool {
        true
    }

    fn timed_out(&self, after: Duration) -> Self::Output {
        // A wait that has returned the error of a foreign id can still be waited for again.
        self.foreign()?;
        self.unless_all_ready(|not_ready| {
            let missing = match not_ready.iter().find(|found| found.blocked_by.is_empty()) {
                Some(found) => {
                    let (service, why) = (found.service.clone(), found.not_ready.clone());
                    let service = (service, found.generation);
                    DependencyUnavailable::still_not_ready(service, after, Some(why))
                }
                // The service that blocks them is not in the set, or has become ready just now.
                None => {
                    let next = self.at(self.next);
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
