//! S18: the members of a group fail together, and none is published while the group has given up.
//! loom reports a lost wake-up as a deadlock, because the clock is paused.
//!
//! ```text
//! a fails:       condemn a | search: b is starting, condemn b | take down b and a
//! attempt at b:                        publish
//!
//! a fails:       condemn a | search | walk: c was added since, condemn c | its group: condemn d
//! attempt at c:                       publish c -> a
//!
//! a gives up:    set given up | read b: down, or fail it | wake the slot of b
//! b:             begin an attempt | ask the group | build, publish       sleep
//! ```
//!
//! What must not happen: a member keeps an attempt or an instance that it had when another one
//! failed; an instance fails twice; a slot stays condemned; a member is published although its
//! group has given up, or never learns of it.
#![cfg(loom)]

use std::{future::ready, time::Duration};

use loom::{
    future::block_on,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread::spawn,
};
use mainstay::{Event, EventKind, Observer, Registry, supervise::GroupPolicy};
use mainstay_loom_tests::{PausedClock, Value, join, model, now_or_never, read_state, services};

/// Preemption bound: 3.
#[test]
fn two_members_that_fail_at_once_fail_once_each() {
    model("two members that fail at once fail once each", Some(3), || {
        let (registry, [a, b], providers) = services(&[]);
        registry.group([a, b], GroupPolicy::default()).unwrap();
        let running = [providers[0].start(&[]), providers[1].start(&[])];
        let failed = running.map(|running| spawn(move || running.fail("out").failed)).map(join);
        assert_eq!(failed.iter().sum::<usize>(), 2);
        for (id, provider) in [a, b].into_iter().zip(&providers) {
            // Two, if both cascades have begun before each other's search.
            let (generation, is_ready) = read_state(&registry, id);
            assert!(!is_ready && (1..=2).contains(&generation), "generation {generation}");
            // No slot is condemned that nothing takes down.
            drop(provider.start(&[]));
        }
    });
}

/// No preemption bound.
#[test]
fn an_attempt_of_another_member_does_not_survive() {
    model("an attempt of another member does not survive", None, || {
        let (registry, [a, b], [provide_a, provide_b]) = services(&[]);
        registry.group([a, b], GroupPolicy::default()).unwrap();
        let (running, attempt) = (provide_a.start(&[]), provide_b.attempt());
        let fails = spawn(move || running.fail("out"));
        let publishes = spawn(move || attempt.ready(Value::new(0)).ok());
        join(fails);
        let published = join(publishes);
        assert_eq!(read_state(&registry, b), (1, false));
        drop((published, provide_a, provide_b));
    });
}

/// Preemption bound: 2.
#[test]
fn a_group_that_is_reached_over_a_late_edge_fails_too() {
    model("a group that is reached over a late edge fails too", Some(2), || {
        let (registry, [a, b, c, d], [provide_a, provide_b, provide_c, provide_d]) = services(&[]);
        // So that the search for groups does not end at once.
        registry.group([a, b], GroupPolicy::default()).unwrap();
        registry.group([c, d], GroupPolicy::default()).unwrap();
        let (of_a, of_d) = (provide_a.start(&[]), provide_d.start(&[]));
        let attempt = provide_c.attempt();
        let fails = spawn(move || of_a.fail("out"));
        let builds = spawn(move || {
            let of_a = now_or_never(attempt.wait_for(a)).and_then(Result::ok);
            let received = of_a.is_some();
            (attempt.ready(Value::new(0)).ok(), received)
        });
        join(fails);
        let (published, received) = join(builds);
        let ((generation, is_ready), (_, d_is_ready)) =
            (read_state(&registry, c), read_state(&registry, d));
        assert!(!(received && is_ready), "built from an instance that has failed");
        assert!(generation == 0 || !d_is_ready, "d has not failed with c");
        drop((published, of_d, provide_a, provide_b, provide_c, provide_d));
    });
}

/// Closes the registry when both members have given up.
struct Closes(Arc<AtomicUsize>);

impl Observer for Closes {
    fn event(&self, registry: &Registry, event: &Event<'_>) {
        if let EventKind::GivenUp(_) = event.kind {
            assert!(registry.get(registry.id::<u8>("b").unwrap()).is_err(), "b was published");
            if self.0.fetch_add(1, SeqCst) == 1 {
                registry.close();
            }
        }
    }
}

/// Preemption bound: 1.
#[test]
fn a_group_gives_up_while_a_member_is_built() {
    model("a group gives up while a member is built", Some(1), || {
        let given_up = Arc::new(AtomicUsize::new(0));
        let registry = Registry::builder(2)
            .unwrap()
            .clock(PausedClock::new())
            .observer(Closes(Arc::clone(&given_up)))
            .build();
        let [a, b] = ["a", "b"].map(|name| registry.register::<u8>(name).unwrap());
        let policy = GroupPolicy::default().max_failures(0, Duration::from_secs(60));
        registry.group([a, b], policy).unwrap();
        // Boxed: the stack of a thread of loom is small.
        let of_a = Box::pin(registry.supervise(a).unwrap().run(|_| ready(Err::<u8, _>("no luck"))));
        let of_b = Box::pin(registry.supervise(b).unwrap().run(|_| ready(2)));
        let threads = (spawn(move || block_on(of_a)), spawn(move || block_on(of_b)));
        join(threads.0);
        join(threads.1);
        assert_eq!(given_up.load(SeqCst), 2);
    });
}
