//! Closing a registry.
//!
//! - Every wait that is under way ends, blocking or not, and every later one, each with an error that names the
//!   service; so does one that begins in the very moment.
//! - Nothing new is registered, provided, begun or published; what was to be published comes back.
//! - Nothing goes down by it: what is there can be read, and waited for, until its provider lets go of it.
//! - A failure that was there before is still told.
//! - In the end every value is dropped, once, and the observer with them, also where values hold the registry.

mod support;

use std::{
    sync::{Arc, Barrier},
    thread,
};

use mainstay::{
    BeginError, Event, Guard, Observer, Phase, ProvideError, ReadyError, RegisterError, Registry,
    ServiceId, WaitError, WaitForError,
};
use support::{Counted, Drops, LONG, Seed, Wakes, again, poll_once, poll_with, until, up, within};

fn three() -> (Registry, [ServiceId<u32>; 3]) {
    let registry = Registry::with_capacity(4).unwrap();
    let ids = ["ready", "starting", "down"].map(|name| registry.register(name).unwrap());
    (registry, ids)
}

#[test]
fn every_wait_ends() {
    within("a wait after the end", || {
        let (registry, [ready, starting, down]) = three();
        let (provide_ready, running) = up(&registry, ready, 1);
        let provider = registry.provide(starting).unwrap();
        let attempt = provider.begin().wait().unwrap();

        let check = || {
            let named = |name: &str, service: &str| assert_eq!(name, service);
            match registry.wait_ready(down).wait() {
                Err(WaitError::Closed { service }) => named(&service, "down"),
                other => panic!("{other:?}"),
            }
            match provide_ready.begin().wait() {
                Err(BeginError::Closed { service }) => named(&service, "ready"),
                other => panic!("{other:?}"),
            }
            match attempt.wait_for(down).wait() {
                Err(WaitForError::Closed { service }) => named(&service, "down"),
                other => panic!("{other:?}"),
            }
            match attempt.overtaken().wait() {
                Err(WaitError::Closed { service }) => named(&service, "starting"),
                other => panic!("{other:?}"),
            }
            match running.failed().wait() {
                Err(WaitError::Closed { service }) => named(&service, "ready"),
                other => panic!("{other:?}"),
            }
        };
        // Futures, each with a waker, and the same on threads.
        let (wakes, waker) = Wakes::new();
        let mut wait_ready = registry.wait_ready(down);
        let mut begin = provide_ready.begin();
        let mut wait_for = attempt.wait_for(down);
        let mut overtaken = attempt.overtaken();
        let mut failed = running.failed();
        assert!(poll_with(&mut wait_ready, &waker).is_pending());
        assert!(poll_with(&mut begin, &waker).is_pending());
        assert!(poll_with(&mut wait_for, &waker).is_pending());
        assert!(poll_with(&mut overtaken, &waker).is_pending());
        assert!(poll_with(&mut failed, &waker).is_pending());
        thread::scope(|scope| {
            let blocked = scope.spawn(check);
            until("it blocks", || registry.status(down).unwrap().waiting == 3);
            registry.close();
            assert!(registry.is_closed());
            assert_eq!(wakes.count(), 5, "all are woken, once");
            blocked.join().unwrap();
        });
        assert!(poll_once(&mut wait_ready).is_ready() && poll_once(&mut begin).is_ready());
        assert!(poll_once(&mut wait_for).is_ready() && poll_once(&mut overtaken).is_ready());
        assert!(poll_once(&mut failed).is_ready());
        check();
        registry.close();
        check();
        assert!(registry.list().services.iter().all(|service| service.waiting == 0));
    });
}

#[test]
fn nothing_new_begins() {
    let (registry, [ready, starting, down]) = three();
    let _ready = up(&registry, ready, 1);
    let provider = registry.provide(starting).unwrap();
    let attempt = provider.begin().wait().unwrap();
    registry.close();
    match registry.register::<u32>("new") {
        Err(RegisterError::Closed { service }) => assert_eq!(service, "new"),
        other => panic!("{other:?}"),
    }
    match registry.provide(down) {
        Err(ProvideError::Closed { service }) => assert_eq!(service, "down"),
        other => panic!("{other:?}"),
    }
    match attempt.ready(7) {
        Err(ReadyError::Closed { value: 7, service }) => assert_eq!(service, "starting"),
        other => panic!("{other:?}"),
    }
    assert_eq!(registry.status(starting).unwrap().phase, Phase::Down, "it was given back");
    assert_eq!(registry.id::<u32>("ready").unwrap(), ready);
    assert_eq!(registry.list().services.len(), 3);
}

#[test]
fn what_is_there_stays() {
    let (registry, [ready, other, _]) = three();
    let (_provide, running) = up(&registry, ready, 1);
    let (_provide_other, failed) = up(&registry, other, 2);
    registry.fail(other, "before the end").unwrap();
    let mut cached = registry.cached(ready).unwrap();
    registry.close();

    let guard = registry.get(ready).unwrap();
    let instance = registry.wait_ready(ready).wait().unwrap();
    assert_eq!((*guard, **instance, **cached.get().unwrap()), (1, 1, 1));
    assert_eq!(**running.instance().unwrap(), 1);
    assert_eq!(failed.failed().wait().unwrap().reason.to_string(), "before the end");

    drop(running);
    assert!(registry.get(ready).is_err() && cached.get().is_err());
    assert!(matches!(registry.wait_ready(ready).wait(), Err(WaitError::Closed { .. })));
    assert_eq!((*guard, **instance), (1, 1), "who holds it holds it");
    assert_eq!(registry.fail(ready, "after the end").unwrap().went_down, 0);
}

/// Waits of each kind begin while the registry is being closed.
#[test]
fn a_wait_that_begins_while_it_is_closed() {
    within("a wait that began in the moment of the end", || {
        let seed = Seed::new();
        let mut random = seed.random(0);
        for _ in 0..500 {
            let (registry, [ready, starting, down]) = three();
            let (provide_ready, running) = up(&registry, ready, 1);
            let provider = registry.provide(starting).unwrap();
            let attempt = provider.begin().wait().unwrap();
            let lag: [usize; 5] = std::array::from_fn(|_| random.below(2_000));
            let start = Barrier::new(5);
            let wait = |i: usize| {
                start.wait();
                (0..lag[i]).for_each(|_| std::hint::spin_loop());
            };
            thread::scope(|scope| {
                scope.spawn(|| {
                    wait(0);
                    assert!(registry.wait_ready(down).wait().is_err());
                });
                scope.spawn(|| {
                    wait(1);
                    assert!(attempt.wait_for(down).wait().is_err());
                });
                scope.spawn(|| {
                    wait(2);
                    assert!(pollster::block_on(provide_ready.begin()).is_err());
                });
                scope.spawn(|| {
                    wait(3);
                    assert!(pollster::block_on(running.failed()).is_err());
                });
                wait(4);
                registry.close();
            });
        }
    });
}

#[test]
fn providers_of_each_kind_end() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let drops = Drops::default();
    let registry = Registry::with_capacity(100).unwrap();
    for i in 0..100 {
        let id: ServiceId<Counted> = registry.register(&i.to_string()).unwrap();
        let (registry, drops) = (registry.clone(), drops.clone());
        let provide = async move {
            let provider = registry.provide(id).unwrap();
            while let Ok(attempt) = provider.begin().await {
                let Ok(running) = attempt.ready(drops.value(i)) else { continue };
                let _ = running.failed().await;
            }
        };
        match i % 3 {
            0 => drop(runtime.spawn(provide)),
            1 => smol::spawn(provide).detach(),
            _ => drop(thread::spawn(move || pollster::block_on(provide))),
        }
    }
    let ids: Vec<_> = (0..100).map(|i| registry.id::<Counted>(&i.to_string()).unwrap()).collect();
    for &id in &ids {
        registry.wait_ready(id).wait_timeout(LONG).unwrap();
    }
    let kept: Vec<_> = ids.iter().take(20).map(|&id| registry.get(id).unwrap()).collect();
    registry.close();
    until("all but those that are held", || drops.count() == 80);
    assert!(kept.iter().enumerate().all(|(i, guard)| guard.number as usize == i));
    drop((kept, registry));
    until("the rest", || drops.count() == 100);
}

#[test]
fn everything_is_dropped_with_the_last_handle() {
    struct Watching(#[expect(dead_code, reason = "held for its drop")] Arc<()>);
    impl Observer for Watching {
        fn event(&self, _: &Registry, _: &Event<'_>) {}
    }

    let (watched, drops) = (Arc::new(()), Drops::default());
    let builder = Registry::builder(4).unwrap().observer(Watching(Arc::clone(&watched)));
    let registry = builder.build();
    let ids: [ServiceId<Counted>; 4] =
        [0, 1, 2, 3].map(|i: u32| registry.register(&i.to_string()).unwrap());
    // One is running, one was left failed, one is held by a reader, one never came.
    let running = up(&registry, ids[0], drops.value(0));
    let failed = up(&registry, ids[1], drops.value(1));
    registry.fail(ids[1], "left like this").unwrap();
    let read = up(&registry, ids[2], drops.value(2));
    let held = Guard::into_arc(registry.get(ids[2]).unwrap());
    let attempt = registry.provide(ids[3]).unwrap().begin().wait().unwrap();
    registry.close();
    drop(attempt.ready(drops.value(3)));
    assert_eq!(drops.count(), 1);
    drop((running, failed, read));
    assert_eq!(drops.count(), 3);
    drop(held);
    assert_eq!((drops.count(), Arc::strong_count(&watched)), (4, 2));
    drop(registry);
    assert_eq!(Arc::strong_count(&watched), 1);
}

/// A handle that ends while a cascade is on its way to its slot leaves the value there: readers must not find the
/// slot empty before the dependents have gone down. It goes with the registry at the latest.
///
/// ```text
/// cascade:  condemn root and its dependents ───── raise dependents, root
/// provider:                      drop of running
/// ```
#[test]
fn a_value_that_is_left_by_its_handle() {
    const DEPENDENTS: usize = 300;
    let drops = Drops::default();
    let mut made = 0;
    until("a handle that ends within a cascade", || {
        let mut builder = Registry::builder(1 + DEPENDENTS).unwrap();
        let root = builder.register("root").unwrap();
        for i in 0..DEPENDENTS {
            let dependent = builder.register::<u32>(&i.to_string()).unwrap();
            builder.add_dependency(dependent, root).unwrap();
        }
        let registry = builder.build();
        let (provider, running) = up(&registry, root, drops.value(1));
        made += 1;
        let start = Barrier::new(2);
        thread::scope(|scope| {
            scope.spawn(|| {
                start.wait();
                registry.fail(root, "by another").unwrap();
            });
            start.wait();
            (0..made % 64 * 16).for_each(|_| std::hint::spin_loop());
            drop(running);
        });
        assert!(registry.get(root).is_err());
        let left = drops.count() < made;
        drop((provider, registry));
        assert_eq!(drops.count(), made, "left in its slot: {left}");
        left
    });
}

#[test]
fn a_value_that_holds_its_registry() {
    struct Holds {
        _registry: Registry,
        _counted: Counted,
    }
    impl std::fmt::Debug for Holds {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("Holds")
        }
    }

    let drops = Drops::default();
    let registry = Registry::with_capacity(1).unwrap();
    let id = registry.register("service").unwrap();
    let make = |i| Holds { _registry: registry.clone(), _counted: drops.value(i) };
    let (provider, running) = up(&registry, id, make(1));
    running.fail("next");
    let running = again(&provider, make(2));
    let mut cached = registry.cached(id).unwrap();
    assert!(cached.get().is_ok());
    drop((running, provider, registry));
    assert_eq!(drops.count(), 1, "an idle reader holds it");
    drop(cached);
    assert_eq!(drops.count(), 2);
}
