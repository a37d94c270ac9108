//! Supervised services that fail at random, whose builds fail now and then, and that are reset, until they are shut down,
//! or the registry is closed:
//!
//! - all that `settles` says: I1 for readers, I2 and everything ready once nobody fails anything any more;
//! - a shutdown ends, nothing hangs, nothing comes up after it, and no value is left. Whoever hears nothing of it is a
//!   deadlock, as the clock stands;
//! - a service is stopped once all that depends on it has stopped, while all that it was built from is up (S4, S5).
//!
//! ```text
//! supervisors:  build, up, failed, build ...                 take down, hook, drained
//! failers:           fail      report    reset
//! readers:    look at a dependency, then at the service
//! main:                                       wait for all,  shut down, look at the order
//! ```
//!
//! In some schedules the shutdown comes in the middle of it. Then what has not been built yet has no edges, and the order
//! is not looked at.
#![cfg(shuttle)]

use std::{
    future::pending,
    // Not shuttle's: nobody waits for it.
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use mainstay::{Build, Clock, Restart, Sleep, WaitForError};
use mainstay_shuttle_tests::{Built, Crew, Random, Shape, World, explore};
use shuttle::{future, thread};

/// A clock that stands: there is no time here.
struct Stands(Instant);

impl Clock for Stands {
    fn now(&self) -> Instant {
        self.0
    }

    fn sleep_until(&self, _: Instant) -> Sleep {
        Box::pin(pending())
    }
}

/// Which services have been stopped, and whether their order is looked at.
#[derive(Default)]
struct End {
    in_order: bool,
    stopped: Vec<usize>,
    wrong: Vec<String>,
}

type Ending = Arc<Mutex<End>>;

/// One supervisor, until the end.
fn supervise(
    world: &Arc<World>,
    service: usize,
    ending: &Ending,
    mut random: Random,
    crew: &mut Crew,
) {
    let hook = {
        let (world, ending) = (Arc::clone(world), Arc::clone(ending));
        move || stopping(&world, service, &ending)
    };
    // What goes down by itself is built again at once, as there is no time.
    let restart = Restart::default().backoff(Duration::ZERO, Duration::ZERO);
    let supervisor = world.registry.supervise(world.ids[service]).expect("it is not closed");
    let supervisor =
        supervisor.restart(restart).on_stop(Duration::from_secs(1), move |_| async move {
            // The instance that it is given is gone by now.
            future::yield_now().await;
            hook();
        });
    let world = Arc::clone(world);
    if random.chance(50) {
        crew.thread(move || {
            supervisor.run_blocking(|build| {
                let fails = random.chance(15);
                future::block_on(built(&world, service, build, fails))
            });
        });
    } else {
        crew.task(supervisor.run(move |build| {
            let (world, fails) = (Arc::clone(&world), random.chance(15));
            async move { built(&world, service, &build, fails).await }
        }));
    }
}

async fn built(
    world: &World,
    service: usize,
    build: &Build<Built>,
    fails: bool,
) -> Result<Built, String> {
    world.saw(service, build.generation());
    let mut value = world.value(service);
    for &dependency in &world.below[service] {
        world.wants(service, dependency);
        let before = world.before();
        match build.wait_for(world.ids[dependency]).await {
            Ok(instance) => {
                before.check(&instance);
                value.add(&instance);
            }
            Err(error @ (WaitForError::Overtaken(_) | WaitForError::Closed { .. })) => {
                return Err(error.to_string());
            }
            // The end of a supervisor may come before its build has noticed.
            Err(error @ WaitForError::Over { .. }) => return Err(error.to_string()),
            Err(error) => unreachable!("{error}"),
        }
    }
    if fails { Err("a mood".to_owned()) } else { Ok(value) }
}

/// The service is down, and its hook runs. A panic would end the hook alone, so what is wrong is noted.
fn stopping(world: &World, service: usize, ending: &Ending) {
    // No step of the scenario is taken under the lock.
    let (in_order, stopped) = {
        let mut end = lock(ending);
        end.stopped.push(service);
        (end.in_order, end.stopped.clone())
    };
    let wrong = |what: String| lock(ending).wrong.push(what);
    if world.read(service).is_some() {
        wrong(format!("{service} is stopped, and there"));
    }
    if !in_order {
        return;
    }
    let dependents = (0..world.count()).filter(|&other| world.below[other].contains(&service));
    for dependent in dependents.filter(|dependent| !stopped.contains(dependent)) {
        wrong(format!("S4: {service} is stopped before {dependent}, which needs it"));
    }
    for &dependency in &world.below[service] {
        if world.read(dependency).is_none() {
            wrong(format!("S5: {dependency} is gone, and {service} is not stopped yet"));
        }
    }
}

fn lock(ending: &Ending) -> MutexGuard<'_, End> {
    ending.lock().expect("nothing panics under it")
}

#[test]
fn supervised() {
    explore("supervised", 2_000, |mut random| {
        let shape = Shape { services: (3, 20), dependencies: 3, declared: 40 };
        let world = World::of(&shape, &mut random, |builder| builder.clock(Stands(Instant::now())));
        let ending = Ending::default();
        let mut supervisors = Crew::default();
        for service in 0..world.count() {
            supervise(&world, service, &ending, random.fork(), &mut supervisors);
        }
        let mut crew = Crew::default();
        for _ in 0..2 {
            let (failer, numbers) = (Arc::clone(&world), random.fork());
            crew.thread(move || failer.fail_some(4, numbers));
            let (reader, numbers) = (Arc::clone(&world), random.fork());
            crew.thread(move || reader.read_some(12, numbers));
        }
        let (resetter, mut numbers) = (Arc::clone(&world), random.fork());
        crew.thread(move || {
            for _ in 0..3 {
                let id = resetter.ids[numbers.below(resetter.count())];
                resetter.registry.reset(id).expect("it is ours");
                thread::yield_now();
            }
        });
        let shut_down = |world: &World| {
            let shutdown = future::block_on(world.registry.shutdown(Duration::from_secs(1)));
            assert!(shutdown.hung.is_empty(), "{shutdown}");
        };
        match random.below(4) {
            0 => {
                let steps = random.below(400);
                let world = Arc::clone(&world);
                crew.thread(move || {
                    (0..steps).for_each(|_| thread::yield_now());
                    shut_down(&world);
                });
                crew.join();
            }
            1 => {
                crew.join();
                world.settle();
                world.registry.close();
            }
            _ => {
                crew.join();
                world.settle();
                lock(&ending).in_order = true;
                shut_down(&world);
                let stopped = lock(&ending).stopped.len();
                assert_eq!(stopped, world.count(), "S4: each is stopped, by its hook");
            }
        }
        supervisors.join();
        assert_eq!(lock(&ending).wrong, [""; 0]);
        world.end();
    });
}
