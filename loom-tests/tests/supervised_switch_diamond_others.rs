//! What races with a switch of a diamond, but failures and reads: a replacement, another provider,
//! a dependent that begins, a switch that is aborted.
//!
//! ```text
//!     0      switch: of all four, or without the top
//!    / \     replacer: replaces one of them
//!   1   2    builder: builds 4 from both sides, or has received their old instances
//!    \ /
//!     3
//! ```
//!
//! What must not happen: one of them keeps its replacement, and the others are switched without it;
//! 4 is ready after the switch on an old instance; an instance of an aborted switch is found.
#![cfg(loom)]

use loom::thread::spawn;
use mainstay::{Registry, models::Reload};
use mainstay_loom_tests::{
    DIAMOND, Id, TestProvider, Up, Value, assert_rests_on_current, join, model, now_or_never,
    prepare, reload_diamond, services, up_diamond, version,
};

const ALL: &[usize] = &[0, 1, 2, 3];

/// The version of a replacement.
const REPLACEMENT: u64 = 7;

/// Preemption bound: 1.
fn check_replaced(name: &str, replaced: usize, read: usize) {
    model(name, Some(1), move || {
        let (registry, ids, up) = up_diamond();
        let reload = reload_diamond(&registry, ids, &up, ALL);
        let switch = spawn(move || reload.commit());
        let replacer = spawn(move || {
            up[replaced].0.replace(Value::new(REPLACEMENT)).expect("nothing fails");
            up
        });
        let reader = spawn({
            let registry = registry.clone();
            move || [replaced, read].map(|at| version(&registry, ids[at]))
        });
        let committed = join(switch);
        let up = join(replacer);
        let [of_replaced, other] = join(reader);
        match committed {
            true => assert!(other >= of_replaced.min(1), "R1: {of_replaced}, then {other}"),
            false => assert!(of_replaced != 1 && other == 0, "R3: {of_replaced}, {other}"),
        }
        for (at, id) in ids.into_iter().enumerate() {
            let expected = if at == replaced { REPLACEMENT } else { u64::from(committed) };
            assert_eq!(version(&registry, id), expected);
        }
        drop(up);
    });
}

#[test]
fn the_root_is_replaced() {
    check_replaced("the root is replaced", 0, 3);
}

#[test]
fn a_side_is_replaced() {
    check_replaced("a side is replaced", 1, 2);
}

#[test]
fn the_top_is_replaced() {
    check_replaced("the top is replaced", 3, 0);
}

/// The diamond is up, and 4, which has a provider, is down.
fn with_another() -> (Registry, [Id; 5], Vec<Up>, TestProvider, Reload) {
    let (registry, ids, providers) = services::<5>(&[]);
    let mut providers = providers.into_iter();
    let mut reload = Reload::new(&registry);
    let mut up = Vec::new();
    let from = DIAMOND.map(|from| from.iter().map(|&at| ids[at]).collect::<Vec<_>>());
    for (from, provider) in from.iter().zip(&mut providers) {
        up.push((provider.start(from), provider));
    }
    for (at, from) in from.iter().enumerate() {
        prepare(&mut reload, &up[at].0, ids[at], from);
    }
    let another = providers.next().expect("five services");
    (registry, ids, up, another, reload)
}

/// Preemption bound: 1.
#[test]
fn a_dependent_of_both_sides_begins() {
    model("a dependent of both sides begins", Some(1), || {
        let (registry, ids, up, another, reload) = with_another();
        let switch = spawn(move || reload.commit());
        let builder = spawn(move || (another.try_build(&[ids[1], ids[2]]), another));
        let committed = join(switch);
        let built = join(builder);
        assert!(committed || built.0.is_some(), "nothing else prevents the switch");
        assert_rests_on_current(&registry, &ids);
        for &id in &ids[..4] {
            assert_eq!(version(&registry, id), u64::from(committed));
        }
        drop((built, up));
    });
}

/// Preemption bound: 2.
#[test]
fn an_attempt_with_old_instances_of_both_sides_is_void_or_prevents_the_switch() {
    let name = "an attempt with old instances of both sides is void or prevents the switch";
    model(name, Some(2), || {
        let (registry, ids, up, another, reload) = with_another();
        let attempt = another.attempt();
        let from = [1, 2].map(|side| now_or_never(attempt.wait_for(ids[side])));
        assert!(from.iter().all(|it| matches!(it, Some(Ok(_)))), "they are ready");
        let switch = spawn(move || reload.commit());
        let publisher = spawn(move || attempt.ready(Value::new(0)).ok());
        let committed = join(switch);
        let published = join(publisher);
        assert_eq!(committed, published.is_none(), "one of the two");
        assert_rests_on_current(&registry, &ids);
        assert_eq!(registry.get(ids[4]).is_ok(), published.is_some());
        drop((published, another, up, from));
    });
}

/// The diamond, and a reload without the top, which is ready: it is always aborted.
fn refused() -> (Registry, [Id; 4], [Up; 4], Reload) {
    let (registry, ids, up) = up_diamond();
    let reload = reload_diamond(&registry, ids, &up, &ALL[..3]);
    (registry, ids, up, reload)
}

/// Preemption bound: 2.
#[test]
fn a_reader_finds_nothing_of_an_aborted_switch() {
    model("a reader finds nothing of an aborted switch of a diamond", Some(2), || {
        let (registry, ids, up, reload) = refused();
        let switch = spawn(move || assert!(!reload.commit()));
        let reader = spawn({
            let registry = registry.clone();
            move || assert_eq!([2, 1, 0, 3].map(|at| version(&registry, ids[at])), [0; 4], "R3")
        });
        join(switch);
        join(reader);
        assert_eq!(ids.map(|id| version(&registry, id)), [0; 4], "R3");
        assert_rests_on_current(&registry, &ids);
        drop(up);
    });
}

/// Preemption bound: 1.
#[test]
fn get_all_and_a_cached_reader_find_nothing_of_an_aborted_switch() {
    model("get all and a cached reader find nothing of an aborted switch", Some(1), || {
        let (registry, ids, up, reload) = refused();
        let mut cached = registry.cached(ids[2]).expect("of this registry");
        let switch = spawn(move || assert!(!reload.commit()));
        let reader = spawn(move || {
            let (side, top) = registry.get_all((ids[1], ids[3])).expect("R2: ready");
            let other = cached.get().expect("R2: ready").version;
            assert_eq!([side.version, top.version, other], [0; 3], "R3");
        });
        join(switch);
        join(reader);
        drop(up);
    });
}

/// A switch that follows an aborted one is committed. (Preemption bound: 1.)
#[test]
fn the_switch_after_an_aborted_one_is_seen_whole() {
    model("the switch after an aborted one of a diamond is seen whole", Some(1), || {
        let (registry, ids, up, reload) = refused();
        let next = reload_diamond(&registry, ids, &up, ALL);
        let switch = spawn(move || {
            assert!(!reload.commit());
            assert!(next.commit());
        });
        let reader = spawn({
            let registry = registry.clone();
            move || {
                let found = [3, 1, 0].map(|at| version(&registry, ids[at]));
                assert!(found.is_sorted(), "R1: new, then old: {found:?}");
            }
        });
        join(switch);
        join(reader);
        assert_eq!(ids.map(|id| version(&registry, id)), [1; 4]);
        assert_rests_on_current(&registry, &ids);
        drop(up);
    });
}
