//! Services whose values say what they rest on, the role of providing each, and the invariant.

use std::{future::Future, task::Poll};

use loom::thread::JoinHandle;
use mainstay::{Attempt, GetError, Guard, Instance, Provider, Registry, Running, ServiceId};
use mainstay_test_support::poll_once;

/// A service of the models.
pub type Id = ServiceId<Rests>;

/// The value of every service: the instances that it was built from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rests {
    /// Each dependency, and the generation of its instance.
    pub on: Vec<(Id, u64)>,
    /// Tells values of one generation apart.
    pub mark: u64,
}

/// A value that was built from nothing.
pub fn plain(mark: u64) -> Rests {
    Rests { on: Vec::new(), mark }
}

/// A registry with `N` services and declared edges (dependent, dependency), and the role of each service.
pub fn services<const N: usize>(edges: &[(usize, usize)]) -> (Registry, [Id; N], [Role; N]) {
    let mut builder = Registry::builder(N).expect("it is small");
    let ids = std::array::from_fn(|n| builder.register(&n.to_string()).expect("room for all"));
    for &(dependent, dependency) in edges {
        builder.add_dependency(ids[dependent], ids[dependency]).expect("no cycle");
    }
    let registry = builder.build();
    let roles = ids.map(|id| Role {
        registry: registry.clone(),
        provider: registry.provide(id).expect("nobody provides it yet"),
    });
    (registry, ids, roles)
}

/// The role of providing one service.
pub struct Role {
    registry: Registry,
    pub provider: Provider<Rests>,
}

impl Role {
    /// An attempt at a service that is down.
    pub fn attempt(&self) -> Attempt<Rests> {
        now(self.provider.begin()).expect("it is down").expect("not closed")
    }

    /// Starts the service on dependencies that are ready.
    pub fn start(&self, dependencies: &[Id]) -> Running<Rests> {
        finish(self.attempt(), dependencies).expect("they are ready, and nothing fails")
    }

    /// One round of the provider that does not wait: it gives up where it would have to.
    ///
    /// It looks first, since a wait that is begun and dropped takes many steps: so it may also give up a
    /// little too early.
    pub fn try_build(&self, dependencies: &[Id]) -> Option<Running<Rests>> {
        let ready = |&id: &Id| self.registry.get(id).is_ok();
        if ready(&self.provider.id()) || !dependencies.iter().all(ready) {
            return None;
        }
        let attempt = now(self.provider.begin())?.ok()?;
        finish(attempt, dependencies)
    }

    /// One round of the provider that waits for all that it needs; `None` where a cascade was faster.
    pub fn build(&self, dependencies: &[Id]) -> Option<Running<Rests>> {
        let attempt = self.provider.begin().wait().ok()?;
        let mut on = Vec::new();
        for &dependency in dependencies {
            let instance = attempt.wait_for(dependency).wait().ok()?;
            on.push((dependency, Instance::generation(&instance)));
        }
        attempt.ready(Rests { on, mark: 0 }).ok()
    }
}

/// Publishes an attempt on the dependencies as they are now; `None` where one is not ready, or a cascade was
/// faster.
pub fn finish(attempt: Attempt<Rests>, dependencies: &[Id]) -> Option<Running<Rests>> {
    let mut on = Vec::new();
    for &dependency in dependencies {
        let instance = now(attempt.wait_for(dependency))?.ok()?;
        on.push((dependency, Instance::generation(&instance)));
    }
    attempt.ready(Rests { on, mark: 0 }).ok()
}

/// The generation that a reader sees, and whether it gets an instance of it.
pub fn look(registry: &Registry, id: Id) -> (u64, bool) {
    match registry.get(id) {
        Ok(guard) => (Guard::generation(&guard), true),
        Err(GetError::NotReady(why)) => (why.generation, false),
        Err(error) => unreachable!("{error}"),
    }
}

/// I2: no ready service rests on an instance that has failed. Holds once everything is quiet.
pub fn assert_i2(registry: &Registry, ids: &[Id]) {
    for &id in ids {
        let Ok(instance) = registry.get(id) else { continue };
        for &(dependency, generation) in &instance.on {
            let (now, _) = look(registry, dependency);
            assert_eq!(now, generation, "I2: {id:?} rests on a failed instance of {dependency:?}");
        }
    }
}

/// Joins a thread of the model.
pub fn join<T>(thread: JoinHandle<T>) -> T {
    thread.join().expect("a panic ends the model before this")
}

/// The output of a wait that ends at its first look; else `None`, and the wait is dropped.
pub fn now<F: Future>(wait: F) -> Option<F::Output> {
    match poll_once(wait) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}
