//! Waiting for everything: the end of a server's start.

use std::{fmt, time::Duration};

use crate::{
    failure::Failure,
    registry::Registry,
    service::Name,
    store::{Phase, Store},
    wait::{Wait, sealed::Condition},
};

/// Why not all services were ready: which were missing, and what each of them waited for.
///
/// ```
/// use mainstay::{AllReadyError, Registry};
/// use std::time::Duration;
///
/// let registry = Registry::with_capacity(2)?;
/// let (config, server) = (registry.register::<u8>("config")?, registry.register::<u8>("server")?);
/// registry.add_dependency(server, config)?;
/// registry.provide(config)?.begin().wait()?.fail("line 3: no closing quote")?;
///
/// let error = registry.wait_all_ready().wait_timeout(Duration::from_millis(1)).unwrap_err();
/// let what = "config is down (config failed: line 3: no closing quote); server is down, blocked by config";
/// assert!(error.to_string().ends_with(what));
/// let AllReadyError::TimedOut { missing, .. } = error else { unreachable!() };
/// assert_eq!(missing[1].blocked_by, ["config"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum AllReadyError {
    /// The registry is closed.
    #[error("the registry is closed: {}", List(.missing))]
    Closed {
        /// Those that were not ready then.
        missing: Vec<Missing>,
    },
    /// It took too long.
    #[error("not ready within {after:?}: {}", List(.missing))]
    TimedOut {
        /// Those that were not ready then.
        missing: Vec<Missing>,
        /// How long was waited.
        after: Duration,
    },
}

/// A service that is not ready, and why.
///
/// ```
/// use mainstay::{AllReadyError, Phase, Registry};
/// use std::time::Duration;
///
/// let registry = Registry::with_capacity(1)?;
/// registry.register::<u8>("config")?;
/// let error = registry.wait_all_ready().wait_timeout(Duration::ZERO).unwrap_err();
/// let AllReadyError::TimedOut { missing, .. } = error else { unreachable!() };
/// assert_eq!((&*missing[0].service, missing[0].phase), ("config", Phase::Down));
/// assert_eq!(missing[0].to_string(), "config is down");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Missing {
    /// The service.
    pub service: Name,
    /// What it is doing; `Ready` where that has come meanwhile.
    pub phase: Phase,
    /// The way to what keeps it: one that it depends on, one that this depends on, and so on, 64 of them at the most.
    /// Empty where nothing that it depends on keeps it.
    pub blocked_by: Vec<Name>,
    /// Why it is not ready, where nothing else keeps it and it has tried before.
    pub last_failure: Option<Failure>,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {}", self.service, self.phase)?;
        for (i, name) in self.blocked_by.iter().enumerate() {
            write!(f, "{}{name}", if i == 0 { ", blocked by " } else { " -> " })?;
        }
        match &self.last_failure {
            Some(failure) => write!(f, " ({failure})"),
            None => Ok(()),
        }
    }
}

struct List<'a>(&'a [Missing]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, missing) in self.0.iter().enumerate() {
            write!(f, "{}{missing}", if i == 0 { "" } else { "; " })?;
        }
        Ok(())
    }
}

impl Registry {
    /// Waits until all services are ready, also those that are registered meanwhile.
    ///
    /// Each is ready when it is looked at, one after another; not at one instant, as one may fail while the next is
    /// looked at. Takes time for each service, each time that one comes up after another was waited for.
    ///
    /// # Errors
    ///
    /// [`AllReadyError`], with those that are missing.
    ///
    /// ```
    /// let registry = mainstay::Registry::with_capacity(2)?;
    /// let (a, b) = (registry.register::<u8>("a")?, registry.register::<u8>("b")?);
    /// let (p, q) = (registry.provide(a)?, registry.provide(b)?);
    /// let _a = p.begin().wait()?.ready(1)?;
    /// let _b = q.begin().wait()?.ready(2)?;
    /// registry.wait_all_ready().wait()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn wait_all_ready(
        &self,
    ) -> Wait<impl Condition<Output = Result<(), AllReadyError>> + use<'_>> {
        Wait::new(AllReady { registry: self, next: 0 })
    }
}

struct AllReady<'a> {
    registry: &'a Registry,
    /// The one that is waited for; those before it were ready.
    next: u32,
}

impl AllReady<'_> {
    /// The first that is not ready, from some place on.
    fn missing(&self, from: u32) -> Option<u32> {
        let store = self.registry.store();
        (from..store.len()).find(|&index| !store.is_ready(index))
    }

    fn all_missing(&self) -> Vec<Missing> {
        let store = self.registry.store();
        let missing = |index| {
            let blocked_by = store.blocked_by(index);
            let failure = if blocked_by.is_empty() { store.last_failure(index) } else { None };
            Missing {
                service: store.name(index),
                phase: store.slot(index).state.load().phase(),
                blocked_by: blocked_by.into_iter().map(|index| store.name(index)).collect(),
                last_failure: failure,
            }
        };
        (0..store.len()).filter(|&index| !store.is_ready(index)).map(missing).collect()
    }
}

impl Condition for AllReady<'_> {
    type Output = Result<(), AllReadyError>;

    fn look(&mut self) -> Option<Self::Output> {
        // Those before the one that was waited for may have failed meanwhile.
        let Some(missing) = self.missing(self.next).or_else(|| self.missing(0)) else {
            return Some(Ok(()));
        };
        self.next = missing;
        let is_closed = self.registry.is_closed();
        is_closed.then(|| Err(AllReadyError::Closed { missing: self.all_missing() }))
    }

    fn slots(&self) -> (u32, Option<u32>) {
        (self.next, None)
    }

    fn store(&self) -> &Store {
        self.registry.store()
    }

    fn timed_out(&self, after: Duration) -> Self::Output {
        Err(AllReadyError::TimedOut { missing: self.all_missing(), after })
    }
}
