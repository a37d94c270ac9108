//! Wakers that panic, that run their task in place, and that run on threads that end.
//!
//! - If a waker panics, when it is called or dropped, the change is complete and the other waiters
//!   are woken.
//! - If a waker panics when it is cloned, only that poll panics. The wait continues in the next
//!   poll.
//! - A waker may run its task in place. The task may wait, provide and fail, and so run further
//!   wakers.
//! - A waker runs after the cascade that called it has ended.
//! - The same holds on a thread that ends and has already dropped its thread-local values.
//! - A future may move from one thread, task or waker to another. The last waker is called, and
//!   the thread of an earlier poll may have ended.
//! - A waker is dropped with its wait.

use std::{
    cell::RefCell,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Wake, Waker},
    thread,
};

use crate::support::{
    LONG, Wakes, must_finish, poll_once, poll_with, poll_with_bomb, publish, registry_of,
    unclonable, up,
};
use mainstay::{Phase, Registry, Running, ServiceId, error::WaitForError};

fn two() -> (Registry, ServiceId<u32>, ServiceId<u32>) {
    let (registry, [first, second]) = registry_of(["first", "second"]);
    (registry, first, second)
}

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A task whose waker polls it in place.
struct InPlace(Mutex<Option<Boxed<()>>>);

impl InPlace {
    fn start(task: impl Future<Output = ()> + Send + 'static) -> Arc<Self> {
        let task = Arc::new(Self(Mutex::new(Some(Box::pin(task)))));
        Arc::clone(&task).wake();
        task
    }

    fn is_done(&self) -> bool {
        self.0.lock().unwrap().is_none()
    }
}

impl Wake for InPlace {
    fn wake(self: Arc<Self>) {
        // A task that is being polled further down on this stack checks again by itself.
        let Some(mut task) = self.0.lock().unwrap().take() else { return };
        let waker = Waker::from(Arc::clone(&self));
        if task.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
            *self.0.lock().unwrap() = Some(task);
        }
    }
}

#[test]
fn a_waker_that_panics_does_not_affect_the_change_or_other_waiters() {
    struct Panics(AtomicUsize);
    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
            panic!("a waker that panics");
        }
    }

    let (registry, id, _) = two();
    let provider = registry.provide(id).unwrap();
    let panics = Arc::new(Panics(AtomicUsize::new(0)));
    for round in 1..4 {
        let mut waiters: Vec<_> = (0..5).map(|_| (registry.wait_ready(id), Wakes::new())).collect();
        let panicking = Waker::from(Arc::clone(&panics));
        for (i, (future, (_, waker))) in waiters.iter_mut().enumerate() {
            let waker = if i % 2 == 1 { &panicking } else { &*waker };
            assert!(poll_with(future, waker).is_pending());
        }
        let running = publish(&provider, round);
        assert_eq!(
            panics.0.load(Ordering::SeqCst),
            2 * round as usize,
            "each panicking waker was called"
        );
        for (i, (future, (wakes, _))) in waiters.iter_mut().enumerate() {
            assert!(i % 2 == 1 || wakes.count() > 0, "a waiter was not woken");
            assert!(poll_once(future).is_ready());
        }
        assert_eq!(*registry.get(id).unwrap(), round);
        let mut failed = running.failed();
        assert!(poll_with(&mut failed, &Waker::from(Arc::new(Panics(0.into())))).is_pending());
        assert_eq!(registry.fail(id, "next").unwrap().failed, 1);
        assert!(poll_once(&mut failed).is_ready());
    }
    let status = registry.status(id).unwrap();
    assert_eq!((status.phase, status.waiters, status.generation.get()), (Phase::Down, 0, 3));
}

/// A waker polls its future once more, with a second waker that panics in its drop, and then drops
/// the future. After that the store is the only holder of the second waker.
#[test]
fn a_waker_that_panics_in_its_drop_does_not_affect_other_waiters() {
    struct Explodes;
    impl Wake for Explodes {
        fn wake(self: Arc<Self>) {}
    }
    impl Drop for Explodes {
        fn drop(&mut self) {
            panic!("a waker that cannot be dropped");
        }
    }
    struct LetsGo(Mutex<Option<Boxed<()>>>);
    impl Wake for LetsGo {
        fn wake(self: Arc<Self>) {
            let Some(mut task) = self.0.lock().unwrap().take() else { return };
            let waker = Waker::from(Arc::new(Explodes));
            assert!(task.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            drop(waker);
            drop(task);
        }
    }

    let (registry, id, _) = two();
    let provider = registry.provide(id).unwrap();
    let attempt = provider.begin().wait_blocking().unwrap();
    let of = registry.clone();
    let mut task: Boxed<()> = Box::pin(async move { drop(of.wait_ready(id).await) });
    let lets_go = Arc::new(LetsGo(Mutex::default()));
    let waker = Waker::from(Arc::clone(&lets_go));
    assert!(task.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    *lets_go.0.lock().unwrap() = Some(task);
    let (wakes, waker) = Wakes::new();
    let mut other = registry.wait_ready(id);
    assert!(poll_with(&mut other, &waker).is_pending());

    attempt.fail("a later attempt publishes").unwrap();
    assert!(lets_go.0.lock().unwrap().is_none());
    assert_eq!(wakes.count(), 1, "the other waiter was not woken");
    assert_eq!(registry.status(id).unwrap().waiters, 1);
    let _running = publish(&provider, 1);
    assert!(poll_once(&mut other).is_ready());
}

#[test]
fn a_waker_that_panics_in_its_drop_does_not_affect_the_poll_or_the_drop_of_its_wait() {
    let (registry, id, _) = two();
    let mut wait = registry.wait_ready(id);
    // Each poll drops the waker of the previous one.
    for _ in 0..3 {
        assert!(poll_with_bomb(&mut wait).is_pending());
    }
    drop(wait);
    let mut wait = registry.wait_ready(id);
    assert!(poll_with_bomb(&mut wait).is_pending());
    let _service = up(&registry, id, 1);
    assert!(poll_with_bomb(&mut wait).is_ready());
    assert_eq!(registry.status(id).unwrap().waiters, 0);
}

#[test]
fn a_waker_that_panics_when_it_is_cloned_ends_only_its_poll() {
    let (registry, id, _) = two();
    let mut wait = registry.wait_ready(id);
    let mut other = registry.wait_ready(id);
    let poll = AssertUnwindSafe(|| drop(poll_with(&mut wait, &unclonable())));
    assert!(catch_unwind(poll).is_err());
    let [(wakes, waker), (others_wakes, others_waker)] = [Wakes::new(), Wakes::new()];
    assert!(poll_with(&mut other, &others_waker).is_pending());
    assert!(poll_with(&mut wait, &waker).is_pending());
    let _service = up(&registry, id, 1);
    assert!(wakes.count() > 0 && others_wakes.count() > 0, "a waiter was not woken");
    assert!(poll_once(&mut wait).is_ready() && poll_once(&mut other).is_ready());
}

/// The provider of `second` runs inside of the calls that provide `first`.
#[test]
fn a_waker_may_run_a_provider_in_place() {
    must_finish("a provider that runs inside of another", || {
        let (registry, first, second) = two();
        let of = registry.clone();
        let task = InPlace::start(async move {
            let provider = of.provide(second).unwrap();
            while let Ok(attempt) = provider.begin().await {
                let value = match attempt.wait_for(first).await {
                    Ok(first) => **first * 10,
                    Err(WaitForError::Invalidated(_)) => continue,
                    Err(_) => return,
                };
                let Ok(running) = attempt.ready(value) else { continue };
                let _ = running.failed().await;
            }
        });
        let provider = registry.provide(first).unwrap();
        for value in 1..100 {
            let running = publish(&provider, value);
            assert_eq!(*registry.get(second).unwrap(), value * 10, "when the first is published");
            running.fail("next");
            assert!(registry.get(second).is_err());
        }
        assert!(!task.is_done());
        registry.close();
        assert!(task.is_done());
    });
}

/// Each task is woken in place by the previous one, and publishes the service for which the next
/// one waits. The last task fails the first service, which wakes the first task again.
#[test]
fn wakers_that_run_their_tasks_in_place_may_nest() {
    must_finish("a chain of tasks that run inside of each other", || {
        let registry = Registry::with_capacity(20).unwrap();
        let ids: Vec<ServiceId<u32>> =
            (0..20).map(|i| registry.register(&i.to_string()).unwrap()).collect();
        let tasks: Vec<_> = (1..20)
            .map(|i| {
                let (registry, below, id) = (registry.clone(), ids[i - 1], ids[i]);
                InPlace::start(async move {
                    let provider = registry.provide(id).unwrap();
                    let attempt = provider.begin().await.unwrap();
                    let value = **attempt.wait_for(below).await.unwrap();
                    let running = attempt.ready(value + 1).unwrap();
                    running.failed().await.unwrap();
                })
            })
            .collect();
        let (of, first, last) = (registry.clone(), ids[0], ids[19]);
        let failing = InPlace::start(async move {
            assert_eq!(**of.wait_ready(last).await.unwrap(), 19);
            assert_eq!(of.fail(first, "from the inside").unwrap().failed, 20);
        });
        let (_provider, running) = up(&registry, ids[0], 0);
        // All tasks have run inside of `ready`.
        assert!(failing.is_done() && tasks.iter().all(|task| task.is_done()));
        assert!(running.instance().is_none());
    });
}

/// A thread that ends drops its thread-local values, the oldest last.
#[test]
fn a_thread_may_wake_others_while_its_thread_locals_are_dropped() {
    thread_local! {
        static KEPT: RefCell<Option<Running<u32>>> = const { RefCell::new(None) };
    }
    must_finish(
        "a failure by a thread that ends, with a waker that runs its task in place",
        || {
            let (registry, id, other) = two();
            let provider = Arc::new(registry.provide(id).unwrap());
            let (of, its) = (registry.clone(), Arc::clone(&provider));
            thread::spawn(move || {
                KEPT.with(|kept| assert!(kept.borrow().is_none()));
                // Wakes a waiter, so that thread-local values of wakes are younger than `KEPT`.
                let mut waiter = of.wait_ready(id);
                assert!(poll_once(&mut waiter).is_pending());
                let running = its.begin().wait_blocking().unwrap().ready(1).unwrap();
                assert!(poll_once(&mut waiter).is_ready());
                let again = {
                    let (of, its) = (of.clone(), Arc::clone(&its));
                    async move {
                        let attempt = its.begin().await.unwrap();
                        let running = attempt.ready(2).unwrap();
                        of.wait_ready(other).await.unwrap();
                        drop(running);
                    }
                };
                InPlace::start(again);
                KEPT.with(|kept| *kept.borrow_mut() = Some(running));
            })
            .join()
            .unwrap();
            assert_eq!(**registry.wait_ready(id).wait_blocking_timeout(LONG).unwrap(), 2);
            registry.close();
        },
    );
}

#[test]
fn the_last_waker_of_a_future_is_woken() {
    let (registry, id, other) = two();
    let (wakes, waker) = Wakes::new();
    let mut future = registry.wait_ready(id);
    assert!(poll_with(&mut future, &Wakes::new().1).is_pending());
    assert!(poll_with(&mut future, &waker).is_pending());
    // A future that waits on two slots.
    let provider = registry.provide(other).unwrap();
    let attempt = provider.begin().wait_blocking().unwrap();
    let (wakes_of_two, waker) = Wakes::new();
    let mut of_two = attempt.wait_for(id);
    assert!(poll_with(&mut of_two, &Wakes::new().1).is_pending());
    assert!(poll_with(&mut of_two, &waker).is_pending());
    let _service = up(&registry, id, 1);
    assert!(wakes.count() > 0 && wakes_of_two.count() > 0, "the last waker was not called");
    assert!(poll_once(&mut future).is_ready() && poll_once(&mut of_two).is_ready());
}

#[test]
fn a_future_is_woken_after_the_thread_that_polled_it_has_ended() {
    let (registry, id, _) = two();
    let polled_and_ended = || {
        let registry = registry.clone();
        thread::spawn(move || {
            let mut future: Boxed<_> = Box::pin(async move { registry.wait_ready(id).await });
            let waker = smol::future::poll_once(&mut future);
            assert!(smol::block_on(waker).is_none());
            future
        })
        .join()
        .unwrap()
    };
    let (dropped, forgotten, kept) = (polled_and_ended(), polled_and_ended(), polled_and_ended());
    assert_eq!(registry.status(id).unwrap().waiters, 3);
    drop(dropped);
    std::mem::forget(forgotten);
    let _service = up(&registry, id, 7);
    assert_eq!(**pollster::block_on(kept).unwrap(), 7);
}

#[test]
fn a_waker_is_dropped_with_its_wait() {
    let (registry, id, _) = two();
    let (wakes, waker) = Wakes::new();
    let mut future = registry.wait_ready(id);
    assert!(poll_with(&mut future, &waker).is_pending());
    drop((future, waker));
    assert_eq!(Arc::strong_count(&wakes), 1);

    let (wakes, waker) = Wakes::new();
    let mut future = registry.wait_ready(id);
    assert!(poll_with(&mut future, &waker).is_pending());
    let _service = up(&registry, id, 1);
    assert!(poll_with(&mut future, &waker).is_ready());
    drop((future, waker));
    assert_eq!(Arc::strong_count(&wakes), 1);
}

#[test]
fn a_waker_runs_only_after_the_whole_cascade() {
    let (registry, first, second) = two();
    registry.depends(second).on(first).unwrap();
    let (_first, _first_runs) = up(&registry, first, 1);
    let (_second, second_runs) = up(&registry, second, 2);
    let found = Arc::new(Mutex::new(None));
    // The wait is for the dependent, which is taken down before the dependency.
    let task = InPlace::start({
        let (registry, found) = (registry.clone(), Arc::clone(&found));
        async move {
            second_runs.failed().await.unwrap();
            *found.lock().unwrap() = Some(registry.status(first).unwrap().phase);
        }
    });
    registry.fail(first, "out").unwrap();
    assert!(task.is_done());
    assert_eq!(*found.lock().unwrap(), Some(Phase::Down), "woken in the middle of the cascade");
}
