//! Declaring dependencies: `registry.depends(dependent).on(dependency)`.

use std::time::Duration;

use super::{Registry, RegistryBuilder, cycle_error};
use crate::{
    error::{DependencyError, ForeignIdError},
    service::AnyId,
    store::{Declaration, DependencyKind, NotDeclared, Store},
};

impl Registry {
    /// Declares the dependencies of a service: `registry.depends(server).on(config)?`.
    ///
    /// A declaration is optional: an attempt that waits for a service
    /// [discovers](crate::Attempt::wait_for) the edge. A declared edge exists before the first
    /// attempt, and it stays if later attempts do not wait for the dependency. The methods of
    /// [`Depends`] declare edges of the different [kinds](crate::DependencyKind).
    ///
    /// ```
    /// let registry = mainstay::Registry::with_capacity(3)?;
    /// let config = registry.register::<String>("config")?;
    /// let pool = registry.register::<u8>("pool")?;
    /// let server = registry.register::<u16>("server")?;
    /// registry.depends(server).on(config)?.on(pool)?;
    /// assert_eq!(registry.status(config)?.dependents, ["server"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use = "no edge is declared until a method of the result is called"]
    pub fn depends(&self, dependent: impl Into<AnyId>) -> Depends<'_> {
        Depends { store: self.store(), dependent: dependent.into() }
    }
}

impl RegistryBuilder {
    /// Declares the dependencies of a service, as [`Registry::depends`] does.
    ///
    /// ```
    /// let mut builder = mainstay::Registry::builder(2)?;
    /// let config = builder.register::<String>("config")?;
    /// let port = builder.register::<u16>("port")?;
    /// builder.depends(port).on(config)?;
    /// assert!(builder.depends(config).on(port).is_err(), "a cycle is refused at once");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use = "no edge is declared until a method of the result is called"]
    pub fn depends(&self, dependent: impl Into<AnyId>) -> Depends<'_> {
        Depends { store: self.store(), dependent: dependent.into() }
    }
}

/// The service whose dependencies are being declared; returned by [`Registry::depends`].
///
/// Each method declares an edge of one kind, and returns the same value, so that further edges can
/// be declared. Blocking: each takes the lock of the topology while it checks that the edge closes
/// no cycle; edges of all kinds count for cycles, and for the order of a shutdown.
///
/// # Several edges of one pair
///
/// Of several declarations for one pair of services the *hardest* one counts, in whichever order
/// they are made: hard, then a grace period (the shorter one of two), then start-only, then soft.
/// Each of these kinds does everything that the kinds after it do.
///
/// An attempt may use a declared dependency in another way. If it [waits](crate::Attempt::wait_for)
/// for a dependency that is declared as start-only, the edge is hard until an attempt is published
/// that has not received an instance by such a wait. If it [waits to
/// start](crate::Attempt::wait_to_start) for one that is declared as hard, the edge stays hard. A
/// [watch](crate::Attempt::watch) adds a soft edge beside the declared one, unless that one is
/// soft, too.
///
/// ```
/// use mainstay::DependencyKind;
///
/// let registry = mainstay::Registry::with_capacity(4)?;
/// let config = registry.register::<String>("config")?;
/// let secrets = registry.register::<String>("secrets")?;
/// let cache = registry.register::<u8>("cache")?;
/// let server = registry.register::<u16>("server")?;
/// registry.depends(server).on(config)?.to_start_on(secrets)?.soft_on(cache)?;
/// // `config` is declared as hard already, which is harder.
/// registry.depends(server).soft_on(config)?.to_start_on(config)?;
///
/// let kinds = registry.status(server)?.dependencies.into_iter().map(|edge| edge.kind);
/// let expected = [DependencyKind::Hard, DependencyKind::StartOnly, DependencyKind::Soft];
/// assert!(kinds.eq(expected));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy)]
pub struct Depends<'a> {
    store: &'a Store,
    dependent: AnyId,
}

impl Depends<'_> {
    /// Declares a hard edge: if `dependency` fails, the service fails.
    ///
    /// Declaring an edge again changes nothing.
    ///
    /// # Errors
    ///
    /// [`DependencyError`]: the edge would close a cycle, the service is a
    /// [constant](Registry::constant), or an id belongs to another registry.
    ///
    /// ```
    /// use mainstay::error::DependencyError;
    ///
    /// let registry = mainstay::Registry::with_capacity(1)?;
    /// let port = registry.register::<u16>("port")?;
    /// assert!(matches!(registry.depends(port).on(port), Err(DependencyError::Cycle(_))));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn on(self, dependency: impl Into<AnyId>) -> Result<Self, DependencyError> {
        self.declare(dependency.into(), DependencyKind::Hard, None)
    }

    /// Declares a start-only edge: if `dependency` fails while an attempt at the service is in
    /// progress, the attempt is invalidated, whether it has waited for the dependency or not. A
    /// failure does not affect the service while it is ready.
    ///
    /// The edge stays after a publication, and counts again for the next attempt. If a failure and
    /// a publication take place at the same time, the failure may still take the new instance down.
    ///
    /// A failure of a service in whose closure there is such an edge searches the closure each
    /// time, because it depends on which services are ready. No search is kept for the next
    /// failure.
    ///
    /// # Errors
    ///
    /// [`DependencyError`]: the edge would close a cycle, the service is a
    /// [constant](Registry::constant), or an id belongs to another registry.
    ///
    /// ```
    /// let registry = mainstay::Registry::with_capacity(2)?;
    /// let secrets = registry.register::<String>("secrets")?;
    /// let client = registry.register::<usize>("client")?;
    /// registry.depends(client).to_start_on(secrets)?;
    ///
    /// # let provide_secrets = registry.provide(secrets)?;
    /// # let provide_client = registry.provide(client)?;
    /// let vault = provide_secrets.begin().wait_blocking()?.ready("hunter2".to_string())?;
    /// let attempt = provide_client.begin().wait_blocking()?;
    /// vault.fail("rotated");
    /// assert!(attempt.is_invalidated());
    /// # drop(attempt);
    ///
    /// let vault = provide_secrets.begin().wait_blocking()?.ready("hunter3".to_string())?;
    /// let attempt = provide_client.begin().wait_blocking()?;
    /// let password = attempt.wait_to_start(secrets).wait_blocking()?;
    /// let _connected = attempt.ready(password.len())?;
    /// vault.fail("rotated");
    /// assert!(registry.get(client).is_ok());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn to_start_on(self, dependency: impl Into<AnyId>) -> Result<Self, DependencyError> {
        self.declare(dependency.into(), DependencyKind::StartOnly, None)
    }

    /// Declares a start-only edge with a grace period: as [`to_start_on`](Self::to_start_on), and
    /// in addition the supervisor of the service fails it as soon as `dependency` has been absent
    /// for the whole period.
    ///
    /// As [`Build::wait_with_grace`](crate::supervise::Build::wait_with_grace), for every instance
    /// of the service, also for the present one. A period begins when the dependency, which was
    /// ready when the service was built from it or is ready later, is not ready any more. A
    /// dependency that has not been ready since the service was published is not absent.
    ///
    /// # Errors
    ///
    /// [`DependencyError`]:
    ///
    /// - `NeedsSupervisor`: the service has a provider that is not a supervisor, so nothing would
    ///   enforce the period. While a grace period is declared, only
    ///   [`Registry::supervise`](crate::Registry::supervise) provides the service:
    ///   [`Registry::provide`](crate::Registry::provide) returns an error.
    /// - `Cycle`: the edge would close a cycle.
    /// - `ForeignId`: an id belongs to another registry.
    ///
    /// ```
    /// use mainstay::{Registry, error::ProvideError};
    /// use std::time::Duration;
    ///
    /// let registry = Registry::with_capacity(2)?;
    /// let cache = registry.register::<u8>("cache")?;
    /// let pages = registry.register::<String>("pages")?;
    /// registry.depends(pages).with_grace_on(cache, Duration::from_secs(30))?;
    /// assert_eq!(registry.status(pages)?.dependencies[0].grace, Some(Duration::from_secs(30)));
    ///
    /// let refused = registry.provide(pages);
    /// assert!(matches!(refused, Err(ProvideError::NeedsSupervisor { .. })));
    /// assert!(registry.supervise(pages).is_ok());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[cfg(feature = "supervise")]
    pub fn with_grace_on(
        self,
        dependency: impl Into<AnyId>,
        grace: Duration,
    ) -> Result<Self, DependencyError> {
        self.declare(dependency.into(), DependencyKind::StartOnly, Some(grace))
    }

    /// Declares a soft edge: a failure of `dependency` fails nothing. The service stops before the
    /// dependency in a shutdown, and [`status`](crate::Registry::status) shows the edge.
    ///
    /// An attempt [watches](crate::Attempt::watch) the dependency to receive its failures.
    ///
    /// # Errors
    ///
    /// [`DependencyError`]: the edge would close a cycle, the service is a
    /// [constant](Registry::constant), or an id belongs to another registry.
    ///
    /// ```
    /// let registry = mainstay::Registry::with_capacity(2)?;
    /// let metrics = registry.register::<u8>("metrics")?;
    /// let server = registry.register::<u16>("server")?;
    /// registry.depends(server).soft_on(metrics)?;
    /// assert_eq!(registry.status(metrics)?.watched_by, ["server"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn soft_on(self, dependency: impl Into<AnyId>) -> Result<Self, DependencyError> {
        self.declare(dependency.into(), DependencyKind::Soft, None)
    }

    fn declare(
        self,
        dependency: AnyId,
        kind: DependencyKind,
        grace: Option<Duration>,
    ) -> Result<Self, DependencyError> {
        let index = |id: AnyId| self.store.index(id).ok_or(ForeignIdError { id });
        let (dependent, dependency) = (index(self.dependent)?, index(dependency)?);
        match self.store.declare(Declaration { dependent, dependency, kind, grace }) {
            Ok(()) => Ok(self),
            Err(NotDeclared::Cycle(path)) => Err(cycle_error(self.store, path).into()),
            Err(NotDeclared::Unsupervised) => Err(DependencyError::NeedsSupervisor {
                service: self.store.name(dependent),
                dependency: self.store.name(dependency),
            }),
            Err(NotDeclared::Constant) => Err(DependencyError::Constant {
                service: self.store.name(dependent),
                dependency: self.store.name(dependency),
            }),
        }
    }
}

impl std::fmt::Debug for Depends<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Depends").field("dependent", &self.dependent).finish()
    }
}
