//! The types of handles and ids. Most of this is checked at compile time.
//!
//! - Handles are `Send` and `Sync` if their values are. Futures may be spawned.
//! - Ids are small, `Copy`, ordered and hashable. Handles and errors can be printed.
//! - A registry is unwind-safe. The waits of readers and for failures own what they need.

use std::{
    error::Error,
    fmt::Debug,
    hash::{BuildHasher, Hash, RandomState},
    panic::{RefUnwindSafe, UnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use crate::support::{registry_of, up};
use mainstay::{
    AnyId, Attempt, Cached, Cascade, Dependency, FailOutcome, Failure, Generation, Guard, Instance,
    Listing, MappedGuard, Observer, Phase, Provider, Reader, Reason, Registry, RegistryBuilder,
    Running, ServiceId, ServiceName, ServiceStatus,
    error::{
        BeginError, CycleError, DependencyError, DependencyUnavailable, ForeignIdError,
        GetAllError, GetError, LookupError, ProvideError, ReadyError, RegisterError, RegistryError,
        ReplaceError, WaitError, WaitForError, WaitReadyError,
    },
    wait::{Failed, Invalidated, WaitAllReady, WaitReady, WaitReadyAny},
};

fn free<T: Send + Sync + 'static>() {}
fn sent<T: Send + 'static>(_: &T) {}
fn key<T: Copy + Ord + Hash + Debug + Send + Sync + 'static>() {}
fn error<T: Error + Clone + Send + Sync + 'static>() {}
fn data<T: Clone + Debug + Send + Sync + 'static>() {}

type Value = Vec<String>;

#[test]
fn handles_are_send_and_sync() {
    free::<Registry>();
    free::<Provider<Value>>();
    free::<Attempt<Value>>();
    free::<Running<Value>>();
    free::<Arc<Instance<Value>>>();
    free::<Guard<Value>>();
    free::<MappedGuard<Value, str>>();
    free::<Box<dyn Observer>>();
    fn moved<T: Send + 'static>() {}
    moved::<RegistryBuilder>();
    moved::<Cached<Value>>();
    data::<Reader<Value>>();
}

#[test]
fn ids_are_copy_hashable_and_eight_bytes() {
    /// A type without any trait.
    struct Plain;
    key::<ServiceId<Plain>>();
    key::<AnyId>();
    assert_eq!(size_of::<ServiceId<Plain>>(), 8);
    assert_eq!(size_of::<Option<AnyId>>(), 8);
    assert!(size_of::<Registry>() <= size_of::<usize>());
}

#[test]
fn ids_are_ordered_by_their_registration() {
    let (registry, [a, b]) = registry_of::<u8, 2>(["b", "a"]);
    assert!(a < b && AnyId::from(a) < AnyId::from(b), "not the order of the names");
    assert_eq!(a.max(b), registry.id::<u8>("a").unwrap());
}

#[test]
fn generations_compare_with_each_other_and_with_numbers() {
    let (registry, [id]) = registry_of::<u8, 1>(["service"]);
    let first = registry.status(id).unwrap().generation;
    let (_provider, running) = up(&registry, id, 1);
    running.fail("over");
    let second = registry.status(id).unwrap().generation;
    assert!(first < second && first == 0 && second == 1);
    assert_eq!((u64::from(first), second.get()), (0, 1));
    assert_eq!(format!("{second} {second:?} {second:>3}"), "1 1   1");
    data::<Generation>();
}

/// A closure with a registry can be passed to `catch_unwind`, and a panic leaves the registry
/// intact.
#[test]
fn a_registry_is_unwind_safe() {
    fn unwinds<T: UnwindSafe + RefUnwindSafe>(_: &T) {}
    let (registry, [id]) = registry_of::<u8, 1>(["service"]);
    unwinds(&registry);
    let (_provider, _running) = up(&registry, id, 7);
    let panicked = catch_unwind(|| {
        let _guard = registry.get(id).unwrap();
        registry.wait_ready(id).wait_blocking().unwrap();
        panic!("in user code");
    });
    assert!(panicked.is_err());
    assert_eq!(*registry.get(id).unwrap(), 7);
}

#[test]
fn errors_and_data_are_clone_send_and_static() {
    error::<BeginError>();
    error::<RegistryError>();
    error::<CycleError>();
    error::<DependencyError>();
    error::<ForeignIdError>();
    error::<GetAllError>();
    error::<GetError>();
    error::<LookupError>();
    error::<ProvideError>();
    error::<ReadyError<Value>>();
    error::<RegisterError>();
    error::<ReplaceError<Value>>();
    error::<WaitError>();
    error::<WaitForError>();
    error::<WaitReadyError>();
    error::<DependencyUnavailable>();
    error::<Failure>();
    data::<Cascade>();
    data::<Dependency>();
    data::<Listing>();
    data::<ServiceName>();
    data::<Phase>();
    data::<Reason>();
    data::<FailOutcome>();
    data::<ServiceStatus>();
}

#[test]
fn ids_of_different_services_hash_differently() {
    let (registry, [a, b]) = registry_of::<u8, 2>(["a", "b"]);
    let hasher = RandomState::new();
    assert_eq!(hasher.hash_one(a), hasher.hash_one(registry.id::<u8>("a").unwrap()));
    assert_ne!(hasher.hash_one(a), hasher.hash_one(b));
    assert_ne!(hasher.hash_one(AnyId::from(a)), hasher.hash_one(AnyId::from(b)));
}

/// Executors may move a task that awaits them from thread to thread.
#[test]
fn futures_of_waits_are_send() {
    let (registry, [id]) = registry_of::<Value, 1>(["service"]);
    sent(&async move {
        let provider = registry.provide(id)?;
        let attempt = provider.begin().await?;
        attempt.wait_for(id).await?;
        attempt.invalidated().await?;
        let running = attempt.ready(vec![])?;
        running.failed().await?;
        registry.wait_ready(id).await?;
        Ok::<(), Box<dyn Error + Send + Sync>>(())
    });
}

/// These waits can be stored in a struct, and outlive the handle from which they were made.
#[test]
fn waits_of_readers_and_for_failures_own_what_they_need() {
    struct Waits {
        ready: WaitReady<u8>,
        any: WaitReadyAny,
        all: WaitAllReady,
        failed: Failed,
        invalidated: Invalidated,
    }
    let waits = {
        let (registry, [id, other]) = registry_of::<u8, 2>(["service", "other"]);
        let provider = registry.provide(id).unwrap();
        let attempt = provider.begin().wait_blocking().unwrap();
        let invalidated = attempt.invalidated();
        let running = attempt.ready(1).unwrap();
        let failed = running.failed();
        drop(running);
        let (_provider, _running) = up(&registry, other, 2);
        Waits {
            ready: registry.wait_ready(other),
            any: registry.wait_ready_any(other),
            all: registry.wait_all_ready(),
            failed,
            invalidated,
        }
    };
    assert_eq!(waits.failed.wait_blocking().unwrap().generation, 0);
    assert_eq!(waits.invalidated.wait_blocking().unwrap().service, "service");
    // The registry lives as long as the waits, but no provider is left.
    assert!(waits.ready.wait_blocking_timeout(Duration::ZERO).is_err());
    assert!(waits.any.wait_blocking_timeout(Duration::ZERO).is_err());
    assert!(waits.all.wait_blocking_timeout(Duration::ZERO).is_err());
}

#[test]
fn debug_of_a_handle_names_its_service() {
    let (registry, [id]) = registry_of::<u8, 1>(["service"]);
    let provider = registry.provide(id).unwrap();
    let attempt = provider.begin().wait_blocking().unwrap();
    for printed in [format!("{provider:?}"), format!("{attempt:?}")] {
        assert!(printed.contains("service"), "{printed}");
    }
    let running = attempt.ready(7).unwrap();
    assert!(format!("{running:?}").contains("service"));
    assert!(format!("{:?} {:?}", registry.get(id), registry.get_arc(id)).contains('7'));
    assert!(format!("{registry:?} {id:?} {:?}", AnyId::from(id)).contains("u8"));
    let mut cached = registry.cached(id).unwrap();
    let held = format!("{cached:?}");
    assert!(cached.get().is_ok());
    assert_ne!(format!("{cached:?}"), held, "it does not show that it holds a value");
}
