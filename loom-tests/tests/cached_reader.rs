//! A cached reader fulfils what any reader does, also if it holds an older instance: A2, I1, and a
//! value that was published before the read is found. It never returns an older value than before.
//!
//! ```text
//! cached:    is the state unchanged?   is the number of replacements unchanged?
//!            if not: load the number of replacements, load the value, is its tag the state?
//! provider:  count a replacement as in progress, value into the slot, count it as completed
//!            fail, restart
//! ```
//!
//! What must not happen: the reader keeps its instance because it checks only one of the two words;
//! it takes the instance for current because the generation is the same; or it takes a value that
//! it read before a replacement for the one after it.
#![cfg(loom)]

use loom::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::spawn,
};
use mainstay::{Cached, Instance, Registry, error::GetError};
use mainstay_loom_tests::{Id, Value, join, model, services, try_publish};

/// A cached reader that holds the current instance.
fn reader_with_instance(registry: &Registry, id: Id) -> Cached<Value> {
    let mut cached = registry.cached(id).expect("the id is of this registry");
    cached.get().expect("the service is ready");
    cached
}

/// The generation that the reader finds, and the version of the value if the service is ready.
fn read(cached: &mut Cached<Value>) -> (u64, Option<u64>) {
    match cached.get() {
        Ok(instance) => (Instance::generation(instance).get(), Some(instance.version)),
        Err(GetError::NotReady(error)) => (error.generation.get(), None),
        Err(error) => unreachable!("{error}"),
    }
}

/// Preemption bound: 2.
#[test]
fn a_cached_reader_sees_completed_replacements() {
    model("a cached reader sees completed replacements", Some(2), || {
        let (registry, [x], [provider]) = services(&[]);
        let running = provider.start(&[]);
        let mut cached = reader_with_instance(&registry, x);
        let done = Arc::new(AtomicU64::new(0));

        let replacer = spawn({
            let done = Arc::clone(&done);
            move || {
                for version in 1..=2 {
                    running.replace(Value::new(version)).expect("nothing fails x");
                    done.store(version, Ordering::Release);
                }
                running
            }
        });
        let reader = spawn(move || {
            let mut last = 0;
            for _ in 0..2 {
                let replaced = done.load(Ordering::Acquire);
                let (_, version) = read(&mut cached);
                let version = version.expect("not ready during a replacement");
                assert!(version >= replaced, "kept an older value: {version}, after {replaced}");
                assert!(version >= last, "went back from {last} to {version}");
                last = version;
            }
            cached
        });
        let (running, mut cached) = (join(replacer), join(reader));
        assert_eq!(read(&mut cached).1, Some(2), "kept an older value in the end");
        drop(running);
    });
}

/// The value is not older than one that another reader has read and passed on. (Preemption bound:
/// 2.)
#[test]
fn a_cached_reader_is_not_behind_another_reader() {
    model("a cached reader is not behind another reader", Some(2), || {
        let (registry, [x], [provider]) = services(&[]);
        let running = provider.start(&[]);
        let mut cached = reader_with_instance(&registry, x);
        let passed_on = Arc::new(AtomicU64::new(0));

        let replacer = spawn(move || {
            running.replace(Value::new(1)).expect("nothing fails x");
            running
        });
        let other = spawn({
            let passed_on = Arc::clone(&passed_on);
            move || {
                let version = registry.get(x).expect("not ready during a replacement").version;
                passed_on.store(version, Ordering::Release);
            }
        });
        let reader = spawn(move || {
            // This read may find that the replacement has begun.
            read(&mut cached).1.expect("not ready during a replacement");
            let passed_on = passed_on.load(Ordering::Acquire);
            let version = read(&mut cached).1.expect("not ready during a replacement");
            assert!(version >= passed_on, "kept an older value: {version}, after {passed_on}");
        });
        join(other);
        join(reader);
        drop(join(replacer));
    });
}

/// One replacement may complete while the other one is in progress. (Preemption bound: 2.)
#[test]
fn a_cached_reader_sees_two_concurrent_replacements() {
    model("a cached reader sees two concurrent replacements", Some(2), || {
        let (registry, [x], [provider]) = services(&[]);
        let running = Arc::new(provider.start(&[]));
        let mut cached = registry.cached(x).expect("the id is of this registry");

        let replacers = [1, 2].map(|version| {
            let running = Arc::clone(&running);
            spawn(move || {
                running.replace(Value::new(version)).expect("nothing fails x");
            })
        });
        let reader = spawn(move || {
            read(&mut cached).1.expect("not ready during a replacement");
            cached
        });
        let _ = replacers.map(join);
        let mut cached = join(reader);
        let version = registry.get(x).expect("not ready during a replacement").version;
        assert_eq!(read(&mut cached).1, Some(version), "kept an older value in the end");
        drop(running);
    });
}

/// Preemption bound: 3.
#[test]
fn a_cached_reader_sees_a_failure_and_a_restart() {
    model("a cached reader sees a failure and a restart", Some(3), || {
        let (registry, [x], [provider]) = services(&[]);
        let running = provider.start(&[]);
        let mut cached = reader_with_instance(&registry, x);
        let progress = Arc::new(AtomicU64::new(0));

        let restarter = spawn({
            let progress = Arc::clone(&progress);
            move || {
                registry.fail(x, "again").unwrap();
                progress.store(1, Ordering::Release);
                let next = provider.attempt().ready(Value::new(1)).expect("x fails once");
                progress.store(2, Ordering::Release);
                (next, provider)
            }
        });
        let reader = spawn(move || {
            let mut last = 0;
            for _ in 0..2 {
                let before = progress.load(Ordering::Acquire);
                let (generation, version) = read(&mut cached);
                assert!(version.is_none_or(|version| version == generation));
                assert!(generation >= before.min(1), "A2: readable after fail returned");
                assert!(before < 2 || version.is_some(), "not ready after ready returned");
                assert!(generation >= last, "went back from {last} to {generation}");
                last = generation;
            }
        });
        join(reader);
        drop((join(restarter), running));
    });
}

/// I1, with cached readers of both services. (Preemption bound: 3.)
#[test]
fn cached_readers_of_a_chain_keep_i1() {
    model("cached readers of a chain keep i1", Some(3), || {
        let (registry, [config, db], [config_provider, db_provider]) = services(&[(1, 0)]);
        let running = (config_provider.start(&[]), db_provider.start(&[config]));
        let (mut config_cached, mut db_cached) =
            (reader_with_instance(&registry, config), reader_with_instance(&registry, db));

        let failer = spawn(move || {
            registry.fail(config, "edited").unwrap();
            let config_running = config_provider.start(&[]);
            let db_running = try_publish(db_provider.attempt(), &[config]);
            (config_running, db_running, config_provider, db_provider)
        });
        let observer = spawn(move || {
            let (seen, _) = read(&mut config_cached);
            if let Ok(db) = db_cached.get() {
                let (_, from) = db.built_from[0];
                assert!(from >= seen, "I1: config was in {seen}, db was built from {from}");
            }
        });
        let returned = (join(failer), join(observer));
        drop((running, returned));
    });
}
