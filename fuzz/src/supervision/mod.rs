//! Supervised services, with failures, restarts, stops, starts and reloads, on one thread and in
//! virtual time. After each operation their states are compared with a model.

mod model;
mod op;

use std::{
    collections::{BTreeSet, VecDeque},
    future::poll_fn,
    sync::{Arc, Mutex, PoisonError},
    task::Poll,
    time::Duration,
};

use arbitrary::{Arbitrary, Unstructured};
use mainstay::{
    Phase, ServiceId,
    error::ReloadError,
    supervise::{self, Clock, Live, Permanent, Planned, RestartPolicy, StopWait, SupervisorState},
    test_kit::TestRuntime,
};

use self::{
    model::{LIMIT, MAX_BACKOFF, Meaning, Model, RESET_AFTER, ms},
    op::{BodyEnd, Op, Outcome, Script},
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
    body_end: Option<BodyEnd>,
    bodies: usize,
}

type SharedOrders = Arc<Mutex<Orders>>;

fn with<R>(orders: &SharedOrders, use_it: impl FnOnce(&mut Orders) -> R) -> R {
    use_it(&mut orders.lock().unwrap_or_else(PoisonError::into_inner))
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
        for (dependencies, body) in &script.services {
            world.supervise(dependencies, body.map(ms));
        }
        world.runtime.run_until_idle();
        world.model.run_until_idle();
        world
    }

    fn supervise(&mut self, dependencies: &[usize], body: Option<u64>) {
        let registry = &self.runtime.registry;
        let name = format!("s{}", self.ids.len());
        let id = registry.register::<u64>(&name).expect("the capacity is sufficient");
        let from: Vec<_> = dependencies.iter().map(|&other| self.ids[other]).collect();
        for &dependency in &from {
            registry.depends(id).on(dependency).expect("the edges lead to earlier services");
        }
        // No sum of a few of these is another one.
        let offset = 100 * 3_u64.pow(self.ids.len() as u32);
        let service = model::Service::new(dependencies.to_vec(), body, offset);
        let body = service.body;
        let policy = RestartPolicy::default()
            .backoff(Duration::from_nanos(service.first_backoff), Duration::from_nanos(MAX_BACKOFF))
            .without_jitter()
            .reset_after(Duration::from_nanos(RESET_AFTER))
            .stop_timeout(Duration::from_nanos(service.stop_timeout))
            .max_failures(LIMIT, WINDOW);
        let supervisor = registry.supervise(id).expect("it has no provider").restart_policy(policy);
        let orders = SharedOrders::default();
        let builder = {
            let orders = Arc::clone(&orders);
            async move |build: supervise::Build<u64>| {
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
        let Some(members) = self.model.members(root) else { return };
        for &member in &members {
            with(&self.orders[member], |orders| orders.outcomes.clear());
            self.model.services[member].outcomes.clear();
        }
        let refuses = refuser.is_multiple_of(3) && !members.is_empty();
        let refuser = refuses.then(|| members[usize::from(refuser / 3) % members.len()]);
        if let Some(refuser) = refuser {
            with(&self.orders[refuser], |orders| orders.outcomes.push_back(Outcome::Fail));
        }
        let (reload, result) =
            (self.runtime.registry.reload(self.ids[root]), Arc::new(Mutex::new(None)));
        let of_task = Arc::clone(&result);
        self.runtime.spawn(async move {
            let reloaded = reload.await;
            *of_task.lock().unwrap_or_else(PoisonError::into_inner) = Some(reloaded);
        });
        self.runtime.run_until_idle();
        let result = result.lock().unwrap_or_else(PoisonError::into_inner).take();
        match (result.expect("it ends at once"), refuser) {
            (Ok(reloaded), None) if !members.is_empty() => {
                let switched = reloaded.members.iter().map(|it| it.service.to_string());
                let expected = members.iter().map(|member| format!("s{member}"));
                assert_eq!(expected.collect::<BTreeSet<_>>(), switched.collect());
                self.model.reload(&members);
            }
            (Err(ReloadError::Refused { service, .. }), Some(refuser)) => {
                assert_eq!(*service, *format!("s{refuser}"));
                let left = with(&self.orders[refuser], |orders| orders.outcomes.len());
                assert_eq!(left, 0, "its builder was called");
            }
            (Err(ReloadError::NotReady(_)), None) if members.is_empty() => {}
            (result, refuser) => panic!("{members:?}, {refuser:?}: {result:?}"),
        }
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
            let bodies = with(&self.orders[service], |orders| orders.bodies);
            assert_eq!(usize::from(expected.body_runs), bodies, "bodies of s{service}");
        }
        for (ticket, report) in &self.waits {
            let names =
                |report: &BTreeSet<usize>| report.iter().map(|it| format!("s{it}")).collect();
            let expected: Option<BTreeSet<String>> = self.model.plan.report(*ticket).map(names);
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
