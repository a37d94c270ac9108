//! Waits of a build that return no instance.
//!
//! - A wait with a grace period that was never polled, was dropped, has timed out, has lost a race
//!   or is leaked has no effect: no edge, no timer, no failure. The dependency may have failed
//!   before, and may become ready and fail later.
//! - However often a build tries, there is one timer for a dependency, and the shortest of the
//!   periods of those waits counts that have returned an instance.
//! - A grace period of zero fails the service once for each failure of its dependency.
//! - A `Build` that was kept gets no dependency after the build has ended: no instance, no watch,
//!   no edge, no grace period.

use std::{future::ready, mem, pin::pin, sync::mpsc, task::Poll, time::Duration};

use futures_lite::future::or;

use super::runtime::{TestRuntime, exact, ms};
use crate::support::{must_finish, poll_once, publish};
use mainstay::{
    DependencyKind, Reason, ServiceId,
    error::{DependencyError, WaitForError},
    supervise::Build,
    wait::BuildWaitFor,
};

/// Waits that return no instance, because the dependency is not ready.
type InVain = (&'static str, fn(BuildWaitFor<'_, u32>, &Build<u32>));

const IN_VAIN: [InVain; 6] = [
    ("it was never polled", |wait, _| drop(wait)),
    ("it was dropped", |mut wait, _| assert!(poll_once(&mut wait).is_pending())),
    ("it has timed out", |wait, _| {
        let waited = wait.wait_blocking_timeout(Duration::ZERO);
        assert!(matches!(waited, Err(WaitForError::TimedOut(_))));
    }),
    ("it has timed out by the clock", |wait, build| {
        let waited = pin!(wait.timeout(Duration::ZERO, build.registry().clock()));
        assert!(poll_once(waited).is_ready());
    }),
    ("it has lost a race", |wait, _| {
        let race = pin!(or(async { wait.await.is_ok() }, ready(false)));
        assert_eq!(poll_once(race), Poll::Ready(false));
    }),
    ("it was leaked", |mut wait, _| {
        assert!(poll_once(&mut wait).is_pending());
        mem::forget(wait);
    }),
];

#[test]
fn a_wait_that_returns_no_instance_leaves_no_grace_period() {
    for (why, in_vain) in IN_VAIN {
        for (period, has_failed) in
            [(Duration::ZERO, false), (Duration::ZERO, true), (ms(10), false), (ms(10), true)]
        {
            // A supervisor that never ends its poll would hang the test.
            must_finish(why, move || leaves_no_grace_period(why, in_vain, period, has_failed));
        }
    }
}

fn leaves_no_grace_period(
    why: &str,
    in_vain: fn(BuildWaitFor<'_, u32>, &Build<u32>),
    period: Duration,
    has_failed: bool,
) {
    let mut runtime = TestRuntime::new();
    let (dep, app) = (runtime.service("dep"), runtime.service("app"));
    let provider = runtime.registry.provide(dep).unwrap();
    if has_failed {
        provider.begin().wait_blocking().unwrap().fail("away").unwrap();
    }
    runtime.supervise(app, exact(), move |build| {
        for _ in 0..3 {
            in_vain(build.wait_with_grace(dep, period), &build);
        }
        ready(Ok::<_, String>(1))
    });
    runtime.run_until_idle();
    let edges = runtime.registry.status(app).unwrap().dependencies;
    assert!(edges.is_empty(), "{why}: {edges:?}");
    runtime.advance(ms(60_000));
    // Neither its absence nor its return nor its failure has an effect.
    let running = publish(&provider, 1);
    runtime.run_until_idle();
    running.fail("gone");
    runtime.run_until_idle();
    assert_eq!(runtime.clock.sleepers(), 0, "{why}: {period:?}, {has_failed}");
    runtime.advance(ms(60_000));
    let status = runtime.registry.status(app).unwrap();
    assert_eq!((runtime.get(app), status.generation.get()), (Some(1), 0), "{why}: {status}");
    runtime.registry.close();
}

#[test]
fn there_is_one_timer_for_a_dependency_and_the_shortest_period_counts() {
    let mut runtime = TestRuntime::new();
    let (dep, app) = (runtime.service("dep"), runtime.service("app"));
    runtime.supervise(app, exact(), move |build| async move {
        for try_number in 0..1_000 {
            let mut wait = build.wait_with_grace(dep, ms(try_number));
            assert!(poll_once(&mut wait).is_pending());
        }
        // The shorter ones above have returned nothing.
        build.wait_with_grace(dep, ms(7_000)).await?;
        build.wait_with_grace(dep, ms(5_000)).await?;
        build.wait_with_grace(dep, ms(6_000)).await.map(|dep| **dep)
    });
    let provider = runtime.registry.provide(dep).unwrap();
    runtime.run_until_idle();
    let running = publish(&provider, 1);
    runtime.run_until_idle();
    assert_eq!((runtime.get(app), runtime.clock.sleepers()), (Some(1), 0));
    running.fail("away");
    runtime.run_until_idle();
    assert_eq!(runtime.clock.sleepers(), 1);
    runtime.advance(ms(4_999));
    assert_eq!(runtime.get(app), Some(1));
    runtime.advance(ms(1));
    assert_eq!(runtime.get(app), None);
    let failure = runtime.registry.status(app).unwrap().last_failure.unwrap();
    assert!(matches!(failure.reason, Reason::GraceExpired { grace, .. } if grace == ms(5_000)));
}

#[test]
fn a_period_of_zero_fails_the_service_once_for_each_failure_of_the_dependency() {
    let mut runtime = TestRuntime::new();
    let (dep, app) = (runtime.service("dep"), runtime.service("app"));
    runtime.registry.depends(app).with_grace_on(dep, Duration::ZERO).unwrap();
    let provider = runtime.registry.provide(dep).unwrap();
    let mut running = publish(&provider, 0);
    // It waits for the dependency at first, and can do without.
    runtime.supervise(app, exact(), move |build| {
        ready(match at_once(build.wait_with_grace(dep, Duration::ZERO)) {
            Some(waited) => waited.map(|dep| **dep),
            None => Ok(100),
        })
    });
    runtime.run_until_idle();
    for round in 1..5 {
        assert_eq!(runtime.registry.status(app).unwrap().generation, round - 1);
        running.fail("away");
        runtime.run_until_idle();
        let status = runtime.registry.status(app).unwrap();
        assert_eq!((runtime.get(app), status.generation.get()), (Some(100), round), "{status}");
        runtime.advance(ms(60_000));
        running = publish(&provider, 1);
        runtime.run_until_idle();
    }
    assert_eq!(runtime.supervisor_status(app).failures, 0);
}

/// Returns the output of a wait that ends at its first poll.
fn at_once<F: Future>(wait: F) -> Option<F::Output> {
    match poll_once(wait) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

/// Supervises a service whose builder hands its `Build` over, and is ready or fails.
fn kept_build(runtime: &mut TestRuntime, app: ServiceId<u32>, is_ready: bool) -> Build<u32> {
    let (sender, builds) = mpsc::channel();
    runtime.supervise(app, exact(), move |build| {
        sender.send(build).unwrap();
        ready(if is_ready { Ok(1) } else { Err("no") })
    });
    runtime.run_until_idle();
    builds.try_recv().unwrap()
}

#[test]
fn a_build_that_was_kept_gets_no_dependency() {
    for is_ready in [true, false] {
        let mut runtime = TestRuntime::new();
        let (dep, app) = (runtime.service("dep"), runtime.service("app"));
        let provider = runtime.registry.provide(dep).unwrap();
        let running = publish(&provider, 1);
        let build = kept_build(&mut runtime, app, is_ready);
        let refused = build.watch(dep).unwrap_err();
        assert!(matches!(&refused, DependencyError::AttemptEnded { .. }));
        assert_eq!(refused.to_string(), "app gets no more dependencies: the attempt has ended");
        let ended = |waited| matches!(waited, Some(Err(WaitForError::AttemptEnded { .. })));
        assert!(ended(at_once(build.wait_with_grace(dep, Duration::ZERO))));
        assert!(ended(at_once(build.wait_to_start(dep))));
        assert!(ended(at_once(build.wait_for(dep))));
        assert!(runtime.registry.status(app).unwrap().dependencies.is_empty());
        running.fail("gone");
        runtime.run_until_idle();
        assert_eq!(runtime.registry.status(app).unwrap().generation, 0);
    }
}

#[test]
fn a_wait_of_a_kept_build_that_began_in_time_ends_with_the_build() {
    let mut runtime = TestRuntime::new();
    let (dep, app) = (runtime.service("dep"), runtime.service("app"));
    let (sender, builds) = mpsc::channel::<Build<u32>>();
    runtime.supervise(app, exact(), move |build| {
        assert!(poll_once(&mut build.wait_with_grace(dep, Duration::ZERO)).is_pending());
        sender.send(build).unwrap();
        ready(Ok::<_, String>(1))
    });
    runtime.run_until_idle();
    let build = builds.try_recv().unwrap();
    let mut wait = build.wait_with_grace(dep, Duration::ZERO);
    assert!(matches!(poll_once(&mut wait), Poll::Ready(Err(_))));
    let provider = runtime.registry.provide(dep).unwrap();
    publish(&provider, 1).fail("gone");
    runtime.run_until_idle();
    assert_eq!(runtime.get(app), Some(1));
    let kinds: Vec<DependencyKind> =
        runtime.registry.status(app).unwrap().dependencies.iter().map(|edge| edge.kind).collect();
    assert_eq!(kinds, []);
}

#[test]
fn a_build_that_is_kept_when_its_supervisor_is_dropped_has_ended() {
    let mut runtime = TestRuntime::new();
    let (dep, app) = (runtime.service("dep"), runtime.service("app"));
    let (sender, kept) = mpsc::channel();
    runtime.supervise(app, exact(), move |build: Build<u32>| {
        sender.send(build).unwrap();
        std::future::pending::<Result<u32, WaitForError>>()
    });
    runtime.run_until_idle();
    let build = kept.try_recv().unwrap();
    let provider = runtime.registry.provide(dep).unwrap();
    let _running = publish(&provider, 1);
    drop(runtime.tasks.drain(..));
    // The next attempt has the generation of the build.
    let by_hand = runtime.registry.provide(app).unwrap();
    let attempt = by_hand.begin().wait_blocking().unwrap();
    assert_eq!(attempt.generation(), build.generation());
    let waited = build.wait_for(dep).wait_blocking_timeout(Duration::ZERO);
    assert!(matches!(waited, Err(WaitForError::AttemptEnded { .. })), "{waited:?}");
    assert!(runtime.registry.status(app).unwrap().dependencies.is_empty());
}
