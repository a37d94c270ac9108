//! Where the new instance of the root of a reload comes from: its supervisor builds it, or its body
//! has given it.

use std::{mem, sync::Arc};

use super::{
    Live,
    coordinator::{Coordinator, Done},
};
use crate::{
    error::{RefusedValue, ReloadError, ReloadValueError},
    failure::Failure,
    instance::Instance,
    registry::{Reload, ReloadCheck, ReloadKind, Reloaded},
    store::{Member, Prepared, Store, UsedEdges},
    sync::{Mutex, Shielded, lock},
};

/// The source of the new instance of the root. It decides what the wait returns.
pub trait Root: Sized {
    type Output;

    const KIND: ReloadKind;

    fn output(coordinator: &Coordinator<Self>, result: Result<Done, ReloadError>) -> Self::Output;

    /// Prepares the new instance, if its supervisor does not build it. Returns the failure of the
    /// old one, if that is over.
    fn prepare(&self, _: &Store, _: &Reload) -> Result<NewRoot, Failure> {
        Ok(NewRoot(None))
    }

    /// Called after a switch that has not taken place. Returns whether it can be prepared again.
    fn take_back(&self) -> bool {
        true
    }
}

/// The new instance of the root; `None` if its supervisor builds it.
pub struct NewRoot(pub(super) Option<Box<dyn Member>>);

/// A root whose reload can be retried.
pub trait Retried: Root {}

/// The supervisor of the root builds it.
pub struct Builder;

impl Root for Builder {
    type Output = Result<Reloaded, ReloadError>;

    const KIND: ReloadKind = ReloadKind::All;

    fn output(coordinator: &Coordinator<Self>, result: Result<Done, ReloadError>) -> Self::Output {
        result.map(|done| coordinator.reloaded(done))
    }
}

impl Retried for Builder {}

/// The supervisor of the root builds it, and it is dropped.
pub struct Check;

impl Root for Check {
    type Output = Result<ReloadCheck, ReloadError>;

    const KIND: ReloadKind = ReloadKind::Check;

    fn output(coordinator: &Coordinator<Self>, result: Result<Done, ReloadError>) -> Self::Output {
        result.map(|done| coordinator.checked(done))
    }
}

/// The body of the root has given it.
pub struct Value<T: Send + Sync + 'static> {
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
    fn refused(&self) -> RefusedValue<T> {
        match self.swap(Given::Gone) {
            Given::Owned(value) => RefusedValue::owned(value.into_inner()),
            Given::Refused(value) => value,
            Given::Prepared(instance) => RefusedValue::shared(instance),
            Given::Gone => unreachable!("a reload has one result"),
        }
    }
}

impl<T: Send + Sync + 'static> Retried for Value<T> {}

impl<T: Send + Sync + 'static> Root for Value<T> {
    type Output = Result<Reloaded, ReloadValueError<T>>;

    const KIND: ReloadKind = ReloadKind::Given;

    fn output(coordinator: &Coordinator<Self>, result: Result<Done, ReloadError>) -> Self::Output {
        match result {
            Ok(done) => Ok(coordinator.reloaded(done)),
            Err(error) => Err(ReloadValueError { value: coordinator.root.refused(), error }),
        }
    }

    fn prepare(&self, store: &Store, reload: &Reload) -> Result<NewRoot, Failure> {
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
        Ok(NewRoot(Some(Box::new(prepared))))
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
