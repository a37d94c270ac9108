//! Supervision: one build.
//!
//! - A builder knows why it builds, how often it has, and until when it may.
//! - One that takes too long or is overtaken is dropped at its next await; a blocking one is told. What it gives is dropped.
//! - Its time stands still while it waits for what it is built from, whoever waits for it.
//! - Its edges are those of its attempt; a build that was kept is over, and makes none.

mod support;

use std::{
    convert::Infallible,
    future::pending,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Instant,
};

use futures_lite::future::zip;
use mainstay::{
    Build, Clock, Doing, Reason, Registry, Restart, TryError, VirtualClock, WaitForError,
};
use support::{
    LONG,
    stage::{Alive, Stage, exact, fails, ms, on_a_thread},
    until,
};

#[test]
fn a_builder_knows_why_it_builds() {
    let mut stage = Stage::new();
    let id = stage.service("a");
    let seen = Arc::<Mutex<Vec<_>>>::default();
    let notes = Arc::clone(&seen);
    stage.supervise(id, exact(), move |build| {
        let why = build.last_failure().map(|failure| failure.reason.to_string());
        let note = (build.number(), build.generation(), why.unwrap_or_default());
        assert!(format!("{build:?}").contains("service: \"a\""));
        assert!(build.deadline().is_none() && !build.is_overtaken());
        notes.lock().unwrap().push(note);
        async move {
            if build.number() < 3 { Err(format!("number {}", build.number())) } else { Ok(1) }
        }
    });
    stage.settle();
    stage.advance(ms(100));
    stage.advance(ms(200));
    stage.registry.fail(id, "from outside").unwrap();
    stage.settle();
    stage.advance(ms(400));
    assert_eq!(stage.get(id), Some(1));
    let seen = seen.lock().unwrap();
    let seen: Vec<(u32, u64, &str)> = seen.iter().map(|(n, g, why)| (*n, *g, &**why)).collect();
    let first = [(1, 0, ""), (2, 0, "number 1"), (3, 0, "number 2"), (4, 1, "from outside")];
    assert_eq!(seen, first);
}

#[test]
fn a_build_that_takes_too_long_or_is_overtaken_is_dropped() {
    let mut stage = Stage::new();
    let (id, alive) = (stage.service("a"), Arc::<AtomicUsize>::default());
    let count = Arc::clone(&alive);
    let deadline = Arc::<Mutex<Option<Instant>>>::default();
    let note = Arc::clone(&deadline);
    stage.supervise(id, exact().build_timeout(ms(30)), move |build| {
        let alive = Alive::new(&count);
        *note.lock().unwrap() = build.deadline();
        async move {
            let _alive = alive;
            pending::<Result<u32, Infallible>>().await
        }
    });
    stage.settle();
    assert_eq!(alive.load(Ordering::Relaxed), 1);
    assert_eq!(*deadline.lock().unwrap(), Some(stage.clock.now() + ms(30)));
    stage.advance(ms(29));
    assert_eq!(stage.doing(id), Doing::Building);
    stage.advance(ms(1));
    assert_eq!(alive.load(Ordering::Relaxed), 0);
    assert_eq!(stage.supervision(id).next_try_in, Some(ms(100)));
    let failure = stage.registry.status(id).unwrap().last_failure.unwrap();
    let Reason::Error(error) = &failure.reason else { panic!("{failure}") };
    assert_eq!(error.downcast_ref(), Some(&TryError::TimedOut { after: ms(30) }));

    stage.advance(ms(100));
    assert_eq!((alive.load(Ordering::Relaxed), stage.doing(id)), (1, Doing::Building));
    assert_eq!(stage.registry.fail(id, "anew").unwrap().overtaken, 1);
    stage.settle();
    assert_eq!((alive.load(Ordering::Relaxed), stage.doing(id)), (0, Doing::Resting));

    stage.advance(ms(200));
    assert_eq!((alive.load(Ordering::Relaxed), stage.doing(id)), (1, Doing::Building));
    stage.registry.close();
    stage.settle();
    assert_eq!((alive.load(Ordering::Relaxed), stage.tasks.len()), (0, 0));
    assert_eq!(stage.clock.sleepers(), 0);
}

#[test]
fn edges_of_a_build_are_those_of_its_attempt() {
    let mut stage = Stage::new();
    let [a, b, c] = ["a", "b", "c"].map(|name| stage.service(name));
    stage.supervise(a, exact(), fails(0));
    stage.supervise(b, exact(), fails(0));
    let mut calls = 0;
    stage.supervise(c, exact(), move |build| {
        calls += 1;
        let from = if calls == 1 { a } else { b };
        async move { build.wait_for(from).await.map(|from| **from) }
    });
    stage.settle();
    let registry = stage.registry.clone();
    let names = |id| {
        let status = registry.status(id).unwrap();
        status.dependencies.iter().map(|edge| edge.name.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(names(c), ["a"]);
    stage.registry.fail(a, "no longer used").unwrap();
    stage.settle();
    assert_eq!(names(c), ["b"], "what the last build has not used is no dependency");
    assert_eq!(stage.registry.fail(a, "nor does it matter").unwrap().went_down, 0);
}

#[test]
fn a_build_that_was_kept_is_over() {
    let mut stage = Stage::new();
    let (a, b) = (stage.service("a"), stage.service("b"));
    let kept = Arc::<Mutex<Option<Build<u32>>>>::default();
    let keep = Arc::clone(&kept);
    stage.supervise(a, exact(), move |build| {
        *keep.lock().unwrap() = Some(build);
        async { Ok::<_, Infallible>(1) }
    });
    stage.settle();
    let build = kept.lock().unwrap().take().unwrap();
    assert!(build.is_overtaken());
    match build.wait_for(b).wait() {
        Err(WaitForError::Over { service }) => assert_eq!(service, "b"),
        other => panic!("{other:?}"),
    }
    assert!(stage.registry.status(a).unwrap().dependencies.is_empty());
}

/// What is away is charged, and not who waits for it.
#[test]
fn the_time_of_a_build_stands_still_while_it_waits() {
    let mut stage = Stage::new();
    let (a, b, c) = (stage.service("a"), stage.service("b"), stage.service("c"));
    let clock = stage.clock.clone();
    stage.supervise(c, exact().build_timeout(ms(30)), move |build| {
        let clock = clock.clone();
        async move {
            let begun = clock.now();
            clock.sleep_until(begun + ms(10)).await;
            assert_eq!(build.deadline(), Some(begun + ms(30)));
            // Both at once, of which one is away for longer.
            let ((), a) = zip(async { drop(build.wait_to_start(b).await) }, async {
                build.wait_for(a).await.map(|a| **a)
            })
            .await;
            assert_eq!(build.deadline(), Some(clock.now() + ms(20)));
            if a? == 1 {
                pending::<()>().await;
            }
            clock.sleep_until(clock.now() + ms(20)).await;
            Ok::<_, WaitForError>(7)
        }
    });
    stage.settle();
    stage.advance(ms(1_000));
    stage.supervise(b, exact(), fails(0));
    stage.advance(ms(1_000));
    assert_eq!((stage.doing(c), stage.supervision(c).charges), (Doing::Building, 0));
    stage.supervise(a, exact(), fails(0));
    stage.settle();
    stage.advance(ms(19));
    assert_eq!((stage.doing(c), stage.supervision(c).charges), (Doing::Building, 0));
    stage.advance(ms(1));
    assert_eq!((stage.doing(c), stage.supervision(c).charges), (Doing::Resting, 1));

    // One that takes just as long as it may.
    stage.registry.fail(a, "once").unwrap();
    stage.advance(ms(1_000));
    assert_eq!((stage.get(a), stage.get(c)), (Some(2), Some(7)));
    assert_eq!(stage.supervision(c).charges, 1);
}

#[test]
fn it_goes_on_where_another_has_waited_for_it() {
    let clock = VirtualClock::default();
    let registry = Registry::builder(2).unwrap().clock(clock.clone()).build();
    let [a, b] = ["a", "b"].map(|name| registry.register::<u32>(name).unwrap());
    let (lend, lent) = mpsc::channel::<Build<u32>>();
    let supervisor = registry.supervise(b).unwrap().restart(exact().build_timeout(ms(30)));
    let supervising = thread::spawn(move || {
        pollster::block_on(supervisor.run(move |build| {
            lend.send(build).unwrap();
            pending::<Result<u32, Infallible>>()
        }));
    });
    let build = lent.recv_timeout(LONG).unwrap();
    until("its time runs", || clock.sleepers() == 1);
    let waiting = thread::spawn(move || drop(build.wait_for(a).wait().unwrap()));
    until("it is waited for", || registry.status(a).unwrap().waiting == 1);
    clock.advance(ms(1_000));
    let provider = registry.provide(a).unwrap();
    let _running = provider.begin().wait().unwrap().ready(1).unwrap();
    waiting.join().unwrap();
    until("its time runs again", || clock.sleepers() == 1);
    let doing = || registry.status(b).unwrap().supervision.unwrap().doing;
    assert_eq!(doing(), Doing::Building);
    clock.advance(ms(30));
    until("it is over", || doing() == Doing::Resting);
    registry.close();
    supervising.join().unwrap();
}

#[test]
fn a_blocking_build_is_told() {
    let registry = Registry::with_capacity(1).unwrap();
    let id = registry.register::<u32>("a").unwrap();
    let restart = Restart::default().backoff(ms(1), ms(1)).build_timeout(ms(20));
    let (began, begun) = mpsc::channel();
    let mut calls = 0;
    let thread = on_a_thread(registry.supervise(id).unwrap().restart(restart), move |build| {
        calls += 1;
        match calls {
            1 => {
                began.send(()).unwrap();
                build.overtaken().wait_timeout(LONG).unwrap();
                assert!(build.is_overtaken());
                Ok(calls)
            }
            2 => {
                let left = build.deadline().unwrap() - Instant::now();
                thread::sleep(left + ms(1));
                Ok(calls)
            }
            _ => Ok::<_, Infallible>(calls),
        }
    });
    begun.recv_timeout(LONG).unwrap();
    registry.fail(id, "anew").unwrap();
    assert_eq!(**registry.wait_ready(id).wait_timeout(LONG).unwrap(), 3);
    let failure = registry.status(id).unwrap().last_failure.unwrap();
    assert_eq!(failure.reason.to_string(), "not built within 20ms");
    registry.close();
    thread.join().unwrap();
}
