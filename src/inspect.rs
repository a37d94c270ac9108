//! Looking in: how the services are, and the graph between them.

use std::{collections::HashMap, fmt::Write};

#[cfg(feature = "supervise")]
use crate::supervise::Supervision;
use crate::{
    failure::Failure,
    registry::Shared,
    service::{AnyId, Name},
    store::{DependencyKind, Edge, Phase, Use},
};

/// How one service is. Its parts are read one after another, not at one instant.
///
/// ```
/// use mainstay::{Phase, Registry};
///
/// let registry = Registry::with_capacity(1)?;
/// let port = registry.register::<u16>("port")?;
/// let provider = registry.provide(port)?;
/// let _running = provider.begin().wait()?.ready(80)?;
/// registry.fail(port, "closed")?;
///
/// let status = registry.status(port)?;
/// assert_eq!((status.phase, status.generation), (Phase::Down, 1));
/// assert_eq!(status.type_name, "u16");
/// assert!(status.provided);
/// assert_eq!(status.last_failure.unwrap().to_string(), "port failed: closed");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct ServiceStatus {
    /// The service.
    #[cfg_attr(feature = "serde", serde(skip))]
    pub id: AnyId,
    /// Its name.
    pub name: Name,
    /// The type of its values, as the compiler prints it.
    pub type_name: &'static str,
    /// What it is doing.
    pub phase: Phase,
    /// How often it has failed so far.
    pub generation: u64,
    /// Whether somebody has the role of providing it.
    pub provided: bool,
    /// How many are waiting for it to be ready: readers, and attempts at its dependents.
    pub waiting: u32,
    /// What it is built from.
    pub dependencies: Vec<Dependency>,
    /// What is built from it, and goes down with it.
    pub dependents: Vec<Name>,
    /// What is told when it fails or is replaced, and does not go down with it.
    pub watched_by: Vec<Name>,
    /// Where it is not ready because something that it depends on is not: the way to that, each a dependency of the
    /// one before it, 64 of them at the most. Empty otherwise.
    pub blocked_by: Vec<Name>,
    /// The last attempt that was given up since it went down, or else the failure that took it down. It stays
    /// while the service is ready again.
    pub last_failure: Option<Failure>,
    /// What its supervisor makes of it; `None` where nobody [supervises](crate::Registry::supervise) it.
    #[cfg(feature = "supervise")]
    pub supervision: Option<Supervision>,
}

/// One edge of the graph.
///
/// ```
/// let registry = mainstay::Registry::with_capacity(2)?;
/// let (config, port) = (registry.register::<String>("config")?, registry.register::<u16>("port")?);
/// registry.add_dependency(port, config)?;
/// let dependency = &registry.status(port)?.dependencies[0];
/// assert_eq!(dependency.name, "config");
/// assert!(dependency.declared);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Dependency {
    /// What is depended on.
    pub name: Name,
    /// Declared once and for all; else discovered by an attempt that waited for it, or watches it.
    pub declared: bool,
    /// What its failure means.
    pub kind: DependencyKind,
}

impl ServiceStatus {
    pub(crate) fn of(shared: &Shared, index: u32) -> Self {
        let store = &shared.store;
        let (slot, service) = (store.slot(index), store.service(index));
        let state = slot.state.load();
        let dependency = |(edge, use_): (Edge, Use)| Dependency {
            name: store.name(edge.dependency),
            declared: use_ == Use::Declared,
            kind: match use_ {
                _ if edge.soft => DependencyKind::Soft,
                Use::Discovered { to_start: true, .. } => DependencyKind::StartOnly,
                _ => DependencyKind::Hard,
            },
        };
        let (watched_by, dependents): (Vec<Edge>, Vec<Edge>) =
            store.dependents(index).into_iter().partition(|edge| edge.soft);
        let names =
            |edges: Vec<Edge>| edges.into_iter().map(|edge| store.name(edge.dependent)).collect();
        Self {
            id: store.id(index),
            name: service.name.clone(),
            type_name: service.type_name,
            phase: state.phase(),
            generation: state.generation(),
            provided: service.provided.is_up(),
            waiting: service.waiting.get(),
            dependencies: store.dependencies(index).into_iter().map(dependency).collect(),
            dependents: names(dependents),
            watched_by: names(watched_by),
            blocked_by: store.blocked_by(index).into_iter().map(|i| store.name(i)).collect(),
            last_failure: store.last_failure(index),
            #[cfg(feature = "supervise")]
            supervision: shared.supervised.status(index),
        }
    }
}

/// All services of a registry, in the order of their registration.
///
/// With the feature `serde` it can be serialised: services with their edges are the graph.
///
/// ```
/// let mut builder = mainstay::Registry::builder(2)?;
/// let config = builder.register::<String>("config")?;
/// let port = builder.register::<u16>("port")?;
/// builder.add_dependency(port, config)?;
/// let listing = builder.build().list();
///
/// assert_eq!(listing.services.len(), 2);
/// assert_eq!(listing.get("port").unwrap().dependencies[0].name, "config");
/// assert!(listing.to_dot().contains(r#""config" -> "port""#));
/// // Why is there no port? Because there is no config.
/// assert_eq!(listing.blockers("port")[0].name, "config");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Listing {
    /// The services.
    pub services: Vec<ServiceStatus>,
}

impl Listing {
    pub(crate) fn of(shared: &Shared) -> Self {
        let all = 0..shared.store.len();
        Self { services: all.map(|index| ServiceStatus::of(shared, index)).collect() }
    }

    /// The service with this name.
    ///
    /// ```
    /// let registry = mainstay::Registry::with_capacity(1)?;
    /// registry.register::<u16>("port")?;
    /// assert!(registry.list().get("port").is_some());
    /// assert!(registry.list().get("host").is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn get(&self, name: &str) -> Option<&ServiceStatus> {
        self.services.iter().find(|service| service.name == *name)
    }

    /// Where it is stuck: the services that are not ready although nothing that they depend on keeps them,
    /// among `name` and all that it depends on. Empty where `name` is ready, or unknown.
    ///
    /// ```
    /// let registry = mainstay::Registry::with_capacity(2)?;
    /// let (config, port) = (registry.register::<String>("config")?, registry.register::<u16>("port")?);
    /// registry.add_dependency(port, config)?;
    /// let provider = registry.provide(config)?;
    /// provider.begin().wait()?.fail("line 3: no closing quote")?;
    ///
    /// let listing = registry.list();
    /// let blocker = listing.blockers("port")[0];
    /// let why = blocker.last_failure.as_ref().unwrap();
    /// assert_eq!(why.to_string(), "config failed: line 3: no closing quote");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn blockers(&self, name: &str) -> Vec<&ServiceStatus> {
        let by_name: HashMap<&str, &ServiceStatus> =
            self.services.iter().map(|service| (&*service.name, service)).collect();
        let mut blockers: Vec<&ServiceStatus> = Vec::new();
        let mut seen = Vec::new();
        let mut next: Vec<&ServiceStatus> = by_name.get(name).copied().into_iter().collect();
        while let Some(service) = next.pop() {
            if service.phase == Phase::Ready || seen.contains(&service.id) {
                continue;
            }
            seen.push(service.id);
            let down: Vec<&ServiceStatus> = service
                .dependencies
                .iter()
                .filter(|dependency| dependency.kind != DependencyKind::Soft)
                .filter_map(|dependency| by_name.get(&*dependency.name).copied())
                .filter(|dependency| dependency.phase != Phase::Ready)
                .collect();
            if down.is_empty() {
                blockers.push(service);
            }
            next.extend(down);
        }
        blockers
    }

    /// The graph in the DOT language of Graphviz. Arrows run the way a failure does, from a dependency to its
    /// dependents; discovered edges are dashed, soft ones dotted. DOT has no way to write a NUL: one in a name is told as U+FFFD.
    ///
    /// ```
    /// let registry = mainstay::Registry::with_capacity(2)?;
    /// let (config, port) = (registry.register::<String>("config")?, registry.register::<u16>("port")?);
    /// registry.add_dependency(port, config)?;
    /// assert!(registry.list().to_dot().contains(r#""config" -> "port" [style=solid];"#));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn to_dot(&self) -> String {
        let mut dot = String::from("digraph services {\n    node [shape=box, style=filled];\n");
        for service in &self.services {
            let colour = match service.phase {
                Phase::Ready => "palegreen",
                Phase::Starting => "khaki",
                Phase::Down => "lightpink",
            };
            // Writing to a string cannot fail.
            let _ = writeln!(
                dot,
                "    {} [label={}, fillcolor={colour}];",
                quoted(&service.name),
                quoted(&format!(
                    "{}\n{}, generation {}",
                    service.name, service.phase, service.generation
                )),
            );
        }
        for service in &self.services {
            for dependency in &service.dependencies {
                let style = match dependency.kind {
                    DependencyKind::Soft => "dotted",
                    DependencyKind::StartOnly => "dashed, label=\"to start\"",
                    DependencyKind::Hard if dependency.declared => "solid",
                    DependencyKind::Hard => "dashed",
                };
                let (from, to) = (quoted(&dependency.name), quoted(&service.name));
                let _ = writeln!(dot, "    {from} -> {to} [style={style}];");
            }
        }
        dot.push_str("}\n");
        dot
    }
}

/// A quoted string of the DOT language: a backslash escapes a quote, itself in labels, and a line's end.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            // Graphviz reads its input as C strings.
            '\0' => quoted.push('\u{fffd}'),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
