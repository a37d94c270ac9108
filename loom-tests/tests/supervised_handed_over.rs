//! H: the value of an instance is handed over to its receiver, or dropped by the thread that drops
//! the last reference, or returned to the caller that has published it in vain: exactly one of
//! these, and exactly once. And the receiver is woken.
//!
//! ```text
//! reader:    drop the last reference | lock: claimed? move the value | count | clear the bit: wake
//! receiver:  listen, set the bit, lock: nothing handed over   sleep
//!            or   lock: waive the value, or close
//! ```
//!
//! What must not happen: the receiver keeps sleeping, which loom reports as a deadlock; a value is
//! handed over and dropped; a value is neither.
#![cfg(loom)]

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use loom::thread::spawn;
use mainstay::{
    Instance, Provider, Registry, Running, ServiceId,
    models::{Receiver, into_value},
};
use mainstay_loom_tests::{join, model, now_or_never};

/// The counter of an `Arc` is not an atomic of loom, so a change of it is no step of a model. This
/// is one, immediately before it: loom then tries all orders of such changes.
#[derive(Clone)]
struct Steps(Arc<loom::sync::atomic::AtomicUsize>);

impl Steps {
    fn new() -> Self {
        Self(Arc::new(loom::sync::atomic::AtomicUsize::new(0)))
    }

    fn step(&self) {
        self.0.fetch_add(1, loom::sync::atomic::Ordering::Relaxed);
    }
}

/// Counts its drops, and may keep another instance.
#[derive(Debug)]
struct Value {
    number: u32,
    drops: Arc<AtomicUsize>,
    _keeps: Option<Arc<Instance<Value>>>,
}

impl Drop for Value {
    fn drop(&mut self) {
        self.drops.fetch_add(1, Relaxed);
    }
}

/// A service whose instance is handed over to `receiver`.
struct Published {
    registry: Registry,
    id: ServiceId<Value>,
    _provider: Provider<Value>,
    receiver: Receiver<Value>,
    running: Running<Value>,
    drops: Arc<AtomicUsize>,
}

impl Published {
    fn value(&self, number: u32) -> Value {
        Value { number, drops: Arc::clone(&self.drops), _keeps: None }
    }
}

fn publish() -> Published {
    let registry = Registry::with_capacity(1).unwrap();
    let id = registry.register("x").unwrap();
    let provider = registry.provide(id).unwrap();
    let receiver = Receiver::new(&registry, id);
    let drops = Arc::new(AtomicUsize::new(0));
    let value = Value { number: 1, drops: Arc::clone(&drops), _keeps: None };
    let attempt = now_or_never(provider.begin()).unwrap().unwrap();
    let running = receiver.publish(attempt, value).ok().unwrap();
    Published { registry, id, _provider: provider, receiver, running, drops }
}

/// Preemption bound: 3.
#[test]
fn the_last_reader_hands_the_value_over() {
    model("the last reader hands the value over", Some(3), || {
        let Published { registry, id, receiver, running, drops, _provider, .. } = publish();
        let held = registry.get_arc(id).unwrap();
        registry.fail(id, "gone").unwrap();
        drop(running);
        let reader = spawn(move || drop(held));
        let owner = spawn(move || {
            let (number, value) = receiver.next_blocking().expect("H: an instance is held");
            assert_eq!((number, value.number), ((0, 0), 1));
            assert!(receiver.next_blocking().is_none(), "H: nothing else was published");
            assert_eq!(drops.load(Relaxed), 0, "H: handed over and dropped");
        });
        join(reader);
        join(owner);
    });
}

/// The generation ends during the wait, and a reader at the same time may be the last holder.
/// (Preemption bound: 2.)
#[test]
fn the_value_of_a_generation_that_ends_is_handed_over() {
    model("the value of a generation that ends is handed over", Some(2), || {
        let Published { registry, id, receiver, running, drops, _provider } = publish();
        let reader = spawn({
            let registry = registry.clone();
            move || drop(registry.get_arc(id))
        });
        let failer = spawn(move || {
            registry.fail(id, "gone").unwrap();
            drop(running);
        });
        let owner = spawn(move || {
            assert!(receiver.next_blocking().is_some(), "H: an instance is held");
            assert_eq!(drops.load(Relaxed), 1, "H: dropped by its receiver alone");
        });
        join(reader);
        join(failer);
        join(owner);
    });
}

/// A replaced value is handed over while its generation continues. (Preemption bound: 2.)
#[test]
fn a_replaced_value_is_handed_over() {
    model("a replaced value is handed over", Some(2), || {
        let published = publish();
        let new = published.value(2);
        let Published { registry, id, receiver, running, drops, _provider } = published;
        let reader = spawn(move || drop(registry.get_arc(id)));
        let replacer = spawn(move || {
            running.replace(new).expect("nothing fails");
            running
        });
        let owner = spawn(move || {
            let (number, value) = receiver.next_blocking().expect("H: an instance is held");
            assert_eq!((number, value.number), ((0, 0), 1), "H: the new value is current");
            receiver
        });
        join(reader);
        let running = join(replacer);
        let receiver = join(owner);
        assert_eq!((receiver.held(), drops.load(Relaxed)), (1, 1));
        drop(running);
        assert_eq!(receiver.next_now().map(|(number, _)| number), Some((0, 1)));
    });
}

/// A replacement and a failure at the same time: each accepted value is handed over, and a refused
/// one is returned. (Preemption bound: 3.)
#[test]
fn no_value_is_lost_between_a_replacement_and_a_failure() {
    model("no value is lost between a replacement and a failure", Some(3), || {
        let published = publish();
        let new = published.value(2);
        let Published { registry, id, receiver, running, drops, _provider } = published;
        let failer = spawn(move || registry.fail(id, "gone").map(drop).unwrap());
        let replacer = spawn(move || running.replace(new).err().map(|refused| refused.value));
        join(failer);
        let refused = join(replacer);
        let mut handed_over = Vec::new();
        while let Some((number, value)) = receiver.next_now() {
            handed_over.push((number, value));
        }
        assert_eq!(receiver.held(), 0, "H: claimed and lost");
        let published = 2 - usize::from(refused.is_some());
        assert_eq!(handed_over.len(), published, "H: not handed over");
        assert_eq!(drops.load(Relaxed), 0, "H: dropped");
    });
}

/// The receiver waives the value while the reader drops the last reference. (Preemption bound: 3.)
#[test]
fn a_waived_value_is_dropped_or_taken_once() {
    model("a waived value is dropped or taken once", Some(3), || {
        let Published { registry, id, receiver, running, drops, _provider, .. } = publish();
        let held = registry.get_arc(id).unwrap();
        drop(running);
        let steps = Steps::new();
        let reader = spawn({
            let steps = steps.clone();
            move || {
                steps.step();
                drop(held);
            }
        });
        let owner = spawn(move || {
            steps.step();
            let shared = receiver.waive();
            let is_shared = !shared.is_empty();
            steps.step();
            let taken: Vec<_> = shared.into_iter().filter_map(into_value).collect();
            let handed_over = receiver.next_blocking();
            assert!(receiver.next_blocking().is_none(), "H: nothing else was published");
            assert_eq!(
                handed_over.is_some(),
                !is_shared,
                "H: handed over exactly if it was not waived"
            );
            (taken, handed_over)
        });
        join(reader);
        let (taken, handed_over) = join(owner);
        let owned = taken.len() + usize::from(handed_over.is_some());
        assert_eq!(owned + drops.load(Relaxed), 1, "H: exactly once");
    });
}

/// The receiver waives the value while its generation ends. (Preemption bound: 3.)
#[test]
fn a_value_is_waived_while_its_generation_ends() {
    model("a value is waived while its generation ends", Some(3), || {
        let Published { receiver, running, drops, _provider, .. } = publish();
        let steps = Steps::new();
        let failer = spawn({
            let steps = steps.clone();
            move || {
                steps.step();
                drop(running);
            }
        });
        let owner = spawn(move || {
            steps.step();
            let shared = receiver.waive();
            steps.step();
            let taken: Vec<_> = shared.into_iter().filter_map(into_value).collect();
            (taken, receiver.next_blocking())
        });
        join(failer);
        let (taken, handed_over) = join(owner);
        let owned = taken.len() + usize::from(handed_over.is_some());
        assert_eq!(owned + drops.load(Relaxed), 1, "H: exactly once");
    });
}

/// The receiver is dropped while the reader drops the last reference. (Preemption bound: 3.)
#[test]
fn a_value_is_dropped_once_if_its_receiver_is_dropped() {
    model("a value is dropped once if its receiver is dropped", Some(3), || {
        let Published { registry, id, receiver, running, drops, _provider, .. } = publish();
        let held = registry.get_arc(id).unwrap();
        drop(running);
        let reader = spawn(move || drop(held));
        let owner = spawn(move || drop(receiver));
        join(reader);
        join(owner);
        assert_eq!(drops.load(Relaxed), 1, "H: exactly once");
    });
}

/// The drop of a handed-over value is user code: here it drops the last reference to another
/// instance of the same receiver. (Preemption bound: 3.)
#[test]
fn the_drop_of_a_value_may_drop_another_instance() {
    model("the drop of a value may drop another instance", Some(3), || {
        let published = publish();
        let keeps = Some(published.registry.get_arc(published.id).unwrap());
        let Published { receiver, running, drops, _provider, .. } = published;
        let new = Value { number: 2, drops: Arc::clone(&drops), _keeps: keeps };
        running.replace(new).expect("nothing fails");
        let failer = spawn(move || drop(running));
        let owner = spawn(move || drop(receiver));
        join(failer);
        join(owner);
        assert_eq!(drops.load(Relaxed), 2, "H: each exactly once");
    });
}

/// A value that is refused belongs to the caller, although a reader may be comparing its tag.
/// (Preemption bound: 2.)
#[test]
fn a_refused_value_is_not_handed_over() {
    model("a refused value is not handed over", Some(2), || {
        let published = publish();
        let new = published.value(2);
        let Published { registry, id, receiver, running, drops, _provider: provider } = published;
        drop(running);
        drop(receiver.next_now().expect("H: no reader holds it"));
        let attempt = now_or_never(provider.begin()).unwrap().unwrap();
        let failer = spawn({
            let registry = registry.clone();
            move || registry.fail(id, "gone").map(drop).unwrap()
        });
        let reader = spawn(move || drop(registry.get(id)));
        let publisher = spawn(move || (receiver.publish(attempt, new), receiver));
        join(failer);
        join(reader);
        let (result, receiver) = join(publisher);
        match result {
            Ok(running) => {
                drop(running);
                assert!(receiver.next_now().is_some(), "H: it was published");
            }
            Err(error) => {
                assert_eq!(receiver.held(), 0, "H: a refused value is claimed");
                drop(error.into_value().try_into_inner().expect("no reader compares it"));
                assert!(receiver.next_now().is_none(), "H: a refused value is handed over");
            }
        }
        assert_eq!(drops.load(Relaxed), 2, "H: each exactly once");
    });
}

/// S2: a generation is drained only after its values were handed over. (Preemption bound: 3.)
#[test]
fn drained_completes_after_the_value_was_handed_over() {
    model("drained completes after the value was handed over", Some(3), || {
        let Published { registry, id, receiver, running, _provider, .. } = publish();
        let held = registry.get_arc(id).unwrap();
        registry.fail(id, "gone").unwrap();
        let reader = spawn(move || drop(held));
        let owner = spawn(move || {
            running.drained().wait_blocking().unwrap();
            assert!(receiver.next_now().is_some(), "S2: drained before it was handed over");
        });
        join(reader);
        join(owner);
    });
}

/// An attempt begins only after the abandoned value was handed over, and finds it there.
/// (Preemption bound: 3.)
#[test]
fn an_attempt_finds_an_abandoned_value_handed_over() {
    model("an attempt finds an abandoned value handed over", Some(3), || {
        let mut builder = Registry::builder(2).expect("two are few");
        let config = builder.register::<u32>("config").expect("there is capacity");
        let server = builder.register::<Value>("server").expect("there is capacity");
        builder.depends(server).on(config).expect("no cycle");
        let registry = builder.build();
        let provider = registry.provide(server).expect("it has no provider yet");
        let receiver = Receiver::new(&registry, server);
        let drops = Arc::new(AtomicUsize::new(0));
        let value = Value { number: 1, drops: Arc::clone(&drops), _keeps: None };
        let attempt = now_or_never(provider.begin()).expect("it is down").expect("open");
        let running = receiver.publish(attempt, value).expect("nothing has failed");

        let failer = spawn(move || registry.fail(config, "edited").map(drop).unwrap());
        let owner = spawn(move || {
            drop(running);
            drop(provider.begin().wait_blocking().expect("the registry is open"));
            assert_eq!(receiver.held(), 0, "H: an attempt has begun before the value came");
            assert!(receiver.next_now().is_some(), "H: an attempt has begun before the value came");
            provider
        });
        join(failer);
        drop(join(owner));
        assert_eq!(drops.load(Relaxed), 1);
    });
}
