//! One build: runs the builder, and publishes its value.

use std::{error::Error, mem, pin::pin, time::Duration};

use futures_lite::future::or;

use super::{
    Build, BuildFailure, BuildOutput,
    build_timer::BuildTimer,
    failure_counter::FailureCounter,
    pending_attempt::{self, Grace},
    retrying::Inputs,
    supervisor::ServiceLoop,
    user_code::UserBuilder,
};
use crate::{
    error::ReadyError,
    failure::{Failure, Reason},
    numbers::{Generation, ServiceIndex},
    provide::{Attempt, Running},
    registry::{BuildNumber, Control, Registry, Reload},
    store::Store,
    sync::Shielded,
    waiting::{
        Wait,
        sealed::{Condition, WaitSlots},
    },
};

impl<T: Send + Sync + 'static> ServiceLoop<T> {
    /// Runs one build, and publishes its value. Stores in `inputs` what it was given.
    pub(super) async fn build<F, O>(
        &self,
        attempt: &mut Attempt<T>,
        counter: &FailureCounter,
        number: Option<BuildNumber>,
        holders: usize,
        builder: &mut UserBuilder<F>,
        inputs: &mut Inputs,
    ) -> BuildResult<T>
    where
        F: AsyncFnMut(Build<T>) -> O,
        O: BuildOutput<T>,
    {
        let timeout = counter.policy().build_timeout;
        let timer = BuildTimer::new(timeout, || self.now());
        let (pending, build) =
            pending_attempt::split(attempt, counter.failures(), holders, timer, number);
        if timeout.is_some() {
            self.control.set_build(pending.deadline());
        }
        let outcome = {
            let useless = Wait::new(BuildUseless {
                registry: self.registry(),
                index: self.id().index(),
                generation: pending.generation(),
                control: &self.control,
                reload: None,
            });
            let timed_out = async {
                self.build_timed_out(pending.timer()).await;
                Err(BuildFailure::timed_out(timeout).into())
            };
            // A build that is ready at its deadline is in time. A build whose value cannot be
            // published is not polled.
            let work = pin!(or(builder.build(build), timed_out));
            useless.unless_holds(work).await
        };
        let is_exceeded = pending.timer().is_exceeded(|| self.now());
        let graces = pending.end_build();
        let outcome = match outcome {
            // A blocking build could not be dropped at its deadline, and an async build that is
            // polled late is polled before its timeout.
            Some(Ok(value)) if is_exceeded => {
                drop(Shielded::new(value));
                Some(Err(BuildFailure::timed_out(timeout).into()))
            }
            outcome => outcome,
        };
        let result = match outcome {
            Some(Ok(value)) => match self.publish(attempt, value) {
                Ok(running) => {
                    attempt.edges.forget_received();
                    inputs.built_from = running.origin.built_from.clone();
                    BuildResult::Running(running, graces)
                }
                Err(ReadyError::Invalidated { value, failure }) => {
                    drop(Shielded::new(value));
                    BuildResult::Failed(failure)
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
        };
        // The attempt has ended, and needs them no more.
        mem::swap(&mut inputs.edges, &mut attempt.edges);
        result
    }

    /// Waits until the timeout of a build has expired.
    pub(super) async fn build_timed_out(&self, timer: &BuildTimer) {
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
        attempt: &mut Attempt<T>,
        reason: Box<dyn Error + Send + Sync>,
    ) -> BuildResult<T> {
        let reason = Shielded::new(reason);
        // An error of a build that must stop, or whose dependency has stopped, is a consequence of
        // this, and is not counted.
        let store = self.registry().store();
        let has_stopped = |dependency| store.service(dependency).end_mark.is_final();
        let planned = self.control.end_requested().map(|end| end.reason.clone());
        let planned = planned
            .or_else(|| attempt.edges.any_dependency(has_stopped).then_some(Reason::ShutDown));
        let planned = planned.or_else(|| self.registry().is_closed().then_some(Reason::Closed));
        if let Some(planned) = planned {
            let _ = attempt.end(Shielded::new(planned));
            return BuildResult::MustStop;
        }
        let failure = match attempt.end(Reason::error(reason.into_inner())) {
            // The failure that invalidated the attempt decides what happens next, and not the error
            // of the build. So a builder may return the error of an invalidated wait.
            Err(invalidated_by) => invalidated_by,
            Ok(()) => match self.registry().store().last_failure(self.id().index()) {
                Some(failure) => failure,
                None => unreachable!("the reason of an attempt that has just failed is stored"),
            },
        };
        BuildResult::Failed(failure)
    }
}

/// Waits until the value of a build could not be published: its attempt was invalidated, its reload
/// is over, or the service must stop.
pub(super) struct BuildUseless<'a> {
    pub(super) registry: &'a Registry,
    pub(super) index: ServiceIndex,
    pub(super) generation: Generation,
    pub(super) control: &'a Control,
    /// For a build aside.
    pub(super) reload: Option<&'a Reload>,
}

impl Condition for BuildUseless<'_> {
    type Output = ();

    fn check(&mut self) -> Option<()> {
        let store = self.registry.store();
        let has_ended = match self.reload {
            None => !store.is_starting(self.index, self.generation),
            Some(reload) => reload.is_over(),
        };
        let is_useless = has_ended || store.is_closed() || self.control.must_end();
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

/// The result of one build.
pub(super) enum BuildResult<T: Send + Sync + 'static> {
    /// The value was published. The grace periods apply from now on.
    Running(Running<T>, Vec<Grace>),
    /// The build returned an error, panicked or timed out; or a cascade has invalidated the
    /// attempt.
    Failed(Failure),
    /// The registry is closed, or a shutdown has reached the service or one of its dependencies.
    MustStop,
}
