//! The loop of a provider on tokio, on smol, under a bare `block_on` and on plain threads.
//!
//! - On each of them, and on all of them at once, a diamond of services becomes ready, fails with
//!   its root, and becomes ready again from the next root, in any order of their starts. A service
//!   outside of the diamond is not restarted.
//! - A provider on one executor wakes a waiter on another.
//! - A close ends every provider.

use std::{
    future::Future,
    pin::Pin,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use crate::support::{LONG, registry_of, until};
use mainstay::{Phase, Registry, ServiceId, error::WaitForError};

/// A service and its dependencies. Its value is their sum; without any, the number of its starts.
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
                Err(WaitForError::Invalidated(_)) => continue 'next,
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
    'next: while let Ok(attempt) = provider.begin().wait_blocking() {
        starts += 1;
        let mut value = if dependencies.is_empty() { starts } else { 0 };
        for &dependency in &dependencies {
            match attempt.wait_for(dependency).wait_blocking() {
                Ok(instance) => value += **instance,
                Err(WaitForError::Invalidated(_)) => continue 'next,
                Err(_) => return,
            }
        }
        let Ok(running) = attempt.ready(value) else { continue };
        let Ok(_) = running.failed().wait_blocking() else { return };
    }
}

/// A diamond of services becomes ready and fails with its root, 20 times, while another service
/// stays ready. Then the registry is closed, and every provider ends.
fn scenario(start: impl Fn(Registry, Job)) {
    let (registry, [root, left, right, top, other]) =
        registry_of(["root", "left", "right", "top", "other"]);
    let jobs = [
        (top, vec![left, right]),
        (left, vec![root]),
        (right, vec![root]),
        (root, vec![]),
        (other, vec![]),
    ];
    for job in jobs {
        start(registry.clone(), job);
    }
    let value = |id| **registry.wait_ready(id).wait_blocking_timeout(LONG).unwrap();
    assert_eq!(value(other), 1);
    for round in 1..20 {
        assert_eq!(value(top), 2 * round);
        let failed = registry.fail(root, "next").unwrap().failed;
        assert_eq!(failed, 4, "the diamond fails as a whole, in round {round}");
    }
    assert_eq!(value(top), 40);
    assert_eq!(value(other), 1, "a service outside of the diamond was restarted");
    registry.close();
    until("every provider ends", || registry.list().services.iter().all(|s| !s.has_provider));
    assert!(registry.list().services.iter().all(|service| service.phase == Phase::Down));
}

#[test]
fn a_diamond_restarts_with_its_root_on_tokio() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    scenario(|registry, job| drop(runtime.spawn(provide(registry, job))));
}

#[test]
fn a_diamond_restarts_with_its_root_on_smol() {
    scenario(|registry, job| smol::spawn(provide(registry, job)).detach());
}

#[test]
fn a_diamond_restarts_with_its_root_under_block_on() {
    scenario(|registry, job| {
        thread::spawn(move || pollster::block_on(provide(registry, job)));
    });
}

#[test]
fn a_diamond_restarts_with_its_root_on_plain_threads() {
    scenario(|registry, job| {
        thread::spawn(move || provide_blocking(&registry, job));
    });
}

#[test]
fn a_diamond_restarts_with_its_root_on_mixed_executors() {
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
