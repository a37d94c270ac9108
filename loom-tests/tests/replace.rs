//! A replacement shares its generation: no reader finds a gap, dependents stay, and it never touches the
//! instance of another generation.
//!
//! ```text
//! replace:  is the tag the state?                     value into the slot
//! cascade:                        Ready -> Down, and the next instance
//! reader:   value from the slot,                                          is its tag the state?
//! ```
#![cfg(loom)]

use loom::thread::spawn;
use mainstay_loom_tests::{assert_i2, finish, join, look, model, plain, services};

#[test]
fn leaves_no_gap() {
    model("replace, no gap", None, || {
        let (registry, [x], [role]) = services(&[]);
        let running = role.start(&[]);

        let replacer = spawn(move || {
            running.replace(plain(1)).expect("nothing fails it");
            running.replace(plain(2)).expect("nothing fails it");
            running
        });
        let reader = spawn(move || {
            let first = registry.get(x).expect("a gap").mark;
            let second = registry.get(x).expect("a gap").mark;
            assert!(first <= second, "an older value came back");
        });
        join(reader);
        drop(join(replacer));
    });
}

/// Bound: 4.
#[test]
fn against_a_failure() {
    model("replace, against a failure", Some(4), || {
        let (registry, [x], [role]) = services(&[]);
        let running = role.start(&[]);

        let replacer = spawn(move || (running.replace(plain(1)).is_ok(), running));
        let failer = spawn({
            let registry = registry.clone();
            move || {
                registry.fail(x, "enough").unwrap();
                assert!(registry.get(x).is_err(), "readable after fail returned");
            }
        });
        let reader = spawn({
            let registry = registry.clone();
            move || registry.get(x).is_ok_and(|guard| guard.mark == 1)
        });
        join(failer);
        let seen = join(reader);
        let (replaced, running) = join(replacer);
        assert!(replaced || !seen, "somebody has seen a value that came back");
        assert_eq!(look(&registry, x), (1, false));
        let late = running.replace(plain(2)).expect_err("it has failed");
        assert_eq!(late.value, plain(2));
    });
}

#[test]
fn against_a_restart() {
    model("replace, against a restart", None, || {
        let (registry, [x], [role]) = services(&[]);
        let running = role.start(&[]);

        let replacer = spawn(move || (running.replace(plain(1)).is_ok(), running));
        let restarter = spawn({
            let registry = registry.clone();
            move || {
                registry.fail(x, "again").unwrap();
                let next = role.try_build(&[]).expect("nothing fails it");
                (next, role)
            }
        });
        let next = join(restarter);
        let old = join(replacer);
        assert_eq!(*registry.get(x).expect("covered by an older value"), plain(0));
        drop((old, next));
    });
}

#[test]
fn against_a_dependent() {
    model("replace, against a dependent", None, || {
        let (registry, ids @ [x, e], [x_role, e_role]) = services(&[]);
        let running = x_role.start(&[]);
        let attempt = e_role.attempt();

        let replacer = spawn(move || running.replace(plain(1)).map(|()| running).unwrap());
        let builder = spawn(move || finish(attempt, &[x]).expect("x is ready all the time"));
        let ends = (join(replacer), join(builder));
        assert_i2(&registry, &ids);
        assert!(look(&registry, ids[1]).1 && look(&registry, e) == (0, true));
        drop(ends);
    });
}
