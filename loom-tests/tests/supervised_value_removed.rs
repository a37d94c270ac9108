//! A value leaves its slot even if its provider drops the `Running` while a cascade of another
//! thread has condemned the slot and has not yet taken it down. The thread that takes the slot down
//! last then removes the value.
//!
//! ```text
//! cascade:   condemn config, condemn server |                      | take down server. Abandoned?
//! provider:                                 | drop the `Running`:  |
//!                                           | condemned already    |
//! ```
//!
//! What must not happen: both return and the value stays in the slot, although no reader holds it;
//! or the value of a later attempt is removed.
//!
//! With the feature `supervise`, because only then the cells of a model release the values that are
//! taken out of them (`src/sync/model.rs`).
#![cfg(loom)]

use std::sync::Arc;

use loom::{
    sync::atomic::{AtomicBool, Ordering},
    thread::spawn,
};
use mainstay::Registry;
use mainstay_loom_tests::{Value, join, model, now_or_never, read_state, services};

/// Preemption bound: 3.
#[test]
fn the_value_of_an_abandoned_slot_is_dropped() {
    model("the value of an abandoned slot is dropped", Some(3), || {
        let (registry, [config, _], [config_provider, server_provider]) = services(&[(1, 0)]);
        let config_running = config_provider.start(&[]);
        let server_running = server_provider.start(&[]);
        let value = Arc::downgrade(&server_running.instance().expect("just published"));

        let failer = spawn(move || registry.fail(config, "edited").map(drop).unwrap());
        let provider = spawn(move || drop(server_running));
        join(failer);
        join(provider);
        assert_eq!(value.strong_count(), 0, "the value stays in the slot");
        drop(config_running);
    });
}

/// Of two cascades that condemn the slot, either may be the last one that takes it down.
/// (Preemption bound: 2.)
#[test]
fn the_value_is_dropped_although_two_cascades_overlap() {
    model("the value is dropped although two cascades overlap", Some(2), || {
        let (registry, [config, server], [config_provider, server_provider]) = services(&[(1, 0)]);
        let config_running = config_provider.start(&[]);
        let server_running = server_provider.start(&[]);
        let value = Arc::downgrade(&server_running.instance().expect("just published"));

        let failers = [config, server].map(|root| {
            let registry = registry.clone();
            spawn(move || registry.fail(root, "edited").map(drop).unwrap())
        });
        let provider = spawn(move || server_running.fail("reload"));
        let [(), ()] = failers.map(join);
        join(provider);
        assert_eq!(value.strong_count(), 0, "the value stays in the slot");
        drop(config_running);
    });
}

/// The provider publishes again at once: the late removal concerns only the old value. (Preemption
/// bound: 2.)
#[test]
fn the_next_value_stays_when_the_old_one_is_removed() {
    model("the next value stays when the old one is removed", Some(2), || {
        let (registry, [config, server], [config_provider, server_provider]) = services(&[(1, 0)]);
        let config_running = config_provider.start(&[]);
        let server_running = server_provider.start(&[]);
        let value = Arc::downgrade(&server_running.instance().expect("just published"));

        let failer = spawn({
            let registry = registry.clone();
            move || registry.fail(config, "edited").map(drop).unwrap()
        });
        let provider = spawn(move || {
            drop(server_running);
            (server_provider.try_build(&[]), server_provider)
        });
        join(failer);
        let (next, server_provider) = join(provider);
        assert_eq!(value.strong_count(), 0, "the old value stays");
        if let Some(next) = &next {
            let (generation, ready) = read_state(&registry, server);
            let current = generation == next.generation().get();
            assert_eq!(ready, current, "the value of a ready service was removed");
        }
        drop((next, server_provider, config_running));
    });
}

/// A value that holds a port.
struct Port(Arc<AtomicBool>);

impl Drop for Port {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// An attempt begins only after the value was dropped, and finds what its `Drop` has written: it
/// may need what the value held. (Preemption bound: 3.)
#[test]
fn an_attempt_finds_what_the_drop_of_an_abandoned_value_wrote() {
    model("an attempt finds what the drop of an abandoned value wrote", Some(3), || {
        let mut builder = Registry::builder(2).expect("two are few");
        let config = builder.register::<u32>("config").expect("there is capacity");
        let server = builder.register::<Port>("server").expect("there is capacity");
        builder.depends(server).on(config).expect("no cycle");
        let registry = builder.build();
        let server_provider = registry.provide(server).expect("it has no provider yet");
        let free = Arc::new(AtomicBool::new(false));
        let attempt = now_or_never(server_provider.begin()).expect("it is down").expect("open");
        let running = attempt.ready(Port(Arc::clone(&free))).expect("nothing has failed");

        let failer = spawn({
            let registry = registry.clone();
            move || registry.fail(config, "edited").map(drop).unwrap()
        });
        let has_let_go = Arc::new(AtomicBool::new(false));
        let dropper = spawn({
            let has_let_go = Arc::clone(&has_let_go);
            move || {
                drop(running);
                has_let_go.store(true, Ordering::Release);
            }
        });
        // Another thread than the one that drops the handle, and than the one that drops the value.
        let beginner = spawn(move || {
            if has_let_go.load(Ordering::Acquire) {
                let attempt = now_or_never(server_provider.begin());
                let is_free = free.load(Ordering::Relaxed);
                assert!(attempt.is_none() || is_free, "the value has not been dropped");
                drop(attempt);
            }
            server_provider
        });
        join(failer);
        join(dropper);
        let server_provider = join(beginner);
        assert!(now_or_never(server_provider.begin()).is_some(), "the slot is free in the end");
    });
}

/// The provider waits to begin: the thread that drops the value wakes it. (Preemption bound: 2.)
#[test]
fn an_attempt_that_waits_for_the_drop_of_an_abandoned_value_is_woken() {
    model("an attempt that waits for the drop of an abandoned value is woken", Some(2), || {
        let (registry, [config, server], [_config_provider, server_provider]) = services(&[(1, 0)]);
        let server_running = server_provider.start(&[]);
        let value = Arc::downgrade(&server_running.instance().expect("just published"));

        let failer = spawn({
            let registry = registry.clone();
            move || registry.fail(config, "edited").map(drop).unwrap()
        });
        let provider = spawn(move || {
            drop(server_running);
            drop(server_provider.begin().wait_blocking().expect("the registry is open"));
            assert_eq!(value.strong_count(), 0, "the value has not been dropped");
            server_provider
        });
        join(failer);
        drop(join(provider));
        assert!(!read_state(&registry, server).1);
    });
}

/// A close clears the waiter bit without a transition. It sets the bit again, or removes the value.
/// (Preemption bound: 2.)
#[test]
fn a_close_keeps_the_mark_of_an_abandoned_value() {
    model("a close keeps the mark of an abandoned value", Some(2), || {
        let (registry, [config, server], [_config_provider, server_provider]) = services(&[(1, 0)]);
        let server_running = server_provider.start(&[]);
        let value = Arc::downgrade(&server_running.instance().expect("just published"));

        let failer = spawn({
            let registry = registry.clone();
            move || registry.fail(config, "edited").map(drop).unwrap()
        });
        let provider = spawn({
            let registry = registry.clone();
            move || {
                drop(server_running);
                registry.close();
            }
        });
        join(failer);
        join(provider);
        assert_eq!(value.strong_count(), 0, "the value stays in the slot");
        assert!(!read_state(&registry, server).1);
    });
}

/// The mark of the provider and the bit of a waiter are one bit: the waiter is woken nevertheless.
/// (Preemption bound: 2.)
#[test]
fn a_waiter_of_an_abandoned_slot_is_woken() {
    model("a waiter of an abandoned slot is woken", Some(2), || {
        let (registry, [config, server], [config_provider, server_provider]) = services(&[(1, 0)]);
        let config_running = config_provider.start(&[]);
        let attempt = server_provider.attempt();
        let server_running = attempt.ready(Value::new(1)).expect("nothing has failed");
        let value = Arc::downgrade(&server_running.instance().expect("just published"));
        let failed = server_running.failed();

        let waiter = spawn(move || failed.wait_blocking().expect("the instance fails").generation);
        let failer = spawn({
            let registry = registry.clone();
            move || registry.fail(config, "edited").map(drop).unwrap()
        });
        let provider = spawn(move || drop(server_running));
        assert_eq!(join(waiter), 0);
        join(failer);
        join(provider);
        assert_eq!(value.strong_count(), 0, "the value stays in the slot");
        assert!(!read_state(&registry, server).1);
        drop(config_running);
    });
}
