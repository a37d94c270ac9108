//! Several services, chains and diamonds, that everybody provides, fails, reports, replaces and reads.
//!
//! Each thread does 60 operations a round, of all kinds: those who provide do not wait but look again later, so
//! that the threads are at work all the time. Values carry the generations that they rest on. Edges are declared, or
//! discovered, or discovered at one start and dropped at another; of those that are discovered some are needed to start
//! alone, and some are only watched. The closures also hold services that nobody
//! provides: a cascade takes a few microseconds by it, and more falls into it.

use std::{mem, sync::Arc, task::Poll, time::Instant};

use mainstay::{
    Attempt, Cached, Change, GetAllError, GetError, Guard, Instance, NotReady, Phase, Provider,
    Registry, Report, Running, ServiceId, WaitForError, Watch, WatchError,
};

use super::{
    Figures,
    lifetimes::{self, Event, SERVICES, Value},
    record::{Bounds, Gate, Recorded, Recorder, Table, crew},
    support::{Random, Seed, poll_once},
};

/// Rounds that a crew does before their histories are checked.
const ROUNDS: usize = 25;

/// Steps of a thread in a round; some are two operations.
const STEPS: usize = 60;

/// The most operations of a thread in a round, with those before it.
const MOST: usize = 2 * STEPS + 100;

/// What each service is built from.
const SHAPES: [&[&[usize]]; 5] = [
    &[&[], &[0], &[1]],
    &[&[], &[0], &[1], &[2], &[3]],
    &[&[], &[0], &[0], &[1, 2]],
    &[&[], &[0], &[0], &[1, 2], &[3]],
    &[&[], &[0], &[0, 1], &[0, 2], &[0, 3]],
];

type Id = ServiceId<Value>;

/// What one round is played with.
struct World {
    registry: Registry,
    ids: Vec<Id>,
    providers: Vec<Provider<Value>>,
    dependencies: &'static [&'static [usize]],
    /// Of 100 attempts, so many leave a dependency away that is not declared.
    fickle: usize,
    declared: bool,
    /// What a service, the first, needs each of its dependencies for.
    kinds: [[Kind; SERVICES]; SERVICES],
}

#[derive(Clone, Copy)]
enum Kind {
    Hard,
    Start,
    Watched,
}

/// Who is told what becomes of a service.
struct Watcher {
    watch: Watch<Value>,
    /// The service, and its generation, for which it watches.
    by: Option<(usize, u64)>,
    /// What it was told to be ready.
    told: Option<(u64, u64)>,
}

/// What a thread holds of one service.
#[derive(Default)]
enum Hand {
    #[default]
    Empty,
    /// With the value so far, and what is still to be waited for.
    Attempt(Attempt<Value>, Value, Vec<usize>),
    Running(Running<Value>, Value),
}

impl World {
    fn new(random: &mut Random) -> Self {
        let dependencies = SHAPES[random.below(SHAPES.len())];
        let idle = [0, 3, 50, 400][random.below(4)];
        let mut builder = Registry::builder(dependencies.len() + idle).unwrap();
        let ids: Vec<Id> = (0..dependencies.len())
            .map(|service| builder.register(&service.to_string()).unwrap())
            .collect();
        let declared = random.below(3) == 0;
        for idle in 0..idle {
            let idle = builder.register::<()>(&format!("idle {idle}")).unwrap();
            let below = random.below(ids.len());
            builder.add_dependency(idle, ids[below]).unwrap();
            // Between that one and what is built from it, whose failures come further apart by it.
            let above = dependencies.iter().position(|on| on.contains(&below));
            if let (Some(above), true) = (above, declared) {
                builder.add_dependency(ids[above], idle).unwrap();
            }
        }
        if declared {
            for (service, on) in dependencies.iter().enumerate() {
                for &dependency in *on {
                    builder.add_dependency(ids[service], ids[dependency]).unwrap();
                }
            }
        }
        let registry = builder.build();
        let providers = ids.iter().map(|&id| registry.provide(id).unwrap()).collect();
        let fickle = [0, 50][random.below(2)];
        let mut kinds = [[Kind::Hard; SERVICES]; SERVICES];
        if !declared && random.below(2) == 0 {
            let of = [Kind::Hard, Kind::Hard, Kind::Start, Kind::Watched];
            kinds.as_flattened_mut().fill_with(|| of[random.below(of.len())]);
        }
        Self { registry, ids, providers, dependencies, fickle, declared, kinds }
    }

    fn watcher(&self, service: usize) -> Watcher {
        let watch = self.registry.watch(self.ids[service]).unwrap();
        Watcher { watch, by: None, told: None }
    }

    /// What a service was met with.
    fn refused(&self, NotReady { service, generation, .. }: NotReady) -> Event {
        let service = service.parse().expect("services are named by their numbers");
        Event::Met { service, generation }
    }

    /// Once it is quiet: no ready service rests on what has failed, and what is down can be begun.
    fn check_quiet(&self) -> Result<(), String> {
        let generations: Vec<u64> = (0..self.ids.len()).map(|i| self.generation(i)).collect();
        for (service, &id) in self.ids.iter().enumerate() {
            match (self.registry.status(id).unwrap().phase, self.registry.get(id)) {
                (_, Ok(guard)) => {
                    for (on, generation) in guard.rests_on() {
                        if generations[on] != generation {
                            let now = generations[on];
                            return Err(format!("I2: {:?} is ready, {on} is in g{now}", *guard));
                        }
                    }
                }
                (Phase::Ready, Err(_)) => {
                    return Err(format!("S2: service {service} is ready, and cannot be read"));
                }
                (Phase::Down, _)
                    if poll_once(&mut self.providers[service].begin()).is_pending() =>
                {
                    return Err(format!("S3: service {service} is down, and cannot be begun"));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn generation(&self, service: usize) -> u64 {
        self.registry.status(self.ids[service]).unwrap().generation
    }
}

/// One thread in one round.
struct Player<'a> {
    world: &'a World,
    recorder: Recorder<Event>,
    random: &'a mut Random,
    hands: Vec<Hand>,
    cached: Vec<Cached<Value>>,
    watched: Vec<Watcher>,
    /// An instance that it has read, to be reported.
    met: Option<Arc<Instance<Value>>>,
    next_mark: u64,
}

impl Player<'_> {
    /// Brings some services up, before the round.
    fn set_up(&mut self) {
        let some = 1 + self.any();
        while self.hands[..some].iter().any(|hand| !matches!(hand, Hand::Running(..))) {
            for service in 0..some {
                if !matches!(self.hands[service], Hand::Running(..)) {
                    self.provide(service);
                }
            }
        }
    }

    fn play(&mut self) {
        for _ in 0..STEPS {
            if self.random.below(16) == 0 {
                self.random.pause();
            }
            let service = self.any();
            match self.random.below(100) {
                0..25 => self.read(service),
                25..40 => {
                    // One that others are built from, and then one of these.
                    let below = self.random.below(service + 1);
                    self.read(below);
                    self.read(service);
                }
                40..50 => self.read_all(),
                50..54 => {
                    let above = self.any();
                    self.fail(service);
                    self.read(above);
                }
                54..57 => self.report(),
                _ => self.provide(service),
            }
        }
    }

    fn any(&mut self) -> usize {
        self.random.below(self.world.ids.len())
    }

    fn read(&mut self, service: usize) {
        let World { registry, ids, .. } = self.world;
        let id = ids[service];
        let (read, bounds) = match self.random.below(10) {
            0..4 => self.recorder.timed(|| registry.get(id).map(|guard| guard.mark)),
            4..5 => {
                let (read, bounds) = self.recorder.timed(|| registry.get_arc(id));
                self.met = read.as_ref().ok().cloned().or(self.met.take());
                (read.map(|instance| instance.mark), bounds)
            }
            5..7 => {
                let Self { recorder, cached, .. } = self;
                recorder.timed(|| cached[service].get().map(|instance| instance.mark))
            }
            7 => {
                let (looked, bounds) = self.recorder.timed(|| {
                    let looked = poll_once(&mut registry.wait_ready(id));
                    looked.map(|instance| instance.unwrap().mark)
                });
                match looked {
                    Poll::Ready(mark) => (Ok(mark), bounds),
                    Poll::Pending => return,
                }
            }
            _ => return self.look(service),
        };
        let event = match read {
            Ok(mark) => Event::Read([Some(mark), None, None]),
            Err(GetError::NotReady(why)) => self.world.refused(why),
            Err(other) => panic!("{other}"),
        };
        self.recorder.push(bounds, event);
    }

    /// What has become of it since the last look.
    fn look(&mut self, service: usize) {
        let Self { world, recorder, watched, .. } = self;
        let Watcher { watch, by, told } = &mut watched[service];
        let (looked, bounds) = recorder.timed(|| poll_once(&mut watch.changed()));
        let event = match looked {
            Poll::Ready(Ok(Change::Ready(instance) | Change::Replaced(instance))) => {
                *told = Some((instance.mark, instance.generation));
                Event::Read([Some(instance.mark), None, None])
            }
            Poll::Ready(Ok(Change::Failed(_))) => {
                let (_, generation) = told.take().expect("what was not ready does not fail");
                Event::Met { service, generation: generation + 1 }
            }
            Poll::Ready(Err(WatchError::Over(_))) => {
                let (by, generation) = by.expect("nobody's watch is never over");
                watched[service] = world.watcher(service);
                Event::Met { service: by, generation: generation + 1 }
            }
            Poll::Ready(Err(other)) => panic!("{other}"),
            // Nothing: it is so still.
            Poll::Pending => {
                let Some((mark, _)) = *told else { return };
                Event::Read([Some(mark), None, None])
            }
        };
        self.recorder.push(bounds, event);
    }

    /// Two or three at one instant.
    fn read_all(&mut self) {
        let World { registry, ids, .. } = self.world;
        let (a, b, c) = (self.any(), self.any(), self.any());
        let of = |guard: Guard<Value>| Some(guard.mark);
        let (read, bounds) = if self.random.below(2) == 0 {
            self.recorder.timed(|| {
                let (a, b) = registry.get_all((ids[a], ids[b]))?;
                Ok([of(a), of(b), None])
            })
        } else {
            self.recorder.timed(|| {
                let (a, b, c) = registry.get_all((ids[a], ids[b], ids[c]))?;
                Ok([of(a), of(b), of(c)])
            })
        };
        let event = match read {
            Ok(marks) => Event::Read(marks),
            Err(GetAllError::NotReady(why)) => self.world.refused(why),
            Err(GetAllError::Contended { .. }) => return,
            Err(other) => panic!("{other}"),
        };
        self.recorder.push(bounds, event);
    }

    fn fail(&mut self, service: usize) {
        let World { registry, ids, .. } = self.world;
        let (_, bounds) = self.recorder.timed(|| registry.fail(ids[service], "failed").unwrap());
        self.failed(bounds, service, true);
    }

    fn report(&mut self) {
        let Some(met) = &self.met else { return };
        let registry = &self.world.registry;
        let (report, bounds) = self.recorder.timed(|| registry.report(met, "broken").unwrap());
        let (service, is_done) = (met.service, matches!(report, Report::Failed(_)));
        self.failed(bounds, service, is_done);
    }

    fn failed(&mut self, bounds: Bounds, service: usize, is_done: bool) {
        let event =
            if is_done { Event::Failed { service } } else { Event::MayHaveFailed { service } };
        self.recorder.push(bounds, event);
    }

    /// The next thing that somebody does who provides the service.
    fn provide(&mut self, service: usize) {
        self.hands[service] = match mem::take(&mut self.hands[service]) {
            Hand::Empty => self.begin(service),
            Hand::Attempt(attempt, value, mut left) => match left.pop() {
                Some(dependency) => self.wait_for(attempt, value, left, dependency),
                None => self.ready(attempt, value),
            },
            Hand::Running(running, value) => match self.random.below(6) {
                0 => self.end(running, service),
                1 => self.drop(running, service),
                _ => self.replace(running, value),
            },
        };
    }

    fn begin(&mut self, service: usize) -> Hand {
        let provider = &self.world.providers[service];
        let (begun, bounds) = self.recorder.timed(|| poll_once(&mut provider.begin()));
        let Poll::Ready(attempt) = begun else { return Hand::Empty };
        let attempt = attempt.unwrap();
        let generation = attempt.generation();
        self.recorder.push(bounds, Event::Met { service, generation });
        let World { dependencies, declared, fickle, .. } = self.world;
        let mut left = dependencies[service].to_vec();
        left.retain(|_| *declared || self.random.below(100) >= *fickle);
        if left.len() == 2 && self.random.below(2) == 0 {
            left.reverse();
        }
        let mark = self.mark();
        let nothing = [None; SERVICES];
        let (on, started_with) = (nothing, nothing);
        let value = Value { mark, service, generation, version: 0, on, started_with };
        Hand::Attempt(attempt, value, left)
    }

    fn wait_for(
        &mut self,
        attempt: Attempt<Value>,
        mut value: Value,
        mut left: Vec<usize>,
        dependency: usize,
    ) -> Hand {
        let (id, kind) = (self.world.ids[dependency], self.world.kinds[value.service][dependency]);
        let (looked, bounds) = match kind {
            Kind::Hard => self.recorder.timed(|| poll_once(&mut attempt.wait_for(id))),
            Kind::Start => self.recorder.timed(|| poll_once(&mut attempt.wait_to_start(id))),
            Kind::Watched => {
                let by = Some((value.service, value.generation));
                let watch = attempt.watch(id).unwrap();
                self.watched[dependency] = Watcher { watch, by, told: None };
                return Hand::Attempt(attempt, value, left);
            }
        };
        match looked {
            Poll::Ready(Ok(instance)) => {
                self.recorder.push(bounds, Event::Read([Some(instance.mark), None, None]));
                match kind {
                    Kind::Start => value.start_with(&instance),
                    _ => value.add(&instance),
                }
                Hand::Attempt(attempt, value, left)
            }
            Poll::Ready(Err(WaitForError::Overtaken(_))) => {
                let (service, generation) = (value.service, value.generation + 1);
                self.recorder.push(bounds, Event::Met { service, generation });
                Hand::Empty
            }
            Poll::Ready(Err(other)) => panic!("{other}"),
            Poll::Pending => {
                left.push(dependency);
                Hand::Attempt(attempt, value, left)
            }
        }
    }

    fn ready(&mut self, attempt: Attempt<Value>, value: Value) -> Hand {
        let (ready, bounds) = self.recorder.timed(|| attempt.ready(value).ok());
        match ready {
            Some(running) => {
                self.recorder.push(bounds, Event::Published(value));
                Hand::Running(running, value)
            }
            None => {
                self.recorder.push(bounds, Event::Refused(value));
                Hand::Empty
            }
        }
    }

    fn replace(&mut self, running: Running<Value>, old: Value) -> Hand {
        let value = Value { mark: self.mark(), version: old.version + 1, ..old };
        let (replaced, bounds) = self.recorder.timed(|| running.replace(value).is_ok());
        if replaced {
            self.recorder.push(bounds, Event::Published(value));
            Hand::Running(running, value)
        } else {
            self.recorder.push(bounds, Event::Refused(value));
            Hand::Empty
        }
    }

    fn end(&mut self, running: Running<Value>, service: usize) -> Hand {
        let (fell, bounds) = self.recorder.timed(|| running.fail("changed"));
        // None where another cascade is on it, which may be on its way.
        self.failed(bounds, service, fell.went_down > 0);
        Hand::Empty
    }

    fn drop(&mut self, running: Running<Value>, service: usize) -> Hand {
        let ((), bounds) = self.recorder.timed(|| drop(running));
        self.failed(bounds, service, false);
        Hand::Empty
    }

    fn mark(&mut self) -> u64 {
        self.next_mark += 1;
        self.next_mark
    }
}

/// Plays rounds until so many operations are recorded, and checks each.
pub(crate) fn run(operations: usize, seed: &Seed) -> Figures {
    let mut figures = Figures::default();
    let mut random = seed.random(0);
    while figures.operations < operations {
        for threads in 2..=4 {
            let worlds: Vec<World> = (0..ROUNDS).map(|_| World::new(&mut random)).collect();
            let (beginning, stream) = (Instant::now(), random.next());
            let played = crew(threads, |thread, gate| {
                let mut random = seed.random(stream ^ thread as u64);
                play(&worlds, thread, gate, beginning, &mut random)
            });
            for (round, world) in worlds.iter().enumerate() {
                let history: Vec<_> =
                    played.iter().flat_map(|(by, _)| by[round].iter().copied()).collect();
                let checked = lifetimes::check(&history).and_then(|()| {
                    world.check_quiet().map_err(|why| format!("{why}:\n{}", Table(&history)))
                });
                if let Err(why) = checked {
                    panic!("after {figures}: {why}");
                }
                figures.rounds += 1;
                figures.operations += history.len();
            }
        }
    }
    figures
}

/// One thread through all rounds. What it holds in the end is dropped when it is all checked: what is ready is to
/// be ready still.
fn play(
    worlds: &[World],
    thread: usize,
    gate: &Gate,
    beginning: Instant,
    random: &mut Random,
) -> (Vec<Vec<Recorded<Event>>>, Vec<Vec<Hand>>) {
    let mut hands = vec![];
    let records = worlds.iter().enumerate().map(|(round, world)| {
        let cached = world.ids.iter().map(|&id| world.registry.cached(id).unwrap());
        let mut player = Player {
            world,
            recorder: Recorder::new(thread, beginning, MOST),
            random: &mut *random,
            hands: world.ids.iter().map(|_| Hand::Empty).collect(),
            cached: cached.collect(),
            watched: (0..world.ids.len()).map(|service| world.watcher(service)).collect(),
            met: None,
            next_mark: (thread as u64 + 1) * 1_000,
        };
        if thread == round % 2 {
            player.set_up();
        }
        gate.pass(round);
        player.play();
        hands.push(player.hands);
        player.recorder.into_records()
    });
    (records.collect(), hands)
}
