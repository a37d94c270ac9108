//! Services are switched, while they fail, are replaced, are built again with other dependencies,
//! and are switched by another thread.
//!
//! - R1: after any thread has seen the new instance of one member, no thread reads an old one of
//!   any member, by `get`, `get_arc`, a cached reader, `get_all`, or a wait.
//! - R2: no service is found not ready in a generation in which it was ready; and if nothing fails,
//!   each service is always ready.
//! - R3: no value of a switch that was not committed is read, and `get_all` returns no old instance
//!   of one member with a new one of another.
//! - I1, I2: as in `random_failures.rs`. And nothing is read that was built from an instance that
//!   is known to have been switched away.
//! - Every wait ends (W), and all values are dropped.
//!
//! ```text
//! provider of each service:   begin, wait for its dependencies, ready, failed, and again
//! switchers:     prepare a closure, switch        prepare another one that overlaps, switch
//! failers, replacers:                 fail         replace       fail
//! readers:              a, then b       a and b        a, cached
//! ```
#![cfg(shuttle)]

use std::sync::{
    // Not those of shuttle: no thread of the scenario waits for this lock.
    Arc,
    Mutex,
    MutexGuard,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use mainstay::{
    Guard, Running,
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
}

impl Services {
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
                        value.add(&instance);
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

    /// Prepares a reload of a random service, and switches it. Returns whether it is committed.
    fn switch(&self, random: &mut Random) -> bool {
        let world = &self.world;
        let mut reload = Reload::new(&world.registry);
        let mut members = reload.members(world.ids[world.any_service(random)]);
        // Dependencies have lower numbers.
        members.sort_unstable();
        let switch = world.begin_switch();
        let is_prepared = members
            .iter()
            .all(|&member| self.prepare(&mut reload, switch, member, random).is_some());
        let is_committed = is_prepared && reload.commit();
        world.end_switch(switch, is_committed);
        is_committed
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
            value.add(&instance);
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
            let is_found = match random.below(4) {
                0 => world.read(world.any_service(&mut random)).is_some(),
                1 => {
                    let at = random.below(2);
                    let (service, cached) = &mut cached[at];
                    world.observations().check_read(*service, cached.get()).is_some()
                }
                _ => self.read_together(&mut random),
            };
            assert!(is_found || !is_calm, "R2: a service is not ready, and nothing fails");
            if random.chance(30) {
                thread::yield_now();
            }
        }
    }

    fn read_together(&self, random: &mut Random) -> bool {
        let world = &self.world;
        let mut services = [0; 4].map(|_| world.any_service(random));
        if let Some(&dependency) = world.dependencies[services[0]].first() {
            services[3] = dependency;
        }
        let [a, b, c, d] = services.map(|service| world.ids[service]);
        let before = world.observations();
        match world.registry.get_all((a, b, c, d)) {
            Ok((a, b, c, d)) => {
                before.check_together(&[&a, &b, &c, &d].map(Guard::instance));
                true
            }
            Err(GetAllError::NotReady(_)) => false,
            Err(GetAllError::Contended { .. }) => true,
            Err(error) => unreachable!("{error}"),
        }
    }
}

#[test]
fn switches_have_no_gap_and_no_way_back() {
    let committed = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&committed);
    explore("supervised_switches", 1_500, move |mut random| {
        let shape = GraphShape { services: (5, 50), dependencies: 3, declared: 40 };
        let world = World::new(&shape, &mut random);
        let skips = [0, 20][random.below(2)];
        let handles = Mutex::new(world.ids.iter().map(|_| None).collect());
        let services = Arc::new(Services { world, handles, skips });
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
                    count.fetch_add(usize::from(services.switch(&mut random)), Relaxed);
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
    println!("supervised_switches: {} were committed", committed.load(Relaxed));
    assert!(committed.load(Relaxed) > 0, "no switch was committed");
}
