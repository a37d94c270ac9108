//! S2, S3: `drained` completes after every value of the generation has been dropped, and sees all
//! effects of these drops; and it completes eventually.
//!
//! ```text
//! holder:  drop the value | decrement the count | clear the waiter bit: notify
//! waiter:  listen, set the waiter bit, check: the count is 1                  sleep
//! ```
//!
//! What must not happen: the wait ends while a value is being dropped; or the waiter keeps
//! sleeping, which loom reports as a deadlock.
#![cfg(loom)]

use loom::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread::spawn,
};
use mainstay::{Instance, Provider, Registry, Running, ServiceId};
use mainstay_loom_tests::{join, model, now_or_never};

/// Counts its drops, with accesses that order nothing.
struct Value {
    dropped: Arc<AtomicUsize>,
}

impl Drop for Value {
    fn drop(&mut self) {
        // Only one value is dropped at a time, and only a load must see it.
        self.dropped.store(self.dropped.load(Relaxed) + 1, Relaxed);
    }
}

struct Published {
    registry: Registry,
    id: ServiceId<Value>,
    _provider: Provider<Value>,
    running: Running<Value>,
    dropped: Arc<AtomicUsize>,
}

fn publish() -> Published {
    let registry = Registry::with_capacity(1).unwrap();
    let id = registry.register("x").unwrap();
    let provider = registry.provide(id).unwrap();
    let dropped = Arc::new(AtomicUsize::new(0));
    let value = Value { dropped: Arc::clone(&dropped) };
    let running = now_or_never(provider.begin()).unwrap().unwrap().ready(value).ok().unwrap();
    Published { registry, id, _provider: provider, running, dropped }
}

/// Preemption bound: 3.
#[test]
fn drained_completes_after_the_last_holder_has_dropped_its_value() {
    model("drained completes after the last holder has dropped its value", Some(3), || {
        let Published { registry, id, _provider, running, dropped } = publish();
        let held: std::sync::Arc<Instance<Value>> = registry.get_arc(id).unwrap();
        registry.fail(id, "gone").unwrap();
        let holder = spawn(move || drop(held));
        let waiter = spawn(move || {
            running.drained().wait_blocking().unwrap();
            assert_eq!(dropped.load(Relaxed), 1, "S2: drained before the value was dropped");
        });
        join(holder);
        join(waiter);
    });
}

/// The failure happens during the wait, and a reader at the same time may be the last holder.
/// (Preemption bound: 2.)
#[test]
fn drained_completes_after_a_failure_and_the_last_drop() {
    model("drained completes after a failure and the last drop", Some(2), || {
        let Published { registry, id, _provider, running, dropped } = publish();
        let failer = spawn({
            let registry = registry.clone();
            move || {
                let held = registry.get_arc(id).unwrap();
                registry.fail(id, "gone").unwrap();
                drop(held);
            }
        });
        let waiter = spawn(move || {
            running.drained().wait_blocking().unwrap();
            assert_eq!(dropped.load(Relaxed), 1, "S2: drained before the value was dropped");
        });
        join(failer);
        join(waiter);
    });
}
