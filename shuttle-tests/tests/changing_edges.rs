//! Dependencies that are chosen anew at each attempt: discovered by waiting, dropped at the next publication that
//! did without, declared by others in between, and now and then against the order.
//!
//! - I1, I2 and W as in `settles.rs`: a cascade that runs meanwhile misses no edge, and strands nobody who left;
//! - an edge that would close a cycle is refused with that cycle, and nobody waits in a circle.
//!
//! ```text
//! provider:  begin, wait for some others    ready: drop edges              failed, wait for some others
//! declarer:                       add an edge              add an edge
//! failer:                   fail: walk    walk again               fail
//! ```
#![cfg(shuttle)]

use mainstay::DependencyError;
use mainstay_shuttle_tests::{Habits, Random, Shape, World, explore};

#[test]
fn changing_edges() {
    explore("changing_edges", 5_000, |mut random| {
        let shape = Shape { services: (5, 30), dependencies: 4, declared: random.below(30) };
        let world = World::new(&shape, &mut random);
        let habits =
            Habits { fickle: 40, curious: 30, failures: random.below(3), ..Habits::default() };
        world.play(habits, &mut random, |world, crew, random| {
            for _ in 0..2 + random.below(2) {
                let (world, random) = (world.clone(), random.fork());
                crew.thread(move || world.fail_some(5, random));
            }
            let (declarer, numbers) = (world.clone(), random.fork());
            crew.thread(move || declare_some(&declarer, 3, numbers));
            let (world, random) = (world.clone(), random.fork());
            crew.thread(move || world.read_some(20, random));
        });
    });
}

/// Declares edges, most of them in order.
fn declare_some(world: &World, times: usize, mut random: Random) {
    for _ in 0..times {
        let (one, other) = (random.below(world.count()), random.below(world.count()));
        let (low, high) = (one.min(other), one.max(other));
        let (dependent, dependency) = if random.chance(80) { (high, low) } else { (low, high) };
        if dependent == dependency {
            continue;
        }
        world.wants(dependent, dependency);
        match world.registry.add_dependency(world.ids[dependent], world.ids[dependency]) {
            Ok(()) => {}
            Err(DependencyError::Cycle(cycle)) => world.check_cycle(&cycle, dependent, dependency),
            Err(error) => unreachable!("{error}"),
        }
    }
}
