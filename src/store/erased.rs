//! The operations on a slot whose type the caller does not know. Each is the typed operation of
//! `publish.rs`: a service stores pointers to the ones of its type.

use super::{Store, history::AnyInstance};
use crate::{
    instance::Instance,
    numbers::{Generation, ServiceIndex},
    service::ServiceId,
};

/// The operations of one type.
pub(crate) struct Operations {
    /// Removes the value of a generation that its provider has abandoned, or leaves that to the
    /// next transition (`Store::remove_abandoned`).
    pub(crate) remove: fn(&Store, ServiceIndex, Generation),
    /// Puts an instance into the cell that was decided to replace the present one
    /// (`Store::install_replacement`).
    pub(crate) install: fn(&Store, ServiceIndex, AnyInstance),
}

impl Operations {
    pub(crate) fn of<T: Send + Sync + 'static>() -> &'static Self {
        &Self { remove: remove::<T>, install: install::<T> }
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
