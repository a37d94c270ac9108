//! Two switches at the same time, and what becomes of the old and the refused instances.
//!
//! What must not happen: both switches of one member are committed; disjoint ones prevent each
//! other; an instance is not counted, or is counted for ever; its value is handed over twice.
#![cfg(loom)]

use loom::thread::spawn;
use mainstay::{
    Registry,
    models::{Receiver, Reload},
};
use mainstay_loom_tests::{
    Value, assert_rests_on_current, chain, join, model, now_or_never, prepare, reload_chain,
    services, version,
};

/// Preemption bound: 1.
fn check_two(name: &str, nested: bool) {
    model(name, Some(1), move || {
        let (registry, ids, up, one) = chain();
        let two = if nested {
            let mut two = Reload::new(&registry);
            prepare(&mut two, &up[1].0, ids[1], &[ids[0]]);
            two
        } else {
            reload_chain(&registry, ids, &up)
        };
        let [one, two] = [one, two].map(|reload| spawn(move || reload.commit()));
        let (one, two) = (join(one), join(two));
        assert_ne!(one, two, "exactly one of two over the same member");
        assert_rests_on_current(&registry, &ids);
        assert_eq!(version(&registry, ids[1]), 1);
        drop(up);
    });
}

#[test]
fn one_of_two_reloads_is_committed() {
    check_two("one of two reloads is committed", false);
}

#[test]
fn one_of_two_nested_reloads_is_committed() {
    check_two("one of two nested reloads is committed", true);
}

/// Two switches of one chain, and a reader of both members. (Preemption bound: 1.)
#[test]
fn a_reader_never_goes_back_during_two_reloads() {
    model("a reader never goes back during two reloads", Some(1), || {
        let (registry, [x, y], up, one) = chain();
        let mut two = Reload::new(&registry);
        prepare(&mut two, &up[1].0, y, &[x]);
        let [one, two] = [one, two].map(|reload| spawn(move || reload.commit()));
        let reader = spawn({
            let registry = registry.clone();
            move || [y, x, y].map(|id| version(&registry, id))
        });
        let (one, two) = (join(one), join(two));
        let found = join(reader);
        assert_ne!(one, two, "exactly one of two over the same member");
        assert!(found[0] <= found[2], "R1: new, then old: {found:?}");
        match one {
            true => assert!(found.is_sorted(), "R1: new, then old: {found:?}"),
            false => assert_eq!(found[1], 0, "R3: of an aborted switch"),
        }
        drop(up);
    });
}

/// One of the two uses the member of the other for the first time, or it does not. (Preemption
/// bound: 1.)
fn check_disjoint(name: &str, uses: bool) {
    model(name, Some(1), move || {
        let (registry, [z, x], [of_z, of_x]) = services(&[]);
        let (z_up, x_up) = (of_z.start(&[]), of_x.start(&[]));
        let [mut one, mut two] = [Reload::new(&registry), Reload::new(&registry)];
        prepare(&mut one, &z_up, z, &[]);
        let dependencies = if uses { vec![z] } else { Vec::new() };
        prepare(&mut two, &x_up, x, &dependencies);
        let [one, two] = [one, two].map(|reload| spawn(move || reload.commit()));
        let (one, two) = (join(one), join(two));
        match uses {
            true => assert_ne!(one, two, "one of the two finds what the other has done"),
            false => assert!(one && two, "disjoint switches prevent each other"),
        }
        assert_rests_on_current(&registry, &[z, x]);
        drop((z_up, x_up, of_z, of_x));
    });
}

#[test]
fn disjoint_reloads_are_both_committed() {
    check_disjoint("disjoint reloads are both committed", false);
}

#[test]
fn a_new_dependency_is_reloaded() {
    check_disjoint("a new dependency is reloaded", true);
}

/// Only one of the two uses another service, for the first time. (Preemption bound: 2.)
#[test]
fn an_aborted_reload_keeps_the_edges_of_the_other_one() {
    model("an aborted reload keeps the edges of the other one", Some(2), || {
        let (registry, [z, x], [of_z, of_x]) = services(&[]);
        let (z_up, x_up) = (of_z.start(&[]), of_x.start(&[]));
        let [mut one, mut two] = [Reload::new(&registry), Reload::new(&registry)];
        prepare(&mut one, &x_up, x, &[z]);
        prepare(&mut two, &x_up, x, &[]);
        let [one, two] = [one, two].map(|reload| spawn(move || reload.commit()));
        let (one, two) = (join(one), join(two));
        assert_ne!(one, two, "exactly one of two over the same member");
        registry.fail(z, "edited").expect("of this registry");
        assert_eq!(
            registry.get(x).is_ok(),
            two,
            "I2: it rests on a failed instance, or fails without"
        );
        drop((z_up, x_up, of_z, of_x));
    });
}

/// `drained` waits for the old and the new instance, and ends (W). (Preemption bound: 1.)
#[test]
fn drained_ends_after_a_switch_and_a_failure() {
    model("drained ends after a switch and a failure", Some(1), || {
        let (registry, [x, _], [(x_up, of_x), y_up], reload) = chain();
        let switch = spawn(move || reload.commit());
        let failer = spawn(move || {
            registry.fail(x, "edited").expect("of this registry");
            registry
        });
        let waiter = spawn(move || {
            x_up.drained().wait_blocking().expect("it has no timeout");
            x_up
        });
        join(switch);
        let registry = join(failer);
        drop((join(waiter), registry, of_x, y_up));
    });
}

/// Preemption bound: 3.
#[test]
fn the_old_value_is_handed_over_or_the_new_one_is_dropped() {
    let name = "the old value is handed over or the new one is dropped";
    model(name, Some(3), || {
        let registry = Registry::with_capacity(1).expect("small");
        let id = registry.register::<Value>("x").expect("capacity");
        let provider = registry.provide(id).expect("no provider yet");
        let receiver = Receiver::new(&registry, id);
        let attempt = now_or_never(provider.begin()).expect("down").expect("not closed");
        let running = receiver.publish(attempt, Value::new(0)).expect("nothing fails");
        let mut reload = Reload::new(&registry);
        prepare(&mut reload, &running, id, &[]);
        let switch = spawn(move || reload.commit());
        let failer = spawn(move || {
            registry.fail(id, "edited").expect("of this registry");
            registry
        });
        let committed = join(switch);
        let registry = join(failer);
        drop((running, provider));
        let mut handed_over = Vec::new();
        while let Some((number, value)) = receiver.next_now() {
            handed_over.push((number.1, value.version));
        }
        handed_over.sort_unstable();
        let expected = if committed { vec![(0, 0), (1, 1)] } else { vec![(0, 0)] };
        assert_eq!(handed_over, expected, "H: lost, doubled, or never current");
        assert_eq!(receiver.held(), 0, "H: claimed for ever");
        drop(registry);
    });
}
