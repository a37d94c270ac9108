//! The outcome of an operation, in one form for the model and for the registry.

use std::collections::BTreeSet;

use mainstay::{
    Cascade, Failure, Phase, ServiceName,
    error::{
        BeginError, CycleError, DependencyError, DependencyUnavailable, ForeignIdError,
        GetAllError, GetError, LookupError, ProvideError, RegisterError, StopError, Unavailable,
        WaitError, WaitForError, WaitReadyError, WatchError,
    },
};

/// The outcome of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    /// The wait is pending.
    Pending,
    AttemptStarted {
        generation: u64,
    },
    Instances(Vec<InstanceId>),
    /// A wait by an untyped id has returned an instance.
    AnyInstance {
        generation: u64,
        revision: u64,
    },
    State(State),
    /// A watch reports another instance of the same generation.
    Replacement(InstanceId),
    /// An instance of a service with values of another type. It never occurs.
    OtherInstance,
    Cascade {
        failed: usize,
        invalidated: usize,
    },
    AlreadyFailed,
    Replaced,
    /// A restart or a stop is over. It has stopped these services.
    Stopped(BTreeSet<String>),
    /// Whether a service was stopped that is started now.
    Started {
        was_stopped: bool,
    },
    Failure(FailureSummary),
    Refused(Refusal),
}

/// Identifies an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct InstanceId {
    pub(crate) generation: u64,
    pub(crate) revision: u64,
    pub(crate) serial: u64,
}

/// The phase, the generation and the revision of a service.
pub(crate) type State = (Phase, u64, u64);

/// A failure without its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FailureSummary {
    pub(crate) service: String,
    pub(crate) generation: u64,
    pub(crate) root: String,
    pub(crate) root_generation: u64,
    pub(crate) reason: String,
}

/// An error of any operation. Strings are names of services.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    Foreign,
    Closed(String),
    TimedOut(String),
    /// These services hold their turns to stop.
    StopTimedOut {
        service: String,
        waiting_for: BTreeSet<String>,
    },
    AlreadyProvided(String),
    WrongType(String),
    Full(String),
    UnknownName(String),
    NotReady {
        service: String,
        phase: Phase,
        generation: u64,
    },
    Contended(String),
    Invalidated(FailureSummary),
    Cycle(Vec<String>),
}

impl Outcome {
    pub(crate) fn of<T, E: Into<Refusal>>(
        result: Result<T, E>,
        convert: impl FnOnce(T) -> Self,
    ) -> Self {
        match result {
            Ok(value) => convert(value),
            Err(error) => Self::Refused(error.into()),
        }
    }
}

impl From<Cascade> for Outcome {
    fn from(cascade: Cascade) -> Self {
        Self::Cascade { failed: cascade.failed, invalidated: cascade.invalidated }
    }
}

impl From<&Failure> for FailureSummary {
    fn from(failure: &Failure) -> Self {
        Self {
            service: failure.service.to_string(),
            generation: failure.generation.get(),
            root: failure.root.to_string(),
            root_generation: failure.root_generation.get(),
            reason: failure.reason.to_string(),
        }
    }
}

fn text(name: ServiceName) -> String {
    name.to_string()
}

impl From<ForeignIdError> for Refusal {
    fn from(_: ForeignIdError) -> Self {
        Self::Foreign
    }
}

impl From<CycleError> for Refusal {
    fn from(cycle: CycleError) -> Self {
        Self::Cycle(cycle.path.into_iter().map(text).collect())
    }
}

impl From<Failure> for Refusal {
    /// The error of an operation on an attempt or an instance whose generation has ended.
    fn from(failure: Failure) -> Self {
        Self::Invalidated((&failure).into())
    }
}

/// The error of a read, or of a wait that has timed out.
impl From<DependencyUnavailable> for Refusal {
    fn from(missing: DependencyUnavailable) -> Self {
        let DependencyUnavailable { service, generation, kind, .. } = missing;
        match kind {
            Unavailable::NotReady { phase } => {
                Self::NotReady { service: text(service), phase, generation: generation.get() }
            }
            Unavailable::TimedOut { .. } => Self::TimedOut(text(service)),
            other => panic!("neither a read nor a wait: {other:?}"),
        }
    }
}

/// The error types are non-exhaustive. A variant that is not listed here fails the run.
macro_rules! refusals {
    ($($error:ident { $($pattern:pat => $refusal:expr,)+ })+) => {
        $(impl From<$error> for Refusal {
            fn from(error: $error) -> Self {
                match error {
                    $($pattern => $refusal,)+
                    other => panic!("an unknown error: {other:?}"),
                }
            }
        })+
    };
}

refusals! {
    RegisterError {
        RegisterError::WrongType { service, .. } => Self::WrongType(text(service)),
        RegisterError::Capacity { service, .. } => Self::Full(text(service)),
        RegisterError::Closed { service } => Self::Closed(text(service)),
    }
    LookupError {
        LookupError::UnknownName { name } => Self::UnknownName(text(name)),
        LookupError::WrongType { service, .. } => Self::WrongType(text(service)),
    }
    DependencyError {
        DependencyError::Cycle(cycle) => cycle.into(),
        DependencyError::ForeignId(foreign) => foreign.into(),
    }
    ProvideError {
        ProvideError::AlreadyProvided { service } => Self::AlreadyProvided(text(service)),
        ProvideError::Closed { service } => Self::Closed(text(service)),
        ProvideError::ForeignId(foreign) => foreign.into(),
    }
    BeginError {
        BeginError::Closed { service } => Self::Closed(text(service)),
        BeginError::TimedOut { service, .. } => Self::TimedOut(text(service)),
    }
    WaitForError {
        WaitForError::Invalidated(failure) => Self::Invalidated((&failure).into()),
        WaitForError::Cycle(cycle) => cycle.into(),
        WaitForError::Closed { service } => Self::Closed(text(service)),
        WaitForError::TimedOut(missing) => missing.into(),
        WaitForError::ForeignId(foreign) => foreign.into(),
    }
    WaitReadyError {
        WaitReadyError::Closed { service } => Self::Closed(text(service)),
        WaitReadyError::TimedOut(missing) => missing.into(),
        WaitReadyError::ForeignId(foreign) => foreign.into(),
    }
    WaitError {
        WaitError::Closed { service } => Self::Closed(text(service)),
        WaitError::TimedOut { service, .. } => Self::TimedOut(text(service)),
        WaitError::ForeignId(foreign) => foreign.into(),
    }
    StopError {
        StopError::Closed { service } => Self::Closed(text(service)),
        StopError::TimedOut { service, waiting_for, .. } => Self::StopTimedOut {
            service: text(service),
            waiting_for: waiting_for.into_iter().map(|one| text(one.service)).collect(),
        },
        StopError::ForeignId(foreign) => foreign.into(),
    }
    WatchError {
        WatchError::DependentFailed(failure) => Self::Invalidated((&failure).into()),
        WatchError::Closed { service } => Self::Closed(text(service)),
        WatchError::TimedOut { service, .. } => Self::TimedOut(text(service)),
    }
    GetError {
        GetError::NotReady(missing) => missing.into(),
        GetError::ForeignId(foreign) => foreign.into(),
    }
    GetAllError {
        GetAllError::NotReady(missing) => missing.into(),
        GetAllError::Contended { service, .. } => Self::Contended(text(service)),
        GetAllError::ForeignId(foreign) => foreign.into(),
    }
}
