//! Nothing grows with time.
//!
//! Each test does the same thing over and over, and counts what is allocated: after the first rounds, and again
//! after ten times as many. Then
//!
//! - no more is alive than before, but for what epochs have not come to yet (see [`Alive::more_than`]);
//! - of the values as many were dropped as were made, once all is gone.
//!
//! What goes on: chains fail and are rebuilt along other edges each time, values are replaced, read, reported;
//! waits begin and are dropped by the million; threads come and go, with guards and cached readers; registries
//! are made and dropped, whole or in the middle of everything; several threads do all of it at once.
//!
//! `MAINSTAY_CHURN_ROUNDS` says how many first rounds there are (2,000 where it does not).

mod support;

use std::{
    alloc::System,
    cell::RefCell,
    env,
    panic::resume_unwind,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Wake, Waker},
    thread,
    time::Duration,
};

use mainstay::{
    Cached, Event, Guard, Observer, Provider, ReadyError, Registry, Report, Running, ServiceId,
    WaitForError,
};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use support::{LONG, Random, Seed, again, again_from, poll_once, poll_with, until};

#[global_allocator]
static ALLOCATED: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// What is allocated at this moment.
#[derive(Debug, Clone, Copy)]
struct Alive {
    blocks: isize,
    bytes: isize,
}

impl Alive {
    fn now() -> Self {
        let stats = ALLOCATED.stats();
        Self {
            blocks: stats.allocations as isize - stats.deallocations as isize,
            bytes: stats.bytes_allocated as isize - stats.bytes_deallocated as isize,
        }
    }

    /// Retired rows and lists are freed once no thread can see them, a bag of 64 at a time, and a thread's bag waits
    /// for it to be full: each is two blocks, so that 128 blocks a thread may stay. A leak of one block a round is
    /// above this bound after 600 rounds.
    fn more_than(self, before: Self) -> bool {
        self.blocks > before.blocks + 600 || self.bytes > before.bytes + 64 * 1024
    }
}

fn rounds() -> usize {
    match env::var("MAINSTAY_CHURN_ROUNDS") {
        Ok(given) => given.parse().expect("MAINSTAY_CHURN_ROUNDS is a number"),
        Err(_) => 2_000,
    }
}

/// What all tests of this process allocate is counted together: so there is one at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Does `work` over and over; `rounds` is how often at first.
#[track_caller]
fn does_not_grow(rounds: usize, mut work: impl FnMut(usize)) {
    (0..rounds).for_each(&mut work);
    let before = settled();
    (rounds..11 * rounds).for_each(&mut work);
    let after = settled();
    println!("{rounds} rounds: {before:?}; ten times as many later: {after:?}");
    assert!(!after.more_than(before), "it grows: {before:?}, then {after:?}");
}

/// What is alive once epochs have had the time to free what was retired: they look every 128 failures.
fn settled() -> Alive {
    let registry = Registry::with_capacity(1).unwrap();
    let id = registry.register::<()>("service").unwrap();
    let provider = registry.provide(id).unwrap();
    for _ in 0..128 * 32 {
        let _attempt = provider.begin().wait().unwrap();
        registry.fail(id, "to make time pass").unwrap();
    }
    drop((provider, registry));
    Alive::now()
}

static MADE: AtomicUsize = AtomicUsize::new(0);
static DROPPED: AtomicUsize = AtomicUsize::new(0);

/// A value that is counted. It has a block of its own, to be seen where it is leaked.
#[derive(Debug)]
struct Value(Box<usize>);

impl Value {
    fn new(number: usize) -> Self {
        MADE.fetch_add(1, Ordering::SeqCst);
        Self(Box::new(number))
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        DROPPED.fetch_add(1, Ordering::SeqCst);
    }
}

/// As many were dropped as were made: none is left, and none was dropped twice.
#[track_caller]
fn all_are_gone() {
    let (made, dropped) = (MADE.load(Ordering::SeqCst), DROPPED.load(Ordering::SeqCst));
    assert!(made > 0 && made == dropped, "{made} were made, {dropped} dropped");
}

/// Services that are built from each other: the top from all the others, in turns.
struct World {
    registry: Registry,
    ids: Vec<ServiceId<Value>>,
    providers: Vec<Provider<Value>>,
}

const SERVICES: usize = 6;
const TOP: usize = SERVICES - 1;

impl World {
    fn new() -> Self {
        let registry = Registry::with_capacity(SERVICES).unwrap();
        let ids: Vec<_> =
            (0..SERVICES).map(|i| registry.register(&format!("service {i}")).unwrap()).collect();
        let providers = ids.iter().map(|&id| registry.provide(id).unwrap()).collect();
        registry.add_dependency(ids[1], ids[0]).unwrap();
        Self { registry, ids, providers }
    }

    /// All of them, each from some that come before it, other ones in each round.
    fn up(&self, round: usize) -> Vec<Running<Value>> {
        let mut running = vec![again(&self.providers[0], Value::new(round))];
        for i in 1..SERVICES {
            let from = self.ids[(round * (i + 1) / 2) % i];
            running.push(again_from(&self.providers[i], from, Value::new(round)));
        }
        running
    }
}

#[test]
fn chains_that_fail_and_are_rebuilt() {
    let _alone = alone();
    let world = World::new();
    let World { registry, ids, providers } = &world;
    let mut idle: Vec<Cached<Value>> = ids.iter().map(|&id| registry.cached(id).unwrap()).collect();
    does_not_grow(rounds() / 2, |round| {
        let running = world.up(round);
        let i = round % SERVICES;
        assert_eq!(*idle[i].get().unwrap().0, round);
        running[i].replace(Value::new(round)).unwrap();
        let guards: Vec<_> = ids.iter().map(|&id| registry.get(id).unwrap()).collect();
        let kept = Guard::into_arc(registry.get(ids[TOP]).unwrap());
        let mut cached = registry.cached(ids[i]).unwrap();
        assert!(cached.get().is_ok());
        let reported = registry.report(Guard::instance(&guards[0]), "broken").unwrap();
        assert!(matches!(reported, Report::Failed(_)));
        assert!(cached.get().is_err());
        registry.fail(ids[i], "and this one").unwrap();
        let failure = running[0].failed().wait().unwrap();
        assert_eq!(failure.reason.to_string(), "broken");
        drop((running, guards, kept));

        // What comes to nothing: given up, overtaken, refused.
        providers[i].begin().wait().unwrap().fail(failure).unwrap();
        let attempt = providers[i].begin().wait().unwrap();
        let below = attempt.wait_for(ids[(i + 1) % SERVICES]).wait_timeout(Duration::ZERO);
        assert!(below.is_err());
        registry.fail(ids[i], "overtaken").unwrap();
        assert!(matches!(attempt.ready(Value::new(round)), Err(ReadyError::Overtaken { .. })));
        assert!(registry.list().to_dot().len() > 100);
    });
    drop((idle, world));
    all_are_gone();
}

/// As [`chains_that_fail_and_are_rebuilt`], with one generation for all of them.
#[test]
fn instances_that_are_replaced() {
    let _alone = alone();
    let registry = Registry::with_capacity(1).unwrap();
    let id = registry.register("service").unwrap();
    let provider = registry.provide(id).unwrap();
    let running = again(&provider, Value::new(0));
    does_not_grow(rounds(), |round| {
        let guard = registry.get(id).unwrap();
        running.replace(Value::new(round)).unwrap();
        assert_eq!(registry.get(id).unwrap().0.as_ref(), &round);
        drop(guard);
    });
    drop((running, provider, registry));
    all_are_gone();
}

/// A million, where no more are asked for.
#[test]
fn waits_that_begin_and_are_dropped() {
    let _alone = alone();
    let registry = Registry::with_capacity(2).unwrap();
    let [first, second] = ["first", "second"].map(|name| registry.register(name).unwrap());
    let provide_first = registry.provide(first).unwrap();
    let provide_second = registry.provide(second).unwrap();
    does_not_grow(rounds() * 6, |round| {
        let attempt = provide_second.begin().wait().unwrap();
        let (mut wait_for, mut overtaken) = (attempt.wait_for(first), attempt.overtaken());
        let mut begin = provide_second.begin();
        let mut ready: [_; 5] = std::array::from_fn(|_| registry.wait_ready(first));
        let mut never_ready = ready.each_mut().map(poll_once).into_iter();
        assert!(never_ready.all(|polled| polled.is_pending()));
        assert!(poll_once(&mut wait_for).is_pending() && poll_once(&mut overtaken).is_pending());
        assert!(poll_once(&mut begin).is_pending());
        assert_eq!(registry.status(first).unwrap().waiting, 6);
        if round % 16 == 0 {
            let running = again(&provide_first, Value::new(round));
            assert!(poll_once(&mut ready[0]).is_ready() && poll_once(&mut wait_for).is_ready());
            let mut failed = running.failed();
            assert!(poll_once(&mut failed).is_pending());
            registry.fail(first, "next").unwrap();
            assert!(poll_once(&mut overtaken).is_ready());
        }
    });
    assert_eq!(registry.status(first).unwrap().waiting, 0);
    drop((provide_first, provide_second, registry));
    all_are_gone();
}

/// Each reads, waits, fails, and keeps what it has until it ends, some of it in a thread-local value.
#[test]
fn threads_that_come_and_go() {
    thread_local! {
        static KEPT: RefCell<Vec<Box<dyn Send>>> = const { RefCell::new(Vec::new()) };
    }
    let _alone = alone();
    let world = World::new();
    let mut running = world.up(0);
    let World { registry, ids, providers } = &world;
    does_not_grow(rounds() / 8, |round| {
        let i = round % SERVICES;
        thread::scope(|scope| {
            scope.spawn(|| {
                let guards: Vec<_> = (0..12).map(|_| registry.get(ids[i]).unwrap()).collect();
                let mut cached = registry.cached(ids[TOP]).unwrap();
                assert!(cached.get().is_ok());
                let registry = registry.clone();
                let id = ids[i];
                registry.fail(id, "by a thread").unwrap();
                let mut wait = Box::pin(async move { drop(registry.wait_ready(id).await) });
                assert!(poll_once(&mut wait).is_pending());
                KEPT.with_borrow_mut(|kept| {
                    kept.push(Box::new(guards));
                    kept.push(Box::new(cached));
                    kept.push(Box::new(wait));
                });
            });
        });
        // The scope ends before the thread's values are dropped; whoever is left fails with its next.
        for (service, provider) in running.iter_mut().zip(providers) {
            if service.instance().is_none() {
                *service = again(provider, Value::new(round));
            }
        }
    });
    drop((running, world));
    until("the last thread has ended", || {
        MADE.load(Ordering::SeqCst) == DROPPED.load(Ordering::SeqCst)
    });
    all_are_gone();
}

/// Each is left as it is: with what runs, what has failed, what waits, with causes and edges.
#[test]
fn registries_that_come_and_go() {
    struct Watch(Value);
    impl Observer for Watch {
        fn event(&self, _: &Registry, event: &Event<'_>) {
            assert!(!event.service.is_empty() && *self.0.0 < usize::MAX);
        }
    }

    let _alone = alone();
    does_not_grow(rounds() / 2, |round| {
        let observer = Watch(Value::new(round));
        let mut builder = Registry::builder(8).unwrap().observer(observer);
        let ids: [ServiceId<Value>; 4] =
            ["a", "b", "c", "d"].map(|name| builder.register(name).unwrap());
        builder.add_dependency(ids[1], ids[0]).unwrap();
        if round % 4 == 0 {
            return;
        }
        let registry = builder.build();
        registry.register::<String>("later").unwrap();
        let providers = ids.map(|id| registry.provide(id).unwrap());
        let first = again(&providers[0], Value::new(round));
        let second = again_from(&providers[1], ids[0], Value::new(round));
        let third = again_from(&providers[2], ids[1], Value::new(round));
        third.fail(first.instance().map_or(0, |instance| *instance.0).to_string());
        providers[2].begin().wait().unwrap().fail("given up").unwrap();
        let attempt = providers[3].begin().wait().unwrap();
        let mut wait = attempt.wait_for(ids[2]);
        assert!(poll_once(&mut wait).is_pending());
        registry.fail(ids[1], "left like this").unwrap();
        let guard = registry.get(ids[0]).unwrap();
        let mut cached = registry.cached(ids[0]).unwrap();
        assert!(cached.get().is_ok());
        match round % 4 {
            1 => registry.close(),
            // Its last handle goes with what is running.
            2 => drop(registry),
            _ => drop((registry, first)),
        }
        drop((guard, second));
    });
    all_are_gone();
}

/// In an observer, in a waker, in the `Drop` of a value: what they panicked with is dropped as well.
#[test]
fn panics_that_are_caught() {
    /// Without the panic hook, which would write each of them down.
    fn panic_quietly() -> ! {
        resume_unwind(Box::new(Value::new(1)))
    }
    struct Panics(#[expect(dead_code, reason = "held for its drop")] Value);
    impl Drop for Panics {
        fn drop(&mut self) {
            panic_quietly();
        }
    }
    struct Wakes;
    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            panic_quietly();
        }
    }
    struct Watch;
    impl Observer for Watch {
        fn event(&self, _: &Registry, _: &Event<'_>) {
            panic_quietly();
        }
    }

    let _alone = alone();
    let registry = Registry::builder(1).unwrap().observer(Watch).build();
    let id = registry.register::<Panics>("service").unwrap();
    let provider = registry.provide(id).unwrap();
    let waker = Waker::from(Arc::new(Wakes));
    does_not_grow(rounds() / 2, |round| {
        let mut wait = registry.wait_ready(id);
        assert!(poll_with(&mut wait, &waker).is_pending());
        let Ok(running) = provider.begin().wait().unwrap().ready(Panics(Value::new(round))) else {
            panic!("nobody fails it")
        };
        assert!(poll_once(&mut wait).is_ready() && registry.get(id).is_ok());
        drop(wait);
        drop(running);
        assert!(registry.get(id).is_err());
    });
    drop((provider, registry));
    all_are_gone();
}

/// Providers, readers and saboteurs at once: each phase ends by closing, the next has a registry of its own.
#[test]
fn many_threads_at_once() {
    let _alone = alone();
    let seed = Seed::new();
    does_not_grow((rounds() / 1_000).max(1), |phase| {
        let World { registry, ids, providers } = World::new();
        let (ids, registry) = (&ids, &registry);
        thread::scope(|scope| {
            for (i, provider) in providers.into_iter().enumerate() {
                let random = seed.random((phase * 100 + i) as u64);
                scope.spawn(move || provide(&provider, &ids[..i], random));
            }
            for i in 0..2 {
                let mut random = seed.random((phase * 100 + 50 + i) as u64);
                scope.spawn(move || {
                    let mut cached = registry.cached(ids[TOP]).unwrap();
                    for _ in 0..300 {
                        let _ = registry.wait_ready(ids[TOP]).wait_timeout(LONG);
                        drop(registry.get_all((ids[0], ids[TOP])));
                        let _ = cached.get().is_ok();
                        drop(poll_once(&mut registry.wait_ready(ids[random.below(SERVICES)])));
                        registry.fail(ids[random.below(SERVICES)], "next").unwrap();
                    }
                    registry.close();
                });
            }
        });
    });
    all_are_gone();
}

/// A provider's loop. Its dependencies are others at each start.
fn provide(provider: &Provider<Value>, below: &[ServiceId<Value>], mut random: Random) {
    'next: while let Ok(attempt) = provider.begin().wait() {
        let mut sum = 1;
        for _ in 0..below.len().min(2) {
            match attempt.wait_for(below[random.below(below.len())]).wait_timeout(LONG) {
                Ok(instance) => sum += *instance.0,
                Err(WaitForError::Overtaken(_)) => continue 'next,
                Err(_) => return,
            }
        }
        let Ok(running) = attempt.ready(Value::new(sum)) else { continue };
        let _ = running.replace(Value::new(sum));
        let _ = running.failed().wait();
    }
}
