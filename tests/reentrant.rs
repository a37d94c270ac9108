//! Every call of a registry, made from inside of user code that another call runs.
//!
//! - An observer may make every call at every event, also while the registry is being closed.
//! - So may a waker, when it wakes and when it is dropped, whatever woke it.
//! - So may the `Drop` of a value, wherever the store lets go of it, and the `Drop` of a reason.
//! - So may a thread that ends, out of the `Drop` of one of its thread-local values, after everything that the
//!   store keeps for a thread has gone.
//! - An observer may drop the last handles of a provider, of what is running, and of the registry itself.

#[path = "support/everything.rs"]
mod everything;
mod support;

use std::{
    cell::RefCell,
    collections::BTreeMap,
    error::Error,
    fmt,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Wake, Waker},
    thread,
    time::Duration,
};

use everything::every_call;
use mainstay::{Event, EventKind, GetError, Observer, Registry, Report, ServiceId};
use support::{Counted, Drops, LONG, again, poll_once, poll_with, up, within};

/// Makes every call, but not from inside of itself; counts how often it did.
#[derive(Default)]
struct Caller {
    busy: AtomicBool,
    calls: AtomicUsize,
}

impl Caller {
    fn call(&self, registry: &Registry) -> bool {
        if self.busy.swap(true, Ordering::SeqCst) {
            return false;
        }
        every_call(registry);
        self.calls.fetch_add(1, Ordering::SeqCst);
        self.busy.store(false, Ordering::SeqCst);
        true
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}

/// Room for the services of a test and for those of [`every_call`].
const PLACES: usize = 8;

#[test]
fn an_observer_makes_every_call_at_every_event() {
    struct Watch {
        caller: Caller,
        at: Arc<Mutex<BTreeMap<String, usize>>>,
    }

    impl Observer for Watch {
        fn event(&self, registry: &Registry, event: &Event<'_>) {
            if self.caller.call(registry) {
                let kind = format!("{:?}", event.kind);
                let kind = kind.split([' ', '(']).next().unwrap().to_string();
                *self.at.lock().unwrap().entry(kind).or_default() += 1;
            }
        }
    }

    within("an observer that makes every call", || {
        let at = Arc::<Mutex<BTreeMap<String, usize>>>::default();
        let watch = Watch { caller: Caller::default(), at: Arc::clone(&at) };
        let registry = Registry::builder(PLACES).unwrap().observer(watch).build();
        let first = registry.register::<u32>("first").unwrap();
        let second = registry.register::<u32>("second").unwrap();
        let provide_first = registry.provide(first).unwrap();
        let provide_second = registry.provide(second).unwrap();
        for value in 0..3 {
            let attempt = provide_second.begin().wait().unwrap();
            assert!(attempt.wait_for(first).wait_timeout(Duration::ZERO).is_err());
            let running = again(&provide_first, value);
            assert_eq!(**attempt.wait_for(first).wait().unwrap(), value);
            let dependent = attempt.ready(value).unwrap();
            running.replace(value + 1).unwrap();
            assert_eq!(registry.fail(first, "next").unwrap().went_down, 2);
            drop((running, dependent));
            let attempt = provide_second.begin().wait().unwrap();
            assert_eq!(registry.fail(second, "overtaken").unwrap().overtaken, 1);
            assert!(attempt.ready(value).is_err());
            provide_second.begin().wait().unwrap().fail("given up").unwrap();
        }
        registry.close();
        let at = at.lock().unwrap();
        let kinds: Vec<&str> = at.keys().map(String::as_str).collect();
        let all = [
            "Begun",
            "Closed",
            "Failed",
            "GivenUp",
            "Overtaken",
            "Ready",
            "Registered",
            "Replaced",
            "WaitBegun",
            "WaitEnded",
        ];
        assert_eq!(kinds, all);
    });
}

/// A waker that makes every call when it wakes, and when it is dropped; and waits for what it was to wait for.
struct Calling {
    registry: Registry,
    awaited: ServiceId<u32>,
    caller: Arc<Caller>,
}

impl Wake for Calling {
    fn wake(self: Arc<Self>) {
        let _ = poll_once(&mut self.registry.wait_ready(self.awaited));
        self.caller.call(&self.registry);
    }
}

impl Drop for Calling {
    fn drop(&mut self) {
        self.caller.call(&self.registry);
    }
}

#[test]
fn a_waker_makes_every_call() {
    within("a waker that makes every call", || {
        let registry = Registry::with_capacity(PLACES).unwrap();
        let first = registry.register::<u32>("first").unwrap();
        let second = registry.register::<u32>("second").unwrap();
        let provide_first = registry.provide(first).unwrap();
        let provide_second = registry.provide(second).unwrap();
        let caller = Arc::new(Caller::default());
        let waker = || -> Waker {
            Arc::new(Calling {
                registry: registry.clone(),
                awaited: first,
                caller: Arc::clone(&caller),
            })
            .into()
        };
        // What wakes: giving back, publication, failure from below, closing.
        let expect = |calls: usize| assert_eq!(caller.calls(), calls);

        let attempt = provide_first.begin().wait().unwrap();
        let mut begin = provide_first.begin();
        assert!(poll_with(&mut begin, &waker()).is_pending());
        attempt.fail("given back").unwrap();
        expect(2); // Woken, and dropped after that.
        drop(begin);

        let attempt = provide_second.begin().wait().unwrap();
        let mut wait_for = attempt.wait_for(first);
        let mut wait_ready = registry.wait_ready(first);
        assert!(poll_with(&mut wait_for, &waker()).is_pending());
        assert!(poll_with(&mut wait_ready, &waker()).is_pending());
        let running = again(&provide_first, 1);
        expect(6);
        drop((wait_for, wait_ready));

        let mut overtaken = attempt.overtaken();
        let mut failed = running.failed();
        assert!(poll_with(&mut overtaken, &waker()).is_pending());
        assert!(poll_with(&mut failed, &waker()).is_pending());
        registry.fail(first, "from below").unwrap();
        expect(10);
        drop((overtaken, failed));

        // Dropped without having been woken, and by a poll with another one.
        let mut wait_ready = registry.wait_ready(first);
        assert!(poll_with(&mut wait_ready, &waker()).is_pending());
        assert!(poll_with(&mut wait_ready, &waker()).is_pending());
        expect(11);
        drop(wait_ready);
        expect(12);

        let mut wait_ready = registry.wait_ready(first);
        assert!(poll_with(&mut wait_ready, &waker()).is_pending());
        registry.close();
        expect(14);
    });
}

/// Makes every call when it is dropped.
struct Parting {
    registry: Weak<Registry>,
    caller: Arc<Caller>,
    /// What must be down by then.
    down: Option<ServiceId<u32>>,
}

impl Drop for Parting {
    fn drop(&mut self) {
        // A weak handle: it is also dropped with the registry, and there are no calls then.
        if let Some(registry) = self.registry.upgrade() {
            assert!(self.down.is_none_or(|id| registry.get(id).is_err()), "within the cascade");
            self.caller.call(&registry);
        }
    }
}

impl fmt::Debug for Parting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Parting")
    }
}

impl fmt::Display for Parting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("parting")
    }
}

impl Error for Parting {}

#[test]
fn the_drop_of_a_value_makes_every_call() {
    within("a value whose drop makes every call", || {
        let registry = Arc::new(Registry::with_capacity(PLACES).unwrap());
        let id = registry.register("parting").unwrap();
        let provider = registry.provide(id).unwrap();
        let caller = Arc::new(Caller::default());
        let value = || Parting {
            registry: Arc::downgrade(&registry),
            caller: Arc::clone(&caller),
            down: None,
        };
        let mut expected = 0;
        let mut once_more = || {
            expected += 1;
            assert_eq!(caller.calls(), expected);
        };

        let running = again(&provider, value());
        running.replace(value()).unwrap();
        once_more();
        drop(running);
        once_more();

        let old = again(&provider, value());
        registry.fail(id, "and its handle stays").unwrap();
        let running = again(&provider, value());
        once_more();
        drop((old, running));
        once_more();

        let running = again(&provider, value());
        let mut cached = registry.cached(id).unwrap();
        assert!(cached.get().is_ok());
        running.replace(value()).unwrap();
        assert!(cached.get().is_ok());
        once_more();
        drop(running);
        assert!(cached.get().is_err());
        once_more();

        let running = again(&provider, value());
        let (guard, instance) = (registry.get(id).unwrap(), registry.get_arc(id).unwrap());
        drop((running, instance));
        drop(guard);
        once_more();

        let attempt = provider.begin().wait().unwrap();
        registry.fail(id, "overtaken").unwrap();
        drop(attempt.ready(value()));
        once_more();

        let running = again(&provider, value());
        drop((running, provider, registry));
    });
}

#[test]
fn the_drop_of_a_reason_makes_every_call() {
    within("a reason whose drop makes every call", || {
        let registry = Arc::new(Registry::with_capacity(PLACES).unwrap());
        let id = registry.register::<u32>("service").unwrap();
        let provider = registry.provide(id).unwrap();
        let caller = Arc::new(Caller::default());
        let reason = || Parting {
            registry: Arc::downgrade(&registry),
            caller: Arc::clone(&caller),
            down: Some(id),
        };
        let expect = |calls: usize| assert_eq!(caller.calls(), calls);

        registry.fail(id, reason()).unwrap();
        expect(1); // It was down.
        let attempt = provider.begin().wait().unwrap();
        registry.fail(id, reason()).unwrap();
        expect(1);
        assert!(attempt.fail(reason()).is_err());
        expect(2); // It was overtaken.
        let running = again(&provider, 1);
        let met = registry.get_arc(id).unwrap();
        registry.fail(id, reason()).unwrap();
        expect(3); // The one before.
        assert_eq!(registry.report(&met, reason()).unwrap(), Report::AlreadyFailed);
        expect(4);
        running.fail(reason());
        expect(5);
        provider.begin().wait().unwrap().fail(reason()).unwrap();
        expect(5);
        provider.begin().wait().unwrap().fail(reason()).unwrap();
        expect(6);
    });
}

#[test]
fn a_thread_that_ends_makes_every_call() {
    /// What the thread has kept: its drop holds what it was given, and makes every call.
    struct Last(Registry, #[expect(dead_code, reason = "held for its drop")] Vec<Box<dyn Send>>);

    impl Drop for Last {
        fn drop(&mut self) {
            every_call(&self.0);
        }
    }

    thread_local! {
        static LAST: RefCell<Option<Last>> = const { RefCell::new(None) };
    }

    within("a thread that makes every call while it ends", || {
        let registry = Registry::with_capacity(PLACES).unwrap();
        let drops = Drops::default();
        let [first, second, third]: [ServiceId<Counted>; 3] =
            ["first", "second", "third"].map(|name| registry.register(name).unwrap());
        let (of, its) = (registry.clone(), drops.clone());
        thread::spawn(move || {
            // The oldest of its thread-local values is the last to be dropped.
            LAST.with(|last| assert!(last.borrow().is_none()));
            every_call(&of);
            let (provide_first, running) = up(&of, first, its.value(1));
            let provide_second = of.provide(second).unwrap();
            let attempt = provide_second.begin().wait().unwrap();
            let guards: Vec<_> = (0..12).map(|_| of.get(first).unwrap()).collect();
            let mut cached = of.cached(first).unwrap();
            assert_eq!(cached.get().unwrap().number, 1);
            let waiting = of.clone();
            let mut wait = Box::pin(async move { waiting.wait_ready(third).await.is_ok() });
            assert!(poll_with(&mut wait, Waker::noop()).is_pending());
            let kept: Vec<Box<dyn Send>> = vec![
                Box::new(guards),
                Box::new(cached),
                Box::new(wait),
                Box::new(running),
                Box::new(provide_first),
                Box::new(attempt),
                Box::new(provide_second),
            ];
            LAST.with(|last| *last.borrow_mut() = Some(Last(of, kept)));
        })
        .join()
        .unwrap();
        assert_eq!(drops.count(), 1);
        assert_eq!(registry.status(third).unwrap().waiting, 0);
        for id in [first, second, third] {
            let (_provider, running) = up(&registry, id, drops.value(2));
            assert_eq!(registry.get(id).unwrap().number, 2);
            drop(running);
        }
        assert_eq!(drops.count(), 4);
        every_call(&registry);
    });
}

/// What an observer has in its hands: handles of any kind, dropped in this order.
type Hands = Vec<Box<dyn Send>>;

/// Lets go of all that it has at the first event of a kind.
struct LetsGo {
    of: Arc<Mutex<Hands>>,
    at: fn(&EventKind<'_>) -> bool,
    /// How often it was left whole by that: a panic of an observer ends in the store.
    left: Arc<AtomicUsize>,
    _its_own: Counted,
}

impl Observer for LetsGo {
    fn event(&self, registry: &Registry, event: &Event<'_>) {
        if (self.at)(&event.kind) {
            let hands = std::mem::take(&mut *self.of.lock().unwrap());
            drop(hands);
            // It is there for as long as the call that made this event.
            assert_eq!(registry.list().services.len(), 2);
            self.left.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// A registry of two services whose observer lets go of its hands at some kind of event.
struct Held {
    registry: Registry,
    ids: [ServiceId<Counted>; 2],
    of: Arc<Mutex<Hands>>,
    left: Arc<AtomicUsize>,
    drops: Drops,
}

impl Held {
    fn new(at: fn(&EventKind<'_>) -> bool) -> Self {
        let (of, left, drops) = (Arc::default(), Arc::default(), Drops::default());
        let observer =
            LetsGo { of: Arc::clone(&of), at, left: Arc::clone(&left), _its_own: drops.value(0) };
        let mut builder = Registry::builder(2).unwrap().observer(observer);
        let ids = ["first", "second"].map(|name| builder.register(name).unwrap());
        Self { registry: builder.build(), ids, of, left, drops }
    }
}

#[test]
fn a_provider_is_dropped_inside_of_an_observer() {
    within("an observer that drops a provider", || {
        let Held { registry, ids: [first, second], of, left, drops } =
            Held::new(|kind| matches!(kind, EventKind::Failed(_)));
        let (provider, running) = up(&registry, first, drops.value(1));
        let provide_second = registry.provide(second).unwrap();
        let attempt = provide_second.begin().wait().unwrap();
        let guard = registry.get(first).unwrap();
        *of.lock().unwrap() = vec![Box::new(attempt), Box::new(provider), Box::new(guard)];
        running.fail("over");
        assert_eq!((drops.count(), left.load(Ordering::SeqCst)), (1, 1));
        // The role is free, and so are the slots.
        let _first = up(&registry, first, drops.value(2));
        let _second = again(&provide_second, drops.value(3));
        assert_eq!(registry.get(second).unwrap().number, 3);
    });
}

#[test]
fn what_is_running_is_dropped_inside_of_an_observer() {
    within("an observer that drops what the service stands on", || {
        let Held { registry, ids: [first, second], of, left, drops } =
            Held::new(|kind| matches!(kind, EventKind::Replaced));
        let (_provide_first, running) = up(&registry, first, drops.value(1));
        let (_provide_second, replaced) = up(&registry, second, drops.value(2));
        registry.add_dependency(second, first).unwrap();
        *of.lock().unwrap() = vec![Box::new(running)];
        assert!(replaced.replace(drops.value(3)).is_ok(), "it was, and then it went down");
        assert_eq!(replaced.failed().wait_timeout(LONG).unwrap().root, "first");
        assert!(matches!(registry.get(second), Err(GetError::NotReady(_))));
        drop(replaced);
        assert_eq!((drops.count(), left.load(Ordering::SeqCst)), (3, 1));
    });
}

/// The last handle but the one through which the call itself is made, of whatever kind that is.
#[test]
fn a_registry_is_dropped_inside_of_its_own_observer() {
    for last in ["running", "attempt", "provider", "wait"] {
        within(last, move || {
            let Held { registry, ids: [first, second], of, left, drops } = Held::new(|kind| {
                use EventKind::{Failed, GivenUp, WaitEnded};
                matches!(kind, Failed(_) | GivenUp(_) | WaitEnded { .. })
            });
            let (provider, running) = up(&registry, first, drops.value(1));
            let provide_second = registry.provide(second).unwrap();
            let attempt = provide_second.begin().wait().unwrap();
            let guard = registry.get(first).unwrap();
            let of_the_wait = registry.clone();
            let mut wait = Box::pin(async move { of_the_wait.wait_ready(second).await.is_ok() });
            assert!(poll_with(&mut wait, Waker::noop()).is_pending());
            let mut hands: Vec<(&str, Box<dyn Send>)> = vec![
                ("registry", Box::new(registry)),
                ("guard", Box::new(guard)),
                ("running", Box::new(running)),
                ("attempt", Box::new(attempt)),
                ("wait", Box::new(wait)),
                ("provider", Box::new(provider)),
                ("second provider", Box::new(provide_second)),
            ];
            let place = hands.iter().position(|(name, _)| *name == last).unwrap();
            let (_, last_one) = hands.remove(place);
            *of.lock().unwrap() = hands.into_iter().map(|(_, handle)| handle).collect();
            drop(last_one);
            assert!(left.load(Ordering::SeqCst) > 0, "{last}");
            assert_eq!(drops.count(), 2, "{last}: the value, and the observer with the registry");
        });
    }
}
