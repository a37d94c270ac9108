//! Values whose `Drop` panics or calls the registry.
//!
//! - A panic in the drop of a value does not affect the thread that publishes, replaces, fails or
//!   drops a handle. If a reader is the last holder, the panic reaches that reader and no other
//!   thread.
//! - The same holds if the store is the last holder for a moment, while threads read and report.
//! - The drop of a value may call the registry, wherever the value is dropped.
//! - The store calls nothing but `Drop` of a value: no equality, hash, order, clone or `Debug`.
//! - After each of these everything can be done as before.

use std::{
    fmt,
    hash::{Hash, Hasher},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

use super::bomb::{Bomb, HARMLESS, World};
use crate::support::{Counted, Drops, MOMENT, must_finish, publish, up};
use mainstay::{FailOutcome, Guard, Registry, ServiceId};

#[test]
fn a_value_that_panics_in_its_drop_does_not_affect_its_provider() {
    let world = World::new();
    let World { registry, id, provider, drops, .. } = &world;

    publish(provider, world.bomb()).fail("and its handle is gone");
    assert_eq!(drops.count(), 1);
    world.check_whole();

    let before = drops.count();
    let running = publish(provider, world.bomb());
    running.replace(world.bomb()).unwrap();
    assert_eq!(drops.count(), before + 1);
    drop(running);
    assert_eq!(drops.count(), before + 2);
    world.check_whole();

    let before = drops.count();
    let old = publish(provider, world.bomb());
    registry.fail(*id, "with its handle there").unwrap();
    let new = publish(provider, Bomb(drops.value(HARMLESS)));
    assert_eq!(drops.count(), before + 1, "the next publication drops the value");
    assert_eq!(registry.get(*id).unwrap().0.number, HARMLESS);
    drop((old, new));
    world.check_whole();
}

#[test]
fn a_cached_reader_that_drops_an_old_value_returns_normally_if_the_drop_panics() {
    let world = World::new();
    let World { registry, id, provider, drops, .. } = &world;
    let running = publish(provider, world.bomb());
    let mut cached = registry.cached(*id).unwrap();
    assert!(cached.get().is_ok());
    drop(running);
    let before = drops.count();
    assert!(cached.get().is_err(), "the service has failed");
    assert_eq!(drops.count(), before + 1, "dropped once");
    world.check_whole();
}

#[test]
fn the_panic_of_a_drop_does_not_reach_the_user_who_holds_the_value_last() {
    let world = World::new();
    let World { registry, id, provider, drops, .. } = &world;
    let shielded = |what: &str, user: Box<dyn FnOnce() + '_>| {
        let before = drops.count();
        let panic = catch_unwind(AssertUnwindSafe(user));
        assert!(panic.is_ok(), "{what}: the panic of the value has unwound");
        assert_eq!(drops.count(), before + 1, "{what}: dropped once");
    };
    let held = || {
        let running = publish(provider, world.bomb());
        (registry.get(*id).unwrap(), running)
    };
    let (guard, running) = held();
    drop(running);
    shielded("a guard", Box::new(|| drop(guard)));
    world.check_whole();

    let (guard, running) = held();
    let instance = Guard::into_arc(guard);
    drop(running);
    shielded("an instance", Box::new(|| drop(instance)));
    world.check_whole();

    let running = publish(provider, world.bomb());
    let mut cached = registry.cached(*id).unwrap();
    assert!(cached.get().is_ok());
    drop(running);
    shielded("a cached reader", Box::new(|| drop(cached)));
    world.check_whole();

    let attempt = provider.begin().wait_blocking().unwrap();
    registry.fail(*id, "invalidated").unwrap();
    let refused = attempt.ready(world.bomb()).unwrap_err();
    shielded("a refused value", Box::new(|| drop(refused)));
    world.check_whole();
}

/// Calls that release a value internally may be its last holder. They must not panic.
///
/// ```text
/// provider:  up ─ replace ─ fail ─ drop ─ up ...
/// readers:   get_all │ report │ wait_for │ instance
/// ```
#[test]
fn no_concurrent_call_panics_while_values_panic_in_their_drop() {
    must_finish("readers of a value that panics", || {
        let world = World::new();
        let World { registry, id, provider, dependent, drops } = &world;
        let done = &AtomicBool::new(false);
        let unharmed = |what: &str, call: &dyn Fn()| {
            while !done.load(Ordering::Relaxed) {
                let outcome = catch_unwind(AssertUnwindSafe(call));
                if outcome.is_err() {
                    done.store(true, Ordering::Relaxed);
                    std::mem::forget(outcome);
                    panic!("{what} has dropped a value, and has panicked");
                }
            }
        };
        thread::scope(|scope| {
            scope.spawn(|| unharmed("get_all", &|| drop(registry.get_all((*id, *id)))));
            scope.spawn(|| {
                unharmed("report", &|| {
                    if let Ok(met) = registry.get_arc(*id) {
                        thread::yield_now();
                        let _: FailOutcome = registry.fail_instance(&met, "broken").unwrap();
                        drop(met);
                    }
                });
            });
            scope.spawn(|| {
                let provider = registry.provide(*dependent).unwrap();
                unharmed("wait_for", &|| {
                    let attempt = provider.begin().wait_blocking().unwrap();
                    drop(attempt.wait_for(*id).wait_blocking_timeout(MOMENT));
                });
            });
            for _ in 0..3_000 {
                if done.load(Ordering::Relaxed) {
                    break;
                }
                let running = publish(provider, world.bomb());
                let _ = running.replace(world.bomb());
                drop(running.instance());
                drop(running);
            }
            done.store(true, Ordering::Relaxed);
        });
        world.check_whole();
        assert!(drops.count() > 0);
    });
}

/// Every trait but `Drop` panics.
struct Unwilling(#[expect(dead_code, reason = "held for its drop")] Counted);

impl PartialEq for Unwilling {
    fn eq(&self, _: &Self) -> bool {
        panic!("equality")
    }
}

impl Eq for Unwilling {}

impl PartialOrd for Unwilling {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Unwilling {
    fn cmp(&self, _: &Self) -> std::cmp::Ordering {
        panic!("order")
    }
}

impl Hash for Unwilling {
    fn hash<H: Hasher>(&self, _: &mut H) {
        panic!("hash")
    }
}

impl Clone for Unwilling {
    fn clone(&self) -> Self {
        panic!("clone")
    }
}

impl fmt::Debug for Unwilling {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        panic!("debug")
    }
}

#[test]
fn no_trait_of_a_value_is_called_but_drop() {
    let (registry, drops) = (Registry::with_capacity(2).unwrap(), Drops::default());
    let value = || Unwilling(drops.value(1));
    let id = registry.register("unwilling").unwrap();
    let dependent = registry.register("dependent").unwrap();
    let (provider, running) = up(&registry, id, value());
    running.replace(value()).unwrap();
    assert!(running.instance().is_some() && format!("{running:?}").contains("unwilling"));
    let provide_dependent = registry.provide(dependent).unwrap();
    let attempt = provide_dependent.begin().wait_blocking().unwrap();
    let from = attempt.wait_for(id).wait_blocking().unwrap();
    let dependent = attempt.ready(1).unwrap();
    let mut cached = registry.cached(id).unwrap();
    assert!(cached.get().is_ok() && registry.get_all((id, id)).is_ok());
    assert!(registry.wait_ready(id).wait_blocking().is_ok());
    assert!(matches!(registry.fail_instance(&from, "broken"), Ok(FailOutcome::Failed(_))));
    let refused = running.replace(value()).unwrap_err();
    assert!(format!("{refused} {refused:?}").contains("broken"));
    drop((refused, running, dependent));
    let attempt = provider.begin().wait_blocking().unwrap();
    registry.fail(id, "invalidated").unwrap();
    let refused = attempt.ready(value()).unwrap_err();
    assert!(format!("{refused} {refused:?}").contains("invalidated"));
    registry.list().to_dot();
    drop((refused, cached, from, provider, registry));
    assert_eq!(drops.count(), 4);
}

/// Calls its registry when it is dropped.
struct Calls {
    registry: Registry,
    own: ServiceId<Calls>,
    calls: Arc<AtomicUsize>,
}

impl fmt::Debug for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Calls")
    }
}

impl Drop for Calls {
    fn drop(&mut self) {
        let Self { registry, own, calls } = self;
        let number = calls.fetch_add(1, Ordering::SeqCst);
        registry.list().to_dot();
        let _ = registry.get(*own).is_ok();
        registry.status(*own).unwrap();
        let other = registry.register::<usize>("made by a drop").unwrap();
        registry.depends(other).on(*own).unwrap();
        if let Ok(provider) = registry.provide(other) {
            let running = provider.begin().wait_blocking().unwrap().ready(number).unwrap();
            assert_eq!(*registry.get(other).unwrap(), number);
            registry.fail(other, "by a drop").unwrap();
            drop(running);
        }
        registry.fail(*own, "by its own last value").unwrap();
    }
}

#[test]
fn the_drop_of_a_value_may_call_the_registry_wherever_it_is_dropped() {
    must_finish("a drop that calls the registry", || {
        let registry = Registry::with_capacity(2).unwrap();
        let own = registry.register("calls").unwrap();
        let calls = Arc::new(AtomicUsize::new(0));
        let value = || Calls { registry: registry.clone(), own, calls: Arc::clone(&calls) };
        let expect = |expected| assert_eq!(calls.load(Ordering::SeqCst), expected);
        let (provider, running) = up(&registry, own, value());
        drop(running);
        expect(1);

        let running = publish(&provider, value());
        running.replace(value()).unwrap();
        expect(2);
        assert!(
            registry.get(own).is_err(),
            "the drop of the replaced value has failed the service"
        );
        assert_eq!(
            running.failed().wait_blocking().unwrap().reason.to_string(),
            "by its own last value"
        );
        let next = publish(&provider, value());
        expect(3);
        drop(running);
        let guard = registry.get(own);
        drop(next);
        drop(guard);
        expect(4);

        let running = publish(&provider, value());
        let mut cached = registry.cached(own).unwrap();
        assert!(cached.get().is_ok());
        drop(running);
        assert!(cached.get().is_err());
        expect(5);
        let _running = publish(&provider, value());
        assert!(registry.get(own).is_ok());
        assert_eq!(registry.status(own).unwrap().dependents, ["made by a drop"]);
    });
}
