//! Dependencies that are chosen again for each attempt. An edge is discovered by waiting, is
//! removed by the next publication that did not use it, or is declared by another thread, sometimes
//! against the order of the services.
//!
//! - I1, I2 and W, as in `random_failures.rs`. A cascade that runs at the same time misses no edge,
//!   and no service that leaves its closure stays condemned.
//! - An edge that would close a cycle is refused with that cycle, and no attempts wait in a cycle.
//!
//! ```text
//! provider:  begin, wait for services     ready: remove edges           failed, wait for services
//! declarer:                     add an edge              add an edge
//! failer:                   fail: walk    walk again               fail
//! ```
#![cfg(shuttle)]

use mainstay::error::DependencyError;
use mainstay_shuttle_tests::{Behavior, GraphShape, Random, World, explore};

#[test]
fn a_cascade_misses_no_edge_while_edges_change() {
    explore("changing_edges", 4_000, |mut random| {
        let shape = GraphShape { services: (5, 30), dependencies: 4, declared: random.below(30) };
        let world = World::new(&shape, &mut random);
        let behavior =
            Behavior { skips: 40, adds: 30, failures: random.below(3), ..Behavior::default() };
        world.run(behavior, &mut random, |world, workers, random| {
            for _ in 0..2 + random.below(2) {
                let (world, random) = (world.clone(), random.fork());
                workers.thread(move || world.fail_some(5, random));
            }
            let (declarer, forked) = (world.clone(), random.fork());
            workers.thread(move || declare_some(&declarer, 3, forked));
            let (world, random) = (world.clone(), random.fork());
            workers.thread(move || world.read_some(20, random));
        });
    });
}

/// Declares random edges, most of them in the order of the services.
fn declare_some(world: &World, times: usize, mut random: Random) {
    for _ in 0..times {
        let (one, other) = (random.below(world.count()), random.below(world.count()));
        let (low, high) = (one.min(other), one.max(other));
        let (dependent, dependency) = if random.chance(80) { (high, low) } else { (low, high) };
        if dependent == dependency {
            continue;
        }
        world.request_edge(dependent, dependency);
        match world.registry.depends(world.ids[dependent]).on(world.ids[dependency]) {
            Ok(_) => {}
            Err(DependencyError::Cycle(cycle)) => world.check_cycle(&cycle, dependent, dependency),
            Err(error) => unreachable!("{error}"),
        }
    }
}
