//! A switch that is aborted: a dependent of a member is ready, and is no member.
//!
//! ```text
//! switch: installs | finds the ready dependent: aborts, puts the old instances back
//! reader: loads the new instance, and finds the old one by its decision
//! ```
//!
//! What must not happen: a new instance of an aborted switch is found (R3); a member is not ready
//! (R2); a cached reader keeps what it should not; an attempt keeps waiting (W).
#![cfg(loom)]

use loom::thread::spawn;
use mainstay::{Registry, models::Reload};
use mainstay_loom_tests::{
    Id, TestProvider, Up, assert_rests_on_current, chain, join, model, prepare, reload_chain,
    services, up_chain, version,
};

/// `1 -> 0`, both up, and a reload of 0 alone, which is always aborted.
fn refused() -> (Registry, [Id; 2], [Up; 2], Reload) {
    let (registry, ids, up) = up_chain(&[]);
    let mut reload = Reload::new(&registry);
    prepare(&mut reload, &up[0].0, ids[0], &[]);
    (registry, ids, up, reload)
}

/// Preemption bound: 3.
#[test]
fn a_reader_finds_only_old_instances() {
    model("a reader finds only old instances", Some(3), || {
        let (registry, [x, y], up, reload) = refused();
        let switch = spawn(move || assert!(!reload.commit()));
        let reader = spawn({
            let registry = registry.clone();
            move || assert_eq!([x, y, x].map(|id| version(&registry, id)), [0; 3], "R3")
        });
        join(switch);
        join(reader);
        assert_eq!([x, y].map(|id| version(&registry, id)), [0; 2], "R3");
        drop(up);
    });
}

/// Preemption bound: 1.
#[test]
fn get_all_finds_only_old_instances() {
    model("get all finds only old instances", Some(1), || {
        let (registry, [x, y], up, reload) = refused();
        let switch = spawn(move || assert!(!reload.commit()));
        let reader = spawn(move || {
            let (y, x) = registry.get_all((y, x)).expect("R2: ready");
            assert_eq!((y.version, x.version), (0, 0), "R3");
        });
        join(switch);
        join(reader);
        drop(up);
    });
}

/// The next switch is committed. The cached reader may have looked during the first one.
/// (Preemption bound: 1.)
#[test]
fn a_cached_reader_finds_the_switch_that_follows_an_aborted_one() {
    model("a cached reader finds the switch that follows an aborted one", Some(1), || {
        let (registry, ids, up, reload) = refused();
        let next = reload_chain(&registry, ids, &up);
        let mut cached = registry.cached(ids[0]).expect("of this registry");
        cached.get().expect("ready");
        let switch = spawn(move || {
            assert!(!reload.commit());
            assert!(next.commit());
        });
        let reader = spawn(move || {
            let found = [(); 2].map(|()| cached.get().expect("R2: ready").version);
            assert!(found.is_sorted(), "R1: new, then old: {found:?}");
            cached
        });
        join(switch);
        let mut cached = join(reader);
        let found = cached.get().expect("R2: ready").version;
        assert_eq!(found, 1, "R1: a cached reader has kept an old instance");
        drop(up);
    });
}

/// A third service begins to depend on the member at the same time (W). The new instance is held,
/// because its drop would wake the attempt. (Preemption bound: 2.)
#[test]
fn an_attempt_continues_with_the_old_instance() {
    model("an attempt continues with the old instance", Some(2), || {
        let (registry, [x, y, z], [of_x, of_y, of_z]): (_, [Id; 3], [TestProvider; 3]) =
            services(&[]);
        let (x_up, y_up) = (of_x.start(&[]), of_y.start(&[x]));
        let mut reload = Reload::new(&registry);
        prepare(&mut reload, &x_up, x, &[]);
        let held = reload.instance(x).expect("prepared");
        let switch = spawn(move || assert!(!reload.commit()));
        let builder = spawn(move || (of_z.build(&[x]), of_z));
        join(switch);
        let built = join(builder);
        // The switch may void the attempt before it finds `y`.
        assert_eq!(registry.get(z).is_ok(), built.0.is_some());
        assert_rests_on_current(&registry, &[x, y, z]);
        drop((built, x_up, y_up, of_x, of_y, held));
    });
}

/// A cascade of the dependent that prevents the switch. (Preemption bound: 2.)
#[test]
fn the_dependent_that_prevents_a_switch_fails() {
    model("the dependent that prevents a switch fails", Some(2), || {
        let (registry, [x, y], up, reload) = refused();
        let switch = spawn(move || reload.commit());
        let failer = spawn({
            let registry = registry.clone();
            move || {
                registry.fail(y, "edited").expect("of this registry");
                let again = up[1].1.try_build(&[x]);
                (up, again)
            }
        });
        let committed = join(switch);
        let up = join(failer);
        assert_eq!(version(&registry, x), u64::from(committed), "R2, R3");
        assert_rests_on_current(&registry, &[x, y]);
        drop(up);
    });
}

/// The new instance of the dependent was built from the old one of the dependency. (Preemption
/// bound: 2.)
#[test]
fn a_member_that_was_built_from_an_old_instance_prevents_the_switch() {
    let name = "a member that was built from an old instance prevents the switch";
    model(name, Some(2), || {
        let (registry, [x, y], up) = up_chain(&[]);
        let mut reload = Reload::new(&registry);
        prepare(&mut reload, &up[1].0, y, &[x]);
        prepare(&mut reload, &up[0].0, x, &[]);
        let switch = spawn(move || assert!(!reload.commit(), "I2: built from an old instance"));
        let reader = spawn({
            let registry = registry.clone();
            move || assert_eq!([y, x].map(|id| version(&registry, id)), [0; 2], "R3")
        });
        join(switch);
        join(reader);
        assert_rests_on_current(&registry, &[x, y]);
        drop(up);
    });
}

/// The reload is abandoned before it is switched: nothing of it remains.
#[test]
fn a_reload_that_is_dropped_leaves_nothing() {
    model("a reload that is dropped leaves nothing", Some(3), || {
        let (registry, [x, y], up, reload) = chain();
        let dropped = spawn(move || drop(reload));
        let next = spawn({
            let next = reload_chain(&registry, [x, y], &up);
            move || assert!(next.commit(), "nothing else prevents the switch")
        });
        join(dropped);
        join(next);
        assert_eq!([x, y].map(|id| version(&registry, id)), [1; 2]);
        drop(up);
    });
}
