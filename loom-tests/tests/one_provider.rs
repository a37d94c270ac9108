//! At any time a service has at most one provider, and at most one attempt; and who takes the role over sees
//! all that the last one did.
//!
//! ```text
//! old:  provider dropped: the service fails | the role is free
//! new:                                                          provide, the service is down, begin
//! ```
#![cfg(loom)]

use loom::thread::spawn;
use mainstay::ProvideError;
use mainstay_loom_tests::{join, look, model, now, plain, services};

#[test]
fn one_of_two_wins() {
    model("provide, two at once", None, || {
        let (registry, [x], [role]) = services(&[]);
        drop(role);
        let rivals =
            [registry.clone(), registry].map(|registry| spawn(move || registry.provide(x)));
        let roles = rivals.map(join);
        assert_eq!(roles.iter().filter(|role| role.is_ok()).count(), 1, "{roles:?}");
        for role in roles {
            assert!(matches!(role, Ok(_) | Err(ProvideError::AlreadyProvided { .. })));
        }
    });
}

/// The newcomer sees the failure, and need not wait for it.
#[test]
fn handed_over() {
    model("provide, handed over", None, || {
        let (registry, [x], [role]) = services(&[]);
        let running = role.start(&[]);
        let old = spawn(move || {
            drop(role);
            running
        });
        let new = spawn(move || {
            let provider = registry.provide(x).ok()?;
            assert_eq!(look(&registry, x), (1, false), "what the last provider had is still there");
            let attempt = now(provider.begin()).expect("it is free").expect("not closed");
            assert_eq!(attempt.generation(), 1, "not a fresh generation");
            let running = attempt.ready(plain(1)).expect("nothing fails it");
            assert_eq!(registry.get(x).expect("just published").mark, 1);
            Some((running, provider))
        });
        let (running, next) = (join(old), join(new));
        drop((running, next));
    });
}

/// Two who begin on one provider: the second waits until the first one's instance has failed. (Bound: 2.)
#[test]
fn one_attempt_a_generation() {
    model("begin, two at once", Some(2), || {
        let (_registry, [_], [role]) = services(&[]);
        let role = std::sync::Arc::new(role);
        let rivals = [role.clone(), role].map(|role| {
            spawn(move || {
                let attempt = role.provider.begin().wait().expect("not closed");
                let generation = attempt.generation();
                let running =
                    attempt.ready(plain(generation)).expect("nobody else is there to fail it");
                assert_eq!(running.instance().expect("nobody else fails it").mark, generation);
                drop(running);
                (generation, role)
            })
        });
        let mut generations = rivals.map(|rival| join(rival).0);
        generations.sort_unstable();
        assert_eq!(generations, [0, 1], "two attempts of one generation");
    });
}
