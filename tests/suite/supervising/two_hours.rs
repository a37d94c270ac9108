//! Two hours of supervised services under random failures, by a virtual clock.
//!
//! Sixteen services have random dependencies of all kinds. Builds return errors, permanent ones,
//! and errors because of services that are not there; they panic, hang or take their time.
//! Instances are replaced, failed and reported, and services are reset. After each step, when no
//! task can continue:
//!
//! - No ready service depends on an instance that has failed (I2), nor on one that has been absent
//!   for longer than the grace period.
//! - The failures that the observer counts for a service are its own failures and no others.
//! - A service that was given up had one failure more than its limit within the window, or had been
//!   given up before and was tried once.
//! - The last attempt at a service that waits for its retry was given what is there now, apart from
//!   the time of the first backoff. So no change of an input was missed.
//!
//! At the end builds no longer fail. Then every service is ready, or given up, or has failed
//! permanently, or waits for one of these. After a reset all are ready. The shutdown stops every
//! service in time, and leaves no instance, no task and no sleeper. Each value was passed to a
//! close hook once, in order, although some close hooks panic.

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

use super::runtime::{BoxError, Task, ms};
use crate::support::{Random, Seed};
use mainstay::{
    Event, EventKind, Failure, Instance, Observer, Phase, Reason, Registry, ServiceId,
    error::DependencyUnavailable,
    supervise::{BodyEnd, Clock, Closing, Live, Permanent, RestartPolicy, SupervisorState},
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
/// The outcome of a build that succeeds at once.
const SUCCESS: usize = 99;

type Id = ServiceId<Built>;

/// The handles of the bodies that run, by which instances are replaced.
type Bodies = Arc<Mutex<Vec<Option<Live<Built>>>>>;

/// The instances that the last attempt at each service has received: their generations and
/// revisions.
type Received = Arc<Mutex<Vec<Vec<(Id, u64, u64)>>>>;

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

/// The events of one service that the observer has received.
#[derive(Default)]
struct Seen {
    /// The times of its own failures within the window before the last one.
    recent: VecDeque<Instant>,
    given_up: usize,
    /// It was given up, and neither reset nor stable since.
    tries_once: bool,
    ready_at: Option<Instant>,
    failed_at: Option<Instant>,
    replaced: usize,
    permanent: usize,
    unavailable: usize,
    graces_expired: usize,
    builds: usize,
    published: usize,
    /// The calls of the close hook, and the generation and revision of the last one.
    closes: usize,
    closed: Option<(u64, u64)>,
    own_failures: usize,
    failures_of_others: usize,
}

/// Counts the failures that the supervisors should count.
struct Books {
    clock: VirtualClock,
    of: Mutex<Vec<Seen>>,
    wrong: Mutex<Option<String>>,
}

/// The observer.
struct Watches(Arc<Books>);

impl Observer for Watches {
    fn event(&self, _: &Registry, event: &Event<'_>) {
        let books = &self.0;
        let Ok(service) = event.service[1..].parse::<usize>() else { return };
        let mut of = books.of.lock().unwrap();
        let seen = &mut of[service];
        match &event.kind {
            EventKind::Ready => {
                seen.ready_at = Some(books.clock.now());
                seen.published += 1;
            }
            EventKind::Replaced => seen.replaced += 1,
            EventKind::Failed(failure)
            | EventKind::Invalidated(failure)
            | EventKind::AttemptFailed(failure) => {
                let now = books.clock.now();
                seen.failed_at = Some(now);
                if seen.ready_at.take().is_some_and(|ready_at| now - ready_at >= RESET_AFTER) {
                    seen.tries_once = false;
                }
                match failure {
                    _ if failure.root != failure.service => seen.failures_of_others += 1,
                    Failure { reason: Reason::GraceExpired { .. }, .. } => seen.graces_expired += 1,
                    _ if DependencyUnavailable::find(*failure).is_some() => seen.unavailable += 1,
                    _ => {
                        seen.own_failures += 1;
                        seen.permanent +=
                            usize::from(failure.reason.to_string().starts_with("permanent"));
                        seen.recent.push_back(now);
                    }
                }
            }
            EventKind::GivenUp(_) => {
                seen.given_up += 1;
                let now = books.clock.now();
                seen.recent.retain(|&at| now - at < WINDOW);
                if !std::mem::replace(&mut seen.tries_once, true) && seen.recent.len() != LIMIT + 1
                {
                    let wrong = format!(
                        "{} was given up after {} failures",
                        event.service,
                        seen.recent.len()
                    );
                    *books.wrong.lock().unwrap() = Some(wrong);
                }
            }
            EventKind::AttemptStarted => seen.builds += 1,
            _ => {}
        }
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
    bodies: Bodies,
    received: Received,
    /// Whether builds succeed at once.
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
        let absent = vec![None; SERVICES];
        let bodies = Arc::new(Mutex::new((0..SERVICES).map(|_| None).collect()));
        let received = Arc::new(Mutex::new(vec![Vec::new(); SERVICES]));
        let mut world = Self {
            registry,
            clock,
            books,
            ids,
            tasks,
            woken,
            alive,
            absent,
            bodies,
            received,
            calm,
        };
        (0..SERVICES).for_each(|service| world.supervise(service, random.clone()));
        world
    }

    fn supervise(&mut self, service: usize, mut random: Random) {
        for _ in 0..service {
            random.next();
        }
        // Each build chooses some of the services before this one.
        let below: Vec<Id> = self.ids[service.saturating_sub(5)..service].to_vec();
        let restart = RestartPolicy::default()
            .backoff(FIRST_BACKOFF, ms(5_000))
            .reset_after(RESET_AFTER)
            .max_failures(LIMIT as u32, WINDOW)
            .build_timeout(ms(1_000));
        let (clock, alive, calm) =
            (self.clock.clone(), Arc::clone(&self.alive), Arc::clone(&self.calm));
        let supervisor =
            self.registry.supervise(self.ids[service]).unwrap().restart_policy(restart);
        let bodies = Arc::clone(&self.bodies);
        let supervisor = supervisor.body(async move |live: Live<Built>| {
            bodies.lock().unwrap()[service] = Some(live.clone());
            let _ = live.stopping().await;
            bodies.lock().unwrap()[service] = None;
            BodyEnd::StayReady
        });
        let supervisor = supervisor.on_close({
            let (books, alive) = (Arc::clone(&self.books), Arc::clone(&self.alive));
            async move |closing| {
                // In this test no reader holds an instance for longer than a step.
                let number = (Closing::generation(&closing).get(), Closing::revision(&closing));
                let before = alive.load(Ordering::Relaxed);
                let is_owned = Closing::into_value(closing).is_ok();
                let is_dropped = alive.load(Ordering::Relaxed) == before - 1;
                let (is_next, closes) = {
                    let seen = &mut books.of.lock().unwrap()[service];
                    seen.closes += 1;
                    let last = seen.closed.replace(number);
                    (last.is_none_or(|last| last < number), seen.closes)
                };
                if !(is_owned && is_dropped && is_next) {
                    // A panic would end only the close hook.
                    *books.wrong.lock().unwrap() = Some(format!("s{service} {number:?} is closed"));
                }
                assert!(closes % 7 != 0, "in the close hook");
            }
        });
        let received = Arc::clone(&self.received);
        self.tasks.push(Box::pin(supervisor.run(
            move |build: mainstay::supervise::Build<Built>| {
                let calm = Arc::clone(&calm);
                let outcome =
                    if calm.load(Ordering::Relaxed) { SUCCESS } else { random.below(100) };
                let mut from = below.clone();
                from.retain(|_| random.below(3) == 0);
                let from: Vec<_> = from.into_iter().map(|id| (id, random.below(6))).collect();
                let (clock, alive) = (clock.clone(), Arc::clone(&alive));
                let unavailable = below.get(random.below(below.len().max(1))).copied();
                received.lock().unwrap()[service].clear();
                let received = Arc::clone(&received);
                assert!(outcome != 0, "in the call");
                async move {
                    let (mut hard, mut tolerated) = (Vec::new(), Vec::new());
                    for (id, kind) in from {
                        let instance = match kind {
                            0 => build.wait_to_start(id).await?,
                            1 => {
                                tolerated.push(id);
                                build.wait_with_grace(id, GRACE).await?
                            }
                            _ => build.wait_for(id).await?,
                        };
                        let generation = Instance::generation(&instance).get();
                        if kind > 1 {
                            hard.push((id, generation));
                        }
                        let revision = Instance::revision(&instance);
                        received.lock().unwrap()[service].push((id, generation, revision));
                    }
                    // A build that waited for a given-up service may have begun before the calm.
                    match if calm.load(Ordering::Relaxed) { SUCCESS } else { outcome } {
                        1..4 => return Err::<_, BoxError>("no luck".into()),
                        4..6 => panic!("in a poll"),
                        6..8 => std::future::pending().await,
                        8..10 => return Err(Permanent::new("never").into()),
                        10..20 => {
                            if let Some(id) = unavailable {
                                build.registry().get(id)?;
                            }
                        }
                        20..42 => clock.sleep_until(clock.now() + ms(outcome as u64)).await,
                        _ => {}
                    }
                    Ok(Built::new(hard, tolerated, &alive))
                }
            },
        )));
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
        for (&id, absent) in self.ids.iter().zip(&mut self.absent) {
            let status = self.registry.status(id).unwrap();
            let since = absent.filter(|(generation, _)| *generation == status.generation.get());
            let since = since.unwrap_or((status.generation.get(), now));
            *absent = (status.phase != Phase::Ready).then_some(since);
        }
        if let Some(wrong) = self.books.wrong.lock().unwrap().take() {
            panic!("{wrong}");
        }
        for (service, &id) in self.ids.iter().enumerate() {
            let state = self.state(id);
            let waits = matches!(
                state,
                SupervisorState::BackingOff | SupervisorState::Permanent | SupervisorState::GivenUp
            );
            let failed_at = self.books.of.lock().unwrap()[service].failed_at;
            if !waits || failed_at.is_none_or(|at| now - at < FIRST_BACKOFF) {
                continue;
            }
            for &(input, generation, revision) in &self.received.lock().unwrap()[service] {
                let instance = self.registry.get_arc(input).ok();
                let current = instance.map(|instance| {
                    (Instance::generation(&instance).get(), Instance::revision(&instance))
                });
                assert_eq!(current, Some((generation, revision)), "s{service} is {state}");
            }
        }
        for &id in &self.ids {
            let Ok(instance) = self.registry.get(id) else { continue };
            for &(below, generation) in &instance.from {
                let now = self.registry.get(below).ok().map(|below| {
                    let below = mainstay::Guard::instance(&below);
                    Instance::generation(below).get()
                });
                assert_eq!(now, Some(generation), "I2: it depends on a failed instance");
            }
            for tolerated in &instance.tolerates {
                let service = self.ids.iter().position(|id| id == tolerated).unwrap();
                let absent = self.absent[service].map(|(_, since)| now - since);
                assert!(absent.is_none_or(|absent| absent < GRACE), "absent for {absent:?}");
            }
        }
    }

    fn disturb(&self, random: &mut Random) {
        let service = random.below(SERVICES);
        let id = self.ids[service];
        match random.below(12) {
            0 => {
                {
                    let seen = &mut self.books.of.lock().unwrap()[service];
                    seen.recent.clear();
                    seen.tries_once = false;
                }
                let _ = crate::support::poll_once(&mut self.registry.restart(id, "again"));
            }
            1..4 => drop(self.registry.fail(id, "from outside").unwrap()),
            6..8 => {
                let live = self.bodies.lock().unwrap()[service].clone();
                let instance = live.and_then(|live| Some((live.instance()?, live)));
                if let Some((instance, live)) = instance {
                    let (from, tolerates) = (instance.from.clone(), instance.tolerates.clone());
                    live.replace(Built::new(from, tolerates, &self.alive)).unwrap();
                }
            }
            4..6 => {
                if let Ok(instance) = self.registry.get_arc(id) {
                    self.registry.fail_instance(&instance, "reported by a reader").unwrap();
                }
            }
            _ => {}
        }
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
        if text.is_none_or(|text| !["in the call", "in a poll", "in the close hook"].contains(text))
        {
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
    // Every backoff and every build that hangs ends within this time.
    for _ in 0..100 {
        world.clock.advance(ms(200));
        world.run_until_idle();
    }
    world.check();
    for &id in &world.ids {
        let status = world.registry.status(id).unwrap();
        match world.state(id) {
            SupervisorState::Up => assert_eq!(status.phase, Phase::Ready),
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
        let _ = crate::support::poll_once(&mut world.registry.restart(id, "again"));
    }
    world.run_until_idle();
    world.registry.wait_all_ready().wait_blocking_timeout(Duration::ZERO).unwrap();

    let of = world.books.of.lock().unwrap();
    let sum = |what: fn(&Seen) -> usize| of.iter().map(what).sum::<usize>();
    println!(
        "{} builds, {} failures of their own, {} of others, {} graces expired, {} times given up",
        sum(|seen| seen.builds),
        sum(|seen| seen.own_failures),
        sum(|seen| seen.failures_of_others),
        sum(|seen| seen.graces_expired),
        sum(|seen| seen.given_up),
    );
    assert!(
        sum(|seen| seen.given_up) > 0 && sum(|seen| seen.failures_of_others) > 100,
        "there were too few failures"
    );
    assert!(sum(|seen| seen.graces_expired) > 10, "there were too few failures");
    let verdicts = [sum(|seen| seen.permanent), sum(|seen| seen.unavailable)];
    assert!(verdicts.iter().all(|&number| number > 10), "{verdicts:?}");
    assert!(sum(|seen| seen.replaced) > 100, "there were too few replacements");
    drop(of);

    let shutdown = Arc::<Mutex<Option<mainstay::supervise::StopReport>>>::default();
    let (ended, ends) = (Arc::clone(&shutdown), world.registry.shutdown(ms(60_000)));
    world.tasks.push(Box::pin(async move {
        let ends = ends.await;
        *ended.lock().unwrap() = Some(ends);
    }));
    world.woken.0.store(true, Ordering::Relaxed);
    world.run_until_idle();
    assert!(shutdown.lock().unwrap().take().expect("the shutdown ends").stop_timeouts.is_empty());
    for seen in &*world.books.of.lock().unwrap() {
        let published = seen.published + seen.replaced;
        assert_eq!(seen.closes, published, "S14: each value is closed once");
    }
    let left = (world.tasks.len(), world.clock.sleepers(), world.alive.load(Ordering::Relaxed));
    assert_eq!(left, (0, 0, 0), "tasks, sleepers, instances");
}
