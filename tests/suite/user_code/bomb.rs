//! A value whose `Drop` panics, and a registry for it.

use std::{panic::panic_any, thread};

use crate::support::{Counted, Drops, LONG, publish};
use mainstay::{Phase, Provider, Registry, ServiceId};

/// Panics when it is dropped, with a payload that panics when the payload is dropped.
#[derive(Debug)]
pub(super) struct Bomb(pub(super) Counted);

struct Payload;

impl Drop for Bomb {
    fn drop(&mut self) {
        if self.0.number != HARMLESS && !thread::panicking() {
            panic_any(Payload);
        }
    }
}

impl Drop for Payload {
    fn drop(&mut self) {
        if !thread::panicking() {
            panic!("the payload of a panic panics");
        }
    }
}

/// The number of a value that does not panic.
pub(super) const HARMLESS: u32 = 1_000;

pub(super) struct World {
    pub(super) registry: Registry,
    pub(super) id: ServiceId<Bomb>,
    pub(super) provider: Provider<Bomb>,
    /// Depends on `id`.
    pub(super) dependent: ServiceId<u32>,
    pub(super) drops: Drops,
}

impl World {
    pub(super) fn new() -> Self {
        let registry = Registry::with_capacity(2).unwrap();
        let id = registry.register("bomb").unwrap();
        let dependent = registry.register("dependent").unwrap();
        registry.depends(dependent).on(id).unwrap();
        let provider = registry.provide(id).unwrap();
        Self { registry, id, provider, dependent, drops: Drops::default() }
    }

    pub(super) fn bomb(&self) -> Bomb {
        Bomb(self.drops.value(1))
    }

    /// Checks that everything can be done as before.
    pub(super) fn check_whole(&self) {
        let (registry, id) = (&self.registry, self.id);
        let provider = registry.provide(self.dependent).unwrap();
        for _ in 0..2 {
            let running = publish(&self.provider, Bomb(self.drops.value(HARMLESS)));
            let attempt = provider.begin().wait_blocking_timeout(LONG).unwrap();
            attempt.wait_for(id).wait_blocking_timeout(LONG).unwrap();
            let dependent = attempt.ready(1).unwrap();
            assert_eq!(registry.get(id).unwrap().0.number, HARMLESS);
            assert_eq!(running.fail("whole").failed, 2);
            assert_eq!(dependent.failed().wait_blocking().unwrap().reason.to_string(), "whole");
        }
        let status = registry.status(id).unwrap();
        assert_eq!((status.phase, status.waiters, status.has_provider), (Phase::Down, 0, true));
        registry.list().to_dot();
    }
}
