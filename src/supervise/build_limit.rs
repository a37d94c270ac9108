//! Limits on the number of builds at a time.

use std::time::Duration;

use super::{
    SupervisorState, building::BuildUseless, failure_counter::FailureCounter,
    supervisor::ServiceLoop,
};
use crate::{
    error::ForeignIdError,
    numbers::{Generation, ServiceIndex},
    provide::Attempt,
    registry::{BuildNumber, Registry, RegistryBuilder, Reload},
    service::AnyId,
    store::Store,
    waiting::{
        Wait,
        sealed::{Condition, WaitSlots},
    },
};

impl RegistryBuilder {
    /// Limits the number of builds that supervisors run at a time, in the whole registry.
    ///
    /// Without it, everything that has failed together is built again at once: a thousand clients
    /// connect in the same instant. Builds above the limit are *queued*
    /// ([`SupervisorState::Queued`]), and begin in the order in which they could have begun. The
    /// limit is at least one: `0` counts as `1`.
    ///
    /// A build is counted from the call of its builder until it ends, except while it waits for a
    /// dependency: so builds that wait for each other's services do not use up the limit. A build
    /// with several waits at once waits as long as one of them does. Before its last wait returns
    /// an instance, the build is queued again. A wait that returns an error, or is dropped, does
    /// not wait for a place: the build that continues is counted, also if it is one too many. The
    /// time in a queue is no time of the build ([`build_timeout`]).
    ///
    /// A queued service can be stopped, and delays no shutdown. Bodies and close hooks are not
    /// counted. A registry without a limit pays one load for each build and for each of its waits.
    /// With limits, each of them takes one lock, and a time logarithmic in the length of the queue.
    ///
    /// [`build_timeout`]: crate::supervise::RestartPolicy::build_timeout
    ///
    /// ```
    /// let registry = mainstay::Registry::builder(1_000)?.max_builds(8).build();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn max_builds(self, most: usize) -> Self {
        self.supervisors.places.limit_all(most);
        self
    }
}

impl Registry {
    /// Limits the number of builds of these services that supervisors run at a time: for example,
    /// those of the clients of one database.
    ///
    /// As [`RegistryBuilder::max_builds`]. `services` is any iterator of ids, or a
    /// [`ServiceSet`](crate::ServiceSet) by reference. Several limits may name one service, and
    /// that of the registry counts beside them: a build needs a place of each. Builds that have
    /// begun are not counted. A limit cannot be removed.
    ///
    /// # Errors
    ///
    /// [`ForeignIdError`]: an id belongs to another registry. Then no limit is added.
    ///
    /// ```
    /// let registry = mainstay::Registry::with_capacity(3)?;
    /// let clients = ["a", "b", "c"].map(|name| registry.register::<u32>(name).unwrap());
    /// registry.limit_builds(clients, 2)?;
    /// registry.limit_builds(&mainstay::ServiceSet::from(clients), 3)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn limit_builds<I>(
        &self,
        services: impl IntoIterator<Item = I>,
        most: usize,
    ) -> Result<(), ForeignIdError>
    where
        I: Into<AnyId>,
    {
        let services = services.into_iter().map(|id| self.index(id.into()));
        // The iterator is user code, and runs before the lock is taken.
        let services = services.collect::<Result<Vec<_>, _>>()?;
        self.supervisors().places.limit(services, most);
        Ok(())
    }

    /// Wakes the builds that have got their places.
    pub(super) fn wake_placed(&self, placed: Vec<ServiceIndex>) {
        placed.into_iter().for_each(|service| self.store().wake(service));
    }
}

/// The places of one build. Its drop returns them.
pub(super) struct Place<'a> {
    registry: &'a Registry,
    index: ServiceIndex,
    pub(super) build: BuildNumber,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.registry.wake_placed(self.registry.supervisors().places.end(self.index));
    }
}

impl<T: Send + Sync + 'static> ServiceLoop<T> {
    /// Waits for the places of a build, or until its attempt cannot be published: then the build
    /// notices that, too. Ends the attempt if the group of the service has given up. Returns `None`
    /// if the build needs no place.
    pub(super) async fn place(
        &self,
        attempt: &mut Attempt<T>,
        counter: &FailureCounter,
    ) -> Option<Place<'_>> {
        let (registry, index) = (self.registry(), self.id().index());
        if self.group_refuses(attempt) {
            return None;
        }
        let places = &registry.supervisors().places;
        let (build, has_all) = places.begin(index)?;
        let place = Place { registry, index, build };
        if !has_all {
            let failures = counter.failures();
            self.set_state(SupervisorState::Queued, failures, None);
            let generation = attempt.generation;
            let control = &self.control;
            let useless = BuildUseless { registry, index, generation, control, reload: None };
            Wait::new(Placed(useless)).await;
            self.set_state(SupervisorState::Building, failures, None);
        }
        Some(place)
    }

    /// As `place`, for a build aside: the service is up, and its state stays as it is.
    pub(super) async fn place_aside(
        &self,
        reload: &Reload,
        generation: Generation,
    ) -> Option<Place<'_>> {
        let (registry, index) = (self.registry(), self.id().index());
        let (build, has_all) = registry.supervisors().places.begin(index)?;
        let place = Place { registry, index, build };
        if !has_all {
            let (control, reload) = (&self.control, Some(reload));
            let useless = BuildUseless { registry, index, generation, control, reload };
            Wait::new(Placed(useless)).await;
        }
        Some(place)
    }
}

/// A build has its places, or its attempt cannot be published.
struct Placed<'a>(BuildUseless<'a>);

impl Condition for Placed<'_> {
    type Output = ();

    fn check(&mut self) -> Option<()> {
        let BuildUseless { registry, index, .. } = self.0;
        let is_placed = registry.supervisors().places.has_all(index);
        is_placed.then_some(()).or_else(|| self.0.check())
    }

    fn slots(&self) -> WaitSlots {
        self.0.slots()
    }

    fn store(&self) -> &Store {
        self.0.store()
    }

    fn timed_out(&self, _: Duration) {}
}
