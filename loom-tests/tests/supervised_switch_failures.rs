//! A failure of a member, or of what it depends on, during a switch.
//!
//! ```text
//! switch: installs, fence, looks at the members and the dependencies | commits
//! failer: condemns, fence, looks at the dependents | takes down | the providers build again
//! ```
//!
//! What must not happen: an instance that was never current is found (S2); a dependent outlives
//! what it depends on (I1, I2), which may be an instance that was built from an old one.
#![cfg(loom)]

use loom::thread::spawn;
use mainstay::{Registry, models::Reload};
use mainstay_loom_tests::{
    Id, Up, assert_rests_on_current, chain, join, model, prepare, read_state, services, version,
};

/// Reads the dependency and then the dependent: I1.
fn check_i1(registry: &Registry, dependency: Id, dependent: Id) {
    let (seen, _) = read_state(registry, dependency);
    if let Ok(found) = registry.get(dependent) {
        for &(id, from) in &found.built_from {
            assert!(
                id != dependency || from >= seen,
                "I1: it was in {seen}, and built from {from}"
            );
        }
    }
}

/// A chain that is switched while `failed` fails, and is built again. (Preemption bound: 1.)
fn check_chain(name: &str, failed: usize, restarts: bool) {
    model(name, Some(1), move || {
        let (registry, [x, y], up, reload) = chain();
        let switch = spawn(move || reload.commit());
        let failer = spawn({
            let registry = registry.clone();
            move || {
                registry.fail([x, y][failed], "edited").expect("of this registry");
                let [(x_up, of_x), (y_up, of_y)] = up;
                let again = restarts.then(|| {
                    let x_again = (failed == 0).then(|| of_x.try_build(&[]));
                    (x_again, of_y.try_build(&[x]))
                });
                (x_up, y_up, of_x, of_y, again)
            }
        });
        let committed = join(switch);
        let up = join(failer);
        assert_rests_on_current(&registry, &[x, y]);
        if failed == 1 {
            assert_eq!(version(&registry, x), u64::from(committed), "R2");
        }
        drop(up);
    });
}

#[test]
fn the_root_fails() {
    check_chain("the root fails", 0, false);
}

#[test]
fn the_root_fails_and_comes_back() {
    check_chain("the root fails and comes back", 0, true);
}

#[test]
fn the_leaf_fails_and_comes_back() {
    check_chain("the leaf fails and comes back", 1, true);
}

/// As before, but the dependent is registered first, so its new instance is installed first. It
/// fails after that, and is built again from the old instance of its dependency, before the new one
/// of that is installed. (Preemption bound: 2.)
#[test]
fn a_leaf_that_is_installed_first_fails_and_comes_back() {
    model("a leaf that is installed first fails and comes back", Some(2), || {
        let (registry, [y, x], [of_y, of_x]) = services(&[]);
        let x_up = of_x.start(&[]);
        let y_up = of_y.start(&[x]);
        let mut reload = Reload::new(&registry);
        prepare(&mut reload, &x_up, x, &[]);
        prepare(&mut reload, &y_up, y, &[x]);
        let switch = spawn(move || reload.commit());
        let failer = spawn({
            let registry = registry.clone();
            move || {
                registry.fail(y, "edited").expect("of this registry");
                (of_y.try_build(&[x]), of_y)
            }
        });
        let committed = join(switch);
        let again = join(failer);
        assert_rests_on_current(&registry, &[y, x]);
        assert_eq!(version(&registry, x), u64::from(committed), "R2, R3");
        drop((x_up, y_up, of_x, again));
    });
}

/// An instance that was never current is found by no reader: the state is left before the commit.
/// (Preemption bound: 1.)
#[test]
fn a_failure_is_not_followed_by_a_new_instance_of_its_generation() {
    let name = "a failure is not followed by a new instance of its generation";
    model(name, Some(1), || {
        let (registry, [x], [of_x]) = services(&[]);
        let x_up = of_x.start(&[]);
        let mut reload = Reload::new(&registry);
        prepare(&mut reload, &x_up, x, &[]);
        let switch = spawn(move || reload.commit());
        let failer = spawn({
            let registry = registry.clone();
            move || {
                registry.fail(x, "edited").expect("of this registry");
                assert!(registry.get(x).is_err(), "A2: readable after its failure");
            }
        });
        let reader = spawn(move || registry.get(x).map_or(0, |x| x.version));
        let committed = join(switch);
        join(failer);
        let found = join(reader);
        assert!(committed || found == 0, "S2: an instance of an aborted switch was current");
        drop((x_up, of_x));
    });
}

/// `1 -> 0`, where 0 is no member: 1 had been built from it, or is now.
fn over_an_outside_dependency(was_used: bool) -> (Registry, [Id; 2], [Up; 2], Reload) {
    let (registry, [z, x], [of_z, of_x]) = services(&[]);
    let z_up = of_z.start(&[]);
    let used = if was_used { vec![z] } else { Vec::new() };
    let x_up = of_x.start(&used);
    let mut reload = Reload::new(&registry);
    prepare(&mut reload, &x_up, x, &[z]);
    (registry, [z, x], [(z_up, of_z), (x_up, of_x)], reload)
}

/// Preemption bound: 1.
fn check_outside(name: &str, was_used: bool) {
    model(name, Some(1), move || {
        let (registry, [z, x], up, reload) = over_an_outside_dependency(was_used);
        let switch = spawn(move || reload.commit());
        let failer = spawn({
            let registry = registry.clone();
            move || {
                registry.fail(z, "edited").expect("of this registry");
                let again = up[0].1.try_build(&[]);
                (up, again)
            }
        });
        let reader = spawn({
            let registry = registry.clone();
            move || check_i1(&registry, z, x)
        });
        let committed = join(switch);
        let up = join(failer);
        join(reader);
        assert_rests_on_current(&registry, &[z, x]);
        if !was_used {
            // An aborted switch costs x nothing: its old instance was not built from z.
            assert_eq!(committed, registry.get(x).is_err(), "I2 and R3");
        }
        drop(up);
    });
}

#[test]
fn an_outside_dependency_fails() {
    check_outside("an outside dependency fails", true);
}

#[test]
fn a_new_dependency_fails() {
    check_outside("a new dependency fails", false);
}

/// The old instance was built from it, and the new one is not. (Preemption bound: 2.)
#[test]
fn a_dependency_that_is_needed_no_more_fails() {
    model("a dependency that is needed no more fails", Some(2), || {
        let (registry, [z, x], [of_z, of_x]) = services(&[]);
        let z_up = of_z.start(&[]);
        let x_up = of_x.start(&[z]);
        let mut reload = Reload::new(&registry);
        prepare(&mut reload, &x_up, x, &[]);
        let switch = spawn(move || reload.commit());
        let failer = spawn({
            let registry = registry.clone();
            move || {
                registry.fail(z, "edited").expect("of this registry");
                let found = registry.get(x).map_or(1, |found| found.version);
                assert_eq!(found, 1, "I1: the old instance after the failure");
            }
        });
        let committed = join(switch);
        join(failer);
        assert!(committed || registry.get(x).is_err(), "I2: it outlives what it was built from");
        assert_rests_on_current(&registry, &[z, x]);
        drop((z_up, x_up, of_z, of_x));
    });
}
