//! How the number of instructions of an operation grows with the number of services: the
//! operations, and their limit.
//!
//! `benches/growth.rs` counts the instructions and compares them with the limit. The report prints
//! them.

mod declaring;
mod discovering;
mod ending;
mod failing;
mod graphs;
mod handles;
mod inspecting;
#[cfg(feature = "supervise")]
mod reloading;
mod services;
#[cfg(feature = "supervise")]
mod tolerating;

use std::hint::black_box;

use serde::{Deserialize, Serialize};

/// An operation on a registry of this number of services.
#[derive(Clone, Copy)]
pub struct Operation {
    /// Its name in the table; no other operation has it.
    pub name: &'static str,
    /// Builds a registry, performs the operation within one call of `counted`, and checks its
    /// effect.
    pub run: fn(usize),
    /// Whether a count above the limit is an error.
    pub limited: bool,
}

impl Operation {
    const fn new(name: &'static str, run: fn(usize)) -> Self {
        Self { name, run, limited: true }
    }
}

/// Returns all operations, in the order of the table.
pub fn operations() -> Vec<Operation> {
    [
        declaring::OPERATIONS,
        discovering::OPERATIONS,
        failing::OPERATIONS,
        handles::OPERATIONS,
        inspecting::OPERATIONS,
        ending::OPERATIONS,
        #[cfg(feature = "supervise")]
        tolerating::OPERATIONS,
        #[cfg(feature = "supervise")]
        reloading::OPERATIONS,
    ]
    .concat()
}

/// The function whose instructions are counted, as callgrind names it.
pub const COUNTED: &str = concat!(module_path!(), "::instructions_of_the_operation");

/// Runs the part of an operation that is counted. An operation calls this once.
fn counted<R>(work: impl FnOnce() -> R) -> R {
    let (mut work, mut result) = (Some(work), None);
    instructions_of_the_operation(&mut || result = work.take().map(|work| work()));
    result.expect("the work was called")
}

/// Never inlined, because callgrind counts from the call of this function to its return.
#[inline(never)]
fn instructions_of_the_operation(work: &mut dyn FnMut()) {
    work();
    // Without this, the last call could become a jump, and this function would have no return.
    black_box(());
}

/// The instructions of one operation with several numbers of services.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Growth {
    pub operation: String,
    pub limited: bool,
    /// In ascending order of the services. It ends at the first number that exceeds the limit.
    pub counts: Vec<Count>,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub struct Count {
    pub services: u64,
    pub instructions: u64,
}

/// Two adjacent counts, of which the second one is too large.
#[derive(Clone, Copy, Debug)]
pub struct Exceeded {
    /// The larger number of services.
    pub services: u64,
    /// The larger count divided by the smaller one.
    pub ratio: f64,
    pub limit: f64,
}

impl Count {
    /// Returns the number of instructions divided by n log2 n.
    pub fn each(&self) -> f64 {
        self.instructions as f64 / n_log_n(self.services)
    }
}

impl Growth {
    /// The factor by which a count may exceed n log n: allocators and hash tables grow in steps.
    pub const MARGIN: f64 = 1.25;

    /// Returns the first count that has grown by more than n log n from the one before it, apart
    /// from the margin.
    pub fn exceeded(&self) -> Option<Exceeded> {
        let grown = |pair: &[Count]| {
            let [smaller, larger] = *pair else { return None };
            let ratio = larger.instructions as f64 / smaller.instructions as f64;
            let limit = n_log_n(larger.services) / n_log_n(smaller.services) * Self::MARGIN;
            (ratio > limit).then_some(Exceeded { services: larger.services, ratio, limit })
        };
        self.counts.windows(2).find_map(grown)
    }
}

fn n_log_n(services: u64) -> f64 {
    let services = services as f64;
    services * services.log2()
}

/// The file in the directory of criterion's results in which `benches/growth.rs` writes a list of
/// `Growth`.
pub const FILE: &str = "growth.json";
