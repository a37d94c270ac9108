//! Constants: the thread of the cascade that ends one removes its value and releases the role,
//! once.
//!
//! ```text
//! constant:  take the role | publish | store that it is one | set the waiter bit, check
//! cascade:                      end the generation, find the waiter bit: claim, remove, release
//! close:     set the flag | wake each slot | end the constants that it finds
//! declare:   lock the graph: is it a constant?
//! ```
//!
//! What must not happen: the value stays in the slot, or is removed twice; the role stays taken, or
//! is released twice; a constant is up in a closed registry, and nothing ends it; or it has a
//! declared dependency.
#![cfg(loom)]

use loom::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread::spawn,
};
use mainstay::{
    Registry, ServiceId,
    error::{ConstantError, DependencyError},
};
use mainstay_loom_tests::{join, model};

/// Counts its drops.
struct Value(Arc<AtomicUsize>);

impl Drop for Value {
    fn drop(&mut self) {
        self.0.fetch_add(1, SeqCst);
    }
}

fn registry() -> (Registry, [ServiceId<Value>; 2], Arc<AtomicUsize>) {
    let registry = Registry::with_capacity(2).unwrap();
    let ids = ["x", "y"].map(|name| registry.register(name).unwrap());
    (registry, ids, Arc::default())
}

/// Preemption bound: 3.
#[test]
fn a_constant_that_fails_leaves_no_value_and_no_role() {
    model("a constant that fails leaves no value and no role", Some(3), || {
        let (registry, [x, _], dropped) = registry();
        let failers = [(); 2].map(|()| {
            let registry = registry.clone();
            spawn(move || {
                registry.fail(x, "edited").unwrap();
            })
        });
        let put = match registry.constant(x, Value(Arc::clone(&dropped))) {
            Ok(()) => true,
            Err(ConstantError::Invalidated { .. } | ConstantError::Failing { .. }) => false,
            Err(error) => panic!("{error}"),
        };
        failers.into_iter().for_each(join);
        let is_up = registry.get(x).is_ok();
        assert!(put || !is_up);
        assert_eq!(dropped.load(SeqCst), usize::from(!is_up), "the value was dropped once");
        // The role is free exactly if the constant has ended.
        let again = registry.constant(x, Value(Arc::clone(&dropped)));
        assert_eq!(again.is_ok(), !is_up, "the role");
    });
}

/// Preemption bound: 3.
#[test]
fn a_constant_ends_with_the_close() {
    model("a constant ends with the close", Some(3), || {
        let (registry, [x, _], dropped) = registry();
        let closer = {
            let registry = registry.clone();
            spawn(move || registry.close())
        };
        let _ = registry.constant(x, Value(Arc::clone(&dropped)));
        join(closer);
        assert!(registry.get(x).is_err(), "the registry is closed");
        assert_eq!(dropped.load(SeqCst), 1);
    });
}

/// Preemption bound: 3.
#[test]
fn a_constant_has_no_declared_dependency() {
    model("a constant has no declared dependency", Some(3), || {
        let (registry, [x, y], dropped) = registry();
        let declares = {
            let registry = registry.clone();
            spawn(move || match registry.depends(x).on(y) {
                Ok(_) => true,
                Err(DependencyError::Constant { .. }) => false,
                Err(error) => panic!("{error}"),
            })
        };
        let put = registry.constant(x, Value(dropped)).is_ok();
        let declared = join(declares);
        assert_ne!(put, declared, "one of the two is refused");
    });
}
