//! Two hours of supervised services under random failures, by a virtual clock.
//!
//! Sixteen services have random dependencies of all kinds. Builds return errors, permanent ones,
//! and errors because of services that are not there; they panic, hang or take their time. Bodies
//! panic, return, report a failure, restart their own service, complete it, or let it be ready
//! without them; others hang or fail after they were notified. Instances are replaced, failed and
//! reported. Services are restarted, stopped, also with their dependents, and started, while other
//! restarts and stops are in progress. After each step, when no task can continue:
//!
//! - No ready service depends on an instance that has failed (I2), nor on one that has been absent
//!   for longer than the grace period.
//! - A service that is up has its body, or its body has said that it stays ready (S9). No two
//!   bodies of one service run at the same time (S10). A body that was notified of a planned end
//!   has found its instance, and one that was notified of a failure has not (S11).
//! - No instance has ended together with a dependency that was restarted or stopped: its own turn
//!   came first (S4). No attempt at a stopped service begins before its start. Each restart and
//!   each stop ends, and reports each service once.
//! - The failures that the observer counts for a service are its own failures and no others.
//! - A service that was given up had one failure more than its limit within the window, or had been
//!   given up before and was tried once.
//! - The last attempt at a service that waits for its retry was given what is there now, apart from
//!   the time of the first backoff. So no change of an input was missed.
//!
//! At the end builds and bodies no longer fail, and all services are started. Then every service is
//! ready, or given up, or has failed permanently, or waits for one of these. After a restart all
//! are ready. The shutdown stops every service in time, and leaves no instance, no task and no
//! sleeper. Each value was passed to a close hook once, in order, although some close hooks panic.

mod books;
mod service;

use std::{
    panic,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Wake, Waker},
    time::{Duration, Instant},
};

use self::{
    books::{Books, Watches, check_report},
    service::completes,
};
use super::runtime::{Task, ms};
use crate::support::{Random, Seed, poll_once};
use mainstay::{
    Instance, Phase, Registry, ServiceId, ServiceStatus,
    supervise::{BodyEnd, Clock, Planned, StopWait, SupervisorState},
    test_kit::VirtualClock,
};

const SERVICES: usize = 16;
const HOURS: u64 = 2;
/// The failures that a service may have within the window.
const LIMIT: usize = 8;
const WINDOW: Duration = Duration::from_secs(60);
const GRACE: Duration = ms(500);
const FIRST_BACKOFF: Duration = ms(50);
const RESET_AFTER: Duration = ms(20_000);
const STOP_TIMEOUT: Duration = ms(700);
/// The outcome of a build that succeeds at once, and of a body that works until it is notified.
const SUCCESS: usize = 99;

/// The messages of the panics of user code.
const USER_PANICS: [&str; 4] = ["in the call", "in a poll", "in a body", "in the close hook"];

type Id = ServiceId<Built>;

/// An instance, and what it was built from.
struct Built {
    /// Dependencies and their generations.
    from: Vec<(Id, u64)>,
    /// Dependencies whose absence is tolerated for the grace period.
    tolerates: Vec<Id>,
    alive: Arc<AtomicUsize>,
}

impl Built {
    fn new(from: Vec<(Id, u64)>, tolerates: Vec<Id>, alive: &Arc<AtomicUsize>) -> Self {
        alive.fetch_add(1, Ordering::Relaxed);
        Self { from, tolerates, alive: Arc::clone(alive) }
    }
}

impl Drop for Built {
    fn drop(&mut self) {
        self.alive.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whether a task was woken.
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
    /// For each service that is not ready: its generation, and since when.
    absent: Vec<Option<(u64, Instant)>>,
    /// Whether builds succeed at once, and bodies do not fail.
    calm: Arc<AtomicBool>,
}

impl World {
    fn new(random: &mut Random) -> Self {
        let clock = VirtualClock::new();
        let books = Arc::new(Books::new(SERVICES, clock.clone()));
        let builder = Registry::builder(SERVICES).unwrap().clock(clock.clone());
        let registry = builder.observer(Watches(Arc::clone(&books))).build();
        let id = |i| registry.register(&format!("s{i}")).unwrap();
        let ids = (0..SERVICES).map(id).collect();
        let woken = Arc::new(Woken(AtomicBool::new(true)));
        let (tasks, alive, calm) = (Vec::new(), Arc::default(), Arc::default());
        let absent = vec![None; SERVICES];
        let mut world = Self { registry, clock, books, ids, tasks, woken, alive, absent, calm };
        (0..SERVICES).for_each(|service| world.supervise(service, random.clone()));
        world
    }

    /// Polls until no task was woken.
    fn run_until_idle(&mut self) {
        let waker = Waker::from(Arc::clone(&self.woken));
        let mut context = Context::from_waker(&waker);
        while self.woken.0.swap(false, Ordering::Relaxed) {
            self.tasks.retain_mut(|task| task.as_mut().poll(&mut context).is_pending());
        }
    }

    fn state(&self, id: Id) -> SupervisorState {
        self.registry.status(id).unwrap().supervisor.unwrap().state
    }

    fn check(&mut self) {
        let now = self.clock.now();
        self.books.check();
        let statuses: Vec<_> =
            self.ids.iter().map(|&id| self.registry.status(id).unwrap()).collect();
        for (status, absent) in statuses.iter().zip(&mut self.absent) {
            let since = absent.filter(|(generation, _)| *generation == status.generation.get());
            let since = since.unwrap_or((status.generation.get(), now));
            *absent = (status.phase != Phase::Ready).then_some(since);
        }
        for (service, status) in statuses.iter().enumerate() {
            self.check_retry(service, status, now);
            self.check_body(service, status);
        }
        for (service, &id) in self.ids.iter().enumerate() {
            let Ok(instance) = self.registry.get(id) else { continue };
            for &(below, generation) in &instance.from {
                let now = self.registry.get(below).ok().map(|below| {
                    let below = mainstay::Guard::instance(&below);
                    Instance::generation(below).get()
                });
                assert_eq!(now, Some(generation), "I2: it depends on a failed instance");
            }
            // At its turn to stop, it ends for another reason.
            if self.books.with(service, |seen| seen.body.at_turn) {
                continue;
            }
            for tolerated in &instance.tolerates {
                let service = self.ids.iter().position(|id| id == tolerated).unwrap();
                let absent = self.absent[service].map(|(_, since)| now - since);
                assert!(absent.is_none_or(|absent| absent < GRACE), "absent for {absent:?}");
            }
        }
    }

    /// Checks that a service that waits for its retry has missed no change.
    fn check_retry(&self, service: usize, status: &ServiceStatus, now: Instant) {
        let state = status.supervisor.as_ref().unwrap().state;
        let waits = matches!(
            state,
            SupervisorState::BackingOff | SupervisorState::Permanent | SupervisorState::GivenUp
        );
        let (failed_at, received) =
            self.books.with(service, |seen| (seen.failed_at, seen.received.clone()));
        if !waits || failed_at.is_none_or(|at| now - at < FIRST_BACKOFF) {
            return;
        }
        for (input, generation, revision) in received {
            let instance = self.registry.get_arc(input).ok();
            let current = instance.map(|instance| {
                (Instance::generation(&instance).get(), Instance::revision(&instance))
            });
            assert_eq!(current, Some((generation, revision)), "s{service} is {state}");
        }
    }

    /// Checks that a service is not ready without its body (S9), and has none without an instance,
    /// except while it stops.
    fn check_body(&self, service: usize, status: &ServiceStatus) {
        let state = status.supervisor.as_ref().unwrap().state;
        let (runs, stays) =
            self.books.with(service, |seen| (seen.body.running.is_some(), seen.body.stays));
        let stays = stays.filter(|(generation, _)| *generation == status.generation.get());
        let is_right = match (state, stays) {
            (SupervisorState::Completed, None) => completes(service),
            (SupervisorState::Completed, Some((_, end))) => end == BodyEnd::Completed,
            (SupervisorState::Up, Some((_, end))) => end == BodyEnd::StayReady,
            (SupervisorState::Up, None) => runs,
            (SupervisorState::Stopping, _) => true,
            (SupervisorState::Stopped, _) if status.phase == Phase::Ready => false,
            _ => !runs,
        };
        assert!(is_right, "S9: s{service} is {state}, and a body runs: {runs}, {stays:?}");
    }

    fn disturb(&mut self, random: &mut Random) {
        let service = random.below(SERVICES);
        let id = self.ids[service];
        match random.below(24) {
            0..2 => self.restart(service, random),
            2..6 => drop(self.registry.fail(id, "from outside").unwrap()),
            6 => drop(self.registry.fail(id, Planned::new("from outside")).unwrap()),
            7..11 => {
                if let Ok(instance) = self.registry.get_arc(id) {
                    self.registry.fail_instance(&instance, "reported by a reader").unwrap();
                }
            }
            11..15 => {
                let live = self.books.with(service, |seen| seen.body.running.clone());
                let instance = live.and_then(|live| Some((live.instance()?, live)));
                if let Some((instance, live)) = instance {
                    let (from, tolerates) = (instance.from.clone(), instance.tolerates.clone());
                    live.replace(Built::new(from, tolerates, &self.alive)).unwrap();
                }
            }
            15 => self.stop(service, random),
            16..18 => (0..SERVICES).for_each(|service| self.start(service)),
            18 => self.start(service),
            _ => {}
        }
    }

    fn restart(&mut self, service: usize, random: &mut Random) {
        self.will_reset(service);
        self.books.with(service, |seen| (seen.to_stop, seen.is_stopped) = (false, false));
        let restart = self.registry.restart(self.ids[service], "again");
        self.wait(restart, random, || {});
    }

    fn stop(&mut self, service: usize, random: &mut Random) {
        self.books.with(service, |seen| seen.to_stop = true);
        let id = self.ids[service];
        let stop = match random.below(3) {
            0 => self.registry.stop_subtree(id),
            _ => self.registry.stop(id),
        };
        let books = Arc::clone(&self.books);
        self.wait(stop, random, move || {
            books.with(service, |seen| seen.is_stopped = seen.to_stop);
        });
    }

    /// Begins a restart or a stop. Half of the waits are dropped then, which changes nothing.
    fn wait(
        &mut self,
        mut stop: StopWait,
        random: &mut Random,
        over: impl FnOnce() + Send + 'static,
    ) {
        if random.below(2) == 0 {
            let _ = poll_once(&mut stop);
            return;
        }
        self.tasks.push(Box::pin(async move {
            check_report(&stop.await.expect("the registry is open"));
            over();
        }));
        self.woken.0.store(true, Ordering::Relaxed);
    }

    fn start(&self, service: usize) {
        let was_stopped = self.registry.start(self.ids[service]).unwrap();
        if was_stopped {
            self.will_reset(service);
        }
        self.books.with(service, |seen| {
            assert!(was_stopped || !seen.to_stop, "s{service} was stopped");
            (seen.to_stop, seen.is_stopped) = (false, false);
        });
    }

    /// A service is asked for itself: its failures are forgotten when it is released. No failure is
    /// counted between the end of its turn and that time.
    fn will_reset(&self, service: usize) {
        let has_ended = self.state(self.ids[service]) == SupervisorState::Stopped;
        self.books.with(service, |seen| match has_ended {
            true => seen.reset(),
            false => seen.is_reset_at_its_turn = true,
        });
    }
}

#[test]
fn no_invariant_of_supervision_breaks_in_two_hours_of_random_failures() {
    let seed = Seed::new();
    let mut random = seed.random(0);
    // Many builders panic. Their messages are not printed.
    let hook = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let text = info.payload().downcast_ref::<&str>();
        if text.is_none_or(|text| !USER_PANICS.contains(text)) {
            hook(info);
        }
    }));
    let mut world = World::new(&mut random);
    world.run_until_idle();
    let begun = world.clock.now();
    while world.clock.now() - begun < Duration::from_secs(3_600 * HOURS) {
        world.disturb(&mut random);
        world.run_until_idle();
        world.check();
        world.clock.advance(ms(random.below(2_000) as u64));
        world.run_until_idle();
        world.check();
    }

    world.calm.store(true, Ordering::Relaxed);
    (0..SERVICES).for_each(|service| world.start(service));
    world.woken.0.store(true, Ordering::Relaxed);
    // Every backoff and every build that hangs ends within this time.
    for _ in 0..100 {
        world.clock.advance(ms(200));
        world.run_until_idle();
    }
    world.check();
    for &id in &world.ids {
        let status = world.registry.status(id).unwrap();
        match world.state(id) {
            SupervisorState::Up | SupervisorState::Completed => {
                assert_eq!(status.phase, Phase::Ready);
            }
            SupervisorState::GivenUp | SupervisorState::Permanent => {
                assert!(status.last_failure.is_some(), "it waits without a failure")
            }
            SupervisorState::Waiting => {
                let missing = status.supervisor.unwrap().waiting_for.unwrap();
                let missing = world.registry.find(&missing).unwrap();
                assert_ne!(world.registry.status(missing).unwrap().phase, Phase::Ready);
            }
            SupervisorState::Building => {
                let root = status.blocked_by.last().expect("a build takes long without a cause");
                let root = world.registry.find(root).unwrap();
                let root = world.registry.status(root).unwrap().supervisor.unwrap().state;
                let waits = matches!(
                    root,
                    SupervisorState::GivenUp
                        | SupervisorState::Permanent
                        | SupervisorState::Waiting
                );
                assert!(waits, "{} waits for a service that is {root}", status.name);
            }
            doing => panic!("{} is {doing}", status.name),
        }
    }
    for &id in &world.ids {
        let _ = poll_once(&mut world.registry.restart(id, "again"));
    }
    world.run_until_idle();
    world.registry.wait_all_ready().wait_blocking_timeout(Duration::ZERO).unwrap();

    world.books.print();

    let shutdown = Arc::<Mutex<Option<mainstay::supervise::StopReport>>>::default();
    let (ended, ends) = (Arc::clone(&shutdown), world.registry.shutdown(ms(60_000)));
    world.tasks.push(Box::pin(async move {
        let ends = ends.await;
        *ended.lock().unwrap() = Some(ends);
    }));
    world.woken.0.store(true, Ordering::Relaxed);
    world.run_until_idle();
    assert!(shutdown.lock().unwrap().take().expect("the shutdown ends").stop_timeouts.is_empty());
    for service in 0..SERVICES {
        let [closes, published] =
            world.books.with(service, |seen| [seen.closes, seen.published + seen.replaced]);
        assert_eq!(closes, published, "S14: each value of s{service} is closed once");
    }
    let left = (world.tasks.len(), world.clock.sleepers(), world.alive.load(Ordering::Relaxed));
    assert_eq!(left, (0, 0, 0), "tasks, sleepers, instances");
}
