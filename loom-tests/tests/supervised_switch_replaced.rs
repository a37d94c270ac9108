//! A plain replacement of a member aborts a switch that is not committed, and replaces the new
//! instance of one that is. So does the failure of exactly an old instance.
//!
//! ```text
//! switch:   notes itself in the history, installs, looks | commits | ends in the history
//! replacer: ends the switch in the history, takes the next revision, installs
//! ```
//!
//! What must not happen: the replaced member keeps its replacement, and the others are switched
//! without it; a replacement is lost; the new instance fails in place of the old one.
#![cfg(loom)]

use loom::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::spawn,
};
use mainstay::{
    FailOutcome, Instance,
    models::{Reload, fail_publication},
};
use mainstay_loom_tests::{Value, chain, join, model, prepare, services, version};

/// The version of the replacement. It is newer than that of the switch, if that is committed.
const REPLACEMENT: u64 = 7;

/// Preemption bound: 1.
fn check_replaced(name: &str, replaced: usize) {
    model(name, Some(1), move || {
        let (registry, ids, [x_up, y_up], reload) = chain();
        let (running, other) = if replaced == 0 { (x_up, y_up) } else { (y_up, x_up) };
        let switch = spawn(move || reload.commit());
        let replacer = spawn(move || {
            running.0.replace(Value::new(REPLACEMENT)).expect("nothing fails");
            running
        });
        let reader = spawn({
            let registry = registry.clone();
            move || [replaced, 1 - replaced, replaced].map(|at| version(&registry, ids[at]))
        });
        let committed = join(switch);
        let running = join(replacer);
        let [first, between, last] = join(reader);
        assert!(first <= last, "R1: {first}, then {last}");
        match committed {
            true => assert!(between >= first.min(1), "R1: {first}, then {between}"),
            false => assert!(
                between == 0 && first != 1 && last != 1,
                "S2: an instance of an aborted switch was current: {first}, {between}, {last}"
            ),
        }
        assert!(between == 0 || last >= 1, "R1: {between}, then {last}");
        assert_eq!(version(&registry, ids[replaced]), REPLACEMENT, "a replacement is lost");
        assert_eq!(version(&registry, ids[1 - replaced]), u64::from(committed));
        drop((running, other));
    });
}

#[test]
fn a_replacement_of_a_dependency_aborts_or_follows() {
    check_replaced("a replacement of a dependency aborts or follows", 0);
}

#[test]
fn a_replacement_of_a_dependent_aborts_or_follows() {
    check_replaced("a replacement of a dependent aborts or follows", 1);
}

/// The thread that replaces a new instance has observed it. The old instance of the other member is
/// kept, as by a reader. (Preemption bound: 1.)
#[test]
fn a_thread_that_replaces_a_new_instance_finds_no_old_one() {
    model("a thread that replaces a new instance finds no old one", Some(1), || {
        let (registry, [x, y], [x_up, y_up], reload) = chain();
        let held = registry.get_arc(y).expect("ready");
        let switch = spawn(move || reload.commit());
        let replacer = spawn({
            let registry = registry.clone();
            move || {
                x_up.0.replace(Value::new(REPLACEMENT)).expect("nothing fails");
                let replaced = registry.get_arc(x).expect("R2: ready");
                let is_of_the_new_one = Instance::revision(&replaced) == 2;
                let other = version(&registry, y);
                assert!(!is_of_the_new_one || other == 1, "R1: new, then {other}");
                x_up
            }
        });
        join(switch);
        drop((join(replacer), y_up, held));
    });
}

/// Preemption bound: 1.
#[test]
fn cached_readers_find_the_replacement_that_aborts_a_switch() {
    model("cached readers find the replacement that aborts a switch", Some(1), || {
        let (registry, ids, [x_up, y_up], reload) = chain();
        let mut cached = ids.map(|id| registry.cached(id).expect("of this registry"));
        let switch = spawn(move || reload.commit());
        let replacer = spawn(move || {
            y_up.0.replace(Value::new(REPLACEMENT)).expect("nothing fails");
            y_up
        });
        let reader = spawn(move || {
            let y = cached[1].get().expect("R2: ready").version;
            let x = cached[0].get().expect("R2: ready").version;
            (y, x, cached)
        });
        let committed = join(switch);
        let y_up = join(replacer);
        let (y, x, mut cached) = join(reader);
        assert!(committed || (y != 1 && x == 0), "S2: of an aborted switch: {y}, {x}");
        assert!(!committed || x >= y.min(1), "R1: {y}, then {x}");
        let [x, y] = cached.each_mut().map(|cached| cached.get().expect("R2: ready").version);
        assert_eq!((x, y), (u64::from(committed), REPLACEMENT), "an old instance is kept");
        drop((x_up, y_up));
    });
}

/// Preemption bound: 1.
fn check_exactly(name: &str, failed: usize) {
    model(name, Some(1), move || {
        let (registry, ids, running, reload) = chain();
        let old = registry.get_arc(ids[failed]).expect("ready");
        let switch = spawn(move || reload.commit());
        let reporter = spawn({
            let registry = registry.clone();
            move || match registry.fail_instance(&old, "broken").expect("of this registry") {
                FailOutcome::Failed(_) => {
                    assert!(registry.get(ids[failed]).is_err(), "A2: readable after its failure");
                    true
                }
                FailOutcome::Replaced => {
                    let found = version(&registry, ids[failed]);
                    assert_eq!(found, 1, "reported as replaced, and still current");
                    false
                }
                FailOutcome::AlreadyFailed => panic!("nothing else fails it"),
            }
        });
        let reader = spawn({
            let registry = registry.clone();
            move || registry.get(ids[failed]).map_or(0, |found| found.version)
        });
        let (committed, has_failed, found) = (join(switch), join(reporter), join(reader));
        assert_ne!(committed, has_failed, "the instance that was reported is the one that fails");
        assert!(committed || found == 0, "S2: an instance of an aborted switch was current");
        assert_eq!(registry.get(ids[failed]).is_ok(), committed);
        drop(running);
    });
}

#[test]
fn exactly_the_old_instance_of_a_dependency_fails() {
    check_exactly("exactly the old instance of a dependency fails", 0);
}

#[test]
fn exactly_the_old_instance_of_a_dependent_fails() {
    check_exactly("exactly the old instance of a dependent fails", 1);
}

/// As the return of a body of a member: its publication fails, or the switch has ended it.
/// (Preemption bound: 2.)
fn check_publication(name: &str, failed: usize) {
    model(name, Some(2), move || {
        let (registry, ids, running, reload) = chain();
        let switch = spawn(move || reload.commit());
        let failer = spawn(move || (fail_publication(&running[failed].0, 0), running));
        let committed = join(switch);
        let (has_failed, running) = join(failer);
        assert_ne!(committed, has_failed, "S20: exactly one of the two");
        assert_eq!(registry.get(ids[failed]).is_ok(), committed, "S20: the new one has failed");
        drop(running);
    });
}

#[test]
fn the_publication_of_a_dependency_fails_or_is_over() {
    check_publication("the publication of a dependency fails or is over", 0);
}

#[test]
fn the_publication_of_a_dependent_fails_or_is_over() {
    check_publication("the publication of a dependent fails or is over", 1);
}

/// The failure of exactly the instance that a reader has found. (Preemption bound: 1.)
#[test]
fn exactly_the_instance_that_was_read_fails() {
    model("exactly the instance that was read fails", Some(1), || {
        let (registry, [_, y], running, reload) = chain();
        let switch = spawn(move || reload.commit());
        let reporter = spawn({
            let registry = registry.clone();
            move || {
                let found = registry.get_arc(y).expect("R2: ready");
                (found.version, registry.fail_instance(&found, "broken").expect("of this registry"))
            }
        });
        let (committed, (found, outcome)) = (join(switch), join(reporter));
        match outcome {
            FailOutcome::Failed(_) => {
                assert_eq!(found == 1, committed, "another instance has failed");
                assert!(registry.get(y).is_err());
            }
            FailOutcome::Replaced => {
                assert!(found == 0 && committed, "it is current, and was reported as replaced");
                assert_eq!(version(&registry, y), 1);
            }
            FailOutcome::AlreadyFailed => panic!("nothing else fails it"),
        }
        drop(running);
    });
}

/// A dependency of a member, which is no member, is replaced. It does not matter if the old
/// instance had used it: a replacement does not rebuild what was built from it. (Preemption
/// bound: 2.)
fn check_dependency(name: &str, was_used: bool) {
    model(name, Some(2), move || {
        let (registry, [z, x], [of_z, of_x]) = services(&[]);
        let z_up = of_z.start(&[]);
        let used = if was_used { vec![z] } else { Vec::new() };
        let x_up = of_x.start(&used);
        let mut reload = Reload::new(&registry);
        prepare(&mut reload, &x_up, x, &[z]);
        let is_replaced = Arc::new(AtomicBool::new(false));
        let switch = spawn({
            let is_replaced = Arc::clone(&is_replaced);
            move || (is_replaced.load(Ordering::Acquire), reload.commit())
        });
        let replacer = spawn(move || {
            z_up.replace(Value::new(REPLACEMENT)).expect("nothing fails");
            is_replaced.store(true, Ordering::Release);
            z_up
        });
        let (was_replaced, committed) = join(switch);
        let z_up = join(replacer);
        match was_used {
            true => assert!(committed, "a replacement prevents a switch"),
            false => assert!(!(was_replaced && committed), "built from a replaced instance"),
        }
        assert_eq!(version(&registry, x), u64::from(committed), "R2, R3");
        assert_eq!(version(&registry, z), REPLACEMENT, "a replacement is lost");
        drop((z_up, x_up, of_z, of_x));
    });
}

#[test]
fn a_dependency_that_is_no_member_is_replaced() {
    check_dependency("a dependency that is no member is replaced", true);
}

#[test]
fn a_new_dependency_is_replaced() {
    check_dependency("a new dependency is replaced", false);
}
