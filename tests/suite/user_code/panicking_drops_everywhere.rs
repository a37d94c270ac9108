//! Values, reasons and wakers whose `Drop` panics, on every path on which the registry drops or
//! calls them.
//!
//! - No such panic leaves `get`, `get_arc`, `get_all`, a cached reader, `status`, `fail`,
//!   `fail_all`, `fail_instance`, `ready`, `replace`, `Attempt::fail`, the close, or the drop of an
//!   attempt, a running handle or a provider.
//! - None of this user code runs between the first and the last step of a cascade: it never finds a
//!   service that is condemned and still ready.
//! - The same holds if a thread holds more guards than it has places, so that each further read
//!   counts a reference.
//! - After each of these everything can be done as before.

use std::{
    error::Error,
    fmt,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Wake, Waker},
    thread,
};

use crate::support::{LONG, must_finish, poll_once, publish};
use mainstay::{Guard, Provider, Registry, ServiceId};

/// A chain of services, and a service that is never published and asks whether another one is
/// condemned.
struct Setup {
    registry: Registry,
    chain: [ServiceId<Bomb>; 3],
    /// `None` if several threads fail services: then another cascade may be in progress.
    probe: Option<Mutex<Provider<()>>>,
    inside_a_cascade: AtomicBool,
    runs: AtomicUsize,
}

impl Setup {
    /// What the user code does: it notes whether a cascade is in progress, and panics.
    fn explode(&self) {
        self.runs.fetch_add(1, Ordering::SeqCst);
        // No attempt begins in a closed registry.
        if let Some(provider) = self.probe.as_ref().filter(|_| !self.registry.is_closed()) {
            let provider = provider.lock().unwrap();
            let attempt = provider.begin().wait_blocking_timeout(LONG).unwrap();
            for id in self.chain {
                let Ok(_guard) = self.registry.get(id) else { continue };
                if poll_once(&mut attempt.wait_for(id)).is_pending() {
                    self.inside_a_cascade.store(true, Ordering::SeqCst);
                }
            }
        }
        if !thread::panicking() {
            panic!("user code panics");
        }
    }
}

/// A value, a reason and a waker.
struct Bomb(Weak<Setup>);

impl Drop for Bomb {
    fn drop(&mut self) {
        if let Some(setup) = self.0.upgrade() {
            setup.explode();
        }
    }
}

impl fmt::Debug for Bomb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bomb")
    }
}

impl fmt::Display for Bomb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a reason")
    }
}

impl Error for Bomb {}

impl Wake for Bomb {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if let Some(setup) = self.0.upgrade() {
            setup.explode();
        }
    }
}

struct World {
    setup: Arc<Setup>,
    providers: [Provider<Bomb>; 3],
}

impl World {
    fn new(probes: bool) -> Self {
        let mut builder = Registry::builder(4).unwrap();
        let chain = ["root", "middle", "top"].map(|name| builder.register(name).unwrap());
        builder.depends(chain[1]).on(chain[0]).unwrap();
        builder.depends(chain[2]).on(chain[1]).unwrap();
        let probe = builder.register("probe").unwrap();
        let registry = builder.build();
        let providers = chain.map(|id| registry.provide(id).unwrap());
        let setup = Arc::new(Setup {
            probe: probes.then(|| Mutex::new(registry.provide(probe).unwrap())),
            registry,
            chain,
            inside_a_cascade: AtomicBool::new(false),
            runs: AtomicUsize::new(0),
        });
        Self { setup, providers }
    }

    fn bomb(&self) -> Bomb {
        Bomb(Arc::downgrade(&self.setup))
    }

    fn waker(&self) -> Waker {
        Arc::new(self.bomb()).into()
    }

    /// Publishes the services that are down, calls `end`, and checks that nothing has left it.
    fn round<R>(&self, what: &str, end: impl FnOnce(&mut [Option<Running>; 3]) -> R) -> R {
        let mut running = self.providers.each_ref().map(|provider| {
            let attempt = provider.begin().wait_blocking_timeout(LONG).unwrap();
            unharmed(what, || attempt.ready(self.bomb()).ok())
        });
        assert!(running.iter().all(Option::is_some), "{what}: nothing fails");
        let result = unharmed(what, || end(&mut running));
        for running in running {
            unharmed(what, || drop(running));
        }
        assert!(!self.setup.inside_a_cascade.load(Ordering::SeqCst), "{what}: inside a cascade");
        for id in self.setup.chain {
            assert!(self.setup.registry.get(id).is_err(), "{what}: all handles were dropped");
        }
        result
    }
}

type Running = mainstay::Running<Bomb>;

/// Runs a call that must not panic.
#[track_caller]
fn unharmed<R>(what: &str, call: impl FnOnce() -> R) -> R {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => result,
        Err(_) => panic!("{what}: a panic of user code has left a call"),
    }
}

/// Drops what a call has returned. The caller may get the panic of this drop.
fn dispose<T>(returned: T) {
    // The payload is a text.
    drop(catch_unwind(AssertUnwindSafe(|| drop(returned))));
}

#[test]
fn no_panic_leaves_a_call_that_ends_instances() {
    must_finish("calls that end instances", || {
        let world = World::new(true);
        let Setup { registry, chain: [root, middle, top], .. } = &*world.setup;
        let bomb = || world.bomb();
        for _ in 0..2 {
            world.round("drop", |running| running.each_mut().map(|running| drop(running.take())));
            world.round("fail", |_| registry.fail(*root, bomb()).map(drop).unwrap());
            world.round("fail each", |_| {
                for id in [top, middle, root, root, top] {
                    registry.fail(*id, bomb()).unwrap();
                }
            });
            world.round("fail_all", |_| {
                dispose(registry.fail_all([*top, *root, *middle], bomb()).unwrap());
                dispose(registry.fail_all([*top], bomb()).unwrap());
            });
            world.round("Running::fail", |running| {
                for running in running.iter_mut().rev() {
                    running.take().unwrap().fail(bomb());
                }
            });
            world.round("Running::fail of what has failed", |running| {
                registry.fail(*root, bomb()).unwrap();
                for running in running.iter_mut() {
                    assert_eq!(running.take().unwrap().fail(bomb()).failed, 0);
                }
            });
            world.round("fail_instance", |running| {
                let met = registry.get_arc(*middle).unwrap();
                registry.fail_instance(&met, bomb()).unwrap();
                registry.fail_instance(&met, bomb()).unwrap();
                drop(running[1].take());
                dispose(met);
            });
            world.round("replace", |running| {
                for (running, id) in running.iter().flatten().zip(world.setup.chain) {
                    let met = registry.get_arc(id).unwrap();
                    unharmed("replace", || running.replace(bomb()).map_err(dispose).unwrap());
                    unharmed("a late report", || registry.fail_instance(&met, bomb()).unwrap());
                    dispose(met);
                }
            });
            world.round("a refused replace", |running| {
                registry.fail(*root, bomb()).unwrap();
                for running in running.iter().flatten() {
                    let refused = running.replace(bomb());
                    assert!(refused.is_err());
                    dispose(refused);
                }
            });
            world.round("a root that is down", |running| {
                drop(running[0].take());
                registry.fail(*root, bomb()).unwrap();
            });
        }
        assert!(world.setup.runs.load(Ordering::SeqCst) > 100, "no user code ran");
    });
}

#[test]
fn no_panic_leaves_a_call_that_ends_attempts() {
    must_finish("calls that end attempts", || {
        let world = World::new(true);
        let Setup { registry, chain: [root, ..], .. } = &*world.setup;
        let (bomb, provider) = (|| world.bomb(), &world.providers[0]);
        let begin = || provider.begin().wait_blocking_timeout(LONG).unwrap();
        for _ in 0..3 {
            let attempt = begin();
            unharmed("Attempt::fail", || attempt.fail(bomb()).unwrap());
            let attempt = begin();
            unharmed("a dropped attempt", || drop(attempt));
            let attempt = begin();
            unharmed("fail of a starting service", || registry.fail(*root, bomb()).unwrap());
            let refused = unharmed("a refused Attempt::fail", || attempt.fail(bomb()));
            assert!(refused.is_err());
            dispose(refused);
            let attempt = begin();
            registry.fail(*root, bomb()).unwrap();
            let refused = unharmed("a refused ready", || attempt.ready(bomb()));
            assert!(refused.is_err());
            dispose(refused);
            let status = unharmed("status", || registry.status(*root).unwrap());
            assert!(status.last_failure.is_some());
            dispose(status);
            let status = unharmed("list", || registry.list());
            dispose(status);
        }
        assert!(!world.setup.inside_a_cascade.load(Ordering::SeqCst));
        world.round("afterwards", |_| ());
        assert!(world.setup.runs.load(Ordering::SeqCst) > 10, "no user code ran");
    });
}

#[test]
fn no_panic_of_a_waker_leaves_the_call_that_wakes_it() {
    must_finish("calls that wake", || {
        let world = World::new(true);
        let Setup { registry, chain: [root, middle, top], .. } = &*world.setup;
        let bomb = || world.bomb();
        world.round("wakers", |running| {
            let handles = running.each_ref().map(|running| running.as_ref().unwrap());
            let failed = handles.map(|running| running.failed());
            let mut watches = [*root, *middle, *top].map(|id| registry.watch(id).unwrap());
            let mut begin = world.providers[0].begin();
            let mut failed = failed.map(Box::pin);
            {
                let mut changes: Vec<_> = watches.iter_mut().map(|watch| watch.changed()).collect();
                for change in &mut changes {
                    dispose(poll_once(change));
                }
            }
            let mut changes: Vec<_> = watches.iter_mut().map(|watch| watch.changed()).collect();
            let waker = world.waker();
            let mut context = Context::from_waker(&waker);
            let mut arm = || {
                for failed in &mut failed {
                    dispose(failed.as_mut().poll(&mut context));
                }
                for change in &mut changes {
                    dispose(pin!(change).poll(&mut context));
                }
                dispose(pin!(&mut begin).poll(&mut context));
            };
            arm();
            unharmed("replace wakes", || running[0].as_ref().unwrap().replace(bomb()).unwrap());
            arm();
            unharmed("fail wakes", || registry.fail(*root, bomb()).unwrap());
            dispose((failed, changes, begin));
            dispose(waker);
        });
        let mut ready = Box::pin(registry.wait_ready(*root));
        let waker = world.waker();
        assert!(ready.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        world.round("ready wakes", |_| ());
        dispose((ready, waker));
        let mut ready = Box::pin(registry.wait_ready(*root));
        let waker = world.waker();
        assert!(ready.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        unharmed("close", || registry.close());
        dispose((ready, waker));
        assert!(!world.setup.inside_a_cascade.load(Ordering::SeqCst));
    });
}

/// Threads fail, read and publish. Each holds guards of other services in all of its places.
#[test]
fn no_panic_leaves_a_call_of_a_thread_that_holds_many_guards() {
    must_finish("threads with many guards", || {
        const GUARDS: usize = 12;
        let world = World::new(false);
        let Setup { registry, chain: [root, middle, top], .. } = &*world.setup;
        let others = Registry::with_capacity(GUARDS).unwrap();
        let held: Vec<_> = (0..GUARDS)
            .map(|number| {
                let id = others.register::<usize>(&number.to_string()).unwrap();
                let provider = others.provide(id).unwrap();
                let running = publish(&provider, number);
                (id, provider, running)
            })
            .collect();
        let hold = || -> Vec<Guard<usize>> {
            held.iter().map(|(id, ..)| others.get(*id).unwrap()).collect()
        };
        // The first read of an instance counts a reference.
        drop(hold());
        let stop = AtomicBool::new(false);
        let again = |call: &dyn Fn()| {
            let guards = hold();
            while !stop.load(Ordering::Relaxed) {
                if catch_unwind(AssertUnwindSafe(call)).is_err() {
                    stop.store(true, Ordering::Relaxed);
                    panic!("a panic of user code has left a call");
                }
            }
            drop(guards);
        };
        thread::scope(|scope| {
            for id in [root, middle] {
                scope.spawn(|| again(&|| assert!(registry.fail(*id, world.bomb()).is_ok())));
            }
            scope.spawn(|| {
                again(&|| {
                    dispose((registry.get(*top), registry.get_all((*root, *middle, *top))));
                    if let Ok(met) = registry.get_arc(*middle) {
                        registry.fail_instance(&met, world.bomb()).unwrap();
                        dispose(met);
                    }
                    dispose(registry.status(*top));
                });
            });
            let guards = hold();
            for round in 0..500 {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let provider = &world.providers[round % 3];
                let attempt = provider.begin().wait_blocking_timeout(LONG).unwrap();
                match unharmed("ready", || attempt.ready(world.bomb())) {
                    Ok(running) => {
                        dispose(unharmed("replace", || running.replace(world.bomb())));
                        unharmed("drop", || drop(running));
                    }
                    Err(refused) => dispose(refused),
                }
            }
            drop(guards);
            stop.store(true, Ordering::Relaxed);
        });
        world.round("afterwards", |_| ());
    });
}
