//! A cached reader is a reader: S2, I1, and what was put in before it looks is what it finds; also where it
//! holds an instance from before. And it never goes back to an older value.
//!
//! ```text
//! cached:    is the state the one that I know?   are the replacements?
//!            else: how many replacements?   value from the slot,   is its tag the state?
//! provider:  a replacement begins,   value into the slot,   it ends
//!            fail, restart
//! ```
//!
//! What must not be: it goes on with what it holds, because it looks at only one of the two; it takes what it holds for
//! current because the generation is the same; or what it has read before a replacement for what came after it.
#![cfg(loom)]

use loom::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::spawn,
};
use mainstay::{Cached, GetError, Instance, Registry};
use mainstay_loom_tests::{Id, Rests, finish, join, model, plain, services};

/// A reader that holds the instance of now.
fn holding(registry: &Registry, id: Id) -> Cached<Rests> {
    let mut cached = registry.cached(id).expect("it is ours");
    cached.get().expect("it is ready");
    cached
}

/// The generation that it sees, and the mark of the value, if there is one.
fn look(cached: &mut Cached<Rests>) -> (u64, Option<u64>) {
    match cached.get() {
        Ok(instance) => (Instance::generation(instance), Some(instance.mark)),
        Err(GetError::NotReady(why)) => (why.generation, None),
        Err(error) => unreachable!("{error}"),
    }
}

/// Bound: 2.
#[test]
fn sees_what_replaced() {
    model("cached, replaced", Some(2), || {
        let (registry, [x], [role]) = services(&[]);
        let running = role.start(&[]);
        let mut cached = holding(&registry, x);
        let done = Arc::new(AtomicU64::new(0));

        let replacer = spawn({
            let done = Arc::clone(&done);
            move || {
                for mark in 1..=2 {
                    running.replace(plain(mark)).expect("nothing fails it");
                    done.store(mark, Ordering::Release);
                }
                running
            }
        });
        let reader = spawn(move || {
            let mut last = 0;
            for _ in 0..2 {
                let replaced = done.load(Ordering::Acquire);
                let (_, mark) = look(&mut cached);
                let mark = mark.expect("a gap");
                assert!(mark >= replaced, "it kept an older value: {mark}, after {replaced}");
                assert!(mark >= last, "it went back from {last} to {mark}");
                last = mark;
            }
            cached
        });
        let (running, mut cached) = (join(replacer), join(reader));
        assert_eq!(look(&mut cached).1, Some(2), "it kept an older value for good");
        drop(running);
    });
}

/// What another reader has got, and told of, is not older than what it gives. (Bound: 2.)
#[test]
fn sees_what_others_have_read() {
    model("cached, behind another reader", Some(2), || {
        let (registry, [x], [role]) = services(&[]);
        let running = role.start(&[]);
        let mut cached = holding(&registry, x);
        let told = Arc::new(AtomicU64::new(0));

        let replacer = spawn(move || {
            running.replace(plain(1)).expect("nothing fails it");
            running
        });
        let other = spawn({
            let told = Arc::clone(&told);
            move || {
                let mark = registry.get(x).expect("a gap").mark;
                told.store(mark, Ordering::Release);
            }
        });
        let reader = spawn(move || {
            // It may see that the replacement has begun.
            look(&mut cached).1.expect("a gap");
            let told = told.load(Ordering::Acquire);
            let mark = look(&mut cached).1.expect("a gap");
            assert!(mark >= told, "it kept an older value: {mark}, after {told}");
        });
        join(other);
        join(reader);
        drop(join(replacer));
    });
}

/// Two replacements at once: one may end while the other is under way. (Bound: 2.)
#[test]
fn sees_what_two_replaced() {
    model("cached, replaced by two", Some(2), || {
        let (registry, [x], [role]) = services(&[]);
        let running = Arc::new(role.start(&[]));
        let mut cached = registry.cached(x).expect("it is ours");

        let replacers = [1, 2].map(|mark| {
            let running = Arc::clone(&running);
            spawn(move || {
                running.replace(plain(mark)).expect("nothing fails it");
            })
        });
        let reader = spawn(move || {
            look(&mut cached).1.expect("a gap");
            cached
        });
        let _ = replacers.map(join);
        let mut cached = join(reader);
        let mark = registry.get(x).expect("a gap").mark;
        assert_eq!(look(&mut cached).1, Some(mark), "it kept an older value for good");
        drop(running);
    });
}

/// Bound: 3.
#[test]
fn against_a_failure_and_a_restart() {
    model("cached, a failure and a restart", Some(3), || {
        let (registry, [x], [role]) = services(&[]);
        let running = role.start(&[]);
        let mut cached = holding(&registry, x);
        let stage = Arc::new(AtomicU64::new(0));

        let restarter = spawn({
            let stage = Arc::clone(&stage);
            move || {
                registry.fail(x, "again").unwrap();
                stage.store(1, Ordering::Release);
                let next = role.attempt().ready(plain(1)).expect("it fails once");
                stage.store(2, Ordering::Release);
                (next, role)
            }
        });
        let reader = spawn(move || {
            let mut last = 0;
            for _ in 0..2 {
                let before = stage.load(Ordering::Acquire);
                let (generation, mark) = look(&mut cached);
                assert!(mark.is_none_or(|mark| mark == generation));
                assert!(generation >= before.min(1), "S2: readable after fail returned");
                assert!(before < 2 || mark.is_some(), "not found after ready returned");
                assert!(generation >= last, "it went back from {last} to {generation}");
                last = generation;
            }
        });
        join(reader);
        drop((join(restarter), running));
    });
}

/// I1, with cached readers of both. (Bound: 3.)
#[test]
fn of_a_chain() {
    model("cached, of a chain", Some(3), || {
        let (registry, [config, db], [config_role, db_role]) = services(&[(1, 0)]);
        let running = (config_role.start(&[]), db_role.start(&[config]));
        let (mut config_cached, mut db_cached) =
            (holding(&registry, config), holding(&registry, db));

        let failer = spawn(move || {
            registry.fail(config, "edited").unwrap();
            let config_runs = config_role.start(&[]);
            let db_runs = finish(db_role.attempt(), &[config]);
            (config_runs, db_runs, config_role, db_role)
        });
        let observer = spawn(move || {
            let (seen, _) = look(&mut config_cached);
            if let Ok(db) = db_cached.get() {
                let (_, from) = db.on[0];
                assert!(from >= seen, "I1: config was seen in {seen}, db is built from {from}");
            }
        });
        let ends = (join(failer), join(observer));
        drop((running, ends));
    });
}
