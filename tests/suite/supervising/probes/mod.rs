//! Probes: the user's code that checks an instance while it is up (S19).
//!
//! - The first probe begins one pause after the service is ready, and each next one a pause after
//!   the end of the last one. An error, a panic and a timeout are misses.
//! - After the misses of the policy in a row, `probe` fails the instance, with the last miss as the
//!   source; its verdict counts. `probe_ready` marks the instance as degraded until a success, and
//!   changes no other reason for which it is degraded.
//! - A probe runs with each kind of body, after its return, and with a value that is completed.
//!   After the end of the instance was announced none begins, and none runs on.
//! - What a probe says of a value that was replaced, or of an instance that has ended, is ignored.
//! - A pause or a timeout of any length is accepted, and a probe may be hostile.

mod ends;

use std::{
    fmt,
    future::pending,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use super::runtime::{self, BoxError, TestRuntime, exact, ms};
use crate::support::{must_finish, poll_once, registry_of, until};
use mainstay::{
    Instance, Reason, Registry, ServiceId,
    supervise::{
        BodyEnd, Clock, Completed, Live, Permanent, Planned, ProbeFailed, ProbeMiss,
        SupervisorState, SystemClock,
    },
    test_kit::{BuildOutcome, Script, VirtualClock},
};

const SECOND: Duration = ms(1_000);

fn fail(text: &str) -> BuildOutcome {
    BuildOutcome::Fail(text.into())
}

/// Counts the probes that have begun.
#[derive(Clone, Default)]
struct Begun(Arc<AtomicUsize>);

impl Begun {
    fn count(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// The times at which probes have begun, in milliseconds since the start.
#[derive(Clone)]
struct Times {
    clock: VirtualClock,
    start: Instant,
    begun: Arc<Mutex<Vec<u128>>>,
}

impl Times {
    fn new(runtime: &TestRuntime) -> Self {
        let clock = runtime.clock.clone();
        Self { start: clock.now(), clock, begun: Arc::default() }
    }

    fn note(&self) {
        let time = self.clock.now() - self.start;
        self.begun.lock().unwrap().push(time.as_millis());
    }

    fn take(&self) -> Vec<u128> {
        std::mem::take(&mut self.begun.lock().unwrap())
    }
}

/// The reason of the last failure, as the error of a probe.
fn with_failed<R>(
    registry: &Registry,
    id: ServiceId<u32>,
    check: impl FnOnce(&ProbeFailed) -> R,
) -> R {
    let failure = registry.status(id).unwrap().last_failure.unwrap();
    let Reason::Error(error) = &failure.reason else { panic!("{}", failure.reason) };
    check(error.downcast_ref::<ProbeFailed>().unwrap())
}

fn why(runtime: &TestRuntime, id: ServiceId<u32>) -> Option<String> {
    runtime.supervisor_status(id).degraded.map(|degraded| degraded.why)
}

#[test]
fn the_misses_of_the_policy_in_a_row_fail_the_instance() {
    let mut runtime = TestRuntime::new();
    let id = runtime.service("a");
    let (script, times) = (Script::default(), Times::new(&runtime));
    for outcome in [fail("1"), fail("2"), BuildOutcome::Build] {
        script.push(outcome);
    }
    for outcome in [BuildOutcome::Panic("no answer".into()), BuildOutcome::Hang, fail("lost")] {
        script.push(outcome);
    }
    let supervisor = runtime.registry.supervise(id).unwrap().restart_policy(exact());
    let supervisor = supervisor.probe(SECOND, ms(300), {
        let times = times.clone();
        async move |instance: Arc<Instance<u32>>| {
            assert_eq!(**instance, 7);
            times.note();
            script.step().await
        }
    });
    runtime.spawn(supervisor.run(async |_| 7));
    runtime.advance(ms(5_999));
    // The pause begins at the end of a probe: the fifth one has used its whole timeout.
    assert_eq!(times.take(), [1_000, 2_000, 3_000, 4_000, 5_000]);
    assert_eq!(runtime.get(id), Some(7));
    runtime.advance(ms(301));
    assert_eq!(times.take(), [6_300]);
    assert_eq!(runtime.supervisor_status(id).failures, 0, "it was stable for 5 s");
    with_failed(&runtime.registry, id, |failed| {
        assert_eq!((failed.misses, &*failed.last.to_string()), (3, "lost"));
        assert_eq!(failed.to_string(), "its probe failed, misses in a row: 3");
    });
    let events = [
        "a 0: attempt started",
        "a 0: ready",
        "a 0: failed: its probe failed, misses in a row: 3: lost",
        "a 1: attempt started",
        "a 1: ready",
    ];
    assert_eq!(runtime.recorder.take(), events);
    // The next instance has no misses, and its first probe begins a pause after it is ready.
    runtime.advance(SECOND);
    assert_eq!(times.take(), [7_300]);
}

#[test]
fn a_panic_and_a_timeout_are_misses_of_their_own() {
    for (outcome, miss) in [
        (
            BuildOutcome::Panic("no answer".into()),
            ProbeMiss::Panicked { message: "no answer".into() },
        ),
        (BuildOutcome::Hang, ProbeMiss::TimedOut { after: ms(300) }),
    ] {
        let mut runtime = TestRuntime::new();
        let id = runtime.service("a");
        let script = Script::default();
        script.push(outcome);
        // Zero counts as 1.
        let policy = exact().probe_misses(0);
        let supervisor = runtime.registry.supervise(id).unwrap().restart_policy(policy);
        let supervisor = supervisor.probe(SECOND, ms(300), async move |_| script.step().await);
        runtime.spawn(supervisor.run(async |_| 1));
        let failed = |registry: &Registry| registry.status(id).unwrap().failed > 0;
        assert!(runtime.advance_until(ms(1_300), failed));
        with_failed(&runtime.registry, id, |failed| {
            assert_eq!(failed.misses, 1);
            assert_eq!(failed.last.downcast_ref(), Some(&miss));
        });
        assert_eq!(runtime.state(id), SupervisorState::BackingOff);
        assert_eq!(runtime.supervisor_status(id).failures, 1, "counted");
    }
}

#[test]
fn the_last_miss_decides_about_the_next_build() {
    let verdict = |error: fn(&Registry, ServiceId<u32>) -> BoxError| {
        let mut runtime = TestRuntime::new();
        let id = runtime.service("a");
        let down = runtime.service("down");
        let supervisor = runtime.registry.supervise(id).unwrap();
        let supervisor = supervisor.restart_policy(exact().probe_misses(2));
        let registry = runtime.registry.clone();
        let supervisor =
            supervisor.probe(SECOND, SECOND, async move |_| Err(error(&registry, down)));
        runtime.spawn(supervisor.run(async |_| 1));
        runtime.advance(2 * SECOND);
        let status = runtime.supervisor_status(id);
        (status.state, status.failures)
    };
    assert_eq!(verdict(|_, _| "lost".into()), (SupervisorState::BackingOff, 1));
    let permanent = |_: &_, _| Permanent::new("wrong password").into();
    assert_eq!(verdict(permanent), (SupervisorState::Permanent, 1));
    assert_eq!(verdict(|_, _| Planned::new("edited").into()), (SupervisorState::Up, 0));
    let unavailable = |registry: &Registry, down| registry.get(down).map(drop).unwrap_err().into();
    assert_eq!(verdict(unavailable), (SupervisorState::Waiting, 0));
}

#[test]
fn probe_ready_marks_the_instance_as_degraded_until_a_success() {
    let mut runtime = TestRuntime::new();
    let id = runtime.service("a");
    let script = Script::default();
    for outcome in [fail("1"), fail("2"), fail("3"), fail("4"), BuildOutcome::Build, fail("5")] {
        script.push(outcome);
    }
    let supervisor = runtime.registry.supervise(id).unwrap().restart_policy(exact());
    let supervisor = supervisor.probe_ready(SECOND, SECOND, async move |_| script.step().await);
    runtime.spawn(supervisor.run(async |_| 1));
    runtime.advance(2 * SECOND);
    assert_eq!(why(&runtime, id), None);
    runtime.advance(SECOND);
    assert_eq!(why(&runtime, id).as_deref(), Some("probe: 3"));
    // The fourth miss in the row changes nothing.
    runtime.advance(SECOND);
    assert_eq!(why(&runtime, id).as_deref(), Some("probe: 3"));
    runtime.advance(SECOND);
    assert_eq!(why(&runtime, id), None);
    runtime.advance(10 * SECOND);
    let events = [
        "a 0: attempt started",
        "a 0: ready",
        "a 0: degraded: probe: 3",
        "a 0: no longer degraded",
    ];
    assert_eq!(runtime.recorder.take(), events, "and it never failed");
}

#[test]
fn a_body_and_each_probe_change_only_their_own_reason() {
    let mut runtime = TestRuntime::new();
    let id = runtime.service("a");
    let (first, second) = (Script::default(), Script::default());
    let live = Arc::new(Mutex::new(None));
    let supervisor = runtime.registry.supervise(id).unwrap();
    let supervisor = supervisor.restart_policy(exact().probe_misses(1));
    let supervisor = supervisor
        .probe_ready(SECOND, SECOND, {
            let first = first.clone();
            async move |_| first.step().await
        })
        .body({
            let live = Arc::clone(&live);
            async move |it: Live<u32>| {
                *live.lock().unwrap() = Some(it);
                pending::<()>().await;
            }
        })
        .probe_ready(SECOND, SECOND, {
            let second = second.clone();
            async move |_| second.step().await
        });
    runtime.spawn(supervisor.run(async |_| 1));
    runtime.run_until_idle();
    let live = live.lock().unwrap().clone().unwrap();
    let mut after = |outcomes: [Option<&str>; 2]| {
        for (script, outcome) in [&first, &second].into_iter().zip(outcomes) {
            script.push(outcome.map_or(BuildOutcome::Build, fail));
        }
        runtime.advance(SECOND);
        why(&runtime, id)
    };
    live.set_degraded("body");
    assert_eq!(after([None, None]).as_deref(), Some("body"), "no success of a probe clears it");
    assert_eq!(after([Some("1"), None]).as_deref(), Some("body; probe: 1"));
    assert_eq!(after([Some("1"), Some("2")]).as_deref(), Some("body; probe: 1; probe: 2"));
    live.clear_degraded();
    assert_eq!(after([Some("1"), Some("2")]).as_deref(), Some("probe: 1; probe: 2"));
    assert_eq!(after([None, Some("2")]).as_deref(), Some("probe: 2"));
    live.clear_degraded();
    assert_eq!(after([None, Some("2")]).as_deref(), Some("probe: 2"));
    assert_eq!(after([None, None]), None);
}

/// Runs a service with the supervisor that `with` returns, and returns the number of probes that
/// have begun within ten seconds.
fn probes_in_ten_seconds(with: impl FnOnce(&mut TestRuntime, ServiceId<u32>, Begun)) -> usize {
    let mut runtime = TestRuntime::new();
    let id = runtime.service("a");
    let begun = Begun::default();
    with(&mut runtime, id, begun.clone());
    runtime.advance(10 * SECOND);
    assert_eq!(runtime.get(id), Some(1));
    begun.get()
}

#[test]
fn a_probe_runs_with_each_kind_of_body_and_after_it_has_returned() {
    let of = |begun: Begun| {
        async move |_: Arc<Instance<u32>>| {
            begun.count();
            Ok::<_, BoxError>(())
        }
    };
    for end in [Some(BodyEnd::StayReady), Some(BodyEnd::Completed), None] {
        let probes = probes_in_ten_seconds(|runtime, id, begun| {
            let supervisor = runtime.registry.supervise(id).unwrap();
            let supervisor =
                supervisor.probe(SECOND, SECOND, of(begun)).body(async move |_| match end {
                    Some(end) => end,
                    None => pending().await,
                });
            runtime.spawn(supervisor.run(async |_| 1));
            runtime.run_until_idle();
            let completed = end == Some(BodyEnd::Completed);
            let state = if completed { SupervisorState::Completed } else { SupervisorState::Up };
            assert_eq!(runtime.state(id), state);
        });
        assert_eq!(probes, 10, "{end:?}");
    }
    let probes = probes_in_ten_seconds(|runtime, id, begun| {
        let supervisor = runtime.registry.supervise(id).unwrap();
        let supervisor = supervisor.on_close(async |_| ()).probe_ready(SECOND, SECOND, of(begun));
        runtime.spawn(supervisor.run(async |_| 1));
    });
    assert_eq!(probes, 10, "without a body");
    // A completed value has no body, also with a probe.
    let bodies = Begun::default();
    let probes = probes_in_ten_seconds(|runtime, id, begun| {
        let supervisor = runtime.registry.supervise(id).unwrap();
        let bodies = bodies.clone();
        let supervisor = supervisor.probe(SECOND, SECOND, of(begun)).body(async move |_| {
            bodies.count();
        });
        runtime.spawn(supervisor.run(async |_| Completed(1)));
        runtime.run_until_idle();
        assert_eq!(runtime.state(id), SupervisorState::Completed);
    });
    assert_eq!((probes, bodies.get()), (10, 0));
}

#[test]
fn a_body_that_returns_fails_its_instance_also_with_a_probe() {
    let mut runtime = TestRuntime::new();
    let id = runtime.service("a");
    let supervisor = runtime.registry.supervise(id).unwrap().restart_policy(exact());
    let supervisor = supervisor
        .probe(SECOND, SECOND, async |_| Ok::<_, BoxError>(()))
        .body(async |_: Live<u32>| ());
    runtime.spawn(supervisor.run(async |_| 1));
    runtime.run_until_idle();
    assert_eq!(runtime.state(id), SupervisorState::BackingOff);
    let failure = runtime.registry.status(id).unwrap().last_failure.unwrap();
    assert_eq!(failure.reason.to_string(), "its body returned");
}

#[test]
fn supervisors_on_threads_probe_too() {
    let (registry, [a, b]) = registry_of::<u32, 2>(["a", "b"]);
    let (probes, probed) = mpsc::channel();
    let policy = exact().probe_misses(2);
    let supervisor = registry.supervise(a).unwrap().restart_policy(policy.clone());
    let supervisor = supervisor
        .body_blocking(|live: Live<u32>| {
            let _ = live.stopping().wait_blocking();
        })
        .probe(ms(1), SECOND, async move |_| {
            probes.send("a").unwrap();
            Err("lost")
        });
    let first = thread::spawn(move || supervisor.run_blocking(|_| 1));
    until("it failed", || registry.status(a).unwrap().last_failure.is_some());
    with_failed(&registry, a, |failed| assert_eq!(failed.misses, 2));
    assert_eq!(probed.try_iter().take(2).collect::<Vec<_>>(), ["a", "a"]);

    let supervisor = registry.supervise(b).unwrap().restart_policy(policy);
    let supervisor = supervisor.probe_ready(ms(1), SECOND, async |_| Err("slow"));
    let second = thread::spawn(move || supervisor.run_blocking(|_| 1));
    registry.wait_ready(b).wait_blocking().unwrap();
    let degraded = || registry.status(b).unwrap().supervisor.unwrap().degraded;
    until("it is degraded", || degraded().is_some());
    assert!(registry.get(b).is_ok());
    registry.close();
    first.join().unwrap();
    second.join().unwrap();
}

#[test]
fn a_pause_of_no_time_does_not_keep_its_executor_busy() {
    let registry = Registry::builder(1).unwrap().clock(SystemClock).build();
    let id = registry.register::<u32>("a").unwrap();
    let begun = Begun::default();
    let supervisor = registry.supervise(id).unwrap();
    let supervisor = supervisor.probe(Duration::ZERO, SECOND, {
        let begun = begun.clone();
        async move |_| {
            begun.count();
            Ok::<_, BoxError>(())
        }
    });
    let run = supervisor.run(async |_| 1);
    must_finish("each poll ends", move || {
        let mut run = Box::pin(run);
        for _ in 0..10 {
            assert!(poll_once(&mut run).is_pending());
        }
        let begun = begun.get();
        assert!((5..=10).contains(&begun), "at most one in each poll: {begun}");
    });
}

#[test]
fn a_pause_and_a_timeout_may_have_any_length() {
    let mut runtime = TestRuntime::new();
    let (never, at_once, slow) =
        (runtime.service("never"), runtime.service("at once"), runtime.service("slow"));
    let policy = exact().probe_misses(1);
    let begun = Begun::default();
    let supervise = |id| runtime.registry.supervise(id).unwrap().restart_policy(policy.clone());
    let supervisor = supervise(never).probe(Duration::MAX, SECOND, {
        let begun = begun.clone();
        async move |_| {
            begun.count();
            Err("probed")
        }
    });
    let first = supervisor.run(async |_| 1);
    // The result counts before the timeout.
    let supervisor =
        supervise(at_once).probe(SECOND, Duration::ZERO, async |_| Ok::<_, BoxError>(()));
    let second = supervisor.run(async |_| 1);
    let clock = runtime.clock.clone();
    let supervisor = supervise(slow).probe(SECOND, Duration::MAX, async move |_| {
        clock.sleep_until(clock.now() + ms(50_000)).await;
        Ok::<_, BoxError>(())
    });
    let third = supervisor.run(async |_| 1);
    runtime.spawn(first);
    runtime.spawn(second);
    runtime.spawn(third);
    runtime.advance(100 * SECOND);
    assert_eq!(begun.get(), 0);
    for id in [never, at_once, slow] {
        let status = runtime.registry.status(id).unwrap();
        assert_eq!((runtime.get(id), status.generation.get()), (Some(1), 0), "{status}");
    }
}

/// An error whose text, or whose drop, panics.
#[derive(Debug)]
struct Hostile {
    in_drop: bool,
}

impl fmt::Display for Hostile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        assert!(self.in_drop, "in the text");
        f.write_str("hostile")
    }
}

impl std::error::Error for Hostile {}

impl Drop for Hostile {
    fn drop(&mut self) {
        assert!(!self.in_drop, "in the drop");
    }
}

#[test]
fn a_hostile_probe_harms_nothing() {
    let mut runtime = TestRuntime::new();
    let id = runtime.service("a");
    let supervisor = runtime.registry.supervise(id).unwrap();
    let supervisor = supervisor.restart_policy(exact().probe_misses(4));
    let mut calls = 0;
    let supervisor = supervisor.probe_ready(SECOND, ms(100), async move |_| {
        calls += 1;
        match calls {
            // The future is dropped at its timeout.
            1 => {
                let _bomb = Hostile { in_drop: true };
                pending::<()>().await;
            }
            2 => return Err(Hostile { in_drop: true }),
            3 => std::panic::panic_any(Hostile { in_drop: true }),
            4 => return Err(Hostile { in_drop: false }),
            _ => {}
        }
        Ok(())
    });
    runtime.spawn(supervisor.run(async |_| 1));
    runtime.advance(ms(4_200));
    assert_eq!(why(&runtime, id).as_deref(), Some("probe: the text of the error panicked"));
    runtime.advance(SECOND);
    assert_eq!((runtime.get(id), why(&runtime, id)), (Some(1), None));
    let status = runtime.registry.status(id).unwrap();
    assert_eq!((status.failed, status.supervisor.unwrap().failures), (0, 0));
}
