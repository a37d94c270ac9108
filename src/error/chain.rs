//! Chains of sources: the text of a whole chain, and the walk along it.

use std::{error::Error, fmt, iter::successors};

/// The limit for the number of sources that a text contains. An error may be its own source, by
/// mistake: without a limit, its text would not end.
const MOST_TEXTS: usize = 64;

/// Returns the text of an error and of all its [sources](Error::source), joined by ": ".
///
/// The `Display` of an error of this crate does not contain the texts of its sources, so each text
/// occurs once (see the [module](super#texts)). At most 64 sources are written, also if an error is
/// its own source.
///
/// `Display` calls the `Display` and the `source` of the errors: if one of them panics, so does it.
///
/// ```
/// use mainstay::{Registry, error};
/// use std::io;
///
/// let registry = Registry::with_capacity(1)?;
/// let database = registry.register::<u16>("database")?;
/// let provider = registry.provide(database)?;
/// provider.begin().wait_blocking()?.fail(io::Error::other("disk full"))?;
///
/// let failure = registry.status(database)?.last_failure.unwrap();
/// assert_eq!(failure.to_string(), "database failed");
/// assert_eq!(error::chain(&failure).to_string(), "database failed: disk full");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl fmt::Display + use<'a> {
    Joined { first: error, source: error.source() }
}

/// Returns the error, its source, the source of that one, and so on. Not limited.
pub(crate) fn links<'a>(
    first: Option<&'a (dyn Error + 'static)>,
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    successors(first, |&error| error.source())
}

/// Returns the texts of this error, of its source, and so on; at most 64.
pub(crate) fn texts<'a>(
    first: Option<&'a (dyn Error + 'static)>,
) -> impl Iterator<Item = String> + use<'a> {
    links(first).take(MOST_TEXTS).map(ToString::to_string)
}

/// Writes `first`, and then `source` and its sources.
pub(crate) struct Joined<'a, D> {
    pub(crate) first: D,
    pub(crate) source: Option<&'a (dyn Error + 'static)>,
}

impl<D: fmt::Display> fmt::Display for Joined<'_, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.first)?;
        links(self.source).take(MOST_TEXTS).try_for_each(|source| write!(f, ": {source}"))
    }
}
