//! Constants: services whose provider is the registry itself.
//!
//! A constant has no handle. Its value is in the slot as an abandoned one is (`docs/design.md`,
//! "Providing"): the thread whose cascade ends its generation removes the value. So the registry
//! keeps no handle of itself.

use std::{collections::BTreeSet, time::Duration};

use super::provider::end_if_marked;
use crate::{
    error::{ConstantError, RefusedValue},
    event::EventKind,
    failure::Reason,
    instance::Origin,
    numbers::{Generation, ServiceIndex, UnixTime},
    registry::Registry,
    service::ServiceId,
    store::{Refused, RoleRefused, Target, UsedEdges},
    sync::Shielded,
};

impl Registry {
    /// Publishes a value for good: the service is a *constant*, and needs no provider.
    ///
    /// The registry itself is the provider. The service is ready until the registry is closed or
    /// shut down, or until a failure of the service is reported. A constant is built from nothing,
    /// so nothing else can fail it; other services depend on it as on any other service.
    ///
    /// What each operation means for a constant:
    ///
    /// - [`provide`](Self::provide), `supervise` and a second `constant` are refused: it has a
    ///   provider. To reload a value, use a [provider](Self::provide) and
    ///   [`replace`](crate::Running::replace).
    /// - [`fail`](Self::fail) and [`fail_instance`](Self::fail_instance) take it down with its
    ///   dependents, as any service. Nothing builds it again: from then on it has no provider, and
    ///   can be put again by `constant`, also with another value, or be provided otherwise.
    /// - `restart`, `stop` and `stop_subtree` refuse it ([`StopError::Constant`]), because it would
    ///   not begin again. As it has no dependencies, no operation on another service reaches it.
    /// - A declaration that it depends on something is refused ([`DependencyError::Constant`]).
    /// - A shutdown stops it at its turn, after its dependents. It has no body and no close hook,
    ///   and its readers are not waited for; for a value that must be closed, use a supervisor.
    /// - [`close`](Self::close) takes all constants down, with their dependents.
    ///
    /// When it has ended, the registry lets go of the value, and the last reader drops it. A value
    /// that has a handle of the registry keeps the registry alive until then: such a registry must
    /// be closed or shut down.
    ///
    /// Blocking: it takes the lock of the topology for a short time. It waits for no other thread.
    ///
    /// # Errors
    ///
    /// [`ConstantError`], which returns the value:
    ///
    /// - `AlreadyProvided`: the service has a provider, or is a constant.
    /// - `HasDependency`: a dependency of any kind is declared for the service.
    /// - `Stopped`: the service is stopped, or a shutdown stops it.
    /// - `Failing`: a cascade is taking the service down.
    /// - `Invalidated`: the service has failed during the call, before the publication.
    /// - `Closed`: the registry is closed.
    /// - `ForeignId`: the id belongs to another registry.
    ///
    /// ```
    /// let registry = mainstay::Registry::with_capacity(2)?;
    /// let port = registry.register::<u16>("port")?;
    /// let server = registry.register::<String>("server")?;
    /// registry.constant(port, 80)?;
    /// assert_eq!(*registry.get(port)?, 80);
    ///
    /// let provider = registry.provide(server)?;
    /// let attempt = provider.begin().wait_blocking()?;
    /// let found = attempt.wait_for(port).wait_blocking()?;
    /// let _running = attempt.ready(format!("localhost:{}", **found))?;
    ///
    /// registry.fail(port, "the address is taken")?; // takes the server down, too
    /// assert!(registry.get(server).is_err());
    /// registry.constant(port, 8080)?;
    /// assert_eq!(*registry.get(port)?, 8080);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// [`StopError::Constant`]: https://docs.rs/mainstay/latest/mainstay/error/enum.StopError.html
    /// [`DependencyError::Constant`]: crate::error::DependencyError::Constant
    pub fn constant<T: Send + Sync + 'static>(
        &self,
        id: ServiceId<T>,
        value: T,
    ) -> Result<(), ConstantError<T>> {
        let value = Shielded::new(value);
        let store = self.store();
        let index = match self.index(id.into()) {
            Ok(index) => index,
            Err(foreign) => {
                let value = RefusedValue::owned(value.into_inner());
                return Err(ConstantError::ForeignId { value, foreign });
            }
        };
        let generation = match self.begin_constant(index) {
            Ok(generation) => generation,
            Err(refused) => {
                let (value, service) = (RefusedValue::owned(value.into_inner()), store.name(index));
                return Err(match refused {
                    NotBegun::Provided => ConstantError::AlreadyProvided { value, service },
                    NotBegun::DependsOn(dependency) => {
                        let dependency = store.name(dependency);
                        ConstantError::HasDependency { value, service, dependency }
                    }
                    NotBegun::Stopped => ConstantError::Stopped { value, service },
                    NotBegun::Failing => ConstantError::Failing { value, service },
                    NotBegun::Closed => ConstantError::Closed { value, service },
                });
            }
        };
        let origin = Origin { built_from: None, published_at: UnixTime::now() };
        let (used, tracker) = (UsedEdges::default(), self.tracker(index));
        let value = value.into_inner();
        if let Err(Refused(value)) = store.publish(id, generation, value, origin, &used, &tracker) {
            store.service(index).role.release();
            let failure = store.failure(index, generation);
            return Err(ConstantError::Invalidated { value, failure });
        }
        self.review_if_stuck(index);
        store.keep_constant(id, generation);
        self.emit(index, generation, Duration::ZERO, EventKind::Ready);
        // The close sets its flag, then wakes each slot by a read-modify-write of the state, and
        // then ends the constants that it finds. The publication is another one: so if the close
        // has not found this constant, this thread finds the flag.
        if self.is_closed() {
            let reason = Shielded::new(Reason::Closed);
            let _ = self.cascade(index, Target::any_revision(generation), reason);
        }
        Ok(())
    }

    /// Takes the role for a constant, and begins its only attempt. If that is refused, the role is
    /// free again.
    fn begin_constant(&self, index: ServiceIndex) -> Result<Generation, NotBegun> {
        let (store, service) = (self.store(), self.store().service(index));
        if self.is_closed() {
            return Err(NotBegun::Closed);
        }
        match service.role.take_for_constant() {
            Ok(()) => {}
            Err(RoleRefused::Taken) => return Err(NotBegun::Provided),
            // A grace period is declared, so there is a dependency.
            Err(RoleRefused::NeedsSupervisor) => {
                let dependency = store.first_declared(index);
                return Err(dependency.map_or(NotBegun::Failing, NotBegun::DependsOn));
            }
        }
        let begun = self.begin_with_role(index);
        if begun.is_err() {
            service.role.release();
        }
        begun
    }

    fn begin_with_role(&self, index: ServiceIndex) -> Result<Generation, NotBegun> {
        let store = self.store();
        // After the role was taken: a declaration that this read does not find is refused.
        if let Some(dependency) = store.first_declared(index) {
            return Err(NotBegun::DependsOn(dependency));
        }
        if store.service(index).end_mark.is_set() {
            return Err(NotBegun::Stopped);
        }
        let Some(generation) = store.begin(index) else { return Err(NotBegun::Failing) };
        if end_if_marked(store, index, generation) {
            return Err(NotBegun::Stopped);
        }
        self.emit(index, generation, Duration::ZERO, EventKind::AttemptStarted);
        Ok(generation)
    }

    /// Takes all constants down, in one cascade. Called after the registry was closed.
    pub(crate) fn end_constants(&self) {
        let store = self.store();
        let is_constant = |&index: &ServiceIndex| store.service(index).role.is_constant();
        let constants: BTreeSet<ServiceIndex> = store.services().filter(is_constant).collect();
        if !constants.is_empty() {
            self.cascade_all(&constants, &Shielded::new(Reason::Closed));
        }
    }
}

/// Why a constant was not put.
enum NotBegun {
    Provided,
    DependsOn(ServiceIndex),
    Stopped,
    Failing,
    Closed,
}
