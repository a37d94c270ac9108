//! Reading: one service, one service again and again, several at one instant.
//!
//! - `get` and `get_arc` give the value of now with its generation, or say in which phase the service is.
//! - A guard keeps its value alive, also when the service fails, and past the eighth guard of a thread; a
//!   forgotten one harms nothing else.
//! - A cached reader sees each replacement and each failure, and lets go of what has failed.
//! - What several ids give together was all current at one instant, also under replacements and failures.
//! - An id of another registry is refused by every operation, also where the other has the same services.
//! - A value is dropped once, when its last holder goes, and not later.

mod support;

use std::{
    collections::HashSet,
    mem::forget,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use mainstay::{
    AnyId, DependencyError, GetAllError, GetError, Guard, Instance, Phase, ProvideError, Registry,
    Report, ServiceId, WaitError, WaitForError,
};
use support::{Counted, Drops, LONG, again, again_from, up};

fn not_ready<T>(read: Result<T, GetError>) -> (Phase, u64) {
    match read {
        Err(GetError::NotReady(why)) => (why.phase, why.generation),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was ready"),
    }
}

#[test]
fn not_ready_tells_the_phase_and_the_generation() {
    let registry = Registry::with_capacity(1).unwrap();
    let id = registry.register::<u32>("service").unwrap();
    let mut cached = registry.cached(id).unwrap();
    let mut everywhere = |expected| {
        assert_eq!(not_ready(registry.get(id)), expected);
        assert_eq!(not_ready(registry.get_arc(id)), expected);
        assert_eq!(not_ready(cached.get()), expected);
        match registry.get_all((id,)) {
            Err(GetAllError::NotReady(why)) => {
                assert_eq!((why.phase, why.generation), expected);
                assert_eq!(why.service, "service");
            }
            _ => panic!("one that is not ready"),
        }
    };
    everywhere((Phase::Down, 0));
    let provider = registry.provide(id).unwrap();
    let attempt = provider.begin().wait().unwrap();
    everywhere((Phase::Starting, 0));
    attempt.ready(1).unwrap().fail("over");
    everywhere((Phase::Down, 1));
    let attempt = provider.begin().wait().unwrap();
    everywhere((Phase::Starting, 1));
    drop(attempt);
    let text = registry.get(id).unwrap_err().to_string();
    assert_eq!(text, "service is not ready: down in generation 1");
}

#[test]
fn a_guard_keeps_its_value() {
    let (registry, drops) = (Registry::with_capacity(1).unwrap(), Drops::default());
    let id = registry.register("service").unwrap();
    let (provider, running) = up(&registry, id, drops.value(1));
    let guard = registry.get(id).unwrap();
    let instance = registry.get_arc(id).unwrap();
    running.fail("over");
    let running = again(&provider, drops.value(2));
    assert_eq!((guard.number, Guard::generation(&guard)), (1, 0));
    assert_eq!((instance.number, Instance::generation(&instance)), (1, 0));
    let new = registry.get(id).unwrap();
    assert_eq!((new.number, Guard::generation(&new)), (2, 1));
    assert_eq!(Guard::instance(&new).number, 2);

    assert_eq!(drops.count(), 0);
    drop(guard);
    assert_eq!(drops.count(), 0);
    drop(instance);
    assert_eq!(drops.count(), 1, "nobody has the first one any more");
    drop(running);
    assert_eq!(drops.count(), 1, "there is a guard of the second");
    drop(new);
    assert_eq!(drops.count(), 2);
}

#[test]
fn a_value_goes_with_its_last_holder() {
    let (registry, drops) = (Registry::with_capacity(1).unwrap(), Drops::default());
    let id = registry.register("service").unwrap();
    let provider = registry.provide(id).unwrap();

    let running = again(&provider, drops.value(1));
    running.replace(drops.value(2)).unwrap();
    assert_eq!(drops.count(), 1, "replaced");
    registry.fail(id, "over").unwrap();
    drop(running);
    assert_eq!(drops.count(), 2, "failed, and its handle gone");

    let attempt = provider.begin().wait().unwrap();
    registry.fail(id, "overtaken").unwrap();
    drop(attempt.ready(drops.value(3)));
    assert_eq!(drops.count(), 3, "refused");

    let failed = again(&provider, drops.value(4));
    registry.fail(id, "over").unwrap();
    let running = again(&provider, drops.value(5));
    assert_eq!(drops.count(), 4, "a new one is there, though the handle of the old one is, too");
    drop(failed);
    assert_eq!(registry.get(id).unwrap().number, 5, "an old handle leaves the new one alone");

    let reader = registry.get_arc(id).unwrap();
    registry.close();
    drop((running, provider, registry));
    assert_eq!(drops.count(), 4, "a reader has it");
    drop(reader);
    assert_eq!(drops.count(), 5);
}

#[test]
fn many_guards_and_forgotten_ones() {
    let (registry, drops) = (Registry::with_capacity(1).unwrap(), Drops::default());
    let id = registry.register("service").unwrap();
    let (provider, mut running) = up(&registry, id, drops.value(0));
    let mut guards = vec![];
    for number in 0..50 {
        guards.extend((0..20).map(|_| registry.get(id).unwrap()));
        running.fail("next");
        running = again(&provider, drops.value(number + 1));
    }
    for (i, guard) in guards.iter().enumerate() {
        assert_eq!((guard.number as usize, Guard::generation(guard) as usize), (i / 20, i / 20));
    }
    assert_eq!(drops.count(), 0);
    drop(guards);
    assert_eq!(drops.count(), 50);

    forget(registry.get(id).unwrap());
    running.fail("with a guard that never goes");
    let running = again(&provider, drops.value(60));
    assert_eq!(registry.get(id).unwrap().number, 60);
    (0..20).for_each(|_| forget(registry.get(id).unwrap()));
    running.replace(drops.value(61)).unwrap();
    assert_eq!(registry.get(id).unwrap().number, 61);
    drop((running, provider, registry));
    assert_eq!(drops.count(), 51, "only what was forgotten stays");
}

#[test]
fn guards_go_to_other_threads_and_are_kept() {
    let (registry, drops) = (Registry::with_capacity(1).unwrap(), Drops::default());
    let id = registry.register("service").unwrap();
    let (provider, running) = up(&registry, id, drops.value(1));
    let guards: Vec<_> = (0..12).map(|_| registry.get(id).unwrap()).collect();
    running.fail("over");
    let running = again(&provider, drops.value(2));
    let sum = |guards: Vec<Guard<Counted>>| guards.iter().map(|guard| guard.number).sum::<u32>();
    assert_eq!(thread::spawn(move || sum(guards)).join().unwrap(), 12);
    assert_eq!(drops.count(), 1);

    let kept = Guard::into_arc(registry.get(id).unwrap());
    drop((running, provider, registry));
    assert_eq!((kept.number, Instance::generation(&kept)), (2, 1));
    drop(kept);
    assert_eq!(drops.count(), 2);
}

#[test]
fn a_cached_reader_sees_every_change() {
    let (registry, drops) = (Registry::with_capacity(1).unwrap(), Drops::default());
    let id = registry.register("service").unwrap();
    let mut cached = registry.cached(id).unwrap();
    assert_eq!(not_ready(cached.get()), (Phase::Down, 0));
    let (provider, running) = up(&registry, id, drops.value(1));
    for _ in 0..3 {
        assert_eq!(cached.get().unwrap().number, 1);
    }
    running.replace(drops.value(2)).unwrap();
    assert_eq!(cached.get().unwrap().number, 2);
    assert_eq!(drops.count(), 1, "the replaced one is not kept");

    registry.fail(id, "over").unwrap();
    drop(running);
    assert_eq!(drops.count(), 1, "an idle reader keeps it");
    assert_eq!(not_ready(cached.get()), (Phase::Down, 1));
    assert_eq!(drops.count(), 2, "it has noticed, and keeps it no longer");

    let running = again(&provider, drops.value(3));
    let instance = cached.get().unwrap();
    assert_eq!((instance.number, Instance::generation(instance)), (3, 1));
    drop(running);
    let _running = again(&provider, drops.value(4));
    assert_eq!(cached.get().unwrap().number, 4, "without having noticed the failure between");
    assert_eq!(drops.count(), 3);
}

/// A cached reader and a plain one watch a service that is replaced and fails all the time.
#[test]
fn no_reader_goes_back_in_time() {
    let registry = Registry::with_capacity(1).unwrap();
    let id = registry.register::<(u64, u64)>("service").unwrap();
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
                            let now =
                                registry.get(id).map(|guard| (Guard::generation(&guard), *guard));
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
            let running = again(&provider, (generation, 0));
            for replacement in 1..20 {
                running.replace((generation, replacement)).unwrap();
            }
            if generation % 16 == 0 {
                thread::sleep(support::MOMENT);
            }
        }
        done.store(true, Ordering::Relaxed);
        for thread in threads {
            assert!(thread.join().unwrap() > 1, "a reader has seen too little");
        }
    });
}

#[test]
fn several_are_of_one_instant() {
    let registry = &Registry::with_capacity(3).unwrap();
    let [first, second] = ["first", "second"].map(|name| registry.register::<u64>(name).unwrap());
    let built = registry.register::<u64>("built from the first").unwrap();
    let (provide_first, running) = up(registry, first, 0);
    let (_provide_second, running_second) = up(registry, second, 0);
    let provide_built = registry.provide(built).unwrap();
    let done = &AtomicBool::new(false);
    thread::scope(|scope| {
        // first and second are replaced in lock step, and built records the generation of first.
        let replaced = scope.spawn(|| {
            let mut reads = 0;
            while !done.load(Ordering::Relaxed) {
                // In either order: a second that is ahead of the first has never been there.
                let both = registry.get_all((first, second)).map(|(f, s)| (*f, *s));
                let turned = registry.get_all((second, first)).map(|(s, f)| (*f, *s));
                for (f, s) in [both, turned].into_iter().flatten() {
                    assert!(f == s || f == s + 1, "{f} and {s} were never there together");
                    reads += 1;
                }
            }
            reads
        });
        let failed = scope.spawn(|| {
            let mut reads = 0;
            while !done.load(Ordering::Relaxed) {
                let both =
                    registry.get_all((built, first)).map(|(b, f)| (*b, Guard::generation(&f)));
                let turned =
                    registry.get_all((first, built)).map(|(f, b)| (*b, Guard::generation(&f)));
                for (from, generation) in [both, turned].into_iter().flatten() {
                    assert_eq!(from, generation, "they were never there together");
                    reads += 1;
                }
            }
            reads
        });
        let mut running = running;
        for round in 0..200 {
            let running_built = again_from(&provide_built, first, round);
            for _ in 0..20 {
                let next = **running_second.instance().unwrap() + 1;
                running.replace(next).unwrap();
                running_second.replace(next).unwrap();
            }
            if round % 16 == 0 {
                thread::sleep(support::MOMENT);
            }
            let now = **running.instance().unwrap();
            running.fail("next");
            drop(running_built);
            running = again(&provide_first, now);
        }
        done.store(true, Ordering::Relaxed);
        assert!(replaced.join().unwrap() > 0 && failed.join().unwrap() > 0, "too little was read");
    });
}

#[test]
fn up_to_eight_are_read_together() {
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
fn an_id_of_another_registry_is_refused_everywhere() {
    let mine = Registry::with_capacity(2).unwrap();
    let other = Registry::with_capacity(2).unwrap();
    let id: ServiceId<String> = mine.register("service").unwrap();
    let foreign: ServiceId<u64> = other.register("service").unwrap();
    let any = AnyId::from(foreign);
    assert_ne!(any, AnyId::from(id), "though both are the first of their registries");
    let (_provider, _running) = up(&mine, id, "mine".to_string());
    let (_foreign, _foreign_running) = up(&other, foreign, 7);

    assert!(matches!(mine.get(foreign), Err(GetError::ForeignId(why)) if why.id == any));
    assert!(matches!(mine.get_arc(foreign), Err(GetError::ForeignId(_))));
    assert!(matches!(mine.get_all((id, foreign)), Err(GetAllError::ForeignId(_))));
    assert!(mine.cached(foreign).is_err());
    assert!(matches!(mine.wait_ready(foreign).wait(), Err(WaitError::ForeignId(_))));
    assert!(matches!(mine.provide(foreign), Err(ProvideError::ForeignId(_))));
    assert!(mine.status(foreign).is_err() && mine.status(any).is_err());
    assert!(mine.fail(foreign, "no").is_err() && mine.fail(any, "no").is_err());
    assert!(mine.report(Guard::instance(&other.get(foreign).unwrap()), "no").is_err());
    for (dependent, dependency) in [(any, id.into()), (id.into(), any)] {
        let refused = mine.add_dependency(dependent, dependency);
        assert!(matches!(refused, Err(DependencyError::ForeignId(why)) if why.id == any));
    }
    let second = mine.register::<u8>("second").unwrap();
    let provider = mine.provide(second).unwrap();
    let attempt = provider.begin().wait_timeout(LONG).unwrap();
    assert!(matches!(attempt.wait_for(foreign).wait(), Err(WaitForError::ForeignId(_))));
    assert_eq!((&*mine.get(id).unwrap(), *other.get(foreign).unwrap()), (&"mine".to_string(), 7));
    assert!(matches!(other.report(&other.get_arc(foreign).unwrap(), "yes"), Ok(Report::Failed(_))));
}
