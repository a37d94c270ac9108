//! A thread that is paused in the middle of its switch, for as long as the others run.
//!
//! ```text
//! switch: installs one or both of the new instances |   is paused   | looks, commits
//! others:                                             read, replace, fail, publish
//! ```
//!
//! What must not happen: one of the others waits for the switch, which is a deadlock here.
#![cfg(loom)]

use loom::thread::spawn;
use mainstay::{Registry, models::Reload};
use mainstay_loom_tests::{
    Id, Stall, Stalled, Up, Value, assert_rests_on_current, join, model, prepare, up_chain, version,
};

/// `1 -> 0`, both up, and a switch that is paused after it has installed the new instance of
/// this one.
fn stalled(installed: usize) -> (Registry, [Id; 2], [Up; 2], Stalled) {
    let (registry, [x, y], up) = up_chain(&[]);
    let mut reload = Reload::new(&registry);
    let mut stall = None;
    for (at, from) in [&[][..], &[x]].into_iter().enumerate() {
        prepare(&mut reload, &up[at].0, [x, y][at], from);
        if installed == at {
            stall = Some(Stall::after_last(&mut reload));
        }
    }
    let stalled = stall.expect("of one of the two").begin(reload);
    (registry, [x, y], up, stalled)
}

/// Each kind of read, on a thread of its own, beside a replacement. (Preemption bound: 2.)
fn check_reads(name: &str, installed: usize) {
    model(name, Some(2), move || {
        let (registry, [x, y], up, stalled) = stalled(installed);
        let reader = spawn({
            let registry = registry.clone();
            move || {
                let mut cached = registry.cached(y).expect("of this registry");
                for _ in 0..2 {
                    assert_eq!(version(&registry, x), 0, "R3");
                    assert_eq!(cached.get().expect("R2: ready").version, 0, "R3");
                }
            }
        });
        let other = spawn({
            let registry = registry.clone();
            move || {
                let (y, x) = registry.get_all((y, x)).expect("R2: ready, and no wait");
                assert_eq!((x.version, y.version), (0, 0), "R3");
            }
        });
        join(reader);
        join(other);
        assert!(stalled.end(), "nothing prevents the switch");
        assert_eq!([x, y].map(|id| version(&registry, id)), [1; 2]);
        drop(up);
    });
}

#[test]
fn readers_do_not_wait_for_a_switch_that_has_installed_the_first_instance() {
    let name = "readers do not wait for a switch that has installed the first instance";
    check_reads(name, 0);
}

#[test]
fn readers_do_not_wait_for_a_switch_that_has_installed_all_instances() {
    let name = "readers do not wait for a switch that has installed all instances";
    check_reads(name, 1);
}

/// A replacement of one member, and a reader. (Preemption bound: 2.)
fn check_replacement(name: &str, installed: usize, replaced: usize) {
    model(name, Some(2), move || {
        let (registry, ids, up, stalled) = stalled(installed);
        let replacer = spawn(move || {
            up[replaced].0.replace(Value::new(7)).expect("nothing fails");
            up
        });
        let reader = spawn({
            let registry = registry.clone();
            move || [(); 2].map(|()| version(&registry, ids[replaced]))
        });
        let up = join(replacer);
        let found = join(reader);
        assert!(matches!(found, [0, 0 | 7] | [7, 7]), "{found:?}");
        assert_eq!(version(&registry, ids[replaced]), 7, "it waits for the switch");
        // Of the second member the switch has not begun when it is paused after the first.
        assert!(!stalled.end(), "the replacement was first");
        let [one, other] = [replaced, 1 - replaced].map(|at| version(&registry, ids[at]));
        assert_eq!((one, other), (7, 0), "a replacement is lost, or half of the switch is done");
        drop(up);
    });
}

#[test]
fn a_replacement_does_not_wait_for_a_switch() {
    check_replacement("a replacement does not wait for a switch", 1, 0);
}

#[test]
fn a_replacement_of_a_member_to_come_does_not_wait_for_a_switch() {
    check_replacement("a replacement of a member to come does not wait for a switch", 0, 1);
}

/// A cascade, and the services are built again. (Preemption bound: 2.)
#[test]
fn a_cascade_does_not_wait_for_a_switch() {
    model("a cascade does not wait for a switch", Some(2), || {
        let (registry, [x, y], up, stalled) = stalled(1);
        let failer = spawn({
            let registry = registry.clone();
            move || {
                registry.fail(x, "edited").expect("of this registry");
                assert!(registry.get(y).is_err(), "A2: readable after its failure");
                let x_again = up[0].1.start(&[]);
                // It is built from an instance that is not of the switch.
                let y_again = up[1].1.start(&[x]);
                (up, x_again, y_again)
            }
        });
        let up = join(failer);
        assert!(!stalled.end(), "the cascade was first");
        assert_eq!([x, y].map(|id| version(&registry, id)), [0; 2], "R3");
        assert_rests_on_current(&registry, &[x, y]);
        drop(up);
    });
}

/// Preemption bound: 2.
#[test]
fn a_cascade_of_a_dependent_does_not_wait_for_a_switch() {
    model("a cascade of a dependent does not wait for a switch", Some(2), || {
        let (registry, [x, y], up, stalled) = stalled(1);
        let failer = spawn({
            let registry = registry.clone();
            move || {
                registry.fail(y, "edited").expect("of this registry");
                assert!(registry.get(y).is_err(), "A2: readable after its failure");
            }
        });
        let reader = spawn({
            let registry = registry.clone();
            move || [y, x].map(|id| registry.get(id).map_or(0, |found| found.version))
        });
        join(failer);
        assert_eq!(join(reader), [0; 2], "R3");
        assert!(!stalled.end(), "the cascade was first");
        assert_eq!(version(&registry, x), 0, "R2, R3");
        assert!(registry.get(y).is_err(), "S2");
        drop(up);
    });
}

/// The rest of a switch, and a read of both members that has begun before. (Preemption bound: 1.)
fn check_get_all(name: &str, installed: usize, order: [usize; 2]) {
    model(name, Some(1), move || {
        let (registry, ids, up, stalled) = stalled(installed);
        let reader = spawn(move || {
            let [first, second] = order.map(|at| ids[at]);
            let (first, second) = registry.get_all((first, second)).expect("R2: ready");
            assert_eq!(first.version, second.version, "R3: some old, some new");
        });
        assert!(stalled.end(), "nothing prevents the switch");
        join(reader);
        drop(up);
    });
}

#[test]
fn get_all_of_a_dependency_first_finds_all_old_or_all_new() {
    check_get_all("get all of a dependency first", 1, [0, 1]);
}

#[test]
fn get_all_of_a_dependent_first_finds_all_old_or_all_new() {
    check_get_all("get all of a dependent first", 1, [1, 0]);
}

#[test]
fn get_all_between_two_installs_finds_all_old_or_all_new() {
    check_get_all("get all between two installs", 0, [0, 1]);
}
