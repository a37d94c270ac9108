//! What a reader does that finds an instance of a switch that is not decided (`switch.rs`).

use std::sync::{Arc, Weak};

use super::decision::{Decided, Decision};
use crate::{
    instance::Instance,
    sync::{ArcCell, Held, hold},
};

/// The part of an instance that a switch makes current: what decides that, and the instance that is
/// current until then. `None` for all other instances.
pub(crate) struct SwitchLink<T>(Option<Box<Link<T>>>);

struct Link<T> {
    decision: Arc<Decision>,
    /// Weak: the old instance is dropped by its last reader after the switch, and nothing must
    /// remove it from here. The switch keeps it until after the decision.
    old: Weak<Instance<T>>,
}

impl<T> SwitchLink<T> {
    pub(crate) fn none() -> Self {
        Self(None)
    }

    pub(super) fn new(decision: &Arc<Decision>, old: &Arc<Instance<T>>) -> Self {
        Self(Some(Box::new(Link { decision: Arc::clone(decision), old: Arc::downgrade(old) })))
    }
}

/// What an instance in a cell stands for.
enum Resolved<T> {
    /// For itself.
    Itself,
    /// For the instance that it would replace. `pending`: that may change.
    Old { old: Arc<Instance<T>>, pending: bool },
    /// It was never current, and the old one was replaced or removed since. So the cell has another
    /// content now.
    Gone,
}

fn resolve_once<T>(instance: &Instance<T>) -> Resolved<T> {
    let link = match &Instance::link(instance).0 {
        Some(link) if Instance::tag(instance).is_undecided() => link,
        _ => return Resolved::Itself,
    };
    // Before the state, which the caller reads: a switch that is committed after the state was left
    // would make an instance current that never was.
    let decided = link.decision.load();
    if decided == Decided::Committed {
        return Resolved::Itself;
    }
    match link.old.upgrade() {
        Some(old) => Resolved::Old { old, pending: decided == Decided::Pending },
        None if link.decision.load_after_drop() == Decided::Committed => Resolved::Itself,
        None => Resolved::Gone,
    }
}

/// Returns the instance for which the content of a cell stands: itself, or as long as its switch is
/// not committed, the old one. Read the state after this call.
///
/// Lock-free: it reloads the cell only if a switch was aborted, and the value was replaced or
/// removed after that, since the last load.
#[cold]
pub(crate) fn resolve<T>(
    cell: &ArcCell<Instance<T>>,
    mut held: Held<Instance<T>>,
) -> Option<Held<Instance<T>>> {
    loop {
        match resolve_once(&held) {
            Resolved::Itself => return Some(held),
            Resolved::Old { old, .. } => return Some(hold(old)),
            Resolved::Gone => held = hold(cell.load_again()?),
        }
    }
}

/// As [`resolve`], for an attempt that builds from the instance. Returns `None` if the switch is
/// pending: then it wakes the waiters of the slot when it is decided.
pub(super) fn resolve_to_build<T>(
    cell: &ArcCell<Instance<T>>,
    mut instance: Arc<Instance<T>>,
) -> Option<Arc<Instance<T>>> {
    loop {
        match resolve_once(&instance) {
            Resolved::Itself => return Some(instance),
            Resolved::Old { pending: true, .. } => return None,
            Resolved::Old { old, .. } => return Some(old),
            Resolved::Gone => instance = cell.load_again()?,
        }
    }
}

/// Returns whether the instance is of a switch that was aborted. It never becomes current.
pub(super) fn is_aborted<T>(instance: &Instance<T>) -> bool {
    let link = Instance::link(instance).0.as_ref();
    link.is_some_and(|link| link.decision.load() == Decided::Aborted)
}
