//! Errors: which of them say that a service was not there, and the texts of their chains.

mod chains;
mod unavailable;

use std::{error::Error, fmt};

/// An error of a user, with a source.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct CannotOpen(&'static str);

#[derive(Debug, Clone, Copy, PartialEq)]
struct DiskFull;

impl fmt::Display for CannotOpen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot open {}", self.0)
    }
}

impl fmt::Display for DiskFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("disk full")
    }
}

impl Error for CannotOpen {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&DiskFull)
    }
}

impl Error for DiskFull {}

pub(crate) const CANNOT_OPEN: CannotOpen = CannotOpen("/data/x.db");

/// What a user wraps an error in.
#[derive(Debug)]
struct Context {
    text: &'static str,
    source: Box<dyn Error + Send + Sync>,
}

impl fmt::Display for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text)
    }
}

impl Error for Context {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.source)
    }
}
