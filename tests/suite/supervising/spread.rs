//! Builds that follow a failure of a dependency, spread over a time.
//!
//! - Many dependents of one service recover within the time after it, never all at once, also with
//!   a limit on the number of builds. A shutdown in the middle is not delayed.
//! - A dependency that fails again is waited for again. A replacement changes nothing.
//! - A restart or a stop of the service itself ends the wait.
//! - A restart of the dependency, an expired grace period, and a failure during the build count as
//!   a failure of the dependency. A failure of the service itself does not.
//! - Soft dependencies are not waited for.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use super::{
    runtime::{BoxError, TestRuntime, exact, ms},
    shutting_down::begin,
};
use crate::support::{poll_once, publish, up};
use mainstay::{
    Provider, Running, ServiceId,
    error::WaitForError,
    supervise::{Build, Clock, RestartPolicy, SupervisorState},
};

const CLIENTS: usize = 200;
const OVER: Duration = ms(10_000);
const HOUR: Duration = ms(3_600_000);

fn spread() -> RestartPolicy {
    exact().spread(OVER)
}

/// A pool that is up, and its clients. Each build takes 10 ms.
struct Herd {
    runtime: TestRuntime,
    pool: ServiceId<u32>,
    provider: Provider<u32>,
    running: Option<Running<u32>>,
    clients: Vec<ServiceId<u32>>,
    /// When the builds have received the pool.
    begun: Arc<Mutex<Vec<Instant>>>,
}

impl Herd {
    fn new(policy: &RestartPolicy, limit: Option<usize>) -> Self {
        let mut runtime = TestRuntime::with_capacity(CLIENTS + 1);
        let pool = runtime.service("pool");
        let (provider, running) = up(&runtime.registry, pool, 1);
        let clients: Vec<ServiceId<u32>> =
            (0..CLIENTS).map(|n| runtime.service(&format!("client {n}"))).collect();
        if let Some(most) = limit {
            runtime.registry.limit_builds(clients.iter().copied(), most).unwrap();
        }
        let begun = Arc::<Mutex<Vec<Instant>>>::default();
        for &client in &clients {
            let (begun, clock) = (Arc::clone(&begun), runtime.clock.clone());
            runtime.supervise(client, policy.clone(), move |build| {
                let (begun, clock) = (Arc::clone(&begun), clock.clone());
                async move {
                    let pool = build.wait_for(pool).await?;
                    begun.lock().unwrap().push(clock.now());
                    clock.sleep_until(clock.now() + ms(10)).await;
                    Ok::<u32, WaitForError>(**pool)
                }
            });
        }
        let mut herd = Self { runtime, pool, provider, running: Some(running), clients, begun };
        herd.runtime.run_until_idle();
        herd.runtime.advance(HOUR);
        assert_eq!(herd.up(), CLIENTS);
        herd.begun.lock().unwrap().clear();
        herd
    }

    fn up(&self) -> usize {
        self.clients.iter().filter(|&&client| self.runtime.get(client).is_some()).count()
    }

    /// The number of clients in this state.
    fn are(&self, state: SupervisorState) -> usize {
        self.clients.iter().filter(|&&client| self.runtime.state(client) == state).count()
    }

    fn fail(&mut self) {
        self.running.take().unwrap().fail("unplugged");
        self.runtime.run_until_idle();
    }

    fn recover(&mut self) -> Instant {
        self.running = Some(publish(&self.provider, 2));
        self.runtime.run_until_idle();
        self.runtime.clock.now()
    }

    /// The greatest number of builds that began within 100 ms.
    fn most_at_once(&self, ready: Instant) -> usize {
        let mut begun = vec![0; 101];
        for &at in self.begun.lock().unwrap().iter() {
            assert!(at >= ready && at <= ready + OVER, "after {:?}", at - ready);
            begun[((at - ready).as_millis() / 100) as usize] += 1;
        }
        begun.into_iter().max().unwrap()
    }
}

#[test]
fn many_dependents_recover_spread_over_the_time() {
    let mut herd = Herd::new(&spread(), None);
    herd.fail();
    herd.runtime.advance(ms(30_000));
    assert_eq!(herd.are(SupervisorState::Waiting), CLIENTS);
    let line = "client 7: waiting for pool; pool: down: unplugged";
    assert_eq!(herd.runtime.registry.status(herd.clients[7]).unwrap().to_string(), line);
    assert!(herd.begun.lock().unwrap().is_empty(), "no build before the dependency is ready");

    let ready = herd.recover();
    assert!(herd.are(SupervisorState::BackingOff) > CLIENTS - 20);
    herd.runtime.advance(OVER);
    assert_eq!(herd.begun.lock().unwrap().len(), CLIENTS, "each of them has begun in time");
    herd.runtime.advance(ms(10));
    assert_eq!(herd.up(), CLIENTS);
    // Two are expected.
    assert!(herd.most_at_once(ready) < 20);
    let status = herd.runtime.supervisor_status(herd.clients[0]);
    assert_eq!(status.failures, 0);
}

#[test]
fn a_limit_on_builds_counts_beside_it() {
    let mut herd = Herd::new(&spread(), Some(2));
    herd.fail();
    herd.recover();
    for _ in 0..OVER.as_millis() / 100 + 1 {
        herd.runtime.advance(ms(100));
        assert!(herd.are(SupervisorState::Building) <= 2);
    }
    // As many as have begun, or a few more.
    herd.runtime.advance(OVER);
    assert_eq!(herd.up(), CLIENTS);
}

#[test]
fn a_shutdown_in_the_middle_is_not_delayed() {
    for ready in [false, true] {
        let mut herd = Herd::new(&spread(), None);
        herd.fail();
        if ready {
            herd.recover();
            herd.runtime.advance(OVER / 2);
            let backing_off = herd.are(SupervisorState::BackingOff);
            assert!(herd.up() > CLIENTS / 5 && backing_off > CLIENTS / 5);
        }
        let shutdown = begin(&mut herd.runtime, ms(1_000));
        // The provider by hand holds nothing.
        let report = shutdown.lock().unwrap().take().expect("it has ended at once");
        assert!(report.stop_timeouts.is_empty(), "{report}");
        assert!(herd.runtime.tasks.is_empty());
    }
}

#[test]
fn a_restart_of_the_dependency_is_followed_by_the_same() {
    let mut herd = Herd::new(&spread(), None);
    herd.runtime.restart(herd.pool);
    let ready = herd.recover();
    assert!(herd.are(SupervisorState::BackingOff) > CLIENTS - 20);
    herd.runtime.advance(OVER + ms(10));
    assert_eq!(herd.up(), CLIENTS);
    assert!(herd.most_at_once(ready) < 20);
}

#[test]
fn without_it_all_of_them_begin_at_once() {
    let mut herd = Herd::new(&exact().spread(Duration::ZERO), None);
    herd.fail();
    assert_eq!(herd.are(SupervisorState::Building), CLIENTS);
    let ready = herd.recover();
    assert_eq!(herd.most_at_once(ready), CLIENTS);
}

/// One service that is built from `base`.
struct Scene {
    runtime: TestRuntime,
    base: ServiceId<u32>,
    service: ServiceId<u32>,
    provider: Provider<u32>,
    running: Option<Running<u32>>,
}

impl Scene {
    fn new<B>(
        policy: RestartPolicy,
        builder: impl FnMut(Build<u32>, ServiceId<u32>) -> B + Send + 'static,
    ) -> Self
    where
        B: Future<Output = Result<u32, BoxError>> + Send + 'static,
    {
        let mut runtime = TestRuntime::new();
        let (base, service) = (runtime.service("base"), runtime.service("service"));
        let (provider, running) = up(&runtime.registry, base, 1);
        let mut builder = builder;
        runtime.supervise(service, policy, move |build| builder(build, base));
        runtime.run_until_idle();
        Self { runtime, base, service, provider, running: Some(running) }
    }

    /// A service that waits for `base` and is up.
    fn up(policy: RestartPolicy) -> Self {
        let scene = Self::new(policy, |build, base| async move {
            Ok::<u32, BoxError>(**build.wait_for(base).await?)
        });
        assert_eq!(scene.runtime.get(scene.service), Some(1));
        scene
    }

    fn fail(&mut self) {
        self.running.take().unwrap().fail("unplugged");
        self.runtime.run_until_idle();
    }

    fn recover(&mut self, value: u32) {
        self.running = Some(publish(&self.provider, value));
        self.runtime.run_until_idle();
    }

    fn state(&self) -> SupervisorState {
        self.runtime.state(self.service)
    }

    fn next_try(&self) -> Option<Duration> {
        self.runtime.supervisor_status(self.service).next_try_in
    }
}

#[test]
fn a_dependency_that_fails_again_is_waited_for_again_and_a_replacement_changes_nothing() {
    let mut scene = Scene::up(exact().spread(HOUR));
    scene.fail();
    assert_eq!(scene.state(), SupervisorState::Waiting);
    scene.recover(2);
    assert_eq!(scene.state(), SupervisorState::BackingOff);
    let first = scene.next_try().unwrap();
    assert!(first <= HOUR);

    scene.running.as_ref().unwrap().replace(3).unwrap();
    scene.runtime.run_until_idle();
    assert_eq!((scene.state(), scene.next_try()), (SupervisorState::BackingOff, Some(first)));

    scene.fail();
    assert_eq!((scene.state(), scene.next_try()), (SupervisorState::Waiting, None));
    scene.runtime.advance(HOUR * 2);
    assert_eq!(scene.state(), SupervisorState::Waiting);
    scene.recover(4);
    assert_ne!(scene.next_try(), Some(first), "another part of the time");
    scene.runtime.advance(HOUR);
    assert_eq!(scene.runtime.get(scene.service), Some(4));
}

/// It fails and recovers between two polls of the supervisor.
#[test]
fn a_dependency_that_came_back_unnoticed_is_another_one() {
    let mut scene = Scene::up(exact().spread(HOUR));
    scene.fail();
    scene.recover(2);
    let first = scene.next_try();
    scene.running.take().unwrap().fail("unplugged");
    scene.recover(3);
    assert_eq!(scene.state(), SupervisorState::BackingOff);
    assert_ne!(scene.next_try(), first);
}

#[test]
fn a_restart_of_the_service_ends_the_wait_and_so_do_a_stop_and_a_close() {
    for ready in [false, true] {
        let mut scene = Scene::up(exact().spread(Duration::MAX));
        scene.fail();
        if ready {
            scene.recover(2);
            scene.runtime.advance(HOUR * 1_000);
            assert_eq!(scene.state(), SupervisorState::BackingOff);
        }
        scene.runtime.restart(scene.service);
        let state = if ready { SupervisorState::Up } else { SupervisorState::Building };
        assert_eq!(scene.state(), state);

        let mut scene = Scene::up(exact().spread(HOUR));
        scene.fail();
        if ready {
            scene.recover(2);
        }
        let mut stop = scene.runtime.registry.stop(scene.service);
        assert!(poll_once(&mut stop).is_pending());
        scene.runtime.run_until_idle();
        assert!(poll_once(&mut stop).is_ready());
        assert!(scene.runtime.registry.start(scene.service).unwrap());
        scene.runtime.run_until_idle();
        assert_eq!(scene.state(), state);

        let mut scene = Scene::up(exact().spread(HOUR));
        scene.fail();
        if ready {
            scene.recover(2);
        }
        scene.runtime.registry.close();
        scene.runtime.run_until_idle();
        assert!(scene.runtime.tasks.is_empty());
    }
}

#[test]
fn a_restart_of_the_dependency_during_the_wait_begins_it_anew() {
    let mut scene = Scene::up(exact().spread(HOUR));
    scene.fail();
    scene.recover(2);
    let first = scene.next_try();
    scene.runtime.restart(scene.base);
    assert_eq!(scene.state(), SupervisorState::Waiting);
    scene.recover(3);
    assert_eq!(scene.state(), SupervisorState::BackingOff);
    assert_ne!(scene.next_try(), first);
    scene.runtime.advance(HOUR);
    assert_eq!(scene.runtime.get(scene.service), Some(3));
}

#[test]
fn the_dependents_of_a_stopped_service_come_back_spread_after_its_start() {
    let mut scene = Scene::up(exact().spread(HOUR));
    let mut stop = scene.runtime.registry.stop(scene.base);
    let _ = poll_once(&mut stop);
    scene.runtime.run_until_idle();
    assert!(poll_once(&mut stop).is_ready());
    assert_eq!(scene.state(), SupervisorState::Waiting);
    scene.runtime.advance(HOUR * 3);
    scene.runtime.registry.start(scene.base).unwrap();
    scene.recover(2);
    assert_eq!(scene.state(), SupervisorState::BackingOff);
    scene.runtime.advance(HOUR);
    assert_eq!(scene.runtime.get(scene.service), Some(2));
}

#[test]
fn a_failure_of_the_service_itself_is_followed_by_its_backoff() {
    let mut scene = Scene::up(exact().spread(HOUR));
    scene.runtime.registry.fail(scene.service, "by hand").unwrap();
    scene.runtime.run_until_idle();
    assert_eq!(scene.next_try(), Some(ms(100)));
    scene.runtime.restart(scene.service);
    assert_eq!(scene.state(), SupervisorState::Up, "no failure, and no dependency's end");
}

#[test]
fn the_debounce_delay_passes_at_least() {
    let mut scene = Scene::up(exact().spread(ms(1)).debounce(ms(500)));
    scene.fail();
    scene.runtime.advance(ms(100));
    scene.recover(2);
    assert_eq!(scene.next_try(), Some(ms(400)));
}

#[test]
fn a_failure_during_the_build_is_one_of_the_dependency() {
    let mut scene = Scene::new(exact().spread(HOUR), |build, base| async move {
        let value = **build.wait_for(base).await?;
        if value == 1 {
            std::future::pending::<()>().await;
        }
        Ok(value)
    });
    assert_eq!(scene.state(), SupervisorState::Building);
    scene.fail();
    assert_eq!(scene.state(), SupervisorState::Waiting);
    scene.recover(2);
    assert_eq!(scene.state(), SupervisorState::BackingOff);
    scene.runtime.advance(HOUR);
    assert_eq!(scene.runtime.get(scene.service), Some(2));
}

#[test]
fn an_expired_grace_period_is_a_failure_of_the_dependency() {
    let mut scene = Scene::new(exact().spread(HOUR), |build, base| async move {
        Ok(**build.wait_with_grace(base, ms(1_000)).await?)
    });
    scene.fail();
    assert_eq!(scene.state(), SupervisorState::Up);
    scene.runtime.advance(ms(1_000));
    assert_eq!(scene.state(), SupervisorState::Waiting);
    scene.recover(2);
    assert_eq!(scene.state(), SupervisorState::BackingOff);
    assert!(scene.next_try().unwrap() <= HOUR);
}

#[test]
fn a_dependency_that_the_build_did_without_is_not_waited_for() {
    let mut runtime = TestRuntime::new();
    let [base, soft, late, service] =
        ["base", "soft", "late", "service"].map(|name| runtime.service(name));
    let (provider, running) = up(&runtime.registry, base, 1);
    let clock = runtime.clock.clone();
    runtime.supervise(service, exact().spread(HOUR), move |build: Build<u32>| {
        let clock = clock.clone();
        async move {
            drop(build.watch(soft)?);
            drop(build.wait_for(late).timeout(ms(0), &clock).await);
            Ok::<u32, BoxError>(**build.wait_for(base).await?)
        }
    });
    runtime.run_until_idle();
    assert_eq!(runtime.get(service), Some(1));
    running.fail("lost");
    let _running = publish(&provider, 2);
    runtime.run_until_idle();
    assert_eq!(runtime.state(service), SupervisorState::BackingOff);
    runtime.advance(HOUR);
    assert_eq!(runtime.get(service), Some(2));
}
