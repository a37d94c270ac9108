//! What the models share: a runner that counts, services whose values say what they rest on, and the
//! invariant that most of them come back to.
//!
//! `ci/models` runs them, in three builds:
//!
//! - `tests/*.rs`, with `--cfg loom`, by which mainstay is built on loom's atomics, locks and threads;
//! - `tests/supervised_*.rs`, with the feature `supervise`, too;
//! - `tests/retired_row.rs`, with `--cfg crossbeam_loom` alone, by which crossbeam-epoch is.
//!
//! Without these flags there is nothing here: what is built on loom runs only inside of a model.
//!
//! Two rules keep a model honest:
//!
//! - every actor is a spawned thread; the first thread only sets up, joins and checks. What runs on the first
//!   thread while others run is hardly interleaved;
//! - each model is shown to fail on the fault that it guards against: `../faults/`, and `docs/faults.md`.
#![cfg(any(loom, crossbeam_loom))]

#[cfg(loom)]
mod roles;
mod runner;

#[cfg(loom)]
pub use roles::{Id, Rests, Role, assert_i2, finish, join, look, now, plain, services};
pub use runner::model;
