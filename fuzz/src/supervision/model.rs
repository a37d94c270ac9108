//! The model of supervised services: a plain simulation of the documentation, in virtual time.

mod reloads;

use std::{
    collections::{BTreeSet, VecDeque},
    mem,
};

use mainstay::{Phase, supervise::SupervisorState};

use super::op::{Kind, Outcome};
use crate::plan::{End, EndKind, Host, Plan, Ticket};

pub(super) use self::reloads::Parts;

/// A time in nanoseconds since the begin.
pub(super) type Time = u64;

pub(super) const fn ms(ms: u64) -> Time {
    ms * 1_000_000
}

const FIRST_BACKOFF: Time = ms(100);
pub(super) const MAX_BACKOFF: Time = ms(1_000);
pub(super) const RESET_AFTER: Time = ms(5_000);
const STOP_TIMEOUT: Time = ms(113);
/// The failures that a service may have.
pub(super) const LIMIT: u32 = 4;

/// What a failure means for its service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    Failed,
    Permanent,
    Planned,
    /// It is of another service, or of a planned end.
    Excused,
}

#[derive(Debug)]
pub(super) struct Service {
    pub(super) dependencies: Vec<usize>,
    pub(super) kind: Kind,
    /// The instances that it has adopted: dependency, generation and revision.
    pub(super) adopted: Vec<(usize, u64, u64)>,
    /// How long its body takes to return after it was notified, if there is a body.
    pub(super) body: Option<Time>,
    pub(super) stop_timeout: Time,
    pub(super) first_backoff: Time,
    pub(super) generation: u64,
    /// How often a reload has replaced the instance.
    pub(super) revision: u64,
    pub(super) phase: Phase,
    activity: Activity,
    pub(super) body_runs: bool,
    /// The wait for a retry, which a planned end may interrupt.
    delay: Option<Delay>,
    /// What the last attempt was given of each dependency: a generation and a revision, or nothing.
    given: Vec<Option<(u64, u64)>>,
    pub(super) outcomes: VecDeque<Outcome>,
    count: u32,
    in_window: u32,
    tries_once: bool,
    up_since: Option<Time>,
    /// The time of the build that has followed the last planned failure.
    planned_at: Option<Time>,
    reset_requested: bool,
    /// How often it builds again at once in the present poll.
    rebuilds: u32,
    /// The number of failures that the status shows.
    pub(super) shown: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Activity {
    /// It is down, and no attempt is in progress.
    Nothing,
    /// It waits for this dependency.
    Building(usize),
    Up,
    Completed,
    /// Its body was notified. After a failure: what it means, and its time.
    Ending {
        until: Time,
        failed: Option<(Meaning, Time)>,
    },
}

#[derive(Debug, Clone, Copy)]
struct Delay {
    until: Until,
    since: Time,
}

#[derive(Debug, Clone, Copy)]
enum Until {
    Passed(Time),
    Changed,
    Reset,
}

impl Service {
    /// `offset` makes the times of this service different from those of all others. Otherwise two
    /// of them could end at the same time, and the order of their polls would be visible.
    pub(super) fn new(
        dependencies: Vec<usize>,
        kind: Kind,
        body: Option<Time>,
        offset: Time,
    ) -> Self {
        Self {
            stop_timeout: STOP_TIMEOUT + offset,
            first_backoff: FIRST_BACKOFF + offset,
            given: vec![None; dependencies.len()],
            dependencies,
            kind,
            adopted: Vec::new(),
            body: body.map(|takes| if takes > 0 { takes + offset } else { 0 }),
            generation: 0,
            revision: 0,
            phase: Phase::Down,
            activity: Activity::Nothing,
            body_runs: false,
            delay: None,
            outcomes: VecDeque::new(),
            count: 0,
            in_window: 0,
            tries_once: false,
            up_since: None,
            planned_at: None,
            reset_requested: false,
            rebuilds: 0,
            shown: 0,
        }
    }

    fn reset_if_requested(&mut self) -> bool {
        let resets = mem::take(&mut self.reset_requested);
        if resets {
            (self.count, self.in_window, self.tries_once) = (0, 0, false);
        }
        resets
    }

    /// Returns whether the instance was stable.
    fn down(&mut self, now: Time) -> bool {
        let stable = self.up_since.take().is_some_and(|since| now - since >= RESET_AFTER);
        if stable {
            (self.count, self.tries_once) = (0, false);
        }
        stable
    }

    /// S1, and the verdicts.
    fn failed(&mut self, meaning: Meaning, since: Time) {
        self.activity = Activity::Nothing;
        self.reset_if_requested();
        self.delay_after(meaning, since);
        self.rebuilds += u32::from(self.delay.is_none());
    }

    fn delay_after(&mut self, meaning: Meaning, since: Time) {
        let was_stable = self.down(since);
        match meaning {
            Meaning::Excused => return,
            Meaning::Planned => return self.failed_as_planned(since),
            Meaning::Failed | Meaning::Permanent => {}
        }
        self.in_window += 1;
        let until = if self.in_window > LIMIT || self.tries_once {
            Until::Reset
        } else {
            self.count += u32::from(!was_stable);
            let backoff = self.first_backoff << (self.count.max(1) - 1);
            match meaning {
                Meaning::Permanent => Until::Changed,
                _ if was_stable => return,
                _ => Until::Passed(backoff.min(MAX_BACKOFF)),
            }
        };
        self.shown = self.count;
        self.delay = Some(Delay { until, since });
    }
}

impl Service {
    /// It is built at once, but only once per first backoff.
    fn failed_as_planned(&mut self, since: Time) {
        let next = self.planned_at.map_or(0, |last| last + self.first_backoff).max(since);
        self.planned_at = Some(next);
        if next > since {
            self.shown = self.count;
            self.delay = Some(Delay { until: Until::Passed(next - since), since });
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) services: Vec<Service>,
    pub(super) plan: Plan,
    pub(super) now: Time,
}

impl Host for Model {
    fn hard_dependents(&self, service: usize) -> Vec<usize> {
        let depends = |other: &usize| self.services[*other].dependencies.contains(&service);
        (0..self.services.len()).filter(depends).collect()
    }

    fn begin_turn(&mut self, service: usize, _: &End) -> bool {
        let mut dependents = self.hard_dependents(service).into_iter();
        let is_down = dependents.all(|other| self.services[other].phase == Phase::Down);
        assert!(is_down, "S4: the turn of {service} comes after its dependents");
        let now = self.now;
        let subject = &mut self.services[service];
        match subject.activity {
            // It ends when its supervisor is polled.
            Activity::Nothing => {}
            Activity::Building(_) => {
                subject.activity = Activity::Nothing;
                self.take_down(service, Meaning::Excused);
            }
            // The body of an instance that has failed.
            Activity::Ending { .. } => {}
            Activity::Up | Activity::Completed => subject.notify(now, None),
        }
        false
    }

    fn turn_ended(&mut self, service: usize) {
        // It is down, and so are the attempts that have begun since its turn and wait for it.
        self.take_down(service, Meaning::Excused);
    }

    fn released(&mut self, service: usize, resets: bool) {
        let subject = &mut self.services[service];
        subject.reset_requested |= resets;
        if resets {
            subject.shown = 0;
        }
    }
}

impl Service {
    /// The instance ends. Its body returns later, if there is one.
    fn notify(&mut self, now: Time, failed: Option<(Meaning, Time)>) {
        let takes = self.body.filter(|_| self.body_runs).unwrap_or(0);
        self.activity = Activity::Ending { until: now + takes.min(self.stop_timeout), failed };
    }
}

impl Model {
    /// Begins a restart or a stop.
    pub(super) fn end_as_planned(
        &mut self,
        root: usize,
        kind: EndKind,
        subtree: bool,
        ticket: Ticket,
    ) {
        let mut plan = mem::take(&mut self.plan);
        plan.begin(self, root, &End::new(kind, "", ""), subtree, ticket);
        self.plan = plan;
        self.run_until_idle();
    }

    pub(super) fn start(&mut self, service: usize) -> bool {
        let mut plan = mem::take(&mut self.plan);
        let was_stopped = plan.start(self, service);
        self.plan = plan;
        self.run_until_idle();
        was_stopped
    }

    /// A service fails, with all its dependents that are not down.
    pub(super) fn fail(&mut self, root: usize, meaning: Meaning) {
        self.take_down(root, meaning);
        self.run_until_idle();
    }

    fn take_down(&mut self, root: usize, meaning: Meaning) {
        let mut to_visit = vec![root];
        let mut found = BTreeSet::from([root]);
        while let Some(member) = to_visit.pop() {
            to_visit
                .extend(self.hard_dependents(member).into_iter().filter(|&it| found.insert(it)));
        }
        let now = self.now;
        for member in found {
            let meaning = if member == root { meaning } else { Meaning::Excused };
            let subject = &mut self.services[member];
            if subject.phase == Phase::Down {
                continue;
            }
            (subject.phase, subject.generation) = (Phase::Down, subject.generation + 1);
            match subject.activity {
                Activity::Building(_) => subject.failed(meaning, now),
                Activity::Up | Activity::Completed => subject.notify(now, Some((meaning, now))),
                // Its turn to stop has come already.
                Activity::Ending { .. } | Activity::Nothing => {}
            }
        }
    }

    /// A body returns that was not notified, with a reason to fail or to stay ready.
    pub(super) fn end_body(&mut self, service: usize, end: super::op::BodyEnd) {
        use super::op::BodyEnd;
        let subject = &mut self.services[service];
        subject.body_runs = false;
        match end {
            BodyEnd::Fails => self.fail(service, Meaning::Failed),
            BodyEnd::FailsPermanently => self.fail(service, Meaning::Permanent),
            BodyEnd::Completes => subject.activity = Activity::Completed,
            BodyEnd::StaysReady => {}
        }
    }

    /// Lets time pass.
    pub(super) fn advance(&mut self, time: Time) {
        let end = self.now + time;
        while let Some(next) = self.next_time().filter(|&next| next <= end) {
            self.now = next;
            self.run_until_idle();
        }
        self.now = end;
    }

    fn next_time(&self) -> Option<Time> {
        let times = self.services.iter().flat_map(|service| {
            let ending = match service.activity {
                Activity::Ending { until, .. } => Some(until),
                _ => None,
            };
            let passed = service.delay.and_then(|delay| match delay.until {
                Until::Passed(backoff) => Some(delay.since + backoff),
                _ => None,
            });
            let change = service.delay.map(|delay| delay.since + service.first_backoff);
            [ending, passed, change].into_iter().flatten()
        });
        times.filter(|&time| time > self.now).min()
    }

    /// Executes everything that can be executed at this time. A service that builds at once for the
    /// second time in one poll lets the others continue first.
    pub(super) fn run_until_idle(&mut self) {
        // In the order in which the runtime polls the supervisors: each as far as it can continue.
        loop {
            let mut has_moved = false;
            for service in 0..self.services.len() {
                while self.services[service].rebuilds < 2 && self.step(service) {
                    has_moved = true;
                }
                has_moved |= mem::take(&mut self.services[service].rebuilds) >= 2;
            }
            if !has_moved {
                return;
            }
        }
    }

    /// Returns whether something was done.
    fn step(&mut self, service: usize) -> bool {
        let activity = self.services[service].activity;
        match activity {
            Activity::Ending { until, failed } if until <= self.now => {
                self.ended(service, failed);
                true
            }
            Activity::Nothing if self.plan.is_stopping(service) => {
                self.end_turn(service);
                true
            }
            Activity::Nothing if !self.plan.is_marked(service) && self.delay_is_over(service) => {
                let current: Vec<_> = self.available_dependencies(service);
                let subject = &mut self.services[service];
                (subject.delay, subject.given) = (None, current);
                (subject.phase, subject.activity) = (Phase::Starting, Activity::Building(0));
                subject.shown = if subject.reset_requested { 0 } else { subject.count };
                true
            }
            Activity::Building(next) => self.build(service, next),
            _ => false,
        }
    }

    /// The body has returned.
    fn ended(&mut self, service: usize, failed: Option<(Meaning, Time)>) {
        let now = self.now;
        let subject = &mut self.services[service];
        subject.body_runs = false;
        match failed {
            Some((meaning, since)) => subject.failed(meaning, since),
            None => {
                subject.activity = Activity::Nothing;
                subject.down(now);
            }
        }
        if self.plan.is_stopping(service) {
            self.end_turn(service);
        }
    }

    fn end_turn(&mut self, service: usize) {
        self.services[service].rebuilds = 0;
        let mut plan = mem::take(&mut self.plan);
        plan.end_turn(self, service);
        plan.advance(self);
        self.plan = plan;
    }

    /// Returns the generations and revisions of the instances that an attempt could get.
    fn available_dependencies(&self, service: usize) -> Vec<Option<(u64, u64)>> {
        let dependencies = self.services[service].dependencies.iter();
        dependencies.map(|&dependency| self.available(dependency)).collect()
    }

    fn available(&self, service: usize) -> Option<(u64, u64)> {
        let Service { phase, generation, revision, .. } = self.services[service];
        (phase == Phase::Ready && !self.plan.is_marked(service)).then_some((generation, revision))
    }

    /// Returns whether a retry may begin.
    fn delay_is_over(&mut self, service: usize) -> bool {
        let Some(Delay { until, since }) = self.services[service].delay else { return true };
        let first = self.services[service].first_backoff;
        let has_changed = self.now >= since + first
            && self.available_dependencies(service) != self.services[service].given;
        let subject = &mut self.services[service];
        if subject.reset_if_requested() {
            return true;
        }
        match until {
            Until::Passed(backoff) => {
                self.now >= since + backoff || (backoff > first && has_changed)
            }
            Until::Changed => has_changed,
            Until::Reset => {
                subject.tries_once |= has_changed;
                has_changed
            }
        }
    }

    /// Continues a build that waits for its dependency number `next`.
    fn build(&mut self, service: usize, next: usize) -> bool {
        let now = self.now;
        if let Some(&dependency) = self.services[service].dependencies.get(next) {
            let available = self.available(dependency);
            let subject = &mut self.services[service];
            subject.given[next] = available;
            if available.is_some() {
                subject.activity = Activity::Building(next + 1);
            }
            return available.is_some();
        }
        let subject = &mut self.services[service];
        let meaning = match subject.outcomes.pop_front() {
            None => {
                subject.reset_if_requested();
                subject.up_since = Some(now);
                (subject.phase, subject.activity) = (Phase::Ready, Activity::Up);
                subject.revision = 0;
                (subject.body_runs, subject.shown) = (subject.body.is_some(), subject.count);
                return true;
            }
            Some(Outcome::Fail) => Meaning::Failed,
            Some(Outcome::FailPermanently) => Meaning::Permanent,
            Some(Outcome::FailAsPlanned) => Meaning::Planned,
        };
        subject.phase = Phase::Down;
        subject.failed(meaning, now);
        true
    }

    /// Returns the state that the status of the supervisor shows.
    pub(super) fn state(&self, service: usize) -> SupervisorState {
        let Service { activity, delay, .. } = &self.services[service];
        match (activity, delay) {
            (Activity::Ending { .. }, _) => SupervisorState::Stopping,
            (Activity::Up, _) => SupervisorState::Up,
            (Activity::Completed, _) => SupervisorState::Completed,
            (Activity::Building(_), _) => SupervisorState::Building,
            (Activity::Nothing, _) if self.plan.is_marked(service) => SupervisorState::Stopped,
            (Activity::Nothing, Some(Delay { until: Until::Passed(_), .. })) => {
                SupervisorState::BackingOff
            }
            (Activity::Nothing, Some(Delay { until: Until::Changed, .. })) => {
                SupervisorState::Permanent
            }
            (Activity::Nothing, Some(Delay { until: Until::Reset, .. })) => {
                SupervisorState::GivenUp
            }
            (Activity::Nothing, None) => panic!("{service} can continue"),
        }
    }
}
