//! The loop of one supervisor. `docs/supervision.md` has a diagram.
//!
//! A service *must stop* if the registry is closed, or if a shutdown has reached the service. Each
//! step of the loop ends early in this case.

use std::{
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Body, Build, BuildOutput, NoBody, Probes, SupervisorState,
    building::BuildResult,
    ending::Up,
    failure_counter::FailureCounter,
    retrying::{Delay, Inputs},
    supervisor::{ServiceLoop, Work},
    tenure::Tenure,
    user_code::UserBuilder,
};
use crate::{
    numbers::ServiceIndex,
    provide::Attempt,
    registry::CommandWait,
    store::{InstanceTracker, Store},
    sync::{Shielded, present_poll, yield_task},
    waiting::{
        Wait,
        sealed::{Condition, WaitSlots},
    },
};

impl<T: Send + Sync + 'static> ServiceLoop<T> {
    /// Builds the service, again after each failure, until it must stop. Returns the instance that
    /// is up at this time. No body is running then, apart from a blocking one that did not return
    /// in time.
    ///
    /// Adds the instances of failed generations that their readers have not dropped to `earlier`.
    /// Keeps the wait for a retry in `delay`: if a planned end interrupts it, and the service may
    /// begin again after that, the next call continues it.
    pub(super) async fn run_loop<F, O, B, P>(
        &self,
        builder: &mut UserBuilder<F>,
        work: &mut Work<B, P>,
        earlier: &mut Vec<Arc<InstanceTracker<T>>>,
        counter: &mut FailureCounter,
        delay: &mut Option<Delay>,
    ) -> Option<Up<T>>
    where
        F: AsyncFnMut(Build<T>) -> O,
        O: BuildOutput<T>,
        B: Body<T>,
        P: Probes<T>,
    {
        // The references to the previous instance that remained when the drain timeout expired.
        let mut holders = 0;
        // The service must stop, and its instance has failed before that.
        let mut is_over = false;
        // The time at which the last instance or build has failed.
        let mut failed_at = None;
        // The last poll in which the service was built again without a delay.
        let mut rebuilt_in = None;
        if let Some(interrupted) = delay {
            self.released(counter).await?;
            // A restart and a start end the delay.
            if self.control.take_reset() {
                counter.reset();
                *delay = None;
            } else {
                self.report_delay(interrupted, counter);
            }
        }
        loop {
            if let Some(waiting) = delay {
                if !self.wait_to_retry(waiting, counter).await {
                    // The service must stop, and it is down.
                    return None;
                }
                *delay = None;
            }
            // Returns here if the service must stop: no instance is up.
            self.body_returned(&work.body, counter).await?;
            let mut inputs = Inputs::default();
            let result = {
                let mut attempt = self.begin(counter, failed_at).await?;
                // Boxed: most registries have neither limits nor groups, and their supervisors pay
                // nothing for them.
                let place = match self.registry().supervisors().places.exist() {
                    true => Box::pin(self.place(&mut attempt, counter)).await,
                    false => None,
                };
                let number = place.as_ref().map(|place| place.build);
                // Before the builder is called: a change during the build counts.
                inputs.declared = self.registry().store().declared(self.id().index());
                self.build(&mut attempt, counter, number, holders, builder, &mut inputs).await
            };
            // The failures are shielded: each may be the last owner of the user's reason.
            let (failed, since) = match result {
                BuildResult::Running(running, graces) => {
                    // A reset that was requested during the build.
                    if self.control.take_reset() {
                        counter.reset();
                    }
                    counter.record_up(self.now());
                    let (running, state) = match O::COMPLETES {
                        true => (Up::new::<NoBody, P>(running), SupervisorState::Completed),
                        false => (Up::new::<B, P>(running), SupervisorState::Up),
                    };
                    self.set_state(state, counter.failures(), None);
                    // `since` is before the end of the body and the draining: both are part of the
                    // backoff.
                    let tenure = Tenure::new(graces, builder, &mut inputs, counter);
                    let up = match &running {
                        Up::Owned(running) => {
                            self.down(running, tenure).await.map(|failed| (failed, self.now()))
                        }
                        Up::Shared(running) => {
                            let calls_body = B::EXISTS && !O::COMPLETES;
                            self.run_work(running, tenure, work, calls_body).await
                        }
                    };
                    let Some((failed, since)) = up else {
                        // The service must stop. In a planned end `stop` takes the instance down,
                        // after a close the drop of `running` does. What follows is no failure of
                        // this instance, however late it is.
                        counter.record_down(self.now());
                        *delay = self.spread_after_end(&mut inputs, counter);
                        return Some(running);
                    };
                    let ended = self.end_failed(running, &failed, counter, earlier).await;
                    // If the service must stop, `stop` continues the draining.
                    (is_over, holders) = (ended.is_none(), ended.unwrap_or_default());
                    (failed, since)
                }
                // The shutdown itself may have invalidated the build (S4), which is not a
                // failure to be counted.
                BuildResult::Failed(failure) if self.control.must_end() => {
                    drop(Shielded::new(failure));
                    *delay = self.spread_after_end(&mut inputs, counter);
                    return None;
                }
                BuildResult::Failed(failure) => (Shielded::new(failure), self.now()),
                // The attempt has failed, so no instance is up. It may not be the turn of the
                // service yet: then a dependency has stopped, and no other build could get it.
                BuildResult::MustStop => {
                    self.must_stop().await;
                    *delay = self.spread_after_end(&mut inputs, counter);
                    return None;
                }
            };
            // A reset that was requested during the build, while the instance was up, or during the
            // draining: this failure is counted as the first one.
            if self.control.take_reset() {
                counter.reset();
            }
            // The failure is dropped before the delay: the user's reason must not live as long as
            // the service stays down.
            *delay = self.delay_after(&failed, since, &mut inputs, counter);
            failed_at = Some(since);
            if is_over {
                return None;
            }
            if delay.is_none() {
                // An instance, or a build, may fail at once, each time: a poll must not last for
                // ever.
                let poll = Some(present_poll());
                if rebuilt_in == poll {
                    yield_task().await;
                }
                rebuilt_in = poll;
            }
        }
    }

    /// Waits until no restart or stop is in progress, and the service is not stopped. Returns
    /// `None` if the service must stop.
    pub(super) async fn released(&self, counter: &FailureCounter) -> Option<()> {
        let (store, index) = (self.registry().store(), self.id().index());
        if !store.service(index).end_mark.is_set() {
            return Some(());
        }
        self.set_state(SupervisorState::Stopped, counter.failures(), None);
        let released = pin!(Wait::new(Released { store, index }));
        self.must_stop().unless_holds(released).await
    }

    /// Begins the next attempt. Returns `None` if the service must stop. `since` is the time of the
    /// last failure.
    async fn begin(&self, counter: &FailureCounter, since: Option<Instant>) -> Option<Attempt<T>> {
        self.released(counter).await?;
        self.set_state_since(SupervisorState::Building, counter.failures(), None, since);
        match self.must_stop().unless_holds(pin!(self.provider.begin())).await? {
            Ok(attempt) => Some(attempt),
            // A shutdown has marked the service, and its turn to stop follows (S4).
            Err(_) => {
                self.must_stop().await;
                None
            }
        }
    }

    /// Waits until the service must stop.
    pub(super) fn must_stop(&self) -> Wait<CommandWait<'_>> {
        // A reset is not taken here: the loop takes it after the build or the failure.
        Wait::new(CommandWait { accept_reset: false, ..self.command_wait() })
    }
}

/// Waits until the service may begin, or never may again.
struct Released<'a> {
    store: &'a Store,
    index: ServiceIndex,
}

impl Condition for Released<'_> {
    type Output = ();

    fn check(&mut self) -> Option<()> {
        let mark = &self.store.service(self.index).end_mark;
        (!mark.is_set() || mark.is_final()).then_some(())
    }

    fn slots(&self) -> WaitSlots {
        WaitSlots::of(self.index)
    }

    fn store(&self) -> &Store {
        self.store
    }

    fn timed_out(&self, _: Duration) {}
}
