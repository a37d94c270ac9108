//! Names, places and edges: what may be registered, and how services may depend on each other.
//!
//! - A name stands for one service of one type, for good; it may be any text. There are as many places as the
//!   registry was made for.
//! - A cycle is refused, with its whole path, whether it is declared or discovered, long or of one service; the
//!   refused edge leaves no trace.
//! - Services that wait for each other, from different threads, are not left waiting: one of them is refused.
//! - Edges of dead attempts refuse nobody: services may turn their dependency round.
//! - An edge that is added while services run holds from then on.
//! - What is built with the builder is as what is added later.

mod support;

use std::thread;

use mainstay::{
    AnyId, BuildError, Cycle, DependencyError, LookupError, RegisterError, Registry, ServiceId,
    WaitForError,
};
use support::{LONG, Seed, again, again_from, up, within};

fn registry<const N: usize>() -> (Registry, [ServiceId<u32>; N]) {
    let registry = Registry::with_capacity(N).unwrap();
    let ids = std::array::from_fn(|i| registry.register(&format!("s{i}")).unwrap());
    (registry, ids)
}

/// The path of a refused declaration.
fn cycle(declared: Result<(), DependencyError>) -> String {
    match declared {
        Err(DependencyError::Cycle(cycle)) => path(&cycle),
        other => panic!("{other:?}"),
    }
}

fn path(cycle: &Cycle) -> String {
    let names: Vec<&str> = cycle.path.iter().map(|name| &**name).collect();
    names.join(" ")
}

fn edges(registry: &Registry) -> usize {
    registry.list().services.iter().map(|service| service.dependencies.len()).sum()
}

#[test]
fn a_name_is_one_service_of_one_type() {
    let registry = Registry::with_capacity(2).unwrap();
    let id = registry.register::<u32>("port").unwrap();
    assert_eq!(registry.register::<u32>("port").unwrap(), id, "it is registered already");
    assert_eq!(registry.list().services.len(), 1);
    match registry.register::<String>("port") {
        Err(RegisterError::WrongType { service, registered, requested }) => {
            assert_eq!((&*service, registered), ("port", "u32"));
            assert!(requested.contains("String"));
        }
        other => panic!("{other:?}"),
    }
    match registry.id::<u64>("port") {
        Err(LookupError::WrongType { service, registered: "u32", requested: "u64" }) => {
            assert_eq!(service, "port");
        }
        other => panic!("{other:?}"),
    }
    assert!(
        matches!(registry.find("Port"), Err(LookupError::UnknownName { name }) if name == "Port")
    );
    assert!(
        matches!(registry.id::<u32>("x"), Err(LookupError::UnknownName { name }) if name == "x")
    );
    assert_eq!(registry.id::<u32>("port").unwrap(), id);
    assert_eq!(registry.find("port").unwrap(), AnyId::from(id));
}

#[test]
fn there_are_so_many_places() {
    let registry = Registry::with_capacity(2).unwrap();
    let first = registry.register::<u8>("first").unwrap();
    let second = registry.register::<u8>("second").unwrap();
    match registry.register::<u8>("third") {
        Err(RegisterError::Capacity { service, capacity: 2 }) => assert_eq!(service, "third"),
        other => panic!("{other:?}"),
    }
    assert!(registry.find("third").is_err(), "it left no trace");
    assert_eq!(registry.register::<u8>("first").unwrap(), first, "who is there needs no place");
    assert!(registry.register::<u16>("first").is_err());
    assert_ne!(first, second);

    assert!(Registry::with_capacity(0).unwrap().register::<u8>("any").is_err());
    match Registry::with_capacity(usize::MAX) {
        Err(BuildError::Capacity { capacity }) => assert_eq!(capacity, usize::MAX),
        other => panic!("{other:?}"),
    }
}

#[test]
fn many_threads_register_the_same_names() {
    let registry = &Registry::with_capacity(200).unwrap();
    let all: Vec<Vec<ServiceId<usize>>> = thread::scope(|scope| {
        let register = || (0..200).map(|i| registry.register(&format!("{i}")).unwrap()).collect();
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(register)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(all.iter().all(|ids| *ids == all[0]));
    for (i, &id) in all[0].iter().enumerate() {
        assert_eq!(registry.status(id).unwrap().name, *i.to_string());
    }
}

#[test]
fn a_name_may_be_any_text() {
    let long = "é".repeat(1 << 20);
    let names = ["", " ", "\"", "\\", "a\nb", "\r\t", "\0", "-> [", "ключ 鍵 🗝", "<b>&amp;", &long];
    let registry = Registry::with_capacity(names.len()).unwrap();
    let ids = names.map(|name| registry.register::<u8>(name).unwrap());
    for (name, id) in names.into_iter().zip(ids) {
        assert_eq!(registry.id::<u8>(name).unwrap(), id);
        assert_eq!(registry.status(id).unwrap().name, name);
        assert!(registry.list().get(name).is_some());
        assert!(registry.get(id).unwrap_err().to_string().starts_with(name));
    }
    registry.add_dependency(ids[2], ids[3]).unwrap();
    let dot = registry.list().to_dot();
    assert!(dot.contains(r#""\\" -> "\"" [style=solid];"#), "quotes and backslashes are escaped");
    assert_eq!(dot.matches("label=").count(), names.len());
    assert!(!dot.contains('\0'));
    // No name breaks out of its quotes: outside of them there is only what DOT knows.
    let (mut outside, mut quoted, mut escaped) = (String::new(), false, false);
    for c in dot.chars() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ if !quoted => outside.push(c),
            _ => {}
        }
    }
    assert!(!quoted && !outside.contains(['<', '&', 'é', '\\']), "{outside}");
}

#[test]
fn declared_cycles_are_refused() {
    let (registry, ids) = registry::<5>();
    let declare = |dependent: usize, dependency: usize| {
        registry.add_dependency(ids[dependent], ids[dependency])
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
    assert_eq!(cycle(declare(0, 4)), "s0 s4 s0", "by the shortest way");
    assert_eq!(edges(&registry), 5, "what was refused left no trace");
    let error = registry.add_dependency(ids[0], ids[2]).unwrap_err();
    assert_eq!(error.to_string(), "s0 cannot depend on s2: s0 -> s2 -> s1 -> s0");
}

#[test]
fn the_builder_refuses_them_too() {
    let mut builder = Registry::builder(3).unwrap();
    let [a, b, c] = ["a", "b", "c"].map(|name| builder.register::<u32>(name).unwrap());
    assert_eq!(builder.register::<u32>("a").unwrap(), a);
    assert!(matches!(builder.register::<u8>("a"), Err(RegisterError::WrongType { .. })));
    assert!(matches!(builder.register::<u8>("d"), Err(RegisterError::Capacity { .. })));
    builder.add_dependency(c, b).unwrap();
    builder.add_dependency(b, a).unwrap();
    assert_eq!(cycle(builder.add_dependency(a, c)), "a c b a");
    assert_eq!(cycle(builder.add_dependency(b, b)), "b b");
    let foreign = Registry::with_capacity(1).unwrap().register::<u8>("x").unwrap();
    assert!(matches!(builder.add_dependency(a, foreign), Err(DependencyError::ForeignId(_))));

    let registry = builder.build();
    let running = [a, b, c].map(|id| up(&registry, id, 0));
    assert_eq!(registry.fail(a, "built or added, it is the same").unwrap().went_down, 3);
    assert_eq!(running[2].1.failed().wait().unwrap().root, "a");
}

#[test]
fn discovered_cycles_are_refused() {
    let (registry, ids) = registry::<4>();
    let providers: Vec<_> = ids[1..].iter().map(|&id| registry.provide(id).unwrap()).collect();
    let provider = registry.provide(ids[0]).unwrap();
    let first = provider.begin().wait().unwrap();
    let refused = |dependency: usize| match first.wait_for(ids[dependency]).wait_timeout(LONG) {
        Err(WaitForError::Cycle(cycle)) => path(&cycle),
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(0), "s0 s0");
    registry.add_dependency(ids[1], ids[0]).unwrap();
    assert_eq!(refused(1), "s0 s1 s0");
    // s3 waits for s2, which waits for s1: none of them is ready, and all edges are there.
    let attempts: Vec<_> = providers.iter().map(|p| p.begin().wait().unwrap()).collect();
    for i in [1, 2] {
        assert!(attempts[i].wait_for(ids[i]).wait_timeout(support::MOMENT).is_err());
    }
    assert_eq!(refused(3), "s0 s3 s2 s1 s0");
    assert!(!first.is_overtaken(), "who was refused may go another way");
    let _first = first.ready(0).unwrap();
    assert_eq!(**registry.wait_ready(ids[0]).wait().unwrap(), 0);
}

/// All of a ring wait for the next one, at the same time.
fn ring<const N: usize>(rounds: usize) {
    within("a ring of waiting services", move || {
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
                            let attempt = provider.begin().wait().unwrap();
                            (0..lag[i]).for_each(|_| std::hint::spin_loop());
                            let refused = match attempt.wait_for(ids[(i + 1) % N]).wait() {
                                Ok(_) => 0,
                                Err(WaitForError::Cycle(cycle)) => {
                                    assert_eq!(cycle.path.len(), N + 1);
                                    assert_eq!(cycle.path[0], *format!("s{i}"));
                                    1
                                }
                                Err(other) => panic!("{other}"),
                            };
                            // Who was refused does without, and so frees the others.
                            let running = attempt.ready(0).unwrap();
                            let _ = running.failed().wait();
                            refused
                        })
                    })
                    .collect();
                for id in ids {
                    registry.wait_ready(id).wait().unwrap();
                }
                registry.close();
                threads.into_iter().map(|thread| thread.join().unwrap()).sum()
            });
            assert_eq!(refused, 1, "the one that would have closed the ring");
        }
    });
}

#[test]
fn services_that_wait_for_each_other() {
    ring::<2>(300);
    ring::<3>(100);
    ring::<5>(50);
}

#[test]
fn a_dependency_may_turn_round() {
    let (registry, [a, b, c]) = registry::<3>();
    let [provide_a, provide_b, provide_c] = [a, b, c].map(|id| registry.provide(id).unwrap());
    let waits = |attempt: mainstay::Attempt<u32>, id| {
        // And is not refused for a cycle.
        let waited = attempt.wait_for(id).wait_timeout(support::MOMENT);
        assert!(matches!(waited, Err(WaitForError::TimedOut { .. })));
        attempt
    };
    // By an attempt that was given up.
    drop(waits(provide_b.begin().wait().unwrap(), a));
    let attempt = waits(provide_a.begin().wait().unwrap(), b);
    // By an attempt that was overtaken, though it is still there.
    registry.fail(a, "turn again").unwrap();
    let second = waits(provide_b.begin().wait().unwrap(), a);
    assert!(attempt.is_overtaken());
    assert_eq!(registry.status(a).unwrap().dependencies, [], "its edge is gone");

    // By an instance that has failed, over two edges.
    drop((attempt, second));
    let running_a = again(&provide_a, 1);
    let running_b = again_from(&provide_b, a, 1);
    let _running_c = again_from(&provide_c, b, 1);
    running_a.fail("turn again");
    drop(running_b);
    let _running_c = again(&provide_c, 2);
    let attempt = provide_a.begin().wait().unwrap();
    attempt.wait_for(c).wait_timeout(LONG).unwrap();
    let _running_a = attempt.ready(2).unwrap();
    let _running_b = again_from(&provide_b, a, 2);
    assert_eq!(registry.fail(c, "the other way round").unwrap().went_down, 3);
}

#[test]
fn edges_are_added_while_services_run() {
    let (registry, ids) = registry::<4>();
    let running = ids.map(|id| up(&registry, id, 0));
    registry.add_dependency(ids[3], ids[2]).unwrap();
    registry.add_dependency(ids[1], ids[0]).unwrap();
    registry.add_dependency(ids[2], ids[1]).unwrap();
    assert_eq!(registry.status(ids[1]).unwrap().dependents, ["s2"]);
    assert_eq!(registry.fail(ids[0], "all of them").unwrap().went_down, 4);
    assert_eq!(running[3].1.failed().wait().unwrap().root, "s0");

    let late = Registry::with_capacity(2).unwrap();
    let a = late.register::<u8>("a").unwrap();
    let _a = up(&late, a, 0);
    let b = late.register::<u8>("b").unwrap();
    let _b = up(&late, b, 0);
    late.add_dependency(b, a).unwrap();
    assert_eq!(late.fail(a, "a service that came later").unwrap().went_down, 2);
}
