//! What an instance was built from.
//!
//! - An instance lists what the waits of its attempt have returned, with the generation and the
//!   revision, one entry for each service and kind: the last instance that was returned.
//! - Waits that returned nothing, soft dependencies, and declared dependencies that no wait of the
//!   attempt used are not listed.
//! - The entries are ordered by the id of the service.
//! - The list of an instance never changes. The next attempt begins with an empty list.

use std::time::Duration;

use crate::support::{LONG, poll_once, publish, publish_from, registry_of};
use mainstay::{AnyId, Attempt, DependencyKind, Instance, Provider, Running};

/// A service, a generation, a revision and a kind.
type Entry = (AnyId, u64, u64, DependencyKind);

fn entries(instance: &Instance<u32>) -> Vec<Entry> {
    let built_from = Instance::built_from(instance).iter();
    built_from.map(|from| (from.service, from.generation.get(), from.revision, from.kind)).collect()
}

fn of(running: &Running<u32>) -> Vec<Entry> {
    entries(&running.instance().unwrap())
}

fn attempt(provider: &Provider<u32>) -> Attempt<u32> {
    provider.begin().wait_blocking_timeout(LONG).unwrap()
}

use DependencyKind::{Hard, StartOnly};

#[test]
fn an_instance_without_waits_was_built_from_nothing() {
    let (registry, [a, b, c]) = registry_of::<u32, 3>(["a", "b", "c"]);
    registry.depends(c).on(a).unwrap();
    let [provide_a, _provide_b, provide_c] = [a, b, c].map(|id| registry.provide(id).unwrap());
    let running_a = publish(&provide_a, 1);
    assert_eq!(of(&running_a), []);

    let building = attempt(&provide_c);
    let _watch = building.watch(a).unwrap();
    assert!(building.wait_for(b).wait_blocking_timeout(Duration::ZERO).is_err());
    assert!(poll_once(&mut building.wait_to_start(b)).is_pending());
    drop(building.wait_for(a));
    assert_eq!(of(&building.ready(1).unwrap()), []);
}

#[test]
fn each_service_and_kind_has_one_entry_in_the_order_of_ids() {
    let (registry, ids @ [a, b, c, d, top]) = registry_of::<u32, 5>(["a", "b", "c", "d", "top"]);
    let [provide_a, provide_b, provide_c, provide_d, provide_top] =
        ids.map(|id| registry.provide(id).unwrap());
    registry.depends(top).on(c).unwrap();
    drop(publish(&provide_b, 0));
    let _a = publish(&provide_a, 1);
    let running_b = publish(&provide_b, 1);
    let (_c, _d) = (publish(&provide_c, 1), publish(&provide_d, 1));
    running_b.replace(2).unwrap();
    running_b.replace(3).unwrap();

    let building = attempt(&provide_top);
    building.wait_for(d).wait_blocking_timeout(LONG).unwrap();
    building.wait_to_start(a).wait_blocking_timeout(LONG).unwrap();
    building.wait_for(c).wait_blocking_timeout(LONG).unwrap();
    building.wait_for(b).wait_blocking_timeout(LONG).unwrap();
    building.wait_for(d).wait_blocking_timeout(LONG).unwrap();
    let top = building.ready(1).unwrap();
    let expected = [
        (a.into(), 0, 0, StartOnly),
        (b.into(), 1, 2, Hard),
        (c.into(), 0, 0, Hard),
        (d.into(), 0, 0, Hard),
    ];
    assert_eq!(of(&top), expected);
    let ids: Vec<AnyId> = expected.iter().map(|entry| entry.0).collect();
    assert!(ids.is_sorted(), "the ids are ordered by registration");
}

#[test]
fn a_service_that_is_used_in_two_ways_has_two_entries() {
    let (registry, [a, top]) = registry_of::<u32, 2>(["a", "top"]);
    let [provide_a, provide_top] = [a, top].map(|id| registry.provide(id).unwrap());
    let running_a = publish(&provide_a, 1);
    for hard_first in [true, false] {
        let building = attempt(&provide_top);
        for hard in [hard_first, !hard_first] {
            let wait = if hard { building.wait_for(a) } else { building.wait_to_start(a) };
            wait.wait_blocking_timeout(LONG).unwrap();
        }
        let mut built_from = of(&building.ready(1).unwrap());
        built_from.sort_by_key(|(_, _, _, kind)| kind.to_string());
        assert_eq!(built_from, [(a.into(), 0, 0, Hard), (a.into(), 0, 0, StartOnly)]);
    }
    drop(running_a);
}

#[test]
fn the_last_instance_that_a_wait_returned_is_listed() {
    let (registry, [a, top]) = registry_of::<u32, 2>(["a", "top"]);
    let [provide_a, provide_top] = [a, top].map(|id| registry.provide(id).unwrap());
    let running_a = publish(&provide_a, 1);
    let building = attempt(&provide_top);
    for revision in 0..3 {
        if revision > 0 {
            running_a.replace(revision).unwrap();
        }
        let instance = building.wait_for(a).wait_blocking_timeout(LONG).unwrap();
        assert_eq!(Instance::revision(&instance), u64::from(revision));
    }
    // Returned before the replacement, and not asked for again.
    running_a.replace(9).unwrap();
    drop(building.wait_for(a));
    let top = building.ready(1).unwrap();
    assert_eq!(of(&top), [(a.into(), 0, 2, Hard)]);
}

#[test]
fn each_attempt_begins_with_an_empty_list() {
    let (registry, [a, b, top]) = registry_of::<u32, 3>(["a", "b", "top"]);
    let [provide_a, provide_b, provide_top] = [a, b, top].map(|id| registry.provide(id).unwrap());
    let (_a, running_b) = (publish(&provide_a, 1), publish(&provide_b, 1));

    let failing = attempt(&provide_top);
    failing.wait_for(a).wait_blocking_timeout(LONG).unwrap();
    failing.fail("try again").unwrap();
    let first = publish_from(&provide_top, b, 1);
    let kept = first.instance().unwrap();
    assert_eq!(entries(&kept), [(b.into(), 0, 0, Hard)]);

    running_b.fail("gone");
    let _b = publish(&provide_b, 2);
    let second = publish_from(&provide_top, b, 2);
    assert_eq!(of(&second), [(b.into(), 1, 0, Hard)]);
    assert_eq!(entries(&kept), [(b.into(), 0, 0, Hard)], "the list of an instance changed");

    second.fail("without dependencies");
    assert_eq!(of(&publish(&provide_top, 3)), []);
}
