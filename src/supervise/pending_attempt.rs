//! The attempt of a build, which the supervisor keeps while the builder has the `Build`.

use std::{mem, ops::Deref, sync::Arc, time::Duration};

use super::build_timer::BuildTimer;
use crate::{
    numbers::ServiceIndex,
    provide::Attempt,
    store::UsedEdges,
    sync::{Flag, Mutex, lock},
};

/// A grace period, which begins to apply when the attempt is published.
#[derive(Debug, Clone, Copy)]
pub(super) struct Grace {
    pub(super) dependency: ServiceIndex,
    pub(super) period: Duration,
    /// Whether the dependency was ready when the service was built. If not, the service tolerates
    /// that it is absent until it is ready for the first time.
    pub(super) was_ready: bool,
}

/// The state that a `Build` shares with its `PendingAttempt`.
pub(super) struct BuildShared {
    /// The edges that the build has used.
    pub(super) edges: UsedEdges,
    /// Set when the build has ended. Then a `Build` that the builder has kept must not wait.
    pub(super) ended: Flag,
    pub(super) timer: BuildTimer,
    pub(super) graces: Mutex<Vec<Grace>>,
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

    /// Ends the build. Returns its attempt with the edges that the build has used, and the grace
    /// periods that it has recorded.
    pub(super) fn end_build(mut self) -> (Attempt<T>, Vec<Grace>) {
        match self.take_attempt() {
            Some(attempt) => (attempt, mem::take(&mut lock(&self.shared.graces))),
            None => unreachable!("the attempt is taken only once, when it ends"),
        }
    }

    fn take_attempt(&mut self) -> Option<Attempt<T>> {
        // Before the edges are taken, so that a wait that begins later returns an error.
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
