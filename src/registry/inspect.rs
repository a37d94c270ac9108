//! Inspection: the status of each service, and the graph of their dependencies.

use std::{
    collections::{HashMap, HashSet},
    fmt::{self, Write},
};

use super::{NotReady, Registry, ServiceStatus};
use crate::{
    error::ForeignIdError,
    service::AnyId,
    store::{DependencyKind, Phase},
};

impl Registry {
    /// Returns the status of a service: its phase, its edges, its last failure, its supervisor.
    ///
    /// The parts are read one after another, so they may be of different instants. Blocking: takes
    /// the lock of the topology, for a time linear in the number of edges of the service and of the
    /// services that block it.
    ///
    /// # Errors
    ///
    /// [`ForeignIdError`]: the id belongs to another registry.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<u16>("port")?;
    /// # let provider = registry.provide(port)?;
    /// assert_eq!(registry.status(port)?.generation, 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn status(&self, id: impl Into<AnyId>) -> Result<ServiceStatus, ForeignIdError> {
        let (index, inner) = (self.index(id.into())?, self.inner());
        let inspected = inner.store.inspect(index);
        let not_ready = match inspected.state.phase() {
            Phase::Ready => None,
            _ => NotReady::of(inner, index),
        };
        Ok(ServiceStatus::of(inner, inspected, not_ready))
    }

    /// Returns the status of every service, in the order of registration.
    ///
    /// For health checks, admin pages and drawings ([`Listing::to_dot`]).
    ///
    /// All edges are of one instant, so that the graph has no cycle. The phases are read after the
    /// edges, one after another; `phase`, `generation` and `blocked_by` agree on them. All other
    /// parts are read after that.
    ///
    /// Blocking: takes the lock of the topology once, to copy the edges. Reads and failures do not
    /// wait for this lock. The cost is n log n for n services and edges.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<u16>("port")?;
    /// # let provider = registry.provide(port)?;
    /// for service in registry.list().services {
    ///     println!("{} is {}", service.name, service.phase);
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn list(&self) -> Listing {
        let inner = self.inner();
        let inspection = inner.store.inspect_all();
        let services = inspection.services().zip(NotReady::of_all(inner, &inspection));
        let services = services.map(|(found, why)| ServiceStatus::of(inner, found, why));
        Listing { services: services.collect() }
    }
}

/// The status of all services of a registry, in the order of registration.
///
/// Returned by [`Registry::list`]. With the feature `serde` it is `Serialize`; the services and
/// their edges are the whole graph. A [`ListingRecord`](crate::ListingRecord) is a copy of it as
/// plain data, and can be deserialised. `Display` writes the line of each service
/// ([`ServiceStatus`]), separated by line ends.
///
/// ```
/// let mut builder = mainstay::Registry::builder(2)?;
/// let config = builder.register::<String>("config")?;
/// let port = builder.register::<u16>("port")?;
/// builder.depends(port).on(config)?;
/// let listing = builder.build().list();
///
/// assert_eq!(listing.services.len(), 2);
/// assert_eq!(listing.get("port").unwrap().dependencies[0].name, "config");
/// assert!(listing.to_dot().contains(r#""port" -> "config""#));
/// let port = "port: no provider, needs config; config: no provider";
/// assert!(listing.get("port").unwrap().to_string().starts_with(port));
/// assert_eq!(listing.blockers("port")[0].name, "config");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Listing {
    /// The services.
    pub services: Vec<ServiceStatus>,
}

impl fmt::Display for Listing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, service) in self.services.iter().enumerate() {
            write!(f, "{}{service}", if i == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl Listing {
    /// Returns the service with this name.
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

    /// Returns the services that keep `name` from being ready: the root causes.
    ///
    /// These are the services, among `name` and its transitive dependencies, that are not ready
    /// although all their own dependencies are. Soft dependencies are not followed. Each service is
    /// returned once, in the order of registration. Empty if `name` is ready or unknown.
    ///
    /// ```
    /// let registry = mainstay::Registry::with_capacity(2)?;
    /// let config = registry.register::<String>("config")?;
    /// let port = registry.register::<u16>("port")?;
    /// registry.depends(port).on(config)?;
    /// let provider = registry.provide(config)?;
    /// provider.begin().wait_blocking()?.fail("line 3: no closing quote")?;
    ///
    /// let listing = registry.list();
    /// let blocker = listing.blockers("port")[0];
    /// let why = blocker.last_failure.as_ref().unwrap();
    /// assert_eq!(why.reason.to_string(), "line 3: no closing quote");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn blockers(&self, name: &str) -> Vec<&ServiceStatus> {
        let by_id: HashMap<AnyId, &ServiceStatus> =
            self.services.iter().map(|service| (service.id, service)).collect();
        let not_ready = |service: &&ServiceStatus| service.phase != Phase::Ready;
        let mut next: Vec<&ServiceStatus> = self.get(name).filter(not_ready).into_iter().collect();
        let mut found: HashSet<AnyId> = next.iter().map(|service| service.id).collect();
        let mut blockers = Vec::new();
        while let Some(service) = next.pop() {
            let mut is_blocked = false;
            // A service is built without waiting for what it only watches.
            let needed = service.dependencies.iter().filter(|to| to.kind != DependencyKind::Soft);
            for dependency in needed.filter_map(|to| by_id.get(&to.id).copied()).filter(not_ready) {
                is_blocked = true;
                // Each service is visited once, however many paths lead to it.
                if found.insert(dependency.id) {
                    next.push(dependency);
                }
            }
            if !is_blocked {
                blockers.push(service);
            }
        }
        blockers.sort_unstable_by_key(|service| service.id);
        blockers
    }

    /// Returns the graph in the DOT language of Graphviz.
    ///
    /// Arrows point from a dependent to its dependency, as in all texts of this crate; failures
    /// travel against the arrows. Declared edges are solid, discovered ones dashed, soft ones
    /// dotted; start-only edges have a label. The label of a service also says that it is stale or
    /// part of a reload. DOT cannot represent a NUL, so a NUL in a name is
    /// written as U+FFFD.
    ///
    /// ```
    /// let registry = mainstay::Registry::with_capacity(2)?;
    /// let config = registry.register::<String>("config")?;
    /// let port = registry.register::<u16>("port")?;
    /// registry.depends(port).on(config)?;
    /// assert!(registry.list().to_dot().contains(r#""port" -> "config" [style=solid];"#));
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
                quoted(&label(service)),
            );
        }
        for service in &self.services {
            for dependency in &service.dependencies {
                let style = match dependency.kind {
                    DependencyKind::Soft => "dotted",
                    DependencyKind::StartOnly if dependency.declared => "solid, label=\"to start\"",
                    DependencyKind::StartOnly => "dashed, label=\"to start\"",
                    DependencyKind::Hard if dependency.declared => "solid",
                    DependencyKind::Hard => "dashed",
                };
                let (dependent, dependency) = (quoted(&service.name), quoted(&dependency.name));
                let _ = writeln!(dot, "    {dependent} -> {dependency} [style={style}];");
            }
        }
        dot.push_str("}\n");
        dot
    }
}

/// Returns the label of a service in a graph.
fn label(service: &ServiceStatus) -> String {
    let ServiceStatus { name, phase, generation, .. } = service;
    let label = format!("{name}\n{phase}, generation {generation}");
    #[cfg(feature = "supervise")]
    let label = {
        let status = service.supervisor.as_ref();
        let stale = status.and_then(|status| status.stale.as_ref()).map(|_| "\nstale");
        let reloading = status.and_then(|status| status.reloading.as_ref());
        let reloading = reloading.map(|reloading| format!("\n{reloading}"));
        label + stale.unwrap_or_default() + &reloading.unwrap_or_default()
    };
    label
}

/// Returns the text as a quoted string of the DOT language. A backslash escapes a quote, a line
/// end, and, because labels have escapes of their own, another backslash.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            // Graphviz reads its input as a C string, which a NUL would end.
            '\0' => quoted.push('\u{fffd}'),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
