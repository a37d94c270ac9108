//! An event as it is passed to several observers, and its comparison with a listing.

use std::time::Duration;

#[cfg(feature = "supervise")]
use crate::error::ReloadError;
use crate::{
    event::EventKind,
    failure::{Failure, Reason},
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
    changes: u64,
}

impl Found {
    pub(super) fn new(registry: &Registry, index: ServiceIndex) -> Self {
        Self {
            listed: registry.store().list_for_observer(index),
            reading: 0,
            #[cfg(feature = "supervise")]
            changes: registry.supervisors().changes(index),
            #[cfg(not(feature = "supervise"))]
            changes: 0,
        }
    }

    /// Returns whether no event of the service lies between the two.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.changes == other.changes && self.listed.is_same(&other.listed)
    }

    /// Returns whether the event had happened when the service was read. Called when the event
    /// reaches the observer, which is after the reading.
    pub(super) fn shows(&self, event: &Happened<'_>) -> bool {
        let Listed { state, failed_attempts, revision, closed, .. } = self.listed;
        let is_earlier = event.generation < state.generation();
        let is_same = event.generation == state.generation();
        match event.kind {
            EventKind::Registered => true,
            // No part of a listing.
            EventKind::WaitStarted { .. }
            | EventKind::WaitEnded { .. }
            | EventKind::BodyFailed(_)
            | EventKind::HookFailed(_) => false,
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
            // The end of an attempt has a number, and that of a generation has none.
            EventKind::Stopped(_) if event.number > 0 => event.number <= failed_attempts,
            EventKind::Stopped(_) => is_earlier,
            EventKind::BackingOff { .. }
            | EventKind::Waiting { .. }
            | EventKind::Permanent(_)
            | EventKind::GivenUp(_)
            | EventKind::Completed
            | EventKind::Degraded { .. }
            | EventKind::NotDegraded
            | EventKind::Stopping
            | EventKind::Queued
            | EventKind::BodyLate
            | EventKind::Draining { .. }
            | EventKind::Closing
            | EventKind::StopEnded
            | EventKind::StopTimedOut => event.number <= self.changes,
            #[cfg(feature = "supervise")]
            EventKind::ReloadRefused(_) => event.number <= self.changes,
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

/// What a kind borrows, and the kind that borrows it.
enum Owned {
    Name(ServiceName, for<'a> fn(&'a ServiceName) -> EventKind<'a>),
    Failure(Shielded<Failure>, for<'a> fn(&'a Failure) -> EventKind<'a>),
    Reason(Shielded<Reason>, for<'a> fn(&'a Reason) -> EventKind<'a>),
    Text(Box<str>, for<'a> fn(&'a str) -> EventKind<'a>),
    #[cfg(feature = "supervise")]
    Reload(Shielded<ReloadError>),
}

impl Owned {
    fn name(name: &ServiceName, kind: for<'a> fn(&'a ServiceName) -> EventKind<'a>) -> Self {
        Self::Name(name.clone(), kind)
    }

    fn failure(failure: &Failure, kind: for<'a> fn(&'a Failure) -> EventKind<'a>) -> Self {
        Self::Failure(Shielded::new(failure.clone()), kind)
    }

    fn reason(reason: &Reason, kind: for<'a> fn(&'a Reason) -> EventKind<'a>) -> Self {
        Self::Reason(Shielded::new(reason.clone()), kind)
    }
}

/// A kind that borrows nothing, or what it borrows.
fn to_owned(kind: &EventKind<'_>) -> Result<EventKind<'static>, Owned> {
    Ok(match *kind {
        EventKind::Registered => EventKind::Registered,
        EventKind::AttemptStarted => EventKind::AttemptStarted,
        EventKind::WaitStarted { dependent: None } => EventKind::WaitStarted { dependent: None },
        EventKind::WaitStarted { dependent: Some(name) } => {
            return Err(Owned::name(name, |name| EventKind::WaitStarted { dependent: Some(name) }));
        }
        EventKind::WaitEnded { dependent: None } => EventKind::WaitEnded { dependent: None },
        EventKind::WaitEnded { dependent: Some(name) } => {
            return Err(Owned::name(name, |name| EventKind::WaitEnded { dependent: Some(name) }));
        }
        EventKind::Ready => EventKind::Ready,
        EventKind::Replaced => EventKind::Replaced,
        EventKind::Failed(it) => return Err(Owned::failure(it, |it| EventKind::Failed(it))),
        EventKind::Invalidated(it) => {
            return Err(Owned::failure(it, |it| EventKind::Invalidated(it)));
        }
        EventKind::AttemptFailed(it) => {
            return Err(Owned::failure(it, |it| EventKind::AttemptFailed(it)));
        }
        EventKind::Stopped(it) => return Err(Owned::failure(it, |it| EventKind::Stopped(it))),
        EventKind::BackingOff { delay, failures } => EventKind::BackingOff { delay, failures },
        EventKind::Waiting { dependency } => {
            return Err(Owned::name(dependency, |name| EventKind::Waiting { dependency: name }));
        }
        EventKind::Permanent(it) => return Err(Owned::failure(it, |it| EventKind::Permanent(it))),
        EventKind::GivenUp(it) => return Err(Owned::failure(it, |it| EventKind::GivenUp(it))),
        EventKind::Completed => EventKind::Completed,
        EventKind::Degraded { why } => {
            return Err(Owned::Text(why.into(), |why| EventKind::Degraded { why }));
        }
        EventKind::NotDegraded => EventKind::NotDegraded,
        #[cfg(feature = "supervise")]
        EventKind::ReloadRefused(it) => return Err(Owned::Reload(Shielded::new(it.clone()))),
        EventKind::Stopping => EventKind::Stopping,
        EventKind::Queued => EventKind::Queued,
        EventKind::BodyLate => EventKind::BodyLate,
        EventKind::Draining { holders } => EventKind::Draining { holders },
        EventKind::Closing => EventKind::Closing,
        EventKind::BodyFailed(it) => return Err(Owned::reason(it, |it| EventKind::BodyFailed(it))),
        EventKind::HookFailed(it) => return Err(Owned::reason(it, |it| EventKind::HookFailed(it))),
        EventKind::StopEnded => EventKind::StopEnded,
        EventKind::StopTimedOut => EventKind::StopTimedOut,
        EventKind::Closed => EventKind::Closed,
    })
}

impl Kept {
    pub(super) fn new(happened: &Happened<'_>, reading: u32) -> Self {
        let (kind, owned) = match to_owned(&happened.kind) {
            Ok(kind) => (kind, None),
            // `with` replaces the kind.
            Err(owned) => (EventKind::Closed, Some(owned)),
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
            Some(Owned::Name(name, kind)) => kind(name),
            Some(Owned::Failure(failure, kind)) => kind(failure),
            Some(Owned::Reason(reason, kind)) => kind(reason),
            Some(Owned::Text(text, kind)) => kind(text),
            #[cfg(feature = "supervise")]
            Some(Owned::Reload(error)) => EventKind::ReloadRefused(error),
        };
        f(&Happened { index, generation, number, elapsed, kind });
    }
}
