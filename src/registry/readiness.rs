//! The readiness of a registry, or of a set of its services, for probes.

use std::{collections::HashSet, fmt, time::Duration};

#[cfg(feature = "supervise")]
use super::{Degraded, Stale};
use super::{NotReady, Registry, not_ready::lasts};
use crate::{
    error::ForeignIdError, numbers::ServiceIndex, service::ServiceName, service_set::ServiceSet,
    store::Phase, sync::Shielded,
};

impl Registry {
    /// Returns whether the program is started, live, ready and degraded, and what is not as it
    /// should be: the answer to the probes of a load balancer or of Kubernetes.
    ///
    /// The services are read one after another, not at one instant. Blocking: it takes locks for a
    /// short time, and calls no code of the user but the clock. The cost is that of one check of
    /// each service, and of the path to the root of the reason for each one that is not ready:
    /// n log n.
    ///
    /// ```
    /// let registry = mainstay::Registry::with_capacity(2)?;
    /// let pool = registry.register::<u8>("pool")?;
    /// let metrics = registry.register::<u8>("metrics")?;
    /// registry.set_optional([metrics])?;
    /// let _provider = registry.provide(metrics)?;
    /// registry.constant(pool, 8)?;
    /// registry.startup_complete();
    ///
    /// let readiness = registry.readiness();
    /// assert!(readiness.started && readiness.live && readiness.ready && readiness.degraded);
    /// assert!(readiness.to_string().starts_with("degraded: metrics: down"));
    /// assert_eq!(readiness.problems[0].service, "metrics");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn readiness(&self) -> Readiness {
        let store = self.store();
        let is_optional = |index| store.service(index).optional.is_set();
        self.readiness_with(store.services(), is_optional, |is_up| {
            if is_up {
                self.note_all_ready();
            }
            store.has_been_ready.is_set()
        })
    }

    /// As [`readiness`](Self::readiness), for the services of a set: all of them are required, also
    /// [optional](Self::set_optional) ones, as in [`wait_set_ready`](Self::wait_set_ready).
    ///
    /// It is *started* if the registry is, or if all services of the set are ready now.
    ///
    /// # Errors
    ///
    /// [`ForeignIdError`]: an id belongs to another registry.
    ///
    /// ```
    /// use mainstay::{Registry, ServiceSet};
    ///
    /// let registry = Registry::with_capacity(2)?;
    /// let pool = registry.register::<u8>("pool")?;
    /// let server = registry.register::<u8>("server")?;
    /// registry.constant(pool, 8)?;
    /// assert!(registry.readiness_of(&ServiceSet::from(pool))?.ready);
    /// let readiness = registry.readiness_of(&ServiceSet::from(server))?;
    /// assert_eq!(readiness.to_string(), "starting: server: no provider");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn readiness_of(&self, set: &ServiceSet) -> Result<Readiness, ForeignIdError> {
        let store = self.store();
        let indices = set.iter().map(|id| self.index(id)).collect::<Result<Vec<_>, _>>()?;
        Ok(self.readiness_with(
            indices.into_iter(),
            |_| false,
            |is_up| is_up && store.stuck.has_started() || store.has_been_ready.is_set(),
        ))
    }

    /// Called after a check has found all required services ready.
    pub(super) fn note_all_ready(&self) {
        if self.store().stuck.has_started() {
            self.store().has_been_ready.set();
        }
    }

    /// Returns the readiness of these services. `started` gets whether all required ones are ready.
    fn readiness_with(
        &self,
        services: impl Iterator<Item = ServiceIndex>,
        is_optional: impl Fn(ServiceIndex) -> bool,
        started: impl FnOnce(bool) -> bool,
    ) -> Readiness {
        let store = self.store();
        let (mut not_ready, mut problems) = (Vec::new(), Vec::new());
        for index in services {
            let tag = store.slot(index).state.load();
            if tag.phase() != Phase::Ready {
                not_ready.push(index);
                continue;
            }
            #[cfg(feature = "supervise")]
            {
                let (supervisors, generation) = (self.supervisors(), tag.generation());
                let degraded = supervisors.degraded(index, generation);
                let stale = supervisors.stale(index, generation);
                let since = degraded.as_ref().map(|it| it.since);
                let since = since.into_iter().chain(stale.as_ref().map(|it| it.since)).min();
                let Some(since) = since else { continue };
                problems.push((
                    index,
                    ReadinessProblem {
                        service: store.name(index),
                        optional: is_optional(index),
                        stuck: false,
                        lasts: since.elapsed().ok(),
                        not_ready: None,
                        degraded,
                        stale,
                    },
                ));
            }
        }
        let mut live = !self.is_closed();
        let reasons = NotReady::of_some(self.inner(), &not_ready);
        let roots = self.stuck_roots(&not_ready);
        for ((index, why), root) in not_ready.into_iter().zip(reasons).zip(roots) {
            // It has become ready since.
            let Some(why) = why else { continue };
            let optional = is_optional(index);
            // A service that the user has stopped is no reason to end the process.
            live &= optional || root.is_none_or(|root| root.is_held_down);
            let failure = store.last_failure(index).map(Shielded::new);
            let tag = store.slot(index).state.load();
            problems.push((
                index,
                ReadinessProblem {
                    service: store.name(index),
                    optional,
                    stuck: root.is_some(),
                    lasts: lasts(self.inner(), index, tag, failure.as_deref()),
                    not_ready: Some(why),
                    #[cfg(feature = "supervise")]
                    degraded: None,
                    #[cfg(feature = "supervise")]
                    stale: None,
                },
            ));
        }
        problems.sort_by_key(|(index, _)| *index);
        let problems: Vec<_> = problems.into_iter().map(|(_, problem)| problem).collect();
        let is_up = problems.iter().all(|it| it.optional || it.not_ready.is_none());
        let shutdown = self.end_reason();
        let ready = is_up && shutdown.is_none();
        Readiness {
            started: started(is_up),
            live,
            ready,
            // What is not as it should be is optional, or up.
            degraded: ready && !problems.is_empty(),
            shutdown,
            problems,
        }
    }

    /// Returns why the registry is closed, or about to be.
    fn end_reason(&self) -> Option<String> {
        #[cfg(feature = "supervise")]
        return self.shutdown_reason().map(|why| String::from(&*why));
        #[cfg(not(feature = "supervise"))]
        return self.is_closed().then(|| "the registry is closed".into());
    }
}

/// Whether a program is started, live, ready and degraded; returned by [`Registry::readiness`].
///
/// `Display` writes one line: *ready*; or *starting*, *stuck*, *shutting down*, *not ready* or
/// *degraded*, with each service that is not as it should be, and why. It calls the `Display` and
/// the `source` of the user's errors. With the feature `serde` it is `Serialize`, and each
/// [`NotReady`] is its line.
///
/// | probe | field | if it fails |
/// |---|---|---|
/// | startup | [`started`](Self::started) | the process has more time, and is then restarted |
/// | liveness | [`live`](Self::live) | the process is restarted |
/// | readiness | [`ready`](Self::ready) | the process gets no requests |
///
/// ```
/// let registry = mainstay::Registry::with_capacity(1)?;
/// let port = registry.register::<u16>("port")?;
/// assert_eq!(registry.readiness().to_string(), "starting: port: no provider");
/// registry.constant(port, 80)?;
/// registry.startup_complete();
/// assert_eq!(registry.readiness().to_string(), "ready");
/// registry.fail(port, "edited")?;
/// let readiness = registry.readiness();
/// assert!(readiness.started && !readiness.live && !readiness.ready);
/// assert_eq!(readiness.to_string(), "stuck: port: no provider: edited");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Readiness {
    /// [Start-up is complete](Registry::startup_complete), and a call of [`Registry::readiness`] or
    /// a wait of [`Registry::wait_all_ready`] has found all required services ready since then. It
    /// stays true.
    ///
    /// *Required* are all services that are not [optional](Registry::set_optional).
    pub started: bool,
    /// Only help from outside could make the program ready, if this is false: the registry is
    /// closed, or a required service is stuck (as for [`Registry::wait_all_ready`]). The most
    /// common help is to restart the process.
    ///
    /// A service that the user has stopped, and one that waits for it, do not count: the same user
    /// starts it, and a restart of the process would start it at once. A service that backs off, or
    /// is late, does not count either: it tries again, and a new process could do no more.
    pub live: bool,
    /// All required services are ready, and no shutdown was requested: so it is false during the
    /// notice of a shutdown, in which requests are still answered.
    pub ready: bool,
    /// It is ready, but an optional service is not, or a body has said that its service is
    /// degraded (`Live::set_degraded`), or the last reload of a service was refused (`Stale`).
    pub degraded: bool,
    /// Why a shutdown was requested, or that the registry is closed.
    pub shutdown: Option<String>,
    /// The services that are not ready, degraded or stale, in the order of registration.
    pub problems: Vec<ReadinessProblem>,
}

/// A service that is not ready, degraded or stale; a part of [`Readiness`].
///
/// `Display` writes one line, as that of [`NotReady`].
///
/// ```
/// let registry = mainstay::Registry::with_capacity(1)?;
/// registry.register::<u16>("port")?;
/// registry.startup_complete();
/// let problem = &registry.readiness().problems[0];
/// assert!(problem.stuck && !problem.optional);
/// assert_eq!(problem.to_string(), "port: no provider");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct ReadinessProblem {
    /// The service.
    pub service: ServiceName,
    /// Whether it is [optional](Registry::set_optional), and no set names it.
    pub optional: bool,
    /// Whether it cannot become ready without help.
    pub stuck: bool,
    /// The time since which it is not ready, degraded or stale: by the clock of the registry for a
    /// supervised service that is not ready, else by the system's clock. `None` if a clock that is
    /// not real cannot say it.
    pub lasts: Option<Duration>,
    /// Why it is not ready; `None` if it is ready, and degraded or stale.
    pub not_ready: Option<NotReady>,
    /// Why it is degraded.
    #[cfg(feature = "supervise")]
    pub degraded: Option<Degraded>,
    /// Why it is stale.
    #[cfg(feature = "supervise")]
    pub stale: Option<Stale>,
}

impl ReadinessProblem {
    /// Writes the line, up to a service that is `listed` with a line of its own.
    fn write(
        &self,
        f: &mut fmt::Formatter<'_>,
        listed: impl Fn(&ServiceName) -> bool,
    ) -> fmt::Result {
        if let Some(not_ready) = &self.not_ready {
            return write!(f, "{}", not_ready.before(listed, None));
        }
        #[cfg(feature = "supervise")]
        match (&self.degraded, &self.stale) {
            (Some(degraded), Some(stale)) => {
                write!(f, "{}: {degraded}, {stale}", self.service)?;
            }
            (Some(degraded), None) => write!(f, "{}: {degraded}", self.service)?,
            (None, Some(stale)) => write!(f, "{}: {stale}", self.service)?,
            (None, None) => {}
        }
        Ok(())
    }
}

impl fmt::Display for ReadinessProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, |_| false)
    }
}

impl fmt::Display for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self { shutdown: Some(why), .. } => write!(f, "shutting down: {why}")?,
            Self { live: false, .. } => f.write_str("stuck")?,
            Self { ready: false, started: false, .. } => f.write_str("starting")?,
            Self { ready: false, .. } => f.write_str("not ready")?,
            Self { degraded: true, .. } => f.write_str("degraded")?,
            _ => f.write_str("ready")?,
        }
        let listed: HashSet<&str> = self.problems.iter().map(|it| &*it.service).collect();
        for (i, problem) in self.problems.iter().enumerate() {
            let is_first = i == 0 && self.shutdown.is_none();
            f.write_str(if is_first { ": " } else { "; " })?;
            problem.write(f, |service| listed.contains(&**service))?;
        }
        Ok(())
    }
}
