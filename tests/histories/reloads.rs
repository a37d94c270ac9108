//! Several supervised services in chains and diamonds, which every thread builds, fails, reloads
//! and reads.
//!
//! Each thread polls the supervisors of some of the services, and one or two reloads, so that all
//! threads work all the time. A build does not use each dependency that is not declared, so new
//! instances have other edges than the old ones. A reload that takes long is dropped.
//!
//! In half of the rounds some services are exclusive, or provided by hand, so that a reload
//! restarts them (S22), and some adopt new instances of their dependencies (S23), or fail to.

use std::{
    cell::RefCell,
    collections::HashMap,
    error::Error,
    mem,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    task::Poll,
    thread,
    time::{Duration, Instant},
};

use mainstay::{
    EventKind, Guard, Instance, Observer, Registry, ServiceId,
    error::ReloadError,
    supervise::{Build, ReloadWait, Reloaded, RestartPolicy},
};

use super::{
    Figures,
    lifetimes::{self, Event, SERVICES, Value},
    reading::Reads,
    record::{Bounds, Gate, Recorded, Recorder, Table, crew},
    support::{Random, Seed, poll_once},
};

/// The rounds of a crew before their histories are checked.
const ROUNDS: usize = 25;

/// The steps of a thread in a round. Some steps are several operations.
const STEPS: usize = 300;

/// The most operations of a thread in a round.
const MOST: usize = 8 * STEPS;

/// The dependencies of each service.
const SHAPES: [&[&[usize]]; 4] = [
    &[&[], &[0], &[1]],
    &[&[], &[0], &[0], &[1, 2]],
    &[&[], &[0], &[0], &[1, 2], &[3]],
    &[&[], &[0], &[0, 1], &[0, 2], &[0, 3]],
];

type Id = ServiceId<Value>;
type BoxError = Box<dyn Error + Send + Sync>;
/// A supervisor, or the loop of a provider by hand.
type Supervisor = Pin<Box<dyn Future<Output = ()> + Send>>;

thread_local! {
    /// What this thread has done since its last operation was recorded.
    static NOTED: RefCell<Vec<Noted>> = const { RefCell::new(Vec::new()) };
}

enum Noted {
    Published {
        service: usize,
        generation: u64,
    },
    Replaced,
    Ended {
        service: usize,
        generation: u64,
        /// Whether it is a root of the cascade. Not always known: the failure of an event names the
        /// last cascade, which may be a later one.
        is_root: bool,
    },
    Adopted {
        service: usize,
        by: u64,
        new: u64,
        fails: bool,
    },
}

fn note(noted: Noted) {
    NOTED.with_borrow_mut(|all| all.push(noted));
}

/// Notes what is published and what ends, on the thread that does it.
struct Notes;

impl Observer for Notes {
    fn event(&self, _: &Registry, event: &mainstay::Event<'_>) {
        let (service, generation) = (position(event.service), event.generation.get());
        match event.kind {
            EventKind::Ready => note(Noted::Published { service, generation }),
            EventKind::Replaced => note(Noted::Replaced),
            EventKind::Failed(failure) | EventKind::Stopped(failure) => {
                let is_root = failure.root == failure.service;
                note(Noted::Ended { service, generation, is_root });
            }
            _ => {}
        }
    }
}

/// Services are named by their numbers.
fn position(name: &str) -> usize {
    name.parse().expect("a number")
}

/// How a service is provided.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Supervised,
    Exclusive,
    ByHand,
}

/// The registry of one round.
struct World {
    registry: Registry,
    ids: Vec<Id>,
    dependencies: &'static [&'static [usize]],
    kinds: Vec<Kind>,
    /// The dependencies whose new instances each service adopts.
    adopts: [[bool; SERVICES]; SERVICES],
    /// The chance in 100 that a build does not use a dependency that is not declared.
    fickle: usize,
    /// Whether services fail.
    fails: bool,
    /// The value of each build that has returned last, by service, generation and revision.
    built: Mutex<HashMap<(usize, u64, u64), Value>>,
    marks: AtomicU64,
}

impl World {
    fn new(random: &mut Random) -> Arc<Self> {
        let dependencies = SHAPES[random.below(SHAPES.len())];
        let mut builder = Registry::builder(dependencies.len()).unwrap().observer(Notes);
        let ids: Vec<Id> =
            (0..dependencies.len()).map(|at| builder.register(&at.to_string()).unwrap()).collect();
        let (is_declared, is_fickle) = (random.below(3) == 0, random.below(2) == 0);
        if is_declared {
            for (service, on) in dependencies.iter().enumerate() {
                for &dependency in *on {
                    builder.depends(ids[service]).on(ids[dependency]).unwrap();
                }
            }
        }
        let mut kinds = vec![Kind::Supervised; ids.len()];
        let mut adopts = [[false; SERVICES]; SERVICES];
        if random.below(2) == 0 {
            let of = [Kind::Supervised, Kind::Supervised, Kind::Exclusive, Kind::ByHand];
            kinds.fill_with(|| of[random.below(of.len())]);
            for (service, adopts) in adopts.iter_mut().enumerate().take(ids.len()) {
                if kinds[service] != Kind::ByHand {
                    adopts.fill_with(|| random.below(2) == 0);
                }
            }
        }
        let fickle = if is_fickle && !is_declared { 30 } else { 0 };
        let registry = builder.build();
        let (built, marks) = (Mutex::default(), AtomicU64::new(0));
        let fails = random.below(2) == 0;
        Arc::new(Self { registry, ids, dependencies, kinds, adopts, fickle, fails, built, marks })
    }

    fn supervise(self: &Arc<Self>, service: usize, mut random: Random) -> Supervisor {
        let (world, id) = (Arc::clone(self), self.ids[service]);
        let use_some = move |world: &Self| -> Vec<usize> {
            let used = world.dependencies[service].iter().copied();
            used.filter(|_| random.below(100) >= world.fickle).collect()
        };
        if self.kinds[service] == Kind::ByHand {
            return Box::pin(world.provide(service, use_some));
        }
        let policy = RestartPolicy::default().backoff(Duration::ZERO, Duration::ZERO);
        let mut supervisor = self.registry.supervise(id).unwrap().restart_policy(policy);
        if self.kinds[service] == Kind::Exclusive {
            supervisor = supervisor.exclusive();
        }
        for &dependency in self.dependencies[service] {
            if self.adopts[service][dependency] {
                let fails = self.fails;
                let adopt = move |own: &Value, new: Arc<Instance<Value>>| {
                    let fails = fails && new.mark % 8 == 0;
                    note(Noted::Adopted { service, by: own.mark, new: new.mark, fails });
                    if fails { Err("not adopted") } else { Ok(()) }
                };
                supervisor = supervisor.adopt(self.ids[dependency], adopt).unwrap();
            }
        }
        let mut use_some = use_some;
        Box::pin(supervisor.run(move |build| {
            let used = use_some(&world);
            Arc::clone(&world).build(service, build, used)
        }))
    }

    async fn build(
        self: Arc<Self>,
        service: usize,
        build: Build<Value>,
        used: Vec<usize>,
    ) -> Result<Value, BoxError> {
        let generation = build.generation().get();
        let version = match self.registry.get(self.ids[service]) {
            _ if !build.is_reload() => 0,
            Ok(old) if Guard::generation(&old).get() == generation => Guard::revision(&old) + 1,
            // The value would have no number.
            _ => return Err("it has failed since the build was asked for".into()),
        };
        let mut value = Value { version, ..self.value(service, generation) };
        for dependency in used {
            let instance = build.wait_for(self.ids[dependency]).await?;
            self.add(&mut value, &instance);
        }
        self.note_built(value);
        Ok(value)
    }

    /// The loop of a provider.
    async fn provide(
        self: Arc<Self>,
        service: usize,
        mut use_some: impl FnMut(&Self) -> Vec<usize>,
    ) {
        let provider = self.registry.provide(self.ids[service]).unwrap();
        'again: loop {
            let attempt = provider.begin().await.unwrap();
            let mut value = self.value(service, attempt.generation().get());
            for dependency in use_some(&self) {
                let waited = attempt.wait_for(self.ids[dependency]).await;
                // Invalidated.
                let Ok(instance) = waited else { continue 'again };
                self.add(&mut value, &instance);
            }
            self.note_built(value);
            let Ok(running) = attempt.ready(value) else { continue };
            let _ = running.failed().await;
        }
    }

    /// A value that is built from nothing yet.
    fn value(&self, service: usize, generation: u64) -> Value {
        Value::new(1 + self.marks.fetch_add(1, Ordering::Relaxed), service, generation)
    }

    /// Adds an instance that the value is built from.
    fn add(&self, value: &mut Value, from: &Value) {
        match self.adopts[value.service][from.service] {
            true => value.adopt_after(from),
            false => value.rebuild_with(from),
        }
    }

    fn note_built(&self, value: Value) {
        let Value { service, generation, version, .. } = value;
        self.built.lock().unwrap().insert((service, generation, version), value);
    }

    fn built(&self, service: usize, generation: u64, revision: u64) -> Value {
        let built = self.built.lock().unwrap();
        *built.get(&(service, generation, revision)).expect("it was built")
    }

    /// Whether a service may have a gap in a reload: it, or what it may depend on, cannot be built
    /// aside.
    fn may_have_gap(&self, service: usize) -> bool {
        self.kinds[service] != Kind::Supervised
            || self.dependencies[service].iter().any(|&below| self.may_have_gap(below))
    }

    /// After all threads have stopped, and each supervisor has done what it was asked to: no ready
    /// service depends on an instance that has failed, or was switched away without being adopted.
    fn check_final_state(&self, history: &[Recorded<Event>]) -> Result<(), String> {
        let values: HashMap<u64, Value> =
            self.built.lock().unwrap().values().map(|value| (value.mark, *value)).collect();
        // The last value of each service that each value has adopted. Those of one value are in
        // the order of the calls.
        let adopted = history.iter().filter_map(|record| match record.what {
            Event::Adopted { by, new } => Some(((by, values[&new].service), values[&new].version)),
            _ => None,
        });
        let adopted: HashMap<(u64, usize), u64> = adopted.collect();
        for &id in &self.ids {
            let Ok(instance) = self.registry.get_arc(id) else { continue };
            for from in Instance::built_from(&instance) {
                let on = self.ids.iter().position(|&id| from.service == id.into()).unwrap();
                let adopted = adopted.get(&(instance.mark, on)).copied();
                let from = (from.generation, adopted.unwrap_or(from.revision));
                let present = self.registry.get(self.ids[on]).ok();
                let present = present.map(|it| (Guard::generation(&it), Guard::revision(&it)));
                if present != Some(from) {
                    return Err(format!(
                        "I2: {:?} is of {on} {from:?}, now {present:?}",
                        **instance
                    ));
                }
            }
        }
        Ok(())
    }
}

/// A reload of one thread.
struct InProgress {
    wait: ReloadWait,
    /// The bounds and the number of its switch, after which services with a gap begin again.
    switch: Option<(Bounds, u64)>,
}

/// One thread in one round.
struct Player<'a> {
    world: &'a World,
    recorder: Recorder<Event>,
    random: &'a mut Random,
    supervisors: Vec<Supervisor>,
    reloads: [Option<InProgress>; 2],
    reads: Reads<'a>,
    /// Distinguishes the switches.
    switches: u64,
}

impl Player<'_> {
    fn play(&mut self) {
        for _ in 0..STEPS {
            if self.random.below(16) == 0 {
                self.random.pause();
            }
            let service = self.any();
            match self.random.below(100) {
                0..25 => self.read(service),
                25..40 => {
                    let below = self.random.below(service + 1);
                    self.read(below);
                    self.read(service);
                }
                40..50 => self.reads.all(&mut self.recorder, self.random),
                50..52 if self.world.fails => self.fail(service),
                50..75 => self.reload(service),
                _ => self.supervise(),
            }
        }
    }

    fn any(&mut self) -> usize {
        self.random.below(self.world.ids.len())
    }

    fn read(&mut self, service: usize) {
        self.reads.one(&mut self.recorder, self.random, service);
    }

    fn fail(&mut self, service: usize) {
        let World { registry, ids, .. } = self.world;
        let (_, bounds) = self.recorder.timed(|| registry.fail(ids[service], "failed").unwrap());
        self.recorder.push(bounds, Event::Failed { service });
        self.push_noted(bounds, None);
    }

    /// Begins a reload, or polls one that has begun, and sometimes drops it.
    fn reload(&mut self, service: usize) {
        let World { registry, ids, .. } = self.world;
        let at = self.random.below(2);
        let Some(InProgress { mut wait, switch }) = self.reloads[at].take() else {
            let wait = registry.reload(ids[service]);
            let wait = if self.random.below(2) == 0 { wait } else { wait.allow_gap() };
            self.reloads[at] = Some(InProgress { wait, switch: None });
            return;
        };
        let (polled, bounds) = self.recorder.timed(|| poll_once(&mut wait));
        let switch = self.push_switch(bounds).or(switch);
        match polled {
            Poll::Pending if self.random.below(20) > 0 => {
                self.reloads[at] = Some(InProgress { wait, switch });
            }
            Poll::Pending => self.end(InProgress { wait, switch }),
            Poll::Ready(result) => self.push_switched(switch, result),
        }
    }

    /// Ends a reload: drops it, unless it is switched. Then its result says what was switched.
    fn end(&mut self, InProgress { wait, switch }: InProgress) {
        if switch.is_some() || self.random.below(2) == 0 {
            let timed = || wait.wait_blocking_timeout(Duration::ZERO);
            let (result, bounds) = self.recorder.timed(timed);
            let switch = self.push_switch(bounds).or(switch);
            self.push_switched(switch, result);
        }
    }

    /// Records what a call to a reload has taken down. Returns its bounds, and the number of the
    /// switch, if it was the call that has switched.
    fn push_switch(&mut self, bounds: Bounds) -> Option<(Bounds, u64)> {
        self.switches += 1;
        self.push_noted(bounds, Some(self.switches)).then_some((bounds, self.switches))
    }

    /// Records what a reload has switched.
    fn push_switched(
        &mut self,
        switch: Option<(Bounds, u64)>,
        result: Result<Reloaded, ReloadError>,
    ) {
        let world = self.world;
        let Ok(Reloaded { members, restarted, adopters, .. }) = result else {
            return assert!(switch.is_none(), "it was switched, and ends with an error");
        };
        assert_eq!(switch.is_some(), !members.is_empty(), "an event for each member");
        for gap in restarted {
            assert!(world.may_have_gap(position(&gap.service)), "{gap:?}");
        }
        let members: Vec<_> = members
            .iter()
            .map(|member| (position(&member.service), member.generation.get(), member.to))
            .collect();
        for adopter in adopters.iter().map(|adopter| position(adopter)) {
            let adopts = members.iter().any(|&(member, ..)| world.adopts[adopter][member]);
            assert!(adopts, "{adopter} adopts nothing of {members:?}");
        }
        for (member, generation, version) in members {
            assert!(world.kinds[member] == Kind::Supervised, "{member} is built aside");
            let value = world.built(member, generation, version);
            let (bounds, switch) = switch.expect("there are members");
            self.recorder.push(bounds, Event::Switched { value, switch });
        }
    }

    /// Polls the supervisors of this thread.
    fn supervise(&mut self) {
        for at in 0..self.supervisors.len() {
            let Self { recorder, supervisors, .. } = self;
            let (_, bounds) = recorder.timed(|| poll_once(&mut supervisors[at]));
            self.push_noted(bounds, None);
        }
    }

    /// Records what this thread has noted during an operation. What a reload has taken down, it has
    /// before its switch. Returns whether something was switched.
    fn push_noted(&mut self, bounds: Bounds, switch: Option<u64>) -> bool {
        let mut is_switched = false;
        for noted in NOTED.take() {
            let event = match noted {
                Noted::Replaced => {
                    is_switched = true;
                    continue;
                }
                Noted::Published { service, generation } => {
                    Event::Published(self.world.built(service, generation, 0))
                }
                Noted::Ended { service, generation, is_root } => {
                    let has_gap = is_root || self.world.kinds[service] != Kind::Supervised;
                    if switch.is_some() && has_gap {
                        self.recorder.push(bounds, Event::MayHaveFailed { service });
                    }
                    let generation = generation + 1;
                    match switch {
                        Some(switch) => Event::Restarted { service, generation, switch },
                        None => Event::Met { service, generation },
                    }
                }
                Noted::Adopted { service, by, new, fails } => {
                    if fails {
                        self.recorder.push(bounds, Event::MayHaveFailed { service });
                    }
                    Event::Adopted { by, new }
                }
            };
            self.recorder.push(bounds, event);
        }
        is_switched
    }
}

/// Runs rounds until `operations` operations are recorded, and checks each round.
pub(crate) fn run(operations: usize, seed: &Seed) -> Figures {
    let mut figures = Figures::default();
    let mut random = seed.random(2);
    let (mut switched, mut restarted, mut adopted) = (0, 0, 0);
    while figures.operations < operations {
        for threads in 2..=4 {
            let worlds: Vec<_> = (0..ROUNDS).map(|_| World::new(&mut random)).collect();
            let (beginning, stream) = (Instant::now(), random.next());
            let played = crew(threads, |thread, gate| {
                let mut random = seed.random(stream ^ thread as u64);
                play(&worlds, (thread, threads), gate, beginning, &mut random)
            });
            for (round, world) in worlds.iter().enumerate() {
                let history: Vec<_> =
                    played.iter().flat_map(|(by, _)| by[round].iter().copied()).collect();
                figures.operations += history.len();
                let checked = lifetimes::check(&history).and_then(|()| {
                    let checked = world.check_final_state(&history);
                    checked.map_err(|why| format!("{why}:\n{}", Table(&history)))
                });
                if let Err(why) = checked {
                    panic!("after {figures}: {why}");
                }
                for record in &history {
                    match record.what {
                        Event::Switched { .. } => switched += 1,
                        Event::Restarted { .. } => restarted += 1,
                        Event::Adopted { .. } => adopted += 1,
                        _ => {}
                    }
                }
                figures.rounds += 1;
            }
        }
    }
    println!("reloads: {switched} switched, {restarted} taken down by a switch, {adopted} adopted");
    assert!(switched > 0 && restarted > 0, "one of them never happens");
    assert!(adopted > 0 || figures.operations < 1_000_000, "nothing is adopted");
    figures
}

/// One thread through all rounds. Its supervisors are dropped after the final check, so that ready
/// services stay ready.
fn play(
    worlds: &[Arc<World>],
    (number, threads): (usize, usize),
    gate: &Gate,
    beginning: Instant,
    random: &mut Random,
) -> (Vec<Vec<Recorded<Event>>>, Vec<Vec<Supervisor>>) {
    let mut ended = vec![];
    let records = worlds.iter().enumerate().map(|(round, world)| {
        let own = (0..world.ids.len()).filter(|service| service % threads == number);
        let own: Vec<usize> = own.collect();
        let supervisors =
            own.into_iter().map(|service| world.supervise(service, Random::new(random.next())));
        let supervisors = supervisors.collect();
        let mut player = Player {
            world,
            recorder: Recorder::new(number, beginning, MOST),
            random: &mut *random,
            supervisors,
            reloads: [None, None],
            reads: Reads::new(&world.registry, &world.ids),
            switches: (number as u64 + 1) * 1_000,
        };
        // The other threads do the same.
        while world.ids.iter().any(|&id| world.registry.get(id).is_err()) {
            player.supervise();
            thread::yield_now();
        }
        gate.pass(2 * round);
        player.play();
        // A reload that was not dropped ends here: nothing changes after the round.
        let reloads = mem::take(&mut player.reloads);
        reloads.into_iter().flatten().for_each(|reload| player.end(reload));
        // The last switches have asked for this.
        gate.pass(2 * round + 1);
        player.supervise();
        ended.push(player.supervisors);
        player.recorder.into_records()
    });
    (records.collect(), ended)
}
