//! What a service can stand: a dependency that is away, for a time.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use futures_lite::future::or;

use super::Supervisor;
use crate::{
    dependency::Grace,
    failure::Reason,
    store::{Store, Target},
    sync::Shielded,
    wait::{Wait, sealed::Condition},
};

impl<T: Send + Sync + 'static> Supervisor<T> {
    /// Fails the instance of `generation` once one of these is away for longer than it may be. Never ends: to be polled
    /// beside the wait for the instance's failure.
    pub(super) async fn outlast<R>(&self, graces: Vec<Grace>, generation: u64) -> R {
        type Watched<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;
        let each = |grace| Box::pin(self.outlast_one(grace, generation)) as Watched<'_>;
        let mut watched: Vec<_> = graces.into_iter().map(each).collect();
        poll_fn(|context| {
            watched.retain_mut(|watched| watched.as_mut().poll(context).is_pending());
            Poll::Pending
        })
        .await
    }

    async fn outlast_one(&self, Grace { dependency, time }: Grace, generation: u64) {
        let registry = self.registry();
        let is = |ready| Wait::new(Is { store: registry.store(), index: dependency, ready });
        loop {
            is(false).await;
            let until = self.now().checked_add(time);
            let back = async {
                is(true).await;
                true
            };
            let late = async {
                self.sleep_until(until).await;
                false
            };
            if or(back, late).await {
                continue;
            }
            // It was ready once, so there is one.
            let Some(failure) = registry.store().last_failure(dependency) else { continue };
            let reason = Reason::NotBack { failure: Arc::new(failure), grace: time };
            let target = Target::Generation(generation);
            registry.cascade(self.id().index(), target, Shielded::new(reason));
            return;
        }
    }
}

/// Until a service is ready, or is not.
struct Is<'a> {
    store: &'a Store,
    index: u32,
    ready: bool,
}

impl Condition for Is<'_> {
    type Output = ();

    fn look(&mut self) -> Option<()> {
        (self.store.is_ready(self.index) == self.ready).then_some(())
    }

    fn slots(&self) -> (u32, Option<u32>) {
        (self.index, None)
    }

    fn store(&self) -> &Store {
        self.store
    }

    fn timed_out(&self, _: Duration) {}
}
