//! Sleeps whose wakers panic, by every clock.
//!
//! - If the waker of a sleep panics when it is called or dropped, this affects no other sleep: not
//!   those that exist, and not those that begin later.
//! - If it panics when it is cloned, only that poll panics. The sleep continues in the next poll.
//! - A virtual clock wakes no task, and drops no waker of one, while it holds its lock.
//! - A sleep that wakes its task during a poll is polled again.
//! - A clock of the user does not get the wakers of tasks from a supervisor, a shutdown or a wait.

use std::{
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::{Duration, Instant},
};

use super::runtime::{fails, ms};
use crate::support::{Wakes, poll_once, poll_with, unclonable};
use mainstay::{
    Registry,
    error::WaitReadyError,
    supervise::{Build, Clock, RestartPolicy, Sleep, SmolClock, SystemClock, TokioClock},
    test_kit::VirtualClock,
};

const HOUR: Duration = Duration::from_secs(3_600);

/// A waker that panics, either when it is called or when it is dropped. Counts these panics.
struct Panics {
    in_drop: bool,
    panics: Arc<AtomicUsize>,
}

impl Panics {
    /// The waker, and the number of its panics.
    fn waker(in_drop: bool) -> (Waker, Arc<AtomicUsize>) {
        let panics = Arc::<AtomicUsize>::default();
        (Arc::new(Self { in_drop, panics: Arc::clone(&panics) }).into(), panics)
    }
}

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        if !self.in_drop {
            self.panics.fetch_add(1, Ordering::SeqCst);
            panic!("a waker that panics");
        }
    }
}

impl Drop for Panics {
    fn drop(&mut self) {
        if self.in_drop {
            self.panics.fetch_add(1, Ordering::SeqCst);
            panic!("a waker that cannot be dropped");
        }
    }
}

/// Runs the test with each real clock, on an executor that drives its timers.
fn by_every_clock<F: Future<Output = ()>>(test: impl Fn(Arc<dyn Clock>) -> F) {
    pollster::block_on(test(Arc::new(SystemClock)));
    smol::block_on(test(Arc::new(SmolClock)));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(test(Arc::new(TokioClock)));
}

/// Begins a sleep, and polls it before its time has come: on a busy machine a short one may be over
/// before its first poll. Returns the sleep, its end, and what the poll has returned.
fn begin_sleep<T>(
    clock: &dyn Clock,
    mut poll: impl FnMut(&mut Sleep) -> Option<T>,
) -> (Sleep, Instant, T) {
    (0..10)
        .find_map(|attempt| {
            let until = clock.now() + ms(5 << attempt);
            let mut sleep = clock.sleep_until(until);
            let polled = poll(&mut sleep)?;
            Some((sleep, until, polled))
        })
        .expect("a poll takes less than five seconds")
}

/// Begins a sleep that holds the last reference to a waker that panics.
fn begin_with_panics(clock: &dyn Clock, in_drop: bool) -> (Sleep, Instant, Arc<AtomicUsize>) {
    begin_sleep(clock, |sleep| {
        let (waker, panics) = Panics::waker(in_drop);
        match poll_with(sleep, &waker) {
            Poll::Pending => Some(panics),
            Poll::Ready(()) => {
                // Nothing else owns it.
                let _ = catch_unwind(AssertUnwindSafe(|| drop(waker)));
                None
            }
        }
    })
}

#[test]
fn a_waker_that_panics_when_it_is_called_ends_no_other_sleep() {
    by_every_clock(|clock| async move {
        let (mut panicking, until, panics) = begin_with_panics(&*clock, false);
        // One that exists, and one that begins later.
        clock.sleep_until(until + ms(15)).await;
        clock.sleep_until(until + ms(25)).await;
        assert_eq!(panics.load(Ordering::SeqCst), 1);
        assert!(clock.now() >= until + ms(25));
        assert!(poll_once(&mut panicking).is_ready());
    });
}

#[test]
fn a_waker_that_panics_when_it_is_dropped_ends_no_other_sleep() {
    by_every_clock(|clock| async move {
        // The sleep and its timer are the last owners of the waker. It is dropped after its call.
        let (mut called, until, panics) = begin_with_panics(&*clock, true);
        clock.sleep_until(until + ms(15)).await;
        assert_eq!(panics.load(Ordering::SeqCst), 1);
        assert!(poll_once(&mut called).is_ready());
        // It is dropped with its sleep.
        let (waker, panics) = Panics::waker(true);
        let mut dropped = clock.sleep_until(until + HOUR);
        assert!(poll_with(&mut dropped, &waker).is_pending());
        drop(waker);
        drop(dropped);
        assert_eq!(panics.load(Ordering::SeqCst), 1, "the waker outlives its sleep");
        clock.sleep_until(until + ms(25)).await;
    });
}

#[test]
fn a_waker_that_panics_when_it_is_cloned_ends_only_its_poll() {
    by_every_clock(|clock| async move {
        let (sleep, _, _) = begin_sleep(&*clock, |sleep| {
            let poll = AssertUnwindSafe(|| poll_with(sleep, &unclonable()));
            catch_unwind(poll).err()
        });
        sleep.await;
    });
}

#[test]
fn panicking_wakers_do_not_affect_the_advance_of_a_virtual_clock() {
    let clock = VirtualClock::new();
    let sleep = |waker: &Waker| {
        let mut sleep = clock.sleep_until(clock.now() + HOUR);
        assert!(poll_with(&mut sleep, waker).is_pending());
        sleep
    };
    let [(called, calls), (dropped, drops)] = [false, true].map(Panics::waker);
    let (wakes, waker) = Wakes::new();
    let mut sleeps = [sleep(&called), sleep(&dropped), sleep(&waker)];
    drop(dropped);
    clock.advance(HOUR);
    let panics = [calls, drops].map(|panics| panics.load(Ordering::SeqCst));
    assert_eq!((panics, wakes.count()), ([1, 1], 1));
    assert!(sleeps.iter_mut().all(|sleep| poll_once(sleep).is_ready()));

    // A waker that is replaced, and one that is dropped with its sleep.
    let (dropped, drops) = Panics::waker(true);
    let mut replaced = sleep(&dropped);
    drop(dropped);
    assert!(poll_with(&mut replaced, &waker).is_pending());
    let (dropped, drops_with_sleep) = Panics::waker(true);
    let with_sleep = sleep(&dropped);
    drop(dropped);
    drop(with_sleep);
    assert_eq!([drops, drops_with_sleep].map(|panics| panics.load(Ordering::SeqCst)), [1, 1]);
    assert_eq!(clock.sleepers(), 1);
}

/// A waker that calls its clock when it is called and when it is dropped.
struct CallsClock(VirtualClock, Arc<AtomicUsize>);

impl Wake for CallsClock {
    fn wake(self: Arc<Self>) {
        let _ = self.0.sleepers();
        self.1.fetch_add(1, Ordering::SeqCst);
    }
}

impl Drop for CallsClock {
    fn drop(&mut self) {
        let _ = self.0.sleepers();
        self.1.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn wakers_may_call_the_virtual_clock() {
    crate::support::must_finish("a waker that calls its clock", || {
        let (clock, calls) = (VirtualClock::new(), Arc::<AtomicUsize>::default());
        let sleep = |calls: &Arc<AtomicUsize>| {
            let mut sleep = clock.sleep_until(clock.now() + HOUR);
            let waker = Arc::new(CallsClock(clock.clone(), Arc::clone(calls))).into();
            assert!(poll_with(&mut sleep, &waker).is_pending());
            sleep
        };
        let mut replaced = sleep(&calls);
        assert!(poll_once(&mut replaced).is_pending());
        drop(sleep(&calls));
        assert_eq!(calls.swap(0, Ordering::SeqCst), 2, "calls by drops");
        let _woken = sleep(&calls);
        clock.advance(HOUR);
        assert_eq!(calls.load(Ordering::SeqCst), 2, "a call, and then a drop");
    });
}

/// A clock of a user, which wakes tasks without protection from their panics.
#[derive(Clone)]
struct PlainClock(Arc<Mutex<(Instant, Vec<Waker>)>>);

impl PlainClock {
    fn new() -> Self {
        Self(Arc::new(Mutex::new((Instant::now(), Vec::new()))))
    }

    fn advance(&self, time: Duration) {
        let woken = {
            let mut clock = self.0.lock().unwrap();
            clock.0 += time;
            std::mem::take(&mut clock.1)
        };
        woken.into_iter().for_each(Waker::wake);
    }
}

impl Clock for PlainClock {
    fn now(&self) -> Instant {
        self.0.lock().unwrap().0
    }

    fn sleep_until(&self, deadline: Instant) -> Sleep {
        let clock = self.clone();
        Box::pin(poll_fn(move |context| {
            let mut clock = clock.0.lock().unwrap();
            if clock.0 >= deadline {
                return Poll::Ready(());
            }
            clock.1.push(context.waker().clone());
            Poll::Pending
        }))
    }
}

/// A clock whose sleeps complete in their second poll, and ask for it in their first one.
struct Yields(Instant);

impl Clock for Yields {
    fn now(&self) -> Instant {
        self.0
    }

    fn sleep_until(&self, _: Instant) -> Sleep {
        let mut polled = false;
        Box::pin(poll_fn(move |context| {
            if polled {
                return Poll::Ready(());
            }
            polled = true;
            context.waker().wake_by_ref();
            Poll::Pending
        }))
    }
}

#[test]
fn a_sleep_may_wake_its_task_during_its_poll() {
    let registry = Registry::with_capacity(1).unwrap();
    let id = registry.register::<u32>("a").unwrap();
    let clock = Yields(Instant::now());
    let mut wait = Box::pin(registry.wait_ready(id).timeout(HOUR, &clock));
    let (wakes, waker) = Wakes::new();
    assert!(poll_with(&mut wait, &waker).is_pending());
    assert_eq!(wakes.count(), 1);
    assert!(matches!(poll_with(&mut wait, &waker), Poll::Ready(Err(WaitReadyError::TimedOut(_)))));
}

#[test]
fn a_clock_of_the_user_gets_no_waker_that_panics() {
    let clock = PlainClock::new();
    let registry = Registry::builder(2).unwrap().clock(clock.clone()).build();
    let [a, b] = ["a", "b"].map(|name| registry.register::<u32>(name).unwrap());
    let (waker, panics) = Panics::waker(false);
    let mut context = Context::from_waker(&waker);

    // A wait with a timeout, and a supervisor that backs off.
    let mut wait = pin!(registry.wait_ready(b).timeout(HOUR, &clock));
    assert!(wait.as_mut().poll(&mut context).is_pending());
    let restart = RestartPolicy::default().backoff(HOUR, HOUR).without_jitter();
    let restart = restart.close_timeout(HOUR);
    let supervisor = registry.supervise(a).unwrap().restart_policy(restart);
    let mut builder = fails(1);
    let supervisor = supervisor.on_close(async |_| std::future::pending::<()>().await);
    let mut run = pin!(supervisor.run(move |build: Build<u32>| builder(build)));
    assert!(run.as_mut().poll(&mut context).is_pending());
    clock.advance(HOUR);
    assert_eq!(panics.load(Ordering::SeqCst), 2);
    let Poll::Ready(Err(WaitReadyError::TimedOut(_))) = wait.as_mut().poll(&mut context) else {
        panic!("the timeout has expired")
    };
    assert!(run.as_mut().poll(&mut context).is_pending());
    assert_eq!(*registry.get(a).unwrap(), 2);

    // A shutdown, and a supervisor that stops its service.
    let mut shutdown = pin!(registry.shutdown(HOUR));
    assert!(shutdown.as_mut().poll(&mut context).is_pending());
    assert!(run.as_mut().poll(&mut context).is_pending());
    clock.advance(HOUR);
    assert!(panics.load(Ordering::SeqCst) > 3);
    assert!(shutdown.as_mut().poll(&mut context).is_ready());
    assert!(run.as_mut().poll(&mut context).is_ready());
}
