//! Wakers of every kind, and threads that end.
//!
//! - A waker may panic, also when it is dropped: whoever made the change is not disturbed, and the others are woken.
//! - A waker may run its task in place, which may wait, provide and fail again, and so wake others in place.
//! - A waker finds the change done: it runs when the cascade that woke it is over.
//! - They may do the same while the thread that wakes is ending, and has lost its thread-local values already.
//! - A future may go from one thread, task or waker to another: the last waker is the one that is woken; the
//!   thread that polled it before may have ended.
//! - A waker is kept no longer than its wait.

mod support;

use std::{
    cell::RefCell,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Wake, Waker},
    thread,
};

use mainstay::{Phase, Registry, Running, ServiceId, WaitForError};
use support::{LONG, Wakes, again, poll_once, poll_with, up, within};

fn two() -> (Registry, ServiceId<u32>, ServiceId<u32>) {
    let registry = Registry::with_capacity(2).unwrap();
    let (first, second) =
        (registry.register("first").unwrap(), registry.register("second").unwrap());
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
        // One that is being polled, further down on this stack, looks again by itself.
        let Some(mut task) = self.0.lock().unwrap().take() else { return };
        let waker = Waker::from(Arc::clone(&self));
        if task.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
            *self.0.lock().unwrap() = Some(task);
        }
    }
}

#[test]
fn a_waker_that_panics_disturbs_nobody() {
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
        let running = again(&provider, round);
        assert_eq!(panics.0.load(Ordering::SeqCst), 2 * round as usize, "both were called");
        for (i, (future, (wakes, _))) in waiters.iter_mut().enumerate() {
            assert!(i % 2 == 1 || wakes.count() > 0, "one was left asleep");
            assert!(poll_once(future).is_ready());
        }
        assert_eq!(*registry.get(id).unwrap(), round);
        let mut failed = running.failed();
        assert!(poll_with(&mut failed, &Waker::from(Arc::new(Panics(0.into())))).is_pending());
        assert_eq!(registry.fail(id, "next").unwrap().went_down, 1);
        assert!(poll_once(&mut failed).is_ready());
    }
    let status = registry.status(id).unwrap();
    assert_eq!((status.phase, status.waiting, status.generation), (Phase::Down, 0, 3));
}

/// A waker that polls its future once more, with a waker that panics when it is dropped, and then lets go of the
/// future: nobody but the store has that waker any more.
#[test]
fn a_waker_that_panics_when_it_is_dropped() {
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
    let attempt = provider.begin().wait().unwrap();
    let of = registry.clone();
    let mut task: Boxed<()> = Box::pin(async move { drop(of.wait_ready(id).await) });
    let lets_go = Arc::new(LetsGo(Mutex::default()));
    let waker = Waker::from(Arc::clone(&lets_go));
    assert!(task.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    *lets_go.0.lock().unwrap() = Some(task);
    let (wakes, waker) = Wakes::new();
    let mut other = registry.wait_ready(id);
    assert!(poll_with(&mut other, &waker).is_pending());

    attempt.fail("it comes later").unwrap();
    assert!(lets_go.0.lock().unwrap().is_none());
    assert_eq!(wakes.count(), 1, "the other was left asleep");
    assert_eq!(registry.status(id).unwrap().waiting, 1);
    let _running = again(&provider, 1);
    assert!(poll_once(&mut other).is_ready());
}

/// The whole provider of the second runs inside the calls of whoever provides the first.
#[test]
fn a_waker_that_runs_its_task_in_place() {
    within("a provider that runs inside of another", || {
        let (registry, first, second) = two();
        let of = registry.clone();
        let task = InPlace::start(async move {
            let provider = of.provide(second).unwrap();
            while let Ok(attempt) = provider.begin().await {
                let value = match attempt.wait_for(first).await {
                    Ok(first) => **first * 10,
                    Err(WaitForError::Overtaken(_)) => continue,
                    Err(_) => return,
                };
                let Ok(running) = attempt.ready(value) else { continue };
                let _ = running.failed().await;
            }
        });
        let provider = registry.provide(first).unwrap();
        for value in 1..100 {
            let running = again(&provider, value);
            assert_eq!(*registry.get(second).unwrap(), value * 10, "right after the first");
            running.fail("next");
            assert!(registry.get(second).is_err());
        }
        assert!(!task.is_done());
        registry.close();
        assert!(task.is_done());
    });
}

/// Each task, woken in place by the one before, publishes the service that the next one waits for; the last
/// fails the first, which wakes the first task again.
#[test]
fn wakers_that_run_inside_of_each_other() {
    within("a chain of tasks that run inside of each other", || {
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
            assert_eq!(of.fail(first, "from the inside").unwrap().went_down, 20);
        });
        let (_provider, running) = up(&registry, ids[0], 0);
        // All of that has happened inside of `ready`.
        assert!(failing.is_done() && tasks.iter().all(|task| task.is_done()));
        assert!(running.instance().is_none());
    });
}

/// A thread that ends drops its thread-local values, those last that it had first.
#[test]
fn a_thread_that_wakes_while_it_ends() {
    thread_local! {
        static KEPT: RefCell<Option<Running<u32>>> = const { RefCell::new(None) };
    }
    within("a failure by a thread that ends, with a waker that runs its task in place", || {
        let (registry, id, other) = two();
        let provider = Arc::new(registry.provide(id).unwrap());
        let (of, its) = (registry.clone(), Arc::clone(&provider));
        thread::spawn(move || {
            KEPT.with(|kept| assert!(kept.borrow().is_none()));
            // Wakes somebody, so that what it needs for that is younger than `KEPT`.
            let mut waiter = of.wait_ready(id);
            assert!(poll_once(&mut waiter).is_pending());
            let running = its.begin().wait().unwrap().ready(1).unwrap();
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
        assert_eq!(**registry.wait_ready(id).wait_timeout(LONG).unwrap(), 2);
        registry.close();
    });
}

#[test]
fn a_future_goes_from_one_waker_to_another() {
    let (registry, id, other) = two();
    let (wakes, waker) = Wakes::new();
    let mut future = registry.wait_ready(id);
    assert!(poll_with(&mut future, &Wakes::new().1).is_pending());
    assert!(poll_with(&mut future, &waker).is_pending());
    // Also one on two slots.
    let provider = registry.provide(other).unwrap();
    let attempt = provider.begin().wait().unwrap();
    let (wakes_of_two, waker) = Wakes::new();
    let mut of_two = attempt.wait_for(id);
    assert!(poll_with(&mut of_two, &Wakes::new().1).is_pending());
    assert!(poll_with(&mut of_two, &waker).is_pending());
    let _service = up(&registry, id, 1);
    assert!(wakes.count() > 0 && wakes_of_two.count() > 0, "the last one is woken");
    assert!(poll_once(&mut future).is_ready() && poll_once(&mut of_two).is_ready());
}

#[test]
fn a_future_outlives_the_thread_that_polled_it() {
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
    assert_eq!(registry.status(id).unwrap().waiting, 3);
    drop(dropped);
    std::mem::forget(forgotten);
    let _service = up(&registry, id, 7);
    assert_eq!(**pollster::block_on(kept).unwrap(), 7);
}

#[test]
fn a_waker_is_kept_no_longer_than_its_wait() {
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
fn a_waker_finds_the_cascade_over() {
    let (registry, first, second) = two();
    registry.add_dependency(second, first).unwrap();
    let (_first, _first_runs) = up(&registry, first, 1);
    let (_second, second_runs) = up(&registry, second, 2);
    let found = Arc::new(Mutex::new(None));
    // Woken for the dependent, which is raised before the dependency.
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
