//! The operations on a slot whose type the caller does not know. Each is the typed operation of
//! `publish.rs`: a service stores pointers to the ones of its type.

use super::{Phase, Store, history::AnyInstance, resolve, state::Tag, used_edges::Received};
use crate::{
    instance::{Instance, InstanceNumber, Origin},
    numbers::{Generation, ServiceIndex},
    service::ServiceId,
    sync::hold,
};

/// The operations of one type.
pub(crate) struct Operations {
    /// Removes the value of a generation that its provider has abandoned, or leaves that to the
    /// next transition (`Store::remove_abandoned`).
    pub(crate) remove: fn(&Store, ServiceIndex, Generation),
    /// Puts an instance into the cell that was decided to replace the present one
    /// (`Store::install_replacement`).
    pub(crate) install: fn(&Store, ServiceIndex, AnyInstance),
    /// Returns what identifies the current instance, for an attempt that has published its edge
    /// (`Store::read_to_build`).
    pub(super) read_to_build: fn(&Store, ServiceIndex) -> Option<Received>,
    /// Describes the instance for which the content of the cell stands.
    stored: fn(&Store, ServiceIndex) -> Option<StoredInstance>,
}

/// An instance, without its value and its type.
pub(crate) struct StoredInstance {
    pub(crate) generation: Generation,
    pub(crate) revision: u64,
    pub(crate) origin: Origin,
}

impl Operations {
    pub(crate) fn of<T: Send + Sync + 'static>() -> &'static Self {
        &Self {
            remove: remove::<T>,
            install: install::<T>,
            read_to_build: read_to_build::<T>,
            stored: stored::<T>,
        }
    }
}

/// Returns the id of a service that is registered with the type `T`.
fn id<T: Send + Sync + 'static>(store: &Store, index: ServiceIndex) -> Option<ServiceId<T>> {
    store.typed(store.id(index))
}

fn remove<T: Send + Sync + 'static>(store: &Store, index: ServiceIndex, generation: Generation) {
    if let Some(id) = id::<T>(store, index) {
        store.remove_abandoned(id, generation);
    }
}

fn install<T: Send + Sync + 'static>(store: &Store, index: ServiceIndex, instance: AnyInstance) {
    if let (Some(id), Ok(instance)) = (id::<T>(store, index), instance.downcast::<Instance<T>>()) {
        store.install_replacement(id, &instance);
    }
}

fn read_to_build<T: Send + Sync + 'static>(store: &Store, index: ServiceIndex) -> Option<Received> {
    let instance = store.read_to_build(id::<T>(store, index)?)?;
    Some((Instance::generation(&instance), Instance::revision(&instance)))
}

fn stored<T: Send + Sync + 'static>(store: &Store, index: ServiceIndex) -> Option<StoredInstance> {
    let (cell, _) = store.open(id::<T>(store, index)?)?;
    let instance = resolve(cell, hold(cell.load_full()?))?;
    let InstanceNumber { generation, revision } = Instance::number(&instance);
    Some(StoredInstance { generation, revision, origin: Instance::origin(&instance).clone() })
}

impl Store {
    /// Describes the instance in the cell of a service. It may have failed already.
    pub(crate) fn stored(&self, index: ServiceIndex) -> Option<StoredInstance> {
        (self.service(index).operations.stored)(self, index)
    }

    /// Returns the state of a service, and the revision of its current instance; 0 if there is
    /// none. The two are of one instant.
    pub(crate) fn state_and_revision(&self, index: ServiceIndex) -> (Tag, u64) {
        let slot = self.slot(index);
        loop {
            let state = slot.state.load();
            if state.phase() != Phase::Ready {
                return (state, 0);
            }
            // As a read: an instance whose tag is the state after its load is current (A2). If it
            // is not, the state has changed since the load above.
            let stored = self.stored(index);
            let current = stored.filter(|found| Tag::ready(found.generation) == state);
            if let Some(current) = current.filter(|_| slot.state.load() == state) {
                return (state, current.revision);
            }
        }
    }
}
