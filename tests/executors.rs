//! The provider's loop runs on tokio's threads, on smol, under a bare block-on and on plain threads.
//!
//! - On each of them, and on all of them at once, a diamond of services comes up, goes down with its root, and
//!   comes up again from the next one, whoever starts first; a service beside it is not restarted.
//! - A waiter on one executor is woken by a provider on another.
//! - Closing ends every provider.

mod support;

use std::{
    future::Future,
    pin::Pin,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use mainstay::{Phase, Registry, ServiceId, WaitForError};
use support::{LONG, until};

/// A service of the scenario: a sum of what it is built from, or a count of its starts.
type Job = (ServiceId<u32>, Vec<ServiceId<u32>>);

async fn provide(registry: Registry, (id, dependencies): Job) {
    let provider = registry.provide(id).unwrap();
    let mut starts = 0;
    'next: while let Ok(attempt) = provider.begin().await {
        starts += 1;
        let mut value = if dependencies.is_empty() { starts } else { 0 };
        for &dependency in &dependencies {
            match attempt.wait_for(dependency).await {
                Ok(instance) => value += **instance,
                Err(WaitForError::Overtaken(_)) => continue 'next,
                Err(_) => return,
            }
        }
        let Ok(running) = attempt.ready(value) else { continue };
        let Ok(_) = running.failed().await else { return };
    }
}

fn provide_blocking(registry: &Registry, (id, dependencies): Job) {
    let provider = registry.provide(id).unwrap();
    let mut starts = 0;
    'next: while let Ok(attempt) = provider.begin().wait() {
        starts += 1;
        let mut value = if dependencies.is_empty() { starts } else { 0 };
        for &dependency in &dependencies {
            match attempt.wait_for(dependency).wait() {
                Ok(instance) => value += **instance,
                Err(WaitForError::Overtaken(_)) => continue 'next,
                Err(_) => return,
            }
        }
        let Ok(running) = attempt.ready(value) else { continue };
        let Ok(_) = running.failed().wait() else { return };
    }
}

/// A diamond of services comes up, goes down with its root and comes up from the next one, 20 times, while
/// another stays; then it is closed, and every provider ends.
fn scenario(start: impl Fn(Registry, Job)) {
    let registry = Registry::with_capacity(5).unwrap();
    let [root, left, right, top, other] =
        ["root", "left", "right", "top", "other"].map(|name| registry.register(name).unwrap());
    let roles = [
        (top, vec![left, right]),
        (left, vec![root]),
        (right, vec![root]),
        (root, vec![]),
        (other, vec![]),
    ];
    for job in roles {
        start(registry.clone(), job);
    }
    let value = |id| **registry.wait_ready(id).wait_timeout(LONG).unwrap();
    assert_eq!(value(other), 1);
    for round in 1..20 {
        assert_eq!(value(top), 2 * round);
        let went_down = registry.fail(root, "next").unwrap().went_down;
        assert_eq!(went_down, 4, "all of the diamond, in round {round}");
    }
    assert_eq!(value(top), 40);
    assert_eq!(value(other), 1, "what depends on nothing that failed was not restarted");
    registry.close();
    until("every provider ends", || registry.list().services.iter().all(|s| !s.provided));
    assert!(registry.list().services.iter().all(|service| service.phase == Phase::Down));
}

#[test]
fn on_tokio() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    scenario(|registry, job| drop(runtime.spawn(provide(registry, job))));
}

#[test]
fn on_smol() {
    scenario(|registry, job| smol::spawn(provide(registry, job)).detach());
}

#[test]
fn on_a_bare_block_on() {
    scenario(|registry, job| {
        thread::spawn(move || pollster::block_on(provide(registry, job)));
    });
}

#[test]
fn on_plain_threads() {
    scenario(|registry, job| {
        thread::spawn(move || provide_blocking(&registry, job));
    });
}

#[test]
fn on_all_of_them_at_once() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let next = AtomicUsize::new(0);
    scenario(|registry, job| {
        type Task = Pin<Box<dyn Future<Output = ()> + Send>>;
        let task = |registry, job| -> Task { Box::pin(provide(registry, job)) };
        match next.fetch_add(1, Ordering::Relaxed) % 4 {
            0 => drop(runtime.spawn(task(registry, job))),
            1 => smol::spawn(task(registry, job)).detach(),
            2 => drop(thread::spawn(move || pollster::block_on(provide(registry, job)))),
            _ => drop(thread::spawn(move || provide_blocking(&registry, job))),
        }
    });
}
