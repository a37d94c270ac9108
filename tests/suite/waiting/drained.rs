//! Waiting until an instance has no holders.
//!
//! - The wait ends when the last holder releases the value: a guard, an `Arc`, or an idle cached
//!   reader. It does not end before the value was dropped, nor while the generation is ready.
//! - Replaced values are waited for, too.
//! - The error counts the remaining holders.
//! - A cached reader that is released holds nothing, and can read afterwards.

use std::{
    sync::{
        Arc, Barrier,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use crate::support::{LONG, MOMENT, poll_once, publish, registry_of, up};
use mainstay::{Running, error::DrainError};

#[test]
fn guards_arcs_and_idle_cached_readers_count_as_holders() {
    let (registry, [id]) = registry_of::<u32, 1>(["a"]);
    let (provider, running) = up(&registry, id, 1);
    let (guard, arc) = (registry.get(id).unwrap(), registry.get_arc(id).unwrap());
    let mut cached = registry.cached(id).unwrap();
    assert_eq!(**cached.get().unwrap(), 1);
    let mut drained = running.drained();
    assert!(poll_once(&mut drained).is_pending(), "the generation is ready");

    registry.fail(id, "over").unwrap();
    let left = || match running.drained().wait_blocking_timeout(Duration::ZERO) {
        Ok(()) => 0,
        Err(DrainError::TimedOut { service, holders, .. }) => {
            assert_eq!(service, "a");
            holders
        }
        Err(other) => panic!("{other}"),
    };
    assert_eq!(left(), 3);
    drop(guard);
    assert_eq!(left(), 2);
    drop(arc);
    assert_eq!(left(), 1);
    assert!(poll_once(&mut drained).is_pending());
    cached.release();
    assert_eq!(left(), 0);
    assert!(poll_once(&mut drained).is_ready());
    assert!(cached.get().is_err());
    drop(drained);
    drop(running);
    let _running = publish(&provider, 2);
    assert_eq!(**cached.get().unwrap(), 2);
}

#[test]
fn drained_waits_for_holders_of_replaced_values() {
    let (registry, [id]) = registry_of::<u32, 1>(["a"]);
    let (_provider, running) = up(&registry, id, 1);
    let first = registry.get_arc(id).unwrap();
    running.replace(2).unwrap();
    assert_eq!(running.holders(), 2);
    registry.fail(id, "over").unwrap();
    assert!(running.drained().wait_blocking_timeout(MOMENT).is_err());
    drop(first);
    running.drained().wait_blocking_timeout(LONG).unwrap();
}

#[test]
fn drained_returns_only_after_the_value_is_dropped() {
    struct Slow(Arc<AtomicUsize>);

    impl Drop for Slow {
        fn drop(&mut self) {
            thread::sleep(MOMENT);
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl std::fmt::Debug for Slow {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("slow")
        }
    }

    let (registry, [id]) = registry_of::<Slow, 1>(["a"]);
    let dropped = Arc::<AtomicUsize>::default();
    let (provider, mut running) = up(&registry, id, Slow(Arc::clone(&dropped)));
    for round in 1..=20 {
        let readers = 3;
        let (held, go) = (Barrier::new(readers + 1), Barrier::new(readers + 1));
        thread::scope(|scope| {
            for _ in 0..readers {
                scope.spawn(|| {
                    let guard = registry.get(id).unwrap();
                    held.wait();
                    go.wait();
                    drop(guard);
                });
            }
            held.wait();
            registry.fail(id, "over").unwrap();
            assert_eq!(dropped.load(Ordering::Relaxed), round - 1);
            go.wait();
            running.drained().wait_blocking_timeout(LONG).unwrap();
            assert_eq!(dropped.load(Ordering::Relaxed), round);
        });
        running = publish(&provider, Slow(Arc::clone(&dropped)));
    }
}

#[test]
fn drained_waits_for_holders_after_close_and_after_the_registry_is_dropped() {
    let (registry, [id]) = registry_of::<u32, 1>(["a"]);
    let (provider, running) = up(&registry, id, 1);
    let held = registry.get_arc(id).unwrap();
    registry.close();
    registry.fail(id, "over").unwrap();
    let waits = thread::spawn(move || running.drained().wait_blocking_timeout(LONG).is_ok());
    thread::sleep(MOMENT);
    drop(held);
    assert!(waits.join().unwrap(), "the close ended the wait");

    let running: Running<u32> = {
        let (registry, [id]) = registry_of::<u32, 1>(["a"]);
        up(&registry, id, 1).1
    };
    running.drained().wait_blocking_timeout(LONG).unwrap();
    drop(provider);
}
