//! Waits until a service of any type is ready, by its untyped id.
//!
//! - The wait returns what identifies the instance that is current, with the number of its
//!   replacement, whether it begins before or after the publication, as a future and blocking.
//! - It is counted and reported as the typed wait is, and creates no edge.
//! - It ends with the same errors: closed, stopped, timed out (with the reason), a foreign id.

use std::{thread, time::Duration};

use crate::support::{LONG, Wakes, poll_with, publish, registry_of, up};
use mainstay::{InstanceId, Registry, error::WaitReadyError};

#[test]
fn it_returns_what_identifies_the_current_instance() {
    let (registry, [id]) = registry_of::<u32, 1>(["pool"]);
    let any = registry.find("pool").unwrap();
    let (wakes, waker) = Wakes::new();
    let mut wait = registry.wait_ready_any(any);
    assert!(poll_with(&mut wait, &waker).is_pending());
    assert_eq!(registry.status(id).unwrap().waiters, 1);
    let blocking = {
        let registry = registry.clone();
        thread::spawn(move || registry.wait_ready_any(any).wait_blocking_timeout(LONG).unwrap())
    };
    let (provider, running) = up(&registry, id, 1);
    assert_eq!(wakes.count(), 1);
    let first = wait.wait_blocking_timeout(LONG).unwrap();
    assert_eq!(first, InstanceId::from(&registry.get(id).unwrap()));
    assert_eq!((first.service, first.generation.get(), first.revision), (any, 0, Some(0)));
    assert_eq!(blocking.join().unwrap(), first);

    running.replace(2).unwrap();
    let replaced = pollster::block_on(registry.wait_ready_any(id)).unwrap();
    assert_eq!(replaced, InstanceId { revision: Some(1), ..first });
    running.fail("over");
    let _running = publish(&provider, 3);
    let next = registry.wait_ready_any(id).wait_blocking_timeout(LONG).unwrap();
    assert_eq!((next.generation.get(), next.revision), (1, Some(0)));
    let status = registry.status(id).unwrap();
    assert!(status.waiters == 0 && status.dependents.is_empty());
}

#[test]
fn its_errors_are_those_of_the_typed_wait() {
    let (registry, [id]) = registry_of::<u32, 1>(["pool"]);
    let provider = registry.provide(id).unwrap();
    provider.begin().wait_blocking().unwrap().fail("disk full").unwrap();
    match registry.wait_ready_any(id).wait_blocking_timeout(Duration::ZERO) {
        Err(WaitReadyError::TimedOut(missing)) => {
            assert_eq!(missing.service, "pool");
            assert!(missing.not_ready().unwrap().to_string().contains("disk full"));
        }
        other => panic!("{other:?}"),
    }
    let other = Registry::with_capacity(1).unwrap();
    let foreign = other.wait_ready_any(id).wait_blocking_timeout(Duration::ZERO);
    assert!(matches!(foreign, Err(WaitReadyError::ForeignId(_))));

    let mut wait = registry.wait_ready_any(id);
    let (wakes, waker) = Wakes::new();
    assert!(poll_with(&mut wait, &waker).is_pending());
    registry.close();
    assert_eq!(wakes.count(), 1);
    assert!(matches!(wait.wait_blocking_timeout(LONG), Err(WaitReadyError::Closed { .. })));
}

#[cfg(feature = "supervise")]
#[test]
fn it_ends_if_a_shutdown_has_stopped_the_service() {
    let (registry, [id, late]) = registry_of::<u32, 2>(["pool", "late"]);
    let provider = registry.provide(late).unwrap();
    let running = provider.begin().wait_blocking().unwrap().ready(1).unwrap();
    let turn = running.hold_turn();
    let mut shutdown = registry.shutdown(LONG);
    // `late` has not stopped yet, and `pool` has.
    assert!(crate::support::poll_once(&mut shutdown).is_pending());
    let stopped = registry.wait_ready_any(id).wait_blocking_timeout(LONG);
    assert!(matches!(stopped, Err(WaitReadyError::Stopped { .. })), "{stopped:?}");
    drop(turn);
}
