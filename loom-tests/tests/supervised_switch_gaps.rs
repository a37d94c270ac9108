//! Services with a gap are taken down at a switch (S22), and adopters are passed (S23).
//!
//! ```text
//! switch:  installs, fence, checks | takes those with a gap down | commits | wakes
//! attempt: begins, edge, fence, reads the value, waits if the switch is pending | publishes
//! ```
//!
//! What must not happen: a reader that has found a new instance finds an instance of a service with
//! a gap that was built before it; such a service is ready after the switch and was built from an
//! old instance (I2).
#![cfg(loom)]

use loom::thread::spawn;
use mainstay::{Registry, Running, models::Reload};
use mainstay_loom_tests::{
    Id, TestProvider, Value, assert_rests_on_current, join, model, prepare, services, version,
};

/// 0 is a member, and 1 was built from it.
fn a_gap() -> (Registry, [Id; 2], [TestProvider; 2], [Running<Value>; 2], Reload) {
    let (registry, [x, y], [of_x, of_y]) = services(&[]);
    let (x_up, y_up) = (of_x.start(&[]), of_y.start(&[x]));
    let mut reload = Reload::new(&registry);
    prepare(&mut reload, &x_up, x, &[]);
    (registry, [x, y], [of_x, of_y], [x_up, y_up], reload)
}

/// Preemption bound: 3.
#[test]
fn a_reader_of_a_new_instance_finds_no_older_one() {
    model("a reader of a new instance finds no older one", Some(3), || {
        let (registry, [x, y], providers, ups, mut reload) = a_gap();
        reload.restart(y);
        let switch = spawn(move || reload.commit());
        let reader = spawn({
            let registry = registry.clone();
            move || {
                let found = version(&registry, x);
                assert!(found == 0 || registry.get(y).is_err(), "S22: an old instance");
            }
        });
        assert!(join(switch), "nothing else prevents the switch");
        join(reader);
        assert!(registry.get(y).is_err());
        drop((ups, providers));
    });
}

/// Preemption bound: 2.
#[test]
fn it_begins_again_during_the_switch() {
    model("a service with a gap begins again during the switch", Some(2), || {
        let (registry, [x, y], [of_x, of_y], [x_up, y_up], mut reload) = a_gap();
        reload.restart(y);
        let switch = spawn(move || reload.commit());
        let builder = spawn(move || {
            let failed = loom::future::block_on(y_up.failed());
            assert!(failed.is_ok_and(|failure| failure.is_planned()));
            drop(y_up);
            (of_y.build(&[x]), of_y)
        });
        assert!(join(switch), "nothing else prevents the switch");
        let up = join(builder);
        assert!(up.0.is_some());
        assert_rests_on_current(&registry, &[x, y]);
        assert_eq!(version(&registry, x), 1);
        drop((up, x_up, of_x));
    });
}

/// A replacement may abort the switch before or after the take-down. (Preemption bound: 2.)
#[test]
fn a_switch_that_is_aborted_has_taken_it_down_or_not() {
    model("a switch that is aborted has taken it down or not", Some(2), || {
        let (registry, [x, y], providers, [x_up, y_up], mut reload) = a_gap();
        reload.restart(y);
        let switch = spawn(move || reload.commit());
        let replacer = spawn(move || {
            x_up.replace(Value::new(7)).expect("nothing fails");
            x_up
        });
        let committed = join(switch);
        let x_up = join(replacer);
        assert_eq!(version(&registry, x), 7, "a replacement is lost");
        assert!(!committed || registry.get(y).is_err(), "S22: an old instance");
        assert!(registry.get(y).is_ok() || providers[1].try_build(&[x]).is_some(), "A3");
        drop((x_up, y_up, providers));
    });
}

/// Preemption bound: 2.
#[test]
fn an_adopter_is_passed_in_its_generation_only() {
    model("an adopter is passed in its generation only", Some(2), || {
        let (registry, [x, y], [of_x, of_y], [x_up, y_up], mut reload) = a_gap();
        reload.pass(y, x);
        let switch = spawn(move || reload.commit());
        let builder = spawn({
            let registry = registry.clone();
            move || {
                registry.fail(y, "edited").expect("of this registry");
                drop(y_up);
                (of_y.try_build(&[x]), of_y)
            }
        });
        let committed = join(switch);
        let up = join(builder);
        if committed && up.0.is_some() && registry.get(y).is_ok() {
            assert_rests_on_current(&registry, &[x, y]);
        }
        drop((up, x_up, of_x));
    });
}

/// The new instance was built from a service with a gap, and the old one was not. (Preemption
/// bound: 2.)
#[test]
fn a_member_that_was_built_from_a_service_with_a_gap_prevents_the_switch() {
    let name = "a member that was built from a service with a gap prevents the switch";
    model(name, Some(2), || {
        let (registry, [z, x], [of_z, of_x]) = services(&[]);
        let (z_up, x_up) = (of_z.start(&[]), of_x.start(&[]));
        let mut reload = Reload::new(&registry);
        prepare(&mut reload, &x_up, x, &[z]);
        reload.restart(z);
        let switch = spawn(move || assert!(!reload.commit(), "I2: built from what goes down"));
        let reader = spawn({
            let registry = registry.clone();
            move || assert_eq!([z, x].map(|id| version(&registry, id)), [0; 2], "R2, R3")
        });
        join(switch);
        join(reader);
        assert_rests_on_current(&registry, &[z, x]);
        drop((z_up, x_up, of_z, of_x));
    });
}

/// `y` adopts `x`, and another switch makes it depend on `w`. (Preemption bound: 2.)
#[test]
fn an_adopter_is_passed_over_the_edges_that_it_adopts_only() {
    model("an adopter is passed over the edges that it adopts only", Some(2), || {
        let (registry, [w, x, y], [of_w, of_x, of_y]) = services(&[]);
        let (w_up, x_up, y_up) = (of_w.start(&[]), of_x.start(&[]), of_y.start(&[x]));
        let mut reload = Reload::new(&registry);
        reload.pass(y, x);
        prepare(&mut reload, &w_up, w, &[]);
        prepare(&mut reload, &x_up, x, &[]);
        let mut other = Reload::new(&registry);
        prepare(&mut other, &y_up, y, &[w, x]);
        let switches = [reload, other].map(|reload| spawn(move || reload.commit()));
        let [first, second] = switches.map(join);
        assert!(first != second, "the later one finds what the other one has changed");
        if second {
            assert_rests_on_current(&registry, &[w, x, y]);
        }
        drop((w_up, x_up, y_up, of_w, of_x, of_y));
    });
}

/// `z` was down when the services of the reload were found, so it has no gap. It goes down with
/// `y`, so no new instance of `w` is built from it. (Preemption bound: 2.)
#[test]
fn no_new_instance_needs_what_goes_down() {
    model("no new instance needs what goes down", Some(2), || {
        let (registry, [w, x, y, z], [of_w, of_x, of_y, of_z]) = services(&[]);
        let (x_up, w_up) = (of_x.start(&[]), of_w.start(&[x]));
        let (y_up, z_up) = (of_y.start(&[x]), of_z.start(&[y]));
        let mut reload = Reload::new(&registry);
        reload.restart(y);
        prepare(&mut reload, &x_up, x, &[]);
        prepare(&mut reload, &w_up, w, &[x, z]);
        let switch = spawn(move || reload.commit());
        assert!(!join(switch), "the new instance would be built from a failed one");
        assert_rests_on_current(&registry, &[x, y, z, w]);
        assert!(registry.get(z).is_ok(), "nothing was taken down");
        drop((w_up, x_up, y_up, z_up, of_w, of_x, of_y, of_z));
    });
}

/// Another switch makes `w` depend on `y`, before its next instance is prepared, which does not.
/// (Preemption bound: 2.)
#[test]
fn a_member_that_would_go_down_is_not_switched() {
    model("a member that would go down is not switched", Some(2), || {
        let (registry, [w, x, y], [of_w, of_x, of_y]) = services(&[]);
        let (x_up, w_up, y_up) = (of_x.start(&[]), of_w.start(&[x]), of_y.start(&[x]));
        let mut other = Reload::new(&registry);
        prepare(&mut other, &w_up, w, &[x, y]);
        let other = spawn(move || other.commit());
        assert!(join(other), "nothing prevents it");
        let mut reload = Reload::new(&registry);
        reload.restart(y);
        prepare(&mut reload, &x_up, x, &[]);
        prepare(&mut reload, &w_up, w, &[x]);
        let switch = spawn(move || reload.commit());
        assert!(!join(switch), "it is down then");
        assert!(registry.get(w).is_ok() && registry.get(y).is_ok(), "nothing was taken down");
        drop((w_up, x_up, y_up, of_w, of_x, of_y));
    });
}
