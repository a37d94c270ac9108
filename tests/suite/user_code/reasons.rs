//! Reasons of failures whose `Display` or `Drop` panics.
//!
//! - A reason that panics when it is displayed affects only the caller that displays it.
//! - A reason that panics when it is dropped affects no call: a reason that is not used, one that
//!   an event is the last to hold, and one that is replaced by the reason of another thread.
//! - A registry that is dropped drops all its reasons, also if some of them panic.
//! - After each of these everything can be done as before.

use std::{
    env,
    error::Error,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

use super::bomb::{Bomb, HARMLESS, World};
use crate::support::{Drops, must_finish, publish, up};
use mainstay::{Event, EventKind, FailOutcome, Observer, Phase, Provider, Registry};

/// A reason that panics when it is displayed and, if `explodes`, when it is dropped.
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
fn a_reason_that_panics_in_its_display_affects_only_the_caller_that_displays_it() {
    let world = World::new();
    let World { registry, id, provider, drops, .. } = &world;
    let running = publish(provider, Bomb(drops.value(HARMLESS)));
    assert_eq!(registry.fail(*id, Unspeakable { explodes: false }).unwrap().failed, 1);
    let failure = running.failed().wait_blocking().unwrap();
    provider.begin().wait_blocking().unwrap().fail(Unspeakable { explodes: false }).unwrap();
    assert!(registry.status(*id).unwrap().last_failure.is_some());
    assert!(
        catch_unwind(AssertUnwindSafe(|| failure.reason.to_string())).is_err(),
        "the caller that displays it"
    );
    assert!(registry.list().to_dot().contains("bomb"));
    world.check_whole();
}

#[test]
fn a_reason_that_panics_in_its_drop_affects_no_later_call() {
    let world = World::new();
    let World { registry, id, provider, drops, .. } = &world;
    let reason = || Unspeakable { explodes: true };
    for _ in 0..2 {
        let running = publish(provider, Bomb(drops.value(HARMLESS)));
        registry.fail(*id, reason()).unwrap();
        drop(running);
        provider.begin().wait_blocking().unwrap().fail(reason()).unwrap();
    }
    world.check_whole();
    provider.begin().wait_blocking().unwrap().fail("another one").unwrap();
    world.check_whole();
}

#[test]
fn an_unused_reason_that_panics_in_its_drop_affects_no_call() {
    let world = World::new();
    let World { registry, id, provider, drops, .. } = &world;
    let reason = || Unspeakable { explodes: true };
    let harmless = || Bomb(drops.value(HARMLESS));
    assert_eq!(registry.fail(*id, reason()).unwrap().failed, 0, "the service is down");

    let running = publish(provider, harmless());
    let met = registry.get_arc(*id).unwrap();
    registry.fail(*id, "sooner").unwrap();
    assert_eq!(registry.fail_instance(&met, reason()).unwrap(), FailOutcome::AlreadyFailed);
    assert_eq!(running.fail(reason()).failed, 0, "the instance has failed");

    let running = publish(provider, harmless());
    let met = registry.get_arc(*id).unwrap();
    running.replace(harmless()).unwrap();
    assert_eq!(registry.fail_instance(&met, reason()).unwrap(), FailOutcome::Replaced);
    drop(running);

    let attempt = provider.begin().wait_blocking().unwrap();
    registry.fail(*id, "invalidated").unwrap();
    assert!(attempt.fail(reason()).is_err(), "the attempt is invalidated");
    let foreign = Registry::with_capacity(1).unwrap().register::<u8>("foreign").unwrap();
    let refused = catch_unwind(AssertUnwindSafe(|| registry.fail(foreign, reason())));
    assert!(matches!(refused, Ok(Err(_))), "the id is foreign");
    world.check_whole();
}

/// The observer fails the service once more, so that only the event holds the first reason.
#[test]
fn a_reason_that_panics_in_its_drop_may_be_held_last_by_an_event() {
    struct FailsAgain(Mutex<Option<Provider<u32>>>, Arc<AtomicUsize>);
    impl Observer for FailsAgain {
        fn event(&self, _: &Registry, event: &Event<'_>) {
            self.1.fetch_add(1, Ordering::SeqCst);
            let provider = match event.kind {
                EventKind::Failed(_) | EventKind::AttemptFailed(_) => self.0.lock().unwrap().take(),
                _ => None,
            };
            if let Some(provider) = provider {
                provider.begin().wait_blocking().unwrap().fail("given up by the observer").unwrap();
                publish(&provider, 1).fail("failed by the observer");
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
    builder.depends(dependent).on(id).unwrap();
    let registry = builder.build();
    let arm = |provider| *observer.0.lock().unwrap() = provider;
    let take = || observer.0.lock().unwrap().take().unwrap();
    let (provider, running) = up(&registry, id, 1);
    let provide_dependent = registry.provide(dependent).unwrap();
    let _dependent = publish(&provide_dependent, 1);

    arm(Some(provider));
    let before = events.load(Ordering::SeqCst);
    assert_eq!(registry.fail(id, Unspeakable { explodes: true }).unwrap().failed, 2);
    let nested = ["begun", "given up", "begun", "ready", "failed"].len();
    assert_eq!(
        events.load(Ordering::SeqCst) - before,
        2 * (1 + nested),
        "an event of each of the two services"
    );
    drop(running);

    let provider = take();
    let attempt = provider.begin().wait_blocking().unwrap();
    arm(Some(provider));
    attempt.fail(Unspeakable { explodes: true }).unwrap();
    let provider = take();
    assert_eq!(registry.status(id).unwrap().phase, Phase::Down);
    publish(&provider, 1).fail(Unspeakable { explodes: false });
}

/// Each thread at some time replaces the reason of another thread.
#[test]
fn concurrent_failures_are_unaffected_by_reasons_that_panic_in_their_drop() {
    must_finish("failures at once", || {
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
                            panic!("a failure has dropped a reason, and has panicked");
                        }
                    }
                });
            }
            for _ in 0..3_000 {
                if done.load(Ordering::Relaxed) {
                    break;
                }
                let attempt = provider.begin().wait_blocking().unwrap();
                let _ = attempt.ready(Bomb(drops.value(HARMLESS)));
            }
            done.store(true, Ordering::Relaxed);
        });
        world.check_whole();
    });
}

/// Two panics at once end a process, so that this test runs itself in a process of its own.
#[test]
fn a_registry_drops_all_reasons_although_each_panics_in_its_drop() {
    const CHILD: &str = "MAINSTAY_TEST_CHILD";
    if env::var_os(CHILD).is_none() {
        let (_, module) = module_path!().split_once("::").unwrap();
        let test =
            format!("{module}::a_registry_drops_all_reasons_although_each_panics_in_its_drop");
        let mut child = Command::new(env::current_exe().unwrap());
        let child = child.args(["--exact", &test, "--nocapture"]).env(CHILD, "1").output().unwrap();
        assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stderr));
        let output = String::from_utf8_lossy(&child.stdout).into_owned();
        assert!(output.contains("running 1 test"), "{output}");
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
