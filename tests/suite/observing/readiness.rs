//! The readiness of a program, for probes.
//!
//! - Started: start-up is complete, and all required services have been found ready since. It stays
//!   true.
//! - Live: no required service is stuck, apart from what the user has stopped.
//! - Ready: all required services are ready, and no shutdown was requested.
//! - Degraded: ready, but an optional service is not, or a body says that its service is degraded.
//! - Each service that is not as it should be is listed, with its reason and its duration.

use std::{future::pending, task::Poll, time::Duration};

use crate::support::{poll_once, publish, registry_of, up};
use mainstay::{
    Readiness, Registry, ServiceId, ServiceSet,
    supervise::{Build, Live, Permanent, RestartPolicy, ShutdownOptions},
    test_kit::TestRuntime,
};

/// Started, live, ready, degraded.
fn flags(readiness: &Readiness) -> [bool; 4] {
    [readiness.started, readiness.live, readiness.ready, readiness.degraded]
}

fn problems(readiness: &Readiness) -> Vec<&str> {
    readiness.problems.iter().map(|problem| &*problem.service).collect()
}

fn service(registry: &Registry, name: &str) -> ServiceId<u32> {
    registry.register(name).unwrap()
}

#[test]
fn it_follows_the_life_of_a_program() {
    let (registry, [config, server]) = registry_of::<u32, 2>(["config", "server"]);
    let said = |readiness: &Readiness| readiness.to_string();
    let readiness = registry.readiness();
    assert_eq!(flags(&readiness), [false, true, false, false]);
    assert_eq!(said(&readiness), "starting: config: no provider; server: no provider");

    let (provider, running) = up(&registry, config, 1);
    let (_server_provider, _server) = up(&registry, server, 2);
    // Nothing has said that start-up is complete.
    assert_eq!(flags(&registry.readiness()), [false, true, true, false]);
    registry.startup_complete();
    running.fail("edited");
    assert_eq!(flags(&registry.readiness()), [false, true, false, false]);
    let running = publish(&provider, 1);
    assert_eq!(flags(&registry.readiness()), [true, true, true, false]);
    assert_eq!(said(&registry.readiness()), "ready");
    running.fail("edited");
    let readiness = registry.readiness();
    assert_eq!(flags(&readiness), [true, true, false, false], "it stays started");
    assert_eq!(said(&readiness), "not ready: config: down: edited");
    assert_eq!(problems(&readiness), ["config"]);
    assert!(readiness.problems[0].lasts.unwrap() < Duration::from_secs(60));
    assert!(!readiness.problems[0].stuck && !readiness.problems[0].optional);
    drop(provider);
    let readiness = registry.readiness();
    assert_eq!(flags(&readiness), [true, false, false, false], "nothing provides it any more");
    assert!(said(&readiness).starts_with("stuck: config: no provider"));
    let _up = up(&registry, config, 1);
    assert_eq!(flags(&registry.readiness()), [true, true, true, false]);

    registry.request_shutdown("SIGTERM");
    let readiness = registry.readiness();
    assert_eq!(flags(&readiness), [true, true, false, false]);
    assert_eq!(said(&readiness), "shutting down: SIGTERM");
    registry.close();
    assert!(!registry.readiness().live);
}

#[test]
fn a_wait_for_all_notes_that_a_program_has_started() {
    let (registry, [a]) = registry_of::<u32, 1>(["a"]);
    registry.startup_complete();
    let (provider, running) = up(&registry, a, 1);
    assert!(matches!(poll_once(&mut registry.wait_set_ready([a])), Poll::Ready(Ok(()))));
    running.fail("at once");
    assert!(!registry.readiness().started, "a set is not all");
    let running = publish(&provider, 1);
    assert!(matches!(poll_once(&mut registry.wait_all_ready()), Poll::Ready(Ok(()))));
    running.fail("at once");
    assert!(registry.readiness().started);
}

#[test]
fn a_closed_registry_and_a_shutdown_are_not_ready() {
    let mut runtime = TestRuntime::new(1).unwrap();
    let registry = runtime.registry.clone();
    let a = service(&registry, "a");
    runtime.spawn(registry.supervise(a).unwrap().run(async |_: Build<u32>| 1));
    registry.startup_complete();
    runtime.run_until_idle();
    assert!(registry.readiness().ready);
    let options = ShutdownOptions::within(Duration::from_secs(10)).notice(Duration::from_secs(5));
    let shutdown = registry.shutdown(options);
    runtime.spawn(async move { drop(shutdown.await) });
    runtime.run_until_idle();
    // The notice: requests are answered.
    assert!(registry.get(a).is_ok());
    assert_eq!(flags(&registry.readiness()), [true, true, false, false]);
    assert!(registry.readiness().problems.is_empty());
    runtime.advance(Duration::from_secs(5));
    assert!(registry.is_closed());
    let readiness = registry.readiness();
    assert_eq!(flags(&readiness), [true, false, false, false]);
    assert!(!readiness.problems[0].stuck, "it has stopped");
}

#[test]
fn optional_services_and_bodies_degrade_it() {
    let mut runtime = TestRuntime::new(2).unwrap();
    let registry = runtime.registry.clone();
    let [pool, metrics] = ["pool", "metrics"].map(|name| service(&registry, name));
    let supervisor = registry.supervise(pool).unwrap().body(async |live: Live<u32>| {
        live.set_degraded("1 of 3 replicas is down");
        pending::<()>().await;
    });
    runtime.spawn(supervisor.run(async |_: Build<u32>| 1));
    let supervisor = registry.supervise(metrics).unwrap();
    let policy = RestartPolicy::default().max_failures(0, Duration::from_secs(60));
    let mut builds = 0;
    runtime.spawn(supervisor.restart_policy(policy).run(async move |_: Build<u32>| {
        builds += 1;
        if builds == 1 { Err("no collector") } else { Ok(1) }
    }));
    registry.startup_complete();
    runtime.run_until_idle();
    assert_eq!(flags(&registry.readiness()), [false, false, false, false], "it is required");
    registry.set_optional([metrics]).unwrap();
    let readiness = registry.readiness();
    assert_eq!(flags(&readiness), [true, true, true, true]);
    assert_eq!(problems(&readiness), ["pool", "metrics"]);
    let said = readiness.to_string();
    let start = "degraded: pool: degraded: 1 of 3 replicas is down; metrics: given up";
    assert!(said.starts_with(start) && said.ends_with(": no collector"), "{said}");
    let metrics_problem = &readiness.problems[1];
    assert!(metrics_problem.stuck && metrics_problem.optional);
    assert_eq!(metrics_problem.lasts, Some(Duration::ZERO));
    runtime.advance(Duration::from_secs(7));
    assert_eq!(registry.readiness().problems[1].lasts, Some(Duration::from_secs(7)));

    // A set requires what it names.
    let readiness = registry.readiness_of(&ServiceSet::from(metrics)).unwrap();
    assert_eq!(flags(&readiness), [true, false, false, false]);
    assert!(!readiness.problems[0].optional);
    let readiness = registry.readiness_of(&ServiceSet::from(pool)).unwrap();
    assert_eq!(flags(&readiness), [true, true, true, true]);
    assert_eq!(problems(&readiness), ["pool"]);

    let mut restart = registry.restart(metrics, "a test");
    drop(poll_once(&mut restart));
    runtime.run_until_idle();
    assert_eq!(problems(&registry.readiness()), ["pool"]);
}

#[test]
fn what_the_user_has_stopped_and_what_waits_for_it_is_live() {
    let mut runtime = TestRuntime::new(3).unwrap();
    let registry = runtime.registry.clone();
    let [base, server, broken] = ["base", "server", "broken"].map(|name| service(&registry, name));
    runtime.spawn(registry.supervise(base).unwrap().run(async |_: Build<u32>| 1));
    runtime.spawn(
        registry
            .supervise(server)
            .unwrap()
            .run(async move |build: Build<u32>| build.wait_for(base).await.map(|base| **base)),
    );
    registry.startup_complete();
    runtime.run_until_idle();
    let mut stop = registry.stop(base);
    drop(poll_once(&mut stop));
    runtime.run_until_idle();
    let set = ServiceSet::from([base, server]);
    let readiness = registry.readiness_of(&set).unwrap();
    assert_eq!(flags(&readiness), [false, true, false, false]);
    assert!(readiness.problems.iter().all(|problem| problem.stuck));
    let said = "starting: base: stopped, `Registry::start` starts it; server: waiting for base";
    assert_eq!(readiness.to_string(), said, "base has words of its own");
    // Without a running supervisor.
    assert!(!registry.readiness().live);
    let supervisor = registry.supervise(broken).unwrap();
    runtime.spawn(supervisor.run(async |_: Build<u32>| Err::<u32, _>(Permanent::new("line 3"))));
    assert!(registry.readiness().live);
    runtime.run_until_idle();
    assert!(!registry.readiness().live, "a permanent error needs help");
}

#[test]
fn a_set_with_a_foreign_id_is_refused() {
    let (registry, [a]) = registry_of::<u32, 1>(["a"]);
    let (_other, [foreign]) = registry_of::<u32, 1>(["foreign"]);
    assert!(registry.readiness_of(&ServiceSet::from([a, foreign])).is_err());
    let readiness = registry.readiness_of(&ServiceSet::new()).unwrap();
    assert_eq!(flags(&readiness), [false, true, true, false]);
}

#[test]
fn many_services_that_are_not_ready_are_described_in_little_time() {
    const SERVICES: usize = 10_000;
    let registry = Registry::with_capacity(SERVICES).unwrap();
    let ids: Vec<_> = (0..SERVICES).map(|i| service(&registry, &format!("s{i}"))).collect();
    for pair in ids.windows(2) {
        registry.depends(pair[1]).on(pair[0]).unwrap();
    }
    registry.startup_complete();
    let readiness = registry.readiness();
    assert_eq!(readiness.problems.len(), SERVICES);
    assert!(readiness.problems.iter().all(|problem| problem.stuck));
    assert!(readiness.to_string().starts_with("stuck: s0: no provider; s1: no provider, needs s0"));
}

#[cfg(feature = "serde")]
#[test]
fn it_is_serialised_with_its_lines() {
    let (registry, [a, b]) = registry_of::<u32, 2>(["a", "b"]);
    registry.set_optional([b]).unwrap();
    registry.constant(a, 1).unwrap();
    registry.startup_complete();
    let json = serde_json::to_value(registry.readiness()).unwrap();
    assert_eq!(json["ready"], true);
    assert_eq!(json["shutdown"], serde_json::Value::Null);
    assert_eq!(json["problems"][0]["service"], "b");
    assert_eq!(json["problems"][0]["not_ready"], "b: no provider");
    assert_eq!(json.as_object().unwrap().len(), 6, "{json}");
}
