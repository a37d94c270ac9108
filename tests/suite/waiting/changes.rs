//! Waiting for any change of a service whose type the waiter does not know.
//!
//! - Each change wakes the wait: an attempt begins, is published, fails, is invalidated; the
//!   instance is replaced or fails.
//! - A loop that passes each state to the next wait observes the last one.
//! - A wait ends with an error if the registry is closed, the timeout expires, or the id is
//!   foreign.
//! - A dropped wait has no effect on others, and an attempt that begins wakes nothing else.

use std::{task::Poll, thread};

use crate::support::{
    LONG, MOMENT, Wakes, must_finish, poll_once, poll_with, publish, registry_of,
};
use mainstay::{
    AnyId, Phase, Registry, ServiceState,
    error::{WaitError, WaitReadyError},
};

fn state(registry: &Registry, id: AnyId) -> ServiceState {
    registry.status(id).unwrap().state()
}

fn parts(state: ServiceState) -> (Phase, u64, u64) {
    (state.phase, state.generation.get(), state.revision)
}

use Phase::{Down, Ready, Starting};

/// Waits for a change while `change` happens, and checks that it is this change which wakes the
/// wait.
fn changed<R>(
    registry: &Registry,
    id: AnyId,
    change: impl FnOnce() -> R,
) -> ((Phase, u64, u64), R) {
    let (wakes, waker) = Wakes::new();
    let mut wait = registry.wait_changed(id, state(registry, id));
    assert!(poll_with(&mut wait, &waker).is_pending());
    assert_eq!(wakes.count(), 0);
    let result = change();
    assert_eq!(wakes.count(), 1, "one change, one wake-up");
    let Poll::Ready(changed) = poll_with(&mut wait, &waker) else { panic!("it has not changed") };
    let changed = changed.unwrap();
    assert_eq!(changed, state(registry, id));
    (parts(changed), result)
}

#[test]
fn each_change_wakes_the_wait_and_is_returned() {
    let (registry, [service]) = registry_of::<u32, 1>(["service"]);
    let id = AnyId::from(service);
    let provider = registry.provide(service).unwrap();
    let begin = || provider.begin().wait_blocking_timeout(LONG).unwrap();
    assert_eq!(parts(state(&registry, id)), (Down, 0, 0));

    let (now, attempt) = changed(&registry, id, begin);
    assert_eq!(now, (Starting, 0, 0));
    let (now, ()) = changed(&registry, id, || attempt.fail("not yet").unwrap());
    assert_eq!(now, (Down, 0, 0));
    let (now, attempt) = changed(&registry, id, begin);
    assert_eq!(now, (Starting, 0, 0));
    let (now, _) = changed(&registry, id, || registry.fail(id, "edited").unwrap());
    assert_eq!(now, (Down, 1, 0));
    drop(attempt);
    let (now, attempt) = changed(&registry, id, begin);
    assert_eq!(now, (Starting, 1, 0));
    let (now, running) = changed(&registry, id, || attempt.ready(1).unwrap());
    assert_eq!(now, (Ready, 1, 0));
    let (now, ()) = changed(&registry, id, || running.replace(2).unwrap());
    assert_eq!(now, (Ready, 1, 1));
    let (now, _) = changed(&registry, id, || running.fail("lost"));
    assert_eq!(now, (Down, 2, 0));
}

#[test]
fn a_state_that_differs_already_is_returned_at_once() {
    let (registry, [service]) = registry_of::<u32, 1>(["service"]);
    let provider = registry.provide(service).unwrap();
    let down = state(&registry, service.into());
    let running = publish(&provider, 1);
    let ready = registry.wait_changed(service, down).wait_blocking_timeout(MOMENT).unwrap();
    assert_eq!(parts(ready), (Ready, 0, 0));
    // It was down in another generation.
    running.fail("lost");
    let failed = registry.wait_changed(service, down).wait_blocking_timeout(MOMENT).unwrap();
    assert_eq!(parts(failed), (Down, 1, 0));
}

#[test]
fn a_loop_observes_the_last_state_of_a_service_that_changes() {
    let (registry, [service]) = registry_of::<u32, 1>(["service"]);
    let observer = {
        let (registry, mut last) = (registry.clone(), state(&registry, service.into()));
        thread::spawn(move || {
            while parts(last) != (Ready, 300, 2) {
                last = registry.wait_changed(service, last).wait_blocking_timeout(LONG).unwrap();
            }
        })
    };
    let provider = registry.provide(service).unwrap();
    for _ in 0..300 {
        publish(&provider, 1).fail("again");
    }
    let running = publish(&provider, 1);
    running.replace(2).unwrap();
    running.replace(3).unwrap();
    must_finish("the observer of the last state", move || observer.join().unwrap());
}

/// Nothing happens after the attempt has begun: the begin itself must wake the thread.
#[test]
fn a_thread_that_waits_observes_each_attempt_that_begins() {
    let (registry, [service]) = registry_of::<u32, 1>(["service"]);
    let provider = registry.provide(service).unwrap();
    for _ in 0..200 {
        let observer = {
            let (registry, down) = (registry.clone(), state(&registry, service.into()));
            thread::spawn(move || registry.wait_changed(service, down).wait_blocking())
        };
        let attempt = provider.begin().wait_blocking().unwrap();
        let changed = must_finish("the wait for the begin", move || observer.join().unwrap());
        assert_eq!(parts(changed.unwrap()), (Starting, 0, 0));
        drop(attempt);
    }
}

#[test]
fn an_attempt_that_begins_wakes_no_reader_unless_a_wait_for_changes_exists() {
    let (registry, [service]) = registry_of::<u32, 1>(["service"]);
    let provider = registry.provide(service).unwrap();
    let (wakes, waker) = Wakes::new();
    let mut reader = registry.wait_ready(service);
    assert!(poll_with(&mut reader, &waker).is_pending());

    let mut dropped = registry.wait_changed(service, state(&registry, service.into()));
    assert!(poll_once(&mut dropped).is_pending());
    drop(dropped);
    let attempt = provider.begin().wait_blocking().unwrap();
    assert_eq!(wakes.count(), 0, "the wait for changes was dropped before");
    let _running = attempt.ready(1).unwrap();
    assert!(poll_with(&mut reader, &waker).is_ready());
}

#[test]
fn close_timeout_and_a_foreign_id_end_the_wait() {
    let (registry, [service]) = registry_of::<u32, 1>(["service"]);
    let down = state(&registry, service.into());
    let timed_out = registry.wait_changed(service, down).wait_blocking_timeout(MOMENT);
    assert!(matches!(timed_out, Err(WaitError::TimedOut { service, .. }) if service == "service"));

    let (other, [_, foreign]) = registry_of::<u32, 2>(["a", "b"]);
    let mut wait = registry.wait_changed(foreign, down);
    assert!(matches!(poll_once(&mut wait), Poll::Ready(Err(WaitError::ForeignId(_)))));
    // It has ended, so only the timeout is left.
    let ended = wait.wait_blocking_timeout(MOMENT);
    assert!(matches!(ended, Err(WaitError::ForeignId(_))));
    let mut ready = registry.wait_ready(foreign);
    assert!(matches!(poll_once(&mut ready), Poll::Ready(Err(WaitReadyError::ForeignId(_)))));
    let ended = ready.wait_blocking_timeout(MOMENT);
    assert!(matches!(ended, Err(WaitReadyError::ForeignId(_))));
    drop(other);

    let mut wait = registry.wait_changed(service, down);
    assert!(poll_once(&mut wait).is_pending());
    registry.close();
    let Poll::Ready(closed) = poll_once(&mut wait) else { panic!("closed") };
    assert!(matches!(closed, Err(WaitError::Closed { service }) if service == "service"));
}

#[test]
fn a_state_that_differs_is_returned_before_the_close() {
    let (registry, [service]) = registry_of::<u32, 1>(["service"]);
    let down = state(&registry, service.into());
    let provider = registry.provide(service).unwrap();
    let _running = publish(&provider, 1);
    registry.close();
    let ready = registry.wait_changed(service, down).wait_blocking().unwrap();
    assert_eq!(ready.phase, Ready);
    assert!(registry.wait_changed(service, ready).wait_blocking().is_err());
}
