//! The runtime of the test kit, for services that are numbers: supervisors on one thread, and a
//! virtual clock.

use std::{
    error::Error,
    future::Future,
    ops::{Deref, DerefMut},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use crate::support::poll_once;
use mainstay::{
    ServiceId,
    supervise::{Build, RestartPolicy, Supervisor, SupervisorState, SupervisorStatus},
};

pub(super) type BoxError = Box<dyn Error + Send + Sync>;
pub(super) type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

pub(super) const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// `mainstay::test_kit::TestRuntime` with shorthands.
pub(super) struct TestRuntime(mainstay::test_kit::TestRuntime);

impl Deref for TestRuntime {
    type Target = mainstay::test_kit::TestRuntime;

    fn deref(&self) -> &mainstay::test_kit::TestRuntime {
        &self.0
    }
}

impl DerefMut for TestRuntime {
    fn deref_mut(&mut self) -> &mut mainstay::test_kit::TestRuntime {
        &mut self.0
    }
}

impl TestRuntime {
    pub(super) fn new() -> Self {
        Self::with_capacity(8)
    }

    pub(super) fn with_capacity(services: usize) -> Self {
        Self(mainstay::test_kit::TestRuntime::new(services).unwrap())
    }

    pub(super) fn service(&self, name: &str) -> ServiceId<u32> {
        self.registry.register(name).unwrap()
    }

    pub(super) fn supervise<B, E>(
        &mut self,
        id: ServiceId<u32>,
        restart: RestartPolicy,
        builder: impl FnMut(Build<u32>) -> B + Send + 'static,
    ) where
        B: Future<Output = Result<u32, E>> + Send + 'static,
        E: Into<BoxError> + Send + 'static,
    {
        self.start(self.registry.supervise(id).unwrap().restart_policy(restart), builder);
    }

    pub(super) fn start<B, E>(
        &mut self,
        supervisor: Supervisor<u32>,
        mut builder: impl FnMut(Build<u32>) -> B + Send + 'static,
    ) where
        B: Future<Output = Result<u32, E>> + Send + 'static,
        E: Into<BoxError> + Send + 'static,
    {
        // A type parameter is no `AsyncFnMut`, but a closure that calls it is.
        self.spawn(supervisor.run(move |build: Build<u32>| builder(build)));
    }

    /// Restarts a service, with its dependents.
    pub(super) fn restart(&mut self, id: ServiceId<u32>) {
        let mut restart = self.registry.restart(id, "again");
        let _ = poll_once(&mut restart);
        self.run_until_idle();
    }

    pub(super) fn state(&self, id: ServiceId<u32>) -> SupervisorState {
        self.supervisor_status(id).state
    }

    pub(super) fn supervisor_status(&self, id: ServiceId<u32>) -> SupervisorStatus {
        self.registry.status(id).unwrap().supervisor.unwrap()
    }

    pub(super) fn get(&self, id: ServiceId<u32>) -> Option<u32> {
        self.registry.get(id).ok().map(|value| *value)
    }
}

/// A policy whose backoffs are 100, 200, 400 ms and so on.
pub(super) fn exact() -> RestartPolicy {
    RestartPolicy::default().backoff(ms(100), ms(1_000)).without_jitter().reset_after(ms(5_000))
}

/// A builder that fails `times` times, and then returns the number of the call.
pub(super) fn fails(
    times: u32,
) -> impl FnMut(Build<u32>) -> std::future::Ready<Result<u32, String>> + Send {
    let mut calls = 0;
    move |_| {
        calls += 1;
        let result = if calls > times { Ok(calls) } else { Err(format!("try {calls}")) };
        std::future::ready(result)
    }
}

/// Runs the supervisor on a thread of its own.
pub(super) fn on_a_thread<E: Into<BoxError> + Send + 'static>(
    supervisor: Supervisor<u32>,
    builder: impl FnMut(&Build<u32>) -> Result<u32, E> + Send + 'static,
) -> thread::JoinHandle<()> {
    thread::spawn(move || supervisor.run_blocking(builder))
}

/// Counts the live values of this type.
pub(super) struct LiveCount(Arc<AtomicUsize>);

impl LiveCount {
    pub(super) fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for LiveCount {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
