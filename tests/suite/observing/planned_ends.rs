//! The events of restarts and stops, and the states that are seldom reached.
//!
//! - In a restart and in a stop, every instance, attempt and wait ends as *stopped*: nothing is
//!   reported as failed, and nothing backs off.
//! - *Permanent*, *waiting* and *closing* have an event, and the status shows the state when the
//!   observer is called. An observer that is added in between does not receive it again.

use std::{
    future::{Future, pending, ready},
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::support::up;
use mainstay::{
    Event, EventKind, Listing, Observer, Registry, ServiceId,
    error::WaitForError,
    supervise::{
        BodyEnd, Clock, CloseReason, Closing, Live, Permanent, RestartPolicy, StopWait,
        SupervisorState,
    },
    test_kit::{TestRuntime, VirtualClock},
};

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn exact() -> RestartPolicy {
    RestartPolicy::default().backoff(ms(100), ms(1_000)).without_jitter()
}

type Ended = Arc<Mutex<Option<<StopWait as Future>::Output>>>;

fn start(runtime: &mut TestRuntime, wait: StopWait) -> Ended {
    let ended = Ended::default();
    let result = Arc::clone(&ended);
    runtime.spawn(async move {
        let outcome = wait.await;
        *result.lock().unwrap() = Some(outcome);
    });
    runtime.run_until_idle();
    ended
}

async fn sleep(clock: &VirtualClock, time: Duration) {
    clock.sleep_until(clock.now() + time).await;
}

type Operation = fn(&Registry, ServiceId<u32>) -> StopWait;

/// Returns the events of an operation on a service with dependents in each state.
fn events_of(operation: Operation) -> Vec<String> {
    let mut runtime = TestRuntime::new(16).unwrap();
    let registry = runtime.registry.clone();
    let root = registry.register::<u32>("root").unwrap();
    let dependent = |name| {
        let id = registry.register::<u32>(name).unwrap();
        registry.depends(id).on(root).unwrap();
        id
    };
    let supervisor = |id| registry.supervise(id).unwrap().restart_policy(exact());
    runtime.spawn(supervisor(root).run(|_| ready(1)));
    runtime.spawn(supervisor(dependent("up")).run(|_| ready(1)));
    let clock = runtime.clock.clone();
    let with_body = supervisor(dependent("body")).body(async move |live: Live<u32>| {
        live.stopping().await.map_err(|error| error.to_string())?;
        sleep(&clock, ms(10)).await;
        Err::<(), _>(String::from("an error at its end"))
    });
    runtime.spawn(with_body.run(|_| ready(1)));
    let completes = supervisor(dependent("completed")).body(async |_| BodyEnd::Completed);
    runtime.spawn(completes.run(|_| ready(1)));
    runtime.spawn(supervisor(dependent("building")).run(|_| pending::<u32>()));
    runtime.spawn(supervisor(dependent("waits")).run(async move |build| {
        build.wait_for(root).await?;
        pending::<()>().await;
        Ok::<u32, WaitForError>(1)
    }));
    runtime.spawn(supervisor(dependent("backing off")).run(|_| async { Err::<u32, _>("no") }));
    let permanent = |_| async { Err::<u32, _>(Permanent::new("wrong")) };
    runtime.spawn(supervisor(dependent("permanent")).run(permanent));
    let given_up = exact().max_failures(0, ms(1_000));
    let given_up = supervisor(dependent("given up")).restart_policy(given_up);
    runtime.spawn(given_up.run(|_| async { Err::<u32, _>("no") }));
    let closes = supervisor(dependent("closes"));
    let closes = closes.on_close(async |closing: Closing<u32>| {
        assert!(!matches!(
            Closing::reason(&closing),
            CloseReason::Failed(_) | CloseReason::DependencyFailed(_)
        ));
    });
    runtime.spawn(closes.run(|_| ready(1)));
    let (_by_hand, running) = up(&registry, dependent("by hand"), 1);
    let provider = registry.provide(dependent("attempt")).unwrap();
    let attempt = provider.begin().wait_blocking().unwrap();
    dependent("down");
    runtime.run_until_idle();
    runtime.recorder.take();
    let ended = start(&mut runtime, operation(&registry, root));
    // The backoff would end in the meantime.
    runtime.advance(ms(10));
    let report = ended.lock().unwrap().take().unwrap().unwrap();
    assert_eq!(report.stopped.len(), 13);
    assert!(report.stop_timeouts.is_empty());
    drop((running, attempt));
    let lines = runtime.recorder.take();
    let end = lines.iter().position(|line| line.ends_with("root 1: its stop has ended")).unwrap();
    let mut of_the_end = lines[..=end].to_vec();
    of_the_end.sort();
    // A service that begins again after its end may fail by itself.
    let of_ends = |line: &&String| line.contains("stopped") || line.contains("stopping");
    assert_eq!(lines[end..].iter().filter(of_ends).count(), 0, "{lines:?}");
    of_the_end
}

#[test]
fn in_a_restart_and_a_stop_nothing_fails() {
    let operations: [(&str, Operation); 3] = [
        ("root is being restarted: edited", |registry, root| registry.restart(root, "edited")),
        ("root was stopped", |registry, root| registry.stop(root)),
        ("root was stopped", |registry, root| registry.stop_subtree(root)),
    ];
    for (why, operation) in operations {
        let lines = events_of(operation);
        let with_why = |line: &str| line.replace("WHY", why);
        let expected = [
            "attempt 0: stopped: WHY",
            "attempt 1: its stop has ended",
            "backing off 0: its stop has ended",
            "backing off 0: stopping",
            "body 0: its body failed: an error at its end",
            "body 0: stopped: WHY",
            "body 0: stopping",
            "body 1: its stop has ended",
            "building 0: stopped: WHY",
            "building 1: its stop has ended",
            "building 1: stopping",
            "by hand 0: stopped: WHY",
            "by hand 1: its stop has ended",
            "closes 0: stopped: WHY",
            "closes 0: stopping",
            "closes 1: its stop has ended",
            "completed 0: stopped: WHY",
            "completed 0: stopping",
            "completed 1: its stop has ended",
            "down 0: its stop has ended",
            "given up 0: its stop has ended",
            "given up 0: stopping",
            "permanent 0: its stop has ended",
            "permanent 0: stopping",
            "root 0: stopped: WHY",
            "root 0: stopping",
            "root 1: its stop has ended",
            "up 0: stopped: WHY",
            "up 0: stopping",
            "up 1: its stop has ended",
            "waits 0: stopped: WHY",
            "waits 1: its stop has ended",
            "waits 1: stopping",
        ];
        assert_eq!(lines, expected.map(with_why));
    }
}

/// Checks at each event of a state that the status shows the state already, and that an observer
/// that is added in the event does not receive it a second time.
#[derive(Clone, Default)]
struct Check {
    checked: Arc<Mutex<Vec<String>>>,
}

/// Stores the state that it was listed, and the events since.
#[derive(Clone, Default)]
struct Late(Arc<Mutex<Vec<String>>>);

impl Observer for Late {
    fn event(&self, _: &Registry, event: &Event<'_>) {
        self.0.lock().unwrap().push(event.kind.to_string());
    }

    fn listing(&self, _: &Registry, listing: &Listing) {
        let state = listing.services[0].supervisor.as_ref().unwrap().state;
        self.0.lock().unwrap().push(format!("listed: {state}"));
    }
}

impl Observer for Check {
    fn event(&self, registry: &Registry, event: &Event<'_>) {
        let (state, details) = match &event.kind {
            EventKind::Permanent(failure) => {
                (SupervisorState::Permanent, failure.reason.to_string())
            }
            EventKind::Waiting { dependency } => (SupervisorState::Waiting, dependency.to_string()),
            EventKind::Closing => (SupervisorState::Closing, String::new()),
            _ => return,
        };
        let status = registry.status(event.id).unwrap().supervisor.unwrap();
        assert_eq!(status.state, state);
        let waiting_for = status.waiting_for.map(String::from).unwrap_or_default();
        let is_waiting = state == SupervisorState::Waiting;
        assert_eq!(waiting_for, if is_waiting { &details } else { "" });
        let late = Late::default();
        registry.observe(late.clone()).detach();
        assert_eq!(*late.0.lock().unwrap(), [format!("listed: {state}")]);
        let line = format!("{} {}: {} ({details})", event.service, event.generation, event.kind);
        self.checked.lock().unwrap().push(line);
    }
}

#[test]
fn permanent_waiting_and_closing_have_an_event_after_the_status_shows_them() {
    let mut runtime = TestRuntime::new(2).unwrap();
    let registry = runtime.registry.clone();
    let [id, pool] = ["a", "pool"].map(|name| registry.register::<u32>(name).unwrap());
    let check = Check::default();
    registry.observe(check.clone()).detach();
    let supervisor = registry.supervise(id).unwrap();
    let supervisor = supervisor.restart_policy(exact().drain_timeout(ms(50)));
    let clock = runtime.clock.clone();
    let supervisor = supervisor.on_close(async move |closing| {
        drop(closing);
        sleep(&clock, ms(10)).await;
    });
    let (reader, mut builds) = (registry.clone(), 0);
    runtime.spawn(supervisor.run(async move |_| {
        builds += 1;
        match builds {
            1 => {
                Err::<u32, Box<dyn std::error::Error + Send + Sync>>(Permanent::new("wrong").into())
            }
            2 => Ok(reader.get(pool).map(|pool| *pool)?),
            _ => Ok(builds),
        }
    }));
    let state = |runtime: &TestRuntime| {
        let status = runtime.registry.status(id).unwrap().supervisor.unwrap();
        (status.state, status.failures)
    };
    runtime.run_until_idle();
    assert_eq!(state(&runtime), (SupervisorState::Permanent, 1));
    start(&mut runtime, registry.restart(id, "again"));
    assert_eq!(state(&runtime), (SupervisorState::Waiting, 0));
    let (_provider, _running) = up(&registry, pool, 5);
    runtime.advance(ms(100));
    assert_eq!(state(&runtime), (SupervisorState::Up, 0));
    registry.fail(id, "lost").unwrap();
    runtime.run_until_idle();
    assert_eq!(state(&runtime).0, SupervisorState::Closing);
    runtime.advance(ms(1_000));
    assert_eq!(state(&runtime).0, SupervisorState::Up);
    start(&mut runtime, registry.restart(id, "again"));
    assert_eq!(state(&runtime).0, SupervisorState::Closing);
    let checked = std::mem::take(&mut *check.checked.lock().unwrap());
    let expected = [
        "a 0: failed permanently: permanent error: wrong (permanent error: wrong)",
        "a 0: waiting for pool (pool)",
        "a 0: closing ()",
        "a 1: closing ()",
    ];
    assert_eq!(checked, expected);
}

/// Adds an observer when a service is down, and another one when its stop has ended.
#[derive(Clone, Default)]
struct AddsAtItsEnd(Arc<Mutex<Vec<Received>>>);

/// What an observer that was added has received, except its listing.
#[derive(Clone, Default)]
struct Received(Arc<Mutex<Vec<String>>>);

impl Observer for Received {
    fn event(&self, _: &Registry, event: &Event<'_>) {
        self.0.lock().unwrap().push(event.kind.to_string());
    }
}

impl Observer for AddsAtItsEnd {
    fn event(&self, registry: &Registry, event: &Event<'_>) {
        if let EventKind::Stopped(_) | EventKind::StopEnded = event.kind {
            let added = Received::default();
            registry.observe(added.clone()).detach();
            self.0.lock().unwrap().push(added);
        }
    }
}

#[test]
fn an_observer_that_is_added_before_the_end_of_a_stop_receives_it_once() {
    for supervised in [true, false] {
        let mut runtime = TestRuntime::new(1).unwrap();
        let registry = runtime.registry.clone();
        let id = registry.register::<u32>("a").unwrap();
        let mut kept = None;
        if supervised {
            runtime.spawn(registry.supervise(id).unwrap().run(|_| ready(1)));
            runtime.run_until_idle();
        } else {
            kept = Some(up(&registry, id, 1));
        }
        for round in 1..=3 {
            let adds = AddsAtItsEnd::default();
            let handle = registry.observe(adds.clone());
            start(&mut runtime, registry.stop(id));
            drop(handle);
            let added = std::mem::take(&mut *adds.0.lock().unwrap());
            let ended = |received: &Received| {
                let received = received.0.lock().unwrap();
                received.iter().filter(|kind| *kind == "its stop has ended").count()
            };
            let counts: Vec<usize> = added.iter().map(ended).collect();
            assert_eq!(counts, [1, 0], "supervised: {supervised}, round {round}");
            assert!(registry.start(id).unwrap());
            if let Some((provider, running)) = &mut kept {
                *running = crate::support::publish(provider, 1);
            }
            runtime.run_until_idle();
        }
    }
}
