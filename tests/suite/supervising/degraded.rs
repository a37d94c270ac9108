//! A body says that its instance is degraded.
//!
//! - The service stays ready. The status, its record and their lines say that it is degraded, why,
//!   and since when.
//! - It is degraded until the body clears it, or until the generation ends: by a failure, a stop,
//!   or the drop of its supervisor. A replacement keeps it.
//! - A handle of an ended publication has no effect.
//! - Each change has an event, and an observer that is added receives those that its listing does
//!   not show.

use std::{
    sync::{Arc, Mutex},
    time::SystemTime,
};

use super::runtime::{TestRuntime, exact, ms};
use mainstay::{
    Event, EventKind, Listing, ListingRecord, Observer, Registry, ServiceId, ServiceRecord,
    supervise::{Degraded, Live},
};

/// The handles of the publications, which the test uses in place of the body.
type Lives = Arc<Mutex<Vec<Live<u32>>>>;

/// A service whose body stores its handle.
fn service(runtime: &mut TestRuntime) -> (ServiceId<u32>, Lives) {
    let id = runtime.service("a");
    let lives = Lives::default();
    let supervisor = runtime.registry.supervise(id).unwrap().restart_policy(exact());
    let supervisor = supervisor.body({
        let lives = Arc::clone(&lives);
        async move |live: Live<u32>| {
            lives.lock().unwrap().push(live.clone());
            live.stopping().await.map(drop)
        }
    });
    runtime.spawn(supervisor.run(async |_| 1));
    runtime.run_until_idle();
    runtime.recorder.take();
    (id, lives)
}

fn last(lives: &Lives) -> Live<u32> {
    lives.lock().unwrap().last().unwrap().clone()
}

fn degraded(runtime: &TestRuntime, id: ServiceId<u32>) -> Option<Degraded> {
    runtime.supervisor_status(id).degraded
}

fn why(runtime: &TestRuntime, id: ServiceId<u32>) -> Option<String> {
    degraded(runtime, id).map(|degraded| degraded.why)
}

#[test]
fn the_service_is_ready_and_its_status_says_since_when_and_why_it_is_degraded() {
    let mut runtime = TestRuntime::new();
    let (id, lives) = service(&mut runtime);
    let live = last(&lives);
    assert_eq!(why(&runtime, id), None);
    let before = SystemTime::now();
    live.set_degraded("1 of 3 replicas is down");
    let after = SystemTime::now();

    let status = runtime.registry.status(id).unwrap();
    assert_eq!(runtime.get(id), Some(1));
    assert!(status.not_ready.is_none());
    let since = degraded(&runtime, id).unwrap().since;
    assert!((before..=after).contains(&since));
    assert_eq!(status.to_string(), "a: ready, degraded: 1 of 3 replicas is down");
    let supervisor = status.supervisor.as_ref().unwrap();
    assert_eq!(supervisor.to_string(), "up, degraded: 1 of 3 replicas is down");
    let record = ServiceRecord::from(&status);
    assert_eq!(record.to_string(), status.to_string());
    assert_eq!(record.supervisor.unwrap().degraded, supervisor.degraded);

    // The same reason changes nothing, and another one keeps the time.
    live.set_degraded("1 of 3 replicas is down");
    live.set_degraded("2 of 3 replicas are down");
    assert_eq!(why(&runtime, id).as_deref(), Some("2 of 3 replicas are down"));
    assert_eq!(degraded(&runtime, id).unwrap().since, since);
    // So does a replacement.
    live.replace(2).unwrap();
    assert_eq!(degraded(&runtime, id).unwrap().since, since);

    live.clear_degraded();
    live.clear_degraded();
    assert_eq!(why(&runtime, id), None);
    assert_eq!(runtime.registry.status(id).unwrap().to_string(), "a: ready");
    let events = [
        "a 0: degraded: 1 of 3 replicas is down",
        "a 0: degraded: 2 of 3 replicas are down",
        "a 0: replaced",
        "a 0: no longer degraded",
    ];
    assert_eq!(runtime.recorder.take(), events);
    assert_eq!(runtime.supervisor_status(id).failures, 0);
}

#[test]
fn it_ends_with_the_generation_before_the_supervisor_is_polled() {
    let mut runtime = TestRuntime::new();
    let (id, lives) = service(&mut runtime);
    let first = last(&lives);
    first.set_degraded("slow");
    runtime.registry.fail(id, "lost").unwrap();
    assert_eq!(why(&runtime, id), None, "the instance is down");
    assert!(!runtime.registry.status(id).unwrap().to_string().contains("degraded"));
    // The handle of an ended publication has no effect, also while the next instance is up.
    first.set_degraded("too late");
    first.clear_degraded();
    runtime.advance(ms(100));
    let second = last(&lives);
    assert!(second.generation() > first.generation());
    assert_eq!(why(&runtime, id), None);
    second.set_degraded("slow again");
    first.set_degraded("too late");
    first.clear_degraded();
    assert_eq!(why(&runtime, id).as_deref(), Some("slow again"));
    let events = runtime.recorder.take();
    let of_degraded: Vec<_> = events.iter().filter(|line| line.contains("degraded")).collect();
    assert_eq!(of_degraded, ["a 0: degraded: slow", "a 1: degraded: slow again"]);

    // A stop, with a start after it.
    let mut stop = runtime.registry.stop(id);
    let _ = crate::support::poll_once(&mut stop);
    assert_eq!(why(&runtime, id).as_deref(), Some("slow again"), "it can be read until it is down");
    runtime.run_until_idle();
    assert_eq!(why(&runtime, id), None);
    runtime.registry.start(id).unwrap();
    runtime.run_until_idle();
    assert_eq!((runtime.get(id), why(&runtime, id)), (Some(1), None));

    // The drop of the supervisor.
    let third = last(&lives);
    third.set_degraded("slow");
    runtime.tasks.clear();
    assert!(runtime.registry.status(id).unwrap().supervisor.is_none());
    third.set_degraded("too late");
    assert!(!runtime.recorder.take().iter().any(|line| line.contains("too late")));
}

#[cfg(feature = "serde")]
#[test]
fn a_record_is_equal_after_it_was_written_and_read_back() {
    let mut runtime = TestRuntime::new();
    let (_, lives) = service(&mut runtime);
    last(&lives).set_degraded("slow");
    let listing = runtime.registry.list();
    let json = serde_json::to_string(&listing).unwrap();
    let record: ListingRecord = serde_json::from_str(&json).unwrap();
    assert_eq!(record, ListingRecord::from(&listing));
    assert_eq!(record.to_string(), "a: ready, degraded: slow");
    // An older program has written no such field.
    let mut older: serde_json::Value = serde_json::from_str(&json).unwrap();
    older["services"][0]["supervisor"].as_object_mut().unwrap().remove("degraded").unwrap();
    let record: ListingRecord = serde_json::from_value(older).unwrap();
    assert_eq!(record.to_string(), "a: ready");
}

/// Stores events and the degraded services of its listing. Adds another observer at each event of a
/// degradation.
#[derive(Clone, Default)]
struct Log {
    lines: Arc<Mutex<Vec<String>>>,
    late: Option<Arc<Mutex<Vec<Log>>>>,
}

impl Observer for Log {
    fn event(&self, registry: &Registry, event: &Event<'_>) {
        if let EventKind::Degraded { .. } | EventKind::NotDegraded = event.kind {
            self.lines.lock().unwrap().push(event.kind.to_string());
            if let Some(late) = &self.late {
                let log = Log::default();
                registry.observe(log.clone()).detach();
                late.lock().unwrap().push(log);
            }
        }
    }

    fn listing(&self, _: &Registry, listing: &Listing) {
        self.lines.lock().unwrap().push(listing.services[0].to_string());
    }
}

#[test]
fn an_observer_receives_the_changes_that_its_listing_does_not_show() {
    let mut runtime = TestRuntime::new();
    let (_, lives) = service(&mut runtime);
    let live = last(&lives);
    let late = Arc::new(Mutex::new(Vec::new()));
    let first = Log { late: Some(Arc::clone(&late)), ..Log::default() };
    runtime.registry.observe(first.clone()).detach();
    live.set_degraded("slow");
    live.clear_degraded();
    let lines = |log: &Log| log.lines.lock().unwrap().clone();
    assert_eq!(lines(&first), ["a: ready", "degraded: slow", "no longer degraded"]);
    let late = late.lock().unwrap();
    // The status shows a change before its event.
    assert_eq!(lines(&late[0]), ["a: ready, degraded: slow", "no longer degraded"]);
    assert_eq!(lines(&late[1]), ["a: ready"]);
}

/// Changes the degradation while its listing is passed on: such an event is kept.
struct ChangesInListing {
    live: Live<u32>,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Observer for ChangesInListing {
    fn event(&self, _: &Registry, event: &Event<'_>) {
        self.lines.lock().unwrap().push(event.kind.to_string());
    }

    fn listing(&self, _: &Registry, listing: &Listing) {
        self.lines.lock().unwrap().push(listing.services[0].to_string());
        self.live.set_degraded("slow");
        self.live.clear_degraded();
    }
}

#[test]
fn a_change_during_the_listing_is_kept_and_passed_on_after_it() {
    let mut runtime = TestRuntime::new();
    let (_, lives) = service(&mut runtime);
    let lines = Arc::default();
    let observer = ChangesInListing { live: last(&lives), lines: Arc::clone(&lines) };
    runtime.registry.observe(observer).detach();
    assert_eq!(*lines.lock().unwrap(), ["a: ready", "degraded: slow", "no longer degraded"]);
}
