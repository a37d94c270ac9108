//! Services whose values record the instances that they were built from, the provider of each
//! service, and the check of I2.

use std::{future::Future, ops::Deref, task::Poll};

use loom::thread::JoinHandle;
use mainstay::{Attempt, Guard, Instance, Provider, Registry, Running, ServiceId, error::GetError};
use mainstay_test_support::poll_once;

/// A service of the models.
pub type Id = ServiceId<Value>;

/// The value of every service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value {
    /// The dependencies, each with the generation of the instance that this value was built from.
    pub built_from: Vec<(Id, u64)>,
    /// Distinguishes the values of one generation.
    pub version: u64,
}

impl Value {
    /// A value that was built from no other instance.
    pub fn new(version: u64) -> Self {
        Self { built_from: Vec::new(), version }
    }
}

/// A registry with `N` services and declared edges (dependent, dependency), and the provider of
/// each service.
pub fn services<const N: usize>(
    edges: &[(usize, usize)],
) -> (Registry, [Id; N], [TestProvider; N]) {
    let mut builder = Registry::builder(N).expect("N is small");
    let ids = std::array::from_fn(|n| builder.register(&n.to_string()).expect("capacity for N"));
    for &(dependent, dependency) in edges {
        builder.depends(ids[dependent]).on(ids[dependency]).expect("no cycle");
    }
    let registry = builder.build();
    let providers = ids.map(|id| TestProvider {
        registry: registry.clone(),
        provider: registry.provide(id).expect("the service has no provider yet"),
    });
    (registry, ids, providers)
}

/// The provider of one service, and its registry.
pub struct TestProvider {
    registry: Registry,
    provider: Provider<Value>,
}

impl Deref for TestProvider {
    type Target = Provider<Value>;

    fn deref(&self) -> &Provider<Value> {
        &self.provider
    }
}

impl TestProvider {
    /// Begins an attempt at a service that is down.
    pub fn attempt(&self) -> Attempt<Value> {
        now_or_never(self.begin()).expect("the service is down").expect("not closed")
    }

    /// Builds the service from dependencies that are ready, and publishes it.
    pub fn start(&self, dependencies: &[Id]) -> Running<Value> {
        try_publish(self.attempt(), dependencies)
            .expect("the dependencies are ready, and nothing fails")
    }

    /// One round of the provider that never waits. It returns `None` if it would have to wait, or
    /// if a cascade was faster.
    ///
    /// It first checks by reads that the service is down and the dependencies are ready, because a
    /// wait that is begun and dropped takes many steps. So it may return `None` slightly too early.
    pub fn try_build(&self, dependencies: &[Id]) -> Option<Running<Value>> {
        let ready = |&id: &Id| self.registry.get(id).is_ok();
        if ready(&self.id()) || !dependencies.iter().all(ready) {
            return None;
        }
        let attempt = now_or_never(self.begin())?.ok()?;
        try_publish(attempt, dependencies)
    }

    /// One round of the provider that waits for everything that it needs. It returns `None` if a
    /// cascade was faster.
    pub fn build(&self, dependencies: &[Id]) -> Option<Running<Value>> {
        let attempt = self.begin().wait_blocking().ok()?;
        let mut built_from = Vec::new();
        for &dependency in dependencies {
            let instance = attempt.wait_for(dependency).wait_blocking().ok()?;
            built_from.push((dependency, Instance::generation(&instance).get()));
        }
        attempt.ready(Value { built_from, version: 0 }).ok()
    }
}

/// Builds from the dependencies without waiting, and publishes. It returns `None` if a dependency
/// is not ready, or if a cascade was faster.
pub fn try_publish(attempt: Attempt<Value>, dependencies: &[Id]) -> Option<Running<Value>> {
    let mut built_from = Vec::new();
    for &dependency in dependencies {
        let instance = now_or_never(attempt.wait_for(dependency))?.ok()?;
        built_from.push((dependency, Instance::generation(&instance).get()));
    }
    attempt.ready(Value { built_from, version: 0 }).ok()
}

/// The generation of a service, and whether it is ready, as one read finds them.
pub fn read_state(registry: &Registry, id: Id) -> (u64, bool) {
    match registry.get(id) {
        Ok(guard) => (Guard::generation(&guard).get(), true),
        Err(GetError::NotReady(error)) => (error.generation.get(), false),
        Err(error) => unreachable!("{error}"),
    }
}

/// Asserts I2 in a quiescent registry: no ready service was built from an instance that has failed.
pub fn assert_i2(registry: &Registry, ids: &[Id]) {
    for &id in ids {
        let Ok(instance) = registry.get(id) else { continue };
        for &(dependency, generation) in &instance.built_from {
            let (current, _) = read_state(registry, dependency);
            assert_eq!(
                current, generation,
                "I2: {id:?} was built from a failed instance of {dependency:?}"
            );
        }
    }
}

/// Joins a thread of the model.
pub fn join<T>(thread: JoinHandle<T>) -> T {
    thread.join().expect("a panic ends the model earlier")
}

/// Polls a wait once. If it is pending, it is dropped, and the result is `None`.
pub fn now_or_never<F: Future>(wait: F) -> Option<F::Output> {
    match poll_once(wait) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}
