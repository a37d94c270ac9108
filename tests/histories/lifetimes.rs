//! Every value has a lifetime, and every read has to fit into those of what it gave.
//!
//! A value is current for one stretch of time at the most. From the records it can be said where that lies:
//!
//! - not before its publication was called;
//! - not after anybody had returned who knew that it was over. That is whoever met its service in a later
//!   generation, or a value that replaced it; whoever met a service that it **rests on**, over whatever way, in a
//!   later generation than it rests on (**I1**); and a `fail` of its service, or of one that it rests on, that was
//!   called when the value had been current already.
//!
//! So it was current at no time outside these two, and an operation that says that several values were all
//! current at one instant of it is wrong if there is no instant within its own bounds and all of theirs. That is
//! what `get_all` says; `get` in all its forms, `wait_ready` and `wait_for` say it of one value, and so does a `ready` or
//! `replace` that was accepted, of the value that it published; and a watch that has nothing to tell, of the value that it
//! told of last. What was refused is current at no time.
//!
//! What a value was only **started with** is over no earlier than its publication is called, in the same sense, and is
//! nothing to it afterwards.
//!
//! **Nothing fails for nothing.** Where a generation that was published is known to be over, somebody has called `fail` or
//! the like before, of its service or of one that its value rests on, and had not returned when the publication was
//! called. Of any other service it may be, too, that the one or the other was built from once, or started with: if
//! its publication, or that of what it rests on, had not returned by then.
//!
//! *No false alarm*: every bound follows from the documented guarantees and from one operation that had ended
//! before another began. Nothing is concluded from a failure that is under way, from an answer that says that
//! somebody else is on it, or from two operations that overlap.
//!
//! *Time*: everything is sorted once, and looked up by bisection.

use std::{collections::HashMap, fmt};

use super::record::{Bounds, Recorded, Table};

/// The most services of a history.
pub(crate) const SERVICES: usize = 5;

/// What is published: who it is, and the generation of each service that it rests on, over whatever way; the
/// earliest, if there are several.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Value {
    /// No other value has it.
    pub(crate) mark: u64,
    pub(crate) service: usize,
    pub(crate) generation: u64,
    /// Counts the replacements within a generation.
    pub(crate) version: u64,
    pub(crate) on: [Option<u64>; SERVICES],
    /// The same of what it was started with.
    pub(crate) started_with: [Option<u64>; SERVICES],
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Event {
    Published(Value),
    /// By `ready` or `replace`, since its generation was over.
    Refused(Value),
    /// The marks of values, all of one instant.
    Read([Option<u64>; 3]),
    /// The service was in this generation, or in a later one.
    Met {
        service: usize,
        generation: u64,
    },
    /// `fail` or a report that was the first has returned.
    Failed {
        service: usize,
    },
    /// Something has returned that may have failed it, and does not say that it is done.
    MayHaveFailed {
        service: usize,
    },
}

impl Event {
    /// The marks of the values that it says were current.
    fn current(&self) -> impl Iterator<Item = u64> {
        let marks = match *self {
            Self::Read(marks) => marks,
            Self::Published(value) => [Some(value.mark), None, None],
            _ => [None; 3],
        };
        marks.into_iter().flatten()
    }
}

/// When a thing was first known, for things that have an order.
struct Earliest<K> {
    /// By key; each with the earliest time from there to the end.
    sorted: Vec<(K, u64)>,
}

impl<K: Ord + Copy> Earliest<K> {
    fn new(mut known: Vec<(K, u64)>) -> Self {
        known.sort_unstable();
        let mut earliest = u64::MAX;
        for (_, at) in known.iter_mut().rev() {
            earliest = earliest.min(*at);
            *at = earliest;
        }
        Self { sorted: known }
    }

    /// When something beyond `key` was first known.
    fn beyond(&self, key: K) -> Option<u64> {
        self.first_not(|known| known <= key)
    }

    /// The same, where `key` itself counts.
    fn from(&self, key: K) -> Option<u64> {
        self.first_not(|known| known < key)
    }

    fn first_not(&self, is_before: impl Fn(K) -> bool) -> Option<u64> {
        let index = self.sorted.partition_point(|&(known, _)| is_before(known));
        self.sorted.get(index).map(|&(_, at)| at)
    }
}

/// What the records say of one service.
struct Known {
    /// When it was known to be in a generation, and at which of its values.
    met: Earliest<(u64, u64)>,
    /// When a failure had returned, by when it was called.
    failed: Earliest<u64>,
    /// When what may have failed it was called, by when it had returned.
    blamed: Earliest<u64>,
}

/// How the end of a value is known.
#[derive(Debug)]
enum End {
    Followed,
    SeenToFail { service: usize },
    FailReturned { service: usize },
}

struct Lifetimes {
    /// The values that were accepted, by their marks, and when they were published.
    published: HashMap<u64, (Value, Bounds)>,
    /// When each generation of a service had been ready, by the first who knew.
    existed: HashMap<(usize, u64), u64>,
    /// When the publication of each had returned.
    settled: HashMap<(usize, u64), u64>,
    services: Vec<Known>,
}

impl Lifetimes {
    fn of(history: &[Recorded<Event>]) -> Self {
        let (mut published, mut settled) = (HashMap::new(), HashMap::new());
        for Recorded { what, bounds, .. } in history {
            if let Event::Published(value) = *what {
                published.insert(value.mark, (value, *bounds));
                if value.version == 0 {
                    settled.insert((value.service, value.generation), bounds.answered);
                }
            }
        }
        let mut existed = HashMap::new();
        let mut met = [const { vec![] }; SERVICES];
        let mut failed = [const { vec![] }; SERVICES];
        let mut blamed = [const { vec![] }; SERVICES];
        for Recorded { what, bounds: Bounds { invoked, answered }, .. } in history {
            for mark in what.current() {
                let Some((value, _)) = published.get(&mark) else { continue };
                let first = existed.entry((value.service, value.generation)).or_insert(*answered);
                *first = *answered.min(first);
                met[value.service].push(((value.generation, value.version), *answered));
                for (on, generation) in value.rests_on() {
                    met[on].push(((generation, 0), *answered));
                }
            }
            match *what {
                Event::Refused(Value { service, generation, .. }) => {
                    met[service].push(((generation + 1, 0), *answered));
                }
                Event::Met { service, generation } => {
                    met[service].push(((generation, 0), *answered));
                }
                Event::Failed { service } => {
                    failed[service].push((*invoked, *answered));
                    blamed[service].push((*answered, *invoked));
                }
                Event::MayHaveFailed { service } => blamed[service].push((*answered, *invoked)),
                Event::Published(_) | Event::Read(_) => {}
            }
        }
        let known = met.into_iter().zip(failed).zip(blamed).map(|((met, failed), blamed)| Known {
            met: Earliest::new(met),
            failed: Earliest::new(failed),
            blamed: Earliest::new(blamed),
        });
        Self { published, existed, settled, services: known.collect() }
    }

    /// When it was known that the value is not current any more, and how.
    fn end(&self, value: &Value) -> Option<(u64, End)> {
        let followed = self.services[value.service].met.beyond((value.generation, value.version));
        let followed = followed.map(|at| (at, End::Followed));
        let own = self.failed(value.service, value.generation);
        let below = value.rests_on().filter_map(|(on, generation)| self.over(on, generation));
        below.chain(followed).chain(own).min_by_key(|&(at, _)| at)
    }

    /// When it was known that this generation is over, and how.
    fn over(&self, service: usize, generation: u64) -> Option<(u64, End)> {
        let met = self.services[service].met.beyond((generation, u64::MAX));
        let met = met.map(|at| (at, End::SeenToFail { service }));
        met.into_iter().chain(self.failed(service, generation)).min_by_key(|&(at, _)| at)
    }

    /// When a failure had returned that was called when this generation was ready.
    fn failed(&self, service: usize, generation: u64) -> Option<(u64, End)> {
        let existed = self.existed.get(&(service, generation))?;
        let failed = self.services[service].failed.beyond(*existed)?;
        Some((failed, End::FailReturned { service }))
    }

    /// Whether there is an instant for what an operation says.
    fn check(&self, Recorded { what, bounds, .. }: &Recorded<Event>) -> Result<(), String> {
        let (mut from, mut to) = (bounds.invoked, bounds.answered);
        for mark in what.current() {
            let Some((value, published)) = self.published.get(&mark) else {
                return Err(format!("value {mark} was refused, or never published"));
            };
            from = from.max(published.invoked);
            if let Some((end, how)) = self.end(value) {
                if end < bounds.invoked {
                    return Err(format!("{value:?} was over at {end}: {how}"));
                }
                to = to.min(end);
            }
        }
        if to < from {
            return Err("not current at one instant".into());
        }
        match what {
            Event::Published(value) if value.version == 0 => self.check_generation(value, *bounds),
            _ => Ok(()),
        }
    }

    /// That what it was started with was there still, and that it has not failed for nothing.
    fn check_generation(&self, value: &Value, published: Bounds) -> Result<(), String> {
        for (service, generation) in pairs(value.started_with) {
            match self.over(service, generation) {
                Some((end, how)) if end < published.invoked => {
                    return Err(format!("what it was started with was over at {end}: {how}"));
                }
                _ => {}
            }
        }
        let met = &self.services[value.service].met;
        let Some(over) = met.beyond((value.generation, u64::MAX)) else { return Ok(()) };
        // Until when what it does not rest on may have failed it.
        let settled = value.rests_on().filter_map(|on| self.settled.get(&on)).max();
        let settled = published.answered.max(settled.copied().unwrap_or(0));
        let to_blame = |service: usize| {
            let rests = service == value.service || value.on[service].is_some();
            let until = if rests { over } else { settled.min(over) };
            let blamed = self.services[service].blamed.from(published.invoked);
            blamed.is_some_and(|called| called <= until)
        };
        if (0..SERVICES).any(to_blame) {
            return Ok(());
        }
        Err(format!("{value:?} was over at {over}, and nobody has failed it"))
    }
}

/// Checks a history in which every published value is recorded, refused ones too. The error shows it.
pub(crate) fn check(history: &[Recorded<Event>]) -> Result<(), String> {
    let lifetimes = Lifetimes::of(history);
    for record in history {
        lifetimes.check(record).map_err(|why| {
            let Recorded { thread, what, bounds } = record;
            format!("{why}: {what:?}, thread {thread}, {bounds:?}\n{}", Table(history))
        })?;
    }
    Ok(())
}

impl Value {
    /// What it rests on: services, and generations of them.
    pub(crate) fn rests_on(&self) -> impl Iterator<Item = (usize, u64)> + use<> {
        pairs(self.on)
    }

    /// It is built from this, too.
    pub(crate) fn add(&mut self, from: &Self) {
        add(&mut self.on, from);
    }

    /// It is started with this, too.
    pub(crate) fn start_with(&mut self, with: &Self) {
        add(&mut self.started_with, with);
    }
}

fn pairs(on: [Option<u64>; SERVICES]) -> impl Iterator<Item = (usize, u64)> {
    let on = on.into_iter().enumerate();
    on.filter_map(|(service, generation)| Some((service, generation?)))
}

fn add(on: &mut [Option<u64>; SERVICES], from: &Value) {
    for (service, generation) in from.rests_on().chain([(from.service, from.generation)]) {
        let earliest = on[service].map_or(generation, |known| known.min(generation));
        on[service] = Some(earliest);
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { mark, service, generation, version, .. } = self;
        write!(f, "value {mark} of service {service} (g{generation}.{version}")?;
        for (service, generation) in self.rests_on() {
            write!(f, ", on {service} g{generation}")?;
        }
        for (service, generation) in pairs(self.started_with) {
            write!(f, ", started with {service} g{generation}")?;
        }
        f.write_str(")")
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Followed => f.write_str("its service was met with a later value"),
            Self::SeenToFail { service } => write!(f, "I1: service {service} was seen to fail"),
            Self::FailReturned { service } => {
                write!(f, "a failure of service {service} had returned")
            }
        }
    }
}
