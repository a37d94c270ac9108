//! The status of one service.

use std::{
    borrow::Cow,
    fmt,
    time::{Duration, SystemTime},
};

use super::{NotReady, RegistryInner, ServiceState};
use crate::{
    failure::Failure,
    instance::BuiltFrom,
    numbers::Generation,
    service::{AnyId, ServiceName},
    store::{Awaited, DependencyKind, Edge, Inspected, InspectedEdge, Phase, Tag},
};

/// The status of one service; returned by [`Registry::status`](crate::Registry::status).
///
/// Its parts are read one after another, not at one instant. A
/// [`ServiceRecord`](crate::ServiceRecord) is a copy of it as plain data, and its serialised form.
///
/// `Display` writes one line for an operator: that the service is ready, and why it is degraded if
/// it is, or why it is not ready ([`NotReady`]).
///
/// ```
/// use mainstay::{Phase, Registry};
///
/// let registry = Registry::with_capacity(1)?;
/// let port = registry.register::<u16>("port")?;
/// let provider = registry.provide(port)?;
/// let _running = provider.begin().wait_blocking()?.ready(80)?;
/// registry.fail(port, "closed")?;
///
/// let status = registry.status(port)?;
/// assert_eq!(status.phase, Phase::Down);
/// assert_eq!(status.generation, 1);
/// assert_eq!(status.type_name, "u16");
/// assert!(status.has_provider);
/// assert!(status.to_string().starts_with("port: down: closed"));
/// assert_eq!(status.last_failure.unwrap().reason.to_string(), "closed");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ServiceStatus {
    /// The service. It is not serialised, because an id is valid only for its registry.
    pub id: AnyId,
    /// Its name.
    pub name: ServiceName,
    /// The type of its values, as the compiler prints it.
    pub type_name: &'static str,
    /// Whether it is down, starting or ready.
    pub phase: Phase,
    /// The number of its failures.
    pub generation: Generation,
    /// How often the value was [replaced](crate::Running::replace) in this generation, if the
    /// service is ready; else 0.
    pub revision: u64,
    /// The time at which the present phase began, by the system's clock:
    ///
    /// - ready: the time of the publication, taken immediately before the instance became current.
    ///   A replacement does not change it;
    /// - starting: the time of the begin, taken immediately after it by the thread that began the
    ///   attempt;
    /// - down: the time of `last_failure`, which all services that a cascade takes down have in
    ///   common: it is taken at the begin of the cascade. If the service has neither failed nor had
    ///   a failed attempt, the time of its registration.
    ///
    /// If the phase changes during the inspection, it may be the time of a later phase.
    pub since: SystemTime,
    /// How often an instance was published.
    ///
    /// It is always `failed`, plus one if there is a current instance. While a failure invalidates
    /// an attempt of the service, both may be off by one for a moment.
    pub built: u64,
    /// How often an instance has failed: all that were published, apart from the current one.
    /// Unlike `generation`, it does not count failures that have invalidated an attempt.
    pub failed: u64,
    /// How often the value was replaced, in all generations.
    pub replaced: u64,
    /// Whether it has a [`Provider`](crate::Provider).
    pub has_provider: bool,
    /// Whether it is [optional](crate::Registry::set_optional): the program is ready without it.
    pub optional: bool,
    /// The number of waits for it to be ready: those of readers, and those of attempts at its
    /// dependents.
    pub waiters: u32,
    /// Its edges to the services that it depends on, in the order in which these were registered.
    pub dependencies: Vec<Dependency>,
    /// The services that depend on it over a hard or start-only edge, in the order of registration.
    pub dependents: Vec<ServiceName>,
    /// The services that watch it over a soft edge, in the order of registration: they are notified
    /// when it fails or is replaced, and do not fail with it.
    pub watched_by: Vec<ServiceName>,
    /// If the service is not ready because a dependency is not: the path to the service that is
    /// the reason. Each entry is a dependency of the one before it: the first one that was
    /// registered of those that are not ready. At most 64 entries. Empty otherwise.
    pub blocked_by: Vec<ServiceName>,
    /// What the attempt in progress waits for: the name of a dependency, or the words of the
    /// provider ([`Attempt::waiting_for`](crate::Attempt::waiting_for)). If it waits for several
    /// things at the same time, the last one for which it began to wait.
    pub waiting_for: Option<Cow<'static, str>>,
    /// Why the service is not ready: the path to the root of the reason, in one line. `None` if it
    /// is ready.
    pub not_ready: Option<NotReady>,
    /// The instances from which the current instance was built, in the order in which their
    /// services were registered ([`Instance::built_from`](crate::Instance::built_from)). Empty if
    /// there is no current instance.
    pub built_from: Vec<BuiltFromInstance>,
    /// The last failed attempt since the service was last taken down; if there is none, the
    /// failure that took the service down. It is kept when the service is ready again.
    pub last_failure: Option<Failure>,
    /// The status of its supervisor; `None` if it is not
    /// [supervised](crate::Registry::supervise).
    #[cfg(feature = "supervise")]
    pub supervisor: Option<super::SupervisorStatus>,
}

/// One edge of the graph, from a service to one of its dependencies.
///
/// ```
/// let registry = mainstay::Registry::with_capacity(2)?;
/// let config = registry.register::<String>("config")?;
/// let port = registry.register::<u16>("port")?;
/// registry.depends(port).on(config)?;
/// let dependency = &registry.status(port)?.dependencies[0];
/// assert_eq!(dependency.id, config.into());
/// assert_eq!(dependency.name, "config");
/// assert!(dependency.declared);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Dependency {
    /// The dependency. It is not serialised, because an id is valid only for its registry.
    pub id: AnyId,
    /// The name of the dependency.
    pub name: ServiceName,
    /// Whether the edge was [declared](crate::Registry::depends) and is permanent. Otherwise an
    /// attempt has discovered it, by waiting for the dependency or by watching it.
    pub declared: bool,
    /// The effect that a failure of the dependency has. A declared start-only edge is hard as long
    /// as an attempt, or the instance that it has published, needs it as a hard one.
    pub kind: DependencyKind,
    /// The declared grace period: how long the service, when it is ready, tolerates that the
    /// dependency is not ready (`Depends::with_grace_on`).
    pub grace: Option<Duration>,
}

/// An instance from which the current instance of a service was built
/// ([`ServiceStatus::built_from`]).
///
/// ```
/// # let registry = mainstay::Registry::with_capacity(2)?;
/// # let config = registry.register::<u16>("config")?;
/// # let server = registry.register::<String>("server")?;
/// # let provide_config = registry.provide(config)?;
/// # let provide_server = registry.provide(server)?;
/// let _config = provide_config.begin().wait_blocking()?.ready(80)?;
/// let attempt = provide_server.begin().wait_blocking()?;
/// attempt.wait_for(config).wait_blocking()?;
/// let _server = attempt.ready("localhost".to_string())?;
///
/// let from = &registry.status(server)?.built_from[0];
/// assert_eq!((&*from.name, from.generation.get(), from.revision), ("config", 0, 0));
/// assert_eq!(from.kind, mainstay::DependencyKind::Hard);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BuiltFromInstance {
    /// The service of the instance. It is not serialised, because an id is valid only for its
    /// registry.
    pub id: AnyId,
    /// The name of the service.
    pub name: ServiceName,
    /// The generation of the instance.
    pub generation: Generation,
    /// The revision of the instance.
    pub revision: u64,
    /// The kind of the edge over which the attempt received it: hard or start-only.
    pub kind: DependencyKind,
}

impl fmt::Display for ServiceStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.not_ready {
            Some(not_ready) => not_ready.fmt(f),
            None => write!(f, "{}: {}", self.name, self.phase),
        }?;
        #[cfg(feature = "supervise")]
        if let Some(supervisor) = &self.supervisor {
            supervisor.write_how_ready(f)?;
        }
        Ok(())
    }
}

impl ServiceStatus {
    /// Returns the phase, the generation and the revision, to wait until they
    /// [change](crate::Registry::wait_changed).
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<u16>("port")?;
    /// let state = registry.status(port)?.state();
    /// assert_eq!((state.phase, state.generation.get()), (mainstay::Phase::Down, 0));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn state(&self) -> ServiceState {
        let Self { phase, generation, revision, .. } = *self;
        ServiceState { phase, generation, revision }
    }

    pub(super) fn of(
        inner: &RegistryInner,
        inspected: Inspected,
        not_ready: Option<NotReady>,
    ) -> Self {
        let Inspected { index, state, dependencies, dependents, blocked_by } = inspected;
        let (store, service) = (&inner.store, inner.store.service(index));
        let dependency = |(edge, source, grace): InspectedEdge| Dependency {
            id: store.id(edge.dependency),
            name: store.name(edge.dependency),
            declared: source.is_declared(),
            kind: source.kind(edge.soft),
            grace,
        };
        let (watched_by, dependents): (Vec<Edge>, Vec<Edge>) =
            dependents.into_iter().partition(|edge| edge.soft);
        let names =
            |edges: Vec<Edge>| edges.into_iter().map(|edge| store.name(edge.dependent)).collect();
        // If there is no such instance any more, it has failed since the state was read, and the
        // next state has another generation.
        let current = store.stored(index).filter(|found| Tag::ready(found.generation) == state);
        let last_failure = store.last_failure(index);
        let since = match (&current, state.phase()) {
            (Some(current), _) => current.origin.published_at.into(),
            (None, Phase::Starting) => store.began_at(index),
            (None, _) => {
                last_failure.as_ref().map_or_else(|| store.began_at(index), |last| last.at)
            }
        };
        let (built, failed) = store.built_and_failed(index);
        let built_from = current.as_ref().map_or(&[][..], |current| current.origin.built_from());
        let from = |&BuiltFrom { service, generation, revision, kind }: &BuiltFrom| {
            let name = store.name(service.index);
            BuiltFromInstance { id: service, name, generation, revision, kind }
        };
        let awaited = match state.phase() {
            Phase::Starting => store.awaited(index, state.generation()),
            _ => None,
        };
        let waiting_for = awaited.map(|awaited| match awaited {
            Awaited::Dependency(dependency) => String::from(store.name(dependency)).into(),
            Awaited::Other(what) => what,
        });
        Self {
            id: store.id(index),
            name: service.name.clone(),
            type_name: service.type_name,
            phase: state.phase(),
            generation: state.generation(),
            revision: current.as_ref().map_or(0, |current| current.revision),
            since,
            built,
            failed,
            replaced: store.replaced(index),
            has_provider: service.role.is_provided(),
            optional: service.optional.is_set(),
            waiters: service.waiters.get(),
            dependencies: dependencies.into_iter().map(dependency).collect(),
            dependents: names(dependents),
            watched_by: names(watched_by),
            blocked_by: blocked_by.into_iter().map(|index| store.name(index)).collect(),
            waiting_for,
            not_ready,
            built_from: built_from.iter().map(from).collect(),
            last_failure,
            #[cfg(feature = "supervise")]
            supervisor: {
                let is_ready = state.phase() == Phase::Ready;
                let current = is_ready.then(|| state.generation());
                let mut status = inner.supervisors.status(index, current);
                if let Some(status) = status.as_mut().filter(|_| is_ready) {
                    status.reloading = inner.supervisors.reloading(store, index);
                }
                status
            },
        }
    }
}
