//! Waits whose timeout is measured by a clock.
//!
//! - Such a wait times out at exactly its time, and not before. If its change happens earlier, it
//!   ends as it would without a timeout.
//! - A wait that has ended leaves no sleeper at the clock.
//! - If all services become ready just after the timeout, a wait for all of them succeeds.

use std::{
    future::poll_fn,
    pin::pin,
    sync::Mutex,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use crate::support::{LONG, registry_of, up};
use mainstay::{
    error::{AllReadyError, Unavailable, WaitForError, WaitReadyError},
    supervise::{Clock, Sleep},
    test_kit::VirtualClock,
};

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[test]
fn a_wait_times_out_at_exactly_its_time_on_the_clock_and_leaves_no_sleeper() {
    let (registry, [a, b]) = registry_of::<u32, 2>(["a", "b"]);
    let clock = VirtualClock::new();
    let mut context = Context::from_waker(Waker::noop());
    {
        let mut all = pin!(registry.wait_all_ready().timeout(ms(100), &clock));
        let mut one = pin!(registry.wait_ready(a).timeout(ms(100), &clock));
        assert!(all.as_mut().poll(&mut context).is_pending());
        assert!(one.as_mut().poll(&mut context).is_pending());
        clock.advance(ms(99));
        assert!(all.as_mut().poll(&mut context).is_pending());
        assert!(one.as_mut().poll(&mut context).is_pending());
        clock.advance(ms(1));
        let Poll::Ready(Err(AllReadyError::TimedOut { not_ready, after, .. })) =
            all.poll(&mut context)
        else {
            panic!()
        };
        let names: Vec<&str> = not_ready.iter().map(|service| &*service.service).collect();
        assert_eq!((names, after), (vec!["a", "b"], ms(100)));
        assert!(not_ready.iter().all(|service| service.blocked_by.is_empty()));
        let Poll::Ready(Err(WaitReadyError::TimedOut(missing))) = one.poll(&mut context) else {
            panic!()
        };
        assert!(matches!(missing.kind, Unavailable::TimedOut { after, .. } if after == ms(100)));
    }
    // The services are ready before the time is over.
    {
        let mut all = pin!(registry.wait_all_ready().timeout(ms(100), &clock));
        assert!(all.as_mut().poll(&mut context).is_pending());
        let (_a, _b) = (up(&registry, a, 1), up(&registry, b, 1));
        // A check at the last moment counts.
        clock.advance(ms(100));
        assert!(matches!(all.poll(&mut context), Poll::Ready(Ok(()))));
    }
    // A time beyond the range of the clock is no limit.
    {
        let mut all = pin!(registry.wait_all_ready().timeout(Duration::MAX, &clock));
        assert!(all.as_mut().poll(&mut context).is_pending());
        registry.close();
        assert!(matches!(all.poll(&mut context), Poll::Ready(Err(AllReadyError::Closed { .. }))));
    }
    assert_eq!(clock.sleepers(), 0);
}

#[test]
fn an_attempt_may_wait_again_after_a_timeout_on_the_clock() {
    let (registry, [a, b]) = registry_of::<u32, 2>(["a", "b"]);
    let clock = VirtualClock::new();
    let provider = registry.provide(b).unwrap();
    let attempt = provider.begin().wait_blocking_timeout(LONG).unwrap();
    let mut context = Context::from_waker(Waker::noop());
    {
        let mut short = pin!(attempt.wait_for(a).timeout(ms(10), &clock));
        assert!(short.as_mut().poll(&mut context).is_pending());
        clock.advance(ms(10));
        let Poll::Ready(Err(WaitForError::TimedOut { .. })) = short.poll(&mut context) else {
            panic!()
        };
    }
    let _a = up(&registry, a, 7);
    assert_eq!(**attempt.wait_for(a).wait_blocking_timeout(LONG).unwrap(), 7);
    let _b = attempt.ready(8).unwrap();
    registry.wait_all_ready().wait_blocking_timeout(LONG).unwrap();
}

/// A clock of which each sleep runs this work, and has ended then.
struct Works(Mutex<Option<Box<dyn FnOnce() + Send>>>);

impl Clock for Works {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn sleep_until(&self, _: Instant) -> Sleep {
        let work = self.0.lock().unwrap().take().unwrap();
        let mut work = Some(work);
        Box::pin(poll_fn(move |_| {
            work.take().into_iter().for_each(|work| work());
            Poll::Ready(())
        }))
    }
}

#[test]
fn a_wait_for_all_succeeds_if_all_are_ready_just_after_the_timeout() {
    let (registry, [a]) = registry_of::<u32, 1>(["a"]);
    let (sender, service) = std::sync::mpsc::channel();
    let of = registry.clone();
    let clock = Works(Mutex::new(Some(Box::new(move || sender.send(up(&of, a, 1)).unwrap()))));
    let mut all = pin!(registry.wait_all_ready().timeout(ms(100), &clock));
    let waited = all.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(matches!(waited, Poll::Ready(Ok(()))), "{waited:?}");
    drop(service);
}
