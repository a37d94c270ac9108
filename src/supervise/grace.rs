//! Grace periods: a service fails only if a dependency has been absent for the whole period (S8).

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use futures_lite::future::or;

use super::{Supervisor, pending_attempt::Grace};
use crate::{
    failure::Reason,
    numbers::{Generation, ServiceIndex},
    store::{Store, Target},
    sync::Shielded,
    waiting::{
        Wait,
        sealed::{Condition, WaitSlots},
    },
};

impl<T: Send + Sync + 'static> Supervisor<T> {
    /// Fails the instance of `generation` if one of the grace periods expires. Never completes: it
    /// is polled together with the wait for the failure of the instance.
    pub(super) async fn enforce_graces<R>(&self, graces: Vec<Grace>, generation: Generation) -> R {
        type Enforced<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;
        let enforce = |grace| Box::pin(self.enforce_grace(grace, generation)) as Enforced<'_>;
        let mut enforced: Vec<_> = graces.into_iter().map(enforce).collect();
        poll_fn(|context| {
            enforced.retain_mut(|grace| grace.as_mut().poll(context).is_pending());
            // Pending, even if a grace period has expired: then the instance has failed, and the
            // wait for its failure completes.
            Poll::Pending
        })
        .await
    }

    async fn enforce_grace(&self, Grace { dependency, period }: Grace, generation: Generation) {
        let registry = self.registry();
        let until_ready_is =
            |ready| Wait::new(ReadinessIs { store: registry.store(), index: dependency, ready });
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
            // The dependency was ready when this service was built, and is not now: so it has
            // failed, and the failure is stored.
            let Some(failure) = registry.store().last_failure(dependency) else { continue };
            let reason = Reason::GraceExpired { failure: Arc::new(failure), grace: period };
            // By generation, so that a later instance of this service is never affected.
            let target = Target::any_revision(generation);
            let _ = registry.cascade(self.id().index(), target, Shielded::new(reason));
            return;
        }
    }
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
