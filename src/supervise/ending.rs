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
    Body, BodyEnd, BodyFailure, CloseReason, Live, Probes, SupervisorState,
    body::BodyResult,
    failure_counter::FailureCounter,
    output::UserError,
    pending_attempt::Grace,
    supervisor::{ServiceLoop, Work},
    user_code::work_end,
};
use crate::{
    error::ReadyError,
    failure::{Failure, Reason},
    numbers::{Generation, ServiceIndex},
    provide::{AllDrained, Attempt, Readers, Running},
    registry::{BodyReport, Control, CountHolders, Registry, StopEnd},
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
        body: &mut B,
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
    async fn closed<R>(&self) -> Option<R> {
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

    /// Runs the body of a published instance, if there is one and `calls_body`, and its probes,
    /// until the instance fails. Then waits until the body has returned, at most for the stop
    /// timeout, and until the registry is closed. Returns the failure, and its time: the body may
    /// return much later. Returns `None` if the service must stop: then the instance can still be
    /// read.
    pub(super) async fn run_work<B: Body<T>, P: Probes<T>>(
        &self,
        running: &Arc<Running<T>>,
        graces: Vec<Grace>,
        work: &mut Work<B, P>,
        calls_body: bool,
        counter: &FailureCounter,
    ) -> Option<(Shielded<Failure>, Instant)> {
        let mut down = pin!(self.down(running, graces));
        let mut body = pin!(work.body.run(Live::new(running, &self.control)));
        let mut has_returned = !calls_body;
        // The result of a body that has returned at the same time as the end.
        let mut returned = None;
        let failed = {
            // S19: dropped at the end of the instance, before its body has returned.
            let mut probes = pin!(work.probes.run(self, running));
            poll_fn(|context| {
                // The end of the instance first: a body that returns because of it has not failed.
                if let Poll::Ready(failed) = down.as_mut().poll(context) {
                    return Poll::Ready(failed);
                }
                if !has_returned {
                    if let Poll::Ready(result) = body.as_mut().poll(context) {
                        // Once more: the end may have come since, and the body has returned because
                        // of it. The wake-up of `down` follows the end, and may not have come yet.
                        if let Some(ended) = self.check_ended(running.generation()) {
                            returned = Some(result);
                            return Poll::Ready(ended.failed());
                        }
                        has_returned = true;
                        self.body_decides(running, result, counter);
                        if let Poll::Ready(failed) = down.as_mut().poll(context) {
                            return Poll::Ready(failed);
                        }
                    }
                }
                // They never complete: a probe that fails the instance wakes `down`.
                let _ = probes.as_mut().poll(context);
                Poll::Pending
            })
            .await
        };
        let since = self.now();
        if !has_returned {
            // It knows (`Live::stopping`), and may have been notified before this supervisor.
            self.set_state(SupervisorState::Stopping, counter.failures(), None);
            // Its result changes nothing now.
            let returned = async {
                match returned.take() {
                    Some(result) => result.map(drop),
                    None => body.as_mut().await.map(drop),
                }
            };
            self.body_ends(running.generation(), since, returned).await;
        }
        failed.map(|failed| (failed, since))
    }

    /// Waits until a body has returned that was notified at `since`, at most for the stop timeout,
    /// and reports how it has ended. If the registry is closed, the body is polled once more, and
    /// not waited for.
    async fn body_ends(
        &self,
        generation: Generation,
        since: Instant,
        returned: impl Future<Output = Result<(), UserError>>,
    ) {
        let after = self.policy.stop_timeout;
        let returned = async { Some(returned.await) };
        let late = async {
            self.sleep_until(since.checked_add(after)).await;
            Some(Err(BodyFailure::TimedOut { after }.into()))
        };
        let Some(result) = or(or(returned, late), self.closed()).await else { return };
        let reason = result.err().map(Reason::error);
        if let Some(reason) = &reason {
            self.body_failed(generation, reason);
        }
        let took = self.now().saturating_duration_since(since);
        // A request of a planned end that comes later removes the report: it is not of this end.
        self.control.report_body(BodyReport { took, end: work_end(reason.as_deref()) });
    }

    /// Waits, at the turn to stop, for a body that was late when its instance, of this generation,
    /// ended.
    async fn wait_for_late_body<B: Body<T>>(&self, generation: Generation, body: &mut B) {
        let returned = async {
            body.returned().await;
            match body.late_result() {
                Some((_, result)) => result.map(drop),
                None => Ok(()),
            }
        };
        self.body_ends(generation, self.now(), returned).await;
    }

    /// Waits until a published instance has failed, and enforces its grace periods until then.
    /// Returns `None` if the service must stop.
    pub(super) async fn down(
        &self,
        running: &Running<T>,
        graces: Vec<Grace>,
    ) -> Option<Shielded<Failure>> {
        // Most services have no grace period, and pay nothing for those of others.
        if graces.is_empty() {
            match Wait::new(self.ends(running.generation(), true)).await {
                Ended::GraceDeclared => {}
                ended => return ended.failed(),
            }
        }
        let down = async { Wait::new(self.ends(running.generation(), false)).await.failed() };
        or(down, self.enforce_graces(graces, running)).await
    }

    /// Returns whether the instance of this generation has failed, or the service must stop.
    pub(super) fn has_ended(&self, generation: Generation) -> bool {
        self.check_ended(generation).is_some()
    }

    fn check_ended(&self, generation: Generation) -> Option<Ended> {
        Wait::new(self.ends(generation, false)).check_now()
    }

    fn ends(&self, generation: Generation, unless_graces: bool) -> InstanceEnds<'_> {
        InstanceEnds {
            registry: self.registry(),
            index: self.id().index(),
            generation,
            control: &self.control,
            unless_graces,
        }
    }

    /// Decides what the return of a body means for its instance.
    fn body_decides(&self, running: &Running<T>, result: BodyResult, counter: &FailureCounter) {
        let reason = match result {
            Ok(Some(BodyEnd::StayReady)) => return,
            Ok(Some(BodyEnd::Completed)) => {
                self.set_state(SupervisorState::Completed, counter.failures(), None);
                return;
            }
            Ok(None) => Reason::error(BodyFailure::Returned),
            Err(error) => Reason::error(error),
        };
        let target = Target::any_revision(running.generation());
        let _ = self.registry().cascade(self.id().index(), target, reason);
    }

    /// Waits until the last body has returned, and reports the error of one that was late. Returns
    /// `None` if the service must stop.
    pub(super) async fn body_returned<B: Body<T>>(
        &self,
        body: &mut B,
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

impl Ended {
    /// Returns the failure of the instance, if it has failed.
    fn failed(self) -> Option<Shielded<Failure>> {
        match self {
            Self::Failed(failed) => Some(failed),
            Self::MustStop | Self::GraceDeclared => None,
        }
    }
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
