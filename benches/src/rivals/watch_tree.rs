//! A watch channel for each service, whose value is gone while it is down. Nothing but a list says who is to
//! fail with the first.

use std::sync::Arc;

use tokio::sync::watch::{Receiver, Sender};

type Value = Option<Arc<u64>>;

pub struct WatchTree(Vec<Sender<Value>>);

impl WatchTree {
    pub fn new(services: usize) -> Self {
        Self((0..services).map(|_| Sender::default()).collect())
    }

    /// The values have other owners, too: what a cascade takes down is not freed by it.
    pub fn start(&self, values: &[Arc<u64>]) {
        for (service, value) in self.0.iter().zip(values) {
            service.send_replace(Some(Arc::clone(value)));
        }
    }

    /// Receivers, one for each service, that have seen its value of now.
    pub fn subscribe(&self) -> Vec<Receiver<Value>> {
        self.0.iter().map(Sender::subscribe).collect()
    }

    /// Sends to each, dependents first. Gives how many went down.
    pub fn fail(&self) -> usize {
        let was_up = |service: &&Sender<Value>| service.send_replace(None).is_some();
        self.0.iter().rev().filter(was_up).count()
    }
}
