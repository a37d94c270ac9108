//! A service has at most one provider and at most one attempt at any time. The next provider sees
//! everything that the previous one did.
//!
//! ```text
//! old:  drop the provider: the service fails, unset `provided`
//! new:                                                   provide, the service is down, begin
//! ```
#![cfg(loom)]

use loom::thread::spawn;
use mainstay::error::ProvideError;
use mainstay_loom_tests::{Value, join, model, now_or_never, read_state, services};

#[test]
fn one_of_two_calls_of_provide_succeeds() {
    model("one of two calls of provide succeeds", None, || {
        let (registry, [x], [provider]) = services(&[]);
        drop(provider);
        let rivals =
            [registry.clone(), registry].map(|registry| spawn(move || registry.provide(x)));
        let results = rivals.map(join);
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1, "{results:?}");
        for result in results {
            assert!(matches!(result, Ok(_) | Err(ProvideError::AlreadyProvided { .. })));
        }
    });
}

/// The new provider sees the failure, and need not wait for it.
#[test]
fn the_next_provider_sees_the_work_of_the_previous_one() {
    model("the next provider sees the work of the previous one", None, || {
        let (registry, [x], [provider]) = services(&[]);
        let running = provider.start(&[]);
        let old = spawn(move || {
            drop(provider);
            running
        });
        let new = spawn(move || {
            let provider = registry.provide(x).ok()?;
            assert_eq!(
                read_state(&registry, x),
                (1, false),
                "the instance of the previous provider is still ready"
            );
            let attempt =
                now_or_never(provider.begin()).expect("the slot is free").expect("not closed");
            assert_eq!(attempt.generation(), 1, "the attempt is not in a new generation");
            let running = attempt.ready(Value::new(1)).expect("nothing fails x");
            assert_eq!(registry.get(x).expect("just published").version, 1);
            Some((running, provider))
        });
        let (running, next) = (join(old), join(new));
        drop((running, next));
    });
}

/// Two threads begin with one provider. The second attempt begins only after the instance of the
/// first one has failed. (Preemption bound: 2.)
#[test]
fn each_generation_has_at_most_one_attempt() {
    model("each generation has at most one attempt", Some(2), || {
        let (_registry, [_], [provider]) = services(&[]);
        let provider = std::sync::Arc::new(provider);
        let rivals = [provider.clone(), provider].map(|provider| {
            spawn(move || {
                let attempt = provider.begin().wait_blocking().expect("not closed");
                let generation = attempt.generation().get();
                let running = attempt
                    .ready(Value::new(generation))
                    .expect("no other thread fails it before it is published");
                assert_eq!(
                    running.instance().expect("no other thread fails the instance").version,
                    generation
                );
                drop(running);
                (generation, provider)
            })
        });
        let mut generations = rivals.map(|rival| join(rival).0);
        generations.sort_unstable();
        assert_eq!(generations, [0, 1], "two attempts of one generation");
    });
}
