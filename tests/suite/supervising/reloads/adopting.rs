//! Services that adopt the new instance of a dependency in place (S23).
//!
//! - They are no members because of that edge, and neither are their dependents. They are asked
//!   after the switch.
//! - With another edge to a member they are members, and below a gap they have one.
//! - An error or a panic fails the adopter.
//! - A failure of the dependency fails it; a plain replacement calls nothing.
//! - A reload that builds an adopter aside waits for the end of the other one.

use super::*;
use crate::supervising::runtime::{ms, on_a_thread};
use mainstay::{
    Instance, Registry,
    error::chain,
    supervise::{GapCause, Live, SupervisorState},
};

/// The own values and the new ones of the calls.
#[derive(Clone, Default)]
struct Calls(Arc<Mutex<Vec<(u32, u32)>>>);

impl Calls {
    fn take(&self) -> Vec<(u32, u32)> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }

    fn adopt(&self, own: &u32, new: &Instance<u32>) {
        self.0.lock().unwrap().push((*own, **new));
    }
}

/// Supervises a service that is built from `from`, and adopts the first of these.
fn adopter(runtime: &mut TestRuntime, name: &str, from: &[ServiceId<u32>]) -> (Supervised, Calls) {
    let calls = Calls::default();
    let log = calls.clone();
    let adopted = from[0];
    let adopter = supervise_with(runtime, name, from, move |supervisor| {
        supervisor.adopt(adopted, move |own: &u32, new| log.adopt(own, &new)).unwrap()
    });
    (adopter, calls)
}

/// `logger` adopts `config`, and `web` depends on `logger`. The values are 1, 11 and 111.
fn program() -> (TestRuntime, [Supervised; 3], Calls) {
    let mut runtime = TestRuntime::new();
    let config = supervise(&mut runtime, "config", &[]);
    let (logger, calls) = adopter(&mut runtime, "logger", &[config.0]);
    let web = supervise(&mut runtime, "web", &[logger.0]);
    for ((_, source), value) in [(&config, 1), (&logger, 10), (&web, 100)] {
        source.set(value);
    }
    runtime.registry.fail(config.0, "the values are set").unwrap();
    runtime.advance(exact_backoff());
    assert_eq!(values(&runtime, [&config, &logger, &web]), [Some(1), Some(11), Some(111)]);
    assert_eq!(calls.take(), []);
    runtime.recorder.take();
    (runtime, [config, logger, web], calls)
}

#[test]
fn an_adopter_takes_the_new_instance_over_in_place() {
    let (mut runtime, [config, logger, web], calls) = program();
    config.1.set(2);
    let builds = [&logger, &web].map(|(_, source)| source.builds());
    let reloaded = reload(&mut runtime, &config).take().unwrap();
    assert_eq!(calls.take(), [(11, 2)]);
    let members: Vec<_> = reloaded.members.iter().map(|member| &*member.service).collect();
    assert_eq!((members, reloaded.adopters.len()), (vec!["config"], 1));
    assert_eq!(reloaded.adopters[0], "logger");
    assert_eq!([&logger, &web].map(|(_, source)| source.builds()), builds);
    assert_eq!([&logger, &web].map(|member| numbers(&runtime, member)), [(1, 0), (1, 0)]);
    assert_eq!(events(&runtime), ["config 1: replaced"]);

    // Each time, also if it has adopted before.
    config.1.set(3);
    assert!(reload(&mut runtime, &config).take().is_ok());
    assert_eq!(calls.take(), [(11, 3)]);
    // The next build uses what is current then.
    runtime.registry.fail(logger.0, "again").unwrap();
    runtime.advance(ms(1_000));
    assert_eq!(values(&runtime, [&logger, &web]), [Some(13), Some(113)]);
    assert_eq!(calls.take(), []);
}

#[test]
fn a_check_names_the_adopters_and_asks_none() {
    let (mut runtime, [config, ..], calls) = program();
    let wait = runtime.registry.check_reload(config.0);
    let check = begin(&mut runtime, wait).take().unwrap();
    assert_eq!((check.members.len(), check.adopters.len()), (1, 1));
    assert_eq!(check.adopters[0], "logger");
    assert_eq!(calls.take(), []);
}

#[test]
fn an_adopter_that_depends_on_another_member_is_a_member() {
    let mut runtime = TestRuntime::new();
    let config = supervise(&mut runtime, "config", &[]);
    let pool = supervise(&mut runtime, "pool", &[config.0]);
    let (logger, calls) = adopter(&mut runtime, "logger", &[config.0, pool.0]);
    config.1.set(1);
    let reloaded = reload(&mut runtime, &config).take().unwrap();
    assert_eq!((reloaded.members.len(), reloaded.adopters.len()), (3, 0));
    assert_eq!(calls.take(), []);
    assert_eq!(runtime.get(logger.0), Some(2));
    // It depends on `pool` in the usual way.
    let reloaded = reload(&mut runtime, &pool).take().unwrap();
    assert_eq!((reloaded.members.len(), reloaded.adopters.len()), (2, 0));
}

#[test]
fn an_adopter_below_a_gap_has_a_gap() {
    let mut runtime = TestRuntime::new();
    let config = supervise(&mut runtime, "config", &[]);
    let port = supervise_with(&mut runtime, "port", &[config.0], Supervisor::exclusive);
    let (logger, calls) = adopter(&mut runtime, "logger", &[port.0, config.0]);
    config.1.set(1);
    let reloaded = reload(&mut runtime, &config).take().unwrap();
    let [port, logger_restarted] = &reloaded.restarted[..] else { panic!("{reloaded:?}") };
    assert_eq!(logger_restarted.why, GapCause::DependsOn(port.service.clone()));
    assert_eq!((runtime.get(logger.0), calls.take()), (Some(2), vec![]));
}

#[test]
fn an_error_and_a_panic_fail_the_adopter() {
    for panics in [false, true] {
        let mut runtime = TestRuntime::new();
        let config = supervise(&mut runtime, "config", &[]);
        let logger = supervise_with(&mut runtime, "logger", &[config.0], |supervisor| {
            let adopt = move |_: &u32, _| match panics {
                true => panic!("no level"),
                false => Err("no level"),
            };
            supervisor.adopt(config.0, adopt).unwrap()
        });
        let web = supervise(&mut runtime, "web", &[logger.0]);
        config.1.set(2);
        assert!(reload(&mut runtime, &config).take().is_ok());
        let status = runtime.supervisor_status(logger.0);
        assert_eq!((status.state, status.failures), (SupervisorState::BackingOff, 1));
        let failure = runtime.registry.status(logger.0).unwrap().last_failure.unwrap();
        let text = if panics { "the adoption panicked: no level" } else { "no level" };
        assert_eq!(chain(&failure).to_string(), format!("logger failed: {text}"));
        assert_eq!(values(&runtime, [&config, &logger, &web]), [Some(2), None, None]);
        runtime.advance(exact_backoff());
        assert_eq!(values(&runtime, [&config, &logger, &web]), [Some(2), Some(2), Some(2)]);
    }
}

#[test]
fn a_failure_of_the_dependency_fails_the_adopter() {
    let (mut runtime, [config, logger, web], calls) = program();
    runtime.registry.fail(config.0, "closed").unwrap();
    assert_eq!(values(&runtime, [&config, &logger, &web]), [None, None, None]);
    runtime.advance(ms(1_000));
    assert_eq!(values(&runtime, [&config, &logger, &web]), [Some(1), Some(11), Some(111)]);
    assert_eq!(calls.take(), []);
}

#[test]
fn a_given_value_is_adopted_and_a_plain_replacement_is_not() {
    let mut runtime = TestRuntime::new();
    let limit = runtime.service("limit");
    let supervisor = runtime.registry.supervise(limit).unwrap();
    let supervisor = supervisor.body(async |live: Live<u32>| {
        live.registry().wait_all_ready().await.unwrap();
        live.replace(5).unwrap();
        live.reload(6).await.unwrap();
        live.stopping().await.map(|_| ())
    });
    runtime.spawn(supervisor.run(async |_: Build<u32>| 1));
    let (_, calls) = adopter(&mut runtime, "logger", &[limit]);
    runtime.run_until_idle();
    assert_eq!((runtime.get(limit), calls.take()), (Some(6), vec![(1, 6)]));
}

#[test]
fn an_adopter_that_has_begun_again_is_built_from_the_new_instance() {
    let (mut runtime, [config, logger, web], calls) = program();
    config.1.set(2);
    config.1.takes(ms(50));
    let reload = reload(&mut runtime, &config);
    runtime.restart(logger.0);
    assert_eq!(runtime.get(logger.0), Some(11), "it is up before the switch");
    runtime.advance(ms(50));
    // It was not the instance that the coordinator had found, so the members were built anew.
    runtime.advance(ms(50));
    assert_eq!(reload.take().unwrap().tries, 2);
    assert_eq!(calls.take(), [(11, 2)]);
    assert_eq!(values(&runtime, [&config, &logger, &web]), [Some(2), Some(11), Some(111)]);

    // While it is built at the switch, its attempt ends.
    config.1.set(3);
    logger.1.takes(ms(100));
    let reload = super::reload(&mut runtime, &config);
    runtime.restart(logger.0);
    runtime.advance(ms(50));
    assert!(reload.take().is_ok());
    runtime.advance(ms(100));
    assert_eq!(values(&runtime, [&config, &logger, &web]), [Some(3), Some(13), Some(113)]);
    assert_eq!(calls.take(), []);
}

#[test]
fn a_reload_that_builds_an_adopter_aside_waits_for_the_other_one() {
    let mut runtime = TestRuntime::new();
    let [config, flags] = ["config", "flags"].map(|name| supervise(&mut runtime, name, &[]));
    let (logger, calls) = adopter(&mut runtime, "logger", &[config.0, flags.0]);
    config.1.set(1);
    config.1.takes(ms(50));
    flags.1.set(10);
    let first = reload(&mut runtime, &config);
    let builds = logger.1.builds();
    let second = reload(&mut runtime, &flags);
    runtime.advance(ms(49));
    assert_eq!((logger.1.builds(), second.is_over()), (builds, false));
    runtime.advance(ms(1));
    assert!(first.take().is_ok() && second.take().is_ok());
    assert_eq!(runtime.get(logger.0), Some(11), "built from both");
    // Of the old value, or of the new one, which needs it no more.
    assert!(calls.take().iter().all(|&(_, new)| new == 1));
}

#[test]
fn a_blocking_supervisor_adopts_on_its_thread() {
    let registry = Registry::with_capacity(2).unwrap();
    let [config, logger] = ["config", "logger"].map(|name| registry.register(name).unwrap());
    let mut builds = 0;
    let run = on_a_thread(registry.supervise(config).unwrap(), move |_| {
        builds += 1;
        Ok::<_, BoxError>(builds)
    });
    let (sender, adopted) = std::sync::mpsc::channel();
    let supervisor = registry.supervise(logger).unwrap();
    let supervisor = supervisor.adopt(config, move |own: &u32, new| {
        sender.send((*own, **new, std::thread::current().id()))
    });
    let thread = on_a_thread(supervisor.unwrap(), move |build| {
        Ok::<_, BoxError>(**build.wait_for(config).wait_blocking()? * 10)
    });
    registry.wait_ready(logger).wait_blocking().unwrap();
    registry.reload(config).wait_blocking().unwrap();
    assert_eq!(adopted.recv().unwrap(), (10, 2, thread.thread().id()));
    registry.close();
    run.join().unwrap();
    thread.join().unwrap();
}

#[test]
fn the_dependency_is_one_of_the_same_registry() {
    let runtime = TestRuntime::new();
    let other = Registry::with_capacity(1).unwrap();
    let foreign = other.register::<u32>("a").unwrap();
    let id = runtime.service("a");
    let supervisor = runtime.registry.supervise(id).unwrap();
    assert!(supervisor.adopt(foreign, |_, _| {}).is_err());
    assert!(runtime.registry.supervise(id).is_ok(), "its role is free");
}
