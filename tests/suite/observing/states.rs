//! The events of supervisors, and planned ends.
//!
//! - Each state of a supervisor has an event. The status shows the state when the observer is
//!   called.
//! - An observer that is added in between receives each event that its listing does not show, and
//!   no other one: also if the service has a new supervisor.
//! - An end that was planned is `Stopped`, and never a failure: of an instance, of an attempt, with
//!   and without a supervisor.

use std::{
    future::{pending, ready},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use crate::support::{publish, registry_of, up};
use mainstay::{
    Event, EventKind, Listing, Observer, Registry, ServiceId,
    supervise::{BodyEnd, Clock, RestartPolicy, Sleep, SupervisorState},
    test_kit::{TestRuntime, VirtualClock},
};

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

const SECOND: Duration = Duration::from_secs(1);

fn exact() -> RestartPolicy {
    RestartPolicy::default().backoff(ms(100), SECOND).without_jitter()
}

fn service() -> (TestRuntime, ServiceId<u32>) {
    let runtime = TestRuntime::new(4).unwrap();
    let id = runtime.registry.register("a").unwrap();
    (runtime, id)
}

/// An observer that stores lines, and the state of the supervisor in its listing.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl Observer for Log {
    fn event(&self, _: &Registry, event: &Event<'_>) {
        let line = format!("{}: {}", event.service, event.kind);
        self.0.lock().unwrap().push(line);
    }

    fn listing(&self, _: &Registry, listing: &Listing) {
        for service in &listing.services {
            let state = service.supervisor.as_ref().map(|supervisor| supervisor.state.to_string());
            let state = state.unwrap_or_else(|| "no supervisor".into());
            self.0.lock().unwrap().push(format!("{} is listed: {state}", service.name));
        }
    }
}

/// Checks at each event of a state that the status shows the state already, and that an observer
/// that is added in the event does not receive it a second time.
#[derive(Clone, Default)]
struct Check {
    checked: Arc<Mutex<Vec<SupervisorState>>>,
    late: Arc<Mutex<Vec<(String, Log)>>>,
}

impl Observer for Check {
    fn event(&self, registry: &Registry, event: &Event<'_>) {
        let expected = match event.kind {
            EventKind::BackingOff { .. } => SupervisorState::BackingOff,
            EventKind::GivenUp(_) => SupervisorState::GivenUp,
            EventKind::Completed => SupervisorState::Completed,
            EventKind::Stopping => SupervisorState::Stopping,
            EventKind::BodyLate => SupervisorState::BodyRunning,
            EventKind::Draining { .. } => SupervisorState::Draining,
            _ => return,
        };
        let status = registry.status(event.id).unwrap().supervisor.unwrap();
        assert_eq!(status.state, expected);
        self.checked.lock().unwrap().push(expected);
        let late = Log::default();
        registry.observe(late.clone()).detach();
        let listed = format!("{} is listed: {expected}", event.service);
        assert_eq!(late.take(), [listed], "nothing happens meanwhile on this thread");
        let line = format!("{}: {}", event.service, event.kind);
        self.late.lock().unwrap().push((line, late));
    }
}

#[test]
fn each_state_has_an_event_after_the_status_shows_it() {
    let (mut runtime, id) = service();
    let registry = runtime.registry.clone();
    let check = Check::default();
    registry.observe(check.clone()).detach();
    let policy = exact().max_failures(2, 60 * SECOND).drain_timeout(SECOND);
    let supervisor = registry.supervise(id).unwrap().restart_policy(policy);
    let mut bodies = 0;
    let supervisor = supervisor.exclusive_body(async move |live| {
        bodies += 1;
        if bodies == 1 {
            // It reacts too late.
            live.stopping().await.unwrap();
            pending::<()>().await;
        }
        BodyEnd::Completed
    });
    runtime.spawn(supervisor.run(|_| ready(1)));
    runtime.run_until_idle();
    let held = registry.get(id).unwrap();
    let why = |text: &'static str| registry.fail(id, text).unwrap();
    why("first");
    runtime.advance(10 * SECOND);
    drop(held);
    runtime.advance(SECOND);
    why("second");
    runtime.advance(SECOND);
    why("third");
    runtime.run_until_idle();
    let lines = runtime.recorder.take();
    let expected = [
        "a 0: attempt started",
        "a 0: ready",
        "a 0: failed: first",
        "a 1: stopping",
        "a 0: its body failed: its body did not return within 10s",
        "a 0: draining (holders: 1)",
        "a 1: attempt started",
        "a 1: ready",
        "a 1: completed",
        "a 1: failed: second",
        "a 2: backing off for 200 ms after 2 failures",
        "a 2: attempt started",
        "a 2: ready",
        "a 2: completed",
        "a 2: failed: third",
        "a 2: given up: third",
    ];
    assert_eq!(lines, expected);
    let states = check.checked.lock().unwrap().clone();
    for state in ["stopping", "draining", "completed", "backing off", "given up"] {
        assert!(states.iter().any(|checked| checked.to_string() == state), "{state}");
    }
    // Each observer that was added in an event has received the later ones: each once.
    let late = std::mem::take(&mut *check.late.lock().unwrap());
    let mut rest = late.len();
    for (line, log) in late {
        rest -= 1;
        let events = log.take();
        let of_states = events.iter().filter(|event| {
            let words = ["stopping", "draining", "completed", "backing off", "given up"];
            words.iter().any(|word| event.contains(word))
        });
        assert_eq!(of_states.count(), rest, "after {line}: {events:?}");
    }
}

#[test]
fn a_blocking_body_that_is_late_has_an_event() {
    use std::{sync::mpsc, thread};

    let (registry, [id]) = registry_of::<u32, 1>(["a"]);
    let log = Log::default();
    registry.observe(log.clone()).detach();
    let (release, released) = mpsc::channel::<()>();
    let policy = exact().stop_timeout(ms(1));
    let supervisor = registry.supervise(id).unwrap().restart_policy(policy);
    let supervisor = supervisor.exclusive_body_blocking(move |_| {
        let _ = released.recv();
    });
    let thread = thread::spawn(move || supervisor.run_blocking(|_| 1));
    registry.wait_ready(id).wait_blocking().unwrap();
    registry.fail(id, "lost").unwrap();
    let late = "a: its body has not returned in time".to_string();
    crate::support::until("the body is late", || log.0.lock().unwrap().contains(&late));
    release.send(()).unwrap();
    registry.close();
    thread.join().unwrap();
}

#[test]
fn numbers_of_changes_grow_from_one_supervisor_to_the_next() {
    let (mut runtime, id) = service();
    let registry = runtime.registry.clone();
    let supervise = |runtime: &mut TestRuntime| {
        let policy = exact().max_failures(0, SECOND);
        let supervisor = registry.supervise(id).unwrap().restart_policy(policy);
        runtime.spawn(supervisor.run(|_| async { Err::<u32, _>("no") }));
        runtime.run_until_idle();
    };
    supervise(&mut runtime);
    // It lists the first supervisor.
    let log = Log::default();
    registry.observe(log.clone()).detach();
    runtime.tasks.clear();
    supervise(&mut runtime);
    let given_up = log.take().into_iter().filter(|line| line == "a: given up: no").count();
    assert_eq!(given_up, 1);
}

/// A clock that adds an observer when the supervisor first reads it while it is backing off: after
/// the status shows the state, and before the event.
struct AddsObserver {
    clock: VirtualClock,
    registry: Arc<Mutex<Option<Registry>>>,
    late: Log,
}

impl Clock for AddsObserver {
    fn now(&self) -> Instant {
        let is_backing_off = |registry: &mut Registry| {
            // The status reads the clock, too: with this field empty.
            let status = registry.list().services.remove(0).supervisor;
            status.is_some_and(|status| status.state == SupervisorState::BackingOff)
        };
        let taken = self.registry.lock().unwrap().take();
        if let Some(mut registry) = taken {
            if is_backing_off(&mut registry) {
                registry.observe(self.late.clone()).detach();
            } else {
                *self.registry.lock().unwrap() = Some(registry);
            }
        }
        self.clock.now()
    }

    fn sleep_until(&self, deadline: Instant) -> Sleep {
        self.clock.sleep_until(deadline)
    }
}

#[test]
fn an_event_that_a_listing_shows_is_not_passed_on() {
    let (clock, late) = (VirtualClock::new(), Log::default());
    let slot = Arc::new(Mutex::new(None));
    let adds = AddsObserver { clock, registry: Arc::clone(&slot), late: late.clone() };
    let first = Log::default();
    let builder = Registry::builder(1).unwrap().clock(adds).observer(first.clone());
    let registry = builder.build();
    let id = registry.register::<u32>("a").unwrap();
    *slot.lock().unwrap() = Some(registry.clone());
    let supervisor = registry.supervise(id).unwrap().restart_policy(exact());
    let mut run = Box::pin(supervisor.run(|_| async { Err::<u32, _>("no") }));
    assert!(crate::support::poll_once(&mut run).is_pending());
    let event = "a: backing off for 100 ms after 1 failure".to_string();
    assert_eq!(first.take().last(), Some(&event));
    assert_eq!(late.take(), ["a is listed: backing off"]);
}

#[test]
fn in_a_shutdown_nothing_fails() {
    let mut runtime = TestRuntime::new(8).unwrap();
    let registry = runtime.registry.clone();
    let names = ["up", "building", "backing off", "by hand", "attempt", "down", "late"];
    let ids = names.map(|name| registry.register::<u32>(name).unwrap());
    let [is_up, building, backs_off, by_hand, attempt, _down, late] = ids;
    let supervisor = |id| registry.supervise(id).unwrap().restart_policy(exact());
    runtime.spawn(supervisor(is_up).run(|_| ready(1)));
    runtime.spawn(supervisor(building).run(|_| pending::<u32>()));
    runtime.spawn(supervisor(backs_off).run(|_| async { Err::<u32, _>("no") }));
    runtime.spawn(supervisor(late).run(|_| ready(1)));
    let (_by_hand, running) = up(&registry, by_hand, 1);
    let provider = registry.provide(attempt).unwrap();
    let begun = provider.begin().wait_blocking().unwrap();
    runtime.run_until_idle();
    let held = registry.get(late).unwrap();
    runtime.recorder.take();
    let shutdown = registry.shutdown(60 * SECOND);
    runtime.spawn(async move { drop(shutdown.await) });
    runtime.advance(20 * SECOND);
    drop((begun, running, held));
    let mut lines = runtime.recorder.take();
    lines.sort();
    let expected = [
        "attempt 0: stopped: the registry is shutting down",
        "attempt 1: closed",
        "attempt 1: its stop has ended",
        "backing off 0: closed",
        "backing off 0: its stop has ended",
        "backing off 0: stopping",
        "building 0: stopped: the registry is shutting down",
        "building 1: closed",
        "building 1: its stop has ended",
        "building 1: stopping",
        "by hand 0: stopped: the registry is shutting down",
        "by hand 1: closed",
        "by hand 1: its stop has ended",
        "down 0: closed",
        "down 0: its stop has ended",
        "late 0: stopped: the registry is shutting down",
        "late 0: stopping",
        "late 1: closed",
        "late 1: draining (holders: 1)",
        "late 1: not stopped in time",
        "up 0: stopped: the registry is shutting down",
        "up 0: stopping",
        "up 1: closed",
        "up 1: its stop has ended",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn after_a_close_attempts_and_instances_are_stopped() {
    let (registry, [a, b]) = registry_of::<u32, 2>(["a", "b"]);
    let (_provide_a, running) = up(&registry, a, 1);
    let provide_b = registry.provide(b).unwrap();
    publish(&provide_b, 1).fail("before");
    let attempt = provide_b.begin().wait_blocking().unwrap();
    registry.close();
    let log = Log::default();
    registry.observe(log.clone()).detach();
    log.take();
    drop((running, attempt));
    let stopped = ["a: stopped: the registry was closed", "b: stopped: the registry was closed"];
    assert_eq!(log.take(), stopped);
    for id in [a, b] {
        let failure = registry.status(id).unwrap().last_failure.unwrap();
        assert!(failure.is_planned());
        let text = format!("{} was stopped: the registry was closed", failure.service);
        assert_eq!(failure.to_string(), text);
        let record = mainstay::FailureRecord::from(&failure);
        assert_eq!((record.planned, record.to_string()), (true, text));
    }
}
