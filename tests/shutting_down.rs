//! Shutting down: in order, as parallel as the graph allows, and to the end.
//!
//! - A service stops once all that depends on it has stopped, and not before; those that do not stand on each other
//!   stop at the same time.
//! - It is down when its hook runs, and what it was built from is up. Its readers are waited for.
//! - A hook that takes too long, readers that hold on, supervisors that are not polled, builders that block: each is
//!   named, and the rest goes on. In the end the registry is closed in any case.
//! - Services that build, rest, are broken, are not supervised, or nobody provides: they stop, too. A blocking builder that
//!   waits hears of it.
//! - Panics in hooks end nothing.
//! - What has stopped does not come up again.

mod support;

use std::{
    future::{Future, pending, ready},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    task::{Context, Waker},
    thread,
    time::Duration,
};

use mainstay::{
    BeginError, Clock, Doing, Phase, Reason, Registry, ServiceId, Shutdown, WaitForError,
};
use support::{
    LONG, MOMENT,
    stage::{Stage, exact, fails, ms},
    until, up,
};

/// What happened, in order.
type Log = Arc<Mutex<Vec<String>>>;

fn note(log: &Log, what: impl Into<String>) {
    log.lock().unwrap().push(what.into());
}

/// Runs a service that is built from others; its hook notes that it begins, takes so long, and notes that it ends.
fn staged(
    stage: &mut Stage,
    log: &Log,
    id: ServiceId<u32>,
    from: &[ServiceId<u32>],
    takes: Duration,
) {
    let name = stage.registry.status(id).unwrap().name.to_string();
    let (registry, clock, below) = (stage.registry.clone(), stage.clock.clone(), from.to_vec());
    let (from, log) = (from.to_vec(), Arc::clone(log));
    let supervisor = stage.registry.supervise(id).unwrap().restart(exact());
    let supervisor = supervisor.on_stop(ms(100), move |instance| async move {
        assert_eq!(**instance, 1);
        drop(instance);
        assert!(registry.get(id).is_err(), "nobody gets it any more");
        assert!(below.iter().all(|&id| registry.get(id).is_ok()), "what it stands on is there");
        note(&log, format!("{name} begins"));
        let end = clock.now() + takes;
        clock.sleep_until(end).await;
        note(&log, format!("{name} ends"));
    });
    stage.start(supervisor, move |build| {
        let from = from.clone();
        async move {
            for id in from {
                build.wait_for(id).await?;
            }
            Ok::<_, WaitForError>(1)
        }
    });
}

/// Two services, up; the hook of the one above takes so long.
fn b_on_a(takes: Duration) -> (Stage, ServiceId<u32>, ServiceId<u32>) {
    let (mut stage, log) = (Stage::new(), Log::default());
    let (a, b) = (stage.service("a"), stage.service("b"));
    staged(&mut stage, &log, a, &[], ms(0));
    staged(&mut stage, &log, b, &[a], takes);
    stage.settle();
    (stage, a, b)
}

/// Begins a shutdown, which ends in here.
fn begin(stage: &mut Stage, timeout: Duration) -> Arc<Mutex<Option<Shutdown>>> {
    let ended = Arc::<Mutex<Option<Shutdown>>>::default();
    let (note, shutdown) = (Arc::clone(&ended), stage.registry.shutdown(timeout));
    stage.run(async move {
        let shutdown = shutdown.await;
        *note.lock().unwrap() = Some(shutdown);
    });
    stage.settle();
    ended
}

fn hung(shutdown: &Mutex<Option<Shutdown>>) -> Vec<(String, Doing)> {
    let shutdown = shutdown.lock().unwrap();
    let hung = &shutdown.as_ref().expect("it has ended").hung;
    hung.iter().map(|hung| (hung.service.to_string(), hung.doing)).collect()
}

#[test]
fn in_order_and_at_the_same_time() {
    let (mut stage, log) = (Stage::new(), Log::default());
    let [base, left, right, top] = ["base", "left", "right", "top"].map(|name| stage.service(name));
    staged(&mut stage, &log, top, &[left, right], ms(10));
    staged(&mut stage, &log, left, &[base], ms(20));
    staged(&mut stage, &log, right, &[base], ms(30));
    staged(&mut stage, &log, base, &[], ms(0));
    stage.settle();
    assert_eq!(stage.get(top), Some(1));

    let shutdown = begin(&mut stage, ms(1_000));
    let read = |log: &Log| std::mem::take(&mut *log.lock().unwrap());
    assert_eq!(read(&log), ["top begins"]);
    assert_eq!((stage.get(left), stage.get(base)), (Some(1), Some(1)));
    stage.advance(ms(10));
    let mut both = read(&log);
    both[1..].sort();
    assert_eq!(both, ["top ends", "left begins", "right begins"]);
    stage.advance(ms(20));
    assert_eq!(read(&log), ["left ends"]);
    assert_eq!(stage.get(base), Some(1));
    stage.advance(ms(10));
    assert_eq!(read(&log), ["right ends", "base begins", "base ends"]);
    assert_eq!(hung(&shutdown), []);
    assert_eq!(shutdown.lock().unwrap().as_ref().unwrap().to_string(), "all services have stopped");
    assert!(stage.registry.is_closed() && stage.tasks.is_empty());
    assert_eq!(stage.clock.sleepers(), 0);
}

#[test]
fn readers_are_waited_for() {
    let (mut stage, a, b) = b_on_a(ms(0));
    let request = stage.registry.get(b).unwrap();
    let shutdown = begin(&mut stage, ms(1_000));
    assert_eq!(stage.doing(b), Doing::Stopping);
    assert_eq!(stage.get(a), Some(1), "the request may still need it");
    drop(request);
    stage.settle();
    assert_eq!(hung(&shutdown), []);
}

#[test]
fn what_hangs_is_named_and_the_rest_goes_on() {
    let (mut stage, log) = (Stage::new(), Log::default());
    let ids = ["a", "held", "slow", "top"].map(|name| stage.service(name));
    let [a, held, slow, top] = ids;
    staged(&mut stage, &log, a, &[], ms(0));
    staged(&mut stage, &log, held, &[a], ms(0));
    staged(&mut stage, &log, slow, &[held], ms(101));
    staged(&mut stage, &log, top, &[slow], ms(99));
    stage.settle();
    let _for_ever = stage.registry.get(held).unwrap();
    let shutdown = begin(&mut stage, ms(1_000));
    for _ in 0..30 {
        stage.advance(ms(10));
    }
    let expected = [("slow".into(), Doing::Stopping), ("held".into(), Doing::Stopping)];
    assert_eq!(hung(&shutdown), expected);
    let said = shutdown.lock().unwrap().as_ref().unwrap().to_string();
    assert_eq!(said, "not stopped in time: slow (stopping), held (stopping)");
    let log = log.lock().unwrap();
    assert_eq!(log.last().unwrap(), "a ends");
    assert!(!log.contains(&"slow ends".to_owned()), "its hook was dropped");
    assert!(stage.registry.is_closed());
}

#[test]
fn the_time_for_all_is_up() {
    let (mut stage, a, _) = b_on_a(ms(90));
    let shutdown = begin(&mut stage, ms(50));
    stage.advance(ms(49));
    assert!(shutdown.lock().unwrap().is_none());
    stage.advance(ms(1));
    assert_eq!(hung(&shutdown), [("b".into(), Doing::Stopping), ("a".into(), Doing::Up)]);
    assert!(stage.registry.is_closed());
    assert_eq!(stage.get(a), None);
}

#[test]
fn what_is_down_does_not_hang() {
    let (mut stage, a, _) = b_on_a(ms(90));
    let shutdown = begin(&mut stage, ms(50));
    stage.registry.fail(a, "meanwhile").unwrap();
    stage.settle();
    assert_eq!(stage.doing(a), Doing::Resting);
    stage.advance(ms(50));
    assert_eq!(hung(&shutdown), [("b".into(), Doing::Stopping)]);
}

#[test]
fn whatever_a_service_is_doing_it_stops() {
    let mut stage = Stage::new();
    let ids = ["builds", "waits", "rests", "broken", "idle", "lonely", "own"];
    let [builds, waits, rests, broken, idle, lonely, own] = ids.map(|name| stage.service(name));
    stage.supervise(builds, exact(), |_| pending::<Result<u32, String>>());
    stage.supervise(
        waits,
        exact(),
        move |build| async move { build.wait_for(builds).await.map(|_| 1) },
    );
    stage.supervise(rests, exact(), fails(9));
    stage.supervise(broken, exact().at_most(0, ms(1)), fails(9));
    let never_run = stage.registry.supervise(idle).unwrap();
    let (provider, _running) = up(&stage.registry, own, 1);
    stage.settle();
    let doing = [builds, waits, rests, broken].map(|id| stage.doing(id));
    assert_eq!(doing, [Doing::Building, Doing::Building, Doing::Resting, Doing::Broken]);

    let shutdown = begin(&mut stage, ms(1_000));
    assert_eq!(hung(&shutdown), []);
    assert!(stage.tasks.is_empty());
    for id in [builds, waits, rests, broken, idle, lonely, own] {
        assert_eq!(stage.registry.status(id).unwrap().phase, Phase::Down);
    }
    assert!(matches!(provider.begin().wait(), Err(BeginError::Closed { .. })));
    let mut run = Box::pin(never_run.run(fails(0)));
    assert!(run.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready());
}

#[test]
fn what_has_stopped_does_not_come_up_again() {
    let (mut stage, log) = (Stage::new(), Log::default());
    let (base, top) = (stage.service("base"), stage.service("top"));
    let (provider, _running) = up(&stage.registry, top, 1);
    staged(&mut stage, &log, base, &[], ms(50));
    stage.settle();
    let shutdown = begin(&mut stage, ms(1_000));
    assert_eq!(stage.get(top), None);
    assert!(!stage.registry.is_closed());
    assert!(matches!(provider.begin().wait(), Err(BeginError::Closed { .. })));
    stage.advance(ms(50));
    assert_eq!(hung(&shutdown), []);
}

#[test]
fn an_attempt_that_begins_at_that_moment_is_given_back_or_failed() {
    for _ in 0..100 {
        let registry = Registry::with_capacity(1).unwrap();
        let id = registry.register::<u32>("a").unwrap();
        let provider = registry.provide(id).unwrap();
        let begun = AtomicBool::new(false);
        thread::scope(|scope| {
            let begins = scope.spawn(|| {
                loop {
                    let last = provider.begin().wait();
                    begun.store(true, Ordering::Relaxed);
                    if last.is_err() || registry.is_closed() {
                        return last;
                    }
                }
            });
            until("it begins", || begun.load(Ordering::Relaxed));
            assert!(registry.shutdown_blocking(LONG).hung.is_empty());
            let last = begins.join().unwrap();
            assert_eq!(registry.status(id).unwrap().phase, Phase::Down, "{last:?}");
        });
    }
}

#[test]
fn a_supervisor_that_is_dropped_meanwhile_has_stopped() {
    let (mut stage, log) = (Stage::new(), Log::default());
    let (a, b) = (stage.service("a"), stage.service("b"));
    staged(&mut stage, &log, b, &[a], ms(50));
    staged(&mut stage, &log, a, &[], ms(0));
    stage.settle();
    let supervisor_of_a = stage.tasks.remove(1);
    let shutdown = begin(&mut stage, ms(1_000));
    drop(supervisor_of_a);
    stage.advance(ms(50));
    assert_eq!(hung(&shutdown), []);
    assert!(!log.lock().unwrap().contains(&"a begins".to_owned()));
}

#[test]
fn a_supervisor_that_is_not_polled_hangs() {
    let (mut stage, log) = (Stage::new(), Log::default());
    let (a, b) = (stage.service("a"), stage.service("b"));
    staged(&mut stage, &log, b, &[a], ms(0));
    staged(&mut stage, &log, a, &[], ms(0));
    stage.settle();
    let supervisor_of_b = stage.tasks.remove(0);
    let shutdown = begin(&mut stage, ms(1_000));
    stage.advance(ms(99));
    assert_eq!(stage.get(b), Some(1));
    stage.advance(ms(1));
    assert_eq!(hung(&shutdown), [("b".into(), Doing::Up)]);
    assert_eq!(*log.lock().unwrap(), ["a begins", "a ends"]);
    drop(supervisor_of_b);
}

#[test]
fn panics_in_hooks_end_nothing() {
    let (mut stage, log) = (Stage::new(), Log::default());
    let [a, b, c, d, e] = ["a", "b", "c", "d", "e"].map(|name| stage.service(name));
    staged(&mut stage, &log, a, &[], ms(0));
    let in_the_call = stage
        .registry
        .supervise(b)
        .unwrap()
        .on_stop(ms(100), |_| if true { panic!("in the call") } else { ready(()) });
    stage.start(in_the_call, move |build| async move { build.wait_for(a).await.map(|_| 1) });
    let in_a_poll = stage.registry.supervise(c).unwrap();
    let in_a_poll = in_a_poll.on_stop(ms(100), |_| async { panic!("in a poll") });
    stage.start(in_a_poll, move |build| async move { build.wait_for(b).await.map(|_| 1) });
    // What it panics with panics when it is dropped; and so does a hook that is not called.
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            if !thread::panicking() {
                panic!("dropped");
            }
        }
    }
    let with_a_bomb = stage.registry.supervise(d).unwrap();
    let with_a_bomb = with_a_bomb.on_stop(ms(100), |_| async { std::panic::panic_any(Bomb) });
    stage.start(with_a_bomb, move |build| async move { build.wait_for(c).await.map(|_| 1) });
    let (bomb, not_called) = (Bomb, stage.registry.supervise(e).unwrap());
    let not_called = not_called.on_stop(ms(100), move |_| {
        let _ = &bomb;
        ready(())
    });
    stage.start(not_called.restart(exact()), fails(9));
    stage.settle();
    let shutdown = begin(&mut stage, ms(1_000));
    assert_eq!(hung(&shutdown), []);
    assert_eq!(log.lock().unwrap().last().unwrap(), "a ends");
}

#[test]
fn a_shutdown_that_is_dropped_leaves_the_registry_open() {
    let (mut stage, log) = (Stage::new(), Log::default());
    let (a, b) = (stage.service("a"), stage.service("b"));
    staged(&mut stage, &log, b, &[a], ms(50));
    staged(&mut stage, &log, a, &[], ms(0));
    stage.settle();
    let mut shutdown = Box::pin(stage.registry.shutdown(ms(1_000)));
    let mut context = Context::from_waker(Waker::noop());
    assert!(shutdown.as_mut().poll(&mut context).is_pending());
    drop(shutdown);
    stage.settle();
    stage.advance(ms(50));
    assert_eq!((stage.get(a), stage.get(b)), (Some(1), None));
    assert!(!stage.registry.is_closed());
    // Another one takes it up.
    let shutdown = begin(&mut stage, ms(1_000));
    assert_eq!(hung(&shutdown), []);
    assert_eq!(*log.lock().unwrap(), ["b begins", "b ends", "a begins", "a ends"]);
}

#[test]
fn two_at_once() {
    let (mut stage, log) = (Stage::new(), Log::default());
    let a = stage.service("a");
    staged(&mut stage, &log, a, &[], ms(50));
    stage.settle();
    let (one, two) = (begin(&mut stage, ms(1_000)), begin(&mut stage, ms(1_000)));
    stage.advance(ms(50));
    assert_eq!((hung(&one), hung(&two)), (vec![], vec![]));
    assert_eq!(*log.lock().unwrap(), ["a begins", "a ends"]);
}

#[test]
fn on_plain_threads() {
    let registry = Registry::with_capacity(2).unwrap();
    let [a, b] = ["a", "b"].map(|name| registry.register::<u32>(name).unwrap());
    let (stops, order) = mpsc::channel();
    let hook = |name: &'static str| {
        let stops = stops.clone();
        move |_| {
            thread::sleep(MOMENT);
            stops.send(name).unwrap();
            ready(())
        }
    };
    let threads = [
        thread::spawn({
            let supervisor = registry.supervise(a).unwrap().on_stop(LONG, hook("a"));
            move || supervisor.run_blocking(|_| Ok::<_, String>(1))
        }),
        thread::spawn({
            let supervisor = registry.supervise(b).unwrap().on_stop(LONG, hook("b"));
            move || supervisor.run_blocking(|build| build.wait_for(a).wait().map(|a| **a))
        }),
    ];
    registry.wait_all_ready().wait_timeout(LONG).unwrap();
    assert!(registry.shutdown_blocking(LONG).hung.is_empty());
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(order.try_iter().collect::<Vec<_>>(), ["b", "a"]);
    assert!(registry.is_closed());
    assert!(registry.shutdown_blocking(LONG).hung.is_empty(), "once more does no harm");
}

/// It is not dropped, as an async one is; so it has to hear of it where it waits.
#[test]
fn a_blocking_build_that_waits_is_told() {
    let registry = Registry::with_capacity(2).unwrap();
    let [never, id] = ["never", "a"].map(|name| registry.register::<u32>(name).unwrap());
    let supervisor = registry.supervise(id).unwrap();
    let (heard, hears) = mpsc::channel();
    let thread = thread::spawn(move || {
        supervisor.run_blocking(|build| {
            let waited = build.wait_for(never).wait();
            heard.send(build.is_overtaken()).unwrap();
            waited.map(|never| **never)
        });
    });
    until("it waits", || registry.status(never).unwrap().waiting == 1);
    // A limit that is not reached, unless it has not heard.
    let shutdown = registry.shutdown_blocking(LONG);
    assert!(shutdown.hung.is_empty(), "{shutdown}");
    assert_eq!(hears.recv_timeout(LONG), Ok(true));
    thread.join().unwrap();
    let last = registry.status(id).unwrap().last_failure.unwrap();
    assert!(matches!(last.reason, Reason::ShutDown), "{last}");
}

#[test]
fn a_chain_of_many() {
    const MANY: usize = 2_000;
    let registry = Registry::with_capacity(MANY).unwrap();
    let id = |i| registry.register::<usize>(&format!("s{i}")).unwrap();
    let ids: Vec<_> = (0..MANY).map(id).collect();
    let mut held = Vec::new();
    for (i, &id) in ids.iter().enumerate() {
        if i > 0 {
            registry.add_dependency(id, ids[i - 1]).unwrap();
        }
        held.push(up(&registry, id, i));
    }
    assert!(registry.shutdown_blocking(LONG).hung.is_empty());
    assert!(ids.iter().all(|&id| registry.get(id).is_err()));
}

#[test]
fn an_edge_that_goes_meanwhile_frees_who_waited_for_it() {
    let (mut stage, log) = (Stage::new(), Log::default());
    let [a, b, middle, top] = ["a", "b", "middle", "top"].map(|name| stage.service(name));
    staged(&mut stage, &log, a, &[], ms(0));
    staged(&mut stage, &log, b, &[], ms(0));
    // Built from a at first, from b after that.
    let mut calls = 0;
    stage.supervise(middle, exact().backoff(ms(10), ms(10)), move |build| {
        calls += 1;
        let from = if calls == 1 { a } else { b };
        async move { build.wait_for(from).await.map(|_| 1) }
    });
    let supervisor = stage.registry.supervise(top).unwrap();
    let (clock, takes) = (stage.clock.clone(), ms(50));
    let supervisor = supervisor.on_stop(ms(100), move |_| async move {
        let end = clock.now() + takes;
        clock.sleep_until(end).await;
    });
    stage.start(supervisor, move |build| async move {
        // For it to be there for the middle.
        build.wait_for(b).await?;
        build.wait_for(middle).await.map(|_| 1)
    });
    stage.settle();

    let shutdown = begin(&mut stage, ms(1_000));
    // While the top stops, what is under it fails, and leaves a for b.
    stage.registry.fail(middle, "to be built anew").unwrap();
    stage.settle();
    stage.advance(ms(10));
    let below = &stage.registry.status(middle).unwrap().dependencies;
    assert_eq!(below.iter().map(|edge| &*edge.name).collect::<Vec<_>>(), ["b"]);
    stage.advance(ms(40));
    assert_eq!(hung(&shutdown), []);
    assert_eq!(*log.lock().unwrap(), ["b begins", "b ends", "a begins", "a ends"]);
}
