//! A switch makes the new instances of several services current at one instant (R1 to R3).
//!
//! ```text
//! switch: installs the new instances, checks what may have changed, commits, sets their tags
//! reader: loads the value, its tag (and what decides it), the state
//! ```
//!
//! What must not happen: a reader finds a new instance, and then an old one, of whichever member;
//! a member is not ready; `get_all` returns some old and some new ones.
#![cfg(loom)]

use loom::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::spawn,
};
use mainstay::WatchEvent;
use mainstay_loom_tests::{Id, chain, join, model, now_or_never, reload_chain, version};

/// Preemption bound: 2.
fn check_gets(name: &str, order: [usize; 3]) {
    model(name, Some(2), move || {
        let (registry, ids, running, reload) = chain();
        let switch = spawn(move || assert!(reload.commit()));
        let reader = spawn({
            let registry = registry.clone();
            move || {
                let found = order.map(|at| version(&registry, ids[at]));
                assert!(found.is_sorted(), "R1: new, then old: {found:?}");
            }
        });
        join(switch);
        join(reader);
        assert_eq!(ids.map(|id| version(&registry, id)), [1, 1]);
        drop(running);
    });
}

#[test]
fn a_reader_never_goes_back_from_a_dependency() {
    check_gets("a reader never goes back from a dependency", [0, 1, 0]);
}

#[test]
fn a_reader_never_goes_back_from_a_dependent() {
    check_gets("a reader never goes back from a dependent", [1, 0, 1]);
}

/// Preemption bound: 1.
#[test]
fn a_reader_that_has_heard_of_a_new_instance_finds_no_old_one() {
    model("a reader that has heard of a new instance finds no old one", Some(1), || {
        let (registry, [x, y], running, reload) = chain();
        let passed_on = Arc::new(AtomicU64::new(0));
        let switch = spawn(move || assert!(reload.commit()));
        let first = spawn({
            let (registry, passed_on) = (registry.clone(), Arc::clone(&passed_on));
            move || passed_on.store(version(&registry, y), Ordering::Release)
        });
        let second = spawn(move || {
            let heard = passed_on.load(Ordering::Acquire);
            assert!(version(&registry, x) >= heard, "R1: old, but another reader has found new");
        });
        join(switch);
        join(first);
        join(second);
        drop(running);
    });
}

/// Preemption bound: 1.
#[test]
fn a_reader_never_goes_back_over_two_reloads() {
    model("a reader never goes back over two reloads", Some(1), || {
        let (registry, ids, running, reload) = chain();
        let switch = spawn({
            let registry = registry.clone();
            move || {
                assert!(reload.commit());
                assert!(reload_chain(&registry, ids, &running).commit());
                running
            }
        });
        let reader = spawn(move || {
            let found = [1, 0, 1].map(|at: usize| version(&registry, ids[at]));
            assert!(found.is_sorted(), "R1: new, then old: {found:?}");
        });
        join(reader);
        drop(join(switch));
    });
}

/// Cached readers of both members, and a plain read. (Preemption bound: 2.)
fn check_cached(name: &str, first: usize) {
    model(name, Some(2), move || {
        let (registry, ids, running, reload) = chain();
        let mut cached = ids.map(|id| registry.cached(id).expect("of this registry"));
        for cached in &mut cached {
            cached.get().expect("ready");
        }
        let switch = spawn(move || assert!(reload.commit()));
        let reader = spawn({
            let registry = registry.clone();
            move || {
                let one = cached[first].get().expect("R2: ready").version;
                let other = cached[1 - first].get().expect("R2: ready").version;
                let plain = version(&registry, ids[first]);
                assert!(one <= other && other <= plain, "R1: {one}, {other}, {plain}");
                cached
            }
        });
        join(switch);
        for cached in &mut join(reader) {
            let found = cached.get().expect("R2: ready").version;
            assert_eq!(found, 1, "R1: a cached reader has kept an old instance");
        }
        drop(running);
    });
}

#[test]
fn cached_readers_never_go_back_from_a_dependency() {
    check_cached("cached readers never go back from a dependency", 0);
}

#[test]
fn cached_readers_never_go_back_from_a_dependent() {
    check_cached("cached readers never go back from a dependent", 1);
}

/// Preemption bound: 1.
fn check_get_all(name: &str, order: [usize; 2]) {
    model(name, Some(1), move || {
        let (registry, ids, running, reload): (_, [Id; 2], _, _) = chain();
        let switch = spawn(move || assert!(reload.commit()));
        let reader = spawn(move || {
            let [first, second] = order.map(|at| ids[at]);
            let (first, second) = registry.get_all((first, second)).expect("R2: ready");
            assert_eq!(first.version, second.version, "R3: some old, some new");
        });
        join(switch);
        join(reader);
        drop(running);
    });
}

#[test]
#[ignore = "half a minute"]
fn get_all_of_a_dependency_then_its_dependent_finds_all_old_or_all_new() {
    check_get_all("get all of a dependency, then its dependent", [0, 1]);
}

#[test]
#[ignore = "half a minute"]
fn get_all_of_a_dependent_then_its_dependency_finds_all_old_or_all_new() {
    check_get_all("get all of a dependent, then its dependency", [1, 0]);
}

/// A watch is woken by the commit (W), and then finds no old instance of the other member (R1). The
/// old instance is held, because its drop would wake the watch. (Preemption bound: 1.)
#[test]
fn a_watch_hears_of_a_switch() {
    model("a watch hears of a switch", Some(1), || {
        let (registry, [x, y], running, reload) = chain();
        let old = registry.get_arc(x).expect("ready");
        let mut watch = registry.watch(x).expect("of this registry");
        assert!(matches!(now_or_never(watch.changed()), Some(Ok(WatchEvent::Ready(_)))));
        let switch = spawn(move || assert!(reload.commit()));
        let watcher = spawn(move || match watch.changed().wait_blocking() {
            Ok(WatchEvent::Replaced(found)) => {
                assert_eq!(found.version, 1, "R3");
                assert_eq!(version(&registry, y), 1, "R1: new, then old");
            }
            other => panic!("{other:?}"),
        });
        join(switch);
        join(watcher);
        drop((old, running));
    });
}
