//! Why a service is not ready, in one line.
//!
//! - The line leads from the service to the root of the reason, each service once, with the chain
//!   of the last failure of the root, once. It is the same in statuses and listings, and in the
//!   chains of the errors of waits and reads.
//! - Each state has its own words.
//! - A read that is refused finds the reason when it is needed, and then keeps it.
//! - The line has at most 64 services.

#[cfg(feature = "supervise")]
use std::time::Duration;

use crate::support::{poll_once, publish, registry_of, up};
#[cfg(feature = "supervise")]
use mainstay::error::DependencyUnavailable;
use mainstay::{
    Registry, ServiceId,
    error::{GetError, chain},
};

/// No time: a wait checks its condition once.
#[cfg(feature = "supervise")]
const NONE: Duration = Duration::ZERO;

fn line(registry: &Registry, id: ServiceId<u32>) -> String {
    let status = registry.status(id).unwrap();
    let text = status.to_string();
    let listed = registry.list();
    assert_eq!(listed.get(&status.name).unwrap().to_string(), text);
    text
}

/// The line in the chain of an error, whose source is the failure.
#[cfg(feature = "supervise")]
#[track_caller]
fn in_error(error: &(dyn std::error::Error + 'static)) -> String {
    DependencyUnavailable::find(error).unwrap().not_ready().unwrap().to_string()
}

#[test]
fn services_without_supervisors_have_their_own_words() {
    let (registry, [config, server]) = registry_of::<u32, 2>(["config", "server"]);
    assert_eq!(line(&registry, config), "config: no provider");
    registry.depends(server).on(config).unwrap();
    assert_eq!(line(&registry, server), "server: no provider, needs config; config: no provider");
    let provide_config = registry.provide(config).unwrap();
    let provide_server = registry.provide(server).unwrap();
    assert_eq!(line(&registry, server), "server: down, needs config; config: down");
    let config_attempt = provide_config.begin().wait_blocking().unwrap();
    let attempt = provide_server.begin().wait_blocking().unwrap();
    assert_eq!(line(&registry, server), "server: starting, needs config; config: starting");
    let mut wait = attempt.wait_for(config);
    assert!(poll_once(&mut wait).is_pending());
    assert_eq!(line(&registry, server), "server: waiting for config; config: starting");
    let words = config_attempt.waiting_for("a lease");
    assert_eq!(line(&registry, server), "server: waiting for config; config: waiting for a lease");
    drop(words);
    config_attempt.fail("no lease").unwrap();
    assert_eq!(line(&registry, server), "server: waiting for config; config: down: no lease");
    let again = provide_config.begin().wait_blocking().unwrap();
    let text = "config: starting again after a failure: no lease";
    assert_eq!(line(&registry, config), text);

    let running = again.ready(1).unwrap();
    assert_eq!(line(&registry, config), "config: ready");
    assert_eq!(line(&registry, server), "server: starting", "its wait is about to end");
    drop(wait);
    drop(attempt.ready(1).unwrap());
    let server_running = publish(&provide_server, 2);
    running.fail("edited");
    let _config = publish(&provide_config, 2);
    assert_eq!(line(&registry, server), "server: down: config failed: edited");
    drop((server_running, provide_server));
    let text = "server: no provider: config failed: edited";
    assert_eq!(line(&registry, server), text);
    registry.close();
    assert_eq!(line(&registry, server), "server: closed: config failed: edited");
}

#[test]
fn the_reason_of_a_service_that_failed_with_a_dependency_names_it() {
    let (registry, [config, server]) = registry_of::<u32, 2>(["config", "server"]);
    registry.depends(server).on(config).unwrap();
    let (provide_config, running) = up(&registry, config, 1);
    let _server = up(&registry, server, 1);
    running.fail("edited");
    assert_eq!(line(&registry, server), "server: down, needs config; config: down: edited");
    let _config = publish(&provide_config, 2);
    assert_eq!(line(&registry, server), "server: down: config failed: edited");
}

#[test]
fn a_read_that_is_refused_finds_the_reason_once() {
    let (registry, [a]) = registry_of::<u32, 1>(["a"]);
    let error = registry.get(a).unwrap_err();
    let late = registry.get(a).unwrap_err();
    assert_eq!(chain(&error).to_string(), "a is not ready: a: no provider");
    let (provider, running) = up(&registry, a, 1);
    assert_eq!(chain(&error).to_string(), "a is not ready: a: no provider", "it is kept");
    // The service has become ready before the reason was needed.
    assert_eq!(chain(&late).to_string(), "a is not ready: a was down in generation 0");
    let GetError::NotReady(missing) = late else { panic!() };
    assert!(missing.not_ready().is_none() && missing.failure().is_none());

    running.fail("lost");
    let mut cached = registry.cached(a).unwrap();
    let errors = [
        registry.get(a).unwrap_err(),
        registry.get_arc(a).unwrap_err(),
        registry.reader(a).unwrap().get().unwrap_err(),
        cached.get().unwrap_err(),
    ];
    for error in errors {
        assert_eq!(chain(&error).to_string(), "a is not ready: a: down: a failed: lost");
    }
    // The error keeps no registry alive.
    let error = registry.get(a).unwrap_err();
    drop((provider, registry, cached));
    assert_eq!(chain(&error).to_string(), "a is not ready: a was down in generation 1");
}

#[test]
fn the_line_of_a_long_chain_has_at_most_64_services() {
    let registry = Registry::with_capacity(100).unwrap();
    let ids: Vec<ServiceId<u32>> =
        (0..100).map(|i| registry.register(&format!("s{i}")).unwrap()).collect();
    for pair in ids.windows(2) {
        registry.depends(pair[1]).on(pair[0]).unwrap();
    }
    let text = line(&registry, ids[99]);
    assert!(text.starts_with("s99: no provider, needs s98; s98: no provider, needs s97; "));
    assert!(text.ends_with("; s36: no provider, needs s35"), "{text}");
    let why = registry.status(ids[63]).unwrap().not_ready.unwrap();
    assert_eq!((why.services().count(), &**why.root()), (64, "s0"));
}

#[cfg(feature = "serde")]
#[test]
fn the_line_is_serialised() {
    let (registry, [a]) = registry_of::<u32, 1>(["a"]);
    let json = serde_json::to_value(registry.list()).unwrap();
    assert_eq!(json["services"][0]["not_ready"], "a: no provider");
    let _up = up(&registry, a, 1);
    let json = serde_json::to_value(registry.list()).unwrap();
    assert!(json["services"][0]["not_ready"].is_null());
}

#[cfg(feature = "supervise")]
#[test]
fn a_clock_that_panics_only_hides_the_durations() {
    use mainstay::supervise::{Clock, Sleep};
    use std::time::Instant;

    struct Panics;
    impl Clock for Panics {
        fn now(&self) -> Instant {
            panic!("no time");
        }
        fn sleep_until(&self, _: Instant) -> Sleep {
            unreachable!();
        }
    }
    let registry = Registry::builder(1).unwrap().clock(Panics).build();
    let a = registry.register::<u32>("a").unwrap();
    let _supervisor = registry.supervise(a).unwrap();
    assert_eq!(line(&registry, a), "a: its supervisor is not running");
    let error = registry.wait_ready(a).wait_blocking_timeout(NONE).unwrap_err();
    assert_eq!(in_error(&error), "a: its supervisor is not running");
}

#[cfg(feature = "test-kit")]
mod supervised {
    use std::{
        future::{pending, ready},
        sync::{Arc, Mutex},
    };

    use super::*;
    use crate::errors::CANNOT_OPEN;
    use mainstay::{
        Guard,
        error::WaitForError,
        supervise::{Clock, RestartPolicy, SupervisorState},
        test_kit::TestRuntime,
    };

    const fn s(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn exact() -> RestartPolicy {
        RestartPolicy::default().backoff(ms(400), s(60)).without_jitter()
    }

    fn services<const N: usize>(names: [&str; N]) -> (TestRuntime, [ServiceId<u32>; N]) {
        let runtime = TestRuntime::new(N).unwrap();
        let ids = names.map(|name| runtime.registry.register(name).unwrap());
        (runtime, ids)
    }

    #[test]
    fn the_line_leads_to_the_root_and_is_the_same_everywhere() {
        let (mut runtime, [pool, server]) = services(["pool", "server"]);
        let registry = runtime.registry.clone();
        let supervisor = registry.supervise(pool).unwrap().restart_policy(exact());
        let clock = runtime.clock.clone();
        let mut builds = 0;
        runtime.spawn(supervisor.run(async move |_| {
            builds += 1;
            if builds == 1 {
                clock.sleep_until(clock.now() + ms(38_200)).await;
            }
            Err::<u32, _>(CANNOT_OPEN)
        }));
        let supervisor = registry.supervise(server).unwrap();
        runtime.spawn(
            supervisor.run(async move |build| Ok::<_, WaitForError>(**build.wait_for(pool).await?)),
        );
        runtime.run_until_idle();
        assert_eq!(line(&registry, server), "server: waiting for pool; pool: building");
        runtime.advance(s(7));
        let text = "server: waiting for pool; pool: building (for 7 s)";
        assert_eq!(line(&registry, server), text);

        let timed_out = Arc::new(Mutex::new(None));
        let (result, clock) = (Arc::clone(&timed_out), runtime.clock.clone());
        let wait = registry.wait_ready(server);
        runtime.spawn(async move {
            *result.lock().unwrap() = wait.timeout(s(34), &clock).await.err();
        });
        runtime.advance(s(34));
        let whole = "server: waiting for pool; pool: backing off after 4 failures, next try in \
                     3.2 s: cannot open /data/x.db: disk full (for 41 s)";
        assert_eq!(line(&registry, server), whole);
        let why = registry.status(server).unwrap().not_ready.unwrap();
        assert_eq!((why.to_string(), &**why.root()), (whole.into(), "pool"));
        #[cfg(feature = "serde")]
        assert_eq!(serde_json::to_value(why).unwrap(), whole);

        // In an error, the failure of the root is the source.
        let error = timed_out.lock().unwrap().take().unwrap();
        assert_eq!(in_error(&error), whole);
        let parts = "server: waiting for pool; pool: backing off after 4 failures, next try in \
                     3.2 s (for 41 s): pool failed: cannot open /data/x.db: disk full";
        let prefix = "the wait for server has timed out: not ready within 34s: ";
        assert_eq!(chain(&error).to_string(), format!("{prefix}{parts}"));
        let error = registry.get(server).unwrap_err();
        assert_eq!(chain(&error).to_string(), format!("server is not ready: {parts}"));
        let error = registry.wait_all_ready().wait_blocking_timeout(NONE).unwrap_err();
        let text = chain(&error).to_string();
        let list = "not all services are ready: pool: backing off after 4 failures, next try in \
                    3.2 s (for 41 s); server: waiting for pool: not ready within ";
        assert!(text.starts_with(list), "{text}");
        assert_eq!(text.matches("disk full").count(), 1, "{text}");
    }

    #[test]
    fn each_state_of_a_supervisor_has_its_own_words() {
        let names = ["idle", "given up", "builds", "drains", "backs off", "late"];
        let (mut runtime, [idle, given_up, builds, drains, backs_off, late]) = services(names);
        let registry = runtime.registry.clone();
        let _idle = registry.supervise(idle).unwrap();
        let policy = exact().max_failures(1, s(600));
        let supervisor = registry.supervise(given_up).unwrap().restart_policy(policy);
        runtime.spawn(supervisor.run(|_| async { Err::<u32, _>(CANNOT_OPEN) }));
        let supervisor = registry.supervise(builds).unwrap().restart_policy(exact());
        let mut first = true;
        runtime.spawn(supervisor.run(async move |_| {
            if !std::mem::take(&mut first) {
                pending::<()>().await;
            }
            1
        }));
        let policy = exact().drain_timeout(s(60));
        let supervisor = registry.supervise(drains).unwrap().restart_policy(policy);
        runtime.spawn(supervisor.run(|_| ready(1)));
        let endless = RestartPolicy::default().backoff(Duration::MAX, Duration::MAX);
        let supervisor = registry.supervise(backs_off).unwrap();
        let supervisor = supervisor.restart_policy(endless.without_jitter());
        runtime.spawn(supervisor.run(|_| async { Err::<u32, _>("no") }));
        let supervisor = registry.supervise(late).unwrap().restart_policy(exact());
        let supervisor = supervisor.body(|_| pending::<()>());
        runtime.spawn(supervisor.run(|_| ready(1)));
        runtime.run_until_idle();
        runtime.advance(s(3));
        registry.fail(builds, "edited").unwrap();
        let held: Guard<u32> = registry.get(drains).unwrap();
        for id in [drains, late] {
            registry.fail(id, "lost").unwrap();
        }
        runtime.run_until_idle();
        let check = |id, text: &str| assert_eq!(line(&registry, id), text);
        check(idle, "idle: its supervisor is not running");
        check(
            given_up,
            "given up: given up, `Registry::restart` or, by policy, a change of its inputs tries \
             again: cannot open /data/x.db: disk full (for 3 s)",
        );
        check(builds, "builds: backing off after 1 failure, next try in 400 ms: edited");
        check(drains, "drains: draining (holders: 1): lost");
        check(backs_off, "backs off: backing off after 1 failure, no next try: no (for 3 s)");
        check(late, "late: stopping: lost");
        runtime.advance(ms(1_500));
        check(builds, "builds: building again after a failure: edited (for 1.5 s)");
        drop(held);
        runtime.run_until_idle();
        check(drains, "drains: ready");
        assert_eq!(registry.status(drains).unwrap().supervisor.unwrap().not_ready_for, None);

        let held = registry.get(drains).unwrap();
        runtime.spawn({
            let shutdown = registry.shutdown(s(60));
            async move { drop(shutdown.await) }
        });
        runtime.run_until_idle();
        check(drains, "drains: draining (holders: 1): the registry is shutting down");
        check(idle, "idle: stopped");
        drop(held);
        runtime.advance(s(60));
        check(drains, "drains: stopped");
    }

    /// The time since which a service is not ready does not begin again with a new state.
    #[test]
    fn the_duration_begins_at_the_end_of_the_last_instance() {
        let (mut runtime, [a]) = services(["a"]);
        let registry = runtime.registry.clone();
        let supervisor = registry.supervise(a).unwrap().restart_policy(exact());
        let mut builds = 0;
        runtime.spawn(supervisor.run(async move |_| {
            builds += 1;
            if builds < 2 { Ok(builds) } else { Err("no") }
        }));
        runtime.run_until_idle();
        let status = || registry.status(a).unwrap().supervisor.unwrap();
        assert_eq!((status().state, status().not_ready_for), (SupervisorState::Up, None));
        runtime.advance(s(100));
        registry.fail(a, "lost").unwrap();
        runtime.run_until_idle();
        for passed in 1..10 {
            runtime.advance(s(1));
            assert_eq!(status().not_ready_for, Some(s(passed)));
        }
    }
}
