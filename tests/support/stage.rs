//! Supervisors on one thread, under a clock that stands.
#![allow(dead_code)]

use std::{
    error::Error,
    future::Future,
    pin::Pin,
    task::{Context, Waker},
    time::Duration,
};

use mainstay::{
    Build, Doing, Event, EventKind, Observer, Registry, Restart, ServiceId, Supervision,
    Supervisor, VirtualClock,
};

pub(crate) type BoxError = Box<dyn Error + Send + Sync>;
pub(crate) type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

pub(crate) const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A registry with a virtual clock, and the futures that run in it, all on this thread.
pub(crate) struct Stage {
    pub(crate) registry: Registry,
    pub(crate) clock: VirtualClock,
    pub(crate) tasks: Vec<Task>,
}

impl Stage {
    pub(crate) fn new() -> Self {
        Self::observed(|_| {})
    }

    pub(crate) fn observed(observer: impl Fn(String) + Send + Sync + 'static) -> Self {
        struct Notes<F>(F);

        impl<F: Fn(String) + Send + Sync + 'static> Observer for Notes<F> {
            fn event(&self, _: &Registry, event: &Event<'_>) {
                if matches!(event.kind, EventKind::Broken(_) | EventKind::Failed(_)) {
                    (self.0)(format!("{} {}", event.service, event.kind));
                }
            }
        }

        let clock = VirtualClock::new();
        let builder = Registry::builder(8).unwrap().clock(clock.clone());
        let registry = builder.observer(Notes(observer)).build();
        Self { registry, clock, tasks: Vec::new() }
    }

    pub(crate) fn service(&self, name: &str) -> ServiceId<u32> {
        self.registry.register(name).unwrap()
    }

    pub(crate) fn run<B, E>(
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
        self.tasks.push(Box::pin(supervisor.run(builder)));
    }

    /// Polls all until nothing moves. They are few and settle soon: each is polled often enough for what any other
    /// of them has done.
    pub(crate) fn settle(&mut self) {
        let mut context = Context::from_waker(Waker::noop());
        for _ in 0..20 {
            self.tasks.retain_mut(|task| task.as_mut().poll(&mut context).is_pending());
        }
    }

    pub(crate) fn advance(&mut self, time: Duration) {
        self.clock.advance(time);
        self.settle();
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
