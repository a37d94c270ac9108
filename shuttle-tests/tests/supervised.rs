//! Supervised services fail at random, some of their builds fail, and some are restarted, stopped
//! and started, until they are shut down or the registry is closed. Half of them have a body. Some
//! builds fail permanently, or as planned, or because another service is not there, and some
//! services are completed.
//!
//! - Everything that `random_failures.rs` checks: I1 for readers, I2, and all services ready after
//!   the last failure.
//! - A shutdown ends, each service stops in time, no service becomes ready after it, and all values
//!   are dropped. The clock is paused, so a supervisor that is not notified results in a deadlock.
//! - A service is stopped after all its dependents have stopped, while all services that it was
//!   built from are ready (S4, S5).
//! - No two bodies of one service run at the same time (S10). Close hooks run in the order of
//!   publication (S14).
//! - In half of the schedules some builds have a limit, and a queue that does not continue results
//!   in a deadlock (S16). In half of them some services are a group, which may give up: if one of
//!   them fails, no instance can be read that another one had before (S18).
//!
//! ```text
//! supervisors:  build, up, failed, build ...                take down, drained, close hook
//! failers:           fail      fail_instance    restart     stop     start
//! readers:    read a dependency, then the service
//! main:                 restart the permanent ones, wait for all,  shut down, check the order
//! ```
//!
//! In some schedules the shutdown begins before the last failure. A service that has not been built
//! yet has no edges then, so the order is not checked.
#![cfg(shuttle)]

use std::{
    error::Error,
    // Not those of shuttle: no thread of the scenario waits for this lock.
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use mainstay::{
    FailOutcome, Instance, ServiceSet,
    error::WaitForError,
    models::PausedClock,
    supervise::{
        BodyEnd, Build, CloseReason, Closing, Completed, GroupPolicy, Permanent, Planned,
        RestartPolicy,
    },
};
use mainstay_shuttle_tests::{GraphShape, Random, Value, Workers, World, explore};
use mainstay_test_support::poll_once;
use shuttle::{future, thread};

/// The services that have stopped, and the violations that close hooks have found.
#[derive(Default)]
struct StopLog {
    /// Whether the order is checked.
    check_order: bool,
    stopped: Vec<usize>,
    violations: Vec<String>,
}

type SharedStopLog = Arc<Mutex<StopLog>>;

/// Whether builds fail at random.
type Calm = Arc<AtomicBool>;

/// Runs the supervisor of one service.
fn supervise(
    world: &Arc<World>,
    service: usize,
    stop_log: &SharedStopLog,
    calm: &Calm,
    mut random: Random,
    workers: &mut Workers,
) {
    let (violations, mut last) = (Arc::clone(stop_log), None);
    let check_stop = {
        let (world, stop_log) = (Arc::clone(world), Arc::clone(stop_log));
        move || check_stop(&world, service, &stop_log)
    };
    // A failed service is built again at once, because the clock is paused.
    let policy = RestartPolicy::default().backoff(Duration::ZERO, Duration::ZERO);
    let supervisor =
        world.registry.supervise(world.ids[service]).expect("the registry is not closed");
    let supervisor = supervisor.restart_policy(policy).on_close(async move |closing| {
        let is_stop = matches!(Closing::reason(&closing), CloseReason::ShutDown);
        let generation = Closing::generation(&closing);
        if last.replace(generation).is_some_and(|last| last >= generation) {
            let text = format!("S14: {service} {generation} is closed out of order");
            lock(&violations).violations.push(text);
        }
        future::yield_now().await;
        drop(closing);
        if is_stop {
            check_stop();
        }
    });
    let (works, bodies, violations) =
        (random.chance(50), AtomicUsize::new(0), Arc::clone(stop_log));
    let supervisor = supervisor.body(async move |live| {
        if !works {
            return Ok(BodyEnd::StayReady);
        }
        if bodies.fetch_add(1, Relaxed) > 0 {
            lock(&violations).violations.push(format!("S10: {service} has two bodies"));
        }
        let _ = live.stopping().await;
        future::yield_now().await;
        bodies.fetch_sub(1, Relaxed);
        // It must end: what it returns changes nothing.
        Err("the body has ended")
    });
    let (world, calm) = (Arc::clone(world), Arc::clone(calm));
    match random.below(5) {
        0 | 1 => workers.thread(move || {
            supervisor.run_blocking(|build| {
                let outcome = Outcome::next(service, &calm, &mut random);
                future::block_on(build_value(&world, service, build, outcome))
            });
        }),
        2 => workers.task(supervisor.run(async move |build| {
            let outcome = Outcome::next(service, &calm, &mut random);
            Completed(build_value(&world, service, &build, outcome).await)
        })),
        _ => workers.task(supervisor.run(async move |build| {
            let outcome = Outcome::next(service, &calm, &mut random);
            build_value(&world, service, &build, outcome).await
        })),
    }
}

/// What a build returns after its waits.
enum Outcome {
    Value,
    Failed,
    Permanent,
    Planned,
    /// The error of a read of this service, if it is not ready.
    Read(usize),
}

impl Outcome {
    fn next(service: usize, calm: &AtomicBool, random: &mut Random) -> Self {
        if calm.load(Relaxed) {
            return Self::Value;
        }
        match random.below(100) {
            0..15 => Self::Failed,
            15..20 => Self::Permanent,
            20..25 => Self::Planned,
            // One that does not depend on this service: two services that read each other without
            // an edge would wait for each other.
            25..35 if service > 0 => Self::Read(random.below(service)),
            _ => Self::Value,
        }
    }
}

async fn build_value(
    world: &World,
    service: usize,
    build: &Build<Value>,
    outcome: Outcome,
) -> Result<Value, Box<dyn Error + Send + Sync>> {
    world.record_generation(service, build.generation().get());
    let mut value = world.value(service);
    for &dependency in &world.dependencies[service] {
        world.request_edge(service, dependency);
        let before = world.observations();
        match build.wait_for(world.ids[dependency]).await {
            Ok(instance) => {
                before.check(&instance);
                value.add(&instance);
            }
            Err(error @ (WaitForError::Invalidated(_) | WaitForError::Closed { .. })) => {
                return Err(error.into());
            }
            // A service without edges may stop before the first build that needs it.
            Err(error @ WaitForError::Stopped { .. }) => return Err(error.into()),
            // The supervisor may end the build before the build has noticed.
            Err(error @ WaitForError::AttemptEnded { .. }) => return Err(error.into()),
            Err(error) => unreachable!("{error}"),
        }
    }
    match outcome {
        Outcome::Value => Ok(value),
        Outcome::Failed => Err("random failure".into()),
        Outcome::Permanent => Err(Permanent::new("random failure").into()),
        Outcome::Planned => Err(Planned::new("random failure").into()),
        Outcome::Read(other) => match world.registry.get(world.ids[other]) {
            Ok(_) => Ok(value),
            Err(error) => Err(error.into()),
        },
    }
}

/// Checks the state in which a close hook runs. A panic would end only the close hook, so
/// violations are recorded.
fn check_stop(world: &World, service: usize, stop_log: &SharedStopLog) {
    // No step of the scenario happens under the lock.
    let (check_order, stopped) = {
        let mut log = lock(stop_log);
        log.stopped.push(service);
        (log.check_order, log.stopped.clone())
    };
    let violation = |text: String| lock(stop_log).violations.push(text);
    if world.read(service).is_some() {
        violation(format!("{service} is stopped, but ready"));
    }
    if !check_order {
        return;
    }
    let dependents =
        (0..world.count()).filter(|&other| world.dependencies[other].contains(&service));
    for dependent in dependents.filter(|dependent| !stopped.contains(dependent)) {
        violation(format!("S4: {service} is stopped before its dependent {dependent}"));
    }
    for &dependency in &world.dependencies[service] {
        if world.read(dependency).is_none() {
            violation(format!("S5: {dependency} is down, but {service} has not stopped yet"));
        }
    }
}

fn lock(stop_log: &SharedStopLog) -> MutexGuard<'_, StopLog> {
    stop_log.lock().expect("nothing panics under the lock")
}

/// Makes a group of some services, and returns them.
fn group_some(world: &World, random: &mut Random) -> Vec<usize> {
    let mut members: Vec<usize> = (0..world.count()).filter(|_| random.chance(30)).collect();
    members.push(world.count() - 1);
    members.dedup();
    let policy = match random.chance(50) {
        true => GroupPolicy::default().max_failures(3, Duration::from_secs(1)),
        false => GroupPolicy::default(),
    };
    let ids: ServiceSet = members.iter().map(|&member| world.ids[member]).collect();
    world.registry.group(ids, policy).expect("there is no other group");
    members
}

/// Fails members of the group, and checks that all others have failed with them (S18).
fn fail_members(world: &World, members: &[usize], times: usize, mut random: Random) {
    for _ in 0..times {
        let before: Vec<_> = members.iter().map(|&member| (member, world.read(member))).collect();
        let (_, Some(instance)) = &before[random.below(before.len())] else { continue };
        let outcome = world.registry.fail_instance(instance, "reported");
        let FailOutcome::Failed(_) = outcome.expect("the id is of this registry") else { continue };
        for (member, instance) in before {
            let Some(instance) = instance else { continue };
            let (was, now) = (Instance::generation(&instance).get(), world.read_generation(member));
            assert!(now > was, "S18: {member} has not failed with its group");
        }
    }
}

/// Ends the failures, also the permanent ones, and checks that all services recover.
fn recover(world: &World, calm: &AtomicBool) {
    calm.store(true, Relaxed);
    // Each of them: a build that is in progress may fail permanently, too.
    for &id in &world.ids {
        future::block_on(world.registry.restart(id, "calm")).expect("no shutdown has begun");
    }
    world.check_recovery();
}

#[test]
fn supervised_services_recover_and_stop_in_order() {
    explore("supervised", 2_000, |mut random| {
        let shape = GraphShape { services: (3, 20), dependencies: 3, declared: 40 };
        let world =
            World::with_builder(&shape, &mut random, |builder| builder.clock(PausedClock::new()));
        let (stop_log, calm) = (SharedStopLog::default(), Calm::default());
        let mut supervisors = Workers::default();
        for service in 0..world.count() {
            supervise(&world, service, &stop_log, &calm, random.fork(), &mut supervisors);
        }
        if random.chance(50) {
            let limited: Vec<_> = world.ids.iter().copied().filter(|_| random.chance(50)).collect();
            let most = 1 + random.below(2);
            world.registry.limit_builds(limited, most).expect("the ids are of this registry");
        }
        let mut workers = Workers::default();
        if random.chance(50) {
            let members = group_some(&world, &mut random);
            let (failer, forked) = (Arc::clone(&world), random.fork());
            workers.thread(move || fail_members(&failer, &members, 4, forked));
        }
        for _ in 0..2 {
            let (failer, forked) = (Arc::clone(&world), random.fork());
            workers.thread(move || failer.fail_some(4, forked));
            let (reader, forked) = (Arc::clone(&world), random.fork());
            workers.thread(move || reader.read_some(12, forked));
        }
        let (asker, mut forked) = (Arc::clone(&world), random.fork());
        workers.thread(move || {
            for _ in 0..3 {
                let (id, registry) = (asker.ids[forked.below(asker.count())], &asker.registry);
                let stops = forked.chance(50);
                let mut wait =
                    if stops { registry.stop(id) } else { registry.restart(id, "again") };
                // Sometimes a stop is still in progress at the start.
                if stops && forked.chance(50) {
                    let has_ended = poll_once(&mut wait).is_ready();
                    thread::yield_now();
                    registry.start(id).expect("the id is of this registry");
                    if has_ended {
                        continue;
                    }
                }
                // An error: the registry is shutting down.
                drop(future::block_on(wait));
                if stops {
                    registry.start(id).expect("the id is of this registry");
                }
            }
        });
        let shut_down = |world: &World| {
            let shutdown = future::block_on(world.registry.shutdown(Duration::from_secs(1)));
            assert!(shutdown.stop_timeouts.is_empty(), "{shutdown}");
        };
        match random.below(4) {
            0 => {
                let steps = random.below(400);
                let world = Arc::clone(&world);
                workers.thread(move || {
                    (0..steps).for_each(|_| thread::yield_now());
                    shut_down(&world);
                });
                workers.join();
            }
            1 => {
                workers.join();
                recover(&world, &calm);
                world.registry.close();
            }
            _ => {
                workers.join();
                recover(&world, &calm);
                lock(&stop_log).check_order = true;
                shut_down(&world);
                let stopped = lock(&stop_log).stopped.len();
                assert_eq!(stopped, world.count(), "S4: a close hook did not run");
            }
        }
        supervisors.join();
        assert_eq!(lock(&stop_log).violations, [""; 0]);
        world.check_closed();
    });
}
