//! The types of the handles, most of it at compile time.
//!
//! - Everything that one holds may go to other threads, and be kept there, where the values may.
//! - Ids are small, `Copy`, and may be keys, by their hash, too; handles and errors can be printed.

use std::{
    error::Error,
    fmt::Debug,
    hash::{BuildHasher, Hash, RandomState},
    sync::Arc,
};

use mainstay::{
    AnyId, Attempt, BeginError, BuildError, Builder, Cached, Cascade, Cycle, Dependency,
    DependencyError, Failure, ForeignId, GetAllError, GetError, Guard, Instance, Listing,
    LookupError, Name, NotReady, Observer, Phase, ProvideError, Provider, ReadyError, Reason,
    RegisterError, Registry, ReplaceError, Report, Running, ServiceId, ServiceStatus, WaitError,
    WaitForError,
};

fn free<T: Send + Sync + 'static>() {}
fn sent<T: Send + 'static>(_: &T) {}
fn key<T: Copy + Eq + Hash + Debug + Send + Sync + 'static>() {}
fn error<T: Error + Clone + Send + Sync + 'static>() {}
fn data<T: Clone + Debug + Send + Sync + 'static>() {}

type Value = Vec<String>;

#[test]
fn handles_go_to_other_threads() {
    free::<Registry>();
    free::<Provider<Value>>();
    free::<Attempt<Value>>();
    free::<Running<Value>>();
    free::<Arc<Instance<Value>>>();
    free::<Guard<Value>>();
    free::<Box<dyn Observer>>();
    fn moved<T: Send + 'static>() {}
    moved::<Builder>();
    moved::<Cached<Value>>();
}

#[test]
fn ids_are_keys_and_small() {
    /// What is neither `Clone` nor `Hash`, nor anything else.
    struct Plain;
    key::<ServiceId<Plain>>();
    key::<AnyId>();
    assert_eq!(size_of::<ServiceId<Plain>>(), 8);
    assert_eq!(size_of::<Option<AnyId>>(), 8);
    assert!(size_of::<Registry>() <= size_of::<usize>());
}

#[test]
fn errors_and_data_can_be_kept() {
    error::<BeginError>();
    error::<BuildError>();
    error::<Cycle>();
    error::<DependencyError>();
    error::<ForeignId>();
    error::<GetAllError>();
    error::<GetError>();
    error::<LookupError>();
    error::<NotReady>();
    error::<ProvideError>();
    error::<ReadyError<Value>>();
    error::<RegisterError>();
    error::<ReplaceError<Value>>();
    error::<WaitError>();
    error::<WaitForError>();
    error::<Failure>();
    data::<Cascade>();
    data::<Dependency>();
    data::<Listing>();
    data::<Name>();
    data::<Phase>();
    data::<Reason>();
    data::<Report>();
    data::<ServiceStatus>();
}

#[test]
fn ids_are_hashed() {
    let registry = Registry::with_capacity(2).unwrap();
    let [a, b] = ["a", "b"].map(|name| registry.register::<u8>(name).unwrap());
    let hasher = RandomState::new();
    assert_eq!(hasher.hash_one(a), hasher.hash_one(registry.id::<u8>("a").unwrap()));
    assert_ne!(hasher.hash_one(a), hasher.hash_one(b));
    assert_ne!(hasher.hash_one(AnyId::from(a)), hasher.hash_one(AnyId::from(b)));
}

/// The futures may be awaited in tasks that executors move from thread to thread.
#[test]
fn waits_can_be_spawned() {
    let registry = Registry::with_capacity(1).unwrap();
    let id = registry.register::<Value>("service").unwrap();
    sent(&async move {
        let provider = registry.provide(id)?;
        let attempt = provider.begin().await?;
        attempt.wait_for(id).await?;
        attempt.overtaken().await?;
        let running = attempt.ready(vec![])?;
        running.failed().await?;
        registry.wait_ready(id).await?;
        Ok::<(), Box<dyn Error + Send + Sync>>(())
    });
}

#[test]
fn handles_can_be_printed() {
    let registry = Registry::with_capacity(1).unwrap();
    let id = registry.register::<u8>("service").unwrap();
    let provider = registry.provide(id).unwrap();
    let attempt = provider.begin().wait().unwrap();
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
    assert_ne!(format!("{cached:?}"), held, "it says that it holds something");
}
