//! `ready` and `replace` return without waiting for another thread, also if they are refused while
//! another thread holds a reference to the value.
//!
//! ```text
//! first:   put v1 into the slot |                                | invalidated: return v1
//! other:                        | fail x, begin, ready(v2):      |
//!                               | takes v1 out, runs a waker     | ... the waker waits for `first`
//! ```
//!
//! The waker of the other thread waits until the refused call has returned. What must not happen:
//! the refused call waits until the other thread drops its reference, after its waker. Then
//! both wait for ever, and loom reports it.
#![cfg(loom)]
#![expect(clippy::result_large_err, reason = "the error of a refused value returns the value")]

use std::{
    future::Future,
    pin::pin,
    sync::Arc,
    task::{Context, Wake},
};

use loom::{
    sync::{Condvar, Mutex},
    thread::{ThreadId, current, spawn},
};
use mainstay::{Registry, Running};
use mainstay_loom_tests::{Id, TestProvider, Value, join, model, now_or_never, services};

/// Opens when the refused call has returned.
#[derive(Default)]
struct Gate(Mutex<bool>, Condvar);

impl Gate {
    fn open(&self) {
        *self.0.lock().unwrap() = true;
        self.1.notify_all();
    }
}

/// Waits at the gate if the thread that polled the wait runs it. (A replacement by the first thread
/// wakes the waiter, too.)
struct WaitsAtGate(Arc<Gate>, ThreadId);

impl Wake for WaitsAtGate {
    fn wake(self: Arc<Self>) {
        if current().id() != self.1 {
            return;
        }
        let Gate(open, opened) = &*self.0;
        let mut open = open.lock().unwrap();
        while !*open {
            open = opened.wait(open).unwrap();
        }
    }
}

/// Fails `x` and publishes it again, with a waker that waits at the gate.
fn fail_and_publish(
    registry: &Registry,
    x: Id,
    provider: &TestProvider,
    gate: &Arc<Gate>,
) -> Option<Running<Value>> {
    registry.fail(x, "again").unwrap();
    let attempt = now_or_never(provider.begin())?.ok()?;
    let mut wait = pin!(registry.wait_ready(x));
    let waker = Arc::new(WaitsAtGate(Arc::clone(gate), current().id())).into();
    assert!(wait.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    attempt.ready(Value::new(2)).ok()
}

/// Preemption bound: 3.
#[test]
fn a_refused_ready_returns_before_the_waker_of_another_thread() {
    model("a refused ready returns before the waker of another thread", Some(3), || {
        let (registry, [x], [provider]) = services(&[]);
        let attempt = provider.attempt();
        let gate = Arc::new(Gate::default());

        let first = spawn({
            let gate = Arc::clone(&gate);
            move || {
                let ready = attempt.ready(Value::new(1));
                gate.open();
                ready
            }
        });
        let other = spawn(move || (fail_and_publish(&registry, x, &provider, &gate), provider));
        let (first, second) = (join(first), join(other));
        if let Err(refused) = first {
            assert_eq!(refused.into_value().into_inner().version, 1, "another value was returned");
        }
        drop(second);
    });
}

/// Preemption bound: 3.
#[test]
fn a_refused_replace_returns_before_the_waker_of_another_thread() {
    model("a refused replace returns before the waker of another thread", Some(3), || {
        let (registry, [x], [provider]) = services(&[]);
        let running = provider.start(&[]);
        let gate = Arc::new(Gate::default());

        let first = spawn({
            let gate = Arc::clone(&gate);
            move || {
                let replaced = running.replace(Value::new(1));
                gate.open();
                (replaced, running)
            }
        });
        let other = spawn(move || (fail_and_publish(&registry, x, &provider, &gate), provider));
        let ((replaced, running), second) = (join(first), join(other));
        if let Err(refused) = replaced {
            assert_eq!(refused.value.into_inner().version, 1, "another value was returned");
        }
        drop((second, running));
    });
}
