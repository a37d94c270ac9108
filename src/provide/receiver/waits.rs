//! Waits of tests and models for any value that is handed over.

use std::time::Duration;

use super::Receiver;
use crate::{
    error::{DrainError, MustAwaitError},
    store::{Claimed, HandedOver, Next, Store},
    waiting::{
        Wait,
        sealed::{BlockingCondition, Condition, WaitSlots},
    },
};

impl<T: Send + Sync + 'static> Receiver<T> {
    /// Waits for the next value that is handed over. Returns `None` if there is none, and no
    /// instance is claimed. A current instance is claimed, unless it is waived. So while the
    /// service is ready, the wait ends only with a value that was replaced.
    ///
    /// The wait is cancel-safe. A closed registry does not end it, because readers may still hold
    /// instances.
    ///
    /// # Errors
    ///
    /// [`DrainError`]: the timeout expired. It contains the number of holders.
    pub(crate) fn next(&self) -> Wait<NextValue<'_, T>> {
        Wait::new(NextValue { receiver: self })
    }

    /// Returns the instances whose values have not been handed over, in the order of their
    /// publication.
    pub(crate) fn held(&self) -> Vec<Claimed> {
        self.hand_over.held()
    }
}

/// A value was handed over, or none can be.
pub(crate) struct NextValue<'a, T: Send + Sync + 'static> {
    receiver: &'a Receiver<T>,
}

impl<T: Send + Sync + 'static> Condition for NextValue<'_, T> {
    type Output = Result<Option<HandedOver<T>>, DrainError>;

    fn check(&mut self) -> Option<Self::Output> {
        match self.receiver.take() {
            Next::HandedOver(value) => Some(Ok(Some(value))),
            Next::Nothing => Some(Ok(None)),
            Next::Held(..) => None,
        }
    }

    fn slots(&self) -> WaitSlots {
        WaitSlots::of(self.receiver.id.index())
    }

    fn store(&self) -> &Store {
        self.receiver.registry.store()
    }

    fn timed_out(&self, after: Duration) -> Self::Output {
        let Receiver { registry, id, hand_over } = self.receiver;
        let holders = hand_over.held().iter().map(|held| held.holders).sum();
        Err(DrainError::TimedOut { service: registry.store().name(id.index()), holders, after })
    }
}

impl<T: Send + Sync + 'static> BlockingCondition for NextValue<'_, T> {
    fn must_await(&self) -> Self::Output {
        let Receiver { registry, id, .. } = self.receiver;
        Err(MustAwaitError::new(registry.store().name(id.index())).into())
    }
}
