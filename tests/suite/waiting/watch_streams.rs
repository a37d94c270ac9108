//! A watch as a stream.
//!
//! - Each item is a state that differs from the item before. States between two polls may be
//!   skipped, the last one never is. One change wakes the task that polls.
//! - The stream ends when the registry is closed, the service has stopped, or the service on whose
//!   behalf it watches has failed, after the last state; it says why, and stays at its end.
//! - A future of the next item that is dropped has taken nothing.

use std::{pin::pin, thread};

use crate::support::{LONG, Wakes, poll_once, poll_with, publish, registry_of, up};
use futures_lite::{Stream, StreamExt, stream::block_on};
use mainstay::{Registry, ServiceId, Watch, WatchEvent, WatchStream, error::WatchError};

fn text(event: Option<WatchEvent<u32>>) -> String {
    match event {
        Some(WatchEvent::Ready(instance)) => format!("ready {}", **instance),
        Some(WatchEvent::Replaced(instance)) => format!("replaced {}", **instance),
        Some(WatchEvent::Failed(failure)) => format!("failed: {}", failure.reason),
        None => "end".into(),
    }
}

fn next(stream: &mut WatchStream<u32>) -> String {
    text(pollster::block_on(stream.next()))
}

#[test]
fn an_item_is_a_state_that_differs_from_the_last_item() {
    let (registry, [id]) = registry_of::<u32, 1>(["limit"]);
    let mut stream = registry.watch(id).unwrap().into_stream();
    assert!(format!("{stream:?}").contains("limit"));
    let (wakes, waker) = Wakes::new();
    assert!(poll_with(&mut stream.next(), &waker).is_pending());
    let (provider, running) = up(&registry, id, 1);
    assert_eq!(wakes.count(), 1);
    assert_eq!(next(&mut stream), "ready 1");
    assert!(poll_once(&mut stream.next()).is_pending());

    running.replace(2).unwrap();
    running.replace(3).unwrap();
    assert_eq!(next(&mut stream), "replaced 3", "a state in between is skipped");
    running.fail("over");
    let running = publish(&provider, 4);
    assert_eq!(next(&mut stream), "ready 4", "so is a failure");
    running.fail("over");
    assert_eq!(next(&mut stream), "failed: over");
    assert!(poll_with(&mut stream.next(), &waker).is_pending());
    let _running = publish(&provider, 5);
    assert_eq!(wakes.count(), 2);
    assert_eq!((stream.size_hint(), stream.ended().is_none()), ((0, None), true));
    registry.close();
    assert_eq!(next(&mut stream), "ready 5", "a state that was not reported comes first");
    for _ in 0..3 {
        assert_eq!(next(&mut stream), "end");
        assert!(matches!(stream.ended(), Some(WatchError::Closed { .. })));
        assert_eq!(stream.size_hint(), (0, Some(0)));
    }
}

#[test]
fn a_stream_continues_where_its_watch_was() {
    let (registry, [id]) = registry_of::<u32, 1>(["limit"]);
    registry.constant(id, 1).unwrap();
    let mut watch: Watch<u32> = registry.watch(id).unwrap();
    watch.changed().wait_blocking().unwrap();
    let mut stream = watch.into_stream();
    assert!(poll_once(&mut stream.next()).is_pending());
    registry.fail(id, "over").unwrap();
    assert_eq!(next(&mut stream), "failed: over");
}

#[test]
fn a_future_that_is_dropped_has_taken_no_item() {
    let (registry, [id]) = registry_of::<u32, 1>(["limit"]);
    let mut stream = registry.watch(id).unwrap().into_stream();
    for round in 0..10 {
        let mut dropped = stream.next();
        assert!(poll_once(&mut dropped).is_pending());
        registry.constant(id, round).unwrap();
        // It has been woken, and is dropped before its next poll.
        assert_eq!(next(&mut stream), format!("ready {round}"));
        registry.fail(id, "over").unwrap();
        let item = {
            let mut item = stream.next();
            poll_once(&mut item)
        };
        assert!(item.is_ready());
    }
}

#[test]
fn it_ends_with_the_service_on_whose_behalf_it_watches() {
    let (registry, [cache, pages]) = registry_of::<u32, 2>(["cache", "pages"]);
    let provider = registry.provide(pages).unwrap();
    let attempt = provider.begin().wait_blocking().unwrap();
    let mut stream = attempt.watch(cache).unwrap().into_stream();
    let _running = attempt.ready(1).unwrap();
    registry.constant(cache, 1).unwrap();
    assert_eq!(next(&mut stream), "ready 1");
    let (wakes, waker) = Wakes::new();
    assert!(poll_with(&mut stream.next(), &waker).is_pending());
    registry.fail(pages, "over").unwrap();
    assert!(wakes.count() > 0);
    assert_eq!(next(&mut stream), "end");
    match stream.ended() {
        Some(WatchError::DependentFailed(failure)) => assert_eq!(failure.service, "pages"),
        other => panic!("{other:?}"),
    }
}

#[cfg(feature = "supervise")]
#[test]
fn it_ends_when_a_shutdown_has_stopped_the_service() {
    let (registry, [id, late]) = registry_of::<u32, 2>(["limit", "late"]);
    registry.constant(id, 1).unwrap();
    let mut stream = registry.watch(id).unwrap().into_stream();
    assert_eq!(next(&mut stream), "ready 1");
    let (_provider, running) = up(&registry, late, 1);
    let turn = running.hold_turn();
    let mut shutdown = registry.shutdown(LONG);
    assert!(poll_once(&mut shutdown).is_pending());
    assert_eq!(next(&mut stream), "failed: the registry is shutting down");
    assert_eq!(next(&mut stream), "end");
    assert!(matches!(stream.ended(), Some(WatchError::Stopped { .. })), "{:?}", stream.ended());
    drop(turn);
}

#[test]
fn a_task_on_another_thread_gets_the_last_state() {
    fn last(registry: &Registry, id: ServiceId<u32>) -> thread::JoinHandle<Vec<String>> {
        let stream = registry.watch(id).unwrap().into_stream();
        thread::spawn(move || block_on(pin!(stream)).map(|event| text(Some(event))).collect())
    }
    let (registry, [id]) = registry_of::<u32, 1>(["limit"]);
    let threads = [last(&registry, id), last(&registry, id)];
    let (_provider, running) = up(&registry, id, 0);
    for number in 1..=1_000 {
        running.replace(number).unwrap();
    }
    running.fail("over");
    registry.close();
    for thread in threads {
        let items = thread.join().unwrap();
        // A stream that has found no instance has nothing to report.
        assert!(items.is_empty() || items.last().unwrap() == "failed: over", "{items:?}");
        assert!(items.len() <= 1_002);
    }
}
