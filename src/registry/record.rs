//! Records of a listing: plain data, and the serialised form of listings and statuses.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

#[cfg(feature = "supervise")]
use super::SupervisorStatus;
use super::{BuiltFromInstance, Dependency, Listing, ServiceStatus};
#[cfg(feature = "serde")]
use crate::failure_record::rfc3339;
use crate::{
    failure_record::FailureRecord,
    numbers::Generation,
    service::ServiceName,
    store::{DependencyKind, Phase},
};

/// A [`Listing`] as plain data: without ids, and with a text in place of each error.
///
/// For admin pages, tools and other processes: a record can be compared, stored and sent, and it
/// keeps nothing of the program alive. `Display` writes the line of each service, as that of the
/// listing.
///
/// ```
/// use mainstay::{ListingRecord, Registry};
///
/// let registry = Registry::with_capacity(1)?;
/// let port = registry.register::<u16>("port")?;
/// registry.provide(port)?.begin().wait_blocking()?.fail("no port is free")?;
///
/// let record = ListingRecord::from(&registry.list());
/// let port = record.get("port").unwrap();
/// assert_eq!(port.last_failure.as_ref().unwrap().reason, "no port is free");
/// assert_eq!(record.to_string(), "port: no provider: no port is free");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Serialised form
///
/// With the feature `serde`, a listing and its record have the same serialised form, which can be
/// deserialised as a record; so do a [`ServiceStatus`] and its [`ServiceRecord`], and the parts of
/// both. The form has the fields of the records, with the same names. A record is equal after it
/// was written and read back.
///
/// Names and texts are strings, numbers are numbers, a [`Phase`], a [`DependencyKind`] and a
/// `SupervisorState` are strings (`"ready"`, `"start-only"`, `"backing-off"`), times are strings of
/// RFC 3339, a failure has the form of a [`FailureRecord`], and a duration has the fields `secs`
/// and `nanos`. An optional field that is missing is read as `None`, and a field that is unknown is
/// ignored: so a program without the feature `supervise` reads what one with it has written, and an
/// older one what a newer one has written. Anything else is an error: a value of another type, a
/// phase or a state that is unknown, a time that [`SystemTime`] cannot represent.
///
/// ```
/// # #[cfg(feature = "serde")] {
/// use mainstay::{ListingRecord, Registry};
///
/// let registry = Registry::with_capacity(1)?;
/// let port = registry.register::<u16>("port")?;
/// registry.constant(port, 80)?;
///
/// let listing = registry.list();
/// let json = serde_json::to_string(&listing)?;
/// let record: ListingRecord = serde_json::from_str(&json)?;
/// assert_eq!(record, ListingRecord::from(&listing));
/// # }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct ListingRecord {
    /// The services, in the order of their registration.
    pub services: Vec<ServiceRecord>,
}

/// A [`ServiceStatus`] as plain data; a part of a [`ListingRecord`].
///
/// `Display` writes one line, as that of the status.
///
/// ```
/// use mainstay::{Phase, Registry, ServiceRecord};
///
/// let registry = Registry::with_capacity(1)?;
/// let port = registry.register::<u16>("port")?;
/// registry.constant(port, 80)?;
/// let record = ServiceRecord::from(&registry.status(port)?);
/// assert_eq!((record.phase, &*record.type_name), (Phase::Ready, "u16"));
/// assert_eq!(record.to_string(), "port: ready");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct ServiceRecord {
    /// [`ServiceStatus::name`].
    pub name: ServiceName,
    /// [`ServiceStatus::type_name`].
    pub type_name: String,
    /// [`ServiceStatus::phase`].
    pub phase: Phase,
    /// [`ServiceStatus::generation`].
    pub generation: Generation,
    /// [`ServiceStatus::revision`].
    pub revision: u64,
    /// [`ServiceStatus::since`].
    #[cfg_attr(feature = "serde", serde(with = "rfc3339"))]
    pub since: SystemTime,
    /// [`ServiceStatus::built`].
    pub built: u64,
    /// [`ServiceStatus::failed`].
    pub failed: u64,
    /// [`ServiceStatus::replaced`].
    pub replaced: u64,
    /// [`ServiceStatus::has_provider`].
    pub has_provider: bool,
    /// [`ServiceStatus::optional`].
    pub optional: bool,
    /// [`ServiceStatus::waiters`].
    pub waiters: u32,
    /// [`ServiceStatus::dependencies`].
    pub dependencies: Vec<DependencyRecord>,
    /// [`ServiceStatus::dependents`].
    pub dependents: Vec<ServiceName>,
    /// [`ServiceStatus::watched_by`].
    pub watched_by: Vec<ServiceName>,
    /// [`ServiceStatus::blocked_by`].
    pub blocked_by: Vec<ServiceName>,
    /// [`ServiceStatus::waiting_for`].
    pub waiting_for: Option<String>,
    /// The line of [`ServiceStatus::not_ready`].
    pub not_ready: Option<String>,
    /// [`ServiceStatus::built_from`].
    pub built_from: Vec<BuiltFromRecord>,
    /// [`ServiceStatus::last_failure`].
    pub last_failure: Option<FailureRecord>,
    /// [`ServiceStatus::supervisor`](crate::ServiceStatus#structfield.supervisor).
    #[cfg(feature = "supervise")]
    pub supervisor: Option<SupervisorStatus>,
}

/// A [`Dependency`] as plain data; a part of a [`ServiceRecord`].
///
/// ```
/// use mainstay::{DependencyKind, ListingRecord};
///
/// let registry = mainstay::Registry::with_capacity(2)?;
/// let config = registry.register::<String>("config")?;
/// let port = registry.register::<u16>("port")?;
/// registry.depends(port).on(config)?;
/// let record = ListingRecord::from(&registry.list());
/// let dependency = &record.get("port").unwrap().dependencies[0];
/// assert_eq!((&*dependency.name, dependency.kind), ("config", DependencyKind::Hard));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct DependencyRecord {
    /// [`Dependency::name`].
    pub name: ServiceName,
    /// [`Dependency::declared`].
    pub declared: bool,
    /// [`Dependency::kind`].
    pub kind: DependencyKind,
    /// [`Dependency::grace`].
    pub grace: Option<Duration>,
}

/// A [`BuiltFromInstance`] as plain data; a part of a [`ServiceRecord`].
///
/// ```
/// use mainstay::{BuiltFromRecord, Registry};
///
/// let registry = Registry::with_capacity(2)?;
/// let config = registry.register::<u16>("config")?;
/// let server = registry.register::<String>("server")?;
/// registry.constant(config, 80)?;
/// let provider = registry.provide(server)?;
/// let attempt = provider.begin().wait_blocking()?;
/// attempt.wait_for(config).wait_blocking()?;
/// let _server = attempt.ready("localhost".to_string())?;
///
/// let record = BuiltFromRecord::from(&registry.status(server)?.built_from[0]);
/// assert_eq!((&*record.name, record.revision), ("config", 0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct BuiltFromRecord {
    /// [`BuiltFromInstance::name`].
    pub name: ServiceName,
    /// [`BuiltFromInstance::generation`].
    pub generation: Generation,
    /// [`BuiltFromInstance::revision`].
    pub revision: u64,
    /// [`BuiltFromInstance::kind`].
    pub kind: DependencyKind,
}

impl ListingRecord {
    /// Returns the service with this name.
    ///
    /// ```
    /// use mainstay::ListingRecord;
    ///
    /// let registry = mainstay::Registry::with_capacity(1)?;
    /// registry.register::<u16>("port")?;
    /// let record = ListingRecord::from(&registry.list());
    /// assert!(record.get("port").is_some() && record.get("host").is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn get(&self, name: &str) -> Option<&ServiceRecord> {
        self.services.iter().find(|service| service.name == *name)
    }
}

impl From<&Listing> for ListingRecord {
    /// Copies a listing. Calls the `Display` and the `source` of the errors in it: if one of them
    /// panics, so does this function.
    fn from(listing: &Listing) -> Self {
        Self { services: listing.services.iter().map(ServiceRecord::from).collect() }
    }
}

impl From<&ServiceStatus> for ServiceRecord {
    /// Copies a status. Calls the `Display` and the `source` of the errors in it: if one of them
    /// panics, so does this function.
    fn from(status: &ServiceStatus) -> Self {
        Self {
            name: status.name.clone(),
            type_name: status.type_name.into(),
            phase: status.phase,
            generation: status.generation,
            revision: status.revision,
            since: status.since,
            built: status.built,
            failed: status.failed,
            replaced: status.replaced,
            has_provider: status.has_provider,
            optional: status.optional,
            waiters: status.waiters,
            dependencies: status.dependencies.iter().map(DependencyRecord::from).collect(),
            dependents: status.dependents.clone(),
            watched_by: status.watched_by.clone(),
            blocked_by: status.blocked_by.clone(),
            waiting_for: status.waiting_for.as_deref().map(String::from),
            not_ready: status.not_ready.as_ref().map(ToString::to_string),
            built_from: status.built_from.iter().map(BuiltFromRecord::from).collect(),
            last_failure: status.last_failure.as_ref().map(FailureRecord::from),
            #[cfg(feature = "supervise")]
            supervisor: status.supervisor.clone(),
        }
    }
}

impl From<&Dependency> for DependencyRecord {
    fn from(dependency: &Dependency) -> Self {
        let &Dependency { id: _, ref name, declared, kind, grace } = dependency;
        Self { name: name.clone(), declared, kind, grace }
    }
}

impl From<&BuiltFromInstance> for BuiltFromRecord {
    fn from(from: &BuiltFromInstance) -> Self {
        let &BuiltFromInstance { id: _, ref name, generation, revision, kind } = from;
        Self { name: name.clone(), generation, revision, kind }
    }
}

impl fmt::Display for ServiceRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.not_ready {
            Some(not_ready) => f.write_str(not_ready),
            None => write!(f, "{}: {}", self.name, self.phase),
        }?;
        #[cfg(feature = "supervise")]
        if let Some(supervisor) = &self.supervisor {
            supervisor.write_how_ready(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for ListingRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, service) in self.services.iter().enumerate() {
            write!(f, "{}{service}", if i == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

/// Serialises a type as its record.
#[cfg(feature = "serde")]
macro_rules! serialised_as_record {
    ($($type:ident as $record:ident;)+) => {
        $(impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                $record::from(self).serialize(serializer)
            }
        })+
    };
}

#[cfg(feature = "serde")]
serialised_as_record! {
    Listing as ListingRecord;
    ServiceStatus as ServiceRecord;
    Dependency as DependencyRecord;
    BuiltFromInstance as BuiltFromRecord;
}
