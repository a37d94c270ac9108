//! `TracingObserver`: the events of the registry as events of `tracing`.

use crate::{
    event::{Event, EventKind},
    failure::Reason,
    registry::{Observer, Registry},
};

/// An observer that emits each event as an event of `tracing`.
///
/// The target is `mainstay`, and the fields are `service`, `generation` and `elapsed` (in seconds).
/// Failures have the level `WARN`, unless their reason is that the registry was closed or shut
/// down. All other events have the level `DEBUG`.
///
/// ```
/// use mainstay::{Registry, TracingObserver};
///
/// let registry = Registry::builder(8)?.observer(TracingObserver).build();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct TracingObserver;

impl Observer for TracingObserver {
    fn event(&self, _: &Registry, event: &Event<'_>) {
        use EventKind::{AttemptFailed, Failed, GivenUp, Invalidated};

        let (service, generation) = (&**event.service, event.generation.get());
        let elapsed = event.elapsed.as_secs_f64();
        match event.kind {
            // A failure that is part of an orderly end needs no warning.
            Failed(failure) | Invalidated(failure) | AttemptFailed(failure) | GivenUp(failure)
                if !matches!(failure.reason, Reason::Closed | Reason::ShutDown) =>
            {
                tracing::warn!(target: "mainstay", service, generation, elapsed, "{}", event.kind);
            }
            _ => {
                tracing::debug!(target: "mainstay", service, generation, elapsed, "{}", event.kind)
            }
        }
    }
}
