//! The report of a planned end.

use std::{fmt, time::Duration};

use super::SupervisorState;
use crate::{numbers::Generation, service::ServiceName};

/// The result of a graceful [shutdown](crate::Registry::shutdown), of a
/// [restart](crate::Registry::restart) or of a [stop](crate::Registry::stop).
///
/// Its `Display` is one line for a log: what was not as it should be, or how many services have
/// stopped.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let registry = mainstay::Registry::with_capacity(1)?;
/// let report = registry.shutdown(std::time::Duration::from_secs(1)).await;
/// assert!(report.stop_timeouts.is_empty());
/// assert_eq!(report.to_string(), "0 services stopped in time");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct StopReport {
    /// The services that have stopped, in the order in which they stopped. A service without a
    /// running supervisor was failed at its turn, which took no longer than its cascade.
    pub stopped: Vec<StoppedService>,
    /// The services that did not stop in time, in the order in which their limits expired.
    pub stop_timeouts: Vec<StopTimeout>,
}

/// A service that has stopped at its turn in a restart, a stop or a shutdown.
///
/// ```
/// use mainstay::{Registry, supervise::StopResult};
/// use std::{thread, time::Duration};
///
/// let registry = Registry::with_capacity(1)?;
/// let port = registry.register::<u16>("port")?;
/// let supervisor = registry.supervise(port)?;
/// thread::spawn(|| supervisor.run_blocking(|_| Ok::<_, std::io::Error>(80)));
/// registry.wait_ready(port).wait_blocking()?;
/// let report = registry.shutdown_blocking(Duration::from_secs(30));
/// let port = &report.stopped[0];
/// assert_eq!((&*port.service, &port.result), ("port", &StopResult::Stopped));
/// println!("{} took {:?}", port.service, port.took);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoppedService {
    /// The name of the service.
    pub service: ServiceName,
    /// The time from its turn to stop until it had stopped, by the clock of the registry.
    pub took: Duration,
    /// How it has stopped.
    pub result: StopResult,
    /// How its body has ended. `None` if no body was running at its turn.
    pub body: Option<BodyReport>,
    /// How its close hook has ended for each value that was closed at its turn, in order.
    pub closes: Vec<CloseReport>,
}

/// How a body or a close hook has ended.
///
/// ```
/// use mainstay::supervise::WorkEnd;
///
/// let end = WorkEnd::Failed { message: "disk full".into() };
/// assert_eq!(end.to_string(), "failed: disk full");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum WorkEnd {
    /// It has returned, without an error.
    Returned,
    /// It has returned an error.
    Failed {
        /// The text of the error and of its sources.
        message: String,
    },
    /// It panicked.
    Panicked {
        /// The message of the panic, if it is text.
        message: String,
    },
    /// It did not return within its timeout, and was dropped. A blocking body may still run.
    Late,
}

impl fmt::Display for WorkEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Returned => f.write_str("returned"),
            Self::Failed { message } => write!(f, "failed: {message}"),
            Self::Panicked { message } => write!(f, "panicked: {message}"),
            Self::Late => f.write_str("did not return in time"),
        }
    }
}

/// How a [body](crate::supervise::Supervisor::body) has ended that was notified because its service
/// stops.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BodyReport {
    /// The time from its notification until it returned, by the clock of the registry.
    pub took: Duration,
    /// How it has ended.
    pub end: WorkEnd,
}

/// How a [close hook](crate::supervise::Supervisor::on_close) has ended for one value.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CloseReport {
    /// The generation of the value.
    pub generation: Generation,
    /// The revision of the value.
    pub revision: u64,
    /// The readers that held the value when the close hook was called. If it is not 0, the drain
    /// timeout was over first.
    pub holders: usize,
    /// The time of the close hook, by the clock of the registry.
    pub took: Duration,
    /// How it has ended. [`WorkEnd::Late`] also if it was not called, because a reader has moved
    /// the instance out of its `Arc`, and has not dropped it in time.
    pub end: WorkEnd,
}

/// How a service has stopped at its turn in a restart, a stop or a shutdown.
///
/// ```
/// use mainstay::supervise::StopResult;
///
/// assert_eq!(StopResult::SupervisorDropped.to_string(), "its supervisor was dropped");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum StopResult {
    /// It is down, its body and its close hooks have ended, and its readers have dropped all
    /// instances. Or it had nothing to stop.
    ///
    /// The readers of a service without a supervisor are not waited for. Its provider can hold its
    /// turn until they have left: [`Running::hold_turn`](crate::Running::hold_turn), and
    /// [`Running::drained`](crate::Running::drained) after the end.
    Stopped,
    /// Its supervisor was dropped at its turn, before it had stopped the service. The service is
    /// down; its close hook was dropped, and its readers were not waited for.
    SupervisorDropped,
}

impl fmt::Display for StopResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopped => f.write_str("stopped"),
            Self::SupervisorDropped => f.write_str("its supervisor was dropped"),
        }
    }
}

/// A service that did not stop in time.
///
/// ```
/// use mainstay::{Registry, supervise::SupervisorState};
/// use std::{thread, time::Duration};
///
/// let registry = Registry::with_capacity(1)?;
/// let port = registry.register::<u16>("port")?;
/// let supervisor = registry.supervise(port)?;
/// thread::spawn(|| supervisor.run_blocking(|_| Ok::<_, std::io::Error>(80)));
/// registry.wait_ready(port).wait_blocking()?;
/// let request = registry.get(port)?; // a reader that keeps the instance
/// let report = registry.shutdown_blocking(Duration::from_millis(50));
/// assert_eq!(report.stop_timeouts[0].service, "port");
/// assert_eq!(report.stop_timeouts[0].state, SupervisorState::Draining);
/// assert_eq!(report.stop_timeouts[0].holders, 1);
/// # drop(request);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StopTimeout {
    /// The name of the service.
    pub service: ServiceName,
    /// The state of its supervisor when the limit expired.
    ///
    /// - [`SupervisorState::Stopping`], [`Draining`](SupervisorState::Draining) or
    ///   [`Closing`](SupervisorState::Closing): the body, the readers of the instances, or the
    ///   close hook took too long.
    /// - [`SupervisorState::NotRunning`]: the service has no running supervisor, and the shutdown
    ///   ended before its turn to stop.
    /// - Any other state: the supervisor did not react, because its future is not polled or its
    ///   blocking builder does not return; or the shutdown ended before the service's turn to stop.
    pub state: SupervisorState,
    /// The references to instances of the service, of all generations, that its supervisor waited
    /// for when the limit expired. 0 if it waited for something else.
    pub holders: usize,
    /// How its body has ended. `None` if no body was running at its turn, or if it had not ended.
    pub body: Option<BodyReport>,
    /// How its close hook has ended for each value that was closed at its turn, in order.
    pub closes: Vec<CloseReport>,
}

/// Writes what a body and the close hooks of a service could not do.
struct Problems<'a>(&'a Option<BodyReport>, &'a [CloseReport]);

impl Problems<'_> {
    fn texts(&self) -> impl Iterator<Item = String> + '_ {
        let body = self.0.iter().map(|report| ("its body", &report.end));
        let closes = self.1.iter().map(|report| ("its close hook", &report.end));
        let problems = body.chain(closes).filter(|(_, end)| **end != WorkEnd::Returned);
        problems.map(|(what, end)| format!("{what} {end}"))
    }
}

impl StopReport {
    /// Appends the results of another operation.
    pub(super) fn append(&mut self, other: Self) {
        self.stopped.extend(other.stopped);
        self.stop_timeouts.extend(other.stop_timeouts);
    }
}

impl fmt::Display for StopTimeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { service, state, holders, body, closes } = self;
        write!(f, "{service} ({state}")?;
        if *holders > 0 {
            write!(f, ", holders: {holders}")?;
        }
        Problems(body, closes).texts().try_for_each(|problem| write!(f, ", {problem}"))?;
        f.write_str(")")
    }
}

impl fmt::Display for StopReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (i, late) in self.stop_timeouts.iter().enumerate() {
            write!(f, "{}{late}", if i == 0 { "not stopped in time: " } else { ", " })?;
            separator = "; ";
        }
        for StoppedService { service, result, body, closes, .. } in &self.stopped {
            let result = (*result != StopResult::Stopped).then(|| result.to_string());
            for problem in result.into_iter().chain(Problems(body, closes).texts()) {
                write!(f, "{separator}{service}: {problem}")?;
                separator = "; ";
            }
        }
        // After a restart they may be up again, so this does not say that they are down.
        match self.stopped.len() {
            _ if !separator.is_empty() => Ok(()),
            1 => f.write_str("1 service stopped in time"),
            stopped => write!(f, "{stopped} services stopped in time"),
        }
    }
}
