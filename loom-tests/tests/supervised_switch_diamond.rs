//! A switch of a diamond, or of a part of it: R1 to R3, I1, I2.
//!
//! ```text
//!     0     switch of all four, or of 1 and 3 only
//!    / \
//!   1   2   reader: a side, the other side, the top
//!    \ /    failer: any of them
//!     3     another switch: of all four, of 2 and 3
//! ```
//!
//! What must not happen: a reader finds one side new, and then the other side old; the top
//! outlives an old instance of a side; two switches that share the top are both committed.
#![cfg(loom)]

use loom::thread::spawn;
use mainstay::{Registry, models::Reload};
use mainstay_loom_tests::{
    Id, Up, assert_rests_on_current, join, model, reload_diamond, up_diamond, version,
};

const ALL: &[usize] = &[0, 1, 2, 3];

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
    check_gets("a reader never goes back over a part", &[1, 3], [3, 1, 3]);
}

/// One of the diamond fails, and all are built again that can be. (Preemption bound: 1.)
fn check_fails(name: &str, members: &'static [usize], failed: usize) {
    model(name, Some(1), move || {
        let (registry, ids, up, reload) = diamond(members);
        let switch = spawn(move || reload.commit());
        let failer = spawn({
            let registry = registry.clone();
            move || {
                registry.fail(ids[failed], "edited").expect("of this registry");
                for above in [failed, 3] {
                    assert!(registry.get(ids[above]).is_err(), "A2: readable after its failure");
                }
                let again = (failed != 3).then(|| up[failed].1.try_build(&[ids[0]]));
                let top = up[3].1.try_build(&[ids[1], ids[2]]);
                (up, again, top)
            }
        });
        let committed = join(switch);
        let up = join(failer);
        assert_rests_on_current(&registry, &ids);
        // Each is built again, or is new if the switch was committed, or is down.
        for (at, &id) in ids.iter().enumerate() {
            if let Ok(found) = registry.get(id) {
                let is_new = found.version == 1;
                assert!(!is_new || committed && members.contains(&at), "S2: {at} is new");
            }
        }
        drop(up);
    });
}

#[test]
fn a_side_fails_and_comes_back() {
    check_fails("a side fails and comes back", ALL, 1);
}

#[test]
fn the_top_fails_and_comes_back() {
    check_fails("the top fails and comes back", ALL, 3);
}

#[test]
fn the_side_that_is_no_member_fails_and_comes_back() {
    check_fails("the side that is no member fails and comes back", &[1, 3], 2);
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
    check_two("one of two reloads of both sides is committed", &[1, 3], &[2, 3]);
}

#[test]
fn one_of_a_reload_of_all_and_one_of_a_part_is_committed() {
    check_two("one of a reload of all and one of a part is committed", ALL, &[1, 3]);
}
