//! Services are switched, while they fail, are replaced, are built again with other dependencies,
//! and are switched by another thread.
//!
//! - R1: after any thread has seen the new instance of one member, no thread reads an old one of
//!   any member, by `get`, `get_arc`, a cached reader, `get_all`, or a wait.
//! - R2: no service is found not ready in a generation in which it was ready; and if nothing fails,
//!   each service is always ready that cannot have a gap.
//! - R3: no value of a switch that was not committed is read, and `get_all` returns no old instance
//!   of one member with a new one of another.
//! - I1, I2: as in `random_failures.rs`. And nothing is read that was built from an instance that
//!   is known to have been switched away, but by an adopter in the generation in which the switch
//!   has passed it (S23).
//! - S22: after any thread has seen the new instance of a member, no thread reads the instance of a
//!   service with a gap that was current when the switch was prepared.
//! - Every wait ends (W), and all values are dropped.
//!
//! ```text
//! provider of each service:   begin, wait for its dependencies, ready, failed, and again
//! switchers:     prepare a closure, switch        prepare another one that overlaps, switch
//! failers, replacers:                 fail         replace       fail
//! readers:              a, then b       a and b        a, cached
//! ```
#![cfg(shuttle)]

use std::{
    collections::{BTreeMap, BTreeSet},
    // Not those of shuttle: no thread of the scenario waits for this lock.
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use mainstay::{
    Guard, Instance, Phase, Running,
    error::{GetAllError, ReadyError, WaitForError},
    models::{Reload, number, replace},
};
use mainstay_shuttle_tests::{GraphShape, Observed, Random, Value, Workers, World, explore, pause};
use shuttle::{
    sync::mpsc::{self, Sender},
    thread,
};

/// The services, and the handles of those that are up.
struct Services {
    world: Arc<World>,
    handles: Mutex<Vec<Option<Arc<Running<Value>>>>>,
    /// The chance in 100 that a build does not use a dependency.
    skips: usize,
    /// Whether a switch takes each service down, in place of making a new instance current.
    has_gap: Vec<bool>,
    /// Whether a switch takes each service down, or may take something down that it depends on.
    may_have_gap: Vec<bool>,
    /// (dependent, dependency): what is adopted after a switch.
    adopted: BTreeSet<(usize, usize)>,
}

/// What a reload has found. Its members are in the order of their dependencies.
#[derive(Default)]
struct Found {
    members: Vec<usize>,
    has_gaps: bool,
    has_adopters: bool,
}

/// The numbers of switches that were committed: all, those with gaps, and those with adopters.
type Committed = [AtomicUsize; 3];

impl Services {
    /// `gaps` and `adopters` are chances in 100.
    fn new(world: Arc<World>, gaps: usize, adopters: usize, random: &mut Random) -> Self {
        let skips = [0, 20][random.below(2)];
        let handles = Mutex::new(world.ids.iter().map(|_| None).collect());
        let has_gap: Vec<bool> = world.ids.iter().map(|_| random.chance(gaps)).collect();
        let mut may_have_gap = has_gap.clone();
        let mut adopted = BTreeSet::new();
        for (service, dependencies) in world.dependencies.iter().enumerate() {
            may_have_gap[service] |= dependencies.iter().any(|&below| may_have_gap[below]);
            let some = dependencies.iter().filter(|_| random.chance(adopters));
            adopted.extend(some.map(|&dependency| (service, dependency)));
        }
        Self { world, handles, skips, has_gap, may_have_gap, adopted }
    }

    fn handles(&self) -> MutexGuard<'_, Vec<Option<Arc<Running<Value>>>>> {
        self.handles.lock().expect("no panic under the lock")
    }

    fn handle(&self, service: usize) -> Option<Arc<Running<Value>>> {
        self.handles()[service].clone()
    }

    /// The dependencies that a build uses.
    fn choose(&self, service: usize, random: &mut Random) -> Vec<usize> {
        let mut chosen = self.world.dependencies[service].clone();
        chosen.retain(|_| !random.chance(self.skips));
        chosen
    }

    /// Adds an instance that the value is built from.
    fn add(&self, value: &mut Value, from: &Instance<Value>) {
        match self.adopted.contains(&(value.service, from.service)) {
            true => value.add_adopted(from),
            false => value.add(from),
        }
    }

    /// Runs one provider until the registry is closed. Drops `started` when the service was up.
    async fn provide(self: Arc<Self>, service: usize, mut random: Random, started: Sender<()>) {
        let (world, mut started) = (&self.world, Some(started));
        let provider = world.registry.provide(world.ids[service]).expect("not closed");
        'again: loop {
            let Ok(attempt) = provider.begin().await else { return };
            world.record_generation(service, attempt.generation().get());
            let mut value = world.value(service);
            for dependency in self.choose(service, &mut random) {
                world.request_edge(service, dependency);
                let before = world.observations();
                match attempt.wait_for(world.ids[dependency]).await {
                    Ok(instance) => {
                        before.check(&instance);
                        self.add(&mut value, &instance);
                    }
                    Err(WaitForError::Invalidated(_)) => continue 'again,
                    Err(WaitForError::Closed { .. }) => return,
                    Err(error) => unreachable!("{error}"),
                }
            }
            let running = match attempt.ready(value) {
                Ok(running) => Arc::new(running),
                Err(ReadyError::Invalidated { .. }) => continue,
                Err(ReadyError::Closed { .. }) => return,
                Err(error) => unreachable!("{error}"),
            };
            let failed = running.failed();
            self.handles()[service] = Some(running);
            drop(started.take());
            let failed = failed.await;
            let last = self.handles()[service].take();
            drop(last);
            if failed.is_err() {
                return;
            }
        }
    }

    /// Prepares a reload of a random service, and switches it. Counts it if it is committed.
    fn switch(&self, committed: &Committed, random: &mut Random) {
        let world = &self.world;
        let (mut reload, switch) = (Reload::new(&world.registry), world.begin_switch());
        let found = self.find(&mut reload, switch, world.any_service(random));
        let is_prepared = found
            .members
            .iter()
            .all(|&member| self.prepare(&mut reload, switch, member, random).is_some());
        let is_committed = is_prepared && reload.commit();
        world.end_switch(switch, is_committed);
        for (count, counts) in committed.iter().zip([true, found.has_gaps, found.has_adopters]) {
            count.fetch_add(usize::from(is_committed && counts), Relaxed);
        }
    }

    /// Finds the services of a reload: those that are restarted, those that adopt, and its members.
    fn find(&self, reload: &mut Reload, switch: usize, root: usize) -> Found {
        let (world, mut found) = (&self.world, Found::default());
        let (mut below_members, mut below_gaps) = (BTreeSet::from([root]), BTreeSet::new());
        let mut adopting = BTreeMap::<_, Vec<_>>::new();
        // Dependencies have lower numbers.
        for service in root..world.count() {
            let (id, has_gap) = (world.ids[service], below_gaps.contains(&service));
            let is_member = below_members.contains(&service);
            let adopts = adopting.remove(&service).unwrap_or_default();
            if !has_gap && !is_member && adopts.is_empty() {
                continue;
            }
            let status = world.registry.status(id).expect("of this registry");
            let is_ready = status.phase == Phase::Ready;
            if !has_gap && !is_member {
                for member in adopts.into_iter().filter(|_| is_ready) {
                    let generation = reload.pass(id, world.ids[member]);
                    world.add_adopter(switch, service, member, generation);
                    found.has_adopters = true;
                }
                continue;
            }
            let has_gap = has_gap || is_ready && self.has_gap[service];
            for dependent in reload.dependents(id) {
                if has_gap {
                    below_gaps.insert(dependent);
                } else if !self.adopted.contains(&(dependent, service)) {
                    below_members.insert(dependent);
                } else if is_ready {
                    adopting.entry(dependent).or_default().push(service);
                }
            }
            if is_ready && has_gap {
                reload.restart(id);
                world.add_gap(switch, service, status.generation.get());
                found.has_gaps = true;
            } else if is_ready {
                found.members.push(service);
            }
        }
        found
    }

    fn prepare(
        &self,
        reload: &mut Reload,
        switch: usize,
        member: usize,
        random: &mut Random,
    ) -> Option<()> {
        let world = &self.world;
        let running = self.handle(member)?;
        let old = running.instance()?;
        let (mut value, mut from) = (world.value_of_switch(member, switch), Vec::new());
        for dependency in self.choose(member, random) {
            world.request_edge(member, dependency);
            let instance = reload.instance(world.ids[dependency]).ok()?;
            self.add(&mut value, &instance);
            from.push((world.ids[dependency].into(), number(&instance)));
        }
        let new = reload.prepare(&running, old, value, &from).ok()?;
        world.add_member(switch, member, Observed::of(&new));
        Some(())
    }

    /// Replaces the values of random services.
    fn replace_some(&self, times: usize, mut random: Random) {
        for _ in 0..times {
            let service = self.world.any_service(&mut random);
            let running = self.handle(service);
            if let Some((running, old)) = running.and_then(|it| it.instance().map(|old| (it, old)))
            {
                let first = self.world.new_instance(old.switch, service);
                let first = first.map_or(0, |first| first.revision);
                let _ = replace(&running, &old, first, self.world.successor(&old));
            }
            pause(&mut random);
        }
    }

    /// Reads random services, alone, with cached readers, and two to four at one instant.
    fn read_some(&self, times: usize, is_calm: bool, mut random: Random) {
        let world = &self.world;
        let cached = [(); 2].map(|()| world.any_service(&mut random));
        let mut cached = cached.map(|service| {
            (service, world.registry.cached(world.ids[service]).expect("of this registry"))
        });
        for _ in 0..times {
            let (is_found, may_have_gap) = match random.below(4) {
                0 => {
                    let service = world.any_service(&mut random);
                    (world.read(service).is_some(), self.may_have_gap[service])
                }
                1 => {
                    let at = random.below(2);
                    let (service, cached) = &mut cached[at];
                    let read = world.observations().check_read(*service, cached.get());
                    (read.is_some(), self.may_have_gap[*service])
                }
                _ => self.read_together(&mut random),
            };
            assert!(
                is_found || may_have_gap || !is_calm,
                "R2: a service is not ready, and nothing fails"
            );
            if random.chance(30) {
                thread::yield_now();
            }
        }
    }

    /// Returns whether all are ready, and whether one of them may have a gap.
    fn read_together(&self, random: &mut Random) -> (bool, bool) {
        let world = &self.world;
        let mut services = [0; 4].map(|_| world.any_service(random));
        if let Some(&dependency) = world.dependencies[services[0]].first() {
            services[3] = dependency;
        }
        let may_have_gap = services.iter().any(|&service| self.may_have_gap[service]);
        let [a, b, c, d] = services.map(|service| world.ids[service]);
        let before = world.observations();
        let is_found = match world.registry.get_all((a, b, c, d)) {
            Ok((a, b, c, d)) => {
                before.check_together(&[&a, &b, &c, &d].map(Guard::instance));
                true
            }
            Err(GetAllError::NotReady(_)) => false,
            Err(GetAllError::Contended { .. }) => true,
            Err(error) => unreachable!("{error}"),
        };
        (is_found, may_have_gap)
    }
}

#[test]
fn switches_have_no_gap_and_no_way_back() {
    let committed = Arc::<Committed>::default();
    let count = Arc::clone(&committed);
    explore("supervised_switches", 1_500, move |mut random| {
        let shape = GraphShape { services: (5, 50), dependencies: 3, declared: 40 };
        let world = World::new(&shape, &mut random);
        let [gaps, adopters] = [[0, 0], [15, 0], [0, 30], [10, 30]][random.below(4)];
        let services = Arc::new(Services::new(world, gaps, adopters, &mut random));
        let (started, all_started) = mpsc::channel();
        let mut providers = Workers::default();
        for service in 0..services.world.count() {
            let services = Arc::clone(&services);
            let work = services.provide(service, random.fork(), started.clone());
            providers.task(work);
        }
        drop(started);
        let _ = all_started.recv();

        let is_calm = random.chance(30);
        let mut workers = Workers::default();
        for _ in 0..1 + random.below(2) {
            let (services, mut random) = (Arc::clone(&services), random.fork());
            let count = Arc::clone(&count);
            workers.thread(move || {
                for _ in 0..4 {
                    services.switch(&count, &mut random);
                    pause(&mut random);
                }
            });
        }
        for _ in 0..2 {
            let (services, random) = (Arc::clone(&services), random.fork());
            workers.thread(move || services.read_some(15, is_calm, random));
        }
        if random.chance(50) {
            let (services, random) = (Arc::clone(&services), random.fork());
            workers.thread(move || services.replace_some(4, random));
        }
        if !is_calm {
            let (services, random) = (Arc::clone(&services), random.fork());
            workers.thread(move || services.world.fail_some(4, random));
        }
        workers.join();
        services.world.check_recovery();
        services.world.registry.close();
        providers.join();
        let services = Arc::into_inner(services).expect("all threads have ended");
        drop(services.handles);
        services.world.check_closed();
    });
    let [all, gaps, adopters] = [0, 1, 2].map(|kind| committed[kind].load(Relaxed));
    println!("supervised_switches: {all} committed, {gaps} with gaps, {adopters} with adopters");
    assert!(all > 0, "no switch was committed");
}
