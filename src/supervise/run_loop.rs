//! The loop of one supervisor, and how it stops its service. `docs/supervision.md` has a diagram.
//!
//! A service *must stop* if the registry is closed, or if a shutdown has reached the service. Each
//! step of the loop ends early in this case.

use std::{
    error::Error,
    future::{Future, poll_fn, ready},
    ops::Deref,
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use futures_lite::future::{or, yield_now};

use super::{
    Body, BodyEnd, BodyFailure, Build, BuildFailure, BuildOutput, Live, SupervisorState,
    body::BodyResult,
    build,
    build_timer::BuildTimer,
    pending_attempt::Grace,
    policy::{FailureCounter, Verdict},
    supervisor::{ServiceLoop, StopHook},
    user_code::{UserBuilder, call_user_code, panic_message},
};
use crate::{
    error::ReadyError,
    event::EventKind,
    failure::{Failure, Reason},
    numbers::{Generation, ServiceIndex},
    provide::{AllDrained, Attempt, Readers, Running},
    registry::{Command, CommandWait, Control, Registry, StopEnd, StopResult},
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
    fn new<B: Body<T>>(running: Running<T>) -> Self {
        match B::EXISTS {
            true => Self::WithBody(Arc::new(running)),
            false => Self::WithoutBody(running),
        }
    }

    /// Drops the handle, which removes the value from the slot, and returns the tracker of the
    /// instances. The generation has ended.
    async fn into_tracker(self) -> InstanceTracker<T> {
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
    /// Builds the service, again after each failure, until it must stop. Returns the instance that
    /// is up, or is being drained, at this time. No body is running then, apart from a blocking one
    /// that did not return in time.
    ///
    /// Adds the instances of failed generations that their readers have not dropped to `earlier`.
    pub(super) async fn run_loop<F, O, B>(
        &self,
        mut builder: UserBuilder<F>,
        body: &mut B,
        earlier: &mut Vec<InstanceTracker<T>>,
    ) -> Option<Up<T>>
    where
        F: AsyncFnMut(Build<T>) -> O,
        O: BuildOutput<T>,
        B: Body<T>,
    {
        let mut counter = FailureCounter::new(self.policy.clone());
        let mut backoff = Backoff { delay: Duration::ZERO, since: self.now(), passed: 0 };
        // The references to the previous instance that remained when the drain timeout expired.
        let mut holders = 0;
        while self.back_off(backoff, &mut counter).await {
            // Returns here if the service must stop: no instance is up.
            self.body_returned(body, &counter).await?;
            let attempt = self.begin(&counter).await?;
            // Read now: the number grows only while the service is down, so every cascade that
            // comes after the end of this attempt or its instance is counted.
            let passed = self.registry().store().passed(self.id().index());
            // The failures are shielded: each may be the last owner of the user's reason.
            let (failed, since) = match self.build(attempt, &counter, holders, &mut builder).await {
                BuildResult::Running(running, graces) => {
                    // A reset that was requested during the build.
                    if self.control.take_reset() {
                        counter.reset();
                    }
                    counter.record_up(self.now());
                    self.control.set_state(SupervisorState::Up, counter.failures(), None);
                    let running = Up::new::<B>(running);
                    // The service must stop. In a shutdown `stop` takes the instance down, after a
                    // close the drop of `running` does.
                    let Some(failed) = self.run_instance(&running, graces, body).await else {
                        return Some(running);
                    };
                    // Before the draining, which is part of the backoff.
                    let since = self.now();
                    // The service must stop. In a shutdown `stop` continues the draining.
                    let Some(remaining) = self.drain(&running, &counter).await else {
                        return Some(running);
                    };
                    holders = remaining;
                    let tracker = running.into_tracker().await;
                    earlier.retain(|tracker| !tracker.is_drained());
                    if !tracker.is_drained() {
                        earlier.push(tracker);
                    }
                    (failed, since)
                }
                // The shutdown itself may have invalidated the build (S4), which is not a failure
                // to be counted.
                BuildResult::Invalidated(failure) if self.control.stop_requested() => {
                    drop(Shielded::new(failure));
                    return None;
                }
                BuildResult::Invalidated(failure) => (Shielded::new(failure), self.now()),
                BuildResult::Failed(failure) => (Shielded::new(failure), self.now()),
                // The attempt has failed, so no instance is up. It may not be the turn of the
                // service yet: then a dependency has stopped, and no other build could get it.
                BuildResult::MustStop => return self.must_stop().await,
            };
            // A reset that was requested during the build, while the instance was up, or during the
            // draining: this failure is counted as the first one.
            if self.control.take_reset() {
                counter.reset();
            }
            let verdict = if counts_against_service(&failed) {
                counter.count_failure(since)
            } else {
                counter.ignore_failure(since)
            };
            match verdict {
                Verdict::RetryAfter(delay) => backoff = Backoff { delay, since, passed },
                Verdict::GiveUp => {
                    // Before the event, which the status shows.
                    let number =
                        self.registry().supervisors().give_up(&self.control, counter.failures());
                    let (index, kind) = (self.id().index(), EventKind::GivenUp(&failed));
                    let (registry, zero) = (self.registry(), Duration::ZERO);
                    registry.emit_numbered(index, failed.generation, number.into(), zero, kind);
                    // The user's reason must not live as long as the service stays down.
                    drop(failed);
                    if Wait::new(self.command_wait()).await == Command::Stop {
                        return None;
                    }
                    // The command was a reset: the service is built immediately.
                    counter.reset();
                    backoff = Backoff { delay: Duration::ZERO, since, passed };
                }
            }
        }
        // The service must stop, and it is down.
        None
    }

    /// Stops the service, on its turn in a shutdown: takes the instance down, calls the stop hook,
    /// and waits for the readers of all generations. `earlier` are the instances of those before
    /// the one that is running.
    pub(super) async fn stop(
        &self,
        running: Option<Up<T>>,
        mut earlier: Vec<InstanceTracker<T>>,
        stop_hook: Shielded<Option<StopHook<T>>>,
    ) {
        let deadline = self.now().checked_add(self.hook_timeout);
        self.control.set_state(SupervisorState::Stopping, 0, None);
        let work = async {
            let mut result = StopResult::Stopped;
            let mut last = None;
            // If the service is down, there is no instance to stop.
            if let Some(running) = running {
                // Read before the failure, after which no instance can be read. `None` if the
                // instance has failed already: then the stop hook is not called.
                let instance = Shielded::new(running.instance());
                let target = Target::any_revision(running.generation());
                let reason = Shielded::new(Reason::ShutDown);
                let _ = self.registry().cascade(self.id().index(), target, reason);
                // S4: if the cascade of another thread has condemned the instance, the call above
                // does nothing, and the instance can still be read. So wait until it is down.
                drop(running.failed().await.map(Shielded::new));
                // The stop hook, its future and its reference to the instance are used and dropped
                // within `call_user_code`, so a panic of them ends only the stop hook. If one of
                // the two is missing, both are dropped there.
                let stop = move || match (stop_hook.into_inner(), instance.into_inner()) {
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
    async fn drain(&self, running: &Running<T>, counter: &FailureCounter) -> Option<usize> {
        // Without a timeout, the policy does not drain.
        let Some(timeout) = counter.policy().drain_timeout else { return Some(0) };
        let deadline = self.now().checked_add(timeout);
        self.control.set_state(SupervisorState::Draining, counter.failures(), None);
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

    /// Waits until the backoff ends. Returns `false` if the service must stop.
    async fn back_off(&self, backoff: Backoff, counter: &mut FailureCounter) -> bool {
        // The loop does not report `BackingOff` for no time. `begin` checks whether the service
        // must stop.
        if backoff.delay.is_zero() {
            return true;
        }
        let end = backoff.since.checked_add(backoff.delay);
        self.control.set_state(SupervisorState::BackingOff, counter.failures(), end);
        let slept = async {
            self.sleep_until(end).await;
            Command::Retry
        };
        let passed = Some(backoff.passed);
        let command = Wait::new(CommandWait { passed, ..self.command_wait() });
        match or(command, slept).await {
            Command::Stop => return false,
            Command::Reset => counter.reset(),
            Command::Retry => {}
        }
        true
    }

    /// Begins the next attempt. Returns `None` if the service must stop.
    async fn begin(&self, counter: &FailureCounter) -> Option<Attempt<T>> {
        self.control.set_state(SupervisorState::Building, counter.failures(), None);
        let begun = async {
            match self.provider.begin().await {
                Ok(attempt) => Some(attempt),
                // A shutdown has marked the service, and its turn to stop follows (S4).
                Err(_) => self.must_stop().await,
            }
        };
        or(self.must_stop(), begun).await
    }

    /// Completes with `None` when the service must stop. It is polled together with other futures.
    async fn must_stop<R>(&self) -> Option<R> {
        // A reset is not taken here: the loop takes it after the build or the failure.
        Wait::new(CommandWait { accept_reset: false, ..self.command_wait() }).await;
        None
    }

    /// Keeps a published instance up until it fails, and its body until it has returned, at most
    /// for the stop timeout. Returns `None` if the service must stop: then the instance can still
    /// be read.
    async fn run_instance<B: Body<T>>(
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
            self.control.set_state(SupervisorState::Stopping, 0, None);
            let deadline = self.now().checked_add(self.policy.stop_timeout);
            // Its result changes nothing now, but it is a value of the user.
            let returned = async { drop(Shielded::new(body.as_mut().await)) };
            or(returned, self.sleep_until(deadline)).await;
        }
        failed
    }

    /// Decides what the return of a body means for its instance.
    fn body_decides(&self, running: &Up<T>, result: BodyResult) {
        let reason = match result {
            Ok(Some(BodyEnd::StayReady)) => return,
            Ok(Some(BodyEnd::Completed)) => {
                self.control.set_state(SupervisorState::Completed, 0, None);
                return;
            }
            Ok(None) => Reason::error(BodyFailure::Returned),
            Err(error) => Reason::error(error),
        };
        let target = Target::any_revision(running.generation());
        let _ = self.registry().cascade(self.id().index(), target, reason);
    }

    /// Waits until the last body has returned. Returns `None` if the service must stop.
    async fn body_returned<B: Body<T>>(
        &self,
        body: &mut B,
        counter: &FailureCounter,
    ) -> Option<()> {
        if body.has_returned() {
            return Some(());
        }
        self.control.set_state(SupervisorState::BodyRunning, counter.failures(), None);
        or(self.must_stop(), async { Some(body.returned().await) }).await
    }

    /// Runs one build, and publishes its value.
    async fn build<F, O>(
        &self,
        attempt: Attempt<T>,
        counter: &FailureCounter,
        holders: usize,
        builder: &mut UserBuilder<F>,
    ) -> BuildResult<T>
    where
        F: AsyncFnMut(Build<T>) -> O,
        O: BuildOutput<T>,
    {
        let timeout = counter.policy().build_timeout;
        let timer = BuildTimer::new(timeout, self.now());
        let (attempt, build) = build::split(attempt, counter.failures(), holders, timer);
        let outcome = {
            let mut useless = Wait::new(BuildUseless {
                registry: self.registry(),
                index: self.id().index(),
                generation: attempt.generation(),
                control: &self.control,
            });
            let timed_out = async {
                self.build_timed_out(attempt.timer()).await;
                Some(Err(BuildFailure::timed_out(timeout).into()))
            };
            let built = async { Some(builder.build(build).await) };
            // A build that is ready at its deadline is in time.
            let mut work = pin!(or(built, timed_out));
            poll_fn(|context| {
                // A build whose value cannot be published is not polled. The check alone costs
                // less than to be woken, and most builds are ready at their first poll.
                if useless.check_now().is_some() {
                    return Poll::Ready(None);
                }
                match work.as_mut().poll(context) {
                    Poll::Ready(outcome) => Poll::Ready(outcome),
                    Poll::Pending => Pin::new(&mut useless).poll(context).map(|()| None),
                }
            })
            .await
        };
        let is_exceeded = attempt.timer().is_exceeded(self.now());
        let (attempt, graces) = attempt.end_build();
        let outcome = match outcome {
            // A blocking build could not be dropped at its deadline, and an async build that is
            // polled late is polled before its timeout.
            Some(Ok(value)) if is_exceeded => {
                drop(Shielded::new(value));
                Some(Err(BuildFailure::timed_out(timeout).into()))
            }
            outcome => outcome,
        };
        match outcome {
            Some(Ok(value)) => match attempt.ready(value) {
                Ok(running) => BuildResult::Running(running, graces),
                Err(ReadyError::Invalidated { value, failure }) => {
                    drop(Shielded::new(value));
                    BuildResult::Invalidated(failure)
                }
                Err(ReadyError::Closed { value, .. }) => {
                    drop(Shielded::new(value));
                    BuildResult::MustStop
                }
            },
            // The build was invalidated, or the service must stop. In both cases `fail_attempt`
            // finds the reason itself, and does not use this one.
            None => self.fail_attempt(attempt, "invalidated".into()),
            Some(Err(reason)) => self.fail_attempt(attempt, reason),
        }
    }

    /// Waits until the timeout of a build has expired.
    async fn build_timed_out(&self, timer: &BuildTimer) {
        loop {
            // A wait of the build may have moved the deadline during the sleep, so it is checked
            // again after each sleep.
            let deadline = timer.deadline_when_running().await;
            if self.now() >= deadline {
                return;
            }
            self.sleep_until(Some(deadline)).await;
        }
    }

    /// Fails the attempt for this reason, unless the service must stop or the attempt was
    /// invalidated.
    fn fail_attempt(
        &self,
        mut attempt: Attempt<T>,
        reason: Box<dyn Error + Send + Sync>,
    ) -> BuildResult<T> {
        let reason = Shielded::new(reason);
        // An error of a build that must stop, or whose dependency has stopped, is a consequence of
        // this, and is not counted.
        let store = self.registry().store();
        let has_stopped = |dependency| store.service(dependency).stopped.is_set();
        let is_consequence = self.registry().is_closed()
            || self.control.stop_requested()
            || attempt.edges.any_dependency(has_stopped);
        if is_consequence {
            let _ = attempt.end(Shielded::new(Reason::ShutDown));
            return BuildResult::MustStop;
        }
        match attempt.fail(reason.into_inner()) {
            // The failure that invalidated the attempt decides what happens next, and not the error
            // of the build. So a builder may return the error of an invalidated wait.
            Err(invalidated_by) => BuildResult::Invalidated(invalidated_by),
            Ok(()) => match self.registry().store().last_failure(self.id().index()) {
                Some(failure) => BuildResult::Failed(failure),
                None => unreachable!("the reason of an attempt that has just failed is stored"),
            },
        }
    }

    /// Returns the condition of a wait for a stop or a reset.
    fn command_wait(&self) -> CommandWait<'_> {
        let (store, index) = (self.registry().store(), self.id().index());
        let control = &self.control;
        CommandWait { store, index, control, accept_reset: true, passed: None }
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
        (store.is_closed() || self.control.stop_requested()).then_some(None)
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

/// Waits until the value of a build could not be published: its attempt was invalidated, or the
/// service must stop.
struct BuildUseless<'a> {
    registry: &'a Registry,
    index: ServiceIndex,
    generation: Generation,
    control: &'a Control,
}

impl Condition for BuildUseless<'_> {
    type Output = ();

    fn check(&mut self) -> Option<()> {
        let store = self.registry.store();
        let is_useless = !store.is_starting(self.index, self.generation)
            || store.is_closed()
            || self.control.stop_requested();
        is_useless.then_some(())
    }

    fn slots(&self) -> WaitSlots {
        WaitSlots::of(self.index)
    }

    fn store(&self) -> &Store {
        self.registry.store()
    }

    fn timed_out(&self, _: Duration) {}
}

/// Returns whether the failure is counted against the service itself (S1): it began there, and not
/// because a dependency was absent for a grace period.
fn counts_against_service(failure: &Failure) -> bool {
    failure.root == failure.service && !matches!(failure.reason, Reason::GraceExpired { .. })
}

/// The result of one build.
enum BuildResult<T: Send + Sync + 'static> {
    /// The value was published. The grace periods apply from now on.
    Running(Running<T>, Vec<Grace>),
    /// This failure has ended the generation of the attempt.
    Invalidated(Failure),
    /// The build returned an error, panicked or timed out.
    Failed(Failure),
    /// The registry is closed, or a shutdown has reached the service or one of its dependencies.
    MustStop,
}

/// The delay before a build: a backoff, the debounce delay, or none.
#[derive(Clone, Copy)]
struct Backoff {
    delay: Duration,
    /// The time of the failure, so that the time of draining is part of the delay.
    since: Instant,
    /// The number of cascades that had reached the service while it was down. If it grows during
    /// the delay, a service that the last build used has failed, and the reason for which that
    /// build failed may no longer exist. So the delay ends.
    passed: u32,
}
