//! Grace periods of a supervised service: the supervisor notices each absence, and a grace period
//! belongs to each instance that a wait of a build returns, also if the build ends during the wait.
//!
//! ```text
//! supervisor:  store the waker of the task, take the list of changed dependencies | sleep
//! failer:      fail: add the dependency to the list, take the waker of the task, wake it
//! ```
//!
//! What must not happen: the dependency is added between the two steps of the supervisor, and
//! nothing wakes it. loom reports this as a deadlock.
//!
//! ```text
//! supervisor:  the build has returned: set `ended` | take edges and grace periods | publish
//! kept build:  check `ended` | receive | record edge and grace period | check `ended` again
//! ```
//!
//! What must not happen: the wait returns an instance, and its grace period is recorded after the
//! supervisor has taken those of the build.
#![cfg(loom)]

use std::{
    future::poll_fn,
    sync::{Mutex, PoisonError},
    task::Poll,
    time::Duration,
};

use loom::{future::block_on, sync::Arc, thread::spawn};
use mainstay::{Registry, error::WaitForError, supervise::Build};
use mainstay_loom_tests::{PausedClock, join, model};
use mainstay_test_support::poll_once;

fn registry() -> Registry {
    Registry::builder(2).unwrap().clock(PausedClock::new()).build()
}

/// Preemption bound: 1.
#[test]
fn the_absence_of_a_tolerated_dependency_is_noticed() {
    model("the absence of a tolerated dependency is noticed", Some(1), || {
        let registry = registry();
        let [dep, app] = ["dep", "app"].map(|name| registry.register::<u8>(name).unwrap());
        let provider = registry.provide(dep).unwrap();
        let running = provider.begin().wait_blocking().unwrap().ready(1).unwrap();
        let supervisor = registry.supervise(app).unwrap();
        let mut run = Box::pin(supervisor.run(async move |build: Build<u8>| {
            build.wait_with_grace(dep, Duration::ZERO).await?;
            Ok::<u8, WaitForError>(7)
        }));
        assert!(poll_once(&mut run).is_pending() && registry.get(app).is_ok());

        let supervisor = spawn(move || block_on(run));
        let failer = spawn({
            let registry = registry.clone();
            move || {
                running.fail("away");
                // Only the supervisor fails it.
                while let Ok(status) = registry.status(app) {
                    if status.generation.get() > 0 {
                        break;
                    }
                    let _ = registry.wait_changed(app, status.state()).wait_blocking();
                }
                registry.close();
            }
        });
        join(supervisor);
        join(failer);
        drop(provider);
    });
}

/// Preemption bound: 2.
#[test]
fn an_instance_that_a_wait_returns_counts_although_the_build_ends_during_it() {
    model("an instance counts although the build ends during it", Some(2), || {
        let registry = registry();
        let [dep, app] = ["dep", "app"].map(|name| registry.register::<u8>(name).unwrap());
        let provider = registry.provide(dep).unwrap();
        let running = provider.begin().wait_blocking().unwrap().ready(1).unwrap();
        // Not of loom: it orders nothing, because its holder is the first thread.
        let kept = std::sync::Arc::new(Mutex::new(None));
        let supervisor = registry.supervise(app).unwrap();
        let mut run = Box::pin(supervisor.run({
            let kept = std::sync::Arc::clone(&kept);
            move |build: Build<u8>| {
                let mut build = Some(build);
                let kept = std::sync::Arc::clone(&kept);
                // Ready at its second poll.
                poll_fn(move |_| match build.take() {
                    Some(build) => {
                        *kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(build);
                        Poll::Pending
                    }
                    None => Poll::Ready(7),
                })
            }
        }));
        assert!(poll_once(&mut run).is_pending());
        let build = kept.lock().unwrap().take().unwrap();

        let received = Arc::new(loom::sync::atomic::AtomicBool::new(false));
        let supervisor = spawn(move || {
            assert!(poll_once(&mut run).is_pending());
            run
        });
        let waiter = spawn({
            let received = Arc::clone(&received);
            move || {
                let waited = poll_once(&mut build.wait_with_grace(dep, Duration::ZERO));
                if let Poll::Ready(Ok(_)) = waited {
                    received.store(true, loom::sync::atomic::Ordering::SeqCst);
                }
            }
        });
        let mut run = supervisor.join().unwrap();
        join(waiter);
        assert!(registry.get(app).is_ok());
        running.fail("away");
        assert!(poll_once(&mut run).is_pending());
        if received.load(loom::sync::atomic::Ordering::SeqCst) {
            assert!(registry.get(app).is_err(), "the grace period is not enforced");
        }
        registry.close();
        drop((run, provider));
    });
}
