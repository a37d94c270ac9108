//! A cascade leaves a service alone that is down when the cascade reaches it. The service keeps its
//! generation, and the reason of its own last attempt.
//!
//! ```text
//! cascade:   condemn x | d: Starting or Down? condemn d or leave it alone | take down d, x
//! d:                                           Starting -> Down: "no port"
//! ```
//!
//! If the cascade has condemned `d` already, it ends the generation although the attempt has failed
//! in between, and `d` may report either reason. What must not happen: the cascade counts an
//! attempt that has ended by itself, or ends a generation that had no attempt; a service that was
//! left alone stays condemned (A3); an attempt that begins at it is built from the instance of `x`
//! that fails (I2).
#![cfg(loom)]

use loom::thread::spawn;
use mainstay::{Phase, Registry};
use mainstay_loom_tests::{Id, assert_i2, join, model, now_or_never, services, try_publish};

/// The generation, the root of the last failure, and its reason.
fn last_failure(registry: &Registry, id: Id) -> (u64, Option<(String, String)>) {
    let status = registry.status(id).unwrap();
    let failure = status.last_failure.map(|f| (f.root.to_string(), f.reason.to_string()));
    (status.generation.get(), failure)
}

fn failed(root: &str, reason: &str) -> Option<(String, String)> {
    Some((root.into(), reason.into()))
}

/// Preemption bound: 3.
#[test]
fn a_failed_attempt_keeps_its_reason_or_is_invalidated() {
    model("a failed attempt keeps its reason or is invalidated", Some(3), || {
        let (registry, [x, d], [x_provider, d_provider]) = services(&[(1, 0)]);
        let x_running = x_provider.start(&[]);
        let attempt = d_provider.attempt();

        let failer = spawn({
            let registry = registry.clone();
            move || registry.fail(x, "edited").unwrap()
        });
        let attempt = spawn(move || attempt.fail("no port").is_ok());
        let cascade = join(failer);
        let by_itself = join(attempt);
        assert_eq!((cascade.failed, cascade.invalidated), (1, usize::from(!by_itself)));
        let end = last_failure(&registry, d);
        let (own, of_x) = ((0, failed("1", "no port")), (1, failed("0", "edited")));
        assert!(end == of_x || (by_itself && end == own), "the wrong end was recorded: {end:?}");
        assert_eq!(d_provider.attempt().generation(), end.0, "A3: d stays condemned");
        drop(x_running);
    });
}

/// Preemption bound: 3.
#[test]
fn an_attempt_that_begins_during_a_cascade_is_counted_or_left_alone() {
    model("an attempt that begins during a cascade is counted or left alone", Some(3), || {
        let (registry, [x, d], [x_provider, d_provider]) = services(&[(1, 0)]);
        let x_running = x_provider.start(&[]);
        d_provider.attempt().fail("no port").unwrap();

        let failer = spawn({
            let registry = registry.clone();
            move || registry.fail(x, "edited").unwrap()
        });
        let beginner = spawn(move || (now_or_never(d_provider.begin()), d_provider));
        let cascade = join(failer);
        let (attempt, d_provider) = join(beginner);
        let expected = match cascade.invalidated {
            0 => (0, failed("1", "no port")),
            _ => (1, failed("0", "edited")),
        };
        assert_eq!(last_failure(&registry, d), expected);
        if let Some(Ok(attempt)) = attempt {
            assert_eq!(attempt.generation(), 0, "the cascade has given a generation to a slot");
            assert_eq!(attempt.is_invalidated(), cascade.invalidated == 1);
        } else {
            assert_eq!(cascade.invalidated, 0, "no attempt had begun");
        }
        assert_eq!(d_provider.attempt().generation(), expected.0, "A3: d stays condemned");
        drop(x_running);
    });
}

/// An attempt begins at a slot that a cascade has condemned and leaves alone. It is not built from
/// the failed instance. (Preemption bound: 2.)
#[test]
fn an_attempt_at_a_slot_that_is_left_alone_keeps_i2() {
    model("an attempt at a slot that is left alone keeps i2", Some(2), || {
        let (registry, ids @ [x, _], [x_provider, d_provider]) = services(&[(1, 0)]);
        let x_running = x_provider.start(&[]);

        let failer = spawn({
            let registry = registry.clone();
            move || registry.fail(x, "edited").unwrap()
        });
        let builder = spawn(move || {
            let attempt = now_or_never(d_provider.begin()).and_then(Result::ok);
            (attempt.and_then(|attempt| try_publish(attempt, &[x])), d_provider)
        });
        join(failer);
        let (d_running, d_provider) = join(builder);
        assert_i2(&registry, &ids);
        if d_running.is_none() {
            assert!(d_provider.try_build(&[]).is_some(), "A3: d stays condemned");
        }
        drop((x_running, d_running));
    });
}

/// Two cascades reach a service that is down, while an attempt begins. (Preemption bound: 2.)
#[test]
fn two_cascades_leave_no_slot_condemned() {
    model("two cascades leave no slot condemned", Some(2), || {
        let (registry, [x, y, d], [x_provider, y_provider, d_provider]) =
            services(&[(2, 0), (2, 1)]);
        let running = (x_provider.start(&[]), y_provider.start(&[]));

        let failers = [(x, "x"), (y, "y")].map(|(root, reason)| {
            let registry = registry.clone();
            spawn(move || registry.fail(root, reason).unwrap())
        });
        let beginner = spawn(move || (now_or_never(d_provider.begin()), d_provider));
        let cascades = failers.map(join);
        let (attempt, d_provider) = join(beginner);
        let invalidated: usize = cascades.iter().map(|cascade| cascade.invalidated).sum();
        let (generation, failure) = last_failure(&registry, d);
        assert!(invalidated <= 1, "one attempt is counted twice");
        assert_eq!(generation > 0, invalidated > 0, "a generation that no attempt had");
        assert_eq!(failure.is_some(), invalidated > 0, "a failure that moved nothing");
        let begun = attempt.and_then(Result::ok);
        assert_eq!(begun.is_some_and(|attempt| attempt.is_invalidated()), invalidated > 0);
        assert_eq!(d_provider.attempt().generation(), generation, "A3: d stays condemned");
        drop(running);
    });
}

/// The root is down, and a dependent is ready that was declared and did not wait. The cascade takes
/// the dependent down and leaves the root alone, also if the root is provided at the same time.
/// (Preemption bound: 2.)
#[test]
fn a_root_that_is_down_fails_its_dependents_only() {
    model("a root that is down fails its dependents only", Some(2), || {
        let (registry, ids @ [x, d], [x_provider, d_provider]) = services(&[(1, 0)]);
        let d_running = d_provider.start(&[]);

        let failer = spawn({
            let registry = registry.clone();
            move || {
                let cascade = registry.fail(x, "edited").unwrap();
                assert_eq!(registry.status(d).unwrap().phase, Phase::Down, "`fail` has returned");
                cascade
            }
        });
        let beginner = spawn(move || (now_or_never(x_provider.begin()), x_provider));
        let cascade = join(failer);
        let (attempt, x_provider) = join(beginner);
        assert_eq!(cascade.failed, 1);
        assert_eq!(last_failure(&registry, d), (1, failed("0", "edited")));
        let invalidated = cascade.invalidated as u64;
        let of_x = if invalidated == 0 { None } else { failed("0", "edited") };
        assert_eq!(last_failure(&registry, x), (invalidated, of_x), "the root was down");
        drop(attempt);
        let running = (x_provider.start(&[]), d_provider.start(&[x]));
        assert_i2(&registry, &ids);
        drop((running, d_running));
    });
}
