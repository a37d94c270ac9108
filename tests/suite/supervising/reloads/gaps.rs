//! Services with a gap: a reload restarts them (S22).
//!
//! - An exclusive service serves until the switch, and begins again after it, with its dependents,
//!   in order. Nothing is counted.
//! - One that does not come up is named with its cause, and is an ordinary failure.
//! - An exclusive root: nothing is built aside.
//! - A provider by hand, only if the caller allows it.
//! - A refusal, and a check, name all of them.
//! - A member whose new instance needs one with a gap has a gap, too.
//! - The wait ends with a timeout, a stop, a shutdown and a close.

use super::*;
use crate::{
    supervising::runtime::ms,
    support::{poll_once, up},
};
use mainstay::{
    error::{Unavailable, chain},
    supervise::{GapCause, Live, RestartedService, SupervisorState},
};

/// `port` is exclusive and built from `config`, and `web` from `port` and `pool`. The values are 1,
/// 11, 101 and 1112.
fn program() -> (TestRuntime, [Supervised; 4]) {
    let mut runtime = TestRuntime::new();
    let config = supervise(&mut runtime, "config", &[]);
    let pool = supervise(&mut runtime, "pool", &[config.0]);
    let port = supervise_with(&mut runtime, "port", &[config.0], Supervisor::exclusive);
    let web = supervise(&mut runtime, "web", &[port.0, pool.0]);
    for ((_, source), value) in [(&config, 1), (&pool, 10), (&port, 100), (&web, 1_000)] {
        source.set(value);
    }
    runtime.registry.fail(config.0, "the values are set").unwrap();
    runtime.advance(exact_backoff());
    runtime.recorder.take();
    let services = [config, pool, port, web];
    assert_eq!(all(&runtime, &services), [Some(1), Some(11), Some(101), Some(1_112)]);
    (runtime, services)
}

fn all(runtime: &TestRuntime, [config, pool, port, web]: &[Supervised; 4]) -> [Option<u32>; 4] {
    values(runtime, [config, pool, port, web])
}

fn names(restarted: &[RestartedService]) -> Vec<String> {
    let shown = |it: &RestartedService| match &it.not_ready {
        None => format!("{} ({})", it.service, it.why),
        Some(missing) => format!("{} ({}): {missing}", it.service, it.why),
    };
    restarted.iter().map(shown).collect()
}

#[test]
fn an_exclusive_service_restarts_after_the_switch_with_its_dependents() {
    let (mut runtime, services) = program();
    let [config, pool, port, web] = &services;
    config.1.set(2);
    pool.1.takes(ms(20));
    port.1.takes(ms(30));
    let built = (port.1.builds(), web.1.builds());
    let reload = reload(&mut runtime, config);
    runtime.advance(ms(19));
    assert_eq!(all(&runtime, &services), [Some(1), Some(11), Some(101), Some(1_112)]);
    assert_eq!((port.1.builds(), web.1.builds()), built, "they are not built aside");

    runtime.advance(ms(1));
    assert_eq!(all(&runtime, &services), [Some(2), Some(12), None, None]);
    assert!(!reload.is_over());
    assert_eq!((port.1.present(), web.1.present()), (1, 1), "they begin at once");
    runtime.advance(ms(30));
    assert_eq!(all(&runtime, &services), [Some(2), Some(12), Some(102), Some(1_114)]);
    let reloaded = reload.take().unwrap();
    let members: Vec<_> = reloaded.members.iter().map(|member| &*member.service).collect();
    assert_eq!(members, ["config", "pool"]);
    assert_eq!(names(&reloaded.restarted), ["port (exclusive)", "web (depends on port)"]);
    assert_eq!(reloaded.gap_took, Some(ms(30)));
    // The failure of `config` was counted before.
    let numbers = [config, pool, port, web].map(|member| numbers(&runtime, member));
    assert_eq!(numbers, [(1, 1), (1, 1), (2, 0), (2, 0)]);
    for member in [port, web] {
        let status = runtime.supervisor_status(member.0);
        assert_eq!((status.state, status.failures), (SupervisorState::Up, 0));
    }
    let expected = [
        "port 1: stopped: config was reloaded",
        "web 1: stopped: config was reloaded",
        "config 1: replaced",
        "pool 1: replaced",
    ];
    let events = events(&runtime);
    assert_eq!(events[..4], expected, "{events:#?}");
}

#[test]
fn an_exclusive_service_that_does_not_come_up_is_named() {
    let (mut runtime, services) = program();
    let [config, _, port, web] = &services;
    config.1.set(2);
    port.1.fails("address in use");
    let reload = reload(&mut runtime, config);
    let reloaded = reload.take().unwrap();
    assert_eq!(all(&runtime, &services), [Some(2), Some(12), None, None]);
    let [failed, waits] = &reloaded.restarted[..] else { panic!("{reloaded:?}") };
    let why = failed.not_ready.as_ref().unwrap();
    assert!(chain(why).to_string().ends_with("port failed: address in use"), "{}", chain(why));
    let why = waits.not_ready.as_ref().unwrap();
    assert_eq!(why.not_ready().unwrap().root(), "port");
    assert_eq!(runtime.supervisor_status(config.0).stale, None, "it was switched");
    // It is an ordinary failure.
    let status = runtime.supervisor_status(port.0);
    assert_eq!((status.state, status.failures), (SupervisorState::BackingOff, 1));
    assert_eq!(runtime.state(web.0), SupervisorState::Building);
    port.1.fails(None);
    runtime.advance(exact_backoff());
    assert_eq!(all(&runtime, &services), [Some(2), Some(12), Some(102), Some(1_114)]);
}

#[test]
fn a_service_that_was_down_before_the_switch_is_named() {
    let (mut runtime, services) = program();
    let [config, pool, port, _] = &services;
    pool.1.takes(ms(20));
    let reload = reload(&mut runtime, config);
    port.1.fails("address in use");
    runtime.registry.fail(port.0, "closed").unwrap();
    runtime.advance(ms(20));
    let reloaded = reload.take().unwrap();
    assert_eq!(reloaded.restarted.len(), 2);
    assert!(reloaded.restarted.iter().all(|it| it.not_ready.is_some()), "{reloaded:?}");
}

#[test]
fn the_reload_of_an_exclusive_root_is_a_restart() {
    let (mut runtime, services) = program();
    let [_, _, port, web] = &services;
    port.1.set(200);
    port.1.takes(ms(10));
    let reload = reload(&mut runtime, port);
    assert_eq!(all(&runtime, &services), [Some(1), Some(11), None, None]);
    runtime.advance(ms(10));
    assert_eq!(all(&runtime, &services), [Some(1), Some(11), Some(201), Some(1_212)]);
    let reloaded = reload.take().unwrap();
    assert_eq!((reloaded.members.len(), reloaded.tries), (0, 1));
    assert_eq!(names(&reloaded.restarted), ["port (exclusive)", "web (depends on port)"]);
    assert_eq!([port, web].map(|member| numbers(&runtime, member)), [(2, 0), (2, 0)]);
    assert_eq!(runtime.supervisor_status(port.0).failures, 0);
}

#[test]
fn a_reload_without_gap_names_all_and_builds_nothing() {
    let (mut runtime, services) = program();
    let [config, pool, ..] = &services;
    let by_hand = runtime.service("by hand");
    runtime.registry.depends(by_hand).on(pool.0).unwrap();
    let by_hand = up(&runtime.registry, by_hand, 5);
    let builds = config.1.builds();
    let wait = runtime.registry.reload_without_gap(config.0);
    let error = begin(&mut runtime, wait).take().unwrap_err();
    let text = "config was not reloaded: port (exclusive), web (depends on port), by hand (has no \
                supervisor) would have a gap";
    assert_eq!(error.to_string(), text);
    let ReloadError::Gap { gaps, .. } = error else { panic!("{error:?}") };
    assert_eq!(gaps[1].why, GapCause::DependsOn(gaps[0].service.clone()));
    assert_eq!(config.1.builds(), builds);
    let stale = runtime.supervisor_status(config.0).stale.unwrap();
    assert_eq!(stale.why, "reload refused by port: it would have a gap");
    drop(by_hand);

    // Without one it is a reload as any other: `web` uses the same `port` as before.
    let wait = runtime.registry.reload_without_gap(pool.0);
    assert_eq!(begin(&mut runtime, wait).take().unwrap().members.len(), 2);
}

#[test]
fn a_provider_by_hand_has_a_gap_only_if_the_caller_allows_it() {
    let mut runtime = TestRuntime::new();
    let config = supervise(&mut runtime, "config", &[]);
    let hand = runtime.service("hand");
    runtime.registry.depends(hand).on(config.0).unwrap();
    let server = supervise(&mut runtime, "server", &[hand]);
    let provider = runtime.registry.provide(hand).unwrap();
    let running = provider.begin().wait_blocking().unwrap().ready(5).unwrap();
    runtime.run_until_idle();
    let error = reload(&mut runtime, &config).take().unwrap_err();
    assert_eq!(error.to_string(), "config was not reloaded: hand has no supervisor");

    config.1.set(2);
    let wait = runtime.registry.reload(config.0).allow_gap();
    let reload = begin(&mut runtime, wait);
    assert_eq!(values(&runtime, [&config, &server]), [Some(2), None]);
    assert!(!reload.is_over());
    let failure = running.failed().wait_blocking_timeout(Duration::ZERO).unwrap();
    assert!(failure.is_planned());
    drop(running);
    let _running = provider.begin().wait_blocking().unwrap().ready(6).unwrap();
    runtime.run_until_idle();
    let reloaded = reload.take().unwrap();
    let restarted = ["hand (has no supervisor)", "server (depends on hand)"];
    assert_eq!(names(&reloaded.restarted), restarted);
    assert_eq!(runtime.get(server.0), Some(6));
}

#[test]
fn a_check_says_which_services_would_have_a_gap() {
    let (mut runtime, services) = program();
    let [config, _, port, web] = &services;
    let built = (port.1.builds(), web.1.builds());
    let wait = runtime.registry.check_reload(config.0);
    let check = begin(&mut runtime, wait).take().unwrap();
    let members: Vec<_> = check.members.iter().map(|member| &*member.service).collect();
    assert_eq!(members, ["config", "pool"]);
    let gaps: Vec<_> = check.gaps.iter().map(ToString::to_string).collect();
    assert_eq!(gaps, ["port (exclusive)", "web (depends on port)"]);
    assert_eq!((port.1.builds(), web.1.builds()), built);
    assert_eq!(all(&runtime, &services), [Some(1), Some(11), Some(101), Some(1_112)]);
    assert_eq!(events(&runtime), Vec::<String>::new());
}

#[test]
fn a_member_whose_new_instance_needs_one_with_a_gap_has_a_gap_too() {
    let (mut runtime, services) = program();
    let [config, _, port, _] = &services;
    let late = runtime.service("late");
    runtime.registry.depends(late).on(config.0).unwrap();
    let (config_id, port_id) = (config.0, port.0);
    let mut builds = 0;
    runtime.supervise(late, exact(), move |build| {
        builds += 1;
        let from = if builds == 1 { config_id } else { port_id };
        async move { Ok::<_, BoxError>(**build.wait_for(from).await? * 2) }
    });
    runtime.run_until_idle();
    assert_eq!(runtime.get(late), Some(2));
    let reload = reload(&mut runtime, config);
    let reloaded = reload.take().unwrap();
    assert_eq!(reloaded.tries, 2);
    let names = names(&reloaded.restarted);
    assert!(names.contains(&"late (depends on port)".into()), "{names:?}");
    assert_eq!(names.len(), 3);
    assert_eq!(runtime.get(late), Some(202));
    assert_eq!(runtime.supervisor_status(late).failures, 0);
}

/// `proxy` is down when the reload begins, so it has no gap. It is built from the old port while
/// `late` waits for it.
#[test]
fn a_member_that_needs_what_goes_down_with_one_with_a_gap_has_a_gap_too() {
    let (mut runtime, services) = program();
    let [config, _, port, _] = &services;
    let proxy = supervise(&mut runtime, "proxy", &[port.0]);
    let late = runtime.service("late");
    runtime.registry.depends(late).on(config.0).unwrap();
    let (config_id, proxy_id) = (config.0, proxy.0);
    let mut builds = 0;
    runtime.supervise(late, exact(), move |build| {
        builds += 1;
        let from = if builds == 1 { config_id } else { proxy_id };
        async move { Ok::<_, BoxError>(**build.wait_for(from).await? * 2) }
    });
    runtime.run_until_idle();
    assert_eq!(runtime.get(late), Some(2));

    config.1.set(2);
    proxy.1.takes(ms(50));
    runtime.restart(proxy.0);
    let reload = reload(&mut runtime, config);
    runtime.advance(ms(50));
    assert_eq!(runtime.get(late), None, "it restarts");
    runtime.advance(ms(50));
    let reloaded = reload.take().unwrap();
    assert_eq!(reloaded.tries, 2);
    let names = names(&reloaded.restarted);
    for expected in ["proxy (depends on port)", "late (depends on proxy)"] {
        assert!(names.contains(&expected.into()), "{names:?}");
    }
    assert_eq!((runtime.get(proxy.0), runtime.get(late)), (Some(102), Some(204)));
    assert_eq!(runtime.supervisor_status(late).failures, 0);
}

/// `proxy` is down when the reload begins, so it has no gap. The switch finds it ready.
#[test]
fn a_dependent_that_comes_up_before_the_switch_is_named() {
    let (mut runtime, services) = program();
    let [config, _, port, _] = &services;
    let proxy = supervise(&mut runtime, "proxy", &[port.0]);
    proxy.1.takes(ms(50));
    runtime.restart(proxy.0);
    config.1.edit(|content| (content.value, content.takes) = (2, ms(80)));
    let reload = reload(&mut runtime, config);
    runtime.advance(ms(50));
    assert_eq!(runtime.get(proxy.0), Some(101), "built from the old port");

    runtime.advance(ms(30));
    assert_eq!((runtime.get(port.0), runtime.get(proxy.0)), (Some(102), None));
    assert!(!reload.is_over(), "it waits for the proxy");
    runtime.advance(ms(50));
    let reloaded = reload.take().unwrap();
    assert_eq!((reloaded.tries, reloaded.gap_took), (1, Some(ms(50))));
    let names = names(&reloaded.restarted);
    assert_eq!(names, ["port (exclusive)", "web (depends on port)", "proxy (depends on port)"]);
    assert_eq!(runtime.get(proxy.0), Some(102));
}

#[test]
fn a_build_that_needs_one_with_a_gap_only_to_start_is_switched() {
    // A cascade reads the entry of a declared edge, and asks the switch that it belongs to.
    for declared in [false, true] {
        let (mut runtime, services) = program();
        let [config, _, port, _] = &services;
        let late = runtime.service("late");
        runtime.registry.depends(late).on(config.0).unwrap();
        if declared {
            runtime.registry.depends(late).to_start_on(port.0).unwrap();
        }
        let (config_id, port_id) = (config.0, port.0);
        runtime.supervise(late, exact(), move |build| async move {
            let config = **build.wait_for(config_id).await?;
            Ok::<_, BoxError>(config * 10_000 + **build.wait_to_start(port_id).await?)
        });
        runtime.run_until_idle();
        config.1.set(2);
        let reloaded = reload(&mut runtime, config).take().unwrap();
        assert_eq!((reloaded.tries, reloaded.members.len()), (1, 3));
        assert_eq!(runtime.get(late), Some(20_101), "built from the port before the switch");
    }
}

#[test]
fn a_timeout_after_the_switch_names_what_is_down() {
    let (mut runtime, services) = program();
    let [config, _, port, _] = &services;
    config.1.set(2);
    port.1.takes(ms(500));
    let clock = runtime.clock.clone();
    let wait = runtime.registry.reload(config.0);
    let reload = begin(&mut runtime, async move { wait.timeout(ms(100), &clock).await });
    runtime.advance(ms(100));
    let reloaded = reload.take().unwrap();
    assert_eq!((reloaded.members.len(), reloaded.gap_took), (2, None));
    for it in &reloaded.restarted {
        let why = it.not_ready.as_ref().unwrap();
        assert!(matches!(why.kind, Unavailable::TimedOut { after } if after == ms(100)), "{why}");
    }
    runtime.advance(ms(400));
    assert_eq!(all(&runtime, &services), [Some(2), Some(12), Some(102), Some(1_114)]);
}

#[test]
fn a_stop_and_a_close_after_the_switch_end_the_wait() {
    for closes in [false, true] {
        let (mut runtime, services) = program();
        let [config, _, port, _] = &services;
        config.1.set(2);
        port.1.takes(ms(500));
        let reload = reload(&mut runtime, config);
        runtime.advance(ms(10));
        assert!(!reload.is_over());
        if closes {
            runtime.registry.close();
        } else {
            let mut stop = runtime.registry.stop_subtree(port.0);
            let _ = poll_once(&mut stop);
        }
        runtime.run_until_idle();
        let reloaded = reload.take().unwrap();
        assert!(reloaded.restarted.iter().all(|it| it.not_ready.is_some()), "{reloaded:?}");
    }
}

#[test]
fn a_restart_after_the_switch_is_waited_for() {
    let (mut runtime, services) = program();
    let [config, _, port, _] = &services;
    port.1.takes(ms(50));
    let reload = reload(&mut runtime, config);
    runtime.advance(ms(10));
    runtime.restart(port.0);
    assert!(!reload.is_over());
    runtime.advance(ms(50));
    let reloaded = reload.take().unwrap();
    assert!(reloaded.restarted.iter().all(|it| it.not_ready.is_none()), "{reloaded:?}");
}

#[test]
fn a_newer_reload_begins_while_services_with_a_gap_restart() {
    let (mut runtime, services) = program();
    let [config, _, port, _] = &services;
    config.1.set(2);
    port.1.takes(ms(50));
    let first = reload(&mut runtime, config);
    runtime.advance(ms(10));
    config.1.set(3);
    let second = reload(&mut runtime, config);
    assert!(second.take().is_ok(), "what is not ready is no part of it");
    assert!(!first.is_over());
    runtime.advance(ms(100));
    assert!(first.take().is_ok());
    assert_eq!(all(&runtime, &services), [Some(3), Some(13), Some(103), Some(1_116)]);
}

#[test]
fn a_given_value_restarts_exclusive_dependents() {
    let mut runtime = TestRuntime::new();
    let limit = runtime.service("limit");
    let result = Arc::new(Mutex::new(None));
    let stored = Arc::clone(&result);
    // Its own value is given, so it has no gap.
    let supervisor = runtime.registry.supervise(limit).unwrap().exclusive();
    let supervisor = supervisor.body(async move |live: Live<u32>| {
        live.registry().wait_all_ready().await.unwrap();
        let refused = live.reload_without_gap(7).await.unwrap_err();
        assert_eq!(refused.value.into_inner(), 7);
        *stored.lock().unwrap() = Some(live.reload(8).await.unwrap());
        live.stopping().await.map(|_| ())
    });
    runtime.spawn(supervisor.run(async |_: Build<u32>| 1));
    let port = supervise_with(&mut runtime, "port", &[limit], Supervisor::exclusive);
    runtime.run_until_idle();
    let reloaded = result.lock().unwrap().take().unwrap();
    assert_eq!(names(&reloaded.restarted), ["port (exclusive)"]);
    assert_eq!((runtime.get(limit), runtime.get(port.0)), (Some(8), Some(8)));
}

#[test]
fn an_exclusive_service_begins_again_after_its_old_instance_has_ended() {
    let mut runtime = TestRuntime::new();
    let config = supervise(&mut runtime, "config", &[]);
    let port = supervise_with(&mut runtime, "port", &[config.0], |supervisor| {
        supervisor.exclusive().restart_policy(exact().drain_timeout(ms(1_000)))
    });
    config.1.set(2);
    let reader = runtime.registry.get_arc(port.0).unwrap();
    let builds = port.1.builds();
    let reload = reload(&mut runtime, &config);
    runtime.advance(ms(500));
    assert_eq!((runtime.get(config.0), port.1.builds()), (Some(2), builds));
    assert_eq!(runtime.state(port.0), SupervisorState::Draining);
    assert!(!reload.is_over());
    drop(reader);
    runtime.run_until_idle();
    let reloaded = reload.take().unwrap();
    assert!(reloaded.restarted[0].not_ready.is_none(), "{reloaded:?}");
    assert_eq!((runtime.get(port.0), reloaded.gap_took), (Some(2), Some(ms(500))));
}
