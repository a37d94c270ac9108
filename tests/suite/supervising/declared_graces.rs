//! Grace periods that are declared, not waited for.
//!
//! - Only a supervisor provides a service with a declared grace period: another provider is
//!   refused, and a declaration is refused if the service has another provider. Both errors say
//!   what to do.
//! - The period is enforced for every instance: whether its build has used the dependency or not,
//!   and also if it is declared while the instance is up.
//! - So is one whose declaration runs the supervisor in place, by its waker.
//! - A shorter period that is declared during an absence applies to it.
//! - Absence begins when the dependency was ready and is not any more.
//! - While the service is built, the dependency is a start-only one.
//! - Of several declarations for one pair the hardest one counts: hard, then the shortest period,
//!   then start-only.

use std::{
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Wake, Waker},
    time::Duration,
};

use super::runtime::{TestRuntime, exact, ms};
use crate::support::publish;
use mainstay::{
    DependencyKind, Reason, Registry, ServiceId,
    error::{DependencyError, ProvideError, WaitForError},
};

const GRACE: Duration = ms(50);

/// Supervises a service whose build waits for the dependency to start, or does not wait.
fn pages(runtime: &mut TestRuntime, waits_for: Option<ServiceId<u32>>) -> ServiceId<u32> {
    let pages = runtime.service("pages");
    let mut calls = 0;
    runtime.supervise(pages, exact(), move |build| {
        calls += 1;
        async move {
            if let Some(dependency) = waits_for {
                build.wait_to_start(dependency).await?;
            }
            Ok::<_, WaitForError>(calls)
        }
    });
    pages
}

#[test]
fn a_provider_that_is_not_a_supervisor_is_refused_in_either_order() {
    let registry = Registry::with_capacity(3).unwrap();
    let [db, cache, pages] =
        ["db", "cache", "pages"].map(|name| registry.register::<u32>(name).unwrap());
    let provider = registry.provide(pages).unwrap();
    let refused = registry.depends(pages).with_grace_on(db, GRACE).unwrap_err();
    assert!(matches!(&refused, DependencyError::NeedsSupervisor { .. }));
    let text = refused.to_string();
    assert!(text.contains("pages") && text.contains("db"), "{text}");
    assert!(text.contains("call Registry::supervise"), "{text}");
    assert!(registry.status(pages).unwrap().dependencies.is_empty(), "nothing was declared");
    drop(provider);
    let provider = registry.provide(pages).expect("the declaration that was refused left nothing");
    drop(provider);

    registry.depends(pages).with_grace_on(db, GRACE).unwrap().with_grace_on(cache, GRACE).unwrap();
    let refused = registry.provide(pages).unwrap_err();
    assert!(matches!(&refused, ProvideError::NeedsSupervisor { .. }));
    let text = refused.to_string();
    assert!(text.contains("pages") && text.contains("call Registry::supervise"), "{text}");

    let supervisor = registry.supervise(pages).unwrap();
    registry.depends(pages).with_grace_on(db, GRACE / 2).expect("its provider is a supervisor");
    assert!(matches!(registry.provide(pages), Err(ProvideError::AlreadyProvided { .. })));
    drop(supervisor);
    assert!(matches!(registry.provide(pages), Err(ProvideError::NeedsSupervisor { .. })));

    // As soon as no grace period is left, any provider will do.
    registry.depends(pages).on(db).unwrap();
    assert!(matches!(registry.provide(pages), Err(ProvideError::NeedsSupervisor { .. })));
    registry.depends(pages).on(cache).unwrap();
    assert!(registry.provide(pages).is_ok());
}

#[test]
fn a_declaration_that_would_close_a_cycle_leaves_no_grace_period() {
    let registry = Registry::with_capacity(2).unwrap();
    let [db, pages] = ["db", "pages"].map(|name| registry.register::<u32>(name).unwrap());
    registry.depends(db).on(pages).unwrap();
    let refused = registry.depends(pages).with_grace_on(db, GRACE);
    assert!(matches!(refused, Err(DependencyError::Cycle(_))));
    assert!(registry.provide(pages).is_ok());
}

#[test]
fn the_period_is_enforced_for_every_instance_whether_it_was_built_from_the_dependency_or_not() {
    for waits in [true, false] {
        let mut runtime = TestRuntime::new();
        let db = runtime.service("db");
        let provider = runtime.registry.provide(db).unwrap();
        let mut connection = provider.begin().wait_blocking().unwrap().ready(0).unwrap();
        let pages = pages(&mut runtime, waits.then_some(db));
        runtime.registry.depends(pages).with_grace_on(db, GRACE).unwrap();
        runtime.run_until_idle();
        for round in 1..4 {
            assert_eq!(runtime.get(pages), Some(round));
            connection.fail("reset by peer");
            runtime.run_until_idle();
            runtime.advance(GRACE - ms(1));
            assert_eq!(runtime.get(pages), Some(round), "tolerated");
            connection = provider.begin().wait_blocking().unwrap().ready(round).unwrap();
            runtime.run_until_idle();
            runtime.advance(GRACE * 2);
            assert_eq!(runtime.get(pages), Some(round), "ready again in time");

            connection.fail("reset by peer");
            runtime.run_until_idle();
            runtime.advance(GRACE - ms(1));
            assert_eq!(runtime.get(pages), Some(round), "round {round}, waits: {waits}");
            runtime.advance(ms(1));
            let failure = runtime.registry.status(pages).unwrap().last_failure.unwrap();
            assert!(matches!(failure.reason, Reason::GraceExpired { .. }), "{failure}");
            assert!(
                failure.to_string().contains("db was not ready again within 50ms"),
                "{failure}"
            );
            // A build that waits has none to wait for. The other one is built, and up to the next
            // failure the absent dependency is no reason to fail it.
            runtime.advance(GRACE * 3);
            assert_eq!(runtime.get(pages), (!waits).then_some(round + 1));
            connection = provider.begin().wait_blocking().unwrap().ready(round).unwrap();
            runtime.run_until_idle();
        }
    }
}

#[test]
fn a_period_that_is_declared_while_the_service_is_up_applies_to_its_instance() {
    let mut runtime = TestRuntime::new();
    let (db, cache) = (runtime.service("db"), runtime.service("cache"));
    let [provide_db, provide_cache] = [db, cache].map(|id| runtime.registry.provide(id).unwrap());
    let db_runs = provide_db.begin().wait_blocking().unwrap().ready(0).unwrap();
    let pages = pages(&mut runtime, None);
    runtime.run_until_idle();
    runtime.registry.depends(pages).with_grace_on(db, GRACE).unwrap();
    runtime.run_until_idle();
    runtime.advance(ms(10));
    db_runs.fail("reset by peer");
    runtime.run_until_idle();
    // A declaration in between does not begin the period anew.
    runtime.advance(GRACE - ms(1));
    let cache_runs = provide_cache.begin().wait_blocking().unwrap().ready(0).unwrap();
    runtime.registry.depends(pages).with_grace_on(cache, GRACE).unwrap();
    runtime.run_until_idle();
    assert_eq!(runtime.get(pages), Some(1));
    runtime.advance(ms(1));
    assert_eq!(runtime.get(pages), Some(2), "built again");
    assert_eq!(runtime.registry.status(pages).unwrap().generation, 1);
    cache_runs.fail("out of memory");
    runtime.run_until_idle();
    runtime.advance(GRACE);
    assert_eq!(runtime.get(pages), Some(3));
}

#[test]
fn a_failure_during_the_build_invalidates_it_at_once() {
    let mut runtime = TestRuntime::new();
    let db = runtime.service("db");
    let provider = runtime.registry.provide(db).unwrap();
    let connection = provider.begin().wait_blocking().unwrap().ready(0).unwrap();
    let pages = runtime.service("pages");
    runtime.registry.depends(pages).with_grace_on(db, GRACE).unwrap();
    let clock = runtime.clock.clone();
    runtime.supervise(pages, exact(), move |_| {
        let clock = clock.clone();
        async move {
            use mainstay::supervise::Clock;
            clock.sleep_until(clock.now() + ms(20)).await;
            Ok::<_, WaitForError>(1)
        }
    });
    runtime.run_until_idle();
    let cascade = connection.fail("reset by peer");
    assert_eq!((cascade.failed, cascade.invalidated), (1, 1));
    runtime.run_until_idle();
    runtime.advance(ms(20));
    assert_eq!(runtime.get(pages), Some(1), "the second build");
    let status = runtime.registry.status(pages).unwrap();
    assert_eq!(status.generation, 1);
    let edge = &status.dependencies[0];
    assert_eq!(
        (edge.kind, edge.grace, edge.declared),
        (DependencyKind::StartOnly, Some(GRACE), true)
    );
}

#[test]
fn the_hardest_declaration_of_one_pair_counts() {
    let registry = Registry::with_capacity(2).unwrap();
    let [db, pages] = ["db", "pages"].map(|name| registry.register::<u32>(name).unwrap());
    let edge = || {
        let edges = registry.status(pages).unwrap().dependencies;
        assert_eq!(edges.len(), 1);
        (edges[0].kind, edges[0].grace)
    };
    let pages_on = registry.depends(pages);
    pages_on.soft_on(db).unwrap();
    assert_eq!(edge(), (DependencyKind::Soft, None));
    pages_on.to_start_on(db).unwrap();
    assert_eq!(edge(), (DependencyKind::StartOnly, None));
    pages_on.with_grace_on(db, GRACE).unwrap();
    assert_eq!(edge(), (DependencyKind::StartOnly, Some(GRACE)));
    pages_on.with_grace_on(db, GRACE * 2).unwrap().to_start_on(db).unwrap().soft_on(db).unwrap();
    assert_eq!(edge(), (DependencyKind::StartOnly, Some(GRACE)));
    pages_on.with_grace_on(db, GRACE / 2).unwrap();
    assert_eq!(edge(), (DependencyKind::StartOnly, Some(GRACE / 2)));
    pages_on.on(db).unwrap().with_grace_on(db, GRACE).unwrap();
    assert_eq!(edge(), (DependencyKind::Hard, None), "with a period declared after it, too");
    assert!(registry.provide(pages).is_ok(), "no period is left that needs a supervisor");
    assert!(pages_on.with_grace_on(db, GRACE).is_ok(), "the hard edge is there already");
}

#[test]
fn a_shorter_period_that_is_declared_during_an_absence_applies_to_it() {
    let mut runtime = TestRuntime::new();
    let db = runtime.service("db");
    let provider = runtime.registry.provide(db).unwrap();
    let running = publish(&provider, 0);
    let pages = pages(&mut runtime, None);
    runtime.registry.depends(pages).with_grace_on(db, GRACE * 4).unwrap();
    runtime.run_until_idle();
    running.fail("reset by peer");
    runtime.run_until_idle();
    runtime.advance(ms(10));
    runtime.registry.depends(pages).with_grace_on(db, GRACE * 8).unwrap();
    runtime.registry.depends(pages).with_grace_on(db, GRACE).unwrap();
    runtime.run_until_idle();
    assert_eq!(runtime.clock.sleepers(), 1);
    runtime.advance(GRACE - ms(11));
    assert_eq!(runtime.get(pages), Some(1));
    runtime.advance(ms(1));
    assert_eq!(runtime.get(pages), Some(2), "built again, without the dependency");
    let failure = runtime.registry.status(pages).unwrap().last_failure.unwrap();
    assert!(matches!(failure.reason, Reason::GraceExpired { grace: GRACE, .. }), "{failure}");
}

/// A task whose waker polls it in place.
struct InPlace(Mutex<Option<Pin<Box<dyn Future<Output = ()> + Send>>>>);

impl Wake for InPlace {
    fn wake(self: Arc<Self>) {
        let Some(mut task) = self.0.lock().unwrap().take() else { return };
        let waker = Waker::from(Arc::clone(&self));
        if task.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
            *self.0.lock().unwrap() = Some(task);
        }
    }
}

#[test]
fn a_supervisor_that_a_declaration_polls_in_place_enforces_it() {
    let registry = Registry::with_capacity(2).unwrap();
    let [db, pages] = ["db", "pages"].map(|name| registry.register::<u32>(name).unwrap());
    let provider = registry.provide(db).unwrap();
    let running = publish(&provider, 1);
    let mut builds = 0;
    let run = registry.supervise(pages).unwrap().run(async move |_| {
        builds += 1;
        builds
    });
    let task = Arc::new(InPlace(Mutex::new(Some(Box::pin(run)))));
    Arc::clone(&task).wake();
    assert_eq!(*registry.get(pages).unwrap(), 1);
    registry.depends(pages).with_grace_on(db, Duration::ZERO).unwrap();
    running.fail("reset by peer");
    assert_eq!(registry.status(pages).unwrap().generation, 1);
    registry.close();
    assert!(task.0.lock().unwrap().is_none(), "it has ended");
}

/// The build has used the dependency, so it was ready and is not any more.
#[test]
fn a_period_that_is_declared_while_a_dependency_of_the_build_is_absent_begins_then() {
    let mut runtime = TestRuntime::new();
    let db = runtime.service("db");
    let pages = pages(&mut runtime, Some(db));
    let provider = runtime.registry.provide(db).unwrap();
    let running = publish(&provider, 1);
    runtime.run_until_idle();
    assert_eq!(runtime.get(pages), Some(1));
    running.fail("lost");
    runtime.advance(ms(1_000));
    assert_eq!(runtime.get(pages), Some(1), "a start-only dependency may be down");
    runtime.registry.depends(pages).with_grace_on(db, GRACE).unwrap();
    runtime.advance(GRACE - ms(1));
    assert_eq!(runtime.get(pages), Some(1));
    runtime.advance(ms(1));
    assert_eq!(runtime.get(pages), None);
}
