//! Waits that end when stuck (S17).
//!
//! - A wait for all, for a set, and one that is asked to, ends when a service cannot become ready
//!   without help: given up, permanent, stopped, without a supervisor or a provider, or because it
//!   waits for such a service, over any number of others.
//! - It does not end while the service may become ready by itself, and no build ends its wait.
//! - It does not matter what comes first: that the root is stuck, that a service waits for it, or
//!   the wait. After a restart or a start of the root, new waits wait again.

use std::{
    future::pending,
    pin::pin,
    sync::{
        Arc, Barrier,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    thread,
    time::Duration,
};

use super::runtime::TestRuntime;
use crate::support::{LONG, Wakes, poll_once, poll_with, publish, registry_of, up};
use mainstay::{
    AnyId, Registry, ServiceId,
    error::{AllReadyError, DependencyUnavailable, Unavailable, WaitReadyError, chain},
    supervise::{Build, Permanent, RestartPolicy, StopWait, SupervisorState},
    wait::{WaitAllReady, WaitReadyAny},
};

const NONE: Duration = Duration::ZERO;

fn gives_up() -> RestartPolicy {
    RestartPolicy::default().max_failures(0, Duration::from_secs(60))
}

fn wait(registry: &Registry, id: impl Into<AnyId>) -> WaitReadyAny {
    registry.wait_ready_any(id).unless_stuck()
}

/// The text of the error of a wait that has found the service stuck; `None` if it continues.
fn stuck(wait: &mut WaitReadyAny) -> Option<String> {
    match poll_once(wait) {
        Poll::Ready(Err(error @ WaitReadyError::Stuck(_))) => Some(chain(&error).to_string()),
        Poll::Ready(other) => panic!("{other:?}"),
        Poll::Pending => None,
    }
}

/// The same for several services.
fn set_stuck(wait: &mut WaitAllReady) -> Option<String> {
    match poll_once(wait) {
        Poll::Ready(Err(error @ AllReadyError::Stuck { .. })) => Some(chain(&error).to_string()),
        Poll::Ready(other) => panic!("{other:?}"),
        Poll::Pending => None,
    }
}

/// Begins a restart or a stop.
fn begun(mut operation: StopWait) -> StopWait {
    drop(poll_once(&mut operation));
    operation
}

/// Supervises a service that waits for another one.
fn depends(runtime: &mut TestRuntime, name: &str, on: ServiceId<u32>) -> ServiceId<u32> {
    let id = runtime.service(name);
    let supervisor = runtime.registry.supervise(id).unwrap();
    runtime.spawn(supervisor.run(async move |build| build.wait_for(on).await.map(|it| **it + 1)));
    id
}

/// Supervises a service that fails, and then gives up. The second build succeeds.
fn given_up(runtime: &mut TestRuntime, name: &str) -> ServiceId<u32> {
    let id = runtime.service(name);
    let supervisor = runtime.registry.supervise(id).unwrap().restart_policy(gives_up());
    let mut builds = 0;
    runtime.spawn(supervisor.run(async move |_: Build<u32>| {
        builds += 1;
        if builds == 1 { Err("disk full") } else { Ok(builds) }
    }));
    id
}

#[test]
fn a_service_that_has_given_up_ends_the_waits_and_says_why() {
    let mut runtime = TestRuntime::with_capacity(2);
    let pool = given_up(&mut runtime, "pool");
    let other = runtime.service("other");
    let registry = runtime.registry.clone();
    let (mut one, mut set) = (wait(&registry, pool), registry.wait_set_ready((other, pool)));
    let (mut all, mut others) = (registry.wait_all_ready(), registry.wait_set_ready([other]));
    let mut lasting = registry.wait_ready(pool);
    assert!(stuck(&mut one).is_none() && set_stuck(&mut set).is_none());
    assert!(set_stuck(&mut all).is_none() && set_stuck(&mut others).is_none());
    assert!(poll_once(&mut lasting).is_pending());

    runtime.run_until_idle();
    let said = stuck(&mut one).unwrap();
    assert!(said.starts_with("pool cannot become ready by itself: pool: given up"), "{said}");
    assert!(said.ends_with(": pool failed: disk full"), "{said}");
    assert_eq!(set_stuck(&mut set).unwrap(), said);
    assert_eq!(set_stuck(&mut all).unwrap(), said);
    assert!(set_stuck(&mut others).is_none(), "it is not in the set");
    assert!(poll_once(&mut lasting).is_pending(), "it was not asked");

    // In all forms.
    let error = registry.wait_ready(pool).unless_stuck().wait_blocking_timeout(LONG).unwrap_err();
    let missing = DependencyUnavailable::find(&error).unwrap();
    assert!(matches!(missing.kind, Unavailable::Stuck));
    assert_eq!((&*missing.service, &**missing.not_ready().unwrap().root()), ("pool", "pool"));
    assert_eq!(missing.failure().unwrap().reason.to_string(), "disk full");
    let error = registry.wait_all_ready().wait_blocking_timeout(NONE).unwrap_err();
    let AllReadyError::Stuck { not_ready, .. } = &error else { panic!("{error}") };
    let names: Vec<_> = not_ready.iter().map(|it| &*it.service).collect();
    assert_eq!(names, ["pool", "other"]);
    let mut timeout = pin!(registry.wait_set_ready([pool]).timeout(LONG, registry.clock()));
    let Poll::Ready(Err(AllReadyError::Stuck { .. })) = poll_once(&mut timeout) else { panic!() };

    let _restart = begun(registry.restart(pool, "a test"));
    let mut again = wait(&registry, pool);
    assert!(stuck(&mut again).is_none(), "new waits wait again");
    runtime.run_until_idle();
    assert!(matches!(poll_once(&mut again), Poll::Ready(Ok(_))));
    assert!(matches!(poll_once(&mut lasting), Poll::Ready(Ok(_))));
    let _other = up(&registry, other, 1);
    assert!(matches!(poll_once(&mut others), Poll::Ready(Ok(()))));
}

#[test]
fn a_permanent_error_ends_the_waits_and_a_backoff_does_not() {
    let mut runtime = TestRuntime::with_capacity(2);
    let [retried, permanent] = ["retried", "permanent"].map(|name| runtime.service(name));
    let supervisor = runtime.registry.supervise(retried).unwrap();
    runtime.spawn(supervisor.run(async |_: Build<u32>| Err::<u32, _>("not yet")));
    let supervisor = runtime.registry.supervise(permanent).unwrap();
    runtime.spawn(supervisor.run(async |_: Build<u32>| Err::<u32, _>(Permanent::new("line 3"))));
    let mut waits = [retried, permanent].map(|id| wait(&runtime.registry, id));
    let mut set = runtime.registry.wait_set_ready([retried]);
    runtime.run_until_idle();
    assert!(stuck(&mut waits[0]).is_none() && set_stuck(&mut set).is_none());
    let said = stuck(&mut waits[1]).unwrap();
    assert!(said.contains("permanent: failed permanently"), "{said}");
    runtime.advance(Duration::from_secs(3600));
    assert!(stuck(&mut waits[0]).is_none() && set_stuck(&mut set).is_none());
}

#[test]
fn a_service_that_the_user_has_stopped_is_stuck_until_its_start() {
    let mut runtime = TestRuntime::with_capacity(2);
    let base = runtime.service("base");
    let supervisor = runtime.registry.supervise(base).unwrap();
    let mended = Arc::new(AtomicBool::new(false));
    let is_mended = Arc::clone(&mended);
    runtime.spawn(supervisor.run(async move |_: Build<u32>| {
        if is_mended.load(Ordering::Relaxed) { Ok(1) } else { Err("broken") }
    }));
    let server = depends(&mut runtime, "server", base);
    runtime.run_until_idle();
    let registry = runtime.registry.clone();
    let mut waits = [wait(&registry, base), wait(&registry, server)];
    let mut set = registry.wait_set_ready([server]);
    assert!(waits.iter_mut().all(|wait| stuck(wait).is_none()) && set_stuck(&mut set).is_none());

    let _stop = begun(registry.stop(base));
    assert!(waits.iter_mut().all(|wait| stuck(wait).is_none()), "it is stopping");
    runtime.run_until_idle();
    let said = "server cannot become ready by itself: server: waiting for base; \
                base: stopped, `Registry::start` starts it";
    assert!(stuck(&mut waits[1]).unwrap().starts_with(said));
    assert!(set_stuck(&mut set).unwrap().starts_with(said));
    assert!(stuck(&mut waits[0]).unwrap().starts_with("base cannot"));

    mended.store(true, Ordering::Relaxed);
    assert!(registry.start(base).unwrap());
    let (mut one, mut set) = (wait(&registry, base), registry.wait_set_ready([server]));
    assert!(stuck(&mut one).is_none() && set_stuck(&mut set).is_none());
    runtime.run_until_idle();
    assert!(matches!(poll_once(&mut one), Poll::Ready(Ok(_))));
    assert!(matches!(poll_once(&mut set), Poll::Ready(Ok(()))));
    // Nothing remains of it.
    registry.fail(base, "again").unwrap();
    let mut again = registry.wait_all_ready();
    assert!(set_stuck(&mut again).is_none());
    runtime.advance(Duration::from_secs(60));
    assert!(matches!(poll_once(&mut again), Poll::Ready(Ok(()))));
}

#[test]
fn a_stopped_service_that_a_restart_begins_again_is_not_stuck() {
    let mut runtime = TestRuntime::with_capacity(1);
    let base = runtime.service("base");
    let supervisor = runtime.registry.supervise(base).unwrap();
    runtime.spawn(supervisor.run(async |_: Build<u32>| 1));
    runtime.run_until_idle();
    let registry = runtime.registry.clone();
    let _stop = begun(registry.stop(base));
    runtime.run_until_idle();
    assert!(stuck(&mut wait(&registry, base)).is_some());
    let _restart = begun(registry.restart(base, "a test"));
    let mut again = wait(&registry, base);
    assert!(stuck(&mut again).is_none());
    runtime.run_until_idle();
    assert!(matches!(poll_once(&mut again), Poll::Ready(Ok(_))));
}

#[test]
fn a_supervisor_that_has_ended_is_stuck_until_the_next_one() {
    let mut runtime = TestRuntime::with_capacity(2);
    let pool = runtime.service("pool");
    let registry = runtime.registry.clone();
    let supervisor = registry.supervise(pool).unwrap();
    let task = runtime.spawn(supervisor.run(async |_: Build<u32>| pending::<u32>().await));
    let server = depends(&mut runtime, "server", pool);
    runtime.run_until_idle();
    let (mut one, mut set) = (wait(&registry, pool), registry.wait_set_ready([server]));
    assert!(stuck(&mut one).is_none() && set_stuck(&mut set).is_none());
    task.cancel();
    runtime.run_until_idle();
    let said = "pool cannot become ready by itself: pool: its supervisor has ended";
    assert!(stuck(&mut one).unwrap().starts_with(said));
    assert!(set_stuck(&mut set).unwrap().contains("server: waiting for pool; pool: its superv"));

    let supervisor = registry.supervise(pool).unwrap();
    let (mut one, mut set) = (wait(&registry, pool), registry.wait_set_ready([server]));
    assert!(stuck(&mut one).is_none() && set_stuck(&mut set).is_none(), "start-up may last");
    runtime.spawn(supervisor.run(async |_: Build<u32>| 1));
    runtime.run_until_idle();
    assert!(matches!(poll_once(&mut one), Poll::Ready(Ok(_))));
    assert!(matches!(poll_once(&mut set), Poll::Ready(Ok(()))));
}

#[test]
fn what_was_not_started_is_stuck_once_start_up_is_complete() {
    let mut runtime = TestRuntime::with_capacity(5);
    let registry = runtime.registry.clone();
    let [none, idle, by_hand] = ["none", "idle", "by hand"].map(|name| runtime.service(name));
    let supervisor = registry.supervise(idle).unwrap();
    let provider = registry.provide(by_hand).unwrap();
    let server = depends(&mut runtime, "server", none);
    runtime.run_until_idle();
    let mut waits = [none, idle, server, by_hand].map(|id| wait(&registry, id));
    let mut sets = [none, idle, server, by_hand].map(|id| registry.wait_set_ready([id]));
    assert!(waits.iter_mut().all(|wait| stuck(wait).is_none()));
    assert!(sets.iter_mut().all(|wait| set_stuck(wait).is_none()));

    registry.startup_complete();
    let texts = [
        "none cannot become ready by itself: none: no provider",
        "idle cannot become ready by itself: idle: its supervisor is not running",
        "server cannot become ready by itself: server: waiting for none; none: no provider",
    ];
    for (i, text) in texts.into_iter().enumerate() {
        let said = stuck(&mut waits[i]).unwrap();
        assert!(said.starts_with(text), "{said}");
        assert_eq!(set_stuck(&mut sets[i]).unwrap(), said);
    }
    assert!(stuck(&mut waits[3]).is_none() && set_stuck(&mut sets[3]).is_none());

    // A service that is registered later has its time.
    let late = runtime.service("late");
    let mut wait_late = wait(&registry, late);
    assert!(stuck(&mut wait_late).is_none());
    registry.startup_complete();
    assert!(stuck(&mut wait_late).is_some());

    // A service that is provided later may become ready.
    let _none = up(&registry, none, 1);
    let mut before = registry.wait_set_ready((idle, by_hand));
    assert!(set_stuck(&mut before).is_some());
    // A task that an executor has not polled so far will run.
    runtime.spawn(supervisor.run(async |_: Build<u32>| 1));
    let mut before = registry.wait_set_ready((idle, by_hand));
    assert!(set_stuck(&mut before).is_none());
    runtime.run_until_idle();
    let mut all = registry.wait_set_ready((idle, by_hand, server));
    assert!(set_stuck(&mut all).is_none());
    drop(provider);
    assert!(set_stuck(&mut all).unwrap().contains("by hand: no provider"));
}

#[test]
fn a_service_without_a_provider_is_stuck_after_its_last_instance() {
    let (registry, [constant, provided]) = registry_of::<u32, 2>(["constant", "provided"]);
    registry.constant(constant, 1).unwrap();
    let (provider, running) = up(&registry, provided, 1);
    registry.startup_complete();
    let mut all = registry.wait_all_ready();
    assert!(matches!(poll_once(&mut all), Poll::Ready(Ok(()))));
    drop((provider, running));
    let mut all = registry.wait_all_ready();
    assert!(set_stuck(&mut all).unwrap().starts_with("provided cannot"));
    let _provided = up(&registry, provided, 2);
    let mut one = wait(&registry, constant);
    registry.fail(constant, "outdated").unwrap();
    let said = stuck(&mut one).unwrap();
    assert!(
        said.contains("constant: no provider: outdated") || said.contains("outdated"),
        "{said}"
    );
    registry.constant(constant, 2).unwrap();
    assert!(matches!(poll_once(&mut registry.wait_all_ready()), Poll::Ready(Ok(()))));
}

#[test]
fn what_waits_for_a_stuck_service_is_stuck_in_every_order() {
    // The links of the path, and the root, come to be in every order: the waits have begun before
    // all of them, or begin after each.
    for order in 0..24 {
        let (registry, ids) = registry_of::<u32, 4>(["a", "b", "c", "root"]);
        let [a, b, c, root] = ids;
        let providers = [a, b, c].map(|id| registry.provide(id).unwrap());
        let attempts = providers.each_ref().map(|provider| {
            let begin = provider.begin();
            begin.wait_blocking_timeout(LONG).unwrap()
        });
        let [mut on_b, mut on_c, mut on_root] =
            [(0, b), (1, c), (2, root)].map(|(i, on)| attempts[i].wait_for(on));
        let mut early = (wait(&registry, a), registry.wait_set_ready([a]));
        assert!(stuck(&mut early.0).is_none() && set_stuck(&mut early.1).is_none());
        let mut steps = vec![0, 1, 2, 3];
        let mut number = order;
        for left in (1..=4).rev() {
            let step = steps.remove(number % left);
            number /= left;
            match step {
                0 => assert!(poll_once(&mut on_b).is_pending()),
                1 => assert!(poll_once(&mut on_c).is_pending()),
                2 => assert!(poll_once(&mut on_root).is_pending()),
                _ => registry.startup_complete(),
            }
            let mut late = (wait(&registry, a), registry.wait_set_ready([a]));
            let found = [stuck(&mut late.0), set_stuck(&mut late.1)];
            let early = if left == 1 {
                [stuck(&mut early.0), set_stuck(&mut early.1)]
            } else {
                assert!(stuck(&mut early.0).is_none() && set_stuck(&mut early.1).is_none());
                [None, None]
            };
            let text = "a cannot become ready by itself: a: waiting for b; b: waiting for c; \
                        c: waiting for root; root: no provider";
            for found in [found, early].concat() {
                assert_eq!(found.is_some(), left == 1, "{order}");
                assert!(found.is_none_or(|found| found.starts_with(text)));
            }
        }
        assert!(poll_once(&mut on_root).is_pending(), "the wait of an attempt continues");
        drop((on_b, on_c, on_root));
    }
}

#[test]
fn a_wait_is_woken_by_the_last_link_and_not_while_there_is_hope() {
    let (registry, [server, pool]) = registry_of::<u32, 2>(["server", "pool"]);
    let (server_provider, pool_provider) =
        (registry.provide(server).unwrap(), registry.provide(pool).unwrap());
    registry.startup_complete();
    let (mut one, mut set) = (wait(&registry, server), registry.wait_set_ready([server]));
    let (wakes, waker) = Wakes::new();
    assert!(poll_with(&mut one, &waker).is_pending() && poll_with(&mut set, &waker).is_pending());
    drop(pool_provider);
    let before = wakes.count();
    let attempt = server_provider.begin().wait_blocking_timeout(LONG).unwrap();
    // A declaration that it needs the pool is no reason.
    registry.depends(server).on(pool).unwrap();
    assert!(poll_with(&mut one, &waker).is_pending() && poll_with(&mut set, &waker).is_pending());
    let mut on_pool = attempt.wait_for(pool);
    assert!(poll_once(&mut on_pool).is_pending());
    assert!(wakes.count() >= before + 2);
    assert!(stuck(&mut one).is_some() && set_stuck(&mut set).is_some());
}

#[test]
fn the_last_of_several_waits_counts_and_the_one_before_it_after_its_end() {
    let (registry, [server, ready, stuck_one]) =
        registry_of::<u32, 3>(["server", "ready", "stuck"]);
    let provider = registry.provide(server).unwrap();
    let ready_provider = registry.provide(ready).unwrap();
    registry.startup_complete();
    let attempt = provider.begin().wait_blocking_timeout(LONG).unwrap();
    let (mut on_stuck, mut on_ready) = (attempt.wait_for(stuck_one), attempt.wait_for(ready));
    assert!(poll_once(&mut on_ready).is_pending());
    assert!(poll_once(&mut on_stuck).is_pending());
    assert!(stuck(&mut wait(&registry, server)).is_some());
    drop(on_stuck);
    let mut on_stuck = attempt.wait_for(stuck_one);
    drop(on_ready);
    assert!(poll_once(&mut on_stuck).is_pending());
    let mut on_ready = attempt.wait_for(ready);
    assert!(poll_once(&mut on_ready).is_pending());
    let (mut one, mut set) = (wait(&registry, server), registry.wait_set_ready([server]));
    assert!(stuck(&mut one).is_none() && set_stuck(&mut set).is_none());
    let _ready = publish(&ready_provider, 1);
    assert!(poll_once(&mut on_ready).is_ready());
    assert!(stuck(&mut one).is_some() && set_stuck(&mut set).is_some());
}

#[test]
fn a_supervisor_that_waits_without_an_edge_is_stuck_too() {
    for waits_first in [false, true] {
        let mut runtime = TestRuntime::with_capacity(3);
        let registry = runtime.registry.clone();
        let pool = runtime.service("pool");
        let reads = runtime.service("reads");
        let supervisor = registry.supervise(reads).unwrap();
        let of = registry.clone();
        let supervisor = supervisor.run(async move |_: Build<u32>| of.get(pool).map(|it| *it));
        let provider = registry.provide(pool).unwrap();
        registry.startup_complete();
        let mut provider = Some(provider);
        if !waits_first {
            provider = None;
        }
        runtime.spawn(supervisor);
        runtime.run_until_idle();
        let server = depends(&mut runtime, "server", reads);
        let mut set = registry.wait_set_ready([server]);
        let mut one = wait(&registry, server);
        assert!(set_stuck(&mut set).is_none() && stuck(&mut one).is_none());
        drop(provider);
        runtime.run_until_idle();
        let status = registry.status(reads).unwrap().supervisor.unwrap();
        assert_eq!(status.state, SupervisorState::Waiting);
        let said = stuck(&mut one).unwrap();
        assert!(said.contains("server: waiting for reads; reads: waiting for pool"), "{said}");
        assert_eq!(set_stuck(&mut set).unwrap(), said);
    }
}

/// It never had an instance, so no change lets the other supervisor try again.
#[test]
fn a_supervisor_that_waits_without_an_edge_is_stuck_when_the_other_one_gives_up() {
    let mut runtime = TestRuntime::with_capacity(3);
    let registry = runtime.registry.clone();
    let pool = runtime.service("pool");
    let policy = RestartPolicy::default().max_failures(1, Duration::from_secs(60));
    let supervisor = registry.supervise(pool).unwrap().restart_policy(policy);
    runtime.spawn(supervisor.run(async |_: Build<u32>| Err::<u32, _>("broken")));
    let reads = runtime.service("reads");
    let (supervisor, of) = (registry.supervise(reads).unwrap(), registry.clone());
    runtime.spawn(supervisor.run(async move |_: Build<u32>| of.get(pool).map(|it| *it)));
    let server = depends(&mut runtime, "server", reads);
    runtime.run_until_idle();
    let mut set = registry.wait_set_ready([server]);
    assert!(set_stuck(&mut set).is_none(), "the pool backs off");
    runtime.advance(Duration::from_secs(10));
    let said = set_stuck(&mut set).unwrap();
    assert!(said.contains("reads: waiting for pool; pool: given up"), "{said}");
}

#[test]
fn a_service_without_a_supervisor_is_stuck_while_it_is_held_down() {
    let (registry, [base]) = registry_of::<u32, 1>(["base"]);
    let _provider = registry.provide(base).unwrap();
    let mut one = wait(&registry, base);
    assert!(stuck(&mut one).is_none());
    registry.stop(base).wait_blocking().unwrap();
    assert!(stuck(&mut one).unwrap().contains("base: stopped"));
    assert!(registry.start(base).unwrap());
    assert!(stuck(&mut wait(&registry, base)).is_none());
}

#[test]
fn an_optional_service_that_is_stuck_does_not_matter_unless_one_waits_for_it() {
    let mut runtime = TestRuntime::with_capacity(3);
    let metrics = given_up(&mut runtime, "metrics");
    let registry = runtime.registry.clone();
    registry.set_optional([metrics]).unwrap();
    let other = runtime.service("other");
    let provider = registry.provide(other).unwrap();
    let mut all = registry.wait_all_ready();
    runtime.run_until_idle();
    assert!(set_stuck(&mut all).is_none());
    let _server = depends(&mut runtime, "server", metrics);
    assert!(set_stuck(&mut all).is_none());
    runtime.run_until_idle();
    assert!(set_stuck(&mut all).unwrap().starts_with("server cannot become ready by itself"));
    drop(provider);
}

#[test]
fn a_dropped_wait_leaves_nothing_and_a_thread_is_woken() {
    let mut runtime = TestRuntime::with_capacity(1);
    let pool = given_up(&mut runtime, "pool");
    let registry = runtime.registry.clone();
    let (mut one, mut all) = (wait(&registry, pool), registry.wait_all_ready());
    assert!(stuck(&mut one).is_none() && set_stuck(&mut all).is_none());
    drop((one, all));
    thread::scope(|scope| {
        let one = scope.spawn(|| wait(&registry, pool).wait_blocking_timeout(LONG));
        let all = scope.spawn(|| registry.wait_all_ready().wait_blocking_timeout(LONG));
        runtime.run_until_idle();
        assert!(matches!(one.join().unwrap(), Err(WaitReadyError::Stuck(_))));
        assert!(matches!(all.join().unwrap(), Err(AllReadyError::Stuck { .. })));
    });
}

#[test]
fn a_wait_in_a_builder_that_ends_makes_the_service_wait_for_the_other_one() {
    let mut runtime = TestRuntime::with_capacity(2);
    let pool = given_up(&mut runtime, "pool");
    runtime.run_until_idle();
    let server = runtime.service("server");
    let registry = runtime.registry.clone();
    let of = registry.clone();
    let supervisor = registry.supervise(server).unwrap();
    runtime.spawn(supervisor.run(async move |_: Build<u32>| {
        of.wait_ready(pool).unless_stuck().await.map(|pool| **pool)
    }));
    runtime.run_until_idle();
    let status = registry.status(server).unwrap().supervisor.unwrap();
    assert_eq!((status.state, status.failures), (SupervisorState::Waiting, 0));
    let _restart = begun(registry.restart(pool, "a test"));
    runtime.advance(Duration::from_secs(60));
    assert_eq!(*registry.get(server).unwrap(), 2);
}

#[test]
fn new_waits_wait_for_a_restart_of_the_root_with_its_dependents() {
    let mut runtime = TestRuntime::with_capacity(3);
    let pool = given_up(&mut runtime, "pool");
    let cache = depends(&mut runtime, "cache", pool);
    let server = depends(&mut runtime, "server", cache);
    runtime.run_until_idle();
    let registry = runtime.registry.clone();
    assert!(stuck(&mut wait(&registry, server)).is_some());
    let _restart = begun(registry.restart(pool, "a test"));
    let mut all = registry.wait_all_ready();
    assert!(set_stuck(&mut all).is_none());
    runtime.run_until_idle();
    assert!(matches!(poll_once(&mut all), Poll::Ready(Ok(()))));
    assert_eq!(*registry.get(server).unwrap(), 4);
}

#[test]
fn a_close_and_a_shutdown_are_no_reasons_to_be_stuck() {
    let mut runtime = TestRuntime::with_capacity(1);
    let pool = given_up(&mut runtime, "pool");
    let registry = runtime.registry.clone();
    runtime.run_until_idle();
    registry.close();
    let closed = registry.wait_all_ready().wait_blocking_timeout(NONE);
    assert!(matches!(closed, Err(AllReadyError::Closed { .. })));
    let closed = wait(&registry, pool).wait_blocking_timeout(NONE);
    assert!(matches!(closed, Err(WaitReadyError::Closed { .. })));
}

#[test]
fn a_wait_checks_only_what_is_new() {
    // Other services get stuck one after another, while the wait is polled each time. With a check
    // of all services each time, this would take minutes.
    const SERVICES: usize = 10_000;
    let registry = Registry::with_capacity(SERVICES + 1).unwrap();
    let server = registry.register::<u32>("server").unwrap();
    let _provider = registry.provide(server).unwrap();
    let id = |i| registry.register::<u32>(&format!("s{i}")).unwrap();
    let ids: Vec<_> = (0..SERVICES).map(id).collect();
    registry.set_optional(ids.iter().copied()).unwrap();
    let mut providers: Vec<_> = ids.iter().map(|&id| registry.provide(id).unwrap()).collect();
    registry.startup_complete();
    let mut all = registry.wait_all_ready();
    while let Some(provider) = providers.pop() {
        assert!(set_stuck(&mut all).is_none());
        drop(provider);
    }
    let set = registry.wait_set_ready(ids.iter().copied().collect::<mainstay::ServiceSet>());
    assert!(matches!(set.wait_blocking_timeout(NONE), Err(AllReadyError::Stuck { .. })));
}

#[test]
fn the_wait_ends_whichever_thread_comes_first() {
    for round in 0..200 {
        let (registry, [server, pool]) = registry_of::<u32, 2>(["server", "pool"]);
        let provider = registry.provide(server).unwrap();
        let start = Barrier::new(3);
        thread::scope(|scope| {
            scope.spawn(|| {
                start.wait();
                registry.startup_complete();
            });
            let builds = scope.spawn(|| {
                let attempt = provider.begin().wait_blocking_timeout(LONG).unwrap();
                start.wait();
                assert!(attempt.wait_for(pool).wait_blocking_timeout(LONG).is_err());
            });
            start.wait();
            if round % 2 == 0 {
                let one = wait(&registry, server).wait_blocking_timeout(LONG);
                assert!(matches!(one, Err(WaitReadyError::Stuck(_))), "{one:?}");
            } else {
                let set = registry.wait_set_ready([server]).wait_blocking_timeout(LONG);
                assert!(matches!(set, Err(AllReadyError::Stuck { .. })), "{set:?}");
            }
            registry.close();
            builds.join().unwrap();
        });
    }
}
