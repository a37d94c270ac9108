//! Nothing grows with time.
//!
//! This test binary counts what its process allocates. So it is a binary of its own, and runs one
//! test at a time.
//!
//! Each test repeats the same work, and counts the live allocations: after the first rounds, and
//! again after ten times as many rounds. Then
//!
//! - no more is allocated than before, but for what epochs have not freed yet (see
//!   [`Allocated::exceeds`]);
//! - exactly as many values were dropped as were made, when all handles are dropped.
//!
//! The work: chains fail and are rebuilt along other edges each time; values are replaced, read
//! and reported; millions of waits begin and are dropped; threads begin and end with guards and
//! cached readers; registries are made and dropped, whole or in any state; several threads do all
//! of it at once.
//!
//! `MAINSTAY_CHURN_ROUNDS` is the number of first rounds, and is 2,000 by default.

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
    Cached, Event, FailOutcome, Guard, Observer, Provider, Registry, Running, ServiceId,
    error::{ReadyError, WaitForError},
};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use support::{
    LONG, Random, Seed, poll_once, poll_with, publish, publish_from, registry_of, until,
};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// The live allocations at one moment.
#[derive(Debug, Clone, Copy)]
struct Allocated {
    blocks: isize,
    bytes: isize,
}

impl Allocated {
    fn now() -> Self {
        let stats = ALLOCATOR.stats();
        Self {
            blocks: stats.allocations as isize - stats.deallocations as isize,
            bytes: stats.bytes_allocated as isize - stats.bytes_deallocated as isize,
        }
    }

    /// Whether this is more than before, beyond what epochs have not freed yet. Retired lists and
    /// closures are freed after every thread has moved on, a full bag of 64 at a time. Each is two
    /// blocks, so that 128 blocks of each thread may stay. A leak of one block a round exceeds the
    /// bound in 600 rounds.
    fn exceeds(self, before: Self) -> bool {
        self.blocks > before.blocks + 600 || self.bytes > before.bytes + 64 * 1024
    }
}

fn rounds() -> usize {
    match env::var("MAINSTAY_CHURN_ROUNDS") {
        Ok(given) => given.parse().expect("MAINSTAY_CHURN_ROUNDS is a number"),
        Err(_) => 2_000,
    }
}

/// All allocations of this process are counted together, so that one test runs at a time.
fn one_at_a_time() -> MutexGuard<'static, ()> {
    static LOCK: Mutex<()> = Mutex::new(());
    LOCK.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Repeats `work`: `rounds` times, and then ten times as often.
#[track_caller]
fn does_not_grow(rounds: usize, mut work: impl FnMut(usize)) {
    (0..rounds).for_each(&mut work);
    let before = after_reclamation();
    (rounds..11 * rounds).for_each(&mut work);
    let after = after_reclamation();
    println!("{rounds} rounds: {before:?}; ten times as many later: {after:?}");
    assert!(!after.exceeds(before), "it grows: {before:?}, then {after:?}");
}

/// The live allocations after epochs have freed what was retired. They check every 128 failures.
fn after_reclamation() -> Allocated {
    let (registry, [id]) = registry_of::<(), 1>(["service"]);
    let provider = registry.provide(id).unwrap();
    for _ in 0..128 * 32 {
        let _attempt = provider.begin().wait_blocking().unwrap();
        registry.fail(id, "to let epochs pass").unwrap();
    }
    drop((provider, registry));
    Allocated::now()
}

static MADE: AtomicUsize = AtomicUsize::new(0);
static DROPPED: AtomicUsize = AtomicUsize::new(0);

/// A value whose drop is counted. It has a block of its own, so that a leak of it is visible.
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

/// Checks that as many values were dropped as were made.
#[track_caller]
fn all_are_dropped() {
    let (made, dropped) = (MADE.load(Ordering::SeqCst), DROPPED.load(Ordering::SeqCst));
    assert!(made > 0 && made == dropped, "{made} were made, {dropped} dropped");
}

/// Services that are built from each other. Each round uses other edges.
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
        registry.depends(ids[1]).on(ids[0]).unwrap();
        Self { registry, ids, providers }
    }

    /// Publishes all services, each from an earlier one that depends on the round.
    fn up(&self, round: usize) -> Vec<Running<Value>> {
        let mut running = vec![publish(&self.providers[0], Value::new(round))];
        for i in 1..SERVICES {
            let from = self.ids[(round * (i + 1) / 2) % i];
            running.push(publish_from(&self.providers[i], from, Value::new(round)));
        }
        running
    }
}

#[test]
fn failures_and_rebuilds_of_chains_do_not_grow_the_heap() {
    let _lock = one_at_a_time();
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
        let reported = registry.fail_instance(Guard::instance(&guards[0]), "broken").unwrap();
        assert!(matches!(reported, FailOutcome::Failed(_)));
        assert!(cached.get().is_err());
        registry.fail(ids[i], "and this one").unwrap();
        let failure = running[0].failed().wait_blocking().unwrap();
        assert_eq!(failure.reason.to_string(), "broken");
        drop((running, guards, kept));

        // Attempts that fail, that are invalidated, and whose value is refused.
        providers[i].begin().wait_blocking().unwrap().fail(failure).unwrap();
        let attempt = providers[i].begin().wait_blocking().unwrap();
        let below = attempt.wait_for(ids[(i + 1) % SERVICES]).wait_blocking_timeout(Duration::ZERO);
        assert!(below.is_err());
        registry.fail(ids[i], "invalidated").unwrap();
        assert!(matches!(attempt.ready(Value::new(round)), Err(ReadyError::Invalidated { .. })));
        assert!(registry.list().to_dot().len() > 100);
    });
    drop((idle, world));
    all_are_dropped();
}

/// All replacements are within one generation.
#[test]
fn replacements_do_not_grow_the_heap() {
    let _lock = one_at_a_time();
    let (registry, [id]) = registry_of(["service"]);
    let provider = registry.provide(id).unwrap();
    let running = publish(&provider, Value::new(0));
    does_not_grow(rounds(), |round| {
        let guard = registry.get(id).unwrap();
        running.replace(Value::new(round)).unwrap();
        assert_eq!(registry.get(id).unwrap().0.as_ref(), &round);
        drop(guard);
    });
    drop((running, provider, registry));
    all_are_dropped();
}

#[test]
fn a_million_dropped_waits_do_not_grow_the_heap() {
    let _lock = one_at_a_time();
    let (registry, [first, second]) = registry_of(["first", "second"]);
    let provide_first = registry.provide(first).unwrap();
    let provide_second = registry.provide(second).unwrap();
    does_not_grow(rounds() * 6, |round| {
        let attempt = provide_second.begin().wait_blocking().unwrap();
        let (mut wait_for, mut invalidated) = (attempt.wait_for(first), attempt.invalidated());
        let mut begin = provide_second.begin();
        let mut ready: [_; 5] = std::array::from_fn(|_| registry.wait_ready(first));
        let mut never_ready = ready.each_mut().map(poll_once).into_iter();
        assert!(never_ready.all(|polled| polled.is_pending()));
        assert!(poll_once(&mut wait_for).is_pending() && poll_once(&mut invalidated).is_pending());
        assert!(poll_once(&mut begin).is_pending());
        assert_eq!(registry.status(first).unwrap().waiters, 6);
        if round % 16 == 0 {
            let running = publish(&provide_first, Value::new(round));
            assert!(poll_once(&mut ready[0]).is_ready() && poll_once(&mut wait_for).is_ready());
            let mut failed = running.failed();
            assert!(poll_once(&mut failed).is_pending());
            registry.fail(first, "next").unwrap();
            assert!(poll_once(&mut invalidated).is_ready());
        }
    });
    assert_eq!(registry.status(first).unwrap().waiters, 0);
    drop((provide_first, provide_second, registry));
    all_are_dropped();
}

/// Each thread reads, waits, fails, and keeps its handles in a thread-local value until it ends.
#[test]
fn threads_that_end_with_handles_do_not_grow_the_heap() {
    thread_local! {
        static KEPT: RefCell<Vec<Box<dyn Send>>> = const { RefCell::new(Vec::new()) };
    }
    let _lock = one_at_a_time();
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
        // The scope ends before the thread-local values are dropped. Failed services are published
        // again.
        for (service, provider) in running.iter_mut().zip(providers) {
            if service.instance().is_none() {
                *service = publish(provider, Value::new(round));
            }
        }
    });
    drop((running, world));
    until("the last thread has ended", || {
        MADE.load(Ordering::SeqCst) == DROPPED.load(Ordering::SeqCst)
    });
    all_are_dropped();
}

/// Each registry is dropped with ready and failed services, waits, causes and edges.
#[test]
fn dropped_registries_do_not_grow_the_heap() {
    struct Watch(Value);
    impl Observer for Watch {
        fn event(&self, _: &Registry, event: &Event<'_>) {
            assert!(!event.service.is_empty() && *self.0.0 < usize::MAX);
        }
    }

    let _lock = one_at_a_time();
    does_not_grow(rounds() / 2, |round| {
        let observer = Watch(Value::new(round));
        let mut builder = Registry::builder(8).unwrap().observer(observer);
        let ids: [ServiceId<Value>; 4] =
            ["a", "b", "c", "d"].map(|name| builder.register(name).unwrap());
        builder.depends(ids[1]).on(ids[0]).unwrap();
        if round % 4 == 0 {
            return;
        }
        let registry = builder.build();
        registry.register::<String>("later").unwrap();
        let providers = ids.map(|id| registry.provide(id).unwrap());
        let first = publish(&providers[0], Value::new(round));
        let second = publish_from(&providers[1], ids[0], Value::new(round));
        let third = publish_from(&providers[2], ids[1], Value::new(round));
        third.fail(first.instance().map_or(0, |instance| *instance.0).to_string());
        providers[2].begin().wait_blocking().unwrap().fail("not this time").unwrap();
        let attempt = providers[3].begin().wait_blocking().unwrap();
        let mut wait = attempt.wait_for(ids[2]);
        assert!(poll_once(&mut wait).is_pending());
        registry.fail(ids[1], "and not restarted").unwrap();
        let guard = registry.get(ids[0]).unwrap();
        let mut cached = registry.cached(ids[0]).unwrap();
        assert!(cached.get().is_ok());
        match round % 4 {
            1 => registry.close(),
            // The running handles are the last ones.
            2 => drop(registry),
            _ => drop((registry, first)),
        }
        drop((guard, second));
    });
    all_are_dropped();
}

/// Panics of an observer, of a waker and of the `Drop` of a value. Their payloads are dropped, too.
#[test]
fn caught_panics_do_not_grow_the_heap() {
    /// Panics without the panic hook, which would print each panic.
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

    let _lock = one_at_a_time();
    let registry = Registry::builder(1).unwrap().observer(Watch).build();
    let id = registry.register::<Panics>("service").unwrap();
    let provider = registry.provide(id).unwrap();
    let waker = Waker::from(Arc::new(Wakes));
    does_not_grow(rounds() / 2, |round| {
        let mut wait = registry.wait_ready(id);
        assert!(poll_with(&mut wait, &waker).is_pending());
        let Ok(running) =
            provider.begin().wait_blocking().unwrap().ready(Panics(Value::new(round)))
        else {
            panic!("no call fails it")
        };
        assert!(poll_once(&mut wait).is_ready() && registry.get(id).is_ok());
        drop(wait);
        drop(running);
        assert!(registry.get(id).is_err());
    });
    drop((provider, registry));
    all_are_dropped();
}

/// Threads provide, read and fail services. Each phase has a registry of its own, and ends with its
/// close.
#[test]
fn concurrent_providers_readers_and_failures_do_not_grow_the_heap() {
    let _lock = one_at_a_time();
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
                        let _ = registry.wait_ready(ids[TOP]).wait_blocking_timeout(LONG);
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
    all_are_dropped();
}

/// The loop of a provider. Each attempt chooses its dependencies.
fn provide(provider: &Provider<Value>, below: &[ServiceId<Value>], mut random: Random) {
    'next: while let Ok(attempt) = provider.begin().wait_blocking() {
        let mut sum = 1;
        for _ in 0..below.len().min(2) {
            match attempt.wait_for(below[random.below(below.len())]).wait_blocking_timeout(LONG) {
                Ok(instance) => sum += *instance.0,
                Err(WaitForError::Invalidated(_)) => continue 'next,
                Err(_) => return,
            }
        }
        let Ok(running) = attempt.ready(Value::new(sum)) else { continue };
        let _ = running.replace(Value::new(sum));
        let _ = running.failed().wait_blocking();
    }
}
