//! Events of an observer.
//!
//! - The observer receives every event in the order in which one thread causes them, with the
//!   service, the generation of the event, and the cause. It receives none for the registrations
//!   of the builder.
//! - The thread that caused an event calls the observer, after the change: a read of the registry
//!   shows the change.
//! - The observer may call the registry, also to fail, register and provide. A panic of the
//!   observer affects no caller.
//! - An event carries the duration of the wait or of the attempt that it ends.
//! - `TracingObserver` makes a `tracing` event of each event: warnings of failures, and none of a
//!   planned end.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::Poll,
    thread::{self, ThreadId},
    time::Duration,
};

use crate::support::{LONG, MOMENT, must_finish, poll_once, publish, publish_from, up};
use mainstay::{Event, EventKind, Observer, Phase, Registry, ServiceId};

/// An observer that calls a closure.
struct Call<F>(F);

impl<F: Fn(&Registry, &Event<'_>) + Send + Sync + 'static> Observer for Call<F> {
    fn event(&self, registry: &Registry, event: &Event<'_>) {
        (self.0)(registry, event);
    }
}

/// The texts of the events so far.
type Log = Arc<Mutex<Vec<String>>>;

/// A registry whose observer writes a log.
fn logged() -> (Registry, Log) {
    let log = Log::default();
    let entries = Arc::clone(&log);
    let note = move |_: &Registry, event: &Event<'_>| {
        let text = format!("{}@{} {}", event.service, event.generation, event.kind);
        entries.lock().unwrap().push(text);
    };
    (Registry::builder(8).unwrap().observer(Call(note)).build(), log)
}

fn take(log: &Log) -> Vec<String> {
    std::mem::take(&mut *log.lock().unwrap())
}

#[test]
fn the_observer_receives_every_event_in_order() {
    let (registry, log) = logged();
    let config = registry.register::<u32>("config").unwrap();
    let client = registry.register::<u32>("client").unwrap();
    registry.register::<u32>("client").unwrap();
    assert_eq!(take(&log), ["config@0 registered", "client@0 registered"]);

    let provide_config = registry.provide(config).unwrap();
    let provide_client = registry.provide(client).unwrap();
    let attempt = provide_client.begin().wait_blocking().unwrap();
    let mut wait_for = attempt.wait_for(config);
    assert!(poll_once(&mut wait_for).is_pending());
    let mut wait_ready = registry.wait_ready(client);
    assert!(poll_once(&mut wait_ready).is_pending());
    assert!(poll_once(&mut wait_ready).is_pending());
    assert_eq!(
        take(&log),
        ["client@0 attempt started", "config@0 waited for by client", "client@0 waited for"]
    );

    let running_config = publish(&provide_config, 1);
    assert!(poll_once(&mut wait_for).is_ready());
    drop(wait_for);
    assert_eq!(
        take(&log),
        ["config@0 attempt started", "config@0 ready", "config@0 no longer waited for by client"]
    );
    drop(wait_ready);
    let running_client = attempt.ready(1).unwrap();
    running_client.replace(2).unwrap();
    assert_eq!(
        take(&log),
        ["client@0 no longer waited for", "client@0 ready", "client@0 replaced"]
    );

    running_config.fail("edited");
    assert_eq!(
        take(&log),
        ["config@0 failed: edited", "client@0 failed because config failed: edited"]
    );
    drop(running_client);
    provide_client.begin().wait_blocking().unwrap().fail("no host").unwrap();
    drop(provide_client.begin().wait_blocking().unwrap());
    assert_eq!(
        take(&log),
        [
            "client@1 attempt started",
            "client@1 attempt failed: no host",
            "client@1 attempt started",
            "client@1 attempt failed: the attempt was dropped"
        ]
    );
    let running_config = publish(&provide_config, 2);
    let attempt = provide_client.begin().wait_blocking().unwrap();
    attempt.wait_for(config).wait_blocking().unwrap();
    registry.fail(config, "edited again").unwrap();
    assert!(attempt.ready(3).is_err());
    drop(running_config);
    assert_eq!(
        take(&log)[2..],
        [
            "client@1 attempt started",
            "config@1 failed: edited again",
            "client@1 invalidated because config failed: edited again"
        ]
    );
    registry.fail(config, "down already").unwrap();
    assert_eq!(take(&log), [""; 0]);
    registry.close();
    registry.close();
    assert_eq!(take(&log), ["config@2 closed", "client@2 closed"]);
}

#[test]
fn registrations_of_the_builder_make_no_events() {
    let events = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&events);
    let observer = Call(move |_: &Registry, _: &Event<'_>| {
        count.fetch_add(1, Ordering::Relaxed);
    });
    let mut builder = Registry::builder(2).unwrap().observer(observer);
    builder.register::<u8>("first").unwrap();
    let registry = builder.build();
    assert_eq!(events.load(Ordering::Relaxed), 0);
    registry.register::<u8>("second").unwrap();
    assert_eq!(events.load(Ordering::Relaxed), 1);
}

#[test]
fn events_carry_the_duration_of_the_wait_or_attempt() {
    let log = Arc::new(Mutex::new(vec![]));
    let entries = Arc::clone(&log);
    let note = move |_: &Registry, event: &Event<'_>| {
        entries.lock().unwrap().push((event.kind.to_string(), event.elapsed));
    };
    let registry = Registry::builder(2).unwrap().observer(Call(note)).build();
    let elapsed = |what: &str| {
        let log = std::mem::take(&mut *log.lock().unwrap());
        log.into_iter().find(|(kind, _)| kind == what).expect("the event is in the log").1
    };
    let id = registry.register::<u32>("service").unwrap();
    let provider = registry.provide(id).unwrap();
    let attempt = provider.begin().wait_blocking().unwrap();
    assert_eq!(elapsed("attempt started"), Duration::ZERO, "begin did not wait");

    let mut next = provider.begin();
    assert!(poll_once(&mut next).is_pending());
    thread::sleep(MOMENT);
    attempt.fail("no").unwrap();
    assert!(elapsed("attempt failed: no") >= MOMENT);
    let Poll::Ready(Ok(attempt)) = poll_once(&mut next) else { panic!("the slot is free") };
    assert!(elapsed("attempt started") >= MOMENT);

    let mut ready = registry.wait_ready(id);
    assert!(poll_once(&mut ready).is_pending());
    thread::sleep(MOMENT);
    let _running = attempt.ready(1).unwrap();
    assert!(elapsed("ready") >= MOMENT);
    drop(ready);
    assert!(elapsed("no longer waited for") >= MOMENT);

    let never = registry.register::<u32>("never").unwrap();
    registry.fail(id, "to be built again").unwrap();
    let attempt = provider.begin().wait_blocking().unwrap();
    let mut built_from = attempt.wait_for(never);
    assert!(poll_once(&mut built_from).is_pending());
    thread::sleep(MOMENT);
    drop(built_from);
    assert!(elapsed("no longer waited for by service") >= MOMENT);
}

#[test]
fn the_thread_that_caused_an_event_calls_the_observer_after_the_change() {
    let (by, wrong) = (Arc::new(Mutex::new(None::<ThreadId>)), Arc::new(AtomicBool::new(false)));
    let (noted_by, noted_wrong) = (Arc::clone(&by), Arc::clone(&wrong));
    let check_state = move |registry: &Registry, event: &Event<'_>| {
        *noted_by.lock().unwrap() = Some(thread::current().id());
        let status = registry.status(event.id).unwrap();
        let right = match event.kind {
            EventKind::Registered => registry.find(event.service).unwrap() == event.id,
            EventKind::AttemptStarted => status.phase == Phase::Starting,
            EventKind::Ready => status.phase == Phase::Ready,
            EventKind::Failed(failure) | EventKind::Invalidated(failure) => {
                status.generation.get() == event.generation.get() + 1
                    && (failure.generation, &failure.service) == (event.generation, event.service)
            }
            EventKind::AttemptFailed(_) => status.phase == Phase::Down,
            EventKind::Closed => registry.is_closed(),
            _ => true,
        };
        noted_wrong.fetch_or(!right, Ordering::Relaxed);
    };
    let registry = Registry::builder(2).unwrap().observer(Call(check_state)).build();
    let check = || {
        assert!(!wrong.load(Ordering::Relaxed));
        assert_eq!(by.lock().unwrap().take(), Some(thread::current().id()));
    };
    let (a, b) = (registry.register::<u32>("a").unwrap(), registry.register::<u32>("b").unwrap());
    let (provide_a, running_a) = up(&registry, a, 1);
    check();
    let provide_b = registry.provide(b).unwrap();
    let _running_b = publish_from(&provide_b, a, 1);
    thread::scope(|scope| {
        scope.spawn(|| {
            running_a.fail("over");
            check();
        });
    });
    provide_a.begin().wait_blocking().unwrap().fail("not now").unwrap();
    let attempt = provide_a.begin().wait_blocking().unwrap();
    registry.fail(a, "invalidated").unwrap();
    drop(attempt);
    registry.close();
    check();
}

#[test]
fn an_observer_may_call_the_registry() {
    must_finish("an observer that calls the registry", || {
        // If `part` fails, the observer fails `other part`. If it is ready, the observer provides a
        // further service.
        let call = |registry: &Registry, event: &Event<'_>| {
            let _ = registry.list().to_dot();
            match (&event.kind, &**event.service) {
                (EventKind::Failed(failure), "part") => {
                    let other = registry.find("other part").unwrap();
                    let cascade = registry.fail(other, (*failure).clone()).unwrap();
                    assert_eq!(cascade.failed, 1);
                }
                (EventKind::Ready, "part") => {
                    let id: ServiceId<u64> = registry.register("made by the observer").unwrap();
                    let provider = registry.provide(id).unwrap();
                    let running = provider
                        .begin()
                        .wait_blocking()
                        .unwrap()
                        .ready(event.generation.get())
                        .unwrap();
                    assert_eq!(*registry.get(id).unwrap(), event.generation.get());
                    drop(running);
                }
                _ => {}
            }
        };
        let registry = Registry::builder(3).unwrap().observer(Call(call)).build();
        let part = registry.register::<u32>("part").unwrap();
        let other = registry.register::<u32>("other part").unwrap();
        let (_other, running_other) = up(&registry, other, 1);
        let (_part, running) = up(&registry, part, 1);
        assert_eq!(
            registry.status(registry.find("made by the observer").unwrap()).unwrap().generation,
            1
        );
        running.fail("broken");
        let failure = running_other.failed().wait_blocking_timeout(LONG).unwrap();
        assert_eq!(failure.reason.to_string(), "part failed: broken");
    });
}

#[test]
fn an_observer_that_panics_affects_no_caller() {
    let events = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&events);
    let panicking = move |_: &Registry, event: &Event<'_>| {
        count.fetch_add(1, Ordering::Relaxed);
        panic!("an observer that panics at {}", event.kind);
    };
    let registry = Registry::builder(2).unwrap().observer(Call(panicking)).build();
    let (a, b) = (registry.register::<u32>("a").unwrap(), registry.register::<u32>("b").unwrap());
    let provide_a = registry.provide(a).unwrap();
    let provide_b = registry.provide(b).unwrap();
    for round in 0..3 {
        let mut wait = registry.wait_ready(b);
        assert!(poll_once(&mut wait).is_pending());
        let running_a = publish(&provide_a, round);
        let running_b = publish_from(&provide_b, a, round);
        running_b.replace(10).unwrap();
        assert!(poll_once(&mut wait).is_ready());
        assert_eq!(running_a.fail("over").failed, 2);
        assert_eq!(running_b.failed().wait_blocking().unwrap().root, "a");
        drop(provide_b.begin().wait_blocking().unwrap());
    }
    registry.close();
    // Two registrations and two closes. In each round: wait, end of the wait, begin and ready
    // twice, replaced, failed twice, begin, attempt failed.
    assert_eq!(events.load(Ordering::Relaxed), 2 + 2 + 3 * 11);
}

#[cfg(feature = "tracing")]
#[test]
fn tracing_observer_makes_a_tracing_event_of_each_event() {
    use std::fmt::{self, Write};
    use tracing::{Level, Metadata, Subscriber, field, span};

    #[derive(Clone, Default)]
    struct Collect(Log);
    struct Fields(String);
    impl field::Visit for Fields {
        fn record_debug(&mut self, field: &field::Field, value: &dyn fmt::Debug) {
            if field.name() != "elapsed" {
                write!(self.0, " {}={value:?}", field.name()).unwrap();
            }
        }
    }
    impl Subscriber for Collect {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            metadata.target() == "mainstay" && *metadata.level() <= Level::DEBUG
        }
        fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
            span::Id::from_u64(1)
        }
        fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
        fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
        fn event(&self, event: &tracing::Event<'_>) {
            let mut fields = Fields(event.metadata().level().to_string());
            event.record(&mut fields);
            self.0.lock().unwrap().push(fields.0);
        }
        fn enter(&self, _: &span::Id) {}
        fn exit(&self, _: &span::Id) {}
    }

    let collect = Collect::default();
    let log = Arc::clone(&collect.0);
    tracing::subscriber::with_default(collect, || {
        let registry = Registry::builder(1).unwrap().observer(mainstay::TracingObserver).build();
        let id = registry.register::<u8>("service").unwrap();
        let (provider, running) = up(&registry, id, 1);
        running.fail("lost");
        let running = publish(&provider, 2);
        registry.close();
        drop(running);
    });
    let log = take(&log);
    let expected = [
        ("DEBUG", 0, "registered"),
        ("DEBUG", 0, "attempt started"),
        ("DEBUG", 0, "ready"),
        ("WARN", 0, "failed: lost"),
        ("DEBUG", 1, "attempt started"),
        ("DEBUG", 1, "ready"),
        ("DEBUG", 1, "closed"),
        ("DEBUG", 1, "stopped: the registry was closed"),
    ];
    assert_eq!(log.len(), expected.len(), "{log:?}");
    for (entry, (level, generation, what)) in log.iter().zip(expected) {
        assert!(entry.starts_with(level) && entry.contains(&format!("message={what}")), "{entry}");
        let service = format!("service=\"service\" generation={generation}");
        assert!(entry.contains(&service), "{entry}");
    }
}
