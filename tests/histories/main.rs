//! Histories: what threads did to a registry, recorded with the bounds in time of each call, and
//! checked afterwards.
//!
//! - **One service is linearizable**: `get` in all its forms, `status`, `begin`, `ready`,
//!   `replace`, `fail`, `report` and the other calls return what a service returns that does one
//!   step after another, in an order that respects real time. [`service`] is this specification.
//!   Its header lists the calls that may take several steps. [`linearize`] is the search for the
//!   order.
//! - **Every read fits into the lifetimes of the values that it returned**, across services: I1,
//!   the promises of `fail`, `replace`, `ready` and `get_all`, and those of each kind of
//!   dependency and of watches. See [`lifetimes`]. No generation ends without a failure that
//!   explains it. After the threads have stopped, no ready service depends on a failed instance
//!   (I2), and no service is left condemned (A3).
//! - **A reload switches all its members at one instant** (R1 to R3), by the same lifetimes, with
//!   supervised services: [`reloads`]. Services with a gap are down before it (S22), and adopters
//!   stay and never go back (S23).
//! - The checks accept correct histories and refuse wrong ones: [`checker`].
//!
//! ```text
//!   thread 0   |--- fail(config) ---|       |------ get(config): down, g 1 ------|
//!   thread 1         |-- replace(db): refused --|
//!   thread 2   |- get(db): 7 -|                    |-- get(db): 7 --|  wrong: `fail` has returned
//!   time       -------------------------------------------------------------------------------->
//! ```
//!
//! `MAINSTAY_HISTORY_OPS` is the number of recorded operations, a third of them for each of the
//! three tests. `MAINSTAY_SEED` determines what the threads do; the scheduler determines when. All
//! tests print their figures: `MAINSTAY_HISTORY_OPS=5000000 cargo test --release --test histories
//! -- --nocapture`.
//!
//! This test binary is of its own because the threads of a history must have the processors to
//! themselves.

mod across_services;
mod checker;
mod lifetimes;
mod linearize;
mod one_service;
mod reading;
mod record;
#[cfg(feature = "supervise")]
mod reloads;
mod service;
#[path = "../support/mod.rs"]
mod support;

use std::{
    env, fmt,
    sync::{Mutex, PoisonError},
    time::Instant,
};

use support::Seed;

/// The size and the duration of a run.
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

/// Runs one test at a time: the threads of two tests would only wait for each other.
fn one_at_a_time(name: &str, run: impl FnOnce(usize, &Seed) -> Figures) {
    static LOCK: Mutex<()> = Mutex::new(());
    let _lock = LOCK.lock().unwrap_or_else(PoisonError::into_inner);
    let operations = env::var("MAINSTAY_HISTORY_OPS")
        .map_or(100_000, |given| given.parse::<usize>().expect("MAINSTAY_HISTORY_OPS is a number"));
    let seed = Seed::new();
    println!("{name}: {}", run(operations / 3, &seed));
}

#[test]
fn one_service_is_linearizable() {
    one_at_a_time("one service", one_service::run);
}

#[test]
fn every_read_fits_into_the_lifetimes() {
    one_at_a_time("across services", across_services::run);
}

#[cfg(feature = "supervise")]
#[test]
fn every_switch_is_one_instant() {
    one_at_a_time("reloads", reloads::run);
}
