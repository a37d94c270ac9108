//! What the test binaries share. Each binary compiles this module and uses a part of it.
#![allow(dead_code, unused_imports)]

mod drops;
mod polling;

use std::{
    fmt::Debug,
    panic,
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use mainstay::{Provider, Registry, Running, ServiceId};

pub(crate) use self::{
    drops::{Counted, Drops},
    polling::{Wakes, poll_with, poll_with_bomb, unclonable},
};
pub(crate) use mainstay_test_support::{Random, Seed, poll_once};

/// The bound for what must happen. Only a hang takes this long.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// The time in which something that must not happen usually happens if the code is wrong.
pub(crate) const MOMENT: Duration = Duration::from_millis(5);

/// A registry with exactly these services.
pub(crate) fn registry_of<T: Send + Sync + 'static, const N: usize>(
    names: [&str; N],
) -> (Registry, [ServiceId<T>; N]) {
    let registry = Registry::with_capacity(N).unwrap();
    let ids = names.map(|name| registry.register(name).unwrap());
    (registry, ids)
}

/// Provides the service, and publishes the value.
pub(crate) fn up<T: Send + Sync + Debug + 'static>(
    registry: &Registry,
    id: ServiceId<T>,
    value: T,
) -> (Provider<T>, Running<T>) {
    let provider = registry.provide(id).unwrap();
    let running = publish(&provider, value);
    (provider, running)
}

/// Begins the next attempt of the provider, and publishes the value.
pub(crate) fn publish<T: Send + Sync + Debug + 'static>(
    provider: &Provider<T>,
    value: T,
) -> Running<T> {
    provider.begin().wait_blocking_timeout(LONG).unwrap().ready(value).unwrap()
}

/// Begins the next attempt of the provider, waits for the dependency, and publishes the value.
pub(crate) fn publish_from<T, D>(
    provider: &Provider<T>,
    dependency: ServiceId<D>,
    value: T,
) -> Running<T>
where
    T: Send + Sync + Debug + 'static,
    D: Send + Sync + Debug + 'static,
{
    let attempt = provider.begin().wait_blocking_timeout(LONG).unwrap();
    attempt.wait_for(dependency).wait_blocking_timeout(LONG).unwrap();
    attempt.ready(value).unwrap()
}

/// Runs the work on a thread of its own. Panics if the work does not finish.
#[track_caller]
pub(crate) fn must_finish<R: Send + 'static>(
    what: &str,
    work: impl FnOnce() -> R + Send + 'static,
) -> R {
    let (done, ended) = mpsc::channel::<()>();
    let thread = thread::spawn(move || {
        let _done = done;
        work()
    });
    match ended.recv_timeout(LONG) {
        Err(RecvTimeoutError::Timeout) => panic!("it hangs: {what}"),
        _ => thread.join().unwrap_or_else(|panic| panic::resume_unwind(panic)),
    }
}

/// Returns when the condition holds. Panics if it never holds.
#[track_caller]
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !holds() {
        assert!(Instant::now() < deadline, "it never happened: {what}");
        thread::yield_now();
    }
}
