//! Closing a registry, and the drop of its last handle.
//!
//! - A close ends every wait, futures and blocking ones, with an error that names the service. The
//!   same holds for waits that begin during the close or after it.
//! - After a close nothing can be registered, provided, begun or published. A refused value is
//!   returned.
//! - A close takes no service down: a ready service can be read and waited for until its provider
//!   drops the running handle.
//! - A failure from before the close is still reported.
//! - In the end each value and the observer are dropped once, also if values hold the registry.

use std::{
    sync::{Arc, Barrier},
    thread,
};

use crate::support::{
    Counted, Drops, LONG, Seed, Wakes, must_finish, poll_once, poll_with, publish, registry_of,
    until, up,
};
use mainstay::{
    Event, Guard, Observer, Phase, Registry, ServiceId,
    error::{
        BeginError, ProvideError, ReadyError, RegisterError, WaitError, WaitForError,
        WaitReadyError,
    },
};

fn three() -> (Registry, [ServiceId<u32>; 3]) {
    registry_of(["ready", "starting", "down"])
}

#[test]
fn close_ends_every_wait_with_an_error_that_names_the_service() {
    must_finish("a wait after the close", || {
        let (registry, [ready, starting, down]) = three();
        let (provide_ready, running) = up(&registry, ready, 1);
        let provider = registry.provide(starting).unwrap();
        let attempt = provider.begin().wait_blocking().unwrap();

        let check = || {
            let named = |name: &str, service: &str| assert_eq!(name, service);
            match registry.wait_ready(down).wait_blocking() {
                Err(WaitReadyError::Closed { service }) => named(&service, "down"),
                other => panic!("{other:?}"),
            }
            match provide_ready.begin().wait_blocking() {
                Err(BeginError::Closed { service }) => named(&service, "ready"),
                other => panic!("{other:?}"),
            }
            match attempt.wait_for(down).wait_blocking() {
                Err(WaitForError::Closed { service }) => named(&service, "down"),
                other => panic!("{other:?}"),
            }
            match attempt.invalidated().wait_blocking() {
                Err(WaitError::Closed { service }) => named(&service, "starting"),
                other => panic!("{other:?}"),
            }
            match running.failed().wait_blocking() {
                Err(WaitError::Closed { service }) => named(&service, "ready"),
                other => panic!("{other:?}"),
            }
        };
        // Each wait as a future with a waker, and as a blocking call on a thread.
        let (wakes, waker) = Wakes::new();
        let mut wait_ready = registry.wait_ready(down);
        let mut begin = provide_ready.begin();
        let mut wait_for = attempt.wait_for(down);
        let mut invalidated = attempt.invalidated();
        let mut failed = running.failed();
        assert!(poll_with(&mut wait_ready, &waker).is_pending());
        assert!(poll_with(&mut begin, &waker).is_pending());
        assert!(poll_with(&mut wait_for, &waker).is_pending());
        assert!(poll_with(&mut invalidated, &waker).is_pending());
        assert!(poll_with(&mut failed, &waker).is_pending());
        thread::scope(|scope| {
            let blocked = scope.spawn(check);
            until("it blocks", || registry.status(down).unwrap().waiters == 3);
            registry.close();
            assert!(registry.is_closed());
            assert_eq!(wakes.count(), 5, "each waker is called once");
            blocked.join().unwrap();
        });
        assert!(poll_once(&mut wait_ready).is_ready() && poll_once(&mut begin).is_ready());
        assert!(poll_once(&mut wait_for).is_ready() && poll_once(&mut invalidated).is_ready());
        assert!(poll_once(&mut failed).is_ready());
        check();
        registry.close();
        check();
        assert!(registry.list().services.iter().all(|service| service.waiters == 0));
    });
}

#[test]
fn nothing_is_registered_provided_or_published_after_close() {
    let (registry, [ready, starting, down]) = three();
    let _ready = up(&registry, ready, 1);
    let provider = registry.provide(starting).unwrap();
    let attempt = provider.begin().wait_blocking().unwrap();
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
        Err(ReadyError::Closed { value, service }) => {
            assert_eq!((*value, &*service), (7, "starting"));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(
        registry.status(starting).unwrap().phase,
        Phase::Down,
        "the refused attempt has ended"
    );
    assert_eq!(registry.id::<u32>("ready").unwrap(), ready);
    assert_eq!(registry.list().services.len(), 3);
}

#[test]
fn ready_services_stay_readable_after_close_until_their_handle_is_dropped() {
    let (registry, [ready, other, _]) = three();
    let (_provide, running) = up(&registry, ready, 1);
    let (_provide_other, failed) = up(&registry, other, 2);
    registry.fail(other, "before the close").unwrap();
    let mut cached = registry.cached(ready).unwrap();
    registry.close();

    let guard = registry.get(ready).unwrap();
    let instance = registry.wait_ready(ready).wait_blocking().unwrap();
    assert_eq!((*guard, **instance, **cached.get().unwrap()), (1, 1, 1));
    assert_eq!(**running.instance().unwrap(), 1);
    assert_eq!(failed.failed().wait_blocking().unwrap().reason.to_string(), "before the close");

    drop(running);
    assert!(registry.get(ready).is_err() && cached.get().is_err());
    assert!(matches!(
        registry.wait_ready(ready).wait_blocking(),
        Err(WaitReadyError::Closed { .. })
    ));
    assert_eq!((*guard, **instance), (1, 1), "holders keep the value");
    assert_eq!(registry.fail(ready, "after the close").unwrap().failed, 0);
}

/// Waits of each kind begin while another thread closes the registry.
#[test]
fn a_wait_that_begins_during_close_ends() {
    must_finish("a wait that began during the close", || {
        let seed = Seed::new();
        let mut random = seed.random(0);
        for _ in 0..500 {
            let (registry, [ready, starting, down]) = three();
            let (provide_ready, running) = up(&registry, ready, 1);
            let provider = registry.provide(starting).unwrap();
            let attempt = provider.begin().wait_blocking().unwrap();
            let lag: [usize; 5] = std::array::from_fn(|_| random.below(2_000));
            let start = Barrier::new(5);
            let wait = |i: usize| {
                start.wait();
                (0..lag[i]).for_each(|_| std::hint::spin_loop());
            };
            thread::scope(|scope| {
                scope.spawn(|| {
                    wait(0);
                    assert!(registry.wait_ready(down).wait_blocking().is_err());
                });
                scope.spawn(|| {
                    wait(1);
                    assert!(attempt.wait_for(down).wait_blocking().is_err());
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
fn close_ends_providers_on_tokio_smol_and_threads() {
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
        registry.wait_ready(id).wait_blocking_timeout(LONG).unwrap();
    }
    let kept: Vec<_> = ids.iter().take(20).map(|&id| registry.get(id).unwrap()).collect();
    registry.close();
    until("all values but the 20 that guards hold are dropped", || drops.count() == 80);
    assert!(kept.iter().enumerate().all(|(i, guard)| guard.number as usize == i));
    drop((kept, registry));
    until("the 20 values are dropped", || drops.count() == 100);
}

#[test]
fn values_and_observer_are_dropped_with_the_last_handle_of_the_registry() {
    struct Watching(#[expect(dead_code, reason = "held for its drop")] Arc<()>);
    impl Observer for Watching {
        fn event(&self, _: &Registry, _: &Event<'_>) {}
    }

    let (watched, drops) = (Arc::new(()), Drops::default());
    let builder = Registry::builder(4).unwrap().observer(Watching(Arc::clone(&watched)));
    let registry = builder.build();
    let ids: [ServiceId<Counted>; 4] =
        [0, 1, 2, 3].map(|i: u32| registry.register(&i.to_string()).unwrap());
    // One service is ready, one has failed, one is held by a reader, one was never ready.
    let running = up(&registry, ids[0], drops.value(0));
    let failed = up(&registry, ids[1], drops.value(1));
    registry.fail(ids[1], "and not restarted").unwrap();
    let read = up(&registry, ids[2], drops.value(2));
    let held = Guard::into_arc(registry.get(ids[2]).unwrap());
    let attempt = registry.provide(ids[3]).unwrap().begin().wait_blocking().unwrap();
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

/// If a handle is dropped while a cascade is on its way to its slot, the value stays in the slot:
/// readers must not find the slot empty before its dependents are taken down. The cascade drops it.
///
/// ```text
/// cascade:  condemn root and its dependents ───── take down dependents, then root
/// provider:                      drop of running
/// ```
#[test]
fn a_value_whose_handle_is_dropped_during_a_cascade_is_dropped_by_the_cascade() {
    const DEPENDENTS: usize = 300;
    let drops = Drops::default();
    let mut builder = Registry::builder(1 + DEPENDENTS).unwrap();
    let root = builder.register("root").unwrap();
    for i in 0..DEPENDENTS {
        let dependent = builder.register::<u32>(&i.to_string()).unwrap();
        builder.depends(dependent).on(root).unwrap();
    }
    let registry = builder.build();
    let provider = registry.provide(root).unwrap();
    let start = Barrier::new(2);
    for made in 1..=1_000 {
        let running = publish(&provider, drops.value(1));
        thread::scope(|scope| {
            scope.spawn(|| {
                start.wait();
                registry.fail(root, "by another").unwrap();
            });
            start.wait();
            (0..made % 64 * 16).for_each(|_| std::hint::spin_loop());
            drop(running);
        });
        assert_eq!(drops.count(), made, "the value was left in its slot");
    }
}

#[test]
fn a_value_that_holds_its_registry_is_dropped() {
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
    let (registry, [id]) = registry_of(["service"]);
    let make = |i| Holds { _registry: registry.clone(), _counted: drops.value(i) };
    let (provider, running) = up(&registry, id, make(1));
    running.fail("next");
    let running = publish(&provider, make(2));
    let mut cached = registry.cached(id).unwrap();
    assert!(cached.get().is_ok());
    drop((running, provider, registry));
    assert_eq!(drops.count(), 1, "an idle reader holds the value");
    drop(cached);
    assert_eq!(drops.count(), 2);
}
