//! Looking in: statuses, the listing, the graph.
//!
//! - The listing says of each service, in the order of registration, its phase, generation, type, edges, last
//!   failure, whether it is provided, and how many wait for it.
//! - `blockers` names what is not ready at the bottom of what a service depends on.
//! - All of it can be serialised; the graph can be drawn, its arrows running the way a failure does.
//! - It may be looked at while everything changes.

mod support;

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::SystemTime,
};

use mainstay::{Phase, Registry, ServiceId};
use support::{again, again_from, poll_once, up};

struct Program {
    registry: Registry,
    config: ServiceId<u32>,
    database: ServiceId<u32>,
    cache: ServiceId<String>,
}

/// cache -> database -> config, the first edge declared, the second to be discovered; and one beside them.
fn program() -> Program {
    let mut builder = Registry::builder(8).unwrap();
    let config = builder.register("config").unwrap();
    let database = builder.register("database").unwrap();
    let cache = builder.register("cache").unwrap();
    builder.register::<()>("other").unwrap();
    builder.add_dependency(cache, database).unwrap();
    Program { registry: builder.build(), config, database, cache }
}

#[test]
fn statuses() {
    let Program { registry, config, database, cache } = program();
    let before = SystemTime::now();
    let (_provide_config, running_config) = up(&registry, config, 1);
    let provider = registry.provide(database).unwrap();
    let running = again_from(&provider, config, 1);
    let (_provide_cache, _running_cache) = up(&registry, cache, "cached".to_string());
    running.fail("lost");
    let attempt = provider.begin().wait().unwrap();
    let mut wait = registry.wait_ready(cache);
    assert!(poll_once(&mut wait).is_pending());

    let listing = registry.list();
    let names: Vec<_> = listing.services.iter().map(|service| &*service.name).collect();
    assert_eq!(names, ["config", "database", "cache", "other"]);
    assert!(listing.get("none").is_none());
    let name = &listing.services[0].name;
    assert!(*name == "config" && *name == *"config" && *name != "database" && *name != *"database");

    let of = |name| listing.get(name).unwrap();
    let life = |name| (of(name).phase, of(name).generation, of(name).provided, of(name).waiting);
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
    assert_eq!(failure.to_string(), "cache went down with database: lost");
    assert_eq!((failure.generation, failure.root_generation), (0, 0));
    assert!(before <= failure.at && failure.at <= SystemTime::now());
    drop((attempt, running_config));
}

#[test]
fn blockers() {
    let Program { registry, config, database, cache } = program();
    let blockers = |name| -> Vec<String> {
        registry.list().blockers(name).iter().map(|service| service.name.to_string()).collect()
    };
    registry.add_dependency(database, config).unwrap();
    assert_eq!(blockers("cache"), ["config"]);
    assert_eq!(blockers("config"), ["config"]);
    let _config = up(&registry, config, 1);
    assert_eq!(blockers("cache"), ["database"]);
    assert_eq!(blockers("config"), [""; 0]);
    assert_eq!(blockers("none"), [""; 0]);
    let other = registry.find("other").unwrap();
    registry.add_dependency(cache, other).unwrap();
    let mut both = blockers("cache");
    both.sort();
    assert_eq!(both, ["database", "other"]);
}

#[test]
fn drawn() {
    let Program { registry, config, database, cache } = program();
    let provide_config = registry.provide(config).unwrap();
    let _config = again(&provide_config, 1);
    let provide_database = registry.provide(database).unwrap();
    let _database = again_from(&provide_database, config, 1);
    let _starting = registry.provide(cache).map(|p| p.begin().wait().map(|a| (a, p))).unwrap();
    let dot = registry.list().to_dot();
    assert!(dot.starts_with("digraph") && dot.ends_with("}\n"), "{dot}");
    assert!(dot.contains(r#""config" -> "database" [style=dashed];"#), "{dot}");
    assert!(dot.contains(r#""database" -> "cache" [style=solid];"#), "{dot}");
    assert_eq!(dot.matches("->").count(), 2);
    for service in &registry.list().services {
        let label = format!(
            r#"label="{}\n{}, generation {}""#,
            service.name, service.phase, service.generation
        );
        assert!(dot.contains(&label), "{dot} has no {label}");
    }
}

#[cfg(feature = "serde")]
#[test]
fn serialised() {
    let Program { registry, config, database, .. } = program();
    let (_provider, running) = up(&registry, config, 1);
    let provider = registry.provide(database).unwrap();
    let _database = again_from(&provider, config, 1);
    running.fail("lost \"it\"");
    let json = serde_json::to_value(registry.list()).unwrap();
    let services = json["services"].as_array().unwrap();
    assert_eq!(services.len(), 4);
    let database = &services[1];
    assert_eq!(database["name"], "database");
    assert_eq!(database["type_name"], "u32");
    assert_eq!(database["phase"], "down");
    assert_eq!(database["generation"], 1);
    assert_eq!(database["provided"], true);
    assert_eq!(database["waiting"], 0);
    assert_eq!(database["dependencies"][0]["name"], "config");
    assert_eq!(database["dependencies"][0]["declared"], false);
    assert_eq!(database["dependents"][0], "cache");
    let failure = &database["last_failure"];
    assert_eq!((&failure["service"], &failure["root"]), (&"database".into(), &"config".into()));
    assert_eq!((&failure["generation"], &failure["root_generation"]), (&0.into(), &0.into()));
    assert_eq!(failure["reason"], "lost \"it\"");
    assert!(failure["at"].as_f64().unwrap() > 1.6e9, "seconds since 1970");
    assert!(services[3]["last_failure"].is_null());

    let mut failure = registry.status(config).unwrap().last_failure.unwrap();
    failure.at = SystemTime::UNIX_EPOCH - std::time::Duration::from_millis(1500);
    assert_eq!(serde_json::to_value(failure).unwrap()["at"], -1.5, "a clock may be wrong");
}

#[test]
fn looked_at_while_everything_changes() {
    let Program { registry, config, database, .. } = program();
    let done = &AtomicBool::new(false);
    thread::scope(|scope| {
        let looking = scope.spawn(|| {
            let (mut looks, mut last) = (0, 0);
            while !done.load(Ordering::Relaxed) {
                let listing = registry.list();
                assert_eq!(listing.services.len(), 4);
                let database = listing.get("database").unwrap();
                assert!(database.generation >= last, "a generation went back");
                last = database.generation;
                if let Some(failure) = &database.last_failure {
                    assert_eq!(failure.service, "database");
                    assert!(["config", "database"].contains(&&*failure.root));
                }
                looks += usize::from(listing.to_dot().len() > 100);
                listing.blockers("cache");
            }
            looks
        });
        let provide_config = registry.provide(config).unwrap();
        let provider = registry.provide(database).unwrap();
        for i in 0..500 {
            let running = again(&provide_config, i);
            let _database = again_from(&provider, config, i);
            drop(provide_config.begin());
            running.fail("next");
            drop(provider.begin().wait().unwrap());
        }
        done.store(true, Ordering::Relaxed);
        assert!(looking.join().unwrap() > 0);
    });
}
