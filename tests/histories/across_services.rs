//! Several services in chains and diamonds, which every thread provides, fails, reports, replaces
//! and reads.
//!
//! Each thread does 60 operations of all kinds in a round. A thread that provides a service does
//! not wait, but polls again later, so that all threads work all the time. Values carry the
//! generations that they depend on. Edges are declared, or discovered, or discovered by one
//! attempt and dropped by another. Some of the discovered edges are start-only, and some are only
//! watched. The closures also contain services without a provider: a cascade then takes a few
//! microseconds, and more operations overlap with it.

use std::{mem, sync::Arc, task::Poll, time::Instant};

use mainstay::{
    Attempt, FailOutcome, Instance, Phase, Provider, Registry, Running, ServiceId, Watch,
    WatchEvent,
    error::{WaitForError, WatchError},
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

/// The steps of a thread in a round. Some steps are two operations.
const STEPS: usize = 60;

/// The most operations of a thread in a round, including those that prepare the round.
const MOST: usize = 2 * STEPS + 100;

/// The dependencies of each service.
const SHAPES: [&[&[usize]]; 5] = [
    &[&[], &[0], &[1]],
    &[&[], &[0], &[1], &[2], &[3]],
    &[&[], &[0], &[0], &[1, 2]],
    &[&[], &[0], &[0], &[1, 2], &[3]],
    &[&[], &[0], &[0, 1], &[0, 2], &[0, 3]],
];

type Id = ServiceId<Value>;

/// The registry of one round.
struct World {
    registry: Registry,
    ids: Vec<Id>,
    providers: Vec<Provider<Value>>,
    dependencies: &'static [&'static [usize]],
    /// The chance in 100 that an attempt does not use a dependency that is not declared.
    fickle: usize,
    declared: bool,
    /// The kind of each dependency, by service and dependency.
    kinds: [[Kind; SERVICES]; SERVICES],
}

#[derive(Clone, Copy)]
enum Kind {
    Hard,
    Start,
    Watched,
}

/// A watch of a service, and what it has reported.
struct Watcher {
    watch: Watch<Value>,
    /// The service that watches, and its generation.
    by: Option<(usize, u64)>,
    /// The mark and generation of the value that it reported last.
    reported: Option<(u64, u64)>,
}

/// The handle that a thread holds of one service.
#[derive(Default)]
enum Hand {
    #[default]
    Empty,
    /// With the value so far, and the dependencies that are left to wait for.
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
            builder.depends(idle).on(ids[below]).unwrap();
            // Between `below` and a dependent of it, so that their failures are further apart.
            let above = dependencies.iter().position(|on| on.contains(&below));
            if let (Some(above), true) = (above, declared) {
                builder.depends(ids[above]).on(idle).unwrap();
            }
        }
        if declared {
            for (service, on) in dependencies.iter().enumerate() {
                for &dependency in *on {
                    builder.depends(ids[service]).on(ids[dependency]).unwrap();
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
        Watcher { watch, by: None, reported: None }
    }

    /// After all threads have stopped: no ready service depends on a failed instance, and each
    /// service that is down can be begun.
    fn check_final_state(&self) -> Result<(), String> {
        let generations: Vec<u64> = (0..self.ids.len()).map(|i| self.generation(i)).collect();
        for (service, &id) in self.ids.iter().enumerate() {
            match (self.registry.status(id).unwrap().phase, self.registry.get(id)) {
                (_, Ok(guard)) => {
                    for (on, generation) in guard.dependencies() {
                        if generations[on] != generation {
                            let now = generations[on];
                            return Err(format!("I2: {:?} is ready, {on} is in g{now}", *guard));
                        }
                    }
                }
                (Phase::Ready, Err(_)) => {
                    return Err(format!("A2: service {service} is ready, and cannot be read"));
                }
                (Phase::Down, _)
                    if poll_once(&mut self.providers[service].begin()).is_pending() =>
                {
                    return Err(format!("A3: service {service} is down, and cannot be begun"));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn generation(&self, service: usize) -> u64 {
        self.registry.status(self.ids[service]).unwrap().generation.get()
    }
}

/// One thread in one round.
struct Player<'a> {
    world: &'a World,
    recorder: Recorder<Event>,
    random: &'a mut Random,
    hands: Vec<Hand>,
    reads: Reads<'a>,
    watched: Vec<Watcher>,
    /// An instance that it has read and may report.
    met: Option<Arc<Instance<Value>>>,
    next_mark: u64,
}

impl Player<'_> {
    /// Publishes some services before the round.
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
                    // A service that may be a dependency, and then this one.
                    let below = self.random.below(service + 1);
                    self.read(below);
                    self.read(service);
                }
                40..50 => self.reads.all(&mut self.recorder, self.random),
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
        if self.random.below(5) == 0 {
            return self.poll_watch(service);
        }
        let met = self.reads.one(&mut self.recorder, self.random, service);
        self.met = met.or(self.met.take());
    }

    /// Polls the watch of the service.
    fn poll_watch(&mut self, service: usize) {
        let Self { world, recorder, watched, .. } = self;
        let Watcher { watch, by, reported } = &mut watched[service];
        let (polled, bounds) = recorder.timed(|| poll_once(&mut watch.changed()));
        let event = match polled {
            Poll::Ready(Ok(WatchEvent::Ready(instance) | WatchEvent::Replaced(instance))) => {
                *reported = Some((instance.mark, instance.generation));
                Event::Read([Some(instance.mark), None, None])
            }
            Poll::Ready(Ok(WatchEvent::Failed(_))) => {
                let (_, generation) = reported.take().expect("only a ready service fails");
                Event::Met { service, generation: generation + 1 }
            }
            Poll::Ready(Err(WatchError::DependentFailed(_))) => {
                let (by, generation) = by.expect("a watch of the registry does not end");
                watched[service] = world.watcher(service);
                Event::Met { service: by, generation: generation + 1 }
            }
            Poll::Ready(Err(other)) => panic!("{other}"),
            // No change: the reported value is still current.
            Poll::Pending => {
                let Some((mark, _)) = *reported else { return };
                Event::Read([Some(mark), None, None])
            }
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
        let (report, bounds) =
            self.recorder.timed(|| registry.fail_instance(met, "broken").unwrap());
        let (service, is_down) = (met.service, matches!(report, FailOutcome::Failed(_)));
        self.failed(bounds, service, is_down);
    }

    fn failed(&mut self, bounds: Bounds, service: usize, is_down: bool) {
        let event =
            if is_down { Event::Failed { service } } else { Event::MayHaveFailed { service } };
        self.recorder.push(bounds, event);
    }

    /// The next step of the loop of a provider.
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
        let generation = attempt.generation().get();
        self.recorder.push(bounds, Event::Met { service, generation });
        let World { dependencies, declared, fickle, .. } = self.world;
        let mut left = dependencies[service].to_vec();
        left.retain(|_| *declared || self.random.below(100) >= *fickle);
        if left.len() == 2 && self.random.below(2) == 0 {
            left.reverse();
        }
        Hand::Attempt(attempt, Value::new(self.mark(), service, generation), left)
    }

    fn wait_for(
        &mut self,
        attempt: Attempt<Value>,
        mut value: Value,
        mut left: Vec<usize>,
        dependency: usize,
    ) -> Hand {
        let (id, kind) = (self.world.ids[dependency], self.world.kinds[value.service][dependency]);
        let (polled, bounds) = match kind {
            Kind::Hard => self.recorder.timed(|| poll_once(&mut attempt.wait_for(id))),
            Kind::Start => self.recorder.timed(|| poll_once(&mut attempt.wait_to_start(id))),
            Kind::Watched => {
                let by = Some((value.service, value.generation));
                let watch = attempt.watch(id).unwrap();
                self.watched[dependency] = Watcher { watch, by, reported: None };
                return Hand::Attempt(attempt, value, left);
            }
        };
        match polled {
            Poll::Ready(Ok(instance)) => {
                assert_eq!(Instance::revision(&instance), instance.version, "of {instance:?}");
                self.recorder.push(bounds, Event::Read([Some(instance.mark), None, None]));
                match kind {
                    Kind::Start => value.start_with(&instance),
                    _ => value.add(&instance),
                }
                Hand::Attempt(attempt, value, left)
            }
            Poll::Ready(Err(WaitForError::Invalidated(_))) => {
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
        let (cascade, bounds) = self.recorder.timed(|| running.fail("changed"));
        // The count is 0 if another cascade takes the service down, which may be on its way.
        self.failed(bounds, service, cascade.failed > 0);
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

/// Runs rounds until `operations` operations are recorded, and checks each round.
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
                    world.check_final_state().map_err(|why| format!("{why}:\n{}", Table(&history)))
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

/// One thread through all rounds. Its handles are dropped after the final check, so that ready
/// services stay ready.
fn play(
    worlds: &[World],
    thread: usize,
    gate: &Gate,
    beginning: Instant,
    random: &mut Random,
) -> (Vec<Vec<Recorded<Event>>>, Vec<Vec<Hand>>) {
    let mut hands = vec![];
    let records = worlds.iter().enumerate().map(|(round, world)| {
        let mut player = Player {
            world,
            recorder: Recorder::new(thread, beginning, MOST),
            random: &mut *random,
            hands: world.ids.iter().map(|_| Hand::Empty).collect(),
            reads: Reads::new(&world.registry, &world.ids),
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
