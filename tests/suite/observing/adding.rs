//! Observers that are added to a running registry, and removed.
//!
//! - An observer receives the listing, and then every event that happens after the listing has read
//!   the service: none is missing, and none is doubled, also if the services fail and restart at
//!   the same time.
//! - It receives no event that the listing shows, even if the event reaches it later.
//! - After the drop of its handle it receives nothing, and it is dropped.
//! - An observer may add and remove observers, also itself, and it may block or panic: the others
//!   receive their events nevertheless.
//! - Several observers of the builder are called in order. They receive no listing.

use std::{
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread,
};

use crate::support::{must_finish, publish, publish_from, up};
use mainstay::{
    Event, EventKind, Listing, Observer, ObserverHandle, Phase, Provider, Registry, Running,
    ServiceId,
};

/// An observer that calls two closures.
struct Call<L, E>(L, E);

impl<L, E> Observer for Call<L, E>
where
    L: Fn(&Registry, &Listing) + Send + Sync + 'static,
    E: Fn(&Registry, &Event<'_>) + Send + Sync + 'static,
{
    fn event(&self, registry: &Registry, event: &Event<'_>) {
        (self.1)(registry, event);
    }

    fn listing(&self, registry: &Registry, listing: &Listing) {
        (self.0)(registry, listing);
    }
}

/// What one observer has received.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn push(&self, line: String) {
        self.0.lock().unwrap().push(line);
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl Observer for Log {
    fn event(&self, _: &Registry, event: &Event<'_>) {
        self.push(format!("{}@{} {}", event.service, event.generation, event.kind));
    }

    fn listing(&self, _: &Registry, listing: &Listing) {
        for service in &listing.services {
            self.push(format!("{}@{} is {}", service.name, service.generation, service.phase));
        }
    }
}

#[test]
fn an_observer_receives_a_listing_and_then_every_event() {
    let first = Log::default();
    let registry = Registry::builder(3).unwrap().observer(first.clone()).build();
    let (a, b) = (registry.register("a").unwrap(), registry.register("b").unwrap());
    let (provide_a, running_a) = up(&registry, a, 1_u8);
    let provide_b = registry.provide::<u8>(b).unwrap();
    let attempt = provide_b.begin().wait_blocking().unwrap();
    let before = ["a@0 registered", "b@0 registered"];
    assert_eq!(first.take()[..2], before, "no listing for an observer of the builder");

    let (second, third) = (Log::default(), Log::default());
    let handle = registry.observe(second.clone());
    registry.observe(third.clone()).detach();
    assert_eq!(second.take(), ["a@0 is ready", "b@0 is starting"]);
    running_a.replace(2).unwrap();
    running_a.fail("over");
    attempt.fail("no").unwrap();
    let running_b = publish(&provide_b, 1);
    registry.register::<u8>("c").unwrap();
    let events = [
        "a@0 replaced",
        "a@0 failed: over",
        "b@0 attempt failed: no",
        "b@0 attempt started",
        "b@0 ready",
        "c@0 registered",
    ];
    assert_eq!(second.take(), events);
    assert_eq!(third.take()[2..], events);
    assert_eq!(first.take(), events);

    drop(handle);
    drop((running_b, publish(&provide_a, 2)));
    registry.close();
    assert_eq!(second.take(), [""; 0]);
    let rest = third.take();
    assert_eq!(rest.len(), 7, "{rest:?}");
    assert_eq!(first.take(), rest);
}

#[test]
fn an_event_that_the_listing_shows_is_not_received_again() {
    // The first observer adds another one at the first event of a cascade. The other events of
    // this cascade have happened already.
    let late = Log::default();
    let (handles, log) = (Arc::new(Mutex::new(Vec::new())), late.clone());
    let add = {
        let handles = Arc::clone(&handles);
        move |registry: &Registry, event: &Event<'_>| {
            if let (EventKind::Failed(_), "a") = (&event.kind, &**event.service) {
                handles.lock().unwrap().push(registry.observe(log.clone()));
            }
        }
    };
    let registry = Registry::builder(2).unwrap().observer(Call(|_: &_, _: &_| (), add)).build();
    let (a, b) = (registry.register("a").unwrap(), registry.register("b").unwrap());
    let (_provide_a, running_a) = up(&registry, a, 1_u8);
    let provide_b = registry.provide::<u8>(b).unwrap();
    let running_b = publish_from(&provide_b, a, 1);
    running_a.fail("over");
    assert_eq!(late.take(), ["a@1 is down", "b@1 is down"]);
    drop(running_b);
    let _running_b = provide_b.begin().wait_blocking().unwrap();
    assert_eq!(late.take(), ["b@1 attempt started"]);
}

/// A kind of event, or the phase that the listing shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Started,
    AttemptFailed,
    Ready,
    Replaced,
    /// The end of an instance, or of an attempt: caused by any thread.
    Ended,
}

/// The events of each service, and the listing.
#[derive(Clone, Default)]
struct Record {
    listing: Arc<Mutex<Vec<(u64, Phase)>>>,
    events: Arc<Mutex<Vec<(usize, u64, Step)>>>,
}

impl Record {
    /// The events of one service: those that its provider causes, in order, and the generations
    /// that have ended.
    fn of(&self, service: usize) -> (Vec<(u64, Step)>, Vec<u64>) {
        let events = self.events.lock().unwrap();
        let events: Vec<_> = events.iter().filter(|(of, ..)| *of == service).collect();
        let by_provider = events.iter().filter(|(.., step)| *step != Step::Ended);
        let mut ended: Vec<u64> =
            events.iter().filter(|(.., step)| *step == Step::Ended).map(|event| event.1).collect();
        ended.sort_unstable();
        (by_provider.map(|&&(_, generation, step)| (generation, step)).collect(), ended)
    }
}

impl Observer for Record {
    fn event(&self, _: &Registry, event: &Event<'_>) {
        let step = match event.kind {
            EventKind::AttemptStarted => Step::Started,
            EventKind::AttemptFailed(_) => Step::AttemptFailed,
            EventKind::Ready => Step::Ready,
            EventKind::Replaced => Step::Replaced,
            EventKind::Failed(_) | EventKind::Invalidated(_) => Step::Ended,
            _ => return,
        };
        let service = event.service.parse().unwrap();
        self.events.lock().unwrap().push((service, event.generation.get(), step));
    }

    fn listing(&self, _: &Registry, listing: &Listing) {
        assert!(self.events.lock().unwrap().is_empty(), "the listing comes first");
        let phases = listing.services.iter().map(|it| (it.generation.get(), it.phase));
        *self.listing.lock().unwrap() = phases.collect();
    }
}

/// Checks that the listing and the events of `late` are what remains of `all`, without a gap.
fn assert_continues(all: &Record, late: &Record, service: usize) {
    let (generation, phase) = late.listing.lock().unwrap()[service];
    let ((all, all_ended), (late, late_ended)) = (all.of(service), late.of(service));
    let expected: Vec<u64> = all_ended.iter().copied().filter(|of| *of >= generation).collect();
    assert_eq!(late_ended, expected, "service {service} was listed in generation {generation}");
    let Some(before) = all.len().checked_sub(late.len()) else { panic!("doubled: {late:?}") };
    let (before, after) = all.split_at(before);
    assert_eq!(late, after, "service {service} was listed as {phase} in {generation}");
    // The state to which the events before the listing have led.
    let was = match before.last() {
        Some((last, Step::Started)) if *last == generation => Phase::Starting,
        Some((last, Step::Ready | Step::Replaced)) if *last == generation => Phase::Ready,
        Some((last, _)) => {
            assert!(*last <= generation, "{before:?} is listed in {generation}");
            Phase::Down
        }
        None => Phase::Down,
    };
    assert_eq!(phase, was, "service {service} in {generation}, after {:?}", before.last());
}

/// Builds a service from the one below it, until `stop` is set. Some attempts fail, some instances
/// are replaced, some fail at once.
fn provide(
    provider: &Provider<u64>,
    service: usize,
    below: Option<ServiceId<u64>>,
    stop: &AtomicBool,
) {
    let mut random = fastrand::Rng::with_seed(service as u64);
    while !stop.load(Ordering::Relaxed) {
        let Ok(attempt) = provider.begin().wait_blocking() else { return };
        if random.u8(..3) == 0 {
            let _ = attempt.fail("not this time");
            continue;
        }
        if below.is_some_and(|below| attempt.wait_for(below).wait_blocking().is_err()) {
            continue;
        }
        let Ok(running): Result<Running<u64>, _> = attempt.ready(0) else { continue };
        for value in 0..random.u64(..3) {
            let _ = running.replace(value);
        }
        if below.is_none() || random.bool() {
            running.fail("over");
        }
    }
}

#[test]
fn the_listing_and_the_events_are_one_sequence_while_services_fail_and_restart() {
    const SERVICES: usize = 3;
    for round in 0..40 {
        let all = Record::default();
        let registry = Registry::builder(SERVICES).unwrap().observer(all.clone()).build();
        let ids: Vec<ServiceId<u64>> =
            (0..SERVICES).map(|n| registry.register(&n.to_string()).unwrap()).collect();
        let (stop, random) = (AtomicBool::new(false), Mutex::new(fastrand::Rng::with_seed(round)));
        let late = Mutex::new(Vec::<(Record, ObserverHandle)>::new());
        thread::scope(|scope| {
            let providers: Vec<_> = (0..SERVICES)
                .map(|service| {
                    let (below, stop) = (service.checked_sub(1).map(|below| ids[below]), &stop);
                    let provider = registry.provide(ids[service]).unwrap();
                    scope.spawn(move || provide(&provider, service, below, stop))
                })
                .collect();
            let add = || {
                for _ in 0..8 {
                    let record = Record::default();
                    let handle = registry.observe(record.clone());
                    let is_kept = random.lock().unwrap().bool();
                    if is_kept {
                        late.lock().unwrap().push((record, handle));
                    }
                    thread::yield_now();
                }
            };
            let fail = || {
                while !stop.load(Ordering::Relaxed) {
                    let service = random.lock().unwrap().usize(..SERVICES);
                    registry.fail(ids[service], "by another thread").unwrap();
                    thread::yield_now();
                }
            };
            scope.spawn(fail);
            let adders = [scope.spawn(add), scope.spawn(add)];
            adders.into_iter().for_each(|adder| adder.join().unwrap());
            stop.store(true, Ordering::Relaxed);
            registry.close();
            providers.into_iter().for_each(|provider| provider.join().unwrap());
        });
        for (record, _handle) in late.into_inner().unwrap() {
            (0..SERVICES).for_each(|service| assert_continues(&all, &record, service));
        }
    }
}

#[test]
fn a_removed_observer_is_not_called_again_and_is_dropped() {
    let registry = Registry::with_capacity(1).unwrap();
    let id = registry.register::<u8>("a").unwrap();
    let calls = Arc::new(AtomicU64::new(0));
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let failing = || {
            let provider = registry.provide(id).unwrap();
            while !stop.load(Ordering::Relaxed) {
                drop(publish(&provider, 1));
            }
        };
        let provider = scope.spawn(failing);
        for _ in 0..200 {
            let alive = Arc::new(());
            let (count, weak) = (Arc::clone(&calls), Arc::downgrade(&alive));
            let observer = Call(
                |_: &Registry, _: &Listing| (),
                move |_: &Registry, _: &Event<'_>| {
                    let _ = &alive;
                    count.fetch_add(1, Ordering::Relaxed);
                },
            );
            let handle = registry.observe(observer);
            drop(handle);
            // A call that had begun before the drop may still run on the other thread.
            while weak.strong_count() > 0 {
                thread::yield_now();
            }
        }
        stop.store(true, Ordering::Relaxed);
        provider.join().unwrap();
    });
    let before = calls.load(Ordering::Relaxed);
    registry.close();
    assert_eq!(calls.load(Ordering::Relaxed), before);
}

#[test]
fn an_observer_may_remove_itself_and_add_others_during_its_call() {
    must_finish("an observer that adds and removes observers", || {
        let registry = Registry::with_capacity(4).unwrap();
        let added = Log::default();
        let own = Arc::new(Mutex::new(None::<ObserverHandle>));
        let calls = Arc::new(AtomicU64::new(0));
        let observer = {
            let (own, added, calls) = (Arc::clone(&own), added.clone(), Arc::clone(&calls));
            let alive = Arc::new(());
            let weak: Weak<()> = Arc::downgrade(&alive);
            let event = move |registry: &Registry, _: &Event<'_>| {
                let _ = &alive;
                calls.fetch_add(1, Ordering::Relaxed);
                registry.observe(added.clone()).detach();
                drop(own.lock().unwrap().take());
                registry.register::<u8>("by the observer").unwrap();
            };
            (Call(|_: &Registry, _: &Listing| (), event), weak)
        };
        let (observer, weak) = observer;
        *own.lock().unwrap() = Some(registry.observe(observer));
        registry.register::<u8>("a").unwrap();
        assert_eq!(calls.load(Ordering::Relaxed), 1);
        assert_eq!(added.take(), ["a@0 is down", "by the observer@0 registered"]);
        assert_eq!(weak.strong_count(), 0, "it was dropped after its call");
        registry.register::<u8>("b").unwrap();
        assert_eq!(added.take(), ["b@0 registered"]);
    });
}

#[test]
fn an_observer_that_panics_does_not_affect_the_others() {
    let registry = Registry::with_capacity(1).unwrap();
    let id = registry.register::<u8>("a").unwrap();
    let panicking = Call(
        |_: &Registry, _: &Listing| panic!("an observer that panics at its listing"),
        |_: &Registry, _: &Event<'_>| panic!("an observer that panics at an event"),
    );
    registry.observe(panicking).detach();
    let log = Log::default();
    registry.observe(log.clone()).detach();
    let (_provider, _running) = up(&registry, id, 1);
    assert_eq!(log.take(), ["a@0 is down", "a@0 attempt started", "a@0 ready"]);
}

#[test]
fn an_observer_that_blocks_in_its_listing_delays_no_other_thread_and_misses_no_event() {
    must_finish("an observer that blocks in its listing", || {
        let registry = Registry::with_capacity(1).unwrap();
        let id = registry.register::<u8>("a").unwrap();
        let (entered, is_entered) = mpsc::channel();
        let (release, is_released) = mpsc::channel();
        let is_released = Mutex::new(is_released);
        let (log, events) = (Log::default(), Log::default());
        let blocking = {
            let (log, events) = (log.clone(), events.clone());
            Call(
                move |_: &Registry, _: &Listing| {
                    entered.send(()).unwrap();
                    is_released.lock().unwrap().recv().unwrap();
                    log.push("listed".into());
                },
                move |registry: &Registry, event: &Event<'_>| events.event(registry, event),
            )
        };
        let adder = thread::spawn({
            let registry = registry.clone();
            move || registry.observe(blocking).detach()
        });
        is_entered.recv().unwrap();
        let (provider, running) = up(&registry, id, 1);
        running.fail("over");
        let wait = registry.wait_ready(id);
        let attempt = provider.begin().wait_blocking().unwrap();
        drop(wait);
        attempt.fail("no").unwrap();
        assert_eq!(events.take(), [""; 0]);
        release.send(()).unwrap();
        adder.join().unwrap();
        assert_eq!(log.take(), ["listed"]);
        let expected = [
            "a@0 attempt started",
            "a@0 ready",
            "a@0 failed: over",
            "a@1 attempt started",
            "a@1 attempt failed: no",
        ];
        assert_eq!(events.take(), expected);
    });
}

#[cfg(feature = "test-kit")]
mod supervised {
    use std::time::Duration;

    use super::*;
    use mainstay::{
        supervise::{RestartPolicy, SupervisorState},
        test_kit::TestRuntime,
    };

    #[test]
    fn the_wait_of_a_build_has_its_duration() {
        let mut runtime = TestRuntime::new(2).unwrap();
        let [a, b] = ["a", "b"].map(|name| runtime.registry.register::<u8>(name).unwrap());
        let elapsed = Arc::new(Mutex::new(Vec::new()));
        let push = {
            let elapsed = Arc::clone(&elapsed);
            move |_: &Registry, event: &Event<'_>| {
                if let EventKind::WaitEnded { .. } = event.kind {
                    elapsed.lock().unwrap().push((event.service.to_string(), event.elapsed));
                }
            }
        };
        runtime.registry.observe(Call(|_: &Registry, _: &Listing| (), push)).detach();
        let supervisor = runtime.registry.supervise(b).unwrap();
        runtime.spawn(supervisor.run(async move |build| build.wait_for(a).await.map(|a| **a)));
        runtime.advance(Duration::from_secs(3600));
        let _a = crate::support::up(&runtime.registry, a, 1);
        runtime.run_until_idle();
        assert_eq!(*elapsed.lock().unwrap(), [("a".into(), Duration::from_secs(3600))]);
    }

    #[test]
    fn durations_are_those_of_the_clock_of_the_registry() {
        let mut runtime = TestRuntime::new(1).unwrap();
        let id = runtime.registry.register::<u8>("a").unwrap();
        let provider = runtime.registry.provide(id).unwrap();
        let elapsed = Arc::new(Mutex::new(Vec::new()));
        let push = {
            let elapsed = Arc::clone(&elapsed);
            move |_: &Registry, event: &Event<'_>| {
                elapsed.lock().unwrap().push((event.kind.to_string(), event.elapsed.as_secs()));
            }
        };
        runtime.registry.observe(Call(|_: &Registry, _: &Listing| (), push)).detach();
        let attempt = provider.begin().wait_blocking().unwrap();
        let mut next = provider.begin();
        assert!(crate::support::poll_once(&mut next).is_pending());
        let mut wait = runtime.registry.wait_ready(id);
        assert!(crate::support::poll_once(&mut wait).is_pending());
        runtime.advance(Duration::from_secs(3600));
        let running = attempt.ready(1).unwrap();
        drop(wait);
        runtime.advance(Duration::from_secs(60));
        running.fail("over");
        assert!(crate::support::poll_once(&mut next).is_ready());
        let expected = [
            ("attempt started", 0),
            ("waited for", 0),
            ("ready", 3600),
            ("no longer waited for", 3600),
            ("failed: over", 0),
            ("attempt started", 3660),
        ];
        let elapsed = elapsed.lock().unwrap();
        let elapsed: Vec<_> = elapsed.iter().map(|(kind, secs)| (&**kind, *secs)).collect();
        assert_eq!(elapsed[..6], expected);
    }

    #[test]
    fn giving_up_is_reported_after_the_status_shows_it_and_once() {
        let mut runtime = TestRuntime::new(1).unwrap();
        let id = runtime.registry.register::<u8>("a").unwrap();
        let policy = RestartPolicy::default().max_failures(0, Duration::from_secs(60));
        let supervisor = runtime.registry.supervise(id).unwrap().restart_policy(policy);
        let late = Log::default();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let check = {
            let (seen, late) = (Arc::clone(&seen), late.clone());
            move |registry: &Registry, event: &Event<'_>| {
                if let EventKind::GivenUp(_) = event.kind {
                    let status = registry.status(event.id).unwrap().supervisor.unwrap();
                    seen.lock().unwrap().push(status.state);
                    registry.observe(late.clone()).detach();
                }
            }
        };
        runtime.registry.observe(Call(|_: &Registry, _: &Listing| (), check)).detach();
        runtime.spawn(supervisor.run(|_| async { Err::<u8, _>("no") }));
        runtime.run_until_idle();
        assert_eq!(*seen.lock().unwrap(), [SupervisorState::GivenUp]);
        assert_eq!(late.take(), ["a@0 is down"]);
        let mut restart = runtime.registry.restart(id, "again");
        let _ = crate::support::poll_once(&mut restart);
        runtime.run_until_idle();
        let events = late.take();
        let given_up = events.iter().filter(|event| event.contains("given up")).count();
        assert_eq!(given_up, 1, "{events:?}");
        assert_eq!(seen.lock().unwrap().len(), 2);
    }
}
