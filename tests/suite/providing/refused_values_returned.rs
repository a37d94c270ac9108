//! Values that `ready` and `replace` do not publish.
//!
//! - The error returns exactly the value that was passed. It can be read at once, and taken as soon
//!   as no other thread holds a reference to it: usually at once.
//! - It is dropped once, by the caller that drops the error, and never by the registry.
//! - Neither call waits for another thread, also not for a waker that another thread runs.

use std::{
    future::Future,
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc::{Receiver, channel},
    },
    task::{Context, Wake},
    thread,
    time::Duration,
};

use crate::support::{Counted, Drops, LONG, publish, registry_of, up};
use mainstay::{
    Provider, Registry, ServiceId,
    error::{ReadyError, RefusedValue, ReplaceError},
};

fn one() -> (Registry, ServiceId<Counted>, Provider<Counted>, Drops) {
    let (registry, [id]) = registry_of(["service"]);
    let provider = registry.provide(id).unwrap();
    (registry, id, provider, Drops::default())
}

/// Refuses a value in each way.
fn refusals(drops: &Drops) -> [(&'static str, RefusedValue<Counted>); 3] {
    let (registry, id, provider, _) = one();
    let attempt = provider.begin().wait_blocking_timeout(LONG).unwrap();
    registry.fail(id, "gone").unwrap();
    let invalidated = attempt.ready(drops.value(7)).unwrap_err();
    assert!(matches!(invalidated, ReadyError::Invalidated { .. }));

    let running = publish(&provider, drops.value(0));
    registry.fail(id, "gone").unwrap();
    let ReplaceError { value: not_replaced, missing, .. } =
        running.replace(drops.value(7)).unwrap_err();
    assert_eq!(missing.failure().unwrap().reason.to_string(), "gone");

    let attempt = provider.begin().wait_blocking_timeout(LONG).unwrap();
    registry.close();
    let closed = attempt.ready(drops.value(7)).unwrap_err();
    assert!(matches!(closed, ReadyError::Closed { .. }));
    [
        ("invalidated", invalidated.into_value()),
        ("not replaced", not_replaced),
        ("closed", closed.into_value()),
    ]
}

#[test]
fn a_refused_value_can_be_read_and_taken() {
    let drops = Drops::default();
    for (what, refused) in refusals(&drops) {
        assert_eq!(refused.number, 7, "{what}");
        let Ok(value) = refused.try_into_inner() else { panic!("{what}: no thread holds it") };
        assert_eq!(value.number, 7, "{what}");
    }
    assert_eq!(drops.count(), 4, "three refused values and a published one");
    for (what, refused) in refusals(&drops) {
        assert_eq!(refused.into_inner().number, 7, "{what}");
    }
    assert_eq!(drops.count(), 8);
}

#[test]
fn a_refused_value_is_dropped_once_by_its_owner() {
    let drops = Drops::default();
    let refused = refusals(&drops);
    assert_eq!(drops.count(), 1, "only the published one");
    for (number, (what, refused)) in refused.into_iter().enumerate() {
        drop(refused);
        assert_eq!(drops.count(), 2 + number, "{what}");
    }
}

#[test]
fn a_refused_value_can_be_sent_to_another_thread() {
    let drops = Drops::default();
    for (what, refused) in refusals(&drops) {
        let value = thread::spawn(move || refused.into_inner()).join().unwrap();
        assert_eq!(value.number, 7, "{what}");
    }
}

/// Publishes with a waker that runs until another attempt and another
/// replacement were refused.
#[test]
fn a_refused_call_does_not_wait_for_the_waker_of_another_thread() {
    struct Blocks(Mutex<Receiver<()>>, AtomicBool);
    impl Wake for Blocks {
        fn wake(self: Arc<Self>) {
            self.1.store(true, Ordering::SeqCst);
            self.0.lock().unwrap().recv_timeout(LONG).unwrap();
        }
    }

    let (registry, id, provider, drops) = one();
    let old = publish(&provider, drops.value(0));
    registry.fail(id, "gone").unwrap();
    let late = provider.begin().wait_blocking_timeout(LONG).unwrap();
    registry.fail(id, "again").unwrap();
    let attempt = provider.begin().wait_blocking_timeout(LONG).unwrap();

    let (release, gate) = channel();
    let waker = Arc::new(Blocks(Mutex::new(gate), AtomicBool::new(false)));
    let mut wait = pin!(registry.wait_ready(id));
    let polled = wait.as_mut().poll(&mut Context::from_waker(&Arc::clone(&waker).into()));
    assert!(polled.is_pending());
    thread::scope(|scope| {
        let publishing = scope.spawn(|| attempt.ready(drops.value(1)).unwrap());
        while !waker.1.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(late.ready(drops.value(2)).unwrap_err().into_value().into_inner().number, 2);
        assert_eq!(old.replace(drops.value(3)).unwrap_err().value.into_inner().number, 3);
        assert_eq!(registry.get(id).unwrap().number, 1);
        release.send(()).unwrap();
        drop(publishing.join().unwrap());
    });
}

/// Attempts on two threads, which a third thread invalidates at any time, while readers hold what
/// they find. No value is lost, and none is dropped twice.
#[test]
fn every_refused_value_of_concurrent_attempts_comes_back() {
    let (registry, id, provider, drops) = one();
    let (stop, refused) = (AtomicBool::new(false), AtomicUsize::new(0));
    let made = thread::scope(|scope| {
        let builders = [1, 2].map(|number: u32| {
            let (provider, drops, refused) = (&provider, &drops, &refused);
            scope.spawn(move || {
                let mut made = 0;
                while made < 3_000 {
                    let Ok(attempt) = provider.begin().wait_blocking_timeout(LONG) else { break };
                    made += 1;
                    match attempt.ready(drops.value(number)) {
                        Ok(running) => {
                            made += 1;
                            if let Err(error) = running.replace(drops.value(number + 10)) {
                                refused.fetch_add(1, Ordering::Relaxed);
                                assert_eq!(error.value.into_inner().number, number + 10);
                            }
                        }
                        Err(error) => {
                            refused.fetch_add(1, Ordering::Relaxed);
                            let value = error.into_value();
                            assert_eq!(value.number, number, "the value of another attempt");
                            assert_eq!(value.into_inner().number, number);
                        }
                    }
                }
                made
            })
        });
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                registry.fail(id, "at any time").unwrap();
            }
        });
        scope.spawn(|| {
            let mut cached = registry.cached(id).unwrap();
            while !stop.load(Ordering::Relaxed) {
                let held = (registry.get(id), registry.get_arc(id), cached.get().is_ok());
                drop(held);
            }
        });
        let made = builders.map(|builder| builder.join().unwrap());
        stop.store(true, Ordering::Relaxed);
        made.iter().sum::<usize>()
    });
    assert_eq!(drops.count(), made, "{} were refused", refused.load(Ordering::Relaxed));
    let (_provider, running) = {
        drop(provider);
        up(&registry, id, drops.value(0))
    };
    drop(running);
    assert_eq!(drops.count(), made + 1);
}
