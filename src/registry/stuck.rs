//! Which services are stuck, and the events that decide it (S17 in `docs/supervision.md`).
//!
//! What is noted of it is in the store (`store/stuck_log.rs`), and what a service does in
//! `not_ready.rs`.

use std::collections::{HashMap, HashSet};

use super::{
    NotReady, Registry, RegistryInner,
    not_ready::{State, present_tag},
};
use crate::{numbers::ServiceIndex, store::LONGEST_PATH};

/// What a service that is not ready does, as far as it can be stuck (S17).
pub(super) enum Stuck {
    ByItself {
        /// The user has stopped it.
        is_held_down: bool,
    },
    /// If this one is stuck.
    If(ServiceIndex),
    Not,
}

impl Stuck {
    pub(super) fn of(inner: &RegistryInner, index: ServiceIndex) -> Self {
        let Some(tag) = present_tag(inner, index) else { return Self::Not };
        let (state, next) = State::read_with(
            #[cfg(feature = "supervise")]
            inner.supervisors.status_without_times(index),
            inner,
            index,
            tag,
        );
        match next {
            Some(next) => Self::If(next),
            None if state.is_stuck(inner, index) => {
                Self::ByItself { is_held_down: matches!(state, State::HeldDown) }
            }
            None => Self::Not,
        }
    }

    /// Returns whether the path from a service ends at one that is stuck by itself.
    pub(super) fn ends_path_of(inner: &RegistryInner, index: ServiceIndex) -> bool {
        let (mut next, mut seen) = (index, Vec::new());
        while seen.len() < LONGEST_PATH && !seen.contains(&next) {
            seen.push(next);
            match Self::of(inner, next) {
                Self::ByItself { .. } => return true,
                Self::If(then) => next = then,
                Self::Not => return false,
            }
        }
        false
    }
}

/// The service at the end of the path, as far as the readiness needs to know it.
#[derive(Clone, Copy)]
pub(super) struct StuckRoot {
    /// The user has stopped it.
    pub(super) is_held_down: bool,
}

impl Registry {
    /// Says that start-up is complete: all supervisors and providers of the services that are
    /// registered now were started.
    ///
    /// From now on, a service that has no provider, or whose supervisor was not run, is *stuck*: no
    /// wait need last longer for it. A supervisor is run when `run` or `run_blocking` was called.
    /// So if a thread of its own calls `run_blocking`, call this after that.
    /// [`wait_all_ready`](Self::wait_all_ready), [`wait_set_ready`](Self::wait_set_ready), and a
    /// wait that is asked to ([`unless_stuck`](crate::wait::Wait::unless_stuck)) end. A `Program`
    /// calls this when its start function has returned.
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
            Stuck::ByItself { .. } => log.add_root(index),
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

    /// Returns for each of these services the root because of which it is stuck, if it is. Reads
    /// each service on their paths once.
    pub(super) fn stuck_roots(&self, indices: &[ServiceIndex]) -> Vec<Option<StuckRoot>> {
        let mut known: HashMap<ServiceIndex, Option<StuckRoot>> = HashMap::new();
        let mut root_of = |index| {
            let (mut next, mut path) = (index, Vec::new());
            let root = loop {
                if let Some(&root) = known.get(&next) {
                    break root;
                }
                // A service that is reached again waits for itself.
                known.insert(next, None);
                path.push(next);
                match Stuck::of(self.inner(), next) {
                    Stuck::ByItself { is_held_down } => break Some(StuckRoot { is_held_down }),
                    Stuck::If(then) => next = then,
                    Stuck::Not => break None,
                }
            };
            known.extend(path.into_iter().map(|index| (index, root)));
            root
        };
        indices.iter().map(|&index| root_of(index)).collect()
    }

    /// Returns the services that wait for this one.
    fn waiting_for(&self, index: ServiceIndex) -> impl Iterator<Item = ServiceIndex> + '_ {
        let store = self.store();
        let waiting = store.dependents(index).into_iter().map(|edge| edge.dependent);
        #[cfg(feature = "supervise")]
        let waiting = waiting.chain(store.stuck.missed_by(index));
        waiting.filter(move |&waits| {
            matches!(Stuck::of(self.inner(), waits), Stuck::If(for_this) if for_this == index)
        })
    }
}
