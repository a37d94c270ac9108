//! Why a service is not ready, in one line.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    fmt,
    panic::{RefUnwindSafe, UnwindSafe},
    sync::{Arc, OnceLock, Weak},
    time::{Duration, SystemTime},
};

mod state;

pub(super) use self::state::State;

use super::{Registry, RegistryInner};
use crate::{
    failure::Failure,
    numbers::ServiceIndex,
    service::ServiceName,
    store::{Inspection, LONGEST_PATH, Phase, Tag},
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
        path(index, |index| Link::read_present(inner, index))
    }

    /// Returns the path from a service to one that is stuck by itself, if there is one.
    pub(super) fn if_stuck(inner: &RegistryInner, index: ServiceIndex) -> Option<Self> {
        let is_stuck = Cell::new(false);
        let found = path(index, |index| {
            let tag = present_tag(inner, index)?;
            // A service is stuck because of one that it waits for, and not of one that it needs.
            let (link, next) = Link::read(inner, index, tag, || None);
            is_stuck.set(link.state.is_stuck(inner, index));
            Some((Arc::new(link), next))
        });
        found.filter(|_| is_stuck.get())
    }

    /// Finds out for all services why they are not ready: reads each of them once.
    pub(crate) fn of_all(inner: &RegistryInner, inspection: &Inspection) -> Vec<Option<Self>> {
        let link = |index| {
            let blocking = || inspection.first_blocking(index);
            Link::read_unless_ready(inner, index, inspection.state(index), blocking)
        };
        let links: Vec<_> = inspection.indices().map(link).collect();
        // A service that was registered since the inspection is not among them.
        let found = |index: ServiceIndex| links.get(index.as_usize()).cloned().flatten();
        inspection.indices().map(|index| path(index, found)).collect()
    }

    /// Finds out for these services why they are not ready: reads each service on their paths once.
    pub(super) fn of_some(inner: &RegistryInner, indices: &[ServiceIndex]) -> Vec<Option<Self>> {
        let read = RefCell::new(HashMap::new());
        let link = |index| {
            let link = || Link::read_present(inner, index);
            read.borrow_mut().entry(index).or_insert_with(link).clone()
        };
        indices.iter().map(|&index| path(index, link)).collect()
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

/// Returns the state of a service; `None` if it is ready. A service that is condemned is about to
/// be taken down, and no event follows for those that read the state now.
pub(super) fn present_tag(inner: &RegistryInner, index: ServiceIndex) -> Option<Tag> {
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

impl Link {
    /// As `read_unless_ready`, in the present state.
    fn read_present(
        inner: &RegistryInner,
        index: ServiceIndex,
    ) -> Option<(Arc<Self>, Option<ServiceIndex>)> {
        let tag = inner.store.slot(index).state.load();
        Self::read_unless_ready(inner, index, tag, || inner.store.first_blocking(index))
    }

    /// As `read`. Returns `None` if the service is ready.
    fn read_unless_ready(
        inner: &RegistryInner,
        index: ServiceIndex,
        tag: Tag,
        first_blocking: impl FnOnce() -> Option<ServiceIndex>,
    ) -> Option<(Arc<Self>, Option<ServiceIndex>)> {
        (tag.phase() != Phase::Ready).then(|| {
            let (link, next) = Self::read(inner, index, tag, first_blocking);
            (Arc::new(link), next)
        })
    }

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
pub(super) fn lasts(
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
