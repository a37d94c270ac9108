//! Draining: what is over lives while readers hold it; its provider can wait for the last of them.
//!
//! - The wait ends when the last holder lets go: a guard, an `Arc`, a cached reader that idles; not before the value
//!   was dropped; and not while the generation is ready.
//! - Values that were replaced are waited for, too.
//! - Its error counts those who hold on.
//! - A cached reader that is released holds nothing, and reads on afterwards.
//! - A supervisor that is told to drain does so before it builds again, for so long at the most, and tells the build who is
//!   left. That counts as rest; a reset does not cut it short, and the end does.

mod support;

use std::{
    future::ready,
    sync::{
        Arc, Barrier, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use mainstay::{Doing, DrainError, Registry, Running};
use support::{
    LONG, MOMENT, again, poll_once,
    stage::{Stage, exact, ms},
    up,
};

#[test]
fn every_kind_of_holder_counts() {
    let registry = Registry::with_capacity(1).unwrap();
    let id = registry.register::<u32>("a").unwrap();
    let (provider, running) = up(&registry, id, 1);
    let (guard, arc) = (registry.get(id).unwrap(), registry.get_arc(id).unwrap());
    let mut cached = registry.cached(id).unwrap();
    assert_eq!(**cached.get().unwrap(), 1);
    let mut drained = running.drained();
    assert!(poll_once(&mut drained).is_pending(), "it is ready");

    registry.fail(id, "over").unwrap();
    let left = || match running.drained().wait_timeout(Duration::ZERO) {
        Ok(()) => 0,
        Err(DrainError { service, holders, .. }) => {
            assert_eq!(service, "a");
            holders
        }
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
    let _running = again(&provider, 2);
    assert_eq!(**cached.get().unwrap(), 2);
}

#[test]
fn what_was_replaced_is_waited_for() {
    let registry = Registry::with_capacity(1).unwrap();
    let id = registry.register::<u32>("a").unwrap();
    let (_provider, running) = up(&registry, id, 1);
    let first = registry.get_arc(id).unwrap();
    running.replace(2).unwrap();
    assert_eq!(running.holders(), 2);
    registry.fail(id, "over").unwrap();
    assert!(running.drained().wait_timeout(MOMENT).is_err());
    drop(first);
    running.drained().wait_timeout(LONG).unwrap();
}

#[test]
fn it_waits_for_the_value_to_be_dropped() {
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

    let registry = Registry::with_capacity(1).unwrap();
    let (id, dropped) = (registry.register::<Slow>("a").unwrap(), Arc::<AtomicUsize>::default());
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
            running.drained().wait_timeout(LONG).unwrap();
            assert_eq!(dropped.load(Ordering::Relaxed), round);
        });
        running = again(&provider, Slow(Arc::clone(&dropped)));
    }
}

#[test]
fn readers_outlive_the_registry() {
    let registry = Registry::with_capacity(1).unwrap();
    let id = registry.register::<u32>("a").unwrap();
    let (provider, running) = up(&registry, id, 1);
    let held = registry.get_arc(id).unwrap();
    registry.close();
    registry.fail(id, "over").unwrap();
    let waits = thread::spawn(move || running.drained().wait_timeout(LONG).is_ok());
    thread::sleep(MOMENT);
    drop(held);
    assert!(waits.join().unwrap(), "a closed registry does not end it");

    let running: Running<u32> = {
        let registry = Registry::with_capacity(1).unwrap();
        let id = registry.register::<u32>("a").unwrap();
        up(&registry, id, 1).1
    };
    running.drained().wait_timeout(LONG).unwrap();
    drop(provider);
}

#[test]
fn a_supervisor_drains_before_it_builds_again() {
    let mut stage = Stage::new();
    let id = stage.service("port");
    let told = Arc::new(Mutex::new(Vec::new()));
    let tells = Arc::clone(&told);
    let restart = exact().drain_within(ms(1_000));
    stage.supervise(id, restart, move |build| {
        tells.lock().unwrap().push(build.holders());
        ready(Ok::<_, String>(1))
    });
    stage.settle();
    stage.advance(ms(5_000));

    // Nobody has it: at once.
    stage.registry.fail(id, "moved").unwrap();
    stage.settle();
    assert_eq!(stage.doing(id), Doing::Up);

    // A request has it, and ends in time. A reset changes nothing.
    stage.advance(ms(5_000));
    let request = stage.registry.get_arc(id).unwrap();
    stage.registry.fail(id, "moved").unwrap();
    stage.settle();
    assert_eq!((stage.doing(id), stage.supervision(id).next_try_in), (Doing::Draining, None));
    assert!(!stage.registry.reset(id).unwrap());
    stage.advance(ms(999));
    assert_eq!(stage.doing(id), Doing::Draining);
    drop(request);
    stage.settle();
    assert_eq!(stage.doing(id), Doing::Up);

    // One that does not.
    stage.advance(ms(5_000));
    let request = stage.registry.get_arc(id).unwrap();
    stage.registry.fail(id, "moved").unwrap();
    stage.settle();
    stage.advance(ms(1_000));
    assert_eq!(stage.doing(id), Doing::Up);
    assert_eq!(*told.lock().unwrap(), [0, 0, 0, 1]);
    drop(request);

    // It had not been up for long: the rest began with the failure.
    stage.advance(ms(4_000));
    let request = stage.registry.get_arc(id).unwrap();
    stage.registry.fail(id, "moved").unwrap();
    stage.settle();
    stage.advance(ms(60));
    drop(request);
    stage.settle();
    assert_eq!(
        (stage.doing(id), stage.supervision(id).next_try_in),
        (Doing::Resting, Some(ms(40)))
    );
    stage.advance(ms(40));
    assert_eq!((stage.doing(id), stage.supervision(id).charges), (Doing::Up, 1));

    // The end does not wait.
    let request = stage.registry.get_arc(id).unwrap();
    stage.registry.fail(id, "moved").unwrap();
    stage.settle();
    assert_eq!(stage.doing(id), Doing::Draining);
    stage.registry.close();
    stage.settle();
    assert!(stage.tasks.is_empty());
    drop(request);
}

#[test]
fn a_service_that_drains_is_shut_down_once_it_has() {
    let mut stage = Stage::new();
    let id = stage.service("port");
    stage.supervise(id, exact().drain_within(ms(1_000)), |_| ready(Ok::<_, String>(1)));
    stage.settle();
    let request = stage.registry.get_arc(id).unwrap();
    stage.registry.fail(id, "moved").unwrap();
    stage.settle();
    let registry = stage.registry.clone();
    stage.run(async move {
        assert!(registry.shutdown(ms(60_000)).await.hung.is_empty());
    });
    stage.settle();
    assert_eq!(stage.doing(id), Doing::Stopping);
    drop(request);
    stage.settle();
    assert!(stage.registry.is_closed() && stage.tasks.is_empty());
}
