//! The observers of the examples in the documentation disturb no shutdown, no restart and no stop.
//!
//! Each observer of an example in `src/event.rs` and `src/registry/observers.rs` is here, too, word
//! for word: a test compares them.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    time::Duration,
};

use mainstay::{
    Event, EventKind, Failure, Listing, Observer, Registry,
    error::WaitForError,
    supervise::{RestartPolicy, StopTimeout, StopWait, StoppedService},
    test_kit::TestRuntime,
};

struct Forward(mpsc::Sender<String>);

/// The example of `Event`.
mod of_events {
    use super::*;

    pub(super) struct Forward(pub(super) mpsc::Sender<String>);

    impl Observer for Forward {
        fn event(&self, _: &Registry, event: &Event<'_>) {
            self.0.send(format!("{} {}: {}", event.service, event.generation, event.kind)).ok();
        }
    }
}

impl Observer for Forward {
    fn event(&self, _: &Registry, event: &Event<'_>) {
        self.0.send(event.kind.to_string()).ok();
    }
}

/// Fails the service `whole` when the service `part` has failed.
struct OneForAll;

impl Observer for OneForAll {
    fn event(&self, registry: &Registry, event: &Event<'_>) {
        if let (EventKind::Failed(failure), "part") = (&event.kind, &**event.service) {
            let whole = registry.find("whole").expect("it is registered");
            let _ = registry.fail(whole, Failure::clone(failure));
        }
    }
}

static FAILURES: AtomicU32 = AtomicU32::new(0);

struct Count;

impl Observer for Count {
    fn event(&self, _: &Registry, event: &Event<'_>) {
        if let EventKind::Failed(_) = event.kind {
            FAILURES.fetch_add(1, Ordering::Relaxed);
        }
    }
}

struct Print;

impl Observer for Print {
    fn event(&self, _: &Registry, event: &Event<'_>) {
        println!("{}: {}", event.service, event.kind);
    }

    fn listing(&self, _: &Registry, listing: &Listing) {
        for service in &listing.services {
            println!("{} is {}", service.name, service.phase);
        }
    }
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

impl Observer for Lines {
    fn event(&self, _: &Registry, event: &Event<'_>) {
        self.0.lock().unwrap().push(format!("{}: {}", event.service, event.kind));
    }

    fn listing(&self, _: &Registry, listing: &Listing) {
        for service in &listing.services {
            self.0.lock().unwrap().push(format!("{} is {}", service.name, service.phase));
        }
    }
}

/// The end of all services: returns the report's services, in order, and its text.
type End = fn(&Registry) -> Pin<Box<dyn Future<Output = (Vec<String>, bool)> + Send>>;

fn ends_of(stopped: &[StoppedService], stop_timeouts: &[StopTimeout]) -> (Vec<String>, bool) {
    let names = stopped.iter().map(|one| one.service.to_string()).collect();
    (names, stop_timeouts.is_empty())
}

const SHUTDOWN: End = |registry| {
    let shutdown = registry.shutdown(Duration::from_secs(60));
    Box::pin(async move {
        let report = shutdown.await;
        ends_of(&report.stopped, &report.stop_timeouts)
    })
};

fn operation(wait: StopWait) -> Pin<Box<dyn Future<Output = (Vec<String>, bool)> + Send>> {
    Box::pin(async move {
        let report = wait.await.unwrap();
        ends_of(&report.stopped, &report.stop_timeouts)
    })
}

const RESTART: End =
    |registry| operation(registry.restart(registry.find("base").unwrap(), "edited"));

const STOP: End = |registry| operation(registry.stop(registry.find("base").unwrap()));

/// Services for a restart strategy, which end together. `uses whole` depends on `whole` and ends
/// late, so `whole` is up when `part` has ended. Returns the events of the end.
fn events(end: End, observer: impl Observer) -> Vec<String> {
    let mut runtime = TestRuntime::new(8).unwrap();
    let registry = runtime.registry.clone();
    registry.observe(observer).detach();
    let names = ["part", "whole", "uses whole", "by hand", "base"];
    let [part, whole, uses_whole, by_hand, base] =
        names.map(|name| registry.register::<u32>(name).unwrap());
    for id in [whole, part, by_hand] {
        registry.depends(id).on(base).unwrap();
    }
    let policy = || RestartPolicy::default().drain_timeout(Duration::from_secs(10));
    let supervisor = |id| registry.supervise(id).unwrap().restart_policy(policy());
    for id in [base, whole, part] {
        runtime.spawn(supervisor(id).run(async |_| 1));
    }
    runtime.spawn(
        supervisor(uses_whole)
            .run(async move |build| Ok::<_, WaitForError>(**build.wait_for(whole).await?)),
    );
    let provider = registry.provide(by_hand).unwrap();
    let _running = provider.begin().wait_blocking().unwrap().ready(1).unwrap();
    runtime.run_until_idle();
    registry.fail(part, "broken").unwrap();
    runtime.advance(Duration::from_secs(10));
    assert!(
        names.iter().all(|name| registry.list().get(name).unwrap().to_string().contains("ready"))
    );
    runtime.recorder.take();

    // `uses whole` is held: it stops late, and `whole` must be up until then.
    let held = registry.get(uses_whole).unwrap();
    let whole_before = *registry.get(whole).unwrap();
    let ended = Arc::<Mutex<Option<(Vec<String>, bool)>>>::default();
    let (ending, done) = (end(&registry), Arc::clone(&ended));
    runtime.spawn(async move {
        let ended = ending.await;
        *done.lock().unwrap() = Some(ended);
    });
    runtime.advance(Duration::from_secs(5));
    assert!(registry.get(part).is_err(), "its turn to stop has come");
    assert!(registry.get(whole).is_ok_and(|whole| *whole == whole_before), "its has not come");
    drop(held);
    runtime.run_until_idle();
    let lines = runtime.recorder.take();
    // The drop of the supervisors is no failure then.
    registry.close();
    let (mut stopped, in_time) = ended.lock().unwrap().take().unwrap();
    assert!(in_time, "{stopped:?}");
    assert_eq!(stopped.last().unwrap(), "base");
    stopped.sort();
    assert_eq!(stopped, ["base", "by hand", "part", "uses whole", "whole"]);
    lines
}

#[test]
fn the_examples_do_not_disturb_a_planned_end() {
    for end in [SHUTDOWN, RESTART, STOP] {
        let expected = events(end, Print);
        assert!(expected.iter().all(|line| !line.contains("failed")), "{expected:?}");
        let (sender, received) = mpsc::channel();
        assert_eq!(events(end, Forward(sender.clone())), expected);
        assert_eq!(events(end, of_events::Forward(sender)), expected);
        assert!(received.iter().count() > expected.len());
        assert_eq!(events(end, Lines::default()), expected);
        let before = FAILURES.load(Ordering::Relaxed);
        assert_eq!(events(end, Count), expected);
        let failures = FAILURES.load(Ordering::Relaxed) - before;
        assert_eq!(failures, 1, "`part` has failed once, and nothing else");
        // The restart strategy has failed `whole` before, so the generations differ.
        let words = |lines: Vec<String>| -> Vec<String> {
            let generation = |line: &String| line.split_once(": ").unwrap().1.to_string();
            lines.iter().map(generation).collect()
        };
        assert_eq!(words(events(end, OneForAll)), words(expected));
    }
}

/// The implementations of `Observer` in Rust code: their lines without indentation.
fn observers(code: &str) -> Vec<Vec<&str>> {
    let mut lines = code.lines();
    let mut found = Vec::new();
    while let Some(first) = lines.next() {
        if first.trim_start().starts_with("impl Observer for") {
            let end = first.replace(first.trim_start(), "}");
            let rest = lines.by_ref().take_while(|line| *line != end);
            found.push([first].into_iter().chain(rest).map(str::trim).collect());
        }
    }
    found
}

#[test]
fn each_example_is_tested() {
    let tested = observers(include_str!("strategies.rs"));
    let mut examples = 0;
    for source in
        [include_str!("../../../src/event.rs"), include_str!("../../../src/registry/observers.rs")]
    {
        let lines = source.lines().map(str::trim_start);
        let docs = lines.filter_map(|line| line.strip_prefix("///"));
        let docs: Vec<&str> = docs.map(|line| line.strip_prefix(' ').unwrap_or(line)).collect();
        for example in observers(&docs.join("\n")) {
            assert!(tested.contains(&example), "not tested: {example:?}");
            examples += 1;
        }
    }
    assert_eq!(examples, 6);
}
