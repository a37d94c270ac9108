//! An observer for those who use `tracing`.

use crate::{
    event::{Event, EventKind},
    failure::Reason,
    registry::{Observer, Registry},
};

/// Turns every event into one of `tracing`: failures at `WARN` unless the registry was closed, the rest at
/// `DEBUG`, under the target
/// `mainstay`, with the fields `service`, `generation` and `took` (in seconds).
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
        use EventKind::{Broken, Failed, GivenUp, Overtaken};

        let (service, generation) = (&**event.service, event.generation);
        let took = event.took.as_secs_f64();
        match event.kind {
            // The end of everything is nothing to warn of.
            Failed(failure) | Overtaken(failure) | GivenUp(failure) | Broken(failure)
                if !matches!(failure.reason, Reason::Closed | Reason::ShutDown) =>
            {
                tracing::warn!(target: "mainstay", service, generation, took, "{}", event.kind);
            }
            _ => tracing::debug!(target: "mainstay", service, generation, took, "{}", event.kind),
        }
    }
}
