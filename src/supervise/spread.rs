//! Builds that follow a failure of a dependency, spread over a time: the services that have failed
//! together do not recover together.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    time::{Duration, Instant},
};

use futures_lite::future::or;

use super::{
    RestartPolicy, SupervisorState,
    failure_counter::FailureCounter,
    retrying::{Delay, Inputs, InputsChanged, Until},
    supervisor::ServiceLoop,
};
use crate::{
    failure::{Failure, Reason},
    numbers::{Generation, ServiceIndex},
    registry::Command,
    store::{Received, Store},
    waiting::{
        Wait,
        sealed::{Condition, WaitSlots},
    },
};

impl RestartPolicy {
    /// Returns whether the build that follows this failure, which was not counted, is spread: it
    /// was that of a dependency.
    pub(super) fn is_spread(&self, failed: &Failure) -> bool {
        let is_of_another = || {
            failed.root != failed.service || matches!(failed.reason, Reason::GraceExpired { .. })
        };
        !self.spread.is_zero() && is_of_another()
    }
}

impl Inputs {
    /// Returns the dependencies without which the last attempt could not have been published:
    /// those of which a wait has returned an instance. A builder may do without the others.
    fn needed(&self) -> Vec<ServiceIndex> {
        let built_from = self.built_from.iter().flat_map(|built_from| built_from.iter());
        let needed = built_from.map(|from| from.service.index).chain(self.edges.received());
        Vec::from_iter(BTreeSet::from_iter(needed))
    }
}

impl<T: Send + Sync + 'static> ServiceLoop<T> {
    /// Returns how to continue after a planned end, if that end was the one of a dependency: its
    /// dependents have ended together.
    pub(super) fn spread_after_end(
        &self,
        inputs: &mut Inputs,
        counter: &FailureCounter,
    ) -> Option<Delay> {
        if counter.policy().spread.is_zero() {
            return None;
        }
        let root = match &self.control.end_requested()?.reason {
            Reason::Restarted { root, .. } | Reason::Stopped { root } => root.clone(),
            _ => return None,
        };
        // A restart or a start of the service itself would end the delay at once.
        let is_of_another = root != self.registry().store().name(self.id().index());
        let inputs = mem::take(inputs);
        is_of_another.then(|| Delay { until: Until::Spread, since: self.now(), inputs })
    }

    /// Waits until the dependencies are ready, and then for a random time. Returns `false` if the
    /// service must stop.
    pub(super) async fn wait_spread(&self, delay: &Delay, counter: &mut FailureCounter) -> bool {
        let command = async { Some(Wait::new(self.command_wait()).await) };
        let spread = async {
            self.spread(delay, counter).await;
            None
        };
        match or(command, spread).await {
            Some(Command::Stop) => return false,
            Some(Command::Reset) => counter.reset(),
            None => {}
        }
        true
    }

    async fn spread(&self, delay: &Delay, counter: &FailureCounter) {
        let (store, failures) = (self.registry().store(), counter.failures());
        let needed = delay.inputs.needed();
        let debounced = delay.since.checked_add(counter.policy().debounce);
        // The instances that were ready when the time was drawn, and the time.
        let mut drawn: Option<(BTreeMap<ServiceIndex, Generation>, Option<Instant>)> = None;
        loop {
            let present = self.all_ready(&needed, failures).await;
            let generations = |(&input, received): (&ServiceIndex, &Option<Received>)| {
                Some((input, (*received)?.0))
            };
            let generations = present.iter().filter_map(generations).collect();
            // A replacement sends no herd, and does not change the time.
            let end = match drawn {
                Some((drawn_for, end)) if drawn_for == generations => end,
                _ => {
                    let end = self.now().checked_add(counter.policy().part_of_spread());
                    end.zip(debounced).map(|(end, debounced)| end.max(debounced))
                }
            };
            drawn = Some((generations, end));
            if end.is_some_and(|end| end <= self.now()) {
                return;
            }
            self.set_state(SupervisorState::BackingOff, failures, end);
            let passed = async {
                self.sleep_until(end).await;
                true
            };
            let changed = async {
                InputsChanged::new(store, present).await;
                false
            };
            // The change first: a dependency that has failed at the end of the time is waited for.
            if or(changed, passed).await {
                return;
            }
        }
    }

    /// Waits until all of these services are ready. Returns their instances.
    async fn all_ready(
        &self,
        needed: &[ServiceIndex],
        failures: u32,
    ) -> BTreeMap<ServiceIndex, Option<Received>> {
        let store = self.registry().store();
        let present = || needed.iter().map(|&input| (input, store.instance_to_build_from(input)));
        loop {
            // Nothing is awaited in between, so the wait for a change misses none.
            let ready: BTreeMap<_, _> = present().collect();
            if ready.values().all(Option::is_some) {
                return ready;
            }
            // One after the other, so that a wake-up costs one check. The next round finds one that
            // has failed again.
            for &input in needed {
                if store.instance_to_build_from(input).is_none() {
                    self.set_waiting(store.name(input), failures, None);
                    Wait::new(InputReady { store, input }).await;
                }
            }
        }
    }
}

/// A service has an instance that an attempt could get.
struct InputReady<'a> {
    store: &'a Store,
    input: ServiceIndex,
}

impl Condition for InputReady<'_> {
    type Output = ();

    fn check(&mut self) -> Option<()> {
        self.store.instance_to_build_from(self.input).map(drop)
    }

    fn slots(&self) -> WaitSlots {
        WaitSlots::of(self.input)
    }

    fn store(&self) -> &Store {
        self.store
    }

    fn timed_out(&self, _: Duration) {}
}
