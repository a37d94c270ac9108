//! A cascade fails no instance that is published after its root was taken down by another cascade.
//!
//! The root has dependents that are down, so a cascade checks its members again after its fence. It
//! may then find the root ready: taken down by another cascade, and published again. The root is
//! built from no member, so it is left alone.
//!
//! ```text
//! reporter:   condemn x. Dependents: down |                      | check again: x has restarted
//! provider:                               | fail x, begin, ready |
//! ```
#![cfg(shuttle)]

use std::sync::{Arc, Mutex};

use mainstay::{Registry, ServiceId};
use mainstay_shuttle_tests::{Workers, explore};

#[test]
fn a_late_report_fails_no_later_instance() {
    explore("late_reports", 5_000, |mut random| {
        let dependents = 1 + random.below(3);
        let registry = Registry::with_capacity(1 + dependents).expect("the number is small");
        let register = |name: usize| -> ServiceId<u64> {
            registry.register(&name.to_string()).expect("capacity for all")
        };
        let x = register(0);
        for dependent in 1..=dependents {
            registry.depends(register(dependent)).on(x).expect("no cycle");
        }
        let provider = registry.provide(x).expect("no other provider");
        let attempt = provider.begin().wait_blocking().expect("x is down");
        let running = attempt.ready(0).expect("nothing fails it yet");

        let mut workers = Workers::default();
        workers.thread(move || {
            running.fail("broken");
        });
        let (restarter, next) = (registry.clone(), Arc::new(Mutex::new(None)));
        let published = Arc::clone(&next);
        workers.thread(move || {
            restarter.fail(x, "again").expect("the id is of this registry");
            let attempt = provider.begin().wait_blocking().expect("not closed");
            let running = attempt.ready(1).expect("the next instance is not reported");
            *published.lock().expect("no thread panics with it") = Some((running, provider));
        });
        workers.join();
        assert_eq!(*registry.get(x).expect("the next instance has failed"), 1);
        drop(next);
    });
}
