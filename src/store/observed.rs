//! Whether a registry is observed, and what a listing for a new observer has found at a service.
//!
//! # No event is missed, and none is doubled
//!
//! A new observer first becomes visible (`Observed::add`), and then `Store::list_for_observer`
//! reads each service. An operation changes a service first, and then checks whether the registry
//! is observed. For each word that an event reports, the read of the listing and the change are
//! ordered by one lock or by read-modify-writes of one word:
//!
//! - If the change comes first, the listing shows it, and the observer must not receive the event.
//! - If the read comes first, the change synchronizes with it, so the operation finds the registry
//!   observed, and the observer in the list.
//!
//! | events | ordered by |
//! |---|---|
//! | attempt started, ready, failed, invalidated | the state: `set_waiters` and the transition |
//! | attempt failed | the lock of the history, which also contains the transition |
//! | replaced | the lock of the history |
//! | states of a supervisor | the lock of its control |
//! | closed | the state: `set_waiters`, and the wake-up that follows the close |
//! | registered | the lock of the names |

use std::sync::Arc;

use super::{Store, state::Tag};
use crate::{
    numbers::{Generation, ServiceIndex},
    sync::{Count, Flag},
};

/// The number of observers.
pub(crate) struct Observed(Count);

impl Observed {
    pub(super) fn new() -> Self {
        Self(Count::new())
    }

    /// Returns whether there is an observer: one relaxed load. The word that the caller has changed
    /// before carries the ordering, as the table above says.
    #[inline]
    pub(crate) fn get(&self) -> bool {
        self.0.get() > 0
    }

    pub(crate) fn add(&self) {
        self.0.fetch_add(1);
    }

    pub(crate) fn remove(&self) {
        self.0.fetch_sub(1);
    }
}

/// What a listing has found at a service, at one instant.
pub(crate) struct Listed {
    pub(crate) state: Tag,
    /// The number of attempts at the service that had failed, in all generations.
    pub(crate) failed_attempts: u64,
    /// The number of replacements in this generation.
    pub(crate) revision: u64,
    pub(crate) closed: bool,
    /// If an attempt is in progress.
    pub(crate) failed_since: Option<Arc<FailedSince>>,
}

impl Listed {
    /// Returns whether no event of the service lies between the two.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let all =
            |listed: &Self| (listed.state, listed.failed_attempts, listed.revision, listed.closed);
        all(self) == all(other)
    }
}

/// Whether an attempt of a generation has failed since the listing found one in progress. If not,
/// an attempt that has begun in this generation is the one that the listing shows.
pub(crate) struct FailedSince {
    generation: Generation,
    failed: Flag,
}

impl FailedSince {
    pub(super) fn new(generation: Generation) -> Arc<Self> {
        Arc::new(Self { generation, failed: Flag::new() })
    }

    /// An attempt of `generation` is about to fail. Before its transition to `Down`, with which the
    /// begin of the next attempt synchronizes. If a cascade is faster, the generation has no
    /// further attempt, so no event depends on the flag.
    pub(super) fn set(&self, generation: Generation) {
        if self.generation == generation {
            self.failed.set();
        }
    }

    pub(crate) fn get(&self) -> bool {
        self.failed.is_set()
    }
}

impl Store {
    /// Reads a service for a new observer, which is visible already.
    pub(crate) fn list_for_observer(&self, index: ServiceIndex) -> Listed {
        // A read-modify-write, with which each later transition synchronizes. It sets the waiter
        // bit, as if there were a waiter: the next transition finds none.
        let state = || self.slot(index).state.set_waiters();
        let mut listed = self.service(index).history.list(state);
        // After the read-modify-write: `close` sets the flag before its own one.
        listed.closed = self.is_closed();
        listed
    }

    /// Puts the instance of the last replacement into its cell, if it is not there yet: a listing
    /// counts a replacement from its decision on, and a status shows the instance in the cell. May
    /// drop the old value.
    pub(crate) fn complete_replacement(&self, index: ServiceIndex) {
        let service = self.service(index);
        if let Some(pending) = service.history.pending() {
            (service.operations.install)(self, index, pending);
        }
    }
}
