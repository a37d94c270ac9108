//! Every call of a registry, made by user code that another call runs.
//!
//! - An observer may make every call at every event, also while the registry is being closed.
//! - A waker may make every call, when it is called and when it is dropped, for every kind of
//!   change.
//! - The `Drop` of a value may make every call, wherever the store drops it, and so may the `Drop`
//!   of a reason.
//! - A thread that ends may make every call in the `Drop` of a thread-local value, after all
//!   thread-local values of the store are dropped.
//! - An observer may drop the last handles of a provider, of an instance, and of the registry
//!   itself.

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

use super::every_call::every_call;
use crate::support::{Counted, Drops, LONG, must_finish, poll_once, poll_with, publish, up};
use mainstay::{Event, EventKind, FailOutcome, Observer, Registry, ServiceId, error::GetError};

/// Makes every call, but not from inside of itself, and counts how often.
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

/// Places for the services of a test and for those of [`every_call`].
const PLACES: usize = 8;

#[test]
fn an_observer_may_make_every_call_at_every_event() {
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

    must_finish("an observer that makes every call", || {
        let at = Arc::<Mutex<BTreeMap<String, usize>>>::default();
        let watch = Watch { caller: Caller::default(), at: Arc::clone(&at) };
        let registry = Registry::builder(PLACES).unwrap().observer(watch).build();
        let first = registry.register::<u32>("first").unwrap();
        let second = registry.register::<u32>("second").unwrap();
        let provide_first = registry.provide(first).unwrap();
        let provide_second = registry.provide(second).unwrap();
        for value in 0..3 {
            let attempt = provide_second.begin().wait_blocking().unwrap();
            assert!(attempt.wait_for(first).wait_blocking_timeout(Duration::ZERO).is_err());
            let running = publish(&provide_first, value);
            assert_eq!(**attempt.wait_for(first).wait_blocking().unwrap(), value);
            let dependent = attempt.ready(value).unwrap();
            running.replace(value + 1).unwrap();
            assert_eq!(registry.fail(first, "next").unwrap().failed, 2);
            drop((running, dependent));
            let attempt = provide_second.begin().wait_blocking().unwrap();
            assert_eq!(registry.fail(second, "invalidated").unwrap().invalidated, 1);
            assert!(attempt.ready(value).is_err());
            provide_second.begin().wait_blocking().unwrap().fail("given up").unwrap();
        }
        registry.close();
        let at = at.lock().unwrap();
        let kinds: Vec<&str> = at.keys().map(String::as_str).collect();
        let all = [
            "AttemptFailed",
            "AttemptStarted",
            "Closed",
            "Failed",
            "Invalidated",
            "Ready",
            "Registered",
            "Replaced",
            "WaitEnded",
            "WaitStarted",
        ];
        assert_eq!(kinds, all);
    });
}

/// A waker that makes every call when it is called and when it is dropped. It also polls a wait for
/// the awaited service.
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
fn a_waker_may_make_every_call_when_it_is_called_or_dropped() {
    must_finish("a waker that makes every call", || {
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
        // Each kind of change wakes: a failed attempt, a publication, a failure of a dependency, a
        // close.
        let expect = |calls: usize| assert_eq!(caller.calls(), calls);

        let attempt = provide_first.begin().wait_blocking().unwrap();
        let mut begin = provide_first.begin();
        assert!(poll_with(&mut begin, &waker()).is_pending());
        attempt.fail("given back").unwrap();
        expect(2); // Called, and dropped after that.
        drop(begin);

        let attempt = provide_second.begin().wait_blocking().unwrap();
        let mut wait_for = attempt.wait_for(first);
        let mut wait_ready = registry.wait_ready(first);
        assert!(poll_with(&mut wait_for, &waker()).is_pending());
        assert!(poll_with(&mut wait_ready, &waker()).is_pending());
        let running = publish(&provide_first, 1);
        expect(6);
        drop((wait_for, wait_ready));

        let mut invalidated = attempt.invalidated();
        let mut failed = running.failed();
        assert!(poll_with(&mut invalidated, &waker()).is_pending());
        assert!(poll_with(&mut failed, &waker()).is_pending());
        registry.fail(first, "from below").unwrap();
        expect(10);
        drop((invalidated, failed));

        // Dropped without a call, and replaced by a poll with another waker.
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
    /// The service that must be down when this is dropped.
    down: Option<ServiceId<u32>>,
}

impl Drop for Parting {
    fn drop(&mut self) {
        // The handle is weak: a value that is dropped with the registry makes no calls.
        if let Some(registry) = self.registry.upgrade() {
            assert!(
                self.down.is_none_or(|id| registry.get(id).is_err()),
                "dropped within the cascade"
            );
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
fn the_drop_of_a_value_may_make_every_call() {
    must_finish("a value whose drop makes every call", || {
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
        let mut expect_one_more = || {
            expected += 1;
            assert_eq!(caller.calls(), expected);
        };

        let running = publish(&provider, value());
        running.replace(value()).unwrap();
        expect_one_more();
        drop(running);
        expect_one_more();

        let old = publish(&provider, value());
        registry.fail(id, "and its handle stays").unwrap();
        let running = publish(&provider, value());
        expect_one_more();
        drop((old, running));
        expect_one_more();

        let running = publish(&provider, value());
        let mut cached = registry.cached(id).unwrap();
        assert!(cached.get().is_ok());
        running.replace(value()).unwrap();
        assert!(cached.get().is_ok());
        expect_one_more();
        drop(running);
        assert!(cached.get().is_err());
        expect_one_more();

        let running = publish(&provider, value());
        let (guard, instance) = (registry.get(id).unwrap(), registry.get_arc(id).unwrap());
        drop((running, instance));
        drop(guard);
        expect_one_more();

        let attempt = provider.begin().wait_blocking().unwrap();
        registry.fail(id, "invalidated").unwrap();
        drop(attempt.ready(value()));
        expect_one_more();

        let running = publish(&provider, value());
        drop((running, provider, registry));
    });
}

#[test]
fn the_drop_of_a_reason_may_make_every_call() {
    must_finish("a reason whose drop makes every call", || {
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
        expect(1); // The service was down.
        let attempt = provider.begin().wait_blocking().unwrap();
        registry.fail(id, reason()).unwrap();
        expect(1);
        assert!(attempt.fail(reason()).is_err());
        expect(2); // The attempt was invalidated.
        let running = publish(&provider, 1);
        let met = registry.get_arc(id).unwrap();
        registry.fail(id, reason()).unwrap();
        expect(3); // The previous reason.
        assert_eq!(registry.fail_instance(&met, reason()).unwrap(), FailOutcome::AlreadyFailed);
        expect(4);
        running.fail(reason());
        expect(5);
        provider.begin().wait_blocking().unwrap().fail(reason()).unwrap();
        expect(5);
        provider.begin().wait_blocking().unwrap().fail(reason()).unwrap();
        expect(6);
    });
}

#[test]
fn a_thread_that_ends_may_make_every_call_in_the_drop_of_a_thread_local() {
    /// The thread-local value. Its drop makes every call, and then drops the handles.
    struct Last(Registry, #[expect(dead_code, reason = "held for its drop")] Vec<Box<dyn Send>>);

    impl Drop for Last {
        fn drop(&mut self) {
            every_call(&self.0);
        }
    }

    thread_local! {
        static LAST: RefCell<Option<Last>> = const { RefCell::new(None) };
    }

    must_finish("a thread that makes every call while it ends", || {
        let registry = Registry::with_capacity(PLACES).unwrap();
        let drops = Drops::default();
        let [first, second, third]: [ServiceId<Counted>; 3] =
            ["first", "second", "third"].map(|name| registry.register(name).unwrap());
        let (of, its) = (registry.clone(), drops.clone());
        thread::spawn(move || {
            // The oldest thread-local value is dropped last.
            LAST.with(|last| assert!(last.borrow().is_none()));
            every_call(&of);
            let (provide_first, running) = up(&of, first, its.value(1));
            let provide_second = of.provide(second).unwrap();
            let attempt = provide_second.begin().wait_blocking().unwrap();
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
        assert_eq!(registry.status(third).unwrap().waiters, 0);
        for id in [first, second, third] {
            let (_provider, running) = up(&registry, id, drops.value(2));
            assert_eq!(registry.get(id).unwrap().number, 2);
            drop(running);
        }
        assert_eq!(drops.count(), 4);
        every_call(&registry);
    });
}

/// The handles that an observer holds, dropped in this order.
type Handles = Vec<Box<dyn Send>>;

/// Drops its handles at the events of a kind.
struct DropsHandles {
    handles: Arc<Mutex<Handles>>,
    at: fn(&EventKind<'_>) -> bool,
    /// How often the drop has returned. The store catches the panic of an observer.
    returned: Arc<AtomicUsize>,
    _its_own: Counted,
}

impl Observer for DropsHandles {
    fn event(&self, registry: &Registry, event: &Event<'_>) {
        if (self.at)(&event.kind) {
            let handles = std::mem::take(&mut *self.handles.lock().unwrap());
            drop(handles);
            // The registry lives as long as the call that made this event.
            assert_eq!(registry.list().services.len(), 2);
            self.returned.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// A registry of two services whose observer drops its handles at some kind of event.
struct Held {
    registry: Registry,
    ids: [ServiceId<Counted>; 2],
    handles: Arc<Mutex<Handles>>,
    returned: Arc<AtomicUsize>,
    drops: Drops,
}

impl Held {
    fn new(at: fn(&EventKind<'_>) -> bool) -> Self {
        let (handles, returned, drops) = (Arc::default(), Arc::default(), Drops::default());
        let observer = DropsHandles {
            handles: Arc::clone(&handles),
            at,
            returned: Arc::clone(&returned),
            _its_own: drops.value(0),
        };
        let mut builder = Registry::builder(2).unwrap().observer(observer);
        let ids = ["first", "second"].map(|name| builder.register(name).unwrap());
        Self { registry: builder.build(), ids, handles, returned, drops }
    }
}

#[test]
fn an_observer_may_drop_a_provider() {
    must_finish("an observer that drops a provider", || {
        let Held { registry, ids: [first, second], handles, returned, drops } =
            Held::new(|kind| matches!(kind, EventKind::Failed(_)));
        let (provider, running) = up(&registry, first, drops.value(1));
        let provide_second = registry.provide(second).unwrap();
        let attempt = provide_second.begin().wait_blocking().unwrap();
        let guard = registry.get(first).unwrap();
        *handles.lock().unwrap() = vec![Box::new(attempt), Box::new(provider), Box::new(guard)];
        running.fail("over");
        assert_eq!((drops.count(), returned.load(Ordering::SeqCst)), (1, 1));
        // The role and the slots are free.
        let _first = up(&registry, first, drops.value(2));
        let _second = publish(&provide_second, drops.value(3));
        assert_eq!(registry.get(second).unwrap().number, 3);
    });
}

#[test]
fn an_observer_may_drop_the_running_handle_of_a_dependency() {
    must_finish("an observer that drops the running handle of a dependency", || {
        let Held { registry, ids: [first, second], handles, returned, drops } =
            Held::new(|kind| matches!(kind, EventKind::Replaced));
        let (_provide_first, running) = up(&registry, first, drops.value(1));
        let (_provide_second, replaced) = up(&registry, second, drops.value(2));
        registry.depends(second).on(first).unwrap();
        *handles.lock().unwrap() = vec![Box::new(running)];
        assert!(
            replaced.replace(drops.value(3)).is_ok(),
            "the replacement was accepted before the service failed"
        );
        assert_eq!(replaced.failed().wait_blocking_timeout(LONG).unwrap().root, "first");
        assert!(matches!(registry.get(second), Err(GetError::NotReady(_))));
        drop(replaced);
        assert_eq!((drops.count(), returned.load(Ordering::SeqCst)), (3, 1));
    });
}

/// The observer drops every handle but `last`, whose drop makes the event.
#[test]
fn an_observer_may_drop_the_last_handle_of_its_registry() {
    for last in ["running", "attempt", "provider", "wait"] {
        must_finish(last, move || {
            let Held { registry, ids: [first, second], handles, returned, drops } =
                Held::new(|kind| {
                    use EventKind::{AttemptFailed, Failed, WaitEnded};
                    matches!(kind, Failed(_) | AttemptFailed(_) | WaitEnded { .. })
                });
            let (provider, running) = up(&registry, first, drops.value(1));
            let provide_second = registry.provide(second).unwrap();
            let attempt = provide_second.begin().wait_blocking().unwrap();
            let guard = registry.get(first).unwrap();
            let of_the_wait = registry.clone();
            let mut wait = Box::pin(async move { of_the_wait.wait_ready(second).await.is_ok() });
            assert!(poll_with(&mut wait, Waker::noop()).is_pending());
            let mut held: Vec<(&str, Box<dyn Send>)> = vec![
                ("registry", Box::new(registry)),
                ("guard", Box::new(guard)),
                ("running", Box::new(running)),
                ("attempt", Box::new(attempt)),
                ("wait", Box::new(wait)),
                ("provider", Box::new(provider)),
                ("second provider", Box::new(provide_second)),
            ];
            let place = held.iter().position(|(name, _)| *name == last).unwrap();
            let (_, last_one) = held.remove(place);
            *handles.lock().unwrap() = held.into_iter().map(|(_, handle)| handle).collect();
            drop(last_one);
            assert!(returned.load(Ordering::SeqCst) > 0, "{last}");
            assert_eq!(
                drops.count(),
                2,
                "{last}: a value is left, or the registry with its observer"
            );
        });
    }
}
