//! Services that depend on each other fail at random, and are built again.
//!
//! - A reader never gets an instance that was built from one that any thread had seen fail before
//!   (I1).
//! - After the last failure, all services become ready, built from current instances (I2).
//! - Every wait ends (W). After the close all providers end, and all values are dropped.
//!
//! ```text
//! provider of each service:  begin, wait for its dependencies, ready, failed, and again
//! failers:                       fail            fail_instance  fail
//! readers:                 read a dependency, then the service
//! main:                                                               wait for all, check, close
//! ```
#![cfg(shuttle)]

use mainstay_shuttle_tests::{Behavior, GraphShape, World, explore};

#[test]
fn services_recover_from_random_failures_without_breaking_i1_or_i2() {
    explore("random_failures", 3_000, |mut random| {
        let shape = GraphShape { services: (5, 50), dependencies: 3, declared: 60 };
        let world = World::new(&shape, &mut random);
        let behavior = Behavior { failures: random.below(2), ..Behavior::default() };
        world.run(behavior, &mut random, |world, workers, random| {
            for _ in 0..2 + random.below(2) {
                let (world, random) = (world.clone(), random.fork());
                workers.thread(move || world.fail_some(4, random));
            }
            for _ in 0..2 {
                let (world, random) = (world.clone(), random.fork());
                workers.thread(move || world.read_some(20, random));
            }
        });
    });
}
