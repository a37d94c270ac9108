//! Readers of every kind, while services fail and values are replaced.
//!
//! - `get`, `get_arc` and a cached reader never return an older instance than any thread has read,
//!   and I1 holds for each of them.
//! - The instances that `get_all` returns were current at one instant: no service is returned
//!   together with a dependency in another generation than the one that it was built from.
//! - A replacement that is refused returns its value, and a replacement leaves dependents as they
//!   are.
//!
//! ```text
//! provider of a:  ready        replace                      failed         ready, replace
//! provider of b:         ready          failed, ready              ready
//! readers:            a              b and a           a and b            a
//! ```
#![cfg(shuttle)]

use mainstay::{Guard, error::GetAllError};
use mainstay_shuttle_tests::{Behavior, GraphShape, Random, World, explore};
use shuttle::thread;

#[test]
fn readers_never_go_back_and_get_all_is_consistent() {
    explore("consistent_reads", 5_000, |mut random| {
        let shape = GraphShape { services: (5, 20), dependencies: 3, declared: 50 };
        let world = World::new(&shape, &mut random);
        let behavior =
            Behavior { replacements: 2, failures: random.below(2), ..Behavior::default() };
        world.run(behavior, &mut random, |world, workers, random| {
            for _ in 0..2 {
                let (world, random) = (world.clone(), random.fork());
                workers.thread(move || world.fail_some(4, random));
            }
            let (reader, forked) = (world.clone(), random.fork());
            workers.thread(move || read_cached(&reader, 20, forked));
            for _ in 0..2 {
                let (world, random) = (world.clone(), random.fork());
                workers.thread(move || read_together(&world, 15, random));
            }
        });
    });
}

/// Reads one service with a cached reader, and sometimes also without.
fn read_cached(world: &World, times: usize, mut random: Random) {
    let service = world.any_service(&mut random);
    let mut cached = world.registry.cached(world.ids[service]).expect("the id is of this registry");
    for _ in 0..times {
        if random.chance(30) {
            world.read(service);
        }
        let before = world.observations();
        before.check_read(service, cached.get());
        if random.chance(30) {
            thread::yield_now();
        }
    }
}

/// Reads four services at one instant, one of them a dependency of another one.
fn read_together(world: &World, times: usize, mut random: Random) {
    for _ in 0..times {
        let mut services = [0; 4].map(|_| world.any_service(&mut random));
        if let Some(&dependency) = world.dependencies[services[0]].first() {
            services[3] = dependency;
        }
        let [a, b, c, d] = services.map(|service| world.ids[service]);
        let before = world.observations();
        let (a, b, c, d) = match world.registry.get_all((a, b, c, d)) {
            Ok(guards) => guards,
            Err(GetAllError::NotReady(_) | GetAllError::Contended { .. }) => continue,
            Err(error) => unreachable!("{error}"),
        };
        before.check_together(&[&a, &b, &c, &d].map(Guard::instance));
    }
}
