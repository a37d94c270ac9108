//! The loop of one supervisor. `docs/supervision.md` has a diagram.
//!
//! A service *must stop* if the registry is closed, or if a shutdown has reached the service. Each
//! step of the loop ends early in this case.

use std::time::Duration;

use futures_lite::future::or;

use super::{
    Body, Build, BuildOutput, SupervisorState,
    building::BuildResult,
    ending::Up,
    policy::FailureCounter,
    retrying::{Delay, Inputs},
    supervisor::ServiceLoop,
    user_code::UserBuilder,
};
use crate::{
    numbers::ServiceIndex,
    provide::Attempt,
    registry::CommandWait,
    store::{InstanceTracker, Store},
    sync::Shielded,
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
    pub(super) async fn run_loop<F, O, B>(
        &self,
        builder: &mut UserBuilder<F>,
        body: &mut B,
        earlier: &mut Vec<InstanceTracker<T>>,
        counter: &mut FailureCounter,
        delay: &mut Option<Delay>,
    ) -> Option<Up<T>>
    where
        F: AsyncFnMut(Build<T>) -> O,
        O: BuildOutput<T>,
        B: Body<T>,
    {
        // The references to the previous instance that remained when the drain timeout expired.
        let mut holders = 0;
        // The service must stop, and its instance has failed before that.
        let mut is_over = false;
        if let Some(interrupted) = delay {
            self.released(counter).await?;
            self.report_delay(interrupted, counter);
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
            self.body_returned(body, counter).await?;
            let attempt = self.begin(counter).await?;
            // Before the builder is called: a change during the build counts.
            let declared = self.registry().store().declared(self.id().index());
            // The failures are shielded: each may be the last owner of the user's reason.
            let (failed, since, inputs) = match self.build(attempt, counter, holders, builder).await
            {
                BuildResult::Running(running, graces, inputs) => {
                    // A reset that was requested during the build.
                    if self.control.take_reset() {
                        counter.reset();
                    }
                    counter.record_up(self.now());
                    let (running, state) = match O::COMPLETES {
                        true => (Up::WithoutBody(running), SupervisorState::Completed),
                        false => (Up::new::<B>(running), SupervisorState::Up),
                    };
                    self.set_state(state, counter.failures(), None);
                    // The service must stop. In a shutdown `stop` takes the instance down,
                    // after a close the drop of `running` does.
                    // `since` is before the end of the body and the draining: both are part of the
                    // backoff.
                    let up = self.run_instance(&running, graces, body).await;
                    let Some((failed, since)) = up else {
                        // What follows is no failure of this instance, however late it is.
                        counter.record_down(self.now());
                        return Some(running);
                    };
                    let ended = self.end_failed(running, &failed, counter, earlier).await;
                    // If the service must stop, `stop` continues the draining.
                    (is_over, holders) = (ended.is_none(), ended.unwrap_or_default());
                    (failed, since, inputs)
                }
                // The shutdown itself may have invalidated the build (S4), which is not a
                // failure to be counted.
                BuildResult::Failed(failure, _) if self.control.must_end() => {
                    drop(Shielded::new(failure));
                    return None;
                }
                BuildResult::Failed(failure, edges) => {
                    let inputs = Inputs { edges, ..Inputs::default() };
                    (Shielded::new(failure), self.now(), inputs)
                }
                // The attempt has failed, so no instance is up. It may not be the turn of the
                // service yet: then a dependency has stopped, and no other build could get it.
                BuildResult::MustStop => return self.must_stop().await,
            };
            // A reset that was requested during the build, while the instance was up, or during the
            // draining: this failure is counted as the first one.
            if self.control.take_reset() {
                counter.reset();
            }
            let inputs = Inputs { declared, ..inputs };
            *delay = self.delay_after(failed, since, inputs, counter);
            if is_over {
                return None;
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
        let released = Wait::new(Released { store, index });
        or(self.must_stop(), async {
            released.await;
            Some(())
        })
        .await
    }

    /// Begins the next attempt. Returns `None` if the service must stop.
    async fn begin(&self, counter: &FailureCounter) -> Option<Attempt<T>> {
        self.released(counter).await?;
        self.set_state(SupervisorState::Building, counter.failures(), None);
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
    pub(super) async fn must_stop<R>(&self) -> Option<R> {
        // A reset is not taken here: the loop takes it after the build or the failure.
        Wait::new(CommandWait { accept_reset: false, ..self.command_wait() }).await;
        None
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
