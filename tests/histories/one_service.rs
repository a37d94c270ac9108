//! One service and several threads: every answer, and the order of all of them.
//!
//! A round is short, so that its history can be checked exactly: each thread does 6 to 12
//! operations on a new service, which is down, starting or ready at first. Any thread may begin an
//! attempt. A thread does not share its attempt or running handle, but in some rounds all threads
//! share the handle of the first value. Some services have dependents without a provider. A
//! failure of such a service takes longer, and more operations overlap with it.

use std::{
    array, mem,
    sync::{Arc, Mutex},
    task::Poll,
    time::Instant,
};

use mainstay::{
    Attempt, Cached, Cascade, FailOutcome, Guard, Instance, InstanceId, Provider, Registry,
    Running, ServiceId,
    error::{DependencyUnavailable, GetError, Unavailable},
};

use super::{
    Figures,
    linearize::{self, Operation, THREADS},
    record::{Bounds, Gate, Recorded, Recorder, crew},
    service::{Answer, Call, Mark, Phase, Service},
    support::{Random, Seed, poll_once},
};

/// The rounds of a crew before their histories are checked.
const ROUNDS: usize = 200;

/// The most operations of a thread in a round; a refused `get` counts twice.
const MOST: usize = 2 * 12;

const FIRST: Mark = 1;

/// A large value, so that more operations fall between the steps of a publication.
struct Value {
    mark: Mark,
    _weight: [u64; 1_000],
}

fn value(mark: Mark) -> Value {
    Value { mark, _weight: array::from_fn(|_| mark) }
}

/// The registry of one round.
struct World {
    registry: Registry,
    id: ServiceId<Value>,
    provider: Provider<Value>,
    start: Service,
    shared: Option<Running<Value>>,
    /// The handles that one of the threads holds at first.
    first_hands: Mutex<Hands>,
}

/// The handles of a thread.
#[derive(Default)]
struct Hands {
    attempt: Option<Attempt<Value>>,
    running: Option<Running<Value>>,
}

impl World {
    fn new(random: &mut Random) -> Self {
        let dependents = [0, 0, 20, 200][random.below(4)];
        let mut builder = Registry::builder(1 + dependents).unwrap();
        let id = builder.register("service").unwrap();
        for dependent in 0..dependents {
            let dependent = builder.register::<()>(&dependent.to_string()).unwrap();
            builder.depends(dependent).on(id).unwrap();
        }
        let registry = builder.build();
        let provider = registry.provide(id).unwrap();
        let mut hands = Hands::default();
        let mut shared = None;
        let phase = match random.below(6) {
            0 => Phase::Down,
            1 => {
                hands.attempt = Some(provider.begin().wait_blocking().unwrap());
                Phase::Starting
            }
            kind => {
                let running =
                    provider.begin().wait_blocking().unwrap().ready(value(FIRST)).unwrap();
                if kind < 4 {
                    shared = Some(running)
                } else {
                    hands.running = Some(running)
                }
                Phase::Ready(FIRST)
            }
        };
        let (start, first_hands) = (Service::new(0, phase), Mutex::new(hands));
        Self { registry, id, provider, start, shared, first_hands }
    }
}

/// One thread in one round.
struct Player<'a> {
    world: &'a World,
    recorder: Recorder<Operation>,
    random: &'a mut Random,
    hands: Hands,
    cached: Cached<Value>,
    /// An instance that it has read and may report.
    met: Option<Arc<Instance<Value>>>,
    next_mark: Mark,
}

impl<'a> Player<'a> {
    fn new(world: &'a World, thread: usize, beginning: Instant, random: &'a mut Random) -> Self {
        Self {
            world,
            recorder: Recorder::new(thread, beginning, MOST),
            random,
            hands: Hands::default(),
            cached: world.registry.cached(world.id).unwrap(),
            met: world.registry.get_arc(world.id).ok(),
            next_mark: (thread as Mark + 1) * 100,
        }
    }

    fn play(&mut self) {
        for _ in 0..6 + self.random.below(7) {
            if self.random.below(12) == 0 {
                self.random.pause();
            }
            match self.random.below(100) {
                0..35 => self.read(),
                35..40 => self.status(),
                40..48 => self.fail(),
                48..57 => self.fail_instance(),
                57..65 => self.replace_shared(),
                _ => self.provide(),
            }
        }
    }

    fn read(&mut self) {
        let World { registry, id, .. } = self.world;
        type Read = Result<(u64, u64, Mark), Option<DependencyUnavailable>>;
        let of = |instance: &Instance<Value>| {
            (Instance::generation(instance).get(), Instance::revision(instance), instance.mark)
        };
        let why = |error| match error {
            GetError::NotReady(why) => Some(why),
            other => panic!("{other}"),
        };
        let (read, bounds): (Read, _) = match self.random.below(8) {
            0..3 => self.recorder.timed(|| {
                let guard = registry.get(*id).map_err(why)?;
                Ok(of(Guard::instance(&guard)))
            }),
            3..5 => {
                let (read, bounds) = self.recorder.timed(|| registry.get_arc(*id));
                self.met = read.as_ref().ok().cloned().or(self.met.take());
                (read.map(|instance| of(&instance)).map_err(why), bounds)
            }
            5..7 => {
                let Self { recorder, cached, .. } = self;
                recorder.timed(|| cached.get().map(of).map_err(why))
            }
            _ => self.recorder.timed(|| match poll_once(&mut registry.wait_ready(*id)) {
                Poll::Ready(instance) => Ok(of(&instance.unwrap())),
                Poll::Pending => Err(None),
            }),
        };
        match read {
            Ok((generation, revision, value)) => {
                self.push(bounds, Call::Get, Answer::Value { generation, revision, value });
            }
            Err(why) => {
                self.push(bounds, Call::Get, Answer::NotReady);
                if let Some(DependencyUnavailable {
                    generation,
                    kind: Unavailable::NotReady { phase },
                    ..
                }) = why
                {
                    self.push(
                        bounds,
                        Call::Why,
                        Answer::Is { generation: generation.get(), phase },
                    );
                }
            }
        }
    }

    fn status(&mut self) {
        let World { registry, id, .. } = self.world;
        let (status, bounds) = self.recorder.timed(|| registry.status(*id).unwrap());
        let answer = Answer::Is { generation: status.generation.get(), phase: status.phase };
        self.push(bounds, Call::Status, answer);
    }

    fn fail(&mut self) {
        let World { registry, id, .. } = self.world;
        let (cascade, bounds) = self.recorder.timed(|| registry.fail(*id, "failed").unwrap());
        self.push(bounds, Call::Fail, failed(cascade));
    }

    fn fail_instance(&mut self) {
        let Some(met) = &self.met else { return self.read() };
        let mut broken = InstanceId::from(met);
        if self.random.below(8) == 0 {
            broken.revision = None;
        }
        let registry = &self.world.registry;
        let (outcome, bounds) =
            self.recorder.timed(|| registry.fail_instance(broken, "broken").unwrap());
        let InstanceId { generation, revision, .. } = broken;
        let call = Call::FailInstance { generation: generation.get(), revision };
        let answer = match outcome {
            FailOutcome::Failed(cascade) => failed(cascade),
            FailOutcome::AlreadyFailed => Answer::AlreadyFailed,
            FailOutcome::Replaced => Answer::Replaced,
        };
        self.push(bounds, call, answer);
    }

    fn replace_shared(&mut self) {
        let world = self.world;
        match &world.shared {
            Some(running) => self.replace(running),
            None => self.provide(),
        }
    }

    fn replace(&mut self, running: &Running<Value>) {
        let (generation, value) = (running.generation().get(), self.fresh());
        let (back, bounds) =
            self.recorder.timed(|| running.replace(value).map_err(|refused| refused.value.mark));
        self.accepted_or_back(bounds, |value| Call::Replace { generation, value }, back);
    }

    /// The next step of the loop of a provider.
    fn provide(&mut self) {
        if let Some(attempt) = self.hands.attempt.take() {
            return self.continue_attempt(attempt);
        }
        if let Some(running) = self.hands.running.take() {
            if self.random.below(3) > 0 {
                self.replace(&running);
                self.hands.running = Some(running);
            } else {
                let generation = running.generation().get();
                let (cascade, bounds) = self.recorder.timed(|| running.fail("changed"));
                self.push(bounds, Call::End { generation }, failed(cascade));
            }
            return;
        }
        let provider = &self.world.provider;
        let (begun, bounds) = self.recorder.timed(|| poll_once(&mut provider.begin()));
        let answer = match begun {
            Poll::Ready(attempt) => {
                let attempt = attempt.unwrap();
                let generation = attempt.generation().get();
                self.hands.attempt = Some(attempt);
                Answer::Begun { generation }
            }
            Poll::Pending => Answer::Held,
        };
        self.push(bounds, Call::Begin, answer);
    }

    fn continue_attempt(&mut self, attempt: Attempt<Value>) {
        let generation = attempt.generation().get();
        match self.random.below(8) {
            0 => {
                let (given, bounds) = self.recorder.timed(|| attempt.fail("not now"));
                let answer = if given.is_ok() { Answer::Accepted } else { Answer::Refused };
                self.push(bounds, Call::GiveBack { generation }, answer);
            }
            1 => {
                let (invalidated, bounds) = self.recorder.timed(|| attempt.is_invalidated());
                let answer = if invalidated { Answer::Yes } else { Answer::No };
                self.push(bounds, Call::IsInvalidated { generation }, answer);
                self.hands.attempt = Some(attempt);
            }
            _ => {
                let value = self.fresh();
                let (ready, bounds) = self
                    .recorder
                    .timed(|| attempt.ready(value).map_err(|refused| refused.into_value().mark));
                let back = ready.map(|running| self.hands.running = Some(running));
                self.accepted_or_back(bounds, |value| Call::Ready { generation, value }, back);
            }
        }
    }

    fn fresh(&mut self) -> Value {
        self.next_mark += 1;
        value(self.next_mark)
    }

    /// Records a call with the last mark. If the call was refused, `back` is the returned value.
    fn accepted_or_back(
        &mut self,
        bounds: Bounds,
        call: impl Fn(Mark) -> Call,
        back: Result<(), Mark>,
    ) {
        let mark = self.next_mark;
        let answer = match back {
            Ok(()) => Answer::Accepted,
            Err(back) => {
                assert_eq!(back, mark, "another value was returned");
                Answer::Refused
            }
        };
        self.push(bounds, call(mark), answer);
    }

    fn push(&mut self, bounds: Bounds, call: Call, answer: Answer) {
        self.recorder.push(bounds, Operation { call, answer });
    }
}

fn failed(Cascade { failed, invalidated, .. }: Cascade) -> Answer {
    Answer::Failed { failed, invalidated }
}

/// Runs rounds until `operations` operations are recorded, and checks each round.
pub(crate) fn run(operations: usize, seed: &Seed) -> Figures {
    let mut figures = Figures::default();
    let mut random = seed.random(0);
    while figures.operations < operations {
        for threads in 2..=THREADS {
            let worlds: Vec<World> = (0..ROUNDS).map(|_| World::new(&mut random)).collect();
            let (beginning, stream) = (Instant::now(), random.next());
            let played = crew(threads, |thread, gate| {
                let mut random = seed.random(stream ^ thread as u64);
                play(&worlds, thread, gate, beginning, &mut random)
            });
            for (round, world) in worlds.iter().enumerate() {
                let mut history: Vec<_> = played.iter().map(|(by, _)| by[round].clone()).collect();
                history[0].extend(final_reads(world, beginning, &mut random));
                if let Err(why) = linearize::check(world.start, &history) {
                    panic!("after {figures}: {why}");
                }
                figures.rounds += 1;
                figures.operations += history.iter().map(Vec::len).sum::<usize>();
            }
        }
    }
    figures
}

/// Reads, and a `begin`, after all threads have ended, which show a state that stays wrong.
fn final_reads(world: &World, beginning: Instant, random: &mut Random) -> Vec<Recorded<Operation>> {
    let mut player = Player::new(world, 0, beginning, random);
    player.read();
    player.status();
    player.provide();
    player.recorder.into_records()
}

/// One thread through all rounds. Its handles are dropped after all threads have ended, because a
/// drop would be a further operation.
fn play(
    worlds: &[World],
    thread: usize,
    gate: &Gate,
    beginning: Instant,
    random: &mut Random,
) -> (Vec<Vec<Recorded<Operation>>>, Vec<Hands>) {
    let mut hands = vec![];
    let records = worlds.iter().enumerate().map(|(round, world)| {
        let mut player = Player::new(world, thread, beginning, random);
        if thread == round % 2 {
            player.hands = mem::take(&mut *world.first_hands.lock().unwrap());
        }
        gate.pass(round);
        player.play();
        hands.push(player.hands);
        player.recorder.into_records()
    });
    (records.collect(), hands)
}
