//! Soft edges: no failure travels them, and whoever watches is told of what is there in the end.
//!
//! ```text
//! watcher:  listen, set the waiter bit, look: as before                                sleep
//! mover:                     state moves, or the value is exchanged; clear the bit: notify
//! ```
//!
//! What must not be: the dependent goes down, or is condemned; or a watcher sleeps on, which loom reports as a
//! deadlock. A replacement leaves the state as it is: it clears the bit by a step of its own.
#![cfg(loom)]

use loom::thread::spawn;
use mainstay::{Change, WatchError};
use mainstay_loom_tests::{join, look, model, now, plain, services};

/// Bound: 3.
#[test]
fn takes_nothing_down() {
    model("soft edge, takes nothing down", Some(3), || {
        let (registry, [x, d, _], [x_role, d_role, e_role]) = services(&[]);
        let x_runs = x_role.start(&[]);
        let attempt = d_role.attempt();

        let publisher = spawn(move || {
            let watch = attempt.watch(x).unwrap();
            (watch, attempt.ready(plain(7)).expect("nothing overtakes it"))
        });
        let failer = spawn({
            let registry = registry.clone();
            move || registry.fail(x, "gone").unwrap()
        });
        let (_watch, _d_runs) = join(publisher);
        assert_eq!(join(failer).went_down, 1);
        assert_eq!(look(&registry, d), (0, true), "it went down");
        assert!(e_role.try_build(&[d]).is_some(), "it is condemned");
        drop(x_runs);
    });
}

#[test]
fn told_of_a_failure() {
    model("soft edge, told of a failure", None, || {
        let (registry, [x], [role]) = services(&[]);
        let running = role.start(&[]);
        let mut watch = registry.watch(x).unwrap();
        assert!(matches!(now(watch.changed()), Some(Ok(Change::Ready(_)))));
        let watcher = spawn(move || matches!(watch.changed().wait(), Ok(Change::Failed(_))));
        let failer = spawn(move || registry.fail(x, "gone").unwrap());
        assert!(join(watcher));
        join(failer);
        drop(running);
    });
}

#[test]
fn told_of_a_replacement() {
    model("soft edge, told of a replacement", None, || {
        let (registry, [x], [role]) = services(&[]);
        let running = role.start(&[]);
        let mut watch = registry.watch(x).unwrap();
        assert!(matches!(now(watch.changed()), Some(Ok(Change::Ready(_)))));
        let watcher = spawn(move || match watch.changed().wait() {
            Ok(Change::Replaced(instance)) => instance.mark,
            other => panic!("{other:?}"),
        });
        let replacer = spawn(move || {
            running.replace(plain(9)).unwrap();
            running
        });
        assert_eq!(join(watcher), 9);
        drop(join(replacer));
    });
}

/// The watcher may miss what is between, and not the end. (Bound: 2.)
#[test]
fn told_of_the_end() {
    model("soft edge, told of the end", Some(2), || {
        let (registry, [x], [role]) = services(&[]);
        let running = role.start(&[]);
        let mut watch = registry.watch(x).unwrap();
        assert!(matches!(now(watch.changed()), Some(Ok(Change::Ready(_)))));
        let watcher =
            spawn(move || while !matches!(watch.changed().wait(), Ok(Change::Failed(_))) {});
        let mover = spawn(move || {
            running.replace(plain(9)).unwrap();
            registry.fail(x, "gone").unwrap();
            running
        });
        join(watcher);
        drop(join(mover));
    });
}

/// Bound: 3.
#[test]
fn ends_with_who_watches() {
    model("soft edge, ends with who watches", Some(3), || {
        let (registry, [x, d], [_x_role, d_role]) = services(&[]);
        let attempt = d_role.attempt();
        let mut watch = attempt.watch(x).unwrap();
        let running = attempt.ready(plain(7)).unwrap();
        let watcher = spawn(move || matches!(watch.changed().wait(), Err(WatchError::Over(_))));
        let failer = spawn(move || registry.fail(d, "enough").unwrap());
        assert!(join(watcher));
        join(failer);
        drop(running);
    });
}
