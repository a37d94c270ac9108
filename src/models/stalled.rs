//! A switch that is paused between two of its steps.

use crate::{
    instance::InstanceNumber,
    numbers::ServiceIndex,
    store::{AnyInstance, Member, Store, UsedEdges},
    sync::RemovedTogether,
};

/// A member whose switch calls a function after it has installed the new instance.
pub(super) struct Stalled<F> {
    pub(super) member: Box<dyn Member>,
    pub(super) installed: F,
}

impl<F: Fn() + Send + Sync> Member for Stalled<F> {
    fn service(&self) -> ServiceIndex {
        self.member.service()
    }

    fn instance(&self) -> AnyInstance {
        self.member.instance()
    }

    fn number(&self) -> InstanceNumber {
        self.member.number()
    }

    fn old_number(&self) -> InstanceNumber {
        self.member.old_number()
    }

    fn edges(&self) -> &UsedEdges {
        self.member.edges()
    }

    fn begins(&self) -> bool {
        self.member.begins()
    }

    fn install(&self, store: &Store, removed: &mut RemovedTogether) -> bool {
        let is_installed = self.member.install(store, removed);
        (self.installed)();
        is_installed
    }

    fn undo(&self, store: &Store, removed: &mut RemovedTogether) {
        self.member.undo(store, removed);
    }

    fn decide(&self) {
        self.member.decide();
    }
}
