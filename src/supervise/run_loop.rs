//! The loop of one supervisor. `docs/supervision.md` has a diagram.
//!
//! A service *must stop* if the registry is closed, or if a shutdown has reached the service. Each
//! step of the loop ends early in this case.

use std::time::{Duration, Instant};

use futures_lite::future::or;

use super::{
    Body, Build, BuildOutput, SupervisorState,
    building::BuildResult,
    ending::Up,
    policy::{FailureCounter, Verdict},
    supervisor::ServiceLoop,
    user_code::UserBuilder,
};
use crate::{
    failure::{Failure, Reason},
    provide::Attempt,
    registry::{Command, CommandWait},
    store::InstanceTracker,
    sync::Shielded,
    waiting::Wait,
};

impl<T: Send + Sync + 'static> ServiceLoop<T> {
    /// Builds the service, again after each failure, until it must stop. Returns the instance that
    /// is up at this time. No body is running then, apart from a blocking one that did not return
    /// in time.
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
                    self.set_state(SupervisorState::Up, counter.failures(), None);
                    let running = Up::new::<B>(running);
                    // The service must stop. In a shutdown `stop` takes the instance down, after a
                    // close the drop of `running` does.
                    let Some(failed) = self.run_instance(&running, graces, body).await else {
                        return Some(running);
                    };
                    // Before the draining, which is part of the backoff.
                    let since = self.now();
                    // The service must stop. In a shutdown `stop` continues the draining.
                    let ended = self.end_failed(running, &failed, &counter, earlier).await;
                    holders = ended?;
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
                    self.set_down(SupervisorState::GivenUp, counter.failures(), &failed);
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

    /// Waits until the backoff ends. Returns `false` if the service must stop.
    async fn back_off(&self, backoff: Backoff, counter: &mut FailureCounter) -> bool {
        // The loop does not report `BackingOff` for no time. `begin` checks whether the service
        // must stop.
        if backoff.delay.is_zero() {
            return true;
        }
        let end = backoff.since.checked_add(backoff.delay);
        self.set_state(SupervisorState::BackingOff, counter.failures(), end);
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

    /// Returns the condition of a wait for a stop or a reset.
    fn command_wait(&self) -> CommandWait<'_> {
        let (store, index) = (self.registry().store(), self.id().index());
        let control = &self.control;
        CommandWait { store, index, control, accept_reset: true, passed: None }
    }
}

/// Returns whether the failure is counted against the service itself (S1): it began there, and not
/// because a dependency was absent for a grace period.
fn counts_against_service(failure: &Failure) -> bool {
    failure.root == failure.service && !matches!(failure.reason, Reason::GraceExpired { .. })
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
