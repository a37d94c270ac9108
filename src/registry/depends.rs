//! Declaring dependencies: `registry.depends(dependent).on(dependency)`.

use super::{Registry, RegistryBuilder, cycle_error};
use crate::{
    error::{DependencyError, ForeignIdError},
    service::AnyId,
    store::{Edge, Store},
};

impl Registry {
    /// Declares the dependencies of a service: `registry.depends(server).on(config)?`.
    ///
    /// A declaration is optional: an attempt that waits for a service
    /// [discovers](crate::Attempt::wait_for) the edge. A declared edge exists before the first
    /// attempt, and it stays if later attempts do not wait for the dependency.
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
    #[must_use = "no edge is declared until `on` is called"]
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
    #[must_use = "no edge is declared until `on` is called"]
    pub fn depends(&self, dependent: impl Into<AnyId>) -> Depends<'_> {
        Depends { store: self.store(), dependent: dependent.into() }
    }
}

/// The service whose dependencies are being declared; returned by [`Registry::depends`].
#[derive(Clone, Copy)]
pub struct Depends<'a> {
    store: &'a Store,
    dependent: AnyId,
}

impl Depends<'_> {
    /// Adds a permanent hard edge: if `dependency` fails, the service fails.
    ///
    /// Returns itself, so that further dependencies can be declared. Declaring an edge again
    /// changes nothing. Blocking: takes the lock of the topology while it checks that the edge
    /// closes no cycle.
    ///
    /// # Errors
    ///
    /// [`DependencyError`]: the edge would close a cycle, or an id belongs to another registry.
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
        let index = |id: AnyId| self.store.index(id).ok_or(ForeignIdError { id });
        let edge = Edge {
            dependent: index(self.dependent)?,
            dependency: index(dependency.into())?,
            soft: false,
        };
        match self.store.declare(edge) {
            Ok(()) => Ok(self),
            Err(path) => Err(cycle_error(self.store, path).into()),
        }
    }
}

impl std::fmt::Debug for Depends<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Depends").field("dependent", &self.dependent).finish()
    }
}
