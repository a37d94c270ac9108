//! Replaces `undecided.rs` without the feature `supervise`: there are no switches.

use std::sync::Arc;

use crate::{
    instance::Instance,
    sync::{ArcCell, Held},
};

/// The decision of a switch.
pub(super) enum Decision {}

pub(crate) fn resolve<T>(
    _: &ArcCell<Instance<T>>,
    held: Held<Instance<T>>,
) -> Option<Held<Instance<T>>> {
    Some(held)
}

pub(super) fn resolve_to_build<T>(
    _: &ArcCell<Instance<T>>,
    instance: Arc<Instance<T>>,
) -> Option<Arc<Instance<T>>> {
    Some(instance)
}

pub(super) fn is_aborted<T>(_: &Instance<T>) -> bool {
    false
}
