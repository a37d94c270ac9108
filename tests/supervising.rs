//! Supervision: the provider's loop, written once.
//!
//! - A service comes up, and comes back after each failure: its own, one of what it is built from, an error, a
//!   panic, a build that takes too long; on an executor and on a plain thread.
//! - The time that a build may take stands still while it waits for what it is built from.
//! - Failures are charged to whom they began with: a dependent rests never for what it depends on.
//! - Rests are as long as the policy says, to the tick, and are cut short by a reset, by the end, and where something that
//!   the last build has used fails.
//! - Too many charges break a service; the observer hears of it, the status shows it, a reset mends it.
//! - An overtaken build is dropped at its next await; a blocking one is told. What it gives is dropped.
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
        mpsc,
    },
    task::{Context, Poll, Waker},
    thread,
    time::{Duration, Instant},
};

use futures_lite::future::zip;
use mainstay::{
    Build, Clock, Doing, Phase, ProvideError, Reason, Registry, Restart, Shutdown, SmolClock,
    Supervisor, SystemClock, TokioClock, TryError, VirtualClock, WaitForError,
};
use support::{
    LONG, poll_once,
    stage::{BoxError, Stage, Task, exact, fails, ms},
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

/// Counts those that are alive.
struct Alive(Arc<AtomicUsize>);

impl Alive {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
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

/// Supervises on a thread of its own.
fn on_a_thread<E: Into<BoxError> + Send + 'static>(
    supervisor: Supervisor<u32>,
    builder: impl FnMut(&Build<u32>) -> Result<u32, E> + Send + 'static,
) -> thread::JoinHandle<()> {
    thread::spawn(move || supervisor.run_blocking(builder))
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
