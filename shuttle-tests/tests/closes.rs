//! Waits of every kind, on threads and in tasks, patient and dropped at any point, while services fail; and a close
//! in the middle of it:
//!
//! - a wait that ends gives what it says: an instance that holds up against all that was seen before, a failure of
//!   the generation that was waited on, or that the registry is closed, and then it is;
//! - a dropped wait takes no wake-up with it that is another's;
//! - the close ends every wait: nobody is left, and no value.
//!
//! ```text
//! waiters:    wait ready ...       dropped      wait ready ...                           closed
//! providers:  begin ... wait for ...     dropped     begin, wait for ...      failed ... closed
//! failer:                         fail                            fail
//! closer:                                                                  close
//! ```
#![cfg(shuttle)]

use mainstay_shuttle_tests::{Habits, Shape, World, explore};
use shuttle::{future, thread};

#[test]
fn closes() {
    explore("closes", 5_000, |mut random| {
        let shape = Shape { services: (5, 25), dependencies: 3, declared: 30 };
        let world = World::new(&shape, &mut random);
        let habits = Habits {
            fickle: 10,
            moody: 15,
            failures: random.below(2),
            replacements: random.below(2),
            ..Habits::default()
        };
        let (patient, steps) = (random.chance(70), random.below(600));
        world.play(habits, &mut random, |world, crew, random| {
            for n in 0..4 + random.below(5) {
                let (world, numbers) = (world.clone(), random.fork());
                let wait = world.wait_for_some(8, patient && n > 0, numbers);
                if random.chance(50) {
                    crew.task(wait);
                } else {
                    crew.thread(move || future::block_on(wait));
                }
            }
            let (failer, numbers) = (world.clone(), random.fork());
            crew.thread(move || failer.fail_some(5, numbers));
            let world = world.clone();
            crew.thread(move || {
                (0..steps).for_each(|_| thread::yield_now());
                world.registry.close();
            });
        });
    });
}
