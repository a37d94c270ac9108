//! The capacity of a registry.
//!
//! - A registry has exactly as many places as it was made for.
//! - If several threads register more services than there are places left, then each place is
//!   filled, the other calls return an error, and a refused name leaves no trace.

use std::{collections::HashSet, sync::Barrier, thread};

use crate::support::up;
use mainstay::{
    Registry, ServiceId,
    error::{RegisterError, RegistryError},
};

#[test]
fn registration_beyond_the_capacity_is_refused() {
    let registry = Registry::with_capacity(2).unwrap();
    let first = registry.register::<u8>("first").unwrap();
    let second = registry.register::<u8>("second").unwrap();
    match registry.register::<u8>("third") {
        Err(RegisterError::Capacity { service, capacity: 2 }) => assert_eq!(service, "third"),
        other => panic!("{other:?}"),
    }
    assert!(registry.find("third").is_err(), "a refused name left a trace");
    assert_eq!(
        registry.register::<u8>("first").unwrap(),
        first,
        "a registered name needs no new place"
    );
    assert!(registry.register::<u16>("first").is_err());
    assert_ne!(first, second);

    assert!(Registry::with_capacity(0).unwrap().register::<u8>("any").is_err());
    match Registry::with_capacity(usize::MAX) {
        Err(RegistryError::Capacity { capacity }) => assert_eq!(capacity, usize::MAX),
        other => panic!("{other:?}"),
    }
}

#[test]
fn concurrent_registrations_fill_exactly_the_capacity() {
    for round in 0..50 {
        let registry = &Registry::with_capacity(10).unwrap();
        let (first, start) = (registry.register::<usize>("first").unwrap(), &Barrier::new(4));
        let (_provider, _running) = up(registry, first, round);
        let given: Vec<(String, Result<ServiceId<usize>, RegisterError>)> =
            thread::scope(|scope| {
                let register = |thread: usize| {
                    start.wait();
                    // Two of the four threads register the same names.
                    let name = |i| format!("{} {i}", thread % 2);
                    (0..10).map(name).map(|name| (name.clone(), registry.register(&name))).collect()
                };
                let threads: Vec<_> = (0..4)
                    .map(|thread| scope.spawn(move || -> Vec<_> { register(thread) }))
                    .collect();
                threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
            });
        let mut ids = HashSet::from([first]);
        for (name, given) in given {
            match given {
                Ok(id) => {
                    assert_eq!(registry.id::<usize>(&name).unwrap(), id);
                    ids.insert(id);
                }
                Err(RegisterError::Capacity { service, capacity: 10 }) => {
                    assert_eq!(service, *name);
                    assert!(registry.find(&name).is_err(), "a refused name left a trace");
                }
                Err(other) => panic!("{other}"),
            }
        }
        assert_eq!((ids.len(), registry.list().services.len()), (10, 10));
        for id in ids {
            if id != first {
                let (_provider, running) = up(registry, id, 7);
                registry.depends(id).on(first).unwrap();
                assert_eq!((*registry.get(id).unwrap(), *registry.get(first).unwrap()), (7, round));
                running.fail("over");
            }
        }
    }
}
