//! An observer that is added to a running registry receives a listing, and then every event that
//! happens to a service after the listing has read it.
//!
//! ```text
//! observe:     count the observer | read the service, twice | call `listing` | pass what was kept
//! operation:                             transition | observed? pass the event on
//! ```
//!
//! What must not happen: an event is missing, or arrives although the listing shows it. So what the
//! listing shows must be one point of the sequence of states and events, and the events that arrive
//! must be the rest of the sequence. Each model names the whole sequence.
#![cfg(loom)]

use std::sync::{Arc, Mutex};

use loom::thread::spawn;
use mainstay::{Event, Listing, Observer, ObserverHandle, Registry, ServiceStatus, error::chain};
use mainstay_loom_tests::{join, model, now_or_never, services};

/// What an observer has received of each service. Its mutex is of std: it is no step of the model.
#[derive(Clone, Default)]
struct Record(Arc<Mutex<Vec<Received>>>);

#[derive(Default, Debug)]
struct Received {
    /// The phase, the generation, the number of replacements, and the last failure.
    listed: String,
    /// The kind of each event, and its generation.
    events: Vec<String>,
}

impl Observer for Record {
    fn event(&self, _: &Registry, event: &Event<'_>) {
        let service: usize = event.service.parse().unwrap();
        let line = format!("{} @{}", event.kind, event.generation);
        self.0.lock().unwrap()[service].events.push(line);
    }

    fn listing(&self, _: &Registry, listing: &Listing) {
        let received = listing.services.iter().map(|service| {
            let failure =
                service.last_failure.as_ref().map(|failure| format!(", {}", chain(failure)));
            let ServiceStatus { phase, generation, revision, .. } = service;
            let listed = format!("{phase} @{generation}.{revision}{}", failure.unwrap_or_default());
            Received { listed, events: Vec::new() }
        });
        *self.0.lock().unwrap() = received.collect();
    }
}

impl Record {
    /// Asserts that the listing is one of the states in `sequence` (states and events, in turn),
    /// and that the events are those that follow it.
    fn assert_continues(&self, service: usize, sequence: &[&str]) {
        let received = &self.0.lock().unwrap()[service];
        let is_rest = |at: usize| {
            let events = sequence[at..].iter().skip(1).step_by(2);
            sequence[at] == received.listed && received.events.iter().eq(events)
        };
        let mut states = (0..sequence.len()).step_by(2);
        assert!(states.any(is_rest), "lost, or doubled: {received:?} is no end of {sequence:?}");
    }
}

/// Adds an observer on a thread of its own.
fn observe(registry: &Registry, record: &Record) -> loom::thread::JoinHandle<ObserverHandle> {
    let (registry, record) = (registry.clone(), record.clone());
    spawn(move || registry.observe(record))
}

/// Preemption bound: 3.
#[test]
fn a_publication_is_listed_or_reported() {
    model("a publication is listed or reported", Some(3), || {
        let (registry, _, [provider]) = services(&[]);
        let record = Record::default();
        let observer = observe(&registry, &record);
        let operator = spawn(move || (provider.start(&[]), provider));
        let handle = join(observer);
        let returned = join(operator);
        record.assert_continues(
            0,
            &["down @0.0", "attempt started @0", "starting @0.0", "ready @0", "ready @0.0"],
        );
        drop((handle, returned));
    });
}

/// Preemption bound: 3.
#[test]
fn a_replacement_and_a_failure_are_listed_or_reported() {
    model("a replacement and a failure are listed or reported", Some(3), || {
        let (registry, _, [provider]) = services(&[]);
        let running = provider.start(&[]);
        let record = Record::default();
        let observer = observe(&registry, &record);
        let operator = spawn(move || {
            running.replace(mainstay_loom_tests::Value::new(1)).expect("it is ready");
            running.fail("over");
        });
        let handle = join(observer);
        join(operator);
        record.assert_continues(
            0,
            &[
                "ready @0.0",
                "replaced @0",
                "ready @0.1",
                "failed: over @0",
                "down @1.0, 0 failed: over",
            ],
        );
        drop((handle, provider));
    });
}

/// The next attempt has the generation of the failed one, which the listing may show. (Preemption
/// bound: 3.)
#[test]
fn an_attempt_that_follows_a_failed_one_is_listed_or_reported() {
    model("an attempt that follows a failed one is listed or reported", Some(3), || {
        let (registry, _, [provider]) = services(&[]);
        let attempt = provider.attempt();
        let record = Record::default();
        let observer = observe(&registry, &record);
        let operator = spawn(move || {
            attempt.fail("no").expect("nothing else fails it");
            (provider.attempt(), provider)
        });
        let handle = join(observer);
        let returned = join(operator);
        record.assert_continues(
            0,
            &[
                "starting @0.0",
                "attempt failed: no @0",
                "down @0.0, 0 failed: no",
                "attempt started @0",
                "starting @0.0, 0 failed: no",
            ],
        );
        drop((handle, returned));
    });
}

/// The next attempt begins on another thread than the one on which the first one fails.
/// (Preemption bound: 1.)
#[test]
fn an_attempt_that_begins_while_another_one_fails_is_listed_or_reported() {
    model("an attempt that begins while another one fails is listed or reported", Some(1), || {
        let (registry, _, [provider]) = services(&[]);
        let attempt = provider.attempt();
        let record = Record::default();
        let observer = observe(&registry, &record);
        let failer = spawn(move || attempt.fail("no").expect("nothing else fails it"));
        let beginner = spawn(move || (now_or_never(provider.begin()), provider));
        let handle = join(observer);
        join(failer);
        let returned = join(beginner);
        let has_begun = returned.0.is_some();
        // The two threads may report their events in either order.
        if has_begun {
            record.0.lock().unwrap()[0].events.sort_unstable();
        }
        let sequence = [
            "starting @0.0",
            "attempt failed: no @0",
            "down @0.0, 0 failed: no",
            "attempt started @0",
            "starting @0.0, 0 failed: no",
        ];
        record.assert_continues(0, if has_begun { &sequence } else { &sequence[..3] });
        drop((handle, returned));
    });
}

/// An instance and an attempt depend on the root. (Preemption bound: 2.)
#[test]
fn a_cascade_is_listed_or_reported() {
    model("a cascade is listed or reported", Some(2), || {
        let (registry, [x, _, _], [x_provider, d_provider, e_provider]) =
            services(&[(1, 0), (2, 0)]);
        let running = (x_provider.start(&[]), d_provider.start(&[x]));
        let attempt = e_provider.attempt();
        let record = Record::default();
        let observer = observe(&registry, &record);
        let operator = spawn({
            let registry = registry.clone();
            move || registry.fail(x, "out").map(drop).unwrap()
        });
        let handle = join(observer);
        join(operator);
        record.assert_continues(0, &["ready @0.0", "failed: out @0", "down @1.0, 0 failed: out"]);
        record.assert_continues(
            1,
            &[
                "ready @0.0",
                "failed because 0 failed: out @0",
                "down @1.0, 1 failed because 0 failed: out",
            ],
        );
        record.assert_continues(
            2,
            &[
                "starting @0.0",
                "invalidated because 0 failed: out @0",
                "down @1.0, 2 failed because 0 failed: out",
            ],
        );
        drop((handle, running, attempt));
    });
}
