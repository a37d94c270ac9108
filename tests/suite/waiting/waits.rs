//! Waits: futures on any executor, and blocking calls.
//!
//! - A wait ends when its change happens, as a future and as a blocking call, whether it begins
//!   before or after the change. At a timeout or deadline it returns an error that names the
//!   service.
//! - One change wakes each of 10,000 waiters, and no dropped waiter.
//! - Every future may be dropped after any number of polls, and during the change. Then no wait is
//!   counted, no attempt has begun, and the other waiters are woken.
//! - `waiting` counts the waits until a service is ready, and returns to 0.
//! - Several waits may be combined. A finished wait does nothing if it is polled again.

use std::{
    future::Future,
    sync::{Arc, Barrier},
    task::Poll,
    thread,
    time::{Duration, Instant},
};

use crate::support::{
    LONG, MOMENT, Seed, Wakes, must_finish, poll_once, poll_with, publish, registry_of, until, up,
};
use futures_lite::future::or;
use mainstay::{
    Instance, Phase, Registry, ServiceId,
    error::{
        BeginError, DependencyUnavailable, Unavailable, WaitError, WaitForError, WaitReadyError,
    },
};

fn two() -> (Registry, ServiceId<u32>, ServiceId<u32>) {
    let (registry, [first, second]) = registry_of(["first", "second"]);
    (registry, first, second)
}

/// The number of waits that the status shows.
fn waiting(registry: &Registry, id: ServiceId<u32>) -> u32 {
    registry.status(id).unwrap().waiters
}

#[test]
fn a_wait_ends_awaited_or_blocking_before_or_after_the_change() {
    let (registry, id, _) = two();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let all = || {
        let of = registry.clone();
        let on_tokio = runtime.spawn(async move { **of.wait_ready(id).await.unwrap() });
        let of = registry.clone();
        let on_smol = smol::spawn(async move { **of.wait_ready(id).await.unwrap() });
        let blocking: [fn(&Registry, ServiceId<u32>) -> u32; 4] = [
            |registry, id| **registry.wait_ready(id).wait_blocking().unwrap(),
            |registry, id| **registry.wait_ready(id).wait_blocking_timeout(LONG).unwrap(),
            |registry, id| **registry.wait_ready(id).wait_blocking_timeout(Duration::MAX).unwrap(),
            |registry, id| {
                **registry.wait_ready(id).wait_blocking_deadline(Instant::now() + LONG).unwrap()
            },
        ];
        let threads = blocking.map(|wait| {
            let registry = registry.clone();
            thread::spawn(move || wait(&registry, id))
        });
        (on_tokio, on_smol, threads)
    };
    let before = all();
    until("all wait", || waiting(&registry, id) == 6);
    let _service = up(&registry, id, 7);
    let after = all();
    for (on_tokio, on_smol, threads) in [before, after] {
        assert_eq!(pollster::block_on(on_tokio).unwrap(), 7);
        assert_eq!(smol::block_on(on_smol), 7);
        assert_eq!(threads.map(|thread| thread.join().unwrap()), [7; 4]);
    }
    let value = |ready: Result<Arc<Instance<u32>>, WaitReadyError>| **ready.unwrap();
    assert_eq!(value(pollster::block_on(registry.wait_ready(id))), 7);
    assert_eq!(
        value(registry.wait_ready(id).wait_blocking_timeout(Duration::ZERO)),
        7,
        "a wait without time checks once"
    );
    assert_eq!(value(registry.wait_ready(id).wait_blocking_deadline(Instant::now())), 7);
    assert_eq!(waiting(&registry, id), 0);
}

#[test]
fn every_kind_of_wait_times_out_and_names_its_service() {
    let (registry, first, second) = two();
    let provider = registry.provide(second).unwrap();
    let attempt = provider.begin().wait_blocking().unwrap();
    let deadline = || Instant::now() + MOMENT;
    let check = |service: &str, name: &str, after: Duration| {
        assert_eq!(service, name);
        assert!(after >= MOMENT / 2, "{after:?}");
    };
    let check_missing = |missing: &DependencyUnavailable| match missing.kind {
        Unavailable::TimedOut { after, .. } => check(&missing.service, "first", after),
        _ => panic!("{missing}"),
    };
    match registry.wait_ready(first).wait_blocking_timeout(MOMENT) {
        Err(WaitReadyError::TimedOut(missing)) => check_missing(&missing),
        other => panic!("{other:?}"),
    }
    match provider.begin().wait_blocking_deadline(deadline()) {
        Err(BeginError::TimedOut { service, after }) => check(&service, "second", after),
        other => panic!("{other:?}"),
    }
    match attempt.wait_for(first).wait_blocking_timeout(MOMENT) {
        Err(WaitForError::TimedOut(missing)) => check_missing(&missing),
        other => panic!("{other:?}"),
    }
    match attempt.invalidated().wait_blocking_deadline(deadline()) {
        Err(WaitError::TimedOut { service, after }) => check(&service, "second", after),
        other => panic!("{other:?}"),
    }
    let running = attempt.ready(1).unwrap();
    match running.failed().wait_blocking_timeout(MOMENT) {
        Err(WaitError::TimedOut { service, after }) => check(&service, "second", after),
        other => panic!("{other:?}"),
    }
    assert_eq!((waiting(&registry, first), waiting(&registry, second)), (0, 0));
}

#[test]
fn one_change_wakes_ten_thousand_waiters_and_no_dropped_one() {
    let (registry, id, other) = two();
    let mut waiters: Vec<_> =
        (0..10_000).map(|_| (registry.wait_ready(id), Wakes::new())).collect();
    let mut unconcerned = (registry.wait_ready(other), Wakes::new());
    for (future, (_, waker)) in waiters.iter_mut().chain([&mut unconcerned]) {
        assert!(poll_with(future, waker).is_pending());
    }
    assert_eq!(waiting(&registry, id), 10_000);
    let (mut kept, mut dropped) = (vec![], vec![]);
    for (i, (future, (wakes, _))) in waiters.into_iter().enumerate() {
        match i % 2 {
            0 => kept.push((future, wakes)),
            _ => dropped.push(wakes),
        }
    }
    assert_eq!(waiting(&registry, id), 5_000);

    let _service = up(&registry, id, 7);
    assert!(dropped.iter().all(|wakes| wakes.count() == 0), "a dropped waiter was woken");
    assert_eq!(unconcerned.1.0.count(), 0, "a waiter of another service was woken");
    for (future, wakes) in &mut kept {
        assert!(wakes.count() > 0, "a waiter was not woken");
        assert!(matches!(poll_once(future), Poll::Ready(Ok(instance)) if **instance == 7));
    }
    assert_eq!(waiting(&registry, id), 0);
}

#[test]
fn one_change_ends_the_waits_of_ten_thousand_tasks_and_fifty_threads() {
    let (registry, id, _) = two();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let tasks: Vec<_> = (0..10_000)
        .map(|_| {
            let registry = registry.clone();
            runtime.spawn(async move { **registry.wait_ready(id).await.unwrap() })
        })
        .collect();
    let threads: Vec<_> = (0..50)
        .map(|_| {
            let registry = registry.clone();
            thread::spawn(move || **registry.wait_ready(id).wait_blocking_timeout(LONG).unwrap())
        })
        .collect();
    until("all wait", || waiting(&registry, id) == 10_050);
    let _service = up(&registry, id, 7);
    let ready = tasks.into_iter().map(|task| pollster::block_on(task).unwrap());
    let ready = ready.chain(threads.into_iter().map(|thread| thread.join().unwrap()));
    assert_eq!(ready.filter(|&value| value == 7).count(), 10_050);
    assert_eq!(waiting(&registry, id), 0);
}

/// Polls the future `times` times, before its change.
fn polled<F: Future + Unpin>(mut future: F, times: usize) -> F {
    for _ in 0..times {
        assert!(poll_once(&mut future).is_pending());
    }
    future
}

/// Drops the future after its change, with one more poll or without.
fn end<F: Future + Unpin>(mut future: F, poll: bool) {
    if poll {
        assert!(poll_once(&mut future).is_ready());
    }
}

#[test]
fn every_kind_of_wait_may_be_dropped_after_any_number_of_polls() {
    let (registry, first, second) = two();
    let provide_first = registry.provide(first).unwrap();
    let provide_second = registry.provide(second).unwrap();
    let down = |id| registry.status(id).unwrap().phase == Phase::Down;
    for (before, last) in [0, 1, 2, 3].into_iter().flat_map(|n| [(n, false), (n, true)]) {
        // Each time another future waits for the same change, and is woken.
        let (wakes, waker) = Wakes::new();
        let woken = |changes: usize| {
            assert!(wakes.count() >= changes, "after {before} polls, then {last}");
        };

        let future = polled(registry.wait_ready(first), before);
        let mut other = registry.wait_ready(first);
        assert!(poll_with(&mut other, &waker).is_pending());
        let running = publish(&provide_first, 1);
        end(future, last);
        woken(1);
        drop(other);

        let future = polled(running.failed(), before);
        let mut other = running.failed();
        assert!(poll_with(&mut other, &waker).is_pending());
        registry.fail(first, "next").unwrap();
        end(future, last);
        woken(2);
        drop(other);
        drop(running);

        let attempt = provide_first.begin().wait_blocking().unwrap();
        let future = polled(provide_first.begin(), before);
        let mut other = registry.wait_ready(first);
        assert!(poll_with(&mut other, &waker).is_pending());
        attempt.fail("next").unwrap();
        end(future, last);
        assert!(down(first), "a dropped wait left an attempt");
        woken(3);
        drop(other);

        let attempt = provide_second.begin().wait_blocking().unwrap();
        let future = polled(attempt.wait_for(first), before);
        let mut other = attempt.wait_for(first);
        assert!(poll_with(&mut other, &waker).is_pending());
        let running = publish(&provide_first, 1);
        end(future, last);
        woken(4);
        drop(other);

        let future = polled(attempt.invalidated(), before);
        let mut other = attempt.invalidated();
        assert!(poll_with(&mut other, &waker).is_pending());
        running.fail("from below");
        end(future, last);
        woken(5);
        drop(other);
        drop(attempt);
        assert_eq!((waiting(&registry, first), waiting(&registry, second)), (0, 0));
    }
    assert!(down(first) && down(second));
}

/// One wait is dropped during the change, and another one stays.
#[test]
fn a_wait_may_be_dropped_during_the_change_and_others_are_woken() {
    must_finish("waits that are dropped while they are woken", || {
        let (registry, id, _) = two();
        let provider = registry.provide(id).unwrap();
        let (seed, step) = (Seed::new(), &Barrier::new(2));
        let lag = |n: usize| (0..n).for_each(|_| std::hint::spin_loop());
        thread::scope(|scope| {
            let (registry, mut random) = (&registry, seed.random(1));
            scope.spawn(move || {
                for _ in 0..3_000 {
                    step.wait();
                    let (wakes, waker) = Wakes::new();
                    let mut stays = registry.wait_ready(id);
                    let future = polled(registry.wait_ready(id), random.below(3));
                    assert!(poll_with(&mut stays, &waker).is_pending());
                    step.wait();
                    lag(random.below(400));
                    drop(future);
                    step.wait();
                    assert!(wakes.count() > 0, "the other waiter was not woken");
                    assert!(poll_once(&mut stays).is_ready());
                    assert_eq!(waiting(registry, id), 0);
                    step.wait();
                }
            });
            let mut random = seed.random(2);
            for _ in 0..3_000 {
                let attempt = provider.begin().wait_blocking().unwrap();
                step.wait();
                step.wait();
                lag(random.below(400));
                let running = attempt.ready(1).unwrap();
                step.wait();
                step.wait();
                drop(running);
            }
        });
    });
}

#[test]
fn the_status_counts_waits_of_readers_and_attempts() {
    let (registry, first, second) = two();
    let provide_first = registry.provide(first).unwrap();
    let provide_second = registry.provide(second).unwrap();
    let attempt = provide_second.begin().wait_blocking().unwrap();
    let mut unpolled = registry.wait_ready(first);
    let reader = polled(registry.wait_ready(first), 2);
    let dependent = polled(attempt.wait_for(first), 2);
    let _invalidated = polled(attempt.invalidated(), 1);
    let _begin = polled(provide_second.begin(), 1);
    assert_eq!((waiting(&registry, first), waiting(&registry, second)), (2, 0));
    drop(reader);
    assert_eq!(waiting(&registry, first), 1);
    assert!(poll_once(&mut unpolled).is_pending());
    assert_eq!(waiting(&registry, first), 2);
    let _running = publish(&provide_first, 1);
    assert!(poll_once(&mut unpolled).is_ready());
    assert_eq!(waiting(&registry, first), 1, "a wait is counted until it is polled or dropped");
    drop(dependent);
    assert_eq!(waiting(&registry, first), 0);
}

#[test]
fn the_first_of_two_combined_waits_ends_both() {
    let (registry, first, second) = two();
    let both = || async {
        let one = async { **registry.wait_ready(first).await.unwrap() };
        let other = async { **registry.wait_ready(second).await.unwrap() };
        or(one, other).await
    };
    thread::scope(|scope| {
        let selecting = scope.spawn(|| pollster::block_on(both()));
        until("it waits for both services", || {
            (waiting(&registry, first), waiting(&registry, second)) == (1, 1)
        });
        let _second = up(&registry, second, 2);
        assert_eq!(selecting.join().unwrap(), 2);
        assert_eq!(waiting(&registry, first), 0, "the other wait is still counted");
        let _first = up(&registry, first, 1);
        assert_eq!(smol::block_on(both()), 1);
    });
}

#[test]
fn a_finished_wait_does_nothing_if_it_is_polled_again() {
    let (registry, id, _) = two();
    let provider = registry.provide(id).unwrap();
    let mut begin = provider.begin();
    let Poll::Ready(Ok(attempt)) = poll_once(&mut begin) else { panic!("the slot is free") };
    drop(attempt);
    assert!(poll_once(&mut begin).is_pending());
    assert_eq!(registry.status(id).unwrap().phase, Phase::Down, "a second attempt has begun");
}
