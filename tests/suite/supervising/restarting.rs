//! Restarts, backoffs, and giving up.
//!
//! - A supervised service becomes ready, and becomes ready again after each failure: its own, a
//!   failure of a dependency, and an error of its builder.
//! - A failure is counted against the service at which it began. A dependent never backs off
//!   because of its dependency.
//! - A backoff takes as long as the policy says, to the nanosecond. A reset, the close, and a
//!   failure of a dependency of the last build end it early.
//! - If more failures are counted than the policy allows, the supervisor gives up. The observer
//!   receives an event, the status shows it, and a reset restarts the service.
//! - When the registry closes, or the supervisor is dropped, no task, sleeper or builder is left.

use std::{
    convert::Infallible,
    future::{Future, pending},
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use super::runtime::{BoxError, LiveCount, TestRuntime, exact, fails, ms};
use crate::support::poll_once;
use mainstay::{
    Phase, Registry,
    error::{ProvideError, WaitForError},
    supervise::{StopReport, SupervisorState},
};

#[test]
fn a_failed_service_restarts_after_its_backoff_and_its_dependent_with_it() {
    let mut runtime = TestRuntime::new();
    let (a, b) = (runtime.service("a"), runtime.service("b"));
    assert_eq!(runtime.registry.status(a).unwrap().supervisor, None);
    runtime.supervise(b, exact(), move |build| async move {
        Ok::<_, WaitForError>(**build.wait_for(a).await? + 100)
    });
    runtime.supervise(a, exact(), fails(0));
    assert_eq!(runtime.state(a), SupervisorState::NotRunning);
    runtime.run_until_idle();
    assert_eq!((runtime.get(a), runtime.get(b)), (Some(1), Some(101)));
    assert_eq!(runtime.state(b), SupervisorState::Up);

    // Both were ready for no time. The one that failed backs off, and the other one only waits.
    assert_eq!(runtime.registry.fail(a, "once").unwrap().failed, 2);
    runtime.run_until_idle();
    assert_eq!(
        (runtime.state(a), runtime.state(b)),
        (SupervisorState::BackingOff, SupervisorState::Building)
    );
    runtime.advance(ms(99));
    assert_eq!((runtime.get(a), runtime.get(b)), (None, None));
    runtime.advance(ms(1));
    assert_eq!((runtime.get(a), runtime.get(b)), (Some(2), Some(102)));
    assert_eq!(
        (runtime.supervisor_status(a).failures, runtime.supervisor_status(b).failures),
        (1, 0)
    );

    // After `reset_after` it restarts at once.
    runtime.advance(ms(5_000));
    runtime.registry.fail(a, "twice").unwrap();
    runtime.run_until_idle();
    assert_eq!((runtime.get(a), runtime.get(b)), (Some(3), Some(103)));
    assert_eq!(runtime.supervisor_status(a).failures, 0);

    runtime.registry.close();
    runtime.run_until_idle();
    assert!(runtime.tasks.is_empty());
    assert_eq!(runtime.registry.status(a).unwrap().supervisor, None);
}

#[test]
fn a_backoff_takes_exactly_as_long_as_the_policy_says() {
    let mut runtime = TestRuntime::new();
    let id = runtime.service("a");
    runtime.supervise(id, exact(), fails(6));
    runtime.run_until_idle();
    for (i, backoff) in [100, 200, 400, 800, 1_000, 1_000].into_iter().enumerate() {
        let status = runtime.supervisor_status(id);
        assert_eq!((status.state, status.failures), (SupervisorState::BackingOff, i as u32 + 1));
        assert_eq!(status.next_try_in, Some(ms(backoff)));
        let failure = runtime.registry.status(id).unwrap().last_failure.unwrap();
        assert_eq!(failure.reason.to_string(), format!("try {}", i + 1));
        runtime.advance(ms(backoff) - Duration::from_nanos(1));
        assert_eq!(runtime.state(id), SupervisorState::BackingOff);
        runtime.advance(Duration::from_nanos(1));
    }
    assert_eq!(runtime.get(id), Some(7));
    assert_eq!(runtime.clock.sleepers(), 0);
}

#[test]
fn backoffs_grow_by_the_factor_of_the_policy_up_to_its_maximum() {
    for (factor, backoffs) in [(3.0, [50, 150, 400]), (0.5, [50; 3]), (f32::NAN, [50; 3])] {
        let mut runtime = TestRuntime::new();
        let id = runtime.service("a");
        runtime.supervise(id, exact().backoff(ms(50), ms(400)).factor(factor), fails(3));
        runtime.run_until_idle();
        for backoff in backoffs {
            assert_eq!(runtime.supervisor_status(id).next_try_in, Some(ms(backoff)), "{factor}");
            runtime.advance(ms(backoff));
        }
        assert_eq!(runtime.get(id), Some(4));
    }
}

#[test]
fn failures_are_counted_against_the_service_at_which_they_began() {
    let mut runtime = TestRuntime::new();
    let (root, leaf) = (runtime.service("root"), runtime.service("leaf"));
    let strict = exact().max_failures(3, ms(3_600_000));
    runtime.supervise(root, strict.clone(), fails(0));
    runtime.supervise(leaf, strict.max_failures(0, ms(3_600_000)), move |build| async move {
        build.wait_for(root).await.map(|root| **root)
    });
    runtime.run_until_idle();
    for i in 0..3 {
        runtime.registry.fail(root, "again").unwrap();
        runtime.run_until_idle();
        assert_eq!(
            (runtime.state(root), runtime.state(leaf)),
            (SupervisorState::BackingOff, SupervisorState::Building)
        );
        runtime.advance(ms(100) * 2_u32.pow(i));
        assert_eq!(
            (runtime.state(root), runtime.state(leaf)),
            (SupervisorState::Up, SupervisorState::Up)
        );
        assert_eq!(runtime.supervisor_status(leaf).failures, 0);
    }
    // The first counted failure of the leaf would be too many. But the root gives up.
    runtime.registry.fail(root, "once too often").unwrap();
    runtime.run_until_idle();
    assert_eq!(
        (runtime.state(root), runtime.state(leaf)),
        (SupervisorState::GivenUp, SupervisorState::Building)
    );
    let listing = runtime.registry.list();
    let blocker = listing.blockers("leaf")[0];
    assert_eq!(
        (&*blocker.name, blocker.supervisor.as_ref().unwrap().state),
        ("root", SupervisorState::GivenUp)
    );

    runtime.restart(root);
    assert_eq!(
        (runtime.state(root), runtime.state(leaf)),
        (SupervisorState::Up, SupervisorState::Up)
    );
    runtime.registry.fail(leaf, "its own").unwrap();
    runtime.run_until_idle();
    assert_eq!(
        (runtime.state(root), runtime.state(leaf)),
        (SupervisorState::Up, SupervisorState::GivenUp)
    );
}

#[test]
fn a_backoff_ends_when_a_dependency_of_the_failed_build_fails() {
    let mut runtime = TestRuntime::new();
    let (config, database, other) =
        (runtime.service("config"), runtime.service("database"), runtime.service("other"));
    runtime.supervise(config, exact().reset_after(ms(0)), fails(0));
    runtime.supervise(other, exact().reset_after(ms(0)), fails(0));
    runtime.supervise(database, exact(), move |build| async move {
        let config = **build.wait_for(config).await?;
        if config < 3 { Err(format!("no file {config}").into()) } else { Ok::<_, BoxError>(config) }
    });
    runtime.run_until_idle();
    assert_eq!(
        (runtime.state(database), runtime.supervisor_status(database).failures),
        (SupervisorState::BackingOff, 1)
    );
    runtime.registry.fail(other, "no dependency of the database").unwrap();
    runtime.run_until_idle();
    assert_eq!(
        (runtime.state(database), runtime.supervisor_status(database).failures),
        (SupervisorState::BackingOff, 1)
    );
    runtime.registry.fail(config, "edited, and wrong again").unwrap();
    // The first backoff is not shortened.
    runtime.advance(ms(99));
    assert_eq!(runtime.supervisor_status(database).failures, 1);
    runtime.advance(ms(1));
    assert_eq!(
        (runtime.state(database), runtime.supervisor_status(database).failures),
        (SupervisorState::BackingOff, 2)
    );
    runtime.registry.fail(config, "edited").unwrap();
    runtime.advance(ms(100));
    assert_eq!(runtime.get(database), Some(3));
}

#[test]
fn a_given_up_service_stays_down_until_it_is_restarted() {
    let mut runtime = TestRuntime::new();
    let id = runtime.service("a");
    runtime.supervise(id, exact().max_failures(2, ms(1_000)), fails(4));
    runtime.run_until_idle();
    runtime.advance(ms(100));
    runtime.advance(ms(200));
    assert_eq!(runtime.state(id), SupervisorState::GivenUp);
    runtime.recorder.assert_order(&["a 0: attempt failed: try 3", "a 0: given up: try 3"]);
    runtime.advance(ms(3_600_000));
    assert_eq!((runtime.state(id), runtime.get(id)), (SupervisorState::GivenUp, None));

    // The failures are forgotten: the first backoff is short again.
    runtime.restart(id);
    assert_eq!(runtime.supervisor_status(id).next_try_in, Some(ms(100)));
    // A restart also ends a backoff early.
    runtime.restart(id);
    assert_eq!(runtime.get(id), Some(5));
    runtime.registry.fail(id, "later").unwrap();
    runtime.run_until_idle();
    assert_eq!(runtime.supervisor_status(id).next_try_in, Some(ms(100)), "the counter was reset");
    runtime.advance(ms(100));
    assert_eq!(runtime.get(id), Some(6));
}

#[test]
fn failures_within_the_debounce_time_cause_one_restart() {
    let mut runtime = TestRuntime::new();
    let id = runtime.service("a");
    runtime.supervise(id, exact().debounce(ms(50)), fails(0));
    runtime.run_until_idle();
    runtime.advance(ms(10_000));
    for _ in 0..10 {
        runtime.registry.fail(id, "storm").unwrap();
        runtime.advance(ms(4));
    }
    assert_eq!(runtime.get(id), None);
    runtime.advance(ms(50));
    assert_eq!(runtime.get(id), Some(2), "it was not built exactly once more");
}

#[test]
fn a_dropped_supervisor_leaves_no_builder_instance_or_role() {
    let mut runtime = TestRuntime::new();
    let (id, alive) = (runtime.service("a"), Arc::<AtomicUsize>::default());
    for up in [true, false] {
        let count = Arc::clone(&alive);
        runtime.supervise(id, exact(), move |_| {
            let alive = LiveCount::new(&count);
            async move {
                let _alive = alive;
                if up { Ok::<_, Infallible>(1) } else { pending().await }
            }
        });
        let refused = runtime.registry.supervise(id).unwrap_err();
        assert!(matches!(refused, ProvideError::AlreadyProvided { .. }));
        runtime.run_until_idle();
        assert_eq!(alive.load(Ordering::Relaxed), usize::from(!up));
        runtime.tasks.clear();
        assert_eq!((alive.load(Ordering::Relaxed), runtime.get(id)), (0, None));
        let status = runtime.registry.status(id).unwrap();
        assert_eq!((status.phase, status.has_provider), (Phase::Down, false));
        assert_eq!(status.supervisor, None);
    }
    // A supervisor that never ran.
    drop(runtime.registry.supervise(id).unwrap());
    assert!(!runtime.registry.status(id).unwrap().has_provider);
}

#[test]
fn a_build_that_ends_after_close_is_not_published() {
    let mut runtime = TestRuntime::new();
    let id = runtime.service("a");
    let registry = runtime.registry.clone();
    runtime.supervise(id, exact(), move |_| {
        registry.close();
        async { Ok::<_, Infallible>(1) }
    });
    let mut context = Context::from_waker(Waker::noop());
    assert_eq!(runtime.tasks[0].as_mut().poll(&mut context), Poll::Ready(()));
    assert_eq!(runtime.get(id), None);
}

/// A limit of no failures shows that none is counted.
#[test]
fn a_build_that_fails_during_close_or_shutdown_is_not_counted() {
    type Ending = Pin<Box<dyn Future<Output = StopReport> + Send>>;
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
        let mut runtime = TestRuntime::new();
        let id = runtime.service("a");
        let ending = Arc::<Mutex<Option<Ending>>>::default();
        let (registry, kept) = (runtime.registry.clone(), Arc::clone(&ending));
        runtime.supervise(id, exact().max_failures(0, ms(1_000)), move |_| {
            let result = builds(&registry, &kept);
            async move {
                match result {
                    Some(result) => result,
                    None => pending().await,
                }
            }
        });
        runtime.run_until_idle();
        if let Some(shutdown) = ending.lock().unwrap().take() {
            runtime.spawn(async { assert_eq!(shutdown.await.stop_timeouts, []) });
        }
        runtime.run_until_idle();
        assert!(runtime.tasks.is_empty());
        let events = runtime.recorder.take();
        assert!(!events.iter().any(|line| line.contains("broken")), "{events:?}");
        assert!(!events.iter().any(|line| line.contains("too late")), "{events:?}");
    }
}
