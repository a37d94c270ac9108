//! The state of a service, and the wait for any change of it.

use std::time::{Duration, Instant};

use super::Registry;
use crate::{
    error::{MustAwaitError, WaitError},
    numbers::Generation,
    service::AnyId,
    store::{Phase, Store},
    waiting::{
        Wait,
        sealed::{BlockingCondition, Condition, WaitSlots},
    },
};

/// The phase, the generation and the revision of a service at one instant.
///
/// [`ServiceStatus::state`](crate::ServiceStatus::state) and [`Registry::wait_changed`] return it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct ServiceState {
    /// Whether the service is down, starting or ready.
    pub phase: Phase,
    /// The number of its failures.
    pub generation: Generation,
    /// How often the value was replaced in this generation, if the service is ready; else 0.
    pub revision: u64,
}

impl Registry {
    /// Waits until the state of a service of any type differs from `since`, and returns the new
    /// state.
    ///
    /// The state changes if an attempt begins, is published or fails, and if the instance is
    /// replaced or fails. A loop that passes each returned state to the next wait may skip states
    /// in between, but never the last one. If the service is in the state `since` again before the
    /// wait checks it (an attempt has begun and failed), the wait continues.
    ///
    /// Cancel-safe; the wait borrows nothing. For a service whose type is known,
    /// [`watch`](Self::watch) returns the instances and the failures.
    ///
    /// # Errors
    ///
    /// [`WaitError`]:
    ///
    /// - `Closed`: the registry is closed. A state that differs from `since` is returned first.
    /// - `Stopped`: a shutdown has stopped the service, so its state does not change any more.
    /// - `TimedOut`: the timeout expired.
    /// - `ForeignId`: the id belongs to another registry.
    ///
    /// ```
    /// use mainstay::Phase;
    ///
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// # let port = registry.register::<u16>("port")?;
    /// let provider = registry.provide(port)?;
    /// let any = registry.find("port")?;
    /// let mut state = registry.status(any)?.state();
    /// assert_eq!(state.phase, Phase::Down);
    ///
    /// let attempt = provider.begin().wait_blocking()?;
    /// state = registry.wait_changed(any, state).wait_blocking()?;
    /// assert_eq!(state.phase, Phase::Starting);
    ///
    /// let running = attempt.ready(80)?;
    /// running.replace(81)?;
    /// state = registry.wait_changed(any, state).wait_blocking()?;
    /// assert_eq!((state.phase, state.revision), (Phase::Ready, 1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn wait_changed(&self, id: impl Into<AnyId>, since: ServiceState) -> WaitChanged {
        Wait::new(StateDiffers { registry: self.clone(), id: id.into(), since })
    }
}

/// The wait of [`Registry::wait_changed`].
pub type WaitChanged = Wait<StateDiffers>;

/// The state of a service differs from an earlier one.
pub struct StateDiffers {
    registry: Registry,
    id: AnyId,
    since: ServiceState,
}

impl Condition for StateDiffers {
    type Output = Result<ServiceState, WaitError>;

    fn check(&mut self) -> Option<Self::Output> {
        let index = match self.registry.index(self.id) {
            Ok(index) => index,
            Err(foreign) => return Some(Err(foreign.into())),
        };
        let store = self.registry.store();
        let (state, revision) = store.state_and_revision(index);
        let (phase, generation) = (state.phase(), state.generation());
        let state = ServiceState { phase, generation, revision };
        if state != self.since {
            return Some(Ok(state));
        }
        store.end_of_wait(index).map(Err)
    }

    fn slots(&self) -> WaitSlots {
        WaitSlots::of(self.id.index)
    }

    fn store(&self) -> &Store {
        self.registry.store()
    }

    fn timed_out(&self, after: Duration) -> Self::Output {
        Err(WaitError::TimedOut { service: self.registry.name_of(self.id)?, after })
    }

    /// Before the waiter bit is set: an attempt that begins and finds the bit then finds the count
    /// (`Store::begin`).
    fn on_start(&mut self) {
        self.store().service(self.id.index).change_waiters.fetch_add(1);
    }

    fn on_end(&mut self, _started_at: Option<Instant>) {
        self.store().service(self.id.index).change_waiters.fetch_sub(1);
    }
}

impl BlockingCondition for StateDiffers {
    fn must_await(&self) -> Self::Output {
        Err(MustAwaitError::new(self.registry.name_of(self.id)?).into())
    }
}
