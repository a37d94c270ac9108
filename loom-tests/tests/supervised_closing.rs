//! S14, S15: each value of a service is passed to the close hook once, in the order of publication,
//! whatever other threads do at its end. loom reports a lost wake-up of the closer or of the loop
//! as a deadlock: the clock is paused, so no backoff and no drain timeout expires, apart from those
//! of no time.
//!
//! ```text
//! supervisor, loop:    note the end of the generation, wake the slot | wait until all are closed
//! supervisor, closer:  check: what is handed over, what is claimed | wait | hook, wake the slot
//! replacer:            claim the new value | install it: hand the old one over | wake the slot
//! reader:              drop the last reference: hand over | wake the slot
//! ```
//!
//! What must not happen: a value is closed twice, or never; a current value is closed; a value that
//! is replaced at the end of its generation is missed.
#![cfg(loom)]

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use loom::{future::block_on, thread::spawn};
use mainstay::{
    Registry, ServiceId,
    supervise::{CloseReason, Closing, Live, RestartPolicy},
};
use mainstay_loom_tests::{PausedClock, join, model};
use mainstay_test_support::poll_once;

/// The counter of an `Arc` is not an atomic of loom, so a change of it is no step of a model. This
/// is one, immediately before it.
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

/// Counts its drops.
struct Value(u32, Arc<AtomicUsize>);

impl Drop for Value {
    fn drop(&mut self) {
        self.1.fetch_add(1, Relaxed);
    }
}

/// The numbers of the values that were closed, and why.
type Closed = Arc<Mutex<Vec<(u32, &'static str)>>>;

fn why(reason: &CloseReason) -> &'static str {
    match reason {
        CloseReason::Replaced => "replaced",
        CloseReason::ShutDown => "shut down",
        _ => "failed",
    }
}

fn registry_with_one_service() -> (Registry, ServiceId<Value>) {
    let registry = Registry::builder(1).unwrap().clock(PausedClock::new()).build();
    let x = registry.register("x").unwrap();
    (registry, x)
}

/// Preemption bound: 2.
#[test]
fn a_replaced_value_is_closed_while_its_service_is_up() {
    model("a replaced value is closed while its service is up", Some(2), || {
        let (registry, x) = registry_with_one_service();
        let (drops, given) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(None)));
        let (give, closed) = (Arc::clone(&given), Closed::default());
        let body = async move |live: Live<Value>| {
            *give.lock().unwrap() = Some(live.clone());
            live.stopping().await.map(drop)
        };
        let (note, closes) = (Arc::clone(&closed), registry.clone());
        let close_hook = async move |closing: Closing<Value>| {
            note.lock().unwrap().push((closing.0, why(Closing::reason(&closing))));
            drop(Closing::into_value(closing).ok().expect("S14: it is owned"));
            // If no value is closed, the supervisor never ends.
            closes.close();
        };
        let supervisor = registry.supervise(x).unwrap().body(body).on_close(close_hook);
        let counted = Arc::clone(&drops);
        let mut run = Box::pin(supervisor.run(async move |_| Value(1, Arc::clone(&counted))));
        assert!(poll_once(&mut run).is_pending());
        let live = given.lock().unwrap().take().expect("the body runs");

        let supervisor = spawn(move || block_on(run));
        let new = Value(2, Arc::clone(&drops));
        let replacer = spawn(move || drop(live.replace(new)));
        join(replacer);
        join(supervisor);
        assert_eq!(*closed.lock().unwrap(), [(1, "replaced")], "S14:");
        assert_eq!(drops.load(Relaxed), 2, "S14: each is dropped once");
    });
}

/// Preemption bound: 2.
#[test]
fn a_value_that_is_replaced_at_the_turn_of_its_service_is_closed() {
    model("a value that is replaced at the turn of its service is closed", Some(2), || {
        let (registry, x) = registry_with_one_service();
        let (drops, given) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(None)));
        let (give, closed) = (Arc::clone(&given), Closed::default());
        let body = async move |live: Live<Value>| {
            *give.lock().unwrap() = Some(live.clone());
            live.stopping().await.map(drop)
        };
        let note = Arc::clone(&closed);
        let close_hook = async move |closing: Closing<Value>| {
            note.lock().unwrap().push((closing.0, why(Closing::reason(&closing))));
            drop(Closing::into_value(closing).ok().expect("S14: it is owned"));
        };
        let supervisor = registry.supervise(x).unwrap().body(body).on_close(close_hook);
        let counted = Arc::clone(&drops);
        let mut run = Box::pin(supervisor.run(async move |_| Value(1, Arc::clone(&counted))));
        assert!(poll_once(&mut run).is_pending());
        let live = given.lock().unwrap().take().expect("the body runs");
        let mut shutdown = Box::pin(registry.shutdown(Duration::from_secs(60)));
        // It is the turn of the service to stop, and its supervisor does not know it yet.
        assert!(poll_once(&mut shutdown).is_pending());

        let supervisor = spawn(move || block_on(run));
        let new = Value(2, Arc::clone(&drops));
        let replacer = spawn(move || live.replace(new).is_ok());
        let is_replaced = join(replacer);
        join(supervisor);
        let report = block_on(shutdown);
        assert!(report.stop_timeouts.is_empty(), "{report}");
        let expected: &[_] = match is_replaced {
            true => &[(1, "replaced"), (2, "shut down")],
            false => &[(1, "shut down")],
        };
        assert_eq!(*closed.lock().unwrap(), expected, "S14:");
        assert_eq!(drops.load(Relaxed), 2, "S14: each is dropped once");
    });
}

/// The drain timeout is over at once, and the reader lets go at the same time. (Preemption
/// bound: 2.)
#[test]
fn a_value_is_closed_once_if_its_reader_lets_go_at_its_drain_timeout() {
    model("a value is closed once if its reader lets go at its drain timeout", Some(2), || {
        let (registry, x) = registry_with_one_service();
        let (drops, closed) = (Arc::new(AtomicUsize::new(0)), Closed::default());
        let policy = RestartPolicy::default().drain_timeout(Duration::ZERO);
        let supervisor = registry.supervise(x).unwrap().restart_policy(policy);
        let steps = Steps::new();
        let (note, closes, stepped) = (Arc::clone(&closed), registry.clone(), steps.clone());
        let supervisor = supervisor.on_close(async move |closing: Closing<Value>| {
            note.lock().unwrap().push((closing.0, why(Closing::reason(&closing))));
            stepped.step();
            drop(Closing::into_value(closing));
            // If the value is not closed, the supervisor never ends.
            closes.close();
        });
        let counted = Arc::clone(&drops);
        let mut run = Box::pin(supervisor.run(async move |_| Value(1, Arc::clone(&counted))));
        assert!(poll_once(&mut run).is_pending());
        let held = registry.get_arc(x).unwrap();
        registry.fail(x, "moved").unwrap();

        let supervisor = spawn(move || block_on(run));
        let reader = spawn(move || {
            steps.step();
            drop(held);
        });
        join(reader);
        join(supervisor);
        assert_eq!(*closed.lock().unwrap(), [(1, "failed")], "S14:");
        assert_eq!(drops.load(Relaxed), 1, "S14: dropped once");
    });
}

/// The loop waits for the closer, and the closer for the reader. (Preemption bound: 2.)
#[test]
fn the_next_build_begins_after_the_last_reader_has_let_go_and_the_value_is_closed() {
    model("the next build begins after the value is closed", Some(2), || {
        let (registry, x) = registry_with_one_service();
        let (drops, closed) = (Arc::new(AtomicUsize::new(0)), Closed::default());
        // No backoff: the first failure follows a stable time.
        let policy = RestartPolicy::default().drain_timeout(Duration::from_secs(60));
        let policy = policy.reset_after(Duration::ZERO);
        let supervisor = registry.supervise(x).unwrap().restart_policy(policy);
        let note = Arc::clone(&closed);
        let supervisor = supervisor.on_close(async move |closing: Closing<Value>| {
            note.lock().unwrap().push((closing.0, why(Closing::reason(&closing))));
        });
        let (counted, closes, mut builds) = (Arc::clone(&drops), registry.clone(), 0);
        let mut run = Box::pin(supervisor.run(async move |_| {
            builds += 1;
            if builds == 2 {
                assert_eq!(counted.load(Relaxed), 1, "S15: built before the value was closed");
                closes.close();
            }
            Value(builds, Arc::clone(&counted))
        }));
        assert!(poll_once(&mut run).is_pending());
        let held = registry.get_arc(x).unwrap();

        let supervisor = spawn(move || block_on(run));
        let reader = spawn(move || drop(held));
        let failer = spawn({
            let registry = registry.clone();
            move || {
                registry.fail(x, "moved").unwrap();
            }
        });
        join(reader);
        join(failer);
        join(supervisor);
        assert_eq!(*closed.lock().unwrap(), [(1, "failed")], "S14:");
        assert_eq!(drops.load(Relaxed), 2, "S14: each is dropped once");
    });
}
