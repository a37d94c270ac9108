//! An observer for those who use `tracing`.

use crate::{
    event::{Event, EventKind},
    registry::{Observer, Registry},
};

/// Turns every event into one of `tracing`: failures at `WARN`, the rest at `DEBUG`, under the target
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
        use EventKind::{Failed, GivenUp, Overtaken};

        let (service, generation) = (&**event.service, event.generation);
        let took = event.took.as_secs_f64();
        match event.kind {
            Failed(_) | Overtaken(_) | GivenUp(_) => {
                tracing::warn!(target: "mainstay", service, generation, took, "{}", event.kind);
            }
            _ => tracing::debug!(target: "mainstay", service, generation, took, "{}", event.kind),
        }
    }
}
