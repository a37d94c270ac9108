//! Grace periods: a service fails only if a dependency has been absent for the whole period (S8).

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    future::{pending, poll_fn},
    mem,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use futures_lite::future::or;

use super::{pending_attempt::Grace, supervisor::ServiceLoop, wake_list::WakeList};
use crate::{
    error::DependencyUnavailable,
    failure::Reason,
    instance::Instance,
    numbers::{Generation, ServiceIndex},
    provide::Running,
    service::AnyId,
    store::{Store, Target},
    sync::Shielded,
    waiting::{
        Wait,
        sealed::{Condition, WaitSlots},
    },
};

impl<T: Send + Sync + 'static> ServiceLoop<T> {
    /// Fails the running instance if one of the grace periods of its build, or of those that are
    /// declared, expires. Never completes: it is polled together with the wait for the failure of
    /// the instance.
    ///
    /// `first` is the revision of the first instance of the publication.
    pub(super) async fn enforce_graces<R>(
        &self,
        of_build: Vec<Grace>,
        running: &Running<T>,
        first: u64,
    ) -> R {
        let (store, index) = (self.registry().store(), self.id().index());
        let mut tolerated = Tolerated::new(store);
        // Each of these waits has received an instance.
        of_build.into_iter().for_each(|grace| tolerated.add(grace, true));
        let mut built_from = None;
        let mut known = 0;
        loop {
            // The number is read first: a later declaration ends the wait below.
            let number = store.graces_declared(index);
            if number > known {
                let built_from = built_from.get_or_insert_with(|| services_of_build(running));
                for grace in store.graces_since(index, known) {
                    let (dependency, period) = grace;
                    let was_ready = built_from.contains(&store.id(dependency));
                    tolerated.add(Grace { dependency, period }, was_ready);
                }
                known = number;
            }
            let declared = async {
                Wait::new(GraceDeclared { store, index, number }).await;
                None
            };
            let expired = async { Some(self.first_expired(&mut tolerated).await) };
            if let Some(expired) = or(declared, expired).await {
                self.fail_without(expired, running.generation(), first);
                // The wait for the failure of the instance completes.
                return pending().await;
            }
        }
    }

    /// Waits until the first of the grace periods has expired. Cancel-safe.
    async fn first_expired(&self, tolerated: &mut Tolerated<'_>) -> Grace {
        loop {
            let deadline = tolerated.next_deadline();
            let mut sleep = pin!(self.sleep_until(deadline));
            let slept = poll_fn(|context| {
                // First: a dependency that is ready again at the deadline is in time.
                tolerated.poll(context, || self.now());
                if tolerated.next_deadline() != deadline {
                    return Poll::Ready(false);
                }
                sleep.as_mut().poll(context).map(|()| true)
            })
            .await;
            if let Some(deadline) = deadline.filter(|_| slept) {
                if let Some(expired) = tolerated.expired(deadline) {
                    return expired;
                }
            }
        }
    }

    /// Fails the instance of this publication, because a dependency was absent for too long.
    fn fail_without(&self, expired: Grace, generation: Generation, first: u64) {
        let Grace { dependency, period } = expired;
        let store = self.registry().store();
        // The dependency has been ready and is not now: so it has failed, and the failure is
        // stored.
        let missing = match store.last_failure(dependency) {
            Some(failure) => {
                let service = (failure.service.clone(), failure.generation);
                DependencyUnavailable::failed(service, Arc::new(failure))
            }
            None => DependencyUnavailable::timed_out(self.registry(), dependency, period),
        };
        let reason = Reason::GraceExpired { missing: Arc::new(missing), grace: period };
        // So that a later instance of this service is never affected.
        let target = Target::publication(generation, first);
        let _ = self.registry().cascade(self.id().index(), target, Shielded::new(reason));
    }
}

/// Returns the services from which the running instance was built. The reference to the instance is
/// not kept: it would delay the draining.
fn services_of_build<T: Send + Sync + 'static>(running: &Running<T>) -> HashSet<AnyId> {
    let instance = running.instance().map(Shielded::new);
    let from = instance.iter().flat_map(|instance| Instance::built_from(instance));
    from.map(|from| from.service).collect()
}

/// The dependencies whose absence an instance tolerates.
struct Tolerated<'a> {
    store: &'a Store,
    dependencies: HashMap<ServiceIndex, Dependency<'a>>,
    /// The ends of the grace periods of all dependencies that are absent.
    deadlines: BTreeSet<(Instant, ServiceIndex)>,
    /// Those that were added.
    new: Vec<ServiceIndex>,
    /// Those whose slots have changed.
    changed: WakeList,
}

/// One dependency, and the wait for the next change of its presence.
struct Dependency<'a> {
    period: Duration,
    presence: Presence,
    wait: Wait<ReadinessIs<'a>>,
    waker: Waker,
}

#[derive(Debug, Clone, Copy)]
enum Presence {
    /// The instance was not built from it, and it has not been ready since.
    Unseen,
    Present,
    Absent {
        since: Instant,
    },
}

impl Presence {
    fn wait_for_change(self, store: &Store, index: ServiceIndex) -> Wait<ReadinessIs<'_>> {
        let ready = !matches!(self, Self::Present);
        Wait::new(ReadinessIs { store, index, ready })
    }
}

impl<'a> Dependency<'a> {
    fn enter(&mut self, presence: Presence, store: &'a Store, index: ServiceIndex) {
        self.presence = presence;
        self.wait = presence.wait_for_change(store, index);
    }

    /// Returns the end of the grace period. `None` if the dependency is not absent, or if the end
    /// is beyond the range of `Instant`, which is no limit.
    fn deadline(&self) -> Option<Instant> {
        match self.presence {
            Presence::Absent { since } => since.checked_add(self.period),
            Presence::Unseen | Presence::Present => None,
        }
    }
}

impl<'a> Tolerated<'a> {
    fn new(store: &'a Store) -> Self {
        Self {
            store,
            dependencies: HashMap::new(),
            deadlines: BTreeSet::new(),
            new: Vec::new(),
            changed: WakeList::new(),
        }
    }

    /// Tolerates the absence of one more dependency. If it is known already, the shorter period
    /// counts.
    fn add(&mut self, grace: Grace, was_ready: bool) {
        let Grace { dependency: index, period } = grace;
        let Some(known) = self.dependencies.get_mut(&index) else {
            let presence = if was_ready { Presence::Present } else { Presence::Unseen };
            let wait = presence.wait_for_change(self.store, index);
            let waker = self.changed.waker(index);
            self.dependencies.insert(index, Dependency { period, presence, wait, waker });
            self.new.push(index);
            return;
        };
        let before = known.deadline();
        known.period = period.min(known.period);
        let after = known.deadline();
        self.move_deadline(index, before, after);
    }

    fn move_deadline(
        &mut self,
        index: ServiceIndex,
        before: Option<Instant>,
        after: Option<Instant>,
    ) {
        if before != after {
            before.map(|before| self.deadlines.remove(&(before, index)));
            after.map(|after| self.deadlines.insert((after, index)));
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|&(deadline, _)| deadline)
    }

    /// Checks the dependencies that were added or have changed since the last poll. The task is
    /// woken when another one changes.
    fn poll(&mut self, context: &mut Context<'_>, now: impl Fn() -> Instant) {
        if self.dependencies.is_empty() {
            return;
        }
        let changed = self.changed.take(context);
        for index in mem::take(&mut self.new).into_iter().chain(changed) {
            self.poll_one(index, &now);
        }
    }

    fn poll_one(&mut self, index: ServiceIndex, now: impl Fn() -> Instant) {
        let store = self.store;
        let Some(dependency) = self.dependencies.get_mut(&index) else { return };
        let before = dependency.deadline();
        let waker = dependency.waker.clone();
        while Pin::new(&mut dependency.wait).poll(&mut Context::from_waker(&waker)).is_ready() {
            let presence = match dependency.presence {
                Presence::Unseen | Presence::Absent { .. } => Presence::Present,
                Presence::Present => Presence::Absent { since: now() },
            };
            dependency.enter(presence, store, index);
        }
        let after = dependency.deadline();
        self.move_deadline(index, before, after);
    }

    /// Returns a dependency whose grace period has ended at this time, and that is still absent.
    fn expired(&mut self, now: Instant) -> Option<Grace> {
        while let Some(&(deadline, dependency)) = self.deadlines.first() {
            if deadline > now {
                break;
            }
            let found = self.dependencies.get_mut(&dependency)?;
            if !self.store.is_ready(dependency) {
                return Some(Grace { dependency, period: found.period });
            }
            // It has become ready since its last poll. It may be absent again: then this is another
            // absence.
            found.enter(Presence::Present, self.store, dependency);
            self.new.push(dependency);
            self.deadlines.pop_first();
        }
        None
    }
}

/// Waits until another grace period is declared for a service.
struct GraceDeclared<'a> {
    store: &'a Store,
    index: ServiceIndex,
    number: u32,
}

impl Condition for GraceDeclared<'_> {
    type Output = ();

    fn check(&mut self) -> Option<()> {
        (self.store.graces_declared(self.index) != self.number).then_some(())
    }

    fn slots(&self) -> WaitSlots {
        WaitSlots::of(self.index)
    }

    fn store(&self) -> &Store {
        self.store
    }

    fn timed_out(&self, _: Duration) {}
}

/// Waits until a service is ready, or until it is not.
struct ReadinessIs<'a> {
    store: &'a Store,
    index: ServiceIndex,
    ready: bool,
}

impl Condition for ReadinessIs<'_> {
    type Output = ();

    fn check(&mut self) -> Option<()> {
        (self.store.is_ready(self.index) == self.ready).then_some(())
    }

    fn slots(&self) -> WaitSlots {
        WaitSlots::of(self.index)
    }

    fn store(&self) -> &Store {
        self.store
    }

    fn timed_out(&self, _: Duration) {}
}
