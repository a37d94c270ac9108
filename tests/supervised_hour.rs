//! Two hours of supervised services under random failures, by a clock that does not take them.
//!
//! Sixteen services in a random graph of dependencies of all kinds; builds that give an error, panic, hang, or take their time; instances that are
//! failed and reported, services that are reset. Whenever nothing moves any more:
//!
//! - no ready service rests on an instance that has failed (I2), nor on one that is away for longer than it can stand;
//! - a service was charged with its own failures and no others, as the observer counts them;
//! - one that is broken had one charge more than it may have within its window.
//!
//! Once nothing goes wrong any more, every service is up, or broken, or waits for one that is; after a reset all are up;
//! the shutdown hangs nowhere, and leaves no instance, no task and no sleeper behind.

mod support;

use std::{
    collections::VecDeque,
    panic,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Wake, Waker},
    time::{Duration, Instant},
};

use mainstay::{
    Clock, Doing, Event, EventKind, Failure, Instance, Observer, Phase, Reason, Registry, Restart,
    ServiceId, VirtualClock,
};
use support::{
    Random, Seed,
    stage::{BoxError, Task, ms},
};

const SERVICES: usize = 16;
const HOURS: u64 = 2;
const CHARGES: usize = 8;
const WINDOW: Duration = Duration::from_secs(60);
const GRACE: Duration = ms(500);

type Id = ServiceId<Rests>;

/// What an instance was built from.
struct Rests {
    on: Vec<(Id, u64)>,
    /// What may be away for the grace time.
    stands: Vec<Id>,
    alive: Arc<AtomicUsize>,
}

impl Rests {
    fn new(on: Vec<(Id, u64)>, stands: Vec<Id>, alive: &Arc<AtomicUsize>) -> Self {
        alive.fetch_add(1, Ordering::Relaxed);
        Self { on, stands, alive: Arc::clone(alive) }
    }
}

impl Drop for Rests {
    fn drop(&mut self) {
        self.alive.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What the observer has seen of one service.
#[derive(Default)]
struct Seen {
    /// Its own failures within the window before the last.
    recent: VecDeque<Instant>,
    broken: usize,
    not_back: usize,
    builds: usize,
    own: usize,
    others: usize,
}

/// Counts what a service should be charged with.
struct Books {
    clock: VirtualClock,
    of: Mutex<Vec<Seen>>,
    wrong: Mutex<Option<String>>,
}

struct Watches(Arc<Books>);

impl Observer for Watches {
    fn event(&self, _: &Registry, event: &Event<'_>) {
        let books = &self.0;
        let Ok(service) = event.service[1..].parse::<usize>() else { return };
        let mut of = books.of.lock().unwrap();
        let seen = &mut of[service];
        match &event.kind {
            EventKind::Failed(failure) | EventKind::Overtaken(failure)
                if failure.root != failure.service =>
            {
                seen.others += 1;
            }
            EventKind::Failed(Failure { reason: Reason::NotBack { .. }, .. }) => seen.not_back += 1,
            EventKind::Failed(_) | EventKind::Overtaken(_) | EventKind::GivenUp(_) => {
                seen.own += 1;
                seen.recent.push_back(books.clock.now());
            }
            EventKind::Broken(_) => {
                seen.broken += 1;
                let now = books.clock.now();
                seen.recent.retain(|&at| now - at < WINDOW);
                if seen.recent.len() != CHARGES + 1 {
                    let wrong = format!("{} broke of {} charges", event.service, seen.recent.len());
                    *books.wrong.lock().unwrap() = Some(wrong);
                }
            }
            EventKind::Begun => seen.builds += 1,
            _ => {}
        }
    }
}

/// That somebody was woken.
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

struct World {
    registry: Registry,
    clock: VirtualClock,
    books: Arc<Books>,
    ids: Vec<Id>,
    tasks: Vec<Task>,
    woken: Arc<Woken>,
    alive: Arc<AtomicUsize>,
    /// Of each that is not ready: in which generation, and since when.
    away: Vec<Option<(u64, Instant)>>,
    /// Nothing goes wrong any more.
    calm: Arc<AtomicBool>,
}

impl World {
    fn new(random: &mut Random) -> Self {
        let clock = VirtualClock::new();
        let of = Mutex::new((0..SERVICES).map(|_| Seen::default()).collect());
        let books = Arc::new(Books { clock: clock.clone(), of, wrong: Mutex::new(None) });
        let builder = Registry::builder(SERVICES).unwrap().clock(clock.clone());
        let registry = builder.observer(Watches(Arc::clone(&books))).build();
        let id = |i| registry.register(&format!("s{i}")).unwrap();
        let ids = (0..SERVICES).map(id).collect();
        let woken = Arc::new(Woken(AtomicBool::new(true)));
        let (tasks, alive, calm) = (Vec::new(), Arc::default(), Arc::default());
        let away = vec![None; SERVICES];
        let mut world = Self { registry, clock, books, ids, tasks, woken, alive, away, calm };
        (0..SERVICES).for_each(|service| world.supervise(service, random.clone()));
        world
    }

    fn supervise(&mut self, service: usize, mut random: Random) {
        for _ in 0..service {
            random.next();
        }
        // Of some before it, another choice at each build.
        let below: Vec<Id> = self.ids[service.saturating_sub(5)..service].to_vec();
        let restart = Restart::default()
            .backoff(ms(50), ms(5_000))
            .stable_after(ms(20_000))
            .at_most(CHARGES as u32, WINDOW)
            .build_timeout(ms(1_000));
        let (clock, alive, calm) =
            (self.clock.clone(), Arc::clone(&self.alive), Arc::clone(&self.calm));
        let supervisor = self.registry.supervise(self.ids[service]).unwrap().restart(restart);
        let supervisor = supervisor.on_stop(ms(1_000), |instance| async move { drop(instance) });
        self.tasks.push(Box::pin(supervisor.run(move |build| {
            let calm = calm.load(Ordering::Relaxed);
            let fate = if calm { 99 } else { random.below(100) };
            let mut from = below.clone();
            from.retain(|_| random.below(3) == 0);
            let from: Vec<_> = from.into_iter().map(|id| (id, random.below(6))).collect();
            let (clock, alive) = (clock.clone(), Arc::clone(&alive));
            assert!(fate != 0, "in the call");
            async move {
                let (mut on, mut stands) = (Vec::new(), Vec::new());
                for (id, kind) in from {
                    match kind {
                        0 => drop(build.wait_to_start(id).await?),
                        1 => {
                            build.wait_with_grace(id, GRACE).await?;
                            stands.push(id);
                        }
                        _ => {
                            let instance = build.wait_for(id).await?;
                            on.push((id, Instance::generation(&instance)));
                        }
                    }
                }
                match fate {
                    1..4 => return Err::<_, BoxError>("no luck".into()),
                    4..6 => panic!("in a poll"),
                    6..8 => std::future::pending().await,
                    8..30 => clock.sleep_until(clock.now() + ms(fate as u64)).await,
                    _ => {}
                }
                Ok(Rests::new(on, stands, &alive))
            }
        })));
    }

    /// Polls until nothing moves.
    fn settle(&mut self) {
        let waker = Waker::from(Arc::clone(&self.woken));
        let mut context = Context::from_waker(&waker);
        while self.woken.0.swap(false, Ordering::Relaxed) {
            self.tasks.retain_mut(|task| task.as_mut().poll(&mut context).is_pending());
        }
    }

    fn doing(&self, id: Id) -> Doing {
        self.registry.status(id).unwrap().supervision.unwrap().doing
    }

    fn check(&mut self) {
        let now = self.clock.now();
        for (&id, away) in self.ids.iter().zip(&mut self.away) {
            let status = self.registry.status(id).unwrap();
            let since = away.filter(|(generation, _)| *generation == status.generation);
            let since = since.unwrap_or((status.generation, now));
            *away = (status.phase != Phase::Ready).then_some(since);
        }
        if let Some(wrong) = self.books.wrong.lock().unwrap().take() {
            panic!("{wrong}");
        }
        for &id in &self.ids {
            let Ok(instance) = self.registry.get(id) else { continue };
            for &(below, generation) in &instance.on {
                let now = self.registry.get(below).ok().map(|below| {
                    let below = mainstay::Guard::instance(&below);
                    Instance::generation(below)
                });
                assert_eq!(now, Some(generation), "I2: it rests on what has failed");
            }
            for stands in &instance.stands {
                let service = self.ids.iter().position(|id| id == stands).unwrap();
                let away = self.away[service].map(|(_, since)| now - since);
                assert!(away.is_none_or(|away| away < GRACE), "it cannot stand {away:?}");
            }
        }
    }

    fn disturb(&self, random: &mut Random) {
        let service = random.below(SERVICES);
        let id = self.ids[service];
        match random.below(12) {
            0 => {
                self.books.of.lock().unwrap()[service].recent.clear();
                self.registry.reset(id).unwrap();
            }
            1..4 => drop(self.registry.fail(id, "from outside").unwrap()),
            4..6 => {
                if let Ok(instance) = self.registry.get_arc(id) {
                    self.registry.report(&instance, "broken, says a reader").unwrap();
                }
            }
            _ => {}
        }
    }
}

#[test]
fn two_hours() {
    let seed = Seed::new();
    let mut random = seed.random(0);
    // Many of the builders panic.
    let hook = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let text = info.payload().downcast_ref::<&str>();
        if text.is_none_or(|text| !["in the call", "in a poll"].contains(text)) {
            hook(info);
        }
    }));
    let mut world = World::new(&mut random);
    world.settle();
    let begun = world.clock.now();
    while world.clock.now() - begun < Duration::from_secs(3_600 * HOURS) {
        world.disturb(&mut random);
        world.settle();
        world.check();
        world.clock.advance(ms(random.below(2_000) as u64));
        world.settle();
        world.check();
    }

    world.calm.store(true, Ordering::Relaxed);
    // Whoever rests, or hangs, is done within that.
    for _ in 0..100 {
        world.clock.advance(ms(200));
        world.settle();
    }
    world.check();
    for &id in &world.ids {
        let status = world.registry.status(id).unwrap();
        match world.doing(id) {
            Doing::Up => assert_eq!(status.phase, Phase::Ready),
            Doing::Broken => assert!(status.last_failure.is_some(), "and with its cause"),
            Doing::Building => {
                let root = status.blocked_by.last().expect("nothing goes wrong any more");
                let root = world.registry.find(root).unwrap();
                let root = world.registry.status(root).unwrap().supervision.unwrap().doing;
                assert_eq!(root, Doing::Broken, "{} waits for what is not broken", status.name);
            }
            doing => panic!("{} is {doing}", status.name),
        }
    }
    for &id in &world.ids {
        world.registry.reset(id).unwrap();
    }
    world.settle();
    world.registry.wait_all_ready().wait_timeout(Duration::ZERO).unwrap();

    let of = world.books.of.lock().unwrap();
    let sum = |what: fn(&Seen) -> usize| of.iter().map(what).sum::<usize>();
    println!(
        "{} builds, {} failures of their own, {} of others, {} that were not back, {} times broken",
        sum(|seen| seen.builds),
        sum(|seen| seen.own),
        sum(|seen| seen.others),
        sum(|seen| seen.not_back),
        sum(|seen| seen.broken),
    );
    assert!(sum(|seen| seen.broken) > 0 && sum(|seen| seen.others) > 100, "it was too calm");
    assert!(sum(|seen| seen.not_back) > 10, "it was too calm");
    drop(of);

    let shutdown = Arc::<Mutex<Option<mainstay::Shutdown>>>::default();
    let (ended, ends) = (Arc::clone(&shutdown), world.registry.shutdown(ms(60_000)));
    world.tasks.push(Box::pin(async move {
        let ends = ends.await;
        *ended.lock().unwrap() = Some(ends);
    }));
    world.woken.0.store(true, Ordering::Relaxed);
    world.settle();
    assert!(shutdown.lock().unwrap().take().expect("it ends").hung.is_empty());
    let left = (world.tasks.len(), world.clock.sleepers(), world.alive.load(Ordering::Relaxed));
    assert_eq!(left, (0, 0, 0), "tasks, sleepers, instances");
}
