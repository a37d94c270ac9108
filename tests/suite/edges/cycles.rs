//! Cycles of dependencies.
//!
//! - An edge that would close a cycle is refused with the whole path of the cycle: declared or
//!   discovered, in a builder or later, over many services or one. The refused edge leaves no
//!   trace.
//! - If services wait for each other on different threads, one of them is refused and none hangs.
//! - Edges of ended attempts and failed instances do not count: two services may exchange their
//!   direction of dependency.
//! - An edge that is declared while services are ready takes effect at once.

use std::thread;

use crate::support::{LONG, MOMENT, Seed, must_finish, publish, publish_from, registry_of, up};
use mainstay::{
    Registry, ServiceId,
    error::{CycleError, DependencyError, RegisterError, WaitForError},
};

/// Services `s0`, `s1` and so on.
fn registry<const N: usize>() -> (Registry, [ServiceId<u32>; N]) {
    let names: [String; N] = std::array::from_fn(|i| format!("s{i}"));
    registry_of(names.each_ref().map(String::as_str))
}

/// The path of a refused declaration.
fn cycle(declared: Result<(), DependencyError>) -> String {
    match declared {
        Err(DependencyError::Cycle(cycle)) => path(&cycle),
        other => panic!("{other:?}"),
    }
}

/// The names along the cycle.
fn path(cycle: &CycleError) -> String {
    let names: Vec<&str> = cycle.path.iter().map(|name| &**name).collect();
    names.join(" ")
}

/// The number of edges of all services.
fn edges(registry: &Registry) -> usize {
    registry.list().services.iter().map(|service| service.dependencies.len()).sum()
}

#[test]
fn a_declared_cycle_is_refused_with_its_path_and_leaves_no_trace() {
    let (registry, ids) = registry::<5>();
    let declare = |dependent: usize, dependency: usize| {
        registry.depends(ids[dependent]).on(ids[dependency]).map(drop)
    };
    assert_eq!(cycle(declare(0, 0)), "s0 s0");
    for i in 1..5 {
        declare(i, i - 1).unwrap();
        declare(i, i - 1).unwrap();
    }
    assert_eq!(cycle(declare(0, 1)), "s0 s1 s0");
    assert_eq!(cycle(declare(0, 4)), "s0 s4 s3 s2 s1 s0");
    assert_eq!(cycle(declare(1, 3)), "s1 s3 s2 s1");
    declare(4, 0).unwrap();
    assert_eq!(cycle(declare(0, 4)), "s0 s4 s0", "the path is the shortest one");
    assert_eq!(edges(&registry), 5, "a refused edge left a trace");
    let error = registry.depends(ids[0]).on(ids[2]).unwrap_err();
    assert_eq!(error.to_string(), "s0 cannot depend on s2: s0 -> s2 -> s1 -> s0");
}

#[test]
fn several_dependencies_are_declared_in_one_expression_until_one_is_refused() {
    let (registry, [a, b, c, d, _]) = registry::<5>();
    registry.depends(a).on(b).unwrap().on(c).unwrap();
    assert_eq!(registry.status(a).unwrap().dependencies.len(), 2);
    let refused = registry.depends(c).on(d).unwrap().on(a);
    assert_eq!(cycle(refused.map(drop)), "s2 s0 s2");
    assert_eq!(registry.status(c).unwrap().dependencies.len(), 1, "the accepted edge stays");
}

#[test]
fn the_builder_refuses_cycles_and_its_edges_count_as_declared() {
    let mut builder = Registry::builder(3).unwrap();
    let [a, b, c] = ["a", "b", "c"].map(|name| builder.register::<u32>(name).unwrap());
    assert_eq!(builder.register::<u32>("a").unwrap(), a);
    assert!(matches!(builder.register::<u8>("a"), Err(RegisterError::WrongType { .. })));
    assert!(matches!(builder.register::<u8>("d"), Err(RegisterError::Capacity { .. })));
    builder.depends(c).on(b).unwrap();
    builder.depends(b).on(a).unwrap();
    assert_eq!(cycle(builder.depends(a).on(c).map(drop)), "a c b a");
    assert_eq!(cycle(builder.depends(b).on(b).map(drop)), "b b");
    let foreign = Registry::with_capacity(1).unwrap().register::<u8>("x").unwrap();
    assert!(matches!(builder.depends(a).on(foreign), Err(DependencyError::ForeignId(_))));

    let registry = builder.build();
    let running = [a, b, c].map(|id| up(&registry, id, 0));
    assert_eq!(registry.fail(a, "the edges of the builder carry it").unwrap().failed, 3);
    assert_eq!(running[2].1.failed().wait_blocking().unwrap().root, "a");
}

#[test]
fn a_wait_that_would_close_a_cycle_is_refused_with_its_path() {
    let (registry, ids) = registry::<4>();
    let providers: Vec<_> = ids[1..].iter().map(|&id| registry.provide(id).unwrap()).collect();
    let provider = registry.provide(ids[0]).unwrap();
    let first = provider.begin().wait_blocking().unwrap();
    let refused =
        |dependency: usize| match first.wait_for(ids[dependency]).wait_blocking_timeout(LONG) {
            Err(WaitForError::Cycle(cycle)) => path(&cycle),
            other => panic!("{other:?}"),
        };
    assert_eq!(refused(0), "s0 s0");
    registry.depends(ids[1]).on(ids[0]).unwrap();
    assert_eq!(refused(1), "s0 s1 s0");
    // s3 waits for s2, and s2 waits for s1. None of them is ready, but all edges exist.
    let attempts: Vec<_> = providers.iter().map(|p| p.begin().wait_blocking().unwrap()).collect();
    for i in [1, 2] {
        assert!(attempts[i].wait_for(ids[i]).wait_blocking_timeout(MOMENT).is_err());
    }
    assert_eq!(refused(3), "s0 s3 s2 s1 s0");
    assert!(!first.is_invalidated(), "a refused wait has ended its attempt");
    let _first = first.ready(0).unwrap();
    assert_eq!(**registry.wait_ready(ids[0]).wait_blocking().unwrap(), 0);
}

/// Each service of a ring waits for the next one, at the same time.
fn ring<const N: usize>(rounds: usize) {
    must_finish("a ring of waiting services", move || {
        let seed = Seed::new();
        let mut random = seed.random(0);
        for _ in 0..rounds {
            let (registry, ids) = registry::<N>();
            let lag: [usize; N] = std::array::from_fn(|_| random.below(2_000));
            let refused: usize = thread::scope(|scope| {
                let threads: Vec<_> = (0..N)
                    .map(|i| {
                        let registry = &registry;
                        scope.spawn(move || {
                            let provider = registry.provide(ids[i]).unwrap();
                            let attempt = provider.begin().wait_blocking().unwrap();
                            (0..lag[i]).for_each(|_| std::hint::spin_loop());
                            let refused = match attempt.wait_for(ids[(i + 1) % N]).wait_blocking() {
                                Ok(_) => 0,
                                Err(WaitForError::Cycle(cycle)) => {
                                    assert_eq!(cycle.path.len(), N + 1);
                                    assert_eq!(cycle.path[0], *format!("s{i}"));
                                    1
                                }
                                Err(other) => panic!("{other}"),
                            };
                            // A refused attempt publishes without it, and so the other waits end.
                            let running = attempt.ready(0).unwrap();
                            let _ = running.failed().wait_blocking();
                            refused
                        })
                    })
                    .collect();
                for id in ids {
                    registry.wait_ready(id).wait_blocking().unwrap();
                }
                registry.close();
                threads.into_iter().map(|thread| thread.join().unwrap()).sum()
            });
            assert_eq!(refused, 1, "exactly the wait that would close the ring is refused");
        }
    });
}

#[test]
fn exactly_one_wait_of_a_ring_of_concurrent_waits_is_refused() {
    ring::<2>(300);
    ring::<3>(100);
    ring::<5>(50);
}

#[test]
fn a_dependency_may_be_reversed_after_its_attempt_or_instance_ended() {
    let (registry, [a, b, c]) = registry::<3>();
    let [provide_a, provide_b, provide_c] = [a, b, c].map(|id| registry.provide(id).unwrap());
    let waits = |attempt: mainstay::Attempt<u32>, id| {
        // It times out, and is not refused for a cycle.
        let waited = attempt.wait_for(id).wait_blocking_timeout(MOMENT);
        assert!(matches!(waited, Err(WaitForError::TimedOut { .. })));
        attempt
    };
    // The edge of an attempt that failed.
    drop(waits(provide_b.begin().wait_blocking().unwrap(), a));
    let attempt = waits(provide_a.begin().wait_blocking().unwrap(), b);
    // The edge of an attempt that is invalidated, and not yet dropped.
    registry.fail(a, "reversed once more").unwrap();
    let second = waits(provide_b.begin().wait_blocking().unwrap(), a);
    assert!(attempt.is_invalidated());
    assert_eq!(
        registry.status(a).unwrap().dependencies,
        [],
        "the edge of an invalidated attempt exists"
    );

    // The edges of instances that failed, along a path of two edges.
    drop((attempt, second));
    let running_a = publish(&provide_a, 1);
    let running_b = publish_from(&provide_b, a, 1);
    let _running_c = publish_from(&provide_c, b, 1);
    running_a.fail("reversed once more");
    drop(running_b);
    let _running_c = publish(&provide_c, 2);
    let attempt = provide_a.begin().wait_blocking().unwrap();
    attempt.wait_for(c).wait_blocking_timeout(LONG).unwrap();
    let _running_a = attempt.ready(2).unwrap();
    let _running_b = publish_from(&provide_b, a, 2);
    assert_eq!(registry.fail(c, "the reversed edges carry it").unwrap().failed, 3);
}

#[test]
fn an_edge_declared_between_ready_services_carries_failures() {
    let (registry, ids) = registry::<4>();
    let running = ids.map(|id| up(&registry, id, 0));
    registry.depends(ids[3]).on(ids[2]).unwrap();
    registry.depends(ids[1]).on(ids[0]).unwrap();
    registry.depends(ids[2]).on(ids[1]).unwrap();
    assert_eq!(registry.status(ids[1]).unwrap().dependents, ["s2"]);
    assert_eq!(registry.fail(ids[0], "the new edges carry it").unwrap().failed, 4);
    assert_eq!(running[3].1.failed().wait_blocking().unwrap().root, "s0");

    let late = Registry::with_capacity(2).unwrap();
    let a = late.register::<u8>("a").unwrap();
    let _a = up(&late, a, 0);
    let b = late.register::<u8>("b").unwrap();
    let _b = up(&late, b, 0);
    late.depends(b).on(a).unwrap();
    assert_eq!(late.fail(a, "the edge of a later service carries it").unwrap().failed, 2);
}
