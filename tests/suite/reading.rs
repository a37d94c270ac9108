//! Reading one service, one service repeatedly, and several services at one instant.
//!
//! - `get` and `get_arc` return the current value with its generation, or the phase of the service
//!   if it is not ready.
//! - A guard keeps its value alive, also after the service fails, and also beyond the eighth guard
//!   of a thread. A forgotten guard affects no other value.
//! - A mapped guard dereferences to a part of the value, and keeps the instance as the guard does.
//! - A resolved reader reads as `get` and `get_arc` do. It can be cloned and shared, keeps no
//!   instance, and keeps its registry alive.
//! - A cached reader sees each replacement and each failure, and then releases the old value.
//! - The values that `get_all` returns were all current at one instant, also under replacements
//!   and failures.
//! - A value is dropped once, when its last holder releases it, and not later.

use std::{
    collections::HashSet,
    mem::forget,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use crate::support::{Counted, Drops, MOMENT, publish, publish_from, registry_of, up};
use mainstay::{
    Guard, Instance, MappedGuard, Phase, Registry,
    error::{DependencyUnavailable, GetAllError, GetError, Unavailable, chain},
};

fn found(missing: &DependencyUnavailable) -> (Phase, u64) {
    match missing.kind {
        Unavailable::NotReady { phase } => (phase, missing.generation.get()),
        _ => panic!("{missing}"),
    }
}

fn not_ready<T>(read: Result<T, GetError>) -> (Phase, u64) {
    match read {
        Err(GetError::NotReady(missing)) => found(&missing),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("the service is ready"),
    }
}

#[test]
fn a_read_that_is_refused_returns_the_phase_and_the_generation() {
    let (registry, [id]) = registry_of::<u32, 1>(["service"]);
    let mut cached = registry.cached(id).unwrap();
    let reader = registry.reader(id).unwrap();
    let mut everywhere = |expected| {
        assert_eq!(not_ready(reader.get()), expected);
        assert_eq!(not_ready(reader.get_arc()), expected);
        assert_eq!(not_ready(registry.get(id)), expected);
        assert_eq!(not_ready(registry.get_arc(id)), expected);
        assert_eq!(not_ready(cached.get()), expected);
        match registry.get_all((id,)) {
            Err(GetAllError::NotReady(missing)) => {
                assert_eq!(found(&missing), expected);
                assert_eq!(missing.service, "service");
            }
            _ => panic!("the service is not ready"),
        }
    };
    everywhere((Phase::Down, 0));
    let provider = registry.provide(id).unwrap();
    let attempt = provider.begin().wait_blocking().unwrap();
    everywhere((Phase::Starting, 0));
    attempt.ready(1).unwrap().fail("over");
    everywhere((Phase::Down, 1));
    let attempt = provider.begin().wait_blocking().unwrap();
    everywhere((Phase::Starting, 1));
    drop(attempt);
    let text = chain(&registry.get(id).unwrap_err()).to_string();
    assert_eq!(
        text,
        "service is not ready: service: down: service failed: the attempt was dropped"
    );
}

#[test]
fn a_resolved_reader_reads_what_is_current_and_keeps_nothing() {
    let (registry, [id, other]) = registry_of(["service", "other"]);
    let drops = Drops::default();
    let reader = registry.reader(id).unwrap();
    assert_eq!(reader.id(), id);
    assert_eq!(format!("{reader:?}"), "Reader { service: \"service\" }");
    let (_other, _running) = up(&registry, other, drops.value(100));

    let (provider, running) = up(&registry, id, drops.value(1));
    let clone = reader.clone();
    assert_eq!((reader.get().unwrap().number, clone.get_arc().unwrap().number), (1, 1));
    running.replace(drops.value(2)).unwrap();
    assert_eq!(drops.count(), 1, "no reader keeps the replaced value");
    assert_eq!((reader.get_arc().unwrap().number, clone.get().unwrap().number), (2, 2));
    running.fail("over");
    assert_eq!(drops.count(), 2, "no reader keeps the failed value");
    assert_eq!(not_ready(reader.get()), (Phase::Down, 1));

    let _running = publish(&provider, drops.value(3));
    drop(registry);
    let numbers: Vec<_> = thread::scope(|scope| {
        let read = || reader.get_arc().unwrap().number + clone.get().unwrap().number;
        let readers: Vec<_> = (0..2).map(|_| scope.spawn(read)).collect();
        readers.into_iter().map(|reader| reader.join().unwrap()).collect()
    });
    assert_eq!(numbers, [6, 6]);
    assert_eq!(Guard::generation(&reader.get().unwrap()), 1);
}

#[test]
fn a_resolved_reader_keeps_its_registry_alive() {
    let (registry, [id]) = registry_of(["service"]);
    let drops = Drops::default();
    let (provider, running) = up(&registry, id, drops.value(1));
    let reader = registry.reader(id).unwrap();
    drop((running, provider, registry));
    assert_eq!(drops.count(), 1);
    let error = reader.get().unwrap_err();
    assert_eq!(error.to_string(), "service is not ready");
}

#[test]
fn a_guard_keeps_its_value_until_it_is_dropped() {
    let (registry, [id]) = registry_of(["service"]);
    let drops = Drops::default();
    let (provider, running) = up(&registry, id, drops.value(1));
    let guard = registry.get(id).unwrap();
    let instance = registry.get_arc(id).unwrap();
    running.fail("over");
    let running = publish(&provider, drops.value(2));
    assert_eq!((guard.number, Guard::generation(&guard).get()), (1, 0));
    assert_eq!((instance.number, Instance::generation(&instance).get()), (1, 0));
    let new = registry.get(id).unwrap();
    assert_eq!((new.number, Guard::generation(&new).get()), (2, 1));
    assert_eq!(Guard::instance(&new).number, 2);

    assert_eq!(drops.count(), 0);
    drop(guard);
    assert_eq!(drops.count(), 0);
    drop(instance);
    assert_eq!(drops.count(), 1, "the first value has no holder");
    drop(running);
    assert_eq!(drops.count(), 1, "a guard holds the second value");
    drop(new);
    assert_eq!(drops.count(), 2);
}

#[test]
fn a_value_is_dropped_with_its_last_holder() {
    let (registry, [id]) = registry_of(["service"]);
    let drops = Drops::default();
    let provider = registry.provide(id).unwrap();

    let running = publish(&provider, drops.value(1));
    running.replace(drops.value(2)).unwrap();
    assert_eq!(drops.count(), 1, "a replaced value");
    registry.fail(id, "over").unwrap();
    drop(running);
    assert_eq!(drops.count(), 2, "a failed value without its handle");

    let attempt = provider.begin().wait_blocking().unwrap();
    registry.fail(id, "invalidated").unwrap();
    drop(attempt.ready(drops.value(3)));
    assert_eq!(drops.count(), 3, "a refused value");

    let failed = publish(&provider, drops.value(4));
    registry.fail(id, "over").unwrap();
    let running = publish(&provider, drops.value(5));
    assert_eq!(
        drops.count(),
        4,
        "the next publication drops the old value, in spite of its handle"
    );
    drop(failed);
    assert_eq!(registry.get(id).unwrap().number, 5, "an old handle does not affect the new value");

    let reader = registry.get_arc(id).unwrap();
    registry.close();
    drop((running, provider, registry));
    assert_eq!(drops.count(), 4, "a reader holds the value");
    drop(reader);
    assert_eq!(drops.count(), 5);
}

#[test]
fn each_of_many_guards_keeps_its_own_value_and_forgotten_guards_only_theirs() {
    let (registry, [id]) = registry_of(["service"]);
    let drops = Drops::default();
    let (provider, mut running) = up(&registry, id, drops.value(0));
    let mut guards = vec![];
    for number in 0..50 {
        guards.extend((0..20).map(|_| registry.get(id).unwrap()));
        running.fail("next");
        running = publish(&provider, drops.value(number + 1));
    }
    for (i, guard) in guards.iter().enumerate() {
        assert_eq!(
            (guard.number as usize, Guard::generation(guard).get() as usize),
            (i / 20, i / 20)
        );
    }
    assert_eq!(drops.count(), 0);
    drop(guards);
    assert_eq!(drops.count(), 50);

    forget(registry.get(id).unwrap());
    running.fail("with a guard that never goes");
    let running = publish(&provider, drops.value(60));
    assert_eq!(registry.get(id).unwrap().number, 60);
    (0..20).for_each(|_| forget(registry.get(id).unwrap()));
    running.replace(drops.value(61)).unwrap();
    assert_eq!(registry.get(id).unwrap().number, 61);
    drop((running, provider, registry));
    assert_eq!(drops.count(), 51, "all values without a forgotten guard are dropped");
}

#[test]
fn guards_may_be_sent_to_other_threads_and_kept_as_arcs() {
    let (registry, [id]) = registry_of(["service"]);
    let drops = Drops::default();
    let (provider, running) = up(&registry, id, drops.value(1));
    let guards: Vec<_> = (0..12).map(|_| registry.get(id).unwrap()).collect();
    running.fail("over");
    let running = publish(&provider, drops.value(2));
    let sum = |guards: Vec<Guard<Counted>>| guards.iter().map(|guard| guard.number).sum::<u32>();
    assert_eq!(thread::spawn(move || sum(guards)).join().unwrap(), 12);
    assert_eq!(drops.count(), 1);

    let kept = Guard::into_arc(registry.get(id).unwrap());
    drop((running, provider, registry));
    assert_eq!((kept.number, Instance::generation(&kept).get()), (2, 1));
    drop(kept);
    assert_eq!(drops.count(), 2);
}

#[test]
fn a_cached_reader_sees_every_change_and_releases_the_old_value() {
    let (registry, [id]) = registry_of(["service"]);
    let drops = Drops::default();
    let mut cached = registry.cached(id).unwrap();
    assert_eq!(not_ready(cached.get()), (Phase::Down, 0));
    let (provider, running) = up(&registry, id, drops.value(1));
    for _ in 0..3 {
        assert_eq!(cached.get().unwrap().number, 1);
    }
    running.replace(drops.value(2)).unwrap();
    assert_eq!(cached.get().unwrap().number, 2);
    assert_eq!(drops.count(), 1, "the reader releases the replaced value");

    registry.fail(id, "over").unwrap();
    drop(running);
    assert_eq!(drops.count(), 1, "an idle reader keeps the value");
    assert_eq!(not_ready(cached.get()), (Phase::Down, 1));
    assert_eq!(drops.count(), 2, "the reader releases the value when it sees the failure");

    let running = publish(&provider, drops.value(3));
    let instance = cached.get().unwrap();
    assert_eq!((instance.number, Instance::generation(instance).get()), (3, 1));
    drop(running);
    let _running = publish(&provider, drops.value(4));
    assert_eq!(cached.get().unwrap().number, 4, "the reader has seen no failure in between");
    assert_eq!(drops.count(), 3);
}

/// Cached and plain readers read a service that is replaced and fails all the time.
#[test]
fn no_reader_sees_an_older_value_after_a_newer_one() {
    let (registry, [id]) = registry_of::<(u64, u64), 1>(["service"]);
    let provider = registry.provide(id).unwrap();
    let done = &AtomicBool::new(false);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut cached = registry.cached(id).unwrap();
                    let (mut last, mut values) = ((0, 0), HashSet::new());
                    while !done.load(Ordering::Relaxed) {
                        for _ in 0..2 {
                            let now = registry
                                .get(id)
                                .map(|guard| (Guard::generation(&guard).get(), *guard));
                            let Ok((generation, now)) = now else { continue };
                            assert!(now >= last && now.0 == generation, "{now:?} after {last:?}");
                            last = now;
                            let Ok(now) = cached.get() else { continue };
                            assert!(**now >= last, "cached {now:?} after {last:?}");
                            last = **now;
                            values.insert(last);
                        }
                    }
                    values.len()
                })
            })
            .collect();
        for generation in 0..300 {
            let running = publish(&provider, (generation, 0));
            for replacement in 1..20 {
                running.replace((generation, replacement)).unwrap();
            }
            if generation % 16 == 0 {
                thread::sleep(MOMENT);
            }
        }
        done.store(true, Ordering::Relaxed);
        for thread in threads {
            assert!(thread.join().unwrap() > 1, "a reader has seen less than two values");
        }
    });
}

#[test]
fn get_all_returns_values_of_one_instant() {
    let registry = &Registry::with_capacity(3).unwrap();
    let [first, second] = ["first", "second"].map(|name| registry.register::<u64>(name).unwrap());
    let built = registry.register::<u64>("built from the first").unwrap();
    let (provide_first, running) = up(registry, first, 0);
    let (_provide_second, running_second) = up(registry, second, 0);
    let provide_built = registry.provide(built).unwrap();
    let done = &AtomicBool::new(false);
    thread::scope(|scope| {
        // `first` and `second` are replaced in turn, and `built` holds the generation of `first`.
        let replaced = scope.spawn(|| {
            let mut reads = 0;
            while !done.load(Ordering::Relaxed) {
                // In either order of the ids: `second` is never ahead of `first`.
                let both = registry.get_all((first, second)).map(|(f, s)| (*f, *s));
                let turned = registry.get_all((second, first)).map(|(s, f)| (*f, *s));
                for (f, s) in [both, turned].into_iter().flatten() {
                    assert!(f == s || f == s + 1, "{f} and {s} were never current together");
                    reads += 1;
                }
            }
            reads
        });
        let failed = scope.spawn(|| {
            let mut reads = 0;
            while !done.load(Ordering::Relaxed) {
                let both = registry
                    .get_all((built, first))
                    .map(|(b, f)| (*b, Guard::generation(&f).get()));
                let turned = registry
                    .get_all((first, built))
                    .map(|(f, b)| (*b, Guard::generation(&f).get()));
                for (from, generation) in [both, turned].into_iter().flatten() {
                    assert_eq!(from, generation, "the two were never current together");
                    reads += 1;
                }
            }
            reads
        });
        let mut running = running;
        for round in 0..200 {
            let running_built = publish_from(&provide_built, first, round);
            for _ in 0..20 {
                let next = **running_second.instance().unwrap() + 1;
                running.replace(next).unwrap();
                running_second.replace(next).unwrap();
            }
            if round % 16 == 0 {
                thread::sleep(MOMENT);
            }
            let now = **running.instance().unwrap();
            running.fail("next");
            drop(running_built);
            running = publish(&provide_first, now);
        }
        done.store(true, Ordering::Relaxed);
        assert!(
            replaced.join().unwrap() > 0 && failed.join().unwrap() > 0,
            "a reader has read nothing"
        );
    });
}

#[test]
fn get_all_reads_up_to_eight_services() {
    let registry = Registry::with_capacity(8).unwrap();
    let ids = [0, 1, 2, 3, 4, 5, 6, 7].map(|i| registry.register::<u8>(&i.to_string()).unwrap());
    let running: Vec<_> = (0..8u8).map(|i| up(&registry, ids[usize::from(i)], i)).collect();
    let [a, b, c, d, e, f, g, h] = ids;
    let all = registry.get_all((a, b, c, d, e, f, g, h)).unwrap();
    let values = (*all.0, *all.1, *all.2, *all.3, *all.4, *all.5, *all.6, *all.7);
    assert_eq!(values, (0, 1, 2, 3, 4, 5, 6, 7));
    registry.fail(e, "one of them").unwrap();
    let refused = registry.get_all((a, b, c, d, e, f, g, h));
    assert!(matches!(refused, Err(GetAllError::NotReady(why)) if why.service == "4"));
    drop(running);
}

#[test]
fn a_mapped_guard_is_a_part_of_the_value_and_keeps_the_instance() {
    struct Pool {
        hosts: Vec<(String, u16)>,
        _counted: Counted,
    }
    let drops = Drops::default();
    let pool = |hosts: &[&str]| Pool {
        hosts: hosts.iter().map(|host| (host.to_string(), 80)).collect(),
        _counted: drops.value(0),
    };
    let (registry, [id]) = registry_of(["pool"]);
    registry.constant(id, pool(&["a", "b"])).unwrap();
    // A function without captures, one with a capture, and a part of a part, which is unsized.
    let hosts = Guard::map(registry.get(id).unwrap(), |pool| &pool.hosts[..]);
    let wanted = 1;
    let host = MappedGuard::map(hosts, move |hosts| &hosts[wanted]);
    let name = MappedGuard::map(host, |(name, _)| name.as_str());
    assert_eq!((&*name, format!("{name:?}")), ("b", "\"b\"".to_string()));
    assert_eq!(MappedGuard::instance(&name).hosts.len(), 2);
    assert!(std::ptr::eq(
        MappedGuard::instance(&name),
        Guard::instance(&registry.get(id).unwrap())
    ));

    registry.fail_instance(MappedGuard::instance(&name), "refused").unwrap();
    registry.constant(id, pool(&["c"])).unwrap();
    assert_eq!((&*name, drops.count()), ("b", 0), "the guard keeps its instance");
    let sent = thread::spawn(move || (name.to_string(), MappedGuard::into_guard(name)));
    let (text, guard) = sent.join().unwrap();
    assert_eq!((&*text, Guard::generation(&guard).get(), drops.count()), ("b", 0, 0));
    drop(guard);
    assert_eq!(drops.count(), 1);
}

#[test]
fn the_function_of_a_mapped_guard_is_called_at_each_dereference_only() {
    use std::sync::{Arc, atomic::AtomicUsize};

    let calls = Arc::new(AtomicUsize::new(0));
    let (registry, [id]) = registry_of(["pair"]);
    registry.constant(id, (1_u32, 2_u32)).unwrap();
    let counted = Arc::clone(&calls);
    let part = Guard::map(registry.get(id).unwrap(), move |pair: &(u32, u32)| {
        counted.fetch_add(1, Ordering::SeqCst);
        &pair.1
    });
    assert_eq!(calls.load(Ordering::SeqCst), 0);
    assert_eq!((*part, *part), (2, 2));
    assert_eq!(calls.load(Ordering::SeqCst), 2);
    // A panic of the function harms neither the guard nor the service.
    let bomb =
        Guard::map(registry.get(id).unwrap(), |_: &(u32, u32)| -> &u32 { panic!("no part") });
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| *bomb));
    assert!(caught.is_err());
    assert_eq!(MappedGuard::instance(&bomb).0, 1);
    drop(bomb);
    assert_eq!(registry.get(id).unwrap().0, 1);
}
