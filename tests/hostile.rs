//! User code that does its worst where the store runs it.
//!
//! - A value whose `Drop` panics does not disturb who publishes, replaces, fails or drops a handle; a reader
//!   that was the last holder meets the panic of its own value, and nobody else does.
//! - A value whose `Drop` calls the registry may do so, wherever it is dropped.
//! - A reason that cannot be displayed, or whose `Drop` panics, harms only who displays it.
//! - A registry that is dropped drops all its reasons, whatever of them panics.
//! - After each of these the store is whole: all that was there goes on, and everything can be done as before.

mod support;

use std::{
    env,
    error::Error,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind, panic_any},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use mainstay::{Guard, Phase, Provider, Registry, ServiceId};
use support::{Counted, Drops, LONG, again, up, within};

/// Panics when it is dropped, with a payload that panics when *it* is dropped.
#[derive(Debug)]
struct Bomb(Counted);

struct Payload;

impl Drop for Bomb {
    fn drop(&mut self) {
        if self.0.number != HARMLESS && !thread::panicking() {
            panic_any(Payload);
        }
    }
}

impl Drop for Payload {
    fn drop(&mut self) {
        if !thread::panicking() {
            panic!("the payload of a panic panics");
        }
    }
}

const HARMLESS: u32 = 1_000;

struct World {
    registry: Registry,
    id: ServiceId<Bomb>,
    provider: Provider<Bomb>,
    /// Depends on it.
    dependent: ServiceId<u32>,
    drops: Drops,
}

impl World {
    fn new() -> Self {
        let registry = Registry::with_capacity(2).unwrap();
        let id = registry.register("bomb").unwrap();
        let dependent = registry.register("dependent").unwrap();
        registry.add_dependency(dependent, id).unwrap();
        let provider = registry.provide(id).unwrap();
        Self { registry, id, provider, dependent, drops: Drops::default() }
    }

    fn bomb(&self) -> Bomb {
        Bomb(self.drops.value(1))
    }

    /// Everything can be done as before.
    fn check_whole(&self) {
        let (registry, id) = (&self.registry, self.id);
        let provider = registry.provide(self.dependent).unwrap();
        for _ in 0..2 {
            let running = again(&self.provider, Bomb(self.drops.value(HARMLESS)));
            let attempt = provider.begin().wait_timeout(LONG).unwrap();
            attempt.wait_for(id).wait_timeout(LONG).unwrap();
            let dependent = attempt.ready(1).unwrap();
            assert_eq!(registry.get(id).unwrap().0.number, HARMLESS);
            assert_eq!(running.fail("whole").went_down, 2);
            assert_eq!(dependent.failed().wait().unwrap().reason.to_string(), "whole");
        }
        let status = registry.status(id).unwrap();
        assert_eq!((status.phase, status.waiting, status.provided), (Phase::Down, 0, true));
        registry.list().to_dot();
    }
}

#[test]
fn a_value_that_panics_while_it_is_dropped_by_the_store() {
    let world = World::new();
    let World { registry, id, provider, drops, .. } = &world;

    again(provider, world.bomb()).fail("and its handle is gone");
    assert_eq!(drops.count(), 1);
    world.check_whole();

    let before = drops.count();
    let running = again(provider, world.bomb());
    running.replace(world.bomb()).unwrap();
    assert_eq!(drops.count(), before + 1);
    drop(running);
    assert_eq!(drops.count(), before + 2);
    world.check_whole();

    let before = drops.count();
    let old = again(provider, world.bomb());
    registry.fail(*id, "with its handle there").unwrap();
    let new = again(provider, Bomb(drops.value(HARMLESS)));
    assert_eq!(drops.count(), before + 1, "the next publication has dropped it");
    assert_eq!(registry.get(*id).unwrap().0.number, HARMLESS);
    drop((old, new));
    world.check_whole();
}

#[test]
fn a_value_that_panics_while_a_reader_looks() {
    let world = World::new();
    let World { registry, id, provider, drops, .. } = &world;
    let running = again(provider, world.bomb());
    let mut cached = registry.cached(*id).unwrap();
    assert!(cached.get().is_ok());
    drop(running);
    let before = drops.count();
    assert!(cached.get().is_err(), "it is the store that drops it, and says only this");
    assert_eq!(drops.count(), before + 1, "dropped once");
    world.check_whole();
}

#[test]
fn a_value_that_panics_in_the_hands_of_a_user() {
    let world = World::new();
    let World { registry, id, provider, drops, .. } = &world;
    let panics = |what: &str, user: Box<dyn FnOnce() + '_>| {
        let before = drops.count();
        let panic = catch_unwind(AssertUnwindSafe(user));
        assert!(panic.is_err(), "{what}: it is the user's");
        std::mem::forget(panic);
        assert_eq!(drops.count(), before + 1, "{what}: dropped once");
    };
    let held = || {
        let running = again(provider, world.bomb());
        (registry.get(*id).unwrap(), running)
    };
    let (guard, running) = held();
    drop(running);
    panics("a guard", Box::new(|| drop(guard)));
    world.check_whole();

    let (guard, running) = held();
    let instance = Guard::into_arc(guard);
    drop(running);
    panics("an instance", Box::new(|| drop(instance)));
    world.check_whole();

    let running = again(provider, world.bomb());
    let mut cached = registry.cached(*id).unwrap();
    assert!(cached.get().is_ok());
    drop(running);
    panics("a cached reader", Box::new(|| drop(cached)));
    world.check_whole();

    let attempt = provider.begin().wait().unwrap();
    registry.fail(*id, "overtaken").unwrap();
    let refused = attempt.ready(world.bomb()).unwrap_err();
    panics("a refused value", Box::new(|| drop(refused)));
    world.check_whole();
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
        registry.add_dependency(other, *own).unwrap();
        if let Ok(provider) = registry.provide(other) {
            let running = provider.begin().wait().unwrap().ready(number).unwrap();
            assert_eq!(*registry.get(other).unwrap(), number);
            registry.fail(other, "by a drop").unwrap();
            drop(running);
        }
        registry.fail(*own, "by its own last value").unwrap();
    }
}

#[test]
fn a_value_that_calls_the_registry_when_it_is_dropped() {
    within("a drop that calls the registry", || {
        let registry = Registry::with_capacity(2).unwrap();
        let own = registry.register("calls").unwrap();
        let calls = Arc::new(AtomicUsize::new(0));
        let value = || Calls { registry: registry.clone(), own, calls: Arc::clone(&calls) };
        let expect = |expected| assert_eq!(calls.load(Ordering::SeqCst), expected);
        let (provider, running) = up(&registry, own, value());
        drop(running);
        expect(1);

        let running = again(&provider, value());
        running.replace(value()).unwrap();
        expect(2);
        assert!(registry.get(own).is_err(), "what was replaced has failed it");
        assert_eq!(running.failed().wait().unwrap().reason.to_string(), "by its own last value");
        let next = again(&provider, value());
        expect(3);
        drop(running);
        let guard = registry.get(own);
        drop(next);
        drop(guard);
        expect(4);

        let running = again(&provider, value());
        let mut cached = registry.cached(own).unwrap();
        assert!(cached.get().is_ok());
        drop(running);
        assert!(cached.get().is_err());
        expect(5);
        let _running = again(&provider, value());
        assert!(registry.get(own).is_ok());
        assert_eq!(registry.status(own).unwrap().dependents, ["made by a drop"]);
    });
}

/// A reason that panics when it is displayed and, if wished, when it is dropped.
#[derive(Debug)]
struct Unspeakable {
    explodes: bool,
}

impl fmt::Display for Unspeakable {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        panic!("a reason that cannot be displayed")
    }
}

impl Error for Unspeakable {}

impl Drop for Unspeakable {
    fn drop(&mut self) {
        if self.explodes {
            panic!("a reason that cannot be dropped");
        }
    }
}

#[test]
fn a_reason_that_cannot_be_displayed() {
    let world = World::new();
    let World { registry, id, provider, drops, .. } = &world;
    let running = again(provider, Bomb(drops.value(HARMLESS)));
    assert_eq!(registry.fail(*id, Unspeakable { explodes: false }).unwrap().went_down, 1);
    let failure = running.failed().wait().unwrap();
    provider.begin().wait().unwrap().fail(Unspeakable { explodes: false }).unwrap();
    assert!(registry.status(*id).unwrap().last_failure.is_some());
    assert!(catch_unwind(AssertUnwindSafe(|| failure.to_string())).is_err(), "who asks for it");
    assert!(registry.list().to_dot().contains("bomb"));
    world.check_whole();
}

#[test]
fn a_reason_that_cannot_be_dropped() {
    let world = World::new();
    let World { registry, id, provider, drops, .. } = &world;
    let reason = || Unspeakable { explodes: true };
    for _ in 0..2 {
        let running = again(provider, Bomb(drops.value(HARMLESS)));
        registry.fail(*id, reason()).unwrap();
        drop(running);
        provider.begin().wait().unwrap().fail(reason()).unwrap();
    }
    world.check_whole();
    provider.begin().wait().unwrap().fail("another one").unwrap();
    world.check_whole();
}

/// Two panics at once end a process: so this one runs in its own.
#[test]
fn a_registry_drops_reasons_that_cannot_be_dropped() {
    const CHILD: &str = "MAINSTAY_TEST_CHILD";
    if env::var_os(CHILD).is_none() {
        let test = "a_registry_drops_reasons_that_cannot_be_dropped";
        let mut child = Command::new(env::current_exe().unwrap());
        let child = child.args(["--exact", test, "--nocapture"]).env(CHILD, "1").output().unwrap();
        assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stderr));
        return;
    }
    let (registry, drops) = (Registry::with_capacity(3).unwrap(), Drops::default());
    for name in ["a", "b", "c"] {
        let (_provider, running) = up(&registry, registry.register(name).unwrap(), drops.value(1));
        running.fail(Unspeakable { explodes: true });
    }
    drop(registry);
    assert_eq!(drops.count(), 3);
}
