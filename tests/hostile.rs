//! User code that does its worst where the store runs it.
//!
//! - A value whose `Drop` panics does not disturb who publishes, replaces, fails or drops a handle; a reader
//!   that was the last holder meets the panic of its own value, and nobody else does.
//! - A value whose `Drop` calls the registry may do so, wherever it is dropped.
//! - The same where the store itself was the last holder for a moment, while readers look and report.
//! - Nothing but `Drop` is asked of a value: its equality, hash, order, clone and `Debug` are never used.
//! - A reason that cannot be displayed, or whose `Drop` panics, harms only who displays it: also one that is not
//!   used, one that an event was the last to hold, and one that another thread's takes the place of.
//! - A registry that is dropped drops all its reasons, whatever of them panics.
//! - After each of these the store is whole: all that was there goes on, and everything can be done as before.

mod support;

use std::{
    env,
    error::Error,
    fmt,
    hash::{Hash, Hasher},
    panic::{AssertUnwindSafe, catch_unwind, panic_any},
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

use mainstay::{Event, EventKind, Guard, Observer, Phase, Provider, Registry, Report, ServiceId};
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

/// Readers let go of what they looked at without a word, and may be the last to hold it.
///
/// ```text
/// provider:  up ─ replace ─ fail ─ drop ─ up ...
/// readers:   get_all │ report │ wait_for │ instance: none of the calls panics, whatever they drop inside
/// ```
#[test]
fn a_value_that_panics_while_several_look() {
    within("readers of a value that panics", || {
        let world = World::new();
        let World { registry, id, provider, dependent, drops } = &world;
        let done = &AtomicBool::new(false);
        let unharmed = |what: &str, call: &dyn Fn()| {
            while !done.load(Ordering::Relaxed) {
                let outcome = catch_unwind(AssertUnwindSafe(call));
                if outcome.is_err() {
                    done.store(true, Ordering::Relaxed);
                    std::mem::forget(outcome);
                    panic!("{what} has dropped a value, and let its panic out");
                }
            }
        };
        // What a call gives is the user's; so is the panic when that is dropped.
        fn dispose<T>(given: T) {
            std::mem::forget(catch_unwind(AssertUnwindSafe(|| drop(given))));
        }
        thread::scope(|scope| {
            scope.spawn(|| unharmed("get_all", &|| dispose(registry.get_all((*id, *id)))));
            scope.spawn(|| {
                unharmed("report", &|| {
                    if let Ok(met) = registry.get_arc(*id) {
                        thread::yield_now();
                        let _: Report = registry.report(&met, "broken").unwrap();
                        dispose(met);
                    }
                });
            });
            scope.spawn(|| {
                let provider = registry.provide(*dependent).unwrap();
                unharmed("wait_for", &|| {
                    let attempt = provider.begin().wait().unwrap();
                    dispose(attempt.wait_for(*id).wait_timeout(support::MOMENT));
                });
            });
            for _ in 0..3_000 {
                if done.load(Ordering::Relaxed) {
                    break;
                }
                let running = again(provider, world.bomb());
                let _ = running.replace(world.bomb()).map_err(dispose);
                dispose(running.instance());
                drop(running);
            }
            done.store(true, Ordering::Relaxed);
        });
        world.check_whole();
        assert!(drops.count() > 0);
    });
}

/// Does nothing but panic, whatever is asked of it.
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
fn nothing_but_drop_is_asked_of_a_value() {
    let (registry, drops) = (Registry::with_capacity(2).unwrap(), Drops::default());
    let value = || Unwilling(drops.value(1));
    let id = registry.register("unwilling").unwrap();
    let dependent = registry.register("dependent").unwrap();
    let (provider, running) = up(&registry, id, value());
    running.replace(value()).unwrap();
    assert!(running.instance().is_some() && format!("{running:?}").contains("unwilling"));
    let provide_dependent = registry.provide(dependent).unwrap();
    let attempt = provide_dependent.begin().wait().unwrap();
    let from = attempt.wait_for(id).wait().unwrap();
    let dependent = attempt.ready(1).unwrap();
    let mut cached = registry.cached(id).unwrap();
    assert!(cached.get().is_ok() && registry.get_all((id, id)).is_ok());
    assert!(registry.wait_ready(id).wait().is_ok());
    assert!(matches!(registry.report(&from, "broken"), Ok(Report::Failed(_))));
    let refused = running.replace(value()).unwrap_err();
    assert!(format!("{refused} {refused:?}").contains("broken"));
    drop((refused, running, dependent));
    let attempt = provider.begin().wait().unwrap();
    registry.fail(id, "overtaken").unwrap();
    let refused = attempt.ready(value()).unwrap_err();
    assert!(format!("{refused} {refused:?}").contains("overtaken"));
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

#[test]
fn a_reason_that_is_not_used_cannot_be_dropped() {
    let world = World::new();
    let World { registry, id, provider, drops, .. } = &world;
    let reason = || Unspeakable { explodes: true };
    let harmless = || Bomb(drops.value(HARMLESS));
    assert_eq!(registry.fail(*id, reason()).unwrap().went_down, 0, "it is down");

    let running = again(provider, harmless());
    let met = registry.get_arc(*id).unwrap();
    registry.fail(*id, "sooner").unwrap();
    assert_eq!(registry.report(&met, reason()).unwrap(), Report::AlreadyFailed);
    assert_eq!(running.fail(reason()).went_down, 0, "it has failed");

    let running = again(provider, harmless());
    let met = registry.get_arc(*id).unwrap();
    running.replace(harmless()).unwrap();
    assert_eq!(registry.report(&met, reason()).unwrap(), Report::Replaced);
    drop(running);

    let attempt = provider.begin().wait().unwrap();
    registry.fail(*id, "overtaken").unwrap();
    assert!(attempt.fail(reason()).is_err(), "it is overtaken");
    let foreign = Registry::with_capacity(1).unwrap().register::<u8>("foreign").unwrap();
    let refused = catch_unwind(AssertUnwindSafe(|| registry.fail(foreign, reason())));
    assert!(matches!(refused, Ok(Err(_))), "it is of another registry");
    world.check_whole();
}

/// The observer has the service fail once more, so that nothing holds the first reason but the event.
#[test]
fn a_reason_that_an_event_is_the_last_to_hold() {
    struct FailsAgain(Mutex<Option<Provider<u32>>>, Arc<AtomicUsize>);
    impl Observer for FailsAgain {
        fn event(&self, _: &Registry, event: &Event<'_>) {
            self.1.fetch_add(1, Ordering::SeqCst);
            let provider = match event.kind {
                EventKind::Failed(_) | EventKind::GivenUp(_) => self.0.lock().unwrap().take(),
                _ => None,
            };
            if let Some(provider) = provider {
                provider.begin().wait().unwrap().fail("given up by the observer").unwrap();
                again(&provider, 1).fail("failed by the observer");
                *self.0.lock().unwrap() = Some(provider);
            }
        }
    }
    struct Shared(Arc<FailsAgain>);
    impl Observer for Shared {
        fn event(&self, registry: &Registry, event: &Event<'_>) {
            self.0.event(registry, event);
        }
    }

    let events = Arc::new(AtomicUsize::new(0));
    let observer = Arc::new(FailsAgain(Mutex::default(), Arc::clone(&events)));
    let mut builder = Registry::builder(2).unwrap().observer(Shared(Arc::clone(&observer)));
    let id = builder.register::<u32>("service").unwrap();
    let dependent = builder.register::<u32>("dependent").unwrap();
    builder.add_dependency(dependent, id).unwrap();
    let registry = builder.build();
    let hand = |provider| *observer.0.lock().unwrap() = provider;
    let take = || observer.0.lock().unwrap().take().unwrap();
    let (provider, running) = up(&registry, id, 1);
    let provide_dependent = registry.provide(dependent).unwrap();
    let _dependent = again(&provide_dependent, 1);

    hand(Some(provider));
    let before = events.load(Ordering::SeqCst);
    assert_eq!(registry.fail(id, Unspeakable { explodes: true }).unwrap().went_down, 2);
    let nested = ["begun", "given up", "begun", "ready", "failed"].len();
    assert_eq!(events.load(Ordering::SeqCst) - before, 2 * (1 + nested), "both were told");
    drop(running);

    let provider = take();
    let attempt = provider.begin().wait().unwrap();
    hand(Some(provider));
    attempt.fail(Unspeakable { explodes: true }).unwrap();
    let provider = take();
    assert_eq!(registry.status(id).unwrap().phase, Phase::Down);
    again(&provider, 1).fail(Unspeakable { explodes: false });
}

/// Each of them is the one whose reason is covered by that of another, at some time.
#[test]
fn reasons_that_cannot_be_dropped_from_several_threads() {
    within("failures at once", || {
        let world = World::new();
        let World { registry, id, provider, drops, .. } = &world;
        let done = &AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        let reason = Unspeakable { explodes: true };
                        let failed = catch_unwind(AssertUnwindSafe(|| registry.fail(*id, reason)));
                        if failed.is_err() {
                            done.store(true, Ordering::Relaxed);
                            panic!("a failure has dropped a reason, and let its panic out");
                        }
                    }
                });
            }
            for _ in 0..3_000 {
                if done.load(Ordering::Relaxed) {
                    break;
                }
                let attempt = provider.begin().wait().unwrap();
                let _ = attempt.ready(Bomb(drops.value(HARMLESS)));
            }
            done.store(true, Ordering::Relaxed);
        });
        world.check_whole();
    });
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
