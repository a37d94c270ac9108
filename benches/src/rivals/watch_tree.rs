//! A watch channel for each service, whose value is `None` while the service is down. The list of
//! all channels says which services fail with the first one.

use std::sync::Arc;

use tokio::sync::watch::{Receiver, Sender};

type Value = Option<Arc<u64>>;

pub struct WatchTree(Vec<Sender<Value>>);

impl WatchTree {
    pub fn new(services: usize) -> Self {
        Self((0..services).map(|_| Sender::default()).collect())
    }

    /// The values have other owners, too, so a cascade does not free them.
    pub fn start(&self, values: &[Arc<u64>]) {
        for (service, value) in self.0.iter().zip(values) {
            service.send_replace(Some(Arc::clone(value)));
        }
    }

    /// Returns one receiver for each service, which has seen the current value.
    pub fn subscribe(&self) -> Vec<Receiver<Value>> {
        self.0.iter().map(Sender::subscribe).collect()
    }

    /// Sends to each service, dependents first. Returns the number of services that failed.
    pub fn fail(&self) -> usize {
        let was_up = |service: &&Sender<Value>| service.send_replace(None).is_some();
        self.0.iter().rev().filter(was_up).count()
    }
}
