//! Handles that are forgotten, guards without bound, and threads that end while they hold handles.
//!
//! - A forgotten running handle keeps its service ready, and a forgotten attempt keeps it
//!   starting, until a failure ends it. A forgotten provider keeps the role.
//! - A forgotten wait is counted as waiting for ever, and all other waiters are woken.
//! - A thread may hold any number of guards, more than the eight for which it has a place, and drop
//!   them in any order on any thread. Each keeps exactly its own value, and exactly as long as the
//!   guard lives.
//! - Forgotten guards keep their values and nothing else, also if they take each fast place of a
//!   thread, and also after that thread has ended and others reuse its places.
//! - A thread that panics releases everything that it holds.

use std::{
    mem::forget,
    panic::{AssertUnwindSafe, catch_unwind},
    thread,
};

use crate::support::{
    Counted, Drops, LONG, MOMENT, Seed, Wakes, poll_once, poll_with, publish, registry_of, up,
};
use mainstay::{Guard, Phase, Reason, Registry, ServiceId, error::ProvideError};

fn two() -> (Registry, [ServiceId<Counted>; 2], Drops) {
    let (registry, ids) = registry_of(["first", "second"]);
    (registry, ids, Drops::default())
}

#[test]
fn forgotten_handles_keep_their_phase_and_role_until_a_failure() {
    let (registry, [first, second], drops) = two();
    let provider = registry.provide(first).unwrap();
    forget(publish(&provider, drops.value(1)));
    assert_eq!(registry.get(first).unwrap().number, 1, "it is not ready any more");
    assert!(provider.begin().wait_blocking_timeout(MOMENT).is_err());
    registry.fail(first, "its handle is forgotten").unwrap();
    assert!(registry.get(first).is_err());
    let running = publish(&provider, drops.value(2));
    assert_eq!(drops.count(), 1, "the next publication drops the value");

    // A failure of its dependency takes it down as any other.
    let provide_second = registry.provide(second).unwrap();
    let attempt = provide_second.begin().wait_blocking().unwrap();
    attempt.wait_for(first).wait_blocking().unwrap();
    forget(attempt.ready(drops.value(3)).unwrap());
    assert_eq!(running.fail("from below").failed, 2);
    assert_eq!(registry.status(second).unwrap().phase, Phase::Down);
    forget(provide_second.begin().wait_blocking().unwrap());
    assert_eq!(registry.status(second).unwrap().phase, Phase::Starting);

    // The drop of the provider ends a forgotten attempt.
    drop(provide_second);
    let (provide_second, _running) = up(&registry, second, drops.value(4));
    assert_eq!(drops.count(), 3);
    forget(provide_second);
    assert!(matches!(registry.provide(second), Err(ProvideError::AlreadyProvided { .. })));
    assert_eq!(registry.get(second).unwrap().number, 4);
    registry.fail(second, "its provider is forgotten").unwrap();
    assert!(registry.get(second).is_err());
}

#[test]
fn forgotten_waits_stay_counted_and_all_other_waiters_are_woken() {
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
        let attempt = provide_second.begin().wait_blocking_timeout(LONG).unwrap();
        let woken = wakes.count();
        forgotten!(registry.wait_ready(first));
        forgotten!(attempt.wait_for(first));
        forgotten!(attempt.invalidated());
        forgotten!(provide_second.begin());
        let mut ready = (registry.wait_ready(first), Wakes::new());
        let mut dependent = (attempt.wait_for(first), Wakes::new());
        assert!(poll_with(&mut ready.0, &ready.1.1).is_pending());
        assert!(poll_with(&mut dependent.0, &dependent.1.1).is_pending());
        let running = publish(&provide_first, drops.value(round));
        assert!(ready.1.0.count() > 0 && dependent.1.0.count() > 0, "another waiter was not woken");
        assert!(poll_once(&mut ready.0).is_ready() && poll_once(&mut dependent.0).is_ready());
        assert_eq!(wakes.count(), woken + 2, "forgotten waits are woken as others are");
        drop(dependent);
        assert_eq!(
            registry.status(first).unwrap().waiters,
            2 * round,
            "a forgotten wait is not counted"
        );

        forgotten!(running.failed());
        let (others, waker) = Wakes::new();
        let (mut failed, mut invalidated) = (running.failed(), attempt.invalidated());
        assert!(poll_with(&mut failed, &waker).is_pending());
        assert!(poll_with(&mut invalidated, &waker).is_pending());
        registry.fail(first, "next").unwrap();
        assert_eq!(others.count(), 2);
        assert!(poll_once(&mut failed).is_ready() && poll_once(&mut invalidated).is_ready());
        assert_eq!(wakes.count(), woken + 5);
    }
    registry.close();
    assert!(registry.wait_ready(first).wait_blocking().is_err());
    assert_eq!(wakes.count(), 15, "each forgotten wait is woken once");
}

/// Up to a hundred guards of five services, through many generations and replacements.
#[test]
fn any_number_of_guards_dropped_in_any_order_keep_exactly_their_values() {
    let seed = Seed::new();
    let mut random = seed.random(1);
    let registry = Registry::with_capacity(5).unwrap();
    let drops = Drops::default();
    let ids: Vec<ServiceId<Counted>> =
        (0..5).map(|i| registry.register(&i.to_string()).unwrap()).collect();
    let mut number = 0..;
    let mut next = || drops.value(number.next().unwrap());
    let mut services: Vec<_> = ids.iter().map(|&id| up(&registry, id, next())).collect();
    // The guards, with the numbers of their values; and the number of values made so far.
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
                services[i].1 = publish(&services[i].0, next());
                made += 1;
            }
        }
        assert!(held.iter().all(|(number, guard)| guard.number == *number));
        // The live values are those of the guards and the current ones.
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
fn forgotten_guards_of_ended_threads_keep_only_their_own_values() {
    let (registry, [first, second], drops) = two();
    let (provide_first, mut running) = up(&registry, first, drops.value(0));
    let (provide_second, mut other) = up(&registry, second, drops.value(0));
    // The number of values of `first` for which no guard was forgotten.
    let mut unread = 0;
    for round in 0..30 {
        let (of, its) = (registry.clone(), drops.clone());
        thread::spawn(move || {
            // One more than the fast places of a thread.
            (0..9).for_each(|_| forget(of.get(first).unwrap()));
            let guards: Vec<_> = (0..9).map(|_| of.get(second).unwrap()).collect();
            assert!(guards.iter().all(|guard| guard.number == round));
            assert_eq!(its.count() as u32, round + unread);
        })
        .join()
        .unwrap();
        // A value with a forgotten guard stays. A value that was only read is dropped at once.
        let replaced = running.replace(drops.value(round + 1));
        assert!(replaced.is_ok() && registry.get(first).unwrap().number == round + 1);
        other.fail("next");
        assert_eq!(drops.count() as u32, round + 1 + unread);
        other = publish(&provide_second, drops.value(round + 1));
        if round % 10 == 9 {
            registry.fail(first, "with all of them forgotten").unwrap();
            running = publish(&provide_first, drops.value(round + 1));
            unread += 1;
        }
    }
}

#[test]
fn a_thread_that_panics_releases_every_handle_that_it_holds() {
    let (registry, [first, second], drops) = two();
    let (of, its) = (registry.clone(), drops.clone());
    let panicked = thread::spawn(move || {
        let provide_first = of.provide(first).unwrap();
        let _running = publish(&provide_first, its.value(1));
        let _guards: Vec<_> = (0..12).map(|_| of.get(first).unwrap()).collect();
        let mut cached = of.cached(first).unwrap();
        assert_eq!(cached.get().unwrap().number, 1);
        let provide_second = of.provide(second).unwrap();
        let attempt = provide_second.begin().wait_blocking().unwrap();
        let _from = attempt.wait_for(first).wait_blocking().unwrap();
        let mut waits = (of.wait_ready(second), provide_first.begin(), attempt.invalidated());
        assert!(poll_once(&mut waits.0).is_pending() && poll_once(&mut waits.1).is_pending());
        assert!(poll_once(&mut waits.2).is_pending());
        panic!("while it holds handles");
    })
    .join();
    assert!(panicked.is_err());
    assert_eq!(drops.count(), 1);
    for id in [first, second] {
        let status = registry.status(id).unwrap();
        assert_eq!((status.phase, status.waiters, status.has_provider), (Phase::Down, 0, false));
        let reason = status.last_failure.unwrap().reason;
        assert!(matches!(reason, Reason::Panicked), "{reason}");
    }
    let (wakes, waker) = Wakes::new();
    let mut wait = registry.wait_ready(second);
    assert!(poll_with(&mut wait, &waker).is_pending());
    let _second = up(&registry, second, drops.value(2));
    assert!(wakes.count() > 0 && poll_once(&mut wait).is_ready());

    // A panic during the build, in a thread that continues.
    let provider = registry.provide(first).unwrap();
    for round in 0..20 {
        let built = catch_unwind(AssertUnwindSafe(|| {
            let attempt = provider.begin().wait_blocking_timeout(LONG).unwrap();
            let _guard = registry.get(second).unwrap();
            let _wait = poll_once(&mut attempt.invalidated());
            assert!(round % 2 == 1, "while building");
            attempt.ready(drops.value(3)).unwrap()
        }));
        assert_eq!(built.is_ok(), registry.get(first).is_ok());
    }
}
