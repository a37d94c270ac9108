//! Dependencies whose absence is tolerated for a grace period.
//!
//! - If such a dependency is ready again within the period, its dependent is not taken down. A
//!   watch of the dependent reports the change.
//! - If it is not, the dependent fails at the end of the period, to the tick. The failure names
//!   the dependency and its failure. It is not counted against the dependent.
//! - Before the dependent is published, the dependency is an ordinary one.
//! - Each dependency has a period of its own, which starts again with each absence.
//! - Such dependencies count for the order of a shutdown.

use std::time::Duration;

use super::runtime::{TestRuntime, exact, fails, ms};
use mainstay::{
    DependencyKind, Reason, ServiceId, WatchEvent,
    error::{WaitForError, chain},
    supervise::SupervisorState,
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
