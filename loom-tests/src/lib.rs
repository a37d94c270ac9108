//! The parts that the models share: a runner that counts interleavings, services whose values
//! record the instances that they were built from, and the check of I2.
//!
//! `ci/models` runs the models, in three builds:
//!
//! - `tests/*.rs`, with `--cfg loom`: mainstay uses the atomics, locks and threads of loom;
//! - `tests/supervised_*.rs`, with `--cfg loom` and the feature `supervise`;
//! - `tests/retired_closure.rs`, with `--cfg crossbeam_loom` only: crossbeam-epoch uses the atomics
//!   and threads of loom.
//!
//! Without these flags this crate is empty: code that is built on loom runs only inside a model.
//!
//! Two rules make a model trustworthy:
//!
//! - Each actor is a spawned thread. The first thread only sets up, joins and checks, because loom
//!   hardly interleaves what the first thread does while other threads run.
//! - Each model fails on the fault that it guards against: `../faults/` shows this, with the
//!   results in `docs/faults.md`.
#![cfg(any(loom, crossbeam_loom))]

#[cfg(all(loom, feature = "supervise"))]
mod found;
#[cfg(loom)]
mod providers;
mod runner;
#[cfg(all(loom, feature = "supervise"))]
mod stalled;
#[cfg(all(loom, feature = "supervise"))]
mod switching;

#[cfg(all(loom, feature = "supervise"))]
pub use found::{Found, assert_at_once, assert_reads};
#[cfg(all(loom, feature = "supervise"))]
pub use mainstay::models::PausedClock;
#[cfg(loom)]
pub use providers::{
    Id, TestProvider, Value, assert_i2, join, now_or_never, read_state, services, try_publish,
};
pub use runner::model;
#[cfg(all(loom, feature = "supervise"))]
pub use stalled::{Stall, Stalled};
#[cfg(all(loom, feature = "supervise"))]
pub use switching::{
    DIAMOND, Up, assert_rests_on_current, chain, prepare, reload_chain, reload_diamond, up_chain,
    up_diamond, version,
};
