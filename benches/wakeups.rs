//! The cost of waking waiters: of a failure, as providers wait for it, and of readiness, as readers
//! wait for it. Bare events and channels are measured beside them. Their waiters check a number
//! that was changed before the notification.
//!
//! In each round all waiters wait: each was polled once, and is pending. Then one call is made.
//!
//! - "notify" is the time of this call. When it returns, all wakers have been called; this is
//!   asserted if the waiters are futures on the calling thread.
//! - "awake" is the time from the begin of this call until the last waiter has its result.
//!
//! The waiters are:
//!
//! - "async": futures on the calling thread, which polls one after another after the call;
//! - "tokio": tasks on a runtime with one thread for each core; the call comes from outside;
//! - "threads": parked threads; the call comes from another thread.

use std::{
    cell::RefCell,
    future::poll_fn,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Wake, Waker},
    thread,
    time::{Duration, Instant},
};

use criterion::{
    BenchmarkGroup, BenchmarkId, Criterion, SamplingMode, criterion_group, criterion_main,
    measurement::WallTime,
};
use event_listener::Event;
use futures_lite::future::block_on;
use mainstay::{Provider, Registry, Running, ServiceId};
use mainstay_benches::{features::criterion, runtime, waiting::Waiting};
use tokio::sync::{Notify, watch};

/// The time in which parked threads fall asleep, as the threads of a server do.
const ASLEEP: Duration = Duration::from_micros(200);

/// An object on which many waiters wait, round after round.
trait Rival: Send + Sync + 'static {
    /// The result of the call that wakes all waiters. It is dropped after the round.
    type Held;

    fn new() -> Self;

    /// Prepares this call, before the first waiter waits.
    fn arm(&self, round: u64) -> impl FnOnce() -> Self::Held;

    /// Waits for this call. Returns the number of the round.
    fn wait(self: Arc<Self>) -> impl Future<Output = u64> + Send + 'static;
}

/// A service with its provider.
struct Service {
    registry: Registry,
    id: ServiceId<u64>,
    provider: Provider<u64>,
}

impl Service {
    fn new() -> Self {
        let registry = Registry::with_capacity(1).unwrap();
        let id = registry.register("service").unwrap();
        let provider = registry.provide(id).unwrap();
        Self { registry, id, provider }
    }
}

/// `Running::failed`: the generation is the number of the round.
struct Failed(Service, Mutex<Option<Arc<Running<u64>>>>);

impl Rival for Failed {
    type Held = ();

    fn new() -> Self {
        Self(Service::new(), Mutex::default())
    }

    fn arm(&self, round: u64) -> impl FnOnce() {
        let Self(service, running) = self;
        let instance = service.provider.begin().wait_blocking().unwrap().ready(round).unwrap();
        *running.lock().unwrap() = Some(Arc::new(instance));
        || assert_eq!(service.registry.fail(service.id, "bench").unwrap().failed, 1)
    }

    async fn wait(self: Arc<Self>) -> u64 {
        let running = self.1.lock().unwrap().clone().unwrap();
        running.failed().await.unwrap().root_generation.get()
    }
}

/// `Registry::wait_ready`.
struct Ready(Service);

impl Rival for Ready {
    type Held = Running<u64>;

    fn new() -> Self {
        Self(Service::new())
    }

    fn arm(&self, round: u64) -> impl FnOnce() -> Running<u64> {
        let attempt = self.0.provider.begin().wait_blocking().unwrap();
        move || attempt.ready(round).unwrap()
    }

    async fn wait(self: Arc<Self>) -> u64 {
        **self.0.registry.wait_ready(self.0.id).await.unwrap()
    }
}

impl Rival for (Event, AtomicU64) {
    type Held = ();

    fn new() -> Self {
        Self::default()
    }

    fn arm(&self, round: u64) -> impl FnOnce() {
        move || {
            self.1.store(round, Ordering::Release);
            self.0.notify(usize::MAX);
        }
    }

    async fn wait(self: Arc<Self>) -> u64 {
        self.0.listen().await;
        self.1.load(Ordering::Acquire)
    }
}

/// event-listener, with wakers that are called after its lock is released: each waiter registers a
/// waker that only records that the waiter is due. This is the least that mainstay can do, because
/// a waker of a user may call anything.
#[derive(Default)]
struct Relayed(Event, AtomicU64);

#[derive(Default)]
struct Relay(Mutex<Option<Waker>>);

thread_local! {
    static DUE: RefCell<Vec<Arc<Relay>>> = const { RefCell::new(Vec::new()) };
}

impl Wake for Relay {
    fn wake(self: Arc<Self>) {
        DUE.with_borrow_mut(|due| due.push(self));
    }
}

impl Rival for Relayed {
    type Held = ();

    fn new() -> Self {
        Self::default()
    }

    fn arm(&self, round: u64) -> impl FnOnce() {
        move || {
            self.1.store(round, Ordering::Release);
            self.0.notify(usize::MAX);
            for relay in DUE.take() {
                if let Some(waker) = relay.0.lock().unwrap().take() {
                    waker.wake();
                }
            }
        }
    }

    async fn wait(self: Arc<Self>) -> u64 {
        let relay = Arc::<Relay>::default();
        let waker = Waker::from(Arc::clone(&relay));
        let mut listener = self.0.listen();
        poll_fn(|context| {
            *relay.0.lock().unwrap() = Some(context.waker().clone());
            Pin::new(&mut listener).poll(&mut Context::from_waker(&waker))
        })
        .await;
        self.1.load(Ordering::Acquire)
    }
}

impl Rival for (Notify, AtomicU64) {
    type Held = ();

    fn new() -> Self {
        Self::default()
    }

    fn arm(&self, round: u64) -> impl FnOnce() {
        move || {
            self.1.store(round, Ordering::Release);
            self.0.notify_waiters();
        }
    }

    async fn wait(self: Arc<Self>) -> u64 {
        self.0.notified().await;
        self.1.load(Ordering::Acquire)
    }
}

impl Rival for watch::Sender<u64> {
    type Held = ();

    fn new() -> Self {
        Self::default()
    }

    fn arm(&self, round: u64) -> impl FnOnce() {
        move || {
            self.send_replace(round);
        }
    }

    async fn wait(self: Arc<Self>) -> u64 {
        let mut receiver = self.subscribe();
        receiver.changed().await.unwrap();
        *receiver.borrow()
    }
}

/// The times of one round.
struct Times {
    notify: Duration,
    awake: Duration,
}

/// The waiters are futures on this thread.
fn on_this_thread<R: Rival>(rival: &Arc<R>, round: u64, waiters: usize) -> Times {
    let wake = rival.arm(round);
    let mut waiting = Waiting::new((0..waiters).map(|_| Arc::clone(rival).wait()));
    let start = Instant::now();
    let _held = wake();
    let notify = start.elapsed();
    waiting.assert_woken();
    waiting.finish(|found| assert_eq!(found, round));
    Times { notify, awake: start.elapsed() }
}

/// Each waiter is a task.
fn on_tokio<R: Rival>(rival: &Arc<R>, round: u64, waiters: usize) -> Times {
    let spawn = |wait| runtime().spawn(wait);
    on_spawned(rival, round, waiters, spawn, |task| block_on(task).unwrap())
}

/// Each waiter has a thread of its own. `wait_blocking` does the same as this `block_on`: it parks
/// the thread between two polls.
fn on_threads<R: Rival>(rival: &Arc<R>, round: u64, waiters: usize) -> Times {
    let spawn = |wait| thread::spawn(|| block_on(wait));
    on_spawned(rival, round, waiters, spawn, |thread| thread.join().unwrap())
}

/// The number that a waiter returned, and the time at which it did.
type Ended = (u64, Instant);

fn on_spawned<R: Rival, H>(
    rival: &Arc<R>,
    round: u64,
    waiters: usize,
    spawn: impl Fn(Pin<Box<dyn Future<Output = Ended> + Send>>) -> H,
    join: impl Fn(H) -> Ended,
) -> Times {
    let wake = rival.arm(round);
    let pending = Arc::<AtomicUsize>::default();
    let wait = |_| spawn(Box::pin(record(Arc::clone(rival).wait(), Arc::clone(&pending))));
    let waiting: Vec<H> = (0..waiters).map(wait).collect();
    while pending.load(Ordering::Acquire) < waiters {
        thread::yield_now();
    }
    thread::sleep(ASLEEP);

    let start = Instant::now();
    let _held = wake();
    let notify = start.elapsed();
    let awake = waiting.into_iter().map(|waiter| {
        let (found, at) = join(waiter);
        assert_eq!(found, round);
        at - start
    });
    Times { notify, awake: awake.max().unwrap() }
}

/// Counts the wait as pending after its first poll, and records the time at which it ends.
async fn record(wait: impl Future<Output = u64>, pending: Arc<AtomicUsize>) -> Ended {
    let mut wait = pin!(wait);
    let mut is_counted = false;
    let found = poll_fn(|context| {
        let polled = wait.as_mut().poll(context);
        if polled.is_pending() && !is_counted {
            is_counted = true;
            pending.fetch_add(1, Ordering::Release);
        }
        polled
    });
    (found.await, Instant::now())
}

#[derive(Clone, Copy)]
enum Place {
    Async,
    Tokio,
    Threads,
}

impl Place {
    fn round<R: Rival>(self, rival: &Arc<R>, round: u64, waiters: usize) -> Times {
        match self {
            Self::Async => on_this_thread(rival, round, waiters),
            Self::Tokio => on_tokio(rival, round, waiters),
            Self::Threads => on_threads(rival, round, waiters),
        }
    }
}

type Measure = fn(Times) -> Duration;

fn bench<R: Rival>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    waiters: usize,
    place: Place,
    measure: Measure,
) {
    let rival = Arc::new(R::new());
    let mut rounds = 0..;
    group.bench_function(BenchmarkId::new(name, waiters), |b| {
        b.iter_custom(|n| {
            let rounds = rounds.by_ref().take(n as usize);
            rounds.map(|round| measure(place.round(&rival, round, waiters))).sum()
        });
    });
}

fn wakeups(c: &mut Criterion) {
    let measures: [(&str, Measure); 2] =
        [("notify", |times| times.notify), ("awake", |times| times.awake)];
    let places: [(&str, Place, &[usize]); 3] = [
        ("async", Place::Async, &[1, 100, 10_000]),
        ("tokio", Place::Tokio, &[1, 100, 10_000]),
        ("threads", Place::Threads, &[1, 100]),
    ];
    // In this order: a store of arc-swap visits every thread that has ever read, also those that
    // have ended. So the groups with one thread are measured before any other thread has read, and
    // the groups with a hundred threads last.
    for (name, place, counts) in places {
        for (measured, measure) in measures {
            let mut group = c.benchmark_group(format!("wakeup/{measured}/{name}"));
            group.sampling_mode(SamplingMode::Flat);
            for &waiters in counts {
                bench::<Failed>(&mut group, "mainstay fail", waiters, place, measure);
                bench::<Ready>(&mut group, "mainstay ready", waiters, place, measure);
                bench::<(Event, AtomicU64)>(&mut group, "event-listener", waiters, place, measure);
                bench::<Relayed>(&mut group, "limit: relayed", waiters, place, measure);
                bench::<(Notify, AtomicU64)>(&mut group, "tokio Notify", waiters, place, measure);
                bench::<watch::Sender<u64>>(&mut group, "tokio watch", waiters, place, measure);
            }
            group.finish();
        }
    }
}

criterion_group! {
    name = benches;
    config = criterion("wakeups")
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(400))
        .sample_size(10)
        .without_plots();
    targets = wakeups
}
criterion_main!(benches);
