//! The instance that is up, with its body and its probes: its *tenure*, from its publication until
//! its end is announced. A reload begins the next publication in it (S20).

use std::{
    future::{Future, poll_fn},
    mem,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures_lite::future::{or, zip};

use super::{
    Body, BodyEnd, BodyFailure, Build, BuildOutput, Live, Probes, SupervisorState,
    aside::NewPublication,
    body::BodyResult,
    failure_counter::FailureCounter,
    output::UserError,
    pending_attempt::Grace,
    retrying::Inputs,
    supervisor::{ServiceLoop, Work},
    user_code::{UserBuilder, work_end},
};
use crate::{
    failure::{Failure, Reason},
    numbers::{Generation, ServiceIndex},
    provide::Running,
    registry::{BodyReport, Control, Registry, UpCommand},
    store::{Store, Target},
    sync::Shielded,
    waiting::{
        Wait,
        sealed::{Condition, WaitSlots},
    },
};

/// What belongs to the present publication, and what the next one needs that a reload begins.
pub(super) struct Tenure<'a, F> {
    /// The revision of the first instance of the present publication.
    first: u64,
    /// Those of its build, until they are enforced.
    graces: Vec<Grace>,
    builder: &'a mut UserBuilder<F>,
    inputs: &'a mut Inputs,
    counter: &'a FailureCounter,
}

impl<'a, F> Tenure<'a, F> {
    /// An instance that was published, whose build has recorded these grace periods.
    pub(super) fn new(
        graces: Vec<Grace>,
        builder: &'a mut UserBuilder<F>,
        inputs: &'a mut Inputs,
        counter: &'a FailureCounter,
    ) -> Self {
        Self { first: 0, graces, builder, inputs, counter }
    }
}

/// What has ended the present publication.
enum PublicationEnd {
    /// The instance has failed; `None`: the service must stop.
    Down(Option<Shielded<Failure>>),
    /// A reload: the tenure has what belongs to the next publication.
    Reloaded,
}

/// A call of a body.
enum Call<'a, B> {
    First(Pin<&'a mut B>),
    AfterReload(Pin<Box<B>>),
}

impl<B: Future> Future for Call<'_, B> {
    type Output = B::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<B::Output> {
        match self.get_mut() {
            Self::First(call) => call.as_mut().poll(context),
            Self::AfterReload(call) => call.as_mut().poll(context),
        }
    }
}

impl<T: Send + Sync + 'static> ServiceLoop<T> {
    /// Waits until a published instance without a body and without probes has failed. Returns
    /// `None` if the service must stop.
    pub(super) async fn down<F, O>(
        &self,
        running: &Running<T>,
        mut tenure: Tenure<'_, F>,
    ) -> Option<Shielded<Failure>>
    where
        F: AsyncFnMut(Build<T>) -> O,
        O: BuildOutput<T>,
    {
        loop {
            if let PublicationEnd::Down(failed) = self.over(running, &mut tenure).await {
                return failed;
            }
        }
    }

    /// Runs the body of a published instance, if there is one and `calls_body`, and its probes,
    /// until the instance fails; after a reload, those of the next publication. Then waits until
    /// the bodies have returned, at most for the stop timeout, and until the registry is closed.
    /// Returns the failure, and its time: the body may return much later. Returns `None` if the
    /// service must stop: then the instance can still be read.
    pub(super) async fn run_work<F, O, B, P>(
        &self,
        running: &Arc<Running<T>>,
        mut tenure: Tenure<'_, F>,
        work: &mut Work<B, P>,
        calls_body: bool,
    ) -> Option<(Shielded<Failure>, Instant)>
    where
        F: AsyncFnMut(Build<T>) -> O,
        O: BuildOutput<T>,
        B: Body<T>,
        P: Probes<T>,
    {
        let Work { body, probes } = work;
        let (body, counter, generation) = (&*body, tenure.counter, running.generation());
        let first = pin!(body.run(Live::new(running, 0, &self.control)));
        // `None` after it has returned.
        let mut call = calls_body.then_some(Call::First(first));
        // The bodies of earlier publications, which stop. The oldest one is the first.
        let mut stopping = Vec::new();
        // The result of a body that has returned at the same time as the end.
        let mut returned = None;
        let failed = loop {
            let of_this = tenure.first;
            let ended = {
                // S19: dropped at the end of the instance, before its body has returned. The build
                // aside is a part of `over`, and is dropped before them.
                let mut probes = pin!(probes.run(self, running, of_this));
                let mut over = pin!(self.over(running, &mut tenure));
                poll_fn(|context| {
                    // The end of the instance first: a body that returns because of it has not
                    // failed.
                    if let Poll::Ready(ended) = over.as_mut().poll(context) {
                        return Poll::Ready(ended);
                    }
                    // Before the present one, which may wait for them (S10).
                    poll_all(&mut stopping, context);
                    if let Some(result) = poll_call(&mut call, context) {
                        // Once more: the end may have come since, and the body has returned because
                        // of it. The wake-up of `over` follows the end, and may not have come yet.
                        if let Some(ended) = self.check_ended(generation) {
                            returned = Some(result);
                            return Poll::Ready(PublicationEnd::Down(ended.failed()));
                        }
                        self.body_decides(running, of_this, result, counter);
                        if let Poll::Ready(ended) = over.as_mut().poll(context) {
                            return Poll::Ready(ended);
                        }
                    }
                    // They never complete: a probe that fails the instance wakes `over`.
                    let _ = probes.as_mut().poll(context);
                    Poll::Pending
                })
                .await
            };
            match ended {
                PublicationEnd::Down(failed) => break failed,
                PublicationEnd::Reloaded => {
                    if let Some(old) = call.take() {
                        stopping.push(Box::pin(self.old_body_ends(generation, old)));
                    }
                    if calls_body {
                        let live = Live::new(running, tenure.first, &self.control);
                        call = Some(Call::AfterReload(Box::pin(body.run(live))));
                        // The last one may have said that its work is done.
                        self.set_state(SupervisorState::Up, counter.failures(), None);
                    }
                }
            }
        };
        let since = self.now();
        let is_called = call.is_some() || returned.is_some();
        if is_called || !stopping.is_empty() {
            // It knows (`Live::stopping`), and may have been notified before this supervisor.
            self.set_state(SupervisorState::Stopping, counter.failures(), None);
            let old = poll_fn(|context| {
                poll_all(&mut stopping, context);
                if stopping.is_empty() { Poll::Ready(()) } else { Poll::Pending }
            });
            let must_stop = failed.is_none();
            // Its result changes nothing now.
            let present = async {
                let result = match (returned.take(), call.take()) {
                    (Some(result), _) => result.map(drop),
                    (None, Some(call)) => call.await.map(drop),
                    (None, None) => Ok(()),
                };
                // A late one, of before a reload, may use dependencies (S4).
                if must_stop && body.running().is_some() {
                    body.returned().await;
                }
                result
            };
            let present = async {
                if is_called || must_stop {
                    self.body_ends(generation, since, present).await;
                }
            };
            zip(old, present).await;
        }
        failed.map(|failed| (failed, since))
    }

    /// Waits until a body has returned that was notified at `since`, at most for the stop timeout,
    /// and reports how it has ended. If the registry is closed, the body is polled once more, and
    /// not waited for.
    pub(super) async fn body_ends(
        &self,
        generation: Generation,
        since: Instant,
        returned: impl Future<Output = Result<(), UserError>>,
    ) {
        let Some(reason) = self.end_of_body(generation, since, returned).await else { return };
        let took = self.now().saturating_duration_since(since);
        // A request of a planned end that comes later removes the report: it is not of this end.
        self.control.report_body(BodyReport { took, end: work_end(reason.as_deref()) });
    }

    /// Waits until the body of an earlier publication has returned, as `body_ends`.
    async fn old_body_ends(&self, generation: Generation, call: impl Future<Output = BodyResult>) {
        // Its result changes nothing now.
        let returned = async { call.await.map(drop) };
        self.end_of_body(generation, self.now(), returned).await;
    }

    /// Waits until a body has returned, at most for the stop timeout. Returns why it has failed.
    /// Returns `None` if the registry is closed.
    async fn end_of_body(
        &self,
        generation: Generation,
        since: Instant,
        returned: impl Future<Output = Result<(), UserError>>,
    ) -> Option<Option<Shielded<Reason>>> {
        let after = self.policy.stop_timeout;
        let returned = async { Some(returned.await) };
        let late = async {
            self.sleep_until(since.checked_add(after)).await;
            Some(Err(BodyFailure::TimedOut { after }.into()))
        };
        let result = or(or(returned, late), self.closed()).await?;
        let reason = result.err().map(Reason::error);
        if let Some(reason) = &reason {
            self.body_failed(generation, reason);
        }
        Some(reason)
    }

    /// Waits until the present publication is over: its instance has failed, the service must stop,
    /// or a reload has begun the next one. Enforces its grace periods until then.
    async fn over<F, O>(&self, running: &Running<T>, tenure: &mut Tenure<'_, F>) -> PublicationEnd
    where
        F: AsyncFnMut(Build<T>) -> O,
        O: BuildOutput<T>,
    {
        // Most services have no grace period and are not reloaded, and pay nothing for others.
        if tenure.graces.is_empty() {
            match Wait::new(self.ends(running.generation(), true)).await {
                Ended::Other => {}
                ended => return PublicationEnd::Down(ended.failed()),
            }
        }
        Box::pin(self.over_or_reloaded(running, tenure)).await
    }

    async fn over_or_reloaded<F, O>(
        &self,
        running: &Running<T>,
        tenure: &mut Tenure<'_, F>,
    ) -> PublicationEnd
    where
        F: AsyncFnMut(Build<T>) -> O,
        O: BuildOutput<T>,
    {
        let (generation, graces) = (running.generation(), mem::take(&mut tenure.graces));
        let down = async { Err(Wait::new(self.ends(generation, false)).await.failed()) };
        let reloaded = async { Ok(self.reloaded(running, tenure.builder, tenure.counter).await) };
        let enforced = self.enforce_graces(graces, running, tenure.first);
        let adopted = self.adopted(running, tenure.first);
        match or(or(down, reloaded), or(enforced, adopted)).await {
            Err(failed) => PublicationEnd::Down(failed),
            Ok(NewPublication { first, graces, inputs }) => {
                (tenure.first, tenure.graces, *tenure.inputs) = (first, graces, inputs);
                PublicationEnd::Reloaded
            }
        }
    }

    /// Returns whether the instance of this generation has failed, or the service must stop.
    pub(super) fn has_ended(&self, generation: Generation) -> bool {
        self.check_ended(generation).is_some()
    }

    fn check_ended(&self, generation: Generation) -> Option<Ended> {
        Wait::new(self.ends(generation, false)).check_now()
    }

    fn ends(&self, generation: Generation, unless_other: bool) -> InstanceEnds<'_> {
        InstanceEnds {
            registry: self.registry(),
            index: self.id().index(),
            generation,
            control: &self.control,
            unless_other,
        }
    }

    /// Decides what the return of a body means for its instance. `first` is the revision of the
    /// first instance of its publication: if a reload has ended that, and the supervisor has not
    /// noticed it, it means nothing.
    fn body_decides(
        &self,
        running: &Running<T>,
        first: u64,
        result: BodyResult,
        counter: &FailureCounter,
    ) {
        let reason = match result {
            Ok(Some(BodyEnd::StayReady)) => return,
            Ok(Some(BodyEnd::Completed)) => {
                self.set_state(SupervisorState::Completed, counter.failures(), None);
                return;
            }
            Ok(None) => Reason::error(BodyFailure::Returned),
            Err(error) => Reason::error(error),
        };
        let target = Target::publication(running.generation(), first);
        let _ = self.registry().cascade(self.id().index(), target, reason);
    }
}

/// Polls a call of a body, if there is one. Removes it when it has returned.
fn poll_call<B: Future>(
    call: &mut Option<Call<'_, B>>,
    context: &mut Context<'_>,
) -> Option<B::Output> {
    match Pin::new(call.as_mut()?).poll(context) {
        Poll::Ready(result) => {
            *call = None;
            Some(result)
        }
        Poll::Pending => None,
    }
}

/// Polls all of these in their order, and removes those that have completed.
fn poll_all<E: Future<Output = ()>>(list: &mut Vec<Pin<Box<E>>>, context: &mut Context<'_>) {
    list.retain_mut(|it| it.as_mut().poll(context).is_pending());
}

/// Waits until an instance has failed, or the service must stop.
struct InstanceEnds<'a> {
    registry: &'a Registry,
    index: ServiceIndex,
    generation: Generation,
    control: &'a Control,
    /// Whether a declared grace period, and a request of a reload, end the wait, too.
    unless_other: bool,
}

/// What has ended the wait for the end of an instance.
enum Ended {
    Failed(Shielded<Failure>),
    MustStop,
    /// A grace period was declared, or a reload has requested something.
    Other,
}

impl Ended {
    /// Returns the failure of the instance, if it has failed.
    fn failed(self) -> Option<Shielded<Failure>> {
        match self {
            Self::Failed(failed) => Some(failed),
            Self::MustStop | Self::Other => None,
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
        let UpCommand { must_end, reload } = self.control.up_command();
        if store.is_closed() || must_end {
            return Some(Ended::MustStop);
        }
        let other = self.unless_other && (reload || store.graces_declared(self.index) > 0);
        other.then_some(Ended::Other)
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
