//! The provider's loop, written once: begin, build, ready, failed, and again, until the registry closes.
//!
//! `docs/supervision.md` has the rules. Nothing here is needed by the store, and nothing of it runs by itself: a
//! supervisor is a future, or a blocking call, of the user's.
//!
//! `supervisor.rs` is what a user sees of it, `upkeep.rs` the loop, with what it asks `restart.rs` for; `build.rs` is what
//! a builder gets, `build_time.rs` how long it may take, `user.rs` calls it; `supervised.rs` is what others see of a supervisor, and how it is told something;
//! `shutdown.rs` tells all of them to stop.

mod build;
mod build_time;
mod clock;
mod grace;
mod progress;
mod restart;
mod shutdown;
mod supervised;
mod supervisor;
mod upkeep;
mod user;

#[cfg(feature = "smol")]
pub use self::clock::SmolClock;
#[cfg(feature = "tokio")]
pub use self::clock::TokioClock;
pub use self::{
    build::Build,
    clock::{Clock, Sleep, SystemClock},
    restart::Restart,
    shutdown::{Hung, Shutdown},
    supervised::{Doing, Supervision},
    supervisor::Supervisor,
    user::TryError,
};

pub(crate) use self::{build_time::BuildTime, supervised::Supervised};

use crate::{
    error::{ForeignId, ProvideError},
    registry::Registry,
    service::{AnyId, ServiceId},
};

impl Registry {
    /// Takes the provider's role for a service, for a supervisor to be run. As [`provide`](Self::provide).
    ///
    /// # Errors
    ///
    /// [`ProvideError`].
    ///
    /// ```
    /// let registry = mainstay::Registry::with_capacity(1)?;
    /// let port = registry.register::<u16>("port")?;
    /// let supervisor = registry.supervise(port)?;
    /// std::thread::spawn(|| supervisor.run_blocking(|_| Ok::<_, std::io::Error>(80)));
    /// assert_eq!(**registry.wait_ready(port).wait()?, 80);
    /// # registry.close();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn supervise<T: Send + Sync + 'static>(
        &self,
        id: ServiceId<T>,
    ) -> Result<Supervisor<T>, ProvideError> {
        let provider = self.provide(id)?;
        Ok(Supervisor::new(provider, self.supervised().begin(id.index())))
    }

    /// Has a service that is broken, or rests, built again now, with all failures forgotten. One that is up, or being
    /// built, goes on, and its next failure is its first.
    ///
    /// True where it was broken or resting; false otherwise, also for a service that nobody supervises.
    ///
    /// # Errors
    ///
    /// [`ForeignId`].
    ///
    /// ```
    /// use mainstay::{Doing, Registry, Restart};
    /// use std::{thread, time::Duration};
    ///
    /// let registry = Registry::with_capacity(1)?;
    /// let port = registry.register::<u16>("port")?;
    /// let restart = Restart::default().at_most(0, Duration::from_secs(60));
    /// let supervisor = registry.supervise(port)?.restart(restart);
    /// let mut tries = 0;
    /// thread::spawn(move || {
    ///     supervisor.run_blocking(move |_| {
    ///         tries += 1;
    ///         if tries > 1 { Ok(80) } else { Err("no port is free") }
    ///     })
    /// });
    /// while registry.status(port)?.supervision.unwrap().doing != Doing::Broken {
    ///     thread::yield_now();
    /// }
    /// assert!(registry.reset(port)?);
    /// assert_eq!(**registry.wait_ready(port).wait()?, 80);
    /// # registry.close();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn reset(&self, id: impl Into<AnyId>) -> Result<bool, ForeignId> {
        let index = self.index(id.into())?;
        let Some(desk) = self.supervised().desk(index) else { return Ok(false) };
        let waited = desk.reset();
        self.store().wake(index);
        Ok(waited)
    }
}
