//! A switch of a diamond, or of a part of it, while one of its services fails, or a dependency of
//! one that is no member: R1 to R3, I1, I2.
//!
//! ```text
//!     0      switch: of all four, or of 1 and 3 only
//!    / \     failer: fails one of them, or 4, and perhaps builds again what has failed
//!   1   2    reader: on the thread of the failer, or of the switch, or on another one; reads some
//!    \ /             of them, one after the other or at one instant
//!     3      4 is no member. 0 or 1 was built from it, or only its new instance is
//! ```
//!
//! What must not happen: a reader finds a member new, and then one old; one that does not fail is
//! not ready; `get_all` returns some old and some new ones; a reader finds a dependency failed or
//! new, and then an instance that was built from the earlier one.
#![cfg(loom)]

use loom::thread::spawn;
use mainstay::{Guard, Registry, models::Reload};
use mainstay_loom_tests::{
    DIAMOND, Found, Id, Stall, Up, assert_at_once, assert_reads, assert_rests_on_current, join,
    model, prepare, services,
};

const ALL: &[usize] = &[0, 1, 2, 3];
const PART: &[usize] = &[1, 3];

/// How a reader reads these services.
#[derive(Clone, Copy)]
enum Read {
    InOrder(&'static [usize]),
    AtOnce([usize; 2]),
}

/// What fails, and what is switched.
#[derive(Clone, Copy)]
struct Case {
    members: &'static [usize],
    /// The service above 4, and whether its old instance was built from that, too.
    outside: Option<(usize, bool)>,
    failed: usize,
}

const fn of(failed: usize) -> Case {
    Case { members: ALL, outside: None, failed }
}

const fn below(above: usize, was_used: bool) -> Case {
    Case { members: ALL, outside: Some((above, was_used)), failed: 4 }
}

impl Case {
    /// Returns the services that may fail, each before its dependents.
    fn fails(self) -> &'static [usize] {
        match (self.failed, self.outside) {
            (0, _) => ALL,
            (1, _) => &[1, 3],
            (2, _) => &[2, 3],
            (3, _) => &[3],
            (_, Some((0, _))) => &[4, 0, 1, 2, 3],
            _ => &[4, 1, 3],
        }
    }

    fn set_up(self) -> Diamond {
        let (registry, ids, providers) = services::<5>(&[]);
        let mut from: [Vec<Id>; 5] = Default::default();
        for (from, dependencies) in from.iter_mut().zip(DIAMOND) {
            from.extend(dependencies.iter().map(|&at| ids[at]));
        }
        let outside_up = self.outside.map(|_| providers[4].start(&[]));
        let add = |from: &mut [Vec<Id>; 5], if_used| {
            let above = self.outside.filter(|&(_, was_used)| was_used == if_used);
            from.iter_mut().enumerate().for_each(|(at, from)| {
                from.extend(above.filter(|&(above, _)| above == at).map(|_| ids[4]));
            });
        };
        add(&mut from, true);
        let up = [0, 1, 2, 3].map(|at| providers[at].start(&from[at]));
        add(&mut from, false);
        let mut reload = Reload::new(&registry);
        for &at in self.members {
            prepare(&mut reload, &up[at], ids[at], &from[at]);
        }
        let up = up.into_iter().chain(outside_up).zip(providers).collect();
        Diamond { registry, ids, up, reload, from, case: self }
    }
}

/// All are up. A reload of the members is prepared.
struct Diamond {
    registry: Registry,
    ids: [Id; 5],
    up: Vec<Up>,
    reload: Reload,
    /// The dependencies of each.
    from: [Vec<Id>; 5],
    case: Case,
}

/// What one thread does and finds.
#[derive(Clone)]
struct Actor {
    registry: Registry,
    ids: [Id; 5],
    case: Case,
}

impl Actor {
    fn fail(&self) {
        self.registry.fail(self.ids[self.case.failed], "edited").expect("of this registry");
        for &at in self.case.fails().iter().filter(|_| self.case.outside.is_none()) {
            assert!(self.registry.get(self.ids[at]).is_err(), "A2: readable after its failure");
        }
    }

    fn read(&self, how: Read) -> Vec<Found> {
        let fails = self.case.fails();
        match how {
            Read::InOrder(order) => {
                let found = order.iter().map(|&at| {
                    let found = Found::read(&self.registry, self.ids[at]);
                    assert!(found.is_ready() || fails.contains(&at), "R2: {at} is not ready");
                    found
                });
                found.collect()
            }
            Read::AtOnce(both) => {
                let [a, b] = both.map(|at| self.ids[at]);
                match self.registry.get_all((a, b)) {
                    Ok((x, y)) => [(a, x), (b, y)]
                        .map(|(id, guard)| Found::of(id, Guard::instance(&guard)))
                        .into(),
                    Err(error) => {
                        assert!(both.iter().any(|at| fails.contains(at)), "R2: {error}");
                        Vec::new()
                    }
                }
            }
        }
    }

    fn check(&self, found: Vec<Found>, how: Read, committed: bool) {
        let members: Vec<Id> = self.case.members.iter().map(|&at| self.ids[at]).collect();
        match how {
            Read::InOrder(_) => assert_reads(&found, &members, committed),
            Read::AtOnce(_) => assert_at_once(found, &members, committed),
        }
        let all = self.ids.map(|id| Found::read(&self.registry, id)).into();
        assert_at_once(all, &members, committed);
        assert_rests_on_current(&self.registry, &self.ids);
    }
}

impl Diamond {
    fn actor(&self) -> Actor {
        Actor { registry: self.registry.clone(), ids: self.ids, case: self.case }
    }
}

/// What has failed is built again: of five services, the first three. (Preemption bound: 1.)
fn check_comes_back(name: &str, case: Case) {
    model(name, Some(1), move || {
        let diamond = case.set_up();
        let actor = diamond.actor();
        let Diamond { up, reload, from, .. } = diamond;
        let switch = spawn(move || reload.commit());
        let failer = spawn({
            let actor = actor.clone();
            move || {
                actor.fail();
                let again = case.fails().iter().take(3).map(|&at| up[at].1.try_build(&from[at]));
                let again: Vec<_> = again.collect();
                (up, again)
            }
        });
        let committed = join(switch);
        let up = join(failer);
        actor.check(Vec::new(), Read::InOrder(&[]), committed);
        drop(up);
    });
}

#[test]
fn a_side_fails_and_comes_back() {
    check_comes_back("a side fails and comes back", of(1));
}

#[test]
fn the_other_side_fails_and_comes_back() {
    check_comes_back("the other side fails and comes back", of(2));
}

#[test]
fn the_top_fails_and_comes_back() {
    check_comes_back("the top fails and comes back", of(3));
}

#[test]
fn the_side_that_is_no_member_fails_and_comes_back() {
    let name = "the side that is no member fails and comes back";
    check_comes_back(name, Case { members: PART, ..of(2) });
}

#[test]
fn a_dependency_of_the_root_fails_and_comes_back() {
    check_comes_back("a dependency of the root fails and comes back", below(0, true));
}

#[test]
fn a_dependency_of_a_side_fails_and_comes_back() {
    check_comes_back("a dependency of a side fails and comes back", below(1, true));
}

/// The failer reads after the failure. The switch has installed its instances before. (Preemption
/// bound: 1.)
fn check_after_installs(name: &str, case: Case, how: Read) {
    model(name, Some(1), move || {
        let diamond = case.set_up();
        let actor = diamond.actor();
        let Diamond { up, mut reload, .. } = diamond;
        let stalled = Stall::after_last(&mut reload).begin(reload);
        let failer = spawn({
            let actor = actor.clone();
            move || {
                actor.fail();
                actor.read(how)
            }
        });
        let committed = stalled.end();
        let found = join(failer);
        actor.check(found, how, committed);
        drop(up);
    });
}

#[test]
fn a_failer_of_a_side_reads_the_others_at_once() {
    let name = "a failer of a side reads the others at once";
    check_after_installs(name, of(1), Read::AtOnce([2, 0]));
}

#[test]
fn a_failer_of_the_top_reads_both_sides_at_once() {
    let name = "a failer of the top reads both sides at once";
    check_after_installs(name, of(3), Read::AtOnce([2, 1]));
}

#[test]
fn a_failer_of_a_new_dependency_of_a_side_reads_the_others() {
    let name = "a failer of a new dependency of a side reads the others";
    check_after_installs(name, below(1, false), Read::InOrder(&[2, 0]));
}

#[test]
fn a_failer_of_a_new_dependency_of_a_side_reads_it() {
    let name = "a failer of a new dependency of a side reads it";
    check_after_installs(name, below(1, false), Read::InOrder(&[1]));
}

#[test]
#[ignore = "minutes"]
fn a_failer_of_a_new_dependency_of_the_root_reads_the_top() {
    let name = "a failer of a new dependency of the root reads the top";
    check_after_installs(name, below(0, false), Read::InOrder(&[3]));
}

/// The failer reads after the failure. (Preemption bound: 1.)
fn check_failer_reads(name: &str, case: Case, how: Read) {
    model(name, Some(1), move || {
        let diamond = case.set_up();
        let actor = diamond.actor();
        let Diamond { up, reload, .. } = diamond;
        let switch = spawn(move || reload.commit());
        let failer = spawn({
            let actor = actor.clone();
            move || {
                actor.fail();
                actor.read(how)
            }
        });
        let committed = join(switch);
        let found = join(failer);
        actor.check(found, how, committed);
        drop(up);
    });
}

#[test]
fn the_failer_of_a_side_reads_the_others() {
    check_failer_reads("the failer of a side reads the others", of(1), Read::InOrder(&[2, 0]));
}

#[test]
fn the_failer_of_the_other_side_reads_the_others() {
    let name = "the failer of the other side reads the others";
    check_failer_reads(name, of(2), Read::InOrder(&[0, 1]));
}

#[test]
fn the_failer_of_the_top_reads_the_others() {
    check_failer_reads("the failer of the top reads the others", of(3), Read::InOrder(&[2, 1, 0]));
}

#[test]
fn the_failer_of_a_dependency_of_a_side_reads_the_others() {
    let name = "the failer of a dependency of a side reads the others";
    check_failer_reads(name, below(1, true), Read::InOrder(&[0, 2]));
}

#[test]
fn the_failer_of_the_side_that_is_no_member_reads_all_at_once() {
    let name = "the failer of the side that is no member reads all at once";
    check_failer_reads(name, Case { members: PART, ..of(2) }, Read::AtOnce([1, 0]));
}

/// The thread of the switch reads after it. (Preemption bound: 1.)
fn check_switcher_reads(name: &str, case: Case, how: Read) {
    model(name, Some(1), move || {
        let diamond = case.set_up();
        let actor = diamond.actor();
        let Diamond { up, reload, .. } = diamond;
        let switch = spawn({
            let actor = actor.clone();
            move || (reload.commit(), actor.read(how))
        });
        let failer = spawn({
            let actor = actor.clone();
            move || actor.fail()
        });
        let (committed, found) = join(switch);
        join(failer);
        actor.check(found, how, committed);
        drop(up);
    });
}

#[test]
fn the_switcher_reads_while_the_root_fails() {
    let name = "the switcher reads while the root fails";
    check_switcher_reads(name, of(0), Read::InOrder(&[0, 2, 3]));
}

#[test]
fn the_switcher_reads_while_a_side_fails() {
    check_switcher_reads("the switcher reads while a side fails", of(1), Read::InOrder(&[1, 2, 3]));
}

#[test]
fn the_switcher_reads_while_the_top_fails() {
    let name = "the switcher reads while the top fails";
    check_switcher_reads(name, of(3), Read::InOrder(&[2, 3, 1]));
}

#[test]
fn the_switcher_reads_while_a_dependency_of_the_root_fails() {
    let name = "the switcher reads while a dependency of the root fails";
    check_switcher_reads(name, below(0, true), Read::InOrder(&[4, 0, 3]));
}

#[test]
fn the_switcher_reads_while_a_dependency_of_a_side_fails() {
    let name = "the switcher reads while a dependency of a side fails";
    check_switcher_reads(name, below(1, true), Read::InOrder(&[4, 1, 3]));
}

#[test]
fn the_switcher_reads_root_and_top_at_once_while_the_root_fails() {
    let name = "the switcher reads root and top at once while the root fails";
    check_switcher_reads(name, of(0), Read::AtOnce([0, 3]));
}

#[test]
fn the_switcher_reads_both_at_once_while_a_dependency_of_the_root_fails() {
    let name = "the switcher reads both at once while a dependency of the root fails";
    check_switcher_reads(name, below(0, true), Read::AtOnce([4, 3]));
}

#[test]
fn the_switcher_reads_both_at_once_while_a_dependency_of_a_side_fails() {
    let name = "the switcher reads both at once while a dependency of a side fails";
    check_switcher_reads(name, below(1, true), Read::AtOnce([4, 1]));
}

/// Another thread reads, while the failure follows the switch. (Preemption bound: 1.)
fn check_other_reads(name: &str, case: Case, how: Read) {
    model(name, Some(1), move || {
        let diamond = case.set_up();
        let actor = diamond.actor();
        let Diamond { up, reload, .. } = diamond;
        let switch = spawn({
            let actor = actor.clone();
            move || {
                assert!(reload.commit(), "nothing prevents the switch");
                actor.fail();
            }
        });
        let reader = spawn({
            let actor = actor.clone();
            move || actor.read(how)
        });
        join(switch);
        actor.check(join(reader), how, true);
        drop(up);
    });
}

#[test]
fn a_reader_finds_the_switch_and_then_a_failed_root() {
    let name = "a reader finds the switch and then a failed root";
    check_other_reads(name, of(0), Read::InOrder(&[0, 3]));
}

#[test]
fn a_reader_finds_the_switch_and_then_a_failed_side() {
    let name = "a reader finds the switch and then a failed side";
    check_other_reads(name, of(1), Read::InOrder(&[2, 3]));
}

#[test]
fn a_reader_finds_the_switch_and_then_a_failed_top() {
    let name = "a reader finds the switch and then a failed top";
    check_other_reads(name, of(3), Read::InOrder(&[3, 1]));
}

#[test]
fn a_reader_finds_the_switch_and_then_a_failed_dependency_of_the_root() {
    let name = "a reader finds the switch and then a failed dependency of the root";
    check_other_reads(name, below(0, true), Read::InOrder(&[4, 0, 3]));
}

#[test]
fn a_reader_finds_the_switch_and_then_a_failed_dependency_of_a_side() {
    let name = "a reader finds the switch and then a failed dependency of a side";
    check_other_reads(name, below(1, true), Read::InOrder(&[2, 4, 3]));
}

#[test]
fn a_reader_finds_the_switch_and_then_a_failed_new_dependency_of_the_root() {
    let name = "a reader finds the switch and then a failed new dependency of the root";
    check_other_reads(name, below(0, false), Read::InOrder(&[2, 4, 3]));
}

#[test]
fn a_reader_finds_the_switch_and_then_a_failed_new_dependency_of_a_side() {
    let name = "a reader finds the switch and then a failed new dependency of a side";
    check_other_reads(name, below(1, false), Read::InOrder(&[2, 4, 3]));
}

#[test]
fn a_reader_reads_at_once_the_switch_and_a_failed_new_dependency() {
    let name = "a reader reads at once the switch and a failed new dependency";
    check_other_reads(name, below(1, false), Read::AtOnce([4, 1]));
}
