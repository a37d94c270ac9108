//! `FailureRecord`: a failure as plain data, and the serialised form of failures.

use std::{fmt, time::SystemTime};

use crate::{error::texts, failure::Failure, numbers::Generation, service::ServiceName};

/// A [`Failure`] as plain data: each error is replaced by its text.
///
/// For logs, admin pages and other processes: a record can be compared, stored and sent, and it
/// keeps no error of the program alive. `Display` writes the text of the failure and of all its
/// sources, as [`error::chain`](crate::error::chain) does.
///
/// ```
/// use mainstay::{FailureRecord, Registry};
///
/// let registry = Registry::with_capacity(1)?;
/// let port = registry.register::<u16>("port")?;
/// registry.provide(port)?.begin().wait_blocking()?.fail("no port is free")?;
///
/// let failure = registry.status(port)?.last_failure.unwrap();
/// let record = FailureRecord::from(&failure);
/// assert_eq!(record.reason, "no port is free");
/// assert_eq!(record.to_string(), "port failed: no port is free");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Serialised form
///
/// With the feature `serde`, a [`Failure`] and its record have the same serialised form, which can
/// be deserialised as a record. It has the fields of the record, with the same names: `service` and
/// `root` are strings, `generation` and `root_generation` are numbers, `reason` is a string, and
/// `sources` is a list of strings, and `planned` is a Boolean. `at` is a string of RFC 3339, in UTC
/// and with nanoseconds: `2026-11-28T11:43:17.004512833Z`. It is exact, so a record is equal after
/// it was written and read back on systems whose clock has the same resolution. A time that
/// RFC 3339 or [`SystemTime`] cannot represent is an error.
///
/// ```
/// # #[cfg(feature = "serde")] {
/// use mainstay::{FailureRecord, Registry};
///
/// let registry = Registry::with_capacity(1)?;
/// let port = registry.register::<u16>("port")?;
/// registry.provide(port)?.begin().wait_blocking()?.fail("no port is free")?;
///
/// // A listing contains the failures in this form, too.
/// let failure = registry.status(port)?.last_failure.unwrap();
/// let json = serde_json::to_string(&failure)?;
/// let record: FailureRecord = serde_json::from_str(&json)?;
/// assert_eq!(record, FailureRecord::from(&failure));
/// # }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct FailureRecord {
    /// The service that failed, or whose attempt was invalidated.
    pub service: ServiceName,
    /// The generation of the service that ended.
    pub generation: Generation,
    /// The service with which the cascade began: this service, or one on which it depends.
    pub root: ServiceName,
    /// The generation of the root that ended.
    pub root_generation: Generation,
    /// The text of the reason for the failure of the root, without its sources.
    pub reason: String,
    /// The texts of the errors that caused the reason: its [source](std::error::Error::source), the
    /// source of that one, and so on; at most 64 texts. Empty if the reason has no source.
    ///
    /// If a grace period has expired, they begin with the
    /// [dependency](crate::error::DependencyUnavailable) that was absent, and its failure.
    pub sources: Vec<String>,
    /// Whether the service has ended as it was asked to ([`Failure::is_planned`]).
    pub planned: bool,
    /// The time of the failure, by the system's clock.
    #[cfg_attr(feature = "serde", serde(with = "rfc3339"))]
    pub at: SystemTime,
}

impl From<&Failure> for FailureRecord {
    /// Copies a failure. Calls the `Display` and the `source` of the errors in it: if one of them
    /// panics, so does this function.
    fn from(failure: &Failure) -> Self {
        Self {
            service: failure.service.clone(),
            generation: failure.generation,
            root: failure.root.clone(),
            root_generation: failure.root_generation,
            reason: failure.reason.phrase().to_string(),
            sources: texts(failure.reason.source()).collect(),
            planned: failure.is_planned(),
            at: failure.at,
        }
    }
}

impl fmt::Display for FailureRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_failure(f, &self.service, &self.root, self.planned)?;
        write!(f, ": {}", self.reason)?;
        self.sources.iter().try_for_each(|source| write!(f, ": {source}"))
    }
}

/// Writes which service failed, or was stopped as planned, and because of which one.
pub(crate) fn write_failure(
    f: &mut fmt::Formatter<'_>,
    service: &ServiceName,
    root: &ServiceName,
    planned: bool,
) -> fmt::Result {
    let verb = if planned { "was stopped" } else { "failed" };
    if service == root {
        write!(f, "{service} {verb}")
    } else {
        write!(f, "{service} {verb} because {root} {verb}")
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for Failure {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        FailureRecord::from(self).serialize(serializer)
    }
}

/// The serialised form of a time: RFC 3339, which people and programs can read.
#[cfg(feature = "serde")]
pub(crate) mod rfc3339 {
    use std::time::SystemTime;

    use jiff::Timestamp;
    use serde::{Deserialize, Deserializer, Serializer, de::Error as _, ser::Error as _};

    pub(crate) fn serialize<S: Serializer>(at: &SystemTime, to: S) -> Result<S::Ok, S::Error> {
        let time = Timestamp::try_from(*at).map_err(S::Error::custom)?;
        to.serialize_str(&format!("{time:.9}"))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<SystemTime, D::Error> {
        let time: Timestamp = String::deserialize(from)?.parse().map_err(D::Error::custom)?;
        // `SystemTime` may have a smaller range, and its addition would panic.
        let epoch = SystemTime::UNIX_EPOCH;
        let distance = time.duration_since(Timestamp::UNIX_EPOCH).unsigned_abs();
        let at = match time < Timestamp::UNIX_EPOCH {
            true => epoch.checked_sub(distance),
            false => epoch.checked_add(distance),
        };
        at.ok_or_else(|| D::Error::custom("the time is out of range"))
    }
}
