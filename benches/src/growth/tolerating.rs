//! Waits for one service, and grace periods: of one service for many dependencies, and of many
//! services for one.

use std::{
    future::{Future, pending},
    pin::Pin,
    task::{Context, Waker},
    time::{Duration, Instant},
};

use mainstay::{
    Phase, Registry, ServiceId,
    supervise::{Build, Clock, Sleep},
};

use super::{
    Operation, counted,
    graphs::Order::{DependenciesFirst, Random},
    graphs::in_order,
    services::{ANSWER, Services},
};

pub(super) const OPERATIONS: &[Operation] = &[
    Operation::new("waits for one service: it becomes ready", |n| wait_for_one(n, true)),
    Operation::new("waits for one service: they are dropped", |n| wait_for_one(n, false)),
    Operation::new("grace periods of one service: its build", |n| {
        counted(|| Tolerant::waits(n, Duration::MAX));
    }),
    Operation::new("grace periods of one service: each dependency fails", each_fails),
    Operation::new("grace periods of one service: each is declared while it is up", declare_each),
    Operation::new("grace periods of one service: all were declared before", declared_before),
    Operation::new("grace periods of all services for one", all_tolerate_one),
];

type Task = Pin<Box<dyn Future<Output = ()>>>;

fn poll<F: Future + Unpin>(future: &mut F) -> bool {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop())).is_ready()
}

/// A clock at which no time passes.
struct Stopped(Instant);

impl Clock for Stopped {
    fn now(&self) -> Instant {
        self.0
    }

    fn sleep_until(&self, _: Instant) -> Sleep {
        Box::pin(pending())
    }
}

/// Services without supervisors, and idle ones.
fn services(n: usize, idle: usize) -> Services {
    let builder = Registry::builder(n + idle).unwrap().clock(Stopped(Instant::now()));
    Services::in_registry(builder.build(), n, DependenciesFirst, idle)
}

fn wait_for_one(n: usize, ready: bool) {
    let mut services = services(1, 0);
    let mut waits: Vec<_> =
        (0..n).map(|_| Some(services.registry.wait_ready(services.ids[0]))).collect();
    counted(|| {
        assert!(!waits.iter_mut().flatten().any(poll));
        if ready {
            services.publish(0);
            assert!(waits.iter_mut().flatten().all(poll));
        }
        // In another order than that of the list of waiters.
        in_order(n, Random).into_iter().for_each(|number| waits[number] = None);
    });
    assert_eq!(services.registry.status(services.ids[0]).unwrap().waiters, 0);
}

/// A service that tolerates the absence of all others.
struct Tolerant {
    services: Services,
    id: ServiceId<u64>,
    task: Task,
}

impl Tolerant {
    /// The builder waits for all dependencies, with this grace period or, if it is `None`, to
    /// start.
    fn new(services: Services, grace: Option<Duration>) -> Self {
        let id = services.registry.id("idle 0").unwrap();
        let dependencies = services.ids.clone();
        let supervisor = services.registry.supervise(id).unwrap();
        let task = Box::pin(supervisor.run(async move |build: Build<u64>| {
            for &dependency in &dependencies {
                match grace {
                    Some(grace) => drop(build.wait_with_grace(dependency, grace).await.unwrap()),
                    None => drop(build.wait_to_start(dependency).await.unwrap()),
                }
            }
            ANSWER
        }));
        let mut tolerant = Self { services, id, task };
        tolerant.poll();
        tolerant
    }

    fn waits(n: usize, grace: Duration) -> Self {
        let mut services = services(n, 1);
        services.start();
        Self::new(services, Some(grace))
    }

    /// Polls the supervisor, whose service is ready after that.
    fn poll(&mut self) {
        assert!(!poll(&mut self.task));
        assert!(self.services.registry.get(self.id).is_ok());
    }

    /// Fails a dependency and publishes it again, and polls the supervisor after each.
    fn fail_and_publish(&mut self, number: usize) {
        assert_eq!(self.services.fail(number), 1);
        self.poll();
        self.services.running[number] = None;
        self.services.publish(number);
        self.poll();
    }
}

fn each_fails(n: usize) {
    let mut tolerant = Tolerant::waits(n, Duration::from_secs(3_600));
    counted(|| {
        in_order(n, Random).into_iter().for_each(|number| tolerant.fail_and_publish(number))
    });
}

fn declare(services: &Services, id: ServiceId<u64>, number: usize) {
    let grace = Duration::from_secs(3_600);
    services.registry.depends(id).with_grace_on(services.ids[number], grace).unwrap();
}

fn declare_each(n: usize) {
    let mut services = services(n, 1);
    services.start();
    let mut tolerant = Tolerant::new(services, None);
    counted(|| {
        for number in in_order(n, Random) {
            declare(&tolerant.services, tolerant.id, number);
            tolerant.poll();
        }
    });
    tolerant.fail_and_publish(n - 1);
}

fn declared_before(n: usize) {
    let mut services = services(n, 1);
    services.start();
    let id = services.registry.id("idle 0").unwrap();
    (0..n).for_each(|number| declare(&services, id, number));
    let mut tolerant = counted(|| Tolerant::new(services, None));
    tolerant.fail_and_publish(n - 1);
}

fn all_tolerate_one(n: usize) {
    let mut services = services(1, n);
    services.start();
    let grace = Duration::from_secs(3_600);
    let dependency = services.ids[0];
    let mut tasks: Vec<Task> = (0..n)
        .map(|number| {
            let id = services.registry.id(&format!("idle {number}")).unwrap();
            let supervisor = services.registry.supervise(id).unwrap();
            Box::pin(supervisor.run(async move |build: Build<u64>| {
                build.wait_with_grace(dependency, grace).await.map(|dependency| **dependency)
            })) as Task
        })
        .collect();
    counted(|| {
        for _ in 0..2 {
            assert!(!tasks.iter_mut().any(poll));
            services.fail(0);
            assert!(!tasks.iter_mut().any(poll));
            services.running[0] = None;
            services.publish(0);
        }
    });
    assert!(services.registry.list().services.iter().all(|status| status.phase == Phase::Ready));
}
