//! What a reload shows, and the limits on builds.
//!
//! - Builds aside, and the restarts of services with a gap, run within the limits, and use them.
//! - The status, the listing and its graph say which services are built aside, and which ones are
//!   going to restart.

use super::*;
use crate::supervising::runtime::ms;

/// A root, and `pools` dependents of it that take 10 ms to build.
fn pools(runtime: &mut TestRuntime, pools: usize) -> (Supervised, Vec<Supervised>) {
    let root = supervise(runtime, "root", &[]);
    let pools: Vec<_> =
        (0..pools).map(|i| supervise(runtime, &format!("pool {i}"), &[root.0])).collect();
    pools.iter().for_each(|(_, source)| source.takes(ms(10)));
    (root, pools)
}

fn present(pools: &[Supervised]) -> u32 {
    pools.iter().map(|(_, source)| source.present()).sum()
}

#[test]
fn builds_aside_run_within_the_limit_and_use_it() {
    let mut runtime = TestRuntime::new();
    let (root, pools) = pools(&mut runtime, 6);
    runtime.registry.limit_builds(pools.iter().map(|it| it.0), 2).unwrap();
    root.1.set(5);
    let reload = reload(&mut runtime, &root);
    for _ in 0..3 {
        assert!(!reload.is_over());
        let built = |it: &&Supervised| it.1.present() == 1;
        assert_eq!(pools.iter().filter(built).count(), 2);
        assert_eq!(present(&pools), 2);
        runtime.advance(ms(10));
    }
    assert_eq!(reload.take().unwrap().members.len(), 7);
    assert!(pools.iter().all(|it| runtime.get(it.0) == Some(5)));
}

#[test]
fn a_chain_is_built_aside_within_a_limit_of_one() {
    let (mut runtime, [config, pool, server]) = super::chain();
    let all = [&config, &pool, &server].map(|it| it.0);
    runtime.registry.limit_builds(all, 1).unwrap();
    for (_, source) in [&config, &pool, &server] {
        source.takes(ms(10));
    }
    config.1.set(2);
    let reload = reload(&mut runtime, &config);
    runtime.advance(ms(10));
    runtime.advance(ms(10));
    assert!(!reload.is_over());
    runtime.advance(ms(10));
    assert!(reload.take().is_ok(), "a build that waits for another one holds no place");
    assert_eq!(values(&runtime, [&config, &pool, &server]), [Some(2), Some(12), Some(112)]);
}

#[test]
fn a_build_aside_waits_for_a_place_as_every_build() {
    let mut runtime = TestRuntime::new();
    let [a, b] = ["a", "b"].map(|name| supervise(&mut runtime, name, &[]));
    runtime.registry.limit_builds([a.0, b.0], 1).unwrap();
    for (_, source) in [&a, &b] {
        source.takes(ms(10));
    }
    // An ordinary build has the place.
    runtime.registry.fail(a.0, "closed").unwrap();
    runtime.advance(exact_backoff());
    let reload = reload(&mut runtime, &b);
    assert_eq!((a.1.present(), b.1.present()), (1, 0));
    runtime.advance(ms(10));
    assert_eq!((a.1.present(), b.1.present()), (0, 1));
    // It is dropped with its place.
    reload.task.cancel();
    runtime.run_until_idle();
    runtime.registry.fail(a.0, "closed").unwrap();
    runtime.advance(ms(200));
    assert_eq!((a.1.present(), b.1.present()), (1, 0));
}

#[test]
fn restarts_at_the_switch_run_within_the_limit() {
    let mut runtime = TestRuntime::new();
    let root = supervise_with(&mut runtime, "root", &[], Supervisor::exclusive);
    let pools: Vec<_> =
        (0..4).map(|i| supervise(&mut runtime, &format!("pool {i}"), &[root.0])).collect();
    pools.iter().for_each(|(_, source)| source.takes(ms(10)));
    runtime.registry.limit_builds(pools.iter().map(|it| it.0), 2).unwrap();
    let reload = reload(&mut runtime, &root);
    assert_eq!(present(&pools), 2);
    runtime.advance(ms(10));
    assert_eq!((present(&pools), reload.is_over()), (2, false));
    runtime.advance(ms(10));
    assert!(reload.take().unwrap().restarted.iter().all(|it| it.not_ready.is_none()));
}

#[test]
fn the_listing_and_its_graph_show_a_reload() {
    let mut runtime = TestRuntime::new();
    let config = supervise(&mut runtime, "config", &[]);
    let pool = supervise(&mut runtime, "pool", &[config.0]);
    supervise_with(&mut runtime, "port", &[config.0], Supervisor::exclusive);
    config.1.takes(ms(50));
    let reload = reload(&mut runtime, &config);
    let lines = |runtime: &TestRuntime| -> Vec<String> {
        runtime.registry.list().services.iter().map(ToString::to_string).collect()
    };
    let expected = [
        "config: ready, reloading with config",
        "pool: ready, reloading with config, waiting for config",
        "port: ready, restarts when config is reloaded",
    ];
    assert_eq!(lines(&runtime), expected);
    let dot = runtime.registry.list().to_dot();
    for line in [
        r#"label="config\nready, generation 0\nreloading with config""#,
        r#"label="port\nready, generation 0\nrestarts when config is reloaded""#,
    ] {
        assert!(dot.contains(line), "{dot}");
    }
    let status = runtime.supervisor_status(pool.0).reloading.unwrap();
    assert_eq!((status.restarts, status.built, status.lasts), (false, false, Some(ms(0))));
    runtime.advance(ms(50));
    assert!(reload.take().is_ok());
    assert_eq!(lines(&runtime), ["config: ready", "pool: ready", "port: ready"]);

    // A check restarts nothing.
    let wait = runtime.registry.check_reload(config.0);
    begin(&mut runtime, wait);
    let expected = ["config: ready, checking a reload with config", "port: ready"];
    let lines = lines(&runtime);
    assert_eq!([lines[0].as_str(), lines[2].as_str()], expected);
}
