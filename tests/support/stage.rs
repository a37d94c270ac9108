//! Supervisors on one thread, under a clock that stands.
#![allow(dead_code)]

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

use mainstay::{Build, Doing, Restart, ServiceId, Supervision, Supervisor};

pub(crate) type BoxError = Box<dyn Error + Send + Sync>;
pub(crate) type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

pub(crate) const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// The test kit's stage, for services that are numbers.
pub(crate) struct Stage(mainstay::Stage);

impl Deref for Stage {
    type Target = mainstay::Stage;

    fn deref(&self) -> &mainstay::Stage {
        &self.0
    }
}

impl DerefMut for Stage {
    fn deref_mut(&mut self) -> &mut mainstay::Stage {
        &mut self.0
    }
}

impl Stage {
    pub(crate) fn new() -> Self {
        Self(mainstay::Stage::new(8).unwrap())
    }

    pub(crate) fn service(&self, name: &str) -> ServiceId<u32> {
        self.registry.register(name).unwrap()
    }

    pub(crate) fn supervise<B, E>(
        &mut self,
        id: ServiceId<u32>,
        restart: Restart,
        builder: impl FnMut(Build<u32>) -> B + Send + 'static,
    ) where
        B: Future<Output = Result<u32, E>> + Send + 'static,
        E: Into<BoxError> + Send + 'static,
    {
        self.start(self.registry.supervise(id).unwrap().restart(restart), builder);
    }

    pub(crate) fn start<B, E>(
        &mut self,
        supervisor: Supervisor<u32>,
        builder: impl FnMut(Build<u32>) -> B + Send + 'static,
    ) where
        B: Future<Output = Result<u32, E>> + Send + 'static,
        E: Into<BoxError> + Send + 'static,
    {
        self.run(supervisor.run(builder));
    }

    pub(crate) fn doing(&self, id: ServiceId<u32>) -> Doing {
        self.supervision(id).doing
    }

    pub(crate) fn supervision(&self, id: ServiceId<u32>) -> Supervision {
        self.registry.status(id).unwrap().supervision.unwrap()
    }

    pub(crate) fn get(&self, id: ServiceId<u32>) -> Option<u32> {
        self.registry.get(id).ok().map(|value| *value)
    }
}

/// Rests of 100, 200, 400 ms and so on.
pub(crate) fn exact() -> Restart {
    Restart::default().backoff(ms(100), ms(1_000)).without_jitter().stable_after(ms(5_000))
}

/// A build that is called so many times before it gives the number of the call.
pub(crate) fn fails(
    times: u32,
) -> impl FnMut(Build<u32>) -> std::future::Ready<Result<u32, String>> + Send {
    let mut calls = 0;
    move |_| {
        calls += 1;
        let result = if calls > times { Ok(calls) } else { Err(format!("try {calls}")) };
        std::future::ready(result)
    }
}

/// Supervises on a thread of its own.
pub(crate) fn on_a_thread<E: Into<BoxError> + Send + 'static>(
    supervisor: Supervisor<u32>,
    builder: impl FnMut(&Build<u32>) -> Result<u32, E> + Send + 'static,
) -> thread::JoinHandle<()> {
    thread::spawn(move || supervisor.run_blocking(builder))
}

/// Counts those that are alive.
pub(crate) struct Alive(Arc<AtomicUsize>);

impl Alive {
    pub(crate) fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
