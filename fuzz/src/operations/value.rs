//! Values that are tracked, and the ids of another registry.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, LazyLock, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::Wake,
    time::Duration,
};

use mainstay::{Attempt, Instance, Provider, Registry, Running, ServiceId};

/// The serial numbers of the values that have not been dropped.
#[derive(Debug, Clone, Default)]
pub(crate) struct LiveValues(Arc<Mutex<BTreeSet<u64>>>);

impl LiveValues {
    pub(crate) fn value(&self, serial: u64) -> Value {
        self.change(|live| live.insert(serial));
        Value { serial, live: self.clone() }
    }

    pub(crate) fn serials(&self) -> BTreeSet<u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn change(&self, change: impl FnOnce(&mut BTreeSet<u64>) -> bool) {
        let changed = change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
        assert!(changed, "each value must be created once and dropped once");
    }
}

/// The values of the services of a script.
#[derive(Debug)]
pub(crate) struct Value {
    pub(crate) serial: u64,
    live: LiveValues,
}

impl Drop for Value {
    fn drop(&mut self) {
        self.live.change(|live| live.remove(&self.serial));
    }
}

/// The type of the values of services that are only registered and read.
pub(crate) struct Other;

/// Another registry, with one ready service. The registry under test must refuse its ids and its
/// instance.
pub(crate) struct Foreign {
    pub(crate) registry: Registry,
    pub(crate) id: ServiceId<Value>,
    pub(crate) instance: Arc<Instance<Value>>,
    _provider: Provider<Value>,
    _running: Running<Value>,
}

pub(crate) static FOREIGN: LazyLock<Foreign> =
    LazyLock::new(|| foreign().expect("the other registry has one ready service"));

fn foreign() -> Result<Foreign, Box<dyn std::error::Error>> {
    let registry = Registry::with_capacity(1)?;
    let id = registry.register::<Value>("s0")?;
    let provider = registry.provide(id)?;
    let attempt: Attempt<Value> = provider.begin().wait_blocking_timeout(Duration::ZERO)?;
    let running = attempt.ready(LiveValues::default().value(0))?;
    let instance = registry.get_arc(id)?;
    Ok(Foreign { registry, id, instance, _provider: provider, _running: running })
}

/// A waker that records that it was called.
#[derive(Debug, Default)]
pub(crate) struct Woken(AtomicBool);

impl Woken {
    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn clear(&self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}
