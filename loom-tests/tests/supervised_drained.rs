//! S2, S3: `drained` ends once every value of the generation has been dropped, with all that their drops did; and it ends.
//!
//! ```text
//! holder:  drop the value | one less | clear the waiter bit: notify
//! waiter:  listen, set the waiter bit, look: one is alive            sleep
//! ```
//!
//! What must not be: the waiter goes on while a value is being dropped; or it sleeps on, which loom reports as a deadlock.
#![cfg(loom)]

use loom::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread::spawn,
};
use mainstay::{Instance, Provider, Registry, Running, ServiceId};
use mainstay_loom_tests::{join, model, now};

/// Leaves a trace as it is dropped, in nothing that orders anything.
struct Value {
    dropped: Arc<AtomicUsize>,
}

impl Drop for Value {
    fn drop(&mut self) {
        // One drop at a time counts here, and a load that must see it.
        self.dropped.store(self.dropped.load(Relaxed) + 1, Relaxed);
    }
}

struct Up {
    registry: Registry,
    id: ServiceId<Value>,
    _provider: Provider<Value>,
    running: Running<Value>,
    dropped: Arc<AtomicUsize>,
}

fn up() -> Up {
    let registry = Registry::with_capacity(1).unwrap();
    let id = registry.register("x").unwrap();
    let provider = registry.provide(id).unwrap();
    let dropped = Arc::new(AtomicUsize::new(0));
    let value = Value { dropped: Arc::clone(&dropped) };
    let running = now(provider.begin()).unwrap().unwrap().ready(value).ok().unwrap();
    Up { registry, id, _provider: provider, running, dropped }
}

/// Bound: 3.
#[test]
fn by_the_last_holder() {
    model("drained, by the last holder", Some(3), || {
        let Up { registry, id, _provider, running, dropped } = up();
        let held: std::sync::Arc<Instance<Value>> = registry.get_arc(id).unwrap();
        registry.fail(id, "gone").unwrap();
        let holder = spawn(move || drop(held));
        let waiter = spawn(move || {
            running.drained().wait().unwrap();
            assert_eq!(dropped.load(Relaxed), 1, "S2: it goes on before the value is dropped");
        });
        join(holder);
        join(waiter);
    });
}

/// The failure comes while it waits, and a reader beside it may be the last. (Bound: 2.)
#[test]
fn by_a_failure() {
    model("drained, by a failure", Some(2), || {
        let Up { registry, id, _provider, running, dropped } = up();
        let failer = spawn({
            let registry = registry.clone();
            move || {
                let held = registry.get_arc(id).unwrap();
                registry.fail(id, "gone").unwrap();
                drop(held);
            }
        });
        let waiter = spawn(move || {
            running.drained().wait().unwrap();
            assert_eq!(dropped.load(Relaxed), 1, "S2: it goes on before the value is dropped");
        });
        join(failer);
        join(waiter);
    });
}
