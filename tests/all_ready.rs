//! Waiting for all services, and the waits that an executor bounds in time.
//!
//! - It ends once all are ready at a look, also those that are registered while it waits, and those that have failed
//!   since they were looked at.
//! - Its errors name what is missing, in the order of registration, each with the way to what keeps it, and with a reason
//!   where nothing else keeps it.
//! - A wait that is bounded by a clock ends at that moment, not before; and as it would otherwise where it ends sooner.

mod support;

use std::{
    pin::pin,
    task::{Context, Poll, Waker},
    thread,
    time::Duration,
};

use mainstay::{
    AllReadyError, Missing, Phase, Registry, ServiceId, VirtualClock, WaitError, WaitForError,
};
use support::{LONG, MOMENT, Wakes, again, poll_once, poll_with, stage::ms, up};

fn registry<const N: usize>(names: [&str; N]) -> (Registry, [ServiceId<u32>; N]) {
    let registry = Registry::with_capacity(8).unwrap();
    let ids = names.map(|name| registry.register(name).unwrap());
    (registry, ids)
}

fn names(missing: &[Missing]) -> Vec<(&str, Vec<&str>)> {
    missing
        .iter()
        .map(|missing| (&*missing.service, missing.blocked_by.iter().map(|name| &**name).collect()))
        .collect()
}

#[test]
fn what_is_missing_is_named_with_the_way_to_what_keeps_it() {
    let (registry, [config, pool, cache, server]) = registry(["config", "pool", "cache", "server"]);
    for (dependent, dependency) in [(pool, config), (server, pool), (server, cache)] {
        registry.add_dependency(dependent, dependency).unwrap();
    }
    let (_cache_provider, cache_running) = up(&registry, cache, 1);
    let config_provider = registry.provide(config).unwrap();
    config_provider.begin().wait_timeout(LONG).unwrap().fail("line 3").unwrap();
    let server_provider = registry.provide(server).unwrap();
    let _attempt = server_provider.begin().wait_timeout(LONG).unwrap();

    let error = registry.wait_all_ready().wait_timeout(MOMENT).unwrap_err();
    let AllReadyError::TimedOut { missing, after } = &error else { panic!("{error}") };
    assert!(*after >= MOMENT);
    let expected =
        [("config", vec![]), ("pool", vec!["config"]), ("server", vec!["pool", "config"])];
    assert_eq!(names(missing), expected);
    let phases: Vec<_> = missing.iter().map(|missing| missing.phase).collect();
    assert_eq!(phases, [Phase::Down, Phase::Down, Phase::Starting]);
    assert_eq!(missing[0].last_failure.as_ref().unwrap().to_string(), "config failed: line 3");
    let said = error.to_string();
    let what = "config is down (config failed: line 3); pool is down, blocked by config; \
                server is starting, blocked by pool -> config";
    assert!(
        said.starts_with("not ready within ") && said.ends_with(&format!(": {what}")),
        "{said}"
    );

    // The cache comes before the pool in no order but that of registration.
    cache_running.fail("evicted");
    let error = registry.wait_all_ready().wait_timeout(Duration::ZERO).unwrap_err();
    let AllReadyError::TimedOut { missing, .. } = &error else { panic!("{error}") };
    assert_eq!(names(missing)[2..], [("cache", vec![]), ("server", vec!["pool", "config"])]);

    registry.close();
    let error = registry.wait_all_ready().wait_timeout(LONG).unwrap_err();
    let AllReadyError::Closed { missing } = &error else { panic!("{error}") };
    assert_eq!(missing.len(), 4);
    assert!(error.to_string().starts_with("the registry is closed: config is down"), "{error}");
}

#[test]
fn nothing_and_everything() {
    let (registry, []) = registry([]);
    registry.wait_all_ready().wait_timeout(Duration::ZERO).unwrap();
    let id = registry.register::<u32>("a").unwrap();
    assert!(registry.wait_all_ready().wait_timeout(Duration::ZERO).is_err());
    let _up = up(&registry, id, 1);
    registry.wait_all_ready().wait_timeout(Duration::ZERO).unwrap();
    registry.close();
    // What is ready is read on after that.
    registry.wait_all_ready().wait_timeout(Duration::ZERO).unwrap();
}

#[test]
fn a_close_ends_it() {
    let (registry, [_a]) = registry(["a"]);
    let mut all = registry.wait_all_ready();
    assert!(poll_once(&mut all).is_pending());
    registry.close();
    let Poll::Ready(Err(AllReadyError::Closed { missing })) = poll_once(&mut all) else { panic!() };
    assert_eq!(names(&missing), [("a", vec![])]);
}

#[test]
fn one_that_fails_while_another_is_waited_for() {
    let (registry, [a, b]) = registry(["a", "b"]);
    let (a_provider, _a) = up(&registry, a, 1);
    let mut all = registry.wait_all_ready();
    let (wakes, waker) = Wakes::new();
    assert!(poll_with(&mut all, &waker).is_pending());
    registry.fail(a, "meanwhile").unwrap();
    let _b = up(&registry, b, 1);
    assert!(wakes.count() >= 1);
    assert!(poll_with(&mut all, &waker).is_pending(), "a has failed since");
    let before = wakes.count();
    let _a = again(&a_provider, 2);
    assert!(wakes.count() > before);
    assert!(matches!(poll_with(&mut all, &waker), Poll::Ready(Ok(()))));
}

#[test]
fn one_that_is_registered_meanwhile() {
    let (registry, [a]) = registry(["a"]);
    let mut all = registry.wait_all_ready();
    assert!(poll_once(&mut all).is_pending());
    let late = registry.register::<u32>("late").unwrap();
    let _a = up(&registry, a, 1);
    assert!(poll_once(&mut all).is_pending());
    let _late = up(&registry, late, 1);
    assert!(matches!(poll_once(&mut all), Poll::Ready(Ok(()))));
}

#[test]
fn they_come_up_in_any_order_while_a_thread_waits() {
    // A look may find that the one it was about to wait for has come, and that another is missing.
    for round in 0..100 {
        let (registry, mut ids) = registry(["a", "b", "c", "d", "e", "f"]);
        if round % 2 == 1 {
            ids.reverse();
        }
        thread::scope(|scope| {
            let waits = scope.spawn(|| registry.wait_all_ready().wait_timeout(LONG).is_ok());
            let _up = ids.map(|id| {
                thread::yield_now();
                up(&registry, id, 1)
            });
            assert!(waits.join().unwrap());
        });
    }
}

#[test]
fn bounded_by_a_clock() {
    let (registry, [a, b]) = registry(["a", "b"]);
    let clock = VirtualClock::new();
    let mut context = Context::from_waker(Waker::noop());
    {
        let mut all = pin!(registry.wait_all_ready().within(ms(100), &clock));
        let mut one = pin!(registry.wait_ready(a).within(ms(100), &clock));
        assert!(all.as_mut().poll(&mut context).is_pending());
        assert!(one.as_mut().poll(&mut context).is_pending());
        clock.advance(ms(99));
        assert!(all.as_mut().poll(&mut context).is_pending());
        assert!(one.as_mut().poll(&mut context).is_pending());
        clock.advance(ms(1));
        let Poll::Ready(Err(AllReadyError::TimedOut { missing, after })) = all.poll(&mut context)
        else {
            panic!()
        };
        assert_eq!((names(&missing), after), (vec![("a", vec![]), ("b", vec![])], ms(100)));
        let Poll::Ready(Err(WaitError::TimedOut { after, .. })) = one.poll(&mut context) else {
            panic!()
        };
        assert_eq!(after, ms(100));
    }
    // It ends sooner, and leaves nothing that sleeps.
    {
        let mut all = pin!(registry.wait_all_ready().within(ms(100), &clock));
        assert!(all.as_mut().poll(&mut context).is_pending());
        let (_a, _b) = (up(&registry, a, 1), up(&registry, b, 1));
        // What comes at the last moment counts.
        clock.advance(ms(100));
        assert!(matches!(all.poll(&mut context), Poll::Ready(Ok(()))));
    }
    // A time that no clock can show is no limit.
    {
        let mut all = pin!(registry.wait_all_ready().within(Duration::MAX, &clock));
        assert!(all.as_mut().poll(&mut context).is_pending());
        registry.close();
        assert!(matches!(all.poll(&mut context), Poll::Ready(Err(AllReadyError::Closed { .. }))));
    }
    assert_eq!(clock.sleepers(), 0);
}

#[test]
fn an_attempt_that_waits_within_a_time_tries_again() {
    let (registry, [a, b]) = registry(["a", "b"]);
    let clock = VirtualClock::new();
    let provider = registry.provide(b).unwrap();
    let attempt = provider.begin().wait_timeout(LONG).unwrap();
    let mut context = Context::from_waker(Waker::noop());
    {
        let mut short = pin!(attempt.wait_for(a).within(ms(10), &clock));
        assert!(short.as_mut().poll(&mut context).is_pending());
        clock.advance(ms(10));
        let Poll::Ready(Err(WaitForError::TimedOut { .. })) = short.poll(&mut context) else {
            panic!()
        };
    }
    let _a = up(&registry, a, 7);
    assert_eq!(**attempt.wait_for(a).wait_timeout(LONG).unwrap(), 7);
    let _b = attempt.ready(8).unwrap();
    registry.wait_all_ready().wait_timeout(LONG).unwrap();
}

#[test]
fn the_way_has_an_end() {
    let registry = Registry::with_capacity(100).unwrap();
    let id = |i| registry.register::<u32>(&format!("s{i}")).unwrap();
    let ids: Vec<ServiceId<u32>> = (0..100).map(id).collect();
    for pair in ids.windows(2) {
        registry.add_dependency(pair[1], pair[0]).unwrap();
    }
    let way = |i: usize| registry.status(ids[i]).unwrap().blocked_by;
    assert_eq!((way(50).len(), &*way(50)[49]), (50, "s0"));
    assert_eq!((way(99).len(), &*way(99)[63]), (64, "s35"));
}
