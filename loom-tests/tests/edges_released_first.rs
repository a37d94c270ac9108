//! An attempt that fails releases its edges before its slot is free. The next attempt has the same
//! generation, so a late release would take the edges of the next attempt.
//!
//! ```text
//! first:   release d -> x, d -> y | slot free |
//! next:                                       | begin, wait_for(x), ready: remove d -> y only
//! ```
//!
//! What must not happen: the late release marks `d -> x` as unused, the publication removes it, and
//! a failure of `x` misses `d`, which was built from `x` (I2).
#![cfg(loom)]

use loom::thread::spawn;
use mainstay::{Attempt, Registry};
use mainstay_loom_tests::{
    Id, TestProvider, Value, assert_i2, join, model, now_or_never, read_state, services,
    try_publish,
};

/// `d` is built again from `x` while its first attempt, which has used `x` and `y`, ends by `end`.
fn check(name: &'static str, end: fn(Attempt<Value>)) {
    model(name, Some(2), move || {
        let (registry, [x, y, d], [x_provider, y_provider, d_provider]) = services(&[]);
        let below = (x_provider.start(&[]), y_provider.start(&[]));
        let first = d_provider.attempt();
        for dependency in [x, y] {
            let instance = now_or_never(first.wait_for(dependency)).expect("it is ready");
            drop(instance.expect("nothing fails"));
        }

        let ending = spawn(move || end(first));
        let next = spawn(move || {
            let attempt = now_or_never(d_provider.begin()).and_then(Result::ok);
            (attempt.and_then(|attempt| try_publish(attempt, &[x])), d_provider)
        });
        join(ending);
        let (running, d_provider) = join(next);
        fail_x(&registry, [x, d], running.is_some());
        drop((running, d_provider, below));
    });
}

fn fail_x(registry: &Registry, [x, d]: [Id; 2], was_built: bool) {
    assert_eq!(read_state(registry, d).1, was_built);
    registry.fail(x, "gone").unwrap();
    assert_i2(registry, &[x, d]);
    assert!(!read_state(registry, d).1, "I2: d was built from x");
}

/// Preemption bound: 2.
#[test]
fn a_failed_attempt_takes_no_edge_of_the_next_one() {
    check("a failed attempt takes no edge of the next one", |first| {
        first.fail("try again").unwrap();
    });
}

/// Preemption bound: 2.
#[test]
fn a_dropped_attempt_takes_no_edge_of_the_next_one() {
    check("a dropped attempt takes no edge of the next one", drop);
}

/// The edges of the first attempt stay until the next publication, and are removed by it: a failure
/// of a service that only the first attempt used does not reach the second instance. (Preemption
/// bound: 2.)
#[test]
fn an_edge_that_only_the_failed_attempt_used_is_removed() {
    model("an edge that only the failed attempt used is removed", Some(2), || {
        let (registry, [y, d], [y_provider, d_provider]): (_, _, [TestProvider; 2]) = services(&[]);
        let y_running = y_provider.start(&[]);
        let first = d_provider.attempt();
        drop(now_or_never(first.wait_for(y)).expect("it is ready").expect("nothing fails"));

        let ending = spawn(move || first.fail("try again").unwrap());
        let next = spawn(move || (d_provider.try_build(&[]), d_provider));
        join(ending);
        let (running, d_provider) = join(next);
        registry.fail(y, "gone").unwrap();
        assert_eq!(read_state(&registry, d).1, running.is_some(), "d was not built from y");
        drop((running, d_provider, y_running));
    });
}
