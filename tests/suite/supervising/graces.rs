//! Dependencies whose absence is tolerated for a grace period.
//!
//! - If such a dependency is ready again within the period, its dependent is not taken down. A
//!   watch of the dependent reports the change.
//! - If it is not, the dependent fails at the end of the period, to the tick. The failure names
//!   the dependency and its failure. It is not counted against the dependent.
//! - A dependency that becomes ready just when its period ends is in time.
//! - A dependent that tolerates many dependencies sleeps once, and notices each of them.
//! - Before the dependent is published, the dependency is an ordinary one.
//! - Each dependency has a period of its own, which starts again with each absence.
//! - Such dependencies count for the order of a shutdown.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use super::runtime::{TestRuntime, exact, fails, ms};
use crate::support::{poll_once, publish};
use mainstay::{
    DependencyKind, Reason, Registry, ServiceId, WatchEvent,
    error::{WaitForError, chain},
    supervise::{Build, Clock, Sleep, SupervisorState},
    test_kit::VirtualClock,
};

const GRACE: Duration = ms(50);

/// Supervises `pages`, which tolerates the absence of each of these for its period.
fn tolerates(
    runtime: &mut TestRuntime,
    dependencies: &[(ServiceId<u32>, Duration)],
) -> ServiceId<u32> {
    let pages = runtime.service("pages");
    let dependencies = dependencies.to_vec();
    let mut calls = 0;
    runtime.supervise(pages, exact(), move |build| {
        calls += 1;
        let dependencies = dependencies.clone();
        async move {
            for (dependency, grace) in dependencies {
                build.wait_with_grace(dependency, grace).await?;
            }
            Ok::<_, WaitForError>(calls)
        }
    });
    pages
}

#[test]
fn a_dependency_that_recovers_within_the_grace_period_takes_no_dependent_down() {
    let mut runtime = TestRuntime::new();
    let db = runtime.service("db");
    let pages = tolerates(&mut runtime, &[(db, GRACE)]);
    let provider = runtime.registry.provide(db).unwrap();
    let mut connection = provider.begin().wait_blocking().unwrap().ready(1).unwrap();
    runtime.run_until_idle();
    assert_eq!(runtime.get(pages), Some(1));
    let edges = runtime.registry.status(pages).unwrap().dependencies;
    assert_eq!((edges.len(), edges[0].kind), (1, DependencyKind::Soft));

    for round in 2..5 {
        connection.fail("reset by peer");
        runtime.run_until_idle();
        runtime.advance(GRACE - ms(1));
        assert_eq!(runtime.get(pages), Some(1), "round {round}");
        connection = provider.begin().wait_blocking().unwrap().ready(round).unwrap();
        runtime.run_until_idle();
        runtime.advance(ms(1_000));
        assert_eq!(runtime.get(pages), Some(1), "round {round}");
    }
    assert_eq!(runtime.registry.status(pages).unwrap().generation, 0);
}

#[test]
fn a_dependent_fails_at_the_end_of_the_grace_period_and_names_the_dependency() {
    let mut runtime = TestRuntime::new();
    let (db, web) = (runtime.service("db"), runtime.service("web"));
    let pages = tolerates(&mut runtime, &[(db, GRACE)]);
    runtime.supervise(web, exact(), move |build| async move {
        build.wait_for(pages).await.map(|pages| **pages + 100)
    });
    let provider = runtime.registry.provide(db).unwrap();
    let connection = provider.begin().wait_blocking().unwrap().ready(1).unwrap();
    runtime.run_until_idle();
    connection.fail("reset by peer");
    runtime.run_until_idle();
    runtime.advance(GRACE - ms(1));
    assert_eq!((runtime.get(pages), runtime.get(web)), (Some(1), Some(101)));
    runtime.advance(ms(1));
    assert_eq!((runtime.get(pages), runtime.get(web)), (None, None));

    let status = runtime.registry.status(pages).unwrap();
    let failure = status.last_failure.unwrap();
    assert_eq!(
        chain(&failure).to_string(),
        "pages failed: db was not ready again within 50ms: \
         db has no current instance of generation 0: db failed: reset by peer"
    );
    match failure.reason {
        Reason::GraceExpired { missing, grace } => {
            assert_eq!((&*missing.service, grace), ("db", GRACE));
        }
        other => panic!("{other}"),
    }
    // No failure is counted. It waits, and is ready as soon as `db` is.
    assert_eq!(status.blocked_by, ["db"]);
    assert_eq!(
        (runtime.state(pages), runtime.supervisor_status(pages).failures),
        (SupervisorState::Building, 0)
    );
    assert_eq!(runtime.supervisor_status(web).failures, 0);
    let _connection = provider.begin().wait_blocking().unwrap().ready(2).unwrap();
    runtime.run_until_idle();
    assert_eq!((runtime.get(pages), runtime.get(web)), (Some(2), Some(102)));
}

#[test]
fn no_absence_is_tolerated_before_the_publication_and_each_dependency_has_its_own_period() {
    let mut runtime = TestRuntime::new();
    let (db, cache) = (runtime.service("db"), runtime.service("cache"));
    let pages = tolerates(&mut runtime, &[(db, GRACE), (cache, ms(200))]);
    let (provide_db, provide_cache) =
        (runtime.registry.provide(db).unwrap(), runtime.registry.provide(cache).unwrap());
    let connection = provide_db.begin().wait_blocking().unwrap().ready(1).unwrap();
    runtime.run_until_idle();
    assert_eq!(runtime.state(pages), SupervisorState::Building);
    connection.fail("too early");
    runtime.run_until_idle();
    assert_eq!(runtime.registry.status(pages).unwrap().generation, 1, "the attempt is invalidated");

    let connection = provide_db.begin().wait_blocking().unwrap().ready(2).unwrap();
    let cached = provide_cache.begin().wait_blocking().unwrap().ready(1).unwrap();
    runtime.run_until_idle();
    assert_eq!(runtime.get(pages), Some(2));

    // Each dependency has a period of its own.
    cached.fail("full");
    runtime.run_until_idle();
    runtime.advance(ms(160));
    connection.fail("reset by peer");
    runtime.run_until_idle();
    runtime.advance(ms(39));
    assert_eq!(runtime.get(pages), Some(2));
    runtime.advance(ms(1));
    assert_eq!(runtime.get(pages), None);
    let failure = runtime.registry.status(pages).unwrap().last_failure.unwrap();
    assert!(failure.to_string().contains("cache was not ready again within 200ms"), "{failure}");
}

#[test]
fn a_watch_reports_the_recovery_of_a_tolerated_dependency() {
    let mut runtime = TestRuntime::new();
    let (db, pages) = (runtime.service("db"), runtime.service("pages"));
    let (sender, watches) = std::sync::mpsc::channel();
    runtime.supervise(pages, exact(), move |build| {
        let sender = sender.clone();
        async move {
            sender.send(build.watch(db).map_err(|error| error.to_string())?).unwrap();
            build.wait_with_grace(db, GRACE).await.map_err(|error| error.to_string())?;
            Ok::<_, String>(1)
        }
    });
    runtime.supervise(db, exact(), fails(0));
    runtime.run_until_idle();
    let mut watch = watches.try_recv().unwrap();
    let mut observe = || watch.changed().wait_blocking_timeout(Duration::ZERO);
    assert!(matches!(observe(), Ok(WatchEvent::Ready(one)) if **one == 1));
    runtime.advance(ms(5_000));
    runtime.registry.fail(db, "once").unwrap();
    assert!(matches!(observe(), Ok(WatchEvent::Failed(_))));
    runtime.run_until_idle();
    assert!(matches!(observe(), Ok(WatchEvent::Ready(two)) if **two == 2));
    assert_eq!(runtime.get(pages), Some(1));
}

#[test]
fn shutdown_stops_a_dependent_before_its_tolerated_dependency() {
    let mut runtime = TestRuntime::new();
    let db = runtime.service("db");
    runtime.supervise(db, exact(), fails(0));
    let pages = tolerates(&mut runtime, &[(db, GRACE)]);
    runtime.run_until_idle();
    let held = runtime.registry.get_arc(pages).unwrap();
    let registry = runtime.registry.clone();
    runtime.spawn(async move {
        registry.shutdown(ms(60_000)).await;
    });
    runtime.run_until_idle();
    assert_eq!(
        (runtime.get(pages), runtime.get(db)),
        (None, Some(1)),
        "a reader still holds the pages"
    );
    drop(held);
    runtime.run_until_idle();
    assert_eq!(runtime.get(db), None);
    assert!(runtime.registry.is_closed());
}

#[test]
fn each_absence_has_a_whole_period() {
    let mut runtime = TestRuntime::new();
    let db = runtime.service("db");
    let pages = tolerates(&mut runtime, &[(db, GRACE)]);
    let provider = runtime.registry.provide(db).unwrap();
    let mut connection = publish(&provider, 0);
    runtime.run_until_idle();
    for round in 1..10 {
        connection.fail("reset by peer");
        runtime.run_until_idle();
        // The periods of earlier absences would end during this one.
        runtime.advance(GRACE - ms(1));
        connection = publish(&provider, round);
        runtime.run_until_idle();
        assert_eq!(runtime.clock.sleepers(), 0, "round {round}");
    }
    assert_eq!(runtime.registry.status(pages).unwrap().generation, 0);
    connection.fail("reset by peer");
    runtime.run_until_idle();
    runtime.advance(GRACE - ms(1));
    assert_eq!(runtime.get(pages), Some(1));
    runtime.advance(ms(1));
    assert_eq!(runtime.get(pages), None);
}

#[test]
fn a_dependent_of_many_sleeps_once_and_notices_each_absence() {
    const MANY: u32 = 40;
    let mut runtime = TestRuntime::with_capacity(64);
    let ids: Vec<_> = (0..MANY).map(|n| runtime.service(&format!("dep {n}"))).collect();
    // The later ones have the shorter periods.
    let period = |n: usize| ms(1_000) - ms(10) * n as u32;
    let graces: Vec<_> = ids.iter().enumerate().map(|(n, &id)| (id, period(n))).collect();
    let providers: Vec<_> = ids.iter().map(|&id| runtime.registry.provide(id).unwrap()).collect();
    let pages = tolerates(&mut runtime, &graces);
    for failing in [0, 17, MANY as usize - 1] {
        let mut running: Vec<_> =
            providers.iter().map(|provider| Some(publish(provider, 1))).collect();
        runtime.run_until_idle();
        for running in &mut running {
            running.take().unwrap().fail("away");
        }
        runtime.run_until_idle();
        assert_eq!(runtime.clock.sleepers(), 1);
        // All but one are ready again in time.
        for (n, provider) in providers.iter().enumerate() {
            if n != failing {
                running[n] = Some(publish(provider, 2));
            }
        }
        runtime.advance(period(failing) - ms(1));
        assert!(runtime.get(pages).is_some(), "{failing}");
        runtime.advance(ms(1));
        assert_eq!(runtime.get(pages), None, "{failing}");
        let failure = runtime.registry.status(pages).unwrap().last_failure.unwrap();
        assert!(failure.to_string().contains(&format!("dep {failing} was not")), "{failure}");
    }
}

type Work = Box<dyn FnOnce() + Send>;

/// A clock of which a sleep that ends runs this work first.
#[derive(Clone)]
struct WorksAtTheEnd {
    clock: VirtualClock,
    work: Arc<Mutex<Option<Work>>>,
}

impl Clock for WorksAtTheEnd {
    fn now(&self) -> Instant {
        self.clock.now()
    }

    fn sleep_until(&self, deadline: Instant) -> Sleep {
        let (sleep, work) = (self.clock.sleep_until(deadline), Arc::clone(&self.work));
        Box::pin(async move {
            sleep.await;
            let work = work.lock().unwrap().take();
            work.into_iter().for_each(|work| work());
        })
    }
}

#[test]
fn a_dependency_that_becomes_ready_when_its_period_ends_is_in_time() {
    let clock = WorksAtTheEnd { clock: VirtualClock::new(), work: Arc::default() };
    let registry = Registry::builder(2).unwrap().clock(clock.clone()).build();
    let [db, pages] = ["db", "pages"].map(|name| registry.register::<u32>(name).unwrap());
    let provider = registry.provide(db).unwrap();
    let running = publish(&provider, 1);
    let mut run =
        Box::pin(registry.supervise(pages).unwrap().run(async move |build: Build<u32>| {
            build.wait_with_grace(db, GRACE).await.map(|db| **db)
        }));
    let mut poll = || assert!(poll_once(&mut run).is_pending());
    poll();
    running.fail("reset by peer");
    poll();
    // After the supervisor has checked the dependency, and before its sleep ends.
    let again = Arc::new(Mutex::new(None));
    let attempt = provider.begin().wait_blocking().unwrap();
    let sender = Arc::clone(&again);
    let publishes = move || *sender.lock().unwrap() = Some(attempt.ready(2).unwrap());
    *clock.work.lock().unwrap() = Some(Box::new(publishes));
    clock.clock.advance(GRACE);
    poll();
    assert!(clock.work.lock().unwrap().is_none(), "the sleep has ended");
    assert_eq!(*registry.get(pages).unwrap(), 1);
    // The next absence is noticed.
    again.lock().unwrap().take().unwrap().fail("reset by peer");
    poll();
    clock.clock.advance(GRACE - ms(1));
    poll();
    assert_eq!(*registry.get(pages).unwrap(), 1);
    clock.clock.advance(ms(1));
    poll();
    assert!(registry.get(pages).is_err());
    registry.close();
}
