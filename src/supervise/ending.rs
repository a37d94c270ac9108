//! The instance that is up, with its body, and how it ends.

use std::{
    future::{Future, poll_fn},
    ops::Deref,
    pin::pin,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use futures_lite::future::or;

use super::{
    Body, BodyEnd, BodyFailure, CloseReason, Live, SupervisorState, body::BodyResult,
    pending_attempt::Grace, policy::FailureCounter, supervisor::ServiceLoop, user_code::work_end,
};
use crate::{
    error::ReadyError,
    failure::{Failure, Reason},
    numbers::{Generation, ServiceIndex},
    provide::{AllDrained, Attempt, Readers, Running},
    registry::{BodyReport, Control, CountHolders, Registry, StopEnd},
    store::{InstanceTracker, Store, Target},
    sync::{Shielded, yield_task},
    waiting::{
        Wait,
        sealed::{Condition, WaitSlots},
    },
};

/// A published instance.
#[cfg_attr(shuttle, expect(clippy::large_enum_variant, reason = "the locks of shuttle are large"))]
pub(super) enum Up<T: Send + Sync + 'static> {
    WithoutBody(Running<T>),
    /// The body has weak references to it.
    WithBody(Arc<Running<T>>),
}

impl<T: Send + Sync + 'static> Up<T> {
    pub(super) fn new<B: Body<T>>(running: Running<T>) -> Self {
        match B::EXISTS {
            true => Self::WithBody(Arc::new(running)),
            false => Self::WithoutBody(running),
        }
    }

    /// Drops the handle, which removes the value from the slot, and returns the tracker of the
    /// instances. The generation has ended.
    pub(super) async fn into_tracker(self) -> InstanceTracker<T> {
        let mut running = match self {
            Self::WithoutBody(running) => running,
            Self::WithBody(mut shared) => loop {
                match Arc::try_unwrap(shared) {
                    Ok(running) => break running,
                    // A replacement by the body is in progress, and is about to be refused.
                    Err(still_shared) => shared = still_shared,
                }
                yield_task().await;
            },
        };
        running.take_tracker()
    }
}

impl<T: Send + Sync + 'static> Deref for Up<T> {
    type Target = Running<T>;

    fn deref(&self) -> &Running<T> {
        match self {
            Self::WithoutBody(running) => running,
            Self::WithBody(running) => running,
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
    /// before the one that is running.
    pub(super) async fn stop(&self, running: Option<Up<T>>, mut earlier: Vec<InstanceTracker<T>>) {
        self.set_state(SupervisorState::Stopping, 0, None);
        let work = async {
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
                earlier.push(self.end_generation(running, &failed).await);
            }
            // Also for instances that failed before.
            let readers = Arc::new(Readers(earlier));
            self.control.set_readers(Arc::clone(&readers) as _);
            match &self.closer {
                Some(closer) => self.values_closed(closer, 0, || readers.holders()).await,
                None => self.all_drained(&readers).await,
            }
            Some(if readers.holders() == 0 { StopEnd::Done } else { StopEnd::TimedOut })
        };
        // S6: when the shutdown has ended, the close hook is dropped, and no reader is waited for.
        let closed = async {
            self.registry().closed().await;
            None
        };
        if let Some(end) = or(closed, work).await {
            self.control.set_stop_end(end);
        }
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

    /// Called when an instance has failed and its body has returned: drops the handle, and returns
    /// the tracker of the instances. From now on they are drained, and then their values are
    /// closed.
    async fn end_generation(&self, running: Up<T>, failed: &Failure) -> InstanceTracker<T> {
        let generation = running.generation();
        let tracker = running.into_tracker().await;
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
        earlier: &mut Vec<InstanceTracker<T>>,
    ) -> Option<usize> {
        let drains = counter.policy().drain_timeout.is_some();
        let mut remaining = match &self.closer {
            None => self.drain(&running, counter).await,
            Some(_) => Some(0),
        };
        let tracker = self.end_generation(running, failed).await;
        if let (Some(closer), true) = (&self.closer, drains) {
            let closed = async {
                let holders = || tracker.holders();
                self.values_closed(closer, counter.failures(), holders).await;
                Some(holders())
            };
            // A reset does not end this: the resource that it protects would exist twice.
            remaining = or(self.must_stop(), closed).await;
        }
        earlier.retain(|tracker| !tracker.is_drained());
        if !tracker.is_drained() {
            earlier.push(tracker);
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
            Some(0)
        };
        let expired = async {
            self.sleep_until(deadline).await;
            Some(running.holders())
        };
        // A reset does not end the draining: the resource that it protects would exist twice.
        or(self.must_stop(), or(drained, expired)).await
    }

    /// Keeps a published instance up until it fails, and its body until it has returned, at most
    /// for the stop timeout. Returns the failure, and its time: the body may return much later.
    /// Returns `None` if the service must stop: then the instance can still be read.
    pub(super) async fn run_instance<B: Body<T>>(
        &self,
        running: &Up<T>,
        graces: Vec<Grace>,
        body: &mut B,
    ) -> Option<(Shielded<Failure>, Instant)> {
        let ends = |unless_graces| InstanceEnds {
            registry: self.registry(),
            index: self.id().index(),
            generation: running.generation(),
            control: &self.control,
            unless_graces,
        };
        let mut down = pin!(async {
            // Most services have no grace period, and pay nothing for those of others.
            if graces.is_empty() {
                match Wait::new(ends(true)).await {
                    Ended::Failed(failed) => return Some(failed),
                    Ended::MustStop => return None,
                    Ended::GraceDeclared => {}
                }
            }
            let down = async {
                match Wait::new(ends(false)).await {
                    Ended::Failed(failed) => Some(failed),
                    _ => None,
                }
            };
            or(down, self.enforce_graces(graces, running)).await
        });
        let Up::WithBody(shared) = running else {
            return down.await.map(|failed| (failed, self.now()));
        };
        let mut body = pin!(body.run(Live::new(shared, &self.control)));
        let mut has_returned = false;
        // The result of a body that has returned at the same time as the end.
        let mut returned = None;
        let failed = poll_fn(|context| {
            // The end of the instance first: a body that returns because of it has not failed.
            if let Poll::Ready(failed) = down.as_mut().poll(context) {
                return Poll::Ready(failed);
            }
            if !has_returned {
                if let Poll::Ready(result) = body.as_mut().poll(context) {
                    // Once more: the end may have come since, and the body has returned because of
                    // it.
                    if let Poll::Ready(failed) = down.as_mut().poll(context) {
                        returned = Some(result);
                        return Poll::Ready(failed);
                    }
                    has_returned = true;
                    self.body_decides(running, result);
                    return down.as_mut().poll(context);
                }
            }
            Poll::Pending
        })
        .await;
        let since = self.now();
        if !has_returned {
            // It knows (`Live::stopping`), and may have been notified before this supervisor.
            self.set_state(SupervisorState::Stopping, 0, None);
            let after = self.policy.stop_timeout;
            // Its result changes nothing now.
            let returned = async {
                match returned.take() {
                    Some(result) => result.map(drop),
                    None => body.as_mut().await.map(drop),
                }
            };
            let late = async {
                self.sleep_until(since.checked_add(after)).await;
                Err(BodyFailure::TimedOut { after }.into())
            };
            let reason = or(returned, late).await.err().map(Reason::error);
            if let Some(reason) = &reason {
                self.body_failed(running.generation(), reason);
            }
            if failed.is_none() {
                let took = self.now().saturating_duration_since(since);
                let end = work_end(reason.as_deref());
                self.control.report_body(BodyReport { took, end });
            }
        }
        failed.map(|failed| (failed, since))
    }

    /// Decides what the return of a body means for its instance.
    fn body_decides(&self, running: &Up<T>, result: BodyResult) {
        let reason = match result {
            Ok(Some(BodyEnd::StayReady)) => return,
            Ok(Some(BodyEnd::Completed)) => {
                self.set_state(SupervisorState::Completed, 0, None);
                return;
            }
            Ok(None) => Reason::error(BodyFailure::Returned),
            Err(error) => Reason::error(error),
        };
        let target = Target::any_revision(running.generation());
        let _ = self.registry().cascade(self.id().index(), target, reason);
    }

    /// Waits until the last body has returned. Returns `None` if the service must stop.
    pub(super) async fn body_returned<B: Body<T>>(
        &self,
        body: &mut B,
        counter: &FailureCounter,
    ) -> Option<()> {
        if body.has_returned() {
            return Some(());
        }
        self.set_state(SupervisorState::BodyRunning, counter.failures(), None);
        let returned = async {
            body.returned().await;
            Some(())
        };
        or(self.must_stop(), returned).await
    }
}

/// Waits until an instance has failed, or the service must stop.
struct InstanceEnds<'a> {
    registry: &'a Registry,
    index: ServiceIndex,
    generation: Generation,
    control: &'a Control,
    /// Whether a declared grace period ends the wait, too.
    unless_graces: bool,
}

/// What has ended the wait for the end of an instance.
enum Ended {
    Failed(Shielded<Failure>),
    MustStop,
    GraceDeclared,
}

impl Condition for InstanceEnds<'_> {
    type Output = Ended;

    fn check(&mut self) -> Option<Self::Output> {
        let store = self.registry.store();
        if store.slot(self.index).state.load().generation() > self.generation {
            let failure = store.failure(self.index, self.generation);
            return Some(Ended::Failed(Shielded::new(failure)));
        }
        if store.is_closed() || self.control.must_end() {
            return Some(Ended::MustStop);
        }
        let declared = self.unless_graces && store.graces_declared(self.index) > 0;
        declared.then_some(Ended::GraceDeclared)
    }

    fn slots(&self) -> WaitSlots {
        WaitSlots::of(self.index)
    }

    fn store(&self) -> &Store {
        self.registry.store()
    }

    fn timed_out(&self, _: Duration) -> Self::Output {
        Ended::MustStop
    }
}
