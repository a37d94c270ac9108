//! Supervision: the provider's loop, written once. Its builds are in `building.rs`.
//!
//! - A service comes up, and comes back after each failure: its own, one of what it is built from, an error, a
//!   panic, a build that takes too long; on an executor and on a plain thread.
//! - Failures are charged to whom they began with: a dependent rests never for what it depends on.
//! - Rests are as long as the policy says, to the tick, and are cut short by a reset, by the end, and where something that
//!   the last build has used fails.
//! - Too many charges break a service; the observer hears of it, the status shows it, a reset mends it.
//! - The user's panics, in builders, values, errors and their drops, do not end the loop.
//! - When the registry closes, or the supervisor is dropped, nothing is left.

mod support;

use std::{
    convert::Infallible,
    error::Error,
    fmt,
    future::{Future, pending},
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    thread,
    time::{Duration, Instant},
};

use mainstay::{
    Clock, Doing, Phase, ProvideError, Registry, Restart, Shutdown, SmolClock, SystemClock,
    TokioClock, VirtualClock, WaitForError,
};
use support::{
    LONG, poll_once,
    stage::{Alive, BoxError, Stage, Task, exact, fails, ms, on_a_thread},
    until,
};

#[test]
fn it_comes_up_and_comes_back() {
    let mut stage = Stage::new();
    let (a, b) = (stage.service("a"), stage.service("b"));
    assert_eq!(stage.registry.status(a).unwrap().supervision, None);
    stage.supervise(b, exact(), move |build| async move {
        Ok::<_, WaitForError>(**build.wait_for(a).await? + 100)
    });
    stage.supervise(a, exact(), fails(0));
    assert_eq!(stage.doing(a), Doing::Nothing);
    stage.settle();
    assert_eq!((stage.get(a), stage.get(b)), (Some(1), Some(101)));
    assert_eq!(stage.doing(b), Doing::Up);

    // Both were up for no time: the one that fails rests, the other one only waits.
    assert_eq!(stage.registry.fail(a, "once").unwrap().went_down, 2);
    stage.settle();
    assert_eq!((stage.doing(a), stage.doing(b)), (Doing::Resting, Doing::Building));
    stage.advance(ms(99));
    assert_eq!((stage.get(a), stage.get(b)), (None, None));
    stage.advance(ms(1));
    assert_eq!((stage.get(a), stage.get(b)), (Some(2), Some(102)));
    assert_eq!((stage.supervision(a).charges, stage.supervision(b).charges), (1, 0));

    // Once it is stable it comes back at once.
    stage.advance(ms(5_000));
    stage.registry.fail(a, "twice").unwrap();
    stage.settle();
    assert_eq!((stage.get(a), stage.get(b)), (Some(3), Some(103)));
    assert_eq!(stage.supervision(a).charges, 0);

    stage.registry.close();
    stage.settle();
    assert!(stage.tasks.is_empty());
    assert_eq!(stage.registry.status(a).unwrap().supervision, None);
}

#[test]
fn rests_are_as_long_as_the_policy_says() {
    let mut stage = Stage::new();
    let id = stage.service("a");
    stage.supervise(id, exact(), fails(6));
    stage.settle();
    for (i, rest) in [100, 200, 400, 800, 1_000, 1_000].into_iter().enumerate() {
        let status = stage.supervision(id);
        assert_eq!((status.doing, status.charges), (Doing::Resting, i as u32 + 1));
        assert_eq!(status.next_try_in, Some(ms(rest)));
        let failure = stage.registry.status(id).unwrap().last_failure.unwrap();
        assert_eq!(failure.reason.to_string(), format!("try {}", i + 1));
        stage.advance(ms(rest) - Duration::from_nanos(1));
        assert_eq!(stage.doing(id), Doing::Resting);
        stage.advance(Duration::from_nanos(1));
    }
    assert_eq!(stage.get(id), Some(7));
    assert_eq!(stage.clock.sleepers(), 0);
}

#[test]
fn rests_grow_as_the_policy_says() {
    for (factor, rests) in [(3.0, [50, 150, 400]), (0.5, [50; 3]), (f32::NAN, [50; 3])] {
        let mut stage = Stage::new();
        let id = stage.service("a");
        stage.supervise(id, exact().backoff(ms(50), ms(400)).factor(factor), fails(3));
        stage.settle();
        for rest in rests {
            assert_eq!(stage.supervision(id).next_try_in, Some(ms(rest)), "{factor}");
            stage.advance(ms(rest));
        }
        assert_eq!(stage.get(id), Some(4));
    }
}

#[test]
fn tries_are_charged_to_the_root() {
    let mut stage = Stage::new();
    let (root, leaf) = (stage.service("root"), stage.service("leaf"));
    let strict = exact().at_most(3, ms(3_600_000));
    stage.supervise(root, strict.clone(), fails(0));
    stage.supervise(leaf, strict.at_most(0, ms(3_600_000)), move |build| async move {
        build.wait_for(root).await.map(|root| **root)
    });
    stage.settle();
    for i in 0..3 {
        stage.registry.fail(root, "again").unwrap();
        stage.settle();
        assert_eq!((stage.doing(root), stage.doing(leaf)), (Doing::Resting, Doing::Building));
        stage.advance(ms(100) * 2_u32.pow(i));
        assert_eq!((stage.doing(root), stage.doing(leaf)), (Doing::Up, Doing::Up));
        assert_eq!(stage.supervision(leaf).charges, 0);
    }
    // The leaf would be broken by its first charge; it is the root that breaks.
    stage.registry.fail(root, "once too often").unwrap();
    stage.settle();
    assert_eq!((stage.doing(root), stage.doing(leaf)), (Doing::Broken, Doing::Building));
    let listing = stage.registry.list();
    let blocker = listing.blockers("leaf")[0];
    assert_eq!((&*blocker.name, blocker.supervision.unwrap().doing), ("root", Doing::Broken));

    assert!(stage.registry.reset(root).unwrap());
    stage.settle();
    assert_eq!((stage.doing(root), stage.doing(leaf)), (Doing::Up, Doing::Up));
    stage.registry.fail(leaf, "its own").unwrap();
    stage.settle();
    assert_eq!((stage.doing(root), stage.doing(leaf)), (Doing::Up, Doing::Broken));
}

#[test]
fn a_rest_ends_where_what_it_failed_on_changes() {
    let mut stage = Stage::new();
    let (config, database, other) =
        (stage.service("config"), stage.service("database"), stage.service("other"));
    stage.supervise(config, exact().stable_after(ms(0)), fails(0));
    stage.supervise(other, exact().stable_after(ms(0)), fails(0));
    stage.supervise(database, exact(), move |build| async move {
        let config = **build.wait_for(config).await?;
        if config < 3 { Err(format!("no file {config}").into()) } else { Ok::<_, BoxError>(config) }
    });
    stage.settle();
    assert_eq!((stage.doing(database), stage.supervision(database).charges), (Doing::Resting, 1));
    stage.registry.fail(other, "it has nothing to do with it").unwrap();
    stage.settle();
    assert_eq!((stage.doing(database), stage.supervision(database).charges), (Doing::Resting, 1));
    stage.registry.fail(config, "edited, and wrong again").unwrap();
    stage.settle();
    assert_eq!((stage.doing(database), stage.supervision(database).charges), (Doing::Resting, 2));
    stage.registry.fail(config, "edited").unwrap();
    stage.settle();
    assert_eq!(stage.get(database), Some(3));
}

#[test]
fn what_is_broken_stays_down_until_it_is_reset() {
    let mut stage = Stage::new();
    let id = stage.service("a");
    stage.supervise(id, exact().at_most(2, ms(1_000)), fails(4));
    stage.settle();
    stage.advance(ms(100));
    stage.advance(ms(200));
    assert_eq!(stage.doing(id), Doing::Broken);
    stage.recorder.assert_order(&["a 0: given up: try 3", "a 0: broken: try 3"]);
    stage.advance(ms(3_600_000));
    assert_eq!((stage.doing(id), stage.get(id)), (Doing::Broken, None));

    // As if nothing had happened: the first rest is short again.
    assert!(stage.registry.reset(id).unwrap());
    stage.settle();
    assert_eq!(stage.supervision(id).next_try_in, Some(ms(100)));
    // A reset cuts a rest short, too.
    assert!(stage.registry.reset(id).unwrap());
    stage.settle();
    assert_eq!(stage.get(id), Some(5));
    assert!(!stage.registry.reset(id).unwrap(), "it is up");
    stage.registry.fail(id, "later").unwrap();
    stage.settle();
    assert_eq!(stage.supervision(id).next_try_in, Some(ms(100)), "its next failure is its first");
    stage.advance(ms(100));
    assert_eq!(stage.get(id), Some(6));

    let other = stage.service("not supervised");
    assert!(!stage.registry.reset(other).unwrap());
    assert!(stage.registry.reset(Stage::new().service("foreign")).is_err());
}

#[test]
fn storms_make_one_restart() {
    let mut stage = Stage::new();
    let id = stage.service("a");
    stage.supervise(id, exact().debounce(ms(50)), fails(0));
    stage.settle();
    stage.advance(ms(10_000));
    for _ in 0..10 {
        stage.registry.fail(id, "storm").unwrap();
        stage.advance(ms(4));
    }
    assert_eq!(stage.get(id), None);
    stage.advance(ms(50));
    assert_eq!(stage.get(id), Some(2), "it was built once more, and no more often");
}

/// Panics wherever it can.
#[derive(Debug)]
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("a bomb is dropped");
    }
}

impl fmt::Display for Bomb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a bomb")
    }
}

impl Error for Bomb {}

#[test]
fn panics_do_not_end_it() {
    let mut stage = Stage::new();
    let id = stage.service("a");
    let mut calls = 0;
    stage.supervise(id, exact().backoff(ms(1), ms(1)).build_timeout(ms(10)), move |_| {
        calls += 1;
        let call = calls;
        assert!(call != 1, "in the call");
        async move {
            let _in_the_future = (call == 2).then(|| Bomb);
            match call {
                2 => pending().await,
                3 => panic!("in a poll"),
                4 => Err(Box::new(Bomb) as BoxError),
                5 => std::panic::panic_any(Bomb),
                6 => Err("an error".into()),
                _ => Ok(call),
            }
        }
    });
    stage.settle();
    for why in [
        "the build panicked: in the call",
        "not built within 10ms",
        "the build panicked: in a poll",
        "a bomb",
        "the build panicked: it did not say why",
        "an error",
    ] {
        if stage.doing(id) == Doing::Building {
            stage.advance(ms(10));
        }
        let failure = stage.registry.status(id).unwrap().last_failure.unwrap();
        assert_eq!(failure.reason.to_string(), why);
        std::mem::forget(failure);
        stage.advance(ms(1));
    }
    assert_eq!(stage.get(id), Some(7));
}

#[test]
fn nor_do_they_at_the_end() {
    let mut stage = Stage::new();
    let id = stage.service("a");
    let registry = stage.registry.clone();
    stage.supervise(id, exact(), move |_| {
        registry.close();
        async { Err::<u32, _>(Box::new(Bomb) as BoxError) }
    });
    stage.settle();
    assert!(stage.tasks.is_empty(), "it has ended, and not by a panic");
}

#[test]
fn a_dropped_supervisor_leaves_nothing() {
    let mut stage = Stage::new();
    let (id, alive) = (stage.service("a"), Arc::<AtomicUsize>::default());
    for up in [true, false] {
        let count = Arc::clone(&alive);
        stage.supervise(id, exact(), move |_| {
            let alive = Alive::new(&count);
            async move {
                let _alive = alive;
                if up { Ok::<_, Infallible>(1) } else { pending().await }
            }
        });
        let refused = stage.registry.supervise(id).unwrap_err();
        assert!(matches!(refused, ProvideError::AlreadyProvided { .. }));
        stage.settle();
        assert_eq!(alive.load(Ordering::Relaxed), usize::from(!up));
        stage.tasks.clear();
        assert_eq!((alive.load(Ordering::Relaxed), stage.get(id)), (0, None));
        let status = stage.registry.status(id).unwrap();
        assert_eq!((status.phase, status.provided), (Phase::Down, false));
        assert_eq!(status.supervision, None);
    }
    // One that never ran.
    drop(stage.registry.supervise(id).unwrap());
    assert!(!stage.registry.status(id).unwrap().provided);
}

#[test]
fn on_plain_threads() {
    let registry = Registry::with_capacity(2).unwrap();
    let [a, b] = ["a", "b"].map(|name| registry.register::<u32>(name).unwrap());
    let quick = Restart::default().backoff(ms(1), ms(2));
    let mut calls = 0;
    let threads = [
        on_a_thread(registry.supervise(a).unwrap().restart(quick.clone()), move |_| {
            calls += 1;
            assert!(calls != 2, "the second call");
            if calls % 3 == 0 { Err(Box::new(Bomb) as BoxError) } else { Ok(calls) }
        }),
        on_a_thread(registry.supervise(b).unwrap().restart(quick), move |build| {
            build.wait_for(a).wait().map(|a| **a)
        }),
    ];
    for _ in 0..20 {
        registry.wait_ready(b).wait_timeout(LONG).unwrap();
        registry.fail(a, "again").unwrap();
    }
    registry.wait_ready(b).wait_timeout(LONG).unwrap();
    registry.close();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

/// Has one service fail twice, be mended by chance, and go on; by a clock and an executor of their own.
fn by_the_clock(clock: impl Clock, spawn: impl FnOnce(Task)) {
    let registry = Registry::builder(1).unwrap().clock(clock).build();
    let id = registry.register::<u32>("a").unwrap();
    let restart = Restart::default().backoff(ms(5), ms(10)).without_jitter();
    let supervisor = registry.supervise(id).unwrap().restart(restart.build_timeout(ms(2_000)));
    let begun = Instant::now();
    spawn(Box::pin(supervisor.run(fails(2))));
    assert_eq!(**registry.wait_ready(id).wait_timeout(LONG).unwrap(), 3);
    assert!(begun.elapsed() >= ms(15), "it rests");
    registry.fail(id, "again").unwrap();
    assert_eq!(**registry.wait_ready(id).wait_timeout(LONG).unwrap(), 4);
    registry.close();
    until("the supervisor ends", || registry.status(id).unwrap().supervision.is_none());
}

#[test]
fn by_every_clock() {
    by_the_clock(SystemClock, |task| drop(thread::spawn(|| pollster::block_on(task))));
    by_the_clock(SmolClock, |task| drop(thread::spawn(|| smol::block_on(task))));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_time()
        .build()
        .unwrap();
    by_the_clock(TokioClock, |task| drop(runtime.spawn(task)));
}

#[test]
fn a_thread_rests() {
    let registry = Registry::with_capacity(1).unwrap();
    let id = registry.register::<u32>("a").unwrap();
    let restart = Restart::default().backoff(ms(5), ms(10)).without_jitter();
    let (begun, mut calls) = (Instant::now(), 0);
    let thread = on_a_thread(registry.supervise(id).unwrap().restart(restart), move |_| {
        calls += 1;
        if calls > 2 { Ok(calls) } else { Err("not yet") }
    });
    registry.wait_ready(id).wait_timeout(LONG).unwrap();
    assert!(begun.elapsed() >= ms(15));
    registry.close();
    thread.join().unwrap();
}

/// By a clock whose moments are its own, a thread sleeps as that says.
#[test]
fn a_thread_rests_by_the_clock() {
    let clock = VirtualClock::default();
    let registry = Registry::builder(1).unwrap().clock(clock.clone()).build();
    let id = registry.register::<u32>("a").unwrap();
    let hour = Duration::from_secs(3_600);
    let restart = Restart::default().backoff(hour, hour).without_jitter();
    let mut calls = 0;
    let thread = on_a_thread(registry.supervise(id).unwrap().restart(restart), move |_| {
        calls += 1;
        if calls > 1 { Ok(calls) } else { Err("not yet") }
    });
    until("it sleeps", || clock.sleepers() == 1);
    clock.advance(hour);
    assert_eq!(**registry.wait_ready(id).wait_timeout(LONG).unwrap(), 2);
    registry.close();
    thread.join().unwrap();
}

#[test]
fn a_rest_for_ever_is_ended_by_the_end() {
    let registry = Registry::with_capacity(1).unwrap();
    let id = registry.register::<u32>("a").unwrap();
    let restart = Restart::default().backoff(Duration::MAX, Duration::MAX).without_jitter();
    let thread = on_a_thread(registry.supervise(id).unwrap().restart(restart), |_| Err("never"));
    let doing = || registry.status(id).unwrap().supervision.map(|status| status.doing);
    until("it rests", || doing() == Some(Doing::Resting));
    registry.close();
    thread.join().unwrap();
}

#[test]
fn a_closed_registry_lets_no_build_be_seen() {
    let mut stage = Stage::new();
    let id = stage.service("a");
    let registry = stage.registry.clone();
    stage.supervise(id, exact(), move |_| {
        registry.close();
        async { Ok::<_, Infallible>(1) }
    });
    let mut context = Context::from_waker(Waker::noop());
    assert_eq!(stage.tasks[0].as_mut().poll(&mut context), Poll::Ready(()));
    assert_eq!(stage.get(id), None);
}

/// Whatever the build comes to, it has nothing to say that would matter.
#[test]
fn the_end_breaks_nothing() {
    type Ending = Pin<Box<dyn Future<Output = Shutdown> + Send>>;
    type Builds = fn(&Registry, &Mutex<Option<Ending>>) -> Option<Result<u32, &'static str>>;
    let builds: [Builds; 3] = [
        |registry, _| {
            registry.close();
            Some(Err("too late"))
        },
        |registry, ending| {
            *ending.lock().unwrap() = Some(Box::pin(registry.shutdown(ms(1_000))));
            None
        },
        |registry, ending| {
            let mut shutdown: Ending = Box::pin(registry.shutdown(ms(1_000)));
            assert!(poll_once(&mut shutdown).is_pending());
            *ending.lock().unwrap() = Some(shutdown);
            Some(Ok(1))
        },
    ];
    for builds in builds {
        let mut stage = Stage::new();
        let id = stage.service("a");
        let ending = Arc::<Mutex<Option<Ending>>>::default();
        let (registry, kept) = (stage.registry.clone(), Arc::clone(&ending));
        stage.supervise(id, exact().at_most(0, ms(1_000)), move |_| {
            let result = builds(&registry, &kept);
            async move {
                match result {
                    Some(result) => result,
                    None => pending().await,
                }
            }
        });
        stage.settle();
        if let Some(shutdown) = ending.lock().unwrap().take() {
            stage.run(async { assert_eq!(shutdown.await.hung, []) });
        }
        stage.settle();
        assert!(stage.tasks.is_empty());
        let told = stage.recorder.take();
        assert!(!told.iter().any(|line| line.contains("broken")), "{told:?}");
        assert!(!told.iter().any(|line| line.contains("too late")), "{told:?}");
    }
}
