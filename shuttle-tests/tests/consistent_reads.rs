//! Readers of every kind, while services fail and values are replaced.
//!
//! - `get`, `get_arc` and a cached reader never go back behind what anybody has read, and I1 holds for each;
//! - what `get_all` gives was current at one instant: no service is beside one that it rests on in another
//!   generation;
//! - a replacement comes back when it is refused, and leaves dependents as they are.
//!
//! ```text
//! provider of a:  ready        replace                      failed         ready, replace
//! provider of b:         ready          failed, ready              ready
//! readers:            a              b and a           a and b            a
//! ```
#![cfg(shuttle)]

use mainstay::{GetAllError, Guard};
use mainstay_shuttle_tests::{Habits, Random, Shape, World, explore};
use shuttle::thread;

#[test]
fn consistent_reads() {
    explore("consistent_reads", 5_000, |mut random| {
        let shape = Shape { services: (5, 20), dependencies: 3, declared: 50 };
        let world = World::new(&shape, &mut random);
        let habits = Habits { replacements: 2, failures: random.below(2), ..Habits::default() };
        world.play(habits, &mut random, |world, crew, random| {
            for _ in 0..2 {
                let (world, random) = (world.clone(), random.fork());
                crew.thread(move || world.fail_some(4, random));
            }
            let (reader, numbers) = (world.clone(), random.fork());
            crew.thread(move || read_cached(&reader, 20, numbers));
            for _ in 0..2 {
                let (world, random) = (world.clone(), random.fork());
                crew.thread(move || read_together(&world, 15, random));
            }
        });
    });
}

/// By a reader that keeps what it has, and by one that does not.
fn read_cached(world: &World, times: usize, mut random: Random) {
    let service = world.any(&mut random);
    let mut cached = world.registry.cached(world.ids[service]).expect("it is ours");
    for _ in 0..times {
        if random.chance(30) {
            world.read(service);
        }
        let before = world.before();
        before.check_read(service, cached.get());
        if random.chance(30) {
            thread::yield_now();
        }
    }
}

/// Four at one instant, one of them from below another.
fn read_together(world: &World, times: usize, mut random: Random) {
    for _ in 0..times {
        let mut services = [0; 4].map(|_| world.any(&mut random));
        if let Some(&below) = world.below[services[0]].first() {
            services[3] = below;
        }
        let [a, b, c, d] = services.map(|service| world.ids[service]);
        let before = world.before();
        let (a, b, c, d) = match world.registry.get_all((a, b, c, d)) {
            Ok(guards) => guards,
            Err(GetAllError::NotReady(_) | GetAllError::Contended { .. }) => continue,
            Err(error) => unreachable!("{error}"),
        };
        before.check_together(&[&a, &b, &c, &d].map(Guard::instance));
    }
}
