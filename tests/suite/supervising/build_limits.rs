//! Limits on the number of builds at a time.
//!
//! - Never more builds run than a limit says. They begin in the order in which they could have
//!   begun, and as soon as there is a place.
//! - A build that waits for a dependency holds no place, and has one again when its wait returns.
//! - A queued service says so, can be stopped, and delays no shutdown. The time in the queue is no
//!   time of its build.
//! - Limits of sets and of the registry count beside each other.
//! - A wait that returns an error does not wait for a place.

use std::{
    future::pending,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use super::{
    runtime::{TestRuntime, exact, ms},
    shutting_down::begin,
};
use crate::support::{poll_once, publish, up};
use mainstay::{
    Event, EventKind, Observer, Registry, ServiceId,
    error::WaitForError,
    supervise::{Build, Clock, RestartPolicy, SupervisorState},
    test_kit::VirtualClock,
};

/// Counts the builds that run.
#[derive(Clone, Default)]
struct Running(Arc<(AtomicUsize, AtomicUsize)>);

impl Running {
    fn begin(&self) -> EndsInDrop {
        let now = self.0.0.fetch_add(1, Ordering::Relaxed) + 1;
        self.0.1.fetch_max(now, Ordering::Relaxed);
        EndsInDrop(self.clone())
    }

    fn now(&self) -> usize {
        self.0.0.load(Ordering::Relaxed)
    }

    fn most(&self) -> usize {
        self.0.1.load(Ordering::Relaxed)
    }
}

struct EndsInDrop(Running);

impl Drop for EndsInDrop {
    fn drop(&mut self) {
        self.0.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A policy without delays: what fails is built again at once.
fn at_once() -> RestartPolicy {
    RestartPolicy::default().backoff(Duration::ZERO, Duration::ZERO)
}

async fn sleep(clock: &VirtualClock, time: Duration) {
    clock.sleep_until(clock.now() + time).await;
}

const POOLS: usize = 1_000;
const MOST: usize = 8;
const TAKES: Duration = ms(10);

#[test]
fn a_thousand_services_come_back_in_order_and_in_the_least_time_that_the_limit_allows() {
    let mut runtime = TestRuntime::with_capacity(POOLS + 1);
    let network = runtime.service("network");
    let (provider, running) = up(&runtime.registry, network, 1);
    let (builds, order) = (Running::default(), Arc::<Mutex<Vec<usize>>>::default());
    let pools: Vec<ServiceId<u32>> =
        (0..POOLS).map(|n| runtime.service(&format!("pool {n}"))).collect();
    runtime.registry.limit_builds(pools.iter().copied(), MOST).unwrap();
    for (n, &pool) in pools.iter().enumerate() {
        let (builds, order, clock) = (builds.clone(), Arc::clone(&order), runtime.clock.clone());
        runtime.supervise(pool, at_once(), move |build| {
            let (builds, order, clock) = (builds.clone(), Arc::clone(&order), clock.clone());
            async move {
                build.wait_for(network).await?;
                let _running = builds.begin();
                order.lock().unwrap().push(n);
                sleep(&clock, TAKES).await;
                Ok::<u32, WaitForError>(1)
            }
        });
    }
    let all_up = |runtime: &mut TestRuntime, builds: &Running| {
        let rounds = POOLS.div_ceil(MOST);
        runtime.run_until_idle();
        for round in 1..=rounds {
            assert_eq!(builds.now(), MOST.min(POOLS - (round - 1) * MOST), "round {round}");
            runtime.advance(TAKES);
            let ready = pools.iter().filter(|&&pool| runtime.get(pool).is_some()).count();
            assert_eq!(ready, POOLS.min(round * MOST), "round {round}");
        }
        assert_eq!(builds.most(), MOST);
    };
    all_up(&mut runtime, &builds);
    assert_eq!(*order.lock().unwrap(), Vec::from_iter(0..POOLS));
    order.lock().unwrap().clear();

    running.fail("unplugged");
    runtime.run_until_idle();
    assert_eq!(builds.now(), 0, "all of them wait for the network");
    let waiting: Vec<usize> = (0..POOLS).collect();
    let _running = publish(&provider, 2);
    all_up(&mut runtime, &builds);
    assert_eq!(*order.lock().unwrap(), waiting);
}

#[test]
fn builds_that_wait_for_each_other_do_not_use_up_the_limit() {
    let mut runtime = TestRuntime::new();
    let ids = ["a", "b", "c"].map(|name| runtime.service(name));
    runtime.registry.limit_builds(ids, 1).unwrap();
    let builds = Running::default();
    for (n, &id) in ids.iter().enumerate() {
        let (builds, clock) = (builds.clone(), runtime.clock.clone());
        let below: Vec<ServiceId<u32>> = ids[n + 1..].to_vec();
        runtime.supervise(id, at_once(), move |build| {
            let (builds, clock, below) = (builds.clone(), clock.clone(), below.clone());
            async move {
                let running = builds.begin();
                sleep(&clock, ms(10)).await;
                drop(running);
                for dependency in below {
                    build.wait_for(dependency).await?;
                    // It has its place again.
                    let _running = builds.begin();
                    sleep(&clock, ms(10)).await;
                }
                Ok::<u32, WaitForError>(1)
            }
        });
    }
    runtime.run_until_idle();
    for _ in 0..60 {
        runtime.advance(ms(1));
        assert!(builds.now() <= 1);
    }
    assert!(ids.iter().all(|&id| runtime.get(id).is_some()), "{}", runtime.registry.list());
    assert_eq!(builds.most(), 1);
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Observer for Log {
    fn event(&self, registry: &Registry, event: &Event<'_>) {
        if let EventKind::Queued = event.kind {
            let state = registry.status(event.id).unwrap().supervisor.unwrap().state;
            self.0.lock().unwrap().push(format!("{}: {} ({state})", event.service, event.kind));
        }
    }
}

/// `first` is built, and does not end; `second` is queued.
fn queued() -> (TestRuntime, [ServiceId<u32>; 2], Log) {
    let mut runtime = TestRuntime::new();
    let ids = ["first", "second"].map(|name| runtime.service(name));
    runtime.registry.limit_builds(ids, 1).unwrap();
    let log = Log::default();
    runtime.registry.observe(log.clone()).detach();
    let policy = || exact().build_timeout(ms(500));
    runtime.supervise(ids[0], exact(), |_| pending::<Result<u32, String>>());
    let clock = runtime.clock.clone();
    runtime.supervise(ids[1], policy(), move |_| {
        let clock = clock.clone();
        async move {
            sleep(&clock, ms(400)).await;
            Ok::<u32, String>(2)
        }
    });
    runtime.run_until_idle();
    (runtime, ids, log)
}

#[test]
fn a_queued_service_says_so_and_the_time_is_no_time_of_its_build() {
    let (mut runtime, [first, second], log) = queued();
    assert_eq!(runtime.state(second), SupervisorState::Queued);
    assert_eq!(*log.0.lock().unwrap(), ["second: queued for its build (queued for its build)"]);
    runtime.advance(ms(9_000));
    let line = "second: queued for its build (for 9 s)";
    assert_eq!(runtime.registry.status(second).unwrap().to_string(), line);
    let _ = poll_once(&mut runtime.registry.stop(first));
    runtime.run_until_idle();
    assert_eq!(runtime.state(second), SupervisorState::Building);
    runtime.advance(ms(400));
    assert_eq!(runtime.get(second), Some(2));
}

#[test]
fn a_queued_service_can_be_stopped_and_restarted_and_a_failure_queues_it_again() {
    let (mut runtime, [first, second], _) = queued();
    let mut stop = runtime.registry.stop(second);
    assert!(poll_once(&mut stop).is_pending());
    runtime.run_until_idle();
    assert!(poll_once(&mut stop).is_ready());
    assert_eq!(runtime.state(second), SupervisorState::Stopped);
    assert!(runtime.registry.start(second).unwrap());
    runtime.run_until_idle();
    assert_eq!(runtime.state(second), SupervisorState::Queued);
    runtime.registry.fail(second, "by hand").unwrap();
    runtime.run_until_idle();
    assert_eq!(runtime.state(second), SupervisorState::BackingOff);
    runtime.advance(ms(100));
    assert_eq!(runtime.state(second), SupervisorState::Queued);
    // The one that holds the place is dropped.
    drop(runtime.tasks.remove(0));
    runtime.run_until_idle();
    assert_eq!(runtime.state(second), SupervisorState::Building);
    assert!(runtime.registry.status(first).unwrap().supervisor.is_none());
}

#[test]
fn a_queue_delays_no_shutdown_and_no_close() {
    let (mut runtime, _, _) = queued();
    let shutdown = begin(&mut runtime, ms(1_000));
    let report = shutdown.lock().unwrap().take().expect("it has ended at once");
    assert!(report.stop_timeouts.is_empty(), "{report}");
    assert!(runtime.tasks.is_empty());

    let (mut runtime, _, _) = queued();
    runtime.registry.close();
    runtime.run_until_idle();
    assert!(runtime.tasks.is_empty());
}

#[test]
fn limits_of_sets_and_of_the_registry_count_beside_each_other() {
    let clock = VirtualClock::new();
    let registry = Registry::builder(8).unwrap().clock(clock.clone()).max_builds(3).build();
    let ids: Vec<ServiceId<u32>> =
        (0..8).map(|n| registry.register(&format!("s{n}")).unwrap()).collect();
    registry.limit_builds([ids[0], ids[1], ids[2], ids[0]], 1).unwrap();
    let builds = Arc::<Mutex<Vec<usize>>>::default();
    let mut tasks: Vec<_> = (0..8)
        .map(|n| {
            let (builds, clock) = (Arc::clone(&builds), clock.clone());
            Box::pin(registry.supervise(ids[n]).unwrap().run(async move |_: Build<u32>| {
                builds.lock().unwrap().push(n);
                sleep(&clock, ms(10)).await;
                1
            }))
        })
        .collect();
    let mut run = || {
        for _ in 0..4 {
            tasks.iter_mut().for_each(|task| assert!(poll_once(task).is_pending()));
        }
        std::mem::take(&mut *builds.lock().unwrap())
    };
    let mut rounds = Vec::new();
    for _ in 0..4 {
        rounds.push(run());
        clock.advance(ms(10));
    }
    // One of the first three at a time, and three of all.
    assert_eq!(rounds, [vec![0, 3, 4], vec![5, 6, 7], vec![1], vec![2]]);
    run();
    assert!(ids.iter().all(|&id| registry.get(id).is_ok()));

    let other = Registry::with_capacity(1).unwrap();
    let foreign = other.register::<u32>("foreign").unwrap();
    assert!(registry.limit_builds([ids[0], foreign], 1).is_err());
}

#[test]
fn a_wait_that_returns_an_error_does_not_wait_for_a_place() {
    let mut runtime = TestRuntime::new();
    let [dependency, waits, builds] =
        ["dependency", "waits", "builds"].map(|name| runtime.service(name));
    runtime.registry.limit_builds([waits, builds], 1).unwrap();
    let (sender, errors) = mpsc::channel();
    let clock = runtime.clock.clone();
    runtime.supervise(waits, exact(), move |build| {
        let (sender, clock) = (sender.clone(), clock.clone());
        async move {
            let error = build.wait_for(dependency).timeout(ms(10), &clock).await.unwrap_err();
            sender.send(error.to_string()).unwrap();
            Err::<u32, _>(error)
        }
    });
    runtime.run_until_idle();
    runtime.supervise(builds, exact(), |_| pending::<Result<u32, String>>());
    runtime.run_until_idle();
    assert_eq!(runtime.state(builds), SupervisorState::Building);
    runtime.advance(ms(10));
    assert!(errors.try_recv().is_ok());
}

#[test]
fn a_failure_of_the_dependency_ends_a_wait_that_is_queued() {
    let registry = Registry::builder(3).unwrap().max_builds(1).build();
    let [base, waits, builds] =
        ["base", "waits", "builds"].map(|name| registry.register::<u32>(name).unwrap());
    let (sender, errors) = mpsc::channel();
    let supervisor = registry.supervise(waits).unwrap();
    let waiting = thread::spawn(move || {
        supervisor.run_blocking(|build| {
            let result = build.wait_for(base).wait_blocking();
            sender.send(result.is_err()).unwrap();
            result.map(|base| **base)
        });
    });
    let is_waited_for = || registry.status(base).unwrap().waiters == 1;
    crate::support::until("the build waits", is_waited_for);
    let mut other = Box::pin(registry.supervise(builds).unwrap().run(|_| pending::<u32>()));
    assert!(poll_once(&mut other).is_pending());
    let (provider, running) = up(&registry, base, 1);
    assert!(errors.recv_timeout(ms(50)).is_err(), "it is queued");
    running.fail("lost");
    assert_eq!(errors.recv_timeout(crate::support::LONG), Ok(true));
    drop(other);
    let _running = publish(&provider, 2);
    assert!(registry.wait_ready(waits).wait_blocking_timeout(crate::support::LONG).is_ok());
    registry.close();
    waiting.join().unwrap();
}

/// The place is returned by the thread of a build, and taken by that of another one.
#[test]
fn blocking_builds_on_threads_keep_a_limit() {
    let registry = Registry::builder(13).unwrap().max_builds(2).build();
    let base = registry.register::<u32>("base").unwrap();
    let ids: Vec<ServiceId<u32>> =
        (0..12).map(|n| registry.register(&format!("s{n}")).unwrap()).collect();
    let builds = Running::default();
    let threads: Vec<_> = ids
        .iter()
        .map(|&id| {
            let (supervisor, builds) = (registry.supervise(id).unwrap(), builds.clone());
            thread::spawn(move || {
                supervisor.run_blocking(|build| {
                    drop(builds.begin());
                    let base = build.wait_for(base).wait_blocking()?;
                    let _running = builds.begin();
                    thread::sleep(ms(2));
                    Ok::<u32, WaitForError>(**base)
                });
            })
        })
        .collect();
    let mut provider = None;
    for round in 1..=3 {
        match &provider {
            None => provider = Some(up(&registry, base, round)),
            Some((provider, _)) => {
                registry.fail(base, "again").unwrap();
                std::mem::forget(publish(provider, round));
            }
        }
        for &id in &ids {
            let ready = registry.wait_ready(id).wait_blocking_timeout(crate::support::LONG);
            assert!(ready.is_ok(), "{}", registry.list());
        }
    }
    assert!(builds.most() <= 2, "{} builds at a time", builds.most());
    registry.close();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}
