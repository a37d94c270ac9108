//! Errors: one small type for each operation. Each names the service, says what happened, and
//! returns the value that was refused.

mod provide;
mod read;
mod refused;
mod registry;

#[cfg(feature = "supervise")]
pub use self::provide::DrainError;
pub use self::{
    provide::{BeginError, ProvideError, ReadyError, ReplaceError, WaitForError, WatchError},
    read::{AllReadyError, GetAllError, GetError, NotReadyError, NotReadyService, WaitError},
    refused::RefusedValue,
    registry::{
        CycleError, DependencyError, ForeignIdError, LookupError, RegisterError, RegistryError,
    },
};
