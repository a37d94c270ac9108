//! `ProgramOutcome`: why and how a program has ended, and its exit code.

use std::{
    fmt,
    io::{Write, stderr},
    process::{ExitCode, Termination},
    sync::Arc,
};

use super::{SupervisorEnd, SupervisorReport};
use crate::{service::ServiceName, supervise::StopReport};

/// Why a [`Program`](super::Program) has ended.
///
/// ```
/// use mainstay::program::EndCause;
///
/// let cause = EndCause::Requested { reason: "SIGTERM".into() };
/// assert_eq!(cause.to_string(), "SIGTERM");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum EndCause {
    /// A [stop condition](super::Program::stop_when) has completed, such as a stop signal, or a
    /// shutdown was [requested](crate::Registry::request_shutdown).
    Requested {
        /// The output of the stop condition, or the reason of the request.
        reason: Arc<str>,
    },
    /// The start function has returned an error or has panicked, or not all services were ready
    /// when the [start timeout](super::Program::start_timeout) expired.
    StartFailed {
        /// The text of the error and of its sources.
        message: String,
    },
    /// A supervisor has ended before a shutdown was requested.
    SupervisorEnded {
        /// The name of its service.
        service: ServiceName,
        /// How it has ended.
        end: SupervisorEnd,
    },
    /// A stop condition has panicked.
    ConditionPanicked {
        /// The message of the panic, if it is text.
        message: String,
    },
}

impl fmt::Display for EndCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Requested { reason } => f.write_str(reason),
            Self::StartFailed { message } => write!(f, "the start has failed: {message}"),
            Self::SupervisorEnded { service, end } => {
                write!(f, "the supervisor of {service} {end}")
            }
            Self::ConditionPanicked { message } => {
                write!(f, "a stop condition panicked: {message}")
            }
        }
    }
}

/// Why and how a [`Program`](super::Program) has ended: its cause, the report of the shutdown, and
/// the end of each supervisor.
///
/// Its `Display` is one line for a log. It is the return type of a `main`, also in a `Result`:
/// then the line is written to the standard error, unless the program has ended in order.
///
/// ```
/// use mainstay::program::Program;
///
/// let registry = mainstay::Registry::with_capacity(1)?;
/// registry.request_shutdown("nothing to do");
/// let outcome = Program::on_threads(&registry).run_blocking(|_| Ok::<_, &str>(()));
/// assert!(outcome.is_success());
/// assert_eq!(outcome.to_string(), "nothing to do; 0 services stopped in time");
///
/// let registry = mainstay::Registry::with_capacity(1)?;
/// let outcome = Program::on_threads(&registry).run_blocking(|_| Err("no configuration"));
/// assert_eq!(outcome.exit_code(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "the outcome says whether the program has ended in order"]
#[non_exhaustive]
pub struct ProgramOutcome {
    /// Why the program has ended.
    pub cause: EndCause,
    /// The report of the shutdown.
    pub report: StopReport,
    /// The supervisors, in the order in which they were spawned.
    pub supervisors: Vec<SupervisorReport>,
}

impl ProgramOutcome {
    /// Returns whether the [exit code](Self::exit_code) is 0.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// use mainstay::program::Program;
    ///
    /// registry.close();
    /// let outcome = Program::on_threads(&registry).run_blocking(|_| Ok::<_, &str>(()));
    /// assert!(outcome.is_success());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.exit_code() == 0
    }

    /// Returns the exit code of the process: the first one of this table whose condition holds.
    ///
    /// | exit code | condition |
    /// |---|---|
    /// | 1 | the start has failed, or not all services were ready in time |
    /// | 101 | a supervisor or a stop condition has panicked |
    /// | 1 | a supervisor was dropped, or ended before a shutdown was requested |
    /// | 124 | a service has not stopped in time, or a supervisor is still running |
    /// | 0 | else: also after a stop signal |
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// use mainstay::program::Program;
    ///
    /// let broken = async { Err::<&str, _>("no signals").expect("a handler is installed") };
    /// let program = Program::on_threads(&registry).stop_when(broken);
    /// let outcome = program.run_blocking(|_| Ok::<_, &str>(()));
    /// assert_eq!(outcome.exit_code(), 101);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        let ended = |is: fn(&SupervisorReport) -> bool| self.supervisors.iter().any(is);
        let panicked = matches!(self.cause, EndCause::ConditionPanicked { .. });
        if matches!(self.cause, EndCause::StartFailed { .. }) {
            1
        } else if panicked || ended(|it| matches!(it.end, SupervisorEnd::Panicked { .. })) {
            101
        } else if ended(|it| it.is_early || it.end == SupervisorEnd::Dropped) {
            1
        } else if !self.report.stop_timeouts.is_empty()
            || ended(|it| it.end == SupervisorEnd::Running)
        {
            124
        } else {
            0
        }
    }
}

impl fmt::Display for ProgramOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cause, report, supervisors } = self;
        write!(f, "{cause}; {report}")?;
        for SupervisorReport { service, end, is_early } in supervisors {
            if *is_early || *end != SupervisorEnd::Returned {
                let early = if *is_early { " early" } else { "" };
                // The cause names this one already.
                let is_cause = matches!(
                    cause,
                    EndCause::SupervisorEnded { service: named, .. } if named == service
                );
                if !is_cause {
                    write!(f, "; the supervisor of {service} {end}{early}")?;
                }
            }
        }
        Ok(())
    }
}

impl From<ProgramOutcome> for ExitCode {
    fn from(outcome: ProgramOutcome) -> Self {
        outcome.exit_code().into()
    }
}

impl Termination for ProgramOutcome {
    fn report(self) -> ExitCode {
        if !self.is_success() {
            // A standard error that is closed changes nothing.
            let _ = writeln!(stderr(), "{self}");
        }
        self.into()
    }
}
