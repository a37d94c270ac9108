//! A dependent of a member that is no member begins, waits, or is published during a switch.
//!
//! ```text
//! switch:  installs, fence, looks at the dependents: voids attempts | commits | wakes
//! attempt: begins, edge, fence, reads the value, waits if the switch is pending | publishes
//! ```
//!
//! What must not happen: a dependent that was built from an old instance is ready after the switch
//! (I2); an attempt that is void, or that waits for a switch, keeps sleeping (W).
#![cfg(loom)]

use loom::thread::spawn;
use mainstay::{
    Reason, Registry, Running,
    error::{ReadyError, WaitForError},
    models::Reload,
};
use mainstay_loom_tests::{
    Id, TestProvider, Value, assert_rests_on_current, join, model, now_or_never, prepare, services,
    version,
};

/// 0 is up, and is switched; 1 is down.
fn one_member(
    edges: &[(usize, usize)],
) -> (Registry, [Id; 2], [TestProvider; 2], Running<Value>, Reload) {
    let (registry, [x, y], [of_x, of_y]) = services(edges);
    let x_up = of_x.start(&[]);
    let mut reload = Reload::new(&registry);
    prepare(&mut reload, &x_up, x, &[]);
    (registry, [x, y], [of_x, of_y], x_up, reload)
}

/// A dependent that never waits. (Preemption bound: 3.)
fn check_begins(name: &str, edges: &'static [(usize, usize)], known: bool) {
    model(name, Some(3), move || {
        let (registry, [x, y], [of_x, of_y], x_up, reload) = one_member(edges);
        if known {
            let up = of_y.start(&[x]);
            registry.fail(y, "edited").expect("of this registry");
            drop(up);
        }
        let switch = spawn(move || reload.commit());
        let builder = spawn(move || (of_y.try_build(&[x]), of_y));
        let committed = join(switch);
        let up = join(builder);
        assert!(committed || up.0.is_some(), "nothing else prevents the switch");
        assert_rests_on_current(&registry, &[x, y]);
        assert_eq!(version(&registry, x), u64::from(committed));
        drop((up, x_up, of_x));
    });
}

#[test]
fn a_discovered_dependent_begins() {
    check_begins("a discovered dependent begins", &[], false);
}

#[test]
fn a_declared_dependent_begins() {
    check_begins("a declared dependent begins", &[(1, 0)], false);
}

#[test]
fn a_dependent_that_is_known_begins() {
    check_begins("a dependent that is known begins", &[], true);
}

/// The dependent waits for a switch that is pending (W). The old instance is held, because its drop
/// would wake the dependent. (Preemption bound: 2.)
#[test]
fn a_dependent_waits_for_the_switch() {
    model("a dependent waits for the switch", Some(2), || {
        let (registry, [x, y], [of_x, of_y], x_up, reload) = one_member(&[]);
        let held = registry.get_arc(x).expect("ready");
        let switch = spawn(move || reload.commit());
        let builder = spawn(move || (of_y.build(&[x]), of_y));
        let committed = join(switch);
        let up = join(builder);
        assert!(committed || up.0.is_some(), "nothing else prevents the switch");
        assert_rests_on_current(&registry, &[x, y]);
        drop((up, x_up, of_x, held));
    });
}

/// As before, but a replacement may abort the switch that the dependent waits for. The new instance
/// is held, too. (Preemption bound: 1.)
#[test]
fn a_dependent_waits_for_a_switch_that_is_aborted() {
    model("a dependent waits for a switch that is aborted", Some(1), || {
        let (registry, [x, y], [of_x, of_y], x_up, reload) = one_member(&[]);
        let held = (registry.get_arc(x).expect("ready"), reload.instance(x).expect("prepared"));
        let switch = spawn(move || reload.commit());
        let replacer = spawn(move || {
            x_up.replace(Value::new(7)).expect("nothing fails");
            x_up
        });
        let builder = spawn(move || (of_y.build(&[x]), of_y));
        join(switch);
        let x_up = join(replacer);
        let up = join(builder);
        assert_eq!(version(&registry, x), 7, "a replacement is lost");
        assert_eq!(registry.get(y).is_ok(), up.0.is_some());
        drop((up, x_up, of_x, held));
    });
}

/// An attempt has received the old instance, and is published or void. (Preemption bound: 3.)
#[test]
fn an_attempt_with_an_old_instance_is_void_or_prevents_the_switch() {
    let name = "an attempt with an old instance is void or prevents the switch";
    model(name, Some(3), || {
        let (registry, [x, y], providers, x_up, reload) = one_member(&[]);
        let attempt = providers[1].attempt();
        let old = now_or_never(attempt.wait_for(x)).expect("ready").expect("ready");
        let switch = spawn(move || reload.commit());
        let publisher = spawn(move || attempt.ready(Value::new(0)).map_err(Box::new));
        let committed = join(switch);
        let published = join(publisher);
        assert_ne!(committed, published.is_ok(), "I2: exactly one of the two");
        if let Err(error) = &published {
            let ReadyError::Invalidated { failure, .. } = &**error else { panic!("{error}") };
            assert!(matches!(failure.reason, Reason::Reloaded { .. }), "{failure:?}");
        }
        assert_rests_on_current(&registry, &[x, y]);
        if committed {
            assert!(providers[1].try_build(&[x]).is_some(), "A3: y stays condemned");
        }
        drop((old, published, x_up));
    });
}

/// The dependent is built again as soon as it is down, and the publication of the void attempt may
/// still be in progress. (Preemption bound: 2.)
#[test]
fn a_void_attempt_publishes_nothing_in_place_of_the_next_one() {
    let name = "a void attempt publishes nothing in place of the next one";
    model(name, Some(2), || {
        let (registry, [x, y], [of_x, of_y], x_up, reload) = one_member(&[]);
        let attempt = of_y.attempt();
        let old = now_or_never(attempt.wait_for(x)).expect("ready").expect("ready");
        let switch = spawn(move || {
            let committed = reload.commit();
            let again = if committed { of_y.try_build(&[x]) } else { None };
            (committed, again, of_y)
        });
        let publisher = spawn(move || attempt.ready(Value::new(0)).map_err(Box::new));
        let (committed, again, of_y) = join(switch);
        let published = join(publisher);
        assert_ne!(committed, published.is_ok(), "I2: exactly one of the two");
        assert_eq!(again.is_some(), committed, "A1: the next attempt is refused");
        assert!(registry.get(y).is_ok(), "A1: the instance of the next one is gone");
        assert_rests_on_current(&registry, &[x, y]);
        drop((old, published, again, x_up, of_x, of_y));
    });
}

/// The dependent has failed before, with another service. (Preemption bound: 2.)
#[test]
fn the_failure_of_a_void_attempt_is_its_own() {
    model("the failure of a void attempt is its own", Some(2), || {
        let (registry, [x, _, z], [of_x, of_y, of_z]) = services(&[]);
        let (x_up, z_up) = (of_x.start(&[]), of_z.start(&[]));
        let y_up = of_y.start(&[z]);
        registry.fail(z, "edited").expect("of this registry");
        drop(y_up);
        let mut reload = Reload::new(&registry);
        prepare(&mut reload, &x_up, x, &[]);
        let attempt = of_y.attempt();
        let old = now_or_never(attempt.wait_for(x)).expect("ready").expect("ready");
        let switch = spawn(move || reload.commit());
        let publisher = spawn(move || attempt.ready(Value::new(0)).map_err(Box::new));
        let committed = join(switch);
        let published = join(publisher);
        assert_ne!(committed, published.is_ok(), "I2: exactly one of the two");
        if let Err(error) = &published {
            let ReadyError::Invalidated { failure, .. } = &**error else { panic!("{error}") };
            assert_eq!(failure.root, "1", "F: {failure:?}");
            assert!(matches!(failure.reason, Reason::Reloaded { .. }), "F: {failure:?}");
        }
        drop((old, published, x_up, z_up, of_x, of_y, of_z));
    });
}

/// An attempt has received the old instance, and a cascade fails the dependent at the same time.
/// (Preemption bound: 1.)
#[test]
fn a_void_attempt_fails_at_the_same_time() {
    model("a void attempt fails at the same time", Some(1), || {
        let (registry, [x, y], providers, x_up, reload) = one_member(&[]);
        let attempt = providers[1].attempt();
        let old = now_or_never(attempt.wait_for(x)).expect("ready").expect("ready");
        let switch = spawn(move || reload.commit());
        let failer = spawn({
            let registry = registry.clone();
            move || {
                registry.fail(y, "edited").expect("of this registry");
                assert!(registry.get(y).is_err(), "A2: readable after its failure");
            }
        });
        let publisher = spawn(move || attempt.ready(Value::new(0)).map_err(Box::new));
        let committed = join(switch);
        join(failer);
        let published = join(publisher);
        assert!(!committed || registry.get(y).is_err(), "I2: it rests on an old instance");
        assert_eq!(version(&registry, x), u64::from(committed));
        assert!(providers[1].try_build(&[x]).is_some(), "A3: y stays condemned");
        drop((old, published, x_up));
    });
}

/// The attempt waits for another service (W). (Preemption bound: 3.)
#[test]
fn a_void_attempt_is_woken() {
    model("a void attempt is woken", Some(3), || {
        let (registry, [x, _, z], [of_x, of_y, of_z]) = services(&[]);
        let x_up = of_x.start(&[]);
        let mut reload = Reload::new(&registry);
        prepare(&mut reload, &x_up, x, &[]);
        let attempt = of_y.attempt();
        let old = now_or_never(attempt.wait_for(x)).expect("ready").expect("ready");
        let switch = spawn(move || assert!(reload.commit()));
        let waiter = spawn(move || match attempt.wait_for(z).wait_blocking() {
            Err(WaitForError::Invalidated(failure)) => {
                assert!(matches!(failure.reason, Reason::Reloaded { .. }), "{failure:?}");
            }
            other => panic!("{other:?}"),
        });
        join(switch);
        join(waiter);
        drop((old, x_up, of_x, of_z, of_y));
    });
}

/// The second reload finds what the first has voided, or is about to. (Preemption bound: 2.)
#[test]
fn two_switches_void_one_attempt() {
    model("two switches void one attempt", Some(2), || {
        let (registry, ids, [of_x, of_y, of_z]) = services::<3>(&[]);
        let [x, _, z] = ids;
        let (x_up, z_up) = (of_x.start(&[]), of_z.start(&[]));
        let reloads = [(&x_up, x), (&z_up, z)].map(|(up, id)| {
            let mut reload = Reload::new(&registry);
            prepare(&mut reload, up, id, &[]);
            reload
        });
        let attempt = of_y.attempt();
        for id in [x, z] {
            now_or_never(attempt.wait_for(id)).expect("ready").expect("ready");
        }
        let [one, two] = reloads.map(|reload| spawn(move || assert!(reload.commit())));
        join(one);
        join(two);
        let refused = attempt.ready(Value::new(0));
        assert!(matches!(refused, Err(ReadyError::Invalidated { .. })), "I2: void");
        assert!(of_y.try_build(&[x, z]).is_some(), "A3: y stays condemned");
        assert_rests_on_current(&registry, &[x, z]);
        drop((x_up, z_up, of_x, of_z));
    });
}
