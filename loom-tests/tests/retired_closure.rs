//! A precomputed closure that is replaced, and retired, while `fail` reads it.
//!
//! The other models use a substitute for crossbeam-epoch, which never frees anything. This one uses
//! `src/sync/snapshot.rs` and crossbeam-epoch themselves, with the default collector.
//!
//! ```text
//! reader:                pin | load ..................... read the closure | unpin
//! writer:   pin | publish the next closure | unpin, advance the epoch until the first one is freed
//! ```
//!
//! Properties:
//!
//! - a closure that was read under a pin is complete, and is not freed while the pin is held;
//! - a closure is complete when it is dropped, whichever threads wrote and dropped it;
//! - if no pin prevents it, a replaced closure is freed after the epoch has advanced twice.
#![cfg(crossbeam_loom)]

#[path = "../../src/sync/snapshot.rs"]
mod snapshot;

/// What `snapshot.rs` imports from its parent module.
mod sync {
    pub(crate) fn schedule_point() {}

    pub(crate) mod collector {
        pub(crate) use crossbeam_epoch::pin;
    }
}

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use loom::{sync::atomic, thread::spawn};
use mainstay_loom_tests::model;
use snapshot::{Snapshot, pin};

const UNWRITTEN: u32 = 0;
const COMPLETE: u32 = 1;
const FREED: u32 = 2;

/// The state of each closure. It is stored outside the closures, so that it can be read after a
/// closure is freed.
///
/// All accesses are Relaxed, so they order nothing by themselves. A thread that finds `UNWRITTEN`
/// was not ordered after the writer of the closure; a thread that finds `FREED` was not ordered
/// before its drop.
type States = Arc<[atomic::AtomicU32; 3]>;

struct Closure {
    number: usize,
    states: States,
}

impl Closure {
    fn write(number: usize, states: &States) -> Self {
        states[number].store(COMPLETE, Relaxed);
        Self { number, states: Arc::clone(states) }
    }
}

impl Drop for Closure {
    fn drop(&mut self) {
        let state = &self.states[self.number];
        assert_eq!(state.load(Relaxed), COMPLETE, "dropped before it was complete, or twice");
        state.store(FREED, Relaxed);
    }
}

fn first_closure() -> (States, Arc<Snapshot<Closure>>) {
    let states = States::new(std::array::from_fn(|_| atomic::AtomicU32::new(UNWRITTEN)));
    let snapshot = Arc::new(Snapshot::empty());
    assert!(
        snapshot.publish(Closure::write(0, &states), &pin()).is_none(),
        "the snapshot was empty"
    );
    (states, snapshot)
}

/// Publishes a closure that is written under the pin. A write before the pin would be ordered by
/// the fence of the pin.
fn publish(number: usize, states: &States, snapshot: &Snapshot<Closure>) {
    let pin = pin();
    snapshot.publish(Closure::write(number, states), &pin);
}

/// Advances the epoch twice: then retired closures are freed, if no pin prevents it.
fn advance_the_epoch() {
    for _ in 0..2 {
        crossbeam_epoch::pin().flush();
    }
}

/// Preemption bound: 1.
#[test]
fn a_closure_that_is_read_under_a_pin_is_complete() {
    static FREED_EARLY: AtomicUsize = AtomicUsize::new(0);
    model("a closure that is read under a pin is complete", Some(1), || {
        let (states, snapshot) = first_closure();
        let reader = spawn({
            let (states, snapshot) = (Arc::clone(&states), Arc::clone(&snapshot));
            move || {
                let pin = pin();
                let number = snapshot.load(&pin).expect("the snapshot is never empty again").number;
                let state = states.get(number).expect("the memory of the closure is reused");
                assert_eq!(state.load(Relaxed), COMPLETE, "not complete under a pin");
            }
        });
        let writer = spawn({
            let (states, snapshot) = (Arc::clone(&states), Arc::clone(&snapshot));
            move || {
                publish(1, &states, &snapshot);
                advance_the_epoch();
                if states[0].load(Relaxed) == FREED {
                    FREED_EARLY.fetch_add(1, Relaxed);
                }
            }
        });
        reader.join().unwrap();
        writer.join().unwrap();
    });
    // Otherwise the model has checked nothing.
    assert_ne!(FREED_EARLY.load(Relaxed), 0, "nothing was freed");
}

/// Two writers replace the closures of each other, so each may drop a closure that the other one
/// wrote. (Preemption bound: 1.)
#[test]
fn a_closure_of_another_thread_is_complete_when_it_is_dropped() {
    static FREED_EARLY: AtomicUsize = AtomicUsize::new(0);
    model("a closure of another thread is complete when it is dropped", Some(1), || {
        let (states, snapshot) = first_closure();
        let writers = [1, 2].map(|number| {
            let (states, snapshot) = (Arc::clone(&states), Arc::clone(&snapshot));
            spawn(move || {
                publish(number, &states, &snapshot);
                advance_the_epoch();
                if states[3 - number].load(Relaxed) == FREED {
                    FREED_EARLY.fetch_add(1, Relaxed);
                }
            })
        });
        for writer in writers {
            writer.join().unwrap();
        }
    });
    assert_ne!(FREED_EARLY.load(Relaxed), 0, "nothing was freed");
}
