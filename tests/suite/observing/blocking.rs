//! Edges in the listing, and what keeps a service from being ready.
//!
//! - The edges of a service are in the order of registration, and each has the id of the service at
//!   its other end.
//! - `blocked_by` is the path to the service that is the reason. Of several dependencies that are
//!   not ready, it contains the one that was registered first. It has at most 64 entries.
//! - `blockers` returns the services that are not ready and have no dependency that is not ready,
//!   each once, in the order of registration.
//! - Neither follows a soft edge, or a dependency that is ready.
//! - All of this is the same in the listing, in a status, and in the error of `wait_all_ready`.
//! - A large registry can be listed.

use std::{collections::BTreeMap, time::Duration};

use crate::support::{Seed, poll_once, registry_of, up};
use mainstay::{
    AnyId, DependencyKind, Listing, Phase, Registry, ServiceId, ServiceStatus, error::AllReadyError,
};

fn names(services: &[&ServiceStatus]) -> Vec<String> {
    services.iter().map(|service| service.name.to_string()).collect()
}

#[test]
fn edges_are_listed_in_the_order_of_registration_with_the_id_of_the_dependency() {
    let (registry, [a, b, c, d]) = registry_of::<u32, 4>(["a", "b", "c", "d"]);
    for (dependent, dependency) in [(d, b), (d, c), (d, a), (c, a), (b, a)] {
        registry.depends(dependent).on(dependency).unwrap();
    }
    let provider = registry.provide(b).unwrap();
    let attempt = provider.begin().wait_blocking().unwrap();
    let _watch = attempt.watch(a).unwrap();

    for status in [registry.list().services.remove(3), registry.status(d).unwrap()] {
        let edges: Vec<(AnyId, &str)> =
            status.dependencies.iter().map(|edge| (edge.id, &*edge.name)).collect();
        assert_eq!(edges, [(a.into(), "a"), (b.into(), "b"), (c.into(), "c")]);
    }
    for status in [registry.list().services.remove(0), registry.status(a).unwrap()] {
        assert_eq!(status.dependents, ["b", "c", "d"]);
        assert_eq!(status.watched_by, ["b"]);
    }
    for status in [registry.list().services.remove(1), registry.status(b).unwrap()] {
        let edges: Vec<(AnyId, DependencyKind)> =
            status.dependencies.iter().map(|edge| (edge.id, edge.kind)).collect();
        assert_eq!(edges, [(a.into(), DependencyKind::Hard), (a.into(), DependencyKind::Soft)]);
    }
}

#[test]
fn blockers_are_the_services_that_no_other_service_blocks() {
    let (registry, [config, other, database, cache]) =
        registry_of::<u32, 4>(["config", "other", "database", "cache"]);
    let blockers = |name| names(&registry.list().blockers(name));
    registry.depends(cache).on(database).unwrap();
    registry.depends(database).on(config).unwrap();
    assert_eq!(blockers("cache"), ["config"]);
    assert_eq!(blockers("config"), ["config"]);
    let _config = up(&registry, config, 1);
    assert_eq!(blockers("cache"), ["database"]);
    assert_eq!(blockers("config"), [""; 0]);
    assert_eq!(blockers("none"), [""; 0]);
    registry.depends(cache).on(other).unwrap();
    assert_eq!(blockers("cache"), ["other", "database"]);
}

#[test]
fn a_blocker_with_many_paths_to_it_is_returned_once() {
    const LAYERS: usize = 200;
    // Each service depends on both services of the layer before: 2^199 paths.
    let mut builder = Registry::builder(2 * LAYERS).unwrap();
    let mut before: Option<[ServiceId<u8>; 2]> = None;
    for layer in 0..LAYERS {
        let layer = ["left", "right"].map(|side| format!("{side} {layer}"));
        let layer = layer.map(|name| builder.register::<u8>(&name).unwrap());
        for dependent in layer {
            for dependency in before.into_iter().flatten() {
                builder.depends(dependent).on(dependency).unwrap();
            }
        }
        before = Some(layer);
    }
    let listing = builder.build().list();
    assert_eq!(names(&listing.blockers("left 199")), ["left 0", "right 0"]);
    let path = &listing.get("right 199").unwrap().blocked_by;
    assert_eq!(path.len(), 64, "the limit of a path");
    assert_eq!((&*path[0], &*path[63]), ("left 198", "left 135"));
}

#[test]
fn soft_edges_and_ready_dependencies_do_not_block() {
    let (registry, [watched, ready, missing, server]) =
        registry_of::<u32, 4>(["watched", "ready", "missing", "server"]);
    let _ready = up(&registry, ready, 1);
    registry.depends(server).on(ready).unwrap();
    let provider = registry.provide(server).unwrap();
    let attempt = provider.begin().wait_blocking().unwrap();
    let _watch = attempt.watch(watched).unwrap();
    let blocked_by = || {
        let (listing, status) = (registry.list(), registry.status(server).unwrap());
        assert_eq!(listing.get("server").unwrap().blocked_by, status.blocked_by);
        (names(&listing.blockers("server")), status.blocked_by)
    };
    assert_eq!(blocked_by(), (vec!["server".to_string()], vec![]));
    let mut wait = attempt.wait_to_start(missing);
    assert!(poll_once(&mut wait).is_pending());
    let (blockers, path) = blocked_by();
    assert_eq!((&*blockers[0], &*path[0]), ("missing", "missing"));
    assert_eq!((blockers.len(), path.len()), (1, 1));
}

/// Compares with the definitions, applied to the listing itself.
#[test]
fn paths_and_blockers_agree_with_their_definitions_in_random_graphs() {
    const SERVICES: usize = 24;
    let seed = Seed::new();
    let mut random = seed.random(0);
    for _ in 0..40 {
        let registry = Registry::with_capacity(SERVICES).unwrap();
        let ids: Vec<ServiceId<u32>> =
            (0..SERVICES).map(|i| registry.register(&format!("service {i}")).unwrap()).collect();
        // A random order, so that a dependency may be registered after its dependent.
        let mut order = ids.clone();
        for i in (1..SERVICES).rev() {
            order.swap(i, random.below(i + 1));
        }
        for _ in 0..40 {
            let (a, b) = (random.below(SERVICES), random.below(SERVICES));
            if a != b {
                registry.depends(order[a.max(b)]).on(order[a.min(b)]).unwrap();
            }
        }
        let ready = ids.iter().filter(|_| random.chance(30));
        let _ready: Vec<_> = ready.map(|&id| up(&registry, id, 1)).collect();
        check_definitions(&registry, &registry.list());
    }
}

fn check_definitions(registry: &Registry, listing: &Listing) {
    let at = |id: AnyId| listing.services.iter().find(|service| service.id == id).unwrap();
    let blocking = |service: &ServiceStatus| -> Vec<&ServiceStatus> {
        let mut all: Vec<_> = service.dependencies.iter().map(|edge| at(edge.id)).collect();
        all.retain(|dependency| dependency.phase != Phase::Ready);
        if service.phase == Phase::Ready { Vec::new() } else { all }
    };
    let wait = registry.wait_all_ready().wait_blocking_timeout(Duration::ZERO);
    let mut not_ready = match wait {
        Ok(()) => vec![].into_iter(),
        Err(AllReadyError::TimedOut { not_ready, .. }) => not_ready.into_iter(),
        Err(other) => panic!("{other}"),
    };
    for service in &listing.services {
        let (mut path, mut last) = (Vec::new(), service);
        while let Some(&first) = blocking(last).iter().min_by_key(|service| service.id) {
            path.push(first.name.clone());
            last = first;
        }
        assert_eq!(service.blocked_by, path, "of {}", service.name);
        assert_eq!(registry.status(service.id).unwrap().blocked_by, path, "of {}", service.name);
        if service.phase != Phase::Ready {
            let not_ready = not_ready.next().expect("a service that is not ready is in the error");
            assert_eq!((&not_ready.service, &not_ready.blocked_by), (&service.name, &path));
        }

        // All services that can be reached over dependencies that are not ready.
        let mut reached: BTreeMap<AnyId, &ServiceStatus> = BTreeMap::new();
        let mut next = if service.phase == Phase::Ready { vec![] } else { vec![service] };
        while let Some(service) = next.pop() {
            if reached.insert(service.id, service).is_none() {
                next.extend(blocking(service));
            }
        }
        let mut blockers: Vec<&ServiceStatus> = reached.into_values().collect();
        blockers.retain(|service| blocking(service).is_empty());
        assert_eq!(names(&listing.blockers(&service.name)), names(&blockers));
    }
    assert!(not_ready.next().is_none(), "only services that are not ready are in the error");
}

/// Feasible only if the cost of a listing is not quadratic: each of the dependents of the hub is
/// blocked by the hub, which has as many dependencies.
#[test]
fn a_long_chain_and_a_hub_with_many_dependencies_are_listed_while_they_are_down() {
    const EACH: usize = 20_000;
    let mut builder = Registry::builder(3 * EACH + 1).unwrap();
    let mut register = |kind, count| -> Vec<ServiceId<u8>> {
        (0..count).map(|i| builder.register(&format!("{kind} {i}")).unwrap()).collect()
    };
    let chain = register("link", EACH);
    let dependencies = register("dependency", EACH);
    let hub = register("hub", 1)[0];
    let dependents = register("dependent", EACH);
    for pair in chain.windows(2) {
        builder.depends(pair[1]).on(pair[0]).unwrap();
    }
    for (dependency, dependent) in dependencies.into_iter().zip(dependents) {
        builder.depends(hub).on(dependency).unwrap();
        builder.depends(dependent).on(hub).unwrap();
    }
    let registry = builder.build();
    let listing = registry.list();

    let last = listing.get("link 19999").unwrap();
    assert_eq!(last.blocked_by.len(), 64);
    assert_eq!((&*last.blocked_by[0], &*last.blocked_by[63]), ("link 19998", "link 19935"));
    assert_eq!(names(&listing.blockers("link 19999")), ["link 0"]);
    let hub = listing.get("hub 0").unwrap();
    assert_eq!((hub.dependencies.len(), hub.dependents.len()), (EACH, EACH));
    assert_eq!((&*hub.dependencies[0].name, &*hub.dependents[0]), ("dependency 0", "dependent 0"));
    for service in &listing.services[2 * EACH + 1..] {
        assert_eq!(service.blocked_by, ["hub 0", "dependency 0"]);
    }
    let blockers = listing.blockers("dependent 7");
    assert_eq!(blockers.len(), EACH);
    assert!(blockers.is_sorted_by_key(|service| service.id));

    let error = registry.wait_all_ready().wait_blocking_timeout(Duration::ZERO).unwrap_err();
    let AllReadyError::TimedOut { not_ready, .. } = error else { panic!("{error}") };
    assert_eq!(not_ready.len(), 3 * EACH + 1);
    assert_eq!(not_ready[3 * EACH].blocked_by, ["hub 0", "dependency 0"]);
}
