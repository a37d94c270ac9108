//! What an attempt waits for, in the words of its provider.

use std::{borrow::Cow, fmt};

use crate::{
    numbers::{Generation, ServiceIndex},
    registry::Registry,
    store::Awaited,
};

/// The status of a service shows what its attempt waits for, until this is dropped.
///
/// [`Attempt::waiting_for`](crate::Attempt::waiting_for) and
/// [`Build::waiting_for`](crate::supervise::Build::waiting_for) return it. If several exist for one
/// attempt, the status shows the last one that was created.
///
/// ```
/// let registry = mainstay::Registry::with_capacity(1)?;
/// let port = registry.register::<u16>("port")?;
/// let provider = registry.provide(port)?;
/// let attempt = provider.begin().wait_blocking()?;
/// let waiting = attempt.waiting_for("the lease of the address");
/// assert_eq!(registry.status(port)?.waiting_for.unwrap(), "the lease of the address");
/// drop(waiting);
/// assert!(registry.status(port)?.waiting_for.is_none());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "the status shows the text until this is dropped"]
pub struct WaitingFor<'a> {
    registry: &'a Registry,
    service: ServiceIndex,
    number: u64,
}

impl<'a> WaitingFor<'a> {
    pub(crate) fn new(
        registry: &'a Registry,
        service: ServiceIndex,
        generation: Generation,
        what: Cow<'static, str>,
    ) -> Self {
        let number = registry.store().wait_started(service, generation, Awaited::Other(what));
        Self { registry, service, number }
    }

    /// Removes the text from the status.
    pub(crate) fn end(&self) {
        if self.registry.store().wait_ended(self.service, self.number) {
            self.registry.review_waits(self.service);
        }
    }
}

impl Drop for WaitingFor<'_> {
    fn drop(&mut self) {
        self.end();
    }
}

impl fmt::Debug for WaitingFor<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaitingFor")
            .field("service", &self.registry.store().name(self.service))
            .finish_non_exhaustive()
    }
}
