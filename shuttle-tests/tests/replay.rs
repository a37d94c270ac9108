//! A failure prints what repeats it:
//!
//! - the plan of a failed schedule, parsed from its text, fails in the same way, in one schedule;
//! - the same seed results in the same schedules, also with all of mainstay.
//!
//! ```text
//! one thread:    load            store
//! another:             load               store: one increment is lost
//! ```
#![cfg(shuttle)]

use std::sync::Arc;

use mainstay_shuttle_tests::{
    Behavior, GraphShape, Kind, Plan, Plans, Random, Summary, World, run,
};
use shuttle::{
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

/// Loses an increment under few schedules. The number in its message differs between schedules.
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
        thread.join().expect("the thread does not panic");
    }
    assert_eq!(counter.load(Ordering::SeqCst), add + 2);
}

#[test]
fn a_printed_plan_repeats_its_failure() {
    let mut kinds = [0, 0];
    for seed in 0..30 {
        let failed = run(Plans::Many { schedules: 1_000, seed }, loses_an_increment);
        let failed = failed.expect_err("the scenario fails under some schedule");
        let plan = failed.done.last.expect("a schedule has failed");
        kinds[usize::from(plan.kind == Kind::Random)] += 1;

        let text = plan.to_string();
        let again: Plan = text.parse().expect("the text is a plan");
        let again = run(Plans::Only(again), loses_an_increment).expect_err("the plan fails again");
        assert_eq!(again.done.schedules, 1);
        let message = |panic: Box<dyn std::any::Any + Send>| panic.downcast::<String>().ok();
        let (one, other) = (message(failed.panic), message(again.panic));
        assert!(one.is_some() && one == other, "{text}: {one:?}, then {other:?}");
    }
    assert!(kinds.iter().all(|&failures| failures > 0), "not both kinds have failed: {kinds:?}");
}

#[test]
fn a_seed_repeats_a_run() {
    let run_once = |seed| -> Summary {
        let plans = Plans::Many { schedules: 60, seed };
        let done = run(plans, |mut random| {
            let shape = GraphShape { services: (5, 15), dependencies: 3, declared: 50 };
            let world = World::new(&shape, &mut random);
            let behavior =
                Behavior { skips: 20, abandons: 10, replacements: 1, ..Behavior::default() };
            world.run(behavior, &mut random, |world, workers, random| {
                let (world, random) = (world.clone(), random.fork());
                workers.thread(move || world.read_some(10, random));
            });
        });
        done.unwrap_or_else(|failed| std::panic::resume_unwind(failed.panic))
    };
    let (first, same, other) = (run_once(17), run_once(17), run_once(18));
    assert_eq!(first, same);
    assert_ne!(first, other);
}
