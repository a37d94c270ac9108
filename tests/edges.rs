//! Edges that come and go while the registry runs.
//!
//! - An attempt that waits for a service discovers the edge, at once and also where that one is not ready;
//!   from then on the dependency's failures reach the attempt and what it publishes.
//! - What an attempt has not waited for does not reach it, unless it was declared.
//! - A publication drops the discovered edges that its attempt did not use, and only those; declared ones stay.
//!   It does not matter how often the attempt waited, nor what the publications before it have dropped.
//! - All this holds for one dependent as for many.
//! - Edges of an attempt that was given up or overtaken are kept until the next publication.
//! - An edge that is declared while an attempt uses it stays, and hides no other that is to be dropped.
//! - A cascade that starts while edges change neither misses nor strands a service.

mod support;

use std::thread;

use mainstay::{Attempt, Phase, Registry, Running, ServiceId};
use support::{LONG, Seed, again, again_from, up};

/// What `d` is built from, as the status tells it; discovered ones are in brackets.
fn dependencies(registry: &Registry, id: ServiceId<u32>) -> Vec<String> {
    let status = registry.status(id).unwrap();
    let tell = |declared, name| if declared { format!("{name}") } else { format!("[{name}]") };
    let mut names: Vec<_> =
        status.dependencies.iter().map(|edge| tell(edge.declared, &edge.name)).collect();
    names.sort();
    for edge in &status.dependencies {
        let dependency = registry.status(registry.find(&edge.name).unwrap()).unwrap();
        assert!(dependency.dependents.contains(&status.name), "told from both ends");
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
        let registry = Registry::with_capacity(4).unwrap();
        let [a, b, c, d] = ["a", "b", "c", "d"].map(|name| registry.register(name).unwrap());
        Self { registry, a, b, c, d }
    }

    /// Whether the failure of the service takes this down.
    fn reaches(&self, failed: ServiceId<u32>, running: &Running<u32>) -> bool {
        self.registry.fail(failed, "does it reach?").unwrap();
        running.instance().is_none()
    }
}

fn wait_for(attempt: &Attempt<u32>, ids: &[ServiceId<u32>]) {
    for &id in ids {
        attempt.wait_for(id).wait_timeout(LONG).unwrap();
    }
}

#[test]
fn an_edge_is_discovered_by_the_wait() {
    let four = Four::new();
    let Four { registry, a, b, d, .. } = &four;
    let _b = up(registry, *b, 1);
    let provider = registry.provide(*d).unwrap();
    let attempt = provider.begin().wait().unwrap();
    assert_eq!(dependencies(registry, *d), [""; 0]);
    assert!(attempt.wait_for(*a).wait_timeout(support::MOMENT).is_err());
    assert_eq!(dependencies(registry, *d), ["[a]"], "already while it waits");

    let (provide_a, running_a) = up(registry, *a, 1);
    wait_for(&attempt, &[*a, *b, *a]);
    assert_eq!(dependencies(registry, *d), ["[a]", "[b]"]);
    running_a.fail("while it builds");
    assert!(attempt.is_overtaken());
    assert!(attempt.ready(1).is_err());

    let _a = again(&provide_a, 2);
    let running = again_from(&provider, *a, 2);
    assert!(four.reaches(*a, &running));
}

#[test]
fn what_is_no_longer_used_is_dropped_at_the_next_publication() {
    let four = Four::new();
    let Four { registry, a, b, c, d } = &four;
    let provide_a = registry.provide(*a).unwrap();
    let provide_b = registry.provide(*b).unwrap();
    let (_c, _running_c) = up(registry, *c, 1);
    registry.add_dependency(*d, *c).unwrap();
    let provider = registry.provide(*d).unwrap();

    let running_a = again(&provide_a, 1);
    let _running_b = again(&provide_b, 1);
    let attempt = provider.begin().wait().unwrap();
    wait_for(&attempt, &[*a, *b]);
    let running = attempt.ready(1).unwrap();
    assert_eq!(dependencies(registry, *d), ["[a]", "[b]", "c"]);
    assert_eq!(registry.fail(*a, "1").unwrap().went_down, 2);
    assert!(running.instance().is_none());

    drop(running_a);
    let _running_a = again(&provide_a, 2);
    let attempt = provider.begin().wait().unwrap();
    wait_for(&attempt, &[*b]);
    assert_eq!(dependencies(registry, *d), ["[a]", "[b]", "c"], "kept until it publishes");
    let running = attempt.ready(2).unwrap();
    assert_eq!(dependencies(registry, *d), ["[b]", "c"]);
    assert!(!four.reaches(*a, &running), "a is none of its business any more");
    assert!(four.reaches(*b, &running));

    let running = again(&provider, 3);
    assert_eq!(dependencies(registry, *d), ["c"], "used by none, but declared");
    assert!(!four.reaches(*b, &running));
    assert!(four.reaches(*c, &running), "declared, though never waited for");
}

#[test]
fn waiting_twice_for_one_does_not_hide_an_unused_edge() {
    let four = Four::new();
    let Four { registry, a, b, d, .. } = &four;
    let ((_a, _running_a), (_b, _running_b)) = (up(registry, *a, 1), up(registry, *b, 1));
    let provider = registry.provide(*d).unwrap();
    let attempt = provider.begin().wait().unwrap();
    wait_for(&attempt, &[*a, *b]);
    attempt.ready(1).unwrap().fail("it will be built from one of them");

    let attempt = provider.begin().wait().unwrap();
    wait_for(&attempt, &[*b, *b]);
    let running = attempt.ready(2).unwrap();
    assert_eq!(dependencies(registry, *d), ["[b]"]);
    assert!(!four.reaches(*a, &running));
}

#[test]
fn an_edge_that_outlived_a_publication_is_dropped_by_the_next() {
    let four = Four::new();
    let Four { registry, a, b, d, .. } = &four;
    let ((_a, _running_a), (_b, _running_b)) = (up(registry, *a, 1), up(registry, *b, 1));
    let provider = registry.provide(*d).unwrap();
    again_from(&provider, *a, 1).fail("b in place of a");
    again_from(&provider, *b, 2).fail("nothing in place of b");
    assert_eq!(dependencies(registry, *d), ["[b]"]);
    let running = again(&provider, 3);
    assert_eq!(dependencies(registry, *d), [""; 0]);
    assert!(!four.reaches(*b, &running));
}

#[test]
fn edges_of_dead_attempts_are_kept_until_the_next_publication() {
    let four = Four::new();
    let Four { registry, a, b, d, .. } = &four;
    let (_a, _running_a) = up(registry, *a, 1);
    let provider = registry.provide(*d).unwrap();
    let attempt = provider.begin().wait().unwrap();
    wait_for(&attempt, &[*a]);
    attempt.fail("given up").unwrap();
    assert_eq!(dependencies(registry, *d), ["[a]"]);

    let (_b, _running_b) = up(registry, *b, 1);
    let attempt = provider.begin().wait().unwrap();
    wait_for(&attempt, &[*b]);
    assert_eq!(registry.fail(*a, "it may need it again").unwrap().overtaken, 1);
    drop(attempt);
    assert_eq!(dependencies(registry, *d), ["[a]", "[b]"]);

    let running = again_from(&provider, *b, 1);
    assert_eq!(dependencies(registry, *d), ["[b]"]);
    assert!(!four.reaches(*a, &running));
}

#[test]
fn edges_of_an_attempt_given_up_are_not_those_of_the_next_in_its_generation() {
    let four = Four::new();
    let Four { registry, a, b, d, .. } = &four;
    let ((_a, _running_a), (_b, _running_b)) = (up(registry, *a, 1), up(registry, *b, 1));
    let provider = registry.provide(*d).unwrap();
    let attempt = provider.begin().wait().unwrap();
    wait_for(&attempt, &[*a]);
    attempt.fail("given up").unwrap();

    let running = again_from(&provider, *b, 1);
    assert_eq!(running.generation(), 0);
    assert_eq!(dependencies(registry, *d), ["[b]"]);
    assert!(!four.reaches(*a, &running));
}

#[test]
fn an_edge_that_is_declared_meanwhile_stays() {
    let four = Four::new();
    let Four { registry, a, b, d, .. } = &four;
    let (_a, _running_a) = up(registry, *a, 1);
    let (_b, _running_b) = up(registry, *b, 1);
    let provider = registry.provide(*d).unwrap();
    let running = again_from(&provider, *a, 1);
    registry.add_dependency(*d, *a).unwrap();
    assert_eq!(dependencies(registry, *d), ["a"]);
    running.fail("again");
    let running = again_from(&provider, *b, 2);
    assert_eq!(dependencies(registry, *d), ["[b]", "a"]);
    assert!(four.reaches(*a, &running));
}

#[test]
fn declaring_a_used_edge_does_not_hide_an_unused_one() {
    let four = Four::new();
    let Four { registry, a, b, d, .. } = &four;
    let (_a, _running_a) = up(registry, *a, 1);
    let (_b, _running_b) = up(registry, *b, 1);
    let provider = registry.provide(*d).unwrap();
    let running = again_from(&provider, *a, 1);
    running.fail("it will be built from another");

    let attempt = provider.begin().wait().unwrap();
    wait_for(&attempt, &[*b]);
    registry.add_dependency(*d, *b).unwrap();
    let running = attempt.ready(2).unwrap();
    assert_eq!(dependencies(registry, *d), ["b"], "a was not used by this attempt");
    assert!(!four.reaches(*a, &running));
}

#[test]
fn a_new_edge_brings_what_stands_on_the_dependent() {
    let four = Four::new();
    let Four { registry, a, b, c, d } = &four;
    let (provide_a, running_a) = up(registry, *a, 1);
    let (provide_b, running_b) = up(registry, *b, 1);
    let (provide_c, provide_d) = (registry.provide(*c).unwrap(), registry.provide(*d).unwrap());
    let running_c = again_from(&provide_c, *b, 1);
    let running_d = again_from(&provide_d, *c, 1);
    assert_eq!(running_a.fail("nobody's business").went_down, 1);
    assert!(running_d.instance().is_some());

    running_b.fail("now it uses a");
    assert!(running_c.instance().is_none() && running_d.instance().is_none());
    // The edges from d over c to b are still there, and a comes below them all.
    let running_a = again(&provide_a, 2);
    let _running_b = again_from(&provide_b, *a, 2);
    let _running_c = again_from(&provide_c, *b, 2);
    let running_d = again_from(&provide_d, *c, 2);
    assert_eq!(running_a.fail("all of them").went_down, 4);
    assert_eq!(running_d.failed().wait().unwrap().root, "a");
}

/// `d` is built from `a` or from `b`, another at each start, while both fail all the time.
#[test]
fn a_cascade_among_changing_edges_strands_nobody() {
    let four = Four::new();
    let Four { registry, a, b, c, d } = &four;
    let seed = Seed::new();
    let (rounds, others) = (2_000, [*a, *b]);
    thread::scope(|scope| {
        for id in others {
            scope.spawn(move || {
                let provider = registry.provide(id).unwrap();
                while let Ok(attempt) = provider.begin().wait() {
                    let Ok(running) = attempt.ready(0) else { continue };
                    let _ = running.failed().wait();
                }
            });
        }
        // c stands on d, so that a closure has something to gain and to lose.
        scope.spawn(move || {
            let provider = registry.provide(*c).unwrap();
            while let Ok(attempt) = provider.begin().wait() {
                let Ok(_) = attempt.wait_for(*d).wait() else { continue };
                let Ok(running) = attempt.ready(0) else { continue };
                let _ = running.failed().wait();
            }
        });
        let mut random = seed.random(1);
        scope.spawn(move || {
            let provider = registry.provide(*d).unwrap();
            while let Ok(attempt) = provider.begin().wait() {
                let from = random.below(2);
                let Ok(_) = attempt.wait_for(others[from]).wait() else { continue };
                let Ok(running) = attempt.ready(from as u32) else { continue };
                let _ = running.failed().wait();
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
        let settled = [*a, *b, *c, *d].map(|id| registry.wait_ready(id).wait_timeout(LONG).is_ok());
        registry.close();
        joined.unwrap();
        assert_eq!(settled, [true; 4], "nobody is stranded");
    });
    assert!(registry.list().services.iter().all(|service| service.phase == Phase::Down));
}

#[test]
fn many_dependents_come_and_go() {
    const MANY: usize = 40;
    let registry = Registry::with_capacity(MANY + 1).unwrap();
    let base: ServiceId<u32> = registry.register("base").unwrap();
    let (provide_base, running_base) = up(&registry, base, 0);
    let providers: Vec<_> = (0..MANY)
        .map(|n| registry.provide(registry.register::<u32>(&n.to_string()).unwrap()).unwrap())
        .collect();
    let mut running_base = Some(running_base);
    // Who is built on the base in each round, and so goes down with it.
    let rounds: [fn(usize) -> bool; 6] =
        [|_| true, |n| n >= MANY / 2, |n| n % 3 == 0, |_| true, |_| false, |_| true];
    for on_base in rounds {
        let running: Vec<_> = (0..MANY)
            .map(|n| {
                let attempt = providers[n].begin().wait_timeout(LONG).unwrap();
                if on_base(n) {
                    attempt.wait_for(base).wait_timeout(LONG).unwrap();
                }
                attempt.ready(0).unwrap()
            })
            .collect();
        let expected = (0..MANY).filter(|&n| on_base(n)).count();
        assert_eq!(registry.fail(base, "again").unwrap().went_down, 1 + expected);
        for (n, running) in running.iter().enumerate() {
            assert_eq!(running.instance().is_none(), on_base(n), "service {n}");
        }
        drop(running);
        drop(running_base.take());
        running_base = Some(again(&provide_base, 0));
    }
}
