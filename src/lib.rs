//! The long-lived parts of a server that depend on each other: provided, waited for, failed and rebuilt by
//! chain, read wait-free.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod builder;
mod error;
mod failure;
mod id;
mod inspect;
mod observe;
mod provider;
mod read;
mod registry;
mod store;
mod sync;
mod wait;

pub use builder::Builder;
pub use error::{
    BeginError, BuildError, Cycle, DependencyError, ForeignId, GetAllError, GetError, LookupError,
    NotReady, ProvideError, ReadyError, RegisterError, ReplaceError, WaitError, WaitForError,
};
pub use failure::{Cascade, Failure, Reason, Report};
pub use id::{AnyId, Name, ServiceId};
pub use inspect::{Dependency, Listing, ServiceStatus};
#[cfg(feature = "tracing")]
pub use observe::TracingObserver;
pub use observe::{Event, EventKind, Observer};
pub use provider::{Attempt, Provider, Running};
pub use read::{Cached, Guard, Ids};
pub use registry::Registry;
pub use store::{Instance, Phase};
pub use wait::Wait;
