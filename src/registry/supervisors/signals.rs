//! What tasks of the user can wait for: that a shutdown is requested, and that the registry is
//! closed.

use std::{future::Future, sync::Arc};

use super::Progress;
use crate::{
    registry::Registry,
    sync::{Mutex, lock},
};

#[derive(Default)]
pub(crate) struct Signals {
    state: Mutex<State>,
    /// Counts a step after each change of the state.
    changed: Progress,
}

#[derive(Default)]
struct State {
    /// The reason of the first request.
    requested: Option<Arc<str>>,
    closed: bool,
}

impl Signals {
    /// Records that a shutdown is requested. Returns whether it is the first request.
    fn request(&self, why: Arc<str>) -> bool {
        let mut state = lock(&self.state);
        let is_first = state.requested.is_none();
        if is_first {
            state.requested = Some(why);
        }
        drop(state);
        if is_first {
            self.changed.step();
        }
        is_first
    }

    /// Records that the registry is closed, which ends all waits.
    pub(in crate::registry) fn close(&self) {
        lock(&self.state).closed = true;
        self.changed.step();
    }

    fn requested(&self) -> Option<Arc<str>> {
        let state = lock(&self.state);
        let closed = || state.closed.then(|| Arc::from("the registry is closed"));
        state.requested.clone().or_else(closed)
    }

    /// Waits until `check` returns an output.
    async fn wait<R>(&self, check: impl Fn(&Self) -> Option<R>) -> R {
        loop {
            let steps = self.changed.steps();
            if let Some(output) = check(self) {
                return output;
            }
            self.changed.after(steps).await;
        }
    }
}

impl Registry {
    /// Records the wish that the registry is shut down, and wakes the tasks that wait for it
    /// ([`shutdown_requested`](Self::shutdown_requested)). Returns whether this is the first
    /// request: its reason is the one that they get.
    ///
    /// Nothing else happens: the owner of the registry waits for the request, and then calls
    /// [`shutdown`](Self::shutdown). So any service can ask for the end of the program, for example
    /// after an error that it cannot recover from. A shutdown records a request itself.
    ///
    /// Blocking: it takes a lock for a short time.
    ///
    /// ```
    /// use std::{thread, time::Duration};
    ///
    /// let registry = mainstay::Registry::with_capacity(1)?;
    /// thread::spawn({
    ///     let registry = registry.clone();
    ///     move || registry.request_shutdown("the licence has expired")
    /// });
    /// let why = pollster::block_on(registry.shutdown_requested());
    /// assert_eq!(&*why, "the licence has expired");
    /// assert!(!registry.request_shutdown("SIGTERM"), "the first reason counts");
    /// assert!(!registry.is_closed());
    /// registry.shutdown_blocking(Duration::from_secs(30));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn request_shutdown(&self, why: impl Into<Arc<str>>) -> bool {
        self.supervisors().signals.request(why.into())
    }

    /// Waits until a shutdown is [requested](Self::request_shutdown) or begins, and returns the
    /// reason. The close of the registry ends the wait, too.
    ///
    /// The wait is cancel-safe, and borrows nothing.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// let requested = registry.shutdown_requested();
    /// registry.request_shutdown("SIGTERM");
    /// assert_eq!(&*pollster::block_on(requested), "SIGTERM");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn shutdown_requested(&self) -> impl Future<Output = Arc<str>> + Send + use<> {
        let registry = self.clone();
        async move { registry.supervisors().signals.wait(Signals::requested).await }
    }

    /// Returns the reason, if a shutdown is [requested](Self::request_shutdown) or has begun, or
    /// the registry is closed: for example, to tell a load balancer that this server is about to
    /// end.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// let is_healthy = || registry.shutdown_reason().is_none();
    /// assert!(is_healthy());
    /// registry.request_shutdown("SIGTERM");
    /// assert!(!is_healthy());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn shutdown_reason(&self) -> Option<Arc<str>> {
        self.supervisors().signals.requested()
    }

    /// Waits until the registry is closed: by [`close`](Self::close), or at the end of a shutdown.
    ///
    /// The wait is cancel-safe, and borrows nothing.
    ///
    /// ```
    /// # let registry = mainstay::Registry::with_capacity(1)?;
    /// let closed = registry.closed();
    /// registry.close();
    /// pollster::block_on(closed);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn closed(&self) -> impl Future<Output = ()> + Send + use<> {
        let registry = self.clone();
        async move {
            let is_closed = |signals: &Signals| lock(&signals.state).closed.then_some(());
            registry.supervisors().signals.wait(is_closed).await;
        }
    }
}
