//! The instance that is up, with its body, and how it ends.

use std::{
    future::{Future, poll_fn, ready},
    ops::Deref,
    pin::pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use futures_lite::future::{or, yield_now};

use super::{
    Body, BodyEnd, BodyFailure, Live, SupervisorState,
    body::BodyResult,
    pending_attempt::Grace,
    policy::FailureCounter,
    supervisor::{ServiceLoop, StopHook},
    user_code::{call_user_code, panic_message},
};
use crate::{
    failure::{Failure, Reason},
    numbers::{Generation, ServiceIndex},
    provide::{AllDrained, Readers, Running},
    registry::{Control, Registry, StopEnd, StopResult},
    store::{InstanceTracker, Store, Target},
    sync::Shielded,
    waiting::{
        Wait,
        sealed::{Condition, WaitSlots},
    },
};

/// A published instance.
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
                yield_now().await;
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
    /// Stops the service, on its turn in a shutdown: takes the instance down, calls the stop hook,
    /// and waits for the readers of all generations. `earlier` are the instances of those before
    /// the one that is running.
    pub(super) async fn stop(
        &self,
        running: Option<Up<T>>,
        mut earlier: Vec<InstanceTracker<T>>,
        stop_hook: &mut Shielded<Option<StopHook<T>>>,
    ) {
        let deadline = self.now().checked_add(self.hook_timeout);
        self.set_state(SupervisorState::Stopping, 0, None);
        let work = async {
            let mut result = StopResult::Stopped;
            let mut last = None;
            // If the service is down, there is no instance to stop.
            if let Some(running) = running {
                // Read before the failure, after which no instance can be read. `None` if the
                // instance has failed already: then the stop hook is not called.
                let instance = Shielded::new(running.instance());
                let target = Target::any_revision(running.generation());
                let end = self.control.end_requested();
                let reason = end.map_or(Reason::ShutDown, |end| end.reason.clone());
                let reason = Shielded::new(reason);
                let _ = self.registry().cascade(self.id().index(), target, reason);
                // S4: if the cascade of another thread has condemned the instance, the call above
                // does nothing, and the instance can still be read. So wait until it is down.
                drop(running.failed().await.map(Shielded::new));
                // The stop hook, its future and its reference to the instance are used and dropped
                // within `call_user_code`, so a panic of them ends only the stop hook. If one of
                // the two is missing, both are dropped there.
                let stop_hook = stop_hook.take();
                let stop = move || match (stop_hook, instance.into_inner()) {
                    (Some(stop_hook), Some(instance)) => stop_hook(instance),
                    _ => Box::pin(ready(())),
                };
                if let Err(payload) = call_user_code(stop).await {
                    result = StopResult::HookPanicked { message: panic_message(payload) };
                }
                last = Some(running.generation());
                earlier.push(running.into_tracker().await);
            }
            // Also after a panic, and also for instances that failed before.
            let readers = Arc::new(Readers(earlier));
            self.control.set_readers(Arc::clone(&readers) as _);
            let (registry, id) = (self.registry(), self.id());
            Wait::new(AllDrained { registry, id, readers: &readers, last }).await;
            Some(StopEnd::Done(result))
        };
        let expired = async {
            self.sleep_until(deadline).await;
            Some(StopEnd::TimedOut)
        };
        // S6: when the shutdown has ended, the stop hook is dropped, and no reader is waited for.
        let closed = async {
            self.registry().closed().await;
            None
        };
        // If the limit expires, the state stays `Stopping`, and the shutdown reports it (S6).
        if let Some(end) = or(closed, or(work, expired)).await {
            self.control.set_stop_end(end);
        }
    }

    /// Waits until the readers of a failed instance have dropped it, at most for the drain timeout.
    /// Returns the number of references that remain, or `None` if the service must stop.
    pub(super) async fn drain(
        &self,
        running: &Running<T>,
        counter: &FailureCounter,
    ) -> Option<usize> {
        // Without a timeout, the policy does not drain.
        let Some(timeout) = counter.policy().drain_timeout else { return Some(0) };
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
    /// for the stop timeout. Returns `None` if the service must stop: then the instance can still
    /// be read.
    pub(super) async fn run_instance<B: Body<T>>(
        &self,
        running: &Up<T>,
        graces: Vec<Grace>,
        body: &mut B,
    ) -> Option<Shielded<Failure>> {
        let down = Wait::new(InstanceEnds {
            registry: self.registry(),
            index: self.id().index(),
            generation: running.generation(),
            control: &self.control,
        });
        let mut down = pin!(or(down, self.enforce_graces(graces, running)));
        let Up::WithBody(shared) = running else { return down.await };
        let mut body = pin!(body.run(Live::new(shared, &self.control)));
        let mut has_returned = false;
        let failed = poll_fn(|context| {
            // The end of the instance first: a body that returns because of it has not failed.
            if let Poll::Ready(failed) = down.as_mut().poll(context) {
                return Poll::Ready(failed);
            }
            if !has_returned {
                if let Poll::Ready(result) = body.as_mut().poll(context) {
                    has_returned = true;
                    self.body_decides(running, result);
                    return down.as_mut().poll(context);
                }
            }
            Poll::Pending
        })
        .await;
        if !has_returned {
            // It knows (`Live::stopping`), and may have been notified before this supervisor.
            self.set_state(SupervisorState::Stopping, 0, None);
            let deadline = self.now().checked_add(self.policy.stop_timeout);
            // Its result changes nothing now.
            let returned = async {
                if let Err(error) = body.as_mut().await {
                    self.body_failed(running.generation(), &Reason::error(error));
                }
            };
            or(returned, self.sleep_until(deadline)).await;
        }
        failed
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
        or(self.must_stop(), async { Some(body.returned().await) }).await
    }
}

/// Waits until an instance has failed, or the service must stop.
struct InstanceEnds<'a> {
    registry: &'a Registry,
    index: ServiceIndex,
    generation: Generation,
    control: &'a Control,
}

impl Condition for InstanceEnds<'_> {
    /// `None` if the service must stop.
    type Output = Option<Shielded<Failure>>;

    fn check(&mut self) -> Option<Self::Output> {
        let store = self.registry.store();
        if store.slot(self.index).state.load().generation() > self.generation {
            return Some(Some(Shielded::new(store.failure(self.index, self.generation))));
        }
        (store.is_closed() || self.control.must_end()).then_some(None)
    }

    fn slots(&self) -> WaitSlots {
        WaitSlots::of(self.index)
    }

    fn store(&self) -> &Store {
        self.registry.store()
    }

    fn timed_out(&self, _: Duration) -> Self::Output {
        None
    }
}
