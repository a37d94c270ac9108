//! A planned end of a service: for a restart, a stop, or a shutdown.

use std::sync::Arc;

use crate::{failure::Reason, service::ServiceName};

/// What a planned end is for. If two reach a dependent, the greater one counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum EndKind {
    Restart,
    Stop,
    ShutDown,
}

#[derive(Clone, Debug)]
pub(crate) struct PlannedEnd {
    pub(crate) kind: EndKind,
    /// The reason of the failure of each instance that it ends.
    pub(crate) reason: Reason,
}

impl PlannedEnd {
    /// A restart of `root` and its hard dependents.
    pub(crate) fn restart(root: ServiceName, why: Arc<str>) -> Self {
        Self { kind: EndKind::Restart, reason: Reason::Restarted { root, why } }
    }

    /// A stop of `root`.
    pub(crate) fn stop(root: ServiceName) -> Self {
        Self { kind: EndKind::Stop, reason: Reason::Stopped { root } }
    }

    pub(crate) fn shutdown() -> Self {
        Self { kind: EndKind::ShutDown, reason: Reason::ShutDown }
    }
}
