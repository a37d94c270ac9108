//! `MustAwaitError`: a blocking wait in code that must not block its thread.

use std::fmt;

use crate::service::ServiceName;

/// A blocking wait was called in a poll of an async supervisor, so it has not waited: use `.await`.
///
/// The thread polls the future of [`Supervisor::run`](crate::supervise::Supervisor::run): its
/// builder, its async body or its close hook has called
/// [`wait_blocking`](crate::wait::Wait::wait_blocking). This would block the executor, and forever
/// if what is waited for is provided on the same thread. The error is returned even if the wait
/// would have ended at once, so that the first test of the code finds it.
///
/// ```
/// # #[cfg(feature = "supervise")]
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use mainstay::{Registry, error::WaitForError, supervise::Build};
///
/// let registry = Registry::with_capacity(2)?;
/// let config = registry.register::<u16>("config")?;
/// let port = registry.register::<u16>("port")?;
/// tokio::spawn(registry.supervise(config)?.run(async |_| 80));
/// let task = registry.supervise(port)?.run(async move |build: Build<u16>| {
///     match build.wait_for(config).wait_blocking() {
///         Err(WaitForError::MustAwait(error)) => println!("{error}"),
///         _ => unreachable!("this is a poll of an async supervisor"),
///     }
///     build.wait_for(config).await.map(|port| **port)
/// });
/// tokio::spawn(task);
/// assert_eq!(**registry.wait_ready(port).await?, 80);
/// # registry.close();
/// # Ok(())
/// # }
/// # #[cfg(not(feature = "supervise"))]
/// # fn main() {}
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MustAwaitError {
    /// The service that was waited for. `None` for a wait for all services, or for the registry.
    pub service: Option<ServiceName>,
}

impl MustAwaitError {
    #[cfg(feature = "supervise")]
    pub(crate) fn of_registry() -> Self {
        Self { service: None }
    }

    pub(crate) fn new(service: ServiceName) -> Self {
        Self { service: Some(service) }
    }
}

impl fmt::Display for MustAwaitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a blocking wait")?;
        if let Some(service) = &self.service {
            write!(f, " for {service}")?;
        }
        f.write_str(" in a poll of an async supervisor: use `.await` in place of `wait_blocking`")
    }
}

impl std::error::Error for MustAwaitError {}
