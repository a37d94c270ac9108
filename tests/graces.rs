//! Dependencies that may be away for a time, under a clock that stands.
//!
//! - One that is back in time does not take its dependent down, which is told of it if it watches.
//! - One that is not does, to the tick; the failure says what was away, and why, and is charged to nobody but that one.
//! - Until the dependent is published it is a dependency like any other.
//! - Each has a time of its own, and it begins anew each time.
//! - It counts for the order of a shutdown.

mod support;

use std::time::Duration;

use mainstay::{Change, DependencyKind, Doing, Reason, ServiceId, WaitForError};
use support::stage::{Stage, exact, fails, ms};

const GRACE: Duration = ms(50);

/// `pages`, which can stand each of these to be away for so long.
fn stands(stage: &mut Stage, dependencies: &[(ServiceId<u32>, Duration)]) -> ServiceId<u32> {
    let pages = stage.service("pages");
    let dependencies = dependencies.to_vec();
    let mut calls = 0;
    stage.supervise(pages, exact(), move |build| {
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
fn what_is_back_in_time_takes_nobody_down() {
    let mut stage = Stage::new();
    let db = stage.service("db");
    let pages = stands(&mut stage, &[(db, GRACE)]);
    let provider = stage.registry.provide(db).unwrap();
    let mut connection = provider.begin().wait().unwrap().ready(1).unwrap();
    stage.settle();
    assert_eq!(stage.get(pages), Some(1));
    let edges = stage.registry.status(pages).unwrap().dependencies;
    assert_eq!((edges.len(), edges[0].kind), (1, DependencyKind::Soft));

    for round in 2..5 {
        connection.fail("reset by peer");
        stage.settle();
        stage.advance(GRACE - ms(1));
        assert_eq!(stage.get(pages), Some(1), "round {round}");
        connection = provider.begin().wait().unwrap().ready(round).unwrap();
        stage.settle();
        stage.advance(ms(1_000));
        assert_eq!(stage.get(pages), Some(1), "round {round}");
    }
    assert_eq!(stage.registry.status(pages).unwrap().generation, 0);
}

#[test]
fn what_is_not_back_in_time_does_and_is_to_blame() {
    let mut stage = Stage::new();
    let (db, web) = (stage.service("db"), stage.service("web"));
    let pages = stands(&mut stage, &[(db, GRACE)]);
    stage.supervise(web, exact(), move |build| async move {
        build.wait_for(pages).await.map(|pages| **pages + 100)
    });
    let provider = stage.registry.provide(db).unwrap();
    let connection = provider.begin().wait().unwrap().ready(1).unwrap();
    stage.settle();
    connection.fail("reset by peer");
    stage.settle();
    stage.advance(GRACE - ms(1));
    assert_eq!((stage.get(pages), stage.get(web)), (Some(1), Some(101)));
    stage.advance(ms(1));
    assert_eq!((stage.get(pages), stage.get(web)), (None, None));

    let status = stage.registry.status(pages).unwrap();
    let failure = status.last_failure.unwrap();
    assert_eq!(
        failure.to_string(),
        "pages failed: db was not back within 50ms: db failed: reset by peer"
    );
    match failure.reason {
        Reason::NotBack { failure, grace } => assert_eq!((&*failure.service, grace), ("db", GRACE)),
        other => panic!("{other}"),
    }
    // It waits, charged with nothing, and is there as soon as it is.
    assert_eq!(status.blocked_by, ["db"]);
    assert_eq!((stage.doing(pages), stage.supervision(pages).charges), (Doing::Building, 0));
    assert_eq!(stage.supervision(web).charges, 0);
    let _connection = provider.begin().wait().unwrap().ready(2).unwrap();
    stage.settle();
    assert_eq!((stage.get(pages), stage.get(web)), (Some(2), Some(102)));
}

#[test]
fn while_it_is_built_it_stands_nothing() {
    let mut stage = Stage::new();
    let (db, cache) = (stage.service("db"), stage.service("cache"));
    let pages = stands(&mut stage, &[(db, GRACE), (cache, ms(200))]);
    let (provide_db, provide_cache) =
        (stage.registry.provide(db).unwrap(), stage.registry.provide(cache).unwrap());
    let connection = provide_db.begin().wait().unwrap().ready(1).unwrap();
    stage.settle();
    assert_eq!(stage.doing(pages), Doing::Building);
    connection.fail("too early");
    stage.settle();
    assert_eq!(stage.registry.status(pages).unwrap().generation, 1, "overtaken");

    let connection = provide_db.begin().wait().unwrap().ready(2).unwrap();
    let cached = provide_cache.begin().wait().unwrap().ready(1).unwrap();
    stage.settle();
    assert_eq!(stage.get(pages), Some(2));

    // Each has a time of its own.
    cached.fail("full");
    stage.settle();
    stage.advance(ms(160));
    connection.fail("reset by peer");
    stage.settle();
    stage.advance(ms(39));
    assert_eq!(stage.get(pages), Some(2));
    stage.advance(ms(1));
    assert_eq!(stage.get(pages), None);
    let failure = stage.registry.status(pages).unwrap().last_failure.unwrap();
    assert!(failure.to_string().contains("cache was not back within 200ms"), "{failure}");
}

#[test]
fn who_watches_is_told_of_what_is_back() {
    let mut stage = Stage::new();
    let (db, pages) = (stage.service("db"), stage.service("pages"));
    let (sender, watches) = std::sync::mpsc::channel();
    stage.supervise(pages, exact(), move |build| {
        let sender = sender.clone();
        async move {
            sender.send(build.watch(db).map_err(|error| error.to_string())?).unwrap();
            build.wait_with_grace(db, GRACE).await.map_err(|error| error.to_string())?;
            Ok::<_, String>(1)
        }
    });
    stage.supervise(db, exact(), fails(0));
    stage.settle();
    let mut watch = watches.try_recv().unwrap();
    let mut told = || watch.changed().wait_timeout(Duration::ZERO);
    assert!(matches!(told(), Ok(Change::Ready(one)) if **one == 1));
    stage.advance(ms(5_000));
    stage.registry.fail(db, "once").unwrap();
    assert!(matches!(told(), Ok(Change::Failed(_))));
    stage.settle();
    assert!(matches!(told(), Ok(Change::Ready(two)) if **two == 2));
    assert_eq!(stage.get(pages), Some(1));
}

#[test]
fn a_shutdown_goes_by_soft_edges_too() {
    let mut stage = Stage::new();
    let db = stage.service("db");
    stage.supervise(db, exact(), fails(0));
    let pages = stands(&mut stage, &[(db, GRACE)]);
    stage.settle();
    let held = stage.registry.get_arc(pages).unwrap();
    let registry = stage.registry.clone();
    stage.run(async move {
        registry.shutdown(ms(60_000)).await;
    });
    stage.settle();
    assert_eq!((stage.get(pages), stage.get(db)), (None, Some(1)), "a reader still has the pages");
    drop(held);
    stage.settle();
    assert_eq!(stage.get(db), None);
    assert!(stage.registry.is_closed());
}
