//! One build: runs the builder, and publishes its value.

use std::{
    error::Error,
    future::{Future, poll_fn},
    mem,
    pin::{Pin, pin},
    task::Poll,
    time::Duration,
};

use futures_lite::future::or;

use super::{
    Build, BuildFailure, BuildOutput, build, build_timer::BuildTimer, pending_attempt::Grace,
    policy::FailureCounter, retrying::Inputs, supervisor::ServiceLoop, user_code::UserBuilder,
};
use crate::{
    error::ReadyError,
    failure::{Failure, Reason},
    numbers::{Generation, ServiceIndex},
    provide::{Attempt, Running},
    registry::{Control, Registry},
    store::{Store, UsedEdges},
    sync::Shielded,
    waiting::{
        Wait,
        sealed::{Condition, WaitSlots},
    },
};

impl<T: Send + Sync + 'static> ServiceLoop<T> {
    /// Runs one build, and publishes its value.
    pub(super) async fn build<F, O>(
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
        if timeout.is_some() {
            self.control.set_build(attempt.deadline());
        }
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
        let (mut attempt, graces) = attempt.end_build();
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
            Some(Ok(value)) => match self.publish(&mut attempt, value) {
                Ok(running) => {
                    let edges = mem::take(&mut attempt.edges);
                    edges.forget_received();
                    let built_from = running.origin.built_from.clone();
                    let inputs = Inputs { edges, built_from, ..Inputs::default() };
                    BuildResult::Running(running, graces, inputs)
                }
                Err(ReadyError::Invalidated { value, failure }) => {
                    drop(Shielded::new(value));
                    BuildResult::Failed(failure, mem::take(&mut attempt.edges))
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
        BuildResult::Failed(failure, mem::take(&mut attempt.edges))
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
            || self.control.must_end();
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
#[cfg_attr(shuttle, expect(clippy::large_enum_variant, reason = "the locks of shuttle are large"))]
pub(super) enum BuildResult<T: Send + Sync + 'static> {
    /// The value was published. The grace periods apply from now on.
    Running(Running<T>, Vec<Grace>, Inputs),
    /// The build returned an error, panicked or timed out; or a cascade has invalidated the
    /// attempt. The attempt has used these edges.
    Failed(Failure, UsedEdges),
    /// The registry is closed, or a shutdown has reached the service or one of its dependencies.
    MustStop,
}
