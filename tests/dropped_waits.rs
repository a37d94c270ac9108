//! A provider that is dropped in the middle, wherever it waits.
//!
//! - Its task may be dropped at each of its await points, after each step of what goes on around it: what it had
//!   begun is given back, nobody is counted as waiting, its role is free.
//! - What it had discovered by then is kept for the next attempt, and dropped with the next publication that does
//!   not use it; no other edge stays.
//! - Whoever else waits is woken by the next provider, and gets what it waits for.
//! - The same where it is dropped at any moment of what other threads do.
//!
//! ```text
//! world:  left up │ left down, up │ right given up │ right up │ left replaced │ right down │ ...
//! task:   begin ─── wait_for(left) ──────────────── wait_for(right) ─── ready ── failed ── begin ...
//!           ╳  ╳     ╳          ╳        ╳           ╳           ╳        ╳        ╳        ╳   dropped here
//! ```

mod support;

use std::{
    collections::BTreeSet,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Barrier,
        atomic::{AtomicBool, Ordering},
    },
    task::Waker,
    thread,
};

use mainstay::{Phase, Provider, Registry, Running, ServiceId, WaitForError};
use support::{Counted, Drops, Seed, Wakes, again, poll_once, poll_with, up, within};

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

struct World {
    registry: Registry,
    left: ServiceId<Counted>,
    right: ServiceId<Counted>,
    top: ServiceId<Counted>,
    drops: Drops,
}

impl World {
    fn new() -> Self {
        let registry = Registry::with_capacity(3).unwrap();
        let [left, right, top] =
            ["left", "right", "top"].map(|name| registry.register(name).unwrap());
        Self { registry, left, right, top, drops: Drops::default() }
    }

    /// Provides the top from the other two, with a wait at each place where there can be one.
    fn task(&self) -> Task {
        let Self { registry, left, right, top, drops } = self;
        let (registry, left, right, top) = (registry.clone(), *left, *right, *top);
        let drops = drops.clone();
        Box::pin(async move {
            let provider = registry.provide(top).unwrap();
            'next: loop {
                let attempt = provider.begin().await.unwrap();
                let mut sum = 0;
                for below in [left, right] {
                    match attempt.wait_for(below).await {
                        Ok(instance) => sum += instance.number,
                        Err(WaitForError::Overtaken(_)) => continue 'next,
                        Err(other) => panic!("{other}"),
                    }
                }
                let Ok(running) = attempt.ready(drops.value(sum)) else { continue };
                running.failed().await.unwrap();
            }
        })
    }

    /// After the task is gone: nothing of it is left, and everything can be done as before.
    fn check(&self, when: &str) {
        let Self { registry, left, right, top, drops } = self;
        let status = |id: ServiceId<Counted>| registry.status(id).unwrap();
        assert!([*left, *right, *top].iter().all(|&id| status(id).waiting == 0), "{when}: waits");
        assert_eq!((status(*top).phase, status(*top).provided), (Phase::Down, false), "{when}");
        for edge in &status(*top).dependencies {
            assert!(!edge.declared && (edge.name == "left" || edge.name == "right"), "{when}");
        }

        let (wakes, waker) = Wakes::new();
        let mut other = registry.wait_ready(*top);
        assert!(poll_with(&mut other, &waker).is_pending());
        let (provider, running) = up(registry, *top, drops.value(0));
        assert!(wakes.count() > 0, "{when}: another was left asleep");
        assert!(poll_once(&mut other).is_ready(), "{when}");
        assert_eq!(status(*top).dependencies, [], "{when}: an edge that nothing uses");
        registry.fail(*left, "not under it").unwrap();
        assert!(registry.get(*top).is_ok(), "{when}");
        drop((running, provider));
    }
}

#[derive(Debug, Clone, Copy)]
enum Step {
    /// An attempt is given up: who waits for the service is woken for nothing.
    GivenUp,
    Up,
    Replaced,
    Down,
}

use Step::{Down, GivenUp, Replaced, Up};

const LEFT: usize = 0;
const RIGHT: usize = 1;

const SCRIPT: [(usize, Step); 16] = [
    (LEFT, GivenUp),
    (LEFT, Up),
    (LEFT, Down),
    (LEFT, Up),
    (RIGHT, GivenUp),
    (LEFT, GivenUp),
    (LEFT, Up),
    (RIGHT, Up),
    (LEFT, Replaced),
    (RIGHT, Replaced),
    (RIGHT, GivenUp),
    (RIGHT, Up),
    (LEFT, Down),
    (RIGHT, Down),
    (LEFT, Up),
    (RIGHT, Up),
];

/// Who provides the two below, and what is there at the moment.
struct Below {
    providers: [Provider<Counted>; 2],
    running: [Option<Running<Counted>>; 2],
    drops: Drops,
}

impl Below {
    fn new(world: &World) -> Self {
        let providers = [world.left, world.right].map(|id| world.registry.provide(id).unwrap());
        Self { providers, running: [None, None], drops: world.drops.clone() }
    }

    fn step(&mut self, (side, step): (usize, Step)) {
        let (provider, running) = (&self.providers[side], &mut self.running[side]);
        if let (Replaced, Some(running)) = (step, &running) {
            running.replace(self.drops.value(2)).unwrap();
            return;
        }
        *running = None;
        match step {
            GivenUp => provider.begin().wait().unwrap().fail("given up").unwrap(),
            Up | Replaced => *running = Some(again(provider, self.drops.value(1))),
            Down => {}
        }
    }
}

#[test]
fn a_provider_is_dropped_at_every_await_point() {
    let mut places = BTreeSet::new();
    for (polls, end) in (0..3).flat_map(|polls| (0..=SCRIPT.len()).map(move |end| (polls, end))) {
        for last_poll in [false, true] {
            let world = World::new();
            let mut below = Below::new(&world);
            let mut task = world.task();
            let (wakes, waker) = Wakes::new();
            for &step in &SCRIPT[..end] {
                for _ in 0..polls {
                    assert!(poll_with(&mut task, &waker).is_pending());
                }
                below.step(step);
            }
            if last_poll {
                assert!(poll_with(&mut task, &waker).is_pending());
            }
            let status = |id| world.registry.status(id).unwrap();
            let (left, right) = (status(world.left).waiting, status(world.right).waiting);
            places.insert((status(world.top).phase.to_string(), left, right));
            drop((task, waker));
            let when = format!("{polls} polls a step, dropped at {end}, polled: {last_poll}");
            assert_eq!(Arc::strong_count(&wakes), 1, "{when}: its waker is kept");
            world.check(&when);
        }
    }
    // Before it has begun, at each wait, overtaken there without knowing it yet, while it runs.
    let expected = [
        ("down", 0, 0),
        ("down", 0, 1),
        ("down", 1, 0),
        ("ready", 0, 0),
        ("starting", 0, 1),
        ("starting", 1, 0),
    ];
    let expected = expected.map(|(phase, left, right)| (phase.to_string(), left, right));
    assert_eq!(places, expected.into());
}

#[test]
fn a_provider_is_dropped_at_any_moment() {
    within("a provider that is dropped while the world goes on", || {
        let seed = Seed::new();
        let (world, start) = (World::new(), &Barrier::new(2));
        let over = &AtomicBool::new(false);
        thread::scope(|scope| {
            let (world, mut random) = (&world, seed.random(1));
            scope.spawn(move || {
                let mut below = Below::new(world);
                loop {
                    start.wait();
                    if over.load(Ordering::SeqCst) {
                        break;
                    }
                    for &step in &SCRIPT[..random.below(SCRIPT.len())] {
                        below.step(step);
                        random.pause();
                    }
                    start.wait();
                    start.wait();
                }
            });
            let mut random = seed.random(2);
            for round in 0..1_000 {
                let mut task = world.task();
                start.wait();
                for _ in 0..random.below(12) {
                    assert!(poll_with(&mut task, Waker::noop()).is_pending());
                    random.pause();
                }
                drop(task);
                start.wait();
                start.wait();
                world.check(&format!("round {round}"));
            }
            over.store(true, Ordering::SeqCst);
            start.wait();
        });
    });
}
