//! What ends a reload before its switch.
//!
//! - The drop of its wait, and a timeout, which names what was missing: nothing has changed. After
//!   the switch the drop does nothing.
//! - The failure of a member; a restart or a stop of one; a shutdown and a close.
//! - In all cases the builds aside are dropped, and a later reload works.

use super::*;
use crate::supervising::runtime::ms;
use mainstay::error::chain;

#[test]
fn the_drop_of_the_wait_abandons_the_reload() {
    let (mut runtime, [config, pool, server]) = super::chain();
    pool.1.takes(ms(10));
    config.1.set(2);
    let dropped = reload(&mut runtime, &config);
    assert_eq!((pool.1.present(), server.1.present()), (1, 1));
    dropped.task.cancel();
    runtime.run_until_idle();
    assert_eq!((pool.1.present(), server.1.present()), (0, 0));
    runtime.advance(ms(50));
    assert_eq!(values(&runtime, [&config, &pool, &server]), [Some(1), Some(11), Some(111)]);
    assert_eq!(events(&runtime), Vec::<String>::new());
    assert_eq!(runtime.supervisor_status(config.0).stale, None);

    let reload = reload(&mut runtime, &config);
    runtime.advance(ms(10));
    assert!(reload.is_over());
    drop(reload);
    assert_eq!(values(&runtime, [&config, &pool, &server]), [Some(2), Some(12), Some(112)]);
}

#[test]
fn a_timeout_abandons_the_reload_and_names_what_was_missing() {
    let (mut runtime, [config, pool, server]) = super::chain();
    pool.1.takes(ms(5_000));
    let clock = runtime.clock.clone();
    let wait = runtime.registry.reload(config.0);
    let reload = begin(&mut runtime, async move { wait.timeout(ms(2_000), &clock).await });
    runtime.advance(ms(1_000));
    let clock = runtime.clock.clone();
    let wait = runtime.registry.reload(server.0);
    let behind = begin(&mut runtime, async move { wait.timeout(ms(500), &clock).await });
    runtime.advance(ms(500));
    let text = "server was not reloaded within 500ms: waiting for the reload of config";
    assert_eq!(behind.take().unwrap_err().to_string(), text);
    runtime.advance(ms(500));
    let error = reload.take().unwrap_err();
    let text = "config was not reloaded within 2s: waiting for pool (building for 2 s), server \
                (building for 2 s, waiting for pool)";
    assert_eq!(error.to_string(), text);
    let ReloadError::TimedOut { missing, .. } = &error else { unreachable!("{error:?}") };
    assert_eq!(missing[1].waiting_for.as_deref(), Some("pool"));
    assert_eq!((pool.1.present(), server.1.present()), (0, 0));
    assert_eq!(values(&runtime, [&config, &pool, &server]), [Some(1), Some(11), Some(111)]);
    let stale = runtime.supervisor_status(config.0).stale.unwrap();
    assert_eq!(stale.why, "not reloaded within 2s");
}

#[test]
fn the_failure_of_a_member_refuses_the_reload() {
    let (mut runtime, [config, pool, server]) = super::chain();
    pool.1.takes(ms(50));
    let reload = reload(&mut runtime, &config);
    runtime.registry.fail(server.0, "closed").unwrap();
    runtime.run_until_idle();
    let error = reload.take().unwrap_err();
    let text = "config was not reloaded: server did not stay ready: server failed: closed";
    assert_eq!(chain(&error).to_string(), text);
    assert_eq!(values(&runtime, [&config, &pool, &server]), [Some(1), Some(11), None]);
    assert_eq!(pool.1.present(), 0);
    runtime.advance(ms(500));
    assert_eq!(values(&runtime, [&config, &pool, &server]), [Some(1), Some(11), Some(111)]);
}

#[test]
fn a_restart_of_a_member_refuses_the_reload() {
    let (mut runtime, [config, pool, server]) = super::chain();
    pool.1.takes(ms(50));
    let reload = reload(&mut runtime, &config);
    runtime.restart(server.0);
    let error = reload.take().unwrap_err();
    assert!(
        matches!(&error, ReloadError::Stopping { root, service, .. }
        if root == "config" && service == "server"),
        "{error:?}"
    );
    assert_eq!(pool.1.present(), 0);
    assert_eq!(values(&runtime, [&config, &pool, &server]), [Some(1), Some(11), Some(111)]);
}

#[test]
fn a_shutdown_ends_the_reload() {
    let (mut runtime, [config, pool, server]) = super::chain();
    pool.1.takes(ms(50));
    let reload = reload(&mut runtime, &config);
    let shutdown = runtime.registry.shutdown(ms(1_000));
    let shutdown = begin(&mut runtime, shutdown);
    assert!(matches!(reload.take(), Err(ReloadError::ShuttingDown { root }) if root == "config"));
    assert!(shutdown.take().stop_timeouts.is_empty());
    for member in [&config, &pool, &server] {
        assert_eq!((runtime.get(member.0), member.1.present()), (None, 0));
    }
    assert!(matches!(super::reload(&mut runtime, &config).take(), Err(ReloadError::Closed { .. })));
}

#[test]
fn a_close_ends_the_reload() {
    let (mut runtime, [config, pool, server]) = super::chain();
    pool.1.takes(ms(50));
    let reload = reload(&mut runtime, &config);
    runtime.registry.close();
    runtime.run_until_idle();
    assert!(matches!(reload.take(), Err(ReloadError::Closed { root }) if root == "config"));
    assert_eq!((pool.1.present(), server.1.present()), (0, 0));
}

#[test]
fn the_drop_of_a_supervisor_refuses_the_reload() {
    let mut runtime = TestRuntime::new();
    let config = supervise(&mut runtime, "config", &[]);
    let pool = runtime.service("pool");
    runtime.registry.depends(pool).on(config.0).unwrap();
    let supervisor = runtime.registry.supervise(pool).unwrap();
    let supervised = runtime.spawn(supervisor.run(async |build: Build<u32>| {
        if build.is_reload() {
            std::future::pending::<()>().await;
        }
        1
    }));
    runtime.run_until_idle();
    let reload = reload(&mut runtime, &config);
    supervised.cancel();
    runtime.run_until_idle();
    let error = reload.take().unwrap_err();
    assert!(
        matches!(&error, ReloadError::NotReloadable { root, service, .. }
        if root == "config" && service == "pool"),
        "{error:?}"
    );
    assert_eq!(values(&runtime, [&config]), [Some(0)]);
}

#[test]
fn no_reload_begins_in_a_shutdown() {
    let (mut runtime, [config, pool, server]) = super::chain();
    // The others stop after its readers.
    let held = runtime.registry.get_arc(server.0).unwrap();
    let shutdown = runtime.registry.shutdown(ms(1_000));
    let shutdown = begin(&mut runtime, shutdown);
    assert_eq!(values(&runtime, [&config, &pool]), [Some(1), Some(11)]);
    let late = reload(&mut runtime, &config).take();
    assert!(matches!(late, Err(ReloadError::ShuttingDown { root }) if root == "config"));
    drop(held);
    runtime.run_until_idle();
    assert!(shutdown.is_over());
}
