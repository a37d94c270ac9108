//! `fail_all`: several services fail as one cascade.
//!
//! - Each service of the closures fails once, and the counts are those of one cascade.
//! - The outcome of each root is in the order of the call, also if a root is given twice or depends
//!   on another one.
//! - A dependent names a root on which it depends.
//! - A root that is down keeps its last failure, and its dependents are failed nevertheless.
//! - An id of another registry is refused before anything fails.

use crate::support::{publish, registry_of, up};
use mainstay::{AnyId, FailAllOutcome, Phase, Registry, RootOutcome, error::chain};

fn outcome(registry: &Registry, ids: &[AnyId]) -> FailAllOutcome {
    registry.fail_all(ids.iter().copied(), "rotated").unwrap()
}

#[test]
fn each_service_of_all_closures_fails_once() {
    let (registry, ids @ [key, config, pool, server, other]) =
        registry_of::<u8, 5>(["key", "config", "pool", "server", "other"]);
    registry.depends(pool).on(config).unwrap();
    registry.depends(server).on(pool).unwrap().on(key).unwrap();
    let _up = ids.map(|id| up(&registry, id, 1));

    let outcome = outcome(&registry, &[pool.into(), key.into(), config.into(), key.into()]);
    assert_eq!((outcome.cascade.failed, outcome.cascade.invalidated), (4, 0));
    assert_eq!(outcome.roots, [RootOutcome::Failed; 4]);
    for (id, roots) in [(key, &["key"][..]), (config, &["config"]), (pool, &["pool"])] {
        let status = registry.status(id).unwrap();
        assert_eq!((status.phase, status.generation.get()), (Phase::Down, 1));
        assert_eq!(&*status.last_failure.unwrap().root, roots[0]);
    }
    let failure = registry.status(server).unwrap().last_failure.unwrap();
    assert!(["key", "pool", "config"].contains(&&*failure.root), "{failure}");
    assert_eq!(failure.reason.to_string(), "rotated");
    assert!(registry.get(other).is_ok());
}

#[test]
fn a_dependent_names_a_root_on_which_it_depends() {
    let (registry, ids @ [left, right, below_left, below_right]) =
        registry_of::<u8, 4>(["left", "right", "below left", "below right"]);
    registry.depends(below_left).on(left).unwrap();
    registry.depends(below_right).on(right).unwrap();
    let _up = ids.map(|id| up(&registry, id, 1));
    outcome(&registry, &[right.into(), left.into()]);
    for (id, root) in [(below_left, "left"), (below_right, "right")] {
        assert_eq!(registry.status(id).unwrap().last_failure.unwrap().root, root);
    }
}

#[test]
fn roots_of_each_phase_have_their_outcome() {
    let (registry, [ready, starting, down, dependent]) =
        registry_of::<u8, 4>(["ready", "starting", "down", "dependent"]);
    registry.depends(dependent).on(down).unwrap();
    let _ready = up(&registry, ready, 1);
    let _dependent = up(&registry, dependent, 1);
    let provide_starting = registry.provide(starting).unwrap();
    let attempt = provide_starting.begin().wait_blocking().unwrap();
    let provide_down = registry.provide(down).unwrap();
    provide_down.begin().wait_blocking().unwrap().fail("no port is free").unwrap();

    let outcome = outcome(&registry, &[down.into(), starting.into(), ready.into()]);
    assert_eq!(outcome.roots, [RootOutcome::Down, RootOutcome::Invalidated, RootOutcome::Failed]);
    assert_eq!((outcome.cascade.failed, outcome.cascade.invalidated), (2, 1));
    assert!(attempt.ready(1).is_err());
    let status = registry.status(down).unwrap();
    assert_eq!(status.generation, 0);
    assert_eq!(status.to_string(), "down: down: no port is free");
    let failure = registry.status(dependent).unwrap().last_failure.unwrap();
    assert_eq!(chain(&failure).to_string(), "dependent failed because down failed: rotated");
}

#[test]
fn no_root_and_foreign_roots_fail_nothing() {
    let (registry, [service]) = registry_of::<u8, 1>(["service"]);
    let (other, [foreign]) = registry_of::<u8, 1>(["foreign"]);
    let (provider, running) = up(&registry, service, 1);
    assert_eq!(outcome(&registry, &[]).roots, []);
    assert!(registry.fail_all([AnyId::from(service), foreign.into()], "mixed up").is_err());
    assert_eq!(*registry.get(service).unwrap(), 1);
    drop(running);
    let _next = publish(&provider, 2);
    drop(other);
}
