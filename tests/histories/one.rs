//! One service in the hands of several threads: every answer, and the order of all of them.
//!
//! A round is short, so that its history can be checked exactly: each thread does 6 to 12 operations on a fresh
//! service, which is down, starting, or ready at first. Any thread may begin an attempt; who has one, or a running
//! handle, keeps it to itself, but the handle of the first value is everybody's in some rounds. Some services
//! have dependents that nobody provides: a failure of them takes longer, and more falls into it.

use std::{
    array, mem,
    sync::{Arc, Mutex},
    task::Poll,
    time::Instant,
};

use mainstay::{
    Attempt, Cached, Cascade, GetError, Guard, Instance, NotReady, Provider, Registry, Report,
    Running, ServiceId,
};

use super::{
    Figures,
    linearize::{self, Operation, THREADS},
    record::{Bounds, Gate, Recorded, Recorder, crew},
    service::{Answer, Call, Mark, Phase, Service},
    support::{Random, Seed, poll_once},
};

/// Rounds that a crew does before their histories are checked.
const ROUNDS: usize = 200;

/// The most operations of a thread in a round; a refused `get` counts twice.
const MOST: usize = 2 * 12;

const FIRST: Mark = 1;

/// A value that takes a moment to be moved to its place: more falls between the steps of a publication.
struct Value {
    mark: Mark,
    _weight: [u64; 1_000],
}

fn value(mark: Mark) -> Value {
    Value { mark, _weight: array::from_fn(|_| mark) }
}

/// What one round is played with.
struct World {
    registry: Registry,
    id: ServiceId<Value>,
    provider: Provider<Value>,
    start: Service,
    everybodys: Option<Running<Value>>,
    /// What one of the threads has in its hands at first.
    somebodys: Mutex<Hands>,
}

/// What a thread holds of the service.
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
            builder.add_dependency(dependent, id).unwrap();
        }
        let registry = builder.build();
        let provider = registry.provide(id).unwrap();
        let mut hands = Hands::default();
        let mut everybodys = None;
        let phase = match random.below(6) {
            0 => Phase::Down,
            1 => {
                hands.attempt = Some(provider.begin().wait().unwrap());
                Phase::Starting
            }
            kind => {
                let running = provider.begin().wait().unwrap().ready(value(FIRST)).unwrap();
                if kind < 4 {
                    everybodys = Some(running)
                } else {
                    hands.running = Some(running)
                }
                Phase::Ready(FIRST)
            }
        };
        let (start, somebodys) = (Service::new(0, phase), Mutex::new(hands));
        Self { registry, id, provider, start, everybodys, somebodys }
    }
}

/// One thread in one round.
struct Player<'a> {
    world: &'a World,
    recorder: Recorder<Operation>,
    random: &'a mut Random,
    hands: Hands,
    cached: Cached<Value>,
    /// An instance that it has read, to be reported.
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
                48..57 => self.report(),
                57..65 => self.replace_everybodys(),
                _ => self.provide(),
            }
        }
    }

    fn read(&mut self) {
        let World { registry, id, .. } = self.world;
        type Read = Result<(u64, Mark), Option<NotReady>>;
        let of = |instance: &Instance<Value>| (Instance::generation(instance), instance.mark);
        let why = |error| match error {
            GetError::NotReady(why) => Some(why),
            other => panic!("{other}"),
        };
        let (read, bounds): (Read, _) = match self.random.below(8) {
            0..3 => self.recorder.timed(|| {
                let guard = registry.get(*id).map_err(why)?;
                Ok((Guard::generation(&guard), guard.mark))
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
            Ok((generation, value)) => {
                self.push(bounds, Call::Get, Answer::Value { generation, value });
            }
            Err(why) => {
                self.push(bounds, Call::Get, Answer::NotReady);
                if let Some(NotReady { generation, phase, .. }) = why {
                    self.push(bounds, Call::Why, Answer::Is { generation, phase });
                }
            }
        }
    }

    fn status(&mut self) {
        let World { registry, id, .. } = self.world;
        let (status, bounds) = self.recorder.timed(|| registry.status(*id).unwrap());
        let answer = Answer::Is { generation: status.generation, phase: status.phase };
        self.push(bounds, Call::Status, answer);
    }

    fn fail(&mut self) {
        let World { registry, id, .. } = self.world;
        let (fell, bounds) = self.recorder.timed(|| registry.fail(*id, "failed").unwrap());
        self.push(bounds, Call::Fail, failed(fell));
    }

    fn report(&mut self) {
        let Some(met) = &self.met else { return self.read() };
        let registry = &self.world.registry;
        let (report, bounds) = self.recorder.timed(|| registry.report(met, "broken").unwrap());
        let call = Call::Report { generation: Instance::generation(met), value: met.mark };
        let answer = match report {
            Report::Failed(fell) => failed(fell),
            Report::AlreadyFailed => Answer::AlreadyFailed,
            Report::Replaced => Answer::Replaced,
        };
        self.push(bounds, call, answer);
    }

    fn replace_everybodys(&mut self) {
        let world = self.world;
        match &world.everybodys {
            Some(running) => self.replace(running),
            None => self.provide(),
        }
    }

    fn replace(&mut self, running: &Running<Value>) {
        let (generation, value) = (running.generation(), self.fresh());
        let (back, bounds) =
            self.recorder.timed(|| running.replace(value).map_err(|refused| refused.value.mark));
        self.accepted_or_back(bounds, |value| Call::Replace { generation, value }, back);
    }

    /// The next thing that somebody does who provides the service.
    fn provide(&mut self) {
        if let Some(attempt) = self.hands.attempt.take() {
            return self.go_on_with(attempt);
        }
        if let Some(running) = self.hands.running.take() {
            if self.random.below(3) > 0 {
                self.replace(&running);
                self.hands.running = Some(running);
            } else {
                let generation = running.generation();
                let (fell, bounds) = self.recorder.timed(|| running.fail("changed"));
                self.push(bounds, Call::End { generation }, failed(fell));
            }
            return;
        }
        let provider = &self.world.provider;
        let (begun, bounds) = self.recorder.timed(|| poll_once(&mut provider.begin()));
        let answer = match begun {
            Poll::Ready(attempt) => {
                let attempt = attempt.unwrap();
                let generation = attempt.generation();
                self.hands.attempt = Some(attempt);
                Answer::Begun { generation }
            }
            Poll::Pending => Answer::Held,
        };
        self.push(bounds, Call::Begin, answer);
    }

    fn go_on_with(&mut self, attempt: Attempt<Value>) {
        let generation = attempt.generation();
        match self.random.below(8) {
            0 => {
                let (given, bounds) = self.recorder.timed(|| attempt.fail("not now"));
                let answer = if given.is_ok() { Answer::Accepted } else { Answer::Refused };
                self.push(bounds, Call::GiveBack { generation }, answer);
            }
            1 => {
                let (overtaken, bounds) = self.recorder.timed(|| attempt.is_overtaken());
                let answer = if overtaken { Answer::Yes } else { Answer::No };
                self.push(bounds, Call::IsOvertaken { generation }, answer);
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

    /// The call put in the last mark that was made; if it was refused, the value is back.
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
                assert_eq!(back, mark, "another value came back");
                Answer::Refused
            }
        };
        self.push(bounds, call(mark), answer);
    }

    fn push(&mut self, bounds: Bounds, call: Call, answer: Answer) {
        self.recorder.push(bounds, Operation { call, answer });
    }
}

fn failed(Cascade { went_down, overtaken, .. }: Cascade) -> Answer {
    Answer::Failed { went_down, overtaken }
}

/// Plays rounds until so many operations are recorded, and checks each.
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
                history[0].extend(last_look(world, beginning, &mut random));
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

/// When all have ended: what went wrong for good shows then.
fn last_look(world: &World, beginning: Instant, random: &mut Random) -> Vec<Recorded<Operation>> {
    let mut player = Player::new(world, 0, beginning, random);
    player.read();
    player.status();
    player.recorder.into_records()
}

/// One thread through all rounds. What it holds in the end is dropped when all have ended: a drop would be an
/// operation more.
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
            player.hands = mem::take(&mut *world.somebodys.lock().unwrap());
        }
        gate.pass(round);
        player.play();
        hands.push(player.hands);
        player.recorder.into_records()
    });
    (records.collect(), hands)
}
