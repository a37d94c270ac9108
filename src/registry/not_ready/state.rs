//! What a service that is not ready does, as far as the registry knows it.

use std::{borrow::Cow, fmt, time::Duration};

#[cfg(feature = "supervise")]
use crate::registry::{SupervisorState, SupervisorStatus};
use crate::{
    numbers::ServiceIndex,
    registry::RegistryInner,
    store::{Awaited, EndMark, Phase, Tag},
};

/// What a service that is not ready does.
pub(in crate::registry) enum State {
    Down,
    NoProvider,
    /// It has no provider, and had a supervisor.
    #[cfg(feature = "supervise")]
    SupervisorEnded,
    Closed,
    /// A shutdown has stopped it.
    Stopped,
    /// The user has stopped it, and can start it.
    HeldDown,
    /// A restart or a stop is in progress, in which it has ended.
    Ended,
    /// An attempt by hand is in progress.
    Starting,
    WaitingFor(Cow<'static, str>),
    /// Its supervisor is in a builder that builds aside, and has not noticed the failure.
    #[cfg(feature = "supervise")]
    BuildingAside,
    #[cfg(feature = "supervise")]
    // Boxed: it is much larger than the others.
    Supervised(Box<SupervisorStatus>),
}

impl State {
    /// Returns the state of a service that is not ready, and the service for which it waits, if
    /// that one is not ready either.
    pub(in crate::registry) fn read(
        inner: &RegistryInner,
        index: ServiceIndex,
        tag: Tag,
    ) -> (Self, Option<ServiceIndex>) {
        Self::read_with(
            #[cfg(feature = "supervise")]
            inner.supervisors.status(index, None),
            inner,
            index,
            tag,
        )
    }

    pub(in crate::registry) fn read_with(
        #[cfg(feature = "supervise")] status: Option<SupervisorStatus>,
        inner: &RegistryInner,
        index: ServiceIndex,
        tag: Tag,
    ) -> (Self, Option<ServiceIndex>) {
        let store = &inner.store;
        #[cfg(feature = "supervise")]
        let status = match status {
            // Its end is in progress, also if it is down already.
            Some(status) if status.state.is_ending() => {
                return (Self::Supervised(Box::new(status)), None);
            }
            status => status,
        };
        if store.has_stopped(index) {
            return (Self::Stopped, None);
        }
        if store.is_closed() {
            return (Self::Closed, None);
        }
        if tag.phase() == Phase::Down {
            match store.service(index).end_mark.get() {
                EndMark::Stopped => return (Self::HeldDown, None),
                EndMark::Ending => return (Self::Ended, None),
                EndMark::None | EndMark::ShutDown => {}
            }
        }
        #[cfg(feature = "supervise")]
        if let Some(status) = status {
            return match status.state {
                // The supervisor has not noticed the failure yet.
                SupervisorState::Up | SupervisorState::Completed => {
                    let builds_aside = inner.supervisors.builds_aside(index);
                    (if builds_aside { Self::BuildingAside } else { Self::Down }, None)
                }
                SupervisorState::Building => Self::awaited(inner, index, tag)
                    .unwrap_or_else(|| (Self::Supervised(Box::new(status)), None)),
                _ => {
                    let waiting_for = status.waiting_for.as_deref();
                    let next = waiting_for.and_then(|name| store.find(name)).map(|id| id.index);
                    (Self::Supervised(Box::new(status)), next.filter(|&next| !store.is_ready(next)))
                }
            };
        }
        Self::awaited(inner, index, tag).unwrap_or_else(|| match tag.phase() {
            Phase::Starting => (Self::Starting, None),
            _ if store.service(index).role.is_provided() => (Self::Down, None),
            #[cfg(feature = "supervise")]
            _ if inner.supervisors.has_ended(index) => (Self::SupervisorEnded, None),
            _ => (Self::NoProvider, None),
        })
    }

    /// Returns what the attempt in progress waits for, if it does.
    fn awaited(
        inner: &RegistryInner,
        index: ServiceIndex,
        tag: Tag,
    ) -> Option<(Self, Option<ServiceIndex>)> {
        if tag.phase() != Phase::Starting {
            return None;
        }
        match inner.store.awaited(index, tag.generation())? {
            Awaited::Other(what) => Some((Self::WaitingFor(what), None)),
            // Its wait is about to end.
            Awaited::Dependency(dependency) if inner.store.is_ready(dependency) => None,
            Awaited::Dependency(dependency) => {
                let name = String::from(inner.store.name(dependency));
                Some((Self::WaitingFor(name.into()), Some(dependency)))
            }
        }
    }

    /// Returns whether the service is stuck by itself (S17).
    pub(in crate::registry) fn is_stuck(&self, inner: &RegistryInner, index: ServiceIndex) -> bool {
        match self {
            #[cfg(feature = "supervise")]
            Self::HeldDown => !inner.supervisors.plan.begins_again(index),
            #[cfg(feature = "supervise")]
            Self::SupervisorEnded => true,
            Self::NoProvider => inner.store.stuck.is_started(index),
            #[cfg(feature = "supervise")]
            Self::Supervised(status) => match status.state {
                SupervisorState::GivenUp | SupervisorState::Permanent => {
                    !inner.supervisors.plan.begins_again(index)
                }
                SupervisorState::NotRunning => {
                    let control = inner.supervisors.control(index);
                    let is_run = control.is_some_and(|control| control.is_run());
                    !is_run && inner.store.stuck.is_started(index)
                }
                _ => false,
            },
            _ => false,
        }
    }

    /// Returns whether a dependency that is not ready is a reason, too.
    pub(in crate::registry) fn may_need(&self) -> bool {
        match self {
            Self::Down | Self::NoProvider | Self::Starting => true,
            #[cfg(feature = "supervise")]
            Self::SupervisorEnded => true,
            Self::Closed | Self::Stopped | Self::HeldDown | Self::Ended | Self::WaitingFor(_) => {
                false
            }
            #[cfg(feature = "supervise")]
            Self::BuildingAside => false,
            #[cfg(feature = "supervise")]
            Self::Supervised(status) => {
                matches!(status.state, SupervisorState::NotRunning | SupervisorState::Building)
            }
        }
    }

    /// Returns whether the service is at its end.
    pub(in crate::registry) fn is_end(&self) -> bool {
        matches!(self, Self::Closed | Self::Stopped | Self::HeldDown)
    }

    /// Returns the time by which its build exceeds its timeout.
    pub(in crate::registry) fn late_by(&self) -> Option<Duration> {
        match self {
            #[cfg(feature = "supervise")]
            Self::Supervised(status) => status.late_by,
            _ => None,
        }
    }

    /// Returns whether the service is being built.
    pub(in crate::registry) fn is_again(&self) -> bool {
        match self {
            Self::Starting => true,
            #[cfg(feature = "supervise")]
            Self::Supervised(status) => status.state == SupervisorState::Building,
            _ => false,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Down => f.write_str("down"),
            Self::NoProvider => f.write_str("no provider"),
            #[cfg(feature = "supervise")]
            Self::SupervisorEnded => f.write_str("its supervisor has ended"),
            Self::Closed => f.write_str("closed"),
            Self::Stopped => f.write_str("stopped"),
            Self::HeldDown => f.write_str("stopped, `Registry::start` starts it"),
            Self::Ended => f.write_str("ended, begins again after its dependencies"),
            Self::Starting => f.write_str("starting"),
            Self::WaitingFor(what) => write!(f, "waiting for {what}"),
            #[cfg(feature = "supervise")]
            Self::BuildingAside => f.write_str("waiting for its build aside to return"),
            #[cfg(feature = "supervise")]
            Self::Supervised(status) if status.state == SupervisorState::NotRunning => {
                write!(f, "its supervisor is {status}")
            }
            // By how much its build is late follows (`Link::write`).
            #[cfg(feature = "supervise")]
            Self::Supervised(status) if status.state == SupervisorState::Building => {
                write!(f, "{}", status.state)
            }
            #[cfg(feature = "supervise")]
            Self::Supervised(status) => status.fmt(f),
        }
    }
}
