//! Close hooks: the user's code that receives each value of a service at its end.
//!
//! - It is called at every end of a value, once, with the reason, and in the order of publication.
//! - It owns the value, as soon as no reader holds it. After the drain timeout it shares the value
//!   with the readers.
//! - The last value of a generation is closed after its body has returned, and before the next
//!   build if the policy drains. A value that was replaced is closed beside the body.
//! - Its error, its panic and its timeout are reported, and end nothing.
//! - A shutdown waits for the close hooks of all generations.
//! - A dropped supervisor and a closed registry drop the values without it.

use std::{
    future::{Future, pending, ready},
    mem,
    sync::{Arc, Mutex, atomic::AtomicUsize, atomic::Ordering},
    thread,
    time::Duration,
};

use super::runtime::{exact, ms};
use crate::support::{LONG, poll_once, registry_of, until, up};
use mainstay::{
    Instance, Registry, ServiceId,
    error::WaitForError,
    supervise::{
        Build, Clock, CloseReason, Closing, Live, RestartPolicy, SupervisorState, WorkEnd,
    },
    test_kit::TestRuntime,
};

/// What has happened, in order.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn note(&self, what: impl Into<String>) {
        self.0.lock().unwrap().push(what.into());
    }

    fn take(&self) -> Vec<String> {
        mem::take(&mut *self.0.lock().unwrap())
    }

    fn value(&self, number: u32) -> Value {
        Value { number, log: self.clone(), panics: false }
    }

    /// Notes a value that is closed, and drops it.
    fn close(&self, closing: Closing<Value>) {
        let (generation, revision) = (Closing::generation(&closing), Closing::revision(&closing));
        let (number, reason) = (closing.number, Closing::reason(&closing).to_string());
        let holders = Closing::holders(&closing);
        let how = if holders == 0 { "owned".into() } else { format!("shared with {holders}") };
        self.note(format!("{number} ({generation}.{revision}) {how}: {reason}"));
        match Closing::into_value(closing) {
            Ok(value) => mem::forget(value),
            Err(closing) => assert!(Closing::holders(&closing) > 0),
        }
    }
}

/// A value that notes its drop.
struct Value {
    number: u32,
    log: Log,
    panics: bool,
}

impl Drop for Value {
    fn drop(&mut self) {
        self.log.note(format!("{} dropped", self.number));
        assert!(!self.panics, "the drop of {} panics", self.number);
    }
}

/// A runtime with a service `a`, whose values have the numbers of its builds.
fn runtime() -> (TestRuntime, ServiceId<Value>, Log) {
    let runtime = TestRuntime::new(8).unwrap();
    let id = runtime.registry.register("a").unwrap();
    (runtime, id, Log::default())
}

/// As `exact`, without a backoff.
fn at_once() -> RestartPolicy {
    exact().backoff(ms(0), ms(0))
}

/// A builder of values with the numbers of the builds.
fn numbered(log: &Log) -> impl FnMut(Build<Value>) -> std::future::Ready<Value> + Send + use<> {
    let (log, mut builds) = (log.clone(), 0);
    move |_| {
        builds += 1;
        ready(log.value(builds))
    }
}

macro_rules! start {
    ($runtime:expr, $supervisor:expr, $log:expr) => {{
        let mut builder = numbered(&$log);
        $runtime.spawn($supervisor.run(move |build: Build<Value>| builder(build)));
        $runtime.run_until_idle();
    }};
}

/// A service without a body that is built at once, and whose close hook notes its calls.
fn logged(policy: RestartPolicy) -> (TestRuntime, ServiceId<Value>, Log) {
    let (mut runtime, id, log) = runtime();
    let supervisor = runtime.registry.supervise(id).unwrap().restart_policy(policy);
    let closes = log.clone();
    let supervisor = supervisor.on_close(async move |closing| closes.close(closing));
    start!(runtime, supervisor, log);
    (runtime, id, log)
}

fn state<T>(runtime: &TestRuntime, id: ServiceId<T>) -> SupervisorState {
    runtime.registry.status(id).unwrap().supervisor.unwrap().state
}

/// Shuts the registry down, and returns the text of the report.
fn shut_down(runtime: &mut TestRuntime) -> Arc<Mutex<Option<mainstay::supervise::StopReport>>> {
    let report = Arc::new(Mutex::new(None));
    let (shutdown, done) = (runtime.registry.shutdown(LONG), Arc::clone(&report));
    runtime.spawn(async move { *done.lock().unwrap() = Some(shutdown.await) });
    runtime.run_until_idle();
    report
}

#[test]
fn a_close_hook_is_called_at_every_end_with_its_reason() {
    let (mut runtime, id, log) = runtime();
    let below = runtime.registry.register::<u32>("below").unwrap();
    runtime.spawn(runtime.registry.supervise(below).unwrap().run(async |_| 7));
    let lives = Arc::new(Mutex::new(None));
    let supervisor = runtime.registry.supervise(id).unwrap().restart_policy(at_once());
    let (give, closes) = (Arc::clone(&lives), log.clone());
    let supervisor = supervisor
        .body(async move |live: Live<Value>| {
            *give.lock().unwrap() = Some(live.clone());
            live.stopping().await.map(drop)
        })
        .on_close(async move |closing| closes.close(closing));
    let (values, mut builds) = (log.clone(), 0);
    runtime.spawn(supervisor.run(async move |build| {
        build.wait_for(below).await?;
        builds += 1;
        Ok::<_, WaitForError>(values.value(builds))
    }));
    runtime.run_until_idle();
    assert_eq!(log.take(), [""; 0], "the service is up");

    runtime.registry.fail(id, "moved").unwrap();
    runtime.run_until_idle();
    assert_eq!(log.take(), ["1 (0.0) owned: a failed"]);
    runtime.registry.fail(below, "edited").unwrap();
    runtime.advance(ms(10_000));
    assert_eq!(log.take(), ["2 (1.0) owned: a failed because below failed"]);
    let live = lives.lock().unwrap().clone().unwrap();
    live.replace(log.value(30)).ok().unwrap();
    live.replace(log.value(31)).ok().unwrap();
    runtime.run_until_idle();
    let replaced =
        ["3 (2.0)", "30 (2.1)"].map(|one| format!("{one} owned: the value was replaced"));
    assert_eq!(log.take(), replaced);
    let report = shut_down(&mut runtime);
    assert_eq!(log.take(), ["31 (2.2) owned: the registry is shutting down"]);
    let report = report.lock().unwrap().take().unwrap();
    assert_eq!(report.to_string(), "2 services stopped in time");
    let closes = &report.stopped[0].closes;
    let [close] = &closes[..] else { panic!("{closes:?}") };
    assert_eq!((close.generation.get(), close.revision, close.holders), (2, 2, 0));
    assert_eq!(close.end, WorkEnd::Returned);
}

#[test]
fn the_reason_of_a_closed_value_has_the_failure() {
    let (mut runtime, id, _) = runtime();
    let supervisor = runtime.registry.supervise(id).unwrap().restart_policy(at_once());
    let reasons = Arc::<Mutex<Vec<CloseReason>>>::default();
    let log = Log::default();
    let supervisor = supervisor.on_close({
        let reasons = Arc::clone(&reasons);
        async move |closing| reasons.lock().unwrap().push(Closing::reason(&closing).clone())
    });
    start!(runtime, supervisor, log);
    runtime.registry.fail(id, "moved").unwrap();
    runtime.run_until_idle();
    let reasons = mem::take(&mut *reasons.lock().unwrap());
    let [CloseReason::Failed(failure)] = &reasons[..] else { panic!("{reasons:?}") };
    assert_eq!((failure.reason.to_string(), failure.generation.get()), ("moved".into(), 0));
}

#[test]
fn the_last_reader_hands_the_value_over_to_the_close_hook() {
    let (mut runtime, id, log) = logged(exact());
    let held = [runtime.registry.get_arc(id).unwrap(), runtime.registry.get_arc(id).unwrap()];
    runtime.registry.fail(id, "moved").unwrap();
    runtime.advance(ms(9_999));
    assert_eq!(log.take(), [""; 0]);
    let [first, second] = held;
    drop(first);
    runtime.run_until_idle();
    assert_eq!(log.take(), [""; 0]);
    drop(second);
    assert_eq!(log.take(), [""; 0], "a reader runs no close hook and drops no value");
    runtime.run_until_idle();
    assert_eq!(log.take(), ["1 (0.0) owned: a failed"]);
}

#[test]
fn after_the_drain_timeout_the_close_hook_shares_the_value() {
    for (policy, timeout) in [(at_once(), 10_000), (at_once().drain_timeout(ms(700)), 700)] {
        let (mut runtime, id, log) = logged(policy);
        let held = [runtime.registry.get_arc(id).unwrap(), runtime.registry.get_arc(id).unwrap()];
        runtime.registry.fail(id, "moved").unwrap();
        runtime.advance(ms(timeout - 1));
        assert_eq!(log.take(), [""; 0]);
        runtime.advance(ms(1));
        assert_eq!(log.take(), ["1 (0.0) shared with 2: a failed"]);
        drop(held);
        assert_eq!(log.take(), ["1 dropped"], "the last reader drops it now");
    }
}

/// The close hook may wait for the readers itself.
#[test]
fn a_shared_value_becomes_owned_when_the_readers_let_go() {
    let (mut runtime, id, log) = runtime();
    let supervisor = runtime.registry.supervise(id).unwrap().restart_policy(at_once());
    let (clock, closes) = (runtime.clock.clone(), log.clone());
    let supervisor = supervisor.on_close(async move |mut closing| {
        let value = loop {
            match Closing::into_value(closing) {
                Ok(value) => break value,
                Err(same) => closing = same,
            }
            assert_eq!((Closing::holders(&closing), closing.number), (1, 1));
            clock.sleep_until(clock.now() + ms(100)).await;
        };
        closes.note(format!("{} closed", value.number));
        mem::forget(value);
    });
    start!(runtime, supervisor, log);
    let held = runtime.registry.get_arc(id).unwrap();
    runtime.registry.fail(id, "moved").unwrap();
    runtime.advance(ms(10_000));
    drop(held);
    assert_eq!(log.take(), [""; 0]);
    runtime.advance(ms(100));
    assert_eq!(log.take(), ["1 closed"]);
}

#[test]
fn close_hooks_run_one_at_a_time_in_the_order_of_publication() {
    let (mut runtime, id, log) = runtime();
    let supervisor = runtime.registry.supervise(id).unwrap().restart_policy(at_once());
    let (clock, closes) = (runtime.clock.clone(), log.clone());
    let supervisor = supervisor.on_close(async move |closing: Closing<Value>| {
        closes.note(format!("{} begins", closing.number));
        clock.sleep_until(clock.now() + ms(100)).await;
        closes.note(format!("{} ends", closing.number));
        mem::forget(Closing::into_value(closing));
    });
    start!(runtime, supervisor, log);
    let first = runtime.registry.get_arc(id).unwrap();
    for _ in 0..3 {
        runtime.registry.fail(id, "moved").unwrap();
        runtime.run_until_idle();
    }
    let fourth = runtime.registry.get_arc(id).unwrap();
    runtime.registry.fail(id, "moved").unwrap();
    runtime.advance(ms(5_000));
    assert_eq!(log.take(), [""; 0], "the first one is held");
    drop(first);
    runtime.advance(ms(150));
    assert_eq!(log.take(), ["1 begins", "1 ends", "2 begins"]);
    runtime.advance(ms(200));
    assert_eq!(log.take(), ["2 ends", "3 begins", "3 ends"]);
    // Its own limit is over.
    runtime.advance(ms(4_750));
    assert_eq!(log.take(), ["4 begins", "4 ends"]);
    drop(fourth);
}

#[test]
fn if_the_policy_drains_the_next_build_begins_after_the_close_hook() {
    let (mut runtime, id, log) = runtime();
    let policy = at_once().drain_timeout(ms(1_000)).close_timeout(ms(1_000));
    let supervisor = runtime.registry.supervise(id).unwrap().restart_policy(policy);
    let clock = runtime.clock.clone();
    let supervisor = supervisor.on_close(async move |closing| {
        clock.sleep_until(clock.now() + ms(300)).await;
        if let Ok(value) = Closing::into_value(closing) {
            mem::forget(value);
        }
    });
    let (values, noted) = (log.clone(), log.clone());
    runtime.spawn(supervisor.run(async move |build| {
        noted.note(format!("build {}, holders: {}", build.number(), build.holders()));
        values.value(build.number())
    }));
    runtime.run_until_idle();
    let mut held = runtime.registry.get_arc(id).ok();
    for (lets_go, closed) in [(400, 700), (1_000, 1_300)] {
        log.take();
        runtime.registry.fail(id, "moved").unwrap();
        runtime.advance(ms(lets_go - 1));
        assert_eq!(state(&runtime, id), SupervisorState::Draining);
        if lets_go < 1_000 {
            drop(held.take());
        }
        runtime.advance(ms(1));
        assert_eq!(state(&runtime, id), SupervisorState::Closing);
        runtime.advance(ms(closed - lets_go - 2));
        assert_eq!(log.take(), [""; 0]);
        runtime.advance(ms(2));
        assert_eq!(state(&runtime, id), SupervisorState::Up);
        held = runtime.registry.get_arc(id).ok();
    }
    assert_eq!(log.take(), ["build 3, holders: 1", "2 dropped"]);
    drop(held);
}

#[test]
fn if_the_policy_does_not_drain_close_hooks_run_beside_the_builds() {
    let (mut runtime, id, log) = runtime();
    let supervisor = runtime.registry.supervise(id).unwrap().restart_policy(at_once());
    let (clock, closes) = (runtime.clock.clone(), log.clone());
    let supervisor = supervisor.on_close(async move |closing| {
        clock.sleep_until(clock.now() + ms(300)).await;
        closes.close(closing);
    });
    let (values, noted, clock) = (log.clone(), log.clone(), runtime.clock.clone());
    runtime.spawn(supervisor.run(async move |build| {
        noted.note(format!("build {}", build.number()));
        clock.sleep_until(clock.now() + ms(400)).await;
        values.value(build.number())
    }));
    runtime.advance(ms(400));
    runtime.registry.fail(id, "moved").unwrap();
    runtime.run_until_idle();
    assert_eq!(state(&runtime, id), SupervisorState::Building);
    runtime.advance(ms(350));
    assert_eq!(log.take(), ["build 1", "build 2", "1 (0.0) owned: a failed"]);
    runtime.advance(ms(50));
    assert_eq!(state(&runtime, id), SupervisorState::Up);
}

#[test]
fn errors_panics_and_timeouts_of_close_hooks_are_reported_and_end_nothing() {
    let (mut runtime, id, log) = runtime();
    let policy = at_once().drain_timeout(ms(0)).close_timeout(ms(500));
    let supervisor = runtime.registry.supervise(id).unwrap().restart_policy(policy);
    let supervisor = supervisor.on_close(async |closing: Closing<Value>| match closing.number {
        1 => Err("disk full".into()),
        2 => panic!("in a poll"),
        3 => std::panic::panic_any(PanicsInDrop),
        4 => Err(Odd.into()),
        5 => pending().await,
        6 => Err(Box::<dyn std::error::Error + Send + Sync>::from(WithoutText)),
        _ => Ok(()),
    });
    start!(runtime, supervisor, log);
    for number in 1..=6 {
        runtime.registry.fail(id, "moved").unwrap();
        runtime.advance(ms(499));
        assert_eq!(runtime.registry.get(id).is_ok(), number != 5);
        runtime.advance(ms(1));
        assert!(runtime.registry.get(id).is_ok(), "built again after {number}");
    }
    let lines = runtime.recorder.take();
    let mut reports = lines.iter().filter(|line| line.contains("its close hook failed"));
    for expected in [
        "a 0: its close hook failed: disk full",
        "a 1: its close hook failed: the close hook panicked: in a poll",
        "a 2: its close hook failed: the close hook panicked: the message is not text",
        "a 3: its close hook failed: the close hook panicked: no conversion",
        "a 4: its close hook failed: not closed within 500ms",
    ] {
        assert_eq!(reports.next().map(String::as_str), Some(expected));
    }
    let dropped = (1..=6).map(|number| format!("{number} dropped")).collect::<Vec<_>>();
    assert_eq!(log.take(), dropped);
    assert_eq!(shut_down(&mut runtime).lock().unwrap().take().unwrap().stop_timeouts.len(), 0);
}

/// Its drop panics.
struct PanicsInDrop;

impl Drop for PanicsInDrop {
    fn drop(&mut self) {
        if !thread::panicking() {
            panic!("in the drop");
        }
    }
}

/// Its conversion into an error panics.
struct Odd;

impl From<Odd> for Box<dyn std::error::Error + Send + Sync> {
    fn from(_: Odd) -> Self {
        panic!("no conversion")
    }
}

/// An error whose text panics.
#[derive(Debug)]
struct WithoutText;

impl std::fmt::Display for WithoutText {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        panic!("no text")
    }
}

impl std::error::Error for WithoutText {}

#[test]
fn a_replaced_value_is_closed_beside_the_body_within_its_own_limit() {
    let (mut runtime, id, log) = runtime();
    let policy = at_once().drain_timeout(ms(1_000));
    let supervisor = runtime.registry.supervise(id).unwrap().restart_policy(policy);
    let (values, clock, closes) = (log.clone(), runtime.clock.clone(), log.clone());
    let supervisor = supervisor.on_close(async move |closing| closes.close(closing)).body(
        async move |live: Live<Value>| {
            for number in 10..13 {
                clock.sleep_until(clock.now() + ms(400)).await;
                live.replace(values.value(number)).ok().unwrap();
            }
            live.stopping().await.unwrap();
        },
    );
    start!(runtime, supervisor, log);
    let first = runtime.registry.get_arc(id).unwrap();
    runtime.advance(ms(400));
    let second = runtime.registry.get_arc(id).unwrap();
    runtime.advance(ms(400));
    runtime.advance(ms(599));
    assert_eq!(log.take(), [""; 0], "in order: the first one is held");
    runtime.advance(ms(1));
    assert_eq!(log.take(), ["1 (0.0) shared with 1: the value was replaced"]);
    runtime.advance(ms(399));
    assert_eq!(log.take(), [""; 0]);
    runtime.advance(ms(1));
    let expected = ["10 (0.1) shared with 1", "11 (0.2) owned"];
    assert_eq!(log.take(), expected.map(|one| format!("{one}: the value was replaced")));
    assert_eq!(state(&runtime, id), SupervisorState::Up);
    drop((first, second));
}

#[test]
fn the_last_value_is_closed_after_its_body_has_returned() {
    let (mut runtime, id, log) = runtime();
    let policy = at_once().stop_timeout(ms(500));
    let supervisor = runtime.registry.supervise(id).unwrap().restart_policy(policy);
    let (clock, noted, closes) = (runtime.clock.clone(), log.clone(), log.clone());
    let supervisor = supervisor
        .body(async move |live: Live<Value>| {
            let _ = live.stopping().await;
            let takes = if live.generation() == 0 { ms(300) } else { ms(600) };
            clock.sleep_until(clock.now() + takes).await;
            noted.note("body");
        })
        .on_close(async move |closing| closes.close(closing));
    start!(runtime, supervisor, log);
    runtime.registry.fail(id, "moved").unwrap();
    runtime.advance(ms(299));
    assert_eq!(log.take(), [""; 0]);
    runtime.advance(ms(1));
    assert_eq!(log.take(), ["body", "1 (0.0) owned: a failed"]);
    // The second one is late.
    runtime.registry.fail(id, "moved").unwrap();
    runtime.advance(ms(499));
    assert_eq!(log.take(), [""; 0]);
    runtime.advance(ms(1));
    assert_eq!(log.take(), ["2 (1.0) owned: a failed"]);
    // From then on it is drained.
    let held = runtime.registry.get_arc(id).unwrap();
    runtime.registry.fail(id, "moved").unwrap();
    runtime.advance(ms(10_499));
    assert_eq!(log.take(), [""; 0]);
    runtime.advance(ms(1));
    assert_eq!(log.take(), ["3 (2.0) shared with 1: a failed"]);
    drop(held);
}

#[test]
fn a_shutdown_waits_for_the_close_hooks_of_all_generations() {
    let (mut runtime, id, log) = runtime();
    let supervisor = runtime.registry.supervise(id).unwrap().restart_policy(exact());
    let (clock, closes) = (runtime.clock.clone(), log.clone());
    let supervisor = supervisor.on_close(async move |closing| {
        clock.sleep_until(clock.now() + ms(1_000)).await;
        closes.close(closing);
    });
    start!(runtime, supervisor, log);
    let held = runtime.registry.get_arc(id).unwrap();
    for _ in 0..2 {
        runtime.registry.fail(id, "moved").unwrap();
        runtime.advance(ms(300));
    }
    runtime.registry.fail(id, "moved").unwrap();
    runtime.run_until_idle();
    assert_eq!(state(&runtime, id), SupervisorState::BackingOff);
    let report = shut_down(&mut runtime);
    assert_eq!(state(&runtime, id), SupervisorState::Draining);
    runtime.advance(ms(500));
    drop(held);
    runtime.advance(ms(2_999));
    assert_eq!(state(&runtime, id), SupervisorState::Closing);
    assert!(report.lock().unwrap().is_none() && log.take().len() == 2);
    runtime.advance(ms(1));
    assert_eq!(log.take(), ["3 (2.0) owned: a failed"]);
    let report = report.lock().unwrap().take().unwrap();
    assert_eq!(report.to_string(), "1 service stopped in time");
    let closes = report.stopped[0].closes.iter();
    let closes: Vec<_> = closes.map(|close| (close.generation.get(), close.took)).collect();
    assert_eq!(closes, [0, 1, 2].map(|generation| (generation, ms(1_000))));
}

#[test]
fn a_restart_and_a_stop_wait_for_the_close_hook() {
    let (mut runtime, id, log) = runtime();
    let supervisor = runtime.registry.supervise(id).unwrap().restart_policy(exact());
    let (clock, closes) = (runtime.clock.clone(), log.clone());
    let supervisor = supervisor.on_close(async move |closing| {
        clock.sleep_until(clock.now() + ms(1_000)).await;
        closes.close(closing);
    });
    start!(runtime, supervisor, log);
    let ended = Arc::new(Mutex::new(Vec::new()));
    for (n, state_after) in [SupervisorState::Up, SupervisorState::Stopped].into_iter().enumerate()
    {
        let (wait, note) = (
            match n {
                0 => runtime.registry.restart(id, "a new certificate"),
                _ => runtime.registry.stop(id),
            },
            Arc::clone(&ended),
        );
        runtime.spawn(async move {
            let result = wait.await.is_ok();
            note.lock().unwrap().push(result);
        });
        runtime.advance(ms(999));
        assert_eq!(state(&runtime, id), SupervisorState::Closing);
        assert!(runtime.registry.get(id).is_err() && ended.lock().unwrap().len() == n);
        runtime.advance(ms(1));
        assert_eq!(state(&runtime, id), state_after);
        assert_eq!(ended.lock().unwrap().len(), n + 1);
        let closed = log.take();
        assert!(closed.len() == 1 && closed[0].contains("owned"), "{closed:?}");
        assert!(closed[0].contains(["restarted", "stopped"][n]), "{closed:?}");
    }
    runtime.registry.close();
    runtime.run_until_idle();
}

#[test]
fn the_report_of_a_shutdown_names_what_was_late() {
    let (mut runtime, id, log) = runtime();
    let policy = exact().stop_timeout(ms(100)).drain_timeout(ms(100)).close_timeout(ms(100));
    let supervisor = runtime.registry.supervise(id).unwrap().restart_policy(policy);
    let supervisor =
        supervisor.body(async |_| pending::<()>().await).on_close(async |_| pending::<()>().await);
    start!(runtime, supervisor, log);
    let held = runtime.registry.get_arc(id).unwrap();
    let report = shut_down(&mut runtime);
    assert_eq!(runtime.registry.get(id).map(|a| a.number).ok(), Some(1));
    runtime.advance(ms(100));
    assert_eq!(state(&runtime, id), SupervisorState::Draining);
    runtime.advance(ms(100));
    assert_eq!(state(&runtime, id), SupervisorState::Closing);
    runtime.advance(ms(100));
    let report = report.lock().unwrap().take().unwrap();
    let late = &report.stop_timeouts[0];
    assert_eq!(
        late.body.as_ref().map(|body| (body.took, &body.end)),
        Some((ms(100), &WorkEnd::Late))
    );
    let said = report.to_string();
    assert!(said.starts_with("not stopped in time: a (closing, holders: "), "{said}");
    assert!(said.contains("its body did not return in time"), "{said}");
    drop(held);
    assert_eq!(log.take(), ["1 dropped"]);
}

#[test]
fn a_dropped_supervisor_drops_the_values_without_the_close_hook() {
    let (mut runtime, id, log) = runtime();
    let supervisor = runtime.registry.supervise(id).unwrap().restart_policy(at_once());
    let closes = log.clone();
    let supervisor = supervisor.on_close(async move |closing: Closing<Value>| {
        closes.note(format!("{} begins", closing.number));
        pending::<()>().await
    });
    start!(runtime, supervisor, log);
    for _ in 0..2 {
        runtime.registry.fail(id, "moved").unwrap();
        runtime.run_until_idle();
    }
    let held = runtime.registry.get_arc(id).unwrap();
    assert_eq!(log.take(), ["1 begins"]);
    drop(runtime.tasks.remove(0));
    let mut dropped = log.take();
    dropped.sort_unstable();
    assert_eq!(dropped, ["1 dropped", "2 dropped"]);
    drop(held);
    assert_eq!(log.take(), ["3 dropped"]);
}

#[test]
fn close_drops_the_values_without_the_close_hook() {
    let (mut runtime, id, log) = logged(at_once());
    runtime.registry.close();
    runtime.run_until_idle();
    assert!(runtime.tasks.is_empty());
    assert_eq!(log.take(), ["1 dropped"]);
    assert!(runtime.registry.get(id).is_err());
}

/// S4: in a shutdown the dependency of a service whose supervisor is dropped stops after the drop
/// of the values.
#[test]
fn a_supervisor_that_is_dropped_at_its_turn_drops_its_values_before_its_dependency_stops() {
    let (mut runtime, id, log) = runtime();
    let below = runtime.registry.register::<u32>("below").unwrap();
    let (provider, running) = up(&runtime.registry, below, 1);
    runtime.registry.depends(id).on(below).unwrap();
    struct Needs(Registry, ServiceId<u32>, Log);
    impl Drop for Needs {
        fn drop(&mut self) {
            self.2.note(format!("dropped, below is up: {}", self.0.get(self.1).is_ok()));
        }
    }
    let needing = runtime.registry.register::<Needs>("needing").unwrap();
    runtime.registry.depends(needing).on(below).unwrap();
    let supervisor = runtime.registry.supervise(needing).unwrap().restart_policy(at_once());
    let supervisor = supervisor.on_close(async |_| pending::<()>().await);
    let (registry, values) = (runtime.registry.clone(), log.clone());
    runtime.spawn(supervisor.run(async move |_| Needs(registry.clone(), below, values.clone())));
    runtime.run_until_idle();
    runtime.registry.fail(needing, "moved").unwrap();
    runtime.run_until_idle();
    let report = shut_down(&mut runtime);
    drop(runtime.tasks.remove(0));
    runtime.run_until_idle();
    assert!(report.lock().unwrap().is_some());
    assert_eq!(log.take(), ["dropped, below is up: true"; 2]);
    drop((provider, running));
}

#[test]
fn an_instance_that_has_left_its_arc_delays_the_others_for_a_limited_time() {
    for lets_go in [true, false] {
        let (mut runtime, id, log) = logged(at_once().close_timeout(ms(500)));
        let held = runtime.registry.get_arc(id).unwrap();
        runtime.registry.fail(id, "moved").unwrap();
        runtime.run_until_idle();
        let moved: Instance<Value> = Arc::into_inner(held).expect("the last reference");
        runtime.registry.fail(id, "moved").unwrap();
        runtime.advance(ms(10_499));
        assert_eq!(log.take(), [""; 0]);
        if lets_go {
            drop(moved);
            runtime.run_until_idle();
            assert_eq!(log.take(), ["1 (0.0) owned: a failed", "2 (1.0) owned: a failed"]);
            continue;
        }
        runtime.advance(ms(1));
        assert_eq!(log.take(), ["2 (1.0) owned: a failed"]);
        let lines = runtime.recorder.take();
        assert!(lines.contains(&"a 0: its close hook failed: not closed within 500ms".to_owned()));
        drop(moved);
        assert_eq!(log.take(), ["1 dropped"]);
    }
}

#[test]
fn the_drop_of_a_value_in_a_close_hook_may_panic() {
    let (mut runtime, id, log) = runtime();
    let policy = at_once().drain_timeout(ms(100));
    let supervisor = runtime.registry.supervise(id).unwrap().restart_policy(policy);
    let supervisor = supervisor.on_close(async |closing: Closing<Value>| {
        // By the handle, by the caller, and while a panic unwinds.
        match closing.number {
            1 => {}
            2 => drop(Closing::into_value(closing)),
            _ => panic!("{}", closing.number),
        }
    });
    let (values, mut builds) = (log.clone(), 0);
    runtime.spawn(supervisor.run(async move |_| {
        builds += 1;
        Value { number: builds, log: values.clone(), panics: true }
    }));
    runtime.run_until_idle();
    for number in 1..=3 {
        runtime.registry.fail(id, "moved").unwrap();
        runtime.run_until_idle();
        assert_eq!(log.take(), [format!("{number} dropped")]);
        assert!(runtime.registry.get(id).is_ok());
    }
}

#[test]
fn a_close_hook_may_call_the_registry() {
    let (mut runtime, id, log) = runtime();
    let supervisor = runtime.registry.supervise(id).unwrap().restart_policy(at_once());
    let (registry, closes) = (runtime.registry.clone(), log.clone());
    let supervisor = supervisor.on_close(async move |closing| {
        let number = closing.number;
        if number < 5 {
            registry.fail(id, "again").unwrap();
        }
        if number == 5 {
            registry.request_shutdown("five");
            registry.close();
        }
        closes.close(closing);
    });
    start!(runtime, supervisor, log);
    runtime.registry.fail(id, "moved").unwrap();
    runtime.run_until_idle();
    assert!(runtime.registry.is_closed() && runtime.tasks.is_empty());
    let closed = log.take();
    assert!(closed[4].starts_with("5 (4.0) owned"), "{closed:?}");
}

/// What the bounds accept: an async closure that borrows what it has captured, a closure that
/// returns a future, a function, every output, and either order of the calls.
#[test]
fn close_hooks_of_every_form_run_on_every_thread() {
    fn is_send<F: Future + Send + 'static>(future: F) -> F {
        future
    }
    async fn function(_: Closing<u32>) -> Result<(), std::io::Error> {
        Ok(())
    }
    let (registry, [a, b, c]) = registry_of::<u32, 3>(["a", "b", "c"]);
    let (calls, mut text) = (Arc::new(AtomicUsize::new(0)), String::new());
    let counted = Arc::clone(&calls);
    let supervisor = registry.supervise(a).unwrap().on_close(async move |closing| {
        let text = &mut text;
        text.push_str("closed ");
        std::future::ready(()).await;
        assert!(text.len() >= Closing::into_value(closing).unwrap() as usize);
        counted.fetch_add(1, Ordering::Relaxed);
    });
    let mut first = Box::pin(is_send(
        supervisor.body(async |live| drop(live.stopping().await)).run(async |_| 7),
    ));
    let counted = Arc::clone(&calls);
    let supervisor = registry.supervise(b).unwrap();
    let supervisor = supervisor.on_close(move |closing: Closing<u32>| {
        let counted = Arc::clone(&counted);
        async move {
            drop(closing);
            counted.fetch_add(1, Ordering::Relaxed);
            Ok::<_, String>(())
        }
    });
    let thread = thread::spawn(|| {
        supervisor
            .body_blocking(|live: Live<u32>| {
                let _ = live.stopping().wait_blocking();
            })
            .run_blocking(|_| 8)
    });
    let third = is_send(registry.supervise(c).unwrap().on_close(function).run(async |_| 9));
    let mut third = Box::pin(third);
    assert!(poll_once(&mut first).is_pending() && poll_once(&mut third).is_pending());
    registry.wait_all_ready().wait_blocking_timeout(LONG).unwrap();
    let tasks = thread::spawn(move || {
        pollster::block_on(async move { futures_lite::future::zip(first, third).await })
    });
    let report = registry.shutdown_blocking(LONG);
    assert_eq!(report.to_string(), "3 services stopped in time");
    tasks.join().unwrap();
    thread.join().unwrap();
    assert_eq!(calls.load(Ordering::Relaxed), 2);
}

#[test]
fn many_values_that_readers_hold_are_closed_in_order() {
    const MANY: u32 = 20_000;
    let (mut runtime, id, log) = runtime();
    let supervisor = runtime.registry.supervise(id).unwrap().restart_policy(at_once());
    let (lives, closed) = (Arc::new(Mutex::new(None)), Arc::new(Mutex::new(Vec::new())));
    let (give, note) = (Arc::clone(&lives), Arc::clone(&closed));
    let supervisor = supervisor
        .body(async move |live: Live<Value>| {
            *give.lock().unwrap() = Some(live.clone());
            live.stopping().await.map(drop)
        })
        .on_close(async move |closing: Closing<Value>| {
            note.lock().unwrap().push((closing.number, Closing::holders(&closing)));
        });
    start!(runtime, supervisor, log);
    let live = lives.lock().unwrap().clone().unwrap();
    let mut held = Vec::new();
    for number in 2..=MANY {
        held.push(runtime.registry.get_arc(id).unwrap());
        live.replace(log.value(number)).ok().unwrap();
        // Each has a limit of its own.
        runtime.clock.advance(Duration::from_micros(1));
        if number % 100 == 0 {
            runtime.run_until_idle();
        }
    }
    runtime.advance(ms(10_000));
    let closed = mem::take(&mut *closed.lock().unwrap());
    assert_eq!(closed, (1..MANY).map(|number| (number, 1)).collect::<Vec<_>>());
    drop(held);
    until("all but one are dropped", || log.0.lock().unwrap().len() == MANY as usize - 1);
}
