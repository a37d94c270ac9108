//! Retries after a change of what the last attempt was built from.
//!
//! - An input of any kind that fails, is replaced or comes up ends a backoff, a permanent error and
//!   the state *given up*. It does so once, and not before the first backoff after the failure.
//! - A change during the build counts, and so does one during the first backoff.
//! - Other services, and those that only earlier attempts have used, end nothing.
//! - An input that flaps keeps nothing busy.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use super::runtime::{BoxError, TestRuntime, exact, ms};
use mainstay::{
    Provider, Registry, Running, ServiceId,
    supervise::{Build, Permanent, RestartPolicy, SupervisorState},
    test_kit,
};

const HOUR: Duration = ms(3_600_000);

/// How a service uses its input.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Use {
    Hard,
    StartOnly,
    Grace,
    Soft,
    DeclaredHard,
    DeclaredStartOnly,
    DeclaredGrace,
    DeclaredSoft,
    /// A hard edge, over which a wait has timed out.
    TimedOut,
}

impl Use {
    const ALL: [Self; 9] = [
        Self::Hard,
        Self::StartOnly,
        Self::Grace,
        Self::Soft,
        Self::DeclaredHard,
        Self::DeclaredStartOnly,
        Self::DeclaredGrace,
        Self::DeclaredSoft,
        Self::TimedOut,
    ];

    /// Whether an attempt waits until the input is ready.
    fn waits(self) -> bool {
        matches!(self, Self::Hard | Self::StartOnly | Self::Grace)
    }

    fn declare(self, registry: &Registry, service: ServiceId<u32>, input: ServiceId<u32>) {
        let depends = registry.depends(service);
        match self {
            Self::DeclaredHard => drop(depends.on(input).unwrap()),
            Self::DeclaredStartOnly => drop(depends.to_start_on(input).unwrap()),
            Self::DeclaredGrace => drop(depends.with_grace_on(input, HOUR * 9).unwrap()),
            Self::DeclaredSoft => drop(depends.soft_on(input).unwrap()),
            _ => {}
        }
    }

    async fn of(self, build: &Build<u32>, input: ServiceId<u32>) -> Result<(), BoxError> {
        match self {
            Self::Hard => drop(build.wait_for(input).await?),
            Self::StartOnly => drop(build.wait_to_start(input).await?),
            Self::Grace => drop(build.wait_with_grace(input, HOUR * 9).await?),
            Self::Soft => drop(build.watch(input)?),
            Self::TimedOut => {
                let registry = build.registry().clone();
                drop(build.wait_for(input).timeout(ms(0), registry.clock()).await);
            }
            _ => {}
        }
        Ok(())
    }
}

/// How a service fails.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fails {
    /// The third failure is followed by a backoff of 400 ms, and so on.
    WithBackoffs,
    Permanently,
    /// The first failure is too many.
    TooOften,
    /// The instance fails, and not the build.
    Up,
}

impl Fails {
    const ALL: [Self; 4] = [Self::WithBackoffs, Self::Permanently, Self::TooOften, Self::Up];

    fn policy(self) -> RestartPolicy {
        // Longer than the tests take.
        let policy = exact().backoff(ms(100), HOUR).factor(1e6);
        match self {
            Self::TooOften => policy.max_failures(0, HOUR),
            _ => policy,
        }
    }

    /// The failure after which only a change starts a build.
    fn before_long(self) -> usize {
        match self {
            Self::WithBackoffs | Self::Up => 2,
            Self::Permanently | Self::TooOften => 1,
        }
    }
}

struct Scene {
    runtime: TestRuntime,
    provider: Provider<u32>,
    running: Option<Running<u32>>,
    service: ServiceId<u32>,
    builds: Arc<AtomicUsize>,
    fails: Fails,
}

impl Scene {
    /// The input is ready if `ready` is set. Nothing but a change starts the next build.
    fn new(uses: Use, fails: Fails, ready: bool) -> Self {
        let mut runtime = TestRuntime::new();
        let (input, service) = (runtime.service("input"), runtime.service("service"));
        let supervisor = runtime.registry.supervise(service).unwrap();
        uses.declare(&runtime.registry, service, input);
        let provider = runtime.registry.provide(input).unwrap();
        let running = ready.then(|| provider.begin().wait_blocking().unwrap().ready(0).unwrap());
        let builds = Arc::<AtomicUsize>::default();
        let counted = Arc::clone(&builds);
        let supervisor = supervisor.restart_policy(fails.policy());
        runtime.spawn(supervisor.run(async move |build: Build<u32>| {
            uses.of(&build, input).await?;
            counted.fetch_add(1, Ordering::Relaxed);
            match fails {
                Fails::Up => Ok(1),
                Fails::Permanently => Err::<u32, BoxError>(Permanent::new("wrong").into()),
                Fails::WithBackoffs | Fails::TooOften => Err("no luck".into()),
            }
        }));
        let mut scene = Self { runtime, provider, running, service, builds, fails };
        scene.runtime.run_until_idle();
        for number in 1..=fails.before_long() {
            scene.assert_builds(number);
            scene.fail_instance();
            scene.runtime.advance(ms(100));
        }
        scene
    }

    fn fail_instance(&mut self) {
        if self.fails == Fails::Up {
            self.runtime.registry.fail(self.service, "by itself").unwrap();
            self.runtime.run_until_idle();
        }
    }

    fn assert_builds(&self, expected: usize) {
        assert_eq!(self.builds.load(Ordering::Relaxed), expected);
    }

    fn change(&mut self, change: Change) {
        match change {
            Change::Fails => drop(self.running.take().unwrap().fail("input failed")),
            Change::IsReplaced => self.running.as_ref().unwrap().replace(1).unwrap(),
            Change::ComesUp => {
                let attempt = self.provider.begin().wait_blocking().unwrap();
                self.running = Some(attempt.ready(2).unwrap());
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Change {
    Fails,
    IsReplaced,
    ComesUp,
}

#[test]
fn each_change_of_an_input_of_each_kind_starts_one_build() {
    for uses in Use::ALL {
        for fails in Fails::ALL {
            for change in [Change::Fails, Change::IsReplaced, Change::ComesUp] {
                let ready = change != Change::ComesUp;
                if uses.waits() && !ready {
                    continue;
                }
                println!("{uses:?} {fails:?} {change:?}");
                let mut scene = Scene::new(uses, fails, ready);
                let builds = fails.before_long();
                scene.runtime.advance(HOUR / 4);
                scene.assert_builds(builds);
                scene.change(change);
                scene.runtime.run_until_idle();
                if change == Change::Fails && uses.waits() {
                    // The build that follows waits for the input.
                    assert_eq!(scene.runtime.state(scene.service), SupervisorState::Building);
                    scene.change(Change::ComesUp);
                    scene.runtime.run_until_idle();
                }
                scene.assert_builds(builds + 1);
                scene.fail_instance();
                scene.runtime.advance(HOUR / 4);
                scene.assert_builds(builds + 1);
            }
        }
    }
}

/// The change is found by the comparison with what the attempt was given.
#[test]
fn a_change_during_the_build_counts_once() {
    for uses in Use::ALL {
        for fails in [Fails::WithBackoffs, Fails::Permanently, Fails::TooOften] {
            println!("{uses:?} {fails:?}");
            let mut runtime = TestRuntime::new();
            let (input, service) = (runtime.service("input"), runtime.service("service"));
            let supervisor = runtime.registry.supervise(service).unwrap();
            uses.declare(&runtime.registry, service, input);
            let provider = runtime.registry.provide(input).unwrap();
            let running = provider.begin().wait_blocking().unwrap().ready(0).unwrap();
            let running = Arc::new(running);
            let builds = Arc::<AtomicUsize>::default();
            let (counted, replaced) = (Arc::clone(&builds), Arc::clone(&running));
            let supervisor = supervisor.restart_policy(fails.policy());
            runtime.spawn(supervisor.run(async move |build: Build<u32>| {
                uses.of(&build, input).await?;
                if counted.fetch_add(1, Ordering::Relaxed) == 0 {
                    replaced.replace(1)?;
                }
                match fails {
                    Fails::Permanently => Err::<u32, BoxError>(Permanent::new("wrong").into()),
                    _ => Err("no luck".into()),
                }
            }));
            runtime.run_until_idle();
            runtime.advance(ms(99));
            assert_eq!(builds.load(Ordering::Relaxed), 1, "not before the first backoff");
            runtime.advance(ms(1));
            assert_eq!(builds.load(Ordering::Relaxed), 2);
            runtime.advance(HOUR / 4);
            assert_eq!(builds.load(Ordering::Relaxed), 2);
        }
    }
}

/// A wrong password, corrected in place, while the next try is half a minute away.
#[test]
fn a_replacement_ends_a_long_backoff() {
    let mut runtime = TestRuntime::new();
    let (config, database) = (runtime.service("config"), runtime.service("database"));
    let provider = runtime.registry.provide(config).unwrap();
    let running = provider.begin().wait_blocking().unwrap().ready(0).unwrap();
    let policy = exact().backoff(ms(100), ms(30_000));
    runtime.supervise(database, policy, move |build| async move {
        match **build.wait_for(config).await? {
            0 => Err::<u32, BoxError>("wrong password".into()),
            right => Ok(right),
        }
    });
    runtime.advance(ms(300_000));
    running.replace(1).unwrap();
    runtime.run_until_idle();
    assert_eq!(runtime.get(database), Some(1));
}

/// The fourth attempt of the second service does not use the input any more.
#[test]
fn only_what_the_last_attempt_has_used_starts_a_build() {
    let mut runtime = TestRuntime::new();
    let (input, other, service) =
        (runtime.service("input"), runtime.service("other"), runtime.service("service"));
    let (provide_input, provide_other) =
        (runtime.registry.provide(input).unwrap(), runtime.registry.provide(other).unwrap());
    let input_runs = provide_input.begin().wait_blocking().unwrap().ready(0).unwrap();
    let other_runs = provide_other.begin().wait_blocking().unwrap().ready(0).unwrap();
    let builds = Arc::<AtomicUsize>::default();
    let counted = Arc::clone(&builds);
    runtime.supervise(service, exact(), move |build| {
        let number = counted.fetch_add(1, Ordering::Relaxed);
        async move {
            if number == 0 {
                build.wait_for(input).await?;
                return Err("once more".into());
            }
            build.wait_for(other).await?;
            Err::<u32, BoxError>(Permanent::new("wrong").into())
        }
    });
    runtime.advance(HOUR);
    assert_eq!(builds.load(Ordering::Relaxed), 2);
    input_runs.replace(1).unwrap();
    input_runs.fail("failed");
    runtime.advance(HOUR);
    assert_eq!(builds.load(Ordering::Relaxed), 2);
    other_runs.replace(1).unwrap();
    runtime.run_until_idle();
    assert_eq!(builds.load(Ordering::Relaxed), 3);
}

/// It comes up, is replaced, and fails, every ten milliseconds, for ten minutes.
#[test]
fn an_input_that_flaps_keeps_nothing_busy() {
    for (uses, fails) in [
        (Use::Soft, Fails::WithBackoffs),
        (Use::Soft, Fails::Permanently),
        (Use::Soft, Fails::TooOften),
        (Use::DeclaredSoft, Fails::TooOften),
    ] {
        let mut scene = Scene::new(uses, fails, true);
        let before = scene.builds.load(Ordering::Relaxed);
        for _ in 0..20_000 {
            scene.change(Change::IsReplaced);
            scene.runtime.advance(ms(10));
            scene.change(Change::Fails);
            scene.runtime.advance(ms(10));
            scene.change(Change::ComesUp);
            scene.runtime.advance(ms(10));
        }
        let builds = scene.builds.load(Ordering::Relaxed) - before;
        // At most one for each first backoff of 100 ms.
        assert!((5_000..=6_001).contains(&builds), "{builds} builds");
    }
}

/// The limit was three failures in a minute. From then on each change starts one build.
#[test]
fn a_given_up_service_is_tried_once_for_each_change() {
    let mut runtime = TestRuntime::new();
    let (input, service) = (runtime.service("input"), runtime.service("service"));
    let provider = runtime.registry.provide(input).unwrap();
    let running = provider.begin().wait_blocking().unwrap().ready(0).unwrap();
    let builds = Arc::<AtomicUsize>::default();
    let counted = Arc::clone(&builds);
    let policy = exact().max_failures(2, ms(60_000));
    runtime.supervise(service, policy, move |build| {
        let counted = Arc::clone(&counted);
        async move {
            let input = build.wait_for(input).await?;
            let number = counted.fetch_add(1, Ordering::Relaxed) as u32;
            if **input < 100 { Err::<u32, BoxError>("no luck".into()) } else { Ok(number) }
        }
    });
    runtime.advance(ms(10_000));
    assert_eq!(
        (runtime.state(service), builds.load(Ordering::Relaxed)),
        (SupervisorState::GivenUp, 3)
    );
    for round in 1..10 {
        // The window has passed since the last failure.
        runtime.advance(HOUR);
        running.replace(round).unwrap();
        runtime.advance(HOUR);
        let builds = builds.load(Ordering::Relaxed);
        assert_eq!(
            (runtime.state(service), builds),
            (SupervisorState::GivenUp, 3 + round as usize)
        );
    }
    running.replace(100).unwrap();
    runtime.run_until_idle();
    assert_eq!(runtime.get(service), Some(12));
    // It was not stable: one failure more is too many.
    runtime.advance(ms(4_999));
    runtime.registry.fail(service, "not stable").unwrap();
    runtime.advance(HOUR);
    assert_eq!(runtime.state(service), SupervisorState::GivenUp);
    // It was stable: it may fail as often as at first.
    running.replace(101).unwrap();
    runtime.advance(ms(5_000));
    for _ in 0..2 {
        runtime.registry.fail(service, "stable, and once more").unwrap();
        runtime.advance(ms(200));
        assert_eq!(runtime.state(service), SupervisorState::Up);
    }
    runtime.registry.fail(service, "too often").unwrap();
    runtime.advance(HOUR);
    assert_eq!(runtime.state(service), SupervisorState::GivenUp);

    // A reset begins anew.
    runtime.restart(service);
    runtime.registry.fail(service, "after the reset").unwrap();
    runtime.advance(ms(100));
    assert_eq!(runtime.state(service), SupervisorState::Up);
}

#[test]
fn a_given_up_service_is_not_tried_if_the_policy_says_so() {
    let mut runtime = TestRuntime::new();
    let (input, service) = (runtime.service("input"), runtime.service("service"));
    let provider = runtime.registry.provide(input).unwrap();
    let running = provider.begin().wait_blocking().unwrap().ready(0).unwrap();
    let policy = exact().max_failures(0, HOUR).retry_given_up(false);
    runtime.supervise(service, policy, move |build| async move {
        let input = **build.wait_for(input).await?;
        if input == 0 { Err::<u32, BoxError>("no luck".into()) } else { Ok(input) }
    });
    runtime.run_until_idle();
    running.replace(1).unwrap();
    runtime.advance(HOUR);
    assert_eq!(runtime.state(service), SupervisorState::GivenUp);
    runtime.restart(service);
    assert_eq!(runtime.get(service), Some(1));
}

/// The dependents of a service that is restarted or stopped end with it. Those that were down wait
/// for their retries after that as before.
#[test]
fn a_planned_end_of_a_dependency_ends_no_wait_for_a_retry() {
    let mut runtime = TestRuntime::new();
    let (input, service) = (runtime.service("input"), runtime.service("service"));
    let (gives_up, backs_off) = (runtime.service("gives up"), runtime.service("backs off"));
    runtime.supervise(input, exact(), |_| async { Ok::<_, BoxError>(1) });
    for (id, policy) in [
        (service, exact().max_failures(0, HOUR)),
        (gives_up, exact().max_failures(0, HOUR).retry_given_up(false)),
        (backs_off, exact().backoff(HOUR, HOUR)),
    ] {
        runtime.supervise(id, policy, move |build| async move {
            build.wait_for(input).await?;
            Err::<u32, BoxError>("no luck".into())
        });
    }
    runtime.advance(ms(1_000));
    runtime.recorder.take();
    let restart = runtime.registry.restart(input, "edited");
    runtime.spawn(async { drop(restart.await) });
    runtime.run_until_idle();
    let states = [service, gives_up, backs_off].map(|id| runtime.state(id));
    let (given_up, backing_off) = (SupervisorState::GivenUp, SupervisorState::BackingOff);
    assert_eq!(states, [given_up, given_up, backing_off]);
    assert_eq!(runtime.supervisor_status(backs_off).next_try_in, Some(HOUR - ms(1_000)));
    let builds = |lines: Vec<String>, name: &str| {
        lines.iter().filter(|line| line.starts_with(name) && line.contains("no luck")).count()
    };
    let lines = runtime.recorder.take();
    // The input of each has changed. One may not be tried because of it, and one not yet.
    assert_eq!(builds(lines.clone(), "service 0: attempt failed"), 1, "{lines:?}");
    assert_eq!(builds(lines.clone(), "gives up"), 0, "{lines:?}");
    assert_eq!(builds(lines.clone(), "backs off"), 0, "{lines:?}");
    // A restart of the service itself is a request for a build.
    let restart = runtime.registry.restart(gives_up, "mended");
    runtime.spawn(async { drop(restart.await) });
    runtime.run_until_idle();
    let lines = runtime.recorder.take();
    assert_eq!(builds(lines.clone(), "gives up 0: attempt failed"), 1, "{lines:?}");
}

/// The build watches the input while it is down, and then waits for it.
#[test]
fn what_a_wait_has_returned_is_newer_than_what_a_watch_has_found() {
    let mut runtime = TestRuntime::new();
    let (input, service) = (runtime.service("input"), runtime.service("service"));
    let builds = Arc::<AtomicUsize>::default();
    let counted = Arc::clone(&builds);
    runtime.supervise(service, exact(), move |build| {
        counted.fetch_add(1, Ordering::Relaxed);
        async move {
            build.watch(input)?;
            build.wait_for(input).await?;
            Err::<u32, BoxError>(Permanent::new("wrong").into())
        }
    });
    runtime.run_until_idle();
    let provider = runtime.registry.provide(input).unwrap();
    let running = provider.begin().wait_blocking().unwrap().ready(0).unwrap();
    runtime.advance(HOUR);
    assert_eq!(runtime.state(service), SupervisorState::Permanent);
    assert_eq!(builds.load(Ordering::Relaxed), 1);
    running.replace(1).unwrap();
    runtime.run_until_idle();
    assert_eq!(builds.load(Ordering::Relaxed), 2);
}

/// A debounce delay is not shortened by a change.
#[test]
fn a_change_does_not_shorten_the_debounce_delay() {
    let mut runtime = TestRuntime::new();
    let (input, service) = (runtime.service("input"), runtime.service("service"));
    let provider = runtime.registry.provide(input).unwrap();
    let running = provider.begin().wait_blocking().unwrap().ready(0).unwrap();
    let builds = Arc::<AtomicUsize>::default();
    let counted = Arc::clone(&builds);
    let policy = exact().debounce(ms(300)).backoff(ms(100), HOUR).factor(1e6);
    runtime.supervise(service, policy, move |build| {
        counted.fetch_add(1, Ordering::Relaxed);
        async move {
            build.wait_for(input).await?;
            Err::<u32, BoxError>("no luck".into())
        }
    });
    runtime.advance(ms(300));
    running.replace(1).unwrap();
    runtime.advance(ms(299));
    assert_eq!(builds.load(Ordering::Relaxed), 2);
    runtime.advance(ms(1));
    assert_eq!(builds.load(Ordering::Relaxed), 3);
    // A failure of a dependency is followed by the debounce delay, too.
    running.fail("failed");
    let _running = provider.begin().wait_blocking().unwrap().ready(2).unwrap();
    runtime.advance(ms(299));
    assert_eq!(builds.load(Ordering::Relaxed), 3);
    runtime.advance(ms(1));
    assert_eq!(builds.load(Ordering::Relaxed), 4);
}

#[test]
fn a_change_of_one_of_many_inputs_starts_one_build() {
    const INPUTS: u32 = 20_000;
    let mut runtime = test_kit::TestRuntime::new(INPUTS as usize + 1).unwrap();
    let service = runtime.registry.register::<u32>("service").unwrap();
    let inputs: Vec<_> = (0..INPUTS)
        .map(|number| runtime.registry.register::<u32>(&format!("{number}")).unwrap())
        .collect();
    let providers: Vec<_> =
        inputs.iter().map(|&input| runtime.registry.provide(input).unwrap()).collect();
    let builds = Arc::<AtomicUsize>::default();
    let counted = Arc::clone(&builds);
    let supervisor = runtime.registry.supervise(service).unwrap().restart_policy(exact());
    runtime.spawn(supervisor.run(async move |build| {
        for &input in &inputs {
            build.watch(input)?;
        }
        counted.fetch_add(1, Ordering::Relaxed);
        Err::<u32, BoxError>(Permanent::new("wrong").into())
    }));
    runtime.advance(ms(100));
    for provider in &providers {
        // Its slot wakes the supervisor, and nothing has come up.
        provider.begin().wait_blocking().unwrap().fail("no luck").unwrap();
        runtime.run_until_idle();
    }
    assert_eq!(builds.load(Ordering::Relaxed), 1);
    let _running = providers[7].begin().wait_blocking().unwrap().ready(1).unwrap();
    runtime.run_until_idle();
    assert_eq!(builds.load(Ordering::Relaxed), 2);
}

#[test]
fn the_status_of_a_service_that_waits_says_how_often_it_failed_and_when_a_change_counts() {
    let mut runtime = TestRuntime::new();
    let (pool, app) = (runtime.service("pool"), runtime.service("app"));
    let registry = runtime.registry.clone();
    let mut builds = 0;
    runtime.supervise(app, exact(), move |_| {
        builds += 1;
        let read = registry.get(pool).map(|pool| *pool);
        std::future::ready(match builds {
            1 => Err::<u32, BoxError>("no".into()),
            _ => read.map_err(BoxError::from),
        })
    });
    runtime.run_until_idle();
    runtime.advance(ms(100));
    let status = runtime.supervisor_status(app);
    assert_eq!((status.state, status.failures), (SupervisorState::Waiting, 1));
    assert_eq!(status.next_try_in, Some(ms(100)));
    runtime.advance(ms(60));
    assert_eq!(runtime.supervisor_status(app).next_try_in, Some(ms(40)));
}
