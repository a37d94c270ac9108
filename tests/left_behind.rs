//! What users leave behind: forgotten handles, guards without end, threads that end with their hands full.
//!
//! - A forgotten running handle keeps its service ready, a forgotten attempt keeps it starting, until somebody
//!   fails it; a forgotten provider keeps the role.
//! - A forgotten wait is counted as waiting for ever, and harms nobody: all others are woken.
//! - A thread may hold any number of guards, more than the eight for which arc-swap has a fast place, and drop them
//!   in any order, on any thread: each keeps its own value, and no other, for exactly as long.
//! - Forgotten guards keep their values, and nothing else, also where each place of a thread is taken by them,
//!   and where the thread has ended and others take its place.
//! - A thread that panics with its hands full gives everything back.

mod support;

use std::{
    mem::forget,
    panic::{AssertUnwindSafe, catch_unwind},
    thread,
};

use mainstay::{Guard, Phase, ProvideError, Reason, Registry, ServiceId};
use support::{Counted, Drops, LONG, MOMENT, Seed, Wakes, again, poll_once, poll_with, up};

fn two() -> (Registry, [ServiceId<Counted>; 2], Drops) {
    let registry = Registry::with_capacity(2).unwrap();
    let ids = ["first", "second"].map(|name| registry.register(name).unwrap());
    (registry, ids, Drops::default())
}

#[test]
fn forgotten_handles_of_a_provider() {
    let (registry, [first, second], drops) = two();
    let provider = registry.provide(first).unwrap();
    forget(again(&provider, drops.value(1)));
    assert_eq!(registry.get(first).unwrap().number, 1, "it runs on");
    assert!(provider.begin().wait_timeout(MOMENT).is_err());
    registry.fail(first, "nobody else ends it").unwrap();
    assert!(registry.get(first).is_err());
    let running = again(&provider, drops.value(2));
    assert_eq!(drops.count(), 1, "its value went with the next publication");

    // Under a dependency it goes down as any other.
    let provide_second = registry.provide(second).unwrap();
    let attempt = provide_second.begin().wait().unwrap();
    attempt.wait_for(first).wait().unwrap();
    forget(attempt.ready(drops.value(3)).unwrap());
    assert_eq!(running.fail("from below").went_down, 2);
    assert_eq!(registry.status(second).unwrap().phase, Phase::Down);
    forget(provide_second.begin().wait().unwrap());
    assert_eq!(registry.status(second).unwrap().phase, Phase::Starting);

    // The role ends what was forgotten under it.
    drop(provide_second);
    let (provide_second, _running) = up(&registry, second, drops.value(4));
    assert_eq!(drops.count(), 3);
    forget(provide_second);
    assert!(matches!(registry.provide(second), Err(ProvideError::AlreadyProvided { .. })));
    assert_eq!(registry.get(second).unwrap().number, 4);
    registry.fail(second, "can be failed all the same").unwrap();
    assert!(registry.get(second).is_err());
}

#[test]
fn forgotten_waits_of_every_kind() {
    let (registry, [first, second], drops) = two();
    let provide_first = registry.provide(first).unwrap();
    let provide_second = registry.provide(second).unwrap();
    let (wakes, waker) = Wakes::new();
    macro_rules! forgotten {
        ($wait:expr) => {{
            let mut wait = $wait;
            assert!(poll_with(&mut wait, &waker).is_pending());
            forget(wait);
        }};
    }
    for round in 1..4 {
        let attempt = provide_second.begin().wait_timeout(LONG).unwrap();
        let woken = wakes.count();
        forgotten!(registry.wait_ready(first));
        forgotten!(attempt.wait_for(first));
        forgotten!(attempt.overtaken());
        forgotten!(provide_second.begin());
        let mut ready = (registry.wait_ready(first), Wakes::new());
        let mut dependent = (attempt.wait_for(first), Wakes::new());
        assert!(poll_with(&mut ready.0, &ready.1.1).is_pending());
        assert!(poll_with(&mut dependent.0, &dependent.1.1).is_pending());
        let running = again(&provide_first, drops.value(round));
        assert!(ready.1.0.count() > 0 && dependent.1.0.count() > 0, "another was left asleep");
        assert!(poll_once(&mut ready.0).is_ready() && poll_once(&mut dependent.0).is_ready());
        assert_eq!(wakes.count(), woken + 2, "what was forgotten is woken as any other");
        drop(dependent);
        assert_eq!(registry.status(first).unwrap().waiting, 2 * round, "they wait for ever");

        forgotten!(running.failed());
        let (told, waker) = Wakes::new();
        let (mut failed, mut overtaken) = (running.failed(), attempt.overtaken());
        assert!(poll_with(&mut failed, &waker).is_pending());
        assert!(poll_with(&mut overtaken, &waker).is_pending());
        registry.fail(first, "next").unwrap();
        assert_eq!(told.count(), 2);
        assert!(poll_once(&mut failed).is_ready() && poll_once(&mut overtaken).is_ready());
        assert_eq!(wakes.count(), woken + 5);
    }
    registry.close();
    assert!(registry.wait_ready(first).wait().is_err());
    assert_eq!(wakes.count(), 15, "each once");
}

/// Guards of five services through many generations and replacements, up to a hundred at a time.
#[test]
fn guards_in_any_number_and_order() {
    let seed = Seed::new();
    let mut random = seed.random(1);
    let registry = Registry::with_capacity(5).unwrap();
    let drops = Drops::default();
    let ids: Vec<ServiceId<Counted>> =
        (0..5).map(|i| registry.register(&i.to_string()).unwrap()).collect();
    let mut number = 0..;
    let mut next = || drops.value(number.next().unwrap());
    let mut services: Vec<_> = ids.iter().map(|&id| up(&registry, id, next())).collect();
    // How many there are of each value, by its number; and what was made in all.
    let mut held: Vec<(u32, Guard<Counted>)> = vec![];
    let mut made = 5;
    for round in 0..4_000 {
        let most = [8, 9, 10, 100][round / 1_000];
        let i = random.below(5);
        match random.below(10) {
            0..6 if held.len() < most => {
                let guard = registry.get(ids[i]).unwrap();
                held.push((guard.number, guard));
            }
            0..7 if !held.is_empty() => {
                drop(held.swap_remove(random.below(held.len())));
            }
            7 if !held.is_empty() => {
                let half: Vec<_> = held.drain(..held.len() / 2).collect();
                let check = |(number, guard): (u32, Guard<Counted>)| guard.number == number;
                assert!(thread::spawn(move || half.into_iter().all(check)).join().unwrap());
            }
            8 => {
                services[i].1.replace(next()).unwrap();
                made += 1;
            }
            _ => {
                registry.fail(ids[i], "next").unwrap();
                services[i].1 = again(&services[i].0, next());
                made += 1;
            }
        }
        assert!(held.iter().all(|(number, guard)| guard.number == *number));
        // Alive is what is held, and what is there.
        let mut alive: Vec<u32> = held.iter().map(|(number, _)| *number).collect();
        alive.extend(ids.iter().map(|&id| registry.get(id).unwrap().number));
        alive.sort_unstable();
        alive.dedup();
        assert_eq!(drops.count(), made - alive.len());
    }
    drop((held, services));
    assert_eq!(drops.count(), made);
}

#[test]
fn forgotten_guards_on_threads_that_end() {
    let (registry, [first, second], drops) = two();
    let (provide_first, mut running) = up(&registry, first, drops.value(0));
    let (provide_second, mut other) = up(&registry, second, drops.value(0));
    // Those of the first that nobody had forgotten.
    let mut unread = 0;
    for round in 0..30 {
        let (of, its) = (registry.clone(), drops.clone());
        thread::spawn(move || {
            // All that there are, and one more.
            (0..9).for_each(|_| forget(of.get(first).unwrap()));
            let guards: Vec<_> = (0..9).map(|_| of.get(second).unwrap()).collect();
            assert!(guards.iter().all(|guard| guard.number == round));
            assert_eq!(its.count() as u32, round + unread);
        })
        .join()
        .unwrap();
        // What was forgotten stays; what was only read goes at once.
        let replaced = running.replace(drops.value(round + 1));
        assert!(replaced.is_ok() && registry.get(first).unwrap().number == round + 1);
        other.fail("next");
        assert_eq!(drops.count() as u32, round + 1 + unread);
        other = again(&provide_second, drops.value(round + 1));
        if round % 10 == 9 {
            registry.fail(first, "with all of them forgotten").unwrap();
            running = again(&provide_first, drops.value(round + 1));
            unread += 1;
        }
    }
}

#[test]
fn a_thread_that_panics_with_its_hands_full() {
    let (registry, [first, second], drops) = two();
    let (of, its) = (registry.clone(), drops.clone());
    let panicked = thread::spawn(move || {
        let provide_first = of.provide(first).unwrap();
        let _running = again(&provide_first, its.value(1));
        let _guards: Vec<_> = (0..12).map(|_| of.get(first).unwrap()).collect();
        let mut cached = of.cached(first).unwrap();
        assert_eq!(cached.get().unwrap().number, 1);
        let provide_second = of.provide(second).unwrap();
        let attempt = provide_second.begin().wait().unwrap();
        let _from = attempt.wait_for(first).wait().unwrap();
        let mut waits = (of.wait_ready(second), provide_first.begin(), attempt.overtaken());
        assert!(poll_once(&mut waits.0).is_pending() && poll_once(&mut waits.1).is_pending());
        assert!(poll_once(&mut waits.2).is_pending());
        panic!("with its hands full");
    })
    .join();
    assert!(panicked.is_err());
    assert_eq!(drops.count(), 1);
    for id in [first, second] {
        let status = registry.status(id).unwrap();
        assert_eq!((status.phase, status.waiting, status.provided), (Phase::Down, 0, false));
        let reason = status.last_failure.unwrap().reason;
        assert!(matches!(reason, Reason::Panicked), "{reason}");
    }
    let (wakes, waker) = Wakes::new();
    let mut wait = registry.wait_ready(second);
    assert!(poll_with(&mut wait, &waker).is_pending());
    let _second = up(&registry, second, drops.value(2));
    assert!(wakes.count() > 0 && poll_once(&mut wait).is_ready());

    // While it builds, in a frame that goes on.
    let provider = registry.provide(first).unwrap();
    for round in 0..20 {
        let built = catch_unwind(AssertUnwindSafe(|| {
            let attempt = provider.begin().wait_timeout(LONG).unwrap();
            let _guard = registry.get(second).unwrap();
            let _wait = poll_once(&mut attempt.overtaken());
            assert!(round % 2 == 1, "while building");
            attempt.ready(drops.value(3)).unwrap()
        }));
        assert_eq!(built.is_ok(), registry.get(first).is_ok());
    }
}
