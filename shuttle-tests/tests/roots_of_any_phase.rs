//! Services fail in any phase: ready, starting and down. Most of them are built without some of
//! their declared dependencies, so that a service may be ready while a dependency is down.
//!
//! - After `fail` has returned, every instance has failed that was ready before and that depended
//!   on the service by declared edges, whatever the phase of the service was.
//! - A service that was down is not left condemned: after the last failure all services become
//!   ready, built from current instances (I2, A3).
//! - I1 holds, and every wait ends (W).
//!
//! ```text
//! providers:  begin      ready, without a dependency that is down                 ready
//! failers:         fail: starting                        fail: down      fail: ready
//! ```
#![cfg(shuttle)]

use mainstay_shuttle_tests::{Behavior, GraphShape, World, explore};

#[test]
fn a_failure_reaches_every_dependent_whatever_the_phase_of_its_root() {
    explore("roots_of_any_phase", 2_500, |mut random| {
        let shape = GraphShape { services: (4, 30), dependencies: 3, declared: 90 };
        let world = World::new(&shape, &mut random);
        let behavior = Behavior {
            skips: 40 + random.below(40),
            abandons: random.below(30),
            failures: random.below(2),
            replacements: random.below(2),
            ..Behavior::default()
        };
        world.run(behavior, &mut random, |world, workers, random| {
            for _ in 0..2 + random.below(2) {
                let (world, random) = (world.clone(), random.fork());
                workers.thread(move || world.fail_closures(6, random));
            }
            let (world, random) = (world.clone(), random.fork());
            workers.thread(move || world.read_some(20, random));
        });
    });
}
