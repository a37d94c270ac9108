//! What came of an operation, in one form for the model and for the registry.

use mainstay::{
    BeginError, Cascade, Cycle, DependencyError, Failure, ForeignId, GetAllError, GetError,
    LookupError, Name, NotReady, Phase, ProvideError, RegisterError, WaitError, WaitForError,
    WatchError,
};

/// What came of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    /// It goes on waiting.
    Pending,
    Begun {
        generation: u64,
    },
    Read(Vec<Read>),
    /// Another instance of the generation that was read before.
    ReadAnother(Read),
    /// There is no instance.
    Nothing,
    Fell {
        went_down: usize,
        overtaken: usize,
    },
    AlreadyFailed,
    Replaced,
    Failure(Told),
    Refused(Refusal),
}

/// An instance, as a reader sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Read {
    pub(crate) generation: u64,
    pub(crate) serial: u64,
}

/// A failure, as it is told. Without the time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) service: String,
    pub(crate) generation: u64,
    pub(crate) root: String,
    pub(crate) root_generation: u64,
    pub(crate) reason: String,
}

/// An error of whatever operation. Strings are names of services.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    Foreign,
    Closed(String),
    TimedOut(String),
    AlreadyProvided(String),
    WrongType(String),
    Full(String),
    UnknownName(String),
    NotReady { service: String, phase: Phase, generation: u64 },
    Contended(String),
    Overtaken(Told),
    Cycle(Vec<String>),
}

impl Outcome {
    pub(crate) fn of<T, E: Into<Refusal>>(
        result: Result<T, E>,
        done: impl FnOnce(T) -> Self,
    ) -> Self {
        match result {
            Ok(value) => done(value),
            Err(error) => Self::Refused(error.into()),
        }
    }
}

impl From<Cascade> for Outcome {
    fn from(cascade: Cascade) -> Self {
        Self::Fell { went_down: cascade.went_down, overtaken: cascade.overtaken }
    }
}

impl From<&Failure> for Told {
    fn from(failure: &Failure) -> Self {
        Self {
            service: failure.service.to_string(),
            generation: failure.generation,
            root: failure.root.to_string(),
            root_generation: failure.root_generation,
            reason: failure.reason.to_string(),
        }
    }
}

fn text(name: Name) -> String {
    name.to_string()
}

impl From<ForeignId> for Refusal {
    fn from(_: ForeignId) -> Self {
        Self::Foreign
    }
}

impl From<Cycle> for Refusal {
    fn from(cycle: Cycle) -> Self {
        Self::Cycle(cycle.path.into_iter().map(text).collect())
    }
}

impl From<Failure> for Refusal {
    /// An attempt or an instance was to do something, and is over.
    fn from(failure: Failure) -> Self {
        Self::Overtaken((&failure).into())
    }
}

impl From<NotReady> for Refusal {
    fn from(NotReady { service, phase, generation }: NotReady) -> Self {
        Self::NotReady { service: text(service), phase, generation }
    }
}

/// The errors are open for more kinds. One that is not known here is a difference, too.
macro_rules! refusals {
    ($($error:ident { $($pattern:pat => $refusal:expr,)+ })+) => {
        $(impl From<$error> for Refusal {
            fn from(error: $error) -> Self {
                match error {
                    $($pattern => $refusal,)+
                    other => panic!("a new kind of error: {other:?}"),
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
        WaitForError::Overtaken(failure) => Self::Overtaken((&failure).into()),
        WaitForError::Cycle(cycle) => cycle.into(),
        WaitForError::Closed { service } => Self::Closed(text(service)),
        WaitForError::TimedOut { service, .. } => Self::TimedOut(text(service)),
        WaitForError::ForeignId(foreign) => foreign.into(),
    }
    WaitError {
        WaitError::Closed { service } => Self::Closed(text(service)),
        WaitError::TimedOut { service, .. } => Self::TimedOut(text(service)),
        WaitError::ForeignId(foreign) => foreign.into(),
    }
    WatchError {
        WatchError::Over(failure) => Self::Overtaken((&failure).into()),
        WatchError::Closed { service } => Self::Closed(text(service)),
        WatchError::TimedOut { service, .. } => Self::TimedOut(text(service)),
    }
    GetError {
        GetError::NotReady(why) => why.into(),
        GetError::ForeignId(foreign) => foreign.into(),
    }
    GetAllError {
        GetAllError::NotReady(why) => why.into(),
        GetAllError::Contended { service, .. } => Self::Contended(text(service)),
        GetAllError::ForeignId(foreign) => foreign.into(),
    }
}
