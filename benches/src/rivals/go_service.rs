//! The design of the Go package grafov/service, written anew: services by name in a locked map, each behind a
//! lock of its own; who waits looks again every 10 microseconds; a failure starts a task for each dependent,
//! which fails that one.
//!
//! Not the same: `get` gives nothing where the service is not ready, and does not wait.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{sync::Notify, task::yield_now};

use super::maps::Value;
use crate::runtime;

/// How long a wait rests between two looks.
const PAUSE: Duration = Duration::from_micros(10);

/// The services: a handle.
#[derive(Clone, Default)]
pub struct GoService(Arc<Shared>);

#[derive(Default)]
struct Shared {
    services: RwLock<HashMap<String, Arc<Service>>>,
    failures: AtomicUsize,
}

#[derive(Default)]
struct Service {
    state: RwLock<State>,
    failed: Notify,
}

#[derive(Default)]
struct State {
    value: Option<Value>,
    ready: bool,
    dependents: HashSet<String>,
}

impl GoService {
    pub fn new() -> Self {
        Self::default()
    }

    /// From now on there is a service of this name.
    pub fn provide(&self, name: &str) {
        let mut services = self.0.services.write().unwrap();
        if !services.contains_key(name) {
            services.insert(name.into(), Arc::default());
        }
    }

    pub fn ready(&self, name: &str, value: Value) {
        let service = self.service(name).unwrap();
        let mut state = service.state.write().unwrap();
        state.value = Some(value);
        state.ready = true;
    }

    pub fn get(&self, name: &str) -> Option<Value> {
        let service = self.service(name)?;
        let state = service.state.read().unwrap();
        if state.ready { state.value.clone() } else { None }
    }

    /// Who waits for a service as a provider is failed with it.
    pub fn add_dependent(&self, name: &str, dependent: &str) {
        let service = self.service(name).unwrap();
        let mut state = service.state.write().unwrap();
        if !state.dependents.contains(dependent) {
            state.dependents.insert(dependent.into());
        }
    }

    pub async fn wait_for(&self, name: &str) -> Value {
        loop {
            if let Some(value) = self.get(name) {
                return value;
            }
            pause().await;
        }
    }

    /// Returns before the dependents are down.
    pub fn fail(&self, name: &str) {
        let Some(service) = self.service(name) else { return };
        let mut state = service.state.write().unwrap();
        if !state.ready {
            return;
        }
        state.ready = false;
        drop(state);
        for dependent in &service.state.read().unwrap().dependents {
            let (services, dependent) = (self.clone(), dependent.clone());
            runtime().spawn(async move { services.fail(&dependent) });
        }
        // Before its provider goes on: who finds all up again finds all counted.
        self.0.failures.fetch_add(1, Ordering::Release);
        service.failed.notify_one();
    }

    /// Waits until the service has failed since the last such wait.
    pub async fn failed(&self, name: &str) {
        let service = self.service(name).unwrap();
        service.failed.notified().await;
    }

    /// How many services have failed so far: nothing else tells when a cascade is over.
    pub fn failures(&self) -> usize {
        self.0.failures.load(Ordering::Acquire)
    }

    fn service(&self, name: &str) -> Option<Arc<Service>> {
        self.0.services.read().unwrap().get(name).cloned()
    }
}

/// What Go's `Sleep` does: tokio's sleeps for a millisecond at the least. Others run meanwhile.
pub async fn pause() {
    let until = Instant::now() + PAUSE;
    while Instant::now() < until {
        yield_now().await;
    }
}
