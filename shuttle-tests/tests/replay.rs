//! What a failure prints repeats it, alone:
//!
//! - the plan of a failed schedule, read back from its text, fails in the same way, in one schedule;
//! - the same seed makes the same schedules, also over all of mainstay.
//!
//! ```text
//! one thread:    load            store
//! another:             load               store: one increment is lost
//! ```
#![cfg(shuttle)]

use std::sync::Arc;

use mainstay_shuttle_tests::{Done, Habits, Kind, Plan, Plans, Random, Shape, World, run};
use shuttle::{
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

/// Loses an increment, under few schedules. What it says then is another number in each.
fn loses_an_increment(mut random: Random) {
    let (counter, add) = (Arc::new(AtomicU64::new(0)), random.next() >> 8);
    let threads = [add, 1, 1].map(|add| {
        let counter = Arc::clone(&counter);
        thread::spawn(move || {
            let read = counter.load(Ordering::SeqCst);
            counter.store(read + add, Ordering::SeqCst);
        })
    });
    for thread in threads {
        thread.join().expect("it does not panic");
    }
    assert_eq!(counter.load(Ordering::SeqCst), add + 2);
}

#[test]
fn a_failure_is_repeated() {
    let mut kinds = [0, 0];
    for seed in 0..30 {
        let failed = run(Plans::Many { schedules: 1_000, seed }, loses_an_increment);
        let failed = failed.expect_err("it fails under many schedules");
        let plan = failed.done.last.expect("one has failed");
        kinds[usize::from(plan.kind == Kind::Random)] += 1;

        let text = plan.to_string();
        let again: Plan = text.parse().expect("it is a plan");
        let again = run(Plans::Only(again), loses_an_increment).expect_err("it fails again");
        assert_eq!(again.done.schedules, 1);
        let message = |panic: Box<dyn std::any::Any + Send>| panic.downcast::<String>().ok();
        let (one, other) = (message(failed.panic), message(again.panic));
        assert!(one.is_some() && one == other, "{text}: {one:?}, then {other:?}");
    }
    assert!(kinds.iter().all(|&failures| failures > 0), "not both kinds have failed: {kinds:?}");
}

#[test]
fn a_seed_repeats_a_run() {
    let play = |seed| -> Done {
        let plans = Plans::Many { schedules: 60, seed };
        let done = run(plans, |mut random| {
            let shape = Shape { services: (5, 15), dependencies: 3, declared: 50 };
            let world = World::new(&shape, &mut random);
            let habits = Habits { fickle: 20, moody: 10, replacements: 1, ..Habits::default() };
            world.play(habits, &mut random, |world, crew, random| {
                let (world, random) = (world.clone(), random.fork());
                crew.thread(move || world.read_some(10, random));
            });
        });
        done.unwrap_or_else(|failed| std::panic::resume_unwind(failed.panic))
    };
    let (one, same, other) = (play(17), play(17), play(18));
    assert_eq!(one, same);
    assert_ne!(one, other);
}
