//! Values whose provider lets go of them while a cascade of another thread is in progress.
//!
//! - If the provider has dropped, failed or abandoned its handle, and every cascade is over, the
//!   slot contains nothing, whichever of the two was faster. The value is dropped once.
//! - So the next attempt can use what the value held (a port), before it publishes anything.
//! - A panic in that drop reaches neither the provider nor the thread that fails the dependency.
//! - If the thread that fails the dependency drops the value, it does so after its cascade: the
//!   drop finds all services of the closure down.

use std::{
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Instant,
};

use crate::support::{LONG, publish};
use mainstay::{Provider, Registry, Running, ServiceId};

/// The number of dependents of the server: a cascade takes them down before the server, so that
/// the provider can act in between.
const DEPENDENTS: usize = 4_000;

thread_local! {
    /// Whether this thread fails the dependency.
    static FAILS: Cell<bool> = const { Cell::new(false) };
}

#[derive(Default)]
struct Seen {
    drops: AtomicUsize,
    /// Whether a drop on the thread that fails the dependency has found a service of the closure
    /// ready.
    inside_a_cascade: AtomicBool,
}

/// The value of the server. It holds its port.
struct Listener {
    registry: Registry,
    closure: Arc<[ServiceId<()>]>,
    port: Arc<AtomicBool>,
    seen: Arc<Seen>,
    panics: bool,
}

impl Drop for Listener {
    fn drop(&mut self) {
        let Self { registry, closure, seen, .. } = self;
        if FAILS.get() && closure.iter().any(|&id| registry.get(id).is_ok()) {
            seen.inside_a_cascade.store(true, Ordering::SeqCst);
        }
        seen.drops.fetch_add(1, Ordering::SeqCst);
        self.port.store(false, Ordering::SeqCst);
        if self.panics {
            panic!("a value that cannot be dropped");
        }
    }
}

/// How the provider lets go of its instance.
#[derive(Debug, Clone, Copy, PartialEq)]
enum LetsGo {
    Drops,
    Fails,
    Panics,
    /// Replaces the value first.
    Replaces,
    /// Begins the next attempt at once, which needs the port.
    BeginsAgain,
}

/// `config <- server <-` many dependents, of which the first and the last are provided.
struct World {
    registry: Registry,
    config: ServiceId<()>,
    server: ServiceId<Listener>,
    signals: [ServiceId<()>; 2],
    config_provider: Provider<()>,
    server_provider: Provider<Listener>,
    signal_providers: [Provider<()>; 2],
    port: Arc<AtomicBool>,
    seen: Arc<Seen>,
}

impl World {
    fn new() -> Self {
        let mut builder = Registry::builder(2 + DEPENDENTS).unwrap();
        let config = builder.register("config").unwrap();
        let server = builder.register("server").unwrap();
        builder.depends(server).on(config).unwrap();
        let dependents: Vec<_> = (0..DEPENDENTS)
            .map(|number| builder.register::<()>(&number.to_string()).unwrap())
            .collect();
        for &dependent in &dependents {
            builder.depends(dependent).on(server).unwrap();
        }
        let registry = builder.build();
        let signals = [dependents[0], dependents[DEPENDENTS - 1]];
        Self {
            config_provider: registry.provide(config).unwrap(),
            server_provider: registry.provide(server).unwrap(),
            signal_providers: signals.map(|id| registry.provide(id).unwrap()),
            port: Arc::default(),
            seen: Arc::default(),
            registry,
            config,
            server,
            signals,
        }
    }

    /// Takes the port, which the previous value must have released.
    fn listener(&self, panics: bool) -> Listener {
        let taken = self.port.swap(true, Ordering::SeqCst);
        assert!(!taken, "the value that holds the port is still in the slot");
        self.unbound(panics)
    }

    fn unbound(&self, panics: bool) -> Listener {
        let closure = [self.config, self.signals[0], self.signals[1]].into();
        let (registry, port) = (self.registry.clone(), Arc::clone(&self.port));
        Listener { registry, closure, port, seen: Arc::clone(&self.seen), panics }
    }

    /// One round. Returns whether the provider let go between the failures of the dependents and
    /// that of the server.
    fn race(&self, how: LetsGo, panics: bool) -> bool {
        let config = publish(&self.config_provider, ());
        let attempt = self.server_provider.begin().wait_blocking_timeout(LONG).unwrap();
        let Ok(running) = attempt.ready(self.listener(panics)) else { panic!("nothing fails") };
        let signals = self.signal_providers.each_ref().map(|provider| publish(provider, ()));
        let value = Arc::downgrade(&running.instance().unwrap());
        let is_up = |id| self.registry.get(id).is_ok();
        let within = thread::scope(|scope| {
            let failing = scope.spawn(|| {
                FAILS.set(true);
                catch_unwind(AssertUnwindSafe(|| self.registry.fail(self.config, "edited")))
            });
            while self.signals.iter().all(|&id| is_up(id)) {
                std::hint::spin_loop();
            }
            let within = self.registry.get(self.server).is_ok();
            self.let_go(running, how);
            if how == LetsGo::BeginsAgain {
                let attempt = self.server_provider.begin().wait_blocking_timeout(LONG).unwrap();
                let taken = self.port.load(Ordering::SeqCst);
                assert!(!taken, "an attempt began before the old value released its port");
                drop(attempt);
            }
            let failed = failing.join().unwrap();
            assert!(failed.is_ok_and(|cascade| cascade.is_ok()), "a drop reached `fail`");
            within
        });
        assert_eq!(value.strong_count(), 0, "{how:?}: the value is still in the slot");
        drop((config, signals));
        within
    }

    fn let_go(&self, running: Running<Listener>, how: LetsGo) {
        let unharmed = catch_unwind(AssertUnwindSafe(|| match how {
            LetsGo::Drops | LetsGo::BeginsAgain => drop(running),
            LetsGo::Fails => drop(running.fail("reload")),
            LetsGo::Panics => {
                let _running = running;
                panic!("the provider panics");
            }
            LetsGo::Replaces => {
                let replaced = running.replace(self.unbound(false));
                drop(running);
                drop(replaced);
            }
        }));
        assert_eq!(unharmed.is_err(), how == LetsGo::Panics, "a drop reached the provider");
    }
}

/// Races until the provider was at least three times faster than the take-down of the server.
fn check(how: LetsGo, panics: bool) {
    let world = World::new();
    let deadline = Instant::now() + LONG;
    let (mut rounds, mut within) = (0, 0);
    while within < 3 {
        assert!(Instant::now() < deadline, "{within} of {rounds} rounds met the cascade");
        within += usize::from(world.race(how, panics));
        rounds += 1;
    }
    let Seen { drops, inside_a_cascade } = &*world.seen;
    assert!(!inside_a_cascade.load(Ordering::SeqCst), "a drop ran inside a cascade");
    if how != LetsGo::Replaces {
        assert_eq!(drops.load(Ordering::SeqCst), rounds, "each value is dropped once");
    }
}

#[test]
fn a_handle_that_is_dropped_during_a_cascade_leaves_no_value() {
    check(LetsGo::Drops, false);
}

#[test]
fn a_handle_that_is_failed_during_a_cascade_leaves_no_value() {
    check(LetsGo::Fails, false);
}

#[test]
fn a_provider_that_panics_during_a_cascade_leaves_no_value() {
    check(LetsGo::Panics, false);
}

#[test]
fn a_value_that_is_replaced_during_a_cascade_leaves_no_value() {
    check(LetsGo::Replaces, false);
}

#[test]
fn an_attempt_that_begins_at_the_end_of_a_cascade_finds_the_port_free() {
    check(LetsGo::BeginsAgain, false);
}

#[test]
fn a_value_that_panics_in_its_drop_affects_neither_thread() {
    check(LetsGo::Drops, true);
    check(LetsGo::Fails, true);
}
