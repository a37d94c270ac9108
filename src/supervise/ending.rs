//! The instance that is up, with its body, and how it ends.

use std::{ops::Deref, pin::pin, sync::Arc, time::Duration};

use futures_lite::future::or;

use super::{
    Body, CloseReason, Probes, SupervisorState, failure_counter::FailureCounter,
    supervisor::ServiceLoop,
};
use crate::{
    error::ReadyError,
    failure::{Failure, Reason},
    numbers::Generation,
    provide::{AllDrained, Attempt, Readers, Running},
    registry::{CountHolders, StopEnd},
    store::{InstanceTracker, Store, Target},
    sync::Shielded,
    waiting::{
        Wait,
        sealed::{Condition, WaitSlots},
    },
};

/// A published instance.
#[cfg_attr(shuttle, expect(clippy::large_enum_variant, reason = "the locks of shuttle are large"))]
pub(super) enum Up<T: Send + Sync + 'static> {
    Owned(Running<T>),
    /// The body and the probes have weak references to it.
    Shared(Arc<Running<T>>),
}

impl<T: Send + Sync + 'static> Up<T> {
    pub(super) fn new<B: Body<T>, P: Probes<T>>(running: Running<T>) -> Self {
        match B::EXISTS || P::COUNT > 0 {
            true => Self::Shared(Arc::new(running)),
            false => Self::Owned(running),
        }
    }

    /// Returns the handle, after the generation has ended.
    async fn into_running(self) -> Running<T> {
        let mut shared = match self {
            Self::Owned(running) => return running,
            Self::Shared(shared) => shared,
        };
        loop {
            match Arc::try_unwrap(shared) {
                Ok(running) => return running,
                // A replacement by the body is in progress, and is about to be refused. The user
                // code of a replacement before that may block the thread.
                Err(still_shared) => shared = still_shared,
            }
            Wait::new(Unshared(&shared)).await;
        }
    }
}

impl<T: Send + Sync + 'static> Deref for Up<T> {
    type Target = Running<T>;

    fn deref(&self) -> &Running<T> {
        match self {
            Self::Owned(running) => running,
            Self::Shared(running) => running,
        }
    }
}

impl<T: Send + Sync + 'static> ServiceLoop<T> {
    /// Publishes the value of an attempt. If there is a close hook, it receives the value at its
    /// end.
    pub(super) fn publish(
        &self,
        attempt: &mut Attempt<T>,
        value: T,
    ) -> Result<Running<T>, ReadyError<T>> {
        match &self.closer {
            None => attempt.publish_once(value),
            Some(closer) => attempt.ready_for(&closer.receiver, value),
        }
    }

    /// Stops the service, on its turn in a planned end: takes the instance down, and waits until
    /// the values of all generations are drained and closed. `earlier` are the instances of those
    /// before the one that is running. Those that are not drained in time are there afterwards.
    pub(super) async fn stop<B: Body<T>>(
        &self,
        running: Option<Up<T>>,
        body: &B,
        earlier: &mut Vec<Arc<InstanceTracker<T>>>,
    ) {
        self.set_state(SupervisorState::Stopping, 0, None);
        let work = async {
            if let (None, Some(generation)) = (&running, body.running()) {
                // It is late since an earlier end of an instance, and may use dependencies.
                self.wait_for_late_body(generation, body).await;
            }
            // If the service is down, there is no instance to stop.
            if let Some(running) = running {
                let target = Target::any_revision(running.generation());
                let end = self.control.end_requested();
                let reason = end.map_or(Reason::ShutDown, |end| end.reason.clone());
                let reason = Shielded::new(reason);
                let _ = self.registry().cascade(self.id().index(), target, reason);
                // S4: if the cascade of another thread has condemned the instance, the call above
                // does nothing, and the instance can still be read. So wait until it is down.
                let failed = Shielded::new(running.failed().await.ok()?);
                let tracker = self.end_generation(running.into_running().await, &failed);
                earlier.push(Arc::new(tracker));
            }
            // Also for instances that failed before.
            let readers = Arc::new(Readers(earlier.clone()));
            self.control.set_readers(Arc::clone(&readers) as _);
            match &self.closer {
                Some(closer) => self.values_closed(closer, 0, || readers.holders()).await,
                None => self.all_drained(&readers).await,
            }
            earlier.retain(|tracker| !tracker.is_drained());
            Some(if readers.holders() == 0 { StopEnd::Done } else { StopEnd::TimedOut })
        };
        // S6: when the shutdown has ended, the close hook is dropped, and no reader is waited for.
        if let Some(end) = or(self.closed(), work).await {
            self.control.set_stop_end(end);
        }
    }

    /// Completes with `None` when the registry is closed, and so ends what is awaited beside it.
    pub(super) async fn closed<R>(&self) -> Option<R> {
        self.registry().closed().await;
        None
    }

    /// Waits until the readers of all these instances have dropped them, at most for the limit.
    async fn all_drained(&self, readers: &Readers<T>) {
        let holders = readers.holders();
        if holders > 0 {
            let present = self.registry().store().slot(self.id().index()).state.load().generation();
            self.set_ending(SupervisorState::Draining, 0, present, holders);
        }
        let deadline = self.now().checked_add(self.drain_limit());
        let (registry, id) = (self.registry(), self.id());
        or(Wait::new(AllDrained { registry, id, readers }), self.sleep_until(deadline)).await;
    }

    /// Called when an instance has failed and its body has returned: drops the handle, which
    /// removes the value from the slot, and returns the tracker of the instances. From now on they
    /// are drained, and then their values are closed.
    fn end_generation(&self, mut running: Running<T>, failed: &Failure) -> InstanceTracker<T> {
        let generation = running.generation();
        let tracker = running.take_tracker();
        drop(running);
        if let Some(closer) = &self.closer {
            let deadline = self.now().checked_add(self.drain_limit());
            closer.end_generation(generation, CloseReason::of(failed), deadline);
        }
        tracker
    }

    /// Ends a generation after a failure. If the policy drains, waits until its values are drained
    /// and closed. If they have readers then, adds the instances to `earlier`.
    ///
    /// Returns the number of references that remain after draining, or `None` if the service must
    /// stop.
    pub(super) async fn end_failed(
        &self,
        running: Up<T>,
        failed: &Failure,
        counter: &FailureCounter,
        earlier: &mut Vec<Arc<InstanceTracker<T>>>,
    ) -> Option<usize> {
        let drains = counter.policy().drain_timeout.is_some();
        let mut remaining = match &self.closer {
            None => self.drain(&running, counter).await,
            Some(_) => Some(0),
        };
        let tracker = self.end_generation(running.into_running().await, failed);
        if let (Some(closer), true) = (&self.closer, drains) {
            let closed = async {
                let holders = || tracker.holders();
                self.values_closed(closer, counter.failures(), holders).await;
                holders()
            };
            // A reset does not end this: the resource that it protects would exist twice.
            remaining = self.must_stop().unless_holds(pin!(closed)).await;
        }
        earlier.retain(|tracker| !tracker.is_drained());
        if !tracker.is_drained() {
            earlier.push(Arc::new(tracker));
        }
        remaining
    }

    /// Waits until the readers of a failed instance have dropped it, at most for the drain timeout.
    /// Returns the number of references that remain, or `None` if the service must stop.
    async fn drain(&self, running: &Running<T>, counter: &FailureCounter) -> Option<usize> {
        // Without a timeout, the policy does not drain.
        let Some(timeout) = counter.policy().drain_timeout else { return Some(0) };
        // This also takes the value out of its slot, which is no reader. Most instances have none,
        // and then there is nothing to report.
        if running.drained().check_now().is_some() {
            return Some(0);
        }
        let deadline = self.now().checked_add(timeout);
        let (state, holders) = (SupervisorState::Draining, running.holders());
        self.set_ending(state, counter.failures(), running.generation(), holders);
        let drained = async {
            let _ = running.drained().await;
            0
        };
        let expired = async {
            self.sleep_until(deadline).await;
            running.holders()
        };
        // A reset does not end the draining: the resource that it protects would exist twice.
        self.must_stop().unless_holds(pin!(or(drained, expired))).await
    }

    /// Waits, at the turn to stop, for a body that was late when its instance, of this generation,
    /// ended.
    async fn wait_for_late_body<B: Body<T>>(&self, generation: Generation, body: &B) {
        let returned = async {
            body.returned().await;
            match body.late_result() {
                Some((_, result)) => result.map(drop),
                None => Ok(()),
            }
        };
        self.body_ends(generation, self.now(), returned).await;
    }

    /// Waits until the last body has returned, and reports the error of one that was late. Returns
    /// `None` if the service must stop.
    pub(super) async fn body_returned<B: Body<T>>(
        &self,
        body: &B,
        counter: &FailureCounter,
    ) -> Option<()> {
        if body.running().is_some() {
            self.set_state(SupervisorState::BodyRunning, counter.failures(), None);
            self.must_stop().unless_holds(pin!(body.returned())).await?;
        }
        if let Some((generation, Err(error))) = body.late_result() {
            self.body_failed(generation, &Reason::error(error));
        }
        Some(())
    }
}

/// No body uses the handle of an instance any more.
struct Unshared<'a, T: Send + Sync + 'static>(&'a Arc<Running<T>>);

impl<T: Send + Sync + 'static> Condition for Unshared<'_, T> {
    type Output = ();

    fn check(&mut self) -> Option<()> {
        (Arc::strong_count(self.0) == 1).then_some(())
    }

    fn slots(&self) -> WaitSlots {
        WaitSlots::of(self.0.id.index())
    }

    fn store(&self) -> &Store {
        self.0.registry.store()
    }

    fn timed_out(&self, _: Duration) {}
}
