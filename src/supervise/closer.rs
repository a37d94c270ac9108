//! The closer of a service: it waits until the values of the service are drained, and calls the
//! close hook for each (S14, S15). It is a part of the future of the supervisor, beside its loop.
//!
//! The loop reports to it which generations have ended (`Closer::end_generation`), and the receiver
//! which values were published, replaced and handed over. It wakes the loop by the slot of the
//! service.

use std::{
    collections::{BTreeMap, VecDeque},
    future::pending,
    mem,
    time::{Duration, Instant},
};

use futures_lite::future::or;

use super::{
    CloseFailure, CloseHook, CloseReason, Closing, SupervisorState, closing::ClosingValue,
    output::UserError, supervisor::ServiceLoop, user_code::work_end,
};
use crate::{
    failure::Reason,
    instance::InstanceNumber,
    numbers::Generation,
    provide::Receiver,
    registry::CloseReport,
    store::{HandedOver, Next, Store},
    sync::{Mutex, Shielded, lock},
    waiting::{
        Wait,
        sealed::{Condition, WaitSlots},
    },
};

/// What the loop and the closer of one supervisor share.
pub(super) struct Closer<T: Send + Sync + 'static> {
    pub(super) receiver: Receiver<T>,
    state: Mutex<State<T>>,
}

struct State<T> {
    /// The values that were handed over and are not closed.
    owned: BTreeMap<InstanceNumber, Shielded<T>>,
    /// The last instance that was published.
    newest: Option<InstanceNumber>,
    /// The generations that have ended, from the first one whose values are not all closed.
    ended: BTreeMap<Generation, Ended>,
    /// The end of draining for all instances before a number. Numbers and times grow.
    deadlines: VecDeque<(InstanceNumber, Option<Instant>)>,
    activity: Activity,
}

/// The end of a generation.
struct Ended {
    /// Its last instance. All others were replaced.
    last: InstanceNumber,
    reason: Shielded<CloseReason>,
}

/// What a closer does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Activity {
    /// No value has ended that is not closed.
    Idle,
    /// It waits for the readers of the first one that has ended, which is of this generation.
    Draining(Generation),
    /// The close hook runs for a value of this generation.
    Closing(Generation),
}

/// The first value in the order of publication that has ended and is not closed.
enum First<T> {
    None,
    /// Readers hold it. Draining ends at this time.
    Held(InstanceNumber, Option<Instant>),
    Owned(Closing<T>),
}

/// What the closer has found at its last check.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Seen {
    Unknown,
    None,
    Held(InstanceNumber),
}

impl<T: Send + Sync + 'static> Closer<T> {
    pub(super) fn new(receiver: Receiver<T>) -> Self {
        let state = State {
            owned: BTreeMap::new(),
            newest: None,
            ended: BTreeMap::new(),
            deadlines: VecDeque::new(),
            activity: Activity::Idle,
        };
        Self { receiver, state: Mutex::new(state) }
    }

    /// Called when a generation has ended, its body has returned, and its running handle was
    /// dropped: no value of this generation is published any more.
    pub(super) fn end_generation(
        &self,
        generation: Generation,
        reason: CloseReason,
        deadline: Option<Instant>,
    ) {
        let reason = Shielded::new(reason);
        let next = InstanceNumber { generation: generation.next(), revision: 0 };
        {
            let mut state = lock(&self.state);
            state.collect(&self.receiver);
            let Some(last) = state.newest.filter(|last| last.generation == generation) else {
                unreachable!("an instance that is not closed is claimed, or was handed over")
            };
            state.ended.insert(generation, Ended { last, reason });
            state.limit_before(next, deadline);
        }
        // The closer may wait.
        self.receiver.wake();
    }

    fn set_activity(&self, activity: Activity) {
        let before = mem::replace(&mut lock(&self.state).activity, activity);
        if activity != before {
            // The loop may wait for it.
            self.receiver.wake();
        }
    }

    /// `deadline` is the end of draining for a value that was replaced since the last check.
    fn first(&self, deadline: Option<Instant>) -> First<T> {
        // Declared before the lock: a reason may be the last owner of an error of the user.
        let mut closed = Vec::new();
        let mut state = lock(&self.state);
        let claimed = state.collect(&self.receiver);
        let Some(newest) = state.newest else { return First::None };
        if newest.revision > 0 {
            state.limit_before(newest, deadline);
        }
        let owned = state.owned.first_key_value().map(|(&number, _)| number);
        let first = [claimed, owned].into_iter().flatten().min();
        // The newest instance is current until its generation has ended.
        let first = first.filter(|&first| first != newest || state.has_ended(newest.generation));
        let ended_before = first.map_or(newest.generation.next(), |first| first.generation);
        while let Some(entry) = state.ended.first_entry().filter(|e| *e.key() < ended_before) {
            closed.push(entry.remove());
        }
        let Some(first) = first else {
            state.deadlines.clear();
            return First::None;
        };
        while state.deadlines.front().is_some_and(|&(before, _)| before <= first) {
            state.deadlines.pop_front();
        }
        match state.owned.remove(&first) {
            Some(value) => First::Owned(state.closing(first, ClosingValue::Owned(value))),
            None => First::Held(first, state.deadlines.front().and_then(|&(_, end)| end)),
        }
    }

    /// Ends the draining of the first value. Returns `None` if it has no references: it is about to
    /// be handed over, or a reader has moved the instance out of its `Arc`.
    fn share(&self, first: InstanceNumber) -> Option<Closing<T>> {
        let instance = self.receiver.waive(first).pop()?;
        Some(lock(&self.state).closing(first, ClosingValue::Shared(instance)))
    }
}

impl<T: Send + Sync + 'static> State<T> {
    /// Takes the values that were handed over. Returns the first instance that is still held.
    fn collect(&mut self, receiver: &Receiver<T>) -> Option<InstanceNumber> {
        let (first, last) = loop {
            match receiver.take() {
                Next::HandedOver(HandedOver { number, value }) => {
                    self.owned.insert(number, value);
                }
                Next::Held(first, last) => break (Some(first), Some(last)),
                Next::Nothing => break (None, None),
            }
        };
        let owned = self.owned.last_key_value().map(|(&number, _)| number);
        self.newest = self.newest.max(last).max(owned);
        first
    }

    /// Sets the end of draining for the instances before a number that have none yet.
    fn limit_before(&mut self, before: InstanceNumber, deadline: Option<Instant>) {
        if self.deadlines.back().is_none_or(|&(last, _)| last < before) {
            self.deadlines.push_back((before, deadline));
        }
    }

    fn has_ended(&self, generation: Generation) -> bool {
        self.ended.contains_key(&generation)
    }

    fn closing(&self, number: InstanceNumber, value: ClosingValue<T>) -> Closing<T> {
        let ended = self.ended.get(&number.generation).filter(|ended| ended.last == number);
        let reason = ended.map_or(CloseReason::Replaced, |ended| CloseReason::clone(&ended.reason));
        Closing::new(value, number, reason)
    }
}

impl<T: Send + Sync + 'static> ServiceLoop<T> {
    /// The limit for the draining of each value.
    pub(super) fn drain_limit(&self) -> Duration {
        const DEFAULT: Duration = Duration::from_secs(10);
        self.policy.drain_timeout.unwrap_or(DEFAULT)
    }

    /// Calls the close hook for each value that has ended. Never completes.
    pub(super) async fn close_values<H: CloseHook<T>, R>(&self, hook: &mut H) -> R {
        let Some(closer) = self.closer.as_ref().filter(|_| H::EXISTS) else {
            return pending().await;
        };
        loop {
            let closing = self.next_to_close(closer).await;
            closer.set_activity(Activity::Closing(Closing::generation(&closing)));
            let (number, holders) = (Closing::number(&closing), Closing::holders(&closing));
            let (since, after) = (self.now(), self.policy.close_timeout);
            let late = async {
                self.sleep_until(since.checked_add(after)).await;
                Err(CloseFailure::TimedOut { after }.into())
            };
            let result = or(hook.call(closing), late).await;
            let took = self.now().saturating_duration_since(since);
            self.report_close(number, holders, took, result);
        }
    }

    /// Waits until the first value that has ended is drained, at most until its deadline.
    async fn next_to_close(&self, closer: &Closer<T>) -> Closing<T> {
        let (mut seen, mut deadline, mut is_overdue) = (Seen::Unknown, None, false);
        loop {
            let changed =
                async { Some(Wait::new(FirstChanged { service: self, closer, seen }).await) };
            let expired = async {
                self.sleep_until(deadline).await;
                None
            };
            match or(changed, expired).await {
                Some(First::Owned(closing)) => return closing,
                Some(First::None) => {
                    (seen, deadline) = (Seen::None, None);
                    closer.set_activity(Activity::Idle);
                }
                Some(First::Held(first, end)) => {
                    (seen, deadline, is_overdue) = (Seen::Held(first), end, false);
                    closer.set_activity(Activity::Draining(first.generation));
                }
                None => {
                    // Only a value that is held has a deadline.
                    let Seen::Held(first) = seen else { continue };
                    if let Some(closing) = closer.share(first) {
                        return closing;
                    }
                    // It comes at once, unless a reader has moved the instance out of its `Arc`.
                    let after = self.policy.close_timeout;
                    if is_overdue && closer.receiver.forget(first) {
                        let late = CloseFailure::TimedOut { after };
                        self.report_close(first, 1, after, Err(late.into()));
                    }
                    (is_overdue, deadline) = (true, self.now().checked_add(after));
                }
            }
        }
    }

    fn report_close(
        &self,
        number: InstanceNumber,
        holders: usize,
        took: Duration,
        result: Result<(), UserError>,
    ) {
        let InstanceNumber { generation, revision } = number;
        let reason = result.err().map(Reason::error);
        if let Some(reason) = &reason {
            self.hook_failed(generation, reason);
        }
        let end = work_end(reason.as_deref());
        self.control.report_close(CloseReport { generation, revision, holders, took, end });
    }

    /// Waits until all values of the generations that have ended are closed. During this wait, the
    /// state of the supervisor is what the closer does.
    pub(super) async fn values_closed(
        &self,
        closer: &Closer<T>,
        failures: u32,
        holders: impl Fn() -> usize,
    ) {
        let mut shown = Activity::Idle;
        loop {
            shown = Wait::new(ActivityChanged { service: self, closer, shown }).await;
            let (state, generation) = match shown {
                Activity::Idle => return,
                Activity::Draining(generation) => (SupervisorState::Draining, generation),
                Activity::Closing(generation) => (SupervisorState::Closing, generation),
            };
            self.set_ending(state, failures, generation, holders());
        }
    }
}

/// The first value to close is another one, or was handed over.
struct FirstChanged<'a, T: Send + Sync + 'static> {
    service: &'a ServiceLoop<T>,
    closer: &'a Closer<T>,
    seen: Seen,
}

impl<T: Send + Sync + 'static> Condition for FirstChanged<'_, T> {
    type Output = First<T>;

    fn check(&mut self) -> Option<First<T>> {
        let deadline = self.service.now().checked_add(self.service.drain_limit());
        let first = self.closer.first(deadline);
        let is_same = match first {
            First::None => self.seen == Seen::None,
            First::Held(number, _) => self.seen == Seen::Held(number),
            First::Owned(_) => false,
        };
        (!is_same).then_some(first)
    }

    fn slots(&self) -> WaitSlots {
        WaitSlots::of(self.service.id().index())
    }

    fn store(&self) -> &Store {
        self.service.registry().store()
    }

    fn timed_out(&self, _: Duration) -> First<T> {
        unreachable!("a closer waits without a timeout")
    }
}

/// The closer does something else than the supervisor shows.
struct ActivityChanged<'a, T: Send + Sync + 'static> {
    service: &'a ServiceLoop<T>,
    closer: &'a Closer<T>,
    shown: Activity,
}

impl<T: Send + Sync + 'static> Condition for ActivityChanged<'_, T> {
    /// `Idle` if all values are closed.
    type Output = Activity;

    fn check(&mut self) -> Option<Activity> {
        let state = lock(&self.closer.state);
        if state.ended.is_empty() {
            return Some(Activity::Idle);
        }
        // If it is idle, it has not noticed the end of the generation yet.
        let activity = state.activity;
        (activity != Activity::Idle && activity != self.shown).then_some(activity)
    }

    fn slots(&self) -> WaitSlots {
        WaitSlots::of(self.service.id().index())
    }

    fn store(&self) -> &Store {
        self.service.registry().store()
    }

    fn timed_out(&self, _: Duration) -> Activity {
        unreachable!("a supervisor waits for its closer without a timeout")
    }
}
