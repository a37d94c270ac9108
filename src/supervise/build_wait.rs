//! The waits of a build for its dependencies.

use std::time::{Duration, Instant};

use super::pending_attempt::{BuildShared, Grace};
use crate::{
    error::WaitForError,
    numbers::{Generation, ServiceIndex},
    provide::{DependencyId, DependencyWait},
    registry,
    service::{AnyId, ServiceId},
    store::Store,
    sync::Shielded,
    waiting::{
        Wait,
        sealed::{BlockingCondition, Condition, WaitSlots},
    },
};

/// The wait of [`Build::wait_for`](crate::supervise::Build::wait_for),
/// [`wait_to_start`](crate::supervise::Build::wait_to_start) and
/// [`wait_with_grace`](crate::supervise::Build::wait_with_grace).
///
/// It borrows the build, which records the edge.
pub type BuildWaitFor<'a, D> = Wait<BuildWait<'a, ServiceId<D>>>;

/// The wait of [`Build::wait_for_any`](crate::supervise::Build::wait_for_any) and
/// [`wait_to_start_any`](crate::supervise::Build::wait_to_start_any).
///
/// It borrows the build, which records the edge.
pub type BuildWaitForAny<'a> = Wait<BuildWait<'a, AnyId>>;

/// The condition of a build's wait for a dependency.
///
/// It adds four things to the wait of an attempt: it ends with the build, it pauses the build
/// timer, it returns the places of the build as long as it is in progress (S16), and it records a
/// grace period. That of a build aside waits for the new instance of a dependency that is reloaded,
/// too (S20).
pub struct BuildWait<'a, I> {
    pub(super) wait: DependencyWait<'a, I>,
    pub(super) shared: &'a BuildShared,
    pub(super) grace: Option<Duration>,
    /// Its first check has failed.
    pub(super) has_begun: bool,
}

impl<I: DependencyId> BuildWait<'_, I> {
    fn attempt(&self) -> (ServiceIndex, Generation) {
        (self.wait.dependent, self.wait.generation)
    }

    /// Returns an error if the build has ended.
    fn not_ended(&self, dependency: ServiceIndex) -> Result<(), WaitForError> {
        if self.shared.ended.is_set() {
            let service = self.store().name(dependency);
            return Err(WaitForError::AttemptEnded { service });
        }
        Ok(())
    }

    /// Records the grace period, before the instance that was received is returned. A wait that
    /// receives none has none.
    fn received(&self, dependency: ServiceIndex) -> Result<(), WaitForError> {
        if let Some(period) = self.grace {
            // It remains when the publication removes the start-only edge.
            match &self.shared.aside {
                None => self.wait.add_soft_edge()?,
                Some(aside) => {
                    let (store, attempt) = (self.store(), self.attempt());
                    aside
                        .discover_soft(store, &self.shared.edges, attempt, dependency)
                        .map_err(|cycle| registry::cycle_error(store, cycle))?;
                }
            }
            self.shared.record_grace(Grace { dependency, period });
        }
        // Again: if the build has ended since the first check, what was recorded above may have no
        // effect.
        self.not_ended(dependency)
    }

    /// Returns whether the wait may return: the build has its places again, or the wait returns no
    /// instance. An error is not held up. The slot of the dependent, to which the wait listens, is
    /// woken when the places are granted.
    fn build_may_continue(&self, dependency: ServiceIndex) -> bool {
        let (registry, dependent) = (self.wait.registry, self.wait.dependent);
        let (store, places) = (registry.store(), &registry.supervisors().places);
        let Some(build) = self.shared.number else { return true };
        let would_receive = match &self.shared.aside {
            None => {
                store.is_ready(dependency) && store.is_starting(dependent, self.wait.generation)
            }
            Some(aside) => aside.would_receive(store, self.attempt(), dependency),
        };
        let receives = would_receive
            && !store.is_closed()
            // At its turn to stop, the build ends.
            && !store.service(dependent).end_mark.is_set();
        !receives || places.wait_may_return(dependent, build)
    }
}

impl<I: DependencyId> Condition for BuildWait<'_, I> {
    type Output = Result<I::Instance, WaitForError>;

    fn check(&mut self) -> Option<Self::Output> {
        let dependency = match self.wait.registry.index(self.wait.id.into()) {
            Ok(dependency) => dependency,
            Err(foreign) => return Some(Err(foreign.into())),
        };
        // The attempt may have been published or failed: a kept `Build` must not add edges to it.
        if let Err(ended) = self.not_ended(dependency) {
            return Some(Err(ended));
        }
        if self.has_begun && !self.build_may_continue(dependency) {
            return None;
        }
        let output = Shielded::new(match &self.shared.aside {
            None => self.wait.check(),
            Some(aside) => aside.check(&mut self.wait, dependency),
        });
        if let Some(Ok(_)) = &*output {
            if let Err(error) = self.received(dependency) {
                return Some(Err(error));
            }
        }
        output.into_inner()
    }

    fn slots(&self) -> WaitSlots {
        self.wait.slots()
    }

    fn store(&self) -> &Store {
        self.wait.store()
    }

    fn timed_out(&self, after: Duration) -> Self::Output {
        self.wait.timed_out(after)
    }

    fn now_if_observed(&self) -> Option<Instant> {
        self.wait.now_if_observed()
    }

    fn on_start(&mut self) {
        let registry = self.wait.registry;
        self.shared.timer.pause(registry.clock().now());
        if let Some(build) = self.shared.number {
            let places = &registry.supervisors().places;
            registry.wake_placed(places.wait_begins(self.wait.dependent, build));
        }
        self.has_begun = true;
        match &self.shared.aside {
            None => self.wait.on_start(),
            Some(aside) => {
                aside.reload.waits(self.wait.dependent, Some(self.wait.id.into().index));
            }
        }
    }

    fn on_end(&mut self, started_at: Option<Instant>) {
        let registry = self.wait.registry;
        if let Some(build) = self.shared.number {
            registry.supervisors().places.wait_ends(self.wait.dependent, build);
        }
        self.shared.timer.resume(registry.clock().now());
        match &self.shared.aside {
            None => self.wait.on_end(started_at),
            Some(aside) => aside.reload.waits(self.wait.dependent, None),
        }
    }
}

impl<I: DependencyId> BlockingCondition for BuildWait<'_, I> {
    fn must_await(&self) -> Self::Output {
        self.wait.must_await()
    }
}
