//! Where the new instance of the root of a reload comes from: its supervisor builds it, or its body
//! has given it.

use std::{mem, sync::Arc};

use super::Live;
use crate::{
    error::RefusedValue,
    failure::Failure,
    instance::Instance,
    registry::Reload,
    store::{Member, Prepared, Store, UsedEdges},
    sync::{Mutex, Shielded, lock},
};

/// Where the new instance of the root comes from.
pub(super) trait Root {
    /// Prepares it, if its supervisor does not build it. Returns the failure of the old one, if
    /// that is over.
    fn prepare(&self, store: &Store, reload: &Reload) -> Result<Option<Box<dyn Member>>, Failure>;

    /// Called after a switch that has not taken place. Returns whether it can be prepared again.
    fn take_back(&self) -> bool;
}

/// The supervisor of the root builds it.
pub(super) struct Builder;

impl Root for Builder {
    fn prepare(&self, _: &Store, _: &Reload) -> Result<Option<Box<dyn Member>>, Failure> {
        Ok(None)
    }

    fn take_back(&self) -> bool {
        true
    }
}

/// The body of the root has given it.
pub(super) struct Value<T: Send + Sync + 'static> {
    live: Live<T>,
    given: Mutex<Given<T>>,
}

enum Given<T> {
    Owned(Shielded<T>),
    Prepared(Arc<Instance<T>>),
    Refused(RefusedValue<T>),
    /// It is current, or was returned to the caller.
    Gone,
}

impl<T: Send + Sync + 'static> Value<T> {
    pub(super) fn new(live: Live<T>, value: T) -> Self {
        Self { live, given: Mutex::new(Given::Owned(Shielded::new(value))) }
    }

    fn swap(&self, given: Given<T>) -> Given<T> {
        mem::replace(&mut *lock(&self.given), given)
    }

    /// Returns the value, after a reload that has not taken place.
    pub(super) fn refused(&self) -> RefusedValue<T> {
        match self.swap(Given::Gone) {
            Given::Owned(value) => RefusedValue::owned(value.into_inner()),
            Given::Refused(value) => value,
            Given::Prepared(instance) => RefusedValue::shared(instance),
            Given::Gone => unreachable!("a reload has one result"),
        }
    }
}

impl<T: Send + Sync + 'static> Root for Value<T> {
    fn prepare(&self, store: &Store, reload: &Reload) -> Result<Option<Box<dyn Member>>, Failure> {
        let Self { live, .. } = self;
        let id = live.id();
        let (running, old) = live.running()?;
        let Given::Owned(value) = self.swap(Given::Gone) else {
            unreachable!("it was taken back after the last try")
        };
        let origin = Instance::origin(&old).clone();
        // None: as a replacement, it keeps those of the old instance.
        let edges = UsedEdges::default();
        let (value, tracker) = (value.into_inner(), &running.tracker);
        let prepared = Prepared::new(id, old, value, origin, edges, tracker, reload.decision());
        // The body continues.
        let prepared = prepared.continues();
        drop(running);
        // The supervisor may wait for this handle.
        store.wake(id.index());
        self.swap(Given::Prepared(prepared.new_instance()));
        Ok(Some(Box::new(prepared)))
    }

    fn take_back(&self) -> bool {
        let (given, can_retry) = match self.refused().try_into_inner() {
            Ok(value) => (Given::Owned(Shielded::new(value)), true),
            // A build has used it, and holds it.
            Err(shared) => (Given::Refused(shared), false),
        };
        self.swap(given);
        can_retry
    }
}
