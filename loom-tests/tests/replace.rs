//! A replacement keeps the generation: a reader finds the service ready at every instant,
//! dependents stay as they are, and an instance of another generation is never replaced.
//!
//! ```text
//! replace:  is the tag the state?                                    value into the slot
//! cascade:                         Ready -> Down, the next instance
//! reader:     load the value from the slot                             is its tag the state?
//! ```
#![cfg(loom)]

use std::sync::Arc;

use loom::thread::spawn;
use mainstay::Guard;
use mainstay_loom_tests::{Value, assert_i2, join, model, read_state, services, try_publish};

#[test]
fn a_replaced_service_is_ready_at_every_instant() {
    model("a replaced service is ready at every instant", None, || {
        let (registry, [x], [provider]) = services(&[]);
        let running = provider.start(&[]);

        let replacer = spawn(move || {
            running.replace(Value::new(1)).expect("nothing fails x");
            running.replace(Value::new(2)).expect("nothing fails x");
            running
        });
        let reader = spawn(move || {
            let first = registry.get(x).expect("not ready during a replacement").version;
            let second = registry.get(x).expect("not ready during a replacement").version;
            assert!(first <= second, "an older value was read again");
        });
        join(reader);
        drop(join(replacer));
    });
}

/// Preemption bound: 4.
#[test]
fn a_replacement_during_a_failure_is_read_only_if_it_succeeds() {
    model("a replacement during a failure is read only if it succeeds", Some(4), || {
        let (registry, [x], [provider]) = services(&[]);
        let running = provider.start(&[]);

        let replacer = spawn(move || (running.replace(Value::new(1)).is_ok(), running));
        let failer = spawn({
            let registry = registry.clone();
            move || {
                registry.fail(x, "enough").unwrap();
                assert!(registry.get(x).is_err(), "readable after fail returned");
            }
        });
        let reader = spawn({
            let registry = registry.clone();
            move || registry.get(x).is_ok_and(|guard| guard.version == 1)
        });
        join(failer);
        let seen = join(reader);
        let (replaced, running) = join(replacer);
        assert!(replaced || !seen, "a reader has seen a value that was returned");
        assert_eq!(read_state(&registry, x), (1, false));
        let late = running.replace(Value::new(2)).expect_err("the instance has failed");
        assert_eq!(*late.value, Value::new(2));
    });
}

#[test]
fn a_late_replacement_never_covers_the_next_instance() {
    model("a late replacement never covers the next instance", None, || {
        let (registry, [x], [provider]) = services(&[]);
        let running = provider.start(&[]);

        let replacer = spawn(move || (running.replace(Value::new(1)).is_ok(), running));
        let restarter = spawn({
            let registry = registry.clone();
            move || {
                registry.fail(x, "again").unwrap();
                let next = provider.try_build(&[]).expect("nothing fails x");
                (next, provider)
            }
        });
        let next = join(restarter);
        let old = join(replacer);
        assert_eq!(*registry.get(x).expect("covered by an older value"), Value::new(0));
        drop((old, next));
    });
}

#[test]
fn a_dependent_can_be_built_during_a_replacement() {
    model("a dependent can be built during a replacement", None, || {
        let (registry, ids @ [x, e], [x_provider, e_provider]) = services(&[]);
        let running = x_provider.start(&[]);
        let attempt = e_provider.attempt();

        let replacer = spawn(move || running.replace(Value::new(1)).map(|()| running).unwrap());
        let builder = spawn(move || try_publish(attempt, &[x]).expect("x is ready all the time"));
        let returned = (join(replacer), join(builder));
        assert_i2(&registry, &ids);
        assert!(read_state(&registry, ids[1]).1 && read_state(&registry, e) == (0, true));
        drop(returned);
    });
}

/// Two threads replace one value. The replacement that was decided last stays, whichever of them
/// stores its value first. (Preemption bound: 3.)
#[test]
fn the_last_of_two_replacements_stays() {
    model("the last of two replacements stays", Some(3), || {
        let (registry, [x], [provider]) = services(&[]);
        let running = Arc::new(provider.start(&[]));

        let replacers = [1, 2].map(|version| {
            let running = Arc::clone(&running);
            spawn(move || running.replace(Value::new(version)).expect("nothing fails"))
        });
        let [(), ()] = replacers.map(join);
        let last = registry.get(x).expect("nothing fails");
        assert_eq!(Guard::revision(&last), 2, "the last value was replaced by an older one");
        drop(running);
    });
}
