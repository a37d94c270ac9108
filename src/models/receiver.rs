//! The receiver of values that are handed over.

use std::{
    future::Future,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use super::Number;
use crate::{
    Attempt, Generation, Instance, Registry, Running, ServiceId, error::ReadyError,
    instance::InstanceNumber, provide, store::HandedOver,
};

/// As `provide::Receiver`.
pub struct Receiver<T: Send + Sync + 'static>(provide::Receiver<T>);

impl<T: Send + Sync + 'static> Receiver<T> {
    /// As `provide::Receiver::new`.
    pub fn new(registry: &Registry, id: ServiceId<T>) -> Self {
        Self(provide::Receiver::new(registry, id))
    }

    /// As `Attempt::ready_for`.
    pub fn publish(&self, mut attempt: Attempt<T>, value: T) -> Result<Running<T>, ReadyError<T>> {
        attempt.ready_for(&self.0, value)
    }

    /// Blocks until the next value is handed over, or none can be.
    pub fn next_blocking(&self) -> Option<(Number, T)> {
        plain(self.0.next().wait_blocking().expect("it has no timeout"))
    }

    /// Returns the next value, if it was handed over already.
    pub fn next_now(&self) -> Option<(Number, T)> {
        match pin!(self.0.next()).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(value) => plain(value.expect("it has no timeout")),
            Poll::Pending => None,
        }
    }

    /// The number of instances whose values are claimed and were not handed over.
    pub fn held(&self) -> usize {
        self.0.held().len()
    }

    /// As `provide::Receiver::waive`, for all instances.
    pub fn waive(&self) -> Vec<Arc<Instance<T>>> {
        self.0.waive(InstanceNumber { generation: Generation::LAST, revision: u64::MAX })
    }
}

/// Returns the value, if this is the last reference to its instance. If not, drops the reference.
pub fn into_value<T>(shared: Arc<Instance<T>>) -> Option<T> {
    Arc::into_inner(shared).map(Instance::into_value)
}

fn plain<T>(value: Option<HandedOver<T>>) -> Option<(Number, T)> {
    let HandedOver { number, value } = value?;
    Some(((number.generation.get(), number.revision), value.into_inner()))
}
