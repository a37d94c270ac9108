//! Limits on the number of builds at a time, and the places of the builds (S16).
//!
//! # States of a build
//!
//! | state | holds places of | ends when |
//! |---|---|---|
//! | *queued* | the limits before the one in whose queue it is | the next place is granted |
//! | *placed* | all limits of its service | the build waits for a dependency, or ends |
//! | *waiting* | none | its last wait may return: it is queued again |
//!
//! A build takes its places one after another: those of the limits of sets in the order in which
//! they were added, and then that of the registry. The order is the same for all builds, and one
//! that holds its last place needs no other: so there is no deadlock. Each queue is first in, first
//! out: so no build starves.
//!
//! All of it is under one lock. A thread that grants places collects the services, releases the
//! lock, and wakes their slots. A build that finds no place has set the waiter bit before its last
//! check, as every wait does.

use std::collections::{BTreeMap, HashMap};

use crate::{
    numbers::ServiceIndex,
    sync::{Flag, Mutex, lock},
};

/// The limits of a registry, and the builds that hold their places.
pub(crate) struct Places {
    /// There is a limit, or a group (`groups.rs`). Builds of a registry without one take no lock.
    exist: Flag,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    limits: Vec<Limit>,
    /// The limit of the registry, which is the last one of each service.
    of_all: Option<LimitNumber>,
    /// The limits of sets, in the order in which they were added.
    of_sets: HashMap<ServiceIndex, Vec<LimitNumber>>,
    builds: HashMap<ServiceIndex, BuildPlaces>,
    last_ticket: Ticket,
    last_build: u64,
}

type LimitNumber = usize;
type Ticket = u64;

/// Identifies a build. A wait of an earlier build of the service, which may end late, changes
/// nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BuildNumber(u64);

struct Limit {
    most: usize,
    /// More than `most` if builds have continued without an instance.
    taken: usize,
    /// Empty if a place is free.
    queue: BTreeMap<Ticket, ServiceIndex>,
}

/// The places of one build.
struct BuildPlaces {
    number: BuildNumber,
    /// In the order in which they are taken.
    limits: Vec<LimitNumber>,
    /// It holds a place of each of the first ones.
    held: usize,
    /// It is in the queue of the next one.
    ticket: Option<Ticket>,
    /// The number of its waits in progress.
    waits: u32,
}

impl Default for Places {
    fn default() -> Self {
        Self { exist: Flag::new(), state: Mutex::default() }
    }
}

impl Places {
    /// Adds the limit of the registry.
    pub(crate) fn limit_all(&self, most: usize) {
        let mut state = lock(&self.state);
        state.of_all = Some(state.add(most));
        self.exist.set();
    }

    /// Adds a limit for these services. Builds that have begun are not counted.
    pub(crate) fn limit(&self, services: impl IntoIterator<Item = ServiceIndex>, most: usize) {
        let mut state = lock(&self.state);
        let number = state.add(most);
        for service in services {
            let limits = state.of_sets.entry(service).or_default();
            // A service may be named twice.
            if limits.last() != Some(&number) {
                limits.push(number);
            }
        }
        self.exist.set();
    }

    /// Returns whether a build of some service may need a place, or the permission of its group.
    pub(crate) fn exist(&self) -> bool {
        self.exist.is_set()
    }

    /// There is a group: builds ask it.
    pub(super) fn ask(&self) {
        self.exist.set();
    }

    /// A build begins to take its places. Returns its number, and whether it has all of them;
    /// `None` if it needs none.
    pub(crate) fn begin(&self, service: ServiceIndex) -> Option<(BuildNumber, bool)> {
        let mut state = lock(&self.state);
        let mut limits = state.of_sets.get(&service).cloned().unwrap_or_default();
        limits.extend(state.of_all);
        if limits.is_empty() {
            return None;
        }
        state.last_build += 1;
        let number = BuildNumber(state.last_build);
        let build = BuildPlaces { number, limits, held: 0, ticket: None, waits: 0 };
        state.builds.insert(service, build);
        Some((number, state.take(service)))
    }

    /// Returns whether the build of a service has all its places.
    pub(crate) fn has_all(&self, service: ServiceIndex) -> bool {
        let state = lock(&self.state);
        state.builds.get(&service).is_none_or(BuildPlaces::has_all)
    }

    /// The build has ended, or was dropped. Returns the services whose builds have all their places
    /// now: the caller wakes their slots.
    #[must_use]
    pub(crate) fn end(&self, service: ServiceIndex) -> Vec<ServiceIndex> {
        let mut state = lock(&self.state);
        let placed = state.give_back(service);
        state.builds.remove(&service);
        placed
    }

    /// A wait of the build for a dependency has begun. Returns the services to wake, as `end` does.
    #[must_use]
    pub(crate) fn wait_begins(
        &self,
        service: ServiceIndex,
        number: BuildNumber,
    ) -> Vec<ServiceIndex> {
        let mut state = lock(&self.state);
        let Some(build) = state.build(service, number) else { return Vec::new() };
        build.waits += 1;
        if build.waits > 1 { Vec::new() } else { state.give_back(service) }
    }

    /// Returns whether a wait of the build may return an instance: other waits are in progress, or
    /// the build has all its places again. If not, it is queued.
    pub(crate) fn wait_may_return(&self, service: ServiceIndex, number: BuildNumber) -> bool {
        let mut state = lock(&self.state);
        match state.build(service, number) {
            Some(build) if build.waits > 1 => true,
            Some(build) if build.ticket.is_some() => false,
            Some(_) => state.take(service),
            None => true,
        }
    }

    /// A wait of the build has ended. The build continues. If its last wait has returned no
    /// instance, it may hold no place: then it takes the free ones, and more than there are.
    pub(crate) fn wait_ends(&self, service: ServiceIndex, number: BuildNumber) {
        let mut state = lock(&self.state);
        let Some(build) = state.build(service, number) else { return };
        build.waits -= 1;
        if build.waits > 0 || build.has_all() {
            return;
        }
        let (ticket, held) = (build.ticket.take(), build.held);
        build.held = build.limits.len();
        let left = build.limits[held..].to_vec();
        if let Some(ticket) = ticket {
            state.limits[left[0]].queue.remove(&ticket);
        }
        for number in left {
            state.limits[number].taken += 1;
        }
    }
}

impl State {
    /// Returns the build of a service, if it is the one of this number.
    fn build(&mut self, service: ServiceIndex, number: BuildNumber) -> Option<&mut BuildPlaces> {
        self.builds.get_mut(&service).filter(|build| build.number == number)
    }

    fn add(&mut self, most: usize) -> LimitNumber {
        self.limits.push(Limit { most: most.max(1), taken: 0, queue: BTreeMap::new() });
        self.limits.len() - 1
    }

    /// Takes the places that a build needs, until one is not free: then it is queued. Returns
    /// whether it has all of them.
    fn take(&mut self, service: ServiceIndex) -> bool {
        let Some(build) = self.builds.get_mut(&service) else { return true };
        while let Some(&number) = build.limits.get(build.held) {
            let limit = &mut self.limits[number];
            if limit.taken >= limit.most {
                self.last_ticket += 1;
                limit.queue.insert(self.last_ticket, service);
                build.ticket = Some(self.last_ticket);
                return false;
            }
            limit.taken += 1;
            build.held += 1;
        }
        true
    }

    /// Gives all places of a build back, and grants them to those that are queued. Returns the
    /// services whose builds have all their places now.
    fn give_back(&mut self, service: ServiceIndex) -> Vec<ServiceIndex> {
        let Some(build) = self.builds.get_mut(&service) else { return Vec::new() };
        let (held, ticket) = (std::mem::take(&mut build.held), build.ticket.take());
        let limits = build.limits.clone();
        if let Some(ticket) = ticket {
            self.limits[limits[held]].queue.remove(&ticket);
        }
        let mut placed = Vec::new();
        // The last one first: a build that is granted an earlier one then finds the later ones.
        for &number in limits[..held].iter().rev() {
            self.limits[number].taken -= 1;
            self.grant(number, &mut placed);
        }
        placed
    }

    fn grant(&mut self, number: LimitNumber, placed: &mut Vec<ServiceIndex>) {
        loop {
            let limit = &mut self.limits[number];
            if limit.taken >= limit.most {
                return;
            }
            let Some((_, service)) = limit.queue.pop_first() else { return };
            limit.taken += 1;
            let Some(build) = self.builds.get_mut(&service) else {
                unreachable!("a build that ends leaves the queue")
            };
            (build.held, build.ticket) = (build.held + 1, None);
            if self.take(service) {
                placed.push(service);
            }
        }
    }
}

impl BuildPlaces {
    fn has_all(&self) -> bool {
        self.held == self.limits.len()
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use std::collections::VecDeque;

    use mainstay_test_support::Random;

    use super::*;

    fn index(number: usize) -> ServiceIndex {
        ServiceIndex::new(u32::try_from(number).unwrap())
    }

    /// What a build does in the random test.
    #[derive(Clone, Copy, PartialEq)]
    enum Build {
        Idle,
        Queued,
        Builds,
        Waits,
        Returns,
    }

    /// No limit is exceeded, each queue is first in, first out, and a free place is used.
    #[test]
    fn random_builds_keep_the_limits_of_sets_and_of_the_registry() {
        for seed in 0..200 {
            let mut random = Random::new(seed);
            let places = Places::default();
            let sets: Vec<(Vec<usize>, usize)> = (0..random.below(3))
                .map(|_| ((0..6).filter(|_| random.chance(50)).collect(), 1 + random.below(2)))
                .collect();
            for (services, most) in &sets {
                places.limit(services.iter().map(|&service| index(service)), *most);
            }
            let all = 1 + random.below(4);
            places.limit_all(all);
            let mut builds = [Build::Idle; 6];
            let mut numbers = [BuildNumber(0); 6];
            // Those that wait for the place of the registry alone, in order.
            let mut order = VecDeque::new();
            let in_sets = |n: usize| sets.iter().any(|(services, _)| services.contains(&n));
            let begins = |n: usize, builds: &mut [Build; 6], order: &mut VecDeque<usize>, has| {
                let queued = if builds[n] == Build::Idle { Build::Queued } else { Build::Returns };
                builds[n] = if has { Build::Builds } else { queued };
                if !has && !in_sets(n) {
                    order.push_back(n);
                }
            };
            for _ in 0..300 {
                let n = random.below(6);
                let placed = match builds[n] {
                    Build::Idle => {
                        let (number, has) = places.begin(index(n)).unwrap();
                        numbers[n] = number;
                        begins(n, &mut builds, &mut order, has);
                        Vec::new()
                    }
                    Build::Builds if random.chance(50) => {
                        builds[n] = Build::Waits;
                        places.wait_begins(index(n), numbers[n])
                    }
                    Build::Waits if random.chance(70) => {
                        let has = places.wait_may_return(index(n), numbers[n]);
                        begins(n, &mut builds, &mut order, has);
                        if has {
                            places.wait_ends(index(n), numbers[n]);
                        }
                        Vec::new()
                    }
                    _ => {
                        builds[n] = Build::Idle;
                        order.retain(|&other| other != n);
                        places.end(index(n))
                    }
                };
                for placed in placed {
                    let placed = placed.get() as usize;
                    assert!(places.has_all(index(placed)));
                    if !in_sets(placed) {
                        assert_eq!(order.pop_front(), Some(placed), "seed {seed}");
                    }
                    if builds[placed] == Build::Returns {
                        assert!(places.wait_may_return(index(placed), numbers[placed]));
                        places.wait_ends(index(placed), numbers[placed]);
                    }
                    builds[placed] = Build::Builds;
                }
                let building = |services: &mut dyn Iterator<Item = usize>| {
                    services.filter(|&n| builds[n] == Build::Builds).count()
                };
                assert!(building(&mut (0..6)) <= all, "seed {seed}");
                for (services, most) in &sets {
                    assert!(building(&mut services.iter().copied()) <= *most, "seed {seed}");
                }
                for (n, &build) in builds.iter().enumerate() {
                    let has_all = matches!(build, Build::Builds | Build::Idle);
                    assert_eq!(places.has_all(index(n)), has_all, "seed {seed}");
                    if matches!(build, Build::Queued | Build::Returns) && !in_sets(n) {
                        assert_eq!(lock(&places.state).limits[sets.len()].taken, all);
                    }
                }
            }
            (0..6).for_each(|n| drop(places.end(index(n))));
            let state = lock(&places.state);
            assert!(state.limits.iter().all(|it| it.taken == 0 && it.queue.is_empty()));
        }
    }

    #[test]
    fn a_build_that_continues_without_an_instance_is_counted_above_the_limit() {
        let places = Places::default();
        places.limit_all(1);
        let (first, has_all) = places.begin(index(0)).unwrap();
        assert!(has_all && places.wait_begins(index(0), first).is_empty());
        assert!(places.begin(index(1)).unwrap().1);
        assert!(!places.begin(index(2)).unwrap().1);
        assert!(!places.wait_may_return(index(0), first));
        places.wait_ends(index(0), first);
        assert!(places.has_all(index(0)));
        assert!(places.end(index(1)).is_empty(), "the other one is above the limit");
        assert_eq!(places.end(index(0)), [index(2)]);
    }

    #[test]
    fn a_build_with_several_waits_has_its_places_when_the_last_one_returns() {
        let places = Places::default();
        places.limit_all(1);
        let (first, _) = places.begin(index(0)).unwrap();
        assert!(places.wait_begins(index(0), first).is_empty());
        assert!(places.wait_begins(index(0), first).is_empty());
        assert!(places.begin(index(1)).unwrap().1);
        assert!(places.wait_may_return(index(0), first));
        places.wait_ends(index(0), first);
        assert!(!places.wait_may_return(index(0), first));
        assert_eq!(places.end(index(1)), [index(0)]);
        assert!(places.wait_may_return(index(0), first));
    }

    #[test]
    fn a_wait_of_an_earlier_build_changes_nothing() {
        let places = Places::default();
        places.limit_all(1);
        let (first, _) = places.begin(index(0)).unwrap();
        assert!(places.wait_begins(index(0), first).is_empty());
        assert!(places.end(index(0)).is_empty());
        let (other, _) = places.begin(index(1)).unwrap();
        assert!(places.wait_begins(index(1), other).is_empty());
        assert!(places.begin(index(2)).unwrap().1);
        assert!(!places.begin(index(0)).unwrap().1);
        places.wait_ends(index(0), first);
        assert!(!places.has_all(index(0)), "the present build is queued");
        assert!(places.wait_begins(index(0), first).is_empty());
        assert!(places.wait_may_return(index(0), first));
    }
}
