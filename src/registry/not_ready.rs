//! Why a service is not ready, in one line.

use std::{
    borrow::Cow,
    cell::Cell,
    fmt,
    panic::{RefUnwindSafe, UnwindSafe},
    sync::{Arc, OnceLock, Weak},
    time::{Duration, SystemTime},
};

#[cfg(feature = "supervise")]
use super::SupervisorState;
use super::{Registry, RegistryInner};
use crate::{
    failure::Failure,
    numbers::ServiceIndex,
    service::ServiceName,
    store::{Awaited, EndMark, Inspection, LONGEST_PATH, Phase, Tag},
    sync::Shielded,
    texts::Rounded,
};

/// Why a service is not ready: the path from the service to the root of the reason, each service
/// with its own words.
///
/// It is part of a [status](crate::ServiceStatus::not_ready), of the error of a wait that has timed
/// out, and of the error of a read
/// ([`DependencyUnavailable::not_ready`](crate::error::DependencyUnavailable::not_ready)).
///
/// `Display` writes one line: *server: waiting for pool; pool: backing off after 4 failures, next
/// try in 3.2 s: cannot open /data/x.db: disk full (for 41 s)*. The last service is the root. It is
/// written with its last failure and all sources of it, and with the time since which it is not
/// ready, if that is a second or more: by the clock of the registry for a supervised service, and
/// by the system's clock for others (not with a clock that is not [real], such as a virtual one).
/// With the feature `serde`, it is serialised as this line.
///
/// At most 64 services are written. `Display` calls the `Display` and the `source` of the errors of
/// the user: if one of them panics, so does it.
///
/// [real]: crate::supervise::Clock::is_real
///
/// ```
/// use mainstay::Registry;
///
/// let registry = Registry::with_capacity(2)?;
/// let pool = registry.register::<u8>("pool")?;
/// let server = registry.register::<u8>("server")?;
/// let (provide_pool, provide_server) = (registry.provide(pool)?, registry.provide(server)?);
/// provide_pool.begin().wait_blocking()?.fail("disk full")?;
/// let attempt = provide_server.begin().wait_blocking()?;
/// # let start = |wait: &mut _| drop(pollster::block_on(futures_lite::future::poll_once(wait)));
/// let mut wait = attempt.wait_for(pool);
/// start(&mut wait); // polls it once
///
/// let why = registry.status(server)?.not_ready.unwrap();
/// assert_eq!(why.root(), "pool");
/// assert!(why.to_string().starts_with("server: waiting for pool; pool: down: disk full"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct NotReady {
    /// At least one.
    links: Vec<Arc<Link>>,
}

impl NotReady {
    /// Returns the service that is the root of the reason.
    pub fn root(&self) -> &ServiceName {
        &self.last().service
    }

    /// Returns the names of the services, from the service itself to the root.
    pub fn services(&self) -> impl Iterator<Item = &ServiceName> {
        self.links.iter().map(|link| &link.service)
    }

    /// Returns the last failure of the root, if that is a part of the reason.
    pub fn failure(&self) -> Option<&Failure> {
        self.last().failure.as_deref()
    }

    fn last(&self) -> &Link {
        match self.links.last() {
            Some(last) => last,
            None => unreachable!("a path has at least one service"),
        }
    }

    /// Finds out why a service is not ready. `None` if it is ready.
    pub(crate) fn of(inner: &RegistryInner, index: ServiceIndex) -> Option<Self> {
        path(index, |index| {
            let state = inner.store.slot(index).state.load();
            let not_ready = state.phase() != Phase::Ready;
            not_ready.then(|| {
                let blocking = || inner.store.first_blocking(index);
                let (link, next) = Link::read(inner, index, state, blocking);
                (Arc::new(link), next)
            })
        })
    }

    /// Returns the path from a service to one that is stuck by itself, if there is one.
    pub(super) fn if_stuck(inner: &RegistryInner, index: ServiceIndex) -> Option<Self> {
        let is_stuck = Cell::new(false);
        let found = path(index, |index| {
            let tag = present_tag(inner, index)?;
            // What a service needs and does not wait for is no reason for it to be stuck.
            let (link, next) = Link::read(inner, index, tag, || None);
            is_stuck.set(link.state.is_stuck(inner, index));
            Some((Arc::new(link), next))
        });
        found.filter(|_| is_stuck.get())
    }

    /// Finds out for all services why they are not ready: reads each of them once.
    pub(crate) fn of_all(inner: &RegistryInner, inspection: &Inspection) -> Vec<Option<Self>> {
        let link = |index| {
            let state = inspection.state(index);
            let not_ready = state.phase() != Phase::Ready;
            not_ready.then(|| {
                let blocking = || inspection.first_blocking(index);
                let (link, next) = Link::read(inner, index, state, blocking);
                (Arc::new(link), next)
            })
        };
        let links: Vec<_> = inspection.indices().map(link).collect();
        // A service that was registered since the inspection is not among them.
        let found = |index: ServiceIndex| links.get(index.as_usize()).cloned().flatten();
        inspection.indices().map(|index| path(index, found)).collect()
    }

    /// The line without the last failure of the root: for an error whose source is that failure.
    pub(crate) fn without_failure(&self) -> impl fmt::Display + '_ {
        Line { links: &self.links, with_failure: false }
    }

    /// The part of the line that is about the service itself, and those that follow it on the path
    /// before one that `ends` it. Without the failure of the root if that one is `known`.
    pub(crate) fn before(
        &self,
        ends: impl Fn(&ServiceName) -> bool,
        known: Option<&ServiceName>,
    ) -> impl fmt::Display + '_ {
        let after_first = self.links[1..].iter().position(|link| ends(&link.service));
        let links = &self.links[..after_first.map_or(self.links.len(), |at| at + 1)];
        // Only the root has a failure.
        Line { links, with_failure: known != Some(self.root()) }
    }
}

impl Registry {
    /// Returns why a service is not ready; `None` if it is ready.
    pub(crate) fn not_ready(&self, index: ServiceIndex) -> Option<NotReady> {
        NotReady::of(&self.inner, index)
    }
}

/// What a service that is not ready does, as far as it can be stuck (S17).
pub(super) enum Stuck {
    ByItself,
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
            None if state.is_stuck(inner, index) => Self::ByItself,
            None => Self::Not,
        }
    }

    /// Returns whether the path from a service ends at one that is stuck by itself.
    pub(super) fn ends_path_of(inner: &RegistryInner, index: ServiceIndex) -> bool {
        let (mut next, mut seen) = (index, Vec::new());
        while seen.len() < LONGEST_PATH && !seen.contains(&next) {
            seen.push(next);
            match Self::of(inner, next) {
                Self::ByItself => return true,
                Self::If(then) => next = then,
                Self::Not => return false,
            }
        }
        false
    }
}

/// Returns the state of a service; `None` if it is ready. A service that is condemned is about to
/// be taken down, and no event follows for those that read the state now.
fn present_tag(inner: &RegistryInner, index: ServiceIndex) -> Option<Tag> {
    let slot = inner.store.slot(index);
    let tag = slot.state.load();
    let is_up = tag.phase() == Phase::Ready && slot.condemned.load() == tag.generation();
    (!is_up).then_some(tag)
}

/// Returns the path from `index`. `read` returns the link of a service, and the service that it
/// waits for; `None` if the service is ready.
fn path(
    index: ServiceIndex,
    read: impl Fn(ServiceIndex) -> Option<(Arc<Link>, Option<ServiceIndex>)>,
) -> Option<NotReady> {
    let (mut links, mut seen) = (Vec::new(), Vec::new());
    let mut next = Some(index);
    while let Some(index) = next.filter(|_| links.len() < LONGEST_PATH) {
        // Edges have no cycle. But a build may also fail because of a service without an edge to
        // it, and two services may wait for each other in this way.
        let Some((link, then)) = read(index).filter(|_| !seen.contains(&index)) else { break };
        links.push(link);
        seen.push(index);
        next = then;
    }
    (!links.is_empty()).then_some(NotReady { links })
}

impl fmt::Display for NotReady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Line { links: &self.links, with_failure: true }.fmt(f)
    }
}

impl fmt::Debug for NotReady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NotReady({self})")
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for NotReady {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

struct Line<'a> {
    links: &'a [Arc<Link>],
    with_failure: bool,
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, link) in self.links.iter().enumerate() {
            f.write_str(if i == 0 { "" } else { "; " })?;
            link.write(f, self.with_failure)?;
        }
        Ok(())
    }
}

/// One service of the path.
struct Link {
    service: ServiceName,
    state: State,
    /// The dependency that is not ready, if the service does not wait for it at present.
    needs: Option<ServiceName>,
    /// The last failure. Only of a root.
    failure: Option<Shielded<Failure>>,
    /// How long it is not ready. Only of a root.
    lasts: Option<Duration>,
}

/// What a service that is not ready does.
enum State {
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
    #[cfg(feature = "supervise")]
    Supervised(super::SupervisorStatus),
}

impl State {
    /// Returns the state of a service that is not ready, and the service for which it waits, if
    /// that one is not ready either.
    fn read(inner: &RegistryInner, index: ServiceIndex, tag: Tag) -> (Self, Option<ServiceIndex>) {
        Self::read_with(
            #[cfg(feature = "supervise")]
            inner.supervisors.status(index, None),
            inner,
            index,
            tag,
        )
    }

    fn read_with(
        #[cfg(feature = "supervise")] status: Option<super::SupervisorStatus>,
        inner: &RegistryInner,
        index: ServiceIndex,
        tag: Tag,
    ) -> (Self, Option<ServiceIndex>) {
        let store = &inner.store;
        #[cfg(feature = "supervise")]
        let status = match status {
            // Its end is in progress, also if it is down already.
            Some(status) if status.state.is_ending() => return (Self::Supervised(status), None),
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
                SupervisorState::Up | SupervisorState::Completed => (Self::Down, None),
                SupervisorState::Building => {
                    Self::awaited(inner, index, tag).unwrap_or((Self::Supervised(status), None))
                }
                _ => {
                    let waiting_for = status.waiting_for.as_deref();
                    let next = waiting_for.and_then(|name| store.find(name)).map(|id| id.index);
                    (Self::Supervised(status), next.filter(|&next| !store.is_ready(next)))
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
    fn is_stuck(&self, inner: &RegistryInner, index: ServiceIndex) -> bool {
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
    fn may_need(&self) -> bool {
        match self {
            Self::Down | Self::NoProvider | Self::Starting => true,
            #[cfg(feature = "supervise")]
            Self::SupervisorEnded => true,
            Self::Closed | Self::Stopped | Self::HeldDown | Self::Ended | Self::WaitingFor(_) => {
                false
            }
            #[cfg(feature = "supervise")]
            Self::Supervised(status) => {
                matches!(status.state, SupervisorState::NotRunning | SupervisorState::Building)
            }
        }
    }

    /// Returns whether the service is at its end.
    fn is_end(&self) -> bool {
        matches!(self, Self::Closed | Self::Stopped | Self::HeldDown)
    }

    /// Returns the time by which its build exceeds its timeout.
    fn late_by(&self) -> Option<Duration> {
        match self {
            #[cfg(feature = "supervise")]
            Self::Supervised(status) => status.late_by,
            _ => None,
        }
    }

    /// Returns whether the service is being built.
    fn is_again(&self) -> bool {
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

impl Link {
    /// Reads a service that is not ready. Returns its link, and the service for which it waits.
    fn read(
        inner: &RegistryInner,
        index: ServiceIndex,
        tag: Tag,
        first_blocking: impl FnOnce() -> Option<ServiceIndex>,
    ) -> (Self, Option<ServiceIndex>) {
        let store = &inner.store;
        let (state, awaited) = State::read(inner, index, tag);
        let needs = if state.may_need() { first_blocking() } else { None };
        let next = awaited.or(needs);
        let is_root = next.is_none();
        let failure = if is_root { store.last_failure(index).map(Shielded::new) } else { None };
        let link = Self {
            service: store.name(index),
            needs: needs.map(|needs| store.name(needs)),
            lasts: if is_root { lasts(inner, index, tag, failure.as_deref()) } else { None },
            // That it ended as planned is what the word says.
            failure: failure.filter(|failure| !(state.is_end() && failure.is_planned())),
            state,
        };
        (link, next)
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, with_failure: bool) -> fmt::Result {
        write!(f, "{}: {}", self.service, self.state)?;
        if let Some(needs) = &self.needs {
            write!(f, ", needs {needs}")?;
        }
        if let Some(failure) = &self.failure {
            if self.state.is_again() {
                let after = if failure.is_planned() { "" } else { " after a failure" };
                write!(f, " again{after}")?;
            }
        }
        if let Some(late_by) = self.state.late_by() {
            write!(f, ", late by {}", Rounded(late_by))?;
        }
        if let Some(failure) = &self.failure {
            if with_failure {
                f.write_str(": ")?;
                if failure.root != failure.service {
                    let verb = if failure.is_planned() { "was stopped" } else { "failed" };
                    write!(f, "{} {verb}: ", failure.root)?;
                }
                write!(f, "{}", failure.reason)?;
            }
        }
        match self.lasts {
            Some(lasts) if lasts.as_secs() > 0 => write!(f, " (for {})", Rounded(lasts)),
            _ => Ok(()),
        }
    }
}

/// Returns how long a service is not ready.
fn lasts(
    inner: &RegistryInner,
    index: ServiceIndex,
    tag: Tag,
    failure: Option<&Failure>,
) -> Option<Duration> {
    #[cfg(feature = "supervise")]
    {
        if let Some(lasts) = inner.supervisors.status(index, None).and_then(|it| it.not_ready_for) {
            return Some(lasts);
        }
        if !inner.supervisors.clock_is_real() {
            return None;
        }
    }
    let since = match (tag.phase(), failure) {
        (Phase::Down, Some(failure)) => failure.at,
        _ => inner.store.began_at(index),
    };
    SystemTime::now().duration_since(since).ok()
}

/// Why a service was not ready, for an error. It is found when it is needed for the first time: it
/// takes locks, and a read is wait-free. Nothing is allocated before, for a read that is refused.
#[derive(Clone)]
pub(crate) struct LazyNotReady {
    registry: Weak<RegistryInner>,
    found: OnceLock<Option<Box<NotReady>>>,
}

impl LazyNotReady {
    pub(crate) fn new(registry: &Arc<RegistryInner>) -> Self {
        Self { registry: Arc::downgrade(registry), found: OnceLock::new() }
    }

    /// Returns why the service with this name was not ready. `None` if it has become ready, or the
    /// registry no longer exists. An error has the name already, and errors are small.
    pub(crate) fn get(&self, service: &ServiceName) -> Option<&NotReady> {
        let find = || {
            let inner = self.registry.upgrade()?;
            let id = inner.store.find(service)?;
            NotReady::of(&inner, id.index).map(Box::new)
        };
        self.found.get_or_init(find).as_deref()
    }
}

impl From<Option<NotReady>> for LazyNotReady {
    fn from(found: Option<NotReady>) -> Self {
        Self { registry: Weak::new(), found: found.map(Box::new).into() }
    }
}

impl fmt::Debug for LazyNotReady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.found.get().fmt(f)
    }
}

// As of `Registry`.
impl UnwindSafe for LazyNotReady {}
impl RefUnwindSafe for LazyNotReady {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Registry;

    /// Two builds that have failed because of the other service: no edge excludes that.
    #[test]
    fn services_that_wait_for_each_other_are_written_once() {
        let registry = Registry::with_capacity(2).unwrap();
        let ids = ["a", "b"].map(|name| registry.register::<u8>(name).unwrap().index());
        let link = |index: ServiceIndex| {
            let (mut link, _) = Link::read(registry.inner(), index, Tag::NONE, || None);
            let other = ids[usize::from(index == ids[0])];
            let name = String::from(registry.store().name(other));
            link.state = State::WaitingFor(name.into());
            Some((Arc::new(link), Some(other)))
        };
        let text = path(ids[0], link).unwrap().to_string();
        assert_eq!(text, "a: waiting for b; b: waiting for a");
    }
}
