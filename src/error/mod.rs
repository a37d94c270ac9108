//! Errors: one small type for each operation. Each names the service, says what happened, and
//! returns the value that was refused.
//!
//! An error that means that a service was not there has a [`DependencyUnavailable`] among its
//! sources, which [`DependencyUnavailable::find`] finds, also below the contexts of a user.
//!
//! # Texts
//!
//! For all errors of this crate:
//!
//! - The text (`Display`) of an error does not contain the text of its
//!   [source](std::error::Error::source). The text of a chain is that of all its errors, each once:
//!   `database failed: cannot open /data/x.db: disk full`. [`chain`] writes it, and so do
//!   `{:#}` of `anyhow::Error` and of `eyre::Report`, and their reports (`{:?}`).
//! - The error of a user that failed a service is the source of the
//!   [`Failure`](crate::Failure), and the failure is a source of each error that contains it as its
//!   reason. So all of them can be found by their type, with their own sources.
//! - A variant that only wraps another error of this module is transparent: it has the text and the
//!   source of that error, and is not a link of its own.
//! - What is no error has no source to print, so its text contains the whole chain, once: a
//!   [`Reason`](crate::Reason), an [`EventKind`](crate::EventKind), a
//!   [`FailureRecord`](crate::FailureRecord), a [`ServiceStatus`](crate::ServiceStatus), a
//!   [`NotReady`](crate::NotReady), a [`Listing`](crate::Listing), a [`NotReadyService`].
//! - A [`DependencyUnavailable`] contains why the service was not ready
//!   ([`NotReady`](crate::NotReady)), without the last failure of the root of the reason: this
//!   failure is its source.
//!
//! An error of a user is printed as it is: if its text contains the text of its own source, the
//! chain contains that text twice.

mod chain;
mod must_await;
#[cfg(feature = "supervise")]
mod operation;
mod provide;
mod read;
mod refused;
mod registry;
#[cfg(feature = "supervise")]
mod reload;
mod unavailable;

#[cfg(feature = "supervise")]
pub(crate) use self::chain::links;
pub use self::{
    chain::chain,
    must_await::MustAwaitError,
    provide::{
        BeginError, ConstantError, ProvideError, ReadyError, ReplaceError, WaitForError, WatchError,
    },
    read::{AllReadyError, GetAllError, GetError, NotReadyService, WaitError, WaitReadyError},
    refused::RefusedValue,
    registry::{
        CycleError, DependencyError, ForeignIdError, LookupError, RegisterError, RegistryError,
        ServicesError,
    },
    unavailable::{DependencyUnavailable, Unavailable},
};
pub(crate) use self::{
    chain::{Joined, texts},
    read::WaitEnded,
};
#[cfg(feature = "supervise")]
pub use self::{
    operation::{GroupError, GroupGivenUp, SignalError, StopError},
    provide::DrainError,
    reload::{NotReloadable, ReloadError, ReloadValueError},
};
