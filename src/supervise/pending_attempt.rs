//! The attempt of a build, which the supervisor keeps while the builder has the `Build`.

use std::{
    collections::BTreeMap,
    ops::Deref,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use super::{Build, aside::AsideBuild, build_timer::BuildTimer};
use crate::{
    numbers::ServiceIndex,
    provide::Attempt,
    registry::{BuildDeadline, BuildNumber},
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
    /// For the places of the build, if there were limits when it began.
    pub(super) number: Option<BuildNumber>,
    /// For each dependency of which a wait with a grace period has received an instance, the
    /// shortest period. `None`, as in most builds, if there is none: its drop costs nothing.
    graces: Mutex<Option<BTreeMap<ServiceIndex, Duration>>>,
    /// For a build aside.
    pub(super) aside: Option<AsideBuild>,
}

impl BuildShared {
    pub(super) fn new(
        timer: BuildTimer,
        number: Option<BuildNumber>,
        aside: Option<AsideBuild>,
    ) -> Self {
        let (edges, ended, graces) = (UsedEdges::default(), Flag::new(), Mutex::default());
        Self { edges, ended, timer, number, graces, aside }
    }

    /// Returns what tells the registry by how much the build is late.
    pub(super) fn deadline(self: &Arc<Self>) -> Weak<dyn BuildDeadline> {
        let shared: Weak<Self> = Arc::downgrade(self);
        shared
    }

    /// Records a grace period, after the wait has received an instance.
    pub(super) fn record_grace(&self, Grace { dependency, period }: Grace) {
        let mut graces = lock(&self.graces);
        let known = graces.get_or_insert_default().entry(dependency).or_insert(period);
        *known = period.min(*known);
    }

    pub(super) fn graces(&self) -> Vec<Grace> {
        let graces = lock(&self.graces);
        let Some(graces) = &*graces else { return Vec::new() };
        let graces = graces.iter();
        graces.map(|(&dependency, &period)| Grace { dependency, period }).collect()
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
/// publish or fail it. Its drop ends the build, and moves the edges of the build to the attempt.
pub(super) struct PendingAttempt<'a, T: Send + Sync + 'static> {
    attempt: &'a mut Attempt<T>,
    shared: Arc<BuildShared>,
}

/// Splits an attempt into the part that the supervisor keeps and the part that the builder
/// receives.
pub(super) fn split<T: Send + Sync + 'static>(
    attempt: &mut Attempt<T>,
    failures: u32,
    holders: usize,
    timer: BuildTimer,
    number: Option<BuildNumber>,
) -> (PendingAttempt<'_, T>, Build<T>) {
    let shared = Arc::new(BuildShared::new(timer, number, None));
    let Attempt { registry, id, generation, .. } = &*attempt;
    let kept = Arc::clone(&shared);
    let build = Build::new(registry, *id, *generation, shared, failures, holders);
    (PendingAttempt::new(attempt, kept), build)
}

impl<'a, T: Send + Sync + 'static> PendingAttempt<'a, T> {
    pub(super) fn new(attempt: &'a mut Attempt<T>, shared: Arc<BuildShared>) -> Self {
        Self { attempt, shared }
    }

    /// Returns the timer of the build timeout.
    pub(super) fn timer(&self) -> &BuildTimer {
        &self.shared.timer
    }

    /// Returns what tells the registry by how much the build is late.
    pub(super) fn deadline(&self) -> Weak<dyn BuildDeadline> {
        self.shared.deadline()
    }

    /// Ends the build. Returns the grace periods that it has recorded.
    pub(super) fn end_build(mut self) -> Vec<Grace> {
        self.end();
        self.shared.graces()
    }

    /// Ends the build, if it has not ended.
    fn end(&mut self) {
        // Only the supervisor sets the flag.
        if self.shared.ended.is_set() {
            return;
        }
        // Before the edges and the grace periods are taken: a wait that records one of them later
        // finds the flag, and returns an error.
        self.shared.ended.set();
        self.attempt.edges.take(&self.shared.edges);
    }
}

impl<T: Send + Sync + 'static> Deref for PendingAttempt<'_, T> {
    type Target = Attempt<T>;

    fn deref(&self) -> &Attempt<T> {
        self.attempt
    }
}

impl<T: Send + Sync + 'static> Drop for PendingAttempt<'_, T> {
    fn drop(&mut self) {
        self.end();
    }
}
