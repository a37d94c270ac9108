//! The observers of the examples in the documentation do not disturb a shutdown.
//!
//! Each observer of an example in `src/event.rs` and `src/registry/observers.rs` is here, too, word
//! for word: a test compares them.

use std::{
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
    supervise::{RestartPolicy, StopReport},
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

/// Services for a restart strategy, in a shutdown: `whole` was registered first, and nothing
/// depends on it, so its turn comes at the same time as that of `part`, or later if `part` is
/// reported first. Returns the events of the shutdown.
fn shut_down(observer: impl Observer) -> Vec<String> {
    let mut runtime = TestRuntime::new(8).unwrap();
    let registry = runtime.registry.clone();
    registry.observe(observer).detach();
    let names = ["whole", "part", "uses whole", "by hand"];
    let [whole, part, uses_whole, by_hand] =
        names.map(|name| registry.register::<u32>(name).unwrap());
    let policy = || RestartPolicy::default().drain_timeout(Duration::from_secs(10));
    let supervisor = |id| registry.supervise(id).unwrap().restart_policy(policy());
    runtime.spawn(supervisor(whole).run(async |_| 1));
    runtime.spawn(supervisor(part).run(async |_| 1));
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
    let report = Arc::<Mutex<Option<StopReport>>>::default();
    let (shutdown, done) = (registry.shutdown(Duration::from_secs(60)), Arc::clone(&report));
    runtime.spawn(async move { *done.lock().unwrap() = Some(shutdown.await) });
    runtime.advance(Duration::from_secs(5));
    assert!(registry.get(part).is_err(), "its turn to stop has come");
    assert!(registry.get(whole).is_ok(), "its turn to stop has not come");
    drop(held);
    runtime.advance(Duration::from_secs(5));
    let report = report.lock().unwrap().take().unwrap();
    assert_eq!(report.to_string(), "4 services stopped in time");
    assert_eq!(report.stopped.len(), 4);
    runtime.recorder.take()
}

#[test]
fn the_examples_do_not_disturb_a_shutdown() {
    let expected = shut_down(Print);
    assert!(expected.iter().all(|line| !line.contains("failed")), "{expected:?}");
    let (sender, events) = mpsc::channel();
    assert_eq!(shut_down(Forward(sender.clone())), expected);
    assert_eq!(shut_down(of_events::Forward(sender)), expected);
    assert!(events.iter().count() > expected.len());
    assert_eq!(shut_down(Lines::default()), expected);
    assert_eq!(shut_down(Count), expected);
    assert_eq!(FAILURES.load(Ordering::Relaxed), 1, "`part` has failed once, and nothing else");
    // The restart strategy has failed `whole` before, so the generations differ.
    let words = |lines: Vec<String>| -> Vec<String> {
        lines.iter().map(|line| line.split_once(' ').unwrap().1.replace(['1', '2'], "0")).collect()
    };
    assert_eq!(words(shut_down(OneForAll)), words(expected));
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
