//! A provider whose task is dropped at any of its await points.
//!
//! - The task may be dropped at each await point, after each step of its dependencies. Then its
//!   attempt has ended, no wait is counted, and the role is free.
//! - Edges that it had discovered are kept for the next attempt, and the next publication that
//!   does not use them drops them. No other edge is left.
//! - The next provider wakes every other waiter, which gets the value.
//! - The same holds if the task is dropped while another thread works on the dependencies.
//!
//! ```text
//! world:  left up │ left down, up │ right fails │ right up │ left replaced │ right down │ ...
//! task:   begin ─── wait_for(left) ────────────── wait_for(right) ─── ready ── failed ── begin ...
//!           ╳  ╳     ╳          ╳        ╳          ╳           ╳        ╳        ╳        dropped
//! here
//! ```

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

use self::Step::{Down, Fails, Replaced, Up};
use crate::support::{
    Counted, Drops, Seed, Wakes, must_finish, poll_once, poll_with, publish, registry_of, up,
};
use mainstay::{Phase, Provider, Registry, Running, ServiceId, error::WaitForError};

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
        let (registry, [left, right, top]) = registry_of(["left", "right", "top"]);
        Self { registry, left, right, top, drops: Drops::default() }
    }

    /// Provides `top` from the other two services, with a wait at each step.
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
                        Err(WaitForError::Invalidated(_)) => continue 'next,
                        Err(other) => panic!("{other}"),
                    }
                }
                let Ok(running) = attempt.ready(drops.value(sum)) else { continue };
                running.failed().await.unwrap();
            }
        })
    }

    /// Checks that a dropped task has left nothing, and that the service can be provided.
    fn check(&self, when: &str) {
        let Self { registry, left, right, top, drops } = self;
        let status = |id: ServiceId<Counted>| registry.status(id).unwrap();
        assert!(
            [*left, *right, *top].iter().all(|&id| status(id).waiters == 0),
            "{when}: a wait is counted"
        );
        assert_eq!((status(*top).phase, status(*top).has_provider), (Phase::Down, false), "{when}");
        for edge in &status(*top).dependencies {
            assert!(!edge.declared && (edge.name == "left" || edge.name == "right"), "{when}");
        }

        let (wakes, waker) = Wakes::new();
        let mut other = registry.wait_ready(*top);
        assert!(poll_with(&mut other, &waker).is_pending());
        let (provider, running) = up(registry, *top, drops.value(0));
        assert!(wakes.count() > 0, "{when}: another waiter was not woken");
        assert!(poll_once(&mut other).is_ready(), "{when}");
        assert_eq!(status(*top).dependencies, [], "{when}: an unused edge is left");
        registry.fail(*left, "no dependency of the top").unwrap();
        assert!(registry.get(*top).is_ok(), "{when}");
        drop((running, provider));
    }
}

#[derive(Debug, Clone, Copy)]
enum Step {
    /// An attempt fails, which wakes the waiters of the service without a result.
    Fails,
    Up,
    Replaced,
    Down,
}

const LEFT: usize = 0;
const RIGHT: usize = 1;

const SCRIPT: [(usize, Step); 16] = [
    (LEFT, Fails),
    (LEFT, Up),
    (LEFT, Down),
    (LEFT, Up),
    (RIGHT, Fails),
    (LEFT, Fails),
    (LEFT, Up),
    (RIGHT, Up),
    (LEFT, Replaced),
    (RIGHT, Replaced),
    (RIGHT, Fails),
    (RIGHT, Up),
    (LEFT, Down),
    (RIGHT, Down),
    (LEFT, Up),
    (RIGHT, Up),
];

/// The providers of the two dependencies, and their instances.
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
            Fails => provider.begin().wait_blocking().unwrap().fail("given up").unwrap(),
            Up | Replaced => *running = Some(publish(provider, self.drops.value(1))),
            Down => {}
        }
    }
}

#[test]
fn a_provider_dropped_at_any_await_point_leaves_no_wait_attempt_or_role() {
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
            let (left, right) = (status(world.left).waiters, status(world.right).waiters);
            places.insert((status(world.top).phase.to_string(), left, right));
            drop((task, waker));
            let when = format!("{polls} polls a step, dropped at {end}, polled: {last_poll}");
            assert_eq!(Arc::strong_count(&wakes), 1, "{when}: its waker is kept");
            world.check(&when);
        }
    }
    // Before it begins, at each wait, invalidated during a wait, and while it is ready.
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
fn a_provider_dropped_during_concurrent_changes_leaves_no_wait_attempt_or_role() {
    must_finish("a provider that is dropped during concurrent changes", || {
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
