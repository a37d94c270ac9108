//! Supervised services, with failures, restarts, stops, starts and reloads, on one thread and in
//! virtual time. After each operation their states are compared with a model.

mod model;
mod op;

use std::{
    collections::{BTreeSet, VecDeque},
    future::poll_fn,
    mem,
    sync::{Arc, Mutex, PoisonError},
    task::Poll,
    time::Duration,
};

use arbitrary::{Arbitrary, Unstructured};
use mainstay::{
    Instance, Phase, ServiceId,
    error::ReloadError,
    supervise::{
        self, Clock, Live, Permanent, Planned, ReloadWait, Reloaded, RestartPolicy, StopWait,
        SupervisorState,
    },
    test_kit::TestRuntime,
};

use self::{
    model::{LIMIT, MAX_BACKOFF, Meaning, Model, Parts, RESET_AFTER, ms},
    op::{BodyEnd, Kind, Op, Outcome, Script},
};
use crate::plan::{EndKind, Ticket};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Longer than a script lasts: the model has no window.
const WINDOW: Duration = Duration::from_secs(1_000_000);

/// Runs one input: the bytes of a [`Script`].
///
/// # Panics
///
/// The registry and the model differ.
pub fn run(data: &[u8]) {
    let Ok(script) = Script::arbitrary(&mut Unstructured::new(data)) else { return };
    if crate::is_traced() {
        println!("{script:#?}");
    }
    let mut world = World::new(&script);
    world.check("the begin");
    for &op in &script.ops {
        // So no two operations have times in common: all durations are milliseconds.
        world.advance(1);
        world.step(op);
        if crate::is_traced() {
            println!("{op:?}: {:#?}", world.runtime.recorder.take());
        }
        world.check(op);
    }
    world.finish();
}

/// The orders of the test to a service.
#[derive(Debug, Default)]
struct Orders {
    outcomes: VecDeque<Outcome>,
    /// Whether its next adoption fails.
    fails_to_adopt: bool,
    /// What it has adopted: the dependency, its generation and its revision.
    adopted: Vec<(usize, u64, u64)>,
    body_end: Option<BodyEnd>,
    bodies: usize,
}

type SharedOrders = Arc<Mutex<Orders>>;

fn with<R>(orders: &SharedOrders, use_it: impl FnOnce(&mut Orders) -> R) -> R {
    use_it(&mut orders.lock().unwrap_or_else(PoisonError::into_inner))
}

fn names<'a>(services: impl IntoIterator<Item = &'a usize>) -> BTreeSet<String> {
    services.into_iter().map(|it| format!("s{it}")).collect()
}

/// Counts the bodies of a service.
struct BodyGuard(SharedOrders);

impl Drop for BodyGuard {
    fn drop(&mut self) {
        with(&self.0, |orders| orders.bodies -= 1);
    }
}

/// The services that a restart or a stop has ended.
type Report = Arc<Mutex<Option<BTreeSet<String>>>>;

struct World {
    model: Model,
    runtime: TestRuntime,
    ids: Vec<ServiceId<u64>>,
    orders: Vec<SharedOrders>,
    waits: Vec<(Ticket, Report)>,
}

impl World {
    fn new(script: &Script) -> Self {
        let runtime = TestRuntime::new(script.services.len()).expect("the capacity is small");
        let mut world = Self {
            model: Model::default(),
            runtime,
            ids: Vec::new(),
            orders: Vec::new(),
            waits: Vec::new(),
        };
        for (dependencies, kind, body) in &script.services {
            world.supervise(dependencies, *kind, body.map(ms));
        }
        world.runtime.run_until_idle();
        world.model.run_until_idle();
        world
    }

    fn supervise(&mut self, dependencies: &[usize], kind: Kind, body: Option<u64>) {
        let registry = &self.runtime.registry;
        let name = format!("s{}", self.ids.len());
        let id = registry.register::<u64>(&name).expect("the capacity is sufficient");
        let from: Vec<_> = dependencies.iter().map(|&other| self.ids[other]).collect();
        for &dependency in &from {
            registry.depends(id).on(dependency).expect("the edges lead to earlier services");
        }
        // No sum of a few of these is another one.
        let offset = 100 * 3_u64.pow(self.ids.len() as u32);
        let service = model::Service::new(dependencies.to_vec(), kind, body, offset);
        let body = service.body;
        let policy = RestartPolicy::default()
            .backoff(Duration::from_nanos(service.first_backoff), Duration::from_nanos(MAX_BACKOFF))
            .without_jitter()
            .reset_after(Duration::from_nanos(RESET_AFTER))
            .stop_timeout(Duration::from_nanos(service.stop_timeout))
            .max_failures(LIMIT, WINDOW);
        let mut supervisor =
            registry.supervise(id).expect("it has no provider").restart_policy(policy);
        if kind.is_exclusive() {
            supervisor = supervisor.exclusive();
        }
        let orders = SharedOrders::default();
        for &dependency in dependencies.iter().filter(|it| kind.adopts(**it)) {
            let orders = Arc::clone(&orders);
            let adopt = move |_: &u64, new: Arc<Instance<u64>>| {
                with(&orders, |orders| {
                    let (generation, revision) =
                        (Instance::generation(&new).get(), Instance::revision(&new));
                    orders.adopted.push((dependency, generation, revision));
                    if mem::take(&mut orders.fails_to_adopt) { Err("no luck") } else { Ok(()) }
                })
            };
            let id = self.ids[dependency];
            supervisor = supervisor.adopt(id, adopt).expect("the id is of this registry");
        }
        let builder = {
            let orders = Arc::clone(&orders);
            async move |build: supervise::Build<u64>| {
                assert!(!kind.is_exclusive() || !build.is_reload(), "S22: it is built aside");
                for &dependency in &from {
                    build.wait_for(dependency).await?;
                }
                match with(&orders, |orders| orders.outcomes.pop_front()) {
                    None => Ok::<u64, BoxError>(1),
                    Some(Outcome::Fail) => Err("no luck".into()),
                    Some(Outcome::FailPermanently) => Err(Permanent::new("never").into()),
                    Some(Outcome::FailAsPlanned) => Err(Planned::new("not now").into()),
                }
            }
        };
        match body {
            None => drop(self.runtime.spawn(supervisor.run(builder))),
            Some(takes) => {
                let (orders, clock) = (Arc::clone(&orders), self.runtime.clock.clone());
                let body = async move |live: Live<u64>| {
                    let bodies = with(&orders, |orders| {
                        orders.bodies += 1;
                        orders.bodies
                    });
                    let _guard = BodyGuard(Arc::clone(&orders));
                    assert_eq!(bodies, 1, "S10: two bodies of one service");
                    work(&live, &orders, &clock, takes).await
                };
                self.runtime.spawn(supervisor.body(body).run(builder));
            }
        }
        self.ids.push(id);
        self.orders.push(orders);
        self.model.services.push(service);
    }

    fn index(&self, service: u8) -> usize {
        usize::from(service) % self.ids.len()
    }

    fn advance(&mut self, nanoseconds: u64) {
        self.runtime.advance(Duration::from_nanos(nanoseconds));
        self.model.advance(nanoseconds);
    }

    fn step(&mut self, op: Op) {
        match op {
            Op::Fail { service, planned } => {
                let service = self.index(service);
                let (id, registry) = (self.ids[service], &self.runtime.registry);
                let failed = match planned {
                    false => registry.fail(id, "by the test"),
                    true => registry.fail(id, Planned::new("by the test")),
                };
                failed.expect("the id is of this registry");
                let meaning = if planned { Meaning::Planned } else { Meaning::Failed };
                self.model.fail(service, meaning);
            }
            Op::Restart(service) => {
                let service = self.index(service);
                let restart = self.runtime.registry.restart(self.ids[service], "by the test");
                self.wait(restart, service, EndKind::Restart, false);
            }
            Op::Stop { service, subtree } => {
                let service = self.index(service);
                let (id, registry) = (self.ids[service], &self.runtime.registry);
                let stop = if subtree { registry.stop_subtree(id) } else { registry.stop(id) };
                self.wait(stop, service, EndKind::Stop, subtree);
            }
            Op::Start(service) => {
                let service = self.index(service);
                let was_stopped = self.runtime.registry.start(self.ids[service]);
                let was_stopped = was_stopped.expect("the id is of this registry");
                assert_eq!(self.model.start(service), was_stopped, "whether it was stopped");
            }
            Op::Reload { service, refuser } => self.reload(self.index(service), refuser),
            Op::NextBuild(service, outcome) => {
                let service = self.index(service);
                with(&self.orders[service], |orders| orders.outcomes.push_back(outcome));
                self.model.services[service].outcomes.push_back(outcome);
            }
            Op::EndBody(service, end) => {
                let service = self.index(service);
                let is_up = self.model.state(service) == SupervisorState::Up;
                if is_up && self.model.services[service].body_runs {
                    with(&self.orders[service], |orders| orders.body_end = Some(end));
                    self.model.end_body(service, end);
                }
            }
            Op::Advance(time) => self.advance(ms(time)),
        }
        self.runtime.run_until_idle();
    }

    /// Reloads a service, if this ends at once: all builds succeed, or one of them fails.
    fn reload(&mut self, root: usize, refuser: u8) {
        let Some(parts) = self.model.parts(root) else { return };
        let Parts { members, gaps, adopters } = &parts;
        for &service in members.iter().chain(gaps) {
            with(&self.orders[service], |orders| orders.outcomes.clear());
            self.model.services[service].outcomes.clear();
        }
        let registry = &self.runtime.registry;
        if refuser >= 128 && !gaps.is_empty() {
            let reload = registry.reload_without_gap(self.ids[root]);
            let Err(ReloadError::Gap { gaps: named, .. }) = self.end(reload) else {
                panic!("S22: {gaps:?} have a gap");
            };
            return assert_eq!(
                names(gaps),
                named.iter().map(|it| it.service.to_string()).collect()
            );
        }
        // An adopter that fails while services with a gap begin again may fail them before their
        // attempts have begun, or after that.
        let adopters_that_fail = adopters.iter().map(|(it, _)| *it).filter(|_| gaps.is_empty());
        let may_fail: Vec<usize> =
            members.iter().chain(gaps).copied().chain(adopters_that_fail).collect();
        let fails = refuser.is_multiple_of(3) && !may_fail.is_empty();
        let failing = fails.then(|| may_fail[usize::from(refuser / 3) % may_fail.len()]);
        let is_adopter = |it: &usize| !members.contains(it) && !gaps.contains(it);
        let failing_adopter = failing.filter(is_adopter);
        if let Some(failing) = failing {
            with(&self.orders[failing], |orders| match failing_adopter {
                Some(_) => orders.fails_to_adopt = true,
                None => orders.outcomes.push_back(Outcome::Fail),
            });
        }
        let result = self.end(registry.reload(self.ids[root]));
        match (result, failing.filter(|it| members.contains(it))) {
            (Ok(reloaded), None) if !members.is_empty() || !gaps.is_empty() => {
                let switched = reloaded.members.iter().map(|it| it.service.to_string());
                assert_eq!(names(members), switched.collect(), "members");
                let adopting = reloaded.adopters.iter().map(|it| it.to_string());
                let expected: Vec<_> = adopters.iter().map(|(it, _)| *it).collect();
                assert_eq!(names(&expected), adopting.collect(), "adopters");
                if let Some(gap) = failing.filter(|it| gaps.contains(it)) {
                    self.model.services[gap].outcomes.push_back(Outcome::Fail);
                }
                self.model.reload(&parts, failing_adopter);
                let came_up = reloaded.restarted.iter().map(|it| (&*it.service, &it.not_ready));
                let came_up = came_up.map(|(it, not_ready)| (it.to_string(), not_ready.is_none()));
                let is_ready = |&it: &usize| self.model.services[it].phase == Phase::Ready;
                let expected = parts.gaps.iter().map(|it| (format!("s{it}"), is_ready(it)));
                assert_eq!(expected.collect::<BTreeSet<_>>(), came_up.collect(), "with a gap");
            }
            (Err(ReloadError::Refused { service, .. }), Some(refuser)) => {
                assert_eq!(*service, *format!("s{refuser}"));
                let left = with(&self.orders[refuser], |orders| orders.outcomes.len());
                assert_eq!(left, 0, "its builder was called");
            }
            (Err(ReloadError::NotReady(_)), None) if members.is_empty() => {}
            (result, _) => panic!("{parts:?}, {failing:?}: {result:?}"),
        }
    }

    /// Returns the result of a reload that ends at once.
    fn end(&mut self, reload: ReloadWait) -> Result<Reloaded, ReloadError> {
        let result = Arc::new(Mutex::new(None));
        let of_task = Arc::clone(&result);
        self.runtime.spawn(async move {
            let reloaded = reload.await;
            *of_task.lock().unwrap_or_else(PoisonError::into_inner) = Some(reloaded);
        });
        self.runtime.run_until_idle();
        let result = result.lock().unwrap_or_else(PoisonError::into_inner).take();
        result.expect("it ends at once")
    }

    /// Begins a restart or a stop.
    fn wait(&mut self, wait: StopWait, service: usize, kind: EndKind, subtree: bool) {
        let (ticket, report) = (self.waits.len() as Ticket, Report::default());
        let result = Arc::clone(&report);
        self.runtime.spawn(async move {
            let report = wait.await.expect("the registry is open");
            let stopped = report.stopped.iter().map(|one| one.service.to_string());
            let late = report.stop_timeouts.iter().map(|one| one.service.to_string());
            *result.lock().unwrap_or_else(PoisonError::into_inner) =
                Some(stopped.chain(late).collect());
        });
        self.waits.push((ticket, report));
        self.model.end_as_planned(service, kind, subtree, ticket);
    }

    /// Compares all services, and the results of restarts and stops.
    fn check(&self, after: impl std::fmt::Debug) {
        for (service, &id) in self.ids.iter().enumerate() {
            let status = self.runtime.registry.status(id).expect("the id is of this registry");
            let supervisor = status.supervisor.as_ref().expect("it is supervised");
            let expected = &self.model.services[service];
            assert_eq!(
                (expected.phase, expected.generation, self.model.state(service)),
                (status.phase, status.generation.get(), supervisor.state),
                "phase, generation, state of s{service} in model and registry after {after:?}"
            );
            if expected.phase == Phase::Ready {
                assert_eq!(expected.revision, status.revision, "revision of s{service}, {after:?}");
            }
            let shows = !matches!(
                supervisor.state,
                SupervisorState::Stopping | SupervisorState::Stopped | SupervisorState::Completed
            );
            if shows {
                let failures = supervisor.failures;
                assert_eq!(expected.shown, failures, "failures of s{service} after {after:?}");
            }
            with(&self.orders[service], |orders| {
                assert_eq!(usize::from(expected.body_runs), orders.bodies, "bodies of s{service}");
                assert_eq!(expected.adopted, orders.adopted, "S23: s{service} after {after:?}");
            });
        }
        for (ticket, report) in &self.waits {
            let expected = self.model.plan.report(*ticket).map(names);
            let report = report.lock().unwrap_or_else(PoisonError::into_inner);
            assert_eq!(expected, *report, "services that have stopped, after {after:?}");
        }
    }

    /// Ends all tasks by a close.
    fn finish(mut self) {
        self.runtime.registry.close();
        // The waits of restarts that are in progress would end with an error.
        self.runtime.tasks.clear();
        for (service, orders) in self.orders.iter().enumerate() {
            assert_eq!(with(orders, |orders| orders.bodies), 0, "bodies of s{service}");
        }
    }
}

/// A body: works until it is notified, or the test orders it to return.
async fn work(
    live: &Live<u64>,
    orders: &SharedOrders,
    clock: &impl Clock,
    takes: u64,
) -> Result<supervise::BodyEnd, BoxError> {
    let mut stopping = live.stopping();
    let ended = poll_fn(|context| {
        if std::pin::Pin::new(&mut stopping).poll(context).is_ready() {
            return Poll::Ready(None);
        }
        // The test polls all tasks after an order.
        let end = with(orders, |orders| orders.body_end.take());
        end.map_or(Poll::Pending, |end| Poll::Ready(Some(end)))
    })
    .await;
    match ended {
        None if takes > 0 => clock.sleep_until(clock.now() + Duration::from_nanos(takes)).await,
        None => {}
        Some(BodyEnd::Fails) => return Err("no luck".into()),
        Some(BodyEnd::FailsPermanently) => return Err(Permanent::new("never").into()),
        Some(BodyEnd::Completes) => return Ok(supervise::BodyEnd::Completed),
        Some(BodyEnd::StaysReady) => return Ok(supervise::BodyEnd::StayReady),
    }
    Ok(supervise::BodyEnd::StayReady)
}
