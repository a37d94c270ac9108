//! The observer: events as they happen.
//!
//! - The observer is told of everything, in the order in which one thread does it: the service, the generation
//!   that it happened to, and the cause. What is registered with the builder it is not told of.
//! - It is called by the thread that did it, after it is done: what it reads shows it.
//! - It may call the registry, also to fail, register and provide; it may panic, which disturbs nobody.
//! - An event says how long it took: the wait, the attempt.
//! - `TracingObserver` makes a `tracing` event of each, failures as warnings, unless the registry was closed.

mod support;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::Poll,
    thread::{self, ThreadId},
    time::Duration,
};

use mainstay::{Event, EventKind, Observer, Phase, Registry, ServiceId};
use support::{LONG, MOMENT, again, again_from, poll_once, up, within};

/// Calls a closure.
struct Tell<F>(F);

impl<F: Fn(&Registry, &Event<'_>) + Send + Sync + 'static> Observer for Tell<F> {
    fn event(&self, registry: &Registry, event: &Event<'_>) {
        (self.0)(registry, event);
    }
}

type Told = Arc<Mutex<Vec<String>>>;

/// A registry that notes what it is told.
fn noted() -> (Registry, Told) {
    let told = Told::default();
    let notes = Arc::clone(&told);
    let note = move |_: &Registry, event: &Event<'_>| {
        let text = format!("{}@{} {}", event.service, event.generation, event.kind);
        notes.lock().unwrap().push(text);
    };
    (Registry::builder(8).unwrap().observer(Tell(note)).build(), told)
}

fn take(told: &Told) -> Vec<String> {
    std::mem::take(&mut *told.lock().unwrap())
}

#[test]
fn everything_is_told_in_order() {
    let (registry, told) = noted();
    let config = registry.register::<u32>("config").unwrap();
    let client = registry.register::<u32>("client").unwrap();
    registry.register::<u32>("client").unwrap();
    assert_eq!(take(&told), ["config@0 registered", "client@0 registered"]);

    let provide_config = registry.provide(config).unwrap();
    let provide_client = registry.provide(client).unwrap();
    let attempt = provide_client.begin().wait().unwrap();
    let mut wait_for = attempt.wait_for(config);
    assert!(poll_once(&mut wait_for).is_pending());
    let mut wait_ready = registry.wait_ready(client);
    assert!(poll_once(&mut wait_ready).is_pending());
    assert!(poll_once(&mut wait_ready).is_pending());
    assert_eq!(
        take(&told),
        ["client@0 begun", "config@0 waited for by client", "client@0 waited for"]
    );

    let running_config = again(&provide_config, 1);
    assert!(poll_once(&mut wait_for).is_ready());
    drop(wait_for);
    assert_eq!(
        take(&told),
        ["config@0 begun", "config@0 ready", "config@0 no longer waited for by client"]
    );
    drop(wait_ready);
    let running_client = attempt.ready(1).unwrap();
    running_client.replace(2).unwrap();
    assert_eq!(
        take(&told),
        ["client@0 no longer waited for", "client@0 ready", "client@0 replaced"]
    );

    running_config.fail("edited");
    assert_eq!(take(&told), ["config@0 failed: edited", "client@0 failed with config: edited"]);
    drop(running_client);
    provide_client.begin().wait().unwrap().fail("no host").unwrap();
    drop(provide_client.begin().wait().unwrap());
    assert_eq!(
        take(&told),
        [
            "client@1 begun",
            "client@1 given up: no host",
            "client@1 begun",
            "client@1 given up: the attempt was dropped"
        ]
    );
    let running_config = again(&provide_config, 2);
    let attempt = provide_client.begin().wait().unwrap();
    attempt.wait_for(config).wait().unwrap();
    registry.fail(config, "edited again").unwrap();
    assert!(attempt.ready(3).is_err());
    drop(running_config);
    assert_eq!(
        take(&told)[2..],
        [
            "client@1 begun",
            "config@1 failed: edited again",
            "client@1 overtaken with config: edited again"
        ]
    );
    registry.fail(config, "down already").unwrap();
    assert_eq!(take(&told), [""; 0]);
    registry.close();
    registry.close();
    assert_eq!(take(&told), ["config@2 closed", "client@2 closed"]);
}

#[test]
fn what_is_built_beforehand_is_not_told() {
    let told = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&told);
    let observer = Tell(move |_: &Registry, _: &Event<'_>| {
        count.fetch_add(1, Ordering::Relaxed);
    });
    let mut builder = Registry::builder(2).unwrap().observer(observer);
    builder.register::<u8>("first").unwrap();
    let registry = builder.build();
    assert_eq!(told.load(Ordering::Relaxed), 0);
    registry.register::<u8>("second").unwrap();
    assert_eq!(told.load(Ordering::Relaxed), 1);
}

#[test]
fn it_is_told_how_long_it_took() {
    let told = Arc::new(Mutex::new(vec![]));
    let notes = Arc::clone(&told);
    let note = move |_: &Registry, event: &Event<'_>| {
        notes.lock().unwrap().push((event.kind.to_string(), event.took));
    };
    let registry = Registry::builder(2).unwrap().observer(Tell(note)).build();
    let took = |what: &str| {
        let told = std::mem::take(&mut *told.lock().unwrap());
        told.into_iter().find(|(kind, _)| kind == what).expect("it was told").1
    };
    let id = registry.register::<u32>("service").unwrap();
    let provider = registry.provide(id).unwrap();
    let attempt = provider.begin().wait().unwrap();
    assert_eq!(took("begun"), Duration::ZERO, "it had not to wait");

    let mut next = provider.begin();
    assert!(poll_once(&mut next).is_pending());
    thread::sleep(MOMENT);
    attempt.fail("no").unwrap();
    assert!(took("given up: no") >= MOMENT);
    let Poll::Ready(Ok(attempt)) = poll_once(&mut next) else { panic!("it is free") };
    assert!(took("begun") >= MOMENT);

    let mut ready = registry.wait_ready(id);
    assert!(poll_once(&mut ready).is_pending());
    thread::sleep(MOMENT);
    let _running = attempt.ready(1).unwrap();
    assert!(took("ready") >= MOMENT);
    drop(ready);
    assert!(took("no longer waited for") >= MOMENT);

    let never = registry.register::<u32>("never").unwrap();
    registry.fail(id, "to be built anew").unwrap();
    let attempt = provider.begin().wait().unwrap();
    let mut built_from = attempt.wait_for(never);
    assert!(poll_once(&mut built_from).is_pending());
    thread::sleep(MOMENT);
    drop(built_from);
    assert!(took("no longer waited for by service") >= MOMENT);
}

#[test]
fn it_is_told_after_it_is_done_by_who_did_it() {
    let (by, wrong) = (Arc::new(Mutex::new(None::<ThreadId>)), Arc::new(AtomicBool::new(false)));
    let (told_by, told_wrong) = (Arc::clone(&by), Arc::clone(&wrong));
    let look = move |registry: &Registry, event: &Event<'_>| {
        *told_by.lock().unwrap() = Some(thread::current().id());
        let status = registry.status(event.id).unwrap();
        let right = match event.kind {
            EventKind::Registered => registry.find(event.service).unwrap() == event.id,
            EventKind::Begun => status.phase == Phase::Starting,
            EventKind::Ready => status.phase == Phase::Ready,
            EventKind::Failed(failure) | EventKind::Overtaken(failure) => {
                status.generation == event.generation + 1
                    && (failure.generation, &failure.service) == (event.generation, event.service)
            }
            EventKind::GivenUp(_) => status.phase == Phase::Down,
            EventKind::Closed => registry.is_closed(),
            _ => true,
        };
        told_wrong.fetch_or(!right, Ordering::Relaxed);
    };
    let registry = Registry::builder(2).unwrap().observer(Tell(look)).build();
    let check = || {
        assert!(!wrong.load(Ordering::Relaxed));
        assert_eq!(by.lock().unwrap().take(), Some(thread::current().id()));
    };
    let (a, b) = (registry.register::<u32>("a").unwrap(), registry.register::<u32>("b").unwrap());
    let (provide_a, running_a) = up(&registry, a, 1);
    check();
    let provide_b = registry.provide(b).unwrap();
    let _running_b = again_from(&provide_b, a, 1);
    thread::scope(|scope| {
        scope.spawn(|| {
            running_a.fail("over");
            check();
        });
    });
    provide_a.begin().wait().unwrap().fail("not now").unwrap();
    let attempt = provide_a.begin().wait().unwrap();
    registry.fail(a, "overtaken").unwrap();
    drop(attempt);
    registry.close();
    check();
}

#[test]
fn it_may_call_the_registry() {
    within("an observer that calls the registry", || {
        // When a part has failed, so has the other; and whatever happens is a service of its own.
        let call = |registry: &Registry, event: &Event<'_>| {
            let _ = registry.list().to_dot();
            match (&event.kind, &**event.service) {
                (EventKind::Failed(failure), "part") => {
                    let other = registry.find("other part").unwrap();
                    let cascade = registry.fail(other, (*failure).clone()).unwrap();
                    assert_eq!(cascade.went_down, 1);
                }
                (EventKind::Ready, "part") => {
                    let id: ServiceId<u64> = registry.register("made by the observer").unwrap();
                    let provider = registry.provide(id).unwrap();
                    let running = provider.begin().wait().unwrap().ready(event.generation).unwrap();
                    assert_eq!(*registry.get(id).unwrap(), event.generation);
                    drop(running);
                }
                _ => {}
            }
        };
        let registry = Registry::builder(3).unwrap().observer(Tell(call)).build();
        let part = registry.register::<u32>("part").unwrap();
        let other = registry.register::<u32>("other part").unwrap();
        let (_other, running_other) = up(&registry, other, 1);
        let (_part, running) = up(&registry, part, 1);
        assert_eq!(
            registry.status(registry.find("made by the observer").unwrap()).unwrap().generation,
            1
        );
        running.fail("broken");
        let failure = running_other.failed().wait_timeout(LONG).unwrap();
        assert_eq!(failure.reason.to_string(), "part failed: broken");
    });
}

#[test]
fn it_may_panic() {
    let told = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&told);
    let panicking = move |_: &Registry, event: &Event<'_>| {
        count.fetch_add(1, Ordering::Relaxed);
        panic!("an observer that panics at {}", event.kind);
    };
    let registry = Registry::builder(2).unwrap().observer(Tell(panicking)).build();
    let (a, b) = (registry.register::<u32>("a").unwrap(), registry.register::<u32>("b").unwrap());
    let provide_a = registry.provide(a).unwrap();
    let provide_b = registry.provide(b).unwrap();
    for round in 0..3 {
        let mut wait = registry.wait_ready(b);
        assert!(poll_once(&mut wait).is_pending());
        let running_a = again(&provide_a, round);
        let running_b = again_from(&provide_b, a, round);
        running_b.replace(10).unwrap();
        assert!(poll_once(&mut wait).is_ready());
        assert_eq!(running_a.fail("over").went_down, 2);
        assert_eq!(running_b.failed().wait().unwrap().root, "a");
        drop(provide_b.begin().wait().unwrap());
    }
    registry.close();
    // Registered and closed twice; in each round: wait, no wait, begun, ready twice, replaced, failed twice,
    // begun, given up.
    assert_eq!(told.load(Ordering::Relaxed), 2 + 2 + 3 * 11);
}

#[cfg(feature = "tracing")]
#[test]
fn tracing_events() {
    use std::fmt::{self, Write};
    use tracing::{Level, Metadata, Subscriber, field, span};

    #[derive(Clone, Default)]
    struct Collect(Told);
    struct Fields(String);
    impl field::Visit for Fields {
        fn record_debug(&mut self, field: &field::Field, value: &dyn fmt::Debug) {
            if field.name() != "took" {
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
    let told = Arc::clone(&collect.0);
    tracing::subscriber::with_default(collect, || {
        let registry = Registry::builder(1).unwrap().observer(mainstay::TracingObserver).build();
        let id = registry.register::<u8>("service").unwrap();
        let (provider, running) = up(&registry, id, 1);
        running.fail("lost");
        let running = again(&provider, 2);
        registry.close();
        drop(running);
    });
    let told = take(&told);
    let expected = [
        ("DEBUG", 0, "registered"),
        ("DEBUG", 0, "begun"),
        ("DEBUG", 0, "ready"),
        ("WARN", 0, "failed: lost"),
        ("DEBUG", 1, "begun"),
        ("DEBUG", 1, "ready"),
        ("DEBUG", 1, "closed"),
        ("DEBUG", 1, "failed: the registry was closed"),
    ];
    assert_eq!(told.len(), expected.len(), "{told:?}");
    for (told, (level, generation, what)) in told.iter().zip(expected) {
        assert!(told.starts_with(level) && told.contains(&format!("message={what}")), "{told}");
        let service = format!("service=\"service\" generation={generation}");
        assert!(told.contains(&service), "{told}");
    }
}
