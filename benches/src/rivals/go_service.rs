//! The design of the Go package grafov/service, implemented in Rust. The services are in a locked
//! map by name, and each has a lock of its own. A waiter checks every 10 microseconds whether the
//! service is ready. A failure starts one task for each dependent, which fails this dependent.
//!
//! One difference: `get` returns `None` if the service is not ready, and does not wait.

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

/// The delay between two checks of a wait.
const PAUSE: Duration = Duration::from_micros(10);

/// A handle to the services.
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

    /// Adds a service with this name, if there is none.
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

    /// Adds a dependent, which will fail together with the service.
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
        // Before the provider is notified: a thread that finds all services ready again also finds
        // all failures counted.
        self.0.failures.fetch_add(1, Ordering::Release);
        service.failed.notify_one();
    }

    /// Waits for a failure of the service after the last call of this function.
    pub async fn failed(&self, name: &str) {
        let service = self.service(name).unwrap();
        service.failed.notified().await;
    }

    /// Returns the number of failures of all services. Nothing else shows that a cascade has
    /// ended.
    pub fn failures(&self) -> usize {
        self.0.failures.load(Ordering::Acquire)
    }

    fn service(&self, name: &str) -> Option<Arc<Service>> {
        self.0.services.read().unwrap().get(name).cloned()
    }
}

/// Does what `Sleep` of Go does; the sleep of tokio takes at least one millisecond. Other tasks run
/// during this time.
pub async fn pause() {
    let until = Instant::now() + PAUSE;
    while Instant::now() < until {
        yield_now().await;
    }
}
