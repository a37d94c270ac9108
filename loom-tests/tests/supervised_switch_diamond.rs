//! A switch of a diamond, or of a part of it: R1 to R3, I1, I2.
//!
//! ```text
//!     0     switch of all four, or of 1 and 3 only
//!    / \
//!   1   2   reader: three of them, one after the other, cached or at one instant
//!    \ /    another switch: of all four, or of 2 and 3
//!     3
//! ```
//!
//! What must not happen: a reader finds one side new, and then the other side old; the top
//! outlives an old instance of a side; two switches that share the top are both committed.
#![cfg(loom)]

use loom::thread::spawn;
use mainstay::{Guard, Registry, models::Reload};
use mainstay_loom_tests::{
    Found, Id, Stall, Up, assert_at_once, assert_rests_on_current, join, model, reload_diamond,
    up_diamond, version,
};

const ALL: &[usize] = &[0, 1, 2, 3];
const PART: &[usize] = &[1, 3];

/// A diamond, and a reload of these services that is prepared.
fn diamond(members: &[usize]) -> (Registry, [Id; 4], [Up; 4], Reload) {
    let (registry, ids, up) = up_diamond();
    let reload = reload_diamond(&registry, ids, &up, members);
    (registry, ids, up, reload)
}

/// Preemption bound: 1.
fn check_gets(name: &str, members: &'static [usize], order: [usize; 3]) {
    model(name, Some(1), move || {
        let (registry, ids, up, reload) = diamond(members);
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
        let expected = [0, 1, 2, 3].map(|at| u64::from(members.contains(&at)));
        assert_eq!(ids.map(|id| version(&registry, id)), expected);
        assert_rests_on_current(&registry, &ids);
        drop(up);
    });
}

#[test]
fn a_reader_never_goes_back_from_a_side() {
    check_gets("a reader never goes back from a side", ALL, [1, 2, 3]);
}

#[test]
fn a_reader_never_goes_back_from_the_top() {
    check_gets("a reader never goes back from the top", ALL, [3, 2, 0]);
}

#[test]
fn a_reader_never_goes_back_over_a_part() {
    check_gets("a reader never goes back over a part", PART, [3, 1, 3]);
}

/// Cached readers of these members, and a plain read. (Preemption bound: 1.)
fn check_cached(name: &str, order: [usize; 2], plain: usize) {
    model(name, Some(1), move || {
        let (registry, ids, up, reload) = diamond(ALL);
        let mut cached = order.map(|at| registry.cached(ids[at]).expect("of this registry"));
        for cached in &mut cached {
            cached.get().expect("ready");
        }
        let switch = spawn(move || assert!(reload.commit()));
        let reader = spawn({
            let registry = registry.clone();
            move || {
                let [first, second] =
                    cached.each_mut().map(|cached| cached.get().expect("R2: ready").version);
                let third = version(&registry, ids[plain]);
                assert!(first <= second && second <= third, "R1: {first}, {second}, {third}");
                cached
            }
        });
        join(switch);
        for cached in &mut join(reader) {
            let found = cached.get().expect("R2: ready").version;
            assert_eq!(found, 1, "R1: a cached reader has kept an old instance");
        }
        drop(up);
    });
}

#[test]
fn cached_readers_never_go_back_from_side_to_side() {
    check_cached("cached readers never go back from side to side", [2, 1], 3);
}

#[test]
fn cached_readers_never_go_back_from_the_top() {
    check_cached("cached readers never go back from the top", [3, 1], 0);
}

#[test]
fn cached_readers_never_go_back_from_the_root() {
    check_cached("cached readers never go back from the root", [0, 3], 2);
}

/// The instances are installed; the rest of the switch, and a read of several members at one
/// instant. (Preemption bound: 1.)
fn check_get_all(name: &str, members: &'static [usize], order: [usize; 2]) {
    model(name, Some(1), move || {
        let (registry, ids, up, mut reload) = diamond(members);
        let stalled = Stall::after_last(&mut reload).begin(reload);
        let reader = spawn({
            let registry = registry.clone();
            move || {
                let [a, b] = order.map(|at| ids[at]);
                let (x, y) = registry.get_all((a, b)).expect("R2: ready");
                let found = [(a, x), (b, y)];
                let found = found.map(|(id, guard)| Found::of(id, Guard::instance(&guard)));
                let members: Vec<Id> = members.iter().map(|&at| ids[at]).collect();
                assert_at_once(found.into(), &members, true);
            }
        });
        assert!(stalled.end(), "nothing prevents the switch");
        join(reader);
        drop(up);
    });
}

#[test]
fn get_all_of_both_sides_finds_all_old_or_all_new() {
    check_get_all("get all of both sides", ALL, [1, 2]);
}

#[test]
fn get_all_of_the_top_and_the_root_finds_all_old_or_all_new() {
    check_get_all("get all of the top and the root", ALL, [3, 0]);
}

#[test]
fn get_all_over_a_part_finds_all_old_or_all_new() {
    check_get_all("get all over a part", PART, [1, 3]);
}

/// Both have the top as a member. (Preemption bound: 2.)
fn check_two(name: &str, one: &'static [usize], two: &'static [usize]) {
    model(name, Some(2), move || {
        let (registry, ids, up) = up_diamond();
        let [one, two] = [one, two]
            .map(|members| reload_diamond(&registry, ids, &up, members))
            .map(|reload| spawn(move || reload.commit()));
        let (one, two) = (join(one), join(two));
        assert_ne!(one, two, "exactly one of two over the same member");
        assert_rests_on_current(&registry, &ids);
        drop(up);
    });
}

#[test]
fn one_of_two_reloads_of_both_sides_is_committed() {
    check_two("one of two reloads of both sides is committed", PART, &[2, 3]);
}

#[test]
fn one_of_a_reload_of_all_and_one_of_a_part_is_committed() {
    check_two("one of a reload of all and one of a part is committed", ALL, PART);
}
