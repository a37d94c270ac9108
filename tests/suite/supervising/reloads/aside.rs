//! Builds aside (S20).
//!
//! - A failure of one is the error of the reload, and nothing is counted.
//! - The grace periods and the inputs are those of the new build.
//! - A value that was replaced during the build is built again.
//! - A limit on builds counts them.
//! - Each value is dropped or closed once.

use super::*;
use crate::supervising::runtime::ms;
use mainstay::supervise::{BuildFailure, CloseReason, Closing, SupervisorState};

fn reload_one(runtime: &mut TestRuntime, id: ServiceId<u32>) -> Reload {
    let wait = runtime.registry.reload(id);
    begin(runtime, wait)
}

#[test]
fn failures_of_builds_aside_are_not_counted() {
    let mut runtime = TestRuntime::new();
    let id = runtime.service("a");
    let policy = exact().max_failures(1, ms(60_000)).build_timeout(ms(50));
    let supervisor = runtime.registry.supervise(id).unwrap().restart_policy(policy);
    let mut builds = 0;
    runtime.spawn(supervisor.run(async move |build: Build<u32>| {
        builds += 1;
        assert_eq!(build.is_reload(), builds > 1);
        assert_eq!((build.number(), build.generation().get()), (1, 0));
        match builds {
            1 | 5 => Ok(builds),
            2 => Err("refused"),
            3 => panic!("odd"),
            _ => std::future::pending().await,
        }
    }));
    runtime.run_until_idle();
    for _ in 0..3 {
        let reload = reload_one(&mut runtime, id);
        runtime.advance(ms(60));
        assert!(reload.take().is_err());
        let status = runtime.supervisor_status(id);
        assert_eq!((status.state, status.failures), (SupervisorState::Up, 0));
        assert_eq!(runtime.get(id), Some(1));
    }
    assert!(runtime.registry.status(id).unwrap().last_failure.is_none());
    reload_one(&mut runtime, id).take().unwrap();
    assert_eq!(runtime.get(id), Some(5));
}

#[test]
fn the_grace_periods_are_those_of_the_new_build() {
    let mut runtime = TestRuntime::new();
    let dependency = supervise(&mut runtime, "dependency", &[]);
    let id = runtime.service("a");
    let supervisor = runtime.registry.supervise(id).unwrap().restart_policy(exact());
    let mut builds = 0;
    let from = dependency.0;
    runtime.spawn(supervisor.run(async move |build: Build<u32>| {
        builds += 1;
        // Of the builds with an odd number: 20 ms.
        if builds % 2 == 1 {
            build.wait_with_grace(from, ms(20)).await?;
        }
        Ok::<_, BoxError>(builds)
    }));
    runtime.run_until_idle();
    for value in [2, 3] {
        reload_one(&mut runtime, id).take().unwrap();
        assert_eq!(runtime.get(id), Some(value));
        dependency.1.takes(ms(500));
        runtime.registry.fail(dependency.0, "edited").unwrap();
        runtime.advance(ms(30));
        // With a grace period it has failed, and was built again.
        let (present, expected) = (runtime.get(id), if value == 2 { 2 } else { 4 });
        assert_eq!(present, Some(expected));
        runtime.advance(ms(5_000));
    }
}

#[test]
fn a_value_that_is_replaced_during_the_build_is_built_again() {
    let mut runtime = TestRuntime::new();
    let (config, live) = super::switched::with_handle(&mut runtime, "config");
    let mut builds = 0;
    let clock = runtime.clock.clone();
    let id = runtime.service("a");
    let handle = Arc::<Mutex<Option<mainstay::supervise::Live<u32>>>>::default();
    let stored = Arc::clone(&handle);
    let supervisor = runtime.registry.supervise(id).unwrap();
    let supervisor = supervisor.body(async move |live: mainstay::supervise::Live<u32>| {
        *stored.lock().unwrap() = Some(live.clone());
        live.stopping().await.map(drop)
    });
    runtime.spawn(supervisor.run(async move |_: Build<u32>| {
        builds += 1;
        if builds > 1 {
            clock.sleep_until(clock.now() + ms(10)).await;
        }
        builds
    }));
    runtime.run_until_idle();
    let reload = reload_one(&mut runtime, id);
    runtime.advance(ms(5));
    let first = handle.lock().unwrap().clone().unwrap();
    first.replace(100).unwrap();
    runtime.advance(ms(5));
    assert!(!reload.is_over(), "it is built again");
    assert_eq!(runtime.get(id), Some(100));
    runtime.advance(ms(10));
    let reloaded = reload.take().unwrap();
    assert_eq!((reloaded.members[0].from, reloaded.members[0].to), (1, 2));
    assert_eq!(runtime.get(id), Some(3));
    assert!(live.stop_reason().is_none() && runtime.get(config) == Some(1));
}

#[test]
fn a_limit_counts_builds_aside() {
    let mut runtime = TestRuntime::new();
    let services = ["a", "b"].map(|name| supervise(&mut runtime, name, &[]));
    runtime.registry.limit_builds(services.each_ref().map(|it| it.0), 1).unwrap();
    services.iter().for_each(|it| it.1.takes(ms(10)));
    let reloads = services.each_ref().map(|it| reload(&mut runtime, it));
    assert_eq!(services.each_ref().map(|it| it.1.present()), [1, 0]);
    assert_eq!(runtime.state(services[1].0), SupervisorState::Up, "it is queued beside that");
    runtime.advance(ms(10));
    assert_eq!(services.each_ref().map(|it| it.1.present()), [0, 1]);
    runtime.advance(ms(10));
    reloads.into_iter().for_each(|reload| drop(reload.take().unwrap()));
}

#[test]
fn each_value_is_closed_or_dropped_once() {
    struct Value(u32, Arc<Mutex<Vec<u32>>>);
    impl Drop for Value {
        fn drop(&mut self) {
            self.1.lock().unwrap().push(self.0);
        }
    }
    let mut runtime = TestRuntime::new();
    let id = runtime.registry.register::<Value>("a").unwrap();
    let (dropped, closed) = (Arc::default(), Arc::<Mutex<Vec<_>>>::default());
    let (to_drop, to_close) = (Arc::clone(&dropped), Arc::clone(&closed));
    let supervisor =
        runtime.registry.supervise(id).unwrap().on_close(async move |value: Closing<Value>| {
            let replaced = matches!(Closing::reason(&value), CloseReason::Replaced);
            to_close.lock().unwrap().push((value.0, replaced));
        });
    let mut builds = 0;
    runtime.spawn(supervisor.run(async move |_: Build<Value>| {
        builds += 1;
        Value(builds, Arc::clone(&to_drop))
    }));
    // `dependent` is built from it, and refuses the first reload.
    let dependent = runtime.service("dependent");
    let mut builds = 0;
    let supervisor = runtime.registry.supervise(dependent).unwrap();
    runtime.spawn(supervisor.run(async move |build: Build<u32>| {
        builds += 1;
        let value = build.wait_for(id).await?.0;
        if builds == 2 { Err::<_, BoxError>("refused".into()) } else { Ok(value) }
    }));
    runtime.run_until_idle();
    let reload = |runtime: &mut TestRuntime| {
        let wait = runtime.registry.reload(id);
        begin(runtime, wait).take()
    };
    assert!(reload(&mut runtime).is_err());
    assert_eq!(*dropped.lock().unwrap(), [2], "it was never current");
    assert_eq!(*closed.lock().unwrap(), []);
    reload(&mut runtime).unwrap();
    assert_eq!(runtime.get(dependent), Some(3));
    assert_eq!(*closed.lock().unwrap(), [(1, true)]);
    assert_eq!(*dropped.lock().unwrap(), [2, 1]);
    runtime.registry.fail(id, "edited").unwrap();
    runtime.run_until_idle();
    assert_eq!(*closed.lock().unwrap(), [(1, true), (3, false)]);
    assert_eq!(*dropped.lock().unwrap(), [2, 1, 3]);
}

#[test]
fn a_build_aside_is_told_that_its_reload_is_over() {
    let mut runtime = TestRuntime::new();
    let id = runtime.service("a");
    let kept = Arc::<Mutex<Option<Build<u32>>>>::default();
    let stored = Arc::clone(&kept);
    let supervisor = runtime.registry.supervise(id).unwrap();
    runtime.spawn(supervisor.run(async move |build: Build<u32>| {
        if build.is_reload() {
            *stored.lock().unwrap() = Some(build);
            std::future::pending::<()>().await;
        }
        1
    }));
    runtime.run_until_idle();
    let reload = reload_one(&mut runtime, id);
    let build = kept.lock().unwrap().take().unwrap();
    assert!(!build.is_invalidated());
    let invalidated = build.invalidated();
    let invalidated = begin(&mut runtime, invalidated);
    assert!(!invalidated.is_over());
    reload.task.cancel();
    runtime.run_until_idle();
    assert!(build.is_invalidated());
    let failure = invalidated.take().unwrap();
    let mainstay::Reason::Error(error) = &failure.reason else { panic!("{failure}") };
    assert_eq!(error.downcast_ref(), Some(&BuildFailure::Abandoned));
    assert_eq!(runtime.get(id), Some(1));
}

#[test]
fn a_retry_compares_with_what_the_new_build_was_given() {
    let mut runtime = TestRuntime::new();
    let (config, live) = super::switched::with_handle(&mut runtime, "config");
    let a = supervise(&mut runtime, "a", &[config]);
    runtime.registry.fail(a.0, "the first failure").unwrap();
    runtime.advance(ms(100));
    live.replace(5).unwrap();
    reload_one(&mut runtime, a.0).take().unwrap();
    assert_eq!(runtime.get(a.0), Some(5));
    // The second backoff is 200 ms. After 100 ms, a change would end it.
    runtime.registry.fail(a.0, "the second failure").unwrap();
    runtime.advance(ms(199));
    assert_eq!(runtime.get(a.0), None, "nothing has changed since the reload");
    runtime.advance(ms(1));
    assert_eq!(runtime.get(a.0), Some(5));
}

#[test]
fn the_end_of_an_instance_comes_before_the_error_of_its_build() {
    let mut runtime = TestRuntime::new();
    let (id, registry) = (runtime.service("a"), runtime.registry.clone());
    let supervisor = runtime.registry.supervise(id).unwrap().restart_policy(exact());
    runtime.spawn(supervisor.run(async move |build: Build<u32>| {
        if build.is_reload() {
            registry.fail(id, "edited").unwrap();
            return Err("a consequence");
        }
        Ok(1)
    }));
    runtime.run_until_idle();
    let error = reload_one(&mut runtime, id).take().unwrap_err();
    let text = "a was not reloaded: a did not stay ready: a failed: edited";
    assert_eq!(mainstay::error::chain(&error).to_string(), text);
}

#[test]
fn a_build_that_blocks_for_longer_than_its_timeout_is_refused() {
    let mut runtime = TestRuntime::new();
    let (id, clock) = (runtime.service("a"), runtime.clock.clone());
    let policy = exact().build_timeout(ms(50));
    let supervisor = runtime.registry.supervise(id).unwrap().restart_policy(policy);
    runtime.spawn(supervisor.run(async move |build: Build<u32>| {
        if build.is_reload() {
            // In one poll, and then it returns a value.
            clock.advance(ms(60));
        }
        1
    }));
    runtime.run_until_idle();
    let error = reload_one(&mut runtime, id).take().unwrap_err();
    assert!(matches!(&error, ReloadError::Refused { .. }), "{error:?}");
    let text = mainstay::error::chain(&error).to_string();
    assert!(text.contains("50ms"), "{text}");
}

#[test]
fn a_prepared_build_has_no_place() {
    let (mut runtime, [config, pool, server]) = super::chain();
    runtime.registry.limit_builds([config.0, pool.0, server.0], 1).unwrap();
    config.1.set(2);
    reload(&mut runtime, &config).take().unwrap();
    assert_eq!(values(&runtime, [&config, &pool, &server]), [Some(2), Some(12), Some(112)]);
}

#[test]
fn the_new_instance_keeps_the_edge_of_its_watch() {
    for waits_before in [false, true] {
        let mut runtime = TestRuntime::new();
        let (id, other) = (runtime.service("a"), supervise(&mut runtime, "other", &[]).0);
        let supervisor = runtime.registry.supervise(id).unwrap();
        runtime.spawn(supervisor.run(async move |build: Build<u32>| {
            if build.is_reload() {
                if waits_before {
                    build.wait_to_start(other).await?;
                }
                build.watch(other).map(drop)?;
            }
            Ok::<_, BoxError>(1)
        }));
        runtime.run_until_idle();
        let dependencies = |runtime: &TestRuntime| {
            let status = runtime.registry.status(id).unwrap();
            status.dependencies.iter().map(|it| it.name.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(dependencies(&runtime), Vec::<String>::new());
        reload_one(&mut runtime, id).take().unwrap();
        assert_eq!(dependencies(&runtime), ["other"]);
    }
}

#[test]
fn a_wait_returns_when_its_build_aside_has_a_place_again() {
    let mut runtime = TestRuntime::new();
    let config = runtime.service("config");
    // It is polled before `config`, and so it builds first.
    let pool = supervise(&mut runtime, "pool", &[config]);
    let config = supervise(&mut runtime, "config", &[]);
    let other = supervise(&mut runtime, "other", &[]);
    runtime.registry.limit_builds([config.0, pool.0, other.0], 1).unwrap();
    for (service, takes) in [(&config, 10), (&other, 10), (&pool, 5)] {
        service.1.takes(ms(takes));
    }
    let both = reload(&mut runtime, &config);
    let beside = reload(&mut runtime, &other);
    let present = || [&config, &pool, &other].map(|service| service.1.present());
    assert_eq!(present(), [1, 1, 0], "a build that waits has no place");
    runtime.advance(ms(10));
    assert_eq!(present(), [0, 1, 1]);
    runtime.advance(ms(10));
    assert!(beside.take().is_ok() && !both.is_over());
    runtime.advance(ms(4));
    assert!(!both.is_over(), "its place was free after 20 ms");
    runtime.advance(ms(1));
    assert_eq!(both.take().unwrap().members.len(), 2);
}

#[test]
fn the_readers_of_the_new_instance_are_counted() {
    let mut runtime = TestRuntime::new();
    let id = runtime.service("a");
    let policy = exact().drain_timeout(ms(1_000));
    runtime.supervise(id, policy, |_| std::future::ready(Ok::<_, BoxError>(1)));
    runtime.run_until_idle();
    let old = runtime.registry.get_arc(id).unwrap();
    reload_one(&mut runtime, id).take().unwrap();
    let new = runtime.registry.get_arc(id).unwrap();
    runtime.registry.fail(id, "edited").unwrap();
    runtime.run_until_idle();
    let holders = |runtime: &TestRuntime| runtime.supervisor_status(id).holders;
    assert_eq!((runtime.state(id), holders(&runtime)), (SupervisorState::Draining, 2));
    drop((old, new));
    runtime.run_until_idle();
    assert_eq!(holders(&runtime), 0);
}
