//! One provider replaces the values of several services in order, round by round, and restarts
//! those that fail. A reader that reads all of them at one instant (`get_all`) finds the first ones
//! at most one round ahead, and never one behind a later one.
//!
//! ```text
//! provider:  a := 1    b := 1    c := 1         a := 2    b has failed: ready with 2    c := 2
//! failer:                                                            fail c
//! reader:           a           b    c    check: a is still 1, b ...
//! ```
#![cfg(shuttle)]

use mainstay::{
    Attempt, Provider, Registry, Running, ServiceId,
    error::{GetAllError, ReadyError},
};
use mainstay_shuttle_tests::{Workers, explore};

const SERVICES: usize = 5;

#[test]
fn get_all_returns_values_of_one_instant() {
    explore("replaced_in_turn", 5_000, |mut random| {
        let registry = Registry::with_capacity(SERVICES).expect("the number is small");
        let ids: [ServiceId<u64>; SERVICES] =
            std::array::from_fn(|n| registry.register(&n.to_string()).expect("capacity for all"));
        let services =
            ids.map(|id| ReplacedService::new(registry.provide(id).expect("no other provider")));
        let mut workers = Workers::default();
        workers.thread(move || replace_in_order(services, 12));
        for _ in 0..2 {
            let (failer, mut random) = (registry.clone(), random.fork());
            workers.thread(move || {
                for _ in 0..4 {
                    failer
                        .fail(ids[random.below(SERVICES)], "failed")
                        .expect("the id is of this registry");
                }
            });
            let registry = registry.clone();
            workers.thread(move || (0..20).for_each(|_| read(&registry, ids)));
        }
        workers.join();
    });
}

/// One service, with its provider and its current instance.
struct ReplacedService {
    running: Option<Running<u64>>,
    provider: Provider<u64>,
}

impl ReplacedService {
    fn new(provider: Provider<u64>) -> Self {
        let attempt = provider.begin().wait_blocking().expect("the service is down");
        Self { running: Some(attempt.ready(0).expect("nothing fails it yet")), provider }
    }

    fn set(&mut self, round: u64) {
        if self.running.as_ref().is_some_and(|running| running.replace(round).is_ok()) {
            return;
        }
        self.running = None;
        while self.running.is_none() {
            let attempt: Attempt<u64> =
                self.provider.begin().wait_blocking().expect("the registry is not closed");
            self.running = match attempt.ready(round) {
                Ok(running) => Some(running),
                Err(ReadyError::Invalidated { value, .. }) if *value == round => None,
                Err(error) => unreachable!("{error}"),
            };
        }
    }
}

fn replace_in_order(mut services: [ReplacedService; SERVICES], rounds: u64) {
    for round in 1..=rounds {
        services.iter_mut().for_each(|service| service.set(round));
    }
}

fn read(registry: &Registry, [a, b, c, d, e]: [ServiceId<u64>; SERVICES]) {
    match registry.get_all((a, b, c, d, e)) {
        Ok((a, b, c, d, e)) => {
            let rounds = [*a, *b, *c, *d, *e];
            assert!(rounds.is_sorted_by(|one, next| one >= next), "not of one instant: {rounds:?}");
            assert!(rounds[0] <= rounds[SERVICES - 1] + 1, "not of one instant: {rounds:?}");
        }
        Err(GetAllError::NotReady(_) | GetAllError::Contended { .. }) => {}
        Err(error) => unreachable!("{error}"),
    }
}
