//! The report of a shutdown.

use std::{fmt, time::Duration};

use super::SupervisorState;
use crate::service::ServiceName;

/// The result of a graceful shutdown; [`Registry::shutdown`](crate::Registry::shutdown) returns it.
///
/// Its `Display` is one line for a log.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let registry = mainstay::Registry::with_capacity(1)?;
/// let report = registry.shutdown(std::time::Duration::from_secs(1)).await;
/// assert!(report.stop_timeouts.is_empty());
/// assert_eq!(report.to_string(), "all services have stopped");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// The services that have stopped, in the order in which they stopped. A service without a
    /// running supervisor was failed at its turn, which took no longer than its cascade.
    pub stopped: Vec<StoppedService>,
    /// The services that did not stop in time, in the order in which their limits expired.
    pub stop_timeouts: Vec<StopTimeout>,
}

/// A service that has stopped at its turn in a shutdown.
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
}

/// How a service has stopped at its turn in a shutdown.
///
/// ```
/// use mainstay::supervise::StopResult;
///
/// assert_eq!(StopResult::SupervisorDropped.to_string(), "its supervisor was dropped");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum StopResult {
    /// It is down, its stop hook has ended, and its readers have dropped all instances. Or it had
    /// nothing to stop.
    Stopped,
    /// As `Stopped`, but its stop hook has panicked, so its work is not done.
    HookPanicked {
        /// The message of the panic, if it is text.
        message: String,
    },
    /// Its supervisor was dropped at its turn, before it had stopped the service. The service is
    /// down; its stop hook was dropped, and its readers were not waited for.
    SupervisorDropped,
}

impl fmt::Display for StopResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopped => f.write_str("stopped"),
            Self::HookPanicked { message } => write!(f, "its stop hook panicked: {message}"),
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
/// assert_eq!(report.stop_timeouts[0].state, SupervisorState::Stopping);
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
    /// - [`SupervisorState::Stopping`]: the stop hook or the readers of the instances took too
    ///   long.
    /// - [`SupervisorState::NotRunning`]: the service has no running supervisor, and the shutdown
    ///   ended before its turn to stop.
    /// - Any other state: the supervisor did not react, because its future is not polled or its
    ///   blocking builder does not return; or the shutdown ended before the service's turn to stop.
    pub state: SupervisorState,
    /// The references to instances of the service, of all generations, that its supervisor waited
    /// for when the limit expired. 0 if it waited for something else.
    pub holders: usize,
}

impl ShutdownReport {
    /// Appends the results of another operation.
    pub(super) fn append(&mut self, other: Self) {
        self.stopped.extend(other.stopped);
        self.stop_timeouts.extend(other.stop_timeouts);
    }
}

impl fmt::Display for StopTimeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { service, state, holders } = self;
        match holders {
            0 => write!(f, "{service} ({state})"),
            _ => write!(f, "{service} ({state}, holders: {holders})"),
        }
    }
}

impl fmt::Display for ShutdownReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (i, late) in self.stop_timeouts.iter().enumerate() {
            write!(f, "{}{late}", if i == 0 { "not stopped in time: " } else { ", " })?;
            separator = "; ";
        }
        for stopped in self.stopped.iter().filter(|stopped| stopped.result != StopResult::Stopped) {
            write!(f, "{separator}{}: {}", stopped.service, stopped.result)?;
            separator = "; ";
        }
        if separator.is_empty() { f.write_str("all services have stopped") } else { Ok(()) }
    }
}
