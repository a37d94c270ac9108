//! Grace periods: a service fails only if a dependency has been absent for the whole period (S8).

use std::{
    collections::HashSet,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use futures_lite::future::or;

use super::{pending_attempt::Grace, supervisor::ServiceLoop};
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
    pub(super) async fn enforce_graces<R>(&self, of_build: Vec<Grace>, running: &Running<T>) -> R {
        type Enforced<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;
        let generation = running.generation();
        let enforce = |grace| Box::pin(self.enforce_grace(grace, generation)) as Enforced<'_>;
        let mut enforced: Vec<_> = of_build.into_iter().map(enforce).collect();
        // The reference to the instance is not kept: it would delay the draining.
        let built_from = |service: AnyId| {
            let instance = running.instance().map(Shielded::new);
            let from = instance.iter().flat_map(|instance| Instance::built_from(instance));
            from.map(|from| from.service).any(|from| from == service)
        };
        let mut declared = HashSet::new();
        loop {
            let store = self.registry().store();
            // Before the periods are read: a later declaration ends the wait below.
            let number = store.graces_declared(self.id().index());
            let graces = if number > 0 { store.graces(self.id().index()) } else { Vec::new() };
            for (dependency, period) in graces {
                // A period that was replaced by a shorter one is still enforced, and changes
                // nothing.
                if declared.insert((dependency, period)) {
                    let was_ready = built_from(store.id(dependency));
                    enforced.push(enforce(Grace { dependency, period, was_ready }));
                }
            }
            let mut changed =
                pin!(Wait::new(GraceDeclared { store, index: self.id().index(), number }));
            poll_fn(|context| {
                enforced.retain_mut(|grace| grace.as_mut().poll(context).is_pending());
                // Pending, even if a grace period has expired: then the instance has failed, and
                // the wait for its failure completes.
                changed.as_mut().poll(context)
            })
            .await;
        }
    }

    async fn enforce_grace(&self, grace: Grace, generation: Generation) {
        let Grace { dependency, period, was_ready } = grace;
        let registry = self.registry();
        let until_ready_is =
            |ready| Wait::new(ReadinessIs { store: registry.store(), index: dependency, ready });
        if !was_ready {
            until_ready_is(true).await;
        }
        loop {
            until_ready_is(false).await;
            let deadline = self.now().checked_add(period);
            let recovered = async {
                until_ready_is(true).await;
                true
            };
            let expired = async {
                self.sleep_until(deadline).await;
                false
            };
            // `or` polls `recovered` first: a dependency that is ready again at the deadline is in
            // time. It may be ready in any generation.
            if or(recovered, expired).await {
                continue;
            }
            // The dependency was ready before, and is not now: so it has failed, and the failure is
            // stored.
            let Some(failure) = registry.store().last_failure(dependency) else { continue };
            let service = (failure.service.clone(), failure.generation);
            let missing = DependencyUnavailable::failed(service, Arc::new(failure));
            let reason = Reason::GraceExpired { missing: Arc::new(missing), grace: period };
            // By generation, so that a later instance of this service is never affected.
            let target = Target::any_revision(generation);
            let _ = registry.cascade(self.id().index(), target, Shielded::new(reason));
            return;
        }
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
