//! Statuses, the listing and the graph.
//!
//! - The listing shows for each service, in the order of registration: its phase, generation,
//!   type, edges, last failure, whether it has a provider, and the number of its waiters.
//! - The listing can be serialised. The graph can be drawn, with an arrow for each edge.
//! - The listing may be read while the registry changes.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::SystemTime,
};

use crate::support::{poll_once, publish, publish_from, up};
use mainstay::{Phase, Registry, ServiceId, error::chain};

struct Program {
    registry: Registry,
    config: ServiceId<u32>,
    database: ServiceId<u32>,
    cache: ServiceId<String>,
}

/// `cache` -> `database` -> `config`: the first edge is declared, the second one will be
/// discovered. `other` has no edge.
fn program() -> Program {
    let mut builder = Registry::builder(8).unwrap();
    let config = builder.register("config").unwrap();
    let database = builder.register("database").unwrap();
    let cache = builder.register("cache").unwrap();
    builder.register::<()>("other").unwrap();
    builder.depends(cache).on(database).unwrap();
    Program { registry: builder.build(), config, database, cache }
}

#[test]
fn the_listing_shows_phase_generation_edges_and_failure_of_each_service() {
    let Program { registry, config, database, cache } = program();
    let before = SystemTime::now();
    let (_provide_config, running_config) = up(&registry, config, 1);
    let provider = registry.provide(database).unwrap();
    let running = publish_from(&provider, config, 1);
    let (_provide_cache, _running_cache) = up(&registry, cache, "cached".to_string());
    running.fail("lost");
    let attempt = provider.begin().wait_blocking().unwrap();
    let mut wait = registry.wait_ready(cache);
    assert!(poll_once(&mut wait).is_pending());

    let listing = registry.list();
    let names: Vec<_> = listing.services.iter().map(|service| &*service.name).collect();
    assert_eq!(names, ["config", "database", "cache", "other"]);
    assert!(listing.get("none").is_none());
    let name = &listing.services[0].name;
    assert!(*name == "config" && *name == *"config" && *name != "database" && *name != *"database");

    let of = |name| listing.get(name).unwrap();
    let life =
        |name| (of(name).phase, of(name).generation.get(), of(name).has_provider, of(name).waiters);
    assert_eq!(life("config"), (Phase::Ready, 0, true, 0));
    assert_eq!(life("database"), (Phase::Starting, 1, true, 0));
    assert_eq!(life("cache"), (Phase::Down, 1, true, 1));
    assert_eq!(life("other"), (Phase::Down, 0, false, 0));
    assert_eq!(of("config").id, config.into());
    assert_eq!((of("config").type_name, of("other").type_name), ("u32", "()"));

    let edges = |name| -> Vec<_> {
        of(name).dependencies.iter().map(|edge| (&*edge.name, edge.declared)).collect()
    };
    assert_eq!((edges("config"), edges("other")), (vec![], vec![]));
    assert_eq!(edges("database"), [("config", false)]);
    assert_eq!(edges("cache"), [("database", true)]);
    assert_eq!(of("config").dependents, ["database"]);
    assert_eq!(of("database").dependents, ["cache"]);

    assert!(of("config").last_failure.is_none() && of("other").last_failure.is_none());
    let failure = of("cache").last_failure.as_ref().unwrap();
    assert_eq!(chain(failure).to_string(), "cache failed because database failed: lost");
    assert_eq!((failure.generation.get(), failure.root_generation.get()), (0, 0));
    assert!(before <= failure.at && failure.at <= SystemTime::now());
    drop((attempt, running_config));
}

#[test]
fn the_graph_has_a_node_for_each_service_and_an_arrow_for_each_edge() {
    let Program { registry, config, database, cache } = program();
    let provide_config = registry.provide(config).unwrap();
    let _config = publish(&provide_config, 1);
    let provide_database = registry.provide(database).unwrap();
    let _database = publish_from(&provide_database, config, 1);
    let _starting =
        registry.provide(cache).map(|p| p.begin().wait_blocking().map(|a| (a, p))).unwrap();
    let dot = registry.list().to_dot();
    assert!(dot.starts_with("digraph") && dot.ends_with("}\n"), "{dot}");
    assert!(dot.contains(r#""database" -> "config" [style=dashed];"#), "{dot}");
    assert!(dot.contains(r#""cache" -> "database" [style=solid];"#), "{dot}");
    assert_eq!(dot.matches("->").count(), 2);
    for service in &registry.list().services {
        let label = format!(
            r#"label="{}\n{}, generation {}""#,
            service.name, service.phase, service.generation
        );
        assert!(dot.contains(&label), "{dot} has no {label}");
    }
}

/// "backing off" is printed, and "backing-off" is serialised.
#[cfg(all(feature = "serde", feature = "supervise"))]
#[test]
fn supervisor_states_are_serialised_in_kebab_case() {
    use mainstay::supervise::SupervisorState;

    for state in [
        SupervisorState::NotRunning,
        SupervisorState::Up,
        SupervisorState::BackingOff,
        SupervisorState::GivenUp,
    ] {
        let printed = state.to_string().replace(' ', "-");
        assert_eq!(serde_json::to_value(state).unwrap(), printed);
    }
}

#[cfg(feature = "serde")]
#[test]
fn the_listing_can_be_serialised_as_json() {
    let Program { registry, config, database, .. } = program();
    let (_provider, running) = up(&registry, config, 1);
    let provider = registry.provide(database).unwrap();
    let _database = publish_from(&provider, config, 1);
    running.fail("lost \"it\"");
    let json = serde_json::to_value(registry.list()).unwrap();
    let services = json["services"].as_array().unwrap();
    assert_eq!(services.len(), 4);
    let database = &services[1];
    assert_eq!(database["name"], "database");
    assert_eq!(database["type_name"], "u32");
    assert_eq!(database["phase"], "down");
    assert_eq!(database["generation"], 1);
    assert_eq!(database["has_provider"], true);
    assert_eq!(database["waiters"], 0);
    assert_eq!(database["dependencies"][0]["name"], "config");
    assert_eq!(database["dependencies"][0]["declared"], false);
    assert_eq!(database["dependents"][0], "cache");
    let failure = &database["last_failure"];
    assert_eq!((&failure["service"], &failure["root"]), (&"database".into(), &"config".into()));
    assert_eq!((&failure["generation"], &failure["root_generation"]), (&0.into(), &0.into()));
    assert_eq!(failure["reason"], "lost \"it\"");
    assert!(services[3]["last_failure"].is_null());
    assert!(database.get("id").is_none() && database["dependencies"][0].get("id").is_none());
}

#[test]
fn the_listing_is_consistent_while_services_change() {
    let Program { registry, config, database, .. } = program();
    let (done, listed) = (&AtomicBool::new(false), &AtomicBool::new(false));
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut last = 0;
            while !done.load(Ordering::Relaxed) {
                let listing = registry.list();
                assert_eq!(listing.services.len(), 4);
                let database = listing.get("database").unwrap();
                assert!(database.generation.get() >= last, "a generation decreased");
                last = database.generation.get();
                if let Some(failure) = &database.last_failure {
                    assert_eq!(failure.service, "database");
                    assert!(["config", "database"].contains(&&*failure.root));
                }
                assert!(listing.to_dot().len() > 100);
                listing.blockers("cache");
                listed.store(true, Ordering::Relaxed);
            }
        });
        let provide_config = registry.provide(config).unwrap();
        let provider = registry.provide(database).unwrap();
        // On a busy machine the reader may begin late.
        let is_early = || !listed.load(Ordering::Relaxed) && !reader.is_finished();
        for i in (0..).take_while(|&i| i < 500 || is_early()) {
            let running = publish(&provide_config, i);
            let _database = publish_from(&provider, config, i);
            drop(provide_config.begin());
            running.fail("next");
            drop(provider.begin().wait_blocking().unwrap());
        }
        done.store(true, Ordering::Relaxed);
        reader.join().unwrap();
    });
}
