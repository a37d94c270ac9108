//! Services that fail at random, one under the other, and are rebuilt:
//!
//! - whoever reads one never finds it on something that anybody has seen to fail before (I1);
//! - once nobody fails anything any more, everything comes to be ready, on what is there (I2);
//! - every wait ends (W), and at the close everybody goes, and every value with them.
//!
//! ```text
//! provider of each service:  begin, wait for its dependencies, ready, failed, and again
//! failers:                       fail            report         fail
//! readers:                 look at a dependency, then at the service
//! main:                                                                wait for all, check, close
//! ```
#![cfg(shuttle)]

use mainstay_shuttle_tests::{Habits, Shape, World, explore};

#[test]
fn settles() {
    explore("settles", 3_000, |mut random| {
        let shape = Shape { services: (5, 50), dependencies: 3, declared: 60 };
        let world = World::new(&shape, &mut random);
        let habits = Habits { failures: random.below(2), ..Habits::default() };
        world.play(habits, &mut random, |world, crew, random| {
            for _ in 0..2 + random.below(2) {
                let (world, random) = (world.clone(), random.fork());
                crew.thread(move || world.fail_some(4, random));
            }
            for _ in 0..2 {
                let (world, random) = (world.clone(), random.fork());
                crew.thread(move || world.read_some(20, random));
            }
        });
    });
}
