//! Waits of every kind, on threads and in tasks, some of them dropped at a random point, while
//! services fail and the registry is closed.
//!
//! - A wait that ends returns a correct result: an instance that is not older than what any thread
//!   had seen before, a failure of the generation that was waited for, or "closed" if the registry
//!   is.
//! - A dropped wait takes no wake-up from another one.
//! - The close ends every wait: all threads end, and all values are dropped.
//!
//! ```text
//! waiters:    wait_ready ...      dropped      wait_ready ...                        closed
//! providers:  begin ... wait_for ...     dropped     begin, wait_for ...  failed ... closed
//! failer:                         fail                            fail
//! closer:                                                              close
//! ```
#![cfg(shuttle)]

use mainstay_shuttle_tests::{Behavior, GraphShape, World, explore};
use shuttle::{future, thread};

#[test]
fn close_ends_every_wait_and_dropped_waits_lose_no_wakeup() {
    explore("close_ends_waits", 5_000, |mut random| {
        let shape = GraphShape { services: (5, 25), dependencies: 3, declared: 30 };
        let world = World::new(&shape, &mut random);
        let behavior = Behavior {
            skips: 10,
            abandons: 15,
            failures: random.below(2),
            replacements: random.below(2),
            ..Behavior::default()
        };
        let (patient, steps) = (random.chance(70), random.below(600));
        world.run(behavior, &mut random, |world, workers, random| {
            for n in 0..4 + random.below(5) {
                let (world, forked) = (world.clone(), random.fork());
                let wait = world.wait_for_some(8, patient && n > 0, forked);
                if random.chance(50) {
                    workers.task(wait);
                } else {
                    workers.thread(move || future::block_on(wait));
                }
            }
            let (failer, forked) = (world.clone(), random.fork());
            workers.thread(move || failer.fail_some(5, forked));
            let world = world.clone();
            workers.thread(move || {
                (0..steps).for_each(|_| thread::yield_now());
                world.registry.close();
            });
        });
    });
}
