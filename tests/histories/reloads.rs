//! Several supervised services in chains and diamonds, which every thread builds, fails, reloads
//! and reads.
//!
//! Each thread polls the supervisors of some of the services, and one or two reloads, so that all
//! threads work all the time. A build does not use each dependency that is not declared, so new
//! instances have other edges than the old ones. A reload that takes long is dropped.

use std::{
    cell::RefCell,
    collections::{HashMap, HashSet},
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
    Cached, EventKind, Guard, Instance, Observer, Registry, ServiceId,
    error::{GetAllError, GetError},
    supervise::{Build, ReloadWait, Reloaded, RestartPolicy},
};

use super::{
    Figures,
    lifetimes::{self, Event, SERVICES, Value},
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
type Supervisor = Pin<Box<dyn Future<Output = ()> + Send>>;

thread_local! {
    /// The services that this thread has published, and their generations.
    static PUBLISHED: RefCell<Vec<(usize, u64)>> = const { RefCell::new(Vec::new()) };
}

/// Notes what is published, on the thread that publishes it.
struct Publications;

impl Observer for Publications {
    fn event(&self, _: &Registry, event: &mainstay::Event<'_>) {
        if matches!(event.kind, EventKind::Ready) {
            let published = (position(event.service), event.generation.get());
            PUBLISHED.with_borrow_mut(|all| all.push(published));
        }
    }
}

/// Services are named by their numbers.
fn position(name: &str) -> usize {
    name.parse().expect("a number")
}

/// The registry of one round.
struct World {
    registry: Registry,
    ids: Vec<Id>,
    dependencies: &'static [&'static [usize]],
    /// The chance in 100 that a build does not use a dependency that is not declared.
    fickle: usize,
    /// Whether services fail.
    fails: bool,
    /// The value of each build that has returned last, by service, generation and revision.
    built: Mutex<HashMap<(usize, u64, u64), Value>>,
    /// All values that were built aside.
    aside: Mutex<Vec<Value>>,
    marks: AtomicU64,
}

impl World {
    fn new(random: &mut Random) -> Arc<Self> {
        let dependencies = SHAPES[random.below(SHAPES.len())];
        let mut builder = Registry::builder(dependencies.len()).unwrap().observer(Publications);
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
        let fickle = if is_fickle && !is_declared { 30 } else { 0 };
        let registry = builder.build();
        let (built, aside, marks) = (Mutex::default(), Mutex::default(), AtomicU64::new(0));
        let fails = random.below(2) == 0;
        Arc::new(Self { registry, ids, dependencies, fickle, fails, built, aside, marks })
    }

    fn supervise(self: &Arc<Self>, service: usize, mut random: Random) -> Supervisor {
        let policy = RestartPolicy::default().backoff(Duration::ZERO, Duration::ZERO);
        let supervisor = self.registry.supervise(self.ids[service]).unwrap();
        let world = Arc::clone(self);
        Box::pin(supervisor.restart_policy(policy).run(move |build| {
            let used: Vec<usize> = world.dependencies[service].to_vec();
            let used = used.into_iter().filter(|_| random.below(100) >= world.fickle).collect();
            Arc::clone(&world).build(service, build, used)
        }))
    }

    async fn build(
        self: Arc<Self>,
        service: usize,
        build: Build<Value>,
        used: Vec<usize>,
    ) -> Result<Value, Box<dyn Error + Send + Sync>> {
        let generation = build.generation().get();
        let version = match self.registry.get(self.ids[service]) {
            _ if !build.is_reload() => 0,
            Ok(old) if Guard::generation(&old).get() == generation => Guard::revision(&old) + 1,
            // The value would have no number.
            _ => return Err("it has failed since the build was asked for".into()),
        };
        let mark = 1 + self.marks.fetch_add(1, Ordering::Relaxed);
        let (on, started_with) = ([None; SERVICES], [None; SERVICES]);
        let mut value = Value { mark, service, generation, version, on, started_with };
        for dependency in used {
            value.add(&**build.wait_for(self.ids[dependency]).await?);
        }
        if version > 0 {
            self.aside.lock().unwrap().push(value);
        }
        self.built.lock().unwrap().insert((service, generation, version), value);
        Ok(value)
    }

    fn built(&self, service: usize, generation: u64, revision: u64) -> Value {
        let built = self.built.lock().unwrap();
        *built.get(&(service, generation, revision)).expect("it was built")
    }

    /// Adds the values that were built aside and not switched.
    fn add_refused(&self, history: &mut Vec<Recorded<Event>>) {
        let switched = history.iter().filter_map(|record| match record.what {
            Event::Switched { value, .. } => Some(value.mark),
            _ => None,
        });
        let switched: HashSet<u64> = switched.collect();
        let aside = self.aside.lock().unwrap();
        let refused = aside.iter().filter(|value| !switched.contains(&value.mark));
        let bounds = Bounds { invoked: 0, answered: u64::MAX };
        history.extend(refused.map(|&value| Recorded {
            thread: 0,
            what: Event::Refused(value),
            bounds,
        }));
    }

    /// After all threads have stopped: no ready service depends on an instance that was switched
    /// away, or has failed.
    fn check_final_state(&self) -> Result<(), String> {
        for &id in &self.ids {
            let Ok(instance) = self.registry.get_arc(id) else { continue };
            for from in Instance::built_from(&instance) {
                let dependency = *self.ids.iter().find(|&&id| from.service == id.into()).unwrap();
                let present = self.registry.get(dependency).ok();
                let present = present.map(|it| (Guard::generation(&it), Guard::revision(&it)));
                if present != Some((from.generation, from.revision)) {
                    let from = (from.generation, from.revision);
                    return Err(format!("I2: {:?} is of {from:?}, now {present:?}", **instance));
                }
            }
        }
        Ok(())
    }
}

/// One thread in one round.
struct Player<'a> {
    world: &'a World,
    recorder: Recorder<Event>,
    random: &'a mut Random,
    supervisors: Vec<Supervisor>,
    reloads: [Option<ReloadWait>; 2],
    cached: Vec<Cached<Value>>,
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
                40..50 => self.read_all(),
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
        let World { registry, ids, .. } = self.world;
        let id = ids[service];
        let (read, bounds) = match self.random.below(8) {
            0..3 => self.recorder.timed(|| registry.get(id).map(|guard| guard.mark)),
            3..5 => {
                let (read, bounds) = self.recorder.timed(|| registry.get_arc(id));
                if let Ok(instance) = &read {
                    assert_eq!(Instance::revision(instance), instance.version, "{:?}", **instance);
                }
                (read.map(|instance| instance.mark), bounds)
            }
            5..7 => {
                let Self { recorder, cached, .. } = self;
                recorder.timed(|| cached[service].get().map(|instance| instance.mark))
            }
            _ => {
                let (polled, bounds) = self.recorder.timed(|| {
                    let polled = poll_once(&mut registry.wait_ready(id));
                    polled.map(|instance| instance.unwrap().mark)
                });
                match polled {
                    Poll::Ready(mark) => (Ok(mark), bounds),
                    Poll::Pending => return,
                }
            }
        };
        let event = match read {
            Ok(mark) => Event::Read([Some(mark), None, None]),
            Err(GetError::NotReady(why)) => Event::not_ready(&why),
            Err(other) => panic!("{other}"),
        };
        self.recorder.push(bounds, event);
    }

    /// Reads three services at one instant.
    fn read_all(&mut self) {
        let World { registry, ids, .. } = self.world;
        let (a, b, c) = (self.any(), self.any(), self.any());
        let (read, bounds) = self.recorder.timed(|| {
            let (a, b, c) = registry.get_all((ids[a], ids[b], ids[c]))?;
            Ok([a, b, c].map(|guard| Some(guard.mark)))
        });
        let event = match read {
            Ok(marks) => Event::Read(marks),
            Err(GetAllError::NotReady(why)) => Event::not_ready(&why),
            Err(GetAllError::Contended { .. }) => return,
            Err(other) => panic!("{other}"),
        };
        self.recorder.push(bounds, event);
    }

    fn fail(&mut self, service: usize) {
        let World { registry, ids, .. } = self.world;
        let (_, bounds) = self.recorder.timed(|| registry.fail(ids[service], "failed").unwrap());
        self.recorder.push(bounds, Event::Failed { service });
    }

    /// Begins a reload, or polls one that has begun, and sometimes drops it.
    fn reload(&mut self, service: usize) {
        let World { registry, ids, .. } = self.world;
        let at = self.random.below(2);
        let Some(wait) = &mut self.reloads[at] else {
            self.reloads[at] = Some(registry.reload(ids[service]));
            return;
        };
        let (polled, bounds) = self.recorder.timed(|| poll_once(wait));
        match polled {
            Poll::Pending if self.random.below(20) > 0 => return,
            Poll::Ready(Ok(reloaded)) => self.switched(bounds, &reloaded),
            Poll::Pending | Poll::Ready(Err(_)) => {}
        }
        self.reloads[at] = None;
    }

    fn switched(&mut self, bounds: Bounds, reloaded: &Reloaded) {
        self.switches += 1;
        for member in &reloaded.members {
            let (service, generation) = (position(&member.service), member.generation.get());
            let value = self.world.built(service, generation, member.to);
            self.recorder.push(bounds, Event::Switched { value, switch: self.switches });
        }
    }

    /// Polls the supervisors of this thread.
    fn supervise(&mut self) {
        let Self { world, recorder, supervisors, .. } = self;
        for supervisor in supervisors {
            let (_, bounds) = recorder.timed(|| poll_once(supervisor));
            for (service, generation) in PUBLISHED.take() {
                let value = world.built(service, generation, 0);
                recorder.push(bounds, Event::Published(value));
            }
        }
    }
}

/// Runs rounds until `operations` operations are recorded, and checks each round.
pub(crate) fn run(operations: usize, seed: &Seed) -> Figures {
    let mut figures = Figures::default();
    let mut random = seed.random(2);
    let mut switches = 0;
    while figures.operations < operations {
        for threads in 2..=4 {
            let worlds: Vec<_> = (0..ROUNDS).map(|_| World::new(&mut random)).collect();
            let (beginning, stream) = (Instant::now(), random.next());
            let played = crew(threads, |thread, gate| {
                let mut random = seed.random(stream ^ thread as u64);
                play(&worlds, (thread, threads), gate, beginning, &mut random)
            });
            for (round, world) in worlds.iter().enumerate() {
                let mut history: Vec<_> =
                    played.iter().flat_map(|(by, _)| by[round].iter().copied()).collect();
                figures.operations += history.len();
                world.add_refused(&mut history);
                let checked = lifetimes::check(&history).and_then(|()| {
                    world.check_final_state().map_err(|why| format!("{why}:\n{}", Table(&history)))
                });
                if let Err(why) = checked {
                    panic!("after {figures}: {why}");
                }
                let is_switch = |it: &&Recorded<Event>| matches!(it.what, Event::Switched { .. });
                switches += history.iter().filter(is_switch).count();
                figures.rounds += 1;
            }
        }
    }
    println!("reloads: {switches} instances were switched");
    assert!(switches > 0, "nothing was reloaded");
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
        let cached = world.ids.iter().map(|&id| world.registry.cached(id).unwrap());
        let mut player = Player {
            world,
            recorder: Recorder::new(number, beginning, MOST),
            random: &mut *random,
            supervisors,
            reloads: [None, None],
            cached: cached.collect(),
            switches: (number as u64 + 1) * 1_000,
        };
        // The other threads do the same.
        while world.ids.iter().any(|&id| world.registry.get(id).is_err()) {
            player.supervise();
            thread::yield_now();
        }
        gate.pass(round);
        player.play();
        // A reload that was not dropped ends here: nothing changes after the round.
        drop(mem::take(&mut player.reloads));
        ended.push(player.supervisors);
        player.recorder.into_records()
    });
    (records.collect(), ended)
}
