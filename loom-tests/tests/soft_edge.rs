//! Soft edges: a failure does not cross them, and a watch reports the state that the dependency has
//! in the end.
//!
//! ```text
//! watcher:   listen, set the waiter bit, check: unchanged                          sleep
//! notifier:                   the state changes, or the value is exchanged; clear the bit: notify
//! ```
//!
//! What must not happen: the dependent is taken down or condemned; or a watcher keeps sleeping,
//! which loom reports as a deadlock. A replacement does not change the state, so it clears the bit
//! by an operation of its own.
#![cfg(loom)]

use loom::thread::spawn;
use mainstay::{WatchEvent, error::WatchError};
use mainstay_loom_tests::{Value, join, model, now_or_never, read_state, services};

/// Preemption bound: 3.
#[test]
fn a_failure_does_not_cross_a_soft_edge() {
    model("a failure does not cross a soft edge", Some(3), || {
        let (registry, [x, d, _], [x_provider, d_provider, e_provider]) = services(&[]);
        let x_running = x_provider.start(&[]);
        let attempt = d_provider.attempt();

        let publisher = spawn(move || {
            let watch = attempt.watch(x).unwrap();
            (watch, attempt.ready(Value::new(7)).expect("nothing invalidates the attempt"))
        });
        let failer = spawn({
            let registry = registry.clone();
            move || registry.fail(x, "gone").unwrap()
        });
        let (_watch, _d_running) = join(publisher);
        assert_eq!(join(failer).failed, 1);
        assert_eq!(read_state(&registry, d), (0, true), "d was taken down");
        assert!(e_provider.try_build(&[d]).is_some(), "d is condemned");
        drop(x_running);
    });
}

#[test]
fn a_watch_reports_a_failure() {
    model("a watch reports a failure", None, || {
        let (registry, [x], [provider]) = services(&[]);
        let running = provider.start(&[]);
        let mut watch = registry.watch(x).unwrap();
        assert!(matches!(now_or_never(watch.changed()), Some(Ok(WatchEvent::Ready(_)))));
        let watcher =
            spawn(move || matches!(watch.changed().wait_blocking(), Ok(WatchEvent::Failed(_))));
        let failer = spawn(move || registry.fail(x, "gone").unwrap());
        assert!(join(watcher));
        join(failer);
        drop(running);
    });
}

#[test]
fn a_watch_reports_a_replacement() {
    model("a watch reports a replacement", None, || {
        let (registry, [x], [provider]) = services(&[]);
        let running = provider.start(&[]);
        let mut watch = registry.watch(x).unwrap();
        assert!(matches!(now_or_never(watch.changed()), Some(Ok(WatchEvent::Ready(_)))));
        let watcher = spawn(move || match watch.changed().wait_blocking() {
            Ok(WatchEvent::Replaced(instance)) => instance.version,
            other => panic!("{other:?}"),
        });
        let replacer = spawn(move || {
            running.replace(Value::new(9)).unwrap();
            running
        });
        assert_eq!(join(watcher), 9);
        drop(join(replacer));
    });
}

/// A watch may skip states in between, but not the last one. (Preemption bound: 2.)
#[test]
fn a_watch_reports_the_last_change() {
    model("a watch reports the last change", Some(2), || {
        let (registry, [x], [provider]) = services(&[]);
        let running = provider.start(&[]);
        let mut watch = registry.watch(x).unwrap();
        assert!(matches!(now_or_never(watch.changed()), Some(Ok(WatchEvent::Ready(_)))));
        let watcher =
            spawn(
                move || {
                    while !matches!(watch.changed().wait_blocking(), Ok(WatchEvent::Failed(_))) {}
                },
            );
        let notifier = spawn(move || {
            running.replace(Value::new(9)).unwrap();
            registry.fail(x, "gone").unwrap();
            running
        });
        join(watcher);
        drop(join(notifier));
    });
}

/// Preemption bound: 3.
#[test]
fn a_watch_ends_when_its_dependent_fails() {
    model("a watch ends when its dependent fails", Some(3), || {
        let (registry, [x, d], [_x_provider, d_provider]) = services(&[]);
        let attempt = d_provider.attempt();
        let mut watch = attempt.watch(x).unwrap();
        let running = attempt.ready(Value::new(7)).unwrap();
        let watcher = spawn(move || {
            matches!(watch.changed().wait_blocking(), Err(WatchError::DependentFailed(_)))
        });
        let failer = spawn(move || registry.fail(d, "enough").unwrap());
        assert!(join(watcher));
        join(failer);
        drop(running);
    });
}
