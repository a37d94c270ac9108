//! Each value has a lifetime, and each read must fit into the lifetimes of the values that it
//! returned.
//!
//! A value is current during at most one interval. The records bound it:
//!
//! - It begins after the call of its publication.
//! - It ends before an operation returned that shows its end: one that met its service in a later
//!   generation or with a value that replaced it; one that met a service that it **depends on**,
//!   directly or not, in a later generation than the value depends on (**I1**); a `fail` of its
//!   service or of a dependency that was called when the value had already been current.
//!
//! An operation that says that several values were current at one instant is wrong if no instant
//! lies within its own bounds and all of theirs. `get_all` says this. `get` in all its forms,
//! `wait_ready` and `wait_for` say it of one value. An accepted `ready` or `replace` says it of
//! the value that it published, and a watch without a change says it of the value that it reported
//! last. A refused value is never current.
//!
//! A value that was only **started with** a dependency requires that this dependency had not
//! ended, in the same sense, when its publication was called. Afterwards the dependency does not
//! matter.
//!
//! **No generation ends without a failure.** If a published generation is known to have ended,
//! then `fail` or the like was called before, of its service or of a dependency, and had not
//! returned when the publication was called. If the publication, or that of a dependency, had not
//! returned when the failure was called, the failure may be of any other service, because this
//! service or a dependency may once have been built from it or started with it. A dependency is
//! here one of any value of the generation, and of any value of a generation on which one of these
//! depends: a failure that comes while a switch is completed may still follow the edges of the old
//! instances. A value that was built aside and not switched explains nothing: no failure follows an
//! edge that only it needs.
//!
//! **A switch is one instant.** When an operation has returned that met the new value of one member
//! of a switch, or a later one of its generation, the old values of all members have ended (R1). No
//! operation that says that several values were current at one instant returned a new one and an
//! old one (R3). A service that a read found not ready has left each generation whose publication
//! had returned before (R2).
//!
//! A service **with a gap** (S22) is taken down by the switch: for R1 and R3 its generation before
//! the switch is an old value. A later one shows nothing of the switch. A value that was **built
//! from** the old value of a member has ended with this, whatever is known of its own service.
//!
//! An **adopter** (S23) stays current. What it adopts was current at the call, as itself was, and
//! is never older than what it was built from or has adopted before. No value is published or
//! switched after an instance that it adopts, and was built from, had been switched away: nothing
//! would ask it to adopt.
//!
//! *No false alarm*: each bound follows from the documented guarantees, and from one operation
//! that had returned before another one was called. Nothing follows from a failure that is under
//! way, from an answer that another thread is failing the service, or from two operations that
//! overlap.
//!
//! *Time*: the records are sorted once, and found by bisection.

use std::{collections::HashMap, fmt};

use mainstay::error::DependencyUnavailable;

use super::record::{Bounds, Recorded, Table};

/// The most services of a history.
pub(crate) const SERVICES: usize = 5;

/// A published value: its service, and the generation of each service that it depends on, directly
/// or not. If there are several generations of one service, the earliest.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Value {
    /// No two values have the same mark.
    pub(crate) mark: u64,
    pub(crate) service: usize,
    pub(crate) generation: u64,
    /// Counts the replacements within a generation.
    pub(crate) version: u64,
    pub(crate) on: [Option<u64>; SERVICES],
    /// The same for the services that it was started with.
    pub(crate) started_with: [Option<u64>; SERVICES],
    /// The generation and version of what it was built from, and must be built from anew after a
    /// switch.
    pub(crate) rebuilt_with: [Option<(u64, u64)>; SERVICES],
    /// The same for what it was built from, and adopts after a switch.
    pub(crate) adopts: [Option<(u64, u64)>; SERVICES],
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Event {
    Published(Value),
    /// By a switch. Those with the same number are of the same one.
    Switched {
        value: Value,
        switch: u64,
    },
    /// By `ready`, because its generation had ended, or by `replace`, because its generation had
    /// been condemned; or it was built aside, and not switched.
    Refused(Value),
    /// A switch had taken the service down before its commit, to this generation.
    Restarted {
        service: usize,
        generation: u64,
        switch: u64,
    },
    /// The value with the mark `by` has adopted the other one.
    Adopted {
        by: u64,
        new: u64,
    },
    /// The marks of values, all of one instant.
    Read([Option<u64>; 3]),
    /// The service was in this generation, or in a later one.
    Met {
        service: usize,
        generation: u64,
    },
    /// The same, and it was not ready in it.
    NotReady {
        service: usize,
        generation: u64,
    },
    /// `fail`, or the report that failed the service, has returned.
    Failed {
        service: usize,
    },
    /// A call has returned that may have failed the service, and does not say that it is down.
    MayHaveFailed {
        service: usize,
    },
}

impl Event {
    /// The event of a read that was refused. Services are named by their numbers.
    pub(crate) fn not_ready(why: &DependencyUnavailable) -> Self {
        let service = why.service.parse().expect("services are named by their numbers");
        Self::NotReady { service, generation: why.generation.get() }
    }

    /// The marks of the values that were current according to this event.
    fn current(&self) -> impl Iterator<Item = u64> {
        let marks = match *self {
            Self::Read(marks) => marks,
            Self::Published(value) | Self::Switched { value, .. } => [Some(value.mark), None, None],
            _ => [None; 3],
        };
        marks.into_iter().flatten()
    }
}

/// When each of several ordered facts was first known.
struct Earliest<K> {
    /// By key, each with the earliest time of this key and all later ones.
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

    /// When a fact after `key` was first known.
    fn beyond(&self, key: K) -> Option<u64> {
        self.first_not(|known| known <= key)
    }

    /// When a fact at or after `key` was first known.
    fn from(&self, key: K) -> Option<u64> {
        self.first_not(|known| known < key)
    }

    fn first_not(&self, is_before: impl Fn(K) -> bool) -> Option<u64> {
        let index = self.sorted.partition_point(|&(known, _)| is_before(known));
        self.sorted.get(index).map(|&(_, at)| at)
    }
}

/// The facts of one service.
struct Known {
    /// When each generation and version of it was first met.
    met: Earliest<(u64, u64)>,
    /// When a failure had returned, by when it was called.
    failed: Earliest<u64>,
    /// When a call that may have failed it was made, by when the call had returned.
    possible_failures: Earliest<u64>,
}

/// A service of a switch.
#[derive(Debug, Clone, Copy)]
struct Switched {
    service: usize,
    /// The generation and version of its new value, or the first ones that it can have.
    new: (u64, u64),
    has_gap: bool,
}

/// The services of each switch.
type Switches = HashMap<u64, Vec<Switched>>;

/// The fact that shows the end of a value.
#[derive(Debug)]
enum End {
    Followed,
    SeenToFail { service: usize },
    FailReturned { service: usize },
    Switched { service: usize },
}

struct Lifetimes {
    /// The accepted values, by mark, and the bounds of their publications.
    published: HashMap<u64, (Value, Bounds)>,
    /// The services on which any value of a generation depends.
    built_from: HashMap<(usize, u64), [bool; SERVICES]>,
    /// When each generation of a service was first known to be ready.
    existed: HashMap<(usize, u64), u64>,
    /// When the publication of each generation had returned.
    returned: HashMap<(usize, u64), u64>,
    services: Vec<Known>,
    switches: Switches,
}

impl Lifetimes {
    fn of(history: &[Recorded<Event>]) -> Self {
        let (mut published, mut returned) = (HashMap::new(), HashMap::new());
        let mut switches = HashMap::<u64, Vec<_>>::new();
        let mut built_from = HashMap::<_, [bool; SERVICES]>::new();
        let mut dependencies = HashMap::<_, Vec<(usize, u64)>>::new();
        for Recorded { what, bounds, .. } in history {
            if let Event::Restarted { service, generation, switch } = *what {
                let gap = Switched { service, new: (generation, 0), has_gap: true };
                switches.entry(switch).or_default().push(gap);
            }
            let (Event::Published(value) | Event::Switched { value, .. }) = *what else { continue };
            let Value { mark, service, generation, version, .. } = value;
            let built_from = built_from.entry((service, generation)).or_default();
            value.dependencies().for_each(|(on, _)| built_from[on] = true);
            dependencies.entry((service, generation)).or_default().extend(value.dependencies());
            published.insert(mark, (value, *bounds));
            if version == 0 {
                returned.insert((service, generation), bounds.answered);
            }
            if let Event::Switched { switch, .. } = *what {
                let member = Switched { service, new: (generation, version), has_gap: false };
                switches.entry(switch).or_default().push(member);
            }
        }
        // No path is longer.
        for _ in 0..SERVICES {
            for (generation, dependencies) in &dependencies {
                let below = dependencies.iter().filter_map(|on| built_from.get(on)).copied();
                let below: Vec<_> = below.collect();
                let of_this = built_from.entry(*generation).or_default();
                for (on, is_below) in below.iter().flat_map(|below| below.iter().enumerate()) {
                    of_this[on] |= is_below;
                }
            }
        }
        let mut existed = HashMap::new();
        let mut met = [const { vec![] }; SERVICES];
        let mut failed = [const { vec![] }; SERVICES];
        let mut possible_failures = [const { vec![] }; SERVICES];
        for Recorded { what, bounds: Bounds { invoked, answered }, .. } in history {
            for mark in what.current() {
                let Some((value, _)) = published.get(&mark) else { continue };
                let first = existed.entry((value.service, value.generation)).or_insert(*answered);
                *first = *answered.min(first);
                met[value.service].push(((value.generation, value.version), *answered));
                for (on, generation) in value.dependencies() {
                    met[on].push(((generation, 0), *answered));
                }
            }
            match *what {
                // A replacement is refused as soon as its generation is condemned.
                Event::Refused(Value { version: 1.., .. }) => {}
                Event::Refused(Value { service, generation, .. }) => {
                    met[service].push(((generation + 1, 0), *answered));
                }
                Event::Met { service, generation }
                | Event::NotReady { service, generation }
                | Event::Restarted { service, generation, .. } => {
                    met[service].push(((generation, 0), *answered));
                }
                Event::Failed { service } => {
                    failed[service].push((*invoked, *answered));
                    possible_failures[service].push((*answered, *invoked));
                }
                Event::MayHaveFailed { service } => {
                    possible_failures[service].push((*answered, *invoked))
                }
                Event::Published(_)
                | Event::Switched { .. }
                | Event::Adopted { .. }
                | Event::Read(_) => {}
            }
        }
        meet_all_members(&mut met, &switches);
        let known = met.into_iter().zip(failed).zip(possible_failures).map(
            |((met, failed), possible_failures)| Known {
                met: Earliest::new(met),
                failed: Earliest::new(failed),
                possible_failures: Earliest::new(possible_failures),
            },
        );
        Self { published, built_from, existed, returned, services: known.collect(), switches }
    }

    /// When the end of the value was first known, and by which fact.
    fn end(&self, value: &Value) -> Option<(u64, End)> {
        let followed = self.services[value.service].met.beyond((value.generation, value.version));
        let followed = followed.map(|at| (at, End::Followed));
        let own = self.failed(value.service, value.generation);
        let below =
            value.dependencies().filter_map(|(on, generation)| self.generation_end(on, generation));
        let switched = pairs(value.rebuilt_with).filter_map(|(service, instance)| {
            let at = self.services[service].met.beyond(instance)?;
            Some((at, End::Switched { service }))
        });
        below.chain(followed).chain(own).chain(switched).min_by_key(|&(at, _)| at)
    }

    /// When the end of this generation was first known, and by which fact.
    fn generation_end(&self, service: usize, generation: u64) -> Option<(u64, End)> {
        let met = self.services[service].met.beyond((generation, u64::MAX));
        let met = met.map(|at| (at, End::SeenToFail { service }));
        met.into_iter().chain(self.failed(service, generation)).min_by_key(|&(at, _)| at)
    }

    /// When a failure had returned that was called after this generation was known to be ready.
    fn failed(&self, service: usize, generation: u64) -> Option<(u64, End)> {
        let existed = self.existed.get(&(service, generation))?;
        let failed = self.services[service].failed.beyond(*existed)?;
        Some((failed, End::FailReturned { service }))
    }

    /// Checks that there is an instant at which the operation is true.
    fn check(&self, Recorded { what, bounds, .. }: &Recorded<Event>) -> Result<(), String> {
        self.check_current(what.current(), *bounds)?;
        match what {
            Event::Read(marks) => self.check_switches(marks),
            // Each of them was current, and not necessarily both at one instant.
            Event::Adopted { by, new } => {
                [*by, *new].into_iter().try_for_each(|one| self.check_current([one], *bounds))
            }
            Event::NotReady { service, generation } => {
                match self.returned.get(&(*service, *generation)) {
                    Some(&at) if at < bounds.invoked => {
                        Err(format!("R2: it was published in g{generation} at {at}"))
                    }
                    _ => Ok(()),
                }
            }
            Event::Published(value) if value.version == 0 => {
                self.check_adopts(value, *bounds)?;
                self.check_generation(value, *bounds)
            }
            Event::Switched { value, .. } => self.check_adopts(value, *bounds),
            _ => Ok(()),
        }
    }

    /// Checks that there is an instant at which all of these values were current.
    fn check_current(
        &self,
        marks: impl IntoIterator<Item = u64>,
        bounds: Bounds,
    ) -> Result<(), String> {
        let (mut from, mut to) = (bounds.invoked, bounds.answered);
        for mark in marks {
            let Some((value, published)) = self.published.get(&mark) else {
                return Err(format!("value {mark} was refused, or never published"));
            };
            from = from.max(published.invoked);
            if let Some((end, how)) = self.end(value) {
                if end < bounds.invoked {
                    return Err(format!("{value:?} had ended at {end}: {how}"));
                }
                to = to.min(end);
            }
        }
        if to < from {
            return Err("not current at one instant".into());
        }
        Ok(())
    }

    /// Checks that a value was made current before what it adopts was switched away that it was
    /// built from.
    fn check_adopts(&self, value: &Value, bounds: Bounds) -> Result<(), String> {
        for (service, instance) in pairs(value.adopts) {
            match self.services[service].met.beyond(instance) {
                Some(at) if at < bounds.invoked => {
                    return Err(format!("S23: it is built from an old value of {service}: {at}"));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Checks that values of one instant are all of the time before a switch, or all after it.
    fn check_switches(&self, marks: &[Option<u64>; 3]) -> Result<(), String> {
        let values = || marks.iter().flatten().filter_map(|mark| self.published.get(mark));
        for switch in self.switches.values() {
            let of_switch = values().filter_map(|(value, _)| {
                let it = switch.iter().find(|it| it.service == value.service)?;
                Some((it, (value.generation, value.version) >= it.new))
            });
            let of_switch: Vec<_> = of_switch.collect();
            // A service with a gap may begin again before the commit.
            if of_switch.iter().any(|&(it, is_new)| is_new && !it.has_gap)
                && of_switch.iter().any(|&(_, is_new)| !is_new)
            {
                return Err(format!("R3: some are new, and some old: {switch:?}"));
            }
        }
        Ok(())
    }

    /// Checks that the services that it was started with had not ended, and that a failure explains
    /// its end.
    fn check_generation(&self, value: &Value, published: Bounds) -> Result<(), String> {
        for (service, generation) in pairs(value.started_with) {
            match self.generation_end(service, generation) {
                Some((end, how)) if end < published.invoked => {
                    return Err(format!(
                        "a service that it was started with had ended at {end}: {how}"
                    ));
                }
                _ => {}
            }
        }
        let met = &self.services[value.service].met;
        let Some(ended) = met.beyond((value.generation, u64::MAX)) else { return Ok(()) };
        // Until this time a service on which it does not depend may have failed it.
        let returned = value.dependencies().filter_map(|on| self.returned.get(&on)).max();
        let returned = published.answered.max(returned.copied().unwrap_or(0));
        let built_from = self.built_from.get(&(value.service, value.generation));
        let may_be_the_cause = |service: usize| {
            let depends = service == value.service || built_from.is_some_and(|on| on[service]);
            let until = if depends { ended } else { returned.min(ended) };
            let possible_failures =
                self.services[service].possible_failures.from(published.invoked);
            possible_failures.is_some_and(|called| called <= until)
        };
        if (0..SERVICES).any(may_be_the_cause) {
            return Ok(());
        }
        Err(format!("{value:?} had ended at {ended}, and no call has failed it"))
    }
}

/// Adds what follows from R1: an operation that has met the new value of one member of a switch, or
/// a later one of its generation, has met those of all. A later generation shows nothing: the
/// member may have failed between the checks of the switch and its commit, so that its new value
/// was never current.
fn meet_all_members(met: &mut [Vec<((u64, u64), u64)>; SERVICES], switches: &Switches) {
    let mut is_complete = switches.is_empty();
    while !is_complete {
        is_complete = true;
        let known = met.clone().map(Earliest::new);
        for switch in switches.values() {
            let first = |&Switched { service, new, has_gap }: &Switched| {
                let is_new = |it: &(u64, u64)| !has_gap && it.0 == new.0 && *it >= new;
                met[service].iter().filter(|(it, _)| is_new(it)).map(|&(_, at)| at).min()
            };
            let Some(at) = switch.iter().filter_map(first).min() else { continue };
            for &Switched { service, new, .. } in switch {
                if known[service].from(new).is_none_or(|known| at < known) {
                    met[service].push((new, at));
                    is_complete = false;
                }
            }
        }
    }
}

/// Checks that no value adopts one that is older than what it was built from, or has adopted
/// before. Those of one value are in the order in which they were called.
fn check_adoptions(history: &[Recorded<Event>], lifetimes: &Lifetimes) -> Result<(), String> {
    let mut adopted = HashMap::<(u64, usize), (u64, u64)>::new();
    for Recorded { what, bounds, .. } in history {
        let Event::Adopted { by, new } = *what else { continue };
        let [(own, _), (new, _)] = [by, new].map(|mark| lifetimes.published[&mark]);
        let next = (new.generation, new.version);
        // Another reload may have built it anew since, without this dependency.
        let Some(built_from) = own.adopts[new.service] else { continue };
        let last = adopted.entry((by, new.service)).or_insert(built_from);
        if next.0 != last.0 || next < *last {
            return Err(format!("S23: {own:?} has {last:?}, and adopts {new:?}: {bounds:?}"));
        }
        *last = next;
    }
    Ok(())
}

/// Checks a history that contains every published and every refused value. The error contains the
/// history.
pub(crate) fn check(history: &[Recorded<Event>]) -> Result<(), String> {
    let lifetimes = Lifetimes::of(history);
    for record in history {
        lifetimes.check(record).map_err(|why| {
            let Recorded { thread, what, bounds } = record;
            format!("{why}: {what:?}, thread {thread}, {bounds:?}\n{}", Table(history))
        })?;
    }
    check_adoptions(history, &lifetimes).map_err(|why| format!("{why}\n{}", Table(history)))
}

impl Value {
    /// The first value of a generation, which was built from nothing yet.
    pub(crate) fn new(mark: u64, service: usize, generation: u64) -> Self {
        let (nothing, no_instance) = ([None; SERVICES], [None; SERVICES]);
        Self {
            mark,
            service,
            generation,
            version: 0,
            on: nothing,
            started_with: nothing,
            rebuilt_with: no_instance,
            adopts: no_instance,
        }
    }

    /// The services that it depends on, and their generations.
    pub(crate) fn dependencies(&self) -> impl Iterator<Item = (usize, u64)> + use<> {
        pairs(self.on)
    }

    /// Adds a value that this one is built from.
    pub(crate) fn add(&mut self, from: &Self) {
        add(&mut self.on, from);
    }

    /// Adds a value that this one is built from, and must be built from anew after a switch.
    pub(crate) fn rebuild_with(&mut self, from: &Self) {
        self.add(from);
        self.rebuilt_with[from.service] = Some((from.generation, from.version));
    }

    /// Adds a value that this one is built from, and adopts after a switch. What that one depends
    /// on is not added: the next one may depend on something else.
    pub(crate) fn adopt_after(&mut self, from: &Self) {
        add(&mut self.on, &Self { on: [None; SERVICES], ..*from });
        self.adopts[from.service] = Some((from.generation, from.version));
    }

    /// Adds a value that this one is started with.
    pub(crate) fn start_with(&mut self, with: &Self) {
        add(&mut self.started_with, with);
    }
}

fn pairs<T>(on: [Option<T>; SERVICES]) -> impl Iterator<Item = (usize, T)> {
    on.into_iter().enumerate().filter_map(|(service, of_it)| Some((service, of_it?)))
}

fn add(on: &mut [Option<u64>; SERVICES], from: &Value) {
    for (service, generation) in from.dependencies().chain([(from.service, from.generation)]) {
        let earliest = on[service].map_or(generation, |known| known.min(generation));
        on[service] = Some(earliest);
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { mark, service, generation, version, .. } = self;
        write!(f, "value {mark} of service {service} (g{generation}.{version}")?;
        for (service, generation) in self.dependencies() {
            write!(f, ", on {service} g{generation}")?;
        }
        for (service, generation) in pairs(self.started_with) {
            write!(f, ", started with {service} g{generation}")?;
        }
        for (service, (generation, version)) in pairs(self.rebuilt_with) {
            write!(f, ", from {service} g{generation}.{version}")?;
        }
        for (service, (generation, version)) in pairs(self.adopts) {
            write!(f, ", adopts {service} g{generation}.{version}")?;
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
            Self::Switched { service } => write!(f, "I2: service {service} was switched"),
        }
    }
}
