//! Services that one provider replaces in turn, and restarts where they fail: whoever reads several of them at one
//! instant (`get_all`) finds the first ones one round ahead at the most, and never one behind a later one.
//!
//! ```text
//! provider:  a := 1    b := 1    c := 1         a := 2    b has failed: ready with 2    c := 2
//! failer:                                                            fail c
//! reader:           a           b    c    again: a is still 1, b ...
//! ```
#![cfg(shuttle)]

use mainstay::{Attempt, GetAllError, Provider, ReadyError, Registry, Running, ServiceId};
use mainstay_shuttle_tests::{Crew, explore};

const SERVICES: usize = 5;

#[test]
fn replaced_in_turn() {
    explore("replaced_in_turn", 5_000, |mut random| {
        let registry = Registry::with_capacity(SERVICES).expect("it is small");
        let ids: [ServiceId<u64>; SERVICES] =
            std::array::from_fn(|n| registry.register(&n.to_string()).expect("room for all"));
        let turns = ids.map(|id| Turn::new(registry.provide(id).expect("nobody else does")));
        let mut crew = Crew::default();
        crew.thread(move || take_turns(turns, 12));
        for _ in 0..2 {
            let (failer, mut random) = (registry.clone(), random.fork());
            crew.thread(move || {
                for _ in 0..4 {
                    failer.fail(ids[random.below(SERVICES)], "failed").expect("it is ours");
                }
            });
            let registry = registry.clone();
            crew.thread(move || (0..20).for_each(|_| read(&registry, ids)));
        }
        crew.join();
    });
}

/// One service, and what its provider holds of it.
struct Turn {
    running: Option<Running<u64>>,
    provider: Provider<u64>,
}

impl Turn {
    fn new(provider: Provider<u64>) -> Self {
        let attempt = provider.begin().wait().expect("it is down");
        Self { running: Some(attempt.ready(0).expect("nobody fails it yet")), provider }
    }

    fn set(&mut self, round: u64) {
        if self.running.as_ref().is_some_and(|running| running.replace(round).is_ok()) {
            return;
        }
        self.running = None;
        while self.running.is_none() {
            let attempt: Attempt<u64> = self.provider.begin().wait().expect("it is not closed");
            self.running = match attempt.ready(round) {
                Ok(running) => Some(running),
                Err(ReadyError::Overtaken { value, .. }) if value == round => None,
                Err(error) => unreachable!("{error}"),
            };
        }
    }
}

fn take_turns(mut turns: [Turn; SERVICES], rounds: u64) {
    for round in 1..=rounds {
        turns.iter_mut().for_each(|turn| turn.set(round));
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
