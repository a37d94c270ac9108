//! When a service is built again after a failure: at once, after a backoff, or after a change of
//! what it was built from.

use std::{
    collections::{BTreeMap, HashMap},
    future::{Future, pending},
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use futures_lite::future::or;

use super::{
    SupervisorState,
    failure_counter::{Decision, FailureCounter},
    supervisor::ServiceLoop,
    verdict::Meaning,
    wake_list::WakeList,
};
use crate::{
    failure::Failure,
    instance::BuiltFrom,
    numbers::ServiceIndex,
    registry::{Command, CommandWait},
    service::{AnyId, ServiceName},
    store::{Edge, Given, Received, Store, UsedEdges},
    waiting::{
        Wait,
        sealed::{Condition, WaitSlots},
    },
};

/// What the last attempt was given: the instances from which it was built, and those that it could
/// have used.
#[derive(Default)]
pub(super) struct Inputs {
    /// The present instances of the declared dependencies, read when the attempt began.
    pub(super) declared: Vec<Given>,
    /// What the attempt was given over the edges that it has used.
    pub(super) edges: UsedEdges,
    /// If the attempt was published: what it has received. `edges` has forgotten these.
    pub(super) built_from: Option<Arc<[BuiltFrom]>>,
}

impl Inputs {
    /// Returns what the attempt was given of each service, apart from a `missing` one.
    fn given(&self, missing: Option<ServiceIndex>) -> BTreeMap<ServiceIndex, Option<Received>> {
        let mut given: BTreeMap<_, _> = self.declared.iter().copied().collect();
        given.extend(self.edges.given());
        for from in self.built_from.iter().flat_map(|built_from| built_from.iter()) {
            let received = Some((from.generation, from.revision));
            let given = given.entry(from.service.index).or_default();
            *given = received.max(*given);
        }
        // The error says that it was not there, whatever the attempt was given before.
        given.extend(missing.map(|missing| (missing, None)));
        given
    }
}

/// The wait for a retry. A planned end may interrupt it.
pub(super) struct Delay {
    pub(super) until: Until,
    /// The time of the failure: the time of draining is part of the delay.
    pub(super) since: Instant,
    pub(super) inputs: Inputs,
}

/// What a retry waits for.
pub(super) enum Until {
    /// This time since the failure, or a change.
    Passed(Duration),
    /// A change, most likely of this service: it was not available.
    Available(ServiceIndex),
    /// A change: the error was permanent.
    Changed,
    /// A change, if the policy says so: the supervisor has given up.
    Reset,
    /// The dependencies, and then a random time, because the failure was theirs.
    Spread,
    /// A restart of the group, which has given up.
    Group,
}

/// What has ended the wait for a retry.
enum Ended {
    Stop,
    Reset,
    Time,
    Change,
}

impl Delay {
    /// Returns the time at which it ends without a change.
    fn end(&self) -> Option<Instant> {
        match self.until {
            Until::Passed(delay) => self.since.checked_add(delay),
            _ => None,
        }
    }

    /// Returns the time before which no change ends it.
    fn first_backoff(&self, counter: &FailureCounter) -> Option<Instant> {
        self.since.checked_add(counter.policy().first_backoff())
    }
}

impl<T: Send + Sync + 'static> ServiceLoop<T> {
    /// Counts a failure, and reports what follows it. Returns `None` if the service is built again
    /// immediately.
    pub(super) fn delay_after(
        &self,
        failed: &Failure,
        since: Instant,
        inputs: &mut Inputs,
        counter: &mut FailureCounter,
    ) -> Option<Delay> {
        let meaning = Meaning::of(failed);
        let missing = match &meaning {
            Meaning::Unavailable(service) => self.missing(service, counter),
            _ => None,
        };
        let (decision, is_counted) = match meaning {
            Meaning::Excused => (counter.ignore_failure(since), false),
            Meaning::Planned => (counter.ignore_planned_failure(since), false),
            Meaning::Unavailable(_) if missing.is_some() => (counter.ignore_failure(since), false),
            Meaning::Unavailable(_) | Meaning::Failed | Meaning::Permanent => {
                (counter.count_failure(since), true)
            }
        };
        let counted = is_counted.then_some((since, &decision));
        if let Some(why) = self.group_gives_up(failed, counted) {
            self.set_down(SupervisorState::GivenUp, counter.failures(), &why.failure);
            return Some(Delay { until: Until::Group, since, inputs: mem::take(inputs) });
        }
        if meaning == Meaning::Excused && counter.policy().is_spread(failed) {
            return Some(Delay { until: Until::Spread, since, inputs: mem::take(inputs) });
        }
        let until = match decision {
            Decision::GiveUp => Until::Reset,
            Decision::RetryAfter(delay) => match missing {
                Some(missing) => Until::Available(missing),
                None if meaning == Meaning::Permanent => Until::Changed,
                // A delay of zero needs no clock. It follows most failures after a stable time.
                None if delay.is_zero() => return None,
                // The loop does not report `BackingOff` for no time. The delay may have passed
                // while the instance was drained.
                None if since.checked_add(delay).is_some_and(|end| end <= self.now()) => {
                    return None;
                }
                None => Until::Passed(delay),
            },
        };
        let delay = Delay { until, since, inputs: mem::take(inputs) };
        match delay.until {
            Until::Changed => {
                self.set_down(SupervisorState::Permanent, counter.failures(), failed);
            }
            Until::Reset => self.set_down(SupervisorState::GivenUp, counter.failures(), failed),
            _ => self.report_delay(&delay, counter),
        }
        Some(delay)
    }

    /// Reports the state, but not the event of a failure.
    pub(super) fn report_delay(&self, delay: &Delay, counter: &FailureCounter) {
        let failures = counter.failures();
        match delay.until {
            Until::Passed(_) => {
                self.set_state(SupervisorState::BackingOff, failures, delay.end());
            }
            Until::Available(missing) => {
                let missing = self.registry().store().name(missing);
                self.set_waiting(missing, failures, delay.first_backoff(counter));
            }
            Until::Changed => self.set_state(SupervisorState::Permanent, failures, None),
            Until::Reset | Until::Group => {
                self.set_state(SupervisorState::GivenUp, failures, None);
            }
            // Reported by the wait itself.
            Until::Spread => {}
        }
    }

    /// Waits until the service is built again. Returns `false` if the service must stop.
    pub(super) async fn wait_to_retry(
        &self,
        delay: &mut Delay,
        counter: &mut FailureCounter,
    ) -> bool {
        // Boxed, as below.
        match self.group() {
            Some(group) => Box::pin(self.wait_in_group(&group, delay, counter)).await,
            None => self.wait_alone(delay, counter).await,
        }
    }

    /// As `wait_to_retry`, whatever the group of the service does.
    pub(super) async fn wait_alone(&self, delay: &Delay, counter: &mut FailureCounter) -> bool {
        if let Until::Spread = delay.until {
            // Boxed: most services are not spread, and their supervisors pay nothing for it.
            return Box::pin(self.wait_spread(delay, counter)).await;
        }
        let (end, first_backoff) = (delay.end(), delay.first_backoff(counter));
        let (missing, changes_count) = match delay.until {
            // A change is too late to end it.
            Until::Passed(_) => {
                (None, first_backoff.is_some_and(|first| end.is_none_or(|end| first < end)))
            }
            Until::Available(missing) => (Some(missing), true),
            Until::Changed => (None, true),
            Until::Reset => (None, counter.policy().retry_given_up),
            Until::Spread | Until::Group => unreachable!("they have waits of their own"),
        };
        let time = async {
            self.sleep_until(end).await;
            Ended::Time
        };
        let change = async {
            if !changes_count {
                return pending().await;
            }
            self.sleep_until(first_backoff).await;
            // Not before: changes until then start one build.
            let given = delay.inputs.given(missing);
            InputsChanged::new(self.registry().store(), given).await;
            Ended::Change
        };
        let command = async {
            match Wait::new(self.command_wait()).await {
                Command::Stop => Ended::Stop,
                Command::Reset => Ended::Reset,
            }
        };
        match or(command, or(time, change)).await {
            Ended::Stop => return false,
            Ended::Reset => counter.reset(),
            Ended::Change if matches!(delay.until, Until::Reset) => counter.try_once(),
            Ended::Change | Ended::Time => {}
        }
        true
    }

    /// Returns the index of a service that was not available to the last attempt.
    ///
    /// Returns `None` if this service cannot wait for it: it belongs to another registry, or it
    /// depends on this one, so it would wait for this one in turn. Also if it is available, and
    /// was so with the same instance when the last failure was excused because of it: no change of
    /// it would help.
    fn missing(&self, name: &ServiceName, counter: &mut FailureCounter) -> Option<ServiceIndex> {
        let store = self.registry().store();
        let AnyId { index, .. } = store.find(name)?;
        let edge = Edge { dependent: self.id().index(), dependency: index, soft: true };
        if !store.name(index).is_clone_of(name) || store.would_close_cycle(edge) {
            return None;
        }
        let excused = match store.instance_to_build_from(index) {
            Some(instance) => counter.excuse_with(index, instance),
            None => true,
        };
        excused.then_some(index)
    }

    /// Returns the condition of a wait for a stop or a reset.
    pub(super) fn command_wait(&self) -> CommandWait<'_> {
        let (store, index) = (self.registry().store(), self.id().index());
        CommandWait { store, index, control: &self.control, accept_reset: true }
    }
}

/// Waits until the instance of a service that an attempt could get is another one than this.
struct InputChanged<'a> {
    store: &'a Store,
    input: ServiceIndex,
    given: Option<Received>,
}

impl Condition for InputChanged<'_> {
    type Output = ();

    fn check(&mut self) -> Option<()> {
        (self.store.instance_to_build_from(self.input) != self.given).then_some(())
    }

    fn slots(&self) -> WaitSlots {
        WaitSlots::of(self.input)
    }

    fn store(&self) -> &Store {
        self.store
    }

    fn timed_out(&self, _: Duration) {}
}

/// Waits until one of several inputs has changed. A wake-up costs the check of one input, whatever
/// their number.
pub(super) struct InputsChanged<'a> {
    waits: HashMap<ServiceIndex, (Wait<InputChanged<'a>>, Waker)>,
    /// Those that were not polled so far.
    new: Vec<ServiceIndex>,
    woken: WakeList,
}

impl<'a> InputsChanged<'a> {
    pub(super) fn new(store: &'a Store, given: BTreeMap<ServiceIndex, Option<Received>>) -> Self {
        let woken = WakeList::new();
        let new = given.keys().copied().collect();
        let waits = given.into_iter().map(|(input, given)| {
            let wait = Wait::new(InputChanged { store, input, given });
            (input, (wait, woken.waker(input)))
        });
        Self { waits: waits.collect(), new, woken }
    }
}

impl Future for InputsChanged<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let Self { waits, new, woken } = self.get_mut();
        let woken = woken.take(context);
        for input in mem::take(new).into_iter().chain(woken) {
            let Some((wait, waker)) = waits.get_mut(&input) else { continue };
            if Pin::new(wait).poll(&mut Context::from_waker(waker)).is_ready() {
                return Poll::Ready(());
            }
        }
        Poll::Pending
    }
}
