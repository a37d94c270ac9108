//! Why a service is not ready: the words of each state of a supervisor, in the line of its status,
//! in the line of a service that needs it, in the chains of errors, and serialised.

use std::{
    future::{pending, ready},
    sync::mpsc,
    time::Duration,
};

use crate::support::until;
use mainstay::{
    Registry, ServiceId,
    error::{DependencyUnavailable, chain},
    supervise::{Clock, Completed, Live, Permanent, RestartPolicy, SupervisorState},
    test_kit::{TestRuntime, VirtualClock},
};

const fn s(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn exact() -> RestartPolicy {
    RestartPolicy::default().backoff(ms(400), s(60)).without_jitter()
}

async fn sleep(clock: &VirtualClock, time: Duration) {
    clock.sleep_until(clock.now() + time).await;
}

/// Services, of which `needs` depends on each of the others in turn.
fn services<const N: usize>(names: [&str; N]) -> (TestRuntime, Registry, [ServiceId<u32>; N]) {
    let runtime = TestRuntime::new(N).unwrap();
    let registry = runtime.registry.clone();
    let ids = names.map(|name| registry.register(name).unwrap());
    (runtime, registry, ids)
}

/// Checks the line of the service everywhere. `failure` is the reason of its last failure, which
/// is the source in an error.
#[track_caller]
fn check(registry: &Registry, id: ServiceId<u32>, words: &str, failure: Option<&str>) {
    let status = registry.status(id).unwrap();
    let name = status.name.clone();
    let line = match failure {
        Some(failure) => {
            // The time since which it is not ready is written last.
            let (words, lasts) = match words.split_once(" (for ") {
                Some((words, lasts)) => (words, format!(" (for {lasts}")),
                None => (words, String::new()),
            };
            format!("{name}: {words}: {failure}{lasts}")
        }
        None => format!("{name}: {words}"),
    };
    assert_eq!(status.to_string(), line);
    assert_eq!(registry.list().get(&name).unwrap().to_string(), line);
    let error = registry.get(id).unwrap_err();
    let not_ready = DependencyUnavailable::find(&error).unwrap().not_ready().unwrap();
    assert_eq!(not_ready.to_string(), line);
    assert_eq!(not_ready.root(), &name);
    let text = chain(&error).to_string();
    assert!(text.starts_with(&format!("{name} is not ready: {name}: {words}")), "{text}");
    if let Some(failure) = failure {
        assert_eq!(text.matches(failure).count(), 1, "{text}");
    }
    let error = registry.wait_ready(id).wait_blocking_timeout(Duration::ZERO).unwrap_err();
    let text = chain(&error).to_string();
    assert!(text.contains(&format!("{name}: {words}")), "{text}");
    #[cfg(feature = "serde")]
    {
        let json = serde_json::to_value(&status).unwrap();
        assert_eq!(json["not_ready"], line);
        let state = status.supervisor.as_ref().unwrap().state;
        assert_eq!(json["supervisor"]["state"], kebab(state));
    }
}

/// The name of a state in JSON.
#[cfg(feature = "serde")]
fn kebab(state: SupervisorState) -> &'static str {
    match state {
        SupervisorState::NotRunning => "not-running",
        SupervisorState::Building => "building",
        SupervisorState::Up => "up",
        SupervisorState::Completed => "completed",
        SupervisorState::Stopping => "stopping",
        SupervisorState::BodyRunning => "body-running",
        SupervisorState::Draining => "draining",
        SupervisorState::Closing => "closing",
        SupervisorState::BackingOff => "backing-off",
        SupervisorState::Waiting => "waiting",
        SupervisorState::Permanent => "permanent",
        SupervisorState::GivenUp => "given-up",
        SupervisorState::Stopped => "stopped",
        other => panic!("{other} is not in this list"),
    }
}

#[test]
fn permanent_waiting_closing_and_completed_have_their_own_words() {
    let names = ["permanent", "waiting", "pool", "closing", "completed"];
    let (mut runtime, registry, [permanent, waiting, pool, closing, completed]) = services(names);
    let supervisor = |id| registry.supervise(id).unwrap().restart_policy(exact());
    let wrong = |_| async { Err::<u32, _>(Permanent::new("the password is wrong")) };
    runtime.spawn(supervisor(permanent).run(wrong));
    let reader = registry.clone();
    runtime.spawn(supervisor(waiting).run(async move |_| reader.get(pool).map(|pool| *pool)));
    let clock = runtime.clock.clone();
    let closes = supervisor(closing).restart_policy(exact().drain_timeout(s(9)));
    let closes = closes.on_close(async move |value| {
        drop(value);
        sleep(&clock, s(5)).await;
    });
    runtime.spawn(closes.run(|_| ready(1)));
    runtime.spawn(supervisor(completed).run(async |_| Completed(1)));
    runtime.run_until_idle();
    registry.fail(closing, "lost").unwrap();
    runtime.advance(s(3));
    let wrong = "permanent error: the password is wrong";
    let words = "failed permanently, a change of its inputs or `Registry::restart` tries again \
                 (for 3 s)";
    check(&registry, permanent, words, Some(wrong));
    check(&registry, closing, "closing (for 3 s)", Some("lost"));
    // The path leads to the service that was not there.
    let line = "waiting: waiting for pool; pool: no provider";
    assert_eq!(registry.status(waiting).unwrap().to_string(), line);
    let error = registry.get(waiting).unwrap_err();
    assert_eq!(chain(&error).to_string(), format!("waiting is not ready: {line}"));
    let status = registry.status(completed).unwrap();
    assert_eq!(status.to_string(), "completed: ready");
    assert_eq!(status.supervisor.unwrap().to_string(), "completed");
    let supervisor = registry.status(waiting).unwrap().supervisor.unwrap();
    assert_eq!(supervisor.to_string(), "waiting for pool");
    #[cfg(feature = "serde")]
    {
        let json = serde_json::to_value(registry.status(waiting).unwrap()).unwrap();
        assert_eq!(json["supervisor"]["waiting_for"], "pool");
        assert_eq!(json["supervisor"]["state"], "waiting");
        let json = serde_json::to_value(registry.status(completed).unwrap()).unwrap();
        assert_eq!(json["supervisor"]["state"], "completed");
        assert!(json["not_ready"].is_null());
    }
    registry.close();
    runtime.run_until_idle();
}

#[test]
fn a_body_that_is_late_has_its_own_words() {
    let (mut runtime, registry, [id]) = services(["worker"]);
    let (release, released) = mpsc::channel::<()>();
    let supervisor = registry.supervise(id).unwrap();
    let supervisor = supervisor.restart_policy(exact().stop_timeout(s(1)));
    let supervisor = supervisor.exclusive_body_blocking(move |live: Live<u32>| {
        let _ = released.recv();
        // The next body, for which nothing is left to receive, stays.
        let _ = live.stopping().wait_blocking();
    });
    runtime.spawn(supervisor.run(|_| ready(1)));
    runtime.run_until_idle();
    registry.fail(id, "lost").unwrap();
    runtime.advance(ms(900));
    check(&registry, id, "stopping", Some("lost"));
    runtime.advance(ms(4_100));
    check(&registry, id, "waiting for its body to return (for 5 s)", Some("lost"));
    drop(release);
    until("it is ready again", || {
        runtime.run_until_idle();
        registry.get(id).is_ok()
    });
    assert_eq!(registry.status(id).unwrap().to_string(), "worker: ready");
    registry.close();
}

#[test]
fn what_a_planned_end_does_with_a_service_has_its_own_words() {
    let names = ["base", "top", "building", "idle"];
    let (mut runtime, registry, [base, top, building, idle]) = services(names);
    for id in [top, building] {
        registry.depends(id).on(base).unwrap();
    }
    let clock = runtime.clock.clone();
    let supervisor = registry.supervise(base).unwrap().restart_policy(exact());
    let supervisor = supervisor.on_close(async move |value| {
        drop(value);
        sleep(&clock, s(5)).await;
    });
    runtime.spawn(supervisor.run(|_| ready(1)));
    let supervisor = registry.supervise(top).unwrap();
    runtime.spawn(supervisor.run(|_| ready(1)));
    let supervisor = registry.supervise(building).unwrap();
    runtime.spawn(supervisor.run(|_| pending::<u32>()));
    let not_run = registry.supervise(idle).unwrap();
    runtime.run_until_idle();
    let held = registry.get(base).unwrap();
    let restart = registry.restart(base, "edited");
    runtime.spawn(async move { drop(restart.await) });
    runtime.run_until_idle();
    let why = "base is being restarted: edited";
    check(&registry, base, "draining (holders: 1)", Some(why));
    for id in [top, building] {
        check(&registry, id, "ended, begins again after its dependencies", Some(why));
    }
    drop(held);
    runtime.advance(s(4));
    check(&registry, base, "closing (for 4 s)", Some(why));
    let words = "ended, begins again after its dependencies (for 4 s)";
    check(&registry, top, words, Some(why));
    runtime.advance(s(1));
    assert_eq!(registry.status(base).unwrap().to_string(), "base: ready");

    let stop = registry.stop_subtree(base);
    runtime.spawn(async move { drop(stop.await) });
    runtime.advance(s(7));
    for id in [base, top, building] {
        let status = registry.status(id).unwrap().supervisor.unwrap();
        assert_eq!(status.to_string(), "stopped");
    }
    check(&registry, base, "stopped, `Registry::start` starts it (for 7 s)", None);
    check(&registry, top, "stopped, `Registry::start` starts it (for 7 s)", None);
    check(&registry, idle, "its supervisor is not running", None);
    drop(not_run);
}

/// The states that the tests above do not reach, and that each one has a name.
#[cfg(feature = "serde")]
#[test]
fn each_state_is_serialised() {
    let states = [
        (SupervisorState::NotRunning, "not running"),
        (SupervisorState::Building, "building"),
        (SupervisorState::Up, "up"),
        (SupervisorState::Completed, "completed"),
        (SupervisorState::Stopping, "stopping"),
        (SupervisorState::BodyRunning, "waiting for its body to return"),
        (SupervisorState::Draining, "draining"),
        (SupervisorState::Closing, "closing"),
        (SupervisorState::BackingOff, "backing off"),
        (SupervisorState::Waiting, "waiting"),
        (SupervisorState::Permanent, "failed permanently"),
        (SupervisorState::GivenUp, "given up"),
        (SupervisorState::Stopped, "stopped"),
    ];
    for (state, text) in states {
        assert_eq!(serde_json::to_value(state).unwrap(), kebab(state));
        assert_eq!(state.to_string(), text);
    }
}

/// The words are those of the service, and not of the last state of its supervisor.
#[test]
fn a_failure_that_the_supervisor_has_not_noticed_is_a_service_that_is_down() {
    let (mut runtime, registry, [up, done]) = services(["up", "done"]);
    let supervise = |id| registry.supervise(id).unwrap().restart_policy(exact());
    runtime.spawn(supervise(up).run(|_| ready(1)));
    runtime.spawn(supervise(done).run(|_| ready(Completed(1))));
    runtime.run_until_idle();
    for (id, state) in [(up, SupervisorState::Up), (done, SupervisorState::Completed)] {
        registry.fail(id, "lost").unwrap();
        assert_eq!(registry.status(id).unwrap().supervisor.unwrap().state, state);
        check(&registry, id, "down", Some("lost"));
    }
}

/// A duration is written from one second on.
#[test]
fn the_duration_without_a_supervisor_begins_at_the_failure_by_the_clock_of_the_system() {
    let registries = [
        Registry::with_capacity(1).unwrap(),
        Registry::builder(1).unwrap().clock(VirtualClock::new()).build(),
    ];
    let down = registries.each_ref().map(|registry| {
        let id = registry.register::<u32>("a").unwrap();
        (id, crate::support::up(registry, id, 1))
    });
    let lines = || [0, 1].map(|n| registries[n].status(down[n].0).unwrap().to_string());
    std::thread::sleep(ms(1_050));
    registries.iter().zip(&down).for_each(|(registry, (id, _))| {
        registry.fail(*id, "lost").unwrap();
    });
    assert_eq!(lines(), ["a: down: lost", "a: down: lost"], "it was up for that second");
    std::thread::sleep(ms(1_050));
    let [real, virtual_time] = lines();
    assert!(real.starts_with("a: down: lost (for "), "{real}");
    assert_eq!(virtual_time, "a: down: lost", "that clock does not measure it");
}
