//! Which services are stuck, and the events that decide it (S17 in `docs/supervision.md`).
//!
//! What is noted of it is in the store (`store/stuck_log.rs`), and what a service does in
//! `not_ready.rs`.

use std::collections::HashSet;

use super::{NotReady, Registry, not_ready::Stuck};
use crate::numbers::ServiceIndex;

impl Registry {
    /// Says that start-up is complete: all supervisors and providers of the services that are
    /// registered now were started.
    ///
    /// From now on, a service that has no provider, or whose supervisor was not run, is *stuck*: no
    /// wait need last longer for it. A supervisor is run when `run` or `run_blocking` was called. So
    /// if a thread of its own calls `run_blocking`, call this after that. [`wait_all_ready`](Self::wait_all_ready),
    /// [`wait_set_ready`](Self::wait_set_ready), and a wait that is asked to
    /// ([`unless_stuck`](crate::wait::Wait::unless_stuck)) end. A `Program` calls this when its
    /// start function has returned.
    ///
    /// A service that is registered later is not concerned, until this is called once more. The
    /// cost is proportional to the number of services that are concerned for the first time.
    ///
    /// ```
    /// use mainstay::{Registry, error::AllReadyError};
    ///
    /// let registry = Registry::with_capacity(2)?;
    /// let port = registry.register::<u16>("port")?;
    /// let forgotten = registry.register::<u16>("forgotten")?;
    /// registry.constant(port, 80)?;
    /// registry.startup_complete();
    /// match registry.wait_all_ready().wait_blocking() {
    ///     Err(AllReadyError::Stuck { missing, .. }) => {
    ///         assert_eq!(missing.to_string(), "forgotten: no provider");
    ///     }
    ///     _ => unreachable!("nothing provides it"),
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn startup_complete(&self) {
        let new = self.store().stuck.set_started(self.store().len());
        ServiceIndex::range(new).for_each(|index| self.review(index));
    }

    /// Notes whether a service is stuck by itself. Called after each event that may have made it
    /// so.
    pub(crate) fn review(&self, index: ServiceIndex) {
        let log = &self.store().stuck;
        // Before the state is read: another review may find it stuck after this one has read it.
        let number = log.number(index);
        match Stuck::of(self.inner(), index) {
            Stuck::ByItself => log.add_root(index),
            Stuck::If(_) | Stuck::Not => log.remove_root(index, number),
        }
    }

    /// As `review`, for an event that only ends that a service is stuck. Costs one load if none is.
    pub(crate) fn review_if_stuck(&self, index: ServiceIndex) {
        if self.store().stuck.has_roots() {
            self.review(index);
        }
    }

    /// Notes whether a service is stuck because of another one. Called after it has begun to wait
    /// for that one. Costs a fence and one load if no service is stuck.
    #[inline]
    pub(crate) fn review_waits(&self, index: ServiceIndex) {
        if self.store().stuck.has_roots() {
            self.review_path(index);
        }
    }

    #[cold]
    fn review_path(&self, index: ServiceIndex) {
        if Stuck::ends_path_of(self.inner(), index) {
            self.store().stuck.add_waiting(index);
        }
    }

    /// Returns why a service is stuck, if it is.
    pub(crate) fn if_stuck(&self, index: ServiceIndex) -> Option<NotReady> {
        NotReady::if_stuck(self.inner(), index)
    }

    /// Searches what is stuck because of these services, and they themselves, until `found` returns
    /// an output.
    pub(crate) fn find_stuck<R>(
        &self,
        entries: Vec<ServiceIndex>,
        mut found: impl FnMut(ServiceIndex) -> Option<R>,
    ) -> Option<R> {
        let mut seen = HashSet::new();
        for entry in entries {
            if !Stuck::ends_path_of(self.inner(), entry) || !seen.insert(entry) {
                continue;
            }
            let mut to_visit = vec![entry];
            while let Some(index) = to_visit.pop() {
                if let Some(output) = found(index) {
                    return Some(output);
                }
                to_visit.extend(self.waiting_for(index).filter(|&waits| seen.insert(waits)));
            }
        }
        None
    }

    /// Returns the services that wait for this one.
    fn waiting_for(&self, index: ServiceIndex) -> impl Iterator<Item = ServiceIndex> + '_ {
        let store = self.store();
        let dependents = store.dependents(index).into_iter().map(|edge| edge.dependent);
        let all = dependents.chain(store.stuck.missed_by(index));
        all.filter(move |&waits| {
            matches!(Stuck::of(self.inner(), waits), Stuck::If(for_this) if for_this == index)
        })
    }
}
