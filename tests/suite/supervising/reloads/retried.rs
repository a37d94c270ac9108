//! Reloads that are tried again after a refusal.
//!
//! - The backoff grows, each refusal is reported, and the root is stale until a try succeeds.
//! - A newer reload, a shutdown, a close and a timeout end a pause.
//! - What no try can mend is not tried again.
//! - A given value is used for each try, unless a build keeps it.

use super::*;
use crate::supervising::runtime::{ms, on_a_thread};
use mainstay::{
    Registry,
    error::{ReloadValueError, chain},
    supervise::{Live, RestartPolicy},
};

fn retry(runtime: &mut TestRuntime, (id, _): &Supervised) -> Reload {
    let wait = runtime.registry.reload(*id).retry(exact());
    begin(runtime, wait)
}

#[test]
fn a_refused_reload_is_tried_again_with_backoff() {
    let (mut runtime, [config, pool, server]) = super::chain();
    config.1.set(2);
    pool.1.fails("connection refused");
    let builds = pool.1.builds();
    let reload = retry(&mut runtime, &config);
    let refused = "config was not reloaded: the build of pool failed: connection refused";
    let event = format!("config 1: reload refused: {refused}");
    assert_eq!(events(&runtime), [event.as_str()]);
    assert!(runtime.supervisor_status(config.0).stale.is_some());

    runtime.advance(ms(99));
    assert_eq!(pool.1.builds(), builds + 1);
    runtime.advance(ms(1));
    assert_eq!(pool.1.builds(), builds + 2);
    assert_eq!(events(&runtime), [event.as_str()]);
    pool.1.fails(None);
    config.1.set(3);
    runtime.advance(ms(199));
    assert!(!reload.is_over());
    runtime.advance(ms(1));
    let reloaded = reload.take().unwrap();
    assert_eq!((reloaded.members.len(), reloaded.tries), (3, 3));
    assert_eq!(values(&runtime, [&config, &pool, &server]), [Some(3), Some(13), Some(113)]);
    assert_eq!(runtime.supervisor_status(config.0).stale, None);
    assert_eq!(runtime.supervisor_status(pool.0).failures, 0);
}

#[test]
fn a_newer_reload_ends_a_pause() {
    let (mut runtime, [config, pool, server]) = super::chain();
    pool.1.fails("connection refused");
    let older = retry(&mut runtime, &config);
    pool.1.fails(None);
    config.1.set(2);
    let newer = reload(&mut runtime, &config);
    assert!(newer.take().is_ok());
    assert!(matches!(older.take(), Err(ReloadError::Superseded { root }) if root == "config"));
    let builds = pool.1.builds();
    runtime.advance(ms(1_000));
    assert_eq!(pool.1.builds(), builds);
    assert_eq!(values(&runtime, [&config, &pool, &server]), [Some(2), Some(12), Some(112)]);
}

#[test]
fn a_shutdown_and_a_close_end_a_pause() {
    for closes in [false, true] {
        let (mut runtime, [config, pool, _]) = super::chain();
        pool.1.fails("connection refused");
        let reload = retry(&mut runtime, &config);
        if closes {
            runtime.registry.close();
            runtime.run_until_idle();
            assert!(matches!(reload.take(), Err(ReloadError::Closed { .. })));
        } else {
            let shutdown = runtime.registry.shutdown(ms(1_000));
            begin(&mut runtime, shutdown);
            assert!(matches!(reload.take(), Err(ReloadError::ShuttingDown { .. })));
        }
    }
}

#[test]
fn the_timeout_is_for_all_tries_together() {
    let (mut runtime, [config, pool, _]) = super::chain();
    pool.1.fails("connection refused");
    let begin_for = |runtime: &mut TestRuntime, timeout| {
        let (clock, wait) = (runtime.clock.clone(), runtime.registry.reload(config.0));
        let wait = wait.retry(exact());
        begin(runtime, async move { wait.timeout(timeout, &clock).await })
    };
    // In a pause, the error is that of the last try.
    let reload = begin_for(&mut runtime, ms(250));
    runtime.advance(ms(250));
    assert!(matches!(reload.take(), Err(ReloadError::Refused { .. })));
    let builds = pool.1.builds();
    runtime.advance(ms(1_000));
    assert_eq!(pool.1.builds(), builds, "its tries have ended");

    pool.1.takes(ms(80));
    let reload = begin_for(&mut runtime, ms(250));
    runtime.advance(ms(250));
    assert!(matches!(reload.take(), Err(ReloadError::TimedOut { .. })));
    assert_eq!(pool.1.present(), 0);
}

#[test]
fn what_is_not_ready_is_tried_again() {
    let (mut runtime, [config, pool, server]) = super::chain();
    runtime.registry.fail(config.0, "closed").unwrap();
    runtime.run_until_idle();
    let reload = retry(&mut runtime, &config);
    assert!(!reload.is_over());
    runtime.advance(ms(1_000));
    assert!(reload.take().is_ok());
    assert_eq!(values(&runtime, [&config, &pool, &server]), [Some(1), Some(11), Some(111)]);
}

#[test]
fn what_no_try_can_mend_is_not_tried_again() {
    let (mut runtime, [config, ..]) = super::chain();
    let constant = runtime.service("constant");
    runtime.registry.constant(constant, 1).unwrap();
    let wait = runtime.registry.reload(constant).retry(exact());
    let reload = begin(&mut runtime, wait);
    assert!(matches!(reload.take(), Err(ReloadError::NotReloadable { .. })));

    supervise_with(&mut runtime, "port", &[config.0], Supervisor::exclusive);
    let wait = runtime.registry.reload_without_gap(config.0).retry(exact());
    let reload = begin(&mut runtime, wait);
    assert!(matches!(reload.take(), Err(ReloadError::Gap { .. })));

    let other = Registry::with_capacity(1).unwrap();
    let wait = runtime.registry.reload(other.register::<u32>("a").unwrap()).retry(exact());
    assert!(matches!(begin(&mut runtime, wait).take(), Err(ReloadError::ForeignId(_))));
}

type Given = Arc<Mutex<Option<Result<Reloaded, ReloadValueError<u32>>>>>;

/// Supervises `limit`, whose body reloads it with 5 as soon as all is ready.
fn gives(runtime: &mut TestRuntime) -> (ServiceId<u32>, Given) {
    let (limit, given) = (runtime.service("limit"), Given::default());
    let stored = Arc::clone(&given);
    let supervisor = runtime.registry.supervise(limit).unwrap().restart_policy(exact());
    let supervisor = supervisor.body(async move |live: Live<u32>| {
        live.registry().wait_all_ready().await.unwrap();
        let result = live.reload(5).retry(exact()).await;
        *stored.lock().unwrap() = Some(result);
        live.stopping().await.map(|_| ())
    });
    runtime.spawn(supervisor.run(async |_: Build<u32>| 1));
    (limit, given)
}

#[test]
fn a_given_value_is_used_for_each_try() {
    let mut runtime = TestRuntime::new();
    let (limit, given) = gives(&mut runtime);
    let (id, mut builds) = (runtime.service("pool"), 0);
    runtime.supervise(id, exact(), move |build| {
        builds += 1;
        let fails = builds == 2 || builds == 3;
        async move {
            let limit = **build.wait_for(limit).await?;
            if fails { Err(BoxError::from("no")) } else { Ok(10 + limit) }
        }
    });
    runtime.run_until_idle();
    assert!(given.lock().unwrap().is_none());
    assert_eq!((runtime.get(limit), runtime.get(id)), (Some(1), Some(11)));
    runtime.advance(ms(100));
    runtime.advance(ms(200));
    assert!(given.lock().unwrap().take().unwrap().is_ok());
    assert_eq!((runtime.get(limit), runtime.get(id)), (Some(5), Some(15)));
}

#[test]
fn a_given_value_that_a_build_keeps_ends_the_tries() {
    let mut runtime = TestRuntime::new();
    let (limit, given) = gives(&mut runtime);
    let (id, mut builds) = (runtime.service("pool"), 0);
    let kept = Arc::<Mutex<Vec<_>>>::default();
    let keeps = Arc::clone(&kept);
    runtime.supervise(id, exact(), move |build| {
        builds += 1;
        let (fails, keeps) = (builds > 1, Arc::clone(&keeps));
        async move {
            let limit = build.wait_for(limit).await?;
            keeps.lock().unwrap().push(limit);
            if fails { Err(BoxError::from("no")) } else { Ok(10) }
        }
    });
    runtime.run_until_idle();
    runtime.advance(ms(100));
    let error = given.lock().unwrap().take().unwrap().unwrap_err();
    let text = "limit was not reloaded: the build of pool failed: no";
    assert_eq!(chain(&error).to_string(), text);
    kept.lock().unwrap().clear();
    assert_eq!(error.value.into_inner(), 5);
    assert_eq!((runtime.get(limit), runtime.get(id)), (Some(1), Some(10)));
}

#[test]
fn a_thread_sleeps_in_a_pause() {
    let registry = Registry::with_capacity(1).unwrap();
    let id = registry.register::<u32>("a").unwrap();
    let mut builds = 0;
    let supervisor = registry.supervise(id).unwrap();
    let thread = on_a_thread(supervisor, move |_| {
        builds += 1;
        if builds == 2 { Err("no") } else { Ok(builds) }
    });
    registry.wait_ready(id).wait_blocking().unwrap();
    let policy = RestartPolicy::default().backoff(ms(1), ms(1));
    let reloaded = registry.reload(id).retry(policy).wait_blocking().unwrap();
    assert_eq!((reloaded.tries, *registry.get(id).unwrap()), (2, 3));
    registry.close();
    thread.join().unwrap();
}
