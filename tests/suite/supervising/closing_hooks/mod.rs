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

// After the macro, which they use.
mod ends;
mod hostile;

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
