//! An event as it is passed to several observers, and its comparison with a listing.

use std::time::Duration;

use crate::{
    event::EventKind,
    failure::Failure,
    numbers::{Generation, ServiceIndex},
    registry::Registry,
    service::ServiceName,
    store::{Listed, Phase},
    sync::Shielded,
};

/// What a listing has found at a service.
pub(super) struct Found {
    listed: Listed,
    /// How often it was read before.
    pub(super) reading: u32,
    /// The number of the last change of the state of its supervisor.
    #[cfg(feature = "supervise")]
    changes: u64,
}

impl Found {
    pub(super) fn new(registry: &Registry, index: ServiceIndex) -> Self {
        Self {
            listed: registry.store().list_for_observer(index),
            reading: 0,
            #[cfg(feature = "supervise")]
            changes: registry.supervisors().changes(index),
        }
    }

    /// Returns whether no event of the service lies between the two.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        #[cfg(feature = "supervise")]
        if self.changes != other.changes {
            return false;
        }
        self.listed.is_same(&other.listed)
    }

    /// Returns whether the event had happened when the service was read. Called when the event
    /// reaches the observer, which is after the reading.
    pub(super) fn shows(&self, event: &Happened<'_>) -> bool {
        let Listed { state, failed_attempts, revision, closed, .. } = self.listed;
        let is_earlier = event.generation < state.generation();
        let is_same = event.generation == state.generation();
        match event.kind {
            EventKind::Registered => true,
            EventKind::WaitStarted { .. } | EventKind::WaitEnded { .. } => false,
            EventKind::AttemptStarted if is_same => match state.phase() {
                // As below: there is no attempt of which the listing shows the begin.
                Phase::Down => false,
                // Attempts that failed before the reading have been reported before it: their
                // provider did not have them before. So this is the attempt of the listing, or one
                // that has begun after that one failed.
                Phase::Starting => {
                    !self.listed.failed_since.as_ref().is_some_and(|failed| failed.get())
                }
                Phase::Ready => true,
            },
            EventKind::Ready if is_same => state.phase() == Phase::Ready,
            EventKind::Replaced if is_same => {
                state.phase() == Phase::Ready && event.number <= revision
            }
            EventKind::AttemptStarted
            | EventKind::Ready
            | EventKind::Replaced
            | EventKind::Failed(_)
            | EventKind::Invalidated(_) => is_earlier,
            EventKind::AttemptFailed(_) => event.number <= failed_attempts,
            #[cfg(feature = "supervise")]
            EventKind::GivenUp(_) => event.number <= self.changes,
            #[cfg(not(feature = "supervise"))]
            EventKind::GivenUp(_) => false,
            EventKind::Closed => closed,
        }
    }
}

/// An event, with what is needed to compare it with a listing.
pub(super) struct Happened<'a> {
    pub(super) index: ServiceIndex,
    pub(super) generation: Generation,
    /// The number of the failed attempt, of the replacement, or of the change of the state of the
    /// supervisor. 0 for other kinds.
    pub(super) number: u64,
    pub(super) elapsed: Duration,
    pub(super) kind: EventKind<'a>,
}

/// An event that is kept for an observer that is being listed.
pub(super) struct Kept {
    event: Happened<'static>,
    /// The reading of its service that it follows.
    pub(super) reading: u32,
    /// A later reading shows it.
    pub(super) is_shown: bool,
    /// Replaces the kind of `event`.
    owned: Option<Owned>,
}

/// The kinds that borrow.
enum Owned {
    Wait(ServiceName, for<'a> fn(&'a ServiceName) -> EventKind<'a>),
    Failure(Shielded<Failure>, for<'a> fn(&'a Failure) -> EventKind<'a>),
}

impl Kept {
    pub(super) fn new(happened: &Happened<'_>, reading: u32) -> Self {
        let failure = |failure: &Failure, kind: for<'a> fn(&'a Failure) -> EventKind<'a>| {
            Some(Owned::Failure(Shielded::new(failure.clone()), kind))
        };
        let wait = |name: Option<&ServiceName>,
                    kind: for<'a> fn(&'a ServiceName) -> EventKind<'a>| {
            name.map(|name| Owned::Wait(name.clone(), kind))
        };
        let (kind, owned) = match &happened.kind {
            EventKind::Registered => (EventKind::Registered, None),
            EventKind::AttemptStarted => (EventKind::AttemptStarted, None),
            EventKind::Ready => (EventKind::Ready, None),
            EventKind::Replaced => (EventKind::Replaced, None),
            EventKind::Closed => (EventKind::Closed, None),
            EventKind::WaitStarted { dependent } => (
                EventKind::WaitStarted { dependent: None },
                wait(*dependent, |name| EventKind::WaitStarted { dependent: Some(name) }),
            ),
            EventKind::WaitEnded { dependent } => (
                EventKind::WaitEnded { dependent: None },
                wait(*dependent, |name| EventKind::WaitEnded { dependent: Some(name) }),
            ),
            // `with` replaces the kind.
            EventKind::Failed(it) => (EventKind::Closed, failure(it, |it| EventKind::Failed(it))),
            EventKind::Invalidated(it) => {
                (EventKind::Closed, failure(it, |it| EventKind::Invalidated(it)))
            }
            EventKind::AttemptFailed(it) => {
                (EventKind::Closed, failure(it, |it| EventKind::AttemptFailed(it)))
            }
            EventKind::GivenUp(it) => (EventKind::Closed, failure(it, |it| EventKind::GivenUp(it))),
        };
        let Happened { index, generation, number, elapsed, .. } = *happened;
        let event = Happened { index, generation, number, elapsed, kind };
        Self { event, reading, is_shown: false, owned }
    }

    pub(super) fn index(&self) -> ServiceIndex {
        self.event.index
    }

    /// Calls `f` with the event, unless a later reading shows it.
    pub(super) fn with(&self, f: impl FnOnce(&Happened<'_>)) {
        if self.is_shown {
            return;
        }
        let Happened { index, generation, number, elapsed, ref kind } = self.event;
        let kind = match &self.owned {
            None => kind.clone(),
            Some(Owned::Wait(name, kind)) => kind(name),
            Some(Owned::Failure(failure, kind)) => kind(failure),
        };
        f(&Happened { index, generation, number, elapsed, kind });
    }
}
