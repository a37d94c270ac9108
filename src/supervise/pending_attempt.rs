//! The attempt of a build, which the supervisor keeps while the builder has the `Build`.

use std::{
    collections::HashMap,
    mem,
    ops::Deref,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use super::build_timer::BuildTimer;
use crate::{
    numbers::ServiceIndex,
    provide::Attempt,
    registry::BuildDeadline,
    store::UsedEdges,
    sync::{Flag, Mutex, lock},
};

/// A grace period, which begins to apply when the attempt is published.
#[derive(Debug, Clone, Copy)]
pub(super) struct Grace {
    pub(super) dependency: ServiceIndex,
    pub(super) period: Duration,
}

/// The state that a `Build` shares with its `PendingAttempt`.
pub(super) struct BuildShared {
    /// The edges that the build has used.
    pub(super) edges: UsedEdges,
    /// Set when the build has ended. Then a `Build` that the builder has kept must not wait.
    pub(super) ended: Flag,
    pub(super) timer: BuildTimer,
    /// For each dependency of which a wait with a grace period has received an instance, the
    /// shortest period.
    pub(super) graces: Mutex<HashMap<ServiceIndex, Duration>>,
}

impl BuildShared {
    /// Records a grace period, after the wait has received an instance.
    pub(super) fn record_grace(&self, Grace { dependency, period }: Grace) {
        let mut graces = lock(&self.graces);
        let known = graces.entry(dependency).or_insert(period);
        *known = period.min(*known);
    }
}

impl BuildDeadline for BuildShared {
    fn late_by(&self, now: Instant) -> Option<Duration> {
        if self.ended.is_set() {
            return None;
        }
        let late_by = now.saturating_duration_since(self.timer.deadline(now)?);
        (!late_by.is_zero()).then_some(late_by)
    }
}

/// The attempt of a build that has not ended. The supervisor keeps it, so that a builder cannot
/// publish or fail it. Whichever way it ends, the flag `ended` of the build is set first.
pub(super) struct PendingAttempt<T: Send + Sync + 'static> {
    /// `None` only after the end, within `end_build` or `drop`.
    attempt: Option<Attempt<T>>,
    shared: Arc<BuildShared>,
}

impl<T: Send + Sync + 'static> PendingAttempt<T> {
    pub(super) fn new(attempt: Attempt<T>, shared: Arc<BuildShared>) -> Self {
        Self { attempt: Some(attempt), shared }
    }

    /// Returns the timer of the build timeout.
    pub(super) fn timer(&self) -> &BuildTimer {
        &self.shared.timer
    }

    /// Returns what tells the registry by how much the build is late.
    pub(super) fn deadline(&self) -> Weak<dyn BuildDeadline> {
        let shared: Weak<BuildShared> = Arc::downgrade(&self.shared);
        shared
    }

    /// Ends the build. Returns its attempt with the edges that the build has used, and the grace
    /// periods that it has recorded.
    pub(super) fn end_build(mut self) -> (Attempt<T>, Vec<Grace>) {
        match self.take_attempt() {
            Some(attempt) => {
                let graces = mem::take(&mut *lock(&self.shared.graces)).into_iter();
                let graces = graces.map(|(dependency, period)| Grace { dependency, period });
                (attempt, graces.collect())
            }
            None => unreachable!("the attempt is taken only once, when it ends"),
        }
    }

    fn take_attempt(&mut self) -> Option<Attempt<T>> {
        // Before the edges and the grace periods are taken: a wait that records one of them later
        // finds the flag, and returns an error.
        self.shared.ended.set();
        let attempt = self.attempt.take()?;
        attempt.edges.take(&self.shared.edges);
        Some(attempt)
    }
}

impl<T: Send + Sync + 'static> Deref for PendingAttempt<T> {
    type Target = Attempt<T>;

    fn deref(&self) -> &Attempt<T> {
        match &self.attempt {
            Some(attempt) => attempt,
            None => unreachable!("the attempt is taken only once, when it ends"),
        }
    }
}

impl<T: Send + Sync + 'static> Drop for PendingAttempt<T> {
    fn drop(&mut self) {
        drop(self.take_attempt());
    }
}
