//! Groups of supervised services: what is counted for all members together, and whether the group
//! has given up (S18). That the members fail together is decided in the store (`store/groups.rs`).

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{FailureWindow, Supervisors};
use crate::{
    error::GroupGivenUp,
    failure::Failure,
    numbers::ServiceIndex,
    registry::Registry,
    store::Store,
    sync::{Mutex, Shielded, lock},
};

/// The groups of a registry. A service is in at most one, for good.
#[derive(Default)]
pub(crate) struct Groups(Mutex<HashMap<ServiceIndex, Arc<Group>>>);

/// One group. Its lock is a leaf: numbers and pointers are exchanged while it is held.
pub(crate) struct Group {
    pub(crate) services: Arc<[ServiceIndex]>,
    state: Mutex<State>,
}

struct State {
    failures: FailureWindow,
    given_up: Option<GivenUp>,
}

/// Shared, so that the reason of a user is neither copied nor dropped under the lock.
pub(crate) type GivenUp = Arc<Shielded<GroupGivenUp>>;

impl Supervisors {
    /// Makes a group of these services. If one of them is in a group already, returns it.
    pub(crate) fn add_group(
        &self,
        store: &Store,
        services: Arc<[ServiceIndex]>,
        limit: Option<(u32, Duration)>,
    ) -> Result<Arc<Group>, ServiceIndex> {
        let mut of = lock(&self.groups.0);
        store.add_group(&services)?;
        let state = State { failures: FailureWindow::new(limit), given_up: None };
        let group = Arc::new(Group { services, state: Mutex::new(state) });
        of.extend(group.services.iter().map(|&service| (service, Arc::clone(&group))));
        self.places.ask();
        Ok(group)
    }
}

impl Groups {
    pub(crate) fn of(&self, service: ServiceIndex) -> Option<Arc<Group>> {
        lock(&self.0).get(&service).cloned()
    }
}

impl Group {
    /// Adds a failure to the window. Returns whether it is one too many.
    pub(crate) fn count(&self, now: Instant) -> bool {
        lock(&self.state).failures.add(now)
    }

    /// Returns the number of failures in the window.
    pub(crate) fn failures(&self, now: Instant) -> usize {
        lock(&self.state).failures.count(now)
    }

    pub(crate) fn given_up(&self) -> Option<GivenUp> {
        lock(&self.state).given_up.clone()
    }

    /// Gives up because of this failure. Returns why it has given up, and whether this call is the
    /// reason.
    pub(crate) fn give_up(&self, failure: &Failure) -> (GivenUp, bool) {
        let new = Arc::new(Shielded::new(GroupGivenUp { failure: failure.clone() }));
        let mut state = lock(&self.state);
        let is_first = state.given_up.is_none();
        let why = Arc::clone(state.given_up.get_or_insert_with(|| Arc::clone(&new)));
        drop(state);
        (why, is_first)
    }

    /// Forgets all failures. Returns whether it had given up.
    fn restart(&self) -> bool {
        let given_up = {
            let mut state = lock(&self.state);
            state.failures.clear();
            state.given_up.take()
        };
        // Dropped without the lock.
        given_up.is_some()
    }

    /// Forgets all failures, unless it has given up.
    pub(crate) fn forget(&self) {
        let mut state = lock(&self.state);
        if state.given_up.is_none() {
            state.failures.clear();
        }
    }
}

impl Registry {
    /// Lets the group of a service begin again, if it has given up.
    pub(super) fn restart_given_up(&self, service: ServiceIndex) {
        let Some(group) = self.supervisors().groups.of(service) else { return };
        if group.given_up().is_some() && group.restart() {
            self.wake_group(&group);
        }
    }

    /// Wakes the supervisors of a group that has given up or begins again.
    pub(crate) fn wake_group(&self, group: &Group) {
        group.services.iter().for_each(|&service| self.store().wake(service));
    }
}
