//! `TracingObserver`: the events of the registry as events of `tracing`.

use crate::{
    event::{Event, EventKind},
    registry::{Observer, Registry},
};

/// An observer that emits each event as an event of `tracing`.
///
/// The target is `mainstay`, and the fields are `service`, `generation` and `elapsed` (in seconds).
/// Failures of services, bodies and close hooks, a supervisor that gives up, a degraded service, a
/// refused reload, and what takes longer than its limit have the level `WARN`. All other events
/// have the level `DEBUG`, also an end that was planned ([`EventKind::Stopped`]).
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
        let (service, generation) = (&**event.service, event.generation.get());
        let elapsed = event.elapsed.as_secs_f64();
        match event.kind {
            #[cfg(feature = "supervise")]
            EventKind::ReloadRefused(_) => {
                tracing::warn!(target: "mainstay", service, generation, elapsed, "{}", event.kind);
            }
            EventKind::Failed(_)
            | EventKind::Invalidated(_)
            | EventKind::AttemptFailed(_)
            | EventKind::Permanent(_)
            | EventKind::GivenUp(_)
            | EventKind::Degraded { .. }
            | EventKind::BodyLate
            | EventKind::BodyFailed(_)
            | EventKind::HookFailed(_)
            | EventKind::StopTimedOut => {
                tracing::warn!(target: "mainstay", service, generation, elapsed, "{}", event.kind);
            }
            _ => {
                tracing::debug!(target: "mainstay", service, generation, elapsed, "{}", event.kind)
            }
        }
    }
}
