//! The index of a service, the number of its failures, and a time. Each is a type of its own, so
//! that the compiler finds one in place of the other.

use std::{
    fmt,
    ops::Range,
    time::{Duration, SystemTime},
};

/// The index of a service in the slab of its registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ServiceIndex(u32);

impl ServiceIndex {
    pub(crate) const fn new(index: u32) -> Self {
        Self(index)
    }

    /// The indices of this range, in the order of registration.
    pub(crate) fn range(indices: Range<u32>) -> impl DoubleEndedIterator<Item = Self> {
        indices.map(Self)
    }

    pub(crate) const fn get(self) -> u32 {
        self.0
    }

    pub(crate) const fn as_usize(self) -> usize {
        self.0 as usize
    }
}

/// A time by the system's clock, in nanoseconds since 1970. The last one is in the year 2554.
#[derive(Debug, Clone, Copy)]
pub(crate) struct UnixTime(u64);

impl UnixTime {
    pub(crate) fn now() -> Self {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let nanos = since.as_secs().saturating_mul(1_000_000_000);
        Self(nanos.saturating_add(since.subsec_nanos().into()))
    }

    pub(crate) fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    pub(crate) fn as_nanos(self) -> u64 {
        self.0
    }
}

impl From<UnixTime> for SystemTime {
    fn from(time: UnixTime) -> Self {
        Self::UNIX_EPOCH + Duration::from_nanos(time.0)
    }
}

/// The number of failures of a service. The first generation is 0, and generations only grow.
///
/// Every instance, attempt and event belongs to one generation of its service. A replacement keeps
/// the generation. Generations of different services are unrelated.
///
/// ```
/// # let registry = mainstay::Registry::with_capacity(1)?;
/// # let port = registry.register::<u16>("port")?;
/// # let provider = registry.provide(port)?;
/// let running = provider.begin().wait_blocking()?.ready(80)?;
/// let first = running.generation();
/// registry.fail(port, "closed")?;
/// let second = registry.status(port)?.generation;
/// assert!(second > first);
/// assert_eq!((first.get(), second.get()), (0, 1));
/// assert_eq!(second, 1); // a generation can be compared with a number
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(transparent))]
pub struct Generation(u64);

impl Generation {
    /// The generation of a service that has never failed.
    pub(crate) const FIRST: Self = Self(0);

    /// The last generation: the state word has 61 bits for it. A service that has reached it is
    /// never built again. At one failure in each nanosecond, this takes 73 years.
    pub(crate) const LAST: Self = Self(u64::MAX >> 3);

    pub(crate) const fn new(generation: u64) -> Self {
        Self(generation)
    }

    /// Returns the number of failures of the service before this generation began.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<u16>("port")?;
    /// assert_eq!(registry.status(port)?.generation.get(), 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Returns the next generation; the last one is followed by itself.
    pub(crate) fn next(self) -> Self {
        Self(self.0 + 1).min(Self::LAST)
    }

    /// Returns the previous generation, or `None` for the first one.
    pub(crate) fn previous(self) -> Option<Self> {
        self.0.checked_sub(1).map(Self)
    }
}

impl From<Generation> for u64 {
    fn from(generation: Generation) -> Self {
        generation.0
    }
}

impl PartialEq<u64> for Generation {
    fn eq(&self, other: &u64) -> bool {
        self.0 == *other
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

// A plain number, so that the `Debug` output of the types that contain it stays short.
impl fmt::Debug for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
