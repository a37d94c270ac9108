//! What the observer has seen of each service, and what the supervisors should have counted.

use std::{
    collections::{BTreeSet, VecDeque},
    mem,
    sync::{Arc, Mutex},
    time::Instant,
};

use super::{Id, LIMIT, RESET_AFTER, WINDOW};
use mainstay::{
    Event, EventKind, Failure, Observer, Reason, Registry,
    error::DependencyUnavailable,
    supervise::{BodyEnd, Clock, Live},
    test_kit::VirtualClock,
};

use super::Built;

/// The body of a service.
#[derive(Default)]
pub(super) struct BodySeen {
    /// The handle of the body that runs, by which the test replaces the instance.
    pub(super) running: Option<Live<Built>>,
    /// It was notified that the service is being restarted or stopped.
    pub(super) at_turn: bool,
    /// What the last body has returned so that the instance stays ready, and its generation.
    pub(super) stays: Option<(u64, BodyEnd)>,
    pub(super) panicked: usize,
    pub(super) returned: usize,
    pub(super) restarted: usize,
    pub(super) failed: usize,
    pub(super) late: usize,
}

/// The events of one service that the observer has received.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) body: BodySeen,
    /// The instances that the last attempt has received: their generations and revisions.
    pub(super) received: Vec<(Id, u64, u64)>,
    /// The times of its own failures within the window before the last one.
    pub(super) recent: VecDeque<Instant>,
    pub(super) given_up: usize,
    given_up_at: Option<Instant>,
    /// It was given up, and neither reset nor stable since.
    pub(super) tries_once: bool,
    ready_at: Option<Instant>,
    pub(super) failed_at: Option<Instant>,
    /// It is being restarted: its failures are forgotten when it has stopped.
    pub(super) is_reset_at_its_turn: bool,
    /// The test has asked for a stop, and not for a restart or a start since.
    pub(super) to_stop: bool,
    /// This stop is over.
    pub(super) is_stopped: bool,
    pub(super) replaced: usize,
    pub(super) permanent: usize,
    pub(super) unavailable: usize,
    pub(super) excused: usize,
    pub(super) graces_expired: usize,
    pub(super) builds: usize,
    pub(super) published: usize,
    pub(super) completed: usize,
    pub(super) stops_ended: usize,
    pub(super) stops_timed_out: usize,
    pub(super) bodies_failed: usize,
    /// The calls of the close hook, and the generation and revision of the last one.
    pub(super) closes: usize,
    pub(super) closed: Option<(u64, u64)>,
    pub(super) own_failures: usize,
    pub(super) failures_of_others: usize,
}

impl Seen {
    /// Its supervisor forgets the failures.
    pub(super) fn reset(&mut self) {
        self.recent.clear();
        self.tries_once = false;
    }

    fn down(&mut self, now: Instant) {
        if self.ready_at.take().is_some_and(|ready_at| now - ready_at >= RESET_AFTER) {
            self.tries_once = false;
        }
    }

    fn failed(&mut self, failure: &Failure, now: Instant) {
        self.failed_at = Some(now);
        self.down(now);
        let text = failure.reason.to_string();
        match failure {
            _ if failure.root != failure.service => self.failures_of_others += 1,
            Failure { reason: Reason::GraceExpired { .. }, .. } => self.graces_expired += 1,
            _ if DependencyUnavailable::find(failure).is_some() => self.unavailable += 1,
            _ if text.starts_with("planned") => self.excused += 1,
            // In a planned end, a failure of the instance that is still up changes nothing.
            _ if self.body.at_turn => {}
            _ => {
                self.own_failures += 1;
                self.permanent += usize::from(text.starts_with("permanent"));
                self.recent.push_back(now);
            }
        }
    }
}

/// The name of a number, the number of one service, and the least sum.
type AtLeast = (&'static str, fn(&Seen) -> usize, usize);

/// Counts the failures that the supervisors should count.
pub(super) struct Books {
    pub(super) clock: VirtualClock,
    of: Mutex<Vec<Seen>>,
    wrong: Mutex<Option<String>>,
}

impl Books {
    pub(super) fn new(services: usize, clock: VirtualClock) -> Self {
        let of = (0..services).map(|_| Seen::default()).collect();
        Self { clock, of: Mutex::new(of), wrong: Mutex::new(None) }
    }

    pub(super) fn with<R>(&self, service: usize, use_it: impl FnOnce(&mut Seen) -> R) -> R {
        use_it(&mut self.of.lock().unwrap()[service])
    }

    /// Records what the user code of a service has found: a panic there would end only this code.
    pub(super) fn wrong(&self, what: String) {
        self.wrong.lock().unwrap().get_or_insert(what);
    }

    /// Prints what has happened, and checks that everything has happened often.
    pub(super) fn print(&self) {
        let numbers: [AtLeast; 18] = [
            ("attempts", |seen| seen.builds, 1_000),
            ("failures of their own", |seen| seen.own_failures, 1_000),
            ("failures of others", |seen| seen.failures_of_others, 1_000),
            ("planned failures", |seen| seen.excused, 100),
            ("permanent errors", |seen| seen.permanent, 50),
            ("missing dependencies", |seen| seen.unavailable, 10),
            ("expired graces", |seen| seen.graces_expired, 10),
            ("given up", |seen| seen.given_up, 1),
            ("replaced", |seen| seen.replaced, 100),
            ("completed", |seen| seen.completed, 100),
            ("turns to stop", |seen| seen.stops_ended, 1_000),
            ("late turns to stop", |seen| seen.stops_timed_out, 20),
            ("bodies that panicked", |seen| seen.body.panicked, 50),
            ("bodies that returned", |seen| seen.body.returned, 50),
            ("bodies that failed", |seen| seen.body.failed, 20),
            ("bodies that restarted their services", |seen| seen.body.restarted, 20),
            ("bodies that were late", |seen| seen.body.late, 100),
            ("bodies that failed after their notification", |seen| seen.bodies_failed, 100),
        ];
        for (what, number, least) in numbers {
            let sum: usize = self.of.lock().unwrap().iter().map(number).sum();
            println!("{sum} {what}");
            assert!(sum >= least, "too few {what}: {sum}");
        }
    }

    pub(super) fn check(&self) {
        if let Some(wrong) = self.wrong.lock().unwrap().take() {
            panic!("{wrong}");
        }
    }

    fn event_of(&self, seen: &mut Seen, event: &Event<'_>) {
        let (service, now) = (event.service, self.clock.now());
        match &event.kind {
            EventKind::Ready => {
                seen.ready_at = Some(now);
                seen.published += 1;
            }
            EventKind::Replaced => seen.replaced += 1,
            EventKind::Failed(failure)
            | EventKind::Invalidated(failure)
            | EventKind::AttemptFailed(failure) => seen.failed(failure, now),
            EventKind::Stopped(failure) => {
                // Only an attempt may end with a dependency: over a start-only edge.
                if seen.ready_at.is_some() && failure.root != failure.service {
                    self.wrong(format!("S4: {service} has ended with {}", failure.root));
                }
                seen.down(now);
            }
            EventKind::GivenUp(_) => {
                seen.given_up += 1;
                // The last failure: its body may have ended later.
                let last = seen.failed_at.unwrap_or(now);
                seen.recent.retain(|&at| last - at < WINDOW);
                let failures = seen.recent.len();
                // If it was tried once and was stable, the window may have more.
                let before = seen.given_up_at.replace(last);
                let is_again = before.is_some_and(|before| last - before < WINDOW);
                let is_right = failures == LIMIT + 1 || (is_again && failures > LIMIT);
                if !mem::replace(&mut seen.tries_once, true) && !is_right {
                    self.wrong(format!("{service} was given up after {failures} failures"));
                }
            }
            EventKind::AttemptStarted => {
                if seen.is_stopped {
                    self.wrong(format!("an attempt at {service} began, which is stopped"));
                }
                seen.builds += 1;
            }
            EventKind::Completed => seen.completed += 1,
            EventKind::BodyFailed(_) => seen.bodies_failed += 1,
            EventKind::StopEnded | EventKind::StopTimedOut => {
                match event.kind {
                    EventKind::StopEnded => seen.stops_ended += 1,
                    _ => seen.stops_timed_out += 1,
                }
                if mem::take(&mut seen.is_reset_at_its_turn) {
                    seen.reset();
                }
                seen.body.at_turn = false;
            }
            _ => {}
        }
    }
}

/// The observer.
pub(super) struct Watches(pub(super) Arc<Books>);

impl Observer for Watches {
    fn event(&self, _: &Registry, event: &Event<'_>) {
        let Ok(service) = event.service[1..].parse::<usize>() else { return };
        self.0.with(service, |seen| self.0.event_of(seen, event));
    }
}

/// The services that a restart or a stop has ended: each once.
pub(super) fn check_report(report: &mainstay::supervise::StopReport) {
    let stopped = report.stopped.iter().map(|one| &*one.service);
    let late = report.stop_timeouts.iter().map(|one| &*one.service);
    let names: BTreeSet<&str> = stopped.chain(late).collect();
    let ends = report.stopped.len() + report.stop_timeouts.len();
    assert_eq!(names.len(), ends, "each service ends once: {report}");
    for late in &report.stop_timeouts {
        let body = late.body.as_ref().map(|body| &body.end);
        assert_eq!(body, Some(&mainstay::supervise::WorkEnd::Late), "{late}");
    }
}
