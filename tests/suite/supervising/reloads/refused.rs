//! Reloads that are refused: everything is as before.
//!
//! - By a build that fails, panics or is late; by a member that cannot be built aside.
//! - The error names the root, the service that refuses, and the whole cause.
//! - Nothing is counted, and no backoff begins.
//! - A root that is not ready, a constant, one without a supervisor, and a foreign id.
//! - A member that is about to stop.
//! - The edges of the old instance stay, and nothing keeps the error.
//! - A new dependency that has changed since the build, or that depends on the member.

use super::*;
use crate::{
    supervising::runtime::ms,
    support::{poll_once, up},
};
use mainstay::{
    Registry,
    error::{NotReloadable, chain},
    supervise::{RestartPolicy, SupervisorState},
};

#[test]
fn a_build_in_the_middle_that_fails_refuses_the_reload() {
    let (mut runtime, [config, pool, server]) = super::chain();
    config.1.set(2);
    pool.1.takes(ms(20));
    pool.1.fails("connection refused");
    let reload = reload(&mut runtime, &config);
    assert_eq!(server.1.present(), 1, "it waits for the new pool");
    runtime.advance(ms(20));
    let error = reload.take().unwrap_err();
    let text = "config was not reloaded: the build of pool failed: connection refused";
    assert_eq!(chain(&error).to_string(), text);
    assert!(matches!(&error, ReloadError::Refused { root, service, .. }
        if root == "config" && service == "pool"));
    for (member, value) in [(&config, 1), (&pool, 11), (&server, 111)] {
        assert_eq!((runtime.get(member.0), numbers(&runtime, member)), (Some(value), (1, 0)));
        let status = runtime.supervisor_status(member.0);
        assert_eq!(
            (status.state, status.failures),
            (SupervisorState::Up, 1 - u32::from(value > 1))
        );
        assert_eq!(member.1.present(), 0);
    }
    let refused = format!("config 1: reload refused: {text}");
    assert_eq!(events(&runtime), [refused]);
    // The builds that were dropped are begun again by the next reload.
    pool.1.fails(None);
    let reload = super::reload(&mut runtime, &config);
    runtime.advance(ms(20));
    assert!(reload.take().is_ok());
    assert_eq!(values(&runtime, [&config, &pool, &server]), [Some(2), Some(12), Some(112)]);
}

#[test]
fn a_build_that_is_late_or_panics_refuses_the_reload() {
    let mut runtime = TestRuntime::new();
    let id = runtime.service("pool");
    let (clock, mut builds) = (runtime.clock.clone(), 0);
    let policy = RestartPolicy::default().build_timeout(ms(100));
    runtime.supervise(id, policy, move |_| {
        builds += 1;
        let (clock, build) = (clock.clone(), builds);
        async move {
            match build {
                1 => Ok::<_, BoxError>(1),
                2 => {
                    clock.sleep_until(clock.now() + ms(200)).await;
                    Ok(2)
                }
                _ => panic!("no memory"),
            }
        }
    });
    runtime.run_until_idle();
    let reload = |runtime: &mut TestRuntime| {
        let wait = runtime.registry.reload(id);
        begin(runtime, wait)
    };
    let late = reload(&mut runtime);
    runtime.advance(ms(100));
    let text = chain(&late.take().unwrap_err()).to_string();
    assert!(text.starts_with("pool was not reloaded: the build of pool failed: "), "{text}");
    assert!(text.contains("100ms"), "{text}");
    let panicked = reload(&mut runtime);
    let text = chain(&panicked.take().unwrap_err()).to_string();
    assert!(text.contains("no memory"), "{text}");
    assert_eq!((runtime.get(id), runtime.state(id)), (Some(1), SupervisorState::Up));
}

#[test]
fn a_member_without_a_supervisor_is_named() {
    let mut runtime = TestRuntime::new();
    let config = supervise(&mut runtime, "config", &[]);
    let pool = runtime.service("pool");
    runtime.registry.depends(pool).on(config.0).unwrap();
    let by_hand = up(&runtime.registry, pool, 5);
    let builds = config.1.builds();
    let error = reload(&mut runtime, &config).take().unwrap_err();
    assert_eq!(error.to_string(), "config was not reloaded: pool has no supervisor");
    assert!(matches!(error, ReloadError::NotReloadable { why: NotReloadable::ByHand, .. }));
    assert_eq!(config.1.builds(), builds, "nothing was built");
    drop(by_hand);
}

#[test]
fn a_root_that_cannot_be_reloaded() {
    let mut runtime = TestRuntime::new();
    let constant = runtime.service("constant");
    runtime.registry.constant(constant, 1).unwrap();
    let reload = |runtime: &mut TestRuntime, id| {
        let wait = runtime.registry.reload(id);
        begin(runtime, wait).take().unwrap_err()
    };
    let error = reload(&mut runtime, constant);
    assert_eq!(error.to_string(), "constant was not reloaded: constant is a constant");

    let down = runtime.service("down");
    let error = reload(&mut runtime, down);
    let text = "down was not reloaded: down: no provider";
    assert_eq!(chain(&error).to_string(), text);

    let other = Registry::with_capacity(1).unwrap();
    let foreign = other.register::<u32>("down").unwrap();
    assert!(matches!(reload(&mut runtime, foreign), ReloadError::ForeignId(_)));
}

#[test]
fn a_new_dependency_that_has_changed_is_named() {
    let mut runtime = TestRuntime::new();
    let (extra, live) = switched::with_handle(&mut runtime, "extra");
    let id = runtime.service("pool");
    let (clock, mut builds) = (runtime.clock.clone(), 0);
    runtime.supervise(id, exact(), move |build| {
        builds += 1;
        let (clock, is_first) = (clock.clone(), builds == 1);
        async move {
            if is_first {
                return Ok(1);
            }
            let value = **build.wait_for(extra).await?;
            clock.sleep_until(clock.now() + ms(10)).await;
            Ok::<_, BoxError>(value)
        }
    });
    runtime.run_until_idle();
    let wait = runtime.registry.reload(id);
    let reload = begin(&mut runtime, wait);
    live.replace(5).unwrap();
    runtime.advance(ms(10));
    let error = reload.take().unwrap_err();
    let text = "pool was not reloaded: extra has changed, from which pool was built";
    assert_eq!(error.to_string(), text);
    assert_eq!(runtime.get(id), Some(1));
    assert_eq!(runtime.registry.status(id).unwrap().dependencies.len(), 0, "of the old instance");

    let wait = runtime.registry.reload(id);
    let reload = begin(&mut runtime, wait);
    runtime.advance(ms(10));
    assert!(reload.take().is_ok());
    assert_eq!(runtime.get(id), Some(5));
    // The edge is known from now on.
    runtime.registry.fail(extra, "broken").unwrap();
    assert_eq!(runtime.get(id), None);
}

#[test]
fn a_new_dependency_that_would_close_a_cycle_needs_a_restart() {
    let mut runtime = TestRuntime::new();
    let config = runtime.service("config");
    let pool_id = runtime.service("pool");
    let mut builds = 0;
    runtime.supervise(config, exact(), move |build| {
        builds += 1;
        let is_first = builds == 1;
        async move {
            match is_first {
                true => Ok::<_, BoxError>(1),
                false => Ok(**build.wait_for(pool_id).await?),
            }
        }
    });
    runtime.run_until_idle();
    let pool = supervise(&mut runtime, "pool", &[config]);
    let wait = runtime.registry.reload(config);
    let reload = begin(&mut runtime, wait);
    let error = reload.take().unwrap_err();
    assert!(matches!(&error, ReloadError::Cycle { root, .. } if root == "config"), "{error:?}");
    let text = "config was not reloaded: this change of its dependencies needs a restart: \
                config cannot depend on pool: config -> pool -> config";
    assert_eq!(chain(&error).to_string(), text);
    assert_eq!((runtime.get(config), runtime.get(pool.0)), (Some(1), Some(1)));
}

#[test]
fn a_refused_build_leaves_no_edge() {
    let mut runtime = TestRuntime::new();
    let extra = supervise(&mut runtime, "extra", &[]);
    let (id, from) = (runtime.service("pool"), extra.0);
    runtime.supervise(id, exact(), move |build| async move {
        match build.is_reload() {
            true => build.wait_for(from).await.map_err(BoxError::from).and(Err("refused".into())),
            false => Ok::<_, BoxError>(1),
        }
    });
    runtime.run_until_idle();
    let wait = runtime.registry.reload(id);
    assert!(begin(&mut runtime, wait).take().is_err());
    assert_eq!(runtime.registry.status(id).unwrap().dependencies.len(), 0);
}

#[test]
fn the_first_refusal_is_the_error() {
    let mut runtime = TestRuntime::new();
    let config = supervise(&mut runtime, "config", &[]);
    let server = supervise(&mut runtime, "server", &[config.0]);
    let (id, from, fails) = (runtime.service("pool"), config.0, server.0);
    let registry = runtime.registry.clone();
    runtime.supervise(id, exact(), move |build| {
        let registry = registry.clone();
        async move {
            let value = **build.wait_for(from).await?;
            if build.is_reload() {
                // The supervisor of `server` notices this later than this build returns.
                registry.fail(fails, "closed").unwrap();
                return Err("out of memory".into());
            }
            Ok::<_, BoxError>(value)
        }
    });
    runtime.run_until_idle();
    server.1.takes(ms(50));
    let mut wait = runtime.registry.reload(config.0);
    assert!(poll_once(&mut wait).is_pending());
    runtime.run_until_idle();
    let error = pollster::block_on(wait).unwrap_err();
    let text = "config was not reloaded: the build of pool failed: out of memory";
    assert_eq!(chain(&error).to_string(), text);
}

#[test]
fn a_refused_build_leaves_the_soft_edges_of_the_old_instance() {
    let mut runtime = TestRuntime::new();
    let (id, other) = (runtime.service("a"), runtime.service("other"));
    runtime.supervise(id, exact(), move |build| async move {
        build.watch(other).map(drop)?;
        if build.is_reload() { Err::<_, BoxError>("refused".into()) } else { Ok(1) }
    });
    runtime.run_until_idle();
    for _ in 0..2 {
        let wait = runtime.registry.reload(id);
        assert!(begin(&mut runtime, wait).take().is_err());
        assert_eq!(runtime.registry.status(id).unwrap().dependencies.len(), 1);
    }
}

/// An error of which one can see whether it was dropped.
#[derive(Debug)]
struct Counted(#[expect(dead_code, reason = "it is only held")] Arc<()>);

impl std::fmt::Display for Counted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("refused")
    }
}

impl std::error::Error for Counted {}

#[test]
fn nothing_keeps_the_error_of_a_reload() {
    let mut runtime = TestRuntime::new();
    let (id, errors) = (runtime.service("a"), Arc::new(()));
    let error = Arc::clone(&errors);
    runtime.supervise(id, exact(), move |build| {
        let error = Counted(Arc::clone(&error));
        async move { if build.is_reload() { Err(error) } else { Ok(1) } }
    });
    runtime.run_until_idle();
    let present = Arc::strong_count(&errors);
    let wait = runtime.registry.reload(id);
    let reload = begin(&mut runtime, wait);
    assert_eq!(Arc::strong_count(&errors), present + 1);
    drop(reload.take());
    assert_eq!(Arc::strong_count(&errors), present);
}

#[test]
fn a_member_that_is_about_to_stop_has_a_gap_if_the_caller_allows_it() {
    let (mut runtime, [config, pool, server]) = super::chain();
    // Its supervisor has not noticed that.
    let mut stop = runtime.registry.stop(server.0);
    assert!(poll_once(&mut stop).is_pending());
    let error = pollster::block_on(runtime.registry.reload(config.0)).unwrap_err();
    let text = "config was not reloaded: server cannot be built aside: its supervisor is stopping";
    assert_eq!(error.to_string(), text);
    config.1.set(2);
    let mut wait = runtime.registry.reload(config.0).allow_gap();
    assert!(poll_once(&mut wait).is_pending());
    let reloaded = begin(&mut runtime, wait).take().unwrap();
    assert_eq!((reloaded.members.len(), reloaded.restarted.len()), (2, 1));
    assert!(reloaded.restarted[0].not_ready.is_some(), "{reloaded:?}");
    assert_eq!(values(&runtime, [&config, &pool, &server]), [Some(2), Some(12), None]);
}
