//! Edges that are discovered and dropped while the registry runs.
//!
//! - An attempt that waits for a service discovers an edge, at once, and also if that service is
//!   not ready. From then on a failure of the dependency reaches the attempt and its publication.
//! - A service for which the attempt has not waited does not affect it, unless the edge is
//!   declared.
//! - A publication drops exactly the discovered edges that its attempt did not use. Declared edges
//!   stay. The number of waits and the edges that earlier publications dropped make no difference.
//! - All this holds for one dependent and for many.
//! - Edges of a failed or invalidated attempt are kept until the next publication.
//! - An edge that is declared while an attempt uses it stays, and hides no other edge that must be
//!   dropped.
//! - A cascade that starts while edges change misses no service and leaves none condemned.

use std::thread;

use crate::support::{LONG, MOMENT, Seed, publish, publish_from, registry_of, up};
use mainstay::{Attempt, Phase, Registry, Running, ServiceId};

/// The dependencies that the status lists; discovered ones are in brackets.
fn dependencies(registry: &Registry, id: ServiceId<u32>) -> Vec<String> {
    let status = registry.status(id).unwrap();
    let show = |declared, name| if declared { format!("{name}") } else { format!("[{name}]") };
    let mut names: Vec<_> =
        status.dependencies.iter().map(|edge| show(edge.declared, &edge.name)).collect();
    names.sort();
    for edge in &status.dependencies {
        let dependency = registry.status(registry.find(&edge.name).unwrap()).unwrap();
        assert!(
            dependency.dependents.contains(&status.name),
            "the dependency does not list its dependent"
        );
    }
    names
}

struct Four {
    registry: Registry,
    a: ServiceId<u32>,
    b: ServiceId<u32>,
    c: ServiceId<u32>,
    d: ServiceId<u32>,
}

impl Four {
    fn new() -> Self {
        let (registry, [a, b, c, d]) = registry_of(["a", "b", "c", "d"]);
        Self { registry, a, b, c, d }
    }

    /// Whether a failure of the service takes the instance down.
    fn reaches(&self, failed: ServiceId<u32>, running: &Running<u32>) -> bool {
        self.registry.fail(failed, "does this reach it?").unwrap();
        running.instance().is_none()
    }
}

fn wait_for(attempt: &Attempt<u32>, ids: &[ServiceId<u32>]) {
    for &id in ids {
        attempt.wait_for(id).wait_blocking_timeout(LONG).unwrap();
    }
}

#[test]
fn a_wait_discovers_its_edge_at_once() {
    let four = Four::new();
    let Four { registry, a, b, d, .. } = &four;
    let _b = up(registry, *b, 1);
    let provider = registry.provide(*d).unwrap();
    let attempt = provider.begin().wait_blocking().unwrap();
    assert_eq!(dependencies(registry, *d), [""; 0]);
    assert!(attempt.wait_for(*a).wait_blocking_timeout(MOMENT).is_err());
    assert_eq!(dependencies(registry, *d), ["[a]"], "the edge exists while it waits");

    let (provide_a, running_a) = up(registry, *a, 1);
    wait_for(&attempt, &[*a, *b, *a]);
    assert_eq!(dependencies(registry, *d), ["[a]", "[b]"]);
    running_a.fail("while it builds");
    assert!(attempt.is_invalidated());
    assert!(attempt.ready(1).is_err());

    let _a = publish(&provide_a, 2);
    let running = publish_from(&provider, *a, 2);
    assert!(four.reaches(*a, &running));
}

#[test]
fn a_publication_drops_exactly_the_discovered_edges_that_its_attempt_did_not_use() {
    let four = Four::new();
    let Four { registry, a, b, c, d } = &four;
    let provide_a = registry.provide(*a).unwrap();
    let provide_b = registry.provide(*b).unwrap();
    let (_c, _running_c) = up(registry, *c, 1);
    registry.depends(*d).on(*c).unwrap();
    let provider = registry.provide(*d).unwrap();

    let running_a = publish(&provide_a, 1);
    let _running_b = publish(&provide_b, 1);
    let attempt = provider.begin().wait_blocking().unwrap();
    wait_for(&attempt, &[*a, *b]);
    let running = attempt.ready(1).unwrap();
    assert_eq!(dependencies(registry, *d), ["[a]", "[b]", "c"]);
    assert_eq!(registry.fail(*a, "1").unwrap().failed, 2);
    assert!(running.instance().is_none());

    drop(running_a);
    let _running_a = publish(&provide_a, 2);
    let attempt = provider.begin().wait_blocking().unwrap();
    wait_for(&attempt, &[*b]);
    assert_eq!(
        dependencies(registry, *d),
        ["[a]", "[b]", "c"],
        "edges are kept until the publication"
    );
    let running = attempt.ready(2).unwrap();
    assert_eq!(dependencies(registry, *d), ["[b]", "c"]);
    assert!(!four.reaches(*a, &running), "the last attempt did not use a");
    assert!(four.reaches(*b, &running));

    let running = publish(&provider, 3);
    assert_eq!(dependencies(registry, *d), ["c"], "a declared edge stays without a use");
    assert!(!four.reaches(*b, &running));
    assert!(four.reaches(*c, &running), "a declared edge carries failures without a wait");
}

#[test]
fn a_second_wait_for_one_service_does_not_hide_an_unused_edge() {
    let four = Four::new();
    let Four { registry, a, b, d, .. } = &four;
    let ((_a, _running_a), (_b, _running_b)) = (up(registry, *a, 1), up(registry, *b, 1));
    let provider = registry.provide(*d).unwrap();
    let attempt = provider.begin().wait_blocking().unwrap();
    wait_for(&attempt, &[*a, *b]);
    attempt.ready(1).unwrap().fail("it will be built from one of them");

    let attempt = provider.begin().wait_blocking().unwrap();
    wait_for(&attempt, &[*b, *b]);
    let running = attempt.ready(2).unwrap();
    assert_eq!(dependencies(registry, *d), ["[b]"]);
    assert!(!four.reaches(*a, &running));
}

#[test]
fn an_edge_of_the_previous_publication_is_dropped_if_the_next_does_not_use_it() {
    let four = Four::new();
    let Four { registry, a, b, d, .. } = &four;
    let ((_a, _running_a), (_b, _running_b)) = (up(registry, *a, 1), up(registry, *b, 1));
    let provider = registry.provide(*d).unwrap();
    publish_from(&provider, *a, 1).fail("b in place of a");
    publish_from(&provider, *b, 2).fail("nothing in place of b");
    assert_eq!(dependencies(registry, *d), ["[b]"]);
    let running = publish(&provider, 3);
    assert_eq!(dependencies(registry, *d), [""; 0]);
    assert!(!four.reaches(*b, &running));
}

#[test]
fn edges_of_ended_attempts_are_kept_until_the_next_publication() {
    let four = Four::new();
    let Four { registry, a, b, d, .. } = &four;
    let (_a, _running_a) = up(registry, *a, 1);
    let provider = registry.provide(*d).unwrap();
    let attempt = provider.begin().wait_blocking().unwrap();
    wait_for(&attempt, &[*a]);
    attempt.fail("given up").unwrap();
    assert_eq!(dependencies(registry, *d), ["[a]"]);

    let (_b, _running_b) = up(registry, *b, 1);
    let attempt = provider.begin().wait_blocking().unwrap();
    wait_for(&attempt, &[*b]);
    assert_eq!(registry.fail(*a, "it may need it again").unwrap().invalidated, 1);
    drop(attempt);
    assert_eq!(dependencies(registry, *d), ["[a]", "[b]"]);

    let running = publish_from(&provider, *b, 1);
    assert_eq!(dependencies(registry, *d), ["[b]"]);
    assert!(!four.reaches(*a, &running));
}

#[test]
fn the_edges_of_a_failed_attempt_do_not_count_for_the_next_attempt_of_its_generation() {
    let four = Four::new();
    let Four { registry, a, b, d, .. } = &four;
    let ((_a, _running_a), (_b, _running_b)) = (up(registry, *a, 1), up(registry, *b, 1));
    let provider = registry.provide(*d).unwrap();
    let attempt = provider.begin().wait_blocking().unwrap();
    wait_for(&attempt, &[*a]);
    attempt.fail("given up").unwrap();

    let running = publish_from(&provider, *b, 1);
    assert_eq!(running.generation(), 0);
    assert_eq!(dependencies(registry, *d), ["[b]"]);
    assert!(!four.reaches(*a, &running));
}

#[test]
fn a_discovered_edge_that_is_declared_later_stays() {
    let four = Four::new();
    let Four { registry, a, b, d, .. } = &four;
    let (_a, _running_a) = up(registry, *a, 1);
    let (_b, _running_b) = up(registry, *b, 1);
    let provider = registry.provide(*d).unwrap();
    let running = publish_from(&provider, *a, 1);
    registry.depends(*d).on(*a).unwrap();
    assert_eq!(dependencies(registry, *d), ["a"]);
    running.fail("again");
    let running = publish_from(&provider, *b, 2);
    assert_eq!(dependencies(registry, *d), ["[b]", "a"]);
    assert!(four.reaches(*a, &running));
}

#[test]
fn the_declaration_of_a_used_edge_does_not_hide_an_unused_edge() {
    let four = Four::new();
    let Four { registry, a, b, d, .. } = &four;
    let (_a, _running_a) = up(registry, *a, 1);
    let (_b, _running_b) = up(registry, *b, 1);
    let provider = registry.provide(*d).unwrap();
    let running = publish_from(&provider, *a, 1);
    running.fail("it will be built from another");

    let attempt = provider.begin().wait_blocking().unwrap();
    wait_for(&attempt, &[*b]);
    registry.depends(*d).on(*b).unwrap();
    let running = attempt.ready(2).unwrap();
    assert_eq!(dependencies(registry, *d), ["b"], "the attempt did not use a");
    assert!(!four.reaches(*a, &running));
}

#[test]
fn a_new_edge_extends_the_closure_by_all_dependents_of_its_dependent() {
    let four = Four::new();
    let Four { registry, a, b, c, d } = &four;
    let (provide_a, running_a) = up(registry, *a, 1);
    let (provide_b, running_b) = up(registry, *b, 1);
    let (provide_c, provide_d) = (registry.provide(*c).unwrap(), registry.provide(*d).unwrap());
    let running_c = publish_from(&provide_c, *b, 1);
    let running_d = publish_from(&provide_d, *c, 1);
    assert_eq!(running_a.fail("before the edge").failed, 1);
    assert!(running_d.instance().is_some());

    running_b.fail("to be built from a");
    assert!(running_c.instance().is_none() && running_d.instance().is_none());
    // The edges d -> c -> b still exist, and b -> a is new.
    let running_a = publish(&provide_a, 2);
    let _running_b = publish_from(&provide_b, *a, 2);
    let _running_c = publish_from(&provide_c, *b, 2);
    let running_d = publish_from(&provide_d, *c, 2);
    assert_eq!(running_a.fail("the new edge carries it").failed, 4);
    assert_eq!(running_d.failed().wait_blocking().unwrap().root, "a");
}

/// Each attempt of `d` is built from `a` or from `b`, while both fail all the time.
#[test]
fn no_service_is_left_condemned_by_a_cascade_while_edges_change() {
    let four = Four::new();
    let Four { registry, a, b, c, d } = &four;
    let seed = Seed::new();
    let (rounds, others) = (2_000, [*a, *b]);
    thread::scope(|scope| {
        for id in others {
            scope.spawn(move || {
                let provider = registry.provide(id).unwrap();
                while let Ok(attempt) = provider.begin().wait_blocking() {
                    let Ok(running) = attempt.ready(0) else { continue };
                    let _ = running.failed().wait_blocking();
                }
            });
        }
        // `c` depends on `d`, so that the closures of `a` and `b` gain and lose services.
        scope.spawn(move || {
            let provider = registry.provide(*c).unwrap();
            while let Ok(attempt) = provider.begin().wait_blocking() {
                let Ok(_) = attempt.wait_for(*d).wait_blocking() else { continue };
                let Ok(running) = attempt.ready(0) else { continue };
                let _ = running.failed().wait_blocking();
            }
        });
        let mut random = seed.random(1);
        scope.spawn(move || {
            let provider = registry.provide(*d).unwrap();
            while let Ok(attempt) = provider.begin().wait_blocking() {
                let from = random.below(2);
                let Ok(_) = attempt.wait_for(others[from]).wait_blocking() else { continue };
                let Ok(running) = attempt.ready(from as u32) else { continue };
                let _ = running.failed().wait_blocking();
            }
        });
        let mut random = seed.random(2);
        let failer = scope.spawn(move || {
            for _ in 0..rounds {
                registry.fail([*a, *b, *d][random.below(3)], "random").unwrap();
                random.pause();
            }
        });
        let joined = failer.join();
        let settled =
            [*a, *b, *c, *d].map(|id| registry.wait_ready(id).wait_blocking_timeout(LONG).is_ok());
        registry.close();
        joined.unwrap();
        assert_eq!(settled, [true; 4], "a service never became ready again");
    });
    assert!(registry.list().services.iter().all(|service| service.phase == Phase::Down));
}

#[test]
fn fail_takes_down_exactly_the_current_ones_of_many_changing_dependents() {
    const MANY: usize = 40;
    let registry = Registry::with_capacity(MANY + 1).unwrap();
    let base: ServiceId<u32> = registry.register("base").unwrap();
    let (provide_base, running_base) = up(&registry, base, 0);
    let providers: Vec<_> = (0..MANY)
        .map(|n| registry.provide(registry.register::<u32>(&n.to_string()).unwrap()).unwrap())
        .collect();
    let mut running_base = Some(running_base);
    // Which services depend on the base in each round, and so fail with it.
    let rounds: [fn(usize) -> bool; 6] =
        [|_| true, |n| n >= MANY / 2, |n| n % 3 == 0, |_| true, |_| false, |_| true];
    for on_base in rounds {
        let running: Vec<_> = (0..MANY)
            .map(|n| {
                let attempt = providers[n].begin().wait_blocking_timeout(LONG).unwrap();
                if on_base(n) {
                    attempt.wait_for(base).wait_blocking_timeout(LONG).unwrap();
                }
                attempt.ready(0).unwrap()
            })
            .collect();
        let expected = (0..MANY).filter(|&n| on_base(n)).count();
        assert_eq!(registry.fail(base, "again").unwrap().failed, 1 + expected);
        for (n, running) in running.iter().enumerate() {
            assert_eq!(running.instance().is_none(), on_base(n), "service {n}");
        }
        drop(running);
        drop(running_base.take());
        running_base = Some(publish(&provide_base, 0));
    }
}
