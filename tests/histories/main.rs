//! Histories: what real threads did to a registry, recorded with its bounds in time, and checked afterwards.
//!
//! - **One service is linearizable**: its answers to `get` of every kind, `status`, `begin`, `ready`, `replace`,
//!   `fail`, `report` and the rest are those of a service that does one thing after another, in an order that
//!   respects real time. What may happen in several steps stands on top of [`service`], which is the
//!   specification; [`linearize`] is the search for the order.
//!
//! - **Across services every read fits into the lifetimes of what it gave** (I1, and the promises of `fail`,
//!   `replace`, `ready` and `get_all`; those of each kind of dependency, and of watches): see [`lifetimes`]; and nothing
//!   fails without somebody to blame. **Once it is quiet** no ready service rests on an
//!   instance that has failed (I2), and no service is left condemned (S3).
//!
//! - The checks are themselves shown to accept what is right and to refuse what is wrong: [`checked`].
//!
//! ```text
//!   thread 0   |--- fail(config) ---|       |------ get(config): down, g 1 ------|
//!   thread 1         |-- replace(db): refused --|
//!   thread 2   |- get(db): 7 -|                    |-- get(db): 7 --|  is wrong: `fail` had returned
//!   time       ------------------------------------------------------------------------------------->
//! ```
//!
//! `MAINSTAY_HISTORY_OPS` is how many operations to record, half of them for each of the two tests;
//! `MAINSTAY_SEED` chooses what the threads do (when each of them does it is the scheduler's choice). The figures
//! are printed: `MAINSTAY_HISTORY_OPS=5000000 cargo test --release --test histories -- --nocapture`.

mod across;
mod checked;
mod lifetimes;
mod linearize;
mod one;
mod record;
mod service;
#[path = "../support/mod.rs"]
mod support;

use std::{
    env, fmt,
    sync::{Mutex, PoisonError},
    time::Instant,
};

use support::Seed;

/// What was done.
struct Figures {
    begun: Instant,
    operations: usize,
    rounds: usize,
}

impl Default for Figures {
    fn default() -> Self {
        Self { begun: Instant::now(), operations: 0, rounds: 0 }
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { begun, operations, rounds } = self;
        let seconds = begun.elapsed().as_secs_f64();
        write!(f, "{operations} operations in {rounds} rounds, {seconds:.1} s")
    }
}

/// One test at a time: the threads of both together would only wait for each other.
fn alone(name: &str, run: impl FnOnce(usize, &Seed) -> Figures) {
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let operations = env::var("MAINSTAY_HISTORY_OPS")
        .map_or(100_000, |given| given.parse::<usize>().expect("MAINSTAY_HISTORY_OPS is a number"));
    let seed = Seed::new();
    println!("{name}: {}", run(operations / 2, &seed));
}

#[test]
fn one_service_is_linearizable() {
    alone("one service", one::run);
}

#[test]
fn every_read_fits_into_the_lifetimes() {
    alone("across services", across::run);
}
