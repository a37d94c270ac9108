//! Reloads that succeed.
//!
//! - The root and its hard dependents that are ready are built on each other's new instances, and
//!   all of them are current at one instant. Until then the old ones serve.
//! - The generations stay, and the revisions grow by one. Each member has one event.
//! - What the root is built from is not built again.
//! - Two reads, one before the switch and one after it, can find two configurations. `get_all` does
//!   not.
//! - A reload begins at its first poll. The status says which service is built aside.
//! - A check builds all, and changes nothing.
//! - A member that was replaced, and a dependent that has become ready, let it begin anew; not more
//!   than 16 times.
//! - Each member is built once, whatever their number.

use super::*;
use crate::{supervising::runtime::ms, support::poll_once};
use mainstay::{
    EventKind, Guard, Instance, Observer, Registry,
    supervise::{Live, ReloadWait},
};

#[test]
fn a_chain_is_switched_at_once_when_its_last_member_is_built() {
    let (mut runtime, [config, pool, server]) = chain();
    config.1.set(2);
    for ((_, source), takes) in [(&config, 10), (&pool, 20), (&server, 30)] {
        source.takes(ms(takes));
    }
    let reload = reload(&mut runtime, &config);
    for _ in 0..6 {
        let old = [Some(1), Some(11), Some(111)];
        assert_eq!(values(&runtime, [&config, &pool, &server]), old);
        assert!(!reload.is_over());
        runtime.advance(ms(10));
    }
    assert_eq!(values(&runtime, [&config, &pool, &server]), [Some(2), Some(12), Some(112)]);
    let reloaded = reload.take().unwrap();
    let members: Vec<_> = reloaded
        .members
        .iter()
        .map(|it| (&*it.service, it.generation.get(), it.from, it.to, it.build_took))
        .collect();
    let expected =
        [("config", 1, 0, 1, ms(10)), ("pool", 1, 0, 1, ms(30)), ("server", 1, 0, 1, ms(60))];
    assert_eq!(members, expected);
    assert_eq!((reloaded.tries, reloaded.switch_took), (1, Some(ms(0))));
    for member in [&config, &pool, &server] {
        assert_eq!(numbers(&runtime, member), (1, 1));
        assert_eq!(member.1.builds(), 3);
    }
    let from = runtime.registry.get_arc(server.0).unwrap();
    assert_eq!(Instance::built_from(&from)[0].revision, 1);
    let mut events = events(&runtime);
    events.sort();
    assert_eq!(events, ["config 1: replaced", "pool 1: replaced", "server 1: replaced"]);
}

#[test]
fn two_reads_around_a_switch_find_two_configurations_and_one_of_both_does_not() {
    let (mut runtime, [config, pool, _]) = chain();
    config.1.set(2);
    let registry = runtime.registry.clone();
    let before = registry.get(pool.0).unwrap();
    reload(&mut runtime, &config).take().unwrap();
    assert_eq!((*before, *registry.get(config.0).unwrap()), (11, 2));
    let (pool, config) = registry.get_all((pool.0, config.0)).unwrap();
    assert_eq!((*pool, *config), (12, 2));
}

#[test]
fn a_reload_builds_nothing_below_its_root_and_can_be_repeated() {
    let (mut runtime, [config, pool, server]) = chain();
    for value in [20, 30] {
        pool.1.set(value);
        let reloaded = reload(&mut runtime, &pool).take().unwrap();
        assert_eq!(reloaded.members.len(), 2);
        let new = [Some(1), Some(value + 1), Some(value + 101)];
        assert_eq!(values(&runtime, [&config, &pool, &server]), new);
    }
    assert_eq!((config.1.builds(), pool.1.builds()), (2, 4));
    assert_eq!(numbers(&runtime, &pool), (1, 2));
    // A failure after a reload fails what is built from the new instances.
    runtime.registry.fail(config.0, "edited").unwrap();
    assert_eq!(values(&runtime, [&config, &pool, &server]), [None; 3]);
    runtime.advance(ms(200));
    assert_eq!(values(&runtime, [&config, &pool, &server]), [Some(1), Some(31), Some(131)]);
}

/// Reads two services together in each event.
struct ReadsBoth([ServiceId<u32>; 2]);

impl Observer for ReadsBoth {
    fn event(&self, registry: &Registry, event: &mainstay::Event<'_>) {
        let [left, right] = self.0;
        if let EventKind::Replaced = event.kind {
            let (left, right) = registry.get_all((left, right)).unwrap();
            assert_eq!(*left, *right);
            assert_eq!((Guard::revision(&left), Guard::revision(&right)), (1, 1));
        }
    }
}

#[test]
fn a_diamond_is_built_once_and_read_consistently() {
    let mut runtime = TestRuntime::new();
    let base = supervise(&mut runtime, "base", &[]);
    let left = supervise(&mut runtime, "left", &[base.0]);
    let right = supervise(&mut runtime, "right", &[base.0]);
    let top = supervise(&mut runtime, "top", &[left.0, right.0]);
    let observer = runtime.registry.observe(ReadsBoth([left.0, right.0]));
    base.1.set(7);
    right.1.takes(ms(10));
    let reload = reload(&mut runtime, &base);
    assert_eq!(values(&runtime, [&base, &left, &right, &top]), [Some(0); 4]);
    runtime.advance(ms(10));
    let new = [Some(7), Some(7), Some(7), Some(14)];
    assert_eq!(values(&runtime, [&base, &left, &right, &top]), new);
    assert_eq!(reload.take().unwrap().members.len(), 4);
    for member in [&base, &left, &right, &top] {
        assert_eq!(member.1.builds(), 2);
    }
    drop(observer);
}

#[test]
fn nothing_begins_before_the_first_poll() {
    let (mut runtime, [config, ..]) = chain();
    let builds = config.1.builds();
    let wait = runtime.registry.reload(config.0);
    let check = runtime.registry.check_reload(config.0);
    runtime.run_until_idle();
    assert_eq!(config.1.builds(), builds);
    drop((wait, check));
    runtime.run_until_idle();
    assert_eq!(config.1.builds(), builds);
}

#[test]
fn the_status_says_which_services_are_built_aside() {
    let (mut runtime, [config, pool, server]) = chain();
    pool.1.takes(ms(5_000));
    let line =
        |runtime: &TestRuntime, of: &Supervised| runtime.registry.status(of.0).unwrap().to_string();
    let reload = reload(&mut runtime, &config);
    runtime.advance(ms(2_000));
    assert_eq!(line(&runtime, &config), "config: ready, reloading with config");
    assert_eq!(line(&runtime, &pool), "pool: ready, reloading with config");
    assert_eq!(line(&runtime, &server), "server: ready, reloading with config, waiting for pool");
    let built = [&config, &pool, &server].map(|(id, _)| {
        let reloading = runtime.supervisor_status(*id).reloading.unwrap();
        assert_eq!((&*reloading.root, reloading.lasts), ("config", Some(ms(2_000))));
        assert!(!reloading.is_check);
        reloading.built
    });
    assert_eq!(built, [true, false, false]);
    let record = mainstay::ListingRecord::from(&runtime.registry.list());
    let record = record.get("server").unwrap();
    assert_eq!(record.to_string(), line(&runtime, &server));
    runtime.advance(ms(3_000));
    assert!(reload.is_over());
    for of in [&config, &pool, &server] {
        assert_eq!(runtime.supervisor_status(of.0).reloading, None);
    }
}

#[test]
fn a_check_builds_all_members_and_changes_nothing() {
    let (mut runtime, [config, pool, server]) = chain();
    config.1.set(2);
    pool.1.takes(ms(20));
    let check = runtime.registry.check_reload(config.0);
    let check = begin(&mut runtime, check);
    assert!(runtime.supervisor_status(config.0).reloading.unwrap().is_check);
    runtime.advance(ms(20));
    let checked = check.take().unwrap();
    let checked: Vec<_> = checked.members.iter().map(|it| (&*it.service, it.build_took)).collect();
    assert_eq!(checked, [("config", ms(0)), ("pool", ms(20)), ("server", ms(20))]);
    assert_eq!(values(&runtime, [&config, &pool, &server]), [Some(1), Some(11), Some(111)]);
    assert_eq!(numbers(&runtime, &config), (1, 0));

    pool.1.fails("no memory");
    let check = runtime.registry.check_reload(config.0);
    let check = begin(&mut runtime, check);
    runtime.advance(ms(20));
    let error = check.take().unwrap_err();
    assert!(matches!(error, ReloadError::Refused { service, .. } if service == "pool"));
    assert_eq!(values(&runtime, [&config, &pool, &server]), [Some(1), Some(11), Some(111)]);
    assert_eq!(runtime.supervisor_status(config.0).stale, None);
    assert_eq!(events(&runtime), Vec::<String>::new());
    for member in [&config, &pool, &server] {
        assert_eq!(member.1.present(), 0);
    }
}

/// Supervises a service whose handle the test has.
pub(super) fn with_handle(runtime: &mut TestRuntime, name: &str) -> (ServiceId<u32>, Live<u32>) {
    let id = runtime.service(name);
    let handle = Arc::<Mutex<Option<Live<u32>>>>::default();
    let stored = Arc::clone(&handle);
    let supervisor = runtime.registry.supervise(id).unwrap().body(async move |live: Live<u32>| {
        *stored.lock().unwrap() = Some(live.clone());
        live.stopping().await.map(drop)
    });
    runtime.spawn(supervisor.run(async |_: Build<u32>| 1));
    runtime.run_until_idle();
    let live = handle.lock().unwrap().take().unwrap();
    (id, live)
}

#[test]
fn a_member_that_was_replaced_lets_the_reload_begin_anew() {
    let mut runtime = TestRuntime::new();
    let (config, live) = with_handle(&mut runtime, "config");
    let pool = supervise(&mut runtime, "pool", &[config]);
    pool.1.takes(ms(100));
    let wait = runtime.registry.reload(config);
    let reload = begin(&mut runtime, wait);
    runtime.advance(ms(50));
    live.replace(5).unwrap();
    runtime.advance(ms(50));
    assert!(!reload.is_over(), "the switch was not possible");
    assert_eq!(runtime.get(config), Some(5));
    runtime.advance(ms(100));
    assert_eq!(reload.take().unwrap().tries, 2);
    assert_eq!((runtime.get(config), runtime.get(pool.0)), (Some(1), Some(1)));
    assert_eq!(pool.1.builds(), 3);
}

#[test]
fn a_reload_ends_if_a_member_keeps_changing() {
    let mut runtime = TestRuntime::new();
    let (config, live) = with_handle(&mut runtime, "config");
    let pool = supervise(&mut runtime, "pool", &[config]);
    pool.1.takes(ms(10));
    let wait = runtime.registry.reload(config);
    let reload = begin(&mut runtime, wait);
    for value in 0..16 {
        assert!(!reload.is_over());
        live.replace(value).unwrap();
        runtime.advance(ms(10));
    }
    let error = reload.take().unwrap_err();
    let text = "config was not reloaded: config has changed before the switch (tries: 16)";
    assert_eq!(error.to_string(), text);
    assert_eq!((runtime.get(config), pool.1.builds()), (Some(15), 17));
    assert_eq!(pool.1.present(), 0);
}

#[test]
fn a_dependent_that_becomes_ready_is_a_member_of_the_next_try() {
    let (mut runtime, [config, pool, server]) = chain();
    pool.1.takes(ms(100));
    let reload = reload(&mut runtime, &config);
    let other = supervise(&mut runtime, "other", &[config.0]);
    assert_eq!(runtime.get(other.0), Some(1));
    config.1.set(2);
    runtime.advance(ms(100));
    assert!(!reload.is_over());
    assert_eq!(values(&runtime, [&config, &other]), [Some(1), Some(1)]);
    runtime.advance(ms(100));
    let reloaded = reload.take().unwrap();
    assert_eq!((reloaded.tries, reloaded.members.len()), (2, 4));
    let new = [Some(2), Some(12), Some(112), Some(2)];
    assert_eq!(values(&runtime, [&config, &pool, &server, &other]), new);
}

#[test]
fn a_dependent_that_is_down_is_no_member_and_builds_on_the_new_instance() {
    let (mut runtime, [config, pool, server]) = chain();
    server.1.fails("no port is free");
    runtime.registry.fail(server.0, "closed").unwrap();
    runtime.run_until_idle();
    config.1.set(2);
    let reloaded = reload(&mut runtime, &config).take().unwrap();
    assert_eq!(reloaded.members.len(), 2);
    server.1.fails(None);
    runtime.advance(ms(1_000));
    assert_eq!(values(&runtime, [&config, &pool, &server]), [Some(2), Some(12), Some(112)]);
}

#[test]
fn each_of_many_members_is_built_once() {
    const MANY: usize = 1_000;
    let mut runtime = TestRuntime::with_capacity(MANY);
    let root = supervise(&mut runtime, "root", &[]);
    let mut all = vec![root.clone()];
    for i in 1..MANY {
        // A chain of stars: each tenth service has ten dependents.
        let from = all[(i - 1) / 10 * 10].0;
        let id = runtime.service(&format!("{i}"));
        runtime.registry.depends(id).on(from).unwrap();
        let (source, clock) = (Source::default(), runtime.clock.clone());
        let content = source.clone();
        runtime.supervise(id, exact(), move |it| {
            build(it, content.clone(), vec![from], clock.clone())
        });
        all.push((id, source));
    }
    runtime.run_until_idle();
    root.1.set(3);
    let reloaded = reload(&mut runtime, &root).take().unwrap();
    assert_eq!(reloaded.members.len(), MANY);
    for member in &all {
        assert_eq!((runtime.get(member.0), member.1.builds()), (Some(3), 2));
    }
}

#[test]
fn members_are_registered_in_any_order() {
    let mut runtime = TestRuntime::new();
    let [server, pool, config] = ["server", "pool", "config"].map(|name| runtime.service(name));
    for (id, from) in [(config, None), (pool, Some(config)), (server, Some(pool))] {
        let mut builds = 0;
        runtime.supervise(id, exact(), move |build| {
            builds += 1;
            let number = builds;
            async move {
                Ok::<_, BoxError>(match from {
                    Some(from) => **build.wait_for(from).await?,
                    None => number,
                })
            }
        });
    }
    runtime.run_until_idle();
    for value in [2, 3] {
        let wait = runtime.registry.reload(config);
        begin(&mut runtime, wait).take().unwrap();
        assert_eq!([config, pool, server].map(|id| runtime.get(id)), [Some(value); 3]);
    }
}

#[test]
fn the_edges_are_those_of_the_new_instance() {
    let mut runtime = TestRuntime::new();
    let [old, new] = ["old", "new"].map(|name| supervise(&mut runtime, name, &[]));
    let (id, from) = (runtime.service("a"), [old.0, new.0]);
    runtime.supervise(id, exact(), move |build| async move {
        let from = from[usize::from(build.is_reload())];
        build.wait_for(from).await.map(|value| **value)
    });
    runtime.run_until_idle();
    let wait = runtime.registry.reload(id);
    begin(&mut runtime, wait).take().unwrap();
    let dependencies = runtime.registry.status(id).unwrap().dependencies;
    assert_eq!(dependencies.iter().map(|it| &*it.name).collect::<Vec<_>>(), ["new"]);
    runtime.registry.fail(old.0, "edited").unwrap();
    assert_eq!(runtime.get(id), Some(0));
    runtime.registry.fail(new.0, "edited").unwrap();
    assert_eq!(runtime.get(id), None);
}

#[test]
fn a_replacement_of_a_dependency_changes_nothing() {
    let mut runtime = TestRuntime::new();
    let (base, live) = with_handle(&mut runtime, "base");
    let pool = supervise(&mut runtime, "pool", &[base]);
    pool.1.takes(ms(10));
    let reload = reload(&mut runtime, &pool);
    live.replace(5).unwrap();
    runtime.advance(ms(10));
    assert_eq!(reload.take().unwrap().tries, 1);
    assert_eq!(runtime.get(pool.0), Some(1), "as after each replacement");
}

#[test]
fn attempts_with_an_old_instance_begin_anew() {
    let mut runtime = TestRuntime::new();
    let config = supervise(&mut runtime, "config", &[]);
    let builds = ["hard", "start_only"].map(|name| {
        let (id, from, clock) = (runtime.service(name), config.0, runtime.clock.clone());
        if name == "start_only" {
            runtime.registry.depends(id).to_start_on(from).unwrap();
        }
        let begun = Arc::<Mutex<u32>>::default();
        let count = Arc::clone(&begun);
        runtime.supervise(id, exact(), move |build| {
            *count.lock().unwrap() += 1;
            let clock = clock.clone();
            async move {
                let value = match name {
                    "hard" => **build.wait_for(from).await?,
                    _ => **build.wait_to_start(from).await?,
                };
                clock.sleep_until(clock.now() + ms(20)).await;
                Ok::<_, BoxError>(value)
            }
        });
        (id, begun)
    });
    runtime.advance(ms(10));
    runtime.recorder.take();
    config.1.set(2);
    reload(&mut runtime, &config).take().unwrap();
    let events = events(&runtime);
    assert_eq!(events[0], "hard 0: stopped: config was reloaded");
    runtime.advance(ms(20));
    let [hard, start_only] = builds;
    let begun = |of: &(ServiceId<u32>, Arc<Mutex<u32>>)| *of.1.lock().unwrap();
    assert_eq!((begun(&hard), runtime.get(hard.0)), (2, Some(2)));
    assert_eq!(runtime.supervisor_status(hard.0).failures, 0);
    // For an edge that the instance does not have, a reload is a replacement.
    assert_eq!((begun(&start_only), runtime.get(start_only.0)), (1, Some(0)));
}

/// Begins a reload of a service when its first instance is published.
#[derive(Clone, Default)]
struct ReloadsAtOnce(Arc<Mutex<Option<(ReloadWait, bool)>>>);

impl Observer for ReloadsAtOnce {
    fn event(&self, registry: &Registry, event: &mainstay::Event<'_>) {
        let has_begun = self.0.lock().unwrap().is_some();
        if matches!(event.kind, EventKind::Ready) && !has_begun {
            let mut wait = registry.reload(registry.find("a").unwrap());
            let is_pending = poll_once(&mut wait).is_pending();
            *self.0.lock().unwrap() = Some((wait, is_pending));
        }
    }
}

#[test]
fn a_service_is_reloaded_before_its_supervisor_has_reported_that_it_is_up() {
    let mut runtime = TestRuntime::new();
    let observer = ReloadsAtOnce::default();
    let handle = runtime.registry.observe(observer.clone());
    let a = supervise(&mut runtime, "a", &[]);
    let (wait, has_begun) = observer.0.lock().unwrap().take().unwrap();
    assert!(has_begun);
    begin(&mut runtime, wait).take().unwrap();
    assert_eq!(numbers(&runtime, &a), (0, 1));
    drop(handle);
}

#[test]
fn an_attempt_that_has_received_two_old_instances_begins_anew() {
    let mut runtime = TestRuntime::new();
    let config = supervise(&mut runtime, "config", &[]);
    let pool = supervise(&mut runtime, "pool", &[config.0]);
    let late = supervise(&mut runtime, "late", &[config.0, pool.0]);
    for service in [&config, &pool] {
        service.1.set(1);
    }
    runtime.registry.fail(late.0, "edited").unwrap();
    late.1.takes(Duration::from_secs(1));
    runtime.advance(exact_backoff());
    assert_eq!((late.1.present(), runtime.get(late.0)), (1, None));
    // The reload ends this attempt because of each of them.
    let reloaded = reload(&mut runtime, &config).take().unwrap();
    assert_eq!(reloaded.members.len(), 2);
    assert_eq!(late.1.present(), 1);
    runtime.advance(Duration::from_secs(1));
    assert_eq!(values(&runtime, [&config, &pool, &late]), [Some(1), Some(2), Some(3)]);
}
